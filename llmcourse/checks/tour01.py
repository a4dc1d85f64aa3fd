"""Checker of tour 1: the shares of the next character by counting, with shorter and shorter contexts.

The books are so small that every count can be made by hand, and each typical slip gives a dictionary of its own.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from . import Wrong, call, exercise

Count = Callable[[Sequence[str], str, int], Any]
Shares = dict[str, float]

BOOKS = ["the cat sat. the cat ran. ", "a hat, a cat, a mat. ", "banana bandana. "]


def followers(books: Sequence[str], end: str) -> Counter[str]:
    """Which characters follow `end` inside a book, and how often."""
    places = ((book, i + len(end)) for book in books for i in range(len(book)) if book.startswith(end, i))
    return Counter(book[after] for book, after in places if after < len(book))


def next_char(books: Sequence[str], prefix: str, most: int) -> Shares:
    """{character: probability} after the longest known end of `prefix`, of at most `most` characters."""
    for start in range(max(0, len(prefix) - most), len(prefix) + 1):
        follows = followers(books, prefix[start:])
        if follows:
            return {c: k / follows.total() for c, k in follows.items()}
    raise ValueError("The books hold no character.")


@exercise(
    "tour01",
    title="Count, and fall back",
    signature="next_char(books, prefix, most)",
    hints=[
        "First solve one case: an end of the prefix that you know occurs. Go through every book and every position i, "
        "and where book.startswith(end, i), count the character at i + len(end), if the book has one there.",
        "Around it stands a loop over ends, the longest first: prefix[start:] for start = max(0, len(prefix) - most) "
        "up to len(prefix). The last of them is the empty text, which occurs everywhere.",
        "Stop at the first end that has followers, and divide each count by the sum of the counts.",
    ],
    solution=next_char,
    right="It counts inside of books, takes the longest end that is known, and its shares sum to 1.",
)
def check_next_char(learner: Count) -> None:
    # an end that occurs, at full length
    judge(learner, "the cat ", 4, "an end that occurs: 'cat ' in")
    judge(learner, "x th", 2, "an end that occurs: 'th' in")
    # occurrences that overlap: "ana" stands twice in "banana"
    judge(learner, "ban", 2, "an end that occurs more than once in one book: 'an' in")
    judge(learner, "ana", 3, "places that overlap: 'ana' in")
    # falling back
    judge(learner, "one rat", 6, "an end that no book has, so that a shorter one counts:")
    judge(learner, "he ran. ", 4, "an end that stands only at the end of a book, with nothing after it:")
    judge(learner, "zzz", 3, "an end of which not even the last character is known:")
    judge(learner, "the cat ", 0, "most = 0, no context at all, after")
    judge(learner, "", 3, "an empty prefix,")
    judge(learner, "at", 9, "a prefix shorter than `most`:")
    judge(learner, "cat", 5, "a prefix a little shorter than `most`:")  # prefix[3 - 5:] is "at"


def judge(learner: Count, prefix: str, most: int, case: str) -> None:
    """Raise the Wrong that fits, unless the shares after `prefix` are right."""
    try:
        got = call(learner, books=BOOKS, prefix=prefix, most=most)
    except ZeroDivisionError as e:
        raise Wrong(
            f"It divides by zero for the prefix {prefix!r}: when an end of the prefix is never followed by anything, "
            "drop its first character and count again."
        ) from e
    except IndexError as e:
        raise Wrong(
            "It looks for a character behind the last one of a book: an occurrence at the very end of a book has no "
            "next character and counts nothing."
        ) from e
    shares = as_shares(got, prefix)
    wanted = next_char(BOOKS, prefix, most)
    if same(shares, wanted):
        return
    diagnose(shares, wanted, prefix, most)
    raise Wrong(f"The shares are not right for {case} prefix {prefix!r}, most = {most}.")


def as_shares(got: Any, prefix: str) -> Shares:
    """What the learner returned, if it is a dictionary of probabilities."""
    if got is None:
        raise Wrong(
            f"It returns None for the prefix {prefix!r}: is there a return for every case, also when a longer end is "
            "not known?"
        )
    if isinstance(got, tuple) and got and isinstance(got[0], dict):
        raise Wrong("It returns several things: the dictionary of shares alone is wanted.")
    if not isinstance(got, dict):
        raise Wrong(f"It returns something of type {type(got).__name__}, where a dictionary of shares is wanted.")
    if not got:
        raise Wrong(
            f"The dictionary is empty for the prefix {prefix!r}: when an end of the prefix is never followed by "
            "anything, a shorter end must be tried."
        )
    if any(not isinstance(c, str) or len(c) != 1 for c in got):
        raise Wrong("The keys of the dictionary must be single characters, those that come next.")
    try:
        shares = {c: float(p) for c, p in got.items() if p != 0}
    except (TypeError, ValueError) as e:
        raise Wrong("The values of the dictionary must be numbers, the share of each character.") from e
    total = sum(shares.values())
    if shares and min(shares.values()) < 0:
        raise Wrong("Some values are negative: a logarithm has none of the properties of a share; leave it out.")
    if math.isclose(total, 100):
        raise Wrong("The values sum to 100: these are percent, and shares sum to 1.")
    if not math.isclose(total, 1, rel_tol=1e-6):
        if all(p == round(p) for p in shares.values()):
            raise Wrong("The values are counts, not shares: divide each by the sum of all.")
        raise Wrong(f"The shares sum to {total:.3g} instead of 1: by what are the counts divided?")
    return shares


def same(a: Shares, b: Shares) -> bool:
    return a.keys() == b.keys() and all(math.isclose(a[c], b[c], rel_tol=1e-6) for c in a)


def normalized(follows: Counter[str]) -> Shares:
    return {c: k / follows.total() for c, k in follows.items()} if follows else {}


def diagnose(shares: Shares, wanted: Shares, prefix: str, most: int) -> None:
    """Raise the Wrong of a slip that would give exactly these shares."""
    end = known_end(prefix, most)
    if same(shares, normalized(Counter("".join(BOOKS)))) and end:
        raise Wrong(
            "It falls back to the shares of all characters at once: drop one character of the end at a time, so that "
            "the longest known end decides."
        )
    if most == 0 and prefix:
        raise Wrong(
            "With most = 0 no context counts, but the result depends on the prefix: prefix[-0:] is the whole prefix; "
            "start the slice at max(0, len(prefix) - most)."
        )
    if len(prefix) < most and same(shares, next_char(BOOKS, prefix[len(prefix) - most :], most)):
        raise Wrong(
            f"With the prefix {prefix!r} and most = {most} the slice starts at {len(prefix) - most}, and a negative "
            "start counts from the end: start it at max(0, len(prefix) - most)."
        )
    if same(shares, normalized(jumping(end))):
        raise Wrong(
            "Occurrences that overlap are missed: 'ana' stands twice in 'banana'; go on one character after each "
            "place, not behind it (str.count and re.findall jump)."
        )
    if same(shares, joined(prefix, most)):
        raise Wrong("The books are joined into one text, so a context reaches from the end of one into the next.")
    if same(shares, normalized(first_only(end))):
        raise Wrong("Only the first occurrence in each book is counted: go on through the whole book.")
    if same(shares, normalized(followers(BOOKS[:1], end))):
        raise Wrong("Only the first book is counted: does a return or a break stand inside of the loop over the books?")
    if same(shares, dict.fromkeys(wanted, 1 / len(wanted))):
        raise Wrong("Every character that can follow gets the same share: count how often each one does.")
    if end and same(shares, {end[-1]: 1.0}):
        raise Wrong(
            "It counts the last character of the context itself, not the one behind it: that is at i + len(end)."
        )
    if len(prefix) > most > 0 and same(shares, from_the_front(prefix, most)):
        raise Wrong("The context is taken from the beginning of the prefix: the last characters are the nearest ones.")
    if same(shares, dropping_the_last(prefix, most)):
        raise Wrong("It falls back by dropping the last character: drop the first, the one farthest from the gap.")
    if len(prefix) > most and same(shares, next_char(BOOKS, prefix, len(prefix))):
        raise Wrong(f"More than `most` characters of context are used: prefix {prefix!r}, most = {most}.")
    if same(shares, next_char(BOOKS, prefix, max(0, len(end) - 1))):
        raise Wrong(
            f"A shorter context is used than the books allow: after {prefix!r} the end {end!r} is known and decides."
        )
    if same(shares, mixed(prefix, most)):
        raise Wrong("The counts of several ends are added together: only those of the longest known end count.")


def known_end(prefix: str, most: int) -> str:
    """The longest end of the prefix that is followed by something."""
    ends = (prefix[start:] for start in range(max(0, len(prefix) - most), len(prefix) + 1))
    return next(end for end in ends if followers(BOOKS, end))


def joined(prefix: str, most: int) -> Shares:
    """The shares when all books are one text."""
    text = ["".join(BOOKS)]
    ends = (prefix[start:] for start in range(max(0, len(prefix) - most), len(prefix) + 1))
    return next(normalized(follows) for end in ends if (follows := followers(text, end)))


def jumping(end: str) -> Counter[str]:
    """Followers of occurrences that do not overlap."""
    follows: Counter[str] = Counter()
    for book in BOOKS if end else []:
        at = book.find(end)
        while at >= 0:
            follows.update(book[at + len(end) : at + len(end) + 1])
            at = book.find(end, at + len(end))
    return follows


def first_only(end: str) -> Counter[str]:
    """Followers of the first occurrence in each book."""
    places = ((book, book.find(end)) for book in BOOKS)
    return Counter(c for book, at in places if at >= 0 for c in book[at + len(end) : at + len(end) + 1])


def from_the_front(prefix: str, most: int) -> Shares:
    """The shares after the first `most` characters instead of the last."""
    return next_char(BOOKS, prefix[:most], most)


def dropping_the_last(prefix: str, most: int) -> Shares:
    """The shares when the context is shortened at its wrong side."""
    end = prefix[max(0, len(prefix) - most) :]
    while end and not followers(BOOKS, end):
        end = end[:-1]
    return normalized(followers(BOOKS, end))


def mixed(prefix: str, most: int) -> Shares:
    """The shares of all ends, added up."""
    total: Counter[str] = Counter()
    for start in range(max(0, len(prefix) - most), len(prefix) + 1):
        total.update(followers(BOOKS, prefix[start:]))
    return normalized(total)
