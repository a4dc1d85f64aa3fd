"""Checker of day 33, the memory that training needs.

The truth is measured: the tensors that autograd keeps are counted on fake tensors, which have a shape and a size but
occupy nothing. What the learner's function forgets shows as the formula that it agrees with on every shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..model import GPT, CausalSelfAttention, GPTConfig, causal_mask
from . import Wrong, call, exercise

Formula = Callable[[GPTConfig, int, bool], float]


class WrittenOut(CausalSelfAttention):
    """Attention step by step, as on day 9: the weights (B, H, T, T) are stored."""

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        q, k, v = self.qkv(x)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.config.head_dim)
        weights = scores.masked_fill(~causal_mask(x.shape[1], 0, x.device), -math.inf).softmax(dim=-1)
        return self.c_proj((weights @ v).transpose(1, 2).reshape(x.shape))


@cache
def measured(config: GPTConfig, batch_size: int, fused: bool) -> int:
    """Bytes of weights, gradients, Adam's two averages and everything kept for the backward pass, counted."""
    with FakeTensorMode():
        model = GPT(config)
        for block in model.transformer["h"]:
            if not fused:
                block.attn.__class__ = WrittenOut
        seen = {p.untyped_storage()._cdata: 4 * p.untyped_storage().nbytes() for p in model.parameters()}
        hold = []

        def pack(t: Tensor) -> Tensor:
            hold.append(t.untyped_storage())  # alive, so that no other takes its place
            seen.setdefault(hold[-1]._cdata, hold[-1].nbytes())
            return t

        idx = torch.zeros(batch_size, config.block_size, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            model.loss(idx, idx)
    return sum(seen.values())


@dataclass
class Counts:
    """The terms of the formula; a mistake changes one of them."""

    bytes: float = 4.0
    copies: float = 4.0  # of every parameter: value, gradient, two averages
    attention: float = 5.0  # times C, for each token and layer
    mlp: float = 9.0
    norms: float = 2.0
    head: float = 1.0
    maps: str = "right"
    layers: bool = True
    batch: float = 1.0  # power of the batch size
    context: float = 1.0  # power of the context


def formula(config: GPTConfig, batch_size: int, fused: bool, n: Counts) -> float:
    """Bytes for training, with some counts changed."""
    V, T, L, C = config.vocab_size, config.block_size, config.n_layer, config.n_embd
    H, deep = config.n_head, L if n.layers else 1
    block = (n.attention + n.mlp + n.norms) * C
    stored = {"right": not fused, "never": False, "always": True, "one head": not fused, "swapped": fused}[n.maps]
    block += (1 if n.maps == "one head" else H) * T if stored else H
    tokens = batch_size**n.batch * T**n.context
    return n.bytes * (n.copies * parameters(config) + tokens * (deep * block + n.head * (C + V + (n.norms > 0) * C)))


def parameters(config: GPTConfig) -> int:
    """Parameters of a GPT-2-shaped model with biases and a tied head."""
    V, T, L, C = config.vocab_size, config.block_size, config.n_layer, config.n_embd
    return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C


def memory(config: GPTConfig, batch_size: int, fused: bool = True) -> int:
    """Bytes that training GPT(config) needs: four copies of the parameters, and what forward keeps for backward."""
    V, T, L, C, H = config.vocab_size, config.block_size, config.n_layer, config.n_embd, config.n_head
    params = V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C  # tied, with biases: day 5
    block = 5 * C + 9 * C + 2 * C  # attention, MLP, the two norms
    block += H if fused else H * T  # a sum for each head, or a whole row of its weights
    token = L * block + 2 * C + V  # the last norm, the head's input, log-probabilities
    return 4 * (4 * params + batch_size * T * token)


SHAPES = [  # each makes another part large: the MLP and norms, the maps, the parameters, the vocabulary
    (GPTConfig(65, 64, 3, 2, 32), 16),
    (GPTConfig(65, 128, 2, 4, 32), 8),
    (GPTConfig(65, 16, 2, 2, 96), 1),
    (GPTConfig(2000, 32, 1, 2, 32), 4),
]
MISTAKES: dict[str, Counts] = {
    "The gradients are missing: each parameter needs four numbers, its value, its gradient and Adam's two averages, "
    "and yours has three.": Counts(copies=3),
    "Of the optimizer and the gradients too much is missing: each parameter needs four numbers (value, gradient, two "
    "averages), and yours has two.": Counts(copies=2),
    "Only the weights are counted once; training also needs a gradient and Adam's two averages for every one of "
    "them.": Counts(copies=1),
    "The parameters are left out altogether; they cost 16 bytes each, whatever the batch.": Counts(copies=0),
    "It counts 2 bytes a number: these tensors are 32-bit, 4 bytes each.": Counts(bytes=2),
    "It counts numbers, not bytes: each takes 4.": Counts(bytes=1),
    "It counts 8 bytes a number: these tensors are 32-bit, 4 bytes each.": Counts(bytes=8),
    "The answer is in MB; return bytes.": Counts(bytes=4e-6),
    "The answer is in MiB (divided by 2**20); return bytes.": Counts(bytes=4 / 2**20),
    "The answer is in GB; return bytes.": Counts(bytes=4e-9),
    "The answer is in GiB (divided by 2**30); return bytes.": Counts(bytes=4 / 2**30),
    "The table of attention weights is never counted: with fused=False each head keeps T × T numbers for every text "
    "and layer.": Counts(maps="never"),
    "The table of attention weights is always counted: with fused=True it is never stored, only one sum a row "
    "remains.": Counts(maps="always"),
    "`fused` is the wrong way round: fused=True is the kernel that does not store the table of attention "
    "weights.": Counts(maps="swapped"),
    "The table of attention weights is counted for one head; every one of the n_head heads keeps its "
    "own.": Counts(maps="one head"),
    "The batch counts twice (B × B): tokens are batch_size × block_size, once.": Counts(batch=2),
    "The batch size has no effect on what is kept: every text of the batch keeps its own.": Counts(batch=0),
    "The context length is missing among the tokens: a batch has batch_size × block_size of them.": Counts(context=0),
    "The context counts twice among the tokens: batch_size × block_size, once.": Counts(context=2),
    "The MLP's wide part is missing: it keeps 4 C before its activation function and 4 C after it, beside its "
    "input.": Counts(mlp=1),
    "Half of the MLP's wide part is missing: it keeps 4 C before its activation function and another 4 C after "
    "it.": Counts(mlp=5),
    "The MLP's activations are missing: 9 C numbers for each token and layer.": Counts(mlp=0),
    "The attention's own activations are missing: input, q, k, v and result are 5 C numbers for each token and "
    "layer.": Counts(attention=0),
    "One number for each token, channel and layer (B × T × C × L) is a sixteenth of what a block keeps.": Counts(
        attention=0, mlp=1, norms=0, head=0, maps="never"
    ),
    "The norms are forgotten: each keeps its input, C numbers a token.": Counts(norms=0),
    "The layers are forgotten: every one of the n_layer blocks keeps its activations.": Counts(layers=False),
    "What the head and the loss keep is missing: V log-probabilities for each token.": Counts(head=0),
    "The activations are left out: what forward keeps for backward, B × T × (16 C a layer, and more).": Counts(
        attention=0, mlp=0, norms=0, head=0, maps="never"
    ),
}


@exercise(
    "day33",
    title="The memory of a training run",
    signature="memory(config, batch_size, fused=True)",
    hints=[
        "Two sums. What does not depend on the batch: four numbers for each parameter. What does: for every token, the "
        "numbers that forward keeps for backward. Each number takes 4 bytes.",
        "For each token and layer: attention 5 C (input, q, k, v, result), MLP 9 C (input, 4 C before and 4 C after "
        "the activation function), the two norms C each. At the end once: 2 C and V.",
        "The attention weights: with fused=False another n_head × block_size numbers for each token and layer (its "
        "row of the table, in every head); with fused=True only n_head.",
    ],
    solution=memory,
    right="Within 15 % of the count on every shape, with and without fused attention.",
)
def check_memory(learner: Callable[..., Any]) -> None:
    cases = [(config, B, fused) for config, B in SHAPES for fused in (True, False)]
    said = [number(call(learner, config=config, batch_size=B, fused=fused)) for config, B, fused in cases]
    truth = [measured(*case) for case in cases]
    if all(abs(s / t - 1) <= 0.15 for s, t in zip(said, truth, strict=True)):
        return
    for sentence, counts in MISTAKES.items():
        wrong = [formula(*case, counts) for case in cases]
        if all(abs(s - w) <= 0.012 * abs(w) for s, w in zip(said, wrong, strict=True)):
            raise Wrong(sentence)
    if said[::2] == said[1::2]:
        raise Wrong("`fused` changes nothing in your answer, and it decides whether a table of T × T is kept.")
    rows = zip(cases, said, truth, strict=True)
    (config, B, fused), s, t = max(rows, key=lambda row: abs(math.log(row[1] / row[2])))
    raise Wrong(
        f"For {config.n_layer} layers, width {config.n_embd}, {config.n_head} heads, context {config.block_size}, "
        f"{config.vocab_size} tokens, batch {B}, fused={fused} you say {s:,.0f} bytes; counted are {t:,}."
    )


def number(value: Any) -> float:
    """The learner's answer as a finite number."""
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"Return one number, the bytes, not something of type {type(value).__name__}.")
    if not math.isfinite(value) or value <= 0:
        raise Wrong(f"{value} is no amount of memory: return a positive number of bytes.")
    return float(value)
