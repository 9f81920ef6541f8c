"""Writes the help of a command from its config: the flags that people need first, or all of them in panels."""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import types
import typing
from pathlib import Path
from typing import Literal

import tyro

ASKS, ASKS_ALL = ("-h", "--help"), "--help-all"
_COLUMNS = 100  # at most: longer lines are hard to read
_INDENT = 28
_LONGEST_CHOICE = 40  # characters of `{a,b}`; longer lists are in the text
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


class _Flag(typing.NamedTuple):
    """A field of a config.

    Attributes:
        field: str.
        shown: str. `--batch-size INT`, or the name of a positional argument.
        text: str. Its docstring, with the default.
        is_positional: bool.
    """

    field: str
    shown: str
    text: str
    is_positional: bool


_OF_EVERY_COMMAND = (
    _Flag("", "--config FILE", "Flags in TOML, JSON or a record.json; those given here take precedence.", False),
    _Flag("", "--print-config", "Print the flags as TOML, fit for --config, and do nothing else.", False),
)


def write(program: str, config_type, everything: bool) -> str:
    """Returns the help of a command.

    Args:
        program: str. `"python -m keras_dogs.train"`.
        config_type: dataclass. Its `PANELS`, a dict of a title to names of fields, divides the flags; the first panel
            is what people need first. Without it there is one list. Its `defaults_in_words()` says what a default is
            that is `None`.
        everything: bool. Whether to write all panels.
    """
    width = max(min(shutil.get_terminal_size().columns, _COLUMNS), _INDENT + 20)
    flags = {flag.field: flag for flag in flags_of(config_type)}
    panels = getattr(config_type, "PANELS", {"flags": tuple(flags)})
    positional = [flag.shown for flag in flags.values() if flag.is_positional]
    lines = [f"usage: {' '.join([program, *positional])} [FLAGS]", ""]
    lines += [*textwrap.wrap(config_type.__doc__.strip().partition("\n\n")[0], width), ""]
    first = next(iter(panels))
    for title, names in panels.items() if everything else [(first, panels[first])]:
        lines += [f"{title}:"] + [line for name in names for line in _lines(flags[name], width)]
        lines += [line for flag in _OF_EVERY_COMMAND for line in _lines(flag, width)] if title == first else []
        lines.append("")
    others = sum(map(len, panels.values())) - len(panels[first])
    if everything or not others:
        return "\n".join(lines[:-1])
    return "\n".join([*lines, f"{others} more flags: {program} {ASKS_ALL}"])


def _lines(flag: _Flag, width: int) -> list[str]:
    text = textwrap.wrap(flag.text, width - _INDENT, break_long_words=False, break_on_hyphens=False)
    if len(flag.shown) > _INDENT - 4:
        return [f"  {flag.shown}", *(" " * _INDENT + line for line in text)]
    return [f"  {flag.shown:<{_INDENT - 2}}{text[0] if text else ''}", *(" " * _INDENT + line for line in text[1:])]


def flags_of(config_type) -> list[_Flag]:
    """Returns the flags of a config and of the configs in it, in their order."""
    found, texts = [], _docstrings(config_type)
    kinds = typing.get_type_hints(config_type, include_extras=True)
    known = config_type.defaults_in_words() if hasattr(config_type, "defaults_in_words") else {}
    for field in dataclasses.fields(config_type):
        kind, extras = _without_extras(kinds[field.name])
        if dataclasses.is_dataclass(kind):
            found += flags_of(kind)
            continue
        is_positional = tyro.conf.Positional in extras or any("POSITIONAL" in str(extra) for extra in extras)
        name = field.name.rstrip("_").replace("_", "-")
        shown = _argument(name, kind, field) if is_positional else f"--{name} {_metavar(kind)}".rstrip()
        text = " ".join(texts.get(field.name, "").split()) + _choices(kind)
        if field.default is True:
            text = f"{text} On by default; --no-{name} turns it off."
        elif kind == bool | None:
            text = f"{text} --no-{name} turns it off."
        found.append(_Flag(field.name, shown, _with_default(text, field.default, known.get(field.name)), is_positional))
    return found


def kinds_of(config_type) -> dict:
    """Returns the type of each flag of a config and of the configs in it, without what annotates it."""
    found, kinds = {}, typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        kind = kinds[field.name]
        found |= kinds_of(kind) if dataclasses.is_dataclass(kind) else {field.name: kind}
    return found


def positional_of(config_type) -> tuple[str, ...]:
    """Returns the fields that are arguments without a flag."""
    return tuple(flag.field for flag in flags_of(config_type) if flag.is_positional)


def _argument(name: str, kind, field) -> str:
    """Returns how an argument is written: in brackets where it may be left out."""
    shown = name.upper() + ("..." if typing.get_origin(kind) is tuple else "")
    return shown if field.default is dataclasses.MISSING else f"[{shown}]"


def _without_extras(kind) -> tuple:
    """Returns a type and what annotates it."""
    if typing.get_origin(kind) is typing.Annotated:
        return kind.__origin__, kind.__metadata__
    return kind, ()


def _metavar(kind) -> str:
    """Says what a flag takes: nothing for a switch."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return "|".join(filter(None, (_metavar(part) for part in parts if part is not type(None))))
    if origin is Literal:
        choices = "{" + ",".join(map(str, parts)) + "}"
        return choices if len(choices) <= _LONGEST_CHOICE else "NAME"
    if origin is tuple:
        return f"{_metavar(parts[0])} ..."
    return _METAVARS.get(kind, "")


def _choices(kind) -> str:
    """Returns what a flag may be, where the list is too long to stand beside it."""
    for part in (kind, *typing.get_args(kind)):
        if typing.get_origin(part) is Literal and _metavar(part) == "NAME":
            return f" One of {', '.join(map(str, typing.get_args(part)))}."
    return ""


def _with_default(text: str, default, known: str | None) -> str:
    if known:
        return re.sub(r"default: the recipe's(, or the preset's)?", rf"default: the recipe's\1 ({known})", text)
    is_nothing = default is None or isinstance(default, bool) or default in ((), dataclasses.MISSING)
    is_told = is_nothing or "default" in text
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return text if is_told or shown == "" else f"{text} (default: {shown})"


def _docstrings(config_type) -> dict[str, str]:
    """Returns the text below each field, from the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(config_type))).body[0].body
    return {
        node.target.id: following.value.value
        for node, following in zip(body, body[1:])
        if isinstance(node, ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
