"""What follows from what was found: which pictures to leave out, and why."""

from typing import NamedTuple

from keras_dogs.checking.duplicates import Member
from keras_dogs.checking.labels import Suspect
from keras_dogs.checking.pool import Pool
from keras_dogs.data.datasets import Dataset
from keras_dogs.data.datasets import display_name
from keras_dogs.data.datasets.exclusions import division_line
from keras_dogs.data.datasets.exclusions import line_of
from keras_dogs.system import terminal

_FIRST_LINES = """\
# Pictures of {dataset} to leave out, found by keras_dogs.check. Give this file as --exclude to train, evaluate or
# compare: a training leaves them out of train and validation (the test split stays whole), an evaluation does not score
# them. Other lines that begin with a # are not read.
{division}
"""
_SUSPECTS = """
# Labels that are probably wrong. Look at each in report.html; to leave one out, remove the # before its name.
"""


class Group(NamedTuple):
    """Pictures that show the same.

    Attributes:
        members: list of `Member`.
        is_leak: bool. Whether they are of more than one split.
        has_conflict: bool. Whether they have more than one label: some of them are wrong.
    """

    members: list[Member]
    is_leak: bool
    has_conflict: bool


def judge(pool: Pool, members: list[list[Member]]) -> list[Group]:
    """Tells leaks and conflicts from harmless duplicates; leaks into the test split come first."""
    groups = []
    for found in members:
        splits = {pool.splits[member.index] for member in found}
        labels = {int(pool.labels[member.index]) for member in found}
        groups.append(Group(found, len(splits) > 1, len(labels) > 1))
    return sorted(groups, key=lambda group: (not is_test_leak(pool, group), not group.is_leak, not group.has_conflict))


def is_test_leak(pool: Pool, group: Group) -> bool:
    """Returns whether a picture of the test split is also in train or validation."""
    return group.is_leak and any(pool.splits[member.index] == "test" for member in group.members)


def leaked(pool: Pool, groups: list[Group], learned: set[str] | None = None) -> list[int]:
    """Returns the test pictures that are also in train or validation.

    Args:
        pool: `Pool`.
        groups: list of `Group`.
        learned: set of names or `None`. The pictures that a run was trained on or chosen by, instead of those two.
    """
    found = []
    for group in groups:
        names = {pool.names[member.index] for member in group.members}
        if is_test_leak(pool, group) if learned is None else names & learned:
            found += [member.index for member in group.members if pool.splits[member.index] == "test"]
    return found


def reasons_of(pool: Pool, groups: list[Group]) -> dict[str, str]:
    """Returns the pictures to leave out, with the reason.

    A leak into test is listed on both sides: training leaves out its side, and evaluation leaves out the test pictures,
    which earlier runs have seen in training. Of a leak between train and validation, the train side is listed. Pictures
    with two labels are all listed, as nobody knows which label is wrong. Of other duplicates, all but the first in each
    split are listed.
    """
    reasons = {}
    for group in groups:
        for place, member in enumerate(group.members):
            reason = _reason(pool, group, place)
            if reason:
                reasons[pool.names[member.index]] = reason
    return reasons


def _reason(pool: Pool, group: Group, place: int) -> str:
    member = group.members[place]
    others = [other for other in group.members if other is not member]
    split = pool.splits[member.index]
    elsewhere = [other for other in others if pool.splits[other.index] != split]
    # Between train and validation, one side is enough.
    if elsewhere and (is_test_leak(pool, group) or split == "train"):
        other = elsewhere[-1] if split == "train" else elsewhere[0]
        return f"leak: the same as {_in_words(pool, other)}"
    different = [other for other in others if pool.labels[other.index] != pool.labels[member.index]]
    if different:
        label = display_name(pool.label(different[0].index))
        return f"conflict: the same as {_in_words(pool, different[0])}, which is labelled {label}"
    before = [other for other in group.members[:place] if pool.splits[other.index] == split]
    return f"duplicate: the same as {_in_words(pool, before[0])}" if before else ""


def _in_words(pool: Pool, member: Member) -> str:
    return f"{pool.names[member.index]} of {pool.splits[member.index]}"


def exclusion_list(pool: Pool, dataset: Dataset, groups: list[Group], suspects: list[Suspect]) -> str:
    """Returns the text of `exclude.txt`."""
    reasons = reasons_of(pool, groups)
    text = _FIRST_LINES.format(dataset=terminal.one_line(dataset.name), division=division_line(dataset))
    text += "".join(f"{line_of(name, reason)}\n" for name, reason in reasons.items())
    left = [suspect for suspect in suspects if pool.names[suspect.index] not in reasons]
    if left:
        text += _SUSPECTS
    for suspect in left:
        given, likely = (
            display_name(pool.class_names[label]) for label in (pool.labels[suspect.index], suspect.likely)
        )
        reason = (
            f"label: {given} ({suspect.given_probability:.2f}), probably {likely} ({suspect.likely_probability:.2f})"
        )
        text += f"# {line_of(pool.names[suspect.index], reason)}\n"
    return text
