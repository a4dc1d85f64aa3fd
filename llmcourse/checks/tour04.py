"""Checker of Tour 4: one step of Lion, with decoupled weight decay."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, call, exercise, tensor

Step = Callable[[Tensor, Tensor, Tensor, float, float], Any]
SHAPE = (4, 3)


def lion_step(p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> tuple[Tensor, Tensor]:
    """New weights and new memory after one step of Lion with betas 0.9 and 0.99."""
    direction = (0.9 * m + 0.1 * g).sign()  # with the old memory
    return p - lr * (direction + decay * p), 0.99 * m + 0.01 * g


@exercise(
    "tour04",
    title="Lion by hand",
    signature="lion_step(p, g, m, lr, decay)",
    hints=[
        "Three lines: the direction from m and g, the new weights from p and the direction, the new memory.",
        "The direction is (0.9 * m + 0.1 * g).sign(): m is the old memory here, and the sign comes last.",
        "Decay acts apart from the sign: p - lr * (direction + decay * p). The memory is 0.99 * m + 0.01 * g.",
    ],
    solution=lion_step,
    right="Every weight moves by exactly the rate, apart from the decay, and only the signs of two averages decide.",
)
def check_lion_step(learner: Step) -> None:
    p = torch.randn(SHAPE)
    # Memory against gradient in all proportions, so that signs tell one average from another.
    against = torch.tensor([[0.1, -2.0], [0.3, -0.5], [0.005, -2.0], [0.5, -0.3], [0.117, -1.0], [2.0, -0.1]])
    m, g = torch.cat((against, -against)).T.reshape(2, *SHAPE)
    weights, memory = outputs(learner, p, g, m, 0.01, 0.0)
    right = lion_step(p, g, m, 0.01, 0.0)
    if close(weights, right[1]) and close(memory, right[0]):
        raise Wrong("The two results are in the wrong order: first the new weights, then the new memory.")
    if close(weights, p - right[0]) or close(weights, right[0] - p) or close(weights, (p - right[0]) / 0.01):
        raise Wrong("You return the step alone: the new weights are p minus the step.")
    if not close(weights, right[0]):
        diagnose_direction((weights - p) / 0.01, g, m)
    if not close(memory, right[1]):
        diagnose_memory(memory, g, m)
    weights, _ = outputs(learner, p, g, m, 0.02, 0.5)
    if not close(weights, lion_step(p, g, m, 0.02, 0.5)[0]):
        diagnose_decay(weights, p, g, m, 0.02, 0.5)
    zero = torch.zeros(SHAPE)
    weights, _ = outputs(learner, p, zero, zero, 0.02, 0.0)
    if not close(weights, p):
        raise Wrong("Where memory and gradient are both 0, nothing should move: the sign of 0 is 0, not 1 or -1.")


def outputs(learner: Step, p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> tuple[Tensor, Tensor]:
    """What the learner returns, as new weights and new memory."""
    try:
        out = call(learner, p=p, g=g, m=m, lr=lr, decay=decay)
    except Wrong as e:
        name = re.search(r"`?\b([pgm])\b`?", str(e))
        which = f" ({name[1]})" if name else ""
        raise Wrong(f"Your function changes one of its inputs{which}: return new tensors, without -= or mul_.") from e
    if isinstance(out, Tensor):
        raise Wrong("You return one tensor: two are asked for, the new weights and the new memory.")
    if not isinstance(out, tuple | list) or len(out) != 2:
        raise Wrong("Return two tensors: return new_weights, new_memory.")
    weights = tensor(out[0], SHAPE, meaning="the new weights, like p:")
    return weights, tensor(out[1], SHAPE, meaning="the new memory, like m:")


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-6))


def like(a: Tensor, b: Tensor) -> bool:
    """For directions, which were divided by the rate."""
    return bool(torch.allclose(a, b, rtol=1e-3, atol=1e-3))


def diagnose_direction(moved: Tensor, g: Tensor, m: Tensor) -> None:
    """Raise the Wrong that fits a step without decay; `moved` is the step divided by the rate."""
    mix, memory = 0.9 * m + 0.1 * g, 0.99 * m + 0.01 * g
    named = [
        (mix.sign(), "Your step goes up the slope: the weights move against the direction, p - lr * ..."),
        (-mix, "The sign is missing: you step by the average itself, so large gradients make long steps."),
        (-memory.sign(), "Your direction is taken from 0.99 m + 0.01 g, the average for the memory: use 0.9 and 0.1."),
        (-(0.9 * memory + 0.1 * g).sign(), "You update the memory first and use the new one: the step takes the old."),
        (-(0.1 * m + 0.9 * g).sign(), "The weights 0.9 and 0.1 are swapped: the memory gets 0.9, the gradient 0.1."),
        (-g.sign(), "Your direction is the sign of the gradient alone: the memory has no part in it."),
        (-m.sign(), "Your direction is the sign of the memory alone: the gradient of this step has no part in it."),
        (-(0.9 * m.sign() + 0.1 * g.sign()), "You average signs: average first, and take the sign of the result."),
        (-(m + g).sign(), "You take the sign of m + g: the memory counts nine times as much as the gradient."),
        (-g, "This is plain gradient descent: the sign and the memory are missing."),
        (-mix / mix.norm(), "You divide by the norm of the whole tensor: the sign makes each weight's own step 1."),
        (-100 * mix.sign(), "Your step does not contain the rate: each weight moves by lr, not by 1."),
        (0 * g, "Without decay your weights do not move: the step is p - lr * direction, whatever the decay is."),
    ]
    for wrong, sentence in named:
        if like(moved, wrong):
            raise Wrong(sentence)
    raise Wrong("Without decay each weight should move by exactly lr, against the sign of 0.9 m + 0.1 g; yours do not.")


def diagnose_memory(memory: Tensor, g: Tensor, m: Tensor) -> None:
    """Raise the Wrong that fits a wrong new memory beside right weights."""
    mix = 0.9 * m + 0.1 * g
    named = [
        (m, "The weights are right, but the memory comes back as it went in: it becomes 0.99 m + 0.01 g."),
        (mix, "The memory that is carried on uses 0.99 and 0.01: 0.9 and 0.1 are for the direction only."),
        (mix.sign(), "You keep the sign as memory: what is carried on is the average itself."),
        ((0.99 * m + 0.01 * g).sign(), "The sign is for the step only: the memory keeps the sizes."),
        (0.01 * m + 0.99 * g, "In the memory, 0.99 and 0.01 are swapped: it should change slowly."),
        (0.99 * m + g, "Your memory adds the whole gradient, as plain momentum does: here it gets a share of 0.01."),
        (0.99 * mix + 0.01 * g, "Your memory starts from the average for the direction: start from the old m."),
        (0.99 * m + 0.01 * g * g, "Your memory averages squared gradients, like Adam's second: Lion has none."),
    ]
    for wrong, sentence in named:
        if close(memory, wrong):
            raise Wrong(sentence)
    raise Wrong("The weights are right, the new memory is not: it is 0.99 times the old memory plus 0.01 g.")


def diagnose_decay(weights: Tensor, p: Tensor, g: Tensor, m: Tensor, lr: float, decay: float) -> None:
    """Raise the Wrong that fits a step that is right only without decay."""
    step = (0.9 * m + 0.1 * g).sign()
    inside = 0.9 * m + 0.1 * (g + decay * p)
    named = [
        (p - lr * step, "Right without decay, but the decay does nothing: the weights also shrink by lr * decay."),
        (p - lr * step - decay * p, "The decay lacks the rate: the weights shrink by lr * decay, not by decay."),
        (p - lr * step + decay * p, "Your weights grow by decay times p: they should shrink, by lr * decay * p."),
        (p - lr * (step - decay * p), "Your decay makes the weights grow: it is subtracted too."),
        (p - lr * inside.sign(), "You put the decay into the gradient: the sign swallows it there."),
        (p - lr * (step + decay * p).sign(), "The sign swallows your decay: take the sign of the average only."),
        (
            p - lr * (0.9 * m + 0.1 * g + decay * p).sign(),
            "Your decay is added before the sign is taken: it belongs behind the sign.",
        ),
        (p - lr * (step + decay), "Your decay is the same for all weights: it takes a share of each."),
        (p - lr * (step + decay * p.sign()), "Your decay pulls with the sign of p: it is in proportion to p."),
        ((p - lr * step) * (1 - lr * decay), "You shrink the weights after the step: shrink the old ones."),
        (p * decay - lr * step, "You multiply the weights by decay: they keep all but lr * decay of themselves."),
        (p * (1 - decay) - lr * step, "The decay lacks the rate: the weights shrink by lr * decay, not by decay."),
    ]
    for wrong, sentence in named:
        if close(weights, wrong):
            raise Wrong(sentence)
    raise Wrong("It is right without decay, but not with it: the weights are p - lr * (direction + decay * p).")
