"""Images a second on a GPU, beside each framework's own libraries: `python benchmarks/on_gpu.py`.

Steps follow one another without a wait, as in a training, and the clock is read each ten, when the last loss is there.
A training of `keras_dogs` is `fit` on a table of pictures in the GPU, with `standard` augmentation; the others have no
augmentation and pictures that are ready. Predictions are read back batch by batch.

Processes get ready while others measure. Those of PyTorch compile side by side; XLA measures what is fastest while it
compiles, so that those of JAX are alone for it; whoever measures is alone. Utilisation is the arithmetic of the model
(a training step is three forward passes), without that of augmentation, over what a large matrix product reaches in the
same process.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import os
import statistics
import sys
import tempfile
import time

import peers
import runs
import utilisation

BATCH_SIZES = {"vit_base_patch16_224": 128, "resnet_50": 256}
# PyTorch's first: they compile side by side.
ENGINES = (
    ("keras_dogs", "torch"),
    ("timm_compiled", "torch"),
    ("timm", "torch"),
    ("keras_dogs", "jax"),
    ("flax", "jax"),
)
_WARM_UP, _BLOCKS, _BLOCK = 6, 6, 10  # steps, blocks, steps a block
_TABLE = 1024  # pictures
_PRODUCT = 8192


def main():
    """Measures a row for each model, engine and mode; a failure is a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(BATCH_SIZES))
    parser.add_argument("--backends", nargs="+", default=["torch", "jax"])
    parser.add_argument("--engines", nargs="+", default=sorted({engine for engine, _ in ENGINES}))
    parser.add_argument("--batch-size", type=int, help="of every model")
    parser.add_argument("--dtype", default="mixed_bfloat16", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=_BLOCKS)
    parser.add_argument("--profile", action="store_true", help="say which kernels a training step is made of")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps(measure(*flags.child, flags)))
        return
    # Of JAX' processes some hold memory at a time; each would take three quarters of all.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / max(flags.workers, 2):.2f}")
    chosen = [pair for pair in ENGINES if pair[0] in flags.engines and pair[1] in flags.backends]
    plan = [
        (*pair, model) for backend in flags.backends for model in flags.models for pair in chosen if pair[1] == backend
    ]
    found: dict = {}
    with tempfile.NamedTemporaryFile() as lock, concurrent.futures.ThreadPoolExecutor(flags.workers) as workers:

        def measured(of):
            engine, backend, model = of
            given = ["--dtype", flags.dtype, "--blocks", flags.blocks, *(["--profile"] if flags.profile else [])]
            size = str(flags.batch_size or BATCH_SIZES[model])
            return of, runs.measure(backend, __file__, *given, "--child", engine, model, size, lock.name)

        began = time.perf_counter()
        for done in concurrent.futures.as_completed([workers.submit(measured, of) for of in plan]):
            of, result = done.result()
            profile = result.pop("profile", "")
            print(f"{time.perf_counter() - began:.0f} s: {of} {result}\n{profile}", file=sys.stderr, flush=True)
            found[of] = result
            # The machine may be taken away any time.
            write([row for of in plan if of in found for row in rows_of(of, found, flags)])


def write(rows: list[dict]) -> None:
    """Writes the result file; rows of an earlier one that were not measured again stay."""
    device = next((row["device"] for row in rows if "device" in row), "none")
    runs.write("on_gpu", rows, line=in_words, key=("model", "engine", "backend", "mode", "dtype"), device=device)


def rows_of(of: tuple, found: dict, flags) -> list[dict]:
    """Returns a row for each mode, with the ratio to the fastest peer of all backends."""
    engine, backend, model = of
    row = {"engine": engine, "backend": backend, "model": model, "dtype": flags.dtype}
    row["batch_size"] = flags.batch_size or BATCH_SIZES[model]
    if "error" in found[of]:
        return [{**row, "mode": mode, "error": found[of]["error"]} for mode in ("train", "predict")]
    rows = []
    for mode in ("train", "predict"):
        result, own = found[of][mode], statistics.median(found[of][mode]["seconds"])
        speeds = [row["batch_size"] / seconds for seconds in result["seconds"]]
        speed, product = row["batch_size"] / own, found[of]["product_tflops"]
        others = [
            statistics.median(other[mode]["seconds"])
            for (peer, _, its), other in found.items()
            if its == model and peer != "keras_dogs" and mode in other
        ]
        rows.append(
            {
                **row,
                "mode": mode,
                "compiled": result["compiled"],
                "images_per_second": runs.spread(speeds),
                "ready_s": result["ready_s"],
                "peak_memory_gib": result["peak_memory_gib"],
                "utilisation": utilisation.share(model, engine, mode, speed, 1000 * product),
                "product_tflops": product,
                "device": found[of]["device"],
                "versions": found[of]["versions"],
                **({"ratio_to_best_peer": min(others) / own} if others and engine == "keras_dogs" else {}),
            }
        )
    return rows


def measure(engine: str, model: str, batch_size: str, lock: str, flags) -> dict:
    """Does the child's part."""
    from keras_dogs import backends

    if engine == "keras_dogs":
        framework, build = backends.select(), ours
    else:
        framework = "jax" if engine == "flax" else "torch"
        build = _peer(engine)
    device = {"jax": _Jax, "torch": _Torch}[framework]()
    waits_alone = framework == "jax"
    with turn(lock, waits_alone):
        steps = build(model, int(batch_size), flags.dtype)
    found = {}
    for mode in ("train", "predict"):
        with turn(lock, waits_alone):
            began = time.perf_counter()
            steps[mode](_WARM_UP, 1)
            ready_s = time.perf_counter() - began
        with turn(lock, True):
            device.forget_peak()
            seconds = steps[mode](flags.blocks * _BLOCK, _BLOCK)
            peak = device.peak_memory_gib()
            if flags.profile and mode == "train":
                found["profile"] = device.profile(lambda: steps["train"](3, 3))
        found[mode] = {"ready_s": ready_s, "seconds": seconds, "peak_memory_gib": peak, "compiled": steps["compiled"]()}
    with turn(lock, True):
        product = device.product_tflops()
    return {**found, "product_tflops": product, "device": device.name(), "versions": device.versions()}


@contextlib.contextmanager
def turn(lock: str, alone: bool):
    """Provides a block in which this process is alone, or with others that need not be."""
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def ours(model: str, batch_size: int, dtype: str) -> dict:
    """Returns, for each mode, a function of steps and steps a reading to the seconds of a step, a number a reading."""
    import keras
    import numpy as np
    import throughput

    import keras_dogs
    from keras_dogs.backends.on_torch import tracing
    from keras_dogs.data.loaders.batches import TrainingBatches
    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.models import submodels
    from keras_dogs.models.classifier import SmoothedCrossentropy
    from keras_dogs.models.classifier import StepLoss
    from keras_dogs.training.callbacks import LazyCallbacks

    tracing.SECONDS_BEFORE = 0.0  # within the warm-up
    classifier = keras_dogs.build_classifier(
        model, peers.NUM_CLASSES, augmentation="standard", load_weights=False, dtype=dtype
    )
    size, generator = classifier.get_layer("crop").canvas_size, np.random.default_rng(0)
    table = generator.integers(0, 256, (_TABLE, size, size, 3), dtype="uint8")
    model = submodels.from_table(classifier, table)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), SmoothedCrossentropy(), metrics=[StepLoss()])
    model.optimizer.build(model.trainable_variables)
    labels = generator.integers(0, peers.NUM_CLASSES, _TABLE).astype("int32")

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if (batch + 1) % self.every == 0:
                float(logs["step_loss"])
                self.ends.append(time.perf_counter())

    def train(steps, every):
        clock = Clock()
        clock.every = every
        batches = _repeated(TrainingBatches(np.arange(_TABLE, dtype="int32"), labels, batch_size, 0), steps)
        watching = LazyCallbacks([clock], add_history=True, model=model, verbose=0, epochs=1, steps=steps)
        clock.ends = [time.perf_counter()]
        model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=watching)
        return [(end - begin) / every for begin, end in zip(clock.ends, clock.ends[1:])]

    def predict(steps, every):
        clock = [time.perf_counter()]
        indices = np.arange(steps * batch_size, dtype="int32") % _TABLE
        predict_in_batches(model, indices, batch_size, lambda: clock.append(time.perf_counter()))
        return [(end - begin) / every for begin, end in zip(clock[::every], clock[every::every])]

    return {
        "train": train,
        "predict": predict,
        "compiled": lambda: throughput.in_what_way(model),
    }


def _repeated(batches, steps: int):
    """Returns so many batches of `TrainingBatches`, over and over, as one dataset."""
    import keras

    class Repeated(keras.utils.PyDataset):
        def __len__(self):
            return steps

        def __getitem__(self, index):
            return batches[index % len(batches)]

    return Repeated()


def _peer(engine: str):
    def build(model: str, batch_size: int, dtype: str) -> dict:
        train_step, predict = getattr(peers, engine)(model, batch_size, dtype)
        return {
            "train": lambda steps, every: _times(train_step, steps, every, float),
            "predict": lambda steps, every: _times(predict, steps, every),
            "compiled": lambda: {"flax": "jit", "timm_compiled": "torch.compile"}.get(engine, "eager"),
        }

    return build


def _times(step, count: int, every: int, read=lambda result: None) -> list[float]:
    seconds, began = [], time.perf_counter()
    for number in range(1, count + 1):
        result = step()
        if number % every == 0:
            read(result)
            now = time.perf_counter()
            seconds.append((now - began) / every)
            began = now
    return seconds


class _Torch:
    """What is asked of PyTorch's GPU."""

    def name(self):
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"

    def versions(self):
        import torch

        return {"torch": torch.__version__, **_keras()}

    def forget_peak(self):
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def peak_memory_gib(self):
        import torch

        return torch.cuda.max_memory_allocated() / 2**30

    def product_tflops(self):
        import torch

        on_gpu = torch.cuda.is_available()
        device, size = ("cuda", _PRODUCT) if on_gpu else ("cpu", _PRODUCT // 16)
        a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        return _product_tflops(lambda: a @ b, torch.cuda.synchronize if on_gpu else lambda: None, size)

    def profile(self, run):
        import torch

        activity, order = torch.profiler.ProfilerActivity.CUDA, "self_device_time_total"
        if not torch.cuda.is_available():
            activity, order = torch.profiler.ProfilerActivity.CPU, "self_cpu_time_total"
        with torch.profiler.profile(activities=[activity]) as profile:
            run()
        return profile.key_averages().table(sort_by=order, row_limit=45, max_name_column_width=90)


class _Jax:
    """What is asked of JAX' GPU; its peak is of the whole process."""

    def name(self):
        import jax

        return jax.local_devices()[0].device_kind

    def versions(self):
        import jax

        return {"jax": jax.__version__, **_keras()}

    def forget_peak(self):
        pass

    def peak_memory_gib(self):
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30

    def product_tflops(self):
        import jax

        keys = jax.random.split(jax.random.key(0))
        size = _PRODUCT if jax.default_backend() == "gpu" else _PRODUCT // 16
        a, b = (jax.random.normal(key, (size, size), jax.numpy.bfloat16) for key in keys)
        multiply = jax.jit(lambda a, b: a @ b)
        last = [multiply(a, b)]

        def next_one():
            last[0] = multiply(a, b)

        return _product_tflops(next_one, lambda: last[0].block_until_ready(), size)

    def profile(self, run):
        import collections
        import glob

        import jax

        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run()
            (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
            data = jax.profiler.ProfileData.from_file(file)
        total, count = collections.Counter(), collections.Counter()
        for plane in data.planes:
            for line in plane.lines if "GPU" in plane.name else ():
                for event in line.events if "Stream" in line.name else ():
                    total[event.name] += event.duration_ns * 1e-6
                    count[event.name] += 1
        lines = [f"{ms:9.2f} ms {count[name]:5d} {name[:110]}" for name, ms in total.most_common(40)]
        return "\n".join([f"{sum(total.values()):9.2f} ms in all", *lines])


def _keras() -> dict:
    keras = sys.modules.get("keras")
    return {"keras": keras.__version__} if keras else {}


def _product_tflops(multiply, wait, size: int) -> float:
    """Measures what a product of square bf16 matrices reaches: the best of some turns."""
    rates = []
    for _ in range(5):
        wait()
        began = time.perf_counter()
        for _ in range(20):
            multiply()
        wait()
        rates.append(20 / (time.perf_counter() - began))
    return 2e-12 * size**3 * max(rates)


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    ratio = f", {row['ratio_to_best_peer']:.2f} of the best peer" if "ratio_to_best_peer" in row else ""
    return (
        f"{row['engine']:<13}{row['mode']:<8}{row['images_per_second']['median']:8.0f} images/s, "
        f"{row['utilisation']:.0%} of the products' speed, {row['peak_memory_gib']:.1f} GiB{ratio}"
    )


if __name__ == "__main__":
    main()
