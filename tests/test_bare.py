"""Stock Keras on request: the same answers and the same training, without anything of ours in its layers."""

import json

import keras
import numpy as np
import pytest
import small_models
from conftest import losses
from keras import ops

import keras_dogs
from keras_dogs.backends import layers
from keras_dogs.backends import register

RNG = np.random.default_rng(0)


def build(preset):
    model = keras_dogs.build_classifier(preset, 3, augmentation="none")
    model.get_layer("head").set_weights(
        [np.random.default_rng(1).normal(0, 0.1, w.shape) for w in model.get_layer("head").weights]
    )
    return model


@pytest.mark.parametrize("preset", ["vit_nano", "resnet_nano"])
def test_logits_are_the_same(preset):
    pictures = RNG.integers(0, 256, (4, 64, 64, 3), dtype="uint8")
    ours = build(preset)
    with keras_dogs.bare():
        stock = build(preset)
    expected = ops.convert_to_numpy(stock(pictures))
    assert layers.describe(stock) == [] and layers.describe(ours) != []
    assert np.abs(ops.convert_to_numpy(ours(pictures)) - expected).max() <= 1e-5 * np.abs(expected).max()
    layers.undo(ours)
    assert layers.describe(ours) == []
    assert np.abs(ops.convert_to_numpy(ours(pictures)) - expected).max() <= 1e-6 * np.abs(expected).max()


def test_one_alone_can_be_left_out():
    names = layers.describe(build("vit_nano"))
    with keras_dogs.bare(names[0]):
        assert layers.describe(build("vit_nano")) == names[1:]
    assert layers.describe(build("vit_nano")) == names


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_ten_steps_have_the_same_losses(command, dogs, tmp_path, monkeypatch, family):
    flags = ("--dataset", dogs, "--preset", small_models.preset(family), "--epochs", 5, "--batch-size", 6)
    flags += ("--learning-rate", 1e-2)  # or the losses would say nothing of the backbone
    for name, wanted in (("ours", "0"), ("bare", "1")):
        monkeypatch.setenv("KERAS_DOGS_BARE", wanted)
        status, _, err = command("train", *flags, "--output", tmp_path / name)
        assert status == 0, err
    ours, bare = losses(tmp_path / "ours"), losses(tmp_path / "bare")
    assert len(bare) == 10 and ours == pytest.approx(bare, rel=1e-4) and abs(bare[-1] - bare[0]) > 0.02
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("ours", "bare")]
    assert records[0]["swaps"] and records[1]["swaps"] == []


def outputs_of(layer, inputs):
    """What a layer gives in a model, as Keras has it and with what this backend puts into it."""
    model = keras.Sequential([keras.Input(inputs.shape[1:]), layer])
    expected = ops.convert_to_numpy(model(inputs))
    layers.speed_up(model)
    return ops.convert_to_numpy(model(inputs)), expected


@pytest.mark.parametrize("bias_axes", [None, "d", "e", "de", "ed"])
def test_a_bias_of_any_axes(bias_axes):
    layer = keras.layers.EinsumDense("abc,cde->abde", (None, 4, 5), bias_axes=bias_axes, bias_initializer="normal")
    found, expected = outputs_of(layer, RNG.normal(size=(2, 3, 6)).astype("float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


SWAPPED = {
    "dense": (lambda: keras.layers.Dense(5), (2, 6)),
    "einsum": (lambda: keras.layers.EinsumDense("abc,cf->abf", (None, 5)), (2, 3, 6)),
    "convolution": (lambda: keras.layers.Conv2D(5, 1), (2, 8, 8, 6)),
    "maximum": (lambda: keras.layers.MaxPooling2D(), (2, 8, 8, 6)),
    "batch norm": (lambda: keras.layers.BatchNormalization(), (2, 8, 8, 6)),
    "layer norm": (lambda: keras.layers.LayerNormalization(), (2, 3, 6)),
}


@pytest.mark.parametrize("kind", SWAPPED)
def test_an_option_of_a_later_keras_means_the_plain_way(kind):
    make, shape = SWAPPED[kind]
    layer = make()
    layer.build(shape)
    config = layer.get_config()
    layer.get_config = lambda: {**config, "dilated_by_moonlight": True}
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    layers.speed_up(model)
    assert register.names_of(layer) == []


def test_a_call_that_somebody_replaced_stays():
    layer = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.call = lambda inputs, training=None: inputs * 2
    layers.speed_up(model)
    assert "call" in vars(layer) and register.names_of(layer) == []
    assert ops.convert_to_numpy(layer(np.ones((1, 4), "float32"))).tolist() == [[2, 2, 2, 2]]


def test_a_file_holds_nothing_of_it(tmp_path):
    keras_dogs.save_classifier(build("vit_nano"), tmp_path / "ours.keras")
    with keras_dogs.bare():
        assert layers.describe(keras_dogs.load_classifier(tmp_path / "ours.keras")) == []
    assert layers.describe(keras_dogs.load_classifier(tmp_path / "ours.keras")) != []
