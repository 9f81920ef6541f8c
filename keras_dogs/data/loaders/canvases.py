"""Decode every picture once, to one uint8 canvas each: into memory, or into a file that later runs map.

The file holds the pictures of one or more splits in the order of their names, however a seed divides them. Its name is
a hash of all that decides its content: names, what the files were when they were read, the canvas, and the decoder.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import PIL

from keras_dogs.data.datasets.pictures import UnreadablePicture
from keras_dogs.data.datasets.pictures import sides_of
from keras_dogs.data.datasets.pictures import to_canvas
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.system import caches
from keras_dogs.system import progress

_FORMAT = 2  # of the file; another number, another hash
# Splits that share a file: in which of the first two a picture is depends on the seed, its canvas does not.
_FILES = (("train", "validation"), ("test",))


@dataclasses.dataclass(frozen=True)
class Canvases:
    """A decoded split.

    Attributes:
        images: uint8 array of shape `(num_pictures, rows, columns, 3)`, or `Rows` of one.
        labels: int32 array of shape `(num_pictures,)`.
        names: tuple of str.
        unreadable: tuple of `(name, reason)`; these pictures are not among the others.
    """

    images: "np.ndarray | Rows"
    labels: np.ndarray
    names: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]

    def __len__(self):
        return len(self.names)

    def select(self, kept: np.ndarray) -> "Canvases":
        """Returns those pictures for which `kept`, bool `(num_pictures,)`, holds."""
        images = self.images
        images = (
            Rows(images.table, images.rows[kept]) if isinstance(images, Rows) else Rows(images, np.flatnonzero(kept))
        )
        names = tuple(name for name, keep in zip(self.names, kept) if keep)
        return Canvases(images, self.labels[kept], names, self.unreadable)


class _How(NamedTuple):
    """How a canvas is made of a picture: the last arguments of `to_canvas`."""

    size: int | tuple[int, int]
    fit: str = "squash"
    interpolation: str = "bilinear"

    @property
    def in_words(self) -> str:
        """For the list of what is in the cache."""
        return f"{_by(self.size)}, {self.fit}, {self.interpolation}"


def _by(size) -> str:
    return " x ".join(map(str, sides_of(size)))


class Rows:
    """Some rows of a table, copied when they are asked for and not before.

    Args:
        table: array of shape `(num_rows, ...)`, in memory or mapped.
        rows: int array of shape `(num_pictures,)`.
    """

    def __init__(self, table: np.ndarray, rows: np.ndarray):
        self.table, self.rows = table, rows
        self.shape, self.dtype = (len(rows), *table.shape[1:]), table.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index) -> np.ndarray:
        return np.asarray(self.table[self.rows[index]])


def load_canvases(
    dataset: Dataset,
    wanted: Sequence[str],
    size,
    fit: str = "squash",
    cache: str = "disk",
    interpolation: str = "bilinear",
) -> list[Canvases | None]:
    """Returns the canvases of splits, in the order named: from the cache, or decoded on all cores and kept.

    Where the cache cannot be written, that is said and the pictures are decoded into memory.

    Args:
        dataset: `Dataset`.
        wanted: sequence of `"train"`, `"validation"` and `"test"`. A split that there is not is `None`.
        size: int, or pair of ints. The side of the canvas, or its rows and columns, in pixels.
        fit: str. `"squash"`, `"crop"` or `"pad"`.
        cache: str. `"disk"`, or `"memory"` to keep nothing.
        interpolation: str. `"bilinear"` or `"bicubic"`.
    """
    how = _How(size, fit, interpolation)
    found = {}
    for together in _FILES:
        splits = {name: getattr(dataset, name) for name in together}
        splits = {name: split for name, split in splits.items() if split is not None}
        if not set(wanted) & splits.keys():
            continue
        pool, what = _merge(list(splits.values())), f"{' and '.join(splits)} pictures of {dataset.name}"
        get = _open_or_decode if cache == "disk" else _decode_all
        table, unreadable = get(pool, how, what)
        places = {name: place for place, name in enumerate(pool.names)}
        found |= {name: _select(split, table, places, unreadable) for name, split in splits.items()}
    return [found.get(name) for name in wanted]


def decode_split(split: Split, size, fit: str = "squash") -> Canvases:
    """Decodes one split into memory, without the cache and without a word."""
    images = _new_table(split, size)
    unreadable = _decode(split, _How(size, fit), images.__setitem__, lambda: None)
    return _select(split, images, {name: place for place, name in enumerate(split.names)}, unreadable)


def refuse_unreadable(decoded: list[Canvases], limit: float, num_classes: int) -> None:
    """Refuses a dataset of which more than a share `limit` is unreadable, or a class is left without a picture."""
    bad = [entry for canvases in decoded for entry in canvases.unreadable]
    total = sum(len(canvases) for canvases in decoded) + len(bad)
    if len(bad) > limit * total:
        listed = "; ".join(f"{name}: {reason}" for name, reason in bad[:5]) + ("; ..." if len(bad) > 5 else "")
        raise UserError(
            f"{len(bad)} of {total} pictures cannot be read ({listed}), more than the {limit:.0%} that are tolerated: "
            "repair or remove them, or give --skip-unreadable to leave them out"
        )
    if any(not len(canvases) for canvases in decoded):
        raise UserError("a split has no readable picture left: repair its pictures, or choose another dataset")
    if bad and len(np.unique(decoded[0].labels)) < num_classes:
        raise UserError("a class has no readable picture left to train on: repair its pictures or remove the class")


def _merge(splits: Sequence[Split]) -> Split:
    """Returns all pictures, by name; labels are of no concern here."""
    found = sorted((name, which, index) for which, split in enumerate(splits) for index, name in enumerate(split.names))

    def of(index: int):
        _, which, place = found[index]
        return splits[which], place

    def read(index: int):
        split, place = of(index)
        return split.read(place)

    def stamp(index: int) -> str:
        split, place = of(index)
        return split.stamp(place)

    return Split(tuple(name for name, _, _ in found), np.zeros(len(found), np.int32), read, stamp)


def _select(split: Split, table, places: dict[str, int], unreadable: dict[int, str]) -> Canvases:
    rows = np.array([places[name] for name in split.names], np.int64)
    kept = np.array([row not in unreadable for row in rows.tolist()], bool)
    bad = tuple((split.names[index], unreadable[rows[index]]) for index in np.flatnonzero(~kept))
    is_table = len(rows) == len(table) and (np.diff(rows) == 1).all()
    # What is mapped is read-only, which PyTorch warns of; rows of it are copies.
    images = table if is_table and not isinstance(table, np.memmap) else Rows(table, rows)
    canvases = Canvases(images, split.labels, split.names, bad)
    return canvases if kept.all() else canvases.select(kept)


def _new_table(split: Split, size) -> np.ndarray:
    shape = (len(split), *sides_of(size), 3)
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise UserError(
            f"{len(split):,} pictures at {_by(size)} need {math.prod(shape) / 2**30:.1f} GiB of memory; "
            "give a smaller --canvas-size"
        ) from error


def _decode_all(split: Split, how: _How, what: str) -> tuple[np.ndarray, dict[int, str]]:
    images = _new_table(split, how.size)
    with progress.counting(f"Decoding {what}", len(split)) as on_picture:
        return images, _decode(split, how, images.__setitem__, on_picture)


def _decode(
    split: Split, how: _How, put: Callable, on_picture: Callable[[], None], passing: list | None = None
) -> dict[int, str]:
    """Reads every picture on all cores (Pillow decodes outside the interpreter lock); gives those that it could not.

    Those that it might be able to another time go to `passing`, too.
    """

    def decode(index: int) -> tuple[int, str] | None:
        try:
            canvas = to_canvas(split.read(index), *how)
        except UnreadablePicture as error:
            if error.may_pass and passing is not None:
                passing.append(index)
            return index, str(error)
        finally:
            on_picture()
        put(index, canvas)
        return None

    cores, left = os.cpu_count() or 1, iter(range(len(split)))

    def work() -> list[tuple[int, str]]:
        # All take from one iterator: a task a picture would cost some per cent of its decoding.
        try:
            return [outcome for index in left if (outcome := decode(index))]
        except BaseException:
            collections.deque(left, maxlen=0)  # the others end, too
            raise

    with ThreadPoolExecutor(cores) as pool:
        try:
            tasks = [pool.submit(work) for _ in range(cores)]
            return dict(outcome for task in tasks for outcome in task.result())
        finally:
            collections.deque(left, maxlen=0)  # where the user stops it


def _open_or_decode(split: Split, how: _How, what: str) -> tuple[np.ndarray, dict[int, str]]:
    folder = caches.folder("canvases")
    description = folder / f"{_fingerprint(split, how)}.json"
    shape = (len(split), *sides_of(how.size), 3)
    if found := _open(description, shape):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(description.with_suffix(".lock"), what):
            found = _open(description, shape)  # another process may have made it meanwhile
            return found or _make(split, how, description, shape, what)
    except OSError as error:
        progress.open_console().print(
            f"cache {folder}: {error.strerror or first_line(error)}; nothing is kept there for the next run (another "
            "folder: --cache-dir)"
        )
        return _decode_all(split, how, what)


def _fingerprint(split: Split, how: _How) -> str:
    settings = [_FORMAT, *how, PIL.__version__]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for index, name in enumerate(split.names):
        digest.update(f"\0{name}\0{split.stamp(index)}".encode())
    return digest.hexdigest()[:24]


def _alone(lock_file: Path, what: str):
    lock = filelock.FileLock(lock_file)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.open_console().print(f"another process decodes the {what}; waiting for it")
        return lock.acquire()


def _open(description: Path, shape: tuple) -> tuple[np.ndarray, dict[int, str]] | None:
    """Returns the canvases that are kept, if they are whole."""
    try:
        said = json.loads(description.read_text())
        file = description.with_suffix(".canvases")
        if tuple(said["shape"]) != shape or file.stat().st_size != int(np.prod(shape)):
            return None
        with contextlib.suppress(OSError):  # it may be another user's
            os.utime(description)  # when it was last of use
        return np.memmap(file, np.uint8, "r", shape=shape), {int(row): why for row, why in said["unreadable"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _make(split: Split, how: _How, description: Path, shape: tuple, what: str) -> tuple[np.ndarray, dict[int, str]]:
    """Decodes into the file, under another name until it is whole; the description, which makes it count, last."""
    file, partial = description.with_suffix(".canvases"), description.with_suffix(".partial")
    passing: list[int] = []
    try:
        with partial.open("wb", buffering=0) as output:
            write_at = _writer(output)

            def put(index, canvas):
                write_at(memoryview(np.ascontiguousarray(canvas)).cast("B"), index * canvas.nbytes)

            # A full disk is noticed here, not half-way through, where the file system can tell.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(output.fileno(), 0, int(np.prod(shape)))
            else:
                output.truncate(int(np.prod(shape)))
            with progress.counting(f"Decoding {what}", len(split)) as on_picture:
                unreadable = _decode(split, how, put, on_picture, passing)
        if passing:  # the next run tries again
            return np.fromfile(partial, np.uint8).reshape(shape), unreadable
        partial.replace(file)
        text = json.dumps({"name": f"{what}, {how.in_words}", "shape": shape, "unreadable": unreadable})
        partial.write_text(text)
        partial.replace(description)
    finally:
        partial.unlink(missing_ok=True)
    return np.memmap(file, np.uint8, "r", shape=shape), unreadable


def _writer(output) -> Callable[[memoryview, int], None]:
    """Returns a function that writes all of some data at an offset, from any thread."""
    if hasattr(os, "pwrite"):
        write = functools.partial(os.pwrite, output.fileno())
    else:
        at_once = threading.Lock()

        def write(data, offset):
            with at_once:
                output.seek(offset)
                return output.write(data)

    def write_all(data, offset):
        while data:  # a write may be a short one
            written = write(data, offset)
            data, offset = data[written:], offset + written

    return write_all
