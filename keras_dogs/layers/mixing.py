"""Mix-up and cut-mix: each picture is blended with, or patched by, another one of the batch, and so are the targets."""

import keras
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.layers import boxes
from keras_dogs.layers import draws
from keras_dogs.layers.draw_keys import RandomLayer
from keras_dogs.layers.draw_keys import places_in_batch

_PARTNER, _WHICH, _SHARE, _TOP, _LEFT = range(5)


@keras.saving.register_keras_serializable(package="keras_dogs")
class Mixing(RandomLayer):
    """Mixes each picture with a partner; `mix_losses` mixes the losses in the same shares.

    Mix-up (Zhang et al., arXiv 1710.09412) adds the two, cut-mix (Yun et al., arXiv 1905.04899) pastes a box of the
    partner. A batch has one share, drawn from Beta(a, a), and one order of partners, as in big_vision and timm's mode
    "batch". Where both are on, each batch draws one of them evenly.

    Args:
        mixup: float. The `a` of mix-up; 0 for none.
        cutmix: float. The `a` of cut-mix; 0 for none.
        seed, stream: int. See `RandomLayer`.

    Input: float pictures `(batch, height, width, channels)`; and keys, or not. Output: float32 of the same shape.
    """

    kind = 6

    def __init__(self, mixup=0.0, cutmix=0.0, **kwargs):
        super().__init__(**kwargs)
        self.mixup, self.cutmix = mixup, cutmix

    def build(self, images_shape, keys_shape=None):
        """Makes room for what the loss must know of the last training batch."""
        super().build(images_shape, keys_shape)
        self.share = self.add_weight(name="share", shape=(), initializer="ones", trainable=False, dtype="float32")
        self.counter = self.add_weight(
            name="counter", shape=(), initializer="zeros", trainable=False, dtype=backends.counter_dtype()
        )

    def augment(self, images, keys):
        height, width = ops.shape(images)[1:3]
        share, own = self._draw_shares(draws.batch_keys(keys), height, width)
        self.share.assign(share)
        self.counter.assign(ops.cast(keys[0, 0], self.counter.dtype))
        return images * own + self._of_partners(images, keys[0, 0]) * (1 - own)

    def _draw_shares(self, keys, height, width):
        """Draws the share of a picture that stays: one number `()`, and a mask `(1, height or 1, width or 1, 1)`."""
        if self.mixup:
            blended = draws.beta(keys, self.draw_stream(_SHARE), self.mixup)[0]
            everywhere = ops.reshape(blended, (1, 1, 1, 1))
        if self.cutmix:
            patched, outside = self._draw_patch(keys, height, width)
        if not self.cutmix:
            return blended, everywhere
        if not self.mixup:
            return patched, outside
        is_patched = draws.bernoulli(keys, self.draw_stream(_WHICH), 0.5)[0]
        return ops.where(is_patched, patched, blended), ops.where(is_patched, outside, everywhere)

    def _draw_patch(self, keys, height, width):
        """Draws a box of the given share at any place, clipped at the border (arXiv 1905.04899, section 3.1)."""
        share = draws.beta_quantiles(self.cutmix).astype("float64")
        sides = (boxes.SIDE * (1 - share) ** 0.5).round().astype("int32")
        side = draws.look_up(keys, self.draw_stream(_SHARE), sides)
        starts, ends = [], []
        for number in (_TOP, _LEFT):
            first = draws.integers(keys, self.draw_stream(number), boxes.SIDE) - side // 2
            starts.append(ops.clip(first, 0, boxes.SIDE))
            ends.append(ops.clip(first + side, 0, boxes.SIDE))
        box = (*starts, ends[0] - starts[0], ends[1] - starts[1])
        outside = 1 - ops.cast(boxes.inside(box, height, width), "float32")
        return ops.mean(outside), outside

    def mix_losses(self, loss, labels, weights=None):
        """Returns the loss of the last training batch: its own labels' and its partners' labels', each in its share.

        Args:
            loss: function of labels `(batch, ...)` and weights to a tensor.
            labels: tensor `(batch, ...)`.
            weights: tensor `(batch,)` or `None`. Of the pictures; a partner's label has the partner's weight.
        """
        share, counter = ops.convert_to_tensor(self.share), ops.cast(self.counter, "int32")
        others = None if weights is None else self._of_partners(weights, counter)
        return share * loss(labels, weights) + (1 - share) * loss(self._of_partners(labels, counter), others)

    def _of_partners(self, values, counter):
        """Returns the values of the partners, `(batch, ...)`; a partner may be on another device."""
        engine, here = devices.current(), places_in_batch(ops.shape(values)[0])
        places = ops.arange(ops.shape(values)[0] * engine.num_shares, dtype="int32")
        keys = ops.stack([ops.broadcast_to(counter, ops.shape(places)), places], axis=1)
        partners = draws.permutation(keys, self.draw_stream(_PARTNER))
        return ops.take(engine.whole_batch(values), ops.take(partners, here), axis=0)

    def compute_output_spec(self, images, keys=None, training=False):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "mixup": self.mixup, "cutmix": self.cutmix}
