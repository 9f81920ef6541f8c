"""Runs `fit` of a compiled model, from where an earlier run stopped, with all that watches it."""

import contextlib
import time
from pathlib import Path

import keras
import numpy as np

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.data.loaders.batches import EpochOrder
from keras_dogs.data.loaders.batches import TrainingBatches
from keras_dogs.errors import Diverged
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.models import builders
from keras_dogs.models.classifier import SmoothedCrossentropy
from keras_dogs.models.classifier import StepLoss
from keras_dogs.models.classifier import TrainAccuracy
from keras_dogs.runs import artifacts
from keras_dogs.system import progress
from keras_dogs.training.callbacks import LazyCallbacks
from keras_dogs.training.callbacks import StepLog
from keras_dogs.training.callbacks import TrainingProgress
from keras_dogs.training.callbacks import Validation
from keras_dogs.training.checkpointing import Checkpointing
from keras_dogs.training.checkpoints import Checkpoints
from keras_dogs.training.loggers import open_loggers
from keras_dogs.training.loggers import without_loggers
from keras_dogs.training.optimizers import WarmupCosine
from keras_dogs.training.optimizers import build_optimizer
from keras_dogs.training.plan import Fitted
from keras_dogs.training.plan import Plan
from keras_dogs.training.plan import Task
from keras_dogs.training.recipes import Recipe


def fit(plan: Plan, task: Task, probe: Fitted | None = None) -> Fitted:
    """Compiles the model and runs `fit` with everything that watches it, from where an earlier one stopped.

    Args:
        plan: `Plan`.
        task: `Task`.
        probe: `Fitted` or `None`. The probe, if this process trained one first.
    """
    config, recipe, model = plan.config, plan.recipe, task.model
    batches = TrainingBatches(
        task.train.images, task.train.labels, _step_size(recipe, len(task.train)), config.seed, config.balanced
    )
    _say_what_is_left_out(batches, len(task.train), task.examples)
    total = len(batches) * recipe.epochs
    schedule = WarmupCosine(recipe.learning_rate, total // recipe.accumulate, recipe.warmup_fraction, recipe.accumulate)
    _compile(plan, task, schedule, len(batches))
    step_log = StepLog(schedule, batches.digest_of)
    validation = Validation(task.classifier, task.predict, task.labels, plan.checkpoints.best_file, step_log, recipe)
    checkpointing = _checkpointing(plan, step_log, validation, len(batches))
    if probe:
        checkpointing.follow(probe.features_s + probe.train_s, probe.command_s_before)
    done = checkpointing.load()
    if done:
        progress.open_console().print(f"going on after step {done:,} of {total:,}")
    shown = TrainingProgress(total, batches.batch_size, validation, task.examples, recipe.epochs)
    logged = config if plan.checkpoints.writes else without_loggers(config)
    try:
        with (
            _errors_in_words(batches, step_log, plan.checkpoints, plan.config.dtype_policy),
            open_loggers(logged, plan.folder, step_log, validation) as loggers,
        ):
            callbacks = [step_log, validation, checkpointing, shown, *loggers]
            _run(model, batches, done, recipe.epochs, callbacks, validation, checkpointing)
    finally:
        shown.stop()
    first_step_s = step_log.step_seconds[0] if step_log.step_seconds else 0.0
    return Fitted(
        model,
        step_log,
        validation,
        first_step_s,
        checkpointing.train_s(),
        batches.batch_size,
        checkpointing.epoch_end_s,
        checkpointing.command_s() - (time.perf_counter() - plan.started),
        probe_s=checkpointing.probe_s,
        probe_end_s=checkpointing.probe_end_s,
    )


def _checkpointing(plan: Plan, step_log: StepLog, validation: Validation, steps_per_epoch: int) -> Checkpointing:
    return Checkpointing(
        plan.checkpoints,
        plan.config.checkpoint_every,
        step_log,
        validation,
        plan.stop,
        plan.started,
        artifacts.how_to_go_on(plan.folder),
        steps_per_epoch,
        plan.digest,
    )


@contextlib.contextmanager
def _errors_in_words(batches: TrainingBatches, step_log: StepLog, checkpoints: Checkpoints, dtype_policy: str | None):
    """Turns the known failures of a training run into one-line errors that say what was saved and what to do."""
    try:
        yield
    except Exception as error:
        if batches.error:  # TensorFlow wraps it in one of its own
            raise batches.error from error
        if backends.is_out_of_memory(error):
            raise _too_large(error, batches.batch_size, checkpoints.files()) from error
        if not isinstance(error, FloatingPointError):
            raise
        raise _diverged(error, step_log.rows, checkpoints.files(), dtype_policy) from error


def _compile(plan: Plan, task: Task, schedule: WarmupCosine, steps_per_epoch: int) -> None:
    """Compiles the model, and creates all variables of the training."""
    model, recipe = task.model, plan.recipe
    model.compile(
        optimizer=build_optimizer(recipe, schedule, model, steps_per_epoch, plan.config.dtype_policy),
        loss=SmoothedCrossentropy(recipe.label_smoothing),
        metrics=[TrainAccuracy("accuracy"), StepLoss()],
    )
    _make_variables(model, task.train.labels)
    devices.current().prepare(model)
    backends.check_compilable(model, expected=recipe.augmentation != "keras")


def _too_large(error: Exception, batch_size: int, checkpoints: list[Path]) -> UserError:
    return UserError(
        f"not enough memory for steps of {batch_size} pictures ({first_line(error)}); {_left(checkpoints)}: lower "
        "--batch-size, or raise --accumulate for the same batch in smaller parts, or, for a ViT, give --remat"
    )


def _left(checkpoints: list[Path]) -> str:
    return f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "nothing was written"


def _diverged(error, rows: list[dict], checkpoints: list[Path], dtype_policy: str | None) -> Diverged:
    row = rows[-1] if rows else None
    when = f"at step {row['step']} (learning rate {row['learning_rate']:.3g})" if row else "before the first step"
    is_mixed = dtype_policy not in (None, "float32")
    advice = "lower --learning-rate" + (", or use --dtype-policy float32" if is_mixed else "")
    return Diverged(f"{error} {when}; {_left(checkpoints)}: {advice}")


def _make_variables(model: keras.Model, labels) -> None:
    """Creates the variables of metrics and optimizer before the first step.

    Keras would create them in the first step: too late to restore their values or to record the first loss, and much
    slower on TensorFlow, which would create them in the graph (ViT-Ti/16: 6 s).
    """
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, labels[:1], np.zeros((1, model.output.shape[-1]), "float32"))
    model.reset_metrics()


def _step_size(recipe: Recipe, num_pictures: int) -> int:
    """Returns the number of pictures per step: a batch or, with `accumulate`, a part of one."""
    parts = recipe.accumulate * devices.current().num_copies
    batch_size = min(recipe.batch_size, num_pictures // parts * parts)
    if not batch_size:
        raise UserError(f"a batch is split into {parts} parts, but there are only {num_pictures} training pictures")
    if batch_size % recipe.accumulate:
        raise UserError(f"--accumulate {recipe.accumulate}: does not divide --batch-size {batch_size}")
    return batch_size // recipe.accumulate


def _say_what_is_left_out(batches: TrainingBatches, count: int, examples: str) -> None:
    taken = len(batches) * batches.batch_size
    if taken < count:
        progress.open_console().print(
            f"an epoch takes {taken:,} of the {count:,} training {examples}, because every batch is a full "
            f"{batches.batch_size}; each epoch leaves out different ones"
        )


def _run(model, batches: TrainingBatches, done: int, epochs: int, callbacks: list, validation, checkpointing) -> None:
    """Runs `fit` after `done` steps: first what is left of an epoch, then whole ones."""
    epoch, first = divmod(done, len(batches))
    for last in (epoch + 1, epochs) if first else (epochs,):
        if epoch == epochs or validation.is_patience_over():
            break
        batches.start(epoch, first)  # Keras asks for the number of batches before the epoch begins
        order = EpochOrder(batches, first)
        watching = LazyCallbacks(
            [order, *callbacks], add_history=True, model=model, verbose=0, epochs=last, steps=len(batches)
        )
        fed = devices.current().feed(batches)
        model.fit(**fed, initial_epoch=epoch, epochs=last, shuffle=False, verbose=0, callbacks=watching)
        epoch, first = last, 0
    checkpointing.put_back(model)  # where no epoch was left


def load_weights_everywhere(model: keras.Model, file: Path) -> None:
    """Gives the model of every process the weights in a file of the first one."""
    group, weights = devices.current().group, {}
    if group.is_first:
        builders.load_weights(model, file)
    if group.num_processes > 1:
        if group.is_first:
            weights = {str(number): weight for number, weight in enumerate(model.get_weights())}
        _, weights = group.from_first(None, weights)
        model.set_weights([weights[str(number)] for number in range(len(weights))])
