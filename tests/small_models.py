"""Presets of one block or two, for tests whose subject is not the model: compilation is most of a training's time."""

import functools
import os
import tempfile

import keras_hub
import numpy as np

from keras_dogs.models import initialization

_BACKBONES = {
    "resnet": lambda: keras_hub.models.ResNetBackbone(
        [64], [7], [64], [1], [1], "basic_block", image_shape=(64, 64, 3)
    ),
    "vit": lambda: keras_hub.models.ViTBackbone((32, 32, 3), 8, 2, 2, 16, 32),
    "deit": lambda: keras_hub.models.DeiTBackbone((32, 32, 3), 8, 2, 2, 16, 32),
    "dinov2": lambda: keras_hub.models.DINOV2Backbone(8, 2, 16, 2, 32, image_shape=(32, 32, 3)),
}


@functools.cache
def preset(family: str) -> str:
    """Returns a folder with fixed random weights; it is deleted with the session's cache."""
    folder = tempfile.mkdtemp(prefix=f"small_{family}_", dir=os.environ["KERAS_DOGS_CACHE"])
    with initialization.no_initializers():
        backbone = _BACKBONES[family]()
    generator = np.random.default_rng(0)
    for weight in backbone.weights:
        noise = generator.normal(0, 0.2, weight.shape)
        weight.assign(1 + np.abs(noise) if weight.path.endswith(("gamma", "variance")) else noise)
    backbone.save_to_preset(folder)
    return folder
