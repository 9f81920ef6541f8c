"""What weights start from: random numbers, the same on every backend, or nothing where a file will fill them."""

import contextlib

import keras
import numpy as np

from keras_dogs.backends import keras_inside
from keras_dogs.system.thread_flag import replaced_here


@contextlib.contextmanager
def seeded_initializers(seed: int):
    """Provides a context in which Keras' initializers draw from NumPy instead of the backend.

    Keras' own draws differ from backend to backend even with the same seed. Distribution and scale stay those of each
    initializer.
    """
    drawn = _NumpyDraws(seed)
    with _drawing(normal=drawn.normal, uniform=drawn.uniform, truncated_normal=drawn.truncated_normal):
        yield


@contextlib.contextmanager
def no_initializers():
    """Provides a context in which random weights are zeros, for models whose weights are read from a file.

    NumPy's zeros cost nothing, while JAX would compile a program a shape.
    """

    def zeros(shape, *args, dtype=None, **kwargs):
        return _to_tensor(np.zeros(shape, np.float32), dtype)

    names = ("normal", "uniform", "truncated_normal")
    with _drawing(**dict.fromkeys(names, zeros)):
        yield


@contextlib.contextmanager
def _drawing(**functions):
    """Replaces the functions by which all initializers draw, within a context and in this thread."""
    source = keras_inside.find("initializers")
    with contextlib.ExitStack() as replaced:
        for name, function in functions.items() if source else ():
            replaced.enter_context(replaced_here(source, name, function))
        yield


class _NumpyDraws:
    """The functions of `keras.random` that initializers call; each call has a stream of its own."""

    def __init__(self, seed: int):
        self.seed, self.num_calls = seed, 0

    def _generator(self) -> np.random.Generator:
        self.num_calls += 1
        return np.random.Generator(np.random.Philox(key=[self.seed, self.num_calls]))

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return _to_tensor(mean + stddev * self._generator().standard_normal(shape), dtype)

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return _to_tensor(self._generator().uniform(minval, maxval, shape), dtype)

    def truncated_normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        generator = self._generator()
        values = generator.standard_normal(shape)
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(outside.sum())
        return _to_tensor(mean + stddev * values, dtype)


def _to_tensor(values, dtype):
    return keras.ops.convert_to_tensor(values, dtype or keras.config.floatx())
