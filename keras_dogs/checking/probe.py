"""Classifies pictures with a linear probe that was not trained on them, by cross-validation.

The probe is linear discriminant analysis with a covariance that is shrunk towards a sphere (Friedman, Journal of the
American Statistical Association 84, 1989): one linear system per fold, without iterations or random numbers, so that
every backend finds the same. Duplicates are in the same fold, or one would give away the label of the other.
"""

import numpy as np
import scipy.linalg
import scipy.optimize
from scipy.special import log_softmax

_FOLDS = 10
_SHRINKAGES = (0.1, 1.0, 10.0)  # the sphere's variance, as a part of the mean variance along an axis
_LEAST_WITHIN = 1e-6  # variance within classes, as a part of the mean square: the least that the sphere goes by
_BLOCK = 4096  # pictures at a time
_MOST_FOR_SCALE = 20_000  # pictures; one number is fitted
_SCALES = (-8.0, 8.0)  # of the logarithm: from no opinion to certainty


def held_out_probabilities(features: np.ndarray, labels: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Computes the probabilities of the classes of each picture by a probe that has learned from the other folds.

    Args:
        features: float array `(num_pictures, hidden)`; it may be mapped from a file, and is read in blocks.
        labels: int array `(num_pictures,)`.
        groups: list of lists of indices. Pictures that are in one fold.

    Returns:
        float32 array `(num_pictures, num_classes)`.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    folds = folds_of(codes, groups)
    parts = [_Sums(features, codes, len(classes), np.flatnonzero(folds == fold)) for fold in range(_FOLDS)]
    center = sum(part.by_class.sum(0) for part in parts) / len(features)
    best = None
    for shrinkage in _SHRINKAGES:
        scores = _held_out_scores(features, folds, parts, center, shrinkage)
        scale, loss = _calibrated(scores, codes)
        if best is None or loss < best[0]:
            best = loss, scale, scores
    _, scale, scores = best
    found = np.zeros((len(labels), int(classes.max()) + 1), np.float32)
    for start in range(0, len(scores), _BLOCK):
        part = slice(start, start + _BLOCK)
        found[part, classes] = np.exp(log_softmax(scale * scores[part], axis=1))
    return found


def folds_of(codes: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Divides pictures into folds, each class evenly, groups whole: int array `(num_pictures,)`."""
    order = np.argsort(codes, kind="stable")
    folds = np.empty(len(codes), np.int64)
    folds[order] = np.arange(len(codes)) % _FOLDS  # in turns: a class begins where the one before has ended
    for group in groups:
        folds[group] = folds[group[0]]
    return folds


class _Sums:
    """The statistics of one fold that a fit needs: pictures and feature sums per class, and the products of features.

    Args:
        features: float array `(num_pictures, hidden)`.
        codes: int array `(num_pictures,)`. The classes, from 0.
        num_classes: int.
        places: int array. The pictures of the fold.
    """

    def __init__(self, features: np.ndarray, codes: np.ndarray, num_classes: int, places: np.ndarray):
        hidden = features.shape[1]
        self.counts = np.bincount(codes[places], minlength=num_classes)
        self.by_class, self.products = np.zeros((num_classes, hidden)), np.zeros((hidden, hidden))
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            # Where the pictures of a class are copies, what is left of the products is the rounding: not in float32.
            values = np.asarray(features[block], np.float64)
            np.add.at(self.by_class, codes[block], values)
            self.products += values.T @ values


def _held_out_scores(features, folds, parts: list[_Sums], center: np.ndarray, shrinkage: float) -> np.ndarray:
    """Returns the scores of each picture by the fit to the other folds: float32 `(num_pictures, num_classes)`."""
    scores = np.empty((len(features), len(parts[0].counts)), np.float32)
    middle = center.astype(np.float32)  # or the products would be in float64
    for fold in range(_FOLDS):
        weights, biases = _fit([part for number, part in enumerate(parts) if number != fold], center, shrinkage)
        places = np.flatnonzero(folds == fold)
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            scores[block] = (np.asarray(features[block], np.float32) - middle) @ weights + biases
    return scores


def _fit(parts: list[_Sums], center: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights `(hidden, num_classes)` and biases `(num_classes,)`; a class without a picture is the mean."""
    counts, sums = sum(part.counts for part in parts), sum(part.by_class for part in parts)
    total = max(int(counts.sum()), 1)
    means = np.where(counts[:, None], sums / np.maximum(counts, 1)[:, None], center)
    products = sum(part.products for part in parts)
    within = (products - (means.T * counts) @ means) / total
    least = max(_LEAST_WITHIN * float(np.trace(products)) / total, 1e-12)
    within[np.diag_indices_from(within)] += shrinkage * max(float(np.trace(within)), least) / len(within)
    means = means - center
    weights = scipy.linalg.solve(within, means.T, assume_a="pos", overwrite_a=True, check_finite=False)
    return weights.astype(np.float32), (-(means.T * weights).sum(0) / 2).astype(np.float32)


def _calibrated(scores: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Returns the factor that minimises the mean cross-entropy of the scaled scores, and that cross-entropy."""
    some = slice(None, None, -(-len(codes) // _MOST_FOR_SCALE))
    scores, codes = scores[some].astype(np.float64), codes[some]
    rows = np.arange(len(codes))
    found = scipy.optimize.minimize_scalar(
        lambda log: -log_softmax(np.exp(log) * scores, axis=1)[rows, codes].mean(), bounds=_SCALES, method="bounded"
    )
    return float(np.exp(found.x)), float(found.fun)
