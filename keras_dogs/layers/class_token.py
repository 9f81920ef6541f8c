"""Pooling of a ViT by its class token."""

import keras


@keras.saving.register_keras_serializable(package="keras_dogs")
class ClassToken(keras.layers.Layer):
    """Takes the first token of a sequence: `(batch, tokens, hidden)` -> `(batch, hidden)` (arXiv 2010.11929, eq. 4)."""

    def call(self, tokens):
        return tokens[:, 0]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])
