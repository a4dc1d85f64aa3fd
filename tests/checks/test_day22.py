"""Day 22: the right loop passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks.day22 import generate
from llmcourse.sampler import draw

Say = Callable[[], str]
Pick = Callable[[Tensor], Tensor]


def multinomial(logits: Tensor) -> Tensor:
    return torch.multinomial(logits[:, -1].softmax(-1), 1)


def loop(
    *,
    window: Callable[[Tensor, int], Tensor] = lambda idx, size: idx[:, -size:],
    pick: Pick = multinomial,
    rounds: Callable[[int], int] = lambda n: n,
    evaluate: bool = True,
    back: Callable[[bool], bool | None] = lambda was: was,
    grad: bool = False,
    returns: Callable[[Tensor, Tensor, int], Any] = lambda idx, prompt, n: idx,
) -> Callable[[Any, Tensor, int], Any]:
    """A loop with one thing changed."""

    def learner(model: Any, idx: Tensor, max_new_tokens: int) -> Any:
        prompt, was = idx, model.training
        with torch.set_grad_enabled(grad):
            if evaluate:
                model.eval()
            for _ in range(rounds(max_new_tokens)):
                token = pick(model(window(idx, model.config.block_size)))
                idx = torch.cat((idx, token), dim=1)
            mode = back(was)
            if mode is not None:
                model.train(mode)
        return returns(idx, prompt, max_new_tokens)

    return learner


def by_rows(model: Any, idx: Tensor, n: int) -> Tensor:
    """A buffer of the full length, filled in place."""
    was, T = model.training, idx.shape[1]
    model.eval()
    out = torch.zeros(len(idx), T + n, dtype=torch.long)
    out[:, :T] = idx
    with torch.inference_mode():
        for t in range(T, T + n):
            scores = model(out[:, max(0, t - model.config.block_size) : t].clone())[:, -1, :]
            out[:, t] = torch.distributions.Categorical(logits=scores).sample()
    model.train(was)
    return out


def by_recursion(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    if max_new_tokens == 0:
        return idx
    step = loop(pick=lambda logits: draw(logits[:, -1].softmax(-1)))
    return by_recursion(model, step(model, idx, 1), max_new_tokens - 1)


def by_cumsum(model: Any, idx: Tensor, n: int, temperature: float = 1.0) -> Tensor:
    def pick(logits: Tensor) -> Tensor:
        steps = (logits[:, -1] / temperature).softmax(-1).cumsum(-1)
        return torch.searchsorted(steps, torch.rand(len(steps), 1) * steps[:, -1:])

    return loop(pick=pick)(model, idx, n)


RIGHT = [generate, loop(), by_rows, by_recursion, by_cumsum]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: f.__name__)
def test_generate_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day22", learner), said()
    assert said().startswith("day22: right. ")


def crops_once(model: Any, idx: Tensor, n: int) -> Tensor:
    return loop(window=lambda idx, size: idx)(model, idx[:, -model.config.block_size :], n)


def crops_itself(model: Any, idx: Tensor, n: int) -> Tensor:
    was = model.training
    model.eval()
    with torch.no_grad():
        for _ in range(n):
            idx = idx[:, -model.config.block_size :]
            idx = torch.cat((idx, multinomial(model(idx))), dim=1)
    model.train(was)
    return idx


def in_place(model: Any, idx: Tensor, n: int) -> Tensor:
    out = loop()(model, idx, n)
    idx.fill_(0)
    return out


def one_pass(model: Any, idx: Tensor, n: int) -> Tensor:
    with torch.no_grad():
        probs = model(idx[:, -model.config.block_size :])[:, -1].softmax(-1)
    return torch.cat((idx, torch.multinomial(probs, max(n, 1), replacement=True)[:, :n]), dim=1)


def prompt_again(model: Any, idx: Tensor, n: int) -> Tensor:
    prompt = idx[:, -model.config.block_size :]
    return loop(window=lambda idx, size: prompt)(model, idx, n)


def newest_alone(model: Any, idx: Tensor, n: int) -> Tensor:
    T = idx.shape[1]
    return loop(window=lambda idx, size: idx[:, -size:] if idx.shape[1] == T else idx[:, -1:])(model, idx, n)


def first_row_only(model: Any, idx: Tensor, n: int) -> Tensor:
    window, B = lambda idx, size: idx[:1, -size:], len(idx)
    return loop(window=window, pick=lambda x: multinomial(x).expand(B, 1))(model, idx, n)


def one_throw(logits: Tensor) -> Tensor:
    steps = logits[:, -1].sort(descending=True)
    place = torch.multinomial(steps.values[:1].softmax(-1), 1)
    return steps.indices.gather(1, place.expand(len(logits), 1))


def seeded(model: Any, idx: Tensor, n: int) -> Tensor:
    torch.manual_seed(1337)
    return loop()(model, idx, n)


def padded(idx: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(idx[:, -size:], (max(0, size - idx.shape[1]), 0))


def returns_nothing(model: Any, idx: Tensor, n: int) -> None:
    loop()(model, idx, n)


def prompt_behind(idx: Tensor, prompt: Tensor, n: int) -> Tensor:
    T = prompt.shape[1]
    return torch.cat((idx[:, T:], prompt), dim=1)


def stays_behind(model: Any, idx: Tensor, n: int) -> Tensor:
    """Right for a long prompt; a short one that grows is read from its beginning for ever."""
    short = idx.shape[1] <= model.config.block_size
    return loop(window=lambda idx, size: idx[:, :size] if short else idx[:, -size:])(model, idx, n)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "no crop": (loop(window=lambda idx, size: idx), "and is handed 12: crop what it reads in every round"),
    "crop once": (crops_once, "so it happens once"),
    "crop cuts the result": (crops_itself, "The crop also cut what you return"),
    "first tokens": (loop(window=lambda idx, size: idx[:, :size]), "it reads the first 6"),
    "one too long": (loop(window=lambda idx, size: idx[:, -size - 1 :]), "The window is one too long"),
    "one too short": (loop(window=lambda idx, size: idx[:, -size + 1 :]), "the crop is one too short"),
    "last token alone": (loop(window=lambda idx, size: idx[:, -1:]), "handed the last token alone"),
    "newest token alone": (newest_alone, "From the second round on"),
    "prompt again": (prompt_again, "reads the same prompt in every round"),
    "one pass": (one_pass, "is asked once for 3 tokens"),
    "never asked": (lambda model, idx, n: torch.cat((idx, idx[:, :1].repeat(1, n)), 1), "never asked"),
    "first position": (loop(pick=lambda x: multinomial(x[:, :1])), "The bet of the first position"),
    "last but one": (loop(pick=lambda x: multinomial(x[:, -2:-1] if x.shape[1] > 1 else x)), "last but one position"),
    "argmax": (loop(pick=lambda x: x[:, -1].argmax(-1, keepdim=True)), "always takes the likeliest"),
    "uniform": (loop(pick=lambda x: torch.randint(23, (len(x), 1))), "to which the model gives no chance"),
    "softmax over the batch": (
        loop(pick=lambda x: torch.multinomial(x[:, -1].softmax(0), 1)), "to which the model gives no chance",
    ),
    "too cold": (loop(pick=lambda x: multinomial(3 * x)), "is drawn in 9"),
    "flat": (loop(pick=lambda x: multinomial((x > -20) * 20.0)), "is drawn in 5"),
    "no softmax": (loop(pick=lambda x: torch.multinomial(x[:, -1], 1)), "the softmax comes before it"),
    "dropout on": (loop(evaluate=False), "writes with dropout on"),
    "left in eval": (loop(back=lambda was: None), "is left in evaluation mode"),
    "left in train": (loop(back=lambda was: True), "is left in training mode"),
    "gradients": (loop(grad=True), "a backward pass that never comes"),
    "in place": (in_place, "changes its input idx"),
    "new ones only": (loop(returns=lambda idx, prompt, n: idx[:, prompt.shape[1] :]), "returns the new tokens only"),
    "one too few": (loop(rounds=lambda n: n - 1), "one too few"),
    "one too many": (loop(rounds=lambda n: n + 1), "one too many"),
    "first row only": (first_row_only, "1 of 64 rows"),
    "one throw for all": (loop(pick=one_throw), "same throw of the dice"),
    "seed inside": (seeded, "set none inside"),
    "padded": (loop(window=padded), "is filled up"),
    "nothing returned": (returns_nothing, "returned None"),
    "prompt behind": (loop(returns=prompt_behind), "The prompt is not what stands in front"),
    "stays at the beginning": (stays_behind, "goes on reading the beginning"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day22", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day22", WRONG, least=20)
