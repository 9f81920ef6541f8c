"""What Keras is slow at on PyTorch, and what PyTorch is inexact at on a CPU; and what is done instead.

Keras lays the channels first and then, for the kernel, last again (keras#22324), takes a batch norm apart into five
passes, adds a bias in one of its own, and holds all that layers gave until the model is through.
"""

import keras
import torch
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends.layers import attention
from keras_dogs.backends.layers import convolutions
from keras_dogs.backends.layers import dense
from keras_dogs.backends.on_torch import batch_norm
from keras_dogs.backends.on_torch import onednn
from keras_dogs.backends.on_torch import through_graph
from keras_dogs.backends.register import ANY
from keras_dogs.backends.register import EXACTNESS
from keras_dogs.backends.register import SPEED
from keras_dogs.backends.register import Swap
from keras_dogs.backends.register import knows
from keras_dogs.backends.register import of


def _product(rows, kernel, bias):
    """Multiplies two matrices and adds a bias."""
    if onednn.gains(rows, kernel):
        return onednn.multiply(rows, kernel, bias)
    return rows @ kernel if bias is None else bias.addmm(rows, kernel)


def _attend(layer, query, value, key=None, training=None, **asked):
    """Attends a sequence to itself, with queries, keys and values from one product and without copies of them."""
    if not (attention.is_plain(query, value, key, asked) and attention.has_plain_kernels(layer)):
        return type(layer).call(layer, query, value, key, training=training, **asked)
    parts, (count, length, depth) = (layer.query_dense, layer.key_dense, layer.value_dense), query.shape
    rows = query.reshape(-1, depth)
    kernel = torch.cat([ops.convert_to_tensor(part.kernel).reshape(depth, -1) for part in parts], 1)
    biases = [ops.convert_to_tensor(part.bias).reshape(-1) for part in parts] if layer._use_bias else None
    rows = _product(rows, kernel, biases and torch.cat(biases))
    # Taken apart as columns, whose gradients are put together in one copy instead of two: 4 % of attention's time.
    columns = (part.reshape(count, length, layer.num_heads, -1).transpose(1, 2) for part in rows.chunk(3, dim=1))
    attended = torch.nn.functional.scaled_dot_product_attention(*columns, scale=layer._inverse_sqrt_key_dim)
    return layer.output_dense(attended.transpose(1, 2))


def _pads_alike(layer) -> bool:
    """Returns whether a layer pads not at all, or as much on either side."""
    return layer.padding == "valid" or (
        layer.padding == "same" and set(layer.strides) == {1} and all(size % 2 for size in layer.kernel_size)
    )


def _convolve(layer, inputs, kernel):
    pad = [rate * (size // 2) for size, rate in zip(layer.kernel_size, layer.dilation_rate)]
    padding = pad if layer.padding == "same" else through_graph.pending_padding()
    return _convolve_channels_last(inputs, kernel, layer.strides, padding, layer.dilation_rate, layer.groups)


def _convolve_folded(layer, inputs, kernel):
    return convolutions.convolve_folded(layer, _convolve_channels_last, through_graph.pending_padding(), inputs, kernel)


def _convolve_channels_last(inputs, kernel, *given):
    """Convolves inputs with axes in Keras' order; `given` are PyTorch's strides, padding and so on."""
    kernel = ops.convert_to_tensor(kernel)
    height, width, depth, count = kernel.shape
    # Channels last, as a matrix: PyTorch turns such over in half the time.
    kernel = kernel.reshape(-1, count).t().contiguous().reshape(count, height, width, depth).permute(0, 3, 1, 2)
    return torch.nn.functional.conv2d(inputs.permute(0, 3, 1, 2), kernel, None, *given).permute(0, 2, 3, 1)


def _max_pool(layer, inputs):
    padding = through_graph.pending_padding()
    outputs = torch.nn.functional.max_pool2d(inputs.permute(0, 3, 1, 2), layer.pool_size, layer.strides, padding)
    return outputs.permute(0, 2, 3, 1)


def _normalise_batch(layer, inputs, training=None, mask=None):
    together = devices.current().synchronised and devices.current().num_shares > 1
    count = inputs.numel() // max(inputs.shape[-1], 1)  # PyTorch refuses to train on one number a channel
    is_double = inputs.dtype == torch.float64  # which Keras computes in float32
    if mask is not None or inputs.ndim != 4 or is_double or (training and (together or count < 2)):
        return type(layer).call(layer, inputs, training, mask)
    inputs = inputs.movedim(-1, 1)
    # In float32, as Keras has it: in no half precision, whoever asked for that.
    mean, variance, gamma, beta = (
        None if weight is None else ops.convert_to_tensor(weight).float()
        for weight in (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    )
    if not (training and layer.trainable):
        outputs = torch.nn.functional.batch_norm(inputs, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
        return outputs.movedim(1, -1)
    if inputs.device.type == "cpu" and inputs.dtype == torch.float32:
        outputs, batch_mean, batch_variance = batch_norm.normalise(inputs, gamma, beta, layer.epsilon)
    else:
        of_batch = (torch.zeros_like(mean), torch.zeros_like(variance))
        outputs = torch.nn.functional.batch_norm(inputs, *of_batch, gamma, beta, True, 1.0, layer.epsilon)
        batch_mean, batch_variance = of_batch
        batch_variance = batch_variance * ((count - 1) / count)  # Keras' is that of the batch itself
    layer.moving_mean.assign(mean * layer.momentum + batch_mean * (1 - layer.momentum))
    layer.moving_variance.assign(variance * layer.momentum + batch_variance * (1 - layer.momentum))
    return outputs.movedim(1, -1)


def is_convolution(layer) -> bool:
    """Returns whether a layer is a convolution that PyTorch computes in one call, padding included."""
    return convolutions.is_usual(layer) and _pads_alike(layer)


def _is_foldable(layer) -> bool:
    return backends.has_accelerator() and convolutions.can_fold(layer)


def _is_attention(layer) -> bool:
    return attention.is_usual(layer) and layer.get_config()["value_dim"] == layer.get_config()["key_dim"]


def is_norm_of_batch(layer) -> bool:
    """Returns whether a layer is a batch norm of the usual kind over the last axis."""
    same = dict.fromkeys(("momentum", "epsilon", "center", "scale", "renorm_clipping", "renorm_momentum"), ANY)
    options = dict(axis=(-1, 3), synchronized=False, renorm=False)
    return knows(layer, keras.layers.BatchNormalization, **options, **same)


SWAPS = (
    Swap(
        name="torch_graph",
        kind=SPEED,
        attribute="_run_through_graph",
        fits=lambda layer: isinstance(layer, keras.Model) and hasattr(layer, "_run_through_graph"),
        make=through_graph.Graph,
        reason="Keras holds all that layers gave until the model is through, and pads in layers of their own",
        gain="ResNet-50 predicts 64 pictures at 14 instead of 5.5 images/s, in 3.4 instead of 10.5 GiB",
        needs=("graph", "nodes", "outputs"),
    ),
    Swap(
        name="torch_dense",
        kind=SPEED,
        attribute="call",
        fits=dense.fits,
        make=of(dense.call_by_rows, _product, {}),
        reason="Keras adds a bias in a pass of its own, and has an einsum for what is a product",
        gain="2 to 4 % of a ViT with AVX2; with AVX-512 of an AMD products take half the time (oneDNN)",
    ),
    Swap(
        name="torch_folded_convolution",
        kind=SPEED,
        attribute="convolution_op",
        fits=_is_foldable,
        make=of(_convolve_folded),
        reason="cuDNN is slow at a picture's three channels",
        gain="the first convolution of ResNet-50 of 256 pictures 1.8 to 0.8 ms (H200)",
    ),
    Swap(
        name="torch_convolution",
        kind=SPEED,
        attribute="convolution_op",
        fits=is_convolution,
        make=of(_convolve),
        reason="Keras lays the channels first and then, for the kernel, last again (keras#22324)",
        gain="ResNet-18 steps 1.14 times and predicts 1.17 times as fast, resnet_nano 1.08 and 1.3 (2 cores, AVX2)",
    ),
    Swap(
        name="torch_maximum",
        kind=SPEED,
        attribute="call",
        fits=convolutions.is_usual_maximum,
        make=of(_max_pool),
        reason="Keras copies the input to lay the channels first",
        gain="ResNet-18 steps 1.13 times and predicts 1.2 times as fast, resnet_nano 1.3 and 1.7 (2 cores, AVX2)",
    ),
    Swap(
        name="torch_batch_norm",
        kind=EXACTNESS,
        attribute="call",
        fits=is_norm_of_batch,
        make=of(_normalise_batch),
        reason="Keras takes a batch norm apart into five passes; PyTorch's variances are off by 3e-5 of themselves",
        gain="variances off by 2e-7; resnet_nano steps 1.16 times as fast, ResNet-18 no different (2 cores, AVX2)",
    ),
    Swap(
        name="torch_attention",
        kind=SPEED,
        attribute="call",
        fits=_is_attention,
        make=of(_attend),
        reason="Keras multiplies queries, keys and values apart, and copies them for the kernel",
        gain="with AVX-512 ViT-Ti/16 predicts 1.2 times as fast, with the dense layers; with AVX2 no different",
        needs=("attention_scale", "attention_bias"),
    ),
)
