"""Bad input of every kind, aimed at whatever takes some: calls, commands, exercises, files. Each reply is a sentence.

`COURSE_BAD_INPUT=all` lets every exercise meet every wrong answer; otherwise each meets some of them, all together all.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import io
import itertools
import json
import math
import os
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import (
    checkpoint,
    checks,
    cli,
    data,
    device,
    evaluation,
    ngram,
    plots,
    quality,
    quiz,
    recipes,
    runs,
    sampler,
    sweeps,
    tokenizer,
    universe,
    widgets,
)  # fmt: skip
from llmcourse.errors import CourseError
from llmcourse.model import GPT, GPTConfig
from llmcourse.recipes import Recipe
from llmcourse.tokenizer import BPETokenizer, CharTokenizer
from llmcourse.trainer import TrainConfig, Trainer

torch.set_num_threads(1)
ALL = os.environ.get("COURSE_BAD_INPUT") == "all"
CHARS = CharTokenizer("\nabcdefghi ")
CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16)
IDS = torch.arange(60) % 11


def assert_sentence(error: CourseError) -> None:
    assert str(error).endswith((".", "?")) and "\n" not in str(error), repr(str(error))  # "did you mean tour01?"


# --- what is typed in a cell -----------------------------------------------------------------------------------


@functools.cache
def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).eval()


@functools.cache
def bpe() -> BPETokenizer:
    return BPETokenizer.train("to be or not to be " * 9, 262, ["<|end|>"])


@functools.cache
def counts() -> ngram.KneserNey:
    return ngram.KneserNey(3, 11).fit(IDS)


@functools.cache
def world() -> universe.Universe:
    return universe.Universe(books=6, sentences=3)


RECORD = {"step": 1, "loss": 2.0}
NUMBERS: dict[str, Callable[[Any], Any]] = {  # where a number belongs
    "a vocabulary": lambda x: BPETokenizer.train("to be " * 9, x),
    "a batch": lambda x: data.get_batch(IDS, x, 4),
    "a block": lambda x: data.get_batch(IDS, 2, x),
    "a window": lambda x: data.TextDataset(IDS, x),
    "a stride": lambda x: data.TextDataset(IDS, 4, x),
    "a share": lambda x: data.split("abcdefghijkl", x),
    "evaluation's block": lambda x: evaluation.evaluate(gpt(), IDS[:20], x),
    "evaluation's batch": lambda x: evaluation.evaluate(gpt(), IDS[:20], batch_size=x),
    "a length": lambda x: sampler.generate(gpt(), IDS[None, :3], x),
    "a temperature": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, temperature=x),
    "top-k": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, top_k=x),
    "top-p": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, top_p=x),
    "min-p": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, min_p=x),
    "a seed": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, seed=x),
    "a stop token": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, stop=x),
    "a beam": lambda x: sampler.beam_search(gpt(), IDS[None, :3], 2, x),
    "a penalty": lambda x: sampler.beam_search(gpt(), IDS[None, :3], 2, 2, x),
    "an order": lambda x: ngram.KneserNey(x),
    "an n-gram's vocabulary": lambda x: ngram.KneserNey(2, x),
    "a discount": lambda x: ngram.KneserNey(2, 5, x),
    "a number of n-gram tokens": lambda x: counts().generate(x),
    "an n-gram's seed": lambda x: counts().generate(2, x),
    "distinct": lambda x: quality.distinct("abcabc", x),
    "a loop": lambda x: quality.loop("abcabc", x),
    "books": lambda x: universe.Universe(books=x),
    "sentences": lambda x: universe.Universe(sentences=x),
    "held-out books": lambda x: world().split(x, 1),
    "tasks": lambda x: world().tasks("fact", x),
    "steps of a task": lambda x: world().tasks("count", 1, steps=x),
    "a smoothing": lambda x: plots.loss_curves([RECORD], key="loss", smooth=x),
    "rows of a distribution": lambda x: plots.distribution([0.5, 0.5], "ab", top=x),
    "bars of a slider": lambda x: widgets.temperature_slider("ab", [1.0, 2.0], top=x),
    "a slider's layers": lambda x: widgets.parameter_slider(n_layer=x),
    "a hint": lambda x: checks.hint("day09", x),
}
TEXTS: dict[str, Callable[[Any], Any]] = {  # where a text, a name or some texts belong
    "characters": CharTokenizer,
    "a text of characters": CharTokenizer.from_text,
    "a text to encode": CHARS.encode,
    "a text for BPE": lambda x: bpe().encode(x),
    "an ordinary text": lambda x: bpe().encode_ordinary(x),
    "a text to learn from": lambda x: BPETokenizer.train(x, 257),
    "special tokens": lambda x: BPETokenizer.train("to be " * 9, 270, x),
    "a prompt": lambda x: sampler.generate_text(gpt(), CHARS, x, 2),
    "a stop": lambda x: sampler.generate_text(gpt(), CHARS, "abc", 2, stop=x),
    "past_window": lambda x: sampler.generate(gpt(), IDS[None, :3], 2, past_window=x),
    "a corpus": data.load,
    "a kind of task": lambda x: world().tasks(x, 1),
    "a text of the universe": lambda x: world().surprise(x),
    "a device": device.pick_device,
    "a precision": lambda x: device.precision_policy(torch.device("cpu"), x),
    "a recipe": recipes.get,
    "a quiz": lambda x: quiz.quiz(x) if isinstance(x, str) else None,
    "an exercise": checks.solution,
}
ROWS: dict[str, Callable[[Any], Any]] = {  # where ids, scores or a log belong
    "a prompt of ids": lambda x: sampler.generate(gpt(), x, 2),
    "ids to decode": CHARS.decode,
    "ids for BPE": lambda x: bpe().decode(x),
    "ids of a batch": lambda x: data.get_batch(x, 2, 4),
    "ids of a dataset": lambda x: data.TextDataset(x, 4),
    "ids to count": lambda x: ngram.KneserNey(2, 11).fit(x),
    "a context": lambda x: counts().probs(x),
    "a log": lambda x: plots.loss_curves(x, key="loss"),
    "a log to play": widgets.training_player,
    "a schedule": plots.lr_schedule,
    "a line": lambda x: plots.lines([1, 2], x, xlabel="x", ylabel="y"),
    "rows of dots": lambda x: plots.dots(x, xlabel="x"),
    "a matrix": plots.heatmap,
    "attention": lambda x: plots.attention_maps(x, "ab"),
    "logits of a slider": lambda x: widgets.temperature_slider("ab", x),
    "a description of a tokenizer": tokenizer.tokenizer_from_dict,
}

SCALARS = st.one_of(
    st.sampled_from([None, True, False, -1, 0, 1, 2, -(10**400), 1j, len, object(), np.float32(1.5), np.int64(2)]),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["\udcff", "<script>", "\0", "x" * 3000, "First Citizen:\nBefore we proceed any further" * 9]),
    st.binary(max_size=3),
)
ARRAYS = st.sampled_from(
    [torch.tensor(1), torch.empty(0), torch.ones(2, 3), torch.ones(3, dtype=torch.bool), torch.tensor([-1, 5]),
     torch.full((3,), math.nan), torch.ones(2, dtype=torch.complex64), np.array([1.5]), torch.tensor([[1, 99]])]
)  # fmt: skip
ANYTHING = st.one_of(SCALARS, ARRAYS, st.recursive(SCALARS, lambda x: st.lists(x, max_size=3), max_leaves=5))
PLACES = {**NUMBERS, **TEXTS, **ROWS}


def try_it(where: str, value: Any) -> None:
    """Either it works or the mistake is told in one sentence."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            PLACES[where](value)
    except CourseError as error:
        assert_sentence(error)
    finally:
        plots.plt.close("all")


@pytest.mark.promise(
    "Bad input",
    "A number, a text or a row of numbers of any other kind than the one asked for, in any of the places where "
    "learners type one, either works or is refused in one sentence.",
)
@pytest.mark.parametrize("where", PLACES)
@settings(max_examples=25, deadline=None)
@given(value=ANYTHING)
def test_any_value_in_any_place_works_or_is_told_in_one_sentence(where: str, value: Any) -> None:
    try_it(where, value)


@pytest.mark.parametrize("bad", ["text", math.nan, -math.inf, 1.5j, [1], torch.ones(2, 3), object()])
@pytest.mark.parametrize("where", NUMBERS)
def test_what_is_no_number_is_refused_where_one_belongs(where: str, bad: Any) -> None:
    with pytest.raises(CourseError) as caught:
        PLACES[where](bad)
    assert_sentence(caught.value)


def test_a_mistake_stays_on_one_line_whatever_it_quotes() -> None:
    with pytest.raises(CourseError) as caught:
        GPTConfig(n_layer=torch.ones(3, 3))  # type: ignore[arg-type]
    assert_sentence(caught.value)
    assert "tensor([[1., 1., 1.], [1., 1., 1.], [1., 1., 1.]])" in str(caught.value)
    assert copy.copy(caught.value).args == caught.value.args


def test_a_text_where_the_name_of_a_file_belongs_is_told() -> None:
    with pytest.raises(CourseError, match=r"Cannot read the file .*File name too long"):
        data.load("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 100)


def test_a_list_of_losses_is_no_log_and_the_sentence_shows_one() -> None:
    with pytest.raises(CourseError, match=r"A log is a list of records, such as \{'step': 10, 'loss': 2.5\}"):
        plots.loss_curves({"mine": [2.5, 2.4]}, key="loss")


# --- the command line --------------------------------------------------------------------------------------------

TEXT = "ROMEO:\nHe jests at scars that never felt a wound.\n" * 20
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8}
TRAINING = {"max_steps": 2, "warmup_steps": 1, "batch_size": 2}
SET = [f"{name}={value}" for name, value in (SHAPE | TRAINING).items()]
# A call of each command that works, without its option `dest`; what follows is then wrong in one place only.
WORKS: dict[str, list[tuple[str, list[str]]]] = {
    "train": [("corpus", ["--corpus", "corpus.txt"]), ("out", ["--out", "new"]), ("set", ["--set", *SET]),
              ("device", ["--device", "cpu"])],
    "generate": [("model", ["run"]), ("max_new_tokens", ["--max-new-tokens", "2"]), ("prompt", ["--prompt", "R"])],
    "evaluate": [("model", ["run"]), ("corpus", ["--corpus", "corpus.txt"]), ("device", ["--device", "cpu"])],
    "tokenize": [("train", ["--train", "corpus.txt"]), ("out", ["--out", "new.json"]),
                 ("vocab_size", ["--vocab-size", "258"])],
    "record": [("name", ["tiny"]), ("device", ["--device", "cpu"])],
    "doctor": [("device", ["--device", "cpu"])],
    "progress": [],
}  # fmt: skip
NOWHERE = ["", "nowhere/at/all", "x" * 300, "\udcff"]
WRONG_WORDS = {  # of options that take any text; what else they take is known to argparse
    "preset": NOWHERE, "corpus": [*NOWHERE, "run", "run/best.pt"], "out": ["", "corpus.txt/below", "x" * 300],
    "set": ["", "max_steps", "=3", "steps=3", "max_steps=0", "max_steps=nan", "n_embd=7", "bias=2", "norm=[]"],
    "device": ["", "tpu", "cuda:-1", "\udcff"], "model": [*NOWHERE, "corpus.txt", "."], "prompt": ["", "Zoë", "\udcff"],
    "stop": ["", "\udcff"], "past_window": ["", "guess"], "tokenizer": [*NOWHERE, "corpus.txt"],
    "train": [*NOWHERE, "run"], "name": NOWHERE,
    "text": ["\udcff"],
}  # fmt: skip


def wrong_words(option: argparse.Action) -> list[str]:
    """Words that this option must refuse."""
    if option.choices:
        return ["", "nothing", "\udcff"]
    if option.type is cli.whole:
        return ["", "x", "-1", "1.5", "1e3", "inf", "9" * 30, "9" * 5000, "³", "\udcff"]
    if option.type in (int, float):
        return ["", "x", "-1", "nan", "\udcff", *(["0", "1.5"] if option.type is int else ["inf", "-inf"])]
    return WRONG_WORDS[option.dest]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command with every one of its options wrong in turn; a new command or option is attacked by itself."""
    parsers = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    for name, parser in parsers.items():
        for option in parser._actions:
            if isinstance(option, argparse._HelpAction):
                continue
            rest = [word for dest, words in WORKS[name] if dest != option.dest for word in words]
            flag = option.option_strings[-1:]
            if option.nargs == 0:  # a switch
                yield name, [*rest, f"{flag[0]}=1"]
                continue
            if flag:
                yield name, [*rest, *flag]  # its value is missing
            if name == "tokenize" and option.dest in ("text", "tokenizer"):
                rest = ["--text", "to be"] if option.dest == "tokenizer" else ["--tokenizer", "small.json"]
            for word in wrong_words(option):
                if flag and not isinstance(option.nargs, str):
                    yield name, [*rest, f"{flag[0]}={word}"]
                elif flag or word != "" or option.nargs is None:
                    yield name, [*rest, *flag, word]
        yield name, [*[word for _, words in WORKS[name] for word in words], "--no-such-option"]
        yield name, [*[word for _, words in WORKS[name] for word in words], "one", "too", "many"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus, a model and a tokenizer, and recipes that take a moment."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(TEXT)
    chars = CharTokenizer.from_text(TEXT)
    checkpoint.save("run/best.pt", GPT(GPTConfig(chars.vocab_size, **SHAPE)), chars)
    BPETokenizer.train(TEXT, 258).save("small.json")
    small = Recipe("Only for tests.", SHAPE, TRAINING, "corpus.txt")
    monkeypatch.setattr(recipes, "RECIPES", dict.fromkeys(recipes.PRESETS, small))
    monkeypatch.setattr(recipes, "estimate_seconds", lambda *args: 1.0)
    monkeypatch.setitem(runs.record.__kwdefaults__, "folder", tmp_path / "recorded")  # type: ignore[index]
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.promise(
    "Bad input",
    "Every option of every command, given a wrong value, no value or a value too many, ends with exit code 2 and one "
    "line that says why, and no file is written or changed.",
)
@pytest.mark.parametrize("name", WORKS)
def test_every_wrong_option_of_every_command_is_one_line(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, tried = files(place), 0
    for command, words in commands():
        if command != name:
            continue
        code = cli.main([command, *words])
        err = capsys.readouterr().err
        what = f"llmcourse {command} {words!r:.300}"
        assert code == 2, what
        assert err.startswith("llmcourse: ") and err.endswith(".\n") and err.count("\n") == 1, (what, err)
        assert files(place) == before, what
        tried += 1
    assert tried > len(WORKS[name])


def test_the_calls_that_the_attacks_start_from_work(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parsers = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert set(WORKS) == set(parsers)
    for name, parts in WORKS.items():
        assert cli.main([name, *[word for _, words in parts for word in words]]) == 0, capsys.readouterr().err


def test_a_prompt_may_come_from_standard_input(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "run", "--max-new-tokens", "5"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ROMEO:\nHe"), "utf-8"))
    assert cli.main([*command, "--prompt", "-", "--num-samples", "2"]) == 0
    assert capsys.readouterr().out.count("ROMEO:\nHe") == 2
    for stdin, sentence in (
        (io.TextIOWrapper(io.BytesIO(b"R\xff"), "utf-8"), "standard input is not UTF-8 text"),
        (io.StringIO(""), "The prompt is empty"),
        (None, "The prompt is empty"),
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main([*command, "--prompt", "-"]) == 2
        assert sentence in capsys.readouterr().err


def test_a_program_without_standard_output_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as after `>&-`
    assert cli.main(["progress"]) == 0
    assert cli.main(["progress", "--no-such-option"]) == 2


# --- the exercises -----------------------------------------------------------------------------------------------


class Hostile:
    """Nothing can be done with it."""

    __hash__ = None  # type: ignore[assignment]

    def _no(self, *args: Any) -> Any:
        raise ValueError("no")

    __eq__ = __len__ = __iter__ = __repr__ = __str__ = __bool__ = __getattr__ = __call__ = _no


class Agreeable:
    """Says yes to everything."""

    def _yes(self, *args: Any, **options: Any) -> Any:
        return True

    def _self(self, *args: Any, **options: Any) -> Any:
        return self

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = _yes
    __getitem__ = __call__ = __getattr__ = _self

    def __hash__(self) -> int:
        return 0

    def __len__(self) -> int:
        return 3

    def __float__(self) -> float:
        return 1.0


def endless(*args: Any, **options: Any) -> Any:
    while True:
        pass


def deeper(*args: Any, **options: Any) -> Any:
    return deeper(*args, **options)


def raising(error: BaseException) -> Callable[..., Any]:
    def raises(*args: Any, **options: Any) -> Any:
        raise error

    return raises


def leaves(*args: Any, **options: Any) -> Any:
    sys.exit(3)


def closes(*args: Any, **options: Any) -> Any:
    sys.stdout.close()
    sys.stderr.close()


def reseeds(*args: Any, **options: Any) -> Any:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float16)
    torch.set_grad_enabled(False)


def spoils(*args: Any, **options: Any) -> None:
    """Empties and zeroes what it is given, as far as it can."""
    for x in (*args, *options.values()):
        with contextlib.suppress(Exception), torch.no_grad():
            x.zero_() if isinstance(x, torch.Tensor) else x.clear()


def talks(*args: Any, **options: Any) -> None:
    print("<script>", *(type(x) for x in args), "\ud800 \x1b[2J \r\n" * 99)


def returns(make: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *args, **options: make()


KNOT: list[Any] = []
KNOT.append(KNOT)
RETURNED: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None, "no": lambda: False, "zero": lambda: 0, "minus one": lambda: -1,
    "a giant": lambda: 10**400,
    "nan": lambda: math.nan, "infinity": lambda: math.inf, "a complex number": lambda: 1j, "no text": str,
    "a text": lambda: "text", "half a character": lambda: "\udcff", "lines": lambda: "a\nb\r\n\u2028c",
    "a long text": lambda: "x" * 10**5, "bytes": lambda: b"ab", "no list": list, "no dict": dict, "a set": lambda: {1},
    "a pair": lambda: (None, None), "a mixture": lambda: (1, "a", None), "a ragged list": lambda: [[1, 2], [3]],
    "a long list": lambda: [0] * 10**5, "a knot": lambda: KNOT, "a dict": lambda: {1: None, "a": []},
    "a range": lambda: range(10**15), "a generator": lambda: (i for i in range(3)), "a type": lambda: int,
    "a function": lambda: len, "an error": lambda: ValueError("x"), "a module": lambda: torch.nn.Linear(2, 2),
    "a scalar": lambda: torch.tensor(1.0), "no numbers": lambda: torch.empty(0), "flags": lambda: torch.ones(2) > 0,
    "whole numbers": lambda: torch.ones(2, 3, dtype=torch.int64), "halves": lambda: torch.ones(2, 3).half(),
    "complex numbers": lambda: torch.ones(2, dtype=torch.complex64), "nans": lambda: torch.full((2, 3), math.nan),
    "a shape alone": lambda: torch.ones(2, 3, device="meta"), "a sparse matrix": lambda: torch.eye(3).to_sparse(),
    "gradients": lambda: torch.ones(2, 3, requires_grad=True),
    "a vast tensor": lambda: torch.ones(1).expand(9**6, 9**6),
    "an array": lambda: np.ones((2, 3)), "objects": lambda: np.array([None, "a"], dtype=object),
    "a mock": MagicMock, "something hostile": Hostile, "something agreeable": Agreeable,
}  # fmt: skip


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"returns {what}": returns(make) for what, make in RETURNED.items()},
    "returns its first argument": lambda *args, **options: args[0] if args else None,
    "returns its last argument": lambda *args, **options: args[-1] if args else None,
    "returns all it got": lambda *args, **options: args,
    "loops": endless, "recurses": deeper, "leaves": leaves, "closes": closes, "reseeds": reseeds, "spoils": spoils,
    "talks": talks, "raises": raising(RuntimeError("many\nlines")), "interrupts": raising(KeyboardInterrupt()),
    "stops": raising(StopIteration()), "asserts": raising(AssertionError()), "is unspeakable": raising(Unspeakable()),
    "takes no argument": lambda: 1, "takes a keyword": lambda *, only: only,
    "is no function": "text", "is nothing": None, "is a class": Hostile, "is a mock": MagicMock(),
}  # type: ignore[dict-item]  # fmt: skip


def answers(asked: checks.Exercise) -> dict[str, Any]:
    """Wrong answers to this exercise, from a stub to an attack."""
    if asked.wants == "value":
        pairs = {f"two that return {what}": (returns(make), returns(make)) for what, make in RETURNED.items()}
        return {what: make() for what, make in RETURNED.items()} | pairs | {"two that loop": (endless, endless)}
    if asked.wants == "function":
        return FUNCTIONS
    reference: Any = asked.solution
    own = [m for m, f in vars(reference).items() if is_method(f) and not m.startswith("__")] + ["__init__"]
    own += [m for m in ("__call__", "__len__", "__getitem__") if m in vars(reference)]
    classes: dict[str, Any] = {"no class": 3, "int": int, "a mock": MagicMock(), "hostile": Hostile, "yes": Agreeable}
    for what, wrong in FUNCTIONS.items():
        if callable(wrong) and "returns its" not in what:  # one method of the reference replaced
            method = own[len(classes) % len(own)]
            body = functools.partial(wrong) if isinstance(wrong, type | MagicMock) else wrong
            if not (method == "__init__" and what in ("returns nothing", "talks", "reseeds", "spoils", "closes")):
                classes[f"{method} {what}"] = type("Learners", (reference,), {method: body})
    return classes


def is_method(member: Any) -> bool:
    return callable(member) and not isinstance(member, type)


def some(everything: dict[str, Any], number: int) -> dict[str, Any]:
    """All, if asked for; otherwise every ninth, beginning elsewhere for every exercise."""
    return everything if ALL else dict(itertools.islice(everything.items(), number % 9, None, 9))


def world_state() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),
            torch.get_default_dtype(), torch.is_grad_enabled(), sys.stdout, sys.stderr]  # fmt: skip


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    def shorten(name: str, seconds: float) -> None:
        monkeypatch.setitem(checks.EXERCISES, name, dataclasses.replace(checks.find(name), seconds=seconds))

    return shorten


@pytest.mark.promise(
    "Bad input",
    "Whatever is handed in for an exercise (nothing, a mock, an endless loop, code that leaves, closes the output or "
    "spoils its input), the reply is one line, never 'right', and the caller's random numbers and settings stay.",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("number", "name"), list(enumerate(checks.names())))
def test_no_answer_breaks_a_checker_or_fools_it(
    number: int, name: str, short_limit: Callable[[str, float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = checks.find(name).seconds
    for what, answer in some(answers(checks.find(name)), number).items():
        short_limit(name, 0.3 if "loop" in what else usual)
        before = world_state()
        assert not checks.check(name, answer), f"{what}: accepted"
        assert world_state() == before, what
        reply, _, rest = capsys.readouterr().out.partition("\n")
        assert reply.startswith(f"{name}: not yet. ") and reply.endswith(" has a hint."), f"{what}: {reply!r:.300}"
        assert len(reply) < checks.LONGEST + 60 and "\r" not in reply and "\u2028" not in reply, what
        assert not rest or rest.startswith("Your code printed:\n"), f"{what}: {rest!r:.300}"
        if "returns" in what and "argument" not in what and "hostile" not in what:
            assert "Your code raises" not in reply, f"{what}: {reply}"  # it raised nothing


@pytest.mark.parametrize("name", ["day09", "day22", "day36b"])
def test_an_endless_loop_is_told_as_one(
    name: str, short_limit: Callable[[str, float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    short_limit(name, 0.2)
    assert not checks.check(name, endless)
    assert "still ran after 0.2 seconds: is there a loop that never ends?" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["day26", "day36b", "day39", "tour01"])
def test_an_answer_that_spoils_its_input_spoils_no_later_check(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not checks.check(name, spoils)
    assert checks.check(name, checks.find(name).solution), capsys.readouterr().out


# --- files -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3), max_leaves=6,
)  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a tree of dicts and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


def altered(tree: Any, draw: st.DataObject, values: st.SearchStrategy[Any]) -> Any:
    """A copy of the tree in which one value is replaced or left out."""
    tree = copy.deepcopy(tree)
    *way, last = draw.draw(st.sampled_from(list(places(tree))))
    inside = functools.reduce(lambda x, key: x[key], way, tree)
    if draw.draw(st.booleans()):
        inside[last] = draw.draw(values)
    else:
        del inside[last]
    return tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad_input")


@pytest.mark.promise(
    "Bad input",
    "A tokenizer file with any one value replaced or left out, its checksum renewed, loads as a tokenizer or is "
    "refused in one sentence.",
)
@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_an_altered_tokenizer_file_is_a_tokenizer_or_a_sentence(folder: Path, draw: st.DataObject) -> None:
    path = folder / "bpe.json"
    content = altered(bpe().to_dict(), draw, JSON)
    whole = {"format": tokenizer.FILE_FORMAT, "sha256": tokenizer._digest(content), **content}
    path.write_text(json.dumps(whole))
    try:
        loaded = BPETokenizer.load(path)
        assert loaded.decode(loaded.encode_ordinary("to be")) == "to be"
    except CourseError as error:
        assert_sentence(error)


def recorded(kind: str) -> Any:
    """What a short recorded run or sweep looks like in its file."""
    machine = {"name": "a machine", "device": "cpu", "threads": 1, "torch": "2"}
    if kind == "run":
        log = [{"step": s, "loss": 2.5, "val_loss": 2.0, "sample": "ROMEO:"} for s in (1, 2)]
        run = runs.Run("x", {"about": "a"}, 10, 3, {"version": "1"}, machine, 1, 2.0, log)  # type: ignore[arg-type]
        return asdict(run)
    result = sweeps.Result("wide", 1, {"n_embd": 8}, 10, 5, 1.0, 2.0, 2.1, 2.2)
    return asdict(sweeps.Sweep("x", "About.", "tiny", machine, [result]))


@pytest.mark.promise(
    "Bad input",
    "The file of a recorded run or sweep with any one value replaced or left out loads, and then captions and tables "
    "can be made of it, or is refused in one sentence.",
)
@pytest.mark.parametrize("kind", ["run", "sweep"])
@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_an_altered_recording_is_a_recording_or_a_sentence(folder: Path, kind: str, draw: st.DataObject) -> None:
    (folder / "x.json").write_text(json.dumps(altered(recorded(kind), draw, JSON)))
    try:
        if kind == "run":
            run = runs.load("x", folder)
            assert isinstance(run.about(), str) and run.best_loss is not None and run.samples is not None
        else:
            sweep = sweeps.load("x", folder)
            assert isinstance(sweep.table() + sweep.caption(), str)
    except CourseError as error:
        assert_sentence(error)


QUIZ = """\
[[question]]
text = "Two?"
[[question.choices]]
text = "2"
right = true
why = "a"
[[question.choices]]
text = "3"
why = "b"
[[question]]
text = "How many?"
answer = 4
tolerance = 0.1
why = "c"
"""


@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_an_altered_quiz_is_a_quiz_or_a_sentence(folder: Path, draw: st.DataObject) -> None:
    lines = QUIZ.splitlines()
    i = draw.draw(st.integers(0, len(lines) - 1))
    values = ["2", "-1", "nan", "inf", "true", '""', '"<script>"', "[]", "[1]", "{}", "1979-05-27", '"\\u0000"', "="]
    name = draw.draw(st.sampled_from([lines[i].partition(" =")[0], "other", "[[question]]", "[question]", ""]))
    lines[i] = draw.draw(st.sampled_from([lines[i], "", name, *(f"{name} = {value}" for value in values)]))
    (folder / "q.toml").write_text("\n".join(lines))
    try:
        shown = quiz.quiz("q", folder)
        assert shown._repr_html_().count("<script>") == 1 and shown.answers() and repr(shown)
    except CourseError as error:
        assert_sentence(error)


def test_a_quiz_that_loads_is_still_one(folder: Path) -> None:
    (folder / "q.toml").write_text(QUIZ)
    assert len(quiz.quiz("q", folder).questions) == 2


def saved(path: Path, **changes: Any) -> Path:
    """A checkpoint in which some parts are others."""
    checkpoint.save(path, gpt(), CHARS)
    torch.save(torch.load(path, weights_only=True) | changes, path)
    return path


def weights(**changes: Any) -> dict[str, Any]:
    content = {name: w for name, w in gpt().state_dict().items() if name != "transformer.wte.weight"}
    return content | {name.replace("__", "."): w for name, w in changes.items()}


VALUES = st.one_of(
    JSON,
    st.sampled_from([10**12, 10**400, 2**31, 0, -1, 1.5, "rope", "sinusoidal", "none", torch.ones(2)]),
    st.sampled_from([torch.ones(11, 16), torch.ones(11, 16).half(), torch.ones(1).expand(9**6, 9**6)]),
)


@pytest.mark.promise(
    "Strangers' files",
    "A checkpoint with any one value of its configuration, weights or tokenizer replaced or left out loads as a model "
    "or is refused in one sentence, in a moment, whatever sizes it declares.",
)
@settings(max_examples=100, deadline=10_000)
@given(draw=st.data())
def test_an_altered_checkpoint_is_a_model_or_a_sentence(folder: Path, draw: st.DataObject) -> None:
    parts = {"config": asdict(CONFIG), "model": weights(), "tokenizer": CHARS.to_dict(), "training": {}}
    torch.save({"format": 1, **altered(parts, draw, VALUES)}, folder / "altered.pt")
    try:
        assert isinstance(checkpoint.load(folder / "altered.pt").model, GPT)
    except CourseError as error:
        assert_sentence(error)


LARGE = asdict(CONFIG)
REFUSED: dict[str, dict[str, Any]] = {
    "a billion layers": {"config": LARGE | {"n_layer": 10**9}},
    "a billion n-grams": {"config": LARGE | {"ngram": 10**9}},
    "a vocabulary without end": {"config": LARGE | {"vocab_size": 10**400}},
    "a vocabulary as large as the memory": {"config": LARGE | {"vocab_size": 2**31}},
    "a context as large as the memory": {
        "config": LARGE | {"block_size": 2**36, "position": "rope"},
        "model": {name: w for name, w in weights().items() if ".wpe." not in name},  # all that such a model has
    },
    "one number in every place": {
        "config": LARGE | {"vocab_size": 9**9}, "model": weights(lm_head__weight=torch.ones(1).expand(9**9, 16))
    },
    "another shape": {"model": weights(lm_head__weight=torch.ones(16, 11))},
    "a weight too many": {"model": weights(extra=torch.ones(1))},
    "whole numbers": {"model": weights(lm_head__weight=torch.ones(11, 16, dtype=torch.int64))},
    "complex numbers": {"model": weights(lm_head__weight=torch.ones(11, 16, dtype=torch.complex64))},
    "no numbers": {"model": weights(lm_head__weight=torch.ones(11, 16, device="meta"))},
    "a list of numbers": {"model": weights(lm_head__weight=[[1.0]])},
}  # fmt: skip


@pytest.mark.promise(
    "Strangers' files",
    "A small checkpoint that declares a huge model (layers, vocabulary, context, one number posing as a matrix) is "
    "refused before any memory is taken.",
)
@pytest.mark.parametrize("what", REFUSED)
def test_a_checkpoint_is_refused_before_its_model_is_built(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "model.pt", **REFUSED[what])
    if what != "no numbers":  # these are found when they are copied
        build = lambda config: GPT(config) if torch.empty(0).is_meta else pytest.fail("built")  # noqa: E731
        monkeypatch.setattr(checkpoint, "GPT", build)
    with pytest.raises(CourseError, match="does not fit its own configuration") as caught:
        checkpoint.load(path)
    assert_sentence(caught.value)


def test_the_look_at_a_checkpoint_draws_no_random_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt")
    torch.manual_seed(5)
    GPT(CONFIG)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checkpoint.load(path)  # as many as the model that it builds
    assert torch.equal(torch.rand(3), expected)


def test_weights_that_share_their_numbers_are_loaded_apart(tmp_path: Path) -> None:
    one = torch.randn(16)
    names = ("transformer.ln_f.weight", "transformer.ln_f.bias")
    own = checkpoint.load(saved(tmp_path / "m.pt", model=weights() | dict.fromkeys(names, one))).model.state_dict()
    assert all(torch.equal(own[name], one) for name in names) and len({own[name].data_ptr() for name in names}) == 2


def test_weights_that_are_no_numbers_are_told_when_they_are_used(tmp_path: Path) -> None:
    broken = checkpoint.load(saved(tmp_path / "m.pt", model=weights(lm_head__weight=torch.full((11, 16), math.nan))))
    with pytest.raises(CourseError, match="NaN or infinite logits"):
        sampler.generate(broken.model, IDS[None, :3], 2)


@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_bytes_of_one_member_of_a_checkpoint_are_noticed_or_harmless(folder: Path, draw: st.DataObject) -> None:
    """Checksums are renewed: what is altered here is what the file says, not what a broken disk would show."""
    source = zipfile.ZipFile(saved(folder / "whole.pt"))
    member = draw.draw(st.sampled_from([i.filename for i in source.infolist() if i.file_size]))
    with zipfile.ZipFile(folder / "bytes.pt", "w") as archive:
        for info in source.infolist():
            content = bytearray(source.read(info))
            if info.filename == member:
                at = draw.draw(st.integers(0, len(content) - 1))
                damage = draw.draw(st.binary(min_size=1, max_size=4))
                content[at : at + len(damage)] = damage
            archive.writestr(info.filename, bytes(content))
    try:
        assert isinstance(checkpoint.load(folder / "bytes.pt").model, GPT)
    except CourseError as error:
        assert_sentence(error)


def run_of(folder: Path, resume: bool = False) -> Trainer:
    config = TrainConfig(max_steps=3, warmup_steps=1, batch_size=2, eval_interval=2, checkpoint_interval=2)
    torch.manual_seed(0)
    return Trainer(
        GPT(CONFIG), config, IDS, IDS, tokenizer=CHARS, out_dir=folder, resume=resume, device="cpu", progress=False
    )


@pytest.fixture(scope="module")
def finished(folder: Path) -> dict[str, Any]:
    """The content of the last checkpoint of a training that was stopped before its last step."""
    trainer = run_of(folder / "finished")
    trainer.out_of_patience = lambda: trainer.step == 2  # type: ignore[method-assign]
    trainer.run()
    return torch.load(folder / "finished" / "last.pt", weights_only=True)


@pytest.mark.promise(
    "Strangers' files",
    "A training whose saved state has any one value replaced or left out goes on or is refused in one sentence.",
)
@settings(max_examples=50, deadline=None)
@given(draw=st.data())
def test_an_altered_state_of_a_training_is_one_or_a_sentence(
    folder: Path, finished: dict[str, Any], draw: st.DataObject
) -> None:
    path = folder / "altered" / "last.pt"
    path.parent.mkdir(exist_ok=True)
    (path.parent / "log.jsonl").write_text("no log at all\n{")
    torch.save(finished | {"training": altered(finished["training"], draw, VALUES)}, path)
    try:
        trainer = run_of(path.parent, resume=True)
        assert 0 <= trainer.step <= 3
        trainer.run()
    except CourseError as error:
        assert_sentence(error)


@pytest.mark.parametrize(
    "changes", [{"step": -1}, {"step": 4}, {"step": "2"}, {"seconds": None}, {"step": 3, "log": []}]
)
def test_a_training_that_nobody_can_have_saved_does_not_go_on(
    tmp_path: Path, finished: dict[str, Any], changes: dict[str, Any]
) -> None:
    torch.save(finished | {"training": finished["training"] | changes}, tmp_path / "last.pt")
    with pytest.raises(CourseError, match=r"The state of the training in .* is damaged"):
        run_of(tmp_path, resume=True)


def test_a_momentum_of_another_shape_does_not_reach_the_optimizer(tmp_path: Path, finished: dict[str, Any]) -> None:
    training = copy.deepcopy(finished["training"])
    training["optimizers"][0]["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(finished | {"training": training}, tmp_path / "last.pt")
    with pytest.raises(CourseError, match="is damaged"):
        run_of(tmp_path, resume=True)
