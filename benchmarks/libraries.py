"""What other libraries make of real photographs: `python benchmarks/libraries.py --runs RUN [RUN ...]`.

Each run is written for each library, which answers the test pictures by its own preprocessing; a row a run and library.
Finished runs of the sample are needed (`keras_dogs.train --dataset FOLDER --linear-probe`), and transformers and timm;
where torchvision has no build for the PyTorch at hand, put `tests/torchvision_stub` on `PYTHONPATH`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import runs

from keras_dogs.errors import first_line
from keras_dogs.exporting.formats import LIBRARIES
from keras_dogs.runs import exports
from keras_dogs.runs.records import RunRecord
from keras_dogs.system.pages import table

PAGE = Path(__file__).parents[1] / "docs" / "libraries.md"


def main():
    """Measures the rows and writes the table of `docs/libraries.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES))
    parser.add_argument("--pictures", type=int, default=1200)
    flags = parser.parse_args()
    rows = [measure(run, library, flags) for run in flags.runs for library in flags.libraries]
    if rows:
        runs.write("libraries", rows, line=json.dumps, key=("model", "library"))
    PAGE.write_text(insert(PAGE.read_text()))


def measure(run: Path, library: str, flags) -> dict:
    """Returns a row: what the export found, or what it was refused for."""
    record = RunRecord.load(run / "record.json")
    row = {"model": Path(record.preset).name.partition(":")[0], "library": library, "backend": record.backend}
    row["model"] = record.preset.split(":")[1] if record.preset.startswith("applications:") else row["model"]
    with tempfile.TemporaryDirectory() as work:
        output = Path(work) / "folder"
        arguments = [run, "--format", library, "--output", output, "--verify-pictures", flags.pictures]
        done = subprocess.run(
            [sys.executable, "-m", "keras_dogs.export", *map(str, arguments)],
            env={**os.environ, "KERAS_BACKEND": record.backend},
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            return {**row, "refused": done.stderr.strip().splitlines()[-1].partition("error: ")[2]}
        found = exports.read(output / exports.FILE)
    names = ("num_pictures", "agreement", "top1_accuracy", "top1_accuracy_of_run", "accuracy_loss_interval")
    checked = found["verification"]
    off = checked["largest_difference"] / checked["largest_logit"]
    return {**row, **{name: checked[name] for name in names}, "off": off, "notes": found["notes"]}


def insert(page: str) -> str:
    """Returns the page with the table of the results."""
    found = sorted(runs.RESULTS.glob("libraries-*.json"))
    rows = [row for file in found for row in json.loads(file.read_text())["rows"]]
    cells = [_cells(row) for row in rows]
    header = ["run", "for", "off on the same pixels", "same name from the files", "top-1 there", "here", "loss, points"]
    return runs.put_between(page, "libraries", str(table(header, cells)) if cells else "")


def _cells(row: dict) -> list[str]:
    first = [row["model"], row["library"]]
    if "refused" in row:
        return [*first, f"refused: {first_line(Exception(row['refused'])).partition(',')[0]}", "", "", "", ""]
    low, high = (100 * bound for bound in row["accuracy_loss_interval"])
    return [
        *first,
        f"{row['off']:.0e}",
        f"{100 * row['agreement']:.1f} % of {row['num_pictures']:,}",
        f"{100 * row['top1_accuracy']:.1f} %",
        f"{100 * row['top1_accuracy_of_run']:.1f} %",
        f"{low:+.1f} to {high:+.1f}",
    ]


if __name__ == "__main__":
    main()
