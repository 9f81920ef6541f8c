"""Which recipe suits a small folder: `python benchmarks/small_folders.py --sample FOLDER --weights FOLDER`.

Twelve classes of photographs, two neighbouring breeds of the sample in each, as somebody's own folder would have them:
60 pictures per class to train on, or 15, and 20 to test on. One row per size, recipe and model. Fine-tunings of all
weights get as many updates at both sizes.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import runs
from real_sample import RESNET
from real_sample import VIT

from keras_dogs.evaluation.intervals import share_interval
from keras_dogs.system.pages import table

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
NUM_CLASSES = 12
NUM_TEST = 20
# Pictures per class to train on, and the epochs in which these make 100 updates of 32 pictures.
SIZES = {60: 5, 15: 20}
RECIPES = {
    "linear_probe": ["--recipe", "linear_probe"],
    "linear_probe, augmented": ["--recipe", "linear_probe", "--augmentation", "light"],
    "probe_then_finetune": ["--recipe", "probe_then_finetune", "--patience", "3"],
    "probe_then_finetune, rate 2e-5": ["--recipe", "probe_then_finetune", "--patience", "3", "--learning-rate", "2e-5"],
    "adamw": ["--recipe", "adamw"],
}


def main():
    """Measures a row for each size, recipe and model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--models", nargs="+", default=["ResNet-50", "ViT-S/14"])
    parser.add_argument("--write-table", action="store_true", help="write the page's table from the results, and end")
    flags = parser.parse_args()
    if flags.write_table:
        return PAGE.write_text(insert(PAGE.read_text()))
    presets = {
        "ResNet-50": f"applications:resnet50:{flags.weights / RESNET}",
        "ViT-S/14": str(flags.weights / VIT),
    }
    with tempfile.TemporaryDirectory() as folder:
        datasets = {size: gather(flags.sample.resolve(), Path(folder) / f"photos{size}", size) for size in flags.sizes}
        for size, recipe, model in itertools.product(flags.sizes, flags.recipes, flags.models):
            epochs = [] if "linear_probe" in recipe else ["--epochs", SIZES[size]]
            given = ["--preset", presets[model], "--dataset", datasets[size], *RECIPES[recipe], *epochs]
            row = runs.train(flags.backend, Path(folder) / "run", *given)
            row["flags"] = [Path(flag).name if "/" in flag else flag for flag in row["flags"]]
            row = {"pictures_per_class": size, "recipe": recipe, "model": model, **row, **interval(row)}
            runs.write("small_folders", [row], line=in_words, key=("pictures_per_class", "recipe", "model"))


def insert(page: str) -> str:
    """Returns the page with the table of the results."""
    newest = sorted(runs.RESULTS.glob("small_folders-*.json"))[-1]
    rows = [row for row in json.loads(newest.read_text())["rows"] if "error" not in row]
    cells = [
        [
            row["pictures_per_class"],
            row["model"],
            row["recipe"],
            f"{100 * row['test_top1_accuracy']:.1f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})",
            row["best_epoch"] or "the probe",
            f"{row['total_s']:.0f} s",
        ]
        for row in sorted(rows, key=lambda row: (-row["pictures_per_class"], row["model"]))
    ]
    titles = ["pictures per class", "model", "recipe", "test top-1 (95 %)", "epoch kept", "time"]
    return runs.put_between(page, "small folders", table(titles, cells))


def gather(sample: Path, folder: Path, size: int) -> Path:
    """Links the pictures of 24 breeds, spread over the sample, into twelve classes with `train/` and `test/`."""
    for split, num in (("train", size), ("test", NUM_TEST)):
        lines = (sample / "lists" / f"{split}_list.txt").read_text().split()
        breeds = sorted({line.partition("/")[0] for line in lines})
        step = len(breeds) // NUM_CLASSES
        for pair in (breeds[at : at + 2] for at in range(0, step * NUM_CLASSES, step)):
            name = " or ".join(breed.partition("-")[2] for breed in pair)
            (folder / split / name).mkdir(parents=True)
            for breed in pair:
                own = [line for line in lines if line.startswith(f"{breed}/")][: -(-num // 2)]
                for line in own[: num // 2 if breed == pair[1] else None]:
                    (folder / split / name / Path(line).name).symlink_to(sample / "Images" / line)
    return folder


def interval(row: dict) -> dict:
    """Returns the 95 % interval of the row's score."""
    if "error" in row:
        return {}
    right = round(row["test_top1_accuracy"] * row["num_test"])
    low, high = share_interval([1] * right + [0] * (row["num_test"] - right))
    return {"low": low, "high": high}


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"{row['pictures_per_class']} per class, {row['recipe']:<24} {runs.in_words(row)}"


if __name__ == "__main__":
    main()
