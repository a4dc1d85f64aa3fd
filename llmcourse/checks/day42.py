"""Checkers of day 42: the distillation loss, and the loss of direct preference optimization (DPO).

Both losses are one number, and nearly every mistake gives a number of its own. So the checkers compute these numbers,
too, and look which one they were given. Then they ask where the gradient goes, and whether large numbers do harm.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

Loss = Callable[..., Any]
B, L, V = 3, 5, 7  # all different, so that a mistaken dimension shows
TEMPERATURE, ALPHA, BETA = 3.0, 0.7, 0.3


def distillation_loss(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor:
    """alpha times the soft loss, 1 - alpha times the hard one; logits `(B, L, V)`, targets `(B, L)`, mean per token."""
    log_q = (student / temperature).log_softmax(dim=-1)  # (B, L, V)
    log_p = (teacher.detach() / temperature).log_softmax(dim=-1)
    soft = (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()  # KL for each token, then the mean
    hard = F.cross_entropy(student.flatten(0, 1), targets.flatten())  # at temperature 1
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def dpo_loss(policy: Tensor, reference: Tensor, answer: Tensor, beta: float) -> Tensor:
    """Mean DPO loss of B pairs, all `(2, B, L)`: log-probabilities of tokens, 0 chosen, 1 rejected; a mask."""
    log_ratio = (policy - reference.detach()) * answer  # the prompt does not count
    chosen, rejected = log_ratio.sum(dim=-1)  # (B,) each
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=2e-5, abs_tol=1e-6)


def value_of(learner: Loss, **arguments: Any) -> Tensor:
    """The learner's loss, a tensor of one number that still carries its gradient."""
    out = call(learner, **arguments)
    if isinstance(out, float | int):
        raise Wrong("Your function returned a plain number: return the tensor, so that backward() can follow it.")
    tensor(out, ())
    return out


def name_it(got: float, table: Iterable[tuple[float, str]]) -> None:
    """Raise the Wrong whose number the learner's loss is."""
    for value, sentence in table:
        if near(got, value):
            raise Wrong(sentence)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) for every token, of logits."""
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@exercise(
    "day42",
    title="Distillation loss",
    signature="distillation_loss(student, teacher, targets, temperature, alpha)",
    hints=[
        "Two means over the B · L tokens. Soft: the KL divergence from the teacher's shares to the student's, both at "
        "the temperature. Hard: the usual cross-entropy, at temperature 1. Mix them with alpha and 1 - alpha.",
        "Divide both logits by the temperature once, take log_softmax(dim=-1) of both; KL = Σ p (log p - log q) over "
        "the last dimension, p the teacher's. Multiply the mean by temperature**2. The teacher gets .detach().",
        "F.cross_entropy wants (N, V) and (N,): student.flatten(0, 1) and targets.flatten(). The student's logits go "
        "in as they came. Return alpha * temperature**2 * soft + (1 - alpha) * hard.",
    ],
    solution=distillation_loss,
    right="One mean over tokens, one temperature, and the teacher learns nothing.",
)
def check_distillation(learner: Loss) -> None:
    student, teacher = 2 * torch.randn(2, B, L, V)
    targets = torch.randint(V, (B, L))
    t, a = TEMPERATURE, ALPHA
    try:
        got = float(value_of(learner, student=student, teacher=teacher, targets=targets, temperature=t, alpha=a))
    except (RuntimeError, ValueError) as e:
        if "target size" in str(e) or "Expected target" in str(e):
            raise Wrong(
                "cross_entropy takes the second dimension for the vocabulary: flatten logits to (B · L, V) and "
                "targets to (B · L,)."
            ) from e
        raise
    wanted = float(distillation_loss(student, teacher, targets, t, a))
    if not near(got, wanted):
        diagnose_distillation(got, student, teacher, targets)
        raise Wrong(f"The loss is {got:.4f} and should be {wanted:.4f}: check soft (alpha = 1) and hard (alpha = 0).")
    check_gradients(learner, student, teacher, targets)
    for b, n, v, t, a in ((1, 1, 2, 1.0, 0.5), (4, 2, 9, 2.0, 1.0), (2, 6, 65, 5.0, 0.0)):
        student, teacher, targets = torch.randn(b, n, v), torch.randn(b, n, v), torch.randint(v, (b, n))
        with blame(f"It is right for (B, L, V) = {(B, L, V)}, but fails for {(b, n, v)}"):
            got = float(value_of(learner, student=student, teacher=teacher, targets=targets, temperature=t, alpha=a))
        if not near(got, float(distillation_loss(student, teacher, targets, t, a))):
            raise Wrong(f"It is right for one case, but not for temperature = {t}, alpha = {a}: use the arguments.")
    student, teacher = 300 * torch.randn(2, B, L, V)
    targets = torch.randint(V, (B, L))
    got = float(value_of(learner, student=student, teacher=teacher, targets=targets, temperature=1.0, alpha=1.0))
    if not math.isfinite(got):
        raise Wrong("Logits in the hundreds give NaN or inf: use log_softmax, not the log of a softmax.")


def diagnose_distillation(got: float, student: Tensor, teacher: Tensor, targets: Tensor) -> None:
    """Raise the Wrong that fits the wrong loss `got`."""
    if math.isnan(got):
        raise Wrong("The loss is NaN: the second argument of F.kl_div is probabilities, or logs with log_target=True.")
    t, a, n = TEMPERATURE, ALPHA, B * L
    each = kl(teacher / t, student / t)
    soft, hard = float(each.mean()), float(F.cross_entropy(student.flatten(0, 1), targets.flatten()))
    hot = float(F.cross_entropy(student.flatten(0, 1) / t, targets.flatten()))
    p, q = (teacher / t).softmax(-1), (student / t).softmax(-1)
    soft_entropy = float(-(p * q.log()).sum(-1).mean())
    reverse, twice = float(kl(student / t, teacher / t).mean()), float(kl(teacher / t**2, student / t**2).mean())
    plain, one = float(kl(teacher, student).mean()), float(kl(teacher / t, student).mean())
    other = float(kl(teacher, student / t).mean())
    probabilities = float((p * (p.log() - q)).sum(-1).mean())
    raw, raw_hot = (float((p * (p.log() - s)).sum(-1).mean()) for s in (student, student / t))
    wrong_way = float(F.cross_entropy(student.transpose(1, 2).reshape(-1, V), targets.reshape(-1)))
    shifted = float(F.cross_entropy(student[:, :-1].flatten(0, 1), targets[:, 1:].flatten()))

    def total(s: float, h: float = hard, square: float = t * t, share: float = a) -> float:
        return share * square * s + (1 - share) * h

    mixed = "Scores of different positions are mixed: a reshape does not move V to the end, flatten(0, 1) does it."
    name_it(
        got,
        [
            (total(soft, square=1), "The factor temperature² is missing: without it the soft part fades as it grows."),
            (total(soft, square=t), "The soft loss is multiplied by the temperature: the factor is its square."),
            (total(soft * L), "The soft loss is L times too large: “batchmean” on (B, L, V) divides by B only."),
            (total(soft / V), "The soft loss is divided by B · L · V: that is reduction “mean”; sum over V first."),
            (total(soft * n), "The soft loss is a sum over the tokens: take the mean over B · L."),
            (total(soft * n, hard * n), "Both parts are sums over the tokens: take the mean over B · L."),
            (total(soft * L, hard * L), "Both parts are divided by B alone: the mean goes over B · L tokens."),
            (total(reverse), "The KL divergence is the wrong way round: the teacher's shares do the weighting."),
            (total(-soft), "The soft part has the wrong sign: it is log p minus log q, p the teacher's."),
            (total(twice), "The temperature is applied twice: divide the logits by it once."),
            (total(twice, hot), "The temperature is applied twice: divide the logits by it once."),
            (total(plain), "The temperature is missing in the softmax: divide both logits by it."),
            (total(plain, square=1), "The temperature is used nowhere: it divides both logits, squared it multiplies."),
            (total(one), "Only the teacher's logits are divided by the temperature: the student's, too."),
            (total(other), "Only the student's logits are divided by the temperature: the teacher's, too."),
            (total(soft, hot), "The hard part runs at the temperature as well: it takes the logits as they are."),
            (total(probabilities), "The student's probabilities stand where their logarithms belong: use log_softmax."),
            (total(raw), "The student's raw logits stand in the KL divergence: it needs log_softmax of them."),
            (total(raw_hot), "The student's raw logits stand in the KL divergence: it needs log_softmax of them."),
            (total(soft, share=1 - a), "alpha and 1 - alpha have changed places: alpha belongs to the soft part."),
            (soft * t * t + hard, "The two parts are added: weight them with alpha and 1 - alpha."),
            (soft * t * t, "The hard part is missing: add (1 - alpha) times the cross-entropy with the targets."),
            (a * soft * t * t, "The hard part is missing: add (1 - alpha) times the cross-entropy with the targets."),
            (hard, "The teacher is not used: this is the plain cross-entropy."),
            (total(soft_entropy), "The soft part is a cross-entropy: take the teacher's own entropy off, for a KL."),
            (total(soft, wrong_way), mixed),
            (total(soft, shifted), "The targets are shifted once more: targets[b, l] already belongs to logits[b, l]."),
        ],
    )  # fmt: skip
    for dim, name in ((1, "positions"), (0, "batch")):
        p, q = (teacher / t).log_softmax(dim), (student / t).log_softmax(dim)
        if near(got, total(float((p.exp() * (p - q)).sum(-1).mean()))):
            raise Wrong(f"The softmax runs over the {name}: it belongs to dim=-1.")


def check_gradients(learner: Loss, student: Tensor, teacher: Tensor, targets: Tensor) -> None:
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    options = {"temperature": TEMPERATURE, "alpha": ALPHA}
    out = value_of(learner, student=student, teacher=teacher, targets=targets, **options)
    if not out.requires_grad:
        raise Wrong("The value is right, but no gradient reaches the student: its logits must not be detached.")
    out.backward()
    if teacher.grad is not None and teacher.grad.abs().max() > 0:
        raise Wrong("The value is right, but a gradient reaches the teacher, who should stay as it is: detach it.")
    right = student.detach().clone().requires_grad_()
    distillation_loss(right, teacher.detach(), targets, **options).backward()
    if student.grad is None or not torch.allclose(student.grad, right.grad, rtol=1e-3, atol=1e-6):  # type: ignore[arg-type]
        raise Wrong("The value is right, but a part of the student's gradient is cut off: detach the teacher only.")


@exercise(
    "day42b",
    title="DPO loss",
    signature="dpo_loss(policy, reference, answer, beta)",
    hints=[
        "For each answer: the sum, over its own tokens, of policy minus reference. That is the log-ratio. You need it "
        "for the chosen answers (index 0) and the rejected ones (index 1).",
        "((policy - reference) * answer).sum(dim=-1) has shape (2, B). The loss of a pair is minus the log of the "
        "sigmoid of beta times (chosen minus rejected); then the mean over the pairs.",
        "F.logsigmoid(x) is safe where log(sigmoid(x)) is not. reference.detach() keeps the reference as it is.",
    ],
    solution=dpo_loss,
    right="Answer tokens only, measured against the reference, and large margins do no harm.",
)
def check_dpo(learner: Loss) -> None:
    policy, reference, answer = pairs(B, L)
    got = float(value_of(learner, policy=policy, reference=reference, answer=answer, beta=BETA))
    wanted = float(dpo_loss(policy, reference, answer, BETA))
    if not near(got, wanted):
        diagnose_dpo(got, policy, reference, answer)
        raise Wrong(f"The loss is {got:.4f} and should be {wanted:.4f}: follow one pair (B = 1) by hand.")
    policy.requires_grad_()
    reference.requires_grad_()
    out = value_of(learner, policy=policy, reference=reference, answer=answer, beta=BETA)
    if not out.requires_grad:
        raise Wrong("The value is right, but no gradient reaches the policy: it must not be detached.")
    out.backward()
    if reference.grad is not None and reference.grad.abs().max() > 0:
        raise Wrong("The value is right, but a gradient reaches the reference, which should stay as it is: detach it.")
    twin = policy.detach().clone().requires_grad_()
    dpo_loss(twin, reference.detach(), answer, BETA).backward()
    if not torch.allclose(policy.grad, twin.grad, rtol=1e-3, atol=1e-6):  # type: ignore[arg-type]
        raise Wrong("The value is right, but half of the policy's gradient is cut off: detach the reference only.")
    for b, n, beta in ((1, 1, 0.1), (5, 8, 1.0)):
        policy, reference, answer = pairs(b, n)
        with blame(f"It is right for B = {B}, L = {L}, but fails for B = {b}, L = {n}"):
            got = float(value_of(learner, policy=policy, reference=reference, answer=answer, beta=beta))
        if not near(got, float(dpo_loss(policy, reference, answer, beta))):
            raise Wrong(f"It is right for one case, but not for B = {b}, L = {n}, beta = {beta}: use the arguments.")
    policy, reference, answer = torch.zeros(2, 1, 4), torch.zeros(2, 1, 4), torch.ones(2, 1, 4, dtype=torch.bool)
    policy[0] = -100.0  # the chosen answer has become nearly impossible
    got = float(value_of(learner, policy=policy, reference=reference, answer=answer, beta=1.0))
    if not near(got, 400.0):
        raise Wrong("For a margin of -400 the loss should be 400 and is not: use F.logsigmoid, not log(sigmoid).")


def pairs(b: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of two models, and answers of different lengths behind a prompt."""
    policy, reference = torch.randn(2, 2, b, n) - 2
    starts, ends = torch.randint(0, max(1, n - 3), (2, b, 1)), torch.randint(n - 1, n + 1, (2, b, 1))
    where = torch.arange(n)
    answer = (where >= starts.clamp(min=min(1, n - 1))) & (where < ends.clamp(min=1))
    answer[..., -1] |= ~answer.any(-1)
    return policy, reference, answer


def diagnose_dpo(got: float, policy: Tensor, reference: Tensor, answer: Tensor) -> None:
    """Raise the Wrong that fits the wrong loss `got`."""
    ratio = policy - reference
    inside, lengths = ratio * answer, answer.sum(-1)

    def loss(ratios: Tensor, beta: float = BETA) -> float:
        return float(-F.logsigmoid(beta * (ratios[0] - ratios[1])).mean())

    sums = inside.sum(-1)
    margin = sums[0] - sums[1]
    name_it(
        got,
        [
            (-loss(sums), "The loss is negative: the minus before the log of the sigmoid is missing."),
            (loss(-sums), "The margin has the wrong sign: chosen minus rejected, of policy minus reference."),
            (loss((policy * answer).sum(-1)), "The reference is not used: subtract its log-probabilities first."),
            (loss((reference * answer).sum(-1)), "Only the reference is used: the policy's log-probabilities count."),
            (loss(((policy + reference) * answer).sum(-1)), "Policy and reference are added: a log-ratio subtracts."),
            (loss(ratio.sum(-1)), "The prompt counts as well: multiply by the answer mask before the sum."),
            (loss((ratio * ~answer).sum(-1)), "The mask is inverted: it is True where a token belongs to the answer."),
            (loss(sums / lengths), "The log-ratios are means over the tokens: DPO takes the sum over the answer."),
            (loss(inside.mean(-1)), "The log-ratios are divided by L: DPO takes the sum over the answer."),
            (BETA * loss(sums, 1.0), "beta stands outside of the sigmoid: it multiplies the margin inside."),
            (float(-F.logsigmoid(BETA * sums[0] - sums[1]).mean()), "beta multiplies the chosen log-ratio alone."),
            (loss(sums, 1.0), "beta is not used: it multiplies the margin inside the sigmoid."),
            (loss(sums, 1 / BETA), "The margin is divided by beta: multiply."),
            (loss(sums, BETA**2), "beta is applied twice."),
            (loss(sums) * B, "The loss is a sum over the pairs: take the mean."),
            (float(-torch.sigmoid(BETA * margin).mean()), "The logarithm is missing: minus the log of the sigmoid."),
            (float(torch.sigmoid(BETA * margin).mean()), "This is the mean sigmoid: take minus its logarithm."),
            (float(-BETA * margin.mean()), "The sigmoid is missing: minus the log of the sigmoid of the margin."),
            (float(-torch.log(torch.sigmoid(BETA * margin).mean())), "The mean comes before the logarithm: swap them."),
            (loss(sums.mean(-1)), "The margins are averaged before the sigmoid: one loss for each pair, then a mean."),
            (float((BETA * sums[0]).sigmoid().log().neg().mean()), "The rejected answers are not used: subtract them."),
            (loss((inside.exp() * answer).sum(-1)), "The ratios are exponentiated: stay with the log-ratios."),
        ],
    )  # fmt: skip
