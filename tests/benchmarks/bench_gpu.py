"""Training on a GPU against nanoGPT's model and optimizer: milliseconds a step, and the share of the chip they use.

Both are nanoGPT's recipe for a GPU: 6 layers, 6 heads, 384 wide, context 256, batch 64, dropout 0.2, the precision
that the chip computes in. Steps are taken in turns, first as the code stands and then compiled; compiling is timed
by itself. FLOPs are counted as in its script: 6 for each parameter and token, 12 · layers · width · context for the
attention of a token, both passes together.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nanogpt import load_module

from llmcourse.device import precision_policy, synchronize
from llmcourse.model import GPT, GPTConfig
from llmcourse.trainer import TrainConfig, Trainer

SHAPE = {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "dropout": 0.2}
BATCH, VOCAB_SIZE = 64, 65
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}  # 16-bit, dense: data sheets
Step = Callable[[], Any]


def our_step(device: torch.device, compiled: bool, shape: dict[str, Any], batch: int) -> Step:
    """A step of our trainer, with everything that belongs to it."""
    model = GPT(GPTConfig(vocab_size=VOCAB_SIZE, bias=False, **shape))
    ids = torch.randint(VOCAB_SIZE, (100_000,))
    trainer = Trainer(model, TrainConfig(batch_size=batch, compile=compiled), ids, device=device, progress=False)
    trainer.model.train()

    def step() -> None:
        trainer.train_step()
        trainer.losses.clear()

    return step


def their_step(nanogpt: Path, device: torch.device, compiled: bool, shape: dict[str, Any], batch: int) -> Step:
    """The same with its model, its optimizer and the loop of its script."""
    module = load_module(nanogpt)
    with contextlib.redirect_stdout(None):
        model = module.GPT(module.GPTConfig(vocab_size=VOCAB_SIZE, bias=False, **shape)).to(device)
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), device.type)
    policy = precision_policy(device)
    scaler = policy.scaler(device)
    net = torch.compile(model) if compiled else model
    ids, T = torch.randint(VOCAB_SIZE, (100_000,)), shape["block_size"]

    def step() -> None:
        at = torch.randint(len(ids) - T, (batch,)).tolist()
        x, y = (torch.stack([ids[i + shift : i + shift + T] for i in at]) for shift in (0, 1))
        if device.type == "cuda":
            x, y = (t.pin_memory().to(device, non_blocking=True) for t in (x, y))
        with policy.autocast(device):
            _, loss = net(x, y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds_of(step: Step, device: torch.device, steps: int) -> float:
    """Wall-clock seconds of one step, the device waited for at the end."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return (time.perf_counter() - start) / steps


def flops_of_a_step(shape: dict[str, Any], batch: int) -> float:
    """Floating-point operations of one step, forward and backward."""
    parameters = GPT(GPTConfig(vocab_size=VOCAB_SIZE, bias=False, **shape)).num_params(non_embedding=True)
    a_token = 6 * parameters + 12 * shape["n_layer"] * shape["n_embd"] * shape["block_size"]
    return a_token * batch * shape["block_size"]


def measure(
    nanogpt: Path | None, repeats: int = 3, device: str = "cuda", shape: dict[str, Any] = SHAPE, batch: int = BATCH,
    steps: int = 50, compiling: tuple[bool, ...] = (False, True),
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows for the table; nothing is measured without a GPU or without a nanoGPT folder."""
    if nanogpt is None or (device == "cuda" and not torch.cuda.is_available()):
        return []
    target = torch.device(device)
    name = torch.cuda.get_device_name(target) if target.type == "cuda" else "CPU"
    peak = next((flops for chip, flops in PEAK.items() if chip in name), None)
    rows = []
    for compiled in compiling:
        contestants = {
            "ours": our_step(target, compiled, shape, batch),
            "nanoGPT": their_step(nanogpt, target, compiled, shape, batch),
        }
        first = {who: seconds_of(step, target, 3) * 3 for who, step in contestants.items()}  # compiles
        times: dict[str, list[float]] = {who: [] for who in contestants}
        for repeat in range(repeats):
            for who in list(contestants)[:: -1 if repeat % 2 else 1]:
                times[who].append(seconds_of(contestants[who], target, steps))
        ours, theirs = (median(times[who]) for who in contestants)
        way = "compiled" if compiled else "as it stands"
        used = [f"{flops_of_a_step(shape, batch) / t / peak:.0%}" if peak else "?" for t in (ours, theirs)]
        what = f"step, {way}, on {name} ({used[0]} of its peak, theirs {used[1]})"
        rows.append({"what": what, "ours": 1000 * ours, "peer": 1000 * theirs, "ratio": theirs / ours, "unit": "ms"})
        if compiled:
            what = f"first three steps, compiling included, on {name}"
            a, b = first.values()
            rows.append({"what": what, "ours": a, "peer": b, "ratio": b / a, "unit": "s"})
    return [row | {"peer_name": "nanoGPT"} for row in rows]
