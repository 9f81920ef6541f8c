"""Every family and source of weights comes back: saved, wrapped, cloned, quantised, adapted; with the same logits."""

import os
import warnings

import keras
import numpy as np
import pytest
from conftest import NOT_NEEDED
from keras import ops

import keras_dogs
from keras_dogs import backends
from keras_dogs.backends.on_torch import tracing
from keras_dogs.models import builders
from keras_dogs.models import submodels
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Loaded

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 64, 64, 3), dtype="uint8")
CONVERSION = ((1 / 127.5,) * 3, (-1.0,) * 3)
VIT = dict(patch_size=16, num_layers=2, num_heads=2, hidden_dim=16)


def loaded_vit(**changes):
    backbone = vits.build("vit", (64, 64), None, **VIT, mlp_dim=32, **changes)
    return Loaded(backbone, "vit", (64, 64), *CONVERSION, "token", interpolation="bicubic")


def loaded_without_token():
    """As timm's with `fc_norm` and google-research's with average pooling."""
    backbone = vits.build("vit", (64, 64), None, **VIT, mlp_dim=32, use_class_token=False, final_norm=False)
    norm = np.full(16, 1.5), np.full(16, 0.1)
    return Loaded(backbone, "vit", (64, 64), *CONVERSION, "average_of_patches", None, "bicubic", 0, norm)


def loaded_deit():
    backbone = vits.build("deit", (64, 64), None, **VIT, intermediate_dim=32)
    return Loaded(backbone, "deit", (64, 64), *CONVERSION, "token", num_prefix=2)


def loaded_dinov2():
    backbone = vits.build(
        "dinov2", (64, 64), None, **VIT, intermediate_dim=32, position_embedding_shape=(64, 64), num_register_tokens=2
    )
    return Loaded(backbone, "dinov2", (64, 64), *CONVERSION, "token", num_prefix=3)


def loaded_resnet(is_bottleneck=True, is_v2=False):
    """As of timm, torchvision or Hugging Face: of undetermined size, with zeros around what convolutions see."""
    backbone = resnets.build([1, 1, 1, 1], is_bottleneck, is_v2, None)
    return Loaded(backbone, "resnet", (64, 64), *CONVERSION, "average", interpolation="bicubic", num_prefix=0)


SOURCES = {
    "vit, transformers": loaded_vit,
    "vit, google-research": lambda: loaded_vit(approximate_gelu=True),
    "vit, timm with fc_norm": loaded_without_token,
    "deit": loaded_deit,
    "dinov2": loaded_dinov2,
    "resnet, timm": loaded_resnet,
    "resnet of basic blocks, torchvision": lambda: loaded_resnet(is_bottleneck=False),
    "resnet v2, timm": lambda: loaded_resnet(is_v2=True),
    "vit_nano": None,
    "resnet_nano": None,
    "resnet_vd_18_imagenet": None,
}

# One a family; `tox -e saved` takes all.
QUICK = ("vit, timm with fc_norm", "resnet, timm")


@pytest.fixture(scope="module", params=SOURCES if os.environ.get("KERAS_DOGS_ALL_SOURCES") else QUICK)
def source(request):
    """A classifier with a weight of its own everywhere, and its logits."""
    with pytest.MonkeyPatch.context() as patch:
        if SOURCES[request.param]:
            patch.setattr(builders, "load_backbone", lambda *given: SOURCES[request.param]())
        loads = "nano" in request.param
        given = dict(num_classes=5, augmentation="light", class_names=list("abcde"), image_size=None if loads else 64)
        classifier = keras_dogs.build_classifier(request.param, load_weights=loads, **given)
    for weight in classifier.get_layer("head").weights:
        weight.assign(RNG.normal(0, 0.5, weight.shape))
    return classifier, logits_of(classifier)


def logits_of(model, pictures=PICTURES):
    return np.asarray(ops.convert_to_numpy(model(ops.convert_to_tensor(pictures), training=False)))


def same(model, expected, tolerance=2e-5):
    found = logits_of(model)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_saved_and_loaded(source, tmp_path):
    classifier, expected = source
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    same(keras_dogs.load_classifier(tmp_path / "model.keras"), expected)
    same(keras_dogs.load_classifier(tmp_path), expected)  # as a run folder
    same(keras.saving.load_model(tmp_path / "model.keras"), expected)


def test_the_preset_of_a_second_run(source, tmp_path):
    classifier, expected = source
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    again = keras_dogs.build_classifier(str(tmp_path / "model.keras"), num_classes=None, augmentation="light")
    same(again, expected)


def test_cached_on_the_device(source):
    classifier, _ = source
    size = classifier.get_layer("crop").canvas_size
    canvases = RNG.integers(0, 256, (4, size, size, 3), dtype="uint8")
    expected = logits_of(classifier, canvases[[2, 0]])
    found = submodels.from_table(classifier, canvases)(ops.convert_to_tensor(np.array([2, 0], "int32")), training=False)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64, 3), (None, None, 3)])
def test_in_sequential_and_in_a_functional_model(source, shape):
    classifier, expected = source
    same(keras.Sequential([keras.Input(shape), classifier]), expected)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.Softmax()(classifier(inputs)))
    probabilities = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(logits_of(model), probabilities, atol=1e-4)


def test_cloned(source):
    classifier, expected = source
    clone = keras.models.clone_model(classifier)
    clone.set_weights(classifier.get_weights())
    same(clone, expected)


@pytest.fixture
def traced_at_once(monkeypatch):
    """Traces, on PyTorch, after two calls, as a long prediction would."""
    monkeypatch.setattr(tracing, "SECONDS_BEFORE", 0.0)


def copy_of(classifier, tmp_path):
    keras_dogs.save_classifier(classifier, tmp_path / "copy.keras")
    return keras_dogs.load_classifier(tmp_path / "copy.keras")


def predict_often(model):
    for _ in range(4):
        found = model.predict(PICTURES, verbose=0)
    return found


def quantize(model):
    with warnings.catch_warnings():  # Keras says of each kind of layer that it leaves as it is
        warnings.simplefilter("ignore")
        model.quantize("int8")


@pytest.mark.long
def test_quantised_and_adapted_amid_predictions(source, tmp_path, traced_at_once):
    """A step that was traced or compiled before must not go on with the weights that were there then."""
    classifier, expected = source
    model = copy_of(classifier, tmp_path)
    np.testing.assert_allclose(predict_often(model), expected, rtol=1e-3, atol=1e-4)
    backbone = model.backbone
    dense = [layer for layer in backbone._flatten_layers() if isinstance(layer, keras.layers.Dense)]
    if dense:
        dense[0].enable_lora(2)
        dense[0].lora_kernel_b.assign(RNG.normal(0, 0.5, dense[0].lora_kernel_b.shape))
        with backends.layer_by_layer():
            adapted = logits_of(model)
        assert np.abs(adapted - expected).max() > 1e-3
        np.testing.assert_allclose(predict_often(model), adapted, rtol=1e-3, atol=1e-4)
        model = copy_of(classifier, tmp_path)
        predict_often(model)
    quantize(model)
    with backends.layer_by_layer():
        quantised = logits_of(model)
    # Rounding may bring an activation to the next of its 256 values.
    assert np.abs(predict_often(model) - quantised).max() <= 0.01 * np.abs(expected).max()
    bare = keras.Model(classifier.input, classifier.output)
    bare = keras.models.clone_model(bare)  # stock layers, without our ways
    bare.set_weights(classifier.get_weights())
    quantize(bare)
    assert np.abs(quantised - logits_of(bare)).max() <= 0.05 * np.abs(expected).max()
    assert np.abs(quantised - expected).max() <= 0.3 * np.abs(expected).max()


def test_saved_while_traced(source, tmp_path, traced_at_once):
    classifier, expected = source
    model = copy_of(classifier, tmp_path)
    predict_often(model)
    keras_dogs.save_classifier(model, tmp_path / "traced.keras")
    same(keras_dogs.load_classifier(tmp_path / "traced.keras"), expected)
    model.save(tmp_path / "whole.keras")
    same(keras.saving.load_model(tmp_path / "whole.keras"), expected)


ORDERS = (
    "import keras, keras_dogs",
    "import keras_dogs, importlib.util; importlib.util.find_spec('keras'); import keras",  # TensorFlow asks so
)


TABLE = """
import pkgutil, importlib, re
from keras_dogs.models import registered
for found in pkgutil.walk_packages(keras_dogs.__path__, 'keras_dogs.'):
    if not re.search('backends.on_|exporting.runtimes.', found.name):
        importlib.import_module(found.name)
names = {name.partition('>')[2] for name in keras.saving.get_custom_objects() if 'keras_dogs>' in name}
assert names == set(registered.CLASSES), names ^ set(registered.CLASSES)
for name, where in registered.CLASSES.items():
    getattr(importlib.import_module(where), name)
"""


@pytest.mark.once
@pytest.mark.parametrize("order", ORDERS)
def test_keras_loads_our_files_whichever_came_first(child, tmp_path, order):
    """And every class of ours that a file may name is in the table by which Keras finds them."""
    keras_dogs.save_classifier(keras_dogs.build_vit("vit_nano", 3), tmp_path / "dogs.keras")
    code = (  # a module that is `None` cannot be imported: the child starts sooner
        f"import sys; sys.modules.update(dict.fromkeys({NOT_NEEDED}))\n{order}\n"
        f"print(keras.saving.load_model({str(tmp_path / 'dogs.keras')!r}).count_params())\n{TABLE}"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split()[-1].isdigit()
