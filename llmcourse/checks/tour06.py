"""Checker of Tour 6: an all-reduce around a ring, simulated; the checker carries the messages and counts them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, exercise

Send = Callable[[int, int, Tensor], Tensor]
Ring = Callable[[list[Tensor], Send], Any]


def ring_all_reduce(vectors: list[Tensor], send: Send) -> list[Tensor]:
    """The sum of all vectors, on each machine; machine i sends to machine i + 1 only, the last one to machine 0."""
    N = len(vectors)
    parts = [list(v.clone().chunk(N)) for v in vectors]  # parts[i][c]: chunk c on machine i
    for lap in (0, 1):  # first add up, then pass on what is complete
        for r in range(N - 1):
            for i in range(N):
                c, to = (i + lap - r) % N, (i + 1) % N
                got = send(i, to, parts[i][c])
                parts[to][c] = got if lap else parts[to][c] + got
    return [torch.cat(p) for p in parts]


class Network:
    """Carries the messages of one run, and counts the values that each machine sends to each other."""

    def __init__(self, n: int) -> None:
        self.n, self.traffic = n, torch.zeros(n, n, dtype=torch.long)
        self.largest = 0

    def send(self, source: int, target: int, x: Tensor) -> Tensor:
        for machine in (source, target):
            if isinstance(machine, bool) or not isinstance(machine, int) or not 0 <= machine < self.n:
                raise Wrong(
                    f"send was given machine {machine!r}, and there are only 0 to {self.n - 1}: the one after the last "
                    "is machine 0, (i + 1) % N."
                )
        if source == target:
            raise Wrong(f"Machine {source} sends to itself: the next one is (i + 1) % N.")
        if not isinstance(x, Tensor):
            raise Wrong(f"send carries a tensor, and was given something of type {type(x).__name__}.")
        self.traffic[source, target] += x.numel()
        self.largest = max(self.largest, x.numel())
        return x.detach().clone()


@exercise(
    "tour06",
    title="The ring",
    signature="ring_all_reduce(vectors, send)",
    hints=[
        "Cut each vector into N chunks. In a round each machine sends one chunk to the next machine, so all links are "
        "busy at once. First lap: N - 1 rounds in which what arrives is added to the receiver's own chunk.",
        "First lap, round r: machine i sends chunk (i - r) % N. After it, chunk (i + 1) % N is complete on machine i.",
        "Second lap, again N - 1 rounds: machine i sends chunk (i + 1 - r) % N, and what arrives replaces the "
        "receiver's chunk.",
    ],
    solution=ring_all_reduce,
    right="Every machine has the sum, and sent 2 (N - 1) / N values for each of its own: less than 2, however many "
    "machines there are.",
)
def check_ring(learner: Ring) -> None:
    for N, n in ((2, 8), (3, 12), (4, 24)):
        try:
            one(learner, N, n)
        except Wrong as e:
            if N == 2:
                raise
            raise Wrong(f"With {N} machines: {e}") from e
        except Exception as e:
            if N == 2:
                raise
            raise Wrong(
                f"With 2 machines it is right, with {N} it fails ({type(e).__name__}): is a 2 written where N belongs?"
            ) from e


def one(learner: Ring, N: int, n: int) -> None:
    """One run with N machines and n values on each."""
    vectors = [torch.randint(-50, 50, (n,)).float() for _ in range(N)]
    kept = [v.clone() for v in vectors]
    net = Network(N)
    out = learner(vectors, net.send)
    if any(not torch.equal(v, k) for v, k in zip(vectors, kept, strict=True)):
        raise Wrong("Your function writes into the vectors that it was given: chunk() returns views, clone first.")
    got, total = results(out, N, n), torch.stack(kept).sum(0)
    if not net.traffic.any():
        raise Wrong("No machine has sent anything: what one has, the others can only get through send.")
    if not all(torch.equal(g, total) for g in got):
        diagnose(got, kept, total, net)
    sent, wanted = net.traffic.sum(1), 2 * (N - 1) * n // N
    if (sent == wanted).all():
        far = [(i, j) for i in range(N) for j in range(N) if net.traffic[i, j] and j != (i + 1) % N]
        if far:
            i, j = far[0]
            raise Wrong(
                f"It is right and sends no more than a ring, but machine {i} also talks to machine {j}: in a ring "
                "there is only the next one."
            )
        return
    if sent.sum() < N * wanted:  # no program can do with fewer values in all
        raise Wrong(
            f"The sums are right, but only {int(sent.sum())} values were sent in all, and {N * wanted} must be: "
            "somewhere a machine uses what never came to it through send."
        )
    if len(set(sent.tolist())) > 1:
        raise Wrong(
            f"The sums are right, the load is not even: machine {int(sent.argmax())} sends {int(sent.max())} values "
            f"and machine {int(sent.argmin())} {int(sent.min())}. Everyone waits for the busiest."
        )
    if net.largest == n:
        raise Wrong(
            f"The sums are right, but whole vectors travel: each machine sends {int(sent[0])} values, and {wanted} are "
            "enough. Cut the vectors into N chunks."
        )
    raise Wrong(f"The sums are right, but each machine sends {int(sent[0])} values, and {wanted} are enough.")


def results(out: Any, N: int, n: int) -> list[Tensor]:
    """What the learner's function returns, as N vectors of n values."""
    if out is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(out, Tensor) and out.shape != (N, n):
        raise Wrong(f"You return one tensor of shape {tuple(out.shape)}: return a list, the result of each machine.")
    rows = list(out) if isinstance(out, Tensor | list | tuple) else None
    if rows is None or len(rows) != N:
        what = f"a list of {len(rows)}" if rows is not None else f"something of type {type(out).__name__}"
        raise Wrong(f"You return {what}: return a list with the result of each of the {N} machines.")
    if all(isinstance(r, list | tuple) for r in rows):
        raise Wrong("The results are still in chunks: put each machine's chunks together with torch.cat.")
    if not all(isinstance(r, Tensor) for r in rows):
        raise Wrong("The list must hold tensors, the result of each machine.")
    if all(r.numel() == n // N for r in rows):
        raise Wrong("Each machine returns one chunk only: in a second lap the complete chunks go round.")
    if any(r.shape != (n,) for r in rows):
        raise Wrong(f"A result has shape {tuple(rows[0].shape)}: each machine ends with a vector of {n} values.")
    return [r.detach().float() for r in rows]


def diagnose(got: list[Tensor], vectors: list[Tensor], total: Tensor, net: Network) -> None:
    """Raise the Wrong that fits sums that are wrong."""
    N, n = len(vectors), len(total)
    if all(torch.allclose(g, total / N) for g in got):
        raise Wrong("You return the mean: an all-reduce here is the sum; whoever wants the mean divides afterwards.")
    if all(torch.equal(g, v) for g, v in zip(got, vectors, strict=True)):
        raise Wrong("Each machine ends with the vector that it began with: what send returns is never used.")
    if all(torch.equal(g, vectors[i - 1]) for i, g in enumerate(got)):
        raise Wrong("Each machine ends with its neighbor's vector: add what arrives to what is there.")
    if torch.equal(got[0], total) and not torch.equal(got[-1], total):
        raise Wrong("Only machine 0 has the sum of all: the others need it too.")
    complete = torch.stack([g == total for g in got]).view(N, N, n // N).all(-1)  # (machine, chunk)
    sent = net.traffic.sum(1)
    if all(torch.equal(g, w) for g, w in zip(got, added_twice(vectors), strict=True)):
        raise Wrong("In the second lap you add again: a complete chunk replaces what is there, or parts count twice.")
    if (complete.sum(1) == 1).all() and int(sent.max()) <= (N - 1) * n // N:
        raise Wrong("Each machine has one complete chunk, and the second lap is missing: pass these on.")
    if (complete.sum(1) <= 1).all() and (sent == 2 * (N - 1) * n // N).all():
        raise Wrong(
            "The first lap may be right, but in the second lap others are passed on than the complete chunks: "
            "machine i starts it with chunk (i + 1) % N."
        )
    if not complete.any():
        raise Wrong("No machine has any complete chunk: each chunk must visit all machines, N - 1 rounds of a lap.")
    raise Wrong("Some chunks are complete and some are not: count the rounds, N - 1 in each of the two laps.")


def added_twice(vectors: list[Tensor]) -> list[Tensor]:
    """What a ring gives that also adds in its second lap."""
    N = len(vectors)
    parts = [list(v.clone().chunk(N)) for v in vectors]
    for lap in (0, 1):
        for r in range(N - 1):
            for i in range(N):
                c, to = (i + lap - r) % N, (i + 1) % N
                parts[to][c] = parts[to][c] + parts[i][c]
    return [torch.cat(p) for p in parts]
