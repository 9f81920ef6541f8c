"""Run a command, and kill it before its n-th operation on the disk: `python scripts/kill_before.py 3 train --epochs 1`.

With 0 it runs to its end. The last line of what it prints says how many operations there were.
"""

import os
import runpy
import signal
import sys

OPERATIONS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "truncate", "link", "symlink")


def main():
    """Counts the operations of `python -m keras_dogs.NAME`, and sends SIGKILL before the one that is asked for."""
    wanted, name, seen = int(sys.argv[1]), sys.argv[2], [0]

    def counting(function):
        def call(*arguments, **named):
            seen[0] += 1
            if seen[0] == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for operation in OPERATIONS:
        setattr(os, operation, counting(getattr(os, operation)))
    sys.argv = [name, *sys.argv[3:]]
    try:
        runpy.run_module(f"keras_dogs.{name}", run_name="__main__", alter_sys=True)
    finally:
        print("operations:", seen[0], flush=True)


if __name__ == "__main__":
    main()
