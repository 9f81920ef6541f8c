"""Carries out `--learning-rate sweep`: one run per learning rate, of which the best on validation is kept."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.data.datasets import Dataset
from keras_dogs.data.datasets import load_configured
from keras_dogs.data.loaders.canvases import checksums_of
from keras_dogs.errors import Diverged
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import files
from keras_dogs.system import progress
from keras_dogs.system import reading
from keras_dogs.training import fitting
from keras_dogs.training import job as jobs
from keras_dogs.training import recipes
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.job import Run


def sweep_rates(config: TrainConfig, train: Callable, began: float, started: float) -> Run:
    """Trains one run per learning rate under `sweep/`; the best on validation becomes the run, and is scored on test.

    Args:
        config: `TrainConfig`.
        train: function of a config with one rate to its `Run`, not scored on the test split.
        began: float. `time.perf_counter()` when the work began.
        started: float. The same when the command did, before its imports.
    """
    if not config.data.validation_fraction:
        raise UserError("--learning-rate sweep: chooses on the validation split; give --validation-fraction")
    dataset = load_configured(config.data, config.seed)
    # An unfinished run is a folder with a config; this one has it until the best is chosen.
    given = {**config.to_plain(), "fingerprint": dataset.fingerprint, "backend": backends.name()}
    is_first = devices.current().group.is_first
    with jobs.run_folder(config.output, given, config.resume) as folder:
        if is_first:
            jobs.check_can_resume(folder, dataset)
            (folder / artifacts.SWEEP).mkdir(exist_ok=True)
        runs, failures, before_s = {}, {}, 0.0
        rates = _rates_to_try(config)
        for rate in rates:
            progress.open_console().print(f"learning rate {rate:g}, one of {', '.join(f'{rate:g}' for rate in rates)}")
            now = time.perf_counter()
            try:
                runs[rate] = _try_rate(config, folder, rate, train)
                if is_first:  # what a process took that was killed
                    before_s += max(0.0, runs[rate].record.timings.total_s - (time.perf_counter() - now))
            except Diverged as error:
                failures[rate] = first_line(error)
        if not runs:
            raise Diverged(f"--learning-rate sweep: every rate diverged; at {rates[0]:g}: {failures[rates[0]]}")
        best, table = _choose_rate(runs, failures) if is_first else (None, None)
        best, _ = devices.current().group.from_first(best)
        record = runs[best].record
        if is_first:
            _copy_run(runs[best].folder, folder)
            record = _timed(record, before_s + time.perf_counter() - started, began - started)
        now = time.perf_counter()
        record = _test_best(dataclasses.replace(config, learning_rate=best), dataset, folder, record, table, now)
    return Run(config.output, record)


def _timed(record: RunRecord, sweep_s: float, import_s: float) -> RunRecord:
    """Counts the other rates as time that came before the chosen one."""
    others_s = sweep_s - record.timings.total_s
    ends = [others_s + end for end in record.epoch_end_s]
    probe_end_s = None if record.probe_end_s is None else others_s + record.probe_end_s
    timings = dataclasses.replace(record.timings, total_s=sweep_s, import_s=import_s)
    return dataclasses.replace(record, timings=timings, epoch_end_s=ends, probe_end_s=probe_end_s)


def _try_rate(config: TrainConfig, folder: Path, rate: float, train: Callable) -> Run:
    """Trains with one rate, without a look at the test split.

    Raises:
        Diverged: training diverges, or did before; this is recorded, so that a resumed sweep does not repeat it.
    """
    engine, file = devices.current(), folder / artifacts.SWEEP / _FAILURES
    failures = reading.read_json(file, dict[str, str]) if engine.group.is_first and file.exists() else {}
    known, _ = engine.group.from_first(failures.get(f"{rate:g}"))
    if known:
        raise Diverged(known)
    one = dataclasses.replace(
        config, overwrite=False, resume=True, learning_rate=rate, output=folder / artifacts.SWEEP / f"{rate:g}"
    )
    try:
        return train(one)
    except Interrupted as stopped:  # which names the part
        text = f"stopped at learning rate {rate:g}; {artifacts.how_to_go_on(config.output)}"
        raise Interrupted(text, stopped.status) from stopped
    except Diverged as error:
        engine.forget()
        progress.open_console().print(f"learning rate {rate:g}: {first_line(error)}")
        if engine.group.is_first:
            failures[f"{rate:g}"] = first_line(error)
            files.write_bytes(file, (json.dumps(failures, indent=2) + "\n").encode())
        if engine.group.num_processes > 1:  # they notice it at different steps, so that none can go on with another
            raise UserError(f"{first_line(error)}; {artifacts.how_to_go_on(config.output)}") from error
        raise


_FAILURES = "failures.json"  # of a sweep: rates that diverged, and why


def _choose_rate(runs: dict[float, Run], failures: dict[float, str]) -> tuple[float, list[dict]]:
    """Prints the validation score of each rate; returns the best rate, and one row per rate for the record."""
    console = progress.open_console()
    best = max(runs, key=lambda rate: runs[rate].record.validation.rank)
    rows = [{"learning_rate": rate, "error": why} for rate, why in failures.items()]
    for rate, run in runs.items():
        score = run.record.validation
        rows.append({"learning_rate": rate, "top1_accuracy": score.top1_accuracy, "loss": score.loss})
        chosen = "  chosen" if rate == best else ""
        console.print(f"learning rate {rate:g}: validation top-1 {score.top1_accuracy:.1%}{chosen}")
    rates = sorted([*runs, *failures])
    if not runs[best].record.best_epoch:
        console.print("no rate improved on the probe that came first")
    elif len(runs) > 1 and best in (rates[0], rates[-1]):
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
            with files.written_whole(copy) as temporary:
                shutil.copyfile(file, temporary)


def _test_best(
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    record: RunRecord | None,
    table: list[dict] | None,
    began: float,
):
    """Scores the chosen run on the test split, once, and completes its record."""
    job = jobs.settle(config, dataset)
    pictures = jobs.decode_pictures(job)
    fitting.load_weights_everywhere(job.classifier, folder / artifacts.MODEL)
    test = jobs.score_test(job, pictures)
    if not devices.current().group.is_first:
        return None
    throughput = dataclasses.replace(record.throughput, predict_images_per_second=test.images_per_second)
    config_of_record = {**record.config, "output": str(config.output)}
    timings = dataclasses.replace(record.timings, total_s=record.timings.total_s + time.perf_counter() - began)
    record = dataclasses.replace(
        record, test=test.scores, throughput=throughput, timings=timings, sweep=table, config=config_of_record
    )
    saved = Predictions.load(folder, needs_test=False)
    part, checksums = pictures.test, checksums_of(pictures.test) or None
    of_test = dict(names=part.names, labels=part.labels, logits=test.logits, checksums=checksums)
    saved._replace(**of_test).save(folder / artifacts.PREDICTIONS)
    return artifacts.write_record(folder, record)


def _rates_to_try(config: TrainConfig) -> list[float]:
    """Returns a third of the recipe's rate, the rate itself and three times it; the preset's name tells the family."""
    recipe = recipes.choose(dataclasses.replace(config, learning_rate=None))
    middle = recipes.complete(recipe, config.preset, recipes.likely_family(config.preset)).learning_rate
    return [float(f"{middle * factor:.2g}") for factor in (1 / 3, 1, 3)]
