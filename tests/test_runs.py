"""Recorded runs: made once, kept whole, and never taken for something they are not."""

import json
import math
from pathlib import Path

import pytest
import torch

from llmcourse import checkpoint, recipes, runs
from llmcourse.errors import CourseError
from llmcourse.evaluation import evaluate
from llmcourse.files import sha256
from llmcourse.recipes import Recipe
from llmcourse.trainer import Trainer

torch.set_num_threads(1)
TEXT = "ROMEO:\nO, she doth teach the torches to burn bright!\n" * 30
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "dropout": 0.1}
TRAINING = {"max_steps": 12, "warmup_steps": 2, "batch_size": 4, "eval_interval": 4, "log_interval": 3}
TRAINING |= {"learning_rate": 0.02}  # enough for every sample to differ from the one before


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "romeo.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture
def table(corpus, monkeypatch, tmp_path):
    """Two recipes that take a moment instead of minutes; what is recorded goes to a folder of its own."""
    monkeypatch.chdir(tmp_path)
    small = {
        "with-weights": Recipe("Only for tests.", SHAPE, TRAINING, corpus, ship_weights=True),
        "log-only": Recipe("Only for tests, and without weights.", SHAPE, TRAINING, corpus),
    }
    monkeypatch.setattr(recipes, "RECIPES", small)
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def recorded(corpus, tmp_path_factory):
    """One recorded run for all the tests that only read it."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.RECIPES, "tested", Recipe("Only for tests.", SHAPE, TRAINING, corpus, ship_weights=True))
        run = runs.record("tested", out_dir=folder / "out", folder=folder, device="cpu")
    return folder, run


def test_a_recorded_run_comes_back_as_it_was_made(recorded):
    folder, run = recorded
    assert runs.names(folder) == ["tested"]
    assert runs.load("tested", folder) == run
    assert sorted(p.name for p in folder.iterdir()) == ["tested.json", "tested.pt"]


def test_a_run_says_what_was_trained_on_what_machine_and_how_well(recorded):
    _, run = recorded
    assert run.recipe["shape"] == SHAPE and run.recipe["training"]["max_steps"] == 12
    assert run.seed == run.recipe["training"]["seed"] == 1337 and run.vocab_size == len(set(TEXT))
    assert run.machine["device"] == "cpu" and run.machine["torch"] and len(run.code["source"]) == 12
    assert [r["step"] for r in run.log] == [0, 3, 4, 6, 8, 9, 12]
    assert run.best_loss == min(r["val_loss"] for r in run.log if "val_loss" in r)
    assert run.seconds == run.log[-1]["seconds"] > 0
    about = run.about()
    assert about.startswith(f"tested: {run.parameters:,} parameters, 12 steps, seed 1337, ")
    n = torch.get_num_threads()
    assert f"on {run.machine['name']}, {n} thread{'s' * (n != 1)}, best" in about
    assert about.endswith(f"best validation loss {run.best_loss:.3f}")


def test_a_gpu_is_named_without_its_threads(recorded):
    _, run = recorded
    gpu = runs.Run(**{**run.__dict__, "machine": run.machine | {"device": "cuda", "name": "Tesla T4"}})
    assert "minutes on Tesla T4, best" in gpu.about()


def test_samples_stand_along_the_way_and_only_the_model_changes(recorded):
    _, run = recorded
    assert [step for step, _ in run.samples] == [0, 4, 8, 12]
    assert all(text.startswith("ROMEO:") and len(text) == 306 for _, text in run.samples)
    assert len({text for _, text in run.samples}) == 4


def test_the_trained_model_is_the_best_one_in_half_the_bytes(recorded, corpus):
    folder, run = recorded
    saved = runs.load_model("tested", folder=folder)
    assert saved.tokenizer.decode([0]) == "\n" and saved.model.num_params() == run.parameters
    val = torch.tensor(saved.tokenizer.encode(TEXT))[int(0.9 * len(TEXT)) :]
    assert math.isclose(evaluate(saved.model, val), run.best_loss, abs_tol=2e-3)  # fp16 rounds the weights
    stored = torch.load(folder / "tested.pt", weights_only=True)["model"]
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert run.weights == {
        "file": "tested.pt", "sha256": sha256(folder / "tested.pt"), "bytes": (folder / "tested.pt").stat().st_size,
    }  # fmt: skip


@pytest.mark.promise(
    "Faults",
    "Weights of a recorded run that are missing, altered by one bit or those of another model are refused.",
)
def test_altered_and_missing_weights_are_refused(recorded, tmp_path):
    folder, _ = recorded
    (tmp_path / "tested.json").write_bytes((folder / "tested.json").read_bytes())
    with pytest.raises(CourseError, match=r"tested\.pt is missing or altered"):
        runs.load_model("tested", folder=tmp_path)
    content = bytearray((folder / "tested.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "tested.pt").write_bytes(content)
    with pytest.raises(CourseError, match=r"tested\.pt is missing or altered"):
        runs.load_model("tested", folder=tmp_path)
    checkpoint.save(tmp_path / "tested.pt", runs.load_model("tested", folder=folder).model)  # a good file, another one
    with pytest.raises(CourseError, match=r"tested\.pt is missing or altered"):
        runs.load_model("tested", folder=tmp_path)


def test_a_run_without_weights_says_how_to_get_them(table):
    run = runs.record("log-only", folder=table, device="cpu")
    assert run.weights is None and [p.name for p in table.iterdir()] == ["log-only.json"]
    with pytest.raises(CourseError, match="keeps no weights; llmcourse record log-only trains"):
        runs.load_model("log-only", folder=table)


def test_a_missing_run_is_one_sentence(recorded, tmp_path):
    folder, _ = recorded
    with pytest.raises(CourseError) as caught:
        runs.load("medium", folder)
    assert str(caught.value) == (
        "Run 'medium' has not been recorded: llmcourse record medium records it. Recorded: tested."
    )
    with pytest.raises(CourseError, match=r"and no recipe has that name\. Recorded: none\.$"):
        runs.load("nonsense", tmp_path / "nowhere")


def without(content: dict, key: str) -> dict:
    return {k: v for k, v in content.items() if k != key}


DAMAGE = {
    "cut off": lambda run: json.dumps(run)[:-20],
    "empty": lambda run: "",
    "a list": lambda run: "[1, 2]",
    "a number": lambda run: "3",
    "binary": lambda run: "\x00\x01",
    "nested without end": lambda run: "[" * 100_000,
    "a part is missing": lambda run: json.dumps(without(run, "log")),
    "a part too many": lambda run: json.dumps(run | {"color": "blue"}),
    "an empty log": lambda run: json.dumps(run | {"log": []}),
    "a log of numbers": lambda run: json.dumps(run | {"log": [1, 2]}),
    "no evaluation": lambda run: json.dumps(run | {"log": [{"step": 3}]}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_sentence(recorded, tmp_path, kind):
    content = json.loads((recorded[0] / "tested.json").read_text())
    (tmp_path / "tested.json").write_text(DAMAGE[kind](content))
    with pytest.raises(CourseError, match="is damaged or from another version of the course: record the run again"):
        runs.load("tested", tmp_path)


def test_settings_change_the_recipe_and_the_run_says_so(table):
    run = runs.record("log-only", folder=table, device="cpu", max_steps=4, n_embd=8)
    assert run.log[-1]["step"] == 4 and run.recipe["training"]["max_steps"] == 4 and run.recipe["shape"]["n_embd"] == 8
    with pytest.raises(CourseError, match="There is no setting 'layers'"):
        runs.record("log-only", folder=table, layers=3)


def test_an_interrupted_recording_goes_on_where_it_stopped(table, tmp_path, monkeypatch):
    whole = runs.record("with-weights", folder=tmp_path / "whole", device="cpu")
    step, steps = Trainer.train_step, []

    def interrupted(trainer):
        if len(steps) == 10:
            raise KeyboardInterrupt
        steps.append(trainer.step)
        return step(trainer)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", interrupted)
        runs.record("with-weights", folder=table, device="cpu")
    assert runs.names(table) == [] and (tmp_path / "out" / "record" / "with-weights" / "last.pt").exists()
    monkeypatch.setattr(Trainer, "train_step", lambda trainer: steps.append(trainer.step) or step(trainer))
    run = runs.record("with-weights", folder=table, device="cpu")
    assert steps == [*range(10), *range(8, 12)]  # from the checkpoint of step 8
    plain = [{k: v for k, v in r.items() if "second" not in k} for r in run.log]
    assert plain == [{k: v for k, v in r.items() if "second" not in k} for r in whole.log]
    assert (table / "with-weights.pt").read_bytes() == (tmp_path / "whole" / "with-weights.pt").read_bytes()
    assert not (tmp_path / "out" / "record" / "with-weights").exists()


def test_an_interrupted_recording_is_not_continued_with_other_settings(table, monkeypatch):
    def interrupted(trainer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", interrupted)
        runs.record("log-only", folder=table, device="cpu")
    with pytest.raises(CourseError, match=r"started with different settings \(max_steps\)"):
        runs.record("log-only", folder=table, device="cpu", max_steps=8)


def test_numbers_that_are_none_are_null_in_the_file_and_nan_again_when_it_is_read(table, monkeypatch):
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda t: step(t) * (math.inf if t.step == 3 else 1))
    runs.record("log-only", folder=table, device="cpu")
    text = (table / "log-only.json").read_text()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert stored["log"][1]["grad_norm"] is None and math.isnan(runs.load("log-only", table).log[1]["grad_norm"])
    stored["log"][0]["val_loss"] = None
    (table / "log-only.json").write_text(json.dumps(stored))
    assert runs.load("log-only", table).best_loss == min(r["val_loss"] for r in stored["log"][1:] if "val_loss" in r)


def test_a_recording_killed_while_it_tidied_up_says_what_to_do(table, monkeypatch):
    def killed(path, missing_ok=False):
        unlink(path, missing_ok)
        if path.name == "best.pt":
            raise KeyboardInterrupt

    unlink = Path.unlink
    for name in ("log-only", "with-weights"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", killed)
            runs.record(name, folder=table, device="cpu")
    assert runs.names(table) == ["log-only", "with-weights"]  # the run itself was already kept
    assert runs.record("log-only", folder=table, device="cpu") == runs.load("log-only", table)
    with pytest.raises(CourseError, match=r"lacks best\.pt, .*: delete the folder and record again\.$"):
        runs.record("with-weights", folder=table, device="cpu")


def test_only_its_own_files_are_removed_at_the_end(table, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    runs.record("log-only", out_dir=tmp_path / "mine", folder=table, device="cpu")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_recording_again_replaces_the_run(table):
    first = runs.record("with-weights", folder=table, device="cpu")
    second = runs.record("with-weights", folder=table, device="cpu", seed=2)
    assert runs.load("with-weights", table) == second != first
    assert runs.load_model("with-weights", folder=table).model.num_params() == second.parameters


def test_several_processes_do_not_record(table, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CourseError, match="the work of one process"):
        runs.record("log-only", folder=table, device="cpu")


def test_every_run_that_ships_with_the_course_can_be_read_and_its_weights_are_the_listed_ones():
    for name in runs.names():
        run = runs.load(name)
        assert run.name == name and run.about()
        if run.weights:
            assert runs.load_model(name).model.num_params() == run.parameters
