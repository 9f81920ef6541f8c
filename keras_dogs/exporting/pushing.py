"""Pushes a folder for another library to a hub: `hf://USER/NAME` or `kaggle://USER/MODEL/FRAMEWORK/VARIATION`.

Hugging Face's huggingface_hub and Kaggle's kagglehub carry the files. A model is private unless it is asked to be
public; of Kaggle's, their page makes them public.
"""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.exporting import digests
from keras_dogs.system import network

_FORMS = {
    "hf": (re.compile(r"[\w][\w.-]*/[\w][\w.-]*"), "hf://USER/NAME"),
    "kaggle": (re.compile(r"[\w-]+/[\w-]+/\w+/[\w.-]+"), "kaggle://USER/MODEL/FRAMEWORK/VARIATION"),
}
_NOT_PUSHED = (".*", "*/.*")  # our manifest


class Target(NamedTuple):
    """Where a folder is to go.

    Attributes:
        hub: str. `"hf"` or `"kaggle"`.
        name: str. The model's, with its owner.
    """

    hub: str
    name: str

    def __str__(self):
        return f"{self.hub}://{self.name}"


class NotPushed(Exception):
    """A hub did not take the folder, through no mistake of the user's. Its text is one line."""


def parse(address: str) -> Target:
    """Returns what an address says.

    Raises:
        UserError: it has neither form.
    """
    hub, _, name = address.partition("://")
    if hub not in _FORMS or not _FORMS[hub][0].fullmatch(name):
        raise UserError(f"--push {address}: has to be {' or '.join(form for _, form in _FORMS.values())}")
    return Target(hub, name)


def check(target: Target) -> None:
    """Refuses a push that cannot succeed, before anything is written: no library, no token, no network wanted.

    Raises:
        UserError: it says what to do.
    """
    if network.is_offline():
        raise UserError(
            f"--push {target}: offline, as the environment asks; unset KERAS_DOGS_OFFLINE and HF_HUB_OFFLINE"
        )
    if target.hub == "kaggle":
        from kagglehub.config import get_kaggle_credentials

        if get_kaggle_credentials() is None:
            raise UserError(f"--push {target}: no credentials of Kaggle; make a token at kaggle.com/settings")
        return
    if not importlib.util.find_spec("huggingface_hub"):
        raise UserError(f"--push {target}: needs huggingface_hub: {install_line('hugging-face')}")
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise UserError(f"--push {target}: no token of Hugging Face; run `hf auth login`, or set HF_TOKEN")


def plan(folder: Path, target: Target, public: bool) -> list[str]:
    """Says in lines what would be pushed; nothing is sent."""
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in _files(folder)}
    whose = "public" if public else "private"
    lines = [f"would push {len(sizes)} files, {sum(sizes.values()) / 2**20:.1f} MiB, to {target} ({whose}):"]
    return lines + [f"  {size:>13,}  {name}" for name, size in sizes.items()]


def _files(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in found if not digests.is_hidden(file.relative_to(folder)))


def push(folder: Path, target: Target, public: bool, message: str) -> str:
    """Sends the folder.

    Args:
        folder: Path.
        target: `Target`.
        public: bool.
        message: str. What the hub's history says.

    Returns:
        The address of the model's page.

    Raises:
        UserError: the name is taken, or the token has no right to it.
        NotPushed: the hub cannot be reached, or refused it otherwise.
    """
    try:
        return (_push_to_kaggle if target.hub == "kaggle" else _push_to_hugging_face)(folder, target, public, message)
    except UserError:
        raise
    except Exception as error:  # both hubs, and what carries their requests, have kinds of their own
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"--push {target}: the hub refuses the token ({status}); make one that may write to "
                f"{target.name.partition('/')[0]}"
            ) from error
        raise NotPushed(f"--push {target}: {network.in_words(error)}") from error


def _push_to_hugging_face(folder: Path, target: Target, public: bool, message: str) -> str:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    if api.repo_exists(target.name):
        held = [name for name in api.list_repo_files(target.name) if name != ".gitattributes"]
        if held:
            raise UserError(f"--push {target}: there is a model of this name ({held[0]}, ...); choose another")
        if api.repo_info(target.name).private == public:
            is_there = "private" if public else "public"
            raise UserError(
                f"--push {target}: is there already, empty and {is_there}; change that on its page, or remove it"
            )
    else:
        api.create_repo(target.name, private=not public)
    api.upload_folder(
        repo_id=target.name, folder_path=folder, commit_message=message, ignore_patterns=list(_NOT_PUSHED)
    )
    return f"{api.endpoint}/{target.name}"


def _push_to_kaggle(folder: Path, target: Target, public: bool, message: str) -> str:
    import kagglehub

    kagglehub.model_upload(target.name, str(folder), version_notes=message, ignore_patterns=list(_NOT_PUSHED))
    return f"https://www.kaggle.com/models/{target.name}"
