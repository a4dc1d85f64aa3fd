"""Which exercises you have solved: one small JSON file that `check` writes and `llmcourse progress` shows.

It lives at `$LLMCOURSE_PROGRESS` (a file, or an existing folder for a `progress.json` in it) if that is set, else at
`$XDG_DATA_HOME/llmcourse/progress.json`, by default `~/.local/share/llmcourse/progress.json`. On Colab, whose disk
is wiped, point the variable at a mounted Drive; `LLMCOURSE_PROGRESS=/dev/null` remembers nothing. A file that cannot
be understood is never overwritten: it is renamed, and a sentence says to what.
"""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import CourseError
from .files import atomic_file

DAYS = 42


def place() -> Path:
    """The file that holds your progress; it need not exist yet."""
    if chosen := os.environ.get("LLMCOURSE_PROGRESS"):
        path = Path(chosen).expanduser()
        return path / "progress.json" if path.is_dir() else path
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share").expanduser() / "llmcourse" / "progress.json"


def done() -> dict[str, str]:
    """Each solved exercise with the moment of its first solution (ISO 8601, UTC): `{"day09": "2026-…"}`.

    Raises CourseError if the file is there and cannot be read.
    """
    return read(place())["passed"]


def record(name: str) -> None:
    """Remember that the exercise `name` is solved; a second solution keeps the date of the first.

    Raises CourseError if the file cannot be read or written.
    """
    path = place()
    if path.exists() and not path.is_file():  # /dev/null: renaming a file onto it would replace the device
        return
    content = read(path)
    if name in content["passed"]:
        return
    content["passed"][name] = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_file(path.resolve()) as file:  # a link stays a link
        file.write(text.encode())


def read(path: Path) -> dict[str, Any]:
    """The content of the file, `{"passed": {…}}`; unknown entries of a newer version are kept."""
    try:
        text = path.read_bytes() if path.is_file() else b""
    except OSError as e:
        raise CourseError(
            f"Cannot read your progress in {path} ({e.strerror}): mend its permissions, or set LLMCOURSE_PROGRESS."
        ) from e
    if not text:
        return {"passed": {}}
    try:
        content = json.loads(text)
        entries = content["passed"].items()
        if all(isinstance(name, str) and isinstance(when, str) for name, when in entries):
            return dict(content)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        pass  # not JSON, or not ours
    set_aside(path)
    return {"passed": {}}


def set_aside(path: Path) -> None:
    """Rename a file that cannot be understood, to the first free name, and say so."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as e:
        raise CourseError(f"Your progress file {path} is damaged: move it away ({e.strerror} when we tried).") from e
    print(f"Your progress file was damaged and is now {aside}: a new one was begun.")


def table() -> str:
    """Six weeks of seven days as text: `x` solved, `1/2` partly, `.` not yet, blank where nothing is asked."""
    from .checks import names  # here, because it loads torch

    passed = done()
    exercises = sorted({*names(), *passed})
    by_day: dict[int, list[str]] = {}
    for name in exercises:
        found = re.fullmatch(r"day(\d\d)[a-z]?", name)
        by_day.setdefault(int(found[1]) if found else 0, []).append(name)

    def mark(day: int) -> str:
        asked = by_day.get(day, [])
        solved = sum(name in passed for name in asked)
        return "" if not asked else "x" if solved == len(asked) else f"{solved}/{len(asked)}" if solved else "."

    lines = []
    for week in range(DAYS // 7):
        days = range(7 * week + 1, 7 * week + 8)
        lines.append(f"week {week + 1}  " + "  ".join(f"{day:2} {mark(day):3}" for day in days))
    others = [f"{name} {'x' if name in passed else '.'}" for name in by_day.get(0, [])]
    lines += [f"also    {'  '.join(others)}"] if others else []
    lines.append(f"{len(passed)} of {len(exercises)} exercises solved ({place()})")
    return "\n".join(line.rstrip() for line in lines)
