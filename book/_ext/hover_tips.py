"""Three repairs to sphinx-tippy, which shows a term's definition when the reader points at it.

- Of several terms with one definition it gave the definition to the last one only; now all of them have it.
- It wrote its files in a random order under random names; now equal pages give equal files.
- It took every line of every figure apart, a fifth of the time of a build; now it is shown the page without figures.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

TABLE = re.compile(r"selector_to_html = (\{.*\})$", re.M)
RANDOM_NAME = re.compile(r"[\w-]+\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.js")


FIGURE = re.compile(r'<figure class="llm-figure\b.*?</figure>', re.S)
WHOLE = "body_with_figures"


def hide_figures(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    if "body" in context:
        context[WHOLE], context["body"] = context["body"], FIGURE.sub("", context["body"])


def show_figures(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    if WHOLE in context:
        context["body"] = context.pop(WHOLE)


def share_definitions(app: Sphinx, pagename: str, *_: object) -> None:
    """Give every term of the glossary the definition that follows it, also across another term."""
    pages = getattr(app.env, "tippy_data", {"pages": {}})["pages"]
    tips: dict[str | None, str] = pages.get(pagename, {}).get("id_to_html", {})
    definition = ""
    for key in reversed([key for key in tips if key and key.startswith("term-")]):
        _, tag, rest = tips[key].partition("<dd>")
        if tag:
            definition = tag + rest
        else:
            tips[key] += definition


def make_reproducible(app: Sphinx, error: Exception | None) -> None:
    """Sort the definitions of each page and name their file after its content."""
    if error or app.builder.name != "html":
        return
    site, renamed = Path(app.outdir), {}
    for script in sorted((site / "_static" / "tippy").rglob("*.js")):
        text = TABLE.sub(
            lambda match: "selector_to_html = " + json.dumps(json.loads(match[1]), sort_keys=True),
            script.read_text("utf-8"),
        )
        script.write_text(text, "utf-8")
        name = f"{script.name.partition('.')[0]}.{sha256(text.encode()).hexdigest()[:12]}.js"
        renamed[script.name] = name
        script.rename(script.with_name(name))
    for html in site.rglob("*.html"):
        text = html.read_text("utf-8")
        html.write_text(RANDOM_NAME.sub(lambda match: renamed.get(match[0], match[0]), text), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", hide_figures, priority=449)
    app.connect("html-page-context", show_figures, priority=451)
    app.connect("html-page-context", share_definitions, priority=460)  # tippy collects at 450
    app.connect("build-finished", make_reproducible, priority=900)  # tippy writes at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
