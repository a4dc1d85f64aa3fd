"""Training against nanoGPT's CPU recipe: how long until its validation loss, and how good after its time.

The peer is nanoGPT's own `train.py`, run unchanged in a copy of its folder with the settings of its README for a
CPU: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 steps. Everybody has one thread, and what counts is its
CPU time while it trains, without imports and evaluations: a busy machine disturbs that little. Runs are interleaved.

The fast recipe is also measured beside a table: half of each bet is its own, half a 6-gram's that was counted on the
same text, and the counting is a part of its time.

Three losses, the same for every model, in nats per character: over the whole validation split in windows of 64, each
character scored once; over its second half alone, on which nothing was tuned; and as nanoGPT's script estimates it, on
200 random batches.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse import data, recipes
from llmcourse.data import get_batch
from llmcourse.evaluation import evaluate
from llmcourse.model import GPT, GPTConfig
from llmcourse.ngram import KneserNey
from llmcourse.trainer import Trainer

STEPS, BATCH, WINDOW = 2000, 12, 64
RECIPES = ("canonical", "fast")
MARGIN = 0.012  # “reached” means this much below nanoGPT's loss, more than the spread between seeds
README_RECIPE = (
    f"--device=cpu --compile=False --eval_iters=1 --log_interval=1 --block_size={WINDOW} --batch_size={BATCH} "
    f"--n_layer=4 --n_head=4 --n_embd=128 --max_iters={STEPS} --lr_decay_iters={STEPS} --dropout=0.0 "
    f"--eval_interval={STEPS} --always_save_checkpoint=True"  # evaluates and saves at step 2000
).split()
LOSSES = {"whole": "whole split", "untouched": "untouched half", "random": "nanoGPT's protocol"}


@dataclass
class Outcome:
    """What one training run took and gave."""

    seconds: float
    whole: float
    untouched: float
    random: float


class BesideTable(nn.Module):
    """A GPT and a table of n-grams, mixed: half of the probability of each next token comes from either.

    The shares were chosen on the first half of the validation split, among tenths.
    """

    def __init__(self, gpt: GPT, table: KneserNey) -> None:
        super().__init__()
        self.gpt, self.table = gpt, table
        self.config, self.lm_head = gpt.config, gpt.lm_head

    def forward(self, idx: Tensor) -> Tensor:
        """Log-probabilities `(B, T, V)` of the next tokens, from `idx (B, T)`: as good as logits."""
        counted = torch.from_numpy(self.table.distributions(idx.numpy())).float()
        return (0.5 * self.gpt(idx).softmax(dim=-1) + 0.5 * counted).log()


def judge(model: Any, val: Tensor, seconds: float) -> Outcome:
    """The three losses of a model that gives logits."""
    whole, untouched = (evaluate(model, part, batch_size=256) for part in (val, val[len(val) // 2 :]))
    generator = torch.Generator().manual_seed(1)
    model.eval()
    with torch.no_grad():
        batches = (get_batch(val, BATCH, WINDOW, generator) for _ in range(200))
        random = mean(F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item() for x, y in batches)
    return Outcome(seconds, whole, untouched, random)


def run_nanogpt(folder: Path, val: Tensor, seed: int) -> Outcome:
    """Its own script in a temporary copy of its folder."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "nanoGPT"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git", "assets", "*.ipynb"))
        corpus = copy / "data" / "shakespeare_char"
        text = data.load()
        chars = sorted(set(text))
        stoi = {c: i for i, c in enumerate(chars)}
        ids = np.array([stoi[c] for c in text], dtype=np.uint16)
        n = len(ids) - len(val)
        ids[:n].tofile(corpus / "train.bin")
        ids[n:].tofile(corpus / "val.bin")
        meta = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": stoi}
        (corpus / "meta.pkl").write_bytes(pickle.dumps(meta))
        script = (copy / "train.py").read_text().replace("torch.manual_seed(1337", f"torch.manual_seed({1337 + seed}")
        (copy / "train.py").write_text(script)
        process = subprocess.Popen(
            [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py", *README_RECIPE],
            cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout
        script_clock = psutil.Process(process.pid)
        first = last = 0.0
        tail: list[str] = []
        for line in process.stdout:
            tail = [*tail[-20:], line]
            if line.startswith("iter "):
                last = script_clock.cpu_times().user
                first = first or last
        if process.wait():
            raise RuntimeError("nanoGPT's train.py failed:\n" + "".join(tail))
        saved = torch.load(copy / "out-shakespeare-char" / "ckpt.pt", map_location="cpu", weights_only=True)
    a = saved["model_args"]
    shape = {k: a[k] for k in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "bias")}
    model = GPT(GPTConfig(**shape, activation="gelu"))  # its names and layout are GPT-2's, like ours
    model.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in saved["model"].items()})
    return judge(model, val, last - first)


def train_ours(name: str, seed: int, **settings: Any) -> tuple[GPT, float]:
    """A model trained with one of our recipes, and the seconds that took."""
    recipe = recipes.get(name).with_settings(seed=1337 + seed, eval_interval=10**6, **settings)
    model, _, train, _ = recipes.prepare(recipe)
    trainer = Trainer(model, recipe.train_config(), train, device="cpu", progress=False)
    start = time.process_time()
    trainer.run()
    return model, time.process_time() - start


def count(train: Tensor) -> tuple[KneserNey, float]:
    """The 6-gram of the training text, and the seconds it took to count."""
    start = time.process_time()
    table = KneserNey(6, int(train.max()) + 1, "modified").fit(train.numpy())
    return table, time.process_time() - start


def measure(nanogpt: Path | None, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows for the table; without a nanoGPT folder there is no peer and nothing is measured."""
    if nanogpt is None:
        return []
    _, _, train, val = recipes.prepare(recipes.get("canonical"))
    theirs: list[Outcome] = []
    short: dict[str, list[Outcome]] = {name: [] for name in RECIPES}  # until its loss
    equal: dict[str, list[Outcome]] = {name: [] for name in RECIPES}  # for its time
    beside: list[Outcome] = []  # the fast one of these, beside a table
    pace: dict[str, float] = {}  # seconds of a step, from the longest run so far
    for seed in range(repeats):
        theirs.append(run_nanogpt(nanogpt, val, seed))
        for name in RECIPES:
            model, seconds = train_ours(name, seed)
            short[name].append(judge(model, val, seconds))
            steps = int(theirs[-1].seconds / pace.get(name, seconds / recipes.get(name).train_config().max_steps))
            model, seconds = train_ours(name, seed, max_steps=steps)
            pace[name] = seconds / steps
            equal[name].append(judge(model, val, seconds))
            print(f"  seed {seed}, {name}: {short[name][-1]}, {equal[name][-1]} against {theirs[-1]}", flush=True)
        table, counting = count(train)
        beside.append(judge(BesideTable(model, table), val, seconds + counting))
        print(f"  seed {seed}, {name} beside a 6-gram: {beside[-1]}", flush=True)
    found = []
    for name in RECIPES:
        found += [time_row(name, theirs, short[name]), *loss_rows(f"{name} recipe", theirs, equal[name])]
    found += loss_rows("fast recipe beside a 6-gram", theirs, beside)
    return [row | {"peer_name": "nanoGPT"} for row in found]


def time_row(name: str, theirs: list[Outcome], ours: list[Outcome]) -> dict[str, Any]:
    """How long a recipe takes to a loss that is surely below the peer's."""
    goal = median(t.whole for t in theirs) - MARGIN
    reached = sum(o.whole <= goal for o in ours)
    worst = max(o.whole for o in ours)
    return {
        "what": f"train, {name} recipe: time to nanoGPT's loss − {MARGIN} (at most {goal:.3f}; ours {worst:.3f} at "
        f"worst, reached by {reached} of {len(ours)} seeds)",
        "ours": median(o.seconds for o in ours),
        "peer": median(t.seconds for t in theirs),
        "ratio": median(t.seconds / o.seconds for t, o in zip(theirs, ours, strict=True)),
        "unit": "s",
    }


def loss_rows(what: str, theirs: list[Outcome], ours: list[Outcome]) -> list[dict[str, Any]]:
    """The losses after the peer's time.

    The steps that fit into that time are known only from the runs before, so the run misses it a little: the rows say
    by how much.
    """
    share = median(o.seconds / t.seconds for t, o in zip(theirs, ours, strict=True))
    found = []
    for key, words in LOSSES.items():
        our, peer = (median(getattr(o, key) for o in runs) for runs in (ours, theirs))
        row = {"ours": our, "peer": peer, "ratio": peer / our, "unit": "nats/char"}
        found.append(row | {"what": f"train, {what}: loss after nanoGPT's time (ours took {share:.2f} of it), {words}"})
    return found
