"""What TensorFlow answers to the questions of `keras_dogs.backends`, where each function is documented."""

import contextlib
import subprocess
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_dogs import backends

# TensorFlow keeps int32 variables in host memory, where a step compiled by XLA for a GPU cannot reach them.
COUNTER_DTYPE = "int64"
COMPILER = "XLA"
NOT_COMPILED = "tf.function graph without XLA, which Keras uses on accelerators only"


def hide_accelerators() -> None:
    """Hides the GPUs from TensorFlow, unless its importer has initialised them, whose business it then is."""
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def accelerators() -> list[str]:
    """Names the accelerators that this process computes on."""
    devices = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(device).get("device_name", "GPU") for device in devices]


def peak_bytes() -> int:
    """Returns the most memory of the first accelerator that was in use, bytes."""
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def free_bytes() -> int | None:
    """Returns the free memory of the first accelerator, bytes.

    TensorFlow takes nearly all of a GPU when it starts, and does not say how much that is.
    """
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    with contextlib.suppress(OSError, ValueError):
        total = int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]) * 2**20
        return int(0.9 * total) - tf.config.experimental.get_memory_info("GPU:0")["current"]
    return None


def on_device(array):
    if backends.has_accelerator():
        return tf.convert_to_tensor(array)
    # It would copy the array, and the copy again where that begins at no multiple of 64 bytes.
    memory = np.empty(array.nbytes + 64, "uint8")
    start = -memory.ctypes.data % 64
    tensor = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    tensor[:] = array
    return tf.experimental.dlpack.from_dlpack(tensor.__dlpack__())


def sender():
    return lambda array: array


def rows_of_each(tables, indices):
    return tf.gather(tables, indices, batch_dims=1)


def products(exact: bool):
    return contextlib.nullcontext()


def make_strict() -> None:
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.experimental.enable_op_determinism()


def keep_compiled(folder: Path) -> None:
    """Does nothing: TensorFlow cannot keep what it compiled."""


def compiled(function):
    return tf.function(function, jit_compile=True)


def predictor(model):
    return model.predict_on_batch


def trace(model) -> None:
    """Does nothing: TensorFlow compiles what Keras gives it."""


def layer_by_layer():
    return contextlib.nullcontext()


def settle(call) -> None:
    call()  # which is compiled by it


def num_traces(model) -> int:
    return 0


def describe_traces(model) -> None:
    """Returns `None`: TensorFlow needs no traces of ours."""
