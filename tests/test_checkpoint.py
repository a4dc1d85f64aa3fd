"""Checkpoints: what is saved comes back, a stranger's file runs nothing, and no file is ever half there."""

import errno
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import checkpoint, files
from llmcourse.errors import CourseError
from llmcourse.files import atomic_file, remove_unfinished, sha256
from llmcourse.model import GPT, GPTConfig
from llmcourse.tokenizer import BPETokenizer, CharTokenizer

torch.set_num_threads(1)
CHARS = CharTokenizer("abcdefghijk")
CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16)


def make_model(**changes) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(**asdict(CONFIG) | changes))


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "model.pt", make_model(), CHARS, {"step": 7})
    return tmp_path / "model.pt"


# ---- there and back -------------------------------------------------------------------------------------------

SHAPES = [
    {},
    {"tie_weights": False, "bias": False},
    {"position": "rope", "norm": "rmsnorm", "qk_norm": True, "activation": "swiglu"},
    {"position": "sinusoidal", "norm_position": "post"},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_a_model_comes_back_with_the_same_logits_bit_for_bit(tmp_path, changes):
    model = make_model(**changes).eval()
    checkpoint.save(tmp_path / "model.pt", model)
    saved = checkpoint.load(tmp_path / "model.pt")
    idx = torch.arange(8)[None]
    assert torch.equal(saved.model(idx), model(idx))
    assert saved.model.config == model.config and not saved.model.training
    assert saved.tokenizer is None and saved.training == {}


@pytest.mark.parametrize("tokenizer", [CHARS, BPETokenizer.train("to be or not to be " * 9, 262, ["<|end|>"])])
def test_the_tokenizer_and_the_state_of_the_training_come_back(tmp_path, tokenizer):
    state = {"step": 3, "losses": [0.1, 0.25], "generator": torch.arange(5), "nested": {"text": "é", "none": None}}
    checkpoint.save(tmp_path / "model.pt", make_model(vocab_size=300), tokenizer, state)
    saved = checkpoint.load(tmp_path / "model.pt")
    assert saved.tokenizer.to_dict() == tokenizer.to_dict()
    assert torch.equal(saved.training.pop("generator"), state.pop("generator")) and saved.training == state


def test_tied_weights_are_stored_once_and_tied_again(path):
    stored = torch.load(path, weights_only=True)["model"]
    assert "lm_head.weight" in stored and "transformer.wte.weight" not in stored
    model = checkpoint.load(path).model
    assert model.lm_head.weight is model.transformer.wte.weight
    assert sum(t.numel() for t in stored.values()) == model.num_params() == make_model().num_params()


def test_a_file_for_sampling_is_half_as_large_and_loads_as_float32(tmp_path):
    model = make_model(n_embd=128, n_layer=2, vocab_size=50)
    for name, dtype in (("full.pt", None), ("half.pt", torch.float16)):
        checkpoint.save(tmp_path / name, model, dtype=dtype)
    full, half = ((tmp_path / name).stat().st_size for name in ("full.pt", "half.pt"))
    assert 0.49 < half / full < 0.52
    assert {t.dtype for t in torch.load(tmp_path / "half.pt", weights_only=True)["model"].values()} == {torch.float16}
    loaded = checkpoint.load(tmp_path / "half.pt").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    for a, b in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b.half().float())


def test_the_same_content_gives_the_same_bytes(tmp_path, path):
    checkpoint.save(tmp_path / "other name.pt", make_model(), CHARS, {"step": 7})
    assert sha256(tmp_path / "other name.pt") == sha256(path)


# ---- files that are not what they should be -------------------------------------------------------------------


def refused(path) -> str:
    """The one sentence with which loading `path` is refused."""
    with pytest.raises(CourseError) as caught:
        checkpoint.load(path)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


class Attack:
    """Unpickling this object would write a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_checkpoint_made_to_run_code_runs_nothing(tmp_path, path):
    mark = tmp_path / "attacked"
    content = torch.load(path, weights_only=True)
    for hostile in (Attack(mark), {**content, "training": {"x": Attack(mark)}}, {**content, "config": Attack(mark)}):
        for protocol in (0, 2, 4):
            torch.save(hostile, tmp_path / "hostile.pt", pickle_protocol=protocol)
            assert "nothing in it was run" in refused(tmp_path / "hostile.pt")
            (tmp_path / "hostile.pt").write_bytes(pickle.dumps(hostile, protocol))
            assert "nothing in it was run" in refused(tmp_path / "hostile.pt")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Attack(mark)))  # the attack is a real one
    assert mark.exists()


@pytest.mark.promise(
    "Faults",
    "A checkpoint that is cut off is refused, wherever the cut is (some 160 places).",
)
def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path, path):
    content = path.read_bytes()
    lengths = [0, 1, 2, 3, 4, 10, 63, 64, 65, *range(100, len(content) - 1, len(content) // 150), len(content) - 1]
    for length in lengths:
        (tmp_path / "cut.pt").write_bytes(content[:length])
        assert "damaged or not a checkpoint" in refused(tmp_path / "cut.pt")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_checkpoint_gives_a_sentence_or_a_model_and_never_another_error(tmp_path_factory, draw):
    folder = tmp_path_factory.getbasetemp()
    checkpoint.save(folder / "whole.pt", make_model(n_embd=2), CHARS)
    content = bytearray((folder / "whole.pt").read_bytes())
    start = draw.draw(st.integers(0, len(content) - 1))
    damage = draw.draw(st.binary(min_size=1, max_size=8))
    content[start : start + len(damage)] = damage
    (folder / "damaged.pt").write_bytes(content)
    try:
        assert isinstance(checkpoint.load(folder / "damaged.pt").model, GPT)
    except CourseError as e:
        assert str(e).endswith(".")


def write_zip(path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "not a model")


FOREIGN = {
    "a tensor": lambda path: torch.save(torch.ones(3), path),
    "a list": lambda path: torch.save([1, 2], path),
    "weights alone": lambda path: torch.save(make_model().state_dict(), path),
    "a format that is a tensor": lambda path: torch.save({"format": torch.ones(2)}, path),
    "a whole module": lambda path: torch.save(make_model(activation="gelu"), path),
    "a TorchScript program": lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(path),
    "text": lambda path: path.write_text("Once upon a time"),
    "nothing": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "a zip": write_zip,
    "an image": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
}


@pytest.mark.filterwarnings("ignore")  # saving some of these warns; loading them must not
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_one_sentence(tmp_path, capfd, kind):
    FOREIGN[kind](tmp_path / "foreign.pt")
    capfd.readouterr()
    sentence = refused(tmp_path / "foreign.pt")
    assert "not a checkpoint of this course" in sentence and "not loaded" in sentence
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    assert "There is no checkpoint at" in refused(tmp_path / "nowhere.pt")
    assert "There is no checkpoint at" in refused(tmp_path)


def test_a_file_that_cannot_be_read_is_one_sentence(path, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint, "open", denied, raising=False)
    assert "Permission denied" in refused(path)


def test_another_format_is_named(tmp_path, path):
    content = torch.load(path, weights_only=True)
    torch.save(content | {"format": 99}, tmp_path / "future.pt")
    assert "has format 99 and this version of llmcourse reads format 1" in refused(tmp_path / "future.pt")


@pytest.mark.parametrize("key", ["config", "model", "tokenizer", "training"])
def test_a_missing_part_is_one_sentence(path, key):
    content = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in content.items() if k != key}, path)
    assert "does not fit its own configuration" in refused(path)


@pytest.mark.parametrize(
    "key, value",
    [
        ("config", asdict(CONFIG) | {"n_embd": 32}),
        ("config", asdict(CONFIG) | {"n_layer": 2}),
        ("config", asdict(CONFIG) | {"n_head": 3}),
        ("config", asdict(CONFIG) | {"color": "blue"}),
        ("config", asdict(CONFIG) | {"vocab_size": "eleven"}),
        ("config", None),
        ("model", {}),
        ("model", [1, 2]),
        ("model", {"lm_head.weight": torch.ones(11, 16)}),
        ("tokenizer", {"kind": "char", "chars": "aa"}),
        ("tokenizer", {"kind": "char", "chars": "abcdefghijklm"}),  # two more than the model knows
        ("tokenizer", {}),
        ("tokenizer", "abc"),
        ("training", 3),
    ],
)
def test_parts_that_do_not_fit_each_other_are_one_sentence(path, key, value):
    content = torch.load(path, weights_only=True)
    torch.save(content | {key: value}, path)
    assert "does not fit its own configuration" in refused(path)


# ---- whole or not at all --------------------------------------------------------------------------------------


def fail_with(error):
    def fail(*args, **options):
        raise error

    return fail


def write_half(path, error) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), RuntimeError("something else")])
def test_a_crash_while_writing_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    (tmp_path / "notes").write_bytes(b"old")
    with pytest.raises(type(error)):
        write_half(tmp_path / "notes", error)
    assert [p.name for p in tmp_path.iterdir()] == ["notes"] and (tmp_path / "notes").read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_moment_is_one_sentence_and_leaves_the_old_file(path, monkeypatch, call):
    before = path.read_bytes()
    monkeypatch.setattr(os, call, fail_with(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(CourseError) as caught:
        checkpoint.save(path, make_model(bias=False))
    sentence = f"Cannot write {path} (No space left on device): free some space or choose another folder."
    assert str(caught.value) == sentence
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"] and path.read_bytes() == before


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_is_one_sentence(path):
    """For real: the system refuses to let the file grow, and torch wraps that error in one of its own."""
    program = f"""
import resource, signal, sys
import torch
from llmcourse import checkpoint
from llmcourse.errors import CourseError
from llmcourse.model import GPT, GPTConfig
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save({str(path)!r}, GPT(GPTConfig(11, 8, 1, 2, 64)))
except CourseError as e:
    sys.exit(str(e))
"""
    before = path.read_bytes()
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stderr == f"Cannot write {path} (File too large): free some space or choose another folder.\n"
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"] and path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for target in (tmp_path / "file" / "model.pt", tmp_path / "file" / "a" / "b" / "model.pt"):
        with pytest.raises(CourseError, match=r"^Cannot write .*: free some space or choose another folder\.$"):
            checkpoint.save(target, make_model())
    (tmp_path / "folder").mkdir()
    with pytest.raises(CourseError, match="Is a directory"):
        checkpoint.save(tmp_path / "folder", make_model())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_missing_folders_are_made_and_a_file_has_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / "a" / "b" / "notes") as file:
        file.write(b"new")
    (tmp_path / "plain").write_bytes(b"new")
    assert (tmp_path / "a" / "b" / "notes").read_bytes() == b"new"
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a" / "b" / "notes", tmp_path / "plain")]
    assert modes[0] == modes[1]


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    order = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: order.append("fsync") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: order.append("replace") or rename(*names))
    with atomic_file(tmp_path / "notes") as file:
        file.write(b"x" * 100_000)
        assert not (tmp_path / "notes").exists()
    assert order == ["fsync", "replace"]


def test_two_programs_that_write_the_same_file_do_not_mix(tmp_path):
    with atomic_file(tmp_path / "notes") as first, atomic_file(tmp_path / "notes") as second:
        first.write(b"first"), second.write(b"second")
    assert (tmp_path / "notes").read_bytes() == b"first"  # the outer block ends last
    assert len(list(tmp_path.iterdir())) == 1


def test_only_what_a_killed_program_left_is_removed(tmp_path):
    names = [f".last.pt.0123{files.UNFINISHED}", "last.pt", "film.part", ".hidden"]
    for name in names:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
