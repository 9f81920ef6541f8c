"""What every source of weights gives back."""

from typing import NamedTuple

import keras
import numpy as np


class Loaded(NamedTuple):
    """A backbone with what its weights expect around it.

    Attributes:
        backbone: `keras.Model`. Pictures `(batch, height, width, 3)`, converted, to tokens or a feature map.
        family: str. `"vit"`, `"deit"`, `"dinov2"` or `"resnet"`.
        image_size: int. The side of the pictures that `backbone` takes.
        scale: tuple of 3 floats. What pixels in [0, 255] are multiplied by, a channel.
        offset: tuple of 3 floats. What is added then.
        pooling: str. `"token"` or `"average"`.
        head: `(kernel, bias)` of the source's own classifier, or `None` where it has none.
    """

    backbone: keras.Model
    family: str
    image_size: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    pooling: str
    head: tuple[np.ndarray, np.ndarray] | None = None
