"""Every key of the configs that we read: read, refused by name, or without effect; none is passed over."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from safetensors.numpy import save_file

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.models.weights import config_keys

TABLES = {name: value for name, value in vars(config_keys).items() if isinstance(value, config_keys.Keys)}
TABLES |= config_keys.HUGGING_FACE


@pytest.mark.parametrize("name", TABLES)
def test_each_key_is_known_once_and_no_other_value_is_taken(name):
    keys = TABLES[name]
    every = [*keys.read, *keys.idle, *keys.fixed]
    assert len(set(every)) == len(every), "a key is in two places"
    config_keys.check(UserError, "config", dict.fromkeys((*keys.read, *keys.idle), "anything"), keys)
    for key, allowed in keys.fixed.items():
        for value in allowed:
            config_keys.check(UserError, "config", {key: value}, keys)
        for value in ("another", 7, 0.5, None, True, [1], {"a": 1}):
            if any(type(value) is type(one) and value == one for one in allowed):
                continue
            with pytest.raises(UserError, match=f"config: {key} is .*not supported"):
                config_keys.check(UserError, "config", {key: value}, keys)
    for unknown in ("another_key", "x" * 5000, "\x1b[31m"):
        with pytest.raises(UserError, match="unknown key") as caught:
            config_keys.check(UserError, "config", {unknown: 1}, keys)
        assert len(str(caught.value)) < 200 and "\x1b" not in str(caught.value)
    with pytest.raises(UserError, match="holds no object"):
        config_keys.check(UserError, "config", [], keys)


def small_vit_folder(folder, **changes):
    """A timm folder of a ViT of two blocks, by hand."""
    rng = np.random.default_rng(0)
    width, shapes = 24, {"cls_token": (1, 1, 24), "pos_embed": (1, 17, 24), "patch_embed.proj.weight": (24, 3, 8, 8)}
    shapes |= {"patch_embed.proj.bias": (width,), "norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"head.weight": (5, width), "head.bias": (5,)}
    for number in range(2):
        block = f"blocks.{number}."
        shapes |= {f"{block}norm{place}.{part}": (width,) for place in (1, 2) for part in ("weight", "bias")}
        for name, (outputs, inputs) in {
            "attn.qkv": (72, 24),
            "attn.proj": (24, 24),
            "mlp.fc1": (96, 24),
            "mlp.fc2": (24, 96),
        }.items():
            shapes |= {f"{block}{name}.weight": (outputs, inputs), f"{block}{name}.bias": (outputs,)}
    folder.mkdir(parents=True)
    save_file(
        {name: rng.normal(0, 0.5, shape).astype("f4") for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 5,
        "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 1.0},
    }
    for place, values in changes.items():
        config[place] = {**config[place], **values} if isinstance(values, dict) else values
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def logits_of(folder):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    return keras_dogs.build_classifier(folder, None, augmentation="none").predict(pictures, verbose=0)


@pytest.mark.once
def test_what_a_timm_config_says_is_computed_or_refused(tmp_path):
    plain = logits_of(small_vit_folder(tmp_path / "plain"))
    for name, values in {"heads": {"num_heads": 6}, "gelu": {"act_layer": "gelu_tanh"}}.items():
        assert np.abs(logits_of(small_vit_folder(tmp_path / name, model_args=values)) - plain).max() > 1e-4, name
    assert np.array_equal(logits_of(small_vit_folder(tmp_path / "drop", model_args={"drop_rate": 0.5})), plain)
    for number, (place, values, message) in enumerate(
        (
            ("model_args", {"num_heads": 5}, "num_heads is 5, which does not divide"),
            ("model_args", {"act_layer": "silu"}, "act_layer is 'silu'"),
            ("model_args", {"depth": 3}, "depth is 3, the tensors say 2"),
            ("model_args", {"mlp_ratio": 3.0}, "mlp_ratio is 3.0, the tensors say 4.0"),
            ("model_args", {"global_pool": "max"}, "global_pool is 'max'"),
            ("model_args", {"qk_norm": True}, "qk_norm is True"),
            ("model_args", {"swiglu": True}, "model_args: unknown key 'swiglu'"),
            ("pretrained_cfg", {"std": [0, 0, 0]}, "std is .*three numbers above 0"),
            ("pretrained_cfg", {"colour": 1}, "pretrained_cfg: unknown key 'colour'"),
            ("extra", 1, "config.json: unknown key 'extra'"),
        )
    ):
        with pytest.raises(UserError, match=message):
            logits_of(small_vit_folder(tmp_path / str(number), **{place: values}))


@pytest.mark.once
def test_how_its_pictures_were_seen_is_followed_or_said(tmp_path, capsys):
    folder = small_vit_folder(tmp_path / "a", pretrained_cfg={"crop_pct": 0.9, "interpolation": "bilinear"})
    classifier = keras_dogs.build_classifier(folder, 3)
    said = " ".join(capsys.readouterr().err.split())
    assert classifier.get_layer("crop").interpolation == "bilinear" and "central 90.0%" in said
    folder = small_vit_folder(tmp_path / "b", pretrained_cfg={"interpolation": "lanczos"})
    classifier = keras_dogs.build_classifier(folder, 3)
    said = " ".join(capsys.readouterr().err.split())
    assert classifier.get_layer("crop").interpolation == "bicubic" and "'lanczos'" in said


def test_the_averaged_weights_of_a_training_are_taken_and_named(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from keras_dogs.models.weights.torch_file import TorchFile

    last, mean = {"module.fc.bias": torch.zeros(3)}, {"module.fc.bias": torch.ones(3)}
    settings = argparse.Namespace(lr=0.1, output=Path("runs"))  # which timm, DeiT and torchvision keep beside them
    for key in ("state_dict_ema", "model_ema"):
        torch.save({"state_dict": last, key: mean, "epoch": 3, "args": settings}, tmp_path / "checkpoint.pth.tar")
        file = TorchFile(tmp_path / "checkpoint.pth.tar")
        assert file.read("fc.bias").tolist() == [1, 1, 1]
        assert file.notes == (f"the averaged weights are taken ({key}); state_dict of the same file left out",)
    torch.save({"model": last, "epoch": 3}, tmp_path / "checkpoint.pth.tar")
    file = TorchFile(tmp_path / "checkpoint.pth.tar")
    assert file.read("fc.bias").tolist() == [0, 0, 0] and not file.notes


def test_a_dict_that_holds_itself_is_read_to_the_end(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from keras_dogs.models.weights.torch_file import TorchFile

    content = {"fc.bias": torch.ones(3)}
    content["model"] = content
    torch.save(content, tmp_path / "model.pth")
    assert TorchFile(tmp_path / "model.pth").read("fc.bias").tolist() == [1, 1, 1]


def hugging_face_folder(folder, config=None, preprocessor=None):
    folder.mkdir(parents=True)
    plain = {
        "model_type": "vit",
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
    }
    (folder / "config.json").write_text(json.dumps({**plain, **(config or {})}))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(folder)


@pytest.mark.once
def test_a_preprocessor_is_followed_or_refused(tmp_path):
    """Mean and deviation of pixels that are not rescaled are of [0, 255]."""
    given = {"image_mean": [127.5] * 3, "image_std": [127.5] * 3, "do_rescale": False, "resample": 3}
    folder = hugging_face_folder(tmp_path / "a", preprocessor=given)
    classifier = keras_dogs.build_classifier(folder, 3, load_weights=False)
    conversion = classifier.get_layer("conversion")
    np.testing.assert_allclose([conversion.scale, conversion.offset], [[1 / 127.5] * 3, [-1.0] * 3])
    assert classifier.get_layer("crop").interpolation == "bicubic"
    for number, (preprocessor, message) in enumerate(
        (
            ({"image_mean": [0.5] * 3, "image_std": [0, 0, 0]}, "image_std is .*three numbers above 0"),
            ({"image_mean": [0.5] * 3}, "image_std is None"),
            ({"image_mean": 0.5, "image_std": [0.5] * 3}, "image_mean is 0.5"),
            ({"rescale_factor": "x"}, "rescale_factor is 'x'"),
            ({"do_equalize": True}, "preprocessor_config.json: unknown key 'do_equalize'"),
            ([], "expected object"),
        )
    ):
        with pytest.raises(UserError, match=message):
            keras_dogs.build_classifier(
                hugging_face_folder(tmp_path / str(number), preprocessor=preprocessor), 3, load_weights=False
            )


@pytest.mark.once
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 10**9}, "hidden_size is 1000000000: expected int <= 20000"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5, which does not divide hidden_size 24"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": [8, 16]}, r"patch_size is \[8, 16\]; only square patches"),
        ({"image_size": "big"}, "image_size is 'big'"),
        ({"num_channels": 4}, "num_channels is 4"),
        ({"use_rope": True}, "unknown key 'use_rope'"),
    ],
)
def test_a_hugging_face_config_is_checked(tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        keras_dogs.build_classifier(hugging_face_folder(tmp_path / "a", config), 3, load_weights=False)


@pytest.mark.once
def test_positions_of_a_grid_that_is_no_square(tmp_path):
    """64 x 16 pixels have eight rows of two patches; 16 of them are not four by four."""
    folder = hugging_face_folder(tmp_path / "a", {"image_size": [64, 16]})
    classifier = keras_dogs.build_classifier(folder, 3, load_weights=False)
    crop = classifier.get_layer("crop")
    assert (crop.height, crop.width) == (64, 16)
    keras_dogs.save_classifier(classifier, tmp_path / "vit.keras")
    again = keras_dogs.build_classifier(str(tmp_path / "vit.keras"), 3, image_size=(32, 32))
    assert again.get_layer("crop").height == 32


CASES = SHARED / "cases" / "weights"


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared is not at hand")
@pytest.mark.parametrize(
    "name", ["timm_fc_norm_token", "timm_patches_2_by_8", "timm_six_heads", "timm_width_32", "timm_act_silu"]
)
def test_the_weights_that_failed(name):
    expected = np.load(CASES / name / "expected.npz")
    if name == "timm_act_silu":
        with pytest.raises(UserError, match="act_layer is 'silu'"):
            keras_dogs.build_classifier(str(CASES / name), None, augmentation="none")
        return
    classifier = keras_dogs.build_classifier(str(CASES / name), None, augmentation="none")
    logits = classifier.predict(expected["pictures"], verbose=0)
    assert np.abs(logits - expected["logits"]).max() < 1e-4 * np.abs(expected["logits"]).max()
