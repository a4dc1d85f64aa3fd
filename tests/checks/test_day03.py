"""Day 3: right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks.day03 import positions, rope
from llmcourse.model import rope_angles, rotate, sinusoids

Say = Callable[[], str]

# ---- the table of waves ----------------------------------------------------------------------------------------


def by_exp(length: int, channels: int) -> Tensor:
    place = torch.arange(length).unsqueeze(1).float()
    speed = torch.exp(torch.arange(0, channels, 2).float() * -(math.log(10000.0) / channels))
    table = torch.zeros(length, channels)
    table[:, 0::2], table[:, 1::2] = torch.sin(place * speed), torch.cos(place * speed)
    return table


def by_outer(length: int, channels: int) -> Tensor:
    speed = 1 / 10_000 ** (torch.arange(0, channels, 2) / channels)
    angle = torch.outer(torch.arange(length), speed)
    return torch.stack((angle.sin(), angle.cos()), dim=2).reshape(length, channels)


def by_loops(length: int, channels: int) -> Tensor:
    def one(t: int, c: int) -> float:
        angle = t / 10_000 ** (2 * (c // 2) / channels)
        return math.cos(angle) if c % 2 else math.sin(angle)

    return torch.tensor([[one(t, c) for c in range(channels)] for t in range(length)])


def by_numpy(length: int, channels: int) -> Tensor:
    angle = np.arange(length)[:, None] / np.power(10_000, 2 * (np.arange(channels) // 2) / channels)
    angle[:, 1::2] += np.pi / 2  # cos x = sin(x + π/2)
    return torch.from_numpy(np.sin(angle)).float()


def by_complex(length: int, channels: int) -> Tensor:
    angle = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(0, channels, 2) / channels)
    return torch.view_as_real(torch.polar(torch.ones_like(angle), math.pi / 2 - angle)).flatten(1)


def by_columns(length: int, channels: int) -> Tensor:
    columns = []
    for i in range(channels // 2):
        angle = torch.arange(length, dtype=torch.float64) * 10_000 ** (-2 * i / channels)
        columns += [angle.sin(), angle.cos()]
    return torch.stack(columns, dim=1).float()


RIGHT_TABLES = [positions, sinusoids, by_exp, by_outer, by_loops, by_numpy, by_complex, by_columns]


@pytest.mark.parametrize("learner", RIGHT_TABLES, ids=lambda f: f.__name__)
def test_positions_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("day03", learner), said()
    assert said().startswith("day03: right. ")


def table(
    *,
    speed: Callable[[Tensor, int], Tensor] = lambda i, C: 10_000 ** (-2 * i / C),
    start: int = 0,
    fill: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda s, c: (s, c),
) -> Callable[[int, int], Tensor]:
    def made(length: int, channels: int) -> Tensor:
        i = torch.arange(channels // 2)
        angle = torch.arange(start, start + length)[:, None] * speed(i, channels)
        out = torch.zeros(length, channels)
        out[:, 0::2], out[:, 1::2] = fill(angle.sin(), angle.cos())
        return out

    return made


def in_halves(length: int, channels: int) -> Tensor:
    x = positions(length, channels)
    return torch.cat((x[:, 0::2], x[:, 1::2]), dim=1)


def in_halves_swapped(length: int, channels: int) -> Tensor:
    x = positions(length, channels)
    return torch.cat((x[:, 1::2], x[:, 0::2]), dim=1)


def own_angle_each(length: int, channels: int) -> Tensor:
    angle = torch.arange(length)[:, None] / 10_000 ** (torch.arange(channels) / channels)
    angle[:, 1::2] += math.pi / 2
    return angle.sin()


def angles_only(length: int, channels: int) -> Tensor:
    angle = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(0, channels, 2) / channels)
    return angle.repeat_interleave(2, dim=1)


def noisy(length: int, channels: int) -> Tensor:
    return positions(length, channels) + 0.1 * torch.randn(length, channels)


def of_fixed_length(length: int, channels: int) -> Tensor:
    return positions(40, channels)


def of_fixed_width(length: int, channels: int) -> Tensor:
    angle = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(0, channels, 2) / 12)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)


def steps_of_the_last_pairs(length: int, channels: int) -> Tensor:
    x = positions(length, channels)
    x[:, 2:] = x[:, 2:].roll(1, dims=1)
    return x


def nan_inside(length: int, channels: int) -> Tensor:
    angle = torch.arange(length)[:, None] / torch.arange(0, channels, 2)  # 0 / 0
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)


WRONG_TABLES: dict[str, tuple[Callable[..., Any], str]] = {
    "swapped": (table(fill=lambda s, c: (c, s)), "have changed places: even columns"),
    "halves": (in_halves, "All sines stand in the first half"),
    "halves swapped": (in_halves_swapped, "All cosines stand in the first half"),
    "i instead of 2i": (table(speed=lambda i, C: 10_000 ** (-i / C)), "exponent -i / channels"),
    "4i": (table(speed=lambda i, C: 10_000 ** (-4 * i / C)), "in it twice"),
    "multiplied": (table(speed=lambda i, C: 10_000 ** (2 * i / C)), "become faster from pair to pair"),
    "one speed": (table(speed=lambda i, C: torch.ones(C // 2)), "All pairs turn at the same speed"),
    "base e": (table(speed=lambda i, C: torch.exp(-2 * i / C)), "The base is not 10000 but e"),
    "base 1000": (table(speed=lambda i, C: 1000 ** (-2 * i / C)), "a zero is missing"),
    "base 100000": (table(speed=lambda i, C: 100_000 ** (-2 * i / C)), "a zero too many"),
    "full circles": (table(speed=lambda i, C: 2 * math.pi * 10_000 ** (-2 * i / C)), "multiplied by 2π"),
    "C - 2": (table(speed=lambda i, C: 10_000 ** (-2 * i / max(1, C - 2))), "divided by channels - 2"),
    "an angle for each column": (own_angle_each, "yours grows from column to column"),
    "from 1": (table(start=1), "The places count from 1"),
    "only sines": (table(fill=lambda s, c: (s, s)), "The odd columns are sines too"),
    "only cosines": (table(fill=lambda s, c: (c, c)), "The even columns are cosines too"),
    "no cosines": (table(fill=lambda s, c: (s, 0 * c)), "the cosines are missing"),
    "no sines": (table(fill=lambda s, c: (0 * s, c)), "the sines are missing"),
    "angles": (angles_only, "holds the angles themselves"),
    "scaled": (lambda length, channels: 0.02 * positions(length, channels), "scaled by 0.02"),
    "random": (noisy, "nothing in it is random"),
    "transposed": (lambda length, channels: positions(length, channels).T, "lies on its side"),
    "batch in front": (lambda length, channels: positions(length, channels)[None], "a dimension in front"),
    "half of it": (lambda length, channels: positions(length, channels)[:, ::2], "only half of its columns"),
    "double": (lambda length, channels: positions(length, channels).double(), "dtype float64"),
    "fixed length": (of_fixed_length, "result has shape (40, 2), but should have (length, channels) = (1, 2)"),
    "fixed width": (of_fixed_width, "take all sizes from the arguments"),
    "shifted columns": (steps_of_the_last_pairs, "Row 0 should be 0, 1, 0, 1, …: the"),
    "0 / 0": (nan_inside, "is something divided by 0?"),
    "plus 1": (lambda length, channels: positions(length, channels) + 1, "numbers beyond 1 and -1"),
    "other first pair": (table(speed=lambda i, C: 3.0 * 10_000 ** (-2 * i / C)), "first pair is wrong already"),
    "odd speeds": (table(speed=lambda i, C: 1 / (i + 1.0)), "The first pair of columns is right"),
}


@pytest.mark.parametrize("mistake", WRONG_TABLES)
def test_positions_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day03", WRONG_TABLES, mistake)


def test_positions_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day03", WRONG_TABLES, least=14)


# ---- the rotation ------------------------------------------------------------------------------------------------


def angle_of(x: Tensor, base: float = 10_000.0) -> Tensor:
    T, D = x.shape[-2:]
    return torch.arange(T)[:, None] * base ** (-torch.arange(0, D, 2) / D)


def by_package(x: Tensor) -> Tensor:
    angle = rope_angles(*x.shape[-2:])
    return rotate(x, angle.cos(), angle.sin())


def by_complex_numbers(x: Tensor) -> Tensor:
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    angle = angle_of(x)
    return torch.view_as_real(z * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def by_neighbors(x: Tensor) -> Tensor:
    angle = angle_of(x)
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * angle.cos() - x[..., 1::2] * angle.sin()
    out[..., 1::2] = x[..., 0::2] * angle.sin() + x[..., 1::2] * angle.cos()
    return out


def by_rotate_half(x: Tensor) -> Tensor:
    angle = torch.cat((angle_of(x), angle_of(x)), dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat((-b, a), dim=-1) * angle.sin()


def by_matrices(x: Tensor) -> Tensor:
    T, D = x.shape[-2:]
    out = x.clone()
    for t in range(T):
        for i in range(D // 2):
            w = t * 10_000 ** (-2 * i / D)
            turn = torch.tensor([[math.cos(w), -math.sin(w)], [math.sin(w), math.cos(w)]])
            out[..., t, [i, i + D // 2]] = x[..., t, [i, i + D // 2]] @ turn.T
    return out


RIGHT_ROPES = [rope, by_package, by_complex_numbers, by_neighbors, by_rotate_half, by_matrices]


@pytest.mark.parametrize("learner", RIGHT_ROPES, ids=lambda f: f.__name__)
def test_rope_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day03b", learner), said()
    assert said().startswith("day03b: right. ")


def turn(
    formula: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    angle: Callable[[Tensor], Tensor] = angle_of,
    halves: bool = True,
) -> Callable[[Tensor], Tensor]:
    def rotated(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1) if halves else (x[..., 0::2], x[..., 1::2])
        new = formula(a, b, angle(x).cos(), angle(x).sin())
        return torch.cat(new, dim=-1) if halves else torch.stack(new, dim=-1).flatten(-2)

    return rotated


def proper(a: Tensor, b: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return a * cos - b * sin, a * sin + b * cos


def with_speed(speed: Callable[[Tensor, int], Tensor], halves: bool = True) -> Callable[[Tensor], Tensor]:
    def angle(x: Tensor) -> Tensor:
        D = x.shape[-1]
        return torch.arange(x.shape[-2])[:, None] * speed(torch.arange(D // 2), D)

    return turn(proper, angle, halves)


def overwritten(x: Tensor) -> Tensor:
    out, D, angle = x.clone(), x.shape[-1], angle_of(x)
    out[..., : D // 2] = out[..., : D // 2] * angle.cos() - out[..., D // 2 :] * angle.sin()
    out[..., D // 2 :] = out[..., : D // 2] * angle.sin() + out[..., D // 2 :] * angle.cos()
    return out


def in_place(x: Tensor) -> Tensor:
    x.copy_(rope(x))
    return x


def cut_neighbors_join_halves(x: Tensor) -> Tensor:
    return torch.cat(proper(x[..., 0::2], x[..., 1::2], angle_of(x).cos(), angle_of(x).sin()), dim=-1)


def crossed_layout(x: Tensor) -> Tensor:
    angle = angle_of(x).repeat_interleave(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat((-b, a), dim=-1) * angle.sin()


def over_heads(x: Tensor) -> Tensor:
    return rope(x.transpose(1, 2)).transpose(1, 2)


def all_heads(x: Tensor) -> Tensor:
    H, T, D = x.shape[1:]
    return turn(proper, lambda x: torch.arange(T)[:, None] * 10_000 ** (-torch.arange(0, D, 2) / (H * D)))(x)


def still_complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones(()), angle_of(x))


def of_nine_places(x: Tensor) -> Tensor:
    angle = torch.arange(9)[:, None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    return turn(proper, lambda x: angle)(x)


def squared_places(x: Tensor) -> Tensor:
    return turn(proper, lambda x: angle_of(x) * torch.arange(x.shape[-2])[:, None])(x)


def normalized(x: Tensor) -> Tensor:
    out = rope(x)
    out[..., 1:, :] = out[..., 1:, :] / out[..., 1:, :].norm(dim=-1, keepdim=True)
    return out


WRONG_ROPES: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda x: x.clone(), "nothing was turned"),
    "clockwise": (turn(lambda a, b, c, s: (a * c + b * s, b * c - a * s)), "the other way round"),
    "two plus": (turn(lambda a, b, c, s: (a * c + b * s, a * s + b * c)), "with a plus in both lines"),
    "two minus": (turn(lambda a, b, c, s: (a * c - b * s, a * s - b * c)), "The second line has a minus too"),
    "sin and cos": (turn(lambda a, b, c, s: proper(a, b, s, c)), "Sine and cosine have changed places"),
    "first only": (turn(lambda a, b, c, s: (a * c - b * s, b + 0)), "Only the first number of each pair is changed"),
    "overwritten": (overwritten, "keep the old one until both"),
    "from 1": (turn(proper, lambda x: angle_of(torch.cat((x, x[..., :1, :]), -2))[1:]), "The places count from 1"),
    "added": (lambda x: x + in_halves(*x.shape[-2:]), "The waves are added to x"),
    "added side by side": (lambda x: x + positions(*x.shape[-2:]), "The waves are added to x"),
    "multiplied": (lambda x: x * positions(*x.shape[-2:]), "The waves multiply x"),
    "heads": (over_heads, "counts heads and not places"),
    "other order": (cut_neighbors_join_halves, "The numbers come back in another order"),
    "i instead of 2i": (with_speed(lambda i, D: 10_000 ** (-i / D)), "exponent -i / D"),
    "4i": (with_speed(lambda i, D: 10_000 ** (-4 * i / D), halves=False), "in it twice"),
    "faster": (with_speed(lambda i, D: 10_000 ** (2 * i / D)), "become faster from pair to pair"),
    "one speed": (with_speed(lambda i, D: torch.ones(D // 2)), "All pairs turn at the same speed"),
    "base e": (with_speed(lambda i, D: torch.exp(-2 * i / D)), "The base is not 10000 but e"),
    "base 1000": (with_speed(lambda i, D: 1000 ** (-2 * i / D)), "a zero is missing"),
    "full circles": (with_speed(lambda i, D: 2 * math.pi * 10_000 ** (-2 * i / D)), "multiplied by 2π"),
    "all heads": (all_heads, "made from H · D"),
    "crossed": (crossed_layout, "takes its angles from another pair"),
    "in place": (in_place, "changes its input x"),
    "complex": (still_complex, "The result holds complex numbers"),
    "half of it": (lambda x: rope(x)[..., : x.shape[-1] // 2], "Only one number of each pair comes back"),
    "fixed length": (of_nine_places, "result has shape (1, 1, 9, 2), but should have"),
    "squared places": (squared_places, "depends on more than their distance"),
    "length lost": (normalized, "The length of the vectors changes"),
    "other speeds": (with_speed(lambda i, D: 1 / (i + 2.0)), "the speeds are not 10000"),
    "place 0": (lambda x: rope(x).flip(-2), "Place 0 is changed"),
}


@pytest.mark.parametrize("mistake", WRONG_ROPES)
def test_rope_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day03b", WRONG_ROPES, mistake)


def test_rope_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day03b", WRONG_ROPES, least=14)
