"""The table of recipes, and what can be made of one."""

import dataclasses
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcourse import recipes
from llmcourse.errors import CourseError
from llmcourse.model import GPTConfig
from llmcourse.recipes import PRESETS, RECIPES, Recipe
from llmcourse.trainer import TrainConfig, Trainer
from llmcourse.universe import Universe

torch.set_num_threads(1)
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8}
TINY = Recipe("Only for tests.", SHAPE, {"max_steps": 20, "warmup_steps": 2})
TEXT = "ROMEO: to be or not to be, that is the question.\n" * 20


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_the_table_is_complete(name):
    recipe = recipes.get(name)
    model, training = recipe.model_config(vocab_size=65), recipe.train_config()
    assert {k: getattr(model, k) for k in recipe.shape} == recipe.shape and model.vocab_size == 65
    assert {k: getattr(training, k) for k in recipe.training} == recipe.training
    assert recipe.about.endswith(".") and len(recipe.about) < 110


def test_the_presets_are_recipes_and_each_is_larger_than_the_one_before():
    widths = [recipes.get(name).shape["n_embd"] for name in PRESETS]
    assert widths == sorted(set(widths))


def test_an_unknown_recipe_is_one_sentence_with_the_known_names():
    with pytest.raises(CourseError, match="There is no recipe 'gpt-5'; choose one of tiny, small, medium"):
        recipes.get("gpt-5")


def test_settings_go_where_they_belong_and_the_recipe_itself_stays_as_it_is():
    changed = TINY.with_settings(n_layer=3, max_steps=50, dropout=0.1, optimizer="muon")
    assert changed.model_config(11) == GPTConfig(11, n_layer=3, n_head=2, n_embd=16, block_size=8, dropout=0.1)
    assert changed.train_config() == TrainConfig(max_steps=50, warmup_steps=2, optimizer="muon")
    assert TINY.shape["n_layer"] == 1 and TINY.training["max_steps"] == 20
    assert TINY.with_settings() == TINY


@pytest.mark.parametrize("name", ["vocab_size", "layers", "about", "shape", ""])
def test_an_unknown_setting_is_one_sentence(name):
    with pytest.raises(CourseError, match=f"There is no setting '{name}'"):
        TINY.with_settings(**{name: 1})


@given(st.sampled_from(["n_layer", "max_steps", "dropout", "bias", "norm", "precision"]), st.just(None) | st.just([1]))
def test_a_wrong_value_is_found_when_the_settings_are_made(name, value):
    with pytest.raises(CourseError, match=name):
        changed = TINY.with_settings(**{name: value})
        changed.model_config(11), changed.train_config()


def test_preparing_a_recipe_gives_the_same_untrained_model_each_time(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT)
    model, tokenizer, train, val = recipes.prepare(TINY, str(tmp_path / "corpus.txt"))
    again = recipes.prepare(TINY, str(tmp_path / "corpus.txt"))[0]
    other = recipes.prepare(TINY.with_settings(seed=2), str(tmp_path / "corpus.txt"))[0]
    assert tokenizer.decode(torch.cat((train, val))) == TEXT and len(train) == int(0.9 * len(TEXT))
    assert model.config == TINY.model_config(tokenizer.vocab_size)
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_a_recipe_names_its_own_corpus(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT)
    own = Recipe("Only for tests.", TINY.shape, TINY.training, corpus=str(tmp_path / "corpus.txt"))
    assert recipes.prepare(own)[1].vocab_size == len(set(TEXT))


def test_a_recipe_can_train_on_the_start_of_the_text_only(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT)
    few = dataclasses.replace(TINY, corpus=str(tmp_path / "corpus.txt")).with_settings(train_tokens=30, seed=2)
    assert few.train_config().seed == 2
    _, tokenizer, train, val = recipes.prepare(few)
    assert tokenizer.decode(train) == TEXT[:30]
    assert tokenizer.decode(val) == TEXT[int(0.9 * len(TEXT)) :]  # judged on the same text as all the others


def test_an_estimate_counts_every_step_and_measures_what_fits_into_memory(monkeypatch):
    calls = []

    def one_second(function, device, repeats, warmup):
        calls.append(function)
        function()  # the real work, once
        return 1.0

    monkeypatch.setattr(recipes, "seconds_per_call", one_second)
    cpu = torch.device("cpu")
    # A batch of 12 is measured on 4 rows: 3 s for the gradient and 1 s for the update, 20 times.
    assert recipes.estimate_seconds(TINY, cpu) == 20 * (3 + 1) and len(calls) == 2
    pieces = TINY.with_settings(batch_size=12, accumulation_steps=6, max_steps=10)
    assert recipes.estimate_seconds(pieces, cpu) == 10 * (6 + 1)  # pieces of 2 rows


def test_an_estimate_is_near_the_truth(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT)
    recipe = TINY.with_settings(max_steps=100, n_embd=64, block_size=32, batch_size=4)
    model, _, train, _ = recipes.prepare(recipe, str(tmp_path / "corpus.txt"))
    trainer = Trainer(model, recipe.train_config(), train, device="cpu", progress=False)
    start = time.perf_counter()
    trainer.run()
    took = time.perf_counter() - start
    assert took / 10 < recipes.estimate_seconds(recipe, torch.device("cpu"), model.config.vocab_size) < took * 10


def test_the_universe_is_split_between_books_and_its_samples_can_be_encoded() -> None:
    recipe = recipes.get("universe")
    _, tokenizer, train, val = recipes.prepare(recipe)
    learned, held_out = (tokenizer.decode(ids.tolist()) for ids in (train, val))
    assert (learned.count("The end."), held_out.count("The end.")) == (90, 10)
    assert held_out.startswith("THE ") and learned + held_out == "".join(Universe().books)
    assert tokenizer.decode(tokenizer.encode(recipe.prompt)) == recipe.prompt
