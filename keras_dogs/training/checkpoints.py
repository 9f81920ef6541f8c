"""Checkpoints of a training: all that its next step depends on, in one file that is there whole or not at all."""

import json
import re
from pathlib import Path
from typing import NotRequired
from typing import TypedDict

import keras
import numpy as np

from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.errors import Damaged
from keras_dogs.errors import UserError
from keras_dogs.layers import ImageTable
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import Count
from keras_dogs.runs.records import NotNegative
from keras_dogs.runs.records import Scores
from keras_dogs.system import files
from keras_dogs.system import progress
from keras_dogs.system import reading
from keras_dogs.system import tables
from keras_dogs.training import optimizers


class State(TypedDict):
    """The part of a checkpoint that is JSON. Keys that earlier versions did not write are not required."""

    step: Count
    best_epoch: Count
    best_scores: dict[str, int | float] | None
    steps: list[dict[str, int | float]]
    history: list[dict[str, int | float]]
    train_s: NotNegative
    run: NotRequired[str]
    digest: NotRequired[str]
    best_digest: NotRequired[str | None]
    probe_scores: NotRequired[dict[str, int | float] | None]
    probe_s: NotRequired[NotNegative]
    probe_end_s: NotRequired[NotNegative | None]
    command_s: NotRequired[NotNegative]
    epoch_end_s: NotRequired[list[NotNegative]]
    step_seconds: NotRequired[list[NotNegative]]
    first_steps: NotRequired[list[Count]]


class Checkpoints:
    """The files `step-<step>-best-<epoch>.npz` of a folder, and the best weights `best-<epoch>.keras` beside them.

    A file holds the arrays of a model (weights, statistics, draw counter), its optimizer (moments, averages, gradients
    not yet applied) and its metrics; and, as JSON, the `State`: the step, the logs and the best epoch so far.

    Args:
        folder: Path.
        keep: int. How many of the newest checkpoints are kept.
        run: str. The unique ID of the run; empty if it is not known.
    """

    def __init__(self, folder: Path, keep: int = 2, run: str = ""):
        self.folder, self.keep, self.run = folder, keep, run
        self._group = devices.current().group
        self._best: tuple[int, str | None] = (-1, None)  # the epoch of the best weights, and the digest of their file

    @property
    def writes(self) -> bool:
        """Whether this process writes: the first of a training. The others need not even see the folder."""
        return self._group.is_first

    def of_head(self) -> "Checkpoints":
        """Returns the checkpoints of the head, for a run that first trains the head alone."""
        return Checkpoints(self.folder / "head", run=self.run)

    def there_is_one(self) -> bool:
        """Returns whether there is anything to go on from."""
        return bool(self._group.agree(int(self.writes and self._read() is not None)))

    def files(self) -> list[Path]:
        """Lists the checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*-best-*.npz"))

    def best_file(self, epoch: int) -> Path:
        """Returns where the model of an epoch goes when it is the best."""
        return self.folder / f"best-{epoch:04d}.keras"

    def save(self, model: keras.Model, state: State) -> Path:
        """Writes a checkpoint; deletes the oldest ones, and the best weights that no remaining checkpoint refers to.

        Args:
            model: `keras.Model`, compiled and trained for a step at least.
            state: `State`; the run's identity and the digest of the best weights are added.

        Raises:
            FloatingPointError: a weight is not finite; nothing was written.
        """
        arrays = {}
        for name, variable in _variables(model):
            arrays[name] = devices.current().read(variable)
            if name.startswith("model/") and not np.isfinite(arrays[name]).all():
                raise FloatingPointError(f"the weight {variable.path} is not finite")
        path = self.folder / _name(state)
        if not self.writes:
            return path
        if _has_best(state) and state["best_epoch"] != self._best[0]:  # read once, and not at each checkpoint
            self._best = (state["best_epoch"], artifacts.digest_of(self.best_file(state["best_epoch"])))
        state = {**state, "run": self.run, "best_digest": self._best[1]}
        with files.written_whole(path) as temporary:
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

        A damaged checkpoint is reported and renamed. All processes get what the first process read.
        """
        found = self._read() if self.writes else None
        arrays, state = found or ({}, None)
        state, arrays = self._group.from_first(state, arrays)
        return (arrays, state) if state is not None else None

    def _read(self) -> tuple[dict, State] | None:
        for path in reversed(self.files()):
            try:
                arrays = tables.read_arrays(path)
                if "state" not in arrays:
                    raise Damaged(f"{path}: damaged: it has no state")
                state = reading.parse_json(arrays.pop("state").tobytes(), State, str(path))
                self._check(path, state)
            except Damaged as error:  # anything else says nothing of the file
                progress.open_console().print(f"{error}; {self._what_is_left(path)}")
                path.replace(path.with_suffix(".damaged"))
                continue
            if state.get("run", self.run) != self.run:
                raise UserError(f"{path}: belongs to another run; move it out of this folder, then resume again")
            # Defaults for the keys that an earlier version did not write.
            unknown = {"command_s": state["train_s"], "epoch_end_s": [], "step_seconds": [], "first_steps": []}
            unknown |= {"probe_scores": None, "probe_s": 0.0, "probe_end_s": None}
            return arrays, unknown | state
        return None

    def _check(self, path: Path, state: State) -> None:
        """Refuses a state that does not match its file's name, or whose best weights are missing or were replaced."""
        name = _name(state)
        if path.name != name:
            raise Damaged(f"{path}: damaged: its state is that of {name}")
        for key in ("best_scores", "probe_scores"):
            reading.check(state.get(key), Scores | None, f"{path}: {key}")
        if _has_best(state):
            best = self.best_file(state["best_epoch"])
            digest = artifacts.digest_of(best)
            if state.get("best_digest", digest) != digest:  # earlier versions kept none
                raise Damaged(f"{best}: is not the file that {path.name} was written with")

    def _what_is_left(self, path: Path) -> str:
        left = [file for file in self.files() if file != path]
        return (
            f"going back to {left[-1].name}"
            if left
            else "no checkpoint is left: the training starts from the beginning"
        )


def restore(model: keras.Model, arrays: dict) -> None:
    """Puts the arrays of a checkpoint into a model that is built and compiled the same.

    Args:
        model: `keras.Model` whose metrics have their variables already; Keras creates these late.
        arrays: dict of str to array, from `Checkpoints.load`.

    Raises:
        UserError: the checkpoint is of a different model, or an array is not numeric.
    """
    model.optimizer.build(model.trainable_variables)
    variables = dict(_variables(model))
    strangers = sorted(variables.keys() ^ arrays.keys())
    shapes = (name for name in variables if name in arrays and tuple(variables[name].shape) != arrays[name].shape)
    kinds = (name for name in variables if name in arrays and arrays[name].dtype.kind not in "biufV")
    for name in (*strangers, *shapes, *kinds):
        raise UserError(f"the newest checkpoint is of another model ({name} differs); give --overwrite to begin again")
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


def _name(state: State) -> str:
    return f"step-{state['step']:08d}-best-{state['best_epoch']:04d}.npz"


def _has_best(state: State) -> bool:
    """Returns whether weights were kept: none are before the first epoch ends, unless a probe came first (epoch 0)."""
    return bool(state["best_epoch"] or state["best_scores"])


def _best_epoch(path: Path) -> int:
    return int(re.search(r"-best-(\d+)", path.name)[1])
