"""Sampling: turn a model that scores the next token into text, one token at a time.

The model gives logits; a few filters reshape them (`temperature`, then `top_k`, `top_p`, `min_p`, in this
order), one token is drawn, and the loop goes round. A key–value cache makes a step cost one token instead of
the whole window.

Sources: Holtzman et al. 2020 (top-p and why likely text is dull), Nguyen et al. 2024 (min-p), Wu et al. 2016
(length normalization), Shazeer 2019 (caching keys and values).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .errors import CourseError
from .model import GPT, KVCache
from .tokenizer import Tokenizer

PAST_WINDOW = ("exact", "refill")


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits `(…, V)`: below 1 the likely tokens gain, above 1 the unlikely ones do."""
    return logits / temperature


def apply_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k highest logits of each row `(…, V)` and set the others to -inf; k above V keeps all.

    Tokens that tie with the k-th are kept too.
    """
    if k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k, dim=-1).values[..., -1:], -math.inf)


def apply_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of tokens whose probabilities reach p (the nucleus) in each row `(…, V)`."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probs = ordered.softmax(dim=-1)
    beyond = probs.cumsum(dim=-1) - probs >= p  # the tokens before this one already reach p; never the first
    beyond[..., 0] = False
    return logits.masked_fill(beyond.scatter(-1, order, beyond), -math.inf)


def apply_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as likely as the likeliest one of their row `(…, V)`."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


class Decoder:
    """A model with the text so far: `step` returns the logits of the next token, the cheapest way there is.

    Inside the window it uses a KV cache. Past it every token's position shifts, so stored keys and values
    would be wrong: `past_window="exact"` recomputes the last `block_size` tokens for each token;
    "refill" recomputes only when the cache is full, from its last half, and is an approximation: fast, but
    the model then sees between half a window and a whole one.
    """

    def __init__(self, model: GPT, idx: Tensor, use_cache: bool, past_window: str) -> None:
        self.model, self.idx, self.past_window = model, idx, past_window
        self.cache = KVCache(model, idx.shape[0]) if use_cache else None
        self.seen = 0  # tokens of idx that went through the cache

    def step(self) -> Tensor:
        """Logits `(B, V)` of the token after `self.idx`."""
        window, cache = self.model.config.block_size, self.cache
        if cache is None or (self.idx.shape[1] > window and self.past_window == "exact"):
            return self.model(self.idx[:, -window:])[:, -1]
        unseen = self.idx.shape[1] - self.seen
        if cache.length + unseen > window:  # only with "refill", or with a prompt longer than the window
            cache.length, unseen = 0, min(self.idx.shape[1], max(1, window // 2))
        logits = self.model(self.idx[:, -unseen:], cache)[:, -1]
        self.seen = self.idx.shape[1]
        return logits

    def append(self, token: Tensor) -> None:
        """Add one token `(B, 1)` to every row."""
        self.idx = torch.cat((self.idx, token), dim=1)


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False, above: bool = False) -> None:
    """Raise CourseError unless `value` is a number in [low, high] (or (low, high] if `above`)."""
    kind = int if whole else (int, float)
    inside = isinstance(value, kind) and low <= value <= high and not (above and value == low)
    if not inside or isinstance(value, bool):
        what = "a whole number" if whole else "a number"
        limits = f"{'above' if above else 'of at least'} {low:g}"
        limits += f" and at most {high:g}" if high < math.inf else ""
        raise CourseError(f"{name} must be {what} {limits}, not {value!r}.")


@torch.inference_mode()
def stream(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | torch.Generator | None = None,
    use_cache: bool = True,
    past_window: str = "exact",
) -> Iterator[Tensor]:
    """Yield the next token of every row, `(B, 1)`, `max_new_tokens` times. `generate` explains the arguments."""
    check_number("max_new_tokens", max_new_tokens, 0, math.inf, whole=True)
    check_number("temperature", temperature, 0, 1e6)
    if top_k is not None:
        check_number("top_k", top_k, 1, math.inf, whole=True)
    for name, p in (("top_p", top_p), ("min_p", min_p)):
        if p is not None:
            check_number(name, p, 0, 1, above=True)
    if past_window not in PAST_WINDOW:
        raise CourseError(f"past_window must be one of {', '.join(PAST_WINDOW)}, not {past_window!r}.")
    V, device = model.config.vocab_size, model.lm_head.weight.device
    idx = torch.as_tensor(idx, device=device)
    if idx.ndim != 2 or idx.shape[1] < 1 or idx.is_floating_point():
        raise CourseError(f"The prompt must be whole-number ids of shape (B, T) with T >= 1, not {tuple(idx.shape)}.")
    if idx.numel() and not 0 <= int(idx.min()) <= int(idx.max()) < V:
        wrong = int(idx.max()) if int(idx.max()) >= V else int(idx.min())
        raise CourseError(f"The prompt holds token {wrong}, but the model knows the tokens 0 to {V - 1}.")
    if isinstance(seed, torch.Generator):
        generator = seed
    else:
        generator = torch.Generator(device)
        generator.manual_seed(generator.seed() if seed is None else seed)
    was_training = model.training
    model.eval()  # dropout off
    decoder = Decoder(model, idx, use_cache, past_window)
    try:
        for _ in range(max_new_tokens):
            logits = decoder.step().float()  # (B, V)
            if not torch.isfinite(logits).all():
                raise CourseError("The model returned NaN or infinite logits: its training diverged.")
            if temperature == 0:
                token = logits.argmax(dim=-1, keepdim=True)
            else:
                logits = apply_temperature(logits, temperature)
                if top_k is not None:
                    logits = apply_top_k(logits, top_k)
                if top_p is not None:
                    logits = apply_top_p(logits, top_p)
                if min_p is not None:
                    logits = apply_min_p(logits, min_p)
                token = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
            decoder.append(token)
            yield token
    finally:
        model.train(was_training)


def generate(model: GPT, idx: Tensor, max_new_tokens: int, *, stop: int | None = None, **options: Any) -> Tensor:
    """Continue every row of `idx (B, T)`: returns `(B, T + n)` with n at most `max_new_tokens`.

    `temperature` 0 always takes the likeliest token (greedy); otherwise one is drawn, after `top_k`, `top_p` and
    `min_p` (None: off). The same integer `seed` gives the same text on the same machine and versions; None
    draws a fresh one. A row that has produced the token `stop` repeats it; when all have, the loop ends early.
    `use_cache` and `past_window` ("exact" or "refill", see Decoder) trade speed. The model keeps its mode.
    Raises CourseError for an argument out of range, an unknown token or NaN logits.
    """
    idx = torch.as_tensor(idx, device=model.lm_head.weight.device)
    rows, done = [idx], torch.zeros(len(idx), 1, dtype=torch.bool, device=idx.device)
    for token in stream(model, idx, max_new_tokens, **options):
        if stop is not None:
            token = token.masked_fill(done, stop)
            done = done | (token == stop)
        rows.append(token)
        if stop is not None and done.all():
            break
    return torch.cat(rows, dim=1)


def generate_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "\n",
    max_new_tokens: int = 200,
    *,
    stop: str | None = None,
    **options: Any,
) -> str:
    """The prompt and its continuation as text; ends before the first `stop` in the continuation, if given.

    The options are those of `generate`. An empty prompt is refused: give a line break to start from nothing.
    """
    if not prompt:
        raise CourseError("The prompt is empty: give the model at least one character, for example a line break.")
    ids = tokenizer.encode(prompt)
    new: list[int] = []
    for token in stream(model, torch.tensor([ids]), max_new_tokens, **options):
        new.append(int(token))
        if stop and stop in (text := tokenizer.decode(new)):
            return prompt + text[: text.index(stop)]
    return prompt + tokenizer.decode(new)


@torch.inference_mode()
def beam_search(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    beam_size: int = 4,
    length_penalty: float = 1.0,
    stop: int | None = None,
) -> tuple[Tensor, float]:
    """The likeliest continuation found with `beam_size` candidates: `(1, T + n)` and its log-probability in nats.

    A beam ends at `stop`. Candidates of different length n are compared by log-probability / n ** length_penalty
    (0: no normalization). One beam is greedy decoding. `idx` is `(1, T)`; every step recomputes the window.
    """
    check_number("beam_size", beam_size, 1, math.inf, whole=True)
    check_number("max_new_tokens", max_new_tokens, 1, math.inf, whole=True)
    if idx.ndim != 2 or idx.shape[0] != 1 or idx.shape[1] < 1:
        raise CourseError(f"Beam search continues one prompt of shape (1, T), not {tuple(idx.shape)}.")
    was_training = model.training
    model.eval()
    beams, scores = idx.to(model.lm_head.weight.device), torch.zeros(1, device=model.lm_head.weight.device)
    finished: list[tuple[float, float, Tensor]] = []  # normalized score, log-probability, tokens
    for n in range(1, max_new_tokens + 1):
        logits = model(beams[:, -model.config.block_size :])[:, -1].float()
        totals = scores[:, None] + logits.log_softmax(dim=-1)  # (beams, V)
        V = totals.shape[1]
        # A beam that stops leaves the race, so look at enough candidates to refill every place.
        top = totals.flatten().topk(min(2 * beam_size, totals.numel()))
        parents, tokens = top.indices // V, top.indices % V
        candidates = torch.cat((beams[parents], tokens[:, None]), dim=1)
        ended = (tokens == stop) if stop is not None else torch.zeros_like(tokens, dtype=torch.bool)
        if n == max_new_tokens:
            ended = torch.ones_like(ended)
        for i in ended[:beam_size].nonzero().flatten().tolist():
            score = top.values[i].item()
            finished.append((score / n**length_penalty, score, candidates[i : i + 1]))
        keep = (~ended).nonzero().flatten()[:beam_size]
        beams, scores = candidates[keep], top.values[keep]
        if not len(keep):
            break
    model.train(was_training)
    _, score, best = max(finished, key=lambda item: item[0])
    return best, score
