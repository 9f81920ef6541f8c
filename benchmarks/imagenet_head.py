"""A preset as it comes, with its ImageNet head: `python benchmarks/imagenet_head.py --sample FOLDER --weights FOLDER`.

No training: what a head that has seen most of these pictures, with their labels, makes of them. Anything that a
fine-tuning reaches is to be held against this.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import runs


def main():
    """Runs `evaluate` on the untouched ResNet-50 on each backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    flags = parser.parse_args()
    preset = f"applications:resnet50:{flags.weights / 'resnet50_imagenet1k_fp16.weights.h5'}"
    runs.write("imagenet_head", [evaluate(backend, preset, flags.sample) for backend in flags.backends])


def evaluate(backend: str, preset: str, sample: Path) -> dict:
    """Scores the preset on the test split; a row."""
    row = {"backend": backend, "preset": preset.rpartition("/")[2], "dataset": sample.name}
    command = [sys.executable, "-m", "keras_dogs.evaluate", preset, "--dataset", str(sample), "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {**row, "error": f"exit status {done.returncode}"}
    scores = json.loads(done.stdout.splitlines()[-1])
    return {
        **row,
        "num_test": scores["num_pictures"],
        "test_top1_accuracy": scores["top1_accuracy"],
        "test_top5_accuracy": scores["top5_accuracy"],
        "test_loss": scores["loss"],
        "total_s": time.perf_counter() - began,
    }


if __name__ == "__main__":
    main()
