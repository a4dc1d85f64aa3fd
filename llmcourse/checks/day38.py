"""Checkers of day 38: special tokens that only the allowed may use, and a loss in bits per character."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ..tokenizer import BPETokenizer
from . import Wrong, blame, exercise

LESSON = (
    "ROMEO:\nO, speak again, bright angel! O, speak to me, and speak again!\n\n"
    "JULIET:\nO Romeo, Romeo! speak.\n" + "<|end|> <|aside|>" * 9
)
END, ASIDE, LONG = "<|end|>", "<|aside|>", "<|end|><|all|>"


@cache
def small_bpe() -> BPETokenizer:
    return BPETokenizer.train(LESSON, 256 + 30)


# ---- day38: special tokens ------------------------------------------------------------------------------------


def encode_with_special(text: str, bpe: BPETokenizer, special: dict[str, int], allowed: set[str]) -> list[int]:
    """Ids of `text`; of the `special` tokens only the `allowed` ones count, the others are plain text."""
    if special and min(special.values()) < bpe.vocab_size:
        raise ValueError("an id of a special token already belongs to another token")
    names = sorted(allowed & special.keys(), key=len, reverse=True)  # the longest wins
    if not names:
        return bpe.encode_ordinary(text)
    ids = []
    for part in re.split("(" + "|".join(map(re.escape, names)) + ")", text):
        ids += [special[part]] if part in names else bpe.encode_ordinary(part)
    return ids


@exercise(
    "day38",
    title="Special tokens",
    signature="encode_with_special(text, bpe, special, allowed)",
    hints=[
        "Cut the text at the allowed special tokens first; each piece between them goes through bpe.encode_ordinary, "
        "each special token becomes its id. re.split with a group in round brackets keeps what it cuts at.",
        "| means “or” in a regular expression: use re.escape on each token. Put the longest token first, because the "
        "first alternative that fits wins. Without any allowed token there is nothing to cut at.",
        "Before all that: if any id in special.values() is below bpe.vocab_size, raise ValueError.",
    ],
    solution=encode_with_special,
    right="Commands are commands, and what a stranger types stays text.",
)
def check_encode_with_special(learner: Callable[..., Any]) -> None:
    bpe = small_bpe()
    V = bpe.vocab_size
    special = {END: V, ASIDE: V + 1}
    plain, full = "O, speak again!\n", {END, ASIDE}

    def ids_of(text: str, allowed: set[str], named: dict[str, int] = special, what: str = "") -> list[int]:
        given, may = dict(named), set(allowed)
        with blame(f"It fails for {text!r}{what}"):
            ids = learner(text, bpe, given, may)
        if given != named or may != allowed:
            raise Wrong("Your function changes special or allowed, which the caller still needs: work on a copy.")
        if ids is None:
            raise Wrong("Your function returned None: is there a return line at its end?")
        if isinstance(ids, str) or not isinstance(ids, Sequence):
            raise Wrong(f"Return a list of ids, not something of type {type(ids).__name__}.")
        if any(isinstance(i, Sequence) for i in ids):
            raise Wrong("The list holds lists or texts: use ids += piece, not ids.append(piece), for several ids.")
        with blame("The list holds something that is no whole number"):
            return [operator.index(i) for i in ids]

    def right(text: str, allowed: set[str], named: dict[str, int] = special) -> list[int]:
        return encode_with_special(text, bpe, named, allowed)

    if ids_of(plain, full) != right(plain, full):
        raise Wrong("A text without any special token does not get the ids that bpe.encode_ordinary gives it.")
    text = f"{plain}{END}O Romeo"
    found, wanted = ids_of(text, full), right(text, full)
    if found != wanted:
        judge_one(found, text, bpe)
    for text in (plain, f"O{END}"):
        if ids_of(text, set(), what=" with an empty set allowed") != bpe.encode_ordinary(text):
            if V in ids_of(text, set()):
                break  # said better below
            raise Wrong("With nothing allowed the text is not simply bpe.encode_ordinary(text): an empty pattern cuts.")
    refused = f"O{END}O{ASIDE}!"
    found = ids_of(refused, {ASIDE}, what=f" when only {ASIDE} is allowed")
    if V in found:
        raise Wrong(f"A stranger's text gives a command: {END} was not allowed and still became its id.")
    if found != right(refused, {ASIDE}):
        raise Wrong(f"{END} is not allowed in this text, so it is plain text and is spelled in ordinary tokens.")
    several = f"O{END}Romeo{END}speak{ASIDE}!"
    found, wanted = ids_of(several, full), right(several, full)
    if found != wanted:
        if found.count(V) < 2:
            raise Wrong("Only the first of several special tokens became an id: go on with the rest of the text.")
        if sorted(found) == sorted(wanted):
            raise Wrong("All ids are there, but in a wrong order: take the pieces as they come.")
        raise Wrong("With three special tokens in a text, some of the words between them have got lost or changed.")
    for text in (f"O{END}{END}O", f"{END}", f"{END}{ASIDE}"):
        if ids_of(text, full, what=", in which special tokens touch each other or the edge") != right(text, full):
            raise Wrong(f"Special tokens side by side, or alone, go wrong: {text!r} is the case that fails.")
    blank = f"O {END}\n O"
    if ids_of(blank, full) != right(blank, full):
        raise Wrong("Blanks and line ends next to a special token have changed: nothing may be stripped there.")
    longer = {END: V, ASIDE: V + 1, LONG: V + 7}
    text = f"O{LONG}O"
    if ids_of(text, set(longer), longer) != right(text, set(longer), longer):
        raise Wrong(f"{LONG} begins like {END}, and the shorter one has won: look for the longest token first.")
    if ids_of("", full, what=", the empty text,") != []:
        raise Wrong("The empty text should give the empty list.")
    refuses_taken_ids(learner, bpe, plain)


def judge_one(found: list[int], text: str, bpe: BPETokenizer) -> None:
    """The ids of a text with one allowed special token, END, are wrong: say how."""
    V = bpe.vocab_size
    before, after = text.split(END)
    if found == bpe.encode_ordinary(text):
        raise Wrong(f"{END} was allowed, but it is still spelled in {len(bpe.encode_ordinary(END))} ordinary tokens.")
    if V not in found:
        raise Wrong(f"The id of {END} is nowhere: in a pattern | means “or”, so is re.escape missing?")
    at = found.index(V)
    if not found[:at] or not found[at + 1 :]:
        raise Wrong(f"The text {'before' if not found[:at] else 'after'} the special token is gone.")
    spelled = bpe.decode([i for i in found if i < V])
    if spelled != before + after:
        raise Wrong(f"Around the special token, {before + after!r} should be left, but your ids say {spelled!r}.")
    raise Wrong(
        "The text comes back, but its ids are not those of encode_ordinary: encode each piece whole, not by character "
        "or word."
    )


def refuses_taken_ids(learner: Callable[..., Any], bpe: BPETokenizer, text: str) -> None:
    for taken, there in ((40, "a byte"), (bpe.vocab_size - 1, "the last merge")):
        try:
            learner(text, bpe, {END: taken}, {END})
        except ValueError:
            continue
        except NotImplementedError:
            raise
        except Exception as e:
            raise Wrong(f"An id that is taken should raise a ValueError, not a {type(e).__name__}.") from e
        raise Wrong(f"Id {taken} already belongs to {there}, and your function accepts it for {END}: raise ValueError.")


# ---- day38b: bits per character -------------------------------------------------------------------------------


def bits_per_char(windows: Sequence[Sequence[float]], text: str) -> float:
    """Losses in nats, a row of tokens for each window, of the tokens that spell `text` -> bits per character."""
    nats = sum(sum(window) for window in windows)
    return nats / math.log(2) / len(text)


WINDOWS = [[5.0, 3.0, 4.0], [0.5, 2.5, 6.0], [1.5]]
TEXT = "Café, Romeo:\n  adieu"
Mistake = tuple[Callable[[list[list[float]], str], float], str]


def total(w: list[list[float]]) -> float:
    return sum(map(sum, w))


def tokens(w: list[list[float]]) -> int:
    return sum(map(len, w))


MISTAKES: list[Mistake] = [
    (lambda w, t: total(w) / len(t), "This is in nats per character: one bit is ln 2 nats, so divide by ln 2."),
    (lambda w, t: total(w) / tokens(w) / math.log(2), "This is in bits per token: divide the sum by characters."),
    (lambda w, t: total(w) / tokens(w), "This is the mean loss, in nats per token, which depends on the tokenizer."),
    (lambda w, t: total(w) * math.log(2) / len(t), "You multiply by ln 2; a nat is the larger unit, so divide by it."),
    (
        lambda w, t: total(w) / math.log(2) / len(t.encode()),
        "These are bits per byte: é is one character and two bytes, so take len(text).",
    ),
    (
        lambda w, t: sum(sum(x) / len(x) for x in w) / len(w) * tokens(w) / math.log(2) / len(t),
        "You average the windows' means, so the short last window counts as much as a long one: add up all losses.",
    ),
    (
        lambda w, t: sum(sum(x) / len(x) for x in w) / math.log(2) / len(t),
        "You add up the means of the windows: add up the losses themselves.",
    ),
    (lambda w, t: total(w) / math.log(2), "This is the price of the whole text: divide by its characters."),
    (
        lambda w, t: total(w) / math.log(2) / len(re.sub(r"\s", "", t)),
        "Blanks and line ends are characters too: the model had to predict them.",
    ),
    (lambda w, t: total(w) / math.log(2) / len(t.split()), "You divide by the number of words."),
    (lambda w, t: math.exp(total(w) / len(t)), "This is a perplexity: no exponential is needed."),
    (lambda w, t: 2 ** (total(w) / math.log(2) / len(t)), "This is a perplexity: leave the power of 2 out."),
    (lambda w, t: total(w) / math.log(10) / len(t), "ln 10 gives decimal digits; a bit needs ln 2."),
    (lambda w, t: len(t) * math.log(2) / total(w), "You have characters per bit: turn the fraction round."),
    (
        lambda w, t: total(w[:-1]) / math.log(2) / len(t),
        "The last, shorter window is missing from the sum, and its characters are not missing from the text.",
    ),
    (lambda w, t: total(w) / math.log(2) / (len(t) - 1), "All tokens spell all of text here: divide by len(text)."),
    (lambda w, t: total(w) / math.log(2) / len(w), "This is the price of a window: divide by characters instead."),
    (
        lambda w, t: sum(map(sum, zip(*w, strict=False))) / math.log(2) / len(t),
        "zip stops at the shortest window, so most losses are left out.",
    ),
]


@exercise(
    "day38b",
    title="Bits per character",
    signature="bits_per_char(windows, text)",
    hints=[
        "What is comparable is the price of the whole text: add up all losses, of all tokens in all windows.",
        "Divide by math.log(2), which turns nats into bits, and by len(text).",
    ],
    solution=bits_per_char,
    right="This number can be compared across tokenizers.",
)
def check_bits_per_char(learner: Callable[..., Any]) -> None:
    cases = [(WINDOWS, TEXT), ([[2.0, 1.0]], "O é"), ([[3.0], [1.0, 0.25], [0.5]], "to-morrow and  to-morrow\n")]
    answers = []
    for windows, text in cases:
        given = [list(w) for w in windows]
        with blame(f"It fails for {len(windows)} windows and the text {text!r}"):
            found = learner(given, text)
        if given != windows:
            raise Wrong("Your function changes the list of windows: work on a copy.")
        if found is None:
            raise Wrong("Your function returned None: is there a return line at its end?")
        with blame(f"Return one number, not something of type {type(found).__name__}"):
            answers.append(float(found))
    wanted = [bits_per_char(*case) for case in cases]
    if agree(answers, wanted):
        return
    for mistake, sentence in MISTAKES:
        if agree(answers, [mistake(*case) for case in cases]):
            raise Wrong(sentence)
    if all(math.isclose(a, b, rel_tol=5e-3) for a, b in zip(answers, wanted, strict=True)):
        raise Wrong("Nearly: some constant is rounded. Divide by math.log(2) itself.")
    raise Wrong(
        f"For the losses {WINDOWS[0]}, {WINDOWS[1]}, {WINDOWS[2]} and {len(TEXT)} characters you return "
        f"{answers[0]:.4g}, but the price is {wanted[0]:.4g} bits a character."
    )


def agree(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-7) for a, b in zip(found, wanted, strict=True))
