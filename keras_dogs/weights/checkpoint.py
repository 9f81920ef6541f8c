"""Files of tensors, read one tensor at a time: safetensors (in shards too), `.npz`, PyTorch."""

import json
import zipfile
from pathlib import Path

import numpy as np
import safetensors

from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.weights.torch_file import TorchFile
from keras_dogs.weights.torch_file import from_bfloat16

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin")
_INDEX = "model.safetensors.index.json"


class Checkpoint:
    """Tensors by name, as long as the `with` block that opened them.

    Attributes:
        preset: str. What the user asked for; errors begin with it.
        shapes: dict of str to tuple of ints.
    """

    def __init__(self, preset: str, parts):
        self.preset = preset
        self._parts = parts
        self._part_of = {name: part for part in parts for name in part.shapes()}
        self.shapes = {name: shape for part in parts for name, shape in part.shapes().items()}

    def __contains__(self, name):
        return name in self.shapes

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for part in self._parts:
            part.close()

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return np.asarray(self._part_of[name].read(name), np.float32)
        except Exception as error:  # zlib, zipfile, safetensors and NumPy each raise their own kinds
            raise UserError(f"--preset {self.preset}: {name} cannot be read: the file is damaged ({error})") from error

    def error(self, what: str) -> UserError:
        """A `UserError` about this checkpoint."""
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
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError) as error:
        raise UserError(f"--preset {preset}: {_INDEX} is not an index of shards ({error})") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"--preset {preset}: of {len(names)} shards {', '.join(missing)} is missing; fetch it again")
    return [folder / name for name in names]


def _open(file: Path):
    if file.suffix == ".safetensors":
        return _SafetensorsFile(file)
    return _NpzFile(file) if file.suffix == ".npz" else TorchFile(file)


class _SafetensorsFile:
    def __init__(self, file: Path):
        self._file = safetensors.safe_open(file, framework="np")
        self._path = file

    def close(self):
        self._file = None

    def shapes(self):
        return {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}

    def read(self, name):
        if self._file.get_slice(name).get_dtype() == "BF16":
            return self._read_bfloat16(name)
        return self._file.get_tensor(name)

    def _read_bfloat16(self, name):
        """NumPy has no bfloat16, so safetensors gives none."""
        with self._path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_size))[name]
            start, end = header["data_offsets"]
            file.seek(8 + header_size + start)
            return from_bfloat16(np.frombuffer(file.read(end - start), "<u2").reshape(header["shape"]))


class _NpzFile:
    def __init__(self, file: Path):
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz archive, or a truncated one")
        self._arrays = np.load(file, allow_pickle=False)
        self._shapes = {name: self._read_shape(name) for name in self._arrays.files}

    def _read_shape(self, name):
        """From the array's header; the numbers stay where they are."""
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
