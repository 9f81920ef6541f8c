"""`applications:resnet50` (101, 152), with `:FILE` for a weights file: the ResNet v1 of keras.applications.

Its stride sits on the first 1x1 convolution of a stage, which KerasHub's ResNet (v1.5) cannot hold.
"""

import contextlib
import os
from pathlib import Path

import keras
import numpy as np

from keras_dogs.models.weights import resnets
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.system.network import in_words
from keras_dogs.system.network import is_offline

_PREFIX = "applications:"
_NUM_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_CLASSES = {"resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152"}
# Caffe's mean pixel, RGB (keras.applications.imagenet_utils, mode "caffe"); no division by a standard deviation.
_MEAN_PIXEL = (123.68, 116.779, 103.939)
# The first batch norm's variance is of pixels in [-128, 128]: in a float16 file it may be too large, and infinite.
_LARGEST = float(np.finfo(np.float16).max)


def load(wanted: Wanted) -> Loaded:
    """Loads `applications:NAME[:FILE]`."""
    name, _, file = wanted.preset.removeprefix(_PREFIX).partition(":")
    if name not in _CLASSES:
        raise wanted.error(f"unknown model; choose one of {', '.join(_PREFIX + known for known in _CLASSES)}")
    if file and not Path(file).is_file():
        raise wanted.error(f"no such weights file: {file}")
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    cached = home / "models" / f"{name}_weights_tf_dim_ordering_tf_kernels.h5"
    if not file and wanted.load_weights and is_offline() and not cached.is_file():
        raise wanted.error(f"offline, and {cached} is not there; give its weights file, applications:{name}:FILE")
    size = wanted.image_size or (224, 224)
    build = getattr(keras.applications, _CLASSES[name])
    with _global_policy(wanted.dtype):
        backbone = build(include_top=False, weights=None, input_shape=(*size, 3))
    head, num_beyond = None, 0
    if wanted.load_weights:
        classifier = _load_classifier(wanted, build, file)
        for layer in backbone.layers:
            weights = classifier.get_layer(layer.name).get_weights() if layer.weights else []
            num_beyond += sum(int(np.isinf(weight).sum()) for weight in weights)
            layer.set_weights([np.where(np.isinf(weight), _LARGEST * np.sign(weight), weight) for weight in weights])
        _take_rgb(backbone.get_layer("conv1_conv"))
        head = Head(*classifier.get_layer("predictions").get_weights()) if wanted.with_head else None
    offset = tuple(-value for value in _MEAN_PIXEL)
    notes = (f"{num_beyond} weights are infinite, as float16 has no room for them: {_LARGEST:,.0f} is taken",)
    return Loaded(
        backbone,
        "resnet",
        size,
        (1.0, 1.0, 1.0),
        offset,
        "average",
        head,
        num_prefix=0,
        notes=notes if num_beyond else (),
    )


def shape_of(backbone: keras.Model) -> resnets.Shape:
    """Returns the blocks of a ResNet of keras.applications, by its name."""
    return resnets.Shape(_NUM_BLOCKS[backbone.name], "bottleneck_block")


def folded_weights(backbone: keras.Model) -> dict[str, np.ndarray]:
    """Returns all weights under the names of `resnets.weights`, as PyTorch's libraries hold them.

    The biases of convolutions become part of the means that batch norms subtract, and the batch norms' epsilon,
    1.001e-5, that of PyTorch: what is computed stays the same.
    """
    found = _folded("stem.conv", "stem.norm", backbone, "conv1")
    for stage, block, has_shortcut in resnets.blocks_of(shape_of(backbone)):
        ours, theirs = f"{stage}.{block}", f"conv{stage + 2}_block{block + 1}"
        if has_shortcut:
            found |= _folded(f"{ours}.shortcut", f"{ours}.shortcut.norm", backbone, f"{theirs}_0")
        for number in (1, 2, 3):
            found |= _folded(f"{ours}.conv{number}", f"{ours}.norm{number}", backbone, f"{theirs}_{number}")
    return found


def _folded(conv: str, norm: str, backbone: keras.Model, layer: str) -> dict[str, np.ndarray]:
    kernel, bias = backbone.get_layer(f"{layer}_conv").get_weights()
    normalisation = backbone.get_layer(f"{layer}_bn")
    gamma, beta, mean, variance = normalisation.get_weights()
    return {
        f"{conv}.kernel": kernel,
        f"{norm}.gamma": gamma,
        f"{norm}.beta": beta,
        f"{norm}.mean": mean - bias,
        f"{norm}.variance": variance + np.float32(normalisation.epsilon - resnets.TORCH_EPSILON),
    }


def _load_classifier(wanted: Wanted, build, file: str) -> keras.Model:
    try:
        return build(weights=file or "imagenet")
    except Exception as error:  # h5py, Keras and urllib each raise their own kinds
        what = f"{file} does not hold its weights" if file else "its weights could not be downloaded"
        raise wanted.error(f"{what}: {in_words(error)}") from error


def _take_rgb(convolution) -> None:
    """Folds the BGR order that the weights were trained with into the first kernel."""
    kernel, *rest = convolution.get_weights()
    convolution.set_weights([kernel[:, :, ::-1, :], *rest])


@contextlib.contextmanager
def _global_policy(dtype):
    """Sets the global dtype policy for a while: keras.applications takes no dtype."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
