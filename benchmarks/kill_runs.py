"""Runs that are killed and resumed: `python benchmarks/kill_runs.py`.

On each backend: one unbroken run with `--strict`, then as many as asked that get SIGKILL somewhere after their first
checkpoint, each resumed until it ends; then as many that are killed right before one of their file operations, and once
more before one of the resumed run's. A checkpoint is written after every step, so that many are hit amid a save. What
must hold: the same curves, predictions and weights as the unbroken run's, to the last bit, and nothing else left.
"""

import argparse
import io
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import runs

KILLER = Path(__file__).parents[1] / "scripts" / "kill_before.py"
TOLD = ["--epochs", "4", "--batch-size", "8", "--strict", "--checkpoint-every", "1", "--ema", "0.9", "--mixup", "0.2"]


def main():
    """Runs all, a row a backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--operations", type=int, default=20, help="kills at file operations")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    rows = [kill_runs(backend, flags.kills, flags.operations, random.Random(flags.seed)) for backend in flags.backends]
    runs.write("kill_runs", rows, line=in_words, key=("backend",))
    return 0 if all(not row["differences"] for row in rows) else 1


def kill_runs(backend: str, kills: int, operations: int, instants: random.Random) -> dict:
    """Makes one backend's row."""
    row = {"backend": backend, "model": "resnet_nano", "flags": TOLD, "kills": kills, "equal": 0, "differences": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        draw = ["-m", "keras_dogs.draw", "--output", folder / "dogs", "--train-pictures", "6", "--test-pictures", "1"]
        subprocess.run([sys.executable, *draw], check=True)
        process = start(backend, folder / "unbroken", folder / "dogs")
        wait_for_checkpoint(folder / "unbroken", process)
        began = time.perf_counter()
        process.wait()
        row["training_s"] = training = time.perf_counter() - began
        row["killed_after_s"], row["steps_when_killed"], row["amid_save"] = [], [], 0
        for number in range(kills):
            output = folder / f"run{number}"
            after = instants.uniform(0, training)
            process = start(backend, output, folder / "dogs")
            wait_for_checkpoint(output, process)
            time.sleep(after)
            process.kill()
            process.wait()
            saved = sorted((output / "checkpoints").glob("step-*"))
            row["killed_after_s"].append(round(after, 2))
            row["steps_when_killed"].append(int(saved[-1].name.split("-")[1]) if saved else None)  # None: just ended
            row["amid_save"] += any(output.rglob(".tmp-*"))
            resumed = start(backend, output, folder / "dogs", "--resume").wait()
            difference = f"exit status {resumed}" if resumed else find_difference(output, folder / "unbroken")
            row["equal"] += difference is None
            if difference:
                row["differences"].append(f"run {number}: {difference}")
            print(f"{backend} {number + 1}/{kills}: killed after {after:.1f} s; {difference or 'equal'}", flush=True)
        kill_at_operations(backend, folder, operations, instants, row)
    return row


def kill_at_operations(backend: str, folder: Path, operations: int, instants: random.Random, row: dict) -> None:
    """Adds to a row what came of runs that were killed before a file operation, and again when they were resumed."""
    row |= {"operations": operations, "equal_at_operations": 0}
    count = killed_before(backend, folder / "counted", folder / "dogs", 0)
    row["file_operations"] = count
    for number, place in enumerate(sorted(instants.sample(range(1, count + 1), min(operations, count)))):
        output = folder / f"at{number}"
        killed_before(backend, output, folder / "dogs", place)
        if (output / "config.json").exists():
            killed_before(backend, output, folder / "dogs", instants.randint(1, max(count - place, 1)), "--resume")
        more = ["--resume"] if output.exists() and any(output.iterdir()) else []
        status = start(backend, output, folder / "dogs", *more).wait()
        difference = f"exit status {status}" if status else find_difference(output, folder / "unbroken")
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        difference = difference or (f"left behind: {left}" if left else None)
        row["equal_at_operations"] += difference is None
        if difference:
            row["differences"].append(f"file operation {place} of {count}: {difference}")
        print(f"{backend}: killed before file operation {place} of {count}; {difference or 'equal'}", flush=True)


def killed_before(backend: str, output: Path, dogs: Path, place: int, *more) -> int:
    """Runs a training that is killed before a file operation; gives how many it had, where it was not."""
    command = [sys.executable, KILLER, place, "train", "--dataset", dogs, "--output", output, *TOLD, *more]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    return int(done.stdout.rpartition("operations: ")[2] or 0)


def wait_for_checkpoint(output: Path, process: subprocess.Popen) -> None:
    """Waits until the first checkpoint is there."""
    while process.poll() is None and not any(output.glob("checkpoints/step-*")):
        time.sleep(0.02)


def start(backend: str, output: Path, dogs: Path, *more) -> subprocess.Popen:
    """Begins a training."""
    command = [sys.executable, "-m", "keras_dogs.train", "--dataset", dogs, "--output", output, *TOLD, *more]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_difference(one: Path, other: Path) -> str | None:
    """Returns the first thing that two run folders do not have in common, or `None`."""
    files = [sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) for run in (one, other)]
    if files[0] != files[1]:
        return f"files {sorted(set(files[0]) ^ set(files[1]))}"
    for name in ("steps.csv", "history.csv"):
        if (one / name).read_text() != (other / name).read_text():
            return name
    for name in ("model.keras", "checkpoints/last.keras"):
        first, second = (weights(run / name) for run in (one, other))
        if first.keys() != second.keys():
            return f"weights of {name}"
        for key, value in first.items():
            if not np.array_equal(value, second[key]):
                return f"{key} in {name}, by {np.abs(value - second[key]).max():.1e}"
    with np.load(one / "predictions.npz") as first, np.load(other / "predictions.npz") as second:
        return next((name for name in first.files if not np.array_equal(first[name], second[name])), None)


def weights(file: Path) -> dict:
    """Returns every array of a `.keras` file by its path."""
    found = {}
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as stored:
        stored.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return (
        f"{row['equal']} of {row['kills']} ended as the unbroken run ({row['amid_save']} hit amid a save), and "
        f"{row['equal_at_operations']} of {row['operations']} that were killed at a file operation"
    )


if __name__ == "__main__":
    sys.exit(main())
