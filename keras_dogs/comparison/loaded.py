"""Run folders -> finished runs, and which of them can be compared with each other."""

import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.comparison import plan
from keras_dogs.data.config import DataConfig
from keras_dogs.errors import UserError
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.models import presets
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import tables
from keras_dogs.training import recipes
from keras_dogs.training.config import TrainConfig


class Loaded(NamedTuple):
    """A finished run.

    Attributes:
        model: str. The preset's short name.
        record: `RunRecord`.
        predictions: `Predictions` of the test split, by name.
        losses: float array `(num_steps,)`.
        curve: list of float. Validation top-1 accuracy after each epoch.
        folder: Path.
        command: str. What makes it again.
    """

    model: str
    record: RunRecord
    predictions: Predictions
    losses: np.ndarray
    curve: list[float]
    folder: Path
    command: str

    @property
    def name(self) -> str:
        """For people, as a planned run's."""
        return f"{self.model} {self.record.backend} seed {self.record.seed}"

    @property
    def accuracy_over_time(self) -> list[tuple[float, float]]:
        """Seconds from the command to the end of each epoch, and its validation accuracy; the probe's before them.

        Epochs whose end an earlier version did not keep are missing.
        """
        ends, probe = self.record.epoch_end_s, self.record.probe
        points = list(zip(ends, self.curve[len(self.curve) - len(ends) :]))
        is_known = probe and self.record.probe_end_s is not None
        return [(self.record.probe_end_s, probe.top1_accuracy), *points] if is_known else points

    @property
    def correct(self) -> np.ndarray:
        """Which test pictures it names correctly, in the order of their names: bool `(num_pictures,)`."""
        return scoring.is_correct(self.predictions.logits, self.predictions.labels)


def load(folder: Path, command: str) -> Loaded:
    """Reads a finished run.

    Raises:
        UserError: it is none, or a flag in its record, by which models are told apart, is no plain value.
    """
    record = RunRecord.load(folder / artifacts.RECORD)
    for name, value in {**record.config["data"], **record.config}.items():
        if name in _TRAINING and not isinstance(value, str | int | float | None):
            raise UserError(f"{folder / artifacts.RECORD}: damaged: config.{name} is {value!r}")
    found = Predictions.load(folder)
    order = np.argsort(found.names)
    in_order = {name: getattr(found, name)[order] for name in ("names", "labels", "logits")}
    sorted_ = found._replace(**in_order, validation=None)
    for name in (artifacts.STEPS, artifacts.HISTORY):
        artifacts.check_belongs(folder / name)
    losses = tables.read_table(folder / artifacts.STEPS, ("loss",))["loss"]
    return Loaded(
        plan.short_name(record.preset), record, sorted_, losses, _validation_curve(folder, record), folder, command
    )


def told_apart(runs: list[Loaded]) -> list[Loaded]:
    """Gives models distinct names: the full preset if presets share a short one, and what their trainings differ in."""
    presets_of = {
        name: {run.record.preset for run in runs if run.model == name} for name in {run.model for run in runs}
    }
    named, words_of = [], _words_of(runs)
    for run in runs:
        others = [words_of[other.folder] for other in runs if other.record.preset == run.record.preset]
        name = run.model if len(presets_of[run.model]) == 1 else run.record.preset
        named.append(run._replace(model=", ".join([name, *_telling(words_of[run.folder], others)])))
    return named


# What decides the weights that a training ends with, the preset, the pictures and the seed aside. The first ones are
# what people vary.
_TRAINING = (
    *("recipe", "augmentation", "batch_size", "head", "learning_rate"),
    *(name for name in recipes.FIELDS if name not in ("augmentation", "batch_size", "learning_rate")),
    *("mixup", "cutmix", "erasing", "balanced", "views", "image_size", "position_resampling", "dtype_policy"),
    *("canvas_size", "fit"),
)
# Of records by versions that did not know a field.
_USUAL = {field.name: field.default for type_ in (TrainConfig, DataConfig) for field in dataclasses.fields(type_)}
_USUAL |= {**recipes.RECIPES["adamw"]._asdict(), "recipe": "adamw"}


def training_of(run: Loaded) -> tuple:
    """Returns what decides the weights that a training ends with; two with the same differ in their backend alone.

    The rate that a sweep has chosen is a result of the training, not a part of what was asked for.
    """
    config = {**_USUAL, **run.record.config["data"], **run.record.config}
    config |= {"learning_rate": "sweep"} if run.record.sweep else {}
    known = presets.PRESETS.get(run.record.preset)
    if known and config["image_size"] == known.image_size:
        config["image_size"] = None
    return tuple(config[name] for name in _TRAINING)


_WORDS = {
    "recipe": "{}",
    "augmentation": "{} augmentation",
    "batch_size": "batch {}",
    "learning_rate": "rate {}",
    "epochs": "{} epochs",
}
_WORDS_OF = {
    ("head", "zero"): "head of zeros",
    ("head", "imagenet"): "ImageNet head",
    ("learning_rate", "sweep"): "swept rate",
    ("balanced", True): "balanced classes",
    ("balanced", False): "classes as they are",
    ("load_weights", True): "pretrained weights",
    ("load_weights", False): "random weights",
    ("freeze_batch_norm", True): "batch norm frozen",
    ("freeze_batch_norm", False): "batch norm trained",
}


def _words_of(runs: list[Loaded]) -> dict[Path, tuple[str, ...]]:
    """Words each part of each training, so that those which two differ in can be added to their names."""
    found = {}
    for group in grouped_by(runs, "preset").values():
        # A budget of time gives each backend epochs of its own: these tell no models apart.
        of_backends = grouped_by(group, "backend").values()
        is_telling = any(len({run.record.config["epochs"] for run in each}) > 1 for each in of_backends)
        for run in group:
            parts = zip(_TRAINING, training_of(run))
            found[run.folder] = tuple(_part(*part) for part in parts if part[0] != "epochs" or is_telling)
    return found


def _part(name: str, value) -> str:
    if (name, value) in _WORDS_OF:
        return _WORDS_OF[name, value]
    words = name.replace("_", " ")
    if value is None:
        return f"default {words}"
    if isinstance(value, bool):
        return words if value else f"no {words}"
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)
    return _WORDS.get(name, f"{words} {{}}").format(shown)


def _telling(recipe: tuple[str, ...], others: list[tuple[str, ...]]) -> list[str]:
    """Returns the first parts of a recipe that tell it from all others, less those that tell it from none."""
    parts = []
    for place, part in enumerate(recipe):
        alike = [other for other in others if other[place] == part]
        if len(alike) < len(others):
            parts.append(part)
        others = alike
    return parts


def without_doubles(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Returns the first of each model, backend and seed, and the others."""
    first = {}
    for run in runs:
        first.setdefault(run.name, run)
    return list(first.values()), [run for run in runs if first[run.name] is not run]


def on_one_test_set(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Separates the runs that were scored on the most common set of test pictures from the others."""
    return _as_most(runs, [_digest(run) for run in runs])


def on_one_pool(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Separates the runs that were trained and validated on the most common set of pictures from the others."""
    datasets = [run.record.dataset for run in runs]
    pools = [dataset.pool for dataset in datasets]
    if not all(pools):  # earlier versions kept the number alone
        pools = [dataset.num_train + dataset.num_validation for dataset in datasets]
    return _as_most(runs, pools)


def without_leaks(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Parts the runs that were trained on no test picture, as far as they say, from the others."""
    return _parted(runs, [not run.predictions.were_trained_on(run.predictions.names).any() for run in runs])


def _as_most(runs: list[Loaded], values: list) -> tuple[list[Loaded], list[Loaded]]:
    """Parts the runs that have the most frequent value from the others."""
    usual = max(values, key=values.count, default=None)
    return _parted(runs, [value == usual for value in values])


def _parted(runs: list[Loaded], are_kept: list[bool]) -> tuple[list[Loaded], list[Loaded]]:
    return list(itertools.compress(runs, are_kept)), [run for run, is_kept in zip(runs, are_kept) if not is_kept]


def _digest(run: Loaded) -> str:
    classes = [run.predictions.class_names[label] for label in run.predictions.labels]
    return hashlib.sha256(
        "\n".join([*run.predictions.names, *classes, *run.predictions.class_names]).encode(errors="surrogateescape")
    ).hexdigest()


def _validation_curve(folder: Path, record: RunRecord) -> list[float]:
    """Returns top-1 accuracy after each epoch; empty without a validation split.

    Raises:
        UserError: the history is missing, damaged, or of another number of epochs than the record.
    """
    if record.validation is None:
        return []
    file = folder / artifacts.HISTORY
    curve = tables.read_table(file, ("validation_top1_accuracy",))["validation_top1_accuracy"]
    num_epochs = len(record.epoch_end_s)  # earlier versions did not keep when epochs ended, or not of all
    if len(curve) < num_epochs or not np.all((curve >= 0) & (curve <= 1)):
        raise UserError(f"{file}: does not belong to the record beside it, which is of {num_epochs} epochs")
    return curve.tolist()


def grouped_by(runs: list[Loaded], *names: str) -> dict[tuple, list[Loaded]]:
    """Groups runs by attributes of theirs or of their records."""
    groups: dict[tuple, list[Loaded]] = {}
    for run in runs:
        key = tuple(run.model if name == "model" else getattr(run.record, name) for name in names)
        groups.setdefault(key, []).append(run)
    return groups


def of_model(runs: list[Loaded], model: str) -> list[Loaded]:
    """Returns the runs of one model."""
    return [run for run in runs if run.model == model]
