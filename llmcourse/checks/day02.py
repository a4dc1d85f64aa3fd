"""Checker of day 2, a dataset of windows.

The text is 100, 101, 102, ...: every token says where it stands, so an item tells where its window begins and how far
the targets are moved, however it was made.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import Wrong, blame, exercise, tensor

Learner = Callable[[Tensor, int, int], Any]
FIRST = 100  # the token at place 0
# (N, T, stride): a last window that fits exactly, one token too many, two too many; stride 1 and T; a single window
SIZES = ((23, 4, 3), (22, 4, 3), (24, 4, 3), (23, 4, 1), (21, 4, 4), (40, 5, 9), (9, 8, 1), (9, 8, 3))


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """The windows of `ids` (N,): item i is (x, y), both (T,), and starts at token i * stride."""

    def __init__(self, ids: Tensor, block_size: int, stride: int) -> None:
        self.ids, self.block_size, self.stride = ids, block_size, stride

    def __len__(self) -> int:
        last = len(self.ids) - self.block_size - 1  # the last start that leaves room for T + 1 tokens
        return last // self.stride + 1  # starts 0, stride, 2 * stride, ... up to last

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if not 0 <= i < len(self):
            raise IndexError(f"there is no window {i}")
        start = i * self.stride
        return self.ids[start : start + self.block_size], self.ids[start + 1 : start + self.block_size + 1]


@exercise(
    "day02",
    title="A dataset of windows",
    signature="Windows(ids, block_size, stride)",
    hints=[
        "Window i starts at token i * stride. x is the T tokens from there, y the T tokens from one place further on: "
        "together they use T + 1 tokens of the text.",
        "For the length, find the last start first: start + T may be at most N - 1, so start is at most N - T - 1. How "
        "many of 0, stride, 2 * stride, ... are not larger than that? Try it with N = 6, T = 2, stride 1, 2 and 3.",
        "__len__ is (N - T - 1) // stride + 1. In __getitem__, raise IndexError for an i that is not below len(self): "
        "slicing beyond the end does not fail by itself, it gives a shorter window.",
    ],
    solution=Windows,
    right="Every window has its T questions, the last one ends with the text, and nothing comes after it.",
    wants="class",
)
def check_windows(learner: Learner) -> None:
    first_item(learner)
    check_lengths([size(build(learner, *case)) for case in SIZES])
    for N, T, stride in SIZES:
        dataset = build(learner, N, T, stride)
        for i in range(size(dataset)):
            with blame(f"It works for some windows, but not for window {i} of N = {N}, T = {T}, stride = {stride}"):
                x, y = pair(dataset, i, T)
            check_start(x, y, i, T, stride)
    check_end(learner)
    check_loader(learner)


def text(N: int) -> Tensor:
    return torch.arange(FIRST, FIRST + N)


def build(learner: Learner, N: int, T: int, stride: int) -> Any:
    with blame(f"The dataset cannot be made for {N} tokens, block_size {T}, stride {stride}"):
        return learner(text(N), T, stride)


def size(dataset: Any) -> int:
    if not hasattr(dataset, "__len__"):
        raise Wrong("Your class has no __len__: it says how many windows there are.")
    return len(dataset)


def pair(dataset: Any, i: int, T: int) -> tuple[Tensor, Tensor]:
    """Item i, if it is two tensors (T,) of whole numbers."""
    if not hasattr(dataset, "__getitem__"):
        raise Wrong("Your class has no __getitem__: dataset[i] should give window i.")
    item = dataset[i]
    if item is None:
        raise Wrong(f"dataset[{i}] is None: is there a return line at the end of __getitem__?")
    if isinstance(item, Tensor) and item.shape == (T + 1,):
        raise Wrong(f"dataset[{i}] is one row of T + 1 = {T + 1} tokens: give the pair, window[:-1] and window[1:].")
    if isinstance(item, dict) or not isinstance(item, (tuple, list)) or len(item) != 2:
        raise Wrong(f"dataset[{i}] should be a pair, x and y; it is of type {type(item).__name__}.")
    x, y = item
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise Wrong(f"x and y should be tensors, but are of type {type(x).__name__} and {type(y).__name__}.")
    if x.shape == y.shape == (1, T):
        raise Wrong(f"x and y have shape (1, {T}): a dataset gives single windows, (T,); the loader adds the batch.")
    if x.shape == (T,) and y.ndim < 2 and y.numel() == 1 and T > 1:
        raise Wrong("y is a single token: each of the T positions has a target of its own, so y is as long as x.")
    if x.shape == y.shape == (T - 1,):
        raise Wrong(
            f"x and y have {T - 1} tokens instead of T = {T}: the window was cut to T tokens before it was split in "
            "two. T pairs need T + 1 tokens."
        )
    if x.shape == (T,) and y.shape == (T - 1,):
        raise Wrong(f"In window {i}, y has {T - 1} tokens and x has {T}: the end of y's slice has to move by one, too.")
    if x.shape == (T + 1,):
        raise Wrong(f"x has T + 1 = {T + 1} tokens: the extra one is for y alone.")
    x, y = tensor(x, (T,), torch.int64, "(T,)"), tensor(y, (T,), torch.int64, "(T,)")
    return x, y


def first_item(learner: Learner) -> None:
    """What the items look like, and how far the targets are moved."""
    N, T, stride = SIZES[0]
    ids = text(N)
    with blame(f"The dataset cannot be made for {N} tokens, block_size {T}, stride {stride}"):
        dataset = learner(ids, T, stride)
    x, y = (row.clone() for row in pair(dataset, 1, T))
    if not torch.equal(ids, text(N)):
        raise Wrong("Your class changes the text it was given, and others still need it: only cut windows out of it.")
    if not torch.equal(x, pair(dataset, 1, T)[0]):
        raise Wrong("dataset[1], asked twice, gives two different windows: item i has a fixed place, nothing is drawn.")
    for row in (x, y):
        if not torch.equal(row, row[0] + torch.arange(T)):
            raise Wrong("The tokens of a window do not stand in the order of the text, one behind the other.")
    moved = int(y[0] - x[0])
    if moved == 0:
        raise Wrong("y is the same as x: the target at each position is the token after it, so y starts one later.")
    if moved == -1:
        raise Wrong("y is moved the wrong way: it holds the token before each token of x. Have x and y changed places?")
    if moved != 1:
        raise Wrong(f"y is moved by {moved} tokens: it should start one token after x.")


TO_THE_END = "the length counts starts up to the end of the text, but a window needs T + 1 tokens"
# What a wrong length computes, and what is wrong with it. The first formula that fits all sizes is the diagnosis.
LENGTHS: list[tuple[Callable[[int, int, int], int], str]] = [
    *((lambda N, T, s, d=d: N - T + d, "the length takes no notice of the stride") for d in (0, -1, 1)),
    (lambda N, T, s: N, "the length is that of the text"),
    *(
        (lambda N, T, s, d=d: (N - d) // T, "the length counts pieces of T tokens, as if the stride were T")
        for d in (0, 1)
    ),
    *((lambda N, T, s, d=d: (N - d) // s, TO_THE_END) for d in (0, 1)),
    (lambda N, T, s: -(-N // s), TO_THE_END),
    (lambda N, T, s: (N - T) // s + 1, "the last one would need a token behind the end of the text, for its last y"),
    *(
        (lambda N, T, s, d=d: (N - T - d) // s, "one is forgotten at the end: add 1, for the window that starts at 0")
        for d in (0, 1)
    ),
]


def check_lengths(found: list[int]) -> None:
    """`found` are the lengths of the datasets of SIZES."""
    right = [(N - T - 1) // stride + 1 for N, T, stride in SIZES]
    if found == right:
        return
    k = next(k for k in range(len(SIZES)) if found[k] != right[k])
    N, T, stride = SIZES[k]
    reason = f"the last one may start at N - T - 1 = {N - T - 1} at most"
    for formula, words in LENGTHS:
        if found == [formula(*case) for case in SIZES]:
            reason = words
            break
    raise Wrong(f"For {N} tokens, T = {T} and stride {stride} there are {right[k]} windows, not {found[k]}: {reason}.")


def check_start(x: Tensor, y: Tensor, i: int, T: int, stride: int) -> None:
    start = int(x[0]) - FIRST
    if start != i * stride:
        if start == i:
            raise Wrong(f"Window {i} starts at token {start}: each window should move on by the stride, {stride}.")
        if start == i * T:
            raise Wrong(f"Window {i} starts at i · T = {start}: it should start at i · stride = {i * stride}.")
        raise Wrong(f"Window {i} should start at token {i * stride} for stride {stride}, but starts at {start}.")
    if not torch.equal(y, x + 1) or not torch.equal(x, x[0] + torch.arange(T)):
        raise Wrong(f"Window {i} starts at the right place, but is not {T} tokens in a row and the {T} after them.")


def check_end(learner: Learner) -> None:
    """Behind the last window: IndexError, by which a for loop notices the end."""
    N, T, stride = 22, 4, 3
    dataset = build(learner, N, T, stride)
    n = size(dataset)
    for i in (n, n + 1, n + 10):
        try:
            dataset[i]
        except IndexError:
            continue
        except Exception as e:
            raise Wrong(
                f"dataset[{i}] of {n} windows ends in {type(e).__name__}: it should be IndexError, by which a for loop "
                "notices the end."
            ) from e
        raise Wrong(
            f"There are {n} windows, and yet dataset[{i}] gives something: slicing beyond the end only gives less. "
            "Raise IndexError, or `for x, y in dataset` does not stop where it should."
        )


def check_loader(learner: Learner) -> None:
    dataset = build(learner, 23, 4, 3)
    with blame("Every window is right, but a DataLoader cannot make batches of them"):
        sizes = [tuple(x.shape) for x, _ in DataLoader(dataset, batch_size=3)]
    if sizes != [(3, 4), (3, 4), (1, 4)]:
        raise Wrong(f"A DataLoader makes batches of the shapes {sizes} instead of [(3, 4), (3, 4), (1, 4)].")
