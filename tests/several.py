"""Processes that train together, as their launchers would start them: for `test_devices.py`, and a program of its own.

`python several.py CONFIGS.json` is one of them; it trains once for each config, one after the other.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from keras_dogs import backend
from keras_dogs import commands
from keras_dogs.config import TrainConfig


def start(folder: Path, configs: list[TrainConfig], count: int = 2, **environment) -> list[subprocess.Popen]:
    """Begins `count` processes; what process N says is in `folder/N.log`."""
    port = random.randrange(20_000, 30_000)
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for process in range(count):
        where = where_of(port, count, process) if count > 1 else {}
        file = folder / f"{process}.json"
        file.write_text(json.dumps([{**config.to_plain(), **where.get("flags", {})} for config in configs]))
        with (folder / f"{process}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, str(file)],
                    env={**os.environ, "OMP_NUM_THREADS": "1", **where.get("environment", {}), **environment},
                    stdout=log,
                    stderr=log,
                )
            )
    return processes


def where_of(port: int, count: int, process: int) -> dict:
    """How a process of this backend is told of the others."""
    here = f"127.0.0.1:{port}"
    if os.environ["KERAS_BACKEND"] == "jax":
        return {"flags": {"coordinator": here, "num_processes": count, "process_id": process}}
    if os.environ["KERAS_BACKEND"] == "torch":
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": process}
        return {"environment": {name: str(value) for name, value in told.items()}}
    workers = [f"127.0.0.1:{port + number}" for number in range(count)]
    told = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": process}}
    return {"environment": {"TF_CONFIG": json.dumps(told)}}


def wait(processes: list[subprocess.Popen], seconds: float = 240) -> list[int]:
    """The exit statuses; none is left running."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def _train(config: TrainConfig) -> None:
    backend.select()
    from keras_dogs.training import fine_tune

    for plain in json.loads(Path(_configs).read_text()):
        fine_tune(TrainConfig.from_plain(plain))


if __name__ == "__main__":
    _configs = sys.argv.pop(1)
    commands.leave(commands.run("train", TrainConfig, _train))
