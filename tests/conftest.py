"""Settings that all tests share: one thread, no window system, no network, and hypothesis without a clock."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


# A test that asks for another machine fails, whatever it wants there: so all that is tested works offline.
AT_HOME = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", socket.gethostname()}
asked: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Python reports every look-up of a name and every connection here, whichever library makes it."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):  # an address, or the name of a local file
        host = arguments[1][0] if isinstance(arguments[1], tuple) else ""
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host or "")
    if host not in AT_HOME:
        asked.append(host)


sys.addaudithook(_note)


@pytest.fixture(autouse=True)
def _offline() -> Iterator[None]:
    asked.clear()
    yield
    assert asked == [], "this test asked for another machine"


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After the lessons and the site were tested: the tables of them, also in `_build/reports`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    if any("test_lessons.py" in report.nodeid for report in reports):
        from course_config import Course
        from lesson_standard import write_table

        terminalreporter.section("lessons")
        terminalreporter.write_line(write_table(Course()))
    site = ROOT / "_build" / "reports" / "site.md"
    if site.exists() and any("test_site.py" in report.nodeid for report in reports):
        terminalreporter.section("pages on a phone")
        terminalreporter.write_line(site.read_text("utf-8"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; a test that needs it is skipped where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page made of fragments of HTML; nothing may go wrong in it or be asked of the network."""
    problems: list[str] = []
    contexts = []

    def open_it(*fragments: str, theme: str = "light", head: str = "", **options: Any) -> Any:
        css = (ROOT / "book" / "_static" / "course.css").read_text("utf-8")
        paper = {"light": "#ffffff", "dark": "#121212"}[theme]
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><title>t</title>'
            f'<meta name="viewport" content="width=device-width"><style>{css} body{{margin:16px;background:{paper};'
            f"color:var(--course-ink)}}</style>{head}<body>{''.join(fragments)}</body></html>",
            encoding="utf-8",
        )
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
        page.on(
            "request", lambda r: None if r.url.startswith((ROOT.as_uri(), path.as_uri())) else problems.append(r.url)
        )
        page.goto(path.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []
