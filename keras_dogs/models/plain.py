"""Rebuilds a classifier from stock Keras and KerasHub layers, without any class of ours: every export starts here."""

import keras
import numpy as np
from keras import ops

from keras_dogs.backends import keras_inside
from keras_dogs.errors import UserError
from keras_dogs.layers import boxes
from keras_dogs.layers.resampling import resample_boxes
from keras_dogs.models.initialization import no_initializers

LOGITS, PROBABILITIES = "logits", "probabilities"


@no_initializers()
def in_float32(classifier: keras.Model) -> keras.Model:
    """Returns a classifier with the same weights whose layers all compute in float32."""
    again = type(classifier).from_config(_with_float32(classifier.get_config()))
    again.set_weights(classifier.get_weights())
    return again


def plain_classifier(classifier: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Builds a classifier's inference model from stock Keras and KerasHub layers, without the training augmentation.

    Everything is computed in float32, whatever the dtype policy in training was.

    Args:
        classifier: `keras.Model` that `load_classifier` gave.
        temperature: float. What logits are divided by before the softmax.

    Returns:
        `keras.Model` from canvases, uint8 `(batch, rows, columns, 3)`, to a dict of float32 tensors
        `(batch, num_classes)`: `"logits"` and `"probabilities"`.
    """
    canvases, logits = _infer(classifier, "uint8")
    calibrated = keras.layers.Rescaling(1 / temperature, dtype="float32", name="calibration")(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name=PROBABILITIES)(calibrated)
    return keras.Model(canvases, {LOGITS: logits, PROBABILITIES: probabilities}, name="classifier")


def plain_logits(classifier: keras.Model) -> keras.Model:
    """Builds the same from canvases in float32 to logits, `(batch, num_classes)`: one input and one output."""
    canvases, logits = _infer(classifier, "float32")
    return keras.Model(canvases, logits, name="classifier")


def canvas_shape(classifier: keras.Model) -> tuple[int, int, int]:
    """Returns rows, columns and channels of a canvas."""
    size = classifier.canvas_size
    return (*size, 3) if isinstance(size, (tuple, list)) else (size, size, 3)


@no_initializers()
def _infer(classifier: keras.Model, dtype: str):
    """Returns the input and the logits of a classifier's inference."""
    canvases = keras.Input(canvas_shape(classifier), dtype=dtype, name="canvases")
    pixels = canvases
    if dtype != "float32":
        pixels = keras.layers.Rescaling(1.0, dtype="float32", name="as_floats")(canvases)
    pixels = _crop(classifier.get_layer("crop"), pixels)
    conversion = classifier.get_layer("conversion")
    scale, offset = (np.array(each, "float32").tolist() for each in (conversion.scale, conversion.offset))
    pixels = keras.layers.Rescaling(scale, offset, dtype="float32", name="conversion")(pixels)
    backbone = _in_float32(classifier.backbone)
    named = backbone.input
    features = backbone(dict.fromkeys(named, pixels) if isinstance(named, dict) else pixels)
    features = _pool(classifier.get_layer("pooling"), features)
    for name in ("fc_norm", "pre_logits"):
        if any(layer.name == name for layer in classifier.layers):
            features = _copied(classifier.get_layer(name), features)
    head = classifier.head
    dense = keras.layers.Dense(head.units, dtype="float32", name=LOGITS)
    logits = dense(features)
    dense.set_weights(head.get_weights())
    return canvases, logits


def _crop(crop, pixels):
    """Resamples the middle of the canvas to what the backbone sees, along rows and along columns, as `crop` does."""
    rows, columns = pixels.shape[1:3]
    if crop.evaluation_scale == 1.0 and (rows, columns) == (crop.height, crop.width):
        return pixels
    for equation, size, wanted, shape, name in (
        ("bhwc,ho->bowc", rows, crop.height, (crop.height, columns, 3), "crop_rows"),
        ("bhwc,wo->bhoc", columns, crop.width, (crop.height, crop.width, 3), "crop_columns"),
    ):
        layer = keras.layers.EinsumDense(equation, shape, dtype="float32", name=name)
        pixels = layer(pixels)
        layer.set_weights([_resampling(crop, size, wanted)])
    if crop.interpolation == "bilinear":
        return pixels
    return keras.layers.ReLU(max_value=255.0, dtype="float32", name="crop_clip")(pixels)


def _resampling(crop, size: int, wanted: int) -> np.ndarray:
    """Returns the resampling matrix `(size, wanted)` of one axis, by resampling the rows of an identity matrix."""
    side = round(crop.evaluation_scale * boxes.SIDE)
    lines = ops.convert_to_tensor(np.eye(size, dtype="float32")[None])
    start, extent = (ops.convert_to_tensor(np.array([each], "int32")) for each in ((boxes.SIDE - side) // 2, side))
    return ops.convert_to_numpy(resample_boxes(lines, start, extent, wanted, crop.interpolation))[0].T


def _pool(pooling, features):
    if not hasattr(pooling, "kind"):
        return keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooling")(features)
    if pooling.kind == "own":
        return features
    if pooling.kind == "average_of_tokens":
        return keras.layers.GlobalAveragePooling1D(dtype="float32", name="pooling")(features)
    tokens, prefix = features.shape[1], pooling.num_prefix
    parts = []
    if pooling.kind != "average_of_patches":
        kept = 2 if pooling.kind == "two_tokens" else 1
        first = keras.layers.Cropping1D((0, tokens - kept), dtype="float32", name="first_tokens")(features)
        parts.append(keras.layers.Flatten(dtype="float32", name="token")(first))
    if pooling.kind in ("average_of_patches", "token_and_average"):
        patches = keras.layers.Cropping1D((prefix, 0), dtype="float32", name="patches")(features)
        parts.append(keras.layers.GlobalAveragePooling1D(dtype="float32", name="average")(patches))
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(dtype="float32", name="pooling")(parts)


def _copied(layer, features):
    again = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    features = again(features)
    again.set_weights(layer.get_weights())
    return features


def _in_float32(backbone: keras.Model) -> keras.Model:
    """Returns the backbone anew, without drop-path, with all its layers in float32."""
    config = _with_float32(backbone.get_config())
    if hasattr(backbone, "as_stock"):
        again = backbone.as_stock(config)
    else:
        again = type(backbone).from_config(config)
        again.set_weights(backbone.get_weights())
    again.trainable = False
    return again


def _with_float32(config):
    """Returns a config in which every dtype policy is float32."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _with_float32(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_with_float32(value) for value in config]
    return config


def check_stock(model: keras.Model) -> None:
    """Refuses a model that has a layer which Keras or KerasHub alone could not load.

    Raises:
        UserError: it names the layer's class.
    """
    for layer in keras_inside.layers_of(model):
        if type(layer).__module__.split(".")[0] not in ("keras", "keras_hub"):
            raise UserError(
                f"--format keras: KerasHub has no {type(layer).__name__}, which these weights need; choose another"
            )
