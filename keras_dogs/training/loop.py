"""Trains a whole classifier from pictures, after its head alone where that is asked for."""

import dataclasses
import shutil

import keras

from keras_dogs.backends import devices
from keras_dogs.data.loaders.batches import predict_in_batches
from keras_dogs.data.loaders.placing import table_of
from keras_dogs.models import builders
from keras_dogs.models import submodels
from keras_dogs.runs import artifacts
from keras_dogs.system import files
from keras_dogs.system import progress
from keras_dogs.training.fitting import fit
from keras_dogs.training.fitting import load_weights_everywhere
from keras_dogs.training.loggers import without_loggers
from keras_dogs.training.plan import Fitted
from keras_dogs.training.plan import Pictures
from keras_dogs.training.plan import Plan
from keras_dogs.training.plan import Task
from keras_dogs.training.probe import train_head
from keras_dogs.training.recipes import RECIPES
from keras_dogs.training.recipes import complete


def train_classifier(plan: Plan, classifier: keras.Model, pictures: Pictures) -> Fitted:
    """Trains what is trainable of the whole classifier, from canvases; it has the best weights afterwards."""
    probe = None
    if plan.recipe.probe_first and not plan.checkpoints.there_is_one():
        probe = _train_head_first(plan, classifier, pictures)
    model, train, validation = classifier, pictures.train, pictures.validation
    if plan.on_device:
        table, _ = table_of(train)
        model = submodels.from_table(classifier, table)
        # Training and validation pictures are rows of one table.
        train, validation = (
            part and dataclasses.replace(part, images=table_of(part)[1]) for part in (train, validation)
        )
    batch_size = min(plan.recipe.batch_size, 64)
    predict = (lambda: predict_in_batches(model, validation.images, batch_size)[0]) if validation else None
    fitted = fit(plan, Task(model, classifier, train, predict, validation.labels if validation else None), probe)
    if plan.checkpoints.writes:
        with files.written_whole(plan.folder / artifacts.CHECKPOINTS / artifacts.LAST) as path:
            builders.save_classifier(classifier, path)
    best_file = plan.checkpoints.best_file(fitted.validation.best_epoch)
    load_weights_everywhere(classifier, best_file)
    if plan.checkpoints.writes:
        with files.written_whole(plan.folder / artifacts.MODEL) as path:
            shutil.copyfile(best_file, path)
    return fitted


def _train_head_first(plan: Plan, classifier: keras.Model, pictures: Pictures) -> Fitted:
    """Trains a linear probe of which only the head is kept."""
    progress.open_console().print("the head alone first, on features that are computed once")
    recipe = complete(RECIPES["linear_probe"], plan.config.preset, "")
    copies = devices.current().num_copies
    batch_size = max(recipe.batch_size // copies, 1) * copies
    recipe = recipe._replace(augmentation="none", dropout=plan.recipe.dropout, batch_size=batch_size)
    config = without_loggers(plan.config)  # their curves are those of the whole model
    probe_plan = plan._replace(config=config, recipe=recipe, checkpoints=plan.checkpoints.of_head())
    if probe_plan.checkpoints.writes:
        probe_plan.checkpoints.folder.mkdir(exist_ok=True)
    fitted = train_head(probe_plan, classifier, pictures, views=0)
    if probe_plan.checkpoints.writes:
        shutil.rmtree(probe_plan.checkpoints.folder)
    return fitted
