"""Checkers of day 36: a cleaner that leaves the play alone, and near-duplicates by shingles.

The cleaner first gets a play without dirt, in which everything looks like dirt to some careless rule; then the same
play with one kind of dirt after the other. The near-duplicates are compared with what typical mistakes would find.
"""

import re
from collections.abc import Callable
from typing import Any

from . import Wrong, call, exercise

OPENING = "ROMEO:\nWhat light is this that breaks so late upon the wall, and who is she that stands there all alone, "
PLAY = f"""\
ROMEO:
O,
Is the day so young?

BENVOLIO:
No.

ROMEO:
Upon the stroke of four!
Give me 12 ducats,
And the <smaller> key.
  Good morrow, Sirs.

{OPENING}and speaks?

First Citizen:
Upon the stroke of four!

{OPENING}and weeps?

BENVOLIO:
No."""
START, END = "*** START OF THIS PLAY ***", "*** END OF THIS PLAY ***"
HEADER = f"The Free Play Project\nAnyone may copy this play.\n\n{START}"
FOOTER = f"{END}\n\nThis licence allows copies.\nThe end of the file."


def clean(text: str) -> str:
    """The play, without licence, page numbers and tags, and with one blank line between speeches."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if line.startswith("*** START"):
            lines = lines[i + 1 :]
            break
    for i, line in enumerate(lines):
        if line.startswith("*** END"):
            lines = lines[:i]
            break
    dirt = re.compile(r"\d+|\[Page \d+\]|<[^<>]+>")
    lines = [line for line in lines if not dirt.fullmatch(line.strip())]  # only whole lines
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")  # last, as removed lines leave blank ones


@exercise(
    "day36",
    title="A cleaner that keeps ROMEO:",
    signature="clean(text)",
    hints=[
        "Work on the lines: lines = text.split('\\n'). Look for the first line that starts with '*** START' and keep "
        "what comes after it; then for the one that starts with '*** END'. If there is none, keep everything.",
        "A rule for whole lines: re.fullmatch(r'\\d+|\\[Page \\d+\\]|<[^<>]+>', line.strip()). fullmatch, not search: "
        "a number inside a sentence stays.",
        "Join with '\\n', and only then squeeze: re.sub(r'\\n{3,}', '\\n\\n', text). A removed page number leaves "
        "blank lines on both sides. At last .strip('\\n').",
    ],
    solution=clean,
    right="The dirt is gone, and the play is there letter for letter.",
)
def check_clean(learner: Callable[[str], Any]) -> None:
    check_play_kept(text_of(learner, PLAY))
    body = PLAY.split("\n")
    inside = "\n".join([*body[:11], "{}", *body[11:]])  # in the middle of a speech
    between = PLAY.replace("young?\n\nBENV", "young?\n\n{}\n\nBENV")
    for sign, name in (("12", "12"), ("[Page 12]", "[Page 12]"), ("<hr>", "<hr>"), ('<p class="stage">', "<p ...>")):
        check_line_gone(text_of(learner, inside.format(sign)), sign, name)
    for sign in ("7", "<hr>"):
        got = text_of(learner, between.format(sign))
        if got != PLAY and re.sub(r"\n{3,}", "\n\n", got) == PLAY:
            raise Wrong(
                f"A line {sign} with blank lines around it leaves several blank lines behind: squeeze them last, after "
                "everything else is removed."
            )
        same(got, f"a line {sign} between two speeches")
    squeezed = text_of(learner, PLAY.replace("\n\n", "\n\n\n\n"))
    if "\n\n\n" in squeezed:
        raise Wrong("Runs of several blank lines are still there: they should become one blank line.")
    same(squeezed, "three blank lines between the speeches")
    if text_of(learner, f"\n\n{PLAY}\n\n") != PLAY:
        raise Wrong("Blank lines at the beginning or the end of the file stay: strip them off, '\\n' only.")
    check_licence(learner)


def text_of(learner: Callable[[str], Any], text: str) -> str:
    out = call(learner, text=text)
    if out is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(out, list | tuple):
        raise Wrong("Your function returns a list of pieces: join it into one string with '\\n'.")
    if not isinstance(out, str):
        raise Wrong(f"Your function returns something of type {type(out).__name__}, not one string.")
    return out


def check_play_kept(got: str) -> None:
    """The play without dirt: the order of the questions is from the crude to the fine."""
    lines = got.split("\n")
    if not got.strip():
        raise Wrong("Nothing is left of a small play without any dirt: print the length after each of your steps.")
    if got == PLAY:
        return
    if got.lower() == PLAY.lower():
        raise Wrong("The letters change between capitals and small ones: a cleaner leaves the words as they are.")
    if "" not in lines:
        raise Wrong("The blank lines between the speeches are gone, so the speeches run into each other.")
    for line in ("ROMEO:", "First Citizen:"):
        if line not in lines:
            raise Wrong(
                f"The speaker line {line} is deleted: 'ROMEO:'.isupper() is True, and a rule for short lines or "
                "for colons takes names as well."
            )
    if "\n\n\n" in got:
        raise Wrong("There are more blank lines than before, where the text had one.")
    if "No." not in lines or "O," not in lines:
        raise Wrong("Short lines are deleted, such as “No.” or “O,”: in a play a short line is an answer, not dirt.")
    if got.count("that stands there all alone") < 2:
        raise Wrong(
            "Of two different speeches that begin with the same hundred characters, one is lost: compare whole texts, "
            "or better, remove no duplicates here."
        )
    if got.count("Upon the stroke of four!") < 2 or lines.count("No.") < 2:
        raise Wrong("A line or speech that was said before is removed: a refrain is no mistake, keep what is repeated.")
    if "12 ducats" not in got:
        raise Wrong("A line that only contains a number is deleted: a page number is the whole line (fullmatch).")
    if "<smaller>" not in got:
        raise Wrong("A tag in the middle of a line is touched: only lines that are nothing but one tag go.")
    if "  Good morrow" not in got:
        raise Wrong("Spaces in front of a line are lost: the rule may look at line.strip(), but keep the line itself.")
    missing = [line for line in PLAY.split("\n") if line not in lines]
    if missing:
        raise Wrong(f"A line of the play is changed or deleted that is no dirt: “{missing[0][:40]}”.")
    raise Wrong("Cleaning a text without any dirt changes it; doing it twice must be the same as doing it once.")


def check_line_gone(got: str, sign: str, name: str) -> None:
    if sign in got.split("\n"):
        kind = "tag" if sign.startswith("<") else "page number"
        raise Wrong(f"A line that is only a {kind}, {name}, is still there.")
    if got != PLAY and got.replace("\n\n  Good", "\n  Good") == PLAY:
        raise Wrong(f"The line {name} is replaced by an empty line, which cuts a speech in two: drop the line.")
    same(got, f"a line {name} inside a speech")


def check_licence(learner: Callable[[str], Any]) -> None:
    both = f"{HEADER}\n\n{PLAY}\n\n{FOOTER}"
    for text, part in ((f"{HEADER}\n\n{PLAY}", "before START"), (f"{PLAY}\n\n{FOOTER}", "after END"), (both, "around")):
        got = text_of(learner, text)
        if "Project" in got or "Anyone may" in got:
            raise Wrong("The licence in front of the line *** START is still there: keep what comes after that line.")
        if "This licence" in got or "end of the file" in got:
            raise Wrong("The licence after the line *** END is still there: keep what stands before that line.")
        if "***" in got:
            raise Wrong("The lines *** START and *** END themselves are still there: they go with the licence.")
        same(got, f"a licence {part}")


def same(got: str, what: str) -> None:
    if got != PLAY:
        raise Wrong(f"The play itself changes when the file has {what}; only the dirt should go.")


# Near-duplicates

Pairs = list[tuple[int, int]]


def near_duplicates(documents: list[str], threshold: float) -> Pairs:
    """Sorted pairs (i, j), i < j, of documents whose shingles of 5 characters have a Jaccard of at least threshold."""
    sets = [{d[i : i + 5] for i in range(max(1, len(d) - 4))} for d in documents]
    return [
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])
    ]


LINES = [
    "My kingdom for a horse, my lord, and a crown for my kingdom.",
    "My kingdom for a house, my lord, and a crown for my kingdom.",
    "MY KINGDOM FOR A HORSE, my lord, and a crown for my kingdom.",
    "a crown for my kingdom. My lord, and a horse, my kingdom for",
    "My kingdom for a horse",
    "No, no, no, no, no, no, no, no, no, no, no, no more, my lord.",
    "No, no, no, no more, my lord.",
    "abcdef",
    "abcdeg",
    "abcdefg",
    "No.",
    "No.",
    "Ay.",
    "My kingdom for a horse, my lord, and then some other words to end it.",
]
THRESHOLDS = (0.1, 1 / 3, 0.5, 2 / 3, 0.8, 1.0)
Maker = Callable[[str], Any]


def runs(n: int, last: int = 1) -> Maker:
    return lambda d: {d[i : i + n] for i in range(max(1, len(d) - n + last))}


def found(make: Maker, threshold: float, how: str = "jaccard") -> Pairs:
    sets, out = [make(d) for d in LINES], []
    for i in range(len(sets)):
        for j in range(i + 1, len(sets)):
            a, b = sets[i], sets[j]
            size = {
                "jaccard": len(a | b), "smaller": min(len(a), len(b)), "larger": max(len(a), len(b)),
                "sum": len(a) + len(b), "first": len(a), "above": len(a | b),
            }[how]  # fmt: skip
            common = len(a & b)
            if (common > threshold * size) if how == "above" else (common >= threshold * size):
                out.append((i, j))
    return out


MISTAKES: list[tuple[str, Maker, str]] = [
    ("At a similarity of exactly the threshold the pair is missing: “at least” is >=.", runs(5), "above"),
    ("The overlap is divided by the smaller set: Jaccard divides by all different shingles, len(a | b).",
     runs(5), "smaller"),
    ("The overlap is divided by the larger of the two sets, not by their union, len(a | b).", runs(5), "larger"),
    ("The overlap is divided by len(a) + len(b), which counts the common shingles twice: use len(a | b).",
     runs(5), "sum"),
    ("The overlap is divided by the size of the first set only; Jaccard is the same both ways.", runs(5), "first"),
    ("The last shingle of each text is missing: a text of n characters has n - 4 of them.", runs(5, 0), "jaccard"),
    ("Your shingles are as if of four characters; five are asked for.", runs(4), "jaccard"),
    ("Your shingles are as if of six characters; five are asked for.", runs(6), "jaccard"),
    ("You compare sets of words; the shingles are runs of five characters.", lambda d: set(d.split()), "jaccard"),
    ("You compare sets of single characters; the shingles are runs of five.", set, "jaccard"),
    ("The texts are turned to small letters first; here they are compared as they stand.",
     lambda d: runs(5)(d.lower()), "jaccard"),
    ("You cut the texts into blocks side by side; shingles overlap, a new one starts at every character.",
     lambda d: {d[i : i + 5] for i in range(0, max(1, len(d) - 4), 5)}, "jaccard"),
    ("Only equal texts are found: is the whole text one shingle?", lambda d: {d}, "jaccard"),
]  # fmt: skip


@exercise(
    "day36b",
    title="Near-duplicates",
    signature="near_duplicates(documents, threshold)",
    hints=[
        "The shingles of d: {d[i : i + 5] for i in range(len(d) - 4)}. A text of four characters or fewer would have "
        "none: range(max(1, len(d) - 4)) gives it one, itself.",
        "Jaccard of two sets: len(a & b) / len(a | b). Two loops, for i and for j from i + 1, give the pairs in order.",
        "Collect (i, j) when the similarity is >= threshold, in a list, and return the list at the end.",
    ],
    solution=near_duplicates,
    right="All pairs, no others, for short texts and at the threshold itself.",
)
def check_near(learner: Callable[[list[str], float], Any]) -> None:
    documents = list(LINES)
    got = {}
    for threshold in THRESHOLDS:
        try:
            got[threshold] = pairs(learner(documents, threshold))
        except ZeroDivisionError as e:
            raise Wrong(
                "It divides by zero: a text shorter than five characters gets no shingle at all; its only one is "
                "the text itself."
            ) from e
        if documents != LINES:
            raise Wrong("Your function changes the list of documents, which the caller still needs.")
    right = {t: near_duplicates(LINES, t) for t in THRESHOLDS}
    if {t: round_trip(p) for t, p in got.items()} == right:
        if got == right:
            return
        raise Wrong("The pairs are right but not sorted: return them in the order (0, 1), (0, 2), …")
    if any(i == j for p in got.values() for i, j in p):
        raise Wrong("A document is paired with itself: j begins at i + 1.")
    if any((j, i) in p for p in got.values() for i, j in p):
        raise Wrong("Each pair comes twice, as (i, j) and as (j, i): only i < j is asked for.")
    if any(i > j for p in got.values() for i, j in p):
        raise Wrong("The pairs are the wrong way round: i < j, the earlier document first.")
    for sentence, make, how in MISTAKES:
        if all(got[t] == found(make, t, how) for t in THRESHOLDS):
            raise Wrong(sentence)
    for t in THRESHOLDS:
        if got[t] != right[t]:
            short = {(10, 11)} - set(got[t])
            if short and all(p in got[t] for p in right[t] if p != (10, 11)):
                raise Wrong("Two equal texts of three characters are not found: a short text is its own shingle.")
            wrong = sorted(set(got[t]) ^ set(right[t]))[0]
            word = "missing" if wrong in right[t] else "found, though they are not similar enough"
            raise Wrong(f"At threshold {t:.2f}, “{LINES[wrong[0]]}” and “{LINES[wrong[1]]}” are {word}.")


def round_trip(p: Pairs) -> Pairs:
    return sorted(p)


def pairs(value: Any) -> Pairs:
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(value, set | frozenset):
        raise Wrong("Your function returns a set, which has no order: return sorted(...) of it, a list.")
    if not isinstance(value, list | tuple):
        raise Wrong(f"Your function returns something of type {type(value).__name__}: a list of pairs is wanted.")
    if any(isinstance(p, str) for p in value):
        raise Wrong("Your function returns texts: the pairs hold the places of the documents, whole numbers.")
    try:
        return [(int(i), int(j)) for i, j in value]
    except (TypeError, ValueError) as e:
        raise Wrong("Each entry of the list should be a pair of two whole numbers, (i, j).") from e
