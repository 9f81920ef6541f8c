"""What `standard` adds to a ViT-B/16 step, measured by itself: `python benchmarks/augmentation_alone.py`.

A step of ViT-B/16 takes seconds on a CPU and varies by more than augmentation costs: `augmentation.py` cannot see
it. Here the part of the model before the backbone runs alone, as training runs it, on canvases of 256 with the policy's
draws and on pictures of 224 without any; the difference is held against a whole step of the same process.
"""

import argparse
import json
import time

import runs

PRESET, BATCH_SIZE, ROUNDS = "vit_base_patch16_224", 4, 30


def main():
    """Measures a row for each backend, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(measure()))
        return
    rows = [
        {"backend": backend, "model": "ViT-B/16", "batch_size": BATCH_SIZE, "policy": "standard"}
        | runs.measure(backend, __file__, "--child")
        for backend in flags.backends
    ]
    runs.write("augmentation_alone", rows, line=in_words, key=("backend",))


def measure() -> dict:
    """Does the child's part."""
    from keras_dogs import backends

    backends.select()
    import keras
    import numpy as np

    import keras_dogs
    from keras_dogs.models.submodels import image_pipeline

    def pictures(size):
        shape = (BATCH_SIZE, size, size, 3)
        return keras.ops.convert_to_tensor(np.random.default_rng(0).integers(0, 256, shape, dtype="uint8"))

    seconds = {}
    for policy, size in (("none", 224), ("standard", 256)):
        classifier = keras_dogs.build_vit(PRESET, 120, augmentation=policy, load_weights=False)
        pipeline = image_pipeline(classifier)
        state = [
            [weight.value for weight in part]
            for part in (pipeline.trainable_variables, pipeline.non_trainable_variables)
        ]

        def step(images, pipeline=pipeline, state=state):
            return pipeline.stateless_call(*state, images, training=True)[0]

        # PyTorch trains eagerly; the other two compile.
        function = step if backends.name() == "torch" else backends.compiled(step)
        images = pictures(size)
        keras.ops.convert_to_numpy(function(images))
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            keras.ops.convert_to_numpy(function(images))
            times.append(time.perf_counter() - began)
        seconds[policy] = float(np.median(times))
    classifier.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    canvases, labels = np.asarray(keras.ops.convert_to_numpy(images)), np.arange(BATCH_SIZE)
    steps = []
    for _ in range(4):
        began = time.perf_counter()
        classifier.train_on_batch(canvases, labels)
        steps.append(time.perf_counter() - began)
    whole = float(np.median(steps[1:]))
    added = seconds["standard"] - seconds["none"]
    return {
        "pipeline_s": seconds,
        "step_s": whole,
        "share_added": added / (whole - added),
        "versions": backends.versions(),
    }


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"{row['share_added']:+.2%} of a step of {row['step_s']:.2f} s"


if __name__ == "__main__":
    main()
