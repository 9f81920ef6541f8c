"""Checkpoints that transformers and timm wrote, against what those libraries make of them, at real sizes."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import SHARED
from conftest import TORCHVISION
from conftest import is_installed

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.evaluation.explanation import attention_rollout
from keras_dogs.evaluation.explanation import grad_cam
from keras_dogs.models.submodels import feature_extractor
from keras_dogs.models.weights.positions import resample_positions

MISSING = [name for name in ("torch", "transformers", "timm", "torchvision") if not is_installed(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: tox -e reference has them")


@pytest.fixture(scope="session")
def expected(references):
    with np.load(references / "expected.npz") as saved:
        return dict(saved)


def logits(preset, pictures, **arguments):
    classifier = keras_dogs.build_classifier(str(preset), num_classes=None, augmentation="none", **arguments)
    return keras.ops.convert_to_numpy(classifier(pictures))


@pytest.mark.parametrize(
    "name",
    [
        "vit_b16",
        "deit_s",
        "dinov2_s",
        "resnet50_hf",
        "resnet50",
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        "vit_small_patch32_224",
        "vit_base_patch16_224",
        "vit_base_patch32_224",
        "vit_with_fc_norm",
        "vit_of_six_heads",
        "vit_with_fc_norm_of_the_token",
        "vit_of_an_odd_width",
        "vit_with_gelu_tanh",
        "deit_small_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "resnet18",
        "resnetv2_50",
        "resnet18.pth",
    ],
)
def test_logits_are_those_of_the_library(references, expected, name):
    """vit_b16 comes in shards; resnet50_hf is transformers', resnet50 timm's, which has torchvision's names."""
    ours = logits(references / name, expected["pictures"])
    assert ours.shape == (2, 7) and np.ptp(expected[name]) > 0.01
    assert np.abs(ours - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max()


def test_attention_rollout_is_transformers(references, expected):
    classifier = keras_dogs.build_classifier(str(references / "vit_b16"), num_classes=None, augmentation="none")
    ours, theirs = attention_rollout(classifier, expected["pictures"]), expected["vit_b16 explained"]
    assert np.abs(ours - theirs).max() <= 1e-4 * theirs.max() and np.ptp(theirs) > 0.1 * theirs.max()


def test_grad_cam_is_pytorchs_gradient(references, expected):
    classifier = keras_dogs.build_classifier(str(references / "resnet50"), num_classes=None, augmentation="none")
    labels = expected["resnet50"].argmax(axis=1)
    ours, theirs = grad_cam(classifier, expected["pictures"], labels), expected["resnet50 explained"]
    assert np.abs(ours - theirs).max() <= 1e-4 * theirs.max() and np.ptp(theirs) > 0.1 * theirs.max()


def test_half_precision_inside_a_checkpoint_of_a_training(references, expected):
    ours = logits(references / "resnet18_half.pth", expected["pictures"])
    scale = np.abs(expected["resnet18.pth"]).max()
    assert 1e-6 * scale < np.abs(ours - expected["resnet18.pth"]).max() < 0.02 * scale


def test_a_bare_file_is_read_like_its_folder(references, expected, capfd):
    ours = logits(references / "vit_tiny_patch16_224" / "model.safetensors", expected["pictures"])
    assert np.abs(ours - expected["vit_tiny_patch16_224"]).max() < 1e-3
    assert "no config.json, so mean and deviation of pixels are taken to be 0.5 and 0.5" in capfd.readouterr().err


def test_the_checkpoints_own_conversion(references):
    classifier = keras_dogs.build_classifier(str(references / "deit_s"), num_classes=3)
    conversion = classifier.get_layer("conversion")
    np.testing.assert_allclose(conversion.scale, 1 / (255 * np.array([0.229, 0.224, 0.225])), rtol=1e-6)
    np.testing.assert_allclose(conversion.offset, -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-6)
    assert classifier.get_layer("crop").interpolation == "bicubic"


@pytest.mark.parametrize("grid", [(24, 24), (7, 7), (15, 20)])
def test_positions_are_resampled_as_the_libraries_do(expected, grid):
    table, (rows, columns) = expected["table"], grid
    timms, huggings = expected[f"timm {rows} {columns}"], expected[f"transformers {rows} {columns}"]
    assert np.abs(resample_positions(table, grid, 1) - timms).max() < 1e-5
    assert np.abs(resample_positions(table, grid, 1, "bicubic_plain") - huggings).max() < 1e-5


def test_another_size(references, expected):
    """A ViT for 224 takes 240 x 320, with timm's positions."""
    classifier = keras_dogs.build_vit(str(references / "vit_tiny_patch16_224"), num_classes=3, image_size=(240, 320))
    assert classifier.predict_on_batch(expected["pictures"]).shape == (2, 3)
    embedding = classifier.layers[-3].get_layer("vit_patching_and_embedding").position_embedding.embeddings
    from keras_dogs.models.weights.checkpoint import open_checkpoint

    with open_checkpoint("", references / "vit_tiny_patch16_224") as checkpoint:
        table = checkpoint.read("pos_embed")[0]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(embedding), resample_positions(table, (15, 20), 1), atol=1e-6)


# What is wrong with a checkpoint is said in one line.


def copied(references, tmp_path, name="vit_tiny_patch16_224"):
    return Path(shutil.copytree(references / name, tmp_path / name))


def refused(preset, *parts, **arguments):
    with pytest.raises(UserError) as caught:
        keras_dogs.build_classifier(str(preset), num_classes=3, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_missing_shard(references, tmp_path):
    folder = copied(references, tmp_path, "vit_b16")
    (folder / "model-00002-of-00004.safetensors").unlink()
    refused(folder, "of 4 shards model-00002-of-00004.safetensors is missing")


def test_a_damaged_shard(references, tmp_path):
    """The shards before it are closed: an open file would be a warning, and so an error."""
    folder = copied(references, tmp_path, "vit_b16")
    (folder / "model-00002-of-00004.safetensors").write_bytes(b"damaged")
    refused(folder, "model-00002-of-00004.safetensors cannot be read")
    gc.collect()


def test_a_truncated_file(references, tmp_path):
    file = copied(references, tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(file.parent, "model.safetensors cannot be read")


def test_another_architecture(references, tmp_path):
    folder = copied(references, tmp_path)
    shutil.copy(references / "resnet18" / "model.safetensors", folder)
    hugging = copied(references, tmp_path, "deit_s")
    config = json.loads((hugging / "config.json").read_text())
    (hugging / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 11}))
    refused(hugging, "deit.encoder.layer.11", "without a place in the model")
    (hugging / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 13}))
    refused(hugging, "deit.encoder.layer.12", "missing")
    (hugging / "config.json").write_text(json.dumps(config | {"intermediate_size": 1000}))
    refused(hugging, "deit.encoder.layer.0.intermediate.dense.weight (1536, 384) does not fit", "(384, 1000)")
    (hugging / "config.json").write_text(json.dumps(config | {"model_type": "swin"}))
    refused(hugging, "model type swin of Hugging Face is not supported")


# The real weights at hand.


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_real_vit_gives_transformers_features():
    folder = SHARED / "weights" / "dinov2_vits14_hf"
    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype="uint8")
    code = (
        "import sys, numpy as np, torch, transformers\n"
        "model = transformers.AutoModel.from_pretrained(sys.argv[1], torch_dtype=torch.float32).eval()\n"
        "pixels = torch.tensor(np.load(sys.argv[2])).permute(0, 3, 1, 2) / 255\n"
        "mean, std = (torch.tensor(v)[:, None, None] for v in ([.485, .456, .406], [.229, .224, .225]))\n"
        "with torch.no_grad():\n"
        "    np.save(sys.argv[2], model((pixels - mean) / std).last_hidden_state[:, 0].numpy())\n"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "pictures.npy"
        np.save(file, pictures)
        environment = {**os.environ, "PYTHONPATH": str(TORCHVISION)}
        subprocess.run([sys.executable, "-c", code, folder, file], check=True, capture_output=True, env=environment)
        features = np.load(file)
    classifier = keras_dogs.build_vit(str(folder), num_classes=3, image_size=224, augmentation="none")
    ours = keras.ops.convert_to_numpy(feature_extractor(classifier)(pictures))
    assert np.abs(ours - features).max() < 1e-3
