"""Position embeddings of a ViT at another resolution, in NumPy: the same on every backend.

A table of learned positions is a small picture of vectors, resized as pictures are. Bicubic with antialiasing is timm's
way (`timm/layers/pos_embed.py`), without it Hugging Face's and DINOv2's (`interpolate_pos_encoding`), linear between
corners the ViT paper's (arXiv 2010.11929, section 3.2; `scipy.ndimage.zoom` in vision_transformer's `checkpoint.py`).
"""

import math

import numpy as np

METHODS = ("bicubic", "bicubic_plain", "linear")


def resample_positions(
    table, grid: tuple[int, int], num_prefix: int, method: str = "bicubic", old_grid: tuple[int, int] | None = None
) -> np.ndarray:
    """Resizes the positions of the patches; those of class and distillation tokens stay as they are.

    Args:
        table: float array `(positions, hidden)`: `num_prefix` tokens, then a grid of patches, row by row.
        grid: pair of ints. Rows and columns of patches that are wanted.
        num_prefix: int. How many tokens stand before the patches. If the table has none for them, they get zeros.
        method: str. `"bicubic"` (antialiased), `"bicubic_plain"` (not antialiased) or `"linear"` (the paper's).
        old_grid: pair of ints or `None`. Rows and columns of patches in `table`; `None` is a square.

    Returns:
        float32 array `(num_prefix + rows * columns, hidden)`.

    Raises:
        ValueError: the patches of `table` form no such grid, or the method is unknown.
    """
    table = np.asarray(table, np.float32)
    if len(table) == (math.prod(old_grid) if old_grid else math.isqrt(len(table)) ** 2):  # patches alone
        table = np.concatenate([np.zeros((num_prefix, table.shape[1]), np.float32), table])
    prefix, patches = table[:num_prefix], table[num_prefix:]
    old_grid = tuple(old_grid or (math.isqrt(len(patches)),) * 2)
    if math.prod(old_grid) != len(patches):
        what = "no square" if old_grid[0] == old_grid[1] else f"no grid of {old_grid[0]} x {old_grid[1]}"
        raise ValueError(f"{len(patches)} positions of patches form {what}")
    if old_grid == tuple(grid):
        return table
    picture = patches.reshape(*old_grid, -1).astype(np.float64)
    rows, columns = (_weights(side, wanted, method) for side, wanted in zip(old_grid, grid))
    resized = np.einsum("ih,jw,hwc->ijc", rows, columns, picture, optimize=True)
    return np.concatenate([prefix, resized.reshape(grid[0] * grid[1], -1).astype(np.float32)])


def _weights(size: int, wanted: int, method: str) -> np.ndarray:
    """Returns the weight of each old place in each new one: `(wanted, size)`; rows sum to 1."""
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
    """Returns the cubic convolution kernel (Keys, 1981)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
