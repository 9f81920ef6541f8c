"""Name the breeds in pictures, from a trained model file alone."""

import functools
import glob
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import NamedTuple

import numpy as np

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.data.datasets.pictures import files_in
from keras_dogs.data.datasets.pictures import is_picture
from keras_dogs.errors import UserError
from keras_dogs.evaluation.scoring import log_softmax

if TYPE_CHECKING:  # an exported model is asked without Keras
    import keras


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


def predict_pictures(classifier: "keras.Model", files, top_k: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
    """Classifies picture files, a batch at a time, and yields a `Prediction` a file in order.

    Args:
        classifier: `keras.Model` that `load_classifier` gave.
        files: sequence of Path.
        top_k: int. How many breeds a picture.
        batch_size: int.
    """
    ask = functools.partial(_probabilities, classifier)
    return name_pictures(ask, classifier.canvas, class_names_of(classifier), files, top_k, batch_size)


def name_pictures(
    ask: Callable, canvas: dict, class_names, files, top_k: int = 5, batch_size: int = 32
) -> Iterator[Prediction]:
    """Names what is in picture files, by whoever gives probabilities; yields a `Prediction` a file in order.

    Args:
        ask: function of uint8 canvases `(batch, rows, columns, 3)` to probabilities `(batch, num_classes)`.
        canvas: dict. How files become canvases: arguments of `to_canvas`.
        class_names: sequence of str.
        files: sequence of Path.
        top_k: int.
        batch_size: int.
    """
    # A power of two: few sizes to compile for, whatever the number of files.
    batch_size = min(batch_size, 1 << max(len(files) - 1, 0).bit_length())
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        opened = [_open(file, canvas) for file in chunk]
        read = [picture for picture, _ in opened if picture is not None]
        rows = iter(ask(_filled_up(read, batch_size))[: len(read)] if read else ())
        for file, (picture, error) in zip(chunk, opened):
            yield Prediction(file, () if picture is None else _most_probable(next(rows), class_names, top_k), error)


def class_names_of(classifier: "keras.Model") -> list[str]:
    """Returns the names kept in the head, or numbers where it has none."""
    head = classifier.head
    return head.class_names or [f"class {index}" for index in range(head.units)]


def _open(file: Path, how: dict):
    try:
        return to_canvas(open_picture(file), **how), None
    except UnreadablePicture as error:
        return None, str(error)


def _filled_up(canvases: list, batch_size: int) -> np.ndarray:
    """Returns a whole batch, so that a last or thinned one compiles nothing new."""
    return np.stack(canvases + [canvases[0]] * (batch_size - len(canvases)))


def _probabilities(classifier, canvases: np.ndarray) -> np.ndarray:
    from keras_dogs.data.loaders.batches import predict_in_batches

    logits, _ = predict_in_batches(classifier, canvases, len(canvases))
    return np.exp(log_softmax(logits))


def _most_probable(probabilities, names, top_k: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple((names[index], float(probabilities[index])) for index in order)
