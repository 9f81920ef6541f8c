"""Products of float32 matrices by oneDNN on PyTorch, which asks MKL for them; `runtime.mkl_is_slow` says where."""

from keras_dogs.backends import keras_inside
from keras_dogs.backends.on_torch import runtime
from keras_dogs.backends.on_torch.operators import Operator
from keras_dogs.backends.on_torch.operators import is_compiling_or_exporting

# Multiplications; below, PyTorch's way to an operator that is not its own costs more than is gained.
WORTH_WHILE = 5_000_000


def gains(rows, kernel) -> bool:
    """Returns whether oneDNN multiplies two matrices faster; never in a model that is being exported."""
    import torch

    is_slow = (
        rows.device.type == "cpu"
        and rows.dtype == torch.float32
        and runtime.mkl_is_slow()
        and keras_inside.find("onednn") is not None
    )
    return is_slow and rows.numel() * kernel.shape[1] >= WORTH_WHILE and not is_compiling_or_exporting()


def multiply(rows, kernel, bias):
    """Returns the product of two matrices, plus a bias.

    Args:
        rows: float32 tensor of shape `(count, depth)` on a CPU.
        kernel: float32 tensor of shape `(depth, width)`.
        bias: float32 tensor of shape `(width,)`, or `None`.

    Returns:
        float32 tensor of shape `(count, width)`.
    """
    return _MULTIPLY(rows, kernel, bias)


def _multiply(rows, kernel, bias):
    return keras_inside.find("onednn")(rows, kernel.t(), bias, "none", [], "")


def _keep(ctx, inputs, output) -> None:
    rows, kernel, _ = inputs
    ctx.save_for_backward(rows, kernel)


def _differentiate(ctx, gradient):
    (rows, kernel), gradient = ctx.saved_tensors, gradient.contiguous()
    by_rows, by_kernel, by_bias = ctx.needs_input_grad
    return (
        _MULTIPLY(gradient, kernel.t(), None) if by_rows else None,
        _MULTIPLY(rows.t(), gradient, None) if by_kernel else None,
        gradient.sum(0) if by_bias else None,
    )


_MULTIPLY = Operator(
    "multiply(Tensor rows, Tensor kernel, Tensor? bias) -> Tensor",
    compute=_multiply,
    fake=lambda rows, kernel, bias: rows @ kernel,
    keep=_keep,
    differentiate=_differentiate,
)
