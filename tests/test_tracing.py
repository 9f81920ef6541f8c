"""On PyTorch a model runs and trains from a trace: the same to the last bit as layer by layer, or not at all."""

import contextlib
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import keras_dogs
from keras_dogs import backends
from keras_dogs.backends.on_torch import tracing
from keras_dogs.models.classifier import SmoothedCrossentropy
from keras_dogs.models.classifier import StepLoss
from keras_dogs.training.optimizers import build_optimizer
from keras_dogs.training.recipes import RECIPES
from keras_dogs.training.recipes import complete

on_torch = pytest.mark.skipif(backends.name() != "torch", reason="JAX and TensorFlow compile what Keras gives them")
STEPS = 5


@pytest.fixture(autouse=True)
def early(monkeypatch):
    """Traces at the third call."""
    monkeypatch.setattr(tracing, "SECONDS_BEFORE", 0.0)


def build(preset="vit_nano", augmentation="strong", dtype="float32", recipe="adamw", **changed):
    """A classifier of 5 classes, ready to train; its head is not zero, or no gradient would go further."""
    keras.utils.set_random_seed(0)
    drop_path = 0.2 if preset == "vit_nano" else 0.0
    arguments = {"load_weights": False, "dropout": 0.1, "drop_path": drop_path, "dtype": dtype, **changed}
    model = keras_dogs.build_classifier(preset, 5, augmentation=augmentation, **arguments)
    head, rng = model.get_layer("head"), np.random.default_rng(0)
    head.set_weights([rng.normal(size=weight.shape) for weight in head.get_weights()])
    plan = complete(RECIPES[recipe], preset, preset.partition("_")[0])
    model.compile(build_optimizer(plan, 1e-3, model, 10), SmoothedCrossentropy(0.1), metrics=["accuracy", StepLoss()])
    return model


def batch(size=4):
    """Pictures and labels."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (size, 73, 73, 3), dtype="uint8"), rng.integers(0, 5, size).astype("int32")


def train(model, layer_by_layer=False):
    """All logs of some steps, and all weights after them."""
    with tracing.layer_by_layer() if layer_by_layer else contextlib.nullcontext():
        logs = [model.train_on_batch(*batch(), return_dict=True) for _ in range(STEPS)]
    return [{name: float(value) for name, value in log.items()} for log in logs], model.get_weights()


def assert_same(found, expected, tolerance=0.0):
    for one, other in zip(found[0], expected[0]):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    for one, other in zip(found[1], expected[1]):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@on_torch
@pytest.mark.parametrize(
    "of",
    [
        dict(preset="vit_nano", augmentation="strong"),
        dict(preset="resnet_nano", augmentation="light"),
        dict(preset="resnet_nano", augmentation="standard", dtype="mixed_bfloat16", recipe="resnet_finetune"),
        dict(preset="vit_nano", augmentation="light", recipe="vit_paper"),
    ],
    ids=lambda of: " ".join(of.values()),
)
def test_training_is_the_same_to_the_last_bit(of):
    expected, model = train(build(**of), layer_by_layer=True), build(**of)
    assert_same(train(model), expected)
    assert tracing.describe(model) == "traced once to calls of ATen"


@on_torch
@pytest.mark.parametrize("preset", ["vit_nano", "resnet_nano"])
def test_predictions_are_the_same_to_the_last_bit(preset):
    model, (images, _) = build(preset), batch()
    with tracing.layer_by_layer():
        expected = model.predict_on_batch(images)
    for _ in range(4):
        np.testing.assert_array_equal(model.predict_on_batch(images), expected)
    assert tracing.describe(model)
    model.set_weights([weight * 1.5 for weight in model.get_weights()])
    with tracing.layer_by_layer():
        expected = model.predict_on_batch(images)
    np.testing.assert_array_equal(model.predict_on_batch(images), expected)  # weights are no constants of the trace


@on_torch
def test_what_is_frozen_between_steps_stays():
    model = build(augmentation="none")
    train(model)
    backbone = model.backbone
    backbone.trainable = False
    model.compile(keras.optimizers.SGD(0.1), SmoothedCrossentropy())
    before, head = backbone.get_weights(), model.get_layer("head").get_weights()
    train(model)
    for old, new in zip(before, backbone.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert np.abs(head[0] - model.get_layer("head").get_weights()[0]).max() > 0


@on_torch
def test_another_loss_is_another_trace():
    model = build("resnet_nano", augmentation="none")
    train(model)
    model.compile(model.optimizer, lambda labels, logits: 7.0 + 0.0 * keras.ops.mean(logits, axis=-1))
    logs = [model.train_on_batch(*batch(), return_dict=True) for _ in range(4)]
    assert [float(log["loss"]) for log in logs] == [7.0] * 4


@on_torch
def test_values_of_a_stateless_call_are_those_it_is_given():
    model, (images, _) = build("resnet_nano", augmentation="none"), batch()
    outputs = [model(images, training=False) for _ in range(4)]
    assert keras.ops.max(keras.ops.abs(outputs[-1])) > 0
    zeros = [keras.ops.zeros_like(weight) for weight in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    outputs, _ = model.stateless_call(zeros, others, images, training=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(outputs), 0.0)


@on_torch
@pytest.mark.parametrize("of", [dict(augmentation="keras"), dict(remat=True)], ids=["draws of Keras", "computed again"])
def test_what_a_trace_would_change_goes_layer_by_layer(of):
    model = build(**{"augmentation": "none", **of})
    train(model)
    assert tracing.describe(model) is None


@on_torch
def test_where_compilation_fails_the_trace_runs(monkeypatch, capsys):
    """As on a GPU: axes are in PyTorch's order, convolutions pad themselves, and SGD's rate is not read back."""
    torch = pytest.importorskip("torch")

    def fail(module, dynamic):
        def compiled(*values):
            raise RuntimeError("no compiler here\nand more")

        return compiled

    of = dict(preset="resnet_nano", augmentation="light", recipe="resnet_finetune")
    expected, model = train(build(**of), layer_by_layer=True), build(**of)
    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)  # as a strict run leaves it
    monkeypatch.setattr(backends, "has_accelerator", lambda: True)
    assert_same(train(model), expected, tolerance=1e-5)
    assert tracing.describe(model) == "traced once to calls of ATen"
    assert capsys.readouterr().err == "warning: torch.compile fails, so that it is left out: no compiler here\n"


@on_torch
def test_what_cannot_be_traced_goes_layer_by_layer(monkeypatch, capsys):
    """NumPy in the middle of a model would become a constant of the trace, and be an error on a GPU."""

    def call(self, inputs):
        return inputs + np.asarray(keras.ops.convert_to_numpy(inputs)).mean()

    monkeypatch.setattr(keras_dogs.layers.ClassifierHead, "call", call)
    model, (images, _) = build(augmentation="none"), batch()
    outputs = [model.predict_on_batch(images) for _ in range(4)]
    for found in outputs:
        np.testing.assert_array_equal(found, outputs[0])
    assert tracing.describe(model) is None
    assert "warning: the model runs layer by layer: " in capsys.readouterr().err


@pytest.mark.skipif(backends.name() != "jax", reason="JAX' attention")
@pytest.mark.parametrize("image_size", [64, 56], ids=["odd", "even"])
def test_attention_by_cudnn_is_the_same(monkeypatch, image_size):
    """There is no cuDNN here: JAX' own computation is given what it would be given."""
    jax = pytest.importorskip("jax")
    asked = []

    def attend(query, *parts, implementation, **arguments):
        asked.append((query.shape[1], implementation, len(arguments)))
        return original(query, *parts, implementation="xla", **arguments)

    original = jax.nn.dot_product_attention
    of = dict(augmentation="none", dtype="mixed_bfloat16", image_size=image_size, drop_path=0.0)
    images = np.random.default_rng(0).normal(size=(2, image_size, image_size, 3)).astype("float32")

    def outputs(model):
        return [np.asarray(model.backbone(images, training=training), "float32") for training in (False, True)]

    expected = outputs(build(**of))
    monkeypatch.setattr(backends, "has_accelerator", lambda: True)
    monkeypatch.setattr(backends.module_of("runtime"), "cudnn_attends", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    for found, right in zip(outputs(build(**of)), expected):
        assert np.abs(found - right).max() < 0.02 * np.abs(right).max()
    num_tokens = {64: (65, 66), 56: (50, 50)}[image_size]
    assert {count for count, *_ in asked} == set(num_tokens)
    assert {implementation for _, implementation, _ in asked} == {"cudnn"}


@on_torch
def test_a_scaled_loss_is_scaled_in_the_trace_too():
    """The update divides gradients by the factor."""

    def scaled():
        model = build(augmentation="light")
        model.compile(keras.optimizers.SGD(1e-2, loss_scale_factor=256.0), SmoothedCrossentropy(0.1))
        return model

    expected, model = train(scaled(), layer_by_layer=True), scaled()
    assert_same(train(model), expected)
    assert tracing.describe(model) and tracing.count(model) == 1


@on_torch
def test_calls_of_which_many_will_come_are_traced_at_once(monkeypatch):
    monkeypatch.setattr(tracing, "SECONDS_BEFORE", 1e9)
    model, (images, _) = build(augmentation="none"), batch()
    for _ in range(4):
        model.predict_on_batch(images)
    assert tracing.count(model) == 0
    expected = model.predict_on_batch(images)
    backends.settle(lambda: model.predict_on_batch(images))
    assert tracing.count(model) == 1
    np.testing.assert_array_equal(model.predict_on_batch(images), expected)


@on_torch
def test_another_thread_is_no_concern_of_a_layer_that_is_watched():
    """Whether models run layer by layer is of each thread."""
    model, (images, _) = build(augmentation="none"), batch()
    with ThreadPoolExecutor(1) as other, tracing.layer_by_layer():
        for _ in range(3):
            other.submit(model.predict_on_batch, images).result()
    assert tracing.count(model) == 1


@on_torch
def test_a_model_that_is_compiled_anew_lets_go_of_its_optimizer():
    model = build(augmentation="none")
    train(model)
    first = weakref.ref(model.optimizer)
    model.compile(keras.optimizers.SGD(1e-2), SmoothedCrossentropy(0.1))
    train(model)
    gc.collect()
    assert tracing.count(model) == 2 and first() is None


@on_torch
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_nothing_to_train_is_no_error(capsys):
    model = build(augmentation="none")
    model.trainable = False
    model.compile(keras.optimizers.SGD(1e-2), SmoothedCrossentropy(0.1))
    head = model.get_layer("head")
    before = head.get_weights()
    train(model)
    for one, other in zip(before, head.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert "there are no weights to train" in capsys.readouterr().err
