"""Write drawn dogs as picture files: `python -m keras_dogs.draw --output dogs`."""

import sys

from keras_dogs import commands
from keras_dogs.config import DrawConfig


def main() -> int:
    """The command."""
    return commands.run("draw", DrawConfig, _draw)


def _draw(config: DrawConfig) -> None:
    from keras_dogs.datasets.drawn_dogs import write_drawn_dogs

    count = write_drawn_dogs(config.output, config.train_pictures, config.test_pictures, config.seed)
    print(f"{count:,} pictures in {config.output}")


if __name__ == "__main__":
    sys.exit(main())
