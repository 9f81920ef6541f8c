"""Figures of an evaluation, as PNG: legible in print, told apart by everybody."""

from pathlib import Path

import numpy as np

from keras_dogs.evaluation import scoring

_MOST_NAMES = 40  # classes whose names fit on the axes of a matrix
BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#777777"  # Okabe and Ito's


def draw_reliability(before, after, labels, temperature: float, file: Path) -> None:
    """Draws accuracy against confidence, as trained and with the temperature, above a histogram.

    Args:
        before: float array `(num_pictures, num_classes)`. Logits.
        after: the same, divided by the temperature, or `None`.
        labels: int array `(num_pictures,)`.
        temperature: float.
        file: Path.
    """
    figure = new_figure(4.6, 5.4)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="perfect")
    kinds = [("as trained", before, BLUE, "o"), (f"temperature {temperature:.2f}", after, ORANGE, "s")]
    for number, (label, logits, colour, marker) in enumerate(kinds):
        if logits is None:
            continue
        bins = scoring.reliability(logits, labels)
        error = scoring.expected_calibration_error(logits, labels)
        style = dict(color=colour, marker=marker, linewidth=1.5, markersize=5)
        label = f"{label} (error {100 * error:.1f} %)"
        above.plot([each.confidence for each in bins], [each.accuracy for each in bins], label=label, **style)
        places = [each.low + 1 / 60 + number / 30 for each in bins]
        below.bar(places, [each.share for each in bins], width=1 / 30, color=colour)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    below.set(xlabel="confidence", ylabel="share of pictures")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    save(figure, file)


def draw_confusion(logits, labels, names: list[str], file: Path) -> None:
    """Draws the confusion matrix as shares of each class, on a scale that shows one picture in a hundred.

    Args:
        logits: float array `(num_pictures, num_classes)`.
        labels: int array `(num_pictures,)`.
        names: list of str. Of the classes; up to 40 stand on the axes.
        file: Path.
    """
    from matplotlib import colors

    counts = scoring.confusion_matrix(logits, labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    has_names = len(names) <= _MOST_NAMES
    figure = new_figure(7.2, 6.2) if has_names else new_figure(5.4, 4.8)
    axis = figure.subplots()
    picture = axis.imshow(np.where(shares > 0, shares, np.nan), norm=colors.LogNorm(0.01, 1), cmap="viridis_r")
    axis.set(xlabel="taken for (class number)", ylabel="class number")
    if has_names:
        axis.set(xlabel="taken for", ylabel="is a")
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
        axis.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    figure.colorbar(picture, label="share of the class")
    save(figure, file)


def draw_per_class(accuracies, file: Path) -> None:
    """Draws how many classes have which accuracy."""
    figure = new_figure(4.6, 2.6)
    axis = figure.subplots()
    axis.hist(accuracies, bins=np.linspace(0, 1, 21), color=BLUE, edgecolor="white")
    axis.axvline(np.mean(accuracies), color=ORANGE, linewidth=2, label=f"mean {np.mean(accuracies):.1%}")
    axis.set(xlabel="top-1 accuracy of a class", ylabel="classes", xlim=(0, 1))
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3, axis="y")
    save(figure, file)


def draw_risk(curve, file: Path) -> None:
    """Draws the share of wrong answers against the share of pictures that are answered.

    Args:
        curve: pair of float arrays: share answered, share wrong among those.
        file: Path.
    """
    share, risk = curve
    figure = new_figure(4.6, 3.0)
    axis = figure.subplots()
    axis.plot(share, risk, color=BLUE, linewidth=2)
    axis.set(xlabel="share of pictures answered, surest first", ylabel="share of them wrong", xlim=(0, 1))
    axis.set_ylim(0, max(1.1 * float(np.max(risk)), 0.01))
    axis.grid(alpha=0.3)
    save(figure, file)


def draw_set_sizes(sizes, file: Path) -> None:
    """Draws how many pictures have a set of each size; sets of ten breeds and more are one bar."""
    most = 10
    figure = new_figure(4.6, 2.6)
    axis = figure.subplots()
    counts = np.bincount(np.minimum(sizes, most), minlength=most + 1)[1:]
    places = np.arange(1, most + 1)
    axis.bar(places, counts / len(sizes), color=BLUE)
    axis.set_xticks(places, [*map(str, places[:-1]), f"{most}+"])
    axis.set(xlabel="breeds in the 90 % set", ylabel="share of pictures")
    axis.grid(alpha=0.3, axis="y")
    save(figure, file)


def draw_explanation(canvas, heat, title: str, file: Path) -> None:
    """Draws a picture, and beside it the same one with the heat over it.

    Args:
        canvas: uint8 array `(rows, columns, 3)`.
        heat: float array `(rows, columns)`, at least 0.
        title: str.
        file: Path.
    """
    figure = new_figure(5.4, 3.0)
    plain, heated = figure.subplots(1, 2)
    extent = (0, canvas.shape[1], canvas.shape[0], 0)
    plain.imshow(canvas, extent=extent)
    heated.imshow(canvas.mean(axis=2), cmap="gray", extent=extent)
    heated.imshow(heat, cmap="inferno", alpha=0.6, interpolation="bilinear", extent=extent, vmin=0)
    for axis in (plain, heated):
        axis.set_axis_off()
    figure.suptitle(title, fontsize=11, parse_math=False)
    save(figure, file)


def new_figure(width: float, height: float):
    """Returns an empty figure, in inches: an object of its own, without pyplot's state of a whole process."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure, file: Path) -> None:
    """Writes a figure as PNG."""
    figure.savefig(file, dpi=130, facecolor="white")
