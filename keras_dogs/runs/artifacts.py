"""Manages run folders: which files they hold, who may write there, and writing each file whole or not at all."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import shlex
import shutil
import uuid
import zipfile
import zlib
from pathlib import Path

from keras_dogs.errors import NO_SPACE
from keras_dogs.errors import Damaged
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.errors import write_error
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import files
from keras_dogs.system import locks
from keras_dogs.system import ownership
from keras_dogs.system import reading

RECORD, MODEL, HISTORY, STEPS, PREDICTIONS = "record.json", "model.keras", "history.csv", "steps.csv", "predictions.npz"
CHECKPOINTS, LAST, SWEEP = "checkpoints", "last.keras", "sweep"
_OF_RECORDS = {"config", "backend", "schema_version"}  # which another tool's `record.json` has not
# The config of an unfinished run, for `--resume`; deleted when the run has finished.
CONFIG = "config.json"
LOCK, _TEMPORARY = ownership.LOCK, files.TEMPORARY
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
        return _OF_RECORDS <= reading.read_json(folder / RECORD).keys()
    except UserError:
        return False


def is_unfinished(folder: Path) -> bool:
    """Returns whether a run was begun there and has not ended."""
    return not is_finished(folder) and read_config(folder) is not None


def read_config(folder: Path) -> dict | None:
    """Reads the config of an unfinished run; `None` where there is none, or it is another tool's.

    What it says is checked by `training.config.TrainConfig.from_plain`.
    """
    try:
        config = reading.read_json(folder / CONFIG)
    except UserError:
        return None
    return config if {"data", "fingerprint"} <= config.keys() else None


def check_config(folder: Path) -> None:
    """Refuses a config of an unfinished run that was changed since the run was begun; earlier versions kept no digest.

    Raises:
        UserError: it was.
    """
    config = read_config(folder) or {}
    if config.get("digest", "") not in ("", _digest_of_config(config)):
        raise UserError(f"{folder / CONFIG}: was changed since the run was begun; put it back, or give --overwrite")


def _digest_of_config(config: dict) -> str:
    content = {name: value for name, value in config.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_of(folder: Path) -> str:
    """Returns the unique ID of an unfinished run; empty if an earlier version began it."""
    return (read_config(folder) or {}).get("run", "")


def digest_of(file: Path) -> str:
    """Returns a digest of a file's content, fit to tell whether it is the one that was written.

    Of a zip archive, such as a `.keras` or `.npz` file, it is that of the checksums in it, which are checked first.

    Raises:
        Damaged: the file is missing, or its content is not what was written.
        OSError: it cannot be read, which says nothing of its content.
    """
    if not file.is_file():
        raise Damaged(f"{file}: is missing")
    if file.suffix not in (".keras", ".npz"):
        return files.digest_of(file)
    try:
        with zipfile.ZipFile(file) as archive:
            if name := archive.testzip():
                raise Damaged(f"{file}: damaged: {name} in it is not what was written")
            members = sorted((member.filename, member.file_size, member.CRC) for member in archive.infolist())
        return hashlib.sha256(repr(members).encode()).hexdigest()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Damaged(f"{file}: damaged ({first_line(error)})") from error


def digests_of(folder: Path) -> dict[str, str]:
    """Returns the digests of the files that a record vouches for, those that are there."""
    return {name: digest_of(folder / name) for name in (MODEL, PREDICTIONS, HISTORY, STEPS) if (folder / name).exists()}


def write_record(folder: Path, record: RunRecord) -> RunRecord:
    """Writes the record of a run, which vouches for the files beside it; with it, the run is finished."""
    record = dataclasses.replace(record, digests=digests_of(folder))
    files.write_bytes(folder / RECORD, record.to_json().encode())
    return record


def check_belongs(file: Path) -> None:
    """Refuses a file of a finished run that is not the one which the record beside it was written with.

    Raises:
        UserError: it is another file, or is damaged; or the record is.
    """
    record = file.with_name(RECORD)
    if not record.is_file() or not _OF_RECORDS & reading.read_json(record).keys():
        return  # an evaluation's page, a model that was copied out of its run, or a record of another tool
    expected = RunRecord.load(record).digests.get(file.name)
    if expected and digest_of(file) != expected:
        raise UserError(
            f"{file}: is not the file that {RECORD} beside it was written with; put the original file back, or copy "
            "the run folder again"
        )


def _is_nothing(path: Path) -> bool:
    """Returns whether a path is one of those left by a run that was killed before it saved anything."""
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
    with ownership.no_empty_parents(output), _put_back(retired, output), errors_in_words(output):
        if not resume and output.exists():
            with locked(output):
                if is_finished(output) and not config.get("overwrite"):  # another process has finished it since
                    raise UserError(
                        f"--output {output}: another process has finished a run there; choose another --output"
                    )
                # If the run in `output` came to nothing, the run set aside before it is the one to keep.
                if _is_useful(output):
                    ownership.remove(retired)
                else:
                    ownership.remove(output, is_locked=True)
            if output.exists() and _is_useful(output):
                output.resolve().rename(retired)  # resolved, so that a symbolic link stays
        (output.resolve() / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        _claim(output)
        is_kept = not is_new and not retired.exists()
        with _gone_if_empty(output, is_kept), locked(output), _nothing_useless_left(output):
            for stale in output.rglob(f"{_TEMPORARY}*"):
                stale.unlink()
            if not (output / CONFIG).exists():
                begun = {**config, "run": uuid.uuid4().hex}
                begun["digest"] = _digest_of_config(begun)
                files.write_text(output / CONFIG, json.dumps(begun, indent=2) + "\n")
            yield output
            tidy(output)


@contextlib.contextmanager
def _put_back(retired: Path, output: Path):
    """Puts the run that was set aside back in its place, after the block, if the new one has left nothing."""
    try:
        yield
    finally:
        if retired.exists() and not output.exists():
            retired.rename(output.resolve())


@contextlib.contextmanager
def errors_in_words(output: Path):
    """Turns an `OSError` that the block raises into a `UserError` that names the folder or the file."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE or error.filename is None or _is_in(Path(str(error.filename)), output):
            raise write_error(output, error) from error
        raise UserError(f"{error.filename}: {error.strerror or error}") from error


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
def _gone_if_empty(folder: Path, is_kept: bool):
    """Deletes the folder after the block if there is nothing in it, unless it was there, and empty, before."""
    try:
        yield
    finally:
        if not is_kept:
            with contextlib.suppress(OSError):  # there is something in it
                folder.resolve().rmdir()


@contextlib.contextmanager
def _nothing_useless_left(folder: Path):
    """Empties the folder if there is nothing to resume from; otherwise tells an interrupted user how to resume."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if _is_useful(folder):
            status = stop.code if isinstance(stop, SystemExit) else 130
            raise Interrupted(f"interrupted; {how_to_go_on(folder)}", status) from stop
        raise
    finally:
        if not _is_useful(folder):
            ownership.remove(folder, is_locked=True)


def _is_useful(folder: Path) -> bool:
    return any(folder.rglob("step-*")) or any(folder.rglob(RECORD))


def how_to_go_on(folder: Path) -> str:
    """Returns the command that resumes an interrupted run, on the backend that it was begun with."""
    begun = (read_config(folder) or {}).get("backend")  # unknown on a host that does not share the folder
    backend = f"KERAS_BACKEND={begun} " if begun else ""
    return f"go on with: {backend}python -m keras_dogs.train --resume --output {shlex.quote(str(folder))}"


def locked(folder: Path, who: str = "process writes"):
    """Locks a folder for a `with` block; the lock is also released if the process is killed.

    Raises:
        UserError: another process holds the lock.
    """
    return locks.held(folder / LOCK, f"--output {folder}: another {who} there; wait for it, or choose another")


def wait_until_free(folder: Path, seconds: float) -> None:
    """Waits until no other process writes in a folder, such as one that is saving before it stops."""
    locks.remove_stale(folder / LOCK, seconds)


def write_table(path: Path, rows: list[dict]) -> None:
    """Writes rows as CSV, header first; what a row lacks, such as one of an earlier version, is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[-1]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    files.write_bytes(path, text.getvalue().encode())


def model_of(run: str | Path) -> Path | None:
    """Returns the model file that a path stands for: a `.keras` file, or that of a run folder; `None` for others."""
    path = Path(run)
    if path.suffix == ".keras" and path.is_file():
        return path
    return path / MODEL if (path / MODEL).is_file() else None


def find_model(run: Path) -> Path:
    """Returns the `.keras` file of a run folder, or the file itself.

    Raises:
        UserError: there is neither.
    """
    model = run / MODEL if run.is_dir() else run
    if not model.is_file() and is_unfinished(run):
        raise UserError(f"{run}: an unfinished run; {how_to_go_on(run)}")
    if not model.is_file():
        what = (
            f"no {MODEL} in this folder; is it a run folder?" if run.is_dir() else "no such run folder or .keras file"
        )
        raise UserError(f"{run}: {what}")
    return model
