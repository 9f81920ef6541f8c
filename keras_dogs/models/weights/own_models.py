"""Our own models, to train further: a run folder or a `.keras` file that `save_classifier` wrote."""

import zipfile
from pathlib import Path

import keras

from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.models import families
from keras_dogs.models.initialization import no_initializers
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.runs import artifacts
from keras_dogs.system import reading

_KEYS_OF_ANY_NUMBER = ("seed", "shared_object_id")  # keys of a config whose numbers are not sizes, so that any will do
_ALWAYS_FINE = 10**6  # numbers up to this are accepted, however small the file of weights is


def read_model(file: Path) -> keras.Model:
    """Reads a classifier from a `.keras` file, after the archive and its architecture were checked.

    Raises:
        UserError: the file is missing, damaged, not of the run beside it, or no classifier that keras_dogs saved.
    """
    artifacts.check_belongs(file)
    try:
        with zipfile.ZipFile(file) as archive:
            reading.refuse_bomb(archive)
            sizes = {member.filename: member.file_size for member in archive.infolist()}
            config = reading.parse_json(archive.read("config.json"), dict, f"{file}: config.json")
        _check_numbers(file, config, most=max(_ALWAYS_FINE, sizes.get("model.weights.h5", 0)))
        with no_initializers():
            classifier = keras.saving.load_model(file, compile=False)
        for name in ("crop", "conversion", "pooling", "head"):
            classifier.get_layer(name)
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{file}: there is no such file") from error
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own kinds
        raise UserError(f"{file}: not a classifier that keras_dogs saved: {first_line(error)}") from error
    return classifier


def _check_numbers(file: Path, config, most: int, key: str = "") -> None:
    """Refuses an architecture with a number too large for the weights in the file.

    Args:
        file: Path.
        config: a JSON value.
        most: int. Size of the weights in bytes: a layer with more units than that could not have its weights there.
        key: str. The key under which `config` was found.
    """
    if isinstance(config, dict):
        for name, value in config.items():
            _check_numbers(file, value, most, name)
    elif isinstance(config, list):
        for value in config:
            _check_numbers(file, value, most, key)
    elif isinstance(config, int) and abs(config) > most and key not in _KEYS_OF_ANY_NUMBER:
        raise UserError(f"{file}: damaged: {key} is {config:,} in a file whose weights take {most:,} bytes")


def load(wanted: Wanted, file: Path) -> Loaded:
    """Takes the backbone out of a classifier, with the conversion and pooling around it."""
    classifier = read_model(file)
    crop, conversion, pooling, head = (classifier.get_layer(name) for name in ("crop", "conversion", "pooling", "head"))
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
        what = "its size and precision" if wanted.load_weights else "its weights"
        raise wanted.error(f"a run from applications: keeps {what}; train from its preset again for others")
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
