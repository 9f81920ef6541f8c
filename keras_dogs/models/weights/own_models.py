"""Our own models, to train further: a run folder or a `.keras` file that `save_classifier` wrote."""

from pathlib import Path

import keras

from keras_dogs.errors import first_line
from keras_dogs.models import families
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted

MODEL = "model.keras"


def find(preset: str) -> Path | None:
    """Returns the model file that `preset` stands for, or `None`."""
    path = Path(preset)
    if path.suffix == ".keras" and path.is_file():
        return path
    return path / MODEL if (path / MODEL).is_file() else None


def load(wanted: Wanted, file: Path) -> Loaded:
    """Takes the backbone out of a classifier, with the conversion and pooling around it."""
    try:
        classifier = keras.saving.load_model(file, compile=False)
        crop, conversion, pooling, head = (
            classifier.get_layer(name) for name in ("crop", "conversion", "pooling", "head")
        )
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own kinds
        raise wanted.error(f"not a classifier that keras_dogs saved: {first_line(error)}") from error
    backbone = next(layer for layer in classifier.layers if isinstance(layer, keras.Model))
    backbone.trainable = True  # a linear probe saved it frozen
    family, size = families.of_backbone(backbone).name, (crop.height, crop.width)
    num_prefix = getattr(pooling, "num_prefix", 0)
    names = [layer.name for layer in classifier.layers]
    loaded = Loaded(
        _as_wanted(wanted, backbone, family, num_prefix, size),
        family,
        wanted.image_size or size,
        tuple(conversion.scale),
        tuple(conversion.offset),
        getattr(pooling, "kind", "average"),
        interpolation=crop.interpolation,
        num_prefix=num_prefix,
        fc_norm=tuple(classifier.get_layer("fc_norm").get_weights()) if "fc_norm" in names else None,
    )
    if not wanted.with_head:
        return loaded
    pre_logits = tuple(classifier.get_layer("pre_logits").get_weights()) if "pre_logits" in names else None
    return loaded._replace(head=Head(*head.get_weights(), head.class_names, pre_logits))


def _as_wanted(wanted: Wanted, backbone: keras.Model, family: str, num_prefix: int, size) -> keras.Model:
    """Returns the backbone in the size and dtype policy asked for, with random weights if none are wanted."""
    policy = keras.dtype_policies.get(wanted.dtype or keras.config.dtype_policy()).name
    is_same_size = wanted.image_size in (None, size)
    if is_same_size and backbone.dtype_policy.name == policy and wanted.load_weights:
        return backbone
    config = backbone.get_config()
    if "image_shape" not in config:
        raise wanted.error(
            "a run from applications: keeps its size and precision; train from its preset again for others"
        )
    if backbone.dtype_policy.name != policy or not wanted.load_weights:
        again = type(backbone).from_config({**config, "dtype": policy})
        if wanted.load_weights:
            again.set_weights(backbone.get_weights())
        backbone = again
    if is_same_size:
        return backbone
    row = families.family(family)
    if row.resizing == "nothing":
        again = type(backbone).from_config({**backbone.get_config(), "image_shape": (*wanted.image_size, 3)})
        again.set_weights(backbone.get_weights())
        return again
    # Some ViTs have no class token; registers have no positions.
    with_positions = min(num_prefix, row.num_positions_before)
    return vits.resized(backbone, family, wanted.image_size, with_positions, wanted.positions or "bicubic")
