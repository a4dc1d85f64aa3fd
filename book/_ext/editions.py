"""The student and the instructor edition: a copy of the course in which every page is already edited.

The copy has its own pages, settings and results in `_build/editions/NAME`, so site, notebooks, downloads and
search index are made by the same code as always, from a text that no longer has what it must not show.
Nothing runs a second time: what a cell printed is taken from the run of the whole page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path

import nbformat
import yaml
from course_cache import cached_outputs, open_cache, read_page
from course_config import Course
from edition_text import EditionError, edit, solutions
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat import NotebookNode

OWN = {"_build", "_config.yml", "book", "data", "notebooks", "out"}  # everything else is linked, for links to files
TEXT_FILES = {".html", ".ipynb", ".js", ".json", ".log", ".md", ".txt", ".xml"}
DISTINCTIVE = 12  # characters below which a line says too little to be called a part of a solution


class EditionFailed(Exception):
    """An edition that cannot be made; the message says why."""


def make_edition(course: Course, edition: str) -> Course:
    """The course as `edition` has it, in a fresh folder; its pages must have been run."""
    root = course.build_folder / "editions" / edition
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for entry in course.root.iterdir():
        if entry.name not in OWN and not entry.name.startswith("."):
            (root / entry.name).symlink_to(entry)
    shutil.copytree(course.book, root / "book", ignore=shutil.ignore_patterns("*.md", "__pycache__"))
    (root / "_config.yml").write_text(settings(course, edition), "utf-8")
    for page in course.pages:
        copy = root / page.relative_to(course.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.write_text(edit(page.read_text("utf-8"), edition), "utf-8")
        except EditionError as error:
            raise EditionFailed(f"{page.relative_to(course.root)}:{error.line + 1}: {error}") from error
    made = Course(root)
    made.build_folder.mkdir()
    times = course.build_folder / "page_seconds.json"
    if times.exists():
        shutil.copy(times, made.build_folder)
    copy_results(course, made)
    return made


def settings(course: Course, edition: str) -> str:
    """`_config.yml` of an edition; the student's has no button that leads to the repository and its solutions."""
    new = yaml.safe_load((course.root / "_config.yml").read_text("utf-8"))
    new["sphinx"]["config"]["course_edition"] = edition
    if edition == "student":
        new["html"] |= dict.fromkeys(("use_repository_button", "use_issues_button", "use_edit_page_button"), False)
        new["launch_buttons"] = {}
    else:
        new["title"] += f" ({edition} edition)"
    return str(yaml.safe_dump(new, sort_keys=False, allow_unicode=True))


def executed_pages(course: Course) -> Iterator[tuple[Path, NotebookNode, NotebookNode]]:
    """Every page that runs code: its file, the notebook as it is read, the notebook with outputs."""
    cache = open_cache(course, keep=True)
    for page in course.lessons:
        read = read_page(course, page)
        if (executed := cached_outputs(cache, read)) is None:
            raise EditionFailed(f"{page.relative_to(course.root)} has not been run")
        yield page, read, executed


def copy_results(course: Course, made: Course) -> None:
    """Give the cells of an edition what they printed in the whole page; lines have the same numbers in both."""
    cache = get_cache(str(made.cache_folder))
    for page, read, executed in executed_pages(course):
        cells = dict(zip(read.metadata["source_map"], executed.cells, strict=True))
        copy = made.root / page.relative_to(course.root)
        notebook = read_page(made, copy)
        for line, cell in zip(notebook.metadata["source_map"], notebook.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs = cells[line].outputs
                cell.execution_count = cells[line].execution_count
        notebook.metadata.language_info = executed.metadata.language_info
        bundle = CacheBundleIn(nbformat.from_dict(notebook), str(copy))
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


# ---- Is anything of a solution left? ------------------------------------------------------------------------


def find_leaks(course: Course, made: Course, folders: Iterable[Path]) -> list[str]:
    """Files below `folders` with a line of a solution, of its text, code or output, that no page shows otherwise."""
    shown = normal("\n".join([*(made.text(page) for page in made.pages), *outputs(made, inside_solutions=False)]))
    secret = sorted(line for line in secret_lines(course) if line not in shown)
    problems = []
    for folder in folders:
        for file in sorted(file for file in folder.rglob("*") if file.suffix in TEXT_FILES):
            if "_static" in file.relative_to(folder).parts:
                continue  # the theme's own files
            text = text_of(file)
            if found := next((line for line in secret if line in text), None):
                problems.append(f"{file.relative_to(folder)} has a line of a solution: {found[:80]}")
    return problems


def secret_lines(course: Course) -> set[str]:
    """The lines of all solutions: prose, code, and what the code printed."""
    lines: list[str] = []
    for page in course.pages:
        text = course.text(page).split("\n")
        for solution in solutions(text):
            lines += text[solution.start + 1 : solution.end]
    for printed in outputs(course, inside_solutions=True):
        lines += printed.split("\n")
    return {short for line in lines if len(short := normal(line)) >= DISTINCTIVE}


def outputs(course: Course, inside_solutions: bool) -> Iterator[str]:
    """The text that cells printed, either those of solutions or all others."""
    for page, read, executed in executed_pages(course):
        hidden = solutions(course.text(page).split("\n"))
        for line, cell in zip(read.metadata["source_map"], executed.cells, strict=True):
            if any(s.start <= line < s.end for s in hidden) == inside_solutions:
                yield printed(cell)


def printed(cell: NotebookNode) -> str:
    """The text among the outputs of a cell."""
    texts = [str(out.get("text") or out.get("data", {}).get("text/plain", "")) for out in cell.get("outputs", [])]
    return "\n".join(texts)


def text_of(file: Path) -> str:
    """What a reader of a page, a notebook or another text file sees, as `normal` has it."""
    text = file.read_text("utf-8")
    if file.suffix == ".ipynb":
        text = "\n".join(f"{cell.source}\n{printed(cell)}" for cell in nbformat.reads(text, as_version=4).cells)
    elif file.suffix == ".html":
        text = unescape(re.sub(r"<[^>]*>", "", text))
    return normal(text)


def normal(text: str) -> str:
    """Text without space and marks, which differ between Markdown and HTML."""
    return re.sub(r"[\s`*_$\\{}]+", "", text)
