"""The run record: the one schema that every command shares, as `record.json`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import NotRequired
from typing import TypedDict

from msgspec import Meta

from keras_dogs.errors import UserError
from keras_dogs.system import reading

SCHEMA_VERSION = 1

# What a field may be; a file is checked for it when it is read.
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Positive = Annotated[int, Meta(ge=1, lt=2**53)]

BACKENDS = ("jax", "tensorflow", "torch")
PROSE = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
_OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}


class DataInRecord(TypedDict):
    """What is read of the dataset's settings in a record."""

    dataset: str
    data_dir: NotRequired[str | None]
    validation_fraction: NotRequired[Annotated[float, Meta(ge=0, lt=1)]]
    pictures_per_class: NotRequired[Positive | None]


class ConfigInRecord(TypedDict):
    """What is read of the resolved flags in a record; the others are kept for people, and to run it again."""

    recipe: str
    epochs: Positive
    batch_size: Positive
    optimizer: str
    learning_rate: NotNegative
    augmentation: str
    image_size: NotRequired[Positive | None]
    data: DataInRecord


def recipe_in_words(config: dict) -> str:
    """Names the main settings of a resolved recipe, as the `config` of a record holds it."""
    optimizer = _OPTIMIZERS.get(config["optimizer"], config["optimizer"])
    return (
        f"{config['recipe']}: {config['epochs']} epochs of batch {config['batch_size']}, "
        f"{optimizer} {config['learning_rate']:g}, augmentation {config['augmentation']}"
    )


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What was trained and scored on; `num_unreadable` pictures of it were left out and are listed in `unreadable`.

    `pool` is a digest of the pictures that trained or validated, whichever did what; empty in runs of earlier versions.
    `excluded` are those that the list of `--exclude` took from them, and `exclusions_digest` is that list's.
    """

    name: str
    fingerprint: str
    num_train: Count
    num_validation: Count
    num_test: Count
    num_classes: Positive
    num_unreadable: Count = 0
    unreadable: list[str] = dataclasses.field(default_factory=list)
    pool: str = ""
    excluded: list[str] = dataclasses.field(default_factory=list)
    exclusions_digest: str = ""


@dataclasses.dataclass(frozen=True)
class Scores:
    """How well logits name the labels. Accuracies and errors are fractions in [0, 1].

    Attributes:
        num_pictures: int. How many were scored; each once.
        top1_accuracy: float. The label has the greatest logit.
        top5_accuracy: float. The label is among the five greatest.
        mean_per_class_accuracy: float. Top-1 accuracy averaged over the classes that occur, each counted once.
        expected_calibration_error: float. 15 equal bins of confidence (Guo et al., arXiv 1706.04599, eq. 3).
        loss: float. Mean cross-entropy, nats.
    """

    num_pictures: Positive
    top1_accuracy: Share
    top5_accuracy: Share
    mean_per_class_accuracy: Share
    expected_calibration_error: Share
    loss: NotNegative

    @property
    def rank(self) -> tuple[float, float]:
        """The key by which the best is chosen, the greatest: top-1 accuracy, and the smaller loss if that is equal."""
        return self.top1_accuracy, -self.loss


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What the validation pictures say of how far answers can be trusted; logits stay as they are.

    Attributes:
        num_pictures: int. Of validation.
        temperature: float or `None`. What logits are divided by before the softmax; `why_no_temperature` if not.
        loss: pair of float or `None`. Cross-entropy on validation, nats, without and with a temperature; each fifth is
            scored with the temperature that was fitted on the other four.
        calibration_error: pair of float or `None`. As `Scores.expected_calibration_error`, of the same.
        set_thresholds: list of float. For a coverage of 50, 51, ..., 99 %: the probability from which a class is in the
            prediction set. Empty where the pictures are too few to promise coverage.
        strangeness_percentiles: list of float. The percentiles 0, 1, ..., 100 of `evaluation.answers.strangeness_of`
            over the validation pictures; a picture above most of them is unfamiliar. Empty where these are too few.
    """

    num_pictures: Count
    temperature: Annotated[float, Meta(gt=0)] | None
    why_no_temperature: str = ""
    loss: tuple[NotNegative, NotNegative] | None = None
    calibration_error: tuple[Share, Share] | None = None
    set_thresholds: Annotated[list[Share], Meta(max_length=50)] = dataclasses.field(default_factory=list)
    strangeness_percentiles: list[float] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.set_thresholds != sorted(self.set_thresholds, reverse=True):
            raise ValueError("set_thresholds do not descend")
        if len(self.strangeness_percentiles) not in (0, 101) or self.strangeness_percentiles != sorted(
            self.strangeness_percentiles
        ):
            raise ValueError("strangeness_percentiles are not 101 ascending numbers")


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds. Of a run that was resumed: of all its processes, but `import_s`, `decode_s` and `build_s` of the last.

    `first_step_s` includes compilation, `train_s` is all of `fit`, validation included. Not in it: `features_s`, which
    a linear probe spends on its features, and `probe_s`, a linear probe before a fine-tuning, its features included.
    """

    import_s: NotNegative
    decode_s: NotNegative
    build_s: NotNegative
    first_step_s: NotNegative
    train_s: NotNegative
    total_s: NotNegative
    features_s: NotNegative = 0.0
    probe_s: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Steady state, compilation left out. A linear probe on cached features has steps of features, not of pictures."""

    train_images_per_second: NotNegative
    step_time_ms: NotNegative
    predict_images_per_second: NotNegative


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Everything that one run was and found.

    Attributes:
        pretraining: str. The pictures and labels that the weights had seen before, in words.
        jit_compile: bool. Whether XLA (or `torch.compile`) compiled the step.
        execution: str. How the step ran, in words, with the reason where it was not compiled.
        cache: str. Where the pictures were while it trained, in words, and why.
        num_devices, num_processes: int. How many trained together.
        distribution: str. How they did, in words, and over what batch normalization computed its statistics.
        epoch_end_s: list of float. For each epoch, the seconds from the command to its end, validation included.
        probe_end_s: float or `None`. The same for a probe that came first, validation not included.
        best_epoch: int. The epoch, from 1, whose weights were kept; chosen on validation. 0 if no epoch was better than
            the probe that came first.
        validation: `Scores` or `None`, of the weights that were kept; `None` without a validation split.
        probe: `Scores` on validation of the probe that came first and counts as epoch 0; `None` without one, and in
            runs of versions that did not count it.
        test: `Scores` of the weights that were kept; `None` for a rate of a sweep, which validation alone scores.
        calibration: `Calibration` or `None` in runs of versions that kept none; `evaluation.calibration` computes it.
        sweep: list of dict. Of `--learning-rate sweep`: each rate with its validation top-1 accuracy and loss, or why
            it failed.
        digests: dict of str to str. `runs.artifacts.digest_of` each file that belongs to the record; empty in runs of
            versions that kept none.
        swaps: list of str. What computed in place of stock Keras (`backends.register`); empty where Keras was bare,
            `None` in runs of versions that did not say.
    """

    command: str
    config: dict[str, Any]
    preset: str
    family: str
    num_parameters: Positive
    seed: Count
    dataset: DatasetRecord
    backend: Literal[BACKENDS]
    versions: dict[str, str]
    device: str
    dtype_policy: str
    jit_compile: bool
    execution: str
    best_epoch: Count
    timings: Timings
    throughput: Throughput
    peak_memory_gib: NotNegative
    validation: Scores | None
    test: Scores | None
    pretraining: str = "unknown"
    cache: str = "disk"
    num_devices: Positive = 1
    num_processes: Positive = 1
    distribution: str = "one device"
    epoch_end_s: list[NotNegative] = dataclasses.field(default_factory=list)
    probe_end_s: NotNegative | None = None
    sweep: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    swaps: list[str] | None = None
    calibration: Calibration | None = None
    probe: Scores | None = None
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    schema_version: Positive = SCHEMA_VERSION

    @property
    def kept(self) -> str:
        """Whose weights were kept, in words."""
        return f"epoch {self.best_epoch} kept" if self.best_epoch else "the probe kept, as no later epoch was better"

    def to_json(self) -> str:
        """Returns the text of `record.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Reads a `record.json`; fields that a later version added are passed over.

        Raises:
            UserError: the file is missing, is not a run record, or a field is missing, of a wrong type or out of range.
        """
        if not path.is_file():
            raise UserError(f"{path}: there is no such file; is this a run folder?")
        record = reading.read_versioned(path, cls, SCHEMA_VERSION)
        reading.check(record.config, ConfigInRecord, f"{path}: config")
        return record
