"""Day 29: a project passes as a dict or as a folder, in several styles; each typical mistake gets its own sentence."""
# ruff: noqa: E501 (a table of mistakes, one a line)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcourse.checks import Wrong, check
from llmcourse.checks.day29 import KEPT, judge_imports, judge_paths, parsed, probe, project, sources_of

Say = Callable[[], str]
Sources = dict[str, str]


def edited(*changes: tuple[str, str, str]) -> Callable[[], Sources]:
    """The reference with pieces of text replaced: (file, old, new)."""
    sources = project()
    for name, old, new in changes:
        assert old in sources[name], (name, old)
        sources[name] = sources[name].replace(old, new)
    return lambda: sources


def added(**files: str) -> Callable[[], Sources]:
    return lambda: project() | {f"{name}.py": source for name, source in files.items()}


def without(name: str) -> Callable[[], Sources]:
    return lambda: {k: v for k, v in project().items() if k != name}


CONFIG = "from dataclasses import dataclass\n"


def with_config_file() -> Sources:
    """Both configurations in a file of their own, the loop with a closure, other names inside."""
    sources = project()
    config = CONFIG
    for name in ("model.py", "train.py"):
        start = sources[name].index("@dataclass")
        end = sources[name].index("class Model(" if name == "model.py" else "def train")
        config += "\n" + sources[name][start:end]
        sources[name] = sources[name][:start] + sources[name][end:]
    sources["model.py"] = sources["model.py"].replace(CONFIG, "from config import ModelConfig\n")
    sources["train.py"] = sources["train.py"].replace("from data import", "from config import TrainConfig\nfrom data import")
    return sources | {"config.py": config}


def in_loops() -> Sources:
    """Another model class, a stack of slices, an inference mode."""
    sources = project()
    sources["data.py"] = """
import torch
def get_batch(ids, *, block_size, batch_size, generator=None):
    starts = torch.randint(len(ids) - block_size, (batch_size, 1), generator=generator)[:, 0].tolist()
    return (torch.stack([ids[i:i + block_size] for i in starts]),
            torch.stack([ids[i + 1:i + 1 + block_size] for i in starts]))
"""
    sources["generate.py"] = sources["generate.py"].replace("no_grad", "inference_mode")
    return sources


RIGHT: dict[str, Callable[[], Any]] = {
    "reference": project, "config file": with_config_file, "loops": in_loops,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def probed_together() -> None:
    """One other process for all projects of this file: each would load PyTorch again, which takes seconds."""
    projects = []
    for make in [*RIGHT.values(), *(make for make, _ in WRONG.values())]:
        try:
            sources = sources_of(make())
            trees = parsed(sources)
            judge_imports(trees)
            judge_paths(trees)
        except Wrong:
            continue
        projects.append(sources)
    probe(projects, seconds=300)


@pytest.mark.parametrize("style", RIGHT)
def test_project_passes_in_any_style(style: str, said: Say) -> None:
    assert check("day29", RIGHT[style]), said()
    assert said().startswith("day29: right. ")


def test_the_stub_is_named(said: Say) -> None:
    def project_files() -> Sources:
        raise NotImplementedError

    assert not check("day29", project_files)
    assert "still raises NotImplementedError" in said()


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing returned": (lambda: None, "returned None"),
    "a list": (lambda: ["model.py"], "a dict from file names to sources"),
    "no such folder": (lambda: "no_such_folder", "There is no folder"),
    "a file missing": (without("generate.py"), "The file generate.py is missing"),
    "line breaks lost": (lambda: {k: v.replace("\n", " ") for k, v in project().items()}, "line breaks"),
    "only a comment": (lambda: project() | {"data.py": "# data: import torch"}, "one long comment"),
    "a missing module": (edited(("generate.py", "import torch\n", "import torch\nfrom tokenizer import encode\n")), "no such file or library"),
    "a circle": (edited(("data.py", "import torch\n", "import torch\nimport train\n")), "run in a circle, data → train → data"),
    "generate imports train": (edited(("generate.py", "import torch\n", "import torch\nfrom train import TrainConfig\n")), "would load the training too"),
    "model imports data": (edited(("model.py", "from torch", "import data\nfrom torch")), "knows too much"),
    "an absolute path": (edited(("train.py", '"input.txt"', '"/home/me/input.txt"')), "the absolute path"),
    "a relative import": (edited(("train.py", "from model", "from .model")), "a relative import"),
    "trains at import": (edited(("train.py", 'if __name__ == "__main__":\n    with open("input.txt") as file:\n        print(train(file.read(), TrainConfig(), "model.pt"))', 'train("ab" * 50, TrainConfig(), "model.pt")')), "Importing train trains (20"),
    "opens at import": (edited(("data.py", "import torch\n", 'import torch\ntext = open("input.txt").read()\n')), "opens a file (input.txt)"),
    "prints at import": (edited(("model.py", "class Model(", 'print("model is here")\n\nclass Model(')), "prints 'model is here'"),
    "a name missing": (edited(("data.py", "def get_batch", "def batch"), ("train.py", "import get_batch", "import batch as get_batch")), "has no get_batch"),
    "no dataclass": (edited(("train.py", "@dataclass(frozen=True, kw_only=True)\n", "")), "is not a dataclass"),
    "mixed configuration": (edited(("model.py", "    n_embd: int = 16", "    n_embd: int = 16\n    batch_size: int = 4")), "batch_size belongs to a run"),
    "mixed the other way": (edited(("train.py", "    lr: float", "    dropout: float = 0.1\n    lr: float")), "belongs to the model"),
    "not frozen": (edited(("train.py", "frozen=True, ", "")), "can be changed after it was made"),
    "sizes by position": (edited(("data.py", "*, ", "")), "can swap them without an error"),
    "sizes from a global": (edited(("data.py", "*, batch_size, block_size", ""), ("data.py", "def", "batch_size, block_size = 4, 8\n\ndef")), "takes no argument batch_size"),
    "sizes swapped": (edited(("data.py", "len(ids) - block_size, (batch_size", "len(ids) - batch_size, (block_size"), ("data.py", "arange(block_size", "arange(batch_size")), "gives shapes (5, 3)"),
    "targets not shifted": (edited(("data.py", "window[:, 1:]", "window[:, :-1]")), "moved on by one"),
    "width from a global": (edited(("model.py", "class Model(", "n_embd = 16\n\nclass Model("), ("model.py", "config.n_embd", "n_embd")), "not from global names"),
    "seed too late": (edited(("train.py", "    torch.manual_seed(config.seed)\n", ""), ("train.py", "    optimizer =", "    torch.manual_seed(config.seed)\n    optimizer =")), "Already the first loss"),
    "no zero_grad": (edited(("train.py", "optimizer.zero_grad()", "pass")), "and part at step"),
    "tensors returned": (edited(("train.py", "loss.item()", "loss.detach()")), "as plain numbers"),
    "one loss": (edited(("train.py", "return losses", "return losses[-1:]")), "train returns 1 losses"),
    "settings ignored": (edited(("train.py", "range(config.steps)", "range(20)")), "takes its steps from"),
    "seed typed in": (edited(("train.py", "manual_seed(config.seed)", "manual_seed(29)")), "takes its seed from"),
    "context typed in": (edited(("train.py", "block_size=config.block_size", "block_size=8")), "takes its block_size from"),
    "width ignored": (edited(("train.py", ", n_embd=n_embd)", ")")), "of another width"),
    "no checkpoint": (edited(("train.py", 'config)}, path)', 'config)}, "other.pt")')), "wrote no checkpoint"),
    "an object inside": (edited(("train.py", "asdict(model.config)", "model.config")), "weights_only=True"),
    "checkpoint without config": (edited(("generate.py", '**saved["config"]', 'vocab_size=len(saved["chars"])')), "must carry its configuration"),
    "wrong key": (edited(("generate.py", 'saved["model"]', 'saved["model_state"]')), "fails on what train has written"),
    "model only": (edited(("generate.py", 'return model.eval(), saved["chars"]', "return model.eval()")), "return two things"),
    "characters of the alphabet": (edited(("generate.py", 'eval(), saved["chars"]', 'eval(), list("abc")')), "the characters of the text"),
    "no eval": (edited(("generate.py", "model.eval()", "model")), "still in training mode"),
    "prompt counted": (edited(("generate.py", "idx[1:]", "idx")), "exactly 30"),
    "gradients": (edited(("generate.py", "@torch.no_grad()\n", "")), "records gradients"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day29", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day29", WRONG, least=30)


def test_a_folder_will_do(tmp_path: Path, said: Say) -> None:
    KEPT.clear()  # this one goes the whole way
    for name, source in project().items():
        (tmp_path / name).write_text(source)
    assert check("day29", lambda: tmp_path), said()
