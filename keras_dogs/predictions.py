"""`predictions.npz`: what scores are computed from, so that nothing needs the model again."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs import artifacts
from keras_dogs.errors import UserError


class Predictions(NamedTuple):
    """Logits with their labels.

    Attributes:
        names: str array `(num_pictures,)`. Of the scored split, as labels and logits are.
        labels: int32 array `(num_pictures,)`.
        logits: float32 array `(num_pictures, num_classes)`.
        class_names: str array `(num_classes,)`.
        validation: `Predictions` of the validation split, or `None`.
    """

    names: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_names: np.ndarray
    validation: "Predictions | None" = None

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all; the validation split's arrays are `validation_names` and so on."""
        arrays = {"class_names": np.asarray(self.class_names, dtype=str)}
        for prefix, part in (("", self), ("validation_", self.validation)):
            if part is not None:
                arrays[f"{prefix}names"] = np.asarray(part.names, dtype=str)
                arrays[f"{prefix}labels"] = np.asarray(part.labels, np.int32)
                arrays[f"{prefix}logits"] = np.asarray(part.logits, np.float32)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        artifacts.write_bytes(path, file.getvalue())

    @classmethod
    def load(cls, folder: Path) -> "Predictions":
        """Reads those of a run, or of an evaluation.

        Raises:
            UserError: there are none, or the file is damaged.
        """
        path = folder / artifacts.PREDICTIONS
        try:
            with np.load(path, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            parts = [
                cls(*(arrays[f"{prefix}{name}"] for name in ("names", "labels", "logits")), arrays["class_names"])
                for prefix in ("", "validation_")
                if f"{prefix}names" in arrays
            ]
            return parts[0]._replace(validation=parts[1] if len(parts) > 1 else None)
        except FileNotFoundError as error:
            raise UserError(f"{folder}: no {artifacts.PREDICTIONS} there; is it a run folder?") from error
        except Exception as error:  # zipfile, zlib and NumPy each raise their own kinds
            raise UserError(f"{path}: damaged ({type(error).__name__}: {error})") from error
