"""The one exception that a user's mistake raises; commands turn it into one line and exit status 2."""

import contextlib
import errno
import re

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_speaks_of_flags = [False]


@contextlib.contextmanager
def naming_flags():
    """Makes errors name flags (`--batch-size`) inside a `with` block, as commands need; elsewhere, arguments."""
    before, _speaks_of_flags[0] = _speaks_of_flags[0], True
    try:
        yield
    finally:
        _speaks_of_flags[0] = before


def install_line(extra: str) -> str:
    """Returns how to install an extra of this package; it is on no package index yet."""
    return f"pip install '.[{extra}]' in your copy of the repository"


class UserError(Exception):
    """Something the user can put right. Its text is one line that names the thing and what to do."""

    def __str__(self):
        text = super().__str__()
        if _speaks_of_flags[0]:
            return text
        return re.sub(r"(?<![\w-])--([a-z][a-z-]*[a-z])", _as_argument, _COMMANDS.sub(_kept, text)).replace("\0", "--")


# A command that a text quotes keeps its flags.
_COMMANDS = re.compile(r"python -m keras_dogs\.[^;]*")


def _kept(found: re.Match) -> str:
    return found[0].replace("--", "\0")


def _as_argument(found: re.Match) -> str:
    return found[1].replace("-", "_")


class Damaged(UserError):
    """The content of a file is not what its kind of file holds; another copy of it may be sound."""


class Diverged(UserError):
    """A loss or a weight that is not finite ended the training."""


def first_line(error: BaseException) -> str:
    """Returns what an exception says, as one line; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def write_error(path, error: OSError, flag: str = "--output") -> UserError:
    """Turns a failed write into a `UserError` that names `path` and what to do about it: another value of `flag`."""
    reason = error.strerror or str(error)
    remedy = f"free some space or choose another {flag}" if error.errno in NO_SPACE else f"choose another {flag}"
    return UserError(f"cannot write {path}: {reason}; {remedy}")


def in_words(error: OSError) -> str:
    """Says what the system refused, and of which file, in one line."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in NO_SPACE:
        reason += "; free some space"
    return f"{' and '.join(names)}: {reason}" if names else reason


class Quiet(Exception):
    """Ends this process without a message, because another process of the same run reports the error.

    Args:
        status: int. The exit status.
    """

    def __init__(self, status: int):
        super().__init__()
        self.status = status


class Interrupted(Exception):
    """A signal stopped the work at a place from which it can go on. Its text is one line.

    Args:
        text: str.
        status: int. The exit status: 130 of Ctrl-C, 143 of SIGTERM.
    """

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status
