"""Each format, from runs of each backend: `python benchmarks/exports.py`; at real sizes: `... --sizes`.

Every cell is one `python -m keras_dogs.export`, which keeps a file only if its own runtime answers as the run does. The
tables of docs/export.md are written from the results: `... --docs`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import runs

from keras_dogs.exporting.formats import RUNTIMES
from keras_dogs.runs.records import BACKENDS
from keras_dogs.runs.records import PROSE

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
MODELS = ("vit_nano", "resnet_nano")
# Architectures with random weights: numbers are compared, and these have as many digits as trained ones.
SIZES = {
    "vit_base_patch16_224": ("vit_base_patch16_224", "vit_base_patch16_384"),
    "deit_small_distilled_patch16_224_imagenet": ("deit_small_distilled_patch16_224_imagenet",) * 2,
    "dinov2_small": ("dinov2_small",) * 2,
    "resnet_50": ("resnet_50",) * 2,
}
_BUILD = """
import sys, numpy as np
from keras_dogs import backends
backends.select()
import keras_hub, keras_dogs
from keras_dogs.models.builders import build_classifier
preset, side, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
load = preset.endswith("_nano")
if preset == "dinov2_small":
    folder = file + ".preset"
    backbone = keras_hub.models.DINOV2Backbone(14, 12, 384, 6, 1536, image_shape=(518, 518, 3))
    backbone.save_to_preset(folder)
    preset, load = folder, True
classifier = build_classifier(preset, 120, side, load_weights=load, class_names=[f"class {n}" for n in range(120)])
generator = np.random.default_rng(0)
classifier.head.set_weights([generator.normal(0, 0.05, each.shape) for each in classifier.head.get_weights()])
keras_dogs.save_classifier(classifier, file)
"""


def main() -> int:
    """Makes the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--formats", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--models", nargs="+")
    flags = parser.parse_args()
    if flags.docs:
        PAGE.write_text(insert(PAGE.read_text()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = list((of_sizes if flags.sizes else of_backends)(flags, Path(folder)))
    runs.write("exports", rows, line=in_words, key=("model", "side", "backend", "format"))
    return int(any("error" in row for row in rows))


def of_backends(flags, folder: Path):
    """Yields a row for each backend that trains, model and format."""
    for backend in BACKENDS:
        for model in flags.models or MODELS:
            run = folder / f"{model}-{backend}"
            trained = runs.train(backend, run, "--preset", model, "--epochs", "1")
            for name in flags.formats:
                row = {"model": model, "side": 64, "backend": backend, "format": name}
                yield {**row, **trained} if "error" in trained else export(row, run)


def of_sizes(flags, folder: Path):
    """Yields a row for each architecture, size and format."""
    for model in flags.models or SIZES:
        for preset, side in zip(SIZES[model], (224, 384 if model != "dinov2_small" else 392)):
            file = folder / f"{model}-{side}.keras"
            build(preset, side, file)
            for name in flags.formats:
                row = {"model": model, "side": side, "backend": "torch", "format": name}
                yield export(row, file, "--verify-pictures", "8")


def export(row: dict, run: Path, *more) -> dict:
    """Runs the command, and adds what it found to a row, or the error."""
    print(f"\n{row}", flush=True)
    output = run.parent / f"{run.stem}-{row['format']}"
    found = run_export(run, row["format"], output, *more)
    if "error" in found:
        print(found["error"], flush=True)
        return {**row, **found}
    checked = found["verification"]
    shutil.rmtree(output)
    row |= {"relative_difference": checked["largest_difference"] / checked["largest_logit"], **checked}
    print(in_words(row), flush=True)
    return {**row, "written_by": found["written_by"], "versions": found["versions"]}


def run_export(run: Path, name: str, output: Path, *more) -> dict:
    """Exports a run, and gives its `export.json`, or `{"error": str}`."""
    command = [sys.executable, "-m", "keras_dogs.export", run, "--format", name, "--output", output, *more]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1].replace(str(run.parent), "")}
    return json.loads((output / "export.json").read_text())


def build(model: str, side: int, file: Path) -> None:
    """Saves a classifier of an architecture and a size, its head drawn at random."""
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", _BUILD, model, str(side), str(file)], check=True, env=environment)


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return (
        f"{row['format']:<15} off by {row['relative_difference']:.1e}, same name {row['agreement']:.1%}, "
        f"{row['latency_p50_ms']:.1f} ms"
    )


def insert(text: str) -> str:
    """Returns the page with the table of the results in it."""
    for file in sorted(runs.RESULTS.glob("exports-*.json")):
        rows = json.loads(file.read_text())["rows"]
        nanos, others = ([row for row in rows if (row["model"] in MODELS) == is_nano] for is_nano in (True, False))
        text = runs.put_between(text, "cells", _table(nanos, "trained", lambda row: PROSE[row["backend"]]))
        text = runs.put_between(text, "sizes", _table(others, "model", lambda row: f"{row['side']} pixels"))
    return text


def _table(rows: list[dict], first: str, which) -> str:
    found: dict = {}
    for row in rows:
        name = f"`{row['model']}`, {which(row)}"
        cell = f"{row['relative_difference']:.0e}" if "error" not in row else f"no: {row['error'].partition(': ')[2]}"
        found.setdefault(name, {})[row["format"]] = cell
    lines = [f"| {first} | " + " | ".join(f"`{name}`" for name in RUNTIMES) + " |", "|---" * (len(RUNTIMES) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(cells.get(f, "–") for f in RUNTIMES) + " |" for name, cells in found.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
