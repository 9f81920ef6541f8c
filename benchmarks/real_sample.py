"""Real dogs, real weights, each backend: `python benchmarks/real_sample.py --sample FOLDER --weights FOLDER`.

What the real ResNet-50 makes of the test pictures: its untouched ImageNet head, a linear probe, and the head trained on
from its ImageNet rows; and a linear probe of a ViT-S/14. `--tasks` and `--backends` measure a part again; the rest of
the result file stays.
"""

import argparse
import tempfile
import time
from pathlib import Path

import runs

RESNET, VIT = "resnet50_imagenet1k_fp16.weights.h5", "dinov2_vits14_hf"
TASKS = {
    "untouched head": (RESNET, None),
    "linear probe": (RESNET, ["--linear-probe"]),
    "from the ImageNet head": (RESNET, ["--linear-probe", "--head", "imagenet", "--learning-rate", "1e-3"]),
    "linear probe of the ViT": (VIT, ["--linear-probe"]),
}


def main():
    """Measures a row for each task and backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for task in flags.tasks:
            file, given = TASKS[task]
            preset = f"applications:resnet50:{flags.weights / file}" if file == RESNET else str(flags.weights / file)
            for backend in flags.backends:
                output = Path(folder) / f"{backend}-{task}"
                row = {"task": task}
                if given is None:
                    row |= evaluate(backend, preset, flags.sample)
                else:
                    row |= runs.train(backend, output, "--preset", preset, "--dataset", flags.sample, *given)
                    # Where the folders lie on this machine is nobody's business.
                    row["flags"] = [Path(flag).name if "/" in flag else flag for flag in row["flags"]]
                rows.append(row)
    runs.write("real_sample", rows, line=in_words, key=("task", "backend"))


def evaluate(backend: str, preset: str, sample: Path) -> dict:
    """Scores the preset's own head on the test split; a row."""
    row = {"backend": backend, "preset": preset.rpartition("/")[2], "dataset": sample.name}
    began = time.perf_counter()
    scores = runs.measure(backend, "-m", "keras_dogs.evaluate", preset, "--dataset", sample, "--json")
    if "error" in scores:
        return row | scores
    names = {"test_top1_accuracy": "top1_accuracy", "test_top5_accuracy": "top5_accuracy", "test_loss": "loss"}
    found = {name: scores[there] for name, there in names.items()}
    return {**row, "num_test": scores["num_pictures"], **found, "total_s": time.perf_counter() - began}


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"{row['task']}: {runs.in_words(row)}"


if __name__ == "__main__":
    main()
