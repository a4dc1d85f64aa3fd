"""The training loop: one loop for a laptop, one GPU, or several under `torchrun`.

A step is always the same five moves: draw a batch, forward, backward, clip, update. Around it stand the things
that make a run trustworthy: a schedule for the learning rate, an exact evaluation on the whole validation
split, a log, and checkpoints from which a killed run goes on bit for bit (on the CPU).

Sources: Loshchilov & Hutter 2017 and 2019 (cosine schedule, AdamW), Hu et al. 2024 (warmup-stable-decay),
Jordan et al. 2024 (Muon), Micikevicius et al. 2018 (loss scaling).
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from . import checkpoint
from .data import Tokens, get_batch
from .device import PRECISIONS, join_process_group, precision_policy, random_state, set_random_state, synchronize
from .errors import CourseError
from .evaluation import checked_ids, evaluate, fingerprint
from .files import alone, atomic_file, plain, remove_unfinished, writing
from .model import GPT
from .muon import Muon
from .tokenizer import Tokenizer

SCHEDULES = ("cosine", "linear", "constant", "wsd")
OPTIMIZERS = ("adamw", "muon")
Record = dict[str, Any]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. One step sees `batch_size` sequences, however many pieces or processes share them.

    `accumulation_steps` cuts that batch into pieces which fit into memory; the gradient is the same.
    `muon_lr` and `muon_rounds` are explained in `muon.py`; the schedule scales both learning rates alike.
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
    muon_rounds: int = 5
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
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if f.type is int and not (number and isinstance(value, int) and least <= value < 2**63):
                raise CourseError(f"{f.name} must be a whole number of at least {least}, not {value!r}.")
            if f.type is float and not (number and 0 <= value <= sys.float_info.max):
                raise CourseError(f"{f.name} must be a number of at least 0, not {value!r}.")
            if f.type is bool and not isinstance(value, bool):
                raise CourseError(f"{f.name} must be True or False, not {value!r}.")
        if self.patience is not None and (type(self.patience) is not int or self.patience < 1):
            raise CourseError(f"patience must be a whole number of at least 1, or None, not {self.patience!r}.")
        precisions = ("auto", *PRECISIONS)
        for name, known in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS), ("precision", precisions)):
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in known:
                raise CourseError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")
        for name in ("beta1", "beta2"):
            if getattr(self, name) >= 1:
                raise CourseError(f"{name} must be below 1, not {getattr(self, name)!r}.")
        if self.decay_fraction > 1:
            raise CourseError(f"decay_fraction must be at most 1 (all steps), not {self.decay_fraction!r}.")
        for name, limit in (("min_lr", "learning_rate"), ("warmup_steps", "max_steps")):
            if getattr(self, name) > getattr(self, limit):
                raise CourseError(
                    f"{name} ({getattr(self, name)}) must not exceed {limit} ({getattr(self, limit)}): lower it too."
                )
        if self.batch_size % self.accumulation_steps:
            raise CourseError(
                f"batch_size ({self.batch_size}) must be a multiple of accumulation_steps "
                f"({self.accumulation_steps}), so that every piece counts the same."
            )


def get_lr(step: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step`, counted from 0.

    Warmup rises in equal parts and reaches the peak at its last step; step 0 already moves. Afterwards the
    schedule runs from the peak, at step `warmup_steps`, to `min_lr`, at step `max_steps` and ever after.
    """
    peak, low, start = config.learning_rate, config.min_lr, config.warmup_steps
    if step < config.warmup_steps:
        return peak * ((step + 1) / config.warmup_steps)
    if config.schedule == "wsd":  # warmup, stable, decay
        start = max(start, round(config.max_steps * (1 - config.decay_fraction)))
    if step >= config.max_steps and config.schedule != "constant":
        return low
    if step <= start or config.schedule == "constant":
        return peak
    progress = (step - start) / (config.max_steps - start)  # between 0 and 1
    share = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return low + (peak - low) * share


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
        optimizers.append(Muon(matrices, config.muon_lr, weight_decay=config.weight_decay, rounds=config.muon_rounds))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


# What `last.pt` holds about the training besides the weights; the first line are attributes of the Trainer.
PROGRESS = ("step", "seconds", "best_loss", "bad_evals", "log")
STATE = ("config", "data", "optimizers", "scaler", "batches", "processes", *PROGRESS)


class Trainer:
    """Trains `model` on token ids and keeps the log; with `out_dir` it also writes checkpoints and resumes.

    In `out_dir`: `last.pt` (everything needed to go on), `best.pt` (lowest validation loss), `log.jsonl` (one
    record a line). A record has step, tokens, lr, loss (mean of the steps since the last record, nats per token),
    grad_norm (before clipping), seconds (of everything: steps, evaluations, files), tokens_per_second (of the
    steps alone, since the last record), and val_loss where the model was evaluated; `on_eval` may add more there,
    such as a sample of text. A first record gives the val_loss before any training. In the file, which is strict
    JSON, nan and infinity stand as null.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        train_data: Tokens,
        val_data: Tokens | None = None,
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
        V, T = model.config.vocab_size, model.config.block_size
        train_data = checked_ids(train_data, V, least=T + 1)
        val_data = None if val_data is None else checked_ids(val_data, V)
        self.data_id = [fingerprint(train_data), None if val_data is None else fingerprint(val_data)]
        # Small corpora live on the device; a memory-mapped file stays on disk and is read a batch at a time.
        self.train_data = train_data.to(self.device) if isinstance(train_data, Tensor) else train_data
        self.val_data = val_data.to(self.device) if isinstance(val_data, Tensor) else val_data
        self.policy = precision_policy(self.device, config.precision)
        self.scaler = self.policy.scaler(self.device)
        self.out_dir = Path(out_dir) if out_dir else None
        self.show = progress and self.rank == 0
        self.model = model.to(self.device)
        self.optimizers = configure_optimizers(self.model, config)
        self.generator = torch.Generator().manual_seed(config.seed)  # draws the batches, and nothing else
        self.step, self.seconds, self.best_loss, self.bad_evals = 0, 0.0, math.inf, 0
        self.begun = False  # whether what `out_dir` holds is this run
        self.log: list[Record] = []
        self.losses: list[Tensor] = []  # of the steps since the last record, still on the device
        net: torch.nn.Module = torch.compile(self.model) if config.compile else self.model  # type: ignore[assignment]
        self.net = DistributedDataParallel(net, broadcast_buffers=False) if self.world_size > 1 else net
        torch.manual_seed(config.seed + self.rank)  # dropout differs between processes
        if self.out_dir:
            self.open_folder(self.out_dir, resume)

    # ---- one step ---------------------------------------------------------------------------------------

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """The pieces of the next batch. Every process draws the same batch and keeps its own rows."""
        c, T = self.config, self.model.config.block_size
        x, y = get_batch(self.train_data, c.batch_size, T, self.generator, self.device)  # (B, T) each
        for xs, ys in zip(x.chunk(c.accumulation_steps), y.chunk(c.accumulation_steps), strict=True):
            yield xs[self.rank :: self.world_size], ys[self.rank :: self.world_size]

    def train_step(self) -> Tensor:
        """One update of the weights; returns the norm of the gradient before clipping, on the device."""
        c = self.config
        factor = get_lr(self.step, c) / c.learning_rate if c.learning_rate else 0.0
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        ddp = self.net if isinstance(self.net, DistributedDataParallel) else None
        loss_sum = torch.zeros((), device=self.device)
        for piece, (x, y) in enumerate(self.batches(), start=1):
            more = piece < c.accumulation_steps  # processes exchange their gradients once, with the last piece
            with ddp.no_sync() if ddp and more else contextlib.nullcontext():
                with self.policy.autocast(self.device):
                    logits = self.net(x)  # (B, T, V)
                    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten()) / c.accumulation_steps
                self.scaler.scale(loss).backward()
            loss_sum += loss.detach()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.grad_clip or math.inf)
        # The scaler judges each optimizer by its own gradients, but clipping has spread an overflow in one of them to
        # all: with Muon and AdamW either both step or none.
        if len(self.optimizers) == 1 or not self.scaler.is_enabled() or norm.isfinite():
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        self.losses.append(loss_sum)
        self.step += 1
        return norm

    # ---- the loop -----------------------------------------------------------------------------------------

    def run(self) -> list[Record]:
        """Train to `max_steps` (or until patience runs out) and return the log.

        Raises CourseError if the run diverges: from weights that are no numbers every step leads to such weights.
        """
        c, start = self.config, time.perf_counter() - self.seconds
        silent: Record = {} if self.show else {"disable": True}  # a bar that is wanted still obeys TQDM_DISABLE
        with contextlib.ExitStack() as stack:
            if self.out_dir and self.rank == 0:
                stack.enter_context(alone(self.out_dir))
            self.begin()
            self.model.train()
            bar = tqdm(total=c.max_steps, initial=self.step, unit="step", file=sys.stdout, mininterval=0.5, **silent)
            stack.enter_context(bar)
            mark = self.step, time.perf_counter()  # the speed is measured from here
            while self.step < c.max_steps and not self.out_of_patience():
                norm = self.train_step()
                last = self.step == c.max_steps
                evaluating = self.val_data is not None and (last or self.step % c.eval_interval == 0)
                logging = evaluating or last or self.step % c.log_interval == 0
                saving = evaluating or last or self.step % c.checkpoint_interval == 0
                diverged = (logging or saving) and self.diverged()
                if logging or diverged:
                    record = self.record(norm, start, *mark)
                    bar.set_postfix_str(
                        f"loss {record['loss']:.3f}, {record['tokens_per_second']:,.0f} tokens/s", refresh=False
                    )
                    self.write(record | self.evaluate() if evaluating and not diverged else record)
                if diverged:
                    kept = f", in another folder: {self.out_dir} keeps the checkpoints from before" * bool(self.out_dir)
                    raise CourseError(
                        f"Training diverged: at step {self.step} some weights are nan or infinite, which no step can "
                        f"mend; start again with a learning_rate below {c.learning_rate:g} or more warmup{kept}."
                    )
                self.tick(start)
                if saving:
                    self.save(best=evaluating and self.bad_evals == 0)
                if logging or saving:
                    mark = self.step, time.perf_counter()
                bar.update()
        return self.log

    def record(self, norm: Tensor, start: float, mark_step: int, mark_time: float) -> Record:
        """The log record of this step. Reading the loss is the only place where the loop waits for the device."""
        c, loss = self.config, torch.stack(self.losses).mean()
        if self.world_size > 1:
            dist.all_reduce(loss)
            loss /= self.world_size
        synchronize(self.device)
        self.losses = []
        now, tokens_a_step = time.perf_counter(), c.batch_size * self.model.config.block_size
        passed = max(now - mark_time, 1e-6)  # a clock may stand still, or go back
        return {
            "step": self.step,
            "tokens": self.step * tokens_a_step,
            "lr": get_lr(self.step - 1, c),
            "loss": loss.item(),
            "grad_norm": norm.item(),
            "seconds": round(self.tick(start), 3),
            "tokens_per_second": round((self.step - mark_step) * tokens_a_step / passed, 1),
        }

    def tick(self, start: float) -> float:
        """Bring `seconds` up to date; a clock that goes back takes none away."""
        self.seconds = max(self.seconds, time.perf_counter() - start)
        return self.seconds

    def diverged(self) -> bool:
        """Whether a weight is nan or infinite. Their norm is quick and mostly clears them; if not, all are asked."""
        weights = list(self.model.parameters())
        if torch.nn.utils.get_total_norm(weights).isfinite():
            return False
        return not all(w.isfinite().all() for w in weights)

    def evaluate(self) -> Record:
        """Validation loss now, and what `on_eval` adds; counts the evaluations since the best one."""
        result: list[Record] = [{}]
        if self.rank == 0:
            assert self.val_data is not None
            loss = evaluate(self.model, self.val_data, precision=self.config.precision)
            result = [{"val_loss": loss, **(self.on_eval(self.model) if self.on_eval else {})}]
        if self.world_size > 1:  # one process measures, so that all stop at the same step
            dist.broadcast_object_list(result, src=0)
        loss = result[0]["val_loss"]
        self.bad_evals = 0 if loss < self.best_loss else self.bad_evals + 1
        self.best_loss = min(self.best_loss, loss)  # in this order nan is never the best
        return result[0]

    def out_of_patience(self) -> bool:
        return self.config.patience is not None and self.bad_evals >= self.config.patience

    # ---- the files ------------------------------------------------------------------------------------------

    def open_folder(self, folder: Path, resume: bool) -> None:
        """Go on from what `folder` holds, or make sure that a new run will overwrite nothing there."""
        last, best = folder / "last.pt", folder / "best.pt"
        if not resume and (last.exists() or best.exists()):
            raise CourseError(f"{folder} already holds a run: go on with it (resume), or choose another folder.")
        if last.exists():
            self.load(last)
        elif best.exists():
            raise CourseError(f"{folder} holds best.pt but no last.pt to go on from: choose another folder.")

    def begin(self) -> None:
        """Put the files in order: the log as far as the last checkpoint, and a checkpoint of step 0 of a new run."""
        if self.out_dir and self.rank == 0:
            if not self.begun:
                self.open_folder(self.out_dir, resume=False)  # another run may have come first
            self.begun = True
            lines = "".join(json.dumps(plain(record)) + "\n" for record in self.log)
            with atomic_file(self.out_dir / "log.jsonl") as file:  # drops what a killed run wrote after it
                file.write(lines.encode())
            remove_unfinished(self.out_dir)
        if self.step == 0:
            if self.val_data is not None and not self.log:
                self.write({"step": 0, "tokens": 0} | self.evaluate())  # near ln V
            self.save()  # first of all last.pt: best.pt alone is somebody's result, never the start of a run
            self.save(best=self.val_data is not None and self.bad_evals == 0)

    def write(self, record: Record) -> None:
        """Add a record to the log and, with `out_dir`, to `log.jsonl`."""
        try:
            line = json.dumps(record)
        except TypeError as e:
            raise CourseError(f"on_eval must return a dict of numbers and text for the log ({e}).") from e
        self.log.append(json.loads(line))  # the same plain values in memory, in the file and after resuming
        if self.out_dir and self.rank == 0:
            with writing(self.out_dir), open(self.out_dir / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(plain(record)) + "\n")

    def save(self, best: bool = False) -> None:
        """Write `last.pt`, and before it the model alone to `best.pt` if this is the best so far."""
        if not self.out_dir:
            return
        own = {"random": random_state(self.device), "losses": [loss.item() for loss in self.losses]}
        processes = [own] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(processes, own)
        if self.rank:
            return
        state = {
            "config": asdict(self.config),
            "data": self.data_id,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "batches": self.generator.get_state(),
            "processes": processes,
            **{name: getattr(self, name) for name in PROGRESS},
        }
        if best:
            summary = {name: state[name] for name in ("config", "step", "best_loss")}
            checkpoint.save(self.out_dir / "best.pt", self.model, self.tokenizer, summary)
        checkpoint.save(self.out_dir / "last.pt", self.model, self.tokenizer, state)

    def load(self, path: Path) -> None:
        """Go on from `last.pt`, exactly where it stopped; refuses other settings, model, tokenizer or data."""
        saved = checkpoint.load(path)
        state, now = saved.training, asdict(self.config)
        if any(name not in state for name in STATE):
            raise CourseError(f"{path} holds a model but not the state of a training run: choose another folder.")
        try:
            json.dumps([state[name] for name in ("config", "data", *PROGRESS)])  # no tensors: these can be compared
            changed = [name for name in now | state["config"] if state["config"].get(name) != now.get(name)]
            changed += [] if saved.model.config == self.model.config else ["the model's configuration"]
            before, after = (t.to_dict() if t else None for t in (saved.tokenizer, self.tokenizer))
            changed += [] if before == after else ["the tokenizer"]
            changed += [] if state["data"] == self.data_id else ["the data"]
            changed += [] if len(state["processes"]) == self.world_size else ["the number of processes"]
            if not changed:
                self.model.load_state_dict(saved.model.state_dict())
                self.restore(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as e:
            raise CourseError(
                f"The state of the training in {path} is damaged, so it cannot go on: choose another folder."
            ) from e
        if changed:
            raise CourseError(
                f"The run in {path.parent} was started with different settings ({', '.join(changed)}), so going on "
                "would not give the same run: use its settings again, or choose another folder."
            )

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of a training; what no training can have saved is an error of some kind."""
        step, log = state["step"], state["log"]
        if type(step) is not int or not 0 <= step <= self.config.max_steps or type(state["bad_evals"]) is not int:
            raise ValueError("these are no numbers of steps")
        if any(type(state[name]) not in (int, float) for name in ("seconds", "best_loss")):
            raise ValueError("these are no numbers")
        finished = step == self.config.max_steps
        if type(log) is not list or not all("step" in dict(r) for r in log) or (finished and not log):
            raise ValueError("this is no log")
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            # The groups follow from the settings, which are the same: only what was learned comes from the file.
            optimizer.load_state_dict(dict(saved) | {"param_groups": optimizer.state_dict()["param_groups"]})
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                of_adamw = {"step": (), "exp_avg": p.shape, "exp_avg_sq": p.shape}
                wanted = {"momentum_buffer": p.shape} if isinstance(optimizer, Muon) else of_adamw
                moments = {name: value.shape for name, value in optimizer.state.get(p, {}).items()}
                if step and moments != wanted and (moments or not self.policy.scale):  # a scaler skips first steps
                    raise ValueError("the momentum is that of other weights")
        if state["scaler"]:  # a run that began on a device without fp16 had no scale yet
            self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["batches"])
        own = state["processes"][self.rank]
        set_random_state(self.device, own["random"])
        self.losses = [torch.tensor(float(loss), device=self.device) for loss in own["losses"]]
        self.seconds, self.best_loss = float(state["seconds"]), float(state["best_loss"])
        self.step, self.bad_evals, self.log, self.begun = step, state["bad_evals"], log, True
