"""Day 10: right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def by_view(x: Tensor, H: int) -> Tensor:
    B, T, C = x.shape
    return x.view(B, T, H, C // H).transpose(1, 2)


def by_stack(x: Tensor, H: int) -> Tensor:
    return torch.stack(x.chunk(H, dim=-1), dim=1)


def by_loop(x: Tensor, H: int) -> Tensor:
    B, T, C = x.shape
    out = x.new_zeros(B, H, T, C // H)
    for h in range(H):
        out[:, h] = x[:, :, h * (C // H) : (h + 1) * (C // H)]
    return out


def by_transposes(x: Tensor, H: int) -> Tensor:
    B, T, C = x.shape
    return x.mT.reshape(B, H, C // H, T).mT.contiguous()


RIGHT_SPLIT = [
    by_view, by_stack, by_loop, by_transposes,
    lambda x, n_head: x.unflatten(-1, (n_head, -1)).movedim(2, 1),
    lambda x, n_head: x.reshape(*x.shape[:2], n_head, -1).permute(0, 2, 1, 3),
]  # fmt: skip


def back_by_view(y: Tensor) -> Tensor:
    B, H, T, D = y.shape
    return y.transpose(1, 2).contiguous().view(B, T, H * D)


RIGHT_MERGE = [
    back_by_view,
    lambda y: y.transpose(1, 2).flatten(2),
    lambda y: torch.cat(y.unbind(1), dim=-1),
    lambda y: y.mT.flatten(1, 2).mT,
    lambda y: y.permute(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1),
]


@pytest.mark.parametrize("learner", RIGHT_SPLIT)
def test_split_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day10", learner), said()
    assert said().startswith("day10: right. ")


@pytest.mark.parametrize("learner", RIGHT_MERGE)
def test_merge_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day10b", learner), said()
    assert said().startswith("day10b: right. ")


def split_in_place(x: Tensor, H: int) -> Tensor:
    x *= 1.5
    return by_view(x, H)


WRONG_SPLIT: dict[str, tuple[Callable[..., Any], str]] = {
    "no transpose": (lambda x, H: x.reshape(x.shape[0], H, x.shape[1], -1), "there is no transpose"),
    "interleaved": (
        lambda x, H: x.reshape(x.shape[0], x.shape[1], -1, H).permute(0, 3, 1, 2), "Each head gets every H-th channel",
    ),
    "D heads": (lambda x, H: by_view(x, x.shape[-1] // H), "There are D heads of H numbers"),
    "reverse heads": (lambda x, H: by_view(x, H).flip(1), "The heads come in reverse order"),
    "reverse tokens": (lambda x, H: by_view(x, H).flip(2), "The tokens come in reverse order"),
    "batch cut": (
        lambda x, H: x.reshape(H, x.shape[0], x.shape[1], -1).transpose(0, 1), "Head and batch are cut from each other",
    ),
    "same slice": (
        lambda x, H: torch.stack([x[..., : x.shape[-1] // H]] * H, 1), "Every head holds the same D channels",
    ),
    "transposed first": (
        lambda x, H: x.mT.reshape(x.shape[0], H, x.shape[1], -1), "Tokens and channels have changed places before",
    ),
    "heads behind": (lambda x, H: by_view(x, H).transpose(1, 2), "the heads still stand behind the tokens"),
    "D before T": (lambda x, H: by_view(x, H).mT, "The result is (B, H, D, T)"),
    "all channels": (lambda x, H: x.unsqueeze(1).repeat(1, H, 1, 1), "Each head holds all 12 channels"),
    "one head": (lambda x, H: x.unsqueeze(1), "There is one head that holds everything"),
    "heads first": (lambda x, H: by_view(x, H).transpose(0, 1), "The heads stand in front of the batch"),
    "joined": (lambda x, H: by_view(x, H).flatten(0, 1), "Batch and heads are joined"),
    "a list": (lambda x, H: list(x.chunk(H, -1)), "It returns 3 separate tensors"),
    "in place": (split_in_place, "changes its input x"),
    "fixed": (lambda x, H: x.reshape(2, 5, 3, 4).transpose(1, 2), "but fails for B, H, T, D = 1, 1, 4, 6"),
    "fixed heads": (lambda x, H: by_stack(x, 3), "has shape (1, 3, 4, 2)"),
    "scaled": (lambda x, H: by_view(x, H) * 0.37, "numbers that are not in the input"),
    "mixed batch": (lambda x, H: by_view(x.flip(0), H), "head h does not hold the channels"),
    "lost": (lambda x, H: by_view(x[:, :1].expand_as(x), H), "Some numbers of the input appear twice"),
    "detached": (lambda x, H: by_view(x.detach(), H), "no gradient could get through"),
    "nothing": (lambda x, H: None, "returned None"),
}  # fmt: skip


def merge_in_place(y: Tensor) -> Tensor:
    y.add_(1)
    return back_by_view(y)


WRONG_MERGE: dict[str, tuple[Callable[..., Any], str]] = {
    "no transpose": (lambda y: y.reshape(y.shape[0], y.shape[2], -1), "the heads were not moved back"),
    "view": (lambda y: y.transpose(1, 2).view(y.shape[0], y.shape[2], -1), "view refuses"),
    "interleaved": (lambda y: y.permute(0, 2, 3, 1).flatten(2), "The channels of the heads are interleaved"),
    "reverse heads": (lambda y: back_by_view(y.flip(1)), "The heads stand in reverse order"),
    "reverse tokens": (lambda y: back_by_view(y.flip(2)), "The tokens come in reverse order"),
    "batch mixed": (
        lambda y: y.permute(2, 0, 1, 3).reshape(y.shape[0], y.shape[2], -1), "Texts of the batch are mixed",
    ),
    "not joined": (lambda y: y.transpose(1, 2), "but not joined"),
    "added": (lambda y: y.sum(1), "The heads are added up"),
    "heads and tokens": (lambda y: y.flatten(1, 2), "Heads and tokens are joined"),
    "tokens and channels": (lambda y: y.flatten(2), "Tokens and channels are joined"),
    "C before T": (lambda y: back_by_view(y).mT, "The result is (B, C, T)"),
    "batch and tokens": (lambda y: back_by_view(y).flatten(0, 1), "Batch and tokens are joined"),
    "untouched": (lambda y: y, "still has its four dimensions"),
    "in place": (merge_in_place, "changes its input y"),
    "fixed": (lambda y: y.transpose(1, 2).reshape(2, 5, 12), "but fails for B, H, T, D = 1, 1, 4, 6"),
    "shifted": (lambda y: back_by_view(y.roll(1, 2)), "a token does not get its own D numbers"),
    "scaled": (lambda y: back_by_view(y) + 0.37, "numbers that are not in the input"),
    "detached": (lambda y: back_by_view(y.detach()), "no gradient could get through"),
    "nothing": (lambda y: None, "returned None"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_SPLIT)
def test_split_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day10", WRONG_SPLIT, mistake)


@pytest.mark.parametrize("mistake", WRONG_MERGE)
def test_merge_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day10b", WRONG_MERGE, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day10", WRONG_SPLIT, least=12)
    mistakes_differ("day10b", WRONG_MERGE, least=12)
