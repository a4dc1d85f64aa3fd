"""Checkers of day 39: the best checkpoint that a budget can buy, and inverted dropout."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

Curves = list[list[float]]
Found = tuple[int, int, float]


def best_checkpoint(tuned: Curves, untouched: Curves, budget: int, patience: int) -> Found:
    """Run, evaluation and untouched loss of the lowest tuned loss that `budget` evaluations can reach."""
    found, lowest = (0, 0), math.inf
    for run, losses in enumerate(tuned):
        best, since = math.inf, 0  # of this run
        for i, loss in enumerate(losses):
            if budget == 0 or since == patience:
                break
            budget -= 1
            since = 0 if loss < best else since + 1  # nan < best is False
            best = loss if loss < best else best
            if loss < lowest:
                found, lowest = (run, i), loss
    return *found, untouched[found[0]][found[1]]


def guess(tuned: Curves, untouched: Curves, budget: int, patience: int, mistake: str = "") -> Any:
    """`best_checkpoint` with one mistake."""
    by = untouched if mistake == "chosen by untouched" else tuned
    allowed = {"budget off": budget + 1, "budget ignored": 10**9, "budget short": budget - 1}.get(mistake, budget)
    made: list[tuple[float, int, int]] = []
    left, stopped = allowed, False
    limit = {"one late": patience + 1, "one early": patience - 1, "patience ignored": 10**9}.get(mistake, patience)
    best = math.inf
    for run, losses in enumerate(by):
        if mistake != "best of all runs":
            best = math.inf
        since = 0
        left = allowed if mistake == "budget a run" else left
        for i, loss in enumerate(losses):
            if left <= 0:
                break
            if since >= max(limit, 1) or (mistake == "one run" and stopped):
                stopped = True
                break
            left -= 1
            made.append((loss, run, i))
            better = {"equal": loss <= best, "nan": not loss >= best}.get(mistake, loss < best)
            since = (since if mistake == "no reset" else 0) if better else since + 1
            best = loss if better or mistake == "previous" else best
    numbers = [m for m in made if m[0] == m[0]]
    loss, run, i = min(numbers or made, key=lambda m: m[0])
    if mistake == "last of equals":
        loss, run, i = min(reversed(numbers), key=lambda m: m[0])
    if mistake == "last made":
        loss, run, i = made[-1]
    if mistake == "stop of the run":
        i = max(at for _, r, at in made if r == run)
    if mistake == "place in all":
        return run, made.index((loss, run, i)), untouched[run][i]
    if mistake == "from one":
        return run + 1, i + 1, untouched[run][i]
    if mistake == "swapped":
        return i, run, untouched[run][i]
    if mistake == "lowest untouched":
        return run, i, min(untouched[r][at] for _, r, at in made)
    return run, i, (tuned if mistake == "reports tuned" else untouched)[run][i]


MISTAKES = {
    "reports tuned": "The loss you report is the one you chose by, and choosing has made it too good: report the "
    "untouched loss of the same checkpoint.",
    "chosen by untouched": "You choose by the untouched losses. Then nothing is left that is untouched: choose by "
    "`tuned`.",
    "lowest untouched": "You report the lowest untouched loss of all; it must be that of the checkpoint you chose.",
    "last made": "You return the last evaluation that was made, and not the lowest.",
    "stop of the run": "The run is right, but you return where it stopped; its best checkpoint came earlier.",
    "last of equals": "Of two checkpoints with the same tuned loss the first is the answer: it was there earlier, and "
    "the second is no improvement.",
    "one late": "A run ends one evaluation too late: with patience 2 it ends at the second evaluation in a row without "
    "a new best.",
    "one early": "A run ends one evaluation too early: with patience 2 a single bad evaluation does not end it.",
    "patience ignored": "No run ever ends for lack of patience.",
    "equal": "An equal loss is counted as an improvement and sets the count back to 0: only `<` is better.",
    "nan": "A NaN is taken for a new best. Every comparison with NaN is False, so ask `loss < best`, and not for the "
    "opposite.",
    "previous": "You compare with the evaluation before; patience counts since the *best* one.",
    "best of all runs": "A new run is measured against the best of the runs before it: each run has a best of its own.",
    "no reset": "The count of bad evaluations is never set back: a new best must start it again at 0.",
    "budget a run": "Every run gets the whole budget; it is for all runs together.",
    "budget off": "You make one evaluation more than the budget allows.",
    "budget short": "You make one evaluation fewer than the budget allows.",
    "budget ignored": "The budget is never spent: evaluations go on when nothing is left.",
    "one run": "Everything ends as soon as one run is out of patience; what is left of the budget belongs to the "
    "next run, whose count starts at 0.",
    "place in all": "The second number counts the evaluations of all runs; it should be the place inside its own run.",
    "from one": "Runs and evaluations are counted from 0, as in `tuned[run][evaluation]`.",
    "swapped": "Run and evaluation have changed places.",
}


def cases() -> list[tuple[Curves, Curves, int, int]]:
    """Curves that fall, rise and wobble, some with equal losses and NaN."""
    source = random.Random(39)
    out: list[tuple[Curves, Curves, int, int]] = []
    for n in range(100):
        tuned: Curves = []
        for _ in range(source.randint(2, 4)):
            level, turn = source.uniform(1.6, 2.0), source.randint(1, 8)
            curve = [level + 0.1 * abs(i - turn) + source.uniform(0, 0.4) for i in range(10)]
            tuned.append([round(v, 1 if n % 2 else 3) for v in curve])
        if n % 3 == 0:
            tuned[source.randrange(len(tuned))][source.randint(0, 5)] = math.nan
        other = [[round(v + source.uniform(-0.2, 0.4), 3) if v == v else 9.0 for v in c] for c in tuned]
        out.append((tuned, other, source.randint(4, 8 * len(tuned)), source.randint(1, 4)))
    return out


@exercise(
    "day39",
    title="The best checkpoint for a budget",
    signature="best_checkpoint(tuned, untouched, budget, patience)",
    hints=[
        "Two loops: over the runs, and inside over the evaluations of a run. Each evaluation costs 1 of the budget; "
        "leave the inner loop when the budget is 0 or the count since the run's best has reached the patience.",
        "Keep two bests: that of this run, which starts at infinity for every run and rules the patience, and that of "
        "everything so far, which is the answer.",
        "`loss < best` is False for an equal loss and for NaN, which is what is wanted. At the end, look the untouched "
        "loss up at the place you found.",
    ],
    solution=best_checkpoint,
    right="Choosing and reporting look at different text, and the budget is never overdrawn.",
)
def check_best_checkpoint(learner: Callable[..., Any]) -> None:
    answers: list[Found] = []
    wanted: list[Found] = []
    for tuned, untouched, budget, patience in cases():
        copies = [list(c) for c in tuned], [list(c) for c in untouched]
        answers.append(triple(call(learner, tuned=copies[0], untouched=copies[1], budget=budget, patience=patience)))
        if repr(copies) != repr((tuned, untouched)):
            raise Wrong("Your function changes the lists that it is given: work on copies.")
        wanted.append(best_checkpoint(tuned, untouched, budget, patience))
    if agree(answers, wanted):
        return
    for mistake, sentence in MISTAKES.items():
        if agree(answers, [guess(*case, mistake=mistake) for case in cases()]):
            raise Wrong(sentence)
    missed = [i for i, (a, b) in enumerate(zip(answers, wanted, strict=True)) if not agree([a], [b])]
    with_nan = [i for i, case in enumerate(cases()) if any(v != v for c in case[0] for v in c)]
    if set(missed) <= set(with_nan):
        raise Wrong("It fails only where a loss is NaN: a NaN is never a new best, and it uses up patience.")
    i = min(missed)
    tuned, untouched, budget, patience = cases()[i]
    raise Wrong(
        f"With budget {budget} and patience {patience} you return {answers[i]} instead of {wanted[i]}, and in "
        f"{len(missed)} of {len(answers)} cases something else than the rule gives; look at tuned = {tuned}."
    )


def triple(answer: Any) -> Found:
    """What the learner returned, if it is (run, evaluation, loss)."""
    if answer is None:
        raise Wrong("Your function returned None: return (run, evaluation, loss).")
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong("Return three things, (run, evaluation, loss), in this order.")
    try:
        return int(answer[0]), int(answer[1]), float(answer[2])
    except (TypeError, ValueError) as e:
        raise Wrong("Run and evaluation are whole numbers, the loss is a number.") from e


def agree(answers: Sequence[Found], others: Sequence[Found]) -> bool:
    return all(
        a[:2] == b[:2] and (a[2] == b[2] or math.isclose(a[2], b[2], abs_tol=1e-6) or (a[2] != a[2] and b[2] != b[2]))
        for a, b in zip(answers, others, strict=True)
    )


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Inverted dropout: each number of `x` becomes 0 with chance p, the others grow by 1 / (1 - p)."""
    if not training or p == 0:
        return x
    if p == 1:
        return torch.zeros_like(x)
    keep = torch.rand_like(x) >= p
    return x * keep / (1 - p)


@exercise(
    "day39b",
    title="Inverted dropout",
    signature="dropout(x, p, training)",
    hints=[
        "Outside training it returns x as it is. In training, draw one uniform number for every number of x: "
        "torch.rand_like(x). It is below p with chance p.",
        "Multiply by the mask of those that stay and divide by 1 - p, the share that stays on average. The sizes come "
        "from p, never from counting the mask.",
        "p = 1 would divide 0 by 0: return zeros there.",
    ],
    solution=dropout,
    right="The average stays, evaluation is left alone, and every number has its own draw.",
)
def check_dropout(learner: Callable[..., Any]) -> None:
    x = torch.rand(200, 150) + 0.5  # no zeros of its own
    p = 0.3
    out = drop(learner, x, p, False)
    if not torch.equal(out, x):
        if (out == 0).float().mean() > 0.1:
            raise Wrong("With training=False numbers are still dropped: in evaluation x comes back unchanged.")
        raise Wrong("With training=False the numbers are rescaled: inverted dropout does all its scaling in training.")
    out = drop(learner, x, p, True)
    gone, ratio = out == 0, (out / x)[out != 0]
    share = float(gone.float().mean())
    if share == 0:
        raise Wrong("With training=True nothing is set to 0.")
    if len(ratio) == 0:
        raise Wrong("With p = 0.3 everything is set to 0.")
    for dim, name in ((0, "row"), (1, "column")):
        if bool((gone.float().std(dim=dim) == 0).all()):
            raise Wrong(f"Every {name} has the same mask: draw a number of its own for each number of x.")
    if abs(share - (1 - p)) < 0.03:
        raise Wrong(f"With p = 0.3 the share of zeros is {share:.2f}: p is the chance to be dropped, not to stay.")
    if abs(share - p) > 0.03:
        raise Wrong(f"With p = 0.3 the share of zeros is {share:.2f}.")
    if torch.equal(gone, drop(learner, x, p, True) == 0):
        raise Wrong("Two calls drop the same numbers: a seed is set inside, or the mask is drawn only once.")
    counts = {int((drop(learner, x, p, True) == 0).sum()) for _ in range(4)}
    if len(counts) == 1:
        raise Wrong("Every call drops exactly as many: each number has a draw of its own, and their count is random.")
    factor = float(ratio.median())
    if float(ratio.max() - ratio.min()) > 1e-3:
        raise Wrong("The numbers that stay are not all multiplied by the same factor.")
    check_factor(factor, p)
    with blame("It works for a matrix, but fails for x of shape (2, 3, 4, 5)"):
        drop(learner, torch.ones(2, 3, 4, 5), 0.5, True)
    if not torch.equal(drop(learner, x, 0.0, True), x):
        raise Wrong("With p = 0 nothing may change.")
    all_gone = drop(learner, x, 1.0, True)
    if all_gone.isnan().any():
        raise Wrong("With p = 1 the result is NaN, 0 divided by 0: everything is dropped, so return zeros.")
    if (all_gone != 0).any():
        raise Wrong("With p = 1 everything must be 0.")
    leaf = x.clone().requires_grad_()
    out = learner(leaf, p, True)
    if not out.requires_grad:
        raise Wrong("No gradient gets through: do not detach x or wrap the computation in no_grad.")


def check_factor(factor: float, p: float) -> None:
    """Say what the numbers that stay are multiplied by, if it is not 1 / (1 - p)."""
    if math.isclose(factor, 1 / (1 - p), rel_tol=1e-5):
        return
    if math.isclose(factor, 1 / (1 - p), rel_tol=2e-2):
        raise Wrong(
            "The factor changes a little from call to call: divide by 1 - p, not by the share that happened to stay."
        )
    known = {
        1.0: "The numbers that stay keep their size, so the average shrinks: divide them by 1 - p.",
        1 - p: "The numbers that stay are multiplied by 1 - p, which shrinks the average twice: divide by it.",
        1 / p: "The numbers that stay are divided by p; divide by 1 - p, the chance to stay.",
        p: "The numbers that stay are multiplied by p; divide them by 1 - p.",
        1 + p: "The numbers that stay are multiplied by 1 + p; that is near 1 / (1 - p) for small p only.",
    }
    for value, sentence in known.items():
        if math.isclose(factor, value, rel_tol=1e-3):
            raise Wrong(sentence)
    raise Wrong(f"The numbers that stay are multiplied by {factor:.3f}; with p = 0.3 it should be 1 / 0.7.")


def drop(learner: Callable[..., Any], x: Tensor, p: float, training: bool) -> Tensor:
    """What the learner's function returns, as a tensor of the shape of x."""
    return tensor(call(learner, x=x, p=p, training=training), x.shape)
