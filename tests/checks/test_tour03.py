"""Tour 3: the right loss passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def by_torch(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return F.cross_entropy(logits, targets, ignore_index=ignore)


def by_log_softmax(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    return -logits[keep].log_softmax(-1).gather(1, targets[keep, None]).mean()


def by_loop(logits: Tensor, targets: Tensor, ignore: int) -> float:
    paid = []
    for z, y in zip(logits.tolist(), targets.tolist(), strict=True):
        if y != ignore:
            top = max(z)
            paid.append(top + math.log(sum(math.exp(x - top) for x in z)) - z[y])
    return sum(paid) / len(paid)


def by_mask(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    nll = torch.logsumexp(logits, -1) - logits.gather(1, targets.masked_fill(~keep, 0)[:, None])[:, 0]
    return (nll * keep).sum() / keep.sum()


@pytest.mark.parametrize("learner", [by_torch, by_log_softmax, by_loop, by_mask])
def test_loss_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour03", learner), said()
    assert said().startswith("tour03: right. ")


def picked(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    """-log p of the targets that count."""
    keep = targets != ignore
    return -logits[keep].log_softmax(-1).gather(1, targets[keep, None])[:, 0]


def rows(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


def columns(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    return -logits[keep].log_softmax(0).gather(1, targets[keep, None]).mean()


def raw(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    return -logits[keep].gather(1, targets[keep, None]).mean()


def everything(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return -logits[targets != ignore].log_softmax(-1).mean()


def by_all(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return picked(logits, targets, ignore).sum() / len(targets)


def never_ignored(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return -rows(logits, targets).mean()


def as_zero(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return F.cross_entropy(logits, torch.where(targets == ignore, 0, targets))


def zero_logits(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    return F.cross_entropy(logits * keep[:, None], torch.where(keep, targets, 0))


def fixed(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return F.cross_entropy(logits, targets, ignore_index=-1)


def negative(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets >= 0
    return F.cross_entropy(logits[keep], targets[keep])


def overflows(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    e = logits[keep].exp()
    return -(e / e.sum(-1, keepdim=True)).gather(1, targets[keep, None]).log().mean()


def capped(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    return -(logits[keep].softmax(-1).gather(1, targets[keep, None]) + 1e-9).log().mean()


def in_place(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    logits -= logits.amax(-1, keepdim=True)
    return by_torch(logits, targets, ignore)


def fails(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return -logits.log_softmax(-1).gather(1, targets[:, None]).mean()


def not_added_again(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    keep = targets != ignore
    z = logits[keep]
    log_sum = (z - z.amax(-1, keepdim=True)).exp().sum(-1).log()
    return (log_sum - z.gather(1, targets[keep, None])[:, 0]).mean()


def picks_first(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    return -rows(logits, targets)[targets != ignore].mean()


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "no sign": (lambda logits, targets, ignore: -by_torch(logits, targets, ignore), "The sign is missing"),
    "sum": (lambda logits, targets, ignore: picked(logits, targets, ignore).sum(), "the sum over all targets"),
    "by N V": (
        lambda logits, targets, ignore: picked(logits, targets, ignore).mean() / logits.shape[1],
        "You divide by N · V",
    ),
    "bits": (lambda logits, targets, ignore: by_torch(logits, targets, ignore) / math.log(2), "to base 2"),
    "base 10": (lambda logits, targets, ignore: by_torch(logits, targets, ignore) / math.log(10), "to base 10"),
    "perplexity": (lambda logits, targets, ignore: by_torch(logits, targets, ignore).exp(), "This is the perplexity"),
    "columns": (columns, "runs down the columns"),
    "mean first": (
        lambda logits, targets, ignore: -(-picked(logits, targets, ignore)).exp().mean().log(),
        "You average the probabilities",
    ),
    "no log": (
        lambda logits, targets, ignore: 1 - (-picked(logits, targets, ignore)).exp().mean(),
        "1 minus the mean probability",
    ),
    "no softmax": (raw, "the softmax is missing"),
    "all tokens": (everything, "You average over all V tokens"),
    "each": (picked, "a loss for each target"),
    "divided by all": (by_all, "you still divide by all"),
    "never ignored": (never_ignored, "are still paid for"),
    "as token 0": (as_zero, "as if token 0 had come"),
    "logits 0": (zero_logits, "makes it an even bet"),
    "fixed number": (negative, "compare the targets with the argument"),
    "overflow": (overflows, "exp overflows"),
    "capped": (capped, "costs too little"),
    "maximum": (not_added_again, "not added again after the log"),
    "picks first": (picks_first, "still serves as an index"),
    "in place": (in_place, "changes its input"),
    "fails": (fails, "but fails with ignored ones"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour03", WRONG, mistake)


def test_another_fixed_number(said: Say) -> None:
    assert not check("tour03", fixed)
    assert "whatever number `ignore` is" in said()


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour03", WRONG, least=18)
