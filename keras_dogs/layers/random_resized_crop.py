"""Crop, flip and resize as one antialiased sampling: two small matrix products a picture, compiled on every backend."""

import keras
import numpy as np
from keras import ops

from keras_dogs import backend
from keras_dogs.layers import draws

# Streams of the counter-based draws; a new use takes a new number, an old one keeps its own.
_AREA, _RATIO, _TOP, _LEFT, _FLIP = range(5)


@keras.saving.register_keras_serializable(package="keras_dogs")
class RandomResizedCrop(keras.layers.Layer):
    """Cuts a random box out of each picture, mirrors half of them, and resizes to the model's size.

    In training each picture has its own box: an area drawn uniformly from `scale`, an aspect ratio drawn log-uniformly
    from `ratio`, a place drawn uniformly. A box that would not fit is shortened to the picture's side. (Szegedy et al.,
    arXiv 1409.4842, section 6, the "inception crop"; torchvision's `RandomResizedCrop` redraws such a box instead.)
    Sampling is bilinear with a triangle filter as wide as the reduction, as Pillow's. At inference the whole picture is
    resized the same way, with no draw.

    Keras' own geometric layers turn compilation of the whole model off (`supports_jit = False`); this one does not.

    Args:
        height: int. Rows of the output.
        width: int. Columns of the output.
        scale: pair of floats in (0, 1]. Least and greatest area of the box as a share of the picture's.
        ratio: pair of floats. Least and greatest width of the box over its height, relative to the picture's own.
        flip: float in [0, 1]. The share of pictures that are mirrored.
        seed: int. Draws depend on (seed, step, place in the batch) alone.
        canvas_size: int or `None`. How large a canvas raw pictures are brought to before they reach the model; read by
            `predict`, without effect on the computation.
        fit: str. How they are brought there: `"squash"`, `"crop"` or `"pad"`; likewise.

    Input: uint8 or float pictures in [0, 255], `(batch, height, width, channels)`. Output: float32 in [0, 255].
    """

    def __init__(
        self,
        height,
        width,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        flip=0.0,
        seed=0,
        canvas_size=None,
        fit="squash",
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")  # pixels lose their last bits in bfloat16, whatever the model's policy
        super().__init__(**kwargs)
        self.height, self.width = height, width
        self.scale, self.ratio, self.flip = tuple(scale), tuple(ratio), flip
        self.seed = seed
        self.canvas_size, self.fit = canvas_size, fit

    def build(self, input_shape):
        """Makes the step counter, which is saved with the model so that training goes on with the next draws."""
        self.step = self.add_weight(
            name="step", shape=(), dtype=backend.counter_dtype(), initializer="zeros", trainable=False
        )

    def call(self, images, training=False):
        images = ops.cast(images, self.compute_dtype)
        batch, height, width = ops.shape(images)[:3]
        if not training:
            # `images.shape`, as TensorFlow traces sizes that vary from batch to batch as tensors, which have no truth.
            if tuple(images.shape[1:3]) == (self.height, self.width):
                return images
            whole = np.zeros(1, "float32"), np.ones(1, "float32")
            rows = _sampling_matrix(*whole, self.height, height)[0]
            columns = _sampling_matrix(*whole, self.width, width)[0]
            return ops.einsum("jw,biwc->bijc", columns, ops.einsum("ih,bhwc->biwc", rows, images))
        step, positions = ops.cast(self.step, "int32"), ops.arange(batch, dtype="int32")
        top, left, tall, wide = self._draw_boxes(step, positions)
        flipped = draws.uniform(self.seed, step, _FLIP, positions) < self.flip
        self.step.assign(self.step + 1)  # after the last draw: PyTorch assigns in place, and `step` may be a view
        # A mirrored box is one that is walked from right to left.
        start, extent = ops.where(flipped, left + wide, left), ops.where(flipped, -wide, wide)
        rows = _sampling_matrix(top, tall, self.height, height)
        columns = _sampling_matrix(start, extent, self.width, width)
        return ops.einsum("bjw,biwc->bijc", columns, ops.einsum("bih,bhwc->biwc", rows, images))

    def _draw_boxes(self, step, positions):
        """Boxes as fractions of the picture: top, left, height, width, each of shape `(batch,)`."""

        def draw(stream, low, high):
            return low + (high - low) * draws.uniform(self.seed, step, stream, positions)

        area = draw(_AREA, *self.scale)
        ratio = ops.exp(draw(_RATIO, *np.log(self.ratio)))
        tall = ops.minimum(ops.sqrt(area / ratio), 1.0)
        wide = ops.minimum(ops.sqrt(area * ratio), 1.0)
        top = draw(_TOP, 0.0, 1.0) * (1.0 - tall)
        left = draw(_LEFT, 0.0, 1.0) * (1.0 - wide)
        return top, left, tall, wide

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self):
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
            "ratio": self.ratio,
            "flip": self.flip,
            "seed": self.seed,
            "canvas_size": self.canvas_size,
            "fit": self.fit,
        }


def _sampling_matrix(start, extent, num_outputs: int, num_inputs):
    """Weights of the input pixels in each output pixel of one axis.

    Args:
        start: float tensor of shape `(batch,)`. Where the box begins, as a fraction of the axis.
        extent: float tensor of shape `(batch,)`. How far it goes; negative walks backwards.
        num_outputs: int.
        num_inputs: int.

    Returns:
        float32 tensor of shape `(batch, num_outputs, num_inputs)`; rows sum to 1.
    """
    inputs = ops.cast(ops.arange(num_inputs, dtype="int32"), "float32") + 0.5
    num_inputs = ops.cast(num_inputs, "float32")
    outputs = (ops.arange(num_outputs, dtype="float32") + 0.5) / num_outputs
    centres = (ops.expand_dims(start, 1) + ops.expand_dims(extent, 1) * outputs) * num_inputs
    reach = ops.maximum(ops.abs(extent) * num_inputs / num_outputs, 1.0)
    distance = ops.abs(inputs - ops.expand_dims(centres, 2)) / ops.reshape(reach, (-1, 1, 1))
    weights = ops.maximum(1.0 - distance, 0.0)
    return weights / ops.sum(weights, axis=2, keepdims=True)
