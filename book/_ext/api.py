"""`{api} tokenizer`: what a module of `llmcourse` offers, read from its source: signatures and docstrings.

Nothing is imported. The docstrings are Markdown, as the rest of the book is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = "llmcourse"


class Entry(NamedTuple):
    """A public class, function or method; `parent` is the class that a method belongs to, or empty."""

    name: str
    parent: str
    signature: str
    doc: str

    @property
    def id(self) -> str:
        return f"api-{self.parent}.{self.name}" if self.parent else f"api-{self.name}"


def entries(tree: ast.Module) -> Iterator[Entry]:
    """The public ones that say what they do, in the order of the file."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if doc := ast.get_docstring(node):
            yield Entry(node.name, "", signature(node), doc)
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            public = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
            if public and (doc := ast.get_docstring(method)):  # type: ignore[arg-type]
                yield Entry(method.name, node.name, signature(method), doc)  # type: ignore[union-attr, arg-type]


def signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    """`split(tokens: Tokens, fraction: float = 0.9) -> tuple[Tokens, Tokens]`, and for a class how it is made."""
    if isinstance(node, ast.ClassDef):
        made = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
        if made is None:
            bases = ", ".join(map(ast.unparse, node.bases))
            return f"class {node.name}({bases})" if bases else f"class {node.name}"
        return f"class {node.name}({arguments(made)})"
    kinds = {ast.unparse(decorator) for decorator in node.decorator_list}
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if kinds & {"property", "cached_property"}:
        return node.name + returns.replace(" ->", ":")
    return f"{node.name}({arguments(node)}){returns}"


def arguments(node: ast.FunctionDef) -> str:
    """As written, without the `self` or `cls` of a method."""
    text = ast.unparse(node.args)
    return text.partition(", ")[2] if text.split(",")[0] in ("self", "cls") else text


class Api(SphinxDirective):
    """`{api} NAME`: of the module `llmcourse.NAME`, or of the package NAME in it."""

    required_arguments = 1

    def markdown(self, text: str) -> list[nodes.Node]:
        box = nodes.container()
        self.state.nested_parse(StringList(text.split("\n"), source=self.env.docname), self.content_offset, box)
        return box.children

    def run(self) -> list[nodes.Node]:
        module = Path(self.env.srcdir) / PACKAGE / self.arguments[0]
        path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if not path.is_file():
            raise self.error(f"There is no module {PACKAGE}.{self.arguments[0]}.")
        self.env.note_dependency(str(path))
        tree = ast.parse(path.read_text("utf-8"))
        found = self.markdown(ast.get_docstring(tree) or "")
        for entry in entries(tree):
            box = nodes.container(classes=["api-method" if entry.parent else "api-entry"], ids=[entry.id])
            head = f"{entry.parent}.{entry.signature}" if entry.parent else entry.signature
            box += nodes.paragraph("", "", nodes.literal(head, head), classes=["api-signature"])
            box += self.markdown(entry.doc)
            found.append(box)
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
