"""Files that are never half there.

A program can be killed, and a disk can fill up, in the middle of a line. So a file is written beside its final
place under another name, flushed to the disk, and then renamed, which the system does in one move: at every
moment there is either the old file or the new one. And whatever stands in the way is told in one sentence.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import CourseError

UNFINISHED = ".part"  # how the name of a file ends while it is being written


class WriteError(CourseError):
    """The disk is full, or the folder cannot be written."""


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn a full disk, a folder that cannot be written and the like into a WriteError about `path`."""
    try:
        yield
    except (OSError, RuntimeError) as e:
        error = e if isinstance(e, OSError) else e.__context__  # torch.save wraps the system's error in its own
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise WriteError(f"Cannot write {path} ({reason}): free some space or choose another folder.") from e


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole, when the block ends well, or not at all.

    Missing folders are made. Raises CourseError if it cannot be written; the old file is then untouched.

        with atomic_file("out/notes.txt") as file:
            file.write(b"all or nothing")
    """
    path = Path(path)
    # A name of its own, so that two programs that write the same file do not write into each other's.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: str | Path) -> None:
    """Delete what killed programs left half-written in `folder`; only for a folder that one program writes to."""
    for path in Path(folder).glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Use `folder`, which is made if need be, as the only program that asks for it; one that is killed lets go.

    Raises CourseError if another one has it. Where the system has no such locks (Windows, some network drives),
    nobody is kept out.
    """
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    handle = None
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CourseError(
                    f"Another program is training in {folder}: wait for its end, or choose another folder."
                ) from None
        yield
    finally:
        if handle is not None:
            os.close(handle)


def plain(data: Any) -> Any:
    """`data` as strict JSON can hold it: numbers that are none (nan, infinite) become None, which is written null."""
    return json.loads(json.dumps(data), parse_constant=lambda name: None)


def sha256(path: str | Path) -> str:
    """Hash of a file, as listed beside every file of weights that the course ships."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
