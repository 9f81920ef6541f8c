"""What XLA is slow at."""

import functools

import keras
from keras import ops

from keras_dogs import backends
from keras_dogs.backends.layers import attention
from keras_dogs.backends.layers import convolutions
from keras_dogs.backends.layers import dense
from keras_dogs.backends.on_jax import gradients
from keras_dogs.backends.on_jax import runtime


def swap(layer) -> None:
    """On a CPU, products of two matrices, and gradients that XLA would compute several times or in a slow way.

    On a GPU, attention of half precision by one kernel, and first convolutions that step over what they see folded.
    """
    (_swap_on_gpu if backends.has_accelerator() else _swap_on_cpu)(layer)


def _swap_on_gpu(layer) -> None:
    if attention.is_usual(layer) and runtime.cudnn_attends():
        layer.call = functools.partial(_attend_by_cudnn, layer)
    elif type(layer) is keras.layers.Conv2D and convolutions.can_fold(layer):
        layer.convolution_op = functools.partial(convolutions.convolve_folded, layer, _convolve, (0, 0))


def _swap_on_cpu(layer) -> None:
    """XLA for CPUs has a fast product for two dimensions alone; what else is slow, `gradients` says."""
    dense.take_rows(layer, _product, {keras.activations.gelu: gradients.gelu()})
    if type(layer) is keras.layers.LayerNormalization and layer.center and layer.scale and not layer.rms_scaling:
        layer.call = functools.partial(_normalise_rows, layer)
    elif attention.is_usual(layer):
        layer.call = functools.partial(_attend, layer)
    elif getattr(layer, "data_format", None) != "channels_last":
        return
    elif type(layer) is keras.layers.Conv2D and set(layer.kernel_size) == {1} and layer.groups == 1:
        layer.convolution_op = functools.partial(_convolve_points, layer)
    elif type(layer) is keras.layers.MaxPooling2D and layer.padding == "valid":
        layer.call = functools.partial(_max_pool, layer)


def _product(rows, kernel, bias):
    outputs = ops.matmul(rows, kernel)
    return outputs if bias is None else ops.add(outputs, bias)


def _normalise_rows(layer, inputs):
    if layer.axis not in ([-1], [inputs.ndim - 1]):
        return type(layer).call(layer, inputs)
    normalise = gradients.layer_norm(layer.epsilon)
    gamma, beta = (ops.convert_to_tensor(weight) for weight in (layer.gamma, layer.beta))
    return ops.cast(normalise(ops.cast(inputs, "float32"), gamma, beta), layer.compute_dtype)


def _attend(layer, query, value, key=None, training=None, **asked):
    if query.dtype != "float32" or not attention.is_plain(query, value, key, asked):
        return type(layer).call(layer, query, value, key, training=training, **asked)
    parts = [part(query) for part in (layer.query_dense, layer.key_dense, layer.value_dense)]
    return layer.output_dense(gradients.attention(layer._inverse_sqrt_key_dim)(*parts))


def _attend_by_cudnn(layer, query, value, key=None, training=None, **asked):
    """Attention whose weights never lie in memory, where cuDNN can; Keras' own choice of it is not taken.

    cuDNN has no gradient for an odd number of tokens, as a class token makes it: there one is added that is not seen.
    An H200, the attention of a block of ViT-B/16, batch 128: 0.58 ms forward and backward, by XLA 1.2 ms or more.
    """
    import jax
    from jax import numpy as jnp

    if attention.is_plain(query, value, key, asked) and query.dtype.itemsize == 2:
        parts = [part(query) for part in (layer.query_dense, layer.key_dense, layer.value_dense)]
        length, told = query.shape[1], {}
        if training and length % 2:
            parts = [jnp.pad(part, ((0, 0), (0, 1), (0, 0), (0, 0))) for part in parts]
            seen = jnp.full(query.shape[:1], length, "int32")
            told = {"query_seq_lengths": seen, "key_value_seq_lengths": seen}
        try:
            attended = jax.nn.dot_product_attention(
                *parts, scale=layer._inverse_sqrt_key_dim, implementation="cudnn", **told
            )
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # no cuDNN, or heads that it has nothing for
        else:
            return layer.output_dense(attended[:, :length])
    return type(layer).call(layer, query, value, key, training=training, **asked)


def _convolve(inputs, kernel):
    return ops.conv(inputs, kernel, data_format="channels_last")


def _convolve_points(layer, inputs, kernel):
    """A 1 x 1 convolution as a product of two matrices."""
    rows, columns = layer.strides
    return dense.multiply_places(inputs[:, ::rows, ::columns], ops.convert_to_tensor(kernel))


def _max_pool(layer, inputs):
    return gradients.maximum_of_windows(tuple(layer.pool_size), tuple(layer.strides))(inputs)
