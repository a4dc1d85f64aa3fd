"""The one kind of error this package raises on purpose.

A `CourseError` is a mistake that the person at the keyboard can mend: a wrong setting, an unknown
character, a damaged file. Its message is one sentence that says what to do. Everything else that goes
wrong is a bug and keeps its traceback. The command line prints a `CourseError` and exits with code 2.
"""

import difflib
import math
import re
from collections.abc import Sequence
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


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about a name that is none: the nearest of the known ones, such as day01 for "Day 1"."""
    asked = re.sub(r"(?<!\d)\d(?!\d)", r"0\g<0>", name.lower().replace(" ", ""))
    swapped = [n for n in known if sorted(n) == sorted(asked)]  # "day52"
    near = [asked] if asked in swapped else swapped or difflib.get_close_matches(asked, known, n=4, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}."
