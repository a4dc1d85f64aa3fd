"""Day 42: the distillation loss and the DPO loss, in any style; each typical mistake is named by its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks.day42 import distillation_loss, dpo_loss

Say = Callable[[], str]


# ---- distillation ----------------------------------------------------------------------------------------------


def by_kl_div(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor:
    soft = F.kl_div(
        F.log_softmax(student.flatten(0, 1) / temperature, -1),
        F.softmax(teacher.flatten(0, 1).detach() / temperature, -1),
        reduction="batchmean",
    )
    hard = F.cross_entropy(student.transpose(1, 2), targets)
    return alpha * soft * temperature**2 + (1 - alpha) * hard


def by_no_grad(s: Tensor, t: Tensor, y: Tensor, T: float, a: float) -> Tensor:
    with torch.no_grad():
        log_p = (t / T).log_softmax(-1)
    log_q = (s / T).log_softmax(-1)
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    hard = -s.log_softmax(-1).gather(-1, y[..., None]).mean()
    return a * T * T * each.mean() + (1 - a) * hard


def by_loop(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor:
    total = torch.zeros(())
    for s, t, y in zip(student.flatten(0, 1), teacher.flatten(0, 1).detach(), targets.flatten(), strict=True):
        log_p, log_q = torch.log_softmax(t / temperature, 0), torch.log_softmax(s / temperature, 0)
        total = total + alpha * temperature**2 * (log_p.exp() * (log_p - log_q)).sum()
        total = total - (1 - alpha) * torch.log_softmax(s, 0)[y]
    return total / targets.numel()


RIGHT_DISTILLATION = [distillation_loss, by_kl_div, by_no_grad, by_loop]


@pytest.mark.parametrize("learner", RIGHT_DISTILLATION, ids=lambda f: f.__name__)
def test_distillation_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day42", learner), said()
    assert said().startswith("day42: right. ")


def soft_of(s: Tensor, t: Tensor, T: float, dim: int = -1) -> Tensor:
    log_p, log_q = (t.detach() / T).log_softmax(dim), (s / T).log_softmax(dim)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def hard_of(s: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(s.flatten(0, 1), y.flatten())


def with_soft(soft: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    return lambda s, t, y, T, a: a * T * T * soft(s, t.detach(), T) + (1 - a) * hard_of(s, y)


def mixed(soft: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda s, t, y, T, a: soft(s, t.detach(), y, T, a, soft_of(s, t, T).mean(), hard_of(s, y))


def teacher_not_detached(s: Tensor, t: Tensor, y: Tensor, T: float, a: float) -> Tensor:
    log_p, log_q = (t / T).log_softmax(-1), (s / T).log_softmax(-1)
    return a * T * T * (log_p.exp() * (log_p - log_q)).sum(-1).mean() + (1 - a) * hard_of(s, y)


def unsafe(s: Tensor, t: Tensor, y: Tensor, T: float, a: float) -> Tensor:
    p, q = (t.detach() / T).softmax(-1), (s / T).softmax(-1)
    return a * T * T * (p * (p.log() - q.log())).sum(-1).mean() + (1 - a) * hard_of(s, y)


WRONG_DISTILLATION: dict[str, tuple[Callable[..., Any], str]] = {
    "no square": (mixed(lambda s, t, y, T, a, soft, hard: a * soft + (1 - a) * hard), "factor temperature² is missing"),
    "factor T": (mixed(lambda s, t, y, T, a, soft, hard: a * T * soft + (1 - a) * hard), "the factor is its square"),
    "batchmean": (
        with_soft(lambda s, t, T: F.kl_div((s / T).log_softmax(-1), (t / T).softmax(-1), reduction="batchmean")),
        "L times too large",
    ),
    "mean over V": (
        with_soft(lambda s, t, T: F.kl_div((s / T).log_softmax(-1), (t / T).softmax(-1), reduction="mean")),
        "reduction “mean”",
    ),
    "soft sum": (with_soft(lambda s, t, T: soft_of(s, t, T).sum()), "The soft loss is a sum over the tokens"),
    "sums": (
        mixed(lambda s, t, y, T, a, soft, hard: y.numel() * (a * T * T * soft + (1 - a) * hard)),
        "Both parts are sums over the tokens",
    ),
    "reversed": (with_soft(lambda s, t, T: soft_of(t, s, T).mean()), "The KL divergence is the wrong way round"),
    "sign": (with_soft(lambda s, t, T: -soft_of(s, t, T).mean()), "wrong sign"),
    "twice": (with_soft(lambda s, t, T: soft_of(s / T, t / T, T).mean()), "The temperature is applied twice"),
    "no temperature": (with_soft(lambda s, t, T: soft_of(s, t, 1.0).mean()), "missing in the softmax"),
    "nowhere": (
        mixed(lambda s, t, y, T, a, soft, hard: a * soft_of(s, t, 1.0).mean() + (1 - a) * hard),
        "used nowhere",
    ),
    "teacher only": (with_soft(lambda s, t, T: soft_of(s, t / T, 1.0).mean()), "Only the teacher's logits"),
    "student only": (with_soft(lambda s, t, T: soft_of(s / T, t, 1.0).mean()), "Only the student's logits"),
    "hot hard": (
        mixed(lambda s, t, y, T, a, soft, hard: a * T * T * soft + (1 - a) * hard_of(s / T, y)),
        "The hard part runs at the temperature",
    ),
    "probabilities": (
        with_soft(lambda s, t, T: F.kl_div((s / T).softmax(-1), (t / T).softmax(-1), reduction="none").sum(-1).mean()),
        "The student's probabilities stand where",
    ),
    "raw logits": (
        with_soft(lambda s, t, T: F.kl_div(s / T, (t / T).softmax(-1), reduction="none").sum(-1).mean()),
        "raw logits stand in the KL divergence",
    ),
    "log target": (
        with_soft(lambda s, t, T: F.kl_div((s / T).log_softmax(-1), (t / T).log_softmax(-1), reduction="sum")),
        "The loss is NaN",
    ),
    "alpha swapped": (
        mixed(lambda s, t, y, T, a, soft, hard: (1 - a) * T * T * soft + a * hard),
        "alpha and 1 - alpha have changed places",
    ),
    "added": (mixed(lambda s, t, y, T, a, soft, hard: T * T * soft + hard), "The two parts are added"),
    "soft only": (mixed(lambda s, t, y, T, a, soft, hard: a * T * T * soft), "The hard part is missing"),
    "hard only": (mixed(lambda s, t, y, T, a, soft, hard: hard), "The teacher is not used"),
    "cross-entropy": (
        with_soft(lambda s, t, T: -((t / T).softmax(-1) * (s / T).log_softmax(-1)).sum(-1).mean()),
        "The soft part is a cross-entropy",
    ),
    "not flattened": (
        lambda s, t, y, T, a: a * T * T * soft_of(s, t, T).mean() + (1 - a) * F.cross_entropy(s, y),
        "cross_entropy takes the second dimension",
    ),
    "reshaped": (
        mixed(
            lambda s, t, y, T, a, soft, hard: a * T * T * soft
            + (1 - a) * F.cross_entropy(s.transpose(1, 2).reshape(-1, s.shape[-1]), y.reshape(-1))
        ),
        "Scores of different positions are mixed",
    ),
    "shifted": (
        mixed(lambda s, t, y, T, a, soft, hard: a * T * T * soft + (1 - a) * hard_of(s[:, :-1], y[:, 1:])),
        "The targets are shifted once more",
    ),
    "softmax over positions": (with_soft(lambda s, t, T: soft_of(s, t, T, 1).mean()), "The softmax runs over the pos"),
    "teacher not detached": (teacher_not_detached, "a gradient reaches the teacher"),
    "student detached": (
        lambda s, t, y, T, a: distillation_loss(s.detach(), t, y, T, a),
        "no gradient reaches the student",
    ),
    "half detached": (
        lambda s, t, y, T, a: a * T * T * soft_of(s.detach(), t, T).mean() + (1 - a) * hard_of(s, y),
        "a part of the student's gradient is cut off",
    ),
    "number": (lambda s, t, y, T, a: distillation_loss(s, t, y, T, a).item(), "returned a plain number"),
    "fixed temperature": (
        lambda s, t, y, T, a: distillation_loss(s, t, y, 3.0, a),
        "It is right for one case, but not for temperature",
    ),
    "unsafe": (unsafe, "Logits in the hundreds"),
}


@pytest.mark.parametrize("mistake", WRONG_DISTILLATION)
def test_distillation_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day42", WRONG_DISTILLATION, mistake)


def test_distillation_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day42", WRONG_DISTILLATION, least=20)


# ---- DPO -------------------------------------------------------------------------------------------------------


def by_four_sums(policy: Tensor, reference: Tensor, answer: Tensor, beta: float) -> Tensor:
    reference = reference.detach()
    pc, pr = (policy[0] * answer[0]).sum(-1), (policy[1] * answer[1]).sum(-1)
    rc, rr = (reference[0] * answer[0]).sum(-1), (reference[1] * answer[1]).sum(-1)
    return -F.logsigmoid(beta * ((pc - pr) - (rc - rr))).mean()


def by_softplus(policy: Tensor, reference: Tensor, answer: Tensor, beta: float) -> Tensor:
    ratio = torch.where(answer, policy - reference.detach(), 0.0).sum(-1)
    return F.softplus(beta * (ratio[1] - ratio[0])).mean()


def by_cross_entropy(policy: Tensor, reference: Tensor, answer: Tensor, beta: float) -> Tensor:
    ratio = beta * ((policy - reference.detach()) * answer).sum(-1)  # (2, B): two logits for each pair
    return F.cross_entropy(ratio.T, torch.zeros(ratio.shape[1], dtype=torch.long))


RIGHT_DPO = [dpo_loss, by_four_sums, by_softplus, by_cross_entropy]


@pytest.mark.parametrize("learner", RIGHT_DPO, ids=lambda f: f.__name__)
def test_dpo_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day42b", learner), said()
    assert said().startswith("day42b: right. ")


def from_ratio(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A wrong loss of the log-ratio of every token `(2, B, L)`, the mask and beta."""
    return lambda policy, reference, answer, beta: make(policy - reference.detach(), answer, beta)


def of(sums: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(beta * (sums[0] - sums[1])).mean()


WRONG_DPO: dict[str, tuple[Callable[..., Any], str]] = {
    "sign": (from_ratio(lambda r, m, b: -of((r * m).sum(-1), b)), "The loss is negative"),
    "swapped": (from_ratio(lambda r, m, b: of((r * m).sum(-1).flip(0), b)), "The margin has the wrong sign"),
    "no reference": (lambda p, r, m, b: of((p * m).sum(-1), b), "The reference is not used"),
    "added": (lambda p, r, m, b: of(((p + r.detach()) * m).sum(-1), b), "Policy and reference are added"),
    "prompt": (from_ratio(lambda r, m, b: of(r.sum(-1), b)), "The prompt counts as well"),
    "mask inverted": (from_ratio(lambda r, m, b: of((r * ~m).sum(-1), b)), "The mask is inverted"),
    "mean over answer": (from_ratio(lambda r, m, b: of((r * m).sum(-1) / m.sum(-1), b)), "are means over the tokens"),
    "mean over L": (from_ratio(lambda r, m, b: of((r * m).mean(-1), b)), "The log-ratios are divided by L"),
    "beta outside": (from_ratio(lambda r, m, b: b * of((r * m).sum(-1), 1.0)), "beta stands outside"),
    "half beta": (
        from_ratio(lambda r, m, b: -F.logsigmoid(b * (r[0] * m[0]).sum(-1) - (r[1] * m[1]).sum(-1)).mean()),
        "beta multiplies the chosen log-ratio alone",
    ),
    "no beta": (from_ratio(lambda r, m, b: of((r * m).sum(-1), 1.0)), "beta is not used"),
    "divided by beta": (from_ratio(lambda r, m, b: of((r * m).sum(-1), 1 / b)), "The margin is divided by beta"),
    "sum over pairs": (
        from_ratio(lambda r, m, b: of((r * m).sum(-1), b) * r.shape[1]),
        "The loss is a sum over the pairs",
    ),
    "no log": (
        from_ratio(lambda r, m, b: -(b * ((r * m).sum(-1)[0] - (r * m).sum(-1)[1])).sigmoid().mean()),
        "The logarithm is missing",
    ),
    "no sigmoid": (
        from_ratio(lambda r, m, b: -(b * ((r * m).sum(-1)[0] - (r * m).sum(-1)[1])).mean()),
        "The sigmoid is missing",
    ),
    "mean first": (from_ratio(lambda r, m, b: of((r * m).sum(-1).mean(-1), b)), "averaged before the sigmoid"),
    "chosen only": (
        from_ratio(lambda r, m, b: -F.logsigmoid(b * (r * m).sum(-1)[0]).mean()),
        "The rejected answers are not used",
    ),
    "reference not detached": (
        lambda p, r, m, b: of(((p - r) * m).sum(-1), b),
        "a gradient reaches the reference",
    ),
    "policy detached": (lambda p, r, m, b: dpo_loss(p.detach(), r, m, b), "no gradient reaches the policy"),
    "rejected detached": (
        lambda p, r, m, b: dpo_loss(torch.stack([p[0], p[1].detach()]), r, m, b),
        "half of the policy's gradient",
    ),
    "number": (lambda p, r, m, b: dpo_loss(p, r, m, b).item(), "returned a plain number"),
    "fixed beta": (lambda p, r, m, b: dpo_loss(p, r, m, 0.3), "It is right for one case, but not for B"),
    "unsafe": (
        from_ratio(lambda r, m, b: -(b * ((r * m).sum(-1)[0] - (r * m).sum(-1)[1])).sigmoid().log().mean()),
        "not log(sigmoid)",
    ),
}


@pytest.mark.parametrize("mistake", WRONG_DPO)
def test_dpo_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day42b", WRONG_DPO, mistake)


def test_dpo_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day42b", WRONG_DPO, least=18)
