"""Day 11: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check

Say = Callable[[], str]


class Plain(nn.Module):
    def __init__(self, n_embd: int) -> None:
        super().__init__()
        hidden = 8 * n_embd // 3
        self.gate = nn.Linear(n_embd, hidden, bias=False)
        self.value = nn.Linear(n_embd, hidden, bias=False)
        self.out = nn.Linear(hidden, n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.gate(x)) * self.value(x))


class ByHand(Plain):
    def forward(self, x: Tensor) -> Tensor:
        g = x @ self.gate.weight.T
        return (g / (1 + torch.exp(-g)) * (x @ self.value.weight.T)) @ self.out.weight.T


class MultipleOf8(nn.Module):
    """Rounded up, the value first, an activation as a module, more arguments than are needed."""

    def __init__(self, n_embd: int, multiple: int = 8) -> None:
        super().__init__()
        hidden = -(-8 * n_embd // (3 * multiple)) * multiple
        self.value, self.gate = (nn.Linear(n_embd, hidden, False) for _ in range(2))
        self.out, self.act, self.drop = nn.Linear(hidden, n_embd, False), nn.SiLU(), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.out(self.value(x).mul(self.act(self.gate(x)))))


@pytest.mark.parametrize("learner", [Plain, ByHand, MultipleOf8])
def test_right_answers_pass(learner: Any, said: Say) -> None:
    assert check("day11", learner), said()
    assert said().startswith("day11: right. ")


def variant(formula: Callable[[Any, Tensor], Tensor]) -> type[nn.Module]:
    class Variant(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return formula(self, x)

    return Variant


def hidden_of(formula: Callable[[Tensor, Tensor], Tensor]) -> type[nn.Module]:
    return variant(lambda m, x: m.out(formula(m.gate(x), m.value(x))))


def layers(
    hidden: Callable[[int], Any] = lambda C: round(8 * C / 3),
    value: Callable[[int], Any] | None = None,
    bias: bool = False,
) -> type[nn.Module]:
    class Variant(Plain):
        def __init__(self, n_embd: int) -> None:
            nn.Module.__init__(self)
            h = hidden(n_embd)
            self.gate = nn.Linear(n_embd, h, bias=bias)
            self.value = nn.Linear(n_embd, value(n_embd) if value else h, bias=bias)
            self.out = nn.Linear(h, n_embd, bias=bias)

    return Variant


class Backwards(Plain):
    def __init__(self, n_embd: int) -> None:
        nn.Module.__init__(self)
        hidden = round(8 * n_embd / 3)
        self.gate, self.value = (nn.Linear(hidden, n_embd, bias=False) for _ in range(2))
        self.out = nn.Linear(n_embd, hidden, bias=False)


class OtherNames(nn.Module):
    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(n_embd, n_embd)


class Shared(Plain):
    def __init__(self, n_embd: int) -> None:
        super().__init__(n_embd)
        self.value = self.gate


class WithNorm(Plain):
    def __init__(self, n_embd: int) -> None:
        super().__init__(n_embd)
        self.norm = nn.LayerNorm(n_embd)


class NoSuper(nn.Module):
    def __init__(self, n_embd: int) -> None:
        self.gate = nn.Linear(n_embd, n_embd)


class NoModule:
    def __init__(self, n_embd: int) -> None:
        self.n_embd = n_embd




def no_forward() -> type[nn.Module]:
    class Variant(nn.Module):
        def __init__(self, n_embd: int) -> None:
            super().__init__()
            hidden = round(8 * n_embd / 3)
            self.gate, self.value = (nn.Linear(n_embd, hidden, bias=False) for _ in range(2))
            self.out = nn.Linear(hidden, n_embd, bias=False)

    return Variant


def in_place(m: Any, x: Tensor) -> Tensor:
    x *= 2
    return m.out(F.silu(m.gate(x)) * m.value(x))


def over_time(m: Any, x: Tensor) -> Tensor:
    return m.out(F.silu(m.gate(x)) * m.value(x).softmax(dim=1))


WRONG: dict[str, tuple[Any, str]] = {
    "4 times": (layers(lambda C: 4 * C), "still 4 * n_embd"),
    "2 times": (layers(lambda C: 2 * C), "hidden is 2 * n_embd"),
    "two thirds": (layers(lambda C: round(2 * C / 3)), "hidden is 2/3 of n_embd"),
    "8 times": (layers(lambda C: 8 * C), "hidden is 8 * n_embd"),
    "6 times": (layers(lambda C: 6 * C), "hidden is 6 * n_embd"),
    "rounded far off": (layers(lambda C: -(-8 * C // 3 // 256) * 256 + 256), "times the weights of the ordinary MLP"),
    "one size": (layers(lambda C: 512), "hidden stays 512"),
    "float": (layers(lambda C: 8 * C / 3), "hidden is a float"),
    "biases": (layers(bias=True), "pass bias=False"),
    "two widths": (layers(value=lambda C: 4 * C), "they need one width"),
    "backwards": (Backwards, "narrows and out widens"),
    "other names": (OtherNames, "no nn.Linear called self.gate"),
    "shared": (Shared, "share one matrix"),
    "another layer": (WithNorm, "is there another layer?"),
    "no super": (NoSuper, "super().__init__() is missing"),
    "no module": (NoModule, "no nn.Module"),
    "no forward": (no_forward(), "has no forward"),
    "wrong branch": (hidden_of(lambda g, v: g * F.silu(v)), "SiLU bends the value branch"),
    "sum": (hidden_of(lambda g, v: F.silu(g) + v), "a gate multiplies"),
    "sigmoid": (hidden_of(lambda g, v: g.sigmoid() * v), "the older GLU"),
    "both": (hidden_of(lambda g, v: F.silu(g) * F.silu(v)), "Both branches are bent"),
    "gelu": (hidden_of(lambda g, v: F.gelu(g) * v), "bent by GELU: that is GeGLU"),
    "gelu tanh": (hidden_of(lambda g, v: F.gelu(g, approximate="tanh") * v), "GELU in its tanh form"),
    "relu": (hidden_of(lambda g, v: F.relu(g) * v), "ReGLU"),
    "tanh": (hidden_of(lambda g, v: g.tanh() * v), "bent by tanh"),
    "no bend": (hidden_of(lambda g, v: g * v), "Nothing is bent"),
    "gate alone": (hidden_of(lambda g, v: F.silu(g)), "value branch is never used"),
    "value alone": (hidden_of(lambda g, v: F.silu(v)), "gate branch is never used"),
    "bent product": (hidden_of(lambda g, v: F.silu(g * v)), "SiLU bends the product"),
    "softmax": (hidden_of(lambda g, v: g.softmax(-1) * v), "numbers then compete"),
    "1.702": (hidden_of(lambda g, v: g * (1.702 * g).sigmoid() * v), "SiLU has no such factor"),
    "bent behind": (variant(lambda m, x: F.silu(m.out(m.gate(x) * m.value(x)))), "stands behind out"),
    "residual": (variant(lambda m, x: x + Plain.forward(m, x)), "x is added to the result"),
    "not narrowed": (variant(lambda m, x: F.silu(m.gate(x)) * m.value(x)), "still hidden numbers wide"),
    "chained": (variant(lambda m, x: m.out(m.value(F.silu(m.gate(x))))), "do not fit one behind the other"),
    "matrix product": (variant(lambda m, x: m.out(F.silu(m.gate(x)) @ m.value(x))), "number by number, with *"),
    "dropout": (variant(lambda m, x: F.dropout(Plain.forward(m, x), 0.1, m.training)), "is dropout on"),
    "mixes tokens": (variant(over_time), "Changing token 0"),
    "in place": (variant(in_place), "changes its input x"),
    "no gradient": (variant(lambda m, x: Plain.forward(m, x).detach()), "carries no gradient"),
    "nothing of the kind": (variant(lambda m, x: 2 * Plain.forward(m, x)), "result is not out("),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day11", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day11", WRONG, 30)


def test_a_function_or_an_object_is_refused(said: Say) -> None:
    assert not check("day11", Plain(48))
    assert "the class itself" in said()
    assert not check("day11", functools.partial(F.silu))
