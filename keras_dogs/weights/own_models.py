"""Our own models, to train further: a run folder or a `.keras` file that `save_classifier` wrote."""

from pathlib import Path

import keras

from keras_dogs.weights.loaded import Head
from keras_dogs.weights.loaded import Loaded
from keras_dogs.weights.loaded import Wanted

MODEL = "model.keras"


def find(preset: str) -> Path | None:
    """The model file that `preset` stands for, or `None`."""
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise wanted.error(f"not a classifier that keras_dogs saved: {reason}") from error
    backbone = next(layer for layer in classifier.layers if isinstance(layer, keras.Model))
    size = (crop.height, crop.width)
    family = family_of(backbone)
    if wanted.image_size not in (None, size) and family != "resnet":
        raise wanted.error(
            f"its positions are for {size[0]} x {size[1]}; give that --image-size, or train from its preset"
        )
    names = [layer.name for layer in classifier.layers]
    fc_norm = tuple(classifier.get_layer("fc_norm").get_weights()) if "fc_norm" in names else None
    loaded = Loaded(
        _with_policy(backbone, wanted),
        family,
        wanted.image_size or size,
        tuple(conversion.scale),
        tuple(conversion.offset),
        getattr(pooling, "kind", "average"),
        interpolation=crop.interpolation,
        num_prefix=getattr(pooling, "num_prefix", 0),
        fc_norm=fc_norm,
    )
    if not wanted.with_head:
        return loaded
    pre_logits = tuple(classifier.get_layer("pre_logits").get_weights()) if "pre_logits" in names else None
    return loaded._replace(head=Head(*head.get_weights(), head.class_names, pre_logits))


def family_of(backbone: keras.Model) -> str:
    """`"vit"`, `"deit"`, `"dinov2"`, `"dinov3"` or `"resnet"`."""
    name = type(backbone).__name__.lower()
    return next((family for family in ("deit", "dinov2", "dinov3", "vit") if family in name), "resnet")


def _with_policy(backbone: keras.Model, wanted: Wanted) -> keras.Model:
    """The backbone in the dtype policy that is asked for, and at random where no weights are."""
    policy = keras.dtype_policies.get(wanted.dtype or keras.config.dtype_policy())
    if backbone.dtype_policy.name == policy.name and wanted.load_weights:
        return backbone
    config = backbone.get_config()
    if "dtype" not in config:  # a plain functional model, of keras.applications
        return backbone
    again = type(backbone).from_config({**config, "dtype": policy.name})
    if wanted.load_weights:
        again.set_weights(backbone.get_weights())
    return again
