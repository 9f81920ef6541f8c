"""What a linear probe says of pictures that it has not learned from, without training it anew for each.

The probe is a ridge regression from features to one-hot labels. What it would answer to pictures that are left out
follows from one fit to all of them: leave-one-out in closed form (Allen, Technometrics 16, 1974), and the same of
several at a time. Pictures that show the same are left out together, or one would answer for the other. There is no
draw and no order of steps in it: every backend finds the same.
"""

import numpy as np
import scipy.optimize
from scipy.special import log_softmax

_STRENGTHS = 10.0 ** np.arange(-4, 3)  # of the penalty, as a part of the mean variance along an axis
_BLOCK = 4096  # pictures at a time
_SCALES = (0.0, 8.0)  # of the logarithm: between no opinion and certainty


def held_out_probabilities(features: np.ndarray, labels: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Computes the probabilities of the classes of each picture by a probe that has learned from the others.

    Args:
        features: float array `(num_pictures, hidden)`; it may be mapped from a file, and is read in blocks.
        labels: int array `(num_pictures,)`.
        groups: list of lists of indices. Pictures that are left out together.

    Returns:
        float64 array `(num_pictures, num_classes)`.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    fitted = _Ridge(features, codes, len(classes))
    scores = fitted.held_out(groups)
    found = np.zeros((len(labels), int(classes.max()) + 1))
    found[:, classes] = np.exp(log_softmax(_scale(scores, codes) * scores, axis=1))
    return found


def _scale(scores: np.ndarray, codes: np.ndarray) -> float:
    """Returns the factor that makes calibrated logits of scores: that of the least cross-entropy."""
    rows = np.arange(len(codes))
    return float(
        np.exp(
            scipy.optimize.minimize_scalar(
                lambda log: -log_softmax(np.exp(log) * scores, axis=1)[rows, codes].mean(),
                bounds=_SCALES,
                method="bounded",
            ).x
        )
    )


class _Ridge:
    """A ridge regression to one-hot labels along the principal axes of the features, with an intercept."""

    def __init__(self, features: np.ndarray, codes: np.ndarray, num_classes: int):
        self.features, self.codes, self.num_classes = features, codes, num_classes
        self.mean = sum(block.sum(0, dtype=np.float64) for _, block in self._raw()) / len(features)
        self.shares = np.bincount(codes, minlength=num_classes) / len(codes)
        products = np.zeros((features.shape[1],) * 2)
        with_labels = np.zeros((features.shape[1], num_classes))
        for places, block in self._raw():
            block = (block - self.mean).astype(np.float32)
            products += block.T @ block
            with_labels += block.T @ self._targets(places)
        self.variances, self.axes = np.linalg.eigh(products)
        self.variances = self.variances.clip(0)
        self.with_labels = self.axes.T @ with_labels
        self.unit = max(self.variances.mean(), 1e-12)

    def held_out(self, groups: list[list[int]]) -> np.ndarray:
        """Returns the scores of each picture by the fit to the others, with the penalty that makes them best."""
        errors = sum(
            np.square((targets[..., None] - scores) / (1 - leverage)[:, None]).sum((0, 1))
            for targets, scores, leverage in map(self._answers, self._raw(), [_STRENGTHS] * len(self))
        )
        strength = _STRENGTHS[[int(np.argmin(errors))]]
        found = np.empty((len(self.features), self.num_classes))
        for places, block in self._raw():
            targets, scores, leverage = self._answers((places, block), strength)
            left = (targets - scores[..., 0]) / (1 - leverage)
            found[places] = targets + self.shares - left
        for group in groups:
            found[group] = self._without(np.array(group), strength)
        return found

    def _without(self, group: np.ndarray, strength: np.ndarray) -> np.ndarray:
        """Returns the scores of a group of pictures by the fit to all the others."""
        targets, scores, _ = self._answers((group, self.features[group]), strength)
        along = self._along(self.features[group])
        weights = 1 / (self.variances + strength * self.unit)
        hat = (along * weights) @ along.T + 1 / len(self.features)
        return targets + self.shares - np.linalg.solve(np.eye(len(group)) - hat, targets - scores[..., 0])

    def _answers(self, block, strengths: np.ndarray):
        """Returns centred targets, the fit's scores for each penalty and the pictures' leverage for each."""
        places, features = block
        along = self._along(features)
        weights = 1 / (self.variances[:, None] + strengths * self.unit)
        scores = np.stack([along @ (self.with_labels * weight[:, None]) for weight in weights.T], -1)
        return self._targets(places), scores, np.square(along) @ weights + 1 / len(self.features)

    def _along(self, features) -> np.ndarray:
        return (np.asarray(features, np.float32) - self.mean.astype(np.float32)) @ self.axes.astype(np.float32)

    def _targets(self, places) -> np.ndarray:
        return np.eye(self.num_classes)[self.codes[places]] - self.shares

    def _raw(self):
        """Yields blocks of features with the places of their pictures."""
        for start in range(0, len(self.features), _BLOCK):
            places = np.arange(start, min(start + _BLOCK, len(self.features)))
            yield places, np.asarray(self.features[places[0] : places[-1] + 1], np.float32)

    def __len__(self):
        return -(-len(self.features) // _BLOCK)
