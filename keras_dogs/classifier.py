"""The class of our models: a `keras.Model` whose loss knows of mix-up, and that keeps the loss of the last step."""

import keras
from keras import ops

from keras_dogs.layers import Mixing


@keras.saving.register_keras_serializable(package="keras_dogs")
class Classifier(keras.Model):
    """A functional `keras.Model` whose training loss is mixed as its pictures are.

    With mix-up or cut-mix in the graph, the loss that `compile` was given, whichever it is, is taken of the picture's
    label and of its partner's; `fit` and the metrics see plain labels. Without, this is a `keras.Model`.
    """

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """See `keras.Model.compute_loss`."""

        def loss(labels):
            return super(Classifier, self).compute_loss(x, labels, y_pred, sample_weight, training)

        mixing = self.mixing
        total = mixing.mix_losses(loss, y) if training and mixing else loss(y)
        for metric in self.metrics:
            for inner in getattr(metric, "metrics", ()):  # those that `compile` was given come in a bundle
                if isinstance(inner, StepLoss):
                    inner.value.assign(ops.stop_gradient(total))
        return total

    @property
    def mixing(self) -> Mixing | None:
        """The layer that mixes pictures, or `None`."""
        return next((layer for layer in self.layers if isinstance(layer, Mixing)), None)


@keras.saving.register_keras_serializable(package="keras_dogs")
class StepLoss(keras.metrics.Metric):
    """The training loss of the last batch alone; Keras' own `loss` is a running mean over the epoch.

    `Classifier.compute_loss` writes the value: only there does JAX let both the loss and the metrics be seen.
    """

    def __init__(self, name="step_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.value = self.add_variable((), initializer="zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Nothing is left to do."""

    def result(self):
        """The loss of the last batch, nats."""
        return ops.convert_to_tensor(self.value)
