"""Save and load: everything a run needs to go on, or a reader needs to sample, in one file.

A checkpoint is a plain dict of tensors, numbers and text, so it loads with `weights_only=True`: a file from a
stranger can hold wrong numbers but cannot run code. It is written beside its final place and then renamed,
so a crash at any moment leaves either the old file or the new one, never half of one.
"""

import hashlib
import os
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .errors import CourseError
from .model import GPT, GPTConfig
from .tokenizer import Tokenizer, tokenizer_from_dict

FORMAT = 1  # raised when the meaning of a key changes


@dataclass
class Checkpoint:
    """What a file held: a model ready to use, its tokenizer if it had one, and the state of its training."""

    model: GPT
    tokenizer: Tokenizer | None = None
    training: dict[str, Any] = field(default_factory=dict)  # the trainer's own state; empty in exported weights


def write_atomically(path: str | Path, write: Any) -> None:
    """Call `write(file)` on a temporary file in the same folder, flush it to disk, then rename it to `path`.

    Raises CourseError if the folder cannot be written or the disk is full; the old file is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise CourseError(f"Cannot write {path} ({e.strerror or e}): free some space or choose another folder.") from e
    finally:
        temporary.unlink(missing_ok=True)


def save(
    path: str | Path,
    model: GPT,
    tokenizer: Tokenizer | None = None,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint atomically. `dtype=torch.float16` halves the weights of a file meant for sampling only."""
    weights = {k: v.detach().to("cpu", dtype if v.is_floating_point() else None) for k, v in model.state_dict().items()}
    if model.config.tie_weights:
        weights.pop("transformer.wte.weight")  # the same matrix as lm_head.weight: store it once
    content = {
        "format": FORMAT,
        "config": asdict(model.config),
        "model": weights,
        "tokenizer": tokenizer.to_dict() if tokenizer else None,
        "training": training or {},
    }
    write_atomically(path, lambda f: torch.save(content, f))


def load(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint; weights come back in float32, in evaluation mode, on `device`.

    Raises CourseError if the file is missing, damaged, of another kind, or does not fit its own configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"There is no checkpoint at {path}; train one with llmcourse train, or check the path.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, OSError) as e:
        raise CourseError(
            f"{path} is damaged or not a checkpoint of this course; it was not loaded and nothing in it was run."
        ) from e
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CourseError(f"{path} is not a checkpoint of this course (format {FORMAT}); it was not loaded.")
    try:
        model = GPT(GPTConfig.from_dict(content["config"]))
        weights = dict(content["model"])
        if model.config.tie_weights:
            weights["transformer.wte.weight"] = weights["lm_head.weight"]
        model.load_state_dict(weights)
        tokenizer = tokenizer_from_dict(content["tokenizer"]) if content["tokenizer"] else None
        training = dict(content["training"])
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as e:
        raise CourseError(f"{path} does not fit its own configuration, so it was not loaded: save it again.") from e
    return Checkpoint(model.to(device).eval(), tokenizer, training)


def sha256(path: str | Path) -> str:
    """Hash of a file, as listed beside every file of weights that the course ships."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
