"""Figures of a check."""

from pathlib import Path

import numpy as np

from keras_dogs.checking.pool import Pool
from keras_dogs.evaluation.figures import BLUE
from keras_dogs.evaluation.figures import GREY
from keras_dogs.evaluation.figures import ORANGE
from keras_dogs.evaluation.figures import new_figure
from keras_dogs.evaluation.figures import save

_COLOURS = {"train": BLUE, "validation": GREY, "test": ORANGE}


def draw_classes(pool: Pool, file: Path) -> None:
    """Draws how many pictures each class has in each split, from the largest class to the smallest."""
    count = len(pool.class_names)
    splits = np.array(pool.splits)
    counts = {
        name: np.bincount(pool.labels[splits == name], minlength=count) for name in _COLOURS if name in pool.splits
    }
    order = np.argsort(-sum(counts.values()), kind="stable")
    figure = new_figure(6.4, 2.6)
    axis = figure.subplots()
    below = np.zeros(count)
    for name, values in counts.items():
        axis.bar(np.arange(count), values[order], bottom=below, width=0.9, color=_COLOURS[name], label=name)
        below += values[order]
    axis.set(xlabel="classes, the largest first", ylabel="pictures", xlim=(-0.6, count - 0.4), xticks=[])
    axis.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    axis.grid(alpha=0.3, axis="y")
    save(figure, file)


def draw_sizes(pool: Pool, file: Path) -> None:
    """Draws the width and height of each picture."""
    looks = [look for look in pool.looks if look]
    figure = new_figure(4.6, 4.0)
    axis = figure.subplots()
    sizes = np.array([(look.width, look.height) for look in looks])
    axis.scatter(*sizes.T, s=6, alpha=0.3, color=BLUE, linewidths=0)
    axis.set(xlabel="width, pixels", ylabel="height, pixels", xscale="log", yscale="log")
    axis.grid(alpha=0.3)
    save(figure, file)
