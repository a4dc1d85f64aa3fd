"""Write `notebooks/**/*.ipynb` from `book/**/*.md`: the same lessons for Colab, JupyterLab and nbval.

    python book/_ext/notebooks.py            run what has not been run yet, then write every notebook
    python book/_ext/notebooks.py --check    run nothing; exit 1 if a notebook is stale, missing or left over
    python book/_ext/notebooks.py --edition student --out DIR    the same for another edition, in DIR

A notebook begins with a setup cell that installs the course where that is needed. The text that a cell
tagged `nbval-check-output` prints is stored, so that nbval compares it; no other output is.
Equal pages give equal bytes: ids come from the text of a cell, not from a clock or a counter.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from course_cache import cached_outputs, fill_cache, open_cache, read_page
from course_config import Course
from edition_text import EDITIONS
from editions import EditionFailed, find_leaks, make_edition
from labels import Labels
from nbformat import NotebookNode
from plain_markdown import ConversionError, PlainMarkdown

CHECKED = "nbval-check-output"
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
GATE = re.compile(r"^[`:]{3,}\{(solution-start|solution-end)\}[ ]*(\S*)", re.M)
SETUP = """\
# Setup: on Colab and Kaggle this installs the helper package of the course; elsewhere it does nothing.
import importlib.util
import os
import sys

hosted = "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
if hosted and importlib.util.find_spec("llmcourse") is None:
    %pip install --quiet --no-deps "llmcourse @ git+{url}@{branch}"
    if importlib.util.find_spec("llmcourse") is None:
        raise ImportError("The course was not installed (see above): turn the internet on and run this cell again.")\
"""
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class PageError(Exception):
    """A page that cannot become a notebook; the message names file and line."""


@dataclass(frozen=True)
class NotebookWriter:
    course: Course
    labels: Labels

    @classmethod
    def of(cls, course: Course) -> NotebookWriter:
        return cls(course, Labels.of(course))

    def convert(self, page: Path, executed: NotebookNode | None = None) -> NotebookNode:
        """The notebook of one page; with the outputs of its checked cells if `executed` has them."""
        source = read_page(self.course, page)
        markdown = PlainMarkdown(self.course.docname(page), self.labels)
        cells = [self.setup_cell()]
        solution = ""
        for number, (cell, line) in enumerate(zip(source.cells, source.metadata["source_map"], strict=True)):
            try:
                if cell.cell_type == "code":
                    outputs = executed.cells[number].outputs if executed else []
                    cells.append(code_cell(cell, solution, outputs, line, folded=self.course.edition != "instructor"))
                    continue
                for gate, label in GATE.findall(cell.source):
                    solution = markdown.exercise_title(label) if gate == "solution-start" else ""
                if text := markdown.convert(cell.source, line):
                    cells.append(nbformat.v4.new_markdown_cell(text))
            except ConversionError as error:
                where = f"{page.relative_to(self.course.root)}:{error.line + 1}"
                raise PageError(f"{where}: {error}") from error
        number_checked_cells(cells)
        give_ids(cells, self.course.docname(page))
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
        nbformat.validate(notebook)
        return notebook

    def setup_cell(self) -> NotebookNode:
        source = SETUP.format(url=self.course.repository_url, branch=self.course.branch)
        return nbformat.v4.new_code_cell(source, metadata={"tags": ["setup"]})


def code_cell(
    cell: NotebookNode, solution: str, outputs: list[NotebookNode], line: int, folded: bool = True
) -> NotebookNode:
    """A code cell as the notebook has it: plotting code and (if `folded`) solutions folded, checked text stored."""
    tags = list(cell.metadata.get("tags", []))
    source = cell.source
    metadata: dict[str, Any] = {"tags": tags} if tags else {}
    title = f"Solution: {solution}" if solution and folded else "Show the code" if FOLDED & set(tags) else ""
    if title:
        source = f"#@title {title}\n{source}"  # Colab shows the title, and the code on a double click
        metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    new = nbformat.v4.new_code_cell(source, metadata=metadata)
    if CHECKED in tags and outputs:
        new.outputs = stored_text(outputs, line)
    elif CHECKED in tags and "raises-exception" in tags:
        raise ConversionError(f"a cell tagged {CHECKED} must not raise", line)
    return new


def stored_text(outputs: list[NotebookNode], line: int) -> list[NotebookNode]:
    """What a checked cell printed, ready to be compared; anything but text is refused.

    nbval compares every kind of output, so a cell that also draws would differ from what is stored.
    """
    printed, stored = "", []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stdout":
            printed += output.text
        elif output.output_type == "execute_result" and set(output.data) == {"text/plain"}:
            data = {"text/plain": output.data["text/plain"]}
            stored.append(nbformat.v4.new_output("execute_result", data=data))
        else:
            kind = ", ".join(output.get("data", {})) or output.get("name", output.output_type)
            raise ConversionError(f"a cell tagged {CHECKED} may only print text, this one shows {kind}", line)
    if printed:
        stored.insert(0, nbformat.v4.new_output("stream", name="stdout", text=printed))
    return stored


def number_checked_cells(cells: list[NotebookNode]) -> None:
    """nbval compares a cell only if it has been run, that is, has the number that "Run all" gives it."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if cell.outputs:
            cell.execution_count = number
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number


def give_ids(cells: list[NotebookNode], docname: str) -> None:
    """Ids that depend on a cell's text only, so that a new cell leaves the ids of the others alone."""
    seen: Counter[str] = Counter()
    for cell in cells:
        text = f"{docname}:{cell.cell_type}:{cell.source}"
        seen[text] += 1
        cell.id = hashlib.sha256(f"{text}:{seen[text]}".encode()).hexdigest()[:12]


def to_text(notebook: NotebookNode) -> str:
    """The bytes of the file: sorted keys, one space of indentation, one newline at the end."""
    return str(nbformat.writes(notebook, indent=1)).rstrip("\n") + "\n"


def without_outputs(text: str) -> str:
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return to_text(notebook)


def checked_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if CHECKED in cell.metadata.get("tags", [])]


def find_differences(course: Course) -> list[str]:
    """What is wrong between the pages and the notebooks on disk; empty if they are in step. Runs nothing."""
    writer, problems, expected = NotebookWriter.of(course), [], set()
    for page in course.lessons:
        path = course.notebook_path(course.docname(page))
        expected.add(path)
        name = path.relative_to(course.root)
        try:
            new = to_text(writer.convert(page))
        except PageError as error:
            problems.append(str(error))
            continue
        if not path.exists():
            problems.append(f"{name}: missing")
            continue
        old = path.read_text("utf-8")
        if without_outputs(old) != new:
            lines = difflib.unified_diff(without_outputs(old).splitlines(), new.splitlines(), "notebook", "page", n=0)
            problems.append(f"{name}: differs from its page\n  " + "\n  ".join(list(lines)[:12]))
        for cell in checked_cells(nbformat.reads(old, as_version=4)):
            if not cell.outputs:
                first = cell.source.strip().splitlines()[0]
                problems.append(f"{name}: the cell that begins with {first!r} is tagged {CHECKED} but stores no text")
    left_over = set(course.notebooks.rglob("*.ipynb")) - expected
    problems += [f"{path.relative_to(course.root)}: no page of _toc.yml makes this notebook" for path in left_over]
    return problems


def write_all(course: Course, jobs: int, keep_cache: bool) -> list[str]:
    """Run what has to be run, write what changed, remove what has no page any more; return the problems."""
    writer = NotebookWriter.of(course)
    for page in course.lessons:
        writer.convert(page)  # a page that cannot be written is known before minutes are spent on running it
    problems = [f"{docname}.md: a cell failed, see above" for docname in fill_cache(course, jobs, keep_cache)]
    problems += write_notebooks(course, course.notebooks)
    expected = {course.notebook_path(course.docname(page)) for page in course.lessons}
    for path in sorted(set(course.notebooks.rglob("*.ipynb")) - expected):
        path.unlink()
        print(f"  removed {path.relative_to(course.root)} (no page of _toc.yml makes it)")
    return problems


def write_notebooks(course: Course, folder: Path) -> list[str]:
    """Write the notebooks of all pages that have been run into `folder`; return the problems."""
    writer, cache = NotebookWriter.of(course), open_cache(course, keep=True)
    problems, changed = [], 0
    for page in course.lessons:
        path = folder / course.notebook_path(course.docname(page)).relative_to(course.notebooks)
        if (executed := cached_outputs(cache, read_page(course, page))) is None:
            continue  # it failed; the notebook of its last good state stays
        try:
            text = to_text(writer.convert(page, executed))
        except PageError as error:
            problems.append(str(error))
            continue
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            changed += 1
            print(f"  wrote {path.relative_to(course.root) if path.is_relative_to(course.root) else path}")
    print(f"{len(course.lessons)} notebooks, {changed} of them changed.")
    return problems


def write_edition(course: Course, edition: str, folder: Path, jobs: int, keep_cache: bool) -> list[str]:
    """Write the notebooks of an edition into `folder`; the ones in `notebooks/` are not touched."""
    folder = folder.resolve()
    if folder.is_relative_to(course.notebooks):
        return [f"{folder}: notebooks/ holds the learner edition; name another folder, as in OUT=/tmp/{edition}"]
    if failed := fill_cache(course, jobs, keep_cache):
        return [f"{docname}.md: a cell failed, see above" for docname in failed]
    made = course if edition == "learner" else make_edition(course, edition)
    problems = write_notebooks(made, folder)
    return problems + (find_leaks(course, made, [folder]) if edition == "student" else [])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the notebooks from the pages of the book.")
    parser.add_argument("--check", action="store_true", help="run nothing, write nothing: only compare")
    parser.add_argument("--jobs", type=int, default=2, help="pages that run at the same time (default 2)")
    parser.add_argument("--keep-cache", action="store_true", help="reuse results although the package changed")
    parser.add_argument("--edition", choices=EDITIONS, default="learner", help="which edition (default: learner)")
    parser.add_argument("--out", type=Path, help="where to (default: notebooks/, other editions below _build/)")
    options = parser.parse_args(arguments)
    course, edition, out = Course(), options.edition, options.out
    if edition != "learner" and not out:
        out = course.build_folder / f"notebooks-{edition}"
    try:
        if options.check:
            problems = find_differences(course)
        elif out:
            problems = write_edition(course, edition, out, options.jobs, options.keep_cache)
        else:
            problems = write_all(course, options.jobs, options.keep_cache)
    except (PageError, EditionFailed) as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if options.check and not problems:
        print(f"{len(course.lessons)} notebooks are in step with their pages.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
