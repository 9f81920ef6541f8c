"""An exported folder that answers, opened in its own runtime: what `predict` and `evaluate` take like a run."""

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.exporting import digests
from keras_dogs.exporting.formats import FORMATS
from keras_dogs.exporting.formats import require
from keras_dogs.runs import exports
from keras_dogs.runs.records import Calibration


class Exported(NamedTuple):
    """An exported model.

    Attributes:
        facts: dict. What its `export.json` says.
        run: function of canvases, uint8 `(batch, rows, columns, 3)`, to logits and probabilities.
    """

    facts: exports.Export
    run: Callable

    @property
    def canvas(self) -> dict:
        """How files become canvases: arguments of `to_canvas`."""
        canvas = self.facts["canvas"]
        size = canvas["size"]
        return {**canvas, "size": tuple(size) if isinstance(size, list) else size}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return tuple(self.facts["class_names"])

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return len(self.facts["class_names"])

    @property
    def calibration(self) -> Calibration:
        """What validation says of its answers; of exports of earlier versions the temperature alone."""
        why = self.facts.get("why_no_temperature", "")
        return self.facts.get("calibration") or Calibration(0, self.facts["temperature"], why)

    def ask(self, canvases: np.ndarray) -> np.ndarray:
        """Returns the logits of a batch of canvases, `(batch, num_classes)`."""
        return self.run(canvases)[0]

    def logits(self, canvases, batch_size: int, on_batch: Callable = lambda: None) -> np.ndarray:
        """Returns the logits of any number of canvases, `(num_pictures, num_classes)`."""
        parts = []
        for number in range(math.ceil(len(canvases) / batch_size)):
            batch = canvases[number * batch_size : (number + 1) * batch_size]
            parts.append(self.run(np.ascontiguousarray(batch))[0])
            on_batch()
        return np.concatenate(parts)


def read_library_folder(folder: Path) -> exports.Export:
    """Reads what a folder for another library says of itself, after its files were found to be those that were checked.

    Raises:
        UserError: it is damaged, a file is another one, or it is for no library.
    """
    facts = exports.read(folder / exports.FILE)
    row = FORMATS.get(facts["format"])
    if row is None or not row.is_library:
        raise UserError(f"{folder}: for {facts['format']}; only what is written for a library can be pushed")
    digests.check(folder, row, facts.get("digests", {}))
    return facts


def open_exported(folder: Path) -> Exported:
    """Opens an exported folder, after its files were found to be those that were checked.

    Raises:
        UserError: `export.json` is damaged, a file is another one, or the runtime is not installed or fails.
    """
    facts = exports.read(folder / exports.FILE)
    if facts["format"] not in FORMATS:
        raise UserError(f"{folder / exports.FILE}: damaged: format is none of {', '.join(FORMATS)}")
    row = FORMATS[facts["format"]]
    if row.is_library:
        raise UserError(
            f"{folder}: written for {row.name}, which answers with it (its README.md says how); give the run itself, "
            "or one exported to a format such as onnx"
        )
    require(str(folder), row, row.reading)
    digests.check(folder, row, facts.get("digests", {}))
    sides = facts["canvas"]["size"]
    if facts["input"].get("shape", [])[1:3] != (sides if isinstance(sides, list) else [sides, sides]):
        raise UserError(f"{folder / exports.FILE}: damaged: canvas.size is not that of input.shape")
    if "keras" in row.reading:
        from keras_dogs import backends

        backends.load()
    try:
        runtime = importlib.import_module(f"keras_dogs.exporting.runtimes.{row.name}")
        run, class_names = runtime.open_model(folder)
    except Exception as error:  # each runtime has kinds of its own
        raise UserError(
            f"{folder / row.file}: cannot be opened ({first_line(error)}); remove this folder, and export the run again"
        ) from error
    if list(class_names) != facts["class_names"]:
        raise UserError(
            f"{folder / exports.FILE}: its class names differ from those in {row.file}; export the run again"
        )
    return Exported(facts, run)
