"""Decode every picture of a split once, to one uint8 canvas each."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_dogs.datasets.pictures import UnreadablePicture
from keras_dogs.datasets.pictures import to_canvas
from keras_dogs.datasets.splits import Split
from keras_dogs.errors import UserError


@dataclasses.dataclass(frozen=True)
class Canvases:
    """A decoded split.

    Attributes:
        images: uint8 array of shape `(num_pictures, size, size, 3)`.
        labels: int32 array of shape `(num_pictures,)`.
        names: tuple of str.
        unreadable: tuple of `(name, reason)`; these pictures are not among the others.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]

    def __len__(self):
        return len(self.names)


def decode_split(
    split: Split, size: int, fit: str = "squash", on_picture: Callable[[], None] | None = None
) -> Canvases:
    """Reads every picture of `split`, on all cores (Pillow decodes outside the interpreter lock).

    Args:
        split: `Split`.
        size: int. The side of the canvas in pixels.
        fit: str. `"squash"`, `"crop"` or `"pad"`.
        on_picture: function called after each picture, for progress.
    """
    try:
        images = np.empty((len(split), size, size, 3), np.uint8)
    except MemoryError as error:
        raise UserError(
            f"{len(split):,} pictures at {size} x {size} need {len(split) * size**2 * 3 / 2**30:.1f} GiB of memory; "
            "give a smaller --canvas-size"
        ) from error

    def decode(index: int) -> tuple[str, str] | None:
        try:
            images[index] = to_canvas(split.read(index), size, fit)
            return None
        except UnreadablePicture as error:
            return split.names[index], str(error)
        finally:
            if on_picture:
                on_picture()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = list(pool.map(decode, range(len(split))))
    unreadable = tuple(outcome for outcome in outcomes if outcome)
    if not unreadable:
        return Canvases(images, split.labels, split.names, ())
    kept = np.flatnonzero([outcome is None for outcome in outcomes])
    return Canvases(images[kept], split.labels[kept], tuple(split.names[index] for index in kept), unreadable)


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
