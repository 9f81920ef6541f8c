"""RandAugment with a choice of operations for each picture, exact on every backend."""

import keras
import numpy as np
from keras import ops

from keras_dogs.layers import draws
from keras_dogs.layers import random_affine
from keras_dogs.layers.color_jitter import GREY
from keras_dogs.layers.draw_keys import RandomLayer

# The operations of the ViT and AugReg code (google-research/big_vision, pp/autoaugment.py).
OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAdd",
)
_OPERATION, _SIGN, _ROW, _COLUMN = range(4)
_FILL = 128.0
_LEVELS = np.arange(256, dtype="int32")


@keras.saving.register_keras_serializable(package="keras_dogs")
class RandAugment(RandomLayer):
    """Applies to each picture `num_layers` operations of its own, drawn from `OPERATIONS` (arXiv 1909.13719).

    Magnitudes are those of big_vision's `distort_image_with_randaugment`; its shifts and cutouts in pixels of a picture
    of 224 are shares of the side here. To be exact and cheap, the operations are sorted into stages: those that map a
    pixel's value alone are composed, in the order drawn, into one table of 256 values a channel; then come saturation,
    sharpness, one affine sampling for all that moves pixels, and cutouts. Keras' own `RandAugment` draws one operation
    for the whole batch, computes all of them, and turns compilation off.

    Args:
        num_layers: int from 1 to 4. Operations a picture.
        magnitude: float. Their strength; 10 is strong.
        operations: sequence of str. Which to draw from.
        seed, stream: int. See `RandomLayer`.

    Input: uint8 or float RGB in [0, 255], `(batch, height, width, 3)`, rounded to whole values in training; and keys,
    or not. Output: float32 of the same shape and range.

    Raises:
        ValueError: an operation is unknown, or `num_layers` is out of range.
    """

    kind = 5

    def __init__(self, num_layers=2, magnitude=10.0, operations=OPERATIONS, **kwargs):
        super().__init__(**kwargs)
        unknown = [name for name in operations if name not in OPERATIONS]
        if unknown:
            raise ValueError(f"unknown operations {', '.join(unknown)}; choose from {', '.join(OPERATIONS)}")
        if num_layers not in range(1, 5):  # more would take the random numbers of the next layer
            raise ValueError(f"num_layers {num_layers}: must be an int from 1 to 4")
        self.num_layers, self.magnitude, self.operations = num_layers, magnitude, tuple(operations)

    def augment(self, images, keys):
        drawn = [_Draw(self, keys, layer) for layer in range(self.num_layers)]
        images = self._map_values(images, drawn)
        if "Color" in self.operations:
            images = _saturate(images, self._factor(drawn, "Color"))
        if "Sharpness" in self.operations:
            images = _sharpen(images, self._factor(drawn, "Sharpness"))
        if any(name in self.operations for name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")):
            images = self._move(images, drawn)
        if "Cutout" in self.operations:
            images = self._cut_out(images, drawn)
        return images

    def _map_values(self, images, drawn):
        """Applies all operations that map single values, composed into one table per channel."""
        height, width = ops.shape(images)[1:3]
        values = ops.reshape(ops.cast(ops.floor(images + 0.5), "int32"), (-1, height * width, 3))
        counts = _histogram(values)
        table = self._map_levels(ops.broadcast_to(_LEVELS, ops.shape(counts)), counts, drawn[0])
        for draw in drawn[1:]:
            table = self._map_levels(table, _histogram_through(table, counts), draw)
        table = ops.cast(ops.transpose(table, (0, 2, 1)), "float32")
        return ops.reshape(ops.take_along_axis(table, values, axis=1), (-1, height, width, 3))

    def _map_levels(self, levels, histogram, draw):
        """Applies one operation to a table of values, int32 `(batch, 3, 256)`; `histogram` counts the values."""
        strength = self.magnitude / 10
        factor = _enhance_factor(self.magnitude)
        kept = np.int32(~((1 << max(8 - int(4 * strength), 0)) - 1))
        threshold, added = int(256 * strength), int(110 * strength)
        mapped = {
            "AutoContrast": lambda: _stretch(levels, histogram),
            "Equalize": lambda: _equalize(levels, histogram),
            "Invert": lambda: 255 - levels,
            "Posterize": lambda: ops.bitwise_and(levels, kept),
            "Solarize": lambda: ops.where(levels < threshold, levels, 255 - levels),
            "SolarizeAdd": lambda: ops.where(levels < 128, ops.minimum(levels + added, 255), levels),
            "Brightness": lambda: _blend(levels, 0, factor),
            "Contrast": lambda: _blend(levels, _mean_grey(histogram), factor),
        }
        for name in self.operations:
            if name in mapped:
                levels = ops.where(ops.reshape(draw.chose(name), (-1, 1, 1)), mapped[name](), levels)
                mapped.pop(name)
        return levels

    def _factor(self, drawn, name: str):
        """Returns the product of an enhancement's factors, float32 `(batch, 1, 1, 1)`; 1 where it was not drawn."""
        factor = _enhance_factor(self.magnitude) / 256
        product = 1.0
        for draw in drawn:
            product = product * ops.where(draw.chose(name), np.float32(factor), np.float32(1.0))
        return ops.reshape(product, (-1, 1, 1, 1))

    def _move(self, images, drawn):
        height, width = ops.shape(images)[1:3]
        matrix, shift = drawn[0].motion(height, width)
        for draw in drawn[1:]:
            then, by = draw.motion(height, width)
            moved = random_affine.transform(matrix, by)
            shift = (shift[0] + moved[0], shift[1] + moved[1])
            matrix = random_affine.multiply(matrix, then)
        return random_affine.sample(images, matrix, shift, _FILL)

    def _cut_out(self, images, drawn):
        height, width = ops.shape(images)[1:3]
        for draw in drawn:
            images = ops.where(draw.hole(height, width), _FILL, images)
        return images

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "magnitude": self.magnitude,
            "operations": self.operations,
        }


class _Draw:
    """What one layer of operations drew, for each picture of the batch."""

    def __init__(self, layer: RandAugment, keys, number: int):
        def stream(draw):
            return layer.draw_stream(4 * number + draw)

        self.operations, self.strength = layer.operations, layer.magnitude / 10
        self.operation = draws.integers(keys, stream(_OPERATION), len(layer.operations))
        self.sign = ops.where(draws.bernoulli(keys, stream(_SIGN), 0.5), np.int32(1), np.int32(-1))
        self.keys, self.streams = keys, [stream(_ROW), stream(_COLUMN)]

    def chose(self, name: str):
        """Returns which pictures get this operation: bool `(batch,)`."""
        number = self.operations.index(name) if name in self.operations else -1
        return self.operation == number

    def _signed(self, name: str, amount: float):
        """Returns plus or minus the amount in units of 1 / ONE for this operation, else 0: int32 `(batch,)`."""
        return ops.where(self.chose(name), self.sign * random_affine.fixed(amount), np.int32(0))

    def motion(self, height, width):
        """Returns the matrix and the shift of this layer; see `random_affine.sample`."""
        angle = np.radians(30 * self.strength)
        one = np.int32(random_affine.ONE)
        turned = self.chose("Rotate")
        cosine = ops.where(turned, random_affine.fixed(np.cos(angle)), one)
        sine = self._signed("Rotate", np.sin(angle))
        shear_x, shear_y = (self._signed(name, 0.3 * self.strength) for name in ("ShearX", "ShearY"))
        share = 100 / 224 * self.strength
        shift = self._signed("TranslateY", share) * height, self._signed("TranslateX", share) * width
        return (cosine, sine + shear_y, shear_x - sine, cosine), shift

    def hole(self, height, width):
        """Returns where a cutout covers the picture: bool `(batch, height, width, 1)`."""
        covered = ops.reshape(self.chose("Cutout"), (-1, 1, 1, 1))
        for axis, (side, stream) in enumerate(zip((height, width), self.streams, strict=True), start=1):
            centre = ops.reshape(draws.integers(self.keys, stream, side), (-1, 1, 1, 1))
            half = int(40 / 224 * self.strength * 4096) * side
            place = ops.reshape(ops.arange(side, dtype="int32"), [-1 if other == axis else 1 for other in range(4)])
            covered = ops.logical_and(covered, ops.abs(place - centre) * 4096 < half)
        return covered


def _enhance_factor(magnitude: float) -> int:
    """Returns the factor of an enhancement in 256ths."""
    return round(256 * (magnitude / 10 * 1.8 + 0.1))


def _histogram(values):
    """Returns counts of the 256 values in each channel: int32 `(batch, pixels, 3)` -> `(batch, 3, 256)`."""
    batch = ops.shape(values)[0]
    channel = ops.reshape(ops.arange(batch * 3, dtype="int32"), (batch, 1, 3))
    place = ops.reshape(channel * 256 + values, (-1,))
    return ops.reshape(ops.segment_sum(ops.ones_like(place), place, num_segments=batch * 3 * 256), (batch, 3, 256))


def _histogram_through(table, counts):
    """Returns the histogram of a picture whose values, with these `counts`, went through `table`."""
    becomes = ops.expand_dims(table, 3) == ops.convert_to_tensor(_LEVELS[None, None, None])
    return ops.sum(ops.where(becomes, ops.expand_dims(counts, 3), 0), axis=2)


def _stretch(levels, histogram):
    """Stretches the darkest value to 0 and the lightest to 255, as Pillow's `ImageOps.autocontrast`."""
    low, high = _extremes(histogram)
    span = ops.maximum(high - low, 1)
    stretched = ops.clip(ops.floor_divide((levels - low) * 255, span), 0, 255)
    return ops.where(high > low, stretched, levels)


def _equalize(levels, histogram):
    """Equalises the histogram, as Pillow's `ImageOps.equalize`."""
    _, high = _extremes(histogram)
    last = ops.take_along_axis(histogram, high, axis=2)
    step = ops.floor_divide(ops.sum(histogram, axis=2, keepdims=True) - last, 255)
    before = ops.cumsum(histogram, axis=2) - histogram
    divisor = ops.maximum(step, 1)
    equal = ops.clip(ops.floor_divide(before + ops.floor_divide(step, 2), divisor), 0, 255)
    return ops.where(step > 0, ops.take_along_axis(equal, levels, axis=2), levels)


def _extremes(histogram):
    """Returns the least and the greatest value that occurs: int32 `(batch, 3, 1)` each."""
    occurs = histogram > 0
    low = ops.min(ops.where(occurs, _LEVELS, 255), axis=2, keepdims=True)
    high = ops.max(ops.where(occurs, _LEVELS, 0), axis=2, keepdims=True)
    return low, high


def _mean_grey(histogram):
    """Returns the mean of the grey picture, rounded: int32 `(batch, 1, 1)`."""
    total, count = ops.sum(histogram * ops.convert_to_tensor(_LEVELS), axis=2), ops.sum(histogram, axis=2)
    whole = ops.floor_divide(total, count)
    means = whole * 8 + ops.floor_divide((total - whole * count) * 8, count)  # in eighths
    grey = ops.sum(means * ops.convert_to_tensor([299, 587, 114], "int32"), axis=1, keepdims=True)
    return ops.expand_dims(ops.floor_divide(grey + 4000, 8000), 2)


def _blend(levels, other, factor: int):
    """Blends from `other` to `levels` in whole numbers, as Pillow's `Image.blend`; `factor` is in 256ths."""
    return ops.clip(other + ops.right_shift((levels - other) * factor, np.int32(8)), 0, 255)


def _saturate(images, factor):
    grey = ops.sum(images * ops.convert_to_tensor(GREY), axis=3, keepdims=True)
    return ops.clip(grey + (images - grey) * factor, 0.0, 255.0)


def _sharpen(images, factor):
    """Sharpens (factor > 1) or smooths, as Pillow's `ImageEnhance.Sharpness`; the border stays."""
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = images[:, 1:-1, 1:-1]
    smooth = (box + 4 * inner) / 13
    change = ops.pad(inner - smooth, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return ops.clip(images + (factor - 1) * change, 0.0, 255.0)
