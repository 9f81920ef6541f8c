"""Files of tensors, read one tensor at a time: safetensors (in shards too), `.npz`, PyTorch."""

import json
import zipfile
from pathlib import Path
from typing import TypedDict

import ml_dtypes
import numpy as np
import safetensors

from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.models.weights.torch_file import TorchFile
from keras_dogs.system import reading

_INDEX = "model.safetensors.index.json"
_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
}


class _Index(TypedDict):
    weight_map: dict[str, str]


class Checkpoint:
    """Tensors by name, as long as the `with` block that opened them.

    Attributes:
        preset: str. What the user asked for; errors begin with it.
        shapes: dict of str to tuple of ints.
        notes: tuple of str. What the user should know of the file.
    """

    def __init__(self, preset: str, parts):
        self.preset = preset
        self._parts = parts
        self.notes = tuple(note for part in parts for note in getattr(part, "notes", ()))
        self._part_of = {name: part for part in parts for name in part.shapes()}
        self.shapes = {name: shape for part in parts for name, shape in part.shapes().items()}
        # A cache of the last two tensors: timm's fused kernel and bias are each read three times, in turn.
        self._latest: dict[str, np.ndarray] = {}

    def __contains__(self, name):
        return name in self.shapes

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for part in self._parts:
            part.close()

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor as float32.

        Raises:
            UserError: the file is damaged, or its numbers are of a type that is not supported.
        """
        if name in self._latest:
            return self._latest[name]
        try:
            tensor = np.asarray(self._part_of[name].read(name), np.float32)
        except _UnknownNumbers as error:
            raise self.error(f"{name} {error}") from error
        except Exception as error:  # zlib, zipfile, safetensors and NumPy each raise their own kinds
            raise UserError(f"--preset {self.preset}: {name} cannot be read: the file is damaged ({error})") from error
        self._latest = dict([*self._latest.items(), (name, tensor)][-2:])
        return tensor

    def error(self, what: str) -> UserError:
        """Returns a `UserError` about this checkpoint."""
        return UserError(f"--preset {self.preset}: {what}")


def open_checkpoint(preset: str, path: Path) -> Checkpoint:
    """Opens a file of tensors, or the safetensors of a folder.

    Args:
        preset: str. What the user asked for.
        path: Path.

    Raises:
        UserError: there is none, a shard is missing, or a file is damaged, truncated or of another kind.
    """
    files = _shards(preset, path) if path.is_dir() else [path]
    parts = []
    for file in files:
        try:
            parts.append(_open(file))
        except Exception as error:
            for part in parts:
                part.close()
            raise UserError(f"--preset {preset}: {file.name} cannot be read: {first_line(error)}") from error
    return Checkpoint(preset, parts)


def _shards(preset: str, folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if len(files) == 1:
            return files
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"--preset {preset}: looked for one .safetensors file or {_INDEX} in this folder; found {found}"
        )
    try:
        names = sorted(set(reading.read_json(index, _Index, _INDEX)["weight_map"].values()))
    except UserError as error:
        raise UserError(f"--preset {preset}: {error.args[0]}") from error
    for name in names:
        if Path(name).name != name:
            raise UserError(f"--preset {preset}: {_INDEX} names {name}, which lies elsewhere")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"--preset {preset}: of {len(names)} shards {', '.join(missing)} is missing; fetch it again")
    return [folder / name for name in names]


def _open(file: Path):
    if file.suffix == ".safetensors":
        return _SafetensorsFile(file)
    return _NpzFile(file) if file.suffix == ".npz" else TorchFile(file)


class _UnknownNumbers(Exception):
    """A tensor's numbers are of a type that is not read here."""


class _SafetensorsFile:
    """Reads a tensor's bytes where the header says; safetensors maps the file, and every page counts as memory."""

    def __init__(self, file: Path):
        with safetensors.safe_open(file, framework="np"):
            pass  # header and size of the file are sound
        self._file = file.open("rb")
        header_size = int.from_bytes(self._file.read(8), "little")
        self._tensors = json.loads(self._file.read(header_size))
        self._tensors.pop("__metadata__", None)
        self._begin = 8 + header_size

    def close(self):
        self._file.close()

    def shapes(self):
        return {name: tuple(tensor["shape"]) for name, tensor in self._tensors.items()}

    def read(self, name):
        tensor = self._tensors[name]
        if tensor["dtype"] not in _SAFETENSORS_DTYPES:
            raise _UnknownNumbers(f"has numbers of type {tensor['dtype']}, which are not supported")
        begin, end = tensor["data_offsets"]
        dtype = np.dtype(_SAFETENSORS_DTYPES[tensor["dtype"]])
        self._file.seek(self._begin + begin)
        return np.fromfile(self._file, dtype, (end - begin) // dtype.itemsize).reshape(tensor["shape"])


class _NpzFile:
    def __init__(self, file: Path):
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz archive, or a truncated one")
        with zipfile.ZipFile(file) as archive:
            reading.refuse_bomb(archive)
        self._arrays = np.load(file, allow_pickle=False)
        self._shapes = {name: self._read_shape(name) for name in self._arrays.files}

    def _read_shape(self, name):
        """Reads the shape from the array's header alone."""
        with self._arrays.zip.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)[0]

    def close(self):
        self._arrays.close()

    def shapes(self):
        return self._shapes

    def read(self, name):
        return self._arrays[name]
