"""Writes the model card of a folder for another library: `README.md` with the metadata of the Hugging Face hub.

It says what the record and `export.json` say, and nothing else; where they are silent, it says that.
"""

import json

import numpy as np

from keras_dogs.evaluation import intervals
from keras_dogs.models.presets import PUBLISHED
from keras_dogs.runs.exports import NOT_READ_BACK
from keras_dogs.runs.exports import Export
from keras_dogs.runs.records import PROSE
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import recipe_in_words
from keras_dogs.system import pages

FILE = "README.md"
_HUB_NAMES = {"transformers": "transformers", "timm": "timm", "keras_hub": "keras-hub"}
_FAMILIES = {"vit": "ViT", "deit": "DeiT", "dinov2": "DINOv2", "resnet": "ResNet"}
_MOST_NAMES = 12
_USES = {
    "transformers": """from transformers import pipeline

classify = pipeline("image-classification", "{folder}")
print(classify("picture.jpg"))""",
    "timm": """import timm
from PIL import Image, ImageOps

model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
logits = model(transform(picture)[None])[0]
print(model.pretrained_cfg["label_names"][int(logits.argmax())])""",
    "keras_hub": """import keras
import keras_hub
from PIL import Image, ImageOps

classifier = keras_hub.models.ImageClassifier.from_preset("{folder}")
picture = keras.utils.img_to_array(ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB"))
logits = classifier.predict(picture[None])[0]
print(open("{folder}/labels.txt", encoding="utf-8").read().split("\\n")[logits.argmax()])""",
}


def card_of(found: Export, record: RunRecord | None) -> str:
    """Returns the card of an exported folder.

    Args:
        found: `Export`, with its verification.
        record: `RunRecord` of the run, or `None` where only a model was given.
    """
    title = f"{_FAMILIES.get(found['family'], found['family'])} of {len(found['class_names'])} classes"
    title += f", fine-tuned on {_dataset_of(found)}" if record else ""
    parts = [
        _metadata(found, record, title),
        f"# {pages.text(title)}\n\n{_what_it_is(found, record)}",
        "## How to use it\n\n" + _use(found),
        "## Scores\n\n" + _scores(record) if record else "",
        "## Does it answer as the original does?\n\n" + _checked(found),
        "## Probabilities\n\n" + _probabilities(found),
        "## How it was trained\n\n" + _training(record) if record else "",
        "## What the weights had seen before\n\n" + _pretraining(found, record) if record else "",
        "## Limits\n\n" + _limits(found, record),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _metadata(found: Export, record: RunRecord | None, title: str) -> str:
    """Returns the YAML that hubs read; strings are written as JSON, which YAML contains."""
    lines = [f"library_name: {_HUB_NAMES[found['format']]}", "pipeline_tag: image-classification"]
    if found["preset"].startswith("hf://"):
        lines.append(f"base_model: {_quoted(found['preset'].removeprefix('hf://').partition('@')[0])}")
    lines += ["tags:", "- image-classification", "- keras-dogs"]
    if record and record.test:
        dataset = _quoted(_dataset_of(found))
        lines += [
            "metrics:",
            "- accuracy",
            "model-index:",
            f"- name: {_quoted(title)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {dataset}",
            f"      type: {dataset}",
            "      split: test",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {record.test.top1_accuracy}",
        ]
    return "\n".join(["---", *lines, "---"])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _dataset_of(found: Export) -> str:
    """Returns the name of the dataset, without the folders of the machine that it lies on."""
    return found["data"].get("dataset", "unknown")


def _what_it_is(found: Export, record: RunRecord | None) -> str:
    names = [pages.code(name) for name in found["class_names"][:_MOST_NAMES]]
    more = len(found["class_names"]) - len(names)
    listed = ", ".join(names) + (f" and {more} more (`labels.txt`)" if more else "")
    size = f" of {record.num_parameters:,} parameters" if record else ""
    start = f", started from {pages.code(found['preset'])}" if record else ""
    return (
        f"An image classifier{size}{start}, for one of these classes: {listed}. "
        f"Trained and written by keras_dogs {found['versions']['keras_dogs']}, for {found['format']}."
    )


def _use(found: Export) -> str:
    text = f"With this folder as `classifier`:\n\n```python\n{_USES[found['format']].format(folder='classifier')}\n```"
    if any(note.startswith(NOT_READ_BACK) for note in found.get("notes", ())):
        return text
    return f"{text}\n\nTo train it further in keras_dogs: `python -m keras_dogs.train --preset classifier`."


def _scores(record: RunRecord) -> str:
    rows = [
        [pages.text(split), f"{scores.num_pictures:,}", _with_interval(scores), f"{scores.top5_accuracy:.1%}"]
        + [f"{scores.mean_per_class_accuracy:.1%}", f"{scores.loss:.3f}"]
        for split, scores in (("validation", record.validation), ("test", record.test))
        if scores
    ]
    if not rows:
        return "It was scored on no pictures."
    header = ["split", "pictures", "top-1 (95 % interval)", "top-5", "mean of classes", "loss, nats"]
    chosen = "The epoch that was kept was chosen on the validation pictures; the test pictures had no part in it."
    return f"{pages.table(header, rows)}\n{chosen if record.validation else ''}"


def _with_interval(scores) -> str:
    count = scores.num_pictures
    right = np.arange(count) < round(scores.top1_accuracy * count)
    low, high = intervals.share_interval(right)
    return f"{scores.top1_accuracy:.1%} ({low:.1%} to {high:.1%})"


def _checked(found: Export) -> str:
    checked = found["verification"]
    library = found["format"]
    off = checked["largest_difference"] / max(checked["largest_logit"], 1e-30)
    count = checked["num_pixels"]
    lines = [
        f"- On the same pixels, of {count} pictures, no logit is off by more than {off:.1e} of the largest.",
        f"- From picture files, by the preprocessing of {library}, {checked['agreement']:.1%} of "
        f"{checked['num_pictures']:,} pictures ({pages.text(checked['pictures'])}) get the same class.",
    ]
    if checked["top1_accuracy"] is not None:
        low, high = (100 * bound for bound in checked["accuracy_loss_interval"])
        lines.append(
            f"- Top-1 accuracy on them: {checked['top1_accuracy']:.1%}, by the original "
            f"{checked['top1_accuracy_of_run']:.1%}; 95 % interval of the loss: {low:+.1f} to {high:+.1f} points."
        )
    if unread := checked.get("unread"):
        lines.append(f"- {library} could not read {len(unread):,} of the files.")
    lines += [f"- {pages.text(note)}." for note in found.get("notes", ())]
    return "\n".join(lines)


def _probabilities(found: Export) -> str:
    if not found["temperature"]:
        return (
            f"No temperature is known for the logits: {pages.text(found.get('why_no_temperature') or 'not recorded')}."
        )
    text = (
        f"For calibrated probabilities, divide the logits by {found['temperature']:.3f} before the softmax: that "
        "temperature was fitted on the validation pictures."
    )
    error = (found.get("calibration") or {}).get("calibration_error")
    if error:
        text += f" On validation the expected calibration error changes from {error[0]:.1%} to {error[1]:.1%}."
    return text


def _training(record: RunRecord) -> str:
    data, config = record.dataset, record.config
    rows = [
        ["recipe", recipe_in_words(config)],
        ["pictures", f"{data.num_train:,} to train, {data.num_validation:,} to choose, {data.num_test:,} to score"],
        ["fingerprint of the dataset", pages.code(data.fingerprint)],
        ["seed", record.seed],
        ["backend", f"{PROSE[record.backend]}, {record.dtype_policy}"],
        ["device", record.device],
        ["versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())],
    ]
    rows += [["pictures left out", f"{len(data.excluded):,}"]] if data.excluded else []
    return str(pages.table(["", ""], rows))


def _pretraining(found: Export, record: RunRecord) -> str:
    published = PUBLISHED.get(record.preset)
    text = f"{pages.code(found['preset'])}: {pages.text(found['pretraining'])}."
    if published:
        return f"{text} Licence of these weights: {published.licence}."
    return f"{text} keras_dogs does not know their licence; check where they came from."


def _limits(found: Export, record: RunRecord | None) -> str:
    lines = ["- It names one of its classes for any picture, also for one that shows none of them."]
    if record and record.test:
        lines.append(f"- Its scores are of {pages.text(_dataset_of(found))}; other pictures may be harder.")
    is_pretrained = not found["pretraining"].startswith("none")
    if record and is_pretrained and "stanford_dogs" in _dataset_of(found):
        lines.append(
            "- Stanford Dogs was taken from ImageNet: weights that learned ImageNet have seen most of its pictures, "
            "test pictures too."
        )
    return "\n".join(lines)
