"""When attention is of the usual kind."""

import keras


def is_usual(layer) -> bool:
    """Whether a layer is attention without dropout of its weights, without a gate, and not of near places alone."""
    asked_for_more = "_dropout", "_use_gate", "_sliding_window"
    return type(layer) is keras.layers.MultiHeadAttention and not any(getattr(layer, more) for more in asked_for_more)


def has_plain_kernels(layer) -> bool:
    """Whether the products of a layer are of float kernels, which `quantize` replaces by integers and scales."""
    parts = (layer.query_dense, layer.key_dense, layer.value_dense)
    return all(part.quantization_mode is None for part in parts)


def is_plain(query, value, key, asked: dict) -> bool:
    """Whether a sequence attends to the whole of itself, and no weights are asked for; the key may be left out."""
    is_to_itself = value is query and (key is None or key is query) and getattr(query, "_keras_mask", None) is None
    return is_to_itself and not any(value is not None and value is not False for value in asked.values())
