"""Sampling: turn a model that scores the next token into text, one token at a time.

The model gives logits; a few filters reshape them (`temperature`, then `top_k`, `top_p`, `min_p`, in this
order), one token is drawn, and the loop goes round. A key–value cache makes a step cost one token instead of
the whole window.

Sources: Holtzman et al. 2020 (top-p and why likely text is dull), Nguyen et al. 2024 (min-p), Wu et al. 2016
(length normalization), Shazeer 2019 (caching keys and values).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import CourseError, check_number
from .model import GPT, KVCache
from .tokenizer import Tokenizer, utf8

PAST_WINDOW = ("exact", "refill")
WORTH_A_COPY, COPY_LIMIT = 32, 2**28  # tokens to make, and bytes of the model
GREEDY_BELOW = 1e-6  # a temperature at which logits, divided, would lose their meaning or overflow


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
    if p >= 1:  # rounding could otherwise drop the least likely ones
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probs = ordered.softmax(dim=-1)
    beyond = probs.cumsum(dim=-1) - probs >= p  # the tokens before this one already reach p; never the first
    beyond[..., 0] = False
    return logits.masked_fill(beyond.scatter(-1, order, beyond), -math.inf)


def apply_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as likely as the likeliest one of their row `(…, V)`."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


def draw(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token of each row `(B, V)`, each as often as its probability says: `(B, 1)`.

    A race: each token needs a random, exponentially distributed time, divided by its probability; the first one
    home wins. `torch.multinomial` gives the same tokens, with more checks in twice the time.
    """
    time = torch.empty_like(probs).exponential_(generator=generator)
    return (probs / time).argmax(dim=-1, keepdim=True)


class Decoder:
    """A model with the text so far: `step` returns the logits of the next token, the cheapest way there is.

    Inside the window it uses a KV cache. Past it every token's position shifts, so stored keys and values
    would be wrong: `past_window="exact"` recomputes the last `block_size` tokens for each token;
    "refill" recomputes only when the cache is full, from its last half, and is an approximation: fast, but
    the model then sees between half a window and a whole one.
    """

    def __init__(self, model: GPT, idx: Tensor, use_cache: bool = True, past_window: str = "exact") -> None:
        self.model, self.idx, self.exact = model, idx, past_window == "exact"
        self.cache = KVCache(model, len(idx)) if use_cache else None
        self.unseen = idx.shape[1]  # tokens at the end of idx that are not in the cache yet

    def step(self) -> Tensor:
        """Logits `(B, V)` of the token after `self.idx`."""
        T, window, cache = self.idx.shape[1], self.model.config.block_size, self.cache
        if cache is None or (self.exact and window < T):
            x = self.model.hidden(self.idx[:, -window:])
        else:
            if cache.length + self.unseen > window:  # full, which happens only with "refill"
                cache.length, self.unseen = 0, min(T, max(1, window // 2))
            x = self.model.hidden(self.idx[:, -self.unseen :], cache)
            self.unseen = 0
        return self.model.lm_head(x[:, -1])  # the scores of the other positions would be thrown away

    def append(self, token: Tensor) -> None:
        """Add one token `(B, 1)` to every row."""
        self.idx = torch.cat((self.idx, token), dim=1)
        self.unseen += 1

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in this order."""
        self.idx = self.idx[rows]
        if self.cache is not None:
            self.cache.select(rows)


def check_prompt(model: GPT, idx: Any) -> Tensor:
    """`idx` as int64 ids `(B, T)` on the model's device; CourseError if they are none that the model knows."""
    V = model.config.vocab_size
    try:
        idx = torch.as_tensor(idx, device=model.lm_head.weight.device)
        found = f"{str(idx.dtype).removeprefix('torch.')} of shape {tuple(idx.shape)}"
        fits = idx.ndim == 2 and idx.numel() > 0
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found, fits = f"{type(idx).__name__} {idx!r:.40}", False
    if not fits or idx.is_floating_point() or idx.is_complex() or idx.dtype == torch.bool:
        raise CourseError(f"The prompt must be whole-number token ids of shape (B, T), both at least 1, not {found}.")
    idx = idx.long()
    for token in (int(idx.min()), int(idx.max())):
        if not 0 <= token < V:
            raise CourseError(f"The prompt holds token {token}, but the model knows the tokens 0 to {V - 1}.")
    return idx


def check_logits(logits: Tensor) -> None:
    """Raise CourseError if any of the logits is NaN or infinite; one number leaves the device, their sum."""
    if not math.isfinite(logits.sum().item()):
        raise CourseError("The model returned NaN or infinite logits: its training diverged.")


@contextmanager
def decoding(model: GPT, tokens: int = 0) -> Iterator[None]:
    """The model without dropout and with quick lookups; afterwards as it was, however the loop ends.

    A module finds its parts (`self.c_attn`, `self.weight`) by a slow search in `nn.Module.__getattr__`. With one
    token at a time that is an eighth of the work, so for the time of the loop they are plain attributes as well.
    If `tokens` steps are worth it, a CPU gets a copy of each matrix in which its columns lie in one piece: the product
    with the vector of a single token then runs through memory in order, and waits for it a fifth less.
    """
    was_training = model.training
    parts_of: list[dict[str, Any]] = [{**module._parameters, **module._modules} for module in model.modules()]
    modules = list(zip(map(vars, model.modules()), parts_of, strict=True))
    size = 4 * sum(p.numel() for p in model.parameters())
    if tokens >= WORTH_A_COPY and size <= COPY_LIMIT and model.lm_head.weight.device.type == "cpu":
        for module, (_, parts) in zip(model.modules(), modules, strict=True):
            if isinstance(module, nn.Linear):
                parts["weight"] = module.weight.detach().t().contiguous().t()
    model.eval()
    try:
        for attributes, parts in modules:
            attributes.update(parts)
        yield
    finally:
        for attributes, parts in modules:
            for name in parts:
                attributes.pop(name, None)
        model.train(was_training)


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
    idx = check_prompt(model, idx)
    if isinstance(seed, torch.Generator):
        generator = seed
        if seed.device.type != idx.device.type:
            raise CourseError(
                f"The model is on {idx.device}: make its generator with torch.Generator({str(idx.device)!r})."
            )
    else:
        generator = torch.Generator(idx.device)
        if seed is None:
            generator.seed()
        else:
            check_number("seed", seed, 0, 2**64 - 1, whole=True)
            generator.manual_seed(int(seed))
    decoder = Decoder(model, idx, use_cache, past_window)
    with decoding(model, max_new_tokens):
        for _ in range(max_new_tokens):
            logits = decoder.step().float()  # (B, V)
            check_logits(logits)
            if temperature < GREEDY_BELOW:
                token = logits.argmax(dim=-1, keepdim=True)
            else:
                logits = apply_temperature(logits, temperature)
                if top_k is not None:
                    logits = apply_top_k(logits, top_k)
                if top_p is not None:
                    logits = apply_top_p(logits, top_p)
                if min_p is not None:
                    logits = apply_min_p(logits, min_p)
                token = draw(logits.softmax(dim=-1), generator)
            decoder.append(token)
            yield token


def generate(model: GPT, idx: Tensor, max_new_tokens: int, *, stop: int | None = None, **options: Any) -> Tensor:
    """Continue every row of `idx (B, T)`: returns `(B, T + n)` with n at most `max_new_tokens`.

    `temperature` 0 always takes the likeliest token (greedy); otherwise one is drawn, after `top_k`, `top_p` and
    `min_p` (None: off). The same integer `seed` gives the same text on the same machine and versions; None
    draws a fresh one. A row that has produced the token `stop` repeats it; when all have, the loop ends early.
    `use_cache` and `past_window` ("exact" or "refill", see Decoder) trade speed. The model keeps its mode.
    Raises CourseError for an argument out of range, an unknown token or NaN logits.
    """
    idx = check_prompt(model, idx)
    if stop is not None:
        check_number("stop", stop, 0, model.config.vocab_size - 1, whole=True)
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
    tail = 3 + len(utf8("" if stop is None else stop))
    if not utf8(prompt):
        raise CourseError("The prompt is empty: give the model at least one character, for example a line break.")
    if stop == "":
        raise CourseError("stop is empty: give the text that ends the continuation, or None.")
    new: list[int] = []
    for token in stream(model, torch.tensor([tokenizer.encode(prompt)]), max_new_tokens, **options):
        new.append(int(token))
        # A token is at least one byte long, and a cut character adds at most three: no need to decode everything.
        if stop is not None and stop in tokenizer.decode(new[-tail:]):
            break
    text = tokenizer.decode(new)
    return prompt + (text if stop is None else text.partition(stop)[0])


@torch.no_grad()
def beam_search(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    beam_size: int = 4,
    length_penalty: float = 1.0,
    stop: int | None = None,
) -> tuple[Tensor, float]:
    """The likeliest continuation found with `beam_size` candidates: `(1, T + n)` and its log-probability in nats.

    A beam ends at `stop` and leaves the others to go on. Beams of different length n are compared by
    log-probability / n ** length_penalty (0: no normalization). One beam is greedy decoding. `idx` is `(1, T)`.
    """
    check_number("beam_size", beam_size, 1, math.inf, whole=True)
    check_number("max_new_tokens", max_new_tokens, 1, math.inf, whole=True)
    check_number("length_penalty", length_penalty, -10, 10)
    if stop is not None:
        check_number("stop", stop, 0, model.config.vocab_size - 1, whole=True)
    idx = check_prompt(model, idx)
    if len(idx) != 1:
        raise CourseError(f"Beam search continues one prompt of shape (1, T), not {tuple(idx.shape)}.")
    decoder, scores = Decoder(model, idx), torch.zeros(1, device=idx.device)
    finished: list[tuple[float, float, Tensor]] = []  # normalized score, log-probability, tokens
    with decoding(model):
        for n in range(1, max_new_tokens + 1):
            logits = decoder.step().float()
            check_logits(logits)
            totals = (scores[:, None] + logits.log_softmax(dim=-1)).flatten()  # (beams * V)
            top = totals.topk(min(beam_size - len(finished), len(totals)))
            decoder.select(top.indices // logits.shape[1])
            decoder.append(top.indices[:, None] % logits.shape[1])
            ended = decoder.idx[:, -1] == (-1 if stop is None else stop)
            for i in range(len(ended)):
                if ended[i] or n == max_new_tokens:
                    score = top.values[i].item()
                    finished.append((score / n**length_penalty, score, decoder.idx[i : i + 1]))
            if ended.all():
                break
            decoder.select((~ended).nonzero().flatten())
            scores = top.values[~ended]
            # Log-probabilities only fall. Where length earns nothing, an open beam that is behind stays behind.
            ahead = scores.max().item() / n**length_penalty
            if length_penalty <= 0 and any(score >= ahead for score, _, _ in finished):
                break
    _, score, best = max(finished, key=lambda item: item[0])
    return best, score
