"""Which backend Keras is to run on, decided before Keras is imported, and what the process needs for it."""

import contextlib
import ctypes
import difflib
import importlib.machinery
import importlib.util
import json
import mmap
import os
import sys
import tempfile
from pathlib import Path

from keras_dogs.backends import register
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.runs.records import BACKENDS
from keras_dogs.runs.records import PROSE


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
        raise UserError(f"KERAS_BACKEND={name}: {PROSE[name]} is not installed: {install_line(name)}")
    already = "tensorflow" in sys.modules or any(isinstance(finder, _TensorFlowBlocker) for finder in sys.meta_path)
    if name != "tensorflow" and not already:
        sys.meta_path.insert(0, _TensorFlowBlocker())
    os.environ["KERAS_BACKEND"] = name
    if not register.is_bare():
        _keep_freed_memory(at_once=2**28 if name == "tensorflow" else 0)
    if name == "tensorflow":
        _import_tensorflow_quietly()
    if name == "jax" and not register.is_bare():
        _keep_eigen()
    if name == "torch" and not register.is_bare():
        _share_cores()
    return name


def _share_cores() -> None:
    """Has PyTorch's threads wait less long for each other in a busy loop; a user's setting goes first.

    GNU OpenMP spins for 300,000 rounds, which keeps the cores from the threads that have work. The default run on two
    cores, beside two busy processes, trains 36 pictures a second, and 206 with 60,000 rounds. On an idle machine, in
    two alternating pairs of runs, it is 476 and 395, then 382 and 461.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "60000")


def _keep_eigen() -> None:
    """Has XLA for CPUs leave sums alone to YNNPACK, convolutions and products to Eigen; a user's flag goes first.

    On two cores of an EPYC of 2024, at batch 16, a 3 x 3 convolution of 64 channels over 56 x 56 places takes 17 ms and
    its gradient 43 ms with YNNPACK, which jaxlib 0.10 chooses, but 11 and 23 ms with Eigen: ResNet-18 trains 1.4 times
    faster, ViT-Ti/16 predicts 1.2 times faster. A sum of these channels over 16 x 112 x 112 places takes
    6.3 ms with Eigen, 1.1 with YNNPACK.
    """
    flag, flags = "xla_cpu_experimental_ynn_fusion_type", os.environ.get("XLA_FLAGS", "")
    if flag not in flags and xla_knows(flag):
        os.environ["XLA_FLAGS"] = f"{flags} --{flag}=reduce".strip()


def xla_knows(flag: str) -> bool:
    """Returns whether the jaxlib that is installed takes a flag of `XLA_FLAGS`: it ends the process at an unknown one.

    A flag is a whole string in the library; what was a flag once may still be a part of others.
    """
    jaxlib = importlib.util.find_spec("jaxlib")
    for folder in jaxlib.submodule_search_locations if jaxlib else ():
        for library in Path(folder).glob("libjax_common.*"):
            with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(b"\0" + flag.encode() + b"\0") >= 0
    return False


def _keep_freed_memory(at_once: int = 0) -> None:
    """Tells glibc to keep what is freed, and how many bytes more than it needs to ask for; elsewhere nothing happens.

    TensorFlow and PyTorch free a step's arrays within the step; glibc would return each to the system, which would have
    to clear its pages again in the next step. Steps of batch 16 on two cores: ViT-Ti/16 on TensorFlow takes 3.7 s
    without this and 1.5 s with it, for 9 % more memory; on PyTorch, where `on_torch/through_graph.py` frees as early,
    1.35 and 1.21 s, ResNet-18 2.14 and 2.01 s (medians of three; asking for more slows a ViT down there). Steps on JAX
    gain nothing; pictures are decoded 1.1 times as fast on each backend.
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
