"""Runs that are killed at random instants and resumed: `python benchmarks/kill_runs.py`.

On each backend: one unbroken run with `--strict`, then as many as asked that get SIGKILL somewhere after their first
checkpoint, each resumed until it ends. A checkpoint is written after every step, so that many are hit amid a save. What
must hold: the same curves, predictions and weights as the unbroken run's, to the last bit.
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

TOLD = ["--epochs", "4", "--batch-size", "8", "--strict", "--checkpoint-every", "1", "--ema", "0.9", "--mixup", "0.2"]


def main():
    """Runs all, a row a backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    rows = [kill_runs(backend, flags.kills, random.Random(flags.seed)) for backend in flags.backends]
    runs.write("kill_runs", rows, line=in_words, key=("backend",))
    return 0 if all(row["equal"] == row["kills"] for row in rows) else 1


def kill_runs(backend: str, kills: int, instants: random.Random) -> dict:
    """One backend's row."""
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
    return row


def wait_for_checkpoint(output: Path, process: subprocess.Popen) -> None:
    """Until the first is there."""
    while process.poll() is None and not any(output.glob("checkpoints/step-*")):
        time.sleep(0.02)


def start(backend: str, output: Path, dogs: Path, *more) -> subprocess.Popen:
    """Begins a training."""
    command = [sys.executable, "-m", "keras_dogs.train", "--dataset", dogs, "--output", output, *TOLD, *more]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_difference(one: Path, other: Path) -> str | None:
    """The first thing that two run folders do not have in common, or `None`."""
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
    """Every array of a `.keras` file by its path."""
    found = {}
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as stored:
        stored.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def in_words(row: dict) -> str:
    """What is printed of a row."""
    return f"{row['equal']} of {row['kills']} ended as the unbroken run ({row['amid_save']} hit amid a save)"


if __name__ == "__main__":
    sys.exit(main())
