"""Day 30: the resumable session. Right answers in several styles, and typical mistakes with their own words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmcourse.checks import check
from llmcourse.checks.day30 import ToyRun, session
from llmcourse.files import atomic_file

Session = Callable[..., Any]


def state(run: Any, without: str = "") -> dict[str, Any]:
    parts = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "batches": run.batches.get_state(),
        "step": run.step,
    }
    return {name: part for name, part in parts.items() if name != without}


def put_back(run: Any, s: dict[str, Any]) -> None:
    if "model" in s:
        run.model.load_state_dict(s["model"])
    if "optimizer" in s:
        run.optimizer.load_state_dict(s["optimizer"])
    if "batches" in s:
        run.batches.set_state(s["batches"])
    run.step = s.get("step", run.step)


def whole(path: Path) -> dict[str, Any] | None:
    try:
        return torch.load(path, weights_only=True)
    except Exception:
        return None


def rotating(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    """last.pt and previous.pt; saved locally first, copied beside, renamed; a torn last.pt is never kept."""
    for name in ("last.pt", "previous.pt"):
        if s := whole(drive / name):
            put_back(run, s)
            break
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            torch.save(state(run), local / "now.pt")
            shutil.copy(local / "now.pt", drive / "part")
            if whole(drive / "last.pt"):
                os.replace(drive / "last.pt", drive / "previous.pt")
            os.replace(drive / "part", drive / "last.pt")


def with_the_package(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    """The package's atomic_file, two places in turn, saved at every step."""
    found = [s for name in ("a.pt", "b.pt") if (s := whole(drive / name))]
    if found:
        put_back(run, max(found, key=lambda s: s["step"]))
    for _ in range(run.step, total):
        run.train_step()
        with atomic_file(drive / ("a.pt" if run.step % 2 else "b.pt")) as file:
            torch.save(state(run), file)


def newest_by_time(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    """The order of the files' times instead of their names."""

    def in_order() -> list[Path]:
        return sorted(drive.glob("at*.pt"), key=lambda path: path.stat().st_mtime_ns)

    for path in reversed(in_order()):
        if s := whole(path):
            put_back(run, s)
            break
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            torch.save(state(run), drive / "part")
            os.replace(drive / "part", drive / f"at{run.step}.pt")
            for old in in_order()[:-2]:
                old.unlink()


def more_often(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    return session(run, local, drive, total, max(1, every // 2))


def names_of_their_own(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    """No part file: every checkpoint has its own name, torn ones are skipped, and nothing good is overwritten."""
    for path in sorted(drive.glob("step*.pt"), reverse=True):
        if s := whole(path):
            put_back(run, s)
            break
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            torch.save(state(run), drive / f"step{run.step:06}.pt")
            for old in sorted(drive.glob("step*.pt"))[:-2]:
                old.unlink()


RIGHT = [session, rotating, with_the_package, more_often, names_of_their_own, newest_by_time]


@pytest.mark.parametrize("learner", RIGHT)
def test_right_sessions_pass(learner: Session, said: Callable[[], str]) -> None:
    assert check("day30", learner), said()
    assert "always comes out" in said()


def test_the_toy_run_is_the_same_every_time() -> None:
    a, b = ToyRun(), ToyRun()
    for _ in range(5):
        a.train_step()
        b.train_step()
    assert a.step == b.step == 5
    assert torch.equal(a.model.weight, b.model.weight)


# ---- mistakes ----------------------------------------------------------------------------------------------


def variant(
    *,
    without: str = "",
    save: Callable[..., None] | None = None,
    look: bool = True,
    when: Callable[[Any, int, int], bool] = lambda run, total, every: run.step % every == 0 or run.step == total,
    keep: int = 2,
    catch: bool = True,
) -> Session:
    """The reference session with one thing changed."""

    def learner(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
        for path in sorted(drive.glob("step*.pt"), reverse=True) if look else ():
            s = whole(path) if catch else torch.load(path, weights_only=True)
            if s is None:
                continue
            put_back(run, s)
            break
        while run.step < total:
            run.train_step()
            if when(run, total, every):
                name = f"step{run.step:06}.pt"
                if save:
                    save(state(run, without), local, drive, name)
                else:
                    torch.save(state(run, without), drive / "part")
                    os.replace(drive / "part", drive / name)
                for old in sorted(drive.glob("step*.pt"))[:-keep]:
                    old.unlink()

    return learner


def one_file(run: Any, local: Path, drive: Path, total: int, every: int, in_place: bool = True) -> None:
    last = drive / "last.pt"
    if last.exists():
        put_back(run, torch.load(last, weights_only=True))
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            torch.save(state(run), last if in_place else drive / "part")
            if not in_place:
                os.replace(drive / "part", last)


def one_atomic_file(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    one_file(run, local, drive, total, every, in_place=False)


def rotating_in_place(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    for name in ("last.pt", "previous.pt"):
        if s := whole(drive / name):
            put_back(run, s)
            break
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            if (drive / "last.pt").exists():
                os.replace(drive / "last.pt", drive / "previous.pt")
            torch.save(state(run), drive / "last.pt")


def saves_in_finally(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    if s := whole(drive / "last.pt"):
        put_back(run, s)
    try:
        while run.step < total:
            run.train_step()
    finally:
        torch.save(state(run), drive / "last.pt")


def counts_twice(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    while run.step < total:
        run.train_step()
        run.step += 1


def adds_steps(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    if s := whole(drive / "last.pt"):
        put_back(run, s)
    for _ in range(total):
        run.train_step()
    torch.save(state(run), drive / "last.pt")


def whole_blocks(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    while run.step < total:
        for _ in range(every):
            run.train_step()


def never_saves(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    while run.step < total:
        run.train_step()


def never_trains(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    if s := whole(drive / "last.pt"):
        put_back(run, s)


def local_only(content: Any, local: Path, drive: Path, name: str) -> None:
    torch.save(content, local / name)


def unpadded(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    for path in sorted(drive.glob("step*.pt"), reverse=True):
        if s := whole(path):
            put_back(run, s)
            break
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            torch.save(state(run), drive / "part")
            os.replace(drive / "part", drive / f"step{run.step}.pt")
            for old in sorted(drive.glob("step*.pt"))[:-2]:
                old.unlink()


def copied_at_the_end(run: Any, local: Path, drive: Path, total: int, every: int) -> None:
    if s := whole(drive / "last.pt"):
        put_back(run, s)
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            torch.save(state(run), local / "last.pt")
    if (local / "last.pt").exists():
        shutil.copy(local / "last.pt", drive / "last.pt")


WRONG: dict[str, tuple[Session, str]] = {
    "no optimizer": (variant(without="optimizer"), "with a fresh optimizer"),
    "no random numbers": (variant(without="batches"), "with other random numbers"),
    "no weights": (variant(without="model"), "with other weights"),
    "no step": (variant(without="step"), "The weights come back, but run.step does not"),
    "starts from 0": (variant(look=False), "It starts from 0 although"),
    "only at the end": (variant(when=lambda run, total, every: run.step == total), "It saves only at the end"),
    "not at the end": (variant(when=lambda run, total, every: run.step % every == 0), "The end is not saved"),
    "too rarely": (
        variant(when=lambda run, total, every: run.step % 15 == 0 or run.step == total),
        "It saves too rarely",
    ),
    "keeps everything": (variant(keep=100), "It keeps every checkpoint"),
    "one atomic file": (one_atomic_file, "It keeps only one file"),
    "one file in place": (one_file, "spoiled a good file"),
    "rotating in place": (rotating_in_place, "spoiled a good file"),
    "does not catch": (variant(catch=False), "torn, and the session stops with"),
    "local only": (variant(save=local_only), "It saves to `local` only"),
    "copied at the end": (copied_at_the_end, "only when the run is over"),
    "not padded": (unpadded, "comes after step100"),
    "in finally": (saves_in_finally, "while it is being stopped"),
    "counts twice": (counts_twice, "It counts steps twice"),
    "adds steps": (adds_steps, "not the number of steps to add"),
    "whole blocks": (whole_blocks, "it trained 30 steps"),
    "never saves": (never_saves, "it never saves"),
    "never trains": (never_trains, "it trains nothing"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_session_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day30", WRONG, mistake)


def test_session_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    table = {name: entry for name, entry in WRONG.items() if name != "rotating in place"}
    mistakes_differ("day30", table, least=18)
