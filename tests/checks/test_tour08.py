"""Tour 8: GRPO's advantages pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check

Say = Callable[[], str]


def by_std(rewards: Tensor, eps: float) -> Tensor:
    mean, std = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True, unbiased=False)
    return (rewards - mean) / (std + eps)


def by_rows(rewards: Tensor, eps: float) -> Tensor:
    return torch.stack([(row - row.mean()) / (row.std(correction=0) + eps) for row in rewards])


def by_loop(rewards: Tensor, eps: float) -> Tensor:
    out = []
    for row in rewards.tolist():
        mean = sum(row) / len(row)
        std = (sum((x - mean) ** 2 for x in row) / len(row)) ** 0.5
        out.append([(x - mean) / (std + eps) for x in row])
    return torch.tensor(out)


def by_norm(rewards: Tensor, eps: float) -> Tensor:
    away = rewards - rewards.mean(-1, keepdim=True)
    return away / (away.norm(dim=-1, keepdim=True) / rewards.shape[-1] ** 0.5 + eps)


@pytest.mark.parametrize("learner", [by_std, by_rows, by_loop, by_norm])
def test_advantages_pass_in_any_style(learner: Any, said: Say) -> None:
    assert check("tour08", learner), said()
    assert said().startswith("tour08: right. ")


def parts(r: Tensor) -> tuple[Tensor, Tensor]:
    return r.mean(1, keepdim=True), r.std(1, keepdim=True, unbiased=False)


def in_place(rewards: Tensor, eps: float) -> Tensor:
    rewards -= rewards.mean(1, keepdim=True)
    return rewards / (rewards.std(1, keepdim=True, unbiased=False) + eps)


def no_eps(rewards: Tensor, eps: float) -> Tensor:
    mean, std = parts(rewards)
    return (rewards - mean) / std


def nan_to_one(rewards: Tensor, eps: float) -> Tensor:
    return no_eps(rewards, eps).nan_to_num(1.0)


def fixed(rewards: Tensor, eps: float) -> Tensor:
    return by_std(rewards, 1e-8)


def eps_inside(rewards: Tensor, eps: float) -> Tensor:
    mean, std = parts(rewards)
    return (rewards - mean) / (std.square() + eps).sqrt()


def others(rewards: Tensor, eps: float) -> Tensor:
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


def minmax(rewards: Tensor, eps: float) -> Tensor:
    low, high = rewards.amin(1, keepdim=True), rewards.amax(1, keepdim=True)
    return (rewards - low) / (high - low + eps)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "sign": (lambda r, eps: -by_std(r, eps), "The sign is turned around"),
    "no spread": (lambda r, eps: r - parts(r)[0], "nothing is divided by the standard deviation"),
    "no mean": (lambda r, eps: r / (parts(r)[1] + eps), "the row's mean is still in"),
    "whole batch": (lambda r, eps: (r - r.mean()) / (r.std(unbiased=False) + eps), "mean and spread of the whole"),
    "batch spread": (lambda r, eps: (r - parts(r)[0]) / (r.std(unbiased=False) + eps), "spread is that of the whole"),
    "batch mean": (lambda r, eps: (r - r.mean()) / (parts(r)[1] + eps), "the mean is that of the whole batch"),
    "columns": (lambda r, eps: by_std(r.T, eps).T, "You go down the columns"),
    "unbiased": (lambda r, eps: (r - parts(r)[0]) / (r.std(1, keepdim=True) + eps), "as torch's std does"),
    "variance": (lambda r, eps: (r - parts(r)[0]) / (parts(r)[1] ** 2 + eps), "You divide by the variance"),
    "root twice": (lambda r, eps: (r - parts(r)[0]) / (parts(r)[1].sqrt() + eps), "You take the root twice"),
    "multiplied": (lambda r, eps: (r - parts(r)[0]) * parts(r)[1], "You multiply by the spread"),
    "min and max": (minmax, "from 0 for the worst to 1 for the best"),
    "median": (lambda r, eps: (r - r.median(1, keepdim=True).values) / (parts(r)[1] + eps), "not its median"),
    "others": (others, "mean of the other answers"),
    "mean distance": (
        lambda r, eps: (r - parts(r)[0]) / ((r - parts(r)[0]).abs().mean(1, keepdim=True) + eps),
        "You divide by the mean distance",
    ),
    "softmax": (lambda r, eps: r.softmax(1), "A softmax makes shares"),
    "unchanged": (lambda r, eps: r.clone(), "come back as they were"),
    "once more": (lambda r, eps: by_std(r, eps) / r.shape[1], "once more"),
    "no keepdim": (lambda r, eps: (r - r.mean(1)) / (r.std(1, unbiased=False) + eps), "keep the column"),
    "one a question": (lambda r, eps: by_std(r, eps).mean(1), "one number a question"),
    "no eps": (no_eps, "gives NaN or inf"),
    "even row": (nan_to_one, "there is nothing to prefer"),
    "fixed eps": (fixed, "use the argument"),
    "in place": (in_place, "changes its input"),
    "eps inside": (eps_inside, "once, and nowhere else"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("tour08", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("tour08", WRONG, least=20)
