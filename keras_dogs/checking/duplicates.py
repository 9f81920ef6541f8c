"""Groups of pictures that show the same: equal files, equal pixels, or the same picture changed a little."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from keras_dogs.checking import orientations
from keras_dogs.checking import proposals
from keras_dogs.checking import registration
from keras_dogs.checking import signatures
from keras_dogs.checking.looks import Look
from keras_dogs.system import progress

# From the surest on.
KINDS = ("equal file", "equal pixels", "near", "mirrored", "turned")
_KIND_OF = {0: "near", orientations.MIRRORED: "mirrored"}


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
    # The first picture of each group that grew proposes again, without the rest of its group, which took its places.
    queries = others
    while len(queries):
        found = _alike(grey[others], np.searchsorted(others, queries))
        ties += [(int(others[first]), int(others[second]), kind, fit) for first, second, kind, fit in found]
        group_of = _components(ties, len(looks))
        _, firsts = np.unique(group_of[others], return_index=True)
        grown = group_of[[int(others[first]) for first, *_ in found]]
        others = others[np.sort(firsts)]
        queries = others[np.isin(group_of[others], grown)]
    return _grouped(ties, len(looks))


def _alike(grey: np.ndarray, queries: np.ndarray) -> list[tuple[int, int, int, float]]:
    """Returns the ties of pictures to others that show the same, changed a little."""
    of_all, steps = signatures.signatures_of(grey), proposals.num_steps(len(grey))
    with progress.counting("Looking for pictures that are alike (steps)", steps) as on_step:
        proposed = proposals.propose(of_all, queries, on_step)
    with progress.counting("Laying pictures over each other (pairs)", len(proposed)) as on_pairs:
        confirmed = registration.confirm(grey, proposed, on_pairs)
    return [
        (first, second, KINDS.index(_KIND_OF.get(orientation, "turned")), fit.correlation)
        for first, second, orientation, fit in confirmed
    ]


def _readable(looks) -> list[int]:
    return [index for index, look in enumerate(looks) if look is not None]


def _equal(looks, name: str, kind: int) -> list[tuple[int, int, int, float]]:
    """Returns a tie from each picture to the first that is equal to it."""
    first, ties = {}, []
    for index in _readable(looks):
        digest = getattr(looks[index], name)
        found = first.setdefault(digest, index)
        if digest and found != index:
            ties.append((found, index, kind, 1.0))
    return ties


def _components(ties, count: int) -> np.ndarray:
    """Returns the number of the group that each picture is in, of one or more."""
    ends = np.array([tie[:2] for tie in ties], np.int64).reshape(-1, 2)
    graph = scipy.sparse.coo_matrix((np.ones(len(ends)), tuple(ends.T)), (count, count))
    return connected_components(graph, directed=False)[1]


def _grouped(ties, count: int) -> list[list[Member]]:
    group_of = _components(ties, count)
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
