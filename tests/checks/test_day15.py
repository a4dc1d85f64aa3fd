"""Day 15: the right answer passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def from_loss(loss: Any) -> tuple[Any, Any, Any]:
    loss = float(loss)
    return loss, math.exp(min(loss, 700)), loss / math.log(2)


def by_pytorch(logits: Tensor, targets: Tensor) -> tuple[float, float, float]:
    return from_loss(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


def by_log_softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loss = -logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).mean()
    return loss, loss.exp(), loss / math.log(2)


def by_loops(logits: Tensor, targets: Tensor) -> list[float]:
    B, T, _V = logits.shape
    total = 0.0
    for b in range(B):
        for t in range(T):
            z = logits[b, t].double()
            z = z - z.max()
            total += (z.exp().sum().log() - z[targets[b, t]]).item()
    loss = total / (B * T)
    return [loss, 2 ** (loss / math.log(2)), math.log2(math.exp(loss))]


def by_one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    onehot = F.one_hot(targets, logits.shape[-1]).double()
    z = logits.double()
    loss = (z.logsumexp(-1) - (onehot * z).sum(-1)).mean()
    return torch.stack([loss, loss.exp(), loss / math.log(2)])


def by_indexing(logits: Tensor, targets: Tensor) -> dict[str, float]:
    flat = (logits - logits.amax(-1, keepdim=True)).reshape(-1, logits.shape[-1])
    chosen = flat[torch.arange(len(flat)), targets.reshape(-1)]
    loss = float((flat.exp().sum(-1).log() - chosen).sum()) / targets.numel()
    return {"loss": loss, "perplexity": math.e**loss, "bits": loss / math.log(2)}


class Scores:
    def __call__(self, logits: Tensor, targets: Tensor, digits: int = 9) -> tuple[float, ...]:
        return tuple(round(x, digits) for x in by_pytorch(logits, targets))


RIGHT = [
    by_pytorch, by_log_softmax, by_loops, by_one_hot, by_indexing, Scores(),
    functools.partial(Scores(), digits=8), lambda z, y: by_pytorch(z.clone(), y),
]  # fmt: skip


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_scores_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("day15", learner), said()
    assert said().startswith("day15: right. ")


def loss_is(make: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    return lambda logits, targets: from_loss(make(logits, targets))


def along(dim: int) -> Callable[[Tensor, Tensor], Any]:
    return loss_is(lambda z, y: -z.log_softmax(dim).gather(-1, y[..., None]).mean())


def perplexity_is(make: Callable[[Tensor, float], float]) -> Callable[[Tensor, Tensor], Any]:
    def learner(logits: Tensor, targets: Tensor) -> tuple[float, float, float]:
        loss, _, bits = by_pytorch(logits, targets)
        return loss, float(make(nats(logits, targets), loss)), bits

    return learner


def bits_are(make: Callable[[Tensor, float], float]) -> Callable[[Tensor, Tensor], Any]:
    def learner(logits: Tensor, targets: Tensor) -> tuple[float, float, float]:
        loss, perplexity, _ = by_pytorch(logits, targets)
        return loss, perplexity, float(make(logits, loss))

    return learner


def probability(z: Tensor, y: Tensor) -> Tensor:
    return z.softmax(-1).gather(-1, y[..., None])[..., 0]


def overflowing(z: Tensor, y: Tensor) -> Tensor:
    return -(z.exp() / z.exp().sum(-1, keepdim=True)).gather(-1, y[..., None]).log().mean()


def shape_fixed(z: Tensor, y: Tensor) -> Tensor:
    return (z.logsumexp(-1) - z.gather(-1, y[..., None])[..., 0]).sum() / 15


def vocabulary_fixed(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.view(-1, 7), y.view(-1))


def in_place(z: Tensor, y: Tensor) -> Tensor:
    z -= z.amax(-1, keepdim=True)
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "sign": (lambda z, y: from_loss(-nats(z, y).mean()), "The loss is negative"),
    "sum": (loss_is(lambda z, y: nats(z, y).sum()), "the sum over all targets"),
    "mean over the batch only": (loss_is(lambda z, y: nats(z, y).sum(1).mean()), "a sum over the positions"),
    "mean over positions only": (loss_is(lambda z, y: nats(z, y).sum(0).mean()), "a sum over the batch"),
    "divided by all logits": (loss_is(lambda z, y: nats(z, y).sum() / z.numel()), "divided by B · T · V"),
    "log2": (loss_is(lambda z, y: nats(z, y).mean() / math.log(2)), "The loss is in bits"),
    "log10": (loss_is(lambda z, y: nats(z, y).mean() / math.log(10)), "log10"),
    "perplexity first": (lambda z, y: by_pytorch(z, y)[1::-1] + by_pytorch(z, y)[2:], "first number is the perplexity"),
    "mean of probabilities": (loss_is(lambda z, y: -probability(z, y).mean().log()), "averaged before the logarithm"),
    "no logarithm": (loss_is(lambda z, y: probability(z, y).mean()), "first number is the mean probability"),
    "one minus p": (loss_is(lambda z, y: 1 - probability(z, y).mean()), "one minus the mean probability"),
    "softmax over positions": (along(1), "runs over the positions"),
    "softmax over the batch": (along(0), "runs over the batch"),
    "softmax twice": (loss_is(lambda z, y: nats(z.softmax(-1), y).mean()), "one softmax too many"),
    "half shifted": (
        loss_is(lambda z, y: ((z - z.amax(-1, True)).logsumexp(-1) - z.gather(-1, y[..., None])[..., 0]).mean()),
        "The maximum is taken off in one place only",
    ),
    "no softmax": (loss_is(lambda z, y: -z.gather(-1, y[..., None]).mean()), "The softmax is missing"),
    "no log of the sum": (
        loss_is(lambda z, y: (z.exp().sum(-1) - z.gather(-1, y[..., None])[..., 0]).mean()),
        "log of the sum of exponentials is missing",
    ),
    "shifted again": (loss_is(lambda z, y: nats(z[:, :-1], y[:, 1:]).mean()), "shifted once more"),
    "shifted back": (loss_is(lambda z, y: nats(z[:, 1:], y[:, :-1]).mean()), "shifted against each other"),
    "last position": (loss_is(lambda z, y: nats(z[:, -1:], y[:, -1:]).mean()), "Only the last position"),
    "without the last": (loss_is(lambda z, y: nats(z[:, :-1], y[:, :-1]).mean()), "last position is left out"),
    "first sequence": (loss_is(lambda z, y: nats(z[:1], y[:1]).mean()), "Only the first sequence"),
    "median": (loss_is(lambda z, y: nats(z, y).median()), "the median surprise"),
    "largest": (loss_is(lambda z, y: nats(z, y).max()), "the largest surprise"),
    "entropy": (loss_is(lambda z, y: torch.special.entr(z.softmax(-1)).sum(-1).mean()), "the entropy of the bets"),
    "reshape mixes": (
        loss_is(lambda z, y: F.cross_entropy(z.transpose(1, 2).reshape(-1, z.shape[-1]), y.reshape(-1))),
        "a reshape does not move V",
    ),
    "transposed": (
        loss_is(lambda z, y: F.cross_entropy(z.transpose(0, 1).reshape(-1, z.shape[-1]), y.reshape(-1))),
        "flattened in different orders",
    ),
    "accuracy": (loss_is(lambda z, y: (z.argmax(-1) == y).float().mean()), "This is the accuracy"),
    "epsilon": (loss_is(lambda z, y: -(probability(z, y) + 1e-4).log().mean()), "a little too small"),
    "tiny epsilon": (loss_is(lambda z, y: -(probability(z, y) + 1e-12).log().mean()), "costs less"),
    "something else": (loss_is(lambda z, y: nats(z, y).mean() * 1.1), "use the mean of logsumexp"),
    "one number": (lambda z, y: float(nats(z, y).mean()), "one thing of type float"),
    "two numbers": (lambda z, y: by_pytorch(z, y)[:2], "returned 2 things"),
    "nothing": (lambda z, y: None, "returned None"),
    "not averaged": (lambda z, y: (nats(z, y), 1.0, 1.0), "The loss has shape (3, 5)"),
    "words": (lambda z, y: tuple(f"{x} nats" for x in by_pytorch(z, y)), "not a number"),
    "changed places": (lambda z, y: tuple(by_pytorch(z, y)[i] for i in (0, 2, 1)), "changed places: the order"),
    "2 to the nats": (perplexity_is(lambda each, loss: 2**loss), "2 to the power of the nats"),
    "e to the bits": (perplexity_is(lambda each, loss: math.exp(loss / math.log(2))), "e to the power of the bits"),
    "inverse": (perplexity_is(lambda each, loss: math.exp(-loss)), "The perplexity is below 1"),
    "mean of exponentials": (perplexity_is(lambda each, loss: each.exp().mean()), "a mean of exponentials"),
    "by sequence": (perplexity_is(lambda each, loss: each.mean(1).exp().mean()), "averaged over sequences"),
    "by position": (perplexity_is(lambda each, loss: each.mean(0).exp().mean()), "averaged over positions"),
    "of the sum": (perplexity_is(lambda each, loss: math.exp(min(each.sum(), 700.0))), "comes from the summed loss"),
    "V": (perplexity_is(lambda each, loss: 7.0), "The perplexity is V"),
    "no exponential": (perplexity_is(lambda each, loss: loss), "The perplexity equals the loss"),
    "other perplexity": (perplexity_is(lambda each, loss: math.exp(loss) + 1), "right, but the perplexity is"),
    "times ln 2": (bits_are(lambda z, loss: loss * math.log(2)), "divide by ln 2, do not multiply"),
    "nats as bits": (bits_are(lambda z, loss: loss), "The bits equal the nats"),
    "log2 of the loss": (bits_are(lambda z, loss: math.log2(loss)), "the log2 of the loss"),
    "ln 10": (bits_are(lambda z, loss: loss / math.log(10)), "divided by ln 10"),
    "total bits": (bits_are(lambda z, loss: loss / math.log(2) * 15), "The bits are a total"),
    "share of V": (bits_are(lambda z, loss: loss / math.log(z.shape[-1])), "divided by log2 V"),
    "other bits": (bits_are(lambda z, loss: loss / math.log(2) + 1), "right, but the bits are"),
    "exp overflows": (loss_is(overflowing), "as exp overflows"),
    "log underflows": (loss_is(lambda z, y: -probability(z, y).log().mean()), "log(softmax(z)) underflows"),
    "log of negative scores": (loss_is(lambda z, y: -z.log().mean()), "a log taken of scores"),
    "fixed number of targets": (loss_is(shape_fixed), "take every size from logits.shape"),
    "fixed vocabulary": (loss_is(vocabulary_fixed), "but fails for"),
    "in place": (loss_is(in_place), "changes its input logits"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day15", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day15", WRONG, least=30)
