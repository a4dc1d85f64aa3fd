"""Day 2: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from llmcourse.checks import check
from llmcourse.data import TextDataset

Say = Callable[[], str]
Length = Callable[[int, int, int], int]


class BySlices(Dataset[Any]):
    def __init__(self, ids: Tensor, block_size: int, stride: int) -> None:
        self.ids, self.T, self.s = ids, block_size, stride

    def __len__(self) -> int:
        return len(range(0, len(self.ids) - self.T, self.s))

    def __getitem__(self, i: int) -> Any:
        if i >= len(self):
            raise IndexError
        w = self.ids[i * self.s :][: self.T + 1]
        return w[:-1], w[1:]


class ByUnfold:  # no Dataset: two methods are enough
    def __init__(self, ids: Tensor, block_size: int, stride: int = 1) -> None:
        self.rows = ids.unfold(0, block_size + 1, stride)

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, i: int) -> Any:
        return self.rows[i, :-1], self.rows[i, 1:]


class ByGather(Dataset[Any]):
    def __init__(self, ids: Tensor, T: int, stride: int) -> None:
        at = torch.arange(0, len(ids) - T, stride)[:, None] + torch.arange(T)
        self.x, self.y = ids[at].clone(), ids[at + 1].clone()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return [self.x[i], self.y[i]]


class ByList(list[Any]):
    def __init__(self, ids: Tensor, T: int, stride: int) -> None:
        super().__init__((ids[i : i + T], ids[i + 1 : i + T + 1]) for i in range(0, len(ids) - T, stride))


class ByNegativeToo(BySlices):
    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(i + len(self) if i < 0 else i)


RIGHT = [BySlices, ByUnfold, ByGather, ByList, ByNegativeToo, TextDataset]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda c: c.__name__)
def test_windows_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("day02", learner), said()
    assert said().startswith("day02: right. ")


def variant(
    *,
    length: Length = lambda N, T, s: (N - T - 1) // s + 1,
    start: Callable[[int, int, int], int] = lambda i, T, s: i * s,
    cut: Callable[[Tensor, int, int], Any] = lambda ids, a, T: (ids[a : a + T], ids[a + 1 : a + T + 1]),
    end: type[Exception] | None = IndexError,
) -> type:
    class Windows(Dataset[Any]):
        def __init__(self, ids: Tensor, block_size: int, stride: int) -> None:
            self.ids, self.T, self.s = ids, block_size, stride

        def __len__(self) -> int:
            return max(0, length(len(self.ids), self.T, self.s))

        def __getitem__(self, i: int) -> Any:
            if end and i >= len(self):
                raise end
            return cut(self.ids, start(i, self.T, self.s), self.T)

    return Windows


class NoLength:
    def __init__(self, ids: Tensor, block_size: int, stride: int) -> None:
        self.ids = ids

    def __getitem__(self, i: int) -> Any:
        return self.ids[i * 3 : i * 3 + 4], self.ids[i * 3 + 1 : i * 3 + 5]



class WritesIntoTheText(BySlices):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        x, y = x.clone(), y.clone()
        self.ids[i * self.s] = 0
        return x, y


def drawn(ids: Tensor, a: int, T: int) -> Any:
    a = int(torch.randint(len(ids) - T, ()))
    return ids[a : a + T], ids[a + 1 : a + T + 1]


def moved(x_end: int, y_start: int, y_end: int, x_start: int = 0, done: Callable[[Tensor], Any] = lambda w: w) -> type:
    """x and y as slices around the start, the ends counted from start + T; `done` is applied to both."""

    def cut(ids: Tensor, a: int, T: int) -> Any:
        return done(ids[a + x_start : a + T + x_end]), done(ids[a + y_start : a + T + y_end])

    return variant(cut=cut)


WRONG: dict[str, tuple[Any, str]] = {
    "no shift": (moved(0, 0, 0), "y is the same as x"),
    "shift of two": (moved(0, 2, 2), "y is moved by 2 tokens"),
    "swapped": (moved(1, 0, 0, x_start=1), "y is moved the wrong way"),
    "chunk of T": (moved(-1, 1, 0), "T pairs need T + 1"),
    "end of y": (moved(0, 1, 0), "end of y's slice"),
    "x too long": (moved(1, 1, 1), "for y alone"),
    "one row": (variant(cut=lambda ids, a, T: ids[a : a + T + 1]), "one row of T + 1"),
    "last target only": (variant(cut=lambda ids, a, T: (ids[a : a + T], ids[a + T])), "y is a single token"),
    "batch dimension": (moved(0, 1, 1, done=lambda w: w[None]), "the loader adds the batch"),
    "lists": (moved(0, 1, 1, done=lambda w: w.tolist()), "should be tensors"),
    "dictionary": (variant(cut=lambda ids, a, T: {"x": ids[a : a + T], "y": ids[a + 1 :]}), "should be a pair"),
    "nothing": (variant(cut=lambda ids, a, T: None), "is None"),
    "float": (moved(0, 1, 1, done=lambda w: w.float()), "dtype float32"),
    "drawn": (variant(cut=drawn), "nothing is drawn"),
    "backwards": (moved(0, 1, 1, done=lambda w: w.flip(0)), "order of the text"),
    "stride not in the length": (variant(length=lambda N, T, s: N - T), "takes no notice of the stride"),
    "length by T": (variant(length=lambda N, T, s: (N - 1) // T), "as if the stride were T"),
    "starts to the end": (variant(length=lambda N, T, s: N // s), "starts up to the end of the text"),
    "one too many": (variant(length=lambda N, T, s: (N - T) // s + 1), "behind the end of the text"),
    "one too few": (variant(length=lambda N, T, s: (N - T) // s), "one is forgotten at the end"),
    "as long as the text": (variant(length=lambda N, T, s: N), "is that of the text"),
    "far too few": (variant(length=lambda N, T, s: (N - T - 1) // s - 1), "may start at N - T - 1"),
    "stride not in the item": (variant(start=lambda i, T, s: i), "should move on by the stride"),
    "item by T": (variant(start=lambda i, T, s: i * T), "starts at i · T"),
    "starts at 1": (variant(start=lambda i, T, s: i * s + 1), "should start at token"),
    "no end": (variant(end=None), "slicing beyond the end"),
    "wrong error": (variant(end=ValueError), "ends in ValueError"),
    "no length": (NoLength, "has no __len__"),
    "writes": (WritesIntoTheText, "changes the text"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day02", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day02", WRONG, least=20)


def test_what_is_no_class_is_refused(said: Say) -> None:
    assert not check("day02", BySlices(torch.arange(9), 4, 1))
    assert "the class itself" in said()
