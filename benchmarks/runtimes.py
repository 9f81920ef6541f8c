"""Measures what a classifier is best served with: `python benchmarks/runtimes.py --pictures FOLDER`.

The same classifier runs in every runtime and precision, and in Keras on three backends. Each has a process of its own;
the processes take turns on the same canvases, so that a machine that drifts drifts for all. Weights are random: no
speed depends on them. docs/results.md takes its table and figure from the results (`runtimes_docs.py`).
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import exports
import numpy as np
import runs

from keras_dogs.exporting.formats import FORMATS
from keras_dogs.exporting.formats import RUNTIMES
from keras_dogs.runs.records import BACKENDS
from keras_dogs.runs.records import PROSE

MODELS = {"vit_small_patch16_224": 224, "resnet_50": 224}
BATCHES = {1: 10, 32: 1}  # how many of each a turn has
_TURNS = 7  # counted; one more comes before


def main():
    """Measures all models; rows of other models stay in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    # What plain Keras takes is what a backend of it takes.
    parser.add_argument("--formats", nargs="+", default=[name for name in RUNTIMES if name != "keras"])
    parser.add_argument("--pictures", help="a folder in the layout of a dataset; int8 is calibrated with it")
    parser.add_argument("--turns", type=int, default=_TURNS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        serve(*flags.child)
        return
    rows = [row for model in flags.models for row in compare(model, flags)]
    runs.write("runtimes", rows, line=in_words, key=("model", "runtime", "quantization"))


def compare(model: str, flags) -> list[dict]:
    """Returns a row for each runtime and precision of a model."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = folder / f"{model}.keras"
        exports.build(model, MODELS.get(model, 64), file)
        rows = [{"model": model, "runtime": f"Keras, {PROSE[each]}", "backend": each} for each in BACKENDS]
        rows = [{**row, "quantization": None, "file": file, "size_bytes": file.stat().st_size} for row in rows]
        for row in FORMATS.values():
            if row.name in flags.formats:
                rows += [exported(model, file, row, quantize, flags) for quantize in (None, *row.quantizations)]
        return measure(rows, flags)


def exported(model: str, file: Path, row, quantize: str | None, flags) -> dict:
    """Exports the model, and returns the beginning of a row."""
    output = file.parent / f"{row.name}-{quantize}"
    more = ["--quantize", quantize, "--max-accuracy-loss", "100"] if quantize else []
    more += ["--pictures", flags.pictures] if flags.pictures else []
    begun = {"model": model, "runtime": row.name, "backend": row.backend, "quantization": quantize, "file": output}
    found = exports.run_export(file, row.name, output, "--verify-pictures", "8", *more)
    print(model, row.name, quantize, found.get("error", "written"), flush=True)
    if "error" in found:
        return {**begun, "error": found["error"]}
    return {**begun, "size_bytes": found["verification"]["size_bytes"], "versions": found["versions"]}


def measure(rows: list[dict], flags) -> list[dict]:
    """Adds what each answers in turns: seconds of both batches, of its start, and its memory."""
    children, seconds = {}, {}
    for place, row in enumerate(rows):
        if "error" not in row:
            began = time.perf_counter()
            kind = "run" if row["file"].suffix == ".keras" else "export"
            children[place] = runs.Child(row["backend"], __file__, "--child", kind, row["file"])
            first = children[place].ask()  # not all at once, so that each has the machine for its start
            row["start_s"], seconds[place] = time.perf_counter() - began, []
            if "error" in first:
                row["error"] = first["error"]
            print(row["model"], row["runtime"], row["quantization"], f"{row['start_s']:.1f} s", flush=True)
    for turn in range(flags.turns + 1):
        for place, child in children.items():
            answer = child.ask()
            print(rows[place]["model"], rows[place]["runtime"], rows[place]["quantization"], turn, answer, flush=True)
            if turn and "error" not in answer:
                seconds[place].append(answer)
    for place, child in children.items():
        ended, row = child.end(), rows[place]
        if "error" in ended:
            row["error"] = ended["error"]
        elif seconds[place]:
            for batch in BATCHES:
                speeds = [batch / answer[str(batch)] for answer in seconds[place]]
                row[f"images_per_second_{batch}"] = runs.spread(speeds)
            row["turns"] = len(seconds[place])
            row["peak_memory_mib"] = ended["peak_memory_mib"]
    return [{key: value for key, value in row.items() if key != "file"} for row in rows]


def serve(kind: str, path: str) -> None:
    """Does the child's part: one picture at first, then batches of each size in every turn, its memory at the end."""
    run, (rows, columns) = (_open_run if kind == "run" else _open_export)(Path(path))
    generator = np.random.default_rng(0)
    batches = {batch: generator.integers(0, 256, (batch, rows, columns, 3)).astype("uint8") for batch in BATCHES}
    if runs.is_asked():
        run(batches[1])
        runs.answer({})
    while runs.is_asked():
        runs.answer({str(batch): _seconds(run, canvases, BATCHES[batch]) for batch, canvases in batches.items()})
    runs.answer({"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def _seconds(run, canvases, times: int) -> float:
    """Returns what one call takes, of several."""
    began = time.perf_counter()
    for _ in range(times):
        run(canvases)
    return (time.perf_counter() - began) / times


def _open_run(file: Path):
    from keras_dogs import backends

    backends.select()
    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.models.builders import load_classifier

    classifier = load_classifier(file)
    size = classifier.canvas_size
    sides = size if isinstance(size, tuple) else (size, size)
    return lambda canvases: predict_in_batches(classifier, canvases, len(canvases)), sides


def _open_export(folder: Path):
    from keras_dogs.exporting.exported import open_exported

    exported = open_exported(folder)
    return exported.run, exported.facts["input"]["shape"][1:3]


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    one, many = (row[f"images_per_second_{batch}"]["median"] for batch in BATCHES)
    what = f"{row['runtime']:<18} {row['quantization'] or 'float32':<8}"
    size = (
        f"starts in {row['start_s']:.1f} s, {row['peak_memory_mib']:.0f} MiB, file {row['size_bytes'] / 2**20:.1f} MiB"
    )
    return f"{what} {one:7.1f} images/s one by one, {many:7.1f} in 32s, {size}"


if __name__ == "__main__":
    main()
