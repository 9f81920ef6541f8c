"""Stores the canvases of a split, or of several together, in one file of the cache, in the order of their names.

The file's name is a hash of everything that decides its content: the names of the pictures, the state of their files,
the canvas settings, and the decoder. Each row has a checksum, so damage on the disk is noticed when the row is read.
"""

import contextlib
import functools
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np
import PIL

from keras_dogs.data.datasets.opening import sides_of
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.loaders.decoding import CanvasSettings
from keras_dogs.data.loaders.decoding import Decoded
from keras_dogs.data.loaders.decoding import decode
from keras_dogs.data.loaders.decoding import decode_all
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.system import caches
from keras_dogs.system import files
from keras_dogs.system import locks
from keras_dogs.system import progress
from keras_dogs.system import reading
from keras_dogs.system import terminal

_FORMAT = 3  # version of the file format, and part of the hash: raise it when the format changes


class Checksums:
    """Checks that rows of a memory-mapped table are as they were written; each row is checked once.

    Args:
        description: Path. The JSON file that describes the table; it is removed when the table is found damaged.
        expected: uint32 array `(num_rows,)`. CRC-32 of each row.
    """

    def __init__(self, description: Path, expected: np.ndarray):
        self._description, self._expected = description, expected
        self._is_checked = np.zeros(len(expected), bool)

    def expected_for(self, rows: np.ndarray) -> np.ndarray:
        """Returns the CRC-32 that rows of the table should have."""
        return self._expected[rows]

    def check(self, table: np.ndarray, rows: np.ndarray) -> None:
        """Checks rows of the table.

        Raises:
            UserError: one of them is damaged.
        """
        for row in np.unique(rows[~self._is_checked[rows]]):
            if zlib.crc32(table[row]) != self._expected[row]:
                with contextlib.suppress(OSError):  # it may be another user's
                    self._description.unlink(missing_ok=True)
                raise UserError(
                    f"{self._description.with_suffix('.canvases')}: row {row} is damaged on the disk; "
                    + (
                        "choose another --cache-dir"
                        if self._description.exists()
                        else "the file was discarded: run the command again (a training: with --resume)"
                    )
                )
            self._is_checked[row] = True


class _Description(TypedDict):
    name: str
    shape: list[int]
    unreadable: dict[int, str]
    checksums: list[int]


def open_or_decode(split: Split, how: CanvasSettings, what: str) -> Decoded:
    """Maps the canvases that an earlier run cached, or decodes the pictures and caches them.

    If the cache cannot be written, prints why and decodes the pictures into memory.

    Args:
        split: `Split`.
        how: `CanvasSettings`. The canvas settings.
        what: str. The pictures in words, for messages.
    """
    folder = caches.folder("canvases")
    description = folder / f"{_fingerprint(split, how)}.json"
    shape = (len(split), *sides_of(how.size), 3)
    if found := _open(description, shape):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.waited_for(description.with_suffix(".lock"), f"decoding the {what}", description):
            found = _open(description, shape)  # another process may have made it meanwhile
            return found or _make(split, how, description, shape, what)
    except OSError as error:
        progress.open_console().print(
            f"cache {folder}: {error.strerror or first_line(error)}; nothing is kept there for the next run (another "
            "folder: --cache-dir)"
        )
        return decode_all(split, how, what)


def _fingerprint(split: Split, how: CanvasSettings) -> str:
    settings = [_FORMAT, *how, PIL.__version__]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for index, name in enumerate(split.names):
        digest.update(f"\0{name}\0{split.stamp(index)}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]


def _open(description: Path, shape: tuple) -> Decoded | None:
    """Returns the cached canvases, or `None` if they are missing or incomplete."""
    file = description.with_suffix(".canvases")
    try:
        fields = reading.read_json(description, _Description)
        if tuple(fields["shape"]) != shape or len(fields["checksums"]) != shape[0]:
            return None
        if file.stat().st_size != int(np.prod(shape)):
            return None
        caches.touch(description)
        checksums = Checksums(description, np.array(fields["checksums"], np.uint32))
        return Decoded(np.memmap(file, np.uint8, "r", shape=shape), fields["unreadable"], checksums)
    except (OSError, UserError, ValueError, OverflowError):
        return None


def _make(split: Split, how: CanvasSettings, description: Path, shape: tuple, what: str) -> Decoded:
    """Decodes into a temporary file, and renames it when it is complete.

    The description comes last: it makes the file valid.
    """
    file, partial = description.with_suffix(".canvases"), description.with_suffix(".partial")
    retryable: list[int] = []  # pictures whose failure may be temporary
    blank = zlib.crc32(bytes(int(np.prod(shape[1:]))))  # of a row of zeros, which stands for an unreadable picture
    checksums = [blank] * len(split)
    try:
        with partial.open("wb", buffering=0) as output:
            write_at = _writer(output)

            def put(index, canvas):
                canvas = np.ascontiguousarray(canvas)
                checksums[index] = zlib.crc32(canvas)
                write_at(memoryview(canvas).cast("B"), index * canvas.nbytes)

            # A full disk is noticed here, not half-way through, where the file system can tell.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(output.fileno(), 0, int(np.prod(shape)))
            else:
                output.truncate(int(np.prod(shape)))
            with progress.counting(f"Decoding {what}", len(split)) as on_picture:
                unreadable = decode(split, how, put, on_picture, retryable)
        if retryable:
            first = terminal.one_line(f"{split.names[retryable[0]]}: cannot be read now ({unreadable[retryable[0]]})")
            progress.open_console().print(
                f"{first}; nothing is kept in the cache, so the next run decodes all pictures again"
            )
            return Decoded(_without_file(partial, shape), unreadable)
        files.put_in_place(partial, file)
        reasons = {row: terminal.printable(why) for row, why in unreadable.items()}
        fields = {"name": f"{what}, {how.in_words}", "shape": shape, "unreadable": reasons, "checksums": checksums}
        files.write_text(description, json.dumps(fields))
    finally:
        partial.unlink(missing_ok=True)
    kept = Checksums(description, np.array(checksums, np.uint32))
    return Decoded(np.memmap(file, np.uint8, "r", shape=shape), reasons, kept)


def _without_file(file: Path, shape: tuple) -> np.ndarray:
    """Returns the canvases of a file that is deleted right after: mapped, or in memory where no mapped file can be."""
    if os.name == "nt":
        return np.fromfile(file, np.uint8).reshape(shape)
    return np.memmap(file, np.uint8, "r", shape=shape)


def _writer(output) -> Callable[[memoryview, int], None]:
    """Returns a function that writes all of some data at an offset, from any thread."""
    if hasattr(os, "pwrite"):
        write = functools.partial(os.pwrite, output.fileno())
    else:
        lock = threading.Lock()

        def write(data, offset):
            with lock:
                output.seek(offset)
                return output.write(data)

    def write_all(data, offset):
        while data:  # a write may be a short one
            written = write(data, offset)
            data, offset = data[written:], offset + written

    return write_all
