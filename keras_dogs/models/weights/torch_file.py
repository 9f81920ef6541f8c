"""Tensors of a PyTorch file (`.pth`, `.pt`, `.bin`) without PyTorch, and without running what is in it.

Such a file is a zip archive: `data.pkl`, a pickle, says which tensors there are, and `data/<key>` holds their numbers.
A pickle can call any function; this one may name only the few that rebuild a tensor, and they are replaced by our own.
"""

import collections
import io
import pickle
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np

from keras_dogs.system import reading

_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "BFloat16Storage": "bfloat16",
}


class _Stored(NamedTuple):
    """Where a tensor lies: a part of the archive, its number type, and the view of it."""

    key: str
    dtype: str
    offset: int
    shape: tuple
    strides: tuple


class TorchFile:
    """A state dict, read one tensor at a time.

    Attributes:
        notes: tuple of str. Which of several state dicts was taken.

    Raises:
        ValueError: the file is no zip archive of PyTorch, or its pickle names anything but tensors.
    """

    def __init__(self, path):
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(
                "not a zip archive of PyTorch (files from before PyTorch 1.6 are plain pickles; save it again)"
            ) from error
        reading.refuse_bomb(self._archive)
        member = next((name for name in self._archive.namelist() if name.endswith("data.pkl")), None)
        if member is None:
            raise ValueError("a zip archive without data.pkl; not a file of torch.save")
        self._folder = member.removesuffix("data.pkl")
        self._stored, self.notes = _find_tensors(_Unpickler(io.BytesIO(self._archive.read(member))).load())

    def close(self) -> None:
        """Closes the file; no tensor can be read afterwards."""
        self._archive.close()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor."""
        return {name: stored.shape for name, stored in self._stored.items()}

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor."""
        stored = self._stored[name]
        content = self._archive.read(f"{self._folder}data/{stored.key}")
        dtype = np.dtype(ml_dtypes.bfloat16 if stored.dtype == "bfloat16" else stored.dtype)
        flat = np.frombuffer(content, dtype)[stored.offset :]
        last = sum((size - 1) * step for size, step in zip(stored.shape, stored.strides))
        if min((0, *stored.shape, *stored.strides)) < 0 or (0 not in stored.shape and last >= len(flat)):
            raise ValueError(f"a view of {stored.shape} that does not lie in its {len(flat)} numbers")
        strides = [step * dtype.itemsize for step in stored.strides]
        return np.lib.stride_tricks.as_strided(flat, stored.shape, strides, writeable=False)


# Where the checkpoints of a training keep their weights; averaged ones go first, as in timm's `load_state_dict`.
_AVERAGED, _PLACES = ("state_dict_ema", "model_ema"), ("state_dict_ema", "model_ema", "state_dict", "model")
_DEPTH = 4  # a dict in a pickle may hold itself


def _find_tensors(content) -> tuple[dict[str, _Stored], tuple[str, ...]]:
    """Finds the state dict in a checkpoint of a training, and says which one was chosen."""
    notes: tuple[str, ...] = ()
    for _ in range(_DEPTH):
        places = [key for key in _PLACES if isinstance(content, dict) and isinstance(content.get(key), dict)]
        if not places:
            break
        if places[0] in _AVERAGED:
            rest = f"; {' and '.join(places[1:])} of the same file left out" if places[1:] else ""
            notes = (f"the averaged weights are taken ({places[0]}){rest}",)
        content = content[places[0]]
    if not isinstance(content, dict):
        raise ValueError("no dict of tensors; save model.state_dict(), not the model")
    # The wrapper of a training on several devices prefixes all names.
    return {
        str(name).removeprefix("module."): each for name, each in content.items() if isinstance(each, _Stored)
    }, notes


# What trainings keep of their settings beside the weights (timm, DeiT, torchvision): it is passed over.
_SETTINGS = (
    ("argparse", "Namespace"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath", "Path")),
)


class _Setting:
    """Stands for an object of a training's settings, and does nothing."""

    def __new__(cls, *_):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *rest: tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) in _SETTINGS:
            return _Setting
        raise ValueError(f"its pickle asks for {module}.{name}, which no file of tensors needs; refused")

    def persistent_load(self, saved):
        kind, storage, key, *_ = saved
        if kind != "storage" or storage not in _DTYPES:
            raise ValueError(f"an unknown kind of storage: {kind} {storage}")
        return key, _DTYPES[storage]


def _rebuild_tensor(storage, offset, shape, strides, *rest) -> _Stored:
    return _Stored(*storage, offset, tuple(shape), tuple(strides))
