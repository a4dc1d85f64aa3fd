"""Day 1: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from llmcourse.checks import check
from llmcourse.tokenizer import CharTokenizer

Say = Callable[[], str]


# ---- day01: a character tokenizer -----------------------------------------------------------------------------


def by_package(text: str) -> Any:
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer.encode, tokenizer.decode


def by_try(text: str) -> Any:
    chars = sorted(set(text))
    id_of = {c: i for i, c in enumerate(chars)}
    char_of = dict(enumerate(chars))

    def encode(s: str) -> list[int]:
        out = []
        for c in s:
            try:
                out.append(id_of[c])
            except KeyError:
                raise ValueError(f"I do not know the character U+{ord(c):04X}.") from None
        return out

    def decode(ids: list[int]) -> str:
        try:
            return "".join(char_of[i] for i in ids)
        except KeyError as error:
            raise ValueError(f"no such id: {error}") from None

    return encode, decode


def by_sets(text: str) -> Any:
    """Returned in a list, all unknown characters in one message."""
    chars = "".join(sorted(set(text)))

    def encode(s: str) -> list[int]:
        if unknown := set(s) - set(chars):
            raise ValueError(f"not in the vocabulary: {sorted(unknown)}")
        return [chars.index(c) for c in s]

    def decode(ids: list[int]) -> str:
        if wrong := [i for i in ids if i not in range(len(chars))]:
            raise ValueError(f"these ids do not exist: {wrong}")
        return "".join(chars[i] for i in ids)

    return [encode, decode]


class OneClass:
    """Bound methods are functions too."""

    def __init__(self, text: str) -> None:
        self.chars = sorted(set(text))

    def encode(self, s: str) -> list[int]:
        for c in s:
            if c not in self.chars:
                raise ValueError(f"Unknown character: {c}")
        return list(map(self.chars.index, s))

    def decode(self, ids: list[int]) -> str:
        for i in ids:
            if i < 0 or i >= len(self.chars):
                raise ValueError(f"{i} is not an id")
        return "".join(map(self.chars.__getitem__, ids))


def by_class(text: str) -> Any:
    it = OneClass(text)
    return it.encode, it.decode


@pytest.mark.parametrize("learner", [by_package, by_try, by_sets, by_class])
def test_tokenizer_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day01", learner), said()
    assert said().startswith("day01: right. ")


def variant(
    vocabulary: Callable[[str], Any] = lambda text: sorted(set(text)),
    encode: Callable[[dict[str, int], str], Any] | None = None,
    decode: Callable[[list[str], list[int]], Any] | None = None,
    start: int = 0,
) -> Callable[[str], Any]:
    """A tokenizer with one part exchanged."""

    def char_tokenizer(text: str) -> Any:
        right_encode, right_decode = by_package(text)
        chars = list(vocabulary(text))
        id_of = {c: i for i, c in enumerate(chars, start)}

        def other_encode(s: str) -> Any:
            if encode:
                return encode(id_of, s)
            right_encode(s)
            return [id_of[c] for c in s]

        return other_encode, lambda ids: decode(chars, ids) if decode else right_decode(ids)

    return char_tokenizer


def refuse(message: str) -> Callable[[dict[str, int], str], list[int]]:
    def encode(id_of: dict[str, int], s: str) -> list[int]:
        for c in s:
            if c not in id_of:
                raise ValueError(message)
        return [id_of[c] for c in s]

    return encode


def decode_vaguely(chars: list[str], ids: list[int]) -> str:
    if any(not 0 <= i < len(chars) for i in ids):
        raise ValueError("an id is out of range")
    return "".join(chars[i] for i in ids)


def decode_below(chars: list[str], ids: list[int]) -> str:
    """Forgets the negative ids."""
    for i in ids:
        if i >= len(chars):
            raise ValueError(f"no id {i}")
    return "".join(chars[i] for i in ids)


def decode_skipping(chars: list[str], ids: list[int]) -> str:
    return "".join(chars[i] for i in ids if 0 <= i < len(chars))


SHARED: dict[str, int] = {}


def global_vocabulary(text: str) -> Any:
    SHARED.clear()
    SHARED.update({c: i for i, c in enumerate(sorted(set(text)))})

    def encode(s: str) -> list[int]:
        for c in s:
            if c not in SHARED:
                raise ValueError(f"unknown {c!r}")
        return [SHARED[c] for c in s]

    return encode, by_package(text)[1]


def fixed_vocabulary(text: str) -> Any:
    return by_package("O Romeo, Romeo! wherefore art thou Romeo?\n")


def folded(text: str) -> Any:
    encode, decode = by_package(text.lower())
    return lambda s: encode(s.lower()), decode


def constant_ids(text: str) -> Any:
    return (lambda s: [3] * len(s)), by_package(text)[1]


def without_decode(text: str) -> Any:
    return by_package(text)[0]


def nothing(text: str) -> None:
    by_package(text)


def empty_fails(text: str) -> Any:
    encode, decode = by_package(text)
    return encode, lambda ids: decode(ids) or None


WRONG_TOKENIZER: dict[str, tuple[Any, str]] = {
    "bare KeyError": (variant(encode=lambda d, s: [d[c] for c in s]), "'é', encode stops with a bare KeyError"),
    "bare IndexError": (variant(decode=lambda v, ids: "".join(v[i] for i in ids)), "stops with a bare IndexError"),
    "unknown left out": (variant(encode=lambda d, s: [d[c] for c in s if c in d]), "out without a word"),
    "unknown is 0": (variant(encode=lambda d, s: [d.get(c, 0) for c in s]), "'é' the id 0 instead"),
    "unknown is None": (variant(encode=lambda d, s: [d.get(c) for c in s]), "'é' the id None instead"),
    "unknown is -1": (variant(encode=lambda d, s: [d.get(c, -1) for c in s]), "'é' the id -1 instead"),
    "culprit not named": (variant(encode=refuse("unknown character")), "does not say which character"),
    "id not named": (variant(decode=decode_vaguely), "does not say which id"),
    "negative ids": (variant(decode=decode_below), "the id -1 for the last character"),
    "wrong ids skipped": (variant(decode=decode_skipping), "decode accepts the id"),
    "from 1": (variant(start=1), "The ids start at 1"),
    "code points": (variant(encode=lambda d, s: [ord(c) for c in s]), "that ord gives"),
    "not a set": (variant(vocabulary=sorted), "repeated ones are counted again"),
    "by appearance": (variant(vocabulary=dict.fromkeys), "follow the first appearance"),
    "backwards": (variant(vocabulary=lambda t: sorted(set(t), reverse=True)), "sorted backwards"),
    "by frequency": (variant(vocabulary=lambda t: [c for c, _ in Counter(t).most_common()]), "follow the frequency"),
    "unsorted": (variant(vocabulary=lambda t: sorted(set(t), key=lambda c: (ord(c) * 7) % 31)), "not in sorted order"),
    "lower-cased": (folded, "O and o have the same id"),
    "one id for all": (constant_ids, "O and o have the same id"),
    "strips": (variant(encode=lambda d, s: [d[c] for c in s.strip()]), "each character has one, also blanks"),
    "ids as text": (variant(encode=lambda d, s: " ".join(str(d[c]) for c in s)), "of type str: it should be a list"),
    "generator": (variant(encode=lambda d, s: (d[c] for c in s)), "of type generator: it should be a list"),
    "ids as strings": (variant(encode=lambda d, s: [str(d[c]) for c in s]), "is not a whole number"),
    "list of characters": (variant(decode=lambda v, ids: [v[i] for i in ids]), "returned something of type list"),
    "spaces between": (variant(decode=lambda v, ids: " ".join(v[i] for i in ids)), "a space between the characters"),
    "backwards text": (variant(decode=lambda v, ids: "".join(v[i] for i in ids[::-1])), "back to front"),
    "decode strips": (variant(decode=lambda v, ids: "".join(v[i] for i in ids).strip()), "at the edges"),
    "no return in encode": (variant(encode=lambda d, s: None), "encode returned None"),
    "no return in decode": (variant(decode=lambda v, ids: None), "decode returned None"),
    "global": (global_vocabulary, "both use the same global variable"),
    "fixed": (fixed_vocabulary, "encode fails on 'zebra'"),
    "only one function": (without_decode, "return the two functions"),
    "nothing returned": (nothing, "char_tokenizer returned None"),
}


@pytest.mark.parametrize("mistake", WRONG_TOKENIZER)
def test_tokenizer_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day01", WRONG_TOKENIZER, mistake)


def test_tokenizer_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day01", WRONG_TOKENIZER, least=25)


# ---- day01b: one merge ----------------------------------------------------------------------------------------

Pair = tuple[int, int]


def best(ids: list[int]) -> Pair:
    counts = Counter(pairwise(ids))
    return min(counts, key=lambda p: (-counts[p], p))


def swap(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def by_while(ids: list[int], new_id: int) -> Any:
    if len(ids) < 2:
        return None, ids[:]
    return best(ids), swap(ids, best(ids), new_id)


def by_dict(ids: list[int], new_id: int) -> Any:
    counts: dict[Pair, int] = {}
    for i in range(len(ids) - 1):
        pair = (ids[i], ids[i + 1])
        counts[pair] = counts.get(pair, 0) + 1
    top = max(counts.values(), default=0)
    pair = min((p for p, n in counts.items() if n == top), default=None)
    out: list[int] = []
    for i in ids:
        if out and (out[-1], i) == pair:
            out[-1] = new_id
        else:
            out.append(i)
    return [pair, out]


def by_sorting(ids: list[int], new_id: int, verbose: bool = False) -> Any:
    pairs = sorted(pairwise(ids))
    if not pairs:
        return None, list(ids)
    pair = max(pairs, key=pairs.count)  # the first of the most frequent, and they are sorted
    return list(pair), swap(ids, pair, new_id)


@pytest.mark.parametrize("learner", [by_while, by_dict, by_sorting])
def test_merge_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day01b", learner), said()
    assert said().startswith("day01b: right. ")


def picks(choose: Callable[[Counter[Pair]], Pair]) -> Callable[[list[int], int], Any]:
    def merge_step(ids: list[int], new_id: int) -> Any:
        if len(ids) < 2:
            return None, list(ids)
        pair = choose(Counter(pairwise(ids)))
        return pair, swap(ids, pair, new_id)

    return merge_step


def replaces(change: Callable[[list[int], Pair, int], Any]) -> Callable[[list[int], int], Any]:
    def merge_step(ids: list[int], new_id: int) -> Any:
        if len(ids) < 2:
            return None, list(ids)
        return best(ids), change(ids, best(ids), new_id)

    return merge_step


def counts_by(pairs: Callable[[list[int]], Any]) -> Callable[[list[int], int], Any]:
    def merge_step(ids: list[int], new_id: int) -> Any:
        if len(ids) < 2:
            return None, list(ids)
        counts = Counter(pairs(ids))
        pair = min(counts, key=lambda p: (-counts[p], p))
        return pair, swap(ids, pair, new_id)

    return merge_step


def keeps_second(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    return [new_id if tuple(ids[i : i + 2]) == pair else ids[i] for i in range(len(ids))]


def first_only(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    i = list(pairwise(ids)).index(pair)
    return [*ids[:i], new_id, *ids[i + 2 :]]


def loses_last(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    out, i = [], 0
    while i < len(ids) - 1:
        hit = (ids[i], ids[i + 1]) == pair
        out.append(new_id if hit else ids[i])
        i += 2 if hit else 1
    return out


def last_twice(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    return loses_last(ids, pair, new_id) + ids[-1:]


def from_right(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    return swap(ids[::-1], pair[::-1], new_id)[::-1]


def overlapping(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """Every start of the pair becomes a token, and then what was covered by none is added."""
    out = []
    for i, x in enumerate(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new_id)
        elif i == 0 or tuple(ids[i - 1 : i + 1]) != pair:
            out.append(x)
    return out


def single_ids(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    return [new_id if i in pair else i for i in ids]


def in_place(ids: list[int], new_id: int) -> Any:
    if len(ids) < 2:
        return None, ids
    pair, i = best(ids), 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return pair, ids


def in_a_text(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """Replaces digits: it also finds 1, 2 in 11, 2."""
    written = ", ".join(map(str, ids)).replace(f"{pair[0]}, {pair[1]}", str(new_id))
    return [int(word) for word in written.split(", ")]


def no_pair_fails(ids: list[int], new_id: int) -> Any:
    return best(ids), swap(ids, best(ids), new_id)


def no_pair_is_empty(ids: list[int], new_id: int) -> Any:
    return by_while(ids, new_id) if len(ids) > 1 else (None, [])


def falsy(ids: list[int], new_id: int) -> Any:
    """Takes the id 0 for the end of the list."""
    pair, out = by_while(ids, new_id)
    return (pair, [i for i in out if i]) if pair else (pair, out)


def whole_counter(ids: list[int], new_id: int) -> Any:
    pair, out = by_while(ids, new_id)
    return (pair, Counter(pairwise(ids))[pair]) if pair else None, out


WRONG_MERGE: dict[str, tuple[Any, str]] = {
    "first of equals": (picks(lambda c: max(c, key=c.__getitem__)), "it takes the first one met"),
    "largest of equals": (picks(lambda c: max(c, key=lambda p: (c[p], p))), "it takes the largest: take"),
    "rarest": (picks(lambda c: min(c, key=lambda p: (c[p], p))), "takes the rarest pair"),
    "largest pair": (picks(max), "takes the largest pair"),
    "smallest pair": (picks(min), "takes the smallest pair"),
    "sorted inside": (counts_by(lambda ids: [tuple(sorted(p)) for p in pairwise(ids)]), "are the ids of a pair sorted"),
    "every second": (counts_by(lambda ids: list(zip(ids[::2], ids[1::2], strict=False))), "if every second pair"),
    "around the end": (counts_by(lambda ids: list(zip(ids, ids[1:] + ids[:1], strict=True))), "last id and the first"),
    "second kept": (replaces(keeps_second), "is kept behind the new token"),
    "first only": (replaces(first_only), "Only the first occurrence"),
    "last lost": (replaces(loses_last), "The last id is lost"),
    "last twice": (replaces(last_twice), "An id too many at the end"),
    "from the right": (replaces(from_right), "it merges from the right"),
    "overlapping": (replaces(overlapping), "one id is used for two merges"),
    "single ids": (replaces(single_ids), "Single ids of the pair"),
    "not merged": (replaces(lambda ids, pair, new_id: list(ids)), "nothing is merged"),
    "always 256": (lambda ids, new_id: by_while(ids, 256), "written as 256, though new_id is 300"),
    "in place": (in_place, "changes the caller's list"),
    "no pair": (no_pair_fails, "It fails for [], where there is no pair"),
    "no pair, list lost": (no_pair_is_empty, "For [3] there is no pair"),
    "swapped results": (lambda ids, new_id: by_while(ids, new_id)[::-1], "have changed places"),
    "only the list": (lambda ids, new_id: swap(ids, best(ids), new_id), "return two things"),
    "with its count": (whole_counter, "together with its count"),
    "a tuple": (replaces(lambda *a: tuple(swap(*a))), "The second result is of type tuple"),
    "nothing returned": (lambda ids, new_id: None, "Your function returned None"),
    "in a text": (replaces(in_a_text), "compare whole ids"),
    "zero dropped": (falsy, "The pair is right, but of [0, 6, 0, 6, 0, 3]"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_MERGE)
def test_merge_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day01b", WRONG_MERGE, mistake)


def test_merge_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day01b", WRONG_MERGE, least=20)
