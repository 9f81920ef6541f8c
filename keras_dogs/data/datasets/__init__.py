"""Datasets: what `--dataset` takes. A row of `DATASETS`, or a folder."""

import difflib
from pathlib import Path

from keras_dogs.data.config import DataConfig
from keras_dogs.data.datasets import drawn_breeds
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.data.datasets.exclusions import Exclusions
from keras_dogs.data.datasets.exclusions import check_names
from keras_dogs.data.datasets.exclusions import known_names
from keras_dogs.data.datasets.exclusions import leave_out
from keras_dogs.data.datasets.exclusions import read_exclusions
from keras_dogs.data.datasets.folder import load_folder
from keras_dogs.data.datasets.naming import display_name
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.datasets.stanford_dogs import load_stanford_dogs
from keras_dogs.errors import UserError

DATASETS = {
    "drawn_dogs": lambda seed, data_dir: load_drawn_dogs(),
    "stanford_dogs": lambda seed, data_dir: load_stanford_dogs(data_dir),
}


def load_dataset(
    dataset: str,
    seed: int = 0,
    validation_fraction: float = 0.1,
    data_dir: str | Path | None = None,
    pictures_per_class: int | None = None,
) -> Dataset:
    """Describes a dataset by name or folder, with its validation split carved; no picture is read yet.

    Args:
        dataset: str. A key of `DATASETS` or the path of a folder (see `datasets/folder.py` for the layouts).
        seed: int. Which pictures validate (and, in a flat folder, test) depends on it alone.
        validation_fraction: float in [0, 1). Share of the train split; 0 for none.
        data_dir: path. Where `stanford_dogs` is kept, or its official archives lie.
        pictures_per_class: int or `None`. How many of each class to take from each split, evenly spaced by name, before
            validation is carved; `None` for all.

    Raises:
        UserError: there is no such dataset, or it cannot be used; the text says why.

    Example:
    ```python
    dataset = keras_dogs.load_dataset("drawn_dogs")
    first = dataset.test.read(0), dataset.class_names[dataset.test.labels[0]]
    ```
    """
    if dataset in DATASETS:
        described = DATASETS[dataset](seed, Path(data_dir) if data_dir else None)
    else:
        near = difflib.get_close_matches(dataset, DATASETS, n=1)
        if near and not Path(dataset).exists():
            raise UserError(f"--dataset {dataset}: unknown dataset; did you mean {near[0]}?")
        described = load_folder(Path(dataset), seed)
    if pictures_per_class == 1 and validation_fraction and described.validation is None:
        raise UserError("--pictures-per-class 1: leaves none to validate on; give 2, or --validation-fraction 0")
    if pictures_per_class:
        described = described.thinned(pictures_per_class)
    return described.with_validation(validation_fraction, seed)


def load_configured(data: DataConfig, seed: int) -> Dataset:
    """Describes the dataset of a config, without the pictures that its list leaves out.

    Raises:
        UserError: as `load_dataset`, or the list cannot be used.
    """
    exclusions = read_exclusions(data.exclude) if data.exclude else None  # a mistake in it is said first
    where = data.dataset, seed, data.validation_fraction, data.data_dir
    dataset = load_dataset(*where, data.pictures_per_class)
    if exclusions and data.pictures_per_class:
        exclusions = _restricted_to(exclusions, dataset, load_dataset(*where))
    return leave_out(dataset, exclusions) if exclusions else dataset


def _restricted_to(exclusions: Exclusions, few: Dataset, whole: Dataset) -> Exclusions:
    """Returns the entries of a list that are in a thinned dataset, after checking the list against the whole dataset.

    Raises:
        UserError: the list names pictures that the whole dataset does not have.
    """
    check_names(known_names(whole), whole.name, exclusions)
    taken = known_names(few)
    reasons = {name: reason for name, reason in exclusions.reasons.items() if name in taken}
    is_of_it = exclusions.division in ("", whole.division)
    return exclusions._replace(reasons=reasons, division="" if is_of_it else exclusions.division)


def load_recorded(data: dict, seed: int, data_dir: str | Path | None = None) -> Dataset:
    """Describes the dataset of a run from its record, including the pictures that an exclusion list left out.

    Args:
        data: dict. `config["data"]` of the record.
        seed: int. The record's.
        data_dir: path. Where `stanford_dogs` is kept now; `None` for where it was.

    Raises:
        UserError: as `load_dataset`.
    """
    folder = data_dir or data.get("data_dir")
    fraction = data.get("validation_fraction", 0.1)
    return load_dataset(data["dataset"], seed, fraction, folder, data.get("pictures_per_class"))


def drawn_class_names() -> tuple[str, ...]:
    """Returns the breeds of drawn dogs, of either half."""
    return tuple(breed.name for breed in (*drawn_breeds.BREEDS, *drawn_breeds.PRETRAINING_BREEDS))


__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "display_name",
    "drawn_class_names",
    "load_configured",
    "load_dataset",
    "load_recorded",
]
