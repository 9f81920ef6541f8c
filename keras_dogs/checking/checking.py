"""Checks a dataset and writes the findings: the work of the command `check`."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.checking import page
from keras_dogs.checking import probe
from keras_dogs.checking import schema
from keras_dogs.checking import verdicts
from keras_dogs.checking.config import CheckConfig
from keras_dogs.checking.duplicates import find_groups
from keras_dogs.checking.facts import facts_of
from keras_dogs.checking.features import features_of
from keras_dogs.checking.labels import find_suspects
from keras_dogs.checking.pool import Pool
from keras_dogs.checking.pool import look_at_all
from keras_dogs.checking.verdicts import Group
from keras_dogs.data.datasets import Dataset
from keras_dogs.data.datasets import drawn_class_names
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets import load_recorded
from keras_dogs.errors import UserError
from keras_dogs.evaluation import leaving_out
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import caches
from keras_dogs.system import files
from keras_dogs.system import network
from keras_dogs.system import ownership
from keras_dogs.system import progress
from keras_dogs.system import reading
from keras_dogs.system import terminal

EXCLUDE = "exclude.txt"
_PRESET_FOR_DRAWN_DOGS = "resnet_nano"
_LEAST_PER_CLASS = 2  # pictures that a probe needs, on average


class _Run(NamedTuple):
    folder: Path
    record: RunRecord
    predictions: Predictions


def check_dataset(config: CheckConfig) -> schema.Check:
    """Looks for leaks, duplicates, wrong labels and unusual files, and writes the folder.

    Raises:
        UserError: there is no such dataset, run or preset, the run is of another dataset, or no picture can be read.
    """
    with network.offline(config.offline), caches.use(config.cache_dir):
        run = _load_run(config.run) if config.run else None
        dataset = _load_dataset(config, run)
        if run:
            _check_run_matches(run, dataset)
        # The folder is opened first, so that one that cannot be written is reported before the work.
        with ownership.new_folder(config.output, ownership.CHECK) as folder:
            return _check(config, run, dataset, folder)


def _check(config: CheckConfig, run: _Run | None, dataset: Dataset, folder: Path) -> schema.Check:
    pool = look_at_all(dataset)
    if len(pool.unreadable) == len(pool.names):
        first = pool.names[0]
        raise UserError(f"{dataset.name}: no picture can be read ({first}: {pool.unreadable[0]}); repair them")
    members = find_groups(pool.looks, pool.grey)
    groups = verdicts.judge(pool, members)
    labels, suspects, why = _check_labels(config, dataset, pool, members)
    found: schema.Check = {
        "schema_version": schema.SCHEMA_VERSION,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "facts": facts_of(pool),
        "groups": [_group_record(pool, group) for group in groups],
        "labels": labels,
        "why_no_labels": why,
        "score": _score(run, pool, groups, suspects) if run else None,
    }
    reading.check(found, schema.Check, schema.FILE)
    found = _printable(found)
    files.write_text(folder / schema.FILE, json.dumps(found, indent=1) + "\n")
    files.write_text(folder / EXCLUDE, verdicts.exclusion_list(pool, dataset, groups, suspects))
    page.write_page(folder, page.Subject(config, pool, found, groups, suspects))
    return found


def _printable(found):
    """Returns the findings with what JSON cannot hold escaped, such as file names that are not UTF-8."""
    if isinstance(found, dict):
        return {name: _printable(value) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_printable(value) for value in found]
    return terminal.printable(found) if isinstance(found, str) else found


def _load_run(folder: Path) -> _Run:
    record = RunRecord.load(folder / artifacts.RECORD)
    return _Run(folder, record, Predictions.load(folder))


def _load_dataset(config: CheckConfig, run: _Run | None) -> Dataset:
    """Describes the dataset as the run divided it; without a run, takes no validation split from training pictures."""
    if not run:
        return load_dataset(config.dataset, config.seed, validation_fraction=0, data_dir=config.data_dir)
    data = run.record.config["data"]
    if config.dataset:
        data = {**data, "dataset": config.dataset}
    return load_recorded(data, run.record.seed, config.data_dir)


def _check_run_matches(run: _Run, dataset: Dataset) -> None:
    """Refuses a run whose classes or test pictures are not those of the dataset.

    Raises:
        UserError: the classes differ, or the dataset lacks test pictures of the run.
    """
    if tuple(map(str, run.predictions.class_names)) != dataset.class_names:
        raise UserError(f"--run {run.folder}: has other classes than {dataset.name}; give the run's own dataset")
    strangers = np.setdiff1d(run.predictions.names, np.array(dataset.test.names))
    if len(strangers):
        raise UserError(
            f"--run {run.folder}: was scored on {len(strangers):,} pictures that are not in the test split of "
            f"{dataset.name}, such as {strangers[0]}; give the run's own dataset"
        )


def _preset_for_labels(config: CheckConfig, dataset: Dataset) -> str | None:
    """Returns the preset whose features the labels are checked with, where no run is given."""
    if not (config.preset or config.run) and set(dataset.class_names) <= set(drawn_class_names()):
        return _PRESET_FOR_DRAWN_DOGS
    return config.preset


def _check_labels(config: CheckConfig, dataset: Dataset, pool: Pool, members) -> tuple:
    """Returns the findings about the labels, the suspects, and the reason where the labels were not checked."""
    preset = _preset_for_labels(config, dataset)
    if not (preset or config.run):
        return None, [], "not checked: no model was given; use --run or --preset"
    if len(pool.names) - len(pool.unreadable) < _LEAST_PER_CLASS * len(pool.class_names):
        return None, [], "not checked: there are too few pictures per class"
    features = features_of(dataset, config.run, preset)
    place = {name: index for index, name in enumerate(pool.names)}
    rows = np.array([place[name] for name in features.names])
    row_of = {int(index): row for row, index in enumerate(rows)}
    together = [[row_of[member.index] for member in group if member.index in row_of] for group in members]
    with progress.waiting("Checking labels"):
        labels = pool.labels[rows]
        probabilities = probe.held_out_probabilities(features.values, labels, [each for each in together if each])
        suspects, alike = find_suspects(probabilities, labels)
    suspects = [suspect._replace(index=int(rows[suspect.index])) for suspect in suspects]
    names = pool.class_names
    found: schema.Labels = {
        "model": preset or str(config.run),
        "num_pictures": len(rows),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "suspects": [_suspect_record(pool, suspect) for suspect in suspects],
        "alike": [
            {"classes": (names[each.first], names[each.second]), "told_apart": each.told_apart} for each in alike
        ],
    }
    return found, suspects, ""


def _suspect_record(pool: Pool, suspect) -> schema.Suspect:
    return {
        "name": pool.names[suspect.index],
        "split": pool.splits[suspect.index],
        "given": pool.label(suspect.index),
        "likely": pool.class_names[suspect.likely],
        "given_probability": suspect.given_probability,
        "likely_probability": suspect.likely_probability,
    }


def _group_record(pool: Pool, group: Group) -> schema.Group:
    members: list[schema.Member] = [
        {
            "name": pool.names[member.index],
            "split": pool.splits[member.index],
            "label": pool.label(member.index),
            "kind": member.kind,
            "correlation": member.correlation,
        }
        for member in group.members
    ]
    return {"is_leak": group.is_leak, "has_conflict": group.has_conflict, "members": members}


def _score(run: _Run, pool: Pool, groups: list[Group], suspects) -> schema.Score:
    """Compares the test score of a run with and without the pictures that were found."""
    names = run.predictions.names
    kinds = {
        "leaks": {pool.names[index] for index in verdicts.leaked(pool, groups, _seen_in_training(run.predictions))},
        "suspect labels": {pool.names[suspect.index] for suspect in suspects},
    }
    correct = scoring.is_correct(run.predictions.logits, run.predictions.labels)
    left_out = {what: np.isin(names, sorted(listed)) for what, listed in kinds.items()}
    return {
        "run": str(run.folder),
        "parts": [dataclasses.asdict(part) for part in leaving_out.parts_of(correct, left_out)],
    }


def _seen_in_training(found: Predictions) -> set[str] | None:
    """Returns the pictures that trained a run or chose its weights; `None` where an earlier version kept no names."""
    if found.trained_on is None:
        return None
    chosen_by = [] if found.validation is None else found.validation.names.tolist()
    return {*found.trained_on.tolist(), *chosen_by}
