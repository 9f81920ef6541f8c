"""A plain Keras model as an ExportedProgram of PyTorch, and from it as ONNX and OpenVINO, for any batch size.

Keras' layers lay channels first and last again, and take products and norms apart. A file is read by runtimes that look
for convolutions, norms and products to fuse: here each layer is the one call of PyTorch that it stands for, with its
weights laid out once.
"""

import contextlib
import json
import logging
import math
import warnings
from pathlib import Path

import keras
import numpy as np
import torch

from keras_dogs.backends import keras_inside
from keras_dogs.backends import register
from keras_dogs.backends.layers import convolutions
from keras_dogs.backends.layers import dense
from keras_dogs.backends.on_torch import layers

_OUTPUTS = ("logits", "probabilities")
_OPSET = 20  # the first with `Gelu`
_LARGEST_BATCH = 2**20


def program_of(model: keras.Model, canvases: np.ndarray):
    """Returns the `torch.export.ExportedProgram` of a model of stock layers, for any number of pictures.

    Args:
        model: `keras.Model` that `models.plain` built. Its layers are changed.
        canvases: uint8 array `(2, rows, columns, 3)`.
    """
    for layer in keras_inside.layers_of(model):
        for fits, make, attribute in _REPLACEMENTS:
            if attribute not in vars(layer) and fits(layer):
                register.replace(layer, attribute, make(layer), f"exported_{attribute}", register.FEATURE)
                break
    model.eval()
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    with torch.no_grad(), _quiet():
        return torch.export.export(
            _OfTensors(model), (torch.from_numpy(canvases),), dynamic_shapes=({0: batch},), strict=False
        )


def write_program(program, file: Path, class_names: list[str]) -> None:
    """Writes a `.pt2` file."""
    torch.export.save(program, file, extra_files={"class_names.json": json.dumps(class_names)})


def write_onnx(program, file: Path, class_names: list[str]) -> None:
    """Writes an ONNX file; what is larger than 2 GiB lies beside it, as `model.onnx.data`."""
    with _quiet():
        found = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=_OPSET,
            input_names=["canvases"],
            output_names=list(_OUTPUTS),
            verbose=False,
        )
    found.model.metadata_props["class_names"] = json.dumps(class_names)
    found.save(file)


def openvino_of(program):
    """Returns the program as an `openvino.Model`, with names for its input and outputs."""
    import openvino

    model = openvino.convert_model(program)
    model.inputs[0].set_names({"canvases"})
    for output, name in zip(model.outputs, _OUTPUTS):
        output.set_names({name})
    return model


class _OfTensors(torch.nn.Module):
    """The model with a tuple of outputs, in an order."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self._held = (model,)  # no part of this module: its weights would be written beside those laid out anew

    def forward(self, canvases):
        outputs = self._held[0](canvases, training=False)
        return tuple(outputs[name] for name in _OUTPUTS)


@contextlib.contextmanager
def _quiet():
    """Keeps to itself what PyTorch has to say of operators that we do not have."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)


def _tensor(weight):
    """Returns a weight, or `None`, as a constant of the program."""
    return None if weight is None else torch.tensor(keras.ops.convert_to_numpy(weight))


def _linear(layer):
    kernel, contracted = _tensor(layer.kernel), dense.num_contracted(layer)
    inner, outer = kernel.shape[:contracted], kernel.shape[contracted:]
    matrix = kernel.reshape(math.prod(inner), -1).t().contiguous()
    bias = None if layer.bias is None else _tensor(layer.bias).reshape(-1)

    def call(inputs, training=None):
        inputs = inputs.reshape(*inputs.shape[: inputs.ndim - contracted], matrix.shape[1])
        outputs = torch.nn.functional.linear(inputs, matrix, bias)
        outputs = outputs.reshape(*outputs.shape[:-1], *outer)
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _convolution(layer):
    kernel = _tensor(layer.kernel).permute(3, 2, 0, 1).contiguous()
    sizes = zip(layer.kernel_size, layer.dilation_rate)
    padding = [rate * (size // 2) for size, rate in sizes] if layer.padding == "same" else 0

    def convolve(inputs, _):
        outputs = torch.nn.functional.conv2d(
            inputs.permute(0, 3, 1, 2), kernel, None, layer.strides, padding, layer.dilation_rate, layer.groups
        )
        return outputs.permute(0, 2, 3, 1)

    return convolve


def _batch_norm(layer):
    numbers = [_tensor(each) for each in (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)]

    def call(inputs, training=None, mask=None):
        outputs = torch.nn.functional.batch_norm(inputs.permute(0, 3, 1, 2), *numbers, False, 0.0, layer.epsilon)
        return outputs.permute(0, 2, 3, 1)

    return call


def _max_pooling(layer):
    def call(inputs):
        outputs = torch.nn.functional.max_pool2d(inputs.permute(0, 3, 1, 2), layer.pool_size, layer.strides)
        return outputs.permute(0, 2, 3, 1)

    return call


# Which layers, the function that takes the place of which method.
_REPLACEMENTS = (
    (dense.fits, _linear, "call"),
    (layers.is_convolution, _convolution, "convolution_op"),
    (layers.is_norm_of_batch, _batch_norm, "call"),
    (convolutions.is_usual_maximum, _max_pooling, "call"),
)
