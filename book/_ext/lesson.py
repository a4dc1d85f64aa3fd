"""A lesson, read for the lesson standard: its prose, its boxes, its exercises and the code of its cells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from course_cache import cached_outputs, open_cache, read_page
from course_config import Course
from edition_text import OPAQUE, Directive, directives, solutions

OPTION = re.compile(r"^\s*:[\w-]+:")
CODE_SPAN = re.compile(r"(\{[\w:.+-]+\})?(`+)(.+?)(?<!`)\2(?!`)")


class Cell(NamedTuple):
    """A code cell; `line` is that of its first code line, from 1."""

    source: str
    line: int
    tags: frozenset[str]
    in_solution: bool
    tree: ast.Module

    @property
    def length(self) -> int:
        return sum(bool(line.strip()) for line in self.source.split("\n"))

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """All calls with their names as written: `("plots.show", node)`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield dotted(node.func), node

    def line_of(self, node: ast.AST) -> int:
        return self.line + getattr(node, "lineno", 1) - 1


class Lesson:
    """One page of the course."""

    def __init__(self, course: Course, page: Path) -> None:
        self.course, self.page = course, page
        self.docname = course.docname(page)
        numbered = re.match(r"((day|tour)(\d\d))_", page.name)
        self.name = numbered[1] if numbered else page.stem  # of its exercises and its quiz
        bonus = "Bonus" if page.parent.name.startswith("week") else ""
        # How its title begins; "": the one-sitting page.
        self.kind = f"{numbered[2].capitalize()} {int(numbered[3])}" if numbered else bonus
        self.lines = page.read_text("utf-8").split("\n")
        self.directives = list(directives(self.lines))
        self.solutions = solutions(self.lines)
        self.cells = list(self._cells())

    def __repr__(self) -> str:
        return self.docname

    @cached_property
    def front_matter(self) -> dict[str, Any]:
        header = re.match(r"---\n(.*?)\n---\n", "\n".join(self.lines), re.S)
        found = yaml.safe_load(header[1]) if header else {}
        return found if isinstance(found, dict) else {}

    def _cells(self) -> Iterator[Cell]:
        notebook = read_page(self.course, self.page)
        for cell, start in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
            if cell.cell_type == "code":
                first = cell.source.split("\n")[0]  # below the fence and the options
                line = next((i for i in range(start, len(self.lines)) if self.lines[i] == first), start)
                tags = frozenset(cell.metadata.get("tags", []))
                yield Cell(cell.source, line + 1, tags, self.in_solution(start), parse(cell.source))

    def in_solution(self, line: int) -> bool:
        """Whether a line (from 0) belongs to a solution."""
        return any(s.start <= line < s.end for s in self.solutions)

    def named(self, *names: str) -> list[Directive]:
        return [d for d in self.directives if d.name in names]

    def body(self, directive: Directive) -> str:
        return "\n".join(self.lines[directive.start : directive.end])

    @cached_property
    def prose(self) -> list[tuple[int, str]]:
        """The lines that are text, with their numbers from 1; code, fences, options and the header are left out."""
        kept = list(self.lines)
        if self.front_matter:
            kept[: kept.index("---", 1) + 1] = [""] * (kept.index("---", 1) + 1)
        for d in self.directives:
            if d.name in OPAQUE:
                kept[d.start : d.end] = [""] * (d.end - d.start)
            else:  # its title is text, its options are not
                kept[d.start], kept[d.end - 1] = d.argument, "" if d.end - 1 > d.start else d.argument
                for i in range(d.start + 1, d.end):
                    if not OPTION.match(kept[i]):
                        break
                    kept[i] = ""
        fenced = False
        for i, line in enumerate(kept):  # what is left of fences is plain code
            fence = re.match(r"\s*(```|~~~)", line)
            if fence or fenced:
                kept[i] = ""
            fenced ^= bool(fence)
        return [(i, line) for i, line in enumerate(kept, 1) if line.strip()]

    @cached_property
    def outputs(self) -> str | None:
        """All text that the cells printed when the page was last run; None if its code has not been run yet."""
        if not self.course.cache_folder.exists():
            return None
        if (executed := cached_outputs(open_cache(self.course, keep=True), read_page(self.course, self.page))) is None:
            return None
        texts = []
        for cell in executed.cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                shown = re.sub(r"<[^>]*>", " ", data.get("text/html", ""))
                texts += [output.get("text", ""), data.get("text/plain", ""), shown]
        return "\n".join(texts)


def parse(source: str) -> ast.Module:
    """The code of a cell; lines for IPython are left out, and code that is none has no statements."""
    code = "\n".join("" if re.match(r"\s*[%!]", line) else line for line in source.split("\n"))
    try:
        return ast.parse(code)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def dotted(node: ast.AST) -> str:
    """`torch.testing.assert_close`, as far as it is names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def without_code(text: str) -> str:
    """A line of prose without code spans; roles stay as the words they show."""
    return CODE_SPAN.sub(lambda m: m[3].split("<")[0] if m[1] and "cite" not in m[1] else "", text)


def bound(tree: ast.Module) -> set[str]:
    """The names that a cell gives a value, outside of functions and classes."""
    return {name for statement in tree.body for name in bound_by(statement)}


def bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(node):
            yield from bound_by(child)


def loaded(tree: ast.Module) -> dict[str, int]:
    """The names that a cell reads, with the line (from 1) where it first does."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return {n.id: n.lineno for n in sorted(nodes, key=lambda n: n.lineno, reverse=True)}
