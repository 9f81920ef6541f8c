"""Products of float32 matrices by oneDNN on PyTorch, which asks MKL for them; `backend.mkl_is_slow` says where.

They are an operator of PyTorch's, so that a trace has each as one call that has a gradient.
"""

import functools
import threading

from keras_dogs import backend

# Multiplications; below, PyTorch's way to an operator that is not its own costs more than is gained.
WORTH_WHILE = 5_000_000
_declaring = threading.Lock()  # PyTorch takes no operator twice


def gains(rows, kernel) -> bool:
    """Whether two matrices are multiplied faster; not in a model that is exported, where only PyTorch's own may be."""
    import torch

    is_slow = rows.device.type == "cpu" and rows.dtype == torch.float32 and backend.mkl_is_slow()
    return is_slow and rows.numel() * kernel.shape[1] >= WORTH_WHILE and not torch.compiler.is_compiling()


def multiply(rows, kernel, bias):
    """The product of two matrices, plus a bias.

    Args:
        rows: float32 tensor of shape `(count, depth)` on a CPU.
        kernel: float32 tensor of shape `(depth, width)`.
        bias: float32 tensor of shape `(width,)`, or `None`.

    Returns:
        float32 tensor of shape `(count, width)`.
    """
    with _declaring:
        library = _library()
    return library.multiply(rows, kernel, bias)


@functools.cache
def _library():
    import torch

    library = torch.library.Library("keras_dogs", "DEF")
    library.define("multiply(Tensor rows, Tensor kernel, Tensor? bias) -> Tensor")
    library.impl("multiply", _multiply, "CPU")
    torch.library.register_fake("keras_dogs::multiply", lambda rows, kernel, bias: rows @ kernel, lib=library)
    torch.library.register_autograd("keras_dogs::multiply", _differentiate, setup_context=_keep, lib=library)
    library.multiply = torch.ops.keras_dogs.multiply.default  # kept together: what a library declares goes with it
    return library


def _multiply(rows, kernel, bias):
    import torch

    return torch.ops.mkldnn._linear_pointwise(rows, kernel.t(), bias, "none", [], "")


def _keep(ctx, inputs, output) -> None:
    rows, kernel, _ = inputs
    ctx.save_for_backward(rows, kernel)


def _differentiate(ctx, gradient):
    (rows, kernel), gradient = ctx.saved_tensors, gradient.contiguous()
    by_rows, by_kernel, by_bias = ctx.needs_input_grad
    return (
        _library().multiply(gradient, kernel.t(), None) if by_rows else None,
        _library().multiply(rows.t(), gradient, None) if by_kernel else None,
        gradient.sum(0) if by_bias else None,
    )
