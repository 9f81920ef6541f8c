"""What the writers of folders for other libraries have in common: `hugging_face.py`, `timm.py`."""

from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from keras_dogs.errors import UserError
from keras_dogs.models.weights.loaded import Loaded

_DIGITS = 12  # of mean and deviation: 0.485 and not 0.48500000000000004, and the same in float32


class Canvas(NamedTuple):
    """How our picture files become the input of the crop: see `layers.RandomResizedCrop.canvas`.

    Attributes:
        size: int or pair of ints. Pixels.
        fit: str. `"squash"`, `"crop"` or `"pad"`.
        interpolation: str. `"bilinear"` or `"bicubic"`.
    """

    size: int | tuple[int, int]
    fit: str
    interpolation: str


class Written(NamedTuple):
    """What a writer has made of a classifier.

    Attributes:
        configs: dict of file name to dict. The JSON files of the folder.
        tensors: dict of str to array. What `model.safetensors` holds.
        notes: tuple of str. What the format cannot hold as it is here, in words.
    """

    configs: dict[str, dict[str, Any]]
    tensors: dict[str, np.ndarray]
    notes: tuple[str, ...]


def write_tensors(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes safetensors as PyTorch's libraries take them; batch norms get the counter that PyTorch keeps."""
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for name in tensors
        if name.endswith("running_mean")
    }
    save_file(tensors | counters, file, metadata={"format": "pt"})


def mean_and_deviation(loaded: Loaded) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of pixels in [0, 1], a channel: what other libraries keep."""
    deviation = [1 / (255 * scale) for scale in loaded.scale]
    mean = [-offset * each for offset, each in zip(loaded.offset, deviation)]
    return [_rounded(value) for value in mean], [_rounded(value) for value in deviation]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") + 0.0  # and no -0.0


def two_heads(names: tuple[str, str], kernels: tuple[np.ndarray, np.ndarray], bias: np.ndarray) -> dict:
    """Returns the tensors of two heads, named, whose mean is one head on both kernels' features."""
    tensors = {}
    for name, kernel in zip(names, kernels):
        tensors |= {f"{name}.weight": np.ascontiguousarray(2 * kernel.T), f"{name}.bias": bias}
    return tensors


def refuse(loaded: Loaded, library: str) -> None:
    """Refuses what neither transformers nor timm can hold: a layer between the pooling and the head.

    Raises:
        UserError: there is one.
    """
    if loaded.head.pre_logits:
        raise UserError(f"{library} has no place for the layer before the head (pre-logits) of these weights")
    if loaded.pooling in ("average_of_tokens", "own"):
        raise UserError(f"{library} has no pooling of this kind ({loaded.pooling})")


def square_side(loaded: Loaded) -> int | None:
    """Returns the side of a square input, pixels; `None` where it is none."""
    rows, columns = loaded.image_size
    return rows if rows == columns else None


def resize_note(loaded: Loaded, canvas: Canvas, library: str) -> tuple[str, ...]:
    """Returns the note for pictures that are resized twice by us and once by the library."""
    own = canvas.size if isinstance(canvas.size, tuple) else (canvas.size, canvas.size)
    if own == tuple(loaded.image_size):
        return ()
    sizes = f"{_by(own)} and then to {_by(loaded.image_size)}"
    return (f"keras_dogs resizes a picture to {sizes} pixels, {library} at once to the latter",)


def _by(size) -> str:
    return f"{size[0]} x {size[1]}"
