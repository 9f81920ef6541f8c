"""Name the breeds in pictures, from a trained model file alone."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_dogs.data.datasets.pictures import UnreadablePicture
from keras_dogs.data.datasets.pictures import files_in
from keras_dogs.data.datasets.pictures import is_picture
from keras_dogs.data.datasets.pictures import open_picture
from keras_dogs.data.datasets.pictures import to_canvas
from keras_dogs.data.loaders.batches import predict_in_batches
from keras_dogs.errors import UserError
from keras_dogs.evaluation.scoring import log_softmax


class Prediction(NamedTuple):
    """What a classifier says of one picture.

    Attributes:
        file: Path.
        breeds: tuple of `(class_name, probability)`, most probable first; empty if the picture is unreadable.
        error: str or `None`. Why it is unreadable.
    """

    file: Path
    breeds: tuple[tuple[str, float], ...]
    error: str | None = None


def find_pictures(patterns) -> list[Path]:
    """Finds picture files from files, folders (searched in depth) and globs, in the order given, each once.

    Raises:
        UserError: a folder or glob holds no picture. A file that does not exist is left to be reported as unreadable.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = sorted(filter(is_picture, files_in(path)))
        elif path.exists() or not glob.has_magic(pattern):
            files = [path]
        else:
            files = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
        if not files:
            raise UserError(f"{pattern}: no pictures found")
        found.update(dict.fromkeys(files))
    return list(found)


def predict_pictures(classifier: keras.Model, files, top_k: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
    """Classifies picture files, a batch at a time, and yields a `Prediction` a file in order.

    Args:
        classifier: `keras.Model` that `load_classifier` gave.
        files: sequence of Path.
        top_k: int. How many breeds a picture.
        batch_size: int.
    """
    how, names = classifier.canvas, class_names_of(classifier)
    # A power of two: few sizes to compile for, whatever the number of files.
    batch_size = min(batch_size, 1 << max(len(files) - 1, 0).bit_length())
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        opened = [_open(file, how) for file in chunk]
        canvases = [canvas for canvas, _ in opened if canvas is not None]
        rows = iter(_probabilities(classifier, canvases, batch_size))
        for file, (canvas, error) in zip(chunk, opened):
            yield Prediction(file, () if canvas is None else _most_probable(next(rows), names, top_k), error)


def class_names_of(classifier: keras.Model) -> list[str]:
    """Returns the names kept in the head, or numbers where it has none."""
    head = classifier.head
    return head.class_names or [f"class {index}" for index in range(head.units)]


def _open(file: Path, how: dict):
    try:
        return to_canvas(open_picture(file), **how), None
    except UnreadablePicture as error:
        return None, str(error)


def _probabilities(classifier, canvases, batch_size) -> np.ndarray:
    if not canvases:
        return np.empty((0, 0))
    # Filled up to whole batches, so that a last or thinned batch compiles nothing new.
    num_real = len(canvases)
    canvases = canvases + [canvases[0]] * (batch_size - num_real)
    logits, _ = predict_in_batches(classifier, np.stack(canvases), batch_size)
    return np.exp(log_softmax(logits[:num_real]))


def _most_probable(probabilities, names, top_k: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple((names[index], float(probabilities[index])) for index in order)
