"""Models that share the layers of a classifier: over a table of pictures, up to the features, up to the backbone."""

import keras
import numpy as np

from keras_dogs import backends
from keras_dogs import layers
from keras_dogs.models.classifier import Classifier
from keras_dogs.models.classifier import PooledModel
from keras_dogs.models.weights import vits


def from_table(classifier: keras.Model, canvases: np.ndarray) -> keras.Model:
    """Returns the classifier over indices `(batch,)` into a table of pictures on the device; layers are shared.

    Args:
        classifier: `keras.Model`.
        canvases: uint8 array of shape `(num_pictures, rows, columns, 3)`.
    """
    indices = keras.Input((), dtype="int32", name="indices")
    pictures = layers.ImageTable(canvases, name="image_table")(indices)
    return Classifier(indices, classifier(pictures), name="classifier_from_table")


@vits.known_shapes()
def feature_extractor(classifier: keras.Model) -> keras.Model:
    """Returns the part of a classifier before its head: pictures -> features `(batch, hidden)`; layers are shared.

    Example:
    ```python
    features = keras_dogs.feature_extractor(classifier).predict(pictures)
    ```
    """
    return PooledModel(classifier.input, classifier.head.input, name="feature_extractor")


@vits.known_shapes()
def view_extractor(classifier: keras.Model) -> keras.Model:
    """Returns pictures -> features of an augmented view of each, with other draws at each call; layers are shared.

    The backbone is as at inference: batch norms use, and keep, their statistics.
    """
    pipeline = image_pipeline(classifier)
    names = [layer.name for layer in classifier.layers]
    features = classifier.get_layer("dropout").input[0] if "dropout" in names else classifier.head.input
    backends.trace(pipeline)
    rest = PooledModel(pipeline.output, features)
    return _ViewExtractor(pipeline, rest, classifier.get_layer("draw_keys"))


class _ViewExtractor(keras.Model):
    def __init__(self, pipeline, rest, counter):
        super().__init__(name="view_extractor")
        self.pipeline, self.rest, self.counter = pipeline, rest, counter
        self.first_step = 0
        self.built = True  # its parts are

    def go_to(self, batch: int) -> None:
        """Sets the next batch's number, on which its draws depend: processes may share the batches of a view."""
        self.counter.step.assign(self.first_step + batch)

    def call(self, images):
        return self.rest(self.pipeline(images, training=True), training=False)


def image_pipeline(classifier: keras.Model) -> keras.Model:
    """Returns the part of a classifier before its backbone: pictures -> what the backbone sees; layers are shared."""
    names = [layer.name for layer in classifier.layers]
    last = next(name for name in ("mixing", "erasing", "conversion") if name in names)
    return keras.Model(classifier.input, classifier.get_layer(last).output, name="image_pipeline")
