"""A linear probe on features computed once, beside computing them each epoch: `python benchmarks/cached_features.py`.

The same head, batches, rates and standardised features both ways, on drawn dogs; only when they are computed differs.
Both begin with decoded pictures and end with the best head by validation; a process each, in turn.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import runs

PRESETS = ("vit_nano", "resnet_nano")


def main():
    """Measures a row for each backend and preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "PRESET"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps(train(*flags.child)))
        return
    rows = [compare(backend, preset) for backend in flags.backends for preset in flags.presets]
    runs.write("cached_features", rows, line=in_words, key=("backend", "preset"))


def compare(backend: str, preset: str) -> dict:
    """Returns the row of a backend and preset."""
    row = {"backend": backend, "preset": preset}
    once, each = (runs.measure(backend, __file__, "--child", way, preset) for way in ("once", "each-epoch"))
    if error := once.get("error") or each.get("error"):
        return {**row, "error": error}
    return {**row, "once": once, "each_epoch": each, "ratio": each["seconds"] / once["seconds"]}


def train(way: str, preset: str) -> dict:
    """Does the child's part: seconds, and what the head scores on the test pictures."""
    from keras_dogs import backends

    backends.select()
    from keras_dogs.training import fine_tuning
    from keras_dogs.training import probe
    from keras_dogs.training.config import TrainConfig

    cached, found = probe.train_head_on_features, {}

    def timed(plan, classifier, pictures, views):
        began = time.perf_counter()
        fitted = cached(plan, classifier, pictures, views) if way == "once" else each_epoch(plan, classifier, pictures)
        found["seconds"] = time.perf_counter() - began
        return fitted

    probe.train_head_on_features = timed
    with tempfile.TemporaryDirectory() as folder:
        run = fine_tuning.fine_tune(TrainConfig(preset=preset, recipe="linear_probe", output=Path(folder) / "run"))
    return {
        **found,
        "epochs": run.record.config["epochs"],
        "test_top1_accuracy": run.record.test.top1_accuracy,
        "test_loss": run.record.test.loss,
        "versions": run.record.versions,
    }


def each_epoch(plan, classifier, pictures):
    """Trains epoch by epoch: the frozen backbone runs in every step."""
    import keras

    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.models import submodels
    from keras_dogs.models.classifier import Classifier
    from keras_dogs.training import loop
    from keras_dogs.training import probe

    extractor, head = submodels.feature_extractor(classifier), classifier.head
    extractor.trainable = False
    mean, scale = probe.standardisation(predict_in_batches(extractor, pictures.train.images, 32)[0])
    inputs = keras.Input(extractor.input.shape[1:], dtype="uint8")
    standardised = keras.layers.Rescaling(scale, -mean * scale)(extractor(inputs))
    fitted = loop.train_classifier(plan, Classifier(inputs, head(standardised)), pictures)
    kernel, bias = head.get_weights()
    head.set_weights([kernel * scale, bias - mean @ kernel * scale])
    return fitted


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    once, each = row["once"], row["each_epoch"]
    return (
        f"{row['ratio']:.1f} times faster ({once['seconds']:.1f} s, {each['seconds']:.1f} s), top-1 "
        f"{once['test_top1_accuracy']:.1%} and {each['test_top1_accuracy']:.1%}"
    )


if __name__ == "__main__":
    main()
