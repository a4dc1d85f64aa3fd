"""Recipes: every training run that the course names, in one table.

A recipe is a model shape, training settings and a corpus. `tiny`, `small` and `medium` are the presets of
`llmcourse train`; the others are recorded runs and benchmark settings. What a lesson trains live it writes out itself.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from . import data
from .device import precision_policy, seconds_per_call
from .errors import CourseError
from .model import GPT, GPTConfig
from .tokenizer import CharTokenizer
from .trainer import TrainConfig, configure_optimizers
from .universe import Universe


@dataclass(frozen=True)
class Recipe:
    """A named run: `shape` and `training` are the settings that differ from GPTConfig's and TrainConfig's defaults."""

    about: str
    shape: dict[str, Any]
    training: dict[str, Any]
    corpus: str = "shakespeare"
    ship_weights: bool = False  # keep the trained model, in fp16, beside the recorded log
    prompt: str = "ROMEO:"  # what the samples along a recorded run begin with
    sample_length: int = 300  # and how long they are, in tokens
    train_tokens: int | None = None  # train on this many tokens from the start of the training split; None: on all

    def with_settings(self, **changes: Any) -> "Recipe":
        """The same recipe with some settings of either kind changed, by name; an unknown name is a CourseError.

        `train_tokens` can be changed too.
        """
        shape, training = dict(self.shape), dict(self.training)
        train_tokens = changes.pop("train_tokens", self.train_tokens)
        for name, value in changes.items():
            if name in {f.name for f in dataclasses.fields(TrainConfig)}:
                training[name] = value
            elif name in {f.name for f in dataclasses.fields(GPTConfig)} - {"vocab_size"}:
                shape[name] = value
            else:
                raise CourseError(f"There is no setting {name!r}; the settings are those of GPTConfig and TrainConfig.")
        return dataclasses.replace(self, shape=shape, training=training, train_tokens=train_tokens)

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The model's configuration for a tokenizer with `vocab_size` tokens."""
        return GPTConfig(vocab_size=vocab_size, **self.shape)

    def train_config(self) -> TrainConfig:
        """The settings of the training run."""
        return TrainConfig(**self.training)


def prepare(recipe: Recipe, corpus: str | None = None) -> tuple[GPT, CharTokenizer, torch.Tensor, torch.Tensor]:
    """The untrained model, the tokenizer, and the training and validation ids of a recipe; seeds torch."""
    texts = split_text(recipe.corpus if corpus is None else corpus)
    tokenizer = CharTokenizer.from_text("".join(texts))
    train, val = (torch.tensor(tokenizer.encode(text)) for text in texts)
    torch.manual_seed(recipe.train_config().seed)
    return GPT(recipe.model_config(tokenizer.vocab_size)), tokenizer, train[: recipe.train_tokens], val


def split_text(corpus: str) -> tuple[str, str]:
    """Training and validation text of a corpus; the books of the universe are cut between books."""
    if corpus == "universe":
        train, *held_out = Universe().split()
        return train, "".join(held_out)
    return data.split(data.load(corpus))


def estimate_seconds(recipe: Recipe, device: torch.device, vocab_size: int = 65) -> float:
    """Training time of a recipe on this machine, in seconds, from a few real steps (without evaluations).

    A step is measured on a part of the batch and scaled up, so that the estimate itself takes seconds.
    """
    config = recipe.train_config()
    rows = config.batch_size // config.accumulation_steps  # what has to fit into memory at once
    rows = rows if device.type == "cuda" else min(rows, 4)
    model = GPT(recipe.model_config(vocab_size)).to(device)
    optimizers = configure_optimizers(model, config)
    x = torch.randint(vocab_size, (rows, model.config.block_size), device=device)
    policy = precision_policy(device, config.precision)

    def forward_backward() -> None:
        with policy.autocast(device):
            loss = model.loss(x, x)
        loss.backward()

    def update() -> None:
        for optimizer in optimizers:
            optimizer.step()

    pieces = seconds_per_call(forward_backward, device, repeats=3, warmup=1) * config.batch_size / rows
    return config.max_steps * (pieces + seconds_per_call(update, device, repeats=3, warmup=1))


CPU_SHAPE = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64}  # nanoGPT's CPU recipe
GALLERY_SHAPE = {"n_layer": 4, "n_head": 4, "n_embd": 192, "block_size": 128}
# What the speed-running community found, in the switches of this package.
FAST_SHAPE = {
    "position": "rope",
    "norm": "rmsnorm",
    "activation": "relu2",
    "qk_norm": True,
    "bias": False,
    "tie_weights": False,
    "zero_init": True,
}
FAST_TRAINING = {"optimizer": "muon", "muon_lr": 0.01, "learning_rate": 2e-2, "warmup_steps": 5, "schedule": "linear"}

RECIPES: dict[str, Recipe] = {
    "tiny": Recipe(
        "2 layers, 128 wide: a few minutes on a laptop's CPU.",
        {"n_layer": 2, "n_head": 2, "n_embd": 128, "block_size": 64},
        {"max_steps": 3000, "batch_size": 32, "learning_rate": 3e-3},
    ),
    "small": Recipe(
        "4 layers, 256 wide: a few minutes on a T4, some hours on a CPU.",
        {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 128, "dropout": 0.1},
        {"max_steps": 3000, "batch_size": 64, "learning_rate": 2e-3},
    ),
    "medium": Recipe(
        "6 layers, 384 wide, 10.7 million parameters: for a GPU.",
        {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "dropout": 0.2},
        {"max_steps": 5000, "batch_size": 64, "learning_rate": 1e-3, "min_lr": 1e-4},
    ),
    "canonical": Recipe(
        "GPT-2's architecture, 4 layers, 128 wide, context 64, with a start and a schedule that fit its size.",
        CPU_SHAPE | {"init_std": 0.05},  # 0.02 · √(768 / 128): GPT-2's start, for another width
        {"max_steps": 780, "learning_rate": 4e-3, "beta1": 0.8, "warmup_steps": 50, "schedule": "linear"},
    ),
    "fast": Recipe(
        "As wide and as deep, with rotary positions, QK-norm, Muon and tables for runs of two to four characters.",
        CPU_SHAPE | FAST_SHAPE | {"ngram": 4},
        FAST_TRAINING | {"max_steps": 95, "muon_rounds": 3, "beta1": 0.8},
    ),
    "cpu-gpt2": Recipe(
        "GPT-2's architecture, 4 layers, 192 wide, context 128: a quarter of an hour on two CPU cores.",
        GALLERY_SHAPE,
        {"max_steps": 2000, "batch_size": 16, "learning_rate": 3e-3, "schedule": "linear", "eval_interval": 200},
        ship_weights=True,
    ),
    "cpu-fast": Recipe(
        "The same size with the parts of the fast recipe: a quarter of an hour on two CPU cores.",
        GALLERY_SHAPE | FAST_SHAPE,
        FAST_TRAINING | {"max_steps": 2000, "batch_size": 16, "eval_interval": 200},
        ship_weights=True,
    ),
    "growth": Recipe(
        "From noise to verse: 4 layers, 128 wide, and 4,000 characters of its own at every evaluation.",
        CPU_SHAPE,
        {"max_steps": 5000, "batch_size": 24, "learning_rate": 2e-3, "min_lr": 1e-4, "eval_interval": 200},
        sample_length=4000,
    ),
    "universe": Recipe(
        "The 100 books whose entropy is known: 3 layers, 96 wide, context 256, some minutes on a CPU.",
        {"n_layer": 3, "n_head": 4, "n_embd": 96, "block_size": 256} | FAST_SHAPE,
        FAST_TRAINING | {"max_steps": 1000, "batch_size": 8, "muon_rounds": 3, "eval_interval": 50},
        corpus="universe",
        prompt="THE CAT AND THE KING\n",
    ),
}
PRESETS = ("tiny", "small", "medium")


def get(name: str) -> Recipe:
    """The recipe called `name`; CourseError names the ones there are."""
    if not isinstance(name, str) or name not in RECIPES:
        raise CourseError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
