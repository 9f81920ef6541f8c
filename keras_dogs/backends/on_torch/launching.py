"""`--devices` on PyTorch, whose engine has a process a device: starts them on this host, as `torchrun` would."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

from keras_dogs.backends.devices.engine import DeviceOptions
from keras_dogs.backends.devices.engine import check_count
from keras_dogs.errors import UserError
from keras_dogs.system import children
from keras_dogs.system import posix


def is_needed(spread: DeviceOptions, backend_name: str) -> bool:
    """Returns whether this process is to start others that do the work."""
    return spread.devices is not None and backend_name == "torch" and "RANK" not in os.environ and _count(spread) > 1


def launch(spread: DeviceOptions) -> int:
    """Runs this command in as many processes as there are devices; gives the exit status."""
    count, port = _count(spread), free_port()
    arguments, common = ["-m", "keras_dogs.train", *sys.argv[1:]], {**threads_of(count), **os.environ}
    running = [
        children.start(arguments, {**common, **environment_of(port, count, process)}) for process in range(count)
    ]
    return _wait(running, spread.peer_timeout)


def environment_of(port: int, count: int, process: int) -> dict[str, str]:
    """Returns the environment that `torchrun` gives a process, for several on one host."""
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count}
    return {name: str(value) for name, value in {**given, "RANK": process, "LOCAL_RANK": process}.items()}


def threads_of(count: int) -> dict[str, str]:
    """Returns the share of the cores that each of several processes gets, for those that read it."""
    return {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // count, 1))}


def _wait(running: list[subprocess.Popen], seconds: float) -> int:
    """Waits for the processes and passes signals on; kills the rest `seconds` after one fails. Returns the status."""

    def pass_on(number, frame):
        for child in running:
            posix.tell_to_stop(child) if os.name == "nt" else child.send_signal(number)

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


def _count(spread: DeviceOptions) -> int:
    import torch

    there = torch.cuda.device_count()
    if spread.devices == "all":
        return max(there, 1)
    check_count(spread.devices, there)
    return spread.devices


def free_port() -> int:
    """Returns a free port whose neighbour for the group (`Rendezvous.control_port`) is free as well."""
    # The system's random source: a training seeds Python's own, which would draw the previous training's ports again.
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        try:
            for each in (port, port + 1000):
                socket.create_server(("127.0.0.1", each)).close()
            return port
        except OSError:
            continue
    raise UserError("no free port on this host for several processes")
