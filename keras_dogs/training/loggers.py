"""Logs training curves to TensorBoard and to Weights & Biases, if flags ask for it."""

import contextlib
import dataclasses
from pathlib import Path

import keras

from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.runs import artifacts
from keras_dogs.training.config import TrainConfig

_EVERY = 10  # steps a point


class _Logger(keras.callbacks.Callback):
    """Passes new rows of `steps.csv` and `history.csv` to a tracker.

    Args:
        write: function of a dict of numbers and the step.
        close: function of whether training failed.
        step_log: `StepLog`. Rows that are there already were written by an earlier process.
        validation: `Validation`.
    """

    def __init__(self, write, close, step_log, validation):
        super().__init__()
        self.write, self.close = write, close
        self.steps, self.epochs = step_log.rows, validation.rows
        self._written = (len(self.steps), len(self.epochs))

    def on_train_batch_end(self, batch, logs=None):
        self.write_new_rows()

    def on_epoch_end(self, epoch, logs=None):
        self.write_new_rows()

    def write_new_rows(self):
        """Writes the rows that were read since; losses are read some steps late."""
        num_steps, num_epochs = self._written
        self._written = (len(self.steps), len(self.epochs))
        for row in self.steps[num_steps:]:
            if row["step"] % _EVERY == 0:
                self.write({"train/loss": row["loss"], "train/learning_rate": row["learning_rate"]}, row["step"])
        for row in self.epochs[num_epochs:]:
            last = max(step["step"] for step in self.steps if step["epoch"] <= row["epoch"])
            self.write({f"epoch/{name}": value for name, value in row.items()}, last)


@contextlib.contextmanager
def open_loggers(config: TrainConfig, folder: Path, step_log, validation):
    """Provides a callback for each logger that the flags ask for, and closes the loggers afterwards."""
    loggers, has_failed = [], True
    try:
        if config.tensorboard:
            loggers.append(_Logger(*_tensorboard(folder), step_log, validation))
        if config.wandb:
            loggers.append(_Logger(*_wandb(config, folder), step_log, validation))
        try:
            yield loggers
        except Interrupted:  # what was read for the checkpoint is not read again
            for logger in loggers:
                logger.write_new_rows()
            raise
        has_failed = False
    finally:
        for logger in loggers:
            logger.close(has_failed)


def without_loggers(config: TrainConfig) -> TrainConfig:
    """Returns the config less its loggers: for a process that writes nothing, and for a probe that comes first."""
    return dataclasses.replace(config, tensorboard=False, wandb=None)


def check_loggers(config: TrainConfig) -> None:
    """Refuses a logger that is not installed, before anything long is begun."""
    import importlib.util

    for flag, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        if getattr(config, flag) and not importlib.util.find_spec(package):
            raise UserError(f"--{flag}: needs {package}: {install_line(flag)}")


def _tensorboard(folder: Path):
    import tensorboardX

    writer = tensorboardX.SummaryWriter(str(folder / "tensorboard"))

    def write(values, step):
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return write, lambda has_failed: writer.close()


def _wandb(config: TrainConfig, folder: Path):
    import wandb

    # With the run's own ID, a resumed run continues the curves that were begun.
    which = dict(id=artifacts.run_of(folder) or None, name=folder.name, resume="allow")
    run = wandb.init(project=config.wandb, config=config.to_plain(), dir=str(folder), **which)
    return lambda values, step: run.log(values, step=step), lambda has_failed: run.finish(exit_code=int(has_failed))
