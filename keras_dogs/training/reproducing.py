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
from keras_dogs.errors import Diverged
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.evaluation.scoring import score_logits
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
# For the answers: backends whose loss curves coincide were seen to agree on 90 to 100 % of the test pictures. If all
# losses are bit-identical, logits may still differ by rounding in scoring, by this share of the largest logit.
_LEAST_AGREEMENT, _GAP_OF_LOGITS = 0.75, 1e-2
# Flags of a record that are not replayed: what is logged, where things are kept, and which devices are used.
_NOT_REPLAYED = (
    *("wandb", "tensorboard", "offline", "cache", "devices", "model_shards", "peer_timeout", "sync_batch_norm"),
    *("checkpoint_every", "keep_checkpoints"),
)
_WHERE = ("dataset", "data_dir", "exclude", "cache_dir", "offline")  # flags of `reproduce` that take their place


class Outcome(NamedTuple):
    """How two runs of one record compare.

    Attributes:
        differs_from: int or `None`. The first step, from 1, at which rounding does not explain the difference.
        num_steps: pair of int. Of the run that was recorded, and of the new one.
        is_identical: bool. Every loss and every logit of the test pictures has the same bits.
        answers_differ: bool. Whether the answers differ by more than rounding explains.
        largest_gap: float. The largest difference in the loss of a step, nats.
        agreement: float in [0, 1]. The share of the test pictures to which both runs give the same class.
    """

    differs_from: int | None
    num_steps: tuple[int, int]
    is_identical: bool
    answers_differ: bool
    largest_gap: float
    agreement: float

    @property
    def is_same(self) -> bool:
        """Whether the run came out the same, at least to rounding."""
        return self.differs_from is None and not self.answers_differ

    def __str__(self) -> str:
        """Says it in one line."""
        before, now = self.num_steps
        answers = f"{self.agreement:.1%} of the test pictures get the same answer"
        if self.differs_from is not None and self.differs_from > min(before, now):
            return f"not the same: {before:,} steps then, {now:,} now; they agree as far as both go, and {answers}"
        if self.differs_from is not None:
            return f"not the same, from step {self.differs_from:,} of {before:,}"
        if self.answers_differ:
            return f"not the same: trained alike in {before:,} steps, but only {answers}, or the loss on them differs"
        if self.is_identical:
            return f"the same to the last bit: {before:,} steps, and every answer to the test pictures"
        gap = f"the largest gap of loss in {before:,} steps is {self.largest_gap:.2g}"
        return f"the same to rounding: {gap}, and {answers}"


def reproduce(config: ReproduceConfig, started: float | None = None) -> Outcome | None:
    """Trains as a record says, on the backend that Keras runs on, and compares each step and each answer.

    Where `config.output` holds the run already, finished, it is compared as it is; unfinished, it goes on.

    Args:
        config: `ReproduceConfig`.
        started: float or `None`. `time.perf_counter()` when the command began.

    Returns:
        The outcome; of several processes, the first has it alone.

    Raises:
        UserError: the run is not whole, a picture is not what it was (the text names it), or the new run diverged.
        Interrupted: a signal came.
    """
    record, recorded = RunRecord.load(config.run / artifacts.RECORD), Predictions.load(config.run)
    artifacts.check_belongs(config.run / artifacts.STEPS)
    _steps_of(config.run)  # fails now, rather than after training, if it cannot be read

    def check(pictures: Pictures) -> None:
        _say_what_differs(record)
        _check_pictures(record, recorded, pictures)

    if config.output:
        _check_output(config, record)
    with _output(config) as folder, _in_words(config):
        if not artifacts.is_finished(folder):
            again = fine_tune(_train_config(config, folder), started, check)
            if again.record is None:
                return None
        return compare_runs(config.run, folder)


def _check_output(config: ReproduceConfig, record: RunRecord) -> None:
    """Refuses to hold a run against itself, or against a finished run that was not made to reproduce it."""
    output = config.output
    if output.resolve() == config.run.resolve():
        raise UserError(f"--output {output}: is the run itself; choose another --output")
    if not artifacts.is_finished(output):
        return
    if RunRecord.load(output / artifacts.RECORD).timings == record.timings:  # never of two runs
        raise UserError(f"--output {output}: is a copy of the run itself; choose another --output")
    one, other = (
        # As a config, which fills in the flags that an earlier version did not have.
        TrainConfig(**{name: value for name, value in _replayed(folder).items() if name not in _WHERE}).told_to_all
        for folder in (config.run, output)
    )
    if differ := [flag for flag in one if one[flag] != other[flag]]:
        raise UserError(
            f"--output {output}: holds a run with other values of {', '.join(differ)}; choose another --output"
        )


@contextlib.contextmanager
def _in_words(config: ReproduceConfig) -> Iterator[None]:
    """Rewords the error of a new run that diverged or was interrupted."""
    try:
        yield
    except Diverged as error:
        raise UserError(f"not the same: the new run ended with: {error.args[0].partition(';')[0]}") from error
    except Interrupted as stop:
        advice = f"; the same command goes on, in {config.output}" if config.output else "; nothing was kept"
        raise Interrupted(f"interrupted{advice}", stop.status) from stop


@contextlib.contextmanager
def _output(config: ReproduceConfig) -> Iterator[Path]:
    if config.output:
        yield config.output
    else:
        with tempfile.TemporaryDirectory(prefix="keras_dogs-") as folder:
            yield Path(folder) / "run"


def _train_config(config: ReproduceConfig, output: Path) -> TrainConfig:
    """Returns the flags of the record that are of the training, with where things are now."""
    flags = _replayed(config.run)
    if config.dataset:
        flags.pop("data_dir", None)
    given = {name: getattr(config, name) for name in _WHERE}
    flags |= {name: value for name, value in given.items() if value}
    return TrainConfig(**flags, output=output, resume=artifacts.is_unfinished(output))


def _replayed(run: Path) -> dict:
    """Returns the flags of a run's record that are of the training."""
    flags = flag_files.read(run / artifacts.RECORD, TrainConfig)
    return {name: value for name, value in flags.items() if name not in _NOT_REPLAYED}


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
    if record.config.get("probe_first") and record.validation and not record.probe:
        found.append("the probe that came first did not count as an epoch there, and does here")
    for line in found:
        progress.open_console().print(f"not as in the record: {line}")


def _check_pictures(record: RunRecord, recorded: Predictions, pictures: Pictures) -> None:
    """Refuses pictures that are not those of the run; which of them validate is left to its seed.

    Raises:
        UserError: it names the first that is missing, new or changed, and how many there are.
    """
    found = []
    if recorded.trained_on is not None:  # earlier versions did not keep them
        parts = [(recorded.trained_on, recorded.trained_on_checksums)]
        parts += [(part.names, part.checksums) for part in (recorded.validation,) if part is not None]
        found += _differences("training and validation", parts, [pictures.train, pictures.validation])
    found += _differences("test", [(recorded.names, recorded.checksums)], [pictures.test])
    if not found:
        return
    more = len(found) - 1
    rest = f"; {more:,} more picture{'s differ' if more > 1 else ' differs'}" if more else ""
    then, now = record.versions.get("pillow"), backends.versions().get("pillow")
    decoder = f" (decoded by Pillow {then} then and {now} now, which may be why)" if then not in (None, now) else ""
    raise UserError(f"{found[0]}{rest}{decoder}; restore the pictures, or train anew")


def _differences(where: str, recorded: list, canvases: list[Canvases | None]) -> list[str]:
    """Lists how pictures differ from those of the run, a line each.

    Args:
        where: str. The splits, in words.
        recorded: list of pairs: the names that the run kept, and their checksums, which may be `None`.
        canvases: list of `Canvases`, or `None`.
    """
    known, before, now = set(), {}, {}
    for names, checksums in recorded:
        known.update(names.tolist())
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
        UserError: a file of theirs is missing or damaged, or they were scored on other pictures.
    """
    steps, steps_again = (_steps_of(folder) for folder in (first, second))
    records = [RunRecord.load(folder / artifacts.RECORD) for folder in (first, second)]
    is_mixed = any(record.dtype_policy != "float32" for record in records)
    gaps, is_off = _gaps(steps, steps_again, _FIRST_GAP_MIXED if is_mixed else _FIRST_GAP)
    answers = Predictions.load(first)
    logits, logits_again = answers.logits, _in_order_of(answers, Predictions.load(second), second)
    agreement = float(np.mean(logits.argmax(1) == logits_again.argmax(1)))
    losses = [score_logits(each, answers.labels).loss for each in (logits, logits_again)]
    answers_differ = agreement < _LEAST_AGREEMENT
    answers_differ |= abs(losses[0] - losses[1]) > _GAP_OF_CURVES * max(losses[0], _LEAST_LOSS)
    if not gaps.any():
        answers_differ |= np.abs(logits - logits_again).max() > _GAP_OF_LOGITS * np.abs(logits).max()
    return Outcome(
        differs_from=int(np.flatnonzero(is_off)[0]) + 1 if is_off.any() else None,
        num_steps=(len(steps["loss"]), len(steps_again["loss"])),
        is_identical=not gaps.any() and not is_off.any() and logits.tobytes() == logits_again.tobytes(),
        answers_differ=bool(answers_differ),
        largest_gap=float(gaps.max(initial=0.0)),
        agreement=agreement,
    )


def _in_order_of(answers: Predictions, again: Predictions, folder: Path) -> np.ndarray:
    """Returns the logits of `again` in the order of the pictures of `answers`."""
    places = {name: place for place, name in enumerate(again.names.tolist())}
    if places.keys() != set(answers.names.tolist()) or again.logits.shape != answers.logits.shape:
        raise UserError(f"{folder}: was scored on other pictures or classes; choose another --output")
    return again.logits[[places[name] for name in answers.names.tolist()]]


def _gaps(steps: dict, again: dict, first_gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the difference in loss at each common step, nats, and whether each step differs; a missing one does."""
    numbers = [len(table["loss"]) for table in (steps, again)]
    common = slice(min(numbers))
    losses, losses_again = steps["loss"][common], again["loss"][common]
    gaps, curve, curve_again = np.abs(losses - losses_again), _running_mean(losses), _running_mean(losses_again)
    scale = np.maximum(curve, _LEAST_LOSS)
    # `~(a <= b)` rather than `a > b`: a loss that is NaN counts as different.
    is_off = ~(gaps <= scale * first_gap * _GROWTH ** np.minimum(np.arange(len(gaps)), 1000))
    is_off |= ~(np.abs(curve - curve_again) <= scale * _GAP_OF_CURVES)
    rates, rates_again = steps["learning_rate"][common], again["learning_rate"][common]
    is_off |= ~(np.abs(rates - rates_again) <= 1e-5 * rates.max(initial=0.0))
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
