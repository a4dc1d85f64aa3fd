"""Checker of Tour 8: the advantages of GRPO, each answer compared with the other answers to its own question."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Wrong, call, exercise, tensor

P, G, EPS = 5, 4, 1e-4


def grpo_advantages(rewards: Tensor, eps: float = EPS) -> Tensor:
    """Rewards (questions, samples), each row moved to mean 0 and scaled to spread 1; an even row gives zeros."""
    away = rewards - rewards.mean(dim=1, keepdim=True)
    spread = away.square().mean(dim=1, keepdim=True).sqrt()  # divided by G
    return away / (spread + eps)  # eps: a row of equal rewards is 0 / eps


@exercise(
    "tour08",
    title="The advantages of GRPO",
    signature="grpo_advantages(rewards, eps)",
    hints=[
        "Each row holds the rewards of the answers to one question. Its own mean is the baseline: "
        "rewards.mean(dim=1, keepdim=True).",
        "Divide by the row's own standard deviation: the root of the mean of the squared distances, which is "
        "rewards.std(dim=1, keepdim=True, unbiased=False).",
        "Add eps to the standard deviation before you divide. An even row then gives 0 / eps = 0, not 0 / 0.",
    ],
    solution=grpo_advantages,
    right="Every question is its own scale, and one whose answers are all as good teaches nothing.",
)
def check_grpo_advantages(learner: Callable[..., Any]) -> None:
    # rows that differ in mean and in spread, none of them even
    rewards = torch.randn(P, G) * torch.tensor([[1.0], [0.3], [4.0], [2.0], [0.7]])
    rewards = rewards + torch.tensor([[0.0], [5.0], [-3.0], [1.0], [9.0]])
    got = asked(learner, rewards)
    if not close(got, grpo_advantages(rewards)):
        diagnose(got, rewards)
    binary = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 1, 1, 0]])
    if not close(asked(learner, binary), grpo_advantages(binary)):
        raise Wrong("Spread-out rewards are right, rewards of 0 and 1 are not: does something treat 0 specially?")
    even = torch.cat([binary, torch.ones(1, 4), torch.zeros(1, 4)])
    got = asked(learner, even)
    if not got.isfinite().all():
        raise Wrong(
            "A question whose answers all have the same reward gives NaN or inf, and one such row ruins the step: add "
            "eps to the standard deviation, so that it is 0 / eps."
        )
    if got[3:].abs().max() > 1e-3:
        raise Wrong("A question whose answers are all as good must give zeros: there is nothing to prefer.")
    if not close(got, grpo_advantages(even)):
        raise Wrong("With an even row in the batch the other rows change: each question stands for itself.")
    wide = asked(learner, binary, 0.5)
    if not close(wide, grpo_advantages(binary, 0.5)):
        if close(wide, grpo_advantages(binary)):
            raise Wrong("With eps = 0.5 your result is that of another eps: use the argument, not a fixed number.")
        raise Wrong("With eps = 0.5 it goes wrong: eps is added to the standard deviation, once, and nowhere else.")


def asked(learner: Callable[..., Any], rewards: Tensor, eps: float = EPS) -> Tensor:
    try:
        out = call(learner, rewards=rewards, eps=eps)
    except RuntimeError as error:
        if "must match the size of tensor" not in str(error):
            raise
        raise Wrong(
            "A number for each row, shape (questions,), cannot be taken off (questions, samples): keep the column, "
            "mean(dim=1, keepdim=True), and the same for the spread."
        ) from None
    if isinstance(out, Tensor) and out.ndim == 1 and len(out) == len(rewards):
        raise Wrong("You return one number a question: every answer, that is every entry, has its own advantage.")
    return tensor(out, tuple(rewards.shape), meaning="an advantage for each answer, shaped like the rewards")


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), rtol=1e-3, atol=2e-3))


def diagnose(got: Tensor, r: Tensor) -> None:
    """Raise the Wrong that fits advantages that are wrong even where every row has a spread."""
    mean, std = r.mean(1, keepdim=True), r.std(1, keepdim=True, unbiased=False)
    low, high = r.amin(1, keepdim=True), r.amax(1, keepdim=True)
    right = (r - mean) / (std + EPS)
    rest = (r.sum(1, keepdim=True) - r) / (G - 1)  # mean of the others
    named = [
        (-right, "The sign is turned around: the better answer must get the positive advantage."),
        (r - mean, "The mean is taken off, but nothing is divided by the standard deviation."),
        (r / (std + EPS), "You divide by the spread, but the row's mean is still in: nothing would be negative."),
        ((r - r.mean()) / (r.std(unbiased=False) + EPS), "You use mean and spread of the whole batch: an easy question "
         "would then look like a good answer. Take each row for itself, dim=1."),
        ((r - r.mean()) / (r.std() + EPS), "You use mean and spread of the whole batch: an easy question "
         "would then look like a good answer. Take each row for itself, dim=1."),
        ((r - mean) / (r.std(unbiased=False) + EPS), "The mean is the row's own, but the spread is that of the whole "
         "batch: divide each row by its own."),
        ((r - r.mean()) / (std + EPS), "The spread is the row's own, but the mean is that of the whole batch: the "
         "baseline belongs to the question."),
        ((r - r.mean(0)) / (r.std(0, unbiased=False) + EPS), "You go down the columns, over different questions: the "
         "answers to one question stand in a row, dim=1."),
        ((r - r.mean(0)) / (r.std(0) + EPS), "You go down the columns, over different questions: the answers to one "
         "question stand in a row, dim=1."),
        ((r - mean) / (r.std(1, keepdim=True) + EPS), f"Your spread divides by {G - 1}, as torch's std does unless "
         f"told otherwise: here all {G} answers count, unbiased=False."),
        ((r - mean) / (std.square() + EPS), "You divide by the variance: its root, the standard deviation, is meant."),
        ((r - mean) / (std.sqrt() + EPS), "You take the root twice: divide by the standard deviation itself."),
        ((r - mean) * std, "You multiply by the spread: dividing by it brings every question to one scale."),
        ((r - low) / (high - low + EPS), "This runs from 0 for the worst to 1 for the best answer: no answer would be "
         "made less likely. Take off the mean and divide by the standard deviation."),
        ((r - r.median(1, keepdim=True).values) / (std + EPS), "The baseline is the row's mean, not its median."),
        (r - rest, "This compares with the mean of the other answers, a good baseline of another method: here the "
         "mean is that of all, and the spread divides."),
        ((r - mean) / ((r - mean).abs().mean(1, keepdim=True) + EPS), "You divide by the mean distance: the standard "
         "deviation takes the squares, their mean, then the root."),
        (r.softmax(1), "A softmax makes shares that are never negative: an answer below the mean must lose."),
        (r, "The rewards come back as they were."),
        ((r - mean) / (std + EPS) / G, f"This is right but for a factor: do not divide by the {G} samples once more."),
    ]  # fmt: skip
    for wrong, sentence in named:
        if close(got, wrong):
            raise Wrong(sentence)
    if not got.isfinite().all():
        raise Wrong("Not all advantages are finite although every row has a spread: what do you divide by?")
    if got.mean(1).abs().max() > 0.01:
        raise Wrong("The advantages of one question do not sum to 0: take off the mean of its own row.")
    raise Wrong("Each row has mean 0 as it should, but not spread 1: divide by the row's own standard deviation.")
