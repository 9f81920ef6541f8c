"""Trains a recorded run again, and says whether it came out the same: the procedure of `reproduce`."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs import backends
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.data.loaders.canvases import checksums_of
from keras_dogs.errors import UserError
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import PROSE
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import flag_files
from keras_dogs.system import progress
from keras_dogs.system import tables
from keras_dogs.training.config import ReproduceConfig
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune
from keras_dogs.training.plan import Pictures

# How far apart rounding may bring the losses of one step, as a share of the loss: it grows from step to step, until
# single steps say nothing more and only the curve does. Default runs on three backends, of the ResNet and the ViT: 1e-7
# after 10 steps, 1e-3 after 60, 0.25 after 200; the running means of the whole curves stay within 0.15. The first gap
# is that of products on a GPU, which rounds float32 to TF32.
_FIRST_GAP, _FIRST_GAP_MIXED, _GROWTH, _GAP_OF_CURVES = 1e-3, 1e-2, 1.1, 0.25
_LEAST_LOSS = 0.3  # nats: gaps of smaller losses are taken as shares of this
_AROUND = 21  # steps of a running mean


class Outcome(NamedTuple):
    """How two runs of one record compare.

    Attributes:
        differs_from: int or `None`. The first step, from 1, at which rounding does not explain the difference.
        num_steps: int. Of the run that was recorded.
        is_identical: bool. Every loss and every logit of the test pictures has the same bits.
        largest_gap: float. Of the loss of a step, nats.
        agreement: float in [0, 1]. The share of test pictures that both give the same class.
    """

    differs_from: int | None
    num_steps: int
    is_identical: bool
    largest_gap: float
    agreement: float

    def __str__(self) -> str:
        """Says it in one line."""
        if self.differs_from is not None:
            return f"not the same, from step {self.differs_from:,} of {self.num_steps:,}"
        if self.is_identical:
            return f"the same to the last bit: {self.num_steps:,} steps, and every answer to the test pictures"
        return (
            f"the same to rounding: the largest gap of loss in {self.num_steps:,} steps is {self.largest_gap:.2g}, "
            f"and {self.agreement:.1%} of the test pictures get the same answer"
        )


def reproduce(config: ReproduceConfig, started: float | None = None) -> Outcome:
    """Trains as a record says, on the backend that Keras runs on, and compares each step and each answer.

    Args:
        config: `ReproduceConfig`.
        started: float or `None`. `time.perf_counter()` when the command began.

    Raises:
        UserError: the run is not whole, or a picture is not what it was; the text names it.
    """
    record, recorded = RunRecord.load(config.run / artifacts.RECORD), Predictions.load(config.run)
    for name in (artifacts.STEPS, artifacts.MODEL):
        if (config.run / name).exists():
            artifacts.check_belongs(config.run / name)
    _say_what_differs(record)
    with _output(config) as folder:
        again = fine_tune(_train_config(config, folder), started, lambda pictures: _check_pictures(recorded, pictures))
        return compare_runs(config.run, again.folder)


@contextlib.contextmanager
def _output(config: ReproduceConfig) -> Iterator[Path]:
    if config.output:
        yield config.output
    else:
        with tempfile.TemporaryDirectory(prefix="keras_dogs-") as folder:
            yield Path(folder) / "run"


def _train_config(config: ReproduceConfig, output: Path) -> TrainConfig:
    flags = flag_files.read(config.run / artifacts.RECORD, TrainConfig)
    given = {name: getattr(config, name) for name in ("dataset", "data_dir", "cache_dir", "offline")}
    return TrainConfig(**{**flags, **{name: value for name, value in given.items() if value}, "output": output})


def _say_what_differs(record: RunRecord) -> None:
    """Says what this process has other than the run had: a backend, versions, how many devices."""
    now, name = backends.versions(), backends.name()
    found = [] if name == record.backend else [f"{PROSE[record.backend]} there, {PROSE[name]} here"]
    found += [
        f"{library} {version} there, {now[library]} here"
        for library, version in record.versions.items()
        if now.get(library, version) != version
    ]
    if record.num_devices > 1:
        found.append(f"{record.num_devices} devices there")
    for line in found:
        progress.open_console().print(f"not as in the record: {line}")


def _check_pictures(recorded: Predictions, pictures: Pictures) -> None:
    """Refuses pictures that are not those of the run; which of them validate is left to its seed.

    Raises:
        UserError: it names the first that is missing, new or changed, and how many there are.
    """
    parts = [(recorded.trained_on, recorded.trained_on_checksums)]
    parts += [(part.names, part.checksums) for part in (recorded.validation,) if part is not None]
    found = _differences("training and validation", parts, [pictures.train, pictures.validation])
    found += _differences("test", [(recorded.names, recorded.checksums)], [pictures.test])
    if found:
        rest = f"; {len(found) - 1:,} more pictures differ" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{rest}; restore them, or train anew")


def _differences(where: str, recorded: list, canvases: list[Canvases | None]) -> list[str]:
    """Lists how pictures differ from those of the run, a line a picture.

    Args:
        where: str. The splits, in words.
        recorded: list of pairs: the names that the run kept, and their checksums, which may be `None`.
        canvases: list of `Canvases`, or `None`.
    """
    known, before, now = set(), {}, {}
    for names, checksums in recorded:
        known.update([] if names is None else names.tolist())
        before |= {} if checksums is None else dict(zip(names.tolist(), checksums.tolist()))
    for part in filter(None, canvases):
        now |= dict(itertools.zip_longest(part.names, checksums_of(part)))
    found = [
        f"{name}: was among the {where} pictures of the run, and is not now" for name in sorted(known - now.keys())
    ]
    found += [f"{name}: was not among the {where} pictures of the run" for name in sorted(now.keys() - known)]
    changed = [name for name, checksum in now.items() if name in before and checksum not in (None, before[name])]
    return found + [f"{name}: has changed since the run" for name in changed]


def compare_runs(first: Path, second: Path) -> Outcome:
    """Compares two finished runs of the same flags, step by step and answer by answer.

    Args:
        first: Path. The run folder that was recorded.
        second: Path. The other.

    Raises:
        UserError: a file of theirs is missing or damaged.
    """
    steps, steps_again = (_steps_of(folder) for folder in (first, second))
    answers, again = Predictions.load(first), Predictions.load(second)
    is_mixed = any(RunRecord.load(folder / artifacts.RECORD).dtype_policy != "float32" for folder in (first, second))
    gaps, is_off = _gaps(steps, steps_again, _FIRST_GAP_MIXED if is_mixed else _FIRST_GAP)
    return Outcome(
        differs_from=int(np.flatnonzero(is_off)[0]) + 1 if is_off.any() else None,
        num_steps=len(steps["loss"]),
        is_identical=not gaps.any() and not is_off.any() and answers.logits.tobytes() == again.logits.tobytes(),
        largest_gap=float(gaps.max(initial=0.0)),
        agreement=float(np.mean(answers.logits.argmax(1) == again.logits.argmax(1))),
    )


def _gaps(steps: dict, again: dict, first_gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gap of loss at each common step, nats, and whether each step is another one; a missing one is."""
    numbers = [len(table["loss"]) for table in (steps, again)]
    common = slice(min(numbers))
    losses, losses_again = steps["loss"][common], again["loss"][common]
    gaps, curve, curve_again = np.abs(losses - losses_again), _running_mean(losses), _running_mean(losses_again)
    scale = np.maximum(curve, _LEAST_LOSS)
    is_off = gaps > scale * first_gap * _GROWTH ** np.minimum(np.arange(len(gaps)), 1000)
    is_off |= np.abs(curve - curve_again) > scale * _GAP_OF_CURVES
    rates, rates_again = steps["learning_rate"][common], again["learning_rate"][common]
    is_off |= np.abs(rates - rates_again) > 1e-5 * rates.max(initial=0.0)
    if "batch" in steps and "batch" in again:
        is_off |= steps["batch"][common] != again["batch"][common]
    return gaps, np.append(is_off, numbers[0] != numbers[1])


def _steps_of(folder: Path) -> dict[str, np.ndarray]:
    """Reads the loss of each step, and what tells its batch from others where the run kept it."""
    file = folder / artifacts.STEPS
    try:
        return tables.read_table(file, ("loss", "learning_rate", "batch"))
    except UserError:  # of an earlier version
        return tables.read_table(file, ("loss", "learning_rate"))


def _running_mean(losses: np.ndarray) -> np.ndarray:
    """Returns the mean of the losses around each step, `(num_steps,)`."""
    half = _AROUND // 2
    counted = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(len(losses))
    first, last = np.maximum(ends - half, 0), np.minimum(ends + half + 1, len(losses))
    return (counted[last] - counted[first]) / (last - first)
