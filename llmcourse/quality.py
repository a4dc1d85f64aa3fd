"""How good is a generated text? Numbers for what a reader sees: spelling, variety, loops, copies.

A loss judges a model on somebody else's text. These functions judge the text that it writes itself. None of them
is enough alone: a copied page has perfect words, a random one perfect variety.

    known = words(train_text)
    valid_words(sample, known)                 # share of its words that occur in the training text
    distinct(sample, 4)                        # share of its runs of 4 characters that are new in it
    loop(sample)                               # 100: it ends by repeating the same 100 characters
    longest_copy(sample, train_text)           # the longest span that stands word for word in the training text
    bits_per_character(sample, judge, tokenizer)   # how surprising a second model, a table of counts, finds it

Sources: distinct-n, Li et al. 2016; repetition as its complement, Welleck et al. 2020; copies counted as exact
spans, Carlini et al. 2021.
"""

import math
import re
from collections.abc import Collection, Sequence

from .errors import CourseError, is_number
from .ngram import KneserNey
from .tokenizer import CharTokenizer


def words(text: str) -> list[str]:
    """The words of a text, in order and in lower case; an apostrophe inside belongs to its word ("o'er")."""
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())


def valid_words(text: str, known: Collection[str]) -> float:
    """Share of the words of `text` that are in `known` (a set is fastest); nan if it has no words."""
    said = words(text)
    known = known if isinstance(known, set | frozenset | dict) else set(known)
    return sum(word in known for word in said) / len(said) if said else float("nan")


def distinct(tokens: Sequence[object], n: int = 4) -> float:
    """Distinct-n: different runs of n tokens, divided by all of them. 1 means that nothing comes twice.

    `tokens` is a text (runs of characters) or a list (of words, of token ids). It falls with the length:
    compare texts of the same length only. Raises CourseError if n is below 1 or `tokens` is shorter than n.
    """
    if not is_number(n, whole=True) or not 1 <= n <= len(tokens):
        raise CourseError(f"distinct-{n} needs n of at least 1 and at least n tokens, not {len(tokens)}.")
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(runs)) / len(runs)


def loop(tokens: Sequence[object], times: int = 3) -> int:
    """Length of the loop that `tokens` end in: the shortest run that stands there `times` times in a row; 0 if none.

    Raises CourseError if `times` is below 2.
    """
    if not is_number(times, whole=True) or times < 2:
        raise CourseError(f"A loop is at least 2 times the same, not {times!r}.")
    for period in range(1, len(tokens) // times + 1):
        tail = tokens[len(tokens) - times * period :]
        if tail[period:] == tail[:-period]:
            return period
    return 0


def longest_copy(text: str, source: str) -> str:
    """The longest span of `text` that stands, character for character, in `source`; the first one of that length."""
    best = ""
    for start in range(len(text)):
        end = start + len(best) + 1  # only a longer one is of interest
        while end <= len(text) and text[start:end] in source:
            best, end = text[start:end], end + 1
    return best


def bits_per_character(text: str, judge: KneserNey, tokenizer: CharTokenizer) -> float:
    """How surprising a fitted n-gram model finds `text`, in bits per character.

    Real text has a value too, and a good sample has about that one: loops and copies score far lower, noise
    higher. Raises CourseError for an empty text, and for characters that the tokenizer does not know.
    """
    return judge.nll(tokenizer.encode(text)) / math.log(2)
