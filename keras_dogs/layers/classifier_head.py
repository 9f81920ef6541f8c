"""The head: a Dense layer that starts at zero and knows the names of its classes."""

import keras


@keras.saving.register_keras_serializable(package="keras_dogs")
class ClassifierHead(keras.layers.Dense):
    """Features -> logits in float32, `(batch, hidden)` -> `(batch, num_classes)`.

    Kernel and bias start at zero, so that every backend starts from the same place and the backbone is not shaken by a
    random head (arXiv 2010.11929, section 3.2).

    Args:
        num_classes: int.
        class_names: sequence of str or `None`. Saved with the model, so that a model file alone names what it sees.
    """

    def __init__(self, num_classes, class_names=None, **kwargs):
        kwargs = {"kernel_initializer": "zeros", "dtype": "float32", **kwargs}
        super().__init__(num_classes, **kwargs)
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes")
        self.class_names = list(class_names) if class_names is not None else None

    def get_config(self):
        config = super().get_config()
        return {"num_classes": config.pop("units"), "class_names": self.class_names, **config}
