"""Checkers of day 1: a character tokenizer that says what is wrong, and one merge of byte pair encoding."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from . import Wrong, blame, call, exercise, first_line

Encode = Callable[[str], Any]
Decode = Callable[[list[int]], Any]

TEXT = "O Romeo, Romeo! wherefore art thou Romeo?\n"
CHARS = sorted(set(TEXT))


def char_tokenizer(text: str) -> tuple[Encode, Decode]:
    """Two functions: encode(str) -> list of ids, decode(ids) -> str. The sorted characters of `text` are the ids."""
    chars = sorted(set(text))
    id_of = {c: i for i, c in enumerate(chars)}

    def encode(s: str) -> list[int]:
        for c in s:
            if c not in id_of:
                raise ValueError(f"character {c!r} is not among the {len(chars)} of the vocabulary")
        return [id_of[c] for c in s]

    def decode(ids: list[int]) -> str:
        for i in ids:
            if not 0 <= i < len(chars):
                raise ValueError(f"id {i} does not exist: ids go from 0 to {len(chars) - 1}")
        return "".join(chars[i] for i in ids)

    return encode, decode


@exercise(
    "day01",
    title="A character tokenizer",
    signature="char_tokenizer(text)",
    hints=[
        "chars = sorted(set(text)) is the vocabulary, and {c: i for i, c in enumerate(chars)} gives each character's "
        "id. Define encode and decode inside char_tokenizer, and end with: return encode, decode.",
        "Before encode looks a character up, it asks whether the dictionary has it. If not: raise ValueError(...) with "
        "the character in the message; {c!r} in an f-string shows even a space or a line end.",
        "decode asks whether 0 <= i < len(chars) for each id, because chars[-1] is no error in Python but the last "
        "character.",
    ],
    solution=char_tokenizer,
    right="It knows its characters, brings every text back, and names what it does not know.",
)
def check_char_tokenizer(learner: Callable[[str], Any]) -> None:
    encode, decode = functions(learner, TEXT)
    judge_ids(encode)
    judge_text(decode)
    if ids_of(encode, "") or text_of(decode, []) != "":
        raise Wrong("The empty text should give the empty list of ids, and that list the empty text again.")
    # A second tokenizer must not change the first one, as it does when both write into one global dictionary.
    other_encode, other_decode = functions(learner, "zebra")
    if ids_of(other_encode, "zebra") != [4, 2, 1, 3, 0]:
        raise Wrong("The first tokenizer is right, but a second one, for the text 'zebra', gives wrong ids.")
    if again(encode, "Romeo") != right_ids("Romeo") or again(decode, [0, 1]) != "".join(CHARS[:2]):
        raise Wrong(
            "Making a second tokenizer changes the first one: both use the same global variable; make the vocabulary "
            "inside char_tokenizer."
        )
    refuses_characters(encode)
    refuses_ids(decode)
    refuses_characters(other_encode, "R")  # known to the first, not to this one
    refuses_ids(other_decode, 5)


def functions(learner: Callable[[str], Any], text: str) -> tuple[Encode, Decode]:
    """What the learner's function returns, if these are two functions."""
    made = call(learner, text=text)
    if made is None:
        raise Wrong("char_tokenizer returned None: its last line should be `return encode, decode`.")
    if not isinstance(made, Sequence) or len(made) != 2 or not all(map(callable, made)):
        kind = type(made).__name__
        raise Wrong(f"char_tokenizer returned something of type {kind}: return the two functions, encode and decode.")
    return made[0], made[1]


def right_ids(s: str) -> list[int]:
    return [CHARS.index(c) for c in s]


def again(function: Callable[[Any], Any], argument: Any) -> Any:
    """The result, or None if it fails."""
    with suppress(Exception):
        return function(argument)
    return None


def ids_of(encode: Encode, s: str) -> list[int]:
    """What `encode` makes of a text whose characters it knows, as a list of int."""
    with blame(f"encode fails on {s!r}, whose characters it knows"):
        ids = encode(s)
    if ids is None:
        raise Wrong("encode returned None: is there a return line at its end?")
    if isinstance(ids, str) or not isinstance(ids, list):
        raise Wrong(f"encode returned something of type {type(ids).__name__}: it should be a list of whole numbers.")
    try:
        return [operator.index(i) for i in ids]
    except TypeError:
        raise Wrong(f"encode's list holds {first_odd(ids)!r}, which is not a whole number.") from None


def first_odd(items: list[Any]) -> Any:
    return next(i for i in items if not hasattr(i, "__index__"))


def text_of(decode: Decode, ids: list[int]) -> str:
    """What `decode` makes of ids that exist."""
    what = f"{ids}, all of which exist" if ids else "the empty list, which should give the empty text"
    with blame(f"decode fails on {what}"):
        s = decode(ids)
    if s is None:
        raise Wrong("decode returned None: is there a return line at its end?")
    if not isinstance(s, str):
        raise Wrong(f"decode returned something of type {type(s).__name__}: join the characters, ''.join(...).")
    return s


def judge_ids(encode: Encode) -> None:
    """The ids of the text itself; the likely mistakes by the ids that they give."""
    ids, wanted = ids_of(encode, TEXT), right_ids(TEXT)
    if ids == wanted:
        return
    if len(ids) != len(wanted):
        raise Wrong(f"encode made {len(ids)} ids of {len(wanted)} characters: each character has one, also blanks.")
    if ids == [i + 1 for i in wanted]:
        raise Wrong("The ids start at 1: the first character of the sorted vocabulary has id 0.")
    if ids == [ord(c) for c in TEXT]:
        raise Wrong("These are the code points that ord gives: an id is the place in your own, sorted vocabulary.")
    if ids == [sorted(TEXT).index(c) for c in TEXT] or max(ids) >= len(CHARS):
        raise Wrong("Ids go beyond the number of different characters: repeated ones are counted again; use set(text).")
    if ids == [list(dict.fromkeys(TEXT)).index(c) for c in TEXT]:
        raise Wrong("The ids follow the first appearance in the text: sort the characters.")
    if ids == [len(CHARS) - 1 - i for i in wanted]:
        raise Wrong("The vocabulary is sorted backwards: the smallest character has id 0.")
    folded = sorted(set(TEXT.lower()))
    if ids == [folded.index(c) for c in TEXT.lower()] or ids[0] == ids[TEXT.index("o")]:
        raise Wrong("O and o have the same id: small and capital letters are different characters.")
    common = [c for c, _ in Counter(TEXT).most_common()]
    if ids == [common.index(c) for c in TEXT]:
        raise Wrong("The ids follow the frequency of the characters: sort the characters themselves.")
    if len(set(ids)) == len(CHARS):
        raise Wrong(
            "Each character has its own id, but not in sorted order: without sorted, a set's order changes in every "
            "run."
        )
    raise Wrong("Different characters share an id, so no decoder could tell them apart.")


def judge_text(decode: Decode) -> None:
    s = text_of(decode, right_ids(TEXT))
    if s == TEXT:
        return
    if s == TEXT.strip():
        raise Wrong("decode loses blanks or line ends at the edges: give the text back exactly as it was.")
    if s == " ".join(TEXT):
        raise Wrong("decode puts a space between the characters: join them with the empty string, ''.join(...).")
    if s == TEXT[::-1]:
        raise Wrong("decode gives the text back to front.")
    raise Wrong(f"encode is right, but decode makes {s[:12]!r} … of the ids of {TEXT[:12]!r} …")


def refuses_characters(encode: Encode, *only: str) -> None:
    """What happens to a character that the vocabulary lacks."""
    for c in only or ("\u00e9", "z", "\t"):
        known = "" if only else "Rome"
        result = outcome(encode, known + c)
        who = f"the unknown character {c!r}"
        if isinstance(result, BaseException):
            must_be_value_error(result, f"For {who}, encode")
            if not names_it(result, c):
                said = first_line(result)
                raise Wrong(f"encode refuses {who}, but its message does not say which character it is: “{said}”.")
        elif isinstance(result, list) and len(result) == len(known):
            raise Wrong(f"encode leaves {who} out without a word: the text that comes back is another one.")
        else:
            got = result[-1] if isinstance(result, list) and result else result
            raise Wrong(f"encode gives {who} the id {got!r} instead of refusing it: raise a ValueError.")


def names_it(error: BaseException, c: str) -> bool:
    """Whether a message shows the character: itself, set off from the words around it, or its repr or number."""
    message = f" {error} "
    if any(written in message for written in (repr(c), ascii(c), f"{ord(c):04X}", f"{ord(c):04x}", str(ord(c)))):
        return True
    return bool(re.search(rf"(?<!\w){re.escape(c)}(?!\w)", message)) if c.isprintable() else c in message


def refuses_ids(decode: Decode, *only: int) -> None:
    """What happens to an id that does not exist."""
    for i in only or (len(CHARS), -1, 1000):
        result = outcome(decode, [0, i])
        if isinstance(result, BaseException):
            must_be_value_error(result, f"For the id {i}, which does not exist, decode")
            if str(i) not in str(result):
                said = first_line(result)
                raise Wrong(f"decode refuses the id {i}, but its message does not say which id it was: “{said}”.")
        elif i < 0:
            raise Wrong("decode takes the id -1 for the last character, as Python counts from the end: refuse it.")
        else:
            last = 4 if only else len(CHARS) - 1
            raise Wrong(f"decode accepts the id {i}, though the last one is {last}: raise a ValueError.")


def outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    """The result, or the error that was raised."""
    try:
        return function(argument)
    except NotImplementedError:
        raise
    except Exception as error:
        return error


def must_be_value_error(error: BaseException, who: str) -> None:
    if not isinstance(error, ValueError):
        kind = type(error).__name__
        raise Wrong(f"{who} stops with a bare {kind}: check first, and raise a ValueError that says what is wrong.")


# ---- One merge ------------------------------------------------------------------------------------------------

Step = Callable[[list[int], int], Any]
Pair = tuple[int, int]


def merge_step(ids: list[int], new_id: int) -> tuple[Pair | None, list[int]]:
    """The most frequent pair of neighbors (the smallest of equals), and the ids after merging it into `new_id`."""
    counts = Counter(pairwise(ids))
    if not counts:
        return None, list(ids)
    pair = min(counts, key=lambda p: (-counts[p], p))
    return pair, replaced(ids, pair, new_id)


def replaced(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """From the left; a token that was just made does not take part again."""
    out: list[int] = []
    i = 0
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        out.append(new_id if hit else ids[i])
        i += 2 if hit else 1
    return out


@exercise(
    "day01b",
    title="One merge",
    signature="merge_step(ids, new_id)",
    hints=[
        "collections.Counter(zip(ids, ids[1:])) counts every pair of neighbors, overlapping ones too.",
        "The pair is min(counts, key=lambda p: (-counts[p], p)): the highest count, and of equal ones the smallest "
        "pair. If counts is empty, there is nothing to merge: return None, list(ids).",
        "Build a new list with a while loop: where ids[i] and ids[i + 1] are the pair, append new_id and go two places "
        "on; otherwise append ids[i] and go one place on.",
    ],
    solution=merge_step,
    right="The right pair, the right ties, from left to right, and the caller's list untouched.",
)
def check_merge_step(learner: Step) -> None:
    # Here every wrong way to choose that judge_pair knows gives another pair; the winner stands at the end, too.
    judge_merge(learner, [6, 1, 4, 1, 3, 1, 3, 7, 5, 4, 1, 5, 4, 5, 4], 300)
    judge_merge(learner, [5, 3, 7, 3, 5, 3, 9, 5, 3, 8], 256)
    judge_merge(learner, [3, 4, 3, 4, 6, 5, 6, 3, 3], 300)  # (3, 3) would win if the ends were neighbors
    judge_merge(learner, [5, 6, 9, 2, 4, 5, 6, 9, 2, 4], 300)  # four pairs stand twice: the smallest is neither end
    judge_merge(learner, [0, 6, 0, 6, 0, 3], 7)  # id 0 is an id
    judge_merge(learner, [4, 4, 4, 1, 4, 4], 300)  # a run of three
    judge_merge(learner, [4, 4, 4, 4, 4], 300)
    judge_merge(learner, [1, 2, 11, 2, 1, 2, 1, 21], 300)  # 11, 2 holds the digits "1, 2"
    for ids in ([], [3]):
        with blame(f"It fails for {ids}, where there is no pair: return None and a copy"):
            result = call(learner, ids=list(ids), new_id=300)
        if result != (None, ids) and result != [None, ids]:
            raise Wrong(f"For {ids} there is no pair: it should return None and a copy of the list, not {result!r}.")


def judge_merge(learner: Step, ids: list[int], new_id: int) -> None:
    mine = list(ids)
    result = learner(mine, new_id)
    if mine != ids:
        raise Wrong("Your function changes the caller's list: build a new one and leave ids as it is.")
    pair, out = taken_apart(result)
    judge_pair(ids, pair)
    judge_out(ids, new_id, pair, out)


def taken_apart(result: Any) -> tuple[Pair, list[int]]:
    if result is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = type(result).__name__
        raise Wrong(f"It returned something of type {kind}: return two things, the pair and the new list.")
    pair, out = result
    if isinstance(pair, list) and len(pair) != 2 and isinstance(out, tuple):
        raise Wrong("The two results have changed places: first the pair, then the new list.")
    if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], tuple):
        raise Wrong("The first result is the pair together with its count: return the pair alone.")
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise Wrong(f"The first result should be a pair of two ids; it is {pair!r}.")
    if not isinstance(out, list):
        raise Wrong(f"The second result is of type {type(out).__name__}: it should be the new list of ids.")
    return (pair[0], pair[1]), out


def judge_pair(ids: list[int], pair: Pair) -> None:
    """The pair that was chosen; a wrong one is compared with what the likely mistakes choose."""

    def most_frequent(counts: Counter[Pair]) -> Pair:
        return min(counts, key=lambda p: (-counts[p], p))

    counts = Counter(pairwise(ids))
    wanted = most_frequent(counts)
    if pair == wanted:
        return
    if counts[pair] == counts[wanted]:
        tied = [p for p in counts if counts[p] == counts[wanted]]
        which = "the first one met" if pair == tied[0] else "the largest" if pair == max(tied) else "another one"
        raise Wrong(f"In {ids}, several pairs stand equally often, and it takes {which}: take the smallest of them.")
    mistakes = {
        f"In {ids}, {pair} wins only if the last id and the first one are neighbors: they are not.": {
            most_frequent(Counter(zip(ids, [*ids[1:], ids[0]], strict=True)))
        },
        f"It takes the largest pair, {pair}, not the most frequent: max needs a key.": {max(counts)},
        f"It takes the smallest pair, {pair}, not the most frequent: min needs a key.": {min(counts)},
        f"It takes the rarest pair, {pair}: the most frequent one is wanted.": {
            min(counts, key=lambda p: (counts[p], p)), min(counts, key=counts.__getitem__)
        },
        f"In {ids}, {pair} wins only if (a, b) and (b, a) count as the same: are the ids of a pair sorted?": {
            most_frequent(Counter((min(p), max(p)) for p in pairwise(ids)))
        },
        f"In {ids}, {pair} wins only if every second pair is counted: every id but the last starts one.": {
            most_frequent(Counter(zip(ids[::2], ids[1::2], strict=False)))
        },
    }  # fmt: skip
    for sentence, pairs in mistakes.items():
        if pair in pairs:
            raise Wrong(sentence)
    if pair not in counts:
        raise Wrong(f"In {ids}, {pair} are never neighbors: count zip(ids, ids[1:]).")
    raise Wrong(f"In {ids}, {wanted} stands {counts[wanted]} times and {pair} only {counts[pair]}.")


def judge_out(ids: list[int], new_id: int, pair: Pair, out: list[int]) -> None:
    wanted = replaced(ids, pair, new_id)
    if out == wanted:
        return
    a, b = pair
    if out == ids:
        raise Wrong("The pair is right, but nothing is merged: the list comes back as it was.")
    if 256 in out and new_id != 256:
        raise Wrong(f"The new token is written as 256, though new_id is {new_id}.")
    once = ids.index(a, next(i for i, p in enumerate(pairwise(ids)) if p == pair))
    if out == [*ids[:once], new_id, *ids[once + 2 :]] and len(wanted) < len(out):
        raise Wrong("Only the first occurrence is merged: the pair stands in more places.")
    if out == wanted[:-1]:
        raise Wrong("The last id is lost: a loop to len(ids) - 1 does not reach it.")
    if out and out[:-1] == wanted and out[-1] == ids[-1]:
        raise Wrong("An id too many at the end: the second half of the last pair is written again.")
    if out == keep_second(ids, pair, new_id):
        raise Wrong(f"The second id of the pair is kept behind the new token: {new_id} stands for both, so skip it.")
    if out == replaced_in_digits(ids, pair, new_id):
        raise Wrong(f"It looks for the digits of {pair} in a text and finds them inside larger ids: compare whole ids.")
    if a == b and out == replaced(ids[::-1], pair, new_id)[::-1]:
        raise Wrong(f"In a run such as {a}, {a}, {a} it merges from the right: go from left to right.")
    if a == b and out.count(new_id) > wanted.count(new_id):
        raise Wrong(f"In the run {a}, {a}, {a} one id is used for two merges: after a merge, go on behind the pair.")
    if pair in pairwise(out):
        raise Wrong(f"The pair {pair} still stands somewhere in the new list.")
    if out == [new_id if i in pair else i for i in ids] or out.count(new_id) > wanted.count(new_id):
        raise Wrong("Single ids of the pair are replaced too: only both together, in this order, become the new token.")
    raise Wrong(f"The pair is right, but of {ids} it makes {out}.")


def keep_second(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """What comes out if the loop goes on one place behind a merge instead of two."""
    return [new_id if tuple(ids[i : i + 2]) == pair else ids[i] for i in range(len(ids))]


def replaced_in_digits(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """What comes out if the ids are written as a text and the pair is replaced there."""
    written = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new_id))
    return [int(word) for word in written.split()]
