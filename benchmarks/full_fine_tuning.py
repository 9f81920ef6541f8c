"""All weights of real models on real dogs: `python benchmarks/full_fine_tuning.py --sample FOLDER --weights FOLDER`.

The real ResNet-50 and ViT-S/14, each from a head of zeros and from a linear probe, on each backend; and on PyTorch with
another seed, in batches of 64, and the ResNet-50 from its own ImageNet head: seventeen runs of half an hour on 2 cores.
A finished run stays in `results/full_fine_tuning/`, without its weights, and is not trained again: begin the script as
often as it takes.
`--only NAME...` trains some; `--minutes` begins no run that would end later.
"""

import argparse
import itertools
import shutil
import tempfile
import time
from pathlib import Path

import runs
from real_sample import RESNET
from real_sample import VIT

from keras_dogs.runs import artifacts
from keras_dogs.system import ownership

KEPT = runs.RESULTS / "full_fine_tuning"
FILES = (artifacts.RECORD, artifacts.HISTORY, artifacts.STEPS, artifacts.PREDICTIONS, ownership.MANIFEST)
EPOCHS = 4
# Batches of 64 are 200 updates in these epochs: too few for a head of zeros. Batches of 16 are 808.
# Of a ResNet-50 that knows the breeds, 2e-4 destroys more than it adds (small_folders.py).
RECIPES = {
    ("resnet50", "finetune"): ["--recipe", "resnet_finetune", "--batch-size", 16],
    ("resnet50", "probe_first"): ["--recipe", "probe_then_finetune", "--learning-rate", "2e-5"],
    ("vits14", "finetune"): ["--recipe", "vit_adamw", "--batch-size", 16],
    ("vits14", "probe_first"): ["--recipe", "probe_then_finetune"],
}
ON_PYTORCH_ALONE = {
    ("resnet50", "imagenet_head"): ["--recipe", "adamw", "--head", "imagenet", "--learning-rate", "2e-5"],
    ("resnet50", "finetune_64"): ["--recipe", "resnet_finetune"],
    ("vits14", "finetune_64"): ["--recipe", "vit_adamw", "--batch-size", 64],
}


def main():
    """Trains the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["torch", "jax", "tensorflow"])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    flags = parser.parse_args()
    presets = {"resnet50": f"applications:resnet50:{flags.weights / RESNET}", "vits14": str(flags.weights / VIT)}
    began, longest = time.monotonic(), 30.0
    for name, model, backend, given in planned(flags.backends):
        if (KEPT / name / artifacts.RECORD).exists() or (flags.only and name not in flags.only):
            continue
        if (time.monotonic() - began) / 60 + longest > flags.minutes:
            break
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / name
            given = ["--preset", presets[model], "--dataset", flags.sample, *given, "--epochs", EPOCHS]
            row = runs.train(backend, run, *given)
            print(f"{name}: {row.get('error') or runs.in_words(row)}", flush=True)
            if "error" not in row:
                keep(run, KEPT / name)
                longest = max(longest, row["total_s"] / 60)


def planned(backends: list[str]):
    """Yields the name, model, backend and flags of each run, those on PyTorch alone last."""
    for ((model, recipe), given), backend in itertools.product(RECIPES.items(), backends):
        yield f"{model}-{recipe}-{backend}", model, backend, given
    if "torch" not in backends:
        return
    for (model, recipe), given in ON_PYTORCH_ALONE.items():
        yield f"{model}-{recipe}-torch", model, "torch", given
    for model in ("resnet50", "vits14"):  # how_equal.py measures by them
        yield f"{model}-finetune-torch-seed1", model, "torch", [*RECIPES[model, "finetune"], "--seed", 1]


def keep(run: Path, folder: Path) -> None:
    """Copies what a run says of itself, less its weights; the record last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):
        shutil.copyfile(run / name, folder / name)


if __name__ == "__main__":
    main()
