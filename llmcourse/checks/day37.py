"""Checker of day 37: splitting a budget of computation between parameters and tokens.

Each law is tried at several budgets. The right pair is known from a formula; a wrong one is compared with what the
typical mistakes would give, and the first that fits all laws tells which was made.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import Wrong, exercise

Law = Mapping[str, float]
Pair = tuple[float, float]
LAWS: tuple[dict[str, float], ...] = (
    {"E": 1.7, "A": 410.0, "alpha": 0.34, "B": 2100.0, "beta": 0.37},
    {"E": 0.4, "A": 30.0, "alpha": 0.5, "B": 90.0, "beta": 0.28},
    {"E": 1.2, "A": 900.0, "alpha": 0.62, "B": 3000.0, "beta": 0.81},
)
BUDGETS = (3e12, 6e15, 2e20)
NEAR = 0.02


def allocate(budget: float, law: Law) -> Pair:
    """(n, d): the best parameters and tokens for `budget` FLOPs at 6 n d."""
    a, b, product = law["alpha"], law["beta"], budget / 6  # n · d
    ratio = a * law["A"] / (b * law["B"])
    n = (ratio * product**b) ** (1 / (a + b))
    return n, product / n


def variant(
    six: float = 6.0, swap: bool = False, prefactor: bool = True, slopes: bool = True, root: bool = True
) -> Callable[[float, Law], Pair]:
    """The formula with one thing changed."""

    def solve(budget: float, law: Law) -> Pair:
        a, b, product = law["alpha"], law["beta"], budget / six
        ratio = (law["A"] / law["B"] if prefactor else 1.0) * (a / b if slopes else 1.0)
        power = a if swap else b
        n = (ratio * product**power) ** (1 / (a + b) if root else 1.0)
        return n, product / n

    return solve


def ratio_20(budget: float, law: Law) -> Pair:
    n = math.sqrt(budget / 120)
    return n, 20 * n


def half_each(budget: float, law: Law) -> Pair:
    n = math.sqrt(budget / 6)
    return n, n


def equal_penalties(budget: float, law: Law) -> Pair:
    return variant(slopes=False)(budget, law)


def exchanged(budget: float, law: Law) -> Pair:
    n, d = allocate(budget, law)
    return d, n


MISTAKES: tuple[tuple[Callable[[float, Law], Pair], str], ...] = (
    (exchanged, "The two results are exchanged: return parameters first, then tokens."),
    (ratio_20, "It returns 20 tokens a parameter whatever the law says: the ratio follows from A, B, alpha and beta."),
    (half_each, "It makes n and d equal, the square root of budget / 6: that ignores the law altogether."),
    (
        variant(six=1.0),
        "The 6 is missing: 6 n d is the budget, so n d is a sixth of it, and your pair costs six times too much.",
    ),
    (variant(six=2.0), "It counts 2 FLOPs for each parameter and token, the forward pass alone; training takes 6."),
    (variant(swap=True), "The exponents are exchanged: in the best n, the budget has the power beta / (alpha + beta)."),
    (
        equal_penalties,
        "It makes the two penalties equal, A / n^alpha = B / d^beta; at the best point it is their slopes that are: "
        "alpha A / n^alpha = beta B / d^beta.",
    ),
    (variant(prefactor=False), "A and B have no effect on your result: they say how heavy each penalty is."),
    (
        variant(prefactor=False, slopes=False),
        "Only the power of the budget is there: the factor (alpha A / (beta B))^(1 / (alpha + beta)) is missing.",
    ),
    (
        variant(root=False),
        "The last step is missing: it is n to the power alpha + beta that you have; take the power 1 / (alpha + beta).",
    ),
)


@exercise(
    "day37",
    title="Allocating a budget",
    signature="allocate(budget, law)",
    hints=[
        "The budget fixes the product: n · d = budget / 6. So there is one unknown, n, and d follows from it.",
        "With d = budget / (6 n), the loss is E + A n^-alpha + B (6 n / budget)^beta. Where its derivative is zero, "
        "alpha A n^-alpha = beta B (6 n / budget)^beta.",
        "Multiply by n^alpha and solve: n = (alpha A / (beta B) · (budget / 6)^beta)^(1 / (alpha + beta)).",
    ],
    solution=allocate,
    right="The whole budget is spent, and no other split has a lower predicted loss.",
)
def check_allocate(learner: Callable[[float, dict[str, float]], Any]) -> None:
    cases = [(budget, law) for law in LAWS for budget in BUDGETS]
    got = [pair(learner, budget, law) for budget, law in cases]
    right = [allocate(budget, law) for budget, law in cases]
    if same(got, right):
        return
    for wrong, sentence in MISTAKES:
        if same(got, [wrong(budget, law) for budget, law in cases]):
            raise Wrong(sentence)
    explain(cases, got, right)


def pair(learner: Callable[[float, dict[str, float]], Any], budget: float, law: Law) -> Pair:
    """What the learner returns, as two positive numbers."""
    mine = dict(law)
    result = learner(budget, mine)
    if mine != law:
        raise Wrong("Your function changes the law that it was given; the caller still needs it.")
    if result is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    try:
        n, d = (float(x) for x in result)
    except (TypeError, ValueError) as e:
        raise Wrong("Return two numbers, the parameters and the tokens: return n, d.") from e
    if math.isnan(n) or math.isnan(d) or math.isinf(n) or math.isinf(d):
        raise Wrong("One of the two numbers is infinite or not a number.")
    if n <= 0 or d <= 0:
        raise Wrong(f"n = {n:.3g} and d = {d:.3g}: both have to be positive. Was something rounded down to an integer?")
    return n, d


def same(got: list[Pair], wanted: list[Pair]) -> bool:
    return all(abs(x / y - 1) <= NEAR for g, w in zip(got, wanted, strict=True) for x, y in zip(g, w, strict=True))


def loss(law: Law, n: float, d: float) -> float:
    return law["E"] + law["A"] / n ** law["alpha"] + law["B"] / d ** law["beta"]


def explain(cases: Sequence[tuple[float, Law]], got: list[Pair], right: list[Pair]) -> None:
    """A pair that none of the known mistakes gives: first the budget, then what is wrong with the split."""
    spent = [6 * n * d / budget for (budget, _), (n, d) in zip(cases, got, strict=True)]
    i = max(range(len(cases)), key=lambda i: abs(math.log(spent[i])))
    if spent[i] > 1 + 2 * NEAR:
        raise Wrong(f"Your pair overdraws the budget: 6 n d is {spent[i]:.3g} times as much.")
    if spent[i] < 1 - 2 * NEAR:
        raise Wrong(f"Your pair leaves a part of the budget: 6 n d is only {spent[i]:.3g} of it, and more helps.")
    if all(abs(g[0] / got[0][0] - 1) <= NEAR for g in got):
        raise Wrong("n is always the same, whatever the budget: both n and d have to grow with it.")
    ratios = [n / m for (n, _), (m, _) in zip(got, right, strict=True)]
    if all(r > 1 for r in ratios):
        raise Wrong("The budget is kept, but n is too large every time: a smaller model with more tokens is better.")
    if all(r < 1 for r in ratios):
        raise Wrong("The budget is kept, but n is too small every time: a larger model with fewer tokens is better.")
    i = max(range(len(cases)), key=lambda i: abs(math.log(ratios[i])))
    (budget, law), (n, d), (m, e) = cases[i], got[i], right[i]
    raise Wrong(
        f"The budget is kept, but the split is off: at {budget:.0e} FLOPs, alpha {law['alpha']:g}, "
        f"beta {law['beta']:g}, "
        f"your n gives the loss {loss(law, n, d):.4g}, and {m / n:.3g} times that n gives {loss(law, m, e):.4g}. "
        "Does a search reach far enough, and finely enough?"
    )
