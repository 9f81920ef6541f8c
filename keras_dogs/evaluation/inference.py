"""Name the breeds in pictures, from a trained model file alone."""

import collections
import glob
import itertools
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.data.datasets.opening import to_rgb
from keras_dogs.data.datasets.pictures import HEIF_HINT
from keras_dogs.data.datasets.pictures import HEIF_SUFFIXES
from keras_dogs.data.datasets.pictures import files_in
from keras_dogs.data.datasets.pictures import is_picture
from keras_dogs.data.datasets.pictures import reads_heif
from keras_dogs.errors import UserError
from keras_dogs.evaluation import answers
from keras_dogs.evaluation import calibration as calibrations
from keras_dogs.runs.records import Calibration
from keras_dogs.system import progress

if TYPE_CHECKING:  # an exported model is asked without Keras
    import keras


class Answer(NamedTuple):
    """What a classifier says of one picture.

    Attributes:
        breeds: tuple of `(class_name, probability)`, most probable first, calibrated where the run has a temperature.
        breed_set: tuple of str, most probable first, or `None` where no coverage was asked for: the breeds among which
            the right one is with that probability, on average over pictures like those of validation.
        unfamiliarity: float in [0, 1], or `None` where it is not known: the share of the validation pictures that are
            more familiar.
    """

    breeds: tuple[tuple[str, float], ...]
    breed_set: tuple[str, ...] | None = None
    unfamiliarity: float | None = None

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the picture is of a kind that the classifier has not seen, as far as can be told."""
        return self.unfamiliarity is not None and self.unfamiliarity > answers.UNFAMILIAR

    def to_plain(self) -> dict:
        """Returns what JSON can hold; what is not known is left out."""
        plain = {"breeds": dict(self.breeds)}
        if self.breed_set is not None:
            plain["set"] = list(self.breed_set)
        if self.unfamiliarity is not None:
            plain |= {"unfamiliarity": self.unfamiliarity, "unfamiliar": self.is_unfamiliar}
        return plain


class Prediction(NamedTuple):
    """The outcome for one picture: an `Answer`, or the reason why the picture is unreadable.

    Attributes:
        file: what was given: a path, a `PIL.Image.Image` or an array.
        breeds: tuple of `(class_name, probability)`, most probable first; empty if the picture is unreadable.
        error: str or `None`. Why it is unreadable.
        answer: `Answer` or `None` if it is unreadable.
    """

    file: Any
    breeds: tuple[tuple[str, float], ...]
    error: str | None = None
    answer: Answer | None = None


class AnswerSettings(NamedTuple):
    """How logits become answers.

    Attributes:
        class_names: sequence of str.
        calibration: `Calibration`.
        top_k: int. How many breeds a picture.
        coverage: float or `None`. Of the sets.
    """

    class_names: Sequence[str]
    calibration: Calibration = calibrations.NONE
    top_k: int = 5
    coverage: float | None = None

    def check(self) -> float | None:
        """Returns the threshold of the sets, or `None` where none are asked for.

        Raises:
            UserError: the run has too few validation pictures for the coverage.
        """
        return None if self.coverage is None else calibrations.check_coverage(self.coverage, self.calibration)

    def answers_to(self, logits: np.ndarray) -> list[Answer]:
        """Returns an `Answer` a row of logits `(num_pictures, num_classes)`.

        Raises:
            UserError: the run has too few validation pictures for the coverage.
        """
        found, threshold = self.calibration, self.check()
        probabilities = answers.probabilities_of(logits, found.temperature)
        strange = [None] * len(probabilities)
        if found.strangeness_percentiles:
            strange = answers.unfamiliarity_of(logits, found.strangeness_percentiles).tolist()
        return [self._answer(row, threshold, each) for row, each in zip(probabilities, strange)]

    def _answer(self, probabilities, threshold: float | None, strange: float | None) -> Answer:
        names = self.class_names
        order = answers.order_of(probabilities)[: self.top_k]
        breeds = tuple((names[index], float(probabilities[index])) for index in order)
        inside = None if threshold is None else answers.set_of(probabilities, threshold)
        return Answer(breeds, None if inside is None else tuple(names[index] for index in inside), strange)


def find_pictures(patterns) -> list[Path]:
    """Finds picture files from files, folders (searched in depth) and globs, in the order given, each once.

    Raises:
        UserError: a folder or glob holds no picture. A file that does not exist is left to be reported as unreadable.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = _pictures_of(path)
        elif path.exists() or not glob.has_magic(pattern):
            files = [path]
        else:
            files = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
        if not files:
            raise UserError(f"{pattern}: no pictures found")
        found.update(dict.fromkeys(files))
    return list(found)


def _pictures_of(folder: Path) -> list[Path]:
    """Returns the pictures below a folder, sorted, and says how many cannot be read for want of a plugin."""
    files = list(files_in(folder))
    num_heif = 0 if reads_heif() else sum(file.suffix.lower() in HEIF_SUFFIXES for file in files)
    if num_heif:
        progress.open_console().print(f"{folder}: HEIC pictures that are left out: {num_heif:,}; {HEIF_HINT}")
    return sorted(filter(is_picture, files))


def predict_pictures(
    classifier: "keras.Model",
    pictures: Any,
    top_k: int = 5,
    batch_size: int = 32,
    calibration: Calibration = calibrations.NONE,
    coverage: float | None = None,
) -> Iterator[Prediction]:
    """Classifies pictures, a batch at a time, and yields a `Prediction` a picture in order.

    Args:
        classifier: `keras.Model` that `load_classifier` gave.
        pictures: a path, a `PIL.Image.Image` or a uint8 array `(rows, columns, 3)`; a sequence of them; or a uint8
            array `(num_pictures, rows, columns, 3)`.
        top_k: int. How many breeds a picture.
        batch_size: int.
        calibration: `Calibration` that `evaluation.calibration.calibration_of` gave of the run. Without, probabilities
            are the softmax of the logits, and nothing is called unfamiliar.
        coverage: float in (0, 1) or `None`. Of the sets of breeds that are given.

    Raises:
        UserError: the run has too few validation pictures for the coverage, or something given is no picture.

    Example:
    ```python
    for prediction in keras_dogs.predict_pictures(classifier, pictures):
        print(prediction.breeds[0])
    ```
    """
    listed = _listed(pictures)
    answering = AnswerSettings(class_names_of(classifier), calibration, top_k, coverage)
    return name_pictures(logits_by(classifier), classifier.canvas, answering, listed, batch_size)


def _listed(pictures) -> list:
    """Returns what was given as a list of paths, `PIL.Image.Image` and arrays."""
    is_one = isinstance(pictures, (str, os.PathLike, Image.Image))
    is_one |= isinstance(pictures, np.ndarray) and pictures.ndim == 3
    listed = [pictures] if is_one else list(pictures)
    for number, picture in enumerate(listed):
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise UserError(
                    f"pictures: number {number} is an array of {picture.dtype} and shape {picture.shape}; it has to be "
                    "uint8, (rows, columns, 3)"
                )
        elif not isinstance(picture, (str, os.PathLike, Image.Image)):
            raise UserError(
                f"pictures: number {number} is of type {type(picture).__name__}: neither path, picture nor array"
            )
    return listed


def name_pictures(
    ask: Callable, canvas: dict, answering: AnswerSettings, files, batch_size: int = 32
) -> Iterator[Prediction]:
    """Classifies picture files with any function that gives logits; yields one `Prediction` per file, in order.

    The next files are decoded, on all cores, while the batch before is answered.

    Args:
        ask: function of uint8 canvases `(batch, rows, columns, 3)` to logits `(batch, num_classes)`.
        canvas: dict. How files become canvases: arguments of `to_canvas`.
        answering: `AnswerSettings`.
        files: list of paths, of `PIL.Image.Image` and of uint8 arrays `(rows, columns, 3)`.
        batch_size: int.
    """
    # A power of two: few sizes to compile for, whatever the number of files.
    batch_size = min(batch_size, 1 << max(len(files) - 1, 0).bit_length())
    for chunk, opened in _opened_ahead(files, canvas, batch_size):
        read = [picture for picture, _ in opened if picture is not None]
        found = iter(answering.answers_to(ask(whole_batch(read, batch_size))[: len(read)]) if read else ())
        for file, (picture, error) in zip(chunk, opened):
            answer = None if picture is None else next(found)
            yield Prediction(file, answer.breeds if answer else (), error, answer)


def _opened_ahead(files, canvas: dict, batch_size: int):
    """Yields batches of files, and of each file its canvas, or why there is none, two batches ahead."""
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside the interpreter lock
    starts, ahead = iter(range(0, len(files), batch_size)), collections.deque()

    def submit():
        for start in itertools.islice(starts, 1):
            chunk = files[start : start + batch_size]
            ahead.append((chunk, [pool.submit(_open, file, canvas) for file in chunk]))

    try:
        submit()
        submit()
        while ahead:
            chunk, tasks = ahead.popleft()
            opened = [task.result() for task in tasks]
            submit()
            yield chunk, opened
    finally:
        pool.shutdown(cancel_futures=True)


def class_names_of(classifier: "keras.Model") -> list[str]:
    """Returns the names kept in the head, or numbers where it has none."""
    head = classifier.head
    return head.class_names or [f"class {index}" for index in range(head.units)]


def _open(given, how: dict):
    try:
        if isinstance(given, np.ndarray):
            picture = Image.fromarray(given)
        else:
            picture = to_rgb(given) if isinstance(given, Image.Image) else open_picture(given)
        return to_canvas(picture, **how), None
    except UnreadablePicture as error:
        return None, str(error)


def whole_batch(canvases: list, batch_size: int) -> np.ndarray:
    """Returns a whole batch, so that a last or thinned one compiles nothing new."""
    return np.stack(canvases + [canvases[0]] * (batch_size - len(canvases)))


def logits_by(classifier: "keras.Model") -> Callable:
    """Returns the function of uint8 canvases `(batch, rows, columns, 3)` to logits `(batch, num_classes)`."""
    from keras_dogs.data.loaders.batches import predict_in_batches

    return lambda canvases: predict_in_batches(classifier, canvases, len(canvases))[0]
