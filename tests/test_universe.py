"""The universe: its grammar is what the entropy's proof needs, and the entropy is what its books say."""

import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import CourseError
from llmcourse.universe import HEROES, KINDS, START, State, Task, Universe, words


@pytest.fixture(scope="module")
def universe() -> Universe:
    return Universe(seed=0)


def states(universe: Universe) -> list[State]:
    found = {START: None}
    for state in (waiting := [START]):
        for arc in universe.arcs(state):
            if arc.state not in found:
                found[arc.state] = None
                waiting.append(arc.state)
    return list(found)


def test_every_state_is_a_distribution_that_can_be_read(universe):
    """Probabilities sum to 1 and no text begins with another's: who reads the text knows the state."""
    for state in states(universe):
        arcs = universe.arcs(state)
        assert sum(arc.probability for arc in arcs) == pytest.approx(1)
        texts = sorted(arc.text for arc in arcs)
        assert not any(b.startswith(a) for a, b in itertools.pairwise(texts)), state


def test_the_entropy_rate_is_that_of_the_stationary_chain(universe):
    """The textbook's formula, on the whole chain of 10,000 states: Σ π H / Σ π length, π from walking the chain."""
    number = {state: i for i, state in enumerate(states(universe))}
    arcs = [(number[s], number[a.state], a.probability, len(a.text)) for s in number for a in universe.arcs(s)]
    source, target, p, length = (np.array(column) for column in zip(*arcs, strict=True))
    visits = at = np.eye(len(number))[0]  # one book: how often each state is visited until the next title
    for _ in range(8_000):
        at = np.bincount(target, at[source] * p, len(number))
        at[0] = 0
        visits = visits + at
        if at.sum() < 1e-9:
            break
    nats, characters = visits[source] @ (-p * np.log(p)), visits[source] @ (p * length)
    assert universe.expected_book() == pytest.approx((nats, characters), rel=1e-6)
    assert universe.entropy_rate() == pytest.approx(nats / characters, rel=1e-6)


def test_the_books_confirm_the_entropy(universe):
    """Many more books than a universe has: their mean surprise is the entropy rate, within three standard errors."""
    draw = random.Random(5)
    books = [universe.write(draw) for _ in range(300)]
    nats = np.array([universe.surprise(book).sum() for book in books])
    lengths = np.array([len(book) for book in books])
    off = nats - universe.entropy_rate() * lengths  # has mean 0 if the rate is right
    assert abs(off.mean()) < 3 * off.std() / len(books) ** 0.5
    expected = universe.expected_book()[1]
    assert abs(lengths.mean() - expected) < 3 * lengths.std() / len(books) ** 0.5


def test_no_model_of_the_text_beats_the_author(universe):
    """Mixing the truth with anything else raises the expected surprise: the truth is the floor."""
    text = "".join(universe.books[:3])
    true = universe.distributions(text)
    column = [universe.alphabet.index(c) for c in text]
    rows = np.arange(len(text))
    mixed = 0.9 * true + 0.1 / true.shape[1]
    assert -np.log(true[rows, column]).mean() < -np.log(mixed[rows, column]).mean()
    expected = -(true * np.log(np.where(true > 0, true, 1))).sum(axis=1).mean()
    assert -np.log(true[rows, column]).mean() == pytest.approx(expected, rel=0.1)


def test_distributions_are_the_surprise_and_sum_to_one(universe):
    text = universe.books[7]
    table = universe.distributions(text)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    column = [universe.alphabet.index(c) for c in text]
    np.testing.assert_allclose(-np.log(table[np.arange(len(text)), column]), universe.surprise(text))
    backwards = universe.alphabet[::-1]
    np.testing.assert_array_equal(universe.distributions(text, backwards), table[:, ::-1])


def test_the_surprise_of_a_book_is_that_of_its_choices(universe):
    """Letter by letter or choice by choice: the same number, because the letters say the choices."""
    draw, state, text, nats = random.Random(3), START, "", 0.0
    while state != START or not text:
        piece, after = universe._choose(state, draw)
        nats -= np.log(next(a.probability for a in universe.arcs(state) if a.text == piece))
        text, state = text + piece, after
    assert universe.surprise(text).sum() == pytest.approx(nats)


def test_what_the_first_sentence_of_a_world_says(universe):
    """The title and the opening hold exactly one choice: which of 30 pairs it is about."""
    book = universe.books[0]
    start = book.index("\n") + 1
    opening = book[: book.index(". ", start) + 2]
    assert universe.surprise(opening).sum() == pytest.approx(np.log(30))


def test_a_book_has_as_many_sentences_as_asked(universe):
    draw = random.Random(1)
    short = Universe(sentences=5)
    books = [short.write(draw) for _ in range(2000)]
    counts = np.array([book.count(".") - 1 for book in books])
    assert abs(counts.mean() - 5) < 3 * counts.std() / len(books) ** 0.5
    assert Universe(sentences=1).write(draw).count(".") == 2


def test_words_and_characters_are_the_same_nats(universe):
    nats, characters = universe.expected_book()
    same, number = universe.expected_book(words)
    assert nats == pytest.approx(same)
    assert 4 < characters / number < 7
    assert universe.entropy_rate(words) == pytest.approx(nats / number)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), sentences=st.floats(1, 40))
def test_any_world_reads_its_own_books(seed, sentences):
    universe = Universe(seed, books=4, sentences=sentences)
    text = "".join(universe.books)
    surprise = universe.surprise(text)
    assert surprise.shape == (len(text),)
    assert np.isfinite(surprise).all() and (surprise > -1e-9).all()
    assert set(text) <= set(universe.alphabet)
    assert Universe(seed, books=4, sentences=sentences).books == universe.books
    assert text.count("The end.") == 4


def test_the_alphabet_is_what_can_be_written(universe):
    written = {c for s in states(universe) for arc in universe.arcs(s) for c in arc.text}
    assert set(universe.alphabet) == written
    assert list(universe.alphabet) == sorted(universe.alphabet)


def test_more_sentences_make_longer_books():
    short, long = Universe(sentences=10).expected_book()[1], Universe(sentences=100).expected_book()[1]
    assert 7 < long / short < 11


def test_the_split_is_between_books(universe):
    train, val, test = universe.split()
    assert train + val + test == "".join(universe.books)
    assert (train.count("The end."), val.count("The end."), test.count("The end.")) == (90, 5, 5)
    assert val.startswith("THE ") and test.startswith("THE ")


def test_another_seed_is_another_world():
    a, b = Universe(0), Universe(1)
    assert a.home != b.home or a.habits != b.habits
    assert a.books[0] != b.books[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Universe(books=0), "at least 1 book"),
        (lambda: Universe(sentences=0.5), "1 sentence"),
        (lambda: Universe(books=10).split(5, 5), "at least 1 must be left"),
        (lambda: Universe().tasks("riddle"), "fact, story, count"),
        (lambda: Universe().tasks("count", 0), "at least 1 task"),
        (lambda: Universe().surprise("THE CAT AND THE CAR"), "Character 16 ('C') cannot stand after 'THE CAT AND"),
        (lambda: Universe().distributions("Airplane"), "only 'T' can"),
    ],
)
def test_bad_input_gets_one_sentence(make, words):
    with pytest.raises(CourseError, match=re.escape(words)):
        make()


# ---- tasks: every answer is found again from the question alone -----------------------------------------------------


def test_facts_are_what_the_books_say(universe):
    for task in universe.tasks("fact", 50):
        hero = re.search(r"the (\w+) live", task.question)[1]
        assert f"The {hero} lives in the {task.answer}." in "".join(universe.books)
    assert len({task.question for task in universe.tasks("fact", 200)}) == len(HEROES)


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_the_answer_of_a_story_stands_in_it(universe, steps):
    for task in universe.tasks("story", 100, steps=steps):
        story, thing = re.match(r"(.*) Who has the (\w+)\?$", task.question, re.S).groups()
        assert story.count(".") >= steps
        actor = holder = None
        for sentence in re.findall(r"[^.]+\.", story):
            found = [w for w in re.findall(r"[a-z]+", sentence) if w in HEROES]
            if sentence.split()[0] == "The":
                actor = found[0]
            if f"finds the {thing}" in sentence:
                holder = actor
            if f"gives the {thing}" in sentence:
                holder = found[-1]
        assert task.answer == holder, task


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_counts_are_sums(universe, steps):
    answers = set()
    for task in universe.tasks("count", 200, steps=steps):
        total = int(re.search(r"has (\d)", task.question)[1])
        for verb, change in re.findall(r"(finds|loses) (\d)", task.question):
            total += int(change) if verb == "finds" else -int(change)
            assert 0 <= total <= 9
        assert task.answer == str(total)
        assert len(re.findall("=", task.steps)) == steps
        assert task.check(task.steps)
        answers.add(task.answer)
    assert len(answers) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_the_same_for_the_same_seed(universe, kind):
    assert universe.tasks(kind, 20) == universe.tasks(kind, 20)
    assert universe.tasks(kind, 20, seed=1) != universe.tasks(kind, 20)


def test_marking():
    task = Task("Where does the cat live?", "barn")
    assert task.check("barn") and task.check("The cat lives in the Barn. ") and task.check("It is the barn.")
    assert not task.check("the barn or the mill") and not task.check("") and not task.check("barns")
