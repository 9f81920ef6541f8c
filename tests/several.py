"""Processes that train together, as their launchers would start them.

`python several.py CONFIGS.json` is one of them, or one alone; it trains once for each config, one after the other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from local_processes import where_of

from keras_dogs import backends
from keras_dogs import commands
from keras_dogs.backends.on_torch import launching
from keras_dogs.training.config import TrainConfig


def start(folder: Path, configs: list[TrainConfig], count: int = 2) -> list[subprocess.Popen]:
    """Begins `count` processes; what process N says is in `folder/N.log`."""
    port = launching.free_port()
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for process in range(count):
        where, flags = where_of(os.environ["KERAS_BACKEND"], port, count, process) if count > 1 else ({}, {})
        file = folder / f"{process}.json"
        file.write_text(json.dumps([{**config.to_plain(), **flags} for config in configs]))
        with (folder / f"{process}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, str(file)],
                    env={**os.environ, "OMP_NUM_THREADS": "1", **where},
                    stdout=log,
                    stderr=log,
                )
            )
    return processes


def wait(processes: list[subprocess.Popen], seconds: float = 600) -> list[int]:
    """The exit statuses; none is left running."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def _train(config: TrainConfig) -> None:
    backends.load()
    from keras_dogs.training.fine_tuning import fine_tune

    for plain in json.loads(Path(_configs).read_text()):
        fine_tune(TrainConfig.from_plain(plain))


if __name__ == "__main__":
    _configs = sys.argv.pop(1)
    commands.leave(lambda: commands.run("train", TrainConfig, _train))
