"""Decode pictures on all cores, each to one uint8 canvas."""

import collections
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import sides_of
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.system import memory
from keras_dogs.system import progress


class CanvasSettings(NamedTuple):
    """How a canvas is made of a picture: the last arguments of `to_canvas`."""

    size: int | tuple[int, int]
    fit: str = "squash"
    interpolation: str = "bilinear"

    @property
    def in_words(self) -> str:
        """The settings in words, for the list of what is in the cache."""
        return f"{by(self.size)}, {self.fit}, {self.interpolation}"


def by(size) -> str:
    """Returns a size in words: "256 x 256"."""
    return " x ".join(map(str, sides_of(size)))


class Decoded(NamedTuple):
    """Canvases of all pictures.

    Attributes:
        table: uint8 array `(num_pictures, rows, columns, 3)`, in memory or mapped.
        unreadable: dict of a row to why its picture could not be read.
        checksums: `canvas_file.Checksums` of a mapped table, or `None`.
    """

    table: np.ndarray
    unreadable: dict[int, str]
    checksums: object = None


def new_table(split: Split, size) -> np.ndarray:
    """Returns an empty table for the canvases of a split: uint8 `(num_pictures, rows, columns, 3)`.

    Raises:
        UserError: it is more than the machine has memory for.
    """
    shape = (len(split), *sides_of(size), 3)
    available = memory.available_bytes()
    try:
        if available is not None and math.prod(shape) > available:
            raise MemoryError
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        free = f", and {available / 2**30:.1f} GiB are free" if available is not None else ""
        raise UserError(
            f"{len(split):,} pictures at {by(size)} need {math.prod(shape) / 2**30:.1f} GiB of memory{free}; "
            "give a smaller --canvas-size"
        ) from error


def decode(
    split: Split, how: CanvasSettings, put: Callable, on_picture: Callable[[], None], retryable: list | None = None
) -> dict[int, str]:
    """Decodes every picture on all cores (Pillow works outside the interpreter lock) and hands each canvas to `put`.

    Returns a dict of the index of each unreadable picture to the reason. The indices of those whose failure may be
    temporary are also appended to `retryable`.
    """

    def one(index: int) -> tuple[int, str] | None:
        try:
            canvas = to_canvas(split.read(index), *how)
        except UnreadablePicture as error:
            if error.may_pass and retryable is not None:
                retryable.append(index)
            return index, str(error)
        finally:
            on_picture()
        put(index, canvas)
        return None

    return dict(filter(None, on_all_cores(one, len(split))))


def on_all_cores(one: Callable[[int], object], count: int) -> list:
    """Calls a function with 0, 1, ..., `count` - 1, on one thread per core; returns the results in no particular order.

    The first exception ends the other threads and is raised.
    """
    cores, left = os.cpu_count() or 1, iter(range(count))

    def work() -> list:
        # All threads take from one iterator: one task per picture would add some per cent to its decoding time.
        try:
            return [one(index) for index in left]
        except BaseException:
            collections.deque(left, maxlen=0)  # the others end, too
            raise

    with ThreadPoolExecutor(cores) as pool:
        try:
            tasks = [pool.submit(work) for _ in range(cores)]
            return [outcome for task in tasks for outcome in task.result()]
        finally:
            collections.deque(left, maxlen=0)  # where the user stops it


def decode_all(split: Split, how: CanvasSettings, what: str) -> Decoded:
    """Decodes a split into memory, and shows how far it is."""
    images = new_table(split, how.size)
    with progress.counting(f"Decoding {what}", len(split)) as on_picture:
        return Decoded(images, decode(split, how, images.__setitem__, on_picture))
