"""`make book`: run the pages, build the site, make sure that nothing is missing.

With `--edition student` or `instructor` the site goes to `_build/html-student` or `_build/html-instructor`.

Warnings are errors. The site is written from scratch as soon as anything has changed, because an incremental build
forgets the hover definitions of pages it does not touch; what the cells printed comes from the cache, so this is quick.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time

from archive import write_archive
from course_cache import duration, fill_cache, indent
from course_config import Course
from deck import DeckError, tour_pages, write_deck
from edition_text import EDITIONS
from editions import EditionFailed, find_leaks, make_edition

from notebooks import PageError, write_notebooks

SOURCES = ("_config.yml", "_toc.yml", "requirements.txt", "book", "llmcourse", "notebooks", "tests")  # tests promise
MINIMUM_TEXT = 200  # bytes of article below which a page counts as empty


def fingerprint(course: Course) -> str:
    """Of everything that the site is made from, with the times of the last runs, which change when a page runs."""
    found = [file for name in SOURCES for file in [course.root / name, *(course.root / name).rglob("*")]]
    found.append(course.build_folder / "page_seconds.json")
    total = hashlib.sha256()
    for file in sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts):
        total.update(f"{file.relative_to(course.root)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def build_site(course: Course, shown: Course | None = None) -> bool:
    """Run Jupyter Book over the executed pages; False if it warned about anything.

    Warnings about the copy that an edition is name the files of the course that is `shown`.
    """
    shown = shown or course
    for folder in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(course.root / "_build" / folder, ignore_errors=True)
    print(f"Building the site: {len(course.toc)} pages, warnings are errors ...", flush=True)
    # Not the `jupyter-book` script: this interpreter must be the one that builds.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."]
    command += ["--warningiserror", "--keep-going", "--nitpick", "--quiet"]
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=course.root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    log = done.stdout.replace(f"{course.book}/", f"{shown.book}/")
    (shown.build_folder / "build.log").write_text(log)
    if done.returncode:
        print(indent(log))
        print("The site has warnings (above, and in _build/build.log).")
    return done.returncode == 0


def missing_pages(course: Course) -> list[str]:
    """Pages of _toc.yml that the built site lacks or shows empty."""
    problems = []
    for docname in course.toc:
        page = course.site_folder / f"{docname}.html"
        if not page.exists():
            problems.append(f"{docname}: not in the site")
        elif len(page.read_text("utf-8").partition("<article")[2].partition("</article>")[0]) < MINIMUM_TEXT:
            problems.append(f"{docname}: empty in the site")
    return problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the pages and build the site.")
    parser.add_argument("--jobs", type=int, default=2, help="pages that run at the same time (default 2)")
    parser.add_argument("--keep-cache", action="store_true", help="reuse results although the package changed")
    parser.add_argument("--edition", choices=EDITIONS, default="learner", help="which edition (default: learner)")
    options = parser.parse_args(arguments)
    course, started = Course(), time.perf_counter()

    absent = [page for page in course.pages if not page.exists()]
    for page in absent:
        print(f"_toc.yml lists {page.relative_to(course.root)}, which does not exist.", file=sys.stderr)
    if absent:
        return 1
    if failed := fill_cache(course, options.jobs, options.keep_cache):
        print(f"\nThe book is not built: {len(failed)} page(s) failed: {', '.join(failed)}.", file=sys.stderr)
        return 1
    made_from = course.build_folder / "html.made_from"  # what the learner's site was made from
    if options.edition == "learner":
        sources = fingerprint(course)  # of now: files may change while it is built
        if made_from.exists() and made_from.read_text() == sources and not missing_pages(course):
            print(f"Nothing has changed since the site was built. Open {course.site_folder / 'index.html'}")
            return 0
        made_from.unlink(missing_ok=True)  # a build with problems leaves a site that is made from something else
    try:
        problems = build(course) if options.edition == "learner" else build_edition(course, options.edition)
    except (EditionFailed, PageError) as error:
        problems = [str(error)]
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    if options.edition == "learner":
        made_from.write_text(sources)
    site = course.site_of(options.edition) / "index.html"
    print(f"\nBuilt in {duration(time.perf_counter() - started)}. Open {site}")
    return 0


def build(course: Course, shown: Course | None = None) -> list[str]:
    """The site of a course whose pages have been run; returns the problems."""
    if not build_site(course, shown):
        return ["The book is not built."]
    try:
        if tour_pages(course):
            write_deck(course, course.site_folder / "slides.html")
    except DeckError as error:
        return [str(error)]
    if not (problems := missing_pages(course)):
        write_archive(course)
    return problems


def build_edition(course: Course, edition: str) -> list[str]:
    """The site of another edition, in a folder beside the learner's; returns the problems."""
    made = make_edition(course, edition)
    problems = write_notebooks(made, made.notebooks) or build(made, course)
    if edition == "student" and not problems:
        problems = find_leaks(course, made, [made.site_folder])
    if not problems:
        shutil.rmtree(course.site_of(edition), ignore_errors=True)
        made.site_folder.rename(course.site_of(edition))
    return problems


if __name__ == "__main__":
    sys.exit(main())
