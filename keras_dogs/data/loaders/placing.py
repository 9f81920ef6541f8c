"""Decides where decoded pictures are kept during a training run."""

from typing import NamedTuple

import numpy as np

from keras_dogs import backends
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.data.loaders.canvases import Rows
from keras_dogs.errors import UserError

# Of the free memory; the rest is for the model, its gradients and activations.
_SHARE = 0.5


class Place(NamedTuple):
    """Whether the table of pictures is on the device, and in words where they are and why."""

    on_device: bool
    in_words: str


def choose_place(cache: str, train: Canvases, reads_features: bool = False) -> Place:
    """Decides where the pictures are kept, from the value of `--cache`.

    Args:
        cache: str. `"auto"` puts the table on an accelerator if it takes at most half of the free memory there.
        train: `Canvases`, as they were loaded.
        reads_features: bool. Whether the pictures are read only once, for features, so that a table gains nothing.

    Raises:
        UserError: `"device"`, and there is less free memory there than the table takes.
    """
    if cache in ("disk", "memory", "none"):
        return Place(False, {"none": "none: decoded anew each time"}.get(cache, cache))
    if reads_features:
        return Place(False, "disk: read once, for features")
    if cache == "auto" and not backends.has_accelerator():
        return Place(False, "disk: mapped, which on a CPU is as good as a table")
    table = train.images.table if isinstance(train.images, Rows) else train.images
    needed, free = table.nbytes, backends.free_device_bytes()
    sizes = f"{needed / 1e9:.2f} GB" + (f" of {free / 1e9:.1f} GB that were free" if free is not None else "")
    if cache == "device" and free is not None and needed > free:
        raise UserError(
            f"--cache device: the pictures take {sizes} there; leave it out, or give a smaller --canvas-size"
        )
    if cache == "device" or (free is not None and needed <= _SHARE * free):
        return Place(True, f"device: {sizes}")
    return Place(
        False,
        f"disk: {sizes} would be too much of the device"
        if free is not None
        else "disk: the free memory of the device is not known",
    )


def table_of(canvases: Canvases) -> tuple[np.ndarray, np.ndarray]:
    """Returns the table that canvases are rows of, and which rows, int32 `(num_pictures,)`."""
    images = canvases.images
    if isinstance(images, Rows):
        return images.whole_table(), images.rows.astype(np.int32)
    return images, np.arange(len(images), dtype=np.int32)
