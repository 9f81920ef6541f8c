"""A folder of 20,000 pictures: `python benchmarks/predicting.py --run RUN --pictures FOLDER --backends jax torch`.

How fast `predict --csv` names them beside the model's own rate on canvases that are decoded already, in turns, and what
the process has in memory while it does.
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import runs

NUM_PICTURES, TURNS, BATCH = 20_000, 2, 32
_OWN = 2000  # pictures at most of which the model's own rate is taken, three times


def main():
    """Measures a row for each backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--count", type=int, default=NUM_PICTURES, help="pictures in the folder; fewer of large models")
    parser.add_argument("--own-rate", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.own_rate:
        return own_rate(flags.run, flags.pictures)
    with tempfile.TemporaryDirectory() as work:
        many = fill(Path(work) / "many", flags.pictures, flags.count)
        rows = [measure(backend, flags, many, Path(work)) for backend in flags.backends]
    runs.write("predicting", rows, line=in_words, key=("model", "backend"))


def pictures_in(folder: Path) -> list[Path]:
    """Returns the pictures below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


def fill(folder: Path, pictures: Path, count: int) -> Path:
    """Links pictures into a new folder, in turns, until there are as many as are wanted; returns the folder."""
    folder.mkdir()
    for number, picture in zip(range(count), itertools.cycle(pictures_in(pictures))):
        (folder / f"{number:05d}{picture.suffix}").symlink_to(picture.resolve())
    return folder


def measure(backend: str, flags, many: Path, work: Path) -> dict:
    """Returns the row of a backend."""
    row = {
        "model": runs.RunRecord.load(flags.run / "record.json").preset.rpartition("/")[2],
        "backend": backend,
        "turns": [],
    }
    for turn in range(TURNS):
        table = work / f"{backend}-{turn}.csv"
        rate, memory = command(backend, flags, many, table)
        own = runs.measure(backend, __file__, "--run", flags.run, "--pictures", many, "--own-rate")
        if "error" in own:
            return {**row, **own}
        row["turns"].append({"predict": rate, "model": own["rate"], "resident_mib": memory})
        print(row["turns"][-1], flush=True)
    ratios = [turn["predict"] / turn["model"] for turn in row["turns"]]
    growth = [turn["resident_mib"][-1] / turn["resident_mib"][0] - 1 for turn in row["turns"]]
    return {**row, "count": flags.count, "ratio": runs.spread(ratios), "growth": max(growth)}


def command(backend: str, flags, many: Path, table: Path) -> tuple[float, list[float]]:
    """Returns pictures a second of `predict --csv`, and its memory at each tenth of the table."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_dogs.predict", str(flags.run), str(many), "--csv", str(table), "--top-k", "1"],
        env={**os.environ, "KERAS_BACKEND": backend},
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stderr.read()))
    reader.start()
    sizes = []
    while process.poll() is None:
        lines = table.read_bytes().count(b"\n") if table.exists() else 0
        if lines > (len(sizes) + 1) * flags.count / 10:
            status = Path(f"/proc/{process.pid}/status").read_text()
            found = re.search(r"VmRSS:\s+(\d+)", status)
            sizes += [int(found[1]) / 1024] if found else []
        time.sleep(0.2)
    reader.join()
    if process.returncode:
        raise SystemExit(said[0][-2000:])
    return float(re.search(r"\(([\d.,]+) a second\)", said[0])[1].replace(",", "")), sizes


def own_rate(run: Path, many: Path) -> None:
    """Prints how many canvases the model answers a second."""
    from keras_dogs import backends

    backends.select()
    from keras_dogs.data.datasets.opening import open_picture
    from keras_dogs.data.datasets.opening import to_canvas
    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.models.builders import load_classifier

    classifier = load_classifier(run / "model.keras")
    files = sorted(many.iterdir())
    files = files[: min(_OWN, max(len(files) // 4, 4 * BATCH))]
    canvases = np.stack([to_canvas(open_picture(file), **classifier.canvas) for file in files])
    predict_in_batches(classifier, canvases[: 4 * BATCH], BATCH)
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        predict_in_batches(classifier, canvases, BATCH)
        rates.append(len(canvases) / (time.perf_counter() - began))
    print(f'{{"rate": {statistics.median(rates)}}}')


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    ratio, memory = row["ratio"], row["turns"][-1]["resident_mib"]
    return (
        f"{row['turns'][-1]['predict']:.0f} pictures/s, {ratio['median']:.2f} of the model's own rate "
        f"({ratio['min']:.2f} to {ratio['max']:.2f}); memory {memory[0]:.0f} to {memory[-1]:.0f} MiB"
    )


if __name__ == "__main__":
    main()
