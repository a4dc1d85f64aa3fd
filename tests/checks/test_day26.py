"""Day 26: right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.checks import check
from llmcourse.checks.day26 import Cache, encode_prompt
from llmcourse.errors import CourseError

Say = Callable[[], str]


# The prompt encoder


def with_course_error(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    if prompt == "":
        raise CourseError("nothing to start from")
    unknown = [c for c in prompt if c not in chars]
    if unknown and replace is None:
        raise CourseError(f"Character {unknown[0]} ({hex(ord(unknown[0]))}) is unknown.")
    kept = "".join(c if c in chars else str(replace) for c in prompt)[-block_size:]
    return torch.as_tensor([chars.index(c) for c in kept], dtype=torch.long).unsqueeze(0)


def names_them_all(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    id_of = dict(zip(chars, range(len(chars)), strict=True))
    if not len(prompt):
        raise ValueError("empty")
    if replace is None and set(prompt) - set(chars):
        found = ", ".join(f"{c!r} = U+{ord(c):04x}" for c in dict.fromkeys(prompt) if c not in id_of)
        raise ValueError(f"Not in the vocabulary: {found}")
    ids = torch.zeros(1, len(prompt), dtype=torch.int64)
    for i, c in enumerate(prompt):
        ids[0, i] = id_of.get(c, id_of[replace] if replace is not None else -1)
    return ids[:, -block_size:]


def crops_first(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    if not prompt:
        raise ValueError("empty")
    ids = []
    for c in prompt[max(0, len(prompt) - block_size) :]:
        try:
            ids.append(chars.index(c))
        except ValueError:
            if replace is None:
                raise ValueError(f"unknown: {c} (U+{ord(c):04X})") from None
            ids.append(chars.index(replace))
    return torch.LongTensor([ids])


@pytest.mark.parametrize(
    "learner", [encode_prompt, with_course_error, names_them_all, crops_first], ids=lambda f: f.__name__
)
def test_encoder_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day26", learner), said()
    assert said().startswith("day26: right. ")


def variant(
    *,
    text: Callable[[str], str] = lambda s: s,
    unknown: Callable[[str, list[str]], Iterable[int]] | None = None,
    replaced: Callable[[str, list[str]], Iterable[int]] = lambda r, chars: [chars.index(r)],
    given: Callable[[str | None], bool] = lambda r: r is not None,
    crop: Callable[[list[int], int], list[int]] = lambda ids, n: ids[-n:],
    empty: Callable[[], Any] | None = None,
    out: Callable[[list[int]], Any] = lambda ids: torch.tensor([ids]),
) -> Callable[..., Any]:
    def learner(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Any:
        prompt = text(prompt)
        if not prompt:
            if empty is None:
                raise ValueError("The prompt is empty.")
            return empty()
        ids: list[int] = []
        for c in prompt:
            if c in chars:
                ids.append(chars.index(c))
            elif given(replace):
                ids.extend(replaced(str(replace), chars))
            elif unknown:
                ids.extend(unknown(c, chars))
            else:
                raise ValueError(f"{c!r} (U+{ord(c):04X})")
        return out(crop(ids, block_size))

    return learner


def refuses(ids: list[int], n: int) -> list[int]:
    if len(ids) > n:
        raise RuntimeError("too long")
    return ids


def raises(error: Exception) -> Callable[..., Any]:
    def unknown(*_: Any) -> Any:
        raise error

    return unknown


def only_point(c: str, _: list[str]) -> Any:
    raise ValueError(f"unknown character U+{ord(c):04X}")


def only_char(c: str, _: list[str]) -> Any:
    raise ValueError(f"unknown character {c}")


def by_index(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    return torch.tensor([[chars.index(c) for c in prompt]])


def by_dict(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    id_of = {c: i for i, c in enumerate(chars)}
    return torch.tensor([[id_of[c] for c in prompt]])


def by_ord(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    return torch.tensor([[ord(c) for c in prompt]])


def own_vocabulary(prompt: str, chars: list[str], block_size: int, replace: str | None = None) -> Tensor:
    return torch.tensor([[sorted(set(prompt)).index(c) for c in prompt]])


WRONG_ENCODER: dict[str, tuple[Any, str]] = {
    "drops silently": (variant(unknown=lambda c, chars: []), "dropped silently"),
    "always id 0": (variant(unknown=lambda c, chars: [0]), "although replace was not given"),
    "KeyError": (by_dict, "bare KeyError"),
    "list.index": (by_index, "that of list.index"),
    "no code point": (variant(unknown=only_char), "does not tell its code point"),
    "no character": (variant(unknown=only_point), "does not show the character itself"),
    "strips": (variant(text=str.strip), "The line breaks at the ends"),
    "strips spaces": (variant(text=lambda s: s.strip(" ")), "The spaces at the ends"),
    "lower case": (variant(text=str.lower), "made lower case"),
    "no batch": (variant(out=torch.tensor), "the batch dimension is missing"),
    "batch behind": (variant(out=lambda ids: torch.tensor(ids)[:, None]), "texts of one character"),
    "list": (variant(out=lambda ids: [ids]), "The result is a list"),
    "float": (variant(out=lambda ids: torch.Tensor([ids])), "floating-point"),
    "int32": (variant(out=lambda ids: torch.tensor([ids], dtype=torch.int32)), "dtype int32"),
    "ord": (by_ord, "code points from ord"),
    "own vocabulary": (own_vocabulary, "made from the prompt"),
    "from 1": (variant(out=lambda ids: torch.tensor([ids]) + 1), "1 too high"),
    "backwards": (variant(text=lambda s: s[::-1]), "backwards"),
    "keeps the beginning": (variant(crop=lambda ids, n: ids[:n]), "keeps the beginning"),
    "keeps all": (variant(crop=lambda ids, n: ids), "keeps all of them though"),
    "one short": (variant(crop=lambda ids, n: ids[-n + 1 :] if len(ids) > n - 1 > 0 else ids), "off by one"),
    "refuses": (variant(crop=refuses), "It refuses a prompt"),
    "replaces by id 0": (variant(replaced=lambda r, chars: [0]), "get the id 0 instead"),
    "replace drops": (variant(replaced=lambda r, chars: []), "dropped instead of replaced"),
    "replace twice": (variant(replaced=lambda r, chars: [5]), "must become replace, all of them"),
    "truth of replace": (variant(given=lambda r: bool(r) and r != "\n"), "test for replace is not None"),
    "replace ignored": (variant(given=lambda r: False), "should become that one, but it fails"),
    "empty accepted": (variant(empty=lambda: torch.zeros(1, 0, dtype=torch.long)), "empty prompt is accepted"),
    "empty is a line break": (variant(empty=lambda: torch.zeros(1, 1, dtype=torch.long)), "empty prompt is accepted"),
    "empty index": (variant(empty=raises(IndexError("list index out of range"))), "IndexError"),
    "returns nothing": (variant(out=lambda ids: None), "returned None"),
}


@pytest.mark.parametrize("mistake", WRONG_ENCODER)
def test_encoder_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day26", WRONG_ENCODER, mistake)


def test_encoder_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day26", WRONG_ENCODER, least=20)


# The cache


class Lists:
    """Keeps pieces in lists, and uses PyTorch's function with a mask."""

    def __init__(self) -> None:
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.k.append(k)
        self.v.append(v)
        k, v = torch.cat(self.k, 2), torch.cat(self.v, 2)
        t, n = q.shape[2], k.shape[2]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(t, n).tril(n - t) > 0)


class Allocated:
    """Allocated once, written in place, as the package does."""

    def __init__(self, size: int = 64) -> None:
        self.size, self.length = size, 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.length:
            B, H, _, D = k.shape
            self.k, self.v = torch.zeros(2, B, H, self.size, D)
        a, b = self.length, self.length + k.shape[2]
        self.k[:, :, a:b], self.v[:, :, a:b] = k, v
        self.length = b
        mask = torch.arange(b) > torch.arange(a, b)[:, None]
        scores = torch.einsum("bhid,bhjd->bhij", q, self.k[:, :, :b]) * q.shape[-1] ** -0.5
        return scores.masked_fill(mask, -1e9).softmax(-1) @ self.v[:, :, :b]


class ByLoop(Lists):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([self.one(*(x[:, :, i : i + 1] for x in (q, k, v))) for i in range(q.shape[2])], 2)

    def one(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(q, k, v)


@pytest.mark.parametrize("learner", [Cache, Lists, Allocated, ByLoop])
def test_cache_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day26b", learner), said()
    assert said().startswith("day26b: right. ")


def wrong(
    *,
    mask: Callable[[int, int], Tensor] = lambda t, n: torch.ones(t, n).tril(n - t) > 0,
    scale: Callable[[int, int], float] = lambda H, D: D**-0.5,
    dim: int = 2,
    order: int = 1,
    keep: int = 999,
) -> type:
    class Learner:
        def __init__(self) -> None:
            self.k: Tensor | None = None
            self.v: Tensor | None = None

        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if self.k is not None and self.v is not None:
                k, v = torch.cat((self.k, k)[::order], dim), torch.cat((self.v, v)[::order], dim)
            k, v = k[:, :, -keep:], v[:, :, -keep:]
            self.k, self.v = k, v
            scores = q @ k.transpose(-2, -1) * scale(q.shape[1], q.shape[3])
            return scores.masked_fill(~mask(q.shape[2], k.shape[2]), -math.inf).softmax(-1) @ v

    return Learner


class Overwrites:
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.k, self.v = k, v
        return F.scaled_dot_product_attention(q, self.k, self.v, is_causal=True)


class LastPiece(Lists):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.k, self.v = self.k[-1:], self.v[-1:]
        return super().attend(q, k, v)


class Shared(Lists):
    memory: ClassVar[dict[str, Tensor]] = {}

    def __init__(self) -> None:
        type(self).memory = {}  # emptied by every new object: right for one text at a time

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        m = type(self).memory
        m["k"] = torch.cat((m["k"], k), 2) if m else k
        m["v"] = torch.cat((m["v"], v), 2) if "v" in m else v
        t, n = q.shape[2], m["k"].shape[2]
        return F.scaled_dot_product_attention(q, m["k"], m["v"], attn_mask=torch.ones(t, n).tril(n - t) > 0)


class UpperLeft(Lists):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.k.append(k)
        self.v.append(v)
        return F.scaled_dot_product_attention(q, torch.cat(self.k, 2), torch.cat(self.v, 2), is_causal=True)


class AttendsFirst(Cache):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.k is None or self.v is None:
            self.k, self.v = k, v
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out = F.scaled_dot_product_attention(q, self.k, self.v)
        self.k, self.v = torch.cat((self.k, k), 2), torch.cat((self.v, v), 2)
        return out


class WritesIntoInput(Cache):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q *= q.shape[-1] ** -0.5
        return super().attend(q * q.shape[-1] ** 0.5, k, v)


class AllRows(Lists):
    def __init__(self) -> None:
        super().__init__()
        self.q: list[Tensor] = []

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for kept, new in ((self.q, q), (self.k, k), (self.v, v)):
            kept.append(new)
        return F.scaled_dot_product_attention(*(torch.cat(x, 2) for x in (self.q, self.k, self.v)), is_causal=True)


class TooStrict(Cache):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.mT).masked_fill(~(torch.ones(q.shape[2], k.shape[2]).tril(-1) > 0), -math.inf)
        return scores.softmax(-1) @ v


class KeysOnly(Cache):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.k = k if self.k is None else torch.cat((self.k, k), 2)
        t, n = q.shape[2], self.k.shape[2]
        scores = (q @ self.k.mT / math.sqrt(q.shape[-1])).masked_fill(~(torch.ones(t, n).tril(n - t) > 0), -math.inf)
        return scores.softmax(-1) @ v


class NoMethod:
    pass


class WantsSize(Allocated):
    def __init__(self, size: int) -> None:
        super().__init__(size)


ONLY_DECODE = wrong(mask=lambda t, n: torch.ones(t, n) > 0)
MASK_WITHOUT_PAST = wrong(mask=lambda t, n: torch.ones(t, n).tril() > 0 if t == n else torch.ones(t, n) > 0)
WRONG_CACHE: dict[str, tuple[Any, str]] = {
    "no mask": (ONLY_DECODE, "prefill needs a mask"),
    "mask only without a past": (MASK_WITHOUT_PAST, "needed behind a past as well"),
    "upper left": (UpperLeft, "upper left corner"),
    "overwrites": (Overwrites, "see only each other"),
    "the last piece only": (LastPiece, "the piece just before"),
    "attends first": (AttendsFirst, "not themselves"),
    "joins the batch": (wrong(dim=0), "along the batch"),
    "joins the heads": (wrong(dim=1), "along the heads"),
    "joins the channels": (wrong(dim=3), "along the channels"),
    "in front": (wrong(order=-1), "in front of the old ones"),
    "not scaled": (wrong(scale=lambda H, D: 1.0), "not scaled"),
    "scaled by D": (wrong(scale=lambda H, D: 1 / D), "divided by D instead"),
    "scaled by C": (wrong(scale=lambda H, D: (H * D) ** -0.5), "root of H · D"),
    "shared": (Shared, "share their memory"),
    "forgets": (wrong(keep=16), "are forgotten"),
    "writes into q": (WritesIntoInput, "changes its input q"),
    "returns all rows": (AllRows, "belongs to the new queries only"),
    "too strict": (TooStrict, "holds NaN"),
    "keys only": (KeysOnly, "It fails on a piece"),
    "no method": (NoMethod, "no method called attend"),
    "heads lost": (type("Joined", (Cache,), {"attend": lambda s, q, k, v: Cache.attend(s, q, k, v).flatten(1, 2)}),
                   "The result has shape"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_CACHE)
def test_cache_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day26b", WRONG_CACHE, mistake)


def test_cache_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day26b", WRONG_CACHE, least=16)


def test_a_constructor_with_arguments_is_refused(said: Say) -> None:
    assert not check("day26b", WantsSize)
    assert "It will be called as Cache()" in said()
