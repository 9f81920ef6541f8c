"""Writes the folder of a library of models from a classifier, and the pixels by which the library is checked."""

import json
from pathlib import Path

import keras
import numpy as np

from keras_dogs.models.submodels import image_pipeline
from keras_dogs.models.weights import own_models
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.models.weights.writers import hugging_face
from keras_dogs.models.weights.writers import keras_hub
from keras_dogs.models.weights.writers import timm
from keras_dogs.models.weights.writers import written

PIXELS = "pixels.npz"
_NUM_PIXELS = 32  # pictures; 19 MB at 224
_OF_TENSORS = {"transformers": hugging_face.write, "timm": timm.write}


def write(library: str, model: Path, class_names: list[str], canvas: dict, folder: Path) -> tuple[str, ...]:
    """Writes the library's files.

    Args:
        library: str. `"transformers"`, `"timm"` or `"keras_hub"`.
        model: Path. The `.keras` file.
        class_names: list of str.
        canvas: dict. How files become canvases.
        folder: Path. It exists.

    Returns:
        What the library cannot hold as it is here, in words.

    Raises:
        UserError: the library has no such model.
    """
    loaded = own_models.load(Wanted(str(model), dtype="float32", with_head=True), model)
    canvas = written.Canvas(canvas["size"], canvas["fit"], canvas["interpolation"])
    if library == "keras_hub":
        return keras_hub.write(loaded, class_names, folder, canvas)
    made = _OF_TENSORS[library](loaded, class_names, canvas)
    for name, content in made.configs.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    written.write_tensors(folder / "model.safetensors", made.tensors)
    return made.notes


def save_pixels(classifier: keras.Model, canvases: np.ndarray, file: Path) -> None:
    """Saves what the backbone sees of the first canvases: float32 `(num_pictures, rows, columns, 3)`."""
    pixels = image_pipeline(classifier)(canvases[:_NUM_PIXELS], training=False)
    np.savez(file, pixels=np.asarray(keras.ops.convert_to_numpy(pixels), np.float32))
