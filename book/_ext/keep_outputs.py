"""A pytest plugin: what a notebook prints under nbval becomes what its page shows.

    PYTHONPATH=book/_ext python -m pytest -p keep_outputs notebooks --nbval-lax

Notebook and page hold the same code, so one run serves both: nbval compares what the cells print with what the
notebook stores, and the outputs of a notebook that passed go into the cache that the site is built from. A page
whose notebook failed, is out of step with it or was run in part is left for `make book` to run.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import nbformat
import pytest
from course_cache import Result, keep_result, open_cache, read_page, tidy_outputs
from course_config import Course
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell

TITLE = re.compile(r"\A#@title .*\n")  # what the notebook writer puts in front of a folded cell


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(KeepOutputs(), "keep-outputs")
    if not hasattr(config, "workerinput"):  # once, before the workers of pytest-xdist start
        for course in {course_of(Path(str(argument))) for argument in config.args} - {None}:
            open_cache(course)


class KeepOutputs:
    """Collects the cells of the notebook that is running, and keeps its outputs after the last one."""

    def __init__(self) -> None:
        self.passed: list[IPyNbCell] = []
        self.seconds = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" and isinstance(item, IPyNbCell):
            self.seconds += report.duration
            if report.passed:
                self.passed.append(item)
        return report

    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        if isinstance(item, IPyNbCell) and (nextitem is None or nextitem.parent is not item.parent):
            keep(Path(item.path), self.passed, self.seconds)
            self.passed, self.seconds = [], 0.0


def keep(path: Path, cells: list[IPyNbCell], seconds: float) -> None:
    """Put the outputs of the `cells` of the notebook at `path` into the cache of its course, if they are the page's."""
    if (course := course_of(path)) is None:
        return
    for page in course.lessons:
        docname = course.docname(page)
        if course.notebook_path(docname) == path and (notebook := as_page(read_page(course, page), cells)):
            keep_result(course, open_cache(course, keep=True), Result(docname, seconds, notebook, ""))


def as_page(page: NotebookNode, cells: list[IPyNbCell]) -> NotebookNode | None:
    """The page with the outputs of the notebook's cells; None unless they are the setup cell and then the page's."""
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    if [TITLE.sub("", ran.cell.source) for ran in cells[1:]] != [cell.source for cell in code]:
        return None
    for number, (cell, ran) in enumerate(zip(code, cells[1:], strict=True), 1):
        cell.execution_count = number
        cell.outputs = [nbformat.from_dict(output) for output in ran.test_outputs]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number  # the notebook counts its setup cell too
    # As nbclient leaves it: the site colors the code by what the kernel says of its language.
    kernel = cells[0].parent.kernel.kc.kernel_info(reply=True, timeout=60)
    page.metadata["language_info"] = nbformat.from_dict(kernel["content"]["language_info"])
    tidy_outputs(page)
    return page


def course_of(path: Path) -> Course | None:
    """The course that a file or folder belongs to."""
    path = path.resolve()
    return next((Course(folder) for folder in (path, *path.parents) if (folder / "_toc.yml").exists()), None)
