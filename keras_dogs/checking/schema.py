"""Declares the fields of `check.json`: what was found in a dataset."""

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
    """A file that cannot be read as a complete picture."""

    name: str
    reason: str


class Range(TypedDict):
    """How a number spreads over the pictures or classes."""

    least: float
    median: float
    most: float


class Facts(TypedDict):
    """Facts about the files that need no model. Lists hold names of pictures, if nothing else is said.

    Attributes:
        pictures_a_class: pictures per class.
        shorter_side: pixels.
        long: one side is many times as long as the other.
        names_alike: groups of names, of pictures or classes, that differ only in case or in Unicode normalisation.
        no_pictures: paths of files that are not pictures.
    """

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
    """A picture in a group of duplicates.

    Attributes:
        kind: the surest way in which it repeats another picture of the group.
        correlation: of their grey levels, laid over each other; 1 for equal pictures.
    """

    name: str
    split: str
    label: str
    kind: Literal[KINDS]
    correlation: float


class Group(TypedDict):
    """Duplicates and near-duplicates of one another.

    Attributes:
        is_leak: they are in different splits.
        has_conflict: they have different labels.
    """

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
    """Two classes that the features cannot tell apart.

    Attributes:
        told_apart: the share of their pictures for which the probe prefers the right one of the two.
    """

    classes: tuple[str, str]
    told_apart: Share


class Labels(TypedDict):
    """What a probe that was trained on features finds about the labels."""

    model: str
    num_pictures: Positive
    accuracy: Share
    suspects: list[Suspect]
    alike: list[Alike]


class Score(TypedDict):
    """How the findings affect the test score of a run."""

    run: str
    parts: list[Part]


class Check(TypedDict):
    """The content of `check.json`; `why_no_labels` is empty where `labels` is given."""

    schema_version: Positive
    dataset: str
    fingerprint: str
    facts: Facts
    groups: list[Group]
    labels: Labels | None
    why_no_labels: str
    score: Score | None
