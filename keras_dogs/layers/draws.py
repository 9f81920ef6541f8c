"""Random draws that are the same bits on every backend: a counter-based hash in 32-bit integers.

A draw is a function of (seed, step, stream, position), so it does not depend on what was drawn before, on how the batch
is split over devices, or on whether the step is compiled. The mixing is Chris Wellons' `lowbias32` (nullprogram.com,
"Prospecting for Hash Functions", 2018; public domain), applied once for each coordinate of the counter.
"""

import numpy as np
from keras import ops

_GOLDEN = 0x9E3779B9


def uniform(seed: int, step, stream: int, positions):
    """Draws a number in [0, 1) for each position.

    Args:
        seed: int. The run's seed.
        step: int32 scalar tensor. The training step.
        stream: int. Which draw of the step this is; draws of different streams are independent.
        positions: int32 tensor of any shape. The picture's place in the global batch.

    Returns:
        float32 tensor of the shape of `positions`: multiples of 2**-24.
    """
    key = _mix_number(_mix_number(_GOLDEN, seed), stream)
    bits = _mix(ops.bitwise_xor(_mix(ops.bitwise_xor(step, _signed(key))), positions))
    return ops.cast(_shift_right(bits, 8), "float32") * np.float32(2.0**-24)


def _mix(bits):
    """`lowbias32` on int32 tensors: products wrap around on every backend; right shifts are made logical by a mask."""
    bits = ops.bitwise_xor(bits, _shift_right(bits, 16))
    bits = bits * _signed(0x7FEB352D)
    bits = ops.bitwise_xor(bits, _shift_right(bits, 15))
    bits = bits * _signed(0x846CA68B)
    return ops.bitwise_xor(bits, _shift_right(bits, 16))


def _shift_right(bits, count: int):
    return ops.bitwise_and(ops.right_shift(bits, np.int32(count)), np.int32((1 << (32 - count)) - 1))


def _signed(number: int) -> np.int32:
    return np.uint32(number & 0xFFFFFFFF).astype(np.int32)


def _mix_number(bits: int, number: int) -> int:
    """The same mixing for what is known before the graph is built."""
    bits = (bits ^ number) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return bits ^ (bits >> 16)
