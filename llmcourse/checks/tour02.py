"""Checker of tour 2, training examples: windows side by side, and targets one token later.

The tokens are 100, 101, 102, …: every result tells where its numbers were taken from.
"""

from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise


def examples(ids: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets `(N, C)` of windows side by side."""
    N = (len(ids) - 1) // C  # the last target needs a token too
    return ids[: N * C].view(N, C), ids[1 : N * C + 1].view(N, C)


@exercise(
    "tour02",
    title="Training examples",
    signature="examples(ids, C)",
    hints=[
        "How many windows fit? The inputs need N · C tokens, and the target of the last of them one more.",
        "Inputs are the tokens 0 to N · C - 1, targets the tokens 1 to N · C: two slices of the same row.",
        "A row becomes windows with .view(N, C); do it with both slices, after the shift.",
    ],
    solution=examples,
    right="Every token but the first is a target once, as long as it fills a window.",
)
def check_examples(learner: Any) -> None:
    for n, C in ((13, 4), (14, 4), (16, 4), (17, 4)):
        judge(learner, n, C)
    for n, C in ((7, 6), (31, 1), (101, 10), (102, 7)):
        with blame(f"It is right for windows of 4, but fails for {n} tokens and C = {C}"):
            x, y = pair(learner, n, C)
            want = examples(torch.arange(100, 100 + n), C)
            if not (torch.equal(x, want[0]) and torch.equal(y, want[1])):
                raise Wrong(f"It is right for windows of 4, but not for {n} tokens and C = {C}: use C and len(ids).")
    odd = torch.tensor([5, 5, 2, 9, 2, 2, 7, 5, 1])
    x, y = call(learner, ids=odd, C=3)
    if not (torch.equal(x, examples(odd, 3)[0]) and torch.equal(y, examples(odd, 3)[1])):
        raise Wrong("It is right for the tokens 100, 101, 102, …, but not for others: do not compute with the ids.")


def pair(learner: Any, n: int, C: int) -> tuple[Tensor, Tensor]:
    """The two tensors that the learner returns, if that is what they are."""
    result = call(learner, ids=torch.arange(100, 100 + n), C=C)
    if result is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(result, Tensor) or not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Wrong("It should return two things, inputs and targets: return x, y.")
    for what, value in zip(("inputs", "targets"), result, strict=True):
        if not isinstance(value, Tensor):
            raise Wrong(f"The {what} are a {type(value).__name__}, not a tensor: torch.stack makes one of many.")
        if value.dtype != torch.int64:
            raise Wrong(f"The {what} have dtype {value.dtype}; ids stay whole numbers, torch.int64.")
        if value.ndim != 2:
            raise Wrong(f"The {what} have {value.ndim} dimension(s); windows make two, (N, C).")
    return result[0], result[1]


def judge(learner: Any, n: int, C: int) -> None:
    x, y = pair(learner, n, C)
    want_x, want_y = examples(torch.arange(100, 100 + n), C)
    if torch.equal(x, want_x) and torch.equal(y, want_y):
        return
    where = f"With {n} tokens and C = {C}"
    if not len(x) and not len(y):
        raise Wrong(f"{where} there is not a single window: N is the number of targets divided by C, rounded down.")
    if torch.equal(x, want_y) and torch.equal(y, want_x):
        raise Wrong("Inputs and targets have changed places: the target is the later token.")
    if x.shape == y.shape == want_x.T.shape and torch.equal(x, want_x.T) and x.shape != want_x.shape:
        raise Wrong("The result is transposed: a window is a row, (N, C).")
    if x.shape != y.shape:
        raise Wrong(f"{where} inputs have shape {tuple(x.shape)} and targets {tuple(y.shape)}: each needs its partner.")
    if x.shape[1] == C + 1:
        raise Wrong("Your windows are C + 1 wide: the extra token is there for the target, the input has C.")
    if x.shape[1] == C - 1:
        raise Wrong("Your windows are C - 1 wide: the last input of each has lost its target; take it from the row.")
    if x.shape[1] != C:
        raise Wrong(f"{where} a window has {x.shape[1]} tokens instead of C.")
    judge_targets(x, y, n)
    judge_windows(x, want_x, n, C, where)
    raise Wrong(f"{where} the targets fit their inputs, but these are not the windows side by side from the start.")


def judge_targets(x: Tensor, y: Tensor, n: int) -> None:
    """Whether each target is the token after its input."""
    shift = y - x
    if (shift == 0).all():
        raise Wrong("Targets and inputs are the same tokens: nothing is left to predict. Shift them by one.")
    if (shift == -1).any() and not (shift > 0).any():
        raise Wrong("Each target is the token before its input: the shift has the wrong direction.")
    if (shift == 2).all():
        raise Wrong("The targets are two tokens ahead: the next token is one ahead.")
    wraps = shift != 1
    if wraps.any() and not wraps[:, :-1].any():
        if wraps[:, -1].all() and torch.equal(y[:, -1], x[:, 0]):
            raise Wrong("The last target of every window is its own first token: roll wraps around inside of a window.")
        if wraps[:, -1].sum() == 1 and y[-1, -1] == 100:
            raise Wrong("The very last target is the first token of the text: roll wraps around at the end.")
        raise Wrong("The last target of a window is not the token after it: shift the row first, cut it afterwards.")
    if wraps.any():
        raise Wrong("Some targets are not the token right after their input.")


def judge_windows(x: Tensor, want: Tensor, n: int, C: int, where: str) -> None:
    """Which windows were taken, their targets being right."""
    starts = (x[:, 0] - 100).tolist()
    if starts == list(range(len(starts))) and len(starts) > 1:
        raise Wrong("The windows overlap: each starts one token after the one before, not C.")
    if len(starts) > 1 and starts[1] - starts[0] == C + 1:
        raise Wrong("A token is lost between two windows: pieces of C + 1 drop one prediction each; start every C.")
    if starts and sorted(starts) == list(range(0, C * len(starts), C)) and starts != sorted(starts):
        raise Wrong("The windows are right, but not in their order: here nothing is shuffled.")
    if starts == list(range(0, C * len(starts), C)) and len(starts) < len(want):
        raise Wrong(f"{where} there is room for {len(want)} windows, not only {len(starts)}: N = (tokens - 1) // C.")
    if starts and starts[0] != 0:
        raise Wrong(f"The first window starts at token {starts[0]}, not at the beginning.")
