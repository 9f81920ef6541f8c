"""Fine-tune ViT and ResNet image classifiers on dogs, the same on JAX, TensorFlow and PyTorch.

Public names are loaded when they are first used: `import keras_dogs` loads no Keras.
"""

import importlib
import sys

from keras_dogs.models import registered

__version__ = "0.1.0"

_PUBLIC = {
    "build_vit": "keras_dogs.models.builders",
    "build_resnet": "keras_dogs.models.builders",
    "build_classifier": "keras_dogs.models.builders",
    "load_classifier": "keras_dogs.models.builders",
    "save_classifier": "keras_dogs.models.builders",
    "bare": "keras_dogs.backends.register",
    "load_dataset": "keras_dogs.data.datasets",
    "fine_tune": "keras_dogs.training.fine_tuning",
    "evaluate_classifier": "keras_dogs.evaluation.evaluating",
    "predict_pictures": "keras_dogs.evaluation.inference",
    "explain_picture": "keras_dogs.evaluation.explanation",
    "attention_weights": "keras_dogs.evaluation.explanation",
    "attention_rollout": "keras_dogs.evaluation.explanation",
    "grad_cam": "keras_dogs.evaluation.explanation",
    "feature_extractor": "keras_dogs.models.submodels",
    "TrainConfig": "keras_dogs.training.config",
    "DataConfig": "keras_dogs.data.config",
    "RunRecord": "keras_dogs.runs.records",
    "UserError": "keras_dogs.errors",
}

_LOAD_KERAS = ("keras_dogs.models", "keras_dogs.training.fine_tuning", "keras_dogs.evaluation.explanation")

__all__ = [*_PUBLIC, "__version__"]

registered.register()


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_dogs' has no attribute {name!r}")
    if "keras" in sys.modules or not _PUBLIC[name].startswith(_LOAD_KERAS):
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    progress = importlib.import_module("keras_dogs.system.progress")
    with progress.busy("Loading Keras"):  # seconds, which a terminal shows
        return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted(__all__)
