"""List the commands, or run one: `python -m keras_dogs [COMMAND ...]`; after installation also `keras-dogs`."""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from keras_dogs import commands
from keras_dogs.system import terminal

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "explain",
    "compare",
    "reproduce",
    "check",
    "export",
    "serve",
    "describe",
    "draw",
    "cache",
)
_PROGRAM = "python -m keras_dogs"


def main() -> int:
    """Runs the command that is named first, with the arguments behind it, and returns its exit status."""
    name, rest = (sys.argv[1], sys.argv[2:]) if sys.argv[1:] else ("--help", [])
    if name in ("-h", "--help"):
        print(_listed())
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        print(terminal.one_line(f"keras_dogs: error: unknown command {name}; {hint}"), file=sys.stderr)
        return 2
    sys.argv = [f"keras_dogs.{name}", *rest]
    return importlib.import_module(f"keras_dogs.{name}").main()


def run() -> None:
    """Runs `main` and ends the process: the entry point of `keras-dogs`."""
    commands.leave(main)


def _listed() -> str:
    """Returns the usage text: one line per command, taken from the docstring of its module."""
    lines = [f"usage: {_PROGRAM} COMMAND [FLAGS]", ""]
    for name in COMMANDS:
        text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{name}.py").read_text("utf-8")))
        lines.append(f"  {name:<10}{text.partition(':')[0]}.")
    return "\n".join([*lines, "", f"Each has its own: {_PROGRAM} train --help"])


if __name__ == "__main__":
    run()
