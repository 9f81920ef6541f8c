"""The last block of a ViT for the class token alone, where the head reads nothing else of it."""

import contextlib
import functools
import threading

import keras

from keras_dogs.backends import register
from keras_dogs.layers.dropping import blocks_of


class _State(threading.local):
    """Of each thread: TensorFlow has one for each device, and each of them waits for the others amid a step."""

    alone = False


_state = _State()


@contextlib.contextmanager
def alone():
    """Returns a context in which the last blocks that `prepare` has changed compute their first token, and no other."""
    kept, _state.alone = _state.alone, True
    try:
        yield
    finally:
        _state.alone = kept


def prepare(model: keras.Model) -> None:
    """Lets the last block of KerasHub's ViT leave out what is not read, from outside, where `alone` says so.

    The other tokens of the last block reach no logit and no gradient: queries, the product with the values, and the
    MLP are computed for one token instead of 197: 7 % of a ViT-B/16's operations. Logits and gradients are the same but
    for rounding.
    """
    for last in blocks_of(model, "ViTEncoderBlock")[-1:]:
        if register.keeps_its_call(last) and not register.is_bare("class_token_alone"):
            register.replace(last, "call", _LastBlock(last), "class_token_alone", register.SPEED)


class _LastBlock:
    """What a block does with `(batch, tokens, hidden)`: `(batch, 1, hidden)` where the class token is read alone."""

    def __init__(self, block):
        self._block, self._whole = block, block.call
        functools.update_wrapper(self, block.call)

    def __call__(self, inputs):
        if not _state.alone:
            return self._whole(inputs)
        block = self._block
        normed = block.layer_norm_1(inputs)
        first = inputs[:, :1] + block.dropout(block.mha(normed[:, :1], normed))
        return first + block.mlp(block.layer_norm_2(first))
