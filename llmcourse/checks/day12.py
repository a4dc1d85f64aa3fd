"""Checkers of day 12: LayerNorm, and the pre-norm block.

Both compare the result with those of the typical mistakes. The numbers are chosen so that all of these differ: an
epsilon that is not small, sizes that are all different, sublayers and norms that leave different traces.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

Function = Callable[..., Any]
Layer = Callable[[Tensor], Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension: `x (..., C)`, `weight (C,)`, `bias (C,)`; the result is like x."""
    centered = x - x.mean(dim=-1, keepdim=True)
    var = centered.square().mean(dim=-1, keepdim=True)  # divided by C, not by C - 1
    return centered / torch.sqrt(var + eps) * weight + bias


def normalized(x: Tensor, root: Tensor, dim: Any = -1) -> Tensor:
    return (x - x.mean(dim, keepdim=True)) / root


def var(x: Tensor, dim: Any = -1, correction: int = 0) -> Tensor:
    return x.var(dim, correction=correction, keepdim=True)


def over(dim: Any) -> Function:
    return lambda x, w, b, eps: normalized(x, (var(x, dim) + eps).sqrt(), dim) * w + b


EPS = 0.3  # large enough to see where it stands
NORM_MISTAKES: list[tuple[Function, str]] = [
    (
        lambda x, w, b, eps: normalized(x, (var(x, correction=1) + eps).sqrt()) * w + b,
        "The variance is divided by C - 1, as x.var() does unless told otherwise; LayerNorm divides by C: "
        "correction=0, or the mean of the squares.",
    ),
    (
        lambda x, w, b, eps: normalized(x, var(x).sqrt() + eps) * w + b,
        "eps is added to the standard deviation, outside of the root; it belongs inside: sqrt(var + eps).",
    ),
    (
        lambda x, w, b, eps: normalized(x, var(x, correction=1).sqrt() + eps) * w + b,
        "Two things: eps is added outside of the root, and x.std() divides by C - 1. LayerNorm takes sqrt(var + eps), "
        "with a variance that is divided by C.",
    ),
    (
        lambda x, w, b, eps: normalized(x, var(x).sqrt()) * w + b,
        "eps is never used: the result is the one for eps = 0, and a constant vector would divide by zero.",
    ),
    (
        lambda x, w, b, eps: normalized(x, (var(x) + 1e-5).sqrt()) * w + b,
        "eps is fixed at 1e-5 in your code: use the argument that is handed in.",
    ),
    (
        lambda x, w, b, eps: normalized(x, var(x) + eps) * w + b,
        "It divides by the variance: the square root is missing.",
    ),
    (
        lambda x, w, b, eps: normalized(x, torch.ones(())) * w + b,
        "The mean is subtracted, but nothing is divided by the standard deviation.",
    ),
    (
        lambda x, w, b, eps: x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * w + b,
        "This is RMSNorm: it divides by the root of the mean square, and the mean is never subtracted.",
    ),
    (
        lambda x, w, b, eps: x / (var(x) + eps).sqrt() * w + b,
        "The standard deviation is right, but the mean is not subtracted from what is divided by it.",
    ),
    (
        lambda x, w, b, eps: normalized(x, (var(x) + eps).sqrt()),
        "weight and bias are both forgotten: each channel is stretched by its weight and moved by its bias.",
    ),
    (lambda x, w, b, eps: normalized(x, (var(x) + eps).sqrt()) + b, "The weight is forgotten: multiply by it."),
    (lambda x, w, b, eps: normalized(x, (var(x) + eps).sqrt()) * w, "The bias is forgotten: add it at the end."),
    (
        lambda x, w, b, eps: normalized(x, (var(x) + eps).sqrt()) * b + w,
        "weight and bias changed places: the weight multiplies and the bias is added.",
    ),
    (
        lambda x, w, b, eps: (normalized(x, (var(x) + eps).sqrt()) + b) * w,
        "The bias is added before the weight multiplies: stretch first, then move.",
    ),
    (
        over(0),
        "Mean and variance run over the batch (dim=0), so a text depends on the others beside it: use dim=-1.",
    ),
    (
        over(1),
        "Mean and variance run over the tokens (dim=1), so a token depends on later ones: use dim=-1.",
    ),
    (
        over((1, 2)),
        "Mean and variance are taken over tokens and channels together; each token has its own, over dim=-1.",
    ),
    (
        over((0, 1)),
        "This is BatchNorm: one mean and variance for each channel, over all texts and tokens. Use dim=-1.",
    ),
    (
        over((0, 1, 2)),
        "There is one mean and one variance for the whole tensor; each token has its own, over dim=-1.",
    ),
]


@exercise(
    "day12",
    title="LayerNorm",
    signature="layer_norm(x, weight, bias, eps)",
    hints=[
        "Each token on its own: mean and variance over the last dimension, with keepdim=True so that they still line "
        "up with x.",
        "The variance is the mean of the squared distances from the mean (divided by C). Divide x - mean by "
        "torch.sqrt(var + eps).",
        "Then multiply by weight and add bias; both have the shape (C,) and line up with the last dimension by "
        "themselves.",
    ],
    solution=layer_norm,
    right="Each token is centered and scaled on its own, eps is inside the root, weight and bias are applied.",
)
def check_layer_norm(learner: Function) -> None:
    x, w, b = 2 * torch.randn(3, 5, 8) + 1, torch.randn(8) + 0.5, torch.randn(8)
    x[0, 0] *= 0.003  # one token so small that an eps of 1e-5 shows
    out = norm_of(learner, x, w, b)
    if not close(out, layer_norm(x, w, b, EPS)):
        diagnose_norm(out, x, w, b)
    for shape in ((6,), (4, 6), (2, 3, 4, 6), (5, 5, 5)):
        x, w, b = 2 * torch.randn(shape) + 1, torch.randn(shape[-1]), torch.randn(shape[-1])
        said = f"It is right for x of shape (3, 5, 8), but not for {shape}: count dimensions from the end, dim=-1"
        with blame(said):
            if not close(norm_of(learner, x, w, b), layer_norm(x, w, b, EPS)):
                raise Wrong(said + ".")
    x, w, b = torch.randn(4, 64) + 10_000, torch.ones(64), torch.zeros(64)
    if not torch.allclose(norm_of(learner, x, w, b, 1e-5), layer_norm(x, w, b, 1e-5), atol=0.05):
        raise Wrong(
            "It is right for small numbers, but with numbers near 10,000 the variance is lost in rounding, as in the "
            "mean of the squares less the square of the mean: subtract the mean first, then square."
        )
    x = torch.randn(2, 8, requires_grad=True)
    result = learner(x, torch.ones(8), torch.zeros(8), 1e-5)
    if not result.requires_grad:
        raise Wrong("The numbers are right, but no gradient comes through: stay with tensors, without detach or numpy.")
    result.square().mul(torch.arange(8.0)).sum().backward()
    wanted = torch.autograd.grad(
        layer_norm(y := x.detach().requires_grad_(), torch.ones(8), torch.zeros(8), 1e-5)
        .square().mul(torch.arange(8.0)).sum(), y)[0]  # fmt: skip
    if x.grad is None or not torch.allclose(x.grad, wanted, atol=1e-4):
        raise Wrong(
            "The numbers are right, but the gradient is not: mean and variance depend on x too, so they must not be "
            "detached."
        )


def norm_of(learner: Function, x: Tensor, w: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """What the learner's function returns, if its shape is that of x."""
    try:
        out = call(learner, x=x, weight=w, bias=b, eps=eps)
    except RuntimeError as e:
        if "must match the size" in str(e) and x.ndim == 3 and x.shape[0] == 3:
            raise Wrong(
                "The mean or the variance no longer lines up with x, because the dimension it was taken over is gone: "
                "keepdim=True keeps it, with size 1."
            ) from e
        raise
    return tensor(out, x.shape, meaning="the shape of x,")


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def diagnose_norm(out: Tensor, x: Tensor, w: Tensor, b: Tensor) -> None:
    for mistake, sentence in NORM_MISTAKES:
        if close(out, mistake(x, w, b, EPS)):
            raise Wrong(sentence)
    if not out.isfinite().all():
        raise Wrong("The result holds NaN or infinity: is the root of something negative taken?")
    if torch.allclose(out.mean(-1), torch.zeros(()), atol=1e-3):
        raise Wrong(
            "Two things: weight and bias are not applied, and the divisor is not sqrt(var + eps), with the variance "
            "divided by C."
        )
    plain = (out - b) / w  # what stood before weight and bias, if those are right
    if not torch.allclose(plain.mean(-1), torch.zeros(()), atol=1e-3):
        raise Wrong(
            "Before weight and bias, the mean of each token's vector should be 0, and it is not: subtract "
            "x.mean(dim=-1, keepdim=True)."
        )
    raise Wrong(
        "Each token is centered, but divided by something other than sqrt(var + eps), with the variance over its "
        "channels."
    )


# The block


def block(x: Tensor, norm_1: Layer, attention: Layer, norm_2: Layer, mlp: Layer) -> Tensor:
    """One pre-norm transformer block, `(B, T, C) -> (B, T, C)`."""
    x = x + attention(norm_1(x))
    return x + mlp(norm_2(x))


BLOCK_MISTAKES: list[tuple[Function, str]] = [
    (
        lambda x, n, a, k, m: k((h := n(x + a(x))) + m(h)),
        "This is post-norm, the order of the first transformer: the sum is normalized. Pre-norm normalizes what a "
        "sublayer reads, and leaves the sum alone.",
    ),
    (
        lambda x, n, a, k, m: m(k(a(n(x)))),
        "Both skips are missing: each sublayer's result replaces its input instead of being added to it.",
    ),
    (
        lambda x, n, a, k, m: (h := a(n(x))) + m(k(h)),
        "The first skip is missing: the attention's result has to be added to x.",
    ),
    (
        lambda x, n, a, k, m: m(k(x + a(n(x)))),
        "The second skip is missing: the MLP's result has to be added to what the attention left.",
    ),
    (
        lambda x, n, a, k, m: (h := k((g := n(x)) + a(g))) + m(h),
        "The norms stand on the road: x itself is replaced by norm(x), and the sum goes on from there. Only the "
        "sublayer reads the normalized copy.",
    ),
    (
        lambda x, n, a, k, m: (h := n(x)) + a(h) + m(k(h + a(h))),
        "The first norm stands on the road: the skip carries norm_1(x), and it should carry x.",
    ),
    (
        lambda x, n, a, k, m: (h := k(x + a(n(x)))) + m(h),
        "The second norm stands on the road: the second skip carries the normalized vector, and it should carry the "
        "vector before norm_2.",
    ),
    (
        lambda x, n, a, k, m: x + a(n(x)) + m(k(x)),
        "The MLP reads the block's input: attention and MLP work side by side. It should read what x is after the "
        "attention was added.",
    ),
    (
        lambda x, n, a, k, m: x + a(h := n(x)) + m(h),
        "The MLP reads norm_1(x), the same vector as the attention, and norm_2 is never used.",
    ),
    (
        lambda x, n, a, k, m: (h := x + a(n(x))) + m(n(h)),
        "norm_1 is used twice and norm_2 never: each sublayer has a norm of its own.",
    ),
    (
        lambda x, n, a, k, m: (h := x + a(k(x))) + m(k(h)),
        "norm_2 is used twice and norm_1 never: each sublayer has a norm of its own.",
    ),
    (
        lambda x, n, a, k, m: (h := x + a(k(x))) + m(n(h)),
        "The two norms changed places: norm_1 belongs to the attention, norm_2 to the MLP.",
    ),
    (
        lambda x, n, a, k, m: (h := x + a(x)) + m(h),
        "Neither sublayer reads a normalized vector: both norms are missing.",
    ),
    (
        lambda x, n, a, k, m: (h := x + a(x)) + m(k(h)),
        "The attention reads x as it is: norm_1 is missing.",
    ),
    (
        lambda x, n, a, k, m: (h := x + a(n(x))) + m(h),
        "The MLP reads its input as it is: norm_2 is missing.",
    ),
    (
        lambda x, n, a, k, m: (h := x + m(k(x))) + a(n(h)),
        "The MLP comes before the attention: tokens first exchange what they know, then each works alone.",
    ),
    (
        lambda x, n, a, k, m: x + m(k(x + a(n(x)))),
        "The second skip goes back to the block's input, so what the attention added is lost on the road: add to the "
        "sum so far.",
    ),
    (
        lambda x, n, a, k, m: x + (g := a(n(x))) + m(k(g)),
        "The MLP reads the attention's result alone; it should read the whole sum x + attention, normalized.",
    ),
    (
        lambda x, n, a, k, m: (h := x + n(a(x))) + k(m(h)),
        "The norms stand behind the sublayers, on what they write; pre-norm puts them in front, on what they read.",
    ),
    (
        lambda x, n, a, k, m: x + m(k(a(n(x)))),
        "There is one skip around everything; each of the two sublayers needs its own.",
    ),
    (
        lambda x, n, a, k, m: (h := x + (g := a(n(x)))) + g + m(k(h)),
        "The attention's result is added twice.",
    ),
]


class Layers:
    """Two norms and two sublayers whose traces can be told apart; counts how often each is called."""

    def __init__(self, C: int) -> None:
        self.calls: Counter[str] = Counter()
        self.w = torch.randn(2, C) + 1.5
        self.b = torch.randn(2, C)
        self.A, self.M = torch.randn(2, C, C) / C**0.5

    def norm(self, i: int) -> Layer:
        def norm(x: Tensor) -> Tensor:
            self.calls[f"norm_{i + 1}"] += 1
            return layer_norm(x, self.w[i], self.b[i], 1e-5)

        return norm

    def attention(self, x: Tensor) -> Tensor:
        self.calls["attention"] += 1
        count = torch.arange(1, x.shape[1] + 1).view(-1, 1)
        return (x.cumsum(1) / count) @ self.A  # mean of the past

    def mlp(self, x: Tensor) -> Tensor:
        self.calls["mlp"] += 1
        return torch.relu(x @ self.M)

    def all(self) -> dict[str, Any]:
        return {"norm_1": self.norm(0), "attention": self.attention, "norm_2": self.norm(1), "mlp": self.mlp}


@exercise(
    "day12b",
    title="The pre-norm block",
    signature="block(x, norm_1, attention, norm_2, mlp)",
    hints=[
        "Two steps of the same form: what stood there, plus what a sublayer makes of a normalized copy of it.",
        "First x = x + attention(norm_1(x)). From here on x is the sum, and the second step starts from it.",
        "The second step: x + mlp(norm_2(x)). Nothing is normalized after the sum.",
    ],
    solution=block,
    right="Two skips, and each sublayer reads a normalized copy; nothing stands on the road.",
)
def check_block(learner: Function) -> None:
    x, layers = 2 * torch.randn(2, 5, 6) + 1, Layers(6)
    out = tensor(call(learner, x=x, **layers.all()), x.shape, meaning="(B, T, C)")
    calls = dict(layers.calls)
    if not close(out, block(x, **layers.all())):
        for mistake, sentence in BLOCK_MISTAKES:
            if close(out, mistake(x, *layers.all().values())):
                raise Wrong(sentence)
        if missing := [name for name in layers.all() if not calls.get(name)]:
            raise Wrong(f"Your block never calls {' and '.join(missing)}.")
        if close(out, x + layers.attention(layers.norm(0)(x))):
            raise Wrong("The MLP is computed, but its result is lost: add it to the sum, and return that.")
        check_silent(learner, x)
        raise Wrong(
            "The result is not x + attention(norm_1(x)), followed by the same with norm_2 and mlp: follow one vector "
            "through your lines."
        )
    if extra := [name for name, n in calls.items() if n > 1]:
        raise Wrong(
            f"The result is right, but {extra[0]} is computed {calls[extra[0]]} times: keep the sum in a variable."
        )


def check_silent(learner: Function, x: Tensor) -> None:
    """With sublayers that write zeros, the block has to hand on its input."""
    layers = Layers(6).all() | {"attention": torch.zeros_like, "mlp": torch.zeros_like}
    silent = call(learner, x=x, **layers)
    if isinstance(silent, Tensor) and silent.shape == x.shape and not close(silent, x):
        ratio = (silent / x).flatten()
        if torch.allclose(ratio, ratio[0], rtol=1e-3):
            raise Wrong(
                f"With sublayers that write zeros your block multiplies x by {ratio[0]:.3g}: the skip adds x once, "
                "as it is."
            )
        raise Wrong(
            "With sublayers that write zeros your block does not hand on x unchanged: something stands on the road."
        )
