"""Checker of Tour 3: the mean cross-entropy of some bets, stable, with targets that do not count."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Wrong, call, exercise, tensor

N, V, IGNORE = 7, 5, -1
Loss = Callable[[Tensor, Tensor, int], Any]


def cross_entropy(logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    """Mean of -log p of the targets, those equal to `ignore` left out; logits (N, V), targets (N,)."""
    counts = targets != ignore
    logits, targets = logits[counts], targets[counts]  # only the rows that count
    top = logits.max(dim=-1, keepdim=True).values
    log_sum = top[:, 0] + (logits - top).exp().sum(-1).log()  # log of the sum of e^z, without overflow
    return (log_sum - logits[torch.arange(len(targets)), targets]).mean()


@exercise(
    "tour03",
    title="The loss",
    signature="cross_entropy(logits, targets, ignore)",
    hints=[
        "First keep the rows that count: counts = targets != ignore, then logits[counts] and targets[counts].",
        "-log softmax(z)[y] is log(sum of e^z) - z[y]. Subtract each row's maximum before exp, and add it again after "
        "the log: then nothing overflows and no log(0) can occur.",
        "logits[torch.arange(len(targets)), targets] picks one logit from each row. The mean is over the rows kept.",
    ],
    solution=cross_entropy,
    right="It is the mean over what counts, huge logits do it no harm, and the one ignored number can be any.",
)
def check_cross_entropy(learner: Loss) -> None:
    logits, targets = torch.randn(N, V), torch.tensor([0, 3, 1, 4, 4, 2, 3])
    got = value(learner, logits, targets, IGNORE)
    if not close(got, F.cross_entropy(logits, targets)):
        diagnose(got, logits, targets)
    some = targets.clone()
    some[[1, 4, 5]] = IGNORE
    try:
        got = value(learner, logits, some, IGNORE)
    except Wrong:
        raise
    except Exception as e:
        raise Wrong(
            f"It is right while all targets count, but fails with ignored ones ({type(e).__name__}): take their rows "
            "out first."
        ) from e
    diagnose_ignored(got, logits, some)
    for ignore in (-100, 2):
        other = torch.where(some == IGNORE, ignore, some)
        wanted = F.cross_entropy(logits, other, ignore_index=ignore)
        fixed = Wrong(
            f"With ignore = {IGNORE} it is right, with ignore = {ignore} it is not: compare the targets with the "
            "argument, not with a fixed number or with 0."
        )
        try:
            got = value(learner, logits, other, ignore)
        except (IndexError, RuntimeError) as e:
            raise Wrong(
                f"With ignore = {IGNORE} it is right, with ignore = {ignore} it fails: an ignored target still serves "
                "as an index. Take its row out first, whatever number `ignore` is."
            ) from e
        if not close(got, wanted):
            raise fixed
    for scale in (300.0, -300.0):
        large = scale * logits
        got = value(learner, large, targets, IGNORE)
        if not got.isfinite():
            raise Wrong(
                "It is right for small logits, but with logits in the hundreds it gives inf or NaN: exp overflows, or "
                "a probability of 0 gets into the log. Subtract each row's maximum, and stay in logs."
            )
        if not torch.allclose(got, F.cross_entropy(large, targets), rtol=1e-3):
            raise Wrong(
                "It is right for small logits, but a very bad bet costs too little: a small number that is added "
                "to the probability, or a clamp, caps the loss. Stay in logs, and nothing needs a cap."
            )


def value(learner: Loss, logits: Tensor, targets: Tensor, ignore: int) -> Tensor:
    """What the learner's function returns, as one number."""
    out = call(learner, logits=logits, targets=targets, ignore=ignore)
    if isinstance(out, float | int) and not isinstance(out, bool):
        return torch.tensor(float(out))
    if isinstance(out, Tensor) and out.ndim == 1 and len(out) in (N, int((targets != ignore).sum())):
        raise Wrong(f"You return {len(out)} numbers, a loss for each target: the exercise asks for their mean.")
    return tensor(out, (), meaning="one number, the mean")


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.isclose(a.double(), b.double(), rtol=1e-4, atol=1e-5))


def diagnose(got: Tensor, logits: Tensor, targets: Tensor) -> None:
    """Raise the Wrong that fits a loss that is wrong even where all targets count."""
    log_p = logits.log_softmax(-1)
    chosen = log_p[torch.arange(N), targets]
    loss = -chosen.mean()
    columns = logits.log_softmax(0)[torch.arange(N), targets]
    raw = logits[torch.arange(N), targets]
    named = [
        (-loss, "The sign is missing: log p is negative or 0, and the loss is minus its mean."),
        (N * loss, "You return the sum over all targets: the loss is their mean."),
        (loss / V, f"You divide by N · V = {N * V} instead of by the {N} targets: every target is one bet."),
        (loss / math.log(2), "Your logarithm is to base 2, which gives bits: the loss here is in nats, torch.log."),
        (loss / math.log(10), "Your logarithm is to base 10: the loss here is in nats, torch.log."),
        (loss.exp(), "This is the perplexity, e to the loss: return the loss itself."),
        (-columns.mean(), "The softmax runs down the columns, over the targets: it belongs on dim=-1, the V tokens."),
        (-chosen.exp().mean().log(), "You average the probabilities, then take the log: first the log, then the mean."),
        (1 - chosen.exp().mean(), "This is 1 minus the mean probability: the loss takes the logarithm of each one."),
        (-raw.mean(), "The logits are used as if they were log-probabilities: the softmax is missing."),
        (
            loss - logits.amax(-1).mean(),
            "The maximum is subtracted before exp and not added again after the log: the chosen logit still has it.",
        ),
        (-log_p.mean(), "You average over all V tokens: only the one that came, the target, is paid for."),
    ]
    for wrong, sentence in named:
        if close(got, wrong):
            raise Wrong(sentence)
    if not got.isfinite():
        raise Wrong("The result is not a finite number although the logits are small: what goes into the log?")
    raise Wrong("The number is not the mean of -log p of the targets: compare it with F.cross_entropy on one row.")


def diagnose_ignored(got: Tensor, logits: Tensor, targets: Tensor) -> None:
    """Raise the Wrong that fits a loss that goes wrong when some targets are to be ignored."""
    counts = targets != IGNORE
    right = F.cross_entropy(logits[counts], targets[counts])
    if close(got, right):
        return
    every = -logits.log_softmax(-1)[torch.arange(N), targets]  # -1 picks the last token
    zeroed = torch.where(counts, targets, 0)
    if close(got, right * counts.sum() / N):
        raise Wrong(
            f"The ignored targets cost nothing, but you still divide by all {N}: divide by the number of those that "
            "count."
        )
    if close(got, every.mean()):
        raise Wrong(
            "The ignored targets are still paid for: as an index, -1 picks the last token, and nothing complains."
        )
    if close(got, F.cross_entropy(logits, zeroed)):
        raise Wrong("The ignored targets are paid for as if token 0 had come: leave their rows out.")
    if close(got, F.cross_entropy(logits * counts[:, None], zeroed)):
        raise Wrong("Setting the logits of an ignored row to 0 makes it an even bet, which costs ln V: leave it out.")
    raise Wrong("It is right while all targets count, but not when some are ignored: leave out their rows.")
