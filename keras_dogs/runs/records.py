"""The run record: the one schema that every command shares, as `record.json`."""

import dataclasses
import json
from pathlib import Path

from keras_dogs.errors import UserError

SCHEMA_VERSION = 1

BACKENDS = ("jax", "tensorflow", "torch")
PROSE = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
_OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}


def recipe_in_words(config: dict) -> str:
    """Names the main settings of a resolved recipe, as the `config` of a record holds it."""
    return (
        f"{config['recipe']}: {config['epochs']} epochs of batch {config['batch_size']}, "
        f"{_OPTIMIZERS[config['optimizer']]} {config['learning_rate']:g}, augmentation {config['augmentation']}"
    )


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What was trained and scored on; `num_unreadable` pictures of it were left out and are listed in `unreadable`.

    `pool` is a digest of the pictures that trained or validated, whichever did what; empty in runs of earlier versions.
    """

    name: str
    fingerprint: str
    num_train: int
    num_validation: int
    num_test: int
    num_classes: int
    num_unreadable: int = 0
    unreadable: list[str] = dataclasses.field(default_factory=list)
    pool: str = ""


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

    num_pictures: int
    top1_accuracy: float
    top5_accuracy: float
    mean_per_class_accuracy: float
    expected_calibration_error: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """What choices go by: the greater is better. Top-1 accuracy; of equal ones, the least loss."""
        return self.top1_accuracy, -self.loss


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds, of all processes where a run was resumed.

    `first_step_s` includes compilation; `features_s` is what a linear probe on features spends on computing them,
    before `train_s`, which is all of `fit`, validation included.
    """

    import_s: float
    decode_s: float
    build_s: float
    first_step_s: float
    train_s: float
    total_s: float
    features_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Steady state, compilation left out. A linear probe on cached features has steps of features, not of pictures."""

    train_images_per_second: float
    step_time_ms: float
    predict_images_per_second: float


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Everything that one run was and found.

    Attributes:
        pretraining: str. The pictures and labels that the weights had seen before, in words.
        jit_compile: bool. Whether XLA (or `torch.compile`) compiled the step.
        execution: str. How the step ran, in words, with the reason where it was not compiled.
        cache: str. Where the pictures were while it trained, in words, and why.
        num_devices, num_processes: int. That trained together.
        distribution: str. How, in words, and what batch norms took their statistics of.
        epoch_end_s: list of float. For each epoch, the seconds from the command to its end, validation included.
        best_epoch: int. The epoch, from 1, whose weights were kept; chosen on validation.
        validation: `Scores` or `None`, of the weights that were kept; `None` without a validation split.
        test: `Scores` of the weights that were kept; `None` for a rate of a sweep, which validation alone scores.
        sweep: list of dict. Of `--learning-rate sweep`: each rate with its validation top-1 accuracy and loss, or why
            it failed.
        swaps: list of str. What computed in place of stock Keras (`backends.register`); empty where Keras was bare,
            `None` in runs of versions that did not say.
    """

    command: str
    config: dict
    preset: str
    family: str
    num_parameters: int
    seed: int
    dataset: DatasetRecord
    backend: str
    versions: dict
    device: str
    dtype_policy: str
    jit_compile: bool
    execution: str
    best_epoch: int
    timings: Timings
    throughput: Throughput
    peak_memory_gib: float
    validation: Scores | None
    test: Scores | None
    pretraining: str = "unknown"
    cache: str = "disk"
    num_devices: int = 1
    num_processes: int = 1
    distribution: str = "one device"
    epoch_end_s: list[float] = dataclasses.field(default_factory=list)
    sweep: list[dict] = dataclasses.field(default_factory=list)
    swaps: list[str] | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Returns the text of `record.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunRecord":
        """Reads what `to_json` wrote; fields that a later version added are passed over."""
        values = _known(cls, json.loads(text))
        values["dataset"] = DatasetRecord(**_known(DatasetRecord, values["dataset"]))
        values["timings"] = Timings(**_known(Timings, values["timings"]))
        values["throughput"] = Throughput(**_known(Throughput, values["throughput"]))
        for split in ("validation", "test"):
            values[split] = Scores(**_known(Scores, values[split])) if values[split] else None
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Reads a `record.json`.

        Raises:
            UserError: the file is missing or is not a run record.
        """
        try:
            return cls.from_json(path.read_text())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); is this a run folder?") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a run record of keras_dogs ({type(error).__name__}: {error})") from error


def _known(schema, values: dict) -> dict:
    names = {field.name for field in dataclasses.fields(schema)}
    return {name: value for name, value in values.items() if name in names}
