"""What leaving out pictures means for a score: duplicates of training pictures, labels that are probably wrong."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_dogs.data.datasets.exclusions import Exclusions
from keras_dogs.errors import UserError
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs.records import Count
from keras_dogs.runs.records import Positive
from keras_dogs.runs.records import Share
from keras_dogs.system.pages import code
from keras_dogs.system.pages import table

# How the reasons begin that `check` gives; of a list of the user's own, they may be anything.
_KINDS = {
    "leak": "leaks",
    "conflict": "pictures under two labels",
    "duplicate": "duplicates",
    "label": "suspect labels",
}
_OTHER, _ANY = "others on the list", "any of these"


@dataclasses.dataclass(frozen=True)
class Part:
    """The score without some pictures.

    Attributes:
        what: str. What is left out, in words; empty for nothing.
        num_left_out, num_pictures: int. How many are left out, and how many are scored.
        accuracy: float. Top-1.
        interval: pair of float. Of the accuracy, 95 %.
        difference: float. Accuracy less that of all pictures.
        difference_interval: pair of float. 95 %.
    """

    what: str
    num_left_out: Count
    num_pictures: Positive
    accuracy: Share
    interval: tuple[Share, Share]
    difference: float
    difference_interval: tuple[float, float]


def parts_of(correct: np.ndarray, left_out: Mapping[str, np.ndarray]) -> list[Part]:
    """Scores all pictures, then those that are left without each kind, then those without any.

    Args:
        correct: bool array `(num_pictures,)`. Whether each answer is right.
        left_out: dict of a kind of reason to a bool array `(num_pictures,)`. Kinds of no picture are passed over, as
            are those that leave none.
    """
    kinds = {what: mask for what, mask in left_out.items() if mask.any()}
    if len(kinds) > 1:
        kinds[_ANY] = np.any(list(kinds.values()), axis=0)
    return [_part("", correct, np.zeros(len(correct), bool))] + [
        _part(what, correct, mask) for what, mask in kinds.items() if not mask.all()
    ]


def _part(what: str, correct: np.ndarray, mask: np.ndarray) -> Part:
    kept = correct[~mask]
    return Part(
        what,
        int(mask.sum()),
        len(kept),
        float(kept.mean()),
        intervals.share_interval(kept),
        float(kept.mean() - correct.mean()),
        intervals.part_difference_interval(correct, ~mask),
    )


def kinds_in(found: Predictions, listed: Exclusions) -> dict[str, np.ndarray]:
    """Returns which pictures are on a list for each kind of reason: bool arrays `(num_pictures,)`."""
    reasons = [listed.reasons.get(str(name)) for name in found.names]
    kinds = [None if reason is None else _KINDS.get(reason.partition(":")[0], _OTHER) for reason in reasons]
    return {kind: np.array([each == kind for each in kinds]) for kind in sorted({kind for kind in kinds if kind})}


def without(found: Predictions, listed: Exclusions) -> Predictions:
    """Returns the predictions of pictures that are not on a list; those of validation stay.

    Raises:
        UserError: none is left.
    """
    kept = ~np.isin(found.names, list(listed.reasons))
    if not kept.any():
        raise UserError(f"--exclude {listed.file}: lists every picture that is to be scored; nothing is left")
    parts = {name: getattr(found, name)[kept] for name in ("names", "labels", "logits")}
    return found._replace(**parts)


def in_words(parts: list[Part], listed: Exclusions) -> str:
    """Returns the section of a page, Markdown."""
    text = f"\n## Without the pictures on {code(listed.file.name)}\n\n" + as_table(parts)
    return text + (
        "\nEvery other figure of this page is without them. The interval of a difference is Agresti and Caffo's, of "
        "the pictures that stay and those that do not.\n"
    )


def as_table(parts: list[Part]) -> str:
    """Returns the scores as a table, Markdown."""
    rows = []
    for part in parts:
        low, high = (100 * bound for bound in part.interval)
        row = [part.what and f"without: {part.what}" or "all pictures", f"{part.num_pictures:,}"]
        row += [f"{100 * part.accuracy:.1f} %", f"{low:.1f} to {high:.1f} %"]
        if part.what:
            low, high = (100 * bound for bound in part.difference_interval)
            row += [f"{100 * part.difference:+.2f} points", f"{low:+.2f} to {high:+.2f}"]
        rows.append(row + ["–"] * (6 - len(row)))
    header = ["scored", "pictures", "top-1", "95 % interval", "difference", "95 % interval of the difference"]
    return table(header, rows)
