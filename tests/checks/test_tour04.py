"""Tour 4: the right step passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]
Pair = tuple[Tensor, Tensor]


def shrink_first(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> Pair:
    return p * (1 - lr * decay) - lr * torch.sign(0.9 * m + 0.1 * g), m.lerp(g, 0.01)


def by_lerp(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> Pair:
    return p.sub(m.lerp(g, 0.1).sign() + decay * p, alpha=lr), m + 0.01 * (g - m)


def in_a_list(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> list[Tensor]:
    new = p.clone()
    new.mul_(1 - lr * decay)
    new.add_((0.9 * m + 0.1 * g).sign_(), alpha=-lr)
    return [new, 0.99 * m + 0.01 * g]


def by_loop(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> Pair:
    new, memory = p.clone(), m.clone()
    for i in range(p.shape[0]):
        for j in range(p.shape[1]):
            mix = 0.9 * m[i, j] + 0.1 * g[i, j]
            sign = (mix > 0).float() - (mix < 0).float()
            new[i, j] = p[i, j] - lr * sign - lr * decay * p[i, j]
            memory[i, j] = 0.99 * m[i, j] + 0.01 * g[i, j]
    return new, memory


@pytest.mark.parametrize("learner", [shrink_first, by_lerp, in_a_list, by_loop])
def test_step_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour04", learner), said()
    assert said().startswith("tour04: right. ")


def keep(m: Tensor, g: Tensor) -> Tensor:
    return 0.99 * m + 0.01 * g


def direction(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Pair]:
    """A step whose direction is `of(m, g)`; decay and memory are right."""
    return lambda p, g, m, lr, decay: (p - lr * (of(m, g) + decay * p), keep(m, g))


def memory(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Pair]:
    """A right step whose new memory is `of(m, g)`."""
    return lambda p, g, m, lr, decay: (p - lr * (mix(m, g).sign() + decay * p), of(m, g))


def weights(of: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> Callable[..., Pair]:
    """A right memory, and the weights `of(p, step, mix, lr, decay)`."""
    return lambda p, g, m, lr, decay: (of(p, mix(m, g).sign(), mix(m, g), lr, decay), keep(m, g))


def mix(m: Tensor, g: Tensor) -> Tensor:
    return 0.9 * m + 0.1 * g


def in_the_gradient(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> Pair:
    return p - lr * mix(m, g + decay * p).sign(), keep(m, g)


def in_place(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> Pair:
    p -= lr * (mix(m, g).sign() + decay * p)
    return p, keep(m, g)


def one_or_minus_one(m: Tensor, g: Tensor) -> Tensor:
    return torch.where(mix(m, g) >= 0, 1.0, -1.0)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "uphill": (direction(lambda m, g: -mix(m, g).sign()), "goes up the slope"),
    "no sign": (direction(mix), "The sign is missing"),
    "slow average": (direction(lambda m, g: keep(m, g).sign()), "the average for the memory"),
    "new memory": (direction(lambda m, g: mix(keep(m, g), g).sign()), "update the memory first"),
    "swapped": (direction(lambda m, g: mix(g, m).sign()), "0.9 and 0.1 are swapped"),
    "gradient only": (direction(lambda m, g: g.sign()), "sign of the gradient alone"),
    "memory only": (direction(lambda m, g: m.sign()), "sign of the memory alone"),
    "signs averaged": (direction(lambda m, g: mix(m.sign(), g.sign())), "You average signs"),
    "sum": (direction(lambda m, g: (m + g).sign()), "the sign of m + g"),
    "plain": (direction(lambda m, g: g), "plain gradient descent"),
    "normed": (direction(lambda m, g: mix(m, g) / mix(m, g).norm()), "divide by the norm"),
    "no rate": (weights(lambda p, s, x, lr, decay: p - s), "does not contain the rate"),
    "stays": (weights(lambda p, s, x, lr, decay: p), "whatever the decay is"),
    "memory stays": (memory(lambda m, g: m), "comes back as it went in"),
    "fast memory": (memory(mix), "are for the direction only"),
    "sign kept": (memory(lambda m, g: mix(m, g).sign()), "You keep the sign as memory"),
    "memory swapped": (memory(lambda m, g: keep(g, m)), "0.99 and 0.01 are swapped"),
    "momentum": (memory(lambda m, g: 0.99 * m + g), "adds the whole gradient"),
    "chained": (memory(lambda m, g: keep(mix(m, g), g)), "starts from the average for the direction"),
    "squares": (memory(lambda m, g: keep(m, g * g)), "averages squared gradients"),
    "no decay": (weights(lambda p, s, x, lr, decay: p - lr * s), "the decay does nothing"),
    "decay without rate": (weights(lambda p, s, x, lr, decay: p - lr * s - decay * p), "lacks the rate"),
    "decay grows a lot": (weights(lambda p, s, x, lr, decay: p - lr * s + decay * p), "grow by decay times"),
    "step alone": (weights(lambda p, s, x, lr, decay: lr * (s + decay * p)), "You return the step alone"),
    "direction alone": (weights(lambda p, s, x, lr, decay: s), "You return the step alone"),
    "decay grows": (weights(lambda p, s, x, lr, decay: p - lr * (s - decay * p)), "makes the weights grow"),
    "decay in gradient": (in_the_gradient, "put the decay into the gradient"),
    "decay in sign": (weights(lambda p, s, x, lr, decay: p - lr * (x + decay * p).sign()), "added before the sign"),
    "constant decay": (weights(lambda p, s, x, lr, decay: p - lr * (s + decay)), "same for all weights"),
    "decay by sign": (weights(lambda p, s, x, lr, decay: p - lr * (s + decay * p.sign())), "pulls with the sign of p"),
    "decay last": (weights(lambda p, s, x, lr, decay: (p - lr * s) * (1 - lr * decay)), "after the step"),
    "sign of 0": (direction(one_or_minus_one), "the sign of 0 is 0"),
    "in place": (in_place, "changes one of its inputs"),
    "order": (lambda p, g, m, lr, decay: shrink_first(p, g, m, lr, decay)[::-1], "in the wrong order"),
    "one": (lambda p, g, m, lr, decay: shrink_first(p, g, m, lr, decay)[0], "You return one tensor"),
    "three": (lambda p, g, m, lr, decay: (p, g, m), "Return two tensors"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour04", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour04", WRONG, least=18)
