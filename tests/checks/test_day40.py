"""The checkers of day 40: a noisy target, and the cost of a text. Right answers in several styles, mistakes by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from llmcourse.checks import check
from llmcourse.checks.day40 import conditional_nll, tune

Say = Callable[[], str]
Measure = Callable[[float], float]


def by_median(measure: Measure, target: float, low: float, high: float) -> float:
    for _ in range(7):
        T = 0.5 * (low + high)
        low, high = (T, high) if statistics.median(measure(T) for _ in range(13)) < target else (low, T)
    return (low + high) / 2


def by_recursion(measure: Measure, target: float, low: float, high: float, left: int = 7) -> float:
    middle = (low + high) / 2
    if left == 0:
        return middle
    if statistics.fmean(measure(middle) for _ in range(14)) < target:
        return by_recursion(measure, target, middle, high, left - 1)
    return by_recursion(measure, target, low, middle, left - 1)


def bounds_first(measure: Measure, target: float, low: float, high: float) -> float:
    def mean(T: float, n: int = 11) -> float:
        return sum(measure(T) for _ in range(n)) / n

    if mean(low, 6) > target + 0.03:
        return low
    if mean(high, 6) < target - 0.03:
        return high
    a, b = low, high
    for _ in range(8):
        c = (a + b) / 2
        if mean(c) > target:
            b = c
        else:
            a = c
    return a


@pytest.mark.parametrize("learner", [tune, by_median, by_recursion, bounds_first])
def test_tune_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day40", learner), said()
    assert said().startswith("day40: right. ")


def bisect(steps: int = 8, calls: int = 12, flip: bool = False) -> Callable[..., float]:
    def wrong(measure: Measure, target: float, low: float, high: float) -> float:
        for _ in range(steps):
            middle = (low + high) / 2
            if (sum(measure(middle) for _ in range(calls)) / calls < target) != flip:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return wrong


def never_stops(measure: Measure, target: float, low: float, high: float) -> float:
    while True:
        middle = (low + high) / 2
        y = measure(middle)
        if y == target:
            return middle
        low, high = (middle, high) if y < target else (low, middle)


def grid(measure: Measure, target: float, low: float, high: float) -> float:
    Ts = [low + (high - low) * i / 2000 for i in range(2001)]
    return min(Ts, key=lambda T: abs(measure(T) - target))


def straight(measure: Measure, target: float, low: float, high: float) -> float:
    a, b = (sum(measure(T) for _ in range(20)) / 20 for T in (low, high))
    return low + (high - low) * (target - a) / (b - a)


def fixed_bounds(measure: Measure, target: float, low: float, high: float) -> float:
    return bisect()(measure, target, 0.0, 2.0)


def fixed_width(measure: Measure, target: float, low: float, high: float) -> float:
    T = low
    for _ in range(90):
        T = min(high, T + 0.01) if measure(T) < target else max(low, T - 0.005)
    return T


def refuses(measure: Measure, target: float, low: float, high: float) -> float:
    if measure(low) > target or measure(high) < target:
        return (low + high) / 2
    return bisect(8, 12)(measure, target, low, high)


def returns_target(measure: Measure, target: float, low: float, high: float) -> float:
    bisect()(measure, target, low, high)
    return target


def returns_nothing(measure: Measure, target: float, low: float, high: float) -> None:
    bisect()(measure, target, low, high)


WRONG_TUNE: dict[str, tuple[Callable[..., Any], str]] = {
    "wrong direction": (bisect(flip=True), "though the target lies between"),
    "never stops": (never_stops, "waits for an exact hit never ends"),
    "single calls": (bisect(calls=1), "throws away the right half"),
    "one step": (bisect(steps=0, calls=1), "never calls measure"),
    "stops early": (bisect(steps=3), "does it stop too early"),
    "straight line": (straight, "draws a straight line"),
    "other bounds": (fixed_bounds, "outside of the interval"),
    "fixed step": (fixed_width, "On a wider interval"),
    "middle when out of reach": (refuses, "the nearest that you can offer"),
    "the target": (returns_target, "returns the target itself"),
    "nothing": (returns_nothing, "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG_TUNE)
def test_tune_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day40", WRONG_TUNE, mistake)


def test_tune_grid_is_too_dear(said: Say) -> None:
    assert not check("day40", grid)
    assert "More than 100 calls" in said()


def test_tune_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day40", WRONG_TUNE, least=8)


# The cost of a text


def by_cross_entropy(model: Any, tokenizer: Any, prompt: str, text: str) -> torch.Tensor:
    ids = torch.tensor([tokenizer.encode(prompt + text)])[:, -model.config.block_size - 1 :]
    n = len(text)
    return F.cross_entropy(model(ids[:, :-1])[0, -n:], ids[0, -n:])


def by_loop(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    T, total, n = model.config.block_size, 0.0, len(text)
    ids = tokenizer.encode(prompt + text)
    x = ids[-T - 1 : -1]
    probs = model(torch.tensor([x]))[0].softmax(-1)
    for k, token in enumerate(ids[-n:]):
        total -= math.log(probs[len(x) - n + k, token].item())
    return total / n


def by_loss(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(prompt + text))[-model.config.block_size - 1 :]
    logits = model(ids[None, :-1])[0]
    each = logits.logsumexp(-1) - logits[torch.arange(len(ids) - 1), ids[1:]]
    return each[-len(text) :].mean().item()


@pytest.mark.parametrize("learner", [conditional_nll, by_cross_entropy, by_loop, by_loss])
def test_nll_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day40b", learner), said()
    assert said().startswith("day40b: right. ")


def parts(model: Any, tokenizer: Any, prompt: str, text: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Log-probabilities at each place of both together (cropped at the front), ids, length of the text."""
    ids = torch.tensor(tokenizer.encode(prompt + text))[-model.config.block_size - 1 :]
    full = torch.cat([model(ids[None, :-1])[0], model(ids[None, 1:])[0, -1:]])
    return full.log_softmax(-1), ids, len(text)


def each(model: Any, tokenizer: Any, prompt: str, text: str) -> torch.Tensor:
    log_probs, ids, _ = parts(model, tokenizer, prompt, text)
    return -log_probs[:-1].gather(1, ids[1:, None])[:, 0]


def made(f: Callable[[torch.Tensor, int], Any]) -> Callable[..., Any]:
    def wrong(model: Any, tokenizer: Any, prompt: str, text: str) -> Any:
        return f(each(model, tokenizer, prompt, text), len(text))

    return wrong


def own_place(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(prompt + text))
    log_probs = model(ids[None])[0].log_softmax(-1)
    return -log_probs[-len(text) :].gather(1, ids[-len(text) :, None]).mean().item()


def wrong_axis(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(prompt + text))
    log_probs = model(ids[None, :-1])[0].log_softmax(0)
    return -log_probs[-len(text) :].gather(1, ids[-len(text) :, None]).mean().item()


def no_softmax(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(prompt + text))
    return -model(ids[None, :-1])[0, -len(text) :].gather(1, ids[-len(text) :, None]).mean().item()


def text_alone(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(text))
    return model.loss(ids[None, :-1], ids[None, 1:]).item()


def no_crop(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(prompt + text))
    return F.cross_entropy(model(ids[None, :-1])[0, -len(text) :], ids[-len(text) :]).item()


def crop_then_drop(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    ids = torch.tensor(tokenizer.encode(prompt + text))[-model.config.block_size :]
    return F.cross_entropy(model(ids[None, :-1])[0, -len(text) :], ids[-len(text) :]).item()


def first_of_prompt(model: Any, tokenizer: Any, prompt: str, text: str) -> float:
    return conditional_nll(model, tokenizer, prompt[: model.config.block_size - len(text)], text)


WRONG_NLL: dict[str, tuple[Callable[..., Any], str]] = {
    "with the prompt": (made(lambda e, n: e.mean()), "runs over the prompt's own characters"),
    "sum": (made(lambda e, n: e[-n:].sum()), "That is the sum over the text"),
    "divided by all": (made(lambda e, n: e[-n:].sum() / (len(e) + 1)), "length of prompt and text together"),
    "first missing": (made(lambda e, n: e[-n + 1 :].mean()), "first character of the text is missing"),
    "one too many": (made(lambda e, n: e[-n - 1 :].mean()), "One character too many"),
    "last missing": (made(lambda e, n: e[-n:-1].mean()), "last character of the text is missing"),
    "sign": (made(lambda e, n: -e[-n:].mean()), "The sign is wrong"),
    "bits": (made(lambda e, n: e[-n:].mean() / math.log(2)), "That is in bits"),
    "perplexity": (made(lambda e, n: e[-n:].mean().exp()), "That is the perplexity"),
    "log of the mean": (made(lambda e, n: -(-e[-n:]).exp().mean().log()), "take the logarithm of each"),
    "not averaged": (made(lambda e, n: e[-n:]), "returned a tensor of shape"),
    "own place": (own_place, "bet on the *next* token"),
    "over positions": (wrong_axis, "The softmax runs over the positions"),
    "no softmax": (no_softmax, "The softmax is missing"),
    "text alone": (text_alone, "The prompt is not in view"),
    "no crop": (no_crop, "does not fit into the window"),
    "crop first": (crop_then_drop, "one token of the prompt less than fits"),
    "beginning of the prompt": (first_of_prompt, "you keep the beginning; what stands right before"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_NLL)
def test_nll_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day40b", WRONG_NLL, mistake)


def test_nll_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day40b", WRONG_NLL, least=14)
