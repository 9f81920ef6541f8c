"""Moves tensors of a checkpoint into the weights of a model and back, and leaves none of either unaccounted for."""

import fnmatch
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_dogs.errors import UserError
from keras_dogs.models.weights.checkpoint import Checkpoint


class Source(NamedTuple):
    """Where a weight comes from, and where it goes back to.

    Attributes:
        name: str. The tensor's name; empty where there is none. Weights that share a tensor are its rows, in order.
        change: function of a tensor to the weight.
        undo: function of the weight to the tensor.
    """

    name: str
    change: Callable = lambda tensor: tensor
    undo: Callable = lambda weight: weight


def transpose(matrix):
    """Turns PyTorch's `(outputs, inputs)` into Keras' `(inputs, outputs)`."""
    return matrix.T


def to_matrix(kernel):
    """Turns Keras' `(inputs, outputs)` into PyTorch's `(outputs, inputs)`; the axis of attention's heads goes."""
    if kernel.ndim == 3:  # as many inputs as outputs
        kernel = kernel.reshape(math.isqrt(kernel.size), -1)
    return kernel.T


def to_kernel(tensor):
    """Turns PyTorch's `(outputs, inputs, height, width)` into Keras' `(height, width, inputs, outputs)`."""
    return np.transpose(tensor, (2, 3, 1, 0))


def to_filters(kernel):
    """Undoes `to_kernel`."""
    return np.transpose(kernel, (3, 2, 0, 1))


def zeros(*shape):
    """Returns a source without a tensor: a bias that the checkpoint's architecture does not have."""
    return Source("", lambda _: np.zeros(shape, np.float32))


def transfer(checkpoint: Checkpoint, weights: dict, sources: dict[str, Source], ignored: tuple[str, ...] = ()) -> list:
    """Assigns every weight from its source.

    Args:
        checkpoint: `Checkpoint`.
        weights: dict of str to `keras.Variable`: all weights of the model, under names of ours.
        sources: dict of str to `Source`, for each of `weights`. A name with sources but no weight is an error of ours.
        ignored: patterns of tensors that have no place in the model, such as `"head.*"`.

    Returns:
        The names of the tensors that were ignored, in order.

    Raises:
        UserError: a tensor is missing, has another shape, or has no place in the model.
    """
    if weights.keys() != sources.keys():
        raise ValueError(f"weights and sources differ: {sorted(weights.keys() ^ sources.keys())}")
    missing = [source.name for source in sources.values() if source.name and source.name not in checkpoint]
    if missing:
        raise checkpoint.error(f"{_some(missing)} missing; not the architecture that it was taken for")
    used = {source.name for source in sources.values()}
    rest = [name for name in checkpoint.shapes if name not in used]
    unknown = [name for name in rest if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)]
    if unknown:
        raise checkpoint.error(f"{_some(unknown)} without a place in the model; its architecture is not supported")
    for name, weight in weights.items():
        _assign(checkpoint, weight, sources[name])
    return rest


def collect(weights: dict, sources: dict[str, Source]) -> dict[str, np.ndarray]:
    """Returns the tensors from which `transfer` would read these weights: its inverse.

    Args:
        weights: dict of str to `keras.Variable`, or to an array of the same shape.
        sources: dict of str to `Source`, for each of `weights`.

    Raises:
        UserError: a weight for which there is no tensor is not what the other library takes it to be.
    """
    if weights.keys() != sources.keys():
        raise ValueError(f"weights and sources differ: {sorted(weights.keys() ^ sources.keys())}")
    parts: dict[str, list[np.ndarray]] = {}
    for name, weight in weights.items():
        source, value = sources[name], np.asarray(ops.convert_to_numpy(weight), np.float32)
        if source.name:
            parts.setdefault(source.name, []).append(np.ascontiguousarray(source.undo(value)))
        elif not np.array_equal(value.ravel(), source.change(None)):
            raise UserError(f"there is no tensor for {name}, whose numbers are not the usual ones")
    return {name: np.concatenate(values) if values[1:] else values[0] for name, values in parts.items()}


def _assign(checkpoint: Checkpoint, weight, source: Source) -> None:
    value = source.change(checkpoint.read(source.name) if source.name else None)
    # Attention kernels are matrices in checkpoints and have an axis for the heads in Keras.
    is_split = len(weight.shape) != value.ndim
    if value.size != np.prod(weight.shape) or (not is_split and tuple(value.shape) != tuple(weight.shape)):
        raise checkpoint.error(
            f"{source.name} {checkpoint.shapes.get(source.name, ())} does not fit {weight.path}: the model takes "
            f"{tuple(weight.shape)}, the file gives {tuple(value.shape)}"
        )
    weight.assign(np.reshape(value, weight.shape))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def linear(key: str, name: str) -> dict[str, Source]:
    """Returns the sources of a Dense layer's weights from a PyTorch `Linear`."""
    bias = Source(f"{name}.bias", undo=np.ravel)
    return {f"{key}.kernel": Source(f"{name}.weight", transpose, to_matrix), f"{key}.bias": bias}


def convolution(key: str, name: str) -> dict[str, Source]:
    """Returns the source of a convolution's kernel from a PyTorch `Conv2d`."""
    return {f"{key}.kernel": Source(f"{name}.weight", to_kernel, to_filters)}


def norm(key: str, name: str) -> dict[str, Source]:
    """Returns the sources of a layer normalisation's weights from a PyTorch `LayerNorm`."""
    return {f"{key}.gamma": Source(f"{name}.weight"), f"{key}.beta": Source(f"{name}.bias")}


def batch_norm(key: str, name: str) -> dict[str, Source]:
    """Returns the sources of a batch normalisation's weights and statistics from a PyTorch `BatchNorm2d`."""
    statistics = {f"{key}.mean": Source(f"{name}.running_mean"), f"{key}.variance": Source(f"{name}.running_var")}
    return norm(key, name) | statistics
