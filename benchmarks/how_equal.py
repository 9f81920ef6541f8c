"""How equal are the backends over a whole fine-tuning? `python benchmarks/how_equal.py`.

Compares the runs that `full_fine_tuning.py` keeps, two at a time: the same model, recipe and seed on two backends, and,
as the yardstick, two seeds on one backend. Needs no pictures and no weights.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import runs
from full_fine_tuning import KEPT
from scipy.special import softmax

from keras_dogs.comparison import figures
from keras_dogs.comparison import loaded
from keras_dogs.runs import artifacts
from keras_dogs.system import pages

NAMES = {"resnet50": "ResNet-50", "vits14": "ViT-S/14"}
RECIPES = {
    "finetune": "fine-tuned",
    "finetune_64": "fine-tuned in batches of 64",
    "probe_first": "probe, then fine-tuned",
    "imagenet_head": "fine-tuned from its ImageNet head",
}
_AROUND = 25  # steps that a point of a curve is the mean of
_TEXT = (
    "The runs above, two at a time. Two backends begin with the same weights, see the same pictures in the same order "
    "with the same augmentation, and differ in rounding alone, which training makes grow. Two seeds on one backend are "
    "the yardstick: another order, other crops, other pictures set aside for validation. *Gap of the loss*: of single "
    f"steps, and of the mean over {_AROUND} steps around each. *Scores*: the probability of each breed for each test "
    "picture."
)


def main():
    """Writes a row for each pair of runs."""
    rows = [compare(*pair) for pair in itertools.combinations(kept(), 2) if is_of_interest(*pair)]
    runs.write("how_equal", rows, line=in_words)


def kept() -> list[Path]:
    """Returns the folders of the runs that were kept whole."""
    return sorted(record.parent for record in KEPT.glob(f"*/{artifacts.RECORD}"))


def parts(run: Path) -> tuple[str, str, str, int]:
    """Returns the model, the recipe, the backend and the seed of `<model>-<recipe>-<backend>[-seedN]`."""
    model, recipe, backend, *seed = run.name.split("-")
    return model, recipe, backend, int(seed[0].removeprefix("seed")) if seed else 0


def is_of_interest(first: Path, second: Path) -> bool:
    """Tells whether two runs differ in their backend alone, or in their seed alone."""
    one, other = parts(first), parts(second)
    return one[:2] == other[:2] and (one[2] == other[2]) != (one[3] == other[3])


def compare(first: Path, second: Path) -> dict:
    """Returns the row of two runs."""
    (model, recipe, backend, seed), (_, _, other, other_seed) = parts(first), parts(second)
    from keras_dogs.training import reproducing  # loads Keras, which the pages need not

    outcome = reproducing.compare_runs(first, second)
    one, two = (loaded.load(run, command="") for run in (first, second))
    scores = np.abs(softmax(one.predictions.logits, axis=1) - softmax(two.predictions.logits, axis=1))
    return {
        "model": model,
        "recipe": recipe,
        "backends": [backend, other],
        "seeds": [seed, other_seed],
        "same_curve": outcome.differs_from is None,
        "largest_gap": outcome.largest_gap,
        "largest_gap_of_means": float(np.abs(np.subtract(*smoothed(one.losses, two.losses))).max()),
        "agreement": outcome.agreement,
        "top1": [float(run.correct.mean()) for run in (one, two)],
        "score_gap_mean_of_largest": float(scores.max(axis=1).mean()),
        "score_gap_largest": float(scores.max()),
    }


def smoothed(*several: np.ndarray) -> list[np.ndarray]:
    """Returns several curves, smoothed, as long as the shortest."""
    return [smooth(losses[: min(map(len, several))]) for losses in several]


def smooth(losses: np.ndarray) -> np.ndarray:
    """Returns the mean of the `_AROUND` losses around each step, `(num_steps - _AROUND + 1,)`."""
    return np.convolve(losses, np.full(_AROUND, 1 / _AROUND), mode="valid")


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return (
        f"{row['model']} {row['recipe']}, {who(row)}: loss at most {row['largest_gap']:.3f} apart "
        f"({row['largest_gap_of_means']:.3f} in the mean), {row['agreement']:.1%} of the answers alike"
    )


def who(row: dict) -> str:
    """Names what a pair differs in."""
    names = [runs.PROSE[backend] for backend in row["backends"]]
    return " and ".join(names) if len(set(names)) > 1 else f"seeds {row['seeds'][0]} and {row['seeds'][1]}, {names[0]}"


def section(result: dict) -> str:
    """Returns the section of docs/results.md."""
    rows = sorted(result["rows"], key=lambda row: (row["model"], row["recipe"], len(set(row["backends"])) == 1))
    lines = [
        [
            NAMES[row["model"]],
            RECIPES[row["recipe"]],
            who(row),
            f"{row['largest_gap']:.3f}",
            f"{row['largest_gap_of_means']:.3f}",
            " / ".join(f"{100 * top1:.1f}" for top1 in row["top1"]),
            f"{100 * row['agreement']:.1f} %",
            f"{row['score_gap_mean_of_largest']:.3f}",
        ]
        for row in rows
    ]
    header = ["model", "recipe", "between", "gap of the loss, nats", "of its mean", "top-1, %", "answers alike"]
    table = pages.table([*header, "largest gap of a picture's scores, mean"], lines)
    text = _TEXT if any(len(set(row["backends"])) == 1 for row in rows) else f"{_TEXT} No second seed was trained yet."
    figure = "![Loss by step, and how far apart the backends and two seeds are](results/how_equal.svg)"
    return f"\n## How equal is equal\n\n{text}\n\n{figure}\n\n{table}\n"


def draw(file: Path) -> None:
    """Draws the loss by step of each backend, and below it the gap between any two; a column a model and recipe."""
    import matplotlib

    groups = {}
    for run in kept():
        groups.setdefault(parts(run)[:2], []).append(run)
    groups = {names: group for names, group in groups.items() if len(group) > 1}
    with matplotlib.rc_context(figures.style(*figures.THEMES[""])):
        from matplotlib import pyplot

        size = dict(figsize=(max(5.4, 4.4 * len(groups)), 5.6), height_ratios=(3, 2), sharex=True, layout="constrained")
        figure, axes = pyplot.subplots(2, len(groups), squeeze=False, **size)
        for (model, recipe), (above, below) in zip(groups, axes.T):
            above.set_title(f"{NAMES[model]},\n{RECIPES[recipe]}", fontsize=11)
            figures.scale_by_powers(below)
            below.set_xlabel("step")
            _panel(above, below, groups[model, recipe])
        axes[0, 0].set_ylabel("training loss, nats")
        axes[1, 0].set_ylabel("gap, nats")
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)


def _panel(above, below, group: list[Path]) -> None:
    curves = dict(zip(group, smoothed(*(loaded.load(run, command="").losses for run in group))))
    colours = dict(zip(runs.PROSE, figures.COLOURS))
    for run, curve in curves.items():
        _, _, backend, seed = parts(run)
        style = dict(color=colours[backend], linestyle=figures.LINES[backend]) if not seed else dict(color="#777777")
        label = runs.PROSE[backend] + (f", seed {seed}" if seed else "")
        above.plot(_steps(curve), curve, linewidth=1.8, label=label, **style)
    for first, second in filter(lambda pair: is_of_interest(*pair), itertools.combinations(group, 2)):
        between_seeds = parts(first)[3] != parts(second)[3]
        gap = np.maximum(np.abs(curves[first] - curves[second]), 1e-6)
        label = "two seeds" if between_seeds else " and ".join(runs.PROSE[parts(run)[2]] for run in (first, second))
        below.plot(_steps(gap), gap, linewidth=1.4, label=label, color="#777777" if between_seeds else None)
    above.legend()
    below.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2)  # the curves fill the panel


def _steps(curve: np.ndarray) -> np.ndarray:
    return np.arange(len(curve)) + _AROUND // 2 + 1


def load() -> dict | None:
    """Returns the result file; `None` where there is none."""
    file = next(iter(sorted(runs.RESULTS.glob("how_equal-*.json"))), None)
    return json.loads(file.read_text()) if file else None


if __name__ == "__main__":
    main()
