"""Checkers of day 21: early stopping with patience, and the four faulty runs.

Stopping is a function of a list of numbers, so each typical mistake can be written down as such a function. The
learner's answers are compared with the right ones on lists where the mistakes differ from each other.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from . import Wrong, blame, exercise

Stop = tuple[int, int | None]
NAN = math.nan


def early_stopping(losses: Sequence[float], patience: int, min_delta: float) -> Stop:
    """Index of the evaluation after which training ends, and of the checkpoint to keep (None: nothing improved)."""
    lowest, best, since = math.inf, None, 0
    for i, loss in enumerate(losses):
        if loss < lowest - min_delta:  # False for nan
            lowest, best, since = loss, i, 0
        else:
            since += 1
        if since >= patience:
            return i, best
    return len(losses) - 1, best


def variant(
    *,
    better: Callable[[float, float, float], bool] = lambda loss, lowest, delta: loss < lowest - delta,
    start: float = math.inf,
    resets: bool = True,
    extra: int = 0,
    previous: bool = False,
    follow: Callable[[float, float], bool] = lambda loss, lowest: False,
) -> Callable[[Sequence[float], int, float], Stop]:
    """Early stopping with one mistake."""

    def wrong(losses: Sequence[float], patience: int, min_delta: float) -> Stop:
        lowest, best, since = start, None, 0
        for i, loss in enumerate(losses):
            if better(loss, lowest, min_delta):
                lowest, best, since = loss, i, 0 if resets else since
            else:
                since += 1
                if previous or follow(loss, lowest):
                    lowest = loss
            if since >= patience + extra:
                return i, best
        return len(losses) - 1, best

    return wrong


def last_kept(losses: Sequence[float], patience: int, min_delta: float) -> Stop:
    stop, best = early_stopping(losses, patience, min_delta)
    return stop, None if best is None else stop


def looked_ahead(losses: Sequence[float], patience: int, min_delta: float) -> Stop:
    stop, _ = early_stopping(losses, patience, min_delta)
    return stop, min((i for i, x in enumerate(losses) if x == x), key=lambda i: losses[i], default=None)


def one_late_count(losses: Sequence[float], patience: int, min_delta: float) -> Stop:
    stop, best = early_stopping(losses, patience, min_delta)
    return stop + 1, None if best is None else best + 1


MISTAKES: list[tuple[Callable[[Sequence[float], int, float], Stop], str]] = [
    (
        variant(better=lambda loss, lowest, delta: loss > lowest + delta, start=-math.inf),
        "Your rule takes a higher loss for a better one: it keeps the worst checkpoint. Losses want to be low.",
    ),
    (
        variant(resets=False),
        "Bad evaluations are counted in total: an improvement has to set the count back to 0.",
    ),
    (
        variant(extra=1),
        "Training ends one evaluation too late: it ends with the patience-th in a row, not with the one after (>=, "
        "not >).",
    ),
    (
        variant(extra=-1),
        "Training ends one evaluation too early: the best evaluation itself is no failure, so the count starts at 0.",
    ),
    (
        variant(previous=True),
        "Each loss is compared with the one before: compare it with the best so far, or a slow rise with one small dip "
        "goes on for ever.",
    ),
    (
        variant(better=lambda loss, lowest, delta: loss < lowest),
        "min_delta is ignored: an improvement has to be more than min_delta below the best.",
    ),
    (
        variant(better=lambda loss, lowest, delta: loss < lowest + delta),
        "min_delta has the wrong sign: a loss slightly *above* the best counts as an improvement with you.",
    ),
    (
        variant(better=lambda loss, lowest, delta: loss <= lowest - delta),
        "An equal loss counts as an improvement with you: it has to be lower than the best by more than min_delta.",
    ),
    (
        variant(follow=lambda loss, lowest: loss < lowest),
        "The best loss moves with improvements that are too small to count, so many small ones never add up to one: "
        "change it only together with the best index.",
    ),
    (
        variant(follow=lambda loss, lowest: not loss >= lowest),
        "The best loss moves without its index, even to nan: change both only at an improvement.",
    ),
    (
        variant(better=lambda loss, lowest, delta: not loss >= lowest - delta),
        "A nan is taken for an improvement: every comparison with nan is False, so ask for loss < ..., not for the "
        "opposite of >=.",
    ),
    (last_kept, "Your second number is where training ended. The checkpoint to keep is the best one, before it."),
    (
        looked_ahead,
        "You return the best of *all* losses, but those behind the stop would never have been measured.",
    ),
    (one_late_count, "Both numbers are too high by one: indices count from 0."),
    (
        lambda losses, patience, min_delta: cast(Stop, early_stopping(losses, patience, min_delta)[::-1]),
        "The two numbers are swapped: (stop, best), in this order.",
    ),
]
CASES: list[tuple[list[float], int, float]] = [
    ([3.0, 2.8, 2.9, 2.7, 2.75, 2.8, 2.6, 2.9, 2.95, 2.97, 2.5], 3, 0.0),
    ([3.0, 2.8, 2.9, 2.7, 2.75, 2.8, 2.9, 2.1, 2.0], 2, 0.0),
    ([3.0, 2.5, 2.5, 2.5, 2.5, 2.5], 3, 0.0),
    ([3.0, 2.0, 2.6, 2.5, 2.4, 2.3, 2.2, 2.1], 3, 0.0),
    ([3.0, 2.95, 2.92, 2.88, 2.85, 2.81, 2.79, 2.76], 2, 0.1),
    ([3.0, 2.95, 2.97, 2.96, 2.99, 2.98], 2, 0.1),
    ([3.0, 2.95, 2.88, 2.85, 2.86, 2.87], 3, 0.1),
    ([3.0, 2.5, NAN, 2.6, 2.4, NAN, NAN, NAN, 2.0], 3, 0.0),
    ([NAN, 3.0, 2.9, 2.95, 2.99], 2, 0.0),
    ([NAN, NAN, NAN, NAN], 2, 0.0),
    ([3.0, 2.9, 2.8], 5, 0.0),
    ([3.0, 3.1, 2.9], 1, 0.0),
    ([7.0], 1, 0.0),
]


@exercise(
    "day21",
    title="Early stopping",
    signature="early_stopping(losses, patience, min_delta)",
    hints=[
        "Keep three things while you go through the list: the lowest loss so far (at first math.inf), its index (at "
        "first None), and how many evaluations have passed since.",
        "if loss < lowest - min_delta: remember loss and index, and set the count to 0. Otherwise add 1 to the count. "
        "Written like this, nan needs no case of its own.",
        "After either branch: if the count has reached patience, return i and the index of the best. Behind the loop: "
        "return len(losses) - 1 and that index.",
    ],
    solution=early_stopping,
    right="It stops at the patience-th failure in a row, keeps the best, and no nan deceives it.",
)
def check_early_stopping(learner: Callable[..., Any]) -> None:
    answers = []
    for losses, patience, delta in CASES:
        given = list(losses)
        what = f"for {len(losses)} losses" + (" with nan among them" if any(x != x for x in losses) else "")
        with blame(f"It fails {what}"):
            found = learner(given, patience, delta)
        if not same(given, losses):
            raise Wrong("Your function changes the list of losses, and the caller still needs it.")
        answers.append(pair(found))
    wanted = [early_stopping(*case) for case in CASES]
    if answers == wanted:
        return
    near = [
        (sum(a == w for a, w in zip(answers, theirs, strict=True)), -n, sentence)
        for n, (mistake, sentence) in enumerate(MISTAKES)
        if (theirs := [mistake(*case) for case in CASES]) and theirs == answers
    ]
    if near:
        raise Wrong(max(near)[2])
    if any(a[1] is not None and w[1] is None for a, w in zip(answers, wanted, strict=True)):
        raise Wrong("With nothing but nan there is nothing to keep: best is None then.")
    first = next(i for i, (a, w) in enumerate(zip(answers, wanted, strict=True)) if a != w)
    losses, patience, delta = CASES[first]
    raise Wrong(
        f"For the losses {losses} with patience {patience} and min_delta {delta:g} you return {answers[first]}, but "
        f"(stop, best) is {wanted[first]}."
    )


def same(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(x == y or (x != x and y != y) for x, y in zip(a, b, strict=True))


def pair(found: Any) -> Stop:
    """What the learner returned, as (stop, best)."""
    if found is None:
        raise Wrong("Your function returned None for a list whose patience never runs out: return after the loop, too.")
    if isinstance(found, str) or not hasattr(found, "__len__") or len(found) != 2:
        raise Wrong("Return two numbers, (stop, best): the index where training ends, and that of the best loss.")
    stop, best = found
    if stop is None or stop != stop or int(stop) != stop:
        stop_name = "None" if stop is None else f"{stop!r}"
        if best is None or stop is not None:
            raise Wrong(f"The first number must be an index into the list, not {stop_name}.")
        return cast(Stop, (stop, int(best)))  # swapped
    if best is not None and (best != best or int(best) != best):
        raise Wrong("Your second number is a loss: return the index of the best evaluation, not its value.")
    return int(stop), None if best is None else int(best)


FAULTS = {"A": "unpaired", "B": "leak", "C": "rate too high", "D": "rate too low"}
AGAINST = {
    ("A", "leak"): "A leak would make the validation loss too good; A's stays above 3.",
    ("A", "rate too high"): "A never gets worse than an even bet, not even at the start: its steps are not too long.",
    ("A", "rate too low"): "A falls as far as it ever will within some dozens of steps, so it is not slow.",
    ("B", "unpaired"): "B gets below what the frequencies of letters allow, so its targets do belong to its inputs.",
    ("B", "rate too high"): "B goes down all the way and further than the others: too long a step never gets there.",
    ("B", "rate too low"): "B is the fastest of the four.",
    ("C", "unpaired"): "C begins far worse than an even bet. Mismatched targets do no such harm.",
    ("C", "leak"): "Nothing about C is too good to be true, as a leak would be.",
    ("C", "rate too low"): "C leaps within its first steps: tiny steps would draw a smooth line.",
    ("D", "unpaired"): "D still falls at the last step; mismatched targets would let it fall at once and then stop.",
    ("D", "leak"): "D barely learns anything in 80 steps. A leak shows in a loss that is too low.",
    ("D", "rate too high"): "D is a smooth and slow line: steps that are too long would leap.",
}


@exercise(
    "day21b",
    title="Name the fault",
    signature="names",
    hints=[
        "Two of the curves end at the loss of guessing by the frequency of letters, about 3.3. One of them first gets "
        "far worse than an even bet, above the dashed line. Only steps that are too long do that.",
        "A smooth line that is still falling at the end has steps that are too short. A validation loss that follows "
        "the training loss all the way down, with only a little text, is too good.",
    ],
    solution='names = {"A": "unpaired", "B": "leak", "C": "rate too high", "D": "rate too low"}',
    right="Now prove each of them with a measurement: the solution of the exercise does.",
    wants="value",
)
def check_names(names: Any) -> None:
    if not isinstance(names, dict):
        raise Wrong('Hand in a dictionary with the keys "A", "B", "C" and "D".')
    given = {str(k).strip().upper(): str(v).strip().lower() for k, v in names.items()}
    if missing := [k for k in FAULTS if k not in given]:
        raise Wrong(f"There is no name for {' and '.join(missing)}.")
    for letter in FAULTS:
        if given[letter] not in FAULTS.values():
            kinds = ", ".join(sorted(FAULTS.values()))
            raise Wrong(f"{letter} is called {given[letter]!r}: choose one of {kinds}.")
    for letter, fault in FAULTS.items():
        if given[letter] != fault:
            raise Wrong(AGAINST[letter, given[letter]])
