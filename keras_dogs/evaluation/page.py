"""The page of one evaluation, complete on its own: `report.md`, `report.html`, figures and `scores.json`."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dogs.data.datasets import display_name
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.evaluation import figures
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import schema
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation import statistics
from keras_dogs.evaluation import trust
from keras_dogs.evaluation.calibration import calibrate
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.system import pages
from keras_dogs.system import reading
from keras_dogs.system.pages import Markdown
from keras_dogs.system.pages import code
from keras_dogs.system.pages import image
from keras_dogs.system.pages import table
from keras_dogs.system.pages import text as plain

_NUM_PAIRS, _THUMBNAIL = 8, 112


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        name: str. The run or preset.
        facts: list of `(what, value)` for the page's head.
        preset: str. From which its weights came.
        pretraining: str. What they had seen, in words.
        predictions: `Predictions` of the split, with those of validation where there are.
        read: function of a picture's name to a `PIL.Image` or `None`; `None` where no picture is at hand.
        exports: list of `runs.exports.Export`: what was exported from it.
        left_out: str. The section on pictures that were left out, Markdown; empty where none were.
        note: str. What the reader must know of the pictures: that some were left out, or that it has seen them.
    """

    name: str
    facts: list[tuple[str, str]]
    preset: str
    pretraining: str
    predictions: Predictions
    read: object = None
    exports: tuple = ()
    left_out: str = ""
    note: str = ""


def write_page(folder: Path, subject: Subject, against: dict[str, Predictions], overlap_list: Path | None) -> None:
    """Writes the page and all that it shows.

    Args:
        folder: Path. It is empty.
        subject: `Subject`.
        against: dict of name to `Predictions` of the same pictures by others: the untouched head, a linear probe.
        overlap_list: Path or `None`. A list of pretraining files.
    """
    found = subject.predictions
    temperature = statistics.temperature_of(found)
    calibration = calibrate(found, temperature)
    cooled = found.logits / temperature.value if temperature.value else None
    scores = reading.check(_scores(found, temperature), schema.Evaluation, schema.FILE)
    sets = trust.sets_of(found, calibration)
    rows = _per_class(found, sets)
    figures.draw_risk(trust.risk_by_share(found, temperature.value), folder / "risk.png")
    if sets:
        figures.draw_set_sizes(sets.sizes, folder / "set_sizes.png")
    figures.draw_reliability(found.logits, cooled, found.labels, temperature.value or 1.0, folder / "reliability.png")
    names = [display_name(name) for name in found.class_names]
    figures.draw_confusion(found.logits, found.labels, names, folder / "confusion.png")
    figures.draw_per_class([row["accuracy"] for row in rows], folder / "per_class.png")
    parts = [
        _head(subject, scores),
        _score_table(found, scores),
        subject.left_out,
        _seen_before(subject, against, overlap_list),
        _calibration(temperature, scores),
        trust.in_words(found, calibration, sets),
        _exported(subject.exports),
        _confusions(subject, folder),
        _class_table(rows),
    ]
    text = "\n".join(parts)
    (folder / "report.md").write_text(text, "utf-8")
    (folder / "report.html").write_text(pages.to_html(text, folder, f"Evaluation of {subject.name}"), "utf-8")
    (folder / schema.FILE).write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
    found.save(folder / artifacts.PREDICTIONS)


def _scores(found: Predictions, temperature: scoring.Temperature) -> schema.Evaluation:
    """Computes every score of the page; intervals are 95 % intervals over pictures."""
    scores = scoring.score_logits(found.logits, found.labels)
    result = {
        "schema_version": schema.SCHEMA_VERSION,
        **vars(scores),
        "intervals": {},
        "temperature": temperature.value,
    }
    for name, top_k in (("top1_accuracy", 1), ("top5_accuracy", 5)):
        correct = scoring.is_correct(found.logits, found.labels, top_k)
        result["intervals"][name] = intervals.share_interval(correct)
    if temperature.value is None:
        return {**result, "why_no_temperature": temperature.why}
    after = scoring.score_logits(found.logits / temperature.value, found.labels)
    of_calibration = ("loss", "expected_calibration_error")
    return {**result, "with_temperature": {name: getattr(after, name) for name in of_calibration}}


def _head(subject: Subject, scores: dict) -> str:
    low, high = scores["intervals"]["top1_accuracy"]
    headline = (
        f"> {plain(subject.name)} names {100 * scores['top1_accuracy']:.1f} % of {scores['num_pictures']:,} pictures "
        f"correctly (95 % interval {100 * low:.1f} to {100 * high:.1f} %).\n\n"
    )
    facts = table(["", ""], [list(fact) for fact in subject.facts])
    note = f"**Note:** {plain(subject.note)}.\n\n" if subject.note else ""
    return f"# Evaluation of {plain(subject.name)}\n\n{headline}{note}{facts}"


def _score_table(found: Predictions, scores: dict) -> str:
    def row(what: str, name: str) -> list[str]:
        low, high = scores["intervals"].get(name, (None, None))
        interval = f"{100 * low:.1f} to {100 * high:.1f} %" if low is not None else "–"
        return [what, f"{100 * scores[name]:.1f} %", interval]

    rows = [
        row("top-1 accuracy", "top1_accuracy"),
        row("top-5 accuracy", "top5_accuracy"),
        row("mean per-class accuracy", "mean_per_class_accuracy"),
        ["cross-entropy, nats", f"{scores['loss']:.3f}", "–"],
        row("expected calibration error", "expected_calibration_error"),
    ]
    return (
        f"\n## Scores\n\n{scores['num_pictures']:,} pictures of {len(found.class_names)} classes, each scored once. "
        "Intervals: 95 %, Clopper and Pearson's, over pictures; they do not cover other seeds.\n\n"
        + table(["score", "value", "interval"], rows)
    )


def _seen_before(subject: Subject, against: dict, overlap_list: Path | None) -> str:
    text = "\n## What the weights had seen\n\n"
    text += f"The weights come from {code(subject.preset)}, trained on: {plain(subject.pretraining)}.\n\n"
    is_of_imagenet = all(re.match(r"n\d{8}-", str(name)) for name in subject.predictions.class_names)
    if is_of_imagenet and not subject.pretraining.startswith("none"):
        text += (
            "These classes are those of Stanford Dogs, which is a part of ImageNet. Weights that were trained on "
            "ImageNet have most likely seen these pictures, test pictures included, with these labels: the score "
            "measures memory as well as transfer.\n\n"
        )
    if against:
        text += _table_against(subject, against)
    else:
        text += "No other scores to hold it against were given (`--against`).\n\n"
    if overlap_list:
        text += _overlap(subject.predictions, overlap_list)
    return text


def _table_against(subject: Subject, against: dict) -> str:
    rows = [
        [name, *_accuracy_cells(scoring.is_correct(found.logits, found.labels))]
        for name, found in [(subject.name, subject.predictions), *against.items()]
    ]
    text = table(["", "top-1", "95 % interval"], rows) + "\n"
    for name, found in against.items():
        text += f"- {plain(statistics.compare(subject.predictions, found).in_words(subject.name, name))}\n"
    return text + "\nThe test is McNemar's, exact; the interval of the difference Bonett and Price's.\n\n"


def _accuracy_cells(correct) -> tuple[str, str]:
    """Formats an accuracy and its interval as two cells of a table."""
    if not len(correct):
        return "–", "–"
    low, high = intervals.share_interval(correct)
    return f"{100 * correct.mean():.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"


def _overlap(found: Predictions, overlap_list: Path) -> str:
    named = statistics.split_by_overlap(found.names, overlap_list)
    correct = scoring.is_correct(found.logits, found.labels)
    parts = (("named in the list", named), ("the rest", ~named))
    rows = [[what, f"{inside.sum():,}", *_accuracy_cells(correct[inside])] for what, inside in parts]
    text = f"Split by {code(overlap_list.name)}, a list of files that the pretraining used:\n\n"
    return text + table(["pictures", "number", "top-1", "95 % interval"], rows) + "\n"


def _calibration(temperature: scoring.Temperature, scores: dict) -> str:
    text = "\n## Calibration\n\n![Reliability](reliability.png)\n\n"
    if temperature.value is None:
        return text + f"No temperature was fitted: {temperature.why}.\n"
    after = scores["with_temperature"]
    return text + (
        f"Logits divided by {temperature.value:.3f}, fitted on the validation split: expected calibration error "
        f"{100 * scores['expected_calibration_error']:.1f} → {100 * after['expected_calibration_error']:.1f} %, "
        f"cross-entropy {scores['loss']:.3f} → {after['loss']:.3f}. Accuracy does not change.\n"
    )


def _exported(exports) -> str:
    """Returns what was found when the run was exported."""
    if not exports:
        return ""
    header = ["format", "pictures", "same name", "largest difference", "top-1", "one picture", "batches of 32", "size"]
    rows = []
    for found in exports:
        checked = found["verification"]
        top1 = checked["top1_accuracy"]
        largest = checked["largest_logit"]
        rows.append(
            [
                ", ".join(filter(None, (found["format"], found["quantization"]))),
                f"{checked['num_pictures']:,}",
                f"{100 * checked['agreement']:.1f} %",
                f"{checked['largest_difference'] / largest:.1e}" if largest else "–",
                "–" if top1 is None else f"{100 * top1:.1f} %",
                f"{checked['latency_p50_ms']:.1f} ms",
                f"{checked['images_per_second']:.0f} images/s",
                f"{checked['size_bytes'] / 2**20:.1f} MiB",
            ]
        )
    text = "\n## Exported\n\nEach file answered picture files in its own runtime, beside the run's own classifier. "
    text += "The largest difference is that of a logit, as a share of the largest logit; "
    machines = " and ".join(sorted({plain(found["verification"]["machine"]) for found in exports}))
    return text + f"times are the median of single pictures, on {machines}.\n\n" + table(header, rows)


def _confusions(subject: Subject, folder: Path) -> str:
    """Returns the most confused pairs, and of each a picture with the wrong answer."""
    found = subject.predictions
    counts = scoring.confusion_matrix(found.logits, found.labels)
    wrong = counts - np.diag(np.diag(counts))
    rows, taken = [], np.argmax(found.logits, axis=1)
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_NUM_PAIRS]:
        label, other = (int(index) for index in np.unravel_index(place, wrong.shape))
        if wrong[label, other] == 0:
            break
        index = int(np.flatnonzero((found.labels == label) & (taken == other))[0])
        shown = _thumbnail(subject, str(found.names[index]), folder / "pictures" / f"{label}-{other}.jpg", folder)
        names = [display_name(found.class_names[number]) for number in (label, other)]
        rows.append([*names, wrong[label, other], counts[label].sum(), shown])
    text = "\n## Confusions\n\nThe most confused pairs:\n\n"
    text += table(["pictures of", "taken for", "times", "of", "example"], rows) if rows else "None was confused.\n"
    return text + "\n![Confusion matrix](confusion.png)\n"


def _thumbnail(subject: Subject, name: str, file: Path, folder: Path) -> Markdown:
    try:
        picture = subject.read(name) if subject.read else None
    except UnreadablePicture:  # it has been damaged since
        picture = None
    if picture is None:
        return code(name)
    pages.save_thumbnail(picture, file, _THUMBNAIL)
    return image(name, file.relative_to(folder).as_posix())


def _per_class(found: Predictions, sets: trust.Sets | None) -> list[dict]:
    counts = scoring.confusion_matrix(found.logits, found.labels)
    named = counts.sum(axis=0)
    rows = []
    for label, name in enumerate(found.class_names):
        num = int(counts[label].sum())
        if num:
            wrong = counts[label].copy()
            wrong[label] = 0
            other = display_name(found.class_names[wrong.argmax()]) if wrong.any() else "–"
            held = f"{100 * sets.hold[found.labels == label].mean():.0f} %" if sets else "–"
            right = counts[label, label]
            rows.append(
                {
                    "class": display_name(name),
                    "pictures": num,
                    "accuracy": right / num,
                    "precision": right / named[label] if named[label] else None,
                    "f1": 2 * right / (num + named[label]),
                    "in set": held,
                    "other": other,
                }
            )
    return sorted(rows, key=lambda row: (row["accuracy"], row["class"]))


def _class_table(rows: list[dict]) -> str:
    text = (
        "\n## Classes\n\n![Accuracy of classes](per_class.png)\n\nFrom the hardest to the easiest. *Recall*: the share "
    )
    text += (
        "of its pictures that are named so, its top-1 accuracy. *Precision*: the share of the pictures named so that "
    )
    text += "are of it. *F1*: their harmonic mean.\n\n"
    cells = [
        [
            row["class"],
            row["pictures"],
            f"{100 * row['accuracy']:.0f} %",
            "–" if row["precision"] is None else f"{100 * row['precision']:.0f} %",
            f"{100 * row['f1']:.0f} %",
            row["in set"],
            row["other"],
        ]
        for row in rows
    ]
    return text + table(
        ["class", "pictures", "recall", "precision", "F1", "in its 90 % set", "most often taken for"], cells
    )
