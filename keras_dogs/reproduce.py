"""Train a recorded run again, and tell whether it comes out the same: `python -m keras_dogs.reproduce RUN`."""

import os

from keras_dogs import commands
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.training.config import ReproduceConfig


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("reproduce", ReproduceConfig, _reproduce)


def _reproduce(config: ReproduceConfig) -> int | None:
    from keras_dogs import backends

    record = RunRecord.load(config.run / artifacts.RECORD)
    os.environ.setdefault("KERAS_BACKEND", record.backend)
    backends.load()
    from keras_dogs.training.reproducing import reproduce

    outcome = reproduce(config, commands.STARTED)
    if outcome is None:
        return None  # the first of several processes says it
    print(outcome)
    return 0 if outcome.is_same else 1


if __name__ == "__main__":
    commands.leave(main)
