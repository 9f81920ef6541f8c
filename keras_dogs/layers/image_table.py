"""The decoded dataset as a variable on the device."""

import keras
import numpy as np
from keras import ops

from keras_dogs import backends


class ImageTable(keras.layers.Layer):
    """Indices `(batch,)` -> uint8 pictures `(batch, rows, columns, 3)`: a step sends a few integers, not pictures.

    It is for a model that trains and is not saved: neither a `.keras` file nor a checkpoint holds the table.

    Args:
        canvases: uint8 array of shape `(num_pictures, rows, columns, 3)`, in memory or mapped; the device gets one
            copy.
    """

    def __init__(self, canvases: np.ndarray, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.canvases = canvases

    def build(self, indices_shape):
        """Sends the table to the device."""
        # From its values, not by an initializer: over several devices of JAX, Keras compiles that, table and all.
        table = backends.on_device(self.canvases)
        self.table = keras.Variable(table, dtype="uint8", trainable=False, autocast=False, name="table")

    def call(self, indices):
        return ops.take(self.table, indices, axis=0)

    def compute_output_spec(self, indices):
        return keras.KerasTensor((*indices.shape, *self.canvases.shape[1:]), dtype="uint8")
