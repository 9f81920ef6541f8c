"""Finds labels that are probably wrong, by confident learning.

The method is that of Northcutt, Jiang and Chuang, JAIR 70, 2021 (arXiv 1911.00068). A picture is suspect where a probe
that has not learned from it answers another class, and is as confident of that class as it is, on average, of the
class's own pictures; or where it gives the label less than one chance in a hundred. Classes that the features cannot
tell apart are named as such, and no picture is suspect for being taken for the other of the two.
"""

from typing import NamedTuple

import numpy as np

# Two classes are told apart where the probe prefers the right one of them for this share of the pictures of each.
_TOLD_APART = 0.75
_IMPROBABLE = 0.01  # of the given class: whatever the picture shows, it is not that
_LEAST_OF_A_CLASS = 3  # pictures; of fewer, nobody knows how sure the probe is of such


class Suspect(NamedTuple):
    """A picture whose label is probably wrong.

    Attributes:
        index: int. Of the picture.
        likely: int. The class that it probably is.
        given_probability, likely_probability: float. By the probe, of the given and of the likely class.
    """

    index: int
    likely: int
    given_probability: float
    likely_probability: float


class Alike(NamedTuple):
    """Two classes that the features cannot tell apart.

    Attributes:
        first, second: int. The classes.
        told_apart: float. The share of their pictures for which the probe prefers the right one of the two.
    """

    first: int
    second: int
    told_apart: float


def find_suspects(probabilities: np.ndarray, labels: np.ndarray) -> tuple[list[Suspect], list[Alike]]:
    """Finds labels that are probably wrong, and classes that cannot be told apart.

    Suspects are sorted by the probability of the given class, the lowest first ("self-confidence"): two breeds that are
    easily confused leave each other some probability, a slip of the hand leaves none.

    Args:
        probabilities: float array `(num_pictures, num_classes)`, of pictures that were held out.
        labels: int array `(num_pictures,)`.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.flatnonzero(np.bincount(labels) >= _LEAST_OF_A_CLASS):
        thresholds[label] = own[labels == label].mean()
    likely = np.where(probabilities >= thresholds, probabilities, 0).argmax(axis=1)
    of_likely = probabilities[rows, likely]
    first = probabilities.argmax(axis=1)
    is_confident = (of_likely >= thresholds[likely]) & (likely != labels)
    likely = np.where(is_confident, likely, first)
    is_off = (first != labels) & (is_confident | (own < _IMPROBABLE))
    of_likely = probabilities[rows, likely]
    alike = _alike(probabilities, labels, np.column_stack([labels, likely])[is_off])
    pairs = {frozenset((each.first, each.second)) for each in alike}
    found = [
        Suspect(int(index), int(likely[index]), round(float(own[index]), 4), round(float(of_likely[index]), 4))
        for index in np.flatnonzero(is_off)[np.argsort(own[is_off], kind="stable")]
        if frozenset((int(labels[index]), int(likely[index]))) not in pairs
    ]
    return found, alike


def _alike(probabilities: np.ndarray, labels: np.ndarray, taken: np.ndarray) -> list[Alike]:
    """Returns the pairs of confused classes that the probe cannot tell apart in either direction."""
    pairs = sorted({(min(pair), max(pair)) for pair in map(tuple, taken.tolist())})
    found = []
    for first, second in pairs:
        prefers = [
            (probabilities[labels == one, one] > probabilities[labels == one, other])
            for one, other in ((first, second), (second, first))
        ]
        if all(part.mean() < _TOLD_APART for part in prefers):
            found.append(Alike(first, second, round(float(np.concatenate(prefers).mean()), 3)))
    return sorted(found, key=lambda each: each.told_apart)
