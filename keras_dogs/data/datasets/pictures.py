"""Tells which files are pictures, and whether a file has changed."""

import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from keras_dogs.errors import UserError

# Formats that Pillow reads without an external program, by suffix; content decides, the suffix only selects files.
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"),
    *(".jp2", ".avif"),
)
# What telephones write; Pillow reads them by a plugin.
HEIF_SUFFIXES = (".heic", ".heif")
HEIF_HINT = "to read .heic: pip install pillow-heif"
# How files begin that are pictures whatever their name: JPEG, PNG, GIF, TIFF twice, BMP, and WebP in a RIFF.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"RIFF")
# What operating systems, disks and editors leave in folders of pictures.
_LEFT_BY_TOOLS = ("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found")
_FILES_OF_TOOLS = ("thumbs.db", "desktop.ini", "ehthumbs.db")


def is_left_by_tools(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that operating systems or editors leave behind."""
    return name.startswith(".") or name.lower() in (*_LEFT_BY_TOOLS, *_FILES_OF_TOOLS)


def files_in(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, in no order, less those that tools leave; links to folders are not followed.

    Raises:
        UserError: a folder cannot be read.
    """
    try:
        found = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); grant read access, or move it away") from error
    for entry in found:
        if is_left_by_tools(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def is_picture(file: Path) -> bool:
    """Returns whether a file is taken for a picture: by its suffix or, where it has none, by its first bytes."""
    if file.suffix:
        suffix = file.suffix.lower()
        return suffix in PICTURE_SUFFIXES or suffix in HEIF_SUFFIXES and reads_heif()
    try:
        with file.open("rb") as opened:
            return opened.read(8).startswith(_SIGNATURES)
    except OSError:
        return False


@functools.cache
def reads_heif() -> bool:
    """Returns whether the plugin that lets Pillow read HEIC pictures is installed (the extra `heif`)."""
    return importlib.util.find_spec("pillow_heif") is not None


def stamp_of(file: Path) -> str:
    """Returns a text that differs between files, and changes when a file does: size, modification time, inode number.

    It is empty if the file does not exist. Without the inode number, pictures in two folders that agree in name, size
    and time would be taken for each other.
    """
    try:
        found = file.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
