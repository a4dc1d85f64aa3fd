"""Day 23: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks import day23 as solutions

Say = Callable[[], str]


def crop(model: Any, idx: Tensor) -> Tensor:
    return idx[:, -model.config.block_size :]


def greedy_by_list(model: Any, idx: Tensor, n: int) -> Any:
    rows, totals = [], []
    for row in idx.tolist():
        total = 0.0
        for _ in range(n):
            p = model(torch.tensor([row[-model.config.block_size :]]))[0, -1].softmax(-1)
            token = int(p.argmax())
            total += math.log(p[token])
            row = [*row, token]
        rows.append(row)
        totals.append(total)
    return torch.tensor(rows), torch.tensor(totals)


def greedy_by_gather(model: Any, idx: Tensor, n: int) -> Any:
    prices = []
    for _ in range(n):
        logp = torch.log_softmax(model(crop(model, idx))[:, -1, :], dim=-1)
        best = torch.argmax(logp, dim=-1, keepdim=True)
        prices.append(logp.gather(1, best))
        idx = torch.cat([idx, best], dim=1)
    return [idx, torch.cat(prices, dim=1).sum(dim=1)]


@pytest.mark.parametrize("learner", [solutions.greedy, greedy_by_list, greedy_by_gather])
def test_greedy_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day23", learner), said()
    assert said().startswith("day23: right. ")


def greedy_variant(
    *,
    seen: Callable[[Any, Tensor], Tensor] = crop,
    pick: Callable[[Tensor], Tensor] = lambda z: z[:, -1].argmax(-1),
    price: Callable[[Tensor, Tensor], Tensor] = lambda z, t: z[:, -1].log_softmax(-1).gather(1, t[:, None])[:, 0],
    rounds: int = 0,
    finish: Callable[[Tensor, Tensor, int, int], Any] = lambda rows, total, T, n: (rows, total),
) -> Callable[[Any, Tensor, int], Any]:
    def greedy(model: Any, idx: Tensor, n: int) -> Any:
        T, total = idx.shape[1], torch.zeros(len(idx))
        for _ in range(n + rounds):
            logits = model(seen(model, idx))
            token = pick(logits)
            total = total + price(logits, token)
            idx = torch.cat((idx, token[:, None]), dim=1)
        return finish(idx, total, T, n)

    return greedy


def drawn(logits: Tensor) -> Tensor:
    return torch.multinomial(logits[:, -1].softmax(-1), 1)[:, 0]


def last_only(model: Any, idx: Tensor, n: int) -> Any:
    total = torch.zeros(len(idx))
    for _ in range(n):
        top = model(crop(model, idx))[:, -1].log_softmax(-1).max(-1)
        total = top.values
        idx = torch.cat((idx, top.indices[:, None]), 1)
    return idx, total


def in_place(model: Any, idx: Tensor, n: int) -> Any:
    idx[:, -1] = 0
    return solutions.greedy(model, idx, n)


WRONG_GREEDY: dict[str, tuple[Callable[..., Any], str]] = {
    "no crop": (greedy_variant(seen=lambda m, x: x), "crop with"),
    "first tokens": (greedy_variant(seen=lambda m, x: x[:, : m.config.block_size]), "shown the first tokens"),
    "last token only": (greedy_variant(seen=lambda m, x: x[:, -1:]), "shown the last token only"),
    "argmin": (greedy_variant(pick=lambda z: z[:, -1].argmin(-1)), "the least likely token"),
    "first position": (greedy_variant(pick=lambda z: z[:, 0].argmax(-1)), "logits of the first position"),
    "row 0 for all": (greedy_variant(pick=lambda z: z[0, -1].argmax().repeat(len(z))), "the token of row 0"),
    "drawn": (greedy_variant(pick=drawn), "Two calls give two texts"),
    "mean": (greedy_variant(finish=lambda r, t, T, n: (r, t / n)), "the mean over the new tokens"),
    "sign": (greedy_variant(finish=lambda r, t, T, n: (r, -t)), "The sign is turned: a"),
    "product": (greedy_variant(finish=lambda r, t, T, n: (r, t.exp())), "a product; return its logarithm"),
    "sum of chances": (
        greedy_variant(price=lambda z, t: z[:, -1].softmax(-1).amax(-1)), "chances are multiplied, so add logs",
    ),
    "logits": (greedy_variant(price=lambda z, t: z[:, -1].amax(-1)), "Logits are added as they come"),
    "bits": (greedy_variant(finish=lambda r, t, T, n: (r, t / math.log(2))), "in bits"),
    "log10": (greedy_variant(finish=lambda r, t, T, n: (r, t / math.log(10))), "a log10"),
    "swapped": (greedy_variant(finish=lambda r, t, T, n: (t, r)), "the wrong way round"),
    "last only": (last_only, "Only the last token is counted"),
    "batch summed": (greedy_variant(finish=lambda r, t, T, n: (r, t.sum().repeat(len(t)))), "the sum over the batch"),
    "one number": (greedy_variant(finish=lambda r, t, T, n: (r, t.sum())), "One log-probability for the whole batch"),
    "column": (greedy_variant(finish=lambda r, t, T, n: (r, t[:, None])), "drop the last dimension"),
    "new only": (greedy_variant(finish=lambda r, t, T, n: (r[:, T:], t)), "Only the new tokens come back"),
    "one too many": (greedy_variant(rounds=1), "count the rounds"),
    "rows only": (greedy_variant(finish=lambda r, t, T, n: r), "Return two things"),
    "nothing": (greedy_variant(finish=lambda r, t, T, n: None), "returned None"),
    "in place": (in_place, "changes its input idx"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_GREEDY)
def test_greedy_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day23", WRONG_GREEDY, mistake)


def test_greedy_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day23", WRONG_GREEDY, least=18)


def search_by_list(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    start, live, finished = idx[0].tolist(), [(0.0, [])], []
    for m in range(1, n + 1):
        candidates = []
        for score, new in live:
            row = (start + new)[-model.config.block_size :]
            logp = model(torch.tensor([row]))[0, -1].log_softmax(-1).tolist()
            candidates += [(score + p, [*new, token]) for token, p in enumerate(logp)]
        best = heapq.nlargest(k - len(finished), candidates)
        live = [c for c in best if c[1][-1] != stop and m < n]
        finished += [c for c in best if c not in live]
        if not live:
            break
    score, new = max(finished, key=lambda c: c[0] / len(c[1]) ** alpha)
    return torch.tensor([start + new]), score


def search_as_tensor(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    row, score = solutions.search(model, idx, n, k, stop, alpha)
    return row, torch.tensor(score)


@pytest.mark.parametrize("learner", [solutions.search, search_by_list, search_as_tensor])
def test_search_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day23b", learner), said()
    assert said().startswith("day23b: right. ")


def beam_variant(
    *,
    seen: Callable[[Any, Tensor], Tensor] = crop,
    logp_of: Callable[[Tensor], Tensor] = lambda z: z.log_softmax(-1),
    totals_of: Callable[[Tensor, Tensor], Tensor] = lambda s, p: s[:, None] + p,
    left: Callable[[int, int], int] = lambda k, ended: k - ended,
    largest: bool = True,
    parent: Callable[[Tensor, int, int], Tensor] = lambda which, V, beams: which // V,
    ends: Callable[[Tensor, int], Tensor] = lambda row, stop: row[:, -1] == stop,
    keep: Callable[[bool, bool], bool] = lambda ended, late: True,
    norm: Callable[[float, int, int, float], float] = lambda s, T, m, alpha: s / m**alpha,
    choose: Callable[..., Any] = max,
    finish: Callable[[float, float, Tensor, int], Any] = lambda norm, s, row, m: (row, s),
) -> Callable[..., Any]:
    """Right unless an argument says otherwise."""

    def search(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
        T, scores, finished = idx.shape[1], torch.zeros(1), []
        for m in range(1, n + 1):
            logp = logp_of(model(seen(model, idx))[:, -1])
            totals = totals_of(scores, logp).flatten()
            scores, which = totals.topk(min(left(k, len(finished)), len(totals)), largest=largest)
            at = parent(which, logp.shape[1], len(idx))
            idx = torch.cat((idx[at], which[:, None] % logp.shape[1]), 1)
            over = ends(idx, stop)
            for row, s, ended in zip(idx, scores.tolist(), over.tolist(), strict=True):
                if (ended or m == n) and keep(ended, m == n):
                    finished.append((norm(s, T, m, alpha), s, row[None], m))
            if over.all():
                break
            idx, scores = idx[~over], scores[~over]
        if not finished:
            return idx[:1], scores[0].item()
        return finish(*choose(finished, key=lambda f: f[0]))

    return search


def per_beam(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    """The first step gives k beams, and from then on each of them goes on alone, greedily."""
    logp = model(crop(model, idx))[0, -1].log_softmax(-1)
    first = logp.topk(min(k, len(logp)))
    finished = []
    for s, token in zip(first.values.tolist(), first.indices, strict=True):
        row, m = torch.cat((idx, token.view(1, 1)), 1), 1
        while m < n and row[0, -1] != stop:
            top = model(crop(model, row))[0, -1].log_softmax(-1).max(-1)
            row, s, m = torch.cat((row, top.indices.view(1, 1)), 1), s + top.values.item(), m + 1
        finished.append((s / m**alpha, s, row))
    _, s, row = max(finished, key=lambda f: f[0])
    return row, s


def first_finished(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    return solutions.search_wrong(model, idx, n, k, stop, alpha, "first")


def only_greedy(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    return solutions.search(model, idx, n, 1, stop, alpha)


def search_in_place(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    idx += 0
    idx[0, 0] = (idx[0, 0] + 1) % 6
    return solutions.search(model, idx, n, k, stop, alpha)


def of_another(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Any:
    row, _ = solutions.search(model, idx, n, k, stop, alpha)
    return row, solutions.search(model, idx, n, 1, stop, alpha)[1] - 1


def none_ends(row: Tensor, stop: int) -> Tensor:
    return torch.zeros(len(row), dtype=torch.bool)


WRONG_SEARCH: dict[str, tuple[Callable[..., Any], str]] = {
    "no crop": (beam_variant(seen=lambda m, x: x), "crop with"),
    "no normalization": (beam_variant(norm=lambda s, T, m, a: s), "The lengths are not made up for"),
    "always normalized": (beam_variant(norm=lambda s, T, m, a: s / m), "It always divides by the length"),
    "multiplied": (beam_variant(norm=lambda s, T, m, a: s * m**a), "It multiplies by length"),
    "prompt in the length": (beam_variant(norm=lambda s, T, m, a: s / (T + m) ** a), "The length counts the prompt"),
    "stop not in the length": (beam_variant(norm=lambda s, T, m, a: s / max(m - 1, 1) ** a), "The length misses stop"),
    "sums probabilities": (beam_variant(logp_of=lambda z: z.softmax(-1)), "Probabilities are added along a text"),
    "sums logits": (beam_variant(logp_of=lambda z: z), "Logits are added as they are"),
    "forgets the past": (beam_variant(totals_of=lambda s, p: p), "Each round forgets"),
    "k per beam": (per_beam, "Each beam keeps a child of its own"),
    "k go on": (beam_variant(left=lambda k, ended: k), "k others still go on"),
    "wrong parents": (beam_variant(parent=lambda w, V, b: torch.arange(len(w)) % b), "glued to other beams' texts"),
    "expands finished": (beam_variant(ends=none_ends), "It writes on after stop"),
    "forgets finished": (beam_variant(keep=lambda ended, late: late), "The finished beams are forgotten"),
    "first finished": (first_finished, "It returns the first finished beam"),
    "worst": (beam_variant(choose=min), "It returns the worst finished text"),
    "ascending": (beam_variant(largest=False), "It keeps the least likely candidates"),
    "greedy": (only_greedy, "one beam is kept instead of k"),
    "returns the mean": (beam_variant(finish=lambda f, s, row, m: (row, f)), "the number is divided by the length"),
    "sign": (beam_variant(finish=lambda f, s, row, m: (row, -s)), "the sign of its log-probability"),
    "probability": (beam_variant(finish=lambda f, s, row, m: (row, math.exp(s))), "its number is a probability"),
    "score of another": (of_another, "is it another beam's?"),
    "flat": (beam_variant(finish=lambda f, s, row, m: (row[0], s)), "keep the batch dimension"),
    "text only": (beam_variant(finish=lambda f, s, row, m: row), "Return two things"),
    "in place": (search_in_place, "changes its input idx"),
}


@pytest.mark.parametrize("mistake", WRONG_SEARCH)
def test_search_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day23b", WRONG_SEARCH, mistake)


def test_search_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day23b", WRONG_SEARCH, least=20)


@pytest.mark.parametrize("flaw", solutions.BEAM_FLAWS)
def test_every_flaw_is_told_from_the_right_search(flaw: str) -> None:
    models = [solutions.Small(seed, strength=1.2, memory=seed % 2 == 0) for seed in range(1, 25)]
    cases = [(m, torch.tensor([[1]]), 6, k, 0, alpha) for m in models for k in (2, 4) for alpha in (0.0, 0.5, 1.0)]
    assert any(
        not torch.equal(solutions.search(*case)[0], solutions.search_wrong(*case, flaw=flaw)[0]) for case in cases
    )
