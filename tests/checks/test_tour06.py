"""Tour 6: the ring all-reduce passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks.tour06 import ring_all_reduce

Say = Callable[[], str]
Send = Callable[[int, int, Tensor], Tensor]


def by_matrix(vectors: list[Tensor], send: Send) -> Tensor:
    """Chunks in one tensor (machine, chunk, value); all of a round are sent before any arrives."""
    N = len(vectors)
    x = torch.stack(vectors).view(N, N, -1).clone()
    for r in range(2 * N - 2):
        got = [send(i, (i + 1) % N, x[i, (i - r) % N]) for i in range(N)]
        for i, g in enumerate(got):
            to, c = (i + 1) % N, (i - r) % N
            x[to, c] = x[to, c] + g if r < N - 1 else g
    return x.flatten(1)


def by_chunk(vectors: list[Tensor], send: Send) -> list[Tensor]:
    """Chunk after chunk: each starts on a machine of its own and goes round twice."""
    N = len(vectors)
    step = len(vectors[0]) // N
    out = [v.clone() for v in vectors]
    for c in range(N):
        here, i = slice(c * step, (c + 1) * step), c
        travels = out[i][here].clone()
        for k in range(2 * N - 2):
            to = (i + 1) % N
            travels = send(i, to, travels)
            if k < N - 1:
                travels = travels + out[to][here]
            out[to][here] = travels
            i = to
    return out


@pytest.mark.parametrize("learner", [ring_all_reduce, by_matrix, by_chunk])
def test_ring_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour06", learner), said()
    assert said().startswith("tour06: right. ")


def laps(vectors: list[Tensor], send: Send, *, add: bool = True, second: int = 1, both: bool = True) -> Any:
    """The right ring with a part changed."""
    N = len(vectors)
    parts = [list(v.clone().chunk(N)) for v in vectors]
    for lap in (0, 1) if both else (0,):
        for r in range(N - 1):
            for i in range(N):
                c, to = (i + lap * second - r) % N, (i + 1) % N
                got = send(i, to, parts[i][c])
                parts[to][c] = got if lap and add else parts[to][c] + got
    return parts


def cat(parts: list[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(p) for p in parts]


def nothing_sent(vectors: list[Tensor], send: Send) -> list[Tensor]:
    return [torch.stack(vectors).sum(0)] * len(vectors)


def all_to_all(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    return [sum((send(j, i, vectors[j]) for j in range(N) if j != i), vectors[i]) for i in range(N)]  # type: ignore[misc]


def whole_ring(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    out, travels = [v.clone() for v in vectors], list(vectors)
    for _ in range(N - 1):
        travels = [send((i - 1) % N, i, travels[(i - 1) % N]) for i in range(N)]
        out = [o + t for o, t in zip(out, travels, strict=True)]
    return out


def by_boss(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    total = vectors[0] + sum(send(i, 0, vectors[i]) for i in range(1, N))
    return [total, *(send(0, i, total) for i in range(1, N))]


def boss_keeps(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    return [vectors[0] + sum(send(i, 0, vectors[i]) for i in range(1, N)), *vectors[1:]]


def owners(vectors: list[Tensor], send: Send) -> list[Tensor]:
    """Every chunk goes straight to its owner, and from there to all."""
    N = len(vectors)
    parts = [list(v.chunk(N)) for v in vectors]
    done = [parts[c][c] + sum(send(i, c, parts[i][c]) for i in range(N) if i != c) for c in range(N)]
    return [torch.cat([done[c] if c == i else send(c, i, done[c]) for c in range(N)]) for i in range(N)]


def in_place(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    parts = [v.chunk(N) for v in vectors]
    for lap in (0, 1):
        for r in range(N - 1):
            for i in range(N):
                c, to = (i + lap - r) % N, (i + 1) % N
                got = send(i, to, parts[i][c])
                parts[to][c].copy_(got if lap else parts[to][c] + got)
    return vectors


def neighbor(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    return [send((i - 1) % N, i, vectors[i - 1]) for i in range(N)]


def unused(vectors: list[Tensor], send: Send) -> list[Tensor]:
    for i, v in enumerate(vectors):
        send(i, (i + 1) % len(vectors), v)
    return vectors


def no_wrap(vectors: list[Tensor], send: Send) -> list[Tensor]:
    return [send(i, i + 1, v) for i, v in enumerate(vectors)]


def itself(vectors: list[Tensor], send: Send) -> list[Tensor]:
    return [send(i, i, v) for i, v in enumerate(vectors)]


def two_only(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    out = [list(v.chunk(2)) for v in vectors]
    for i in range(N):
        out[1 - i][i] = out[1 - i][i] + send(i, 1 - i, out[i][i])
    for i in range(N):
        out[1 - i][1 - i] = send(i, 1 - i, out[i][1 - i])
    return [torch.cat(o) for o in out]


def own_chunk(vectors: list[Tensor], send: Send) -> list[Tensor]:
    N = len(vectors)
    return [p[(i + 1) % N] for i, p in enumerate(laps(vectors, send, both=False))]


def peeks(vectors: list[Tensor], send: Send) -> list[Tensor]:
    """The second lap without send: the complete chunks are taken from the other machines' lists."""
    N = len(vectors)
    parts = laps(vectors, send, both=False)
    return [torch.cat([parts[(c - 1) % N][c] for c in range(N)])] * N


def no_return(vectors: list[Tensor], send: Send) -> None:
    ring_all_reduce(vectors, send)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing sent": (nothing_sent, "No machine has sent anything"),
    "mean": (lambda v, send: [x / len(v) for x in ring_all_reduce(v, send)], "You return the mean"),
    "whole vectors": (whole_ring, "but whole vectors travel"),
    "one boss": (lambda v, send: by_boss(v, send) if len(v) > 2 else ring_all_reduce(v, send), "the load is not even"),
    "boss keeps": (boss_keeps, "Only machine 0 has the sum"),
    "owners": (owners, "in a ring there is only the next one"),
    "first lap only": (lambda v, send: cat(laps(v, send, both=False)), "the second lap is missing"),
    "own chunk": (own_chunk, "one chunk only"),
    "adds again": (lambda v, send: cat(laps(v, send, add=False)), "In the second lap you add again"),
    "wrong start": (lambda v, send: cat(laps(v, send, second=0)), "others are passed on than the complete"),
    "in place": (in_place, "writes into the vectors"),
    "neighbor's": (neighbor, "ends with its neighbor's vector"),
    "unused": (unused, "what send returns is never used"),
    "no wrap": (no_wrap, "there are only 0 to"),
    "itself": (itself, "sends to itself"),
    "chunks": (lambda v, send: laps(v, send), "still in chunks"),
    "peeks": (peeks, "uses what never came to it"),
    "no return": (no_return, "returned None"),
    "one tensor": (lambda v, send: ring_all_reduce(v, send)[0], "You return one tensor"),
    "not a tensor": (lambda v, send: send(0, 1, v[0].tolist()), "send carries a tensor"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour06", WRONG, mistake)


def test_more_than_two(said: Say) -> None:
    assert not check("tour06", two_only)
    assert "With 2 machines it is right, with 3" in said()


def test_boss_must_send_back(said: Say) -> None:
    assert not check("tour06", lambda v, send: [boss_keeps(v, send)[0]] * len(v))
    assert "never came to it" in said()


def test_all_to_all_needs_chunks(said: Say) -> None:
    assert not check("tour06", all_to_all)
    assert "whole vectors travel" in said()


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour06", WRONG, least=16)
