"""Perceptual signatures of pictures, and which pairs are alike enough to be looked at closely.

A signature is the lowest frequencies of a grey picture (a discrete cosine transform, as Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010, uses), without the mean and at length one: brightness, contrast
and colours have no part in it, and neither has fine detail. Its numbers are kept as they are, not cut down to bits: a
crop that changes a quarter of the bits leaves the numbers nearer than those of any other picture.
"""

import numpy as np
import scipy.fft

_FREQUENCIES = 5  # in each direction
_LEAST = 0.8  # cosine of the signatures of a pair that is proposed; crops of 8 % have 0.81 and more
_MOST = 4  # proposals a picture
_ROWS, _COLUMNS = 1024, 8192  # of a block of cosines: 32 MiB


def signatures_of(grey: np.ndarray) -> np.ndarray:
    """Computes signatures.

    Args:
        grey: uint8 array `(num_pictures, side, side)`.

    Returns:
        float32 array `(num_pictures, 24)`.
    """
    found = np.empty((len(grey), _FREQUENCIES**2 - 1), np.float32)
    for start in range(0, len(grey), _COLUMNS):
        part = scipy.fft.dctn(grey[start : start + _COLUMNS].astype(np.float32), axes=(1, 2), norm="ortho")
        lowest = part[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(part), -1)[:, 1:]
        found[start : start + _COLUMNS] = lowest / np.maximum(np.linalg.norm(lowest, axis=1, keepdims=True), 1e-6)
    return found


def mirrored(signatures: np.ndarray) -> np.ndarray:
    """Returns the signatures of the pictures in a mirror: every odd horizontal frequency changes its sign."""
    signs = np.tile((-1.0) ** np.arange(_FREQUENCIES), _FREQUENCIES)[1:]
    return signatures * signs.astype(np.float32)


def propose(signatures: np.ndarray) -> np.ndarray:
    """Finds the pairs of pictures that may show the same.

    All pairs are compared, a block at a time: the time grows with the square of their number, at 25 numbers a pair.

    Args:
        signatures: float32 array `(num_pictures, 24)`.

    Returns:
        int64 array `(num_pairs, 3)`: two indices, the lesser first, and whether the second is to be mirrored. Each
        picture proposes the four others that are most alike, at the most.
    """
    pairs = [_nearest(queries, signatures) for queries in (signatures, mirrored(signatures))]
    found = [
        np.column_stack([np.sort(each, axis=1), np.full(len(each), is_mirrored)])
        for is_mirrored, each in enumerate(pairs)
    ]
    return np.unique(np.concatenate(found), axis=0)


def _nearest(queries: np.ndarray, signatures: np.ndarray) -> np.ndarray:
    """Returns the pairs of a query and one of its nearest other signatures: int64 `(num_pairs, 2)`."""
    pairs = []
    for start in range(0, len(queries), _ROWS):
        rows, columns, cosines = [], [], []
        for first in range(0, len(signatures), _COLUMNS):
            found = queries[start : start + _ROWS] @ signatures[first : first + _COLUMNS].T
            row, column = _greatest(found)
            rows.append(row), columns.append(first + column), cosines.append(found[row, column])
        row, column = np.concatenate(rows), np.concatenate(columns)
        order = np.lexsort((column, -np.concatenate(cosines), row))
        row, column = row[order], column[order]
        is_other = row + start != column
        row, column = row[is_other], column[is_other]
        place = np.arange(len(row)) - np.searchsorted(row, row)  # 0 for the nearest of each
        pairs.append(np.column_stack([row + start, column])[place < _MOST])
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)


def _greatest(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of cosines that are great enough; of each row no more than are needed."""
    is_near = cosines > _LEAST
    many = np.flatnonzero(is_near.sum(axis=1) > _MOST + 1)  # one is the picture itself
    if len(many):
        least = -np.partition(-cosines[many], _MOST, axis=1)[:, _MOST : _MOST + 1]
        is_near[many] &= cosines[many] >= least
    return np.nonzero(is_near)
