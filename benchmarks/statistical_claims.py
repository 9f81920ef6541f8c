"""Hold what the pages print against a known truth: `python benchmarks/statistical_claims.py`.

Right and wrong answers are simulated: a picture is hard or easy for all models and for each of them, a seed has an
accuracy of its own. How often each interval covers the true value, and how often each verdict finds a difference where
there is none, goes to `results/` and, as a page, to `docs/statistics.md`. It takes some minutes, and no backend.
"""

import argparse
from pathlib import Path

import numpy as np
import runs
import scipy.stats

from keras_dogs.evaluation import intervals
from keras_dogs.system.pages import table

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
COUNTS, ACCURACIES = (20, 100, 600, 1200), (0.5, 0.85, 0.98, 0.999)
SPREADS, SEEDS = (0.0, 1.3, 2.2), (1, 2, 3)
# Variance of what makes a picture right or wrong: of the picture for all, of the picture for a model, of a run.
FOR_ALL, FOR_A_MODEL, FOR_A_RUN = 0.55, 0.2, 0.25


class World:
    """Answers of models and seeds whose accuracies are known.

    Args:
        rng: `numpy.random.Generator`.
        pictures: int. Of the test split.
        accuracy: float. Of each model over all pictures and seeds.
        spread: float. Standard deviation of a seed's accuracy, in points.
    """

    def __init__(self, rng, pictures: int, accuracy: float, spread: float = 0.0):
        self.rng, self.pictures, self.accuracy, self.spread = rng, pictures, accuracy, spread
        self.hardness = FOR_ALL**0.5 * rng.normal(size=pictures)

    def train(self, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        """Gives a model's answers, bool `(seeds, pictures)`, and the true accuracy of each seed, `(seeds,)`."""
        own = self.hardness + FOR_A_MODEL**0.5 * self.rng.normal(size=self.pictures)
        true = np.clip(self.accuracy + self.spread / 100 * self.rng.normal(size=seeds), 0.0005, 0.9995)
        hardness = own + FOR_A_RUN**0.5 * self.rng.normal(size=(seeds, self.pictures))
        return hardness < scipy.stats.norm.ppf(true)[:, None], true


def coverage(rng, repeats: int) -> list[dict]:
    """Returns how often each interval covers what it is of, for each number of pictures and accuracy."""
    rows = []
    for pictures in COUNTS:
        for accuracy in ACCURACIES:
            found = {"share": [], "share_3_seeds": [], "difference": [], "difference_3_seeds": []}
            for _ in range(repeats):
                world = World(rng, pictures, accuracy)
                first, second = world.train(3)[0], world.train(3)[0]
                differences = first.astype(float) - second
                found["share"].append(_covers(intervals.share_interval(first[0]), accuracy))
                found["share_3_seeds"].append(_covers(intervals.share_interval(first.mean(axis=0)), accuracy))
                found["difference"].append(_covers(intervals.difference_interval(differences[0]), 0.0))
                found["difference_3_seeds"].append(
                    _covers(intervals.difference_interval(differences.mean(axis=0)), 0.0)
                )
            rows.append({"what": "coverage", "pictures": pictures, "accuracy": accuracy, **_means(found)})
            print(rows[-1], flush=True)
    return rows


def _covers(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def _means(found: dict) -> dict:
    return {name: float(np.mean(values)) for name, values in found.items()}


def false_alarms(rng, repeats: int) -> list[dict]:
    """Returns how often each verdict claims a false difference, for each number of seeds and their spread."""
    rows = []
    for seeds in SEEDS:
        for spread in SPREADS:
            for pictures in (600, 1200):
                found = {"models": [], "backends": [], "power": []}
                for _ in range(repeats):
                    found["models"].append(_of_models(World(rng, pictures, 0.85, spread), seeds))
                    found["backends"].append(_of_backends(World(rng, pictures, 0.85, spread), seeds))
                    found["power"].append(_finds_five_points(rng, pictures, spread, seeds))
                rows.append(
                    {"what": "verdicts", "seeds": seeds, "spread": spread, "pictures": pictures, **_means(found)}
                )
                print(rows[-1], flush=True)
    return rows


def _of_models(world: World, seeds: int) -> bool:
    """Compares two equally good models; of one seed, false is what is false of its two runs."""
    (first, true), (second, other) = world.train(seeds), world.train(seeds)
    is_said = intervals.p_over_seeds(first, second) < 0.05
    if seeds > 1 or true[0] == other[0]:
        return is_said
    return is_said and (first.mean() > second.mean()) != (true[0] > other[0])


def _of_backends(world: World, seeds: int) -> bool:
    """Compares three backends, adjusted by Holm; returns whether any pair is said to differ wrongly."""
    runs_of = [world.train(seeds) for _ in range(3)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    adjusted = intervals.holm([intervals.p_over_seeds(runs_of[one][0], runs_of[other][0]) for one, other in pairs])
    for p_value, (one, other) in zip(adjusted, pairs):
        (first, true), (second, of_other) = runs_of[one], runs_of[other]
        is_right = seeds == 1 and true[0] != of_other[0]
        is_right = is_right and (first.mean() > second.mean()) == (true[0] > of_other[0])
        if p_value < 0.05 and not is_right:
            return True
    return False


def _finds_five_points(rng, pictures: int, spread: float, seeds: int) -> bool:
    """Returns whether a true difference of five points is found."""
    good, bad = World(rng, pictures, 0.875, spread), World(rng, pictures, 0.825, spread)
    bad.hardness = good.hardness
    return intervals.p_over_seeds(good.train(seeds)[0], bad.train(seeds)[0]) < 0.05


def render(rows: list[dict], repeats: int) -> str:
    """Returns the page as Markdown."""
    percent = "{:.1%}".format
    covered = [
        [row["pictures"], percent(row["accuracy"])]
        + [percent(row[name]) for name in ("share", "share_3_seeds", "difference", "difference_3_seeds")]
        for row in rows
        if row["what"] == "coverage"
    ]
    verdicts = [
        [row["seeds"], row["spread"], f"{row['pictures']:,}"]
        + [percent(row[name]) for name in ("models", "backends", "power")]
        for row in rows
        if row["what"] == "verdicts"
    ]
    return (
        "# How reliable the intervals and verdicts are\n\n"
        "Written by `benchmarks/statistical_claims.py`, which simulates "
        f"right and wrong answers whose truth is known, {repeats:,} data sets a row. The code is in "
        "`keras_dogs/evaluation/intervals.py`.\n\n"
        "## How often a 95 % interval covers the truth\n\nThe share of right answers gets "
        "Clopper and Pearson's interval, which is conservative; over several seeds, Korn and Graubard's. The "
        "difference between two models on the same pictures gets Bonett and Price's. As answers are right or wrong, "
        "no interval covers exactly 95 % with few pictures or few wrong answers; these tend to cover too "
        "much.\n\n"
        + table(["pictures", "accuracy", "share", "share, 3 seeds", "difference", "difference, 3 seeds"], covered)
        + "\nThe mean cross-entropy gets no interval: a few wrong answers dominate it, and none that was tried "
        "(bootstrap, Student's t, Johnson's) reaches its nominal coverage when these are few.\n"
        "\n## How often a verdict is wrong\n\nWe simulate two equally good models, at 85 %, whose seeds differ by a "
        "standard deviation of *spread* points, and three backends of which no pair differs, with Holm's adjustment. "
        "With several seeds, a t-test is used whose standard error covers pictures and seeds. With one seed, McNemar's "
        "exact test judges only these two runs: its verdict counts as wrong if it calls the worse run better, or two "
        "equal runs different. *Found* is how often a true difference of five points is found.\n\n"
        "**How many seeds?** One to compare two runs, at least three to compare two models. With two seeds the t-test "
        "has two degrees of freedom and finds little: two seeds say too little of the spread of seeds.\n\n"
        + table(
            ["seeds", "spread, points", "pictures", "models, wrong", "backends, wrong", "5 points, found"], verdicts
        )
    )


def main():
    """Simulates, and writes results and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000, help="data sets a row")
    flags = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = coverage(rng, flags.repeats) + false_alarms(rng, flags.repeats)
    runs.write("statistical_claims", rows, summary={"repeats": flags.repeats}, line=str)
    PAGE.write_text(render(rows, flags.repeats))


if __name__ == "__main__":
    main()
