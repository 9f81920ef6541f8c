"""What every source of weights is asked for, and what it gives back."""

from typing import NamedTuple

import keras
import numpy as np

from keras_dogs.errors import UserError


class Wanted(NamedTuple):
    """What is asked of a source.

    Attributes:
        preset: str. What the user named.
        image_size: pair of ints or `None`. Rows and columns of pixels; `None` is the checkpoint's own.
        load_weights: bool. `False` for the architecture alone, at random.
        dtype: str or `keras.DTypePolicy` or `None`. The backbone's policy.
        with_head: bool. The source's own classifier is wanted too.
        positions: str or `None`. A method of `resample_positions`; `None` is the source's own.
    """

    preset: str
    image_size: tuple[int, int] | None = None
    load_weights: bool = True
    dtype: object = None
    with_head: bool = False
    positions: str | None = None

    def error(self, what: str) -> UserError:
        """Returns a `UserError` about this preset."""
        return UserError(f"--preset {self.preset}: {what}")


class Head(NamedTuple):
    """A source's own classifier.

    Attributes:
        kernel: float array `(features, num_classes)`.
        bias: float array `(num_classes,)`.
        class_names: list of str or `None`.
        pre_logits: `(kernel, bias)` of a layer with tanh before it (the first ViTs of ImageNet-21k), or `None`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    class_names: list[str] | None = None
    pre_logits: tuple[np.ndarray, np.ndarray] | None = None


class Loaded(NamedTuple):
    """A backbone with what its weights expect around it.

    Attributes:
        backbone: `keras.Model`. Pictures `(batch, height, width, 3)`, converted, to tokens or a feature map.
        family: str. `"vit"`, `"deit"`, `"dinov2"`, `"dinov3"` or `"resnet"`.
        image_size: pair of ints. Rows and columns of the pictures that `backbone` takes.
        scale: tuple of 3 floats. What pixels in [0, 255] are multiplied by, a channel.
        offset: tuple of 3 floats. What is added then.
        pooling: str. How one vector comes out of the backbone: `"average"` of a feature map, or one of `TokenPooling`.
        head: `Head` or `None` where there is none or none was asked for.
        interpolation: str. `"bilinear"` or `"bicubic"`: how pictures were resized for the weights.
        num_prefix: int. Tokens before those of the patches.
        fc_norm: `(gamma, beta)` of a norm after the pooling, or `None`.
        ignored: tuple of str. Tensors of the checkpoint that have no place here.
        notes: tuple of str. What else the user should know.
    """

    backbone: keras.Model
    family: str
    image_size: tuple[int, int]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    pooling: str
    head: Head | None = None
    interpolation: str = "bilinear"
    num_prefix: int = 1
    fc_norm: tuple[np.ndarray, np.ndarray] | None = None
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def conversion_of(mean, std, rescale: float = 1 / 255) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns scale and offset from mean and standard deviation of pixels that were multiplied by `rescale`."""
    return tuple(rescale / value for value in std), tuple(-m / s for m, s in zip(mean, std))
