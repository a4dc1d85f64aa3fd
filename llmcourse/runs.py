"""Recorded runs: training too long for a page is done once, and its whole log kept.

A recorded run is one JSON file: the recipe, the code, the machine, the seeds, the log, samples along the way and
the time it took; for a few recipes the trained weights stand beside it (fp16, hash listed). Pages plot these
files and say which machine made them. A run that nobody has recorded is missing, and pages say that too.
"""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import __version__, checkpoint, recipes
from .device import describe, pick_device
from .errors import CourseError
from .files import atomic_file, plain, sha256
from .model import GPT
from .sampler import generate_text
from .tokenizer import CharTokenizer
from .trainer import Trainer

FOLDER = Path(__file__).parent / "assets" / "runs"
SAMPLE_SEED = 1


@dataclass(frozen=True)
class Run:
    """A recorded run, as its JSON file holds it. Losses are nats per token, times seconds of wall clock."""

    name: str
    recipe: dict[str, Any]
    parameters: int
    vocab_size: int
    code: dict[str, str]  # version, and a hash of the package's source
    machine: dict[str, str | int | float]
    seed: int
    seconds: float
    log: list[dict[str, Any]]  # the trainer's records; those of evaluations also hold a "sample"
    weights: dict[str, str | int] | None = None  # file, sha256, bytes

    def __post_init__(self) -> None:
        if not any("val_loss" in record for record in self.log):
            raise CourseError(f"Run {self.name!r} has no evaluation in its log: record it again.")

    @property
    def best_loss(self) -> float:
        """Lowest validation loss of the log, whole validation split."""
        return min((r["val_loss"] for r in self.log if "val_loss" in r), key=lambda loss: (math.isnan(loss), loss))

    @property
    def samples(self) -> list[tuple[int, str]]:
        """(step, text) of every sample taken along the way, all from the same prompt and seed."""
        return [(r["step"], r["sample"]) for r in self.log if "sample" in r]

    def about(self) -> str:
        """One line for a caption: what was trained, where, for how long, and how well."""
        n = self.machine["threads"]
        threads = f", {n} thread{'s' * (n != 1)}" if self.machine["device"] == "cpu" else ""
        return (
            f"{self.name}: {self.parameters:,} parameters, {self.log[-1]['step']:,} steps, seed {self.seed}, "
            f"{self.seconds / 60:.1f} minutes on {self.machine['name']}{threads}, "
            f"best validation loss {self.best_loss:.3f}"
        )


def names(folder: Path = FOLDER) -> list[str]:
    """The runs that have been recorded."""
    return sorted(p.stem for p in folder.glob("*.json"))


def load(name: str, folder: Path = FOLDER) -> Run:
    """The recorded run `name`; CourseError says how to record it if nobody has."""
    path = folder / f"{name}.json"
    if not path.is_file():
        known = f"llmcourse record {name} records it" if name in recipes.RECIPES else "and no recipe has that name"
        recorded = ", ".join(names(folder)) or "none"
        raise CourseError(f"Run {name!r} has not been recorded: {known}. Recorded: {recorded}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        log = [{k: math.nan if v is None else v for k, v in record.items()} for record in content["log"]]
        run = Run(**content | {"log": log})
        run.about(), run.samples  # what is missing or no number shows here
        return run
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as e:
        raise CourseError(f"{path} is damaged or from another version of the course: record the run again.") from e


def load_model(name: str, device: str | torch.device = "cpu", folder: Path = FOLDER) -> checkpoint.Checkpoint:
    """The trained model of a recorded run, with its tokenizer; the file's hash is checked first."""
    run = load(name, folder)
    if run.weights is None:
        raise CourseError(f"Run {name!r} keeps no weights; llmcourse record {name} trains the model again.")
    path = folder / str(run.weights["file"])
    if not path.is_file() or sha256(path) != run.weights["sha256"]:
        raise CourseError(f"{path} is missing or altered (its hash is not the listed one): get the file again.")
    return checkpoint.load(path, device)


def source_hash() -> str:
    """Hash of the package's own source, so that a recorded run names the code that made it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def take_sample(model: GPT, tokenizer: CharTokenizer, prompt: str, length: int) -> dict[str, str]:
    """One sample for the log, always from the same prompt and seed, so that only the model changes."""
    text = generate_text(model, tokenizer, prompt, length, temperature=0.8, seed=SAMPLE_SEED, past_window="refill")
    return {"sample": text}


def record(
    name: str, *, out_dir: Path | None = None, folder: Path = FOLDER, device: str = "auto", **settings: Any
) -> Run:
    """Train the recipe `name` and store its run; a run that was interrupted goes on where it stopped.

    `out_dir` keeps the checkpoints meanwhile (default: `out/record/NAME`); they are removed at the end.
    Other `settings` change the recipe, and the stored run says so.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CourseError("A recorded run is the work of one process: start llmcourse record without torchrun.")
    code = {"version": __version__, "source": source_hash()}  # of now: the files may change while it trains
    recipe = recipes.get(name).with_settings(**settings)
    config, target = recipe.train_config(), pick_device(device)
    out_dir = out_dir or Path("out") / "record" / name
    model, tokenizer, train, val = recipes.prepare(recipe)
    trainer = Trainer(
        model, config, train, val,
        tokenizer=tokenizer, out_dir=out_dir, resume=True, device=target,
        on_eval=partial(take_sample, tokenizer=tokenizer, prompt=recipe.prompt, length=recipe.sample_length),
    )  # fmt: skip
    log = trainer.run()
    weights: dict[str, str | int] | None = None
    if recipe.ship_weights:
        if not (out_dir / "best.pt").exists():  # the last attempt was killed while it removed its files
            raise CourseError(f"{out_dir} lacks best.pt, so its run is of no use: delete the folder and record again.")
        best, path = checkpoint.load(out_dir / "best.pt"), folder / f"{name}.pt"
        checkpoint.save(path, best.model, tokenizer, dtype=torch.float16)
        weights = {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size}
    run = Run(
        name=name,
        recipe={"about": recipe.about, "shape": recipe.shape, "training": asdict(config), "corpus": recipe.corpus}
        | ({"train_tokens": recipe.train_tokens} if recipe.train_tokens else {}),
        parameters=model.num_params(),
        vocab_size=tokenizer.vocab_size,
        code=code,
        machine=describe(target),
        seed=config.seed,
        seconds=log[-1]["seconds"],
        log=log,
        weights=weights,
    )
    with atomic_file(folder / f"{name}.json") as file:
        file.write((json.dumps(plain(asdict(run)), indent=1, ensure_ascii=False) + "\n").encode())
    for part in ("best.pt", "log.jsonl", "last.pt"):  # and nothing else that may lie in this folder
        (out_dir / part).unlink(missing_ok=True)
    if not any(out_dir.iterdir()):
        out_dir.rmdir()
    return run
