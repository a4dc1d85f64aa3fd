"""Day 37: right answers in several styles pass, and each typical mistake is named in its own words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from llmcourse.checks import check, day37
from llmcourse.checks.day37 import Law, Pair, variant

Say = Callable[[], str]


def by_grid(budget: float, law: Law) -> Any:
    n = np.geomspace(1e2, 1e13, 20_000)
    d = budget / (6 * n)
    i = np.argmin(law["E"] + law["A"] / n ** law["alpha"] + law["B"] / d ** law["beta"])
    return n[i], d[i]


def by_bisection(budget: float, law: Law) -> list[float]:
    low, high = 0.0, 40.0  # of ln n
    while high - low > 1e-9:
        middle = (low + high) / 2
        n = math.exp(middle)
        a = law["alpha"] * law["A"] / n ** law["alpha"]
        b = law["beta"] * law["B"] / (budget / 6 / n) ** law["beta"]
        low, high = (middle, high) if a > b else (low, middle)
    return [math.exp(low), budget / 6 / math.exp(low)]


def in_torch(budget: float, law: Law) -> torch.Tensor:
    return torch.tensor(day37.allocate(budget, law), dtype=torch.float64)


def tokens_first(budget: float, law: Law) -> Pair:
    a, b = law["alpha"], law["beta"]
    d = (b * law["B"] / (a * law["A"]) * (budget / 6) ** a) ** (1 / (a + b))
    return budget / (6 * d), d


def whole(budget: float, law: Law) -> tuple[int, int]:
    n, d = day37.allocate(budget, law)
    return round(n), round(d)


@pytest.mark.parametrize("learner", [day37.allocate, by_grid, by_bisection, in_torch, tokens_first, whole])
def test_allocate_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day37", learner), said()
    assert said().startswith("day37: right. ")


@pytest.mark.parametrize("law", day37.LAWS)
@pytest.mark.parametrize("budget", day37.BUDGETS)
def test_the_formula_is_the_minimum(law: Law, budget: float) -> None:
    n, d = day37.allocate(budget, law)
    assert math.isclose(6 * n * d, budget, rel_tol=1e-9)
    best = day37.loss(law, n, d)
    assert all(day37.loss(law, n * f, d / f) > best for f in (0.5, 0.97, 1.03, 2.0))


def changes_law(budget: float, law: Any) -> Pair:
    law["A"] *= law["alpha"]
    return 1.0, 1.0


def fixed_text(budget: float, law: Law) -> Pair:
    return budget / 6 / 1e6, 1e6


def fixed_size(budget: float, law: Law) -> Pair:
    return 1e5, budget / 6 / 1e5


def text_only(budget: float, law: Law) -> Pair:
    n, d = day37.allocate(budget, law)
    return n, d / 2


def both_too_large(budget: float, law: Law) -> Pair:
    n, d = day37.allocate(budget, law)
    return 1.5 * n, 1.5 * d


def scaled(factor: float) -> Callable[[float, Law], Pair]:
    def solve(budget: float, law: Law) -> Pair:
        n, d = day37.allocate(budget, law)
        return n * factor, d / factor

    return solve


def short_search(budget: float, law: Law) -> Any:
    n = np.geomspace(1e6, 1e9, 400)
    d = budget / (6 * n)
    i = np.argmin(law["A"] / n ** law["alpha"] + law["B"] / d ** law["beta"])
    return n[i], d[i]


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "exchanged": (day37.exchanged, "The two results are exchanged"),
    "always 20": (day37.ratio_20, "20 tokens a parameter whatever the law says"),
    "half each": (day37.half_each, "It makes n and d equal"),
    "no 6": (variant(six=1.0), "The 6 is missing"),
    "2 for 6": (variant(six=2.0), "the forward pass alone"),
    "swapped": (variant(swap=True), "The exponents are exchanged"),
    "penalties equal": (day37.equal_penalties, "it is their slopes that are"),
    "no A and B": (variant(prefactor=False), "A and B have no effect"),
    "only the power": (variant(prefactor=False, slopes=False), "Only the power of the budget is there"),
    "no root": (variant(root=False), "The last step is missing"),
    "law changed": (changes_law, "changes the law that it was given"),
    "None": (lambda budget, law: None, "returned None"),
    "one number": (lambda budget, law: day37.allocate(budget, law)[0], "Return two numbers"),
    "integer 0": (lambda budget, law: (0, budget / 6), "rounded down to an integer"),
    "nan": (lambda budget, law: (math.nan, 1.0), "infinite or not a number"),
    "fixed size": (fixed_size, "n is always the same"),
    "half the text": (text_only, "leaves a part of the budget"),
    "too much": (both_too_large, "overdraws the budget"),
    "too large": (scaled(2.0), "n is too large every time"),
    "too small": (scaled(0.5), "n is too small every time"),
    "short search": (short_search, "Does a search reach far enough"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_allocate_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day37", WRONG, mistake)


def test_allocate_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day37", WRONG, least=18)


def test_a_fixed_text_is_refused(said: Say) -> None:
    assert not check("day37", fixed_text)
    assert "The budget is kept" in said()
