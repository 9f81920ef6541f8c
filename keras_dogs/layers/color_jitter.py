"""Brightness, contrast, saturation, hue and grey as one matrix a picture, folded with the preset's normalisation."""

import math

import keras
import numpy as np
from keras import ops

from keras_dogs.layers import draws
from keras_dogs.layers.draw_keys import RandomLayer

GREY = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R 601-2 luma, as Pillow's "L" and torchvision's
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _GREY = range(5)
# Pixels in one row of the matrix product: kernels are slow with 3 columns. On two cores, for 16 pictures of 224 pixels,
# the changes take 8 instead of 17 ms on JAX, 11 instead of 31 on TensorFlow, 16 instead of 30 on PyTorch; the
# normalisation alone takes 0.7 instead of 2.9 on TensorFlow.
_TOGETHER = 16

# YIQ (FCC NTSC, 1953): hue is a turn in the plane of I and Q.
_TO_YIQ = np.array([GREY, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], "float64")


@keras.saving.register_keras_serializable(package="keras_dogs")
class ColorJitter(RandomLayer):
    """Changes the colours of each picture by its own draws, then scales it to what the backbone expects.

    Every change is linear in the colour, so all of them and the normalisation are one 3 x 3 matrix and one offset a
    picture. They come in this order: brightness, contrast, saturation (factors drawn uniformly from [1 - range,
    1 + range], as torchvision's `ColorJitter` and Pillow's `ImageEnhance`), hue (a turn in YIQ, which keeps the grey;
    torchvision shifts the H of HSV), grey. Values are clipped once, at the end. At inference: images x scale + offset.

    Args:
        scale, offset: three floats each. What colours in [0, 255] are multiplied by, and what is added then.
        brightness, contrast, saturation: float in [0, 1]. How far the factor goes from 1.
        hue: float in [0, 0.5]. Greatest turn, as a share of the circle.
        grey: float in [0, 1]. The share of pictures that lose their colours.
        seed, stream: int. See `RandomLayer`.

    Input: uint8 or float RGB in [0, 255], `(batch, height, width, 3)`; and keys, or not. Output: float32.
    """

    kind = 3

    def __init__(
        self,
        scale=(1.0, 1.0, 1.0),
        offset=(0.0, 0.0, 0.0),
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        grey=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.scale, self.offset = tuple(scale), tuple(offset)
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.hue, self.grey = hue, grey

    def convert(self, images):
        height, width = ops.shape(images)[1:3]
        count = _pixels_a_row(height, width)
        scale, shift = (ops.tile(colors, count) for colors in self._scale_and_shift())
        colors = ops.reshape(images, (-1, height * width // count, 3 * count)) * scale + shift
        return ops.reshape(colors, (-1, height, width, 3))

    def augment(self, images, keys):
        if not any((self.brightness, self.contrast, self.saturation, self.hue, self.grey)):
            return self.convert(images)
        brightness, contrast, saturation = (
            1 + reach * (2 * draws.uniform(keys, self.draw_stream(number)) - 1)
            for number, reach in (
                (_BRIGHTNESS, self.brightness),
                (_CONTRAST, self.contrast),
                (_SATURATION, self.saturation),
            )
        )
        grey = draws.bernoulli(keys, self.draw_stream(_GREY), self.grey)
        saturation = ops.where(grey, 0.0, saturation)
        # All that follows the contrast keeps grey as it is, so its offset, a grey, goes through unchanged.
        matrix = self._draw_hue(keys) @ _towards_grey(saturation)
        matrix = matrix * ops.reshape(brightness * contrast, (-1, 1, 1))
        mean = ops.mean(images, axis=(1, 2)) @ ops.convert_to_tensor(GREY[:, None])
        offset = ops.expand_dims((1 - contrast) * brightness, 1) * mean
        return self._apply(images, matrix, offset)

    def _apply(self, images, matrix, offset):
        scale, shift = self._scale_and_shift()
        matrix = ops.transpose(matrix, (0, 2, 1)) * scale
        offset = ops.expand_dims(offset * scale + shift, 1)
        height, width = ops.shape(images)[1:3]
        count = _pixels_a_row(height, width)
        black, white, offset = (ops.tile(colors, count) for colors in (shift, 255 * scale + shift, offset))
        colors = ops.reshape(images, (-1, height * width // count, 3 * count))
        colors = ops.matmul(colors, _for_each_of(count, matrix)) + offset
        colors = ops.clip(colors, ops.minimum(black, white), ops.maximum(black, white))
        return ops.reshape(colors, (-1, height, width, 3))

    def _scale_and_shift(self):
        """Returns the scale and offset of each channel as tensors; PyTorch would hand a NumPy product to NumPy."""
        return ops.convert_to_tensor(self.scale, "float32"), ops.convert_to_tensor(self.offset, "float32")

    def _draw_hue(self, keys):
        turn = (2 * draws.uniform(keys, self.draw_stream(_HUE)) - 1) * float(2 * np.pi * self.hue)
        cosine, sine = (ops.reshape(value, (-1, 1, 1)) for value in (ops.cos(turn), ops.sin(turn)))
        back = np.linalg.inv(_TO_YIQ)
        still, same, across = (
            ops.convert_to_tensor((back @ np.array(part) @ _TO_YIQ).astype("float32")[None])
            for part in (
                [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
                [[0, 0, 0], [0, 1, 0], [0, 0, 1]],
                [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
            )
        )
        return cosine * same + sine * across + still

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "offset": self.offset,
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
            "grey": self.grey,
        }


def _pixels_a_row(height, width) -> int:
    """Returns the pixels of a row; 1 where TensorFlow does not know how many there are."""
    return math.gcd(height * width, _TOGETHER) if isinstance(height * width, int) else 1


def _for_each_of(count: int, matrix):
    """Returns the 3 x 3 matrices of a batch for rows of `count` pixels: blocks along the diagonal."""
    places = ops.convert_to_tensor(np.eye(count, dtype="float32").reshape(1, count, 1, count, 1))
    return ops.reshape(places * ops.reshape(matrix, (-1, 1, 3, 1, 3)), (-1, 3 * count, 3 * count))


def _towards_grey(saturation):
    """Returns the matrix of a saturation factor: 1 leaves a colour, 0 makes it grey."""
    saturation = ops.reshape(saturation, (-1, 1, 1))
    as_it_is, grey = (ops.convert_to_tensor(each[None]) for each in (np.eye(3, dtype="float32"), np.tile(GREY, (3, 1))))
    return saturation * as_it_is + (1 - saturation) * grey
