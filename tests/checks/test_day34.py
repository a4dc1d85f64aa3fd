"""Day 34: right answers pass in several styles, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def by_search(n_embd: int, hidden: int, causal: bool) -> int:
    T = 1
    while True:
        keys = (T + 1) / 2 if causal else T
        if 4 * n_embd**2 + 2 * n_embd * keys > 2 * n_embd * hidden:
            return T
        T += 1


def by_formula(n_embd: int, hidden: int, causal: bool) -> int:
    spare = hidden - 2 * n_embd
    return max(1, 2 * spare) if causal else max(1, spare + 1)


def by_floor(n_embd: int, hidden: int, causal: bool) -> int:
    T = (hidden - 2 * n_embd) if not causal else 2 * (hidden - 2 * n_embd) - 1
    return max(math.floor(T) + 1, 1)


def by_window(C: int, h: int, causal: bool = False) -> Any:
    T = np.arange(1, 9000)
    keys = (T + 1) / 2 if causal else T
    return T[np.argmax(2 * (4 * C * C + 2 * C * keys) * T > 4 * C * h * T)]


@pytest.mark.parametrize("learner", [by_search, by_formula, by_floor, by_window])
def test_crossover_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day34", learner), said()
    assert said().startswith("day34: right. ")


def variant(projections: float = 4, key: float = 2, matrices: float = 2, strict: bool = True, **other: Any) -> Any:
    def crossover(C: int, h: int, causal: bool) -> int:
        causal = other.get("causal", lambda c: c)(causal)
        width = other.get("hidden", lambda C, h: h)(C, h)
        for T in range(1, 9000):
            keys = other.get("half", lambda T: (T + 1) / 2)(T) if causal else T
            a = projections * C * C + key * C * keys * (T if other.get("square") else 1)
            m = matrices * C * width
            if a > m or (not strict and a == m):
                return T
        return 9000

    return crossover


WRONG_CROSSOVER: dict[str, tuple[Any, str]] = {
    "equal": (variant(strict=False), "both cost the same"),
    "no projections": (variant(projections=0), "only scores and mixing"),
    "three projections": (variant(projections=3), "three projections"),
    "one projection": (variant(projections=1), "one projection of C"),
    "no mixing": (variant(key=1), "used twice"),
    "causal ignored": (variant(causal=lambda c: False), "the same with and without causal"),
    "always causal": (variant(causal=lambda c: True), "even when causal is False"),
    "exchanged": (variant(causal=lambda c: not c), "wrong way round"),
    "T/2": (variant(half=lambda T: T / 2), "also sees itself"),
    "four times as wide": (variant(hidden=lambda C, h: 4 * C), "does not depend on hidden"),
    "FLOPs in the MLP": (variant(matrices=4), "Your MLP is twice too dear: it"),
    "FLOPs in attention": (variant(projections=8, key=4), "twice too dear for the MLP"),
    "one matrix": (variant(matrices=1), "twice too dear for the MLP"),
    "window's T": (variant(square=True), "You put T² into"),
    "float": (lambda C, h, causal: float(by_formula(C, h, causal)), "its type is float"),
    "half a token": (lambda C, h, causal: by_formula(C, h, causal) - 0.5, "half a token"),
    "no floor": (lambda C, h, causal: 2 * (h - 2 * C) if causal else h - 2 * C + 1, "ahead from T = 1 on"),
    "usual MLP": (lambda C, h, causal: 4 * C if causal else 2 * C, "uses n_embd only"),
    "one early": (lambda C, h, causal: by_formula(C, h, causal) - (not causal), "one window too early"),
    "none": (lambda C, h, causal: None, "returned None"),
    "a pair": (lambda C, h, causal: (1, 2), "of type tuple"),
    "something else": (lambda C, h, causal: 7, "you return 7"),
}


@pytest.mark.parametrize("mistake", WRONG_CROSSOVER)
def test_crossover_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day34", WRONG_CROSSOVER, mistake)


def test_crossover_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day34", WRONG_CROSSOVER, least=14)


def seeds_first(x: Tensor) -> Tensor:
    rows = [(x[:, 1].sum(1) - x[:, 0].sum(1)) / 2, (x[..., 1].sum(1) - x[..., 0].sum(1)) / 2]
    rows.append(x[:, 1, 1] - x[:, 1, 0] - x[:, 0, 1] + x[:, 0, 0])
    return torch.tensor([[r.mean().item(), (r.var() / len(r)).sqrt().item()] for r in rows])


def by_contrast(x: Tensor) -> Tensor:
    signs = torch.tensor([[-1.0, -1, 1, 1], [-1, 1, -1, 1], [1, -1, -1, 1]]) * torch.tensor([[0.5], [0.5], [1]])
    each = x.flatten(1) @ signs.T  # (S, 3)
    return torch.stack([each.mean(0), each.std(0) / len(x) ** 0.5], 1)


def by_numpy(x: Tensor) -> Tensor:
    a, b, c, d = x.numpy().astype(np.float64).reshape(len(x), 4).T
    each = np.stack([(c + d - a - b) / 2, (b + d - a - c) / 2, d - c - b + a])
    result = np.stack([each.mean(1), each.std(1, ddof=1) / math.sqrt(each.shape[1])], axis=1)
    return torch.tensor(result, dtype=torch.float32)


@pytest.mark.parametrize("learner", [seeds_first, by_contrast, by_numpy])
def test_effects_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day34b", learner), said()


def contrasts(
    context: Any = (-0.5, -0.5, 0.5, 0.5), rate: Any = (-0.5, 0.5, -0.5, 0.5), both: Any = (1, -1, -1, 1)
) -> Any:
    def learner(x: Tensor) -> Tensor:
        each = x.flatten(1) @ torch.tensor([context, rate, both], dtype=torch.float32).T
        return torch.stack([each.mean(0), each.std(0) / len(x) ** 0.5], 1)

    return learner


def with_error(error: Callable[[Tensor], Tensor]) -> Any:
    """Right means; `error` makes the second column of the effects of every seed, (S, 3)."""

    def learner(x: Tensor) -> Tensor:
        signs = torch.tensor([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [1, -1, -1, 1]])
        each = x.flatten(1) @ signs.T
        return torch.stack([each.mean(0), error(each)], 1)

    return learner


def unpaired(x: Tensor) -> Tensor:
    right, v = by_contrast(x), x.var(0).sum() / len(x)
    return torch.stack([right[:, 0], torch.stack([v / 4, v / 4, v]).sqrt()], 1)


def pooled(x: Tensor) -> Tensor:
    right, S = by_contrast(x), len(x)
    for row, d in enumerate((x[:, 1] - x[:, 0], x[:, :, 1] - x[:, :, 0])):
        right[row, 1] = d.std() / (2 * S) ** 0.5
    return right


def in_place(x: Tensor) -> Tensor:
    x -= x.mean()
    return by_contrast(x)


WRONG_EFFECTS: dict[str, tuple[Any, str]] = {
    "exchanged": (lambda x: by_contrast(x.transpose(1, 2)), "are exchanged"),
    "all signs": (lambda x: by_contrast(x) * torch.tensor([-1.0, 1]), "All signs are turned round"),
    "sums of seeds": (lambda x: by_contrast(x) * len(x), "sums over the seeds"),
    "context not halved": (contrasts(context=(-1, -1, 1, 1)), "effect of the context is twice"),
    "rate not halved": (contrasts(rate=(-1, 1, -1, 1)), "effect of the rate is twice"),
    "context at the low rate": (contrasts(context=(-1, 0, 1, 0)), "the context at the first level"),
    "rate at the long context": (contrasts(rate=(0, 0, -1, 1)), "the rate at the second level"),
    "context's sign": (contrasts(context=(0.5, 0.5, -0.5, -0.5)), "The effect of the context has the wrong sign"),
    "interaction halved": (contrasts(both=(0.5, -0.5, -0.5, 0.5)), "The interaction is halved"),
    "interaction's sign": (contrasts(both=(-1, 1, 1, -1)), "The interaction has the wrong sign"),
    "interaction added": (contrasts(both=(-1, 1, -1, 1)), "adds the two effects"),
    "diagonal": (contrasts(both=(-1, 0, 0, 1)), "changes both settings"),
    "other interaction": (contrasts(both=(3, -1, -1, 1)), "The mean effect of the interaction is"),
    "standard deviation": (with_error(lambda e: e.std(0)), "is the standard deviation"),
    "divided by S": (with_error(lambda e: e.std(0, correction=0) / len(e) ** 0.5), "divides by S; with few"),
    "both": (with_error(lambda e: e.std(0, correction=0)), "divides by S and is not"),
    "S for its root": (with_error(lambda e: e.std(0) / len(e)), "falls with √S only"),
    "variance": (with_error(lambda e: e.var(0) / len(e)), "a variance"),
    "root of S - 1": (with_error(lambda e: e.std(0) / (len(e) - 1) ** 0.5), "divide by √(S - 1)"),
    "unpaired": (unpaired, "treats the four cells as independent"),
    "pooled": (pooled, "two differences of one seed"),
    "zeros": (with_error(lambda e: torch.zeros(3)), "errors are all zero"),
    "nan": (with_error(lambda e: e.mean(0) * math.nan), "errors are NaN"),
    "other error": (with_error(lambda e: e.std(0) / len(e) ** 0.5 + 0.3), "The standard error of the context is"),
    "turned": (lambda x: by_contrast(x).T, "Your result is (2, 3)"),
    "in place": (in_place, "changes its input losses"),
    "a list": (lambda x: by_contrast(x).tolist(), "of type list"),
}


@pytest.mark.parametrize("mistake", WRONG_EFFECTS)
def test_effects_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day34b", WRONG_EFFECTS, mistake)


def test_effects_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day34b", WRONG_EFFECTS, least=14)
