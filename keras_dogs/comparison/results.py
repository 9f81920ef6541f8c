"""Collects, from run folders, all that a comparison shows, as the rows of `schema.py`. No Keras, no figures."""

import datetime
import shlex
import sys
from pathlib import Path

import numpy as np

import keras_dogs
from keras_dogs.comparison import loaded
from keras_dogs.comparison import schema
from keras_dogs.comparison import verdicts
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.comparison.loaded import Loaded
from keras_dogs.comparison.pairs import PAIRS
from keras_dogs.comparison.plan import PlannedRun
from keras_dogs.comparison.plan import dataset_of
from keras_dogs.errors import UserError
from keras_dogs.errors import in_words as errors_in_words
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import scoring
from keras_dogs.models import costs
from keras_dogs.models import presets
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import recipe_in_words

# Of validation top-1 accuracy, for the time until it is reached.
THRESHOLDS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
NUM_PICTURES = 6


def _fairness(config: CompareConfig) -> str:
    """Says how equal a pair is, of what the flags have left as the table has it; empty without a pair."""
    pair = PAIRS.get(config.pair)
    if not pair:
        return ""
    dataset = pair.of_dataset if dataset_of(config) == pair.dataset else ""
    has_its_flags = config.epochs is None and config.budget == "epochs" and not config.train_flags
    return " ".join(filter(None, (pair.fairness, has_its_flags and pair.of_flags, dataset)))


def collect(config: CompareConfig, planned: list[PlannedRun], errors: dict[Path, str]) -> schema.Results:
    """Reads the runs of a comparison, and those of `--from`.

    Args:
        config: `CompareConfig`.
        planned: list of `PlannedRun`.
        errors: dict of a planned run's folder to why it failed.
    """
    runs, rows, notes = [], [], []
    wanted = [(run.folder, run.command, run.name) for run in planned]
    wanted += [(Path(folder), "", Path(folder).name) for folder in config.from_]
    for folder, command, name in wanted:
        try:
            if folder in errors:
                raise UserError(errors[folder])
            runs.append(loaded.load(folder, command))
        except (UserError, OSError) as error:  # another user's run may not be readable
            why = str(error) if isinstance(error, UserError) else errors_in_words(error)
            rows.append({"name": name, "folder": str(folder), "command": command, "error": why})
    runs, strangers = loaded.on_one_test_set(runs)
    notes += [f"{run.name} ({run.folder}) was scored on other test pictures and is left out" for run in strangers]
    runs, others = loaded.on_one_pool(runs)
    notes += [f"{run.name} ({run.folder}) was trained on other pictures and is left out" for run in others]
    runs, leaking = loaded.without_leaks(runs)
    notes += [f"{run.name} ({run.folder}) was trained on pictures of the test split and is left out" for run in leaking]
    runs, doubles = loaded.without_doubles(loaded.told_apart(runs))
    notes += [f"{run.name} is there twice; the one in {run.folder} is left out" for run in doubles]
    between_models, (single, between_backends) = verdicts.between_models(runs), verdicts.between_backends(runs)
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "made_with": f"python {shlex.join(['-m', 'keras_dogs.compare', *sys.argv[1:]])}",
        "date": datetime.date.today().isoformat(),
        "keras_dogs": keras_dogs.__version__,
        "fairness": _fairness(config),
        "budget": config.budget,
        "notes": notes + _notes(runs),
        "verdicts": [row["in_words"] for row in (*between_models, *between_backends)],
        "class_names": [str(name) for name in runs[0].predictions.class_names] if runs else [],
        "runs": [_describe(run) for run in runs] + rows,
        "groups": _groups(runs),
        "models": _models(runs),
        "pairs": verdicts.pairs(runs),
        "between_models": between_models,
        "same_seed_on_two_backends": single,
        "between_backends": between_backends,
        "classes": _classes(runs),
        "pictures": _pictures(runs),
        "curves": {run.name: [float(f"{loss:.6g}") for loss in run.losses] for run in runs},
    }


def _notes(runs: list[Loaded]) -> list[str]:
    """Returns the notes that a reader must know before comparing figures."""
    notes = []
    devices = sorted({run.record.device for run in runs})
    if len(devices) > 1:
        notes.append(f"the runs were made on different devices ({'; '.join(devices)}): do not compare their times")
    for (seed,), group in loaded.grouped_by(runs, "seed").items():
        if len({run.record.dataset.fingerprint for run in group}) > 1:
            notes.append(f"the runs of seed {seed} were not all trained on the same pictures")
    if any(run.record.timings.features_s for run in runs):
        notes.append(
            "linear probes: features are computed once, before training. The seconds of training below include that; "
            "steps are of features, so that they have no images/s and no time that could be compared"
        )
    if any(run.record.probe or run.record.timings.probe_s for run in runs):
        notes.append(
            "in some runs a linear probe came first, which counts as epoch 0. The seconds of training below include "
            "it, except in runs made by earlier versions"
        )
    for (model,), group in loaded.grouped_by(runs, "model").items():
        if len(epochs := {run.record.config["epochs"] for run in group}) > 1:
            notes.append(f"the runs of {model} are of {min(epochs)} to {max(epochs)} epochs, depending on the backend")
    if any(run.record.probe and run.record.probe_end_s is None for run in runs):
        notes.append(
            "some runs were made by a version that did not record when their probe ended, so they have no time to the "
            "accuracy of the probe"
        )
    if any(not run.record.epoch_end_s for run in runs):
        notes.append(
            "some runs were made by a version that did not record when epochs ended, so they have no time to accuracy"
        )
    return notes


def _describe(run: Loaded) -> schema.Run:
    """Returns the row of a run: what it is, and every figure that is shown of it alone."""
    record = run.record
    return {
        "name": run.name,
        "model": run.model,
        "preset": record.preset,
        "family": record.family,
        "backend": record.backend,
        "seed": record.seed,
        "folder": str(run.folder),
        "command": run.command,
        "recipe": recipe_in_words(record.config),
        "epochs": record.config["epochs"],
        "pretraining": record.pretraining,
        "num_parameters": record.num_parameters,
        "gflops": _gflops(record),
        "dataset": vars(record.dataset),
        "device": record.device,
        "execution": record.execution,
        "dtype_policy": record.dtype_policy,
        "versions": record.versions,
        "best_epoch": record.best_epoch,
        "validation": vars(record.validation) if record.validation else None,
        "test": vars(record.test),
        "test_top1_interval": intervals.share_interval(run.correct),
        "timings": vars(record.timings),
        "throughput": vars(record.throughput),
        "peak_memory_gib": record.peak_memory_gib,
        "epoch_end_s": record.epoch_end_s,
        "validation_curve": run.curve,
        "accuracy_over_time": run.accuracy_over_time,
        "seconds_to": _seconds_to(run),
    }


def _gflops(record: RunRecord) -> float | None:
    row = presets.PRESETS.get(record.preset)
    return costs.count_gflops(row, record.config.get("image_size"), whole=False) if row else None


def _seconds_to(run: Loaded) -> dict[str, float | None]:
    """Returns, for each threshold, the seconds from the command to the first epoch that reached it, or `None`.

    What a probe had reached whose end was not kept has none: it was reached before the first epoch.
    """
    points, probe = run.accuracy_over_time, run.record.probe
    unknown = probe.top1_accuracy if probe and run.record.probe_end_s is None else 0.0
    return {
        f"{threshold:g}": next((end for end, accuracy in points if accuracy >= threshold and threshold > unknown), None)
        for threshold in THRESHOLDS
    }


def _spread(values) -> schema.Spread:
    values = [float(value) for value in values]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values), "deviation": deviation}


def _groups(runs: list[Loaded]) -> list[schema.Group]:
    """Returns a row a model and backend, over seeds."""
    rows = []
    for (model, backend), group in loaded.grouped_by(runs, "model", "backend").items():
        records = [run.record for run in group]
        speed, timings = [record.throughput for record in records], [record.timings for record in records]
        shares = np.mean([run.correct for run in group], axis=0)
        reached = [_seconds_to(run) for run in group]
        sees_pictures = not any(each.features_s for each in timings)
        rows.append(
            {
                "model": model,
                "backend": backend,
                "seeds": [record.seed for record in records],
                "top1": _spread(record.test.top1_accuracy for record in records),
                "top1_interval": intervals.share_interval(shares),
                "top5": _spread(record.test.top5_accuracy for record in records),
                "loss": _spread(record.test.loss for record in records),
                "calibration_error": _spread(record.test.expected_calibration_error for record in records),
                # A step on features says nothing about the cost of pictures.
                "train_images_per_second": (
                    _spread(each.train_images_per_second for each in speed) if sees_pictures else None
                ),
                "predict_images_per_second": _spread(each.predict_images_per_second for each in speed),
                "step_time_ms": _spread(each.step_time_ms for each in speed) if sees_pictures else None,
                "first_step_s": _spread(each.first_step_s for each in timings),
                "train_s": _spread(each.features_s + each.probe_s + each.train_s for each in timings),
                "total_s": _spread(each.total_s for each in timings),
                "peak_memory_gib": _spread(record.peak_memory_gib for record in records),
                "seconds_to": {
                    threshold: _spread(times[threshold] for times in reached)
                    if all(times[threshold] is not None for times in reached)
                    else None
                    for threshold in reached[0]
                },
            }
        )
    return rows


def _models(runs: list[Loaded]) -> list[schema.Model]:
    """Returns a row a model, over all its runs: what does not depend on the backend, calibration and confusion."""
    rows = []
    for (model,), group in loaded.grouped_by(runs, "model").items():
        record = group[0].record
        logits = np.concatenate([run.predictions.logits for run in group])
        labels = np.concatenate([run.predictions.labels for run in group])
        rows.append(
            {
                "model": model,
                "preset": record.preset,
                "family": record.family,
                "pretraining": record.pretraining,
                "num_parameters": record.num_parameters,
                "gflops": _gflops(record),
                "num_runs": len(group),
                "top1": _spread(run.record.test.top1_accuracy for run in group),
                "reliability": [each._asdict() for each in scoring.reliability(logits, labels)],
                "calibration_error": _spread(run.record.test.expected_calibration_error for run in group),
                "confusion": scoring.confusion_matrix(logits, labels).tolist(),
            }
        )
    return rows


def _classes(runs: list[Loaded]) -> list[schema.Class]:
    """Returns the accuracy of each class with the first two models, sorted by the first one's gain."""
    models = [model for (model,) in loaded.grouped_by(runs, "model")][:2]
    if len(models) < 2:
        return []
    labels, names = runs[0].predictions.labels, runs[0].predictions.class_names
    shares = [np.mean([run.correct for run in loaded.of_model(runs, model)], axis=0) for model in models]
    rows = []
    for label in np.unique(labels):
        first, second = (float(share[labels == label].mean()) for share in shares)
        num = int((labels == label).sum())
        row = {"class": str(names[label]), "pictures": num, "first": first, "second": second}
        rows.append({**row, "difference": first - second})
    return sorted(rows, key=lambda row: (row["difference"], row["class"]))


def _pictures(runs: list[Loaded]) -> list[schema.Picture]:
    """Returns test pictures that one of the first two models always gets right, and the other never."""
    models = [model for (model,) in loaded.grouped_by(runs, "model")][:2]
    if len(models) < 2:
        return []
    found = runs[0].predictions
    shares = [np.mean([run.correct for run in loaded.of_model(runs, model)], axis=0) for model in models]
    rows = []
    for model, own, other, loser in ((models[0], *shares, models[1]), (models[1], *shares[::-1], models[0])):
        for place in np.argsort(other - own, kind="stable")[:NUM_PICTURES]:
            if own[place] - other[place] < 1:
                break
            wrong = [int(run.predictions.logits[place].argmax()) for run in loaded.of_model(runs, loser)]
            wrong = [answer for answer in wrong if answer != found.labels[place]]
            rows.append(
                {
                    "only_right": model,
                    "picture": str(found.names[place]),
                    "class": str(found.class_names[found.labels[place]]),
                    "taken_for": str(found.class_names[max(wrong, key=wrong.count)]),
                    "share_of_runs_right": [float(share[place]) for share in shares],
                }
            )
    return rows
