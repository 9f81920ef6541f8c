"""Trains the head alone, on features that a frozen backbone gives once."""

import dataclasses
import time

import keras
import numpy as np

from keras_dogs import layers
from keras_dogs.data.loaders.batches import predict_in_batches
from keras_dogs.errors import Interrupted
from keras_dogs.models import builders
from keras_dogs.models import submodels
from keras_dogs.models.classifier import Classifier
from keras_dogs.runs import artifacts
from keras_dogs.system import files
from keras_dogs.system import progress
from keras_dogs.training.fitting import fit
from keras_dogs.training.fitting import load_weights_everywhere
from keras_dogs.training.plan import Fitted
from keras_dogs.training.plan import Pictures
from keras_dogs.training.plan import Plan
from keras_dogs.training.plan import Task

# The norm that features are scaled to: that of a ResNet-50's 2,048 features if each had unit variance. A step of SGD
# changes the logits in proportion to its square.
_NORM = 2048**0.5
_FEATURE_BATCH = 32


def train_head_on_features(plan: Plan, classifier: keras.Model, pictures: Pictures, views: int) -> Fitted:
    """Trains the head on features that are computed once; the model is the same as if each epoch computed them.

    Args:
        plan: `Plan`.
        classifier: `keras.Model` with a frozen backbone; it has the best head afterwards.
        pictures: `Pictures`.
        views: int. How many augmented views of each picture features are computed of; 0 for the picture as it is.
    """
    fitted = train_head(plan, classifier, pictures, views)
    if plan.checkpoints.writes:
        with files.written_whole(plan.folder / artifacts.MODEL) as path:
            builders.save_classifier(classifier, path)
    return fitted


def train_head(plan: Plan, classifier: keras.Model, pictures: Pictures, views: int) -> Fitted:
    """Trains on features that are centred and scaled to a fixed mean norm, so that one rate suits every backbone.

    Mean and scale are folded into the head's weights afterwards, exactly.
    """
    began = time.perf_counter()
    extractor = submodels.feature_extractor(classifier)
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

    head = classifier.head
    inputs = keras.Input(train.images.shape[1:])
    dropped = layers.CountedDropout(plan.recipe.dropout, seed=plan.config.seed)(inputs)
    probe = Classifier(inputs, layers.ClassifierHead(head.units, name="head")(dropped), name="probe")
    kernel, bias = head.get_weights()
    probe.head.set_weights([kernel / scale, bias + mean @ kernel])
    features_s = time.perf_counter() - began
    fitted = fit(plan, Task(probe, probe, train, predict, labels, "features"))._replace(features_s=features_s)

    load_weights_everywhere(probe, plan.checkpoints.best_file(fitted.validation.best_epoch))
    kernel, bias = probe.head.get_weights()
    head.set_weights([kernel * scale, bias - mean @ kernel * scale])
    return fitted


def standardisation(features) -> tuple[np.ndarray, float]:
    """Returns the mean of features, `(hidden,)`, and the factor that scales the centred ones to the norm `_NORM`."""
    mean = features.mean(axis=0)
    return mean, _NORM / max(float(np.sqrt(np.mean(((features - mean) ** 2).sum(axis=1)))), 1e-12)


def _extract_views(plan: Plan, classifier: keras.Model, images, views: int) -> np.ndarray:
    extractor, steps = submodels.view_extractor(classifier), -(-len(images) // _FEATURE_BATCH)
    found = []
    for view in range(views):
        extractor.first_step = view * steps
        found.append(_extract(plan, extractor, images, f"view {view + 1} of {views} of train"))
    extractor.go_to(steps)  # leaves the draw counter where a single process would
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
