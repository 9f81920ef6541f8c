"""Logits and labels -> scores, in plain NumPy: the same numbers whatever backend or batch size made the logits."""

import numpy as np

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
        expected_calibration_error=_expected_calibration_error(np.exp(log_probabilities.max(axis=1)), correct),
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


def _expected_calibration_error(confidence, correct) -> float:
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    members = [bins == index for index in np.unique(bins)]
    return float(sum(abs(confidence[inside].mean() - correct[inside].mean()) * inside.mean() for inside in members))
