"""Checkers of day 34: where attention overtakes the MLP, and the effects of a 2x2 factorial with their errors.

Both results are numbers that can be computed exactly. A wrong one is compared with what known mistakes would give.
"""

import math
from collections.abc import Callable
from itertools import count
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from . import Wrong, call, exercise, tensor

# ---- The crossover -------------------------------------------------------------------------------------------

SHAPES = ((96, 400), (64, 384), (128, 512), (48, 201))  # (n_embd, hidden); the first is not four times as wide


def crossover(n_embd: int, hidden: int, causal: bool) -> int:
    """The first window T at which one layer's attention costs more than its MLP, per token."""
    spare = hidden - 2 * n_embd  # 4 C² + 2 C seen > 2 C hidden: the keys that a token sees must exceed this
    return max(1, 2 * spare if causal else spare + 1)


def first(costs: Callable[[int, int, int, bool], tuple[float, float]], at_least: bool = False) -> Callable[..., int]:
    """The first T at which (attention, mlp) = costs(T, C, hidden, causal) has attention above the MLP."""

    def search(C: int, hidden: int, causal: bool) -> int:
        for T in count(1):
            attention, mlp = costs(T, C, hidden, causal)
            if attention > mlp or (at_least and attention == mlp):
                return T
        raise AssertionError

    return search


def seen(T: int, causal: bool) -> float:
    return (T + 1) / 2 if causal else T


MISTAKES: list[tuple[Callable[[int, int, bool], float], str]] = [
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * seen(T, c), 2 * C * h), at_least=True),
        "That is the window at which both cost the same; asked is the first at which attention costs more.",
    ),
    (
        first(lambda T, C, h, c: (2 * C * seen(T, c), 2 * C * h)),
        "You count only scores and mixing: the four projections, 4·C² for each token, belong to attention too.",
    ),
    (
        first(lambda T, C, h, c: (3 * C * C + 2 * C * seen(T, c), 2 * C * h)),
        "You count three projections: behind queries, keys and values comes a fourth, the one back to the residual.",
    ),
    (
        first(lambda T, C, h, c: (C * C + 2 * C * seen(T, c), 2 * C * h)),
        "You count one projection of C × C, but there are four: query, key, value and the one back.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + C * seen(T, c), 2 * C * h)),
        "You count C for each key; it is used twice, in the scores and in mixing the values, so 2·C.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * T, 2 * C * h)),
        "Your result is the same with and without causal: with it, a token sees (T + 1)/2 keys on average.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + C * (T + 1), 2 * C * h)),
        "You halve the keys even when causal is False; then every token sees all T.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * seen(T, not c), 2 * C * h)),
        "The two cases are the wrong way round: True means that only the past is seen.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * (T / 2 if c else T), 2 * C * h)),
        "For causal you take T/2 keys; a token also sees itself, so the exact mean is (T + 1)/2.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * seen(T, c), 8 * C * C)),
        "Your result does not depend on hidden: it takes the MLP to be four times as wide, which it need not be.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * seen(T, c), 4 * C * h)),
        "Your MLP is twice too dear: it has two matrices, and both sides count in multiply-adds, not one in FLOPs.",
    ),
    (
        first(lambda T, C, h, c: (8 * C * C + 4 * C * seen(T, c), 2 * C * h)),
        "Your attention is twice too dear for the MLP: that has two matrices, and both sides count in multiply-adds.",
    ),
    (
        first(lambda T, C, h, c: (4 * C * C + 2 * C * T * seen(T, c), 2 * C * h)),
        "You put T² into the cost of one token; a token makes T scores, and only a whole window makes T².",
    ),
]


@exercise(
    "day34",
    title="Where attention overtakes the MLP",
    signature="crossover(n_embd, hidden, causal)",
    hints=[
        "Write both costs down first: attention 4·C·C + 2·C·seen, MLP 2·C·hidden. Divide both by 2·C.",
        "seen must be more than hidden - 2·C. If every token sees all T keys, that is the first T above it.",
        "With causal, (T + 1)/2 > hidden - 2·C. And if the MLP is narrow, attention is ahead from T = 1 on: never "
        "return less.",
    ],
    solution=crossover,
    right="At T = 2·C for the usual MLP if all keys are counted, at 4·C with the causal half, plus or minus one.",
)
def check_crossover(learner: Callable[[int, int, bool], Any]) -> None:
    got: list[Any] = []
    right: list[int] = []
    for C, hidden in SHAPES:
        for causal in (False, True):
            value = call(learner, n_embd=C, hidden=hidden, causal=causal)
            if isinstance(value, Tensor) and value.ndim == 0:
                value = value.item()
            if value is None:
                raise Wrong("Your function returned None: is there a return line at its end?")
            if isinstance(value, bool) or not isinstance(value, Real):
                raise Wrong(f"Your function returned something of type {type(value).__name__}: return a whole number.")
            got.append(value)
            right.append(crossover(C, hidden, causal))
    if got != right:
        diagnose_crossover(got, right)
    if not all(isinstance(value, Integral) for value in got):
        raise Wrong("The value is right, but its type is float: a window is a whole number, so divide with //.")
    for causal in (False, True):
        value = call(learner, n_embd=64, hidden=100, causal=causal)
        if value != 1:
            raise Wrong(
                f"For n_embd = 64 and hidden = 100 you return {value}; the projections alone cost more than this "
                "narrow MLP, so attention is ahead from T = 1 on."
            )


def diagnose_crossover(got: list[float], right: list[int]) -> None:
    """Raises Wrong about results that differ from the right ones."""
    if all(a != b and a == int(a) + 0.5 for a, b in zip(got, right, strict=True)):
        raise Wrong("A window cannot have half a token: return the first whole T.")
    settings = [(C, h, c) for C, h in SHAPES for c in (False, True)]
    for mistake, sentence in MISTAKES:
        if all(value == mistake(*setting) for value, setting in zip(got, settings, strict=True)):
            raise Wrong(sentence)
    if all(value in (2 * C, 2 * C + 1, 4 * C, 4 * C + 1) for value, (C, _, _) in zip(got, settings, strict=True)):
        raise Wrong("Your result uses n_embd only: 2·C and 4·C hold for hidden = 4·C, so solve for any hidden.")
    (C, hidden, causal), value, wanted = next(
        (s, a, b) for s, a, b in zip(settings, got, right, strict=True) if a != b
    )
    if value == wanted - 1:
        raise Wrong(
            f"With causal = {causal} you are one window too early: at T = {value:g} the two costs are equal, and "
            "attention must cost more."
        )
    raise Wrong(
        f"For n_embd = {C}, hidden = {hidden}, causal = {causal} you return {value:g}, but attention first costs more "
        f"at {wanted}."
    )


# ---- The factorial -------------------------------------------------------------------------------------------


def effects(losses: Tensor) -> Tensor:
    """(seeds, context, rate) losses -> (3, 2): main effects of context and rate, interaction; each with its error."""
    context = (losses[:, 1] - losses[:, 0]).mean(dim=1)  # (seeds,)
    change = losses[:, :, 1] - losses[:, :, 0]  # effect of the rate at each context: (seeds, 2)
    each = torch.stack([context, change.mean(dim=1), change[:, 1] - change[:, 0]])  # (3, seeds)
    error = each.std(dim=1) / math.sqrt(losses.shape[0])
    return torch.stack([each.mean(dim=1), error], dim=1)


def by_seed(losses: Tensor) -> Tensor:
    """The three effects of every seed, (3, seeds)."""
    change = losses[:, :, 1] - losses[:, :, 0]
    return torch.stack([(losses[:, 1] - losses[:, 0]).mean(1), change.mean(1), change[:, 1] - change[:, 0]])


ABOUT = ("the context", "the rate", "the interaction")


@exercise(
    "day34b",
    title="Effects with their errors",
    signature="effects(losses)",
    hints=[
        "Compute everything for each seed first, so that you have three rows with one number a seed.",
        "losses[:, 1] - losses[:, 0] is the effect of the context at both rates, (seeds, 2); its mean over the "
        "rates is the main effect. losses[:, :, 1] - losses[:, :, 0] is that of the rate at both contexts.",
        "The interaction is the second column of the rate's effects minus the first. The standard error of each row is "
        "row.std() / math.sqrt(seeds).",
    ],
    solution=effects,
    right="Means, and errors from paired differences.",
)
def check_effects(learner: Callable[[Tensor], Any]) -> None:
    for seeds in (4, 3):
        g = torch.Generator().manual_seed(34 + seeds)
        losses = torch.tensor([[2.6, 2.3], [2.7, 2.15]]) + 0.05 * torch.randn(seeds, 2, 2, generator=g)
        losses += 0.2 * torch.randn(seeds, 1, 1, generator=g)  # what a seed does to all four cells
        value = call(learner, losses=losses)
        if isinstance(value, Tensor) and tuple(value.shape) == (2, 3):
            raise Wrong("Your result is (2, 3): effects are rows, mean and error columns, so make it (3, 2).")
        diagnose_effects(tensor(value, (3, 2), meaning="(effect, mean and error)"), losses)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def diagnose_effects(got: Tensor, losses: Tensor) -> None:
    """Raises Wrong if `got` (3, 2) is not the effects of `losses` (S, 2, 2)."""
    each, S = by_seed(losses), losses.shape[0]
    mean, std = each.mean(1), each.std(1)
    low = losses[:, 1, 0] - losses[:, 0, 0], losses[:, 0, 1] - losses[:, 0, 0]  # simple effects at the first level
    high = losses[:, 1, 1] - losses[:, 0, 1], losses[:, 1, 1] - losses[:, 1, 0]
    wrong = [i for i in range(3) if not same(got[i, 0], mean[i])]
    if same(got[:2, 0], mean[[1, 0]]) and same(got[2, 0], mean[2]):
        raise Wrong("The rows of context and rate are exchanged: dimension 1 is the context, dimension 2 the rate.")
    if same(got[:, 0], -mean):
        raise Wrong("All signs are turned round: an effect is the second level minus the first, so a fall is negative.")
    if same(got[:, 0], mean * S):
        raise Wrong("These are sums over the seeds; take their mean.")
    for i in wrong:
        value = got[i, 0]
        if i < 2:
            if same(value, 2 * mean[i]):
                raise Wrong(f"The main effect of {ABOUT[i]} is twice too large: the mean of two, not their sum.")
            if same(value, low[i].mean()) or same(value, high[i].mean()):
                level = "first" if same(value, low[i].mean()) else "second"
                raise Wrong(
                    f"Row {i} is the effect of {ABOUT[i]} at the {level} level of the other setting only; average both."
                )
            if same(value, -mean[i]):
                raise Wrong(f"The effect of {ABOUT[i]} has the wrong sign: second level minus first.")
        else:
            if same(value, mean[2] / 2):
                raise Wrong("The interaction is halved; some books do that, here it is the plain difference.")
            if same(value, -mean[2]):
                raise Wrong("The interaction has the wrong sign: the rate's effect at the long context comes first.")
            if same(value, 2 * mean[1]):
                raise Wrong("Your interaction adds the two effects of the rate; it is their difference.")
            if same(value, (losses[:, 1, 1] - losses[:, 0, 0]).mean()):
                raise Wrong("Your interaction is the last cell minus the first, which changes both settings at once.")
            if same(value, mean[0] * mean[1]):
                raise Wrong("Your interaction is a product of two effects; measure it from the four cells.")
        raise Wrong(f"The mean effect of {ABOUT[i]} is {value:.4f}, but should be {mean[i]:.4f}.")
    error = std / math.sqrt(S)
    if same(got[:, 1], error):
        return
    change = losses[:, :, 1] - losses[:, :, 0]
    cells = losses.var(0).sum() / S  # as if the four means were independent
    alone = torch.stack([(cells / 4).sqrt(), (cells / 4).sqrt(), cells.sqrt()])
    for value, sentence in (
        (std, "The second column is the standard deviation of the seeds; divide it by √S for the error of their mean."),
        (each.std(1, correction=0) / math.sqrt(S), "Your standard deviation divides by S; with few seeds take S - 1."),
        (each.std(1, correction=0), "Your standard deviation divides by S and is not divided by √S."),
        (std / S, "You divide the standard deviation by S; the error of a mean falls with √S only."),
        (error**2, "The second column is the square of the error, a variance: take the root."),
        (
            std / math.sqrt(S - 1),
            "You divide by √(S - 1); the S - 1 belongs inside the standard deviation, the root takes S.",
        ),
        (
            alone,
            "Your error treats the four cells as independent; compute each seed's own effect first.",
        ),
        (
            torch.stack([(losses[:, 1] - losses[:, 0]).std(), change.std(), each[2].std() * 2**0.5]) / math.sqrt(2 * S),
            "Your error counts two differences of one seed as two seeds; average them within the seed first.",
        ),
        (torch.zeros(3), "Your errors are all zero: compute the scatter over the seeds before you average over them."),
    ):
        if same(got[:, 1], value):
            raise Wrong(sentence)
    if got[:, 1].isnan().any():
        raise Wrong("Your errors are NaN: is the scatter taken over the seeds, and not over a single number?")
    i = next(i for i in range(3) if not same(got[i, 1], error[i]))
    raise Wrong(f"The standard error of {ABOUT[i]} is {got[i, 1]:.4f}, but should be {error[i]:.4f}.")
