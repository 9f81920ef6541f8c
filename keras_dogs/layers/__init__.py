"""Layers of the model graph, and the table of augmentation policies.

Every layer that draws does so from `draws`: the same bits on every backend.
"""

from typing import NamedTuple

from keras_dogs.layers.classifier_head import ClassifierHead
from keras_dogs.layers.color_jitter import ColorJitter
from keras_dogs.layers.draw_keys import DrawKeys
from keras_dogs.layers.dropping import CountedDropout
from keras_dogs.layers.dropping import DropPath
from keras_dogs.layers.dropping import drop_paths
from keras_dogs.layers.image_table import ImageTable
from keras_dogs.layers.mixing import Mixing
from keras_dogs.layers.rand_augment import RandAugment
from keras_dogs.layers.random_affine import RandomAffine
from keras_dogs.layers.random_erasing import RandomErasing
from keras_dogs.layers.random_resized_crop import RandomResizedCrop
from keras_dogs.layers.remat import rematerialise
from keras_dogs.layers.token_pooling import TokenPooling

_RATIO = (3 / 4, 4 / 3)


class Augmentation(NamedTuple):
    """What happens to a picture in training: the arguments of each layer, in the order of the graph; empty is without.

    Attributes:
        source: str. Where it comes from.
        randaugment: of `RandAugment`, on the canvas.
        affine: of `RandomAffine`, on the canvas.
        crop: of `RandomResizedCrop`.
        color: of `ColorJitter`.
        erasing: of `RandomErasing`.
        mixing: of `Mixing`.
        keras_layers: class names and arguments of Keras' own layers, on the canvas.
    """

    source: str
    randaugment: dict = {}
    affine: dict = {}
    crop: dict = {}
    color: dict = {}
    erasing: dict = {}
    mixing: dict = {}
    keras_layers: tuple = ()

    @property
    def draws(self) -> bool:
        """Whether anything is random."""
        return any(self[1:])


AUGMENTATIONS = {
    "none": Augmentation("no draw: the canvas, resized, as at inference"),
    "light": Augmentation(
        "ours, for heads and small sets: the dog stays whole",
        crop=dict(scale=(0.7, 1.0), ratio=(0.9, 1 / 0.9), flip=0.5),
    ),
    "standard": Augmentation(
        "torchvision's crop and flip, with boxes no smaller than 0.35, and half of the usual jitter of 0.4, as colours "
        "tell breeds",
        crop=dict(scale=(0.35, 1.0), ratio=_RATIO, flip=0.5),
        color=dict(brightness=0.2, contrast=0.2, saturation=0.2),
    ),
    "strong": Augmentation(
        "AugReg's medium1 (arXiv 2106.10270; big_vision, configs/vit_i21k.py): inception crop, flip, "
        "RandAugment(2, 15), mix-up 0.2",
        crop=dict(scale=(0.05, 1.0), ratio=_RATIO, flip=0.5),
        randaugment=dict(num_layers=2, magnitude=15.0),
        mixing=dict(mixup=0.2),
    ),
    "keras": Augmentation(
        "Keras' own layers, for comparison (keras.io, image_classification_efficientnet_fine_tuning.py): other draws "
        "on each backend, and compilation goes off",
        keras_layers=(
            ("RandomRotation", dict(factor=0.15)),
            ("RandomTranslation", dict(height_factor=0.1, width_factor=0.1)),
            ("RandomFlip", dict(mode="horizontal")),
            ("RandomContrast", dict(factor=0.1, value_range=(0, 255))),
        ),
    ),
}

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "ClassifierHead",
    "ColorJitter",
    "CountedDropout",
    "DrawKeys",
    "DropPath",
    "ImageTable",
    "Mixing",
    "RandAugment",
    "RandomAffine",
    "RandomErasing",
    "RandomResizedCrop",
    "TokenPooling",
    "drop_paths",
    "rematerialise",
]
