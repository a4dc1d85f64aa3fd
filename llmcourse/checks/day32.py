"""Checker of day 32: three presets picked by a rule from measured settings.

The tables of settings are made here, so that each mistake picks another row than the rule does. Every goal has a
table of its own, and the names are no numbers: what is found must come from the measures.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

from . import Wrong, blame, exercise

Row = dict[str, Any]
Pick = Callable[[list[Row], Row, str], Any]


def pick(rows: list[Row], real: Row, goal: str) -> Any:
    """The name of the row that fits the goal: conservative, balanced or creative."""

    def as_good(a: Row, b: Row) -> bool:  # a's valid words are not below b's by more than two standard errors
        return b["valid"] - a["valid"] <= 2 * math.hypot(a["valid_se"], b["valid_se"])

    if goal == "creative":
        return min(rows, key=lambda r: abs(r["bits"] - real["bits"]))["name"]
    if goal == "conservative":
        mark = max(rows, key=lambda r: r["valid"])
    elif goal == "balanced":
        mark = real
    else:
        raise ValueError(f"no such goal: {goal!r}")
    good = [r for r in rows if as_good(r, mark)]
    if not good:
        raise ValueError("no row spells as well as the author")
    return max(good, key=lambda r: r["distinct"])["name"]


def row(name: Any, valid: float, distinct: float, bits: float, se: float = 0.004) -> Row:
    return {
        "name": name, "valid": valid, "valid_se": se, "distinct": distinct, "distinct_se": 0.01,
        "bits": bits, "bits_se": 0.03,
    }  # fmt: skip


REAL = row("real", 0.940, 0.85, 2.30, 0.003)

# The highest is "top". "tied" is 1.6 errors of the difference below, and more diverse;
# "wild" is more diverse still and clearly below.
SAFE = [
    row("wild", 0.900, 0.93, 2.50), row("dull", 0.989, 0.60, 1.55), row("top", 0.9915, 0.70, 1.65, 0.003),
    row("tied", 0.982, 0.78, 1.75, 0.005), row("fair", 0.965, 0.84, 1.90), row("poor", 0.850, 0.80, 2.65),
]  # fmt: skip
# As well spelled as the author (0.940): "near" is below him by 1.4 standard errors of the difference, "over" by 4.
EVEN = [
    row("over", 0.914, 0.89, 2.10, 0.0058), row("safe", 0.992, 0.70, 1.65), row("near", 0.933, 0.87, 2.05),
    row("above", 0.960, 0.86, 2.25), row("broad", 0.870, 0.94, 2.31), row("close", 0.942, 0.80, 2.30),
]  # fmt: skip
# The author's bits are 2.30: nearest is "a little above"; the nearest below, the lowest, the highest are others.
FREE = [
    row("cold", 0.990, 0.75, 1.60), row("warm", 0.940, 0.88, 2.12), row("right", 0.905, 0.90, 2.38),
    row("hot", 0.850, 0.95, 2.80), row("odd", 0.941, 0.85, 1.20),
]  # fmt: skip
HOPELESS = [row("bad", 0.60, 0.95, 3.5), row("worse", 0.50, 0.97, 3.9)]


@exercise(
    "day32",
    title="Three presets",
    signature="pick(rows, real, goal)",
    hints=[
        'Begin with creative: min(rows, key=lambda r: abs(r["bits"] - real["bits"])) is a whole row; return its name.',
        "For the other two: the valid words of row a are as good as those of b if "
        'b["valid"] - a["valid"] <= 2 * math.hypot(a["valid_se"], b["valid_se"]).',
        "Conservative and balanced differ only in what the rows are compared with: the row with the most valid words, "
        "or real. Keep the rows that are as good, and of these take the highest distinct.",
    ],
    solution=pick,
    right="Each goal gets its row: by its own measure, with the noise in mind, from tables you have not seen.",
)
def check_pick(learner: Pick) -> None:
    names = {goal: ask(learner, table, goal) for goal, table in (
        ("creative", FREE), ("conservative", SAFE), ("balanced", EVEN))}  # fmt: skip
    judge_creative(names["creative"])
    if names["conservative"] == "top":
        check_narrow(learner, "conservative")
    judge_conservative(names["conservative"])
    if names["balanced"] == "above":
        check_narrow(learner, "balanced")
    judge_balanced(names["balanced"])
    check_elsewhere(learner)
    check_refusals(learner)


def ask(learner: Pick, table: list[Row], goal: str, real: Row = REAL) -> Any:
    """What the learner picks: one of the names, or Wrong."""
    rows, author = copy.deepcopy(table), copy.deepcopy(real)
    with blame(f"For the goal {goal!r} and rows like those of the page your function stops with an error"):
        said = learner(rows, author, goal)
    if rows != table or author != real:
        raise Wrong(
            "Your function changes the list or its rows (sort, remove, or an assignment into a row do that), and the "
            "next goal needs them whole: use sorted, or build a new list."
        )
    if said is None:
        raise Wrong(f"For the goal {goal!r} your function returned None: does every branch end in a return?")
    if isinstance(said, dict):
        raise Wrong('You return a whole row; what is wanted is its name, row["name"].')
    if isinstance(said, list | set) or (isinstance(said, tuple) and said not in [r["name"] for r in table]):
        raise Wrong("You return several things; what is wanted is the name of one row.")
    if said == real["name"]:
        raise Wrong("You pick the author: real is the yardstick, not one of the settings.")
    if said not in [r["name"] for r in table]:
        raise Wrong(
            f"You return {said!r:.30}, which is no name of a row: a position or a measure is not what is wanted."
        )
    return said


def check_narrow(learner: Pick, goal: str) -> None:
    """A row a trace below the mark, with large errors: who takes it has a margin, but too small a one."""
    mark, below = row("mark", 0.950, 0.70, 1.6, 0.2), row("below", 0.948, 0.80, 1.9, 0.2)
    if ask(learner, [mark, below], goal, row("real", 0.950, 0.85, 2.30, 0.2)) == "below":
        raise Wrong(
            "Your margin for the noise is too small: a row 1.4 standard errors of the difference below is passed over. "
            'The limit is 2 * math.hypot(a["valid_se"], b["valid_se"]): two, both errors, and with the root.'
        )


def judge_creative(name: Any) -> None:
    if name == "odd":
        raise Wrong(
            "For creative you take the lowest bits: that is the most predictable text, not the most like the "
            "author's."
        )
    if name == "hot":
        raise Wrong(
            "For creative you take the highest bits or diversity: noise wins that; wanted is the row nearest to the "
            "author."
        )
    if name == "warm":
        raise Wrong(
            "For creative a row above the author's bits is passed over, though it is the nearest: take the absolute "
            "value of the distance."
        )
    if name != "right":
        raise Wrong(
            "For creative you compare by another measure than bits: wanted is the row whose bits are nearest to "
            "real's."
        )


def judge_conservative(name: Any) -> None:
    if name == "top":
        raise Wrong(
            "For conservative you take the highest number as it stands: a row within the noise of it is more diverse; "
            "count rows within two standard errors of the difference as equally good."
        )
    if name == "wild":
        raise Wrong(
            "For conservative you pick the most diverse row of all, however it spells: first keep those that spell "
            "best."
        )
    if name == "dull":
        raise Wrong(
            "For conservative, among the rows that spell equally well, you take the least diverse: wanted is the "
            "most diverse."
        )
    if name == "fair":
        raise Wrong(
            "For conservative you let in too much: a row 0.027 below the highest, more than five standard errors, "
            "counts as "
            "equal."
        )
    if name == "poor":
        raise Wrong("For conservative you take the fewest valid words: the wrong end of the list.")
    assert name == "tied", name


def judge_balanced(name: Any) -> None:
    if name == "broad":
        raise Wrong(
            "For balanced you forget the floor: the row you pick is the most diverse, and spells far below the "
            "author."
        )
    if name == "over":
        raise Wrong(
            "For balanced you let in a row four standard errors of the difference below the author: the limit is two."
        )
    if name == "above":
        raise Wrong(
            "For balanced you demand at least the author's own number: a row below it by less than two standard "
            "errors of the "
            "difference spells as well as he, as far as anyone can tell."
        )
    if name == "safe":
        raise Wrong(
            "For balanced you take the best speller: wanted is the most diverse of those that spell as well as the "
            "author."
        )
    if name == "close":
        raise Wrong(
            "For balanced you take the row whose valid words are nearest to the author's: wanted is the most diverse "
            "of all that spell as well as he."
        )
    assert name == "near", name


def check_elsewhere(learner: Pick) -> None:
    """Where single errors, fixed margins and the order of the rows lead elsewhere; names that are pairs."""
    narrow = [row((0.5, 5), 0.990, 0.70, 1.6, 0.0005), row((0.8, 5), 0.985, 0.80, 1.9, 0.0005)]
    wide = [row((0.5, 5), 0.990, 0.70, 1.6, 0.02), row((0.8, 5), 0.955, 0.80, 1.9, 0.02)]
    if ask(learner, narrow, "conservative") != (0.5, 5) or ask(learner, wide, "conservative") != (0.8, 5):
        raise Wrong(
            "Your margin for the noise is a fixed number: when the standard errors of the rows are ten times smaller "
            "or "
            "larger, it has to shrink or grow with them."
        )
    either = [row("first", 0.990, 0.70, 1.6, 0.003), row("second", 0.9815, 0.80, 1.9, 0.004)]  # 1.7 of the difference
    sure = copy.deepcopy(REAL) | {"valid": 0.99, "valid_se": 0.004}
    again = [row("second", 0.980, 0.80, 1.9, 0.004), row("first", 0.995, 0.70, 1.6, 0.003)]  # 1.77 of the difference
    if ask(learner, either, "conservative") != "second" or ask(learner, again, "balanced", sure) != "second":
        raise Wrong(
            "You use the standard error of one side alone: a difference has the errors of both, "
            'math.hypot(a["valid_se"], b["valid_se"]).'
        )
    apart = [row("first", 0.990, 0.70, 1.6, 0.003), row("second", 0.978, 0.80, 1.9, 0.004)]  # 2.4; with the sum 1.7
    if ask(learner, apart, "conservative") != "first":
        raise Wrong(
            "You add the two standard errors: independent errors partly cancel, so the error of a difference is "
            "the root of the sum of squares, which is smaller."
        )
    better = [row("well", 0.990, 0.95, 1.6), row("even", 0.940, 0.80, 2.3)]
    if ask(learner, better, "balanced") != "well":
        raise Wrong(
            "For balanced you shut out a row that spells better than the author: only rows below him by more than two "
            "standard errors fall out."
        )
    vague = [row("vague", 0.940, 0.80, 2.00) | {"bits_se": 0.5}, row("sharp", 0.940, 0.80, 2.40) | {"bits_se": 0.01}]
    if ask(learner, vague, "creative") != "sharp":
        raise Wrong(
            "For creative you count the distance in standard errors, and that favors the row that was measured worst: "
            "wanted are the nearest bits."
        )
    for goal, table in (("creative", FREE), ("conservative", SAFE), ("balanced", EVEN)):
        if ask(learner, table[::-1], goal) != ask(learner, table, goal):
            raise Wrong(f"For {goal}, the same rows in another order give another answer.")


def check_refusals(learner: Pick) -> None:
    with blame("Conservative must not ask how the author spells; where all rows spell badly it stops with an error"):
        said = learner(copy.deepcopy(HOPELESS), copy.deepcopy(REAL), "conservative")
    if said != "bad":
        raise Wrong("With rows that all spell badly, conservative still means the best speller among them.")
    for rows, goal, what in (
        (HOPELESS, "balanced", "If no row spells as well as the author, balanced has no answer"),
        (SAFE, "poetic", "A goal that does not exist gets an answer"),
    ):
        try:
            learner(copy.deepcopy(rows), copy.deepcopy(REAL), goal)
        except ValueError as e:
            if any(word in str(e) for word in ("iterable argument is empty", "arg is an empty sequence")):
                raise Wrong(
                    "With no row left, the error is the one of max on an empty list: test for that case, and raise a "
                    "ValueError that says what is missing."
                ) from e
        except Exception as e:
            raise Wrong(f"{what}, and what comes is a {type(e).__name__}: raise a ValueError that says why.") from e
        else:
            raise Wrong(f"{what}: raise a ValueError that says so.")
