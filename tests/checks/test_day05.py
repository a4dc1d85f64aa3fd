"""Day 5: the exact count passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmcourse.checks import check
from llmcourse.checks.day05 import BLOCK, SWITCHES, count_parameters, why
from llmcourse.model import CHOICES, GPT, GPTConfig

Say = Callable[[], str]


def by_building(config: GPTConfig) -> int:
    with torch.device("meta"):
        return GPT(config).num_params()


def test_reference_is_exact_for_any_configuration() -> None:
    dice = random.Random(5)
    for _ in range(60):
        H = dice.randint(1, 4)
        config = GPTConfig(
            vocab_size=dice.randint(1, 99),
            block_size=dice.randint(1, 40),
            n_layer=dice.randint(1, 3),
            n_head=H,
            n_embd=2 * H * dice.randint(1, 9),
            bias=dice.random() < 0.5,
            tie_weights=dice.random() < 0.5,
            qk_norm=dice.random() < 0.5,
            **{name: dice.choice(allowed) for name, allowed in CHOICES.items()},
        )
        assert count_parameters(config) == by_building(config), config


# ---- right answers in several styles -------------------------------------------------------------------------


def by_adding_up(config: GPTConfig) -> int:
    C, n = config.n_embd, 0
    sizes = [(config.vocab_size, C, False)]
    sizes += [(config.vocab_size, C, False)] * (not config.tie_weights)
    sizes += [(config.block_size, C, False)] * (config.position == "learned")
    for _ in range(config.n_layer):
        h = round(8 * C / 3) if config.activation == "swiglu" else 4 * C
        up = 2 * h if config.activation == "swiglu" else h
        sizes += [(C, 3 * C, config.bias), (C, C, config.bias), (C, up, config.bias), (h, C, config.bias)]
        n += 2 * config.head_dim * config.qk_norm
    n += sum(rows * columns + bias * columns for rows, columns, bias in sizes)
    norms = 2 * config.n_layer + (config.norm_position == "pre")
    norm = {"layernorm": 1 + config.bias, "rmsnorm": 1, "none": 0}[config.norm] * C
    return n + norms * norm


RIGHT = {
    "reference": count_parameters,
    "adding up": by_adding_up,
    "building": by_building,
    "partial": functools.partial(lambda extra, config: count_parameters(config) + extra, 0),
    "as a float": lambda config: float(count_parameters(config)),
}


@pytest.mark.parametrize("style", RIGHT)
def test_right_answers_pass(style: str, said: Say) -> None:
    assert check("day05", RIGHT[style]), said()
    assert said().startswith("day05: right. ")


# ---- mistakes ------------------------------------------------------------------------------------------------


def off(change: Callable[[GPTConfig], int]) -> Callable[[GPTConfig], int]:
    """The right count plus what `change` says."""
    return lambda config: count_parameters(config) + change(config)


def as_if(**settings: Any) -> Callable[[GPTConfig], int]:
    """A count that does not look at these settings."""
    return lambda config: count_parameters(replace(config, **settings))


def swiglu_only(change: Callable[[GPTConfig, int], int]) -> Callable[[GPTConfig], int]:
    return off(lambda c: c.activation == "swiglu" and c.n_layer * change(c, round(8 * c.n_embd / 3)))


def norm_biases(c: GPTConfig) -> int:
    """Biases that all norms together would have."""
    return (2 * c.n_layer + (c.norm_position == "pre")) * c.n_embd


WRONG: dict[str, tuple[Any, str]] = {
    "no return": (lambda config: None, "returned None"),
    "components": (lambda config: {"all": count_parameters(config)}, "returned a dict"),
    "text": (lambda config: f"{count_parameters(config):,}", "of type str"),
    "a half": (lambda config: count_parameters(config) + 0.5, "no part of a parameter"),
    "typed in": (lambda config: 124_439_808, "GPT-2 small's number for any configuration"),
    "no table": (off(lambda c: -c.vocab_size * c.n_embd), "the token table has a row for each token"),
    "head always": (as_if(tie_weights=False), "adds two rows"),
    "head bias": (off(lambda c: c.vocab_size), "Does the head have a bias"),
    "no positions": (as_if(position="none"), "learned positions are a table"),
    "two position tables": (off(lambda c: c.block_size * c.n_embd), "One more position should add one row"),
    "heads": (off(lambda c: c.n_head * c.n_embd), "depends on n_head"),
    "one layer": (as_if(n_layer=1), "the blocks count n_layer times"),
    "tables in every layer": (
        lambda c: count_parameters(c) + (c.n_layer - 1) * 37 * c.n_embd, "also adds a table",
    ),
    "no c_proj": (off(lambda c: -c.n_layer * c.n_embd**2), "c_proj, which mixes"),
    "half an MLP": (off(lambda c: -c.n_layer * 4 * c.n_embd**2), "the way up and the way back"),
    "no MLP widening": (off(lambda c: -c.n_layer * 6 * c.n_embd**2), "4 times as wide"),
    "no linear biases": (off(lambda c: -c.bias * c.n_layer * 9 * c.n_embd), "biases of the linear layers are missing"),
    "matrices only": (off(lambda c: -c.n_layer * 13 * c.n_embd), "only the matrices are there"),
    "no biases": (as_if(bias=False), "those of the norms too"),
    "one norm a block": (off(lambda c: -c.n_layer * 2 * c.n_embd), "a block has two norms"),
    "wide last bias": (off(lambda c: c.n_layer * 3 * c.n_embd), "the MLP's last bias"),
    "no last norm": (as_if(norm_position="post"), "the norm after the last block is missing"),
    "last norm without bias": (
        off(lambda c: -(c.norm == "layernorm" and c.norm_position == "pre" and c.bias) * c.n_embd), "and also C biases",
    ),
    "always tied": (as_if(tie_weights=True), "tie_weights=False changes nothing"),
    "biases kept": (as_if(bias=True), "bias=False changes nothing"),
    "linear biases kept": (off(lambda c: (not c.bias) * c.n_layer * 9 * c.n_embd), "lose theirs too"),
    "norm biases kept": (
        off(lambda c: (not c.bias and c.norm == "layernorm") * norm_biases(c)), "LayerNorm loses its biases too",
    ),
    "rope has a table": (
        off(lambda c: (c.position == "rope") * c.block_size * c.n_embd), 'position="rope" changes nothing',
    ),
    "sinusoids counted": (
        off(lambda c: (c.position == "sinusoidal") * c.block_size * c.n_embd), 'position="sinusoidal" changes nothing',
    ),
    "rmsnorm with biases": (
        off(lambda c: (c.norm == "rmsnorm" and c.bias) * norm_biases(c)), 'norm="rmsnorm" changes nothing',
    ),
    "last rmsnorm with biases": (
        off(lambda c: (c.norm == "rmsnorm" and c.norm_position == "pre") * c.n_embd), "is an RMSNorm too",
    ),
    "last norm stays": (
        off(lambda c: (c.norm == "none") * 2 * c.n_embd), "the norm after the last block goes too",
    ),
    "post ignored": (as_if(norm_position="pre"), 'norm_position="post" changes nothing'),
    "swiglu ignored": (as_if(activation="gelu"), 'activation="swiglu" changes nothing'),
    "two gated matrices": (swiglu_only(lambda c, h: -c.n_embd * h), "three matrices' worth"),
    "gate 4 C wide": (swiglu_only(lambda c, h: 3 * c.n_embd * (4 * c.n_embd - h)), "its width is h"),
    "gate without bias": (swiglu_only(lambda c, h: -h * c.bias), "c_fc has 2h biases"),
    "qk_norm ignored": (as_if(qk_norm=False), "qk_norm=True changes nothing"),
    "qk_norm over C": (
        off(lambda c: c.qk_norm * c.n_layer * 2 * (c.n_embd - c.head_dim)), "its norms run over one head",
    ),
    "one qk_norm": (off(lambda c: -c.qk_norm * c.n_layer * c.head_dim), "one for the queries and one for the keys"),
    "h cut, not rounded": (
        swiglu_only(lambda c, h: (8 * c.n_embd // 3 - h) * (3 * c.n_embd + 2 * c.bias)), "rounded, not cut",
    ),
    "swiglu keeps biases": (
        swiglu_only(lambda c, h: (not c.bias) * h), "Each switch alone is right, but together, swiglu and bias=False",
    ),
    "right for small ones": (off(lambda c: 7 * (c.vocab_size > 50000)), "is a size typed in"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day05", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day05", WRONG, least=30)


def test_explanations_are_complete() -> None:
    assert len(set(BLOCK.values())) == len(BLOCK)
    for name in SWITCHES:
        assert why(name, 12345) is None or "position" in name
