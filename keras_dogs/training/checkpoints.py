"""Checkpoints of a training: all that its next step depends on, in one file that is there whole or not at all."""

import json
import re
from pathlib import Path

import keras
import numpy as np

from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.errors import first_line
from keras_dogs.layers import ImageTable
from keras_dogs.runs import artifacts
from keras_dogs.system import progress
from keras_dogs.training import optimizers


class Checkpoints:
    """The files `step-<step>-best-<epoch>.npz` of a folder, and the best weights `best-<epoch>.keras` beside them.

    A file holds the arrays of a model (weights, statistics, draw counter), its optimizer (moments, averages, gradients
    not yet used) and its metrics, and as JSON what Python knows: how far, the logs, the best so far.

    Args:
        folder: Path.
        keep: int. How many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep
        self._group = devices.current().group

    @property
    def writes(self) -> bool:
        """Whether this process writes: the first of a training. The others need not even see the folder."""
        return self._group.is_first

    def there_is_one(self) -> bool:
        """Returns whether there is anything to go on from."""
        return bool(self._group.agree(int(self.writes and self._read() is not None)))

    def files(self) -> list[Path]:
        """Lists the checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*-best-*.npz"))

    def best_file(self, epoch: int) -> Path:
        """Returns where the model of an epoch goes when it is the best."""
        return self.folder / f"best-{epoch:04d}.keras"

    def save(self, model: keras.Model, state: dict) -> Path:
        """Writes a checkpoint, and takes away what no checkpoint that is kept needs.

        Args:
            model: `keras.Model`, compiled and trained for a step at least.
            state: dict of what JSON can hold, with `step` and `best_epoch`.

        Raises:
            FloatingPointError: a weight is not finite; nothing was written.
        """
        arrays = {}
        for name, variable in _variables(model):
            arrays[name] = devices.current().read(variable)
            if name.startswith("model/") and not np.isfinite(arrays[name]).all():
                raise FloatingPointError(f"the weight {variable.path} is not finite")
        path = self.folder / f"step-{state['step']:08d}-best-{state['best_epoch']:04d}.npz"
        if not self.writes:
            return path
        with artifacts.written_whole(path) as temporary:
            np.savez(temporary, **arrays, state=np.frombuffer(json.dumps(state).encode(), np.uint8))
        for old in self.files()[: -self.keep]:
            old.unlink()
        needed = {self.best_file(_best_epoch(kept)) for kept in self.files()}
        for best in self.folder.glob("best-*.keras"):
            if best not in needed:
                best.unlink()
        return path

    def load(self) -> tuple[dict, dict] | None:
        """Returns the newest checkpoint that is sound: arrays by name, and the state; `None` where there is none.

        A damaged one is named and put aside. All processes have what the first one read.
        """
        found = self._read() if self.writes else None
        arrays, state = found or ({}, None)
        state, arrays = self._group.from_first(state, arrays)
        return (arrays, state) if state is not None else None

    def _read(self) -> tuple[dict, dict] | None:
        for path in reversed(self.files()):
            try:
                with np.load(path, allow_pickle=False) as saved:
                    arrays = {name: saved[name] for name in saved.files}
                state = json.loads(arrays.pop("state").tobytes())
                # Of what an earlier version did not keep, nothing is known.
                state = {
                    "command_s": state["train_s"],
                    "epoch_end_s": [],
                    "step_seconds": [],
                    "first_steps": [],
                } | state
                if state["best_epoch"] and not self.best_file(state["best_epoch"]).is_file():
                    raise ValueError(f"{self.best_file(state['best_epoch']).name} is missing")
                return arrays, state
            except (MemoryError, OSError):
                raise  # says nothing of the file
            except Exception as error:  # zipfile, zlib, json and NumPy each raise their own kinds
                progress.open_console().print(f"{path.name} is damaged ({first_line(error)}); going back one")
                path.rename(path.with_suffix(".damaged"))
        return None


def restore(model: keras.Model, arrays: dict) -> None:
    """Puts the arrays of a checkpoint into a model that is built and compiled the same.

    Args:
        model: `keras.Model`, with the variables of its metrics, which Keras makes late.
        arrays: dict of str to array, of `Checkpoints.load`.

    Raises:
        ValueError: it is not the same.
    """
    model.optimizer.build(model.trainable_variables)
    variables = dict(_variables(model))
    if variables.keys() != arrays.keys():
        raise ValueError(f"the checkpoint is of another model: {sorted(variables.keys() ^ arrays.keys())[:3]}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _variables(model: keras.Model):
    tables = {id(layer.table) for layer in keras_inside.layers_of(model) if isinstance(layer, ImageTable)}
    of_model = [variable for variable in model.variables if id(variable) not in tables]  # pictures are no state
    parts = {
        "model": of_model,
        "optimizer": optimizers.state_variables(model.optimizer),
        "metrics": model.metrics_variables,
    }
    for part, variables in parts.items():
        for number, variable in enumerate(variables):
            yield f"{part}/{number}", variable


def _best_epoch(path: Path) -> int:
    return int(re.search(r"-best-(\d+)", path.name)[1])
