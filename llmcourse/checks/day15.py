"""Checker of day 15: loss, perplexity and bits per character from logits.

Nearly every mistake gives a definite number of its own: the sum instead of the mean, a softmax over the wrong
dimension, the mean of the probabilities. So the checker computes these numbers, too, and looks which one it was given.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Wrong, blame, call, exercise

Scores = Callable[[Tensor, Tensor], Any]
B, T, V = 3, 5, 7  # all different, so that a mistaken dimension shows


def scores(logits: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """Mean loss in nats, perplexity and bits per character of `logits (B, T, V)` for `targets (B, T)`."""
    log_sum = logits.logsumexp(dim=-1)  # (B, T), safe for logits of any size
    chosen = logits.gather(-1, targets[..., None])[..., 0]  # (B, T)
    loss = (log_sum - chosen).mean().item()
    return loss, math.exp(loss), loss / math.log(2)


@exercise(
    "day15",
    title="Loss, perplexity and bits per character",
    signature="scores(logits, targets)",
    hints=[
        "The surprise of one target y is logsumexp(z) - z[y], for its row of V logits z. You need one such number for "
        "each of the B · T targets, then their mean.",
        "logits.logsumexp(dim=-1) has shape (B, T), and so has logits.gather(-1, targets[..., None])[..., 0], the "
        "logit of each target. The difference is the surprise in nats; the targets are shifted already.",
        "With loss = (log_sum - chosen).mean().item(): perplexity is math.exp(loss), bits are loss / math.log(2). The "
        "mean comes before the exponential.",
    ],
    solution=scores,
    right="Three names for one number, and large logits do no harm.",
)
def check_scores(learner: Scores) -> None:
    logits, targets = torch.randn(B, T, V) * 2, torch.randint(V, (B, T))
    got, wanted = three(learner, logits, targets), scores(logits, targets)
    if not math.isfinite(got[0]):
        raise Wrong(f"The loss of ordinary logits is {got[0]}: is a log taken of scores that may be negative?")
    if not near(got[0], wanted[0]):
        diagnose_loss(got[0], logits, targets)
    diagnose_others(got, logits, targets)
    check_large(learner)
    for b, t, v in ((1, 1, 2), (2, 9, 65), (4, 4, 4)):
        logits, targets = torch.randn(b, t, v), torch.randint(v, (b, t))
        with blame(f"It is right for (B, T, V) = {(B, T, V)}, but fails for {(b, t, v)}"):
            if not all(map(near, three(learner, logits, targets), scores(logits, targets))):
                raise Wrong(
                    f"It is right for (B, T, V) = {(B, T, V)}, but not for {(b, t, v)}: take "
                    "every size from logits.shape."
                )


def near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=2e-5, abs_tol=1e-6)


def three(learner: Scores, logits: Tensor, targets: Tensor) -> list[float]:
    """The learner's three numbers as floats; Wrong if that is not what came back."""
    value = call(learner, logits=logits, targets=targets)
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(value, Tensor) and value.shape == (3,):
        value = value.tolist()
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, tuple | list) or len(value) != 3:
        got = f"{len(value)} things" if isinstance(value, tuple | list) else f"one thing of type {type(value).__name__}"
        raise Wrong(f"Your function returned {got}: return three numbers, loss, perplexity and bits, in this order.")
    numbers = []
    for name, x in zip(("loss", "perplexity", "bits"), value, strict=True):
        if isinstance(x, Tensor) and x.numel() != 1:
            raise Wrong(f"The {name} has shape {tuple(x.shape)}: it should be one number, the mean over all targets.")
        try:
            numbers.append(float(x))
        except (TypeError, ValueError):
            raise Wrong(f"The {name} is of type {type(x).__name__} and not a number.") from None
    return numbers


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The surprise of every target, `(B, T)`."""
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def along(logits: Tensor, targets: Tensor, dim: int) -> float:
    """The loss that a softmax over `dim` gives."""
    return -float(logits.log_softmax(dim).gather(-1, targets[..., None]).mean())


def diagnose_loss(got: float, logits: Tensor, targets: Tensor) -> None:
    """Raise the Wrong that fits the loss `got`, which is not the right one."""
    each = nats(logits, targets)
    loss, p = float(each.mean()), (-each).exp()
    shifted = float(nats(logits[:, :-1], targets[:, 1:]).mean())
    double = logits.softmax(-1)
    top = logits.max(-1, keepdim=True).values
    mixed = F.cross_entropy(logits.transpose(1, 2).reshape(-1, V), targets.reshape(-1))
    crossed = F.cross_entropy(logits.transpose(0, 1).reshape(-1, V), targets.reshape(-1))
    for value, sentence in (
        (-loss, "The loss is negative: the logarithm of a probability is below 0, and the loss is minus that."),
        (loss * B * T, "The loss is the sum over all targets: divide by B · T, how many there are."),
        (loss * T, "The loss is a sum over the positions: the mean goes over B and over T, not over the batch only."),
        (loss * B, "The loss is a sum over the batch: the mean goes over B and over T, not over the positions only."),
        (loss / V, "The loss is divided by B · T · V: there are only B · T targets, the vocabulary is not counted."),
        (loss / math.log(2), "The loss is in bits: use the natural logarithm for nats; bits are the third number."),
        (loss / math.log(10), "The loss was taken with log10: nats need the natural logarithm."),
        (math.exp(loss), "The first number is the perplexity: the order is loss, perplexity, bits."),
        (-math.log(float(p.mean())), "The probabilities are averaged before the logarithm: the log comes first."),
        (float(p.mean()), "The first number is the mean probability of the targets: the loss is the mean of -log."),
        (float((1 - p).mean()), "The first number is one minus the mean probability: take minus its log instead."),
        (along(logits, targets, 1), "The softmax runs over the positions (dim=1): it belongs to dim=-1."),
        (along(logits, targets, 0), "The softmax runs over the batch (dim=0): it belongs to dim=-1."),
        (float(nats(double, targets).mean()), "There is one softmax too many: probabilities got a second one."),
        (-float(logits.gather(-1, targets[..., None]).mean()), "The softmax is missing: minus a raw logit is no loss."),
        (
            float((logits.exp().sum(-1) - logits.gather(-1, targets[..., None])[..., 0]).mean()),
            "The log of the sum of exponentials is missing: subtract from log Σ exp(z), not from Σ exp(z).",
        ),
        (
            float((logits.sub(top).logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0]).mean()),
            "The maximum is taken off in one place only: take it off the target's own logit, too.",
        ),
        (shifted, "The targets are shifted once more: here targets[b, t] already belongs to logits[b, t]."),
        (float(nats(logits[:, 1:], targets[:, :-1]).mean()), "Logits and targets are shifted against each other."),
        (float(each[:, -1].mean()), "Only the last position is scored: all T positions count."),
        (float(each[:, :-1].mean()), "The last position is left out: all T positions have a target here."),
        (float(each[0].mean()), "Only the first sequence is scored: all B sequences count."),
        (float(each.median()), "This is the median surprise: the loss is the mean, so that rare disasters count."),
        (float(each.max()), "This is the largest surprise of all targets: the loss is the mean."),
        (float(torch.special.entr(double).sum(-1).mean()), "This is the entropy of the bets, without the targets."),
        (float(mixed), "Scores of different positions are mixed: a reshape does not move V to the end."),
        (float(crossed), "Logits and targets are flattened in different orders (B and T)."),
        (float((logits.argmax(-1) == targets).float().mean()), "This is the accuracy: a loss asks for probabilities."),
    ):  # fmt: skip
        if near(got, value):
            raise Wrong(sentence)
    if 0 < loss - got < 0.05:
        raise Wrong("The loss is a little too small: is a small number added inside the logarithm?")
    raise Wrong(f"The loss is {got:.4f} and should be {loss:.4f}: use the mean of logsumexp minus logit.")


def diagnose_others(got: list[float], logits: Tensor, targets: Tensor) -> None:
    """Perplexity and bits, when the loss is right."""
    each = nats(logits, targets)
    loss = float(each.mean())
    perplexity, bits = math.exp(loss), loss / math.log(2)
    if near(got[1], bits) and near(got[2], perplexity):
        raise Wrong("Perplexity and bits have changed places: the order is loss, perplexity, bits.")
    for value, sentence in (
        (2**loss, "The perplexity is 2 to the power of the nats: with nats the base is e (2 goes with bits)."),
        (math.exp(bits), "The perplexity is e to the power of the bits: e goes with nats."),
        (math.exp(-loss), "The perplexity is below 1: it is e to the loss, without the minus."),
        (float(each.exp().mean()), "The perplexity is a mean of exponentials: the mean comes first."),
        (float(each.mean(1).exp().mean()), "The perplexity is averaged over sequences: one mean of all, then exp."),
        (float(each.mean(0).exp().mean()), "The perplexity is averaged over positions: one mean of all, then exp."),
        (math.exp(min(loss * B * T, 700.0)), "The perplexity comes from the summed loss: exponentiate the mean."),
        (float(V), "The perplexity is V: it should be e to the loss, not the number of choices there are."),
        (loss, "The perplexity equals the loss: the exponential is missing."),
    ):  # fmt: skip
        if not near(got[1], perplexity) and near(got[1], value):
            raise Wrong(sentence)
    if not near(got[1], perplexity):
        raise Wrong(f"The loss is right, but the perplexity is {got[1]:.4g}: it should be e to the loss.")
    for value, sentence in (
        (loss * math.log(2), "The bits are fewer than the nats: divide by ln 2, do not multiply."),
        (loss, "The bits equal the nats: divide the loss by ln 2."),
        (math.log2(loss) if loss > 0 else 0.0, "The bits are the log2 of the loss: the loss is a logarithm already."),
        (loss / math.log(10), "The nats were divided by ln 10: for bits it is ln 2."),
        (bits * B * T, "The bits are a total: bits per character are the mean loss divided by ln 2."),
        (bits / math.log2(V), "The bits are divided by log2 V: a character costs loss / ln 2 bits."),
    ):
        if not near(got[2], bits) and near(got[2], value):
            raise Wrong(sentence)
    if not near(got[2], bits):
        raise Wrong(f"The loss is right, but the bits are {got[2]:.4g}: they should be loss / ln 2, {bits:.4g}.")


def check_large(learner: Scores) -> None:
    """Logits in the thousands, and targets that the model holds for impossible."""
    logits, targets = torch.randn(B, T, V), torch.randint(V, (B, T))
    got = three(learner, logits + 5000, targets)
    if not all(map(math.isfinite, got)):
        raise Wrong("Logits of 5,000 give inf or nan, as exp overflows: take off the row's maximum, or use logsumexp.")
    wanted = scores(logits + 5000, targets)
    if not math.isclose(got[0], wanted[0], rel_tol=1e-2):
        raise Wrong("The same number added to all logits changes the loss: softmax only sees differences.")
    logits = torch.zeros(B, T, V)
    logits[..., 0] = 200.0
    targets = torch.zeros(B, T, dtype=torch.long)
    targets[0, 0] = 1  # held for impossible: this one costs 200 nats
    with blame("A target that the model holds for nearly impossible is too much for it"):
        got = three(learner, logits, targets)
    if not math.isfinite(got[0]):
        raise Wrong("A target of probability e^-200 costs inf: log(softmax(z)) underflows; use log_softmax.")
    if not math.isclose(got[0], 200 / (B * T), rel_tol=1e-3):
        raise Wrong(
            "A target of probability e^-200 should cost 200 nats, and costs less: a small number in the logarithm or a "
            "clamp hides it."
        )
