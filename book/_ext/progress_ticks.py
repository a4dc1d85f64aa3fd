"""Sphinx glue: a reader ticks days off, and the front page shows the six weeks fill (`book/_static/progress.js`).

The days are those of `_toc.yml`. What is ticked stays in the reader's browser; nothing is sent anywhere.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from course_config import Course
from sphinx.application import Sphinx

DAY = re.compile(r"book/(week\d|tour)/((day|tour)(\d+)_\w+|speedrun)$")
FRONT = "book/index"


def days(course: Course) -> list[dict[str, str]]:
    """Of each page that can be ticked: its name, the row of the table it belongs to, what it is called, where it is."""
    found = []
    for docname in course.toc:
        if match := DAY.match(docname):
            folder, page, kind, number = match.groups()
            row = "The tour" if folder == "tour" else f"Week {folder[-1]}"
            label = f"{kind} {int(number)}" if number else "bonus day"
            found.append({"name": page.partition("_")[0], "row": row, "label": label, "page": f"{docname}.html"})
    return found


def add_script(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: object) -> None:
    """On every page: the table of contents shows the ticks everywhere."""
    course = Course(Path(app.srcdir))
    if doctree is None:
        return
    app.add_js_file("progress.js", loading_method="defer")
    if pagename == FRONT:
        table = json.dumps(days(course)).replace("<", "\\u003c")
        context["body"] += f'<script type="application/json" id="course-days">{table}</script>'


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
