"""The `keras.Model` subclass that the builders return, whose loss handles mix-up, and its own loss and metrics."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.backends.layers import speed_up
from keras_dogs.layers import Mixing
from keras_dogs.layers import TokenPooling
from keras_dogs.layers import class_token
from keras_dogs.layers.draw_keys import RandomLayer
from keras_dogs.models import contract
from keras_dogs.models import families
from keras_dogs.models.plain import canvas_shape
from keras_dogs.models.plain import plain_logits


class PooledModel(keras.Model):
    """A functional `keras.Model` that reaches the pooling, so that a ViT's last block computes only what is read."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        layers = keras_inside.layers_of(self)
        self._reads_one_token = any(isinstance(layer, TokenPooling) and layer.kind == "token" for layer in layers)
        if self._reads_one_token:
            class_token.prepare(self, *families.BLOCKS_FOR_ONE_TOKEN)
        backends.trace(self)

    def __setattr__(self, name, value):
        """Sets JAX's state without Keras' tracking, which would scan all variables in each step: 0.5 ms for a ViT."""
        if name == "_jax_state":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def call(self, inputs, training=None, mask=None, **kwargs):
        """See `keras.Model.call`."""
        with class_token.alone() if self._reads_one_token else contextlib.nullcontext():
            return super().call(inputs, training=training, mask=mask, **kwargs)


@keras.saving.register_keras_serializable(package="keras_dogs")
class Classifier(PooledModel):
    """A functional `keras.Model` that checks its inputs, and that mixes the training loss as it mixes the pictures.

    Batches that are not RGB pictures in [0, 255] are refused, and `from_logits=True` is set on every cross-entropy.

    With mix-up or cut-mix in the graph, the loss given to `compile`, whichever it is, is computed for the picture's own
    label and for its partner's, and the two are averaged by their shares; `fit` and the metrics see plain labels.
    Without them, it trains as any `keras.Model` does.
    """

    _weights_before = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        exact = backends.is_exact(self)
        for layer in keras_inside.layers_of(self):
            if isinstance(layer, RandomLayer):
                layer.exact = exact
        speed_up(self)

    @property
    def backbone(self) -> keras.Model:
        """The KerasHub (or keras.applications) model in it."""
        return next(layer for layer in self.layers if isinstance(layer, keras.Model))

    @property
    def family(self) -> str:
        """The family of the backbone, a key of `keras_dogs.models.families.FAMILIES`.

        Raises:
            UserError: the backbone is of none.
        """
        return families.of_backbone(self.backbone).name

    @property
    def head(self) -> keras.layers.Layer:
        """The layer that gives the logits."""
        return self.get_layer("head")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of the logits; `None` where nobody named them."""
        return self.head.class_names and tuple(self.head.class_names)

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return self.head.units

    @property
    def canvas_size(self) -> int | tuple[int, int]:
        """Side, or rows and columns, in pixels, to which a picture of any other size is brought first."""
        return self.get_layer("crop").canvas_size

    @property
    def canvas(self) -> dict:
        """How files become canvases: the keyword arguments of `data.datasets.opening.to_canvas`."""
        return self.get_layer("crop").canvas

    def __call__(self, inputs, *args, **kwargs):
        """See `keras.Model`."""
        if self._takes_pictures:
            contract.check_shape(inputs)
        return super().__call__(inputs, *args, **kwargs)

    @property
    def _takes_pictures(self) -> bool:
        """Whether the input is pictures, not indices into a table or features."""
        return len(self.inputs) == 1 and len(self.inputs[0].shape) == 4

    def _checked(self, x):
        return contract.checked(x) if self._takes_pictures else x

    def compile(self, optimizer="rmsprop", loss=None, *args, metrics=None, weighted_metrics=None, **kwargs):
        """See `keras.Model.compile`."""
        given = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        given = {name: contract.of_logits(each, is_metric=True) for name, each in given.items()}
        super().compile(optimizer, contract.of_logits(loss), *args, **given, **kwargs)

    def _compile_if_needed(self) -> None:
        """Compiles a model that nobody compiled, as KerasHub's tasks do, at the rate that is usual for its family."""
        if not self.compiled:
            rate = families.family(self.family).settings.learning_rate
            optimizer = keras.optimizers.AdamW(rate, weight_decay=0.0)
            self.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])

    def compile_from_config(self, config):
        """See `keras.Model.compile_from_config`, which leaves models out that have a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def forget_stale_functions(self) -> None:
        """Drops the compiled steps if the model's variables have changed since, as `enable_lora` of a layer does.

        On TensorFlow the old steps would go on using the old variables. Each method that runs steps calls it first.
        """
        weights = tuple(map(id, self.weights))
        if self._weights_before not in (None, weights):
            self.train_function = self.test_function = self.predict_function = None
        self._weights_before = weights

    def _build_optimizer(self) -> None:
        """Creates the optimizer's variables before the first step; TensorFlow would otherwise trace the step twice."""
        optimizer = getattr(self, "optimizer", None)
        if backends.name() == "tensorflow" and optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    def fit(self, x=None, *args, **kwargs):
        """See `keras.Model.fit`; without `compile`, AdamW and the cross-entropy of int labels."""
        self._compile_if_needed()
        self.forget_stale_functions()
        validation = kwargs.get("validation_data")
        if isinstance(validation, (tuple, list)) and len(validation):
            self._checked(validation[0])
        self._build_optimizer()
        return super().fit(self._checked(x), *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """See `keras.Model.evaluate`."""
        if kwargs.get("_use_cached_eval_dataset"):  # amid `fit`, which has looked at it
            return super().evaluate(x, *args, **kwargs)
        self._compile_if_needed()
        self.forget_stale_functions()
        return super().evaluate(self._checked(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """See `keras.Model.predict`."""
        self.forget_stale_functions()
        return super().predict(self._checked(x), *args, **kwargs)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """See `keras.Model.export`: exports an equivalent model of stock layers, the only ones every format can take.

        The input is canvases, float32 `(batch, rows, columns, 3)` of `canvas_size`; a SavedModel that TensorFlow writes
        takes pictures of any size. `python -m keras_dogs.export` also checks the file, and brings its preprocessing.
        """
        if format == "tf_saved_model" and backends.name() == "tensorflow":
            return super().export(filepath, format=format, **kwargs)
        model = plain_logits(self)
        model(np.zeros((1, *canvas_shape(self)), "float32"))  # PyTorch's exporter asks for a model that was called
        return model.export(filepath, format=format, **kwargs)

    def train_on_batch(self, x, *args, **kwargs):
        """See `keras.Model.train_on_batch`."""
        self._compile_if_needed()
        self.forget_stale_functions()
        self._build_optimizer()
        return super().train_on_batch(self._checked(x), *args, **kwargs)

    def test_on_batch(self, x, *args, **kwargs):
        """See `keras.Model.test_on_batch`."""
        self._compile_if_needed()
        self.forget_stale_functions()
        return super().test_on_batch(self._checked(x), *args, **kwargs)

    def predict_on_batch(self, x):
        """See `keras.Model.predict_on_batch`."""
        self.forget_stale_functions()
        return super().predict_on_batch(self._checked(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """See `keras.Model.compute_loss`."""

        def loss(labels, weights):
            return super(Classifier, self).compute_loss(x, labels, y_pred, weights, training)

        mixing = self.mixing
        total = mixing.mix_losses(loss, y, sample_weight) if training and mixing else loss(y, sample_weight)
        for metric in self.metrics:
            for inner in getattr(metric, "metrics", ()):  # those that `compile` was given come in a bundle
                if isinstance(inner, StepLoss):
                    inner.value.assign(devices.current().whole_loss(ops.stop_gradient(total)))
        return total

    @property
    def mixing(self) -> Mixing | None:
        """The layer that mixes pictures, or `None`."""
        return next((layer for layer in keras_inside.layers_of(self) if isinstance(layer, Mixing)), None)


@keras.saving.register_keras_serializable(package="keras_dogs")
class StepLoss(keras.metrics.Metric):
    """The training loss of the last batch alone; Keras' own `loss` is a running mean over the epoch.

    `Classifier.compute_loss` writes the value: only there does JAX let both the loss and the metrics be seen.
    """

    def __init__(self, name="step_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.value = self.add_variable((), initializer="zeros", name="value", aggregation="mean")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Does nothing: the value is known already."""

    def result(self):
        """Returns the loss of the last batch, nats; a tensor of its own, which may be read steps later."""
        return ops.convert_to_tensor(self.value) + 0.0


@keras.saving.register_keras_serializable(package="keras_dogs")
class TrainAccuracy(keras.metrics.Metric):
    """The share of an epoch's training pictures whose own label has the greatest logit, on whichever device.

    Batches count alike, as they are of one size; each device adds what is true of the whole batch.
    """

    def __init__(self, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.total, self.count = (
            self.add_variable((), initializer="zeros", name=name, aggregation="mean") for name in ("total", "count")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: labels `(batch,)`, logits `(batch, num_classes)`."""
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        right = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), labels)
        self.total.assign(self.total + devices.current().mean_over_shares(ops.mean(ops.cast(right, "float32"))))
        self.count.assign(self.count + 1.0)

    def result(self):
        """Returns a fraction in [0, 1]."""
        return self.total / ops.maximum(self.count, 1.0)


@keras.saving.register_keras_serializable(package="keras_dogs")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of int labels `(batch,)` and logits `(batch, num_classes)`, nats.

    Args:
        label_smoothing: float in [0, 1). Share of the target that is spread evenly over all classes, the label's
            included (Szegedy et al., arXiv 1512.00567, section 7). Keras has it for one-hot labels alone.
    """

    def __init__(self, label_smoothing=0.0, name="crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """Returns the loss of each picture, `(batch,)`."""
        labels = ops.reshape(y_true, (-1,))
        if not self.label_smoothing:
            return ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)
        targets = ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        return ops.categorical_crossentropy(targets, y_pred, from_logits=True)

    def get_config(self):
        """See `keras.losses.Loss`."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
