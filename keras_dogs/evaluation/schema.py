"""The fields of `scores.json`, typed: what an evaluation found."""

from pathlib import Path
from typing import NotRequired
from typing import TypedDict
from typing import get_type_hints

from keras_dogs.runs.records import NotNegative
from keras_dogs.runs.records import Positive
from keras_dogs.runs.records import Scores
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


# The fields of `Scores` one after the other, with intervals and calibration.
Evaluation = TypedDict(
    "Evaluation",
    {
        "schema_version": Positive,
        **get_type_hints(Scores, include_extras=True),
        "intervals": Intervals,
        "temperature": NotNegative | None,
        "why_no_temperature": NotRequired[str],
        "with_temperature": NotRequired[WithTemperature],
    },
)


def read(file: Path) -> Evaluation:
    """Reads a `scores.json`, also one of an earlier version.

    Raises:
        UserError: it is missing, damaged or of a later version; the text names file and key.
    """
    return reading.read_versioned(file, Evaluation, SCHEMA_VERSION)
