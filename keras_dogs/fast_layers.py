"""Layers of Keras that a backend is slow at, done in a faster way: swapped in from outside, with the same outputs.

The figures are of bare KerasHub models on two cores; `benchmarks/throughput.py` measures such in full.
"""

import collections
import contextlib
import functools
import math

import keras
from keras import ops

from keras_dogs import backend
from keras_dogs import devices

_zeros = {"next": None}  # rows and columns of zeros that the layer that runs next puts around its input
_CHANNELS_AT_ONCE = 8  # of half precision, by the matrix units of a GPU
_SKIPPED = "skipped"  # instead of them, for the layer that would have done it


def speed_up(model) -> None:
    """Puts into a model's layers what this backend has a faster way for, from outside.

    What comes out is the same to rounding, and nothing of it is saved. It may be done again.
    """
    swap = {"jax": _speed_up_on_jax, "tensorflow": lambda layer: None, "torch": _speed_up_on_torch}[backend.name()]
    for layer in model._flatten_layers():
        swap(layer)
        synchronise(layer)


def synchronise(layer) -> None:
    """Gives a batch norm the statistics of the whole batch, where a step sees a share of it (`keras_dogs.devices`).

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


def _speed_up_on_jax(layer) -> None:
    """On a CPU, products of two matrices, a GELU whose gradient is kept, and convolutions with a quicker gradient.

    On a GPU, attention of half precision by one kernel, and first convolutions that step over what they see folded.

    XLA for CPUs has a fast product for two dimensions alone, and would compute the gradient of GELU once for each of
    the two products that need it. ViT-Ti/16, batch 16, two cores: steps 1.3 and 1.9 times faster in two sittings.
    Its convolutions are fast forward and not backward: of 1 x 1 (64 to 256 channels, 56 x 56 places, batch 16, one
    core) 692 ms as a convolution and 117 as a product; of 3 x 3 517 and 344.
    """
    if backend.has_accelerator():
        if type(layer) is keras.layers.MultiHeadAttention and not (layer._dropout or layer._use_gate):
            layer.call = functools.partial(_attend_by_cudnn, layer)
        elif type(layer) is keras.layers.Conv2D and _can_fold(layer):
            layer.convolution_op = functools.partial(_convolve_folded, layer)
        return
    _take_rows(layer)
    if type(layer) is not keras.layers.Conv2D or layer.data_format != "channels_last" or layer.groups > 1:
        return
    if set(layer.kernel_size) == {1}:
        layer.convolution_op = functools.partial(_convolve_points, layer)
    elif set(layer.strides) == {1} and set(layer.dilation_rate) == {1} and _pads_alike(layer):
        layer.convolution_op = functools.partial(_convolve_with_quick_gradient, layer)


def _attend_by_cudnn(layer, query, value, key=None, training=None, **asked):
    """Attention whose weights never lie in memory, where cuDNN can; Keras' own choice of it is not taken.

    cuDNN has no gradient for an odd number of tokens, as a class token makes it: there one is added that is not seen.
    An H200, the attention of a block of ViT-B/16, batch 128: 0.58 ms forward and backward, by XLA 1.2 ms or more.
    """
    import jax
    from jax import numpy as jnp

    if _is_plain(query, value, query if key is None else key, asked) and query.dtype.itemsize == 2:
        parts = [part(query) for part in (layer.query_dense, layer.key_dense, layer.value_dense)]
        length, told = query.shape[1], {}
        if training and length % 2:
            parts = [jnp.pad(part, ((0, 0), (0, 1), (0, 0), (0, 0))) for part in parts]
            seen = jnp.full(query.shape[:1], length, "int32")
            told = {"query_seq_lengths": seen, "key_value_seq_lengths": seen}
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # an older GPU, or none of NVIDIA
            attended = jax.nn.dot_product_attention(
                *parts, scale=layer._inverse_sqrt_key_dim, implementation="cudnn", **told
            )
            return layer.output_dense(attended[:, :length])
    return type(layer).call(layer, query, value, key, training=training, **asked)


def _is_plain(query, value, key, asked: dict) -> bool:
    """Whether a sequence attends to the whole of itself, and no weights are asked for."""
    is_to_itself = value is query and key is query and getattr(query, "_keras_mask", None) is None
    return is_to_itself and not any(value is not None and value is not False for value in asked.values())


def _take_rows(layer) -> None:
    is_einsum = type(layer) is keras.layers.EinsumDense and _contracts_neighbours(layer.equation)
    if is_einsum or type(layer) is keras.layers.Dense:
        layer.call = functools.partial(_dense_of_rows, layer)


def _contracts_neighbours(equation: str) -> bool:
    """Whether an einsum is a matrix product of what is flattened: the last axes with the kernel's first."""
    inputs, kernel, outputs = equation.replace("->", ",").split(",")
    shared = [letter for letter in inputs if letter in kernel]
    count = len(shared)
    return inputs[-count:] == kernel[:count] and outputs == inputs[:-count] + kernel[count:]


def _dense_of_rows(layer, inputs, training=None):
    """`Dense` or `EinsumDense`, by a product of two matrices."""
    kernel, bias = ops.convert_to_tensor(layer.kernel), layer.bias
    contracted = 1
    if isinstance(layer, keras.layers.EinsumDense):
        letters, of_kernel = layer.equation.partition("->")[0].split(",")
        contracted = sum(letter in of_kernel for letter in letters)
    shape, outer = ops.shape(inputs), kernel.shape[contracted:]
    depth = math.prod(kernel.shape[:contracted])
    rows, kernel = ops.reshape(inputs, (-1, depth)), ops.reshape(kernel, (depth, -1))
    bias = None if bias is None else ops.reshape(ops.convert_to_tensor(bias), (-1,))
    if backend.name() == "torch" and bias is not None:
        outputs = bias.addmm(rows, kernel)
    else:
        outputs = ops.matmul(rows, kernel)
        outputs = outputs if bias is None else ops.add(outputs, bias)
    if backend.name() == "jax" and layer.activation is keras.activations.gelu:
        outputs = _gelu_with_kept_gradient()(outputs)
    elif layer.activation is not None:
        outputs = layer.activation(outputs)
    return ops.reshape(outputs, (*shape[: len(shape) - contracted], *outer))


def _convolve_points(layer, inputs, kernel):
    """A 1 x 1 convolution as a product of two matrices."""
    rows, columns = layer.strides
    return _multiply_places(inputs[:, ::rows, ::columns], ops.convert_to_tensor(kernel))


def _multiply_places(inputs, kernel):
    outputs = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), kernel[0, 0])
    return ops.reshape(outputs, (-1, *inputs.shape[1:3], outputs.shape[-1]))


def _can_fold(layer) -> bool:
    """Whether a convolution of half precision steps over the places of a picture's few channels."""
    (stride, other), depth = layer.strides, layer.kernel.shape[2]
    is_of_picture = layer.data_format == "channels_last" and layer.groups == 1 and depth < _CHANNELS_AT_ONCE
    is_plain = layer.padding == "valid" and set(layer.dilation_rate) == {1} and stride == other > 1
    return is_of_picture and is_plain and layer.compute_dtype in ("bfloat16", "float16")


def _convolve_folded(layer, inputs, kernel):
    """A convolution with the places that its stride steps over as channels; of patches, a product of two matrices.

    cuDNN is slow at three channels. Bare, bfloat16, an H200, forward and the kernel's gradient in ms: the first of 256
    pictures for ResNet-50 1.8 and 1.1 on PyTorch, folded 0.8 and 0.5, on JAX 1.8 and 1.2, folded 0.8 and 0.6; patches
    of 128 for ViT-B/16 0.8 and 0.4, folded 0.1 and 0.6, on JAX 0.9 and 0.3, folded 0.1 and 0.1. On a CPU nothing is
    gained.
    """
    kernel, padding, stride = ops.convert_to_tensor(kernel), _zeros["next"] or (0, 0), layer.strides[0]
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
        return _multiply_places(inputs, kernel)
    missing = -kernel.shape[2] % _CHANNELS_AT_ONCE
    inputs = ops.pad(inputs, [(0, 0), (0, 0), (0, 0), (0, missing)])
    kernel = ops.pad(kernel, [(0, 0), (0, 0), (0, missing), (0, 0)])
    if backend.name() == "torch":
        return _convolve_on_torch(inputs, kernel)
    return ops.conv(inputs, kernel, data_format="channels_last")


def _convolve_with_quick_gradient(layer, inputs, kernel):
    pads = tuple((size // 2, size // 2) if layer.padding == "same" else (0, 0) for size in layer.kernel_size)
    return _convolution_with_quick_gradient(pads)(inputs, ops.convert_to_tensor(kernel))


@functools.cache
def _convolution_with_quick_gradient(pads):
    """Of stride 1. Its gradient by the inputs is a convolution forward; by the kernel, a product for each place in it.

    XLA would turn the second into a convolution whose kernel is as large as the picture.
    """
    import jax
    from jax import numpy as jnp

    def convolve(inputs, kernel, pads):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), pads, dimension_numbers=layout)

    @jax.custom_vjp
    def convolution(inputs, kernel):
        return convolve(inputs, kernel, pads)

    def forward(inputs, kernel):
        return convolve(inputs, kernel, pads), (inputs, kernel)

    def backward(kept, gradient):
        inputs, kernel = kept
        height, width = gradient.shape[1:3]
        padded, rows = jnp.pad(inputs, ((0, 0), *pads, (0, 0))), gradient.reshape(-1, gradient.shape[-1])

        def at(row, column):
            seen = padded[:, row : row + height, column : column + width]
            return seen.reshape(-1, seen.shape[-1]).T @ rows

        places = [[at(row, column) for column in range(kernel.shape[1])] for row in range(kernel.shape[0])]
        by_kernel = jnp.stack([jnp.stack(line) for line in places])
        back = tuple((size - 1 - low, size - 1 - high) for size, (low, high) in zip(kernel.shape, pads))
        return convolve(gradient, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), back), by_kernel

    convolution.defvjp(forward, backward)
    return convolution


@functools.cache
def _gelu_with_kept_gradient():
    import jax

    @jax.custom_vjp
    def gelu(x):
        return jax.nn.gelu(x, approximate=False)

    def forward(x):
        x = jax.lax.optimization_barrier(x)
        below = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))  # the normal distribution
        slope = below + x * jax.numpy.exp(-0.5 * x * x) * (2 * math.pi) ** -0.5
        return jax.lax.optimization_barrier((x * below, slope))

    def backward(slope, gradient):
        return (jax.lax.optimization_barrier(slope * gradient),)

    gelu.defvjp(forward, backward)
    return gelu


def _speed_up_on_torch(layer) -> None:
    """Convolutions, pooling attention without the copies of their input that Keras makes; norms, dense layers whole.

    Keras lays the channels first and then, for the kernel, last again (keras#22324), takes a batch norm apart into five
    passes, adds a bias in one of its own, and holds all that layers gave until the model is through. ResNet-18, batch
    16, two cores: 1.3 times faster steps; ViT-Ti/16 predicts 1.2 times faster.
    """
    _take_rows(layer)
    if hasattr(layer, "_run_through_graph"):
        layer._run_through_graph = functools.partial(_run_and_forget, layer, _steps_of(layer))
    if getattr(layer, "data_format", None) == "channels_last":
        if type(layer) is keras.layers.Conv2D and _pads_alike(layer):
            way = _convolve_folded if backend.has_accelerator() and _can_fold(layer) else _convolve
            layer.convolution_op = functools.partial(way, layer)
        elif type(layer) is keras.layers.MaxPooling2D and layer.padding == "valid":
            layer.call = functools.partial(_max_pool, layer)
    elif type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3) and not layer.renorm:
        layer.call = functools.partial(_normalise_batch, layer)
    elif type(layer) is keras.layers.MultiHeadAttention and not (layer._dropout or layer._use_gate):
        layer.call = functools.partial(_attend, layer)


def _steps_of(model) -> list[tuple]:
    """Each node of a graph as Keras runs them; the tensors, by `id`, that nothing after it needs; zeros left to it."""
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    nodes = [node for node in nodes if node.operation and not node.is_input]
    needed, found, zeros = {id(tensor) for tensor in model.outputs}, [], _zeros_left(model, nodes)
    for node in reversed(nodes):
        tensors = {id(tensor) for tensor in [*node.input_tensors, *node.outputs]}
        found.append((node, tensors - needed, zeros.get(id(node))))
        needed |= tensors
    return found[::-1]


def _zeros_left(model, nodes: list) -> dict:
    """Rows and columns of zeros, by the `id` of the node of a convolution, or of a maximum of what is not negative.

    A layer of its own writes its input once more, and its gradient; ResNet-18, batch 16: a tenth of a step.
    """
    outputs, readers = {id(tensor) for tensor in model.outputs}, collections.defaultdict(list)
    makers = {id(tensor): node for node in nodes for tensor in node.outputs}
    for node in nodes:
        for tensor in node.input_tensors:
            readers[id(tensor)].append(node)
    found = {}
    for node in nodes:
        if type(node.operation) is not keras.layers.ZeroPadding2D or id(node.outputs[0]) in outputs:
            continue
        (top, bottom), (left, right) = node.operation.padding
        reader, *others = readers[id(node.outputs[0])]
        maker = makers.get(id(node.input_tensors[0]))
        if others or (top, left) != (bottom, right) or node.operation.data_format != "channels_last":
            continue
        if _can_pad(reader.operation, maker and maker.operation, max(top, left)):
            found[id(node)], found[id(reader)] = _SKIPPED, (top, left)
    return found


def _can_pad(layer, before, most: int) -> bool:
    if getattr(layer, "padding", None) != "valid" or layer.data_format != "channels_last":
        return False
    is_not_negative = getattr(before, "activation", None) is keras.activations.relu
    is_pool = type(layer) is keras.layers.MaxPooling2D and is_not_negative and 2 * most <= min(layer.pool_size)
    return type(layer) is keras.layers.Conv2D or is_pool


def _run_and_forget(model, steps, inputs, operation_fn=lambda operation: operation, call_fn=None):
    """A model's own way through its layers, which lets go of what each gave once the last has read it.

    ResNet-50, 64 pictures to predict on two cores: 3.4 GiB instead of 10.5, and 14 images/s instead of 5.5.
    """
    if call_fn is not None:
        return type(model)._run_through_graph(model, inputs, operation_fn, call_fn)
    held = dict(zip(map(id, model.inputs), keras.tree.flatten(inputs)))
    del inputs
    for node, done, zeros in steps:
        arguments, named = node.arguments.fill_in(held)
        _zeros["next"] = zeros
        try:
            outputs = arguments[0] if zeros == _SKIPPED else operation_fn(node.operation)(*arguments, **named)
        finally:  # or a layer that fails would leave them to whichever convolution comes next
            _zeros["next"] = None
        held.update(zip(map(id, node.outputs), keras.tree.flatten(outputs)))
        for tensor in done:
            del held[tensor]
        del arguments, named, outputs
    return keras.tree.pack_sequence_as(model._outputs_struct, [held[id(tensor)] for tensor in model.outputs])


def _attend(layer, query, value, key=None, training=None, **asked):
    """Attention of a sequence to itself: queries, keys and values of one product, and not copied for the kernel."""
    import torch

    if not _is_plain(query, value, query if key is None else key, asked):
        return type(layer).call(layer, query, value, key, training=training, **asked)
    parts, (count, length, depth) = (layer.query_dense, layer.key_dense, layer.value_dense), query.shape
    rows = query.reshape(-1, depth)
    kernel = torch.cat([ops.convert_to_tensor(part.kernel).reshape(depth, -1) for part in parts], 1)
    if layer._use_bias:
        rows = torch.cat([ops.convert_to_tensor(part.bias).reshape(-1) for part in parts]).addmm(rows, kernel)
    else:
        rows = rows @ kernel
    # Taken apart as columns, whose gradients are put together in one copy instead of two: 4 % of attention's time.
    columns = (part.reshape(count, length, layer.num_heads, -1).transpose(1, 2) for part in rows.chunk(3, dim=1))
    attended = torch.nn.functional.scaled_dot_product_attention(*columns, scale=layer._inverse_sqrt_key_dim)
    return layer.output_dense(attended.transpose(1, 2))


def _pads_alike(layer) -> bool:
    """Whether PyTorch can pad as the layer does: not at all, or as much on either side."""
    return layer.padding == "valid" or (
        layer.padding == "same" and set(layer.strides) == {1} and all(size % 2 for size in layer.kernel_size)
    )


def _convolve(layer, inputs, kernel):
    pad = [rate * (size // 2) for size, rate in zip(layer.kernel_size, layer.dilation_rate)]
    padding = pad if layer.padding == "same" else _zeros["next"] or 0
    return _convolve_on_torch(inputs, kernel, layer.strides, padding, layer.dilation_rate, layer.groups)


def _convolve_on_torch(inputs, kernel, *told):
    """Of axes in Keras' order; `told` are strides, zeros and so on as PyTorch has them."""
    import torch

    kernel = ops.convert_to_tensor(kernel)
    height, width, depth, count = kernel.shape
    # Channels last, as a matrix: PyTorch turns such over in half the time.
    kernel = kernel.reshape(-1, count).t().contiguous().reshape(count, height, width, depth).permute(0, 3, 1, 2)
    return torch.nn.functional.conv2d(inputs.permute(0, 3, 1, 2), kernel, None, *told).permute(0, 2, 3, 1)


def _max_pool(layer, inputs):
    import torch

    padding = _zeros["next"] or 0
    outputs = torch.nn.functional.max_pool2d(inputs.permute(0, 3, 1, 2), layer.pool_size, layer.strides, padding)
    return outputs.permute(0, 2, 3, 1)


def _normalise_batch(layer, inputs, training=None, mask=None):
    import torch

    together = devices.current().synchronised and devices.current().num_shares > 1
    if mask is not None or inputs.ndim != 4 or (training and together):
        return type(layer).call(layer, inputs, training, mask)
    inputs = inputs.movedim(-1, 1)
    mean, variance = ops.convert_to_tensor(layer.moving_mean), ops.convert_to_tensor(layer.moving_variance)
    # In float32, as Keras has it: not in what mixed precision casts weights to.
    gamma, beta = (
        None if weight is None else ops.convert_to_tensor(weight).float() for weight in (layer.gamma, layer.beta)
    )
    if not (training and layer.trainable):
        outputs = torch.nn.functional.batch_norm(inputs, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
        return outputs.movedim(1, -1)
    batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
    outputs = torch.nn.functional.batch_norm(inputs, batch_mean, batch_variance, gamma, beta, True, 1.0, layer.epsilon)
    count = inputs.numel() // inputs.shape[1]
    batch_variance = batch_variance * ((count - 1) / count)  # Keras' is that of the batch itself
    layer.moving_mean.assign(mean * layer.momentum + batch_mean * (1 - layer.momentum))
    layer.moving_variance.assign(variance * layer.momentum + batch_variance * (1 - layer.momentum))
    return outputs.movedim(1, -1)
