"""Checkers of day 6: perplexity over uneven batches, and the test that overfits one batch.

Both compare one number with the numbers that typical mistakes give for the same model and data. The models are small
enough that each such number costs milliseconds, and the data are chosen so that no two of the numbers agree.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Wrong, blame, exercise, load_optimizers

Batches = Iterable[tuple[Tensor, Tensor]]
V, GOAL, RATE = 7, 0.01, 0.008
load_optimizers()


@torch.no_grad()
def perplexity(model: nn.Module, batches: Batches) -> float:
    """exp of the mean loss per token over all batches, whose sizes may differ."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for x, y in batches:
        logits = model(x)  # (B, T, V)
        total += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
        tokens += y.numel()  # B · T of this batch, not B
    model.train(was_training)
    return math.exp(total / tokens)


def overfit_one_batch(model: nn.Module, x: Tensor, y: Tensor, max_steps: int) -> int | None:
    """Updates until the loss on `(x, y)` is below 0.01, or None; `model` itself is left alone."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(max_steps + 1):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        if loss.item() < GOAL:
            return step  # so many updates have been made
        if step < max_steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return None


class Lookup(nn.Module):
    """Logits (B, T, V) that depend on each token alone. In training mode they are damped, as if by dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(V, V)
        self.calls: list[tuple[bool, bool]] = []  # training mode and whether gradients were recorded, of each call

    def forward(self, idx: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled()))
        return self.table(idx) * (0.3 if self.training else 1.0)


# ---- Perplexity ---------------------------------------------------------------------------------------------


@exercise(
    "day06",
    title="Perplexity over uneven batches",
    signature="perplexity(model, batches)",
    hints=[
        "Keep two running numbers: the sum of the losses of all targets, and the number of targets. Divide once, after "
        "the loop, and take the exponential last.",
        'F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") gives the sum for one batch, and '
        "y.numel() the number of its targets.",
        "Before the loop: was_training = model.training; model.eval(). After it: model.train(was_training). And the "
        "whole function under @torch.no_grad().",
    ],
    solution=perplexity,
    right="Every target counts once, whatever the batch it came in, and the model is as you found it.",
)
def check_perplexity(learner: Callable[[Any, Any], Any]) -> None:
    model = Lookup()
    with torch.no_grad():
        model.table.weight.mul_(2)
    shapes = ((4, 6), (4, 6), (2, 3), (1, 9), (3, 1))
    batches = [(torch.randint(V, shape), torch.randint(V, shape)) for shape in shapes]
    with torch.no_grad():  # the small batches go badly, so that their weight shows
        batches[2:] = [(x, model.table(x).argmin(-1)) for x, _ in batches[2:]]
    for training in (True, False):
        model.train(training)
        model.calls.clear()
        found = number(learner(model, list(batches)))
        if len(model.calls) < len(batches):
            n = len(model.calls)
            raise Wrong(f"The model was called {n} times for {len(batches)} batches: is the return inside the loop?")
        judge_perplexity(model, batches, found)
        if model.training != training:
            before, after = (("training", "evaluation") if training else ("evaluation", "training"))
            raise Wrong(
                f"The model came in {before} mode and is in {after} mode afterwards: remember model.training before "
                "you call eval(), and put it back with model.train(was_training)."
            )
        if any(recorded for _, recorded in model.calls):
            raise Wrong("Gradients are recorded while you evaluate, which costs memory: put @torch.no_grad() above it.")
    with blame("It works for a list of batches, but not for a generator, which is read once and has no len"):
        found = number(learner(model, (batch for batch in batches)))
    if not close(found, perplexity(model, batches)):
        raise Wrong("It is right for a list of batches, but wrong for a generator: go through the batches only once.")


def number(value: Any) -> float:
    """What the learner returned, as a float."""
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(value, Tensor) and value.numel() != 1:
        raise Wrong(f"The result has shape {tuple(value.shape)}: return one number for all batches together.")
    if isinstance(value, list | tuple | dict):
        raise Wrong(f"Your function returned a {type(value).__name__}: return one number for all batches together.")
    try:
        return float(value)
    except (TypeError, ValueError) as e:
        raise Wrong(f"Your function returned something of type {type(value).__name__}: return one number.") from e


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4)


def judge_perplexity(model: Lookup, batches: list[tuple[Tensor, Tensor]], found: float) -> None:
    """Compare with the right number, then with those of typical mistakes."""
    if close(found, perplexity(model, batches)):
        return
    was_training = model.training
    for training in (False, True):
        model.train(training)
        if training and close(found, perplexity_as_it_is(model, batches)):
            raise Wrong("The number is that of the model in training mode, with dropout on: call model.eval() first.")
        for wrong, sentence in mistakes(model, batches):
            if close(found, wrong):
                model.train(was_training)
                raise Wrong(sentence)
    model.train(was_training)
    wanted = perplexity(model, batches)
    raise Wrong(f"On five uneven batches you get {found:.4g}, but the perplexity of all targets is {wanted:.4g}.")


@torch.no_grad()
def perplexity_as_it_is(model: Lookup, batches: Batches) -> float:
    sums, counts = zip(*((cross_entropies(model, x, y).sum().item(), y.numel()) for x, y in batches), strict=True)
    return math.exp(sum(sums) / sum(counts))


def cross_entropies(model: Lookup, x: Tensor, y: Tensor) -> Tensor:
    """The loss of every target, (B · T,)."""
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none")


@torch.no_grad()
def mistakes(model: Lookup, batches: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[float, str]]:
    """Wrong numbers, and what leads to each."""
    parts = [cross_entropies(model, x, y).double() for x, y in batches]
    n = torch.tensor([len(p) for p in parts]).double()
    rows = torch.tensor([len(y) for _, y in batches]).double()
    lengths = torch.tensor([y.shape[1] for _, y in batches]).double()
    means, losses = torch.stack([p.mean() for p in parts]), torch.cat(parts)
    mean = losses.mean()

    def exp(x: Tensor) -> float:
        return x.exp().item()

    yield exp(means.mean()), (
        "This is the mean of the batches' means: a batch of 3 targets counts as much as one of 24. Add up losses and "
        "targets, and divide once."
    )
    yield means.exp().mean().item(), (
        "This is the mean of the batches' perplexities: the exponential comes last, after all losses are averaged."
    )
    yield (means.exp() * n).sum().item() / n.sum().item(), (
        "You average perplexities, even if with the right weights: average the losses, and take the exponential last."
    )
    yield losses.exp().mean().item(), (
        "The exponential is taken of every single loss, before averaging: average the losses first."
    )
    yield exp((means * rows).sum() / rows.sum()), (
        "Each batch is weighted by its number of rows, B: a row of 9 targets counts as much as one of 1. Use y.numel()."
    )
    yield exp((means * lengths).sum() / lengths.sum()), (
        "Each batch is weighted by its length, T, whatever its number of rows: use y.numel(), which is B times T."
    )
    yield mean.item(), "This is the loss itself, in nats: the perplexity is its exponential, math.exp(loss)."
    yield (mean / math.log(2)).item(), "These are bits, the loss divided by ln 2: the perplexity is math.exp(loss)."
    yield 2 ** mean.item(), "2 to the power of a loss in nats: cross_entropy uses natural logarithms, so use math.exp."
    yield exp(losses.sum() / rows.sum()), (
        "The sum of all losses is divided by the number of rows, len(y): there are y.numel() targets in a batch."
    )
    yield exp(losses.sum() / len(parts)), (
        "The sum of all losses is divided by the number of batches: divide it by the number of targets."
    )
    yield exp(means.sum() / n.sum()), (
        'Means are added up and divided by the number of targets: divided twice. Use reduction="sum", or multiply each '
        "mean by y.numel()."
    )
    yield exp(means[-1]), "This is the perplexity of the last batch alone: the sum starts afresh in every turn."
    yield exp(torch.cat([cross_entropies(model, x, x) for x, _ in batches]).mean()), (
        "The model is compared with its own inputs, x: the targets are y."
    )
    probs = [F.cross_entropy(model(x).softmax(-1).flatten(0, 1), y.flatten(), reduction="sum") for x, y in batches]
    yield exp(torch.stack(probs).sum() / n.sum()), (
        "The softmax is applied twice: cross_entropy wants logits, and does it itself."
    )


# ---- Overfitting one batch ----------------------------------------------------------------------------------


class Small(nn.Module):
    """Logits (B, T, V) from each token alone, with a `loss` like the course's GPT. All copies count calls together."""

    calls = 0

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(V, width), nn.Linear(width, V)

    def forward(self, idx: Tensor) -> Tensor:
        Small.calls += 1
        return self.second(self.first(idx).tanh())

    def loss(self, idx: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(idx).flatten(0, 1), targets.flatten())


@exercise(
    "day06b",
    title="Overfitting one batch",
    signature="overfit_one_batch(model, x, y, max_steps)",
    hints=[
        "Train copy.deepcopy(model), with the same x and y in every step: loss, zero_grad, backward, step. Before each "
        "update, look whether the loss is already below 0.01.",
        "Count updates, not looks: if the very first loss is below 0.01, the answer is 0. After the last update one "
        "more look is due, so for step in range(max_steps + 1) fits.",
        "for step in range(max_steps + 1): compute the loss; if it is below 0.01, return step; if step < max_steps, "
        "update. After the loop: return None.",
    ],
    solution=overfit_one_batch,
    right="It counts updates, gives up in time, and leaves the model as it was.",
)
def check_overfit(learner: Callable[[Any, Any, Any, Any], Any]) -> None:
    x = torch.arange(V - 1).view(2, 3)  # six different tokens, so that each can have its own target
    y = torch.tensor([[3, 5, 3], [6, 5, 3]])
    model, limit = Small(), 400
    before = copy.deepcopy(model.state_dict())
    wanted = overfit_one_batch(model, x, y, limit)
    assert wanted is not None
    found = answer(learner(model, x.clone(), y.clone(), limit))
    if any(not torch.equal(before[name], p) for name, p in model.state_dict().items()):
        raise Wrong("The model that was handed in has changed: train a copy, model = copy.deepcopy(model).")
    if any(p.grad is not None for p in model.parameters()):
        raise Wrong("The model that was handed in holds gradients now: work with the copy in every line.")
    done = copy.deepcopy(model)
    train_until(done, x, y, 2 * limit, goal=GOAL / 2)
    at_once = answer(learner(done, x, y, limit))
    if found is None or found != wanted:
        diagnose_count(model, x, y, limit, found, wanted, at_once)
    assert found is not None  # else diagnose_count has raised

    hopeless = torch.zeros_like(x)  # the same token before different targets
    Small.calls, few = 0, 60
    vain = answer(learner(model, hopeless, y, few))
    if Small.calls > 2 * few + 5:
        raise Wrong(f"With max_steps = {few} the model was called {Small.calls} times: the limit is not obeyed.")
    if vain is not None and vain < few - 1:
        raise Wrong("It learns to repeat its input: the loss compares with x, but the targets are y.")
    if vain is not None:
        raise Wrong(f"For a batch that nobody can learn you return {vain} after {few} updates in vain: return None.")
    if at_once != 0:
        raise Wrong("For a model that knows the batch from the start the answer is 0 updates: look before you update.")
    if answer(learner(model, x, y, found - 1)) is not None:
        raise Wrong(f"It needs {found} updates, but with max_steps = {found - 1} you do not return None.")
    if answer(learner(model, x, y, found)) != found:
        raise Wrong(
            f"It needs exactly {found} updates, but with max_steps = {found} you give up: look at the loss once more "
            "after the last update."
        )


def answer(value: Any) -> int | None:
    """What the learner returned, if it is a number of updates or None."""
    if isinstance(value, bool):
        raise Wrong(f"Your function returned {value}: return the number of updates, or None.")
    if isinstance(value, list | tuple):
        raise Wrong("Your function returned several values: return only the number of updates, or None.")
    if isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point()):
        raise Wrong(f"Your function returned {float(value):.4g}, a loss it seems: return the number of updates.")
    if value is None or isinstance(value, int):
        return value
    raise Wrong(f"Your function returned something of type {type(value).__name__}: return a whole number or None.")


def train_until(
    model: Small, x: Tensor, y: Tensor, max_steps: int, *, goal: float = GOAL, clear: bool = True,
    reduction: str = "mean",
) -> int | None:  # fmt: skip
    """Train `model` itself; the number of updates, or None if the goal was not met."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(max_steps + 1):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction=reduction)
        if loss.item() < goal:
            return step
        if clear:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return None


def diagnose_count(
    model: Small, x: Tensor, y: Tensor, limit: int, found: int | None, wanted: int, at_once: int | None
) -> None:
    """The number of updates is not ours: find the mistake that gives it, if it is one."""

    def updates(**settings: Any) -> Any:
        return train_until(copy.deepcopy(model), x, y, limit, **settings)

    if found is None:
        raise Wrong(
            f"You return None for a batch that can be learned in {wanted} of {limit} updates: is there a backward(), "
            "then a step() with a learning rate of 0.008, for the parameters of the model whose loss you look at?"
        )
    if abs(found - wanted) == 1 and at_once == found - wanted:
        word = "one more" if found > wanted else "one less"
        raise Wrong(f"You count {word} than the {wanted} updates that were made: before the first update, it is 0.")
    if found == 0:
        raise Wrong("You return 0 for a model that knows nothing yet: return only once the loss is below 0.01.")
    if found in (limit, limit - 1):
        raise Wrong(f"You train to the end and return {found}: return as soon as the loss is below 0.01.")
    for wrong, sentence in (
        (updates(clear=False), "The gradients of all steps add up: clear them with optimizer.zero_grad() each time."),
        (updates(reduction="sum"), "The losses are summed: the goal of 0.01 is for their mean."),
        (updates(goal=0.1), "It stops as soon as the loss is below 0.1: the goal is 0.01."),
    ):
        if found == wrong:
            raise Wrong(sentence)
    if abs(found - wanted) > 0.25 * wanted:
        raise Wrong(f"You need {found} updates; with AdamW and a learning rate of 0.008 it takes {wanted}.")
