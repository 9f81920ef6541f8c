"""Write drawn dogs as picture files: `python -m keras_dogs.draw --output dogs`."""

import dataclasses
import sys
from pathlib import Path

from keras_dogs import commands
from keras_dogs.data.config import SEEDS
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges


@dataclasses.dataclass(frozen=True)
class DrawConfig:
    """Write drawn dogs as picture files: train/<breed>/ and test/<breed>/."""

    output: Path = Path("drawn_dogs")
    """The folder to write; must not exist, or be empty."""
    train_pictures: int = 60
    """Pictures per breed in train/."""
    test_pictures: int = 25
    """Pictures per breed in test/."""
    seed: int = 0
    """Another seed draws other dogs of the same breeds."""

    def __post_init__(self):
        pictures = Range(1, 10**6)
        check_ranges(self, {"train_pictures": pictures, "test_pictures": pictures, "seed": SEEDS})


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("draw", DrawConfig, _draw)


def _draw(config: DrawConfig) -> None:
    from keras_dogs.data.datasets.drawn_dogs import write_drawn_dogs

    count = write_drawn_dogs(config.output, config.train_pictures, config.test_pictures, config.seed)
    print(f"{count:,} pictures in {config.output}")


if __name__ == "__main__":
    sys.exit(main())
