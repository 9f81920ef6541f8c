"""What XLA is slow at, and what is done instead.

Figures: two cores of an EPYC of 2024, or an H200.
"""

import jax
import keras
from jax import numpy as jnp
from keras import ops

from keras_dogs import backends
from keras_dogs.backends.layers import attention
from keras_dogs.backends.layers import convolutions
from keras_dogs.backends.layers import dense
from keras_dogs.backends.on_jax import gradients
from keras_dogs.backends.on_jax import runtime
from keras_dogs.backends.register import ANY
from keras_dogs.backends.register import SPEED
from keras_dogs.backends.register import Swap
from keras_dogs.backends.register import knows
from keras_dogs.backends.register import of


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
    """Attends by cuDNN where it can, so that the attention weights are never stored.

    cuDNN has no gradient for an odd number of tokens, as a class token makes it: there one is added that is not seen.
    An H200, the attention of a block of ViT-B/16, batch 128: 0.58 ms forward and backward, by XLA 1.2 ms or more.
    """
    if attention.is_plain(query, value, key, asked) and query.dtype.itemsize == 2:
        parts = [part(query) for part in (layer.query_dense, layer.key_dense, layer.value_dense)]
        length, given = query.shape[1], {}
        if training and length % 2:
            parts = [jnp.pad(part, ((0, 0), (0, 1), (0, 0), (0, 0))) for part in parts]
            seen = jnp.full(query.shape[:1], length, "int32")
            given = {"query_seq_lengths": seen, "key_value_seq_lengths": seen}
        try:
            attended = jax.nn.dot_product_attention(
                *parts, scale=layer._inverse_sqrt_key_dim, implementation="cudnn", **given
            )
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # no cuDNN, or heads that it has nothing for
        else:
            return layer.output_dense(attended[:, :length])
    return type(layer).call(layer, query, value, key, training=training, **asked)


def _convolve(inputs, kernel):
    return ops.conv(inputs, kernel, data_format="channels_last")


def _convolve_points(layer, inputs, kernel):
    """Returns a 1 x 1 convolution as a product of two matrices."""
    rows, columns = layer.strides
    return dense.multiply_places(inputs[:, ::rows, ::columns], ops.convert_to_tensor(kernel))


def _max_pool(layer, inputs):
    return gradients.maximum_of_windows(tuple(layer.pool_size), tuple(layer.strides))(inputs)


def _on_cpu(fits):
    return lambda layer: not backends.has_accelerator() and fits(layer)


def _on_gpu(fits):
    return lambda layer: backends.has_accelerator() and fits(layer)


def _is_norm_of_rows(layer) -> bool:
    options = dict(axis=ANY, epsilon=ANY, center=True, scale=True, rms_scaling=False)
    return knows(layer, keras.layers.LayerNormalization, **options)


def _is_of_points(layer) -> bool:
    return convolutions.is_usual(layer) and set(layer.kernel_size) == {1} and layer.groups == 1


SWAPS = (
    Swap(
        name="jax_dense",
        kind=SPEED,
        attribute="call",
        fits=_on_cpu(dense.fits),
        make=of(dense.call_by_rows, _product, {keras.activations.gelu: gradients.gelu()}),
        reason="XLA for CPUs has a fast product for two dimensions alone, and computes GELU's slope twice",
        gain="ViT-Ti/16 steps 1.3 to 1.9 times as fast",
    ),
    Swap(
        name="jax_layer_norm",
        kind=SPEED,
        attribute="call",
        fits=_on_cpu(_is_norm_of_rows),
        make=of(_normalise_rows),
        reason="XLA computes the gradient anew in each sum that it is a part of",
        gain="norm, MLP and the path past them, forward and backward, 69 to 52 ms",
    ),
    Swap(
        name="jax_attention",
        kind=SPEED,
        attribute="call",
        fits=_on_cpu(attention.is_usual),
        make=of(_attend),
        reason="XLA lays queries, keys and values out several times, and computes the weights twice",
        gain="16 sequences of 197, 6 heads of 64, forward and backward, 31 to 22 ms",
        needs=("attention_scale",),
    ),
    Swap(
        name="jax_point_convolution",
        kind=SPEED,
        attribute="convolution_op",
        fits=_on_cpu(_is_of_points),
        make=of(_convolve_points),
        reason="a convolution of single places is a product of two matrices, which is faster",
        gain="ResNet-18 predicts 1.08 times as fast, resnet_nano 1.12 times (2 cores, AVX2)",
    ),
    Swap(
        name="jax_maximum",
        kind=SPEED,
        attribute="call",
        fits=_on_cpu(convolutions.is_usual_maximum),
        make=of(_max_pool),
        reason="XLA finds the place of a maximum with an index beside each number, and scatters the gradient",
        gain="resnet_nano, batch 32, steps 1.6 times as fast, ResNet-18 no different (2 cores, AVX2)",
    ),
    Swap(
        name="jax_attention_by_cudnn",
        kind=SPEED,
        attribute="call",
        fits=_on_gpu(lambda layer: attention.is_usual(layer) and runtime.cudnn_attends()),
        make=of(_attend_by_cudnn),
        reason="the weights of attention need not lie in memory",
        gain="ViT-B/16, batch 128, a block's attention, forward and backward, 1.2 to 0.58 ms",
        needs=("attention_scale",),
    ),
    Swap(
        name="jax_folded_convolution",
        kind=SPEED,
        attribute="convolution_op",
        fits=_on_gpu(convolutions.can_fold),
        make=of(convolutions.convolve_folded, _convolve, (0, 0)),
        reason="cuDNN is slow at a picture's three channels",
        gain="the first convolution of ResNet-50 of 256 pictures 1.8 to 0.8 ms",
    ),
)
