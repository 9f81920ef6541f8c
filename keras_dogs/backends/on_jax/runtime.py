"""What JAX answers to the questions of `keras_dogs.backends`, where each function is documented."""

import contextlib
import os
from pathlib import Path

import jax

from keras_dogs import backends

# JAX has no int64 unless the whole process is switched to it.
COUNTER_DTYPE = "int32"
COMPILER = "XLA"
NOT_COMPILED = "not compiled: turned off"


def accelerators() -> list[str]:
    """Names the accelerators that this process computes on."""
    return [device.device_kind for device in jax.local_devices() if device.platform != "cpu"]


def cudnn_attends() -> bool:
    """Returns whether cuDNN has attention for this GPU, of compute capability 8.0 or more: JAX itself does not ask."""
    major, _, minor = str(getattr(jax.local_devices()[0], "compute_capability", "")).partition(".")
    return minor.isdecimal() and int(major) >= 8  # elsewhere it is a name, or there is none


def peak_bytes() -> int:
    """Returns the most memory of the first accelerator that was in use, bytes."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def free_bytes() -> int | None:
    """Returns the free memory of the first accelerator, bytes."""
    found = jax.local_devices()[0].memory_stats() or {}
    return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None


def on_device(array):
    return jax.device_put(array)


def sender():
    return lambda array: array


def rows_of_each(tables, indices):
    return jax.vmap(lambda table, rows: jax.numpy.take(table, rows, axis=0, mode="clip"))(tables, indices)


def products(exact: bool):
    return jax.default_matmul_precision("highest" if exact else "default")


def make_strict() -> None:
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*flags, "--xla_gpu_deterministic_ops=true"]))
    jax.config.update("jax_default_matmul_precision", "highest")


def keep_compiled(folder: Path) -> None:
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def compiled(function):
    return jax.jit(function)


def predictor(model):
    arguments = backends.inference_arguments(model)
    call = jax.jit(lambda *state_and_batch: model.stateless_call(*state_and_batch, **arguments)[0])

    def predict(batch):
        kinds = [model.trainable_variables, model.non_trainable_variables]  # now: layers may be frozen meanwhile
        return call(*([variable.value for variable in kind] for kind in kinds), batch)

    return predict


def trace(model) -> None:
    """Does nothing: JAX compiles what Keras gives it."""


def layer_by_layer():
    return contextlib.nullcontext()


def settle(call) -> None:
    call()  # which is compiled by it


def num_traces(model) -> int:
    return 0


def describe_traces(model) -> None:
    """Returns `None`: JAX needs no traces of ours."""
