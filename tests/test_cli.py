"""The command line: every command from end to end, and every mistake in one line."""

import ast
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from llmcourse import __version__, checkpoint, cli, recipes, runs, sweeps
from llmcourse.evaluation import evaluate
from llmcourse.model import GPT, GPTConfig
from llmcourse.recipes import Recipe

torch.set_num_threads(1)
TEXT = "ROMEO:\nHe jests at scars that never felt a wound.\nBut, soft! what light through yonder window breaks?\n" * 40
CUT = int(0.9 * len(TEXT))  # where the validation split begins
SHAPE = ["n_layer=1", "n_head=2", "n_embd=16", "block_size=8"]
SETTINGS = [*SHAPE, "max_steps=12", "warmup_steps=2", "batch_size=4", "eval_interval=6", "log_interval=3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a corpus and a model trained on it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "corpus.txt").write_text(TEXT)
    train = ["train", "--corpus", str(folder / "corpus.txt"), "--out", str(folder / "run"), "--device", "cpu"]
    assert cli.main([*train, "--set", *SETTINGS]) == 0
    return folder


@pytest.fixture
def work(place, monkeypatch, capsys) -> Path:
    """The same folder, entered."""
    monkeypatch.chdir(place)
    capsys.readouterr()
    return place


def run(capsys, *command: str) -> str:
    """What a command prints that has nothing to complain about."""
    code = cli.main(command)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def complaint(capsys, *command: str) -> str:
    """The one line with which a command is refused."""
    code = cli.main(command)
    _, err = capsys.readouterr()
    assert code == 2 and err.startswith("llmcourse: ") and err.endswith(".\n") and err.count("\n") == 1, err
    return err.removeprefix("llmcourse: ").rstrip()


def program(*command: str, **options) -> subprocess.Popen:
    """The command line as a program of its own, with a progress bar as at home.

    A suite started in the background ignores Ctrl-C, and what it starts inherits that: so it is undone here.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    return subprocess.Popen(
        [sys.executable, "-m", "llmcourse.cli", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | options.pop("env", {}),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip


# ---- every command --------------------------------------------------------------------------------------------


def test_training_writes_checkpoints_and_says_what_it_does(work, capsys):
    settings = ["--set", *SETTINGS, "--set", "dropout=0.1", "optimizer=muon"]  # --set may stand more than once
    out = run(capsys, "train", "--corpus", "corpus.txt", "--out", "new/run", "--device", "cpu", *settings)
    saved = checkpoint.load("new/run/best.pt")
    assert saved.model.config.dropout == 0.1 and saved.training["config"]["optimizer"] == "muon"
    size = f"{saved.model.num_params():,} parameters, 12 steps of 4 × 8 tokens"
    assert f"tiny: {size} on cpu in fp32; folder new/run" in out
    assert f"best validation loss {saved.training['best_loss']:.4f} nats per character" in out
    assert "Sample it: llmcourse generate new/run/best.pt" in out
    assert json.loads(Path("new/run/log.jsonl").read_text().splitlines()[-1])["step"] == 12


def test_a_run_that_has_begun_goes_on_with_resume(work, capsys, monkeypatch):
    command = ["train", "--corpus", "corpus.txt", "--out", "stopped", "--device", "cpu", "--resume", "--set", *SETTINGS]

    def stop(trainer):
        if trainer.step == 8:
            raise KeyboardInterrupt
        return step(trainer)

    from llmcourse.trainer import Trainer

    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", stop)
    assert cli.main(command) == 130
    out, err = capsys.readouterr()
    assert "Nothing to go on from: a new run." in out
    assert err == "llmcourse: stopped. A training run goes on from its last checkpoint with --resume.\n"
    monkeypatch.setattr(Trainer, "train_step", step)
    assert "Going on after step 6." in run(capsys, *command)
    losses = [
        [json.loads(line).get("loss") for line in Path(folder, "log.jsonl").read_text().splitlines()]
        for folder in ("stopped", "run")
    ]
    assert losses[0] == losses[1]


def test_generating_continues_a_prompt_and_the_seed_decides(work, capsys):
    options = ["--prompt", "ROMEO:\\n", "--max-new-tokens", "40"]
    first, again = (run(capsys, "generate", "run/best.pt", *options, "--seed", "3") for _ in range(2))
    assert first == again != run(capsys, "generate", "run", *options, "--seed", "4")  # a folder means its best model
    assert first.startswith("ROMEO:\n") and len(first) == len("ROMEO:\n") + 40 + 1
    several = run(capsys, "generate", "run", *options, "--seed", "3", "--num-samples", "2", "--top-k", "5")
    assert "--- sample 1, seed 3 ---" in several and "--- sample 2, seed 4 ---" in several
    shorter = run(capsys, "generate", "run", *options, "--stop", "e", "--temperature", "1.5", "--top-p", "0.95")
    assert "e" not in shorter.removeprefix("ROMEO:\n")
    greedy = {run(capsys, "generate", "run", *options, "--temperature", "0", "--seed", seed) for seed in "12"}
    assert len(greedy) == 1


@pytest.mark.parametrize("split, share", [("val", slice(CUT, None)), ("train", slice(CUT)), ("all", slice(None))])
def test_evaluating_gives_loss_perplexity_and_bits(work, capsys, split, share):
    out = run(capsys, "evaluate", "run", "--corpus", "corpus.txt", "--split", split, "--device", "cpu")
    saved = checkpoint.load("run/best.pt")
    ids = torch.tensor(saved.tokenizer.encode(TEXT[share]))
    loss = evaluate(saved.model, ids)
    assert f"loss        {loss:.4f} nats per token ({len(ids) - 1:,} tokens scored, {split} of corpus.txt)" in out
    assert f"perplexity  {2.718281828459045**loss:.3f}" in out
    assert f"bits        {loss / 0.6931471805599453:.4f} per character" in out


def test_the_validation_loss_is_the_one_that_training_measured(work, capsys):
    best = checkpoint.load("run/best.pt").training["best_loss"]
    assert f"loss        {best:.4f} nats" in run(capsys, "evaluate", "run", "--corpus", "corpus.txt", "--device", "cpu")


def test_bits_per_character_do_not_depend_on_how_the_tokenizer_cuts(work, capsys):
    from llmcourse.tokenizer import BPETokenizer

    tokenizer = BPETokenizer.train(TEXT, 280)
    model = GPT(GPTConfig(280, 8, 1, 2, 16))
    checkpoint.save("bpe.pt", model, tokenizer)
    ids = tokenizer.encode(TEXT)
    out = run(capsys, "evaluate", "bpe.pt", "--corpus", "corpus.txt", "--split", "all", "--device", "cpu")
    scored = len(TEXT) - len(tokenizer.decode(ids[:1]))
    bits = evaluate(model, torch.tensor(ids)) * (len(ids) - 1) / scored / 0.6931471805599453
    assert f"bits        {bits:.4f} per character" in out and len(ids) < len(TEXT) / 1.5


def test_a_tokenizer_is_trained_and_cuts_a_text(work, capsys):
    assert cli.main(["tokenize", "--train", "corpus.txt", "--vocab-size", "300", "--out", "bpe/small.json"]) == 0
    assert "bpe/small.json: 300 tokens, trained on corpus.txt" in capsys.readouterr().out
    out = run(capsys, "tokenize", "--tokenizer", "bpe/small.json", "--text", "But, soft! wound")
    first, *lines = out.splitlines()
    assert first == f"16 characters, 16 bytes, {len(lines)} tokens" and len(lines) < 12
    assert "".join(ast.literal_eval(line[9:]) for line in lines) == "But, soft! wound"
    out = run(capsys, "tokenize", "--tokenizer", "bpe/small.json", "--text", "é")
    assert out.startswith("1 characters, 2 bytes, 2 tokens\n")


def test_the_gpt2_tokenizer_takes_special_tokens_as_text(capsys, monkeypatch):
    from llmcourse import tokenizer

    stand_in = tokenizer.BPETokenizer.train("to be or not to be " * 9, 262, ["<|endoftext|>"]).to_tiktoken()
    monkeypatch.setattr(tokenizer, "gpt2_encoding", lambda: stand_in)  # the real one may need a network
    assert run(capsys, "tokenize", "--text", "<|endoftext|>").startswith("13 characters, 13 bytes, ")


@pytest.fixture
def table(work, monkeypatch):
    """Recipes that take a moment, recorded into a folder of their own."""
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8}
    training = {"max_steps": 4, "warmup_steps": 1, "batch_size": 4}
    small = {
        name: Recipe(f"Only for tests, {name}.", shape, training, "corpus.txt", ship_weights=name == "tiny")
        for name in ("tiny", "small", "medium")
    }
    monkeypatch.setattr(recipes, "RECIPES", small)
    folder = work / "recorded"
    monkeypatch.setattr(runs.names, "__defaults__", (folder,))
    monkeypatch.setattr(runs.load, "__defaults__", (folder,))
    monkeypatch.setattr(runs.load_model, "__defaults__", ("cpu", folder))
    monkeypatch.setitem(runs.record.__kwdefaults__, "folder", folder)
    monkeypatch.setattr(sweeps, "SWEEPS", {})
    monkeypatch.setattr(sweeps.names, "__defaults__", (folder / "sweeps",))
    monkeypatch.setattr(sweeps.load, "__defaults__", (folder / "sweeps",))
    monkeypatch.setitem(sweeps.record.__kwdefaults__, "folder", folder / "sweeps")
    return folder


def test_recording_lists_records_and_then_knows_the_run(table, capsys):
    assert run(capsys, "record", "--list").count("missing ") == 3
    out = run(capsys, "record", "tiny", "--device", "cpu")
    assert "Recording tiny: Only for tests, tiny." in out and "tiny: 4,000 parameters" not in out
    assert runs.load("tiny").about() in out
    listed = run(capsys, "record").splitlines()
    assert [line.split()[:2] for line in listed] == [["tiny", "recorded"], ["small", "missing"], ["medium", "missing"]]
    assert run(capsys, "generate", "tiny", "--max-new-tokens", "5", "--prompt", "R").startswith("R")
    before = runs.load("tiny")
    assert "Recording tiny" not in run(capsys, "record", "--all", "--device", "cpu")
    assert run(capsys, "record", "--list").count("recorded ") == 3 and runs.load("tiny") == before
    assert run(capsys, "record", "--all", "--again", "--device", "cpu").count("Recording ") == 3
    assert complaint(capsys, "generate", "small").startswith("Run 'small' keeps no weights")


def test_a_sweep_is_recorded_and_then_listed(table, capsys, monkeypatch):
    plan = sweeps.Plan("Only for tests.", "tiny", {"as it is": {}, "wider": {"n_embd": 32}}, seeds=(1, 2))
    monkeypatch.setattr(sweeps, "SWEEPS", {"widths": plan})
    assert "widths           missing   Only for tests." in run(capsys, "record", "--list")
    out = run(capsys, "record", "widths", "--device", "cpu")
    assert "Recording the sweep widths: Only for tests." in out and "wider" in out and "ms a step" in out
    assert "widths           recorded  Only for tests." in run(capsys, "record", "--list")
    assert len(sweeps.load("widths").results) == 4


def test_the_doctor_describes_the_machine_and_advises(table, capsys):
    out = run(capsys, "doctor", "--device", "cpu")
    assert "device     cpu; precision fp32" in out and f"torch {torch.__version__.split('+')[0]}" in out
    for name in ("tiny", "small", "medium"):
        assert f"{name:10} about 0.0 minutes   (Only for tests, {name}.)" in out
    assert out.endswith("advice     llmcourse train --preset medium --out out/first\n")


def test_the_doctor_advises_what_fits_into_half_an_hour(table, capsys, monkeypatch):
    minutes = iter([12, 29, 31])
    monkeypatch.setattr(recipes, "estimate_seconds", lambda recipe, device: 60 * next(minutes))
    assert "advice     llmcourse train --preset small --out" in run(capsys, "doctor", "--device", "cpu")
    minutes = iter([100, 200, 300])
    assert "advice     llmcourse train --preset tiny --out" in run(capsys, "doctor", "--device", "cpu")


def test_the_doctor_knows_a_gpu_that_only_claims_bf16(table, capsys, monkeypatch):
    from llmcourse import device

    monkeypatch.setattr(device, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(device, "describe", lambda d: device_facts | {"memory_gib": 15.0})
    device_facts = {"name": "Tesla T4", "threads": 1, "python": "3", "torch": "2", "system": "Linux"}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (7, 5))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(recipes, "estimate_seconds", lambda recipe, d: 60.0)
    out = run(capsys, "doctor")
    assert "device     cuda, 15.0 GiB; precision fp16 with a gradient scaler" in out and "only emulates it" in out


# ---- every mistake --------------------------------------------------------------------------------------------

TRAIN = ["train", "--corpus", "corpus.txt", "--out", "other", "--device", "cpu"]
MISTAKES = {
    "no command": ([], "required: COMMAND; llmcourse --help shows"),
    "unknown command": (["genrate"], "invalid choice: 'genrate'"),
    "unknown option": (["train", "--presto"], "unrecognized arguments: --presto"),
    "unknown preset": (["train", "--preset", "huge"], "There is no recipe 'huge'; choose one of tiny, small"),
    "--set without =": ([*TRAIN, "--set", "max_steps"], "--set takes NAME=VALUE, for example max_steps=200"),
    "--set alone": ([*TRAIN, "--set"], "--set: expected at least one argument"),
    "unknown setting": ([*TRAIN, "--set", "steps=3"], "There is no setting 'steps'"),
    "wrong value": ([*TRAIN, "--set", "max_steps=many"], "max_steps must be a whole number"),
    "strange value": ([*TRAIN, "--set", "max_steps={[]: 1}"], "max_steps must be a whole number"),
    "nested value": ([*TRAIN, "--set", "max_steps=" + "(" * 9999], "max_steps must be a whole number"),
    "wrong shape": ([*TRAIN, "--set", "n_embd=10", "n_head=4"], "n_embd (10) must be a multiple of n_head"),
    "missing corpus": (["train", "--corpus", "nowhere.txt"], "There is no file nowhere.txt"),
    "corpus is a folder": (["train", "--corpus", "run"], "is a folder"),
    "binary corpus": (["train", "--corpus", "run/best.pt"], "is not UTF-8 text"),
    "short corpus": (["train", "--corpus", "short.txt"], "too few for block_size"),
    "bad device": (["train", "--corpus", "corpus.txt", "--device", "tpu"], "Device must be auto, cpu, cuda"),
    "absent device": (["generate", "run", "--device", "cuda:99"], "This machine has"),
    "existing run": (["train", "--corpus", "corpus.txt", "--out", "run"], "run already holds a run"),
    "other settings": (["train", "--corpus", "corpus.txt", "--out", "run", "--resume"], "with different settings"),
    "unwritable folder": ([*TRAIN[:-4], "--out", "corpus.txt/run", "--set", *SETTINGS], "Cannot write corpus.txt/run"),
    "fp16 on the CPU": ([*TRAIN, "--set", "precision=fp16"], "fp16 with a gradient scaler is for GPUs"),
    "missing checkpoint": (["generate", "nowhere.pt"], "There is no checkpoint at nowhere.pt"),
    "folder without one": (["generate", "."], "There is no checkpoint at best.pt"),
    "foreign checkpoint": (["generate", "corpus.txt"], "corpus.txt is damaged or not a checkpoint"),
    "foreign tensor": (["generate", "tensor.pt"], "tensor.pt is not a checkpoint of this course"),
    "no tokenizer": (["generate", "bare.pt"], "bare.pt holds no tokenizer"),
    "no tokenizer to evaluate": (["evaluate", "bare.pt"], "bare.pt holds no tokenizer"),
    "unknown character": (["generate", "run", "--prompt", "Zoë"], "Character 'Z' (U+005A) is not in this"),
    "bytes that are no text": (["generate", "run", "--prompt", "R\udcff"], "half a character"),
    "empty prompt": (["generate", "run", "--prompt", ""], "The prompt is empty"),
    "negative temperature": (["generate", "run", "--temperature", "-1"], "temperature must be a number of at least 0"),
    "temperature nan": (["generate", "run", "--temperature", "nan"], "temperature must be a number"),
    "temperature in words": (["generate", "run", "--temperature", "hot"], "invalid float value: 'hot'"),
    "top-k 0": (["generate", "run", "--top-k", "0"], "top_k must be a whole number of at least 1"),
    "top-p 2": (["generate", "run", "--top-p", "2"], "top_p must be a number above 0 and at most 1"),
    "min-p 0": (["generate", "run", "--min-p", "0"], "min_p must be a number above 0"),
    "negative length": (["generate", "run", "--max-new-tokens", "-1"], "'-1' is not a whole number of at least 0"),
    "negative seed": (["generate", "run", "--seed", "-1"], "'-1' is not a whole number of at least 0"),
    "giant seed": (["generate", "run", "--seed", "9" * 30], "is not a whole number of at least 0"),
    "past-window": (["generate", "run", "--past-window", "guess"], "past_window must be one of exact, refill"),
    "evaluate what": (["evaluate", "nowhere.pt"], "There is no checkpoint at nowhere.pt"),
    "evaluate on nothing": (["evaluate", "run", "--corpus", "nowhere.txt"], "There is no file nowhere.txt"),
    "evaluate unknown text": (["evaluate", "run", "--corpus", "greek.txt"], "is not in this tokenizer's"),
    "evaluate one character": (["evaluate", "run", "--corpus", "short.txt", "--split", "val"], "at least 2 tokens"),
    "unknown split": (["evaluate", "run", "--split", "test"], "invalid choice: 'test'"),
    "nothing to tokenize": (["tokenize"], "Give a text to cut (--text)"),
    "tokenizer to nowhere": (["tokenize", "--train", "corpus.txt"], "Say where the tokenizer goes: --out FILE.json"),
    "tiny vocabulary": (["tokenize", "--train", "corpus.txt", "--vocab-size", "9", "--out", "t.json"], "no room for"),
    "no tokenizer there": (["tokenize", "--text", "a", "--tokenizer", "nowhere.json"], "Cannot read the tokenizer"),
    "foreign tokenizer": (["tokenize", "--text", "a", "--tokenizer", "corpus.txt"], "is not complete JSON"),
    "tokenize half a character": (["tokenize", "--text", "\udcff", "--tokenizer", "gpt2"], "--text is not valid UTF-8"),
    "unknown recipe": (["record", "huge"], "There is no recipe 'huge'"),
    "doctor for what": (["doctor", "--device", "tpu"], "Device must be auto, cpu, cuda"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(work, capsys, kind):
    Path("short.txt").write_text("ROMEO: a t")
    Path("greek.txt").write_text("ἐν ἀρχῇ ἦν ὁ λόγος " * 9)
    torch.save(torch.ones(2), "tensor.pt")
    checkpoint.save("bare.pt", GPT(GPTConfig(11, 8, 1, 2, 16)))
    command, sentence = MISTAKES[kind]
    before = {p: p.read_bytes() for p in work.rglob("*") if p.is_file()}
    assert sentence in complaint(capsys, *command)
    assert {p: p.read_bytes() for p in work.rglob("*") if p.is_file()} == before  # and nothing was touched


def test_a_tokenizer_that_cannot_be_saved_is_one_line_after_the_bar(work, capsys):
    command = ["tokenize", "--train", "corpus.txt", "--vocab-size", "260", "--out", "corpus.txt/t.json"]
    assert cli.main(command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("llmcourse: ") and "corpus.txt" in last and last.endswith(".")


def test_a_full_disk_is_one_line(work, capsys, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "(No space left on device): free some space" in complaint(capsys, *TRAIN, "--set", *SETTINGS)


def test_errors_of_the_system_are_one_line_with_the_file(capsys, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", "out/secret")

    monkeypatch.setattr(recipes, "prepare", denied)
    assert complaint(capsys, "train") == "Permission denied: out/secret."


@pytest.mark.parametrize(
    "error, place",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "computer"),
        (MemoryError(), "computer"),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_make_smaller(capsys, monkeypatch, error, place):
    def too_much(*args, **options):
        raise error

    monkeypatch.setattr(recipes, "prepare", too_much)
    sentence = complaint(capsys, "train")
    assert sentence.startswith(f"out of memory on the {place}: ") and "accumulation_steps" in sentence


def test_a_model_that_is_too_large_for_this_computer_is_one_line(work, capsys):
    sentence = complaint(capsys, *TRAIN, "--set", "block_size=10000000000000")
    assert sentence.startswith("out of memory on the computer: ")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(recipes, "prepare", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_settings_are_python_values_or_words():
    pairs = ["max_steps=200", "learning_rate=1e-3", "optimizer=muon", "bias=False", "patience=None", "norm='none'"]
    values = [200, 1e-3, "muon", False, None, "none"]
    assert list(cli.parse_settings(pairs).values()) == values
    assert cli.parse_settings(["optimizer=", "norm=a=b"]) == {"optimizer": "", "norm": "a=b"}


# ---- as a program ---------------------------------------------------------------------------------------------


def test_the_package_can_be_run_as_a_module():
    command = [sys.executable, "-m", "llmcourse", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"llmcourse {__version__}\n"


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_are_answered_without_loading_torch(option):
    code = f"""
import sys
from llmcourse.cli import main
try:
    main([{option!r}])
finally:
    heavy = {{"torch", "numpy", "matplotlib", "tiktoken"}} & set(sys.modules)
    print("heavy:", *heavy)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.endswith("heavy:\n")
    assert answer.startswith(f"llmcourse {__version__}\n" if option == "--version" else "usage: llmcourse")
    if option == "--help":
        assert all(name in answer for name in ("train", "generate", "evaluate", "tokenize", "record", "doctor"))


def test_every_command_explains_itself(capsys):
    for command in ("train", "generate", "evaluate", "tokenize", "record", "doctor"):
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0 and f"usage: llmcourse {command}" in capsys.readouterr().out


def test_the_progress_bar_shows_loss_speed_and_time_left_on_stdout(work):
    command = [*TRAIN[:3], "--out", "bar", "--device", "cpu", "--set", *SETTINGS]
    out, err = program(*command).communicate(timeout=60)
    bar = out.splitlines()[-3]
    assert err == "" and "12/12 [" in bar and "step/s, loss " in bar and bar.endswith(" tokens/s]")
    assert "<" in bar.split("12/12 [")[1]  # time taken < time left
    loss = json.loads(Path("bar/log.jsonl").read_text().splitlines()[-1])["loss"]
    assert f"loss {loss:.3f}, " in bar


def test_the_progress_bar_can_be_turned_off(work):
    command = [*TRAIN[:3], "--out", "quiet", "--device", "cpu", "--set", *SETTINGS]
    out, err = program(*command, env={"TQDM_DISABLE": "1"}).communicate(timeout=60)
    assert err == "" and "step/s" not in out and "Done: 12 steps" in out


def test_a_reader_who_goes_away_ends_the_program_quietly(work):
    sampling = program("generate", "run", "--max-new-tokens", "20", "--num-samples", "50")
    sampling.stdout.readline()
    sampling.stdout.close()  # as `| head -1` does
    assert sampling.stderr.read() == "" and sampling.wait(timeout=60) == 141


def test_a_training_stopped_with_the_keyboard_says_how_to_go_on(work):
    endless = [s for s in SETTINGS if not s.startswith("max_steps")] + ["max_steps=1000000"]
    training = program("train", "--corpus", "corpus.txt", "--out", "endless", "--device", "cpu", "--set", *endless)
    while not Path("endless/last.pt").exists() and training.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert err == "llmcourse: stopped. A training run goes on from its last checkpoint with --resume.\n"
    assert checkpoint.load("endless/last.pt").training["step"] >= 0


@pytest.mark.slow
def test_a_training_killed_at_any_moment_goes_on_with_resume(work):
    settings = [*SHAPE, "max_steps=400", "warmup_steps=20", "eval_interval=20", "log_interval=3", "dropout=0.1"]
    train = ["train", "--corpus", "corpus.txt", "--device", "cpu", "--set", *settings]
    whole = program(*train, "--out", "whole")
    assert whole.communicate(timeout=120)[1] == ""
    for i in range(4):
        training = program(*train, "--out", "killed", "--resume")
        while not Path("killed/last.pt").exists() and training.poll() is None:
            time.sleep(0.01)
        time.sleep((0.1, 2.0, 2.2, 2.4)[i])
        training.kill()
        training.communicate()
    assert program(*train, "--out", "killed", "--resume").communicate(timeout=120)[1] == ""
    logs = []
    for folder in ("whole", "killed"):
        records = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in r.items() if "second" not in k} for r in records])
    assert logs[0] == logs[1] and Path("whole/best.pt").read_bytes() == Path("killed/best.pt").read_bytes()
