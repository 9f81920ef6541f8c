"""When attention is of the usual kind."""

import keras

from keras_dogs.backends.register import ANY
from keras_dogs.backends.register import knows


def is_usual(layer) -> bool:
    """Returns whether a layer is attention over one axis, without dropout of its weights, a gate or a window."""
    return knows(
        layer,
        keras.layers.MultiHeadAttention,
        num_heads=ANY,
        key_dim=ANY,
        value_dim=ANY,
        dropout=0.0,
        use_bias=ANY,
        use_gate=False,
        output_shape=ANY,
        attention_axes=(None, (1,), [1]),
        sliding_window=None,
        seed=ANY,
    )


def has_plain_kernels(layer) -> bool:
    """Returns whether the kernels of a layer are floats, which `quantize` replaces by integers and scales."""
    parts = (layer.query_dense, layer.key_dense, layer.value_dense)
    return all(part.quantization_mode is None for part in parts)


def is_plain(query, value, key, asked: dict) -> bool:
    """Returns whether a sequence `(batch, length, depth)` attends to the whole of itself, and no weights are asked for.

    Args:
        query: tensor.
        value: tensor.
        key: tensor or `None` for the values.
        asked: dict. The other arguments of the call.
    """
    is_to_itself = value is query and (key is None or key is query) and getattr(query, "_keras_mask", None) is None
    nothing_else = not any(value is not None and value is not False for value in asked.values())
    return is_to_itself and nothing_else and len(query.shape) == 3
