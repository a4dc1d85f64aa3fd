"""The framework of the checkers: whatever learners hand in, the answer is a sentence and the caller is left alone."""

from __future__ import annotations

import builtins
import functools
import inspect
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse import checks, progress
from llmcourse.checks import Wrong, blame, call, check, exercise, hint, solution, tensor
from llmcourse.errors import CourseError

INF = float("inf")
Say = Callable[[], str]


# --- all exercises ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", checks.names())
def test_every_exercise_is_complete(name: str, said: Say) -> None:
    asked = checks.find(name)
    assert len(asked.hints) >= 2 and asked.title
    assert "(" in asked.signature or asked.wants == "value"
    assert asked.checker.__module__.rpartition(".")[2] == name.rstrip("abc")
    solution(name)
    assert said().startswith(("def ", "class ", "@")) or isinstance(asked.solution, str)
    if not isinstance(asked.solution, str):
        assert check(name, asked.solution), said()


# --- what learners hand in -------------------------------------------------------------------------------------


@pytest.fixture
def double() -> Iterator[str]:
    """A small exercise of its own: double(x) for x of shape (3,)."""

    def reference(x: Tensor) -> Tensor:
        return 2 * x

    @exercise(
        "demo1", title="Doubling", signature="double(x)", solution=reference, seconds=1.0,
        hints=["Twice x.", "x + x."],
    )  # fmt: skip
    def check_double(double: Any) -> None:
        x = torch.randn(3)
        if not torch.equal(tensor(call(double, x=x), (3,), meaning="(N,)"), 2 * x):
            raise Wrong("That is not twice x.")
        with blame("It fails for an empty x"):
            call(double, x=torch.empty(0))

    yield "demo1"
    del checks.EXERCISES["demo1"]
    checks._hints_given.pop("demo1", None)


def stub(x: Tensor) -> Tensor:
    raise NotImplementedError


def returns_nothing(x: Tensor) -> None:
    2 * x


def raises(x: Tensor) -> Tensor:
    return x @ torch.ones(7)  # the wrong size


def raises_many_lines(x: Tensor) -> Tensor:
    raise KeyError("first\nsecond" * 500)


def changes_input(x: Tensor) -> Tensor:
    x *= 2
    return x


def resizes_input(x: Tensor) -> Tensor:
    y = 2 * x
    x.resize_(1)
    return y


def leaves(x: Tensor) -> Tensor:
    raise SystemExit(3)


def recurses(x: Tensor) -> Tensor:
    return recurses(x)


def fails_on_empty(x: Tensor) -> Tensor:
    return 2 * x + 0 * x.max()


class Doubler:
    def __init__(self, x: Tensor | None = None) -> None:
        self.x = x

    def __call__(self, x: Tensor) -> Tensor:
        return x + x


STRANGE: dict[str, tuple[Any, str]] = {
    "stub": (stub, "stub still raises NotImplementedError: replace that line with your code, in line "),
    "nothing": (returns_nothing, "returned None: is there a return line"),
    "error": (raises, "Your code raises RuntimeError: "),
    "error's line": (raises, "return x @ torch.ones(7)  # the wrong size"),
    "long error": (raises_many_lines, "raises KeyError: 'first"),
    "tuple": (lambda x: (x, x), "of type tuple: return one torch.Tensor"),
    "array": (lambda x: x.numpy() * 2, "of type ndarray"),
    "shape": (lambda x: x[:2], "The result has shape (2,), but should have (N,) = (3,)."),
    "dtype": (lambda x: (2 * x).double(), "has dtype float64, but should have float32"),
    "too many arguments": (lambda x, y: x, "called as double(x), but your arguments are (x, y)"),
    "no argument": (lambda: 1, "but your arguments are ()"),
    "keyword only": (lambda *, x: x, "but your arguments are (*, x)"),
    "result instead of function": (torch.ones(3), "the function itself, not its result or its name (Tensor)"),
    "name instead of function": ("double", 'check("demo1", double), no brackets after it'),
    "class": (Doubler, "Doubler is a class: hand in a function or an object of the class"),
    "mutation": (changes_input, "changes its input x"),
    "resized": (resizes_input, "changes its input x"),
    "exit": (leaves, "Your code raises SystemExit: 3"),
    "recursion": (recurses, "RecursionError"),
    "blamed": (fails_on_empty, "It fails for an empty x ("),
    "blamed line": (fails_on_empty, "return 2 * x + 0 * x.max()"),
    "generator": ((lambda x: (y for y in x)), "of type generator"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_whatever_is_handed_in_gets_one_sentence(case: str, double: str, said: Say, own_progress: Path) -> None:
    answer, words = STRANGE[case]
    assert check(double, answer) is False
    text = said()
    assert words in text
    assert text.count("\n") == 1 and len(text) < 500
    assert not own_progress.exists()


@pytest.mark.parametrize("answer", [lambda x: 2 * x, Doubler(), functools.partial(torch.mul, 2), lambda *a: a[0] * 2])
def test_any_callable_will_do(answer: Any, double: str, said: Say) -> None:
    assert check(double, answer) is True
    assert said() == "demo1: right. Doubling: done.\n"


def test_a_built_in_function_that_fails_is_not_blamed_on_a_line_of_the_checker(said: Say) -> None:
    assert not check("day09", torch.linalg.inv)
    assert "What you handed in, or what it returned, is not what the exercise asks for (" in said()


@pytest.mark.parametrize("write", [lambda x: x.clear(), lambda x: x.update(c=3), lambda x: x.__setitem__("a", 5)])
def test_a_dict_that_an_answer_writes_into_is_told_and_stays_as_it_was(write: Any) -> None:
    own = {"a": 1, "b": 2}
    with pytest.raises(Wrong, match="changes its input named"):
        call(write, named=own)
    assert own == {"a": 1, "b": 2}


@pytest.mark.parametrize("write", [list.clear, list.pop, list.reverse, lambda x: x.append("a")])
def test_a_list_that_an_answer_writes_into_is_told_and_stays_as_it_was(write: Any) -> None:
    own = ["a", "b"]
    with pytest.raises(Wrong, match=r"changes its input chars, .* append, pop or sort"):
        call(write, chars=own)
    assert own == ["a", "b"]


def test_the_line_of_an_error_is_the_learners(double: str, said: Say) -> None:
    check(double, raises)
    line = inspect.getsourcelines(raises)[1] + 1
    assert f", in line {line}: `return x @" in said()


def test_a_cell_that_no_file_holds_still_has_a_line_number(double: str, said: Say) -> None:
    cell: dict[str, Any] = {}
    exec(compile("def f(x):\n    return x.no_such_thing", "<ipython-input-3>", "exec"), cell)
    assert not check(double, cell["f"])
    assert "no_such_thing', in line 2" in said()


def loops(x: Tensor) -> Tensor:
    while True:
        pass


def loops_and_catches(x: Tensor) -> Tensor:
    while not FREE.is_set():
        try:
            time.sleep(0.01)
        except BaseException:
            continue
    return x


FREE = threading.Event()


@pytest.mark.promise(
    "Bad input",
    "A loop without end in an answer to an exercise is stopped, and leaves no thread "
    "behind.",
)
def test_an_endless_loop_ends_and_leaves_no_thread(double: str, said: Say) -> None:
    start = time.monotonic()
    assert not check(double, loops)
    assert time.monotonic() - start < 10
    assert "still ran after 1 seconds: is there a loop that never ends?  hint" in said()
    assert not [t for t in threading.enumerate() if t.name == "check demo1"]


def test_a_loop_that_cannot_be_stopped_is_left_behind(double: str, said: Say) -> None:
    try:
        assert not check(double, loops_and_catches)
        assert "restart the kernel" in said()
    finally:
        FREE.set()


def test_prints_are_collected_and_limited(double: str, said: Say) -> None:
    def chatty(x: Tensor) -> Tensor:
        print("shape", tuple(x.shape))
        return 2 * x

    def flood(x: Tensor) -> Tensor:
        for _ in range(1000):
            print("again and again")
        return x

    assert check(double, chatty)
    assert said() == "demo1: right. Doubling: done.\nYour code printed:\n  | shape (3,)\n  | shape (0,)\n"
    assert not check(double, flood)
    text = said()
    assert len(text) < 1500 and text.endswith("  | … and 15,000 more characters\n")


@pytest.mark.parametrize("asks", [2 * torch.ones(1), "a string", None])
def test_an_exercise_may_ask_for_a_value(asks: Any, said: Say) -> None:
    @exercise("demo2", title="A value", signature="answer", hints=[], solution="two", wants="value")
    def check_value(value: Any) -> None:
        if value is not asks:
            raise Wrong("Another value.")

    try:
        assert check("demo2", asks)
        assert not check("demo2", 3)
        solution("demo2")
        hint("demo2")
        assert said().splitlines()[1:] == ["demo2: not yet. Another value.", "two", "demo2 has no hints."]
    finally:
        del checks.EXERCISES["demo2"]


def test_an_exercise_may_ask_for_a_class(said: Say) -> None:
    @exercise("demo3", title="A class", signature="Doubler(x)", hints=[], solution=Doubler, wants="class")
    def check_class(cls: Any) -> None:
        assert cls(1)(2) == 4

    try:
        assert check("demo3", Doubler)
        assert not check("demo3", Doubler())
        assert 'the class itself, not an object of type Doubler: check("demo3", Doubler)' in said()
        assert not check("demo3", type("Other", (), {"__init__": lambda self: None}))
        assert "called as Doubler(x), but your arguments are ()" in said()
    finally:
        del checks.EXERCISES["demo3"]


def test_two_exercises_cannot_share_a_name(double: str) -> None:
    with pytest.raises(ValueError, match="Two exercises are called 'demo1'"):
        exercise("demo1", title="Other", signature="f(x)", hints=[], solution="")(lambda answer: None)


# --- the caller's world ----------------------------------------------------------------------------------------


@pytest.mark.promise(
    "Bad input",
    "Checking an exercise leaves random numbers, default type and gradient mode of the notebook as they "
    "were.",
)
def test_random_states_and_settings_stay_as_they_were(double: str) -> None:
    def meddles(x: Tensor) -> Tensor:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        return 2 * x

    def state() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),
                torch.get_default_dtype(), torch.is_grad_enabled()]  # fmt: skip

    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            before = state()
            assert check(double, meddles)
            assert check("day09", checks.find("day09").solution)
            assert not check(double, raises)
            assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)


def no_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def test_the_verdict_does_not_depend_on_the_callers_seed(said: Say) -> None:
    texts = set()
    for seed in range(5):
        torch.manual_seed(seed)
        check("day09", no_mask)
        texts.add(said())
    assert len(texts) == 1


def test_a_check_works_in_another_thread_too(double: str) -> None:
    verdicts: list[bool] = []
    thread = threading.Thread(target=lambda: verdicts.extend([check(double, loops), check(double, Doubler())]))
    thread.start()
    thread.join()
    assert verdicts == [False, True]


# --- names, hints, solutions, progress -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("day9", "day09"),
        ("day1", r"day01\?"),
        ("Day 1b", r"day01b\?"),
        ("tour2", r"tour02\?"),
        ("Day 25b", "day25b"),
        ("day52", "day25"),
    ],
)
def test_an_unknown_exercise_names_its_neighbors(name: str, near: str) -> None:
    for ask in (functools.partial(check, name, len), functools.partial(hint, name), functools.partial(solution, name)):
        with pytest.raises(CourseError, match=f"There is no exercise {name!r}: did you mean .*{near}"):
            ask()


def test_a_name_like_nothing_lists_what_there_is() -> None:
    with pytest.raises(CourseError, match=r"there are .*day09, day10.*day25, day25b"):
        check("zzz", len)


def test_swapped_arguments_are_told() -> None:
    with pytest.raises(CourseError, match="comes first, in quotes"):
        check(F.scaled_dot_product_attention, "day09")  # type: ignore[arg-type]


def test_hints_come_one_by_one_and_the_last_stays(double: str, said: Say) -> None:
    for _ in range(3):
        hint(double)
    first, second, third = said().splitlines()
    assert first == 'Hint 1 of 2: Twice x.  hint("demo1") has another.'
    more, line = second.split(" A solution: ")
    assert more == "Hint 2 of 2: x + x.  The last one." and second == third
    exec(line, {})  # the lessons import no `solution`: the line brings it along
    assert "def reference" in said()
    hint(double, 1)
    assert said().strip() == first


@pytest.mark.parametrize("n", [0, 3, -1, True, 1.0, "1"])
def test_a_hint_that_is_not_there(n: Any, double: str) -> None:
    with pytest.raises(CourseError, match="demo1 has the hints 1 to 2"):
        hint(double, n)


def test_only_a_right_answer_is_recorded(double: str) -> None:
    check(double, raises)
    assert progress.done() == {}
    check(double, Doubler())
    assert list(progress.done()) == ["demo1"]


def test_a_check_passes_where_progress_cannot_be_written(
    double: str, said: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "file" / "below.json"))
    assert check(double, Doubler())
    assert "(It could not be noted in your progress: WriteError: Cannot write" in said()


def test_a_day_is_loaded_only_when_asked_for(root: Path) -> None:
    code = (
        "import sys, llmcourse.checks as c; before = 'llmcourse.checks.day09' in sys.modules; c.find('day09'); "
        "print(before, 'llmcourse.checks.day09' in sys.modules, 'llmcourse.checks.day25' in sys.modules)"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=dict(os.environ), check=True
    )
    assert done.stdout.split() == ["False", "True", "False"]


def test_print_is_the_real_one_afterwards(double: str, said: Say) -> None:
    check(double, Doubler())
    said()
    builtins.print("here")
    assert said() == "here\n"
