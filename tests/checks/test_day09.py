"""Day 9: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check

INF = float("inf")
Say = Callable[[], str]


def scores_of(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def lower(q: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril(diagonal)


def by_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    T, D = q.shape[2:]
    s = torch.einsum("bhid,bhjd->bhij", q, k) * D**-0.5
    s = s + torch.full((T, T), float("-inf")).triu(1)
    return torch.einsum("bhij,bhjd->bhid", s.softmax(-1), v)


def by_loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.empty_like(v)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                s = k[b, h, : t + 1] @ q[b, h, t] / q.shape[-1] ** 0.5
                out[b, h, t] = F.softmax(s, dim=0) @ v[b, h, : t + 1]
    return out


def by_where(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = scores_of(q, k)
    return torch.where(lower(q), s, torch.finfo(s.dtype).min).softmax(dim=-1) @ v


def by_hand_made_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = scores_of(q / 2, 2 * k).masked_fill(lower(q) == 0, float("-inf"))
    e = (s - s.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True)) @ v


def by_joined_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    B, H, T, D = q.shape
    q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
    s = torch.baddbmm(torch.full((T, T), -1e9).triu(1), q, k.mT, alpha=1 / math.sqrt(D))
    return torch.bmm(s.softmax(-1), v).view(B, H, T, D)


class Attention(nn.Module):
    """An object with a forward method, which also keeps gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.factor * by_where(q, k, v)


RIGHT_ATTENTION = [
    by_sdpa, by_einsum, by_loops, by_where, by_hand_made_softmax, by_joined_batch, Attention(),
    lambda q, k, v, dropout=0.0: by_sdpa(q, k, v), functools.partial(F.scaled_dot_product_attention, is_causal=True),
]  # fmt: skip


@pytest.mark.parametrize("learner", RIGHT_ATTENTION, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_attention_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day09", learner), said()
    assert said().startswith("day09: right. ")


def variant(
    *,
    mask: Callable[[Tensor], Tensor] = lower,
    fill: float = -INF,
    factor: Callable[[int, int, int, int], float] = lambda B, H, T, D: D**-0.5,
    dim: int = -1,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = q @ k.transpose(-2, -1) * factor(*q.shape)
        return s.masked_fill(~mask(q), fill).softmax(dim) @ v

    return attention


def masked_after(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (scores_of(q, k).softmax(-1) * lower(q)) @ v


def inf_after(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scores_of(q, k).softmax(-1).masked_fill(~lower(q), -INF) @ v


def masked_after_and_renormalized(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = scores_of(q, k).softmax(-1) * lower(q)
    return (w / w.sum(-1, keepdim=True)) @ v


def exp_overflows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    e = scores_of(q, k).exp() * lower(q)
    return (e / e.sum(-1, keepdim=True)) @ v


def no_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (scores_of(q, k) * lower(q)) @ v


def joined_layout(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(q, k, v).transpose(1, 2).flatten(2)


def moved_layout(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(q, k, v).transpose(1, 2)


def mixed_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(q, k, v).transpose(1, 2).reshape(q.shape)


def mixed_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(q, k, v.roll(1, 0))


def in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q /= math.sqrt(q.shape[-1])
    return (q @ k.mT).masked_fill(~lower(q), -INF).softmax(-1) @ v


def with_dropout(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.dropout(scores_of(q, k).masked_fill(~lower(q), -INF).softmax(-1), 0.1) @ v


def swapped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(k, q, v)


def values_added(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(q, k, v) + v


def bent_after(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_sdpa(q, k, v).relu()


def weights_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scores_of(q, k).masked_fill(~lower(q), -INF).softmax(-1)


def without_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    _B, _T, D = q.shape
    return (q @ k.transpose(1, 2) / math.sqrt(D)).masked_fill(~lower(q), -INF).softmax(-1) @ v


def fixed_length(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scores_of(q, k).masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -INF).softmax(-1) @ v


def fixed_head_size(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(8)).masked_fill(~lower(q), -INF).softmax(-1) @ v


def own_values(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ q.mT / math.sqrt(q.shape[-1])).masked_fill(~lower(q), -INF).softmax(-1) @ v


def zero_times_inf(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    T, D = q.shape[-2:]
    mask = torch.ones(T, T).triu(1) * -INF  # 0 · inf is nan
    return (q @ k.transpose(-2, -1) / D**0.5 + mask).softmax(-1) @ v


WRONG_ATTENTION: dict[str, tuple[Callable[..., Any], str]] = {
    "no mask": (variant(mask=lambda q: lower(q, 9)), "there is no mask"),
    "mask after softmax": (masked_after, "the mask is applied after the softmax"),
    "-inf after softmax": (inf_after, "-inf is filled in after the softmax"),
    "mask after softmax, renormalized": (masked_after_and_renormalized, "scores in the hundreds give NaN"),
    "transposed": (variant(mask=lambda q: lower(q).T), "the past: the mask is the wrong way round (transposed)"),
    "inverted": (variant(mask=lambda q: ~lower(q)), "last position is NaN"),
    "too strict": (variant(mask=lambda q: lower(q, -1)), "position 0 is NaN"),
    "too strict, finite": (variant(mask=lambda q: lower(q, -1), fill=-1e9), "No position sees itself"),
    "sees one ahead": (variant(mask=lambda q: lower(q, 1)), "position 2 sees position 3"),
    "not scaled": (variant(factor=lambda B, H, T, D: 1.0), "not scaled"),
    "scaled by C": (variant(factor=lambda B, H, T, D: (H * D) ** -0.5), "square root of C ="),
    "scaled by T": (variant(factor=lambda B, H, T, D: T**-0.5), "square root of T"),
    "scaled by H": (variant(factor=lambda B, H, T, D: H**-0.5), "square root of H"),
    "scaled without root": (variant(factor=lambda B, H, T, D: 1 / D), "divided by D itself"),
    "scaled up": (variant(factor=lambda B, H, T, D: D**0.5), "multiplied by 2.83"),
    "softmax over queries": (variant(dim=-2), "Each column"),
    "softmax over heads": (variant(dim=1), "over the heads"),
    "softmax over the batch": (variant(dim=0), "over the batch"),
    "masked with 0": (variant(fill=0.0), "filled with a number such as 0"),
    "masked with -100": (variant(fill=-100.0), "the mask gives way"),
    "no softmax": (no_softmax, "is the softmax missing"),
    "exp overflows": (exp_overflows, "scores in the hundreds give NaN"),
    "heads joined": (joined_layout, "(2, 5, 24), with the heads moved or joined"),
    "heads moved": (moved_layout, "(2, 5, 3, 8), with the heads moved or joined"),
    "heads mixed": (mixed_heads, "head 0 changes the result of head 1"),
    "batch mixed": (mixed_batch, "sequence 0 changes the result of sequence 1"),
    "in place": (in_place, "changes its input q"),
    "dropout": (with_dropout, "is dropout on"),
    "queries and keys swapped": (swapped, "changed places"),
    "queries with queries": (own_values, "not a softmax of the products of q and k"),
    "residual added": (values_added, "is the softmax missing"),
    "something after": (bent_after, "not the weights times v"),
    "weights": (weights_only, "these are the weights"),
    "one head only": (without_heads, "without the dimensions in front"),
    "0 times inf": (zero_times_inf, "Every result is NaN"),
    "mask of fixed size": (fixed_length, "but fails for T = 1, D = 4 (RuntimeError"),
    "scale of fixed size": (fixed_head_size, "take sizes from q.shape"),
}


@pytest.mark.parametrize("mistake", WRONG_ATTENTION)
def test_attention_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day09", WRONG_ATTENTION, mistake)


def test_attention_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day09", WRONG_ATTENTION, least=14)
