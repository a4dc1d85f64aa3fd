"""Day 18: right schedules pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from llmcourse.checks import check
from llmcourse.trainer import TrainConfig, get_lr

Say = Callable[[], str]
Schedule = Callable[[int, float, float, int, int, int], Any]


def half(p: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * p))


def by_cases(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return low
    if step <= start:
        return peak
    return low + (peak - low) * half((step - start) / (total - start))


def by_numpy(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> Any:
    if warmup and step < warmup:
        return np.float64(peak) * (step + 1) / warmup
    p = np.clip((step - start) / max(total - start, 1e-9), 0, 1)
    return peak * (1 + np.cos(np.pi * p)) / 2 + low * (1 - np.cos(np.pi * p)) / 2 if step < total else np.float64(low)


def by_torch(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> torch.Tensor:
    if step < warmup:
        return torch.tensor(peak, dtype=torch.float64) * ((step + 1) / warmup)
    if step >= total:
        return torch.tensor(low, dtype=torch.float64)
    p = torch.tensor(max(0.0, (step - start) / max(total - start, 1)), dtype=torch.float64)
    return low + (peak - low) * torch.cos(math.pi / 2 * p) ** 2  # the same curve: half-angle formula


def by_the_trainer(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    """The course's own cosine, begun at `start` as if it were the warmup's end."""
    if step < warmup:
        return peak * (step + 1) / warmup
    if start >= total:
        return peak if step < total else low
    config = TrainConfig(learning_rate=peak, min_lr=low, warmup_steps=0, max_steps=total - start)
    return get_lr(max(0, step - start), config)


@pytest.mark.parametrize("learner", [by_cases, by_numpy, by_torch, by_the_trainer], ids=lambda f: f.__name__)
def test_right_answers_pass(learner: Schedule, said: Say) -> None:
    assert check("day18", learner), said()
    assert said().startswith("day18: right. ")


def variant(
    *,
    warm: Callable[[int, float, float, int], Any] = lambda step, peak, low, warmup: peak * (step + 1) / warmup,
    progress: Callable[[int, int, int, int], float] = lambda s, warmup, start, total: (s - start) / (total - start),
    decay: Callable[[float, float, float], float] = lambda p, peak, low: low + (peak - low) * half(p),
    level: Callable[[int, int], bool] = lambda step, start: step <= start,
    end: Callable[[int, int], bool] = lambda step, total: step >= total,
    after: Callable[[float, float], float] = lambda peak, low: low,
) -> Schedule:
    def learner(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> Any:
        if step < warmup:
            return warm(step, peak, low, warmup)
        if end(step, total):
            return after(peak, low)
        if level(step, start):
            return peak
        return decay(progress(step, warmup, start, total), peak, low)

    return learner


def nothing_after_warmup(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float | None:
    return peak * (step + 1) / warmup if step < warmup else None


def warmup_too_long(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    return peak * (step + 1) / warmup if step == warmup else by_cases(step, peak, low, warmup, start, total)


def zero_after_end(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    return 0 if step > total else by_cases(step, peak, low, warmup, start, total)


def factor(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    return by_cases(step, peak, low, warmup, start, total) / peak


def divides_first(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    p = min(1.0, max(0.0, (step - start) / (total - start)))  # start = total divides by zero
    return peak * (step + 1) / warmup if step < warmup else low + (peak - low) * half(p)


def warmup_divides(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    rising = (step + 1) / warmup  # warmup = 0 divides by zero
    return peak * rising if rising < 1 else by_cases(step, peak, low, 0, start, total)


def own_peak(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    return by_cases(step, 3e-3, low, warmup, start, total)


def jitter(step: int, peak: float, low: float, warmup: int, start: int, total: int, calls: list[int] = [0]) -> float:  # noqa: B006
    calls[0] += 1
    return by_cases(step, peak, low, warmup, start, total) * (1 if calls[0] <= 330 else 0.5)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "zero at step 0": (variant(warm=lambda s, peak, low, w: peak * s / w), "the first step changes nothing"),
    "peak too late": (variant(warm=lambda s, peak, low, w: peak * (s + 1) / (w + 1)), "does not reach the peak"),
    "warmup from low": (variant(warm=lambda s, peak, low, w: low + (peak - low) * s / w), "Your warmup starts from"),
    "warmup by //": (variant(warm=lambda s, peak, low, w: peak * ((s + 1) // w)), "The warmup jumps"),
    "no warmup": (variant(warm=lambda s, peak, low, w: peak), "at its peak from step 0 on"),
    "factor": (factor, "a factor between 0 and 1"),
    "warmup squared": (variant(warm=lambda s, peak, low, w: peak * ((s + 1) / w) ** 2), "In the warmup, at step 0"),
    "from step 0": (variant(progress=lambda s, w, start, total: s / total), "progress from step 0"),
    "from the warmup": (
        variant(progress=lambda s, w, start, total: (s - w) / (total - w), level=lambda s, start: False),
        "progress from the end of the warmup",
    ),
    "floor added": (variant(decay=lambda p, peak, low: low + peak * half(p)), "low is added on top"),
    "floor ignored": (variant(decay=lambda p, peak, low: peak * half(p)), "low plays no part"),
    "floor cuts off": (variant(decay=lambda p, peak, low: max(low, peak * half(p))), "cut off at low"),
    "straight": (variant(decay=lambda p, peak, low: low + (peak - low) * (1 - p)), "a straight line"),
    "quarter": (variant(decay=lambda p, peak, low: low + (peak - low) * math.cos(math.pi / 2 * p)), "a quarter of a"),
    "no pi": (variant(decay=lambda p, peak, low: low + (peak - low) * 0.5 * (1 + math.cos(p))), "π is missing"),
    "two pi": (
        variant(decay=lambda p, peak, low: low + (peak - low) * 0.5 * (1 + math.cos(2 * math.pi * p))),
        "a whole period",
    ),
    "degrees": (variant(decay=lambda p, peak, low: low + (peak - low) * 0.5 * (1 + math.cos(180 * p))), "in degrees"),
    "no 1 +": (variant(decay=lambda p, peak, low: low + (peak - low) * math.cos(math.pi * p)), "falls below low"),
    "no 0.5": (variant(decay=lambda p, peak, low: low + (peak - low) * 2 * half(p)), "The factor 0.5 is missing"),
    "upside down": (variant(decay=lambda p, peak, low: low + (peak - low) * (1 - half(p))), "upside down"),
    "progress by //": (variant(progress=lambda s, w, a, total: (s - a) // (total - a)), "the rate does not move"),
    "never finished": (variant(progress=lambda s, w, a, total: (s - a) / total), "divided by total instead"),
    "ends early": (variant(progress=lambda s, w, a, b: (s - a) / (b - 1 - a)), "over one step too early"),
    "begins early": (variant(progress=lambda s, w, a, b: (s + 1 - a) / (b - a)), "begins one step too early"),
    "ends late": (variant(progress=lambda s, w, a, b: (s - a) / (b + 1 - a)), "one step too late"),
    "drops at once": (variant(decay=lambda p, peak, low: low), "the decay in between is missing"),
    "root": (variant(decay=lambda p, peak, low: low + (peak - low) * (1 - p**0.5)), "In the decay, at step 51"),
    "no clamp": (variant(end=lambda step, total: False), "the cosine comes round again"),
    "0 at the end": (variant(after=lambda peak, low: 0.0), "At step `total` the rate is 0"),
    "peak at the end": (variant(after=lambda peak, low: peak), "back at the peak"),
    "no level": (variant(level=lambda s, a: False, progress=lambda s, w, a, b: max(0, s + 9 - a) / (b + 9 - a)),
                 "Between warmup and start, at step 42"),
    "negative progress": (variant(level=lambda s, a: False), "Before step `start` the progress is negative"),
    "warmup too long": (warmup_too_long, "The warmup is one step too long"),
    "straight to 0": (variant(decay=lambda p, peak, low: peak * (1 - p)), "goes straight down to 0"),
    "0 after the end": (zero_after_end, "After step `total` the rate is 0"),
    "None": (nothing_after_warmup, "None at step 10"),
    "a string": (lambda step, peak, low, warmup, start, total: "3e-3", "of type str"),
    "start = total": (divides_first, "fails with no decay (start = total)"),
    "warmup = 0": (warmup_divides, "fails without a warmup (warmup = 0)"),
    "fixed peak": (own_peak, "It is right for one setting, but not without a warmup"),
    "not repeatable": (jitter, "Two calls with the same arguments"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    if mistake == "not repeatable":
        jitter.__defaults__[0][0] = 0  # type: ignore[index]
    mistake_is_named("day18", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    jitter.__defaults__[0][0] = 0  # type: ignore[index]
    mistakes_differ("day18", WRONG, least=30)
