"""Day 6: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check
from llmcourse.checks.day06 import overfit_one_batch, perplexity

Say = Callable[[], str]
mean_loss = nn.CrossEntropyLoss()


def by_weights(model: Any, batches: Any) -> float:
    mode = model.training
    model.eval()
    total = count = 0
    with torch.inference_mode():
        for x, y in batches:
            logits = model(x)
            total += mean_loss(logits.view(-1, logits.size(-1)), y.view(-1)).item() * y.numel()
            count += y.numel()
    if mode:
        model.train()
    return math.exp(total / count)


@torch.no_grad()
def by_concatenation(model: Any, batches: Any) -> Tensor:
    mode = model.training
    model.train(False)
    losses = [F.cross_entropy(model(x).transpose(1, 2), y, reduction="none").flatten() for x, y in batches]
    model.train(mode)
    return torch.cat(losses).mean().exp()


@torch.no_grad()
def by_probabilities(model: Any, batches: Any) -> float:
    mode = model.training
    model.eval()
    logs: list[float] = []
    for x, y in batches:
        logs += model(x).softmax(-1).gather(-1, y[..., None]).log().flatten().tolist()
    model.train(mode)
    return float(2 ** (-sum(logs) / len(logs) / math.log(2)))


def lossy(
    reduce: Callable[[Tensor, Tensor, Tensor], Any], evaluation: bool = True, restore: bool = True, grad: bool = False,
    targets: Callable[[Tensor, Tensor], Tensor] = lambda x, y: y, twice: bool = False,
) -> Callable[..., Any]:  # fmt: skip
    """Perplexity from the batches' means, numbers of targets and numbers of rows."""

    def learner(model: Any, batches: Any) -> Any:
        mode = model.training
        if evaluation:
            model.eval()
        means, sizes, rows = [], [], []
        with torch.set_grad_enabled(grad):
            for x, y in batches:
                logits = model(x).softmax(-1) if twice else model(x)
                means.append(mean_loss(logits.flatten(0, 1), targets(x, y).flatten()).detach())
                sizes.append(y.numel())
                rows.append(len(y))
        if restore:
            model.train(mode)
        return reduce(torch.stack(means), torch.tensor(sizes).float(), torch.tensor(rows).float())

    return learner


def right(m: Tensor, n: Tensor, r: Tensor) -> float:
    return math.exp((m * n).sum() / n.sum())


def returns_early(model: Any, batches: Any) -> Any:
    for x, y in batches:
        return math.exp(mean_loss(model(x).flatten(0, 1), y.flatten()))


def exp_first(model: Any, batches: Any) -> Any:
    return lossy_all(model, batches).exp().mean().item()


@torch.no_grad()
def lossy_all(model: Any, batches: Any) -> Tensor:
    mode = model.training
    model.eval()
    out = torch.cat([F.cross_entropy(model(x).transpose(1, 2), y, reduction="none").flatten() for x, y in batches])
    model.train(mode)
    return out


def with_len(model: Any, batches: Any) -> float:
    return by_weights(model, [batches[i] for i in range(len(batches))])


def reads_twice(model: Any, batches: Any) -> float:
    count = sum(y.numel() for _, y in batches)
    losses = [loss for pair in batches for loss in lossy_all(model, [pair])]
    return math.exp(sum(losses) / max(count, 1))


WRONG_PERPLEXITY: dict[str, tuple[Callable[..., Any], str]] = {
    "mean of means": (lossy(lambda m, n, r: m.mean().exp()), "the mean of the batches' means"),
    "mean of perplexities": (lossy(lambda m, n, r: m.exp().mean()), "the mean of the batches' perplexities"),
    "weighted perplexities": (lossy(lambda m, n, r: (m.exp() * n).sum() / n.sum()), "even if with the right weights"),
    "exp of every loss": (exp_first, "of every single loss"),
    "weighted by rows": (lossy(lambda m, n, r: ((m * r).sum() / r.sum()).exp()), "weighted by its number of rows"),
    "weighted by length": (lossy(lambda m, n, r: ((m * n / r).sum() / (n / r).sum()).exp()), "weighted by its length"),
    "no exp": (lossy(lambda m, n, r: (m * n).sum() / n.sum()), "This is the loss itself"),
    "bits": (lossy(lambda m, n, r: (m * n).sum() / n.sum() / math.log(2)), "These are bits"),
    "2 to the loss": (lossy(lambda m, n, r: 2 ** ((m * n).sum() / n.sum())), "2 to the power"),
    "divided by rows": (lossy(lambda m, n, r: ((m * n).sum() / r.sum()).exp()), "divided by the number of rows"),
    "divided by batches": (lossy(lambda m, n, r: ((m * n).sum() / len(m)).exp()), "divided by the number of batches"),
    "divided twice": (lossy(lambda m, n, r: (m.sum() / n.sum()).exp()), "divided twice"),
    "last batch": (lossy(lambda m, n, r: m[-1].exp()), "the last batch alone"),
    "returns early": (returns_early, "is the return inside the loop"),
    "inputs as targets": (lossy(right, targets=lambda x, y: x), "with its own inputs"),
    "softmax twice": (lossy(right, twice=True), "applied twice"),
    "training mode": (lossy(right, evaluation=False), "call model.eval() first"),
    "left in evaluation": (lossy(right, restore=False), "is in evaluation mode afterwards"),
    "gradients": (lossy(right, grad=True), "Gradients are recorded"),
    "list": (lossy(lambda m, n, r: m.exp().tolist()), "returned a list"),
    "not reduced": (lossy(lambda m, n, r: m.exp()), "The result has shape (5,)"),
    "nothing": (lossy(lambda m, n, r: None), "returned None"),
    "len": (with_len, "but not for a generator"),
    "reads twice": (reads_twice, "go through the batches only once"),
    "half": (lossy(lambda m, n, r: right(m, n, r) / 2), "On five uneven batches"),
}


@pytest.mark.parametrize("learner", [perplexity, by_weights, by_concatenation, by_probabilities])
def test_perplexity_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day06", learner), said()


@pytest.mark.parametrize("mistake", WRONG_PERPLEXITY)
def test_perplexity_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day06", WRONG_PERPLEXITY, mistake)


def test_perplexity_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day06", WRONG_PERPLEXITY, least=20)


# ---- Overfitting one batch ----------------------------------------------------------------------------------


def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return mean_loss(model(x).flatten(0, 1), y.flatten())


def by_while(model: Any, x: Tensor, y: Tensor, max_steps: int) -> Any:
    twin, updates = copy.deepcopy(model), 0
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.008)
    while (loss := twin.loss(x, y)) >= 0.01:
        if updates == max_steps:
            return None
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        updates += 1
    return updates


def by_looking_after(model: Any, x: Tensor, y: Tensor, max_steps: int) -> Any:
    twin = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=8e-3, weight_decay=0.0)
    with torch.no_grad():
        if loss_of(twin, x, y) < 0.01:
            return 0
    for n in itertools.count(1):
        if n > max_steps:
            break
        optimizer.zero_grad()
        loss_of(twin, x, y).backward()
        optimizer.step()
        with torch.no_grad():
            if loss_of(twin, x, y) < 0.01:
                return n


def loop(
    *, copied: bool = True, clear: bool = True, targets: Callable[[Tensor, Tensor], Tensor] = lambda x, y: y,
    lr: float = 0.008, goal: float = 0.01, back: bool = True, looks: int = 1,
    found: Callable[[int, Any], Any] = lambda n, loss: n,
    end: Callable[[int], Any] = lambda n: None, other: bool = False, obey: bool = True, sgd: bool = False,
    scale: float = 1.0, grads: bool = False,
) -> Callable[..., Any]:  # fmt: skip
    def learner(model: Any, x: Tensor, y: Tensor, max_steps: int) -> Any:
        twin = copy.deepcopy(model) if copied else model
        if grads:
            loss_of(model, x, y).backward()
        trained = copy.deepcopy(model) if other else twin
        optimizer: Any = (torch.optim.SGD if sgd else torch.optim.AdamW)(trained.parameters(), lr=lr)
        limit = max_steps if obey else 1000
        for step in range(limit + looks):
            loss = scale * loss_of(twin, x, targets(x, y))
            if loss.item() < goal:
                return found(step, loss)
            if clear:
                optimizer.zero_grad()
            if back:
                loss.backward()
            optimizer.step()
        return end(max_steps)

    return learner


def late(model: Any, x: Tensor, y: Tensor, max_steps: int) -> Any:
    """Looks only after the first update."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.008)
    for n in range(1, max_steps + 1):
        optimizer.zero_grad()
        loss_of(twin, x, y).backward()
        optimizer.step()
        if loss_of(twin, x, y) < 0.01:
            return n
    return None


def to_the_end(model: Any, x: Tensor, y: Tensor, max_steps: int) -> Any:
    loop(goal=-1)(model, x, y, max_steps)
    return max_steps


WRONG_OVERFIT: dict[str, tuple[Callable[..., Any], str]] = {
    "no copy": (loop(copied=False), "has changed"),
    "gradients left": (loop(grads=True), "holds gradients"),
    "no zero_grad": (loop(clear=False), "add up: clear them"),
    "inputs as targets": (loop(targets=lambda x, y: x), "repeat its input"),
    "default rate": (loop(lr=1e-3), "is there a backward()"),
    "sum": (loop(scale=6.0), "The losses are summed"),
    "goal 0.1": (loop(goal=0.1), "below 0.1"),
    "one more": (loop(found=lambda n, loss: n + 1), "You count one more"),
    "one less": (loop(found=lambda n, loss: n - 1), "You count one less"),
    "looks too late": (late, "look before you update"),
    "no backward": (loop(back=False), "is there a backward()"),
    "other parameters": (loop(other=True), "is there a backward()"),
    "sgd": (loop(sgd=True), "is there a backward()"),
    "returns the loss": (loop(found=lambda n, loss: loss.item()), "a loss it seems"),
    "returns True": (loop(found=lambda n, loss: True), "returned True"),
    "returns both": (loop(found=lambda n, loss: (n, loss)), "several values"),
    "returns text": (loop(found=lambda n, loss: str(n)), "type str"),
    "returns at once": (loop(goal=99), "knows nothing yet"),
    "to the end": (to_the_end, "train to the end"),
    "limit returned": (loop(end=lambda n: n), "after 60 updates in vain"),
    "limit ignored": (loop(obey=False), "the limit is not obeyed"),
    "one look too few": (loop(looks=0), "look at the loss once more"),
    "one update too many": (loop(looks=2), "you do not return None"),
    "another rate": (loop(lr=0.03), "it takes"),
}


@pytest.mark.parametrize("learner", [overfit_one_batch, by_while, by_looking_after])
def test_overfit_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day06b", learner), said()


@pytest.mark.parametrize("mistake", WRONG_OVERFIT)
def test_overfit_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day06b", WRONG_OVERFIT, mistake)


def test_overfit_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day06b", WRONG_OVERFIT, least=17)
