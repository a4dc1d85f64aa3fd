"""The notebooks are the lessons: same code, readable text, and outputs that are really compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jupytext
import nbformat
import pytest
from course_cache import cached_outputs, fingerprint, open_cache, read_page, tidy_outputs
from course_config import Course
from IPython.core.inputtransformer2 import TransformerManager
from labels import Labels
from notebooks import (
    CHECKED,
    NotebookWriter,
    PageError,
    checked_cells,
    code_cell,
    find_differences,
    main,
    to_text,
    write_all,
)
from plain_markdown import ConversionError, PlainMarkdown

COURSE = Course()
LESSONS = [COURSE.docname(page) for page in COURSE.lessons]
HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

"""


def load(docname: str) -> nbformat.NotebookNode:
    return nbformat.read(COURSE.notebook_path(docname), as_version=4)


# ---- The notebooks of this repository ----------------------------------------------------------------


def test_notebooks_are_in_step_with_the_lessons() -> None:
    problems = find_differences(COURSE)
    assert not problems, "run `make notebooks`:\n" + "\n".join(problems)


@pytest.mark.parametrize("docname", LESSONS)
def test_every_lesson_stores_at_least_three_outputs(docname: str) -> None:
    stored = [cell for cell in checked_cells(load(docname)) if cell.outputs]
    assert len(stored) >= 3, f"{docname} has {len(stored)} cells tagged {CHECKED}"


@pytest.mark.parametrize("docname", LESSONS)
def test_nothing_but_the_text_of_checked_cells_is_stored(docname: str) -> None:
    for cell in load(docname).cells:
        for output in cell.get("outputs", []):
            assert CHECKED in cell.metadata.tags
            assert output.output_type == "stream" or set(output.data) == {"text/plain"}


@pytest.mark.parametrize("docname", LESSONS)
def test_jupytext_reads_the_same_code_from_the_page(docname: str) -> None:
    page = COURSE.fill_in((COURSE.root / f"{docname}.md").read_text("utf-8"))
    by_jupytext = [c.source for c in jupytext.reads(page, fmt="md:myst").cells if c.cell_type == "code"]
    ours = [c.source for c in load(docname).cells[1:] if c.cell_type == "code"]
    assert [re.sub(r"^#@title .*\n", "", source) for source in ours] == by_jupytext


@pytest.mark.parametrize("docname", LESSONS)
def test_the_setup_cell_comes_first_and_touches_neither_torch_nor_numpy(docname: str) -> None:
    cell = load(docname).cells[0]
    assert cell.metadata.tags == ["setup"]
    assert "torch" not in cell.source and "numpy" not in cell.source and "requirements" not in cell.source
    assert f"git+{COURSE.repository_url}@{COURSE.branch}" in cell.source


@pytest.mark.parametrize(
    ("hosted", "installed", "installs"),
    [(False, False, 0), (False, True, 0), (True, True, 0), (True, False, 1)],
)
def test_the_setup_cell_installs_on_colab_only(
    hosted: bool, installed: bool, installs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Shell:
        def run_line_magic(self, name: str, line: str) -> None:
            calls.append(f"{name} {line}")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if hosted:
        monkeypatch.setitem(sys.modules, "google.colab", object())
    source = NotebookWriter.of(COURSE).setup_cell().source
    exec(TransformerManager().transform_cell(source), {"get_ipython": Shell})
    assert len(calls) == installs
    assert all(call.startswith("pip install --quiet --no-deps ") for call in calls)


# ---- A small course in a temporary folder --------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Course:
    """A course of one page that runs code and one that does not."""
    course = Course(tmp_path)
    shutil.copy(COURSE.root / "_config.yml", tmp_path)
    (tmp_path / "_toc.yml").write_text("root: book/index\nchapters: [{file: book/one}]\n")
    (tmp_path / "llmcourse").mkdir()
    (tmp_path / "llmcourse" / "model.py").write_text("N = 1\n")
    (tmp_path / "book" / "reference").mkdir(parents=True)
    shutil.copy(COURSE.book / "references.bib", tmp_path / "book")
    (tmp_path / "book" / "index.md").write_text("(start)=\n# The first page\n")
    (tmp_path / "book" / "reference" / "glossary.md").write_text(
        "# Glossary\n\n```{glossary}\nloss\n    What training makes smaller.\n\nBPE\nbyte pair encoding\n    A tokenizer.\n```\n"
    )
    write_page(
        course,
        "# One\n\nText.\n\n"
        f"```{{code-cell}} ipython3\n:tags: [{CHECKED}]\nprint('mean 0.123')\n2 + 2\n```\n\n"
        "```{code-cell} ipython3\nx = 3\nprint(x)\n```\n\n"
        f"```{{code-cell}} ipython3\n:tags: [{CHECKED}]\nprint('took 1.2 s', object())\n```\n",
    )
    return course


def write_page(course: Course, text: str) -> Path:
    page = course.book / "one.md"
    page.write_text(HEADER + text, "utf-8")
    return page


def run_nbval(notebook: Path) -> tuple[int, int]:
    """Passed and failed cells of a notebook, compared as `make test` does it."""
    report = notebook.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", str(notebook), "--nbval-lax", "--nbval-current-env"]
    command += ["-p", "no:cacheprovider", "--junitxml", str(report)]
    command += ["--nbval-sanitize-with", str(COURSE.root / "tests" / "nbval_sanitize.cfg")]
    # Not from the root of the repository, whose settings would measure coverage of this too.
    subprocess.run(command, cwd=notebook.parent, capture_output=True, env=os.environ | {"MPLBACKEND": ""})
    suite = next(ET.parse(report).getroot().iter("testsuite"))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return int(suite.get("tests", 0)) - failed, failed


def test_nbval_passes_on_what_was_stored_and_catches_a_planted_difference(tiny: Course) -> None:
    assert write_all(tiny, jobs=1, keep_cache=False) == []
    path = tiny.notebook_path("book/one")
    assert run_nbval(path) == (4, 0)  # the setup cell and three of ours; time and address do differ

    text = path.read_text("utf-8")
    for stored, planted in [("mean 0.123", "mean 0.124"), ('"4"', '"5"'), ("took", "needed")]:
        assert stored in text
        path.write_text(text.replace(f"{stored}", planted, 2 if stored == "took" else 1), "utf-8")
        if stored == "mean 0.123":  # the first place is the source, the second the output
            path.write_text(re.sub(r'("mean) 0\.123', r"\1 0.124", text), "utf-8")
    # Every planted difference at once: each is in a cell of its own, or on a line of its own.
    planted = text.replace('"mean 0.123\\n"', '"mean 0.124\\n"').replace('"took 1.2 s', '"needed 1.2 s')
    assert planted.count("0.124") == 1 and planted.count("needed") == 1
    path.write_text(planted, "utf-8")
    assert run_nbval(path) == (2, 2)
