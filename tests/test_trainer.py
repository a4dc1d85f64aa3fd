"""The training loop: the schedule, the optimizers, the exact evaluation, and above all that nothing is ever lost.

Run as a program this file is a training run that two processes share (`cooperate`). Killed for real: `test_faults.py`.
"""

import copy
import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import checkpoint, data, trainer
from llmcourse.device import PRECISIONS
from llmcourse.errors import CourseError
from llmcourse.evaluation import checked_ids, fingerprint
from llmcourse.model import GPT, GPTConfig
from llmcourse.muon import Muon
from llmcourse.tokenizer import CharTokenizer
from llmcourse.trainer import TrainConfig, Trainer, configure_optimizers, evaluate, get_lr

torch.set_num_threads(1)
IDS = torch.arange(700).square() // 7 % 11  # something to learn, over 11 tokens
TRAIN, VAL = IDS[:600], IDS[600:653]  # 52 tokens to score: six windows of 8, and a rest of 4
SHAPE = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16)
SMALL = TrainConfig(
    max_steps=24, batch_size=4, learning_rate=3e-3, warmup_steps=4,
    eval_interval=8, log_interval=3, checkpoint_interval=5,
)  # fmt: skip


class Killed(BaseException):
    """Nothing catches this, as nothing catches SIGKILL."""


def make_model(dropout: float = 0.0, **changes) -> GPT:
    torch.manual_seed(0)
    return GPT(replace(SHAPE, dropout=dropout, **changes))


def make_trainer(
    out_dir=None, *, dropout=0.0, double=False, resume=False, train_data=TRAIN, val_data=VAL, on_eval=None, **changes
) -> Trainer:
    """`double` computes in float64, for comparisons in which rounding would be blown up on the way."""
    model, config = make_model(dropout), replace(SMALL, **changes)
    return Trainer(
        model.double() if double else model, config, train_data, val_data,
        out_dir=out_dir, resume=resume, device="cpu", progress=False, on_eval=on_eval,
    )  # fmt: skip


def untimed(log: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in log]


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def curve(log: list[dict]) -> torch.Tensor:
    return torch.tensor([r[k] for r in log for k in ("loss", "val_loss") if k in r], dtype=torch.float64)


def program(*arguments: str, **options) -> subprocess.Popen:
    """This file, started as a program of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# ---- the settings ---------------------------------------------------------------------------------------------

NOT_NUMBERS = st.none() | st.booleans() | st.text(max_size=3) | st.just([1]) | st.just(math.nan) | st.just(math.inf)
KNOWN = {*trainer.SCHEDULES, *trainer.OPTIMIZERS, "auto", "fp32", "bf16", "fp16"}  # hypothesis finds these by itself
WRONG = {
    int: NOT_NUMBERS | st.integers(max_value=-1) | st.floats() | st.integers(min_value=2**63),
    float: NOT_NUMBERS | st.floats(max_value=0, exclude_max=True) | st.just(10**400),
    bool: st.none() | st.integers() | st.text(max_size=3),
    str: st.none() | st.integers() | st.booleans() | st.text(max_size=8).filter(lambda word: word not in KNOWN),
    int | None: st.booleans() | st.integers(max_value=0) | st.floats() | st.text(max_size=3),
}


@pytest.mark.promise(
    "Bad input",
    "Any wrong value in any setting of a training is one sentence that names the "
    "setting.",
)
@settings(deadline=None, max_examples=300)
@given(st.sampled_from(fields(TrainConfig)).flatmap(lambda f: st.tuples(st.just(f.name), WRONG[f.type])))
def test_any_wrong_value_in_any_field_is_one_sentence_that_names_the_field(wrong):
    name, value = wrong
    with pytest.raises(CourseError) as caught:
        TrainConfig(**{name: value})
    assert str(caught.value).startswith(name) and str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["max_steps", "batch_size", "accumulation_steps", "eval_interval", "log_interval"])
def test_counts_must_be_at_least_one(name):
    with pytest.raises(CourseError, match=f"{name} must be a whole number of at least 1, not 0"):
        TrainConfig(**{name: 0})


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"warmup_steps": 2001}, r"warmup_steps \(2001\) must not exceed max_steps \(2000\)"),
        ({"min_lr": 0.1}, r"min_lr \(0.1\) must not exceed learning_rate \(0.001\)"),
        ({"batch_size": 12, "accumulation_steps": 5}, r"batch_size \(12\) must be a multiple of accumulation_steps"),
        ({"beta2": 1.0}, "beta2 must be below 1"),
        ({"decay_fraction": 1.5}, "decay_fraction must be at most 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, sentence):
    with pytest.raises(CourseError, match=sentence):
        TrainConfig(**changes)


# ---- the schedule ---------------------------------------------------------------------------------------------


@st.composite
def schedules(draw):
    max_steps = draw(st.integers(1, 300))
    peak = draw(st.floats(1e-6, 1.0))
    return TrainConfig(
        max_steps=max_steps,
        warmup_steps=draw(st.integers(0, max_steps)),
        learning_rate=peak,
        min_lr=peak * draw(st.floats(0, 1)),
        schedule=draw(st.sampled_from(trainer.SCHEDULES)),
        decay_fraction=draw(st.floats(0, 1)),
    )


@settings(deadline=None, max_examples=300)
@given(schedules())
def test_every_schedule_is_exact_at_its_boundaries_and_monotone_between_them(c):
    lr = [get_lr(step, c) for step in range(c.max_steps + 3)]
    slack = 1 + 1e-12
    assert all(0 < rate <= c.learning_rate * slack for rate in lr[: c.warmup_steps])
    assert all(c.min_lr / slack <= rate <= c.learning_rate * slack for rate in lr[c.warmup_steps :])
    rising, falling = lr[: c.warmup_steps], lr[c.warmup_steps :]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    if c.warmup_steps:
        assert lr[c.warmup_steps - 1] == c.learning_rate
        assert math.isclose(lr[0], c.learning_rate / c.warmup_steps)
    if c.warmup_steps < c.max_steps and not (c.schedule == "wsd" and c.decay_fraction == 0):
        assert lr[c.warmup_steps] == c.learning_rate
    end = c.learning_rate if c.schedule == "constant" else c.min_lr
    assert lr[c.max_steps :] == [end] * 3


def test_each_schedule_has_its_own_shape():
    c = TrainConfig(max_steps=110, warmup_steps=10, learning_rate=1.0, min_lr=0.2)
    assert get_lr(4, c) == 0.5  # the fifth of ten steps up
    assert math.isclose(get_lr(60, c), 0.6)  # cosine: halfway down in the middle
    assert math.isclose(get_lr(35, c), 0.2 + 0.8 * (0.5 + math.sqrt(0.125)))  # a quarter of the way: cos 45°
    assert math.isclose(get_lr(35, replace(c, schedule="linear")), 0.8)
    assert get_lr(109, replace(c, schedule="constant")) == 1.0
    wsd = replace(c, schedule="wsd", decay_fraction=0.2)  # the last 22 of 110 steps
    assert get_lr(88, wsd) == 1.0 and math.isclose(get_lr(99, wsd), 0.6) and get_lr(110, wsd) == 0.2


def test_without_warmup_the_first_step_has_the_peak():
    assert get_lr(0, TrainConfig(warmup_steps=0, learning_rate=0.5)) == 0.5


# ---- the optimizers -------------------------------------------------------------------------------------------


PARTS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
LINEAR = {f"transformer.h.{layer}.{part}" for layer in (0, 1) for part in PARTS}


def names_of(model: GPT, group: dict) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}


def test_matrices_and_embeddings_decay_and_biases_and_gains_do_not():
    model = make_model()
    (adamw,) = configure_optimizers(model, replace(SMALL, weight_decay=0.3))
    decayed, plain = adamw.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    tables = {"transformer.wte.weight", "transformer.wpe.weight"}  # wte is also lm_head: the tied matrix, once
    assert names_of(model, decayed) == {f"{name}.weight" for name in LINEAR} | tables
    norms = {"transformer.ln_f"} | {f"transformer.h.{i}.ln_{j}" for i in (0, 1) for j in (1, 2)}
    assert names_of(model, plain) == {f"{n}.bias" for n in LINEAR | norms} | {f"{n}.weight" for n in norms}
    assert sum(p.numel() for g in adamw.param_groups for p in g["params"]) == model.num_params()


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    model = make_model(tie_weights=False)
    adamw, muon = configure_optimizers(model, replace(SMALL, optimizer="muon", muon_lr=0.05))
    assert names_of(model, muon.param_groups[0]) == {f"{name}.weight" for name in LINEAR}
    rest = names_of(model, adamw.param_groups[0]) | names_of(model, adamw.param_groups[1])
    assert rest == {n for n, _ in model.named_parameters()} - {f"{name}.weight" for name in LINEAR}
    assert {"lm_head.weight", "transformer.wte.weight", "transformer.wpe.weight"} <= rest
    assert [g["peak_lr"] for o in (adamw, muon) for g in o.param_groups] == [3e-3, 3e-3, 0.05]


def test_the_schedule_scales_both_optimizers_alike():
    t = make_trainer(optimizer="muon", muon_lr=0.05, learning_rate=4e-3, warmup_steps=4)
    t.train_step()  # step 0: a quarter of the peak
    assert [g["lr"] for o in t.optimizers for g in o.param_groups] == pytest.approx([1e-3, 1e-3, 0.0125])


def test_a_model_without_biases_and_gains_can_be_trained():
    model = make_model(norm="none", bias=False)
    log = Trainer(model, replace(SMALL, max_steps=5), TRAIN, device="cpu", progress=False).run()
    assert all(math.isfinite(r["loss"]) for r in log)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_equals_the_same_steps_written_out_by_hand(optimizer):
    t = make_trainer(optimizer=optimizer, grad_clip=0.5, val_data=None, max_steps=12, double=True)
    model = make_model().double()
    matrices = [p for n, p in model.named_parameters() if ".h." in n and n.endswith("weight") and ".ln_" not in n]
    vectors = [p for n, p in model.named_parameters() if ".ln_" in n or "ln_f" in n or n.endswith("bias")]
    tables = [model.transformer.wpe.weight, model.lm_head.weight]
    by_adamw = tables + (matrices if optimizer == "adamw" else [])
    optimizers = [
        torch.optim.AdamW(by_adamw, betas=(0.9, 0.99), weight_decay=0.1, fused=False),
        torch.optim.AdamW(vectors, betas=(0.9, 0.99), weight_decay=0.0, fused=False),
        *([Muon(matrices, weight_decay=0.1)] if optimizer == "muon" else []),
    ]
    generator, losses = torch.Generator().manual_seed(1337), []
    for step in range(12):
        lr = get_lr(step, t.config)
        for i, o in enumerate(optimizers):
            o.param_groups[0]["lr"] = lr if i < 2 else 0.02 * lr / 3e-3
        x, y = data.get_batch(TRAIN, 4, 8, generator)
        loss = -model(x).log_softmax(-1).gather(-1, y[..., None]).mean()
        model.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        for p in model.parameters():
            p.grad *= min(1.0, 0.5 / (norm + 1e-6))  # torch's formula
        for o in optimizers:
            o.step()
        losses.append(loss.item())
    log = t.run()
    assert [r["loss"] for r in log] == pytest.approx([sum(losses[i : i + 3]) / 3 for i in (0, 3, 6, 9)], abs=1e-6)
    assert log[-1]["grad_norm"] == pytest.approx(norm, rel=1e-6)
    torch.testing.assert_close(t.model.state_dict(), model.state_dict(), rtol=0, atol=1e-8)


def test_clipping_shortens_the_gradient_and_the_log_tells_its_length_before():
    lengths = {}
    for clip in (0.0, 0.01):
        t = make_trainer(grad_clip=clip)
        norm = t.train_step().item()
        after = math.sqrt(sum(float(p.grad.square().sum()) for p in t.model.parameters()))
        lengths[clip] = norm, after
    assert lengths[0.0][0] == lengths[0.01][0] > 0.1  # before clipping both are the same
    assert lengths[0.0][1] == pytest.approx(lengths[0.0][0], rel=1e-5)  # 0 turns clipping off
    assert lengths[0.01][1] == pytest.approx(0.01, rel=1e-3)


# ---- accumulation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_the_gradient_of_a_batch_in_pieces_is_the_gradient_of_the_batch(pieces):
    whole, cut = (make_trainer(batch_size=8, accumulation_steps=n, grad_clip=0.0) for n in (1, pieces))
    whole.train_step(), cut.train_step()
    largest = max(float(p.grad.abs().max()) for p in whole.model.parameters())
    for a, b in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        assert float((a.grad - b.grad).abs().max()) < 1e-6 * largest


@pytest.mark.promise("Equality", "A batch computed in four pieces gives the training curve of the whole batch.")
def test_accumulation_gives_the_training_curve_of_the_large_batch():
    whole, cut = (make_trainer(batch_size=8, accumulation_steps=n, max_steps=60).run() for n in (1, 4))
    torch.testing.assert_close(curve(cut), curve(whole), rtol=0, atol=1e-6)


# ---- evaluation -----------------------------------------------------------------------------------------------


@torch.no_grad()
def token_by_token(model: GPT, ids: torch.Tensor, T: int) -> float:
    """The same number the slow way: every token predicted from its own window, one at a time."""
    losses = []
    for i in range(1, len(ids)):
        context = ids[(i - 1) // T * T : i]
        losses.append(-model(context[None])[0, -1].double().log_softmax(-1)[ids[i]].item())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 17, 53])
def test_evaluation_scores_every_token_once_also_those_of_the_last_short_window(length):
    model, ids = make_model(dropout=0.5).eval(), VAL[:length]
    assert evaluate(model, ids) == pytest.approx(token_by_token(model, ids, 8), abs=1e-6)
    assert evaluate(model, ids, block_size=3) == pytest.approx(token_by_token(model, ids, 3), abs=1e-6)


def test_evaluation_does_not_depend_on_how_many_windows_go_at_once():
    model = make_model()
    results = [evaluate(model, IDS, batch_size=n) for n in (1, 2, 3, 64)]
    assert max(results) - min(results) < 1e-6
    assert evaluate(model, IDS) == results[-1]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_restores_the_mode_and_uses_no_dropout_and_no_random_numbers(training):
    model = make_model(dropout=0.5).train(training)
    before = torch.get_rng_state()
    assert evaluate(model, VAL) == evaluate(model, VAL)
    assert model.training is training and torch.equal(torch.get_rng_state(), before)


def test_evaluation_reads_tensors_arrays_lists_and_token_files_alike(tmp_path):
    model = make_model()
    data.write_tokens(tmp_path / "ids.bin", VAL)
    kinds = [VAL, VAL.to(torch.uint16), VAL.int(), VAL.numpy(), VAL.tolist(), data.open_tokens(tmp_path / "ids.bin")]
    assert len({evaluate(model, ids) for ids in kinds}) == 1


@pytest.mark.parametrize(
    "ids, sentence",
    [
        (VAL[:1], "at least 2 tokens, not 1"),
        (VAL[:0], "at least 2 tokens, not 0"),
        (torch.tensor([3, 11, 2]), "holds token 11, but the model knows the tokens 0 to 10"),
        (torch.tensor([3, -1, 2]), "holds token -1, but"),
        (VAL.float(), "whole numbers"),
        (VAL.view(1, -1).repeat(3, 1), "one row"),
        ("some text", "text, not token ids"),
    ],
)
def test_evaluation_refuses_data_that_is_none(ids, sentence):
    with pytest.raises(CourseError, match=sentence):
        evaluate(make_model(), ids)


def test_a_large_vocabulary_is_evaluated_in_small_pieces():
    model, seen = make_model(), []
    model.register_forward_hook(lambda module, args, output: seen.append(output.numel()))
    big = GPT(GPTConfig(vocab_size=50257, block_size=256, n_layer=1, n_head=1, n_embd=2))
    big.register_forward_hook(lambda module, args, output: seen.append(output.numel()))
    evaluate(model, IDS)
    evaluate(big, torch.arange(2000))
    assert max(seen) <= 2**26


# ---- a run ----------------------------------------------------------------------------------------------------


def test_a_record_holds_what_the_documentation_says():
    log = make_trainer(on_eval=lambda model: {"sample": "O"}).run()
    assert [r["step"] for r in log] == [0, 3, 6, 8, 9, 12, 15, 16, 18, 21, 24]
    first, *rest = log
    assert first.keys() == {"step", "tokens", "val_loss", "sample"} and abs(first["val_loss"] - math.log(11)) < 0.1
    plain = {"step", "tokens", "lr", "loss", "grad_norm", "seconds", "tokens_per_second"}
    for r in rest:
        assert r.keys() == (plain | {"val_loss", "sample"} if r["step"] % 8 == 0 else plain)
        assert r["tokens"] == r["step"] * 4 * 8 and r["lr"] == get_lr(r["step"] - 1, SMALL)
        assert r["tokens_per_second"] > 0 and r["grad_norm"] > 0
    assert [r["seconds"] for r in rest] == sorted(r["seconds"] for r in rest)
    assert rest[-1]["loss"] < first["val_loss"] - 0.1  # it learns


def test_the_loss_of_a_record_is_the_mean_since_the_last_one():
    every = [r["loss"] for r in make_trainer(val_data=None, log_interval=1).run()]
    coarse = [r["loss"] for r in make_trainer(val_data=None, log_interval=6).run()]
    assert coarse == pytest.approx([sum(every[i : i + 6]) / 6 for i in range(0, 24, 6)], abs=1e-6)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert make_trainer().run()[-1]["step"] == 24
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    runs = [untimed(make_trainer(dropout=0.2, seed=seed).run()) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert torch.initial_seed() == 2  # of the dropout; the batches have a generator of their own


def test_data_in_a_memory_mapped_file_gives_the_same_run_bit_for_bit(tmp_path):
    data.write_tokens(tmp_path / "train.bin", TRAIN), data.write_tokens(tmp_path / "val.bin", VAL)
    mapped = [data.open_tokens(tmp_path / f"{part}.bin") for part in ("train", "val")]
    assert isinstance(mapped[0], np.memmap) and mapped[0].dtype == np.uint16
    reference = make_trainer()
    log = untimed(reference.run())
    for train, val in (mapped, (TRAIN.tolist(), VAL.tolist()), (TRAIN.to(torch.uint16), VAL.int())):
        t = make_trainer(train_data=train, val_data=val)
        assert t.data_id == reference.data_id and untimed(t.run()) == log


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"train_data": torch.tensor([1, 2, 11] * 9)}, "holds token 11, but the model knows the tokens 0 to 10"),
        ({"val_data": torch.tensor([1, -2, 3])}, "holds token -2"),
        ({"train_data": TRAIN[:8]}, "8 tokens are too few for block_size 8"),
        ({"train_data": "to be or not to be"}, "text, not token ids"),
        ({"train_data": TRAIN.double()}, "whole numbers"),
        ({"precision": "fp16"}, "fp16 with a gradient scaler is for GPUs"),
    ],
)
def test_unfit_data_and_settings_are_refused_before_the_first_step(changes, sentence):
    with pytest.raises(CourseError, match=sentence):
        make_trainer(**changes)


def test_training_stops_when_patience_runs_out_and_the_best_checkpoint_is_the_best(tmp_path):
    noise = torch.randint(11, (120,), generator=torch.Generator().manual_seed(5))
    t = make_trainer(
        tmp_path, train_data=TRAIN[:30], val_data=noise, patience=2, max_steps=400, eval_interval=10,
        learning_rate=1e-2, warmup_steps=20,
    )  # fmt: skip
    log = t.run()
    losses = [r["val_loss"] for r in log if "val_loss" in r]
    assert log[-1]["step"] < 400 and losses.index(min(losses)) == len(losses) - 3
    best = checkpoint.load(tmp_path / "best.pt")
    assert evaluate(best.model, noise) == min(losses) == t.best_loss == best.training["best_loss"]
    resumed = make_trainer(
        tmp_path, resume=True, train_data=TRAIN[:30], val_data=noise, patience=2, max_steps=400, eval_interval=10,
        learning_rate=1e-2, warmup_steps=20,
    )  # fmt: skip
    assert resumed.run() == log  # a run that has ended stays ended


def test_a_model_that_only_gets_worse_still_has_a_best_checkpoint(tmp_path):
    t = make_trainer(tmp_path, learning_rate=10.0, grad_clip=0.0, max_steps=8, warmup_steps=0)
    log = t.run()
    assert log[-1]["val_loss"] > log[0]["val_loss"]
    assert checkpoint.load(tmp_path / "best.pt").training["step"] == 0


def test_the_tokenizer_travels_in_both_checkpoints(tmp_path):
    tokenizer = CharTokenizer("abcdefghijk")
    t = Trainer(make_model(), SMALL, TRAIN, VAL, tokenizer=tokenizer, out_dir=tmp_path, device="cpu", progress=False)
    t.run()
    for name in ("last.pt", "best.pt"):
        assert checkpoint.load(tmp_path / name).tokenizer.chars == tokenizer.chars


def test_on_eval_may_return_only_what_a_log_can_hold(tmp_path):
    log = make_trainer(tmp_path, on_eval=lambda model: {"accuracy": np.float64(0.25), "pair": (1, 2)}).run()
    assert type(log[0]["accuracy"]) is float and log[0]["pair"] == [1, 2]
    assert make_trainer(tmp_path, resume=True).log == log  # so that its checkpoint loads again
    with pytest.raises(CourseError, match="on_eval must return a dict of numbers and text"):
        make_trainer(on_eval=lambda model: {"logits": torch.ones(2)}).run()


def test_bf16_on_the_cpu_trains_and_the_log_says_nothing_strange():
    t = make_trainer(precision="bf16")
    log, exact = t.run(), make_trainer().run()
    assert t.policy.name == "bf16" and t.model.lm_head.weight.dtype == torch.float32
    assert log[-1]["loss"] == pytest.approx(exact[-1]["loss"], abs=0.02) and log[-1]["loss"] != exact[-1]["loss"]


def test_compile_trains_the_compiled_model_and_saves_the_plain_one(tmp_path, monkeypatch):
    compiled = []

    class Compiled(torch.nn.Module):  # what torch.compile returns: another module around the same weights
        def __init__(self, model):
            super().__init__()
            self._orig_mod, self.calls = model, 0
            compiled.append(self)

        def forward(self, idx):
            self.calls += 1
            return self._orig_mod(idx)

    monkeypatch.setattr(torch, "compile", Compiled)
    log = make_trainer(tmp_path, compile=True).run()
    assert compiled[0].calls == 24 and untimed(log) == untimed(make_trainer().run())
    assert checkpoint.load(tmp_path / "best.pt").model.config == SHAPE


def test_a_run_stopped_with_the_keyboard_goes_on_in_the_same_notebook(tmp_path, monkeypatch):
    t, step = make_trainer(tmp_path, dropout=0.2), Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda t: die(KeyboardInterrupt) if t.step == 10 else step(t))
    with pytest.raises(KeyboardInterrupt):
        t.run()
    monkeypatch.undo()
    assert untimed(t.run()) == untimed(make_trainer(dropout=0.2).run()) and read_log(tmp_path) == t.log


def die(error: type[BaseException]) -> None:
    raise error


# ---- killed and resumed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])  # muon runs both
@pytest.mark.promise(
    "Faults",
    "A training that dies before or after any single rename, flush or log line resumes bit for bit, "
    "one moment after the other.",
)
def test_a_run_that_dies_at_any_moment_around_its_files_resumes_bit_for_bit(tmp_path, monkeypatch, optimizer):
    """Dies before and after every rename, flush and log line, one after the other, until none is left to die at."""
    options = {"optimizer": optimizer, "dropout": 0.2, "max_steps": 12, "eval_interval": 6, "checkpoint_interval": 4}
    reference = make_trainer(tmp_path / "whole", **options)
    expected = untimed(reference.run())
    replace_file, flush, write = os.replace, os.fsync, Trainer.write
    moments = 0

    def tick():
        nonlocal moments
        moments -= 1
        if moments == 0:
            raise Killed

    def guarded(function):
        def wrapper(*args):
            tick()
            function(*args)
            tick()

        return wrapper

    died = 0
    for last_moment in range(1, 200):
        folder, moments = tmp_path / str(last_moment), last_moment
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", guarded(replace_file))
            patch.setattr(os, "fsync", guarded(flush))
            patch.setattr(Trainer, "write", guarded(write))
            try:
                make_trainer(folder, **options).run()
                break
            except Killed:
                died += 1
        folder.mkdir(exist_ok=True)
        (folder / ".last.pt.0123abcd.part").write_bytes(b"half a checkpo")
        with open(folder / "log.jsonl", "a") as f:
            f.write('{"step": 5, "tok')  # half a line
        resumed = make_trainer(folder, resume=True, **options)
        assert untimed(resumed.run()) == expected
        assert read_log(folder) == resumed.log
        assert sorted(p.name for p in folder.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
        assert (folder / "best.pt").read_bytes() == (tmp_path / "whole" / "best.pt").read_bytes()
        for a, b in zip(resumed.model.parameters(), reference.model.parameters(), strict=True):
            assert torch.equal(a, b)
    assert died > 40


@pytest.mark.promise(
    "Faults",
    "A new training never overwrites a run that a folder already holds.",
)
def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    make_trainer(tmp_path, max_steps=5).run()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CourseError, match="already holds a run"):
        make_trainer(tmp_path, max_steps=5)
    (tmp_path / "last.pt").unlink()
    with pytest.raises(CourseError, match="already holds a run"):
        make_trainer(tmp_path, max_steps=5)
    with pytest.raises(CourseError, match=r"holds best\.pt but no last\.pt"):
        make_trainer(tmp_path, max_steps=5, resume=True)
    assert all((tmp_path / name).read_bytes() == before[name] for name in ("best.pt", "log.jsonl"))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"learning_rate": 1e-3, "max_steps": 30}, "max_steps, learning_rate"),
        ({"optimizer": "muon"}, "optimizer"),
        ({"dropout": 0.1}, "the model's configuration"),
        ({"train_data": torch.cat((TRAIN[:300], TRAIN[299:300], TRAIN[301:]))}, "the data"),  # one token in the middle
        ({"val_data": None}, "the data"),
    ],
)
@pytest.mark.promise(
    "Faults",
    "A run is not resumed with other settings, another model or other data (one token is enough): the message names "
    "what changed.",
)
def test_a_run_resumed_with_something_else_is_refused_and_told_what_changed(tmp_path, changes, named):
    make_trainer(tmp_path).run()
    with pytest.raises(CourseError, match=rf"started with different settings \({named}\)"):
        make_trainer(tmp_path, resume=True, **changes)


ANOTHER = {  # of every setting, a value that it could have had
    "max_steps": 25, "batch_size": 8, "accumulation_steps": 2, "learning_rate": 2e-3, "min_lr": 1e-9,
    "warmup_steps": 5, "schedule": "linear", "decay_fraction": 0.3, "optimizer": "muon", "muon_lr": 0.01,
    "muon_rounds": 3, "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.95, "grad_clip": 0.5, "eval_interval": 12,
    "log_interval": 4, "checkpoint_interval": 6, "patience": 3, "precision": "fp32", "compile": True, "seed": 7,
}  # fmt: skip
ANOTHER_SHAPE = {
    "vocab_size": 12, "block_size": 9, "n_layer": 1, "n_head": 1, "n_embd": 8, "dropout": 0.3, "bias": False,
    "tie_weights": False, "position": "rope", "norm": "rmsnorm", "norm_position": "post", "activation": "relu",
    "qk_norm": True, "zero_init": True, "init_std": 0.05, "ngram": 2, "ngram_rows": 100,
}  # fmt: skip


@pytest.mark.promise(
    "Equality",
    "A stopped run refuses to go on if any one of its settings differs, in the model, the training or the tokenizer, "
    "and names it; with its own settings it then gives the log of a run that nobody stopped, to the last bit.",
)
def test_no_setting_can_change_between_stop_and_resume_and_the_right_ones_still_resume_bit_for_bit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch, "compile", lambda model: model)  # takes seconds, and is refused anyway
    assert set(ANOTHER) == {f.name for f in fields(TrainConfig)}
    assert set(ANOTHER_SHAPE) == {f.name for f in fields(GPTConfig)}
    abc = CharTokenizer("abcdefghijk")

    def in_folder(name: str, tokenizer=abc, model=None, resume=False, **changes) -> Trainer:
        return Trainer(
            model or make_model(0.2), replace(SMALL, **changes), TRAIN, VAL, tokenizer=tokenizer,
            out_dir=tmp_path / name, resume=resume, device="cpu", progress=False,
        )  # fmt: skip

    whole = in_folder("whole")
    whole.run()
    stopped = in_folder("stopped")
    stopped.train_step = lambda: die(Killed) if stopped.step == 13 else Trainer.train_step(stopped)
    with pytest.raises(Killed):
        stopped.run()
    files = {p.name: p.read_bytes() for p in (tmp_path / "stopped").iterdir()}
    wrong = [(name, {name: value}) for name, value in ANOTHER.items()]
    shapes = [GPT(replace(SHAPE, **{"dropout": 0.2, name: value})) for name, value in ANOTHER_SHAPE.items()]
    wrong += [("the model's configuration", {"model": model}) for model in shapes]
    wrong += [("the tokenizer", {"tokenizer": t}) for t in (None, CharTokenizer("bacdefghijk"))]
    for named, changes in wrong:
        with pytest.raises(CourseError, match=rf"different settings \({named}\)"):
            in_folder("stopped", resume=True, **changes)
    assert {p.name: p.read_bytes() for p in (tmp_path / "stopped").iterdir()} == files
    resumed = in_folder("stopped", resume=True)
    assert resumed.step == 10 and untimed(resumed.run()) == untimed(whole.log)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_a_setting_that_this_version_does_not_know_cannot_be_resumed(tmp_path):
    make_trainer(tmp_path, max_steps=5).run()
    saved = checkpoint.load(tmp_path / "last.pt")
    saved.training["config"]["label_smoothing"] = 0.1  # of a later version
    checkpoint.save(tmp_path / "last.pt", saved.model, training=saved.training)
    with pytest.raises(CourseError, match=r"different settings \(label_smoothing\)"):
        make_trainer(tmp_path, max_steps=5, resume=True)


def test_weights_without_a_training_state_cannot_be_resumed(tmp_path):
    make_trainer(tmp_path, max_steps=5).run()
    for content in ({}, {**checkpoint.load(tmp_path / "last.pt").training, "batches": None}):
        content.pop("batches", None)
        checkpoint.save(tmp_path / "last.pt", make_model(), training=content)
        with pytest.raises(CourseError, match="not the state of a training run"):
            make_trainer(tmp_path, max_steps=5, resume=True)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CourseError, match=r"Cannot write .*choose another folder"):
        make_trainer(tmp_path / "file" / "run").run()


def test_a_disk_that_fills_up_while_the_log_is_written_is_one_sentence(tmp_path, monkeypatch):
    t = make_trainer(tmp_path)
    t.run()
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(CourseError, match="No space left on device"):
        t.write({"step": 25})


def test_the_fingerprint_knows_every_token_and_not_how_it_is_stored():
    ids = torch.arange(2**20 + 5) % 60_000
    assert fingerprint(ids) == fingerprint(ids.numpy().astype(np.uint16)) == fingerprint(ids.int())
    for place in (0, 2**19, 2**20, 2**20 + 4):
        changed = ids.clone()
        changed[place] += 1
        assert fingerprint(changed) != fingerprint(ids)
    assert fingerprint(ids[:-1]) != fingerprint(ids)
    assert checked_ids(ids, 60_000) is ids


# ---- fp16, on the CPU -----------------------------------------------------------------------------------------


@pytest.fixture
def fp16(monkeypatch):
    """Training computes as on a T4: in fp16, with a gradient scaler. Otherwise the CPU refuses that, as it is slow."""
    monkeypatch.setattr(trainer, "precision_policy", lambda *args: PRECISIONS["fp16"])


def scaled_trainer(scale: float, growth_interval: int = 2000, **changes) -> Trainer:
    t = make_trainer(**changes)
    t.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=growth_interval)
    return t


@pytest.mark.parametrize("optimizer", trainer.OPTIMIZERS)
@pytest.mark.promise(
    "Equality",
    "Training in fp16 has nearly the losses of fp32, and neither the logged losses nor the clipped steps depend on the "
    "factor by which gradients are scaled.",
)
def test_in_fp16_the_scale_of_the_gradients_changes_neither_losses_nor_steps(fp16, optimizer):
    runs = [scaled_trainer(scale, optimizer=optimizer, grad_clip=0.1) for scale in (2.0**8, 2.0**16)]
    small, large = (t.run() for t in runs)
    assert curve(small).tolist() == pytest.approx(curve(large).tolist(), abs=2e-3)
    norms = [[r["grad_norm"] for r in log[1:]] for log in (small, large)]
    assert norms[0] == pytest.approx(norms[1], rel=0.02) and min(norms[0]) > 0.1  # so that every step is clipped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "precision_policy", lambda *args: PRECISIONS["fp32"])
        exact = make_trainer(optimizer=optimizer, grad_clip=0.1).run()
    assert curve(large).tolist() == pytest.approx(curve(exact).tolist(), abs=0.02) and untimed(large) != untimed(exact)


@pytest.mark.parametrize("optimizer", trainer.OPTIMIZERS)
@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
@pytest.mark.promise(
    "Equality",
    "When an fp16 gradient overflows, in whichever weight, the step changes no weight and no optimizer state, the "
    "scale is halved and training goes on.",
)
def test_a_gradient_that_overflows_anywhere_skips_the_whole_step(fp16, optimizer, grad_clip):
    t = scaled_trainer(2.0**10, optimizer=optimizer, grad_clip=grad_clip, schedule="constant")
    for _ in range(3):
        t.train_step()
    for i, (name, p) in enumerate(t.model.named_parameters()):
        bad = (math.inf, math.nan)[i % 2]
        states = [t.model.state_dict(), *(o.state_dict()["state"] for o in t.optimizers)]
        before, step = copy.deepcopy(states), t.step
        hook = p.register_hook(lambda grad, bad=bad: torch.full_like(grad, bad))
        assert not t.train_step().isfinite()
        hook.remove()
        torch.testing.assert_close(states, before, rtol=0, atol=0, msg=f"{name} {bad}")
        assert (t.scaler.get_scale(), t.step) == (2.0**9, step + 1)
        t.scaler.update(2.0**10)
    before = copy.deepcopy(t.model.state_dict())
    assert t.train_step().isfinite()
    assert all(not torch.equal(p, before[name]) for name, p in t.model.state_dict().items())


def test_a_scale_that_is_too_large_comes_down_by_itself(fp16):
    t = scaled_trainer(2.0**30, max_steps=60)
    log = t.run()
    assert 2**10 < t.scaler.get_scale() < 2**25
    assert not math.isfinite(log[1]["grad_norm"]) and math.isfinite(log[-1]["grad_norm"])
    assert log[-1]["loss"] < log[0]["val_loss"] - 0.05 and all(p.isfinite().all() for p in t.model.parameters())


def test_a_run_in_fp16_resumes_bit_for_bit_with_its_scale(fp16, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, growth_interval=4))
    whole = make_trainer(tmp_path / "whole", dropout=0.2)
    whole.run()
    assert whole.scaler.get_scale() > 2**16  # it grew on the way
    stopped, step = make_trainer(tmp_path / "stopped", dropout=0.2), Trainer.train_step
    stopped.train_step = lambda: die(Killed) if stopped.step == 13 else step(stopped)
    with pytest.raises(Killed):
        stopped.run()
    resumed = make_trainer(tmp_path / "stopped", dropout=0.2, resume=True)
    assert resumed.scaler.get_scale() > 2**16 and untimed(resumed.run()) == untimed(whole.log)
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()


@pytest.mark.parametrize("first, second", [("fp32", "fp16"), ("fp16", "fp32"), ("bf16", "fp16")])
def test_a_run_may_go_on_on_a_device_with_another_precision(tmp_path, monkeypatch, first, second):
    for name, resume in ((first, False), (second, True)):
        monkeypatch.setattr(trainer, "precision_policy", lambda *args, name=name: PRECISIONS[name])
        t = make_trainer(tmp_path, resume=resume)
        monkeypatch.setattr(t, "out_of_patience", lambda t=t, resume=resume: t.step == 10 and not resume)
        t.run()
    assert t.step == 24 and math.isfinite(t.log[-1]["loss"])
    assert t.scaler.is_enabled() == (second == "fp16")


# ---- several processes ----------------------------------------------------------------------------------------

JOBS = {
    "plain": {},
    "pieces": {"batch_size": 8, "accumulation_steps": 2},
    "muon": {"optimizer": "muon", "double": True},  # it orthogonalizes in bf16: one digit becomes many
    "dropout": {"dropout": 0.2},
}


def cooperate(folder: str) -> None:
    """One of two processes that train together; the first one writes the logs down."""
    logs = {name: make_trainer(Path(folder, name), **changes).run() for name, changes in JOBS.items()}
    logs["rows"] = [x.tolist() for x, _ in make_trainer(**JOBS["pieces"]).batches()]
    logs["seed"] = torch.initial_seed()
    step = Trainer.train_step
    Trainer.train_step = lambda t: die(Killed) if t.step == 13 else step(t)  # after checkpoint 10, in between records
    try:
        make_trainer(Path(folder, "killed"), dropout=0.2).run()
    except Killed:
        Trainer.train_step = step
    resumed = make_trainer(Path(folder, "killed"), dropout=0.2, resume=True)
    assert resumed.step == 10
    logs["killed"] = resumed.run()
    try:
        make_trainer(batch_size=4, accumulation_steps=4)
    except CourseError as e:
        logs["refused"] = str(e)
    Path(folder, f"logs{resumed.rank}.json").write_text(json.dumps(logs))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> tuple[Path, dict, dict]:
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    world = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [program("cooperate", folder, env=world | {"RANK": r, "LOCAL_RANK": r}) for r in ("0", "1")]
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
    first, second = (json.loads((folder / f"logs{rank}.json").read_text()) for rank in (0, 1))
    return folder, first, second


@pytest.mark.parametrize("job", ["plain", "pieces", "muon"])
@pytest.mark.promise(
    "Equality",
    "Two processes that train together have the losses of one process, with AdamW, with Muon and with accumulation.",
)
def test_two_processes_have_the_losses_of_one(together, job):
    _, log, _ = together
    alone = make_trainer(**JOBS[job]).run()
    assert [r["step"] for r in log[job]] == [r["step"] for r in alone]
    torch.testing.assert_close(curve(log[job]), curve(alone), rtol=0, atol=1e-6)


def test_each_process_computes_its_own_half_of_every_piece_with_its_own_dropout(together):
    _, *both = together
    pieces = zip(*(log["rows"] for log in both), make_trainer(**JOBS["pieces"]).batches(), strict=True)
    for first, second, (x, _) in pieces:
        assert first == x[0::2].tolist() and second == x[1::2].tolist()
    assert [log["seed"] for log in both] == [1337, 1338]


def test_both_processes_keep_the_same_log_and_the_first_one_writes_it(together):
    folder, first, second = together
    for job in JOBS:
        assert untimed(first[job]) == untimed(second[job])
        assert read_log(folder / job) == first[job]


@pytest.mark.promise(
    "Faults",
    "A training of two processes that dies between its files resumes bit for bit.",
)
def test_two_processes_killed_between_checkpoint_and_record_resume_bit_for_bit(together):
    folder, log, _ = together
    assert untimed(log["killed"]) == untimed(log["dropout"]) == untimed(read_log(folder / "killed"))
    assert (folder / "killed" / "best.pt").read_bytes() == (folder / "dropout" / "best.pt").read_bytes()


def test_another_number_of_processes_is_refused(together):
    folder, log, _ = together
    with pytest.raises(CourseError, match=r"different settings \(the number of processes\)"):
        make_trainer(folder / "plain", resume=True)
    assert "batch_size (4) must be a multiple of accumulation_steps × processes (4 × 2)" in log["refused"]


@pytest.mark.slow
def test_the_same_under_torchrun(tmp_path):
    (tmp_path / "corpus.txt").write_text("to be or not to be, that is the question: " * 60)
    size = ["max_steps=20", "warmup_steps=2", "n_embd=16", "n_layer=1", "block_size=8", "eval_interval=10"]
    train = ["-m", "llmcourse.cli", "train", "--device", "cpu", "--corpus", "corpus.txt", "--set", *size]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, out in (([], "one"), (torchrun, "two")):
        command = [sys.executable, *launcher, *train, "--out", out]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    one, two = (read_log(tmp_path / out) for out in ("one", "two"))
    torch.testing.assert_close(curve(two), curve(one), rtol=0, atol=1e-6)


if __name__ == "__main__":
    {"cooperate": cooperate}[sys.argv[1]](*sys.argv[2:])
