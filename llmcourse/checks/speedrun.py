"""Checker of the bonus day: orthogonalize a matrix by rounds of Newton–Schulz.

The rounds leave the directions of a matrix alone and move its singular values along one known curve. So a wrong result
tells a lot: is it the right thing with another curve, another number of rounds, another norm? Each of these is
computed here as well, and the one that agrees with the learner's result names the mistake.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..muon import NEWTON_SCHULZ
from . import Wrong, blame, call, exercise, tensor

Orthogonalize = Callable[[Tensor, int], Any]
WIDE, TALL, SQUARE = (4, 7), (7, 4), (5, 5)


def orthogonalize(matrix: Tensor, rounds: int) -> Tensor:
    """A matrix (rows, columns) with the same directions, all its singular values pushed towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # then the products below have the size of the shorter side
    x = x / x.norm().clamp_min(1e-7)  # no singular value is above 1; a matrix of zeros stays one
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def made(shape: tuple[int, int], size: float = 1.0) -> Tensor:
    """A random matrix whose singular values differ."""
    return size * torch.randn(shape) * torch.linspace(0.3, 1.5, shape[1])


@exercise(
    "speedrun",
    title="Newton–Schulz",
    signature="orthogonalize(matrix, rounds)",
    hints=[
        "Three steps: divide the matrix by its length, matrix.norm(), the root of the sum of all squares; then, rounds "
        "times, replace x by a x + (b G + c G G) x with G = x @ x.T; return x.",
        "Matrix products throughout: G @ G, not G * G or G**2. The coefficients are a = 3.4445, b = -4.7750, "
        "c = 2.0315. Divide once, before the first round, and not with /=, which would change the caller's matrix.",
        "A tall matrix (more rows than columns) may be turned on its side first, x = matrix.T, and the result back at "
        "the end: G is then small. For a matrix of zeros, divide by matrix.norm().clamp_min(1e-7).",
    ],
    solution=orthogonalize,
    right="Same directions, all about equally strong; tall, wide and square, large and tiny, and zeros stay zeros.",
)
def check_orthogonalize(learner: Orthogonalize) -> None:
    for shape in (SQUARE, WIDE):
        for rounds in (5, 3):
            judge(learner, made(shape), rounds)
    with blame("It is right for wide and square matrices, but fails for a tall one, with more rows than columns"):
        judge(learner, made(TALL), 5)
    judge(learner, made(WIDE), 0)
    for size in (1e4, 1e-4):
        m = made(WIDE, size)
        if not same(result(learner, m, 5), orthogonalize(m, 5)):
            raise Wrong(
                f"It is right for a matrix with entries near 1, but not for the same one times {size:g}: the length of "
                "the matrix must not matter; is something other than a guard against 0 added to the norm?"
            )
    zeros = result(learner, torch.zeros(WIDE), 5)
    if not zeros.isfinite().all():
        raise Wrong(
            "A matrix of zeros becomes NaN: its norm is 0, and 0 / 0 is no number; divide by norm().clamp_min(1e-7). "
            "It happens in training: a layer behind a zero gets a gradient of zeros."
        )


def judge(learner: Orthogonalize, m: Tensor, rounds: int) -> None:
    """Wrong if the learner's result for this matrix is not the right one."""
    out = result(learner, m, rounds)
    if same(out, orthogonalize(m, rounds)):
        return
    if not out.isfinite().all() or out.norm() > 100:  # too far away to say why: look at the first round
        out, rounds = result(learner, m, 1), 1
    for mistake, candidate in candidates(m, rounds):
        if same(out, candidate):
            raise Wrong(mistake)
    right = orthogonalize(m, rounds)
    if torch.allclose(out, right, atol=0.05):
        raise Wrong(
            "It is right to about two digits only: is something computed in bfloat16 or half precision? Stay in the "
            "precision of the matrix."
        )
    u, _, vt = torch.linalg.svd(m, full_matrices=False)
    kept = u.T @ out @ vt.T  # diagonal, if the directions are still those of the matrix
    if (kept - kept.diagonal().diag()).abs().max() < 1e-3:
        raise Wrong(
            f"The directions are right, but after {rounds} round{'s' * (rounds > 1)} the singular values are "
            f"{numbers(kept.diagonal())} instead of {numbers(torch.linalg.svdvals(right))}: look at the three "
            "coefficients, and at what each of them is multiplied with."
        )
    raise Wrong(
        "The result points in other directions than the matrix: every product must be a matrix product (@) with x on "
        "the right, and the norm one number for the whole matrix."
    )


def result(learner: Orthogonalize, m: Tensor, rounds: int) -> Tensor:
    """What the learner's function returns, if it has the shape of the matrix."""
    out = call(learner, matrix=m, rounds=rounds)
    if isinstance(out, Tensor) and out.shape != m.shape:
        if out.shape == m.T.shape:
            raise Wrong(
                f"A {tuple(m.shape)} matrix comes back as {tuple(out.shape)}: it was turned on its side; turn the "
                "result back before you return it."
            )
        if out.ndim == 2 and out.shape[0] == out.shape[1]:
            raise Wrong(f"The result has shape {tuple(out.shape)}: that is G = x @ x.T or its like; return x.")
    return tensor(out, m.shape, meaning="(rows, columns)")


def same(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, which the steep start of the curve makes larger."""
    return torch.allclose(a, b, rtol=1e-3, atol=2e-3)


def numbers(values: Tensor) -> str:
    return ", ".join(f"{v:.2f}" for v in values.tolist())


def candidates(m: Tensor, rounds: int) -> Iterator[tuple[str, Tensor]]:
    """What known mistakes make of a matrix, each with its sentence."""
    a, b, c = NEWTON_SCHULZ
    frobenius, spectral = m.norm(), torch.linalg.matrix_norm(m, 2)
    unit = m / frobenius

    def run(x: Tensor, n: int = rounds, p: tuple[float, float, float] = NEWTON_SCHULZ) -> Tensor:
        for _ in range(n):
            gram = x @ x.T
            x = p[0] * x + (p[1] * gram + p[2] * gram @ gram) @ x
        return x

    def each(step: Callable[[Tensor], Tensor], x: Tensor = unit) -> Tensor:
        for _ in range(rounds):
            x = step(x)
        return x

    def unit_each(x: Tensor) -> Tensor:
        return run(x / x.norm(), 1)

    u, _, vt = torch.linalg.svd(m, full_matrices=False)
    yield "The matrix comes back as it was: are the rounds applied to x, and is x returned?", m
    yield "The matrix is only divided by its norm: no round changes it.", unit
    yield "The matrix is not divided by its norm first: the rounds expect singular values of at most 1.", run(m)
    by = "The matrix is divided by"
    yield f"{by} its largest entry, which does not bound its singular values: divide by norm().", run(m / m.abs().max())
    yield (
        f"{by} its largest singular value. That works, but it takes the decomposition that the rounds are there to "
        "avoid: norm() is never smaller, and costs nothing.",
        run(m / spectral),
    )
    for dim, name in ((1, "row"), (0, "column")):
        yield (
            f"Each {name} is divided by its own length, which changes the directions: divide all of it by one number.",
            run(m / m.norm(dim=dim, keepdim=True)),
        )
    yield f"{by} the square of its norm: a square root is missing.", run(m / frobenius**2)
    yield "This is U Vᵀ, exact, from a decomposition: here it shall come from the given number of rounds.", u @ vt
    for n in {rounds - 1, rounds + 1, 5} - {rounds}:
        if n >= 0:
            yield f"It ran {n} rounds, and {rounds} were asked for.", run(unit, n)
    yield "The matrix is divided by its norm in every round: once, before the first one, is meant.", each(unit_each)
    yield (
        "G is squared number by number (G * G or G**2): the matrix product G @ G is meant.",
        each(lambda x: a * x + (b * (x @ x.T) + c * (x @ x.T) ** 2) @ x),
    )
    yield (
        "The polynomial is applied to every entry: it belongs to the singular values, by products of matrices.",
        each(lambda x: a * x + b * x**3 + c * x**5),
    )
    yield "Both b and c are multiplied with G: c belongs to G @ G.", run(unit, p=(a, b + c, 0.0))
    yield "The last term is missing: c times G @ G.", run(unit, p=(a, b, 0.0))
    yield "The coefficients b and c have changed places.", run(unit, p=(a, c, b))
    yield "The sign of b is wrong: it is negative.", run(unit, p=(a, -b, c))
    yield (
        "These are the coefficients 1.5 and -0.5 of the classical iteration: right in the end, but it needs many more "
        "rounds for the weak directions.",
        run(unit, p=(1.5, -0.5, 0.0)),
    )
    yield "The term a times x is missing.", run(unit, p=(0.0, b, c))
    if m.shape[0] == m.shape[1]:
        yield "The result is transposed: a square matrix needs no turning.", run(unit).T
        yield (
            "x stands on the wrong side: G = x @ x.T is multiplied from the left, G @ x.",
            each(lambda x: a * x + x @ (b * (x @ x.T) + c * (x @ x.T) @ (x @ x.T))),
        )
