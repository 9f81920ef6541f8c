"""The fields of `check.json`, typed: what was found in a dataset."""

from typing import Literal
from typing import TypedDict

from keras_dogs.checking.duplicates import KINDS
from keras_dogs.evaluation.leaving_out import Part
from keras_dogs.runs.records import Count
from keras_dogs.runs.records import Positive
from keras_dogs.runs.records import Share

FILE = "check.json"
SCHEMA_VERSION = 1


class Unreadable(TypedDict):
    """A file that is no whole picture."""

    name: str
    reason: str


class Range(TypedDict):
    """How a number spreads over the pictures or classes."""

    least: float
    median: float
    most: float


class Facts(TypedDict):
    """What can be told of the files without a model. Lists are names of pictures; `no_pictures` are paths."""

    splits: dict[str, Count]
    num_classes: Positive
    pictures_a_class: Range
    shorter_side: Range
    formats: dict[str, Count]
    unreadable: list[Unreadable]
    tiny: list[str]
    long: list[str]
    nearly_black: list[str]
    nearly_uniform: list[str]
    grey: list[str]
    turned_by_exif: list[str]
    names_alike: list[list[str]]
    no_pictures: list[str]


class Member(TypedDict):
    """A picture of a group that shows the same."""

    name: str
    split: str
    label: str
    kind: Literal[KINDS]
    correlation: float


class Group(TypedDict):
    """Pictures that show the same."""

    is_leak: bool
    has_conflict: bool
    members: list[Member]


class Suspect(TypedDict):
    """A picture whose label is probably wrong."""

    name: str
    split: str
    given: str
    likely: str
    given_probability: Share
    likely_probability: Share


class Alike(TypedDict):
    """Two classes that the features cannot tell apart."""

    classes: tuple[str, str]
    told_apart: Share


class Labels(TypedDict):
    """What a probe on features says of the labels."""

    model: str
    num_pictures: Positive
    accuracy: Share
    suspects: list[Suspect]
    alike: list[Alike]


class Score(TypedDict):
    """What the findings mean for the score of a run."""

    run: str
    parts: list[Part]


class Check(TypedDict):
    """Everything that was found."""

    schema_version: Positive
    dataset: str
    fingerprint: str
    facts: Facts
    groups: list[Group]
    labels: Labels | None
    why_no_labels: str
    score: Score | None
