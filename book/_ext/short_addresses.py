"""Sphinx glue: `day9.html` leads to day 9, and the address that a page had before leads to where it is now.

A page that moves is named in `_config.yml` (`course_moved: {book/old: book/new}`): links in other people's notes
outlive our ideas of order.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from posixpath import relpath

from course_config import Course
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

NUMBERED = re.compile(r"/(day|tour)0*(\d+)_\w+$")
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>This page is elsewhere</title>
<link rel="canonical" href="{canonical}">
<script>location.replace("{link}" + location.search + location.hash)</script>
<noscript><meta http-equiv="refresh" content="0; url={link}"></noscript>
<p>This page is at <a href="{link}">{link}</a>.</p>
</html>
"""


def addresses(course: Course, moved: dict[str, str]) -> dict[str, str]:
    """Every address that is not a page, and the page it leads to; a move that cannot be stops the build."""
    pages = set(course.toc)
    for old, new in moved.items():
        if old in pages or new not in pages:
            why = f"{old} is still a page" if old in pages else f"{new} is no page"
            raise ExtensionError(f"course_moved in _config.yml says that {old} is now {new}, but {why} of _toc.yml.")
    found = (NUMBERED.search(docname) for docname in course.toc)
    return {match[1] + match[2]: match.string for match in found if match} | moved


def write_pages(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.name != "html":
        return
    course = Course(Path(app.srcdir))
    for old, new in addresses(course, app.config.course_moved).items():
        link = relpath(f"{new}.html", str(Path(old).parent))
        path = Path(app.outdir) / f"{old}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE.format(link=escape(link), canonical=escape(course.page_url(new))), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("course_moved", {}, "html", dict)
    app.connect("build-finished", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
