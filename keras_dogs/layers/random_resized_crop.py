"""Crops, flips and resizes in one antialiased sampling: small matrix products, compiled on every backend."""

import keras
from keras import ops

from keras_dogs.layers import boxes
from keras_dogs.layers import draws
from keras_dogs.layers.canvas import FITS
from keras_dogs.layers.canvas import to_canvases
from keras_dogs.layers.draw_keys import RandomLayer
from keras_dogs.layers.resampling import FILTERS
from keras_dogs.layers.resampling import resample_boxes

_AREA, _RATIO, _TOP, _LEFT, _FLIP = range(5)


@keras.saving.register_keras_serializable(package="keras_dogs")
class RandomResizedCrop(RandomLayer):
    """Cuts a random box out of each picture, mirrors some of them, and resizes to the model's size.

    In training each picture has its own box: an area drawn uniformly from `scale`, an aspect ratio drawn log-uniformly
    from `ratio`, a place drawn uniformly. A box that would not fit is shortened to the picture's side. (Szegedy et al.,
    arXiv 1409.4842, section 6, the "inception crop"; torchvision's `RandomResizedCrop` redraws such a box instead.)
    Sampling is bilinear or bicubic; the filter is as wide as the reduction, as in Pillow. At inference the centre of
    the picture (`evaluation_scale`; by default the whole) is resized the same way, and nothing is drawn.

    Keras' own geometric layers turn compilation of the whole model off (`supports_jit = False`); this one does not.

    Args:
        height: int. Rows of the output.
        width: int. Columns of the output.
        scale: pair of floats in (0, 1]. Least and greatest area of the box as a share of the picture's.
        ratio: pair of floats. Least and greatest width of the box over its height, relative to the picture's own.
        flip: float in [0, 1]. The share of pictures that are mirrored.
        interpolation: `"bilinear"` or `"bicubic"`.
        evaluation_scale: float in (0, 1]. Side of the central box at inference, as a share of the picture's.
        canvas_size: int, pair of ints or `None`. The side of the canvas, or its rows and columns. Pictures of another
            size are first brought to it, as Pillow does with files (`layers.canvas`); `None` leaves this step out.
        fit: str. How pictures are brought to the canvas: `"squash"`, `"crop"` or `"pad"`.
        canvas_interpolation: `"bilinear"` or `"bicubic"`, for that step.
        seed, stream: int. See `RandomLayer`.

    Input: uint8 or float pictures, `(batch, height, width, channels)`, at most 4,096 pixels a side; and, optionally,
    keys (see `RandomLayer`). Output: float32 in the range of the input (bicubic: clipped to [0, 255]).
    """

    kind = 1  # see `RandomLayer`

    def __init__(
        self,
        height,
        width,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        flip=0.0,
        interpolation="bilinear",
        evaluation_scale=1.0,
        canvas_size=None,
        fit="squash",
        canvas_interpolation="bilinear",
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value, allowed in (
            ("interpolation", interpolation, FILTERS),
            ("canvas_interpolation", canvas_interpolation, FILTERS),
            ("fit", fit, FITS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value!r}: choose one of {', '.join(allowed)}")
        self.interpolation = interpolation
        self.height, self.width = height, width
        self.scale, self.ratio, self.flip = tuple(scale), tuple(ratio), flip
        self.evaluation_scale = evaluation_scale
        self.canvas_size = tuple(canvas_size) if isinstance(canvas_size, (tuple, list)) else canvas_size
        self.fit, self.canvas_interpolation = fit, canvas_interpolation

    @property
    def canvas(self) -> dict:
        """How a file becomes the canvas that this layer crops: `size`, `fit` and `interpolation` of `to_canvas`."""
        return {"size": self.canvas_size, "fit": self.fit, "interpolation": self.canvas_interpolation}

    def augment(self, images, keys):
        if (self.scale, self.ratio, self.flip, self.evaluation_scale) == ((1.0, 1.0), (1.0, 1.0), 0.0, 1.0):
            return self.convert(images)
        images = self._on_canvas(images, rounded=False)  # augmented before, pixels are not whole numbers
        top, left, tall, wide = self.draw_boxes(keys)
        flipped = draws.bernoulli(keys, self.draw_stream(_FLIP), self.flip)
        return self._resize(images, (top, left, tall, wide), flipped)

    def _on_canvas(self, images, rounded: bool):
        if self.canvas_size is None:
            return images
        return to_canvases(images, **self.canvas, rounded=rounded)

    def convert(self, images):
        images = self._on_canvas(images, rounded=True)
        # Not `ops.shape`: sizes that vary from batch to batch are tensors there on TensorFlow, and cannot be compared.
        if self.evaluation_scale == 1.0 and tuple(images.shape[1:3]) == (self.height, self.width):
            return images
        side = round(self.evaluation_scale * boxes.SIDE)
        start = ops.zeros(ops.shape(images)[:1], "int32") + (boxes.SIDE - side) // 2
        extent = ops.zeros_like(start) + side
        return self._resize(images, (start, start, extent, extent))

    def _resize(self, images, box, flipped=None):
        """Resamples each picture's own box: first vertically, then horizontally."""
        (top, left, tall, wide), (height, width, channels) = box, ops.shape(images)[1:]
        images = ops.reshape(images, (-1, height, width * channels))
        images = resample_boxes(images, top, tall, self.height, self.interpolation)
        images = ops.transpose(ops.reshape(images, (-1, self.height, width, channels)), (0, 2, 1, 3))
        images = ops.reshape(images, (-1, width, self.height * channels))
        images = resample_boxes(images, left, wide, self.width, self.interpolation, flipped)
        images = ops.reshape(images, (-1, self.width, self.height, channels))
        return self._clip(ops.transpose(images, (0, 2, 1, 3)))

    def _clip(self, images):
        """Clips to [0, 255], which negative bicubic weights can leave."""
        return images if self.interpolation == "bilinear" else ops.clip(images, 0.0, 255.0)

    def draw_boxes(self, keys):
        """Draws the boxes of a batch, in 4096ths of a side: top, left, height, width, each `(batch,)`."""
        streams = [self.draw_stream(number) for number in (_AREA, _RATIO, _TOP, _LEFT)]
        return boxes.draw_box(keys, streams, self.scale, self.ratio)

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor((images.shape[0], self.height, self.width, images.shape[3]), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
            "ratio": self.ratio,
            "flip": self.flip,
            "interpolation": self.interpolation,
            "evaluation_scale": self.evaluation_scale,
            "canvas_size": self.canvas_size,
            "fit": self.fit,
            "canvas_interpolation": self.canvas_interpolation,
        }
