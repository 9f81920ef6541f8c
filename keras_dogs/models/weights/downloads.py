"""Fetches weights by address, each once: `hf://` repositories and `.npz` files of google-research."""

import math
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from keras_dogs.errors import install_line
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.system import caches
from keras_dogs.system import locks
from keras_dogs.system import progress
from keras_dogs.system.network import in_words
from keras_dogs.system.network import is_offline

_BUCKET = "https://storage.googleapis.com/"

# The checkpoints behind TF Hub's ViTs, all of gs://vit_models/augreg (sayakpaul/ViT-jax2tf, model-selector.ipynb). Its
# feature extractors (`_fe`) are the same networks without their heads.
_TF_HUB = {
    "vit_s16": "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "vit_b8": "B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224",
    "vit_b16": "B_16-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "vit_b32": "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "vit_l16": "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224",
}


def address_of_npz(preset: str) -> str | None:
    """Returns the https address that a preset stands for, or `None`: `gs://`, `https://...npz`, a handle of TF Hub.

    Raises:
        UserError: a handle of TF Hub without a checkpoint that can be loaded.
    """
    if preset.startswith("gs://"):
        return _BUCKET + preset.removeprefix("gs://")
    handle = re.match(
        r"https://(?:tfhub\.dev|www\.kaggle\.com/models)/sayakpaul/(\w+?)_(?:fe|classification)\b", preset
    )
    if handle:
        if handle[1] not in _TF_HUB:
            raise Wanted(preset).error(
                f"no plain ViT behind it (R+ViT hybrids cannot be loaded); known are {', '.join(_TF_HUB)}"
            )
        return f"{_BUCKET}vit_models/augreg/{_TF_HUB[handle[1]]}.npz"
    return preset if preset.startswith("https://") and preset.endswith(".npz") else None


def fetch_npz(wanted: Wanted, address: str) -> Path:
    """Returns the file at `address`, from the cache or the network; whole and checked, or not there.

    Raises:
        UserError: offline and not in the cache, no network, or the file is not what the server says it is.
    """
    name = re.sub(r"[^\w.,=+-]", "_", address.removeprefix(_BUCKET).removeprefix("https://"))
    file = caches.folder("npz") / name
    if file.is_file():  # pooch moves a file here only once it is whole
        caches.touch(file)
        return file
    if is_offline():
        raise wanted.error(f"offline, and {address} is not in {file.parent}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locks.waited_for(caches.lock_of_download(name), f"fetching {address}", file):
            if not file.is_file():  # another process may have fetched it meanwhile
                _fetch_npz(address, file)
        return file
    except Exception as error:  # urllib, http.client and pooch each raise their own kinds
        raise wanted.error(f"{address} could not be fetched: {in_words(error)}") from error


def _fetch_npz(address: str, file: Path) -> None:
    import pooch

    md5 = _md5(address)
    part = file.with_name(f"{file.name}.{md5 or os.getpid()}.part")
    caches.keep_download(file.name)
    caches.keep_download(part.name)
    downloader = _Downloader(part, resumes=bool(md5))
    pooch.retrieve(address, md5 and f"md5:{md5}", file.name, file.parent, downloader=downloader)


class _Downloader:
    """Downloads for pooch, and resumes an interrupted download, which pooch's own downloaders do not.

    Args:
        part: Path. The partial file, named after the checksum (if the server sends one): a changed file is not resumed.
        resumes: bool. Whether there is a checksum, without which nobody knows what a partial file is of.
    """

    def __init__(self, part: Path, resumes: bool):
        self.part, self.resumes = part, resumes

    def __call__(self, address, output_file, pooch):
        have = self.part.stat().st_size if self.resumes and self.part.exists() else 0
        request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            self._fetch(request, have)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:  # nothing comes after what is here: pooch checks whether it is the file
                raise
        shutil.move(self.part, output_file)

    def _fetch(self, request: urllib.request.Request, have: int) -> None:
        with urllib.request.urlopen(request, timeout=60) as answer:
            goes_on, length = answer.status == 206, answer.headers["Content-Length"]
            with self.part.open("ab" if goes_on else "wb") as file:
                self._copy(answer, file, length and int(length))
        size = int(length or 0) + (have if goes_on else 0)
        if self.part.stat().st_size < size:
            raise OSError(f"the connection broke off at {self.part.stat().st_size:,} of {size:,} bytes; try again")

    def _copy(self, answer, file, length: int | None) -> None:
        text = f"Fetching {self.part.name.rsplit('.', 2)[0]}"
        shown = progress.counting(f"{text} (MiB)", math.ceil(length / 2**20)) if length else progress.waiting(text)
        with shown as on_mebibyte:
            while chunk := answer.read(2**20):
                file.write(chunk)
                on_mebibyte()


def _md5(address: str) -> str | None:
    """Returns the MD5 sum from `x-goog-hash`; `None` from a server that does not send one."""
    import base64

    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            hashes = ",".join(answer.headers.get_all("x-goog-hash") or [])
    except urllib.error.HTTPError as error:
        error.close()
        raise
    found = re.search(r"md5=([A-Za-z0-9+/=]+)", hashes)
    return base64.b64decode(found[1]).hex() if found else None


def fetch_hugging_face(wanted: Wanted, repository: str) -> Path:
    """Returns the folder of a Hugging Face repository, from its cache or the network; configs and safetensors alone.

    Raises:
        UserError: huggingface_hub is not installed; offline and not in the cache; no such repository; no network.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise wanted.error(f"needs huggingface_hub: {install_line('hugging-face')}") from error
    name, _, revision = repository.partition("@")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=["*.json", "*.safetensors", "*.weights.h5"],
                local_files_only=is_offline(),
            )
        )
    except Exception as error:
        raise wanted.error(f"could not be fetched from Hugging Face: {in_words(error)}") from error
