"""What PyTorch answers to the questions of `keras_dogs.backends`, where each function is documented."""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np
import torch

from keras_dogs import backends
from keras_dogs.backends import keras_inside
from keras_dogs.backends.on_torch.tracing import count as num_traces
from keras_dogs.backends.on_torch.tracing import describe as describe_traces
from keras_dogs.backends.on_torch.tracing import layer_by_layer
from keras_dogs.backends.on_torch.tracing import settle
from keras_dogs.backends.on_torch.tracing import trace

__all__ = ["describe_traces", "layer_by_layer", "num_traces", "settle", "trace"]

COUNTER_DTYPE = "int32"
COMPILER = "torch.compile"
NOT_COMPILED = "eager, as Keras runs PyTorch by default"


def _device() -> str:
    """Names the device that Keras computes on; a user may choose it (`KERAS_TORCH_DEVICE`, `keras.device`)."""
    if get_device := keras_inside.find("torch_device"):
        return get_device()
    return os.environ.get("KERAS_TORCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def accelerators() -> list[str]:
    """Names the accelerators that this process computes on."""
    kind = torch.device(_device()).type
    if kind == "mps":
        return [f"Apple GPU of {backends.describe_cpu()}"]
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count() if kind == "cuda" else 0)]


@functools.cache
def mkl_is_slow() -> bool:
    """Returns whether products of float32 matrices leave half of a CPU unused: by MKL they do, of an AMD's AVX-512.

    Two cores of an EPYC of 2024, 3,152 x 384 by 384 x 1,536: 203 GFLOP/s by MKL, 456 by oneDNN, which PyTorch has, too.
    Without AVX-512 they are as fast as each other.
    """
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and "AMD" in backends.describe_cpu()


def peak_bytes() -> int:
    """Returns the most memory of the first accelerator that was in use, bytes."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else torch.mps.driver_allocated_memory()


def free_bytes() -> int | None:
    """Returns the free memory of the first accelerator, bytes."""
    if torch.cuda.is_available():
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by PyTorch, for what comes next
        return torch.cuda.mem_get_info()[0] + kept
    return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()


def on_device(array):
    # Piece by piece: PyTorch takes no read-only array, as a mapped file is.
    tensor = torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), device=_device())
    for start in range(0, len(array), 256):
        tensor[start : start + 256] = torch.from_numpy(np.array(array[start : start + 256]))
    return tensor


def sender():
    """Returns a function that copies from pinned memory; Keras' own copy waits for all steps before it."""
    if torch.device(_device()).type != "cuda":
        return lambda array: array
    device = torch.cuda.current_device()  # of the thread: another would make itself at home on the first

    def send(array):
        with torch.cuda.device(device):
            return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)

    return send


def rows_of_each(tables, indices):
    # Whole rows at once, which `torch.gather` would take apart.
    (batch, rows, columns), count = tables.shape, indices.shape[1]
    first = torch.arange(batch, device=tables.device)[:, None] * rows
    return tables.reshape(-1, columns).index_select(0, (first + indices).reshape(-1)).reshape(batch, count, columns)


@contextlib.contextmanager
def products(exact: bool):
    kept = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = not exact
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = kept


def make_strict() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def keep_compiled(folder: Path) -> None:
    """Does nothing: PyTorch keeps what it compiles by itself."""


def compiled(function):
    return torch.compile(function)


def predictor(model):
    arguments = backends.inference_arguments(model)
    return torch.no_grad()(lambda batch: model(batch, **arguments))
