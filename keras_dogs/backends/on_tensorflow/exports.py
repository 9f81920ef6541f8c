"""A plain Keras model as a SavedModel of TensorFlow, and from it as LiteRT, for any batch size."""

import io
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def write_saved_model(model: keras.Model, folder: Path, class_names: list[str]) -> None:
    """Writes a SavedModel, whose signature `serving_default` gives logits and probabilities.

    Keras' own export writes each variable twice (Keras 3.15: ViT-S/16 takes 168 instead of 84 MiB).
    """
    (given,) = model.inputs
    signature = tf.TensorSpec(given.shape, given.dtype, name=given.name)
    module = tf.Module()
    module.held = [variable.value for variable in model.variables]
    module.serve = tf.function(lambda canvases: model(canvases, training=False), input_signature=[signature])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    (folder / "assets.extra").mkdir()  # where TensorFlow Serving's users keep what is theirs
    (folder / "assets.extra" / "class_names.json").write_text(json.dumps(class_names), "utf-8")


def litert_of(saved_model: Path, float16: bool = False) -> bytes:
    """Returns a SavedModel as a LiteRT file of built-in operators alone."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def litert_of_int8(saved_model: Path, canvases: np.ndarray) -> bytes:
    """Returns a SavedModel as a LiteRT file in 8-bit integers, with the ranges that these canvases have in it."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([canvas[None]] for canvas in canvases)
    return converter.convert()


def with_class_names(content: bytes, class_names: list[str]) -> bytes:
    """Returns a LiteRT file with a zip archive after it, as LiteRT's own metadata have their files."""
    file = io.BytesIO()
    file.write(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("class_names.json", json.dumps(class_names))
    return file.getvalue()
