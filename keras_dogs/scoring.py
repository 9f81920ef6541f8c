"""Logits and labels -> scores, in plain NumPy: the same numbers whatever backend or batch size made the logits."""

from typing import NamedTuple

import numpy as np
import scipy.optimize

from keras_dogs.records import Scores

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
    """Logarithms of the probabilities, float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _rank_of_label(logits, labels) -> np.ndarray:
    """How many classes come before the label: those with a greater logit, and equal ones with a smaller index."""
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    return (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)


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
    """The 15 equal bins of confidence that are not empty (Guo et al., arXiv 1706.04599, figure 1)."""
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
    """The mean gap of confidence and accuracy over the bins of `reliability` (arXiv 1706.04599, eq. 3)."""
    return float(sum(abs(each.confidence - each.accuracy) * each.share for each in reliability(logits, labels)))


def fit_temperature(logits, labels) -> float:
    """What logits are to be divided by for the least cross-entropy (arXiv 1706.04599, section 4.2).

    To be fitted on validation pictures; accuracy does not change.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    rows = np.arange(len(labels))

    def loss(log_temperature):
        return -log_softmax(logits / np.exp(log_temperature))[rows, labels].mean()

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def is_correct(logits, labels, top_k: int = 1) -> np.ndarray:
    """Whether the label is among the `top_k` greatest logits of each picture: bool `(num_pictures,)`."""
    return _rank_of_label(np.asarray(logits, np.float64), np.asarray(labels)) < top_k


def confusion_matrix(logits, labels) -> np.ndarray:
    """How many pictures of each class (rows) were taken for each class (columns): int `(num_classes, num_classes)`."""
    num_classes = np.shape(logits)[1]
    pairs = np.asarray(labels) * num_classes + np.argmax(logits, axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def bootstrap_interval(values, num_resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a mean over pictures (Efron and Tibshirani, 1993, chapter 13).

    Args:
        values: array `(num_pictures,)`: right or wrong, a loss.
        num_resamples: int.
        seed: int.
    """
    values = np.asarray(values, np.float64)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[generator.integers(len(values), size=(500, len(values)))].mean(axis=1)
            for _ in range(num_resamples // 500)
        ]
    )
    return tuple(float(bound) for bound in np.percentile(means, [2.5, 97.5]))
