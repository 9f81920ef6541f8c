"""Antialiased sampling along one axis, as Pillow's: bilinear or bicubic, by a filter as wide as the reduction."""

import math

import numpy as np
from keras import ops

from keras_dogs import backends
from keras_dogs.layers import boxes

_BAND = 32  # output pixels that are computed together, of the few input pixels that they see
_PIXEL = boxes.SIDE  # units a pixel in which places are computed: whole numbers, the same on every backend


def _triangle(distance, numbers=ops):
    return numbers.maximum(1.0 - distance, 0.0)


def _cubic(distance, numbers=ops):
    """Returns the cubic convolution kernel with a = -0.5 (Keys, 1981), as Pillow's."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return numbers.where(distance < 1.0, near, numbers.where(distance < 2.0, far, 0.0))


# The filter, of distances of at least 0 by `numbers` (NumPy or Keras' operations), and how far from its centre it has
# weights.
FILTERS = {"bilinear": (_triangle, 1), "bicubic": (_cubic, 2)}


def resample_boxes(lines, start, extent, num_outputs: int, interpolation: str, reversed_=None):
    """Resamples a stretch of the second axis, which is different for each item of the batch.

    Outputs are computed in bands, each from the few lines that it reads. On two cores, 16 canvases of 256 pixels to 224
    take 15 ms on JAX instead of 28 from all lines, 28 instead of 52 on TensorFlow, 23 instead of 36 on PyTorch.

    Args:
        lines: uint8 or float tensor `(batch, num_inputs, others)`.
        start: int32 tensor of shape `(batch,)`. Where the stretch begins, in 4096ths of the axis.
        extent: int32 tensor of shape `(batch,)`. How far it goes.
        num_outputs: int.
        interpolation: a key of `FILTERS`.
        reversed_: bool tensor of shape `(batch,)` or `None`. Where the stretch is walked from its end.

    Returns:
        float32 tensor of shape `(batch, num_outputs, others)`.
    """
    num_inputs, others = ops.shape(lines)[1:]
    # All at once, where TensorFlow does not know how many lines there are.
    band = _BAND if isinstance(num_inputs, int) else num_outputs
    num_bands = math.ceil(num_outputs / band)
    outputs = np.minimum(np.arange(num_bands * band, dtype="int32"), num_outputs - 1)
    centres = ops.reshape(_centres(start, extent, outputs, num_outputs, num_inputs, reversed_), (-1, num_bands, band))
    kernel, radius = FILTERS[interpolation]
    seen = _lines_read(centres, radius, num_inputs, num_outputs)
    spread = ops.reshape(ops.cast(extent * num_inputs, "float32") / num_outputs, (-1, 1, 1, 1))
    weights = _weights(kernel, centres, seen, spread)
    width = ops.shape(seen)[2]
    lines = backends.rows_of_each(lines, ops.reshape(seen, (-1, num_bands * width)))
    lines = ops.reshape(ops.cast(lines, "float32"), (-1, num_bands, width, others))
    return ops.reshape(ops.matmul(weights, lines), (-1, num_bands * band, others))[:, :num_outputs]


def _lines_read(centres, radius: int, num_inputs, num_outputs: int):
    """Returns the neighbouring lines that a band of outputs reads: int32 `(batch, bands, some)`."""
    if not isinstance(num_inputs, int):
        return ops.zeros_like(centres[:, :, :1]) + ops.arange(num_inputs, dtype="int32")
    reach = radius * max(num_inputs / num_outputs, 1.0)
    width = math.ceil((centres.shape[2] - 1) * num_inputs / num_outputs + 2 * reach) + 2
    lowest = ops.minimum(centres[:, :, :1], centres[:, :, -1:]) - (math.ceil(reach * _PIXEL) + 1)
    first = ops.clip(ops.floor_divide(lowest, _PIXEL), 0, max(num_inputs - width, 0))
    return first + ops.arange(min(width, num_inputs), dtype="int32")


def _centres(start, extent, outputs: np.ndarray, num_outputs: int, num_inputs, reversed_=None):
    """Returns where output pixels lie, in 4096ths of an input pixel: int32 `(batch, len(outputs))`."""
    start, extent = (ops.expand_dims(ops.convert_to_tensor(value), 1) * num_inputs for value in (start, extent))
    outputs = ops.convert_to_tensor(outputs[None])
    if reversed_ is not None:
        outputs = ops.where(ops.expand_dims(reversed_, 1), num_outputs - 1 - outputs, outputs)
    # extent * (output + 1/2) / num_outputs, in whole numbers that fit 32 bits.
    steps, twice = 2 * outputs + 1, 2 * num_outputs
    quotient = ops.floor_divide(extent, twice)
    return start + quotient * steps + ops.floor_divide((extent - quotient * twice) * steps, twice)


def _weights(kernel, centres, seen, spread):
    """Returns the weights of lines in outputs, `(batch, bands, outputs, lines)`; `spread` is in 4096ths."""
    places = ops.expand_dims(seen * _PIXEL + _PIXEL // 2, 2)
    distance = ops.cast(ops.abs(ops.expand_dims(centres, 3) - places), "float32")
    weights = kernel(distance / ops.maximum(spread, float(_PIXEL)))
    return weights / ops.sum(weights, axis=3, keepdims=True)
