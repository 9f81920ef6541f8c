"""Each recipe on drawn dogs, both nano presets, several seeds: `python benchmarks/recipes_over_seeds.py`.

What it shows is that each recipe learns, and how much of a difference between two is luck. It does not rank recipes for
real dogs: the presets are small, the pictures drawn, and all but the probes get the same few epochs.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import runs

from keras_dogs.evaluation.statistics import summarise
from keras_dogs.training.recipes import RECIPES

PRESETS = ("vit_nano", "resnet_nano")
BATCH_SIZE = {"vit_paper": 64, "augreg": 64}  # of 1,296 pictures, 512 are too many for an update


def main():
    """Measures a row for each recipe and preset: its runs, their mean, range and standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["torch"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--epochs", default="5")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    flags = parser.parse_args()
    plan = [(backend, recipe, preset) for backend in flags.backends for recipe in flags.recipes for preset in PRESETS]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(flags.jobs) as pool:
        rows = list(pool.map(lambda task: run(*task, flags, Path(folder)), plan))
    runs.write("recipes_over_seeds", rows, line=in_words, key=("backend", "recipe", "preset"))


def run(backend: str, recipe: str, preset: str, flags, folder: Path) -> dict:
    """Runs one recipe and preset with all seeds."""
    given = ["--recipe", recipe, "--preset", preset]
    if not RECIPES[recipe].linear_probe:
        given += ["--epochs", flags.epochs]
    if recipe in BATCH_SIZE:
        given += ["--batch-size", BATCH_SIZE[recipe]]
    scores, seconds = [], []
    for seed in flags.seeds:
        row = runs.train(backend, folder / f"{backend}-{recipe}-{preset}-{seed}", *given, "--seed", seed)
        if "error" in row:
            return {"backend": backend, "recipe": recipe, "preset": preset, "error": row["error"]}
        scores.append(row["test_top1_accuracy"])
        seconds.append(row["total_s"])
    return {
        "backend": backend,
        "recipe": recipe,
        "preset": preset,
        "flags": row["flags"],
        "test_top1_accuracy": scores,
        "summary": summarise(scores)._asdict(),
        "total_s": seconds,
        "versions": row["versions"],
    }


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    found = row["summary"]
    return f"{row['recipe']:<20} mean {found['mean']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


if __name__ == "__main__":
    main()
