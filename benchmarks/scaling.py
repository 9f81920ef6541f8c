"""One process against two on this host: `python benchmarks/scaling.py --sample FOLDER --weights FOLDER`.

Real dogs, the real ResNet-50, the whole of it trained. Two processes have one thread each where one has all cores: what
they lose is what it costs to be two, as there is no device more. A part of the sample, for a run to take minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import runs

from keras_dogs.datasets import load_dataset
from keras_dogs.records import RunRecord

LAUNCHER = Path(__file__).parents[1] / "scripts" / "local_processes.py"
WEIGHTS = "resnet50_imagenet1k_fp16.weights.h5"
NUM_BREEDS = 6
FLAGS = ["--epochs", "1", "--batch-size", "16", "--canvas-size", "256"]


def main():
    """A row a backend and number of processes, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dogs = part_of(flags.sample, Path(folder) / "dogs")
        for backend in flags.backends:
            found = [
                train(backend, count, Path(folder) / f"{backend}-{count}", dogs, flags.weights / WEIGHTS)
                for count in (1, 2)
            ]
            if not any("error" in row for row in found):
                found[1]["ratio_to_one_process"] = found[0]["step_s"] / found[1]["step_s"]
            rows += found
    runs.write("scaling", rows, line=in_words, key=("backend", "num_processes"))


def part_of(sample: Path, folder: Path) -> Path:
    """Some breeds of the sample, linked."""
    dataset = load_dataset(str(sample))
    for part in ("train", "test"):
        split = getattr(dataset, part)
        for name, label in zip(split.names, split.labels):
            if label < NUM_BREEDS:
                link = folder / part / dataset.class_names[label] / Path(name).name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((sample / "Images" / name).resolve())
    return folder


def train(backend: str, count: int, output: Path, dogs: Path, weights: Path) -> dict:
    """Trains in a number of processes; a row."""
    row = {"backend": backend, "num_processes": count, "threads_a_process": max((os.cpu_count() or 1) // count, 1)}
    told = ["--preset", f"applications:resnet50:{weights}", "--dataset", dogs, "--output", output, *FLAGS]
    print(f"\n{backend}, {count} processes", flush=True)
    start = [LAUNCHER, str(count)] if count > 1 else ["-m", "keras_dogs.train"]
    # One thread each; PyTorch's number is the launcher's.
    one_thread = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, *map(str, [*start, *told])]
    done = subprocess.run(command, env={**os.environ, **(one_thread if count > 1 else {}), "KERAS_BACKEND": backend})
    if done.returncode:
        return {**row, "error": f"exit status {done.returncode}"}
    record = RunRecord.load(output / "record.json")
    return {
        **row,
        "distribution": record.distribution,
        "preset": Path(record.preset).name,
        "num_train": record.dataset.num_train,
        "step_s": record.throughput.step_time_ms / 1000,
        "train_images_per_second": record.throughput.train_images_per_second,
        "predict_images_per_second": record.throughput.predict_images_per_second,
        "test_top1_accuracy": record.test.top1_accuracy,
        "test_loss": record.test.loss,
        "total_s": record.timings.total_s,
        "peak_memory_gib": record.peak_memory_gib,
        "versions": record.versions,
    }


def in_words(row: dict) -> str:
    """What is printed of a row."""
    ratio = f", {row['ratio_to_one_process']:.2f} of the speed of one" if "ratio_to_one_process" in row else ""
    return (
        f"{row['num_processes']} processes: {row['step_s']:.2f} s a step{ratio}; top-1 {row['test_top1_accuracy']:.1%}"
    )


if __name__ == "__main__":
    main()
