"""Canvases: each picture of a split once, as uint8, in memory or mapped from a file that later runs map, too."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.loaders.canvas_file import Checksums
from keras_dogs.data.loaders.canvas_file import open_or_decode
from keras_dogs.data.loaders.decoding import CanvasSettings
from keras_dogs.data.loaders.decoding import Decoded
from keras_dogs.data.loaders.decoding import decode
from keras_dogs.data.loaders.decoding import decode_all
from keras_dogs.data.loaders.decoding import new_table
from keras_dogs.errors import UserError

# Splits that share a cache file: the seed decides whether a picture is in train or in validation, not its canvas.
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
            Rows(images.table, images.rows[kept], images.checksums)
            if isinstance(images, Rows)
            else Rows(images, np.flatnonzero(kept))
        )
        names = tuple(name for name, keep in zip(self.names, kept) if keep)
        return Canvases(images, self.labels[kept], names, self.unreadable)


class Rows:
    """Some rows of a table, copied when they are asked for and not before.

    Args:
        table: array of shape `(num_rows, ...)`, in memory or mapped.
        rows: int array of shape `(num_pictures,)`.
        checksums: `Checksums` of a mapped table, or `None`.
    """

    def __init__(self, table: np.ndarray, rows: np.ndarray, checksums: Checksums | None = None):
        self.table, self.rows, self.checksums = table, rows, checksums
        self.shape, self.dtype = (len(rows), *table.shape[1:]), table.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index) -> np.ndarray:
        rows = self.rows[index]
        if self.checksums:
            self.checksums.check(self.table, np.atleast_1d(rows))
        return np.asarray(self.table[rows])

    def whole_table(self) -> np.ndarray:
        """Returns the table, every row of it checked."""
        if self.checksums:
            self.checksums.check(self.table, np.arange(len(self.table)))
        return self.table


def load_canvases(
    dataset: Dataset,
    wanted: Sequence[str],
    size,
    fit: str = "squash",
    cache: str = "disk",
    interpolation: str = "bilinear",
) -> list[Canvases | None]:
    """Returns the canvases of splits, in the order named: from the cache, or decoded on all cores and kept.

    If the cache cannot be written, prints why and decodes the pictures into memory.

    Args:
        dataset: `Dataset`.
        wanted: sequence of `"train"`, `"validation"` and `"test"`. For a split that does not exist, returns `None`.
        size: int, or pair of ints. The side of the canvas, or its rows and columns, in pixels.
        fit: str. `"squash"`, `"crop"` or `"pad"`.
        cache: str. `"disk"`, or `"memory"` to keep nothing.
        interpolation: str. `"bilinear"` or `"bicubic"`.
    """
    how = CanvasSettings(size, fit, interpolation)
    found = {}
    for together in _FILES:
        splits = {name: getattr(dataset, name) for name in together}
        splits = {name: split for name, split in splits.items() if split is not None}
        if not set(wanted) & splits.keys():
            continue
        pool, what = _merge(list(splits.values())), f"{' and '.join(splits)} pictures of {dataset.name}"
        get = open_or_decode if cache == "disk" else decode_all
        decoded = get(pool, how, what)
        places = {name: place for place, name in enumerate(pool.names)}
        found |= {name: _select(split, decoded, places) for name, split in splits.items()}
    return [found.get(name) for name in wanted]


def equal_pictures(first: Canvases, second: Canvases) -> list[tuple[str, str]]:
    """Returns the names of equal canvases, as pairs: each such picture of `second` after its equal in `first`."""
    places = dict(zip(checksums_of(first)[::-1], range(len(first))[::-1]))  # the first of equal ones
    found = []
    for index, checksum in enumerate(checksums_of(second)):
        place = places.get(checksum)
        if place is not None and np.array_equal(first.images[place], second.images[index]):
            found.append((first.names[place], second.names[index]))
    return found


def checksums_of(canvases: Canvases) -> list[int]:
    """Returns the CRC-32 of each canvas: what the cache keeps, or computed; none of pictures that are streamed."""
    images = canvases.images
    if not isinstance(images, (Rows, np.ndarray)):
        return []
    if isinstance(images, Rows) and images.checksums:
        return images.checksums.expected_for(images.rows).tolist()
    return [zlib.crc32(np.ascontiguousarray(images[index])) for index in range(len(canvases))]


def decode_split(split: Split, size, fit: str = "squash") -> Canvases:
    """Decodes one split into memory, without the cache and without a word."""
    images = new_table(split, size)
    unreadable = decode(split, CanvasSettings(size, fit), images.__setitem__, lambda: None)
    places = {name: place for place, name in enumerate(split.names)}
    return _select(split, Decoded(images, unreadable), places)


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


def _select(split: Split, decoded: Decoded, places: dict[str, int]) -> Canvases:
    table, unreadable, checksums = decoded
    rows = np.array([places[name] for name in split.names], np.int64)
    kept = np.array([row not in unreadable for row in rows.tolist()], bool)
    bad = tuple((split.names[index], unreadable[rows[index]]) for index in np.flatnonzero(~kept))
    is_table = len(rows) == len(table) and (np.diff(rows) == 1).all()
    # PyTorch warns of read-only arrays, such as a memory-mapped table; `Rows` gives copies.
    images = table if is_table and not isinstance(table, np.memmap) else Rows(table, rows, checksums)
    canvases = Canvases(images, split.labels, split.names, bad)
    return canvases if kept.all() else canvases.select(kept)
