"""Day 25: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

INF = float("inf")
Say = Callable[[], str]


def k_by_scatter(logits: Tensor, k: int) -> Tensor:
    values, indices = torch.topk(logits, min(k, logits.size(-1)))
    return torch.full_like(logits, -INF).scatter_(-1, indices, values)


def k_by_where(logits: Tensor, k: int) -> Tensor:
    limit = logits.sort(dim=1, descending=True).values[:, min(k, logits.shape[1]) - 1].unsqueeze(1)
    return torch.where(logits >= limit, logits, torch.finfo(logits.dtype).min)


def k_by_loop(logits: Tensor, k: int) -> Tensor:
    rows = []
    for row in logits.tolist():
        keep = sorted(range(len(row)), key=lambda i: -row[i])[:k]
        rows.append([x if i in keep else -INF for i, x in enumerate(row)])
    return torch.tensor(rows)


def k_by_clone(logits: Tensor, k: int) -> Tensor:
    logits = logits.clone()
    logits[logits < logits.topk(min(k, logits.shape[1])).values[:, [-1]]] = -1e10
    return logits


def limit_of(logits: Tensor, k: int) -> Tensor:
    return logits.sort(descending=True).values[:, min(max(k, 1), logits.shape[1]) - 1, None]


def k_mutates(logits: Tensor, k: int) -> Tensor:
    logits[logits < limit_of(logits, k)] = -INF
    return logits


def k_shrunk(logits: Tensor, k: int) -> Tensor:
    return logits.topk(min(k, logits.shape[1])).values


def k_of_the_batch(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < logits.flatten().topk(min(k, logits.numel())).values[-1], -INF)


def k_masks(logits: Tensor, k: int) -> Tensor:
    return logits >= limit_of(logits, k)


def k_times(logits: Tensor, k: int) -> Tensor:
    stays = logits >= limit_of(logits, k)
    return stays * logits + ~stays * -INF


WRONG_TOP_K: dict[str, tuple[Callable[..., Any], str]] = {
    "mutates": (k_mutates, "changes its input logits"),
    "crashes above V": (
        lambda x, k: x.masked_fill(x < x.topk(k).values[:, -1:], -INF), "k = 9, more than the 8 tokens"),
    "crashes at V": (
        lambda x, k: x.masked_fill(x <= x.sort(descending=True).values[:, k, None], -INF), "k = 8, all the 8 tokens"),
    "one too few": (lambda x, k: x.masked_fill(x <= limit_of(x, k), -INF), "the k-th itself stays"),
    "one too many": (lambda x, k: x.masked_fill(x < limit_of(x, k + 1), -INF), "the limit is one place too low"),
    "topk along the batch": (
        lambda x, k: x.masked_fill(x < x.topk(min(k, len(x)), dim=0).values[-1:], -INF), "highest rows of each column"),
    "first row's limit": (lambda x, k: x.masked_fill(x < limit_of(x, k)[0], -INF), "its limit is used for all rows"),
    "last row's limit": (lambda x, k: x.masked_fill(x < limit_of(x, k)[-1], -INF), "One limit is used for all"),
    "limit of the batch": (k_of_the_batch, "in the whole batch"),
    "zeros": (lambda x, k: x.masked_fill(x < limit_of(x, k), 0.0), "-inf, not 0"),
    "weak filler": (lambda x, k: x.masked_fill(x < limit_of(x, k), -20.0), "can still be drawn"),
    "probabilities": (lambda x, k: k_by_scatter(x, k).softmax(-1), "is a distribution"),
    "log-probabilities": (lambda x, k: k_by_scatter(x, k).log_softmax(-1), "their logits are changed"),
    "smallest": (lambda x, k: x.masked_fill(x > limit_of(x, x.shape[1] - k + 1), -INF), "least likely tokens"),
    "only the values": (k_shrunk, "it is only the k highest values"),
    "mask": (k_masks, "a mask of True and False"),
    "nothing": (lambda x, k: x, "Nothing is removed"),
    "0 times -inf": (k_times, "holds NaN"),
    "first k": (lambda x, k: x.masked_fill(torch.arange(x.shape[1]) >= k, -INF), "not its highest ones"),
}  # fmt: skip


def p_by_shift(logits: Tensor, p: float) -> Tensor:
    ordered, order = torch.sort(logits, descending=True)
    remove = ordered.softmax(-1).cumsum(-1) > p
    remove[..., 1:] = remove[..., :-1].clone()
    remove[..., 0] = False
    return logits.masked_fill(remove.scatter(1, order, remove), -INF)


def p_ascending(logits: Tensor, p: float) -> Tensor:
    ordered, order = torch.sort(logits, descending=False)
    remove = ordered.softmax(-1).cumsum(-1) <= 1 - p
    remove[..., -1:] = False
    return logits.masked_fill(torch.zeros_like(remove).scatter(1, order, remove), -1e9)


def p_by_loop(logits: Tensor, p: float) -> Tensor:
    out = torch.full_like(logits, -INF)
    for b in range(len(logits)):
        probs, total = logits[b].softmax(0), 0.0
        for i in probs.argsort(descending=True).tolist():
            out[b, i] = logits[b, i]
            total += probs[i].item()
            if total >= p:
                break
    return out


def p_unsorted(logits: Tensor, p: float) -> Tensor:
    ordered, order = torch.sort(logits, descending=True)
    probs = ordered.softmax(-1)
    return ordered.masked_fill(probs.cumsum(-1) - probs >= p, -INF).gather(-1, order.argsort(-1))


def p_by_threshold(logits: Tensor, p: float) -> Tensor:
    probs = logits.softmax(-1)
    ordered = probs.sort(descending=True).values
    last = (ordered.cumsum(-1) < p).sum(-1, keepdim=True).clamp(max=probs.shape[-1] - 1)
    return torch.where(probs >= ordered.gather(-1, last), logits, float("-inf"))


def broken_top_p(
    *,
    rule: Callable[[Tensor, float], Tensor] = lambda probs, p: probs.cumsum(-1) - probs >= p,
    descending: bool = True,
    back: Callable[[Tensor, Tensor], Tensor] = lambda remove, order: remove.scatter(-1, order, remove),
    finish: Callable[[Tensor, Tensor], Tensor] = lambda logits, remove: logits.masked_fill(remove, -INF),
    dim: int = -1,
) -> Callable[[Tensor, float], Tensor]:
    def top_p(logits: Tensor, p: float) -> Tensor:
        ordered, order = logits.sort(dim=-1, descending=descending)
        return finish(logits, back(rule(ordered.softmax(dim), p), order))

    return top_p


def keep_first(remove: Tensor) -> Tensor:
    remove[..., 0] = False
    return remove


def one_more(probs: Tensor, p: float) -> Tensor:
    remove = probs.cumsum(-1) - probs >= p
    return torch.cat((torch.zeros_like(remove[..., :1]), remove[..., :-1]), -1)


def p_one_row(logits: Tensor, p: float) -> Tensor:
    ordered, order = logits.sort(descending=True)
    n = int((ordered.softmax(-1).cumsum(-1) < p).sum()) + 1
    out = torch.full_like(logits, -INF)
    out[order[:n]] = logits[order[:n]]
    return out


def p_crashes_on_batches(logits: Tensor, p: float) -> Tensor:
    ordered, order = logits.sort(descending=True)
    total, out = 0.0, torch.full_like(logits, -INF)
    for i, probability in zip(order, ordered.softmax(-1), strict=True):
        if total < p:
            out[int(i)] = logits[int(i)]
        total += probability
    return out


def p_mutates(logits: Tensor, p: float) -> Tensor:
    logits.copy_(p_by_shift(logits, p))
    return logits


def p_returns_sorted(logits: Tensor, p: float) -> Tensor:
    ordered = logits.sort(descending=True).values
    probs = ordered.softmax(-1)
    return ordered.masked_fill(probs.cumsum(-1) - probs >= p, -INF)


WRONG_TOP_P: dict[str, tuple[Callable[..., Any], str]] = {
    "scatter along the batch": (broken_top_p(back=lambda r, o: r.scatter(0, o, r)), "scattered along dim 0"),
    "scatter along the batch, into zeros": (
        broken_top_p(back=lambda r, o: torch.zeros_like(r).scatter(0, o, r)), "scattered along dim 0"),
    "put back with gather": (broken_top_p(back=lambda r, o: r.gather(-1, o)), "gather reads"),
    "cumsum along the batch": (broken_top_p(rule=lambda q, p: q.cumsum(0) - q >= p), "disturb each other"),
    "drops everything": (broken_top_p(rule=lambda q, p: q.cumsum(-1) > p), "loses all its tokens"),
    "drops the crossing token": (
        broken_top_p(rule=lambda q, p: keep_first(q.cumsum(-1) > p)), "drops the token that takes the sum across p"),
    "one more": (broken_top_p(rule=one_more), "one token too many"),
    "ascending": (broken_top_p(descending=False), "sort with descending=True"),
    "not mapped back": (broken_top_p(back=lambda r, o: r), "still in sorted order"),
    "returned sorted": (p_returns_sorted, "still in sorted order"),
    "mutates": (p_mutates, "changes its input logits"),
    "one row, crash": (p_crashes_on_batches, "crashes on a batch"),
    "one row, silent": (p_one_row, "disturb each other"),
    "zeros": (broken_top_p(finish=lambda x, r: x.masked_fill(r, 0.0)), "-inf, not 0"),
    "probabilities": (broken_top_p(finish=lambda x, r: x.masked_fill(r, -INF).softmax(-1)), "is a distribution"),
    "changed": (broken_top_p(finish=lambda x, r: x.masked_fill(r, -INF) / 2), "their logits are changed"),
    "no softmax": (lambda x, p: broken_top_p(rule=lambda q, p: q.log().cumsum(-1) >= p)(x, p), "Nothing is removed"),
    "min-p": (
        lambda x, p: x.masked_fill(x.softmax(-1) < (1 - p) * x.softmax(-1).amax(-1, True), -INF), "is the sum taken"),
}  # fmt: skip

RIGHT_FILTERS: list[tuple[str, Any]] = [
    *(("day25", f) for f in (k_by_scatter, k_by_where, k_by_loop, k_by_clone)),
    *(("day25b", f) for f in (p_by_shift, p_ascending, p_by_loop, p_unsorted, p_by_threshold)),
]


@pytest.mark.parametrize(("name", "learner"), RIGHT_FILTERS, ids=lambda x: getattr(x, "__name__", x))
def test_filters_pass_in_any_style(name: str, learner: Any, said: Say) -> None:
    assert check(name, learner), said()


def test_the_package_passes_its_own_exercises(said: Say) -> None:
    from llmcourse.sampler import apply_top_k, apply_top_p

    assert check("day25", apply_top_k) and check("day25b", apply_top_p), said()


@pytest.mark.parametrize("mistake", WRONG_TOP_K)
def test_top_k_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day25", WRONG_TOP_K, mistake)


def test_top_k_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day25", WRONG_TOP_K, least=14)


@pytest.mark.parametrize("mistake", WRONG_TOP_P)
def test_top_p_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day25b", WRONG_TOP_P, mistake)


def test_top_p_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day25b", WRONG_TOP_P, least=14)
