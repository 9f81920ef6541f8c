"""What each swap gains: `python benchmarks/swaps.py`.

A training step and a prediction of a model with every swap, and of the same model without one of them, in turns in one
process: the ratio of their seconds. Above 1, the swap gains. A swap that the model has no layer for has no row.
"""

import argparse
import json
import statistics
import sys
import time

import runs

from keras_dogs.system import pages

# Turns of a pair; each side goes first in half of them. Short steps take more, as they spread more.
WARM_UP, LEAST, MOST, SECONDS = 4, 8, 60, 12.0


def main():
    """Measures a row for each swap, backend, model and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=list(runs.PROSE))
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224", "resnet_18"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps({"rows": measure(flags.child, flags.batch_size)}))
        return
    rows = []
    for backend in flags.backends:
        for model in flags.models:
            found = runs.measure(backend, __file__, "--child", model, "--batch-size", flags.batch_size)
            rows += [
                {"backend": backend, "model": model, "swap": "", "mode": "", **row}
                for row in found.get("rows", [found])
            ]
    runs.write("swaps", rows, line=in_words, key=("backend", "model", "swap", "mode"))


def measure(model: str, batch_size: int) -> list[dict]:
    """Does the child's part."""
    from keras_dogs import backends

    backends.select()
    from keras_dogs.backends import layers

    whole = _build(model)
    rows = []
    for name in layers.describe(whole):
        one_less = _build(model, name)
        for mode, step in (("train", _train), ("predict", _predict)):
            ratios = _in_turns(step(one_less, batch_size), step(whole, batch_size))
            rows.append({"swap": name, "mode": mode, "ratio": sorted(ratios)})
            print(in_words({"backend": backends.name(), "model": model, **rows[-1]}), file=sys.stderr, flush=True)
    return rows


def _build(model: str, *left_out: str):
    import keras

    import keras_dogs
    from keras_dogs.backends import register

    given = dict(augmentation="none", load_weights=False)
    if left_out:
        with register.bare(*left_out):
            classifier = keras_dogs.build_classifier(model, 120, **given)
    else:
        classifier = keras_dogs.build_classifier(model, 120, **given)
    if keras.backend.backend() == "torch":
        from keras_dogs.backends.on_torch import tracing

        tracing.SECONDS_BEFORE = 0.0  # within the warm-up
    classifier.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
    return classifier


def _pictures(classifier, batch_size: int):
    import numpy as np

    size = classifier.canvas_size
    return np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype="uint8")


def _train(classifier, batch_size: int):
    import numpy as np

    images, labels = _pictures(classifier, batch_size), np.arange(batch_size) % 120
    return lambda: float(np.ravel(classifier.train_on_batch(images, labels))[0])


def _predict(classifier, batch_size: int):
    images = _pictures(classifier, 4 * batch_size)
    return lambda: classifier.predict_on_batch(images)


def _in_turns(first, second) -> list[float]:
    """Seconds of the first by those of the second, turn by turn."""
    ratios, started = [], time.perf_counter()
    for turn in range(WARM_UP + MOST):
        if turn >= WARM_UP + LEAST and turn % 2 == 0 and time.perf_counter() - started > SECONDS:
            break
        seconds = []
        for step in (first, second) if turn % 2 else (second, first):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        one, other = seconds if turn % 2 else seconds[::-1]
        if turn >= WARM_UP:
            ratios.append(one / other)
    return ratios


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    if "error" in row:
        return row["error"]
    low, median, high = statistics.quantiles(row["ratio"], n=4)
    return f"{row['swap']:<26}{row['mode']:<9}{median:.2f} (quartiles {low:.2f} to {high:.2f})"


_TEXT = (
    "What each backend's replacement of a layer's method gains ([stock Keras](backends.md#stock-keras)): the seconds "
    "of a step of the model without it, divided by those of the model with all, in turns in one process: the median, "
    "with quartiles in brackets. Batches of 8 pictures, SGD, no augmentation. Above 1 it gains; a dash was not "
    "measured."
)


def section(results: list[dict]) -> str:
    """Returns the section of docs/results.md: a row for each swap, backend and model, a column for each machine."""
    machines = [f"{result['machine']['processor']}, {result['machine']['vectors']}" for result in results]
    cells = {}
    for machine, result in zip(machines, results):
        for row in result["rows"]:
            if "error" not in row:
                key = row["backend"], row["model"], row["swap"]
                cells.setdefault(key, {})[machine, row["mode"]] = _cell(row["ratio"])
    modes = [(machine, mode) for machine in machines for mode in ("train", "predict")]
    lines = [
        [runs.PROSE[backend], model, pages.code(swap), *(found.get(each, "–") for each in modes)]
        for (backend, model, swap), found in sorted(cells.items())
    ]
    header = ["backend", "model", "swap", *(f"{machine}: {mode}" for machine, mode in modes)]
    return f"\n## What each swap gains\n\n{_TEXT}\n\n{pages.table(header, lines)}\n"


def _cell(ratios: list[float]) -> str:
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
