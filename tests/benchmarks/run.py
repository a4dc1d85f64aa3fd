"""Measure against other implementations and write the table in README.md beside this file.

    make bench BENCH="--nanogpt DIR --minbpe DIR"

Peers given by folder are imported or run from there; transformers, tokenizers and tiktoken come from the environment.
Each figure is the median of interleaved runs on one machine, and what counts is the ratio.
"""

import argparse
import datetime
import importlib.metadata
from pathlib import Path

import bench_sampling
import bench_tokenizer
import bench_training
import torch

from llmcourse.device import describe

HERE = Path(__file__).parent
PARTS = {
    "training": lambda args: bench_training.measure(args.nanogpt, args.repeats),
    "sampling": lambda args: bench_sampling.measure(args.nanogpt, args.repeats),
    "tokenizer": lambda args: bench_tokenizer.measure(args.minbpe, args.repeats),
}
ABOUT = {
    "training": "Two threads, CPU. Above 1: ours needs less time, or reaches a lower loss.",
    "sampling": "One thread, CPU, tokens per second, temperature 1. Above 1: ours is faster.",
    "tokenizer": "One thread, TinyShakespeare, text already in memory. Above 1: ours is faster.",
}


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table; `ratio` is how many times better ours is."""
    lines = ["| what | ours | peer | | ratio |", "|---|---:|---:|---|---:|"]
    for row in rows:
        lines.append(
            f"| {row['what']} | {row['ours']:,.3g} {row['unit']} | {row['peer']:,.3g} {row['unit']} "
            f"| {row['peer_name']} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


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
    for name in args.only:
        print(f"Measuring {name} ({args.repeats} times) ...", flush=True)
        torch.set_num_threads(2 if name == "training" else 1)
        if rows := PARTS[name](args):
            text = (
                f"## {name.capitalize()}\n\n{ABOUT[name]} Median of {args.repeats}, measured {datetime.date.today()} "
                f"on {machine['name']} with Python {machine['python']}, {versions}.\n\n{table(rows)}\n"
            )
            (HERE / "tables" / f"{name}.md").write_text(text, encoding="utf-8")
            print(table(rows))
        else:
            print("  skipped: it needs the folder of its peer (see --help)")
    parts = [p.read_text(encoding="utf-8") for name in PARTS if (p := HERE / "tables" / f"{name}.md").exists()]
    head = "# Measured against others\n\nWritten by `make bench`; do not edit. Ratios, not times, carry over.\n"
    (HERE / "README.md").write_text("\n".join([head, *parts]), encoding="utf-8")
    print(f"Wrote {HERE / 'README.md'}")


if __name__ == "__main__":
    main()
