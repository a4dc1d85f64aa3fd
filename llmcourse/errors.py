"""The one kind of error this package raises on purpose.

A `CourseError` is a mistake that the person at the keyboard can mend: a wrong setting, an unknown
character, a damaged file. Its message is one sentence that says what to do. Everything else that goes
wrong is a bug and keeps its traceback. The command line prints a `CourseError` and exits with code 2.
"""

import math
from numbers import Integral, Real
from typing import Any


class CourseError(ValueError):
    """A mistake the user can mend; the message is one sentence that says how, on one line whatever it quotes."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(line.strip() for line in sentence.splitlines()))


def is_number(value: Any, whole: bool = False) -> bool:
    """Whether this is a (whole) number, of Python or of NumPy; True is none."""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False, above: bool = False) -> None:
    """Raise CourseError unless `value` is a number in [low, high] (or (low, high] if `above`)."""
    if not (is_number(value, whole) and low <= value <= high) or (above and value == low):
        what = "a whole number" if whole else "a number"
        limits = f"{'above' if above else 'of at least'} {low:g}"
        limits += f" and at most {high:g}" if high < math.inf else ""
        raise CourseError(f"{name} must be {what} {limits}, not {value!r}.")
