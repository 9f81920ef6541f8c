"""One process against two on this host: `python benchmarks/scaling.py --sample FOLDER --weights FOLDER`.

Real dogs, the real ResNet-50: all its weights trained on a part of the sample, for a run to take minutes, and its head
trained on all of it. Two processes have one thread each where one has all cores: what they lose is what it costs
to be two, as there is no device more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import runs

from keras_dogs.data.datasets import load_dataset
from keras_dogs.runs.records import RunRecord

LAUNCHER = Path(__file__).parents[1] / "scripts" / "local_processes.py"
WEIGHTS = "resnet50_imagenet1k_fp16.weights.h5"
NUM_BREEDS = 6
# Flags of `train` for what is trained.
ALL_WEIGHTS, PROBE = "all weights, 6 breeds", "linear probe, the whole sample"
FLAGS = {
    ALL_WEIGHTS: ["--epochs", "1", "--batch-size", "16", "--canvas-size", "256"],
    PROBE: ["--linear-probe"],
}


def main():
    """Measures a row for each backend and number of processes, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--tasks", nargs="+", choices=FLAGS, default=list(FLAGS))
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dogs = {ALL_WEIGHTS: part_of(flags.sample, Path(folder) / "dogs"), PROBE: flags.sample}
        for task in flags.tasks:
            for backend in flags.backends:
                one, two = (
                    train(task, backend, count, Path(folder) / f"{task}-{backend}-{count}", dogs[task], flags.weights)
                    for count in (1, 2)
                )
                if "error" not in {*one, *two}:
                    two["ratio_to_one_process"] = one["seconds"] / two["seconds"]
                rows += [one, two]
    runs.write("scaling", rows, line=in_words, key=("task", "backend", "num_processes"))


def part_of(sample: Path, folder: Path) -> Path:
    """Links some breeds of the sample into a folder."""
    dataset = load_dataset(str(sample))
    for part in ("train", "test"):
        split = getattr(dataset, part)
        for name, label in zip(split.names, split.labels):
            if label < NUM_BREEDS:
                link = folder / part / dataset.class_names[label] / Path(name).name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((sample / "Images" / name).resolve())
    return folder


def train(task: str, backend: str, count: int, output: Path, dogs: Path, weights: Path) -> dict:
    """Trains in a number of processes; a row, whose `seconds` are of a step or of the features of all pictures."""
    threads = max((os.cpu_count() or 1) // count, 1)
    row = {"task": task, "backend": backend, "num_processes": count, "threads_a_process": threads}
    preset = f"applications:resnet50:{weights / WEIGHTS}"
    given = ["--preset", preset, "--dataset", dogs, "--output", output, *FLAGS[task]]
    print(f"\n{task}: {backend}, {count} processes", flush=True)
    start = [LAUNCHER, str(count)] if count > 1 else ["-m", "keras_dogs.train"]
    # One thread each; PyTorch's number is the launcher's.
    one_thread = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, *map(str, [*start, *given])]
    done = subprocess.run(command, env={**os.environ, **(one_thread if count > 1 else {}), "KERAS_BACKEND": backend})
    if done.returncode:
        return {**row, "error": f"exit status {done.returncode}"}
    record = RunRecord.load(output / "record.json")
    return {
        **row,
        "distribution": record.distribution,
        "preset": Path(record.preset).name,
        "num_train": record.dataset.num_train,
        "num_test": record.dataset.num_test,
        "seconds": record.timings.features_s or record.throughput.step_time_ms / 1000,
        "train_images_per_second": record.throughput.train_images_per_second,
        "predict_images_per_second": record.throughput.predict_images_per_second,
        "test_top1_accuracy": record.test.top1_accuracy,
        "test_loss": record.test.loss,
        "total_s": record.timings.total_s,
        "peak_memory_gib": record.peak_memory_gib,
        "versions": record.versions,
    }


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    ratio = f", {row['ratio_to_one_process']:.2f} of the speed of one" if "ratio_to_one_process" in row else ""
    return (
        f"{row['task']}, {row['num_processes']} processes: {row['seconds']:.2f} s{ratio}; "
        f"top-1 {row['test_top1_accuracy']:.1%}"
    )


if __name__ == "__main__":
    main()
