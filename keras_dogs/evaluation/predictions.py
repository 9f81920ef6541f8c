"""`predictions.npz`: what scores are computed from, so that nothing needs the model again."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.runs import artifacts
from keras_dogs.system import files
from keras_dogs.system import tables
from keras_dogs.system.tables import Array

_OF_A_SPLIT = {"names": Array("U", 1), "labels": Array("i", 1), "logits": Array("f", 2), "checksums": Array("u", 1)}
_SCHEMA = {
    **_OF_A_SPLIT,
    **{f"validation_{name}": array for name, array in _OF_A_SPLIT.items()},
    **dict.fromkeys(("class_names", "trained_on"), Array("U", 1)),
    "trained_on_checksums": Array("u", 1),
}


class Predictions(NamedTuple):
    """Logits with their labels.

    Attributes:
        names: str array `(num_pictures,)`. Of the scored split, as labels and logits are.
        labels: int32 array `(num_pictures,)`.
        logits: float32 array `(num_pictures, num_classes)`.
        class_names: str array `(num_classes,)`.
        validation: `Predictions` of the validation split, or `None`.
        trained_on: str array of the names of the training pictures, or `None` where they are not known.
        checksums: uint32 array `(num_pictures,)`, the CRC-32 of each picture's canvas; `None` where the run kept none,
            as it streamed its pictures or is of an earlier version.
        trained_on_checksums: the same of the training pictures.
    """

    names: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_names: np.ndarray
    validation: "Predictions | None" = None
    trained_on: np.ndarray | None = None
    checksums: np.ndarray | None = None
    trained_on_checksums: np.ndarray | None = None

    def were_trained_on(self, names) -> np.ndarray:
        """Tells which of these pictures are among the training pictures: bool `(num_names,)`; none where unknown."""
        return np.isin(names, [] if self.trained_on is None else self.trained_on)

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all; the validation split's arrays are `validation_names` and so on."""
        arrays = {"class_names": np.asarray(self.class_names, dtype=str)}
        for prefix, part in (("", self), ("validation_", self.validation)):
            if part is not None and part.names is not None:
                arrays[f"{prefix}names"] = np.asarray(part.names, dtype=str)
                arrays[f"{prefix}labels"] = np.asarray(part.labels, np.int32)
                arrays[f"{prefix}logits"] = np.asarray(part.logits, np.float32)
                if part.checksums is not None:
                    arrays[f"{prefix}checksums"] = np.asarray(part.checksums, np.uint32)
        if self.trained_on is not None:
            arrays["trained_on"] = np.asarray(self.trained_on, dtype=str)
        if self.trained_on_checksums is not None:
            arrays["trained_on_checksums"] = np.asarray(self.trained_on_checksums, np.uint32)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        files.write_bytes(path, file.getvalue())

    @classmethod
    def load(cls, folder: Path, needs_test: bool = True) -> "Predictions":
        """Loads the predictions of a run, or of an evaluation.

        Args:
            folder: Path.
            needs_test: bool. Whether test predictions are required. If not, `names` is `None` where only those of
                validation were kept, as for one learning rate of a sweep.

        Raises:
            UserError: there are none, or the file is damaged.
        """
        path = folder / artifacts.PREDICTIONS
        if not path.exists():
            raise UserError(f"{folder}: no {artifacts.PREDICTIONS} there; is it a run folder?")
        artifacts.check_belongs(path)
        arrays = tables.read_arrays(path, _SCHEMA)
        try:
            validation = _part(arrays, "validation_")
            test = _part(arrays, "") or cls(None, None, None, arrays["class_names"])
        except (KeyError, ValueError) as error:
            what = f"no array {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}: damaged: {what}") from error
        if test.names is None and needs_test:
            raise UserError(f"{path}: no test predictions; a rate of a sweep is scored on validation alone")
        trained_on, checksums = arrays.get("trained_on"), arrays.get("trained_on_checksums")
        if checksums is not None and (trained_on is None or checksums.shape != trained_on.shape):
            raise UserError(f"{path}: damaged: trained_on_checksums do not fit trained_on")
        return test._replace(validation=validation, trained_on=trained_on, trained_on_checksums=checksums)


def _part(arrays: dict, prefix: str) -> Predictions | None:
    """Returns one split's predictions, or `None` where there are none.

    Raises:
        ValueError: the arrays do not belong together, or a logit is not finite.
    """
    if f"{prefix}names" not in arrays:
        return None
    class_names = arrays["class_names"]
    names, labels, logits = (arrays[f"{prefix}{name}"] for name in ("names", "labels", "logits"))
    if labels.shape != names.shape or logits.shape != (len(names), len(class_names)):
        raise ValueError(f"{prefix}names {names.shape}, labels {labels.shape} and logits {logits.shape} do not fit")
    if not len(names):
        raise ValueError(f"{prefix}names are none")
    if len(set(names.tolist())) < len(names):
        raise ValueError(f"{prefix}names has a picture twice")
    if not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"{prefix}labels are not all of the {len(class_names)} classes")
    if not np.isfinite(logits).all():
        raise ValueError(f"{prefix}logits are not all finite")
    checksums = arrays.get(f"{prefix}checksums")
    if checksums is not None and checksums.shape != names.shape:
        raise ValueError(f"{prefix}checksums {checksums.shape} do not fit names {names.shape}")
    return Predictions(names, labels, logits, class_names, checksums=checksums)
