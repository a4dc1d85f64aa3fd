"""The training loop: one loop for a laptop, one GPU, or several under `torchrun`.

A step is always the same five moves: draw a batch, forward, backward, clip, update. Around it stand the things
that make a run trustworthy: a schedule for the learning rate, an exact evaluation on the whole validation
split, a log, and checkpoints from which a killed run goes on bit for bit (on the CPU).

Sources: Loshchilov & Hutter 2017 and 2019 (cosine schedule, AdamW), Hu et al. 2024 (warmup-stable-decay),
Jordan et al. 2024 (Muon), Micikevicius et al. 2018 (loss scaling).
"""

import json
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from . import checkpoint
from .data import get_batch
from .device import pick_device, precision_policy, synchronize
from .errors import CourseError
from .model import GPT
from .tokenizer import Tokenizer

SCHEDULES = ("cosine", "linear", "constant", "wsd")
OPTIMIZERS = ("adamw", "muon")
Record = dict[str, Any]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. One step sees `batch_size` sequences, however many pieces or processes share them.

    `accumulation_steps` cuts that batch into pieces which fit into memory; the gradient is the same.
    `min_lr` is where cosine, linear and wsd end; wsd decays over the last `decay_fraction` of the steps.
    `patience` stops after that many evaluations without a better validation loss. Intervals count steps.
    """

    max_steps: int = 2000
    batch_size: int = 12
    accumulation_steps: int = 1
    learning_rate: float = 1e-3
    min_lr: float = 0.0
    warmup_steps: int = 100
    schedule: str = "cosine"
    decay_fraction: float = 0.2
    optimizer: str = "adamw"
    muon_lr: float = 0.02
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    grad_clip: float = 1.0
    eval_interval: int = 250
    log_interval: int = 10
    checkpoint_interval: int = 250
    patience: int | None = None
    precision: str = "auto"
    compile: bool = False
    seed: int = 1337

    def __post_init__(self) -> None:
        for f in fields(self):
            value, least = getattr(self, f.name), 0 if f.name in ("warmup_steps", "seed") else 1
            if f.type is int and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise CourseError(f"{f.name} must be a whole number of at least {least}, not {value!r}.")
            if f.type is float and not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise CourseError(f"{f.name} must be a number of at least 0, not {value!r}.")
        if self.patience is not None and (not isinstance(self.patience, int) or self.patience < 1):
            raise CourseError(f"patience must be a whole number of at least 1, or None, not {self.patience!r}.")
        if self.schedule not in SCHEDULES:
            raise CourseError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}.")
        if self.optimizer not in OPTIMIZERS:
            raise CourseError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}.")
        if self.warmup_steps > self.max_steps:
            raise CourseError(f"warmup_steps ({self.warmup_steps}) must not exceed max_steps ({self.max_steps}).")
        if self.batch_size % self.accumulation_steps:
            raise CourseError(
                f"batch_size ({self.batch_size}) must be a multiple of accumulation_steps "
                f"({self.accumulation_steps}), so that every piece counts the same."
            )
        if max(self.beta1, self.beta2) >= 1 or self.decay_fraction > 1 or self.min_lr > self.learning_rate:
            raise CourseError("beta1, beta2 must be below 1, decay_fraction at most 1, min_lr at most learning_rate.")


def get_lr(step: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step`, counted from 0.

    Warmup rises in equal parts and reaches the peak at its last step; step 0 already moves. Afterwards the
    schedule runs from the peak, at step `warmup_steps`, to `min_lr`, at step `max_steps` and ever after.
    """
    peak, low, warmup = config.learning_rate, config.min_lr, config.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "constant":
        return peak
    start = warmup
    if config.schedule == "wsd":  # warmup, stable, decay
        start = max(warmup, round(config.max_steps * (1 - config.decay_fraction)))
    progress = min(1.0, max(0.0, (step - start) / max(1, config.max_steps - start)))
    if config.schedule == "cosine":
        return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * progress))
    return peak + (low - peak) * progress


def configure_optimizers(model: GPT, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a run: AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest.

    Matrices and embeddings get weight decay; biases and norm gains (one-dimensional) do not. Each parameter
    group carries its `peak_lr`, which the schedule scales.
    """
    named = dict(model.named_parameters())  # a tied matrix appears once
    muon = {n for n, p in named.items() if ".h." in n and p.ndim == 2} if config.optimizer == "muon" else set()
    rest = {n: p for n, p in named.items() if n not in muon}
    groups = [
        {"params": [p for p in rest.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)
    ]
    if muon:
        matrices = [named[n] for n in sorted(muon)]
        # lr is measured in updates of unit size for every matrix shape (Jordan et al. 2024, "original" scaling)
        optimizers.append(torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


@torch.no_grad()
def evaluate(
    model: GPT, data: Tensor | np.ndarray, block_size: int | None = None, batch_size: int = 64, precision: str = "auto"
) -> float:
    """Exact mean loss in nats per token over all of `data`, each token after the first scored once.

    The data is read in windows of `block_size` side by side (the last one may be shorter), so the number has
    no sampling noise. Training mode is restored afterwards.
    """
    T, device = block_size or model.config.block_size, model.lm_head.weight.device
    ids = torch.as_tensor(np.asarray(data).astype(np.int64) if isinstance(data, np.ndarray) else data).to(device)
    if len(ids) < 2:
        raise CourseError(f"Evaluation needs at least 2 tokens, not {len(ids)}.")
    x, y = ids[:-1].long(), ids[1:].long()
    full = len(x) // T * T
    batches = list(zip(x[:full].view(-1, T).split(batch_size), y[:full].view(-1, T).split(batch_size), strict=True))
    if full < len(x):
        batches.append((x[None, full:], y[None, full:]))
    was_training, policy = model.training, precision_policy(device, precision)
    model.eval()
    total = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for inputs, targets in batches:
        with policy.autocast(device):
            logits = model(inputs)
        total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
    model.train(was_training)
    return total.item() / len(x)


def fingerprint(data: Tensor | np.ndarray) -> int:
    """A number that tells two token files apart: checksum of length, head and tail."""
    n = 1 << 20
    ends = (np.asarray(part, dtype=np.int64).tobytes() for part in (data[:n], data[-n:]))
    return zlib.crc32(b"".join(ends), len(data))


class Trainer:
    """Trains `model` on token ids and keeps the log; with `out_dir` it also writes checkpoints and resumes.

    In `out_dir`: `last.pt` (everything needed to go on), `best.pt` (lowest validation loss), `log.jsonl` (one
    record a line). A record has step, tokens, lr, loss (mean of the steps since the last record, nats per token),
    grad_norm (before clipping), seconds, tokens_per_second, and val_loss where the model was evaluated; `on_eval`
    may add more there, such as a sample of text. Seconds count everything: steps, evaluations, files.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        train_data: Tensor | np.ndarray,
        val_data: Tensor | np.ndarray | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        out_dir: str | Path | None = None,
        resume: bool = False,
        device: str | torch.device = "auto",
        progress: bool = True,
        on_eval: Callable[[GPT], Record] | None = None,
    ) -> None:
        self.config, self.tokenizer, self.on_eval = config, tokenizer, on_eval
        self.rank, self.world_size, self.device = join_process_group(device)
        if config.batch_size % (config.accumulation_steps * self.world_size):
            raise CourseError(
                f"batch_size ({config.batch_size}) must be a multiple of accumulation_steps × processes "
                f"({config.accumulation_steps} × {self.world_size})."
            )
        for data, what in ((train_data, "training"), (val_data, "validation")):
            if data is not None and (len(data) < 2 or int(data.max()) >= model.config.vocab_size):
                raise CourseError(
                    f"The {what} data must hold at least 2 ids, all below vocab_size ({model.config.vocab_size})."
                )
        self.out_dir = Path(out_dir) if out_dir else None
        self.show = progress and self.rank == 0
        self.model = model.to(self.device)
        # Small corpora live on the device; a memory-mapped file stays on disk and is read a batch at a time.
        self.train_data = train_data.to(self.device) if isinstance(train_data, Tensor) else train_data
        self.val_data = val_data.to(self.device) if isinstance(val_data, Tensor) else val_data
        self.data_id = [fingerprint(train_data), 0 if val_data is None else fingerprint(val_data)]
        self.policy = precision_policy(self.device, config.precision)
        self.scaler = self.policy.scaler(self.device)
        self.optimizers = configure_optimizers(self.model, config)
        self.generator = torch.Generator().manual_seed(config.seed)  # draws the batches, and nothing else
        self.step, self.seconds, self.best_loss, self.bad_evals = 0, 0.0, math.inf, 0
        self.log: list[Record] = []
        self.losses: list[Tensor] = []  # of the steps since the last record, still on the device
        net: torch.nn.Module = torch.compile(self.model) if config.compile else self.model  # type: ignore[assignment]
        self.net = DistributedDataParallel(net) if self.world_size > 1 else net
        torch.manual_seed(config.seed + self.rank)  # dropout differs between processes
        if self.out_dir and (self.out_dir / "last.pt").exists():
            if not resume:
                raise CourseError(f"{self.out_dir} already holds a run: resume it, or choose another folder.")
            self.load(self.out_dir / "last.pt")

    # ---- one step ---------------------------------------------------------------------------------------

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """The pieces of the next batch. Every process draws the same batch and keeps its own rows."""
        x, y = get_batch(
            self.train_data, self.config.batch_size, self.model.config.block_size, self.generator, self.device
        )
        pieces = self.config.accumulation_steps
        for xs, ys in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
            yield xs[self.rank :: self.world_size], ys[self.rank :: self.world_size]

    def train_step(self) -> Tensor:
        """One update of the weights; returns the norm of the gradient before clipping, on the device."""
        c = self.config
        factor = get_lr(self.step, c) / c.learning_rate if c.learning_rate else 0.0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        loss_sum = torch.zeros((), device=self.device)
        for i, (x, y) in enumerate(self.batches()):
            if isinstance(self.net, DistributedDataParallel):  # exchange gradients once, with the last piece
                self.net.require_backward_grad_sync = i == c.accumulation_steps - 1
            with self.policy.autocast(self.device):
                logits = self.net(x)  # (B, T, V)
                loss = F.cross_entropy(logits.flatten(0, 1), y.flatten()) / c.accumulation_steps
            self.scaler.scale(loss).backward()
            loss_sum += loss.detach()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.grad_clip or math.inf)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.losses.append(loss_sum)
        self.step += 1
        return norm

    # ---- the loop -----------------------------------------------------------------------------------------

    def run(self) -> list[Record]:
        """Train to `max_steps` (or until patience runs out) and return the log."""
        c, start = self.config, time.perf_counter() - self.seconds
        bar = tqdm(
            total=c.max_steps, initial=self.step, disable=not self.show, unit="step", mininterval=0.5, file=sys.stdout
        )
        self.model.train()
        if self.step == 0 and self.val_data is not None and not self.log:
            self.write({"step": 0, "tokens": 0, **self.evaluate()})  # before any training: near ln V
        while self.step < c.max_steps and not self.out_of_patience():
            norm = self.train_step()
            last = self.step == c.max_steps
            evaluating = self.val_data is not None and (last or self.step % c.eval_interval == 0)
            if last or evaluating or self.step % c.log_interval == 0:
                record = self.record(norm, start)
                if evaluating:
                    record |= self.evaluate()
                self.write(record)
                bar.set_postfix_str(f"loss {record['loss']:.3f}", refresh=False)
            if evaluating or last or self.step % c.checkpoint_interval == 0:
                self.seconds = time.perf_counter() - start
                self.save(best=evaluating and self.bad_evals == 0)
            bar.update()
        bar.close()
        return self.log

    def record(self, norm: Tensor, start: float) -> Record:
        """The log record of this step. Reading the loss is the only place where the loop waits for the device."""
        c, loss = self.config, torch.stack(self.losses).mean()
        if self.world_size > 1:
            dist.all_reduce(loss, op=dist.ReduceOp.SUM)
            loss /= self.world_size
        synchronize(self.device)
        self.losses = []
        seconds, tokens = time.perf_counter() - start, self.step * c.batch_size * self.model.config.block_size
        return {
            "step": self.step,
            "tokens": tokens,
            "lr": get_lr(self.step - 1, c),
            "loss": loss.item(),
            "grad_norm": norm.item(),
            "seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
        }

    def evaluate(self) -> Record:
        """Validation loss now, and what `on_eval` adds; counts the evaluations since the best one."""
        assert self.val_data is not None
        loss = evaluate(self.model, self.val_data, precision=self.config.precision)
        self.bad_evals = 0 if loss < self.best_loss else self.bad_evals + 1
        self.best_loss = min(loss, self.best_loss)
        return {"val_loss": loss, **(self.on_eval(self.model) if self.on_eval else {})}

    def out_of_patience(self) -> bool:
        return self.config.patience is not None and self.bad_evals >= self.config.patience

    # ---- the files ------------------------------------------------------------------------------------------

    def write(self, record: Record) -> None:
        """Add a record to the log and, with `out_dir`, to `log.jsonl`."""
        self.log.append(record)
        if self.out_dir and self.rank == 0:
            self.out_dir.mkdir(parents=True, exist_ok=True)
            with open(self.out_dir / "log.jsonl", "a", encoding="utf-8") as f:
                f.write(json.dumps(record) + "\n")

    def save(self, best: bool = False) -> None:
        """Write `last.pt`, and the model alone to `best.pt` if this is the best so far."""
        random_states: list[Any] = [torch.get_rng_state()] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(random_states, torch.get_rng_state())
        if not self.out_dir or self.rank:
            return
        state = {
            "config": asdict(self.config),
            "data": self.data_id,
            "step": self.step,
            "seconds": self.seconds,
            "best_loss": self.best_loss,
            "bad_evals": self.bad_evals,
            "log": self.log,
            "losses": self.losses,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "batches": self.generator.get_state(),
            "random": random_states,
        }
        if best:
            summary = {"config": asdict(self.config), "step": self.step, "best_loss": self.best_loss}
            checkpoint.save(self.out_dir / "best.pt", self.model, self.tokenizer, summary)
        checkpoint.save(self.out_dir / "last.pt", self.model, self.tokenizer, state)

    def load(self, path: Path) -> None:
        """Go on from `last.pt`, exactly where it stopped; refuses other settings, another model or other data."""
        saved = checkpoint.load(path)
        state, now = saved.training, asdict(self.config)
        changed = [k for k in now if state["config"].get(k) != now[k]]
        changed += [] if saved.model.config == self.model.config else ["the model's configuration"]
        changed += [] if state["data"] == self.data_id else ["the data"]
        changed += [] if len(state["random"]) == self.world_size else ["the number of processes"]
        if changed:
            raise CourseError(
                f"The run in {path.parent} was started with different settings ({', '.join(changed)}), so going on "
                "would not give the same run: use its settings again, or choose another folder."
            )
        self.model.load_state_dict(saved.model.state_dict())
        for optimizer, s in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(s)
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["batches"])
        torch.set_rng_state(state["random"][self.rank])
        self.losses = [loss.to(self.device) for loss in state["losses"]]
        for name in ("step", "seconds", "best_loss", "bad_evals", "log"):
            setattr(self, name, state[name])
        if self.rank == 0:  # drop the records that a killed run wrote after its last checkpoint
            lines = "".join(json.dumps(r) + "\n" for r in self.log)
            checkpoint.write_atomically(path.parent / "log.jsonl", lambda f: f.write(lines.encode()))


def join_process_group(device: str | torch.device) -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this process; joins the group when started by `torchrun`."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return 0, 1, pick_device(device)
    local = pick_device(device)
    if local.type == "cuda":
        local = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if local.type == "cuda" else "gloo")
    return dist.get_rank(), world_size, local
