"""Random boxes in whole numbers, as the rounding of floats differs in the last bit from backend to backend.

A box is (top, left, tall, wide), each int32 `(batch,)` in 4096ths of the picture's side.
"""

import numpy as np
from keras import ops

from keras_dogs.layers import draws

SIDE = 4096
_NUM_VALUES = 1024  # how many areas and how many aspect ratios a box is drawn from


def draw_box(keys, streams, scale, ratio):
    """Draws a box a picture, as torchvision's `RandomResizedCrop` and `RandomErasing` do.

    Args:
        keys: int32 `(batch, 2)`.
        streams: four ints, for area, aspect ratio, top and left.
        scale: pair of floats in (0, 1]. Least and greatest area as a share of the picture's; drawn uniformly.
        ratio: pair of floats. Least and greatest width over height, relative to the picture's; drawn log-uniformly.

    Returns:
        top, left, tall, wide. A box that would not fit is shortened to the picture's side (torchvision draws again).
    """
    places = (np.arange(_NUM_VALUES) + 0.5) / _NUM_VALUES
    sides = np.sqrt(scale[0] + (scale[1] - scale[0]) * places)
    stretches = np.sqrt(np.exp(np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * places))
    side = _pick(keys, streams[0], sides)
    index = draws.integers(keys, streams[1], _NUM_VALUES)
    tall = _shorten(side * ops.take(_fixed(1 / stretches), index))
    wide = _shorten(side * ops.take(_fixed(stretches), index))
    return (
        draws.integers(keys, streams[2], SIDE + 1 - tall),
        draws.integers(keys, streams[3], SIDE + 1 - wide),
        tall,
        wide,
    )


def _pick(keys, stream: int, values: np.ndarray):
    return ops.take(_fixed(values), draws.integers(keys, stream, len(values)))


def _fixed(values: np.ndarray):
    return ops.convert_to_tensor(np.round(values * SIDE).astype("int32"))


def _shorten(product):
    """Returns the product of two numbers in 4096ths, between one pixel of a large picture and the whole side."""
    return ops.clip(ops.right_shift(product, np.int32(12)), 1, SIDE)


def inside(box, height: int, width: int):
    """Returns which pixels of a `height` x `width` picture begin in the box: bool `(batch, height, width, 1)`."""
    top, left, tall, wide = (ops.reshape(value, (-1, 1)) for value in box)
    rows = ops.expand_dims(ops.arange(height, dtype="int32") * SIDE, 0)
    columns = ops.expand_dims(ops.arange(width, dtype="int32") * SIDE, 0)
    rows = ops.logical_and(rows >= top * height, rows < (top + tall) * height)
    columns = ops.logical_and(columns >= left * width, columns < (left + wide) * width)
    return ops.expand_dims(ops.logical_and(ops.expand_dims(rows, 2), ops.expand_dims(columns, 1)), 3)
