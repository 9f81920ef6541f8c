"""Classifier builders: a KerasHub backbone with everything from raw pictures to logits in one `keras.Model`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_dogs import layers
from keras_dogs.errors import UserError
from keras_dogs.models import families as table
from keras_dogs.models import imagenet
from keras_dogs.models.classifier import Classifier
from keras_dogs.models.weights import Loaded
from keras_dogs.models.weights import load_backbone
from keras_dogs.models.weights import own_models
from keras_dogs.models.weights import vits
from keras_dogs.runs import artifacts
from keras_dogs.system import progress

Side = int | tuple[int, int]  # of a square, or rows and columns; pixels
# The canvas on which a dataset is kept is larger than the model's input by the usual 256 to 224.
_CANVAS_RATIO = 256 / 224


def build_vit(
    preset: str = "vit_base_patch16_224_imagenet21k",
    num_classes: int | None = 120,
    image_size: Side | None = None,
    augmentation: str | layers.Augmentation = "standard",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    load_weights: bool = True,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> Classifier:
    """Builds a Vision Transformer classifier (ViT, DeiT or DINOv2): `build_classifier` that refuses other families.

    Example:
    ```python
    import keras_dogs

    classifier = keras_dogs.build_vit("vit_nano", num_classes=24)
    logits = classifier.predict(pictures)  # uint8 or float RGB in [0, 255], (batch, height, width, 3)
    ```
    """
    return build_classifier(
        preset,
        num_classes,
        image_size,
        augmentation,
        dropout,
        drop_path,
        load_weights,
        dtype,
        seed,
        families=table.VIT_FAMILIES,
        **kwargs,
    )


def build_resnet(
    preset: str = "resnet_50_imagenet",
    num_classes: int | None = 120,
    image_size: Side | None = None,
    augmentation: str | layers.Augmentation = "standard",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    load_weights: bool = True,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> Classifier:
    """Builds a ResNet classifier: `build_classifier` that refuses other families.

    Example:
    ```python
    import keras_dogs

    classifier = keras_dogs.build_resnet("resnet_34", num_classes=120, load_weights=False)
    ```
    """
    return build_classifier(
        preset,
        num_classes,
        image_size,
        augmentation,
        dropout,
        drop_path,
        load_weights,
        dtype,
        seed,
        families=("resnet",),
        **kwargs,
    )


@vits.known_shapes()
def build_classifier(
    preset: str,
    num_classes: int | None = 120,
    image_size: Side | None = None,
    augmentation: str | layers.Augmentation = "standard",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    load_weights: bool = True,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    canvas_size: Side | None = None,
    fit: str = "squash",
    families: Sequence[str] | None = None,
    head: str = "zero",
    positions: str | None = None,
    remat: bool = False,
) -> Classifier:
    """Builds a classifier from raw pictures to logits: augmentation, conversion, backbone, pooling, head.

    Augmentation is active in training only. A picture of any size is brought to the canvas first (`canvas_size`,
    `fit`), exactly as `predict_pictures` brings files there, and from there to `image_size`.

    Args:
        preset: str. A name of `models.presets.PRESETS`, `kaggle://...`, `hf://...`; a local folder of KerasHub,
            Hugging Face or timm; an `.npz` of google-research or its address; `applications:resnet50[:weights file]`; a
            `.safetensors` or `.pth` file of timm or torchvision; a run folder or `.keras` file of ours. See
            `keras_dogs.models.weights`.
        num_classes: int or `None`. The head's outputs; it starts at zero. `None` keeps the preset's own head.
        image_size: int, pair of ints (rows, columns) or `None`. What the backbone sees, pixels; `None` is the preset's
            own. The position embeddings of a ViT are resampled.
        augmentation: str or `keras_dogs.layers.Augmentation`. A key of `keras_dogs.layers.AUGMENTATIONS`: `"none"`,
            `"light"`, `"standard"`, `"strong"`, `"keras"`; or a row of your own.
        dropout: float in [0, 1). Dropout before the head.
        drop_path: float in [0, 1). Stochastic depth: the share of pictures that skip the last block's branches; it
            rises from 0 with the depth. ViTs only.
        load_weights: bool. `False` starts the backbone at random, with no network, the same on every backend.
        dtype: str or `keras.DTypePolicy` or `None`. The backbone's policy, such as `"mixed_bfloat16"`; pixels and
            logits stay in float32.
        seed: int. The draws of augmentation, dropout and drop-path depend on it, the step, and the place in the batch.
        class_names: sequence of str or `None`. Kept in the head and saved with the model.
        canvas_size: int, pair of ints or `None`. The side of the square, or the rows and columns, in pixels, to which
            pictures of any other size are resized first. `None` is 8/7 of `image_size`, or `image_size` itself where
            the augmentation draws nothing at random.
        fit: str. How pictures of other proportions are fitted to the canvas: `"squash"`, `"crop"` or `"pad"`.
        families: sequence of str or `None`. Refuse a preset of any other family.
        head: str. `"zero"`, or `"imagenet"` to keep the rows of the preset's ImageNet head that stand for
            `class_names`, breeds of Stanford Dogs.
        positions: str or `None`. How positions are resampled: `"bicubic"` (antialiased), `"bicubic_plain"`, `"linear"`
            (the ViT paper's), or the source's own way.
        remat: bool. Compute each block's activations again for its gradient instead of keeping them. ViTs only.

    Returns:
        `keras.Model` from uint8 or float RGB in [0, 255], `(batch, height, width, 3)`, to float32 logits
        `(batch, num_classes)`.

    Raises:
        UserError: the preset is unknown or cannot be loaded, or does not fit the other arguments.

    Example:
    ```python
    classifier = keras_dogs.build_classifier("resnet_nano", num_classes=4, augmentation="light", image_size=48)
    assert classifier.predict(pictures).shape == (len(pictures), 4)
    ```
    """
    policy = _find_policy(augmentation)
    _check_head(preset, num_classes, load_weights, head, class_names)
    with_head = num_classes is None or head == "imagenet"
    loaded = load_backbone(preset, image_size, load_weights, dtype, with_head, seed, positions)
    _say_what_was_loaded(preset, loaded)
    _check_family(preset, loaded.family, families, drop_path, remat)

    images = keras.Input((None, None, 3), name="images")
    counter = layers.DrawKeys(seed, name="draw_keys")
    keys = counter(images)
    canvas_size = canvas_size or default_canvas_size(loaded.image_size, policy)
    pixels = _draw_pixels(images, keys, loaded, policy, canvas_size, fit)
    _prepare_blocks(loaded, drop_path, remat, counter)
    features = _pool(loaded, loaded.backbone(_as_inputs(loaded.backbone, pixels)))
    if with_head:
        return _finish_with_head(images, features, keys, loaded, dropout, class_names, head)
    return _finish(images, features, keys, layers.ClassifierHead(num_classes, class_names, name="head"), dropout)


def _draw_pixels(images, keys, loaded: Loaded, policy: layers.Augmentation, canvas_size, fit: str):
    """Brings pictures to what the backbone sees: augmentation of the canvas, crop, conversion, erasing, mixing."""
    crop = layers.RandomResizedCrop(
        *loaded.image_size,
        **policy.crop,
        interpolation=loaded.interpolation,
        canvas_size=canvas_size,
        fit=fit,
        canvas_interpolation=loaded.interpolation,
        name="crop",
    )
    pixels = crop(_augment_canvas(images, keys, policy), keys)
    pixels = layers.ColorJitter(loaded.scale, loaded.offset, **policy.color, name="conversion")(pixels, keys)
    if policy.erasing:
        pixels = layers.RandomErasing(**policy.erasing, name="erasing")(pixels, keys)
    if policy.mixing:
        pixels = layers.Mixing(**policy.mixing, name="mixing")(pixels, keys)
    return pixels


def _prepare_blocks(loaded: Loaded, drop_path: float, remat: bool, counter) -> None:
    """Puts stochastic depth and rematerialisation into the backbone's blocks."""
    row = table.family(loaded.family)
    if drop_path:
        layers.drop_paths(loaded.backbone, row.block, row.branch_ends, drop_path, counter)
    if remat:
        layers.rematerialise(loaded.backbone, row.block)


def _as_inputs(backbone: keras.Model, pixels):
    """Wraps the pixels as the backbone expects its input: in a dict for DINOv2 and DINOv3, as they are for the rest."""
    named = backbone.input
    return dict.fromkeys(named, pixels) if isinstance(named, dict) else pixels


def _finish_with_head(images, features, keys, loaded: Loaded, dropout: float, class_names, head: str) -> Classifier:
    """Ends a classifier with the checkpoint's own head, or with the rows of it that stand for `class_names`."""
    kernel, bias, class_names = _choose_head(loaded.head, class_names, head)
    if loaded.head.pre_logits:
        features = _dense_as_loaded(features, loaded.head.pre_logits, "pre_logits")
    dense = layers.ClassifierHead(len(bias), class_names, name="head")
    classifier = _finish(images, features, keys, dense, dropout)
    dense.set_weights([kernel, bias])
    return classifier


def _finish(images, features, keys, dense: layers.ClassifierHead, dropout: float) -> Classifier:
    if dropout:
        features = layers.CountedDropout(dropout, name="dropout")(features, keys)
    return Classifier(images, dense(features), name="classifier")


def _check_head(preset: str, num_classes: int | None, load_weights: bool, head: str, class_names) -> None:
    if head not in ("zero", "imagenet"):
        raise UserError(f"head {head!r}: choose 'zero' or 'imagenet'")
    if head == "imagenet" and num_classes is None:
        raise UserError("head 'imagenet': needs num_classes and class_names; with None, the preset's own head stays")
    if head == "imagenet" and len(class_names or ()) != num_classes:
        raise UserError(f"head 'imagenet': needs class_names, one for each of {num_classes} classes")
    with_head = num_classes is None or head == "imagenet"
    if with_head and not load_weights:
        raise UserError(f"preset {preset}: load_weights=False has no head to keep; give num_classes and head='zero'")


def _check_family(preset: str, family: str, families, drop_path: float, remat: bool) -> None:
    if families and family not in families:
        builder = f"build_{table.family(family).kind}"
        raise UserError(f"preset {preset}: a {family}; use {builder} or build_classifier")
    those = ", ".join(table.DROP_PATH_FAMILIES)
    if drop_path and family not in table.DROP_PATH_FAMILIES:
        raise UserError(f"--drop-path {drop_path}: only {those} have it; {preset} is a {family}")
    if remat and family not in table.DROP_PATH_FAMILIES:
        raise UserError(f"--remat: only {those} have it; {preset} is a {family}")


def _say_what_was_loaded(preset: str, loaded: Loaded) -> None:
    """Prints what of a checkpoint is not used, so that nothing is left out in silence."""
    if loaded.ignored:
        # Names that differ only in a number are printed once: fifty batch-norm counters make one entry.
        alike = {re.sub(r"\d+", "N", name): name for name in loaded.ignored}
        kinds = [f"{name} and the like" if pattern != name else name for pattern, name in alike.items()]
        progress.open_console().print(f"{preset}: tensors that are not used: {', '.join(kinds)}")
    for note in loaded.notes:
        progress.open_console().print(f"{preset}: {note}")


def _choose_head(loaded_head, class_names, head: str):
    """Returns kernel, bias and class names: of the whole head, or the rows that stand for `class_names`."""
    kernel, bias = loaded_head.kernel, loaded_head.bias
    if head == "imagenet":
        places = imagenet.places_in_head(class_names, len(bias))
        return kernel[:, places], bias[places], class_names
    return kernel, bias, class_names or loaded_head.class_names


def _dense_as_loaded(features, weights, name: str):
    """Builds the "pre-logits" layer, with tanh and the checkpoint's weights (arXiv 2010.11929, 3.1)."""
    layer = keras.layers.Dense(weights[0].shape[1], activation="tanh", dtype="float32", name=name)
    features = layer(features)
    layer.set_weights(weights)
    return features


def _find_policy(augmentation) -> layers.Augmentation:
    if isinstance(augmentation, layers.Augmentation):
        return augmentation
    if augmentation not in layers.AUGMENTATIONS:
        raise UserError(f"augmentation {augmentation!r}: choose one of {', '.join(layers.AUGMENTATIONS)}")
    return layers.AUGMENTATIONS[augmentation]


def _augment_canvas(images, keys, policy: layers.Augmentation):
    """Applies the augmentation that comes before the crop."""
    for name, arguments in policy.keras_layers:
        images = getattr(keras.layers, name)(**arguments)(images)
    if policy.randaugment:
        images = layers.RandAugment(**policy.randaugment, name="randaugment")(images, keys)
    if policy.affine:
        images = layers.RandomAffine(**policy.affine, name="affine")(images, keys)
    return images


def _pool(loaded: Loaded, features):
    """Pools the backbone's output to one vector per picture, as its family does."""
    dtype = loaded.backbone.dtype_policy.name
    if loaded.pooling != "average":
        features = layers.TokenPooling(loaded.pooling, loaded.num_prefix, dtype=dtype, name="pooling")(features)
    else:
        features = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="pooling")(features)
    if loaded.fc_norm is not None:
        layer = keras.layers.LayerNormalization(epsilon=1e-6, dtype=dtype, name="fc_norm")
        features = layer(features)
        layer.set_weights(loaded.fc_norm)
    return features


def default_canvas_size(image_size: tuple[int, int], policy: layers.Augmentation) -> int | tuple[int, int]:
    """Returns the canvas size for an input size: 256 for 224, to leave room for crops; 224 if nothing is drawn."""
    rows, columns = (round(side * _CANVAS_RATIO) if policy.draws else side for side in image_size)
    return rows if rows == columns else (rows, columns)


def save_classifier(classifier: keras.Model, path: str | os.PathLike) -> None:
    """Saves architecture, weights and class names as one `.keras` file, without the optimizer.

    Example:
    ```python
    keras_dogs.save_classifier(classifier, "dogs.keras")
    ```
    """
    _without_optimizer(classifier).save(path)


def load_weights(classifier: keras.Model, path) -> None:
    """Loads the weights from a file that `save_classifier` wrote for the same architecture."""
    _without_optimizer(classifier).load_weights(path)


def _without_optimizer(classifier: keras.Model) -> keras.Model:
    """Returns the same layers in a model that was never compiled."""
    return Classifier(classifier.input, classifier.output, name=classifier.name)


@vits.known_shapes()
def load_classifier(path: str | os.PathLike) -> Classifier:
    """Loads a classifier that `save_classifier` or training wrote, on whichever backend runs now.

    Args:
        path: a `.keras` file, or a run folder.

    Raises:
        UserError: the file is missing or is not such a model.

    Example:
    ```python
    keras_dogs.save_classifier(classifier, "dogs.keras")
    logits = keras_dogs.load_classifier("dogs.keras").predict(pictures)
    ```
    """
    path = Path(path)
    return own_models.read_model(artifacts.model_of(path) or path)
