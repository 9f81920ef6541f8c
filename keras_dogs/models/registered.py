"""Lets Keras load files with our classes in them, although `import keras_dogs` loads neither Keras nor these classes.

Keras looks up the classes named in a file in a registry. Each of ours has a stand-in there, which imports the real
class when a file asks for it; the real class then takes the place of the stand-in.
"""

import importlib
import importlib.util
import sys

# What files of ours may name, and where it is.
CLASSES = {
    **dict.fromkeys(
        ("Classifier", "SmoothedCrossentropy", "StepLoss", "TrainAccuracy"),
        "keras_dogs.models.classifier",
    ),
    **dict.fromkeys(("ViTVariant", "DINOV2Variant"), "keras_dogs.models.weights.vits"),
    "WarmupCosine": "keras_dogs.training.optimizers",
    **dict.fromkeys(
        (
            *("ClassifierHead", "ColorJitter", "CountedDropout", "DrawKeys", "DropPath", "Mixing", "RandAugment"),
            *("RandomAffine", "RandomErasing", "RandomResizedCrop", "TokenPooling"),
        ),
        "keras_dogs.layers",
    ),
}


def register() -> None:
    """Puts the stand-ins into Keras' registry, now or as soon as Keras has been imported."""
    if "keras" in sys.modules:
        _fill(sys.modules["keras"])
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


def _fill(keras) -> None:
    if hasattr(keras, "saving"):  # it may be half imported, by a module that imports us
        known = keras.saving.get_custom_objects()
        for name, module in CLASSES.items():
            known.setdefault(f"keras_dogs>{name}", _stand_in(name, module))


def _stand_in(name: str, module: str) -> type:
    def from_config(cls, config):
        return getattr(importlib.import_module(module), name).from_config(config)

    return type(name, (), {"__module__": module, "from_config": classmethod(from_config)})


class _AfterKeras:
    """An import finder that finds nothing itself, and fills the registry when `keras` has been imported."""

    def __init__(self):
        self._is_asking = False

    def find_spec(self, name, path=None, target=None):
        if name != "keras" or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec("keras")
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:  # somebody may only ask whether Keras is there
            execute = spec.loader.exec_module

            def execute_and_fill(module):
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                execute(module)
                _fill(module)

            spec.loader.exec_module = execute_and_fill
        return spec
