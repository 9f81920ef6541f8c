"""What augmentation costs a compiled training step: `python benchmarks/augmentation.py`.

On each backend, in one process and in turn: steps without augmentation (pictures of 224, converted alone) and with each
policy on canvases of 256. The figure is the ratio of neighbouring steps; its spread is given. Beside it, the same for
Keras' own layers, and the memory that the step needs more, from processes of their own.
"""

import argparse
import json

import runs

MODELS = {  # batch and rounds for two CPU cores; an accelerator takes --batch-size
    "ViT-Ti/16": ("vit_tiny_patch16_224", 16, 9, ("standard", "strong", "keras")),
    "ViT-B/16": ("vit_base_patch16_224", 4, 7, ("standard",)),
}
MEMORY_BATCH = 64


def main():
    """Plans the measurements; each backend has a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--dtype-policy", default="float32")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(measure(**json.loads(flags.child))))
        return
    rows = []
    for model in flags.models:
        preset, batch_size, rounds, policies = MODELS[model]
        task = dict(preset=preset, dtype_policy=flags.dtype_policy, batch_size=flags.batch_size or batch_size)
        for backend in flags.backends:
            times = child(backend, task | dict(rounds=flags.rounds or rounds, policies=[None, *policies]))
            rows += [{"backend": backend, "model": model, **task, **row} for row in times]
        if model == "ViT-Ti/16":
            task["batch_size"] = MEMORY_BATCH
            for backend in flags.backends:
                rows.append({"backend": backend, "model": model, **task, **extra_memory(backend, task)})
    runs.write("augmentation", rows, line=in_words)


def child(backend: str, task: dict) -> list[dict]:
    """Measures in a process of its own; a failure is a row."""
    rows = runs.measure(backend, __file__, "--child", json.dumps(task))
    return rows if isinstance(rows, list) else [rows]


def extra_memory(backend: str, task: dict) -> dict:
    """Returns how many canvas batches (float32) more `standard` takes at its peak than no augmentation."""
    peaks = []
    for policy in (None, "standard"):
        (row,) = child(backend, task | dict(rounds=1, policies=[policy]))
        if "error" in row:
            return row
        peaks.append(row["peak_memory_gib"])
    canvases = task["batch_size"] * 256 * 256 * 3 * 4 / 2**30
    return {"policy": "standard", "extra_memory_gib": peaks[1] - peaks[0], "canvas_batch_gib": canvases}


def measure(preset: str, dtype_policy: str, batch_size: int, rounds: int, policies: list) -> list[dict]:
    """Does the child's part: one compiled classifier a policy, steps in turn; a row each, the ratio is to the first."""
    from keras_dogs import backends

    backends.select()
    import numpy as np

    steps = {policy: Steps(preset, policy, dtype_policy, batch_size) for policy in policies}
    for step in steps.values():
        step.take(2)  # compile, and settle
    seconds = {policy: [] for policy in steps}
    for _ in range(rounds):
        for policy, step in steps.items():
            seconds[policy].append(min(step.take(2)))
    rows = []
    for policy in policies[1:] or policies:
        ratios = np.divide(seconds[policy], seconds[policies[0]])
        rows.append(
            {
                "policy": policy,
                "execution": backends.describe_execution(steps[policy].classifier),
                "step_ms": runs.spread([1000 * each for each in seconds[policy]]),
                "step_without_ms": runs.spread([1000 * each for each in seconds[policies[0]]]),
                "ratio": runs.spread(ratios.tolist()),
                "peak_memory_gib": backends.peak_memory_gib(),
                "versions": backends.versions(),
            }
        )
    return rows


class Steps:
    """A classifier with a batch to train on."""

    def __init__(self, preset: str, policy: str | None, dtype_policy: str, batch_size: int):
        import keras
        import numpy as np

        import keras_dogs
        from keras_dogs import backends

        size = 224 if policy is None else 256
        self.images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype="uint8")
        self.labels = np.arange(batch_size) % 120
        self.classifier = keras_dogs.build_classifier(
            preset, 120, augmentation=policy or "none", load_weights=False, dtype=dtype_policy
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.classifier.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
        if policy != "keras":
            backends.check_compilable(self.classifier)

    def take(self, count: int) -> list[float]:
        """Seconds of each of `count` steps, the loss read back."""
        import time

        import keras

        seconds, began = [], []
        clock = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs=None: began.append(time.perf_counter()),
            on_train_batch_end=lambda batch, logs=None: seconds.append(
                float(logs["loss"]) * 0 + time.perf_counter() - began[-1]
            ),
        )
        self.classifier.fit(
            self.images, self.labels, batch_size=len(self.labels), epochs=count, verbose=0, callbacks=[clock]
        )
        return seconds


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    if "extra_memory_gib" in row:
        return f"{row['policy']:<9} {row['extra_memory_gib'] / row['canvas_batch_gib']:+.1f} canvas batches of memory"
    ratio = row["ratio"]
    return (
        f"{row['policy']:<9} {ratio['median'] - 1:+.1%} ({ratio['min'] - 1:+.1%} to {ratio['max'] - 1:+.1%}) on "
        f"{row['step_without_ms']['median']:.0f} ms, {row['execution']}"
    )


if __name__ == "__main__":
    main()
