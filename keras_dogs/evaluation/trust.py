"""The part of an evaluation's page on answers to act on: risk against coverage, sets of breeds, unfamiliar pictures."""

from typing import NamedTuple

import numpy as np

from keras_dogs.evaluation import answers
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs.records import Calibration

COVERAGE = 0.9  # of the sets on the page


class Sets(NamedTuple):
    """The sets of the scored pictures.

    Attributes:
        sizes: int array `(num_pictures,)`.
        hold: bool array `(num_pictures,)`. Whether the label is in the set.
    """

    sizes: np.ndarray
    hold: np.ndarray


def sets_of(found: Predictions, calibration: Calibration, coverage: float = COVERAGE) -> Sets | None:
    """Returns the sets of predictions with a coverage, or `None` where validation cannot promise such."""
    threshold = answers.threshold_for(coverage, calibration.set_thresholds)
    if threshold is None:
        return None
    probabilities = answers.probabilities_of(found.logits, calibration.temperature)
    inside = [answers.set_of(row, threshold) for row in probabilities]
    hold = np.array([label in classes for label, classes in zip(found.labels, inside)])
    return Sets(np.array([len(classes) for classes in inside]), hold)


def risk_by_share(found: Predictions, temperature: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of pictures that are answered, most confident first, and the share of wrong ones among those.

    El-Yaniv and Wiener, JMLR 11 (2010), section 2.

    Returns:
        Two float arrays `(num_pictures,)`.
    """
    confidence = answers.probabilities_of(found.logits, temperature).max(axis=1)
    wrong = ~scoring.is_correct(found.logits, found.labels)[np.argsort(-confidence, kind="stable")]
    numbers = np.arange(1, len(wrong) + 1)
    return numbers / len(wrong), wrong.cumsum() / numbers


def in_words(found: Predictions, calibration: Calibration, sets: Sets | None) -> str:
    """Returns the section of the page, Markdown."""
    share, risk = risk_by_share(found, calibration.temperature)
    half = risk[np.searchsorted(share, 0.5)]
    text = (
        "\n## Answers to act on\n\n![Risk against coverage](risk.png)\n\n"
        f"Answering only the half of the pictures that it is surest of, it is wrong on {100 * half:.1f} %; answering "
        f"all, on {100 * risk[-1]:.1f} %.\n\n"
    )
    return text + _of_sets(calibration, sets) + _of_strangers(found, calibration)


def _of_sets(calibration: Calibration, sets: Sets | None) -> str:
    if sets is None:
        return (
            f"No sets of breeds are promised: {calibration.num_pictures:,} validation pictures are too few for "
            f"{100 * COVERAGE:.0f} %.\n\n"
        )
    low, high = intervals.share_interval(sets.hold)
    return (
        f"![Sizes of sets](set_sizes.png)\n\nSets of breeds that hold the right one with {100 * COVERAGE:.0f} % "
        f"probability (`predict --coverage {COVERAGE:g}`), from {calibration.num_pictures:,} validation pictures: "
        f"{100 * sets.hold.mean():.1f} % of these pictures have their breed in the set (95 % interval {100 * low:.1f} "
        f"to {100 * high:.1f} %), {sets.sizes.mean():.1f} breeds a set on average. A set has the most probable breed "
        "whatever its probability; a classifier that is right more often than was asked for keeps more than the "
        "promise. The promise holds on average over pictures like those of validation, not for each breed: the table "
        "of classes has the share of each.\n\n"
    )


def _of_strangers(found: Predictions, calibration: Calibration) -> str:
    if not calibration.strangeness_percentiles:
        return ""
    strange = answers.unfamiliarity_of(found.logits, calibration.strangeness_percentiles) > answers.UNFAMILIAR
    return (
        f"{100 * strange.mean():.1f} % of these pictures would be called unfamiliar, as they are stranger, by their "
        f"greatest logit, than {100 * answers.UNFAMILIAR:.0f} % of the validation pictures.\n"
    )
