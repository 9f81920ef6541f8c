"""Stanford Dogs (Khosla et al., FGVC workshop, CVPR 2011) through TensorFlow Datasets.

12,000 train and 8,580 test pictures of 120 breeds. Preparing needs TensorFlow and, unless the three archives are at
hand, a download of 778 MiB; it writes array_record files. Reading them needs neither.
"""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np

from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.system import caches
from keras_dogs.system import locks
from keras_dogs.system.network import is_offline

ARCHIVES = ("images.tar", "annotation.tar", "lists.tar")
_PIP_LINE = install_line("stanford-dogs")


def load_stanford_dogs(data_dir: Path | None = None) -> Dataset:
    """Describes Stanford Dogs, after preparing it if it is not prepared yet.

    Args:
        data_dir: Path or `None`. Where TensorFlow Datasets keeps its files; `None` is its own default
            (`TFDS_DATA_DIR` or `~/tensorflow_datasets`). If it holds the official archives `images.tar`,
            `annotation.tar` and `lists.tar`, those are used instead of a download.

    Raises:
        UserError: TensorFlow Datasets is not installed, or the dataset could not be prepared.
    """
    missing = [name for name in ("tensorflow_datasets", "array_record") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(f"--dataset stanford_dogs needs {' and '.join(missing)}: {_PIP_LINE}")
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: no such folder")
    # Preparing imports TensorFlow, which must not share this process with another backend.
    if not is_prepared(data_dir):
        if is_offline() and not (data_dir and all((data_dir / name).is_file() for name in ARCHIVES)):
            raise UserError(
                f"--dataset stanford_dogs: offline, and not prepared; put {', '.join(ARCHIVES)} into a folder and "
                "give it as --data-dir"
            )
        lock = caches.lock_of_download("stanford_dogs")
        with locks.waited_for(lock, "preparing stanford_dogs", lock.parent):
            if not is_prepared(data_dir):  # by another process, meanwhile
                _prepare_in_child(data_dir)
    return read_prepared(data_dir)


def read_prepared(data_dir: Path | None) -> Dataset:
    """Opens the prepared files for random access, without TensorFlow."""
    builder = _builder(data_dir)
    class_names = tuple(builder.info.features["label"].names)
    sources = {split: builder.as_data_source(split, decoders=_skip_decoding()) for split in ("train", "test")}
    return Dataset("stanford_dogs", class_names, **{name: _to_split(source) for name, source in sources.items()})


def is_prepared(data_dir: Path | None) -> bool:
    """Returns whether the array_record files of both splits are there."""
    try:
        return set(_builder(data_dir).info.splits) >= {"train", "test"}
    except (OSError, ValueError, AttributeError):
        return False


def prepare(data_dir: Path | None) -> None:
    """Runs the builder of TensorFlow Datasets: downloads or takes the archives from `data_dir`, writes array_record."""
    import tensorflow_datasets as tfds

    at_hand = data_dir is not None and all((data_dir / name).is_file() for name in ARCHIVES)
    config = tfds.download.DownloadConfig(manual_dir=data_dir if at_hand else None)
    _builder(data_dir).download_and_prepare(download_config=config)


def _builder(data_dir: Path | None):
    import tensorflow_datasets as tfds

    return tfds.builder("stanford_dogs", data_dir=data_dir, file_format="array_record")


def _prepare_in_child(data_dir: Path | None) -> None:
    command = [sys.executable, "-m", __name__] + ([str(data_dir)] if data_dir else [])
    finished = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if finished.returncode:
        lines = [line for line in finished.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UserError(
            f"stanford_dogs could not be prepared: {lines[-1]}; fetch {', '.join(ARCHIVES)} from "
            "http://vision.stanford.edu/aditya86/ImageNetDogs/ into a folder and give it as --data-dir"
        )


def _skip_decoding():
    import tensorflow_datasets as tfds

    return {"image": tfds.decode.SkipDecoding()}


def _to_split(source) -> Split:
    # The order on disk is TensorFlow Datasets' shuffle; file names give one that does not depend on its version.
    rows = [(_text(row["image/filename"]), int(row["label"]), index) for index, row in enumerate(source)]
    rows.sort()
    places = [index for _, _, index in rows]

    def read(index: int):
        return open_picture(io.BytesIO(source[places[index]]["image"]))

    labels = np.asarray([label for _, label, _ in rows], np.int32)
    # Prepared files do not change; the number of rows and the place among them tell one preparation from another.
    return Split(tuple(name for name, _, _ in rows), labels, read, lambda index: f"{len(source)} {places[index]}")


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
