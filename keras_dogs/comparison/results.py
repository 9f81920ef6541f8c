"""Run folders -> one plain dict of all that a comparison shows: what `results.json` holds. No Keras, no figures."""

import csv
import datetime
import hashlib
import itertools
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import keras_dogs
from keras_dogs.comparison import plan
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.comparison.pairs import PAIRS
from keras_dogs.comparison.plan import PlannedRun
from keras_dogs.errors import UserError
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation import statistics
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.models import costs
from keras_dogs.models import presets
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import PROSE
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import recipe_in_words

FILE = "results.json"
# Of validation top-1 accuracy, for the time until it is reached.
THRESHOLDS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
NUM_PICTURES = 6


class Loaded(NamedTuple):
    """A finished run.

    Attributes:
        model: str. The preset's short name.
        record: `RunRecord`.
        predictions: `Predictions` of the test split, by name.
        losses: float array `(num_steps,)`.
        curve: list of float. Validation top-1 accuracy after each epoch.
        folder: Path.
        command: str. What makes it again.
    """

    model: str
    record: RunRecord
    predictions: Predictions
    losses: np.ndarray
    curve: list[float]
    folder: Path
    command: str

    @property
    def name(self) -> str:
        """For people, as a planned run's."""
        return f"{self.model} {self.record.backend} seed {self.record.seed}"

    @property
    def correct(self) -> np.ndarray:
        """Which test pictures it names rightly, in the order of their names: bool `(num_pictures,)`."""
        return scoring.is_correct(self.predictions.logits, self.predictions.labels)


def collect(config: CompareConfig, planned: list[PlannedRun], errors: dict[Path, str]) -> dict:
    """Reads the runs of a comparison, and those of `--from`.

    Args:
        config: `CompareConfig`.
        planned: list of `PlannedRun`.
        errors: dict of a planned run's folder to why it failed.
    """
    runs, rows, notes = [], [], []
    wanted = [(run.folder, run.command, run.name) for run in planned]
    wanted += [(Path(folder), "", Path(folder).name) for folder in config.from_]
    for folder, command, name in wanted:
        try:
            if folder in errors:
                raise UserError(errors[folder])
            runs.append(_load(folder, command))
        except UserError as error:
            rows.append({"name": name, "folder": str(folder), "command": command, "error": str(error)})
    runs, strangers = _on_one_test_set(runs)
    notes += [f"{run.name} ({run.folder}) was scored on other test pictures and is left out" for run in strangers]
    runs, others = _on_one_pool(runs)
    notes += [f"{run.name} ({run.folder}) was trained on other pictures and is left out" for run in others]
    runs, leaking = _without_leaks(runs)
    notes += [f"{run.name} ({run.folder}) was trained on pictures of the test split and is left out" for run in leaking]
    runs, doubles = _once(_told_apart(runs))
    notes += [f"{run.name} is there twice; the one in {run.folder} is left out" for run in doubles]
    between_models, (single, between_backends) = _between_models(runs), _between_backends(runs)
    return {
        "made_with": f"python {shlex.join(['-m', 'keras_dogs.compare', *sys.argv[1:]])}",
        "date": datetime.date.today().isoformat(),
        "keras_dogs": keras_dogs.__version__,
        "fairness": PAIRS[config.pair].fairness if config.pair else "",
        "budget": config.budget,
        "notes": notes + _notes(runs),
        "verdicts": [row["in_words"] for row in (*between_models, *between_backends)],
        "runs": [_describe(run) for run in runs] + rows,
        "groups": _groups(runs),
        "models": _models(runs),
        "pairs": _pairs(runs),
        "between_models": between_models,
        "same_seed_on_two_backends": single,
        "between_backends": between_backends,
        "classes": _classes(runs),
        "pictures": _pictures(runs),
        "curves": {run.name: [float(f"{loss:.6g}") for loss in run.losses] for run in runs},
    }


def _load(folder: Path, command: str) -> Loaded:
    record = RunRecord.load(folder / artifacts.RECORD)
    found = Predictions.load(folder)
    order = np.argsort(found.names)
    in_order = {name: getattr(found, name)[order] for name in ("names", "labels", "logits")}
    sorted_ = found._replace(**in_order, validation=None)
    try:
        with (folder / artifacts.STEPS).open() as file:
            losses = np.array([float(row["loss"]) for row in csv.DictReader(file)])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / artifacts.STEPS}: cannot be read ({error})") from error
    return Loaded(plan.short_name(record.preset), record, sorted_, losses, _validation_curve(folder), folder, command)


def _told_apart(runs: list[Loaded]) -> list[Loaded]:
    """Models by their short names, unless presets share one; with the recipe, where a preset has more than one."""
    identities = {run.folder: (run.record.preset, _recipe(run)) for run in runs}
    presets_of = {
        name: {run.record.preset for run in runs if run.model == name} for name in {run.model for run in runs}
    }
    recipes_of = {
        preset: {other for one, other in identities.values() if one == preset} for preset, _ in identities.values()
    }
    named = []
    for run in runs:
        preset, recipe = identities[run.folder]
        name = run.model if len(presets_of[run.model]) == 1 else preset
        named.append(run._replace(model=name if len(recipes_of[preset]) == 1 else f"{name}, {recipe}"))
    return named


def _recipe(run: Loaded) -> str:
    """What tells two ways of training one preset apart; epochs may follow from a budget."""
    config = run.record.config
    return ", ".join([config["recipe"], f"{config['augmentation']} augmentation", f"batch {config['batch_size']}"])


def _once(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """The first of each model, backend and seed, and the others."""
    first = {}
    for run in runs:
        first.setdefault(run.name, run)
    return list(first.values()), [run for run in runs if first[run.name] is not run]


def _on_one_test_set(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Those that were scored on the pictures that most were scored on, and the others."""
    return _as_most(runs, [_digest(run) for run in runs])


def _on_one_pool(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Those that were trained and validated on the pictures that most were, whichever did what, and the others."""
    datasets = [run.record.dataset for run in runs]
    pools = [dataset.pool for dataset in datasets]
    if not all(pools):  # earlier versions kept the number alone
        pools = [dataset.num_train + dataset.num_validation for dataset in datasets]
    return _as_most(runs, pools)


def _without_leaks(runs: list[Loaded]) -> tuple[list[Loaded], list[Loaded]]:
    """Those that have seen none of the test pictures, as far as they say what they were trained on, and the others."""
    return _parted(runs, [not run.predictions.were_trained_on(run.predictions.names).any() for run in runs])


def _as_most(runs: list[Loaded], values: list) -> tuple[list[Loaded], list[Loaded]]:
    """Those whose value is the most frequent, and the others."""
    usual = max(values, key=values.count, default=None)
    return _parted(runs, [value == usual for value in values])


def _parted(runs: list[Loaded], are_kept: list[bool]) -> tuple[list[Loaded], list[Loaded]]:
    return list(itertools.compress(runs, are_kept)), [run for run, is_kept in zip(runs, are_kept) if not is_kept]


def _digest(run: Loaded) -> str:
    classes = [run.predictions.class_names[label] for label in run.predictions.labels]
    return hashlib.sha256(
        "\n".join([*run.predictions.names, *classes, *run.predictions.class_names]).encode()
    ).hexdigest()


def _notes(runs: list[Loaded]) -> list[str]:
    """What a reader must know before comparing figures."""
    notes = []
    devices = sorted({run.record.device for run in runs})
    if len(devices) > 1:
        notes.append(f"the runs were made on different devices ({'; '.join(devices)}): do not compare their times")
    for (seed,), group in _by(runs, "seed").items():
        if len({run.record.dataset.fingerprint for run in group}) > 1:
            notes.append(f"the runs of seed {seed} were not all trained on the same pictures")
    if any(run.record.timings.features_s for run in runs):
        notes.append(
            "linear probes: features are computed once, before training. The seconds of training below include that; "
            "steps are of features, so that they have no images/s and no time that could be compared"
        )
    if any(not run.record.epoch_end_s for run in runs):
        notes.append(
            "some runs were made by a version that did not keep when epochs ended: no time to accuracy of these"
        )
    return notes


def _describe(run: Loaded) -> dict:
    """The row of a run: what it is, and every figure that is shown of it alone."""
    record = run.record
    return {
        "name": run.name,
        "model": run.model,
        "preset": record.preset,
        "family": record.family,
        "backend": record.backend,
        "seed": record.seed,
        "folder": str(run.folder),
        "command": run.command,
        "recipe": recipe_in_words(record.config),
        "epochs": record.config["epochs"],
        "pretraining": record.pretraining,
        "num_parameters": record.num_parameters,
        "gflops": _gflops(record),
        "dataset": vars(record.dataset),
        "device": record.device,
        "execution": record.execution,
        "dtype_policy": record.dtype_policy,
        "versions": record.versions,
        "best_epoch": record.best_epoch,
        "validation": vars(record.validation) if record.validation else None,
        "test": vars(record.test),
        "test_top1_interval": intervals.share_interval(run.correct),
        "timings": vars(record.timings),
        "throughput": vars(record.throughput),
        "peak_memory_gib": record.peak_memory_gib,
        "epoch_end_s": record.epoch_end_s,
        "validation_curve": run.curve,
        "seconds_to": _seconds_to(record, run.curve),
    }


def _gflops(record: RunRecord) -> float | None:
    row = presets.PRESETS.get(record.preset)
    return costs.count_gflops(row, record.config.get("image_size"), whole=False) if row else None


def _validation_curve(folder: Path) -> list[float]:
    """Top-1 accuracy after each epoch; empty without a validation split."""
    try:
        with (folder / artifacts.HISTORY).open() as file:
            rows = list(csv.DictReader(file))
        return [float(row["validation_top1_accuracy"]) for row in rows]
    except (OSError, KeyError, ValueError):
        return []


def _seconds_to(record: RunRecord, curve: list[float]) -> dict[str, float | None]:
    """For each threshold, when an epoch ended that reached it, in seconds from the command; `None` for never."""
    found = {}
    for threshold in THRESHOLDS:
        reached = (end for end, accuracy in zip(record.epoch_end_s, curve) if accuracy >= threshold)
        found[f"{threshold:g}"] = next(reached, None)
    return found


def _by(runs: list[Loaded], *names: str) -> dict[tuple, list[Loaded]]:
    groups: dict[tuple, list[Loaded]] = {}
    for run in runs:
        key = tuple(run.model if name == "model" else getattr(run.record, name) for name in names)
        groups.setdefault(key, []).append(run)
    return groups


def _spread(values) -> dict:
    values = [float(value) for value in values]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values), "deviation": deviation}


def _groups(runs: list[Loaded]) -> list[dict]:
    """A row a model and backend, over seeds."""
    rows = []
    for (model, backend), group in _by(runs, "model", "backend").items():
        records = [run.record for run in group]
        speed, timings = [record.throughput for record in records], [record.timings for record in records]
        shares = np.mean([run.correct for run in group], axis=0)
        reached = [_seconds_to(run.record, run.curve) for run in group]
        sees_pictures = not any(each.features_s for each in timings)
        rows.append(
            {
                "model": model,
                "backend": backend,
                "seeds": [record.seed for record in records],
                "top1": _spread(record.test.top1_accuracy for record in records),
                "top1_interval": intervals.share_interval(shares),
                "top5": _spread(record.test.top5_accuracy for record in records),
                "loss": _spread(record.test.loss for record in records),
                "calibration_error": _spread(record.test.expected_calibration_error for record in records),
                # Of features a step says nothing of what pictures cost.
                "train_images_per_second": (
                    _spread(each.train_images_per_second for each in speed) if sees_pictures else None
                ),
                "predict_images_per_second": _spread(each.predict_images_per_second for each in speed),
                "step_time_ms": _spread(each.step_time_ms for each in speed) if sees_pictures else None,
                "first_step_s": _spread(each.first_step_s for each in timings),
                "train_s": _spread(each.features_s + each.train_s for each in timings),
                "total_s": _spread(each.total_s for each in timings),
                "peak_memory_gib": _spread(record.peak_memory_gib for record in records),
                "seconds_to": {
                    threshold: _spread(times[threshold] for times in reached)
                    if all(times[threshold] is not None for times in reached)
                    else None
                    for threshold in reached[0]
                },
            }
        )
    return rows


def _models(runs: list[Loaded]) -> list[dict]:
    """A row a model, over all its runs: what does not depend on the backend, calibration and confusion."""
    rows = []
    for (model,), group in _by(runs, "model").items():
        record = group[0].record
        logits = np.concatenate([run.predictions.logits for run in group])
        labels = np.concatenate([run.predictions.labels for run in group])
        rows.append(
            {
                "model": model,
                "preset": record.preset,
                "family": record.family,
                "pretraining": record.pretraining,
                "num_parameters": record.num_parameters,
                "gflops": _gflops(record),
                "num_runs": len(group),
                "top1": _spread(run.record.test.top1_accuracy for run in group),
                "reliability": [each._asdict() for each in scoring.reliability(logits, labels)],
                "calibration_error": _spread(run.record.test.expected_calibration_error for run in group),
                "confusion": scoring.confusion_matrix(logits, labels).tolist(),
            }
        )
    return rows


def _pairs(runs: list[Loaded]) -> list[dict]:
    """Two models on one backend with one seed: McNemar's test and the interval of the difference."""
    rows = []
    for (backend, seed), group in _by(runs, "backend", "seed").items():
        for first, second in itertools.combinations(group, 2):
            if first.model != second.model:
                rows.append({"backend": backend, "seed": seed, **_compare(first, second)})
    return rows


def _compare(first: Loaded, second: Loaded) -> dict:
    found = statistics.compare(first.predictions, second.predictions)
    names = (first.model, second.model) if first.model != second.model else (first.name, second.name)
    return {"first": names[0], "second": names[1], **found._asdict(), "significant": found.is_significant}


def _between_models(runs: list[Loaded]) -> list[dict]:
    """Compares each two models over all backends and seeds that both have."""
    rows = []
    for first, second in itertools.combinations([model for (model,) in _by(runs, "model")], 2):
        keyed = [{(run.record.backend, run.record.seed): run for run in _of(runs, model)} for model in (first, second)]
        keys = [key for key in keyed[0] if key in keyed[1]]
        if not keys:
            continue
        pairs = [(keyed[0][key], keyed[1][key]) for key in keys]
        differences = np.array([one.correct.astype(float) - other.correct for one, other in pairs])
        single = [statistics.compare(one.predictions, other.predictions) for one, other in pairs]
        rows.append(
            {
                "first": first,
                "second": second,
                "num_pairs": len(keys),
                "num_seeds": len({seed for _, seed in keys}),
                "num_pictures": differences.shape[1],
                "difference": float(differences.mean()),
                "each": differences.mean(axis=1).tolist(),
                "num_significant": sum(each.is_significant for each in single),
                **_tested(pairs, single),
            }
        )
    return [{**row, "in_words": _verdict(row)} for row in _adjusted(rows)]


def _tested(pairs: list[tuple[Loaded, Loaded]], single: list[statistics.Comparison]) -> dict:
    """The interval and the p-value of pairs of runs that are read as one.

    Of one seed, a difference must be there on each backend: the interval holds those of all, the p-value is the
    greatest.
    """
    if len({one.record.seed for one, _ in pairs}) == 1:
        lows, highs = zip(*(each.interval for each in single))
        is_one_way = len({each.difference > 0 for each in single}) == 1
        p_value = max(each.p_value for each in single) if is_one_way else 1.0
        return {"interval": (min(lows), max(highs)), "p_value": p_value}
    differences = np.mean([one.correct.astype(float) - other.correct for one, other in pairs], axis=0)
    return {"interval": intervals.difference_interval(differences), "p_value": _p_over_seeds(pairs)}


def _p_over_seeds(pairs: list[tuple[Loaded, Loaded]]) -> float:
    """Tests pairs of runs over seeds. Backends repeat a seed nearly exactly, so that their mean counts once."""
    seeds = sorted({one.record.seed for one, _ in pairs})
    correct = [
        [np.mean([pair[side].correct for pair in pairs if pair[0].record.seed == seed], axis=0) for seed in seeds]
        for side in (0, 1)
    ]
    return intervals.p_over_seeds(*correct)


def _adjusted(rows: list[dict]) -> list[dict]:
    """Adds what each p-value is among all that are read together, and whether it is below 5 %."""
    adjusted = intervals.holm([row["p_value"] for row in rows])
    return [{**row, "adjusted_p_value": p, "significant": p < 0.05} for row, p in zip(rows, adjusted)]


def _of(runs: list[Loaded], model: str) -> list[Loaded]:
    return [run for run in runs if run.model == model]


def _verdict(row: dict) -> str:
    """Words a comparison of two models: of several seeds, what holds for the models; of one seed, for the two runs."""
    low, high = (100 * bound for bound in row["interval"])
    least, most = 100 * min(row["each"]), 100 * max(row["each"])
    found = (
        f"{100 * row['difference']:+.1f} points of top-1, p = {row['adjusted_p_value']:.2g}; for these runs the 95 % "
        f"interval over pictures is {low:+.1f} to {high:+.1f}; single pairs of runs {least:+.1f} to {most:+.1f}"
    )
    better, worse = (row["first"], row["second"]) if row["difference"] > 0 else (row["second"], row["first"])
    on_pictures = f"on these {row['num_pictures']:,} pictures ({found})"
    if row["num_seeds"] == 1:
        luck = "One seed: this speaks of these runs; how much is luck in training is not known."
        if row["significant"]:
            return f"The run of {better} is better than that of {worse} {on_pictures}. {luck}"
        return f"The runs of {row['first']} and {row['second']} cannot be told apart {on_pictures}. {luck}"
    seeds = f"The test is over pictures and {row['num_seeds']} seeds"
    if row["num_pairs"] > row["num_seeds"]:
        seeds += "; backends repeat a seed nearly exactly and are no further evidence"
    if row["significant"]:
        return f"{better} is better than {worse} {on_pictures}. {seeds}."
    return f"{row['first']} and {row['second']} cannot be told apart {on_pictures}. {seeds}."


def _between_backends(runs: list[Loaded]) -> tuple[list[dict], list[dict]]:
    """The same model and seed on two backends: rows of each, and one of all that two backends have in common."""
    single, pairs = [], {}
    for (model, seed), group in _by(runs, "model", "seed").items():
        for first, second in itertools.combinations(group, 2):
            if first.record.backend != second.record.backend and _is_same_training(first, second):
                row = {"model": model, "seed": seed, **_hold_together(first, second)}
                single.append(row)
                pairs.setdefault((model, *row["backends"]), []).append((row, first, second))
    summaries = [_summarise(model, backends, found) for (model, *backends), found in pairs.items()]
    return single, [{**row, "in_words": _backends_in_words(row)} for row in _adjusted(summaries)]


def _is_same_training(first: Loaded, second: Loaded) -> bool:
    """Whether the two differ in nothing but the backend; a budget of time gives each its own epochs."""
    keys = ("epochs", "batch_size", "learning_rate", "optimizer", "augmentation", "recipe")
    configs = [run.record.config for run in (first, second)]
    fingerprints = [run.record.dataset.fingerprint for run in (first, second)]
    return fingerprints[0] == fingerprints[1] and all(configs[0].get(key) == configs[1].get(key) for key in keys)


def _hold_together(first: Loaded, second: Loaded) -> dict:
    answers = [run.predictions.logits.argmax(axis=1) for run in (first, second)]
    steps = min(len(first.losses), len(second.losses))
    gaps = np.abs(first.losses[:steps] - second.losses[:steps]) if steps else np.zeros(1)
    return {
        "backends": [first.record.backend, second.record.backend],
        **{name: value for name, value in _compare(first, second).items() if name not in ("first", "second")},
        "same_answers": float((answers[0] == answers[1]).mean()),
        "largest_loss_difference": float(gaps.max()),
        "largest_loss_difference_in_10_steps": float(gaps[:10].max()),
    }


def _summarise(model: str, backends: list[str], found: list[tuple[dict, Loaded, Loaded]]) -> dict:
    rows = [row for row, _, _ in found]
    return {
        "model": model,
        "backends": backends,
        "num_pairs": len(rows),
        "num_significant": sum(row["significant"] for row in rows),
        "difference": float(np.mean([row["difference"] for row in rows])),
        "largest_difference": float(max(abs(row["difference"]) for row in rows)),
        "same_answers": float(np.mean([row["same_answers"] for row in rows])),
        "largest_loss_difference": max(row["largest_loss_difference"] for row in rows),
        "largest_loss_difference_in_10_steps": max(row["largest_loss_difference_in_10_steps"] for row in rows),
        "p_value": _p_over_seeds([(first, second) for _, first, second in found]),
    }


def _backends_in_words(row: dict) -> str:
    names = [PROSE[name] for name in row["backends"]]
    outcome = "differ" if row["significant"] else "cannot be told apart"
    seeds = "one seed" if row["num_pairs"] == 1 else f"{row['num_pairs']} seeds"
    return (
        f"{row['model']}: {names[0]} and {names[1]} {outcome} in accuracy (p = {row['adjusted_p_value']:.2g} over "
        f"{seeds}; {100 * row['difference']:+.1f} points on average, at most {100 * row['largest_difference']:.1f}); "
        f"they name {100 * row['same_answers']:.1f} % of the pictures alike."
    )


def _classes(runs: list[Loaded]) -> list[dict]:
    """Accuracy of each class with each of the first two models, over their runs; the first's gain ascending."""
    models = [model for (model,) in _by(runs, "model")][:2]
    if len(models) < 2:
        return []
    labels, names = runs[0].predictions.labels, runs[0].predictions.class_names
    shares = [np.mean([run.correct for run in _of(runs, model)], axis=0) for model in models]
    rows = []
    for label in np.unique(labels):
        first, second = (float(share[labels == label].mean()) for share in shares)
        num = int((labels == label).sum())
        row = {"class": str(names[label]), "pictures": num, "first": first, "second": second}
        rows.append({**row, "difference": first - second})
    return sorted(rows, key=lambda row: (row["difference"], row["class"]))


def _pictures(runs: list[Loaded]) -> list[dict]:
    """Test pictures that one of the first two models names rightly in all of its runs, and the other in none."""
    models = [model for (model,) in _by(runs, "model")][:2]
    if len(models) < 2:
        return []
    found = runs[0].predictions
    shares = [np.mean([run.correct for run in _of(runs, model)], axis=0) for model in models]
    rows = []
    for model, own, other, loser in ((models[0], *shares, models[1]), (models[1], *shares[::-1], models[0])):
        for place in np.argsort(other - own, kind="stable")[:NUM_PICTURES]:
            if own[place] - other[place] < 1:
                break
            wrong = [int(run.predictions.logits[place].argmax()) for run in _of(runs, loser)]
            wrong = [answer for answer in wrong if answer != found.labels[place]]
            rows.append(
                {
                    "only_right": model,
                    "picture": str(found.names[place]),
                    "class": str(found.class_names[found.labels[place]]),
                    "taken_for": str(found.class_names[max(wrong, key=wrong.count)]),
                    "share_of_runs_right": [float(share[place]) for share in shares],
                }
            )
    return rows
