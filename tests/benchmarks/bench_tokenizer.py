"""Our pure-Python tokenizer against Hugging Face `tokenizers`, tiktoken and, given its folder, minbpe.

    python -m tests.benchmarks.bench_tokenizer [--minbpe DIR] [--repeats 3]

All contestants work on TinyShakespeare in one process, on one thread, taking turns; a row is the median of
the repeats, in CPU seconds or in megabytes of text per CPU second. The ratio says how many times better we
are: above 1 we are ahead, 0.5 is twice as slow. Before it times anything the module checks that all agree
where they must: ids with tiktoken, decoded text with everyone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # read by `tokenizers` when its first worker starts
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from llmcourse.tokenizer import BPETokenizer

VOCAB_SIZES = (512, 1024, 4096)
MINBPE_MERGES = 12  # it recounts the whole text for each merge


def corpus() -> str:
    if folder := os.environ.get("LLMCOURSE_DATA"):
        return Path(folder, "tinyshakespeare.txt").read_text(encoding="utf-8")
    from llmcourse import data

    return data.load()


def train_hugging_face(text: str, vocab_size: int) -> Tokenizer:
    """Byte-level BPE with GPT-2's split pattern and the 256 bytes as its alphabet: our settings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def encode_from_scratch(merges: list[tuple[int, int]], text: str) -> list[int]:
    """With a tokenizer that has seen no text yet, so that it remembers nothing."""
    return BPETokenizer(merges).encode(text)


def take_turns(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each; the order turns round with every repeat, so that no one always goes first."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name in list(contestants)[:: -1 if repeat % 2 else 1]:
            start = time.process_time()
            contestants[name]()
            seconds[name].append(time.process_time() - start)
    return {name: median(values) for name, values in seconds.items()}


def measure(minbpe: Path | None, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows {"what", "ours", "peer", "peer_name", "ratio", "unit"}; `minbpe` is a checkout of that project."""
    text = corpus()
    megabytes = len(text.encode()) / 1e6
    rows: list[dict[str, Any]] = []

    def row(what: str, ours: float, peer: float, peer_name: str, unit: str) -> None:
        ratio = peer / ours if unit == "s" else ours / peer
        rows.append({"what": what, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio, "unit": unit})

    for vocab_size in tqdm(VOCAB_SIZES, desc="vocabularies", leave=False):
        ours, theirs = BPETokenizer.train(text, vocab_size), train_hugging_face(text, vocab_size)
        fast = ours.to_tiktoken()
        ids = ours.encode(text)
        if theirs.get_vocab_size() != vocab_size or fast.encode_ordinary(text) != ids:
            raise AssertionError("the contestants do not do the same work")
        if not text == ours.decode(ids) == fast.decode(ids) == theirs.decode(theirs.encode(text).ids):
            raise AssertionError("a contestant does not give the text back")

        seconds = take_turns(
            {
                "ours": partial(BPETokenizer.train, text, vocab_size),
                "Hugging Face": partial(train_hugging_face, text, vocab_size),
            },
            repeats,
        )
        row(f"train, vocabulary {vocab_size}", seconds["ours"], seconds["Hugging Face"], "tokenizers", "s")

        seconds = take_turns(
            {
                "first": partial(encode_from_scratch, ours.merges, text),
                "again": partial(ours.encode, text),
                "Hugging Face": partial(theirs.encode, text),
                "tiktoken": partial(fast.encode_ordinary, text),
            },
            repeats,
        )
        speed = {name: megabytes / value for name, value in seconds.items()}
        for when, what in (("first", "first text"), ("again", "pieces known")):
            for peer, peer_name in (("Hugging Face", "tokenizers"), ("tiktoken", "tiktoken")):
                label = f"encode, vocabulary {vocab_size}, {what}"
                row(label, speed[when], speed[peer], peer_name, "MB/s")

    if minbpe is not None:
        sys.path.insert(0, str(minbpe))
        try:
            regex_tokenizer = importlib.import_module("minbpe").RegexTokenizer
        finally:
            sys.path.remove(str(minbpe))
        vocab_size = 256 + MINBPE_MERGES
        seconds = take_turns(
            {
                "ours": partial(BPETokenizer.train, text, vocab_size),
                "minbpe": lambda: regex_tokenizer().train(text, vocab_size),
            },
            repeats,
        )
        row(f"train, the first {MINBPE_MERGES} merges only", seconds["ours"], seconds["minbpe"], "minbpe", "s")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minbpe", type=Path, metavar="DIR", help="a checkout of minbpe, to race it as well")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print("| what | ours | peer | peer's name | times better |")
    print("|---|---:|---:|---|---:|")
    for r in measure(arguments.minbpe, arguments.repeats):
        ours, peer = f"{r['ours']:.3g} {r['unit']}", f"{r['peer']:.3g} {r['unit']}"
        print(f"| {r['what']} | {ours} | {peer} | {r['peer_name']} | {r['ratio']:.2f} |")


if __name__ == "__main__":
    main()
