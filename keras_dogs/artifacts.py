"""Run folders: written beside their place and moved there whole, so that no half-written one is ever left."""

import contextlib
import csv
import os
import shutil
from pathlib import Path

import numpy as np

from keras_dogs.errors import NO_SPACE
from keras_dogs.errors import UserError
from keras_dogs.errors import write_error

RECORD, MODEL, HISTORY, STEPS, PREDICTIONS = "record.json", "model.keras", "history.csv", "steps.csv", "predictions.npz"
CHECKPOINTS = "checkpoints"


def choose_output(output: Path | None, default_name: str, overwrite: bool) -> Path:
    """Decides where a run goes, before anything long is begun.

    Args:
        output: Path or `None`. What the user asked for; `None` takes the first free `runs/<default_name>[-N]`.
        default_name: str.
        overwrite: bool. Whether a run that is there may be replaced.

    Raises:
        UserError: there is something at `output` already.
    """
    if output is None:
        names = (f"{default_name}-{number}" if number > 1 else default_name for number in range(1, 10_000))
        return next(path for path in (Path("runs") / name for name in names) if not path.exists())
    if output.is_dir() and not any(output.iterdir()):
        return output
    if output.exists() and not (output / RECORD).is_file():
        raise UserError(f"--output {output}: exists and is not a run folder; choose another --output")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output}: holds a finished run; give --overwrite to replace it, or another --output")
    return output


@contextlib.contextmanager
def run_folder(output: Path):
    """Gives a hidden folder beside `output` to write in, which becomes `output` if the block ends well, else goes.

    Raises:
        UserError: the disk refuses, at any point inside.
    """
    partial = output.parent / f".{output.name}.{os.getpid()}.partial"
    try:
        (partial / CHECKPOINTS).mkdir(parents=True)
        yield partial
        _replace(partial, output)
    except OSError as error:
        if error.errno in NO_SPACE or error.filename is None or str(error.filename).startswith(str(partial)):
            raise write_error(output, error) from error
        raise UserError(f"{error.filename}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(partial: Path, output: Path) -> None:
    """Moves `partial` to `output`; an older run there goes only once the new one is in its place."""
    retired = partial.with_suffix(".retired")
    if output.exists():
        output.rename(retired)
    try:
        partial.rename(output)
    except OSError:
        if retired.exists():
            retired.rename(output)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def write_table(path: Path, rows: list[dict]) -> None:
    """Writes rows of equal keys as CSV, header first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_predictions(path: Path, names, labels, logits, class_names) -> None:
    """Writes what scores are computed from, so that nothing needs the model again.

    Holds `names` (str), `labels` (int32), `logits` (float32, `(num_pictures, num_classes)`) and `class_names` (str).
    """
    np.savez_compressed(
        path,
        names=np.asarray(names, dtype=str),
        labels=np.asarray(labels, np.int32),
        logits=np.asarray(logits, np.float32),
        class_names=np.asarray(class_names, dtype=str),
    )


def find_model(run: Path) -> Path:
    """The `.keras` file of a run folder, or the file itself.

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
