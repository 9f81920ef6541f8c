"""Layers of Keras that a backend is slow at, done in a faster way: swapped in from outside, with the same outputs.

`on_<backend>/layers.py` says what each backend is slow at; `dense`, `attention` and `convolutions` are what two of them
need. The figures are of bare KerasHub models on two cores; `benchmarks/throughput.py` measures such in full.
"""

import functools

import keras
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices


def speed_up(model) -> None:
    """Puts into a model's layers what this backend has a faster way for, from outside.

    What comes out is the same to rounding, and nothing of it is saved. It may be done again. A layer whose `call`
    somebody else has replaced keeps it.
    """
    swap = backends.module_of("layers").swap
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model) or keeps_its_call(layer):
            swap(layer)
        synchronise(layer)


def keeps_its_call(layer) -> bool:
    """Whether a layer does what Keras has it do, or one of the faster ways: nobody else has replaced its `call`."""
    return isinstance(vars(layer).get("call"), (functools.partial, type(None)))


def synchronise(layer) -> None:
    """Gives a batch norm the statistics of the whole batch, where a step sees a share of it (`backends.devices`).

    Keras' own way, on TensorFlow alone, takes the variance from the mean of squares, which loses digits.
    """
    if type(layer) is keras.layers.BatchNormalization and devices.current().num_shares > 1:
        if devices.current().synchronised:
            layer._moments = functools.partial(_moments_of_whole_batch, layer)


def _moments_of_whole_batch(layer, inputs, mask):
    engine, axes = devices.current(), layer._reduction_axes
    inputs = ops.cast(inputs, "float32")
    mean = engine.mean_over_shares(ops.mean(inputs, axes, keepdims=True))
    variance = engine.mean_over_shares(ops.mean(ops.square(inputs - mean), axes))
    return ops.squeeze(mean, axes), variance
