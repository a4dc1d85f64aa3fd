"""Checker of day 29: a script cut into modules.

The sources are first read with `ast`: who imports whom, what is missing, what is typed in. Then a Python of its own
imports and runs them in a folder of their own (`python -m llmcourse.checks.day29 FOLDER`), so that nothing the learner
wrote touches this process, and answers with one sentence, or with nothing if all is right.
"""

import ast
import builtins
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import Wrong, exercise, first_line

SCRIPT = """\
import torch
import torch.nn.functional as F
from torch import nn

config = {"n_embd": 16, "dropout": 0.1, "block_size": 8,
          "batch_size": 4, "lr": 0.5, "steps": 20}
torch.manual_seed(29)
text = open("input.txt").read()
chars = sorted(set(text))
ids = torch.tensor([chars.index(c) for c in text])

model = nn.Sequential(
    nn.Embedding(len(chars), config["n_embd"]),
    nn.Dropout(config["dropout"]),
    nn.Linear(config["n_embd"], len(chars)),
)
optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
losses = []
for step in range(config["steps"]):
    T, B = config["block_size"], config["batch_size"]
    starts = torch.randint(len(ids) - T, (B, 1))
    window = ids[starts + torch.arange(T + 1)]
    x, y = window[:, :-1], window[:, 1:]
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(losses)
torch.save(model.state_dict(), "model.pt")

model.eval()
idx = [0]
for _ in range(40):
    p = model(torch.tensor(idx[-1:])).softmax(dim=-1)
    idx.append(torch.multinomial(p[0], 1).item())
print("".join(chars[i] for i in idx))
"""
WANTED = {
    "data": ("get_batch",),
    "model": ("ModelConfig", "Model"),
    "train": ("TrainConfig", "train"),
    "generate": ("load", "generate"),
}
RUN_KEYS = {"batch_size", "lr", "learning_rate", "steps", "max_steps", "seed"}
SHAPE_KEYS = {"vocab_size", "n_embd", "dropout"}
TEXT = "the quick brown fox jumps over the lazy dog. " * 20  # what the probe trains on
KEPT: dict[str, str] = {}  # what the probe said of sources that were handed in before
SECONDS = 90  # a busy machine needs many of them to load PyTorch


def project() -> dict[str, str]:
    """The script in four files."""
    sources = {}
    sources["data.py"] = """\
import torch

def get_batch(ids, *, batch_size, block_size):
    starts = torch.randint(len(ids) - block_size, (batch_size, 1))
    window = ids[starts + torch.arange(block_size + 1)]  # (B, T + 1)
    return window[:, :-1], window[:, 1:]
"""
    sources["model.py"] = """\
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    vocab_size: int
    n_embd: int = 16
    dropout: float = 0.1

class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Embedding(config.vocab_size, config.n_embd),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_embd, config.vocab_size),
        )

    def forward(self, idx):  # (B, T) -> (B, T, V)
        return self.layers(idx)
"""
    sources["train.py"] = """\
from dataclasses import asdict, dataclass
import torch
import torch.nn.functional as F
from data import get_batch
from model import Model, ModelConfig

@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    batch_size: int = 4
    block_size: int = 8
    lr: float = 0.5
    steps: int = 20
    seed: int = 29

def train(text, config, path, n_embd=16):
    torch.manual_seed(config.seed)
    chars = sorted(set(text))
    ids = torch.tensor([chars.index(c) for c in text])
    model = Model(ModelConfig(vocab_size=len(chars), n_embd=n_embd))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    losses = []
    for step in range(config.steps):
        x, y = get_batch(ids, batch_size=config.batch_size,
                         block_size=config.block_size)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.save({"model": model.state_dict(), "chars": chars,
                "config": asdict(model.config)}, path)
    return losses

if __name__ == "__main__":
    with open("input.txt") as file:
        print(train(file.read(), TrainConfig(), "model.pt"))
"""
    sources["generate.py"] = """\
import torch
from model import Model, ModelConfig

def load(path):
    saved = torch.load(path, weights_only=True)
    model = Model(ModelConfig(**saved["config"]))
    model.load_state_dict(saved["model"])
    return model.eval(), saved["chars"]

@torch.no_grad()
def generate(model, chars, n):
    idx = [0]
    for _ in range(n):
        p = model(torch.tensor(idx[-1:])).softmax(dim=-1)
        idx.append(torch.multinomial(p[0], 1).item())
    return "".join(chars[i] for i in idx[1:])

if __name__ == "__main__":
    print(generate(*load("model.pt"), 40))
"""
    return sources


@exercise(
    "day29",
    title="A script in modules",
    signature="project_files()",
    hints=[
        "Begin with the function that needs nothing: get_batch. Every global name it reads becomes an argument, and "
        "a bare * in front of the two sizes makes their names a must. Then Model, which asks its config. Both files "
        "contain only imports, definitions, and nothing that runs.",
        "The losses are the same to the last digit if the random numbers are drawn in the script's order: seed, then "
        "the model's weights, then for each step the batch and the dropout. Everything that runs goes into train(), "
        'and a program\'s own lines under if __name__ == "__main__":.',
        'torch.save({"model": model.state_dict(), "config": asdict(model.config), "chars": chars}, path) in train; in '
        'load: Model(ModelConfig(**saved["config"])), load_state_dict, eval(); generate under torch.no_grad().',
    ],
    solution=project,
    right="Nothing happens at import, each file can be asked alone, and the losses are the script's to the last digit.",
    seconds=SECONDS + 10,
)
def check_project(learner: Callable[..., Any]) -> None:
    sources = sources_of(learner())
    trees = parsed(sources)
    judge_imports(trees)
    judge_paths(trees)
    if text(sources) not in KEPT:
        probe([sources])
    if said := KEPT[text(sources)]:
        raise Wrong(said)


# ---- What can be read off the sources ------------------------------------------------------------------------


def sources_of(answer: Any) -> dict[str, str]:
    """File name -> text, from a dict or from a folder."""
    if answer is None:
        raise Wrong("project_files returned None: is there a return line at its end?")
    if isinstance(answer, str | os.PathLike):
        folder = Path(answer)
        if not folder.is_dir():
            raise Wrong(f"There is no folder {str(answer)[:80]!r}: return a dict of sources, or the path of a folder.")
        answer = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    if not isinstance(answer, dict) or not all(isinstance(x, str) for pair in answer.items() for x in pair):
        raise Wrong('It should return a dict from file names to sources, {"model.py": "import torch…", …}, or a path.')
    for name in answer:
        if not re.fullmatch(r"[A-Za-z_]\w*\.py", name):
            raise Wrong(f"{name[:60]!r} cannot be imported as a module: a file name is a plain word and .py.")
    for name in WANTED:
        if f"{name}.py" not in answer:
            raise Wrong(f"The file {name}.py is missing; there are {', '.join(answer) or 'none'}.")
    return dict(answer)


def parsed(sources: dict[str, str]) -> dict[str, ast.Module]:
    trees = {}
    for name, source in sources.items():
        try:
            tree = trees[name.removesuffix(".py")] = ast.parse(source)
        except (SyntaxError, ValueError) as e:
            line = getattr(e, "lineno", None)
            raise Wrong(f"{name} is no Python (line {line}): have its line breaks or its indentation got lost?") from e
        if not tree.body:
            raise Wrong(f"{name} holds no statement at all: it is empty, or one long comment.")
    return trees


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {(node.module or "").split(".")[0]} if node.module else {alias.name for alias in node.names}
            if node.level:
                raise Wrong(
                    "There is a relative import (from . import …): these files are no package, so write from model "
                    "import Model."
                )
    return names


def judge_imports(trees: dict[str, ast.Module]) -> None:
    graph = {name: imported(tree) for name, tree in trees.items()}
    for name, found in graph.items():
        for other in sorted(found - graph.keys()):
            if other not in sys.stdlib_module_names and importlib.util.find_spec(other) is None:
                raise Wrong(f"{name}.py imports {other}, and there is no such file or library.")
    ways = {name: way(graph, name) for name in graph}
    for name in graph:
        if circle := ways[name].get(name):
            raise Wrong(f"The imports run in a circle, {' → '.join(circle)}: move what both need into another file.")
    if path := ways["generate"].get("train"):
        raise Wrong(
            f"generate needs train ({' → '.join(path)}): whoever wants to speak would load the training too; move what "
            "it needs into another file."
        )
    for low in ("data", "train", "generate"):
        if path := ways["model"].get(low):
            raise Wrong(f"model.py knows too much ({' → '.join(path)}): the architecture imports none of the others.")


def way(graph: dict[str, set[str]], start: str) -> dict[str, list[str]]:
    """For each file that `start` reaches by one import or more, the way there."""
    found: dict[str, list[str]] = {}
    todo = [[start]]
    while todo:
        path = todo.pop(0)
        for name in sorted(graph[path[-1]] & graph.keys()):
            if name not in found:
                found[name] = [*path, name]
                todo.append(found[name])
    return found


def judge_paths(trees: dict[str, ast.Module]) -> None:
    for name, tree in trees.items():
        for node in ast.walk(tree):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and re.match(r"(/[\w.~-]+/|~/|[A-Za-z]:[\\/])", value):
                raise Wrong(
                    f"{name}.py contains the absolute path {value[:60]!r}: on another machine there is no such folder; "
                    "let the path come in as an argument."
                )


# ---- What a Python of its own finds out ----------------------------------------------------------------------


def text(sources: dict[str, str]) -> str:
    return json.dumps(sources, sort_keys=True)


def probe(projects: list[dict[str, str]], seconds: float = SECONDS) -> None:
    """Note in `KEPT` what is wrong with each project, all of them in one other process; empty if all is right."""
    with contextlib.ExitStack() as stack:
        room = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        folders = [Path(room, str(n)) for n in range(len(projects))]
        for folder, sources in zip(folders, projects, strict=True):
            folder.mkdir()
            for name, source in sources.items():
                (folder / name).write_text(source, encoding="utf-8")
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
        elsewhere = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))  # an empty folder
        try:
            done = subprocess.run(
                [sys.executable, "-m", "llmcourse.checks.day29", *map(str, folders)], cwd=elsewhere, env=environment,
                capture_output=True, encoding="utf-8", timeout=seconds, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Wrong(f"Your files still ran after {seconds:g} seconds: is there a loop that never ends?") from None
    answers = re.findall(r"^verdict: (.*)$", done.stdout, re.M)
    if len(answers) != len(projects):
        raise Wrong(f"Your files ended Python before the check was through (exit code {done.returncode}).")
    for sources, answer in zip(projects, answers, strict=True):
        KEPT[text(sources)] = str(json.loads(answer))


def verdict(folder: str) -> str:
    """Runs in the other process: the first mistake as a sentence, or an empty text."""
    sys.path.insert(0, folder)
    here = os.getcwd()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as empty:
            os.chdir(empty)
            modules = {name: quiet_import(name) for name in WANTED}
            judge_names(modules)
            judge_configs(modules)
            judge_batch(modules["data"].get_batch)
            judge_model(modules["model"])
            judge_training(modules["train"])
            judge_speaking(modules)
    except Wrong as e:
        return str(e)
    except Exception as e:
        return f"An error that the check did not expect: {told(e, folder)}."
    finally:
        os.chdir(here)
        sys.path.remove(folder)
        for name in [p.stem for p in Path(folder).glob("*.py")]:  # the next project has files of the same names
            sys.modules.pop(name, None)
    return ""


def told(error: BaseException, folder: str | None = None) -> str:
    """First line of an error and its place in the learner's files."""
    folder = folder or sys.path[0]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(folder):
            return f"{first_line(error)}, in {Path(frame.filename).name}, line {frame.lineno}"
    return first_line(error)


@contextlib.contextmanager
def during(sentence: str) -> Iterator[None]:
    """An error inside becomes `sentence` and what it was."""
    try:
        yield
    except Wrong:
        raise
    except Exception as e:
        raise Wrong(f"{sentence} ({told(e)}).") from e


def quiet_import(name: str) -> Any:
    """Import a file; Wrong if that trains, opens files or prints."""
    steps: list[int] = []
    opened: list[str] = []
    backward, original_open = torch.Tensor.backward, builtins.open

    def counted(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        steps.append(1)
        if len(steps) > 200:
            raise Wrong(f"Importing {name} starts a training: put it into a function.")
        backward(self, *args, **kwargs)

    def noted(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(file))
        return original_open(file, *args, **kwargs)

    printed = io.StringIO()
    torch.Tensor.backward, builtins.open = counted, noted  # type: ignore[method-assign]
    try:
        with contextlib.redirect_stdout(printed):
            module = importlib.import_module(name)
    except Wrong:
        raise
    except Exception as e:
        if isinstance(e, FileNotFoundError) and opened:
            raise Wrong(f"Importing {name} opens a file ({Path(opened[-1]).name}): leave that to a function.") from e
        raise Wrong(f"{name}.py cannot be imported ({told(e)}).") from e
    finally:
        torch.Tensor.backward, builtins.open = backward, original_open  # type: ignore[method-assign]
    if steps:
        raise Wrong(
            f"Importing {name} trains ({len(steps)} backward passes): what a program does stands in functions or under "
            'if __name__ == "__main__":.'
        )
    if printed.getvalue():
        raise Wrong(f"Importing {name} prints {printed.getvalue().strip()[:40]!r}: a module is silent then.")
    return module


def judge_names(modules: dict[str, Any]) -> None:
    for name, wanted in WANTED.items():
        for attribute in wanted:
            if not callable(getattr(modules[name], attribute, None)):
                raise Wrong(f"{name}.py has no {attribute}: the exercise says what stands in which file.")


def judge_configs(modules: dict[str, Any]) -> None:
    both = modules["model"].ModelConfig, modules["train"].TrainConfig
    for config in both:
        if not dataclasses.is_dataclass(config):
            raise Wrong(f"{config.__name__} is not a dataclass.")
    model, train = ({f.name for f in dataclasses.fields(config)} for config in both)
    if mixed := sorted(model & RUN_KEYS):
        raise Wrong(
            f"ModelConfig mixes two things: {mixed[0]} belongs to a run, not to the model; keep what the weights need."
        )
    if mixed := sorted(train & SHAPE_KEYS):
        raise Wrong(f"TrainConfig holds {mixed[0]}, which belongs to the model: the weights need it ever after.")
    with during("ModelConfig(vocab_size=7, n_embd=5) and TrainConfig(steps=3) should work"):
        made = both[0](vocab_size=7, n_embd=5), both[1](steps=3)
    for config, field in zip(made, ("n_embd", "steps"), strict=True):
        try:
            setattr(config, field, 4)
        except dataclasses.FrozenInstanceError:
            continue
        raise Wrong(f"A {type(config).__name__} can be changed after it was made: @dataclass(frozen=True).")


def judge_batch(get_batch: Callable[..., Any]) -> None:
    parameters = inspect.signature(get_batch).parameters
    for size in ("batch_size", "block_size"):
        if size not in parameters:
            raise Wrong(f"get_batch takes no argument {size}: it should get both sizes from its caller.")
        if parameters[size].kind is not inspect.Parameter.KEYWORD_ONLY:
            raise Wrong(
                "get_batch takes its two sizes by position too, so a caller can swap them without an error: put a bare "
                "* in front of them."
            )
    row = torch.arange(9)
    for _ in range(30):
        with during("get_batch(torch.arange(9), batch_size=3, block_size=5) fails"):
            x, y = get_batch(row, batch_size=3, block_size=5)
        if tuple(x.shape) != (3, 5) or tuple(y.shape) != (3, 5):
            raise Wrong(
                f"get_batch(ids, batch_size=3, block_size=5) gives shapes {tuple(x.shape)} and {tuple(y.shape)}, but "
                "(3, 5) twice is asked for."
            )
        if not torch.equal(y, x + 1):
            raise Wrong("The targets of get_batch are not the inputs moved on by one token.")


def judge_model(module: Any) -> None:
    logits = {}
    for n_embd in (5, 12):
        config = module.ModelConfig(vocab_size=7, n_embd=n_embd)
        with during(f"Model({config}) fails"):
            model = module.Model(config)
            logits[n_embd] = model(torch.zeros(2, 3, dtype=torch.long))
        if tuple(logits[n_embd].shape) != (2, 3, 7):
            raise Wrong(f"Model gives {tuple(logits[n_embd].shape)} for ids of shape (2, 3); it should be (2, 3, 7).")
        if sum(p.numel() for p in model.parameters()) != 14 * n_embd + 7:
            raise Wrong(
                f"With n_embd={n_embd} the model does not have the script's parameters for that width: do its sizes "
                "come from the config, and not from global names?"
            )


def script_losses() -> list[float]:
    names: dict[str, Any] = {"open": lambda name: io.StringIO(TEXT)}
    quiet = SCRIPT.replace('torch.save(model.state_dict(), "model.pt")\n', "")
    exec(quiet, names)
    losses: list[float] = names["losses"]
    return losses


def judge_training(module: Any) -> None:
    wanted = script_losses()
    with during("train(text, TrainConfig(), path) fails"):
        losses = module.train(TEXT, module.TrainConfig(), Path("first.pt"))
    if not isinstance(losses, list | tuple) or not all(isinstance(x, float) for x in losses):
        raise Wrong("train should return the list of losses, as plain numbers (loss.item()).")
    if len(losses) != len(wanted):
        raise Wrong(f"train returns {len(losses)} losses where the script makes {len(wanted)}.")
    first = next((i for i, (a, b) in enumerate(zip(losses, wanted, strict=True)) if abs(a - b) > 1e-6), None)
    if first == 0:
        raise Wrong(
            "Already the first loss is not the script's: is the seed set before the model is made, and are the random "
            "numbers drawn in the script's order?"
        )
    if first is not None:
        raise Wrong(
            f"The losses are the script's up to step {first - 1} and part at step {first}: what does the update do "
            "otherwise, or what draws random numbers between two steps?"
        )
    others: list[dict[str, float]] = [{"steps": 3}, {"batch_size": 2}, {"block_size": 5}, {"lr": 0.1}, {"seed": 5}]
    for changed in others:
        ((name, value),) = changed.items()
        with during(f"train fails with TrainConfig({name}={value})"):
            other = module.train(TEXT, module.TrainConfig(**changed), Path("second.pt"))
        if list(other) == list(losses):
            raise Wrong(f"TrainConfig({name}={value}) changes nothing: train takes its {name} from somewhere else.")


def judge_speaking(modules: dict[str, Any]) -> None:
    train, speak = modules["train"], modules["generate"]
    lines, path = "ROMEO and JULIET, " * 10, Path("third.pt")
    with during("train(text, TrainConfig(steps=2), path, n_embd=12) fails"):
        train.train(lines, train.TrainConfig(steps=2), path, n_embd=12)
    if not path.is_file():
        raise Wrong("train wrote no checkpoint to the path that it was given.")
    try:
        torch.load(path, weights_only=True)
    except Exception as e:
        raise Wrong(
            "The checkpoint does not load with weights_only=True: store plain dicts, lists, numbers and tensors, no "
            "objects of your classes (asdict(config))."
        ) from e
    try:
        loaded = speak.load(path)
    except Exception as e:
        if "size mismatch" in str(e):
            raise Wrong(
                "load builds a model of other sizes than the one that was trained: the checkpoint must carry its "
                "configuration, and load must use it."
            ) from e
        raise Wrong(f"load(path) fails on what train has written ({told(e)}).") from e
    if not isinstance(loaded, tuple) or len(loaded) != 2 or not isinstance(loaded[0], torch.nn.Module):
        raise Wrong("load should return two things: the model and its characters.")
    model, chars = loaded
    if list(chars) != sorted(set(lines)):
        raise Wrong("load does not return the characters of the text that was trained on: save them with the weights.")
    if sum(p.numel() for p in model.parameters()) != (2 * 12 + 1) * len(set(lines)):
        raise Wrong("train(…, n_embd=12) trains a model of another width: hand n_embd on to the ModelConfig.")
    if model.training:
        raise Wrong("The loaded model is still in training mode, so dropout speaks with it: call eval() in load.")
    graphs: list[bool] = []
    model.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    with during("generate(model, chars, 30) fails"):
        said = speak.generate(model, chars, 30)
    if not isinstance(said, str) or len(said) != 30 or set(said) - set(chars):
        raise Wrong("generate(model, chars, 30) should return a text of exactly 30 of these characters.")
    if any(graphs):
        raise Wrong("generate records gradients at every step: nobody will ask for them, so use torch.no_grad().")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print("\nverdict: " + json.dumps(verdict(argument)))
