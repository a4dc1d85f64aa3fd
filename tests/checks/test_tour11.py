"""Tour 11: the right grader passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from llmcourse.checks import check

Say = Callable[[], str]


def by_regex(reply: str, answer: str) -> float:
    if len(re.findall("answer:", reply, re.IGNORECASE)) != 1:
        return 0.0
    return 1.0 if re.search(rf"answer:\s*{re.escape(answer)}\s*\.?\s*$", reply, re.IGNORECASE) else 0.0


def by_partition(reply: str, answer: str) -> bool:
    _, marker, rest = reply.casefold().partition("answer:")
    return bool(marker) and "answer:" not in rest and rest.strip().rstrip(".").strip() == answer.casefold()


def by_count(reply: str, answer: str) -> int:
    text = reply.lower()
    if text.count("answer:") != 1:
        return 0
    said = text[text.index("answer:") + 7 :].split()
    if said and said[-1] == ".":
        said = said[:-1]
    return int(" ".join(said).removesuffix(".") == answer.lower())


@pytest.mark.parametrize("learner", [by_regex, by_partition, by_count])
def test_grader_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour11", learner), said()
    assert said().startswith("tour11: right. ")


def parts(reply: str) -> list[str]:
    return reply.lower().split("answer:")


def clean(text: str) -> str:
    return text.strip().removesuffix(".").strip()


def generous(reply: str, answer: str) -> float:
    return float(answer.lower() in reply.lower())


def last_part(reply: str, answer: str) -> float:  # without a marker, the whole reply
    return float(clean(parts(reply)[-1]) == answer.lower())


def last_word(reply: str, answer: str) -> float:
    said = reply.lower().replace(".", " ").split()
    return float(bool(said) and "answer:" in reply.lower() and said[-1] == answer.lower())


def no_marker_fails(reply: str, answer: str) -> float:
    return float(clean(parts(reply)[1]) == answer.lower() and len(parts(reply)) == 2)


def empty_fails(reply: str, answer: str) -> float:
    last = reply.split()[-1]
    return by_regex(reply, answer) if last else 0.0


def last_of_two(reply: str, answer: str) -> float:
    return float(len(parts(reply)) > 1 and clean(parts(reply)[-1]) == answer.lower())


def first_of_two(reply: str, answer: str) -> float:
    return float(len(parts(reply)) > 1 and clean(parts(reply)[1]) == answer.lower())


def all_the_same(reply: str, answer: str) -> float:
    said = {clean(p) for p in parts(reply)[1:]}
    return float(said == {answer.lower()})


def one(test: Callable[[str, str], bool]) -> Callable[[str, str], float]:
    """A grader that wants one marker, and then `test(text behind it, answer)`."""
    return lambda reply, answer: float(len(parts(reply)) == 2 and test(clean(parts(reply)[1]), answer.lower()))


def case_of_marker(reply: str, answer: str) -> float:
    p = reply.split("answer:")
    return float(len(p) == 2 and clean(p[1]).lower() == answer.lower())


def case_of_reply(reply: str, answer: str) -> float:
    p = re.split("answer:", reply, flags=re.IGNORECASE)
    return float(len(p) == 2 and clean(p[1]) == answer.lower())


def case_of_answer(reply: str, answer: str) -> float:
    return float(len(parts(reply)) == 2 and clean(parts(reply)[1]) == answer)


def by_find(reply: str, answer: str) -> float:  # find gives -1 without a marker
    text = reply.lower()
    return float(text[text.find("answer:") + 7 :].strip(" .\n") == answer.lower())


def space_wanted(reply: str, answer: str) -> float:
    p = reply.lower().split("answer: ")
    return float(len(p) == 2 and clean(p[1]) == answer.lower())


def no_stop(reply: str, answer: str) -> float:
    return float(len(parts(reply)) == 2 and parts(reply)[1].strip() == answer.lower())


def no_strip(reply: str, answer: str) -> float:
    return float(len(parts(reply)) == 2 and parts(reply)[1].removeprefix(" ").removesuffix(".") == answer.lower())


def strip_once(reply: str, answer: str) -> float:
    return float(len(parts(reply)) == 2 and parts(reply)[1].strip().removesuffix(".") == answer.lower())


def nothing(reply: str, answer: str) -> float | None:
    return 1.0 if by_regex(reply, answer) else None


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "anywhere": (generous, "only among the thoughts"),
    "no marker": (last_part, "the bare name is not in the expected form"),
    "find without a marker": (by_find, "`find` gives -1"),
    "space wanted": (space_wanted, "split at “answer:” alone"),
    "no marker fails": (no_marker_fails, "on a reply without “answer:”"),
    "empty fails": (empty_fails, "on an empty reply"),
    "last of two": (last_of_two, "with two tries a model would name two heroes"),
    "first of two": (first_of_two, "whoever answers twice has not decided"),
    "all the same": (all_the_same, "the right name given twice"),
    "begins": (one(lambda said, answer: said.startswith(answer)), "begins with the name"),
    "ends": (one(lambda said, answer: said.split()[-1:] == [answer]), "ends with the name"),
    "in a list": (
        one(lambda said, answer: (answer in said.split() and answer not in (said.split()[0], said.split()[-1]))
            or said == answer),
        "a list of all heroes",
    ),
    "part of a word": (one(lambda said, answer: said.split(" ")[-1].endswith(answer) and " " not in said), "“firefox”"),
    "other way round": (one(lambda said, answer: bool(said) and said in answer), "a piece of the name"),
    "empty name": (one(lambda said, answer: said in ("", answer)), "a marker with nothing behind it"),
    "full stop": (no_stop, "your grader stumbles over it"),
    "spaces": (no_strip, "strip them on both sides"),
    "strip once": (strip_once, "strip once more"),
    "case of the marker": (case_of_marker, "The marker may be written"),
    "case of the reply": (case_of_reply, "The reply may say"),
    "case of the answer": (case_of_answer, "The argument `answer` may be"),
    "reversed": (lambda reply, answer: 1 - by_regex(reply, answer), "1.0 is for right replies"),
    "always paid": (lambda reply, answer: 1.0, "to every reply"),
    "returns nothing": (nothing, "every path needs a return"),
    "returns text": (lambda reply, answer: "right", "the reward is the number"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour11", WRONG, mistake)


def test_last_word_is_not_enough(said: Say) -> None:
    assert not check("tour11", last_word)
    assert "with two tries" in said()


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour11", WRONG, least=18)
