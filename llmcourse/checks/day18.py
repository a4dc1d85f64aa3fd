"""Checker of day 18, the learning-rate schedule with a warmup, a level stretch and half a cosine.

A schedule is a list of numbers, so it is compared with the right one part by part: warmup, level, decay, end and
afterwards. In the first part that differs, the learner's numbers are compared with those of known mistakes.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch

from . import Wrong, blame, call, exercise

Schedule = Callable[[int, float, float, int, int, int], Any]
PEAK, LOW, WARMUP, START, TOTAL = 3e-3, 3e-4, 10, 50, 110  # no two alike, so that exchanged arguments show
SETTING = (PEAK, LOW, WARMUP, START, TOTAL)


def get_lr(step: int, peak: float, low: float, warmup: int, start: int, total: int) -> float:
    """Warmup to `peak`, level until step `start`, half a cosine down to `low` at step `total` and ever after."""
    if step < warmup:
        return peak * (step + 1) / warmup  # 1/warmup, 2/warmup, ..., 1
    if step >= total:  # asked first, so that start = total divides by nothing
        return low
    if step <= start:
        return peak
    progress = (step - start) / (total - start)  # above 0, below 1
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * progress))


Mistakes = list[tuple[Callable[[int], float], str]]  # what it gives at a step, and the sentence


def half(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


FACTOR = (
    "Your function returns a factor between 0 and 1, as LambdaLR wants it; here the rate itself is asked for, so "
    "multiply with peak."
)
ZERO = (
    f"Step 0 gets the rate 0, so the first step changes nothing: with step counted from 0, the warmup is "
    f"(step + 1) / warmup, which is 1/{WARMUP} at step 0 and 1 at step {WARMUP - 1}."
)
STAIRS = "The warmup jumps instead of rising: // divides whole numbers and throws the rest away; write /."
IN_WARMUP: Mistakes = [
    (lambda s: (s + 1) / WARMUP, FACTOR),
    (lambda s: s / WARMUP, FACTOR),
    (lambda s: PEAK * ((s + 1) // WARMUP), STAIRS),
    (lambda s: PEAK * (s // WARMUP), STAIRS),
    (lambda s: PEAK * s / WARMUP, ZERO),
    (
        lambda s: PEAK * (s + 1) / (WARMUP + 1),
        "The last warmup step does not reach the peak: divide step + 1 by warmup, not by warmup + 1.",
    ),
    *[
        (
            (lambda s, one=one: LOW + (PEAK - LOW) * (s + one) / WARMUP),
            "Your warmup starts from low; low is where the decay ends, and the warmup is peak · (step + 1) / warmup.",
        )
        for one in (0, 1)
    ],
    (lambda s: PEAK, "There is no warmup: the rate is at its peak from step 0 on."),
    (lambda s: PEAK * half(s / TOTAL), "There is no warmup: the cosine runs from step 0 on."),
]

SINCE = "The decay must start from the peak at step `start`, but yours measures its progress from {}."
FROM_ZERO, FROM_WARMUP = SINCE.format("step 0"), SINCE.format("the end of the warmup")
DECAYS: list[tuple[Callable[[float], float], str]] = [  # progress -> rate
    (lambda p: LOW + PEAK * half(p), "low is added on top: the decay then starts from peak + low; scale peak - low."),
    (lambda p: PEAK * half(p), "The decay ends at 0 and low plays no part: go from peak down to low, not to 0."),
    (
        lambda p: max(LOW, PEAK * half(p)),
        "The decay is cut off at low, so it comes down too early and then lies flat: stretch it from peak to low.",
    ),
    (lambda p: PEAK * (1 - p), "The decay goes straight down to 0: half a cosine, and down to low, was asked for."),
    (lambda p: LOW + (PEAK - LOW) * (1 - p), "The decay is a straight line; half a cosine was asked for."),
    (
        lambda p: LOW + (PEAK - LOW) * math.cos(math.pi / 2 * p),
        "That is a quarter of a cosine: level at the beginning and steep at the end; half a period runs from 0 to π.",
    ),
    (lambda p: LOW + (PEAK - LOW) * 0.5 * (1 + math.cos(p)), "π is missing: the cosine has to run from 0 to π."),
    (
        lambda p: LOW + (PEAK - LOW) * 0.5 * (1 + math.cos(2 * math.pi * p)),
        "That is a whole period of the cosine: half way the rate turns round and climbs back to the peak.",
    ),
    (
        lambda p: LOW + (PEAK - LOW) * 0.5 * (1 + math.cos(180 * p)),
        "The angle is in degrees: math.cos wants radians, and half a turn is π.",
    ),
    (
        lambda p: LOW + (PEAK - LOW) * math.cos(math.pi * p),
        "The cosine runs from 1 to -1, so the rate falls below low; 0.5 · (1 + cos) runs from 1 to 0.",
    ),
    (
        lambda p: LOW + (PEAK - LOW) * (1 + math.cos(math.pi * p)),
        "The factor 0.5 is missing: 1 + cos begins at 2, so the decay begins at twice the height.",
    ),
    (lambda p: LOW + (PEAK - LOW) * (1 - half(p)), "The decay is upside down: it jumps to low and climbs."),
    (lambda p: half(p), FACTOR),
    (
        lambda p: PEAK,
        "Between start and total the rate does not move: is there a // instead of /, or no decay at all?",
    ),
    (lambda p: LOW, "After step `start` the rate drops to low at once: the decay in between is missing."),
]
ENDS: list[tuple[float, str]] = [
    (0.0, "At step `total` the rate is 0, but it should be low."),
    (PEAK, "At step `total` the rate is back at the peak; from there on it is low."),
    (1.0, FACTOR),
]


def rates(learner: Schedule, steps: Iterable[int], setting: tuple[float, float, int, int, int]) -> list[float]:
    names = ("peak", "low", "warmup", "start", "total")
    out = []
    for step in steps:
        value = call(learner, step=step, **dict(zip(names, setting, strict=True)))
        if value is None:
            raise Wrong(f"Your function returned None at step {step}: does every branch end in a return?")
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, Real):
            raise Wrong(f"Your function returned something of type {type(value).__name__}: return one number.")
        out.append(float(value))
    return out


def same(a: list[float], b: list[float]) -> bool:
    return all(math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-12) for x, y in zip(a, b, strict=True))


def known(got: list[float], steps: range, mistakes: Mistakes) -> None:
    for f, sentence in mistakes:
        if same(got, [f(s) for s in steps]):
            raise Wrong(sentence)


def first_difference(got: list[float], right: list[float], steps: range, where: str) -> Wrong:
    i = next(i for i in range(len(got)) if not same(got[i : i + 1], right[i : i + 1]))
    setting = f"peak = {PEAK:g}, low = {LOW:g}, warmup = {WARMUP}, start = {START}, total = {TOTAL}"
    return Wrong(
        f"{where}, at step {steps[i]}, the rate should be {right[i]:.3g}, but yours is {got[i]:.3g} ({setting})."
    )


@exercise(
    "day18",
    title="A schedule that is exact at every boundary",
    signature="get_lr(step, peak, low, warmup, start, total)",
    hints=[
        "Four cases, in this order: step < warmup; step >= total; step <= start; and the decay in between. Write down "
        "what steps 0, warmup - 1, start and total should get before you write any formula.",
        "In the warmup the rate is peak · (step + 1) / warmup. In the decay, progress = (step - start) / (total - "
        "start) runs from 0 to 1; ask for step >= total before you divide, since start may be equal to total.",
        "0.5 * (1 + math.cos(math.pi * progress)) falls from 1 to 0; the rate is low plus (peak - low) times that.",
    ],
    solution=get_lr,
    right="Warmup, level, decay, end and long after the end, also without a warmup and without a decay.",
)
def check_get_lr(learner: Schedule) -> None:
    steps = range(3 * TOTAL)
    got, right = rates(learner, steps, SETTING), [get_lr(s, *SETTING) for s in steps]
    if not same(got, right):
        diagnose(got, right)
    if rates(learner, steps, SETTING) != got:
        raise Wrong("Two calls with the same arguments give different rates: the rate may depend on nothing else.")
    others: dict[str, tuple[float, float, int, int, int]] = {
        "without a warmup (warmup = 0)": (1e-3, 1e-4, 0, 20, 40),
        "with no level stretch (start = warmup)": (6e-4, 6e-5, 5, 5, 30),
        "with no decay (start = total)": (1e-3, 1e-4, 5, 30, 30),
        "with warmup for the whole run (warmup = start = total)": (1e-3, 1e-4, 8, 8, 8),
        "down to low = 0": (2e-3, 0.0, 4, 20, 60),
        "with warmup = 1": (1.0, 0.5, 1, 3, 7),
    }
    for what, setting in others.items():
        steps = range(2 * setting[-1] + 3)
        with blame(f"It works for one setting, but fails {what}"):
            got, right = rates(learner, steps, setting), [get_lr(s, *setting) for s in steps]
        if not same(got, right):
            i = next(i for i in steps if not same(got[i : i + 1], right[i : i + 1]))
            raise Wrong(
                f"It is right for one setting, but not {what}: at step {i} the rate should be {right[i]:.3g}, and "
                f"yours is {got[i]:.3g}."
            )


def diagnose(got: list[float], right: list[float]) -> None:
    """Raises Wrong about the first part of the schedule that is wrong."""
    part = range(WARMUP)
    if not same(got[:WARMUP], right[:WARMUP]):
        known(got[:WARMUP], part, IN_WARMUP)
        raise first_difference(got[:WARMUP], right[:WARMUP], part, "In the warmup")

    inside = range(START + 1, TOTAL)  # the decay without its two ends
    mine = got[START + 1 : TOTAL]
    for begin, sentence in ((0, FROM_ZERO), (WARMUP, FROM_WARMUP)):
        for low in (LOW, 0.0):
            for f in (half, lambda p: 1 - p):
                if same(mine, [low + (PEAK - low) * f((s - begin) / (TOTAL - begin)) for s in inside]):
                    raise Wrong(sentence)
                if same(mine, [low + (PEAK - low) * f((s - begin) / (TOTAL - START)) for s in inside]):
                    raise Wrong(sentence)
    for begin, end, sentence in (
        (START, TOTAL - 1, "The decay is over one step too early: it should reach low at step `total`, not before."),
        (START - 1, TOTAL - 1, "The decay begins one step too early: at step `start` the rate is still the peak."),
        (START - 1, TOTAL, "The decay begins one step too early: at step `start` the rate is still the peak."),
        (START + 1, TOTAL + 1, "The decay comes one step too late: progress is 0 at step `start`, 1 at step `total`."),
        (START, TOTAL + 1, "The decay comes one step too late: progress is 0 at step `start`, 1 at step `total`."),
    ):
        if same(mine, [LOW + (PEAK - LOW) * half((s - begin) / (end - begin)) for s in inside]):
            raise Wrong(sentence)
    if same(mine, [LOW + (PEAK - LOW) * half((s - START) / TOTAL) for s in inside]):
        raise Wrong("The progress is divided by total instead of total - start, so the decay is never finished.")
    for shape, sentence in DECAYS:
        if same(mine, [shape((s - START) / (TOTAL - START)) for s in inside]):
            raise Wrong(sentence)

    level = range(WARMUP, START + 1)
    if same(got[WARMUP : WARMUP + 1], [PEAK * (WARMUP + 1) / WARMUP]):
        raise Wrong("The warmup is one step too long: warmup - 1 is its last step, and yours still rises at `warmup`.")
    if same(got[WARMUP:START], [LOW + (PEAK - LOW) * half((s - START) / (TOTAL - START)) for s in level[:-1]]):
        raise Wrong(
            "Before step `start` the progress is negative, and the cosine of a negative angle is below 1 too: return "
            "peak until then."
        )
    if not same(got[WARMUP : START + 1], right[WARMUP : START + 1]):
        raise first_difference(got[WARMUP : START + 1], right[WARMUP : START + 1], level, "Between warmup and start")
    if not same(mine, right[START + 1 : TOTAL]):
        raise first_difference(mine, right[START + 1 : TOTAL], inside, "In the decay")
    for value, sentence in ENDS:
        if same(got[TOTAL : TOTAL + 1], [value]):
            raise Wrong(sentence)
    if not same(got[TOTAL : TOTAL + 1], [LOW]):
        raise first_difference(got[TOTAL : TOTAL + 1], [LOW], range(TOTAL, TOTAL + 1), "At the end")
    after = got[TOTAL + 1 :]
    if max(after) > 2 * LOW and not same(after, [PEAK] * len(after)):
        raise Wrong(
            "After step `total` the rate climbs back up, because the cosine comes round again: from "
            "`total` on, return low."
        )
    if same(after, [0.0] * len(after)):
        raise Wrong("After step `total` the rate is 0, but it should stay at low.")
    raise first_difference(after, right[TOTAL + 1 :], range(TOTAL + 1, len(got)), "After the end")
