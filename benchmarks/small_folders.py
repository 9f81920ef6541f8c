"""Which recipe suits a small folder: `python benchmarks/small_folders.py --sample FOLDER --weights FOLDER`.

Twelve classes of photographs, two neighbouring breeds of the sample in each, as somebody's own folder would have them:
60 pictures a class to train on, or 15, and 20 to test on. A row a size, preset and recipe. Fine-tunings of all weights
get as many updates at both sizes.
"""

import argparse
import tempfile
from pathlib import Path

import runs
from real_sample import RESNET
from real_sample import VIT

from keras_dogs.evaluation.intervals import share_interval

NUM_CLASSES = 12
NUM_TEST = 20
# Pictures a class to train on, and the epochs in which these make 100 updates of 32 pictures.
SIZES = {60: 5, 15: 20}
RECIPES = {
    "linear_probe": ["--recipe", "linear_probe"],
    "linear_probe, augmented": ["--recipe", "linear_probe", "--augmentation", "light"],
    "probe_then_finetune": ["--recipe", "probe_then_finetune"],
    "adamw": ["--recipe", "adamw"],
}


def main():
    """Measures a row for each size, preset and recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), choices=list(SIZES))
    flags = parser.parse_args()
    presets = {
        "ResNet-50": f"applications:resnet50:{flags.weights / RESNET}",
        "ViT-S/14": str(flags.weights / VIT),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in flags.sizes:
            dataset = gather(flags.sample.resolve(), Path(folder) / f"photos{size}", size)
            for recipe in flags.recipes:
                epochs = [] if "linear_probe" in recipe else ["--epochs", SIZES[size]]
                for model, preset in presets.items():
                    given = ["--preset", preset, "--dataset", dataset, *RECIPES[recipe], *epochs]
                    row = runs.train(flags.backend, Path(folder) / "run", *given)
                    row["flags"] = [Path(flag).name if "/" in flag else flag for flag in row["flags"]]
                    rows.append({"pictures_per_class": size, "recipe": recipe, "model": model, **row, **interval(row)})
                    runs.write(
                        "small_folders", list(rows), line=in_words, key=("pictures_per_class", "recipe", "model")
                    )


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
    return f"{row['pictures_per_class']} a class, {row['recipe']:<24} {runs.in_words(row)}"


if __name__ == "__main__":
    main()
