"""Where weights come from: one file a source, one row of `SOURCES` each, chosen by what the preset string is."""

import contextlib

from keras_dogs import backend
from keras_dogs.presets import unknown_preset
from keras_dogs.weights import keras_applications
from keras_dogs.weights import keras_hub_presets
from keras_dogs.weights.initialization import seeded_initializers
from keras_dogs.weights.loaded import Loaded

SOURCES = (keras_applications, keras_hub_presets)

backend.keep_tensorflow_off_accelerators()  # KerasHub has imported it by now, if it could


def load_backbone(
    preset: str,
    image_size: int | None = None,
    load_weights: bool = True,
    dtype=None,
    with_head: bool = False,
    seed: int = 0,
) -> Loaded:
    """Loads a backbone with what its weights expect around it.

    Args:
        preset: str. See `SOURCES`.
        image_size: int or `None`. The side of the pictures, pixels; `None` is the preset's own.
        load_weights: bool. `False` builds the same architecture at random, without any network.
        dtype: str or `keras.DTypePolicy` or `None`. The backbone's dtype policy.
        with_head: bool. Also load the source's own classifier.
        seed: int. Decides random weights, on every backend in the same way.

    Raises:
        UserError: nothing is known by that name, or what is there cannot be loaded.
    """
    for source in SOURCES:
        if source.matches(preset):
            with contextlib.nullcontext() if load_weights else seeded_initializers(seed):
                return source.load(preset, image_size, load_weights, dtype, with_head)
    raise unknown_preset(preset)


__all__ = ["SOURCES", "Loaded", "load_backbone"]
