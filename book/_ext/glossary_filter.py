"""Sphinx glue: the glossary has a field that filters its entries (`book/_static/glossary.js`), on its page only."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

PAGE = "book/reference/glossary"


def add_script(app: Sphinx, pagename: str, _template: str, _context: dict[str, Any], _doctree: object) -> None:
    if pagename == PAGE:
        app.add_js_file("glossary.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
