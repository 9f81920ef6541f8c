"""The flags of `check`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from keras_dogs.data.config import SEEDS
from keras_dogs.errors import UserError
from keras_dogs.system import ownership
from keras_dogs.system.flags import check_ranges
from keras_dogs.system.flags import refuse_idle


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """Look for what is wrong with a dataset: leaks between splits, duplicates, wrong labels, unreadable files.

    Nothing in the dataset is changed. Labels are checked only if a model is available; the other checks need none.
    """

    dataset: Annotated[str | None, tyro.conf.Positional] = None
    """As --dataset of train; default: that of --run."""
    run: Path | None = None
    """A run trained on the dataset: the report says how the findings affect its test score, and its backbone's features
    are used to check labels."""
    preset: str | None = None
    """Check labels with the features of these weights, anything that --preset of train takes; default: of --run, or,
    for drawn_dogs, of resnet_nano."""
    output: Path = Path("check")
    """The folder for report.html, check.json and exclude.txt."""
    data_dir: Path | None = None
    """As for train."""
    seed: int = 0
    """As for train: it decides which pictures form the test split of a folder without test/."""
    cache_dir: Path | None = None
    """The folder where decoded pictures and features are kept; default: KERAS_DOGS_CACHE, or this system's usual
    cache folder."""
    offline: bool = False
    """Fetch nothing; what is not in a cache is an error."""

    def __post_init__(self):
        check_ranges(self, {"seed": SEEDS})
        if not (self.dataset or self.run):
            raise UserError("give a dataset, or --run with a run whose dataset is to be checked")
        if self.run:
            refuse_idle(self, ("seed",), "with --run, which has one of its own")
        if self.dataset not in (None, "stanford_dogs"):
            refuse_idle(self, ("data_dir",), "except with stanford_dogs")
        ownership.check_new(self.output, ownership.CHECK)
