"""Checker of day 28: a mark for a text, from 0 (noise) to 1 (like the reference).

The texts are made here: books of the universe (universe.py) as the real thing, and books spoiled on purpose. The
same texts in an alphabet of our own show whether the learner's function reads the reference or knows English.
"""

import math
import random
import re
from collections.abc import Callable
from typing import Any

from ..quality import distinct, valid_words, words
from ..universe import Universe
from . import Wrong, blame, exercise

Quality = Callable[[str, str], Any]
Texts = dict[str, list[str]]
PIECE, MARGIN = 600, 0.02


def quality(text: str, reference: str) -> float:
    """Share of words that the reference has, times its variety: both 1 for real text, both fooled by nothing alone."""
    if len(text) < 4 or not words(text):
        return 0.0
    spelled = valid_words(text, set(words(reference)))
    usual = distinct(reference[: len(text)], 4)  # of real text of the same length: distinct falls with it
    return spelled * min(1.0, distinct(text, 4) / usual)


@exercise(
    "day28",
    title="A mark for a text",
    signature="quality(text, reference)",
    hints=[
        "One number is easy to fool: valid_words(text, set(words(reference))) gives a loop full marks, "
        "distinct(text, 4) gives them to noise. What do you get if you multiply the two?",
        "distinct falls with the length of the text. Divide it by what the reference has at the same length, "
        "distinct(reference[:len(text)], 4), and cut the ratio off at 1.",
        "Deal with the odd texts first: if len(text) < 4 or not words(text): return 0.0. Without words, valid_words is "
        "nan, and distinct refuses a text that is too short.",
    ],
    solution=quality,
    right="Real text beats late, early and noise in this order, also with other letters, and loops do not fool it.",
    seconds=20,
)
def check_quality(learner: Quality) -> None:
    reference, texts = planted()
    marks = {kind: [mark(learner, t, reference) for t in some] for kind, some in texts.items()}
    if [mark(learner, t, reference) for t in texts["real"]] != marks["real"]:
        raise Wrong("The same text gets another mark the second time: nothing random, and nothing kept between calls.")
    every = [x for some in marks.values() for x in some]
    if min(every) < 0 or max(every) > 1:
        worst = min(every) if min(every) < 0 else max(every)
        raise Wrong(f"A mark of {worst:.3g} is outside 0 to 1: use shares and ratios, not counts, and cut them off.")
    if max(every) == min(every):
        raise Wrong(f"Every text gets the same mark, {every[0]:.3g}, whatever is in it.")
    judge_fooled(mean(marks))
    check_odd(learner, reference)
    check_length(learner, reference, texts)
    judge_order(mean(marks))
    for kind in ("real", "late"):
        before, after = marks[kind][0], mark(learner, translate(texts[kind][0]), translate(reference))
        if abs(before - after) > 0.15:
            raise Wrong(
                "It marks English and not the reference: with every letter replaced by another one, in text and "
                f"reference alike, {before:.2f} becomes {after:.2f}; take the known words from reference."
            )


def judge_fooled(m: dict[str, float]) -> None:
    """The ways to be fooled."""
    if m["copy"] > 0.5 and m["real"] < m["noise"] + 0.05:
        raise Wrong(
            "It knows only what stands word for word in the reference: real text that the reference lacks gets "
            f"{m['real']:.2f}, like noise."
        )
    if m["real"] < m["late"] < m["early"] < m["noise"] and m["loop"] > m["real"]:
        raise Wrong("The wrong way round: the better the text, the lower your mark; 1 should be best.")
    if m["noise"] > m["real"] - MARGIN:
        raise Wrong(
            f"It rewards variety: letters drawn at random get {m['noise']:.2f}, real text {m['real']:.2f}; nothing is "
            "more varied than noise."
        )
    if m["layout"] > m["early"] - MARGIN and m["layout"] > 0.7 * m["real"]:
        raise Wrong(
            "It sees the layout only: with each letter replaced by a random one, and capitals, spaces, line breaks and "
            f"punctuation kept, a text still gets {m['layout']:.2f}."
        )
    if m["loop"] > m["late"] - MARGIN:
        raise Wrong(
            f"A loop fools it: one good sentence again and again gets {m['loop']:.2f}, and real text {m['real']:.2f}."
        )


def judge_order(m: dict[str, float]) -> None:
    """Real, late, early, noise."""
    for better, worse, what in (
        ("real", "late", "with one word in six misspelled"),
        ("late", "early", "with two words in three misspelled"),
        ("early", "noise", "of random characters"),
    ):
        if m[better] < m[worse] + MARGIN:
            raise Wrong(
                f"It hardly tells “{better}” from “{worse}”: {m[better]:.2f} against {m[worse]:.2f} for a text {what}."
            )


def check_odd(learner: Quality, reference: str) -> None:
    odd = {"": "an empty text", ". . .\n": "a text without a single word", "ab": "a text of two letters"}
    for text, what in odd.items():
        with blame(f"It crashes on {what}; give such a text a mark too, 0 for example"):
            x = mark(learner, text, reference, what)
        if not 0 <= x <= 0.2:
            raise Wrong(f"{what.capitalize()} gets {x:.2f}; there is nothing good about it, so give it 0.")
    with blame("It crashes on a character that the reference does not have; real samples bring such surprises"):
        mark(learner, "The cat paid 5 € to the naïve fox. " * 4, reference)


def check_length(learner: Quality, reference: str, texts: Texts) -> None:
    long = "".join(texts["real"])
    marks = {n: mark(learner, long[:n], reference) for n in (300, 600, 1200)}
    if max(marks.values()) - min(marks.values()) > 0.12:
        said = ", ".join(f"{x:.2f} for {n:,}" for n, x in marks.items())
        raise Wrong(
            f"It depends on the length: the same real text gets {said} characters; compare with the reference at the "
            "same length."
        )


def mark(learner: Quality, text: str, reference: str, what: str = "a text") -> float:
    """The learner's mark as a finite float, or Wrong."""
    value = learner(text, reference)
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(value, bool):
        raise Wrong("It answers True or False: a mark is a number from 0 to 1, so that texts can be ranked.")
    try:
        x = float(value)
    except (TypeError, ValueError) as e:
        raise Wrong(f"It returned something of type {type(value).__name__}: return one number from 0 to 1.") from e
    if math.isnan(x) or math.isinf(x):
        raise Wrong(f"It returned {x} for {what}: a division by zero, or valid_words of a text without words?")
    return x


def mean(marks: dict[str, list[float]]) -> dict[str, float]:
    return {kind: sum(some) / len(some) for kind, some in marks.items()}


def planted() -> tuple[str, Texts]:
    """A reference of 15,000 characters, and three texts of PIECE characters of each kind."""
    train, val, _ = Universe(seed=28).split()
    reference, unseen = train[:15_000], val[: 3 * PIECE]
    rng = random.Random(28)
    real = [unseen[i : i + PIECE] for i in range(0, 3 * PIECE, PIECE)]
    alphabet = sorted(set(reference))
    sentence = next(s for s in re.findall(r"[A-Z][a-z ,]+\.", unseen) if 30 <= len(s) <= 70) + " "
    return reference, {
        "real": real,
        "late": [spoil(t, 1 / 6, alphabet, rng) for t in real],
        "early": [spoil(t, 2 / 3, alphabet, rng) for t in real],
        "noise": ["".join(rng.choices(alphabet, k=PIECE)) for _ in real],
        "layout": [spoil(t, 1.0, alphabet, rng, whole=True) for t in real],
        "loop": [(sentence * PIECE)[:PIECE]],
        "copy": [reference[i : i + PIECE] for i in range(3000, 3000 + 3 * PIECE, PIECE)],
    }


def spoil(text: str, share: float, alphabet: list[str], rng: random.Random, whole: bool = False) -> str:
    """Replace letters in this share of the words, two of them or all, by letters of the same case in `alphabet`."""

    def word(match: re.Match[str]) -> str:
        said = list(match[0])
        if rng.random() < share:
            for i in range(len(said)) if whole else rng.sample(range(len(said)), min(2, len(said))):
                case = str.isupper if said[i].isupper() else str.islower
                said[i] = rng.choice([c for c in alphabet if case(c) and c != said[i]])
        return "".join(said)

    return re.sub(r"[A-Za-z]+", word, text)


def translate(text: str) -> str:
    """Every letter replaced by another one, always the same."""
    a, b = "abcdefghijklmnopqrstuvwxyz", "qwxkzjvbgpfymcdhutolsrniea"
    return text.translate(str.maketrans(a + a.upper(), b + b.upper()))
