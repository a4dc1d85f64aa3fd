"""Tour 1: counting with fall back passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llmcourse.checks import check
from llmcourse.checks.tour01 import followers

Books = Sequence[str]
Say = Callable[[], str]


def ends(prefix: str, most: int) -> list[str]:
    return [prefix[start:] for start in range(max(0, len(prefix) - most), len(prefix) + 1)]


def shares(follows: Counter[str]) -> dict[str, float]:
    return {c: k / sum(follows.values()) for c, k in follows.items()}


def by_find(books: Books, prefix: str, most: int) -> dict[str, float]:
    end = prefix[len(prefix) - min(most, len(prefix)) :]
    while True:
        counts: dict[str, int] = {}
        for book in books:
            at = book.find(end)
            while at != -1:
                if at + len(end) < len(book):
                    c = book[at + len(end)]
                    counts[c] = counts.get(c, 0) + 1
                at = book.find(end, at + 1)
        if counts:
            return {c: k / sum(counts.values()) for c, k in counts.items()}
        end = end[1:]


def by_lookahead(books: Books, prefix: str, most: int) -> dict[str, float]:
    for end in ends(prefix, most):
        found = [m[1] for book in books for m in re.finditer(f"(?={re.escape(end)}(.))", book, re.S)]
        if found:
            return {c: found.count(c) / len(found) for c in set(found)}
    raise AssertionError


def by_table(books: Books, prefix: str, most: int) -> dict[str, float]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for book in books:
        for i, c in enumerate(book):
            for k in range(min(i, most) + 1):
                table[book[i - k : i]][c] += 1
    return shares(next(table[end] for end in ends(prefix, most) if end in table))


def by_recursion(books: Books, prefix: str, most: int) -> dict[str, float]:
    if len(prefix) > most:
        return by_recursion(books, prefix[len(prefix) - most :], most)
    found = followers(books, prefix)
    return shares(found) if found else by_recursion(books, prefix[1:], most)


def with_zeros(books: Books, prefix: str, most: int) -> dict[str, float]:
    known = by_find(books, prefix, most)
    return {c: known.get(c, 0.0) for c in sorted(set("".join(books)))}


RIGHT = [by_find, by_lookahead, by_table, by_recursion, with_zeros, functools.partial(by_table)]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_counting_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour01", learner), said()
    assert said().startswith("tour01: right. ")


def first_known(
    count: Callable[[Books, str], Counter[str]] = followers,
    cut: Callable[[str, int], list[str]] = ends,
    share: Callable[[Counter[str]], Any] = shares,
) -> Callable[[Books, str, int], Any]:
    def learner(books: Books, prefix: str, most: int) -> Any:
        return next(share(found) for end in cut(prefix, most) if (found := count(books, end)))

    return learner


def jumping(books: Books, end: str) -> Counter[str]:
    if not end:
        return followers(books, end)
    found: Counter[str] = Counter()
    for book in books:
        at = book.find(end)
        while at >= 0:
            found.update(book[at + len(end) : at + len(end) + 1])
            at = book.find(end, at + len(end))
    return found


def only_first_place(books: Books, end: str) -> Counter[str]:
    places = ((book, book.find(end)) for book in books)
    return Counter(book[at + len(end)] for book, at in places if at >= 0 and at + len(end) < len(book))


def behind_the_last(books: Books, end: str) -> Counter[str]:
    return Counter(book[i + len(end)] for book in books for i in range(len(book)) if book.startswith(end, i))


def itself(books: Books, end: str) -> Counter[str]:
    found = followers(books, end)
    return Counter({end[-1]: found.total()}) if end and found else found


def no_fall_back(books: Books, prefix: str, most: int) -> Any:
    return shares(followers(books, prefix[max(0, len(prefix) - most) :]))


def divides_by_zero(books: Books, prefix: str, most: int) -> Any:
    found = followers(books, prefix[max(0, len(prefix) - most) :])
    total = found.total()
    return {c: found[c] / total for c in set("".join(books))}


def none_at_the_end(books: Books, prefix: str, most: int) -> Any:
    found = followers(books, prefix[max(0, len(prefix) - most) :])
    return shares(found) if found else None


def all_at_once(books: Books, prefix: str, most: int) -> Any:
    found = followers(books, prefix[max(0, len(prefix) - most) :])
    return shares(found or Counter("".join(books)))


def slice_of_zero(prefix: str, most: int) -> list[str]:
    end = prefix[-most:]
    return [end[i:] for i in range(len(end) + 1)]


def negative_start(prefix: str, most: int) -> list[str]:
    end = prefix[len(prefix) - most :]
    return [end[i:] for i in range(len(end) + 1)]


def drops_the_last(prefix: str, most: int) -> list[str]:
    end = prefix[max(0, len(prefix) - most) :]
    return [end[: len(end) - i] for i in range(len(end) + 1)]


def added_up(books: Books, prefix: str, most: int) -> Any:
    return shares(sum((followers(books, end) for end in ends(prefix, most)), Counter[str]()))


def writes_into_books(books: list[str], prefix: str, most: int) -> Any:
    answer = by_find(books, prefix, most)
    books.append("")
    return answer


MISTAKES: dict[str, tuple[Any, str]] = {
    "books joined": (first_known(lambda books, end: followers(["".join(books)], end)), "joined into one text"),
    "overlaps missed": (first_known(jumping), "Occurrences that overlap are missed"),
    "first place only": (first_known(only_first_place), "Only the first occurrence in each book"),
    "first book only": (
        first_known(lambda books, end: followers(books[:1], end) or followers(books, end)), "Only the first book"
    ),
    "behind the last character": (first_known(behind_the_last), "behind the last one of a book"),
    "the context's own last character": (first_known(itself), "the last character of the context itself"),
    "empty when unknown": (no_fall_back, "The dictionary is empty"),
    "divides by zero": (divides_by_zero, "It divides by zero"),
    "None when unknown": (none_at_the_end, "It returns None"),
    "all characters at once": (all_at_once, "the shares of all characters at once"),
    "prefix[-0:]": (first_known(cut=slice_of_zero), "prefix[-0:] is the whole prefix"),
    "a negative start": (first_known(cut=negative_start), "a negative start counts from the end"),
    "drops the last": (first_known(cut=drops_the_last), "by dropping the last character"),
    "context from the front": (first_known(cut=lambda p, m: ends(p[:m], m)), "from the beginning of the prefix"),
    "most ignored": (first_known(cut=lambda p, m: ends(p, len(p) if m else 0)), "More than `most` characters"),
    "one too short": (first_known(cut=lambda p, m: ends(p, max(0, m - 1))), "A shorter context is used"),
    "counts": (first_known(share=dict), "counts, not shares"),
    "percent": (first_known(share=lambda f: {c: 100 * p for c, p in shares(f).items()}), "these are percent"),
    "all alike": (first_known(share=lambda f: dict.fromkeys(f, 1 / len(f))), "the same share"),
    "divided by all characters": (first_known(share=lambda f: {c: k / 60 for c, k in f.items()}), "instead of 1"),
    "all ends together": (added_up, "several ends are added together"),
    "a list": (first_known(share=lambda f: list(f)), "of type list"),
    "writes into books": (writes_into_books, "changes its input books"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour01", MISTAKES, mistake)


def test_the_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour01", MISTAKES, 20)
