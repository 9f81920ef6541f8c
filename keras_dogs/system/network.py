"""Whether anything may be fetched."""

import contextlib
import os
import re

from keras_dogs.errors import first_line

_OFFLINE = "KERAS_DOGS_OFFLINE"
_NAMES = (_OFFLINE, "HF_HUB_OFFLINE")


def is_offline() -> bool:
    """Returns whether nothing may be fetched: `--offline`, or `HF_HUB_OFFLINE` as Hugging Face has it."""
    yes = ("1", "on", "true", "yes")
    return any(os.environ.get(name, "").lower() in yes for name in _NAMES)


_SIGNS = ("ConnectionError", "HTTPSConnectionPool", "HTTPConnectionPool", "URLError", "gaierror", "MaxRetryError")
_HOST = re.compile(r"(?:host=['\"]?|://)(?P<host>[\w.-]+)")


def in_words(error: BaseException) -> str:
    """Returns one line on why a download failed: the host that could not be reached, or what the error says."""
    said, chain = [], error
    while chain is not None:
        said.append(f"{type(chain).__name__}: {chain}")
        chain = chain.__cause__ or chain.__context__
    text = " ".join(said)
    if any(sign in text for sign in _SIGNS):
        host = _HOST.search(text)
        where = f" to {host['host']}" if host else ""
        return f"no connection{where}; try again with a network, or give what is on this disk"
    return first_line(error)


@contextlib.contextmanager
def offline(wanted: bool = True):
    """Forbids every download within it, in child processes too, and leaves the process as it was.

    Args:
        wanted: bool. `False` changes nothing.
    """
    before = {name: os.environ.get(name) for name in _NAMES}
    if wanted:
        os.environ.update(dict.fromkeys(_NAMES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
