"""What a classifier refuses or corrects: batches that are not pictures, and losses that expect probabilities."""

import inspect
import types

import keras
import numpy as np

from keras_dogs.errors import UserError

_SAMPLE = 32  # pictures of an array whose values are looked at
_CROSSENTROPIES = {
    name.lower(): name
    for name in (
        *("SparseCategoricalCrossentropy", "CategoricalCrossentropy", "BinaryCrossentropy"),
        *("CategoricalFocalCrossentropy", "BinaryFocalCrossentropy"),
    )
} | {"bce": "BinaryCrossentropy"}
# Names whose kind Keras chooses by the labels' shape, and losses that compare distributions.
_AMBIGUOUS = ("crossentropy", "ce")
_OF_PROBABILITIES = ("kldivergence", "kld", "poisson")
_LOGITS = "the classifier gives logits"


def check_shape(images) -> None:
    """Refuses a batch that is not of RGB pictures.

    Args:
        images: array or tensor, symbolic or not.

    Raises:
        UserError: it states the shape.
    """
    shape = getattr(images, "shape", None)
    if shape is None:
        return
    shape = tuple(shape)
    if len(shape) != 4 or shape[3] not in (3, None):
        hint = " (one picture: add an axis with images[None])" if len(shape) == 3 and shape[2] == 3 else ""
        raise UserError(f"pictures of shape {shape}: a batch must be (batch, height, width, 3), RGB{hint}")


def check_values(images) -> None:
    """Refuses floats that are not in [0, 255]; tensors without values, as in a graph, are not checked.

    Raises:
        UserError: it states the range that was found.
    """
    check_shape(images)
    sample = _sample(images)
    if sample is None or not sample.size:
        return
    low, high = float(sample.min()), float(sample.max())
    if not np.isfinite([low, high]).all():
        raise UserError("pictures with values that are not finite: they must be RGB in [0, 255]")
    if 0 < high <= 1 and low >= 0:
        raise UserError(f"pictures with values from {low:.3g} to {high:.3g}: they must be in [0, 255]; multiply by 255")
    # Resampling may overshoot; what is normalised is around 0.
    if low < -64 or high > 320 or (low < 0 and high < 16):
        raise UserError(
            f"pictures with values from {low:.3g} to {high:.3g}: they must be RGB in [0, 255], not normalised"
        )


def _sample(images) -> np.ndarray | None:
    """Returns some pictures as an array, if they are floats and can be read outside a graph."""
    if isinstance(images, np.ndarray):
        return images[:_SAMPLE] if images.dtype.kind == "f" else None
    if not keras.ops.is_tensor(images) or "float" not in str(getattr(images, "dtype", "")):
        return None
    try:
        return np.asarray(keras.ops.convert_to_numpy(images[:_SAMPLE]), np.float32)
    except Exception:  # a tensor of a graph has no values
        return None


def checked(data):
    """Returns the data that `fit`, `evaluate` or `predict` was given, after a look at its first pictures.

    The first batch of arrays, tensors, `PyDataset`, tf.data and generators is checked. Of any other loader, only the
    shape is checked, when the model is called.

    Args:
        data: what Keras takes as `x`.

    Returns:
        The same; a generator goes on from its first batch.

    Raises:
        UserError: the first batch is not of RGB pictures in [0, 255].
    """
    if isinstance(data, types.GeneratorType):
        return _looked_into(data)
    for first in _first_batches(data):
        check_values(first)
    return data


def _first_batches(data):
    if isinstance(data, dict):
        data = next(iter(data.values()), None)
    if isinstance(data, (list, tuple)) and len(data) == 1:
        data = data[0]
    if isinstance(data, np.ndarray) or keras.ops.is_tensor(data):
        yield data
    elif isinstance(data, keras.utils.PyDataset) and data.num_batches != 0:
        yield _pictures(data[0])
    elif hasattr(data, "element_spec") and hasattr(data, "take"):  # tf.data
        yield from (_pictures(batch) for batch in data.take(1))


def _pictures(batch):
    """Returns the pictures of what a loader gives: alone, or before labels."""
    batch = batch[0] if isinstance(batch, (list, tuple)) and batch else batch
    return next(iter(batch.values()), None) if isinstance(batch, dict) else batch


def _looked_into(generator):
    first = next(generator, None)
    if first is not None:
        check_values(_pictures(first))

    def again():
        if first is not None:
            yield first
        yield from generator

    return again()


def of_logits(loss, is_metric: bool = False):
    """Returns a loss, or metrics, with every cross-entropy told that it is given logits; names and functions, too.

    Args:
        loss: what `compile` takes as `loss`, `metrics` or `weighted_metrics`.
        is_metric: bool. Whether it is one of the latter.

    Raises:
        UserError: it compares probabilities, or Keras would choose it by the labels alone.
    """
    if isinstance(loss, dict):
        return {name: of_logits(each, is_metric) for name, each in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [of_logits(each, is_metric) for each in loss]
    return _of_name(loss, is_metric) if isinstance(loss, str) or inspect.isfunction(loss) else _of_instance(loss)


def _of_name(loss, is_metric: bool):
    name = loss if isinstance(loss, str) else loss.__name__
    if not isinstance(loss, str) and not loss.__module__.startswith("keras."):
        return loss  # the user's own function
    plain = name.lower().replace("_", "")
    kind, module = ("metric", "metrics") if is_metric else ("loss", "losses")
    if plain in _AMBIGUOUS:
        raise UserError(
            f"{kind} {name!r}: {_LOGITS}; give keras.{module}.SparseCategoricalCrossentropy(from_logits=True)"
        )
    if plain in _OF_PROBABILITIES:
        raise UserError(f"{kind} {name!r}: compares probabilities, and {_LOGITS}; give a cross-entropy")
    known = _CROSSENTROPIES.get(plain)
    if known is None:
        return loss
    if not is_metric:
        return getattr(keras.losses, known)(from_logits=True)
    if hasattr(keras.metrics, known):
        return getattr(keras.metrics, known)(name=name, from_logits=True)
    return getattr(keras.losses, known)(name=name, from_logits=True, reduction=None)


def _of_instance(loss):
    if isinstance(loss, (keras.losses.KLDivergence, keras.losses.Poisson)):
        raise UserError(f"loss {type(loss).__name__}: compares probabilities, and {_LOGITS}; give a cross-entropy")
    if getattr(loss, "from_logits", None) is False and hasattr(loss, "get_config"):
        return type(loss).from_config({**loss.get_config(), "from_logits": True})
    return loss
