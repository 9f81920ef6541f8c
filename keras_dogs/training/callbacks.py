"""Callbacks that run during `fit`: they measure, validate, keep the best weights and show progress."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops
from rich.progress import TextColumn

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.evaluation.scoring import score_logits
from keras_dogs.models.builders import save_classifier
from keras_dogs.runs.records import Scores
from keras_dogs.system import files
from keras_dogs.system import progress
from keras_dogs.training.optimizers import averaged


class LazyCallbacks(keras.callbacks.CallbackList):
    """Passes a step's logs to callbacks as tensors; Keras' own list converts them to numbers first, which blocks."""

    def _on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class StepLog(keras.callbacks.Callback):
    """Records one row per step for `steps.csv`, and measures how long steps take.

    Losses are read some steps late, so that neither the accelerator nor Python waits for the other after each step.
    Time is measured per group of steps, from one reading to the next, and includes all that happens between steps.

    Args:
        schedule: function from step numbers (from 0) to learning rates.
        digest_of: function from a step's index since the epoch was begun or resumed (from 0) to a digest of its batch.
    """

    # Losses are read after this many steps or seconds, whichever comes first; a slow step is read at once.
    STEPS_AHEAD = 20
    SECONDS_AHEAD = 0.5

    def __init__(self, schedule: Callable, digest_of: Callable[[int], int]):
        super().__init__()
        self.schedule, self.digest_of = schedule, digest_of
        self.rows: list[dict] = []
        self.step_seconds: list[float] = []
        self.first_steps: list[int] = []  # steps that compile: the first of each process, and those traced by PyTorch
        self._unread: list = []
        self._epoch, self._is_first = 0, True

    @property
    def num_steps(self) -> int:
        """Steps that were taken, read or not."""
        return len(self.rows) + len(self._unread)

    def on_train_begin(self, logs=None):
        self._is_first = True

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._read_at = epoch + 1, time.perf_counter()
        self._num_traced = backends.num_traces(self.model)  # validation may have made one

    def on_train_batch_end(self, batch, logs=None):
        self._unread.append((logs["step_loss"], self.digest_of(batch)))
        seconds = time.perf_counter() - self._read_at
        if self._is_first or len(self._unread) >= self.STEPS_AHEAD or seconds >= self.SECONDS_AHEAD:
            self.read()

    def on_epoch_end(self, epoch, logs=None):
        self.read()

    def read(self) -> None:
        """Waits for the steps that were taken, and notes them.

        Raises:
            FloatingPointError: a loss is not finite; its row is the last.
        """
        losses, first = [float(loss) for loss, _ in self._unread], len(self.rows)
        batches = [digest for _, digest in self._unread]
        self._unread.clear()
        # Always the same number of steps: for another number, JAX would compile each operation again (60 ms in all).
        rates = ops.convert_to_numpy(self.schedule(first + np.arange(self.STEPS_AHEAD))) if losses else ()
        now = time.perf_counter()
        num_traced = backends.num_traces(self.model)
        if losses and (self._is_first or num_traced > self._num_traced):  # the first is read alone
            self.first_steps += range(len(self.step_seconds), len(self.step_seconds) + len(losses))
            self._is_first, self._num_traced = False, num_traced
        self.step_seconds += [(now - self._read_at) / len(losses)] * len(losses) if losses else []
        self._read_at = now
        for step, (loss, rate, batch) in enumerate(zip(losses, rates, batches), first + 1):
            row = {"step": step, "epoch": self._epoch, "loss": loss, "learning_rate": float(rate), "batch": batch}
            self.rows.append(row)
            if not math.isfinite(loss):
                raise FloatingPointError("the loss is not finite")

    def steady_step_seconds(self) -> float:
        """Returns the median duration of a step, leaving out the steps that compile."""
        return float(np.median(self._steady() or [0.0]))

    def steady_steps_per_second(self) -> float:
        """Returns steps a second over all steps but those that compile."""
        steady = self._steady()
        return len(steady) / sum(steady) if steady else 0.0

    def _steady(self) -> list[float]:
        first = set(self.first_steps)
        steady = [seconds for step, seconds in enumerate(self.step_seconds) if step not in first]
        return steady or self.step_seconds


class Validation(keras.callbacks.Callback):
    """Scores the validation split after each epoch, keeps a row for `history.csv`, and saves the best model.

    The best model has the highest top-1 accuracy or, if equal, the lowest loss; without a validation split, the last
    epoch's is the best. If the optimizer keeps averages of the weights, these are scored and saved. A probe that was
    trained first counts as epoch 0: it is kept unless a later epoch is better.

    Args:
        classifier: `keras.Model` that is saved: the trained model itself, or that model without its table of pictures.
        predict: function of no argument to logits `(num_pictures, num_classes)`, or `None` without a validation split.
        labels: int array, or `None`.
        best_file: function from an epoch (0 is the probe) to the path where its model is saved if it is the best.
        step_log: `StepLog`, which runs before this one.
        recipe: `Recipe`. Its `patience`, and whether a probe came first.
    """

    def __init__(self, classifier, predict, labels, best_file: Callable[[int], Path], step_log: StepLog, recipe):
        super().__init__()
        self.classifier, self.predict, self.labels = classifier, predict, labels
        self.best_file, self.recipe = best_file, recipe
        self.step_log = step_log
        self.rows: list[dict] = []
        self.best_epoch = 0
        self.best_scores: Scores | None = None
        self.probe_scores: Scores | None = None

    def on_train_begin(self, logs=None):
        if self.recipe.probe_first and self.predict and not self.step_log.rows:
            self.probe_scores = self._take(0)  # nothing is averaged yet

    def on_epoch_end(self, epoch, logs=None):
        share_statistics(self.model)
        with averaged(self.model):
            scores = self._take(epoch + 1)
        losses = [row["loss"] for row in self.step_log.rows if row["epoch"] == epoch + 1]
        row = {"epoch": epoch + 1, "train_loss": float(np.mean(losses)), "train_accuracy": float(logs["accuracy"])}
        if scores:
            row |= {"validation_loss": scores.loss, "validation_top1_accuracy": scores.top1_accuracy}
        self.rows.append(row)
        if self.is_patience_over():
            self.model.stop_training = True

    def is_patience_over(self) -> bool:
        """Returns whether the last epochs brought nothing better."""
        patience = self.recipe.patience
        return bool(patience and self.rows and self.rows[-1]["epoch"] - self.best_epoch >= patience)

    def _take(self, epoch: int) -> Scores | None:
        """Scores the weights as they are after an epoch, and saves them if no others were better."""
        scores = self._score()
        if scores is None or self.best_scores is None or scores.rank > self.best_scores.rank:
            self.best_epoch, self.best_scores = epoch, scores
            if devices.current().group.is_first:
                with files.written_whole(self.best_file(epoch)) as path:
                    save_classifier(self.classifier, path)
        return scores

    def _score(self) -> Scores | None:
        if self.predict is None:
            return None
        logits = self.predict()
        if not np.isfinite(logits).all():
            raise FloatingPointError("a validation logit is not finite")
        return score_logits(logits, self.labels)


def share_statistics(model: keras.Model) -> None:
    """Replaces the statistics of batch norms by their mean over all devices, if each device has its own."""
    engine = devices.current()
    if engine.synchronised:
        return
    for layer in keras_inside.layers_of(model):
        for variable in (
            (layer.moving_mean, layer.moving_variance) if isinstance(layer, keras.layers.BatchNormalization) else ()
        ):
            here = np.stack(engine.local_values(variable))
            variable.assign(np.concatenate(engine.group.gather(here)).mean(axis=0))


class TrainingProgress(keras.callbacks.Callback):
    """Shows epoch, step, loss, images (or features) per second and the time left; prints a line after each epoch.

    When training on features, whose epochs take less than a second, it prints about ten lines in all.

    Args:
        steps: int. Steps in the whole training.
        batch_size: int.
        validation: `Validation`, which runs before this one, as its `StepLog` does.
        examples: str. What a batch is of, in words.
        epochs: int. Epochs in the whole training.
    """

    _NUM_LOSSES = 20  # of which the mean is shown
    _LINES = 10  # of epochs on features

    def __init__(self, steps: int, batch_size: int, validation: Validation, examples: str, epochs: int):
        super().__init__()
        self.epochs = epochs
        self.steps, self.batch_size, self.validation, self.examples = steps, batch_size, validation, examples
        self.step_log = validation.step_log
        self.epochs_a_line = max(1, epochs // self._LINES) if examples == "features" else 1
        self.console = progress.open_console()
        self.bar = progress.open_bar(self.console, TextColumn("{task.fields[status]}"))

    def on_train_begin(self, logs=None):
        self._last_line = time.perf_counter()
        if self.console.is_terminal and not self.bar.live.is_started:
            self.bar.start()
            self._task = self.bar.add_task("Training", total=self.steps, status="compiling")
        if self.validation.best_scores and not self.step_log.rows:
            scores, head = self.validation.best_scores, f"epoch {0:>3}/{self.epochs}  the head alone"
            self.console.print(f"{head}  validation loss {scores.loss:.3f} top-1 {scores.top1_accuracy:.1%}")

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._first_step = epoch + 1, len(self.step_log.step_seconds)
        self._shown = len(self.step_log.rows)

    def on_train_batch_end(self, batch, logs=None):
        done, now = len(self.step_log.rows), time.perf_counter()
        if done == self._shown:
            return  # nothing new was read
        status = self._show(done)
        if not self.console.is_terminal and now - self._last_line > progress.SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self.steps - done) * self.batch_size / self._rate()
            epoch = f"epoch {self._epoch}/{self.epochs}"
            self.console.print(f"{epoch}  step {done}/{self.steps}  {status}  {left:.0f} s left")

    def _show(self, done: int) -> str:
        """Moves the bar to the steps that are done, and returns what it says beside them."""
        self._shown = done
        losses = [row["loss"] for row in self.step_log.rows[-self._NUM_LOSSES :]]
        status = f"loss {np.mean(losses):.3f}  {self._rate():.0f} {self.examples}/s"
        if self.console.is_terminal:
            description = f"epoch {self._epoch}/{self.epochs}"
            self.bar.update(self._task, completed=done, description=description, status=status)
        return status

    def on_epoch_end(self, epoch, logs=None):
        self._show(len(self.step_log.rows))  # an epoch may be too short for any other reading
        if (epoch + 1) % self.epochs_a_line and epoch + 1 < self.epochs:
            return
        row = self.validation.rows[-1]
        line = f"epoch {epoch + 1:>3}/{self.epochs}  train loss {row['train_loss']:.3f}"
        if "validation_loss" in row:
            line += f"  validation loss {row['validation_loss']:.3f} top-1 {row['validation_top1_accuracy']:.1%}"
        best = "  best so far" if self.validation.best_epoch == epoch + 1 and "validation_loss" in row else ""
        self.console.print(f"{line}  {self._rate():.0f} {self.examples}/s{best}")
        self._last_line = time.perf_counter()

    def _rate(self) -> float:
        """Examples a second in the steps of this epoch so far."""
        seconds = self.step_log.step_seconds[self._first_step :]
        return len(seconds) * self.batch_size / sum(seconds)

    def stop(self):
        """Takes the bar off the terminal, whatever ended the training."""
        if self.bar.live.is_started:
            self.bar.stop()
