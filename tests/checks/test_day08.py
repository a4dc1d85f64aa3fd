"""Day 8: right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from llmcourse.checks import check
from llmcourse.checks.day08 import Config, forward
from llmcourse.model import GPTConfig

Say = Callable[[], str]
NAMES = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")


class ByHand:
    """No dataclass: __slots__, properties, and a check in __init__."""

    def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, dropout=0.0, bias=True):  # type: ignore[no-untyped-def]
        values = dict(zip(NAMES, (vocab_size, block_size, n_layer, n_head, n_embd), strict=True))
        for name, v in values.items():
            if isinstance(v, bool) or not isinstance(v, int) or v <= 0:
                raise ValueError(f"Please give a positive whole number for {name}; you gave {v!r}.")
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r} is not in [0, 1).")
        if bias is not True and bias is not False:
            raise ValueError(f"bias={bias!r} is not a bool.")
        if n_embd % n_head != 0:
            raise ValueError(f"{n_embd} (n_embd) cannot be shared by {n_head} heads (n_head).")
        self.__dict__.update(values, dropout=dropout, bias=bias, head_size=n_embd // n_head)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} is read-only")


class CourseStyle(GPTConfig):
    @property
    def head_size(self) -> int:
        return self.head_dim


@dataclass(frozen=True)
class Computed:
    """head_size as a field that is computed once."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True
    head_size: int = field(init=False)

    def __post_init__(self) -> None:
        Config(**{name: getattr(self, name) for name in (*NAMES, "dropout", "bias")})
        object.__setattr__(self, "head_size", self.n_embd // self.n_head)


@pytest.mark.parametrize("learner", [Config, ByHand, CourseStyle, Computed], ids=lambda c: c.__name__)
def test_config_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day08", learner), said()
    assert said().startswith("day08: right. ")


def config(
    *,
    numbers: Callable[[str, Any], bool] = lambda name, v: type(v) is int and v >= 1,
    dropout: Callable[[Any], bool] = lambda v: type(v) in (int, float) and 0 <= v < 1,
    bias: Callable[[Any], bool] = lambda v: type(v) is bool,
    fits: Callable[[int, int], bool] = lambda C, H: C % H == 0,
    error: type[Exception] = ValueError,
    message: str = "{name} must not be {v!r}.",
    pair: str = "n_embd ({C}) is no multiple of n_head ({H}).",
    frozen: bool = True,
    size: Any = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
) -> Any:
    """A class with these rules; each test spoils one of them."""

    class Learner:
        def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, dropout_=0.0, bias_=True, **late):  # type: ignore[no-untyped-def]
            values = dict(zip(NAMES, (vocab_size, block_size, n_layer, n_head, n_embd), strict=True))
            values |= {"dropout": late.get("dropout", dropout_), "bias": late.get("bias", bias_)}
            for name, v in values.items():
                rule = {"dropout": dropout, "bias": bias}.get(name, lambda v, name=name: numbers(name, v))
                if not rule(v):
                    raise error(message.format(name=name, v=v))
            if not fits(n_embd, n_head):
                raise error(pair.format(C=n_embd, H=n_head))
            self.__dict__.update(change(values))

        def __setattr__(self, name: str, value: Any) -> None:
            if frozen:
                raise AttributeError(name)
            self.__dict__[name] = value

        head_size = size or property(lambda self: self.n_embd // self.n_head)

    return Learner


class Bare(NamedTuple):
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head


def no_size(**_: Any) -> Any:
    class NoSize(Computed):
        head_size: ClassVar[Any]  # type: ignore[misc]

        def __getattribute__(self, name: str) -> Any:
            if name == "head_size":
                raise AttributeError(name)
            return super().__getattribute__(name)

    return NoSize


CONFIG_MISTAKES: Mapping[str, tuple[Any, str]] = {
    "no check at all": (Bare, "lets through text for vocab_size"),
    "only text is refused": (config(numbers=lambda n, v: not isinstance(v, str)), "lets through None for vocab_size"),
    "zero passes": (
        config(numbers=lambda n, v: type(v) is int and v >= 0, fits=lambda C, H: not H or C % H == 0),
        "lets through zero for vocab_size",
    ),
    "negative passes": (config(numbers=lambda n, v: type(v) is int and v != 0), "lets through negative for vocab_size"),
    "floats pass": (config(numbers=lambda n, v: type(v) in (int, float) and v >= 1), "lets through a float for"),
    "True passes for a number": (config(numbers=lambda n, v: isinstance(v, int) and v >= 1), "lets through a bool for"),
    "one field is forgotten": (
        config(numbers=lambda n, v: n == "n_layer" or (type(v) is int and v >= 1)),
        "lets through text for n_layer",
    ),
    "compared before the type is known": (config(numbers=lambda n, v: v >= 1), "itself breaks with TypeError"),
    "divided before zero is refused": (
        config(numbers=lambda n, v: type(v) is int and (v >= 1 or (n == "n_head" and 1 % v == 0))),
        "itself breaks with ZeroDivisionError",
    ),
    "dropout 1 passes": (
        config(dropout=lambda v: type(v) in (int, float) and 0 <= v <= 1),
        "lets through a dropout of 1:",
    ),
    "dropout True passes": (
        config(dropout=lambda v: v is True or (type(v) in (int, float) and 0 <= v < 1)),
        "lets through a dropout of True",
    ),
    "dropout nan passes": (
        config(dropout=lambda v: type(v) in (int, float) and not (v < 0 or v >= 1)),
        "lets through a dropout of nan",
    ),
    "dropout negative passes": (
        config(dropout=lambda v: type(v) in (int, float) and v < 1),
        "lets through a dropout of -0.1",
    ),
    "dropout 0 is refused": (
        config(dropout=lambda v: type(v) is float and 0 < v < 1),
        "A good configuration is refused",
    ),
    "bias as text passes": (config(bias=lambda v: isinstance(v, bool | str)), "lets through a bias of 'False'"),
    "bias as a number passes": (config(bias=lambda v: v in (0, 1)), "lets through a bias of 0"),
    "heads need not fit": (config(fits=lambda C, H: True), "lets through n_head=7 with n_embd=384"),
    "assert": (config(error=AssertionError), "removes all asserts"),
    "TypeError": (config(error=TypeError), "A TypeError refuses"),
    "an empty message": (config(message="", pair=""), "says nothing"),
    "a message without the name": (config(message="Bad value {v!r}."), "does not name vocab_size"),
    "a message without the value": (config(message="{name} is bad."), "does not show the value"),
    "only one of the pair is named": (config(pair="n_head {H} does not fit {C}."), "does not name n_embd"),
    "a message that names all": (
        config(message="{name}={v!r}: vocab_size, block_size, n_layer must be numbers."),
        "name only what is wrong",
    ),
    "a message of many lines": (config(message="{name}\nis bad:\n{v!r}"), "longer than a sentence"),
    "not frozen": (config(frozen=False), "can be changed afterwards"),
    "head_size is a method": (config(size=lambda self: self.n_embd // self.n_head), "is a method"),
    "head_size is a float": (config(size=property(lambda self: self.n_embd / self.n_head)), "is the float"),
    "head_size is upside down": (config(size=property(lambda self: self.n_embd * self.n_head)), "where it should be"),
    "no head_size": (no_size(), "There is no head_size"),
    "a value is changed": (config(change=lambda v: v | {"block_size": v["block_size"] + 1}), "is stored as"),
    "an attribute is missing": (
        config(change=lambda v: {k: x for k, x in v.items() if k != "bias"}),
        "no attribute bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CONFIG_MISTAKES)
def test_config_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day08", CONFIG_MISTAKES, mistake)


def test_config_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day08", CONFIG_MISTAKES, 25)


def test_stub_and_wrong_kinds(said: Say) -> None:
    @dataclass(frozen=True)
    class Stub:
        vocab_size: int
        block_size: int
        n_layer: int
        n_head: int
        n_embd: int
        dropout: float = 0.0
        bias: bool = True

        def __post_init__(self) -> None:
            raise NotImplementedError

    assert not check("day08", Stub) and "NotImplementedError" in said()
    assert not check("day08", Bare(65, 64, 2, 4, 48)) and "the class itself" in said()
    assert not check("day08", type("Five", (), {"__init__": lambda self, C, H: None})) and "called as" in said()


# --- The journey of a batch


def body(x: Tensor, blocks: Any) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def guarded(inner: Callable[..., Any], *, limit: bool = True) -> Callable[..., Any]:
    def learner(idx: Tensor, wte: Any, wpe: Any, blocks: Any, ln_f: Any, lm_head: Any) -> Any:
        if limit and idx.shape[1] > wpe.num_embeddings:
            raise ValueError(f"At most {wpe.num_embeddings} tokens.")
        return inner(idx, wte, wpe, blocks, ln_f, lm_head, wpe(torch.arange(min(idx.shape[1], wpe.num_embeddings))))

    return learner


RIGHT: Mapping[str, Any] = {
    "reference": forward,
    "slice": guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + w.weight[: i.shape[1]], b)))),
    "sequential": guarded(lambda i, e, w, b, n, h, pos: nn.Sequential(*b, n, h)(pos + e(i))),
    "by matrices": guarded(lambda i, e, w, b, n, h, pos: n(body(e.weight[i] + pos[None], b)) @ h.weight.T),
}


@pytest.mark.parametrize("style", RIGHT)
def test_forward_passes_in_any_style(style: str, said: Say) -> None:
    assert check("day08b", RIGHT[style]), said()
    assert said().startswith("day08b: right. ")


def adding(x: Tensor, blocks: Any) -> Tensor:
    for block in blocks:
        x = x + block(x)
    return x


FORWARD_MISTAKES: Mapping[str, tuple[Any, str]] = {
    "no positions": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i), b)))), "positions are missing"),
    "positions by id": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + w(i), b)))), "looked up by token id"),
    "positions from 1": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + w(torch.arange(i.shape[1]) + 1), b)))),
        "begin at 1",
    ),
    "all rows of wpe": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + w.weight, b)))), "all the rows of wpe"),
    "as many positions as texts": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + w(torch.arange(len(i))), b)))),
        "len(idx) is B",
    ),
    "the list is called": (guarded(lambda i, e, w, b, n, h, pos: h(n(b(e(i) + pos)))), "which cannot be called"),
    "multiplied": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) * pos, b)))), "multiplied by the positions"),
    "positions too late": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i), b) + pos))), "added after the blocks"),
    "no blocks": (guarded(lambda i, e, w, b, n, h, pos: h(n(e(i) + pos))), "never called"),
    "only the first block": (guarded(lambda i, e, w, b, n, h, pos: h(n(b[0](e(i) + pos)))), "Only the first block"),
    "only the last block": (guarded(lambda i, e, w, b, n, h, pos: h(n(b[-1](e(i) + pos)))), "Only the last block"),
    "reversed": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + pos, list(b)[::-1])))), "reverse order"),
    "added twice": (guarded(lambda i, e, w, b, n, h, pos: h(n(adding(e(i) + pos, b)))), "a second time"),
    "no norm": (guarded(lambda i, e, w, b, n, h, pos: h(body(e(i) + pos, b))), "last norm is missing"),
    "norm first": (guarded(lambda i, e, w, b, n, h, pos: h(body(n(e(i) + pos), b))), "stands before the blocks"),
    "softmax": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + pos, b))).softmax(-1)), "went through a softmax"),
    "log_softmax": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + pos, b))).log_softmax(-1)),
        "logarithm of a softmax",
    ),
    "last position only": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + pos, b)))[:, -1]),
        "has shape (3, 11)",
    ),
    "no head": (guarded(lambda i, e, w, b, n, h, pos: n(body(e(i) + pos, b))), "has shape (3, 5, 4)"),
    "a pair": (guarded(lambda i, e, w, b, n, h, pos: (h(n(body(e(i) + pos, b))), None)), "several things"),
    "nothing": (guarded(lambda i, e, w, b, n, h, pos: None), "returned None"),
    "three blocks built in": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(b[2](b[1](b[0](e(i) + pos)))))),
        "fails for 0 blocks",
    ),
    "no limit": (lambda i, e, w, b, n, h: h(n(body(e(i) + w(torch.arange(i.shape[1])), b))), "ends in IndexError"),
    "cut silently": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i[:, :7]) + pos, b))), limit=False),
        "are accepted",
    ),
    "noise": (guarded(lambda i, e, w, b, n, h, pos: h(n(body(e(i) + pos, b))) + torch.randn(())), "something random"),
    "twice the tokens": (
        guarded(lambda i, e, w, b, n, h, pos: h(n(body(math.pi * e(i) + pos, b)))),
        "used once, in its order",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", FORWARD_MISTAKES)
def test_forward_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day08b", FORWARD_MISTAKES, mistake)


def test_forward_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day08b", FORWARD_MISTAKES, 20)
