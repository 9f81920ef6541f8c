"""The list of pictures to leave out: `check` writes it, `--exclude` of `train`, `evaluate` and `compare` takes it.

A line names a picture as the dataset does, with the reason behind two blanks and `# `. Lines that begin with `# ` are
comments. A name that could be taken for something else (it begins with `#` or a quote, or holds two blanks) stands in
quotes, as JSON has them.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.system import reading

_SEPARATOR = "  # "


class Exclusions(NamedTuple):
    """A list of pictures to leave out.

    Attributes:
        file: Path. Where it stands.
        reasons: dict of a picture's name to why it is left out; the text up to a colon is the kind of reason.
        digest: str. 16 hexadecimal digits of the SHA-256 of the names.
    """

    file: Path
    reasons: dict[str, str]
    digest: str


def line_of(name: str, reason: str) -> str:
    """Returns the line of a list that leaves out a picture."""
    is_odd = name[:1] in ("#", '"') or name != name.strip() or "  " in name or not name.isprintable()
    return (json.dumps(name) if is_odd else name) + _SEPARATOR + " ".join(reason.split())


def read_exclusions(file: Path) -> Exclusions:
    """Reads a list.

    Raises:
        UserError: it cannot be read, a name in quotes is damaged, or it names no picture.
    """
    reasons = {}
    try:
        for number, line in enumerate(reading.read_text(file).splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                name, reason = _parse(line, f"{file}: line {number}")
                reasons.setdefault(name, reason)
    except UserError as error:
        raise UserError(f"--exclude {error.args[0]}") from error
    if not reasons:
        raise UserError(f"--exclude {file}: names no picture; leave it out")
    digest = hashlib.sha256("\n".join(sorted(reasons)).encode(errors="surrogatepass")).hexdigest()[:16]
    return Exclusions(file, reasons, digest)


def _parse(line: str, where: str) -> tuple[str, str]:
    if not line.startswith('"'):
        name, _, reason = line.partition(_SEPARATOR)
        return name.strip(), reason.strip()
    try:
        name, end = json.JSONDecoder().raw_decode(line)
    except ValueError as error:
        raise UserError(f"{where}: a name in quotes that is not closed") from error
    return name, line[end:].partition(_SEPARATOR)[2].strip()


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
    note = f"{len(excluded):,} pictures are left out of train and validation (--exclude {exclusions.file})"
    if num_tested := len(exclusions.reasons) - len(excluded):
        note += f"; {num_tested:,} others on the list are of the test split, which is scored whole"
    return dataclasses.replace(
        dataset,
        train=train,
        validation=validation,
        excluded=excluded,
        exclusions_digest=exclusions.digest,
        notes=(*dataset.notes, note),
    )


def known_names(dataset: Dataset) -> set[str]:
    """Returns the names of the pictures of every split."""
    splits = (dataset.train, dataset.validation, dataset.test)
    return {name for split in splits if split is not None for name in split.names}


def check_names(known: set[str], dataset_name: str, exclusions: Exclusions) -> None:
    """Refuses a list that names pictures which are not known.

    Raises:
        UserError: it names the first of them.
    """
    if strangers := [name for name in exclusions.reasons if name not in known]:
        raise UserError(
            f"--exclude {exclusions.file}: {len(strangers):,} of its {len(exclusions.reasons):,} names are no pictures "
            f"of {dataset_name}, such as {strangers[0]}; make the list anew with python -m keras_dogs.check"
        )


def _without(split: Split, exclusions: Exclusions) -> Split:
    kept = [index for index, name in enumerate(split.names) if name not in exclusions.reasons]
    return split if len(kept) == len(split) else split.select(np.array(kept, np.int64))
