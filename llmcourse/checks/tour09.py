"""Checker of Tour 9: quantization by groups with a scale and a lowest value (the kind that GGUF calls Q4_1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, call, exercise

Parts = tuple[Tensor, Tensor, Tensor]
Quantize = Callable[[Tensor, int, int], Any]


def quantize_range(w: Tensor, bits: int, group: int) -> Parts:
    """Whole numbers 0 … 2^bits - 1 (R, C); a scale and a lowest value for each `group` neighbors (R, C / group)."""
    rows, columns = w.shape
    parts = w.reshape(rows, columns // group, group)
    low, high = parts.amin(-1), parts.amax(-1)  # (R, groups)
    scale = (high - low) / (2**bits - 1)
    step = torch.where(scale > 0, scale, 1.0)  # a group of equal weights: all of them 0 steps above low
    q = ((parts - low[..., None]) / step[..., None]).round()
    return q.reshape(rows, columns).to(torch.uint8), scale, low


@exercise(
    "tour09",
    title="A scale and a lowest value",
    signature="quantize_range(w, bits, group)",
    hints=[
        "parts = w.reshape(rows, columns // group, group): the last dimension is one group. low is its amin, the "
        "scale is (its amax - low) / (2**bits - 1), because n levels have n - 1 steps between them.",
        "q = ((parts - low[..., None]) / scale[..., None]).round(): steps above the lowest, to the nearest.",
        "In a group of equal weights the scale is 0: divide by 1 there (torch.where). Reshape q to w's shape.",
    ],
    solution=quantize_range,
    right="All levels are used, both ends of each group are hit exactly, and a group of equal weights does no harm.",
)
def check_quantize_range(learner: Quantize) -> None:
    w = torch.randn(6, 24) + 0.3
    w[0] += 4.0  # far from zero: what is only good for a symmetric range shows here
    for bits, group in ((4, 8), (2, 6), (3, 24), (8, 12)):
        q, scale, low = parts_of(learner, w, bits, group)
        judge(q, scale, low, w, bits, group)
    flat = w.clone()
    flat[2, 8:16] = 0.7  # a group of equal weights
    flat[3, :8] = 0.0
    q, scale, low = parts_of(learner, flat, 4, 8)
    back = restore(q, scale, low, 8)
    kept = torch.allclose(back[2, 8:16], flat[2, 8:16].double(), atol=1e-4)
    if not back.isfinite().all() or q.max() > 15 or not kept:
        raise Wrong("In a group of equal weights the scale is 0, and 0 / 0 is no number: divide by 1 there.")


def parts_of(learner: Quantize, w: Tensor, bits: int, group: int) -> Parts:
    """What the learner returned, as three tensors of the right shapes."""
    out = call(learner, w=w, bits=bits, group=group)
    if not isinstance(out, tuple | list) or len(out) != 3:
        raise Wrong("Return three tensors: the whole numbers, the scales and the lowest values.")
    if not all(isinstance(part, Tensor) for part in out):
        raise Wrong("Each of the three must be a tensor: the whole numbers, the scales and the lowest values.")
    q, scale, low = (part.detach() for part in out)
    (rows, columns), groups = w.shape, w.shape[1] // group
    if q.numel() != w.numel():
        raise Wrong(f"There are {w.numel()} weights, but {q.numel()} whole numbers: each weight needs its own.")
    if scale.numel() == 1:
        raise Wrong("There is one scale for the whole matrix: every group of a row needs a scale of its own.")
    if groups > 1 and scale.numel() == rows:
        raise Wrong(f"There is one scale for each row: a row of {columns} has {groups} groups of {group}.")
    if scale.numel() != rows * groups or low.numel() != rows * groups:
        raise Wrong(f"For {rows} · {groups} groups there are {scale.numel()} scales and {low.numel()} lowest values.")
    if q.shape != w.shape:
        raise Wrong(f"The whole numbers have shape {tuple(q.shape)}: give them the weights' shape, {tuple(w.shape)}.")
    return q.double(), scale.reshape(rows, groups).double(), low.reshape(rows, groups).double()


def restore(q: Tensor, scale: Tensor, low: Tensor, group: int) -> Tensor:
    """The weights that the three parts stand for."""
    return q * scale.repeat_interleave(group, 1) + low.repeat_interleave(group, 1)


def judge(q: Tensor, scale: Tensor, low: Tensor, w: Tensor, bits: int, group: int) -> None:
    """Raise the Wrong that fits; returns if everything is right."""
    top = 2**bits - 1
    parts = w.double().reshape(len(w), -1, group)
    least, most = parts.amin(-1), parts.amax(-1)
    right = (most - least) / top
    same = lambda a, b: torch.allclose(a, b, rtol=2e-3, atol=1e-5)  # noqa: E731  (scales may be stored in 16 bits)
    if not torch.equal(q, q.round()):
        raise Wrong("The numbers that are to be whole have a fraction: round them to the nearest whole number.")
    if not same(low, least):
        if same(low, right) and same(scale, least):
            raise Wrong("The scales and the lowest values are swapped: return (q, scale, low), in this order.")
        if same(low, -least):
            raise Wrong("`low` has the wrong sign: it is added, so that q * scale + low is near the weight.")
        if same(low, w.double().min().expand_as(low)):
            raise Wrong("The lowest weight of the whole matrix stands in every group: each group has its own.")
        if same(low, w.double().amin(1, keepdim=True).expand_as(low)):
            raise Wrong("The lowest weight of a row stands in all of its groups: each group has its own.")
        if same(low, most):
            raise Wrong("`low` holds the highest weight of each group: the levels start from the lowest one.")
        if same(low, parts.mean(-1)):
            raise Wrong("`low` holds the mean of each group: the levels start from its lowest weight.")
        if same(scale, parts.abs().amax(-1) / (2 ** (bits - 1) - 1)) or not low.any():
            raise Wrong("This is the symmetric rule, centered at 0: here the levels run from lowest to highest.")
        if same(low * right, -least) or same(low, (-least / right).round()):
            raise Wrong("`low` is a zero point, counted in steps: here it is the lowest weight itself.")
        columns = w.double().reshape(-1, group, w.shape[1] // group).amin(1)
        if columns.numel() == low.numel() and same(low.flatten().sort().values, columns.flatten().sort().values):
            raise Wrong("Your groups are not neighbors in a row: the last dimension after reshape is one group.")
        raise Wrong("The lowest values are not those of each group of neighbors in a row: reshape w, then take amin.")
    for factor, words in (
        (top / (top + 1), f"You divide the range by 2^bits = {top + 1}: between so many levels there are {top} steps."),
        (top / 2 ** (bits - 1), f"The range is divided by 2^(bits - 1): with {bits} bits there are {top} steps."),
        (top / (2 ** (bits - 1) - 1), f"Divided by 2^(bits - 1) - 1? There are {top} steps: no bit goes to a sign."),
        (top / bits, f"The range is divided by {bits}, the number of bits: {bits} bits tell {top + 1} levels apart."),
    ):
        if same(scale, right * factor):
            raise Wrong(words)
    if same(scale, 1 / right):
        raise Wrong("Your scale is upside down, steps per unit: it must be the size of one step.")
    if same(scale, most / top):
        raise Wrong("The scale comes from the highest weight alone: the range is the highest minus the lowest.")
    if same(scale, parts.abs().amax(-1) / top):
        raise Wrong("The scale comes from the largest absolute value: the range is the highest minus the lowest.")
    if same(scale, most - least):
        raise Wrong("The scale is the whole range of a group: divide it by the number of steps.")
    if not same(scale, right):
        raise Wrong("The scales are not the range of each group divided by its number of steps.")
    steps = (parts - least[..., None]) / right[..., None]
    steps = steps.reshape(w.shape)
    if q.min() < 0:
        if torch.allclose(torch.where(q < 0, q + 256, q), steps.round()):
            raise Wrong("Whole numbers above 127 wrapped around to negative ones: torch.int8 ends there, uint8 at 255.")
        raise Wrong(f"Some whole numbers are negative: count the steps above the lowest weight, 0 to {top}.")
    off = q - steps
    if off.abs().max() > 0.51 and off.abs().max() < 1.001:
        if (off < 1e-3).all():
            raise Wrong("You cut the fraction off instead of rounding: the error is up to a whole step.")
        if (off > -1e-3).all():
            raise Wrong("You round up: the error is up to a whole step instead of a half.")
    if torch.allclose(q, (w.double() / right.repeat_interleave(group, 1)).round().clamp(0, top)):
        raise Wrong("You divide the weights themselves: first subtract the lowest of their group.")
    if q.max() > top:
        raise Wrong(f"The whole numbers reach {int(q.max())}, but {bits} bits end at {top}.")
    if off.abs().max() > 0.51:
        raise Wrong("q * scale + low misses some weights by more than half a step: to which group does each belong?")
