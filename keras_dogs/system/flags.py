"""Reads the flags of a command, and holds their numbers to ranges; what is wrong is one line."""

import contextlib
import dataclasses
import io
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import tyro

from keras_dogs.errors import UserError
from keras_dogs.system import flag_files
from keras_dogs.system import help
from keras_dogs.system.signals import Stopped

_MAY_BE_EMPTY = "--train-flags"
_RULE = re.compile("[─-]{3,}")
_WIDE = "10000"  # columns: a message that is not broken into lines


class Range(NamedTuple):
    """What a number may be.

    Attributes:
        least: number.
        most: number.
        above: bool. Whether `least` itself is too little.
        below: bool. Whether `most` itself is too much.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False

    def __contains__(self, value) -> bool:
        """Returns whether a number is in it; no NaN is."""
        is_enough = value > self.least if self.above else value >= self.least
        return is_enough and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        """Says what it is, to follow "must be"."""
        if not (self.above or self.below):
            return f"between {self.least:,} and {self.most:,}"
        least, most = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{least} {self.least:,} and {most} {self.most:,}"


def flag_of(field: str) -> str:
    """Returns the flag of a config's field: `batch_size` is `--batch-size`."""
    return f"--{field.rstrip('_').replace('_', '-')}"


def no_effect(field: str, value, why: str) -> str:
    """Says that a flag does nothing.

    Args:
        field: str.
        value: what was given.
        why: str. Follows "has no effect".
    """
    return f"{flag_of(field)} {value}: has no effect {why}"


def check_ranges(config, ranges: dict[str, Range], words: tuple = ()) -> None:
    """Refuses the first number of a config that is not in its range.

    Args:
        config: dataclass. A field may be `None`, a number, or a tuple of numbers.
        ranges: dict of a field's name to `Range`.
        words: tuple. What a field may hold in place of a number, such as `"all"`.

    Raises:
        UserError: it names the flag, the value and the range.
    """
    for name, allowed in ranges.items():
        values = getattr(config, name)
        for value in values if isinstance(values, tuple) else (values,):
            if value is not None and value not in words and value not in allowed:
                raise UserError(f"{flag_of(name)} {value}: must be {allowed}")


def refuse_idle(config, names: tuple[str, ...], why: str) -> None:
    """Refuses flags that were given and have no effect.

    Args:
        config: dataclass.
        names: tuple of str. The fields without effect.
        why: str. Follows "has no effect".

    Raises:
        UserError: it names the first.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in names and value != field.default:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise UserError(f"{no_effect(field.name, shown, why)}; leave it out")


def parse(program: str, config_type, arguments: list[str] | None = None):
    """Returns the flags of a command line.

    Args:
        program: str. For the usage: `"python -m keras_dogs.train"`.
        config_type: the dataclass of the flags.
        arguments: list of str; `None` for those of the process.

    Raises:
        UserError: there is an unknown flag, one is missing, or a value is invalid.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if asked := {*help.ASKS, help.ASKS_ALL} & set(arguments):
        print(help.write(program, config_type, help.ASKS_ALL in asked))
        raise SystemExit(0)
    prints, arguments = flag_files.PRINTS in arguments, [each for each in arguments if each != flag_files.PRINTS]
    arguments, file, of_file = _with_file(arguments, config_type)
    try:
        config = _parse(program, config_type, _with_values(arguments, config_type))
    except UserError as error:
        is_of_file = file and any(error.args[0].startswith(f"{flag_of(name)} ") for name in of_file)
        raise UserError(f"{file}: {error.args[0]}") if is_of_file else error from error
    if prints:
        print(flag_files.write(config))
        raise SystemExit(0)
    return config


def _with_file(arguments: list[str], config_type) -> tuple[list[str], Path | None, dict]:
    """Puts the flags of the file that `--config` names in its place, but for those that are given beside it.

    Returns:
        The arguments, the file (`None` without one), and what was taken from it.
    """
    places = [place for place, each in enumerate(arguments) if each.partition("=")[0] == flag_files.READS]
    if not places:
        return arguments, None, {}
    first = places[0]
    _, is_whole, name = arguments[first].partition("=")
    rest = arguments[:first] + arguments[first + (1 if is_whole else 2) :]
    if not is_whole:
        name = "".join(arguments[first + 1 : first + 2])
    if not name or name.startswith("--") or len(places) > 1:
        raise UserError(f"{flag_files.READS}: takes one file, TOML, JSON or the record.json of a run")
    given = {_plain_flag(each) for each in rest if each.startswith("--")}
    values = flag_files.read(Path(name), config_type)
    values = {name: value for name, value in values.items() if flag_of(name) not in given}
    return [*rest[:first], *flag_files.as_arguments(values), *rest[first:]], Path(name), values


def _plain_flag(argument: str) -> str:
    """Returns the flag of an argument: `--no-sync_batch_norm` is `--sync-batch-norm`, as the parser takes either."""
    return "--" + argument.partition("=")[0].removeprefix("--").replace("_", "-").removeprefix("no-")


def _parse(program: str, config_type, arguments: list[str]):
    said = io.StringIO()
    given = dict(prog=program, description=config_type.__doc__, args=arguments)
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(config_type, **given)
            _check_texts(config)
            return config
    except SystemExit as stop:
        if isinstance(stop, Stopped):  # of a signal
            raise
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDE
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            tyro.cli(config_type, **given)
    except Stopped:
        raise
    except SystemExit:
        pass
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    raise UserError(f"{_of_box(said.getvalue(), config_type)}; {program} --help lists the flags")


def _with_values(arguments: list[str], config_type) -> list[str]:
    """Writes out the values of switches that a recipe decides by default: `--probe-first` is `--probe-first True`."""
    switches = {flag_of(name) for name, kind in help.kinds_of(config_type).items() if kind == bool | None}
    written = []
    for argument, following in zip(arguments, [*arguments[1:], "-"]):
        is_empty = re.fullmatch(r"--[\w-]+=", argument) or (argument.startswith("--") and not following)
        if is_empty and argument.rstrip("=") != _MAY_BE_EMPTY:
            raise UserError(f"{argument.rstrip('=')}: is empty; give a value, or leave it out")
        plain = argument.replace("--no-", "--", 1)
        if plain in switches and following not in ("True", "False", "None"):
            written += [plain, str(plain == argument)]
        else:
            written.append(argument)
    return written


def _check_texts(config) -> None:
    """Refuses names that are not UTF-8: no record could hold them. Pictures may be called as they like."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _check_texts(value)
        elif isinstance(value, (str, Path)) and not str(value).isascii():
            try:
                str(value).encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{flag_of(field.name)} {value}: is not UTF-8; rename it") from error


def _of_box(text: str, config_type) -> str:
    """Returns what the flag parser says, without its frame and its help."""
    lines = [line.strip("│ ╭╮╰╯").strip() for line in text.splitlines()[1:]]
    lines = lines[1:] if _RULE.fullmatch("".join(lines[:1])) else lines  # where the terminal has ASCII alone
    rules = [number for number, line in enumerate(lines) if _RULE.fullmatch(line)] or [len(lines)]
    said, rest = " ".join(filter(None, lines[: rules[0]])), lines[rules[0] :]
    if found := re.match(r"Unrecognized options: (\S+)", said):
        flag = found[1].rstrip(",")
        if not flag.startswith("-"):
            takes_data = "dataset" in help.kinds_of(config_type) and os.path.exists(flag)
            return f"unexpected argument {flag}" + (f"; did you mean --dataset {flag}?" if takes_data else "")
        near = next((line.split()[0] for line in rest if re.match("--[a-z]", line)), "")
        return f"unknown flag {flag}" + (f"; did you mean {near}?" if near else "")
    if found := re.match(r"Error parsing (--\S+): .*? from \['?(.*?)'?\]\.", said):
        return f"{found[1]} {found[2]}: invalid value"
    if found := re.match(r"Error parsing (--\S+): Could not find valid parse for arguments: \[(.*?)\]", said):
        given = found[2].replace("'", "")
        return f"{found[1]} {given}: invalid value"
    if found := re.match(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*)\)\.", said):
        choices = sorted(set(re.findall(r"'(.*?)'", found[3])) - {"None"})
        return f"{found[2]} {found[1]}: choose one of {', '.join(choices)}"
    if found := re.match(r"Missing from .*?: (\S+)", said):
        return f"{found[1]} is missing"
    return said or "the flags cannot be read"
