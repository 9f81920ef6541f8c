"""Run folders made by hand: whole, quick, and of known numbers."""

import dataclasses

import numpy as np

from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.evaluation.scoring import score_logits
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import DatasetRecord
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import Throughput
from keras_dogs.runs.records import Timings
from keras_dogs.system import files

CLASSES = ("amberwick", "birchling", "cloverjack", "dunespitz")


def make_run(folder, preset="resnet_nano", backend="jax", seed=0, skill=1.0, num_pictures=200, names=None, **changes):
    """Writes a finished run whose logits point to the label by `skill`; the same numbers each time."""
    generator = np.random.default_rng([seed, len(preset), len(backend)])
    labels = (np.arange(num_pictures) % len(CLASSES)).astype(np.int32)
    logits = generator.normal(size=(num_pictures, len(CLASSES))).astype(np.float32)
    logits[np.arange(num_pictures), labels] += skill
    names = np.array(names or [f"test/{number:04d}.jpg" for number in range(num_pictures)])
    folder.mkdir(parents=True)
    Predictions(names, labels, logits, np.array(CLASSES)).save(folder / artifacts.PREDICTIONS)
    scores = score_logits(logits, labels)
    losses = 1 / np.arange(1, 21) + generator.uniform(0, 0.01, 20)
    steps = [
        {"step": n + 1, "epoch": 1 + n // 10, "loss": loss, "learning_rate": 1e-3} for n, loss in enumerate(losses)
    ]
    artifacts.write_table(folder / artifacts.STEPS, steps)
    curve = [scores.top1_accuracy / 2, scores.top1_accuracy]
    artifacts.write_table(
        folder / artifacts.HISTORY,
        [{"epoch": n + 1, "validation_top1_accuracy": accuracy} for n, accuracy in enumerate(curve)],
    )
    record = RunRecord(
        command="train",
        config={
            "data": {"dataset": "nowhere", "data_dir": None},
            "recipe": "adamw",
            "epochs": 2,
            "batch_size": 32,
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "augmentation": "light",
        },
        preset=preset,
        family="resnet",
        num_parameters=1_234_567 + len(preset),
        seed=seed,
        dataset=DatasetRecord("nowhere", "0" * 16, 640, 64, num_pictures, len(CLASSES)),
        backend=backend,
        versions={"keras": "3.15.1"},
        device="CPU: a test's, 2 cores",
        dtype_policy="float32",
        jit_compile=False,
        execution="eager",
        best_epoch=2,
        timings=Timings(2.25, 0.5, 1.75, 3.5 + seed, 60.5 + seed, 70.25 + seed),
        throughput=Throughput(41.5 + seed, 771.0 + seed, 83.25 + seed),
        peak_memory_gib=1.125 + seed,
        validation=scores,
        test=scores,
        pretraining="nothing",
        epoch_end_s=[30.5 + seed, 58.5 + seed],
    )
    record = dataclasses.replace(record, **changes)
    files.write_bytes(folder / artifacts.RECORD, record.to_json().encode())
    return folder
