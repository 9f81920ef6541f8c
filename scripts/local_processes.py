"""Several processes on this host that train together, on any backend: `python scripts/local_processes.py 2 FLAGS`.

The flags are those of `train`. A trial of what launchers do on many hosts (docs/scaling.md). It gains nothing on a CPU.
"""

import json
import os
import random
import subprocess
import sys


def where_of(backend: str, port: int, count: int, process: int) -> tuple[dict[str, str], dict]:
    """How a process is told of the others: by its environment, and by flags of `train`."""
    if backend == "jax":
        return {}, {"coordinator": f"127.0.0.1:{port}", "num_processes": count, "process_id": process}
    if backend == "torch":
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": process}
        return {name: str(value) for name, value in {**told, "LOCAL_RANK": process}.items()}, {}
    workers = [f"127.0.0.1:{port + number}" for number in range(count)]
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": process}})}, {}


def main() -> int:
    """Starts them and waits; gives the first status that is not 0."""
    count, *flags = sys.argv[1:]
    port, threads = random.randrange(20_000, 30_000), max((os.cpu_count() or 1) // int(count), 1)
    running = []
    for process in range(int(count)):
        environment, told = where_of(os.environ.get("KERAS_BACKEND", "tensorflow"), port, int(count), process)
        more = [part for name, value in told.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **environment}
        running.append(subprocess.Popen([sys.executable, "-m", "keras_dogs.train", *flags, *more], env=environment))
    statuses = [child.wait() for child in running]
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
