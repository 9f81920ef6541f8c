"""Leaves out of a score the pictures that a model has learned from."""

from pathlib import Path

import numpy as np

from keras_dogs.data.datasets import Dataset
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.errors import UserError
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord


def run_behind(model: str, exported=None) -> Path | None:
    """Returns the folder of the run that a model comes from, which says what it has learned from.

    Args:
        model: str. A run folder, a `.keras` file or an exported folder.
        exported: `exporting.exported.Exported` where it is an exported folder.

    Returns:
        The folder, or `None` where it is not at hand, or is not that model's.
    """
    path = Path(model).resolve()
    folder = path if path.is_dir() else path.parent
    if folder.parent.name == "exports" and exported:
        folder = folder.parents[1]
    elif folder.name == artifacts.CHECKPOINTS:
        folder = folder.parent
    elif folder != path and path.name != artifacts.MODEL:
        return None  # a file that somebody has put into a run folder
    if not (folder / artifacts.RECORD).is_file() or not (folder / artifacts.PREDICTIONS).is_file():
        return None
    digest = exported and exported.facts.get("model_digest")  # not in exports of earlier versions
    if digest and RunRecord.load(folder / artifacts.RECORD).digests.get(artifacts.MODEL) != digest:
        return None
    return folder


def are_new_to(run: Path, names) -> np.ndarray:
    """Tells which pictures a run has neither learned from nor been chosen by: bool `(num_names,)`.

    Args:
        run: Path. A run folder; all pictures of one that keeps no predictions.
        names: sequence of str.

    Raises:
        UserError: the predictions are damaged.
    """
    if not (run / artifacts.PREDICTIONS).is_file():
        return np.ones(len(names), bool)
    return _are_new(Predictions.load(run, needs_test=False), names)


def _are_new(found: Predictions, names) -> np.ndarray:
    chosen_by = [] if found.validation is None else found.validation.names
    return ~found.were_trained_on(names) & ~np.isin(names, chosen_by)


def leave_out_seen(
    canvases: Canvases, dataset: Dataset, split: str, model: str, run: Path | None
) -> tuple[Canvases, str]:
    """Leaves out pictures that the run has learned from: where a folder has grown since, its splits are drawn anew.

    Args:
        canvases: `Canvases` of the split.
        dataset: `Dataset`.
        split: str.
        model: str. What is evaluated, for messages.
        run: Path or `None`. See `run_behind`.

    Returns:
        `Canvases`, and a sentence that the reader of a score must know; empty where there is none.

    Raises:
        UserError: nothing is left.
    """
    if run is None:
        sentence = (
            f"the training pictures of {model} are not known here, so any that are among these could not be left out"
        )
        return canvases, sentence
    own, found = RunRecord.load(run / artifacts.RECORD), Predictions.load(run, needs_test=False)
    is_own = own.dataset.name == dataset.name
    if split == "train":
        return canvases, f"{model} was trained on these pictures: the score says nothing of new ones" if is_own else ""
    if found.trained_on is None:
        if own.dataset.fingerprint == dataset.fingerprint:
            return canvases, ""
        return canvases, (
            f"{model} was made by a version that did not keep what it was trained on, and with other pictures than "
            "these: some may be among them"
        )
    kept = _are_new(found, canvases.names) if split == "test" else ~found.were_trained_on(canvases.names)
    chosen = ""
    if split == "validation":
        chosen = f"the best epoch of {model}, and its temperature if it has one, were chosen on these pictures"
    if kept.all():
        return canvases, chosen if is_own else ""
    if not is_own:
        return canvases, (
            f"{np.count_nonzero(~kept):,} of the pictures of {dataset.name} have names of pictures of "
            f"{own.dataset.name}, on which {model} was trained; if they are the same pictures, the score says nothing"
        )
    sentence = (
        f"{np.count_nonzero(~kept):,} of the {len(kept):,} {split} pictures of {dataset.name} have names of "
        f"pictures that {model} was trained on or chosen by"
    )
    if not kept.any():
        raise UserError(f"{sentence}; nothing is left to score it on: give pictures that it has not seen")
    return canvases.select(kept), "; ".join(filter(None, (f"{sentence}; they are left out", chosen)))
