"""Writes a preset that stock KerasHub reads, `keras_hub.models.ImageClassifier.from_preset`: ViT, DeiT and ResNet."""

from pathlib import Path

import keras_hub
import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.models import families
from keras_dogs.models.initialization import no_initializers
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.writers import written
from keras_dogs.models.weights.writers.written import Canvas

_POOLINGS = {
    "token": {"pooling": "token"},
    "average_of_tokens": {"pooling": "gap"},
    "average": {"pooling": "avg"},
}


def write(loaded: Loaded, class_names: list[str], folder: Path, canvas: Canvas) -> tuple[str, ...]:
    """Writes the preset: backbone, task, preprocessor.

    Args:
        loaded: `Loaded`, in float32, with its head.
        class_names: list of str, in the order of the logits.
        folder: Path. It exists.
        canvas: `Canvas`.

    Returns:
        What KerasHub cannot hold as it is here, in words.

    Raises:
        UserError: KerasHub has no such classifier.
    """
    if any("\n" in name for name in class_names):
        raise UserError("KerasHub's folder has the names of classes as lines, and one of them has a line break")
    classes, pooling = _classes(loaded), _pooling(loaded)
    deep = {"intermediate_dim": loaded.head.pre_logits[0].shape[1]} if loaded.head.pre_logits else {}
    if deep and loaded.family != "vit":
        raise UserError(f"KerasHub's {loaded.family} has no place for the layer before the head of these weights")
    converter = classes["ImageConverter"](
        image_size=tuple(loaded.image_size),
        scale=list(loaded.scale),
        offset=list(loaded.offset),
        interpolation=canvas.interpolation,
        antialias=True,
        crop_to_aspect_ratio=canvas.fit == "crop",
        pad_to_aspect_ratio=canvas.fit == "pad",
    )
    with no_initializers():
        task = classes["ImageClassifier"](
            backbone=loaded.backbone,
            num_classes=len(loaded.head.bias),
            preprocessor=classes["ImageClassifierPreprocessor"](image_converter=converter),
            **pooling,
            **deep,
        )
    if deep:
        task.intermediate_layer.set_weights(loaded.head.pre_logits)
    task.output_dense.set_weights([np.asarray(value) for value in loaded.head[:2]])
    task.save_to_preset(str(folder))
    return (
        *written.resize_note(loaded, canvas, "KerasHub"),
        "KerasHub keeps no names of classes: they are in labels.txt, in the order of the logits",
    )


def _classes(loaded: Loaded) -> dict[str, type]:
    """Returns KerasHub's classifier, preprocessor and converter of a family, by the ends of their names."""
    row = families.family(loaded.family)
    ends = ("ImageClassifier", "ImageClassifierPreprocessor", "ImageConverter")
    stem = row.classes[0].removesuffix("Backbone")
    found = {end: getattr(keras_hub.layers if end == ends[2] else keras_hub.models, stem + end, None) for end in ends}
    if None in found.values():
        raise UserError(f"KerasHub has no image classifier of this family ({loaded.family})")
    if type(loaded.backbone).__module__.split(".")[0] != "keras_hub":
        what = "ResNet v1, as keras.applications has it" if loaded.family == "resnet" else "ViT with these switches"
        raise UserError(f"KerasHub has no {what}")
    return found


def _pooling(loaded: Loaded) -> dict:
    kind = loaded.pooling
    if kind == "average_of_patches" and not loaded.num_prefix:
        kind = "average_of_tokens"  # there are no others
    if loaded.fc_norm is not None:
        raise UserError("KerasHub has no norm between pooling and head, which these weights have")
    if kind not in _POOLINGS or (kind == "average_of_tokens" and loaded.family != "vit"):
        raise UserError(f"KerasHub has no {loaded.family} with this pooling ({kind})")
    return _POOLINGS[kind]
