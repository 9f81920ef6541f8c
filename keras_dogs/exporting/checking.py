"""The process that opens an exported folder in its own runtime: `python -P checking.py FOLDER FILES WORK`.

It runs the very `predict.py` of the folder, imports nothing of ours, and writes what that answered, and how fast.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

_SECONDS = 2.0  # at most for single pictures, at least for batches
_LATENCIES = 200  # at most


def main():
    """Answers all files, then measures."""
    folder, files, work = map(Path, sys.argv[1:])
    began = time.perf_counter()
    program = _load(folder / "predict.py")
    run, names = program.open_model(folder)
    opened = time.perf_counter() - began
    canvas = json.loads((folder / "export.json").read_text())["canvas"]
    answered, logits, probabilities, last = [], [], [], None
    for read, canvases, _ in program.read_canvases(json.loads(files.read_text()), canvas):
        for part in _parts(canvases, is_first=not answered) if read else ():
            outputs = run(part)
            logits.append(outputs[0])
            probabilities.append(outputs[1])
        answered += read
        last = last if canvases is None else canvases
    logits, probabilities = np.concatenate(logits), np.concatenate(probabilities)
    told = [names[place] for place in np.argmax(probabilities, axis=1)]
    arrays = {"files": np.array(answered), "logits": logits, "probabilities": probabilities, "told": np.array(told)}
    np.savez(work / "answers.npz", **arrays)
    (work / "measured.json").write_text(
        json.dumps({**measure(run, last), "open_s": opened, "class_names": names}), "utf-8"
    )


def _parts(canvases, is_first: bool):
    """Splits the first batch into 1, 7 and the rest, as a file may accept only one batch size; keeps others whole."""
    return [part for part in np.split(canvases, [1, 8] if is_first else []) if len(part)]


def _load(file: Path):
    """Imports a program from its path, and writes no bytecode beside it."""
    specification = importlib.util.spec_from_file_location("predict", file)
    module = importlib.util.module_from_spec(specification)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    specification.loader.exec_module(module)
    sys.dont_write_bytecode = before  # what a runtime imports later is compiled once, not in every check
    return module


def measure(run, canvases) -> dict:
    """Measures a model that has answered: its speed, and whether running it imported Keras or keras_dogs."""
    latencies, images_per_second = _times(run, canvases)
    return {
        "latency_p50_ms": float(np.percentile(latencies, 50)) * 1e3,
        "latency_p95_ms": float(np.percentile(latencies, 95)) * 1e3,
        "images_per_second": images_per_second,
        "cores": os.cpu_count(),
        "imported": sorted({"keras", "keras_dogs"} & sys.modules.keys()),
    }


def _times(run, canvases):
    """Returns the seconds of single pictures, one after the other, and the pictures a second in batches of 32."""
    single, batch, latencies = canvases[:1], np.resize(canvases, (32, *canvases.shape[1:])), []
    run(single)
    began = time.perf_counter()
    while len(latencies) < _LATENCIES and (len(latencies) < 5 or time.perf_counter() - began < _SECONDS):
        before = time.perf_counter()
        run(single)
        latencies.append(time.perf_counter() - before)
    is_quick = 32 * min(latencies) < _SECONDS
    if is_quick:
        run(batch)
    began, count = time.perf_counter(), 0
    while not count or (is_quick and time.perf_counter() - began < _SECONDS):
        run(batch)
        count += 1
    return latencies, 32 * count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
