"""Images a second, ours beside each framework's own libraries, on this machine: `python benchmarks/throughput.py`.

Each engine is a process of its own: build, first step (compilation), warm-up, then timed steps, the loss read back each
step. The engines of a model live side by side and take turns step by step, the others waiting meanwhile, so that a
machine that drifts drifts for all; a ratio is of one turn.

`keras_dogs` trains as `train` does: `fit`, with `standard` augmentation in the graph, from uint8 canvases. The others
have no augmentation and pictures that are ready. `keras_hub` is the same backbone without anything of ours.
"""

import argparse
import statistics
import sys
import time

import peers
import runs
import utilisation

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
_WARM_UP = 4  # turns; on PyTorch our steps are traced at the third


def main():
    """Measures all that is asked for; rows of other models, engines and modes stay in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--engines", nargs="+", default=sorted({engine for engine, _ in ENGINES}))
    parser.add_argument("--modes", nargs="+", default=["train", "predict"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        runs.answer(measure(*flags.child, flags))
        return
    rows, products = [], utilisation.product_gflops(flags.backends)
    for model in flags.models:
        for mode in flags.modes:
            rows += compare(model, mode, flags)
    for row in rows:
        if "error" not in row:
            given = [row[key] for key in ("model", "engine", "mode")]
            row["utilisation"] = utilisation.share(*given, row["images_per_second"]["median"], products)
            row["product_gflops"] = products
    runs.write("throughput", rows, line=in_words, key=("model", "engine", "backend", "mode", "dtype"))


def compare(model: str, mode: str, flags) -> list[dict]:
    """Measures a row for each engine and backend."""
    plan = [pair for pair in ENGINES if pair[0] in flags.engines and pair[1] in flags.backends]
    given = ["--batch-size", flags.batch_size, "--dtype", flags.dtype]
    children, found = {}, {pair: [] for pair in plan}
    for turn in range(_WARM_UP + flags.turns):
        for pair in plan:
            if turn == 0:  # not all at once, so that each has the machine for its start
                engine, backend = pair
                children[pair] = runs.Child(backend, __file__, "--child", engine, model, mode, *given)
            found[pair].append(children[pair].ask())
            print(model, mode, *pair, turn, found[pair][-1], file=sys.stderr, flush=True)
    ends = {pair: child.end() for pair, child in children.items()}
    return [summarise(model, mode, pair, found, ends[pair], flags) for pair in plan]


def summarise(model: str, mode: str, pair: tuple[str, str], found: dict, end: dict, flags) -> dict:
    """Returns the row of an engine on a backend, with its ratio in each turn to the peer that is fastest over all."""
    engine, backend = pair
    row = {"engine": engine, "backend": backend, "model": model, "mode": mode, "dtype": flags.dtype}
    row["batch_size"] = flags.batch_size
    if errors := [answer["error"] for answer in [*found[pair], end] if "error" in answer]:
        return {**row, "error": errors[0]}
    seconds = _seconds(found[pair])
    speeds = [flags.batch_size / each for each in seconds]
    row |= {
        "compiled": end["compiled"],
        "images_per_second": runs.spread(speeds),
        # The slowest, as PyTorch is traced at the third.
        "first_step_s": max(answer["seconds"] for answer in found[pair][:_WARM_UP]),
        "peak_memory_gib": end["peak_memory_gib"],
        "versions": end.get("versions", {}),
    }
    peers = [(peer, backend) for peer in PEERS[backend] if (peer, backend) in found and peer != engine]
    peers = [times for peer in peers if (times := _seconds(found[peer]))]
    if not peers:
        return row
    fastest = min(peers, key=statistics.median)
    return {**row, "ratio_to_best_peer": sorted(peer / own for own, peer in zip(seconds, fastest))}


def _seconds(answers: list[dict]) -> list[float]:
    """Returns the seconds of the turns after the warm-up; none where one failed."""
    return [] if any("error" in answer for answer in answers) else [each["seconds"] for each in answers[_WARM_UP:]]


def measure(engine: str, model: str, mode: str, flags) -> dict:
    """Does the child's part: a step whenever it is asked for one, and what it says at the end."""
    if engine in ("keras_dogs", "keras_hub"):
        from keras_dogs import backends

        if engine == "keras_dogs":
            backends.select()  # and what it does for a backend, which bare KerasHub has not
        build = {"keras_dogs": ours, "keras_hub": keras_hub}[engine]
        run, compiled = build(model, mode, flags.batch_size, flags.dtype)
        run()
        return {"compiled": compiled(), "peak_memory_gib": backends.peak_memory_gib(), "versions": backends.versions()}
    steps = dict(zip(("train", "predict"), getattr(peers, engine)(model, flags.batch_size, flags.dtype)))
    take_turns({"train": lambda: float(steps["train"]()), "predict": steps["predict"]}[mode])
    return {"compiled": "jit" if engine == "flax" else "eager", "peak_memory_gib": _peak_memory_gib(engine)}


def take_turns(step) -> None:
    """Steps as the parent asks for them."""
    while runs.is_asked():
        began = time.perf_counter()
        step()
        runs.answer({"seconds": time.perf_counter() - began})


def ours(model: str, mode: str, batch_size: int, dtype: str):
    """Returns a function that takes turns until the parent ends them, and one that says how the steps ran."""
    import numpy as np

    import keras_dogs
    from keras_dogs.backends.on_torch import tracing

    tracing.SECONDS_BEFORE = 0.0  # within the warm-up
    classifier = keras_dogs.build_classifier(
        model, peers.NUM_CLASSES, augmentation="standard", load_weights=False, dtype=dtype
    )
    size = classifier.canvas_size
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype="uint8")
    return _keras_steps(classifier, images, mode, build_first=True)


def keras_hub(model: str, mode: str, batch_size: int, dtype: str):
    """Builds KerasHub's backbone, pooling and a dense head; of ours it has the table of architectures alone."""
    import keras
    from keras_hub.models import ResNetBackbone
    from keras_hub.models import ViTBackbone

    from keras_dogs.models.presets import PRESETS

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

    from keras_dogs import backends

    _, labels = peers.pictures(len(images), 16)
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    backends.check_compilable(model)
    if build_first:
        model.optimizer.build(model.trainable_variables)  # as `train` does
    if mode == "predict":
        return (lambda: take_turns(lambda: model.predict_on_batch(images))), lambda: in_what_way(model)

    class Turns(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            runs.is_asked()
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            runs.answer({"seconds": time.perf_counter() - self.began})
            self.model.stop_training = not runs.is_asked()
            self.began = time.perf_counter()

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 10**6  # until there are no more turns

        def __getitem__(self, index):
            return images, labels

    def run():
        model.fit(Batches(), epochs=1, verbose=0, shuffle=False, callbacks=[Turns()])

    return run, lambda: in_what_way(model)


def in_what_way(model) -> str:
    """Says how the steps of a Keras model ran."""
    from keras_dogs import backends

    return backends.describe_execution(model)


def _peak_memory_gib(engine: str) -> float:
    """Returns the peak of the accelerator, where there is one, or of the process; peers know no Keras."""
    import resource

    if engine == "flax":
        import jax

        peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    else:
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**30


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    ratios = row.get("ratio_to_best_peer")
    ratio = f", {statistics.median(ratios):.2f} of the best peer" if ratios else ""
    return f"{row['engine']:<13}{row['mode']:<8}{row['images_per_second']['median']:7.1f} images/s{ratio}"


if __name__ == "__main__":
    main()
