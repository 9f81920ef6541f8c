"""Statistics of scores: over seeds, between two runs on the same pictures, calibrated, and by pretraining overlap."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.system import reading


class Summary(NamedTuple):
    """A score over seeds.

    Attributes:
        num_runs: int.
        mean: float.
        low: float. The least score.
        high: float. The greatest score.
        standard_error: float. Of the mean; NaN for a single run.
    """

    num_runs: int
    mean: float
    low: float
    high: float
    standard_error: float


def summarise(values) -> Summary:
    """Returns the mean, range and standard error of a score over seeds."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Summary(len(values), float(values.mean()), float(values.min()), float(values.max()), float(error))


class Comparison(NamedTuple):
    """Two classifiers on the same pictures.

    Attributes:
        num_pictures: int.
        accuracy: pair of floats. Top-1 accuracy of the first and of the second.
        only_first: int. Pictures that only the first names correctly.
        only_second: int. Pictures that only the second names correctly.
        p_value: float. McNemar's exact test: the probability of a split at least this uneven if both were equally good.
        difference: float. Accuracy of the first minus that of the second.
        interval: pair of floats. The 95 % interval of the difference (`intervals.difference_interval`).
    """

    num_pictures: int
    accuracy: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    difference: float
    interval: tuple[float, float]

    @property
    def is_significant(self) -> bool:
        """Whether the test at 5 % and the interval both say that the two differ."""
        return self.p_value < 0.05 and not self.interval[0] <= 0 <= self.interval[1]

    def in_words(self, first: str, second: str) -> str:
        """Returns a sentence that claims no more than was found."""
        # The better one is named first, and what it gains is positive.
        sign = -1 if self.is_significant and self.difference < 0 else 1
        low, high = sorted(100 * sign * bound for bound in self.interval)
        gain = 100 * sign * self.difference
        found = f"{gain:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}; p = {self.p_value:.2g}"
        if not self.is_significant:
            return f"{first} and {second} cannot be told apart on these {self.num_pictures:,} pictures ({found})."
        better, worse = (first, second)[::sign]
        return f"{better} is better than {worse} on these {self.num_pictures:,} pictures ({found})."


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compares two sets of predictions of the same test pictures.

    Raises:
        UserError: they are not of the same pictures with the same labels.
    """
    first_names, second_names = list(first.names), list(second.names)
    if sorted(first_names) != sorted(second_names):
        raise UserError("the two were not scored on the same pictures; compare runs on one dataset")
    for one, other in ((first, second), (second, first)):
        if one.were_trained_on(other.names).any():
            raise UserError(
                "one of the two was trained on pictures that the other is scored on; compare runs on one split"
            )
    place = {name: index for index, name in enumerate(second_names)}
    order = [place[name] for name in first_names]
    if [first.class_names[label] for label in first.labels] != [
        second.class_names[label] for label in second.labels[order]
    ]:
        raise UserError("the two do not give the same pictures the same classes; compare runs on one dataset")
    one = scoring.is_correct(first.logits, first.labels)
    other = scoring.is_correct(second.logits, second.labels)[order]
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    difference = one.astype(float) - other
    return Comparison(
        len(one),
        (float(one.mean()), float(other.mean())),
        only_first,
        only_second,
        intervals.mcnemar(only_first, only_second),
        float(difference.mean()),
        intervals.difference_interval(difference),
    )


def temperature_of(found: Predictions) -> scoring.Temperature:
    """Fits the temperature on the validation pictures that predictions were kept with."""
    if found.validation is None:
        return scoring.Temperature(None, "no validation predictions are known besides the answers scored here")
    return scoring.fit_temperature(found.validation.logits, found.validation.labels)


def split_by_overlap(names, overlap_list: Path) -> np.ndarray:
    """Returns which pictures are named in a list of pretraining files: bool `(num_pictures,)`.

    Args:
        names: sequence of str. Pictures; folders and suffixes are left out of the comparison.
        overlap_list: Path. A name a line, such as `n02085620_10074.JPEG`; what follows a blank is left out.

    Raises:
        UserError: the file cannot be read or names nothing.
    """
    try:
        lines = reading.read_text(overlap_list).splitlines()
    except UserError as error:
        raise UserError(f"--overlap-list {error.args[0]}") from error
    listed = {Path(line.split()[0]).stem for line in lines if line.strip()}
    if not listed:
        raise UserError(f"--overlap-list {overlap_list}: names no file")
    return np.array([Path(str(name)).stem in listed for name in names])
