"""One source, three editions: what each of them does to the text of a page.

- `learner`, the default: solutions are in dropdowns, as the page says; teaching notes are left out;
- `student`: no solution at all, neither prose nor code nor what the code printed; no teaching notes;
- `instructor`: solutions are open, and the teaching notes are there.

A teaching note is a directive of its own, for the one who teaches, and no fifth box for readers:

    ```{teaching} Before class
    Ten minutes. Let them write the guess down before anybody runs the cell.
    ```

What is left out becomes blank lines, so that a line has the same number in every edition. To edit a text
a second time changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

EDITIONS = ("learner", "student", "instructor")
MARK = r"^[\s>]*(?:[-*+]\s+|\d+[.)]\s+)*"  # what may stand before a fence: quotation, list
FENCE = re.compile(MARK + r"(?P<fence>`{3,}|~{3,}|:{3,})\s*(?P<info>.*?)\s*$")
DIRECTIVE = re.compile(r"^\{(?P<name>[\w:.+-]+)\}\s*(?P<argument>.*)$")
OPAQUE = {"code-cell", "code", "code-block", "sourcecode", "literalinclude", "math", "raw"}  # no Markdown inside
SOLUTION_LEFT = re.compile(r"[`~:]{3,}\s*\{solution")
DROPDOWN = re.compile(r"^([\s>]*:?class:.*)\bdropdown\b")


class EditionError(Exception):
    """A page that cannot be edited; `line` counts from 0."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Directive(NamedTuple):
    """One directive: its lines are `lines[start:end]`, fences included."""

    name: str
    argument: str
    start: int
    end: int


def directives(lines: list[str], start: int = 0, end: int | None = None) -> Iterator[Directive]:
    """All directives of a page in reading order, those inside others too, but none that code only shows."""
    end = len(lines) if end is None else end
    at = start
    while at < end:
        opening = FENCE.match(lines[at])
        if not opening or ("`" in opening["info"] and opening["fence"][0] == "`"):
            at += 1
            continue
        fence = opening["fence"]
        closing = re.compile(rf"^[\s>]*{fence[0]}{{{len(fence)},}}\s*$")
        close = next((i for i in range(at + 1, end) if closing.match(lines[i])), end)
        if directive := DIRECTIVE.match(opening["info"]):
            yield Directive(directive["name"], directive["argument"], at, min(close + 1, end))
            if directive["name"] not in OPAQUE:
                yield from directives(lines, at + 1, close)
        at = close + 1


def solutions(lines: list[str]) -> list[Directive]:
    """The solutions of a page; one between gates extends from its first gate to its last."""
    found: list[Directive] = []
    gate: Directive | None = None
    for directive in directives(lines):
        if directive.name == "solution-start":
            if gate:
                raise EditionError("{solution-start} inside another one", directive.start)
            gate = directive
        elif directive.name == "solution-end":
            if not gate:
                raise EditionError("{solution-end} without {solution-start}", directive.start)
            found.append(gate._replace(end=directive.end))
            gate = None
        elif directive.name == "solution":
            found.append(directive)
    if gate:
        raise EditionError("{solution-start} without {solution-end}", gate.start)
    return found


def edit(text: str, edition: str) -> str:
    """The text of a page as `edition` has it."""
    if edition not in EDITIONS:
        raise ValueError(f"There is no edition {edition!r}: there are {', '.join(EDITIONS)}.")
    lines = text.split("\n")
    dropped = [] if edition == "instructor" else [d for d in directives(lines) if d.name == "teaching"]
    if edition == "student":
        dropped += solutions(lines)
    if edition == "instructor":
        for directive in directives(lines):
            if directive.name in ("solution", "solution-start"):
                for i in range(directive.start, directive.end):
                    lines[i] = DROPDOWN.sub(r"\1open", lines[i])
    for directive in dropped:
        lines[directive.start : directive.end] = [""] * (directive.end - directive.start)
    for number, line in enumerate(lines):
        if edition == "student" and SOLUTION_LEFT.search(line):
            raise EditionError("a solution stands where it cannot be taken out (inside code?)", number)
    return "\n".join(lines)
