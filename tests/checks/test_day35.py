"""Day 35: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from llmcourse.checks import check, day35

Say = Callable[[], str]
Log = dict[str, list[float]]


def by_arrays(log: Log) -> str:
    train, val, norm = (np.array(log[key]) for key in ("loss", "val_loss", "grad_norm"))
    if np.ptp(val[8:]) == 0:
        return "Schedule over"
    if (val - train)[-3:].mean() > 0.45:
        return "too little text"
    if val[-1] > 3.25:
        return "targets unpaired"
    return "rate too high" if norm[-6:].mean() < 0.4 else ("leak" if val.min() < 2.38 else "healthy")


class Doctor:
    """Scores every name and returns the best one."""

    def __call__(self, log: Log) -> str:
        end, gap = log["val_loss"][-1], log["val_loss"][-1] - log["loss"][-1]
        still = len(set(log["val_loss"][-4:])) == 1
        signs = {
            "schedule over": still, "too little text": gap > 0.5, "targets unpaired": end > 3.25,
            "rate too high": statistics.median(log["grad_norm"][-5:]) < 0.3 and end < 3.2, "leak": end < 2.38,
        }  # fmt: skip
        return next((name for name, sign in signs.items() if sign), "healthy")


@pytest.mark.parametrize("learner", [by_arrays, Doctor(), day35.diagnose], ids=["arrays", "object", "rules"])
def test_doctor_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day35", learner), said()
    assert said().startswith("day35: right. ")


def misnames(truth: str, name: str) -> Callable[[Log], str]:
    return lambda log: name if day35.diagnose(log) == truth else day35.diagnose(log)


def needs_the_rate(log: Log) -> str:
    return "rate too high" if max(log["lr"]) > 0.01 else day35.diagnose(log)


def sorts(log: Log) -> str:
    log["val_loss"].sort()
    return day35.diagnose(log)


def falls_through(log: Log) -> Any:
    name = day35.diagnose(log)
    return None if name == "healthy" else name


WRONG: dict[str, tuple[Any, str]] = {
    f"{truth} called {name}": (misnames(truth, name), sentence) for (truth, name), sentence in day35.AGAINST.items()
} | {
    "needs the rate": (needs_the_rate, "there is no lr"),
    "changes the log": (sorts, "changes the log"),
    "a path without return": (falls_through, "every path needs a return"),
    "a number": (lambda log: 3, "Return one name"),
    "own words": (lambda log: "diverged", "none of the six"),
    "always healthy": (lambda log: "healthy", "Every log gets the same name"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_misdiagnosis_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day35", WRONG, mistake)


def test_misdiagnoses_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day35", WRONG, least=36)


def test_every_confusion_has_its_words() -> None:
    assert set(day35.AGAINST) == {(a, b) for a in day35.NAMES for b in day35.NAMES if a != b}
    kinds = [case["name"] for case in day35.hidden_cases()]
    assert {name: kinds.count(name) for name in kinds} == dict.fromkeys(day35.NAMES, 4)


def by_statistics(losses: Sequence[float], of: int | None = None) -> float:
    if len(losses) == 1:
        return float("inf")
    error = statistics.stdev(losses) / len(losses) ** 0.5
    return error if of is None else error * (1 - len(losses) / of) ** 0.5


def by_numpy(losses: Sequence[float], of: int | None = None) -> float:
    if len(losses) < 2:
        return np.inf
    left = 1 if of is None else (of - len(losses)) / of
    return float(np.std(losses, ddof=1) * np.sqrt(left / len(losses)))


def by_torch(losses: Sequence[float], of: int | None = None) -> float:
    x = torch.tensor(losses, dtype=torch.float64)
    return (x.var() / len(x) * (1 - len(x) / (of or math.inf))).sqrt().item() if len(x) > 1 else math.inf


@pytest.mark.parametrize("learner", [by_statistics, by_numpy, by_torch, day35.standard_error], ids=lambda f: f.__name__)
def test_standard_error_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day35b", learner), said()


WORDS = [
    "divides by n: the mean", "spread of single losses", "Two things at once", "the variance of the mean",
    "by n itself", "The root under s", "multiply by the root",
    "`of` is ignored", "belongs under the root", "the share that was drawn", "95 % interval",
    "twice the standard error", "you never use `of`", "whole text",
]  # fmt: skip


def as_tensor(losses: Sequence[float], of: int | None = None) -> Any:
    return torch.tensor(by_torch(losses, of))


def negative_root(losses: Sequence[float], of: int | None = None) -> Any:
    left = 1 if of is None else len(losses) / of - 1
    return (statistics.variance(losses) / len(losses) * left) ** 0.5


def sorts_losses(losses: list[float], of: int | None = None) -> float:
    error = day35.standard_error(losses, of)
    losses.sort()
    return error


def no_return(losses: Sequence[float], of: int | None = None) -> None:
    day35.standard_error(losses, of)


def single(value: float) -> Callable[..., float]:
    return lambda losses, of=None: by_numpy(losses, of) if len(losses) > 1 else value


WRONG_ERROR: dict[str, tuple[Any, str]] = {
    words: (mistake, words) for (mistake, _), words in zip(day35.MISTAKES, WORDS, strict=True)
} | {
    "tensor": (as_tensor, "plain Python number"),
    "negative root": (negative_root, "root of a negative"),
    "changes the list": (sorts_losses, "changes the list"),
    "no return": (no_return, "returned None"),
    "single loss crashes": (
        lambda losses, of=None: statistics.stdev(losses) * ((1 - len(losses) / (of or math.inf)) / len(losses)) ** 0.5,
        "It fails for a single loss",
    ),
    "single loss 0": (single(0.0), "as if it were certain"),
    "single loss nan": (single(math.nan), "is unknown"),
    "something else": (lambda losses, of=None: 0.1, "you return 0.1"),
}


@pytest.mark.parametrize("mistake", WRONG_ERROR)
def test_wrong_error_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day35b", WRONG_ERROR, mistake)


def test_wrong_errors_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day35b", WRONG_ERROR, least=22)
