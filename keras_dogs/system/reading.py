"""Reads files only as far as their schema allows: size, syntax, keys, types and ranges are checked before any use."""

import re
import reprlib
import stat
import zipfile
from pathlib import Path

import msgspec

from keras_dogs.errors import Damaged
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.system import memory
from keras_dogs.system import terminal

_LARGEST_TEXT = 256 * 2**20  # the longest history of a year of training is a tenth of that
# Names compress to a hundredth, zeros alone to a thousandth: an archive beyond this ratio was made to fill the memory.
_LARGEST_RATIO, _ALWAYS_FINE = 500, 2**26

# Shows a wrong value in an error, and no more of it than is read.
_SHORT = reprlib.Repr()
_SHORT.maxdict = _SHORT.maxlist = 20
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


def read_text(file: Path) -> str:
    """Reads a text file.

    Raises:
        UserError: it is missing, cannot be read, is too large or is not UTF-8; the text names the file.
    """
    try:
        found = file.stat()
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):  # some have no end
            raise UserError(f"{file}: is a device; give a file")
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_TEXT + 1)  # of a pipe the size is not known before
        if len(content) > _LARGEST_TEXT:
            raise Damaged(
                f"{file}: above {_LARGEST_TEXT / 2**20:,.0f} MiB, far larger than such a file can be; it was not "
                "written by keras_dogs"
            )
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"{file}: damaged: not UTF-8 text at byte {error.start:,}") from error


def read_json(file: Path, schema: type = dict, name: str = ""):
    """Reads a JSON file by a schema.

    Args:
        file: Path.
        name: str. What the file is called in an error; its path where it is not given.
        schema: type. A dataclass, a `TypedDict` or a type such as `dict[str, float]`; `msgspec.Meta` in `Annotated`
            gives ranges. Keys that it does not name are passed over.

    Returns:
        What the file holds, as the schema's type.

    Raises:
        UserError: the file cannot be read, is no JSON, or holds something else; the text names file and key.
    """
    return parse_json(read_text(file), schema, name or str(file))


def read_versioned(file: Path, schema: type, newest: int):
    """Reads a JSON file by a schema, unless a later version of keras_dogs wrote it; one without a version is of 1.

    Args:
        file: Path.
        schema: type, as in `read_json`.
        newest: int. The latest `schema_version` that is known here.

    Raises:
        UserError: as `read_json`; or the file is of a later version.
    """
    values = {"schema_version": 1, **read_json(file)}
    version = values["schema_version"]
    if isinstance(version, int) and version > newest:  # before the schema, which may have changed
        raise UserError(f"{file}: written by a later version of keras_dogs; update keras_dogs to read it")
    return check(values, schema, str(file))


def parse_json(text: str | bytes, schema: type, name: str):
    """Reads JSON text by a schema, as `read_json` does.

    Args:
        text: str or bytes.
        schema: type.
        name: str. What the text is called in an error.
    """
    try:
        values = msgspec.json.decode(text)
    except RecursionError as error:
        raise Damaged(f"{name}: damaged: nested too deeply") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{name}: damaged: not valid JSON ({first_line(error)})") from error
    return check(values, schema, name)


def check(values, schema: type, name: str, hook=None):
    """Returns plain values as the type of a schema.

    Args:
        values: what JSON can hold.
        schema: type, as in `read_json`.
        name: str. What the values are called in an error.
        hook: function of a type that JSON does not have and a value, to a value of that type; or `None`.

    Raises:
        UserError: they are not what the schema says; the text names the key.
    """
    try:
        return msgspec.convert(values, schema, dec_hook=hook, str_keys=True)
    except msgspec.ValidationError as error:
        raise Damaged(f"{name}: damaged: {_in_words(error, values)}") from error
    except RecursionError as error:
        raise Damaged(f"{name}: damaged: nested too deeply") from error


def _in_words(error: msgspec.ValidationError, values) -> str:
    """Says which key of a file is wrong, and how: "timings.train_s is -1: expected float >= 0"."""
    text, _, key = str(error).partition(" - at `$")
    text, key = text.replace("`", ""), key.rstrip("`")
    text = f"{text[0].lower()}{text[1:]}"
    if not key:
        return re.sub("object missing required field (.+)", r"the field \1 is missing", text)
    if missing := re.match("object missing required field (.+)", text):
        return f"{key.lstrip('.')}: the field {missing[1]} is missing"
    try:
        for part in re.findall(r"\.([^.\[]+)|\[(\d+)\]", key):
            values = values[part[0]] if part[0] else values[int(part[1])]
        shown = terminal.one_line(_SHORT.repr(values), 60)
    except (KeyError, IndexError, TypeError, RecursionError):  # a key with a dot in it
        return f"{key.lstrip('.')}: {text}"
    return f"{key.lstrip('.')} is {shown}: {text}"


def refuse_bomb(archive: zipfile.ZipFile) -> None:
    """Refuses an archive that, by its directory, unpacks to an implausible size or to more than there is memory for.

    Raises:
        UserError: it would.
    """
    file, unpacked = Path(archive.filename), sum(member.file_size for member in archive.infolist())
    size = file.stat().st_size
    if unpacked > max(size * _LARGEST_RATIO, _ALWAYS_FINE):
        raise Damaged(f"{file}: damaged: it claims to hold {unpacked / 2**30:,.1f} GiB in {size:,} bytes")
    available = memory.available_bytes()
    if available is not None and unpacked > available:
        raise UserError(
            f"{file}: holds {unpacked / 2**30:,.1f} GiB, and {available / 2**30:,.1f} GiB of memory are free"
        )
