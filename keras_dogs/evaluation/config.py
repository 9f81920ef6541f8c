"""The flags of `evaluate`, `predict` and `explain`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from keras_dogs.data.config import BATCHES
from keras_dogs.data.config import LARGEST_SIDE
from keras_dogs.data.config import SplitName
from keras_dogs.errors import UserError
from keras_dogs.system import ownership
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges
from keras_dogs.system.flags import flag_of
from keras_dogs.system.flags import refuse_idle


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Score a trained classifier on a split of a dataset; or a preset as it comes, with its own ImageNet head."""

    run: Annotated[str, tyro.conf.Positional]
    """A run folder, a .keras file, or a preset, scored untrained by the rows of its ImageNet head for the breeds."""
    dataset: str | None = None
    """Another dataset with the same classes; default: the run's own."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; default: as in training."""
    split: SplitName = "test"
    """The split of the dataset to score."""
    batch_size: int = 32
    """Pictures per batch; the scores do not depend on it."""
    max_unreadable: float = 0.01
    """Share of pictures that may be unreadable before the evaluation is refused."""
    skip_unreadable: bool = False
    """Leave unreadable pictures out however many they are."""
    cache_dir: Path | None = None
    """The folder where decoded pictures are kept; default: KERAS_DOGS_CACHE, or this system's usual cache folder."""
    image_size: int | None = None
    """For a preset: side of the square that the backbone sees, in pixels; default: the preset's."""
    offline: bool = False
    """Fetch nothing; what is not in a cache is an error."""
    saved: bool = False
    """Score the predictions that the run left in predictions.npz, without the model."""
    output: Path | None = None
    """The folder for a report: report.md, report.html, figures, scores and predictions."""
    against: tuple[Path, ...] = ()
    """Runs or evaluations (their --output) on the same pictures to compare with: the preset's own head, a linear
    probe."""
    overlap_list: Path | None = None
    """A list of files that the pretraining used, a name a line: the page splits the score into these and the rest."""
    exclude: Path | None = None
    """A list of pictures that are not scored, such as the exclude.txt of `python -m keras_dogs.check`; the page says
    what they would change."""
    json: bool = False
    """Print the scores as one JSON object."""

    def __post_init__(self):
        check_ranges(self, {"batch_size": BATCHES, "image_size": Range(1, LARGEST_SIDE), "max_unreadable": Range(0, 1)})
        if self.saved:
            names = ("batch_size", "image_size", "max_unreadable", "skip_unreadable", "cache_dir")
            refuse_idle(self, names, "on predictions that were saved (--saved)")
        if self.skip_unreadable:
            refuse_idle(self, ("max_unreadable",), "together with --skip-unreadable, which lifts the limit")
        if self.dataset not in (None, "stanford_dogs"):
            refuse_idle(self, ("data_dir",), "except with --dataset stanford_dogs")
        for flag in ("against", "overlap_list"):
            if getattr(self, flag) and not self.output:
                raise UserError(f"{flag_of(flag)}: is for the page; give --output, too")
        if self.output:
            ownership.check_new(self.output, ownership.EVALUATE)


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Name the breeds in pictures."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, a .keras file, or an exported folder."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files, folders of them, or quoted globs such as 'dogs/*.jpg'."""
    top_k: int = 5
    """How many breeds per picture, most probable first."""
    coverage: float | None = None
    """Also give the smallest set of breeds that holds the right one with this probability, 0.5 to 0.99; it holds on
    average over pictures like those of validation."""
    batch_size: int = 32
    """Pictures per batch."""
    json: bool = False
    """Print one JSON object per picture, each on its own line."""
    output: Path | None = None
    """The file for what would otherwise be printed."""
    csv: Path | None = None
    """The CSV file for a table with one row per picture, written while pictures are being answered."""
    resume: bool = False
    """Go on with the table of --csv: pictures that have a row are passed over."""

    def __post_init__(self):
        check_ranges(self, {"top_k": Range(1, 10**6), "batch_size": BATCHES, "coverage": Range(0.5, 0.99)})
        if not self.pictures:
            raise UserError("PICTURES: none were given; name files, folders or quoted globs")
        if self.csv:
            refuse_idle(self, ("json", "output"), "together with --csv, which is another way to write answers")
        elif self.resume:
            raise UserError("--resume: goes on with a table; give --csv, too")
        if self.output and self.output.exists():
            raise UserError(f"--output {self.output}: exists; remove it, or choose another")


@dataclasses.dataclass(frozen=True)
class ExplainConfig:
    """Show where a classifier looked: attention rollout of a ViT, Grad-CAM of a ResNet."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a .keras file."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files, folders of them, or quoted globs."""
    output: Path = Path("explanations")
    """The folder for one figure per picture."""

    def __post_init__(self):
        if not self.pictures:
            raise UserError("PICTURES: none were given; name files, folders or quoted globs")
        ownership.check_output(self.output, ownership.EXPLAIN)
