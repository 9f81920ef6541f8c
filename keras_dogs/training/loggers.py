"""Logs training curves to TensorBoard and to Weights & Biases, if flags ask for it."""

import contextlib
from pathlib import Path

import keras

from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.runs import artifacts
from keras_dogs.training.config import TrainConfig

_EVERY = 10  # steps a point


class _Logger(keras.callbacks.Callback):
    """Passes the rows of `steps.csv` and `history.csv` to a function of a dict of numbers and the step.

    Attributes:
        close: function. To be called when training has ended, however it did.
    """

    def __init__(self, write, close, step_log, validation):
        super().__init__()
        self.write, self.close = write, close
        self.step_log, self.validation = step_log, validation

    def on_train_begin(self, logs=None):
        self._written = len(self.step_log.rows)

    def on_train_batch_end(self, batch, logs=None):
        self._write_rows()

    def _write_rows(self):
        """Writes the rows that were read since; losses are read some steps late."""
        for row in self.step_log.rows[self._written :]:
            if row["step"] % _EVERY == 0:
                self.write({"train/loss": row["loss"], "train/learning_rate": row["learning_rate"]}, row["step"])
        self._written = len(self.step_log.rows)

    def on_epoch_end(self, epoch, logs=None):
        self._write_rows()
        row = self.validation.rows[-1]
        self.write({f"epoch/{name}": value for name, value in row.items()}, self.step_log.rows[-1]["step"])


@contextlib.contextmanager
def open_loggers(config: TrainConfig, folder: Path, step_log, validation):
    """Provides a callback for each logger that the flags ask for, and closes the loggers afterwards."""
    with contextlib.ExitStack() as stack:
        loggers = []
        if config.tensorboard:
            loggers.append(_Logger(*_tensorboard(folder), step_log, validation))
        if config.wandb:
            loggers.append(_Logger(*_wandb(config, folder), step_log, validation))
        for logger in loggers:
            stack.callback(logger.close)
        yield loggers


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

    return write, writer.close


def _wandb(config: TrainConfig, folder: Path):
    import wandb

    # With the run's own ID, a resumed run continues the curves that were begun.
    which = dict(id=artifacts.run_of(folder) or None, name=folder.name, resume="allow")
    run = wandb.init(project=config.wandb, config=config.to_plain(), dir=str(folder), **which)
    return lambda values, step: run.log(values, step=step), run.finish
