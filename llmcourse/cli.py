"""`llmcourse` on the command line: train, generate, evaluate, tokenize, record, doctor.

Each command is a short function that reads its arguments, calls the package and prints; everything it does can
be done from Python with the same names. A mistake ends with one sentence and exit code 2.
"""

import argparse
import ast
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import CourseError

OUT_OF_MEMORY = (
    "The {device} ran out of memory: choose a smaller preset, a smaller batch_size, or more accumulation_steps "
    "(--set accumulation_steps=4)."
)


def train(args: argparse.Namespace) -> None:
    """Train a preset on a corpus; checkpoints and the log go to --out."""
    from . import recipes
    from .trainer import Trainer

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
        if trainer.step:
            print(f"Going on after step {trainer.step:,}.")
    log = trainer.run()
    if trainer.rank == 0:
        last = log[-1]
        print(
            f"Done: {last['step']:,} steps in {last['seconds'] / 60:.1f} minutes, best validation loss "
            f"{trainer.best_loss:.4f} nats per character.\nSample it: llmcourse generate {Path(args.out) / 'best.pt'}"
        )


def generate(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    from .device import pick_device
    from .sampler import generate_text

    saved = load_checkpoint(args.model, pick_device(args.device))
    if saved.tokenizer is None:
        raise CourseError(f"{args.model} holds no tokenizer, so it cannot read a prompt: train with llmcourse train.")
    for i in range(args.num_samples):
        if args.num_samples > 1:
            print(f"--- sample {i + 1}, seed {args.seed + i} ---")
        text = generate_text(
            saved.model, saved.tokenizer, args.prompt.replace("\\n", "\n"), args.max_new_tokens,
            temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, min_p=args.min_p,
            seed=args.seed + i, stop=args.stop, past_window=args.past_window,
        )  # fmt: skip
        print(text)


def evaluate(args: argparse.Namespace) -> None:
    """Loss, perplexity and bits per character of a model on the validation split, every character scored once."""
    import math

    import torch

    from . import data
    from .device import pick_device
    from .trainer import evaluate as exact_loss

    saved = load_checkpoint(args.model, pick_device(args.device))
    if saved.tokenizer is None:
        raise CourseError(f"{args.model} holds no tokenizer, so it cannot read a corpus: train with llmcourse train.")
    text = data.load(args.corpus)
    part = text if args.split == "all" else data.split(text)[0 if args.split == "train" else 1]
    ids = torch.tensor(saved.tokenizer.encode(part))
    loss = exact_loss(saved.model, ids)
    bits = loss * (len(ids) - 1) / (len(part) - 1) / math.log(2)
    print(f"loss        {loss:.4f} nats per token ({len(ids) - 1:,} tokens scored, {args.split} of {args.corpus})")
    print(f"perplexity  {math.exp(loss):.3f}\nbits        {bits:.4f} per character")


def tokenize(args: argparse.Namespace) -> None:
    """Train a byte-pair tokenizer, or show how a tokenizer cuts a text."""
    from . import data
    from .tokenizer import BPETokenizer, gpt2_encoding

    if args.train:
        if not args.out:
            raise CourseError("Say where the tokenizer goes: --out FILE.json.")
        tokenizer = BPETokenizer.train(data.load(args.train), args.vocab_size, progress=True)
        tokenizer.save(args.out)
        print(f"{args.out}: {tokenizer.vocab_size:,} tokens, trained on {args.train}")
        return
    if args.text is None:
        raise CourseError("Give a text to cut (--text), or a corpus to learn from (--train).")
    encoding = gpt2_encoding() if args.tokenizer == "gpt2" else BPETokenizer.load(args.tokenizer)
    ids = encoding.encode(args.text)
    print(f"{len(args.text)} characters, {len(args.text.encode())} bytes, {len(ids)} tokens")
    for i in ids:
        print(f"{i:>7}  {encoding.decode([i])!r}")


def record(args: argparse.Namespace) -> None:
    """Train a recipe and keep its run for the book."""
    from . import recipes, runs

    if args.list or not (args.name or args.all):
        for name, recipe in recipes.RECIPES.items():
            print(f"{name:16} {'recorded' if name in runs.names() else 'missing ':8}  {recipe.about}")
        return
    for name in recipes.RECIPES if args.all else [args.name]:
        if args.all and name in runs.names():
            continue
        print(f"Recording {name}: {recipes.get(name).about}")
        print(runs.record(name, device=args.device).about())


def doctor(args: argparse.Namespace) -> None:
    """What this machine is, which precision and preset it should use, and how long each preset will take."""
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
    minutes = {}
    for name in recipes.PRESETS:
        print(f"measuring  {name} …", end="\r", flush=True)
        minutes[name] = recipes.estimate_seconds(recipes.get(name), device) / 60
        print(f"{name:10} about {minutes[name]:,.1f} minutes   ({recipes.get(name).about})")
    fitting = [n for n in recipes.PRESETS if minutes[n] <= 30]
    print(f"advice     llmcourse train --preset {fitting[-1] if fitting else 'tiny'} --out out/first")


def load_checkpoint(name: str, device: Any) -> Any:
    """A checkpoint file, or the name of a recorded run that ships its weights."""
    from . import checkpoint, runs

    if name in runs.names():
        return runs.load_model(name, device)
    return checkpoint.load(name, device)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["max_steps=200", "optimizer=muon"]` as a dict of Python values."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CourseError(f"--set takes NAME=VALUE, for example max_steps=200, not {pair!r}.")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value  # a word such as muon
    return settings


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    about = "Helpers of “An LLM from scratch: 42 executable days”."
    parser = argparse.ArgumentParser(prog="llmcourse", description=about)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(run=function)
        return sub

    p = command(train)
    p.add_argument("--preset", default="tiny", help="tiny, small, medium, or any recipe (default: tiny)")
    p.add_argument("--corpus", default="shakespeare", help="a corpus by name, or a text file (default: shakespeare)")
    p.add_argument("--out", default="out/train", help="folder for checkpoints and log (default: out/train)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    p.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change settings, e.g. max_steps=200")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")

    p = command(generate)
    p.add_argument("model", help="a checkpoint file, or the name of a recorded run")
    p.add_argument("--prompt", default="\n", help="text to continue; \\n is a line break (default: a line break)")
    p.add_argument("--max-new-tokens", type=int, default=300)
    p.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
    p.add_argument("--top-k", type=int)
    p.add_argument("--top-p", type=float)
    p.add_argument("--min-p", type=float)
    p.add_argument("--seed", type=int, default=0, help="same seed, same text on the same machine (default: 0)")
    p.add_argument("--num-samples", type=int, default=1)
    p.add_argument("--stop", help="end before this text")
    p.add_argument("--past-window", default="exact", help="exact, or refill (faster beyond block_size, approximate)")
    p.add_argument("--device", default="cpu")

    p = command(evaluate)
    p.add_argument("model", help="a checkpoint file, or the name of a recorded run")
    p.add_argument("--corpus", default="shakespeare")
    p.add_argument("--split", choices=("train", "val", "all"), default="val")
    p.add_argument("--device", default="auto")

    p = command(tokenize)
    p.add_argument("--text", help="text to cut into tokens")
    p.add_argument("--tokenizer", default="gpt2", help="gpt2, or a file written by --train (default: gpt2)")
    p.add_argument("--train", metavar="CORPUS", help="learn a tokenizer from a corpus or text file")
    p.add_argument("--vocab-size", type=int, default=1024)
    p.add_argument("--out", metavar="FILE.json")

    p = command(record)
    p.add_argument("name", nargs="?", help="the recipe to train")
    p.add_argument("--all", action="store_true", help="every recipe that has no recorded run yet")
    p.add_argument("--list", action="store_true", help="show the recipes and which are recorded")
    p.add_argument("--device", default="auto")

    command(doctor).add_argument("--device", default="auto")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 after a mistake that one sentence explains."""
    args = build_parser().parse_args(argv)
    import torch

    try:
        args.run(args)
    except CourseError as e:
        print(f"llmcourse: {e}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError:
        print("llmcourse: " + OUT_OF_MEMORY.format(device="GPU"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nllmcourse: stopped. A training run goes on from its last checkpoint with --resume.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: `llmcourse generate … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush at exit
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
