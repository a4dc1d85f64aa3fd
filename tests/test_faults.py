"""What goes wrong around a program: it is killed, the disk is full, the folder cannot be written, the clock goes back.

Run as a program this file does what no test may do to itself: it kills its children for real (`kill`), and it works as
a user without rights (`read_only`).
"""

import errno
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_trainer import die, make_model, make_trainer, read_log, untimed

from llmcourse import checkpoint, data, figure, progress, recipes, runs, sweeps, trainer
from llmcourse.errors import CourseError
from llmcourse.recipes import Recipe
from llmcourse.sweeps import Plan
from llmcourse.tokenizer import BPETokenizer
from llmcourse.trainer import Trainer

resource = pytest.importorskip("resource", reason="forks, kills and limits as Unix does")
torch.set_num_threads(1)
KILLS = int(os.environ.get("COURSE_KILLS", "12"))
TEXT = "ROMEO:\nO, she doth teach the torches to burn bright!\n" * 30


def attack(*arguments: object) -> dict:
    """What this file prints when it is run as a program: one line of JSON."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": "1"}, check=False)
    assert done.returncode == 0, (command[2:], done.stderr)
    return json.loads(done.stdout)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


# ---- killed, for real ---------------------------------------------------------------------------------------------

TRAINING = {"dropout": 0.2, "max_steps": 80, "eval_interval": 10, "checkpoint_interval": 7}


def train(folder: Path, optimizer: str) -> None:
    make_trainer(folder, optimizer=optimizer, resume=True, **TRAINING).run()


def record_run(folder: Path) -> None:
    if not (folder / "tiny.json").exists():  # as `llmcourse record --all` does
        runs.record("tiny", out_dir=folder / "out", folder=folder, device="cpu")


def record_sweep(folder: Path) -> None:
    sweeps.record("widths", folder=folder, device="cpu")


JOBS: dict[str, Callable[[Path], None]] = {
    "adamw": lambda folder: train(folder, "adamw"),
    "muon": lambda folder: train(folder, "muon"),
    "record": record_run,
    "sweep": record_sweep,
}


def small_recipes(corpus: Path, **changes: int) -> None:
    """One recipe and one sweep that take a moment."""
    corpus.write_text(TEXT)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "dropout": 0.1}
    settings = {"max_steps": 40, "warmup_steps": 2, "batch_size": 4, "eval_interval": 8, "log_interval": 3} | changes
    recipes.RECIPES["tiny"] = Recipe("For tests.", shape, settings, str(corpus), ship_weights=True, sample_length=20)
    sweeps.SWEEPS["widths"] = Plan("For tests.", "tiny", {"as it is": {}, "wider": {"n_embd": 32}}, seeds=(1, 2))


def die_at(moment: int) -> None:
    """SIGKILL at this moment: before or after some rename, flush, removal or line of the log."""
    left = itertools.count(moment, -1)

    def guarded(function):
        def wrapper(*args, **options):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **options)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    os.replace, os.fsync = guarded(os.replace), guarded(os.fsync)
    Path.unlink, Trainer.write = guarded(Path.unlink), guarded(Trainer.write)


def in_children(job: Callable[[], None], kills: int, draw: random.Random) -> int:
    """Do `job` in child processes, killing up to `kills` of them, until one finishes; the number of those killed."""
    killed = 0
    while True:
        by_moment, moment, seconds = draw.random() < 0.5, draw.randrange(40), draw.uniform(0.01, 0.25)
        if not (pid := os.fork()):
            if killed < kills and by_moment:
                die_at(moment)
            job()
            os._exit(0)
        if killed < kills and not by_moment:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return killed
        killed += 1


def load_everything(folder: Path) -> None:
    """What a first step and a first checkpoint import takes seconds: once here, and not in every child."""
    t = make_trainer(optimizer="muon")
    for p in t.model.parameters():  # no backward pass: its threads would not survive a fork
        p.grad = torch.zeros_like(p)
    for optimizer in t.optimizers:
        optimizer.step()
    checkpoint.save(folder / "warm.pt", t.model)
    checkpoint.load(folder / "warm.pt")


def kill(folder: str, kills: str, seed: str) -> None:
    """Every job undisturbed, then again and again with kills, until there were enough."""
    place, draw, killed = Path(folder), random.Random(int(seed)), 0
    small_recipes(place / "corpus.txt")
    load_everything(place)
    for attempt in itertools.count():
        for name, job in JOBS.items():
            home = place / str(attempt) / name
            home.mkdir(parents=True)
            killed += in_children(lambda job=job, home=home: job(home), 4 if attempt else 0, draw)
        if killed >= int(kills):
            break
    print(json.dumps({"killed": killed, "attempts": attempt}))


def outcome(folder: Path) -> dict:
    """All that a job leaves, but for the time it took and what is made of times."""
    found = files(folder)
    result: dict = {name: content for name, content in found.items() if name in ("best.pt", "tiny.pt")}
    if folder.name in ("adamw", "muon"):  # elsewhere a killed program may leave a hidden, half-written file
        result["names"] = sorted(found)
    if "last.pt" in found:
        last = checkpoint.load(folder / "last.pt")
        assert read_log(folder) == last.training["log"]
        result["log"] = untimed(last.training["log"])
        state = last.model.state_dict(), last.training["optimizers"], last.training["batches"]
        result["state"] = [t.tolist() for t in torch.utils._pytree.tree_leaves(state) if isinstance(t, torch.Tensor)]
    if "tiny.json" in found:
        result["log"] = untimed(runs.load("tiny", folder).log)
    if "widths.json" in found:
        found_there = sweeps.load("widths", folder).results
        result["losses"] = [(r.variant, r.seed, r.tuned_loss, r.untouched_loss, r.val_loss) for r in found_there]
    return result


@pytest.mark.promise(
    "Faults",
    "Training, a recorded run and a sweep that are killed with SIGKILL at random moments, also while they write a "
    "file, go on and end with the log, the models and the losses of an undisturbed run, bit for bit.",
)
def test_what_is_killed_at_random_ends_as_if_nothing_had_happened(tmp_path):
    seed = random.randrange(10**6)  # another one each time; it stands in the message when the test fails
    done = attack("kill", tmp_path, KILLS, seed)
    assert done["killed"] >= KILLS
    for name in JOBS:
        whole = outcome(tmp_path / "0" / name)
        assert whole
        for attempt in range(1, done["attempts"] + 1):
            killed = outcome(tmp_path / str(attempt) / name)
            assert killed == whole, (name, attempt, seed)


# ---- a full disk --------------------------------------------------------------------------------------------------


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """For real: the system lets no file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def solve(path: Path) -> None:
    os.environ["LLMCOURSE_PROGRESS"] = str(path)
    progress.record(f"day{random.randrange(10**6)}")


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "tokens": ("ids.bin", lambda path: data.write_tokens(path, iter([[1] * 9] * 9))),
    "tokenizer": ("bpe.json", lambda path: BPETokenizer.train("to be or not to be " * 9, 262).save(path)),
    "checkpoint": ("model.pt", lambda path: checkpoint.save(path, make_model())),
    "progress": ("progress.json", solve),
    "figure": ("loss.svg", lambda path: figure.PageFigure("<svg></svg>", "").save(path)),
}


def refusal(act: Callable[[], object]) -> str:
    """The one sentence with which `act` is refused."""
    with pytest.raises(CourseError) as caught:
        act()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.promise(
    "Faults",
    "When the disk is full, whatever the package writes (checkpoints, token files, tokenizers, figures, progress) "
    "is refused in one sentence that names the file; the old file stays as it was, and no scrap is left beside it.",
)
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("LLMCOURSE_PROGRESS", os.devnull)  # put back at the end
    name, write = WRITERS[kind]
    before: dict[str, bytes] = {}  # at first there is nothing, and not even an empty file may come of it
    for _ in range(2):
        for size in (0, 20):
            with disk_of(size):
                sentence = refusal(lambda: write(tmp_path / name))
            assert sentence.startswith(f"Cannot write {tmp_path / name} (File too large): free some space")
            assert files(tmp_path) == before
        write(tmp_path / name)
        before = files(tmp_path)


def test_a_cache_on_a_full_disk_is_done_without(tmp_path, monkeypatch):
    body = TEXT.encode()
    source = (tmp_path / "source.txt").as_uri()
    (tmp_path / "source.txt").write_bytes(body)
    made = data.Corpus("test", "test.txt", len(body), data.hashlib.sha256(body).hexdigest(), "own", (source,), "")
    monkeypatch.setitem(data.CORPORA, "test", made)
    monkeypatch.delenv("LLMCOURSE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with disk_of(100):
        assert "Cannot write" in refusal(lambda: data.load("test"))  # no place anywhere
    real = open

    def full(path, mode="r", **options):
        if "xdg" in str(path) and str(path).endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, **options)

    monkeypatch.setattr(data, "open", full, raising=False)
    assert data.load("test") == TEXT  # a folder of its own for this once


def failing(function: Callable, left: Iterator[int]) -> Callable:
    """`function`, until the counter reaches 0: from then on the disk is full."""

    def wrapper(*args, **options):
        if next(left) <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*args, **options)

    return wrapper


@pytest.mark.promise(
    "Faults",
    "Training on a disk that fills up at any write, of the log or of a checkpoint, ends with one sentence, and once "
    "there is space again, it goes on to the same result.",
)
def test_a_disk_that_fills_up_at_any_write_of_a_run_costs_nothing(tmp_path, monkeypatch):
    options = {"max_steps": 8, "eval_interval": 4, "checkpoint_interval": 3, "log_interval": 2}
    expected = untimed(make_trainer(tmp_path / "whole", **options).run())
    for n in range(100):
        left, folder = itertools.count(n, -1), tmp_path / str(n)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync, left))
            patch.setattr(trainer, "open", failing(open, left), raising=False)  # of the log
            try:
                make_trainer(folder, **options).run()
                break
            except CourseError as e:
                assert str(e).startswith("Cannot write") and "No space left on device" in str(e)
        assert not list(folder.glob(".*"))
        assert untimed(make_trainer(folder, resume=True, **options).run()) == expected
        assert (folder / "best.pt").read_bytes() == (tmp_path / "whole" / "best.pt").read_bytes()
    assert n > 12


def test_a_sweep_and_a_recorded_run_that_find_the_disk_full_at_their_end_go_on_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", {})
    monkeypatch.setattr(sweeps, "SWEEPS", {})
    small_recipes(tmp_path / "corpus.txt", max_steps=6, eval_interval=3)
    place, out, kept = tmp_path / "kept", tmp_path / "out", lambda: sweeps.load("widths", place).results
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync, itertools.count(2, -1)))
        assert "widths.json" in refusal(lambda: sweeps.record("widths", folder=place, device="cpu"))
    first = kept()
    assert len(first) == 2
    assert sweeps.record("widths", folder=place, device="cpu").results[:2] == first and len(kept()) == 4
    blocked = place / "tiny.json"
    blocked.mkdir()  # a file cannot take its place
    assert "tiny.json" in refusal(lambda: runs.record("tiny", out_dir=out, folder=place, device="cpu"))
    blocked.rmdir()
    monkeypatch.setattr(Trainer, "train_step", lambda t: pytest.fail("trained again"))
    assert runs.record("tiny", out_dir=out, folder=place, device="cpu").log[-1]["step"] == 6 and not out.exists()


# ---- a folder that cannot be written ------------------------------------------------------------------------------


def read_only(folder: str) -> None:
    """What each writer says in a folder without write permission. Nothing stops root, so root becomes nobody."""
    place, said, early = Path(folder), {}, make_trainer(Path(folder, "run"))
    checkpoint.save(place / "model.pt", make_model())
    (place / "model.pt").chmod(0o444)
    place.chmod(0o555)
    if os.getuid() == 0:
        os.setuid(65534)
    for kind, (name, write) in {**WRITERS, "training": ("run", lambda path: early.run())}.items():
        try:
            write(place / name)
        except CourseError as e:
            said[kind] = str(e)
    said["steps"] = early.step
    said["loaded"] = checkpoint.load(place / "model.pt").model.num_params()  # reading goes as before
    print(json.dumps(said))


@pytest.mark.promise(
    "Faults",
    "In a folder that may only be read, everything that writes says so in one sentence, training before its first "
    "step; a checkpoint in it can still be loaded.",
)
def test_a_read_only_folder_is_one_sentence_and_can_still_be_read():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        (place := Path(folder, "place")).mkdir()
        said = attack("read_only", place)
        assert said.pop("steps") == 0 and said.pop("loaded") == make_model().num_params()
        assert said.keys() == {*WRITERS, "training"}
        for sentence in said.values():
            assert sentence.startswith("Cannot write") and sentence.endswith("choose another folder."), sentence
            assert str(place) in sentence and "Permission denied" in sentence
        assert list(files(place)) == ["model.pt"]


# ---- a clock that goes backwards ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tick", [-3600.0, 0.0, 3600.0])
@pytest.mark.promise(
    "Faults",
    "A clock that goes back, stands still or jumps while a model is trained changes nothing but the seconds in the "
    "log, and these never fall.",
)
def test_a_clock_that_goes_backwards_stands_still_or_jumps_spoils_no_record(tmp_path, monkeypatch, tick):
    expected = untimed(make_trainer().run())
    for name in ("perf_counter", "time"):
        monkeypatch.setattr(time, name, itertools.count(1e6, tick).__next__)
    step = Trainer.train_step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", lambda t: die(KeyboardInterrupt) if t.step == 14 else step(t))
        make_trainer(tmp_path).run()
    log = make_trainer(tmp_path, resume=True).run()
    assert untimed(log) == expected
    for key in ("seconds", "tokens_per_second"):
        assert all(0 <= r[key] < math.inf for r in log[1:])
    assert [r["seconds"] for r in log[1:]] == sorted(r["seconds"] for r in log[1:])


# ---- numbers that are none ----------------------------------------------------------------------------------------


def strict_log(folder: Path) -> list[dict]:
    """The log as a reader sees it that knows the standard only, which has no NaN and no Infinity."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in lines]


@pytest.mark.promise(
    "Faults",
    "A training that diverges to nan stops at the next line of its log, in one sentence that says what to change; the "
    "log stays strict JSON, and the checkpoints from before are not overwritten.",
)
def test_a_run_that_diverges_stops_with_a_sentence_and_keeps_what_was_good(tmp_path):
    options = {"learning_rate": 1e20, "warmup_steps": 0, "max_steps": 10**9, "checkpoint_interval": 1}
    for resume in (False, True):  # going on leads to the same end
        t = make_trainer(tmp_path, resume=resume, **options)
        sentence = refusal(t.run)
        assert sentence == (
            f"Training diverged: at step {t.step} some weights are nan or infinite, which no step can mend; start "
            "again with a learning_rate below 1e+20 or more warmup, in another folder: "
            f"{tmp_path} keeps the checkpoints from before."
        )
        assert t.step < 10 and not math.isfinite(t.log[-1]["loss"])
        assert strict_log(tmp_path)[-1] | {"loss": None, "grad_norm": None} == strict_log(tmp_path)[-1]
        for name in ("last.pt", "best.pt"):
            saved = checkpoint.load(tmp_path / name)
            assert saved.training["step"] < t.step and all(p.isfinite().all() for p in saved.model.parameters())
    assert refusal(make_trainer(**options).run).endswith("or more warmup.")


def test_a_step_without_a_number_is_no_divergence_and_the_file_says_null(tmp_path, monkeypatch):
    """With a gradient scaler the first norms are infinite, and their steps are left out."""
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda t: step(t) * (math.inf if t.step == 3 else 1))
    t = make_trainer(tmp_path, on_eval=lambda model: {"more": [math.nan, 1.0]})
    log, written = t.run(), strict_log(tmp_path)
    assert log[1]["grad_norm"] == math.inf and written[1]["grad_norm"] is None and written[0]["more"] == [None, 1.0]
    assert written[2:3] == log[2:3] and len(written) == len(log)
    make_trainer(tmp_path, resume=True).run()
    assert strict_log(tmp_path) == written


def test_an_evaluation_that_is_nan_is_never_the_best(tmp_path, monkeypatch):
    losses = iter([math.nan, 2.0, math.nan, 1.5])
    monkeypatch.setattr(trainer, "evaluate", lambda *args, **options: next(losses))
    t = make_trainer(tmp_path)
    t.run()
    assert t.best_loss == 1.5 and checkpoint.load(tmp_path / "best.pt").training["step"] == 24


# ---- two at once --------------------------------------------------------------------------------------------------


@pytest.mark.promise(
    "Faults",
    "Two trainings cannot write into the same folder: the second one is refused in one sentence, at any time.",
)
def test_two_trainings_do_not_share_a_folder(tmp_path):
    refused, early = [], make_trainer(tmp_path)  # made before there was a run

    def intrude(model):
        refused.append(refusal(early.run))
        if (tmp_path / "last.pt").exists():
            refused.append(refusal(make_trainer(tmp_path, resume=True).run))
        return {}

    expected = untimed(make_trainer().run())
    first = make_trainer(tmp_path, on_eval=intrude)
    assert untimed(first.run()) == expected and len(refused) == 7
    assert set(refused) == {f"Another program is training in {tmp_path}: wait for its end, or choose another folder."}
    before = files(tmp_path)
    assert "already holds a run" in refusal(early.run) and files(tmp_path) == before
    assert first.run() == first.log == make_trainer(tmp_path, resume=True).run()  # now it is free


def test_where_the_system_has_no_locks_training_goes_on_without(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*args):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert make_trainer(tmp_path / "a").run()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert make_trainer(tmp_path / "b").run()


if __name__ == "__main__":
    {"kill": kill, "read_only": read_only}[sys.argv[1]](*sys.argv[2:])
