"""Sphinx glue: what a link to a page looks like in a chat or in a search result.

The description of a page is its first sentence or two. The picture is the same for all pages: the curve of a
recorded run, drawn when the book is built.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

from course_config import Course
from docutils import nodes
from sphinx.application import Sphinx

from llmcourse import runs

LENGTH = 200  # characters of description; search engines show about 160
PICTURE = "_static/social.png"
RUN = "cpu-fast"


def description(doctree: nodes.document) -> str:
    """The first paragraph of the page that is text, cut after a whole word."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section | nodes.document):
            text = " ".join(paragraph.astext().split())
            return text if len(text) <= LENGTH else text[: LENGTH - 1].rpartition(" ")[0] + "…"
    return ""


def add_tags(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: Any) -> None:
    if doctree is None:
        return
    course = Course(Path(app.srcdir))
    says = description(doctree)
    tags = {
        "og:type": "article",
        "og:site_name": str(course.config["title"]),
        "og:title": "".join(doctree.next_node(nodes.title).astext().splitlines()),
        "og:description": says,
        "og:url": course.page_url(pagename),
        "og:image": f"{course.site_url}/{PICTURE}",
        "og:image:alt": "The validation loss of a small GPT falls while it learns to write.",
    }
    lines = [f'<meta property="{name}" content="{escape(text)}" />' for name, text in tags.items()]
    lines += [f'<meta name="description" content="{escape(says)}" />']
    lines += ['<meta name="twitter:card" content="summary_large_image" />']
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(lines)


def draw_picture(path: Path, title: str) -> None:
    """1200 × 630 pixels: the title over a recorded curve."""
    from matplotlib.figure import Figure

    run = runs.load(RUN)
    points = [(r["step"], r["val_loss"]) for r in run.log if "val_loss" in r]
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#0f1a22")
    axes = figure.add_axes((0.06, 0.1, 0.88, 0.52), facecolor="none")
    axes.plot(*zip(*points, strict=True), color="#74c0ea", linewidth=4, solid_capstyle="round")
    axes.axhline(math.log(65), color="#a3adb7", linewidth=1, linestyle=(0, (6, 4)))
    axes.set(xlim=(0, points[-1][0]), xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    name, _, rest = title.partition(":")
    figure.text(0.06, 0.83, name, color="#ffffff", fontsize=54, fontweight="bold")
    figure.text(0.06, 0.71, rest.strip(), color="#cfd6dd", fontsize=34)
    figure.savefig(path, metadata={"Software": None})


def add_picture(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        draw_picture(Path(app.outdir) / PICTURE, str(Course(Path(app.srcdir)).config["title"]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", add_picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
