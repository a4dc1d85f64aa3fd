"""The slides of the tour: one self-contained HTML file, made from the same pages.

    python book/_ext/deck.py        run the pages of the tour if needed, then write _build/slides.html

A slide is a stop: its heading, the text of its `{slide}` directive, and what its cells tagged `slide` printed or
drew when the page was last run. Nothing is written twice, so page and slide cannot disagree. The deck asks nothing
of the network; words of the glossary carry their definition with them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

from course_cache import cached_outputs, fill_cache, open_cache, read_page
from course_config import Course
from edition_text import directives
from labels import GLOSSARY, Labels
from markdown_it import MarkdownIt
from nbformat import NotebookNode
from plain_markdown import ConversionError, PlainMarkdown

STOP = re.compile(r"^## Stop (\d+) · (.+)$")
TAG = "slide"
TERM = re.compile(r"\{term\}`(?:([^`<]+?)\s*<([^`>]+)>|([^`]+))`")
MOST_LINES, MOST_COLUMNS = 16, 84  # of printed text that still fits on a slide
TEMPLATE = Path(__file__).with_name("deck.html")
RENDER = MarkdownIt("commonmark", {"html": True}).enable("table")


class DeckError(Exception):
    """A stop that cannot become a slide; the message says which and why."""


@dataclass
class Slide:
    """One stop of the tour."""

    number: int
    title: str
    docname: str
    lead: str = ""  # Markdown of the page
    shown: list[str] = field(default_factory=list)  # HTML: what its tagged cells printed or drew


def tour_pages(course: Course) -> list[Path]:
    """The pages of the tour that run code, in reading order."""
    return [page for page in course.lessons if course.docname(page).startswith("book/tour/")]


def slides_of(docname: str, notebook: NotebookNode) -> Iterator[Slide]:
    """The stops of one executed page. Raises DeckError for one without lead, or with too much on it."""
    slide: Slide | None = None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if slide and TAG in cell.metadata.get("tags", []):
                slide.shown += [shown_html(slide, output) for output in joined(cell.outputs)]
            continue
        lines = cell.source.split("\n")
        leads = {d.start: "\n".join(lines[d.start + 1 : d.end - 1]) for d in directives(lines) if d.name == "slide"}
        for at, line in enumerate(lines):
            if heading := STOP.match(line):
                if slide:
                    yield complete(slide)
                slide = Slide(int(heading[1]), heading[2].strip(), docname)
            elif line.startswith("## ") and slide:
                yield complete(slide)
                slide = None
            if at in leads:
                if slide is None or slide.lead:
                    raise DeckError(f"{docname}: a {{slide}} stands outside of a stop, or is its second.")
                slide.lead = leads[at]
    if slide:
        yield complete(slide)


def complete(slide: Slide) -> Slide:
    if not slide.lead.strip():
        raise DeckError(f"{slide.docname}: stop {slide.number} has no {{slide}} below its heading.")
    return slide


def joined(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The outputs of a cell; what it printed in several goes is one."""
    for printed, group in groupby(outputs, lambda output: output.output_type == "stream"):
        if printed:
            text = "".join(output.text for output in group)
            yield NotebookNode(output_type="stream", text=text)
        else:
            yield from group


def shown_html(slide: Slide, output: NotebookNode) -> str:
    """What a cell printed or drew, as HTML."""
    where = f"{slide.docname}: the slide of stop {slide.number}"
    if output.output_type == "stream":
        lines = output.text.rstrip().split("\n")
        if len(lines) > MOST_LINES or max(map(len, lines)) > MOST_COLUMNS:
            raise DeckError(f"{where} has no room for {len(lines)} lines of up to {max(map(len, lines))} characters.")
        return f"<pre>{escape(output.text.rstrip())}</pre>"
    data = output.get("data", {})
    if "text/html" in data:
        return str(data["text/html"])
    if "image/svg+xml" in data:
        return str(data["image/svg+xml"])
    raise DeckError(f"{where} cannot show {', '.join(data) or output.output_type}.")


def definitions(course: Course) -> dict[str, str]:
    """Every term of the glossary with its definition, as Markdown; terms that share an entry share it."""
    found: dict[str, str] = {}
    text = (course.book / "reference" / "glossary.md").read_text("utf-8")
    for _, body in GLOSSARY.findall(text):
        terms: list[str] = []
        for line in body.splitlines():
            if line and not line[0].isspace():
                if terms and terms[-1] in found:
                    terms = []
                terms.append(line.strip())
            elif line.strip():
                for term in terms:
                    found[term] = f"{found.get(term, '')} {line.strip()}".strip()
    return found


class DeckWriter:
    """Turns the slides of a course into one HTML file."""

    def __init__(self, course: Course) -> None:
        self.course, self.labels = course, Labels.of(course)
        self.definitions = definitions(course)
        self.by_name = {term.lower(): text for term, text in self.definitions.items()}

    def slides(self) -> list[Slide]:
        """All stops, in order. Raises DeckError if a page has not been run or a stop is missing."""
        cache, slides = open_cache(self.course, keep=True), list[Slide]()
        for page in tour_pages(self.course):
            docname = self.course.docname(page)
            if (executed := cached_outputs(cache, read_page(self.course, page))) is None:
                raise DeckError(f"{docname} has not been run.")
            slides += slides_of(docname, executed)
        if [slide.number for slide in slides] != list(range(len(slides))):
            raise DeckError(f"The stops are not in order: {', '.join(str(slide.number) for slide in slides)}.")
        return slides

    def html(self, slides: list[Slide]) -> str:
        """The deck: every slide, the style of the book, and a few lines of script."""
        css = (self.course.book / "_static" / "course.css").read_text("utf-8")
        sections = "\n".join(self.section(slide, len(slides)) for slide in slides)
        page = TEMPLATE.read_text("utf-8")
        for name, value in (("css", css), ("slides", sections), ("glossary", self.glossary())):
            page = page.replace(f"{{{{ {name} }}}}", value)
        return page

    def section(self, slide: Slide, total: int) -> str:
        url = self.course.page_url(slide.docname)
        return (
            f'<section id="stop-{slide.number}" aria-label="Stop {slide.number}, {escape(slide.title)}">\n'
            f"<h2><span>Stop {slide.number}</span> {self.render(slide, slide.title, inline=True)}</h2>\n"
            f'<div class="lead">{self.render(slide, slide.lead)}</div>\n'
            f'<div class="shown">{"".join(slide.shown)}</div>\n'
            f'<footer><a href="{escape(url)}">The page of this stop</a> · {slide.number} of {total - 1}</footer>\n'
            "</section>"
        )

    def render(self, slide: Slide, text: str, inline: bool = False) -> str:
        """Markdown of a page as HTML; words of the glossary carry their definition."""
        kept: list[str] = []

        def keep(match: re.Match[str]) -> str:
            word, target = match[1] or match[3], match[2] or match[3]
            if (meaning := self.by_name.get(target.lower())) is None:
                raise DeckError(f"{slide.docname}: {target!r} (stop {slide.number}) is not in the glossary.")
            kept.append(self.with_definition(word, meaning))
            return f"\ue000{len(kept) - 1}\ue001"

        try:
            plain = PlainMarkdown(slide.docname, self.labels).convert(TERM.sub(keep, text))
        except ConversionError as error:
            raise DeckError(f"{slide.docname}: stop {slide.number}: {error}") from error
        html = RENDER.renderInline(plain) if inline else RENDER.render(plain)
        return re.sub(r"\ue000(\d+)\ue001", lambda found: kept[int(found[1])], html)

    def with_definition(self, word: str, meaning: str) -> str:
        told = RENDER.renderInline(PlainMarkdown("book/reference/glossary", self.labels).convert(meaning))
        told = re.sub(r"</?a\b[^>]*>", "", told)  # a link inside a tip cannot be reached
        return f'<dfn tabindex="0">{escape(word)}<span role="tooltip">{told}</span></dfn>'

    def glossary(self) -> str:
        entries = []
        for term, meaning in sorted(self.definitions.items(), key=lambda entry: entry[0].lower()):
            told = RENDER.renderInline(PlainMarkdown("book/reference/glossary", self.labels).convert(meaning))
            entries.append(f"<dt>{escape(term)}</dt><dd>{told}</dd>")
        return "\n".join(entries)


def write_deck(course: Course, path: Path) -> int:
    """Write the deck of `course` to `path`; returns the number of its slides. Raises DeckError."""
    writer = DeckWriter(course)
    slides = writer.slides()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(writer.html(slides), "utf-8")
    return len(slides)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the slides of the tour.")
    parser.add_argument("--jobs", type=int, default=2, help="pages that run at the same time (default 2)")
    parser.add_argument("--keep-cache", action="store_true", help="reuse results although the package changed")
    options = parser.parse_args(arguments)
    course = Course()
    if failed := fill_cache(course, options.jobs, options.keep_cache, tour_pages(course)):
        print(f"\nNo slides: {len(failed)} page(s) failed: {', '.join(failed)}.", file=sys.stderr)
        return 1
    path = course.build_folder / "slides.html"
    try:
        number = write_deck(course, path)
    except DeckError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{number} slides: open {path} (arrow keys turn them).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
