"""Tour 2: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]
Two = tuple[Any, Any]


def side(ids: Tensor, C: int, start: int = 0, n: int | None = None) -> Tensor:
    n = (len(ids) - 1) // C if n is None else n
    return ids[start : start + n * C].reshape(n, C)


def by_view(ids: Tensor, C: int) -> Two:
    return side(ids, C), side(ids, C, 1)


def by_loop(ids: Tensor, C: int) -> Two:
    starts = range(0, len(ids) - C, C)
    return torch.stack([ids[i : i + C] for i in starts]), torch.stack([ids[i + 1 : i + C + 1] for i in starts])


def by_unfold(ids: Tensor, C: int) -> list[Tensor]:
    w = ids.unfold(0, C + 1, C)
    return [w[:, :-1], w[:, 1:]]


def by_lists(ids: Tensor, C: int) -> Two:
    t = ids.tolist()
    x = [t[i : i + C] for i in range(0, len(t) - C, C)]
    y = [t[i + 1 : i + C + 1] for i in range(0, len(t) - C, C)]
    return torch.tensor(x), torch.tensor(y)


@pytest.mark.parametrize("right", [by_view, by_loop, by_unfold, by_lists])
def test_right(right: Callable[..., Any], said: Say) -> None:
    assert check("tour02", right)
    assert said().startswith("tour02: right. ")


def previous(ids: Tensor, C: int) -> Two:
    return side(ids, C, 1), side(ids, C)


def before(ids: Tensor, C: int) -> Two:
    x = side(ids, C)
    return x, x - 1


def roll_inside(ids: Tensor, C: int) -> Two:
    return side(ids, C), side(ids, C).roll(-1, 1)


def roll_all(ids: Tensor, C: int) -> Two:
    n = len(ids) // C
    return side(ids, C, 0, n), side(ids.roll(-1), C, 0, n)


def two_ahead(ids: Tensor, C: int) -> Two:
    n = (len(ids) - 2) // C
    return side(ids, C, 0, n), side(ids, C, 2, n)


def overlapping(ids: Tensor, C: int) -> Two:
    w = ids.unfold(0, C + 1, 1)
    return w[:, :-1], w[:, 1:]


def lost(ids: Tensor, C: int) -> Two:
    n = len(ids) // (C + 1)
    w = ids[: n * (C + 1)].view(n, C + 1)
    return w[:, :-1], w[:, 1:]


def narrow(ids: Tensor, C: int) -> Two:
    w = side(ids, C)
    return w[:, :-1], w[:, 1:]


def wide(ids: Tensor, C: int) -> Two:
    w = ids.unfold(0, C + 1, C)
    return w, w + 1


def unequal(ids: Tensor, C: int) -> Two:
    return side(ids, C, 0, len(ids) // C), side(ids, C, 1)


def one_less(ids: Tensor, C: int) -> Two:
    n = (len(ids) - 1) // C - 1
    return side(ids, C, 0, n), side(ids, C, 1, n)


def none_at_all(ids: Tensor, C: int) -> Two:
    n = len(ids) // C // C
    return side(ids, C, 0, n), side(ids, C, 1, n)


def transposed(ids: Tensor, C: int) -> Two:
    return side(ids, C).T, side(ids, C, 1).T


def shuffled(ids: Tensor, C: int) -> Two:
    return side(ids, C).flip(0), side(ids, C, 1).flip(0)


def late(ids: Tensor, C: int) -> Two:
    n = (len(ids) - 2) // C
    return side(ids, C, 1, n), side(ids, C, 2, n)


def fixed(ids: Tensor, C: int) -> Two:
    return side(ids, 4), side(ids, 4, 1)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "same": (lambda ids, C: (side(ids, C), side(ids, C)), "nothing is left to predict"),
    "swapped": (previous, "changed places"),
    "before": (before, "the wrong direction"),
    "two ahead": (two_ahead, "two tokens ahead"),
    "roll in a window": (roll_inside, "its own first token"),
    "roll at the end": (roll_all, "is the first token of the text"),
    "overlap": (overlapping, "The windows overlap"),
    "lost": (lost, "lost between two windows"),
    "narrow": (narrow, "C - 1 wide"),
    "wide": (wide, "C + 1 wide"),
    "unequal": (unequal, "each needs its partner"),
    "one window less": (one_less, "there is room for"),
    "no window": (none_at_all, "not a single window"),
    "transposed": (transposed, "transposed"),
    "shuffled": (shuffled, "not in their order"),
    "late": (late, "The first window starts at"),
    "one tensor": (lambda ids, C: side(ids, C), "two things"),
    "lists": (lambda ids, C: tuple(t.tolist() for t in by_view(ids, C)), "not a tensor"),
    "floats": (lambda ids, C: tuple(t.float() for t in by_view(ids, C)), "whole numbers"),
    "flat": (lambda ids, C: tuple(t.flatten() for t in by_view(ids, C)), "windows make two"),
    "fixed": (fixed, "It is right for windows of 4, but not"),
    "computed": (lambda ids, C: (side(ids, C), side(ids, C) + 1), "do not compute with the ids"),
    "nothing": (lambda ids, C: None, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour02", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour02", WRONG, least=14)
