"""Logits and labels -> scores, in plain NumPy: the same numbers whatever backend or batch size made the logits."""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

from keras_dogs.runs.records import Scores

_CALIBRATION_BINS = 15


def score_logits(logits, labels) -> Scores:
    """Scores logits of shape `(num_pictures, num_classes)` against int labels of shape `(num_pictures,)`.

    Of classes with equal logits the first counts as the greater, as in `argmax`.

    Raises:
        ValueError: a logit is not finite; no score of it would mean anything.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not finite")
    rank = _rank_of_label(logits, labels)
    correct = rank == 0
    log_probabilities = log_softmax(logits)
    return Scores(
        num_pictures=len(labels),
        top1_accuracy=float(correct.mean()),
        top5_accuracy=float((rank < 5).mean()),
        mean_per_class_accuracy=float(np.mean([correct[labels == label].mean() for label in np.unique(labels)])),
        expected_calibration_error=expected_calibration_error(logits, labels),
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
    )


def log_softmax(logits) -> np.ndarray:
    """Returns the logarithms of the probabilities, float64, along the last axis."""
    return scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)


def _rank_of_label(logits, labels) -> np.ndarray:
    """Counts the classes before the label: those with a greater logit, and equal ones with a smaller index.

    Where a logit is not finite, the label comes last: nothing was answered.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
    return np.where(np.isfinite(logits).all(axis=1), rank, logits.shape[1])


class Bin(NamedTuple):
    """A bin of a reliability diagram: predictions of like confidence.

    Attributes:
        low: float. The least confidence; the greatest is 1/15 more.
        share: float. Of all pictures.
        confidence: float. Mean.
        accuracy: float.
    """

    low: float
    share: float
    confidence: float
    accuracy: float


def reliability(logits, labels) -> list[Bin]:
    """Returns the 15 equal bins of confidence that are not empty (Guo et al., arXiv 1706.04599, figure 1)."""
    probabilities = np.exp(log_softmax(logits))
    confidence, correct = probabilities.max(axis=1), is_correct(logits, labels)
    places = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        means = confidence[inside].mean(), correct[inside].mean()
        bins.append(Bin(float(place) / _CALIBRATION_BINS, float(inside.mean()), *map(float, means)))
    return bins


def expected_calibration_error(logits, labels) -> float:
    """Returns the mean gap of confidence and accuracy over the bins of `reliability` (arXiv 1706.04599, eq. 3)."""
    return float(sum(abs(each.confidence - each.accuracy) * each.share for each in reliability(logits, labels)))


class Temperature(NamedTuple):
    """What logits are divided by so that probabilities are calibrated.

    Attributes:
        value: float or `None` where there is none to be trusted.
        why: str. Why there is none; empty where there is one.
        held_out: float array like the logits, or `None`: each fifth divided by what the other four give.
    """

    value: float | None
    why: str = ""
    held_out: np.ndarray | None = None


# Of validation pictures. With fewer, the fit follows single wrong answers.
LEAST_FOR_TEMPERATURE = 100
_FOLDS = 5
_BOUNDS = (-4.0, 4.0)  # of the logarithm


def fit_temperature(logits, labels) -> Temperature:
    """Fits what logits are to be divided by for the least cross-entropy (arXiv 1706.04599, section 4.2).

    It is to be fitted on validation pictures; accuracy does not change. There is none with fewer than 100 pictures,
    where the fit runs to its bound (as with no wrong answer), or where the cross-entropy of held-out folds does not
    fall.

    Args:
        logits: float array `(num_pictures, num_classes)`.
        labels: int array `(num_pictures,)`.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if len(labels) < LEAST_FOR_TEMPERATURE:
        return Temperature(None, f"{len(labels)} validation pictures are too few; {LEAST_FOR_TEMPERATURE} are needed")
    fitted = _least_loss(logits, labels)
    if fitted is None:
        return Temperature(
            None,
            "the fit on validation has no minimum: its pictures are answered too well, or no better than by chance",
        )
    divided = np.empty_like(logits)
    for fold in range(_FOLDS):
        held_out = np.arange(len(labels)) % _FOLDS == fold
        without = _least_loss(logits[~held_out], labels[~held_out])
        if without is None:
            return Temperature(None, "the fit without a fifth of the validation pictures has no minimum")
        divided[held_out] = logits[held_out] / without
    if _cross_entropies(divided, labels).sum() >= _cross_entropies(logits, labels).sum():
        return Temperature(None, "on held-out validation pictures it does not lower the cross-entropy", divided)
    return Temperature(fitted, held_out=divided)


def _least_loss(logits, labels) -> float | None:
    """Returns the temperature with the least loss, or `None` without a wrong answer or with the minimum at a bound."""
    if is_correct(logits, labels).all():
        return None
    found = scipy.optimize.minimize_scalar(
        lambda log: _cross_entropies(logits / np.exp(log), labels).mean(), bounds=_BOUNDS, method="bounded"
    ).x
    return None if min(found - _BOUNDS[0], _BOUNDS[1] - found) < 0.01 else float(np.exp(found))


def _cross_entropies(logits, labels) -> np.ndarray:
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def is_correct(logits, labels, top_k: int = 1) -> np.ndarray:
    """Returns whether the label is among the `top_k` greatest logits of each picture: bool `(num_pictures,)`."""
    return _rank_of_label(np.asarray(logits, np.float64), np.asarray(labels)) < top_k


def confusion_matrix(logits, labels) -> np.ndarray:
    """Counts, for each class (rows), the classes it was taken for: int `(num_classes, num_classes)`."""
    num_classes = np.shape(logits)[1]
    pairs = np.asarray(labels) * num_classes + np.argmax(logits, axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
