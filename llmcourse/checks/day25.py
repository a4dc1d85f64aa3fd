"""Checkers of day 25, top-k and top-p.

A filter of logits is judged by which tokens it keeps: those whose probability is not exactly 0 afterwards. Any way
to get there is fine (-inf, or a number so low that nothing remains).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

Filter = Callable[[Tensor, Any], Any]
MASKED = "Removed tokens must get -inf"


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k highest logits of each row `(B, V)` and set the others to -inf."""
    k = min(k, logits.shape[-1])  # topk refuses to find more than there are
    threshold = logits.topk(k, dim=-1).values[..., -1:]  # (B, 1): the k-th highest of each row
    return logits.masked_fill(logits < threshold, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the likeliest tokens of each row `(B, V)` until their probabilities reach p; -inf for the others."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probs = ordered.softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs  # probability of all likelier tokens; 0 for the first, so it always stays
    removed = before >= p  # in sorted order
    return logits.masked_fill(removed.scatter(-1, order, removed), -math.inf)  # back in the order of the vocabulary


@exercise(
    "day25",
    title="Top-k",
    signature="top_k(logits, k)",
    hints=[
        "logits.topk(k, dim=-1).values holds the k highest logits of each row, sorted. Which of them is the limit?",
        "Its last column, kept as a column, values[..., -1:] of shape (B, 1), is each row's own limit: everything "
        "below it goes.",
        "topk fails for k above V, so start with k = min(k, logits.shape[-1]); and masked_fill, without the _ at its "
        "end, leaves the caller's logits alone.",
    ],
    solution=top_k,
    right="Each row keeps its own k tokens, a k above V keeps all, and the caller's logits are untouched.",
)
def check_top_k(learner: Filter) -> None:
    V = 8
    # Rows at different heights: a threshold taken from another row keeps the wrong tokens.
    logits = torch.stack([torch.randperm(V) * 0.5 + height for height in (0.25, 2.25, 4.25, -1.75)])
    for k in (3, 1, 5):  # none of them is the number of rows: a topk along the batch must show
        out = filtered(learner, logits, k, "the k highest values" if k > 1 else "the highest value")
        judge_top_k(logits, k, out)
    for k in (V, V + 1, 10 * V):
        size = "all the" if k == V else "more than the"
        with blame(f"It crashes for k = {k}, {size} {V} tokens there are; then nothing is to be removed"):
            out = filtered(learner, logits, k)
        if not torch.equal(out, logits):
            raise Wrong(f"With k = {k} and V = {V} nothing should be removed or changed.")
    with blame("It works for several rows and fails for one"):
        if not torch.equal(kept(filtered(learner, logits[:1], 3)), kept(top_k(logits[:1], 3))):
            raise Wrong("It works for several rows, but for a single one, shape (1, V), it keeps the wrong tokens.")


def judge_top_k(logits: Tensor, k: int, out: Tensor) -> None:
    wanted = top_k(logits, k)
    stays, should_stay = kept(out), kept(wanted)
    numbers = stays.sum(-1).tolist()
    if torch.equal(stays, should_stay):
        check_values(logits, out, should_stay)
        return
    check_removed(logits, out, should_stay)
    if torch.equal(stays, kept(smallest(logits, k))):
        raise Wrong(f"It keeps the {k} least likely tokens: topk should look for the largest.")
    if set(numbers) == {k - 1}:
        raise Wrong(f"Each row keeps {k - 1} instead of {k} tokens: the k-th itself stays, so remove what is below it.")
    if set(numbers) == {k + 1}:
        raise Wrong(f"Each row keeps {k + 1} instead of {k} tokens: the limit is one place too low in the order.")
    if torch.equal(stays, logits >= logits[0].topk(k).values[-1]):
        raise Wrong(
            "Row 0 is right, and its limit is used for all rows: each has its own, values[..., -1:] of shape (B, 1)."
        )
    if sum(numbers) == k and len(logits) > 1:
        raise Wrong(f"It keeps {k} tokens in the whole batch, not in each row: topk should run along dim=-1.")
    if torch.equal(stays, logits >= logits.topk(min(k, len(logits)), dim=0).values[-1:]):
        raise Wrong("It keeps the highest rows of each column: topk runs along the batch, and should along dim=-1.")
    if torch.equal(stays, logits >= logits.topk(k).values.amin()):
        raise Wrong("One limit is used for all rows: each has its own, values[..., -1:] of shape (B, 1).")
    row = next(i for i, n in enumerate(numbers) if not torch.equal(stays[i], should_stay[i]))
    if numbers[row] == k:
        raise Wrong(f"Row {row} keeps {k} tokens, but not its highest ones.")
    raise Wrong(f"Row {row} keeps {numbers[row]} tokens instead of {k}.")


def smallest(logits: Tensor, k: int) -> Tensor:
    """The k lowest logits of each row, the others -inf."""
    return logits.masked_fill(logits > logits.topk(k, largest=False).values[..., -1:], -math.inf)


@exercise(
    "day25b",
    title="Top-p for a batch",
    signature="top_p(logits, p)",
    hints=[
        "Sort each row, likeliest first: ordered, order = logits.sort(dim=-1, descending=True). Then "
        "ordered.softmax(dim=-1).cumsum(dim=-1) tells how much probability has been collected.",
        "The token that takes the sum across p still belongs to the nucleus. So ask how much was collected *before* "
        "each token, cumsum minus its own probability, and remove it if that already reaches p.",
        "What you know is in sorted order, and order tells where each token came from: "
        "removed.scatter(-1, order, removed) puts it back, row by row.",
    ],
    solution=top_p,
    right="Each row keeps the smallest set of tokens that reaches p, the crossing one included.",
)
def check_top_p(learner: Filter) -> None:
    # As many rows as tokens, so that an index along the wrong dimension does not simply crash.
    p, sorted_probs = 0.7, torch.tensor([
        [0.40, 0.25, 0.15, 0.10, 0.06, 0.04],
        [0.90, 0.04, 0.03, 0.015, 0.01, 0.005],
        [0.20, 0.19, 0.18, 0.16, 0.15, 0.12],
        [0.50, 0.30, 0.10, 0.05, 0.03, 0.02],
        [0.65, 0.15, 0.08, 0.06, 0.04, 0.02],
        [0.30, 0.25, 0.21, 0.14, 0.06, 0.04],
    ])  # fmt: skip
    order = torch.stack([torch.randperm(6) for _ in range(6)])
    logits = sorted_probs.log().gather(-1, order) + torch.arange(6).sub(2)[:, None]  # a shift changes no probability
    for sure in (logits, logits[:4], logits[1:2]):
        try:
            out = filtered(learner, sure, p, "the nucleus")
        except Wrong:
            raise
        except (RuntimeError, IndexError, ValueError, TypeError) as e:
            if right_row_by_row(learner, sure, p):
                raise Wrong(
                    "It is right for one row of logits, (V,), but crashes on a batch, (B, V): sort, softmax and cumsum "
                    "along dim=-1, and scatter in place of indexing."
                ) from e
            raise
        judge_top_p(learner, sure, p, out)
    for p in (0.01, 0.45, 0.975):  # no row's sum comes so near these that rounding decides
        judge_top_p(learner, logits, p, filtered(learner, logits, p))
    if not torch.equal(kept(filtered(learner, logits, 1.0)), kept(logits)):
        raise Wrong("With p = 1 every token belongs to the nucleus: nothing should be removed.")


def judge_top_p(learner: Filter, logits: Tensor, p: float, out: Tensor) -> None:
    wanted = top_p(logits, p)
    stays, should_stay = kept(out), kept(wanted)
    numbers, right_numbers = stays.sum(-1), should_stay.sum(-1)
    if torch.equal(stays, should_stay):
        check_values(logits, out, should_stay)
        return
    ordered, order = logits.sort(dim=-1, descending=True)
    probs = ordered.softmax(dim=-1)
    removed = probs.cumsum(dim=-1) - probs >= p
    if torch.equal(stays, ~removed):
        raise Wrong(
            "The right number of tokens stays in each row, but always the first ones: they are still in sorted order "
            "and must be put back with scatter."
        )
    if len(logits) == logits.shape[-1]:
        for base in (removed, torch.zeros_like(removed)):
            if torch.equal(stays, ~base.scatter(0, order, removed)):
                raise Wrong(
                    "Decisions about one row end up in other rows: the mask is scattered along dim 0, the batch; "
                    "use scatter along dim=-1."
                )
    if torch.equal(stays, ~removed.gather(-1, order)):
        raise Wrong(
            "Put back the wrong way round: gather reads from the places in order; use scatter, which writes into them."
        )
    if right_row_by_row(learner, logits, p):
        raise Wrong(
            "Each row alone is right, but together they disturb each other: some step runs along the batch instead of "
            "dim=-1."
        )
    check_removed(logits, out, should_stay)
    empty = (numbers == 0).nonzero().flatten().tolist()
    if empty:
        row = empty[0]
        raise Wrong(
            f"Row {row} loses all its tokens: its likeliest alone has probability {probs[row, 0]:.2f}, above p = {p}. "
            "The first token must always stay."
        )
    likeliest, unlikeliest = stays.gather(-1, order[:, :1]), stays.gather(-1, order[:, -1:])
    if (unlikeliest & ~likeliest).any():
        raise Wrong("It drops the likeliest token and keeps the least likely: sort with descending=True.")
    if torch.equal(numbers, (right_numbers - 1).clamp_min(1)):
        raise Wrong("It drops the token that takes the sum across p: that one still belongs to the nucleus.")
    if torch.equal(numbers, (right_numbers + 1).clamp_max(logits.shape[-1])):
        raise Wrong("Each row keeps one token too many: the nucleus ends with the token that takes the sum across p.")
    row = next(i for i in range(len(logits)) if not torch.equal(stays[i], should_stay[i]))
    if numbers[row] == right_numbers[row]:
        raise Wrong(f"Row {row} keeps the right number of tokens, but not the likeliest ones.")
    raise Wrong(
        f"With p = {p}, row {row} keeps {int(numbers[row])} tokens instead of {int(right_numbers[row])}: is the sum "
        "taken over probabilities (softmax first), likeliest first?"
    )


def right_row_by_row(learner: Filter, logits: Tensor, p: float) -> bool:
    """Whether the learner's function is right for each row alone, as (V,) or as (1, V)."""

    def right(row: Tensor) -> bool:
        try:
            return torch.equal(kept(learner(row.clone(), p)), kept(top_p(row, p)))
        except Exception:
            return False

    return all(map(right, logits)) or (len(logits) > 1 and all(map(right, logits.split(1))))


def filtered(learner: Filter, logits: Tensor, limit: float, short: str = "") -> Tensor:
    """What the learner's function returns, if it is a tensor like the logits."""
    out = call(learner, logits=logits, limit=limit)
    if short and isinstance(out, Tensor) and out.ndim == 2 and out.shape[1] < logits.shape[1]:
        raise Wrong(
            f"The result has shape {tuple(out.shape)}: it is only {short}. Keep all V columns, {tuple(logits.shape)}, "
            "with -inf for the removed tokens."
        )
    if isinstance(out, Tensor) and out.dtype == torch.bool:
        raise Wrong("The result is a mask of True and False: return the logits, with -inf where a token is removed.")
    return tensor(out, logits.shape, logits.dtype, "(B, V)")


def kept(out: Tensor) -> Tensor:
    """True for the tokens that can still be drawn; a whole row of -inf keeps none."""
    return out.softmax(dim=-1).nan_to_num() > 0


def check_removed(logits: Tensor, out: Tensor, should_stay: Tensor) -> None:
    """Values that should be gone and are not."""
    if out.isnan().any():
        raise Wrong("The result holds NaN: -inf times 0 gives NaN, so fill with masked_fill or torch.where.")
    if (out >= 0).all() and torch.allclose(out.sum(-1), torch.ones(len(out))):
        raise Wrong("The result is a distribution (it sums to 1): return logits; the softmax comes after the filter.")
    if (out[~should_stay] == 0).all() and (logits[~should_stay] != 0).all():
        raise Wrong(f"{MASKED}, not 0: a logit of 0 is as good as any other, exp(0) is 1.")
    if torch.equal(out, logits):
        raise Wrong("Nothing is removed: the logits come back as they were.")
    if kept(out).all() and torch.equal(out[should_stay], logits[should_stay]):
        raise Wrong(f"{MASKED}: with the number they have now, they can still be drawn.")


def check_values(logits: Tensor, out: Tensor, should_stay: Tensor) -> None:
    """The tokens that stay keep their logits."""
    if not torch.equal(out[should_stay], logits[should_stay]):
        raise Wrong("The right tokens stay, but their logits are changed: return those as they were.")
