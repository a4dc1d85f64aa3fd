"""The numbers that judge a generated text, against definitions spelled out the slow way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import CourseError
from llmcourse.ngram import KneserNey
from llmcourse.quality import bits_per_character, distinct, longest_copy, loop, valid_words, words
from llmcourse.tokenizer import CharTokenizer

letters = st.text("ab ", max_size=30)


def test_words():
    assert words("ROMEO:\nO'er the hill, the\thill-top; 'tis 3 o’clock!") == [
        "romeo", "o'er", "the", "hill", "the", "hill", "top", "tis", "o’clock",
    ]  # fmt: skip
    assert words("") == words("1,234 --- _") == []


def test_valid_words():
    known = words("The king is in the castle.")
    assert valid_words("The king! The KING? the kinge", known) == 5 / 6
    assert valid_words("the the", set(known)) == 1
    assert math.isnan(valid_words("123", known))


def test_distinct():
    assert distinct("abcdefgh") == 1
    assert distinct("aaaaaaaa", 4) == 1 / 5
    assert distinct(["to", "be", "or", "not", "to", "be"], 2) == 4 / 5
    assert distinct([1, 2, 1, 2], 1) == 0.5


@pytest.mark.parametrize(("tokens", "n"), [("abc", 4), ("abc", 0), ("", 1)])
def test_distinct_needs_enough_tokens(tokens, n):
    with pytest.raises(CourseError, match="at least n tokens"):
        distinct(tokens, n)


def test_loop():
    assert loop("So the king of the king of the king of ") == len("the king of ")
    assert loop("abcabcab") == 0 and loop("abcabcab", times=2) == 3
    assert loop("xyzzzz") == 1
    assert loop([5, 1, 2, 1, 2, 1, 2]) == 2
    assert loop("") == 0
    with pytest.raises(CourseError, match="at least 2 times"):
        loop("aa", times=1)


@given(letters, st.integers(2, 4))
def test_a_loop_is_what_it_says(text, times):
    period = loop(text, times)
    if period:
        assert text.endswith(text[-period:] * times)
    assert not any(text.endswith(text[-p:] * times) for p in range(1, period or len(text)))


def test_longest_copy():
    source = "To be, or not to be, that is the question."
    assert longest_copy("He said: not to be, that was it.", source) == " not to be, that "
    assert longest_copy(source, source) == source
    assert longest_copy("xyz", "abc") == "" == longest_copy("", source)
    assert longest_copy("be", source) == "be"


@given(letters, letters)
def test_longest_copy_is_the_longest_of_all_spans(text, source):
    spans = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    longest = max((len(span) for span in spans if span in source), default=0)
    copy = longest_copy(text, source)
    assert len(copy) == longest and copy in text and copy in source


def test_bits_per_character():
    train, test = "the cat sat on the mat. " * 20, "the mat sat on the cat. "
    tokenizer = CharTokenizer.from_text(train + "xyz")
    judge = KneserNey(3, tokenizer.vocab_size).fit(tokenizer.encode(train))
    ids = tokenizer.encode(test)
    by_hand = -sum(math.log2(judge.probs(ids[:i])[token]) for i, token in enumerate(ids)) / len(ids)
    assert bits_per_character(test, judge, tokenizer) == pytest.approx(by_hand)
    assert bits_per_character(train, judge, tokenizer) < by_hand < bits_per_character("xyzzyx" * 4, judge, tokenizer)
    with pytest.raises(CourseError, match="not in this tokenizer"):
        bits_per_character("é", judge, tokenizer)
    with pytest.raises(CourseError, match="at least one token"):
        bits_per_character("", judge, tokenizer)
