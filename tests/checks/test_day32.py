"""The checker of day 32: presets by a rule. Right answers in several styles, and each mistake by its own words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from llmcourse.checks import check
from llmcourse.checks.day32 import EVEN, FREE, REAL, SAFE, Row, pick

Say = Callable[[], str]
Pick = Callable[[list[Row], Row, str], Any]


def by_sorting(rows: list[Row], real: Row, goal: str) -> Any:
    if goal not in ("conservative", "balanced", "creative"):
        raise ValueError("conservative, balanced or creative")
    if goal == "creative":
        return sorted(rows, key=lambda r: (r["bits"] - real["bits"]) ** 2)[0]["name"]
    best = sorted(rows, key=lambda r: -r["valid"])[0] if goal == "conservative" else real
    kept = []
    for r in rows:
        variance = r["valid_se"] ** 2 + best["valid_se"] ** 2
        if r["valid"] >= best["valid"] - 2 * math.sqrt(variance):
            kept.append(r)
    if len(kept) == 0:
        raise ValueError("none is as good as the author")
    return sorted(kept, key=lambda r: r["distinct"], reverse=True)[0]["name"]


def by_loops(rows: list[Row], real: Row, goal: str) -> Any:
    name, best = None, -math.inf
    top = real
    if goal == "conservative":
        top = rows[0]
        for r in rows:
            if r["valid"] > top["valid"]:
                top = r
    elif goal not in ("balanced", "creative"):
        raise ValueError(goal)
    for r in rows:
        score = r["distinct"]
        if goal == "creative":
            score = -abs(r["bits"] - real["bits"])
        else:
            gap = top["valid"] - r["valid"]
            if gap > 0 and gap**2 > 4 * (r["valid_se"] ** 2 + top["valid_se"] ** 2):
                continue
        if score > best:
            name, best = r["name"], score
    if name is None:
        raise ValueError("nothing is good enough")
    return name


RIGHT = {"reference": pick, "by sorting": by_sorting, "by loops": by_loops}


@pytest.mark.parametrize("style", RIGHT)
def test_right_answers_pass(style: str, said: Say) -> None:
    assert check("day32", RIGHT[style]), said()
    assert "day32: right." in said()


def broken(
    *, creative: Callable[[Row, Row], float] | None = None, limit: float = 2,
    margin: Callable[[Row, Row], float] | None = None, ties: int = 1, floor: bool = True, refuse: bool = True,
    which: str = "both",
) -> Pick:  # fmt: skip
    """The right function with one screw loose."""

    def function(rows: list[Row], real: Row, goal: str) -> Any:
        if goal == "creative":
            return min(rows, key=lambda r: (creative or (lambda r, a: abs(r["bits"] - a["bits"])))(r, real))["name"]
        if refuse and goal not in ("conservative", "balanced"):
            raise ValueError("no such goal")
        mark = max(rows, key=lambda r: r["valid"]) if goal == "conservative" else real
        loose = which in ("both", goal)
        room = margin if margin and loose else lambda a, b: math.hypot(a["valid_se"], b["valid_se"])
        allowed = limit if loose else 2
        good = [r for r in rows if mark["valid"] - r["valid"] <= allowed * room(r, mark)]
        if not floor and loose:
            good = rows
        if not good:
            raise ValueError("no row spells as well as the author")
        return max(good, key=lambda r: (ties if loose else 1) * r["distinct"])["name"]

    return function


def instead(goal: str, answer: Callable[[list[Row], Row], Any]) -> Pick:
    """Right but for one goal."""
    return lambda rows, real, wanted: answer(rows, real) if wanted == goal else pick(rows, real, wanted)


def best_speller(rows: list[Row], real: Row) -> Any:
    return max(rows, key=lambda r: r["valid"])["name"]


def sorts_in_place(rows: list[Row], real: Row, goal: str) -> Any:
    rows.sort(key=lambda r: r["valid"])
    return pick(rows, real, goal)


def empty_max(rows: list[Row], real: Row, goal: str) -> Any:
    if goal != "balanced":
        return pick(rows, real, goal)
    good = [r for r in rows if real["valid"] - r["valid"] <= 2 * math.hypot(r["valid_se"], real["valid_se"])]
    return max(good, key=lambda r: r["distinct"])["name"]


def falls_through(rows: list[Row], real: Row, goal: str) -> Any:
    return pick(rows, real, goal if goal in ("conservative", "balanced") else "creative")


def both_ways(rows: list[Row], real: Row, goal: str) -> Any:
    if goal != "balanced":
        return pick(rows, real, goal)
    good = [r for r in rows if abs(real["valid"] - r["valid"]) <= 2 * math.hypot(r["valid_se"], real["valid_se"])]
    if not good:
        raise ValueError("nobody spells like the author")
    return max(good, key=lambda r: r["distinct"])["name"]


def none_if_empty(rows: list[Row], real: Row, goal: str) -> Any:
    try:
        return pick(rows, real, goal)
    except ValueError:
        if goal == "balanced":
            return None
        raise


def author_as_floor(rows: list[Row], real: Row, goal: str) -> Any:
    if goal == "conservative":
        rows = [r for r in rows if r["valid"] > real["valid"] - 0.3]
        return pick(rows, real, goal) if rows else "worse"
    return pick(rows, real, goal)


MISTAKES: dict[str, tuple[Any, str]] = {
    "lowest bits": (broken(creative=lambda r, a: r["bits"]), "you take the lowest bits"),
    "highest bits": (broken(creative=lambda r, a: -r["bits"]), "you take the highest bits or diversity"),
    "only below": (
        broken(creative=lambda r, a: a["bits"] - r["bits"] if r["bits"] <= a["bits"] else 9),
        "a row above the author's bits",
    ),
    "another measure": (
        instead("creative", best_speller), "another measure than bits"),
    "no noise": (
        instead("conservative", best_speller), "the highest number as it stands"),
    "most diverse of all": (broken(floor=False, which="conservative"), "the most diverse row of all"),
    "least diverse": (broken(ties=-1, which="conservative"), "you take the least diverse"),
    "room for all": (broken(limit=6, which="conservative"), "you let in too much"),
    "fewest words": (
        instead("conservative", lambda rows, real: min(rows, key=lambda r: r["valid"])["name"]),
        "the wrong end of the list",
    ),
    "no floor": (broken(floor=False, which="balanced"), "you forget the floor"),
    "wide floor": (broken(limit=5, which="balanced"), "you let in a row four standard errors"),
    "hard floor": (broken(limit=0, which="balanced"), "you demand at least the author's own number"),
    "best speller": (
        instead("balanced", best_speller), "you take the best speller"),
    "fixed margin": (broken(margin=lambda a, b: 0.0055), "margin for the noise is a fixed number"),
    "one error": (broken(margin=lambda a, b: a["valid_se"], limit=2), "the standard error of one side alone"),
    "one error in two": (
        broken(limit=1), "margin for the noise is too small"),
    "no root": (
        broken(margin=lambda a, b: a["valid_se"] ** 2 + b["valid_se"] ** 2), "margin for the noise is too small",
    ),
    "only the author's error": (
        broken(margin=lambda a, b: b["valid_se"], which="balanced"), "margin for the noise is too small"),
    "both ways": (both_ways, "you shut out a row that spells better"),
    "nearest spelling": (
        instead("balanced", lambda rows, real: min(rows, key=lambda r: abs(r["valid"] - real["valid"]))["name"]),
        "nearest to the author's: wanted is the most diverse",
    ),
    "distance in errors": (
        broken(creative=lambda r, a: abs(r["bits"] - a["bits"]) / math.hypot(r["bits_se"], a["bits_se"])),
        "the distance in standard errors",
    ),
    "errors added": (
        broken(margin=lambda a, b: a["valid_se"] + b["valid_se"], which="conservative"), "You add the two"),
    "in place": (sorts_in_place, "changes the list or its rows"),
    "whole row": (lambda rows, real, goal: next(r for r in rows if r["name"] == pick(rows, real, goal)), "a whole row"),
    "a position": (
        lambda rows, real, goal: [r["name"] for r in rows].index(pick(rows, real, goal)), "no name of a row"),
    "several": (lambda rows, real, goal: [pick(rows, real, goal)], "several things"),
    "the author": (lambda rows, real, goal: real["name"], "You pick the author"),
    "no return": (lambda rows, real, goal: None, "returned None"),
    "any goal": (falls_through, "A goal that does not exist"),
    "nothing left": (none_if_empty, "balanced has no answer: raise"),
    "max of nothing": (empty_max, "the one of max on an empty list"),
    "author for conservative": (author_as_floor, "still means the best speller"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day32", MISTAKES, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day32", MISTAKES, 20)


def test_stub(said: Say) -> None:
    def stub(rows: list[Row], real: Row, goal: str) -> Any:
        raise NotImplementedError("your turn")

    assert not check("day32", stub)
    assert "still raises NotImplementedError" in said()


def test_tables_have_one_answer_each() -> None:
    assert pick(FREE, REAL, "creative") == "right"
    assert pick(SAFE, REAL, "conservative") == "tied"
    assert pick(EVEN, REAL, "balanced") == "near"
