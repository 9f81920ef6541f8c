"""When attention is of the usual kind."""


def is_plain(query, value, key, asked: dict) -> bool:
    """Whether a sequence attends to the whole of itself, and no weights are asked for."""
    is_to_itself = value is query and key is query and getattr(query, "_keras_mask", None) is None
    return is_to_itself and not any(value is not None and value is not False for value in asked.values())
