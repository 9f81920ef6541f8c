"""Features of pictures by the backbone of a run or a preset; they are kept in the cache."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs import __version__
from keras_dogs import backends
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.loaders.canvases import load_canvases
from keras_dogs.errors import UserError
from keras_dogs.runs import artifacts
from keras_dogs.system import caches
from keras_dogs.system import files
from keras_dogs.system import progress
from keras_dogs.system import tables

_BATCH = 32
_SCHEMA = {"features": tables.Array("f", 2), "names": tables.Array("U", 1)}


class Features(NamedTuple):
    """Features of the pictures that are readable.

    Attributes:
        names: tuple of str.
        values: float32 array `(num_pictures, hidden)`.
    """

    names: tuple[str, ...]
    values: np.ndarray


def features_of(dataset: Dataset, run: Path | None, preset: str | None) -> Features:
    """Returns features: those in the cache, or computed and kept there.

    Args:
        dataset: `Dataset`.
        run: Path or `None`. A run folder or `.keras` file.
        preset: str or `None`. What `--preset` of `train` takes; it goes before `run`.

    Raises:
        UserError: there is no such run or preset.
    """
    classifier = _load(dataset, run, preset)
    splits = dataset.splits
    file = caches.folder("features") / f"{_fingerprint(classifier, str(preset or run), splits)}.npz"
    return _read(file) or _compute(classifier, dataset, list(splits), file)


def _load(dataset: Dataset, run: Path | None, preset: str | None):
    from keras_dogs.models import builders

    if preset:
        return builders.build_classifier(preset, len(dataset.class_names), augmentation="none")
    return builders.load_classifier(artifacts.find_model(run))


def _fingerprint(classifier, model: str, splits: dict[str, Split]) -> str:
    """Returns a hash of all that decides the features: the model, canvases, pictures and the backend's rounding."""
    settings = __version__, backends.name(), model, classifier.canvas
    digest = hashlib.sha256(repr(settings).encode(errors="surrogateescape"))
    for weight in classifier.backbone.get_weights():
        digest.update(np.ascontiguousarray(weight))
    for split in splits.values():
        for index, name in enumerate(split.names):
            digest.update(f"\0{name}\0{split.stamp(index)}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]


def _read(file: Path) -> Features | None:
    """Returns what is kept, if it is whole."""
    try:
        found = tables.read_arrays(file, _SCHEMA)
        names, values = found["names"], found["features"]
    except (UserError, KeyError):
        return None
    caches.touch(file)
    is_whole = len(values) == len(names) and np.isfinite(values).all()
    return Features(tuple(names.tolist()), values) if is_whole else None


def _compute(classifier, dataset: Dataset, wanted: list[str], file: Path) -> Features:
    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.models import submodels

    extractor, names, values = submodels.feature_extractor(classifier), [], []
    for what, canvases in zip(wanted, load_canvases(dataset, wanted, **classifier.canvas)):
        if not len(canvases):  # none of the split is readable
            continue
        with progress.counting(f"Features of {what} (batches)", -(-len(canvases) // _BATCH)) as on_batch:
            values.append(predict_in_batches(extractor, canvases.images, _BATCH, on_batch)[0])
        names += canvases.names
    found = Features(tuple(names), np.concatenate(values))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.written_whole(file) as partial, partial.open("wb") as opened:
            np.savez(opened, features=found.values, names=np.array(found.names))
    except OSError as error:
        progress.open_console().print(f"cache {file.parent}: {error.strerror or error}; the features are not kept")
    return found
