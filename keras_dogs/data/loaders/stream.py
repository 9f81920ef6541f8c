"""Canvases that are decoded when a batch wants them and not kept, for a dataset that fits neither memory nor disk."""

import importlib.util
import logging
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import sides_of
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.system import progress


class Undecoded:
    """Looks like an array of canvases; rows are read and decoded when they are asked for.

    Args:
        split: `Split`.
        size: int, or pair of ints. See `to_canvas`, as for the next two.
        fit, interpolation: str.
    """

    def __init__(self, split: Split, size, fit: str, interpolation: str = "bilinear"):
        self.split, self.size, self.fit, self.interpolation = split, size, fit, interpolation
        self.shape, self.dtype = (len(split), *sides_of(size), 3), np.dtype(np.uint8)

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index) -> np.ndarray:
        places = np.arange(len(self))[index]
        return np.stack([self._decode(place) for place in np.atleast_1d(places).tolist()])

    def _decode(self, place: int) -> np.ndarray:
        try:
            return to_canvas(self.split.read(place), self.size, self.fit, self.interpolation)
        except UnreadablePicture as error:
            raise UserError(
                f"{self.split.names[place]}: {error}; --cache none cannot leave a picture out: repair it, or choose "
                "another --cache"
            ) from error


def stream(split: Split, size, fit: str, interpolation: str = "bilinear") -> Canvases:
    """Returns a split whose canvases are decoded anew each time."""
    return Canvases(Undecoded(split, size, fit, interpolation), split.labels, tuple(split.names), ())


def check_grain() -> None:
    """Checks that grain is installed, before anything long is begun.

    Raises:
        UserError: grain is not installed.
    """
    if importlib.util.find_spec("grain") is None:
        raise UserError(f"--cache none: needs grain: {install_line('stream')}")


def check_readable(what: str, *parts: Canvases | None) -> None:
    """Decodes pictures that are first needed at the end of an epoch, to find unreadable ones at the start.

    Raises:
        UserError: a picture cannot be read; the text names it.
    """
    images = [part.images for part in parts if part is not None]
    with progress.counting(f"Checking {what}", sum(map(len, images))) as on_picture:
        for rows in images:
            for _ in fetch_ahead(rows.__getitem__, len(rows)):
                on_picture()


def fetch_ahead(get: Callable[[int], Any], count: int, first: int = 0) -> Iterator:
    """Yields `get(first)`, ..., `get(count - 1)`, computed ahead by as many threads as there are cores (grain)."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # or it says that there is no JAX, where there is none
    import grain

    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    numbers = grain.MapDataset.range(first, count)
    return iter(numbers.map(get).to_iter_dataset(options))
