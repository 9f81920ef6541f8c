"""Whether anything may be fetched."""

import os

_OFFLINE = "KERAS_DOGS_OFFLINE"


def is_offline() -> bool:
    """Returns whether nothing may be fetched: `--offline`, or `HF_HUB_OFFLINE` as Hugging Face has it."""
    yes = ("1", "on", "true", "yes")
    return any(os.environ.get(name, "").lower() in yes for name in (_OFFLINE, "HF_HUB_OFFLINE"))


def go_offline() -> None:
    """Forbids every download in this process."""
    os.environ[_OFFLINE] = os.environ["HF_HUB_OFFLINE"] = "1"
