"""Dense layers, and convolutions of single places, as a product of two matrices."""

import functools
import math

import keras
from keras import ops


def take_rows(layer, product, activations: dict) -> None:
    """Has a dense layer, of `keras.layers.Dense` or `EinsumDense`, multiply two matrices.

    Args:
        layer: `keras.layers.Layer`. Any other stays as it is.
        product: function of rows `(count, depth)`, a kernel `(depth, width)` and a bias `(width,)` or `None`.
        activations: dict of function to function: what is done instead of which.
    """
    is_einsum = type(layer) is keras.layers.EinsumDense and _contracts_neighbours(layer.equation)
    if is_einsum or type(layer) is keras.layers.Dense:
        layer.call = functools.partial(_dense_of_rows, layer, product, activations)


def _contracts_neighbours(equation: str) -> bool:
    """Whether an einsum is a matrix product of what is flattened: the last axes with the kernel's first."""
    inputs, kernel, outputs = equation.replace("->", ",").split(",")
    shared = [letter for letter in inputs if letter in kernel]
    count = len(shared)
    return inputs[-count:] == kernel[:count] and outputs == inputs[:-count] + kernel[count:]


def _dense_of_rows(layer, product, activations, inputs, training=None):
    kernel, bias = ops.convert_to_tensor(layer.kernel), layer.bias
    contracted = 1
    if isinstance(layer, keras.layers.EinsumDense):
        letters, of_kernel = layer.equation.partition("->")[0].split(",")
        contracted = sum(letter in of_kernel for letter in letters)
    shape, outer = ops.shape(inputs), kernel.shape[contracted:]
    depth = math.prod(kernel.shape[:contracted])
    rows, kernel = ops.reshape(inputs, (-1, depth)), ops.reshape(kernel, (depth, -1))
    bias = None if bias is None else ops.reshape(ops.convert_to_tensor(bias), (-1,))
    outputs = product(rows, kernel, bias)
    if layer.activation is not None:
        outputs = activations.get(layer.activation, layer.activation)(outputs)
    return ops.reshape(outputs, (*shape[: len(shape) - contracted], *outer))


def multiply_places(inputs, kernel):
    """What a convolution with a kernel of shape `(1, 1, depth, width)` gives."""
    outputs = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), kernel[0, 0])
    return ops.reshape(outputs, (-1, *inputs.shape[1:3], outputs.shape[-1]))
