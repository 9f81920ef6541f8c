"""Python processes that do not outlive the one that began them."""

import subprocess
import sys

StillRunning = subprocess.TimeoutExpired  # of a wait

# What a child runs first: on Linux it is then told to stop when its parent is killed, which could not tell it itself.
# (Not a `preexec_fn`: that is a fork of a process whose framework has threads.)
_DIE_WITH_PARENT = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    set_death_signal = 1  # prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def start(arguments: list[str], environment: dict[str, str], output=None) -> subprocess.Popen:
    """Begins `python ARGUMENTS`.

    A Ctrl-C reaches the parent alone, which tells the child: two signals would mean "at once".

    Args:
        arguments: list of str.
        environment: dict of str to str.
        output: file or `None`. Where the child's words go; `None` for this process' own places.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _DIE_WITH_PARENT, *arguments],
        env=environment,
        stdout=output,
        stderr=output,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
