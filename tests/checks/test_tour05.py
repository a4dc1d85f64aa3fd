"""Tour 5: the right report passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmcourse.checks import check

Say = Callable[[], str]
Curve = list[float]


def best(steps: list[int], val: Curve) -> int:
    return steps[val.index(min(val))]


def first(steps: list[int], train: Curve, floor: float) -> int | None:
    return next((s for s, x in zip(steps, train, strict=True) if x < floor), None)


def by_next(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    return best(steps, val), first(steps, train, floor)


def by_numpy(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    below = np.flatnonzero(np.array(train) < floor)
    return steps[int(np.argmin(val))], np.array(steps)[below[0]] if len(below) else None


def by_loop(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    stop, lowest, proof = None, float("inf"), None
    for step, a, b in zip(steps, train, val, strict=True):
        if b < lowest:
            stop, lowest = step, b
        if a < floor and proof is None:
            proof = step
    return [stop, proof]


def by_sorting(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    below = sorted(s for s, x in zip(steps, train, strict=True) if x < floor)
    return min(zip(val, steps, strict=True))[1], below[0] if below else None


@pytest.mark.parametrize("learner", [by_next, by_numpy, by_loop, by_sorting])
def test_report_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour05", learner), said()
    assert said().startswith("tour05: right. ")


def before_the_rise(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    for i in range(1, len(val)):
        if val[i] > val[i - 1]:
            return steps[i - 1], first(steps, train, floor)
    return steps[-1], first(steps, train, floor)


def sorts(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    answer = by_next(steps, train, val, floor)
    train.sort()
    return answer


def last_below(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    return best(steps, val), [s for s, x in zip(steps, train, strict=True) if x < floor][-1]


def crashes(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    return best(steps, val), [s for s, x in zip(steps, train, strict=True) if x < floor][0]  # noqa: RUF015


def at_most(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    return best(steps, val), next((s for s, x in zip(steps, train, strict=True) if x <= floor), None)


def computes_steps(steps: list[int], train: Curve, val: Curve, floor: float) -> Any:
    return by_next([steps[0] * (i + 1) for i in range(len(steps))], train, val, floor)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "position": (lambda s, t, v, f: (v.index(min(v)), first(s, t, f)), "You return the position in the list"),
    "loss": (lambda s, t, v, f: (min(v), first(s, t, f)), "You return the lowest loss itself"),
    "train": (lambda s, t, v, f: (s[t.index(min(t))], first(s, t, f)), "there it has memorized most"),
    "later": (lambda s, t, v, f: (s[-1 - v[::-1].index(min(v))], first(s, t, f)), "you take the later one"),
    "first rise": (before_the_rise, "before the first rise of the validation loss"),
    "last step": (lambda s, t, v, f: (s[-1], first(s, t, f)), "You return the last step"),
    "first step": (lambda s, t, v, f: (s[0], first(s, t, f)), "You return the first step"),
    "swapped": (lambda s, t, v, f: (first(s, t, f), best(s, v)), "in the right order?"),
    "below val": (
        lambda s, t, v, f: (best(s, v), next((x for x, a, b in zip(s, t, v, strict=True) if a < b), None)),
        "it is so in nearly every run",
    ),
    "val below floor": (lambda s, t, v, f: (best(s, v), first(s, v, f)), "you find no proof"),
    "last below": (last_below, "the last evaluation below the floor"),
    "lowest": (lambda s, t, v, f: (best(s, v), s[t.index(min(t))]), "it was below the floor before"),
    "position of the proof": (
        lambda s, t, v, f: (best(s, v), first(list(range(len(s))), t, f)),
        "You report a position",
    ),
    "loss of the proof": (
        lambda s, t, v, f: (best(s, v), next((x for x in t if x < f), None)),
        "You report a loss as the proof",
    ),
    "one early": (
        lambda s, t, v, f: (best(s, v), s[s.index(first(s, t, f) or s[-1]) - 1]),
        "is still above the floor",
    ),
    "stop twice": (lambda s, t, v, f: (best(s, v), best(s, v)), "the step to stop at once more"),
    "bool": (lambda s, t, v, f: (best(s, v), min(t) < f), "you return True or False"),
    "crashes": (crashes, "fails (IndexError) on a run that never goes below"),
    "zero for never": (lambda s, t, v, f: (best(s, v), first(s, t, f) or 0), "it should be None"),
    "equal": (at_most, "exactly at the floor"),
    "computed": (computes_steps, "With other steps"),
    "one thing": (lambda s, t, v, f: best(s, v), "Two things are to be returned"),
    "all below": (lambda s, t, v, f: (best(s, v), [x for x, a in zip(s, t, strict=True) if a < f]), "a whole list"),
    "none": (lambda s, t, v, f: None, "is there a return line"),
    "sorts": (sorts, "changes a list"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour05", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour05", WRONG, least=20)
