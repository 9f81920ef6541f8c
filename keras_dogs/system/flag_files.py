"""Flags in a file: `--config FILE` reads them, from TOML, JSON or a run's record, and `--print-config` writes them."""

import dataclasses
import difflib
import json
import textwrap
import tomllib
from pathlib import Path

import msgspec

from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.system import help
from keras_dogs.system import reading
from keras_dogs.system import terminal

# Flags of a record that mean the same to other commands: where things are.
_OF_EVERY_COMMAND = ("data_dir", "cache_dir", "offline")
READS, PRINTS = "--config", "--print-config"


def read(file: Path, config_type) -> dict:
    """Reads flags from a file, each of the type that its field has.

    Args:
        file: Path. TOML where the name ends in `.toml`, else JSON. A run's `record.json` gives `train` all
            of its flags, and other commands where things are.
        config_type: dataclass. The flags of the command.

    Returns:
        dict of a field's name to its value.

    Raises:
        UserError: the file cannot be read, or has a flag that the command has not, or a value of a wrong type.
    """
    values, kinds = _values_of(file), help.kinds_of(config_type)
    if {"config", "dataset", "schema_version"} <= values.keys():
        values = _of_record(file, values, config_type, kinds)
    found, fields = {}, {name.rstrip("_"): name for name in kinds}
    for key, value in values.items():
        name = fields.get(key.replace("-", "_"))
        if name is None:
            near = difflib.get_close_matches(key.replace("-", "_"), fields, n=1)
            raise UserError(f"{file}: unknown flag {key}" + (f"; did you mean {near[0]}?" if near else ""))
        if isinstance(value, list) and any(str(each).startswith("-") for each in value):
            raise UserError(f"{file}: {key}: a value that begins with - reads as a flag; give it on the command line")
        if name in help.positional_of(config_type):
            raise UserError(f"{file}: {key} is an argument and no flag; give it on the command line")
        if value is not None:
            found[name] = _typed(file, key, value, kinds[name])
    return found


def _values_of(file: Path) -> dict:
    if file.suffix != ".toml":
        return reading.read_json(file)
    try:
        return tomllib.loads(reading.read_text(file))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError, too
        raise UserError(f"{file}: not valid TOML ({first_line(error)})") from error


def _of_record(file: Path, values: dict, config_type, kinds: dict) -> dict:
    """Returns the flags of a record that mean the same to a command; `train` says which run the record again."""
    try:
        if hasattr(config_type, "flags_of_record"):
            return config_type.flags_of_record(values)
        found = {**values["config"], **values["config"]["data"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged, or no record of a run ({first_line(error)})") from error
    return {name: found[name] for name in _OF_EVERY_COMMAND if name in kinds and name in found}


def _typed(file: Path, key: str, value, kind):
    if isinstance(value, int) and value.bit_length() > 63:  # Python itself refuses to write thousands of digits
        raise UserError(f"{file}: {key}: a number of {value.bit_length():,} bits; no flag takes such")
    try:
        return msgspec.convert(value, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        said = str(error).replace("`", "").replace(" | null", "")
        raise UserError(f"{file}: {key} = {_shown(value)}: {said[0].lower()}{said[1:]}") from error


def _shown(value) -> str:
    return terminal.one_line(json.dumps(value, default=str), 60)


def _path(kind: type, value):
    if kind is not Path or not isinstance(value, str):
        raise msgspec.ValidationError(f"expected {kind.__name__.lower()}")
    return Path(value)


def as_arguments(values: dict) -> list[str]:
    """Returns flags as a command line has them; lists first, or one would take the argument that follows."""
    arguments = []
    for name, value in sorted(values.items(), key=lambda item: not isinstance(item[1], (tuple, list))):
        flag = f"--{name.rstrip('_').replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, (tuple, list)):
            arguments += [flag, *map(str, value)] if value else []
        else:
            arguments.append(f"{flag}={value}")
    return arguments


def write(config) -> str:
    """Returns a config as TOML: the flags that are given or have a default, and the others as comments with their help.

    Args:
        config: dataclass.
    """
    flat, texts = _flat(config), {flag.field: flag.text for flag in help.flags_of(type(config))}
    panels = getattr(type(config), "PANELS", {"flags": tuple(flat)})
    lines = []
    for title, names in panels.items():
        lines += ["", f"# {title}"]
        for name in names:
            if name in help.positional_of(type(config)):
                continue
            key, value = name.rstrip("_"), _as_toml(flat[name])
            text = textwrap.shorten(texts[name], 110 - len(name), placeholder=" ...")
            lines.append(f"{key} = {value}" if value is not None else f"# {key}: {text}")
    return "\n".join(lines[1:])


def _flat(config) -> dict:
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= _flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def _as_toml(value) -> str | None:
    """Returns a value as TOML has it; its strings are those of JSON. `None` for nothing."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_as_toml, value))}]" if value else None
    if value is None or value == "":
        return None
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
