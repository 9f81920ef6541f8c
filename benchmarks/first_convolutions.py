"""What folding a model's first convolution by its stride gains: `python benchmarks/first_convolutions.py`, on a GPU.

Bare and compiled, bfloat16, from float32 pictures of 224 x 224, in turns: the convolution as the backend has it and as
`keras_dogs.backends.layers` folds it, forward, and with the gradient of the kernel.
"""

import argparse
import json
import time
from unittest import mock

import runs

# Pictures; kernel, stride, zeros around, filters.
CASES = {"resnet_50": (256, 7, 2, 3, 64), "vit_base_patch16_224": (128, 16, 16, 0, 768)}
WAYS = ("plain", "folded")
_TURNS, _CALLS = 9, 10


def main():
    """Measures a row for each backend, model, way and pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["torch", "jax"])
    parser.add_argument("--batch-size", type=int, help="of both")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print("\n" + json.dumps(measure(flags.batch_size)))
        return
    given = ["--batch-size", flags.batch_size] if flags.batch_size else []
    rows = []
    for backend in flags.backends:
        found = runs.measure(backend, __file__, "--child", *given)
        rows += [{"backend": backend, **row} for row in found.get("rows", [found])]
    device = next((row["device"] for row in rows if "NVIDIA" in row.get("device", "")), "")
    runs.write("first_convolutions", rows, line=in_words, device=device.partition(" x ")[2])


def measure(batch_size: int | None) -> dict:
    """Does the child's part."""
    from keras_dogs import backends

    backends.select()
    rows = []
    for model, (count, *shape) in CASES.items():
        calls = {way: passes(way, batch_size or count, *shape) for way in WAYS}
        for what in ("forward", "forward and gradient"):
            seconds: dict = {way: [] for way in WAYS}
            for turn in range(_TURNS + 1):
                for way in WAYS:
                    began = time.perf_counter()
                    for _ in range(_CALLS):
                        result = calls[way][what]()
                    wait(result)
                    if turn:  # the first compiles
                        seconds[way].append((time.perf_counter() - began) / _CALLS)
            for way in WAYS:
                ms = runs.spread([1000 * value for value in seconds[way]])
                rows.append({"model": model, "way": way, "pass": what, "batch_size": batch_size or count, "ms": ms})
    device, versions = backends.describe_device(1), backends.versions()
    return {"rows": [{**row, "device": device, "versions": versions} for row in rows]}


def passes(way: str, count: int, size: int, stride: int, zeros: int, filters: int) -> dict:
    """Functions of nothing that begin a pass."""
    import keras
    import numpy as np

    from keras_dogs import backends
    from keras_dogs.backends import layers
    from keras_dogs.backends.layers import convolutions

    layer = keras.layers.Conv2D(filters, size, strides=stride, use_bias=False, dtype="mixed_bfloat16")
    layer.build((None, 224 + 2 * zeros, 224 + 2 * zeros, 3))
    with mock.patch.object(convolutions, "can_fold", return_value=way == "folded"):
        with mock.patch.object(backends, "has_accelerator", return_value=True):
            layers.speed_up(keras.Sequential([layer]))
    generator = np.random.default_rng(0)
    pictures = generator.uniform(0, 1, (count, 224, 224, 3)).astype("float32")
    kernel = generator.normal(size=layer.kernel.shape).astype("float32")

    def forward(pictures, kernel):
        pictures = keras.ops.pad(pictures * 2 - 1, [(0, 0), (zeros, zeros), (zeros, zeros), (0, 0)])
        pictures, kernel = (keras.ops.cast(value, "bfloat16") for value in (pictures, kernel))
        return layer.convolution_op(pictures, kernel)

    return on_jax(forward, pictures, kernel) if backends.name() == "jax" else on_torch(forward, pictures, kernel)


def on_jax(forward, pictures, kernel) -> dict:
    """Returns both passes, compiled by XLA."""
    import jax

    pictures, kernel = jax.device_put(pictures), jax.device_put(kernel)

    def both(pictures, kernel):
        outputs, pull = jax.vjp(lambda kernel: forward(pictures, kernel), kernel)
        return outputs, pull(jax.numpy.ones_like(outputs))

    once, twice = jax.jit(forward), jax.jit(both)
    return {"forward": lambda: once(pictures, kernel), "forward and gradient": lambda: twice(pictures, kernel)}


def on_torch(forward, pictures, kernel) -> dict:
    """Returns both passes, traced as `keras_dogs.backends.on_torch.tracing` does it and compiled by `torch.compile`."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = torch.from_numpy(pictures).to(device)
    kernel = torch.from_numpy(kernel).to(device).requires_grad_()
    torch.backends.cudnn.benchmark = True
    torch._dynamo.reset()
    call = torch.compile(make_fx(forward)(pictures, kernel), dynamic=False)

    def both():
        outputs = call(pictures, kernel)
        return torch.autograd.grad(outputs, kernel, torch.ones_like(outputs))

    return {"forward": lambda: torch.no_grad()(call)(pictures, kernel), "forward and gradient": both}


def wait(result) -> None:
    """Waits until a pass is done."""
    from keras_dogs import backends

    if backends.name() == "jax":
        import jax

        jax.block_until_ready(result)
    elif backends.has_accelerator():
        import torch

        torch.cuda.synchronize()


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"{row['way']}, {row['pass']}: {row['ms']['median']:.2f} ms"


if __name__ == "__main__":
    main()
