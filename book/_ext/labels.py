"""What pages call each other by: page titles, labels, glossary terms and references of the bibliography.

Sphinx knows all this while it builds the site. A notebook is read outside the site, so the notebook
writer collects the same names here and turns every cross-reference into a link to the published page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from course_cache import read_page
from course_config import Course, is_executable
from edition_text import edit
from pybtex.database import parse_string
from sphinx.util.nodes import _make_id

HEADING_LABEL = re.compile(r"^\(([\w:.-]+)\)=\s*\n+#+ (.+)$", re.M)
DIRECTIVE_LABEL = re.compile(r"^[`:]{3,}\{([\w:-]+)\}[ ]*(.*)\n((?::[\w-]+:.*\n)+)", re.M)
EQUATION_LABEL = re.compile(r"\$\$ \(([\w:.-]+)\)[ ]*$|^[`:]{3,}\{math\}\n:label: (\S+)", re.M)
GLOSSARY = re.compile(r"^([`:]{3,})\{glossary\}[^\n]*\n(.*?)^\1[ ]*$", re.M | re.S)


class Label(NamedTuple):
    docname: str
    text: str


@dataclass
class Labels:
    """Every name a page of the book may point at."""

    course: Course
    titles: dict[str, str] = field(default_factory=dict)  # docname -> title
    labels: dict[str, Label] = field(default_factory=dict)
    equations: dict[str, Label] = field(default_factory=dict)  # the text is the number on its page
    terms: dict[str, str] = field(default_factory=dict)  # term in lower case -> address
    citations: dict[str, tuple[str, str]] = field(default_factory=dict)  # key -> (authors, year)

    @classmethod
    def of(cls, course: Course) -> Labels:
        names = cls(course)
        for page in sorted(course.book.rglob("*.md")):
            if "_static" not in page.parts:
                docname = course.docname(page)
                names.add_page(docname, edit(page.read_text("utf-8"), course.edition))
                if is_executable(page):
                    names.add_figures_of_cells(docname)
        bibliography = course.book / "references.bib"
        if bibliography.exists():
            names.add_bibliography(bibliography.read_text("utf-8"))
        return names

    def add_page(self, docname: str, text: str) -> None:
        title = re.search(r"^# (.+)$", text, re.M)
        self.titles[docname] = title[1].strip() if title else docname
        for name, heading in HEADING_LABEL.findall(text):
            self.labels[name] = Label(docname, heading)
        for directive, argument, options in DIRECTIVE_LABEL.findall(text):
            name = re.search(r"^:(?:label|name):[ ]*(\S+)", options, re.M)
            if name and directive != "math":
                kind = directive.split(":")[-1].removesuffix("-start").capitalize()
                titled = argument and kind not in ("Figure", "Image")
                self.labels[name[1]] = Label(docname, f"{kind}: {argument}" if titled else kind)
        for number, (dollar, directive) in enumerate(EQUATION_LABEL.findall(text), 1):
            self.equations[dollar or directive] = Label(docname, str(number))
        for _, body in GLOSSARY.findall(text):
            for line in body.splitlines():
                if line.strip() and not line[0].isspace():
                    self.add_term(docname, line.strip())

    def add_term(self, docname: str, term: str) -> None:
        anchor = _make_id(f"term-{term}")
        self.terms[term.lower()] = self.course.page_url(docname, anchor)

    def add_figures_of_cells(self, docname: str) -> None:
        """Figures made by code cells are named in the cell's `mystnb: figure: name:`."""
        for cell in read_page(self.course, self.course.root / f"{docname}.md").cells:
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            if name := figure.get("name"):
                self.labels[name] = Label(docname, "the figure")

    def add_bibliography(self, text: str) -> None:
        for key, entry in parse_string(text, "bibtex").entries.items():
            people = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
            authors = people[0] if len(people) == 1 else f"{people[0]} et al."
            if len(people) == 2:
                authors = " and ".join(people)
            self.citations[key] = (authors, entry.fields["year"])
