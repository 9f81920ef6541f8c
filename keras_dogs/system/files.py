"""Writes files whole or not at all: under another name first, brought to the disk, then renamed."""

import contextlib
import hashlib
import os
from pathlib import Path

TEMPORARY = ".tmp-"  # what a name begins with until its file is whole


@contextlib.contextmanager
def written_whole(path: Path):
    """Yields a temporary path to write to, and moves that file to `path` in one step when the block ends.

    Each process has a temporary path of its own; where the block fails, nothing is left.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name[-200:]}")
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: it holds either all of the new content or what it held before."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, as `write_bytes` does."""
    write_bytes(path, text.encode())


def digest_of(file: Path) -> str:
    """Returns the SHA-256 of a file's bytes, which are not held in memory together."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def put_in_place(temporary: Path, path: Path) -> None:
    """Flushes a finished file to disk and renames it: after a power failure, the old or the new one is there, whole."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    with contextlib.suppress(OSError):  # not every system opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
