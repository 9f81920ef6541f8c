"""Which pairs of pictures are alike enough to be laid over each other.

Signatures are divided into cells of those that are near each other (k-means, Lloyd, IEEE Transactions on Information
Theory 28, 1982, for directions), and a picture is compared with those in the cells that are nearest to it (an inverted
file: Jegou, Douze and Schmid, IEEE Transactions on Pattern Analysis and Machine Intelligence 33, 2011). The time grows
with the number of pictures. Up to 8,192 pictures all are compared with all.
"""

import numpy as np

from keras_dogs.checking import orientations
from keras_dogs.checking.signatures import FREQUENCIES

_LEAST = 0.8  # cosine of the signatures of a pair that is proposed; crops of 8 % have 0.81 and more
_MOST = 4  # proposals a picture and orientation
# Of 1,200 photographs among 100,000 others, cells of 256 found every crop of 8 % and every rotation by 3 degrees.
_CELL, _NEAREST = 512, 16  # pictures a cell on the mean, and the cells that a picture is compared with
_STEPS = 8  # of k-means
_ROWS, _COLUMNS = 4096, 8192  # of a block of cosines: 128 MiB


def num_steps(num_pictures: int) -> int:
    """Returns how often `propose` calls `on_step`."""
    return len(orientations.ALL) * _num_cells(num_pictures)


def propose(signatures: np.ndarray, queries: np.ndarray, on_step=lambda: None) -> np.ndarray:
    """Finds the pairs of pictures that may show the same.

    Args:
        signatures: float32 array `(num_pictures, 25)`.
        queries: int array. The pictures that propose others: the four that are most alike in each orientation.
        on_step: function of no argument, called `num_steps(num_pictures)` times.

    Returns:
        int64 array `(num_pairs, 3)`: two indices, the lesser first, and the orientation that the second is to be given.
    """
    pairs = [np.zeros((0, 3), np.int64)]
    centers, members = _cells(signatures)
    frequencies = signatures[queries].reshape(len(queries), FREQUENCIES, FREQUENCIES)
    for orientation in orientations.ALL:
        oriented = orientations.of_frequencies(frequencies, orientation).reshape(len(queries), -1).astype(np.float32)
        row, column = _nearest(oriented, queries, signatures, centers, members, on_step)
        pairs.append(np.column_stack([column, queries[row], np.full(len(row), orientation)]))
    found = np.concatenate(pairs)
    swapped = found[:, 0] > found[:, 1]
    found[swapped] = np.column_stack(
        [found[swapped, 1], found[swapped, 0], orientations.inverses_of(found[swapped, 2])]
    )
    return np.unique(found, axis=0)


def _num_cells(num_pictures: int) -> int:
    return -(-num_pictures // _CELL)


def _cells(signatures: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the centers of the cells, `(num_cells, 25)`, and the pictures in each."""
    count = _num_cells(len(signatures))
    centers = signatures[::_CELL]
    for _ in range(_STEPS if count > _NEAREST else 0):
        cell = _nearest_cells(signatures, centers, 1)[:, 0]
        sums = np.zeros_like(centers)
        np.add.at(sums, cell, signatures)
        centers = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    cell = _nearest_cells(signatures, centers, 1)[:, 0]
    return centers, np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=count))[:-1])


def _nearest_cells(signatures: np.ndarray, centers: np.ndarray, count: int) -> np.ndarray:
    """Returns the `count` cells that are nearest to each signature, or all: int array `(num_signatures, count)`."""
    count = min(count, len(centers))
    found = np.empty((len(signatures), count), np.int64)
    for start in range(0, len(signatures), _ROWS):
        distances = -(signatures[start : start + _ROWS] @ centers.T)
        found[start : start + _ROWS] = np.argpartition(distances, count - 1, axis=1)[:, :count]
    return found


def _nearest(oriented, own, signatures, centers, members, on_step) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs, as two arrays: a row of `oriented`, and the index of a signature near it other than its own."""
    places = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    least = np.full((len(oriented), 1), _LEAST, np.float32)  # it rises: what is not among the nearest so far is none
    cells = _nearest_cells(oriented, centers, _NEAREST)
    asking = np.argsort(cells, axis=None, kind="stable") // cells.shape[1]
    rows_of = np.split(asking, np.cumsum(np.bincount(cells.ravel(), minlength=len(centers)))[:-1])
    for rows, columns in zip(rows_of, members):
        for first in range(0, len(rows), _ROWS):
            block = rows[first : first + _ROWS]
            for start in range(0, len(columns), _COLUMNS):
                places.append(_greatest(oriented, block, signatures, columns[start : start + _COLUMNS], least))
        on_step()
    row, column, cosine = map(np.concatenate, zip(*places))
    order = np.lexsort((column, -cosine, row))
    row, column = row[order], column[order]
    is_other = own[row] != column
    row, column = row[is_other], column[is_other]
    is_near = np.arange(len(row)) - np.searchsorted(row, row) < _MOST  # counted from the nearest of each row
    return row[is_near], column[is_near]


def _greatest(oriented, rows, signatures, columns, least) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows and columns whose cosine is at least `least`, and the cosine; `least` is raised where many are."""
    cosines, bounds = oriented[rows] @ signatures[columns].T, least[rows]
    is_near = cosines >= bounds
    many = np.flatnonzero(is_near.sum(axis=1) > _MOST + 1)  # one is the picture itself
    if len(many):
        bounds = -np.partition(-cosines[many], _MOST, axis=1)[:, _MOST : _MOST + 1]
        is_near[many] &= cosines[many] >= bounds
        least[rows[many]] = bounds
    row, column = np.nonzero(is_near)
    return rows[row], columns[column], cosines[row, column]
