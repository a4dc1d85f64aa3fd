"""Tour 7: shared heads pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def by_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def by_view(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    B, H, T, D = q.shape
    grouped = q.reshape(B, k.shape[1], -1, T, D)  # (B, G, H / G, T, D)
    scores = torch.einsum("bghtd,bgsd->bghts", grouped, k) / D**0.5
    scores = scores + torch.full((T, T), -math.inf).triu(1)
    return torch.einsum("bghts,bgsd->bghtd", scores.softmax(-1), v).reshape(B, H, T, D)


def by_loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.zeros_like(q)
    for h in range(q.shape[1]):
        g = h * k.shape[1] // q.shape[1]
        for t in range(q.shape[2]):
            w = (k[:, g, : t + 1] @ q[:, h, t, :, None])[..., 0] / math.sqrt(q.shape[-1])
            out[:, h, t] = (w.softmax(-1)[..., None] * v[:, g, : t + 1]).sum(1)
    return out


@pytest.mark.parametrize("learner", [by_torch, by_view, by_loop])
def test_shared_heads_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour07", learner), said()
    assert said().startswith("tour07: right. ")


def build(
    keys: str = "spread", values: str = "spread", scale: Callable[..., float] | None = None, mask: str = "past",
    dim: int = -1, after: bool = False, hide: float = -math.inf, turned: bool = False, weights: bool = False,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def heads(x: Tensor, n: int, how: str) -> Tensor:
        each = n // x.shape[1]
        if how == "turn":
            return x.repeat(1, each, 1, 1)
        if how == "mean":
            return x.mean(1, keepdim=True).expand(-1, n, -1, -1)
        if how == "first":
            return x[:, :1].expand(-1, n, -1, -1)
        return x.repeat_interleave(each, dim=1)

    def learner(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        _, H, T, D = q.shape
        G = k.shape[1]
        kk, vv = heads(k, H, keys), heads(v, H, values)
        scores = q @ kk.mT * (scale(H=H, T=T, D=D, G=G) if scale else D**-0.5)
        ones = torch.ones(T, T, dtype=torch.bool)
        allowed = {"past": ones.tril(), "all": ones, "future": ones.triu(), "before": ones.tril(-1)}[mask]
        p = scores.softmax(dim) * allowed if after else scores.masked_fill(~allowed, hide).softmax(dim)
        p = p.nan_to_num()
        return p if weights else (p.mT if turned else p) @ vv

    return learner


def queries_averaged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return by_torch(q.unflatten(1, (k.shape[1], -1)).mean(2), k, v)


def three_groups(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def not_shared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


def copied_too_often(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return not_shared(q, *(t.repeat_interleave(t.shape[1], dim=1) for t in (k, v)))


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "repeat": (build("turn", "turn"), "that is repeat"),
    "values in turn": (build(values="turn"), "but the values are taken"),
    "keys in turn": (build(keys="turn"), "but the keys are taken"),
    "mean": (build("mean", "mean"), "You average the groups"),
    "first": (build("first", "first"), "All heads read group 0"),
    "no mask": (build(mask="all"), "Nothing hides the future"),
    "mask reversed": (build(mask="future"), "the wrong way round"),
    "no diagonal": (build(mask="before"), "may not see itself"),
    "mask after softmax": (build(after=True), "rows no longer sum to 1"),
    "zeros for scores": (build(hide=0.0), "Hidden scores are set to 0"),
    "no scale": (build(scale=lambda **s: 1.0), "division by the root of D is missing"),
    "scale D": (build(scale=lambda **s: 1 / s["D"]), "You divide by D:"),
    "scale H": (build(scale=lambda **s: s["H"] ** -0.5), "the root of the number of heads"),
    "scale T": (build(scale=lambda **s: s["T"] ** -0.5), "You divide by the root of T"),
    "scale H D": (build(scale=lambda **s: (s["H"] * s["D"]) ** -0.5), "root of H · D"),
    "scale G": (build(scale=lambda **s: s["G"] ** -0.5), "the root of the number of groups"),
    "softmax over queries": (build(dim=-2), "runs over the queries"),
    "transposed": (build(turned=True), "The weights are transposed"),
    "weights": (build(weights=True), "You return the attention weights"),
    "as many as groups": (queries_averaged, "as many heads as there are groups"),
    "not shared": (not_shared, "copy each group H // G times"),
    "fixed groups": (three_groups, "read H, G, T and D from the shapes"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour07", WRONG, mistake)


def test_too_many_copies_are_named(said: Say) -> None:
    assert not check("tour07", copied_too_often)
    assert "copy each group H // G times" in said()


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour07", WRONG, least=18)
