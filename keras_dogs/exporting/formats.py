"""The table of formats: what each is written by, what opens it, and what has to be installed for either."""

import difflib
import importlib.util
from typing import NamedTuple

from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.runs.records import PROSE

INT8, FLOAT16 = "int8", "float16"


class Format(NamedTuple):
    """A row of the table. A format also has a file in `runtimes` or `libraries`, which opens what was written.

    Attributes:
        name: str. What `--format` takes.
        file: str. The file, or folder, in the exported folder.
        backend: str or `None`. The backend that can write it; `None` for any.
        extra: str. The extra of this package that brings what is needed.
        writing: tuple of str. Modules that are needed to write it.
        reading: tuple of str. Modules that are needed to open it, and nothing else but NumPy and Pillow.
        packages: str. What `pip install` calls those.
        quantizations: tuple of str. What `--quantize` takes: `INT8`, `FLOAT16`.
        quantizing: tuple of str. Modules that are needed for `INT8`.
        is_library: bool. Whether it is for a library of models, which prepares pictures in its own way, by a file in
            `libraries`; what was written for one can be pushed to a hub.
    """

    name: str
    file: str
    backend: str | None
    extra: str
    writing: tuple[str, ...]
    reading: tuple[str, ...]
    packages: str
    quantizations: tuple[str, ...] = ()
    quantizing: tuple[str, ...] = ()
    is_library: bool = False


_ROWS = (
    Format(
        name="onnx",
        file="model.onnx",
        backend="torch",
        extra="onnx",
        writing=("onnx", "onnxscript"),
        reading=("onnxruntime",),
        packages="onnxruntime",
        quantizations=(INT8,),
    ),
    Format(
        name="torch",
        file="model.pt2",
        backend="torch",
        extra="torch",
        writing=(),
        reading=("torch",),
        packages="torch",
    ),
    Format(
        name="tf_saved_model",
        file="saved_model",
        backend="tensorflow",
        extra="tensorflow",
        writing=(),
        reading=("tensorflow",),
        packages="tensorflow",
    ),
    Format(
        name="litert",
        file="model.tflite",
        backend="tensorflow",
        extra="litert",
        writing=(),
        reading=("ai_edge_litert",),
        packages="ai-edge-litert",
        quantizations=(INT8, FLOAT16),
    ),
    Format(
        name="openvino",
        file="model.xml",
        backend="torch",
        extra="openvino",
        writing=("openvino",),
        reading=("openvino",),
        packages="openvino",
        quantizations=(INT8, FLOAT16),
        quantizing=("nncf",),
    ),
    Format(
        name="keras",
        file="model.keras",
        backend=None,
        extra="",
        writing=(),
        reading=("keras", "keras_hub"),
        packages="keras keras-hub",
    ),
    Format(
        name="transformers",
        file="model.safetensors",
        backend=None,
        extra="transformers",
        writing=(),
        reading=("torch", "transformers"),
        packages="torch torchvision transformers",
        is_library=True,
    ),
    Format(
        name="timm",
        file="model.safetensors",
        backend=None,
        extra="timm",
        writing=(),
        reading=("torch", "timm"),
        packages="timm",
        is_library=True,
    ),
    Format(
        name="keras_hub",
        file="model.weights.h5",
        backend=None,
        extra="",
        writing=(),
        reading=("keras", "keras_hub"),
        packages="keras keras-hub",
        is_library=True,
    ),
)
FORMATS = {row.name: row for row in _ROWS}
RUNTIMES = tuple(row.name for row in _ROWS if not row.is_library)
LIBRARIES = tuple(row.name for row in _ROWS if row.is_library)


def find(name: str) -> Format:
    """Returns a row by its name.

    Raises:
        UserError: there is none; the text names the nearest.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(FORMATS)}"
        raise UserError(f"--format {name}: unknown format; {hint}")
    return FORMATS[name]


def check_quantization(row: Format, quantize: str | None) -> None:
    """Refuses a quantisation that a format does not have.

    Raises:
        UserError: it does not; the text names the formats that do.
    """
    if quantize and quantize not in row.quantizations:
        those = ", ".join(each.name for each in FORMATS.values() if quantize in each.quantizations)
        raise UserError(f"--quantize {quantize}: format {row.name} does not support it; choose one of {those}")


def check_installed(row: Format, quantize: str | None = None) -> None:
    """Refuses a format for which something is not installed.

    Raises:
        UserError: it names the module, and how to install it.
    """
    if row.backend and not importlib.util.find_spec(row.backend):
        raise UserError(
            f"--format {row.name}: needs {PROSE[row.backend]} to write it, which is not installed: "
            f"{install_line(row.backend)}"
        )
    modules = (*row.writing, *row.reading, *(row.quantizing if quantize == INT8 else ()))
    require(f"--format {row.name}", row, modules)


def require(what: str, row: Format, modules: tuple[str, ...]) -> None:
    """Refuses what needs a module that is not installed.

    Raises:
        UserError: it begins with `what`, names the module, and says how to install it.
    """
    for module in modules:
        if not importlib.util.find_spec(module):
            raise UserError(f"{what}: needs {module}, which is not installed: {install_line(row.extra or 'jax')}")
