"""Which share of a training is spent outside its steps: `python benchmarks/outside_step.py`.

A real run on drawn dogs; from the second epoch on, the time in the step's function (waiting for its result) against the
time of the epoch's training part: input, metrics, callbacks and progress are the rest. On TensorFlow the function takes
the batch out of its queue itself, so that a wait for input would count as inside.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import runs


def main():
    """Measures a row for each backend and preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=list(runs.PROSE))
    parser.add_argument("--presets", nargs="+", default=["resnet_nano", "vit_nano"])
    parser.add_argument("--cache", default="auto")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps(measure(*flags.child)))
        return
    rows = []
    for backend in flags.backends:
        for preset in flags.presets:
            found = runs.measure(backend, __file__, "--child", preset, flags.cache)
            rows.append({"backend": backend, "preset": preset, "cache": flags.cache, **found})
    runs.write("outside_step", rows, line=in_words)


def measure(preset: str, cache: str) -> dict:
    """Does the child's part."""
    from keras_dogs import backends

    backends.select()
    import keras

    from keras_dogs.data.config import DataConfig
    from keras_dogs.training.callbacks import StepLog
    from keras_dogs.training.config import TrainConfig
    from keras_dogs.training.fine_tuning import fine_tune

    inside, epochs = [0.0], []
    make = keras.Model.make_train_function

    def timed(self, force=False):
        make(self, force)
        function = self.train_function
        if getattr(function, "is_timed", False):
            return

        def step(*arguments):
            began = time.perf_counter()
            result = function(*arguments)
            logs = result[0] if isinstance(result, tuple) else result
            float(logs["loss"])  # wait for it
            inside[0] += time.perf_counter() - began
            return result

        step.is_timed = True
        self.train_function = step

    begin, end = StepLog.on_epoch_begin, StepLog.on_epoch_end

    def began(self, epoch, logs=None):
        begin(self, epoch, logs)
        inside[0], self.epoch_began = 0.0, time.perf_counter()

    def ended(self, epoch, logs=None):
        end(self, epoch, logs)
        epochs.append((time.perf_counter() - self.epoch_began, inside[0]))

    keras.Model.make_train_function, StepLog.on_epoch_begin, StepLog.on_epoch_end = timed, began, ended
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(preset=preset, data=DataConfig(cache=cache), output=Path(folder) / "run", epochs=4)
        record = fine_tune(config).record
    return {
        "share_outside": runs.spread([1 - inner / whole for whole, inner in epochs[1:]]),
        "step_time_ms": record.throughput.step_time_ms,
        "where": record.cache,
        "versions": record.versions,
    }


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"{100 * row['share_outside']['median']:.1f} % outside steps of {row['step_time_ms']:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
