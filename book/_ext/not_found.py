"""Sphinx glue: `404.html`, what a reader sees whose address leads nowhere (GitHub Pages looks for this name).

It is shown under whatever address was asked for, so all its links start at the root of the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from course_config import Course
from sphinx.application import Sphinx

NAME = "404"
BODY = """<h1>This page is not here</h1>
<p>The address may be mistyped, or the page has moved: days may be renamed while the book grows.</p>
<ul>
<li><a href="book/index.html">The front page</a> leads to all six weeks.</li>
<li><a href="book/reference/glossary.html">The glossary</a> explains each word of the trade.</li>
<li><a href="search.html">The search page</a> finds a word anywhere in the book.</li>
</ul>"""
# An address that is relative to this page; the theme also keeps the way to the root in an attribute.
RELATIVE = re.compile(r'\b(href|src|data-content_root)="(?!https?:|//|/|#|data:|mailto:)(?:\./)?([^"]*)"')


def add_page(_app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    yield NAME, {"title": "Not found", "body": BODY}, "page.html"


def from_the_root(html: str, root: str) -> str:
    """`href="book/index.html"` -> `href="/name-of-the-site/book/index.html"`."""
    return RELATIVE.sub(lambda match: f'{match[1]}="{root}{match[2]}"', html)


def fix_links(app: Sphinx, error: Exception | None) -> None:
    page = Path(app.outdir) / f"{NAME}.html"
    if error is None and app.builder.name == "html":
        root = urlsplit(Course(Path(app.srcdir)).site_url).path.rstrip("/") + "/"
        page.write_text(from_the_root(page.read_text("utf-8"), root), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-collect-pages", add_page)
    app.connect("build-finished", fix_links, priority=950)  # after everything that rewrites pages
    return {"parallel_read_safe": True, "parallel_write_safe": True}
