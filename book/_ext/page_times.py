"""`{page-times}`: a table of the pages that run code, with the seconds that their cells took in this build."""

from __future__ import annotations

from pathlib import Path

from course_cache import duration, read_page
from course_config import Course
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def table(course: Course) -> list[str]:
    """The rows, in reading order, as Markdown; a page that has not been run has no time."""
    lines = ["| Page | Cells | Seconds |", "|---|--:|--:|"]
    cells, seconds = 0, 0.0
    for page in course.lessons:
        docname, times = course.docname(page), course.page_seconds
        count = sum(cell.cell_type == "code" for cell in read_page(course, page).cells)
        time = times.get(docname)
        lines.append(f"| {{doc}}`/{docname}` | {count} | {'' if time is None else f'{time:.0f}'} |")
        cells, seconds = cells + count, seconds + (time or 0.0)
    return [*lines, f"| All of them, one after the other | {cells} | {duration(seconds)} |"]


class PageTimes(SphinxDirective):
    """`{page-times}`; takes no argument."""

    def run(self) -> list[nodes.Node]:
        where = nodes.container(classes=["page-times"])
        lines = table(Course(Path(self.env.srcdir)))
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, where)
        return [where]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("page-times", PageTimes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
