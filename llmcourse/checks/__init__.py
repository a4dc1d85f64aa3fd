"""Exercises that mark themselves: `check("day09", my_attention)`, `hint("day09")`, `solution("day09")`.

A checker is a short function that receives what the learner wrote. It raises `Wrong` with one sentence about the
*mistake*, never a comparison of arrays; if it returns, the exercise is passed:

    @exercise("day99", title="Doubling", signature="double(x)", hints=["Twice x is x + x."], solution=double)
    def check_double(double):
        x = torch.randn(3)
        y = tensor(call(double, x=x), shape=(3,))
        if torch.equal(y, x**2):
            raise Wrong("Your function squares x: twice 3 is 6, not 9.")

Everything around it is done here. The checker runs with fixed seeds in a thread of its own, so that an endless loop
ends after some seconds, in Jupyter and in Colab too; what the learner's code prints is collected; the random
numbers and torch's settings of the caller stay as they were; and whatever the learner's code raises becomes a
sentence. Exercises are kept by day (`day09.py` holds "day09", "day09b", …), loaded when one is asked for.
"""

import ast
import contextlib
import ctypes
import importlib
import inspect
import io
import os
import pkgutil
import random
import re
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .. import progress
from ..errors import CourseError, did_you_mean

__all__ = [
    "Exercise", "Wrong", "blame", "call", "check", "exercise", "hint", "load_optimizers", "names", "solution", "tensor",
]  # fmt: skip

KEPT_OUTPUT = 1000  # characters of what the learner's code prints
LONGEST = 800  # characters of the sentence about a mistake
FOLDERS = {
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(str(Path(file).parents[1]) for file in (torch.__file__, __file__)),
}
LIBRARIES = ("<frozen", *(folder + os.sep for folder in FOLDERS))  # whose lines are not the learner's


class Wrong(Exception):
    """What a checker raises: one sentence about the learner's mistake."""


class TimeLimit(BaseException):
    """Thrown into a checker that runs too long; no `except Exception` of the learner's stops it."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: its checker, and the words that belong to it. See `exercise`."""

    name: str
    title: str
    signature: str
    checker: Callable[[Any], None]
    hints: tuple[str, ...]
    solution: Callable[..., Any] | str
    right: str
    wants: Literal["function", "class", "value"]
    seconds: float


EXERCISES: dict[str, Exercise] = {}
_hints_given: dict[str, int] = {}


def exercise(
    name: str,
    *,
    title: str,
    signature: str,
    hints: Sequence[str],
    solution: Callable[..., Any] | str,
    right: str = "",
    wants: Literal["function", "class", "value"] = "function",
    seconds: float = 10.0,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the decorated function as the checker of the exercise `name` ("day09", "day25b").

    `signature` is how the learner's function is called, "attention(q, k, v)"; the number of arguments is checked.
    `solution` is the reference, whose source is shown (or a text). `right` is said on success. `wants` tells what the
    learner hands in, and `seconds` how long the checker may take.
    """

    def register(checker: Callable[[Any], None]) -> Callable[[Any], None]:
        old = EXERCISES.get(name)
        if old and (old.checker.__module__, old.checker.__qualname__) != (checker.__module__, checker.__qualname__):
            raise ValueError(f"Two exercises are called {name!r}: {old.title!r} and {title!r}.")
        EXERCISES[name] = Exercise(
            name, title, signature, checker, tuple(hints), solution, right or f"{title}: done.", wants, seconds
        )
        return checker

    return register


def names() -> list[str]:
    """All exercises, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(EXERCISES)


def find(name: str) -> Exercise:
    """The exercise of this name; loads the file of its day only. An unknown name is a CourseError."""
    if not isinstance(name, str):
        raise CourseError('The name of the exercise comes first, in quotes: check("day09", attention).')
    module = re.sub(r"(?<=\d)[a-z]$", "", name)  # "day25b" stands in day25.py
    if name not in EXERCISES and any(m.name == module for m in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    if name not in EXERCISES:
        raise CourseError(f"There is no exercise {name!r}: {did_you_mean(name, names())}")
    return EXERCISES[name]


def check(name: str, answer: Any) -> bool:
    """Check what you wrote for the exercise `name`; prints what it found and returns True if it is right.

    Your mistakes are printed, never raised. Raises CourseError for a name that is no exercise.
    """
    asked, printed = find(name), Output()
    fault = misfit(asked, answer) or run(asked, answer, printed)
    fault = fault and one_line(fault)
    if fault is None:
        print(f"{name}: right. {asked.right}")
        try:
            progress.record(name)
        except Exception as e:  # a full disk must not spoil a right answer
            print(f"(It could not be noted in your progress: {first_line(e)})")
    else:
        print(f"{name}: not yet. {fault}" + (f'  hint("{name}") has a hint.' if asked.hints else ""))
    if text := printed.summary():
        print(text)
    return fault is None


def hint(name: str, n: int | None = None) -> None:
    """Print the next hint of an exercise, or the `n`-th (from 1); each tells more than the one before."""
    hints = find(name).hints
    if not hints:
        print(f"{name} has no hints.")
        return
    if n is None:
        n = _hints_given[name] = min(_hints_given.get(name, 0) + 1, len(hints))
    elif isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(hints):
        raise CourseError(f"{name} has the hints 1 to {len(hints)}, not {n!r}.")
    more = f'hint("{name}") has another.'
    if n == len(hints):  # the lessons do not import `solution`
        more = f'The last one. A solution: from llmcourse.checks import solution; solution("{name}")'
    print(f"Hint {n} of {len(hints)}: {hints[n - 1]}  {more}")


def solution(name: str) -> None:
    """Print one way to solve an exercise; yours may look different and be as good."""
    reference = find(name).solution
    print((reference if isinstance(reference, str) else inspect.getsource(reference)).rstrip())


# What a checker uses


def call(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """`function(*arguments)`, by position, on copies of tensors, lists and dicts; Wrong if it writes into one."""
    copies = {
        name: x.clone() if isinstance(x, Tensor) else x.copy() if isinstance(x, list | dict) else x
        for name, x in arguments.items()
    }
    result = function(*copies.values())
    for name, x in arguments.items():
        if written(copies[name], x):
            ways = "an operation whose name ends in _" if isinstance(x, Tensor) else "append, pop or sort"
            raise Wrong(
                f"Your function changes its input {name}, and the caller still needs it: {ways}, an assignment like "
                f"{name}[…] = … or a -= writes into it; make a new one instead."
            )
    return result


def written(copy: Any, x: Any) -> bool:
    """Whether a function has written into its copy of the tensor, list or dict `x` (not deeper than one level)."""
    if isinstance(x, Tensor):
        return not torch.equal(copy, x)
    if isinstance(x, dict):
        copy, x = [*copy, *copy.values()], [*x, *x.values()]
    return isinstance(x, list) and [*map(id, copy)] != [*map(id, x)]


def load_optimizers() -> None:
    """Build one optimizer, when the file of a day is loaded whose exercises need some.

    The first optimizer of a process loads a large part of PyTorch. That takes seconds, and must not happen within the
    time limit of a check, which would break the loading off halfway.
    """
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def tensor(value: Any, shape: Sequence[int], dtype: torch.dtype = torch.float32, meaning: str = "") -> Tensor:
    """`value`, detached, if it is a tensor of this shape and dtype; otherwise Wrong says what it is instead.

    `meaning` names the dimensions for the message: "(B, H, T, D)".
    """
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise Wrong(f"Your function returned something of type {kind}: return one torch.Tensor and nothing else.")
    if tuple(value.shape) != tuple(shape):
        meaning = f" {meaning} =" if meaning else ""
        raise Wrong(f"The result has shape {tuple(value.shape)}, but should have{meaning} {tuple(shape)}.")
    if value.dtype != dtype:
        got, wanted = (str(d).removeprefix("torch.") for d in (value.dtype, dtype))
        raise Wrong(f"The result has dtype {got}, but should have {wanted}.")
    return value.detach()


@contextlib.contextmanager
def blame(sentence: str) -> Iterator[None]:
    """Any error of the learner's code inside the block becomes Wrong: `sentence` (no period), then that error."""
    try:
        yield
    except (Wrong, NotImplementedError):
        raise
    except Exception as e:
        raise Wrong(f"{sentence} ({first_line(e)}{place(e)}).") from e


# How a checker is run


def misfit(asked: Exercise, answer: Any) -> str | None:
    """What is wrong with the kind of thing handed in, before any of it runs."""
    if asked.wants == "value":
        return None
    call_it = f'check("{asked.name}", {asked.signature.split("(")[0]})'
    kind = type(answer).__name__
    if asked.wants == "class" and not isinstance(answer, type):
        return f"It wants the class itself, not an object of type {kind}: {call_it}."
    if asked.wants == "function" and isinstance(answer, type):
        return f"It wants a function, and {answer.__name__} is a class: hand in a function or an object of the class."
    if not callable(answer):
        return f"It wants the function itself, not its result or its name ({kind}): {call_it}, no brackets after it."
    wanted: Any = ast.parse(asked.signature.split("->")[0].strip(), mode="eval").body
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):  # some built-in functions do not tell
        return None
    try:
        signature.bind(*wanted.args, **{keyword.arg: keyword for keyword in wanted.keywords})
    except TypeError:
        return f"It will be called as {asked.signature}, but your arguments are {str(signature)[:80]}."
    return None


def run(asked: Exercise, answer: Any, printed: "Output") -> str | None:
    """Run the checker; None if it passes, otherwise the sentence that tells what is wrong."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            torch.default_generator.manual_seed(0)  # the CPU's only: torch.manual_seed would touch the GPU's too
            random.seed(0)
            np.random.seed(0)
            asked.checker(answer)
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=work, name=f"check {asked.name}", daemon=True)
    with settings_kept(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            thread.start()
            thread.join(asked.seconds)
            late = thread.is_alive()
        finally:  # also when the learner interrupts the kernel
            stop(thread)
    if late:
        stuck = " It cannot be stopped, so restart the kernel." if thread.is_alive() else ""
        return f"Your code still ran after {asked.seconds:g} seconds: is there a loop that never ends?{stuck}"
    return explain(errors[0], answer) if errors else None


def stop(thread: threading.Thread) -> None:
    """Throw TimeLimit into a thread until it ends, a few times at most (it may be caught, or not be in Python)."""
    for _ in range(5):
        if not thread.is_alive():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeLimit))
        thread.join(0.1)


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Whatever happens inside, the random states and torch's default dtype are afterwards as before.

    Grad mode, autocast and default device belong to a thread, and the checker has its own.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    states, dtype = (random.getstate(), np.random.get_state()), torch.get_default_dtype()
    with torch.random.fork_rng(devices):
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
            random.setstate(states[0])
            np.random.set_state(states[1])


def explain(error: BaseException, answer: Any) -> str:
    """One sentence about what the learner's code raised, or the checker when it looked at what came back."""
    if isinstance(error, Wrong):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, NotImplementedError) and not frames[-1].filename.startswith(LIBRARIES):
        name = getattr(answer, "__name__", type(answer).__name__)
        return f"{name} still raises NotImplementedError: replace that line with your code{place(error)}."
    if not (where := place(error)):  # no line of the learner's: a built-in function, or a result of another kind
        return f"What you handed in, or what it returned, is not what the exercise asks for ({first_line(error)})."
    return f"Your code raises {first_line(error)}{where}."


def first_line(error: BaseException) -> str:
    """Type and message of an error, on one line of bounded length."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
    text = text.removeprefix(f"{type(error).__module__}.")
    return text.rstrip(".") if len(text) <= 200 else text[:199] + "…"


def one_line(text: str) -> str:
    """A sentence that quotes what the learner made, without its line breaks and of bounded length."""
    text = " ".join(line.strip() for line in encodable(text).splitlines())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def place(error: BaseException) -> str:
    """Number and text of the line, the innermost one that is not in a library: ", in line 3: `y = x @ w`"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(LIBRARIES):
            return f", in line {frame.lineno}" + (f": `{frame.line[:100]}`" if frame.line else "")
    return ""


def encodable(text: str) -> str:
    """The text with each half of a character as its code, so that it can be printed anywhere."""
    return text.encode(errors="backslashreplace").decode()


class Output(io.TextIOBase):
    """Keeps the first characters that are printed and counts the others."""

    def __init__(self) -> None:
        self.text, self.lost = "", 0

    def write(self, text: str) -> int:
        room = KEPT_OUTPUT - len(self.text)
        self.text += text[:room]
        self.lost += len(text[room:])
        return len(text)

    def summary(self) -> str:
        """What was printed, set off from our own words."""
        lines = ["Your code printed:", *(f"  | {line}" for line in encodable(self.text).rstrip().splitlines())]
        lines += [f"  | … and {self.lost:,} more characters"] if self.lost else []
        return "\n".join(lines) if self.text.strip() else ""
