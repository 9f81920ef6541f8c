"""Several processes on this host that train together, on any backend: `python scripts/local_processes.py 2 FLAGS`.

The flags are those of `train`. A trial of what launchers do on many hosts (docs/scaling.md). It gains nothing on a CPU.
"""

import json
import os
import subprocess
import sys

from keras_dogs.backends.on_torch import launching


def where_of(backend: str, port: int, count: int, process: int) -> tuple[dict[str, str], dict]:
    """How a process is told of the others: by its environment, and by flags of `train`."""
    if backend == "jax":
        return {}, {"coordinator": f"127.0.0.1:{port}", "num_processes": count, "process_id": process}
    if backend == "torch":
        return launching.environment_of(port, count, process), {}
    workers = [f"127.0.0.1:{port + number}" for number in range(count)]
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": process}})}, {}


def main() -> int:
    """Starts them and waits; gives the first status that is not 0."""
    count, *flags = sys.argv[1:]
    port, running = launching.free_port(), []
    for process in range(int(count)):
        environment, given = where_of(os.environ.get("KERAS_BACKEND", "tensorflow"), port, int(count), process)
        more = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        environment = {**launching.threads_of(int(count)), **os.environ, **environment}
        running.append(subprocess.Popen([sys.executable, "-m", "keras_dogs.train", *flags, *more], env=environment))
    statuses = [child.wait() for child in running]
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
