"""What a step's arithmetic is held against: how fast this machine multiplies matrices of float32."""

import json
import sys
import time

import runs

_SIZE, _PRODUCTS, _ROUNDS = 2048, 10, 5


def gflop_of(model: str, engine: str) -> float:
    """Billions of operations that an engine needs for a forward pass of one picture."""
    from keras_dogs.models.costs import count_gflops
    from keras_dogs.models.presets import PRESETS

    return count_gflops(PRESETS[model], whole=engine != "keras_dogs")


def share(model: str, engine: str, mode: str, images_per_second: float, product_gflops: float) -> float:
    """Returns the share of the products' speed; a training step counts as three forward passes."""
    passes = 3 if mode == "train" else 1
    return gflop_of(model, engine) * passes * images_per_second / product_gflops


def product_gflops(backends: list[str]) -> float:
    """Billions of operations a second of a product of square float32 matrices, by whichever backend is fastest."""
    found = [runs.measure(backend, __file__) for backend in backends]
    return max(answer["gflops"] for answer in found if "gflops" in answer)


def _measure() -> float:
    """Does the child's part: the best of some rounds."""
    from keras_dogs import backends

    backends.select()
    import keras
    import numpy as np

    generator = np.random.default_rng(0)
    a, b = (keras.ops.convert_to_tensor(generator.normal(size=(_SIZE, _SIZE)).astype("float32")) for _ in range(2))
    multiply = _multiplication(backends)
    rates = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_PRODUCTS):
            product = multiply(a, b)
        keras.ops.convert_to_numpy(product)  # wait for it
        rates.append(_PRODUCTS / (time.perf_counter() - began))
    return 2e-9 * _SIZE**3 * max(rates)


def _multiplication(backends):
    if backends.name() == "torch" and backends.module_of("runtime").mkl_is_slow():
        from keras_dogs.backends.on_torch import onednn

        return lambda a, b: onednn.multiply(a, b, None)
    if backends.name() == "jax":
        import jax

        return jax.jit(lambda a, b: a @ b)
    return lambda a, b: a @ b


if __name__ == "__main__":
    print("\n" + json.dumps({"gflops": _measure()}))
    sys.exit()
