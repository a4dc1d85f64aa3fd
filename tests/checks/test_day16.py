"""Day 16: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse import data
from llmcourse.checks import check

Say = Callable[[], str]
G = torch.Generator
Pair = tuple[Tensor, Tensor]


def draw(n: int, size: Any, g: G) -> Tensor:
    return torch.randint(n, size, generator=g)


def by_gather(ids: Tensor, block_size: int, batch_size: int, generator: G) -> Pair:
    w = ids[draw(len(ids) - block_size, (batch_size, 1), generator) + torch.arange(block_size + 1)].long()
    return w[:, :-1], w[:, 1:]


def by_slices(ids: Tensor, block_size: int, batch_size: int, generator: G) -> list[Tensor]:
    starts = draw(len(ids) - block_size, (batch_size,), generator).tolist()
    x = torch.stack([ids[i : i + block_size].long() for i in starts])
    return [x, torch.stack([ids[i + 1 : i + 1 + block_size].long() for i in starts])]


def by_unfold(ids: Tensor, block_size: int, batch_size: int, generator: G) -> Pair:
    windows = ids.unfold(0, block_size + 1, 1)  # a view of all windows
    w = windows[draw(len(windows), (batch_size,), generator)].to(torch.int64)
    return w[:, :block_size], w[:, 1:]


def by_rand(ids: Tensor, T: int, B: int, g: G) -> Pair:
    starts = (torch.rand(B, generator=g) * (len(ids) - T)).long()
    places = starts[:, None] + torch.arange(T)[None]
    return ids[places].long(), ids[places + 1].long()


def by_package(ids: Tensor, block_size: int, batch_size: int, generator: G) -> Pair:
    return data.get_batch(ids, batch_size, block_size, generator)


def by_numpy(ids: Tensor, block_size: int, batch_size: int, generator: G, extra: int = 1) -> Pair:
    array, starts = ids.numpy(), draw(len(ids) - block_size, (batch_size, 1), generator).numpy()
    w = torch.from_numpy(array[starts + torch.arange(block_size + extra).numpy()].astype("int64"))
    return w[:, :-1], w[:, 1:]


@pytest.mark.parametrize("learner", [by_gather, by_slices, by_unfold, by_rand, by_package, by_numpy])
def test_batch_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day16", learner), said()
    assert said().startswith("day16: right. ")


def variant(
    *,
    bound: Callable[[int, int], int] = lambda n, T: n - T,
    low: int = 0,
    move: int = 1,
    step: int = 1,
    dtype: torch.dtype | None = torch.int64,
    wrap: bool = False,
) -> Callable[..., Pair]:
    def get_batch(ids: Tensor, block_size: int, batch_size: int, generator: G) -> Pair:
        n = bound(len(ids), block_size)
        starts = step * torch.randint(low, -(-n // step), (batch_size, 1), generator=generator)
        places = starts + torch.arange(block_size)
        if wrap or move > 1 or move < 0:
            x, y = ids[places % len(ids)], ids[(places + move) % len(ids)]
        else:
            x, y = ids[places], ids[places + move]
        return (x.to(dtype), y.to(dtype)) if dtype else (x, y)

    return get_batch


def rolled(ids: Tensor, T: int, B: int, g: G) -> Pair:
    x = by_gather(ids, T, B, g)[0]
    return x, x.roll(-1, 1)


def last_repeated(ids: Tensor, T: int, B: int, g: G) -> Pair:
    x = by_gather(ids, T, B, g)[0]
    return x, torch.cat([x[:, 1:], x[:, -1:]], dim=1)


def one_window(ids: Tensor, T: int, B: int, g: G) -> Pair:
    w = ids[draw(len(ids) - T, (1,), g) + torch.arange(T + 1)].long().repeat(B, 1)
    return w[:, :-1], w[:, 1:]


def neighbors(ids: Tensor, T: int, B: int, g: G) -> Pair:
    first = draw(max(1, len(ids) - B * T), (1,), g)
    w = ids[(first + T * torch.arange(B))[:, None] + torch.arange(T + 1)].long()
    return w[:, :-1], w[:, 1:]


def global_chance(ids: Tensor, T: int, B: int, g: G) -> Pair:
    w = ids[torch.randint(len(ids) - T, (B, 1)) + torch.arange(T + 1)].long()
    return w[:, :-1], w[:, 1:]


def own_generator(ids: Tensor, T: int, B: int, g: G) -> Pair:
    return by_gather(ids, T, B, torch.Generator().manual_seed(0))


def seeded_inside(ids: Tensor, T: int, B: int, g: G) -> Pair:
    return by_gather(ids, T, B, g.manual_seed(1))


def drawn_twice(ids: Tensor, T: int, B: int, g: G) -> Pair:
    return by_gather(ids, T, B, g)[0], by_gather(ids, T, B, g)[1]


def swapped(ids: Tensor, batch_size: int, block_size: int, generator: G) -> Pair:
    return by_gather(ids, block_size, batch_size, generator)


def short(ids: Tensor, T: int, B: int, g: G) -> Pair:
    w = by_gather(ids, T, B, g)[0]
    return w[:, :-1], w[:, 1:]


def in_one_piece(ids: Tensor, T: int, B: int, g: G) -> Tensor:
    return ids[draw(len(ids) - T, (B, 1), g) + torch.arange(T + 1)].long()


def inputs_only(ids: Tensor, T: int, B: int, g: G) -> Tensor:
    return by_gather(ids, T, B, g)[0]


def three(ids: Tensor, T: int, B: int, g: G) -> Any:
    x, y = by_gather(ids, T, B, g)
    return x, y, x[:, 0]


def permutation(ids: Tensor, T: int, B: int, g: G) -> Pair:
    w = ids[torch.randperm(len(ids) - T, generator=g)[:B, None] + torch.arange(T + 1)].long()
    return w[:, :-1], w[:, 1:]


def places(ids: Tensor, T: int, B: int, g: G) -> Pair:
    return by_gather(torch.arange(len(ids)), T, B, g)


def scattered(ids: Tensor, T: int, B: int, g: G) -> Pair:
    at = draw(len(ids) - T, (B, T), g)
    return ids[at].long(), ids[at + 1].long()


def returns_none(ids: Tensor, T: int, B: int, g: G) -> None:
    by_gather(ids, T, B, g)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "y = x": (variant(move=0), "y is equal to x"),
    "moved by two": (variant(move=2), "moved by 2 tokens"),
    "one back": (variant(move=-1, low=1), "to the wrong side, by 1"),
    "rolled": (rolled, "the window's own first token"),
    "last repeated": (last_repeated, "last of each row: it is not the next token"),
    "last start never drawn": (variant(bound=lambda n, T: n - T - 1), "N - T - 1 = 2, is never drawn"),
    "first start never drawn": (variant(low=1), "The first start, 0"),
    "start too large": (variant(bound=lambda n, T: n - T + 1), "a start is drawn that is too large"),
    "wraps around": (variant(bound=lambda n, T: n - T + 2, wrap=True), "goes on at its beginning"),
    "multiples of T": (variant(step=7), "multiples of block_size"),
    "one window": (one_window, "All rows of the batch are the same window"),
    "neighbors": (neighbors, "with one random start for all"),
    "global chance": (global_chance, "The same generator gives two different batches"),
    "own generator": (own_generator, "Two calls in a row"),
    "seeded inside": (seeded_inside, "Two calls in a row"),
    "drawn twice": (drawn_twice, "different starts"),
    "swapped": (swapped, "the two sizes have changed places"),
    "too short": (short, "only block_size - 1 columns"),
    "in one piece": (in_one_piece, "in one piece"),
    "inputs only": (inputs_only, "You return one tensor"),
    "three things": (three, "You return 3 things"),
    "permutation": (permutation, "not a permutation"),
    "dtype kept": (variant(dtype=None), "dtype int32"),
    "float": (variant(dtype=torch.float32), "dtype float32"),
    "places": (places, "You return places"),
    "scattered": (scattered, "no piece of the text"),
    "nothing": (returns_none, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_batch_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day16", WRONG, mistake)


def test_batch_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day16", WRONG, least=20)
