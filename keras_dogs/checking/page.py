"""The report of a check: `report.md` and `report.html`, with the pictures side by side."""

import shlex
from pathlib import Path
from typing import NamedTuple

from keras_dogs.checking import figures
from keras_dogs.checking import schema
from keras_dogs.checking.config import CheckConfig
from keras_dogs.checking.labels import Suspect
from keras_dogs.checking.pool import Pool
from keras_dogs.checking.verdicts import Group
from keras_dogs.data.datasets import display_name
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.evaluation import leaving_out
from keras_dogs.system import pages
from keras_dogs.system.flags import flag_of
from keras_dogs.system.pages import Markdown
from keras_dogs.system.pages import code
from keras_dogs.system.pages import image
from keras_dogs.system.pages import table
from keras_dogs.system.pages import text as plain

_SHOWN = 60  # rows of a table of pictures; check.json has all
_ABREAST = 4  # pictures of a group
_THUMBNAIL = 112  # pixels
_NAMES = 5  # of pictures of an unusual kind


class Subject(NamedTuple):
    """What the page is of.

    Attributes:
        config: `CheckConfig`.
        pool: `Pool`.
        found: `schema.Check`.
        groups: list of `Group`.
        suspects: list of `Suspect`.
    """

    config: CheckConfig
    pool: Pool
    found: schema.Check
    groups: list[Group]
    suspects: list[Suspect]


def write_page(folder: Path, subject: Subject) -> None:
    """Writes the page, its figures and thumbnails into a folder."""
    pool = subject.pool
    figures.draw_classes(pool, folder / "classes.png")
    figures.draw_sizes(pool, folder / "sizes.png")
    leaks = [group for group in subject.groups if group.is_leak]
    conflicts = [group for group in subject.groups if group.has_conflict and not group.is_leak]
    others = [group for group in subject.groups if not group.is_leak and not group.has_conflict]
    parts = [
        _head(subject),
        _summary(subject),
        _groups(subject, folder, "Leaks", _ON_LEAKS, leaks),
        _groups(subject, folder, "The same picture under two labels", _ON_CONFLICTS, conflicts),
        _groups(subject, folder, "Duplicates within a split", _ON_OTHERS, others),
        _labels(subject, folder),
        _score(subject.found["score"]),
        _facts(subject.found["facts"]),
        _METHOD,
    ]
    text = "\n".join(parts)
    (folder / "report.md").write_text(text, "utf-8")
    (folder / "report.html").write_text(pages.to_html(text, folder, f"Check of {subject.found['dataset']}"), "utf-8")


_ON_LEAKS = (
    "Pictures that are in more than one split. What is in test and in train, too, makes a score too good: the "
    "classifier has seen the answer."
)
_ON_CONFLICTS = "One of the labels is wrong, whatever a model says."
_ON_OTHERS = "Each duplicate is counted again, in training or in a score."
_METHOD = """
## How it was looked for

- **Duplicates.** Equal files and equal pixels are found by their digests. For every other picture, the lowest
  frequencies of its grey levels, in all eight orientations, select the four most similar pictures per orientation. Such
  a pair counts as duplicates if one picture, shifted, scaled and turned by a few degrees, matches the other with a
  correlation of the grey levels of 0.95 or more. Pictures of one scene taken a second apart are mostly below that.
- **Labels.** A linear probe on the model's features answers each picture without having learned from it or its
  duplicates. A picture is suspect where the probe is as sure of another class as it is, on average, of that class's own
  pictures (confident learning, arXiv 1911.00068), or gives the label less than one chance in a hundred. The model may
  be wrong; look before you leave out a picture.
- Nothing was removed or changed. `exclude.txt` is for `--exclude` of train, evaluate and compare.
"""


def _head(subject: Subject) -> str:
    config, facts = subject.config, subject.found["facts"]
    words = ["python", "-m", "keras_dogs.check", *([config.dataset] if config.dataset else [])]
    for flag in ("run", "preset", "data_dir", "seed", "output"):
        if getattr(config, flag):
            words += [flag_of(flag), str(getattr(config, flag))]
    counts = ", ".join(f"{count:,} {split}" for split, count in facts["splits"].items())
    rows = [
        ["pictures", f"{counts}; {facts['num_classes']} classes"],
        ["labels by", code(subject.found["labels"]["model"]) if subject.found["labels"] else "–"],
        ["made with", code(shlex.join(words))],
    ]
    return f"# Check of {plain(subject.found['dataset'])}\n\n" + table(["", ""], rows)


def summary_of(found: schema.Check) -> list[tuple[str, int, str]]:
    """Returns what was found, for people: what, how many, and what it means or what to do."""
    groups, facts, labels = found["groups"], found["facts"], found["labels"]
    leaks = [group for group in groups if group["is_leak"]]
    within = [group for group in groups if not group["is_leak"]]
    into_test = [group for group in leaks if any(member["split"] == "test" for member in group["members"])]
    tested = sum(member["split"] == "test" for group in into_test for member in group["members"])
    conflicts = sum(group["has_conflict"] for group in within)
    why = found["why_no_labels"]
    return [
        ("test pictures that are also in train or validation", tested, "exclude.txt has both sides of each"),
        ("groups in train and in validation", len(leaks) - len(into_test), "exclude.txt has those of train"),
        ("groups within a split under two labels", conflicts, "correct the labels; exclude.txt has all of them"),
        ("other groups within a split", len(within) - conflicts, "exclude.txt has all but the first of each"),
        ("suspect labels", len(labels["suspects"]) if labels else -1, "look at each" if labels else why),
        ("pairs of classes that are not told apart", len(labels["alike"]) if labels else -1, "by this model"),
        ("unreadable files", len(facts["unreadable"]), "repair or remove them; training leaves them out"),
        ("pictures below 64 pixels", len(facts["tiny"]), "there is little to learn from them"),
        ("nearly black or uniform pictures", len({*facts["nearly_black"], *facts["nearly_uniform"]}), "look at them"),
        ("files that are not pictures", len(facts["no_pictures"]), "no split has them"),
        ("names that differ by case or Unicode form alone", len(facts["names_alike"]), "some disks take them for one"),
    ]


def _summary(subject: Subject) -> str:
    rows = [
        [what, f"{count:,}" if count >= 0 else "–", note if count else ""]
        for what, count, note in summary_of(subject.found)
    ]
    return "\n## What was found\n\n" + table(["what", "number", "what to do"], rows)


def _groups(subject: Subject, folder: Path, title: str, text: str, groups: list[Group]) -> str:
    if not groups:
        return ""
    rows = []
    for number, group in enumerate(groups[:_SHOWN]):
        pictures = [_thumbnail(subject, member.index, folder) for member in group.members[:_ABREAST]]
        more = f" and {len(group.members) - _ABREAST} more" if len(group.members) > _ABREAST else ""
        names = [_name(subject.pool, member.index) for member in group.members[:_ABREAST]]
        kind = max(group.members, key=lambda member: member.correlation < 1)
        tie = kind.kind if kind.correlation == 1 else f"{kind.kind}, {kind.correlation:.3f}"
        rows.append([number + 1, Markdown(" ".join(pictures)), tie, Markdown("<br>".join(names) + more)])
    return f"\n## {title}\n\n{text}\n\n" + table(["", "pictures", "the same by", "names"], rows) + _rest(len(groups))


def _rest(count: int) -> str:
    return f"\n{count - _SHOWN:,} more are in `{schema.FILE}`.\n" if count > _SHOWN else ""


def _name(pool: Pool, index: int) -> Markdown:
    return Markdown(f"{code(pool.names[index])} ({pool.splits[index]}, {plain(display_name(pool.label(index)))})")


def _thumbnail(subject: Subject, index: int, folder: Path) -> Markdown:
    file = folder / "pictures" / f"{index}.jpg"
    try:
        pages.save_thumbnail(subject.pool.read(index), file, _THUMBNAIL)
    except UnreadablePicture:  # it was readable before
        return Markdown("")
    return image(subject.pool.names[index], file.relative_to(folder).as_posix())


def _labels(subject: Subject, folder: Path) -> str:
    labels, pool = subject.found["labels"], subject.pool
    if labels is None:
        return f"\n## Suspect labels\n\n{subject.found['why_no_labels'].capitalize()}.\n"
    text = (
        f"\n## Suspect labels\n\n{len(labels['suspects']):,} of {labels['num_pictures']:,} pictures, the one whose "
        f"label is least probable first. The probe names {100 * labels['accuracy']:.1f} % of the pictures as they are "
        "labelled, without having learned from them; the lower that is, the more of these suspects are its own "
        "mistakes.\n\n"
    )
    rows = [
        [
            _thumbnail(subject, suspect.index, folder),
            f"{display_name(pool.label(suspect.index))} ({suspect.given_probability:.0%})",
            f"{display_name(pool.class_names[suspect.likely])} ({suspect.likely_probability:.0%})",
            Markdown(f"{code(pool.names[suspect.index])} ({pool.splits[suspect.index]})"),
        ]
        for suspect in subject.suspects[:_SHOWN]
    ]
    if rows:
        text += table(["", "given", "probably", "name"], rows) + _rest(len(subject.suspects))
    if labels["alike"]:
        text += (
            "\nClasses that the features cannot tell apart; no picture is suspect for being taken for the other:\n\n"
        )
        pairs = [[*map(display_name, each["classes"]), f"{100 * each['told_apart']:.0f} %"] for each in labels["alike"]]
        text += table(["class", "class", "told apart"], pairs)
    return text


def _score(score: schema.Score | None) -> str:
    if score is None:
        return ""
    parts = [leaving_out.Part(**part) for part in score["parts"]]
    return (
        f"\n## What it means for the score\n\nThe test score of {code(score['run'])}, of all pictures and without "
        "those that were found:\n\n"
        + leaving_out.as_table(parts)
        + "\nThe interval of a difference is Agresti and Caffo's, of "
        "the pictures that stay and those that do not. Suspect labels are those that a model finds hard, so a score "
        "without them is too good for that reason alone. To measure the effect, correct the labels and evaluate "
        "again.\n"
    )


def _facts(facts: schema.Facts) -> str:
    a_class, side = facts["pictures_a_class"], facts["shorter_side"]
    imbalance = f"{a_class['most'] / a_class['least']:.1f} times as many" if a_class["least"] else "a class has none"
    rows = [
        [
            "pictures a class",
            f"{a_class['least']:.0f} to {a_class['most']:.0f}, median {a_class['median']:g}: {imbalance}",
        ],
        ["shorter side", f"{side['least']:.0f} to {side['most']:.0f} pixels, median {side['median']:.0f}"],
        ["formats", ", ".join(f"{count:,} {name}" for name, count in facts["formats"].items()) or "–"],
    ]
    kinds = {
        "unreadable": [f"{each['name']}: {each['reason']}" for each in facts["unreadable"]],
        "shorter side below 64 pixels": facts["tiny"],
        "more than three times as long as wide": facts["long"],
        "nearly black": facts["nearly_black"],
        "nearly uniform": facts["nearly_uniform"],
        "grey": facts["grey"],
        "turned by EXIF": facts["turned_by_exif"],
        "names alike": [" = ".join(names) for names in facts["names_alike"]],
        "not pictures": facts["no_pictures"],
    }
    for what, names in kinds.items():
        if names:
            more = ", ..." if len(names) > _NAMES else ""
            rows.append([what, Markdown(f"{len(names):,}: {', '.join(map(code, names[:_NAMES]))}{more}")])
    text = "\n## Files\n\n![Pictures a class](classes.png)\n\n![Sizes](sizes.png)\n\n"
    return text + table(["", ""], rows)
