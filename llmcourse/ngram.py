"""An n-gram language model: predict the next token by looking up what followed before.

Count every run of `n` tokens in the training text. To predict the next token, take the last `n - 1`
tokens, find where they stood in the training text, and see what came next. That is the whole idea,
and with it comes one problem: most long contexts never occurred. Kneser–Ney smoothing answers it with
three steps that are each one line of arithmetic.

1. **Discount.** Take a little, D, off every count, so that what was seen once is trusted less.
2. **Interpolate.** Hand what was taken to the model with a context one token shorter, which has seen
   more: `p_k = max(count - D, 0) / total + leftover · p_(k-1)`, down to `p_0 = 1 / V`.
3. **Count company, not occurrences.** The shorter models are asked only when the longer ones know
   little, so they count in how many *different* contexts a token stood. "Francisco" is frequent but it
   nearly always follows "San": in a new context it is a poor guess.

Order 6 counts a million characters in about a second, has nothing to train, and is the baseline that
every neural model in this course has to face.

Sources: Kneser and Ney, "Improved backing-off for m-gram language modeling" (ICASSP 1995); Chen and
Goodman, "An empirical study of smoothing techniques for language modeling" (Computer Speech and
Language, 1999), whose interpolated form this is, and whose "modified" variant with three discounts
`discount="modified"` gives; Ney, Essen and Kneser (1994) for the estimate of D.

    model = KneserNey(order=6, vocab_size=65).fit(train_ids)
    model.nll(val_ids)          # mean nats per token
    model.probs(val_ids[:5])    # (V,) distribution of the next token
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from llmcourse.errors import CourseError, check_number, is_number


@dataclass(frozen=True)
class _Level:
    """Everything one n-gram length k needs: M n-grams seen, C contexts (k-1 tokens) seen."""

    keys: np.ndarray  # (M,) sorted; context number * V + token. An n-gram's number is its index here.
    share: np.ndarray  # (M,) float64: (count - D) / total, the part of p this level decides itself
    leftover: np.ndarray  # (C,) float64: the part of p it leaves to the level below; 1 where it knows nothing


class KneserNey:
    """Interpolated Kneser–Ney model of any order, over token ids 0 … vocab_size - 1.

    `order` is the n of n-gram: order 1 sees no context, order 2 is the bigram model. `discount` is D:
    None (the default) estimates one for each length from the data, "modified" three for each length (for
    what was seen once, twice, more often), and a number between 0 and 1 is used as it is, everywhere.
    After `fit`, `discounts` holds the three in use for each length, shortest n-gram first.
    """

    def __init__(
        self, order: int = 6, vocab_size: int = 65, discount: float | Literal["modified"] | None = None
    ) -> None:
        if not all(is_number(n, whole=True) and n >= 1 for n in (order, vocab_size)):
            raise CourseError(
                f"order ({order!r}) and vocab_size ({vocab_size!r}) must both be whole numbers of at least 1."
            )
        sensible = 0 < discount < 1 if isinstance(discount, int | float) else discount in (None, "modified")
        if not sensible:
            raise CourseError(f'discount is {discount!r}: pass None, "modified", or a number between 0 and 1.')
        self.order, self.vocab_size, self.discount = order, vocab_size, discount
        self.discounts: list[tuple[float, float, float]] = []
        self._levels: list[_Level] = []

    def fit(self, ids: Any) -> Self:
        """Count the n-grams of `ids` (N,), of every length up to `order`; what was fitted before is forgotten."""
        tokens = self._check(ids)
        if len(tokens) == 0:
            raise CourseError("There is nothing to count: fit needs at least one token.")
        gram = np.zeros(0, dtype=np.int64)
        keys: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        context = np.zeros(len(tokens), dtype=np.int64)  # the number of the context before each token
        for k in range(1, self.order + 1):
            # Slot j is the n-gram tokens[j : j + k]: its first k-1 tokens already have a number, so one
            # integer names the whole n-gram, however long, and sorting integers does all the counting.
            codes = context * self.vocab_size + tokens[k - 1 :]
            level_keys, first, longer, count = _distinct(codes)
            if k > 1:
                # Without its first token, slot j is slot j + 1 of the level below. Counting each distinct
                # n-gram once gives the number of different tokens that stood before each shorter one.
                counts[-1] = np.bincount(gram[first + 1], minlength=len(keys[-1]))
            keys.append(level_keys)
            counts.append(count)
            gram = longer  # slot j's number; without the last one, the contexts of the next level
            context = gram[:-1]
        self.discounts = [self._discounts_for(count) for count in counts]
        contexts_seen = [1, *(len(level_keys) for level_keys in keys)]
        self._levels = [self._level(*parts) for parts in zip(keys, counts, self.discounts, contexts_seen, strict=False)]
        return self

    def _discounts_for(self, count: np.ndarray) -> tuple[float, float, float]:
        """What to take off n-grams counted once, twice, and three times or more."""
        if isinstance(self.discount, int | float):
            return (self.discount,) * 3
        n1, n2, n3, n4 = (int((count == times).sum()) for times in (1, 2, 3, 4))
        d = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5  # 0.5: too few n-grams to estimate anything
        if self.discount == "modified" and n1 and n2 and n3 and n4:
            three = (1 - 2 * d * n2 / n1, 2 - 3 * d * n3 / n2, 3 - 4 * d * n4 / n3)
            if min(three) > 0:  # a negative estimate would take probability from unseen tokens
                return three
        return (d, d, d)

    def _level(
        self, keys: np.ndarray, count: np.ndarray, discounts: tuple[float, float, float], contexts: int
    ) -> _Level:
        """Turn counts (M,) into the shares of `_Level`, for all contexts at once."""
        context = keys // self.vocab_size  # (M,)
        taken = np.array([0.0, *discounts])[np.minimum(count, 3)]  # (M,)
        total = np.bincount(context, weights=count, minlength=contexts)  # (C,)
        total_taken = np.bincount(context, weights=taken, minlength=contexts)  # (C,)
        known = total > 0  # a context that only ends the text has no next token to tell of
        leftover = np.divide(total_taken, total, out=np.ones(contexts), where=known)
        share = (count - taken) / np.where(known, total, 1)[context]
        return _Level(keys, share, leftover)

    def probs(self, context: Any = ()) -> np.ndarray:
        """Distribution of the token after `context`, (V,) float64; only the last `order - 1` tokens matter."""
        tokens = self._check(context)[-(self.order - 1) :] if self.order > 1 else np.zeros(0, dtype=np.int64)
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for k, level in enumerate(self._fitted()[: len(tokens) + 1]):  # k context tokens: shortest first
            number = self._context_number(tokens[len(tokens) - k :])
            if number < 0:  # never seen, so no longer one that ends in it was seen either
                break
            start, stop = np.searchsorted(level.keys, [number * self.vocab_size, (number + 1) * self.vocab_size])
            p *= level.leftover[number]
            p[level.keys[start:stop] - number * self.vocab_size] += level.share[start:stop]
        return p

    def _context_number(self, tokens: np.ndarray) -> int:
        """The number of this run of tokens among all seen of its length, or -1."""
        number = 0
        for level, token in zip(self._levels, tokens, strict=False):
            number = int(_find(level.keys, np.array([number * self.vocab_size + token]))[0])
            if number < 0:
                break
        return number

    def log_probs(self, ids: Any, reset_every: int | None = None, context: Any = ()) -> np.ndarray:
        """Natural log of p(token | the tokens before it) for every token of `ids`: (N,) float64.

        The first token is predicted from `context` (the tokens before `ids`; by default none). With
        `reset_every=T` the model forgets what it read every T predictions, so that it sees exactly what
        a GPT sees that reads `ids` in non-overlapping windows of T tokens; it takes no `context` then.
        """
        before, tokens = self._check(context), self._check(ids)
        if reset_every is not None and (reset_every < 1 or len(before)):
            raise CourseError("reset_every must be at least 1 and goes without context: windows start afresh.")
        before = before[max(0, len(before) - self.order + 1) :]
        tokens = np.concatenate([before, tokens])
        seen = np.arange(len(tokens))  # how many tokens each prediction may look back on
        if reset_every is not None:
            seen[1:] = (seen[1:] - 1) % reset_every + 1

        p = np.full(len(tokens), 1 / self.vocab_size)
        number = np.zeros(len(tokens), dtype=np.int64)  # of the context before each token, -1 if never seen
        for k, level in enumerate(self._fitted()):  # k context tokens: shortest first
            slot = _find(level.keys, np.where(number >= 0, number * self.vocab_size + tokens, -1))
            here = (number >= 0) & (seen >= k)
            p[here] *= level.leftover[number[here]]
            here &= slot >= 0
            p[here] += level.share[slot[here]]
            number[1:], number[:1] = slot[:-1], -1  # this n-gram is the next token's longer context
        return np.log(p[len(before) :])

    def distributions(self, ids: Any) -> np.ndarray:
        """The distribution of the next token after every prefix of each row: `ids (B, T)` -> `(B, T, V)` float64.

        A row is read as a GPT reads its window: nothing stands before its first token.
        """
        rows, V = np.asarray(ids), self.vocab_size
        if rows.ndim != 2:
            raise CourseError(f"distributions reads rows of token ids of shape (B, T), not {rows.shape}.")
        tokens = self._check(rows.ravel()).reshape(rows.shape)
        levels = self._fitted()
        p = np.full((tokens.size, V), 1 / V)
        number = np.zeros(tokens.shape, dtype=np.int64)  # of the context of k tokens that ends at each token
        for k, level in enumerate(levels):
            if k > 0:
                shorter = np.full_like(number, -1)  # the context that ended one token earlier
                shorter[:, 1:] = number[:, :-1]
                number = shorter if k > 1 else np.zeros_like(number)
                number = _find(levels[k - 1].keys, np.where(number >= 0, number * V + tokens, -1).ravel())
                number = number.reshape(tokens.shape)
            here = np.flatnonzero(number >= 0)
            context = number.ravel()[here]
            start, stop = np.searchsorted(level.keys, [context * V, (context + 1) * V])
            seen = stop - start  # how many tokens followed each context
            p[here] *= level.leftover[context, None]
            slot = np.arange(seen.sum()) + np.repeat(start - (np.cumsum(seen) - seen), seen)
            p[np.repeat(here, seen), level.keys[slot] % V] += level.share[slot]
        return p.reshape(*tokens.shape, V)

    def nll(self, ids: Any, reset_every: int | None = None, context: Any = ()) -> float:
        """Mean negative log-likelihood of `ids` in nats per token; arguments as in `log_probs`."""
        log_probs = self.log_probs(ids, reset_every, context)
        if len(log_probs) == 0:
            raise CourseError("There is nothing to score: nll needs at least one token.")
        return float(-log_probs.mean())

    def generate(self, n: int, seed: int = 0, prompt: Any = ()) -> list[int]:
        """Draw `n` new tokens, one after the other, each from `probs` of what stands before it."""
        check_number("n", n, 0, math.inf, whole=True)
        check_number("seed", seed, 0, math.inf, whole=True)
        rng = np.random.default_rng(seed)
        tokens = self._check(prompt).tolist()
        for _ in range(n):
            tokens.append(int(rng.choice(self.vocab_size, p=self.probs(tokens[-self.order :]))))
        return tokens[len(tokens) - n :]

    def _fitted(self) -> Sequence[_Level]:
        if not self._levels:
            raise CourseError("This n-gram model has counted nothing yet: call fit(ids) first.")
        return self._levels

    def _check(self, ids: Any) -> np.ndarray:
        """`ids` (list, array, memmap or CPU tensor) as int64 (N,), or a sentence on what is wrong with it."""
        if isinstance(ids, str):
            raise CourseError("The n-gram model reads token ids, not text: call tokenizer.encode(text) first.")
        try:
            array = np.asarray(ids)
        except ValueError as error:
            raise CourseError("The n-gram model reads one row, not rows of different lengths.") from error
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise CourseError(
                f"The n-gram model reads one row of whole numbers, not shape {array.shape} of {array.dtype}."
            )
        array = array.astype(np.int64)
        if array.size and not 0 <= array.min() <= array.max() < self.vocab_size:
            wrong = int(array.min() if array.min() < 0 else array.max())
            raise CourseError(
                f"Token id {wrong} is outside this model's vocabulary of {self.vocab_size} (ids 0 to "
                f"{self.vocab_size - 1}): use the tokenizer and vocab_size the ids were made with."
            )
        return array


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, ...]:
    """`np.unique` of codes >= 0 with index, inverse and counts, but several times as fast.

    Each code is sorted together with its place, both in one integer: code first, place in the low bits.
    """
    places = len(codes).bit_length()
    if len(codes) == 0 or int(codes.max()).bit_length() + places > 63:  # no room for both
        return np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    both = np.sort(codes << places | np.arange(len(codes)))
    place, ordered = both & ((1 << places) - 1), both >> places
    new = np.append(True, ordered[1:] != ordered[:-1])  # where another code begins
    begin = np.flatnonzero(new)
    inverse = np.empty_like(place)
    inverse[place] = np.cumsum(new) - 1
    return ordered[begin], place[begin], inverse, np.diff(begin, append=len(codes))


def _find(keys: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Index of each code in the sorted keys, -1 where it is missing."""
    if len(keys) == 0:
        return np.full(len(codes), -1)
    slot = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return np.where(keys[slot] == codes, slot, -1)
