"""Layers of the model graph, and the table of augmentation policies.

`RandomResizedCrop` is everything between a canvas and the backbone's input size; a policy is its arguments.
"""

from keras_dogs.layers.class_token import ClassToken
from keras_dogs.layers.classifier_head import ClassifierHead
from keras_dogs.layers.random_resized_crop import RandomResizedCrop

_RATIO = (3 / 4, 4 / 3)

AUGMENTATIONS = {
    # No draw: the whole canvas, resized, as at inference.
    "none": dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0),
    # For heads on frozen features and small sets: the dog stays whole.
    "light": dict(scale=(0.7, 1.0), ratio=(0.9, 1 / 0.9), flip=0.5),
    # Between the two: fine-tuning on crops that keep most of the dog.
    "standard": dict(scale=(0.35, 1.0), ratio=_RATIO, flip=0.5),
    # The inception crop of the ViT paper's code (google-research/vision_transformer, input_pipeline.py).
    "strong": dict(scale=(0.05, 1.0), ratio=_RATIO, flip=0.5),
}

__all__ = ["AUGMENTATIONS", "ClassToken", "ClassifierHead", "RandomResizedCrop"]
