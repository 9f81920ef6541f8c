"""The rows of `results.json`, typed: what a comparison found, and all that its page and figures show.

Every row is a plain dict as JSON has it; `read` checks a file before any of it is used.
"""

from pathlib import Path
from typing import Annotated
from typing import Any
from typing import NotRequired
from typing import TypedDict

from msgspec import Meta

from keras_dogs.runs.records import Count
from keras_dogs.runs.records import NotNegative
from keras_dogs.runs.records import Positive
from keras_dogs.runs.records import Share
from keras_dogs.system import reading

FILE = "results.json"
# 2: the version itself is in the file; rows are as they were.
SCHEMA_VERSION = 2

Gain = Annotated[float, Meta(ge=-1, le=1)]  # of accuracy
Interval = tuple[float, float]


class Spread(TypedDict):
    """A figure over several runs; `deviation` is `None` of a single one."""

    mean: float
    min: float
    max: float
    deviation: float | None


class Run(TypedDict):
    """A run, or one that failed: then there are `name`, `folder`, `command` and `error` alone."""

    name: str
    folder: str
    command: str
    error: NotRequired[str]
    model: NotRequired[str]
    preset: NotRequired[str]
    family: NotRequired[str]
    backend: NotRequired[str]
    seed: NotRequired[Count]
    recipe: NotRequired[str]
    epochs: NotRequired[Positive]
    pretraining: NotRequired[str]
    num_parameters: NotRequired[Positive]
    gflops: NotRequired[NotNegative | None]
    dataset: NotRequired[dict[str, Any]]
    device: NotRequired[str]
    execution: NotRequired[str]
    dtype_policy: NotRequired[str]
    versions: NotRequired[dict[str, str]]
    best_epoch: NotRequired[Count]
    validation: NotRequired[dict[str, float] | None]
    test: NotRequired[dict[str, float]]
    test_top1_interval: NotRequired[Interval]
    timings: NotRequired[dict[str, NotNegative]]
    throughput: NotRequired[dict[str, NotNegative]]
    peak_memory_gib: NotRequired[NotNegative]
    epoch_end_s: NotRequired[list[NotNegative]]
    validation_curve: NotRequired[list[Share]]
    accuracy_over_time: NotRequired[list[tuple[NotNegative, Share]]]
    seconds_to: NotRequired[dict[str, NotNegative | None]]


class Group(TypedDict):
    """A model on a backend, over seeds; no speed of training where steps were of features."""

    model: str
    backend: str
    seeds: list[Count]
    top1: Spread
    top1_interval: Interval
    top5: Spread
    loss: Spread
    calibration_error: Spread
    train_images_per_second: Spread | None
    predict_images_per_second: Spread
    step_time_ms: Spread | None
    first_step_s: Spread
    train_s: Spread
    total_s: Spread
    peak_memory_gib: Spread
    seconds_to: dict[str, Spread | None]


class Model(TypedDict):
    """A model over all its runs."""

    model: str
    preset: str
    family: str
    pretraining: str
    num_parameters: Positive
    gflops: NotNegative | None
    num_runs: Positive
    top1: Spread
    reliability: list[dict[str, float]]
    calibration_error: Spread
    confusion: list[list[Count]]


class Tested(TypedDict):
    """What every comparison of two has: the difference of top-1 accuracy, and whether it is more than chance."""

    difference: Gain
    p_value: Share
    significant: bool


class Pair(Tested):
    """Two models on one backend with one seed."""

    backend: str
    seed: Count
    first: str
    second: str
    num_pictures: Positive
    accuracy: tuple[Share, Share]
    only_first: Count
    only_second: Count
    interval: Interval


class BetweenModels(Tested):
    """Two models over all backends and seeds that both have."""

    first: str
    second: str
    num_pairs: Positive
    num_seeds: Positive
    num_pictures: Positive
    interval: Interval
    each: list[Gain]
    num_significant: Count
    adjusted_p_value: Share
    in_words: str


class SameSeed(Tested):
    """One model with one seed on two backends."""

    model: str
    seed: Count
    backends: list[str]
    num_pictures: Positive
    accuracy: tuple[Share, Share]
    only_first: Count
    only_second: Count
    interval: Interval
    same_answers: Share
    largest_loss_difference: NotNegative
    largest_loss_difference_in_10_steps: NotNegative


class BetweenBackends(Tested):
    """One model on two backends, over seeds."""

    model: str
    backends: list[str]
    num_pairs: Positive
    num_significant: Count
    largest_difference: NotNegative
    same_answers: Share
    largest_loss_difference: NotNegative
    largest_loss_difference_in_10_steps: NotNegative
    adjusted_p_value: Share
    in_words: str


# `class` is a word of Python's.
Class = TypedDict("Class", {"class": str, "pictures": Positive, "first": Share, "second": Share, "difference": Gain})
Picture = TypedDict(
    "Picture",
    {"only_right": str, "picture": str, "class": str, "taken_for": str, "share_of_runs_right": list[Share]},
)


class Results(TypedDict):
    """What `results.json` holds."""

    schema_version: Positive
    made_with: str
    date: str
    keras_dogs: str
    fairness: str
    budget: str
    notes: list[str]
    verdicts: list[str]
    class_names: NotRequired[list[str]]
    runs: list[Run]
    groups: list[Group]
    models: list[Model]
    pairs: list[Pair]
    between_models: list[BetweenModels]
    same_seed_on_two_backends: list[SameSeed]
    between_backends: list[BetweenBackends]
    classes: list[Class]
    pictures: list[Picture]
    curves: dict[str, list[float]]


def read(file: Path) -> Results:
    """Reads a `results.json`, also one of an earlier version.

    Raises:
        UserError: it is missing, damaged, of a later version, or not a comparison's; the text names file and key.
    """
    return reading.read_versioned(file, Results, SCHEMA_VERSION)
