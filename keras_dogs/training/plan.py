"""What a training is told, what it is of, and what it leaves beside the weights."""

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
        """64 hexadecimal digits that change with the name of any picture that could be read."""
        names = (name for part in self if part is not None for name in part.names)
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


class Plan(NamedTuple):
    """What a training is told.

    Attributes:
        config: `TrainConfig`.
        recipe: `Recipe`, complete.
        folder: Path. The run's.
        stop: `StopRequest`.
        checkpoints: `Checkpoints`.
        on_device: bool. Whether the pictures are a table on the device.
        started: float. `time.perf_counter()` when the command began.
        digest: str. Of the pictures.
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
    """What a training leaves beside the weights.

    Attributes:
        command_s_before: float. Seconds of the parts of the command that came before this process.
        features_s: float. Seconds in which the features of a frozen backbone were computed, before `train_s`.
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


class Task(NamedTuple):
    """What is trained, on what, and how it is validated.

    Attributes:
        model: `keras.Model`.
        classifier: `keras.Model`. What of it is saved.
        train: `Canvases`, or features or places in a table instead.
        predict: function of no argument to the logits of the validation split, or `None`.
        labels: int array or `None`. Of the validation split.
        examples: str. What a step is of, in words: images, or their features.
    """

    model: keras.Model
    classifier: keras.Model
    train: Canvases
    predict: object
    labels: np.ndarray | None
    examples: str = "images"
