"""What POSIX systems have and Windows has not: each function does without it there."""

import contextlib
import os
import signal
import subprocess
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None

# What a child runs first, so that Linux sends it SIGTERM when its parent is killed and can no longer do so itself.
# (Not a `preexec_fn`: that is a fork of a process whose framework has threads.)
_DIE_WITH_PARENT = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    set_death_signal = 1  # prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def peak_memory_bytes() -> int:
    """Returns the most memory that was this process' own at a time; 0 where the system does not tell."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def allow_open_files(most: int) -> None:
    """Raises the number of files and connections that this process may have open, as far as the system lets it."""
    if resource is None:
        return
    with contextlib.suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def program_of_child(arguments: list[str]) -> dict:
    """Returns how `subprocess.Popen` starts `python ARGUMENTS` so that a Ctrl-C reaches the parent alone."""
    if os.name == "nt":  # `execv` would end the process that is waited for
        return {"args": [sys.executable, *arguments], "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"args": [sys.executable, "-c", _DIE_WITH_PARENT, *arguments], "start_new_session": True}


def tell_to_stop(child: subprocess.Popen) -> None:
    """Tells a child to save and stop: by SIGTERM, or on Windows, where that would kill it, by Ctrl-Break."""
    child.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGTERM)


def name_of_signal(number: int) -> str:
    """Returns `"SIGKILL"` for 9, or the number where the system has no such signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
