"""Tour 9: the right quantizer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks.tour09 import quantize_range

Say = Callable[[], str]


def by_loop(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = torch.zeros(w.shape, dtype=torch.int32), [], []
    for r, row in enumerate(w):
        for start in range(0, len(row), group):
            part = row[start : start + group]
            least = part.min()
            step = (part.max() - least) / (2**bits - 1)
            scale.append(step)
            low.append(least)
            if step > 0:
                q[r, start : start + group] = ((part - least) / step).round().int()
    shape = len(w), w.shape[1] // group
    return q, torch.stack(scale).reshape(shape), torch.stack(low).reshape(shape)


def by_unfold(w: Tensor, bits: int, group: int) -> Any:
    parts = w.unfold(1, group, group)
    low = parts.min(-1, keepdim=True).values
    scale = (parts.max(-1, keepdim=True).values - low) / (2**bits - 1)
    q = torch.round((parts - low) / scale.clamp_min(1e-8)).clamp(0, 2**bits - 1)
    return q.flatten(1), scale, low


def in_numpy(w: Tensor, bits: int, group: int) -> Any:
    parts = w.numpy().reshape(-1, group)
    low, high = parts.min(1), parts.max(1)
    scale = (high - low) / (2**bits - 1)
    q = np.rint((parts - low[:, None]) / np.where(scale > 0, scale, 1)[:, None])
    return torch.tensor(q).reshape(w.shape), torch.tensor(scale), torch.tensor(low)


def in_half(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q, scale.half(), low


@pytest.mark.parametrize("learner", [quantize_range, by_loop, by_unfold, in_numpy, in_half])
def test_quantizer_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour09", learner), said()
    assert said().startswith("tour09: right. ")


def variant(
    steps: Callable[[int], float] = lambda bits: 2**bits - 1,
    rule: Callable[[Tensor], Tensor] = torch.round,
    width: Callable[[Tensor, Tensor], Tensor] = lambda low, high: high - low,
    keep: Callable[[Tensor], Tensor] = lambda q: q,
    start: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda low, high, scale: low,
) -> Callable[[Tensor, int, int], Any]:
    """The reference with one thing changed."""

    def learner(w: Tensor, bits: int, group: int) -> Any:
        parts = w.reshape(len(w), -1, group)
        low, high = parts.amin(-1), parts.amax(-1)
        scale = width(low, high) / steps(bits)
        q = rule((parts - low[..., None]) / torch.where(scale > 0, scale, 1.0)[..., None])
        return keep(q.reshape(w.shape)), scale, start(low, high, scale)

    return learner


def no_guard(w: Tensor, bits: int, group: int) -> Any:
    parts = w.reshape(len(w), -1, group)
    low = parts.amin(-1)
    scale = (parts.amax(-1) - low) / (2**bits - 1)
    return ((parts - low[..., None]) / scale[..., None]).round().reshape(w.shape), scale, low


def symmetric(w: Tensor, bits: int, group: int) -> Any:
    parts = w.reshape(len(w), -1, group)
    scale = parts.abs().amax(-1) / (2 ** (bits - 1) - 1)
    return (parts / scale[..., None]).round().reshape(w.shape), scale, torch.zeros_like(scale)


def whole(w: Tensor, bits: int, group: int) -> Any:
    low = w.min()
    scale = (w.max() - low) / (2**bits - 1)
    return ((w - low) / scale).round(), scale, low


def by_row(w: Tensor, bits: int, group: int) -> Any:
    return quantize_range(w, bits, w.shape[1])


def strided(w: Tensor, bits: int, group: int) -> Any:
    parts = w.reshape(len(w), group, -1)
    low = parts.amin(1)
    scale = (parts.amax(1) - low) / (2**bits - 1)
    step = torch.where(scale > 0, scale, 1.0)
    return ((parts - low[:, None]) / step[:, None]).round().reshape(w.shape), scale, low


def not_lowered(w: Tensor, bits: int, group: int) -> Any:
    _, scale, low = quantize_range(w, bits, group)
    step = torch.where(scale > 0, scale, 1.0).repeat_interleave(group, 1)
    return (w / step).round().clamp(0, 2**bits - 1), scale, low


def centered(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q.int() - 2 ** (bits - 1), scale, low


def upside_down(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q, 1 / scale, low


def highest(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q, scale, low + scale * (2**bits - 1)


def swapped(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q, low, scale


def minus(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q, scale, -low


def whole_expanded(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = whole(w, bits, group)
    shape = len(w), w.shape[1] // group
    return q, scale.expand(shape), low.expand(shape)


def row_expanded(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = by_row(w, bits, group)
    shape = len(w), w.shape[1] // group
    return q, scale.expand(shape), low.expand(shape)


def restored(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q * scale.repeat_interleave(group, 1) + low.repeat_interleave(group, 1)


def as_groups(w: Tensor, bits: int, group: int) -> Any:
    q, scale, low = quantize_range(w, bits, group)
    return q.reshape(-1, group), scale, low


def in_place(w: Tensor, bits: int, group: int) -> Any:
    parts = quantize_range(w, bits, group)
    w -= w.amin()
    return parts


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "2^bits": (variant(steps=lambda bits: 2**bits), "You divide the range by 2^bits"),
    "signed levels": (variant(steps=lambda bits: 2 ** (bits - 1) - 1), "no bit goes to a sign"),
    "half the levels": (variant(steps=lambda bits: 2 ** (bits - 1)), "divided by 2^(bits - 1):"),
    "number of bits": (variant(steps=lambda bits: bits), "the number of bits"),
    "not divided": (variant(steps=lambda bits: 1), "is the whole range of a group"),
    "floor": (variant(rule=torch.floor), "cut the fraction off"),
    "ceil": (variant(rule=torch.ceil), "You round up"),
    "no rounding": (variant(rule=lambda x: x), "have a fraction"),
    "int8": (variant(keep=lambda q: q.to(torch.uint8).view(torch.int8)), "wrapped around"),
    "absmax": (variant(width=lambda low, high: torch.maximum(-low, high)), "the largest absolute value"),
    "highest alone": (variant(width=lambda low, high: high), "from the highest weight alone"),
    "zero point": (variant(start=lambda low, high, scale: (-low / scale).round()), "is a zero point"),
    "mean": (variant(start=lambda low, high, scale: low * 0 + 99), "not those of each group"),
    "symmetric": (symmetric, "This is the symmetric rule"),
    "whole matrix": (whole, "one scale for the whole matrix"),
    "by row": (by_row, "one scale for each row"),
    "strided": (strided, "not neighbors in a row"),
    "not lowered": (not_lowered, "You divide the weights themselves"),
    "centered": (centered, "Some whole numbers are negative"),
    "upside down": (upside_down, "upside down"),
    "highest": (highest, "holds the highest weight"),
    "swapped": (swapped, "are swapped"),
    "sign of low": (minus, "has the wrong sign"),
    "whole matrix, expanded": (whole_expanded, "of the whole matrix stands in every group"),
    "row, expanded": (row_expanded, "of a row stands in all of its groups"),
    "restored": (restored, "Return three tensors"),
    "as groups": (as_groups, "give them the weights' shape"),
    "no guard": (no_guard, "the scale is 0"),
    "in place": (in_place, "changes its input w"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour09", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour09", WRONG, least=18)
