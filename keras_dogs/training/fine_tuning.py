"""Fine-tuning from a config to a finished run folder: the procedure of `train`."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends.layers import describe as describe_swaps
from keras_dogs.data.datasets import load_configured
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.data.loaders.canvases import checksums_of
from keras_dogs.data.loaders.placing import Place
from keras_dogs.data.loaders.placing import choose_place
from keras_dogs.data.loaders.stream import check_grain
from keras_dogs.errors import UserError
from keras_dogs.evaluation.calibration import calibrate
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.models import presets
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import Throughput
from keras_dogs.runs.records import Timings
from keras_dogs.system import caches
from keras_dogs.system import network
from keras_dogs.system import progress
from keras_dogs.training import job as jobs
from keras_dogs.training import loggers
from keras_dogs.training import loop
from keras_dogs.training import probe
from keras_dogs.training import recipes
from keras_dogs.training import sweep
from keras_dogs.training.checkpoints import Checkpoints
from keras_dogs.training.config import SCHEMA_VERSION
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.job import Job
from keras_dogs.training.job import Run
from keras_dogs.training.plan import Fitted
from keras_dogs.training.plan import Pictures
from keras_dogs.training.plan import Plan
from keras_dogs.training.stopping import StopRequest


def fine_tune(config: TrainConfig, started: float | None = None, check_pictures: Callable | None = None) -> Run:
    """Fine-tunes a classifier, scores it once on the test split, and writes the run folder.

    Args:
        config: `TrainConfig`.
        started: float or `None`. `time.perf_counter()` when the command began, so that the record counts the imports.
        check_pictures: function of the decoded `Pictures`, called before training begins; it raises to prevent it.

    Raises:
        UserError: something in `config` does not hold, or the disk refuses; nothing is left behind but checkpoints.
        Interrupted: Ctrl-C or SIGTERM came while it trained; `--resume` goes on.

    Example:
    ```python
    run = keras_dogs.fine_tune(keras_dogs.TrainConfig(dataset="dogs", epochs=1, output="run"))
    print(run.folder, run.record.test.top1_accuracy)
    ```
    """
    began = time.perf_counter()
    if config.strict:
        backends.make_strict()  # before a device is looked at
    with devices.join(config.spread, config.told_to_all, backends.name(), backends.versions()) as engine:
        if not engine.group.is_first:
            progress.be_quiet()
        return _train(config, began, began if started is None else started, check_pictures=check_pictures)


def _train(config: TrainConfig, began: float, started: float, scores_test=True, check_pictures=None) -> Run:
    """Does the same in each process; the first one alone reads and writes the run folder."""
    engine = devices.current()
    plain, _ = engine.group.from_first(_settle(config, of_sweep=not scores_test) if engine.group.is_first else None)
    settled = TrainConfig.from_plain(plain)
    config = settled if engine.group.is_first else settled.on_another_host(config)
    output = config.output
    engine.settle(config.spread)
    if plain["finished"]:
        return Run(output, RunRecord.load(output / artifacts.RECORD) if engine.group.is_first else None)
    with _set_up(config):
        if config.learning_rate == "sweep":
            return sweep.sweep_rates(config, _train_without_test, began, started)
        return _train_job(config, plain["is_new"], began, started, scores_test, check_pictures)


def _train_job(
    config: TrainConfig, is_new: bool, began: float, started: float, scores_test: bool, check_pictures
) -> Run:
    """Trains with a config that is settled; of several processes, the first one alone writes."""
    engine, output = devices.current(), config.output
    dataset = load_configured(config.data, config.seed)
    config = jobs.choose_recipe(config, dataset) if is_new else config
    given = {**config.to_plain(), "schema_version": SCHEMA_VERSION}
    given |= {"fingerprint": dataset.fingerprint, "backend": backends.name()}
    jobs.check_hosts_have_same_dataset(dataset)
    with jobs.run_folder(output, given, config.resume) as folder:
        if engine.group.is_first:
            jobs.check_can_resume(folder, dataset)
        keras.utils.set_random_seed(config.seed)
        job = jobs.settle(config, dataset)
        built = time.perf_counter()
        pictures = jobs.decode_pictures(job)
        jobs.check_hosts_read_same_pictures(pictures)
        if check_pictures:
            check_pictures(pictures)
        decoded = time.perf_counter()
        place = choose_place(config.data.cache, pictures.train, job.reads_features)
        if engine.group.agree(int(not place.on_device)) and place.on_device:
            place = Place(False, "disk: another process has no room for a table")
        jobs.announce(job, pictures)
        fitted = _fit(job, folder, pictures, place.on_device, started)

        test = jobs.score_test(job, pictures) if scores_test else None
        of_validation = fitted.validation.predict() if pictures.validation else None
        timings = Timings(
            import_s=began - started,
            decode_s=decoded - built,
            build_s=built - began,
            first_step_s=fitted.first_step_s,
            features_s=fitted.features_s,
            probe_s=fitted.probe_s,
            train_s=fitted.train_s,
            total_s=fitted.command_s_before + time.perf_counter() - started,
        )
        record = _record(job, pictures, place.in_words, fitted, test, timings)
        if engine.group.is_first:
            record = _write(folder, record, fitted, pictures, job.classifier, test and test.logits, of_validation)
        engine.forget()
    return Run(output, record if engine.group.is_first else None)


def _train_without_test(config: TrainConfig) -> Run:
    now = time.perf_counter()
    return _train(config, now, now, scores_test=False)


@contextlib.contextmanager
def _set_up(config: TrainConfig):
    """Sets the process up as a config asks, for a `with` block; fails early, before any long work."""
    if config.strict:
        backends.make_strict()
    loggers.check_loggers(config)
    if config.data.cache == "none":
        check_grain()
    with network.offline(config.offline), caches.use(config.data.cache_dir):
        backends.keep_compiled(caches.folder("compiled"))
        yield


def _record(job: Job, pictures: Pictures, cache: str, fitted: Fitted, test, timings: Timings) -> RunRecord:
    engine, config, recipe, classifier = devices.current(), job.config, job.recipe, job.classifier
    return RunRecord(
        command="train",
        config={**config.to_plain(), **recipe._asdict(), "recipe": recipes.name_of(config)},
        preset=config.preset,
        pretraining=presets.pretraining_of(config.preset) if recipe.load_weights else "none: random weights",
        family=job.family,
        num_parameters=classifier.count_params(),
        seed=config.seed,
        dataset=jobs.describe_dataset(job.dataset, pictures),
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
        probe_end_s=fitted.probe_end_s,
        epoch_end_s=fitted.epoch_end_s,
        timings=timings,
        throughput=Throughput(
            train_images_per_second=fitted.step_log.steady_steps_per_second() * fitted.step_size,
            step_time_ms=1000 * fitted.step_log.steady_step_seconds(),
            predict_images_per_second=test.images_per_second if test else 0.0,
        ),
        peak_memory_gib=backends.peak_memory_gib(),
        validation=fitted.validation.best_scores,
        probe=fitted.validation.probe_scores,
        test=test and test.scores,
    )


def _check_preset_stays(config: TrainConfig) -> None:
    """Refuses to overwrite the run whose weights are asked for: they would be gone before they are read."""
    model = config.overwrite and config.output and artifacts.model_of(config.preset)
    if model and config.output.resolve() in model.resolve().parents:
        raise UserError(f"--output {config.output}: holds the run that --preset names; choose another --output")


def _settle(config: TrainConfig, of_sweep: bool = False) -> dict:
    """Resolves the preset and the output folder; to resume a run, takes over the config that it was begun with.

    Of one rate of a sweep, nothing is said: the sweep is resumed, or not, as a whole.
    """
    say = (lambda text: None) if of_sweep else progress.open_console().print
    _check_preset_stays(config)
    chosen = config if config.output else jobs.choose_preset(config)  # a folder is named after the preset
    output = artifacts.choose_output(config.output, jobs.default_name(chosen), config.overwrite, config.resume)
    finished = config.resume and artifacts.is_finished(output)
    goes_on = config.resume and artifacts.is_unfinished(output)
    if finished:
        record = RunRecord.load(output / artifacts.RECORD)
        asked = {**record.config, "learning_rate": "sweep"} if record.sweep else record.config
        config.check_same_flags(asked, "is finished, and was trained")
        artifacts.tidy(output)
        if record.test is None and not of_sweep:
            raise UserError(
                f"--output {output}: is one rate of a sweep, finished and scored on validation alone; resume the "
                "folder of the sweep"
            )
        artifacts.wait_until_free(output, 0)  # a run that was killed at its very end has left its lock
        say(f"{output}: finished before; nothing to do (to train further on what it has learned: --preset {output})")
    elif goes_on:
        config = dataclasses.replace(config, output=output).resumed_from(artifacts.read_config(output))
        artifacts.check_config(output)
    else:
        config = jobs.choose_preset(chosen)
    if config.resume and not (finished or goes_on):
        say(f"{output}: nothing to resume; a new run")
    plain = dataclasses.replace(config, output=output).to_plain()
    return {**plain, "finished": finished, "is_new": not goes_on}


def _fit(job: Job, folder: Path, pictures: Pictures, on_device: bool, started: float) -> Fitted:
    """Trains the whole classifier from canvases, or its head on features where those need be computed only once."""
    checkpoints = Checkpoints(folder / artifacts.CHECKPOINTS, job.config.keep_checkpoints, artifacts.run_of(folder))
    with StopRequest() as stop:
        plan = Plan(job.config, job.recipe, folder, stop, checkpoints, on_device, started, pictures.digest)
        if job.reads_features:
            return probe.train_head_on_features(plan, job.classifier, pictures, job.views)
        return loop.train_classifier(plan, job.classifier, pictures)


def _write(folder, record: RunRecord, fitted: Fitted, pictures, classifier, test_logits, validation_logits):
    """Writes the files of a run that has ended, its record last: the record marks the run as finished."""
    artifacts.write_table(folder / artifacts.HISTORY, fitted.validation.rows)
    artifacts.write_table(folder / artifacts.STEPS, fitted.step_log.rows)
    class_names = classifier.head.class_names
    predictions, of_validation = (
        None if logits is None else _answers_to(part, logits, class_names)
        for part, logits in ((pictures.test, test_logits), (pictures.validation, validation_logits))
    )
    predictions = predictions or Predictions(None, None, None, class_names)
    predictions = predictions._replace(
        validation=of_validation,
        trained_on=pictures.train.names,
        trained_on_checksums=checksums_of(pictures.train) or None,
    )
    predictions.save(folder / artifacts.PREDICTIONS)
    return artifacts.write_record(folder, dataclasses.replace(record, calibration=calibrate(predictions)))


def _answers_to(part: Canvases, logits, class_names) -> Predictions:
    return Predictions(part.names, part.labels, logits, class_names, checksums=checksums_of(part) or None)
