"""Day 39: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check, day39

Say = Callable[[], str]
Curves = list[list[float]]


def by_tensor(tuned: Curves, untouched: Curves, budget: int, patience: int) -> Any:
    """Ends each run first, cuts the budget afterwards."""
    made = []
    for run, losses in enumerate(tuned):
        best, since = float("inf"), 0
        for i, loss in enumerate(losses):
            made.append((run, i))
            if loss < best:
                best, since = loss, 0
            else:
                since += 1
            if since >= patience:
                break
    made = made[:budget]
    values = torch.tensor([tuned[r][i] for r, i in made], dtype=torch.float64).nan_to_num(math.inf)
    run, i = made[int(values.argmin())]
    return run, i, torch.tensor(untouched[run][i], dtype=torch.float64)


class Search:
    """An object that can be called."""

    def __call__(self, tuned: Curves, untouched: Curves, budget: int, patience: int) -> Any:
        return day39.best_checkpoint(tuned, untouched, budget, patience)


RIGHT = [day39.best_checkpoint, by_tensor, Search(), lambda t, u, b, p: list(by_tensor(t, u, b, p))]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_best_checkpoint_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day39", learner), said()
    assert said().startswith("day39: right. ")


def test_no_mistake_is_right_on_the_cases() -> None:
    wanted = [day39.best_checkpoint(*case) for case in day39.cases()]
    assert day39.agree(wanted, [day39.guess(*case) for case in day39.cases()])
    answers = {m: [day39.guess(*case, mistake=m) for case in day39.cases()] for m in day39.MISTAKES}
    assert all(not day39.agree(wanted, a) for a in answers.values())
    names = list(answers)
    assert all(not day39.agree(answers[a], answers[b]) for i, a in enumerate(names) for b in names[:i])


def changes_lists(tuned: Curves, untouched: Curves, budget: int, patience: int) -> Any:
    answer = day39.best_checkpoint(tuned, untouched, budget, patience)
    tuned[0].sort()
    return answer


def spoiled_by_nan(tuned: Curves, untouched: Curves, budget: int, patience: int) -> Any:
    if any(math.isnan(v) for losses in tuned for v in losses):
        return 0, 0, untouched[0][0]
    return day39.best_checkpoint(tuned, untouched, budget, patience)


WRONG: dict[str, tuple[Any, str]] = {
    mistake: (functools.partial(day39.guess, mistake=mistake), sentence) for mistake, sentence in day39.MISTAKES.items()
} | {
    "changes the lists": (changes_lists, "changes the lists"),
    "nothing": (lambda t, u, b, p: None, "returned None"),
    "the loss alone": (lambda t, u, b, p: 2.0, "Return three things"),
    "no numbers": (lambda t, u, b, p: ("a", "b", "c"), "are whole numbers, the loss"),
    "nan cases": (spoiled_by_nan, "only where a loss is NaN"),
    "something else": (lambda t, u, b, p: (0, 0, u[0][0]), "something else than the rule gives"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_best_checkpoint_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day39", WRONG, mistake)


def test_best_checkpoint_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day39", WRONG, least=23)


def by_torch(x: Tensor, p: float, training: bool) -> Tensor:
    return F.dropout(x, p, training)


def by_bernoulli(x: Tensor, p: float, training: bool) -> Tensor:
    if not training:
        return x
    mask = torch.bernoulli(torch.full(x.shape, 1 - p))
    return x * mask / max(1 - p, 1e-9)


def by_where(x: Tensor, p: float, training: bool) -> Tensor:
    if training and p > 0:
        scale = 0.0 if p == 1 else 1 / (1 - p)
        x = torch.where(torch.rand(x.shape) < p, torch.zeros(()), x * scale)
    return x


@pytest.mark.parametrize(
    "learner", [day39.dropout, by_torch, by_bernoulli, by_where], ids=lambda f: getattr(f, "__name__", "object")
)
def test_dropout_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day39b", learner), said()


def variant(
    *,
    factor: Callable[[float, Tensor], Any] = lambda p, keep: 1 / (1 - p) if p < 1 else 0.0,
    chance: Callable[[float], float] = lambda p: p,
    shape: Callable[[Tensor], Any] = lambda x: x.shape,
    after: Callable[[Tensor, float], Tensor] = lambda x, p: x,
) -> Callable[..., Tensor]:
    def dropout(x: Tensor, p: float, training: bool) -> Tensor:
        if not training:
            return after(x, p)
        keep = torch.rand(shape(x)) >= chance(p)
        return x * keep * factor(p, keep)

    return dropout


def always_on(x: Tensor, p: float, training: bool) -> Tensor:
    return F.dropout(x, p, True)


def seeded(x: Tensor, p: float, training: bool) -> Tensor:
    torch.manual_seed(0)
    return F.dropout(x, p, training)


def exact_count(x: Tensor, p: float, training: bool) -> Tensor:
    if not training:
        return x
    keep = torch.ones(x.numel())
    keep[torch.randperm(x.numel())[: round(p * x.numel())]] = 0
    return x * keep.view(x.shape) / max(1 - p, 1e-9)


def detached(x: Tensor, p: float, training: bool) -> Tensor:
    return F.dropout(x.detach(), p, training)


def in_place(x: Tensor, p: float, training: bool) -> Tensor:
    return F.dropout(x, p, training, inplace=True)


def matrix_only(x: Tensor, p: float, training: bool) -> Tensor:
    rows, columns = x.shape
    return F.dropout(x, p, training) * torch.ones(rows, columns)


def divides(x: Tensor, p: float, training: bool) -> Tensor:
    return x * (torch.rand_like(x) >= p) / (1 - p) if training else x


def no_return(x: Tensor, p: float, training: bool) -> None:
    F.dropout(x, p, training)


WRONG_DROPOUT: dict[str, tuple[Any, str]] = {
    "always on": (always_on, "numbers are still dropped"),
    "scaled in evaluation": (variant(after=lambda x, p: x * (1 - p)), "all its scaling in training"),
    "off": (lambda x, p, training: x, "nothing is set to 0"),
    "all gone": (lambda x, p, training: x * 0 if training else x, "everything is set to 0"),
    "one mask for the rows": (variant(shape=lambda x: x.shape[-1:]), "Every row has"),
    "one mask for the columns": (variant(shape=lambda x: (*x.shape[:-1], 1)), "Every column has"),
    "kept with chance p": (variant(chance=lambda p: 1 - p), "not to stay"),
    "another chance": (variant(chance=lambda p: p / 2), "of zeros is 0.15."),
    "seed inside": (seeded, "Two calls drop the same"),
    "exact count": (exact_count, "drops exactly as many"),
    "not scaled": (variant(factor=lambda p, k: 1), "keep their size"),
    "multiplied by 1 - p": (variant(factor=lambda p, k: 1 - p), "shrinks the average twice"),
    "divided by p": (variant(factor=lambda p, k: 1 / p), "are divided by p"),
    "multiplied by p": (variant(factor=lambda p, k: p), "are multiplied by p;"),
    "multiplied by 1 + p": (variant(factor=lambda p, k: 1 + p), "multiplied by 1 + p"),
    "another factor": (variant(factor=lambda p, k: 1 / (1 - p) ** 2), "multiplied by 2.041"),
    "by the count": (variant(factor=lambda p, k: k.numel() / k.sum()), "changes a little from call to call"),
    "noise": (variant(factor=lambda p, k: torch.rand(k.shape) + 1), "not all multiplied by the same"),
    "matrix only": (matrix_only, "fails for x of shape (2, 3, 4, 5)"),
    "nan": (divides, "0 divided by 0"),
    "detached": (detached, "No gradient gets through"),
    "in place": (in_place, "changes its input x"),
    "no return": (no_return, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG_DROPOUT)
def test_dropout_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day39b", WRONG_DROPOUT, mistake)


def test_dropout_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day39b", WRONG_DROPOUT, least=20)
