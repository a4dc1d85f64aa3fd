"""Day 19: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]
Tensors = list[Tensor]
Betas = tuple[float, float]
shared_notes: dict[Any, Any] = {}


def by_zeros(
    params: Tensors, grads: Tensors, state: dict, lr: float, betas: Betas, eps: float, weight_decay: float
) -> None:
    if not state:
        state["step"] = 0
        state["m"] = [torch.zeros_like(p) for p in params]
        state["v"] = [torch.zeros_like(p) for p in params]
    state["step"] += 1
    c1, c2 = 1 - betas[0] ** state["step"], 1 - betas[1] ** state["step"]
    for p, g, m, v in zip(params, grads, state["m"], state["v"], strict=True):
        m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
        v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        if p.dim() > 1:
            p.mul_(1 - lr * weight_decay)
        p.addcdiv_(m / c1, (v / c2).sqrt().add_(eps), value=-lr)


def by_lerp(
    params: Tensors, grads: Tensors, state: dict, lr: float, betas: Betas, eps: float, weight_decay: float
) -> None:
    t = state.setdefault("t", 1)
    state["t"] += 1
    for i in range(len(params)):
        old = state.get(("notes", i), torch.zeros(2, *params[i].shape))
        new = torch.stack((torch.lerp(grads[i], old[0], betas[0]), torch.lerp(grads[i] ** 2, old[1], betas[1])))
        state["notes", i] = new
        step = new[0] / (1 - betas[0] ** t) / ((new[1] / (1 - betas[1] ** t)) ** 0.5 + eps)
        decay = weight_decay * params[i] if len(params[i].shape) >= 2 else 0
        params[i].sub_(lr * (step + decay))


def by_torch(
    params: Tensors, grads: Tensors, state: dict, lr: float, betas: Betas, eps: float, weight_decay: float
) -> None:
    if "opt" not in state:
        state["p"] = [torch.nn.Parameter(p) for p in params]  # they share the memory of params
        groups = [
            {"params": [p for p in state["p"] if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in state["p"] if p.ndim < 2], "weight_decay": 0.0},
        ]
        state["opt"] = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, eps=eps)
    for p, g in zip(state["p"], grads, strict=True):
        p.grad = g
    state["opt"].step()


def by_id(
    params: Tensors, grads: Tensors, state: dict, lr: float, betas: Betas, eps: float, weight_decay: float
) -> dict:
    b1, b2 = betas
    for p, g in zip(params, grads, strict=True):
        s = state.setdefault(id(p), {"t": 0, "m": 0.0, "v": 0.0})  # t for each tensor, but raised once a step
        s["t"] += 1
        s["m"], s["v"] = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g * g
        if p.ndim >= 2:
            p -= lr * weight_decay * p
        rate = lr * (1 - b2 ** s["t"]) ** 0.5 / (1 - b1 ** s["t"])  # both corrections in the rate
        p -= rate * s["m"] / (s["v"].sqrt() + eps * (1 - b2 ** s["t"]) ** 0.5)
    return state


def wrong(
    m_hat: str = "m / (1 - b1**t)", v_hat: str = "v / (1 - b2**t)", g: str = "pass", first: str = "pass",
    move: str = "p -= lr * m_hat / (v_hat.sqrt() + eps)", m: str = "b1 * m + (1 - b1) * g",
    decay: str = "if p.ndim >= 2: p *= 1 - lr * weight_decay", v: str = "b2 * v + (1 - b2) * g**2",
    key: str = "i", count: str = "t = state['t'] = state.get('t', 0) + 1", each: str = "pass", late: str = "pass",
) -> Callable[..., Any]:  # fmt: skip
    """The solution with some of its lines exchanged."""
    source = f"""
def adamw_step(params, grads, state, lr, betas, eps, weight_decay):
    b1, b2 = betas
    {first}
    {count}
    for i, (p, g) in enumerate(zip(params, grads)):
        {each}
        {g}
        m, v = state.get({key}, (torch.zeros(()), torch.zeros(())))
        m, v = {m}, {v}
        state[{key}] = m, v
        m_hat, v_hat = {m_hat}, {v_hat}
        {decay}
        {move}
        {late}
"""
    names: dict[str, Any] = {"torch": torch, "shared_notes": shared_notes}
    exec(source, names)
    return names["adamw_step"]


RIGHT = [by_zeros, by_lerp, by_torch, by_id, wrong()]
MISTAKES = {
    "no correction": (wrong(m_hat="m", v_hat="v"), "no bias correction"),
    "m not corrected": (wrong(m_hat="m"), "Only v is corrected"),
    "v not corrected": (wrong(v_hat="v"), "Only m is corrected"),
    "eps inside": (wrong(move="p -= lr * m_hat / (v_hat + eps).sqrt()"), "under the root"),
    "L2": (wrong(g="g = g + weight_decay * p if p.ndim >= 2 else g", decay="pass"), "which is Adam with L2"),
    "decay without lr": (wrong(decay="if p.ndim >= 2: p *= 1 - weight_decay"), "not scaled by the learning rate"),
    "betas swapped": (wrong(first="b1, b2 = b2, b1"), "have changed places"),
    "not squared": (wrong(v="b2 * v + (1 - b2) * g.abs()"), "not its square"),
    "no root": (wrong(move="p -= lr * m_hat / (v_hat + eps)"), "The root is missing"),
    "uphill": (wrong(move="p += lr * m_hat / (v_hat.sqrt() + eps)"), "goes uphill"),
    "all decay": (wrong(decay="p *= 1 - lr * weight_decay"), "The vector is decayed, too"),
    "no decay": (wrong(decay="pass"), "The decay is missing"),
    "wrong group": (wrong(decay="if p.ndim < 2: p *= 1 - lr * weight_decay"), "condition is the wrong way round"),
    "late decay": (wrong(decay="pass", late="if p.ndim >= 2: p *= 1 - lr * weight_decay"), "acts after the step"),
    "growth": (wrong(decay="if p.ndim >= 2: p *= 1 + lr * weight_decay"), "makes the weights grow"),
    "from 0": (wrong(count="t = state.get('t', 0); state['t'] = t + 1"), "count begins at 0"),
    "from 2": (wrong(count="t = state['t'] = state.get('t', 1) + 1"), "one too large"),
    "t for each tensor": (
        wrong(count="pass", each="t = state['t'] = state.get('t', 0) + 1"),
        "counted once for each tensor",
    ),
    "t stays": (wrong(count="t = 1"), "t stays at 1"),
    "forgets averages": (
        wrong(m="(1 - b1) * g", v="(1 - b2) * g**2"),
        "averages begin anew",
    ),
    "new state": (wrong(first="state = {}"), "state is still empty"),
    "sums": (wrong(m="b1 * m + g", v="b2 * v + g**2"), "sums, not averages"),
    "latest gradient": (wrong(move="p -= lr * g / (v_hat.sqrt() + eps)"), "not its running average m"),
    "one memory": (wrong(key="0"), "One tensor at a time works"),
    "first tensor only": (
        wrong(count="t = state['t'] = state.get('t', 0) + 1", v="(b2 * v if i == 0 else 0) + (1 - b2) * g**2"),
        "a later one is not",
    ),
    "writes into grads": (wrong(g="g += weight_decay * p", decay="pass"), "It changes grads"),
    "not in place": (wrong(move="p = p - lr * m_hat / (v_hat.sqrt() + eps)", decay="pass"), "must change in place"),
    "own numbers": (wrong(first="b1, b2 = 0.8, 0.98"), "no numbers of your own"),
}  # fmt: skip


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: f.__name__)
def test_right_answers_pass(learner: Callable[..., Any], said: Say) -> None:
    assert check("day19", learner), said()
    assert said().startswith("day19: right.")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day19", MISTAKES, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day19", MISTAKES, 20)


def test_zero_gradients_need_eps(said: Say) -> None:
    assert not check("day19", wrong(move="p -= lr * m_hat / (v_hat.sqrt() + (eps if eps > 1e-6 else 0))"))
    assert "eps" in said()


def test_none_of_the_callers_things_change() -> None:
    """The reference leaves the gradients alone and keeps its notes in the dictionary that it is given."""
    p, g, state = torch.ones(2, 2), torch.ones(2, 2), {}
    wrong()([p], [g], state, 0.1, (0.9, 0.99), 1e-8, 0.1)
    assert torch.equal(g, torch.ones(2, 2)) and state["t"] == 1
    torch.testing.assert_close(p, torch.full((2, 2), 0.99 - 0.1))
