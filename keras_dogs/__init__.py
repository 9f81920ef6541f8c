"""Fine-tune ViT and ResNet image classifiers on dogs, the same on JAX, TensorFlow and PyTorch.

Public names are loaded when they are first used: `import keras_dogs` loads no Keras.
"""

import importlib

from keras_dogs import registered

__version__ = "0.1.0"

_PUBLIC = {
    "build_vit": "keras_dogs.models",
    "build_resnet": "keras_dogs.models",
    "build_classifier": "keras_dogs.models",
    "load_classifier": "keras_dogs.models",
    "save_classifier": "keras_dogs.models",
    "load_dataset": "keras_dogs.datasets",
    "fine_tune": "keras_dogs.training",
    "evaluate_classifier": "keras_dogs.evaluation",
    "predict_pictures": "keras_dogs.inference",
    "TrainConfig": "keras_dogs.config",
    "DataConfig": "keras_dogs.config",
    "RunRecord": "keras_dogs.records",
    "UserError": "keras_dogs.errors",
}

__all__ = [*_PUBLIC, "__version__"]

registered.register()


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_dogs' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted(__all__)
