"""The checker of day 28: a mark for a text. Right answers in several styles, and each mistake by its own words."""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmcourse.checks import check
from llmcourse.checks.day28 import quality
from llmcourse.ngram import KneserNey
from llmcourse.quality import distinct, longest_copy, valid_words, words
from llmcourse.tokenizer import CharTokenizer

Say = Callable[[], str]


def smaller_of_two(text: str, reference: str) -> float:
    said = words(text)
    if len(text) < 8 or not said:
        return 0
    known = set(words(reference))
    spelled = sum(w in known for w in said) / len(said)
    fresh = len(set(text[i : i + 5] for i in range(len(text) - 4))) / (len(text) - 4)
    usual = len(set(reference[i : i + 5] for i in range(len(text) - 4))) / (len(text) - 4)
    return min(spelled, fresh / usual, 1.0)


def by_trigrams(text: str, reference: str) -> float:
    """No words at all: runs of three characters, each counted no more often than the reference has it."""
    if len(text) < 20:
        return 0.0
    n = len(text) - 2
    known = {reference[i : i + 3] for i in range(len(reference) - 2)}
    runs = [text[i : i + 3] for i in range(n)]
    usual = distinct(reference[: len(text)], 3)
    return sum(r in known for r in runs) / n * min(1.0, distinct(text, 3) / usual)


def by_surprise(text: str, reference: str) -> float:
    """A table of counts as the judge: how far from the surprise of the reference's own end?"""
    alphabet = set(reference)
    text = "".join(c for c in text if c in alphabet)
    if len(text) < 20:
        return 0.0
    tokenizer = CharTokenizer.from_text(reference)
    ids, cut = tokenizer.encode(reference), len(reference) * 4 // 5
    table = KneserNey(4, tokenizer.vocab_size).fit(ids[:cut])
    surprise, usual = table.nll(tokenizer.encode(text)), table.nll(ids[cut:])
    usual_variety = distinct(reference[: len(text)], 4)
    return math.exp(-abs(surprise - usual)) * min(1, distinct(text, 4) / usual_variety)


class Marker:
    def __call__(self, text: str, reference: str, n: int = 4) -> torch.Tensor:
        return torch.tensor(quality(text, reference))


RIGHT = [
    quality, smaller_of_two, by_trigrams, by_surprise, Marker(), lambda text, reference: quality(text, reference) ** 2,
]  # fmt: skip


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_quality_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day28", learner), said()
    assert said().startswith("day28: right. ")


calls = itertools.count()


def spelling_only(text: str, reference: str) -> float:
    return valid_words(text, set(words(reference))) if words(text) else 0.0


def variety_only(text: str, reference: str) -> float:
    return distinct(text, 4) if len(text) > 3 else 0.0


def verbatim(text: str, reference: str) -> float:
    return float(len(longest_copy(text[:60], reference)) > 54)


def capitals(text: str, reference: str) -> float:
    share = sum(c.isupper() for c in text) / max(1, len(text))
    usual = sum(c.isupper() for c in reference) / len(reference)
    return max(0.0, 1 - abs(share - usual) / max(share, usual, 0.01))


def crashes_on_empty(text: str, reference: str) -> float:
    known, said = set(words(reference)), words(text)
    return sum(w in known for w in said) / len(said) * min(1, distinct(text, 4) / distinct(reference[: len(text)], 4))


def nan_without_words(text: str, reference: str) -> float:
    if len(text) < 4:
        return 0.0
    usual = distinct(reference[: len(text)], 4)
    return valid_words(text, set(words(reference))) * min(1, distinct(text, 4) / usual)


def short_crashes(text: str, reference: str) -> float:
    if not text or not words(text):
        return 0.0
    usual = distinct(reference[: len(text)], 4)
    return valid_words(text, set(words(reference))) * min(1, distinct(text, 4) / usual)


def empty_is_fine(text: str, reference: str) -> float:
    return quality(text, reference) if text.strip() else 1.0


def by_length(text: str, reference: str) -> float:
    return quality(text, reference) * min(1.0, len(text) / 1200)


def raw_variety(text: str, reference: str) -> float:
    return quality(text, reference) and valid_words(text, set(words(reference))) * distinct(text, 4)


def count(text: str, reference: str) -> float:
    known = set(words(reference))
    return sum(w in known for w in words(text))


def upside_down(text: str, reference: str) -> float:
    return 1 - quality(text, reference)


def noisy(text: str, reference: str) -> float:
    return 0.99 * quality(text, reference) + 0.001 * (next(calls) % 7)


ENGLISH: set[str] = set()


def english(text: str, reference: str) -> float:
    if not ENGLISH:
        ENGLISH.update(words(reference))  # the first reference it ever saw, and no other
    usual = distinct(reference[: max(4, len(text))], 4)
    return valid_words(text, ENGLISH) * min(1, distinct(text, 4) / usual) if len(text) > 3 and words(text) else 0.0


def strict(text: str, reference: str) -> float:
    tokenizer = CharTokenizer.from_text(reference)
    tokenizer.encode(text)
    return quality(text, reference)


def coarse(text: str, reference: str) -> float:
    return float(quality(text, reference) > 0.6)


def coarse_below(text: str, reference: str) -> float:
    x = quality(text, reference)
    return x if x > 0.6 else 0.0


def squeezed(text: str, reference: str) -> float:
    variety = len(zlib.compress(text.encode())) / max(1, len(text))
    return min(1.0, variety)


WRONG: dict[str, tuple[Any, str]] = {
    "likes loops": (spelling_only, "A loop fools it"),
    "likes noise": (variety_only, "It rewards variety"),
    "verbatim only": (verbatim, "word for word in the reference"),
    "capitals only": (capitals, "It sees the layout only"),
    "crashes on empty": (crashes_on_empty, "It crashes on an empty text"),
    "nan": (nan_without_words, "It returned nan for a text without a single word"),
    "short": (short_crashes, "It crashes on a text of two letters"),
    "empty is perfect": (empty_is_fine, "An empty text gets 1.00"),
    "length": (by_length, "It depends on the length"),
    "raw variety": (raw_variety, "It depends on the length"),
    "counts": (count, "is outside 0 to 1"),
    "upside down": (upside_down, "The wrong way round"),
    "random": (noisy, "another mark the second time"),
    "constant": (lambda text, reference: 0.5, "Every text gets the same mark"),
    "English only": (english, "It marks English and not the reference"),
    "unknown character": (strict, "a character that the reference does not have"),
    "yes or no": (lambda text, reference: quality(text, reference) > 0.5, "It answers True or False"),
    "nothing": (lambda text, reference: None, "returned None"),
    "two numbers": (lambda text, reference: (0.5, 0.5), "something of type tuple"),
    "coarse": (coarse, "It hardly tells “real” from “late”"),
    "coarse below": (coarse_below, "It hardly tells “early” from “noise”"),
    "compression": (squeezed, "It rewards variety"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_quality_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    ENGLISH.clear()
    random.seed(0)
    mistake_is_named("day28", WRONG, mistake)


def test_quality_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day28", WRONG, least=12)
