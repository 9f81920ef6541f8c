"""`--devices` on PyTorch, whose engine has a process a device: starts them on this host, as `torchrun` would."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

from keras_dogs import children
from keras_dogs.config import TrainConfig
from keras_dogs.errors import UserError


def is_needed(config: TrainConfig, backend_name: str) -> bool:
    """Whether this process is to start others that do the work."""
    return config.devices is not None and backend_name == "torch" and "RANK" not in os.environ and _count(config) > 1


def launch(config: TrainConfig) -> int:
    """Runs this command in as many processes as there are devices; gives the exit status."""
    count, port = _count(config), _free_port()
    threads = max((os.cpu_count() or 1) // count, 1)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common = {"OMP_NUM_THREADS": str(threads), **os.environ, **common}
    arguments = ["-m", "keras_dogs.train", *sys.argv[1:]]
    running = [
        children.start(arguments, {**common, "RANK": str(process), "LOCAL_RANK": str(process)})
        for process in range(count)
    ]
    return _wait(running, config.peer_timeout)


def _wait(running: list[subprocess.Popen], seconds: float) -> int:
    """Passes signals on; what one process' failure leaves behind is ended, in the end by force."""

    def pass_on(number, frame):
        for child in running:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    deadline = None
    try:
        while any(child.poll() is None for child in running):
            failed = [child for child in running if child.poll()]
            deadline = deadline or (time.monotonic() + seconds if failed else None)
            if deadline and time.monotonic() > deadline:
                for child in running:
                    child.kill()
            time.sleep(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    statuses = [child.returncode for child in running if child.returncode]
    return next((status for status in statuses if status > 0), 2 if statuses else 0)


def _count(config: TrainConfig) -> int:
    import torch

    there = torch.cuda.device_count()
    if config.devices == "all":
        return max(there, 1)
    if there and config.devices > there:
        raise UserError(f"--devices {config.devices}: there are {there} here")
    if not there and config.devices > (os.cpu_count() or 1):
        raise UserError(f"--devices {config.devices}: there is no GPU here, and {os.cpu_count()} cores to try it on")
    return config.devices


def _free_port() -> int:
    """One whose neighbour for the group (`Rendezvous.control_port`) is free, too."""
    for port in random.sample(range(20_000, 30_000), 100):
        try:
            for each in (port, port + 1000):
                socket.create_server(("127.0.0.1", each)).close()
            return port
        except OSError:
            continue
    raise UserError("no free port on this host for several processes")
