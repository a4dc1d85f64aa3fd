"""Checkers of day 10: splitting channels into heads, and putting the heads side by side again.

Both only move numbers, so the inputs hold numbers that are all different, and the output tells where each came from.
Most mistakes have the right shape; each is known by what it would have returned.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

B, H, T, D = 2, 3, 5, 4  # all different, so that a mistaken dimension shows
OTHERS = ((1, 1, 4, 6), (3, 4, 4, 2), (2, 2, 9, 8), (4, 6, 2, 1))  # B, H, T, D
Move = tuple[Callable[..., Tensor], str]


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """Channels cut into heads: `(B, T, C) -> (B, H, T, D)`; head h holds the channels h * D to (h + 1) * D."""
    B, T, C = x.shape
    return x.reshape(B, T, n_head, C // n_head).transpose(1, 2)


def merge_heads(y: Tensor) -> Tensor:
    """The heads side by side again: `(B, H, T, D) -> (B, T, C)`."""
    B, H, T, D = y.shape
    return y.transpose(1, 2).reshape(B, T, H * D)


def numbered(*shape: int) -> Tensor:
    """A tensor whose numbers are all different."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


# What typical mistakes return, with the sentence for each. They get (x, n_head) or (y,).

SPLITS: list[Move] = [
    (
        lambda x, H: x.reshape(len(x), H, x.shape[1], -1),
        "The shape is right, but there is no transpose: a reshape straight to (B, H, T, D) deals out memory in order, "
        "so that a head holds a stretch of the text instead of its slice of every token.",
    ),
    (
        lambda x, H: x.reshape(len(x), x.shape[1], -1, H).permute(0, 3, 1, 2),
        "Each head gets every H-th channel: H and D have changed places in the view; cut into (B, T, H, D).",
    ),
    (
        lambda x, H: x.reshape(len(x), x.shape[1], H, -1).transpose(1, 2).flip(1),
        "The heads come in reverse order: head 0 should hold the first D channels.",
    ),
    (
        lambda x, H: x.reshape(len(x), x.shape[1], H, -1).transpose(1, 2).flip(2),
        "The tokens come in reverse order: splitting must leave their order alone.",
    ),
    (
        lambda x, H: x.reshape(H, len(x), x.shape[1], -1).transpose(0, 1),
        "Head and batch are cut from each other: the first dimension, B, must stay in front when C is cut up.",
    ),
    (
        lambda x, H: x[..., : x.shape[2] // H].unsqueeze(1).expand(-1, H, -1, -1),
        "Every head holds the same D channels: head h should begin at channel h * D.",
    ),
    (
        lambda x, H: x.transpose(1, 2).reshape(len(x), H, x.shape[1], -1),
        "Tokens and channels have changed places before the cut: cut the last dimension, then move the heads in front.",
    ),
]

MERGES: list[Move] = [
    (
        lambda y: y.reshape(len(y), y.shape[2], -1),
        "The shape is right, but the heads were not moved back behind the tokens: a reshape straight from (B, H, T, D) "
        "gives one token the numbers of several; transpose first.",
    ),
    (
        lambda y: y.permute(0, 2, 3, 1).flatten(2),
        "The channels of the heads are interleaved: the permutation must end in (B, T, H, D), with D last.",
    ),
    (
        lambda y: y.flip(1).transpose(1, 2).flatten(2),
        "The heads stand in reverse order: head 0 belongs into the first D channels.",
    ),
    (
        lambda y: y.flip(2).transpose(1, 2).flatten(2),
        "The tokens come in reverse order: merging must leave their order alone.",
    ),
    (
        lambda y: y.permute(2, 0, 1, 3).reshape(len(y), y.shape[2], -1),
        "Texts of the batch are mixed: the first dimension, B, must stay in front all the way.",
    ),
]


@exercise(
    "day10",
    title="Split into heads",
    signature="split_heads(x, n_head)",
    hints=[
        "Two moves. The first cuts the last dimension, C, into H pieces of D numbers and leaves B and T alone.",
        "After x.reshape(B, T, n_head, C // n_head) the heads stand behind the tokens; transpose swaps two dimensions.",
        "x.reshape(B, T, n_head, C // n_head).transpose(1, 2), with B, T, C = x.shape.",
    ],
    solution=split_heads,
    right="Head h holds its own slice of every token, for any B, H, T and D.",
)
def check_split(learner: Callable[[Tensor, int], Any]) -> None:
    x = numbered(B, T, H * D)
    out = split_shape(learner, x, H)
    if not torch.equal(out, split_heads(x, H)):
        name_it(out, [(move(x, H), why) for move, why in SPLITS if move(x, H).shape == out.shape])
        strangers(out, x)
        raise Wrong("The shape is right, but head h does not hold the channels h * D to (h + 1) * D of every token.")
    for b, h, t, d in OTHERS:
        x = numbered(b, t, 3 * h * d)[..., h * d : 2 * h * d]  # a part, as chunk gives it
        with blame(f"It is right for {H} heads of {D}, but fails for B, H, T, D = {b}, {h}, {t}, {d}"):
            if not torch.equal(split_shape(learner, x, h), split_heads(x, h)):
                raise Wrong(
                    f"It is right for {H} heads of {D} numbers, but not for B, H, T, D = {b}, {h}, {t}, {d}: take the "
                    "sizes from x.shape and n_head."
                )
    keeps_gradient(learner(torch.randn(B, T, H * D, requires_grad=True), H))


@exercise(
    "day10b",
    title="Merge the heads",
    signature="merge_heads(y)",
    hints=[
        "The two moves of splitting, in reverse: first bring the tokens back in front of the heads, then join H and D.",
        "After y.transpose(1, 2) the numbers still lie in memory as before, so .view refuses: use .contiguous().view "
        "or .reshape.",
        "y.transpose(1, 2).reshape(B, T, H * D), with B, H, T, D = y.shape.",
    ],
    solution=merge_heads,
    right="Each token has all its heads side by side again, for any B, H, T and D.",
)
def check_merge(learner: Callable[[Tensor], Any]) -> None:
    y = numbered(B, H, T, D)
    out = merge_shape(learner, y)
    if not torch.equal(out, merge_heads(y)):
        name_it(out, [(move(y), why) for move, why in MERGES])
        strangers(out, y)
        raise Wrong("The shape is right, but a token does not get its own D numbers from head 0, then from head 1, …")
    for b, h, t, d in OTHERS:
        y = numbered(b, h, t, d)
        with blame(f"It is right for {H} heads of {D}, but fails for B, H, T, D = {b}, {h}, {t}, {d}"):
            if not torch.equal(merge_shape(learner, y), merge_heads(y)):
                raise Wrong(
                    f"It is right for {H} heads of {D} numbers, but not for B, H, T, D = {b}, {h}, {t}, {d}: take the "
                    "sizes from y.shape."
                )
    keeps_gradient(learner(torch.randn(B, H, T, D, requires_grad=True)))


def split_shape(learner: Callable[..., Any], x: Tensor, h: int) -> Tensor:
    """What the learner's function returns, if it has the shape (B, H, T, D)."""
    b, t, c = x.shape
    out, d = call(learner, x=x, n_head=h), c // h
    if isinstance(out, list | tuple):
        raise Wrong(f"It returns {len(out)} separate tensors: stack the heads in one, (B, H, T, D).")
    if isinstance(out, Tensor) and out.shape != (b, h, t, d):
        known = {
            (b, t, h, d): "The channels are cut, but the heads still stand behind the tokens, (B, T, H, D): move them "
            "in front with a transpose.",
            (b, h, d, t): "The result is (B, H, D, T): only tokens and heads change places, D stays last.",
            (b, t, d, h): "The result is (B, T, D, H): cut into (B, T, H, D), then move the heads in front.",
            (b, h, t, c): f"Each head holds all {c} channels: it should get its own D = C / H = {d} of them.",
            (b, 1, t, c): "There is one head that holds everything: cut the channels into n_head pieces.",
            (h, b, t, d): "The heads stand in front of the batch, (H, B, T, D): B comes first.",
            (b * h, t, d): "Batch and heads are joined, (B * H, T, D): keep them apart, (B, H, T, D).",
            (b, d, t, h): "There are D heads of H numbers: H and D have changed places.",
            (b, d, t, c // d): "There are D heads of H numbers: H and D have changed places.",
        }
        if why := known.get(tuple(out.shape)):
            raise Wrong(why)
    return tensor(out, (b, h, t, d), meaning="(B, H, T, D)")


def merge_shape(learner: Callable[..., Any], y: Tensor) -> Tensor:
    """What the learner's function returns, if it has the shape (B, T, C)."""
    b, h, t, d = y.shape
    try:
        out = call(learner, y=y)
    except RuntimeError as e:
        if "view size is not compatible" in str(e):
            raise Wrong(
                "view refuses: after a transpose the numbers do not lie in memory in the order of the shape; put "
                ".contiguous() before it, or use .reshape."
            ) from e
        raise
    if isinstance(out, Tensor) and out.shape != (b, t, h * d):
        known = {
            (b, t, h, d): "The heads are behind the tokens again, but not joined: the last two dimensions, H and D, "
            "become one of C = H * D.",
            (b, t, d): "The heads are added up or averaged, or all but one are lost: put them side by side, C = H * D "
            "numbers for each token.",
            (b, h * t, d): "Heads and tokens are joined: H belongs to the channels, so first bring it next to D.",
            (b, h, t * d): "Tokens and channels are joined: T stays a dimension of its own.",
            (b, h * d, t): "The result is (B, C, T): tokens come before channels.",
            (b * t, h * d): "Batch and tokens are joined, (B * T, C): keep them apart, (B, T, C).",
            (b, h, t, d): "The result still has its four dimensions, (B, H, T, D).",
        }
        if why := known.get(tuple(out.shape)):
            raise Wrong(why)
    return tensor(out, (b, t, h * d), meaning="(B, T, C)")


def name_it(out: Tensor, mistakes: list[tuple[Tensor, str]]) -> None:
    """Raise the sentence of the mistake that returns exactly this."""
    for wrong, why in mistakes:
        if torch.equal(out, wrong):
            raise Wrong(why)


def strangers(out: Tensor, given: Tensor) -> None:
    """Raise Wrong if the output holds numbers that are not in the input, or some of them twice."""
    if not torch.isin(out, given).all():
        raise Wrong("The result holds numbers that are not in the input: here they are only moved, not computed with.")
    if out.unique().numel() < given.numel():
        raise Wrong("Some numbers of the input appear twice and others are lost: each has exactly one place.")


def keeps_gradient(out: Any) -> None:
    """Raise Wrong if training could not pass through the result."""
    if not out.requires_grad:
        raise Wrong("The result is cut off from its input (detach, .data or numpy?): no gradient could get through it.")
