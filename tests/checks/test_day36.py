"""Day 36: right cleaners pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from llmcourse.checks import check, day36

Say = Callable[[], str]
clean = day36.clean


def by_splitting(text: str) -> str:
    """Cuts the licence with regular expressions, and goes through the rest line by line."""
    text = re.sub(r"\A.*?^\*\*\* START.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\*\*\* END.*\Z", "", text, flags=re.DOTALL | re.MULTILINE)
    kept: list[str] = []
    for line in text.strip("\n").split("\n"):
        bare = line.strip()
        if bare.isdigit() or re.fullmatch(r"\[Page \d+\]", bare) or (bare[:1] == "<" and bare[-1:] == ">"):
            continue
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip("\n")


class Cleaner:
    def __call__(self, text: str) -> str:
        return clean(text)


@pytest.mark.parametrize("learner", [by_splitting, Cleaner(), clean], ids=["regex", "object", "reference"])
def test_clean_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day36", learner), said()
    assert said().startswith("day36: right. ")


def keep_if(rule: Callable[[str], bool]) -> Callable[[str], str]:
    return lambda text: clean("\n".join(x for x in text.split("\n") if rule(x)))


def published(text: str) -> str:
    lines = [x for x in text.split("\n") if not (len(x.strip()) < 4 or x.startswith("***") or x.isupper())]
    docs = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).split("\n\n")
    return "\n\n".join(d for d in docs if 50 < len(d.split()) < 2000)


def by_prefix(text: str) -> str:
    return "\n\n".join({d[:100]: d for d in clean(text).split("\n\n")}.values())


def once_each(text: str) -> str:
    seen: set[str] = set()
    out = [x for x in clean(text).split("\n") if x.endswith(":") or not x or (x not in seen and not seen.add(x))]
    return "\n".join(out)


def early_squeeze(text: str) -> str:
    text = re.sub(r"\n{3,}", "\n\n", text)
    return "\n".join(x for x in text.split("\n") if not re.fullmatch(r"\d+|\[Page \d+\]|<[^<>]+>", x)).strip("\n")


def keeps(pattern: str) -> Callable[[str], str]:
    """A cleaner that does not know one kind of dirt: it hides it from the right one."""
    return lambda text: re.sub("§(.*?)§", r"\1", clean(re.sub(f"(?m)^({pattern})$", r"§\1§", text)))


def after_start(text: str) -> str:  # keeps the header
    return clean(text.replace("*** START OF THIS PLAY ***\n", ""))


def before_end(text: str) -> str:  # keeps the footer
    return clean(text.replace("*** END OF THIS PLAY ***\n", ""))


def keeps_marker(text: str) -> str:
    found = re.search(r"(?m)^\*\*\* START.*$", text)
    return (f"{found[0]}\n\n" if found else "") + clean(text)


def blank_for_page(text: str) -> str:
    return clean(re.sub(r"(?m)^(\d+|\[Page \d+\])$", "", text))


def trims(text: str) -> str:
    return clean("\n".join(x.strip() for x in text.split("\n")))


def no_squeeze(text: str) -> str:
    return clean(text.replace("\n\n\n", "\n \n ")).replace(" ", " ").replace("\n \n ", "\n\n\n")


MISTAKES = {
    "published": (published, "run into each other"),
    "empty": (lambda text: "", "Nothing is left"),
    "capitals": (keep_if(lambda x: not (x.isupper() and len(x) > 3)), "The speaker line ROMEO:"),
    "colons": (keep_if(lambda x: not x.endswith(":") or x.isupper()), "The speaker line First Citizen:"),
    "blank lines": (lambda text: clean(text).replace("\n\n", "\n"), "run into each other"),
    "double": (lambda text: clean(text).replace("\n\n", "\n\n\n"), "more blank lines than before"),
    "short": (keep_if(lambda x: not 0 < len(x) < 4), "Short lines are deleted"),
    "prefix": (by_prefix, "the same hundred characters"),
    "refrain": (once_each, "a refrain is no mistake"),
    "lower": (lambda text: clean(text).lower(), "between capitals and small ones"),
    "number": (keep_if(lambda x: not re.search(r"\d", x) or "***" in x), "only contains a number"),
    "tag": (lambda text: re.sub(r"<[^>]*>", "", clean(text)), "A tag in the middle"),
    "indent": (trims, "Spaces in front of a line"),
    "pages": (keeps(r"\d+"), "only a page number, 12"),
    "brackets": (keeps(r"\[Page \d+\]"), "only a page number, [Page 12]"),
    "tags": (keeps(r"<[^<>]+>"), "only a tag, <hr>"),
    "tags with attributes": (keeps(r'<p class="stage">'), "only a tag, <p ...>"),
    "empty for page": (blank_for_page, "cuts a speech in two"),
    "early squeeze": (early_squeeze, "squeeze them last"),
    "header": (after_start, "in front of the line *** START"),
    "footer": (before_end, "after the line *** END"),
    "marker": (keeps_marker, "they go with the licence"),
    "list": (lambda text: clean(text).split("\n"), "a list of pieces"),
    "nothing": (lambda text: None, "returned None"),
    "again and again": (lambda text: clean(text) + "\n\nFINIS", "must be the same as doing it once"),
    "ends": (lambda text: clean(text) + ("\n" if text.endswith("\n") else ""), "the beginning or the end of the file"),
    "comma": (lambda text: clean(text).replace("Is the day", "is the Day,"), "changed or deleted that is no dirt"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_of_cleaning_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day36", MISTAKES, mistake)


def test_cleaning_mistakes_are_told_apart(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day36", MISTAKES, 20)


# Near-duplicates

near = day36.near_duplicates


def by_combinations(documents: list[str], threshold: float) -> list[tuple[int, int]]:
    def shingles(d: str) -> frozenset[str]:
        return frozenset(map("".join, zip(*(d[i:] for i in range(5)), strict=False))) or frozenset([d])

    sets = [shingles(d) for d in documents]
    score = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in combinations(range(len(sets)), 2)}
    return [p for p, s in score.items() if s >= threshold]


def by_lists(documents: list[str], threshold: float) -> list[list[int]]:
    return [list(p) for p in near(documents, threshold)]


@pytest.mark.parametrize("learner", [by_combinations, by_lists, near], ids=["combinations", "lists", "reference"])
def test_near_duplicates_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("day36b", learner), said()
    assert said().startswith("day36b: right. ")


def other(make: Callable[[str], Any], how: str = "jaccard") -> Callable[[list[str], float], Any]:
    return lambda documents, threshold: day36.found(make, threshold, how)


def empty_sets(documents: list[str], threshold: float) -> list[tuple[int, int]]:
    sets = [{d[i : i + 5] for i in range(len(d) - 4)} for d in documents]
    return [
        (i, j) for i, j in combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    ]  # fmt: skip


def writes(documents: list[str], threshold: float) -> list[tuple[int, int]]:
    out = near(documents, threshold)
    documents.pop()
    return out


NEAR_MISTAKES = {
    "above": (other(day36.runs(5), "above"), "exactly the threshold"),
    "smaller": (other(day36.runs(5), "smaller"), "by the smaller set"),
    "larger": (other(day36.runs(5), "larger"), "by the larger of the two"),
    "sum": (other(day36.runs(5), "sum"), "counts the common shingles twice"),
    "first": (other(day36.runs(5), "first"), "the first set only"),
    "last": (other(day36.runs(5, 0)), "last shingle of each text"),
    "four": (other(day36.runs(4)), "of four characters; five"),
    "six": (other(day36.runs(6)), "of six characters; five"),
    "words": (other(lambda d: set(d.split())), "sets of words"),
    "letters": (other(set), "single characters"),
    "lower": (other(lambda d: day36.runs(5)(d.lower())), "small letters first"),
    "blocks": (other(lambda d: {d[i : i + 5] for i in range(0, max(1, len(d) - 4), 5)}), "blocks side by side"),
    "exact": (other(lambda d: {d}), "Only equal texts"),
    "divides": (empty_sets, "divides by zero"),
    "writes": (writes, "changes the list of documents"),
    "itself": (lambda d, t: sorted([*near(d, t), (0, 0)]), "paired with itself"),
    "both ways": (lambda d, t: sorted(near(d, t) + [(j, i) for i, j in near(d, t)]), "comes twice"),
    "wrong way": (lambda d, t: [(j, i) for i, j in near(d, t)], "the wrong way round"),
    "unsorted": (lambda d, t: near(d, t)[::-1], "not sorted"),
    "set": (lambda d, t: set(near(d, t)), "which has no order"),
    "texts": (lambda d, t: [d[j] for i, j in near(d, t)], "returns texts"),
    "one number": (lambda d, t: [i for i, j in near(d, t)], "a pair of two whole numbers"),
    "short": (lambda d, t: [p for p in near(d, t) if p != (10, 11)], "is its own shingle"),
    "nothing": (lambda d, t: None, "returned None"),
    "dict": (lambda d, t: dict(near(d, t)), "something of type dict"),
    "anything": (lambda d, t: [(0, 12)], "missing"),
}


@pytest.mark.parametrize("mistake", NEAR_MISTAKES)
def test_each_mistake_of_near_duplicates_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    table = NEAR_MISTAKES if mistake != "anything" else {mistake: NEAR_MISTAKES[mistake]}
    table = {n: m for n, m in table.items() if n != "anything" or n == mistake}
    mistake_is_named("day36b", table, mistake)


def test_near_duplicate_mistakes_are_told_apart(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day36b", NEAR_MISTAKES, 20)
