"""What a dataset is: names, labels and a way to read a picture, in three splits."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from keras_dogs.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
    """Pictures with labels.

    Attributes:
        names: tuple of str. What each picture is called, unique within the dataset.
        labels: int32 array of shape `(num_pictures,)`, indices into the dataset's class names.
        read: function of an index to that picture, RGB; raises `UnreadablePicture`.
        stamp: function of an index to a text that changes when that picture does; no picture is opened for it.
        file: function of an index to the path of that picture's file, or `None` where it is not a file of its own.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    read: Callable[[int], Image.Image]
    stamp: Callable[[int], str]
    file: Callable[[int], Path | None] = lambda index: None

    def __len__(self):
        return len(self.names)

    def select(self, indices) -> "Split":
        """Returns the pictures at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        names = tuple(self.names[index] for index in indices)
        return Split(
            names,
            self.labels[indices],
            lambda index: self.read(int(indices[index])),
            lambda index: self.stamp(int(indices[index])),
            lambda index: self.file(int(indices[index])),
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled collection of pictures.

    Attributes:
        name: str. What the user called it, or the folder's name.
        class_names: tuple of str, in label order.
        train: `Split`.
        test: `Split`, scored once, whole.
        validation: `Split` or `None`. `None` until one is carved from train; some folders bring their own.
        keeps_validation: bool. Whether the dataset came with a validation split, so that none was carved from train.
        excluded: tuple of str. The pictures that `exclusions.leave_out` took from train and validation.
        exclusions_digest: str. Of the list that named them; empty where there was none.
        notes: tuple of str. What the user should know of it: files that were left out, a split that lacks a class.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None
    notes: tuple[str, ...] = ()
    keeps_validation: bool = False
    excluded: tuple[str, ...] = ()
    exclusions_digest: str = ""

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name: train, validation, test."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def pool(self) -> str:
        """16 hexadecimal digits that identify the pictures of train and validation together, however they are split."""
        parts = [part for part in (self.train, self.validation) if part is not None]
        rows = sorted((name, int(label)) for part in parts for name, label in zip(part.names, part.labels))
        return hashlib.sha256(repr((self.class_names, rows)).encode(errors="surrogateescape")).hexdigest()[:16]

    @property
    def division(self) -> str:
        """16 hexadecimal digits that change with what is in the test split."""
        return hashlib.sha256("\n".join(self.test.names).encode(errors="surrogateescape")).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any class name, picture name, label or place in a split."""
        digest = hashlib.sha256("\n".join(self.class_names).encode(errors="surrogateescape"))
        for split in (self.train, self.validation, self.test):
            if split is not None:
                digest.update("\n".join(split.names).encode(errors="surrogateescape"))
                digest.update(split.labels.astype("<i4").tobytes())
            digest.update(b"\0")
        return digest.hexdigest()[:16]

    def thinned(self, count: int) -> "Dataset":
        """Takes `count` pictures of each class from each split, evenly spaced in its order; all where there are fewer.

        Args:
            count: int, at least 1.
        """
        fewer = {name: split.select(_evenly_spaced(split.labels, count)) for name, split in self.splits.items()}
        note = f"a quick look: at most {count:,} pictures of each class in each split; such scores are rough"
        return dataclasses.replace(self, **fewer, notes=(*self.notes, note))

    def with_validation(self, fraction: float, seed: int) -> "Dataset":
        """Carves a stratified validation split from train; a dataset that brings its own keeps it.

        Args:
            fraction: float in [0, 1). The share of each class that moves; at least one picture and never all.
            seed: int. Which pictures move depends on it alone.
        """
        if self.validation is not None:
            return dataclasses.replace(self, keeps_validation=True)
        if fraction == 0:
            return self
        kept, moved = stratified_split(self.train.labels, fraction, seed, self.class_names)
        return dataclasses.replace(self, train=self.train.select(kept), validation=self.train.select(moved))


def _evenly_spaced(labels, count: int) -> np.ndarray:
    """Returns the indices of `count` pictures of each class, ascending."""
    taken = [np.empty(0, int)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        taken.append(members[np.arange(count) * len(members) // count] if count < len(members) else members)
    return np.sort(np.concatenate(taken))


def stratified_split(labels, fraction: float, seed: int, class_names) -> tuple[np.ndarray, np.ndarray]:
    """Splits indices by class: `(kept, moved)`, both in ascending order.

    Raises:
        UserError: a class has fewer than two pictures, so that one side would be without it.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    moved = []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            count = {0: "no picture", 1: "one picture"}[len(members)]
            raise UserError(
                f"class '{name}' has {count} to train on; each class needs at least two, one of them for validation: "
                "add pictures, remove the class, or give --validation-fraction 0"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        moved.append(rng.permutation(members)[:count])
    moved = np.sort(np.concatenate(moved))
    return np.setdiff1d(np.arange(len(labels)), moved), moved
