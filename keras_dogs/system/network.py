"""Whether anything may be fetched."""

import contextlib
import os

_OFFLINE = "KERAS_DOGS_OFFLINE"
_NAMES = (_OFFLINE, "HF_HUB_OFFLINE")


def is_offline() -> bool:
    """Returns whether nothing may be fetched: `--offline`, or `HF_HUB_OFFLINE` as Hugging Face has it."""
    yes = ("1", "on", "true", "yes")
    return any(os.environ.get(name, "").lower() in yes for name in _NAMES)


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
