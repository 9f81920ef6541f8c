"""Turns a config into a job: classifier, recipe and pictures; checks what must hold before it trains."""

import contextlib
import dataclasses
import itertools
import math
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import keras

from keras_dogs import backends
from keras_dogs import layers
from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.data.datasets import DATASETS
from keras_dogs.data.datasets import Dataset
from keras_dogs.data.datasets import drawn_class_names
from keras_dogs.data.datasets import load_configured
from keras_dogs.data.loaders.canvases import equal_pictures
from keras_dogs.data.loaders.canvases import load_canvases
from keras_dogs.data.loaders.canvases import refuse_unreadable
from keras_dogs.data.loaders.stream import check_readable
from keras_dogs.data.loaders.stream import stream
from keras_dogs.errors import UserError
from keras_dogs.evaluation.evaluating import Evaluation
from keras_dogs.evaluation.evaluating import evaluate_classifier
from keras_dogs.models import builders
from keras_dogs.models import families
from keras_dogs.models import presets
from keras_dogs.models.weights.keras_hub_presets import cached_folder
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import DatasetRecord
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import recipe_in_words
from keras_dogs.system import progress
from keras_dogs.system import terminal
from keras_dogs.training import recipes
from keras_dogs.training import without_effect
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.plan import Pictures
from keras_dogs.training.recipes import Recipe


class Run(NamedTuple):
    """A finished run: its folder and its record. Of several processes, only the first has the record."""

    folder: Path
    record: RunRecord | None


class Job(NamedTuple):
    """Everything that a training run needs, computed once from its config.

    Attributes:
        config: `TrainConfig`.
        recipe: `Recipe`, complete.
        policy: `layers.Augmentation`. The recipe's, changed by flags such as `--mixup`.
        dataset: `Dataset`.
        classifier: `keras.Model`.
    """

    config: TrainConfig
    recipe: Recipe
    policy: layers.Augmentation
    dataset: Dataset
    classifier: keras.Model

    @property
    def family(self) -> str:
        """The family of the backbone: `"vit"`, `"resnet"`, ..."""
        return self.classifier.family

    @property
    def views(self) -> int:
        """Number of augmented views per picture that features are computed of; 0 for the picture as it is."""
        return self.config.views if self.policy.draws else 0

    @property
    def reads_features(self) -> bool:
        """Whether each step reads features that were computed once, instead of pictures."""
        can_keep = bool(self.config.views or not self.policy.draws)
        return self.recipe.linear_probe and not self.policy.mixing and can_keep


def settle(config: TrainConfig, dataset: Dataset) -> Job:
    """Builds the classifier, and completes the recipe for its family.

    Raises:
        UserError: something in the config does not go with the model, the dataset or the devices.
    """
    recipe = recipes.choose(config)
    policy = _augmentation(config, recipe)
    classifier = _build_classifier(config, recipe, policy, dataset)
    devices.current().check_model(classifier)
    job = Job(config, recipe, policy, dataset, classifier)
    job = job._replace(recipe=recipes.complete(recipe, config.preset, job.family))
    _check_recipe(job.recipe, dataset)
    without_effect.check(
        without_effect.Situation(
            config,
            job.recipe,
            job.family,
            backends.name(),
            devices.current().num_devices,
            job.reads_features,
            policy.draws,
            dataset.keeps_validation,
        )
    )
    devices.check_batch(job.recipe.batch_size, job.recipe.accumulate)
    _check_memory(job)
    return job


def _check_memory(job: Job) -> None:
    """Refuses a step that cannot fit in memory, because the system would kill the process without a message.

    The estimate is a lower bound: gradients, moments, and a third of the outputs of the backbone's layers, as a
    compiler may recompute some. A block of a ViT keeps at least eight tensors of the size of its output. The weights
    are allocated already.
    """
    available = backends.free_device_bytes()
    if available is None or job.recipe.linear_probe or job.config.remat or job.config.model_shards > 1:
        return
    backbone = job.classifier.backbone
    outputs = [tensor for layer in backbone.layers for tensor in keras.tree.flatten(layer.output)]
    block = families.family(job.family).block
    blocks = sum(type(layer).__name__ == block for layer in keras_inside.layers_of(backbone))
    outputs += 8 * blocks * keras.tree.flatten(backbone.output)[:1]
    numbers = sum(math.prod(tensor.shape[1:]) for tensor in outputs if None not in tensor.shape[1:])
    batch_size = min(job.recipe.batch_size, len(job.dataset.train))
    pictures = max(1, batch_size // (job.recipe.accumulate * devices.current().num_copies))
    width = 4 if backbone.compute_dtype == "float32" else 2
    of_weights = (8 if job.recipe.optimizer == "sgd" else 12) * backbone.count_params()
    least = of_weights + pictures * numbers * width // 3
    if least > available:
        raise UserError(
            f"a step of {pictures} pictures needs at least {least / 2**30:,.1f} GiB, but only {available / 2**30:,.1f} "
            "GiB are free: lower --batch-size or --image-size, or raise --accumulate for the same batch in smaller "
            "parts"
        )


def score_test(job: Job, pictures: Pictures) -> Evaluation:
    """Scores the classifier on the test split."""
    batch_size = min(job.recipe.batch_size, 64)
    return evaluate_classifier(job.classifier, pictures.test.images, pictures.test.labels, batch_size, "Scoring test")


def _check_recipe(recipe: Recipe, dataset: Dataset) -> None:
    if recipe.patience and dataset.validation is None:
        raise UserError(
            f"--patience {recipe.patience}: {dataset.name} has no validation split to be patient with; give "
            "--validation-fraction, or --patience 0"
        )


def run_folder(output: Path, given: dict, resume: bool):
    """Opens the folder of the run in the first process; the others write nothing."""
    if devices.current().group.is_first:
        return artifacts.run_folder(output, given, resume)
    return contextlib.nullcontext(output)


def check_hosts_have_same_dataset(dataset: Dataset) -> None:
    """Refuses hosts whose datasets differ: they would train on nonsense."""
    first, _ = devices.current().group.from_first(dataset.fingerprint)
    if first != dataset.fingerprint:
        raise UserError(
            f"the pictures of {dataset.name} on this host are not those of process 0; copy them, and give each process "
            "the same --exclude"
        )


def check_hosts_read_same_pictures(pictures: Pictures) -> None:
    """Refuses hosts that can read different pictures: one missing picture would shift all later batches."""
    digest = pictures.digest
    if devices.current().group.from_first(digest)[0] != digest:
        raise UserError("the pictures that this host can read are not those of process 0; copy them")


def check_can_resume(folder: Path, dataset: Dataset) -> None:
    """Refuses to resume a run with other pictures or on another backend."""
    begun = artifacts.read_config(folder)
    # A sweep that an earlier version began has none.
    if begun["fingerprint"] not in (None, dataset.fingerprint):
        raise UserError(
            f"--resume: the pictures of {dataset.name} are not those that {folder} was begun with; put them back, or "
            "give --overwrite to start again"
        )
    if begun["backend"] != backends.name():
        raise UserError(f"--resume: {folder} was begun with KERAS_BACKEND={begun['backend']}; go on with that")


def choose_preset(config: TrainConfig) -> TrainConfig:
    """Replaces the default preset by a cached one that knows photographs, unless the pictures are drawn dogs."""
    if not isinstance(config.preset, presets.DefaultPreset) or config.data.dataset == "drawn_dogs":
        return config
    at_hand = next((name for name in presets.PHOTOGRAPH_PRESETS if cached_folder(name)[1]), None)
    if at_hand is None:
        return config
    is_folder = config.data.dataset not in DATASETS  # a named dataset may have to be downloaded first
    if is_folder and _are_drawn(load_configured(config.data, config.seed).class_names):
        return config
    progress.open_console().print(
        f"no --preset was given: using {at_hand}, which knows photographs and is in the cache (for the small one that "
        f"knows drawn dogs alone: --preset {config.preset})"
    )
    return dataclasses.replace(config, preset=at_hand)


def choose_recipe(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """Chooses the recipe for a small folder of photographs if none was given, and prints that."""
    if config.data.pictures_per_class:  # a quick look at a folder that may be large
        return config
    photographs = config.data.dataset not in DATASETS and not _are_drawn(dataset.class_names)
    is_small = len(dataset.train) <= recipes.SMALL_FOLDER and dataset.validation is not None
    knows_drawings_alone = presets.knows_drawn_dogs_alone(config.preset)
    if knows_drawings_alone or not (photographs and is_small and recipes.is_open(config)):
        return config
    recipe, patience = recipes.FOR_SMALL_FOLDERS, recipes.THEIR_PATIENCE
    progress.open_console().print(
        f"no --recipe was given: using {recipe} with --patience {patience}, because {dataset.name} has only "
        f"{len(dataset.train):,} training pictures (--linear-probe is much faster; --recipe {recipes.name_of(config)} "
        "is what larger folders get)"
    )
    return dataclasses.replace(config, recipe=recipe, patience=patience)


def _are_drawn(class_names: list[str]) -> bool:
    """Returns whether all classes are breeds of drawn dogs."""
    return set(class_names) <= set(drawn_class_names())


def default_name(config: TrainConfig) -> str:
    """Returns the name of the run folder where `--output` is not given."""
    dataset = Path(os.path.abspath(config.data.dataset)).name or "dataset"
    return f"{dataset}-{presets.short_name(config.preset)}-{backends.name()}"


def _augmentation(config: TrainConfig, recipe: Recipe) -> layers.Augmentation:
    """Returns the recipe's augmentation, changed by `--mixup`, `--cutmix` and `--erasing`."""
    policy = layers.AUGMENTATIONS[recipe.augmentation]
    given = {name: getattr(config, name) for name in ("mixup", "cutmix") if getattr(config, name) is not None}
    mixing = {name: value for name, value in {**policy.mixing, **given}.items() if value}
    erasing = policy.erasing
    if config.erasing is not None:
        erasing = {"probability": config.erasing} if config.erasing else {}
    return policy._replace(mixing=mixing, erasing=erasing)


def _build_classifier(config: TrainConfig, recipe: Recipe, policy, dataset: Dataset) -> keras.Model:
    classifier = builders.build_classifier(
        config.preset,
        num_classes=len(dataset.class_names),
        image_size=config.image_size,
        augmentation=policy,
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        load_weights=recipe.load_weights,
        dtype=config.dtype_policy,
        seed=config.seed,
        class_names=dataset.class_names,
        canvas_size=config.data.canvas_size,
        fit=config.data.fit,
        head=config.head,
        positions=config.position_resampling,
        remat=config.remat,
    )
    _freeze(classifier, recipe)
    return classifier


def _freeze(classifier: keras.Model, recipe: Recipe) -> None:
    if recipe.linear_probe:
        for layer in classifier.layers:
            layer.trainable = layer.name == "head"
    if recipe.freeze_batch_norm:
        for layer in keras_inside.layers_of(classifier.backbone):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def decode_pictures(job: Job) -> Pictures:
    """Decodes the splits of the dataset, opens them in the cache, or, with `--cache none`, streams them.

    Streamed pictures are read as they are needed, so that the limit on unreadable training pictures and the warning of
    leaks do not apply.

    Raises:
        UserError: more pictures are unreadable than the config allows.
    """
    config, dataset = job.config, job.dataset
    canvas = job.classifier.canvas
    if config.data.cache == "none":
        splits = (dataset.train, dataset.validation, dataset.test)
        pictures = Pictures(*(None if split is None else stream(split, **canvas) for split in splits))
        check_readable("validation and test pictures", pictures.validation, pictures.test)
        return pictures
    keep = "memory" if config.data.cache == "memory" else "disk"
    pictures = Pictures(*load_canvases(dataset, Pictures._fields, cache=keep, **canvas))
    decoded = [canvases for canvases in pictures if canvases is not None]
    refuse_unreadable(decoded, config.data.unreadable_limit, len(dataset.class_names))
    for line in pictures.unreadable:
        progress.open_console().print(f"left out: {line}")
    _warn_of_leaks(config, pictures)
    return pictures


def _warn_of_leaks(config: TrainConfig, pictures: Pictures) -> None:
    """Prints a one-line warning if pictures with equal canvases are in more than one split."""
    parts = [(name, getattr(pictures, name)) for name in Pictures._fields if getattr(pictures, name) is not None]
    found = [
        (other, same)
        for (_, first), (other, second) in itertools.combinations(parts, 2)
        for same in equal_pictures(first, second)
    ]
    if found:
        other, (first, second) = found[-1]  # leaks into the test split come last
        words = ["python", "-m", "keras_dogs.check", config.data.dataset]
        words += ["--data-dir", str(config.data.data_dir)] if config.data.data_dir else []
        words += ["--seed", str(config.seed)] if config.seed else []
        progress.open_console().print(
            f"warning: {len(found):,} pairs of equal pictures are in different splits, such as {first} and {second} "
            f"(in {other}); scores on them are too good. To find these and others like them: {shlex.join(words)}; it "
            "writes a list for --exclude"
        )


def announce(job: Job, pictures: Pictures) -> None:
    """Prints what is trained on what, and warns if the preset does not fit the pictures."""
    config, recipe, dataset, classifier = job.config, job.recipe, job.dataset, job.classifier
    console = progress.open_console()
    num_validation = len(pictures.validation) if pictures.validation else 0
    what = "full fine-tuning" if recipe.load_weights else "training from scratch"
    what = "linear probe" if recipe.linear_probe else what
    console.print(
        f"{config.preset} ({classifier.count_params():,} parameters), {what} on {dataset.name}: "
        f"{len(dataset.class_names)} classes, "
        f"{len(pictures.train):,} train / {num_validation:,} validation / {len(pictures.test):,} test pictures"
    )
    for note in dataset.notes:
        console.print(f"{dataset.name}: {note}")
    if presets.knows_drawn_dogs_alone(config.preset) and not _are_drawn(dataset.class_names):
        console.print(
            f"warning: {config.preset} was trained on drawn dogs and on no photograph. If {dataset.name} holds "
            f"photographs, stop this, and begin with: KERAS_BACKEND={backends.name()} python -m keras_dogs.train "
            f"--dataset {shlex.quote(config.data.dataset)} --preset {presets.SUGGESTED_FOR_PHOTOGRAPHS} --linear-probe"
        )
    console.print(
        f"{backends.PROSE[backends.name()]} on {backends.describe_device(devices.current().num_devices)}; recipe "
        + recipe_in_words({**recipe._asdict(), "recipe": recipes.name_of(config)})
    )


def describe_dataset(dataset: Dataset, pictures: Pictures) -> DatasetRecord:
    """Returns the dataset's part of the record."""
    return DatasetRecord(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        pool=dataset.pool,
        num_train=len(pictures.train),
        num_validation=len(pictures.validation) if pictures.validation else 0,
        num_test=len(pictures.test),
        num_classes=len(dataset.class_names),
        num_unreadable=len(pictures.unreadable),
        unreadable=pictures.unreadable,
        excluded=[terminal.printable(name) for name in dataset.excluded],
        exclusions_digest=dataset.exclusions_digest,
    )
