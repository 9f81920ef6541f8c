"""What the runs of a comparison say of each other: models on the same pictures, backends with the same seed."""

import itertools

import numpy as np

from keras_dogs.comparison import loaded
from keras_dogs.comparison import schema
from keras_dogs.comparison.loaded import Loaded
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import statistics
from keras_dogs.runs.records import PROSE

LUCK = "One seed: this speaks of these runs; how much is luck in training is not known."


def pairs(runs: list[Loaded]) -> list[schema.Pair]:
    """Compares two models on one backend with one seed: McNemar's test and the interval of the difference."""
    rows = []
    for (backend, seed), group in loaded.grouped_by(runs, "backend", "seed").items():
        for first, second in itertools.combinations(group, 2):
            if first.model != second.model:
                rows.append({"backend": backend, "seed": seed, **_compare(first, second)})
    return rows


def _compare(first: Loaded, second: Loaded) -> dict:
    found = statistics.compare(first.predictions, second.predictions)
    names = (first.model, second.model) if first.model != second.model else (first.name, second.name)
    return {"first": names[0], "second": names[1], **found._asdict(), "significant": found.is_significant}


def between_models(runs: list[Loaded]) -> list[schema.BetweenModels]:
    """Compares each two models over all backends and seeds that both have."""
    rows = []
    for first, second in itertools.combinations([model for (model,) in loaded.grouped_by(runs, "model")], 2):
        keyed = [
            {(run.record.backend, run.record.seed): run for run in loaded.of_model(runs, model)}
            for model in (first, second)
        ]
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
    """Returns the interval and the p-value of pairs of runs that are judged together.

    With a single seed, the difference must show on every backend: the interval spans the intervals of all backends, and
    the p-value is their greatest.
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
    """Adds each row's p-value adjusted for all tests that are read together, and whether that is below 5 %."""
    adjusted = intervals.holm([row["p_value"] for row in rows])
    return [{**row, "adjusted_p_value": p, "significant": p < 0.05} for row, p in zip(rows, adjusted)]


def _verdict(row: dict) -> str:
    """Words a comparison of two models: of several seeds, what holds for the models; of one seed, for the two runs."""
    # The better one is named first, and what it gains is positive.
    sign = -1 if row["significant"] and row["difference"] < 0 else 1
    better, worse = (row["first"], row["second"])[::sign]
    low, high = sorted(100 * sign * bound for bound in row["interval"])
    gains = [100 * sign * gain for gain in row["each"]]
    p_value = f"= {row['adjusted_p_value']:.2g}" if row["adjusted_p_value"] >= 1e-4 else "< 0.0001"
    found = (
        f"{100 * sign * row['difference']:+.1f} points of top-1, p {p_value}; for these runs the 95 % interval over "
        f"pictures is {low:+.1f} to {high:+.1f}"
    )
    if len(gains) > 1:
        found += f"; single pairs of runs {min(gains):+.1f} to {max(gains):+.1f}"
    on_pictures = f"on these {row['num_pictures']:,} pictures ({found})"
    if row["num_seeds"] == 1:
        if row["significant"]:
            return f"The run of {better} is better than that of {worse} {on_pictures}. {LUCK}"
        return f"The runs of {row['first']} and {row['second']} cannot be told apart {on_pictures}. {LUCK}"
    seeds = f"The test is over pictures and {row['num_seeds']} seeds"
    if row["num_pairs"] > row["num_seeds"]:
        seeds += "; backends repeat a seed nearly exactly and are no further evidence"
    if row["significant"]:
        return f"{better} is better than {worse} {on_pictures}. {seeds}."
    return f"{row['first']} and {row['second']} cannot be told apart {on_pictures}. {seeds}."


def between_backends(runs: list[Loaded]) -> tuple[list[schema.SameSeed], list[schema.BetweenBackends]]:
    """Compares the same model and seed on two backends: a row for each pair, and one for all of them."""
    single, pairs = [], {}
    for (model, seed), group in loaded.grouped_by(runs, "model", "seed").items():
        for first, second in itertools.combinations(group, 2):
            if first.record.backend != second.record.backend and _is_same_training(first, second):
                row = {"model": model, "seed": seed, **_compare_backends(first, second)}
                single.append(row)
                pairs.setdefault((model, *row["backends"]), []).append((row, first, second))
    summaries = [_summarise(model, backends, found) for (model, *backends), found in pairs.items()]
    return single, [{**row, "in_words": _backends_in_words(row)} for row in _adjusted(summaries)]


def _is_same_training(first: Loaded, second: Loaded) -> bool:
    """Returns whether the two differ in nothing but the backend; a budget of time gives each its own epochs."""
    one, other = (
        (run.record.dataset.fingerprint, run.record.config["learning_rate"], *loaded.training_of(run))
        for run in (first, second)
    )
    return one == other


def _compare_backends(first: Loaded, second: Loaded) -> dict:
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
        f"they give the same answer on {100 * row['same_answers']:.1f} % of the pictures."
    )
