"""The flags of `compare`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from keras_dogs.comparison import pairs
from keras_dogs.data.config import SEEDS
from keras_dogs.errors import UserError
from keras_dogs.runs.records import BACKENDS
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges
from keras_dogs.system.flags import refuse_idle

BackendName = Literal[BACKENDS]
Budget = Literal["epochs", "time", "flops"]
PairName = Literal[tuple(pairs.PAIRS)]


_OF_TRAINING = (
    "backends",
    "seeds",
    "dataset",
    "data_dir",
    "exclude",
    "epochs",
    "budget",
    "train_flags",
    "jobs",
    "gpus",
)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Train presets on backends with seeds, and report which is better, by how much, and at what cost.

    Give a --pair, or --presets; or --from finished runs. After an interruption, the same command continues.
    """

    pair: PairName | None = None
    """embedded (nano presets on drawn dogs: a demonstration), customary (ResNet-50 of ImageNet-1k and ViT-B/16 of
    ImageNet-21k), or same-pretraining (ResNet-50 and DeiT-B, both of ImageNet-1k)."""
    presets: tuple[str, ...] = ()
    """What to train: anything that --preset of train takes."""
    backends: tuple[BackendName, ...] = ()
    """On which backends; default: all that are installed."""
    seeds: tuple[int, ...] = (0,)
    """One run per seed, to show how much of the result is luck."""
    dataset: str | None = None
    """As for train; default: the pair's, or drawn_dogs."""
    data_dir: Path | None = None
    """As for train."""
    exclude: Path | None = None
    """As for train: a list of pictures that no run trains or validates on."""
    epochs: int | None = None
    """Passes over the train split; default: the pair's, the recipe's, or the preset's."""
    budget: Budget = "epochs"
    """What is equal for all presets: epochs, time, or flops. With time or flops, the first preset trains for its own
    epochs, the others for as many as take as long (measured in a run of one epoch each) or as many operations."""
    train_flags: str = ""
    """More flags of train for every run, in one string after =: --train-flags="--linear-probe --canvas-size 224"."""
    from_: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = ()
    """Run folders that were made elsewhere, to compare instead, or beside."""
    output: Path = Path("comparison")
    """Where the runs, the report and results.json go."""
    jobs: int | None = None
    """Number of runs at a time; default: 1, or one per GPU in --gpus. More than 1 on a CPU spoils the timings."""
    gpus: tuple[str, ...] = ()
    """The GPUs to spread the runs over, by number."""

    def __post_init__(self):
        check_ranges(self, {"seeds": SEEDS, "jobs": Range(1, 1000), "epochs": Range(1, 10**6)})
        if self.gpus and (self.jobs or 1) > len(self.gpus):
            raise UserError(f"--jobs {self.jobs}: more than the {len(self.gpus)} of --gpus")
        if self.pair and self.presets:
            raise UserError("--pair and --presets: give one of them")
        if not (self.pair or self.presets or self.from_):
            raise UserError("give --pair, --presets or --from: what is to be compared?")
        if not (self.pair or self.presets):
            refuse_idle(self, _OF_TRAINING, "on runs that were made elsewhere (--from)")
        for flag, values in (
            ("presets", self.presets),
            ("backends", self.backends),
            ("seeds", self.seeds),
            ("gpus", self.gpus),
        ):
            if len(set(values)) < len(values):
                raise UserError(f"--{flag} {' '.join(map(str, values))}: lists a value twice")
