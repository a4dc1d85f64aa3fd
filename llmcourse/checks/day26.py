"""Checkers of day 26: a prompt encoder, and a cache of keys and values for one layer.

The cache is judged by what it returns for a text that is cut into pieces. One pass over the whole gives the right
answer, and the same pass with a wrong mask gives what each typical mistake returns.
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from . import Wrong, blame, call, exercise, tensor

CHARS = list("\n !',.:;?ABEIJLMORTU") + list("abcdefghijklmnopqrstuvwxyz")
CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"  # the one that phones write


def encode_prompt(prompt: str, chars: Sequence[str], block_size: int, replace: str | None = None) -> Tensor:
    """The ids `(1, T)` of the last `block_size` characters; an unknown one is an error or becomes `replace`."""
    if not prompt:
        raise ValueError("The prompt is empty: a line break starts from nothing.")
    id_of = {c: i for i, c in enumerate(chars)}
    if replace is not None and replace not in id_of:
        raise ValueError(f"replace={replace!r} is not in the vocabulary.")
    ids = []
    for c in prompt:
        known = c if c in id_of else replace
        if known is None:
            raise ValueError(f"{c!r} (U+{ord(c):04X}) is not in the vocabulary.")
        ids.append(id_of[known])
    return torch.tensor([ids[-block_size:]])  # (1, T)


@exercise(
    "day26",
    title="A prompt encoder",
    signature="encode_prompt(prompt, chars, block_size, replace)",
    hints=[
        "id_of = {c: i for i, c in enumerate(chars)} turns a character into its id. What is not in id_of is unknown.",
        'raise ValueError(f"{c!r} (U+{ord(c):04X}) is not in the vocabulary") names the character and its code point. '
        "Only if replace is not None, take id_of[replace] for it.",
        "ids[-block_size:] keeps the last ones, and torch.tensor([ids]), a list in a list, has the shape (1, T).",
    ],
    solution=encode_prompt,
    right="Every character is encoded, replaced on request, or named; a prompt that is too long keeps its end.",
)
def check_encode_prompt(learner: Callable[..., Any]) -> None:
    text = "ROMEO: a rose"
    with blame("It fails for a prompt that the vocabulary covers"):
        out = call(learner, prompt=text, chars=CHARS, block_size=32, replace=None)
    judge_ids(out, encode_prompt(text, CHARS, 32), text)
    for odd, what in (("\nROMEO:\n", "line breaks"), ("  to me ", "spaces")):
        out = call(learner, prompt=odd, chars=CHARS, block_size=32, replace=None)
        if not isinstance(out, Tensor) or not torch.equal(out, encode_prompt(odd, CHARS, 32)):
            raise Wrong(f"The {what} at the ends of a prompt are lost: they are characters too, keep them.")
    twice = encoded(learner, "\n\n")
    if not torch.equal(twice, encode_prompt("\n\n", CHARS, 32)):
        raise Wrong("A prompt of two line breaks is changed, and both are in the vocabulary.")
    check_unknown(learner)
    check_replace(learner)
    check_lengths(learner)


def encoded(learner: Callable[..., Any], prompt: str, block_size: int = 32, replace: str | None = None) -> Tensor:
    out = call(learner, prompt=prompt, chars=CHARS, block_size=block_size, replace=replace)
    return tensor(out, (1, min(len(prompt), block_size)), torch.int64, "(1, T)")


def judge_ids(out: Any, wanted: Tensor, text: str) -> None:
    """The plain case: every character known, and the prompt shorter than the window."""
    if isinstance(out, list):
        raise Wrong("The result is a list: the model reads a tensor of shape (1, T).")
    if isinstance(out, Tensor):
        T = wanted.shape[1]
        if tuple(out.shape) == (T,):
            raise Wrong(f"The result has shape ({T},): the batch dimension is missing, make it (1, T).")
        if tuple(out.shape) == (T, 1):
            raise Wrong(f"The result has shape ({T}, 1), {T} texts of one character: swap the dimensions, (1, T).")
        if out.is_floating_point():
            raise Wrong("The ids are floating-point numbers, and an embedding looks up whole ones: dtype int64.")
    out = tensor(out, tuple(wanted.shape), torch.int64, "(1, T)")
    if torch.equal(out, wanted):
        return
    if out.tolist() == [[ord(c) for c in text]]:
        raise Wrong("These are code points from ord: an id is the place of the character in chars.")
    own = sorted(set(text))
    if out.tolist() == [[own.index(c) for c in text]]:
        raise Wrong("The vocabulary was made from the prompt: the ids must be places in the given chars.")
    if torch.equal(out, wanted + 1):
        raise Wrong("Every id is 1 too high: the first of chars has the id 0.")
    if torch.equal(out, encode_prompt(text.lower(), CHARS, 32)):
        raise Wrong("The prompt was made lower case, and to the model R and r are different characters.")
    if torch.equal(out, wanted.flip(1)):
        raise Wrong("The prompt comes out backwards.")
    raise Wrong("The ids are not the places of the characters in chars.")


def check_unknown(learner: Callable[..., Any]) -> None:
    for prompt, culprit in ((f"I{CURLY}ll", CURLY), ("a 7 b 9", "7"), ("\t", "\t")):
        point = f"{ord(culprit):04X}"
        try:
            out = call(learner, prompt=prompt, chars=CHARS, block_size=32, replace=None)
        except ValueError as e:
            if type(e).__module__ == "builtins" and "is not in list" in str(e):
                raise Wrong(
                    "The message for an unknown character is that of list.index; raise a ValueError whose message "
                    "shows the character and its code point."
                ) from e
            said = re.sub(r"(?i)u\+0*|0x0*|\\u0*", "", str(e))  # U+2019, 0x2019 or \\u2019
            if re.search(rf"(?i)(?<![0-9a-f]){point.lstrip('0')}(?![0-9a-f])", said):
                if repr(culprit)[1:-1] in str(e) or culprit in str(e):
                    continue
                raise Wrong("The message gives the code point but does not show the character itself.") from e
            raise Wrong(
                f"The ValueError for U+{point} does not tell its code point, and many characters look alike: put "
                "U+{ord(c):04X} into the message, for the first unknown one."
            ) from e
        except KeyError as e:
            raise Wrong(
                "An unknown character ends in a bare KeyError: catch that case and raise a ValueError that says which "
                "character it is."
            ) from e
        if isinstance(out, Tensor) and out.shape[-1] < len(prompt):
            raise Wrong(
                f"The unknown character U+{point} is dropped silently, so the model reads another text than the one "
                "that was typed: raise a ValueError."
            )
        raise Wrong(f"The unknown character U+{point} becomes another one although replace was not given.")


def check_replace(learner: Callable[..., Any]) -> None:
    prompt = f"I{CURLY}ll {CURLY}t"
    with blame("With replace given, an unknown character should become that one, but it fails"):
        out = call(learner, prompt=prompt, chars=CHARS, block_size=32, replace="'")
    if isinstance(out, Tensor) and out.shape[-1] < len(prompt):
        raise Wrong("With replace given, unknown characters are dropped instead of replaced: the text gets shorter.")
    out = tensor(out, (1, len(prompt)), torch.int64, "(1, T)")
    if not torch.equal(out, encode_prompt(prompt, CHARS, 32, "'")):
        if torch.equal(out, encode_prompt(prompt, CHARS, 32, CHARS[0])):
            raise Wrong("With replace given, unknown characters get the id 0 instead of the id of replace.")
        raise Wrong("With replace given, the unknown characters must become replace, all of them, and no others.")
    with blame("It works for one replacement and fails for the one with the id 0: test for replace is not None"):
        first = encoded(learner, prompt, replace=CHARS[0])
    if not torch.equal(first, encode_prompt(prompt, CHARS, 32, CHARS[0])):
        raise Wrong("The replacement with the id 0 is not used: test for replace is not None, not whether it is true.")


def check_lengths(learner: Callable[..., Any]) -> None:
    prompt = "abcdefghij"
    for length in (11, 10, 9, 4, 1):
        with blame(f"It refuses a prompt of 10 characters with block_size {length}; it should keep the end"):
            out = call(learner, prompt=prompt, chars=CHARS, block_size=length, replace=None)
        wanted = encode_prompt(prompt, CHARS, length)
        size = out.shape[-1] if isinstance(out, Tensor) and out.ndim == 2 else -1
        if size == len(prompt) > length:
            raise Wrong(f"A prompt of 10 characters keeps all of them though block_size is {length}.")
        if size in (length - 1, length + 1) and size < len(prompt):
            raise Wrong(f"With block_size {length} it keeps {size} characters: the cut is off by one.")
        out = tensor(out, tuple(wanted.shape), torch.int64, "(1, T)")
        if not torch.equal(out, wanted):
            raise Wrong(
                f"With block_size {length} it keeps the beginning of the prompt: the text goes on from its end, "
                "so keep the last ones."
            )
    try:
        call(learner, prompt="", chars=CHARS, block_size=8, replace=None)
    except ValueError:
        pass
    except IndexError as e:
        raise Wrong("An empty prompt ends in an IndexError: test for it first, and raise a ValueError.") from e
    else:
        raise Wrong("An empty prompt is accepted: without a last position there is no bet, so raise a ValueError.")


class Cache:
    """The keys and values of one attention layer for one batch of texts, however these are cut into pieces."""

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the new positions `(B, H, t, D)` over all so far."""
        if self.k is not None and self.v is not None:
            k = torch.cat((self.k, k), dim=2)  # behind the old ones
            v = torch.cat((self.v, v), dim=2)
        self.k, self.v = k, v
        new, seen = q.shape[2], k.shape[2]
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        allowed = torch.ones(new, seen, dtype=torch.bool, device=q.device).tril(seen - new)
        return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v


B, H, D = 2, 3, 8
Pieces = Sequence[int]


@exercise(
    "day26b",
    title="A cache that takes pieces",
    signature="Cache()",
    wants="class",
    hints=[
        "Keep self.k and self.v, None at first, set in __init__. Each call joins the new ones behind them with "
        "torch.cat(…, dim=2), and stores the result.",
        "The new queries ask all keys, old and new: the scores are (B, H, t, seen). Divide by the root of D as ever.",
        "New position i may see the old ones and the new ones up to itself: a triangle in the lower right corner, "
        "torch.ones(t, seen, dtype=torch.bool).tril(seen - t). For t = 1 everything is allowed.",
    ],
    solution=Cache,
    right="Whole, one by one or in pieces: the same attention, and every cache keeps its own text.",
)
def check_cache(learner: Callable[[], Any]) -> None:
    if not callable(getattr(learner, "attend", None)):
        raise Wrong("The class has no method called attend.")
    with blame("Cache() cannot be made without arguments"):
        learner()
    q, k, v = torch.randn(3, B, H, 7, D)
    judge(learner, q, k, v, (7,))
    judge(learner, q, k, v, (4, 1, 1, 1))
    judge(learner, q, k, v, (1,) * 7)
    judge(learner, q, k, v, (3, 4))
    judge(learner, q, k, v, (2, 1, 3, 1))
    check_apart(learner, q, k, v)
    q, k, v = torch.randn(3, 1, 2, 40, 4)
    judge(learner, q, k, v, (9, *(1,) * 20, 11))


def check_apart(learner: Callable[[], Any], q: Tensor, k: Tensor, v: Tensor) -> None:
    """Two caches that are used in turns, and an object that begins after another one has ended."""
    a, b = learner(), learner()
    k2, v2 = torch.randn(2, *k.shape)
    for i in range(3):
        parts = [x[:, :, i : i + 1] for x in (q, k, v, k2, v2)]
        with blame("Two caches used in turns get into each other's way"):
            of_a, of_b = attend(a, *parts[:3]), attend(b, parts[0], *parts[3:])
        right_a, right_b = by_rule(q, k, v)[:, :, i : i + 1], by_rule(q, k2, v2)[:, :, i : i + 1]
        if not (same(of_a, right_a) and same(of_b, right_b)):
            raise Wrong("Two caches share their memory: make k and v in __init__, not in the class itself.")


def attend(cache: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = call(cache.attend, q=q, k=k, v=v)
    if isinstance(out, Tensor) and out.shape[2:3] != q.shape[2:3] and out.ndim == 4 and q.shape[2] < out.shape[2]:
        raise Wrong(
            f"For {q.shape[2]} new positions it returns {out.shape[2]}: the result belongs to the new queries only."
        )
    return tensor(out, q.shape, meaning="(B, H, t, D)")


def by_rule(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Attention over all positions with any mask (T, T); rows that may see nothing give NaN."""
    T = q.shape[2]
    if allowed is None:
        allowed = torch.ones(T, T, dtype=torch.bool).tril()
    scores = q @ k.transpose(-2, -1) * (scale if scale is not None else q.shape[-1] ** -0.5)
    return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def judge(learner: Callable[[], Any], q: Tensor, k: Tensor, v: Tensor, pieces: Pieces) -> None:
    """Feed the text in these pieces and name what is wrong with the first piece that is."""
    cache, right, start = learner(), by_rule(q, k, v), 0
    for number, size in enumerate(pieces):
        part = slice(start, start + size)
        what = "the first piece" if number == 0 else f"a piece of {size} behind {start} stored positions"
        try:
            out = attend(cache, q[:, :, part], k[:, :, part], v[:, :, part])
        except (Wrong, NotImplementedError):
            raise
        except Exception as e:
            if number:
                axis = wrong_axis(learner(), q, k, v)
                if axis:
                    raise Wrong(
                        f"The new keys are joined along the {axis} instead of the positions: torch.cat needs dim=2."
                    ) from e
            with blame(f"It fails on {what}"):
                raise
        if not same(out, right[:, :, part]):
            diagnose(cache, q, k, v, part, out, what)
        start += size


def wrong_axis(cache: Any, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """The dimension along which stored tensors grow with two pieces of one position, if it is a wrong one."""
    with suppress(Exception):
        for i in range(2):
            cache.attend(*(x[:, :, i : i + 1] for x in (q, k, v)))
    for x in vars(cache).values():
        if isinstance(x, Tensor) and x.ndim == 4:
            for dim, name in ((0, "batch"), (1, "heads"), (3, "channels of a head")):
                if x.shape[dim] > q.shape[dim]:
                    return name
    return None


def diagnose(cache: Any, q: Tensor, k: Tensor, v: Tensor, part: slice, out: Tensor, what: str) -> None:
    """Compare a wrong piece with what each typical mistake returns."""
    T, start, size = q.shape[2], part.start, part.stop - part.start
    rows, columns = torch.arange(T)[:, None], torch.arange(T)
    past, itself = columns < start, rows == columns
    known = columns < part.stop

    def fits(allowed: Tensor | None = None, scale: float | None = None, values: Tensor = v) -> bool:
        return same(out, by_rule(q, k, values, allowed, scale)[:, :, part])

    causal = rows >= columns
    if out.isnan().any():
        raise Wrong(f"The result for {what} holds NaN: some position is left without any key, not even its own.")
    scales = {
        1.0: "not scaled: divide them by the root of D",
        1 / D: "divided by D instead of its root",
        (H * D) ** -0.5: "divided by the root of H · D, and D alone is the size of a head",
    }
    for scale, words in scales.items():
        if fits(scale=scale):
            raise Wrong(f"The scores are {words}.")
    if fits(known & torch.ones(T, T, dtype=torch.bool)):
        if start == 0:
            raise Wrong("In a first piece of several positions, early ones see later ones: prefill needs a mask.")
        raise Wrong(
            f"In {what} every new position sees all new ones: the mask of prefill is needed behind a past as well."
        )
    if start and fits(causal & ~past):
        raise Wrong("The new positions see only each other: the stored keys and values are not used, or overwritten.")
    if start and fits(past & torch.ones(T, T, dtype=torch.bool)):
        raise Wrong("The new positions see the stored ones but not themselves: store first, then attend.")
    corner = columns <= rows - start
    if start and fits(corner):
        raise Wrong(
            "The triangle of the mask stands in the upper left corner: the first new query sees the first key alone "
            "(is_causal=True does that); it belongs into the lower right, tril(seen - new)."
        )
    if start and size > 1:
        swapped = torch.cat((v[:, :, part], v[:, :, :start]), dim=2), torch.cat((k[:, :, part], k[:, :, :start]), dim=2)
        seen = torch.ones(size, part.stop, dtype=torch.bool).tril(start)
        scores = q[:, :, part] @ swapped[1].transpose(-2, -1) / math.sqrt(q.shape[-1])
        if same(out, scores.masked_fill(~seen, -math.inf).softmax(-1) @ swapped[0]):
            raise Wrong("New keys are put in front of the old ones, where the mask is not made for them.")
    just_before = itself | (past & (columns >= start - 1))
    if start and fits(causal & just_before):
        raise Wrong("Only the piece just before is remembered: join the new keys to all the stored ones.")
    for kept in range(1, start):
        if fits(causal & (columns >= part.stop - kept - size)) or fits(causal & (columns >= part.stop - kept)):
            raise Wrong(f"At {what}, the oldest positions are forgotten: keep all of them, however many there are.")
    raise Wrong(f"The result for {what} is not the causal attention over everything seen so far.")
