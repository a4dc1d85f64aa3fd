"""Checkers of day 23, greedy decoding and beam search.

The learner's function writes with small models made here: tables of pairs, whose next token depends on the last one
only, and a memory, whose next token depends on all that it is shown. Each typical mistake is a search of its own
below; what the learner returns is compared with all of them.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from . import Wrong, call, exercise, tensor

V, WINDOW = 6, 5


class Small(nn.Module):
    """Logits `(B, T, V)` from a table of pairs; with `memory`, from the sum of all tokens as well."""

    pairs: Tensor
    far: Tensor

    def __init__(self, seed: int, strength: float = 2.0, memory: bool = False) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.register_buffer("pairs", strength * torch.randn(V, V, generator=g) + 3 * torch.randn(1, generator=g))
        self.register_buffer("far", strength * torch.randn(V, V, generator=g) * memory)
        self.config = SimpleNamespace(block_size=WINDOW, vocab_size=V)

    def forward(self, idx: Tensor) -> Tensor:
        if not isinstance(idx, Tensor) or idx.ndim != 2:
            shape = tuple(idx.shape) if isinstance(idx, Tensor) else type(idx).__name__
            raise Wrong(f"The model was called with {shape}: it wants token ids of shape (B, T).")
        if idx.shape[1] > WINDOW:
            raise Wrong(
                f"The model was shown {idx.shape[1]} tokens, but its window holds {WINDOW}: crop with "
                "idx[:, -block_size:] before each call."
            )
        x = torch.nn.functional.one_hot(idx, V).float()
        age = torch.arange(1, idx.shape[1] + 1).float()[None, :, None]
        return x @ self.pairs + (x * age).cumsum(1) @ self.far / 10


def greedy(model: Any, idx: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The likeliest token, n times: rows `(B, T + n)`, and the log-probability of the new tokens `(B,)`."""
    total = torch.zeros(len(idx))
    for _ in range(n):
        logits = model(idx[:, -model.config.block_size :])[:, -1]
        top = logits.log_softmax(dim=-1).max(dim=-1)
        total = total + top.values
        idx = torch.cat((idx, top.indices[:, None]), dim=1)
    return idx, total


def greedy_wrong(model: Any, idx: Tensor, n: int, flaw: str) -> Tensor:
    """The rows that a flawed greedy loop writes."""
    for _ in range(n):
        seen = idx[:, :WINDOW] if flaw == "first" else idx[:, -WINDOW:]
        seen = idx[:, -1:] if flaw == "last" else seen
        logits = model(seen)
        logits = logits[:, 0] if flaw == "position" else logits[:, -1]
        best = logits.argmin(-1) if flaw == "least" else logits.argmax(-1)
        best = logits[:1].argmax(-1).expand(len(idx)) if flaw == "row" else best
        idx = torch.cat((idx, best[:, None]), dim=1)
    return idx


GREEDY_FLAWS = {
    "least": "It takes the least likely token each time: that is argmin; greedy takes the largest logit.",
    "first": "Past the window the model is shown the first tokens of the text: the last ones, idx[:, -block_size:].",
    "last": "The model is shown the last token only and has forgotten the rest: pass it the whole window.",
    "position": "The next token comes from the logits of the first position: those of the last, [:, -1], bet on it.",
    "row": "Every row goes on with the token of row 0: each row has its own, argmax along dim=-1.",
}


@exercise(
    "day23",
    title="Greedy with its price",
    signature="greedy_scored(model, idx, n)",
    hints=[
        "In each round: crop to the window, call the model, take the logits of the last position, (B, V). "
        "log_softmax(dim=-1) turns them into log-probabilities.",
        "logp.max(dim=-1) has .values, the log-probability of each row's favorite, and .indices, which token it is.",
        "Add the values of each round to a total of shape (B,), and append indices[:, None] with torch.cat(…, dim=1).",
    ],
    solution=greedy,
    right="Each row takes its own favorite, inside the window, and the price is the sum of logarithms.",
)
def check_greedy(learner: Callable[..., Any]) -> None:
    n = 7
    for seed, B, T in ((1, 3, 2), (2, 2, 4), (3, 1, 1)):
        model = Small(seed, memory=True)
        idx = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
        result = call(learner, model=model, idx=idx, n=n)
        rows, total = pair(result, "the rows and their log-probabilities, in this order")
        if isinstance(rows, Tensor) and isinstance(total, Tensor) and rows.is_floating_point() and total.ndim == 2:
            raise Wrong("The two results are the wrong way round: first the rows, then their log-probabilities.")
        right, price = greedy(model, idx, n)
        judge_rows(rows, idx, n, B)
        if not torch.equal(rows, right):
            again, _ = pair(call(learner, model=model, idx=idx, n=n), "")
            if not torch.equal(again, rows):
                raise Wrong("Two calls give two texts: greedy draws nothing, it takes the argmax.")
            for flaw, sentence in GREEDY_FLAWS.items():
                if torch.equal(rows, greedy_wrong(model, idx, n, flaw)):
                    raise Wrong(sentence)
            raise Wrong("The text is not the greedy one: at some step another token than the likeliest was taken.")
        judge_price(model, idx, rows, total, price, n)


def judge_rows(rows: Any, idx: Tensor, n: int, B: int) -> None:
    T = idx.shape[1]
    if isinstance(rows, Tensor) and rows.shape == (B, n):
        raise Wrong("Only the new tokens come back: the rows should begin with the prompt, (B, T + n).")
    if isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) == B and rows.shape[1] != T + n:
        raise Wrong(f"Asked for {n} new tokens, the rows hold {rows.shape[1] - T}: count the rounds of the loop.")
    rows = tensor(rows, (B, T + n), torch.int64, "(B, T + n)")
    if not torch.equal(rows[:, :T], idx):
        raise Wrong("The rows do not begin with the prompt.")


def judge_price(model: Any, idx: Tensor, rows: Tensor, total: Any, price: Tensor, n: int) -> None:
    if isinstance(total, Tensor) and total.shape == (len(idx), 1):
        raise Wrong("The log-probabilities have shape (B, 1): one number a row, (B,); drop the last dimension.")
    if (isinstance(total, float) or (isinstance(total, Tensor) and total.ndim == 0)) and len(idx) > 1:
        raise Wrong("One log-probability for the whole batch: each row has its own, (B,).")
    total = tensor(total, price.shape, torch.float32, "the log-probabilities (B,)")
    T, seen = idx.shape[1], [rows[:, max(0, t - WINDOW) : t] for t in range(1, rows.shape[1])]
    logits = torch.stack([model(x)[:, -1] for x in seen], 1)  # (B, T + n - 1, V)
    taken = rows[:, 1:, None]
    logp = logits.log_softmax(-1).gather(-1, taken)[..., 0]
    raw = logits.gather(-1, taken)[..., 0]
    new = slice(T - 1, None)

    def is_(x: Tensor) -> bool:
        return torch.allclose(total, x, atol=1e-4, rtol=1e-4)

    if is_(price):
        return
    guesses = [
        (price / n, "The price is the mean over the new tokens: add their logarithms, and do not divide."),
        (-price, "The sign is turned: a log-probability is below 0, and more probable texts are nearer to 0."),
        (logp[:, new].exp().sum(1), "The probabilities themselves are added: chances are multiplied, so add logs."),
        (price.exp(), "These are probabilities, a product; return its logarithm, which does not vanish so soon."),
        (raw[:, new].sum(1), "Logits are added as they come: log_softmax first, only then are they log-probabilities."),
        (price / math.log(2), "The price is in bits (log2): it should be in nats, the natural logarithm."),
        (price / math.log(10), "The price is a log10: it should be in nats, the natural logarithm."),
        (logp[:, -1], "Only the last token is counted: add the log-probabilities of all rounds."),
        (logp.sum(1), "The tokens of the prompt are counted too: only the new ones have a price."),
        (price.sum().expand_as(price), "Every row gets the sum over the batch: add along the rounds, not the rows."),
        (logits.log_softmax(0).gather(-1, taken)[:, new, 0].sum(1), "The softmax runs over the batch: it belongs to "
         "dim=-1, the vocabulary."),
    ]  # fmt: skip
    for wrong, sentence in guesses:
        if is_(wrong):
            raise Wrong(sentence)
    raise Wrong("The text is right, but its log-probability is not the sum of the log-probabilities of its new tokens.")


def search(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> tuple[Tensor, float]:
    """Beam search for one prompt `(1, T)`: the best finished text `(1, T + m)` and its log-probability."""
    scores = torch.zeros(1)
    finished: list[tuple[float, float, Tensor]] = []
    for m in range(1, n + 1):
        logp = model(idx[:, -model.config.block_size :])[:, -1].log_softmax(dim=-1)
        totals = (scores[:, None] + logp).flatten()  # (beams * V)
        scores, which = totals.topk(min(k - len(finished), len(totals)))
        idx = torch.cat((idx[which // logp.shape[1]], which[:, None] % logp.shape[1]), dim=1)
        done = (idx[:, -1] == stop) | (m == n)
        for row, score in zip(idx[done], scores[done].tolist(), strict=True):
            finished.append((score / m**alpha, score, row[None]))
        idx, scores = idx[~done], scores[~done]
        if len(idx) == 0:
            break
    _, score, best = max(finished, key=lambda f: f[0])
    return best, score


def search_wrong(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float, flaw: str) -> tuple[Tensor, float]:
    """Beam search with one flaw."""
    T, scores = idx.shape[1], torch.zeros(1)
    finished: list[tuple[float, float, Tensor]] = []
    for m in range(1, n + 1):
        logits = model(idx[:, -WINDOW:])[:, -1]
        logp = logits if flaw == "logits" else logits.log_softmax(-1)
        logp = logp.exp() if flaw == "sums" else logp
        each = logp if flaw == "step" else scores[:, None] + logp
        left = k if flaw == "width" else k - len(finished)
        if flaw == "per beam":
            values, tokens = each.topk(min(left, V), -1)
            parents = torch.arange(len(idx))[:, None].expand_as(tokens).flatten()
            values, tokens = values.flatten(), tokens.flatten()
            if m > 1:  # the beams of the first rounds, up to k
                values, tokens, parents = values[::left][:left], tokens[::left][:left], parents[::left][:left]
        else:
            values, which = each.flatten().topk(min(left, each.numel()), largest=flaw != "least")
            parents, tokens = which // V, which % V
        if flaw == "parents":
            parents = torch.arange(len(tokens)) % len(idx)
        scores = values
        idx = torch.cat((idx[parents], tokens[:, None]), dim=1)
        ends = torch.zeros(len(idx), dtype=torch.bool) if flaw == "no stop" else idx[:, -1] == stop
        done = ends | (m == n)
        if flaw == "early" and ends.any():
            done = torch.ones_like(done)
        for row, score in zip(idx[done], scores[done].tolist(), strict=True):
            if flaw == "forgets" and m < n:
                continue
            if flaw == "open only" and m == n and row[-1] != stop and finished:
                continue
            length = {"whole length": T + m, "one less": max(m - 1, 1)}.get(flaw, m)
            power = {"never": 0.0, "always": 1.0}.get(flaw, alpha)
            norm = score * length**power if flaw == "times" else score / length**power
            finished.append((norm, score, row[None]))
            if flaw == "first":
                return row[None], score
        last, idx, scores = idx[:1], idx[~done], scores[~done]
        if len(idx) == 0:
            break
    pick = min if flaw == "worst" else max
    norm, score, best = pick(finished, key=lambda f: f[0]) if finished else (0.0, 0.0, last)
    return best, norm if flaw == "returns norm" else score


BEAM_FLAWS = {
    "never": "The lengths are not made up for: alpha = 1 gives what alpha = 0 should; divide by length ** alpha.",
    "always": "It always divides by the length: for alpha = 0 the plain log-probability decides.",
    "times": "It multiplies by length ** alpha: divide, so that a long text is judged by its mean.",
    "whole length": "The length counts the prompt too: only the new tokens count, stop included.",
    "one less": "The length misses stop itself: it counts, the text ends with it.",
    "sums": "Probabilities are added along a text: they are multiplied, so add their logarithms (log_softmax).",
    "logits": "Logits are added as they are: log_softmax first, or texts of different rows cannot be compared.",
    "step": "Each round forgets what the beams have cost so far: scores[:, None] + logp, the total decides.",
    "per beam": "Each beam keeps a child of its own: take the k best of all beams together, flatten before topk.",
    "width": "After a beam has finished, k others still go on: with k = 4 and one finished, three continue.",
    "parents": "The new tokens are glued to other beams' texts: candidate i belongs to beam i // V, idx[i // V].",
    "no stop": "It writes on after stop: a beam that has just said it is finished, and leaves the search.",
    "early": "The search ends as soon as one beam ends: put that one aside and let the others go on.",
    "forgets": "The finished beams are forgotten: keep them in a list and let them compete at the end.",
    "open only": "Beams that are still open after n tokens are dropped: they count as finished too.",
    "first": "It returns the first finished beam: compare all finished ones at the end.",
    "worst": "It returns the worst finished text: the one with the highest score wins.",
    "least": "It keeps the least likely candidates: topk should look for the largest totals.",
}


@exercise(
    "day23b",
    title="Beam search with an end",
    signature="search(model, idx, n, k, stop, alpha)",
    hints=[
        "Keep idx (beams, T) and scores (beams,). totals = scores[:, None] + logp is (beams, V); flatten it, and topk "
        "finds the best of all beams together.",
        "Candidate i of the flattened totals is token i % V of beam i // V: idx[which // V] are the texts that go on.",
        "After each round, done = (idx[:, -1] == stop) | (m == n). Move those into a list with their log-probability "
        "and length, go on with idx[~done] and scores[~done], and take topk of k - len(finished) next time.",
        "At the end take the maximum of score / length ** alpha, and return the row and its plain score.",
    ],
    solution=search,
    right="It keeps the k best of all, sets finished beams aside, and compares them by length as asked.",
)
def check_search(learner: Callable[..., Any]) -> None:
    cases = []
    for seed in range(1, 25):
        model = Small(seed, strength=1.2, memory=seed % 2 == 0)
        idx = torch.randint(1, V, (1, 1 + seed % 3), generator=torch.Generator().manual_seed(seed))
        for n, k, alpha in ((6, 1 + seed % 4, 0.0), (6, 2 + seed % 3, 1.0), (7, 3, 0.5), (6, 2, 0.5), (6, 4, 1.0)):
            cases.append((model, idx, n, k, 0, alpha))
    cases.append((Small(1), torch.tensor([[1]]), 2, 50, 0, 0.0))  # more beams than candidates
    results = [outcome(learner, case) for case in cases]
    wanted = [search(*case) for case in cases]
    if all(map(same, results, wanted)):
        return
    if all(torch.equal(a[0], b[0]) for a, b in zip(results, wanted, strict=True)):
        norms = [search_wrong(*case, flaw="returns norm")[1] for case in cases]
        prices = [price for _, price in results]
        if all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(prices, norms, strict=True)):
            raise Wrong("The text is right, but the number is divided by the length: return its plain log-probability.")
        if all(math.isclose(a, -b[1], abs_tol=1e-4) for a, b in zip(prices, wanted, strict=True)):
            raise Wrong("The text is right, but the sign of its log-probability is turned: it lies below 0.")
        if all(math.isclose(a, math.exp(b[1]), abs_tol=1e-4) for a, b in zip(prices, wanted, strict=True)):
            raise Wrong("The text is right, but its number is a probability: return the logarithm.")
        raise Wrong("The text is right, but the number is not its log-probability: is it another beam's?")
    for flaw, sentence in BEAM_FLAWS.items():
        if all(torch.equal(a[0], search_wrong(*case, flaw=flaw)[0]) for a, case in zip(results, cases, strict=True)):
            raise Wrong(sentence)
    if all(torch.equal(a[0], greedy_until(*case)) for a, case in zip(results, cases, strict=True)):
        raise Wrong("Whatever k is, the result is the greedy text: one beam is kept instead of k.")
    judge_one(cases, results, wanted)


def outcome(learner: Callable[..., Any], case: tuple[Any, ...]) -> tuple[Tensor, float]:
    """What the learner's search returns for one case: a row of right shape that begins with the prompt, a number."""
    model, idx, n, k, stop, alpha = case
    T = idx.shape[1]
    row, score = pair(
        call(learner, model=model, idx=idx, n=n, k=k, stop=stop, alpha=alpha), "the text and its log-probability"
    )
    if isinstance(row, Tensor) and row.ndim == 1:
        raise Wrong("The text has shape (T + m,): keep the batch dimension, (1, T + m).")
    if not isinstance(row, Tensor) or row.ndim != 2 or row.dtype != torch.int64:
        raise Wrong("The text should be a tensor of token ids (int64) of shape (1, T + m).")
    if len(row) != 1:
        raise Wrong(f"It returns {len(row)} texts: only the best finished one, (1, T + m).")
    if not torch.equal(row[:, :T], idx):
        raise Wrong("The text does not begin with the prompt.")
    if not T < row.shape[1] <= T + n:
        raise Wrong(f"At most {n} new tokens, and at least one: the text has {row.shape[1] - T}.")
    if isinstance(score, Tensor) and score.numel() == 1:
        score = score.item()
    if isinstance(score, bool) or not isinstance(score, float | int):
        raise Wrong("The log-probability should be one number.")
    return row, float(score)


def same(a: tuple[Tensor, float], b: tuple[Tensor, float]) -> bool:
    return torch.equal(a[0], b[0]) and math.isclose(a[1], b[1], abs_tol=1e-4)


def greedy_until(model: Any, idx: Tensor, n: int, k: int, stop: int, alpha: float) -> Tensor:
    return search(model, idx, n, 1, stop, alpha)[0]


def judge_one(cases: list[Any], results: list[Any], wanted: list[Any]) -> None:
    """No known mistake: say where it goes wrong first."""
    groups = {"with one beam (which is greedy)": lambda c: c[3] == 1, "with alpha = 0": lambda c: c[5] == 0}
    for words, belongs in groups.items():
        for case, a, b in zip(cases, results, wanted, strict=True):
            if belongs(case) and not same(a, b):
                raise Wrong(f"Already {words} another text or number comes out than a search by hand finds.")
    raise Wrong("With alpha = 0 it is right, with other values not: compare log-probability / length ** alpha.")


def pair(result: Any, what: str) -> tuple[Any, Any]:
    if result is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise Wrong(f"Return two things, {what}.")
    return result[0], result[1]
