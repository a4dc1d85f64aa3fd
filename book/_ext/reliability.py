"""`{promises}` and `{equalities}`: what the course promises, with the proof, read from the tests and the lessons.

A promise is a test marked `@pytest.mark.promise("Topic", "A sentence.")`. An equality is a place in a lesson where a
cell asserts that two things are the same. Both are read from the sources: the page cannot promise what nothing tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from course_cache import read_page
from course_config import Course
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# In the order of the page; a promise about anything else is a mistake.
TOPICS = ("Faults", "Strangers' files", "Bad input", "Equality", "Versions", "Network and privacy", "The site")
SAME = ("assert_close", "equal", "allclose", "array_equal")  # of torch.testing, torch and numpy


class Promise(NamedTuple):
    """What a test proves to a reader, and where the test is."""

    topic: str
    sentence: str
    path: Path
    line: int
    test: str


def promises(tests: Path) -> list[Promise]:
    """Every promise in the test files below `tests`, in the order of TOPICS, then of files and lines."""
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("mark.promise"):
                    topic, sentence = map(ast.literal_eval, mark.args)
                    if topic not in TOPICS:
                        known = ", ".join(TOPICS)
                        raise ValueError(f"{path}:{node.lineno} promises something about {topic!r}; known: {known}.")
                    found.append(Promise(topic, sentence, path, node.lineno, node.name))
    return sorted(found, key=lambda promise: (TOPICS.index(promise.topic), promise.path, promise.line))


def equalities(source: str) -> Iterator[tuple[str, str]]:
    """The pairs of expressions that this code asserts to be the same, in its order; two lengths are no news."""
    statements = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr | ast.Assert))
    for node in sorted(statements, key=lambda node: node.lineno):
        asserted = node.test if isinstance(node, ast.Assert) else node.value
        parts = asserted.values if isinstance(asserted, ast.BoolOp) and isinstance(asserted.op, ast.And) else [asserted]
        for part in parts:
            if isinstance(part, ast.Call) and len(part.args) > 1:
                name = ast.unparse(part.func).rpartition(".")[2]
                if name in SAME and (isinstance(node, ast.Assert) or name == "assert_close"):
                    yield ast.unparse(part.args[0]), ast.unparse(part.args[1])
            elif isinstance(part, ast.Compare) and isinstance(part.ops[0], ast.Eq) and len(part.ops) == 1:
                sides = part.left, part.comparators[0]
                computed = all(isinstance(side, ast.Call | ast.Name | ast.Attribute | ast.Subscript) for side in sides)
                if isinstance(node, ast.Assert) and computed and not ast.unparse(part).startswith("len("):
                    yield ast.unparse(sides[0]), ast.unparse(sides[1])


def of_lessons(course: Course) -> dict[str, list[tuple[str, str]]]:
    """The equalities of every page, by docname; cells that are wrong on purpose assert nothing."""
    found: dict[str, list[tuple[str, str]]] = {}
    for page in course.lessons:
        for cell in read_page(course, page).cells:
            if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", []):
                found.setdefault(course.docname(page), []).extend(equalities(cell.source))
    return {docname: pairs for docname, pairs in found.items() if pairs}


def table_of_promises(course: Course) -> list[str]:
    """As Markdown: a table for each topic, with a link to each test."""
    lines: list[str] = []
    for topic, group in groupby(promises(course.root / "tests"), key=lambda promise: promise.topic):
        lines += ["", f"**{topic}**", "", "| What you can rely on | The test |", "|---|---|"]
        for promise in group:
            path = promise.path.relative_to(course.root).as_posix()
            where = f"{course.repository_url}/blob/{course.branch}/{path}#L{promise.line}"
            lines.append(f"| {promise.sentence} | [`{promise.path.stem}`]({where} \"{promise.test}\") |")
    return lines


def list_of_equalities(course: Course) -> list[str]:
    """As Markdown: the pages in reading order, and under each what its cells assert to be the same."""
    found = of_lessons(course)
    total = sum(map(len, found.values()))
    lines = [f"In this build {total} places on {len(found)} pages:", ""]
    for docname, pairs in found.items():
        lines.append(f"- {{doc}}`/{docname}`")
        lines += [f"  - ``{left}`` = ``{right}``" for left, right in dict.fromkeys(pairs)]
    return lines


class FromSources(SphinxDirective):
    """Takes no argument; `lines` makes the Markdown."""

    @staticmethod
    def lines(course: Course) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        box = nodes.container(classes=["reliability"])
        course = Course(Path(self.env.srcdir))
        self.state.nested_parse(StringList(self.lines(course), source=self.env.docname), self.content_offset, box)
        return [box]


class Promises(FromSources):
    """`{promises}`"""

    lines = staticmethod(table_of_promises)


class Equalities(FromSources):
    """`{equalities}`"""

    lines = staticmethod(list_of_equalities)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("promises", Promises)
    app.add_directive("equalities", Equalities)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
