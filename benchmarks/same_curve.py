"""Thirty steps of the same fine-tuning on each backend: `python benchmarks/same_curve.py --sample FOLDER`.

ViT-Ti/16 and ResNet-18 at 224 from one weights file each, batch 16, `standard` augmentation, with mix-up and without,
`--strict`, AdamW at the rate that fits the model. Writes the losses of every step, how far the backends are apart, and
a figure of the curves. Each backend runs the ViT with mix-up twice, to see whether the weights come out the same.
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import runs

MODELS = {"ViT-Ti/16": "vit_tiny_patch16_224", "ResNet-18": "resnet_18"}
# From random weights a ResNet under AdamW at 1e-3 is chaotic: rounding grows tenfold a step on one backend, too.
LEARNING_RATES = {"ViT-Ti/16": "1e-3", "ResNet-18": "2e-4"}
COLOURS = {"jax": "#0072b2", "tensorflow": "#e69f00", "torch": "#009e73"}  # Okabe and Ito's, told apart by everybody
DASHES = {"jax": "-", "tensorflow": (0, (5, 3)), "torch": (0, (1, 2))}
BATCH_SIZE, PICTURES_A_BREED = 16, 4
SAVE_PRESET = """
import sys
from keras_dogs import backends
backends.select()
import keras_dogs
classifier = keras_dogs.build_classifier(sys.argv[1], 2, load_weights=False)
classifier.backbone.save_to_preset(sys.argv[2])
"""
ARE_EQUAL = """
import sys
from keras_dogs import backends
backends.select()
import numpy as np
import keras_dogs
one, other = (keras_dogs.load_classifier(file) for file in sys.argv[1:])
same = [np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one.weights, other.weights, strict=True)]
print(all(same))
"""


def main():
    """Runs the curves and writes the result and its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True, help="a folder in the official Stanford layout")
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--learning-rate", help="one for both models; the table in this file when not given")
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        choose_pictures(flags.sample, folder / "dogs")
        for model, preset in MODELS.items():
            python(SAVE_PRESET, flags.backends[0], preset, folder / preset)
            for mixup in ("0", "0.2"):
                for backend in flags.backends:
                    rate = flags.learning_rate or LEARNING_RATES[model]
                    rows.append(run(backend, model, folder, preset, mixup, rate))
        for row in rows:
            if row["model"] == "ViT-Ti/16" and row["mixup"] != "0" and "error" not in row:
                row["bit_identical_again"] = repeats(row, folder)
    file = runs.write("same_curve", rows, summary={"apart": differences(rows)}, line=in_words)
    draw(rows, file.with_suffix(".png"))


def choose_pictures(sample: Path, folder: Path) -> None:
    """Links 4 train pictures and 1 test picture a breed: 30 batches of 16."""
    for part, count in (("train", PICTURES_A_BREED), ("test", 1)):
        names = (sample / "lists" / f"{part}_list.txt").read_text().split()
        for breed, files in itertools.groupby(sorted(names), key=lambda name: name.split("/")[0]):
            (folder / part / breed).mkdir(parents=True)
            for name in list(files)[:count]:
                (folder / part / name).symlink_to((sample / "Images" / name).resolve())


def python(code: str, backend: str, *arguments) -> str:
    """Runs Python code on a backend in a process of its own and gives what it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def run(backend, model, folder, preset, mixup, learning_rate, name="run") -> dict:
    """Runs one training, and returns its row."""
    output = folder / f"{name}-{backend}-{preset}-{mixup}"
    flags = ["--preset", folder / preset, "--dataset", folder / "dogs", "--validation-fraction", "0", "--strict"]
    flags += ["--epochs", "1", "--batch-size", BATCH_SIZE, "--learning-rate", learning_rate, "--seed", "0"]
    row = runs.train(backend, output, *flags, "--augmentation", "standard", "--mixup", mixup)
    row |= {"model": model, "mixup": mixup, "learning_rate": learning_rate, "output": output.name}
    if "error" not in row:
        with (output / "steps.csv").open() as file:
            row["losses"] = [float(step["loss"]) for step in csv.DictReader(file)]
    row["flags"] = [Path(flag).name if "/" in flag else flag for flag in row["flags"]]
    return row


def repeats(row, folder) -> bool:
    """Returns whether the same training once more ends with the same weights, to the last bit."""
    preset = MODELS[row["model"]]
    again = run(row["backend"], row["model"], folder, preset, row["mixup"], row["learning_rate"], "again")
    models = [folder / name / "model.keras" for name in (row["output"], again["output"])]
    return python(ARE_EQUAL, row["backend"], *models) == "True"


def differences(rows) -> list[dict]:
    """Returns how far apart the losses of any two backends are, for each model, with mix-up and without."""
    found = []
    for (model, mixup), group in itertools.groupby(rows, key=lambda row: (row["model"], row["mixup"])):
        losses = np.array([row["losses"] for row in group if "losses" in row])
        apart = losses.max(axis=0) - losses.min(axis=0)
        found.append(
            {
                "model": model,
                "mixup": mixup,
                "num_backends": len(losses),
                "first_10_steps": float(apart[:10].max()),
                "all_steps": float(apart.max()),
                "num_steps": losses.shape[1],
            }
        )
        print(found[-1])
    return found


def in_words(row) -> str:
    """Returns the line that is printed of a row."""
    again = {True: ", again bit-identical", False: ", again OTHER weights"}.get(row.get("bit_identical_again"), "")
    return f"mix-up {row['mixup']}: loss {row['losses'][0]:.4f} -> {row['losses'][-1]:.4f}{again}"


def draw(rows, file: Path) -> None:
    """Overlays the backends' curves, a panel a model and mix-up, and below each what sets them apart."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: (row["model"], row["mixup"]))]
    size = dict(figsize=(3.2 * len(groups), 4.6), height_ratios=(2, 1), sharex=True, layout="constrained")
    figure, axes = pyplot.subplots(2, len(groups), **size)
    for column, group in enumerate(groups):
        curves, apart = axes[0, column], axes[1, column]
        losses = {row["backend"]: np.array(row["losses"]) for row in group if "losses" in row}
        mean = np.mean(list(losses.values()), axis=0)
        for backend, values in losses.items():
            steps = np.arange(1, len(values) + 1)
            style = dict(color=COLOURS[backend], linestyle=DASHES[backend], label=runs.PROSE[backend])
            curves.plot(steps, values, linewidth=2, **style)
            apart.plot(steps, np.maximum(np.abs(values - mean), 1e-8), **style)
        curves.set_title(f"{group[0]['model']}, " + ("no mix-up" if group[0]["mixup"] == "0" else "mix-up 0.2"))
        apart.set(yscale="log", ylim=(1e-8, 1e-1), xlabel="step")
        apart.grid(alpha=0.3)
        curves.grid(alpha=0.3)
    axes[0, 0].set_ylabel("training loss, nats")
    axes[1, 0].set_ylabel("distance from the mean")
    axes[0, 0].legend(frameon=False)
    figure.savefig(file, dpi=110)
    print(file)


if __name__ == "__main__":
    main()
