"""Day 33: right answers in several styles pass, and each typical mistake is named in its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmcourse.checks import check, day33
from llmcourse.checks.day33 import Counts
from llmcourse.model import GPT, GPTConfig

Say = Callable[[], str]


def by_building(config: GPTConfig, batch_size: int, fused: bool = True) -> int:
    with torch.device("meta"):
        n = GPT(config).num_params()
    c, tokens = config, batch_size * config.block_size
    kept = c.n_layer * (16 * c.n_embd + c.n_head) + 2 * c.n_embd + c.vocab_size
    maps = 0 if fused else batch_size * c.n_layer * c.n_head * c.block_size**2
    return 16 * n + 4 * (tokens * kept + maps)


def by_parts(config: GPTConfig, batch: int, fused: bool = True) -> float:
    B, T, C = batch, config.block_size, config.n_embd
    parts = {
        "four": 16.0 * day33.parameters(config),
        "attention": 4.0 * B * T * 5 * C * config.n_layer,
        "mlp": 4.0 * B * T * 9 * C * config.n_layer,
        "norms": 4.0 * B * T * C * (2 * config.n_layer + 1),
        "end": 4.0 * B * T * (C + config.vocab_size),
        "maps": 0.0 if fused else 4.0 * B * config.n_layer * config.n_head * T**2,
    }
    return sum(parts.values())


def rough(config: GPTConfig, batch_size: int, fused: bool) -> float:
    return 1.08 * by_parts(config, batch_size, fused)


class Memory:
    def __call__(self, config: GPTConfig, batch_size: int, fused: bool = True) -> torch.Tensor:
        return torch.tensor(by_parts(config, batch_size, fused), dtype=torch.float64)


@pytest.mark.parametrize("learner", [day33.memory, by_building, by_parts, rough, Memory()])
def test_memory_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day33", learner), said()
    assert said().startswith("day33: right. ")


def test_the_reference_agrees_with_the_count_to_two_percent() -> None:
    for config, B in day33.SHAPES:
        for fused in (True, False):
            truth = day33.measured(config, B, fused)
            assert abs(day33.memory(config, B, fused) / truth - 1) < 0.02
            assert abs(day33.formula(config, B, fused, Counts()) / truth - 1) < 0.02


def test_fake_tensors_count_what_real_ones_take() -> None:
    config = GPTConfig(65, 32, 2, 2, 32)
    torch.manual_seed(1)
    model = GPT(config)
    own, seen, hold = {p.untyped_storage()._cdata for p in model.parameters()}, {}, []

    def pack(t: torch.Tensor) -> torch.Tensor:
        hold.append(t.untyped_storage())
        seen[hold[-1]._cdata] = hold[-1].nbytes()
        return t

    idx = torch.zeros(4, 32, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model.loss(idx, idx)
    real = sum(n for key, n in seen.items() if key not in own)
    assert day33.measured(config, 4, True) == real + 16 * model.num_params()


def changed(**counts: Any) -> Callable[..., float]:
    def memory(config: GPTConfig, batch_size: int, fused: bool = True) -> float:
        return day33.formula(config, batch_size, fused, Counts(**counts))

    return memory


nothing = {"attention": 0.0, "mlp": 0.0, "norms": 0.0, "head": 0.0, "maps": "never"}
WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "no gradients": (changed(copies=3), "The gradients are missing"),
    "one moment, no gradients": (changed(copies=2), "too much is missing"),
    "weights only": (changed(copies=1), "Only the weights are counted once"),
    "no parameters": (changed(copies=0), "The parameters are left out altogether"),
    "2 bytes": (changed(bytes=2), "It counts 2 bytes a number"),
    "numbers": (changed(bytes=1), "It counts numbers, not bytes"),
    "8 bytes": (changed(bytes=8), "It counts 8 bytes"),
    "MB": (changed(bytes=4e-6), "The answer is in MB;"),
    "MiB": (changed(bytes=4 / 2**20), "The answer is in MiB"),
    "GB": (changed(bytes=4e-9), "The answer is in GB;"),
    "GiB": (changed(bytes=4 / 2**30), "The answer is in GiB"),
    "no maps": (changed(maps="never"), "is never counted"),
    "always maps": (changed(maps="always"), "is always counted"),
    "fused swapped": (changed(maps="swapped"), "the wrong way round"),
    "maps of one head": (changed(maps="one head"), "is counted for one head"),
    "batch twice": (changed(batch=2), "The batch counts twice"),
    "no batch": (changed(batch=0), "The batch size has no effect"),
    "no context": (changed(context=0), "The context length is missing"),
    "context twice": (changed(context=2), "The context counts twice"),
    "MLP input only": (changed(mlp=1), "The MLP's wide part is missing"),
    "half the MLP": (changed(mlp=5), "Half of the MLP's wide part"),
    "no MLP": (changed(mlp=0), "The MLP's activations are missing"),
    "no attention": (changed(attention=0), "The attention's own activations"),
    "B T C L": (changed(**nothing | {"mlp": 1.0}), "is a sixteenth of what"),
    "one layer": (changed(layers=False), "The layers are forgotten"),
    "no head": (changed(head=0), "What the head and the loss keep"),
    "no activations": (changed(**nothing), "The activations are left out"),
    "fused ignored": (lambda config, batch_size, fused: 3 * by_parts(config, batch_size), "`fused` changes nothing"),
    "something else": (lambda config, batch_size, fused: 1.5 * by_parts(config, batch_size, fused), "counted are"),
    "nothing": (lambda config, batch_size, fused: None, "returned None"),
    "a dict": (lambda config, batch_size, fused: {}, "of type dict"),
    "negative": (lambda config, batch_size, fused: -1, "no amount of memory"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_memory_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day33", WRONG, mistake)


def test_memory_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day33", WRONG, least=20)
