"""The table of pairs: which ViT is held against which ResNet, and what must be said of it."""

from typing import NamedTuple


class Pair(NamedTuple):
    """A row of the table.

    Attributes:
        presets: the two presets, the ResNet first.
        dataset: str. The default of `--dataset`.
        flags: tuple of str. Of `train`, for both.
        fairness: str. What is equal and what is not between the presets, for the report.
        of_flags: str. The same of `flags`, where they were not changed.
        of_dataset: str. The same of `dataset`, where it was not changed.
    """

    presets: tuple[str, str]
    dataset: str
    flags: tuple[str, ...]
    fairness: str
    of_flags: str = ""
    of_dataset: str = ""


_OF_STANFORD_DOGS = (
    "Stanford Dogs is a part of ImageNet, so both have most likely seen the test pictures with their labels."
)

PAIRS = {
    "embedded": Pair(
        presets=("resnet_nano", "vit_nano"),
        dataset="drawn_dogs",
        flags=("--epochs", "5"),
        fairness="Two small models that keras_dogs is shipped with, pretrained on other drawn dogs: a demonstration of "
        "the comparison in minutes. It says nothing of photographs or of models of usual size.",
        of_flags="Both train for 5 epochs, fewer than either is tuned for (resnet_nano 10, vit_nano 20), which costs "
        "the ViT more.",
    ),
    "customary": Pair(
        presets=("resnet_50_imagenet", "vit_base_patch16_224_imagenet21k"),
        dataset="stanford_dogs",
        flags=(),
        fairness="The pair that tutorials compare. It is not even: the ViT was pretrained on ImageNet-21k, ten times "
        "the pictures, and has 3.6 times the parameters and 4.3 times the operations of the ResNet.",
        of_dataset=_OF_STANFORD_DOGS,
    ),
    "same-pretraining": Pair(
        presets=("resnet_50_imagenet", "deit_base_distilled_patch16_224_imagenet"),
        dataset="stanford_dogs",
        flags=(),
        fairness="Both were pretrained on ImageNet-1k alone with modern recipes (ResNet-50 a1, arXiv 2110.00476; "
        "DeiT-B, arXiv 2012.12877). The DeiT was distilled from a RegNet, a convolutional network, and is the larger.",
        of_dataset=_OF_STANFORD_DOGS,
    ),
}
