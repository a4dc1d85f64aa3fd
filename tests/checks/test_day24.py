"""Day 24: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check

Say = Callable[[], str]


def refuse(t: float) -> None:
    if t < 0:
        raise ValueError("below zero")


def limit(z: Tensor) -> Tensor:
    best = (z == z.amax(-1, keepdim=True)).to(z.dtype)
    return best / best.sum(-1, keepdim=True)


def by_hand(logits: Tensor, temperature: float) -> Tensor:
    refuse(temperature)
    if temperature == 0:
        return limit(logits)
    e = ((logits - logits.max(dim=-1, keepdim=True).values) / temperature).exp()
    return e / e.sum(dim=-1, keepdim=True)


def by_log_softmax(logits: Tensor, temperature: float) -> Tensor:
    refuse(temperature)
    z = logits.float().log_softmax(-1)
    z = z - z.amax(-1, keepdim=True)
    return F.softmax(z / temperature, dim=-1) if temperature else limit(logits)


def by_masks(logits: Tensor, temperature: float) -> Tensor:
    if temperature < 0:
        raise ValueError
    if temperature == 0:
        z = torch.where(logits == logits.amax(-1, keepdim=True), 0.0, -math.inf)
        return z.softmax(-1)
    if math.isinf(temperature):
        return torch.full_like(logits, 1 / logits.shape[-1])
    return (logits.double() - logits.double().amax(-1, keepdim=True)).div(temperature).softmax(-1).to(logits.dtype)


def in_double(logits: Tensor, temperature: float) -> Tensor:
    refuse(temperature)
    return (logits.double() / temperature).softmax(-1).to(logits.dtype) if temperature > 0 else limit(logits)


class Module(nn.Module):
    def forward(self, x: Tensor, t: float = 1.0) -> Tensor:
        return by_hand(x, t)


RIGHT = [by_hand, by_log_softmax, by_masks, in_double, Module(), lambda logits, t=1.0: by_hand(logits, t)]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_temperature_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day24", learner), said()
    assert said().startswith("day24: right. ")


def variant(
    warm: Callable[[Tensor, float], Tensor] = by_hand,
    zero: Callable[[Tensor], Tensor] = limit,
    negative: Callable[[float], None] = refuse,
) -> Callable[[Tensor, float], Tensor]:
    def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
        negative(temperature)
        return zero(logits) if temperature == 0 else warm(logits, temperature)

    return apply_temperature


def one_hot(z: Tensor) -> Tensor:
    return F.one_hot(z.argmax(-1), z.shape[-1]).to(z.dtype)


def in_place(logits: Tensor, temperature: float) -> Tensor:
    logits -= logits.amax(-1, keepdim=True)
    return (logits / temperature).softmax(-1)


def mask_in_place(logits: Tensor, temperature: float) -> Tensor:
    return logits.div_(temperature).softmax(-1)


def naive(z: Tensor, t: float) -> Tensor:
    e = (z / t).exp()
    return e / e.sum(-1, keepdim=True)


def centered(z: Tensor, t: float) -> Tensor:
    return ((z - z.amax(-1, keepdim=True)) / t).softmax(-1)


def even(z: Tensor) -> Tensor:
    return torch.full_like(z, 1 / z.shape[-1])


def renormalized(z: Tensor, t: float) -> Tensor:
    p = z.softmax(-1) / t
    return p / p.sum(-1, keepdim=True)


def power(z: Tensor, t: float) -> Tensor:
    p = z.softmax(-1) ** (1 / t)
    return p / p.sum(-1, keepdim=True)


def whole_batch(z: Tensor, t: float) -> Tensor:
    return (z / t).flatten().softmax(0).view_as(z)


def greedy_when_cold(z: Tensor, t: float) -> Tensor:
    return limit(z) if t < 0.01 else by_hand(z, t)


def asserts(t: float) -> None:
    assert t >= 0


def refuse_zero(t: float) -> None:
    if t <= 0:
        raise ValueError("Temperature must be positive")


def refuse_infinity(z: Tensor, t: float) -> Tensor:
    if math.isinf(t):
        raise ValueError("too hot")
    return by_hand(z, t)


def infinity_nan(z: Tensor, t: float) -> Tensor:
    return by_hand(z * t, t * t) if math.isinf(t) else by_hand(z, t)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "multiplies": (variant(lambda z, t: (z * t).softmax(-1)), "multiplied by the temperature"),
    "ignores": (variant(lambda z, t: renormalized(z, t)), "changes nothing"),
    "divides probabilities": (variant(lambda z, t: z.softmax(-1) / t), "sum to 2"),
    "squares": (variant(lambda z, t: (z / t**2).softmax(-1)), "multiplied by 4; for T = 0.5 it should be 2"),
    "no softmax": (variant(lambda z, t: z / t), "still logits"),
    "log": (variant(lambda z, t: (z / t).log_softmax(-1)), "holds logarithms"),
    "over the batch": (variant(lambda z, t: (z / t).softmax(0)), "Each column sums to 1"),
    "over everything": (variant(whole_batch), "All numbers of the batch together"),
    "dim 1": (variant(lambda z, t: ((z - z.amax(-1, keepdim=True)) / t).softmax(1)), "but fails for (7,)"),
    "in place": (in_place, "changes its input logits"),
    "div_": (variant(mask_in_place), "changes its input logits"),
    "naive exp": (variant(naive), "exp overflows above 88"),
    "power": (variant(power), "powers such as p ** 10000"),
    "fp16": (variant(lambda z, t: (z / t).softmax(-1)), "In fp16 a logit of 20"),
    "clamped": (variant(lambda z, t: by_hand(z, max(t, 0.01))), "do you raise small temperatures"),
    "epsilon": (lambda z, t: (refuse(t), by_hand(z, t + 1e-3))[1], "is added to the temperature"),
    "greedy when cold": (variant(greedy_when_cold), "only 0 itself is the special case"),
    "nan at zero": (lambda z, t: (refuse(t), centered(z, t))[1], "dividing by 0 leaves"),
    "1 / t": (lambda z, t: (refuse(t), ((z - z.amax(-1, keepdim=True)) * (1 / t)).softmax(-1))[1], "divides by zero"),
    "zero refused": (variant(negative=refuse_zero), "Temperature 0 is refused"),
    "zero is one": (variant(zero=lambda z: z.softmax(-1)), "the bet of temperature 1"),
    "zero is even": (variant(zero=even), "should have probability 1, the others 0"),
    "indices": (variant(zero=lambda z: z.argmax(-1)), "the numbers of the highest logits"),
    "argmax": (variant(zero=one_hot), "argmax names only one"),
    "ties get 1": (variant(zero=lambda z: (z == z.amax(-1, keepdim=True)).float()), "get 1 each"),
    "infinity refused": (variant(refuse_infinity), "It fails at temperature infinity"),
    "infinity nan": (variant(infinity_nan), "all V tokens should have the probability 1/V"),
    "negative": (variant(centered, negative=lambda t: None), "is accepted without a word"),
    "assert": (variant(negative=asserts), "ends in AssertionError"),
    "nothing": (lambda logits, temperature: None, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_temperature_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day24", WRONG, mistake)


def test_temperature_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day24", WRONG, least=20)
