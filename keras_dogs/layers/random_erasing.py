"""Random erasing: a box of each picture gives way to noise."""

import keras
from keras import ops

from keras_dogs.layers import boxes
from keras_dogs.layers import draws
from keras_dogs.layers.draw_keys import RandomLayer

_WHETHER, _AREA, _RATIO, _TOP, _LEFT, _NOISE = range(6)


@keras.saving.register_keras_serializable(package="keras_dogs")
class RandomErasing(RandomLayer):
    """Covers a random box of some pictures (Zhong et al., arXiv 1708.04896), after the normalisation.

    Args:
        probability: float in [0, 1]. The share of pictures.
        scale, ratio: pairs of floats. Area and aspect ratio of the box; see `boxes.draw_box`.
        fill: `"noise"` (mean 0, standard deviation 1 in every pixel, timm's mode "pixel") or `"zero"`.
        seed, stream: int. See `RandomLayer`.

    Input: float pictures, normalised, `(batch, height, width, channels)`; and keys, or not. Output: float32 of the
    same shape.

    Raises:
        ValueError: `fill` is neither.
    """

    kind = 4

    def __init__(self, probability=0.25, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), fill="noise", **kwargs):
        super().__init__(**kwargs)
        if fill not in ("noise", "zero"):
            raise ValueError(f"fill {fill!r}: choose 'noise' or 'zero'")
        self.probability, self.scale, self.ratio, self.fill = probability, tuple(scale), tuple(ratio), fill

    def augment(self, images, keys):
        streams = [self.draw_stream(number) for number in (_AREA, _RATIO, _TOP, _LEFT)]
        box = boxes.draw_box(keys, streams, self.scale, self.ratio)
        height, width, channels = ops.shape(images)[1:]
        inside = ops.logical_and(
            boxes.inside(box, height, width),
            ops.reshape(draws.bernoulli(keys, self.draw_stream(_WHETHER), self.probability), (-1, 1, 1, 1)),
        )
        if self.fill == "zero":
            return ops.where(inside, 0.0, images)
        noise = draws.noise(keys, self.draw_stream(_NOISE), height * width * channels)
        return ops.where(inside, ops.reshape(noise, (-1, height, width, channels)), images)

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "probability": self.probability,
            "scale": self.scale,
            "ratio": self.ratio,
            "fill": self.fill,
        }
