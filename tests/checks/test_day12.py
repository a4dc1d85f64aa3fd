"""Day 12: right answers in several styles, and the typical mistakes by their own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]
Norm = Callable[[Tensor, Tensor, Tensor, float], Any]


def by_var(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight + bias


def by_torch(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def by_var_mean(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return torch.addcmul(bias, (x - mean) * (var + eps).rsqrt(), weight)


def by_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    c = x - x.sum(-1, keepdim=True) / x.shape[-1]
    return weight * (c / (c.norm(dim=-1, keepdim=True) ** 2 / x.shape[-1] + eps) ** 0.5) + bias


def by_loop(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    out = [(r - r.mean()) / torch.sqrt(((r - r.mean()) ** 2).mean() + eps) * weight + bias for r in rows]
    return torch.stack(out).reshape(x.shape)


class Module(torch.nn.Module):
    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        return by_var(x, weight, bias, eps)


@pytest.mark.parametrize("learner", [by_var, by_torch, by_var_mean, by_norm, by_loop, Module()])
def test_layer_norm_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day12", learner), said()
    assert said().startswith("day12: right. ")


def norm(dim: Any = -1, correction: int = 0, outside: bool = False) -> Norm:
    def learner(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
        var = x.var(dim, correction=correction, keepdim=True)
        root = var.sqrt() + eps if outside else (var + eps).sqrt()
        return (x - x.mean(dim, keepdim=True)) / root * w + b

    return learner


def unit(x: Tensor, eps: float) -> Tensor:
    return by_var(x, torch.ones(x.shape[-1]), torch.zeros(x.shape[-1]), eps)


def in_place(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    x -= x.mean(-1, keepdim=True)
    return by_var(x, w, b, eps)


def no_keepdim(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    return (x - x.mean(-1)) / (x.var(-1, correction=0) + eps).sqrt() * w + b


def cancels(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    mean, square = x.mean(-1, keepdim=True), x.square().mean(-1, keepdim=True)
    return (x - mean) / ((square - mean**2).clamp(min=0) + eps).sqrt() * w + b


def detached(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    var = x.var(-1, correction=0, keepdim=True).detach()
    return (x - x.mean(-1, keepdim=True).detach()) / (var + eps).sqrt() * w + b


def last_of_three(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    return (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + eps).sqrt() * w + b


WRONG_NORMS: dict[str, tuple[Any, str]] = {
    "unbiased": (norm(correction=1), "The variance is divided by C - 1"),
    "eps outside": (norm(outside=True), "eps is added to the standard deviation"),
    "std + eps": (norm(correction=1, outside=True), "Two things: eps is added outside"),
    "no eps": (lambda x, w, b, eps: by_var(x, w, b, 0.0), "eps is never used"),
    "fixed eps": (lambda x, w, b, eps: by_var(x, w, b, 1e-5), "eps is fixed at 1e-5"),
    "no root": (
        lambda x, w, b, eps: (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps) * w + b,
        "the square root is missing",
    ),
    "centered only": (lambda x, w, b, eps: (x - x.mean(-1, keepdim=True)) * w + b, "but nothing is divided"),
    "rms": (lambda x, w, b, eps: F.rms_norm(x, x.shape[-1:], w, eps) + b, "This is RMSNorm"),
    "mean kept": (
        lambda x, w, b, eps: x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * w + b,
        "the mean is not subtracted from what is divided",
    ),
    "no affine": (lambda x, w, b, eps: unit(x, eps), "weight and bias are both forgotten"),
    "no weight": (lambda x, w, b, eps: unit(x, eps) + b, "The weight is forgotten"),
    "no bias": (lambda x, w, b, eps: unit(x, eps) * w, "The bias is forgotten"),
    "bare, unbiased": (
        lambda x, w, b, eps: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt(),
        "Two things: weight and bias are not applied",
    ),
    "swapped": (lambda x, w, b, eps: by_var(x, b, w, eps), "weight and bias changed places"),
    "bias first": (lambda x, w, b, eps: (unit(x, eps) + b) * w, "added before the weight multiplies"),
    "batch": (norm(dim=0), "run over the batch (dim=0)"),
    "tokens": (norm(dim=1), "run over the tokens (dim=1)"),
    "text": (norm(dim=(1, 2)), "over tokens and channels together"),
    "batchnorm": (norm(dim=(0, 1)), "This is BatchNorm"),
    "whole": (norm(dim=(0, 1, 2)), "one variance for the whole tensor"),
    "in place": (in_place, "changes its input x"),
    "no keepdim": (no_keepdim, "no longer lines up with x"),
    "cancels": (cancels, "lost in rounding"),
    "detached": (detached, "they must not be detached"),
    "no gradient": (lambda x, w, b, eps: by_var(x.detach(), w, b, eps), "no gradient comes through"),
    "three dimensions": (last_of_three, "count dimensions from the end"),
    "off center": (lambda x, w, b, eps: (unit(x, eps) + 1) * w + b, "the mean of each token's vector should be 0"),
    "abs": (
        lambda x, w, b, eps: (
            (c := x - x.mean(-1, keepdim=True)) / (c.abs().mean(-1, keepdim=True) + eps) * w + b
        ),
        "divided by something other than",
    ),
}


@pytest.mark.parametrize("mistake", WRONG_NORMS)
def test_norm_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day12", WRONG_NORMS, mistake)


def test_norm_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day12", WRONG_NORMS, least=20)


def two_lines(x: Any, norm_1: Any, attention: Any, norm_2: Any, mlp: Any) -> Any:
    h = attention(norm_1(x)) + x
    return torch.add(mlp(norm_2(h)), h)


def by_loop_of_sublayers(x: Any, n: Any, a: Any, k: Any, m: Any) -> Any:
    for norm, sublayer in ((n, a), (k, m)):
        x = x + sublayer(norm(x))
    return x


class OneBlock(torch.nn.Module):
    def forward(self, x: Any, norm_1: Any, attention: Any, norm_2: Any, mlp: Any) -> Any:
        x = x.clone()
        x += attention(norm_1(x))
        return x + mlp(norm_2(x))


@pytest.mark.parametrize("learner", [two_lines, by_loop_of_sublayers, OneBlock()])
def test_block_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day12b", learner), said()
    assert said().startswith("day12b: right. ")


def block_in_place(x: Any, n: Any, a: Any, k: Any, m: Any) -> Any:
    x += a(n(x))
    return x + m(k(x))


WRONG_BLOCKS: dict[str, tuple[Any, str]] = {
    "post-norm": (lambda x, n, a, k, m: k((h := n(x + a(x))) + m(h)), "This is post-norm"),
    "no skips": (lambda x, n, a, k, m: m(k(a(n(x)))), "Both skips are missing"),
    "first skip": (lambda x, n, a, k, m: (h := a(n(x))) + m(k(h)), "The first skip is missing"),
    "second skip": (lambda x, n, a, k, m: m(k(x + a(n(x)))), "The second skip is missing"),
    "norms on the road": (lambda x, n, a, k, m: (h := k((g := n(x)) + a(g))) + m(h), "The norms stand on the road"),
    "first on the road": (lambda x, n, a, k, m: (h := (g := n(x)) + a(g)) + m(k(h)), "the skip carries norm_1(x)"),
    "second on the road": (lambda x, n, a, k, m: (h := k(x + a(n(x)))) + m(h), "The second norm stands on the road"),
    "parallel": (lambda x, n, a, k, m: x + a(n(x)) + m(k(x)), "attention and MLP work side by side"),
    "parallel, one norm": (lambda x, n, a, k, m: x + a(h := n(x)) + m(h), "the same vector as the attention"),
    "norm_1 twice": (lambda x, n, a, k, m: (h := x + a(n(x))) + m(n(h)), "norm_1 is used twice"),
    "norm_2 twice": (lambda x, n, a, k, m: (h := x + a(k(x))) + m(k(h)), "norm_2 is used twice"),
    "norms swapped": (lambda x, n, a, k, m: (h := x + a(k(x))) + m(n(h)), "The two norms changed places"),
    "no norms": (lambda x, n, a, k, m: (h := x + a(x)) + m(h), "both norms are missing"),
    "no norm_1": (lambda x, n, a, k, m: (h := x + a(x)) + m(k(h)), "norm_1 is missing"),
    "no norm_2": (lambda x, n, a, k, m: (h := x + a(n(x))) + m(h), "norm_2 is missing"),
    "mlp first": (lambda x, n, a, k, m: (h := x + m(k(x))) + a(n(h)), "The MLP comes before the attention"),
    "old skip": (lambda x, n, a, k, m: x + m(k(x + a(n(x)))), "goes back to the block's input"),
    "attention alone": (lambda x, n, a, k, m: x + (g := a(n(x))) + m(k(g)), "reads the attention's result alone"),
    "norm behind": (lambda x, n, a, k, m: (h := x + n(a(x))) + k(m(h)), "The norms stand behind the sublayers"),
    "one skip": (lambda x, n, a, k, m: x + m(k(a(n(x)))), "one skip around everything"),
    "in place": (block_in_place, "changes its input x"),
    "no mlp": (lambda x, n, a, k, m: x + a(n(x)), "never calls norm_2 and mlp"),
    "lost": (lambda x, n, a, k, m: ((h := x + a(n(x))), m(k(h)))[0], "its result is lost"),
    "halved": (lambda x, n, a, k, m: (h := (x + a(n(x))) / 2) + m(k(h)), "multiplies x by 0.5"),
    "norm at the end": (lambda x, n, a, k, m: k((h := x + a(n(x))) + m(k(h))), "does not hand on x unchanged"),
    "twice": (lambda x, n, a, k, m: x + a(n(x)) + m(k(x + a(n(x)))), "is computed 2 times"),
    "scaled": (lambda x, n, a, k, m: (h := x + 0.5 * a(n(x))) + m(k(h)), "follow one vector through"),
}


@pytest.mark.parametrize("mistake", WRONG_BLOCKS)
def test_block_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day12b", WRONG_BLOCKS, mistake)


def test_block_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day12b", WRONG_BLOCKS, least=20)
