"""Manages run folders: which files they hold, who may write there, and writing each file whole or not at all."""

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
from pathlib import Path

import filelock

from keras_dogs.errors import NO_SPACE
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import write_error
from keras_dogs.system import ownership

RECORD, MODEL, HISTORY, STEPS, PREDICTIONS = "record.json", "model.keras", "history.csv", "steps.csv", "predictions.npz"
CHECKPOINTS, LAST, SWEEP = "checkpoints", "last.keras", "sweep"
# The config of an unfinished run, for `--resume`; deleted when the run has finished.
CONFIG = "config.json"
LOCK, _TEMPORARY = ownership.LOCK, ownership.TEMPORARY
# The files that a run may write in its folder; each learning rate of a sweep has its own manifest.
_FILES = (
    *(RECORD, MODEL, HISTORY, STEPS, PREDICTIONS, CONFIG),
    *(f"{CHECKPOINTS}/{name}" for name in (LAST, "step-*", "best-*.keras", "head/step-*", "head/best-*.keras")),
    f"{SWEEP}/failures.json",
    "tensorboard/*",
    "wandb/**/*",
)


def choose_output(output: Path | None, default_name: str, overwrite: bool, resume: bool = False) -> Path:
    """Decides where a run goes, before anything long is begun.

    Args:
        output: Path or `None`. What the user asked for; `None` takes the first free `runs/<default_name>[-N]`, or, to
            resume, the unfinished one with the highest number.
        default_name: str.
        overwrite: bool. Whether an existing run may be replaced.
        resume: bool. Whether to continue an existing run.

    Raises:
        UserError: there is something at `output` already, or nothing to resume.
    """
    if output is None:
        first = Path("runs") / default_name
        paths = [first, *(first.with_name(f"{default_name}-{number}") for number in range(2, 10_000))]
        if not resume:
            return next(path for path in paths if not path.exists())
        found = next((path for path in reversed(paths) if is_unfinished(path)), None)
        if found is None:
            raise UserError(f"--resume: no unfinished run {first}; say which with --output")
        return found
    is_begun = output.is_dir() and (is_finished(output) or is_unfinished(output))
    if not is_begun and output.is_dir() and all(_is_nothing(path) for path in output.iterdir()):
        return output
    ownership.check_output(output, ownership.TRAIN, recognise=lambda _: is_begun)
    if not output.exists():
        return output
    if not is_begun and not overwrite:
        raise UserError(
            f"--output {output}: holds a run whose {RECORD} or {CONFIG} is missing or damaged; give --overwrite to "
            "start again, or choose another --output"
        )
    if overwrite and not resume:
        _claim(output)  # a run of an earlier version has no manifest
        ownership.refuse_strangers(output)
    if overwrite or resume:
        return output
    if is_finished(output):
        raise UserError(f"--output {output}: holds a finished run; give --overwrite to replace it, or another --output")
    raise UserError(
        f"--output {output}: holds an unfinished run; give --resume to go on with it, or --overwrite to start again"
    )


def is_finished(folder: Path) -> bool:
    """Returns whether a finished run is there; another tool's `record.json` does not count."""
    try:
        return {"config", "backend", "schema_version"} <= json.loads((folder / RECORD).read_text()).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def is_unfinished(folder: Path) -> bool:
    """Returns whether a run was begun there and has not ended."""
    return not is_finished(folder) and read_config(folder) is not None


def read_config(folder: Path) -> dict | None:
    """Reads the config of an unfinished run; `None` where there is none, or it is another tool's."""
    try:
        config = json.loads((folder / CONFIG).read_text())
        return config if {"data", "fingerprint"} <= config.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _is_nothing(path: Path) -> bool:
    """Returns whether a path is only what a run leaves that was killed before it wrote anything."""
    is_empty = path.name == CHECKPOINTS and path.is_dir() and not any(path.iterdir())
    return path.name in (LOCK, ownership.MANIFEST) or path.name.startswith(_TEMPORARY) or is_empty


def _claim(folder: Path) -> None:
    """Writes the manifest of a run, and those of the rates of a sweep that an earlier version made."""
    for part in (folder, *(path for path in (folder / SWEEP).glob("*") if is_finished(path) or is_unfinished(path))):
        if ownership.kind_of(part) is None:
            ownership.claim(part, ownership.TRAIN, _FILES)


@contextlib.contextmanager
def run_folder(output: Path, config: dict, resume: bool):
    """Yields `output`, locked for this run; if the block fails, keeps the folder only if it can be resumed.

    An earlier run is set aside, unless it is to be resumed, and is put back if the new one leaves nothing.

    Args:
        output: Path.
        config: dict. What is written to `config.json`.
        resume: bool.

    Raises:
        UserError: another process writes there, or a file cannot be written, also inside the block.
    """
    retired, is_new = _retired(output), not output.exists()
    if retired.exists() and not (is_finished(retired) or is_unfinished(retired)):
        raise UserError(f"{retired}: is in the way of --output {output}, and not a run folder; move it")
    if retired.exists():
        _claim(retired)  # left by an earlier version, it may have no manifest
    try:
        if not resume and output.exists():
            with locked(output):
                # If the run in `output` came to nothing, the run set aside before it is the one to keep.
                ownership.remove(retired if _is_useful(output) else output)
            if output.exists() and _is_useful(output):
                output.resolve().rename(retired)  # resolved, so that a symbolic link stays
        (output.resolve() / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        _claim(output)
        with locked(output), _nothing_useless_left(output, is_new or retired.exists()):
            for stale in output.rglob(f"{_TEMPORARY}*"):
                stale.unlink()
            if not (output / CONFIG).exists():
                write_bytes(output / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
            yield output
            tidy(output)
    except OSError as error:
        if error.errno in NO_SPACE or error.filename is None or _is_in(Path(str(error.filename)), output):
            raise write_error(output, error) from error
        raise UserError(f"{error.filename}: {error.strerror or error}") from error
    finally:
        if retired.exists() and not output.exists():
            retired.rename(output.resolve())


def _is_in(file: Path, folder: Path) -> bool:
    return file.absolute().is_relative_to(folder.absolute()) or file.absolute().is_relative_to(folder.resolve())


def tidy(folder: Path) -> None:
    """Deletes what a finished run no longer needs, its config last; safe to repeat after an interruption."""
    unused = [path for path in folder.glob(f"{CHECKPOINTS}/*") if path.name != LAST]
    for path in filter(Path.is_dir, unused):
        shutil.rmtree(path)
    for file in (*unused, *folder.rglob(f"{_TEMPORARY}*"), folder / CONFIG):
        file.unlink(missing_ok=True)
    ownership.remove(_retired(folder))


def _retired(output: Path) -> Path:
    """Returns where the earlier run of `output` is kept until its replacement has finished."""
    output = output.resolve()  # `.` has no name
    return output.with_name(f".{output.name}.retired")


@contextlib.contextmanager
def _nothing_useless_left(folder: Path, is_new: bool):
    """Deletes the folder if there is nothing to resume from; otherwise tells an interrupted user how to resume.

    A folder that existed before, empty, is left empty.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if _is_useful(folder):
            status = stop.code if isinstance(stop, SystemExit) else 130
            raise Interrupted(f"interrupted; {how_to_go_on(folder)}", status) from stop
        raise
    finally:
        if not _is_useful(folder):
            ownership.remove(folder)
            if not is_new:
                folder.mkdir(exist_ok=True)


def _is_useful(folder: Path) -> bool:
    return any(folder.rglob("step-*")) or any(folder.rglob(RECORD))


def how_to_go_on(folder: Path) -> str:
    """Returns the command that resumes an interrupted run, on the backend that it was begun with."""
    begun = (read_config(folder) or {}).get("backend")  # unknown on a host that does not share the folder
    backend = f"KERAS_BACKEND={begun} " if begun else ""
    return f"go on with: {backend}python -m keras_dogs.train --resume --output {shlex.quote(str(folder))}"


@contextlib.contextmanager
def locked(folder: Path, who: str = "process writes"):
    """Locks a folder for the block; the lock is also released if the process is killed.

    Raises:
        UserError: another process holds the lock.
    """
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(f"--output {folder}: another {who} there; wait for it, or choose another") from error
    try:
        yield
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def wait_until_free(folder: Path, seconds: float) -> None:
    """Waits until no other process writes in a folder, such as one that is saving before it stops."""
    if folder.is_dir():
        with contextlib.suppress(filelock.Timeout):
            filelock.FileLock(folder / LOCK).acquire(timeout=seconds).lock.release()


@contextlib.contextmanager
def written_whole(path: Path):
    """Yields a temporary path to write to, and moves that file to `path` in one step when the block ends."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: it holds either all of the new content or what it held before."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_table(path: Path, rows: list[dict]) -> None:
    """Writes rows of equal keys as CSV, header first."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def find_model(run: Path) -> Path:
    """Returns the `.keras` file of a run folder, or the file itself.

    Raises:
        UserError: there is neither.
    """
    model = run / MODEL if run.is_dir() else run
    if not model.is_file():
        what = (
            f"no {MODEL} in this folder; is it a run folder?" if run.is_dir() else "no such run folder or .keras file"
        )
        raise UserError(f"{run}: {what}")
    return model
