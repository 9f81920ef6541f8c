"""A model that is served: a run's classifier or an exported one, and what is told of it."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np

from keras_dogs.data.datasets import display_name
from keras_dogs.data.datasets.opening import sides_of
from keras_dogs.evaluation.calibration import calibration_of
from keras_dogs.evaluation.inference import AnswerSettings
from keras_dogs.evaluation.inference import class_names_of
from keras_dogs.evaluation.inference import logits_by
from keras_dogs.models import presets
from keras_dogs.runs import artifacts
from keras_dogs.runs.exports import is_exported
from keras_dogs.runs.records import Calibration
from keras_dogs.runs.records import RunRecord

# Formats whose runtime takes batches of any size as they come; others compile, or prepare, for each size.
_ANY_BATCH = ("onnx", "torch", "openvino")


class Served(NamedTuple):
    """A model that answers.

    Attributes:
        name: str. In addresses.
        class_names: tuple of str.
        canvas: dict. How files become canvases: arguments of `to_canvas`.
        calibration: `Calibration`.
        ask: function of uint8 canvases `(batch, rows, columns, 3)` to logits `(batch, num_classes)`.
        prepare: function of canvases: compiles or traces the model for batches of that size.
        explain: function of a canvas to `evaluation.explanation.Explanation`, or `None` where there is no such.
        any_batch: bool. Whether a batch of a size that it has not seen costs nothing.
        facts: dict of str to str. What the page and `/metadata` tell of it.
    """

    name: str
    class_names: tuple[str, ...]
    canvas: dict
    calibration: Calibration
    ask: Callable
    prepare: Callable
    explain: Callable | None
    any_batch: bool
    facts: dict[str, Any]

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of a canvas."""
        return (*sides_of(self.canvas["size"]), 3)

    def answering(self, top_k: int, coverage: float | None) -> AnswerSettings:
        """Returns how logits become answers."""
        return AnswerSettings(self.class_names, self.calibration, top_k, coverage)

    def to_plain(self) -> dict:
        """Returns what `/metadata` says."""
        calibration = self.calibration
        return {
            "name": self.name,
            **self.facts,
            "classes": [{"name": name, "label": display_name(name)} for name in self.class_names],
            "canvas": self.canvas,
            "temperature": calibration.temperature,
            "coverages": [0.5 + place / 100 for place in range(len(calibration.set_thresholds))],
            "knows_unfamiliar": bool(calibration.strangeness_percentiles),
            "explains": self.explain is not None,
        }


def open_all(runs: tuple[Path, ...]) -> list[Served]:
    """Opens the models, each under a name of its own.

    Raises:
        UserError: one is no run or exported folder, is damaged, or its runtime is not installed.
    """
    names: list[str] = []
    for run in runs:
        stem = _stem_of(run.resolve())
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([stem], numbered) if name not in names))
    return [_open(run, name) for run, name in zip(runs, names)]


def _stem_of(run: Path) -> str:
    """Returns what a model is called: `mine` for `runs/mine`, `mine-onnx` for `runs/mine/exports/onnx`."""
    if run.suffix == ".keras":
        return run.parent.name if run.name == artifacts.MODEL else run.stem
    is_of_run = run.parent.name == "exports" and artifacts.model_of(run.parent.parent)
    return f"{run.parent.parent.name}-{run.name}" if is_of_run else run.name


def _open(run: Path, name: str) -> Served:
    return _open_export(run, name) if is_exported(run) else _open_run(run, name)


def _open_export(run: Path, name: str) -> Served:
    from keras_dogs.exporting.exported import open_exported

    exported = open_exported(run)
    facts = {key: exported.facts[key] for key in ("family", "format", "quantization")}
    facts["preset"] = presets.short_name(exported.facts["preset"])  # where its file lay is nobody's business
    return Served(
        name,
        exported.class_names,
        exported.canvas,
        exported.calibration,
        exported.ask,
        exported.ask,
        None,
        exported.facts["format"] in _ANY_BATCH,
        facts,
    )


def _open_run(run: Path, name: str) -> Served:
    from keras_dogs import backends
    from keras_dogs.system import caches

    model, calibration = artifacts.find_model(run), calibration_of(run)
    backends.load()
    from keras_dogs.evaluation import explanation
    from keras_dogs.models import families
    from keras_dogs.models.builders import load_classifier

    backends.keep_compiled(caches.folder("compiled"))
    classifier = load_classifier(model)
    ask = logits_by(classifier)

    def prepare(canvases: np.ndarray) -> None:
        backends.settle(lambda: ask(canvases))

    def explain(canvas: np.ndarray):
        return explanation.explain_canvas(classifier, canvas, calibration.temperature)

    can_explain = families.family(classifier.family).explanation != "none"
    facts = {"family": classifier.family, "format": "run", "backend": backends.name()}
    record = model.parent / artifacts.RECORD
    if record.is_file() and model.name == artifacts.MODEL:
        found = RunRecord.load(record)
        facts |= {
            "preset": presets.short_name(found.preset),
            "test_top1_accuracy": found.test and found.test.top1_accuracy,
        }
    return Served(
        name,
        tuple(class_names_of(classifier)),
        classifier.canvas,
        calibration,
        ask,
        prepare,
        explain if can_explain else None,
        False,
        facts,
    )
