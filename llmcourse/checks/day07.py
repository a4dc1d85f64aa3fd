"""Checker of day 7, the training loop.

The learner's loop gets a model that keeps a diary. Each forward notes what it was shown and in which mode; each
backward leaves the gradient at the logits, and from that gradient the targets can be read: for cross-entropy it is
(softmax - one-hot) / number of positions, negative at the target and nowhere else. Steps of the optimizer come in
through PyTorch's own hook. What is wrong with the loop can then be told without reading its code.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from . import Wrong, blame, call, exercise

Train = Callable[..., Any]
V = 13  # tokens the model knows; no other size below is 13


def train_loop(
    model: nn.Module, train_ids: Tensor, val_ids: Tensor, steps: int, batch_size: int, block_size: int, lr: float
) -> tuple[list[float], float]:
    """Train `model` in place; the loss of each batch, and the mean loss over all of `val_ids` at the end."""

    def loss_of(x: Tensor, y: Tensor) -> Tensor:  # (B, T) both
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    model.train()
    for _ in range(steps):
        start = torch.randint(len(train_ids) - block_size, (batch_size, 1))
        window = train_ids[start + torch.arange(block_size + 1)]  # (B, T + 1)
        loss = loss_of(window[:, :-1], window[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    n = (len(val_ids) - 1) // block_size * block_size  # windows side by side
    with torch.no_grad():
        val_loss = loss_of(val_ids[:n].view(-1, block_size), val_ids[1 : n + 1].view(-1, block_size))
    return losses, val_loss.item()


@dataclass
class Forward:
    """One call of the model; `gradient` is filled in by the backward that follows, if one does."""

    idx: Tensor  # (B, T)
    logits: Tensor  # (B, T, V)
    training: bool
    records: bool  # whether autograd listened
    gradient: Tensor | None = None


class Diary(nn.Module):
    """A bigram model: one row of logits a token. It notes forwards ("F"), backwards ("B") and steps ("S")."""

    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(V, V)
        self.config = SimpleNamespace(vocab_size=V, block_size=block_size)  # what llmcourse.evaluation asks for
        self.forwards: list[Forward] = []
        self.events: list[tuple[str, Any]] = []
        self.fresh = torch.zeros(V, V)
        self.added_up = False  # whether a gradient was added to an older one
        self.start = self.table.weight.detach().clone()
        self.table.weight.register_hook(self.fresh_gradient)
        self.table.weight.register_post_accumulate_grad_hook(self.accumulated_gradient)
        self.eval()  # so that a loop without model.train() shows

    @property
    def lm_head(self) -> nn.Embedding:
        return self.table

    def forward(self, idx: Tensor) -> Tensor:
        if not isinstance(idx, Tensor) or idx.ndim != 2 or idx.dtype != torch.int64:
            what = f"{tuple(idx.shape)} of {idx.dtype}" if isinstance(idx, Tensor) else type(idx).__name__
            raise Wrong(f"The model reads token ids of shape (B, T), int64; yours calls it with {what}.")
        if idx.max() >= V:
            raise Wrong(
                "The model is shown tokens that are in neither text it was called with: use the arguments train_ids "
                "and val_ids, not the train and val of the page."
            )
        logits = self.table(idx)
        note = Forward(idx.clone(), logits.detach(), self.training, logits.requires_grad)
        self.forwards.append(note)
        self.events.append(("F", note))
        if logits.requires_grad:
            logits.register_hook(partial(setattr, note, "gradient"))
        return logits

    def fresh_gradient(self, gradient: Tensor) -> None:
        self.fresh = gradient.detach().clone()

    def accumulated_gradient(self, weight: Tensor) -> None:
        assert weight.grad is not None
        self.added_up |= not torch.allclose(weight.grad, self.fresh, rtol=1e-4, atol=1e-7)
        self.events.append(("B", None))

    def step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """PyTorch calls this before every step of any optimizer."""
        groups = [g for g in optimizer.param_groups if any(p is self.table.weight for p in g["params"])]
        grad = self.table.weight.grad
        empty = grad is None or not grad.any()
        rate = float(groups[0]["lr"]) if groups else math.nan
        self.events.append(("S", SimpleNamespace(optimizer=optimizer, holds=bool(groups), empty=empty, lr=rate)))


@dataclass
class Job:
    """What a loop is asked to do."""

    steps: int
    batch_size: int
    block_size: int
    lr: float
    train_ids: Tensor
    val_ids: Tensor


def job(steps: int, batch_size: int, block_size: int, lr: float, length: int) -> Job:
    """Two random texts; a window of five tokens or more stands in only one place of them."""
    texts = torch.randint(V, (length,)), torch.randint(V, (30 * block_size + 1,))
    return Job(steps, batch_size, block_size, lr, *texts)


@exercise(
    "day07",
    title="A training loop",
    signature="train_loop(model, train_ids, val_ids, steps, batch_size, block_size, lr)",
    hints=[
        "The order of a step: draw x and y, logits = model(x), loss, optimizer.zero_grad(), loss.backward(), "
        "optimizer.step(). The optimizer is made once, before the loop; model.train() stands before it too.",
        "A window has block_size + 1 tokens: x is all but its last, y all but its first. For the loss, "
        "F.cross_entropy(logits.flatten(0, 1), y.flatten()); keep loss.item(), a plain number.",
        "After the loop: model.eval(), then, under torch.no_grad(), the mean loss over val_ids in windows side by "
        "side, as the page's evaluate(model, val_ids, block_size) does it. Return both: return losses, val_loss.",
    ],
    solution=train_loop,
    right="Random windows of the training text, targets one step ahead, one clean update a batch, and an honest "
    "validation loss at the end.",
)
def check_train(learner: Train) -> None:
    judge(learner, job(steps=12, batch_size=4, block_size=7, lr=0.03, length=80))
    with blame("It is right for batch_size 4 and block_size 7, but fails for 3 and 10"):
        judge(learner, job(steps=5, batch_size=3, block_size=10, lr=0.002, length=70))


def judge(learner: Train, asked: Job) -> None:
    """One run of the learner's loop, and everything that its diary tells."""
    model, here = Diary(asked.block_size), threading.get_ident()
    names = ("train_ids", "val_ids", "steps", "batch_size", "block_size", "lr")
    hook = register_optimizer_step_pre_hook(lambda *a: model.step(*a) if threading.get_ident() == here else None)
    try:
        result = call(learner, model=model, **{name: getattr(asked, name) for name in names})
    except (RuntimeError, ValueError, IndexError) as e:
        if sentence := crash(str(e)):
            raise Wrong(sentence) from e
        raise
    finally:
        hook.remove()
    if result is None:
        raise Wrong("Your function returned None: is there a line return losses, val_loss at its end?")
    trained = [f for f in model.forwards if f.gradient is not None]
    check_order(model, asked, trained)
    check_data(trained, asked)
    for note in trained:
        check_targets(note, asked)
    check_steps(model, asked)
    check_modes(model, trained)
    check_result(result, model, asked, trained)


def crash(message: str) -> str:
    """What PyTorch's most frequent errors in a training loop mean, or nothing."""
    meanings = {
        "Expected target size": "F.cross_entropy wants logits (N, V) and targets (N,), but it got (B, T, V) and "
        "(B, T): join batch and time first, logits.flatten(0, 1) and y.flatten().",
        "Expected input batch_size": "The loss gets a different number of predictions and targets: logits are (B, T, "
        "V) and y is (B, T), so flatten both in the same way.",
        "does not require grad": "loss.backward() finds no way back to the weights: the forward pass ran under "
        "torch.no_grad(), or the loss was taken out of PyTorch by .item() or .detach() before.",
        "backward through the graph a second time": "backward() runs a second time through the same forward pass: "
        "logits and loss must be computed anew in every step, inside the loop.",
        "view size is not compatible": ".view() fails on a slice such as window[:, 1:], whose rows are not next to "
        "each other in memory: use .flatten() or .reshape(-1).",
        "out of bounds": "A window runs past the end of the text: it needs block_size + 1 tokens, so the starts are "
        "below len(train_ids) - block_size.",
        "stack expects each tensor to be equal size": "A window at the end of the text came out too short: it needs "
        "block_size + 1 tokens, so the starts are below len(train_ids) - block_size.",
    }
    return next((sentence for words, sentence in meanings.items() if words in message), "")


def check_order(model: Diary, asked: Job, trained: list[Forward]) -> None:
    """Forward, backward and step: each there, each `steps` times, in this order."""
    if not model.forwards:
        raise Wrong("The model is never called: is the loop empty, or does it train another model?")
    backwards = sum(kind == "B" for kind, _ in model.events)
    if not backwards:
        raise Wrong("loss.backward() is never called, so there is no gradient to follow.")
    if model.added_up:
        raise Wrong(
            "Each backward() adds its gradient to those of all steps before: optimizer.zero_grad() is missing, or is "
            "not called in every step."
        )
    stepped = [s for kind, s in model.events if kind == "S"]
    moved = not torch.equal(model.table.weight.detach(), model.start)
    if not stepped:
        if moved:
            raise Wrong("The weights are moved by hand: let torch.optim.AdamW do it, with optimizer.step().")
        raise Wrong("optimizer.step() is never called: the gradients are computed and nobody moves the weights.")
    if not any(s.holds for s in stepped):
        raise Wrong(
            "The optimizer steps, but not on the weights of the model it was given: was it made for another model, or "
            "for a copy?"
        )
    kinds = "".join(kind for kind, _ in model.events if kind in "BS")
    if kinds.startswith("S"):
        raise Wrong(
            "optimizer.step() comes before loss.backward(): it moves the weights before this batch's gradient is known."
        )
    if all(s.empty for s in stepped):
        raise Wrong(
            "The gradient is empty whenever the optimizer steps: zero_grad() stands between backward() and step(), and "
            "the weights never move."
        )
    if len(trained) != asked.steps:
        more = " Is the return inside the loop?" if len(trained) == 1 else ""
        raise Wrong(f"It trains on {len(trained)} batches, and it was asked for steps = {asked.steps}.{more}")
    if len(stepped) != backwards:
        raise Wrong(f"There are {backwards} calls of backward() and {len(stepped)} of step(): one each, in every step.")


def places(rows: Tensor, ids: Tensor) -> list[int]:
    """Where each row (R, T) stands in `ids` (N,): the first place, or -1."""
    if rows.shape[1] > len(ids):
        return [-1] * len(rows)
    found = (rows[:, None] == ids.unfold(0, rows.shape[1], 1)).all(-1)  # (R, N - T + 1)
    return [int(hit.nonzero()[0]) if hit.any() else -1 for hit in found]


def check_data(trained: list[Forward], asked: Job) -> None:
    """Inputs: (B, T) windows of the training text, random ones, new ones in each step."""
    B, T = asked.batch_size, asked.block_size
    starts = []
    for note in trained:
        shape = tuple(note.idx.shape)
        if shape == (T, B):
            raise Wrong(f"The model gets x of shape {shape}, which is (T, B): it wants (B, T) = {(B, T)}.")
        if shape == (B, T - 1):
            raise Wrong(f"x has {T - 1} tokens, one too few: for x and y of {T} each, a window needs block_size + 1.")
        if shape != (B, T):
            raise Wrong(f"The model gets x of shape {shape}, but (batch_size, block_size) is {(B, T)}.")
        here = places(note.idx, asked.train_ids)
        if -1 in here:
            row = note.idx[here.index(-1)][None]
            if places(row, asked.val_ids) != [-1]:
                raise Wrong("It trains on windows of val_ids, the text that is kept for judging.")
            raise Wrong("The rows of x are not windows of train_ids: T tokens that follow each other, in their order.")
        starts += here
    if all(torch.equal(note.idx, trained[0].idx) for note in trained):
        raise Wrong(
            "Every step trains on the same batch: draw a new one inside the loop, and set no seed and make no new "
            "generator there."
        )
    gaps = {b - a for a, b in pairwise(starts)}
    if len(gaps) == 1:
        raise Wrong(
            f"The windows come in order, each {gaps.pop()} further on: draw their starts at random, or neighbors in "
            "the text are neighbors in training."
        )
    if max(starts) < 0.4 * len(asked.train_ids):
        raise Wrong("All windows lie in the first part of train_ids: draw the starts from the whole text.")


def check_targets(note: Forward, asked: Job) -> None:
    """Read the targets off the gradient at the logits: (softmax - one-hot) / (B · T)."""
    assert note.gradient is not None
    g, probs, x = note.gradient, note.logits.softmax(-1), note.idx
    B, T = x.shape
    used = g.abs().amax(-1) > 0  # (B, T)
    if not used.all():
        if used[:, -1].all() and not used[:, :-1].any():
            raise Wrong("The loss looks at the last position of each window only: all T positions have a target.")
        raise Wrong(f"Only {int(used.sum())} of the {B * T} positions of a batch enter the loss: all have a target.")
    targets = g.argmin(-1)  # (B, T): the only token whose score should rise
    hot = F.one_hot(targets, V)
    scale = ((probs - hot).gather(-1, targets[..., None]) / g.gather(-1, targets[..., None])).median()
    if not torch.allclose(g * scale, probs - hot, atol=1e-3):
        logits = note.logits.requires_grad_()
        F.cross_entropy(logits.softmax(-1).flatten(0, 1), targets.flatten()).backward()
        again = logits.grad
        assert again is not None
        if torch.allclose(again / again.norm(), g / g.norm(), atol=1e-3):
            raise Wrong("A softmax stands before F.cross_entropy, which makes its own: hand it the raw logits.")
        raise Wrong("The loss is not the cross-entropy of the logits and one target a position.")
    compare_targets(targets, note, asked)
    if not math.isclose(scale, B * T, rel_tol=1e-2):
        if math.isclose(scale, 1, rel_tol=1e-2):
            raise Wrong("The loss is the sum over all positions: take the mean, which is F.cross_entropy's default.")
        raise Wrong(f"The loss is {B * T / float(scale):.3g} times the mean over the B · T positions of the batch.")


def compare_targets(targets: Tensor, note: Forward, asked: Job) -> None:
    """Whether each target is the token that follows, and what it is instead."""
    x, ids = note.idx, asked.train_ids
    starts, T = places(x, ids), asked.block_size

    def moved(by: int) -> Tensor:
        return torch.stack([ids.roll(-by)[s : s + T] for s in starts])  # the ends of the text do not matter here

    if torch.equal(targets, moved(1)):
        return
    if torch.equal(targets, x):
        raise Wrong(
            "The targets are the inputs themselves, not shifted: y must be one token ahead, window[:, 1:] to x = "
            "window[:, :-1]. A model learns to copy from this, and its loss falls to 0."
        )
    if torch.equal(targets[:, 1:], x[:, :-1]):
        raise Wrong("The targets are shifted the wrong way: each is the token before, and should be the one after.")
    if torch.equal(targets[:, :-1], x[:, 1:]) and torch.equal(targets[:, -1], x[:, 0]):
        raise Wrong(
            "The last target of each window is the window's own first token: roll goes round in a circle, so cut y "
            "from the text, one step later."
        )
    if torch.equal(targets[:, :-2], x[:, 2:]):
        raise Wrong("The targets are two tokens ahead: the shift happens twice.")
    if targets.unique().numel() == 1:
        raise Wrong(f"Every target is token {int(targets[0, 0])}: y was made and never filled from the text.")
    if torch.equal(targets.flatten().sort().values, moved(1).flatten().sort().values):
        raise Wrong("Logits and targets come in different orders: a transpose or a view has mixed batch and time.")
    raise Wrong("The targets are not the tokens that follow the inputs in train_ids.")


def check_steps(model: Diary, asked: Job) -> None:
    """One AdamW for all steps, with the learning rate that was asked for."""
    stepped = [s for kind, s in model.events if kind == "S"]
    kind = type(stepped[0].optimizer).__name__
    if len({id(s.optimizer) for s in stepped}) > 1:
        raise Wrong(
            "A new optimizer is made in every step, so its averages of past gradients are lost: make it once, before "
            "the loop."
        )
    if not isinstance(stepped[0].optimizer, torch.optim.AdamW):
        raise Wrong(f"The optimizer is {kind}; the task wants torch.optim.AdamW(model.parameters(), lr=lr).")
    for s in stepped:
        if not math.isclose(s.lr, asked.lr, rel_tol=1e-6):
            raise Wrong(f"The optimizer's learning rate is {s.lr:g}, but the argument lr is {asked.lr:g}: pass it on.")


def check_modes(model: Diary, trained: list[Forward]) -> None:
    """Training mode while it trains, evaluation mode afterwards."""
    modes = [note.training for note in trained]
    if not modes[0]:
        raise Wrong(
            "The model came in evaluation mode and trains in it: call model.train() before the loop, or dropout has no "
            "effect."
        )
    if not all(modes):
        raise Wrong("After some steps the model trains in evaluation mode: after an evaluation, call model.train().")
    if model.training:
        raise Wrong("The model is left in training mode: whoever samples from it samples with dropout; model.eval().")


def check_result(result: Any, model: Diary, asked: Job, trained: list[Forward]) -> None:
    """`losses` and `val_loss`, each compared with what the diary says."""
    if isinstance(result, float | Tensor):
        raise Wrong("It returns one number, and the task wants two things: return losses, val_loss.")
    if not isinstance(result, tuple | list) or len(result) != 2:
        what = f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, tuple | list) else "")
        raise Wrong(f"It returns {what}, and the task wants two things: return losses, val_loss.")
    losses, val_loss = result
    if not isinstance(losses, list):
        raise Wrong(f"losses must be a list of numbers, one a step, not a {type(losses).__name__}.")
    if any(isinstance(x, Tensor) for x in losses):
        raise Wrong("losses holds tensors, and each keeps its whole forward pass in memory: append loss.item().")
    if len(losses) != asked.steps:
        raise Wrong(f"losses has {len(losses)} entries for {asked.steps} steps: append the loss of every batch.")
    for i, (got, note) in enumerate(zip(losses, trained, strict=True)):
        y = torch.stack([asked.train_ids[s + 1 :][: asked.block_size] for s in places(note.idx, asked.train_ids)])
        wanted = cross_entropy(note.logits, y)
        if not math.isclose(got, wanted, rel_tol=1e-3):
            raise Wrong(f"losses[{i}] is {got:.3f}, but the mean loss of that batch was {wanted:.3f}.")
    check_val_loss(val_loss, losses, model, asked)


def check_val_loss(val_loss: Any, losses: list[float], model: Diary, asked: Job) -> None:
    """The mean over the whole validation text, in evaluation mode, with the trained weights."""
    last = max(i for i, (kind, _) in enumerate(model.events) if kind == "S")
    notes: list[Forward] = [note for kind, note in model.events[last:] if kind == "F"]
    if not notes:
        earlier = any(f.gradient is None for f in model.forwards)
        raise Wrong(
            "The validation loss is measured before the last step: the model goes on changing until then."
            if earlier
            else "The model never sees val_ids: measure val_loss on them after the loop."
        )
    if any(-1 in places(f.idx, asked.val_ids) for f in notes):
        raise Wrong("What is returned as val_loss was not measured on val_ids: the model was shown another text.")
    if any(f.training for f in notes):
        raise Wrong("The validation loss is measured in training mode, with dropout on: model.eval() comes before it.")
    if any(f.records for f in notes):
        raise Wrong("The validation keeps everything for a backward pass that never comes: put torch.no_grad() there.")
    if isinstance(val_loss, Tensor) or not isinstance(val_loss, int | float):
        raise Wrong(f"val_loss must be a plain number, not a {type(val_loss).__name__}: use .item().")
    rows = model.table.weight.detach()[asked.val_ids[:-1]]  # (N, V): windows make no difference to a bigram
    n = len(rows)
    wanted = cross_entropy(rows, asked.val_ids[1:])
    if math.isclose(val_loss, wanted, rel_tol=2e-3):
        return
    if math.isclose(val_loss, wanted * n, rel_tol=2e-3):
        raise Wrong("val_loss is the sum over all tokens of val_ids: divide it by their number.")
    if math.isclose(val_loss, cross_entropy(rows, asked.val_ids[:-1]), rel_tol=1e-2):
        raise Wrong("In the validation the targets are the inputs themselves: there too, y is one token ahead.")
    if any(math.isclose(val_loss, x, rel_tol=1e-6) for x in (losses[-1], sum(losses) / len(losses))):
        raise Wrong("What is returned as val_loss is a training loss.")
    raise Wrong(
        f"val_loss is {val_loss:.3f}, but the mean over all {n} predictions in val_ids is {wanted:.3f}: score each "
        "token once, in windows side by side."
    )


def cross_entropy(logits: Tensor, targets: Tensor) -> float:
    return F.cross_entropy(logits.detach().flatten(0, -2), targets.flatten()).item()
