"""Dense layers, and convolutions of single places, as a product of two matrices."""

import math

import keras
from keras import ops

from keras_dogs.backends.register import ANY
from keras_dogs.backends.register import knows


def fits(layer) -> bool:
    """Returns whether a dense layer is a product of two matrices, once its axes are flattened."""
    options = dict(activation=ANY, quantization_config=None, lora_rank=ANY, lora_alpha=ANY)
    if knows(layer, keras.layers.Dense, units=ANY, use_bias=ANY, **options):
        return True
    options |= dict(equation=ANY, output_shape=ANY, bias_axes=ANY)
    return knows(layer, keras.layers.EinsumDense, **options) and _is_product(layer.equation, layer.bias_axes)


def _is_product(equation: str, bias_axes: str | None) -> bool:
    """Returns whether an einsum contracts the last axes with the kernel's first, and has a bias for each column."""
    inputs, kernel, outputs = equation.replace("->", ",").split(",")
    count = len([letter for letter in inputs if letter in kernel])
    columns = kernel[count:]
    is_product = inputs[-count:] == kernel[:count] and outputs == inputs[:-count] + columns
    return is_product and count > 0 and (bias_axes is None or sorted(bias_axes) == sorted(columns))


def num_contracted(layer) -> int:
    """Returns how many of the last axes of the inputs a layer that `fits` contracts with its kernel."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return 1
    letters, of_kernel = layer.equation.partition("->")[0].split(",")
    return sum(letter in of_kernel for letter in letters)


def call_by_rows(layer, product, activations, inputs, training=None):
    """Computes a dense layer as a product of two matrices.

    Args:
        layer: `keras.layers.Dense` or `EinsumDense`, one that `fits`.
        product: function of rows `(count, depth)`, a kernel `(depth, width)` and a bias `(width,)` or `None`.
        activations: dict of function to function: what is done instead of which.
        inputs: tensor of shape `(..., depth)`.
        training: not used.
    """
    kernel, bias = ops.convert_to_tensor(layer.kernel), layer.bias
    contracted = num_contracted(layer)
    shape, outer = ops.shape(inputs), kernel.shape[contracted:]
    depth = math.prod(kernel.shape[:contracted])
    rows, kernel = ops.reshape(inputs, (-1, depth)), ops.reshape(kernel, (depth, -1))
    bias = None if bias is None else ops.reshape(ops.convert_to_tensor(bias), (-1,))
    outputs = product(rows, kernel, bias)
    if layer.activation is not None:
        outputs = activations.get(layer.activation, layer.activation)(outputs)
    return ops.reshape(outputs, (*shape[: len(shape) - contracted], *outer))


def multiply_places(inputs, kernel):
    """Computes a convolution with a kernel of shape `(1, 1, depth, width)` as a matrix product."""
    outputs = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), kernel[0, 0])
    return ops.reshape(outputs, (-1, *inputs.shape[1:3], outputs.shape[-1]))
