"""Groups of pictures that show the same: equal files, equal pixels, or the same picture changed a little."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from keras_dogs.checking import registration
from keras_dogs.checking import signatures
from keras_dogs.checking.looks import Look
from keras_dogs.system import progress

# From the surest on.
KINDS = ("equal file", "equal pixels", "near", "mirrored")


class Member(NamedTuple):
    """A picture of a group.

    Attributes:
        index: int. Of the picture.
        kind: str. The surest of `KINDS` by which it is tied to another one of the group.
        correlation: float. Of the grey levels, where they lie best; 1 of equal pictures.
    """

    index: int
    kind: str
    correlation: float


def find_groups(looks: list[Look | None], grey: np.ndarray) -> list[list[Member]]:
    """Finds the groups of two or more pictures that show the same.

    Args:
        looks: list of `Look`; `None` of pictures that are unreadable.
        grey: uint8 array `(num_pictures, 64, 64)`.

    Returns:
        The groups by their first member; members by index.
    """
    ties = _equal(looks, "content", 0) + _equal(looks, "pixels", 1)
    others = np.setdiff1d(_readable(looks), [second for _, second, *_ in ties]).astype(np.int64)
    proposed = signatures.propose(signatures.signatures_of(grey[others])) if len(others) else np.zeros((0, 3), int)
    with progress.counting("Comparing pairs", len(proposed)) as on_pair:
        for first, second, is_mirrored, fit in registration.confirm(grey[others], proposed, on_pair):
            ties.append((int(others[first]), int(others[second]), 2 + is_mirrored, fit.correlation))
    return _grouped(ties, len(looks))


def _readable(looks) -> list[int]:
    return [index for index, look in enumerate(looks) if look is not None]


def _equal(looks, name: str, kind: int) -> list[tuple[int, int, int, float]]:
    """Returns a tie from each picture to the first that is equal to it."""
    first, ties = {}, []
    for index in _readable(looks):
        found = first.setdefault(getattr(looks[index], name), index)
        if found != index:
            ties.append((found, index, kind, 1.0))
    return ties


def _grouped(ties, count: int) -> list[list[Member]]:
    if not ties:
        return []
    rows, columns, *_ = zip(*ties)
    graph = scipy.sparse.coo_matrix((np.ones(len(ties)), (rows, columns)), (count, count))
    _, group_of = connected_components(graph, directed=False)
    surest: dict[int, tuple[int, float]] = {}
    for first, second, kind, correlation in ties:
        for index in (first, second):
            rank = (kind, -correlation)
            surest[index] = min(surest.get(index, rank), rank)
    groups: dict[int, list[Member]] = {}
    for index in sorted(surest):
        kind, correlation = surest[index]
        groups.setdefault(int(group_of[index]), []).append(Member(index, KINDS[kind], round(-correlation, 3)))
    return list(groups.values())
