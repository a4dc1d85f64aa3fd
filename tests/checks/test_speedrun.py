"""The bonus day: the right rounds pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmcourse import muon
from llmcourse.checks import check

A, B, C = 3.4445, -4.7750, 2.0315
Say = Callable[[], str]


def unit(m: Tensor) -> Tensor:
    return m / m.norm().clamp_min(1e-7)


def step(x: Tensor) -> Tensor:
    gram = x @ x.T
    return A * x + (B * gram + C * gram @ gram) @ x


def without_turning(matrix: Tensor, rounds: int) -> Tensor:
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(rounds):
        x = step(x)
    return x


def other_side(matrix: Tensor, rounds: int) -> Tensor:
    x = unit(matrix)
    for _ in range(rounds):
        gram = x.T @ x
        x = x @ (A * torch.eye(len(gram)) + B * gram + C * gram @ gram)
    return x


def by_recursion(matrix: Tensor, rounds: int) -> Tensor:
    return unit(matrix) if rounds == 0 else step(by_recursion(matrix, rounds - 1))


def by_decomposition(matrix: Tensor, rounds: int) -> Tensor:
    """The same curve, applied to the singular values themselves."""
    u, s, vt = torch.linalg.svd(unit(matrix), full_matrices=False)
    for _ in range(rounds):
        s = A * s + B * s**3 + C * s**5
    return u * s @ vt


def by_addmm(matrix: Tensor, rounds: int) -> Tensor:
    x = unit(matrix.double())
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.float()


class Module(nn.Module):
    """An object with a forward method, which also keeps gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.tensor([A, B, C]))

    def forward(self, matrix: Tensor, rounds: int) -> Tensor:
        a, b, c = self.coefficients
        x = unit(matrix)
        for _ in range(rounds):
            x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
        return x


RIGHT = [without_turning, other_side, by_recursion, by_decomposition, by_addmm, Module(), muon.orthogonalize]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_orthogonalize_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("speedrun", learner), said()
    assert said().startswith("speedrun: right. ")


def variant(
    *,
    start: Callable[[Tensor], Tensor] = unit,
    step: Callable[[Tensor], Tensor] = step,
    count: Callable[[int], int] = lambda n: n,
    end: Callable[[Tensor], Tensor] = lambda x: x,
) -> Callable[[Tensor, int], Tensor]:
    def orthogonalize(matrix: Tensor, rounds: int) -> Tensor:
        x = start(matrix)
        for _ in range(count(rounds)):
            x = step(x)
        return end(x)

    return orthogonalize


def polynomial(a: float, b: float, c: float) -> Callable[[Tensor, int], Tensor]:
    def with_these(x: Tensor) -> Tensor:
        gram = x @ x.T
        return a * x + (b * gram + c * gram @ gram) @ x

    return variant(step=with_these)


def not_turned_back(matrix: Tensor, rounds: int) -> Tensor:
    tall = matrix.shape[0] > matrix.shape[1]
    return without_turning(matrix.T if tall else matrix, rounds)


def always_turned(matrix: Tensor, rounds: int) -> Tensor:
    return without_turning(matrix.T, rounds)


def in_place(matrix: Tensor, rounds: int) -> Tensor:
    matrix /= matrix.norm()
    return without_turning(matrix, rounds)


def only_wide(matrix: Tensor, rounds: int) -> Tensor:
    x = unit(matrix)
    eye = torch.eye(min(5, x.shape[0]) if x.shape[0] <= x.shape[1] else x.shape[1])
    for _ in range(rounds):
        gram = x @ x.T
        x = (A * eye + B * gram + C * gram @ gram) @ x
    return x


def wrong_side(x: Tensor) -> Tensor:
    gram = x @ x.T
    return A * x + x @ (B * gram + C * gram @ gram)


def elementwise_square(x: Tensor) -> Tensor:
    gram = x @ x.T
    return A * x + (B * gram + C * gram**2) @ x


def forgets_the_second(x: Tensor) -> Tensor:
    gram = x @ x.T
    return A * x + (B * gram + C * gram) @ x


def in_bfloat16(matrix: Tensor, rounds: int) -> Tensor:
    return without_turning(matrix.bfloat16(), rounds).float()


def exact(matrix: Tensor, rounds: int) -> Tensor:
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "no norm": (variant(start=lambda m: m), "is not divided by its norm first"),
    "largest entry": (variant(start=lambda m: m / m.abs().max()), "its largest entry"),
    "spectral norm": (variant(start=lambda m: m / torch.linalg.matrix_norm(m, 2)), "its largest singular value"),
    "rows": (variant(start=lambda m: m / m.norm(dim=1, keepdim=True)), "Each row is divided"),
    "columns": (variant(start=lambda m: m / m.norm(dim=0, keepdim=True)), "Each column is divided"),
    "square of the norm": (variant(start=lambda m: m / m.square().sum()), "a square root is missing"),
    "in every round": (variant(step=lambda x: step(unit(x))), "in every round"),
    "guard too large": (variant(start=lambda m: m / (m.norm() + 1e-3)), "the same one times 0.0001"),
    "no guard": (variant(start=lambda m: m / m.norm()), "A matrix of zeros becomes NaN"),
    "one round less": (variant(count=lambda n: n - 1), "It ran 4 rounds"),
    "one round more": (variant(count=lambda n: n + 1), "It ran 6 rounds"),
    "always five": (variant(count=lambda n: 5), "It ran 5 rounds, and 3 were asked for"),
    "norm only": (variant(step=lambda x: x), "only divided by its norm"),
    "nothing": (lambda matrix, rounds: matrix.clone(), "comes back as it was"),
    "exact": (exact, "This is U Vᵀ, exact"),
    "G * G": (variant(step=elementwise_square), "squared number by number"),
    "c times G": (variant(step=forgets_the_second), "c belongs to G @ G"),
    "entries": (variant(step=lambda x: A * x + B * x**3 + C * x**5), "applied to every entry"),
    "cubic": (polynomial(A, B, 0.0), "The last term is missing"),
    "classical": (polynomial(1.5, -0.5, 0.0), "the classical iteration"),
    "swapped": (polynomial(A, C, B), "have changed places"),
    "sign": (polynomial(A, -B, C), "The sign of b is wrong"),
    "no first term": (polynomial(0.0, B, C), "The term a times x is missing"),
    "typing mistake": (polynomial(3.4445, -4.7750, 2.3015), "look at the three coefficients"),
    "explodes": (polynomial(3.4445, 4.7750, -2.0315), "look at the three coefficients"),
    "wrong side": (variant(step=wrong_side), "stands on the wrong side"),
    "transposed": (variant(end=lambda x: x.T if x.shape[0] == x.shape[1] else x), "The result is transposed"),
    "not turned back": (not_turned_back, "A (7, 4) matrix comes back as (4, 7)"),
    "gram": (variant(end=lambda x: x @ x.T if x.shape[0] < x.shape[1] else x), "has shape (4, 4)"),
    "tall fails": (only_wide, "fails for a tall one"),
    "in place": (in_place, "changes its input matrix"),
    "bfloat16": (in_bfloat16, "to about two digits only"),
    "other directions": (variant(start=lambda m: unit(m.flip(0))), "points in other directions"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_orthogonalize_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("speedrun", WRONG, mistake)


def test_orthogonalize_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("speedrun", WRONG, least=14)


def test_what_is_always_turned_is_seen(said: Say) -> None:
    assert not check("speedrun", always_turned)
    assert "The result is transposed" in said()
