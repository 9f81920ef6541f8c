"""Layers of Keras that a backend is slow or inexact at, done in another way: put in from outside, the same outputs.

`backends.register` is the one way in which a method is replaced. Each backend has a table, `on_<backend>/layers.py`;
`dense`, `attention` and `convolutions` are what two of them need. `benchmarks/swaps.py` measures every row.
"""

import functools

import keras
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.backends import register
from keras_dogs.errors import UserError


def speed_up(model) -> None:
    """Puts into a model's layers what this backend has a better way for, unless stock Keras is asked for.

    What comes out is the same to rounding, and nothing of it is saved. A second time changes nothing. A layer whose
    `call` somebody else has replaced keeps it.
    """
    swaps = backends.module_of("layers").SWAPS
    for layer in keras_inside.layers_of(model):
        if isinstance(layer, keras.Model) or register.keeps_its_call(layer):
            register.apply(layer, swaps)
        synchronise(layer)


def synchronise(layer) -> None:
    """Gives a batch norm the statistics of the whole batch, where a step sees a share of it (`backends.devices`).

    Keras' own way, on TensorFlow alone, takes the variance from the mean of squares, which loses digits.

    Raises:
        UserError: this version of Keras has no place for them.
    """
    engine = devices.current()
    if type(layer) is keras.layers.BatchNormalization and engine.num_shares > 1 and engine.synchronised:
        if not keras_inside.has(layer, "moments", "norm_axes"):
            raise UserError("--sync-batch-norm: not possible with this version of Keras; give --no-sync-batch-norm")
        moments = functools.partial(_moments_of_whole_batch, layer)
        register.replace(layer, "_moments", moments, "whole_batch_statistics", register.FEATURE)


def describe(model) -> list[str]:
    """Returns the names of the swaps that a model has somewhere, sorted, for the record; none where Keras is bare."""
    return sorted({name for layer in keras_inside.layers_of(model) for name in register.names_of(layer)})


def undo(model) -> None:
    """Gives every layer of a model, and the model, Keras' own methods back."""
    for layer in keras_inside.layers_of(model):
        register.undo(layer)


def _moments_of_whole_batch(layer, inputs, mask):
    engine, axes = devices.current(), layer._reduction_axes
    inputs = ops.cast(inputs, "float32")
    mean = engine.mean_over_shares(ops.mean(inputs, axes, keepdims=True))
    variance = engine.mean_over_shares(ops.mean(ops.square(inputs - mean), axes))
    return ops.squeeze(mean, axes), variance
