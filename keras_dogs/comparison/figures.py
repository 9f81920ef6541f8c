"""Figures of a comparison, each for a light and a dark page: colour tells models, marker and line tell backends."""

import itertools
from pathlib import Path

import numpy as np

from keras_dogs.data.datasets import display_name
from keras_dogs.evaluation.figures import BLUE
from keras_dogs.evaluation.figures import ORANGE
from keras_dogs.runs.records import PROSE

FOLDER = "figures"  # of the report

# Okabe and Ito's, told apart by everybody, on white and on near-black.
COLOURS = (ORANGE, BLUE, "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
MARKERS = {"jax": "o", "tensorflow": "s", "torch": "^"}
LINES = {"jax": "-", "tensorflow": "--", "torch": ":"}
THEMES = {"": ("#ffffff", "#222222", "#999999"), "-dark": ("#15181c", "#e6e6e6", "#777777")}
_MOST_NAMES, _NAMES_SIZE = 40, 5.5  # classes whose names fit on the axes of a matrix; points
_WIDTH = 4.8  # inches: legible on a page of 390 pixels
_LONG = 32  # letters of a label of which two do not fit beside each other


def draw_all(results: dict, folder: Path) -> list[str]:
    """Draws every figure that the results have something for, as SVG.

    Args:
        results: dict of `keras_dogs.comparison.results.collect`.
        folder: Path. The figures go there, `<name>.svg` and `<name>-dark.svg`.

    Returns:
        Names of those that were drawn.
    """
    import matplotlib

    folder.mkdir(exist_ok=True)
    drawn = []
    for name, draw in _FIGURES.items():
        for suffix, (paper, ink, grid) in THEMES.items():
            with matplotlib.rc_context(style(paper, ink, grid)):
                figure = draw(results)
                if figure is None:
                    break
                figure.savefig(folder / f"{name}{suffix}.svg", metadata={"Date": None})
        else:
            drawn.append(name)
    return drawn


def style(paper: str, ink: str, grid: str) -> dict:
    """Returns Matplotlib's settings for a theme: the colours of paper, ink and grid."""
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inks, ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper),
        "grid.color": grid,
        "grid.alpha": 0.35,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 11,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "legend.frameon": False,
        "legend.fontsize": 9,
        "svg.hashsalt": "keras_dogs",
    }


def _draw_accuracy(results: dict):
    """Draws each model and backend: seeds as points, the mean with its interval over pictures."""
    groups = results["groups"]
    if not groups:
        return None
    figure, axis = _subplots(height=0.9 + 0.42 * len(groups))
    colours = _colours(results)
    for place, row in enumerate(groups):
        low, high = row["top1_interval"]
        colour = colours[row["model"]]
        axis.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2)
        axis.plot(100 * row["top1"]["mean"], place, marker=MARKERS[row["backend"]], color=colour, markersize=8)
        tops = [
            run["test"]["top1_accuracy"]
            for run in _finished(results)
            if (run["model"], run["backend"]) == (row["model"], row["backend"])
        ]
        axis.plot(100 * np.array(tops), [place + 0.22] * len(tops), "|", color=colour, markersize=7)
    labels = [_in_two_lines(f"{row['model']}, {PROSE[row['backend']]}") for row in groups]
    axis.set_yticks(range(len(groups)), labels, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("test top-1, % (bars: seeds)")
    return figure


def _draw_curves(results: dict):
    """Draws the training loss of every run, one panel for each model, and below it how far the backends are apart."""
    models = [row["model"] for row in results["models"]]
    runs = [run for run in _finished(results) if results["curves"].get(run["name"])]
    if not runs:
        return None
    runs_of = {model: [run for run in runs if run["model"] == model] for model in models}
    # One backend has no gap.
    heights_of = {
        model: [3, 1.3] if len({run["backend"] for run in of_model}) > 1 else [3] for model, of_model in runs_of.items()
    }
    heights = [height for heights in heights_of.values() for height in heights]
    options = dict(height_ratios=heights, sharex=False, squeeze=False)
    figure, axes = _subplots(len(heights), height=0.84 * sum(heights), **options)
    colours, panels = _colours(results), iter(axes[:, 0])
    for model, of_model in runs_of.items():
        above, *below = itertools.islice(panels, len(heights_of[model]))
        for run in of_model:
            raw = results["curves"][run["name"]]
            losses = _smooth(raw)
            style = dict(color=colours[model], linestyle=LINES[run["backend"]], linewidth=1.4)
            first = 1 + (len(raw) - len(losses)) // 2  # each mean is drawn in the middle of its steps
            above.plot(np.arange(first, first + len(losses)), losses, label=PROSE[run["backend"]], **style)
        above.set_title(_in_two_lines(model), fontsize=11)
        above.set_ylabel("training loss, nats")
        _legend(above)
        for axis in below:
            _draw_gaps(axis, of_model, results["curves"], colours[model])
        num_steps = max((len(results["curves"][run["name"]]) for run in of_model), default=1)
        for axis in (above, *below):
            axis.set_xlim(0, num_steps * 1.02)
    axes[-1, 0].set_xlabel("step (losses: running mean)")
    return figure


def _draw_gaps(axis, runs: list[dict], curves: dict, colour: str) -> None:
    """Draws the gap of loss between the first backend and each other, step by step, the largest over seeds."""
    if not runs:
        return
    first, *others = dict.fromkeys(run["backend"] for run in runs)
    for other in others:
        pairs = [
            (curves[one["name"]], curves[two["name"]])
            for one in runs
            for two in runs
            if (one["backend"], two["backend"], one["seed"]) == (first, other, two["seed"])
        ]
        steps = min((min(map(len, pair)) for pair in pairs), default=0)
        if steps:
            gaps = np.max([np.abs(np.subtract(one[:steps], two[:steps])) for one, two in pairs], axis=0)
            label = f"{PROSE[first]} and {PROSE[other]}"
            shown = np.where(gaps > 0, gaps, np.nan)
            axis.plot(np.arange(1, steps + 1), shown, color=colour, linestyle=LINES[other], linewidth=1, label=label)
    scale_by_powers(axis)
    axis.set_ylabel("gap, nats")
    axis.tick_params(axis="y", labelsize=8)
    if others:
        _legend(axis, fontsize=7)


def _smooth(losses, share: float = 0.05):
    width = max(1, int(len(losses) * share))
    return np.convolve(losses, np.ones(width) / width, mode="valid")


def _draw_cost(results: dict):
    """Draws accuracy against cost: seconds, speed, parameters, operations."""
    if not results["groups"]:
        return None
    models = {row["model"]: row for row in results["models"]}
    costs = (
        ("training, s", lambda row: row["train_s"]["mean"]),
        ("training, images/s", lambda row: (row["train_images_per_second"] or {}).get("mean")),
        ("million parameters", lambda row: models[row["model"]]["num_parameters"] / 1e6),
        ("GFLOP a picture", lambda row: models[row["model"]]["gflops"]),
    )
    costs = [cost for cost in costs if all(cost[1](row) is not None for row in results["groups"])]
    num_rows = -(-len(costs) // 2)
    figure, axes = _subplots(num_rows, columns=2, height=0.8 + 1.9 * num_rows, sharey=True, squeeze=False)
    colours = _colours(results)
    for axis, (label, cost) in zip(axes.flat, costs):
        for row in results["groups"]:
            name = f"{row['model']}, {PROSE[row['backend']]}"
            style = dict(color=colours[row["model"]], marker=MARKERS[row["backend"]], linestyle="", markersize=7)
            axis.plot(cost(row), 100 * row["top1"]["mean"], label=name, **style)
        axis.set_xlabel(label)
        axis.set_xlim(0, 1.12 * max(cost(row) for row in results["groups"]))
        axis.margins(y=0.15)
    _remove_all_after(axes, len(costs))
    for axis in axes[:, 0]:
        axis.set_ylabel("top-1, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=_columns_for(labels), fontsize=8)
    return figure


def _draw_time(results: dict):
    """Draws validation accuracy against the seconds since the command began."""
    runs = [run for run in _finished(results) if run["accuracy_over_time"]]
    if not runs:
        return None
    figure, axis = _subplots()
    colours = _colours(results)
    for run in runs:
        style = dict(color=colours[run["model"]], linestyle=LINES[run["backend"]], marker=MARKERS[run["backend"]])
        label = f"{run['model']}, {PROSE[run['backend']]}"
        ends, accuracies = zip(*run["accuracy_over_time"])
        axis.plot(ends, 100 * np.array(accuracies), label=label, markersize=4, linewidth=1.2, **style)
    axis.set(xlabel="seconds from the command", ylabel="validation top-1, %")
    axis.set_xlim(left=0)
    labels = dict.fromkeys(axis.get_legend_handles_labels()[1])
    columns = _columns_for(list(labels))
    figure.set_figheight(2.6 + 0.2 * len(labels) / columns)
    _legend(axis, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, fontsize=8)
    return figure


def _draw_classes(results: dict):
    """Draws the classes on which the two models differ most."""
    rows = results["classes"]
    if not rows:
        return None
    lost, won = (
        [row for row in rows if row["difference"] < 0][:10],
        [row for row in rows if row["difference"] > 0][-10:],
    )
    shown = lost + won
    if not shown:
        return None
    first, second = (row["model"] for row in results["models"][:2])
    colours = _colours(results)
    figure, axis = _subplots(height=1.1 + 0.26 * len(shown))
    places = range(len(shown))
    bars = [100 * row["difference"] for row in shown]
    axis.barh(places, bars, color=[colours[first] if bar > 0 else colours[second] for bar in bars])
    axis.set_yticks(places, [display_name(row["class"]) for row in shown], fontsize=9)
    axis.axvline(0, color="#888888", linewidth=1)
    axis.set_xlabel("points of top-1")
    labels = [f"{model} better" for model in (second, first)]
    bars = [axis.barh(0, 0, color=colours[model]) for model in (second, first)]
    figure.legend(bars, labels, loc="outside upper center", ncols=_columns_for(labels), fontsize=8)
    return figure


def _draw_speed(results: dict):
    """Draws what each backend costs: speed, start, memory."""
    groups = results["groups"]
    if not groups:
        return None
    kinds = (
        ("train_images_per_second", "train, images/s"),
        ("predict_images_per_second", "predict, images/s"),
        ("first_step_s", "first step, s"),
        ("peak_memory_gib", "peak memory, GiB"),
    )
    kinds = [(key, label) for key, label in kinds if all(row[key] for row in groups)]
    figure, axes = _subplots(rows=2, columns=2, height=2.2 + 0.5 * len(groups), sharey=True)
    colours = _colours(results)
    names = [f"{row['model']}\n{PROSE[row['backend']]}" for row in groups]
    for axis, (key, label) in zip(axes.flat, kinds):
        means = [row[key]["mean"] for row in groups]
        gaps = [
            [row[key]["mean"] - row[key]["min"] for row in groups],
            [row[key]["max"] - row[key]["mean"] for row in groups],
        ]
        axis.barh(
            range(len(groups)), means, xerr=gaps, color=[colours[row["model"]] for row in groups], ecolor="#888888"
        )
        axis.set_yticks(range(len(groups)), names, fontsize=8)
        axis.set_xlabel(label)
    _remove_all_after(axes, len(kinds))
    axes[0, 0].invert_yaxis()
    return figure


def _draw_calibration(results: dict):
    """Draws accuracy against confidence over all runs of a model."""
    if not results["models"]:
        return None
    figure, axis = _subplots(height=3.6)
    axis.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="perfect")
    colours = _colours(results)
    for row, marker in zip(results["models"], itertools.cycle("osD^v*")):
        bins = row["reliability"]
        label = f"{row['model']} (error {100 * row['calibration_error']['mean']:.1f} %)"
        style = dict(color=colours[row["model"]], marker=marker, markersize=5)
        axis.plot([each["confidence"] for each in bins], [each["accuracy"] for each in bins], label=label, **style)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    _legend(axis, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


def _draw_confusion(results: dict):
    """Draws one confusion matrix for each model, as shares of a class; few classes have their names on the axes."""
    from matplotlib import colors

    models = results["models"][:2]
    if not models:
        return None
    names = [display_name(name) for name in results.get("class_names", ())]
    has_names = 0 < len(names) <= _MOST_NAMES
    figure, axes = _subplots(columns=len(models), height=4.0 if has_names else 3.0, sharey=True)
    for axis, row in zip(np.atleast_1d(axes), models):
        counts = np.array(row["confusion"], float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        picture = axis.imshow(np.where(shares > 0, shares, np.nan), norm=colors.LogNorm(0.01, 1), cmap="cividis")
        axis.set_title(row["model"], fontsize=10)
        axis.set_xlabel("taken for" if has_names else "taken for (class number)", fontsize=9)
        axis.grid(False)
        if has_names:
            axis.set_xticks(range(len(names)), names, rotation=90, fontsize=_NAMES_SIZE)
            axis.set_yticks(range(len(names)), names, fontsize=_NAMES_SIZE)
    np.atleast_1d(axes)[0].set_ylabel("is a" if has_names else "class number")
    figure.colorbar(picture, ax=axes, label="share of the class", location="bottom", aspect=40)
    return figure


_FIGURES = {
    "accuracy": _draw_accuracy,
    "curves": _draw_curves,
    "cost": _draw_cost,
    "time_to_accuracy": _draw_time,
    "classes": _draw_classes,
    "speed": _draw_speed,
    "calibration": _draw_calibration,
    "confusion": _draw_confusion,
}
NAMES = tuple(_FIGURES)


def _finished(results: dict) -> list[dict]:
    return [run for run in results["runs"] if "error" not in run]


def _colours(results: dict) -> dict[str, str]:
    return {row["model"]: COLOURS[number % len(COLOURS)] for number, row in enumerate(results["models"])}


def _legend(axis, **where) -> None:
    """Adds a legend that has each label once."""
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    axis.legend(once.values(), once.keys(), **where)


def _in_two_lines(name: str) -> str:
    """Puts what tells models of one preset apart below the preset."""
    return name.replace(", ", "\n", 1)


def scale_by_powers(axis) -> None:
    """Gives the vertical axis a logarithmic scale, with labels that need no mathtext: these pages have none."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    axis.yaxis.set_minor_formatter(lambda value, _: "")


def _columns_for(labels: list[str]) -> int:
    """Returns how many columns of a legend fit into the width of a figure."""
    return 1 if max(map(len, labels)) >= _LONG else 2


def _remove_all_after(axes, count: int) -> None:
    """Removes the axes of a grid that nothing is drawn in."""
    for axis in axes.flat[count:]:
        axis.remove()


def _subplots(rows: int = 1, columns: int = 1, height: float = 3.0, **options):
    """Returns a figure and its axes, without pyplot's state of a whole process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)
