"""Resizes a batch of raw pictures to canvases in the graph, as `data.datasets.opening.to_canvas` does with Pillow."""

import numpy as np
from keras import ops

from keras_dogs.layers.resampling import FILTERS

FITS = ("squash", "crop", "pad")  # how a picture is brought to a canvas of other proportions


def to_canvases(images, size, fit: str, interpolation: str, rounded: bool = True):
    """Resizes a batch to canvases: along rows and along columns, each rounded to 8 bits, as Pillow does.

    Pixels of 8 bits come out the same to the last bit on every backend. The gradient is that of the resampling, without
    the rounding.

    Args:
        images: tensor `(batch, height, width, channels)`, in [0, 255].
        size: int, or pair of ints. The side of a canvas, or its rows and columns, in pixels.
        fit: `"squash"`, `"crop"` or `"pad"`.
        interpolation: a key of `layers.resampling.FILTERS`.
        rounded: bool. Whether pixels are rounded to 8 bits, as those of a file are; augmented pixels are not.

    Returns:
        float32 tensor `(batch, rows, columns, channels)`; the input, where it is of that size.
    """
    sides, (height, width) = size if isinstance(size, tuple) else (size, size), images.shape[1:3]
    if (height, width) == sides:
        return images
    images = ops.cast(images, "float32")
    if height is not None and width is not None:
        return _resized(np, images, height, width, sides, fit, interpolation, rounded)
    # TensorFlow traces sizes that vary from batch to batch.
    height, width = ops.shape(images)[1:3]
    channels = images.shape[3]
    resized = ops.cond(
        ops.logical_and(ops.equal(height, sides[0]), ops.equal(width, sides[1])),
        lambda: ops.reshape(images, (-1, *sides, channels)),
        lambda: _resized(ops, images, height, width, sides, fit, interpolation, rounded),
    )
    return ops.reshape(resized, (-1, *sides, channels))


def _resized(numbers, images, height, width, sides: tuple[int, int], fit: str, interpolation: str, rounded: bool):
    """Computes places and weights by `numbers`: NumPy, or Keras' operations where sizes are tensors."""
    (top, tall, row, rows), (left, wide, column, columns) = _boxes(numbers, height, width, sides, fit)
    across = _weights(numbers, width, sides[1], left, wide, column, columns, interpolation)
    down = _weights(numbers, height, sides[0], top, tall, row, rows, interpolation)
    finish = _rounded if rounded else (lambda values: ops.clip(values, 0.0, 255.0))

    def along_rows(pictures):
        return finish(ops.einsum("ow,bhwc->bhoc", across, pictures))

    def along_columns(pictures):
        return finish(ops.einsum("oh,bhwc->bowc", down, pictures))

    # As Pillow 13 chooses, for speed; earlier ones begin along rows. The second rounding makes a level's difference.
    lost_rows, lost_columns = _float(numbers, height) - rows, _float(numbers, width) - columns
    columns_first = numbers.logical_and(lost_rows > 0, lost_rows > 2 * lost_columns)
    if numbers is np:
        return along_rows(along_columns(images)) if columns_first else along_columns(along_rows(images))
    return ops.cond(columns_first, lambda: along_rows(along_columns(images)), lambda: along_columns(along_rows(images)))


def _rounded(values):
    """Rounds to 8 bits, half up; the gradient passes unchanged."""
    rounded = ops.clip(ops.floor(values + 0.5), 0.0, 255.0)
    return values + ops.stop_gradient(rounded - values)


def _boxes(numbers, height, width, sides: tuple[int, int], fit: str):
    """Returns, for rows and columns, where the visible part begins, its extent, and where it goes to.

    `ImageOps.fit` and `ImageOps.pad` of Pillow, centred.
    """
    tall, wide = _float(numbers, height), _float(numbers, width)
    zero, (rows, columns) = tall * 0, (tall * 0 + side for side in sides)
    own, wanted = wide / tall, sides[1] / sides[0]
    if fit == "crop":
        high, broad = numbers.where(own < wanted, wide / wanted, tall), numbers.where(own > wanted, wanted * tall, wide)
        return ((tall - high) * 0.5, high, zero, rows), ((wide - broad) * 0.5, broad, zero, columns)
    if fit == "pad":
        drawn_rows = numbers.where(own > wanted, numbers.round(tall / wide * sides[1]), rows)
        drawn_columns = numbers.where(own < wanted, numbers.round(own * sides[0]), columns)
        row, column = numbers.round((rows - drawn_rows) * 0.5), numbers.round((columns - drawn_columns) * 0.5)
        return (zero, tall, row, drawn_rows), (zero, wide, column, drawn_columns)
    return (zero, tall, zero, rows), (zero, wide, zero, columns)


def _float(numbers, value):
    return np.float64(value) if numbers is np else ops.cast(value, "float64")


def _weights(numbers, num_inputs, size: int, start, extent, first, count, interpolation: str):
    """Returns the weight of each input pixel in each canvas pixel, float32 `(size, num_inputs)`; 0 in padding."""
    scale = extent / count
    reach = numbers.maximum(scale, 1.0)
    kernel, radius = FILTERS[interpolation]
    support = radius * reach
    if numbers is np:
        outputs, inputs = np.arange(size, dtype="float64"), np.arange(num_inputs, dtype="float64")
    else:
        outputs, inputs = ops.arange(size, dtype="float64"), ops.cast(ops.arange(num_inputs), "float64")
    centres = (start + (outputs - first + 0.5) * scale)[:, None]
    inputs = inputs[None]
    lowest, highest = numbers.floor(centres - support + 0.5), numbers.floor(centres + support + 0.5)
    is_seen = numbers.logical_and(inputs >= lowest, inputs < highest)
    weights = numbers.where(is_seen, kernel(numbers.abs((inputs - centres + 0.5) / reach), numbers), 0.0)
    total = numbers.sum(weights, axis=1, keepdims=True)
    weights = weights / numbers.where(total == 0, 1.0, total)
    is_drawn = numbers.logical_and(outputs >= first, outputs < first + count)[:, None]
    # Whole multiples of 2**-15, so that sums of products with 8 bits are exact in float32, in whatever order.
    weights = numbers.round(numbers.where(is_drawn, weights, 0.0) * 2**15) / 2**15
    return ops.convert_to_tensor(weights.astype("float32")) if numbers is np else ops.cast(weights, "float32")
