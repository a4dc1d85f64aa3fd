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
