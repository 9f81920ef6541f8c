"""Images a second, ours beside each framework's own libraries, on this machine: `python benchmarks/throughput.py`.

Every measurement is a process of its own: build, first step (compilation), warm-up, then timed steps, the loss read
back each step. Engines take turns, round after round, so that a machine that drifts drifts for all; a ratio is of one
round.

`keras_dogs` trains as `train` does: `fit`, with `standard` augmentation in the graph, from uint8 canvases. The others
have no augmentation and pictures that are ready. `keras_hub` is the same backbone without anything of ours.
"""

import argparse
import json
import statistics
import sys
import time

import peers
import runs

MODELS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "resnet_18", "resnet_50")
# Engine, backend. What has no Keras in it runs on the backend that it is the peer of.
ENGINES = (
    ("keras_dogs", "jax"),
    ("keras_dogs", "tensorflow"),
    ("keras_dogs", "torch"),
    ("keras_hub", "jax"),
    ("keras_hub", "tensorflow"),
    ("keras_hub", "torch"),
    ("flax", "jax"),
    ("timm", "torch"),
    ("transformers", "torch"),
)
# The peers that a backend must hold its own against; TensorFlow has none but KerasHub.
PEERS = {"jax": ("flax",), "tensorflow": ("keras_hub",), "torch": ("timm", "transformers")}
_WARM_UP = 4  # steps; on PyTorch ours are traced at the third


def main():
    """Measures all that is asked for; rows of other models, engines and modes stay in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--engines", nargs="+", default=sorted({engine for engine, _ in ENGINES}))
    parser.add_argument("--modes", nargs="+", default=["train", "predict"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps(measure(*flags.child, flags)))
        return
    rows = []
    for model in flags.models:
        for mode in flags.modes:
            rows += compare(model, mode, flags)
    runs.write("throughput", rows, line=in_words, key=("model", "engine", "backend", "mode", "dtype"))


def compare(model: str, mode: str, flags) -> list[dict]:
    """A row an engine and backend."""
    plan = [pair for pair in ENGINES if pair[0] in flags.engines and pair[1] in flags.backends]
    found = {pair: [] for pair in plan}
    for _ in range(flags.rounds):
        for engine, backend in plan:
            told = ["--batch-size", flags.batch_size, "--dtype", flags.dtype, "--steps", flags.steps]
            found[engine, backend].append(runs.measure(backend, __file__, "--child", engine, model, mode, *told))
            print(model, mode, engine, backend, found[engine, backend][-1], file=sys.stderr, flush=True)
    return [summarise(model, mode, pair, found, flags) for pair in plan]


def summarise(model: str, mode: str, pair: tuple[str, str], found: dict, flags) -> dict:
    """The row of an engine on a backend, with its ratio to the best peer of that backend in each round."""
    engine, backend = pair
    row = {"engine": engine, "backend": backend, "model": model, "mode": mode, "dtype": flags.dtype}
    row["batch_size"] = flags.batch_size
    rounds = found[pair]
    if errors := [result["error"] for result in rounds if "error" in result]:
        return {**row, "error": errors[0]}
    speeds = [flags.batch_size / seconds for result in rounds for seconds in result["seconds"]]
    row |= {
        "compiled": rounds[0]["compiled"],
        "images_per_second": {"min": min(speeds), "median": statistics.median(speeds), "max": max(speeds)},
        "first_step_s": min(result["first_step_s"] for result in rounds),
        "peak_memory_gib": max(result["peak_memory_gib"] for result in rounds),
        "versions": rounds[0].get("versions", {}),
    }
    others = [(peer, backend) for peer in PEERS[backend] if (peer, backend) in found and peer != engine]
    ratios = [ratio for number in range(flags.rounds) if (ratio := _ratio(rounds[number], found, others, number))]
    return {**row, "ratio_to_best_peer": sorted(ratios)} if ratios else row


def _ratio(own: dict, found: dict, others: list, number: int) -> float | None:
    rounds = (found[other][number] for other in others)
    seconds = [statistics.median(result["seconds"]) for result in rounds if "seconds" in result]
    return min(seconds) / statistics.median(own["seconds"]) if seconds else None


def measure(engine: str, model: str, mode: str, flags) -> dict:
    """The child's part."""
    if engine in ("keras_dogs", "keras_hub"):
        from keras_dogs import backend

        if engine == "keras_dogs":
            backend.select()  # and what it does for a backend, which bare KerasHub has not
        build = {"keras_dogs": ours, "keras_hub": keras_hub}[engine]
        run, compiled = build(model, mode, flags.batch_size, flags.dtype)
        seconds = run(flags.steps + _WARM_UP)
        compiled = compiled()
        extra = {"peak_memory_gib": backend.peak_memory_gib(), "versions": backend.versions()}
    else:
        steps = dict(zip(("train", "predict"), getattr(peers, engine)(model, flags.batch_size, flags.dtype)))
        read = {"train": lambda: float(steps["train"]()), "predict": steps["predict"]}[mode]
        seconds, compiled = _times(read, flags.steps + _WARM_UP), "jit" if engine == "flax" else "eager"
        extra = {"peak_memory_gib": _peak_memory_gib(engine)}
    return {"first_step_s": max(seconds[:_WARM_UP]), "seconds": seconds[_WARM_UP:], "compiled": compiled, **extra}


def ours(model: str, mode: str, batch_size: int, dtype: str):
    """A function of a number of steps to the seconds of each, and one that says how they ran."""
    import numpy as np

    import keras_dogs
    from keras_dogs import tracing

    tracing.SECONDS_BEFORE = 0.0  # within the warm-up
    classifier = keras_dogs.build_classifier(
        model, peers.NUM_CLASSES, augmentation="standard", load_weights=False, dtype=dtype
    )
    size = classifier.get_layer("crop").canvas_size
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype="uint8")
    return _keras_steps(classifier, images, mode, build_first=True)


def keras_hub(model: str, mode: str, batch_size: int, dtype: str):
    """KerasHub's backbone, pooling and a dense head; nothing else of ours than the table of architectures."""
    import keras
    from keras_hub.models import ResNetBackbone
    from keras_hub.models import ViTBackbone

    from keras_dogs.presets import PRESETS

    row = PRESETS[model]
    shape = (row.image_size, row.image_size, 3)
    backbone = (ResNetBackbone if row.family == "resnet" else ViTBackbone)(
        image_shape=shape, dtype=dtype, **row.architecture
    )
    features = backbone.output
    features = features[:, 0] if row.family == "vit" else keras.layers.GlobalAveragePooling2D()(features)
    logits = keras.layers.Dense(peers.NUM_CLASSES, dtype="float32")(features)
    return _keras_steps(keras.Model(backbone.input, logits), peers.pictures(batch_size)[0], mode)


def _keras_steps(model, images, mode: str, build_first: bool = False):
    import keras

    from keras_dogs import backend

    _, labels = peers.pictures(len(images), 16)
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    backend.check_compilable(model)
    if build_first:
        model.optimizer.build(model.trainable_variables)  # as `train` does
    if mode == "predict":
        return (lambda steps: _times(lambda: model.predict_on_batch(images), steps)), lambda: in_what_way(model)

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            self.ends.append(time.perf_counter())

    class Batches(keras.utils.PyDataset):
        def __init__(self, count):
            super().__init__()
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            return images, labels

    def run(steps):
        clock = Clock()
        clock.ends = [time.perf_counter()]
        model.fit(Batches(steps), epochs=1, verbose=0, shuffle=False, callbacks=[clock])
        return [end - begin for begin, end in zip(clock.ends, clock.ends[1:])]

    return run, lambda: in_what_way(model)


def in_what_way(model) -> str:
    """How the steps of a Keras model ran."""
    from keras_dogs import backend
    from keras_dogs import tracing

    return tracing.describe(model) or backend.describe_execution(model)


def _times(step, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds


def _peak_memory_gib(engine: str) -> float:
    """Of the accelerator, where there is one, or of the process; peers know no Keras."""
    import resource

    if engine == "flax":
        import jax

        peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    else:
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**30


def in_words(row: dict) -> str:
    """What is printed of a row."""
    ratios = row.get("ratio_to_best_peer")
    ratio = f", {statistics.median(ratios):.2f} of the best peer" if ratios else ""
    return f"{row['engine']:<13}{row['mode']:<8}{row['images_per_second']['median']:7.1f} images/s{ratio}"


if __name__ == "__main__":
    main()
