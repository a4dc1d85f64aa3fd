"""Checker of day 16, the batch.

A row of ids that is its own index, `ids[i] = i`, makes a batch readable: `x` shows where each window starts, and `y`
must be `x + 1` everywhere. A row with three legal starts makes sure that the first and the last of them come up.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, call, exercise, tensor

GetBatch = Callable[[Tensor, int, int, torch.Generator], Any]
N, T, B = 1000, 7, 5  # a long row: tokens, length of a window, windows
MANY = 200  # draws from a short row: each of three starts is missed with a chance of (2/3)^200


def get_batch(ids: Tensor, block_size: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of `ids (N,)`: inputs and targets, both int64 (batch_size, block_size)."""
    starts = torch.randint(len(ids) - block_size, (batch_size, 1), generator=generator)
    window = ids[starts + torch.arange(block_size + 1)].long()  # (B, T+1)
    return window[:, :-1], window[:, 1:]


@exercise(
    "day16",
    title="Random windows",
    signature="get_batch(ids, block_size, batch_size, generator)",
    hints=[
        "Draw the starts first, as a column: torch.randint(n, (batch_size, 1), generator=generator) draws from 0 to "
        "n - 1. A window that starts at i needs the tokens i to i + block_size: what is the last i that fits?",
        "A column of starts plus the row torch.arange(block_size + 1) is a table of places, one window in each row; "
        "ids[table] reads all of them at once. It has one column more than x.",
        "x is the table without its last column, y without its first; .long() makes both int64. The bound of randint "
        "is len(ids) - block_size.",
    ],
    solution=get_batch,
    right="Every start is possible and none is beyond the end; each target is the token one further on; int64.",
)
def check_batch(learner: GetBatch) -> None:
    x, y = pair(learner, torch.arange(N), T, B, 1)
    check_windows(x, y, N, T)
    check_targets(x, y)
    check_randomness(learner, x)
    check_starts(learner)
    check_types(learner)


def pair(learner: GetBatch, ids: Tensor, T: int, B: int, seed: int) -> tuple[Tensor, Tensor]:
    """What the learner's function returns, if it is two tensors of shape (B, T) and of type int64."""
    g = torch.Generator().manual_seed(seed)
    return two(call(learner, ids=ids, block_size=T, batch_size=B, generator=g), T, B)


def two(out: Any, T: int, B: int) -> tuple[Tensor, Tensor]:
    if isinstance(out, Tensor):
        if tuple(out.shape) == (B, T + 1):
            raise Wrong("You return the windows of T + 1 tokens in one piece: cut them into x and y.")
        raise Wrong("You return one tensor: return two, x and y.")
    if isinstance(out, list):
        out = tuple(out)
    if isinstance(out, tuple) and len(out) != 2:
        raise Wrong(f"You return {len(out)} things: return two, x and y.")
    if not isinstance(out, tuple):
        tensor(out, (B, T))  # None or something else: its own sentence
    x, y = out
    for name, z in (("x", x), ("y", y)):
        if isinstance(z, Tensor):
            shape = tuple(z.shape)
            if shape == (T, B):
                raise Wrong(
                    f"{name} has shape {shape}, and should have (batch_size, block_size) = {(B, T)}: the two sizes "
                    "have changed places, or the table is transposed; here block_size comes first."
                )
            if shape == (B, T - 1):
                raise Wrong(f"{name} has only block_size - 1 columns: T pairs need T + 1 tokens, read one more.")
            if len(shape) == 2 and shape[1] == T and shape[0] < B:
                raise Wrong(
                    f"{B} windows were ordered and {name} has {shape[0]}: a start may come up twice, so draw with "
                    "torch.randint, not a permutation."
                )
            if shape == (B, T) and z.dtype != torch.int64:
                got = str(z.dtype).removeprefix("torch.")
                raise Wrong(f"{name} has dtype {got}: a loss takes only int64 targets; end with .long().")
    return tensor(x, (B, T), torch.int64, "(batch_size, block_size)"), tensor(
        y, (B, T), torch.int64, "(batch_size, block_size)"
    )


def check_windows(x: Tensor, y: Tensor, N: int, T: int) -> None:
    """x must be windows of the row: T neighbors in order."""
    if not torch.equal(x, x[:, :1] + torch.arange(T)):
        if torch.equal((x[:, 1:] - x[:, :-1]) % N, torch.ones_like(x[:, 1:])):
            raise Wrong("A window runs over the end of the text and goes on at its beginning: such starts are illegal.")
        raise Wrong("A row of x is no piece of the text: it should be block_size neighboring tokens, in order.")


def check_targets(x: Tensor, y: Tensor) -> None:
    if torch.equal(y, x + 1):
        return
    if torch.equal(y, x):
        raise Wrong("y is equal to x: the model would learn to copy; y begins one token further on.")
    step = y - x
    if bool((step == step[0, 0]).all()):
        k = int(step[0, 0])
        if k < 0:
            raise Wrong(f"y is moved to the wrong side, by {-k}: each target is one that was read already.")
        raise Wrong(f"y is moved by {k} tokens instead of 1: the token between is never predicted.")
    if torch.equal(y, x.roll(-1, 1)):
        raise Wrong(
            "All targets are right but the last of each row, which is the window's own first token: roll moves within "
            "the window; read T + 1 tokens instead."
        )
    if torch.equal(y[:, :-1], x[:, 1:]):
        raise Wrong("All targets are right but the last of each row: it is not the next token of the text.")
    if bool((step == step[:, :1]).all()):
        raise Wrong("x and y come from different starts: draw once, and cut both out at the same places.")
    raise Wrong("y is not the text one token further on: for ids 0, 1, 2, … each target must be x + 1.")


def check_randomness(learner: GetBatch, x: Tensor) -> None:
    starts = x[:, 0]
    if bool((starts == starts[0]).all()):
        raise Wrong("All rows of the batch are the same window: draw batch_size starts, not one.")
    gaps = starts[1:] - starts[:-1]
    if bool((gaps == gaps[0]).all()):
        raise Wrong("The windows of a batch are neighbors, with one random start for all: draw a start for each.")
    ids = torch.arange(N)
    torch.default_generator.manual_seed(123)  # the global generator is somewhere else now
    again, _ = pair(learner, ids, T, B, 1)
    if not torch.equal(again, x):
        raise Wrong(
            "The same generator gives two different batches: pass generator=generator to torch.randint, and use no "
            "other source of chance."
        )
    other, _ = pair(learner, ids, T, B, 2)
    g = torch.Generator().manual_seed(1)
    two(learner(ids.clone(), T, B, g), T, B)
    second, _ = two(learner(ids.clone(), T, B, g), T, B)
    if torch.equal(second, x):
        raise Wrong("Two calls in a row give the same batch: set no seed inside, the generator moves on by itself.")
    if torch.equal(other, x):
        raise Wrong("Generators with different seeds give the same batch: yours is not the one that is passed in.")


def check_starts(learner: GetBatch) -> None:
    """Rows with three legal starts, and with one."""
    for extra, legal in ((3, 3), (1, 1)):
        n = T + extra
        try:
            x, y = pair(learner, torch.arange(n), T, MANY, 3)
        except (IndexError, RuntimeError) as e:
            if legal == 1 and "random_" in str(e):  # randint(0): nothing to draw from
                raise Wrong(
                    f"A text of {n} tokens has one window for block_size {T}, and your function finds none."
                ) from e
            raise Wrong(
                f"With {n} tokens and block_size {T} your code fails: a start is drawn that is too large; the last "
                "window must leave room for its last target."
            ) from e
        check_windows(x, y, n, T)
        check_targets(x, y)
        drawn = set(x[:, 0].tolist())
        if n - T - 1 not in drawn and legal == 3:
            if drawn == {0}:
                raise Wrong("Only starts that are multiples of block_size come up: a window may start anywhere.")
            raise Wrong(f"The last legal start, N - T - 1 = {n - T - 1}, is never drawn: randint leaves out its bound.")
        if 0 not in drawn:
            raise Wrong("The first start, 0, is never drawn.")
        if len(drawn) < legal:
            raise Wrong(f"Of the starts 0, 1, 2 only {sorted(drawn)} come up.")


def check_types(learner: GetBatch) -> None:
    """The ids may be of a smaller type; the batch is int64 all the same. Values are no longer positions here."""
    ids = (torch.arange(N) * 7 % 65).to(torch.int32)
    x, y = pair(learner, ids, T, B, 1)
    want_x, _ = pair(learner, torch.arange(N), T, B, 1)
    if not (torch.equal(x, ids.long()[want_x]) and torch.equal(y, ids.long()[want_x + 1])):
        raise Wrong("You return places, not tokens: read the ids at these places.")
    x, _ = pair(learner, torch.arange(N), 2 * T, B, 1)
    check_windows(x, x, N, 2 * T)
