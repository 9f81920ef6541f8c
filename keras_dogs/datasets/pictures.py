"""Any picture that Pillow opens -> upright 8-bit RGB -> a square canvas."""

import contextlib
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL import ImageOps

# Formats that Pillow reads without an external program, by suffix; content decides, the suffix only selects files.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")

# 178 million pixels: above it a small file can fill the memory. Pillow's own limit.
MAX_PIXELS = 2 * 89_478_485

FITS = ("squash", "crop", "pad")


class UnreadablePicture(Exception):
    """A file that is not a whole picture. Its text is the reason alone; who knows the file's name adds it.

    Args:
        reason: str.
        may_pass: bool. Whether the reason is not in the file: a right to read, a disk that fails, too little memory.
    """

    def __init__(self, reason: str, may_pass: bool = False):
        super().__init__(reason)
        self.may_pass = may_pass


class _WithoutWarnings:
    """Warnings are off while any thread is inside.

    `warnings.catch_warnings` is of the process: threads that go in another order than they came would leave it quiet.
    """

    def __init__(self):
        self.lock, self.inside, self.outermost = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self):
        with self.lock:
            if not self.inside:
                self.outermost.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self.inside += 1

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.outermost.close()


_without_warnings = _WithoutWarnings()


def open_picture(file: Path | str | BinaryIO) -> Image.Image:
    """Reads a picture as upright RGB.

    EXIF orientation is applied; grey, palette, CMYK and 16-bit pictures are converted; what is transparent is laid on
    white; of an animation the first frame is taken.

    Raises:
        UnreadablePicture: the file is missing, empty, truncated, not a picture, or larger than `MAX_PIXELS`.
    """
    try:
        with _without_warnings, Image.open(file) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadablePicture(_too_large(picture))
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)  # else it copies what is upright, too
            return _to_rgb(picture)
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(f"too large to open safely (at most {MAX_PIXELS:,} pixels)") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePicture(_why_unidentified(file)) from error
    except FileNotFoundError as error:
        raise UnreadablePicture("no such file") from error
    except IsADirectoryError as error:
        raise UnreadablePicture("is a folder") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them
        may_pass = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        raise UnreadablePicture(_first_line(error), may_pass) from error


def stamp_of(file: Path) -> str:
    """What tells that a file has changed since: its size and when it was written. Empty where there is none."""
    try:
        found = file.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def to_canvas(picture: Image.Image, size: int, fit: str = "squash") -> np.ndarray:
    """Resizes a picture to a square canvas, antialiased.

    Args:
        picture: `PIL.Image.Image`, RGB.
        size: int. The side of the canvas in pixels.
        fit: str. `"squash"` (the whole picture, proportions lost; as vision_transformer does), `"crop"` (the largest
            central square) or `"pad"` (the whole picture on black).

    Returns:
        uint8 array of shape `(size, size, 3)`.
    """
    bilinear = Image.Resampling.BILINEAR
    if fit == "crop":
        return np.asarray(ImageOps.fit(picture, (size, size), bilinear))
    if fit == "pad":
        return np.asarray(ImageOps.pad(picture, (size, size), bilinear))
    return np.asarray(picture if picture.size == (size, size) else picture.resize((size, size), bilinear))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _reduce_depth(picture).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy


def _reduce_depth(picture: Image.Image) -> Image.Image:
    """16 bits to 8 by their upper byte; Pillow's own conversion clips everything above 255 to white."""
    values = np.asarray(picture, dtype=np.float64)
    full_scale = 255.0 if values.max(initial=0) <= 255 else 65535.0
    return Image.fromarray((values.clip(0, full_scale) * (255.0 / full_scale)).round().astype(np.uint8))


def _too_large(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height} pixels is too large to open safely (at most {MAX_PIXELS:,} pixels)"


def _why_unidentified(file) -> str:
    if isinstance(file, (str, Path)) and Path(file).stat().st_size == 0:
        return "the file is empty (0 bytes)"
    return "not a picture that Pillow can read"


def _first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return "the file is truncated" if "truncated" in text.lower() else text
