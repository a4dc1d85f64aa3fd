"""Training against nanoGPT's CPU recipe: how long until its validation loss, and how good after its time.

The peer is nanoGPT's own `train.py`, run unchanged in a copy of its folder with the settings of its README for a
CPU: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 steps. Every model is then judged in the same way: mean
nats per character over the whole validation split, in windows of 64, each character scored once. Runs are
interleaved; clocks count training only, not imports and not the final evaluation.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from llmcourse import data, recipes
from llmcourse.model import GPT, GPTConfig
from llmcourse.trainer import Trainer, evaluate

STEPS = 2000
MARGIN = 0.012  # “reached” means this much below nanoGPT's loss, more than the spread between seeds
README_RECIPE = (
    "--device=cpu --compile=False --eval_iters=1 --eval_interval=100000 --log_interval=1 --block_size=64 "
    f"--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters={STEPS} --lr_decay_iters={STEPS} --dropout=0.0"
).split()


def run_nanogpt(folder: Path, val: torch.Tensor, seed: int) -> tuple[float, float]:
    """Seconds of its training and its loss, from its own script in a temporary copy of its folder."""
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
        # Its script evaluates and saves at multiples of eval_interval, which includes step 2000 here.
        settings = [*README_RECIPE, f"--eval_interval={STEPS}", "--always_save_checkpoint=True"]
        script = (copy / "train.py").read_text().replace("torch.manual_seed(1337", f"torch.manual_seed({1337 + seed}")
        (copy / "train.py").write_text(script)
        process = subprocess.Popen(
            [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py", *settings],
            cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )  # fmt: skip
        assert process.stdout
        first = last = 0.0
        tail: list[str] = []
        for line in process.stdout:
            tail = [*tail[-20:], line]
            if line.startswith("iter "):
                last = time.perf_counter()
                first = first or last
        if process.wait():
            raise RuntimeError("nanoGPT's train.py failed:\n" + "".join(tail))
        saved = torch.load(copy / "out-shakespeare-char" / "ckpt.pt", map_location="cpu", weights_only=True)
    a = saved["model_args"]
    shape = {k: a[k] for k in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "bias")}
    model = GPT(GPTConfig(**shape, activation="gelu"))  # its names and layout are GPT-2's, like ours
    model.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in saved["model"].items()})
    return last - first, evaluate(model, val, batch_size=256)


def run_ours(name: str, seed: int, **settings: Any) -> tuple[float, float]:
    """Seconds of training and loss of one of our recipes."""
    recipe = recipes.get(name).with_settings(seed=1337 + seed, eval_interval=10**6, **settings)
    model, _, train, val = recipes.prepare(recipe)
    start = time.perf_counter()
    Trainer(model, recipe.train_config(), train, progress=False).run()
    seconds = time.perf_counter() - start
    return seconds, evaluate(model, val, batch_size=256)


def measure(nanogpt: Path | None, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows for the table; without a nanoGPT folder there is no peer and nothing is measured."""
    if nanogpt is None:
        return []
    _, val = data.split(torch.tensor(recipes.prepare(recipes.get("canonical"))[1].encode(data.load())))
    results: dict[str, list[tuple[float, float]]] = {"nanogpt": [], "canonical": [], "fast": []}
    equal_time: dict[str, list[tuple[float, float]]] = {"canonical": [], "fast": []}
    for seed in range(repeats):
        results["nanogpt"].append(run_nanogpt(nanogpt, val, seed))
        for name in ("canonical", "fast"):
            results[name].append(run_ours(name, seed))
            seconds_per_step = results[name][-1][0] / recipes.get(name).train_config().max_steps
            steps = int(results["nanogpt"][-1][0] / seconds_per_step)
            equal_time[name].append(run_ours(name, seed, max_steps=steps))
        print(f"  seed {seed}: {({k: v[-1] for k, v in results.items()})} at equal time {equal_time}", flush=True)
    peer_seconds = median(s for s, _ in results["nanogpt"])
    peer_loss = median(loss for _, loss in results["nanogpt"])
    rows = []
    for name in ("canonical", "fast"):
        losses = [loss for _, loss in results[name]]
        reached = sum(loss <= peer_loss - MARGIN for loss in losses)
        ratios = [p[0] / o[0] for p, o in zip(results["nanogpt"], results[name], strict=True)]
        rows.append(
            {
                "what": f"train, {name} recipe: time to nanoGPT's loss − {MARGIN} "
                f"(ours {max(losses):.3f} at worst, its {peer_loss:.3f}; reached by {reached} of {repeats} seeds)",
                "ours": median(s for s, _ in results[name]),
                "peer": peer_seconds,
                "peer_name": "nanoGPT",
                "ratio": median(ratios),
                "unit": "s",
            }
        )
        ours = median(loss for _, loss in equal_time[name])
        rows.append(
            {
                "what": f"train, {name} recipe: loss after nanoGPT's time",
                "ours": ours,
                "peer": peer_loss,
                "peer_name": "nanoGPT",
                "ratio": peer_loss / ours,
                "unit": "nats/char",
            }
        )
    return rows
