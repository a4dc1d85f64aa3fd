"""Checkers of day 8: a configuration that refuses bad values in words, and the way of a batch through the skeleton.

The configuration is judged as day 8 judges one: by planting mistakes, one at a time, and seeing which are noticed.
The forward pass gets parts that write down who called them, so that a wrong order shows as such.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from . import Wrong, blame, call, exercise, first_line, tensor

GOOD: dict[str, Any] = {
    "vocab_size": 65, "block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 48, "dropout": 0.1, "bias": True,
}  # fmt: skip
COUNTS = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")

# Spoiled whole numbers: what is made of the right value, and what follows if it is let through.
SPOILED: dict[str, tuple[Callable[[int], Any], str]] = {
    "text": (str, "text, as a command line gives it, is no number"),
    "None": (lambda v: None, "None is no number"),
    "zero": (lambda v: 0, "each of these sizes is at least 1"),
    "negative": (lambda v: -v, "a size cannot be negative"),
    "a float": (float, "a size that is a float breaks the model later, so refuse it even if it is whole"),
    "a bool": (lambda v: True, "True counts as 1 in Python, since bool is a kind of int: refuse it for a number"),
}
BAD_DROPOUT: tuple[tuple[Any, str], ...] = (
    ("0.1", "text is no number"),
    (None, "None is no number"),
    (-0.1, "a share cannot be negative"),
    (1.5, "a share is below 1"),
    (1, "a dropout of 1 silences every number"),
    (True, "True counts as 1, and a dropout of 1 silences every number"),
    (math.nan, "nan is neither below 0 nor at least 1: ask for 0 <= dropout < 1"),
)
BAD_BIAS: tuple[tuple[Any, str], ...] = (
    ("False", "any text that is not empty counts as true, even 'False'"),
    (None, "bias is True or False"),
    (0, "0 and 1 are numbers: ask for a bool"),
    (2, "2 counts as true: ask for a bool"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The seven settings of a GPT; a bad one is refused with a sentence that names it."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        for f in fields(self):
            v = getattr(self, f.name)
            if f.type is int and (type(v) is not int or v < 1):
                raise ValueError(f"{f.name} must be a whole number of at least 1, not {v!r}.")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a number from 0 up to, not including, 1, not {self.dropout!r}.")
        if type(self.bias) is not bool:
            raise ValueError(f"bias must be True or False, not {self.bias!r}.")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head}).")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head


@exercise(
    "day08",
    title="A configuration that says what is wrong",
    signature="Config(vocab_size=65, block_size=64, n_layer=2, n_head=4, n_embd=48, dropout=0.1, bias=True)",
    hints=[
        "Everything happens in __post_init__, which runs when all values are stored: look at each one, and raise "
        'ValueError(f"n_layer must be ..., not {self.n_layer!r}.") if it is bad.',
        "One loop over dataclasses.fields(self) does for the five whole numbers; type(value) is not int also refuses "
        "True. Dropout: a number with 0 <= dropout < 1, which refuses nan as well. Bias: type(...) is bool.",
        "After the single values, the pair: n_embd % n_head must be 0, and the message names both. head_size stands "
        "below a line @property, and the class below @dataclass(frozen=True).",
    ],
    solution=Config,
    right="Each bad value is refused by name, and each good one accepted.",
    wants="class",
)
def check_config(learner: Callable[..., Any]) -> None:
    check_good(learner)
    for name in COUNTS:
        for what, (change, reason) in SPOILED.items():
            refuse(learner, {name: change(GOOD[name])}, f"{what} for {name}", reason)
    for value, reason in BAD_DROPOUT:
        refuse(learner, {"dropout": value}, f"a dropout of {value!r}", reason)
    for value, reason in BAD_BIAS:
        refuse(learner, {"bias": value}, f"a bias of {value!r}", reason)
    for n_head, n_embd in ((7, 384), (5, 48), (96, 48)):
        reason = f"{n_head} heads of {n_embd // n_head} channels make {n_head * (n_embd // n_head)}, not {n_embd}"
        refuse(learner, {"n_head": n_head, "n_embd": n_embd}, f"n_head={n_head} with n_embd={n_embd}", reason)


def check_good(learner: Callable[..., Any]) -> None:
    """Good configurations: accepted, stored, with head_size, and closed to changes."""
    for change in ({}, {"n_layer": 1, "n_head": 1}, {"n_head": 48}, {"dropout": 0, "bias": False}, {"dropout": 0.0},
                   {"vocab_size": 1, "block_size": 1}, {"vocab_size": 64, "block_size": 65, "n_layer": 4}):  # fmt: skip
        values = GOOD | change
        shown = ", ".join(f"{k}={v!r}" for k, v in values.items())
        try:
            config = learner(**values)
        except NotImplementedError:
            raise
        except Exception as e:
            raise Wrong(f"A good configuration is refused, {shown}: {first_line(e)}.") from e
        for name, value in values.items():
            if not hasattr(config, name):
                raise Wrong(f"The object has no attribute {name}: with @dataclass above the class it stores all seven.")
            if getattr(config, name) != value:
                raise Wrong(f"{name} was given as {value!r}, but is stored as {getattr(config, name)!r}.")
        check_head_size(config, values["n_embd"] // values["n_head"])
    try:
        config.n_layer = 0
    except Exception:
        return
    raise Wrong("A value can be changed afterwards, past every check: write @dataclass(frozen=True).")


def check_head_size(config: Any, wanted: int) -> None:
    if not hasattr(config, "head_size"):
        raise Wrong("There is no head_size: add a property that gives n_embd // n_head.")
    size = config.head_size
    if inspect.ismethod(size):
        raise Wrong("head_size is a method, which every user would have to call: put a line @property above it.")
    if isinstance(size, float):
        raise Wrong(f"head_size is the float {size}: divide with //, so that it can be used as a size.")
    if size != wanted:
        raise Wrong(f"head_size is {size!r} where it should be {wanted}: it is n_embd // n_head.")


def refuse(learner: Callable[..., Any], change: dict[str, Any], what: str, reason: str) -> None:
    """Wrong, unless these values are refused with a ValueError whose one sentence names them."""
    try:
        learner(**GOOD | change)
    except NotImplementedError:
        raise
    except ValueError as e:
        message = str(e)
    except AssertionError as e:
        raise Wrong(f"An assert refuses {what}, but python -O removes all asserts: raise ValueError instead.") from e
    except Exception as e:
        if all(name in str(e) for name in change):
            raise Wrong(f"A {type(e).__name__} refuses {what}: the error that is asked for is ValueError.") from e
        raise Wrong(
            f"With {what}, your check itself breaks with {type(e).__name__}: look at the type before you compare or "
            "divide, and raise ValueError."
        ) from e
    else:
        raise Wrong(f"It lets through {what}: {reason}.")
    if not message.strip():
        raise Wrong(f"The ValueError for {what} says nothing: write a sentence into its brackets.")
    if unnamed := [name for name in change if name not in message]:
        raise Wrong(f"The message for {what} does not name {' and '.join(unnamed)}: “{message[:80]}”.")
    if missing := [str(v) for v in change.values() if str(v) not in message]:
        raise Wrong(f"The message for {what} does not show the value that was given, {missing[0]}: “{message[:80]}”.")
    others = [name for name in GOOD if name in message and name not in change and name not in ("bias", "dropout")]
    if len(others) > 1:
        raise Wrong(f"The message for {what} also names {others[0]} and {others[1]}: name only what is wrong.")
    if "\n" in message or len(message) > 240:
        raise Wrong(f"The message for {what} is longer than a sentence: one line that says what to do.")


# --- The journey of a batch -----------------------------------------------------------------------------------

B, T, LONGEST, V, C = 3, 5, 7, 11, 4  # all different, so that a mistaken dimension shows


def forward(
    idx: Tensor, wte: nn.Embedding, wpe: nn.Embedding, blocks: Any, ln_f: nn.Module, lm_head: nn.Module
) -> Tensor:
    """Token ids `(B, T)` -> logits `(B, T, V)`."""
    T, longest = idx.shape[1], wpe.num_embeddings
    if longest < T:
        raise ValueError(f"{T} tokens are more than block_size, {longest}: pass the last ones.")
    x = wte(idx) + wpe(torch.arange(T, device=idx.device))  # (B, T, C) + (T, C)
    for block in blocks:
        x = block(x)  # (B, T, C) -> (B, T, C)
    return lm_head(ln_f(x))  # (B, T, V)


class Step(nn.Module):
    """A stand-in for a block: a fixed change that differs from block to block, and does not commute."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return (x + 0.3 * (self.n + 1)).tanh() * (1 + 0.5 * self.n)


@exercise(
    "day08b",
    title="The journey of a batch",
    signature="forward(idx, wte, wpe, blocks, ln_f, lm_head)",
    hints=[
        "Five moves: look up the tokens, add the positions, go through the blocks in order, normalize, score. Each "
        "part is called like a function: x = wte(idx).",
        "The positions are numbers of their own, 0 ... T - 1: wpe(torch.arange(T)), with T = idx.shape[1]. The result "
        "(T, C) is added to (B, T, C); every text gets the same.",
        "wpe.num_embeddings is the longest text. Check it first, and raise ValueError with both lengths. The result is "
        "lm_head(ln_f(x)), raw scores for all positions: no softmax.",
    ],
    solution=forward,
    right="Tokens plus positions, the blocks in order, norm, head; and too long a text is refused in words.",
)
def check_forward(learner: Callable[..., Any]) -> None:
    parts = make_parts(3)
    idx = torch.randint(LONGEST, (B, T))  # small enough for a row of wpe, should somebody look them up there
    out = tensor(one(run(learner, idx, parts)), (B, T, V), meaning="(B, T, V)")
    if not close(out, forward(idx, **parts)):
        diagnose(learner, out, idx, parts)
    for n, shape in ((0, (2, 4)), (1, (1, 1)), (2, (2, LONGEST))):
        parts, idx = make_parts(n), torch.randint(V, shape)
        with blame(f"It is right for three blocks and T = {T}, but fails for {n} blocks and T = {shape[1]}"):
            if not close(one(run(learner, idx, parts)), forward(idx, **parts)):
                raise Wrong(f"It is right for three blocks and T = {T}, but not for {n} blocks and T = {shape[1]}.")
    check_too_long(learner)


def make_parts(n: int) -> dict[str, Any]:
    wte, wpe, norm = nn.Embedding(V, C), nn.Embedding(LONGEST, C), nn.LayerNorm(C)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    blocks = nn.ModuleList(Step(i) for i in range(n))
    return {"wte": wte, "wpe": wpe, "blocks": blocks, "ln_f": norm, "lm_head": nn.Linear(C, V, bias=False)}


def run(learner: Callable[..., Any], idx: Tensor, parts: dict[str, Any]) -> Any:
    try:
        return call(learner, idx=idx, **parts)
    except NotImplementedError as e:
        if "ModuleList" in str(e):
            raise Wrong("blocks is a list, which cannot be called: call each one in turn, x = block(x).") from e
        raise
    except RuntimeError as e:
        if f"size of tensor b ({B})" in str(e):
            raise Wrong(f"There are {B} positions, one a text: T is idx.shape[1], and len(idx) is B.") from e
        if "must match the size" in str(e):
            raise Wrong(
                "The shapes do not fit when two things are added: are these all the rows of wpe? A text of T tokens "
                "takes positions 0 ... T - 1 only."
            ) from e
        raise


def one(result: Any) -> Any:
    if isinstance(result, tuple | list):
        raise Wrong("Your function returns several things: the logits alone are its result, here and on every day.")
    return result


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def diagnose(learner: Callable[..., Any], out: Tensor, idx: Tensor, p: dict[str, Any]) -> None:
    """Raise the Wrong that fits logits of the right shape and with wrong numbers."""
    tok, pos = p["wte"](idx), p["wpe"](torch.arange(idx.shape[1]))

    def body(x: Tensor, blocks: Any) -> Tensor:
        for block in blocks:
            x = block(x)
        return x

    x, blocks, norm, head = tok + pos, list(p["blocks"]), p["ln_f"], p["lm_head"]
    twice = x
    for block in blocks:
        twice = twice + block(twice)
    right = head(norm(body(x, blocks)))
    found = {
        "The positions are missing: every text would mean the same in any order; add wpe of 0 ... T - 1.":
            head(norm(body(tok, blocks))),
        "The positions are looked up by token id, wpe(idx): position 3 needs row 3, whatever stands there.":
            head(norm(body(tok + p["wpe"](idx), blocks))),
        "The positions begin at 1: the first token stands at position 0.":
            head(norm(body(tok + p["wpe"](torch.arange(idx.shape[1]) + 1), blocks))),
        "The tokens are multiplied by the positions: they are added.": head(norm(body(tok * pos, blocks))),
        "The blocks are never called.": head(norm(x)),
        "Only the last block has an effect: each one takes what the one before it returned, x = block(x).":
            head(norm(blocks[-1](x))),
        "Only the first block is called: is there a return inside the loop?": head(norm(blocks[0](x))),
        "The blocks run in reverse order.": head(norm(body(x, blocks[::-1]))),
        "x = x + block(x) adds the input a second time: a block adds to its input by itself.": head(norm(twice)),
        "The last norm is missing: ln_f stands between the blocks and the head.": head(body(x, blocks)),
        "ln_f stands before the blocks: it belongs after them, just before the head.": head(body(norm(x), blocks)),
        "The result went through a softmax: logits are raw scores, and the loss takes the softmax itself.":
            right.softmax(-1),
        "The result is the logarithm of a softmax: logits are raw scores.": right.log_softmax(-1),
        "The positions are added after the blocks: they have to know the order, so add them before.":
            head(norm(body(tok, blocks) + pos)),
    }  # fmt: skip
    for sentence, wrong in found.items():
        if close(out, wrong.detach()):
            raise Wrong(sentence)
    if not close(out, tensor(one(run(learner, idx, p)), out.shape)):
        raise Wrong("Two calls with the same input give different results: is something random in it?")
    raise Wrong("The shape is right and the numbers are not: is each of the five parts used once, in its order?")


def check_too_long(learner: Callable[..., Any]) -> None:
    idx, parts = torch.randint(V, (B, LONGEST + 1)), make_parts(2)
    try:
        call(learner, idx=idx, **parts)
    except ValueError as e:
        if str(LONGEST) not in str(e) or not any(c.isalpha() for c in str(e)):
            raise Wrong(f"The ValueError for {LONGEST + 1} tokens does not say how many are allowed, {LONGEST}.") from e
    except Exception as e:
        raise Wrong(
            f"A text of {LONGEST + 1} tokens, one more than wpe has rows, ends in {type(e).__name__}, which does not "
            "say what is wrong: compare T with wpe.num_embeddings first and raise ValueError."
        ) from e
    else:
        raise Wrong(f"{LONGEST + 1} tokens are accepted, though wpe has {LONGEST} rows: raise ValueError for more.")
