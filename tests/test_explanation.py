"""Attention rollout and Grad-CAM; beside transformers on real sizes, `test_reference_weights.py` holds them too."""

import unicodedata
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import files_below
from keras import ops

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.evaluation import explanation
from keras_dogs.evaluation.explanation import attention_rollout
from keras_dogs.evaluation.explanation import grad_cam

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype="uint8")


@pytest.fixture(scope="module")
def vit():
    return keras_dogs.build_vit("vit_nano", num_classes=5, augmentation="none")


@pytest.fixture(scope="module")
def resnet():
    classifier = keras_dogs.build_resnet("resnet_nano", num_classes=5, augmentation="none")
    head = classifier.get_layer("head")
    kernel = np.random.default_rng(1).normal(size=head.kernel.shape).astype("float32")
    head.set_weights([kernel, np.zeros(5, "float32")])
    return classifier


def test_rollout_is_keras_own_attention_multiplied(vit):
    """Keras' layers give their scores when asked; here they are asked, block by block."""
    backbone = vit.backbone
    attention = [layer for layer in backbone._flatten_layers() if isinstance(layer, keras.layers.MultiHeadAttention)]
    scores = []

    def watch(layer, call):
        def watching(query, value, **named):
            outputs, weights = call(query, value, return_attention_scores=True)
            scores.append(ops.convert_to_numpy(weights).astype("float64"))
            return outputs

        layer.call = watching

    for layer in attention:
        watch(layer, layer.call)
    vit(PICTURES, training=False)
    for layer in attention:
        del layer.call
    tokens = scores[0].shape[-1]
    flow = np.broadcast_to(np.eye(tokens), (2, tokens, tokens))
    for weights in scores:
        flow = (weights.mean(axis=1) / 2 + np.eye(tokens) / 2) @ flow
    assert len(scores) == len(attention) > 1
    heat = attention_rollout(vit, PICTURES)
    np.testing.assert_allclose(heat.reshape(2, -1), flow[:, 0, 1:], rtol=1e-4)
    assert heat.shape[1] == heat.shape[2] and (heat > 0).all() and (heat.sum(axis=(1, 2)) < 1).all()


@pytest.mark.once
def test_the_patches_of_a_picture_that_is_no_square_keep_their_places():
    """Of 4 x 16 patches; their number is a square, too."""
    wide = keras_dogs.build_vit("vit_nano", num_classes=5, image_size=(32, 128), augmentation="none")
    patch = wide.backbone.patch_size
    height, width = (32 // patch, 128 // patch) if isinstance(patch, int) else (32 // patch[0], 128 // patch[1])
    assert int((height * width) ** 0.5) ** 2 == height * width
    heat = attention_rollout(wide, np.zeros((1, 32, 128, 3), "uint8"))
    assert heat.shape == (1, height, width)


def test_the_model_is_as_before(vit):
    before = ops.convert_to_numpy(vit(PICTURES))
    attention_rollout(vit, PICTURES)
    np.testing.assert_array_equal(ops.convert_to_numpy(vit(PICTURES)), before)


def test_grad_cam_is_the_gradient(resnet):
    """Against differences: each map of the last ones is changed as a whole, and the logit looked at."""
    pooling, head = resnet.get_layer("pooling"), resnet.get_layer("head")
    maps = ops.convert_to_numpy(keras.Model(resnet.input, pooling.input)(PICTURES)).astype("float64")
    labels = ops.convert_to_numpy(resnet(PICTURES)).argmax(axis=1).tolist()
    places = maps.shape[1] * maps.shape[2]

    def logit(changed, picture):
        logits = head(pooling(changed[picture : picture + 1].astype("float32")))
        return float(ops.convert_to_numpy(logits)[0, labels[picture]])

    expected = np.zeros(maps.shape[:3])
    for picture in range(2):
        for channel in range(maps.shape[3]):
            more, less = maps.copy(), maps.copy()
            more[..., channel] += 1
            less[..., channel] -= 1
            gradient = (logit(more, picture) - logit(less, picture)) / 2 / places
            expected[picture] += gradient * maps[picture, ..., channel]
    heat = grad_cam(resnet, PICTURES, labels)
    np.testing.assert_allclose(heat, np.maximum(expected, 0), atol=1e-4 * heat.max())
    assert heat.max() > 0


def test_grad_cam_finds_what_decides(resnet):
    """A class that one map alone speaks for: the heat is that map."""
    head = resnet.get_layer("head")
    kernel, bias = head.get_weights()
    maps = ops.convert_to_numpy(keras.Model(resnet.input, resnet.get_layer("pooling").input)(PICTURES))
    loud = int(maps[0].sum(axis=(0, 1)).argmax())
    alone = np.zeros_like(kernel)
    alone[loud, 2] = 1
    head.set_weights([alone, bias])
    heat = grad_cam(resnet, PICTURES, [2, 2])
    head.set_weights([kernel, bias])
    np.testing.assert_allclose(heat[0] / heat[0].max(), maps[0, ..., loud] / maps[0, ..., loud].max(), atol=1e-5)


def test_a_backbone_without_keras_attention_is_refused(resnet):
    with pytest.raises(UserError, match="attention: a resnet keeps its attention to itself"):
        attention_rollout(resnet, PICTURES)


@pytest.mark.once
def test_each_picture_has_a_figure_of_its_own_on_every_system():
    """Windows and macOS take names for the same that differ in case, or in how an accent is written."""
    names = ["a/Rex.jpg", "b/rex.jpg", "x.jpg", "c/x.png", "003-x.jpg", "Zo\u00e9.png", "d/Zoe\u0301.png", "alone.png"]
    found = explanation._names_of_figures([Path(name) for name in names])
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(names)
    assert found[-1] == "alone.png" and found[0] == "000-Rex.png"


@pytest.mark.once
def test_the_command(command, run_folder, dogs, tmp_path, vit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = sorted((dogs / "test" / "amberwick").iterdir())[:2]
    status, out, _ = command("explain", run_folder, *pictures, "--output", tmp_path / "heat")
    assert status == 0 and out.count("Grad-CAM") == 2
    drawn = [name for name in files_below(tmp_path / "heat") if not name.startswith(".")]
    assert drawn == sorted(f"{picture.stem}.png" for picture in pictures)
    keras_dogs.save_classifier(vit, tmp_path / "vit.keras")
    status, out, _ = command("explain", tmp_path / "vit.keras", pictures[0], "--output", tmp_path / "heat")
    assert status == 0 and "attention rollout" in out
    (tmp_path / "broken.png").write_bytes(b"")
    for expected, arguments, message in (
        (1, [run_folder, tmp_path / "broken.png"], "broken.png: the file is empty"),
        (2, [run_folder, pictures[0], "--output", pictures[1]], "is a file; choose a folder"),
        (2, [tmp_path, pictures[0]], "is it a run folder?"),
    ):
        status, _, err = command("explain", *arguments)
        assert status == expected and message in err and err.count("error: ") == 1
        assert not (tmp_path / "explanations").exists()
