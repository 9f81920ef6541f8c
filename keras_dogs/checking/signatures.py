"""Perceptual signatures of pictures, and which pairs are alike enough to be looked at closely.

A signature is the lowest frequencies of a grey picture (a discrete cosine transform, as Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010, uses), without the mean and at length one: brightness, contrast
and colours have no part in it, and neither has fine detail. Its numbers are kept as they are, not cut down to bits: a
crop that changes a quarter of the bits leaves the numbers nearer than those of any other picture.
"""

import numpy as np
import scipy.fft

from keras_dogs.checking import orientations

_FREQUENCIES = 5  # in each direction
_LEAST = 0.8  # cosine of the signatures of a pair that is proposed; crops of 8 % have 0.81 and more
_MOST = 4  # proposals a picture and orientation
ROWS, _COLUMNS = 1024, 8192  # of a block of cosines: 32 MiB


def signatures_of(grey: np.ndarray) -> np.ndarray:
    """Computes signatures.

    Args:
        grey: uint8 array `(num_pictures, side, side)`.

    Returns:
        float32 array `(num_pictures, 25)`, of which the first number is 0.
    """
    found = np.empty((len(grey), _FREQUENCIES**2), np.float32)
    for start in range(0, len(grey), _COLUMNS):
        part = scipy.fft.dctn(grey[start : start + _COLUMNS].astype(np.float32), axes=(1, 2), norm="ortho")
        lowest = part[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(part), -1)
        lowest[:, 0] = 0
        found[start : start + _COLUMNS] = lowest / np.maximum(np.linalg.norm(lowest, axis=1, keepdims=True), 1e-6)
    return found


def propose(signatures: np.ndarray, queries: np.ndarray, on_block=lambda: None) -> np.ndarray:
    """Finds the pairs of pictures that may show the same.

    Every query is compared with every picture, a block at a time: where all are queries, the time grows with the square
    of their number, at 200 numbers a pair.

    Args:
        signatures: float32 array `(num_pictures, 25)`.
        queries: int array. The pictures that propose others: the four that are most alike in each orientation.
        on_block: function of no argument, called after each `ROWS` queries.

    Returns:
        int64 array `(num_pairs, 3)`: two indices, the lesser first, and the orientation that the second is to be given.
    """
    pairs = [np.zeros((0, 3), np.int64)]
    for start in range(0, len(queries), ROWS):
        block = queries[start : start + ROWS]
        frequencies = signatures[block].reshape(len(block), _FREQUENCIES, _FREQUENCIES)
        for orientation in orientations.ALL:
            oriented = orientations.of_frequencies(frequencies, orientation).reshape(len(block), -1)
            row, column = _nearest(oriented.astype(np.float32), signatures, block)
            pairs.append(np.column_stack([column, block[row], np.full(len(row), orientation)]))
        on_block()
    found = np.concatenate(pairs)
    swapped = found[:, 0] > found[:, 1]
    found[swapped] = np.column_stack(
        [found[swapped, 1], found[swapped, 0], orientations.inverses_of(found[swapped, 2])]
    )
    return np.unique(found, axis=0)


def _nearest(block: np.ndarray, signatures: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of a block, and for each the places of the nearest signatures, its own left out."""
    rows, columns, cosines = [], [], []
    least = np.full((len(block), 1), _LEAST, np.float32)  # it rises: what is not among the nearest so far is none
    for first in range(0, len(signatures), _COLUMNS):
        found = block @ signatures[first : first + _COLUMNS].T
        row, column = _greatest(found, least)
        rows.append(row)
        columns.append(first + column)
        cosines.append(found[row, column])
    row, column = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort((column, -np.concatenate(cosines), row))
    row, column = row[order], column[order]
    is_other = own[row] != column
    row, column = row[is_other], column[is_other]
    is_near = np.arange(len(row)) - np.searchsorted(row, row) < _MOST  # counted from the nearest of each row
    return row[is_near], column[is_near]


def _greatest(cosines: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of cosines that are at least `least`, `(rows, 1)`, which is raised where there are many."""
    is_near = cosines >= least
    many = np.flatnonzero(is_near.sum(axis=1) > _MOST + 1)  # one is the picture itself
    if len(many):
        least[many] = -np.partition(-cosines[many], _MOST, axis=1)[:, _MOST : _MOST + 1]
        is_near[many] &= cosines[many] >= least[many]
    return np.nonzero(is_near)
