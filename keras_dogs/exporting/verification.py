"""Checks that an exported file answers as the run does, from picture file to class name."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs import backends
from keras_dogs.errors import UserError
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation.answers import probabilities_of
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.exporting.formats import Format
from keras_dogs.exporting.pictures import Pictures
from keras_dogs.system import reading
from keras_dogs.system import tables
from keras_dogs.system.tables import Array

BOUND = 1e-4  # the largest difference of a logit in float32, as a share of the largest logit
_PROBABILITY_BOUND = 1e-3


class NothingWritten(Exception):
    """An export failed, and not because of what the user gave. Its text is one line."""


class NotEqual(NothingWritten):
    """An exported file does not answer as the run does. Its text is one line."""


class Answers(NamedTuple):
    """The answers of one classifier to a list of pictures.

    Attributes:
        files: list of str.
        logits: float32 array `(num_pictures, num_classes)`.
        told: list of str. The most probable class of each picture.
    """

    files: list[str]
    logits: np.ndarray
    told: list[str]

    def first(self, count: int) -> "Answers":
        """Returns the answers to the first `count` pictures."""
        return Answers(self.files[:count], self.logits[:count], self.told[:count])

    def select(self, files) -> "Answers":
        """Returns the answers to `files`, in that order."""
        places = [self.files.index(file) for file in files]
        return Answers([self.files[place] for place in places], self.logits[places], [self.told[p] for p in places])


def read_reference(file: Path, class_names: list[str]) -> Answers:
    """Reads what the run's own classifier answered."""
    found = tables.read_arrays(file, {"files": Array("U", 1), "logits": Array("f", 2)})
    logits = found["logits"]
    if not np.isfinite(logits).all():
        raise UserError("the classifier gives logits that are not finite; export another run")
    return Answers(list(found["files"]), logits, [class_names[place] for place in np.argmax(logits, axis=1)])


def verify(
    work: Path,
    reference: Answers,
    class_names: list[str],
    temperature: float,
    config: ExportConfig,
    pictures: Pictures,
) -> dict:
    """Compares the answers of an exported file, which `checking` has left in `work`, with the run's own.

    Returns:
        `Verification`, less the size of the files.

    Raises:
        NotEqual: only one of the two answered a picture; class names differ; a logit is not finite; in float32, a
            logit, a probability or a predicted name is off; or quantisation costs too much accuracy.
    """
    schema = {
        "files": Array("U", 1),
        "logits": Array("f", 2),
        "probabilities": Array("f", 2),
        "told": Array("U", 1),
    }
    answers = tables.read_arrays(work / "answers.npz", schema)
    measured = reading.read_json(work / "measured.json")
    if list(answers["files"]) != reference.files:
        missing = sorted(set(reference.files) ^ set(answers["files"])) or reference.files
        raise NotEqual(f"{missing[0]}: only one of the run and the exported program could read it")
    if measured["class_names"] != class_names or answers["logits"].shape != reference.logits.shape:
        raise NotEqual("the class names in the exported file are not those of the run")
    largest, off = _differences(reference, answers["logits"])
    if not config.quantize:
        _check_numbers(reference, answers, off, largest, temperature)
    result = _summarise(reference, answers["told"], largest, off, class_names, pictures, measured)
    if config.quantize:
        _check_loss(result, config)
    return result


def verify_library(row: Format, work: Path, reference: Answers, class_names: list[str], pictures: Pictures) -> dict:
    """Compares the answers of another library, which `checking_library` has left in `work`, with the run's own.

    Returns:
        `Verification`, less the size of the files. Logits are compared on pixels from the run's own preprocessing,
        names on picture files as the library preprocesses them.

    Raises:
        NotEqual: class names differ, a logit is off, or the library can read none of the pictures.
    """
    schema = {"files": Array("U", 1), "told": Array("U", 1), "of_pixels": Array("f", 2)}
    answers = tables.read_arrays(work / "answers.npz", schema)
    measured = reading.read_json(work / "measured.json")
    of_pixels = reference.first(len(answers["of_pixels"]))
    if measured["class_names"] != class_names or answers["of_pixels"].shape != of_pixels.logits.shape:
        raise NotEqual(f"the class names that {row.name} reads are not those of the run")
    largest, off = _differences(of_pixels, answers["of_pixels"])
    if off.max() > BOUND * largest:
        raise NotEqual(
            f"{of_pixels.files[int(np.argmax(off))]}: a logit of {row.name} is off by {off.max():.2g}, more than "
            f"{BOUND:g} of the largest logit, {largest:.3g}"
        )
    if not len(answers["files"]):
        file, why = measured["unread"][0]
        raise NotEqual(f"{row.name} cannot read any of the pictures: {file}: {why}")
    read = reference.select(answers["files"])
    result = _summarise(read, answers["told"], largest, off, class_names, pictures, measured)
    result["num_pixels"] = len(of_pixels.files)
    return result | ({"unread": [Path(file).name for file, _ in measured["unread"]]} if measured["unread"] else {})


def _differences(reference: Answers, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the run's largest absolute logit, and the largest absolute difference for each picture."""
    off = np.abs(logits.astype(np.float64) - reference.logits).max(axis=1)
    if not np.isfinite(off).all():
        raise NotEqual(
            f"{reference.files[int(np.argmin(np.isfinite(off)))]}: a logit of the exported file is not finite"
        )
    return float(np.abs(reference.logits).max()), off


def _summarise(reference: Answers, told, largest: float, off: np.ndarray, class_names, pictures, measured) -> dict:
    """Returns `Verification`, less the size of the files."""
    result = {
        "pictures": pictures.source,
        "num_pictures": len(reference.files),
        "agreement": float(np.mean([one == other for one, other in zip(reference.told, told)])),
        "largest_logit": largest,
        "largest_difference": float(off.max()),
        "top1_accuracy": None,
        "top1_accuracy_of_run": None,
        "accuracy_loss_interval": None,
        **{name: measured[name] for name in ("open_s", "latency_p50_ms", "latency_p95_ms", "images_per_second")},
        "machine": f"{backends.describe_cpu()}, {measured['cores']} cores",
    }
    if measured["imported"]:
        result["imported"] = measured["imported"]
    if pictures.labels and set(pictures.labels.values()) <= set(class_names):
        result |= _score(reference, told, pictures.labels)
    return result


def _check_numbers(reference: Answers, answers: dict, off: np.ndarray, largest: float, temperature: float) -> None:
    """Refuses logits, probabilities or names that differ by more than rounding."""
    worst = int(np.argmax(off))
    if off[worst] > BOUND * largest:
        raise NotEqual(
            f"{reference.files[worst]}: a logit of the exported file is off by {off[worst]:.2g}, more than "
            f"{BOUND:g} of the largest logit, {largest:.3g}"
        )
    expected = probabilities_of(reference.logits, temperature)
    apart = np.abs(answers["probabilities"] - expected).max(axis=1)
    if not apart.max() <= _PROBABILITY_BOUND:  # written so that NaN is refused, too
        raise NotEqual(f"{reference.files[int(np.argmax(apart))]}: a probability is off by {apart.max():.2g}")
    top_two = np.sort(reference.logits, axis=1)[:, -2:]
    clear = top_two[:, -1] - top_two[:, 0] > 2 * BOUND * largest
    for file, one, other, is_clear in zip(reference.files, reference.told, answers["told"], clear):
        if one != other and is_clear:
            raise NotEqual(f"{file}: the run says {one!r}, the exported file {str(other)!r}")


def _score(reference: Answers, told, labels: dict[str, str]) -> dict:
    expected = [labels[file] for file in reference.files]
    own = np.array([one == label for one, label in zip(reference.told, expected)], float)
    exported = np.array([one == label for one, label in zip(told, expected)], float)
    return {
        "top1_accuracy": float(exported.mean()),
        "top1_accuracy_of_run": float(own.mean()),
        "accuracy_loss_interval": tuple(map(float, intervals.difference_interval(own - exported))),
    }


def _check_loss(result: dict, config: ExportConfig) -> None:
    """Refuses a quantised file that loses too much accuracy or, without labels, disagrees with the run too often."""
    if result["top1_accuracy"] is None:
        loss, what = 1 - result["agreement"], "names {:.1f} % of {:,} pictures differently from the run"
    else:
        loss = result["top1_accuracy_of_run"] - result["top1_accuracy"]
        what = "loses {:.1f} points of top-1 accuracy on {:,} pictures"
    if 100 * loss > config.max_accuracy_loss + 1e-9:  # a loss of exactly the limit is allowed
        raise NotEqual(
            f"--quantize {config.quantize}: {what.format(100 * loss, result['num_pictures'])}, more than "
            f"--max-accuracy-loss {config.max_accuracy_loss:g} allows; raise it, or export in float32"
        )
