"""Rotation, shear and translation as one sampling, with places computed in whole numbers."""

import keras
import numpy as np
from keras import ops

from keras_dogs.layers import draws
from keras_dogs.layers.draw_keys import RandomLayer

ONE = 2**14  # matrices and fractions of a side are in units of 1 / ONE
_NUM_VALUES = 1024
_ANGLE, _SHEAR_Y, _SHEAR_X, _TRANSLATE_Y, _TRANSLATE_X = range(5)


@keras.saving.register_keras_serializable(package="keras_dogs")
class RandomAffine(RandomLayer):
    """Turns, shears and shifts each picture by its own draws, uniform in plus or minus the ranges; bilinear.

    Args:
        rotation: float. Greatest angle, degrees.
        shear: float. Greatest shift of a pixel for each pixel of the other axis.
        translation: float. Greatest shift, as a share of the picture's side.
        fill: float. What comes in from outside.
        seed, stream: int. See `RandomLayer`.

    Input: uint8 or float pictures, `(batch, height, width, channels)`, at most 4,096 pixels a side; and keys, or not.
    Output: float32 of the same shape.
    """

    kind = 2

    def __init__(self, rotation=0.0, shear=0.0, translation=0.0, fill=128.0, **kwargs):
        super().__init__(**kwargs)
        self.rotation, self.shear, self.translation, self.fill = rotation, shear, translation, fill

    def augment(self, images, keys):
        angles = np.radians(_spread(self.rotation))
        index = draws.integers(keys, self.draw_stream(_ANGLE), _NUM_VALUES)
        turn = rotation_matrix(*(ops.take(ops.convert_to_tensor(fixed(f(angles))), index) for f in (np.cos, np.sin)))
        shear = (ONE, self._draw(keys, _SHEAR_Y, self.shear), self._draw(keys, _SHEAR_X, self.shear), ONE)
        height, width = ops.shape(images)[1:3]
        down = self._draw(keys, _TRANSLATE_Y, self.translation) * height
        right = self._draw(keys, _TRANSLATE_X, self.translation) * width
        return sample(images, multiply(turn, shear), (down, right), self.fill)

    def _draw(self, keys, number: int, reach: float):
        index = draws.integers(keys, self.draw_stream(number), _NUM_VALUES)
        return ops.take(ops.convert_to_tensor(fixed(_spread(reach))), index)

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "rotation": self.rotation,
            "shear": self.shear,
            "translation": self.translation,
            "fill": self.fill,
        }


def _spread(reach: float) -> np.ndarray:
    return reach * (2 * (np.arange(_NUM_VALUES) + 0.5) / _NUM_VALUES - 1)


def fixed(value) -> np.ndarray:
    """Returns a number in whole units of 1 / `ONE`, int32."""
    return np.round(np.asarray(value) * ONE).astype("int32")


def rotation_matrix(cosine, sine):
    """Returns the entries (yy, yx, xy, xx) of a rotation matrix."""
    return cosine, sine, -sine, cosine


def multiply(first, second):
    """Returns the product of two matrices (yy, yx, xy, xx), in units of 1 / `ONE`."""
    yy, yx, xy, xx = first
    products = (
        yy * second[0] + yx * second[2],
        yy * second[1] + yx * second[3],
        xy * second[0] + xx * second[2],
        xy * second[1] + xx * second[3],
    )
    return tuple(ops.right_shift(product, np.int32(14)) for product in products)


def transform(matrix, shift):
    """Applies the matrix to a shift (down, right), in units of 1 / `ONE` pixel, to 1 / 64 pixel."""
    down, right = (ops.right_shift(value, np.int32(8)) for value in shift)
    yy, yx, xy, xx = matrix
    return (ops.right_shift(yy * down + yx * right, np.int32(6)), ops.right_shift(xy * down + xx * right, np.int32(6)))


def sample(images, matrix, shift, fill: float):
    """Samples the input, for each place of the output, at `matrix x place + shift`; places are relative to the centre.

    Args:
        images: float tensor `(batch, height, width, channels)`.
        matrix: yy, yx, xy, xx, each int32 `(batch,)`, in units of 1 / `ONE`.
        shift: down and right, each int32 `(batch,)`, in units of 1 / `ONE` pixel.
        fill: float. What lies outside.

    Returns:
        float32 tensor of the shape of `images`: bilinear.
    """
    batch, height, width, channels = ops.shape(images)
    yy, yx, xy, xx = (ops.reshape(value, (-1, 1, 1)) for value in matrix)
    down, right = (ops.reshape(value, (-1, 1, 1)) for value in shift)
    # Twice the distance from the centre is a whole number; places are then in units of 1 / (2 ONE) pixel.
    y = ops.reshape(2 * ops.arange(height, dtype="int32") - (height - 1), (1, -1, 1))
    x = ops.reshape(2 * ops.arange(width, dtype="int32") - (width - 1), (1, 1, -1))
    top, low = _split(yy * y + yx * x + 2 * down + (height - 1) * ONE)
    left, far = _split(xy * y + xx * x + 2 * right + (width - 1) * ONE)

    # A frame of `fill` stands for everything outside.
    framed = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    rows = ops.reshape(framed, (-1, channels))
    first = ops.reshape(ops.arange(batch, dtype="int32") * ((height + 2) * (width + 2)), (-1, 1, 1))

    def at(row, column):
        place = ops.clip(row + 1, 0, height + 1) * (width + 2) + ops.clip(column + 1, 0, width + 1)
        return ops.take(rows, first + place, axis=0)

    above = at(top, left) * (1 - far) + at(top, left + 1) * far
    below = at(top + 1, left) * (1 - far) + at(top + 1, left + 1) * far
    return above * (1 - low) + below * low


def _split(place):
    """Splits into whole pixels and the rest, a float32 in [0, 1) with an axis for channels."""
    rest = ops.cast(ops.bitwise_and(place, np.int32(2 * ONE - 1)), "float32") * (0.5 / ONE)
    return ops.right_shift(place, np.int32(15)), ops.expand_dims(rest, -1)
