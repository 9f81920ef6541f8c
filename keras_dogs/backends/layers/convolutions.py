"""A model's first convolution, of a picture's three channels, in another way."""

import keras
from keras import ops

from keras_dogs.backends.layers import dense
from keras_dogs.backends.register import ANY
from keras_dogs.backends.register import knows

_CHANNELS_AT_ONCE = 8  # of half precision, by the matrix units of a GPU


def is_usual(layer) -> bool:
    """Returns whether a layer is a convolution of two axes with the channels last."""
    same = dict.fromkeys(
        ("filters", "kernel_size", "strides", "dilation_rate", "groups", "activation", "use_bias"), ANY
    )
    return knows(layer, keras.layers.Conv2D, padding=("valid", "same"), data_format="channels_last", **same)


def is_usual_maximum(layer) -> bool:
    """Returns whether a layer is a maximum of windows that lie within the inputs, with the channels last."""
    options = dict(pool_size=ANY, strides=ANY, padding="valid", data_format="channels_last")
    return knows(layer, keras.layers.MaxPooling2D, **options)


def can_fold(layer) -> bool:
    """Returns whether a convolution of half precision steps over the places of a picture's few channels."""
    if not is_usual(layer):
        return False
    (stride, other), depth = layer.strides, layer.kernel.shape[2]
    is_of_picture = layer.groups == 1 and depth < _CHANNELS_AT_ONCE
    is_plain = layer.padding == "valid" and set(layer.dilation_rate) == {1} and stride == other > 1
    return is_of_picture and is_plain and layer.compute_dtype in ("bfloat16", "float16")


def convolve_folded(layer, convolve, padding, inputs, kernel):
    """Convolves with the places that the stride steps over as channels; patches become a matrix product.

    cuDNN is slow at three channels. Bare, bfloat16, an H200, forward and the kernel's gradient in ms: the first of 256
    pictures for ResNet-50 1.8 and 1.1 on PyTorch, folded 0.8 and 0.5, on JAX 1.8 and 1.2, folded 0.8 and 0.6; patches
    of 128 for ViT-B/16 0.8 and 0.4, folded 0.1 and 0.6, on JAX 0.9 and 0.3, folded 0.1 and 0.1. On a CPU nothing is
    gained.

    Args:
        layer: `keras.layers.Conv2D`, one that can be folded.
        convolve: function of inputs and kernel, of stride 1, without zeros, channels last.
        padding: tuple of two int. Rows and columns of zeros to put around the inputs.
        inputs: tensor of shape `(batch, height, width, channels)`.
        kernel: tensor of shape `(rows, columns, channels, filters)`.
    """
    kernel, stride = ops.convert_to_tensor(kernel), layer.strides[0]
    sizes, ends = kernel.shape[:2], []
    steps = [-(-size // stride) for size in sizes]
    for length, size, n, zeros in zip(inputs.shape[1:3], sizes, steps, padding):
        places = (length + 2 * zeros - size) // stride + 1
        ends.append((places - 1 + n) * stride - zeros - length)
    inputs = inputs[:, : inputs.shape[1] + ends[0], : inputs.shape[2] + ends[1]]  # no place needs the rest
    inputs = ops.pad(inputs, [(0, 0), *((zeros, max(end, 0)) for zeros, end in zip(padding, ends)), (0, 0)])
    inputs = ops.space_to_depth(inputs, stride)
    kernel = ops.pad(kernel, [*((0, n * stride - size) for n, size in zip(steps, sizes)), (0, 0), (0, 0)])
    kernel = ops.transpose(ops.space_to_depth(ops.transpose(kernel, (3, 0, 1, 2)), stride), (1, 2, 3, 0))
    if set(steps) == {1}:
        return dense.multiply_places(inputs, kernel)
    missing = -kernel.shape[2] % _CHANNELS_AT_ONCE
    inputs = ops.pad(inputs, [(0, 0), (0, 0), (0, 0), (0, missing)])
    kernel = ops.pad(kernel, [(0, 0), (0, 0), (0, missing), (0, 0)])
    return convolve(inputs, kernel)
