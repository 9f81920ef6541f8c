"""Score a classifier: every picture once, metrics in NumPy from the logits."""

import contextlib
import dataclasses
import functools
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from typing import NamedTuple

import numpy as np

from keras_dogs import backends
from keras_dogs.data.config import DataConfig
from keras_dogs.data.datasets import Dataset
from keras_dogs.data.datasets import load_configured
from keras_dogs.data.datasets.exclusions import Exclusions
from keras_dogs.data.datasets.exclusions import check_names
from keras_dogs.data.datasets.exclusions import known_names
from keras_dogs.data.datasets.exclusions import read_exclusions
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.data.loaders.canvases import load_canvases
from keras_dogs.data.loaders.canvases import refuse_unreadable
from keras_dogs.errors import UserError
from keras_dogs.evaluation import leaving_out
from keras_dogs.evaluation import statistics
from keras_dogs.evaluation import unseen
from keras_dogs.evaluation.config import EvaluateConfig
from keras_dogs.evaluation.page import Subject
from keras_dogs.evaluation.page import write_page
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.evaluation.scoring import is_correct
from keras_dogs.evaluation.scoring import score_logits
from keras_dogs.models import presets
from keras_dogs.runs import artifacts
from keras_dogs.runs.exports import exports_of
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import Scores
from keras_dogs.runs.records import recipe_in_words
from keras_dogs.system import caches
from keras_dogs.system import network
from keras_dogs.system import ownership
from keras_dogs.system import progress
from keras_dogs.system.flags import flag_of
from keras_dogs.system.pages import code

if TYPE_CHECKING:  # an exported model is scored without Keras
    import keras


class Evaluation(NamedTuple):
    """What `evaluate_classifier` found.

    Attributes:
        scores: `Scores`.
        logits: float32 array of shape `(num_pictures, num_classes)`.
        images_per_second: float. Without the first batch, which compiles.
    """

    scores: Scores
    logits: np.ndarray
    images_per_second: float


def evaluate_classifier(
    classifier: "keras.Model",
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int = 32,
    description: str = "Scoring",
) -> Evaluation:
    """Scores a classifier on canvases.

    Args:
        classifier: `keras.Model` from pictures to logits.
        images: uint8 array of shape `(num_pictures, height, width, 3)`.
        labels: int array of shape `(num_pictures,)`.
        batch_size: int. Without effect on the scores, but for the rounding of the backend's kernels.
        description: str. What progress calls it.

    Returns:
        `Evaluation`: `scores`, `logits` `(num_pictures, num_classes)` and pictures a second.

    Example:
    ```python
    found = keras_dogs.evaluate_classifier(classifier, pictures, labels)
    print(f"{found.scores.top1_accuracy:.1%}")
    ```
    """
    from keras_dogs.data.loaders.batches import predict_in_batches

    with progress.counting(f"{description} (batches)", math.ceil(len(labels) / batch_size)) as on_batch:
        logits, images_per_second = predict_in_batches(classifier, images, batch_size, on_batch)
    return Evaluation(score_logits(logits, labels), logits, images_per_second)


def evaluate_run(config: EvaluateConfig, exported=None) -> Scores:
    """Scores a classifier on a split of a dataset, and writes the page where one is asked for: `evaluate`'s procedure.

    Args:
        config: `EvaluateConfig`.
        exported: `exporting.exported.Exported` where `config.run` is an exported folder; no Keras is loaded then.

    Raises:
        UserError: there is no such run, preset or dataset, or the dataset has other classes.
    """
    config = dataclasses.replace(config, run=_run_of(config.run))
    with network.offline(config.offline), caches.use(config.cache_dir):
        if not exported:
            backends.keep_compiled(caches.folder("compiled"))
        # The folder is opened first, so that one that cannot be written is reported before the work.
        opened = ownership.new_folder(config.output, ownership.EVALUATE) if config.output else contextlib.nullcontext()
        with opened as folder:
            return _evaluate(config, exported, folder)


def _evaluate(config: EvaluateConfig, exported, folder: Path | None) -> Scores:
    is_preset = not exported and _is_preset(config.run)
    if exported and config.saved:
        raise UserError("--saved: an exported folder keeps no predictions; leave it out")
    if config.image_size and not is_preset:
        raise UserError(f"--image-size {config.image_size}: a trained classifier has its own; for presets only")
    against = _load_against(config)
    if config.overlap_list:
        statistics.split_by_overlap([], config.overlap_list)  # a mistake is said before anything long is begun
    listed = read_exclusions(config.exclude) if config.exclude else None
    model_file = None if is_preset or exported or config.saved else artifacts.find_model(Path(config.run))
    run = None if is_preset else unseen.run_behind(config.run, exported)
    loaded = None if config.saved else _load_split(config, run, exported)
    if listed and loaded:
        check_names(known_names(loaded[0]), loaded[0].name, listed)
    section = note = ""
    if config.saved:
        split, predictions = _saved(config, is_preset, run)
    else:
        check = functools.partial(_check_against, against, set(listed.reasons) if listed else set())
        split, predictions, note = _predict(config, model_file, exported, loaded, run, check)
    if listed:
        if config.saved:
            _check_listed(listed, Path(config.run), predictions)
        correct = is_correct(predictions.logits, predictions.labels)
        section = leaving_out.in_words(leaving_out.parts_of(correct, leaving_out.kinds_in(predictions, listed)), listed)
        predictions = leaving_out.without(predictions, listed)
        against = {name: leaving_out.without(found, listed) for name, found in against.items()}
    if folder:
        subject = _subject(config, predictions, split, exported, section, note, loaded and loaded[0].name)
        write_page(folder, subject, against, config.overlap_list)
    return score_logits(predictions.logits, predictions.labels)


def _check_listed(listed: Exclusions, run: Path, predictions: Predictions) -> None:
    """Refuses a list that names pictures of which a run knows nothing; runs of earlier versions do not know all."""
    record_file = run / artifacts.RECORD
    if predictions.trained_on is None or not record_file.is_file():
        return
    parts = [predictions.names, predictions.trained_on]
    parts.append(predictions.validation and predictions.validation.names)
    known = {str(name) for part in parts if part is not None for name in part}
    dataset = RunRecord.load(record_file).dataset
    known |= {*dataset.excluded, *(line.partition(": ")[0] for line in dataset.unreadable)}
    check_names(known, str(run), listed)


def _load_against(config: EvaluateConfig) -> dict[str, Predictions]:
    """Loads runs to compare with, by the folder's name, or by its path where two have the same name."""
    names = [_name_of(Path(config.run)), *map(_name_of, config.against)]
    return {
        name if names.count(name) == 1 else str(path.resolve()): Predictions.load(path)
        for path, name in zip(config.against, names[1:])
    }


def _check_against(against: dict[str, Predictions], left_out: set[str], names) -> None:
    """Refuses runs that were scored on other pictures, before these are scored."""
    for name, found in against.items():
        if set(found.names) - left_out != set(names) - left_out:
            raise UserError(
                f"--against {name}: was scored on other pictures than these; give runs on the same dataset, scored "
                "with the same --exclude"
            )


def _saved(config: EvaluateConfig, is_preset: bool, run: Path | None) -> tuple[Split | None, Predictions]:
    """Loads the saved predictions, and the pictures if they are at hand, for the page."""
    if is_preset:
        raise UserError(f"--saved: {config.run} is not a finished run, which keeps its predictions; leave it out")
    if config.split != "test" or config.dataset:
        raise UserError("--saved: a run keeps the predictions of its own test split; leave --split and --dataset out")
    predictions = Predictions.load(Path(config.run))
    if not config.output:
        return None, predictions
    try:
        with network.offline():  # nothing is downloaded for thumbnails
            return _load_split(config, run)[1], predictions
    except UserError as error:
        progress.open_console().print(f"no pictures on the page: {error}")
        return None, predictions


def _load_split(config: EvaluateConfig, run: Path | None, exported=None) -> tuple[Dataset, Split, DataConfig]:
    data, seed = _data_of_run(config, run or Path(config.run), exported)
    dataset = load_configured(data, seed)
    split = getattr(dataset, config.split)
    if split is None:
        raise UserError(f"--split {config.split}: {data.dataset} has no such split")
    return dataset, split, data


def _predict(
    config: EvaluateConfig, model_file: Path | None, exported, loaded, run: Path | None, check_against
) -> tuple[Split, Predictions, str]:
    dataset, split, data = loaded
    classifier = exported or _load(config, model_file, dataset.class_names)
    check_classes(classifier.class_names, classifier.num_classes, dataset, data.dataset)
    canvases = decode_for(classifier, dataset, config.split, data.unreadable_limit)
    note = ""
    if model_file or exported:
        canvases, note = unseen.leave_out_seen(canvases, dataset, config.split, config.run, run)
    if note:
        progress.open_console().print(note)
    check_against(canvases.names)
    batch_size = min(config.batch_size, len(canvases))
    if exported:
        with progress.counting("Scoring (batches)", math.ceil(len(canvases) / batch_size)) as on_batch:
            logits = exported.logits(canvases.images, batch_size, on_batch)
    else:
        logits = evaluate_classifier(classifier, canvases.images, canvases.labels, batch_size).logits
    class_names = classifier.class_names or dataset.class_names
    predictions = Predictions(
        np.array(canvases.names),
        np.array(canvases.labels),
        logits,
        np.array(class_names),
        _validation_of(config, canvases.names, run, exported),
    )
    return split, predictions, note


def _load(config: EvaluateConfig, model_file: Path | None, class_names) -> "keras.Model":
    """Loads the model of a run, or builds a preset with the rows of its head that stand for the classes."""
    from keras_dogs.models.builders import build_classifier
    from keras_dogs.models.builders import load_classifier

    if model_file:
        return load_classifier(model_file)
    size = config.image_size
    return build_classifier(config.run, len(class_names), size, "none", class_names=class_names, head="imagenet")


def _validation_of(config: EvaluateConfig, scored, run: Path | None, exported) -> Predictions | None:
    """Returns the validation predictions that a run kept, to fit a temperature on; not where those are scored.

    They are those of the run's logits, which quantisation changes.
    """
    folder = run if exported and run else Path(config.run)  # not of a checkpoint: its logits are others
    is_quantized = exported is not None and exported.facts["quantization"] is not None
    if not config.output or is_quantized or not (folder / artifacts.PREDICTIONS).is_file():
        return None
    found = Predictions.load(folder, needs_test=False).validation
    return None if found is None or np.isin(found.names, scored).any() else found


def _name_of(path: Path) -> str:
    return path.resolve().name


def _command(config: EvaluateConfig) -> str:
    """Returns the command that makes the page again."""
    words = ["python", "-m", "keras_dogs.evaluate", config.run, "--split", config.split]
    for flag in ("dataset", "data_dir", "image_size", "overlap_list", "exclude", "max_unreadable", "output"):
        if getattr(config, flag) not in (None, EvaluateConfig.__dataclass_fields__[flag].default):
            words += [flag_of(flag), str(getattr(config, flag))]
    words += ["--skip-unreadable"] if config.skip_unreadable else []
    words += ["--saved"] if config.saved else []
    words += ["--against", *map(str, config.against)] if config.against else []
    return shlex.join(words)


def _subject(
    config: EvaluateConfig,
    predictions: Predictions,
    split: Split | None,
    exported,
    section: str,
    note: str,
    dataset: str | None,
) -> Subject:
    record_file = Path(config.run) / artifacts.RECORD
    record = RunRecord.load(record_file) if record_file.is_file() else None
    name = _name_of(Path(config.run)) if record else config.run
    dataset = dataset or (record and record.dataset.name)  # an earlier evaluation may know neither
    facts = [("split", f"{config.split} of {dataset}" if dataset else config.split)]
    if exported:
        what = (exported.facts[key] for key in ("format", "quantization"))
        facts.append(("exported", ", ".join(filter(None, what))))
    if record:
        facts += [
            ("preset", code(record.preset)),
            ("model", f"{record.family}, {record.num_parameters:,} parameters"),
            ("recipe", recipe_in_words(record.config)),
            ("chosen", f"on {record.dataset.num_validation:,} validation pictures: {record.kept}"),
            ("trained on", f"{record.dataset.num_train:,} pictures, {record.backend}, {record.device}"),
            ("seed", str(record.seed)),
        ]
    facts.append(("made with", code(_command(config))))
    places = {picture: index for index, picture in enumerate(split.names)} if split else {}
    # Of a picture that is gone the page has the name.
    read = (lambda picture: split.read(places[picture]) if picture in places else None) if split else None
    if exported:
        preset, pretraining = exported.facts["preset"], exported.facts["pretraining"]
    else:
        preset = record.preset if record else config.run
        pretraining = record.pretraining if record else presets.pretraining_of(preset)
    exports = exports_of(Path(config.run)) if record else []
    return Subject(name, facts, preset, pretraining, predictions, read, exports, section, note)


def _run_of(run: str) -> str:
    """Returns the run folder that a model file belongs to, or what was given: its record tells what it has seen."""
    path = Path(run)
    is_of_run = path.name == artifacts.MODEL and path.is_file() and (path.parent / artifacts.RECORD).is_file()
    return str(path.parent) if is_of_run else run


def _is_preset(run: str) -> bool:
    """Returns whether it names weights that were not trained here: a known name, an address, or a file."""
    if artifacts.model_of(run):
        return False
    path = Path(run)
    is_file = path.suffix in presets.WEIGHT_SUFFIXES and path.is_file()
    return run in presets.PRESETS or run.startswith(presets.ADDRESSES) or is_file or (path / "config.json").is_file()


def decode_for(classifier: "keras.Model", dataset: Dataset, split: str, unreadable_limit: float) -> Canvases:
    """Decodes a split, by name, to the canvases that `classifier` was made for."""
    (canvases,) = load_canvases(dataset, [split], **classifier.canvas)
    refuse_unreadable([canvases], unreadable_limit, num_classes=0)
    for name, reason in canvases.unreadable:
        progress.open_console().print(f"left out: {name}: {reason}")
    return canvases


def check_classes(own, num_classes: int, dataset: Dataset, dataset_name: str) -> None:
    """Refuses a dataset whose classes are not the classifier's.

    Args:
        own: tuple of str or `None`. The classifier's class names.
        num_classes: int. Its number of classes.
        dataset: `Dataset`.
        dataset_name: str.

    Raises:
        UserError: they differ.
    """
    if own is None and num_classes != len(dataset.class_names):
        raise UserError(f"{dataset_name} has {len(dataset.class_names)} classes, the classifier {num_classes}")
    if own is None or tuple(own) == dataset.class_names:
        return
    strangers = sorted(set(dataset.class_names) - set(own)) or sorted(set(own) - set(dataset.class_names))
    example = f"; '{strangers[0]}' is in one of them only" if strangers else "; their order differs"
    raise UserError(
        f"{dataset_name} has other classes than the classifier ({len(dataset.class_names)} and {len(own)}{example}): "
        "choose the dataset that it was trained on, or train on this one"
    )


def _data_of_run(config: EvaluateConfig, run: Path, exported=None) -> tuple[DataConfig, int]:
    """Returns the run's own dataset settings, overridden by the flags of `evaluate`, and its seed."""
    given = {"max_unreadable": config.max_unreadable, "skip_unreadable": config.skip_unreadable}
    if config.dataset:
        given |= {"dataset": config.dataset, "pictures_per_class": None}
    if config.data_dir:
        given["data_dir"] = config.data_dir
    if exported and exported.facts["data"]:
        return DataConfig(**{**_own_data(exported.facts["data"]), **given}), exported.facts["seed"]
    record_file = run / artifacts.RECORD
    if not record_file.is_file():
        if artifacts.is_unfinished(run):
            raise UserError(f"{run}: an unfinished run; {artifacts.how_to_go_on(run)}")
        if not config.dataset:
            raise UserError(f"{config.run}: does not say what it was trained on; give --dataset")
        return DataConfig(**given), 0
    record = RunRecord.load(record_file)
    return DataConfig(**{**_own_data(record.config["data"]), **given}), record.seed


def _own_data(data: dict) -> dict:
    """Returns the dataset settings of a record that `evaluate` goes by."""
    names = ("dataset", "data_dir", "validation_fraction", "pictures_per_class")
    own = {key: value for key, value in data.items() if key in names}
    own["data_dir"] = Path(own["data_dir"]) if own.get("data_dir") else None
    return own
