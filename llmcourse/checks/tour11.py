"""Checker of Tour 11: the grader that pays for one right answer in the expected form, and for nothing else."""

from collections.abc import Callable
from typing import Any

from . import Wrong, call, exercise

Grader = Callable[[str, str], Any]


def grade(reply: str, answer: str) -> float:
    """1.0 if `reply` says "answer:" once and `answer`, nothing else, behind it; else 0.0."""
    parts = reply.lower().split("answer:")
    if len(parts) != 2:  # no answer, or several
        return 0.0
    said = parts[1].strip().removesuffix(".").strip()
    return float(said == answer.lower())


# reply, answer, what it is worth, and the sentence for a grader that thinks otherwise; the first that fits is said
CASES: list[tuple[str, str, float, str]] = [
    ("cat fox fox. answer: fox", "fox", 1.0, "A plain right reply, “cat fox fox. answer: fox”, earns nothing."),
    (
        "cat fox king. answer: king",
        "fox",
        0.0,
        "It pays for a name that occurs only among the thoughts: look behind “answer:”, nowhere else.",
    ),
    ("cat fox. answer: witch", "king", 0.0, "It pays although the answer is wrong and the right name occurs nowhere."),
    ("fox", "fox", 0.0, "It pays a reply without any “answer:”: the bare name is not in the expected form."),
    ("cat fox fox.", "fox", 0.0, "It pays thoughts that never come to an “answer:”."),
    (
        "It is fox",
        "fox",
        0.0,
        "It pays a reply without any “answer:”: `find` gives -1 where there is no marker, and goes on from there.",
    ),
    ("", "fox", 0.0, "It pays for an empty reply."),
    (
        "cat fox. answer: fox.",
        "fox",
        1.0,
        "One full stop behind the name does not count, but your grader stumbles over it.",
    ),
    (
        "cat fox. answer:   fox \n",
        "fox",
        1.0,
        "Spaces and line ends around the name do not count: strip them on both sides.",
    ),
    ("cat fox. answer: fox .\n", "fox", 1.0, "A space before the full stop does not count: strip once more behind it."),
    ("Cat fox. Answer: fox.", "fox", 1.0, "The marker may be written “Answer:”: upper and lower case do not count."),
    ("cat fox. answer: Fox", "fox", 1.0, "The reply may say “Fox” for “fox”: upper and lower case do not count."),
    ("cat fox. answer: fox", "Fox", 1.0, "The argument `answer` may be “Fox”: turn both sides to lower case."),
    (
        "answer: king. answer: fox.",
        "fox",
        0.0,
        "It pays for the last of two answers: with two tries a model would name two heroes.",
    ),
    (
        "answer: fox. answer: king.",
        "fox",
        0.0,
        "It pays for the first of two answers: whoever answers twice has not decided.",
    ),
    (
        "answer: fox. Answer: fox.",
        "fox",
        0.0,
        "It pays for the right name given twice: the marker may occur once only.",
    ),
    (
        "answer: fox king",
        "fox",
        0.0,
        "It pays as soon as the text behind the marker begins with the name: more may follow.",
    ),
    (
        "answer: king fox",
        "fox",
        0.0,
        "It pays as soon as the text behind the marker ends with the name: compare all of it.",
    ),
    (
        "answer: king or fox or witch",
        "fox",
        0.0,
        "It pays if the name stands somewhere behind the marker, so a list of all heroes would always be paid.",
    ),
    ("answer: firefox", "fox", 0.0, "It pays for a longer word that merely contains the name, such as “firefox”."),
    ("answer:", "fox", 0.0, "It pays for a marker with nothing behind it."),
    ("answer: .", "fox", 0.0, "It pays for a full stop in the place of a name."),
    (
        "answer: fo",
        "fox",
        0.0,
        "It pays for a piece of the name, “fo”: you ask whether one is in the other the wrong way round.",
    ),
    ("cat fox. answer:fox", "fox", 1.0, "No space is needed behind the marker: split at “answer:” alone."),
]  # fmt: skip


@exercise(
    "tour11",
    title="The grader",
    signature="grade(reply, answer)",
    hints=[
        'reply.lower().split("answer:") gives two parts if the marker occurs exactly once, else one, three or more.',
        "Of the second part, strip spaces, then one full stop (removesuffix), then spaces again.",
        "Compare what is left with answer.lower() by ==. Anything kinder pays for what you did not mean.",
    ],
    solution=grade,
    right="It pays for one answer, in any spelling of the form, and for nothing that only looks like one.",
)
def check_grade(learner: Grader) -> None:
    given = [worth(learner, reply, answer) for reply, answer, *_ in CASES]
    wanted = [points for _, _, points, _ in CASES]
    if given == [1 - w for w in wanted]:
        raise Wrong("It is the wrong way round: 1.0 is for right replies, 0.0 for all others.")
    if len(set(given)) == 1:
        raise Wrong(f"It gives {given[0]:.1f} to every reply, so there is nothing to be learned from it.")
    broken = [i for i, (g, w) in enumerate(zip(given, wanted, strict=True)) if g != w]
    if broken:
        # a grader that looks for the name anywhere also fails the narrower cases: the widest mistake comes first
        raise Wrong(CASES[broken[0]][3])


def worth(learner: Grader, reply: str, answer: str) -> float:
    """What the learner's grader gives; its failures become sentences."""
    try:
        got = call(learner, reply=reply, answer=answer)
    except (IndexError, ValueError) as e:
        if "answer:" not in reply.lower():
            what = "an empty reply" if not reply else "a reply without “answer:”"
            raise Wrong(
                f"It fails ({type(e).__name__}) on {what}: a model will send that too, and it is worth 0.0."
            ) from e
        raise Wrong(
            f"It fails ({type(e).__name__}) on the reply “{reply.strip()}”: whatever comes, give a number."
        ) from e
    if isinstance(got, bool | int | float) and float(got) in (0.0, 1.0):
        return float(got)
    if got is None:
        raise Wrong("It returns nothing for some replies: every path needs a return, 0.0 for all that is not right.")
    raise Wrong(f"It returns {type(got).__name__} {got!r:.30}: the reward is the number 1.0 or 0.0.")
