"""The fields of `scores.json`, typed: what an evaluation found."""

from pathlib import Path
from typing import NotRequired
from typing import TypedDict

from keras_dogs.errors import UserError
from keras_dogs.runs.records import NotNegative
from keras_dogs.runs.records import Positive
from keras_dogs.runs.records import Share
from keras_dogs.system import reading

FILE = "scores.json"
# 2: the version itself is in the file.
SCHEMA_VERSION = 2


class Intervals(TypedDict):
    """95 % intervals over pictures."""

    top1_accuracy: tuple[Share, Share]
    top5_accuracy: tuple[Share, Share]


class WithTemperature(TypedDict):
    """What the temperature changes; accuracies stay."""

    loss: NotNegative
    expected_calibration_error: Share


class Evaluation(TypedDict):
    """The fields of `runs.records.Scores`, with intervals and calibration."""

    schema_version: Positive
    num_pictures: Positive
    top1_accuracy: Share
    top5_accuracy: Share
    mean_per_class_accuracy: Share
    expected_calibration_error: Share
    loss: NotNegative
    intervals: Intervals
    temperature: NotNegative | None
    why_no_temperature: NotRequired[str]
    with_temperature: NotRequired[WithTemperature]


def read(file: Path) -> Evaluation:
    """Reads a `scores.json`, also one of an earlier version.

    Raises:
        UserError: it is missing, damaged or of a later version; the text names file and key.
    """
    found = reading.check({"schema_version": 1, **reading.read_json(file)}, Evaluation, str(file))
    if found["schema_version"] > SCHEMA_VERSION:
        raise UserError(f"{file}: written by a later version of keras_dogs; update keras_dogs to read it")
    return found
