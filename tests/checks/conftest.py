"""What all tests of checkers share: a progress file of their own, and what a check printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmcourse.checks import check

Say = Callable[[], str]
Mistakes = Mapping[str, tuple[Any, str]]  # mistake -> (what is handed in, words of the diagnosis)


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Say:
    return lambda: capsys.readouterr().out


@pytest.fixture
def mistake_is_named(said: Say) -> Callable[[str, Mistakes, str], None]:
    """Asserts that `check(name, …)` tells this mistake in one line, with its own words and no other mistake's."""

    def look(name: str, table: Mistakes, mistake: str) -> None:
        learner, words = table[mistake]
        assert not check(name, learner), f"{mistake} was accepted"
        text = said()
        assert words in text
        assert text.startswith(f"{name}: not yet. ") and text.endswith(f'  hint("{name}") has a hint.\n')
        assert text.count("\n") == 1 and "tensor(" not in text and "raises" not in text
        assert not [w for _, w in table.values() if w != words and w in text], "another mistake's words are in it too"

    return look


@pytest.fixture
def mistakes_differ(said: Say) -> Callable[[str, Mistakes, int], None]:
    """Asserts that different mistakes get different sentences, `least` of them at least."""

    def look(name: str, table: Mistakes, least: int) -> None:
        by_words = {}
        for learner, words in table.values():
            check(name, learner)
            by_words[words] = said()
        assert len(set(by_words.values())) == len(by_words) >= least

    return look
