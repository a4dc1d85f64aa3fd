"""What the instructor edition adds to a page: teaching notes. `course_links.py` adds the time a page takes.

    ```{teaching} Before class
    Ten minutes. Let them write the guess down before anybody runs the cell.
    ```

Readers never see one (`edition_text.py` takes it out), so it is no fifth kind of box for them.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

TEACHING = "Teaching note"


class TeachingNote(SphinxDirective):
    """`{teaching}`; the argument, if any, is the subtitle."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        if self.config.course_edition != "instructor":
            return []
        title = nodes.title("", TEACHING)
        if self.arguments:
            subtitle, messages = self.state.inline_text(self.arguments[0], self.lineno)
            title += [nodes.Text(": "), nodes.inline("", "", *subtitle, classes=["box-subtitle"]), *messages]
        note = nodes.admonition("\n".join(self.content), title, classes=["teaching"])
        self.set_source_info(note)
        self.state.nested_parse(self.content, self.content_offset, note)
        return [note]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("course_edition", "learner", "env")
    app.add_directive("teaching", TeachingNote)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
