"""Python processes that do not outlive the one that began them."""

import subprocess

from keras_dogs.system import posix

StillRunning = subprocess.TimeoutExpired  # of a wait


def start(arguments: list[str], environment: dict[str, str], output=None) -> subprocess.Popen:
    """Begins `python ARGUMENTS`.

    A Ctrl-C reaches the parent alone, which tells the child: two signals would mean "at once".

    Args:
        arguments: list of str.
        environment: dict of str to str.
        output: file or `None`. Where the child's words go; `None` for this process' own places.
    """
    streams = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(env=environment, **streams, **posix.program_of_child(arguments))
