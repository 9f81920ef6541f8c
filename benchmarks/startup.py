"""What comes before the first step, the first time and the second: `python benchmarks/startup.py`.

`train` on drawn dogs for one epoch with an empty cache folder, then again with what that left there. Seconds are those
of the run's record; `--help` is a process from start to end. `--loading` measures how long a command waits for Keras,
beside Keras with all that it imports for itself alone, in turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import runs


def main():
    """Measures a row for each backend, preset and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=list(runs.PROSE))
    parser.add_argument("--presets", nargs="+", default=["vit_nano"])
    parser.add_argument("--loading", action="store_true", help="measure this alone")
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    if flags.loading:
        runs.write("loading_keras", [loading(backend, flags.rounds) for backend in flags.backends], line=of_loading)
        return
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "keras_dogs.train", "--help"], check=True, capture_output=True)
    help_s = time.perf_counter() - began
    rows = []
    for backend in flags.backends:
        for preset in flags.presets:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["KERAS_DOGS_CACHE"] = str(Path(folder) / "cache")
                for time_ in ("first", "second"):
                    row = measure(backend, preset, Path(folder) / "run")
                    rows.append({**row, "time": time_, "help_s": help_s})
    runs.write("startup", rows, line=in_words)


def measure(backend: str, preset: str, output: Path) -> dict:
    """Returns one run's timings."""
    from keras_dogs.runs.records import RunRecord

    row = runs.train(backend, output, "--preset", preset, "--epochs", "1")
    if "error" in row:
        return row
    timings = vars(RunRecord.load(output / "record.json").timings)
    return {"backend": backend, "preset": preset, "versions": row["versions"], **timings}


def loading(backend: str, rounds: int) -> dict:
    """Returns the seconds of `backends.load`, and of a plain import of the same, in new processes."""
    program = (
        "import json, sys, time; began = time.perf_counter(); from keras_dogs import backends; "
        "load = backends.load if sys.argv[1] == 'ours' else backends.select; load(); import keras_hub; "
        "print(json.dumps({'seconds': time.perf_counter() - began}))"
    )
    found: dict[str, list[float]] = {"ours": [], "whole": []}
    for _ in range(rounds):
        for name, seconds in found.items():
            measured = runs.measure(backend, "-W", "ignore", "-c", program, name)
            if "error" in measured:
                return {"backend": backend, **measured}
            seconds.append(measured["seconds"])
    ratios = sorted(one / other for one, other in zip(*found.values()))
    return {"backend": backend, **{name: runs.spread(seconds) for name, seconds in found.items()}, "ratios": ratios}


def of_loading(row: dict) -> str:
    """Returns the line that is printed of a row of `--loading`."""
    ours, whole = row["ours"]["median"], row["whole"]["median"]
    return f"{ours:.1f} s instead of {whole:.1f} s, {statistics.median(row['ratios']):.2f} of the time"


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    parts = ("import_s", "decode_s", "build_s", "first_step_s")
    return f"{row['time']}: " + ", ".join(f"{part.removesuffix('_s')} {row[part]:.1f}" for part in parts)


if __name__ == "__main__":
    main()
