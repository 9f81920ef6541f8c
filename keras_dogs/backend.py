"""Which framework runs, on what, and what each needs so that the rest need not know.

Only this module, `fast_layers/`, `tracing.py` and `devices/` name a framework.

`jax`, `tensorflow` and `torch` are imported inside functions, never at the top. `select` runs before Keras is imported.
"""

import contextlib
import ctypes
import difflib
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import mmap
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.records import BACKENDS
from keras_dogs.records import PROSE


def select() -> str:
    """Decides the backend before Keras is imported, and keeps TensorFlow out of the way of the other two.

    The backend is `KERAS_BACKEND`, or what `keras.json` says, or TensorFlow, as in Keras. On JAX and PyTorch the import
    of TensorFlow is blocked: KerasHub would import it (3 s), it would take GPU memory, and nothing here needs it.

    Raises:
        UserError: the name is misspelt, or the backend is not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or _configured_backend()
    if name not in BACKENDS:
        near = difflib.get_close_matches(name.lower(), BACKENDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(BACKENDS)}"
        raise UserError(f"KERAS_BACKEND={name}: unknown backend; {hint}")
    if not importlib.util.find_spec(name):
        raise UserError(f"KERAS_BACKEND={name}: {PROSE[name]} is not installed: pip install 'keras-dogs[{name}]'")
    already = "tensorflow" in sys.modules or any(isinstance(finder, _TensorFlowBlocker) for finder in sys.meta_path)
    if name != "tensorflow" and not already:
        sys.meta_path.insert(0, _TensorFlowBlocker())
    os.environ["KERAS_BACKEND"] = name
    _keep_freed_memory(at_once=2**28 if name == "tensorflow" else 0)
    if name == "tensorflow":
        _import_tensorflow_quietly()
    if name == "jax":
        _keep_eigen()
    return name


def _keep_eigen() -> None:
    """Has XLA for CPUs leave sums alone to YNNPACK, convolutions and products to Eigen; a user's flag goes first.

    Two cores of an EPYC of 2024, batch 16: a convolution of 64 channels, 3 x 3, 56 x 56 places, takes YNNPACK, which
    jaxlib 0.10 chooses, 17 ms and its gradient 43 ms, Eigen 11 and 23 ms; ResNet-18 trains 1.4 times faster, ViT-Ti/16
    predicts 1.2 times faster. The sum over 16 x 112 x 112 places of them takes Eigen 6.3 ms, YNNPACK 1.1.
    """
    flag, flags = "xla_cpu_experimental_ynn_fusion_type", os.environ.get("XLA_FLAGS", "")
    if flag in flags:
        return
    jaxlib = importlib.util.find_spec("jaxlib")
    for folder in jaxlib.submodule_search_locations if jaxlib else ():
        for library in Path(folder).glob("libjax_common.*"):
            with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(flag.encode()) >= 0:  # or jaxlib would end the process
                    os.environ["XLA_FLAGS"] = f"{flags} --{flag}=reduce".strip()


def _keep_freed_memory(at_once: int = 0) -> None:
    """Tells glibc to keep what is freed, and how many bytes more than it needs to ask for; elsewhere nothing happens.

    TensorFlow and PyTorch free a step's arrays in the step, and glibc would hand each back to the system and have its
    pages cleared again in the next. Steps of batch 16, two cores: ViT-Ti/16 on TensorFlow 3.7 s without, 1.5 s with,
    for 9 % more memory; on PyTorch, where `fast_layers` frees as early, 1.35 and 1.21 s, ResNet-18 2.14 and 2.01 s
    (medians of three; to ask for more slows a ViT there). JAX' steps gain nothing; pictures are decoded 1.1 times as
    fast on each.
    """
    mmap_max, top_pad, trim_threshold = -4, -2, -1  # malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        glibc = ctypes.CDLL(None)
        if sys.platform == "linux" and hasattr(glibc, "gnu_get_libc_version"):
            glibc.mallopt(mmap_max, 0)
            glibc.mallopt(trim_threshold, 2**31 - 1)
            if at_once:
                glibc.mallopt(top_pad, at_once)


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its words about GPUs and instruction sets, unless the import fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as said:
        stream = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            said.seek(0)
            os.write(stream, said.read())
            raise
        finally:
            os.dup2(stream, 2)
            os.close(stream)


class _TensorFlowBlocker:
    """An import finder and loader that makes `import tensorflow` fail as if it were not installed.

    KerasHub and Keras then do without. (`sys.modules["tensorflow"] = None` will not do: Keras takes the key for a sign
    that TensorFlow is there.)
    """

    def find_spec(self, name, path=None, target=None):
        blocked = name.partition(".")[0] in ("tensorflow", "tensorflow_text")
        return importlib.machinery.ModuleSpec(name, self) if blocked else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"{spec.name} is kept out of a run on another backend", name=spec.name)

    def exec_module(self, module):
        raise NotImplementedError


def _configured_backend() -> str:
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        return json.loads((home / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError):
        return "tensorflow"


def name() -> str:
    """The backend that Keras runs on: `"jax"`, `"tensorflow"` or `"torch"`."""
    import keras

    return keras.backend.backend()


def keep_tensorflow_off_accelerators() -> None:
    """On JAX and PyTorch, hides the GPUs from a TensorFlow that something imported: two would fight over memory."""
    tensorflow = sys.modules.get("tensorflow")
    if name() == "tensorflow" or tensorflow is None:
        return
    with contextlib.suppress(RuntimeError):  # already initialised by its importer, whose business it then is
        tensorflow.config.set_visible_devices([], "GPU")


def counter_dtype() -> str:
    """The integer type of a step counter that lives in the graph.

    TensorFlow keeps int32 variables in host memory, where a step compiled by XLA for a GPU cannot reach them; JAX has
    no int64 unless the whole process is switched to it.
    """
    return "int64" if name() == "tensorflow" else "int32"


def describe_device(count: int) -> str:
    """The device that the computation runs on, in words: `"CPU: AMD EPYC ..., 2 cores"` or the accelerator's name.

    Args:
        count: int. How many are used, of all processes; there may be more.
    """
    accelerators = _accelerators()
    return f"{count} x {accelerators[0]}" if accelerators else f"CPU: {_describe_cpu()}, {os.cpu_count()} cores"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a framework says that a device, or the machine, has not enough memory."""
    said = f"{type(error).__name__}: {error}"
    signs = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OutOfMemory", "out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)


def has_accelerator() -> bool:
    """Whether the computation runs on something else than a CPU."""
    return bool(_accelerators())


def _accelerators() -> list[str]:
    if name() == "jax":
        import jax

        return [device.device_kind for device in jax.local_devices() if device.platform != "cpu"]
    if name() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        return [tf.config.experimental.get_device_details(device).get("device_name", "GPU") for device in devices]
    if name() == "torch":
        import torch
        from keras.src.backend.torch.core import get_device

        # A user may have Keras compute elsewhere (`KERAS_TORCH_DEVICE`, `keras.device`).
        is_used = torch.device(get_device()).type == "cuda"
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count() if is_used else 0)]
    raise ValueError(f"Unknown backend: {name()}")


def cudnn_attends() -> bool:
    """Whether cuDNN has attention for this GPU, of compute capability 8.0 or more: JAX itself does not ask."""
    if name() != "jax":
        return False
    import jax

    major, _, minor = str(getattr(jax.local_devices()[0], "compute_capability", "")).partition(".")
    return minor.isdecimal() and int(major) >= 8  # elsewhere it is a name, or there is none


@functools.cache
def mkl_is_slow() -> bool:
    """Whether PyTorch's products of float32 matrices leave half of a CPU unused: MKL does, of an AMD's AVX-512.

    Two cores of an EPYC of 2024, 3,152 x 384 by 384 x 1,536: 203 GFLOP/s by MKL, 456 by oneDNN, which PyTorch has, too.
    Without AVX-512 they are as fast as each other.
    """
    if name() != "torch":
        return False
    import torch

    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and "AMD" in _describe_cpu()


def _describe_cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_gib() -> float:
    """The most memory that was in use, GiB: the accelerator's where there is one, else this process's resident set."""
    peak = _accelerator_peak_bytes() if _accelerators() else 0
    if not peak:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak / 2**30


def _accelerator_peak_bytes() -> int:
    if name() == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    if name() == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    if name() == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    raise ValueError(f"Unknown backend: {name()}")


def free_device_bytes() -> int | None:
    """What is free of the device's memory: the first accelerator's, or the machine's; `None` where it is not known."""
    if not _accelerators():
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/meminfo").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
        return None
    if name() == "jax":
        import jax

        found = jax.local_devices()[0].memory_stats() or {}
        return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None
    if name() == "tensorflow":
        import tensorflow as tf

        # It takes nearly all of a GPU when it starts, and does not say how much that is.
        query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
        with contextlib.suppress(OSError, ValueError):
            total = int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]) * 2**20
            return int(0.9 * total) - tf.config.experimental.get_memory_info("GPU:0")["current"]
        return None
    if name() == "torch":
        import torch

        return torch.cuda.mem_get_info()[0]
    raise ValueError(f"Unknown backend: {name()}")


def on_device(array):
    """A NumPy array as a tensor on the device, with one copy there and none on the way; it may be a mapped file."""
    if name() == "jax":
        import jax

        return jax.device_put(array)
    if name() == "tensorflow":
        import tensorflow as tf

        if has_accelerator():
            return tf.convert_to_tensor(array)
        # It would copy the array, and the copy again where that begins at no multiple of 64 bytes.
        memory = np.empty(array.nbytes + 64, "uint8")
        start = -memory.ctypes.data % 64
        tensor = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        tensor[:] = array
        return tf.experimental.dlpack.from_dlpack(tensor.__dlpack__())
    if name() == "torch":
        import torch
        from keras.src.backend.torch.core import get_device

        # Piece by piece: PyTorch takes no read-only array, as a mapped file is.
        tensor = torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), device=get_device())
        for start in range(0, len(array), 256):
            tensor[start : start + 256] = torch.from_numpy(np.array(array[start : start + 256]))
        return tensor
    raise ValueError(f"Unknown backend: {name()}")


def sender():
    """A function of a batch's array that sends it on its way to this thread's device; it may be called in any.

    Keras' copy to a GPU on PyTorch, from memory that the system may move, would wait for all steps before it. Elsewhere
    the array stays as it is.
    """
    if name() != "torch" or not has_accelerator():
        return lambda array: array
    import torch

    device = torch.cuda.current_device()  # of the thread: another would make itself at home on the first

    def send(array):
        with torch.cuda.device(device):
            return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)

    return send


def rows_of_each(tables, indices):
    """Of each table of a batch the rows with its own indices: a gather that leaves a batch spread over devices.

    Args:
        tables: tensor of shape `(batch, rows, columns)`.
        indices: int32 tensor of shape `(batch, count)`, all of them in range.

    Returns:
        tensor of shape `(batch, count, columns)`.
    """
    if name() == "jax":
        import jax

        return jax.vmap(lambda table, rows: jax.numpy.take(table, rows, axis=0, mode="clip"))(tables, indices)
    if name() == "tensorflow":
        import tensorflow as tf

        return tf.gather(tables, indices, batch_dims=1)
    if name() == "torch":
        import torch

        # Whole rows at once, which `torch.gather` would take apart.
        (batch, rows, columns), count = tables.shape, indices.shape[1]
        first = torch.arange(batch, device=tables.device)[:, None] * rows
        return tables.reshape(-1, columns).index_select(0, (first + indices).reshape(-1)).reshape(batch, count, columns)
    raise ValueError(f"Unknown backend: {name()}")


@contextlib.contextmanager
def products(exact: bool):
    """Within it, products of float32 are exactly such on an accelerator, too, or of factors rounded to TF32.

    JAX would round, PyTorch would not; TensorFlow can be told for the whole process alone (`--strict`). The products of
    a crop, batch 256: 1.7 ms of an H200's 40 a step of ResNet-50 when they are exact.
    """
    if name() == "tensorflow" or not has_accelerator():
        yield
    elif name() == "jax":
        import jax

        with jax.default_matmul_precision("highest" if exact else "default"):
            yield
    else:
        import torch

        kept = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = not exact
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = kept


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
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
    if name() == "jax":
        import jax

        flags = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*flags, "--xla_gpu_deterministic_ops=true"]))
        jax.config.update("jax_default_matmul_precision", "highest")
    elif name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
        tf.config.experimental.enable_op_determinism()
    elif name() == "torch":
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
    else:
        raise ValueError(f"Unknown backend: {name()}")


def keep_compiled(folder: Path) -> None:
    """Keeps what takes long to compile for later processes; PyTorch does so by itself, TensorFlow cannot.

    Args:
        folder: Path. A user's own `JAX_COMPILATION_CACHE_DIR` goes before it.
    """
    if name() == "jax" and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        import jax

        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def compiled(function):
    """A function of tensors as the backend compiles it: by XLA on JAX and TensorFlow, by `torch.compile` on PyTorch."""
    if name() == "jax":
        import jax

        return jax.jit(function)
    if name() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if name() == "torch":
        import torch

        return torch.compile(function)
    raise ValueError(f"Unknown backend: {name()}")


def predictor(model):
    """A function of a batch, an array, to a model's outputs, which may not be there before they are read.

    Keras' own waits for them, so that an accelerator is idle while the next batch is fetched.
    """
    if name() == "tensorflow":
        return model.predict_on_batch
    arguments = {"training": False} if model._call_has_training_arg else {}
    if name() == "torch":
        import torch

        return torch.no_grad()(lambda batch: model(batch, **arguments))
    if name() == "jax":
        import jax

        call = jax.jit(lambda *state_and_batch: model.stateless_call(*state_and_batch, **arguments)[0])

        def predict(batch):
            kinds = [model.trainable_variables, model.non_trainable_variables]  # now: layers may be frozen meanwhile
            return call(*([variable.value for variable in kind] for kind in kinds), batch)

        return predict
    raise ValueError(f"Unknown backend: {name()}")


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


def describe_execution(model) -> str:
    """How the steps of a compiled model run, in words, and why where XLA does not compile them."""
    if model.jit_compile:
        return "compiled by XLA" if name() != "torch" else "compiled by torch.compile"
    guilty = _uncompilable_layers(model)
    if guilty:
        return f"not compiled: {', '.join(guilty)} do not support it"
    return {
        "jax": "not compiled: turned off",
        "tensorflow": "tf.function graph without XLA, which Keras uses on accelerators only",
        "torch": "eager, as Keras runs PyTorch by default",
    }[name()]


def _uncompilable_layers(model) -> list[str]:
    return [layer.name for layer in model._flatten_layers() if not layer.supports_jit]
