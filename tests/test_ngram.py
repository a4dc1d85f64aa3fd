"""The n-gram baseline: proper probabilities, the textbook formula, and the scores the book compares with."""

import math
import os
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import data
from llmcourse.errors import CourseError
from llmcourse.ngram import KneserNey, _distinct

DISCOUNTS = st.sampled_from([None, "modified", 0.3, 0.75])


class Naive:
    """Interpolated Kneser–Ney with dictionaries and recursion, as in Chen and Goodman (1999), section 2.7."""

    def __init__(self, order, vocab_size, ids, discount):
        self.order, self.V = order, vocab_size
        grams = {k: [tuple(ids[i : i + k]) for i in range(len(ids) - k + 1)] for k in range(1, order + 1)}
        self.c = {order: Counter(grams[order])}  # occurrences for the longest n-grams only
        for k in range(1, order):
            befores = defaultdict(set)
            for longer in grams[k + 1]:
                befores[longer[1:]].add(longer[0])
            self.c[k] = {gram: len(befores[gram]) for gram in set(grams[k])}
        self.d = {k: self.three(list(c.values()), discount) for k, c in self.c.items()}

    @staticmethod
    def three(counts, discount):
        if isinstance(discount, float):
            return [0, discount, discount, discount]
        n = [counts.count(times) for times in range(5)]
        y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        if discount == "modified" and all(n[1:]):
            three = [t - (t + 1) * y * n[t + 1] / n[t] for t in (1, 2, 3)]
            if all(d > 0 for d in three):
                return [0, *three]
        return [0, y, y, y]

    def p(self, token, context):
        context = tuple(context[max(0, len(context) - self.order + 1) :])
        k = len(context) + 1
        lower = self.p(token, context[1:]) if context else 1 / self.V
        after = {gram[-1]: count for gram, count in self.c[k].items() if gram[:-1] == context}
        total = sum(after.values())
        if total == 0:
            return lower
        taken = {t: self.d[k][min(count, 3)] for t, count in after.items()}
        return (after.get(token, 0) - taken.get(token, 0)) / total + sum(taken.values()) / total * lower


@st.composite
def corpora(draw):
    seen = draw(st.integers(1, 6))
    ids = draw(st.lists(st.integers(0, seen - 1), min_size=1, max_size=60))
    return ids, seen + draw(st.integers(0, 2))  # a vocabulary that may be larger than what was seen


@settings(deadline=None, max_examples=150)
@given(corpora(), st.integers(1, 7), DISCOUNTS, st.data())
def test_probabilities_sum_to_one_after_every_context_seen_or_not(corpus, order, discount, draw):
    ids, vocab_size = corpus
    model = KneserNey(order, vocab_size, discount).fit(ids)
    context = draw.draw(st.lists(st.integers(0, vocab_size - 1), max_size=9))
    for length in range(len(context) + 1):
        p = model.probs(context[:length])
        assert p.shape == (vocab_size,) and p.dtype == np.float64
        assert (p > 0).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)


@given(st.lists(st.integers(0, 9), max_size=50), st.sampled_from([0, 1, 2**40, 2**62]))
def test_counting_by_one_sort_equals_numpys_unique(codes, offset):
    codes = np.array(codes, dtype=np.int64) + offset
    wanted = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    for ours, theirs in zip(_distinct(codes), wanted, strict=True):
        assert ours.tolist() == theirs.tolist()


@settings(deadline=None, max_examples=100)
@given(corpora(), st.integers(1, 5), DISCOUNTS, st.data())
@pytest.mark.promise(
    "Equality",
    "The n-gram baseline gives the probabilities of the textbook formula, computed independently with dictionaries.",
)
def test_equals_the_naive_dictionary_implementation(corpus, order, discount, draw):
    ids, vocab_size = corpus
    new = draw.draw(st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=12))
    model, naive = KneserNey(order, vocab_size, discount).fit(ids), Naive(order, vocab_size, ids, discount)
    expected = [naive.p(token, new[:i]) for i, token in enumerate(new)]
    np.testing.assert_allclose(np.exp(model.log_probs(new)), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.probs(new), [naive.p(t, new) for t in range(vocab_size)], rtol=0, atol=1e-10)
    assert model.nll(new) == pytest.approx(-np.log(expected).mean(), abs=1e-10)


@settings(deadline=None, max_examples=100)
@given(corpora(), st.integers(1, 5), st.integers(1, 7), st.data())
def test_reset_sees_what_a_windowed_model_sees(corpus, order, window, draw):
    """Window w reads tokens wT … wT+T-1 and predicts wT+1 … wT+T, each from the window's tokens before it."""
    ids, vocab_size = corpus
    new = draw.draw(st.lists(st.integers(0, vocab_size - 1), min_size=2, max_size=20))
    model = KneserNey(order, vocab_size).fit(ids)
    expected = [model.probs([])[new[0]]]
    for start in range(0, len(new) - 1, window):
        for i in range(start + 1, min(start + window + 1, len(new))):
            expected.append(model.probs(new[start:i])[new[i]])
    np.testing.assert_allclose(np.exp(model.log_probs(new, reset_every=window)), expected, rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(corpora(), st.integers(1, 5), st.data())
def test_context_goes_on_where_the_text_before_ended(corpus, order, draw):
    ids, vocab_size = corpus
    text = draw.draw(st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=20))
    cut = draw.draw(st.integers(0, len(text)))
    model = KneserNey(order, vocab_size).fit(ids)
    np.testing.assert_array_equal(model.log_probs(text[cut:], context=text[:cut]), model.log_probs(text)[cut:])


def test_a_small_example_by_hand():
    # "a b a c a b": after a came b twice and c once; with D = 1/2, p(b|a) = 1.5/3 + (2 · 0.5)/3 · p1(b).
    # Different tokens before a: 2 (b, c), before b: 1, before c: 1; so p1(b) = 0.5/4 + (3 · 0.5)/4 · 1/4.
    model = KneserNey(order=2, vocab_size=4, discount=0.5).fit([0, 1, 0, 2, 0, 1])
    p1_b = 0.5 / 4 + 1.5 / 4 / 4
    assert model.probs([])[1] == pytest.approx(p1_b, abs=1e-15)
    assert model.probs([0])[1] == pytest.approx(1.5 / 3 + p1_b / 3, abs=1e-15)
    assert model.nll([0, 1], context=[1]) == pytest.approx(
        -(math.log(model.probs([1])[0]) + math.log(model.probs([0])[1])) / 2, abs=1e-15
    )


def test_an_unseen_context_falls_back_on_its_longest_seen_ending():
    model = KneserNey(order=3, vocab_size=5).fit([0, 1, 2, 0, 1, 3, 0, 1, 2])
    np.testing.assert_array_equal(model.probs([3, 1]), model.probs([1]))
    np.testing.assert_array_equal(model.probs([1, 4]), model.probs([]))
    assert not np.array_equal(model.probs([0, 1]), model.probs([1]))


def test_a_context_that_only_ends_the_text_knows_nothing_of_its_own():
    model = KneserNey(order=2, vocab_size=4).fit([0, 1, 0, 1, 3])
    np.testing.assert_array_equal(model.probs([3]), model.probs([]))


def test_kneser_ney_counts_company_not_occurrences():
    # Token 1 is the most frequent and always follows 0; token 2 is rare and follows everything.
    ids = [0, 1] * 20 + [2, 3, 2, 4, 2, 1, 2, 0, 2]
    model = KneserNey(order=2, vocab_size=6).fit(ids)
    assert ids.count(1) > ids.count(2)
    assert model.probs([5])[2] > model.probs([5])[1]


def test_order_one_ignores_the_context():
    ids = [0, 0, 0, 1, 2, 2]
    model = KneserNey(order=1, vocab_size=4, discount=0.5).fit(ids)
    np.testing.assert_allclose(model.probs([]), np.array([2.5, 0.5, 1.5, 0]) / 6 + 1.5 / 6 / 4, atol=1e-15)
    np.testing.assert_array_equal(model.probs([2, 1]), model.probs([]))
    assert model.nll(ids, reset_every=2) == model.nll(ids)


def test_tokens_never_seen_share_what_is_left_equally():
    model = KneserNey(order=3, vocab_size=1000).fit([0, 1, 2, 0, 1, 2, 0, 2])
    p = model.probs([0, 1])
    assert (p[3:] == p[3]).all() and 0 < p[3] < p[:3].min()
    assert math.isfinite(model.nll([999, 0, 999]))


def test_a_text_shorter_than_the_order_and_a_single_token_are_enough():
    assert KneserNey(order=6, vocab_size=3).fit([1]).probs([1, 1]).sum() == pytest.approx(1)
    np.testing.assert_allclose(KneserNey(6, 3).fit([0, 1]).probs([0]).sum(), 1)


def test_every_kind_of_ids_gives_the_same_model(tmp_path):
    ids = np.random.default_rng(0).integers(0, 50, 500)
    data.write_tokens(tmp_path / "ids.bin", ids)
    kinds = [ids.tolist(), ids.astype(np.uint8), torch.from_numpy(ids), data.open_tokens(tmp_path / "ids.bin")]
    scores = {KneserNey(3, 50).fit(kind).nll(kind) for kind in kinds}
    assert len(scores) == 1


def test_ids_near_the_limit_of_a_byte_do_not_wrap_around():
    ids = np.array([255, 254, 255, 254, 253], dtype=np.uint8)
    assert KneserNey(4, 256).fit(ids).nll(ids) == KneserNey(4, 256).fit(ids.tolist()).nll(ids.tolist())


def test_a_long_order_with_a_large_vocabulary_does_not_overflow():
    ids = np.random.default_rng(0).integers(50_000, 50_257, 3000)
    model = KneserNey(order=20, vocab_size=50_257).fit(np.concatenate([ids, ids]))
    assert model.nll(ids[100:200]) < 0.5
    assert model.probs(ids[:30]).argmax() == ids[30]


def test_fit_twice_forgets_the_first_text():
    fresh = KneserNey(3, 5).fit([3, 4, 3, 4, 4])
    again = KneserNey(3, 5).fit([0, 1, 2]).fit([3, 4, 3, 4, 4])
    assert again.nll([3, 4, 3]) == fresh.nll([3, 4, 3]) and again.discounts == fresh.discounts


def test_generate_is_reproducible_and_follows_the_model():
    model = KneserNey(order=3, vocab_size=3, discount=0.001).fit([0, 1, 2] * 50)
    assert model.generate(9, seed=1, prompt=[0]) == [1, 2, 0, 1, 2, 0, 1, 2, 0]
    model = KneserNey(order=2, vocab_size=10).fit(np.random.default_rng(0).integers(0, 10, 300))
    assert model.generate(50, seed=3) == model.generate(50, seed=3) != model.generate(50, seed=4)
    unigram = KneserNey(order=1, vocab_size=4).fit([0, 0, 0, 1, 2, 2])
    drawn = np.bincount(unigram.generate(4000, seed=0), minlength=4) / 4000
    np.testing.assert_allclose(drawn, unigram.probs(), atol=0.025)  # three standard deviations


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: KneserNey(order=0), "at least 1"),
        (lambda: KneserNey(vocab_size=0), "at least 1"),
        (lambda: KneserNey(discount=1.0), "between 0 and 1"),
        (lambda: KneserNey(discount="kn"), "between 0 and 1"),
        (lambda: KneserNey(2, 5).probs([1]), "call fit"),
        (lambda: KneserNey(2, 5).nll([1]), "call fit"),
        (lambda: KneserNey(2, 5).fit([]), "at least one token"),
        (lambda: KneserNey(2, 5).fit([1]).nll([]), "at least one token"),
        (lambda: KneserNey(2, 5).fit("text"), "encode"),
        (lambda: KneserNey(2, 5).fit([[1, 2]]), "one row"),
        (lambda: KneserNey(2, 5).fit([0.5]), "whole numbers"),
        (lambda: KneserNey(2, 5).fit([1, 5]), "Token id 5 is outside"),
        (lambda: KneserNey(2, 5).fit([1, -1]), "Token id -1 is outside"),
        (lambda: KneserNey(2, 5).fit([1]).nll([7]), "Token id 7 is outside"),
        (lambda: KneserNey(2, 5).fit([1]).probs([7]), "Token id 7 is outside"),
        (lambda: KneserNey(2, 5).fit([1]).nll([1], reset_every=0), "at least 1"),
        (lambda: KneserNey(2, 5).fit([1]).nll([1], reset_every=4, context=[1]), "without context"),
    ],
)
def test_bad_input_gets_one_clear_sentence(act, words):
    with pytest.raises(CourseError, match=words) as caught:
        act()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def shakespeare():
    text = data.load("shakespeare")
    ids = np.unique(np.frombuffer(text.encode("ascii"), dtype=np.uint8), return_inverse=True)[1]
    return data.split(ids)


@pytest.mark.parametrize(
    ("order", "whole", "windows"),
    [
        (2, 2.484, 2.484),
        (3, 2.045, 2.060),
        (4, 1.729, 1.762),
        (5, 1.579, 1.623),
        (6, 1.558, 1.606),
        (7, 1.565, 1.613),
    ],
)
def test_the_scores_on_shakespeare_that_the_book_compares_with(shakespeare, order, whole, windows):
    train, val = shakespeare
    model = KneserNey(order, vocab_size=65).fit(train)
    assert len(model.log_probs(val)) == len(val) == 111_540
    assert round(model.nll(val), 3) == whole
    assert round(model.nll(val, reset_every=64), 3) == windows


def test_three_discounts_are_better_than_one_on_shakespeare(shakespeare):
    train, val = shakespeare
    model = KneserNey(6, 65, "modified").fit(train)
    assert round(model.nll(val), 3) == 1.523
    assert round(model.nll(val, reset_every=64), 3) == 1.575
    for context in (val[:1], val[:5], val[100:120], [64] * 5):
        assert model.probs(context).sum() == pytest.approx(1, abs=1e-12)


def test_counting_a_million_characters_takes_seconds_not_minutes(shakespeare):
    train, val = shakespeare
    start = os.times()
    KneserNey(6, 65).fit(train).nll(val)
    end = os.times()
    assert end.user - start.user < 5  # measured: 0.5 s of processor time


@given(
    ids=st.lists(st.integers(0, 4), min_size=3, max_size=60), order=st.integers(1, 5), discount=DISCOUNTS,
    rows=st.integers(1, 3), T=st.integers(1, 7), seed=st.integers(0, 999),
)  # fmt: skip
def test_distributions_are_those_of_probs_after_every_prefix(ids, order, discount, rows, T, seed):
    model = KneserNey(order, 5, discount).fit(ids)
    texts = np.random.default_rng(seed).integers(0, 5, (rows, T))
    p = model.distributions(texts)
    assert p.shape == (rows, T, 5)
    for row, text in zip(p, texts, strict=True):
        for t in range(T):
            np.testing.assert_allclose(row[t], model.probs(text[: t + 1]), atol=1e-12)


def test_distributions_want_rows():
    with pytest.raises(CourseError, match=r"shape \(B, T\), not \(3,\)"):
        KneserNey(2, 5).fit([1, 2, 3]).distributions([1, 2, 3])
