"""Day 31: right reports pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from llmcourse.checks import check, day31
from llmcourse.checks.day31 import KEYS, MISTAKES, report

Say = Callable[[], str]
Log = list[dict[str, Any]]


def by_loops(log: Log, target: float, clip: float) -> dict[str, Any]:
    kept: Log = []
    for record in log:
        while kept and kept[-1]["step"] >= record["step"]:
            kept.pop()
        kept.append(record)
    best, low, tokens, gap = None, float("inf"), None, None
    clipped = norms = 0
    stepping, before = 0.0, 0
    for record in kept:
        value = record.get("val_loss")
        if value is not None:
            if value < low:
                best, low = record["step"], value
            if tokens is None and value <= target:
                tokens = record["tokens"]
            if "loss" in record:
                gap = value - record["loss"]
        if "grad_norm" in record:
            norms += 1
            clipped += record["grad_norm"] > clip
            stepping += (record["tokens"] - before) / record["tokens_per_second"]
        before = record["tokens"]
    outside = kept[-1]["seconds"] - stepping
    return {"best": best, "tokens": tokens, "clipped": clipped / norms, "outside": outside, "gap": gap}


def by_numpy(log: Log, target: float, clip: float) -> dict[str, Any]:
    import numpy as np

    kept: dict[int, dict[str, Any]] = {}
    for r in log:
        kept = {step: old for step, old in kept.items() if step < r["step"]} | {r["step"]: r}
    rows = list(kept.values())
    val = np.array([r.get("val_loss", math.nan) for r in rows])
    loss = np.array([r.get("loss", math.nan) for r in rows])
    hits = np.flatnonzero(val <= target)
    norms = np.array([r["grad_norm"] for r in rows if "grad_norm" in r])
    used = [r for r in rows if "loss" in r]
    tokens = np.diff([0] + [r["tokens"] for r in used])
    with_both = [i for i, r in enumerate(rows) if "val_loss" in r and "loss" in r]
    return {
        "best": rows[int(np.nanargmin(val))]["step"],
        "tokens": rows[hits[0]]["tokens"] if len(hits) else None,
        "clipped": (norms > clip).mean(),
        "outside": rows[-1]["seconds"] - (tokens / [r["tokens_per_second"] for r in used]).sum(),
        "gap": (val - loss)[with_both[-1]],
    }


@pytest.mark.parametrize("learner", [report, by_loops, by_numpy], ids=lambda f: f.__name__)
def test_report_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day31", learner), said()
    assert said().startswith("day31: right. ")


def wrong_in(key: str, mistake: Callable[[Log, float, float], Any]) -> Callable[..., Any]:
    """A report with one wrong number."""
    return lambda log, target, clip: report(log, target, clip) | {key: mistake(log, target, clip)}


def undone(clean: Callable[[Log], Log]) -> Callable[..., Any]:
    def learner(log: Log, target: float, clip: float) -> dict[str, Any]:
        return {key: day31.uncleaned(clean, key, log, target, clip) for key in KEYS}

    return learner


def pops(log: Log, target: float, clip: float) -> Any:
    out = report(log, target, clip)
    log.pop()
    return out


def crashes_on_nan(log: Log, target: float, clip: float) -> Any:
    if any(x != x for r in log for x in r.values()):
        raise ValueError("nan")
    return report(log, target, clip)


WRONG_REPORTS: dict[str, tuple[Any, str]] = {
    f"{key} {n}": (wrong_in(key, mistake), sentence)
    for key, table in MISTAKES.items()
    for n, (mistake, sentence) in enumerate(table)
}
WRONG_REPORTS |= {f"undone {n}": (undone(clean), sentence) for n, (clean, sentence) in enumerate(day31.UNDONE)}
WRONG_REPORTS |= {
    "nothing": (lambda log, target, clip: None, "is there a return line at its end"),
    "a list": (lambda log, target, clip: list(report(log, target, clip).values()), "of type list: return a dict"),
    "a key missing": (
        lambda log, target, clip: {k: v for k, v in report(log, target, clip).items() if k != "gap"},
        "The dict lacks the key 'gap'",
    ),
    "a word": (wrong_in("gap", lambda log, target, clip: "small"), '"gap" must be a number, not str'),
    "changes the log": (pops, "Your function changes the log"),
    "fails with nan": (crashes_on_nan, "It fails for a log with nan in it"),
    "no norm at step 0": (
        lambda log, target, clip: [r["grad_norm"] > clip for r in log] and report(log, target, clip),
        "It fails for a log that begins with the short record of step 0",
    ),
    "something else": (wrong_in("clipped", lambda log, target, clip: 0.123), 'your "clipped" is 0.123 and should be'),
}


@pytest.mark.parametrize("mistake", WRONG_REPORTS)
def test_report_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day31", WRONG_REPORTS, mistake)


def test_report_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day31", WRONG_REPORTS, least=35)


RIGHT = day31.values()
GROWTH = [r for r in day31.runs.load("growth").log if "loss" in r]
CLIPPED = [r["step"] for r in GROWTH if r["grad_norm"] > 1.0]
WRONG_VALUES: dict[str, tuple[Any, str]] = {
    "a number": (3, "not something of type int"),
    "nothing yet": (RIGHT | {"peak": None}, 'no answer to "peak" yet'),
    "a list of runs": (RIGHT | {"sooner": ["cpu-gpt2"]}, '"sooner" is the name of a run'),
    "no run": (RIGHT | {"sooner": 2_048_000}, '"sooner" is the name of a run'),
    "slowest": (RIGHT | {"sooner": "growth"}, '"sooner" did not need the fewest characters'),
    "first clipped": (RIGHT | {"last_clipped": CLIPPED[0]}, "is the first clipped step"),
    "how many": (RIGHT | {"last_clipped": len(CLIPPED)}, "is how many records were clipped"),
    "position": (
        RIGHT | {"last_clipped": [r["step"] for r in GROWTH].index(CLIPPED[-1])},
        '"last_clipped" is a position in the list',
    ),
    "other step": (RIGHT | {"last_clipped": 5000}, "is not the last record of growth"),
    "a rate": (RIGHT | {"peak": 0.003}, "is a learning rate"),
    "first record": (RIGHT | {"peak": 10}, "there the warmup has only begun"),
    "other peak": (RIGHT | {"peak": 2000}, "is not the record of cpu-gpt2 with the highest lr"),
}


def test_right_values_pass(said: Say) -> None:
    assert check("day31b", RIGHT), said()


@pytest.mark.parametrize("mistake", WRONG_VALUES)
def test_wrong_value_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day31b", WRONG_VALUES, mistake)


def test_wrong_values_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day31b", WRONG_VALUES, least=10)


def test_sooner_in_steps_is_named_where_it_differs(said: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the recorded runs of today the first in characters is the first in steps too; that may change."""
    real = day31.runs.load

    def load(name: str) -> Any:
        run = real(name)
        if name != "growth":
            return run
        log = [r | {"step": r["step"] // 5} for r in run.log]
        return type(run)(**{**run.__dict__, "log": log})

    monkeypatch.setattr(day31.runs, "load", load)
    assert not check("day31b", day31.values() | {"sooner": "growth"})
    assert "is right for steps" in said()
