"""Checkers: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse import checks, progress
from llmcourse.checks import Wrong, blame, call, check, exercise, hint, solution, tensor
from llmcourse.errors import CourseError

INF = float("inf")
Say = Callable[[], str]


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Say:
    return lambda: capsys.readouterr().out


# --- day 9 -----------------------------------------------------------------------------------------------------


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


# --- day 25 ----------------------------------------------------------------------------------------------------


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


# --- all exercises ---------------------------------------------------------------------------------------------

WRONG = [
    (name, mistake, learner, words)
    for name, table in (("day09", WRONG_ATTENTION), ("day25", WRONG_TOP_K), ("day25b", WRONG_TOP_P))
    for mistake, (learner, words) in table.items()
]


@pytest.mark.parametrize(("name", "mistake", "learner", "words"), WRONG, ids=[f"{n}-{m}" for n, m, *_ in WRONG])
def test_each_mistake_is_named(name: str, mistake: str, learner: Any, words: str, said: Say) -> None:
    assert not check(name, learner), f"{mistake} was accepted"
    text = said()
    assert words in text
    assert text.startswith(f"{name}: not yet. ") and text.endswith(f'  hint("{name}") has a hint.\n')
    assert text.count("\n") == 1 and "tensor(" not in text and "raises" not in text
    others = {w for n, _, _, w in WRONG if n == name and w != words}
    assert not [w for w in others if w in text], "another mistake's words are in it too"


@pytest.mark.parametrize("name", ["day09", "day25", "day25b"])
def test_different_mistakes_get_different_sentences(name: str, said: Say) -> None:
    by_words: dict[str, str] = {}
    for other, _, learner, words in WRONG:
        if other == name:
            check(name, learner)
            by_words[words] = said()
    assert len(set(by_words.values())) == len(by_words) >= 14


@pytest.mark.parametrize("name", checks.names())
def test_every_exercise_is_complete(name: str, said: Say) -> None:
    asked = checks.find(name)
    assert len(asked.hints) >= 2 and asked.title and "(" in asked.signature
    module = asked.checker.__module__.rpartition(".")[2]
    day = re.fullmatch(r"day(\d\d)[a-z]?", name)
    assert module == (f"week{(int(day[1]) + 6) // 7}" if day else "start"), f"{name} stands in {module}.py"
    solution(name)
    assert said().startswith(("def ", "class ")) or isinstance(asked.solution, str)
    if not isinstance(asked.solution, str):
        assert check(name, asked.solution), said()


# --- what learners hand in -------------------------------------------------------------------------------------


@pytest.fixture
def double() -> Iterator[str]:
    """A small exercise of its own: double(x) for x of shape (3,)."""

    def reference(x: Tensor) -> Tensor:
        return 2 * x

    @exercise(
        "demo1", title="Doubling", signature="double(x)", solution=reference, seconds=1.0,
        hints=["Twice x.", "x + x."],
    )  # fmt: skip
    def check_double(double: Any) -> None:
        x = torch.randn(3)
        if not torch.equal(tensor(call(double, x=x), (3,), meaning="(N,)"), 2 * x):
            raise Wrong("That is not twice x.")
        with blame("It fails for an empty x"):
            call(double, x=torch.empty(0))

    yield "demo1"
    del checks.EXERCISES["demo1"]
    checks._hints_given.pop("demo1", None)


def stub(x: Tensor) -> Tensor:
    raise NotImplementedError


def returns_nothing(x: Tensor) -> None:
    2 * x


def raises(x: Tensor) -> Tensor:
    return x @ torch.ones(7)  # the wrong size


def raises_many_lines(x: Tensor) -> Tensor:
    raise KeyError("first\nsecond" * 500)


def changes_input(x: Tensor) -> Tensor:
    x *= 2
    return x


def resizes_input(x: Tensor) -> Tensor:
    y = 2 * x
    x.resize_(1)
    return y


def leaves(x: Tensor) -> Tensor:
    raise SystemExit(3)


def recurses(x: Tensor) -> Tensor:
    return recurses(x)


def fails_on_empty(x: Tensor) -> Tensor:
    return 2 * x + 0 * x.max()


class Doubler:
    def __init__(self, x: Tensor | None = None) -> None:
        self.x = x

    def __call__(self, x: Tensor) -> Tensor:
        return x + x


STRANGE: dict[str, tuple[Any, str]] = {
    "stub": (stub, "stub still raises NotImplementedError: replace that line with your code, in line "),
    "nothing": (returns_nothing, "returned None: is there a return line"),
    "error": (raises, "Your code raises RuntimeError: "),
    "error's line": (raises, "return x @ torch.ones(7)  # the wrong size"),
    "long error": (raises_many_lines, "raises KeyError: 'first"),
    "tuple": (lambda x: (x, x), "of type tuple: return one torch.Tensor"),
    "array": (lambda x: x.numpy() * 2, "of type ndarray"),
    "shape": (lambda x: x[:2], "The result has shape (2,), but should have (N,) = (3,)."),
    "dtype": (lambda x: (2 * x).double(), "has dtype float64, but should have float32"),
    "too many arguments": (lambda x, y: x, "called as double(x), but your arguments are (x, y)"),
    "no argument": (lambda: 1, "but your arguments are ()"),
    "keyword only": (lambda *, x: x, "but your arguments are (*, x)"),
    "result instead of function": (torch.ones(3), "the function itself, not its result or its name (Tensor)"),
    "name instead of function": ("double", 'check("demo1", double), no brackets after it'),
    "class": (Doubler, "Doubler is a class: hand in a function or an object of the class"),
    "mutation": (changes_input, "changes its input x"),
    "resized": (resizes_input, "changes its input x"),
    "exit": (leaves, "Your code raises SystemExit: 3"),
    "recursion": (recurses, "RecursionError"),
    "blamed": (fails_on_empty, "It fails for an empty x ("),
    "blamed line": (fails_on_empty, "return 2 * x + 0 * x.max()"),
    "generator": ((lambda x: (y for y in x)), "of type generator"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_whatever_is_handed_in_gets_one_sentence(case: str, double: str, said: Say, own_progress: Path) -> None:
    answer, words = STRANGE[case]
    assert check(double, answer) is False
    text = said()
    assert words in text
    assert text.count("\n") == 1 and len(text) < 500
    assert not own_progress.exists()


@pytest.mark.parametrize("answer", [lambda x: 2 * x, Doubler(), functools.partial(torch.mul, 2), lambda *a: a[0] * 2])
def test_any_callable_will_do(answer: Any, double: str, said: Say) -> None:
    assert check(double, answer) is True
    assert said() == "demo1: right. Doubling: done.\n"


def test_the_line_of_an_error_is_the_learners(double: str, said: Say) -> None:
    check(double, raises)
    line = inspect.getsourcelines(raises)[1] + 1
    assert f", in line {line}: `return x @" in said()


def test_a_cell_that_no_file_holds_still_has_a_line_number(double: str, said: Say) -> None:
    cell: dict[str, Any] = {}
    exec(compile("def f(x):\n    return x.no_such_thing", "<ipython-input-3>", "exec"), cell)
    assert not check(double, cell["f"])
    assert "no_such_thing', in line 2" in said()


def loops(x: Tensor) -> Tensor:
    while True:
        pass


def loops_and_catches(x: Tensor) -> Tensor:
    while not FREE.is_set():
        try:
            time.sleep(0.01)
        except BaseException:
            continue
    return x


FREE = threading.Event()


def test_an_endless_loop_ends_and_leaves_no_thread(double: str, said: Say) -> None:
    start = time.monotonic()
    assert not check(double, loops)
    assert time.monotonic() - start < 10
    assert "still ran after 1 seconds: is there a loop that never ends?  hint" in said()
    assert not [t for t in threading.enumerate() if t.name == "check demo1"]


def test_a_loop_that_cannot_be_stopped_is_left_behind(double: str, said: Say) -> None:
    try:
        assert not check(double, loops_and_catches)
        assert "restart the kernel" in said()
    finally:
        FREE.set()


def test_prints_are_collected_and_limited(double: str, said: Say) -> None:
    def chatty(x: Tensor) -> Tensor:
        print("shape", tuple(x.shape))
        return 2 * x

    def flood(x: Tensor) -> Tensor:
        for _ in range(1000):
            print("again and again")
        return x

    assert check(double, chatty)
    assert said() == "demo1: right. Doubling: done.\nYour code printed:\n  | shape (3,)\n  | shape (0,)\n"
    assert not check(double, flood)
    text = said()
    assert len(text) < 1500 and text.endswith("  | … and 15,000 more characters\n")


@pytest.mark.parametrize("asks", [2 * torch.ones(1), "a string", None])
def test_an_exercise_may_ask_for_a_value(asks: Any, said: Say) -> None:
    @exercise("demo2", title="A value", signature="answer", hints=[], solution="two", wants="value")
    def check_value(value: Any) -> None:
        if value is not asks:
            raise Wrong("Another value.")

    try:
        assert check("demo2", asks)
        assert not check("demo2", 3)
        solution("demo2")
        hint("demo2")
        assert said().splitlines()[1:] == ["demo2: not yet. Another value.", "two", "demo2 has no hints."]
    finally:
        del checks.EXERCISES["demo2"]


def test_an_exercise_may_ask_for_a_class(said: Say) -> None:
    @exercise("demo3", title="A class", signature="Doubler(x)", hints=[], solution=Doubler, wants="class")
    def check_class(cls: Any) -> None:
        assert cls(1)(2) == 4

    try:
        assert check("demo3", Doubler)
        assert not check("demo3", Doubler())
        assert 'the class itself, not an object of type Doubler: check("demo3", Doubler)' in said()
        assert not check("demo3", type("Other", (), {"__init__": lambda self: None}))
        assert "called as Doubler(x), but your arguments are ()" in said()
    finally:
        del checks.EXERCISES["demo3"]


def test_two_exercises_cannot_share_a_name(double: str) -> None:
    with pytest.raises(ValueError, match="Two exercises are called 'demo1'"):
        exercise("demo1", title="Other", signature="f(x)", hints=[], solution="")(lambda answer: None)


# --- the caller's world ----------------------------------------------------------------------------------------


def test_random_states_and_settings_stay_as_they_were(double: str) -> None:
    def meddles(x: Tensor) -> Tensor:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        return 2 * x

    def state() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),
                torch.get_default_dtype(), torch.is_grad_enabled()]  # fmt: skip

    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            before = state()
            assert check(double, meddles)
            assert check("day09", by_loops)
            assert not check(double, raises)
            assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_verdict_does_not_depend_on_the_callers_seed(said: Say) -> None:
    texts = set()
    for seed in range(5):
        torch.manual_seed(seed)
        check("day09", WRONG_ATTENTION["no mask"][0])
        check("day25", WRONG_TOP_K["last row's limit"][0])
        texts.add(said())
    assert len(texts) == 1


def test_a_check_works_in_another_thread_too(double: str) -> None:
    verdicts: list[bool] = []
    thread = threading.Thread(target=lambda: verdicts.extend([check(double, loops), check(double, Doubler())]))
    thread.start()
    thread.join()
    assert verdicts == [False, True]


# --- names, hints, solutions, progress -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "near"), [("day9", "day09"), ("Day 25b", "day25b"), ("day52", "day25")])
def test_an_unknown_exercise_names_its_neighbors(name: str, near: str) -> None:
    for ask in (functools.partial(check, name, len), functools.partial(hint, name), functools.partial(solution, name)):
        with pytest.raises(CourseError, match=f"There is no exercise {name!r}: did you mean .*{near}"):
            ask()


def test_a_name_like_nothing_lists_what_there_is() -> None:
    with pytest.raises(CourseError, match=r"there are .*day09, day25, day25b"):
        check("zzz", len)


def test_swapped_arguments_are_told() -> None:
    with pytest.raises(CourseError, match="comes first, in quotes"):
        check(by_sdpa, "day09")  # type: ignore[arg-type]


def test_hints_come_one_by_one_and_the_last_stays(double: str, said: Say) -> None:
    for _ in range(3):
        hint(double)
    first, second, third = said().splitlines()
    assert first == 'Hint 1 of 2: Twice x.  hint("demo1") has another.'
    assert second == third == 'Hint 2 of 2: x + x.  The last one; solution("demo1") shows a solution.'
    hint(double, 1)
    assert said().strip() == first


@pytest.mark.parametrize("n", [0, 3, -1, True, 1.0, "1"])
def test_a_hint_that_is_not_there(n: Any, double: str) -> None:
    with pytest.raises(CourseError, match="demo1 has the hints 1 to 2"):
        hint(double, n)


def test_only_a_right_answer_is_recorded(double: str) -> None:
    check(double, raises)
    assert progress.done() == {}
    check(double, Doubler())
    assert list(progress.done()) == ["demo1"]


def test_a_check_passes_where_progress_cannot_be_written(
    double: str, said: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "file" / "below.json"))
    assert check(double, Doubler())
    assert "(It could not be noted in your progress: WriteError: Cannot write" in said()


def test_a_week_is_loaded_only_when_asked_for(root: Path) -> None:
    code = (
        "import sys, llmcourse.checks as c; before = 'llmcourse.checks.week2' in sys.modules; c.find('day09'); "
        "print(before, 'llmcourse.checks.week2' in sys.modules, 'llmcourse.checks.week4' in sys.modules)"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=dict(os.environ), check=True
    )
    assert done.stdout.split() == ["False", "True", "False"]


def test_print_is_the_real_one_afterwards(double: str, said: Say) -> None:
    check(double, Doubler())
    said()
    builtins.print("here")
    assert said() == "here\n"
