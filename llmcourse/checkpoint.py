"""Save and load: everything a run needs to go on, or a reader needs to sample, in one file.

A checkpoint is a plain dict of tensors, numbers and text, so it loads with `weights_only=True`: a file from a
stranger can hold wrong numbers but cannot run code. It is written atomically (`files.py`), so a crash at any
moment leaves either the old checkpoint or the new one, never half of one.
"""

import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .errors import CourseError
from .files import atomic_file
from .model import GPT, GPTConfig
from .tokenizer import Tokenizer, tokenizer_from_dict

FORMAT = 1  # raised when the meaning of a key changes
MOST_POSITIONS = 2**30  # layers × tokens × channels: tables of positions are computed, whatever the file's size


@dataclass
class Checkpoint:
    """What a file held: a model ready to use, its tokenizer if it had one, and the state of its training."""

    model: GPT
    tokenizer: Tokenizer | None = None
    training: dict[str, Any] = field(default_factory=dict)  # the trainer's own state; empty in exported weights


def save(
    path: str | Path,
    model: GPT,
    tokenizer: Tokenizer | None = None,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint atomically. `dtype=torch.float16` halves the weights of a file meant for sampling only.

    `training` may hold tensors, numbers, text, lists and dicts: nothing else loads again.
    """
    weights = {k: v.detach().to("cpu", dtype) for k, v in model.state_dict().items()}
    if model.config.tie_weights:
        weights.pop("transformer.wte.weight")  # the same matrix as lm_head.weight: store it once
    content = {
        "format": FORMAT,
        "config": asdict(model.config),
        "model": weights,
        "tokenizer": tokenizer.to_dict() if tokenizer else None,
        "training": training or {},
    }
    with atomic_file(path) as file:
        torch.save(content, file)


def load(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint; weights come back in float32, in evaluation mode, on `device`.

    Raises CourseError if the file is missing, damaged, of another kind, or does not fit its own configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"There is no checkpoint at {path}; train one with llmcourse train, or check the path.")
    content = read(path)
    try:
        if not isinstance(content["model"], dict) or not isinstance(content["training"], dict):
            raise TypeError("weights and state have names")
        config, weights = GPTConfig.from_dict(content["config"]), dict(content["model"])
        if config.tie_weights:
            weights["transformer.wte.weight"] = weights["lm_head.weight"]
        check_size(config, weights, path.stat().st_size)
        model = GPT(config)
        model.load_state_dict(weights)
        tokenizer = tokenizer_from_dict(content["tokenizer"]) if content["tokenizer"] is not None else None
        if tokenizer and tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError("the tokenizer has more tokens than the model")
        training = dict(content["training"])
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as e:
        raise CourseError(f"{path} does not fit its own configuration, so it was not loaded: save it again.") from e
    return Checkpoint(model.to(device).eval(), tokenizer, training)


def check_size(config: GPTConfig, weights: dict[str, Any], file_size: int) -> None:
    """Raise ValueError unless `weights` are those of `config`, and numbers that a file of this size can hold.

    A few bytes can declare a model that fills any memory, and one number can pose as a matrix of any size. So nothing
    is built before its size is known.
    """
    tables = config.n_layer * config.block_size * config.n_embd
    if max(config.n_layer, config.ngram) > len(weights) or tables > MOST_POSITIONS:
        raise ValueError("the configuration is larger than the file")
    with torch.device("meta"):  # shapes without numbers
        shapes = {name: w.shape for name, w in GPT(config).state_dict().items()}
    if {name: w.shape for name, w in weights.items()} != shapes:
        raise ValueError("the weights are those of another configuration")
    if not all(w.is_floating_point() for w in weights.values()):
        raise ValueError("weights are floating-point numbers")
    if sum(w.numel() for w in weights.values()) > 2 * file_size:  # a byte each at least; a tied matrix counts twice
        raise ValueError("the weights are larger than the file")


def read(path: Path) -> dict[str, Any]:
    """The plain dict that `save` wrote, or a CourseError; nothing in the file is ever executed."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; only opening it can be a matter of permissions)
    except OSError as e:
        raise CourseError(f"Cannot read {path} ({e.strerror or e}): check the path and its permissions.") from e
    try:
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign files; the sentence below says it all
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # there is no end to the errors that a damaged or hostile file can cause
        raise CourseError(
            f"{path} is damaged or not a checkpoint of this course; it was not loaded and nothing in it was run."
        ) from e
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise CourseError(f"{path} is not a checkpoint of this course; it was not loaded.")
    if version != FORMAT:
        raise CourseError(
            f"{path} has format {version} and this version of llmcourse reads format {FORMAT}: "
            "use the version that wrote it, or train again."
        )
    return content
