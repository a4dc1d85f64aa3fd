"""Sphinx glue: every page leads to its notebook and its source, and to no other host by itself.

- `{{ repository_url }}` and the like in a page become the addresses of `_config.yml`;
- under the title of a page that runs code: open it in Colab, download the notebook, read the source, and how
  long reading takes; on the front page also the whole book as one file;
- the theme's own Colab and download buttons lead to the same notebook (they expect it beside the page);
- what the theme loads for nothing is taken out: thebe, and the icon script (the icon font does the work).

The student edition links to nothing that holds solutions; the instructor edition says how long a page takes.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from shutil import copyfile
from typing import Any

from archive import archive_name
from course_config import Course, is_executable
from edition_text import edit
from progress_ticks import FRONT
from sphinx.application import Sphinx

WORDS_A_MINUTE = 200  # of explaining prose; adults read stories a fifth faster (Brysbaert 2019)
LINES_A_MINUTE = 15  # of code that one wants to understand: an estimate

# The theme's icons come as a script (1.5 MB) and as a font; the font is enough. Its preloading is an error
# in a page opened from disk.
ICON_LOADERS = re.compile(
    r'\s*(<script src="[^"]*vendor/fontawesome/[^"]*"></script>'
    r'|<link rel="preload" as="font"[^>]*vendor/fontawesome/[^>]*/?>)'
)


def course_of(app: Sphinx) -> Course:
    return Course(Path(app.srcdir))


def edit_source(app: Sphinx, _docname: str, source: list[str]) -> None:
    source[0] = course_of(app).fill_in(edit(source[0], app.config.course_edition))


def fix_buttons(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Send the theme's Colab button to the real notebook."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = course_of(app).colab_url(pagename)


def reading_minutes(text: str) -> int:
    """Minutes to read a page with its code, rounded to five, at least five."""
    code = re.findall(r"^```\{code-cell\}.*?$(.*?)^```", text, re.M | re.S)
    lines = sum(bool(line.strip()) for part in code for line in part.split("\n"))
    prose = re.sub(r"\A---.*?^---$|^```\{code-cell\}.*?^```", "", text, flags=re.M | re.S)
    minutes = len(prose.split()) / WORDS_A_MINUTE + lines / LINES_A_MINUTE
    return max(5, round(minutes / 5) * 5)


def add_lesson_links(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: object) -> None:
    """One line of links under the title."""
    course = course_of(app)
    page = course.root / f"{pagename}.md"
    if doctree is None or not page.exists() or not is_executable(page):
        return
    up = "../" * pagename.count("/")
    links = [
        (course.colab_url(pagename), "Open in Colab", ""),
        (f"{up}_sources/{pagename}.ipynb", "Download the notebook", " download"),
        (course.source_url(pagename), "Source of this page", ""),
    ]
    if course.edition == "student":  # the repository has the solutions
        links = [link for link in links if "_sources" in link[0]]
    if pagename == FRONT:
        links.append((f"{up}{archive_name(course)}", "The whole book as one file", " download"))
    line = "".join(f'<a href="{escape(url)}"{extra}>{text}</a>' for url, text, extra in links)
    line += f'<span class="page-time">{reading_minutes(course.text(page))} minutes to read</span>'
    if course.edition == "instructor" and (seconds := course.page_seconds.get(pagename)) is not None:
        line += f'<span class="page-time">Its cells ran in {seconds:.0f} s</span>'
    bar = f'<p class="lesson-links">{line}</p>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{bar}", 1)


def drop_thebe(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """The theme always loads thebe, declares one of its constants twice and so logs an error on every page."""

    def is_thebe(asset: object) -> bool:
        body = getattr(asset, "attributes", {}).get("body") or ""
        return "thebe" in str(getattr(asset, "filename", asset) or "").lower() or "THEBE_JS_URL" in body

    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context[kind] if not is_thebe(asset)]


def list_references(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """docutils makes the bibliography a list without items, which a screen reader calls empty."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def finish(app: Sphinx, error: Exception | None) -> None:
    """After the build: the download is the readable notebook, and the icon script is gone."""
    if error or app.builder.name != "html":
        return
    course, site = course_of(app), Path(app.outdir)
    for page in course.lessons:
        docname = course.docname(page)
        notebook = course.notebook_path(docname)
        if notebook.exists():
            target = site / "_sources" / f"{docname}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(notebook, target)
    for page in course.pages:
        if (copy := site / "_sources" / page.relative_to(course.root)).exists():  # Sphinx copied it as it was
            copy.write_text(edit(page.read_text("utf-8"), course.edition), "utf-8")
    for html in site.rglob("*.html"):
        html.write_text(ICON_LOADERS.sub("", html.read_text("utf-8")), "utf-8")
    for script in (site / "_static" / "vendor" / "fontawesome").rglob("*.js*"):
        script.unlink()
    (site / ".nojekyll").touch()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", edit_source)
    # The theme adds its buttons at priority 501; thebe is added before 503.
    app.connect("html-page-context", fix_buttons, priority=502)
    app.connect("html-page-context", drop_thebe, priority=503)
    app.connect("html-page-context", add_lesson_links, priority=504)
    app.connect("html-page-context", list_references)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
