"""Gradient checkpointing (Chen et al., arXiv 1604.06174) for KerasHub's ViTs: memory for time."""

import functools

import keras

from keras_dogs.backends import keras_inside
from keras_dogs.backends import register
from keras_dogs.layers.dropping import blocks_of

_CONTEXT = "current_call_ctx"  # where Keras keeps, among others, whether this is training


def rematerialise(backbone: keras.Model, block: str) -> None:
    """Makes a ViT's blocks compute their activations again for the gradient instead of keeping them, from outside.

    Saved files stay the same. Call it after `drop_paths`, so that a dropped branch is dropped again when recomputed.

    Args:
        backbone: `keras.Model`.
        block: str. The class of its blocks.
    """
    if keras_inside.find("call_context") is None:
        return
    for each in blocks_of(backbone, block):
        register.replace(each, "call", _again(each.call), "rematerialised", register.FEATURE)


def _again(call):
    @functools.wraps(call)
    def rematerialised(*args, **kwargs):
        global_state = keras_inside.find("call_context")
        context = global_state.get_global_attribute(_CONTEXT)

        def in_context(*args):  # PyTorch computes again when the model's call, and its context, are over
            current = global_state.get_global_attribute(_CONTEXT)
            global_state.set_global_attribute(_CONTEXT, context)
            try:
                return call(*args, **kwargs)
            finally:
                global_state.set_global_attribute(_CONTEXT, current)

        # A new function for each call: JAX would reuse the trace of an earlier one, perhaps made at inference.
        return keras.remat(in_context)(*args)

    return rematerialised
