"""The user's cache folder: what is decoded, downloaded or compiled once for all runs.

What we keep there may be removed at any time. What else lies in the folder is the user's: files of ours are known by
their names, downloads by a manifest.
"""

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import filelock
import platformdirs

from keras_dogs.errors import UserError
from keras_dogs.system import locks
from keras_dogs.system import ownership
from keras_dogs.system import reading
from keras_dogs.system import terminal

_VARIABLE = "KERAS_DOGS_CACHE"
_DOWNLOADS = "npz"
# File names that nobody else uses: a hash of the pictures, or of the pictures and a model; JAX's names of compiled
# programs; XLA's cache folders.
_CANVASES = r"[0-9a-f]{24}\.(json|canvases|partial|lock)"
_FEATURES = r"[0-9a-f]{24}\.npz"
_PART = r"\.[0-9a-f]+\.part$"
_COMPILED = r".+-[0-9a-f]{64}-(cache|atime)|xla_gpu_\w+_cache_dir"


class Entry(NamedTuple):
    """Something that is kept.

    Attributes:
        kind: str. `"canvases"`, `"features"`, `"npz"` or `"compiled"`.
        name: str. What it is, for a person.
        files: tuple of Path. A folder counts with all that is in it.
        size: int. Bytes.
        used: float. When it was made or last used, seconds of the epoch.
    """

    kind: str
    name: str
    files: tuple[Path, ...]
    size: int
    used: float


def root() -> Path:
    """Returns the folder that all lies in."""
    given = os.environ.get(_VARIABLE)
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("keras_dogs"))


def folder(kind: str) -> Path:
    """Returns the folder for one kind of entry: `"canvases"`, `"features"`, `"npz"` or `"compiled"`."""
    return root() / kind


@contextlib.contextmanager
def use(given: Path | None):
    """Uses another cache folder within the block, in child processes too; `None` changes nothing.

    Raises:
        UserError: it is a file.
    """
    if given is not None and given.exists() and not given.is_dir():
        raise UserError(f"--cache-dir {given}: not a folder")
    before = os.environ.get(_VARIABLE)
    if given is not None:
        os.environ[_VARIABLE] = str(given.absolute())
    try:
        yield
    finally:
        if given is not None:
            os.environ.pop(_VARIABLE) if before is None else os.environ.update({_VARIABLE: before})


def entries(older_than: float = 0.0) -> list[Entry]:
    """Returns what is kept, by kind and then by when it was last used.

    Args:
        older_than: float. Only what was not used for so many days.
    """
    found = [_entry("canvases", _name(files[0]), files) for files in _canvases()]
    found += [_entry("npz", file.name, (file,)) for file in _in("npz") if _is_download(file)]
    features = [file for file in _in("features") if re.fullmatch(_FEATURES, file.name)]
    found += [_entry("features", file.name, (file,)) for file in features]
    before = time.time() - older_than * 86_400
    found.append(_compiled(before))
    return sorted(
        (entry for entry in found if entry and entry.used <= before), key=lambda entry: (entry.kind, entry.used)
    )


def _compiled(before: float) -> Entry | None:
    """Describes, as one entry, the programs that were last used before a time."""
    programs: dict[str, list[Path]] = {}
    for file in _in("compiled"):
        if re.fullmatch(_COMPILED, file.name):
            programs.setdefault(re.sub("-(cache|atime)$", "", file.name), []).append(file)
    entries = [_entry("compiled", name, tuple(files)) for name, files in programs.items()]
    old = [entry for entry in entries if entry and entry.used <= before]
    if not old:
        return None
    files = tuple(file for entry in old for file in entry.files)
    used = max(entry.used for entry in old)
    return Entry("compiled", f"programs: {len(old)}", files, sum(entry.size for entry in old), used)


def remove(old: list[Entry]) -> list[Entry]:
    """Removes entries that no process is using; returns the rest. A mapped file stays until unmapped."""
    left = []
    for entry in old:
        try:
            with _unused(entry):
                for file in entry.files:
                    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        except UserError:  # it is being written
            left.append(entry)
        except PermissionError:
            if os.name != "nt":
                raise
            left.append(entry)  # it is mapped: Windows deletes no open file
    return left


def _unused(entry: Entry):
    """Returns a context in which nobody else makes an entry."""
    if entry.kind == "canvases":
        return locks.held(entry.files[0].with_suffix(".lock"), "")
    if entry.kind == _DOWNLOADS:
        return locks.held(lock_of_download(entry.files[0].name), "")
    return contextlib.nullcontext()


def lock_of_download(name: str) -> Path:
    """Returns the lock that a process holds while it fetches a file, which goes by the name of its part, too."""
    return folder(_DOWNLOADS) / f".{re.sub(_PART, '', name)}.lock"


def touch(file: Path) -> None:
    """Notes that a file is still used, for `entries`; it may be another user's."""
    with contextlib.suppress(OSError):
        os.utime(file)


def keep_download(name: str) -> None:
    """Notes that a file among the downloads, or its unfinished part, is ours before it is there."""
    downloads = folder(_DOWNLOADS)
    downloads.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(downloads / ownership.LOCK):
        ownership.claim(downloads, ownership.CACHE, (*ownership.listed(downloads), name))


def _is_download(file: Path) -> bool:
    """Returns whether it was fetched by us; in this system's own place for our cache, also by an earlier version."""
    is_own_place = folder(_DOWNLOADS) == Path(platformdirs.user_cache_dir("keras_dogs")) / _DOWNLOADS
    return file.name in ownership.listed(folder(_DOWNLOADS)) or (is_own_place and file.suffix in (".npz", ".part"))


def _in(kind: str) -> list[Path]:
    return sorted(folder(kind).iterdir()) if folder(kind).is_dir() else []


def _canvases() -> list[tuple[Path, ...]]:
    """Returns the files of each, its description first where it is whole."""
    by_stem: dict[str, list[Path]] = {}
    for file in _in("canvases"):
        if re.fullmatch(_CANVASES, file.name) and file.suffix != ".lock":
            by_stem.setdefault(file.stem, []).append(file)
    return [tuple(sorted(files, key=lambda file: file.suffix != ".json")) for files in by_stem.values()]


def _name(description: Path) -> str:
    """Returns the name in a description of canvases; there is none while they are made."""
    with contextlib.suppress(UserError, KeyError):
        if description.suffix == ".json":
            return terminal.one_line(reading.read_json(description)["name"])
    return f"unfinished, {description.name}"


def _entry(kind: str, name: str, files: tuple[Path, ...]) -> Entry | None:
    """Describes an entry; `None` where another process has removed it meanwhile."""
    stats = []
    for path in (path for file in files for path in (file, *file.rglob("*"))):
        with contextlib.suppress(OSError):
            stats.append(path.stat())
    if not stats:
        return None
    return Entry(kind, name, files, sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats))
