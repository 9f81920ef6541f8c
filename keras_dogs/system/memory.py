"""Tells how much memory the machine has to give."""

import contextlib
from pathlib import Path


def available_bytes() -> int | None:
    """Returns the memory that a program can still take without swapping; `None` where the system does not tell."""
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return None
