"""What validation pictures say of answers: the temperature, the thresholds of sets, what is familiar."""

from pathlib import Path

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.evaluation import answers
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation import statistics
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import Calibration
from keras_dogs.runs.records import RunRecord

# Of validation pictures: with fewer, neither a promise nor a threshold means much.
LEAST_PICTURES = scoring.LEAST_FOR_TEMPERATURE
# Of runs without validation predictions, and of models alone.
NONE = Calibration(num_pictures=0, temperature=None, why_no_temperature="there are no validation predictions")


def calibrate(found: Predictions, temperature: scoring.Temperature | None = None) -> Calibration:
    """Computes the calibration of a run from its validation predictions.

    Sets are those of split conformal prediction with the least average size (Sadinle et al., arXiv 1609.00451;
    Angelopoulos and Bates, arXiv 2107.07511, section 1): a new picture like those of validation has its breed in the
    set with at least the probability that was asked for, on average over pictures. Validation also chose the epoch and
    the temperature, which that proof does not allow for; `benchmarks/unfamiliar.py` measures what is left of it.
    """
    if found.validation is None:
        return NONE
    logits, labels = found.validation.logits, found.validation.labels
    temperature = temperature or statistics.temperature_of(found)
    known = dict(num_pictures=len(labels), temperature=temperature.value, why_no_temperature=temperature.why)
    if temperature.held_out is not None:
        before, after = (scoring.score_logits(each, labels) for each in (logits, temperature.held_out))
        known["loss"] = before.loss, after.loss
        known["calibration_error"] = before.expected_calibration_error, after.expected_calibration_error
    if len(labels) < LEAST_PICTURES:
        return Calibration(**known)
    probabilities = answers.probabilities_of(logits, temperature.value)
    return Calibration(
        **known,
        set_thresholds=_set_thresholds(probabilities[np.arange(len(labels)), labels]),
        strangeness_percentiles=np.percentile(answers.strangeness_of(logits), np.arange(101)).tolist(),
    )


def _set_thresholds(of_label: np.ndarray) -> list[float]:
    """Returns the least probability in the sets of each coverage; `LEAST_PICTURES` are enough for all of them."""
    descending = np.sort(of_label)[::-1]
    percents = range(answers.LEAST_COVERAGE, answers.MOST_COVERAGE + 1)
    return [float(descending[-(-(len(of_label) + 1) * percent // 100) - 1]) for percent in percents]


def calibration_of(run: Path) -> Calibration:
    """Returns the calibration of a run folder, or of the folder that a `.keras` file lies in.

    That of runs of earlier versions, whose record has none, is computed from the predictions that they kept.

    Raises:
        UserError: the record or the predictions are damaged.
    """
    folder = run if run.is_dir() else run.parent
    if not (folder / artifacts.RECORD).is_file() or artifacts.find_model(run) != folder / artifacts.MODEL:
        return NONE
    record = RunRecord.load(folder / artifacts.RECORD)
    if record.calibration:
        return record.calibration
    if not (folder / artifacts.PREDICTIONS).is_file():
        return NONE
    return calibrate(Predictions.load(folder, needs_test=False))


def check_coverage(coverage: float, calibration: Calibration) -> float:
    """Returns the threshold of the sets with a coverage.

    Args:
        coverage: float in (0, 1).
        calibration: `Calibration`.

    Raises:
        UserError: too few validation pictures promise it, or the logits are those of a quantised export.
    """
    threshold = answers.threshold_for(coverage, calibration.set_thresholds)
    if threshold is None and calibration.num_pictures >= LEAST_PICTURES:
        raise UserError(
            f"--coverage {coverage:g}: a quantised export has no prediction sets, as their thresholds hold for the "
            "run's own logits; give the run, or an export that is not quantised"
        )
    if threshold is None:
        raise UserError(
            f"--coverage {coverage:g}: to promise that, {LEAST_PICTURES} validation pictures are needed, and there are "
            f"{calibration.num_pictures:,}; train with more"
        )
    return threshold
