"""Any picture that Pillow opens -> upright 8-bit RGB -> a canvas. Exported models take this file along as it is.

It needs Pillow and NumPy alone.
"""

import contextlib
import functools
import threading
import warnings
from pathlib import Path
from typing import BinaryIO
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL import ImageOps

# 178 million pixels: above it a small file can fill the memory. Pillow's own limit.
MAX_PIXELS = 2 * 89_478_485


class UnreadablePicture(Exception):
    """A picture that cannot be read. The text is the reason alone; the caller, who knows the file's name, adds that.

    Args:
        reason: str.
        may_pass: bool. Whether the cause is outside the file and may go away: missing permission, a failing disk, too
            little memory.
    """

    def __init__(self, reason: str, may_pass: bool = False):
        super().__init__(reason)
        self.may_pass = may_pass


class _WithoutWarnings:
    """Turns warnings off while any thread is inside.

    `warnings.catch_warnings` alone would not do: its state is global, and threads that leave in another order than they
    entered would leave warnings off for good.
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


def open_picture(file: Path | str | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads a picture as upright RGB.

    EXIF orientation is applied, and ignored where EXIF is broken; grey, palette, CMYK, 16-bit and float pictures are
    converted (`_reduce_depth`); what is transparent is laid on white; of an animation the first frame is taken.

    Raises:
        UnreadablePicture: the file is missing, empty, truncated, not a picture, or of more than `max_pixels`.
    """
    try:
        with _without_warnings, _identify(file) as picture:
            if picture.width * picture.height > max_pixels:
                raise UnreadablePicture(_too_large(picture, max_pixels))
            picture.load()
            with contextlib.suppress(Exception):  # the picture is sound, whatever its broken EXIF makes Pillow raise
                ImageOps.exif_transpose(picture, in_place=True)  # otherwise, it copies even an upright picture
            return to_rgb(picture)
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


class Header(NamedTuple):
    """What a picture's file says of itself before it is decoded.

    Attributes:
        format: str. Pillow's name of it: `"JPEG"`.
        orientation: int. EXIF's, 1 to 8; 1 is upright.
    """

    format: str
    orientation: int


def header_of(file: Path | str | BinaryIO) -> Header:
    """Reads the header of a picture that `open_picture` can open."""
    with _without_warnings, _identify(file) as picture:
        orientation = 1
        with contextlib.suppress(Exception):  # broken EXIF
            orientation = int(picture.getexif().get(_ORIENTATION, 1))
        return Header(picture.format or "", orientation if 1 <= orientation <= 8 else 1)


_ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4


def _identify(file) -> Image.Image:
    """Opens a picture of any format that Pillow or, where it is installed, pillow-heif reads."""
    try:
        return Image.open(file, formats=_formats())
    except Image.UnidentifiedImageError:
        if not _brand_of(file).startswith(_HEIF_BRANDS):
            raise
        try:
            import pillow_heif
        except ImportError:
            raise UnreadablePicture("a HEIC picture; to read it: pip install pillow-heif") from None
        pillow_heif.register_heif_opener()
        return Image.open(file, formats=("HEIF",))


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns the formats that are opened: not all of Pillow's, as some start other programs (EPS is PostScript)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF", "ICO", "TGA", "PCX")


_HEIF_BRANDS = (b"hei", b"hev", b"mif1", b"msf1")  # ISO/IEC 23008-12, annex B


def _brand_of(file) -> bytes:
    """Returns the brand that an ISO media file begins with, such as `heic`; empty of other files."""
    with contextlib.ExitStack() as stack:
        opened = file if hasattr(file, "read") else stack.enter_context(open(file, "rb"))
        opened.seek(0)
        head = opened.read(12)
        opened.seek(0)
    return head[8:] if head[4:8] == b"ftyp" else b""


def sides_of(size) -> tuple[int, int]:
    """Returns rows and columns of a canvas of `size`: an int of a square, or the pair itself."""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def to_canvas(picture: Image.Image, size, fit: str = "squash", interpolation: str = "bilinear") -> np.ndarray:
    """Resizes a picture to a canvas, antialiased.

    Args:
        picture: `PIL.Image.Image`, RGB.
        size: int, or pair of ints. The side of the canvas, or its rows and columns, in pixels.
        fit: str. `"squash"` (the whole picture, proportions lost; as vision_transformer does), `"crop"` (the largest
            central part of the canvas' proportions) or `"pad"` (the whole picture on black).
        interpolation: str. `"bilinear"` or `"bicubic"`, as the weights had their pictures.

    Returns:
        uint8 array of shape `(rows, columns, 3)`.
    """
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    rows, columns = sides_of(size)
    if fit == "crop":
        return np.asarray(ImageOps.fit(picture, (columns, rows), how))
    if fit == "pad":
        return np.asarray(ImageOps.pad(picture, (columns, rows), how))
    return np.asarray(picture if picture.size == (columns, rows) else picture.resize((columns, rows), how))


def to_rgb(picture: Image.Image) -> Image.Image:
    """Returns any picture of Pillow's as 8-bit RGB, what is transparent on white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _reduce_depth(picture).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy


def _reduce_depth(picture: Image.Image) -> Image.Image:
    """Reduces values of 9 to 32 bits, or floats, to 8 bits; Pillow's own conversion clips all above 255 to white.

    The full scale is the one that the file states (TIFF's MaxSampleValue), or else the smallest common one that no
    value exceeds: 1 for floats, 255, the maxima of 10, 12, 14 and 16 bits, or the greatest value.
    """
    values = np.asarray(picture, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadablePicture("holds values that are not finite")
    most = values.max(initial=0)
    scales = (1.0,) * (picture.mode == "F") + (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
    given = getattr(picture, "tag_v2", {}).get(_MAX_SAMPLE_VALUE)
    given = float(given[0] if isinstance(given, tuple) else given or 0)
    full_scale = given if given >= most > 0 else next((scale for scale in scales if scale >= most), most)
    return Image.fromarray((values.clip(0, full_scale) * (255.0 / full_scale)).round().astype(np.uint8))


_MAX_SAMPLE_VALUE = 281  # TIFF 6.0, section 8


def _too_large(picture: Image.Image, most: int) -> str:
    return f"{picture.width} x {picture.height} pixels is too large to open safely (at most {most:,} pixels)"


def _why_unidentified(file) -> str:
    if isinstance(file, (str, Path)) and Path(file).stat().st_size == 0:
        return "the file is empty (0 bytes)"
    return "not a picture that Pillow can read"


def _first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return "the file is truncated" if "truncated" in text.lower() else text
