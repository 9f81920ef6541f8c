"""Which files in a folder are ours: each folder that we write has a manifest, and nothing else is replaced or removed.

A manifest lists relative paths, or patterns of them (`checkpoints/step-*.npz`). A folder in a folder of ours may have a
manifest of its own, as a run in a comparison has.
"""

import contextlib
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from keras_dogs.errors import UserError
from keras_dogs.system import locks
from keras_dogs.system import reading
from keras_dogs.system.files import TEMPORARY
from keras_dogs.system.files import write_text

MANIFEST = ".keras_dogs.json"
LOCK = ".lock"
# The kinds of folders, by the command that makes them.
TRAIN, COMPARE, EVALUATE, EXPLAIN, DRAW, CACHE, EXPORT, CHECK = (
    "train",
    "compare",
    "evaluate",
    "explain",
    "draw",
    "cache",
    "export",
    "check",
)
_SCHEMA_VERSION = 1
_PASSING = (MANIFEST, LOCK)  # ours in any folder


class _Manifest(TypedDict):
    schema_version: int
    made_by: str
    files: list[str]


def check_output(output: Path, made_by: str, recognise: Callable[[Path], bool] = lambda folder: False) -> None:
    """Refuses an output folder that holds files of the user's, before anything is run.

    Args:
        output: Path. It need not exist.
        made_by: str. The kind of folder: `TRAIN`, `COMPARE`, ...
        recognise: function of a folder without a manifest: whether an earlier version made it.

    Raises:
        UserError: it is a file, a broken link, or a folder with anything in it that we did not make.
    """
    if output.absolute().name:  # it is not the root
        locks.remove_stale(_lock_of(output.absolute()))
    if not output.exists():
        if output.is_symlink():
            raise UserError(f"--output {output}: is a link to nothing; choose another --output")
        return
    if not output.is_dir():
        raise UserError(f"--output {output}: is a file; choose a folder")
    others = [path.name for path in sorted(output.iterdir()) if not _is_passing(path)]
    if not others or kind_of(output) == made_by or recognise(output):
        return
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    raise UserError(
        f"--output {output}: exists and holds what keras_dogs.{made_by} did not make ({shown}); choose another --output"
    )


def check_new(output: Path, made_by: str) -> None:
    """Refuses an output folder with anything in it, also with what we made, before anything is run.

    Raises:
        UserError: as `check_output`, or there is something in it.
    """
    check_output(output, made_by)
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"--output {output}: exists; remove it, or choose another --output")


def kind_of(folder: Path) -> str | None:
    """Returns which command made a folder, by its manifest; `None` where there is none."""
    return _read(folder).get("made_by")


def claim(folder: Path, made_by: str, files: Iterable[str]) -> None:
    """Writes the manifest, in place of an earlier one.

    Args:
        folder: Path.
        made_by: str. The command.
        files: iterable of str. Paths or patterns below `folder`.
    """
    content = {"schema_version": _SCHEMA_VERSION, "made_by": made_by, "files": sorted(set(files))}
    write_text(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def listed(folder: Path) -> list[str]:
    """Returns the entries of a folder's manifest; none where there is no manifest."""
    return _read(folder).get("files", [])


def own_files(folder: Path) -> set[Path]:
    """Finds the files below a folder that manifests list, and the manifests themselves."""
    found: set[Path] = set()
    for path in folder.rglob("*"):
        if path.name == MANIFEST:
            found.update(each for name in listed(path.parent) for each in _named(path.parent, name))
        if _is_passing(path):
            found.add(path)
    return {path for path in found if path.is_file() or path.is_symlink()}


def _named(folder: Path, name: str) -> list[Path]:
    """Returns the files that a line of a manifest stands for: that very name, or all that fit the pattern."""
    path = folder / name
    if path.exists() or path.is_symlink():
        return [path]
    try:
        return list(folder.glob(name))
    except ValueError:  # a file's name that is no pattern; it is gone
        return []


def strangers(folder: Path) -> list[Path]:
    """Returns the files and links below a folder that we did not make, by name."""
    own = own_files(folder)
    return sorted(path for path in folder.rglob("*") if path not in own and (path.is_symlink() or not path.is_dir()))


def refuse_strangers(output: Path) -> None:
    """Refuses to replace a folder of ours into which the user has put something.

    Raises:
        UserError: it names the file.
    """
    for path in strangers(output)[:1]:
        raise UserError(
            f"--output {output}: holds {path.relative_to(output)}, which keras_dogs did not make and would be lost; "
            "move it, or choose another --output"
        )


def remove(folder: Path, is_locked: bool = False) -> None:
    """Removes the files of ours below a folder, then the folders that are empty; what is not ours stays.

    Args:
        folder: Path.
        is_locked: bool. Whether this process holds the folder's lock: its file stays, as Windows deletes no open file.
    """
    for path in own_files(folder) - ({folder / LOCK} if is_locked else set()):
        path.unlink(missing_ok=True)
    below = [path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()]
    for path in (*sorted(below, reverse=True), folder):
        with contextlib.suppress(OSError):  # it is not empty
            path.rmdir()


def check_replaceable(folder: Path, names: Iterable[str]) -> None:
    """Refuses to write over files that are not ours in a folder that is.

    Raises:
        UserError: it names the first.
    """
    own = own_files(folder)
    for path in (folder / name for name in names):
        if (path.exists() or path.is_symlink()) and path not in own:
            raise UserError(f"{path}: is not a file that keras_dogs made; move it, or choose another --output")


@contextlib.contextmanager
def no_empty_parents(path: Path):
    """Removes, after the block, the folders above a path that it made and left empty."""
    made = [parent for parent in path.absolute().parents if not parent.exists()]
    try:
        yield
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # there is something in it
                parent.rmdir()


@contextlib.contextmanager
def new_folder(output: Path, made_by: str):
    """Provides a temporary folder that is renamed to `output` on success and removed on failure.

    Args:
        output: Path. It does not exist, or is an empty folder; `check_output` has seen it.
        made_by: str. For the manifest, which lists all that the block has written.
    """
    output = output.resolve()  # `.` has no name, and a link stays
    with no_empty_parents(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        otherwise = f"--output {output}: another process writes there; wait for it, or choose another"
        with locks.held(_lock_of(output), otherwise), _partial(output, made_by) as partial:
            yield partial
            written = [path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()]
            claim(partial, made_by, (name for name in written if name != MANIFEST))
            if output.is_dir():
                output.rmdir()
            partial.rename(output)


@contextlib.contextmanager
def _partial(output: Path, made_by: str):
    """Provides a folder beside an output, and removes it afterwards unless it has been renamed."""
    _remove_stale(output, made_by)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name[:200]}-", dir=output.parent))
    try:
        partial.chmod(0o777 & ~_umask())
        claim(partial, made_by, ["**/*"])  # until it is known what was written
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lock_of(output: Path) -> Path:
    """Returns the lock file that a process holds while it fills the folder that will become `output`."""
    return output.with_name(f".{output.name[:200]}.lock")


def _remove_stale(output: Path, made_by: str) -> None:
    """Removes what killed attempts have left behind; the caller holds the lock, so no other attempt is under way."""
    for folder in output.parent.glob(f".{glob.escape(output.name[:200])}-????????"):
        if folder.is_dir() and (kind_of(folder) == made_by or all(map(_is_passing, folder.iterdir()))):
            remove(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_passing(path: Path) -> bool:
    return path.name in _PASSING or path.name.startswith(TEMPORARY)


def _read(folder: Path) -> dict:
    """Returns the manifest, where it is whole and of a version that is known."""
    try:
        found = reading.read_json(folder / MANIFEST, _Manifest)
    except UserError:
        return {}
    # A pattern that leads out of the folder is not one of ours.
    is_sound = all(name and not name.startswith("/") and ".." not in Path(name).parts for name in found["files"])
    return found if is_sound and found["schema_version"] == _SCHEMA_VERSION else {}
