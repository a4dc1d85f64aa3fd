"""Run the pages of the book, a few at a time, and keep what they print.

Jupyter Book itself runs one page after another. Here the pages that have no stored result are run by
several processes, and the results go into the cache (`jupyter-cache`) that Jupyter Book and the notebook
writer read. A test run of the notebooks fills it too (`keep_outputs.py`). The cache finds a page by its
code cells only, so it is dropped as a whole when the package, the pinned versions or Python changed:
otherwise pages would go on showing what older code printed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import nbformat
from course_config import Course
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from nbformat import NotebookNode

from llmcourse import data

ANSI = re.compile(r"\x1b\[[0-9;]*m")
# One state of a tqdm bar: " 40%|████      | 2/5 [00:01<00:02,  1.6it/s]" or "12it [00:03,  4.0it/s]".
PROGRESS_BAR = re.compile(r"\d+%\|.*\|.*\[.*\]|\d+\S*it \[.*\]|\[\d\d:\d\d[<,].*\]")
# The kernels inherit these. One thread a page: pages that run side by side must not fight for cores, and
# sums come out the same everywhere. No progress bars: they are for the person who waits, not for the page.
# The exercises that a page solves are not the reader's, so they are not remembered.
KERNEL_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "LLMCOURSE_PROGRESS": os.devnull}
SECONDS_A_PAGE = 20.0  # the first guess, before anything was timed


class Result(NamedTuple):
    """One page after it ran; `error` is empty when it ran to the end."""

    docname: str
    seconds: float
    notebook: NotebookNode
    error: str


def read_page(course: Course, page: Path) -> NotebookNode:
    """The page as a notebook of Markdown and code cells, read exactly as Jupyter Book reads it.

    `metadata["source_map"]` holds the first line (from 0) of every cell.
    """
    text = course.text(page)
    extensions = set(course.config["parse"]["myst_enable_extensions"])
    notebook: NotebookNode = read_myst_markdown_notebook(
        text,
        config=MdParserConfig(enable_extensions=extensions),
        add_source_map=True,
        path=page,
    )
    # The reader counts the blank lines before a paragraph as its own.
    lines = text.splitlines()
    for cell, start in enumerate(notebook.metadata["source_map"]):
        while start < len(lines) and not lines[start].strip():
            start += 1
        notebook.metadata["source_map"][cell] = start
    return notebook


def fingerprint(course: Course) -> str:
    """A hash of everything besides the page's own code that decides what a page prints."""
    digest = hashlib.sha256(".".join(map(str, sys.version_info[:2])).encode())
    files = [p for p in (course.root / "llmcourse").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    for path in [*sorted(files), *sorted(course.root.glob("requirements*.txt"))]:
        digest.update(path.relative_to(course.root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def open_cache(course: Course, keep: bool = False) -> JupyterCacheAbstract:
    """The cache of executed pages, emptied first if package, pins or Python changed (unless `keep`)."""
    folder, stamp = course.cache_folder, course.cache_folder / "FINGERPRINT"
    now = fingerprint(course)
    if folder.exists() and not keep and (not stamp.exists() or stamp.read_text() != now):
        print("llmcourse, requirements or Python changed since the pages were run: all of them run again.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not keep or not stamp.exists():
        stamp.write_text(now)
    return get_cache(str(folder))


def cached_outputs(cache: JupyterCacheAbstract, notebook: NotebookNode) -> NotebookNode | None:
    """The same notebook with the outputs of its last run, or None if its code has not run yet."""
    try:
        _, merged = cache.merge_match_into_notebook(notebook)
    except KeyError:
        return None
    return merged


def tidy_outputs(notebook: NotebookNode) -> None:
    """Take out the progress bars that were drawn in spite of `KERNEL_ENVIRONMENT`.

    What else stands on stderr stays, and fails the build. Text that was overwritten with a carriage
    return is dropped, as a terminal would.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.output_type == "stream":
                lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.text.split("\n"))
                output.text = "\n".join(line for line in lines if not PROGRESS_BAR.search(line))
                if output.name == "stderr" and not ANSI.sub("", output.text).strip():
                    output.text = ""
        cell.outputs = [out for out in cell.outputs if out.output_type != "stream" or out.text]


def run_page(course: Course, page: Path) -> Result:
    """Run every cell of one page in a fresh kernel, in the page's own folder."""
    notebook, docname = read_page(course, page), course.docname(page)
    started = time.perf_counter()
    try:
        result = single_nb_execution(
            notebook,
            cwd=str(page.parent),
            timeout=course.cell_timeout,
            allow_errors=False,
            extra_arguments=["--log-level=ERROR"],  # else each kernel says that it is not encrypted
        )
        error = "" if result.err is None else ANSI.sub("", str(result.err))
    except Exception:  # the kernel died or could not start: one page's failure, not the build's
        error = traceback.format_exc()
    tidy_outputs(notebook)
    return Result(docname, time.perf_counter() - started, notebook, error)


def fill_cache(course: Course, jobs: int = 2, keep: bool = False, wanted: list[Path] | None = None) -> list[str]:
    """Run the `wanted` pages (default: all) that have no stored result, `jobs` at a time; return those that failed."""
    cache = open_cache(course, keep)
    wanted = course.lessons if wanted is None else wanted
    pages = [p for p in wanted if cached_outputs(cache, read_page(course, p)) is None]
    total = len(wanted)
    if not pages:
        print(f"All {total} pages with code have been run before; their results are reused.")
        return []
    times = course.page_seconds
    expected = sum(times.get(course.docname(p), SECONDS_A_PAGE) for p in pages) / min(jobs, len(pages))
    print(f"Running {len(pages)} of {total} pages with code, {jobs} at a time (about {duration(expected)}):")

    data.load()  # once, here: what it says about a download belongs to no page
    for name, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    failed: list[str] = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_page, course, page) for page in pages]
        for done, future in enumerate(as_completed(futures), 1):
            result = future.result()
            mark = "FAILED" if result.error else ""
            print(f"  [{done:>2}/{len(pages)}] {result.docname:<48} {result.seconds:6.1f} s {mark}", flush=True)
            if result.error:
                failed.append(result.docname)
                print(indent(result.error))
                continue
            keep_result(course, cache, result)
    return failed


def keep_result(course: Course, cache: JupyterCacheAbstract, result: Result) -> None:
    """Put a page that ran to the end into the cache, and the time it took beside it; one process at a time."""
    uri = str(course.root / f"{result.docname}.md")
    bundle = CacheBundleIn(nbformat.from_dict(result.notebook), uri, data={"execution_seconds": result.seconds})
    with open(course.cache_folder / "LOCK", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        times = course.page_seconds | {result.docname: round(result.seconds, 1)}
        (course.build_folder / "page_seconds.json").write_text(json.dumps(times, indent=1, sort_keys=True) + "\n")


def indent(text: str) -> str:
    return "\n".join("      " + line for line in text.strip().splitlines())


def duration(seconds: float) -> str:
    """`95` -> `1 min 35 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
