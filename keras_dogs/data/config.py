"""Which pictures a command reads, and how they become canvases: the flags, with their help."""

import dataclasses
from pathlib import Path
from typing import Literal

from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges

Cache = Literal["auto", "device", "disk", "memory", "none"]
Fit = Literal["squash", "crop", "pad"]
SplitName = Literal["train", "validation", "test"]
# The largest side of a picture or canvas, in pixels: four times the largest input of any model here.
LARGEST_SIDE = 4096
SEEDS = Range(0, 2**31 - 1)
BATCHES = Range(1, 10**6)
_RANGES = {
    "pictures_per_class": Range(1, 10**6),
    "validation_fraction": Range(0, 1, below=True),
    "max_unreadable": Range(0, 1),
    "canvas_size": Range(1, LARGEST_SIDE),
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they become canvases."""

    dataset: str = "drawn_dogs"
    """drawn_dogs (embedded), stanford_dogs (TensorFlow Datasets), or a folder: class/picture, train/ and test/ of them,
    or the official Stanford layout (Images/ and lists/)."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; if images.tar, annotation.tar and lists.tar lie there, they are used."""
    exclude: Path | None = None
    """A list of pictures to leave out of train and validation, such as the exclude.txt of `python -m keras_dogs.check`;
    the test split stays whole."""
    pictures_per_class: int | None = None
    """Take at most this many pictures of each class from each split, for a quick look; default: all."""
    validation_fraction: float = 0.1
    """Share of each class of the train split to set aside for validation; 0 for none. A folder with validation/ keeps
    its own."""
    canvas_size: int | None = None
    """Side in pixels to which each picture is resized once; default 8/7 of the image size (256 for 224), or the image
    size without augmentation."""
    fit: Fit = "squash"
    """How a picture becomes square: squash the whole, crop the centre, or pad with black."""
    cache: Cache = "auto"
    """Where decoded pictures are kept: disk, for later runs too (`python -m keras_dogs.cache` shows and empties it);
    device, from there in the memory of the accelerator; memory, for this run alone; none, decoded anew each epoch;
    auto: device where they fit, else disk."""
    cache_dir: Path | None = None
    """The folder of that cache; default: KERAS_DOGS_CACHE, or this system's usual cache folder."""
    max_unreadable: float = 0.01
    """Share of pictures that may be unreadable before the run is refused; they are listed and left out."""
    skip_unreadable: bool = False
    """Leave unreadable pictures out however many they are; the record counts them."""

    def __post_init__(self):
        check_ranges(self, _RANGES)

    @property
    def unreadable_limit(self) -> float:
        """The share of unreadable pictures above which a run is refused."""
        return 1.0 if self.skip_unreadable else self.max_unreadable
