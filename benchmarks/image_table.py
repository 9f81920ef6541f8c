"""What a table of pictures on the device costs: `python benchmarks/image_table.py`.

Memory of the process's own (the table's file is mapped, and not counted) while it is made, afterwards, and in training;
and the time of a step with a small and with a large table, in one process, in turn. On a CPU the device is the same
memory, and JAX takes the mapped file itself.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import runs

BATCH, SIZE, NUM_STEPS = 16, 256, 12


def main():
    """Measures a row for each backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=list(runs.PROSE))
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps(measure(flags.pictures)))
        return
    given = ("--child", "--pictures", flags.pictures)
    rows = [{"backend": backend, **runs.measure(backend, __file__, *given)} for backend in flags.backends]
    runs.write("image_table", rows, line=in_words)


def measure(num_pictures: int) -> dict:
    """Does the child's part."""
    from keras_dogs import backends

    backends.select()
    import numpy as np

    import keras_dogs
    from keras_dogs.models import submodels

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures"
        shape = (num_pictures, SIZE, SIZE, 3)
        np.memmap(file, np.uint8, "w+", shape=shape)[:] = 127
        steps, found = {}, {}
        for name, count in (("small", 100), ("large", num_pictures)):
            classifier = keras_dogs.build_classifier("resnet_nano", 24, augmentation="light", seed=0)
            before = _private_bytes()
            with _Peak() as peak:
                model = submodels.from_table(classifier, np.memmap(file, np.uint8, "r", shape=shape)[:count])
            found[name] = (peak.bytes - before, _private_bytes() - before, count * SIZE * SIZE * 3)
            steps[name] = _step(model, count)
            steps[name]()
        after = _private_bytes()
        seconds = {name: [] for name in steps}
        with _Peak() as peak:
            for _ in range(NUM_STEPS):
                for name, step in steps.items():
                    seconds[name].append(step())
        size = found["large"][2]
    return {
        "table_gb": size / 1e9,
        "peak_while_made": found["large"][0] / size,
        "resident_afterwards": found["large"][1] / size,
        "more_while_training": (peak.bytes - after) / size,
        "step_ms_small": 1000 * statistics.median(seconds["small"]),
        "step_ms_large": 1000 * statistics.median(seconds["large"]),
        "versions": backends.versions(),
    }


def _step(model, count: int):
    import keras
    import numpy as np

    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    generator = np.random.default_rng(0)

    def step() -> float:
        places = generator.integers(0, count, BATCH).astype("int32")
        began = time.perf_counter()
        model.train_on_batch(places, np.zeros(BATCH, "int32"))
        return time.perf_counter() - began

    return step


def _private_bytes() -> int:
    """Returns the bytes that the process has of its own: mapped files are left out."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


class _Peak:
    """The most of that, looked at often."""

    def __enter__(self):
        self.bytes, self._ended = _private_bytes(), False
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self):
        while not self._ended:
            self.bytes = max(self.bytes, _private_bytes())
            time.sleep(0.01)

    def __exit__(self, *error):
        self._ended = True
        self._thread.join()


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return (
        f"{row['table_gb']:.2f} GB: {row['peak_while_made']:.2f} of it at the peak, {row['resident_afterwards']:.2f} "
        f"then; steps {row['step_ms_small']:.0f} ms with 100 pictures, {row['step_ms_large']:.0f} with all"
    )


if __name__ == "__main__":
    sys.exit(main())
