"""Checker of day 30, a session that survives: the plug is pulled, the local disk wiped, the newest file torn.

The learner's session trains a `ToyRun`. Here it is a watched one: it notes from which state it goes on, and it can
raise `Unplugged` in a step; `Disk` does the same in the middle of a write. Nothing is judged by how it is written,
only by what the next session finds.
"""

import contextlib
import copy
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Wrong, exercise, first_line, load_optimizers

load_optimizers()
Session = Callable[..., Any]


class ToyRun:
    """A training run of a few milliseconds: 15 parameters, AdamW, and a generator that draws the batches."""

    def __init__(self) -> None:
        start = torch.Generator().manual_seed(30)
        self.model = torch.nn.Linear(4, 3)
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=start))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.03)
        self.batches = torch.Generator().manual_seed(1)
        self.step = 0

    def train_step(self) -> None:
        """Draw a batch, train on it, and add 1 to `step`."""
        x = torch.randn(8, 4, generator=self.batches)
        loss = F.mse_loss(self.model(x), x[:, 1:])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1


def session(run: ToyRun, local: Path, drive: Path, total: int, every: int) -> None:
    """Train `run` to `total` steps, from and to checkpoints in `drive`."""
    for path in sorted(drive.glob("step*.pt"), reverse=True):
        try:
            state = torch.load(path, weights_only=True)
        except Exception:  # torn: try the one before
            continue
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.batches.set_state(state["batches"])
        run.step = state["step"]
        break
    while run.step < total:
        run.train_step()
        if run.step % every == 0 or run.step == total:
            part = drive / "unfinished.part"
            content = {
                "model": run.model.state_dict(),
                "optimizer": run.optimizer.state_dict(),
                "batches": run.batches.get_state(),
                "step": run.step,
            }
            torch.save(content, part)
            part.replace(drive / f"step{run.step:06}.pt")  # one move: there whole, or not at all
            for old in sorted(drive.glob("step*.pt"))[:-2]:
                old.unlink()


# ---- What happens to a session ---------------------------------------------------------------------------------


class Unplugged(BaseException):
    """The machine is gone. No `except Exception` of the learner's notices it."""


State = dict[str, Any]


def state_of(run: ToyRun) -> State:
    moments = run.optimizer.state_dict()["state"]
    return copy.deepcopy(
        {
            "step": run.step,
            "model": list(run.model.state_dict().values()),
            "optimizer": [v for s in moments.values() for v in s.values() if isinstance(v, Tensor)],
            "batches": [run.batches.get_state()],
        }
    )


def same(a: State, b: State, part: str) -> bool:
    return len(a[part]) == len(b[part]) and all(torch.equal(x, y) for x, y in zip(a[part], b[part], strict=True))


class WatchedRun(ToyRun):
    """A ToyRun that notes where it starts, and whose machine goes after `steps` steps."""

    def __init__(self, steps: int | None, pause: float) -> None:
        super().__init__()
        self.steps, self.pause, self.trained, self.gone = steps, pause, 0, False
        self.start: State | None = None

    def train_step(self) -> None:
        if self.start is None:
            self.start = state_of(self)
        if self.gone or self.trained == self.steps:
            self.gone = True
            raise Unplugged
        super().train_step()
        self.trained += 1
        time.sleep(self.pause)


class Played:
    """What became of one session."""

    def __init__(self, run: WatchedRun) -> None:
        self.run, self.late, self.local_files = run, False, 0
        self.error: Exception | None = None

    @property
    def began_at(self) -> int:
        return self.run.start["step"] if self.run.start else self.run.step


@contextlib.contextmanager
def disk(played: Played, cut_at: int | None) -> Iterator[None]:
    """Writes of torch.save, shutil's copies and Path.write_bytes: the `cut_at`-th stops halfway."""
    real_save, count = torch.save, 0

    def write(content: bytes, target: Any) -> None:
        nonlocal count
        count += 1
        if played.run.gone:
            played.late = True
            raise Unplugged
        if count == cut_at:
            content, played.run.gone = content[: len(content) // 2], True
        if hasattr(target, "write"):
            target.write(content)
        else:
            with open(target, "wb") as file:
                file.write(content)
        if played.run.gone:
            raise Unplugged

    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        buffer = io.BytesIO()
        real_save(obj, buffer, *args, **kwargs)
        write(buffer.getvalue(), f)

    def copyfile(src: Any, dst: Any, **kwargs: Any) -> Any:
        write(Path(src).read_bytes(), dst)
        return dst

    def write_bytes(path: Path, content: bytes) -> int:
        write(bytes(content), path)
        return len(content)

    with (
        mock.patch.object(torch, "save", save),
        mock.patch.object(shutil, "copyfile", copyfile),
        mock.patch.object(Path, "write_bytes", write_bytes),
    ):
        yield


def play(
    learner: Session,
    drive: Path,
    total: int,
    *,
    steps: int | None = None,
    cut_at: int | None = None,
    pause: float = 0.0,
) -> Played:
    """One session with a fresh run and an empty local disk, which is wiped afterwards."""
    played = Played(WatchedRun(steps, pause))
    with tempfile.TemporaryDirectory() as local, disk(played, cut_at):
        try:
            learner(played.run, Path(local), drive, total, 10)
        except Unplugged:
            pass
        except (Wrong, NotImplementedError):
            raise
        except Exception as e:
            if not (list(drive.iterdir()) or list(Path(local).iterdir())):
                raise  # nothing has been saved yet: a plain error of the code
            played.error = e
        played.local_files = len(list(Path(local).rglob("*")))
    if played.late:
        raise Wrong(
            "It saves while it is being stopped, in a finally or except block. A machine that is taken away runs no "
            "more lines: save during the run, every `every` steps."
        )
    return played


def files(drive: Path) -> list[Path]:
    return [path for path in drive.rglob("*") if path.is_file()]


# ---- The checks ------------------------------------------------------------------------------------------------


@exercise(
    "day30",
    title="A session that survives",
    signature="session(run, local, drive, total, every)",
    hints=[
        "Two halves. First look for a checkpoint in `drive` and put all of it into `run`: model, optimizer, batches, "
        "step. Then loop while run.step < total: train_step, and every `every` steps and at the end, save.",
        "Write to a name such as drive / 'unfinished.part', then os.replace it to its final name: a cut-off save then "
        "leaves the older files alone. Names with the step in them, f'step{run.step:06}.pt', keep several apart.",
        "When loading, go through the files from the newest to the oldest, with try and except Exception around "
        "torch.load, and stop at the first that loads. When saving, delete all but the newest two.",
    ],
    solution=session,
    right="Pulled plugs, a wiped disk, cut-off saves and a torn file: it always comes out like the undisturbed run.",
)
def check_session(learner: Session) -> None:
    reference = [state_of(run := ToyRun())]
    for _ in range(110):
        run.train_step()
        reference.append(state_of(run))
    for judge in (whole_run, taken_away, past_a_hundred, cut_while_saving, torn_on_the_drive):
        with tempfile.TemporaryDirectory() as drive:
            judge(learner, Path(drive), reference)


def whole_run(learner: Session, drive: Path, reference: list[State]) -> None:
    """25 steps without trouble, then the same session opened again."""
    first = play(learner, drive, 25)
    if first.error:
        raise first.error
    run = first.run
    if run.trained == 0:
        raise Wrong("In an empty folder it trains nothing: with no checkpoint to be found, a run begins at step 0.")
    if run.trained < 25 <= run.step:
        raise Wrong(
            f"It counts steps twice: after {run.trained} calls of train_step, run.step is {run.step}. train_step adds "
            "1 by itself."
        )
    if run.trained != 25 or run.step != 25:
        raise Wrong(f"With total=25 and every=10 it trained {run.trained} steps, and run.step is {run.step}.")
    if not files(drive):
        if first.local_files:
            raise Wrong("It saves to `local` only, and that is wiped: what shall survive has to get into `drive`.")
        raise Wrong("After the run there is no file in `drive`: it never saves.")
    if len(files(drive)) > 3 or (len(files(drive)) > 2 and not shrinks(learner)):
        raise Wrong("It keeps every checkpoint, and the Drive fills up: delete the old ones, two are enough.")
    again = play(learner, drive, 25)
    if again.error:
        raise Wrong(f"A second session on the same `drive` stops with {first_line(again.error)}.")
    if again.run.step > 25:
        raise Wrong(
            "Opened again after the end, it trains on beyond `total`: total is the step where the run ends, not the "
            "number of steps to add."
        )
    if again.run.trained == 25:
        diagnose_restart(again, reference)
    if again.run.trained:
        raise Wrong(
            f"The end is not saved, or an older file is loaded first: after a whole run of 25 steps with every=10, "
            f"the next session goes on from step {again.began_at}. Save at run.step == total "
            "too, and look for the newest first."
        )


def shrinks(learner: Session) -> bool:
    """Whether a longer run, too, leaves no more than three files."""
    with tempfile.TemporaryDirectory() as drive:
        play(learner, Path(drive), 50)
        return len(files(Path(drive))) <= 3


def diagnose_restart(again: Played, reference: list[State]) -> None:
    """Why a session began at step 0 although there was a checkpoint."""
    assert again.run.start
    if not same(again.run.start, reference[0], "model"):
        raise Wrong(
            "The weights come back, but run.step does not: it begins to count at 0 again and trains all the steps "
            "once more. Save the step and set run.step."
        )
    raise Wrong("It starts from 0 although there is a checkpoint in `drive`: before training, look there and load it.")


def taken_away(learner: Session, drive: Path, reference: list[State]) -> None:
    """The plug is pulled between steps, again and again; the local disk is wiped each time."""
    reached = 0
    for steps in (17, 3, 14, None):
        played = play(learner, drive, 40, steps=steps, pause=0.001)  # so that times of files differ
        if played.error:
            raise Wrong(f"When the machine was taken away at step {reached}, the next session stops with "
                        f"{first_line(played.error)}.")  # fmt: skip
        began = played.began_at
        if reached and began == 0:
            if not files(drive):
                raise Wrong(
                    f"It saves only at the end: taken away at step {reached} of 40, it had put nothing into `drive`. "
                    "Save inside the loop."
                )
            diagnose_restart(played, reference)
        if reached - began > 10:
            raise Wrong(
                f"It saves too rarely: taken away at step {reached}, it goes on from step {began}, and with every=10 "
                "at most 10 steps may be lost."
            )
        if began > reached:
            raise Wrong(f"Taken away at step {reached}, it goes on from step {began}: steps are left out.")
        compare(played.run.start, reference[began], began)
        reached = began + played.run.trained
        if not files(drive) and played.local_files and reached > 10:
            raise Wrong(
                "It brings its files to `drive` only when the run is over; until then they lie in `local`, which is "
                "wiped with the machine."
            )
    if played.run.step != 40 or not same(state_of(played.run), reference[40], "model"):
        raise Wrong("The resumed run does not end with the weights of the undisturbed one.")


def past_a_hundred(learner: Session, drive: Path, reference: list[State]) -> None:
    """Names such as step90 and step100, which the alphabet puts in the wrong order."""
    play(learner, drive, 110, steps=105, pause=0.0005)
    began = play(learner, drive, 110).began_at
    if began < 95:
        raise Wrong(
            f"Taken away at step 105, it goes on from step {began}. Up to step 99 it found the newest file; in the "
            "alphabet step90 comes after step100. Pad the number with zeros, or sort by the number."
        )


def compare(start: State | None, wanted: State, step: int) -> None:
    if start is None or step == 0:
        return
    if not same(start, wanted, "model"):
        raise Wrong(f"It goes on from step {step}, but with other weights than the run had there: load the model.")
    if not same(start, wanted, "optimizer"):
        raise Wrong(
            f"It goes on from step {step} with a fresh optimizer: AdamW's averages belong into the checkpoint "
            "(run.optimizer.state_dict())."
        )
    if not same(start, wanted, "batches"):
        raise Wrong(
            f"It goes on from step {step} with other random numbers, so it sees other batches: save "
            "run.batches.get_state() and give it back with set_state."
        )


def cut_while_saving(learner: Session, drive: Path, reference: list[State]) -> None:
    """The plug is pulled in the middle of a write, twice in a row."""
    for n in range(1, 7):
        with tempfile.TemporaryDirectory() as folder:
            place, reached = Path(folder), 0
            for cut_at in (n, 1, 2, None):
                played = play(learner, place, 40, cut_at=cut_at, pause=0.0005)
                lost = 60 if played.error else reached - played.began_at
                if lost > 10:
                    then = f"stops with {first_line(played.error)}" if played.error else f"starts at {played.began_at}"
                    raise Wrong(
                        f"A save that was cut off halfway, near step {reached}, spoiled a good file: the next session "
                        f"{then}. Write under another name, and os.replace it when it is whole."
                    )
                compare(played.run.start, reference[played.began_at], played.began_at)
                reached = played.began_at + played.run.trained


def torn_on_the_drive(learner: Session, drive: Path, reference: list[State]) -> None:
    """The newest file on the Drive has arrived only in part."""
    play(learner, drive, 60, steps=45, pause=0.002)  # pauses: so that times of files differ
    kept = files(drive)
    newest = max(kept, key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    played = play(learner, drive, 60)
    if played.error or 45 - played.began_at > 20:
        if len(kept) == 1:
            raise Wrong(
                "It keeps only one file. The Drive lost half of it on the way, and nothing else was left: keep the "
                "checkpoint before the newest, too."
            )
        if played.error:
            raise Wrong(
                f"The newest file on the Drive is torn, and the session stops with {first_line(played.error)}: catch "
                "it and load the file before it."
            )
        raise Wrong(
            f"The newest file on the Drive is torn, and it starts at {played.began_at} although an older one is whole: "
            "go through the files from the newest to the oldest."
        )
    compare(played.run.start, reference[played.began_at], played.began_at)
