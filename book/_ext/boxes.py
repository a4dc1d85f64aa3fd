"""The four kinds of box of this book, as directives, and no other kind.

    ```{guess} Will the loss fall below 3?
    Write down a number before you run the cell.
    ```

Each is a plain admonition with a fixed title, an optional subtitle and a class that `course.css` gives
a colour and an icon. `:class: dropdown` folds a box, `:name:` makes it a target for `{ref}`.
The notebook writer (`plain_markdown.py`) reads `BOXES` from here, so page and notebook use one title.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

BOXES: dict[str, str] = {
    "guess": "Guess first",
    "plain": "In plain words",
    "field": "In the field",
    "checkyourself": "Check yourself",
}


class Box(SphinxDirective):
    """`{guess}`, `{plain}`, `{field}` or `{checkyourself}`; the argument, if any, is the subtitle."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "class": directives.class_option,
        "name": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        title = nodes.title("", BOXES[self.name])
        if self.arguments:
            subtitle, messages = self.state.inline_text(self.arguments[0], self.lineno)
            title += [nodes.Text(": "), nodes.inline("", "", *subtitle, classes=["box-subtitle"]), *messages]
        box = nodes.admonition(
            "\n".join(self.content), title, classes=["box", f"box-{self.name}", *self.options.get("class", [])]
        )
        self.set_source_info(box)
        self.add_name(box)
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


def setup(app: Sphinx) -> dict[str, bool]:
    for name in BOXES:
        app.add_directive(name, Box)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
