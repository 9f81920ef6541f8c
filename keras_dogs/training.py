"""Fine-tuning from a config to a finished run folder: the procedure of `train`."""

import dataclasses
import re
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_dogs import artifacts
from keras_dogs import backend
from keras_dogs import layers
from keras_dogs import models
from keras_dogs import network
from keras_dogs import presets
from keras_dogs import progress
from keras_dogs.callbacks import StepLog
from keras_dogs.callbacks import TrainingProgress
from keras_dogs.callbacks import Validation
from keras_dogs.classifier import Classifier
from keras_dogs.classifier import StepLoss
from keras_dogs.config import TrainConfig
from keras_dogs.datasets import Dataset
from keras_dogs.datasets import load_dataset
from keras_dogs.evaluation import evaluate_classifier
from keras_dogs.loaders.batches import TrainingBatches
from keras_dogs.loaders.batches import predict_in_batches
from keras_dogs.loaders.canvases import Canvases
from keras_dogs.loaders.canvases import decode_split
from keras_dogs.loaders.canvases import refuse_unreadable
from keras_dogs.presets import Settings
from keras_dogs.records import DatasetRecord
from keras_dogs.records import RunRecord
from keras_dogs.records import Throughput
from keras_dogs.records import Timings
from keras_dogs.weights.own_models import family_of

# Weight decay pulls weights to zero, where these do not belong; timm and DeiT leave them out too. Parts of a path:
# biases, norms, tokens, positions, and the scales of DINOv2's branches.
_NOT_DECAYED = ("bias", "gamma", "beta", "token", "position", "lambda")


class Run(NamedTuple):
    """A finished run: where its folder is, and the record in it."""

    folder: Path
    record: RunRecord


class Pictures(NamedTuple):
    """The decoded dataset. `validation` is `None` where there is no such split."""

    train: Canvases
    validation: Canvases | None
    test: Canvases

    @property
    def unreadable(self) -> list[str]:
        """`"name: reason"` of every picture that was left out."""
        decoded = (canvases for canvases in self if canvases is not None)
        return [f"{name}: {reason}" for canvases in decoded for name, reason in canvases.unreadable]


class Fitted(NamedTuple):
    """What a training leaves beside the weights."""

    step_log: StepLog
    validation: Validation
    first_step_s: float
    train_s: float


def fine_tune(config: TrainConfig, started: float | None = None) -> Run:
    """Fine-tunes a classifier, scores it once on the test split, and writes the run folder.

    Args:
        config: `TrainConfig`.
        started: float or `None`. `time.perf_counter()` when the command began, so that the record counts the imports.

    Raises:
        UserError: something in `config` does not hold, or the disk refuses; nothing is left behind.
    """
    began = time.perf_counter()
    started = began if started is None else started
    if config.strict:
        backend.make_strict()
    if config.offline:
        network.go_offline()
    output = artifacts.choose_output(config.output, _default_name(config), config.overwrite)
    dataset = load_dataset(config.data.dataset, config.seed, config.data.validation_fraction, config.data.data_dir)
    with artifacts.run_folder(output) as folder:
        keras.utils.set_random_seed(config.seed)
        classifier = _build(config, dataset)
        built = time.perf_counter()
        pictures = _decode(config, dataset, classifier)
        decoded = time.perf_counter()
        settings = _settle(config, classifier)
        _announce(config, settings, dataset, pictures, classifier)
        train = _train_head_on_features if _features_can_be_cached(config) else _train_classifier
        fitted = train(config, settings, classifier, pictures, folder)

        batch_size = min(settings.batch_size, 64)
        test = evaluate_classifier(classifier, pictures.test.images, pictures.test.labels, batch_size, "Scoring test")
        steady = fitted.step_log.steady_steps_per_second()
        record = RunRecord(
            command="train",
            config=_plain({**dataclasses.asdict(config), **settings._asdict(), "augmentation": _augmentation(config)}),
            preset=config.preset,
            family=_family(classifier),
            num_parameters=classifier.count_params(),
            seed=config.seed,
            dataset=_describe_dataset(dataset, pictures),
            backend=backend.name(),
            versions=backend.versions(),
            device=backend.describe_device(),
            dtype_policy=config.dtype_policy,
            jit_compile=bool(fitted.validation.model.jit_compile),
            execution=backend.describe_execution(fitted.validation.model),
            best_epoch=fitted.validation.best_epoch,
            timings=Timings(
                import_s=began - started,
                decode_s=decoded - built,
                build_s=built - began,
                first_step_s=fitted.first_step_s,
                train_s=fitted.train_s,
                total_s=time.perf_counter() - started,
            ),
            throughput=Throughput(
                train_images_per_second=steady * min(settings.batch_size, len(pictures.train)),
                step_time_ms=1000 * fitted.step_log.steady_step_seconds(),
                predict_images_per_second=test.images_per_second,
            ),
            peak_memory_gib=backend.peak_memory_gib(),
            validation=fitted.validation.best_scores,
            test=test.scores,
        )
        _write(folder, record, fitted, pictures.test, test.logits, dataset.class_names)
    return Run(output, record)


def _default_name(config: TrainConfig) -> str:
    return f"{Path(config.data.dataset).name}-{_short_name(config.preset)}-{backend.name()}"


def _short_name(preset: str) -> str:
    """Fit for a folder: the last part of an address that is not a version, the model of `applications:`."""
    is_address = "://" in preset
    parts = preset.removeprefix("applications:").partition(":")[2 if is_address else 0].split("/")
    name = next((part for part in reversed(parts) if part and not part.isdigit()), "preset")
    return re.sub(r"[^\w.=,+-]", "_", name.removesuffix(".npz").removesuffix(".keras"))[:80]


def _augmentation(config: TrainConfig) -> str:
    return config.augmentation or presets.default_augmentation(config.preset, config.linear_probe)


def _policy(config: TrainConfig) -> layers.Augmentation:
    """The augmentation with what the flags say of single layers."""
    policy = layers.AUGMENTATIONS[_augmentation(config)]
    told = {name: getattr(config, name) for name in ("mixup", "cutmix") if getattr(config, name) is not None}
    mixing = {name: value for name, value in {**policy.mixing, **told}.items() if value}
    erasing = policy.erasing if config.erasing is None else {"probability": config.erasing} if config.erasing else {}
    return policy._replace(mixing=mixing, erasing=erasing)


def _features_can_be_cached(config: TrainConfig) -> bool:
    """With a frozen backbone and no augmentation, a picture's features are the same in every epoch."""
    return config.linear_probe and not _policy(config).draws


def _build(config: TrainConfig, dataset: Dataset) -> keras.Model:
    classifier = models.build_classifier(
        config.preset,
        num_classes=len(dataset.class_names),
        image_size=config.image_size,
        augmentation=_policy(config),
        dropout=config.dropout,
        drop_path=config.drop_path,
        dtype=config.dtype_policy,
        seed=config.seed,
        class_names=dataset.class_names,
        canvas_size=config.data.canvas_size,
        fit=config.data.fit,
        head=config.head,
        positions=config.position_resampling,
    )
    if config.linear_probe:
        for layer in classifier.layers:
            layer.trainable = layer.name == "head"
    return classifier


def _decode(config: TrainConfig, dataset: Dataset, classifier: keras.Model) -> Pictures:
    resize = classifier.get_layer("crop")
    splits = (dataset.train, dataset.validation, dataset.test)
    total = sum(len(split) for split in splits if split is not None)
    with progress.counting("Decoding pictures", total) as on_picture:
        pictures = Pictures(
            *(
                decode_split(split, resize.canvas_size, resize.fit, on_picture) if split is not None else None
                for split in splits
            )
        )
    decoded = [canvases for canvases in pictures if canvases is not None]
    refuse_unreadable(decoded, config.data.unreadable_limit, len(dataset.class_names))
    for line in pictures.unreadable:
        progress.open_console().print(f"left out: {line}")
    return pictures


def _family(classifier: keras.Model) -> str:
    return family_of(models.backbone_of(classifier))


def _settle(config: TrainConfig, classifier: keras.Model) -> Settings:
    """The preset's settings, overridden by the flags that were given."""
    settings = presets.default_settings(config.preset, _family(classifier), config.linear_probe)
    told = {field: getattr(config, field) for field in Settings._fields if getattr(config, field) is not None}
    return settings._replace(**told)


def _announce(config, settings, dataset, pictures, classifier) -> None:
    console = progress.open_console()
    num_validation = len(pictures.validation) if pictures.validation else 0
    what = "linear probe" if config.linear_probe else "full fine-tuning"
    console.print(
        f"{config.preset} ({classifier.count_params():,} parameters), {what} on {dataset.name}: "
        f"{len(dataset.class_names)} classes, "
        f"{len(pictures.train):,} train / {num_validation:,} validation / {len(pictures.test):,} test pictures"
    )
    console.print(
        f"{backend.PROSE[backend.name()]} on {backend.describe_device()}; {settings.epochs} epochs of batch "
        f"{settings.batch_size}, AdamW {settings.learning_rate:g}, augmentation {_augmentation(config)}"
    )


def _train_classifier(config, settings, classifier, pictures: Pictures, folder: Path) -> Fitted:
    """Trains what is trainable of the whole classifier, from canvases."""
    validation = pictures.validation
    batch_size = min(settings.batch_size, 64)
    predict = (lambda: predict_in_batches(classifier, validation.images, batch_size)[0]) if validation else None
    labels = validation.labels if validation else None
    best_file, last_file = folder / artifacts.MODEL, folder / artifacts.CHECKPOINTS / "last.keras"
    fitted = _fit(config, settings, classifier, pictures.train, (predict, labels, best_file, last_file))
    models.load_weights(classifier, best_file)
    return fitted


def _train_head_on_features(config, settings, classifier, pictures: Pictures, folder: Path) -> Fitted:
    """Trains the head on features that are computed once; the same model comes out as from the epoch-wise way.

    Features are centred and brought to unit mean square, so that one learning rate fits every backbone; mean and scale
    are folded into the head's weights afterwards, exactly.
    """
    extractor = models.feature_extractor(classifier)
    features = _extract(extractor, pictures.train.images, "train")
    mean = features.mean(axis=0)
    scale = 1.0 / max(float(np.sqrt(np.mean((features - mean) ** 2))), 1e-12)
    train = dataclasses.replace(pictures.train, images=(features - mean) * scale)
    predict, labels = None, None
    if pictures.validation:
        standardised = (_extract(extractor, pictures.validation.images, "validation") - mean) * scale
        predict, labels = lambda: predict_in_batches(probe, standardised, 256)[0], pictures.validation.labels

    head = classifier.get_layer("head")
    inputs = keras.Input(train.images.shape[1:])
    dropped = layers.CountedDropout(config.dropout, seed=config.seed)(inputs)
    probe = Classifier(inputs, layers.ClassifierHead(head.units, name="head")(dropped), name="probe")
    kernel, bias = head.get_weights()
    probe.get_layer("head").set_weights([kernel / scale, bias + mean @ kernel])
    best_file = folder / artifacts.CHECKPOINTS / "head.keras"
    fitted = _fit(config, settings, probe, train, (predict, labels, best_file, None))

    models.load_weights(probe, best_file)
    best_file.unlink()
    kernel, bias = probe.get_layer("head").get_weights()
    head.set_weights([kernel * scale, bias - mean @ kernel * scale])
    models.save_classifier(classifier, folder / artifacts.MODEL)
    return fitted


def _extract(extractor: keras.Model, images, split: str) -> np.ndarray:
    batch_size = 32
    with progress.counting(f"Features of {split} (batches)", -(-len(images) // batch_size)) as on_batch:
        return predict_in_batches(extractor, images, batch_size, on_batch)[0]


def _fit(config, settings, model, train: Canvases, validating: tuple) -> Fitted:
    """Compiles `model` and runs `fit` with everything that watches it; `validating` is what `Validation` is told."""
    batches = TrainingBatches(train.images, train.labels, settings.batch_size, config.seed)
    steps = len(batches) * settings.epochs
    schedule = _schedule(settings.learning_rate, steps, config.warmup_fraction)
    model.compile(
        optimizer=_optimizer(config, settings, schedule, model),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy"), StepLoss()],
    )
    backend.check_compilable(model, expected=_augmentation(config) != "keras")
    step_log = StepLog(schedule)
    validation = Validation(*validating, step_log)
    shown = TrainingProgress(steps, batches.batch_size, validation)
    began = time.perf_counter()
    try:
        model.fit(batches, epochs=settings.epochs, shuffle=False, verbose=0, callbacks=[step_log, validation, shown])
    finally:
        shown.stop()
    return Fitted(step_log, validation, step_log.step_seconds[0], time.perf_counter() - began)


def _schedule(learning_rate: float, steps: int, warmup_fraction: float):
    """Linear from 0 to `learning_rate`, then a cosine to 0."""
    warmup_steps = round(steps * warmup_fraction)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=max(steps - warmup_steps, 1),
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def _optimizer(config: TrainConfig, settings: Settings, schedule, model: keras.Model):
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=settings.weight_decay, global_clipnorm=config.global_clipnorm or None
    )
    # By the path, as the positions of KerasHub's ViT are called `position_embedding/embeddings`.
    optimizer.exclude_from_weight_decay([weight for weight in model.trainable_variables if _is_not_decayed(weight)])
    return keras.optimizers.LossScaleOptimizer(optimizer) if config.dtype_policy == "mixed_float16" else optimizer


def _is_not_decayed(weight) -> bool:
    last = "/".join(weight.path.split("/")[-2:])
    return any(part in last for part in _NOT_DECAYED)


def _describe_dataset(dataset: Dataset, pictures: Pictures) -> DatasetRecord:
    return DatasetRecord(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        num_train=len(pictures.train),
        num_validation=len(pictures.validation) if pictures.validation else 0,
        num_test=len(pictures.test),
        num_classes=len(dataset.class_names),
        num_unreadable=len(pictures.unreadable),
        unreadable=pictures.unreadable,
    )


def _plain(value):
    """Paths to text, deep, so that the config can be JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _write(folder: Path, record: RunRecord, fitted: Fitted, test: Canvases, logits, class_names) -> None:
    artifacts.write_table(folder / artifacts.HISTORY, fitted.validation.rows)
    artifacts.write_table(folder / artifacts.STEPS, fitted.step_log.rows)
    artifacts.write_predictions(folder / artifacts.PREDICTIONS, test.names, test.labels, logits, class_names)
    (folder / artifacts.RECORD).write_text(record.to_json())
