"""Pooling of a ViT's tokens to one vector a picture."""

import keras
from keras import ops

KINDS = ("token", "two_tokens", "average_of_patches", "average_of_tokens", "token_and_average", "own")


@keras.saving.register_keras_serializable(package="keras_dogs")
class TokenPooling(keras.layers.Layer):
    """`(batch, tokens, hidden)` -> `(batch, features)`.

    Args:
        kind: str. `"token"`: the class token (arXiv 2010.11929, eq. 4); `"two_tokens"`: class and distillation token,
            one after the other (DeiT); `"average_of_patches"`; `"average_of_tokens"`: of all, the class token too
            (KerasHub's "gap"); `"token_and_average"`: class token and average of patches, one after the other (DINOv2);
            `"own"`: the backbone has pooled them already, its input is `(batch, hidden)`.
        num_prefix: int. Tokens before those of the patches.

    Raises:
        ValueError: the kind is unknown.
    """

    def __init__(self, kind="token", num_prefix=1, **kwargs):
        super().__init__(**kwargs)
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}: choose one of {', '.join(KINDS)}")
        self.kind, self.num_prefix = kind, num_prefix

    def call(self, tokens):
        if self.kind == "own":
            return tokens
        if self.kind == "token":
            return tokens[:, 0]
        if self.kind == "two_tokens":
            return ops.concatenate([tokens[:, 0], tokens[:, 1]], axis=1)
        if self.kind == "average_of_tokens":
            return ops.mean(tokens, axis=1)
        average = ops.mean(tokens[:, self.num_prefix :], axis=1)
        return average if self.kind == "average_of_patches" else ops.concatenate([tokens[:, 0], average], axis=1)

    def compute_output_shape(self, input_shape):
        if self.kind == "own":
            return input_shape
        is_double = self.kind in ("two_tokens", "token_and_average")
        return (input_shape[0], input_shape[2] * (2 if is_double else 1))

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "num_prefix": self.num_prefix}
