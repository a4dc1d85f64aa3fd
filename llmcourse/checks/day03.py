"""Checkers of day 3: the table of sine waves, and the rotation of queries and keys.

Both have few numbers and many near misses, so a wrong result is compared with the results of the typical mistakes:
each is computed here from the right angles, and the one that fits has its sentence. What fits none is described by
its properties (values above 1, lengths that change, scores that depend on more than the distance).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

BASE = 10_000.0
LENGTH, CHANNELS = 40, 12  # of the table
B, H, T, D = 2, 3, 9, 8  # all different, so that a mistaken dimension shows


def positions(length: int, channels: int) -> Tensor:
    """Table of waves `(length, channels)`: even columns sines, odd columns cosines."""
    place = torch.arange(length)[:, None]  # (length, 1)
    speed = 10_000 ** (-torch.arange(0, channels, 2) / channels)  # (channels / 2,)
    angle = place * speed  # (length, channels / 2)
    table = torch.zeros(length, channels)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()
    return table


def rope(x: Tensor) -> Tensor:
    """Rotary positions: `x (B, H, T, D)` with the pair (i, i + D/2) of place t turned by t · 10000^(-2i/D)."""
    T, D = x.shape[-2:]
    speed = 10_000 ** (-torch.arange(0, D, 2, device=x.device) / D)  # (D / 2,)
    angle = torch.arange(T, device=x.device)[:, None] * speed  # (T, D / 2)
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)


def angles(
    length: int, channels: int, *, start: int = 0, speed: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Right angles `(length, channels / 2)`, unless `speed` makes other ones of the exponents 2i / channels."""
    exponent = torch.arange(0, channels, 2, dtype=torch.float64) / channels
    speeds = BASE**-exponent if speed is None else speed(exponent)
    return torch.arange(start, start + length)[:, None] * speeds


SPEEDS: dict[str, Callable[[Tensor], Tensor]] = {
    "The waves are too fast, because pair i has the exponent -i / channels: it is -2i / channels, so that the last "
    "pair comes near 1/10000.": lambda e: BASE ** (-e / 2),
    "The waves are too slow: the 2 of the exponent -2i / channels is in it twice; torch.arange(0, channels, 2) counts "
    "0, 2, 4 … and is 2i already.": lambda e: BASE ** (-2 * e),
    "The waves become faster from pair to pair: the place is multiplied by 10000^(2i / channels) and should be divided "
    "by it.": lambda e: BASE**e,
    "All pairs turn at the same speed, 1 radian a place: the exponent has no effect.": lambda e: torch.ones_like(e),
    "The base is not 10000 but e, about 2.718: exp(-2i / channels) lacks the factor ln 10000.": lambda e: (-e).exp(),
    "The base is 1000 and not 10000: a zero is missing.": lambda e: 1000**-e,
    "The base is 100000 and not 10000: there is a zero too many.": lambda e: 100_000**-e,
    "The angles are multiplied by 2π: the formula has none, its first pair turns 1 radian a place and not a full "
    "circle.": lambda e: 2 * math.pi * BASE**-e,
    "The last pair has the speed 1/10000 exactly: the exponent is divided by channels - 2, and should be by "
    "channels.": lambda e: BASE ** -(e * len(e) / max(1, len(e) - 1)),
}


# ---- the table of waves ---------------------------------------------------------------------------------------


def weave(even: Tensor, odd: Tensor) -> Tensor:
    """Columns one from here, one from there."""
    return torch.stack((even, odd), dim=-1).flatten(-2)


def wrong_tables(length: int, channels: int) -> dict[str, Tensor]:
    """The tables of the typical mistakes, with the sentence for each."""
    a = angles(length, channels)
    first = angles(length, channels, start=1)
    column = torch.arange(channels, dtype=torch.float64) / channels
    each = torch.arange(length)[:, None] * BASE**-column  # an angle for each column instead of each pair
    own = torch.where(torch.arange(channels) % 2 == 0, each.sin(), each.cos())
    tables = {
        "Sine and cosine have changed places: even columns (0, 2, …) are the sines, so row 0 is 0, 1, 0, 1, …": weave(
            a.cos(), a.sin()
        ),
        "All sines stand in the first half and all cosines in the second: here they alternate, columns 0::2 and "
        "1::2.": torch.cat((a.sin(), a.cos()), dim=1),
        "All cosines stand in the first half and all sines in the second: sines belong in columns 0::2, cosines in "
        "1::2.": torch.cat((a.cos(), a.sin()), dim=1),
        "A cosine has another angle than the sine to its left: columns 2i and 2i + 1 share the exponent "
        "2i / channels, but yours grows from column to column.": own,
        "The places count from 1: row 0 should be place 0, with all sines 0 and all cosines 1.": weave(
            first.sin(), first.cos()
        ),
        "The odd columns are sines too: they should be cosines.": weave(a.sin(), a.sin()),
        "The even columns are cosines too: they should be sines.": weave(a.cos(), a.cos()),
        "The odd columns are still zero: the cosines are missing.": weave(a.sin(), torch.zeros_like(a)),
        "The even columns are still zero: the sines are missing.": weave(torch.zeros_like(a), a.cos()),
        "The table holds the angles themselves: take their sine and cosine.": weave(a, a),
        "The table is scaled by 0.02: that is what the course's model does with it afterwards, not the table's own "
        "size.": 0.02 * weave(a.sin(), a.cos()),
    }
    for sentence, speed in SPEEDS.items():
        other = angles(length, channels, speed=speed)
        tables[sentence] = weave(other.sin(), other.cos())
    return tables


@exercise(
    "day03",
    title="The table of waves",
    signature="positions(length, channels)",
    hints=[
        "Make all angles first, (length, channels / 2): a column of places, torch.arange(length)[:, None], times a row "
        "of speeds. Broadcasting does the rest.",
        "The speeds are 10000 ** (-torch.arange(0, channels, 2) / channels): torch.arange(0, channels, 2) is 2i for "
        "the pairs i = 0, 1, 2, …",
        "Fill a table of zeros: table[:, 0::2] = angle.sin() and table[:, 1::2] = angle.cos().",
    ],
    solution=positions,
    right="Sines and cosines alternate, each pair at its own speed, and place 0 is 0, 1, 0, 1, …",
)
def check_positions(learner: Callable[[int, int], Any]) -> None:
    out = table_of(learner, LENGTH, CHANNELS)
    if not torch.equal(out.nan_to_num(), table_of(learner, LENGTH, CHANNELS).nan_to_num()):
        raise Wrong("Two calls give different tables: nothing in it is random.")
    if not close(out, positions(LENGTH, CHANNELS)):
        diagnose_table(out)
    for length, channels in ((1, 2), (128, 192), (7, 30), (300, 4)):
        with blame(f"It is right for ({LENGTH}, {CHANNELS}), but fails for ({length}, {channels})"):
            if not close(table_of(learner, length, channels), positions(length, channels)):
                raise Wrong(
                    f"It is right for ({LENGTH}, {CHANNELS}), but not for ({length}, {channels}): take all sizes from "
                    "the arguments."
                )


def table_of(learner: Callable[[int, int], Any], length: int, channels: int) -> Tensor:
    out = call(learner, length=length, channels=channels)
    if isinstance(out, Tensor):
        shape = tuple(out.shape)
        if length != channels and shape == (channels, length):
            raise Wrong("The table lies on its side: one row for each place, one column for each channel.")
        if shape == (1, length, channels):
            raise Wrong("The table has a dimension in front, (1, length, channels): leave it out here.")
        if channels > 2 and shape == (length, channels // 2):
            raise Wrong("The table has only half of its columns: each angle gives two, a sine and a cosine.")
    return tensor(out, (length, channels), meaning="(length, channels)")


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of 32-bit angles of a few hundred radians."""
    return torch.allclose(a, b.to(a.dtype), rtol=0, atol=2e-4)


def diagnose_table(out: Tensor) -> None:
    """Raise the Wrong that fits a table which is not the right one."""
    for sentence, table in wrong_tables(*out.shape).items():
        few = table[:4].to(out.dtype)  # wrong speeds make angles so large that the last rows are all rounding
        if torch.allclose(out[:4], few, rtol=0, atol=2e-3):
            raise Wrong(sentence)
    if not out.isfinite().all():
        raise Wrong("The table holds NaN or infinity: is something divided by 0?")
    if out.abs().max() > 1.001:
        raise Wrong("The table holds numbers beyond 1 and -1, which no sine or cosine reaches: what is added to it?")
    if not close(out[0], positions(1, CHANNELS)[0]):
        raise Wrong("Row 0 should be 0, 1, 0, 1, …: the sine and the cosine of the angle 0.")
    if not close(out[:, :2], positions(LENGTH, CHANNELS)[:, :2]):
        raise Wrong("The first pair is wrong already: columns 0 and 1 are sin(t) and cos(t) of the place t.")
    raise Wrong("The first pair of columns is right, the others are not: pair i has the speed 10000^(-2i / channels).")


# ---- the rotation ------------------------------------------------------------------------------------------------

CROSSED = (
    "One pair takes its angles from another pair: with neighbors as pairs, an angle has to stand twice side by side "
    "(repeat_interleave); with halves, the angles follow each other twice (cat)."
)


def split(x: Tensor, halves: bool) -> tuple[Tensor, Tensor]:
    return tuple(x.chunk(2, dim=-1)) if halves else (x[..., 0::2], x[..., 1::2])  # type: ignore[return-value]


def join(a: Tensor, b: Tensor, halves: bool) -> Tensor:
    return torch.cat((a, b), dim=-1) if halves else weave(a, b)


def turned(x: Tensor, angle: Tensor, halves: bool) -> Tensor:
    """The right rotation by these angles, in one of the two conventions."""
    a, b = split(x, halves)
    cos, sin = angle.cos(), angle.sin()
    return join(a * cos - b * sin, a * sin + b * cos, halves)


def wrong_turns(x: Tensor, halves: bool) -> dict[str, Tensor]:
    """The results of the typical mistakes for `x (B, H, T, D)`, with the sentence for each."""
    H, T, D = x.shape[-3:]
    right = angles(T, D)
    cos, sin, (a, b) = right.cos(), right.sin(), split(x, halves)
    by_head = angles(H, D)[:, None, :]  # (H, 1, D / 2)
    waves = join(sin, cos, halves)
    found = {
        "It turns the other way round, clockwise: (a, b) should become (a·cos - b·sin, a·sin + b·cos).": turned(
            x, -right, halves
        ),
        "A sign is wrong: with a plus in both lines the arrow is not turned, and its length changes; one line has a "
        "minus.": join(a * cos + b * sin, a * sin + b * cos, halves),
        "Sine and cosine have changed places: place 0 should stay as it is, since cos 0 is 1 and sin 0 is 0.": join(
            a * sin - b * cos, a * cos + b * sin, halves
        ),
        "The second line has a minus too: (a, b) should become (a·cos - b·sin, a·sin + b·cos).": join(
            a * cos - b * sin, a * sin - b * cos, halves
        ),
        "Only the first number of each pair is changed: the second becomes a·sin + b·cos.": join(
            a * cos - b * sin, b.expand_as(b), halves
        ),
        "The second number of each pair is made from the first one's new value: keep the old one until both are "
        "done.": join(a * cos - b * sin, (a * cos - b * sin) * sin + b * cos, halves),
        "The places count from 1: place 0 should stay as it is.": turned(x, right + angles(2, D)[1], halves),
        "The waves are added to x: RoPE adds nothing, it turns each pair.": x + waves,
        "The waves multiply x number by number: a rotation mixes the two numbers of a pair.": x * waves,
        "The angle counts heads and not places: the places are dimension -2 of x.": turned(x, by_head, halves),
        "The numbers come back in another order: a result must stand where its pair was taken from (halves with "
        "torch.cat, neighbors with torch.stack and flatten).": join(*turned_pair(a, b, right), not halves),
    }
    for sentence, speed in SPEEDS.items():
        other = sentence.replace("waves", "rotations").replace("channels", "D")
        found[other] = turned(x, angles(T, D, speed=speed), halves)
    found["The speeds are made from H · D, all heads together: use the D numbers of one head, x.shape[-1]."] = turned(
        x, angles(T, H * D)[:, : D // 2], halves
    )
    found[CROSSED] = crossed(x, halves)
    return found


def turned_pair(a: Tensor, b: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    return a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()


def crossed(x: Tensor, halves: bool) -> Tensor:
    """The `x * cos + partner * sin` form, with the angles laid out for the other convention."""
    right = angles(*x.shape[-2:])
    layout = join(right, right, not halves)  # (T, D)
    a, b = split(x, halves)
    return x * layout.cos() + join(-b, a, halves) * layout.sin()


@exercise(
    "day03b",
    title="Rotary positions",
    signature="rope(x)",
    hints=[
        "Take T, D = x.shape[-2:]. The angles are (T, D / 2): places times speeds, as in the table of waves, with D in "
        "the place of channels.",
        "Cut x into the first and the second numbers of its pairs, both (B, H, T, D / 2): the two halves, or x[..., "
        "0::2] and x[..., 1::2]. The angles broadcast over B and H.",
        "The new numbers are a·cos - b·sin and a·sin + b·cos. Halves come together with torch.cat(…, dim=-1), "
        "neighbors with torch.stack(…, dim=-1).flatten(-2).",
    ],
    solution=rope,
    right="Lengths are kept, place 0 stays, and the dot product of two places depends on their distance only.",
)
def check_rope(learner: Callable[[Tensor], Any]) -> None:
    x = torch.randn(B, H, T, D)
    out = rotated(learner, x)
    halves = close(out, turned(x, angles(T, D), halves=True))
    if not halves and not close(out, turned(x, angles(T, D), halves=False)):
        diagnose_rope(learner, x, out)
    for shape in ((1, 1, 1, 2), (2, 4, 100, 16), (1, 2, 6, 64)):
        x = torch.randn(shape)
        with blame(f"It is right for {(B, H, T, D)}, but fails for (B, H, T, D) = {shape}"):
            if not close(rotated(learner, x), turned(x, angles(shape[2], shape[3]), halves)):
                raise Wrong(
                    f"It is right for {(B, H, T, D)}, but not for (B, H, T, D) = {shape}: take T and D from x.shape."
                )


def rotated(learner: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    out = call(learner, x=x)
    if isinstance(out, Tensor) and out.is_complex():
        raise Wrong("The result holds complex numbers: turn them back into pairs of real ones (torch.view_as_real).")
    if isinstance(out, Tensor) and tuple(out.shape) == (*x.shape[:-1], x.shape[-1] // 2):
        raise Wrong("Only one number of each pair comes back: the result has half of D.")
    return tensor(out, x.shape, dtype=x.dtype, meaning="(B, H, T, D)")


def diagnose_rope(learner: Callable[[Tensor], Any], x: Tensor, out: Tensor) -> None:
    """Raise the Wrong that fits a rotation which is not the right one."""
    if torch.equal(out, x):
        raise Wrong("The result is x itself: nothing was turned.")
    for halves in (True, False):
        for sentence, wrong in wrong_turns(x, halves).items():
            if close(out, wrong):
                raise Wrong(sentence)
    if not out.isfinite().all():
        raise Wrong("The result holds NaN or infinity: is something divided by 0?")
    if not close(out[..., 0, :], x[..., 0, :]):
        raise Wrong("Place 0 is changed: its angle is 0, so it should come back as it is.")
    if not torch.allclose(out.norm(dim=-1), x.norm(dim=-1), rtol=1e-3):
        raise Wrong("The length of the vectors changes: a rotation keeps a² + b² of every pair.")
    q, k = torch.randn(2, 1, 1, 1, D)
    scores = rotated(learner, q.repeat(B, H, T, 1)) @ rotated(learner, k.repeat(B, H, T, 1)).transpose(-2, -1)
    if (scores[..., 1:, 1:] - scores[..., :-1, :-1]).abs().max() > 1e-3:
        raise Wrong(
            "Lengths are kept, but the dot product of two places depends on more than their distance: the angle of "
            "place t must be t times a fixed speed."
        )
    raise Wrong("It is a rotation, and scores depend on the distance only, but the speeds are not 10000^(-2i / D).")
