"""Score a classifier: every picture once, metrics in NumPy from the logits."""

import math
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_dogs import artifacts
from keras_dogs import network
from keras_dogs import progress
from keras_dogs.config import DataConfig
from keras_dogs.config import EvaluateConfig
from keras_dogs.datasets import Dataset
from keras_dogs.datasets import load_dataset
from keras_dogs.errors import UserError
from keras_dogs.loaders.batches import predict_in_batches
from keras_dogs.loaders.canvases import Canvases
from keras_dogs.loaders.canvases import decode_split
from keras_dogs.loaders.canvases import refuse_unreadable
from keras_dogs.models import build_classifier
from keras_dogs.models import load_classifier
from keras_dogs.presets import PRESETS
from keras_dogs.records import RunRecord
from keras_dogs.records import Scores
from keras_dogs.scoring import score_logits
from keras_dogs.weights import checkpoint
from keras_dogs.weights import own_models


class Evaluation(NamedTuple):
    """What `evaluate_classifier` found.

    Attributes:
        scores: `Scores`.
        logits: float32 array of shape `(num_pictures, num_classes)`.
        images_per_second: float. Without the first batch, which compiles.
    """

    scores: Scores
    logits: np.ndarray
    images_per_second: float


def evaluate_classifier(
    classifier: keras.Model, images, labels, batch_size: int = 32, description: str = "Scoring"
) -> Evaluation:
    """Scores a classifier on canvases.

    Args:
        classifier: `keras.Model` from pictures to logits.
        images: uint8 array of shape `(num_pictures, height, width, 3)`.
        labels: int array of shape `(num_pictures,)`.
        batch_size: int. Without effect on the scores, but for the rounding of the backend's kernels.
        description: str. What progress calls it.
    """
    with progress.counting(f"{description} (batches)", math.ceil(len(labels) / batch_size)) as on_batch:
        logits, images_per_second = predict_in_batches(classifier, images, batch_size, on_batch)
    return Evaluation(score_logits(logits, labels), logits, images_per_second)


def evaluate_run(config: EvaluateConfig) -> Scores:
    """Scores a classifier on a split of a dataset: the procedure of `evaluate`.

    Raises:
        UserError: there is no such run, preset or dataset, or the dataset has other classes.
    """
    if config.offline:
        network.go_offline()
    run, is_preset = Path(config.run), _is_preset(config.run)
    if config.image_size and not is_preset:
        raise UserError(f"--image-size {config.image_size}: a trained classifier has its own; for presets only")
    model_file = None if is_preset else artifacts.find_model(run)
    data, seed = _data_of_run(config, run)
    dataset = load_dataset(data.dataset, seed, data.validation_fraction, data.data_dir)
    split = getattr(dataset, config.split)
    if split is None:
        raise UserError(f"--split {config.split}: {data.dataset} has no such split")
    if is_preset:
        names = dataset.class_names
        classifier = build_classifier(
            config.run, len(names), config.image_size, "none", class_names=names, head="imagenet"
        )
        # Nothing is cropped out of the canvas, so that pictures need be resized only once.
        crop = classifier.get_layer("crop")
        crop.canvas_size = max(crop.height, crop.width)
    else:
        classifier = load_classifier(model_file)
    check_classes(classifier, dataset, data.dataset)
    canvases = decode_for(classifier, split, data.unreadable_limit)
    batch_size = min(config.batch_size, len(canvases))
    return evaluate_classifier(classifier, canvases.images, canvases.labels, batch_size).scores


def _is_preset(run: str) -> bool:
    """Whether it names weights that were not trained here: a known name, an address, or a file or folder of others."""
    if own_models.find(run):
        return False
    path = Path(run)
    is_file = path.suffix in checkpoint.SUFFIXES and path.is_file()
    return run in PRESETS or ":" in run or is_file or (path / "config.json").is_file()


def decode_for(classifier: keras.Model, split, unreadable_limit: float) -> Canvases:
    """Decodes a split to the canvases that `classifier` was made for."""
    resize = classifier.get_layer("crop")
    with progress.counting("Decoding", len(split)) as on_picture:
        canvases = decode_split(split, resize.canvas_size, resize.fit, on_picture)
    refuse_unreadable([canvases], unreadable_limit, num_classes=0)
    for name, reason in canvases.unreadable:
        progress.open_console().print(f"left out: {name}: {reason}")
    return canvases


def check_classes(classifier: keras.Model, dataset: Dataset, dataset_name: str) -> None:
    """Refuses a dataset whose classes are not the classifier's."""
    head = classifier.get_layer("head")
    own = head.class_names
    if own is None and head.units != len(dataset.class_names):
        raise UserError(f"{dataset_name} has {len(dataset.class_names)} classes, the classifier {head.units}")
    if own is None or tuple(own) == dataset.class_names:
        return
    strangers = sorted(set(dataset.class_names) - set(own)) or sorted(set(own) - set(dataset.class_names))
    example = f"; '{strangers[0]}' is in one of them only" if strangers else "; their order differs"
    raise UserError(
        f"{dataset_name} has other classes than the classifier ({len(dataset.class_names)} and {len(own)}{example}): "
        "choose the dataset that it was trained on, or train on this one"
    )


def _data_of_run(config: EvaluateConfig, run: Path) -> tuple[DataConfig, int]:
    """The run's own dataset settings, less what the flags of `evaluate` say."""
    told = {"max_unreadable": config.max_unreadable, "skip_unreadable": config.skip_unreadable}
    if config.dataset:
        told["dataset"] = config.dataset
    if config.data_dir:
        told["data_dir"] = config.data_dir
    record_file = run / artifacts.RECORD
    if not record_file.is_file():
        if not config.dataset:
            raise UserError(f"{config.run}: does not say what it was trained on; give --dataset")
        return DataConfig(**told), 0
    record = RunRecord.load(record_file)
    own = {
        key: value
        for key, value in record.config["data"].items()
        if key in ("dataset", "data_dir", "validation_fraction")
    }
    own["data_dir"] = Path(own["data_dir"]) if own.get("data_dir") else None
    return DataConfig(**{**own, **told}), record.seed
