"""Day 27: a parser in any style passes, and each typical mistake gets its own sentence."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from llmcourse.checks import check, solution
from llmcourse.checks.day27 import build_sweep_parser

Say = Callable[[], str]


def temperature(text: str) -> float:
    value = float(text)
    if math.isnan(value) or value < 0 or value > 100:
        raise argparse.ArgumentTypeError(f"temperature {text} is not from 0 to 100")
    return value


def tokens(text: str) -> int | None:
    if text == "off":
        return None
    if int(text) < 1:
        raise ValueError
    return int(text)


def seed(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return int(text)


def parser(
    make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser, abbrev: bool = False, **changes: Any
) -> Callable[[], argparse.ArgumentParser]:
    """A right parser in which single options are written differently; None leaves one out."""

    def build() -> argparse.ArgumentParser:
        options: dict[str, dict[str, Any]] = {
            "checkpoint": {},
            "--out": {"required": True},
            "--temperature": {"nargs": "+", "type": temperature, "default": [0.8]},
            "--top-k": {"nargs": "+", "type": tokens, "default": [None]},
            "--seed": {"type": seed},
            "--device": {"choices": ["cpu", "cuda", "mps"], "default": "cpu"},
            "--resume": {"action": "store_true"},
        }
        p = make(allow_abbrev=abbrev)
        for name, settings in options.items():
            key = name.strip("-").replace("-", "_")
            new = changes.get(key, {})
            if new is not None:
                merged = {**settings, **new}
                p.add_argument(merged.pop("name", name), **merged)
        return p

    return build


class Short(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print("sweep:", message, file=sys.stderr)
        sys.exit(2)


class Loud(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(message)
        sys.exit(2)


class One(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(1, message)


class Silent(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(2)


class Vague(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, "wrong usage\n")


class Raises(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RuntimeError(message)


def no_nan_check(text: str) -> float:
    value = float(text)
    if value < 0 or value > 100:
        raise ValueError
    return value


def only_positive(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ValueError
    return value


def finite(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError
    return value


def word_kept(text: str) -> int | str:
    return text if text == "off" else int(text)


def zero_kept(text: str) -> int | None:
    return None if text == "off" else int(text)


def float_tokens(text: str) -> float | None:
    return None if text == "off" else float(text)


def zero_is_off(text: str) -> int | None:
    if text in ("off", "0"):
        return None
    return tokens(text)


def seed_of_zero_lost(text: str) -> int | None:
    return seed(text) or None


def parsed() -> argparse.Namespace:
    return parser()().parse_args(["poet.pt", "--out", "s.jsonl"])


def parses_itself() -> argparse.ArgumentParser:
    p = parser()()
    p.parse_args([])
    return p


def lambda_type() -> argparse.ArgumentParser:
    def refuse() -> float:
        raise ValueError

    return parser(temperature={"type": lambda s: float(s) if 0 <= float(s) <= 100 else refuse()})()


def without_positional(**settings: Any) -> Callable[[], argparse.ArgumentParser]:
    return parser(checkpoint={"name": "--checkpoint", **settings})


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing returned": (lambda: None, "It returns None"),
    "parsed": (parsed, "return the parser, and let the caller"),
    "parses itself": (parses_itself, "Building the parser already ends"),
    "another type": (lambda: ["--out"], "instead of an argparse.ArgumentParser"),
    "checkpoint as an option": (without_positional(required=True), "make it a positional argument"),
    "checkpoint optional": (parser(checkpoint={"nargs": "?", "default": "poet.pt"}), "does without a checkpoint"),
    "wrong name": (parser(checkpoint={"name": "ckpt"}), "arguments have no checkpoint"),
    "out optional": (parser(out={"required": False}), "does without --out"),
    "underscore": (parser(top_k={"name": "--top_k"}), "on the command line it is --top-k"),
    "wrong dest": (parser(top_k={"dest": "k"}), "arguments have no top_k"),
    "resume inverted": (parser(resume={"action": "store_false"}), "the wrong way round"),
    "resume takes a value": (parser(resume={"action": "store", "default": False}), "wants a value after it"),
    "resume without default": (parser(resume={"action": "store_const", "const": True}), "is None instead of False"),
    "seed fixed": (parser(seed={"default": 42}), "silently 42"),
    "device guessed": (parser(device={"default": "cuda"}), "it should be cpu"),
    "whole temperatures": (parser(temperature={"type": int}), "whole numbers (type=int)"),
    "temperature a text": (parser(temperature={"type": str}), "stays a text"),
    "one temperature": (parser(temperature={"nargs": None, "default": 0.8}), "gives a single number"),
    "appends": (parser(temperature={"nargs": None, "action": "append"}), "adds to its default list"),
    "extends": (parser(temperature={"action": "extend"}), "adds to its default list"),
    "exactly one": (parser(temperature={"nargs": 1}), "takes a single value only"),
    "default not a list": (parser(temperature={"default": 0.8}), "does not put it into a list"),
    "no default": (parser(temperature={"default": None}), "set its default"),
    "none is enough": (parser(temperature={"nargs": "*"}), "asks for at least one"),
    "off refused": (parser(top_k={"type": int}), "let the word off through"),
    "off stays": (parser(top_k={"type": word_kept}), "off stays a word"),
    "half tokens": (parser(top_k={"type": float_tokens}), "a number of tokens is a whole number"),
    "top-k default None": (parser(top_k={"default": None}), "a loop over it fails"),
    "top-k cuts": (parser(top_k={"default": [40]}), "nothing is cut unless asked"),
    "negative": (parser(temperature={"type": float}), "turn the bet upside down"),
    "nan": (parser(temperature={"type": no_nan_check}), "nan passes"),
    "inf": (parser(temperature={"type": only_positive}), "inf passes"),
    "no upper limit": (parser(temperature={"type": finite}), "temperature of 101"),
    "top-k 0": (parser(top_k={"type": zero_kept}), "all or none"),
    "top-k 0 as off": (parser(top_k={"type": zero_is_off}), "all or none"),
    "seed a text": (parser(seed={"type": str}), "gives '42' instead"),
    "seed 0 lost": (parser(seed={"type": seed_of_zero_lost}), "0 is a seed like any other"),
    "seed negative": (parser(seed={"type": int}), "a seed is at least 0"),
    "any device": (parser(device={"choices": None}), "fail minutes later"),
    "abbreviations": (parser(abbrev=True), "takes allow_abbrev=False"),
    "exit code 1": (parser(One), "is code 2"),
    "on stdout": (parser(Loud), "goes to stdout"),
    "silent": (parser(Silent), "without a word"),
    "vague": (parser(Vague), "does not name the wrong value"),
    "traceback": (parser(Raises), "as a traceback"),
    "lambda": (lambda_type, "nothing from the name of your function"),
}

RIGHT: dict[str, Callable[..., Any]] = {
    "reference": build_sweep_parser,
    "value errors": parser(),
    "own error": parser(Short),
    "underscore too": parser(top_k={"name": "--top-k", "dest": "top_k", "metavar": "K"}),
    "tuples": parser(device={"choices": ("cpu", "cuda", "mps")}, resume={"default": False}),
}


@pytest.mark.parametrize("style", RIGHT)
def test_parsers_pass_in_any_style(style: str, said: Say) -> None:
    assert check("day27", RIGHT[style]), said()


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day27", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day27", WRONG, least=30)


def test_the_stub_is_told_so(said: Say) -> None:
    def build_sweep_parser() -> argparse.ArgumentParser:
        raise NotImplementedError

    assert not check("day27", build_sweep_parser)
    assert "still raises NotImplementedError" in said()


def test_the_solution_can_be_shown(said: Say) -> None:
    solution("day27")
    assert "allow_abbrev=False" in said()
