"""All pictures of a dataset in one row, whichever split they are of."""

from typing import NamedTuple

import numpy as np

from keras_dogs.checking.looks import Look
from keras_dogs.checking.looks import look_at
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split


class Pool(NamedTuple):
    """The pictures of a dataset.

    Attributes:
        names, splits: lists of str. What each picture is called, and which split it is of.
        labels: int array `(num_pictures,)`.
        class_names: tuple of str.
        looks: list of `Look`; `None` where the picture is unreadable.
        grey: uint8 array `(num_pictures, 64, 64)`.
        unreadable: dict of an index to the reason.
        places: list of `(Split, index in it)`.
    """

    names: list[str]
    splits: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    looks: list[Look | None]
    grey: np.ndarray
    unreadable: dict[int, str]
    places: list[tuple[Split, int]]

    def label(self, index: int) -> str:
        """Returns the name of a picture's class."""
        return self.class_names[self.labels[index]]

    def read(self, index: int):
        """Returns a picture, RGB; raises `UnreadablePicture`."""
        split, place = self.places[index]
        return split.read(place)

    def file(self, index: int):
        """Returns the path of a picture's file, or `None` where it is not a file of its own."""
        split, place = self.places[index]
        return split.file(place)


def look_at_all(dataset: Dataset) -> Pool:
    """Looks at every picture of every split."""
    splits = dataset.splits
    looked = {name: look_at(split, f"the {name} pictures") for name, split in splits.items()}
    starts = dict(zip(splits, np.cumsum([0, *map(len, splits.values())])))
    return Pool(
        names=[name for split in splits.values() for name in split.names],
        splits=[name for name, split in splits.items() for _ in split.names],
        labels=np.concatenate([split.labels for split in splits.values()]),
        class_names=dataset.class_names,
        looks=[look for found in looked.values() for look in found.looks],
        grey=np.concatenate([found.grey for found in looked.values()]),
        unreadable={
            int(starts[name]) + index: reason
            for name, found in looked.items()
            for index, reason in sorted(found.unreadable.items())
        },
        places=[(split, place) for split in splits.values() for place in range(len(split))],
    )
