"""Reads CSV tables and `.npz` arrays by a schema, as `reading.py` reads JSON; apart from it, as this loads NumPy."""

import csv
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.errors import Damaged
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.system.reading import read_text
from keras_dogs.system.reading import refuse_bomb


class Array(NamedTuple):
    """What an array of an `.npz` file may be.

    Attributes:
        kinds: str. The kinds of its dtype, as `numpy.dtype.kind` names them: `"f"`, `"iu"`, `"U"`.
        num_axes: int or `None` for any number.
    """

    kinds: str
    num_axes: int | None = None


def read_table(file: Path, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads columns of numbers from a CSV file with a header.

    Args:
        file: Path.
        columns: tuple of str. Those that are wanted; others are passed over.

    Returns:
        dict of str to float array `(num_rows,)`.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a row that is cut short or holds no number.
    """
    try:
        rows = list(csv.reader(read_text(file).splitlines()))
    except csv.Error as error:
        raise Damaged(f"{file}: damaged: {error}") from error
    header = rows[0] if rows else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise Damaged(f"{file}: damaged: no column {missing[0]}")
    rows = [row for row in rows if row]  # a blank line is no row
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise Damaged(f"{file}: damaged: row {number} has {len(row)} of {len(header)} fields")
    return {name: _numbers(file, name, [row[header.index(name)] for row in rows[1:]]) for name in columns}


def _numbers(file: Path, column: str, texts: list[str]) -> np.ndarray:
    numbers = np.empty(len(texts))
    for place, text in enumerate(texts):
        try:
            numbers[place] = float(text)
        except ValueError as error:
            raise Damaged(f"{file}: damaged: {column} in row {place + 2} is {text[:40]!r}, no number") from error
    return numbers


def read_arrays(file: Path, schema: dict[str, Array] | None = None) -> dict[str, np.ndarray]:
    """Reads an `.npz` file without pickles; an archive that would unpack to an implausible size is refused.

    Args:
        file: Path.
        schema: dict of str to `Array`, or `None`. What arrays must be that are there; names that it lacks may be
            anything.

    Raises:
        UserError: the file is missing or damaged, or an array is not what the schema says.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            refuse_bomb(archive)
        with np.load(file, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except FileNotFoundError as error:
        raise UserError(f"{file}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and NumPy each raise their own kinds
        raise Damaged(f"{file}: damaged ({type(error).__name__}: {first_line(error)})") from error
    for name, wanted in (schema or {}).items():
        _check_array(file, name, arrays.get(name), wanted)
    return arrays


def _check_array(file: Path, name: str, array: np.ndarray | None, wanted: Array) -> None:
    if array is None:
        return
    if array.dtype.kind not in wanted.kinds:
        raise Damaged(f"{file}: damaged: {name} is an array of {array.dtype}")
    if wanted.num_axes is not None and array.ndim != wanted.num_axes:
        raise Damaged(f"{file}: damaged: {name} has the shape {array.shape}, not {wanted.num_axes} axes")
