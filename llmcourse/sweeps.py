"""Recorded sweeps: one recipe trained many times, with one thing changed at a time and over several seeds.

One run says how good a model became; whether a change helped, only several seeds can say. A sweep is one JSON file,
written after every run, so that a sweep that was stopped goes on where it was. It keeps three losses of each model:
on the first half of the validation split, where choices are made; on the other half, which nobody has tuned on; and
on the whole.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from . import recipes
from .device import describe, pick_device, synchronize
from .errors import CourseError
from .evaluation import evaluate
from .files import atomic_file
from .trainer import Trainer

FOLDER = Path(__file__).parent / "assets" / "sweeps"
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Plan:
    """What a sweep trains: every variant is the recipe `base` with some settings changed."""

    about: str
    base: str
    variants: dict[str, dict[str, Any]]
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> Iterator[tuple[str, dict[str, Any], int]]:
        """(variant, its settings, seed), one seed after the other: a sweep that is stopped compares all it has."""
        for seed in self.seeds:
            for variant, settings in self.variants.items():
                yield variant, settings, seed


@dataclass(frozen=True)
class Result:
    """One trained model of a sweep. Losses in nats per token; `seconds` of training (of CPU time, if on a CPU)."""

    variant: str
    seed: int
    settings: dict[str, Any]
    parameters: int
    steps: int
    seconds: float
    tuned_loss: float  # first half of the validation split
    untouched_loss: float  # second half
    val_loss: float  # all of it


@dataclass
class Sweep:
    """A recorded sweep, as its JSON file holds it."""

    name: str
    about: str
    base: str
    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)

    @property
    def variants(self) -> list[str]:
        """The variants, in the order of the plan."""
        return list(dict.fromkeys(r.variant for r in self.results))

    def losses(self, variant: str, which: str = "untouched_loss") -> list[float]:
        """One loss a seed."""
        return [getattr(r, which) for r in self.of(variant)]

    def of(self, variant: str) -> list[Result]:
        """The results of one variant, one a seed; an unknown one is a CourseError."""
        found = [r for r in self.results if r.variant == variant]
        if not found:
            raise CourseError(f"The sweep {self.name!r} has no variant {variant!r}; it has {', '.join(self.variants)}.")
        return found

    def step_seconds(self, variant: str) -> float:
        """Seconds of one training step; the fastest seed's, which was disturbed least."""
        return min(r.seconds / r.steps for r in self.of(variant))

    def table(self) -> str:
        """A line for each variant: mean and spread of the untouched loss, and the time of a step."""
        rows = []
        for variant in self.variants:
            losses = self.losses(variant)
            spread = f"{stdev(losses):.3f}" if len(losses) > 1 else "?"
            ms = 1000 * self.step_seconds(variant)
            rows.append(f"{variant:38} {mean(losses):.3f} ± {spread}  {ms:6.0f} ms a step")
        return "\n".join(rows)

    @property
    def complete_seeds(self) -> list[int]:
        """The seeds with which every variant was trained; a sweep that was stopped may have half of another."""
        wanted = set(SWEEPS[self.name].variants if self.name in SWEEPS else self.variants)
        trained = {seed: {r.variant for r in self.results if r.seed == seed} for seed in {r.seed for r in self.results}}
        return sorted(seed for seed, variants in trained.items() if wanted <= variants)

    def caption(self) -> str:
        """What was trained and where, for a figure."""
        seeds = len(self.complete_seeds)
        how_many = f"{seeds} seed{'s' * (seeds != 1)} each" if seeds else "Not all of it has been trained yet"
        return f"{self.about} {how_many}, on {self.machine['name']}, torch {self.machine['torch']}."


_STEPS = {"max_steps": 200, "warmup_steps": 20, "learning_rate": 4e-3, "beta1": 0.9, "init_std": 0.02}


def _chain(*steps: tuple[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Variants that each keep the changes of those before them."""
    settings: dict[str, Any] = {}
    return {name: (settings := settings | change) for name, change in steps}


_MUON = {"optimizer": "muon", "muon_lr": 0.01, "learning_rate": 2e-2, "warmup_steps": 5}
_TO_FAST = _chain(
    ("GPT-2, AdamW", _STEPS),
    ("+ RMSNorm, no biases", {"norm": "rmsnorm", "bias": False}),
    ("+ squared ReLU", {"activation": "relu2"}),
    ("+ rotary positions", {"position": "rope"}),
    ("+ QK-norm", {"qk_norm": True}),
    ("+ outputs start at zero", {"zero_init": True}),
    ("+ Muon, five rounds", _MUON),
    ("+ head of its own", {"tie_weights": False}),
    ("+ Muon, three rounds", {"muon_rounds": 3}),
    ("+ pairs", {"ngram": 2}),
    ("+ triples", {"ngram": 3}),
    ("+ runs of four", {"ngram": 4}),
)
_FAST = _TO_FAST["+ runs of four"]
_TOKENS_A_STEP = 2048  # the same for every context length, so that all models read the same amount of text
_MOST_FLOPS = 3e12  # of one run in the scaling grid, by 6 · parameters · tokens: some minutes on a CPU
_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192)


def _scaling() -> dict[str, dict[str, Any]]:
    """Every pair of size and amount of text that is cheap enough, each with a schedule of its own length."""
    grid = {}
    for width in _WIDTHS:
        parameters = 24 * width**2  # of two blocks
        for steps in (250, 500, 1000, 2000, 4000):  # of 1,024 characters
            if 6 * parameters * 1024 * steps <= _MOST_FLOPS:
                rate = 0.4 / max(width, 32)  # narrow models bear higher rates: 1.25e-2 down to 2.1e-3
                grid[f"width {width}, {steps} steps"] = {
                    "n_embd": width, "n_head": width // 16, "batch_size": 16, "max_steps": steps,
                    "warmup_steps": steps // 20, "learning_rate": rate, "min_lr": rate / 10,
                }
    return grid


_WHOLE_TEXT = {
    "n_embd": 96, "batch_size": 16, "max_steps": 1000, "warmup_steps": 50, "learning_rate": 4e-3, "min_lr": 4e-4
}
_SMALL_TEXT = _WHOLE_TEXT | {"train_tokens": 100_000}
SWEEPS = {
    "speedrun": Plan(
        "200 steps of 12 × 64 characters, 4 layers, 128 wide.",
        "canonical",
        _TO_FAST
        | {
            "fast, cosine": _FAST | {"schedule": "cosine"},
            "fast, SwiGLU": _FAST | {"activation": "swiglu"},
            "fast, dropout 0.1": _FAST | {"dropout": 0.1},
            "fast, LayerNorm": _FAST | {"norm": "layernorm"},
            "fast, learned positions": _FAST | {"position": "learned"},
            "fast, AdamW": _FAST | {"optimizer": "adamw", "learning_rate": 4e-3, "warmup_steps": 20},
            "fast, half the steps, twice the batch": _FAST | {"max_steps": 100, "batch_size": 24},
            "GPT-2, beta1 0.8": _STEPS | {"beta1": 0.8},
            "GPT-2, start 0.05": _STEPS | {"init_std": 0.05},
            "GPT-2, start 0.05, beta1 0.8": _STEPS | {"init_std": 0.05, "beta1": 0.8},
            "fast, beta1 0.8": _FAST | {"beta1": 0.8},
            "fast, start 0.05": _FAST | {"init_std": 0.05},
        },
    ),
    "context_rate": Plan(
        "Every pair of context and peak rate: 400 steps of 2,048 characters, 2 layers, 128 wide.",
        "tiny",
        {
            f"context {T}, rate {rate:g}": {
                "block_size": T, "batch_size": _TOKENS_A_STEP // T, "learning_rate": rate, "min_lr": rate / 10,
                "max_steps": 400, "warmup_steps": 40,
            }
            for T in (64, 128, 256, 512)
            for rate in (1e-4, 3e-4, 1e-3, 3e-3)
        },
    ),
    # Two seeds: what is claimed of this grid is claimed of a curve through all of its points.
    "scaling": Plan(
        "Sizes and amounts of text: 2 layers, 16 × 64 characters a step.", "tiny", _scaling(), seeds=(1, 2)
    ),
    "regularization": Plan(
        "1,000 steps of 16 × 64 characters, 2 layers, 96 wide, on 100,000 characters or on all of the text.",
        "tiny",
        {f"100,000 characters, dropout {p:g}": _SMALL_TEXT | {"dropout": p} for p in (0.0, 0.1, 0.2, 0.4)}
        | {f"100,000 characters, weight decay {w:g}": _SMALL_TEXT | {"weight_decay": w} for w in (0.0, 1.0)}
        | {f"all of the text, dropout {p:g}": _WHOLE_TEXT | {"dropout": p} for p in (0.0, 0.1, 0.2, 0.4)},
    ),
}


def load(name: str, folder: Path = FOLDER) -> Sweep:
    """The recorded sweep `name`; CourseError says how to record it if nobody has."""
    path = folder / f"{name}.json"
    if not path.is_file():
        known = f"llmcourse record {name} records it" if name in SWEEPS else f"there are {', '.join(SWEEPS)}"
        raise CourseError(f"Sweep {name!r} has not been recorded: {known}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sweep = Sweep(**(values | {"results": [Result(**r) for r in values["results"]]}))
        sweep.table(), sweep.caption()  # what is missing or no number shows here
        return sweep
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as e:
        raise CourseError(f"{path} is damaged or from another version of the course: record it again.") from e


def names(folder: Path = FOLDER) -> list[str]:
    """The sweeps of which something has been recorded."""
    return sorted(p.stem for p in folder.glob("*.json"))


def record(name: str, *, folder: Path = FOLDER, device: str = "auto") -> Sweep:
    """Train what the sweep `name` still lacks, and keep each result as soon as it is there.

    Results whose settings are no longer those of the plan are trained again.
    """
    if name not in SWEEPS:
        raise CourseError(f"There is no sweep {name!r}; there are {', '.join(SWEEPS)}.")
    plan, target, path = SWEEPS[name], pick_device(device), folder / f"{name}.json"
    done = {(r.variant, r.seed, repr(r.settings)): r for r in (load(name, folder).results if path.exists() else [])}
    results = {(v, seed, repr(s)): done.get((v, seed, repr(s))) for v, s, seed in plan.runs()}
    for variant, settings, seed in tqdm(list(plan.runs()), unit="run", file=sys.stdout):
        key = (variant, seed, repr(settings))
        results[key] = results[key] or train(plan.base, variant, settings, seed, target)
        kept = [r for r in results.values() if r]
        sweep = Sweep(name, plan.about, plan.base, describe(target), kept)
        with atomic_file(path) as file:
            file.write((json.dumps(asdict(sweep), indent=1, ensure_ascii=False) + "\n").encode())
    return sweep


def train(base: str, variant: str, settings: dict[str, Any], seed: int, device: torch.device) -> Result:
    """Train one model of a sweep and judge it."""
    recipe = recipes.get(base).with_settings(seed=seed, eval_interval=10**6, **settings)
    model, _, train_ids, val = recipes.prepare(recipe)
    clock = process_time if device.type == "cpu" else perf_counter
    trainer = Trainer(model, recipe.train_config(), train_ids, device=device, progress=False)
    start = clock()
    trainer.run()
    synchronize(device)
    seconds = clock() - start
    half = len(val) // 2
    parts: list[Tensor] = [val[:half], val[half:], val]
    tuned, untouched, whole = (round(evaluate(model, part, batch_size=64), 5) for part in parts)
    steps = recipe.train_config().max_steps
    return Result(variant, seed, settings, model.num_params(), steps, round(seconds, 2), tuned, untouched, whole)
