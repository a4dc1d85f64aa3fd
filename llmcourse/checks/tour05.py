"""Checker of Tour 5: when should training have stopped, and when was memorizing proven?"""

from collections.abc import Callable
from typing import Any

from . import Wrong, exercise

Curve = list[float]
Report = Callable[[list[int], Curve, Curve, float], Any]

STEPS = [20, 40, 60, 80, 100, 120, 140, 160, 180]
TRAIN = [0.60, 0.41, 0.33, 0.28, 0.19, 0.15, 0.11, 0.08, 0.13]
VAL = [0.62, 0.45, 0.52, 0.39, 0.43, 0.47, 0.39, 0.57, 0.66]  # rises and falls again; 80 and 140 are equal
FLOOR = 0.17


def report(steps: list[int], train: Curve, val: Curve, floor: float) -> tuple[int, int | None]:
    """The step with the lowest val loss, and the first step at which the train loss is below the floor, or None."""
    stop = steps[val.index(min(val))]  # index finds the earliest
    below = [step for step, loss in zip(steps, train, strict=True) if loss < floor]
    return stop, below[0] if below else None


@exercise(
    "tour05",
    title="A report on overfitting",
    signature="report(steps, train, val, floor)",
    hints=[
        "Two questions, two curves: where to stop is read from val alone, the proof from train and the floor alone.",
        "val.index(min(val)) is the position of the lowest validation loss, the earliest one; steps has its step.",
        "Collect the steps at which train < floor in a list; its first entry is the proof. An empty list means None.",
    ],
    solution=report,
    right="It finds the best moment of the whole run, and the first proof of memorizing, or None for an honest run.",
)
def check_report(learner: Report) -> None:
    stop, proof = pair(learner, STEPS, TRAIN, VAL, FLOOR)
    diagnose_stop(stop)
    diagnose_proof(proof)
    honest = [0.60, 0.41, 0.33, 0.28, 0.25, 0.24, 0.23, 0.22, 0.21]
    try:
        stop, proof = pair(learner, STEPS, honest, VAL, FLOOR)
    except (IndexError, ValueError, StopIteration, UnboundLocalError, TypeError) as e:
        raise Wrong(
            f"It fails ({type(e).__name__}) on a run that never goes below the floor: such a run is honest, and the "
            "proof is None."
        ) from e
    if proof is not None:
        raise Wrong(f"For a run that never goes below the floor you report {proof!r} as the proof: it should be None.")
    equal = [0.60, 0.41, 0.33, 0.28, FLOOR, FLOOR, 0.12, 0.11, 0.10]
    if pair(learner, STEPS, equal, VAL, FLOOR)[1] != 140:
        raise Wrong(
            "A training loss exactly at the floor is taken as a proof: the author himself reaches it. Below means <."
        )
    shifted = [7, 19, 23, 42, 58, 61, 70, 93, 94]
    if pair(learner, shifted, TRAIN, VAL, FLOOR) != (42, 61):
        raise Wrong("With other steps, unevenly spaced, it is wrong: take them from the list `steps`, compute none.")
    if pair(learner, [5], [0.1], [0.4], FLOOR) != (5, 5):
        raise Wrong("With a single evaluation it is wrong: that one is the best, and it can be the proof as well.")


def pair(learner: Report, steps: list[int], train: Curve, val: Curve, floor: float) -> tuple[Any, Any]:
    """What the learner returns, as two things; Wrong if it is not, or if a list was changed."""
    given = list(steps), list(train), list(val)
    out = learner(*given, floor)
    if given != (steps, train, val):
        raise Wrong("Your function changes a list that it was given, and the caller still needs it: sort copies only.")
    if out is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if not isinstance(out, tuple | list) or len(out) != 2:
        raise Wrong("Two things are to be returned, the step to stop at and the step of the proof: return stop, proof.")
    if any(hasattr(x, "__len__") and not isinstance(x, str) for x in out):
        raise Wrong("You return a whole list where one step is asked for: take its first entry, if it has one.")
    return tuple(out)


def diagnose_stop(stop: Any) -> None:
    """Raise the Wrong that fits a wrong step to stop at."""
    best = min(VAL)
    named: dict[Any, str] = {
        VAL.index(best): "You return the position in the list: the answer is a step, so look it up in `steps`.",
        best: "You return the lowest loss itself: the question is at which step it was reached.",
        STEPS[TRAIN.index(min(TRAIN))]: "You stop where the training loss is lowest: there it has memorized most. Use "
        "val.",
        140: "Two evaluations share the lowest validation loss, and you take the later one: training longer brought "
        "nothing, so the earliest counts.",
        40: "You stop before the first rise of the validation loss: it falls again later, and lower. Look at the whole "
        "run.",
        STEPS[-1]: "You return the last step, where the validation loss is highest: look for its minimum.",
        120: "You stop where memorizing is proven, but the validation loss was at its best before. Are the two answers "
        "in the right order?",
        20: "You return the first step: nothing is learned there yet.",
    }
    if stop == STEPS[VAL.index(best)] and not isinstance(stop, bool):
        return
    raise Wrong(named.get(stop, "The step to stop at is not the one with the lowest validation loss of the run."))


def diagnose_proof(proof: Any) -> None:
    """Raise the Wrong that fits a wrong step of the proof."""
    if isinstance(proof, bool):
        raise Wrong("The proof is a step, or None if there is none: you return True or False.")
    named: dict[Any, str] = {
        20: "A training loss below the validation loss is no proof: it is so in nearly every run. Compare it with the "
        "floor.",
        None: "This run does go below the floor, and you find no proof: is it the training loss that you compare?",
        180: "You report the last evaluation below the floor: the first one proves it already.",
        160: "You report where the training loss is lowest: it was below the floor before, and that proved it.",
        5: "You report a position in the list as the proof: look up the step that belongs to it.",
        0.15: "You report a loss as the proof: what is asked for is its step.",
        100: "You report a step at which the training loss is still above the floor: the next one is the proof. A "
        "rising validation loss is a sign of overfitting, but no proof.",
        80: "You report the step to stop at once more: the proof is a matter of the training loss and the floor.",
    }
    first = next(step for step, loss in zip(STEPS, TRAIN, strict=True) if loss < FLOOR)
    if proof == first:
        return
    raise Wrong(named.get(proof, "The proof is not the first step at which the training loss lies below the floor."))
