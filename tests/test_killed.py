"""Commands that are killed at each of their file operations: begun again, they end as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import files_below
from made_runs import make_run

pytestmark = [pytest.mark.once, pytest.mark.long]
KILLER = Path(__file__).parents[1] / "scripts" / "kill_before.py"


def run(wanted: int, *command) -> subprocess.CompletedProcess:
    arguments = [sys.executable, str(KILLER), str(wanted), *map(str, command)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env={**os.environ})


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name; a page's date and picture files' times are no part of it."""
    return {name: (folder / name).read_bytes() for name in files_below(folder) if (folder / name).is_file()}


COMMANDS = {
    "draw": lambda runs, output: ("draw", "--train-pictures", 1, "--test-pictures", 1, "--output", output),
    "evaluate": lambda runs, output: ("evaluate", runs[0], "--saved", "--output", output),
    "compare": lambda runs, output: ("compare", "--from", *runs, "--output", output),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_each_file_operation(tmp_path, name):
    made = [make_run(tmp_path / "runs" / preset, preset) for preset in ("resnet_nano", "vit_nano")]
    runs = [tmp_path / "runs" / preset for preset in ("resnet_nano", "vit_nano")]
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    command = COMMANDS[name](runs, "output")
    os.chdir(tmp_path / "whole")
    unbroken = run(0, *command)
    assert unbroken.returncode == 0, unbroken.stderr
    count = int(unbroken.stdout.rpartition("operations: ")[2])
    expected = contents(tmp_path / "whole")
    assert made and count > 5 and expected
    os.chdir(tmp_path / "killed")
    steps = range(1, count + 1) if count <= 40 else [1 + round(n * (count - 1) / 39) for n in range(40)]
    for number in steps:
        killed = run(number, *command)
        if killed.returncode == 0:  # fewer operations, as something was there already
            continue
        assert killed.returncode == -9, killed.stderr
        again = run(0, *command)
        exists = "exists" in again.stderr  # the kill came after the last rename
        assert again.returncode == 0 or exists, (number, again.stderr)
        assert contents(tmp_path / "killed").keys() == expected.keys(), number
        for file, content in contents(tmp_path / "killed").items():
            assert content == expected[file] or file.endswith((".md", ".html", ".json")), (number, file)
        subprocess.run(["rm", "-rf", str(tmp_path / "killed" / "output")], check=True)
        assert not files_below(tmp_path / "killed"), number
