"""Weights from files that the tests write themselves: no reference library is needed."""

import concurrent.futures
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.models import imagenet
from keras_dogs.models.submodels import feature_extractor
from keras_dogs.models.submodels import view_extractor
from keras_dogs.models.weights import downloads
from keras_dogs.models.weights import load_backbone
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.models.weights.positions import resample_positions
from keras_dogs.models.weights.torch_file import TorchFile


def pictures(size=224):
    return np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def refused(preset, *parts, **arguments):
    with pytest.raises(UserError) as caught:
        keras_dogs.build_classifier(str(preset), num_classes=3, **arguments)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


# google-research's .npz, against the paper's model in NumPy.

NAMES = {
    "vision_transformer": ("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2"),
    "big_vision": ("MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1"),
}


def random_npz(layout, width=192, depth=12, heads=3, patch=16, grid=14, pre_logits=False, num_classes=11):
    """A ViT-Ti/16 in the layout of the public checkpoints."""
    rng = np.random.default_rng(2)
    attention, mlp, norm2 = NAMES[layout]

    def dense(name, inputs, outputs):
        scale = np.prod(inputs) ** -0.5
        arrays[f"{name}/kernel"] = rng.normal(0, scale, (*inputs, *outputs)).astype("float32")
        arrays[f"{name}/bias"] = rng.normal(0, 0.1, outputs).astype("float32")

    def norm(name):
        arrays[f"{name}/scale"] = (1 + rng.normal(0, 0.1, width)).astype("float32")
        arrays[f"{name}/bias"] = rng.normal(0, 0.1, width).astype("float32")

    arrays = {"cls": rng.normal(0, 1, (1, 1, width)).astype("float32")}
    dense("embedding", (patch, patch, 3), (width,))
    is_first = layout == "vision_transformer"
    positions = rng.normal(0, 0.5, (1, grid * grid + is_first, width)).astype("float32")
    arrays["Transformer/posembed_input/pos_embedding" if is_first else "pos_embedding"] = positions
    for number in range(depth):
        block = f"Transformer/encoderblock_{number}"
        norm(f"{block}/LayerNorm_0")
        for name in ("query", "key", "value"):
            dense(f"{block}/{attention}/{name}", (width,), (heads, width // heads))
        dense(f"{block}/{attention}/out", (heads, width // heads), (width,))
        norm(f"{block}/{norm2}")
        dense(f"{block}/{mlp}/Dense_0", (width,), (4 * width,))
        dense(f"{block}/{mlp}/Dense_1", (4 * width,), (width,))
    norm("Transformer/encoder_norm")
    if pre_logits:
        dense("pre_logits", (width,), (width,))
    dense("head", (width,), (num_classes,))
    return arrays


def vit_in_numpy(arrays, layout, images):
    """An Image is Worth 16x16 Words (arXiv 2010.11929), equations 1 to 4; GELU as Flax computes it."""
    attention, mlp, norm2 = NAMES[layout]
    patch, _, _, width = arrays["embedding/kernel"].shape

    def dense(name, x, axes=1):
        return np.tensordot(x, arrays[f"{name}/kernel"].astype("float64"), axes) + arrays[f"{name}/bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]

    x = images / 127.5 - 1
    batch, side = len(x), x.shape[1] // patch
    x = x.reshape(batch, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    x = dense("embedding", x.reshape(batch, side * side, patch, patch, 3), 3)
    token = np.repeat(arrays["cls"], batch, axis=0)
    if layout == "vision_transformer":
        x = np.concatenate([token, x], axis=1) + arrays["Transformer/posembed_input/pos_embedding"]
    else:  # big_vision adds the positions first
        x = np.concatenate([token, x + arrays["pos_embedding"]], axis=1)
    for number in range(sum(name.endswith("LayerNorm_0/scale") for name in arrays)):
        block = f"Transformer/encoderblock_{number}"
        y = norm(f"{block}/LayerNorm_0", x)
        query, key, value = (dense(f"{block}/{attention}/{name}", y) for name in ("query", "key", "value"))
        scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + dense(f"{block}/{attention}/out", np.einsum("bhqk,bkhd->bqhd", scores, value), 2)
        y = dense(f"{block}/{mlp}/Dense_0", norm(f"{block}/{norm2}", x))
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + dense(f"{block}/{mlp}/Dense_1", y)
    x = norm("Transformer/encoder_norm", x)[:, 0]
    if "pre_logits/kernel" in arrays:
        x = np.tanh(dense("pre_logits", x))
    return dense("head", x)


@pytest.mark.parametrize(
    ("layout", "given"),
    [
        ("vision_transformer", {"depth": 2}),
        pytest.param("vision_transformer", {"pre_logits": True}, marks=pytest.mark.once),
        pytest.param("big_vision", {}, marks=pytest.mark.once),
    ],
)
def test_npz_is_the_papers_model(tmp_path, layout, given):
    arrays = random_npz(layout, **given)
    np.savez(tmp_path / "Ti_16.npz", **arrays)
    classifier = keras_dogs.build_vit(str(tmp_path / "Ti_16.npz"), num_classes=None, augmentation="none")
    ours = keras.ops.convert_to_numpy(classifier(pictures()))
    expected = vit_in_numpy(arrays, layout, pictures())
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    again = keras_dogs.load_classifier(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(again(pictures())), ours, atol=1e-5)


def small_npz(tmp_path, change=lambda arrays: None, **arguments):
    arrays = random_npz("vision_transformer", **{"width": 24, "depth": 2, "heads": 3, "grid": 4, **arguments})
    change(arrays)
    np.savez(tmp_path / "small.npz", **arrays)
    return tmp_path / "small.npz"


def test_npz_at_another_size(tmp_path):
    file = small_npz(tmp_path)
    with np.load(file) as arrays:
        table = arrays["Transformer/posembed_input/pos_embedding"][0]
    for positions in ("bicubic", "linear"):
        backbone = load_backbone(str(file), image_size=96, positions=positions).backbone
        found = keras.ops.convert_to_numpy(vits.weights("vit", backbone)["position"])
        np.testing.assert_allclose(found, resample_positions(table, (6, 6), 1, positions), atol=1e-6)
    refused(file, "image_size 100: not a multiple of the patch size 16; the nearest are 96 or 112", image_size=100)


def test_linear_positions_are_scipys():
    from scipy.ndimage import zoom

    table = np.random.default_rng(0).normal(size=(1 + 49, 8)).astype("float32")
    expected = zoom(table[1:].reshape(7, 7, 8), (12 / 7, 10 / 7, 1), order=1).reshape(120, 8)
    np.testing.assert_allclose(resample_positions(table, (12, 10), 1, "linear")[1:], expected, atol=1e-5)


@pytest.mark.once
def test_what_is_wrong_with_an_npz(tmp_path):
    name = "Transformer/encoderblock_1/LayerNorm_2/scale"
    refused(small_npz(tmp_path, lambda arrays: arrays.pop(name)), f"{name} is missing")
    refused(small_npz(tmp_path, lambda arrays: arrays.update(extra=arrays["cls"])), "extra is without a place")
    refused(small_npz(tmp_path, lambda arrays: arrays.update({name: np.ones(5)})), f"{name} (5,) does not fit", "(24,)")
    refused(small_npz(tmp_path, lambda arrays: arrays.update({"conv_root/kernel": np.ones(5)})), "R+ViT")
    refused(small_npz(tmp_path, lambda arrays: arrays.pop("embedding/kernel")), "looked for embedding/kernel")
    file = small_npz(tmp_path)
    file.write_bytes(file.read_bytes()[:-500])
    refused(file, "small.npz cannot be read")
    file.write_bytes(b"nonsense")
    refused(file, "small.npz cannot be read")
    np.savez(file, **{"embedding/kernel": np.array([print], dtype=object)})
    refused(file, "embedding/kernel (1,) is no convolution's")


# Names stand for every weight, whichever source fills them.


@pytest.mark.once
@pytest.mark.parametrize(
    "backbone",
    [
        lambda: vits.build("vit", (32, 32), None, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32),
        lambda: vits.build(
            "deit", (32, 32), None, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32
        ),
        lambda: keras_hub.models.DINOV2Backbone(
            8, 2, 16, 2, 32, image_shape=(32, 32, 3), position_embedding_shape=(32, 32), num_register_tokens=2
        ),
        lambda: resnets.build([1, 2, 1, 1], True, False, None),
        lambda: resnets.build([1, 2, 1, 1], False, False, None),
        lambda: resnets.build([1, 2, 1, 1], True, True, None),
        lambda: resnets.build([1, 2, 1, 1], False, True, None),
    ],
)
def test_every_weight_has_a_name(backbone):
    model = backbone()
    family = {"ViTBackbone": "vit", "DeiTBackbone": "deit", "DINOV2Backbone": "dinov2"}.get(type(model).__name__)
    named = vits.weights(family, model) if family else resnets.weights(model)
    ours, all_ = sorted(id(weight) for weight in named.values()), sorted(id(weight) for weight in model.weights)
    assert ours == all_


# KerasHub presets at another size.


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_a_keras_hub_preset_at_another_size(tmp_path, family):
    sizes = dict(patch_size=8, num_layers=2, num_heads=2, hidden_dim=16)
    sizes |= dict(mlp_dim=32) if family == "vit" else dict(intermediate_dim=32)
    original = vits.build(family, (32, 32), None, **sizes)
    for weight in original.weights:
        weight.assign(np.random.default_rng(len(weight.path)).normal(0, 0.1, weight.shape))
    original.save_to_preset(str(tmp_path))
    backbone = load_backbone(str(tmp_path), image_size=(48, 64)).backbone
    assert backbone.image_shape == (48, 64, 3)
    for name, weight in vits.weights(family, backbone).items():
        before = keras.ops.convert_to_numpy(vits.weights(family, original)[name])
        if name == "position":
            table = before.reshape(-1, 16)
            before = resample_positions(table, (6, 8), 1 + (family == "deit")).reshape(weight.shape)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), before, atol=1e-6)


def test_a_keras_hub_head_with_pre_logits(tmp_path):
    backbone = vits.build("vit", (32, 32), None, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32)
    task = keras_hub.models.ViTImageClassifier(backbone, 5, intermediate_dim=12, preprocessor=None)
    for weight in task.weights:
        weight.assign(np.random.default_rng(len(weight.path)).normal(0, 0.3, weight.shape))
    task.save_to_preset(str(tmp_path))
    classifier = keras_dogs.build_vit(str(tmp_path), num_classes=None, augmentation="none")
    images = pictures(32)
    expected = keras.ops.convert_to_numpy(task(images / np.float32(127.5) - 1))
    np.testing.assert_allclose(classifier.predict_on_batch(images), expected, atol=1e-5)


def test_what_dinov2_learns_of_positions_is_in_its_file(tmp_path):
    """KerasHub's own saves a table of another size, from which they are made anew."""
    small = dict(patch_size=8, num_layers=1, hidden_dim=16, num_heads=2, intermediate_dim=32)
    backbone = keras_hub.models.DINOV2Backbone(image_shape=(32, 32, 3), position_embedding_shape=(48, 48), **small)
    backbone.save_to_preset(str(tmp_path / "preset"))
    classifier = keras_dogs.build_vit(str(tmp_path / "preset"), num_classes=2, image_size=32)
    weights = vits.weights("dinov2", classifier.backbone)
    table = keras.ops.convert_to_numpy(weights["position"])[0]
    resampled = resample_positions(table, (4, 4), 1, "bicubic_plain")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weights["position.resampled"])[0], resampled, atol=1e-6)
    learned = np.random.default_rng(0).normal(0, 1, weights["position.resampled"].shape)
    weights["position.resampled"].assign(learned - learned.mean())  # their sum is what KerasHub looks at
    extractor = feature_extractor(classifier)
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    again = feature_extractor(keras_dogs.load_classifier(tmp_path / "model.keras"))
    one, other = (keras.ops.convert_to_numpy(model(pictures(32))) for model in (extractor, again))
    np.testing.assert_allclose(one, other, atol=1e-6)


# timm's networks that have the tensors of others.


@pytest.mark.once
@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"architecture": "resnetaa50"}, {}, "resnetaa50 of timm is not supported"),
        ({"architecture": "vit_so400m_patch14_siglip_gap_224"}, {}, "is not supported; plain ViTs"),
        ({"architecture": "vit_tiny_patch16_224", "global_pool": "max"}, {}, "global_pool max"),
        ({}, {"patch_embed.proj.weight": (96, 3, 4, 4)}, "no plain ViT: it has no pos_embed and no blocks.0"),
        (
            {},
            {"patch_embed.proj.weight": (100, 3, 4, 4), "pos_embed": (1, 5, 100), "blocks.0.mlp.fc1.weight": (8, 8)},
            "width 100, whose number of heads is not known",
        ),
        ({}, {"stem.conv.weight": (64, 3, 7, 7), "norm.weight": (64,)}, "a BiT"),
    ],
)
def test_what_timm_has_and_we_have_not(tmp_path, config, tensors, message):
    save_file({name: np.zeros(shape, "float32") for name, shape in tensors.items()}, tmp_path / "model.safetensors")
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path if config else tmp_path / "model.safetensors", message)


# PyTorch files, without PyTorch.


def torch_archive(file, content):
    """An archive in the layout of `torch.save`, with any pickle inside."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)


class Runs:
    def __reduce__(self):
        return print, ("run!",)


@pytest.mark.once
def test_a_pickle_that_runs_something_is_refused(tmp_path, capsys):
    torch_archive(tmp_path / "model.pth", pickle.dumps({"conv1.weight": Runs()}))
    refused(tmp_path / "model.pth", "its pickle asks for builtins.print", "refused")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Runs()))
    refused(tmp_path / "old.pth", "not a zip archive of PyTorch")
    assert "run!" not in capsys.readouterr().out


def test_a_view_beyond_the_file_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file; reading it needs none")
    torch.save({"conv1.weight": torch.zeros(10)}, tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "model.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = next(name for name in parts if name.endswith("data/0"))
    parts[data] = parts[data][:8]
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="does not lie in its 2 numbers"):
        TorchFile(tmp_path / "model.pth").read("conv1.weight")


def test_a_state_dict_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file; reading it needs none")
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": whole,
        "a part, turned": whole[1:3, 2:].T,
        "half": whole.half(),
        "bfloat16": whole.bfloat16(),
        "parameter": torch.nn.Parameter(whole),
        "count": torch.tensor(3),
    }
    torch.save(tensors, tmp_path / "model.pth")
    file = TorchFile(tmp_path / "model.pth")
    assert file.shapes() == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        assert np.array_equal(file.read(name), tensor.detach().float().numpy()), name


def test_bfloat16_in_safetensors(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file; reading it needs none")
    from safetensors.torch import save_file as save_torch_file

    from keras_dogs.models.weights.checkpoint import open_checkpoint

    values = torch.randn(3, 5).bfloat16()
    save_torch_file({"values": values, "before": torch.zeros(7)}, tmp_path / "model.safetensors")
    with open_checkpoint("", tmp_path / "model.safetensors") as checkpoint:
        read = checkpoint.read("values")
    assert np.array_equal(read, values.float().numpy())


# Our own models.


def test_a_run_is_a_preset(run_folder):
    trained = keras_dogs.load_classifier(run_folder / "model.keras")
    whole = keras_dogs.build_classifier(str(run_folder), num_classes=None, augmentation="light")
    np.testing.assert_allclose(whole.predict_on_batch(pictures(73)), trained.predict_on_batch(pictures(73)), atol=1e-5)
    assert whole.get_layer("head").class_names == trained.get_layer("head").class_names
    further = keras_dogs.build_resnet(str(run_folder / "model.keras"), num_classes=5, dtype="mixed_bfloat16")
    assert further.backbone.dtype_policy.name == "mixed_bfloat16"
    for one, other in zip(trained.backbone.weights, further.backbone.weights):
        np.testing.assert_allclose(one.numpy(), other.numpy())
    assert not further.predict_on_batch(pictures(73)).any()
    larger = keras_dogs.build_resnet(str(run_folder), num_classes=5, image_size=96)
    assert larger.predict_on_batch(pictures(110)).shape == (2, 5)


def test_a_vit_run_at_another_size(tmp_path):
    classifier = keras_dogs.build_vit("vit_nano", num_classes=2)
    classifier.backbone.trainable = False
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    larger = keras_dogs.build_vit(str(tmp_path / "model.keras"), num_classes=2, image_size=96)
    assert len(larger.backbone.trainable_variables) > 10
    before, after = (vits.weights("vit", model.backbone) for model in (classifier, larger))
    expected = resample_positions(keras.ops.convert_to_numpy(before["position"]), (12, 12), 1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(after["position"]), expected, atol=1e-6)
    assert np.array_equal(before["3.fc2.kernel"].numpy(), after["3.fc2.kernel"].numpy())


# The ImageNet head.


@pytest.mark.once
def test_the_breeds_stand_where_imagenet_has_them():
    """Among the 1,000 classes, in the order of their ids, the dogs are 151 to 268 (less one) and 273 to 275."""
    wnids = list(imagenet.BREEDS)
    assert wnids == sorted(wnids) and len(wnids) == 120
    places = [place for place, _ in imagenet.BREEDS.values()]
    # n02110341, the dalmatian, is 251 and not in Stanford Dogs; 269 to 272 are wolves and the coyote.
    assert places == [place for place in range(151, 269) if place != 251] + [273, 274, 275]
    large = [place for _, place in imagenet.BREEDS.values()]
    assert large == sorted(large) and len(set(large)) == 120 and max(large) < 21843
    assert imagenet.BREEDS["n02085620"][0] == 151 and imagenet.BREEDS["n02116738"][0] == 275


def test_the_breeds_against_timms_lists():
    timm = importlib.util.find_spec("timm")  # its lists are files; importing it would take PyTorch
    if not timm:
        pytest.skip("timm, which has the lists, is not installed: tox -e reference has it")
    folder = Path(timm.origin).parent / "data" / "_info"
    for column, name in enumerate(("imagenet_synsets.txt", "imagenet21k_goog_synsets.txt")):
        wnids = (folder / name).read_text().split()
        assert len(wnids) == imagenet.NUM_CLASSES[column]
        assert all(wnids[places[column]] == wnid for wnid, places in imagenet.BREEDS.items())


def test_an_imagenet_head_is_kept_for_the_breeds(tmp_path):
    file = small_npz(tmp_path, num_classes=1000)
    names = ["n02116738-African_hunting_dog", "n02085620-Chihuahua"]
    arguments = dict(class_names=names, head="imagenet", augmentation="none")
    classifier = keras_dogs.build_vit(str(file), num_classes=2, **arguments)
    whole = keras_dogs.build_vit(str(file), num_classes=None, augmentation="none")
    images = pictures(64)
    expected = whole.predict_on_batch(images)[:, [275, 151]]
    np.testing.assert_allclose(classifier.predict_on_batch(images), expected, atol=1e-5)
    with pytest.raises(UserError, match="class amberwick is no breed of Stanford Dogs"):
        keras_dogs.build_vit(str(file), num_classes=1, class_names=["amberwick"], head="imagenet")
    with pytest.raises(UserError, match="the preset's head has 11 classes, not ImageNet's"):
        keras_dogs.build_vit(str(small_npz(tmp_path)), num_classes=2, **arguments)


# Downloads.


@pytest.mark.once
def test_addresses():
    file = "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224.npz"
    address = f"https://storage.googleapis.com/vit_models/augreg/{file}"
    assert downloads.address_of_npz(f"gs://vit_models/augreg/{file}") == address
    assert downloads.address_of_npz(address) == address
    for handle in ("vit_s16_fe/1", "vit_s16_classification/1"):
        assert downloads.address_of_npz(f"https://tfhub.dev/sayakpaul/{handle}") == address
    with pytest.raises(UserError, match=r"R\+ViT hybrids cannot be loaded"):
        downloads.address_of_npz("https://tfhub.dev/sayakpaul/vit_r50_l32_fe/1")
    assert downloads.address_of_npz("https://example.org/model.txt") is None


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder in place of Google's storage, with its checksum header; counts what is asked for."""
    import base64
    import http.server
    import threading

    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        asked = []
        lie = False
        breaks_off = False
        says_little = False  # neither length nor checksum

        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            """As of a server that knows ranges, or whose connection breaks after half of the file."""
            content = (folder / self.path.lstrip("/")).read_bytes() if "missing" not in self.path else None
            if content is None:
                return super().do_GET()
            begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.asked.append(begin)
            if begin >= len(content):
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            if not self.says_little:
                self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : len(content) // 2] if self.breaks_off else content[begin:])

        def end_headers(self):
            file = folder / self.path.lstrip("/")
            if file.is_file() and not self.says_little:
                content = b"other" if self.lie else file.read_bytes()
                self.send_header("x-goog-hash", f"md5={base64.b64encode(hashlib.md5(content).digest()).decode()}")
            super().end_headers()

        def log_message(self, *args):
            self.asked.append(self.command)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(downloads, "_BUCKET", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setenv("KERAS_DOGS_CACHE", str(tmp_path / "cache"))
        yield folder, Handler
        running.shutdown()


@pytest.mark.once
def test_a_download_is_checked_kept_and_not_repeated(tmp_path, server, monkeypatch):
    folder, handler = server
    small_npz(folder)
    handler.lie = True
    refused("gs://small.npz", "could not be fetched")
    kept = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.name[0] != "."]
    assert not kept  # nothing that could be trusted
    handler.lie = False
    keras_dogs.build_vit("gs://small.npz", num_classes=3)
    handler.asked.clear()
    keras_dogs.build_vit("gs://small.npz", num_classes=3)
    assert not handler.asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    keras_dogs.build_vit("gs://small.npz", num_classes=3)
    refused("gs://other.npz", "offline, and", "is not in")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    refused("gs://missing.npz", "missing.npz could not be fetched", "404")


@pytest.mark.once
def test_a_download_goes_on_where_it_broke_off(tmp_path, server):
    folder, handler = server
    size = small_npz(folder).stat().st_size
    handler.breaks_off = True
    refused("gs://small.npz", "could not be fetched", "broke off at", "try again")
    handler.breaks_off = False
    handler.asked.clear()
    keras_dogs.build_vit("gs://small.npz", num_classes=3)
    assert size // 2 in handler.asked
    assert [file.name for file in (tmp_path / "cache" / "npz").glob("[!.]*")] == ["small.npz"]


@pytest.mark.once
def test_two_that_want_the_same_file_fetch_it_once(tmp_path, server):
    folder, handler = server
    size = small_npz(folder, width=192).stat().st_size
    address = downloads.address_of_npz("gs://small.npz")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: downloads.fetch_npz(Wanted("gs://small.npz"), address), range(4)))
    assert len(set(found)) == 1 and found[0].stat().st_size == size
    assert handler.asked.count("GET") == 1
    assert not [
        file for file in found[0].parent.iterdir() if file.suffix in (".lock", ".part") and file.name != ".lock"
    ]


@pytest.mark.once
def test_a_download_that_was_killed_after_its_last_byte(tmp_path, server):
    folder, handler = server
    content = small_npz(folder).read_bytes()
    (tmp_path / "cache" / "npz").mkdir(parents=True)
    part = tmp_path / "cache" / "npz" / f"small.npz.{hashlib.md5(content).hexdigest()}.part"
    part.write_bytes(content)
    keras_dogs.build_vit("gs://small.npz", num_classes=3)
    assert len(content) in handler.asked
    part.write_bytes(content + b"more")  # what is wrong in it does not stay
    (tmp_path / "cache" / "npz" / "small.npz").unlink()
    refused("gs://small.npz", "could not be fetched")
    keras_dogs.build_vit("gs://small.npz", num_classes=3)


@pytest.mark.once
def test_a_server_that_says_neither_length_nor_checksum(tmp_path, server):
    folder, handler = server
    small_npz(folder)
    handler.says_little = True
    (tmp_path / "cache" / "npz").mkdir(parents=True)
    (tmp_path / "cache" / "npz" / f"small.npz.{os.getpid()}.part").write_bytes(b"of another file")
    keras_dogs.build_vit("gs://small.npz", num_classes=3)
    assert 0 in handler.asked


@pytest.mark.once
def test_offline_presets(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_DOGS_OFFLINE", "1")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    refused("resnet_50_imagenet", "offline, and it is not in Kaggle's cache")
    refused("applications:resnet50", "offline, and", "give its weights file")
    keras_dogs.build_vit("vit_nano", num_classes=3)


# Folders and files of other kinds.


@pytest.mark.once
def test_folders_and_files_that_hold_no_preset(tmp_path):
    (tmp_path / "notes.txt").write_text("dogs")
    refused(tmp_path / "notes.txt", "a file of an unknown kind")
    save_file({"something": np.zeros(3, "float32")}, tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "neither a ViT nor a ResNet", "found something")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    save_file({"something": np.zeros(3, "float32")}, tmp_path / "second.safetensors")
    refused(tmp_path, "looked for one .safetensors file", "model.safetensors, second.safetensors")


def test_features_of_a_saved_variant_survive(tmp_path):
    """GELU's approximation is kept by the file."""
    classifier = keras_dogs.build_vit(str(small_npz(tmp_path)), num_classes=2)
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    again = keras_dogs.load_classifier(tmp_path / "model.keras")
    one, other = (keras.ops.convert_to_numpy(feature_extractor(model)(pictures(64))) for model in (classifier, again))
    np.testing.assert_allclose(one, other, atol=1e-6)


# Presets in the commands.


@pytest.fixture
def breeds(tmp_path, dogs):
    """The pictures of `dogs` under names of Stanford Dogs."""
    names = {
        "amberwick": "n02085620-Chihuahua",
        "birchhound": "n02085782-Japanese_spaniel",
        "cloverjack": "n02085936-Maltese_dog",
    }
    for part in ("train", "test"):
        for drawn, name in names.items():
            shutil.copytree(dogs / part / drawn, tmp_path / "breeds" / part / name)
    return tmp_path / "breeds"


def test_evaluate_takes_a_preset_as_it_comes(command, tmp_path, breeds, dogs):
    file = small_npz(tmp_path, num_classes=1000)
    status, out, err = command("evaluate", file, "--dataset", breeds, "--json")
    assert status == 0 and json.loads(out)["num_pictures"] == 9, err
    assert "1.0986" not in out  # ln 3: what a head of zeros would lose
    for arguments, message in (
        ((file,), "does not say what it was trained on; give --dataset"),
        ((file, "--dataset", dogs), "class amberwick is no breed of Stanford Dogs"),
        (("vit_nano", "--dataset", breeds), "the preset's head has 24 classes"),
        (("vit_small_patch16_224", "--dataset", breeds), "without published weights"),
    ):
        status, _, err = command("evaluate", *arguments)
        assert status == 2 and message in err, err


def test_train_from_an_imagenet_head_at_another_size(command, tmp_path, breeds):
    """A probe with a learning rate of next to nothing ends where the untouched head is."""
    file = small_npz(tmp_path, num_classes=1000)
    arguments = ["--preset", file, "--dataset", breeds, "--head", "imagenet", "--image-size", "96", "--linear-probe"]
    arguments += ["--epochs", "1", "--learning-rate", "1e-12", "--weight-decay", "0", "--output", tmp_path / "run"]
    status, _, err = command("train", *arguments, "--position-resampling", "linear")
    assert status == 0, err
    whole = keras_dogs.build_vit(str(file), None, 96, augmentation="none", positions="linear")
    trained = keras_dogs.load_classifier(tmp_path / "run" / "model.keras")
    expected = whole.predict_on_batch(pictures(110))[:, [151, 152, 153]]
    np.testing.assert_allclose(trained.predict_on_batch(pictures(110)), expected, rtol=1e-3, atol=1e-3)


def test_views_are_features_after_the_pre_logits(tmp_path):
    """What the head reads, with and without dropout before it."""
    file, images = small_npz(tmp_path, pre_logits=True), pictures()
    for dropout in (0.0, 0.5):
        classifier = keras_dogs.build_vit(str(file), num_classes=None, augmentation="none", dropout=dropout)
        expected = keras.ops.convert_to_numpy(feature_extractor(classifier)(images))
        found = keras.ops.convert_to_numpy(view_extractor(classifier)(images))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(expected).max() <= 1  # of tanh
