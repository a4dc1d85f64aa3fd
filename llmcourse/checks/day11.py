"""Checker of day 11, a SwiGLU MLP that is as large as the ordinary one.

The layers have names, so the checker can put its own numbers into them, and knows what every tempting formula
would give. It compares the learner's result with each of these.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Wrong, exercise, tensor

Formula = Callable[[Tensor, Tensor], Tensor]
ROOM = 0.04  # the hidden width may be rounded: to a whole number, to a multiple of 8


class SwiGLU(nn.Module):
    """An MLP with a gate and 8 * n_embd^2 weights, as many as two matrices of expansion 4 have."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        hidden = round(8 * n_embd / 3)  # three matrices of this width weigh as much as two of 4 * n_embd
        self.gate = nn.Linear(n_embd, hidden, bias=False)
        self.value = nn.Linear(n_embd, hidden, bias=False)
        self.out = nn.Linear(hidden, n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.gate(x)) * self.value(x))  # (B, T, C) -> (B, T, hidden) -> (B, T, C)


# What else the hidden numbers h(gate, value) could be, and what to say then.
FORMULAS: dict[str, Formula] = {
    "SiLU bends the value branch, and the gate branch is left straight: it is silu(gate(x)) * value(x).": lambda g, v: (
        g * F.silu(v)
    ),
    "The two branches are added; a gate multiplies.": lambda g, v: F.silu(g) + v,
    "The gate passes through a sigmoid alone, which is the older GLU; SiLU is g * sigmoid(g).": lambda g, v: (
        g.sigmoid() * v
    ),
    "Both branches are bent; the value branch stays straight.": lambda g, v: F.silu(g) * F.silu(v),
    "The gate is bent by GELU: that is GeGLU, a sibling.": lambda g, v: F.gelu(g) * v,
    "The gate is bent by GELU in its tanh form: that is GeGLU, a sibling.": lambda g, v: (
        F.gelu(g, approximate="tanh") * v
    ),
    "The gate is bent by ReLU: that is ReGLU, a sibling.": lambda g, v: F.relu(g) * v,
    "The gate is bent by tanh instead of SiLU.": lambda g, v: g.tanh() * v,
    "Nothing is bent: the product of two straight branches lacks SiLU on the gate.": lambda g, v: g * v,
    "The value branch is never used: the result is that of silu(gate(x)) alone.": lambda g, v: F.silu(g),
    "The gate branch is never used: the result is that of silu(value(x)) alone.": lambda g, v: F.silu(v),
    "SiLU bends the product of the branches; it belongs on the gate, before the product.": lambda g, v: F.silu(g * v),
    "The gate passes through a softmax: its numbers then compete, and SiLU bends each on its own.": lambda g, v: (
        g.softmax(-1) * v
    ),
    "The gate is g * sigmoid(1.702 * g), which imitates GELU; SiLU has no such factor.": lambda g, v: (
        g * (1.702 * g).sigmoid() * v
    ),
}


@exercise(
    "day11",
    title="A SwiGLU MLP of equal size",
    signature="SwiGLU(n_embd)",
    hints=[
        "The ordinary MLP has two matrices of n_embd times 4 * n_embd. Yours has three of n_embd times hidden. Set "
        "2 * 4 * n_embd = 3 * hidden and solve for hidden.",
        "gate and value are nn.Linear(n_embd, hidden, bias=False), out is nn.Linear(hidden, n_embd, bias=False), and "
        "hidden is a whole number: round(8 * n_embd / 3).",
        "Of the two branches only the gate is bent, then they are multiplied, number by number: "
        "self.out(F.silu(self.gate(x)) * self.value(x)).",
    ],
    solution=SwiGLU,
    right="Three matrices, as many weights as the two of expansion 4, and only the gate is bent.",
    wants="class",
)
def check_swiglu(learner: Callable[[int], Any]) -> None:
    modules = {n_embd: build(learner, n_embd) for n_embd in (48, 64, 192)}
    if len(widths := {m.gate.weight.shape[0] for m in modules.values()}) == 1:
        raise Wrong(f"hidden stays {widths.pop()} for any n_embd: compute it from n_embd.")
    for n_embd, module in modules.items():
        check_layers(module, n_embd)
        check_forward(module, n_embd)


def build(learner: Callable[[int], Any], n_embd: int) -> Any:
    """The learner's module, if it is one and can be built."""
    try:
        module = learner(n_embd)
    except TypeError as e:
        if "float" in str(e) or "empty()" in str(e):
            raise Wrong("hidden is a float, and nn.Linear wants a whole number: round it.") from e
        raise
    except AttributeError as e:
        if "before Module.__init__" in str(e):
            raise Wrong("super().__init__() is missing: call it first, before any layer is stored in self.") from e
        raise
    if not isinstance(module, nn.Module):
        raise Wrong("Your class is no nn.Module: begin it with class SwiGLU(nn.Module).")
    for name in ("gate", "value", "out"):
        if not isinstance(getattr(module, name, None), nn.Linear):
            raise Wrong(f"There is no nn.Linear called self.{name}: the three layers are gate, value and out.")
    return module


def check_layers(module: Any, n_embd: int) -> None:
    """Shapes, biases and the number of parameters."""
    shapes = {name: tuple(getattr(module, name).weight.shape) for name in ("gate", "value", "out")}
    hidden = shapes["gate"][0]
    for name in ("gate", "value"):
        if shapes[name][0] == n_embd and shapes[name] == shapes["out"][::-1] and shapes[name][1] != n_embd:
            raise Wrong(f"{name} narrows and out widens: the order is widen, bend, narrow.")
        if shapes[name][1] != n_embd:
            raise Wrong(f"{name} reads {shapes[name][1]} numbers a token, but x has n_embd = {n_embd} of them.")
    if shapes["value"][0] != hidden:
        raise Wrong(f"gate gives {hidden} numbers and value {shapes['value'][0]}: for a product they need one width.")
    if shapes["out"] != (n_embd, hidden):
        raise Wrong(f"out turns {shapes['out'][1]} numbers into {shapes['out'][0]}, not {hidden} into {n_embd}.")
    if any(getattr(module, name).bias is not None for name in shapes):
        raise Wrong("A layer has a bias: here the count is of matrices only, so pass bias=False to all three.")
    check_width(hidden, n_embd)
    extra = sum(p.numel() for p in module.parameters()) - 3 * n_embd * hidden
    if extra > 0:
        raise Wrong(f"Besides gate, value and out there are {extra:,} more parameters: is there another layer?")
    if extra < 0:
        raise Wrong("Two of the three layers share one matrix: each needs its own nn.Linear.")


def check_width(hidden: int, n_embd: int) -> None:
    """Whether three matrices of this width weigh as much as two of four times n_embd."""
    if abs(hidden / (8 * n_embd / 3) - 1) <= ROOM:
        return
    known = {
        4.0: "hidden is still 4 * n_embd: with three matrices that is half as much again, 3/2 of the ordinary MLP.",
        2.0: "hidden is 2 * n_embd: three such matrices are only 3/4 of the ordinary MLP.",
        2 / 3: "hidden is 2/3 of n_embd; the 2/3 belongs to the old hidden width, 4 * n_embd.",
        8.0: "hidden is 8 * n_embd: the division by 3, for three matrices, is missing.",
        6.0: "hidden is 6 * n_embd: the old width was multiplied by 3/2 instead of divided by it.",
    }
    for factor, sentence in known.items():
        if abs(hidden / (factor * n_embd) - 1) < 0.02:
            raise Wrong(sentence)
    share = 3 * hidden / (8 * n_embd)
    raise Wrong(
        f"For n_embd = {n_embd} hidden is {hidden}: three such matrices have {share:.2f} times the weights of the "
        "ordinary MLP, and it should be 1.00 but for the rounding."
    )


def check_forward(module: Any, n_embd: int) -> None:
    """The formula, on weights of our own: large enough that every bend shows."""
    module.eval()
    hidden = module.gate.weight.shape[0]
    with torch.no_grad():
        for layer, fan_in in ((module.gate, n_embd), (module.value, n_embd), (module.out, hidden)):
            layer.weight.copy_(1.5 * torch.randn(layer.weight.shape) / fan_in**0.5)
    x = torch.randn(2, 5, n_embd)
    given = x.clone()
    result = forward(module, given)
    if not torch.equal(given, x):
        raise Wrong("Your forward changes its input x, which the residual connection still needs.")
    if isinstance(result, Tensor) and result.shape == (2, 5, hidden):
        raise Wrong("The result is still hidden numbers wide: send it through out.")
    y = tensor(result, x.shape, meaning="(B, T, n_embd)")
    module.train()
    if not torch.equal(y, tensor(forward(module, x), x.shape)):
        raise Wrong("Two calls with the same x give different results: is dropout on, or something random?")
    g, v, out = module.gate(x), module.value(x), module.out
    if same(y, out(F.silu(g) * v)):
        check_gradient(result)
        return
    for sentence, formula in FORMULAS.items():
        if same(y, out(formula(g, v))):
            raise Wrong(sentence)
    diagnose(module, x, y)


def forward(module: Any, x: Tensor) -> Any:
    try:
        return module(x)
    except NotImplementedError as e:
        if "forward" in str(e):
            raise Wrong("The module has no forward: write def forward(self, x), indented inside the class.") from e
        raise
    except RuntimeError as e:
        if "shapes cannot be multiplied" in str(e):
            raise Wrong(
                "The layers do not fit one behind the other: gate and value both read x, and out reads their product."
            ) from e
        if "of batch2 tensor to be" in str(e):
            raise Wrong("The branches meet in a matrix product, @; a gate needs number by number, with *.") from e
        raise


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def check_gradient(result: Tensor) -> None:
    if not result.requires_grad:
        raise Wrong("The result is right, but carries no gradient, so nothing could learn: take out detach or no_grad.")


def diagnose(module: Any, x: Tensor, y: Tensor) -> None:
    """Raise the Wrong that fits a result which no formula of the list gives."""
    right = module.out(F.silu(module.gate(x)) * module.value(x))
    if same(y, x + right):
        raise Wrong("x is added to the result: the residual connection belongs to the block, not to the MLP.")
    if same(y, F.silu(right)) or same(y, F.silu(module.out(module.gate(x) * module.value(x)))):
        raise Wrong("SiLU stands behind out; what leaves the MLP is not bent any more.")
    bumped = x.clone()
    bumped[:, 0] += 1
    if (tensor(forward(module, bumped), x.shape) - y)[:, 1:].abs().max() > 1e-5:
        raise Wrong("Changing token 0 changes the result of token 1: an MLP works on each token alone.")
    raise Wrong("The layers are right, but the result is not out(silu(gate(x)) * value(x)).")
