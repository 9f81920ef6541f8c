"""How long a new user waits, and how long nothing is shown: `python benchmarks/errands.py --backends torch`.

The commands of the README and of the pages of docs/, in their order, in a new folder with an empty cache, on a terminal
of this script's own. One row per command: its seconds, and the longest time in which it wrote nothing, with the second
at which that began. The main job is whole, the comparison has one seed; what needs a download or another host is left
out.
"""

import argparse
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import runs

ROOT = Path(__file__).parents[1]
# As `tests/test_readme.py` walks over them.
_WALKED = ("data", "runs", "recipes", "evaluation", "comparison", "weights", "code", "serving")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in _WALKED)]
_LEFT_OUT = ("stanford_dogs", "--devices", "keras_dogs.serve")


def main():
    """Measures the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--leave-out", nargs="*", default=[], help="commands, such as compare")
    flags = parser.parse_args()
    rows = []
    for backend in flags.backends:
        with tempfile.TemporaryDirectory() as folder:
            kept = {"KERAS_BACKEND": backend, "KERAS_DOGS_CACHE": f"{folder}/cache"}
            left_out = {f"keras_dogs.{name}" for name in flags.leave_out}
            for command in (each for each in [*commands(), *programs()] if not left_out & set(each)):
                shown = command[-1] if command[0] == "-c" else shlex.join(command).replace("'>'", ">")
                rows.append({"backend": backend, "command": shown})
                command, _, file = " ".join(command).partition(" > ") if ">" in command else (command, "", "")
                command = shlex.split(command) if file else command
                rows[-1] |= watch([sys.executable, *command], Path(folder), kept, Path(folder) / file if file else None)
                print(in_words(rows[-1]), flush=True)
    runs.write("errands", rows, line=in_words, key=("backend", "command"))


def commands() -> list[list[str]]:
    """Returns what follows `python` in the commands of the pages, in their order, each once."""
    blocks = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    lines = [line.removeprefix("KERAS_BACKEND=jax ").replace("--seeds 0 1 2", "--seeds 0") for line in lines]
    lines = [line for line in lines if line.startswith("python -m") and not any(name in line for name in _LEFT_OUT)]
    return [shlex.split(line)[1:] for line in dict.fromkeys(lines)]


def programs() -> list[list[str]]:
    """Returns the pieces of Python of the README and of the page on code."""
    pages = [page.read_text() for page in PAGES if page.stem in ("README", "code")]
    return [["-c", code] for page in pages for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


def watch(command: list[str], folder: Path, environment: dict, output: Path | None = None) -> dict:
    """Runs a command on a terminal of its own, and returns its status, seconds and longest silence.

    Args:
        command: list of str.
        folder: Path. Where it runs.
        environment: dict. What it is given beside that of this process.
        output: Path or `None`. Where its standard output goes, as the page sends it.
    """
    ours, theirs = pty.openpty()
    began = last = time.perf_counter()
    silence, at, said = 0.0, 0.0, b""
    written = output.open("w") if output else theirs
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stdin=theirs, stdout=written, stderr=theirs
    ) as process:
        os.close(theirs)
        while True:
            ready, _, _ = select.select([ours], [], [], 0.05)
            now = time.perf_counter()
            if ready:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    part = b""
                if now - last > silence:
                    silence, at = now - last, last - began
                if not part:
                    break
                last, said = now, (said + part)[-400:]
            elif process.poll() is not None:
                break
    os.close(ours)
    row = {"status": process.returncode, "seconds": time.perf_counter() - began, "silence_s": silence, "at_s": at}
    return row | ({"said": said.decode(errors="replace")} if process.returncode else {})


def in_words(row: dict) -> str:
    """Returns a row for the terminal."""
    first = row["command"].partition("\n")[0][:90]
    times = f"{row['seconds']:.1f} s, silent for {row['silence_s']:.1f} s from {row['at_s']:.1f} s"
    text = f"{row['backend']}: {times}: {first}"
    return text + (f" (status {row['status']}: {row['said'][-200:]})" if row["status"] else "")


if __name__ == "__main__":
    main()
