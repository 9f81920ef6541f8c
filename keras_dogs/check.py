"""Look for what is wrong with a dataset: `python -m keras_dogs.check DATASET --help`."""

import sys

from keras_dogs import commands
from keras_dogs.checking.config import CheckConfig


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("check", CheckConfig, _check)


def _check(config: CheckConfig) -> None:
    from keras_dogs import backends

    backends.load()
    from keras_dogs.checking.checking import check_dataset
    from keras_dogs.checking.page import summary_of

    found = check_dataset(config)
    for what, count, _ in summary_of(found):
        if count >= 0:
            print(f"{what:<52}{count:>8,}")
    if found["why_no_labels"]:
        print(f"labels: {found['why_no_labels']}")
    print(f"page: {config.output / 'report.html'}; list for --exclude: {config.output / 'exclude.txt'}")


if __name__ == "__main__":
    sys.exit(main())
