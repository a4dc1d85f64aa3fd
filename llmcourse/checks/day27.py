"""Checkers of day 27: a command line that refuses what makes no sense, in a sentence.

A parser is judged from outside: it is given argument lists, as a shell would, and what it returns, prints and leaves
with is looked at. How its types and errors are made is the learner's business.
"""

import argparse
import contextlib
import io
import math
import os
from collections.abc import Callable
from typing import Any

from . import Wrong, exercise

GOOD = ["poet.pt", "--out", "s.jsonl"]
MISSING = object()


def build_sweep_parser() -> argparse.ArgumentParser:
    """The parser of sweep.py."""

    def number(text: str) -> float:
        value = float(text)
        if not 0 <= value <= 100:  # nan is in no range
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
        return value

    def whole(text: str, low: int = 0) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return int(text)

    def keep(text: str) -> int | None:
        return None if text == "off" else whole(text, low=1)

    p = argparse.ArgumentParser(prog="sweep.py", allow_abbrev=False)
    p.add_argument("checkpoint")
    p.add_argument("--out", required=True)
    p.add_argument("--temperature", nargs="+", type=number, default=[0.8])
    p.add_argument("--top-k", nargs="+", type=keep, default=[None])
    p.add_argument("--seed", type=whole)
    p.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    p.add_argument("--resume", action="store_true")
    return p


class Tried:
    """What one list of arguments led to: `args`, or an exit `code`; and what was said."""

    def __init__(self, parser: Any, argv: list[str]) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.args: Any = None
        self.code: Any = None
        self.error: Exception | None = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                self.args = parser.parse_args(list(argv))
            except SystemExit as stop:
                self.code = stop.code
            except Exception as e:
                self.error = e
        self.out, self.err, self.shown = out.getvalue(), err.getvalue(), " ".join(argv)

    def get(self, name: str) -> Any:
        """The value of `args.name`; Wrong if it was refused or has no such name."""
        if self.args is None:
            last = (self.err.strip() or str(self.error or "")).split("\n")[-1]
            raise Wrong(f"It refuses `{self.shown}`, which is a good command ({last}).")
        value = getattr(self.args, name, MISSING)
        if value is MISSING:
            found = ", ".join(sorted(vars(self.args)))
            raise Wrong(f"The parsed arguments have no {name}; their names are {found}.")
        return value

    def refused(self, what: str, word: str = "") -> None:
        """Wrong unless it ended with code 2 and a sentence on stderr that has `word` in it."""
        if self.args is not None:
            raise Wrong(what)
        if self.error is not None:
            kind = type(self.error).__name__
            raise Wrong(
                f"`{self.shown}` ends in a {kind}, which the caller sees as a traceback: inside a type, raise "
                "argparse.ArgumentTypeError with a sentence (or ValueError), and argparse does the rest."
            )
        if self.code != 2:
            raise Wrong(f"`{self.shown}` leaves with exit code {self.code}: a mistake of the caller's is code 2.")
        if self.out.strip():
            raise Wrong(f"For `{self.shown}` the complaint goes to stdout: words about the work belong on stderr.")
        if not self.err.strip():
            raise Wrong(f"`{self.shown}` is refused without a word: say on stderr what is wrong.")
        if "<lambda>" in self.err or "<locals>" in self.err:
            raise Wrong(
                f"`{self.shown}` is answered with “{self.err.strip().splitlines()[-1][-60:]}”: the caller learns "
                "nothing from the name of your function, so raise ArgumentTypeError with a sentence."
            )
        if word and word not in self.err:
            raise Wrong(f"The complaint about `{self.shown}` does not name the wrong value, {word}.")


@exercise(
    "day27",
    title="A parser with manners",
    signature="build_sweep_parser()",
    hints=[
        "Start from the parser of the page and change it option by option: required=True for --out, nargs='+' for the "
        "two lists, action='store_true' for the switch.",
        "A type receives the text of one value. For --top-k write a small function: if the text is 'off' return None, "
        "else read a whole number of at least 1.",
        "nan is below nothing and above nothing: ask `low <= value <= high` and refuse when that is not true, "
        "rather than `value < low`. And allow_abbrev=False belongs to ArgumentParser itself.",
    ],
    solution=build_sweep_parser,
    right="Good commands are read, bad ones get one sentence and exit code 2.",
)
def check_sweep_parser(learner: Callable[[], Any]) -> None:
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "200"  # messages on one line
    try:
        look(learner)
    finally:
        if columns is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = columns


def look(learner: Callable[[], Any]) -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # argparse's words would hide ours
            parser = learner()
    except SystemExit as stop:
        raise Wrong(
            "Building the parser already ends the program: do not call parse_args in it, only return the parser."
        ) from stop
    if isinstance(parser, argparse.Namespace):
        raise Wrong("It returns parsed arguments: return the parser, and let the caller call parse_args.")
    if parser is None:
        raise Wrong("It returns None: is there a `return` with the parser at its end?")
    if not isinstance(parser, argparse.ArgumentParser):
        raise Wrong(f"It returns a {type(parser).__name__} instead of an argparse.ArgumentParser.")

    def tried(*more: str) -> Tried:
        return Tried(parser, [*GOOD, *more])

    look_at_names(parser, tried)
    look_at_lists(parser, tried)
    look_at_values(tried)
    if tried("--temp", "1").args is not None or tried("--res").args is not None:
        raise Wrong("It accepts the abbreviation --temp or --res: ArgumentParser takes allow_abbrev=False.")


def look_at_names(parser: argparse.ArgumentParser, tried: Callable[..., Tried]) -> None:
    options = parser._option_string_actions
    for name in ("--checkpoint", "--ckpt", "--model"):
        if name in options and Tried(parser, GOOD).args is None:
            raise Wrong(f"The checkpoint is the option {name}: make it a positional argument, without dashes.")
    if "--top_k" in options and "--top-k" not in options:
        raise Wrong("The option is called --top_k: on the command line it is --top-k (argparse makes top_k of it).")
    if tried().get("checkpoint") != GOOD[0]:
        raise Wrong(f"args.checkpoint of `{' '.join(GOOD)}` is not {GOOD[0]!r}.")
    if tried().get("out") != GOOD[2]:
        raise Wrong(f"args.out of `{' '.join(GOOD)}` is not {GOOD[2]!r}.")
    Tried(parser, GOOD[1:]).refused("It does without a checkpoint: that one must be given, so no nargs='?' or default.")
    Tried(parser, GOOD[:1]).refused("It does without --out: the option takes required=True.")
    resume = tried().get("resume")
    if resume is True:
        raise Wrong("resume is True when --resume is not given: the switch is the wrong way round (store_true).")
    if resume is not False:
        raise Wrong(f"Without --resume, args.resume is {resume!r} instead of False: a switch is action='store_true'.")
    if tried("--resume").args is None:
        raise Wrong("--resume wants a value after it: a switch is action='store_true'.")
    if tried("--resume").get("resume") is not True:
        raise Wrong("With --resume, args.resume is not True.")
    seed = tried().get("seed")
    if seed is not None:
        raise Wrong(f"Without --seed the seed is silently {seed!r}: leave None, and the tool can draw and tell one.")
    if tried().get("device") != "cpu":
        raise Wrong(f"The device is {tried().get('device')!r} unless something else is said; it should be cpu.")


def look_at_lists(parser: argparse.ArgumentParser, tried: Callable[..., Tried]) -> None:
    one = tried("--temperature", "0.5")
    if one.args is None and tried("--temperature", "1").args is not None:
        raise Wrong("--temperature 0.5 is refused and 1 is not: whole numbers (type=int) are too few, use float.")
    value = one.get("temperature")
    if value == "0.5" or value == ["0.5"]:
        raise Wrong("The temperature stays a text, '0.5': without type= everything from a shell is one.")
    if value == 0.5:
        raise Wrong("--temperature 0.5 gives a single number: one or more values make a list, nargs='+'.")
    if isinstance(value, list) and len(value) > 1:
        raise Wrong(
            f"--temperature 0.5 gives {value}: the option adds to its default list (append or extend) instead of "
            "replacing it; use nargs='+' alone."
        )
    if not isinstance(value, list | tuple) or list(value) != [0.5]:
        raise Wrong(f"--temperature 0.5 should give [0.5], not {value!r}.")
    several = tried("--temperature", "0", "0.8", "1.2")
    if several.args is None:
        raise Wrong("--temperature takes a single value only: nargs='+' lets it take several.")
    if list(several.get("temperature")) != [0, 0.8, 1.2]:
        raise Wrong(f"--temperature 0 0.8 1.2 gives {several.get('temperature')!r}.")
    default = tried().get("temperature")
    if default == 0.8:
        raise Wrong("The default temperature is the number 0.8: argparse does not put it into a list, write [0.8].")
    if default is None or list(default) != [0.8]:
        raise Wrong(f"Without --temperature the value is {default!r}, not [0.8]: set its default.")
    tried("--temperature").refused("--temperature with nothing after it is accepted: nargs='+' asks for at least one.")
    if tried("--top-k", "off").args is None:
        raise Wrong("--top-k off is refused: its type must let the word off through, as None.")
    value = tried("--top-k", "10", "off").get("top_k")
    if isinstance(value, list | tuple) and "off" in value:
        raise Wrong("off stays a word: its type should return None for it.")
    if isinstance(value, list | tuple) and any(isinstance(x, float | str) for x in value):
        raise Wrong(f"--top-k 10 off gives {value!r}: a number of tokens is a whole number, int.")
    if not isinstance(value, list | tuple) or list(value) != [10, None]:
        raise Wrong(f"--top-k 10 off should give [10, None], not {value!r}.")
    default = tried().get("top_k")
    if default is None:
        raise Wrong("Without --top-k the value is None, and a loop over it fails: the default is the list [None].")
    if list(default) != [None]:
        raise Wrong(f"Without --top-k the value is {default!r}, not [None]: nothing is cut unless asked.")


def look_at_values(tried: Callable[..., Tried]) -> None:
    tried("--temperature", "hot").refused("--temperature hot is accepted.", "hot")
    for text, what in (
        ("-1", "A temperature of -1 is accepted: it would turn the bet upside down, so ask for at least 0."),
        ("nan", "nan passes as a temperature: it is below nothing and above nothing, so ask low <= value <= high."),
        ("inf", "inf passes as a temperature, and makes all characters equally likely: the limit is 100."),
        ("101", "A temperature of 101 is accepted: the limit is 100."),
    ):
        # "-1" could be taken for an option, so it comes with an equals sign.
        tried(f"--temperature={text}").refused(what, text)
    if list(tried("--temperature", "0", "100").get("temperature")) != [0, 100]:
        raise Wrong("0 and 100 are temperatures, too.")
    tried("--top-k", "0").refused("--top-k 0 is accepted, and nobody can say whether it means all or none.", "0")
    tried("--top-k=-5").refused("--top-k=-5 is accepted: at least 1 token must stay.", "-5")
    tried("--top-k", "2.5").refused("--top-k 2.5 is accepted: no half tokens.", "2.5")
    seed = tried("--seed", "42").get("seed")
    if seed == "42" or isinstance(seed, list | float) or not math.isclose(seed, 42):
        raise Wrong(f"--seed 42 gives {seed!r} instead of the whole number 42.")
    if tried("--seed", "0").get("seed") != 0:
        raise Wrong(f"--seed 0 gives {tried('--seed', '0').get('seed')!r}: 0 is a seed like any other.")
    tried("--seed=-1").refused("--seed=-1 is accepted: a seed is at least 0.", "-1")
    tried("--device", "gpu").refused("--device gpu is accepted, and would fail minutes later: use choices=.", "gpu")
    if tried("--device", "cuda").get("device") != "cuda":
        raise Wrong("--device cuda does not give 'cuda'.")
