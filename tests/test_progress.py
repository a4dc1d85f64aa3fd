"""Progress: one small file that is never lost and never in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmcourse import progress
from llmcourse.checks import names
from llmcourse.errors import CourseError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "deep" / "own.json"))
    return tmp_path / "deep" / "own.json"


def test_nothing_is_done_and_nothing_is_written_at_first(file: Path) -> None:
    assert progress.done() == {}
    assert not file.parent.exists()


def test_what_is_recorded_is_read_back(file: Path) -> None:
    progress.record("day09")
    progress.record("day25b")
    assert sorted(progress.done()) == ["day09", "day25b"]
    assert json.loads(file.read_text())["passed"] == progress.done()
    assert [p.name for p in file.parent.iterdir()] == ["own.json"], "something half-written is left"


def test_the_date_is_that_of_the_first_solution(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(json.dumps({"passed": {"day09": "2020-01-01T00:00:00+00:00"}}))
    progress.record("day09")
    assert progress.done() == {"day09": "2020-01-01T00:00:00+00:00"}


def test_entries_of_a_newer_version_are_kept(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(json.dumps({"passed": {}, "later": [1, 2]}))
    progress.record("day09")
    assert json.loads(file.read_text())["later"] == [1, 2]


DAMAGED = [b"{", b"\xff\xfe", b"[]", b"null", b'{"passed": 3}', b'{"passed": {"day09": 1}}', b"{}", b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda b: repr(b[:20]))
@pytest.mark.promise(
    "Faults",
    "A damaged progress file is set aside under another name, never overwritten, and a sentence says so.",
)
def test_a_damaged_file_is_set_aside_with_a_sentence(
    file: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir()
    for number in (1, 2):
        file.write_bytes(content)
        progress.record("day09")
        aside = file.with_name(f"own.json.damaged{number}")
        assert aside.read_bytes() == content
        assert f"is now {aside}" in capsys.readouterr().out
        assert list(progress.done()) == ["day09"]


def test_a_damaged_file_that_cannot_be_moved_is_not_overwritten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.mkdir()
    file.write_bytes(b"{")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CourseError, match="is damaged: move it away"):
        progress.record("day09")
    assert file.read_bytes() == b"{"


def test_an_empty_file_is_a_beginning(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"")
    progress.record("day09")
    assert list(progress.done()) == ["day09"]


def test_a_file_that_cannot_be_read_is_a_course_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.mkdir()
    file.write_text("{}")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for ask in (progress.done, lambda: progress.record("day09")):
        with pytest.raises(CourseError, match=r"Cannot read your progress .*Permission denied"):
            ask()


def test_the_file_lies_where_it_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("LLMCOURSE_PROGRESS", "")
    assert progress.place() == tmp_path / ".local/share/llmcourse/progress.json"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert progress.place() == tmp_path / "data/llmcourse/progress.json"
    monkeypatch.setenv("LLMCOURSE_PROGRESS", "~/mine.json")
    assert progress.place() == tmp_path / "mine.json"
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path))
    assert progress.place() == tmp_path / "progress.json"


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    file.symlink_to(tmp_path / "real.json")
    progress.record("day09")
    assert file.is_symlink() and "day09" in (tmp_path / "real.json").read_text()


@pytest.mark.skipif(not Path(os.devnull).exists(), reason="this system has no /dev/null")
def test_dev_null_remembers_nothing_and_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCOURSE_PROGRESS", os.devnull)
    progress.record("day09")
    assert progress.done() == {}
    assert Path(os.devnull).is_char_device()


def test_the_table_has_six_weeks_of_seven_days(file: Path) -> None:
    progress.record("day09")
    progress.record("day25")
    progress.record("setup")
    lines = progress.table().splitlines()
    assert [line.split()[:2] for line in lines[:6]] == [["week", str(w)] for w in range(1, 7)]
    days = [word for line in lines[:6] for word in line.split()[2:] if word not in ("x", ".") and "/" not in word]
    assert days == [str(day) for day in range(1, 43)]
    asked = [n for n in names() if n.startswith("day25")]
    assert " 9 x" in lines[1] and f"25 1/{len(asked)}" in lines[3]
    assert "setup x" in lines[6]
    assert lines[-1] == f"3 of {len({*names(), 'setup'})} exercises solved ({file})"
    for name in asked:
        progress.record(name)
    assert "25 x" in progress.table()
