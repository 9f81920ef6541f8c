"""The pictures that an exported file is checked with, as files, and those that an `int8` file is calibrated with."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets import load_recorded
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.pictures import files_in
from keras_dogs.data.datasets.pictures import is_picture
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.evaluation import unseen
from keras_dogs.exporting import formats
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import terminal
from keras_dogs.system.flags import refuse_idle

_NUM_CALIBRATION = 128
_NUM_RANDOM, _RANDOM_SIDE = 32, 300


class Pictures(NamedTuple):
    """Files of pictures.

    Attributes:
        source: str. Where they come from, in words.
        files: list of str.
        labels: dict of file to class name; empty where no labels are known.
        calibration: list of str. Training pictures.
        why_random: str. Why no real picture is at hand; empty where there are some.
    """

    source: str
    files: list[str]
    labels: dict[str, str]
    calibration: list[str]
    why_random: str = ""


def collect(config: ExportConfig, record: RunRecord | None, work: Path) -> Pictures:
    """Finds pictures: the user's own, the run's test pictures, or random ones.

    Args:
        config: `ExportConfig`.
        record: `RunRecord` or `None`.
        work: Path. For pictures that are no files yet.

    Raises:
        UserError: `--pictures` holds none, or the format is to be quantised and no real pictures are at hand.
    """
    if config.pictures:
        return _of_folder(config, work)
    try:
        return _of_run(config, record, work)
    except UserError as error:
        if config.data_dir:
            raise
        if config.quantize:
            raise UserError(f"--quantize {config.quantize}: needs real pictures; give --pictures ({error})") from error
        return Pictures(
            "random pictures", _draw_random(min(_NUM_RANDOM, config.verify_pictures), work), {}, [], str(error)
        )


def _of_folder(config: ExportConfig, work: Path) -> Pictures:
    """Takes the test pictures of a folder in one of the layouts of a dataset, or any pictures in it."""
    folder, source = config.pictures, f"pictures of {terminal.printable(str(config.pictures))}"
    if not folder.is_dir():
        raise UserError(f"--pictures {folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    try:
        # Its whole path, as a folder may have the name of a dataset of ours.
        return _of_dataset(load_dataset(str(folder.resolve())), source, config, work)
    except UserError:  # no dataset
        found = sorted(str(file) for file in files_in(folder) if is_picture(file))
    if not found:
        raise UserError(f"--pictures {folder}: no pictures found")
    checked = [found[place] for place in _evenly(len(found), config.verify_pictures)]
    if config.quantize != formats.INT8:
        return Pictures(source, checked, {}, [])
    others = sorted(set(found) - set(checked))
    if not others:
        raise UserError(
            f"--pictures {folder}: holds {len(found):,} pictures, and --verify-pictures takes all; int8 is calibrated "
            "with others: give more, or a lower --verify-pictures"
        )
    return Pictures(source, checked, {}, [others[place] for place in _evenly(len(others), _NUM_CALIBRATION)])


def _of_run(config: ExportConfig, record: RunRecord | None, work: Path) -> Pictures:
    if record is None:
        raise UserError(f"{config.run}: does not say what it was trained on")
    data = record.config["data"]
    if data["dataset"] != "stanford_dogs":
        refuse_idle(config, ("data_dir",), f"on a run of {data['dataset']}")
    dataset, run = load_recorded(data, record.seed, config.data_dir), Path(config.run)
    # The splits of a folder that has grown are drawn anew.
    kept = unseen.are_new_to(run if run.is_dir() else run.parent, dataset.test.names)
    if not kept.any():
        raise UserError(
            f"{config.run}: was trained on, or chosen by, all pictures that are in the test split of {data['dataset']} "
            "now"
        )
    dataset = dataclasses.replace(dataset, test=dataset.test.select(np.flatnonzero(kept)))
    return _of_dataset(dataset, f"test pictures of {data['dataset']}", config, work)


def _of_dataset(dataset: Dataset, source: str, config: ExportConfig, work: Path) -> Pictures:
    test = dataset.test.select(_evenly(len(dataset.test), config.verify_pictures))
    files = _as_files(test, work / "test")
    labels = {file: dataset.class_names[label] for file, label in files.items()}
    calibration = {}
    if config.quantize == formats.INT8:
        train = dataset.train.select(_evenly(len(dataset.train), _NUM_CALIBRATION))
        calibration = _as_files(train, work / "train")
    return Pictures(source, list(files), labels, list(calibration))


def _evenly(count: int, wanted: int) -> np.ndarray:
    """Returns `wanted` indices spread evenly over `count` items, or all of their indices if there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def _as_files(split: Split, folder: Path) -> dict[str, int]:
    """Returns files with labels; what is in an archive, or drawn, is written as PNG first, which loses nothing."""
    folder.mkdir()
    found = {}
    for index in range(len(split)):
        file = split.file(index)
        if file is None:
            file = folder / f"{index:06d}.png"
            try:
                split.read(index).save(file)
            except UnreadablePicture:
                continue
        found[str(file)] = int(split.labels[index])
    return found


def _draw_random(count: int, work: Path) -> list[str]:
    generator, found = np.random.default_rng(0), []
    for number in range(count):
        coarse = generator.integers(0, 256, (8, 8, 3)).astype("uint8")
        file = work / f"random-{number:02d}.png"
        Image.fromarray(coarse).resize((_RANDOM_SIDE, _RANDOM_SIDE)).save(file)
        found.append(str(file))
    return found


def record_of(run: Path) -> RunRecord | None:
    """Returns the record of a run folder, or of the run that a `.keras` file belongs to; `None` if there is none."""
    file = (run if run.is_dir() else run.parent) / artifacts.RECORD
    return RunRecord.load(file) if file.is_file() and (run.is_dir() or run.name == artifacts.MODEL) else None
