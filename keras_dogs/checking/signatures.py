"""Perceptual signatures of pictures, by which those that may show the same are found.

A signature is the lowest frequencies of a grey picture (a discrete cosine transform, as Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010, uses), without the mean and at length one: brightness, contrast
and colours have no part in it, and neither has fine detail. Its numbers are kept as they are, not cut down to bits: a
crop that changes a quarter of the bits leaves the numbers nearer than those of any other picture.
"""

import numpy as np
import scipy.fft

FREQUENCIES = 5  # in each direction
_BLOCK = 8192  # pictures at a time: 128 MiB


def signatures_of(grey: np.ndarray) -> np.ndarray:
    """Computes signatures.

    Args:
        grey: uint8 array `(num_pictures, side, side)`.

    Returns:
        float32 array `(num_pictures, 25)`, of which the first number is 0.
    """
    found = np.empty((len(grey), FREQUENCIES**2), np.float32)
    for start in range(0, len(grey), _BLOCK):
        part = scipy.fft.dctn(grey[start : start + _BLOCK].astype(np.float32), axes=(1, 2), norm="ortho")
        lowest = part[:, :FREQUENCIES, :FREQUENCIES].reshape(len(part), -1)
        lowest[:, 0] = 0
        found[start : start + _BLOCK] = lowest / np.maximum(np.linalg.norm(lowest, axis=1, keepdims=True), 1e-6)
    return found
