"""Checkers of day 35: naming the fault of a run from its log, and the standard error of a mean.

The logs are real: each fault was planted into the training loop of the lesson, which also says how they were recorded.
The lesson shows seeds 1 and 2; the doctor is judged on seeds 3 and 4.
"""

import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from . import Wrong, blame, exercise

Log = dict[str, list[float]]
COLUMNS = ("step", "loss", "val_loss", "grad_norm")
NAMES = ("healthy", "schedule over", "rate too high", "leak", "targets unpaired", "too little text")

# (the truth, what was said): what in the log speaks against it
AGAINST = {
    ("healthy", "schedule over"): "it still moves, a little, at every evaluation: nothing stands still",
    ("healthy", "rate too high"): "its gradient norm stays above one half to the end, and it gets as far as a "
    "table of pairs",
    ("healthy", "leak"): "its validation loss is no lower than an honest run's: it ends above 2.4",
    ("healthy", "targets unpaired"): "it gets far below the letter frequencies, so inputs and targets fit",
    ("healthy", "too little text"): "its two curves stay together: the gap at the end is below 0.2",
    ("schedule over", "healthy"): "its last ten validation losses are the same to the last digit, and it has not "
    "got below 2.6",
    ("schedule over", "rate too high"): "long steps make the validation loss wobble, and here it does not move at all",
    ("schedule over", "leak"): "nothing about its height is too good; look at how level the validation curve is",
    ("schedule over", "targets unpaired"): "its plateau lies half a nat below the letter frequencies, at a height "
    "of no meaning",
    ("schedule over", "too little text"): "there is hardly a gap; its weights stopped, and with them both curves",
    ("rate too high", "healthy"): "it ends above the bigram, and its gradient norm is below a third of a healthy one",
    ("rate too high", "schedule over"): "its validation loss still changes from one evaluation to the next",
    ("rate too high", "leak"): "a leak is too good, and this one is worse than a table of pairs",
    ("rate too high", "targets unpaired"): "it goes on falling and gets clearly below the letter frequencies",
    ("rate too high", "too little text"): "its training loss is as bad as its validation loss; nothing was memorized",
    ("leak", "healthy"): "its validation loss is lower than 120 honest steps can make it",
    ("leak", "schedule over"): "its validation loss falls to the very end",
    ("leak", "rate too high"): "it ends lower than any other case; steps too long never get there",
    ("leak", "targets unpaired"): "it ends more than a nat below the letter frequencies",
    ("leak", "too little text"): "its validation loss does follow the training loss all the way down; with too little "
    "*other* text it could not",
    ("targets unpaired", "healthy"): "it never gets below what the frequencies of single letters give, about 3.35",
    ("targets unpaired", "schedule over"): "it is level but not still: the last digit of its validation loss moves",
    ("targets unpaired", "rate too high"): "it is on its plateau after a third of the steps and never leaves it; "
    "with a rate too high the loss falls again as the schedule lowers the rate",
    ("targets unpaired", "leak"): "it is the worst of all at the end, and a leak is the best",
    ("targets unpaired", "too little text"): "its training loss is no better than its validation loss, both near 3.3",
    ("too little text", "healthy"): "there is a gap of half a nat and more between its two curves at the end",
    ("too little text", "schedule over"): "its training loss falls to the end, so its weights do move",
    ("too little text", "rate too high"): "its training loss falls below 2.1, and steps that are too long never get "
    "that far",
    ("too little text", "leak"): "its validation loss does not follow the training loss down, as a leak's would",
    ("too little text", "targets unpaired"): "its training loss gets to 2 and below, so inputs and targets fit",
}


def hidden_cases() -> list[dict[str, Any]]:
    source = files("llmcourse") / "assets" / "logs" / "day35.json"
    cases = json.loads(source.read_text(encoding="utf-8"))
    return [case for case in cases if case["grade"] < 2 and case["seed"] > 2]


def diagnose(log: Log) -> str:
    """One of the six names, from the columns of a log."""
    val, end = log["val_loss"], log["val_loss"][-1]
    if max(val[-5:]) == min(val[-5:]):  # to the last digit: the weights do not move
        return "schedule over"
    if end - log["loss"][-1] > 0.5:
        return "too little text"
    if end > 3.2:  # no better than the letter frequencies
        return "targets unpaired"
    if sorted(log["grad_norm"][-5:])[2] < 0.35:  # the median
        return "rate too high"
    return "leak" if end < 2.3 else "healthy"  # between the recorded leaks and the healthy runs


@exercise(
    "day35",
    title="The doctor",
    signature="diagnose(log)",
    hints=[
        "Begin with the sign that is exact: which of the six has a validation loss that does not change at all over "
        "the last records? Then the gap: validation minus training at the last step, above 0.5 for one of them.",
        "Then the one that ends near the letter frequencies, 3.35. Then the gradient norm at the end: one of the three "
        "that are left has less than half of the others'.",
        "What is left is healthy or a leak. Print the last validation loss of both in `known`, and put the limit "
        "between the two groups.",
    ],
    solution=diagnose,
    right="All 24 severe cases of unseen seeds are named. Try it on the mild ones.",
)
def check_diagnose(learner: Callable[..., Any]) -> None:
    said: list[tuple[str, str]] = []
    for case in hidden_cases():
        log = {key: case[key] for key in COLUMNS}
        given = copy.deepcopy(log)
        with blame("It fails on a log with the columns step, loss, val_loss and grad_norm (there is no lr)"):
            found = learner(given)
        if given != log:
            raise Wrong("Your function changes the log that it was given: sort or cut a copy.")
        if found is None:
            raise Wrong("For one of the logs your function returns nothing: every path needs a return.")
        if not isinstance(found, str):
            raise Wrong(f"Return one name, a string, not something of type {type(found).__name__}.")
        name = found.strip().lower()
        if name not in NAMES:
            raise Wrong(f"You return {found!r}, which is none of the six: {', '.join(NAMES)}.")
        said.append((case["name"], name))
    if len({name for _, name in said}) == 1:
        raise Wrong(f"Every log gets the same name from you, {said[0][1]!r}: the answer must depend on the log.")
    wrong = Counter(pair for pair in said if pair[0] != pair[1])
    if wrong:
        (truth, name), times = wrong.most_common(1)[0]
        seen = sum(t == truth for t, _ in said)
        more = f" (Other kinds of confusion: {len(wrong) - 1}.)" if len(wrong) > 1 else ""
        raise Wrong(
            f"{times} of {seen} logs of the kind {truth!r} you call {name!r}. Against it: {AGAINST[truth, name]}.{more}"
        )


# ---- day35b ----------------------------------------------------------------------------------------------------


def standard_error(losses: Sequence[float], of: int | None = None) -> float:
    """Standard error of the mean of `losses`, drawn without replacement from `of` windows (None: very many)."""
    n = len(losses)
    if n < 2:
        return math.inf
    mean = sum(losses) / n
    variance = sum((x - mean) ** 2 for x in losses) / (n - 1)
    left = 1.0 if of is None else 1 - n / of
    return math.sqrt(variance / n * left)


def spread(losses: Sequence[float]) -> tuple[int, float]:
    """n, and the sum of squared distances from the mean."""
    mean = sum(losses) / len(losses)
    return len(losses), sum((x - mean) ** 2 for x in losses)


def left(n: int, of: int | None) -> float:
    return 1.0 if of is None else 1 - n / of


def formula(rule: Callable[[int, float, int | None], float]) -> Callable[..., float]:
    return lambda losses, of=None: rule(*spread(losses), of)


MISTAKES: list[tuple[Callable[..., float], str]] = [
    (
        formula(lambda n, q, of: math.sqrt(q / n / n * left(n, of))),
        "Your s divides by n: the mean was taken from the same losses, so divide the squares by n - 1.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) * left(n, of))),
        "This is the spread of single losses: the mean of n of them is steadier, by the square root of n.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / n * left(n, of))),
        "Two things at once: your s divides by n instead of n - 1, and the division by the root of n is missing.",
    ),
    (
        formula(lambda n, q, of: q / (n - 1) / n * left(n, of)),
        "You return the variance of the mean: its square root is missing at the end.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) * left(n, of)) / n),
        "You divide s by n itself: it has to be the square root of n, since luck cancels more slowly than that.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) * left(n, of)) / math.sqrt(n - 1)),
        "The root under s has n - 1 as well: n - 1 belongs into s only, the mean is over n losses.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) * n * left(n, of))),
        "You multiply by the root of n: with more losses your error grows.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) / n)),
        "`of` is ignored: when all windows have been drawn, no error is left.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) / n) * left(n, of)),
        "The share that is left to draw, 1 - n / of, belongs under the root.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / (n - 1) / n * (1.0 if of is None else n / of))),
        "You use n / of, the share that was drawn: what counts is the share that is left.",
    ),
    (
        formula(lambda n, q, of: 1.96 * math.sqrt(q / (n - 1) / n * left(n, of))),
        "This is half of a 95 % interval: the standard error itself comes without the factor 1.96.",
    ),
    (
        formula(lambda n, q, of: 2 * math.sqrt(q / (n - 1) / n * left(n, of))),
        "Your result is twice the standard error: leave the doubling to whoever draws the error bar.",
    ),
    (
        formula(lambda n, q, of: math.sqrt(q / n / n)),
        "Your s divides by n where it needs n - 1, and besides you never use `of`.",
    ),
    (
        lambda losses, of=None: (
            standard_error(losses, of)
            if of is None
            else math.sqrt(spread(losses)[1] / (len(losses) - 1) / len(losses) * (of - len(losses)) / (of - 1))
        ),
        "With (of - n) / (of - 1) you correct for an s that was taken of the whole text: with the sample's s it is "
        "1 - n / of.",
    ),
]
CASES: list[tuple[list[float], int | None]] = [
    ([2.5, 2.1, 2.8, 2.4, 1.9], None),
    ([1.0, 3.0], None),
    ([2.5, 2.1, 2.8, 2.4, 1.9], 8),
    ([2.2, 2.6, 2.4, 3.1, 2.0, 2.2, 2.9], 7),
    ([2.2, 2.6, 2.4], 1000),
    ([2.0, 2.0, 2.0, 2.0], None),
]


@exercise(
    "day35b",
    title="The error bar",
    signature="standard_error(losses, of=None)",
    hints=[
        "First the mean, then the squares of the distances from it, added up and divided by n - 1: the variance s².",
        "The variance of the mean is s² / n. If `of` is given, multiply it by 1 - n / of. Take the root last.",
        "Before all that: if len(losses) < 2, return math.inf.",
    ],
    solution=standard_error,
    right="With it you can say how many batches a difference of 0.01 needs.",
)
def check_standard_error(learner: Callable[..., Any]) -> None:
    answers = []
    for losses, of in CASES:
        given = list(losses)
        with blame(f"It fails for {len(losses)} losses with of={of}"):
            found = learner(given) if of is None else learner(given, of)
        if given != losses:
            raise Wrong("Your function changes the list of losses: work on a copy.")
        if found is None:
            raise Wrong("Your function returned None: is there a return line at its end?")
        if isinstance(found, complex):
            raise Wrong("You take the root of a negative number: the share that is left is 1 - n / of, not n / of - 1.")
        if not isinstance(found, float | int):
            raise Wrong(f"Return a plain Python number, not a {type(found).__name__}: .item() or float() makes one.")
        answers.append(float(found))
    wanted = [standard_error(*case) for case in CASES]
    if not agree(answers, wanted):
        for mistake, sentence in MISTAKES:
            if agree(answers, [mistake(*case) for case in CASES]):
                raise Wrong(sentence)
        first = next(i for i in range(len(CASES)) if not agree([answers[i]], [wanted[i]]))
        losses, of = CASES[first]
        raise Wrong(
            f"For the losses {losses} with of={of} you return {answers[first]:.4g}, but the standard error is "
            f"{wanted[first]:.4g}."
        )
    with blame("It fails for a single loss, from which no spread can be taken"):
        one = learner([2.5])
    if one == 0:
        raise Wrong("For a single loss you return 0, as if it were certain: nothing is known about its spread, so inf.")
    if one != math.inf:
        raise Wrong(f"For a single loss the error is unknown: return math.inf, not {one!r}.")


def agree(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-7) for a, b in zip(found, wanted, strict=True))
