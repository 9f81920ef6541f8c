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
_MOST_FOR_SCALE = 20_000  # pictures; one number is fitted
_SCALES = (0.0, 8.0)  # of the logarithm: between no opinion and certainty


def held_out_probabilities(features: np.ndarray, labels: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Computes the probabilities of the classes of each picture by a probe that has learned from the others.

    Args:
        features: float array `(num_pictures, hidden)`; it may be mapped from a file, and is read in blocks.
        labels: int array `(num_pictures,)`.
        groups: list of lists of indices. Pictures that are left out together.

    Returns:
        float32 array `(num_pictures, num_classes)`.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    fitted = _Ridge(features, codes, len(classes))
    scores = fitted.held_out(groups)
    found, scale = np.zeros((len(labels), int(classes.max()) + 1), np.float32), _scale(scores, codes)
    for start in range(0, len(scores), _BLOCK):
        part = slice(start, start + _BLOCK)
        found[part, classes] = np.exp(log_softmax(scale * scores[part], axis=1))
    return found


def _scale(scores: np.ndarray, codes: np.ndarray) -> float:
    """Returns the factor that makes calibrated logits of scores: that of the least cross-entropy."""
    some = slice(None, None, -(-len(codes) // _MOST_FOR_SCALE))
    scores, codes = scores[some].astype(np.float64), codes[some]
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
        strength = self._best_strength(groups)
        found = np.empty((len(self.features), self.num_classes), np.float32)
        for places, block in self._raw():
            targets, scores, leverage = self._answers((places, block), strength)
            left = (targets - scores[..., 0]) / (1 - leverage)
            found[places] = targets + self.shares - left
        for group in groups:
            found[group] = self._without(np.array(group), strength)
        return found

    def _best_strength(self, groups: list[list[int]]) -> np.ndarray:
        """Returns the penalty with the least squared error of pictures that are left out one at a time.

        Those in groups do not count, as the others of their group would answer for them.
        """
        counts = np.ones(len(self.features), bool)
        counts[[index for group in groups for index in group]] = False
        if not counts.any():
            counts[:] = True
        errors = np.zeros(len(_STRENGTHS))
        for block in self._raw():
            targets, scores, leverage = self._answers(block, _STRENGTHS)
            left = (targets[..., None] - scores) / (1 - leverage)[:, None]
            errors += np.square(left[counts[block[0]]]).sum((0, 1))
        return _STRENGTHS[[int(np.argmin(errors))]]

    def _without(self, group: np.ndarray, strength: np.ndarray) -> np.ndarray:
        """Returns the scores of a group of pictures by the fit to all the others."""
        targets, scores, _ = self._answers((group, self.features[group]), strength)
        along = np.column_stack([self._along(self.features[group]), np.ones(len(group))]).astype(np.float64)
        penalised = np.append(self.variances + strength * self.unit, len(self.features))
        errors = targets - scores[..., 0]
        if len(group) <= len(penalised):
            left = np.linalg.solve(np.eye(len(group)) - (along / penalised) @ along.T, errors)
        else:  # Woodbury's identity: the system is as large as the features, however many pictures there are
            left = errors + along @ np.linalg.solve(np.diag(penalised) - along.T @ along, along.T @ errors)
        return targets + self.shares - left

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
