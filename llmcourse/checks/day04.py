"""Checkers of day 4: cross-entropy from logits, and clipping by the global norm.

A loss is one number, and many mistakes give a number that looks reasonable. Its gradient tells more: for the mean
cross-entropy it is (softmax - one-hot) / N at every position, so it shows which positions counted, and how much.
Before that, the number itself is compared with what the usual mistakes would have given.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Wrong, blame, call, exercise, tensor

Loss = Callable[[Tensor, Tensor], Any]
Clip = Callable[[Iterable[nn.Parameter], float], Any]
B, T, V = 2, 3, 5  # all different, so that a mistaken dimension shows


# ---- day04: cross-entropy ------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits `(B, T, V)` for the token ids `targets` `(B, T)`; a scalar tensor."""
    top = logits.amax(dim=-1, keepdim=True)  # (B, T, 1), each position's own maximum
    log_sum = (logits - top).exp().sum(dim=-1).log() + top.squeeze(-1)  # (B, T), no exp above 1
    right = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # (B, T), the score of the right token
    return (log_sum - right).mean()


@exercise(
    "day04",
    title="Cross-entropy from logits",
    signature="cross_entropy(logits, targets)",
    hints=[
        "For one position: loss = log(sum of exp of all logits) - logit of the right token. Then the mean over all "
        "B · T positions.",
        "Stable: subtract each position's own maximum, logits.amax(dim=-1, keepdim=True), before exp, and add it back "
        "after the log.",
        "The right token's logit: logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) has the shape (B, T). Return "
        "the mean as a tensor, without .item(), so that backward() can run.",
    ],
    solution=cross_entropy,
    right="Every position counts once, scores in the hundreds do no harm, and the gradient is softmax minus one-hot.",
)
def check_cross_entropy(learner: Loss) -> None:
    logits, targets = 2 * torch.randn(B, T, V), torch.tensor([[4, 0, 2], [1, 3, 3]])
    value, grad = scored(learner, logits, targets)
    if not close(value, cross_entropy(logits, targets)):
        diagnose_loss(logits, targets, value, grad)
    wanted = (logits.softmax(-1) - F.one_hot(targets, V)) / targets.numel()
    if grad is None or not torch.allclose(grad, wanted, atol=1e-5):
        raise Wrong(
            "The number is right, but backward() does not give its gradient: something on the way was cut off with "
            ".item(), .detach(), .data or no_grad, so that a model could not learn from this loss."
        )
    for b, t, v in ((1, 1, 7), (4, 2, 3), (3, 8, 65)):
        logits, targets = torch.randn(b, t, v), torch.randint(v, (b, t))
        with blame(f"It is right for (B, T, V) = {(B, T, V)}, but fails for {(b, t, v)}"):
            if not close(scored(learner, logits, targets)[0], cross_entropy(logits, targets)):
                raise Wrong(
                    f"It is right for (B, T, V) = {(B, T, V)}, but not for {(b, t, v)}: take the sizes from "
                    "logits.shape."
                )
    check_large_logits(learner)


def scored(learner: Loss, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """The learner's loss, if it is one number, and its gradient at the logits (None if there is none)."""
    leaf = logits.clone().requires_grad_()
    tracked = leaf * 1.0  # what a model hands over: not a leaf, so that writing into it is possible, and seen
    before = tracked.detach().clone()
    value = learner(tracked, targets.clone())
    if not torch.equal(tracked.detach(), before):
        raise Wrong(
            "Your function changes its input logits: an operation whose name ends in _, a -= or an assignment like "
            "logits[…] = … writes into it; make a new tensor instead."
        )
    if isinstance(value, float):
        raise Wrong(
            "It returns a Python number: without the tensor, backward() has nothing to go back through; leave .item() "
            "away."
        )
    if isinstance(value, Tensor):
        judge_shape(value, targets, logits.shape[-1])
    found = tensor(value, (), meaning="")
    if not isinstance(value, Tensor) or not value.requires_grad:
        return found, None
    (grad,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return found, grad


def judge_shape(value: Tensor, targets: Tensor, v: int) -> None:
    """Raise Wrong for a result that is not one number."""
    b, t = targets.shape
    shape = tuple(value.shape)
    if shape == () or 1 in (b, t):
        return
    if shape in ((b, t), (b * t,), (b, t, 1), (b * t, 1)):
        raise Wrong(f"It returns a loss for every position, shape {shape}: training needs their mean, one number.")
    if v in shape:
        raise Wrong(
            f"The result has shape {shape}, with all {v} tokens still in it: pick out the one that came, with gather."
        )


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def check_large_logits(learner: Loss) -> None:
    """Where exp overflows, where it underflows, and where a guard inside the log shows."""
    logits = torch.tensor([[[600.0, 0.0, -300.0], [598.0, 600.0, 599.0]]])  # (1, 2, 3)
    for targets, expected in ((torch.tensor([[0, 1]]), 0.2038), (torch.tensor([[2, 1]]), 450.2038)):
        value, _ = scored(learner, logits, targets)
        if close(value, torch.tensor(expected)):
            continue
        if value.isfinite() and value < expected:
            raise Wrong(
                f"Where the right token has almost no chance, the loss should be {expected:.0f} and is {value:.1f}: a "
                "small number or a clamp inside the log puts a lid on it; use log-sum-exp instead."
            )
        raise Wrong(
            f"It is right for small scores, but scores in the hundreds give {float(value)}: exp overflows to inf or "
            "falls to 0; subtract each position's maximum first and stay with logarithms."
        )
    logits = torch.stack([torch.tensor([900.0, 899.0, 898.0]), torch.tensor([-900.0, -899.0, -898.0])])[None]
    value, _ = scored(learner, logits, torch.tensor([[0, 0]]))
    if not close(value, cross_entropy(logits, torch.tensor([[0, 0]]))):
        raise Wrong(
            "It is right while all positions have scores of one size; where one lies far above another it gives "
            f"{float(value)}: each position needs its own maximum, amax(dim=-1, keepdim=True), not that of the tensor."
        )


def diagnose_loss(logits: Tensor, targets: Tensor, value: Tensor, grad: Tensor | None) -> None:
    """Raise the Wrong that fits a loss `value` that is not the right one."""
    if not value.isfinite():
        raise Wrong(f"The loss is {float(value)} even for small scores: a logarithm of something negative or 0?")
    log_p = logits.log_softmax(-1)
    losses = -log_p.gather(-1, targets[..., None])[..., 0]  # (B, T), the right ones
    right = losses.mean()
    picked = logits.gather(-1, targets[..., None])[..., 0]
    n = targets.numel()
    known: list[tuple[Tensor, str]] = [
        (-right, "The sign is wrong: log p is negative, and the loss is minus log p."),
        (losses.sum(), "It is the sum over the positions: divide by their number, so that any two batches compare."),
        (losses.sum() / B, f"It is the sum over the T = {T} positions of a text: the mean goes over T too."),
        (losses.sum() / T, f"It is the sum over the B = {B} texts: the mean goes over B too, not only T."),
        (losses.sum() / (n * V), "It is divided by B · T · V: only B · T tokens were predicted, so divide by that."),
        (right / math.log(2), "It is measured in bits: take the natural logarithm, not log2."),
        (right / math.log(10), "It is measured with log10: take the natural logarithm."),
        (right.exp(), "It is the perplexity, exp of the loss: leave the exponential away."),
        (-losses.neg().exp().mean().log(), "It is minus the log of the mean chance: first the log, then the mean."),
        (losses.neg().exp().mean(), "It is the mean chance of the right token: its logarithm is missing."),
        (1 - losses.neg().exp().mean(), "It is 1 minus the right token's chance: the loss is minus its logarithm."),
        (-losses.neg().exp().mean(), "It is minus the chance of the right token: the logarithm is missing."),
        (-picked.mean(), "It is minus the right token's raw score: the normalization (log of sum of exp) lacks."),
        (logits.logsumexp(-1).mean(), "It is the log of the sum of exp alone: the right token's score must come off."),
        ((losses - logits.amax(-1)).mean(), "The maximum is taken off before exp, but never added back after the log."),
        ((losses + logits.amax(-1)).mean(), "The maximum is added back twice, or added where it was never subtracted."),
        (F.cross_entropy(logits.softmax(-1).flatten(0, 1), targets.flatten()),
         "The softmax is applied twice: the second one takes probabilities for scores."),
        (F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten()),
         "The targets are moved by one again: position t already belongs to targets[:, t]."),
        (losses[:, -1].mean(), "Only the last position counts: the loss is the mean over all of them."),
        (losses[:, 0].mean(), "Only the first position of each text counts: the loss is the mean over all of them."),
        (losses[0].mean(), "Only the first text of the batch counts: the loss is the mean over all of them."),
        (-log_p.mean(), "It is the mean over all V tokens: only the one that came counts; pick it out with targets."),
    ]  # fmt: skip
    for dim, what in ((0, "texts of the batch"), (1, "positions of a text")):
        other = -logits.log_softmax(dim).gather(-1, targets[..., None])[..., 0].mean()
        known.append((other, f"The softmax runs over the {what}: it has to run over the vocabulary, dim=-1."))
    every = -logits.flatten().log_softmax(0).view(B, T, V).gather(-1, targets[..., None]).mean()
    top = logits.amax(-1)
    pooled = ((logits - top[..., None]).exp().sum().log() + top - picked).mean()  # the same, with the maxima taken out
    for other in (every, pooled):
        known.append((other, "One softmax runs over the whole tensor: each position has its own, over dim=-1."))
    for mixed in (logits.permute(2, 0, 1), logits.permute(2, 1, 0), logits.transpose(1, 2), logits.transpose(0, 1)):
        other = F.cross_entropy(mixed.reshape(-1, V), targets.flatten())
        known.append((other, "The positions are mixed up: a reshape after a transpose pairs them wrongly."))
    for number, sentence in known:
        if close(value, number):
            raise Wrong(sentence)
    if grad is not None and grad.shape == (B, T, V):
        used = grad.abs().amax(-1) > 1e-7  # (B, T): which positions took part
        if not used.all():
            t = [int(i) for i in (~used).nonzero()[0]]
            raise Wrong(f"Position {t[1]} of text {t[0]} does not count: the mean goes over all B · T positions.")
        if (grad.sum(-1).abs() > 1e-4).any():
            raise Wrong(
                "Adding one number to all scores of a position changes your loss: the score of the right token and the "
                "log of the sum of exp must come from the same row."
            )
    raise Wrong(
        f"The loss is {float(value):.4f} where {float(right):.4f} is right, and no usual mistake explains it: check "
        "one position by hand, log(sum(exp(row))) - row[target]."
    )


# ---- day04b: clipping by the global norm -----------------------------------------------------------------------


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients by one factor so that their joint length is at most `max_norm`; the length before."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # never up; 1e-6: a gradient of zero stays zero
    for g in grads:
        g.mul_(factor)
    return norm


@exercise(
    "day04b",
    title="Gradient clipping by global norm",
    signature="clip_gradients(parameters, max_norm)",
    hints=[
        "parameters may be a generator, which can be gone through only once: begin with a list of the gradients, "
        "leaving out parameters whose .grad is None.",
        "One norm for all of them: the square root of the sum of the squares of every number in every gradient.",
        "Only if the norm is above max_norm: multiply every gradient in place by max_norm / norm, g.mul_(factor). "
        "Return the norm from before.",
    ],
    solution=clip_gradients,
    right="One factor for all gradients, none when they are short, and the norm from before is returned.",
)
def check_clip_gradients(learner: Clip) -> None:
    long, short = gradients((4.0, 3.0, 12.0)), gradients((0.04, 0.03, 0.12))  # together 13 and 0.13
    judge_clip(learner, long, 3.5)  # above one of the norms, below the others
    judge_clip(learner, short, 1.0)
    judge_clip(learner, long, 1.0)
    parameters, _ = made(long)
    parameters.insert(1, nn.Parameter(torch.ones(2)))  # not used by the loss: its .grad is None
    with blame("It fails when a parameter has no gradient: skip those whose .grad is None"):
        call(learner, parameters=parameters, max_norm=1.0)
    judge_result(parameters[:1] + parameters[2:], long, 1.0)
    parameters, _ = made(long)
    with blame("It fails when parameters is a generator, as model.parameters() is: begin with list(parameters)"):
        norm = call(learner, parameters=(p for p in parameters), max_norm=1.0)
    after = joint([p.grad for p in parameters if p.grad is not None])
    if abs(after - 1.0) > 1e-3 or abs(float(norm) - 13.0) > 1e-2:
        raise Wrong(
            "It is right for a list, but not for model.parameters(), which is a generator: the first loop uses it up, "
            "and the second finds nothing; begin with list(parameters)."
        )
    parameters, _ = made([torch.zeros_like(g) for g in long])
    with blame("It fails when all gradients are zero"):
        call(learner, parameters=parameters, max_norm=1.0)
    if not all(p.grad is not None and p.grad.isfinite().all() for p in parameters):
        raise Wrong("Gradients of zero become NaN: 0 / 0; scale only when the norm is above max_norm.")


def gradients(norms: tuple[float, ...]) -> list[Tensor]:
    """Three gradients of different shapes, with exactly these norms."""
    random = [torch.randn(shape) for shape in ((2, 3), (4,), (3, 5))]
    return [g * (n / g.norm()) for g, n in zip(random, norms, strict=True)]


def made(grads: list[Tensor]) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Parameters that carry copies of these gradients, and copies of the parameters' values."""
    parameters = [nn.Parameter(torch.randn_like(g)) for g in grads]
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g.clone()
    return parameters, [p.detach().clone() for p in parameters]


def joint(grads: list[Tensor]) -> float:
    return float(torch.cat([g.flatten() for g in grads]).norm())


def judge_clip(learner: Clip, grads: list[Tensor], max_norm: float) -> None:
    """One call: the values stay, the gradients are clipped, the norm from before comes back."""
    parameters, values = made(grads)
    norm = learner(parameters, max_norm)
    if not all(torch.equal(p.detach(), v) for p, v in zip(parameters, values, strict=True)):
        raise Wrong("It changes the parameters themselves: clipping touches their gradients, p.grad, and nothing else.")
    judge_result(parameters, grads, max_norm)
    if norm is None:
        raise Wrong("The gradients are right, but it returns None: return the norm from before, for the log.")
    if not isinstance(norm, Tensor | float | int):
        raise Wrong(f"It returns something of type {type(norm).__name__}: return the norm from before, one number.")
    if isinstance(norm, Tensor) and norm.numel() != 1:
        raise Wrong(f"It returns a tensor of shape {tuple(norm.shape)}: return one norm for all gradients together.")
    before = joint(grads)
    if abs(float(norm) - before) > 1e-3 * before:
        after = min(before, max_norm)
        if abs(float(norm) - after) < 1e-3 * after:
            raise Wrong("It returns the norm after clipping: return the one from before, which tells what happened.")
        if abs(float(norm) - min(1.0, max_norm / before)) < 1e-3:
            raise Wrong("It returns the factor: return the norm from before.")
        raise Wrong(f"The gradients are right, but it returns {float(norm):.4g}; their norm before was {before:.4g}.")


def judge_result(parameters: list[nn.Parameter], grads: list[Tensor], max_norm: float) -> None:
    """The gradients after the call, against those before."""
    if any(p.grad is None for p in parameters):
        raise Wrong("A gradient is None afterwards: scale the gradients, do not delete them.")
    found = [p.grad.detach() for p in parameters if p.grad is not None]
    before = joint(grads)
    factor = min(1.0, max_norm / before)
    if all(torch.allclose(f, factor * g, rtol=1e-3, atol=1e-6) for f, g in zip(found, grads, strict=True)):
        return
    diagnose_clip(found, grads, max_norm, before, joint([p.detach() for p in parameters]))


def diagnose_clip(found: list[Tensor], grads: list[Tensor], max_norm: float, before: float, weights: float) -> None:
    """Raise the Wrong that fits gradients that were clipped in another way."""
    norms = [float(g.norm()) for g in grads]
    if not all(f.isfinite().all() for f in found):
        raise Wrong("Gradients became NaN or infinite: what is divided by what?")
    if all(torch.equal(f, g) for f, g in zip(found, grads, strict=True)):
        raise Wrong(
            f"The gradients did not change, though their joint norm {before:.4g} is above {max_norm:g}: is the result "
            "written back (p.grad.mul_(factor)), and is one norm taken over all of them?"
        )
    factors = [float((f * g).sum() / (g * g).sum()) for f, g in zip(found, grads, strict=True)]
    scaled = all(torch.allclose(f, c * g, rtol=1e-3, atol=1e-6) for f, g, c in zip(found, grads, factors, strict=True))
    if not scaled:
        largest = max(float(f.abs().max()) for f in found)
        if largest <= max_norm * (1 + 1e-4):
            raise Wrong(
                "Single numbers are cut off at the limit: that turns the direction. Clipping by norm multiplies all of "
                "them by one factor."
            )
        raise Wrong("The numbers inside one gradient are not scaled alike: multiply all of them by one factor.")
    alike = max(factors) - min(factors) < 1e-3 * max(abs(c) for c in factors)
    if not alike:
        own = [min(1.0, max_norm / n) for n in norms]
        if all(math.isclose(c, o, rel_tol=1e-2) for c, o in zip(factors, own, strict=True)):
            raise Wrong(
                "Each gradient is clipped by its own norm: that changes their proportions and so the direction. Take "
                "one norm over all of them."
            )
        if all(math.isclose(c, max_norm / n, rel_tol=1e-2) for c, n in zip(factors, norms, strict=True)):
            raise Wrong("Every gradient is brought to the same norm, each by itself: take one norm over all of them.")
        raise Wrong(
            "The gradients get different factors: compute the norm once, before anything is scaled, and use one factor "
            "for all."
        )
    c = factors[0]
    if before <= max_norm:
        raise Wrong(
            f"A gradient of norm {before:.4g} was scaled by {c:.3g}, though the limit is {max_norm:g}: short gradients "
            "stay as they are; clipping never makes anything longer or shorter without need."
        )
    if c < 0:
        raise Wrong("The gradients were turned around: the factor must be positive.")
    n = sum(g.numel() for g in grads)
    known = {
        "It always scales to length 1 and forgets max_norm: the factor is max_norm / norm.": 1 / before,
        "The factor is upside down, norm / max_norm: it makes long gradients longer.": before / max_norm,
        "The norm lacks its square root: it is the root of the sum of the squares.": max_norm / before**2,
        "The norms of the gradients are added up: add their squares and take the root of that.": max_norm / sum(norms),
        "The norm is that of the longest gradient alone: it goes over all of them together.": max_norm / max(norms),
        "The norm is that of the last gradient alone: it goes over all of them together.": max_norm / norms[-1],
        "The norm is that of the first gradient alone: it goes over all of them together.": max_norm / norms[0],
        "The norm is the mean of the gradients' norms: it goes over all numbers together.": max_norm / (sum(norms) / 3),
        "The squares are averaged and not summed: the norm is the root of their sum.": max_norm / (before / n**0.5),
        "The norm is the sum of absolute values: it is the root of the sum of the squares.":
            max_norm / float(sum(g.abs().sum() for g in grads)),
        "The norm is the largest absolute value: it is the root of the sum of the squares.":
            max_norm / max(float(g.abs().max()) for g in grads),
        "The norm is that of the parameters: it is the gradients', p.grad, that are measured.": max_norm / weights,
    }  # fmt: skip
    for sentence, value in known.items():
        if math.isclose(c, value, rel_tol=5e-3) or (value > 1 and math.isclose(c, 1, rel_tol=1e-4)):
            raise Wrong(sentence)
    raise Wrong(f"The gradients were scaled by {c:.4g}; the limit over the norm is {max_norm / before:.4g}.")
