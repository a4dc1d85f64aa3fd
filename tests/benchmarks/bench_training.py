"""Training against nanoGPT's CPU recipe: how long until its validation loss, and how good after its time.

The peer is nanoGPT's own `train.py`, run unchanged in a copy of its folder with the settings of its README for a
CPU: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 steps. Everybody has one thread, and what counts is its
CPU time while it trains, without imports and evaluations: a busy machine disturbs that little. Runs are interleaved.

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
from torch import Tensor

from llmcourse import data, recipes
from llmcourse.data import get_batch
from llmcourse.evaluation import evaluate
from llmcourse.model import GPT, GPTConfig
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


def judge(model: GPT, val: Tensor, seconds: float) -> Outcome:
    """The three losses of a model."""
    whole, untouched = (evaluate(model, part, batch_size=256) for part in (val, val[len(val) // 2 :]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        batches = (get_batch(val, BATCH, WINDOW, generator) for _ in range(200))
        random = mean(model.eval().loss(x, y).item() for x, y in batches)
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


def run_ours(name: str, seed: int, **settings: Any) -> Outcome:
    """One of our recipes."""
    recipe = recipes.get(name).with_settings(seed=1337 + seed, eval_interval=10**6, **settings)
    model, _, train, val = recipes.prepare(recipe)
    trainer = Trainer(model, recipe.train_config(), train, device="cpu", progress=False)
    start = time.process_time()
    trainer.run()
    return judge(model, val, time.process_time() - start)


def measure(nanogpt: Path | None, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows for the table; without a nanoGPT folder there is no peer and nothing is measured."""
    if nanogpt is None:
        return []
    val = recipes.prepare(recipes.get("canonical"))[3]
    theirs: list[Outcome] = []
    short: dict[str, list[Outcome]] = {name: [] for name in RECIPES}  # until its loss
    equal: dict[str, list[Outcome]] = {name: [] for name in RECIPES}  # for its time
    for seed in range(repeats):
        theirs.append(run_nanogpt(nanogpt, val, seed))
        for name in RECIPES:
            short[name].append(run_ours(name, seed))
            step = short[name][-1].seconds / recipes.get(name).train_config().max_steps
            equal[name].append(run_ours(name, seed, max_steps=int(theirs[-1].seconds / step)))
            print(f"  seed {seed}, {name}: {short[name][-1]}, {equal[name][-1]} against {theirs[-1]}", flush=True)
    return [row | {"peer_name": "nanoGPT"} for name in RECIPES for row in rows(name, theirs, short[name], equal[name])]


def rows(name: str, theirs: list[Outcome], short: list[Outcome], equal: list[Outcome]) -> list[dict[str, Any]]:
    """The rows of one recipe, from the outcomes of each seed.

    The steps that fit into nanoGPT's time are known only from a shorter run, so the longer one misses it a little: the
    rows say by how much.
    """
    goal = median(t.whole for t in theirs) - MARGIN
    reached = sum(o.whole <= goal for o in short)
    worst = max(o.whole for o in short)
    time_row = {
        "what": f"train, {name} recipe: time to nanoGPT's loss − {MARGIN} (at most {goal:.3f}; ours {worst:.3f} at "
        f"worst, reached by {reached} of {len(short)} seeds)",
        "ours": median(o.seconds for o in short),
        "peer": median(t.seconds for t in theirs),
        "ratio": median(t.seconds / o.seconds for t, o in zip(theirs, short, strict=True)),
        "unit": "s",
    }
    share = median(o.seconds / t.seconds for t, o in zip(theirs, equal, strict=True))
    loss_rows = []
    for key, words in LOSSES.items():
        ours, peer = (median(getattr(o, key) for o in runs) for runs in (equal, theirs))
        what = f"train, {name} recipe: loss after nanoGPT's time (ours took {share:.2f} of it), {words}"
        loss_rows.append({"what": what, "ours": ours, "peer": peer, "ratio": peer / ours, "unit": "nats/char"})
    return [time_row, *loss_rows]
