"""Writes the table of `predict --csv`: a row per picture, added when it is answered, so that a job can be continued."""

import contextlib
import csv
import io
import itertools
import json
from pathlib import Path

from keras_dogs.errors import Damaged
from keras_dogs.errors import UserError
from keras_dogs.errors import write_error
from keras_dogs.evaluation.inference import Prediction
from keras_dogs.system import files
from keras_dogs.system import locks
from keras_dogs.system import terminal


class AnswerTable:
    """Adds answers to a CSV file; a context manager. A new file is created with its first row.

    The file is locked from here to the end of the context.

    Args:
        file: Path.
        run: Path. The run that gives the answers.
        top_k: int. Number of breeds per row.
        coverage: float or `None`. Coverage of the prediction sets; `None` for no such column.
        resume: bool. Whether to continue an existing file. Its rows stay, except those of unreadable pictures, which
            are tried again, and a last row that was cut off.

    Attributes:
        done: set of str. The files that have a row, as `name_of` writes them.

    Raises:
        UserError: the file exists without `resume`, holds something else or another run's answers, or another process
            writes there.
    """

    def __init__(self, file: Path, run: Path, top_k: int, coverage: float | None, resume: bool):
        self.file, self.run, self.top_k, self.coverage = file, name_of(run.resolve()), top_k, coverage
        breeds = [(f"breed_{place}", f"probability_{place}") for place in range(1, top_k + 1)]
        self.columns = ["file", *itertools.chain(*breeds), *([f"set_{100 * coverage:g}"] if coverage else [])]
        self.columns += ["unfamiliarity", "unfamiliar", "error", "run"]
        self.done: set[str] = set()
        self._opened = None
        if file.exists() and not resume:
            raise UserError(f"--csv {file}: exists; give --resume to continue it, or choose another")
        if not file.parent.is_dir():
            raise self._write_error(FileNotFoundError(2, "no such folder", str(file.parent)))
        otherwise = f"--csv {file}: another process writes there; wait for it, or choose another file"
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locks.held(file.with_name(f".{file.name}.lock"), otherwise))
                if file.exists():
                    self._keep_answered()
            except OSError as error:
                raise self._write_error(error) from error
            self._held = held.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.flush()
        finally:
            if self._opened:
                with contextlib.suppress(OSError):  # `flush` has raised it
                    self._opened.close()
            self._held.close()

    def add(self, prediction: Prediction) -> None:
        """Adds a row.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            if self._opened is None:
                self._opened = self.file.open("ab")
                if not self._opened.tell():
                    self._opened.write(_line(self.columns))
            self._opened.write(_line(self._row(prediction)))
        except OSError as error:
            raise self._write_error(error) from error

    def flush(self) -> None:
        """Flushes the rows to the file, so that they stay whatever happens to this process."""
        try:
            if self._opened:
                self._opened.flush()
        except OSError as error:
            raise self._write_error(error) from error

    def _write_error(self, error: OSError) -> UserError:
        return write_error(self.file, error, "--csv")

    def _keep_answered(self) -> None:
        """Reads the file, and rewrites it without rows of unreadable pictures and a row that was cut off."""
        content = self.file.read_bytes()
        lines, header = content.splitlines(keepends=True), _line(self.columns)
        if lines and not header.startswith(lines[0]):
            raise UserError(
                f"--csv {self.file}: has other columns than these flags give; give those that it was begun with, or "
                "choose another file"
            )
        kept = lines[:1] if lines[:1] == [header] else []
        for number, line in enumerate(lines[1:], 2):
            if not line.endswith(b"\n"):
                break  # cut off
            name, *_, error, run = _fields(self.file, number, line, len(self.columns))
            if run != self.run:
                raise UserError(f"--csv {self.file}: has answers of {run}; choose another file for those of {self.run}")
            if not error:
                kept.append(line)
                self.done.add(name)
        if b"".join(kept) != content:
            files.write_bytes(self.file, b"".join(kept))

    def _row(self, prediction: Prediction) -> list:
        answer, name = prediction.answer, name_of(prediction.file)
        if answer is None:
            return [name, *[""] * (len(self.columns) - 3), terminal.one_line(prediction.error), self.run]
        breeds = [cell for breed, share in answer.breeds for cell in (terminal.printable(breed), f"{share:.6g}")]
        breeds += [""] * (2 * self.top_k - len(breeds))
        inside = [json.dumps(list(answer.breed_set), ensure_ascii=False)] if self.coverage else []
        strange = ["", ""]
        if answer.unfamiliarity is not None:
            strange = [f"{answer.unfamiliarity:.6g}", str(answer.is_unfamiliar).lower()]
        return [name, *breeds, *map(terminal.printable, inside), *strange, "", self.run]


def name_of(file: Path) -> str:
    """Returns a file's name as the table has it, with control characters such as line breaks escaped."""
    return terminal.printable(file)


def _line(row: list) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _fields(file: Path, number: int, line: bytes, count: int) -> list[str]:
    try:
        (fields,) = csv.reader([line.decode()])
        if len(fields) == count:
            return fields
        problem = f"it has {len(fields)} of {count} fields"
    except (csv.Error, ValueError) as error:
        problem = str(error)
    raise Damaged(f"--csv {file}: line {number} is not a row of this table ({problem}); choose another file")
