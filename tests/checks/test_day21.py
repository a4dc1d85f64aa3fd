"""Day 21: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llmcourse.checks import check, day21

Say = Callable[[], str]
RIGHT = {"A": "unpaired", "B": "leak", "C": "rate too high", "D": "rate too low"}


def by_slices(losses: Sequence[float], patience: int, min_delta: float) -> list[Any]:
    best = None
    for i in range(len(losses)):
        if not math.isnan(losses[i]) and (best is None or losses[best] - losses[i] > min_delta):
            best = i
        if i - (-1 if best is None else best) == patience:
            return [i, best]
    return [len(losses) - 1, best]


class Stopper:
    def __init__(self) -> None:
        self.low, self.best, self.bad = float("inf"), None, 0

    def update(self, i: int, loss: float, delta: float) -> int:
        improved = loss < self.low - delta
        self.bad = 0 if improved else self.bad + 1
        if improved:
            self.low, self.best = loss, i  # type: ignore[assignment]
        return self.bad


def by_class(losses: Sequence[float], patience: int, min_delta: float) -> tuple[int, int | None]:
    stopper = Stopper()
    i = 0
    for i, loss in enumerate(losses):
        if stopper.update(i, loss, min_delta) == patience:
            break
    return i, stopper.best


@pytest.mark.parametrize("learner", [by_slices, by_class, day21.early_stopping], ids=lambda f: f.__name__)
def test_early_stopping_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day21", learner), said()
    assert said().startswith("day21: right. ")


def no_return(losses: Sequence[float], patience: int, min_delta: float) -> Any:
    stop, best = day21.early_stopping(losses, patience, min_delta)
    return (stop, best) if stop < len(losses) - 1 else None


def value_of_best(losses: Sequence[float], patience: int, min_delta: float) -> Any:
    stop, best = day21.early_stopping(losses, patience, min_delta)
    return stop, None if best is None else losses[best] + 0.01


def only_stop(losses: Sequence[float], patience: int, min_delta: float) -> Any:
    return day21.early_stopping(losses, patience, min_delta)[0]


def pops(losses: list[float], patience: int, min_delta: float) -> Any:
    out = day21.early_stopping(losses, patience, min_delta)
    losses.pop(0)
    return out


def zero_at_first(losses: Sequence[float], patience: int, min_delta: float) -> Any:
    stop, best = day21.early_stopping(losses, patience, min_delta)
    return stop, best or 0


def always_the_end(losses: Sequence[float], patience: int, min_delta: float) -> Any:
    return len(losses) - 1, day21.early_stopping(losses, len(losses) + 1, min_delta)[1]


WORDS = [
    "a higher loss for a better one", "counted in total", "too late", "too early", "the one before",
    "min_delta is ignored", "the wrong sign", "An equal loss", "never add up", "even to nan", "A nan is taken",
    "where training ended", "best of *all* losses", "too high by one", "swapped",
]  # fmt: skip
WRONG: dict[str, tuple[Any, str]] = {
    words: (mistake, words) for (mistake, _), words in zip(day21.MISTAKES, WORDS, strict=True)
} | {
    "no return after the loop": (no_return, "returned None for a list"),
    "loss instead of index": (value_of_best, "second number is a loss"),
    "one number": (only_stop, "Return two numbers"),
    "changes the list": (pops, "changes the list"),
    "0 for None": (zero_at_first, "nothing but nan"),
    "never stops": (always_the_end, "you return (10, 10)"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_stopping_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day21", WRONG, mistake)


def test_stopping_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day21", WRONG, least=18)


@pytest.mark.parametrize("names", [RIGHT, {k.lower(): f" {v.upper()} " for k, v in RIGHT.items()}])
def test_names_pass(names: dict[str, str], said: Say) -> None:
    assert check("day21b", names), said()


WRONG_NAMES: dict[str, tuple[Any, str]] = {
    f"{letter} called {name}": (RIGHT | {letter: name}, sentence) for (letter, name), sentence in day21.AGAINST.items()
} | {
    "not a dictionary": (["unpaired"], "Hand in a dictionary"),
    "stub": (dict.fromkeys("ABCD", "?"), "choose one of"),
    "a letter is missing": ({"A": "unpaired"}, "no name for B and C and D"),
}


@pytest.mark.parametrize("mistake", WRONG_NAMES)
def test_wrong_name_is_answered(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day21b", WRONG_NAMES, mistake)


def test_wrong_names_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day21b", WRONG_NAMES, least=12)
