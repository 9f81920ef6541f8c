"""Records that the parts of a training run exchange: its pictures, plan and task, and what it returns."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.system import terminal
from keras_dogs.training.callbacks import StepLog
from keras_dogs.training.callbacks import Validation
from keras_dogs.training.checkpoints import Checkpoints
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.recipes import Recipe
from keras_dogs.training.stopping import StopRequest


class Pictures(NamedTuple):
    """The decoded dataset. `validation` is `None` where there is no such split."""

    train: Canvases
    validation: Canvases | None
    test: Canvases

    @property
    def unreadable(self) -> list[str]:
        """`"name: reason"` of every picture that was left out."""
        decoded = (canvases for canvases in self if canvases is not None)
        return [terminal.printable(f"{name}: {reason}") for canvases in decoded for name, reason in canvases.unreadable]

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of the names of all readable pictures, in hexadecimal."""
        names = (name for part in self if part is not None for name in part.names)
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


class Plan(NamedTuple):
    """The settings of a training run.

    Attributes:
        config: `TrainConfig`.
        recipe: `Recipe`, complete.
        folder: Path. The run folder.
        stop: `StopRequest`.
        checkpoints: `Checkpoints`.
        on_device: bool. Whether the pictures are stored as a table on the device.
        started: float. `time.perf_counter()` when the command began.
        digest: str. `Pictures.digest`.
    """

    config: TrainConfig
    recipe: Recipe
    folder: Path
    stop: StopRequest
    checkpoints: Checkpoints
    on_device: bool
    started: float
    digest: str


class Fitted(NamedTuple):
    """What a training run returns besides the weights.

    Attributes:
        model: `keras.Model`. The trained one.
        step_log: `StepLog`. Loss and rate of each step.
        validation: `Validation`. Scores of each epoch, and which was the best.
        first_step_s: float. Seconds of the first step, compilation included.
        train_s: float. Seconds of all epochs, validation included.
        step_size: int. Pictures per step.
        epoch_end_s: list of float. Seconds from the start of the command to the end of each epoch.
        command_s_before: float. Seconds that the command ran before this process: of a run that was resumed.
        features_s: float. Seconds spent computing the features of a frozen backbone; not part of `train_s`.
        probe_s: float. Seconds of a probe that was trained first, features included; not part of `train_s`.
        probe_end_s: float or `None`. Seconds from the start of the command to the end of that probe.
    """

    model: keras.Model
    step_log: StepLog
    validation: Validation
    first_step_s: float
    train_s: float
    step_size: int
    epoch_end_s: list[float]
    command_s_before: float
    features_s: float = 0.0
    probe_s: float = 0.0
    probe_end_s: float | None = None


class Task(NamedTuple):
    """What is trained, on which data, and how it is validated.

    Attributes:
        model: `keras.Model`. What `fit` is called on.
        classifier: `keras.Model`. What is saved; it shares the weights of `model`.
        train: `Canvases`, or an object like it that holds features, or rows of a table.
        predict: function or `None`. Takes no argument, and returns the logits of the validation split.
        labels: int array or `None`. The labels of the validation split.
        examples: str. What a step consumes: `"images"` or `"features"`.
    """

    model: keras.Model
    classifier: keras.Model
    train: Canvases
    predict: object
    labels: np.ndarray | None
    examples: str = "images"
