"""Our sampler against Hugging Face's `generate` and, given its folder, nanoGPT's.

    python -m tests.benchmarks.bench_sampling [--nanogpt DIR] [--repeats 3]

All contestants have the same weights and continue the same first token until the window of 256 is full, with one
thread, at temperature 1 and without a filter. They take turns; a row is the median of the repeats, in tokens per CPU
second (with one thread that is the wall clock of a quiet machine, and it does not count the neighbours of a busy
one). The ratio says how many times as many tokens we make. Before it times anything, the module checks that all
contestants write the same text when they decode greedily.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nanogpt import load_module
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from llmcourse.model import GPT
from llmcourse.sampler import generate

VOCAB_SIZE, BLOCK_SIZE = 65, 256
SHAPES = ((4, 4, 128, 1), (4, 4, 128, 16), (6, 6, 384, 1))  # n_layer, n_head, n_embd, batch size
Sampler = Callable[[int, bool], Tensor]  # number of new tokens, greedy or not -> idx


def hugging_face(n_layer: int, n_head: int, n_embd: int) -> Any:
    """An untrained GPT-2 of the library, without dropout and with no token that ends a text."""
    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=BLOCK_SIZE,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.2,  # so that greedy texts are not all alike
    )
    return GPT2LMHeadModel(config).eval()


def nanogpt_model(folder: Path, ours: GPT) -> Any:
    """nanoGPT's model with our weights; its names are GPT-2's as well."""
    module = load_module(folder)
    c = ours.config
    config = module.GPTConfig(c.block_size, c.vocab_size, c.n_layer, c.n_head, c.n_embd, c.dropout, c.bias)
    with contextlib.redirect_stdout(None):  # it reports its size
        model = module.GPT(config).eval()
    model.load_state_dict(ours.state_dict())
    return model


def contestants(shape: tuple[int, int, int, int], nanogpt: Path | None) -> dict[str, Sampler]:
    """Name and sampler of each, with the same weights and the same first token."""
    *sizes, batch_size = shape
    torch.manual_seed(0)
    theirs = hugging_face(*sizes)
    ours = GPT.from_hf(theirs).eval()
    idx = torch.zeros(batch_size, 1, dtype=torch.int64)

    def with_ours(n: int, greedy: bool) -> Tensor:
        return generate(ours, idx, n, temperature=0.0 if greedy else 1.0, seed=0)

    def with_theirs(n: int, greedy: bool) -> Tensor:
        draw: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0}
        mask = torch.ones_like(idx)
        return theirs.generate(idx, attention_mask=mask, max_new_tokens=n, use_cache=True, pad_token_id=0, **draw)

    samplers: dict[str, Sampler] = {"ours": with_ours, "Hugging Face": with_theirs}
    if nanogpt is not None:
        nano = nanogpt_model(nanogpt, ours)
        samplers["nanoGPT"] = lambda n, greedy: nano.generate(idx, n, top_k=1 if greedy else None)
    return samplers


def take_turns(samplers: dict[str, Sampler], n: int, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each; the order turns round with every repeat, so that no one always goes first."""
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    for repeat in range(repeats):
        for name in list(samplers)[:: -1 if repeat % 2 else 1]:
            start = time.process_time()
            samplers[name](n, False)
            seconds[name].append(time.process_time() - start)
    return {name: median(values) for name, values in seconds.items()}


def measure(nanogpt: Path | None, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows {"what", "ours", "peer", "peer_name", "ratio", "unit"}; `nanogpt` is a checkout of that project."""
    rows: list[dict[str, Any]] = []
    threads, new = torch.get_num_threads(), BLOCK_SIZE - 1
    torch.set_num_threads(1)
    try:
        for shape in tqdm(SHAPES, desc="shapes", leave=False):
            n_layer, _, n_embd, batch_size = shape
            samplers = contestants(shape, nanogpt)
            texts = {name: sampler(64, True) for name, sampler in samplers.items()}  # warms them up, too
            if not all(torch.equal(text, texts["ours"]) for text in texts.values()):
                raise AssertionError("the contestants do not do the same work")
            seconds = take_turns(samplers, new, repeats)
            speed = {name: batch_size * new / value for name, value in seconds.items()}
            for peer in list(samplers)[1:]:
                rows.append(
                    {
                        "what": f"{n_layer} layers, {n_embd} wide, batch {batch_size}",
                        "ours": speed["ours"],
                        "peer": speed[peer],
                        "peer_name": "transformers" if peer == "Hugging Face" else peer,
                        "ratio": speed["ours"] / speed[peer],
                        "unit": "tokens/s",
                    }
                )
    finally:
        torch.set_num_threads(threads)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of nanoGPT, to race it as well")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = measure(arguments.nanogpt, arguments.repeats)
    print("| what | ours | peer | peer's name | times as fast |")
    print("|---|---:|---:|---|---:|")
    for r in rows:
        ours, peer = f"{r['ours']:,.0f} {r['unit']}", f"{r['peer']:,.0f} {r['unit']}"
        print(f"| {r['what']} | {ours} | {peer} | {r['peer_name']} | {r['ratio']:.2f} |")


if __name__ == "__main__":
    main()
