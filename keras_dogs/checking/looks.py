"""Looks at each picture once: what its file is, and a small grey copy to find duplicates by."""

import hashlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import header_of
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.loaders.decoding import on_all_cores
from keras_dogs.system import progress

SIDE = 64  # of the grey copies, pixels
_LARGEST_FILE = 2**28  # bytes; what is larger is not held in memory whole
_GREY_WITHIN = 4  # of 255. JPEG keeps a grey picture's channels that close.


class Look(NamedTuple):
    """What one picture is.

    Attributes:
        content: bytes. A digest of the file; empty where the picture is not a file of its own, or of a huge one.
        pixels: bytes. A digest of the upright RGB picture.
        format: str. Of the file; empty where the picture is not a file of its own.
        width, height: int. Pixels, upright.
        orientation: int. EXIF's, 1 to 8; 1 is upright.
        is_grey: bool.
        brightness, contrast: float. Mean and standard deviation of the grey levels, 0 to 255.
    """

    content: bytes
    pixels: bytes
    format: str
    width: int
    height: int
    orientation: int
    is_grey: bool
    brightness: float
    contrast: float


class Looked(NamedTuple):
    """What the pictures of a split are.

    Attributes:
        looks: list of `Look`, or `None` where the picture is unreadable.
        grey: uint8 array `(num_pictures, SIDE, SIDE)`.
        unreadable: dict of an index to the reason.
    """

    looks: list[Look | None]
    grey: np.ndarray
    unreadable: dict[int, str]


def look_at(split: Split, what: str) -> Looked:
    """Opens every picture on all cores; 4 KiB and a `Look` are kept of each."""
    looks: list[Look | None] = [None] * len(split)
    grey, unreadable = np.zeros((len(split), SIDE, SIDE), np.uint8), {}

    def one(index: int) -> None:
        try:
            looks[index], grey[index] = _look(split, index)
        except UnreadablePicture as error:
            unreadable[index] = str(error)
        on_picture()

    with progress.counting(f"Looking at {what}", len(split)) as on_picture:
        on_all_cores(one, len(split))
    return Looked(looks, grey, unreadable)


def _look(split: Split, index: int) -> tuple[Look, np.ndarray]:
    file, content, header = split.file(index), b"", None
    try:
        if file is None or file.stat().st_size > _LARGEST_FILE:
            picture = split.read(index)
        else:
            content = file.read_bytes()
            picture = open_picture(io.BytesIO(content)) if content else split.read(index)
            header = header_of(io.BytesIO(content))
    except (OSError, MemoryError) as error:
        raise UnreadablePicture(getattr(error, "strerror", None) or "too large for the memory") from error
    pixels = _digest(np.asarray(picture))
    small = to_canvas(picture, SIDE)
    levels = np.asarray(Image.fromarray(small).convert("L"))
    spread = np.ptp(small, axis=-1)
    return Look(
        content=_digest(content) if content else b"",
        pixels=pixels,
        format=header.format if header else "",
        width=picture.width,
        height=picture.height,
        orientation=header.orientation if header else 1,
        is_grey=bool(np.quantile(spread, 0.99) <= _GREY_WITHIN),
        brightness=float(levels.mean()),
        contrast=float(levels.std()),
    ), levels


def _digest(content) -> bytes:
    """Returns 16 bytes that differ for other bytes, or for pictures of other pixels or another shape."""
    found = hashlib.blake2b(repr(getattr(content, "shape", "")).encode(), digest_size=16)
    found.update(np.ascontiguousarray(content) if isinstance(content, np.ndarray) else content)
    return found.digest()
