"""Logits -> what a user is told: calibrated probabilities, the breeds of a set, how strange a picture is.

Exported models take this file along as it is: it needs NumPy alone.
"""

import numpy as np

# A picture that is stranger than this share of the validation pictures is called unfamiliar.
UNFAMILIAR = 0.95
# The coverages, in per cent, that `set_thresholds` has a number for.
LEAST_COVERAGE, MOST_COVERAGE = 50, 99


def probabilities_of(logits, temperature: float | None) -> np.ndarray:
    """Returns the softmax of logits over a temperature (1 for `None`), float64 `(num_pictures, num_classes)`."""
    scaled = np.asarray(logits, np.float64) / (temperature or 1.0)
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def strangeness_of(logits) -> np.ndarray:
    """Returns how strange each picture is: its greatest logit, negated (Hendrycks et al., arXiv 1911.11132).

    It was the best of five scores, before energy; `benchmarks/unfamiliar.py` has the others.
    """
    return -np.asarray(logits, np.float64).max(axis=1)


def unfamiliarity_of(logits, percentiles) -> np.ndarray:
    """Returns which share of the validation pictures is more familiar than each picture, in [0, 1].

    Args:
        logits: float array `(num_pictures, num_classes)`.
        percentiles: sequence of float. `strangeness_of` validation pictures at 0, 1, ..., 100 per cent.
    """
    return np.interp(strangeness_of(logits), percentiles, np.linspace(0, 1, len(percentiles)))


def order_of(probabilities) -> np.ndarray:
    """Returns the classes of one picture, most probable first; of equal ones the first."""
    return np.argsort(-np.asarray(probabilities), kind="stable")


def set_of(probabilities, threshold: float) -> np.ndarray:
    """Returns the classes of one picture that are at least as probable as a threshold, or the most probable one.

    They are a set that holds the right class as often as was asked for, and on average the smallest such set (Sadinle
    et al., arXiv 1609.00451, section 2).
    """
    order = order_of(probabilities)
    return order[: max(int((np.asarray(probabilities) >= threshold).sum()), 1)]


def threshold_for(coverage: float, set_thresholds) -> float | None:
    """Returns the threshold of the sets with a coverage, in (0, 1), or the next greater one; `None` where unknown."""
    place = int(np.ceil(round(100 * coverage, 6))) - LEAST_COVERAGE
    return set_thresholds[place] if 0 <= place < len(set_thresholds) else None
