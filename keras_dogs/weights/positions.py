"""Position embeddings of a ViT at another resolution, in NumPy: the same on every backend.

A table of learned positions is a small picture of vectors, resized as pictures are. Bicubic with antialiasing is timm's
way (`timm/layers/pos_embed.py`), without it Hugging Face's and DINOv2's (`interpolate_pos_encoding`), linear between
corners the ViT paper's (arXiv 2010.11929, section 3.2; `scipy.ndimage.zoom` in vision_transformer's `checkpoint.py`).
"""

import math

import numpy as np

METHODS = ("bicubic", "bicubic_plain", "linear")


def resample_positions(table, grid: tuple[int, int], num_prefix: int, method: str = "bicubic") -> np.ndarray:
    """Resizes the positions of the patches; those of class and distillation tokens stay as they are.

    Args:
        table: float array `(positions, hidden)`: `num_prefix` tokens, then a square grid of patches, row by row.
        grid: pair of ints. Rows and columns of patches that are wanted.
        num_prefix: int. How many tokens stand before the patches. If the table has none for them, they get zeros.
        method: str. `"bicubic"` (antialiased), `"bicubic_plain"` (not antialiased) or `"linear"` (the paper's).

    Returns:
        float32 array `(num_prefix + rows * columns, hidden)`.

    Raises:
        ValueError: the patches of `table` form no square, or the method is unknown.
    """
    table = np.asarray(table, np.float32)
    if math.isqrt(len(table)) ** 2 == len(table):  # patches alone
        table = np.concatenate([np.zeros((num_prefix, table.shape[1]), np.float32), table])
    prefix, patches = table[:num_prefix], table[num_prefix:]
    side = math.isqrt(len(patches))
    if side * side != len(patches):
        raise ValueError(f"{len(patches)} positions of patches form no square")
    if (side, side) == tuple(grid):
        return table
    picture = patches.reshape(side, side, -1).astype(np.float64)
    rows, columns = (_weights(side, wanted, method) for wanted in grid)
    resized = np.einsum("ih,jw,hwc->ijc", rows, columns, picture, optimize=True)
    return np.concatenate([prefix, resized.reshape(grid[0] * grid[1], -1).astype(np.float32)])


def _weights(size: int, wanted: int, method: str) -> np.ndarray:
    """How much of each old place is in each new one: `(wanted, size)`; rows sum to 1."""
    if method == "linear":
        places = np.linspace(0, size - 1, wanted)
        return np.maximum(1 - np.abs(places[:, None] - np.arange(size)), 0)
    if method not in METHODS:
        raise ValueError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    scale = size / wanted
    centres = (np.arange(wanted) + 0.5) * scale - 0.5
    if method == "bicubic":
        # As Pillow and PyTorch (antialias=True): a kernel as wide as the reduction; what lies outside is left out.
        reach = max(scale, 1.0)
        weights = _cubic((np.arange(size) - centres[:, None]) / reach, -0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    # As PyTorch (antialias=False): four neighbours, the border repeated.
    weights = np.zeros((wanted, size))
    for offset in range(-1, 3):
        neighbours = np.floor(centres).astype(int) + offset
        values = _cubic(neighbours - centres, -0.75)
        np.add.at(weights, (np.arange(wanted), np.clip(neighbours, 0, size - 1)), values)
    return weights


def _cubic(distance, a: float):
    """The cubic convolution kernel (Keys, 1981)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
