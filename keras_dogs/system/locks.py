"""Locks between processes: one that is refused while another process holds it, and one that waits."""

import contextlib
import os
from pathlib import Path

import filelock

from keras_dogs.errors import UserError
from keras_dogs.system import progress


@contextlib.contextmanager
def held(file: Path, otherwise: str):
    """Holds a lock for the block, and deletes its file; the lock is also released if the process is killed.

    The file is deleted first: whoever takes the lock in between must find a new one.

    Args:
        file: Path. The lock file.
        otherwise: str. What the user is told where another process holds it.

    Raises:
        UserError: another process holds it.
    """
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(otherwise) from error
    try:
        yield
    finally:
        if os.name == "nt":  # no open file can be deleted there
            lock.release()
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


def remove_stale(file: Path, seconds: float = 0.0) -> None:
    """Removes the lock file that a killed process left; waits up to `seconds` for a process that is alive."""
    if file.is_file():
        with contextlib.suppress(filelock.Timeout, OSError), filelock.FileLock(file, timeout=seconds):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def waited_for(file: Path, what: str, made: Path):
    """Holds a lock for the block, after waiting until no other process holds it, which is said.

    Args:
        file: Path. The lock file.
        what: str. What another process that holds it is doing.
        made: Path. What the block makes: once it is there, the lock is needed no more, and its file is deleted.
    """
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.open_console().print(f"another process is {what}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        if made.exists():
            with contextlib.suppress(OSError):  # Windows deletes no open file
                file.unlink(missing_ok=True)
        lock.release()
