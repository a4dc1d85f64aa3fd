"""Day 38: right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from llmcourse.checks import check
from llmcourse.checks.day38 import bits_per_char, encode_with_special
from llmcourse.tokenizer import BPETokenizer

Say = Callable[[], str]
Special = dict[str, int]


# ---- day38: special tokens ------------------------------------------------------------------------------------


def by_scan(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    """Position by position, without any pattern."""
    if any(i < bpe.vocab_size for i in special.values()):
        raise ValueError("taken")
    ids: list[int] = []
    start = at = 0
    while at < len(text):
        here = [name for name in special if name in allowed and text.startswith(name, at)]
        if here:
            name = max(here, key=len)
            ids.extend(bpe.encode_ordinary(text[start:at]))
            ids.append(special[name])
            start = at = at + len(name)
        else:
            at += 1
    return ids + bpe.encode_ordinary(text[start:])


def by_recursion(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    assert_free(bpe, special)
    for name in sorted(special, key=len, reverse=True):
        if name in allowed and name in text:
            before, _, after = text.partition(name)
            return [
                *by_recursion(before, bpe, special, allowed), special[name], *by_recursion(after, bpe, special, allowed)
            ]  # fmt: skip
    return bpe.encode_ordinary(text)


def by_finditer(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> tuple[int, ...]:
    assert_free(bpe, special)
    names = sorted((n for n in special if n in allowed), key=lambda n: -len(n))
    ids, start = [], 0
    for match in re.finditer("|".join(map(re.escape, names)), text) if names else ():
        ids += [*bpe.encode_ordinary(text[start:match.start()]), special[match[0]]]
        start = match.end()
    return tuple(ids + bpe.encode_ordinary(text[start:]))


def with_numpy_ids(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[Any]:
    return list(np.array(encode_with_special(text, bpe, special, allowed), dtype=np.int64))


def assert_free(bpe: BPETokenizer, special: Special) -> None:
    if any(i < bpe.vocab_size for i in special.values()):
        raise ValueError("this id is taken")


@pytest.mark.parametrize("learner", [encode_with_special, by_scan, by_recursion, by_finditer, with_numpy_ids])
def test_special_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day38", learner), said()
    assert said().startswith("day38: right. ")


def variant(
    *,
    names: Callable[[Special, set[str]], Iterable[str]] = lambda s, a: [n for n in s if n in a],
    order: bool = True,
    escape: Callable[[str], str] = re.escape,
    guard: Callable[[BPETokenizer, Special], None] = assert_free,
    piece: Callable[[BPETokenizer, str], list[int]] = lambda bpe, part: bpe.encode_ordinary(part),
    empty_pattern: bool = False,
    maxsplit: int = 0,
) -> Callable[..., list[int]]:
    def learner(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
        guard(bpe, special)
        found = list(names(special, allowed))
        if order:
            found.sort(key=len, reverse=True)
        if not found and not empty_pattern:
            return piece(bpe, text)
        ids = []
        for part in re.split("(" + "|".join(map(escape, found)) + ")", text, maxsplit=maxsplit):
            ids += [special[part]] if part in found else piece(bpe, part)
        return ids

    return learner


def never_special(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    return bpe.encode_ordinary(text)


def only_before(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    for name in special:
        if name in allowed and name in text:
            return [*bpe.encode_ordinary(text.partition(name)[0]), special[name]]
    return bpe.encode_ordinary(text)


def only_after(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    for name in special:
        if name in allowed and name in text:
            return [special[name], *bpe.encode_ordinary(text.partition(name)[2])]
    return bpe.encode_ordinary(text)


def at_the_end(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    """All special tokens of one name, then those of the next: the order is lost when they alternate."""
    ids = variant()(text, bpe, special, allowed)
    if ids.count(bpe.vocab_size) < 2:
        return ids
    return sorted(ids, key=lambda i: i >= bpe.vocab_size)


def no_neighbors(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    """A special token must have text on both sides to be seen."""
    out: list[int] = []
    for i in variant()(text, bpe, special, allowed):
        if not (i >= bpe.vocab_size and (not out or out[-1] >= bpe.vocab_size)):
            out.append(i)
    return out


def refuses(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    if any(name in text for name in special if name not in allowed):
        raise ValueError("not allowed here")
    return variant()(text, bpe, special, allowed)


def forgets_the_rest(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    assert_free(bpe, special)
    ids = variant()(text, bpe, special, allowed)
    V = bpe.vocab_size
    return ids if sum(i >= V for i in ids) < 3 else [i for i in ids if i >= V]


def drops_allowed(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[int]:
    ids = variant()(text, bpe, special, allowed)
    allowed -= {name for name in special if name in text}
    return ids


def nested(text: str, bpe: BPETokenizer, special: Special, allowed: set[str]) -> list[Any]:
    return [bpe.encode_ordinary(text)]


def stripped(bpe: BPETokenizer, part: str) -> list[int]:
    return bpe.encode_ordinary(part.strip(" "))


def loses_the_first(bpe: BPETokenizer, part: str) -> list[int]:
    return bpe.encode_ordinary(part[1:] if part == "O Romeo" else part)


def letter_by_letter(bpe: BPETokenizer, part: str) -> list[int]:
    return [i for c in part for i in bpe.encode_ordinary(c)] if part == "O Romeo" else bpe.encode_ordinary(part)


def wrong_error(bpe: BPETokenizer, special: Special) -> None:
    if any(i < bpe.vocab_size for i in special.values()):
        raise KeyError("taken")


WRONG_SPECIAL: dict[str, tuple[Any, str]] = {
    "never special": (never_special, "but it is still spelled in"),
    "everybody may": (variant(names=lambda s, a: s), "A stranger's text gives a command"),
    "not escaped": (variant(escape=str), "is re.escape missing"),
    "after lost": (only_before, "The text after the special token is gone"),
    "before lost": (only_after, "The text before the special token is gone"),
    "first only": (variant(maxsplit=1), "Only the first of several special tokens"),
    "order lost": (at_the_end, "in a wrong order"),
    "words lost between": (forgets_the_rest, "some of the words between them"),
    "side by side": (no_neighbors, "side by side, or alone, go wrong"),
    "shorter wins": (variant(order=False), "look for the longest token first"),
    "empty pattern": (variant(empty_pattern=True, piece=letter_by_letter), "not those of encode_ordinary: encode each"),
    "refuses": (refuses, "with an empty set allowed"),
    "nested": (nested, "use ids += piece"),
    "stripped": (variant(piece=stripped), "nothing may be stripped there"),
    "letter lost": (variant(piece=loses_the_first), "should be left, but your ids say"),
    "changes allowed": (drops_allowed, "work on a copy"),
    "taken id": (variant(guard=lambda bpe, s: None), "and your function accepts it"),
    "wrong error": (variant(guard=wrong_error), "not a KeyError"),
    "no return": (lambda text, bpe, special, allowed: None, "is there a return line"),
    "text back": (lambda text, bpe, special, allowed: text, "Return a list of ids"),
}


@pytest.mark.parametrize("mistake", WRONG_SPECIAL)
def test_special_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day38", WRONG_SPECIAL, mistake)


def test_special_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day38", WRONG_SPECIAL, least=14)


# ---- day38b: bits per character -------------------------------------------------------------------------------

Windows = list[list[float]]


def by_numpy(windows: Windows, text: str) -> Any:
    return np.concatenate([np.array(w) for w in windows]).sum() / np.log(2) / len(text)


def by_log2(windows: Windows, text: str) -> float:
    bits = 0.0
    for window in windows:
        for nats in window:
            bits -= math.log2(math.exp(-nats))
    return bits / len(text)


def by_mean(windows: Windows, text: str) -> float:
    flat = [x for w in windows for x in w]
    return sum(flat) / len(flat) * (len(flat) / len(text)) * math.log2(math.e)


@pytest.mark.parametrize("learner", [bits_per_char, by_numpy, by_log2, by_mean])
def test_bits_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("day38b", learner), said()
    assert said().startswith("day38b: right. ")


def nats(windows: Windows) -> float:
    return sum(map(sum, windows))


def means(windows: Windows) -> list[float]:
    return [sum(w) / len(w) for w in windows]


def number(windows: Windows) -> int:
    return sum(map(len, windows))


def emptied(windows: Windows, text: str) -> float:
    total = 0.0
    while windows:
        total += sum(windows.pop())
    return total / math.log(2) / len(text)


LN2 = math.log(2)
WRONG_BITS: dict[str, tuple[Any, str]] = {
    "nats": (lambda w, t: nats(w) / len(t), "in nats per character"),
    "per token, bits": (lambda w, t: nats(w) / number(w) / LN2, "in bits per token"),
    "per token": (lambda w, t: nats(w) / number(w), "This is the mean loss"),
    "times ln 2": (lambda w, t: nats(w) * LN2 / len(t), "You multiply by ln 2"),
    "bytes": (lambda w, t: nats(w) / LN2 / len(t.encode()), "bits per byte"),
    "mean of means": (lambda w, t: sum(means(w)) / len(w) * number(w) / LN2 / len(t), "You average the windows' means"),
    "sum of means": (lambda w, t: sum(means(w)) / LN2 / len(t), "You add up the means"),
    "total": (lambda w, t: nats(w) / LN2, "price of the whole text"),
    "no blanks": (lambda w, t: nats(w) / LN2 / len("".join(t.split())), "Blanks and line ends"),
    "words": (lambda w, t: nats(w) / LN2 / len(t.split()), "number of words"),
    "perplexity": (lambda w, t: math.exp(nats(w) / len(t)), "no exponential is needed"),
    "ln 10": (lambda w, t: nats(w) / math.log(10) / len(t), "decimal digits"),
    "upside down": (lambda w, t: len(t) * LN2 / nats(w), "turn the fraction round"),
    "last window": (lambda w, t: nats(w[:-1]) / LN2 / len(t), "The last, shorter window is missing"),
    "changes": (emptied, "changes the list of windows"),
    "no return": (lambda w, t: None, "is there a return line"),
    "a list": (lambda w, t: [1.0], "Return one number"),
    "one less": (lambda w, t: nats(w) / LN2 / (len(t) - 1), "All tokens spell all of text"),
    "per window": (lambda w, t: nats(w) / LN2 / len(w), "the price of a window"),
    "rounded": (lambda w, t: nats(w) * 1.44 / len(t), "some constant is rounded"),
    "something": (lambda w, t: 7.0, "but the price is"),
}


@pytest.mark.parametrize("mistake", WRONG_BITS)
def test_bits_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day38b", WRONG_BITS, mistake)


def test_bits_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day38b", WRONG_BITS, least=14)
