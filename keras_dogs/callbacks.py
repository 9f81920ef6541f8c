"""What happens beside the steps of `fit`: measuring, validating, keeping the best weights, showing progress."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops
from rich.progress import TextColumn

from keras_dogs import progress
from keras_dogs.errors import UserError
from keras_dogs.models import save_classifier
from keras_dogs.records import Scores
from keras_dogs.scoring import score_logits


class StepLog(keras.callbacks.Callback):
    """A row a step for `steps.csv`, and the clock: when each step began and ended.

    Args:
        schedule: function of the step, from 0, to the learning rate.
    """

    def __init__(self, schedule: Callable[[int], float]):
        super().__init__()
        self.schedule = schedule
        self.rows: list[dict] = []
        self.step_seconds: list[float] = []
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        loss, step = float(logs["step_loss"]), len(self.rows)
        self.step_seconds.append(time.perf_counter() - self._began)
        learning_rate = float(ops.convert_to_numpy(self.schedule(step)))
        if not math.isfinite(loss):
            raise _diverged(step + 1, learning_rate)
        self.rows.append({"step": step + 1, "epoch": self._epoch, "loss": loss, "learning_rate": learning_rate})

    def steady_step_seconds(self) -> float:
        """The median step, compilation left out."""
        return float(np.median(self.step_seconds[1:] or self.step_seconds))

    def steady_steps_per_second(self) -> float:
        """Steps a second over all steps but the first."""
        steady = self.step_seconds[1:] or self.step_seconds
        return len(steady) / sum(steady)


class Validation(keras.callbacks.Callback):
    """Scores the validation split after each epoch, keeps a row for `history.csv`, and saves the best model.

    Best is the greatest top-1 accuracy; of equal ones, the least loss. Without a validation split the last epoch is.

    Args:
        predict: function of no argument to logits `(num_pictures, num_classes)`, or `None` without a validation split.
        labels: int array, or `None`.
        best_file: Path. Where the best model goes, `.keras`.
        last_file: Path or `None`. Where the model goes after each epoch.
        step_log: `StepLog`, which runs before this one.
    """

    def __init__(self, predict, labels, best_file: Path, last_file: Path | None, step_log: StepLog):
        super().__init__()
        self.predict, self.labels = predict, labels
        self.best_file, self.last_file = best_file, last_file
        self.step_log = step_log
        self.rows: list[dict] = []
        self.best_epoch = 0
        self.best_scores: Scores | None = None

    def on_epoch_end(self, epoch, logs=None):
        logits = self.predict() if self.predict else None
        if logits is not None and not np.isfinite(logits).all():
            last = self.step_log.rows[-1]
            raise _diverged(last["step"], last["learning_rate"])
        scores = score_logits(logits, self.labels) if logits is not None else None
        losses = [row["loss"] for row in self.step_log.rows if row["epoch"] == epoch + 1]
        row = {"epoch": epoch + 1, "train_loss": float(np.mean(losses)), "train_accuracy": float(logs["accuracy"])}
        if scores:
            row |= {"validation_loss": scores.loss, "validation_top1_accuracy": scores.top1_accuracy}
        self.rows.append(row)
        if self.last_file:
            save_classifier(self.model, self.last_file)
        if scores is None or self.best_scores is None or _rank(scores) > _rank(self.best_scores):
            self.best_epoch, self.best_scores = epoch + 1, scores
            save_classifier(self.model, self.best_file)


def _diverged(step: int, learning_rate: float) -> UserError:
    return UserError(
        f"the loss is not finite at step {step} (learning rate {learning_rate:.3g}); nothing was written: "
        "lower --learning-rate, or use --dtype-policy float32"
    )


def _rank(scores: Scores):
    return scores.top1_accuracy, -scores.loss


class TrainingProgress(keras.callbacks.Callback):
    """Epoch, step, loss, pictures a second and time left; after each epoch a line that stays.

    Args:
        steps: int. Steps in the whole training.
        batch_size: int.
        validation: `Validation`, which runs before this one, as its `StepLog` does.
    """

    def __init__(self, steps: int, batch_size: int, validation: Validation):
        super().__init__()
        self.steps, self.batch_size, self.validation = steps, batch_size, validation
        self.step_seconds = validation.step_log.step_seconds
        self.console = progress.open_console()
        self.bar = progress.open_bar(self.console, TextColumn("{task.fields[status]}"))

    def on_train_begin(self, logs=None):
        self._last_line = time.perf_counter()
        if self.console.is_terminal:
            self.bar.start()
            self._task = self.bar.add_task("Training", total=self.steps, status="compiling")

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._first_step = epoch + 1, len(self.step_seconds)

    def on_train_batch_end(self, batch, logs=None):
        done, now = len(self.step_seconds), time.perf_counter()
        epoch = f"{self._epoch}/{self.params['epochs']}"
        status = f"loss {float(logs['loss']):.3f}  {self._rate():.0f} images/s"
        if self.console.is_terminal:
            self.bar.update(self._task, completed=done, description=f"epoch {epoch}", status=status)
        elif now - self._last_line > progress.SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self.steps - done) * self.batch_size / self._rate()
            self.console.print(f"epoch {epoch}  step {done}/{self.steps}  {status}  {left:.0f} s left")

    def on_epoch_end(self, epoch, logs=None):
        row = self.validation.rows[-1]
        line = f"epoch {epoch + 1:>3}/{self.params['epochs']}  train loss {row['train_loss']:.3f}"
        if "validation_loss" in row:
            line += f"  validation loss {row['validation_loss']:.3f} top-1 {row['validation_top1_accuracy']:.1%}"
        best = "  best so far" if self.validation.best_epoch == epoch + 1 and "validation_loss" in row else ""
        self.console.print(f"{line}  {self._rate():.0f} images/s{best}")
        self._last_line = time.perf_counter()

    def _rate(self) -> float:
        """Pictures a second in the steps of this epoch so far."""
        seconds = self.step_seconds[self._first_step :]
        return len(seconds) * self.batch_size / sum(seconds)

    def stop(self):
        """Takes the bar off the terminal, whatever ended the training."""
        if self.bar.live.is_started:
            self.bar.stop()
