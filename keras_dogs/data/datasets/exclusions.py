"""The list of pictures to leave out: `check` writes it, `--exclude` of `train`, `evaluate` and `compare` takes it.

Each line names a picture as the dataset does; a reason may follow, after a space and `#`. Lines that begin with `#` are
comments. A name that could be misread (it begins with `#` or a quote, or has a space before a `#` or at its ends) is
written as a JSON string, in quotes.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.system import reading
from keras_dogs.system import terminal

_REASON = re.compile(r"\s+#\s*")
_DIVISION = "# Division into train and test: "


class Exclusions(NamedTuple):
    """A list of pictures to leave out.

    Attributes:
        file: Path. Where it stands.
        reasons: dict of a picture's name to why it is left out; the text up to a colon is the kind of reason.
        digest: str. 16 hexadecimal digits of the SHA-256 of the names.
        division: str. `Dataset.division` of the dataset that `check` looked at; empty in a list of the user's own.
    """

    file: Path
    reasons: dict[str, str]
    digest: str
    division: str = ""


def line_of(name: str, reason: str) -> str:
    """Returns the line of a list that leaves out a picture."""
    is_odd = name[:1] in ("#", '"') or name != name.strip() or _REASON.search(name) or not name.isprintable()
    return f"{json.dumps(name) if is_odd else name}  # {terminal.one_line(reason)}"


def division_line(dataset: Dataset) -> str:
    """Returns the comment line that records which division into train and test a list was made for."""
    return _DIVISION + dataset.division


def read_exclusions(file: Path) -> Exclusions:
    """Reads a list.

    Raises:
        UserError: it cannot be read, or a name in quotes is damaged.
    """
    reasons, division = {}, ""
    try:
        for number, line in enumerate(reading.read_text(file).removeprefix("\ufeff").split("\n"), 1):
            line = line.strip()
            if line.startswith(_DIVISION):
                division = line.removeprefix(_DIVISION)
            elif line and not line.startswith("#"):
                name, reason = _parse(line, f"{file}: line {number}")
                reasons.setdefault(name, reason)
    except UserError as error:
        raise UserError(f"--exclude {error.args[0]}") from error
    digest = hashlib.sha256("\n".join(sorted(reasons)).encode(errors="surrogatepass")).hexdigest()[:16]
    return Exclusions(file, reasons, digest, division)


def _parse(line: str, where: str) -> tuple[str, str]:
    if not line.startswith('"'):
        name, *reason = _REASON.split(line, maxsplit=1)
        return name, "".join(reason)
    try:
        name, end = json.JSONDecoder().raw_decode(line)
    except ValueError as error:
        raise UserError(f"{where}: a name in quotes that is not closed") from error
    return name, _REASON.sub("", line[end:], count=1)


def leave_out(dataset: Dataset, exclusions: Exclusions) -> Dataset:
    """Leaves the listed pictures out of the train and validation splits; the test split stays whole.

    Raises:
        UserError: the list names pictures that the dataset has not, or leaves a class with none to train on.
    """
    check_names(known_names(dataset), dataset.name, exclusions)
    train, validation = _without(dataset.train, exclusions), dataset.validation
    if lacking := set(range(len(dataset.class_names))) & set(dataset.train.labels) - set(train.labels):
        name = dataset.class_names[min(lacking)]
        raise UserError(
            f"--exclude {exclusions.file}: leaves no picture of '{name}' to train on; keep one, or add some"
        )
    if validation is not None:
        validation = _without(validation, exclusions)
        if not len(validation):
            raise UserError(f"--exclude {exclusions.file}: leaves no picture to validate on; keep some")
    tested = set(dataset.test.names)
    excluded = tuple(sorted(name for name in exclusions.reasons if name not in tested))
    notes = [f"left out of train and validation by --exclude {exclusions.file}: {len(excluded):,} pictures"]
    if num_tested := len(exclusions.reasons) - len(excluded):
        notes[0] += f"; on the list, but of the test split, which is scored whole: {num_tested:,}"
    if exclusions.division not in ("", dataset.division):
        notes.append(
            f"warning: {exclusions.file} was made for another division into train and test, so that leaks may remain; "
            "make it anew with python -m keras_dogs.check, with the same --seed"
        )
    return dataclasses.replace(
        dataset,
        train=train,
        validation=validation,
        excluded=excluded,
        exclusions_digest=exclusions.digest,
        notes=(*dataset.notes, *notes),
    )


def known_names(dataset: Dataset) -> set[str]:
    """Returns the names of the pictures of every split."""
    return {name for split in dataset.splits.values() for name in split.names}


def check_names(known: set[str], dataset_name: str, exclusions: Exclusions) -> None:
    """Refuses a list that names pictures which are not known.

    Raises:
        UserError: it names the first of them.
    """
    if strangers := [name for name in exclusions.reasons if name not in known]:
        raise UserError(
            f"--exclude {exclusions.file}: {len(strangers):,} of its {len(exclusions.reasons):,} names are no pictures "
            f"of {dataset_name}, such as {strangers[0]}; put a space and # before each reason, or make the list again: "
            "python -m keras_dogs.check"
        )


def _without(split: Split, exclusions: Exclusions) -> Split:
    kept = [index for index, name in enumerate(split.names) if name not in exclusions.reasons]
    return split if len(kept) == len(split) else split.select(np.array(kept, np.int64))
