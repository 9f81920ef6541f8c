"""The one exception that a user's mistake raises; commands turn it into one line and exit status 2."""

import errno

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Something the user can put right. Its text is one line that names the thing and what to do."""


class Diverged(UserError):
    """A loss or a weight that is not finite ended the training."""


def require(holds: bool, flag: str, value, what: str) -> None:
    """Refuses the value of a flag.

    Args:
        holds: bool. Whether the value is as it must be.
        flag: str. As the user gives it: `"--epochs"`.
        value: what was given.
        what: str. What it must be.

    Raises:
        UserError: it does not hold.
    """
    if not holds:
        raise UserError(f"{flag} {value}: must be {what}")


def first_line(error: BaseException) -> str:
    """Returns what an exception says, as one line; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def write_error(path, error: OSError) -> UserError:
    """Turns a failed write into a `UserError` that names `path` and what to do about it."""
    reason = error.strerror or str(error)
    remedy = "free some space or choose another --output" if error.errno in NO_SPACE else "choose another --output"
    return UserError(f"cannot write {path}: {reason}; {remedy}")


class Quiet(Exception):
    """Another process of the training says what went wrong.

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
