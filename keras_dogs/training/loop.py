"""The training itself: a compiled model, batches, and what watches them; of the whole classifier, or of its head."""

import dataclasses
import hashlib
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_dogs import backends
from keras_dogs import layers
from keras_dogs.backends import devices
from keras_dogs.data.loaders.batches import EpochOrder
from keras_dogs.data.loaders.batches import TrainingBatches
from keras_dogs.data.loaders.batches import predict_in_batches
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.data.loaders.placing import table_of
from keras_dogs.errors import Diverged
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.models import builders
from keras_dogs.models.classifier import Classifier
from keras_dogs.models.classifier import SmoothedCrossentropy
from keras_dogs.models.classifier import StepLoss
from keras_dogs.models.classifier import TrainAccuracy
from keras_dogs.runs import artifacts
from keras_dogs.system import progress
from keras_dogs.training.callbacks import Checkpointing
from keras_dogs.training.callbacks import LazyCallbacks
from keras_dogs.training.callbacks import StepLog
from keras_dogs.training.callbacks import TrainingProgress
from keras_dogs.training.callbacks import Validation
from keras_dogs.training.checkpoints import Checkpoints
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.loggers import open_loggers
from keras_dogs.training.optimizers import WarmupCosine
from keras_dogs.training.optimizers import build_optimizer
from keras_dogs.training.recipes import RECIPES
from keras_dogs.training.recipes import Recipe
from keras_dogs.training.recipes import complete
from keras_dogs.training.stopping import StopRequest

# Of features: that of the 2,048 of a ResNet-50, had each unit variance. A step of SGD changes logits by its square.
_NORM = 2048**0.5
_FEATURE_BATCH = 32


class Pictures(NamedTuple):
    """The decoded dataset. `validation` is `None` where there is no such split."""

    train: Canvases
    validation: Canvases | None
    test: Canvases

    @property
    def unreadable(self) -> list[str]:
        """`"name: reason"` of every picture that was left out."""
        decoded = (canvases for canvases in self if canvases is not None)
        return [f"{name}: {reason}" for canvases in decoded for name, reason in canvases.unreadable]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that change with the name of any picture that could be read."""
        names = (name for part in self if part is not None for name in part.names)
        return hashlib.sha256("\0".join(names).encode()).hexdigest()


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


def train_classifier(plan: Plan, classifier: keras.Model, pictures: Pictures) -> Fitted:
    """Trains what is trainable of the whole classifier, from canvases; it has the best weights afterwards."""
    if plan.recipe.probe_first and not plan.checkpoints.there_is_one():
        _train_head_first(plan, classifier, pictures)
    model, train, validation = classifier, pictures.train, pictures.validation
    if plan.on_device:
        table, _ = table_of(train)
        model = builders.from_table(classifier, table)
        # Training and validation pictures are rows of one table.
        train, validation = (
            part and dataclasses.replace(part, images=table_of(part)[1]) for part in (train, validation)
        )
    batch_size = min(plan.recipe.batch_size, 64)
    predict = (lambda: predict_in_batches(model, validation.images, batch_size)[0]) if validation else None
    fitted = _fit(plan, Task(model, classifier, train, predict, validation.labels if validation else None))
    if plan.checkpoints.writes:
        with artifacts.written_whole(plan.folder / artifacts.CHECKPOINTS / artifacts.LAST) as path:
            builders.save_classifier(classifier, path)
    best_file = plan.checkpoints.best_file(fitted.validation.best_epoch)
    load_weights_everywhere(classifier, best_file)
    if plan.checkpoints.writes:
        with artifacts.written_whole(plan.folder / artifacts.MODEL) as path:
            shutil.copyfile(best_file, path)
    return fitted


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


def _train_head_first(plan: Plan, classifier: keras.Model, pictures: Pictures) -> None:
    """Trains a linear probe of which only the head is kept."""
    progress.open_console().print("the head alone first, on features that are computed once")
    recipe = complete(RECIPES["linear_probe"], plan.config.preset, "")
    copies = devices.current().num_copies
    batch_size = max(recipe.batch_size // copies, 1) * copies
    recipe = recipe._replace(augmentation="none", dropout=plan.recipe.dropout, batch_size=batch_size)
    probe_plan = plan._replace(recipe=recipe, checkpoints=Checkpoints(plan.folder / artifacts.CHECKPOINTS / "head"))
    if probe_plan.checkpoints.writes:
        probe_plan.checkpoints.folder.mkdir(exist_ok=True)
    _train_head(probe_plan, classifier, pictures, views=0)
    if probe_plan.checkpoints.writes:
        shutil.rmtree(probe_plan.checkpoints.folder)


def train_head_on_features(plan: Plan, classifier: keras.Model, pictures: Pictures, views: int) -> Fitted:
    """Trains the head on features that are computed once; the same model comes out as from the epoch-wise way.

    Args:
        plan: `Plan`.
        classifier: `keras.Model` with a frozen backbone; it has the best head afterwards.
        pictures: `Pictures`.
        views: int. How many augmented views of each picture features are computed of; 0 for the picture as it is.
    """
    fitted = _train_head(plan, classifier, pictures, views)
    if plan.checkpoints.writes:
        with artifacts.written_whole(plan.folder / artifacts.MODEL) as path:
            builders.save_classifier(classifier, path)
    return fitted


def _train_head(plan: Plan, classifier: keras.Model, pictures: Pictures, views: int) -> Fitted:
    """Trains on features that are centred and brought to one mean norm, so that one rate fits every backbone.

    Mean and scale are folded into the head's weights afterwards, exactly.
    """
    began = time.perf_counter()
    extractor = builders.feature_extractor(classifier)
    train_images = pictures.train.images
    features = (
        _extract_views(plan, classifier, train_images, views)
        if views
        else _extract(plan, extractor, train_images, "train")
    )
    mean, scale = standardisation(features)
    labels = np.tile(pictures.train.labels, max(views, 1))
    names = pictures.train.names * max(views, 1)
    train = dataclasses.replace(pictures.train, images=(features - mean) * scale, labels=labels, names=names)
    predict, labels = None, None
    if pictures.validation:
        standardised = (_extract(plan, extractor, pictures.validation.images, "validation") - mean) * scale
        predict, labels = lambda: predict_in_batches(probe, standardised, 256)[0], pictures.validation.labels

    head = classifier.get_layer("head")
    inputs = keras.Input(train.images.shape[1:])
    dropped = layers.CountedDropout(plan.recipe.dropout, seed=plan.config.seed)(inputs)
    probe = Classifier(inputs, layers.ClassifierHead(head.units, name="head")(dropped), name="probe")
    kernel, bias = head.get_weights()
    probe.get_layer("head").set_weights([kernel / scale, bias + mean @ kernel])
    features_s = time.perf_counter() - began
    fitted = _fit(plan, Task(probe, probe, train, predict, labels, "features"))._replace(features_s=features_s)

    load_weights_everywhere(probe, plan.checkpoints.best_file(fitted.validation.best_epoch))
    kernel, bias = probe.get_layer("head").get_weights()
    head.set_weights([kernel * scale, bias - mean @ kernel * scale])
    return fitted


def standardisation(features) -> tuple[np.ndarray, float]:
    """Returns the mean of features, `(hidden,)`, and the factor that gives them one mean norm."""
    mean = features.mean(axis=0)
    return mean, _NORM / max(float(np.sqrt(np.mean(((features - mean) ** 2).sum(axis=1)))), 1e-12)


def _extract_views(plan: Plan, classifier: keras.Model, images, views: int) -> np.ndarray:
    extractor, steps = builders.view_extractor(classifier), -(-len(images) // _FEATURE_BATCH)
    found = []
    for view in range(views):
        extractor.first_step = view * steps
        found.append(_extract(plan, extractor, images, f"view {view + 1} of {views} of train"))
    extractor.go_to(steps)  # where a single process has come to
    return np.concatenate(found)


def _extract(plan: Plan, extractor: keras.Model, images, what: str) -> np.ndarray:
    def counted():
        on_batch()
        if plan.stop.status:
            begun = f"nothing was added to what is saved; {artifacts.how_to_go_on(plan.folder)}"
            text = begun if plan.checkpoints.files() else "stopped before the first step; there was nothing to save"
            raise Interrupted(text, plan.stop.status)

    with progress.counting(f"Features of {what} (batches)", -(-len(images) // _FEATURE_BATCH)) as on_batch:
        return predict_in_batches(extractor, images, _FEATURE_BATCH, counted)[0]


def _fit(plan: Plan, task: Task) -> Fitted:
    """Compiles the model and runs `fit` with everything that watches it, from where an earlier one stopped."""
    config, recipe, model = plan.config, plan.recipe, task.model
    batches = TrainingBatches(
        task.train.images, task.train.labels, _step_size(recipe, len(task.train)), config.seed, config.balanced
    )
    _say_what_is_left_out(batches, len(task.train), task.examples)
    total = len(batches) * recipe.epochs
    schedule = WarmupCosine(recipe.learning_rate, total // recipe.accumulate, recipe.warmup_fraction, recipe.accumulate)
    _compile(plan, task, schedule, len(batches))
    step_log = StepLog(schedule)
    validation = Validation(
        task.classifier, task.predict, task.labels, plan.checkpoints.best_file, step_log, recipe.patience
    )
    go_on = artifacts.how_to_go_on(plan.folder)
    checkpointing = Checkpointing(
        plan.checkpoints,
        config.checkpoint_every,
        step_log,
        validation,
        plan.stop,
        plan.started,
        go_on,
        len(batches),
        plan.digest,
    )
    done = checkpointing.load()
    if done:
        progress.open_console().print(f"going on after step {done:,} of {total:,}")
    shown = TrainingProgress(total, batches.batch_size, validation, task.examples)
    loggers = open_loggers(config, plan.folder, step_log, validation) if plan.checkpoints.writes else []
    try:
        _run(model, batches, done, recipe.epochs, [step_log, validation, checkpointing, shown, *loggers])
    except Exception as error:
        if batches.error:  # TensorFlow wraps it in one of its own
            raise batches.error from error
        if backends.is_out_of_memory(error):
            raise _too_large(error, batches.batch_size, plan.checkpoints.files()) from error
        if not isinstance(error, FloatingPointError):
            raise
        raise _diverged(error, step_log.rows[-1], plan.checkpoints.files()) from error
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
    )


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
        "--batch-size, or give --accumulate 2 for the same batch in two parts, or --remat"
    )


def _left(checkpoints: list[Path]) -> str:
    return f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "nothing was written"


def _diverged(error: FloatingPointError, row: dict, checkpoints: list[Path]) -> Diverged:
    return Diverged(
        f"{error} at step {row['step']} (learning rate {row['learning_rate']:.3g}); {_left(checkpoints)}: "
        "lower --learning-rate, or use --dtype-policy float32"
    )


def _make_variables(model: keras.Model, labels) -> None:
    """Creates the variables of metrics and optimizer before the first step.

    Keras would make them in the first step: too late to put values back or for the first loss to be kept, and on
    TensorFlow, which then makes them in the graph, much slower (ViT-Ti/16: 6 s).
    """
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, labels[:1], np.zeros((1, model.output.shape[-1]), "float32"))
    model.reset_metrics()


def _step_size(recipe: Recipe, num_pictures: int) -> int:
    """Returns pictures a step: a batch, or its part."""
    parts = recipe.accumulate * devices.current().num_copies
    batch_size = min(recipe.batch_size, num_pictures // parts * parts)
    if not batch_size:
        raise UserError(f"{num_pictures} training pictures are fewer than the {parts} parts of a batch")
    if batch_size % recipe.accumulate:
        raise UserError(f"--accumulate {recipe.accumulate}: does not divide --batch-size {batch_size}")
    return batch_size // recipe.accumulate


def _say_what_is_left_out(batches: TrainingBatches, count: int, examples: str) -> None:
    taken = len(batches) * batches.batch_size
    if taken < count:
        progress.open_console().print(
            f"an epoch takes {taken:,} of the {count:,} training {examples}, as batches of {batches.batch_size} are "
            "whole; which are left out changes from epoch to epoch"
        )


def _run(model, batches: TrainingBatches, done: int, epochs: int, callbacks: list) -> None:
    """Runs `fit` after `done` steps: first what is left of an epoch, then whole ones."""
    epoch, first = divmod(done, len(batches))
    _, validation, checkpointing, *_ = callbacks
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
