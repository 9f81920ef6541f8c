"""The one counter that every draw of a model depends on, and what the layers that draw have in common."""

import threading

import keras
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.layers import draws


@keras.saving.register_keras_serializable(package="keras_dogs")
class DrawKeys(keras.layers.Layer):
    """Counts training steps and hands each picture of the batch its keys for `draws`.

    Pictures `(batch, ...)` -> int32 `(batch, 2)`. The counter is saved with the model, so that training goes on with
    the next draws; it stands still at inference.

    Args:
        seed: int. Draws depend on (seed, step, layer, place in the batch) alone.
    """

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.supports_masking = True
        self._latest = threading.local()  # TensorFlow has a thread for each device, and switches amid a step

    def build(self, input_shape):
        """Makes the step counter."""
        self.step = self.add_weight(
            name="step", shape=(), dtype=backends.counter_dtype(), initializer="zeros", trainable=False
        )

    def call(self, images, training=False):
        positions = places_in_batch(ops.shape(images)[0])
        keys = draws.make_keys(self.seed, ops.cast(self.step, "int32"), positions)
        if training:
            self.step.assign(self.step + 1)  # after the draw: PyTorch assigns in place, and `step` may be a view
        self._latest.keys = keys
        return keys

    def latest(self):
        """Returns the keys of the current batch, for layers inside a backbone that the graph does not reach."""
        return self._latest.keys

    def compute_output_spec(self, images, training=False):
        return keras.KerasTensor((images.shape[0], 2), dtype="int32")

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def places_in_batch(share):
    """Returns the places in the whole batch of the pictures that are here: int32 `(share,)`."""
    return ops.arange(share, dtype="int32") + ops.cast(devices.current().first_place(share), "int32")


class RandomLayer(keras.layers.Layer):
    """A layer that draws: `layer(images, keys)` in a graph with `DrawKeys`, or `layer(images)` with its own counter.

    At inference nothing is drawn. A subclass defines `augment(images, keys)` for training, and `convert(images)` for
    what it does at inference, by default nothing; both take and give float32 `(batch, height, width, channels)`.

    Args:
        seed: int. For the layer's own counter; without effect where `keys` are given.
        stream: int. Which layer of its kind this is: two with the same number draw the same.
    """

    # The first stream of the kind; a layer has 16 of its own, and 64 layers of a kind fit.
    kind = 0

    def __init__(self, seed=0, stream=0, **kwargs):
        kwargs.setdefault("dtype", "float32")  # pixels lose their last bits in bfloat16, whatever the model's policy
        super().__init__(**kwargs)
        self.seed, self.stream = seed, stream
        self.own_keys = None
        # Exact float32 products. `Classifier` turns it off before a half-precision backbone, where TF32 is enough.
        self.exact = True

    def build(self, images_shape, keys_shape=None):
        """Makes a counter of its own where the layer is used without keys."""
        if keys_shape is None:
            self.own_keys = DrawKeys(self.seed, name="draw_keys")
            self.own_keys.build(images_shape)

    def call(self, images, keys=None, training=False):
        images = ops.cast(images, self.compute_dtype)
        with backends.products(self.exact):
            if not training:
                return self.convert(images)
            return self.augment(images, self.own_keys(images, training=True) if keys is None else keys)

    def augment(self, images, keys):
        """Augments pictures in training, with draws from `keys`, int32 `(batch, 2)`."""
        raise NotImplementedError

    def convert(self, images):
        """Converts pictures at inference, without a draw."""
        return images

    def draw_stream(self, number: int) -> int:
        """Returns the stream of this layer's draw with that number, below 16."""
        return (self.kind * 64 + self.stream) * 16 + number

    def get_config(self):
        return {**super().get_config(), "seed": self.seed, "stream": self.stream}
