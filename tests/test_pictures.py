import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.data.datasets.pictures import is_picture

pytestmark = pytest.mark.once


def huge_png(file, side=30_000):
    """A valid black 1-bit PNG of `side` x `side`, written without ever holding its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(rows.compress(row * 1000) for _ in range(side // 1000)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return file


RED, GREEN = (200, 30, 40), (20, 160, 60)


@pytest.fixture
def two_colours():
    """Left half red, right half green, 8 x 4."""
    picture = Image.new("RGB", (8, 4), RED)
    picture.paste(GREEN, (4, 0, 8, 4))
    return picture


def near(pixel, colour, tolerance=6):
    return all(abs(int(a) - b) <= tolerance for a, b in zip(pixel, colour))


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif", "ppm"])
def test_formats_keep_colours(tmp_path, two_colours, suffix):
    file = tmp_path / f"dog.{suffix}"
    two_colours.save(file, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(np.asarray(open_picture(file)), np.asarray(two_colours))


def test_exif_orientation_is_honoured(tmp_path, two_colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it upright
    two_colours.resize((80, 40)).save(tmp_path / "dog.jpg", exif=exif, quality=95)
    upright = open_picture(tmp_path / "dog.jpg")
    assert upright.size == (40, 80)
    assert near(upright.getpixel((20, 10)), RED) and near(upright.getpixel((20, 70)), GREEN)


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "dog.png")
    assert open_picture(tmp_path / "dog.png").getpixel((0, 0)) == (77, 77, 77)


def test_palette(tmp_path, two_colours):
    two_colours.quantize(2).save(tmp_path / "dog.png")
    assert near(open_picture(tmp_path / "dog.png").getpixel((7, 0)), GREEN)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    Image.new(mode, (4, 4), 0).save(tmp_path / "dog.png")
    assert open_picture(tmp_path / "dog.png").getpixel((0, 0)) == (255, 255, 255)


def test_transparent_palette_is_laid_on_white(tmp_path, two_colours):
    two_colours.quantize(2).save(tmp_path / "dog.gif", transparency=two_colours.quantize(2).getpixel((0, 0)))
    picture = open_picture(tmp_path / "dog.gif")
    assert picture.getpixel((0, 0)) == (255, 255, 255) and near(picture.getpixel((7, 0)), GREEN)


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "dog.jpg", quality=95)
    red, green, blue = open_picture(tmp_path / "dog.jpg").getpixel((8, 8))
    assert red > 200 and green < 60 and blue < 60


def test_sixteen_bits_keep_their_upper_byte(tmp_path):
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "dog.png")
    assert open_picture(tmp_path / "dog.png").getpixel((0, 0)) == (128, 128, 128)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "dog.gif", save_all=True, append_images=frames[1:])
    assert near(open_picture(tmp_path / "dog.gif").getpixel((0, 0)), RED)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"this is not a picture\n" * 10, "not a picture"), (None, "no such file")],
)
def test_unreadable_files_say_why(tmp_path, content, reason):
    file = tmp_path / "dog.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadablePicture, match=reason):
        open_picture(file)


def test_truncated_picture_is_refused(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "dog.jpg").write_bytes(whole.read_bytes()[:900])
    with pytest.raises(UnreadablePicture, match="truncated"):
        open_picture(tmp_path / "dog.jpg")


def test_enormous_picture_is_refused(tmp_path):
    file = huge_png(tmp_path / "dog.png")
    assert file.stat().st_size < 1_000_000
    with pytest.raises(UnreadablePicture, match="too large"):
        open_picture(file)


def test_fits(two_colours):
    wide = two_colours.resize((64, 32), Image.Resampling.NEAREST)
    squashed, cropped, padded = (to_canvas(wide, 32, fit) for fit in ("squash", "crop", "pad"))
    assert squashed.shape == cropped.shape == padded.shape == (32, 32, 3)
    assert near(squashed[16, 2], RED) and near(squashed[16, 29], GREEN)
    assert near(cropped[16, 2], RED) and near(cropped[16, 29], GREEN)
    assert near(padded[2, 16], (0, 0, 0)) and near(padded[16, 2], RED)


class Held(io.BytesIO):
    """A file that is read no further until it is let go."""

    def __init__(self, data):
        super().__init__(data)
        self.begun, self.free = threading.Event(), threading.Event()

    def read(self, *arguments):
        self.begun.set()
        assert self.free.wait(10)
        return super().read(*arguments)


def test_threads_leave_warnings_as_they_were(tmp_path, two_colours):
    """The first to come is the first to go; each would put back what it found."""
    two_colours.save(tmp_path / "dog.png")
    before = list(warnings.filters)
    files = [Held((tmp_path / "dog.png").read_bytes()) for _ in range(2)]
    threads = [threading.Thread(target=open_picture, args=(file,)) for file in files]
    for file, thread in zip(files, threads):
        thread.start()
        assert file.begun.wait(10)
    for file, thread in zip(files, threads):
        file.free.set()
        thread.join()
    assert list(warnings.filters) == before


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0", b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0", b"Exif\0\0"])
def test_a_damaged_exif_is_a_reason_and_no_traceback(tmp_path, two_colours, exif):
    two_colours.save(tmp_path / "dog.png", exif=exif)
    try:
        assert open_picture(tmp_path / "dog.png").size == (8, 4)
    except UnreadablePicture as error:
        assert str(error) and not error.may_pass


def ramp():
    return np.tile(np.linspace(0, 1, 32), (32, 1))


@pytest.mark.parametrize("most", [255, 1023, 4095, 16383, 65535])
def test_a_picture_of_few_bits_is_not_black(tmp_path, most):
    Image.fromarray((ramp() * most).round().astype(np.uint16)).save(tmp_path / "ramp.tif")
    shown = np.asarray(open_picture(tmp_path / "ramp.tif"))[..., 0]
    assert np.abs(shown - 255 * ramp()).max() <= 1


@pytest.mark.parametrize("most", [1.0, 255.0, 65535.0])
def test_a_float_picture_is_of_its_own_range(tmp_path, most):
    Image.fromarray((ramp() * most).astype(np.float32)).save(tmp_path / "ramp.tif")
    shown = np.asarray(open_picture(tmp_path / "ramp.tif"))[..., 0]
    assert np.abs(shown - 255 * ramp()).max() <= 1
    values = np.full((4, 4), np.nan, np.float32)
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(UnreadablePicture, match="not finite"):
        open_picture(tmp_path / "nan.tif")


def test_the_file_says_how_bright_white_is(tmp_path):
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "grey.tif", tiffinfo={281: 4000})
    assert np.asarray(open_picture(tmp_path / "grey.tif")).max() == round(255 / 4)


def test_broken_exif_does_not_spoil_a_sound_picture(tmp_path, two_colours):
    two_colours.save(tmp_path / "dog.png", exif=b"Exif\0\0MM\0*")
    assert np.array_equal(np.asarray(open_picture(tmp_path / "dog.png")), np.asarray(two_colours))


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="../shared is not at hand")
def test_the_pictures_that_failed():
    folder = SHARED / "cases" / "pictures"
    expected = np.load(folder / "expected_ramp.npy")
    for name in ("float_0_to_1.tif", "12_bit.tif"):
        shown = np.asarray(open_picture(folder / name), np.int32)[..., 0]
        assert np.abs(shown - expected).max() <= 1, name
    assert np.asarray(open_picture(folder / "broken_exif.png")).std() > 10
    assert is_picture(folder / "photo.jfif") and is_picture(folder / "no_suffix")
