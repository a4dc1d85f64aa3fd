"""Checker of day 19, AdamW's step.

Every mistake is a variant of a few lines, so the checker computes what the usual wrong versions would give and says
which one fits. The first step alone hides several of them (it is the sign of the gradient), so three steps are run,
with settings in which the versions lie far apart.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, exercise, load_optimizers

load_optimizers()  # not within the time limit
Step = Callable[..., Any]
Settings = dict[str, Any]
SHAPES = ((3, 4), (5,), (2, 3, 2))  # matrices and more decay, the vector does not
SETTINGS: Settings = {"lr": 0.05, "betas": (0.8, 0.98), "eps": 0.01, "weight_decay": 0.4}
STEPS = 3
ONE_MEMORY = "several tensors get into each other's way: does every tensor have an m and a v of its own in state?"


def adamw_step(
    params: list[Tensor], grads: list[Tensor], state: dict[Any, Any],
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """One step of AdamW: changes `params` in place and keeps its notes in `state`."""
    b1, b2 = betas
    t = state["t"] = state.get("t", 0) + 1  # once a step, counted from 1
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        m, v = state.get(i, (0.0, 0.0))  # each tensor has its own
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        state[i] = m, v
        if p.ndim >= 2:
            p *= 1 - lr * weight_decay
        p -= lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)


@exercise(
    "day19",
    title="AdamW's step",
    signature="adamw_step(params, grads, state, lr, betas, eps, weight_decay)",
    hints=[
        "Count the steps in state, from 1, once a call: t = state['t'] = state.get('t', 0) + 1. For each "
        "tensor keep its "
        "own m and v in state, under its number i: m, v = state.get(i, (0.0, 0.0)).",
        "m = b1*m + (1-b1)*g and v = b2*v + (1-b2)*g**2; corrected: m / (1 - b1**t) and v / (1 - b2**t). Then "
        "p -= lr * m_hat / (v_hat.sqrt() + eps), which changes p in place.",
        "Before that line, and only if p.ndim >= 2: p *= 1 - lr * weight_decay. The decay never enters g, m or v.",
    ],
    solution=adamw_step,
    right="Both averages corrected, each tensor with its own memory, and the decay beside the step.",
)
def check_adamw_step(learner: Step) -> None:
    start = [torch.randn(shape) for shape in SHAPES]
    slopes = [[0.3 * torch.randn(shape) for shape in SHAPES] for _ in range(STEPS)]
    try:
        found = walk(learner, start, slopes, SETTINGS)
    except RuntimeError as e:
        if works_alone(learner, start, slopes):
            raise Wrong("One tensor at a time works, but " + ONE_MEMORY) from e
        raise
    if not same(found, variant(start, slopes, SETTINGS)):
        diagnose(found, start, slopes)
    # small gradients, other shapes, other settings
    other: Settings = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    start = [torch.randn(6), torch.randn(4, 1)]
    slopes = [[1e-3 * torch.randn(6), 1e-3 * torch.randn(4, 1)] for _ in range(5)]
    with blame("It is right for three tensors, but fails for another list of tensors"):
        found = walk(learner, start, slopes, other)
    if not same(found, variant(start, slopes, other)):
        raise Wrong(
            "It is right in one setting and wrong in another (lr 0.01, betas 0.9 and 0.999, eps 1e-8, decay "
            "0.1): use the "
            "arguments, no numbers of your own, and keep nothing outside state."
        )
    zero = [torch.zeros(2, 2)]
    walk(learner, [torch.ones(2, 2)], [zero, zero], other)


def works_alone(learner: Step, start: list[Tensor], slopes: list[list[Tensor]]) -> bool:
    """Whether one tensor at a time is no problem, so that several get into each other's way."""
    try:
        for i, p in enumerate(start):
            walk(learner, [p], [[g[i]] for g in slopes], SETTINGS)
    except Exception:
        return False
    return True


def walk(learner: Step, start: list[Tensor], slopes: list[list[Tensor]], settings: Settings) -> list[Tensor]:
    """The parameters after the learner's steps; Wrong where something else was changed or nothing was."""
    params, state = [p.clone() for p in start], dict[Any, Any]()
    before = list(params)
    for n, grads in enumerate(slopes):
        given = [g.clone() for g in grads]
        old = [p.clone() for p in params]
        with torch.no_grad():
            result = learner(params, given, state, *settings.values())
        if len(given) != len(grads) or not all(torch.equal(a, b) for a, b in zip(given, grads, strict=True)):
            raise Wrong(
                "It changes grads, which belong to the caller: the decay or a square was written into the gradient "
                "(+=, "
                "*= or an operation whose name ends in _); make a new tensor instead."
            )
        replaced = len(params) != len(before) or any(a is not b for a, b in zip(params, before, strict=True))
        still = all(torch.equal(a, b) for a, b in zip(params, old, strict=False))
        if replaced or (still and any(g.any() for g in grads)):
            how = "put other tensors into the list" if replaced else "left params as they were"
            if result is not None:
                how += " and returned something"
            raise Wrong(
                f"It {how}: the tensors in params must change in place, with p -= … or p.sub_(…); p = p - … only "
                f"makes a "
                "new tensor with the same name."
            )
        for p, q in zip(params, before, strict=True):
            if p.shape != q.shape:
                raise Wrong(f"A tensor changed its shape to {tuple(p.shape)}: the step is element by element.")
        if not all(p.isfinite().all() for p in params):
            if not any(g.any() for g in grads):
                raise Wrong("A gradient of zero becomes NaN, 0 / 0: add eps to the root in the denominator.")
            if n == 0:
                raise Wrong("The count begins at 0: 1 - beta**0 is 0, and dividing by it gives NaN; the first t is 1.")
            raise Wrong(f"After step {n + 1} the weights are NaN or infinite: the root of something negative?")
    if not state:
        raise Wrong(
            "state is still empty after the call, so nothing is remembered from step to step: keep m, v and t in "
            "that very "
            "dictionary (state = {…} only makes a new one)."
        )
    return params


def variant(
    start: list[Tensor], slopes: list[list[Tensor]], settings: Settings, *,
    correct_m: bool = True, correct_v: bool = True, first: int = 1, inside: bool = False, coupled: bool = False,
    scaled: bool = True, swapped: bool = False, square: bool = True, root: bool = True, sign: int = 1,
    everything: bool = False, never: bool = False, late: bool = False, forget: bool = False, per_tensor: bool = False,
    frozen: bool = False, grow: bool = False, sums: bool = False, only_vectors: bool = False, raw: bool = False,
) -> list[Tensor]:  # fmt: skip
    """AdamW's steps with one of the usual mistakes, or none."""
    lr, (b1, b2), eps, decay = settings["lr"], settings["betas"], settings["eps"], settings["weight_decay"]
    if swapped:
        b1, b2 = b2, b1
    params, notes, count = [p.clone() for p in start], dict[Any, Any](), first - 1
    for grads in slopes:
        count += 0 if per_tensor else 1
        for i, (p, grad) in enumerate(zip(params, grads, strict=True)):
            count += 1 if per_tensor else 0
            t = first if frozen else count
            decays = (p.ndim < 2 if only_vectors else p.ndim >= 2 or everything) and not never
            g = grad + decay * p if coupled and decays else grad
            m, v = (0.0, 0.0) if forget else notes.get(i, (0.0, 0.0))
            m = b1 * m + (1.0 if sums else 1 - b1) * g
            v = b2 * v + (1.0 if sums else 1 - b2) * (g**2 if square else g.abs())
            notes[i] = m, v
            a = m / (1 - b1**t) if correct_m else m
            b = v / (1 - b2**t) if correct_v else v
            a = g if raw else a
            below = (b + eps).sqrt() if inside else (b.sqrt() if root else b) + eps
            pull = (lr if scaled else 1.0) * decay * (-1 if grow else 1) if decays and not coupled else 0.0
            if not late:
                p *= 1 - pull
            p -= sign * lr * a / below
            if late:
                p *= 1 - pull
    return params


MISTAKES: list[tuple[Settings, str]] = [
    (
        {"correct_m": False, "correct_v": False},
        "There is no bias correction: m and v start at 0 and are too small at first; divide them by 1 - beta1**t and "
        "1 - beta2**t.",
    ),
    (
        {"correct_m": False},
        "Only v is corrected: m starts at 0 as well, divide it by 1 - beta1**t.",
    ),
    (
        {"correct_v": False},
        "Only m is corrected: v starts at 0 as well, divide it by 1 - beta2**t.",
    ),
    (
        {"inside": True},
        "eps stands under the root: it belongs outside, sqrt(v_hat) + eps.",
    ),
    (
        {"coupled": True},
        "The decay is added to the gradient and goes through the division, which is Adam with L2: multiply p by 1 - "
        "lr * weight_decay instead.",
    ),
    (
        {"scaled": False},
        "The decay is not scaled by the learning rate: the factor is 1 - lr * weight_decay.",
    ),
    (
        {"swapped": True},
        "The betas have changed places: the first belongs to m, the second to v.",
    ),
    (
        {"square": False},
        "v averages the size of the gradient, not its square: g**2 goes in, and the root comes later.",
    ),
    (
        {"root": False},
        "The root is missing: the step is divided by sqrt(v_hat), not by v_hat.",
    ),
    (
        {"sign": -1},
        "The step goes uphill: it must be subtracted, p -= lr * …",
    ),
    (
        {"everything": True},
        "The vector is decayed, too: only tensors with two or more dimensions are.",
    ),
    (
        {"never": True},
        "The decay is missing: tensors with two or more dimensions shrink by 1 - lr * weight_decay.",
    ),
    (
        {"only_vectors": True},
        "The condition is the wrong way round: the vector is decayed and the matrices are not.",
    ),
    (
        {"late": True},
        "The decay acts after the step, on the weight that has already moved: shrink first, then step.",
    ),
    (
        {"grow": True},
        "The decay makes the weights grow: the factor is 1 - lr * weight_decay, with a minus.",
    ),
    (
        {"forget": True},
        "The averages begin anew in each call: read the old m and v from state, and write the new ones back.",
    ),
    (
        {"forget": True, "frozen": True},
        "Nothing is remembered between the calls, neither the averages nor t: keep them in state.",
    ),
    (
        {"frozen": True},
        "t stays at 1 in every step: count it up in state, once a call.",
    ),
    (
        {"per_tensor": True},
        "t is counted once for each tensor: it counts the steps, so raise it once a call, before the loop.",
    ),
    (
        {"first": 2},
        "t is one too large: in the first step it is 1.",
    ),
    (
        {"sums": True},
        "The factors 1 - beta are missing: m and v are sums, not averages.",
    ),
    (
        {"raw": True},
        "The step uses the latest gradient, not its running average m: that is RMSprop.",
    ),
]


def diagnose(found: list[Tensor], start: list[Tensor], slopes: list[list[Tensor]]) -> None:
    """Raise the Wrong that fits these parameters."""
    for change, sentence in MISTAKES:
        if same(found, variant(start, slopes, SETTINGS, **change)):
            raise Wrong(sentence)
    if same(found[:1], variant(start[:1], [g[:1] for g in slopes], SETTINGS)):
        raise Wrong("The first tensor is right and a later one is not: " + ONE_MEMORY)
    raise Wrong(
        "The steps are not AdamW's, and not those of a usual mistake: compare with the two lines of step 2, one by one."
    )


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(a, b, strict=True))
