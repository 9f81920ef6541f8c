"""The table of `predict --csv`: a row a picture, added as pictures are answered, so that a broken-off work goes on."""

import contextlib
import csv
import io
import itertools
import os
from pathlib import Path

from keras_dogs.errors import Damaged
from keras_dogs.errors import UserError
from keras_dogs.errors import write_error
from keras_dogs.evaluation.inference import Prediction
from keras_dogs.system import terminal


class AnswerTable:
    """A CSV file that grows; a context manager.

    Args:
        file: Path.
        top_k: int. Breeds a row.
        has_sets: bool. Whether there is a column of sets.
        resume: bool. Whether the file may be there: its rows stay, and a last one that was cut off is removed.

    Attributes:
        done: set of str. The files that have a row, as `name_of` writes them.

    Raises:
        UserError: the file is there without `resume`, has other columns, or cannot be written.
    """

    def __init__(self, file: Path, top_k: int, has_sets: bool, resume: bool):
        self.file, self.top_k, self.has_sets = file, top_k, has_sets
        breeds = [(f"breed_{place}", f"probability_{place}") for place in range(1, top_k + 1)]
        self.columns = ["file", *itertools.chain(*breeds), *(["set"] if has_sets else [])]
        self.columns += ["unfamiliarity", "unfamiliar", "error"]
        if file.exists() and not resume:
            raise UserError(f"--csv {file}: exists; give --resume to go on with it, or choose another")
        try:
            with contextlib.ExitStack() as stack:
                self._opened = stack.enter_context(file.open("ab+"))
                self.done = self._read()
                stack.pop_all()  # it stays open where it is such a table
        except OSError as error:
            raise write_error(file, error) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._opened.close()

    def add(self, prediction: Prediction) -> None:
        """Adds a row.

        Raises:
            UserError: the system refuses.
        """
        try:
            self._opened.write(_line(self._row(prediction)))
        except OSError as error:
            raise write_error(self.file, error) from error

    def keep(self) -> None:
        """Brings the rows to the file: they are there whatever happens to this process."""
        try:
            self._opened.flush()
        except OSError as error:
            raise write_error(self.file, error) from error

    def _read(self) -> set[str]:
        """Returns the files that have a row; writes the header where there is none."""
        self._opened.seek(0)
        done, whole = set(), 0
        for number, line in enumerate(self._opened):
            if not line.endswith(b"\n"):
                break  # cut off
            if number == 0 and line != _line(self.columns):
                raise UserError(
                    f"--csv {self.file}: has other columns than these flags give; give those that it was begun with, "
                    "or choose another"
                )
            done |= {_first_field(self.file, number, line)} if number else set()
            whole += len(line)
        self._opened.truncate(whole)
        self._opened.seek(0, os.SEEK_END)
        if not whole:
            self._opened.write(_line(self.columns))
        return done

    def _row(self, prediction: Prediction) -> list:
        answer, name = prediction.answer, name_of(prediction.file)
        if answer is None:
            empty = [""] * (len(self.columns) - 2)
            return [name, *empty, terminal.one_line(prediction.error)]
        breeds = [cell for name, probability in answer.breeds for cell in (name, f"{probability:.6g}")]
        breeds += [""] * (2 * self.top_k - len(breeds))
        inside = [" ".join(answer.breed_set)] if self.has_sets else []
        strange = ["", ""]
        if answer.unfamiliarity is not None:
            strange = [f"{answer.unfamiliarity:.6g}", str(answer.is_unfamiliar).lower()]
        return [name, *breeds, *inside, *strange, ""]


def name_of(file: Path) -> str:
    """Returns a file's name as the table has it: control characters, line breaks among them, are escapes."""
    return terminal.printable(file)


def _line(row: list) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _first_field(file: Path, number: int, line: bytes) -> str:
    try:
        return next(csv.reader([line.decode()]))[0]
    except (csv.Error, UnicodeDecodeError, StopIteration, IndexError) as error:
        raise Damaged(f"--csv {file}: line {number + 1} is no row of such a table; choose another") from error
