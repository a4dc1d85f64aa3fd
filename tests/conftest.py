"""Settings that all tests share: one thread, no window system, and hypothesis without a clock."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))  # the factory of the book is not a package

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("LLMCOURSE_PROGRESS", os.devnull)  # what a test solves is not remembered

settings.register_profile("course", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("course"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "course")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After the lessons were tested: the table of them, also in `_build/reports/lessons.md`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    if any("test_lessons.py" in report.nodeid for report in reports):
        from course_config import Course
        from lesson_standard import write_table

        terminalreporter.section("lessons")
        terminalreporter.write_line(write_table(Course()))
