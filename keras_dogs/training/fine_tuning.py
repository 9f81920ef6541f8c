"""Fine-tuning from a config to a finished run folder: the procedure of `train`."""

import contextlib
import dataclasses
import json
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import keras

from keras_dogs import backends
from keras_dogs import layers
from keras_dogs.backends import devices
from keras_dogs.backends.layers import describe as describe_swaps
from keras_dogs.data.datasets import Dataset
from keras_dogs.data.datasets import drawn_class_names
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.loaders.canvases import load_canvases
from keras_dogs.data.loaders.canvases import refuse_unreadable
from keras_dogs.data.loaders.placing import Place
from keras_dogs.data.loaders.placing import choose_place
from keras_dogs.data.loaders.stream import check_grain
from keras_dogs.data.loaders.stream import check_readable
from keras_dogs.data.loaders.stream import stream
from keras_dogs.errors import Diverged
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.evaluation.evaluating import Evaluation
from keras_dogs.evaluation.evaluating import evaluate_classifier
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.models import builders
from keras_dogs.models import presets
from keras_dogs.models.weights.own_models import family_of
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import DatasetRecord
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import Throughput
from keras_dogs.runs.records import Timings
from keras_dogs.runs.records import recipe_in_words
from keras_dogs.system import caches
from keras_dogs.system import network
from keras_dogs.system import progress
from keras_dogs.training import loggers
from keras_dogs.training import loop
from keras_dogs.training import recipes
from keras_dogs.training.checkpoints import Checkpoints
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.loop import Fitted
from keras_dogs.training.loop import Pictures
from keras_dogs.training.loop import Plan
from keras_dogs.training.recipes import Recipe
from keras_dogs.training.stopping import StopRequest


class Run(NamedTuple):
    """A finished run: where its folder is, and the record in it; of several processes, the first one has it alone."""

    folder: Path
    record: RunRecord | None


def fine_tune(config: TrainConfig, started: float | None = None) -> Run:
    """Fine-tunes a classifier, scores it once on the test split, and writes the run folder.

    Args:
        config: `TrainConfig`.
        started: float or `None`. `time.perf_counter()` when the command began, so that the record counts the imports.

    Raises:
        UserError: something in `config` does not hold, or the disk refuses; nothing is left behind but checkpoints.
        Interrupted: Ctrl-C or SIGTERM came while it trained; `--resume` goes on.
    """
    began = time.perf_counter()
    if config.strict:
        backends.make_strict()  # before a device is looked at
    with devices.join(config.spread, config.told_to_all, backends.name(), backends.versions()) as engine:
        if not engine.group.is_first:
            progress.be_quiet()
        return _fine_tune(config, began, began if started is None else started)


def _fine_tune(config: TrainConfig, began: float, started: float, scores_test: bool = True) -> Run:
    """Does the same in each process; the first one alone reads and writes the run folder."""
    engine = devices.current()
    plain, _ = engine.group.from_first(_settle(config) if engine.group.is_first else None)
    settled = TrainConfig.from_plain(plain)
    config = settled if engine.group.is_first else settled.on_another_host(config)
    output = config.output
    engine.settle(config.spread)
    if plain["finished"]:
        return Run(output, RunRecord.load(output / artifacts.RECORD) if engine.group.is_first else None)
    if config.learning_rate == "sweep":
        return _sweep(config)
    _set_up(config)
    dataset = load_dataset(config.data.dataset, config.seed, config.data.validation_fraction, config.data.data_dir)
    told = {**config.to_plain(), "fingerprint": dataset.fingerprint, "backend": backends.name()}
    _check_same_pictures(dataset)
    with _run_folder(output, told, config.resume) as folder:
        if engine.group.is_first:
            _check_same(folder, dataset)
        keras.utils.set_random_seed(config.seed)
        recipe = recipes.choose(config)
        classifier = _build(config, recipe, dataset)
        engine.check_model(classifier)
        recipe = recipes.complete(recipe, config.preset, _family(classifier))
        _check_recipe(recipe, dataset)
        devices.check_batch(recipe.batch_size, recipe.accumulate)
        built = time.perf_counter()
        pictures = _decode(config, dataset, classifier)
        _check_same_canvases(pictures)
        decoded = time.perf_counter()
        place = choose_place(config.data.cache, pictures.train, _reads_features(config, recipe))
        if engine.group.agree(int(not place.on_device)) and place.on_device:
            place = Place(False, "disk: another process has no room for a table")
        _announce(config, recipe, dataset, pictures, classifier)
        fitted = _train(config, recipe, folder, classifier, pictures, place.on_device, started)

        batch_size = min(recipe.batch_size, 64)
        test = _score_test(classifier, pictures, batch_size) if scores_test else None
        of_validation = fitted.validation.predict() if pictures.validation else None
        timings = Timings(
            import_s=began - started,
            decode_s=decoded - built,
            build_s=built - began,
            first_step_s=fitted.first_step_s,
            features_s=fitted.features_s,
            train_s=fitted.train_s,
            total_s=fitted.command_s_before + time.perf_counter() - started,
        )
        of_data = _describe_dataset(dataset, pictures)
        record = _record(config, recipe, of_data, place.in_words, classifier, fitted, test, timings)
        if engine.group.is_first:
            _write(folder, record, fitted, pictures, classifier, test and test.logits, of_validation)
        engine.forget()
    return Run(output, record if engine.group.is_first else None)


def _score_test(classifier: keras.Model, pictures: Pictures, batch_size: int) -> Evaluation:
    return evaluate_classifier(classifier, pictures.test.images, pictures.test.labels, batch_size, "Scoring test")


def _check_recipe(recipe: Recipe, dataset: Dataset) -> None:
    if recipe.patience and dataset.validation is None:
        raise UserError(
            f"--patience {recipe.patience}: {dataset.name} has no validation split to be patient with; give "
            "--validation-fraction, or --patience 0"
        )


def _set_up(config: TrainConfig) -> None:
    """What a config asks of the process, before anything long is begun."""
    if config.strict:
        backends.make_strict()
    if config.offline:
        network.go_offline()
    loggers.check_loggers(config)
    if config.data.cache == "none":
        check_grain()
    caches.use(config.data.cache_dir)
    backends.keep_compiled(caches.folder("compiled"))


def _record(config, recipe, dataset: DatasetRecord, cache: str, classifier, fitted, test, timings) -> RunRecord:
    engine = devices.current()
    return RunRecord(
        command="train",
        config={**config.to_plain(), **recipe._asdict(), "recipe": recipes.name_of(config)},
        preset=config.preset,
        pretraining=presets.pretraining_of(config.preset) if recipe.load_weights else "none: random weights",
        family=_family(classifier),
        num_parameters=classifier.count_params(),
        seed=config.seed,
        dataset=dataset,
        backend=backends.name(),
        versions=backends.versions(),
        device=backends.describe_device(engine.num_devices),
        dtype_policy=config.dtype_policy,
        jit_compile=bool(fitted.model.jit_compile),
        swaps=describe_swaps(classifier),
        execution=backends.describe_execution(fitted.model),
        cache=cache,
        num_devices=engine.num_devices,
        num_processes=engine.group.num_processes,
        distribution=engine.in_words,
        best_epoch=fitted.validation.best_epoch,
        epoch_end_s=fitted.epoch_end_s,
        timings=timings,
        throughput=Throughput(
            train_images_per_second=fitted.step_log.steady_steps_per_second() * fitted.step_size,
            step_time_ms=1000 * fitted.step_log.steady_step_seconds(),
            predict_images_per_second=test.images_per_second if test else 0.0,
        ),
        peak_memory_gib=backends.peak_memory_gib(),
        validation=fitted.validation.best_scores,
        test=test and test.scores,
    )


def _settle(config: TrainConfig) -> dict:
    """The config with its output, and with what an unfinished run there was told; and whether it is finished."""
    output = artifacts.choose_output(config.output, _default_name(config), config.overwrite, config.resume)
    finished = config.resume and artifacts.is_finished(output)
    if finished:
        artifacts.tidy(output)
        progress.open_console().print(f"{output}: finished before; nothing to do")
    elif config.resume and artifacts.is_unfinished(output):
        config = config.resumed_from(artifacts.read_config(output))
    elif config.resume:
        progress.open_console().print(f"{output}: nothing to resume; a new run")
    return {**dataclasses.replace(config, output=output).to_plain(), "finished": finished}


def _run_folder(output: Path, told: dict, resume: bool):
    """The folder of the run, for the first process; the others write nothing."""
    if devices.current().group.is_first:
        return artifacts.run_folder(output, told, resume)
    return contextlib.nullcontext(output)


def _check_same_pictures(dataset: Dataset) -> None:
    """Hosts that read different folders would train on nonsense."""
    first, _ = devices.current().group.from_first(dataset.fingerprint)
    if first != dataset.fingerprint:
        raise UserError(f"the pictures of {dataset.name} on this host are not those of process 0; copy them")


def _check_same_canvases(pictures: Pictures) -> None:
    """A picture that one host cannot read would shift all batches there."""
    digest = pictures.digest
    if devices.current().group.from_first(digest)[0] != digest:
        raise UserError("the pictures that this host can read are not those of process 0; copy them")


def _check_same(folder: Path, dataset: Dataset) -> None:
    """A run that goes on must have the pictures and the backend that it was begun with."""
    begun = artifacts.read_config(folder)
    if begun["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"--resume: the pictures of {dataset.name} are not those that {folder} was begun with; put them back, or "
            "give --overwrite to start again"
        )
    if begun["backend"] != backends.name():
        raise UserError(f"--resume: {folder} was begun with KERAS_BACKEND={begun['backend']}; go on with that")


def _sweep(config: TrainConfig) -> Run:
    """Makes a run a learning rate, all kept under `sweep/`; the best on validation becomes the run, and is tested."""
    if not config.data.validation_fraction:
        raise UserError("--learning-rate sweep: chooses on the validation split; give --validation-fraction")
    # An unfinished run is a folder with a config; this one has it until the best is chosen.
    told = {**config.to_plain(), "fingerprint": None, "backend": backends.name()}
    is_first = devices.current().group.is_first
    with _run_folder(config.output, told, config.resume) as folder:
        if is_first:
            (folder / artifacts.SWEEP).mkdir(exist_ok=True)
        runs, failures = {}, {}
        rates = _rates_to_try(config)
        for rate in rates:
            progress.open_console().print(f"learning rate {rate:g}, one of {', '.join(f'{rate:g}' for rate in rates)}")
            try:
                runs[rate] = _try_rate(config, folder, rate)
            except Diverged as error:
                failures[rate] = first_line(error)
        if not runs:
            raise Diverged(f"--learning-rate sweep: every rate diverged; at {rates[0]:g}: {failures[rates[0]]}")
        best, table = _choose_rate(runs, failures) if is_first else (None, None)
        best, _ = devices.current().group.from_first(best)
        if is_first:
            _copy_run(runs[best].folder, folder)
        record = _test_best(dataclasses.replace(config, learning_rate=best), folder, runs[best].record, table)
    return Run(config.output, record)


def _try_rate(config: TrainConfig, folder: Path, rate: float) -> Run:
    """Trains with one rate, without a look at the test split.

    Raises:
        Diverged: it does, or has done before; that is remembered, so that a sweep that goes on does not repeat it.
    """
    engine, file = devices.current(), folder / artifacts.SWEEP / _FAILURES
    failures = json.loads(file.read_text()) if engine.group.is_first and file.exists() else {}
    known, _ = engine.group.from_first(failures.get(f"{rate:g}"))
    if known:
        raise Diverged(known)
    one = dataclasses.replace(
        config, overwrite=False, resume=True, learning_rate=rate, output=folder / artifacts.SWEEP / f"{rate:g}"
    )
    now = time.perf_counter()
    try:
        return _fine_tune(one, now, now, scores_test=False)
    except Interrupted as stopped:  # which names the part
        text = f"stopped at learning rate {rate:g}; {artifacts.how_to_go_on(config.output)}"
        raise Interrupted(text, stopped.status) from stopped
    except Diverged as error:
        engine.forget()
        progress.open_console().print(f"learning rate {rate:g}: {first_line(error)}")
        if engine.group.is_first:
            failures[f"{rate:g}"] = first_line(error)
            artifacts.write_bytes(file, (json.dumps(failures, indent=2) + "\n").encode())
        if engine.group.num_processes > 1:  # they notice it at different steps, so that none can go on with another
            raise UserError(f"{first_line(error)}; {artifacts.how_to_go_on(config.output)}") from error
        raise


_FAILURES = "failures.json"  # of a sweep: rates that diverged, and why


def _choose_rate(runs: dict[float, Run], failures: dict[float, str]) -> tuple[float, list[dict]]:
    """The best rate on validation, said with all others; and a row a rate, for the record."""
    console = progress.open_console()
    best = max(runs, key=lambda rate: runs[rate].record.validation.rank)
    rows = [{"learning_rate": rate, "error": why} for rate, why in failures.items()]
    for rate, run in runs.items():
        score = run.record.validation
        rows.append({"learning_rate": rate, "top1_accuracy": score.top1_accuracy, "loss": score.loss})
        chosen = "  chosen" if rate == best else ""
        console.print(f"learning rate {rate:g}: validation top-1 {score.top1_accuracy:.1%}{chosen}")
    rates = sorted([*runs, *failures])
    if len(runs) > 1 and best in (rates[0], rates[-1]):
        beyond = best / 3 if best == rates[0] else best * 3
        console.print(
            f"learning rate {best:g} lies at the edge of those that were tried; --learning-rate {beyond:.2g} may be "
            "better"
        )
    return best, sorted(rows, key=lambda row: row["learning_rate"])


def _copy_run(source: Path, target: Path) -> None:
    """Copies the files of a finished run, each at once; its record comes with the score on the test split."""
    for file in source.rglob("*"):
        if file.is_file() and file.name != artifacts.RECORD:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with artifacts.written_whole(copy) as temporary:
                shutil.copyfile(file, temporary)


def _test_best(config: TrainConfig, folder: Path, record: RunRecord | None, table: list[dict] | None):
    """Scores the chosen run on the test split, once, and completes its record."""
    dataset = load_dataset(config.data.dataset, config.seed, config.data.validation_fraction, config.data.data_dir)
    recipe = recipes.choose(config)
    classifier = _build(config, recipe, dataset)
    recipe = recipes.complete(recipe, config.preset, _family(classifier))
    pictures = _decode(config, dataset, classifier)
    loop.load_weights_everywhere(classifier, folder / artifacts.MODEL)
    test = _score_test(classifier, pictures, min(recipe.batch_size, 64))
    if not devices.current().group.is_first:
        return None
    throughput = dataclasses.replace(record.throughput, predict_images_per_second=test.images_per_second)
    config_of_record = {**record.config, "output": str(config.output)}
    record = dataclasses.replace(record, test=test.scores, throughput=throughput, sweep=table, config=config_of_record)
    saved = Predictions.load(folder, needs_test=False)
    of_test = dict(names=pictures.test.names, labels=pictures.test.labels, logits=test.logits)
    saved._replace(**of_test).save(folder / artifacts.PREDICTIONS)
    artifacts.write_bytes(folder / artifacts.RECORD, record.to_json().encode())
    return record


def _rates_to_try(config: TrainConfig) -> list[float]:
    """A third, once and three times what the recipe has; the family is known from the table, or is a ViT's."""
    recipe = recipes.choose(dataclasses.replace(config, learning_rate=None))
    middle = recipes.complete(recipe, config.preset, recipes.likely_family(config.preset)).learning_rate
    return [float(f"{middle * factor:.2g}") for factor in (1 / 3, 1, 3)]


def _train(config: TrainConfig, recipe: Recipe, folder: Path, classifier, pictures, on_device, started) -> Fitted:
    """The whole classifier from canvases, or its head on features where those need be computed only once."""
    checkpoints = Checkpoints(folder / artifacts.CHECKPOINTS, config.keep_checkpoints)
    policy = _policy(config, recipe)
    views = config.views if policy.draws else 0
    with StopRequest() as stop:
        plan = Plan(config, recipe, folder, stop, checkpoints, on_device, started, pictures.digest)
        if _reads_features(config, recipe):
            return loop.train_head_on_features(plan, classifier, pictures, views)
        return loop.train_classifier(plan, classifier, pictures)


def _reads_features(config: TrainConfig, recipe: Recipe) -> bool:
    """Whether steps read features that are computed once, and no pictures."""
    policy = _policy(config, recipe)
    return recipe.linear_probe and not policy.mixing and bool(config.views or not policy.draws)


def _default_name(config: TrainConfig) -> str:
    return f"{Path(config.data.dataset).name}-{_short_name(config.preset)}-{backends.name()}"


def _short_name(preset: str) -> str:
    """Fit for a folder: the last part of an address that is not a version, the model of `applications:`."""
    is_address = "://" in preset
    parts = preset.removeprefix("applications:").partition(":")[2 if is_address else 0].split("/")
    name = next((part for part in reversed(parts) if part and not part.isdigit()), "preset")
    return re.sub(r"[^\w.=,+-]", "_", name.removesuffix(".npz").removesuffix(".keras"))[:80]


def _policy(config: TrainConfig, recipe: Recipe) -> layers.Augmentation:
    """The augmentation with what the flags say of single layers."""
    policy = layers.AUGMENTATIONS[recipe.augmentation]
    told = {name: getattr(config, name) for name in ("mixup", "cutmix") if getattr(config, name) is not None}
    mixing = {name: value for name, value in {**policy.mixing, **told}.items() if value}
    erasing = policy.erasing if config.erasing is None else {"probability": config.erasing} if config.erasing else {}
    return policy._replace(mixing=mixing, erasing=erasing)


def _build(config: TrainConfig, recipe: Recipe, dataset: Dataset) -> keras.Model:
    classifier = builders.build_classifier(
        config.preset,
        num_classes=len(dataset.class_names),
        image_size=config.image_size,
        augmentation=_policy(config, recipe),
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
    for layer in classifier.layers if recipe.linear_probe else ():
        layer.trainable = layer.name == "head"
    for layer in builders.backbone_of(classifier)._flatten_layers() if recipe.freeze_batch_norm else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return classifier


def _decode(config: TrainConfig, dataset: Dataset, classifier: keras.Model) -> Pictures:
    canvas = classifier.get_layer("crop").canvas
    if config.data.cache == "none":
        splits = (dataset.train, dataset.validation, dataset.test)
        pictures = Pictures(*(split and stream(split, **canvas) for split in splits))
        check_readable("validation and test pictures", pictures.validation, pictures.test)
        return pictures
    keep = "memory" if config.data.cache == "memory" else "disk"
    pictures = Pictures(*load_canvases(dataset, Pictures._fields, cache=keep, **canvas))
    decoded = [canvases for canvases in pictures if canvases is not None]
    refuse_unreadable(decoded, config.data.unreadable_limit, len(dataset.class_names))
    for line in pictures.unreadable:
        progress.open_console().print(f"left out: {line}")
    return pictures


def _family(classifier: keras.Model) -> str:
    return family_of(builders.backbone_of(classifier))


def _announce(config, recipe, dataset, pictures, classifier) -> None:
    console = progress.open_console()
    num_validation = len(pictures.validation) if pictures.validation else 0
    what = "linear probe" if recipe.linear_probe else "full fine-tuning"
    console.print(
        f"{config.preset} ({classifier.count_params():,} parameters), {what} on {dataset.name}: "
        f"{len(dataset.class_names)} classes, "
        f"{len(pictures.train):,} train / {num_validation:,} validation / {len(pictures.test):,} test pictures"
    )
    for note in dataset.notes:
        console.print(f"{dataset.name}: {note}")
    if presets.knows_drawn_dogs_alone(config.preset) and not set(dataset.class_names) <= set(drawn_class_names()):
        console.print(
            f"warning: {config.preset} was trained on drawn dogs and on no photograph. If {dataset.name} holds "
            f"photographs, stop this, and begin with: KERAS_BACKEND={backends.name()} python -m keras_dogs.train "
            f"--dataset {shlex.quote(config.data.dataset)} --preset {presets.FOR_PHOTOGRAPHS} --linear-probe"
        )
    console.print(
        f"{backends.PROSE[backends.name()]} on {backends.describe_device(devices.current().num_devices)}; recipe "
        + recipe_in_words({**recipe._asdict(), "recipe": recipes.name_of(config)})
    )


def _describe_dataset(dataset: Dataset, pictures: Pictures) -> DatasetRecord:
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
    )


def _write(folder, record: RunRecord, fitted: Fitted, pictures, classifier, test_logits, validation_logits) -> None:
    """Writes what the run leaves; the record last: with it, the run is finished."""
    artifacts.write_table(folder / artifacts.HISTORY, fitted.validation.rows)
    artifacts.write_table(folder / artifacts.STEPS, fitted.step_log.rows)
    class_names, trained_on = classifier.get_layer("head").class_names, pictures.train.names
    predictions, of_validation = (
        None if logits is None else Predictions(part.names, part.labels, logits, class_names)
        for part, logits in ((pictures.test, test_logits), (pictures.validation, validation_logits))
    )
    predictions = predictions or Predictions(None, None, None, class_names)
    predictions = predictions._replace(validation=of_validation, trained_on=trained_on)
    predictions.save(folder / artifacts.PREDICTIONS)
    artifacts.write_bytes(folder / artifacts.RECORD, record.to_json().encode())
