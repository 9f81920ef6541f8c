"""Dropout and drop-path with counter-based draws: the same units fall out on every backend."""

import functools

import keras
import numpy as np
from keras import ops

from keras_dogs.backends import keras_inside
from keras_dogs.backends import register
from keras_dogs.layers import draws
from keras_dogs.layers.draw_keys import DrawKeys
from keras_dogs.layers.draw_keys import RandomLayer


@keras.saving.register_keras_serializable(package="keras_dogs")
class CountedDropout(RandomLayer):
    """Dropout: sets each feature to zero with probability `rate`, and divides the rest by `1 - rate`.

    Args:
        rate: float in [0, 1).
        seed, stream: int. See `RandomLayer`.

    Input: float features `(batch, size)`; and keys, or not. Output: the same shape and type.
    """

    kind = 7

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def augment(self, images, keys):
        dropped = draws.is_below(draws.grid_bits(keys, self.draw_stream(0), images.shape[1]), self.rate)
        return ops.where(dropped, 0.0, images / (1 - self.rate))

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor(images.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


class DropPath(keras.layers.Layer):
    """Drop-path, or stochastic depth (Huang et al., arXiv 1603.09382): leaves a residual branch out of some pictures.

    It works inside a backbone, where the keys of the graph do not come.

    Args:
        rate: float in [0, 1). The share of pictures.
        keys: function of no argument to the keys of the batch: `DrawKeys.latest` of the model's counter.
        stream: int. Which branch of the backbone this is.

    Input: float `(batch, ...)`. Output: the same shape and type.
    """

    def __init__(self, rate, keys, stream, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.keys, self.stream = rate, keys, stream

    def call(self, branch, training=False):
        if not training:
            return branch
        kept = draws.bernoulli(self.keys(), _DROP_PATH_STREAMS + self.stream, 1 - self.rate)
        factor = ops.where(kept, np.float32(1 / (1 - self.rate)), np.float32(0))
        return branch * ops.cast(ops.reshape(factor, (-1,) + (1,) * (len(branch.shape) - 1)), branch.dtype)


def drop_paths(backbone: keras.Model, block: str, branch_ends: tuple, rate: float, counter: DrawKeys) -> None:
    """Puts drop-path on the residual branches of a KerasHub ViT, DeiT or DINOv2, from outside.

    Args:
        backbone: `keras.Model`.
        block: str. The class of its blocks.
        branch_ends: tuple of str. The layers of a block with which its branches end.
        rate: float in [0, 1). The share of pictures that skip the last block's branches.
        counter: `DrawKeys` of the model.

    The rate rises with the depth from 0 to `rate`, as in DeiT and timm. Nothing is added to what a file holds: a model
    that is loaded again has no drop-path until this is called. (KerasHub has one for DINOv2 alone, which scales the
    branch at random instead of dropping it.)

    Raises:
        ValueError: the backbone has no such blocks.
    """
    branches = [[getattr(each, name) for name in branch_ends] for each in blocks_of(backbone, block)]
    if not branches:
        raise ValueError(f"{backbone.name} has no residual branches that drop-path knows")
    for depth, ends in enumerate(branches):
        for number, end in enumerate(ends):
            end = getattr(end, "dropout", end) if type(end).__name__ == "DeiTOutput" else end
            block_rate = rate * depth / max(len(branches) - 1, 1)
            _append(end, DropPath(block_rate, counter.latest, 2 * depth + number, dtype=end.dtype_policy))


def blocks_of(model: keras.Model, *classes: str) -> list[keras.layers.Layer]:
    """Returns the blocks of a backbone, of classes of these names, the first one first; none in other models."""
    held = (
        [part for part in keras_inside.parts_of(layer) if type(part).__name__ in classes]
        for layer in keras_inside.layers_of(model)
    )
    return next(filter(None, held), [])


def _append(layer: keras.layers.Layer, then: keras.layers.Layer) -> None:
    """Makes `then` a part of what `layer` does."""
    before = layer.call
    followed = functools.wraps(before)(lambda *args, **kwargs: then(before(*args, **kwargs)))
    register.replace(layer, "call", followed, "drop_path", register.FEATURE)


_DROP_PATH_STREAMS = 2**16  # beyond those of any `RandomLayer`
