"""Checker of day 9, causal self-attention.

Attention is linear in the values, so its weights can be read off from outside, however it is written: put the
identity matrix in for the values, and the output is the matrix of weights. Most of day 9 is reading that matrix.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

Attention = Callable[[Tensor, Tensor, Tensor], Any]
B, H, T, D = 2, 3, 5, 8  # all different, so that a mistaken dimension shows


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal self-attention of queries, keys and values `(B, H, T, D)`; the result has the same shape."""
    T, D = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # (B, H, T, T): row i scores what token i looks for
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)  # each row sums to 1
    return weights @ v  # (B, H, T, D)


@exercise(
    "day09",
    title="Causal self-attention",
    signature="attention(q, k, v)",
    hints=[
        "Three steps: scores (B, H, T, T) = q times k with its last two dimensions swapped; weights = softmax of the "
        "scores; result = weights times v. The batch and head dimensions only ride along.",
        "Divide the scores by the square root of the size of one head, q.shape[-1]. A token may look at itself and "
        "back: torch.ones(T, T).tril() has a 1 for each allowed pair (row: who looks, column: at whom).",
        "Forbidden scores become -inf before the softmax, scores.masked_fill(mask == 0, float('-inf')), so that their "
        "weights are exactly 0 and each row still sums to 1: softmax(dim=-1).",
    ],
    solution=attention,
    right="No position sees a later one, each row of weights sums to 1, and large scores do no harm.",
)
def check_attention(learner: Attention) -> None:
    q, k, v = torch.randn(3, B, H, T, D)
    out = shaped(learner, q, k, v)
    if not torch.equal(out.nan_to_num(), shaped(learner, q, k, v).nan_to_num()):
        raise Wrong("Two calls with the same q, k, v give different results: is dropout on, or something random?")
    if not same(out, attention(q, k, v)):
        diagnose(learner, q, k, v, out)
    for shape in ((1, 1, 1, 4), (2, 4, 9, 6), (3, 2, 6, 6)):
        q, k, v = torch.randn(3, shape[0], shape[2], shape[1], shape[3]).transpose(2, 3)  # as a split into heads gives
        with blame(f"It is right for T = {T}, D = {D}, but fails for T = {shape[2]}, D = {shape[3]}"):
            if not same(shaped(learner, q, k, v), attention(q, k, v)):
                raise Wrong(
                    f"It is right for T = {T}, D = {D}, but not for (B, H, T, D) = {shape}: take sizes from q.shape."
                )
    check_large_scores(learner)


def shaped(learner: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the learner's function returns, if it has the shape (B, H, T, D)."""
    B, H, T, D = q.shape
    try:
        out = call(learner, q=q, k=k, v=v)
    except (ValueError, RuntimeError, IndexError) as e:
        if works_without_heads(learner, q, k, v):
            raise Wrong(
                "It works for q, k, v without the dimensions in front, but here their shape is (B, H, T, D): count "
                "from the end, "
                "as in T, D = q.shape[-2:] and k.transpose(-2, -1)."
            ) from e
        raise
    if isinstance(out, Tensor):
        shape = tuple(out.shape)
        if shape in ((B, T, H, D), (B, T, H * D)) and T != H:
            raise Wrong(
                f"The result has shape {shape}, with the heads moved or joined; here it stays in the layout of q, "
                f"(B, H, T, D) = {tuple(q.shape)}."
            )
        if shape == (B, H, T, T) and T != D:
            raise Wrong("The result has shape (B, H, T, T): these are the weights, multiply them by v.")
    return tensor(out, q.shape, meaning="(B, H, T, D)")


def works_without_heads(learner: Attention, q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether one head alone, (B, T, D), or one text alone, (T, D), gives a result of the right shape."""
    for one in ((q[:, 0], k[:, 0], v[:, 0]), (q[0, 0], k[0, 0], v[0, 0])):
        with suppress(Exception):
            if learner(*one).shape == one[0].shape:
                return True
    return False


def same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding that different orders of the same sums give."""
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def check_large_scores(learner: Attention) -> None:
    """Scores in the hundreds, where exp overflows and a mask of -100 is no mask."""
    q, k, v = torch.randn(3, B, H, T, D)
    q = 100 * q
    out = shaped(learner, q, k, v)
    if not out.isfinite().all():
        raise Wrong(
            "It is right for small scores, but scores in the hundreds give NaN: mask before the softmax, and use "
            "torch.softmax, which subtracts each row's maximum so that exp cannot overflow."
        )
    if not torch.allclose(out, attention(q, k, v), rtol=1e-3, atol=1e-3):
        raise Wrong(
            "It is right for small scores, but with scores in the hundreds the mask gives way: the number that "
            "replaces forbidden scores must be below any score; use float('-inf')."
        )


def diagnose(learner: Attention, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """Raise the Wrong that fits an attention whose result `out` is not the right one."""
    for name, dim in (("head", 1), ("sequence", 0)):
        bumped = v.clone()
        bumped.select(dim, 0).add_(1.0)
        change = (shaped(learner, q, k, bumped) - out).nan_to_num().abs()
        if change.select(dim, 1).max() > 1e-5:
            raise Wrong(
                f"Changing the values of {name} 0 changes the result of {name} 1: they are mixed, as a reshape or view "
                "does where a transpose is needed."
            )
    probe = torch.zeros(B, H, T, D)
    probe[..., :T] = torch.eye(T)  # values that turn the output into the weights
    weights = shaped(learner, q, k, probe)[..., :T]  # (B, H, T, T)
    diagnose_softmax(weights)
    diagnose_mask(weights)
    diagnose_scores(weights, q, k)
    raise Wrong("The weights are right, but the result is not the weights times v: what happens after the softmax?")


def diagnose_softmax(weights: Tensor) -> None:
    """Rows that do not sum to 1; the last row is judged first because nothing in it is masked."""
    sums, last = weights.sum(-1), weights[..., -1, :]
    if not ones(sums[..., -1]):
        for dim, name in ((1, "heads"), (0, "batch")):
            if ones(last.sum(dim)):
                raise Wrong(
                    f"The weights sum to 1 over the {name}: the softmax runs over the wrong dimension; use dim=-1."
                )
        if ones(weights.sum(-2)):
            raise Wrong("Each column of the weights sums to 1 instead of each row: the softmax belongs on dim=-1.")
    finite = weights.isfinite().all(-1).flatten(0, 1).all(0)  # (T,)
    broken = [i for i in range(T) if not finite[i]]
    if broken == [0]:
        raise Wrong(
            "The result for position 0 is NaN: its whole row is masked. A position must see itself, so the mask is off "
            "by one: the diagonal stays."
        )
    if broken == list(range(T)):
        raise Wrong("Every result is NaN: a mask made as 0 times inf is NaN; fill -inf in with masked_fill.")
    if broken == [T - 1]:
        raise Wrong(
            "The result for the last position is NaN: its whole row is masked, though it may see everything. The mask "
            "is the wrong way round: it hides the past."
        )
    if broken == list(range(T - 1)):
        raise Wrong("-inf is filled in after the softmax, among the weights: it belongs in the scores, before it.")
    if broken:
        raise Wrong(f"The result for position {broken[0]} is NaN or infinite: are all scores of a row masked?")
    if not ones(sums):
        row = int((sums - 1).abs().amax((0, 1)).argmax())
        total = float(sums[0, 0, row])
        if weights.triu(1).abs().max() < 1e-6 and ones(sums[..., -1]):
            raise Wrong(
                f"The weights of position {row} sum to {total:.2f} instead of 1: the mask is applied after the "
                "softmax; it belongs before it, as -inf among the scores."
            )
        raise Wrong(
            f"The weights of position {row} sum to {total:.2f} instead of 1: is the softmax missing, or is something "
            "added to its result?"
        )


def diagnose_mask(weights: Tensor) -> None:
    """Who sees whom, in weights whose rows sum to 1."""
    seen = weights.abs().amax((0, 1)) > 1e-6  # (T, T)
    past, itself, future = seen.tril(-1), seen.diagonal(), seen.triu(1)
    if future.any() and not past.any():
        raise Wrong("Positions see the future and not the past: the mask is the wrong way round (transposed).")
    if past.any() and not itself[1:].any():
        raise Wrong("No position sees itself: the mask is one step too strict; keep the diagonal.")
    if not future.any():
        return
    if not future.triu(2).any():
        raise Wrong(
            "Every position sees exactly one step ahead, position 2 sees position 3: the mask starts one diagonal too "
            "late (triu(2) or tril(1))."
        )
    if all(ones(weights[..., i, i + 1 :] / weights[..., i, i + 1 : i + 2]) for i in range(T - 2)):
        raise Wrong(
            "All forbidden positions get the same weight instead of none: they were filled with a number such as 0 "
            "(exp(0) is 1), not with -inf."
        )
    i, j = (int(n) for n in future.nonzero()[-1])
    raise Wrong(f"Position {i} can see position {j}: there is no mask, or it has no effect on the scores.")


def diagnose_scores(weights: Tensor, q: Tensor, k: Tensor) -> None:
    """Causal weights that are wrong: find the factor of the scores, log w_j - log w_i = factor * (s_j - s_i)."""
    visible = torch.ones(T, T, dtype=torch.bool).tril()
    logs = weights.clamp_min(1e-30).log()

    def fit(scores: Tensor) -> tuple[float, bool]:
        x = (scores - scores[..., :1])[..., visible]
        y = (logs - logs[..., :1])[..., visible]
        factor = float((x * y).sum() / (x * x).sum())
        return factor, torch.allclose(factor * x, y, rtol=1e-2, atol=1e-2)

    scores = q @ k.transpose(-2, -1)
    factor, fits = fit(scores)
    if not fits:
        if fit(scores.transpose(-2, -1))[1]:
            raise Wrong("Queries and keys have changed places: row i must hold query i times every key, q @ k^T.")
        raise Wrong("The mask is right, but the weights are not a softmax of the products of q and k.")
    wanted = 1 / math.sqrt(D)
    if math.isclose(factor, wanted, rel_tol=1e-3):
        return
    if math.isclose(factor, 1, rel_tol=1e-2):
        raise Wrong("The scores are not scaled: divide them by the square root of D, the size of one head.")
    found = {
        "the square root of C = H · D, all heads together": 1 / math.sqrt(H * D),
        "the square root of T, the number of tokens": 1 / math.sqrt(T),
        "the square root of H, the number of heads": 1 / math.sqrt(H),
        "the square root of B, the number of sequences": 1 / math.sqrt(B),
        "D itself": 1 / D,
    }
    for what, value in found.items():
        if math.isclose(factor, value, rel_tol=1e-2):
            raise Wrong(f"The scores are divided by {what}: it should be the square root of D, the size of one head.")
    raise Wrong(f"The scores are multiplied by {factor:.3g}; for D = {D} it should be 1/sqrt(D) = {wanted:.3g}.")


def ones(x: Tensor) -> bool:
    return torch.allclose(x, torch.ones_like(x), atol=1e-4)
