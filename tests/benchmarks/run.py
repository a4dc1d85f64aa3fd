"""Measure against other implementations and write the table in README.md beside this file.

    make bench BENCH="--nanogpt DIR --minbpe DIR"

Peers given by folder are imported or run from there; transformers, tokenizers and tiktoken come from the environment.
Each figure is the median of interleaved runs on one machine, and what counts is the ratio. A ratio that has become
worse by more than a fifth since the stored table is named, and the command then fails.
"""

import argparse
import datetime
import importlib.metadata
import re
import sys
from pathlib import Path

import bench_gpu
import bench_sampling
import bench_tokenizer
import bench_training
import torch

from llmcourse.device import describe

HERE = Path(__file__).parent
PARTS = {
    "training": lambda args: bench_training.measure(args.nanogpt, args.repeats),
    "gpu": lambda args: bench_gpu.measure(args.nanogpt, args.repeats),
    "sampling": lambda args: bench_sampling.measure(args.nanogpt, args.repeats),
    "tokenizer": lambda args: bench_tokenizer.measure(args.minbpe, args.repeats),
}
ABOUT = {
    "training": "One thread, CPU time of the training alone. Above 1: ours needs less time, or reaches a lower loss.",
    "gpu": "One GPU, milliseconds a step. Above 1: ours is faster.",
    "sampling": "One thread, CPU, tokens per second, temperature 1. Above 1: ours is faster.",
    "tokenizer": "One thread, TinyShakespeare, text already in memory. Above 1: ours is faster.",
}


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table; `ratio` is how many times better ours is."""
    lines = ["| what | ours | peer | | ratio |", "|---|---:|---:|---|---:|"]
    for row in rows:
        lines.append(
            f"| {row['what']} | {row['ours']:,.4g} {row['unit']} | {row['peer']:,.4g} {row['unit']} "
            f"| {row['peer_name']} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


def ratios(text: str) -> dict[tuple[str, str], float]:
    """(what, peer) -> ratio of a table as `table` writes it; remarks in brackets are left out of the name."""
    rows = re.findall(r"^\| (.+?) \|.*\| (\S+) \| ([\d.]+) \|$", text, re.MULTILINE)
    return {(re.sub(r" *\(.*?\)", "", what), peer): float(ratio) for what, peer, ratio in rows}


def regressions(before: str, now: str, tolerance: float = 0.8) -> list[str]:
    """Sentences about the ratios of table `now` that fell below `tolerance` times those of table `before`."""
    old, new = ratios(before), ratios(now)
    return [
        f"{what}, against {peer}: {old[what, peer]:.2f} before, {ratio:.2f} now"
        for (what, peer), ratio in new.items()
        if ratio < tolerance * old.get((what, peer), 0)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--minbpe", type=Path, help="a checkout of minbpe")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved runs of everything (default: 3)")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts to measure")
    args = parser.parse_args()
    machine = describe(torch.device("cpu"))
    packages = ("torch", "numpy", "transformers", "tokenizers", "tiktoken")
    versions = ", ".join(f"{name} {importlib.metadata.version(name).split('+')[0]}" for name in packages)
    (HERE / "tables").mkdir(exist_ok=True)
    worse: list[str] = []
    for name in args.only:
        print(f"Measuring {name} ({args.repeats} times) ...", flush=True)
        torch.set_num_threads(1)
        if rows := PARTS[name](args):
            text = (
                f"## {name.capitalize()}\n\n{ABOUT[name]} Median of {args.repeats}, measured {datetime.date.today()} "
                f"on {machine['name']} with Python {machine['python']}, {versions}.\n\n{table(rows)}\n"
            )
            path = HERE / "tables" / f"{name}.md"
            worse += regressions(path.read_text(encoding="utf-8") if path.exists() else "", text)
            path.write_text(text, encoding="utf-8")
            print(table(rows))
        else:
            print("  skipped: it needs the folder of its peer (see --help), or a GPU")
    stored = {name: HERE / "tables" / f"{name}.md" for name in PARTS}
    parts = [path.read_text(encoding="utf-8") for path in stored.values() if path.exists()]
    if missing := [name for name, path in stored.items() if not path.exists()]:
        parts.append(f"Not measured yet: {', '.join(missing)} (it needs its peer's folder, and a GPU for `gpu`).\n")
    head = "# Measured against others\n\nWritten by `make bench`; do not edit. Ratios, not times, carry over.\n"
    (HERE / "README.md").write_text("\n".join([head, *parts]), encoding="utf-8")
    print(f"Wrote {HERE / 'README.md'}")
    if worse:
        sys.exit("\n".join(["Slower than the stored tables, by more than a fifth:", *worse]))


if __name__ == "__main__":
    main()
