"""Where a classifier looked: attention rollout for ViTs, Grad-CAM for ResNets, on whichever backend runs."""

import collections
import contextlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import keras_inside
from keras_dogs.data.datasets import display_name
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.errors import UserError
from keras_dogs.errors import write_error
from keras_dogs.evaluation import figures
from keras_dogs.evaluation.answers import probabilities_of
from keras_dogs.evaluation.inference import class_names_of
from keras_dogs.evaluation.scoring import log_softmax
from keras_dogs.models import families
from keras_dogs.system import files
from keras_dogs.system import ownership
from keras_dogs.system import progress


class Explanation(NamedTuple):
    """Where a classifier looked in one picture.

    Attributes:
        heat: float32 array `(rows, columns)`, at least 0: one value per patch of a ViT, or per position in the last
            feature maps of a ResNet.
        method: str. `"attention rollout"` or `"Grad-CAM"`.
        class_name: str. What it took the picture for. Grad-CAM explains this class; a rollout depends on no class.
        probability: float. Of that class.
        canvas: uint8 array `(rows, columns, 3)`. What it was given.
    """

    heat: np.ndarray
    method: str
    class_name: str
    probability: float
    canvas: np.ndarray


def explain_picture(classifier: keras.Model, file: Path, temperature: float | None = None) -> Explanation:
    """Explains what a classifier makes of one picture file.

    Args:
        classifier: `keras.Model` that `load_classifier` gave.
        file: Path.
        temperature: float or `None`. What logits are divided by for the probability: that of the run's calibration.

    Raises:
        UnreadablePicture: the picture cannot be read.
        UserError: the classifier is of a family that has no such method here.

    Example:
    ```python
    found = keras_dogs.explain_picture(classifier, "dog.png")
    print(found.method, found.class_name, found.heat.shape)
    ```
    """
    return explain_canvas(classifier, to_canvas(open_picture(file), **classifier.canvas), temperature)


def explain_canvas(classifier: keras.Model, canvas: np.ndarray, temperature: float | None = None) -> Explanation:
    """Explains what a classifier makes of one canvas, uint8 `(rows, columns, 3)`, as `explain_picture` does."""
    check_explained(classifier)
    batch = canvas[None]
    logits = ops.convert_to_numpy(classifier(batch, training=False))
    label = int(logits[0].argmax())
    if is_convolutional(classifier):
        heat, method = grad_cam(classifier, batch, [label]), "Grad-CAM"
    else:
        heat, method = attention_rollout(classifier, batch), "attention rollout"
    probability = float(probabilities_of(logits, temperature)[0, label])
    return Explanation(heat[0], method, class_names_of(classifier)[label], probability, canvas)


def check_explained(classifier: keras.Model) -> None:
    """Refuses a classifier of a family that has no such method here.

    Raises:
        UserError: it is.
    """
    if families.family(classifier.family).explanation == "none":
        raise UserError(f"explain: a {classifier.family} pools by attention of its own, which is not followed here")


def is_convolutional(classifier: keras.Model) -> bool:
    """Returns whether it is explained by Grad-CAM, as a ResNet is."""
    return families.family(classifier.family).explanation == "Grad-CAM"


def attention_rollout(classifier: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns how much of each patch reaches what the head sees, through attention and shortcuts, block after block.

    Abnar and Zuidema, arXiv 2005.00928, section 3: the mean over heads, half of it the identity for the shortcut, and
    the product over blocks. It knows neither the MLPs nor the class.

    Args:
        classifier: `keras.Model`, a ViT, DeiT or DINOv2.
        images: array `(batch, height, width, 3)`, in [0, 255].

    Returns:
        float32 array `(batch, rows, columns)` of patches.

    Raises:
        UserError: its backbone has no attention layers of Keras.

    Example:
    ```python
    heat = keras_dogs.attention_rollout(vit, pictures)
    ```
    """
    flow = None
    for weights in attention_weights(classifier, images):
        weights = weights.mean(axis=1)
        step = 0.5 * weights + 0.5 * np.eye(weights.shape[-1])
        flow = step if flow is None else step @ flow
    pooling = classifier.get_layer("pooling")
    reached = _pooled(flow, pooling.kind, pooling.num_prefix)[:, pooling.num_prefix :]
    rows, columns = _grid(classifier, reached.shape[1])
    return reached.reshape(-1, rows, columns).astype(np.float32)


def attention_weights(classifier: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Returns the attention matrices of a ViT, head by head (Dosovitskiy et al., arXiv 2010.11929, appendix A).

    Args:
        classifier: `keras.Model`, a ViT, DeiT or DINOv2.
        images: array `(batch, height, width, 3)`, in [0, 255].

    Returns:
        list of float64 arrays `(batch, heads, tokens, tokens)`, one a block. A row says how much of each token goes
        into that token, and sums to 1. The first token is the class token where there is one; patches come last, row by
        row.

    Raises:
        UserError: its backbone has no attention layers of Keras.

    Example:
    ```python
    last_block = keras_dogs.attention_weights(vit, pictures)[-1]
    of_the_class_token = last_block[:, :, 0]
    ```
    """
    attention = [
        layer
        for layer in keras_inside.layers_of(classifier.backbone)
        if isinstance(layer, keras.layers.MultiHeadAttention)
    ]
    if not attention:
        family = classifier.family
        raise UserError(f"attention: a {family} keeps its attention to itself; ViT, DeiT and DINOv2 show it")
    whole = keras.Model(classifier.input, classifier.output)  # computes every token of the last block
    with _inputs_of(attention) as seen, backends.layer_by_layer():
        whole(images, training=False)
    return [_weights_of(layer, query) for layer, query in seen]


@contextlib.contextmanager
def _inputs_of(attention: list):
    """Keeps `(layer, query)` of each layer as the model comes to it."""
    seen: list = []

    def watching(layer, call):
        def watch(query, *arguments, **named):
            seen.append((layer, query))
            return call(query, *arguments, **named)

        return watch

    calls = [layer.call for layer in attention]  # the class' own, or a faster one
    for layer, call in zip(attention, calls):
        layer.call = watching(layer, call)
    try:
        yield seen
    finally:
        for layer, call in zip(attention, calls):
            layer.call = call


def _weights_of(layer, query) -> np.ndarray:
    """Returns the softmax of the scaled query-key products: float64 `(batch, heads, tokens, tokens)`."""
    asked, offered = (
        np.asarray(ops.convert_to_numpy(dense(query)), np.float64) for dense in (layer.query_dense, layer.key_dense)
    )
    return np.exp(log_softmax(np.einsum("bqhd,bkhd->bhqk", asked, offered) * layer.get_config()["key_dim"] ** -0.5))


def _pooled(flow: np.ndarray, kind: str, num_prefix: int) -> np.ndarray:
    """Returns what the head sees of the tokens: the class token, both, or averages; `(batch, tokens)`."""
    token, tokens, patches = flow[:, 0], flow.mean(axis=1), flow[:, num_prefix:].mean(axis=1)
    return {
        "token": token,
        "two_tokens": flow[:, :2].mean(axis=1),
        "average_of_tokens": tokens,
        "average_of_patches": patches,
        "token_and_average": (token + patches) / 2,
    }[kind]


def _grid(classifier: keras.Model, num_patches: int) -> tuple[int, int]:
    height, width = classifier.get_layer("crop").compute_output_spec(classifier.inputs[0]).shape[1:3]
    rows = round((num_patches * height / width) ** 0.5)
    return rows, num_patches // rows


def grad_cam(classifier: keras.Model, images: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Returns where the last feature maps speak for a class (Selvaraju et al., arXiv 1610.02391, section 3).

    The head is linear in the mean of the maps, so that the gradient of a logit by a map is its weight over the number
    of places: no backend's differentiation is needed.

    Args:
        classifier: `keras.Model`, a ResNet.
        images: array `(batch, height, width, 3)`, in [0, 255].
        labels: sequence of int `(batch,)`. The class of each.

    Returns:
        float32 array `(batch, rows, columns)`.

    Example:
    ```python
    heat = keras_dogs.grad_cam(resnet, pictures, labels)
    ```
    """
    features = keras.Model(classifier.input, classifier.get_layer("pooling").input)
    maps = np.asarray(ops.convert_to_numpy(features(images, training=False)), np.float64)
    kernel = np.asarray(ops.convert_to_numpy(classifier.head.kernel), np.float64)
    num_places = maps.shape[1] * maps.shape[2]
    heat = np.einsum("bhwc,cb->bhw", maps, kernel[:, list(labels)] / num_places)
    return np.maximum(heat, 0).astype(np.float32)


def explain_files(classifier: keras.Model, pictures: list[Path], folder: Path, temperature: float | None = None):
    """Explains pictures and draws each to a file; yields `(file, Explanation, drawn)`.

    Args:
        classifier: `keras.Model`.
        pictures: list of Path.
        folder: Path. It is made with the first figure; `check_output` has seen it. What is in it and is not of an
            earlier explanation is not replaced.
        temperature: float or `None`. See `explain_picture`.

    Yields:
        `(file, Explanation, path of the figure)` of each picture; `(file, None, why it cannot be read)` of others.

    Raises:
        UserError: a file of another's is in the way, or the classifier has no such explanation.
    """
    names = _names_of_figures(pictures)
    ownership.check_replaceable(folder, names)
    is_claimed = False
    with progress.counting("Explaining (pictures)", len(pictures)) as on_picture:
        for file, name in zip(pictures, names):
            try:
                found = explain_picture(classifier, file, temperature)
            except UnreadablePicture as error:
                yield file, None, str(error)
                continue
            finally:
                on_picture()
            title = f"{display_name(found.class_name)}, {found.probability:.0%}"
            try:
                if not is_claimed:
                    folder.mkdir(parents=True, exist_ok=True)
                    ownership.claim(folder, ownership.EXPLAIN, (*ownership.listed(folder), *names))
                    is_claimed = True
                with files.written_whole(folder / name) as temporary:
                    figures.draw_explanation(found.canvas, found.heat, f"{title} ({found.method})", temporary)
            except OSError as error:
                raise write_error(folder, error) from error
            yield file, found, folder / name


def _names_of_figures(pictures: list[Path]) -> list[str]:
    """Returns the name of each picture's figure; with a number where two would share a file on some system."""
    names, taken = [], collections.Counter(_folded(file.stem) for file in pictures)
    for number, file in enumerate(pictures):
        name = file.stem
        while taken[_folded(name)] > (name == file.stem):
            name = f"{number:03d}-{name}"
        taken[_folded(name)] += 1
        names.append(f"{name}.png")
    return names


def _folded(name: str) -> str:
    """Returns a name as Windows and macOS compare it."""
    return unicodedata.normalize("NFC", name).casefold()
