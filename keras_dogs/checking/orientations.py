"""The eight ways to turn and mirror a picture, the same for pixels and for the frequencies of a signature.

An orientation is a number of three bits: 1 mirrors left and right, 2 mirrors top and bottom, and 4 then exchanges rows
and columns. 0 leaves a picture as it is.
"""

import numpy as np

ALL = range(8)
MIRRORED = 1
# Of a quarter turn, the one in the other direction; all others undo themselves.
_INVERSES = np.array([0, 1, 2, 3, 4, 6, 5, 7])


def inverses_of(orientations: np.ndarray) -> np.ndarray:
    """Returns the orientations that undo others: int array of the same shape."""
    return _INVERSES[orientations]


def of_pictures(pictures: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Orients pictures `(num_pictures, side, side)`, each in its own way."""
    oriented = pictures.copy()
    for bit, turned in ((1, oriented[:, :, ::-1]), (2, oriented[:, ::-1]), (4, oriented.transpose(0, 2, 1))):
        those = (orientations & bit) > 0
        oriented[those] = turned[those]
    return oriented


def of_frequencies(frequencies: np.ndarray, orientation: int) -> np.ndarray:
    """Orients the frequencies `(num_pictures, rows, columns)` of a cosine transform, all in one way."""
    signs = (-1.0) ** np.arange(frequencies.shape[-1])
    if orientation & 1:
        frequencies = frequencies * signs
    if orientation & 2:
        frequencies = frequencies * signs[:, None]
    return frequencies.transpose(0, 2, 1) if orientation & 4 else frequencies
