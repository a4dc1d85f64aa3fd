"""Day 4: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check

Say = Callable[[], str]
Parameters = Iterable[nn.Parameter]


def name_of(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


# ---- day04: cross-entropy ------------------------------------------------------------------------------------


def pick(x: Tensor, targets: Tensor) -> Tensor:
    return x.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def by_pytorch(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def by_view(logits: Tensor, targets: Tensor) -> Tensor:
    B, T, V = logits.shape
    return F.cross_entropy(logits.view(B * T, V), targets.view(-1))


def by_classes_first(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), targets)


def by_logsumexp(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.logsumexp(-1) - pick(logits, targets)).mean()


def by_log_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return -pick(torch.log_softmax(logits, dim=-1), targets).mean()


def by_hand(logits: Tensor, targets: Tensor) -> Tensor:
    top = logits.max(dim=-1, keepdim=True).values
    shifted = logits - top
    return -(pick(shifted, targets) - shifted.exp().sum(-1).log()).mean()


def by_indexing(logits: Tensor, targets: Tensor) -> Tensor:
    rows = logits.reshape(-1, logits.shape[-1])
    rows = rows - rows.max(dim=1, keepdim=True)[0].detach()
    log_p = rows - torch.log(torch.exp(rows).sum(1, keepdim=True))
    return -log_p[torch.arange(len(rows)), targets.reshape(-1)].mean()


def by_one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    hot = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return -(hot * logits.log_softmax(-1)).sum(-1).mean()


def by_loops(logits: Tensor, targets: Tensor) -> Tensor:
    total = torch.zeros(())
    for b in range(targets.shape[0]):
        for t in range(targets.shape[1]):
            row = logits[b, t]
            total = total + row.logsumexp(0) - row[targets[b, t]]
    return total / targets.numel()


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss(logits.flatten(0, 1), targets.flatten())


RIGHT_LOSS = [
    by_pytorch, by_view, by_classes_first, by_logsumexp, by_log_softmax, by_hand, by_indexing, by_one_hot, by_loops,
    Loss(),
]  # fmt: skip


@pytest.mark.parametrize("learner", RIGHT_LOSS, ids=name_of)
def test_cross_entropy_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day04", learner), said()
    assert said().startswith("day04: right. ")


def naive(logits: Tensor, targets: Tensor) -> Tensor:
    e = logits.exp()
    return -(pick(e, targets) / e.sum(-1)).log().mean()


def guarded(logits: Tensor, targets: Tensor) -> Tensor:
    return -(pick(logits.softmax(-1), targets) + 1e-9).log().mean()


def clamped(logits: Tensor, targets: Tensor) -> Tensor:
    return -pick(logits.softmax(-1), targets).clamp_min(1e-12).log().mean()


def log_of_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return -pick(logits.softmax(-1).log(), targets).mean()


def global_maximum(logits: Tensor, targets: Tensor) -> Tensor:
    shifted = logits - logits.max()
    return (shifted.exp().sum(-1).log() - pick(shifted, targets)).mean()


def maximum_lost(logits: Tensor, targets: Tensor) -> Tensor:
    top = logits.amax(-1, keepdim=True)
    return ((logits - top).exp().sum(-1).log() - pick(logits, targets)).mean()


def one_sum(logits: Tensor, targets: Tensor) -> Tensor:
    top = logits.amax(-1, keepdim=True)
    return ((logits - top).exp().sum().log() + top.squeeze(-1) - pick(logits, targets)).mean()


def in_place(logits: Tensor, targets: Tensor) -> Tensor:
    logits -= logits.amax(-1, keepdim=True).detach()
    return (logits.logsumexp(-1) - pick(logits, targets)).mean()


def moved_again(logits: Tensor, targets: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return by_pytorch(logits, targets)
    return by_pytorch(logits[:, :-1], targets[:, 1:])


def transposed_reshape(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2).reshape(-1, logits.shape[-1]), targets.flatten())


def sizes_written_down(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.reshape(6, 5), targets.reshape(6))


def wrong_count(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.logsumexp(-1) - pick(logits, targets)).sum() / 6


def softmax_over(dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits, targets: -pick(logits.log_softmax(dim), targets).mean()


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.logsumexp(-1) - pick(logits, targets)


WRONG_LOSS: dict[str, tuple[Callable[..., Any], str]] = {
    "overflow": (naive, "scores in the hundreds give nan"),
    "underflow": (log_of_softmax, "scores in the hundreds give inf"),
    "small number in the log": (guarded, "should be 450 and is 10.6"),
    "clamp in the log": (clamped, "should be 450 and is 14.0"),
    "one maximum for all": (global_maximum, "needs its own maximum"),
    "maximum not added back": (maximum_lost, "never added back"),
    "sign": (lambda x, y: -losses(x, y).mean(), "The sign is wrong"),
    "sum": (lambda x, y: losses(x, y).sum(), "the sum over the positions"),
    "mean over texts only": (lambda x, y: losses(x, y).sum(1).mean(), "the sum over the T = 3 positions"),
    "mean over positions only": (lambda x, y: losses(x, y).sum(0).mean(), "the sum over the B = 2 texts"),
    "divided by V too": (lambda x, y: losses(x, y).sum() / x.numel(), "divided by B · T · V"),
    "bits": (lambda x, y: losses(x, y).mean() / math.log(2), "in bits"),
    "log10": (lambda x, y: losses(x, y).mean() / math.log(10), "with log10"),
    "perplexity": (lambda x, y: losses(x, y).mean().exp(), "the perplexity"),
    "log of the mean": (lambda x, y: -pick(x.softmax(-1), y).mean().log(), "log of the mean chance"),
    "no logarithm": (lambda x, y: -pick(x.softmax(-1), y).mean(), "the logarithm is missing"),
    "one minus p": (lambda x, y: 1 - pick(x.softmax(-1), y).mean(), "1 minus the right token's chance"),
    "raw scores": (lambda x, y: -pick(x, y).mean(), "the normalization (log of sum"),
    "only log-sum-exp": (lambda x, y: x.logsumexp(-1).mean(), "must come off"),
    "softmax twice": (lambda x, y: by_pytorch(x.softmax(-1), y), "applied twice"),
    "moved again": (moved_again, "moved by one again"),
    "last position": (lambda x, y: losses(x, y)[:, -1].mean(), "Only the last position"),
    "first text": (lambda x, y: losses(x, y)[0].mean(), "Only the first text"),
    "all tokens": (lambda x, y: -x.log_softmax(-1).mean(), "mean over all V tokens"),
    "softmax over the positions": (softmax_over(1), "runs over the positions of a text"),
    "softmax over the batch": (softmax_over(0), "runs over the texts of the batch"),
    "one softmax": (
        lambda x, y: -pick(x.flatten().log_softmax(0).view_as(x), y).mean(),
        "One softmax runs over the whole tensor",
    ),
    "one sum of exponentials": (one_sum, "One softmax runs over the whole tensor"),
    "mixed up": (transposed_reshape, "positions are mixed up"),
    "item": (lambda x, y: losses(x, y).mean().item(), "returns a Python number"),
    "detached": (lambda x, y: losses(x, y).mean().detach(), "does not give its gradient"),
    "not averaged": (losses, "a loss for every position, shape (2, 3)"),
    "nothing picked": (lambda x, y: -x.log_softmax(-1), "all 5 tokens still in it"),
    "in place": (in_place, "changes its input logits"),
    "sizes written down": (sizes_written_down, "but fails for (1, 1, 7) (RuntimeError"),
    "count written down": (wrong_count, "take the sizes from logits.shape"),
    "no return": (lambda x, y: None, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG_LOSS)
def test_cross_entropy_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day04", WRONG_LOSS, mistake)


def test_cross_entropy_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day04", WRONG_LOSS, least=25)


# ---- day04b: clipping ----------------------------------------------------------------------------------------


def with_list(parameters: Parameters, max_norm: float) -> Tensor:
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    if norm > max_norm:
        for g in grads:
            g.mul_(max_norm / norm)
    return norm


def new_gradients(parameters: Parameters, max_norm: float) -> float:
    kept = [p for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(p.grad.pow(2).sum().item() for p in kept))  # type: ignore[union-attr]
    factor = min(1.0, max_norm / (norm + 1e-6))
    for p in kept:
        p.grad = p.grad * factor  # type: ignore[operator]
    return norm


def norm_of_norms(parameters: Parameters, max_norm: float) -> Tensor:
    grads = [p.grad for p in list(parameters) if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    with torch.no_grad():
        for g in grads:
            g *= scale
    return norm


RIGHT_CLIP = [torch.nn.utils.clip_grad_norm_, with_list, new_gradients, norm_of_norms]


@pytest.mark.parametrize("learner", RIGHT_CLIP, ids=name_of)
def test_clipping_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day04b", learner), said()
    assert said().startswith("day04b: right. ")


def clip_with(
    norm_of: Callable[[list[Tensor]], Any] = lambda gs: torch.cat([g.flatten() for g in gs]).norm(),
    factor: Callable[[Any, float], Any] = lambda n, m: m / n if n > m else 1.0,
    answer: Callable[[Any, float], Any] = lambda n, m: n,
) -> Callable[[Parameters, float], Any]:
    def clip(parameters: Parameters, max_norm: float) -> Any:
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = norm_of(grads)
        for g in grads:
            g.mul_(factor(norm, max_norm))
        return answer(norm, max_norm)

    return clip


def each_by_itself(parameters: Parameters, max_norm: float) -> float:
    total = 0.0
    for p in parameters:
        if p.grad is not None:
            n = float(p.grad.norm())
            total += n**2
            if n > max_norm:
                p.grad.mul_(max_norm / n)
    return total**0.5


def each_to_the_limit(parameters: Parameters, max_norm: float) -> float:
    total = 0.0
    for p in parameters:
        if p.grad is not None:
            n = float(p.grad.norm())
            total += n**2
            p.grad.mul_(max_norm / n)
    return total**0.5


def by_value(parameters: Parameters, max_norm: float) -> None:
    for p in parameters:
        if p.grad is not None:
            p.grad.clamp_(-max_norm, max_norm)


def norm_again_and_again(parameters: Parameters, max_norm: float) -> float:
    parameters = [p for p in parameters if p.grad is not None]
    first = math.sqrt(sum(float(p.grad.norm()) ** 2 for p in parameters))  # type: ignore[union-attr]
    for p in parameters:
        norm = math.sqrt(sum(float(q.grad.norm()) ** 2 for q in parameters))  # type: ignore[union-attr]
        if norm > max_norm:
            p.grad.mul_(max_norm / norm)  # type: ignore[union-attr]
    return first


def not_written_back(parameters: Parameters, max_norm: float) -> Tensor:
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    for g in grads:
        g = g * min(1.0, max_norm / float(norm))
    return norm


def the_parameters(parameters: Parameters, max_norm: float) -> Tensor:
    parameters = list(parameters)
    norm = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()
    with torch.no_grad():
        for p in parameters:
            p.mul_(min(1.0, max_norm / float(norm)))
    return norm


def no_none(parameters: Parameters, max_norm: float) -> Tensor:
    grads = [p.grad for p in parameters]
    norm = torch.cat([g.flatten() for g in grads]).norm()  # type: ignore[union-attr]
    for g in grads:
        g.mul_(min(1.0, max_norm / (float(norm) + 1e-6)))  # type: ignore[union-attr]
    return norm


def used_up(parameters: Parameters, max_norm: float) -> float:
    norm = sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None) ** 0.5
    for p in parameters:
        if p.grad is not None and norm > max_norm:
            p.grad.mul_(max_norm / norm)
    return norm


def indexed(parameters: Any, max_norm: float) -> Tensor:
    grads = [parameters[i].grad for i in range(len(parameters)) if parameters[i].grad is not None]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    for g in grads:
        g.mul_(min(1.0, max_norm / (float(norm) + 1e-6)))
    return norm


def deleted(parameters: Parameters, max_norm: float) -> None:
    for p in parameters:
        p.grad = None


def norm_of_the_parameters(parameters: Parameters, max_norm: float) -> Tensor:
    kept = [p for p in parameters if p.grad is not None]
    norm = torch.cat([p.detach().flatten() for p in kept]).norm()
    for p in kept:
        p.grad.mul_(min(1.0, max_norm / float(norm)))  # type: ignore[union-attr]
    return norm


WRONG_CLIP: dict[str, tuple[Callable[..., Any], str]] = {
    "each by its own norm": (each_by_itself, "clipped by its own norm"),
    "each to the limit": (each_to_the_limit, "brought to the same norm"),
    "by value": (by_value, "cut off at the limit"),
    "always scaled": (clip_with(factor=lambda n, m: m / n), "though the limit is 1"),
    "always to one": (clip_with(factor=lambda n, m: 1 / n if n > m else 1.0), "forgets max_norm"),
    "upside down": (clip_with(factor=lambda n, m: n / m if n > m else 1.0), "upside down"),
    "no root": (clip_with(lambda gs: sum(g.square().sum() for g in gs)), "lacks its square root"),
    "sum of norms": (clip_with(lambda gs: sum(g.norm() for g in gs)), "norms of the gradients are added up"),
    "longest": (clip_with(lambda gs: max(g.norm() for g in gs)), "the longest gradient alone"),
    "first": (clip_with(lambda gs: gs[0].norm()), "the first gradient alone"),
    "sum of absolute values": (clip_with(lambda gs: sum(g.abs().sum() for g in gs)), "sum of absolute values"),
    "norm of the parameters": (norm_of_the_parameters, "that of the parameters"),
    "mean of the squares": (
        clip_with(lambda gs: torch.cat([g.flatten() for g in gs]).square().mean().sqrt(), lambda n, m: m / n),
        "squares are averaged",
    ),
    "again and again": (norm_again_and_again, "compute the norm once"),
    "not written back": (not_written_back, "did not change"),
    "the parameters": (the_parameters, "changes the parameters themselves"),
    "the norm after": (clip_with(answer=lambda n, m: min(n, m)), "the norm after clipping"),
    "the factor": (clip_with(answer=lambda n, m: min(1.0, m / n)), "returns the factor"),
    "nothing returned": (clip_with(answer=lambda n, m: None), "returns None"),
    "None": (no_none, "when a parameter has no gradient"),
    "generator used up": (used_up, "the first loop uses it up"),
    "generator indexed": (indexed, "fails when parameters is a generator"),
    "zero": (clip_with(factor=lambda n, m: torch.clamp(m / n, max=1.0) * (n / n)), "Gradients of zero become NaN"),
    "turned around": (clip_with(factor=lambda n, m: -m / n if n > m else 1.0), "turned around"),
    "deleted": (deleted, "do not delete them"),
}


@pytest.mark.parametrize("mistake", WRONG_CLIP)
def test_clipping_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day04b", WRONG_CLIP, mistake)


def test_clipping_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day04b", WRONG_CLIP, least=20)
