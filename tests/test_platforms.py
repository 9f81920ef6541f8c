"""Windows has neither `resource` nor SIGHUP nor `fork`: everything imports and runs without them.

Windows itself is not here; CI has a job there (.github/workflows/ci.yml).
"""

import ast
import json
from pathlib import Path

import pytest

import keras_dogs

# What keras_dogs asks for is taken away from keras_dogs alone; others keep what they are used to.
ABSENT = """
import builtins, os, signal, sys
absent = {"resource", "fcntl", "termios", "pty", "tty", "pwd", "grp", "syslog"}
whole_import = builtins.__import__
def import_there(name, globals=None, *rest, **named):
    if name.partition(".")[0] in absent and (globals or {}).get("__name__", "").startswith("keras_dogs"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return whole_import(name, globals, *rest, **named)
builtins.__import__ = import_there
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("fork", "killpg", "getpgid"):
    if hasattr(os, name):
        delattr(os, name)
"""

EVERY_MODULE = """
import importlib, pkgutil
import keras_dogs
from keras_dogs import backends
backend_name = backends.select()
for module in pkgutil.walk_packages(keras_dogs.__path__, "keras_dogs."):
    parts = module.name.split(".")
    others = {f"on_{name}" for name in backends.BACKENDS if name != backend_name}
    # Of other backends; programs that go along with an export, or run in a process of a library's own.
    if others & set(parts) or {"runtimes", "libraries", "__main__"} & set(parts):
        continue
    importlib.import_module(module.name)
from keras_dogs.system import posix
assert posix.peak_memory_bytes() == 0
posix.allow_open_files(4096)
assert posix.name_of_signal(4711) == "4711"
"""

COMMANDS = """
import importlib, json, sys
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    status = importlib.import_module(f"keras_dogs.{name}").main()
    assert not status, (name, status)
"""


def test_every_module_loads_where_posix_is_absent(child):
    done = child(["-W", "ignore", "-c", ABSENT + EVERY_MODULE])
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_the_commands_run_where_posix_is_absent(child, dogs, tmp_path):
    picture = next((dogs / "test").rglob("*.png"))
    lines = [
        ["train", "--dataset", dogs, "--epochs", 1, "--batch-size", 4, "--output", tmp_path / "run"],
        ["evaluate", tmp_path / "run", "--json"],
        ["predict", tmp_path / "run", picture],
        ["check", dogs, "--output", tmp_path / "check"],
    ]
    lines = json.dumps([[str(word) for word in line] for line in lines])
    done = child(["-W", "ignore", "-c", ABSENT + COMMANDS, lines])
    assert done.returncode == 0, done.stderr
    assert "top1" in done.stdout and str(picture) in done.stdout and (tmp_path / "check" / "report.html").is_file()


@pytest.mark.parametrize("name", ["posix", "nt"])
def test_a_child_is_started_the_systems_way(name, monkeypatch):
    import subprocess

    from keras_dogs.system import posix

    monkeypatch.setattr(posix.os, "name", name)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    given = posix.program_of_child(["-m", "keras_dogs.train"])
    if name == "nt":
        assert given["creationflags"] == 512 and given["args"][1:] == ["-m", "keras_dogs.train"]
    else:
        assert given["start_new_session"] and "execv" in given["args"][2]


@pytest.mark.once
def test_every_text_file_has_an_encoding():
    """Windows' own is not UTF-8: pages that say they are would be garbled there."""
    for file in Path(keras_dogs.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            mode = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if node.func.attr == "open" and mode in ("w", "a", "x", "r", "rt", "wt"):
                assert any(keyword.arg == "encoding" for keyword in node.keywords), f"{file}, line {node.lineno}"
            is_ours = isinstance(node.func.value, ast.Name) and node.func.value.id == "files"
            if node.func.attr == "write_text" and not is_ours:
                given = [*node.args[1:], *(keyword.value for keyword in node.keywords if keyword.arg == "encoding")]
                assert [each.value for each in given] == ["utf-8"], f"{file}, line {node.lineno}"
