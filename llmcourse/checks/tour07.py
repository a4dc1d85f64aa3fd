"""Checker of Tour 7: causal attention in which several heads share keys and values."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Wrong, call, exercise, tensor

B, H, G, T, D = 2, 6, 3, 5, 4
Grouped = Callable[[Tensor, Tensor, Tensor], Tensor]


def grouped_query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, q (B, H, T, D), k and v (B, G, T, D): heads in a row share one group's keys and values."""
    each = q.shape[1] // k.shape[1]  # heads of one group
    k, v = k.repeat_interleave(each, dim=1), v.repeat_interleave(each, dim=1)  # (B, H, T, D)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    return scores.masked_fill(~past, -math.inf).softmax(-1) @ v


@exercise(
    "tour07",
    title="Heads that share",
    signature="grouped_query_attention(q, k, v)",
    hints=[
        "With 6 heads and 3 groups, heads 0 and 1 read group 0, heads 2 and 3 group 1, heads 4 and 5 group 2.",
        "k.repeat_interleave(H // G, dim=1) gives 0 0 1 1 2 2; k.repeat(1, H // G, 1, 1) would give 0 1 2 0 1 2.",
        "Then it is causal attention as usual: q @ k.transpose(-2, -1) / sqrt(D), minus infinity above the diagonal, "
        "softmax over the last dimension, @ v.",
    ],
    solution=grouped_query_attention,
    right="Neighboring heads share their group, nobody sees the future, and one group or one for each head work too.",
)
def check_grouped(learner: Grouped) -> None:
    q, k, v = torch.randn(B, H, T, D), torch.randn(B, G, T, D), torch.randn(B, G, T, D)
    try:
        got = value(learner, q, k, v)
    except RuntimeError as e:
        if f"size of tensor a ({H}) must match" in str(e):
            raise Wrong(
                f"{H} heads of queries meet another number of heads of keys: copy each group H // G times, so that "
                "there are as many."
            ) from e
        raise
    if not close(got, truth(q, k, v)):
        diagnose(got, q, k, v)
    sizes = {"one group": (H, 1), "a group for each head": (H, H), "8 heads in 2 groups": (8, 2)}
    for name, (heads, groups) in sizes.items():
        q, k, v = torch.randn(1, heads, 7, 2), torch.randn(1, groups, 7, 2), torch.randn(1, groups, 7, 2)
        try:
            got = value(learner, q, k, v)
        except Wrong:
            raise
        except Exception as e:
            raise Wrong(
                f"It is right for {H} heads in {G} groups but fails with {name} ({type(e).__name__}): read H, G, T and "
                "D from the shapes."
            ) from e
        if not close(got, truth(q, k, v)):
            raise Wrong(f"It is right for {H} heads in {G} groups but not with {name}: a size is built in.")


def truth(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def value(learner: Grouped, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = call(learner, q=q, k=k, v=v)
    b, h, t, d = q.shape
    if isinstance(out, Tensor) and h != k.shape[1] and out.shape == k.shape:
        raise Wrong("Your result has as many heads as there are groups: every query head has a result of its own.")
    if isinstance(out, Tensor) and out.shape == (b, h, t, t) and t != d:
        raise Wrong("You return the attention weights: the last step, times the values, is missing.")
    return tensor(out, (b, h, t, d), meaning="a result for each head and word, shaped like q")


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float = D**-0.5, kind: str = "past", dim: int = -1) -> Tensor:
    """Attention with one thing done differently; k and v already have H heads."""
    scores = q @ k.mT * scale
    ones = torch.ones(T, T, dtype=torch.bool)
    allowed = {"past": ones.tril(), "all": ones, "future": ones.triu(), "before": ones.tril(-1)}[kind]
    return scores.masked_fill(~allowed, -math.inf).softmax(dim).nan_to_num() @ v


def diagnose(got: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise the Wrong that fits."""
    rows = torch.arange(H) // (H // G)
    kk, vv = k[:, rows], v[:, rows]
    weights = attend(q, kk, torch.eye(T).expand(B, H, T, T))
    past = torch.ones(T, T, dtype=torch.bool).tril()
    late = (q @ kk.mT / math.sqrt(D)).softmax(-1) * past
    zero = (q @ kk.mT / math.sqrt(D)).masked_fill(~past, 0.0).softmax(-1)
    turn = torch.arange(H) % G
    mean_k, mean_v = (t.mean(1, keepdim=True).expand(-1, H, -1, -1) for t in (k, v))
    first_k, first_v = (t[:, :1].expand(-1, H, -1, -1) for t in (k, v))
    named = [
        (attend(q, k[:, turn], v[:, turn]), "Your heads take the groups in turn, 0 1 2 0 1 2: that is repeat. "
         "Neighbors share a group, 0 0 1 1 2 2: repeat_interleave."),
        (attend(q, kk, v[:, turn]), "The keys are shared rightly, but the values are taken in another order."),
        (attend(q, k[:, turn], vv), "The values are shared rightly, but the keys are taken in another order."),
        (attend(q, mean_k, mean_v), "You average the groups, so that all heads read the same: each has its own keys."),
        (attend(q, first_k, first_v), "All heads read group 0: that is multi-query; the other groups are lost."),
        (attend(q, kk, vv, kind="all"), "Nothing hides the future: each word may see itself and those before it."),
        (attend(q, kk, vv, kind="future"), "The mask is the wrong way round: words see what comes, not what was."),
        (attend(q, kk, vv, kind="before"), "A word may not see itself in your mask: the diagonal belongs to the past."),
        (late @ vv, "You set weights to 0 after the softmax, so rows no longer sum to 1: mask the scores before it."),
        (zero @ vv, "Hidden scores are set to 0, which still gets weight, e to the 0: set them to minus infinity."),
        (attend(q, kk, vv, scale=1.0), "The division by the root of D is missing."),
        (attend(q, kk, vv, scale=1 / D), "You divide by D: the scores are divided by its root."),
        (attend(q, kk, vv, scale=H**-0.5), "You divide by the root of the number of heads: it is D that counts."),
        (attend(q, kk, vv, scale=T**-0.5), "You divide by the root of T: it is D, the last dimension, that counts."),
        (attend(q, kk, vv, scale=(H * D) ** -0.5), "You divide by the root of H · D: each head compares D numbers."),
        (attend(q, kk, vv, scale=G**-0.5), "You divide by the root of the number of groups: it is D that counts."),
        (attend(q, kk, vv, dim=-2), "The softmax runs over the queries: the weights of one query sum to 1, dim=-1."),
        (weights.mT @ vv, "The weights are transposed: each row belongs to the query that looks."),
    ]
    for wrong, sentence in named:
        if close(got, wrong):
            raise Wrong(sentence)
    if not got.isfinite().all():
        raise Wrong("There are values that are not finite: some row of the mask hides everything.")
    raise Wrong("It is not attention with shared keys: copy the groups to H heads, then compare with one head by hand.")
