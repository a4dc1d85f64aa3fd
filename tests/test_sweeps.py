"""Recorded sweeps: every run kept at once, nothing trained twice, nothing old taken for new."""

import json

import pytest

from llmcourse import recipes, sweeps
from llmcourse.errors import CourseError
from llmcourse.recipes import Recipe
from llmcourse.sweeps import Plan

SHAPE = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8}
TRAINING = {"max_steps": 3, "warmup_steps": 1, "batch_size": 2}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    corpus = tmp_path / "romeo.txt"
    corpus.write_text("ROMEO:\nO, she doth teach the torches to burn bright!\n" * 10)
    monkeypatch.setitem(recipes.RECIPES, "tiny-test", Recipe("For tests.", SHAPE, TRAINING, str(corpus)))
    variants = {"plain": {}, "wider": {"n_embd": 16}}
    monkeypatch.setitem(sweeps.SWEEPS, "test", Plan("Two widths.", "tiny-test", variants, seeds=(1, 2)))
    return tmp_path / "sweeps"


def test_a_sweep_comes_back_as_it_was_recorded(tiny):
    sweep = sweeps.record("test", folder=tiny, device="cpu")
    assert sweeps.load("test", tiny) == sweep and sweeps.names(tiny) == ["test"]
    assert sweep.variants == ["plain", "wider"] and [r.seed for r in sweep.of("wider")] == [1, 2]
    first, second = sweep.losses("plain")
    assert first != second and sweep.losses("plain", "val_loss") != [first, second]
    assert sweep.step_seconds("plain") > 0 and "± 0." in sweep.table() and "Two widths. 2 seeds" in sweep.caption()


def test_a_stopped_sweep_goes_on_and_trains_only_what_is_missing(tiny, monkeypatch):
    real, trained = sweeps.train, []

    def stops_at_the_third(base, variant, settings, seed, device):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append((variant, seed))
        return real(base, variant, settings, seed, device)

    monkeypatch.setattr(sweeps, "train", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        sweeps.record("test", folder=tiny, device="cpu")
    assert trained == [("plain", 1), ("wider", 1)]
    half = sweeps.load("test", tiny)
    assert len(half.results) == 2 and half.complete_seeds == [1] and "Two widths. 1 seed each" in half.caption()
    half.results.pop()
    assert half.complete_seeds == [] and "Not all of it has been trained yet" in half.caption()
    monkeypatch.setattr(sweeps, "train", lambda *a: trained.append(a[1:4:2]) or real(*a))
    whole = sweeps.record("test", folder=tiny, device="cpu")
    assert trained[2:] == [("plain", 2), ("wider", 2)] and len(whole.results) == 4


def test_changed_settings_are_trained_again(tiny, monkeypatch):
    old = sweeps.record("test", folder=tiny, device="cpu")
    variants = {"plain": {}, "wider": {"n_embd": 24}}
    monkeypatch.setitem(sweeps.SWEEPS, "test", Plan("Two widths.", "tiny-test", variants, seeds=(1,)))
    new = sweeps.record("test", folder=tiny, device="cpu")
    assert [r.settings for r in new.results] == [{}, {"n_embd": 24}]
    assert new.results[0] == old.results[0] and new.results[1].parameters > old.of("wider")[0].parameters


def test_what_is_missing_or_damaged_is_told(tiny):
    with pytest.raises(CourseError, match="has not been recorded: llmcourse record test records it"):
        sweeps.load("test", tiny)
    with pytest.raises(CourseError, match="There is no sweep 'fastest'"):
        sweeps.record("fastest", folder=tiny)
    sweep = sweeps.record("test", folder=tiny, device="cpu")
    with pytest.raises(CourseError, match="has no variant 'narrower'; it has plain, wider"):
        sweep.of("narrower")
    (tiny / "test.json").write_text(json.dumps({"name": "test"}))
    with pytest.raises(CourseError, match="damaged or from another version"):
        sweeps.load("test", tiny)


@pytest.mark.parametrize("name", sweeps.SWEEPS)
def test_every_plan_can_be_trained(name):
    plan = sweeps.SWEEPS[name]
    assert len(plan.seeds) >= 2 and len(set(plan.seeds)) == len(plan.seeds)
    for settings in plan.variants.values():
        recipe = recipes.get(plan.base).with_settings(**settings)
        recipe.train_config()
        recipe.model_config(65)


@pytest.mark.parametrize("name", sweeps.names())
def test_what_is_recorded_is_what_the_plan_says(name):
    sweep, plan = sweeps.load(name), sweeps.SWEEPS[name]
    assert [(r.variant, r.settings) for r in sweep.results] == [(v, s) for v, s, _ in plan.runs()]
    assert all(1 < r.untouched_loss < 4.2 and r.seconds > 0 for r in sweep.results)
