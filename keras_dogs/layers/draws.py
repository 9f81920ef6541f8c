"""Random draws that are the same bits on every backend: a counter-based hash in 32-bit integers.

A draw is a function of (seed, step, stream, position), so it does not depend on what was drawn before, on how the batch
is split over devices, on the backend, on the device, or on whether the step is compiled. Nothing here computes a
logarithm or a cosine: those differ in their last bit from backend to backend. What is not uniform is looked up in a
table of quantiles that NumPy made.

The mixing is Chris Wellons' `lowbias32` (nullprogram.com, "Prospecting for Hash Functions", 2018; public domain),
applied once for each coordinate of the counter.

`keys`, int32 `(batch, 2)`, stand for (seed, step) and position: what `DrawKeys` puts out.
"""

import functools
from statistics import NormalDist

import numpy as np
from keras import ops

_GOLDEN = 0x9E3779B9
_NUM_QUANTILES = 2**16


def make_keys(seed: int, step, positions):
    """Returns the keys of a batch.

    Args:
        seed: int. The run's seed.
        step: int32 scalar tensor. The training step.
        positions: int32 tensor of shape `(batch,)`. Each picture's place in the global batch.

    Returns:
        int32 tensor `(batch, 2)`.
    """
    counter = _mix(ops.bitwise_xor(step, _signed(_mix_number(_GOLDEN, seed))))
    return ops.stack([ops.broadcast_to(counter, ops.shape(positions)), positions], axis=1)


def batch_keys(keys):
    """Returns one key, `(1, 2)`, for a draw that a whole batch shares, such as the share of a mix-up."""
    return ops.stack([keys[:1, 0], ops.full_like(keys[:1, 1], -1)], axis=1)


def bits(keys, stream: int):
    """Draws 32 random bits for each key, int32 `(batch,)`; draws of different streams are independent."""
    return _mix(ops.bitwise_xor(_mix(ops.bitwise_xor(keys[:, 0], _stream_key(stream))), keys[:, 1]))


def grid_bits(keys, stream: int, size: int):
    """Draws 32 random bits for each of `size` places of each picture, int32 `(batch, size)`.

    `size` may be a tensor, where TensorFlow does not know the size of pictures.
    """
    # An odd factor, so that no two places are the same.
    if isinstance(size, int):
        places = (np.arange(size, dtype="uint32") * np.uint32(_GOLDEN)).astype("int32")
    else:
        places = ops.arange(size, dtype="int32") * _signed(_GOLDEN)
    return _mix(ops.bitwise_xor(ops.expand_dims(bits(keys, stream), 1), places[None]))


def uniform(keys, stream: int):
    """Returns a number in [0, 1) a key: float32 `(batch,)`, multiples of 2**-24."""
    return to_unit(bits(keys, stream))


def to_unit(random_bits):
    """Converts random bits, int32, to float32 in [0, 1), in multiples of 2**-24."""
    return ops.cast(_shift_right(random_bits, 8), "float32") * 2.0**-24


def integers(keys, stream: int, below):
    """Returns an integer in [0, below) a key: int32 `(batch,)`.

    Args:
        keys: int32 `(batch, 2)`.
        stream: int.
        below: int or int32 tensor that broadcasts with `(batch,)`, at least 1 and at most 2**22.
    """
    high, low = _two_bytes(bits(keys, stream))
    return ops.right_shift(high * below + ops.right_shift(low * below, np.int32(8)), np.int32(8))


def bernoulli(keys, stream: int, probability: float):
    """Draws `True` with the given probability: bool `(batch,)`."""
    return is_below(bits(keys, stream), probability)


def is_below(random_bits, probability: float):
    """Returns whether random bits, read as a number in [0, 1), are below `probability`; 0 is never, 1 is always."""
    return _shift_right(random_bits, 8) < np.int32(round(probability * 2**24))


def look_up(keys, stream: int, quantiles):
    """Returns a draw from any distribution, given as a table of 2**16 values at equally probable places."""
    index = _shift_right(bits(keys, stream), 16)
    return ops.take(ops.convert_to_tensor(quantiles), index, axis=0)


def normal(keys, stream: int):
    """Returns a number of mean 0 and standard deviation 1 a key: float32 `(batch,)`, within 4.4 of 0."""
    return look_up(keys, stream, normal_quantiles())


def beta(keys, stream: int, concentration: float):
    """Returns a number in (0, 1) a key from Beta(concentration, concentration): float32 `(batch,)`."""
    return look_up(keys, stream, beta_quantiles(concentration))


def noise(keys, stream: int, size: int):
    """Draws nearly normal numbers with mean 0 and standard deviation 1: float32 `(batch, size)`.

    The sum of four random bytes, so that a number costs one hash: the greatest is 3.45, the excess kurtosis -0.3.
    """
    random_bits = grid_bits(keys, stream, size)
    total = sum(
        ops.bitwise_and(ops.right_shift(random_bits, np.int32(shift)), np.int32(255)) for shift in range(0, 32, 8)
    )
    return (ops.cast(total, "float32") - 510.0) * (4 * (256**2 - 1) / 12) ** -0.5


def permutation(keys, stream: int):
    """Returns a random order of the batch: int32 `(batch,)`, each of 0 ... batch - 1 once.

    The rank of each picture's bits, ties broken by place: no sort, which is not stable on every backend.
    """
    random_bits = bits(keys, stream)
    mine, other = ops.expand_dims(random_bits, 1), ops.expand_dims(random_bits, 0)
    place = ops.arange(ops.shape(keys)[0], dtype="int32")
    earlier = ops.expand_dims(place, 0) < ops.expand_dims(place, 1)
    before = ops.logical_or(other < mine, ops.logical_and(other == mine, earlier))
    return ops.sum(ops.cast(before, "int32"), axis=1)


@functools.cache
def normal_quantiles() -> np.ndarray:
    """Returns the standard normal distribution at 2**16 equally probable places, float32."""
    return np.array([NormalDist().inv_cdf(place) for place in _places()], "float32")


@functools.cache
def beta_quantiles(concentration: float) -> np.ndarray:
    """Returns the quantiles of Beta(concentration, concentration) at 2**16 equally probable places, float32."""
    from scipy.special import betaincinv

    return betaincinv(concentration, concentration, _places()).astype("float32")


def _places() -> np.ndarray:
    return (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES


def _two_bytes(random_bits):
    """Returns the upper two bytes, int32 in [0, 256) each."""
    return _shift_right(random_bits, 24), ops.bitwise_and(_shift_right(random_bits, 16), np.int32(255))


def _mix(random_bits):
    """Hashes int32 tensors by `lowbias32`; products wrap around, and right shifts are masked to be logical."""
    random_bits = ops.bitwise_xor(random_bits, _shift_right(random_bits, 16))
    random_bits = random_bits * _signed(0x7FEB352D)
    random_bits = ops.bitwise_xor(random_bits, _shift_right(random_bits, 15))
    random_bits = random_bits * _signed(0x846CA68B)
    return ops.bitwise_xor(random_bits, _shift_right(random_bits, 16))


def _shift_right(random_bits, count: int):
    return ops.bitwise_and(ops.right_shift(random_bits, np.int32(count)), np.int32((1 << (32 - count)) - 1))


@functools.cache
def _stream_key(stream: int) -> np.int32:
    return _signed(_mix_number(_GOLDEN, stream + 1))


def _signed(number: int) -> np.int32:
    return np.uint32(number & 0xFFFFFFFF).astype(np.int32)


def _mix_number(random_bits: int, number: int) -> int:
    """Returns the same mixing for what is known before the graph is built."""
    random_bits = (random_bits ^ number) & 0xFFFFFFFF
    random_bits = ((random_bits ^ (random_bits >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    random_bits = ((random_bits ^ (random_bits >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return random_bits ^ (random_bits >> 16)
