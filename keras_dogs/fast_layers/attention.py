"""When attention is of the usual kind."""

import keras


def is_usual(layer) -> bool:
    """Whether a layer is attention without dropout of its weights, and without a gate."""
    return type(layer) is keras.layers.MultiHeadAttention and not (layer._dropout or layer._use_gate)


def is_plain(query, value, key, asked: dict) -> bool:
    """Whether a sequence attends to the whole of itself, and no weights are asked for; the key may be left out."""
    is_to_itself = value is query and (key is None or key is query) and getattr(query, "_keras_mask", None) is None
    return is_to_itself and not any(value is not None and value is not False for value in asked.values())
