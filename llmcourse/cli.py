"""`llmcourse` on the command line: train, generate, evaluate, tokenize, record, doctor, progress.

Each command is a short function that reads its arguments, calls the package and prints; everything it does can
be done from Python with the same names. A mistake ends with one sentence and exit code 2. The package is imported
inside the functions, because torch takes a second to load and `--help` should not.
"""

import argparse
import ast
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .errors import CourseError

OUT_OF_MEMORY = (
    "out of memory on the {}: choose a smaller preset or batch_size, or more accumulation_steps "
    "(--set accumulation_steps=4)."
)


def train(args: argparse.Namespace) -> None:
    """Train a preset on a corpus; checkpoints and the log go to --out."""
    import torch.distributed as dist

    from . import recipes
    from .trainer import Trainer

    if not args.out:
        raise CourseError("Say where the checkpoints go: --out FOLDER.")
    recipe = recipes.get(args.preset).with_settings(**parse_settings(args.set))
    model, tokenizer, train_data, val_data = recipes.prepare(recipe, args.corpus)
    trainer = Trainer(
        model, recipe.train_config(), train_data, val_data,
        tokenizer=tokenizer, out_dir=args.out, resume=args.resume, device=args.device,
    )  # fmt: skip
    if trainer.rank == 0:
        config = trainer.config
        print(
            f"{args.preset}: {model.num_params():,} parameters, {config.max_steps:,} steps of {config.batch_size} × "
            f"{model.config.block_size} tokens on {trainer.device} in {trainer.policy.name}; folder {args.out}"
        )
        if args.resume:
            print(f"Going on after step {trainer.step:,}." if trainer.log else "Nothing to go on from: a new run.")
    log = trainer.run()
    if trainer.rank == 0:
        last = log[-1]
        print(
            f"Done: {last['step']:,} steps in {last['seconds'] / 60:.1f} minutes, best validation loss "
            f"{trainer.best_loss:.4f} nats per character.\nSample it: llmcourse generate {Path(args.out) / 'best.pt'}"
        )
    if dist.is_initialized():
        dist.destroy_process_group()


def generate(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    from .sampler import generate_text

    saved = load_model(args.model, args.device)
    prompt = read_prompt() if args.prompt == "-" else args.prompt.replace("\\n", "\n")
    for i in range(args.num_samples):
        if args.num_samples > 1:
            print(f"--- sample {i + 1}, seed {args.seed + i} ---")
        text = generate_text(
            saved.model, saved.tokenizer, prompt, args.max_new_tokens,
            temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, min_p=args.min_p,
            seed=args.seed + i, stop=args.stop, past_window=args.past_window,
        )  # fmt: skip
        print(text, flush=True)


def evaluate(args: argparse.Namespace) -> None:
    """Loss, perplexity and bits per character of a model on the validation split, every token scored once."""
    import numpy as np

    from . import data
    from .evaluation import evaluate as exact_loss

    saved = load_model(args.model, args.device)
    text = data.load(args.corpus)
    part = text if args.split == "all" else data.split(text)[0 if args.split == "train" else 1]
    ids = saved.tokenizer.encode(part)
    loss = exact_loss(saved.model, np.array(ids))
    scored = len(ids) - 1
    characters = len(part) - len(saved.tokenizer.decode(ids[:1]))  # the first token is given, not scored
    print(f"loss        {loss:.4f} nats per token ({scored:,} tokens scored, {args.split} of {args.corpus})")
    print(f"perplexity  {np.exp(loss):.3f}")
    print(f"bits        {loss * scored / characters / np.log(2):.4f} per character")


def tokenize(args: argparse.Namespace) -> None:
    """Train a byte-pair tokenizer, or show how a tokenizer cuts a text."""
    from .tokenizer import BPETokenizer, gpt2_encoding

    if args.train:
        from . import data

        if not args.out or Path(args.out).suffix != ".json":
            raise CourseError("Say where the tokenizer goes: --out FILE.json.")
        tokenizer = BPETokenizer.train(data.load(args.train), args.vocab_size, progress=True)
        tokenizer.save(args.out)
        print(f"{args.out}: {tokenizer.vocab_size:,} tokens, trained on {args.train}")
        return
    if args.text is None:
        raise CourseError("Give a text to cut (--text), or a corpus to learn from (--train).")
    try:
        size = len(args.text.encode())
    except UnicodeEncodeError as e:
        raise CourseError("--text is not valid UTF-8; check how your terminal encodes what you type.") from e
    encoding = gpt2_encoding() if args.tokenizer == "gpt2" else BPETokenizer.load(args.tokenizer)
    ids = encoding.encode_ordinary(args.text)
    print(f"{len(args.text)} characters, {size} bytes, {len(ids)} tokens")
    for i in ids:
        print(f"{i:>7}  {encoding.decode([i])!r}")


def record(args: argparse.Namespace) -> None:
    """Train a recipe, or all runs of a sweep, and keep the result for the book."""
    from . import recipes, runs, sweeps

    recorded = runs.names() + sweeps.names()
    if args.list or not (args.name or args.all):
        for name, entry in (recipes.RECIPES | sweeps.SWEEPS).items():
            print(f"{name:16} {'recorded' if name in recorded else 'missing':8}  {entry.about}")
        return
    for name in [*recipes.RECIPES, *sweeps.SWEEPS] if args.all else [args.name]:
        if args.all and name in recorded and not args.again:
            continue
        if name in sweeps.SWEEPS:
            print(f"Recording the sweep {name}: {sweeps.SWEEPS[name].about}")
            print(sweeps.record(name, device=args.device).table())
            continue
        print(f"Recording {name}: {recipes.get(name).about}")
        print(runs.record(name, device=args.device).about())


def doctor(args: argparse.Namespace) -> None:
    """What this machine is, which precision and preset it should use, and how long each preset will take."""
    import shutil

    import torch

    from . import recipes
    from .device import describe, pick_device, precision_policy

    device = pick_device(args.device)
    facts, policy = describe(device), precision_policy(device)
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    print(f"machine    {facts['name']}, {os.cpu_count()} CPU cores, {facts['threads']} threads for torch")
    print(f"software   Python {facts['python']}, torch {facts['torch']}, {facts['system']}; {free:.0f} GiB disk free")
    memory = f", {facts['memory_gib']} GiB" if "memory_gib" in facts else ""
    print(f"device     {device}{memory}; precision {policy.name}{' with a gradient scaler' if policy.scale else ''}")
    if device.type == "cuda" and policy.name == "fp16" and torch.cuda.is_bf16_supported():
        print("           (this GPU reports bf16 support but only emulates it: compute capability is below 8.0)")
    advice = recipes.PRESETS[0]
    for name in recipes.PRESETS:
        minutes = recipes.estimate_seconds(recipes.get(name), device) / 60
        print(f"{name:10} about {minutes:,.1f} minutes   ({recipes.get(name).about})", flush=True)
        advice = name if minutes <= 30 else advice
    print(f"advice     llmcourse train --preset {advice} --out out/first")


def progress(args: argparse.Namespace) -> None:
    """Which exercises you have solved."""
    from .progress import table

    print(table())


def load_model(name: str, device: str) -> Any:
    """The checkpoint in a file, in the folder of a training run (its best), or of a recorded run that ships weights."""
    from . import checkpoint, runs
    from .device import pick_device

    if name in runs.names():
        saved = runs.load_model(name, pick_device(device))
    else:
        path = Path(name) / "best.pt" if Path(name).is_dir() else Path(name)
        saved = checkpoint.load(path, pick_device(device))
    if saved.tokenizer is None:
        raise CourseError(f"{name} holds no tokenizer, so it can neither read nor write text: use llmcourse train.")
    return saved


def read_prompt() -> str:
    """All of standard input, as it is."""
    try:
        return sys.stdin.read() if sys.stdin else ""
    except UnicodeDecodeError as e:
        raise CourseError("What came on standard input is not UTF-8 text: save it as UTF-8 and try again.") from e


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["max_steps=200", "optimizer=muon"]` as a dict of Python values."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CourseError(f"--set takes NAME=VALUE, for example max_steps=200, not {pair!r}.")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            settings[name] = value  # a word such as muon
    return settings


def whole(text: str) -> int:
    """A whole number of at least 0, below 2^63 (for seeds and counts)."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


class Parser(argparse.ArgumentParser):
    """argparse prints its usage before every complaint; one sentence is enough here as well."""

    def error(self, message: str) -> NoReturn:
        raise CourseError(f"{message}; {self.prog} --help shows what there is.")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    about = "Helpers of “An LLM from scratch: 42 executable days”."
    parser = Parser(prog="llmcourse", description=about)
    parser.add_argument("--version", action="version", version=f"llmcourse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(run=function)
        return sub

    a_model = "a checkpoint, the folder of a training run, or the name of a recorded run"

    p = command(train)
    p.add_argument("--preset", default="tiny", help="tiny, small, medium, or any recipe (default: tiny)")
    p.add_argument("--corpus", help="a corpus by name, or a text file (default: the preset's, shakespeare)")
    p.add_argument("--out", default="out/train", help="folder for checkpoints and log (default: out/train)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out, if there is one")
    p.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings, e.g. max_steps=200"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")

    p = command(generate)
    p.add_argument("model", metavar="MODEL", help=a_model)
    about_prompt = "text to continue; \\n is a line break, and - reads standard input (default: a line break)"
    p.add_argument("--prompt", default="\n", help=about_prompt)
    p.add_argument("--max-new-tokens", type=whole, default=300)
    p.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
    p.add_argument("--top-k", type=int)
    p.add_argument("--top-p", type=float)
    p.add_argument("--min-p", type=float)
    p.add_argument("--seed", type=whole, default=0, help="same seed, same text on the same machine (default: 0)")
    p.add_argument("--num-samples", type=whole, default=1)
    p.add_argument("--stop", help="end before this text")
    p.add_argument("--past-window", default="exact", help="exact, or refill (faster beyond block_size, approximate)")
    p.add_argument("--device", default="cpu")

    p = command(evaluate)
    p.add_argument("model", metavar="MODEL", help=a_model)
    p.add_argument("--corpus", default="shakespeare")
    p.add_argument("--split", choices=("train", "val", "all"), default="val")
    p.add_argument("--device", default="auto")

    p = command(tokenize)
    p.add_argument("--text", help="text to cut into tokens")
    p.add_argument("--tokenizer", default="gpt2", help="gpt2, or a file written by --train (default: gpt2)")
    p.add_argument("--train", metavar="CORPUS", help="learn a tokenizer from a corpus or text file")
    p.add_argument("--vocab-size", type=whole, default=1024)
    p.add_argument("--out", metavar="FILE.json")

    p = command(record)
    p.add_argument("name", nargs="?", help="the recipe or sweep to train")
    p.add_argument("--all", action="store_true", help="every recipe and sweep that has not been recorded yet")
    p.add_argument("--again", action="store_true", help="with --all: those that are recorded as well")
    p.add_argument("--list", action="store_true", help="show the recipes and which are recorded")
    p.add_argument("--device", default="auto")

    command(doctor).add_argument("--device", default="auto")
    command(progress)
    return parser


def memory_ran_out_on(error: Exception) -> str:
    """GPU or computer, if this error says that its memory is full; else nothing."""
    torch = sys.modules.get("torch")  # if nothing has imported it, it cannot be the cause
    if torch and isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    return "computer" if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 after a mistake that one sentence explains."""
    with contextlib.suppress(AttributeError):  # a terminal that lacks a letter shows its code instead
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        args = build_parser().parse_args(argv)
        args.run(args)
        if sys.stdout:  # there is none after >&-
            sys.stdout.flush()  # so that a reader who went away is noticed here and not at exit
        return 0
    except CourseError as e:
        return complain(str(e))
    except BrokenPipeError:  # `llmcourse generate … | head`: end quietly, with the code of a program so ended
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush at exit
        return 141
    except OSError as e:
        return complain(f"{e.strerror or e}: {e.filename}." if e.filename else f"{e.strerror or e}.")
    except KeyboardInterrupt:
        return complain("stopped. A training run goes on from its last checkpoint with --resume.", code=130)
    except Exception as e:
        if place := memory_ran_out_on(e):
            return complain(OUT_OF_MEMORY.format(place))
        raise  # a bug of ours: keep its traceback


def complain(sentence: str, code: int = 2) -> int:
    """Say on stderr, in one line, what went wrong."""
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.flush()  # what was printed before stands before
    print("llmcourse:", " ".join(sentence.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
