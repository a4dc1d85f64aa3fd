"""The lesson standard, applied: all lessons against all rules, and the table of lessons.

    python book/_ext/lesson_standard.py                             all lessons, and the table
    python book/_ext/lesson_standard.py book/week2/day09_x.md ...   these only

The rules are in `lesson_rules.py`. The test suite applies the same ones (`tests/test_lessons.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from course_config import Course
from edition_text import EditionError
from lesson import Lesson
from lesson_rules import CHECKED, RULES, figures_of, questions, short_cells

from llmcourse.errors import CourseError

# Live budget on two idle cores. A slower or busier machine takes longer, so this is reported and fails nothing.
USUAL_SECONDS, MOST_SECONDS, MOST_LONG_LESSONS = 30, 60, 6



def pages(course: Course) -> list[Path]:
    """The lessons: the days and bonus days of the weeks, the pages of the tour, and the one-sitting page."""
    sitting = course.book / "start" / "one_sitting.md"
    found = (page for folder in ("week*", "tour") for page in course.book.glob(f"{folder}/*.md"))
    return [*([sitting] if sitting.exists() else []), *sorted(page for page in found if page.stem != "index")]


def over_budget(course: Course) -> list[str]:
    """Remarks on lessons that ran longer than the book's budget allows, the last time they were run."""
    times = {course.docname(page): course.page_seconds.get(course.docname(page), 0.0) for page in pages(course)}
    remarks = [f"{name} ran {t:.0f} s; the most is {MOST_SECONDS} s." for name, t in times.items() if t > MOST_SECONDS]
    long = [name for name, t in times.items() if t > USUAL_SECONDS]
    if len(long) > MOST_LONG_LESSONS:
        remarks.append(f"{len(long)} lessons ran over {USUAL_SECONDS} s; the most is {MOST_LONG_LESSONS}.")
    return remarks


def problems(course: Course, page: Path) -> list[str]:
    """Everything that a lesson lacks: "book/week2/day09_x.md:12: One sentence."."""
    name = page.relative_to(course.root)
    try:
        lesson = Lesson(course, page)
    except EditionError as error:
        return [f"{name}:{error.line + 1}: {error}"]
    found = sorted({problem for check in RULES for problem in check(lesson)})
    return [f"{name}:{problem.line}: {problem.text}" for problem in found]


def table(course: Course) -> str:
    """One line for each lesson, as Markdown."""
    names = ("lesson", "seconds", "cells", "short", "checked", "figures", "exercises", "questions")
    rows = []
    for page in pages(course):
        try:
            lesson = Lesson(course, page)
        except EditionError:
            continue
        try:
            asked = str(questions(lesson))
        except CourseError:
            asked = "–"
        seconds = course.page_seconds.get(lesson.docname)
        rows.append(
            (
                lesson.docname.removeprefix("book/"),
                "–" if seconds is None else f"{seconds:.1f}",
                str(len(lesson.cells)),
                str(short_cells(lesson)),
                str(sum(CHECKED in cell.tags for cell in lesson.cells)),
                str(sum(len(figures_of(cell.tree)) for cell in lesson.cells)),
                str(len(lesson.named("exercise", "exercise-start"))),
                asked,
            )
        )
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    aligned = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (names, *rows)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [f"| {' | '.join(row)} |" for row in [aligned[0], rule, *aligned[1:]]]
    remarks = over_budget(course)
    return "\n".join([*lines, "", *remarks] if remarks else lines)


def write_table(course: Course) -> str:
    """The table, also in `_build/reports/lessons.md`."""
    report = course.build_folder / "reports" / "lessons.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    text = table(course)
    report.write_text(f"# Lessons\n\n{text}\n", "utf-8")
    return text


def main(arguments: list[str]) -> int:
    course = Course()
    chosen = [Path(argument).resolve() for argument in arguments] or pages(course)
    if missing := [str(page) for page in chosen if not page.is_file()]:
        print(f"There is no page {', '.join(missing)}.")
        return 2
    found = [problem for page in chosen for problem in problems(course, page)]
    lessons = "1 lesson is" if len(chosen) == 1 else f"{len(chosen)} lessons are"
    print("\n".join(found) or f"{lessons} as the standard wants.")
    if not arguments:
        print(write_table(course))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
