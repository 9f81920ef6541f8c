"""Which framework runs, on what, and what each needs so that the rest need not know.

Frameworks are named in `on_jax/`, `on_tensorflow/` and `on_torch/` alone. `select` runs before Keras is imported, and a
framework is imported when something first asks for it.
"""

import contextlib
import gc
import importlib
import importlib.metadata
import inspect
import os
import platform
import sys
from pathlib import Path

from keras_dogs.backends import keras_inside
from keras_dogs.backends.selection import select
from keras_dogs.errors import UserError
from keras_dogs.runs.records import BACKENDS
from keras_dogs.runs.records import PROSE
from keras_dogs.system import memory
from keras_dogs.system import posix
from keras_dogs.system import progress

__all__ = ["BACKENDS", "PROSE", "select"]

# Keras and KerasHub import these if they are installed, for scikit-learn's interface, galleries, data pipelines and
# tokenizers. No command uses those; a user's own program may, so it loads Keras without `load`.
_UNUSED = ("grain", "matplotlib", "pandas", "sklearn", "tensorflow_text")


def load() -> str:
    """Selects the backend and imports Keras and KerasHub, which takes seconds: a terminal shows it. Returns its name.

    Raises:
        UserError: see `select`.
    """
    with progress.busy("Loading Keras"), _without(_UNUSED), _uncollected():
        backend_name = select()
        importlib.import_module("keras_hub")
    return backend_name


@contextlib.contextmanager
def _uncollected():
    """Pauses garbage collection, a quarter of the time of an import, and exempts what was imported from it."""
    if "keras_hub" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _without(packages: tuple[str, ...]):
    """Makes packages look uninstalled inside the block, except those that were imported before."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for package in hidden:
            if sys.modules.get(package, package) is None:
                del sys.modules[package]


def name() -> str:
    """Returns the backend that Keras runs on: `"jax"`, `"tensorflow"` or `"torch"`."""
    import keras

    return keras.backend.backend()


def module_of(part: str, backend_name: str | None = None):
    """Imports what one backend has of its own, such as `on_jax/runtime.py`.

    Args:
        part: str. `"runtime"`, `"layers"` or `"devices"`.
        backend_name: str or `None`. The backend that Keras runs on where it is not given.
    """
    return importlib.import_module(f"keras_dogs.backends.on_{backend_name or name()}.{part}")


def keep_tensorflow_off_accelerators() -> None:
    """Hides the GPUs from a TensorFlow that something imported on JAX or PyTorch: two would fight over memory."""
    if name() != "tensorflow" and sys.modules.get("tensorflow"):  # `None` keeps a module from being imported
        module_of("runtime", "tensorflow").hide_accelerators()


def counter_dtype() -> str:
    """Returns the integer type of a step counter that lives in the graph."""
    return module_of("runtime").COUNTER_DTYPE


def describe_device(count: int) -> str:
    """Names the device that the computation runs on: `"CPU: AMD EPYC ..., 2 cores"` or the accelerator's name.

    Args:
        count: int. How many are used, of all processes; there may be more.
    """
    accelerators = _accelerators()
    return f"{count} x {accelerators[0]}" if accelerators else f"CPU: {describe_cpu()}, {os.cpu_count()} cores"


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether a framework says that a device, or the machine, has not enough memory."""
    said = f"{type(error).__name__}: {error}"
    signs = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OutOfMemory", "out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)


def has_accelerator() -> bool:
    """Returns whether the computation runs on something else than a CPU."""
    return bool(_accelerators())


def _accelerators() -> list[str]:
    return module_of("runtime").accelerators()


def describe_cpu() -> str:
    """Names the processor as the system does."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_gib() -> float:
    """Returns the most memory that was in use, GiB: the accelerator's, or else this process's resident set."""
    peak = module_of("runtime").peak_bytes() if _accelerators() else 0
    return (peak or posix.peak_memory_bytes()) / 2**30


def free_device_bytes() -> int | None:
    """Returns the free memory of the first accelerator, or of the machine; `None` where it is not known."""
    if _accelerators():
        return module_of("runtime").free_bytes()
    return memory.available_bytes()


def on_device(array):
    """Sends a NumPy array to the device, with one copy there and none on the way; it may be a mapped file."""
    return module_of("runtime").on_device(array)


def sender():
    """Returns a function that starts copying a batch's array to this thread's device; any thread may call it.

    It returns the array unchanged on backends where Keras' own copy does not wait for the device.
    """
    return module_of("runtime").sender()


def rows_of_each(tables, indices):
    """Gathers, of each table of a batch, the rows with its own indices; a batch stays spread over devices.

    Args:
        tables: tensor of shape `(batch, rows, columns)`.
        indices: int32 tensor of shape `(batch, count)`, all of them in range.

    Returns:
        tensor of shape `(batch, count, columns)`.
    """
    return module_of("runtime").rows_of_each(tables, indices)


def products(exact: bool):
    """Returns a context in which an accelerator multiplies float32 exactly, or rounds the factors to TF32.

    JAX would round, PyTorch would not; TensorFlow can be told for the whole process alone (`--strict`). The products of
    a crop, batch 256: 1.7 ms of an H200's 40 a step of ResNet-50 when they are exact.
    """
    return module_of("runtime").products(exact) if has_accelerator() else contextlib.nullcontext()


def versions() -> dict[str, str]:
    """Returns the versions of what a result depends on."""
    packages = ("keras", "keras-hub", "numpy", "pillow", name()) + (("jaxlib",) if name() == "jax" else ())
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def make_strict() -> None:
    """Makes results repeat to the last bit: float32 products in full precision, deterministic kernels; slower.

    It holds for the whole process, and must come before the first computation.
    """
    module_of("runtime").make_strict()


def keep_compiled(folder: Path) -> None:
    """Keeps what takes long to compile for later processes; PyTorch does so by itself, TensorFlow cannot.

    Args:
        folder: Path. A user's own `JAX_COMPILATION_CACHE_DIR` goes before it.
    """
    module_of("runtime").keep_compiled(folder)


def compiled(function):
    """Compiles a function of tensors: by XLA on JAX and TensorFlow, by `torch.compile` on PyTorch."""
    return module_of("runtime").compiled(function)


def inference_arguments(model) -> dict:
    """Returns the arguments by which a model's `call` knows inference; none where it takes no `training`."""
    return {"training": False} if "training" in inspect.signature(type(model).call).parameters else {}


def predictor(model):
    """Returns a function of a batch, an array, to a model's outputs, which may not be there before they are read.

    Keras' own waits for them, so that an accelerator is idle while the next batch is fetched.
    """
    return module_of("runtime").predictor(model)


def check_compilable(model, expected: bool = True) -> None:
    """Notices a layer that turns compilation off for the whole model, as Keras does without a word.

    Args:
        model: `keras.Model`.
        expected: bool. Whether compilation is asked for; if not, there is a warning instead of an error.

    Raises:
        UserError: it names the layers.
    """
    guilty = _uncompilable_layers(model)
    if not guilty:
        return
    message = f"the layers {', '.join(guilty)} turn compilation off for the whole model (supports_jit=False)"
    if expected:
        raise UserError(message)
    print(f"warning: {message}", file=sys.stderr)


def trace(model) -> None:
    """Makes a functional model run, and train, from a trace on PyTorch; the others compile what Keras gives them."""
    module_of("runtime").trace(model)


def layer_by_layer():
    """Returns a context in which models run as Keras has them: for those who watch or change a layer."""
    return module_of("runtime").layer_by_layer()


def settle(call) -> None:
    """Repeats a call, a function without arguments, until calls with the same shapes are as fast as they get.

    One call is enough on JAX and TensorFlow, as it compiles the model. On PyTorch the model is traced at the third call
    within this function; elsewhere only after seconds of such calls.
    """
    module_of("runtime").settle(call)


def num_traces(model) -> int:
    """Counts the traces of a model: where there is one more, a step has taken the time of making it."""
    return module_of("runtime").num_traces(model)


def is_exact(model) -> bool:
    """Returns whether no layer computes in half precision."""
    return not {layer.compute_dtype for layer in keras_inside.layers_of(model)} & {"bfloat16", "float16"}


def describe_execution(model) -> str:
    """Says how the steps of a compiled model ran, and why where nothing compiled them."""
    runtime = module_of("runtime")
    if traced := runtime.describe_traces(model):
        return traced
    if model.jit_compile:
        return f"compiled by {runtime.COMPILER}"
    guilty = _uncompilable_layers(model)
    return f"not compiled: {', '.join(guilty)} do not support it" if guilty else runtime.NOT_COMPILED


def _uncompilable_layers(model) -> list[str]:
    return [layer.name for layer in keras_inside.layers_of(model) if not layer.supports_jit]
