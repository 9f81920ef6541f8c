import re
import threading

import keras
import keras_hub
import numpy as np
import pytest
import small_models

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.models import initialization
from keras_dogs.models import presets
from keras_dogs.models import weights
from keras_dogs.models.submodels import feature_extractor
from keras_dogs.models.weights import load_backbone


def pictures(batch=3, height=64, width=64):
    return np.random.default_rng(1).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def randomise(model, seed=0):
    """Gives every weight a value of its own, so that none can be skipped unseen; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0, 0.1, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path or "gamma" in weight.path else values)


def test_a_builder_gives_zero_logits_for_any_picture():
    for family in ("vit", "resnet"):
        classifier = keras_dogs.build_classifier(small_models.preset(family), num_classes=7)
        for images in (pictures(), pictures(2, 73, 73), pictures(1, 40, 90).astype("float32")):
            logits = classifier.predict_on_batch(images)
            assert np.array_equal(logits, np.zeros((len(images), 7)))


def test_uint8_and_float_pictures_give_the_same_logits():
    classifier = keras_dogs.build_vit("vit_nano", num_classes=None)
    images = pictures(2, 73, 73)
    np.testing.assert_allclose(
        classifier.predict_on_batch(images), classifier.predict_on_batch(images.astype("float32")), atol=1e-6
    )


@pytest.mark.once
def test_embedded_presets_are_small_and_know_their_own_breeds():
    """With `num_classes=None` the preset's own head stays; it tells the breeds that it was made on."""
    from keras_dogs.data.datasets.drawn_breeds import PRETRAINING_BREEDS
    from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
    from keras_dogs.data.loaders.canvases import decode_split

    test = decode_split(load_drawn_dogs(1, PRETRAINING_BREEDS, {"train": 2, "test": 5}).test, 73)
    for preset in ("vit_nano", "resnet_nano"):
        size = sum(file.stat().st_size for file in (presets.EMBEDDED_FOLDER / preset).iterdir())
        assert size <= 1_500_000, size
        classifier = keras_dogs.build_classifier(preset, num_classes=None)
        assert (classifier.predict(test.images, verbose=0).argmax(1) == test.labels).mean() > 0.85


@pytest.mark.once
@pytest.mark.parametrize(
    "preset", ["vit_tiny_patch16_224", "resnet_18", "resnet_v2_18", "deit_tiny_distilled_patch16_224_imagenet"]
)
def test_architectures_build_without_network(preset):
    classifier = keras_dogs.build_classifier(preset, num_classes=5, load_weights=False, image_size=64)
    assert classifier.predict_on_batch(pictures()).shape == (3, 5)


# Weights of the published models without their heads, moving statistics included: KerasHub's own counts; for Ti, S and
# v2, timm's (KerasHub's metadata repeats the count of v1 for v2, and counts the head of vd).
@pytest.mark.once
@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("vit_tiny_patch16_224", 5_524_416),
        ("vit_small_patch16_224", 21_665_664),
        ("vit_base_patch16_224_imagenet21k", 85_798_656),
        ("vit_base_patch32_384_imagenet", 87_528_192),
        ("deit_small_distilled_patch16_224_imagenet", 21_666_432),
        ("resnet_18_imagenet", 11_186_112),
        ("resnet_50_imagenet", 23_561_152),
        ("resnet_v2_50_imagenet", 25_549_352 - 2_049_000 + 45_440),
        ("resnet_vd_50_imagenet", 25_629_512 - 2_049_000),
        ("resnet_101_imagenet", 42_605_504),
    ],
)
def test_the_table_holds_the_published_architectures(preset, count, monkeypatch):
    monkeypatch.setattr(weights, "seeded_initializers", lambda seed: initialization.no_initializers())
    assert load_backbone(preset, load_weights=False).backbone.count_params() == count


@pytest.mark.once
@pytest.mark.parametrize(
    ("preset", "stages"),
    [
        ("hf://timm/vit_base_patch16_224.augreg_in21k_ft_in1k", ["ImageNet-21k", "ImageNet-1k"]),
        ("hf://timm/vit_base_patch16_224.augreg_in21k", ["ImageNet-21k"]),
        ("gs://augreg/S_16-i21k-300ep--imagenet2012-steps_20k-res_224.npz", ["ImageNet-21k", "ImageNet-1k"]),
        ("hf://timm/convnext.sw_in12k_ft_in1k", ["ImageNet-12k", "ImageNet-1k"]),
        ("hf://google/vit-base-patch16-224-in21k", ["ImageNet-21k"]),
        ("applications:resnet50", ["ImageNet-1k"]),
        ("gs://vit_models/imagenet21k/ViT-B_16.npz", ["ImageNet-21k"]),
        ("gs://vit_models/imagenet21k+imagenet2012/ViT-B_16.npz", ["ImageNet-21k", "ImageNet-1k"]),
        ("kaggle://keras/vit/keras/vit_base_patch16_224_imagenet/2", ["ImageNet-21k", "ImageNet-1k"]),
        ("weights/resnet_50_imagenet.h5", ["ImageNet-1k"]),
        ("/data/imagenet/x.npz", []),
        ("runs/imagenet_dogs/y.npz", []),
    ],
)
def test_names_say_what_weights_have_seen(preset, stages):
    said = presets.pretraining_of(preset)
    assert re.findall(r"ImageNet-\d+k", said) == stages and ("not known" in said) == (not stages)


@pytest.mark.once
def test_a_run_has_seen_what_it_began_with_and_its_own_pictures(run_folder):
    for preset in (run_folder, run_folder / "model.keras"):
        said = presets.pretraining_of(str(preset))
        assert "24 breeds of drawn dogs" in said and said.endswith("; then dogs0 (15 pictures)")


def test_every_keras_hub_preset_of_the_families_is_in_the_table():
    hub = keras_hub.models
    for backbone_class in (hub.ViTBackbone, hub.DeiTBackbone, hub.ResNetBackbone):
        for name, preset in backbone_class.presets.items():
            assert presets.PRESETS[name].source == "keras_hub", name
            assert preset["kaggle_handle"].startswith("kaggle://")


def small_tasks():
    hub = keras_hub.models
    converter = dict(image_size=(32, 32), scale=[0.01, 0.02, 0.03], offset=[-1.0, 0.5, 0.25])
    vit = hub.ViTBackbone((32, 32, 3), 8, 2, 2, 16, 32)
    deit = hub.DeiTBackbone((32, 32, 3), 8, 2, 2, 16, 32)
    resnet = hub.ResNetBackbone([64], [7], [64, 64], [1, 1], [1, 2], "bottleneck_block")
    return {
        "vit": (hub.ViTImageClassifier, vit, keras_hub.layers.ViTImageConverter(**converter)),
        "deit": (hub.DeiTImageClassifier, deit, keras_hub.layers.DeiTImageConverter(**converter)),
        "resnet": (hub.ResNetImageClassifier, resnet, keras_hub.layers.ResNetImageConverter(**converter)),
    }


@pytest.mark.parametrize("family", ["vit", "deit", "resnet"])
def test_preset_folders_give_keras_hubs_own_logits(tmp_path, family):
    task_class, backbone, converter = small_tasks()[family]
    task = task_class(
        backbone=backbone, num_classes=6, preprocessor=task_class.preprocessor_cls(image_converter=converter)
    )
    randomise(task)
    task.save_to_preset(str(tmp_path / "preset"))
    classifier = keras_dogs.build_classifier(str(tmp_path / "preset"), None, 32, augmentation="none")
    assert set(classifier.get_layer("conversion").scale) == {0.01, 0.02, 0.03}
    images = pictures(4, 32, 32)
    converted = images * np.array([0.01, 0.02, 0.03], "float32") + np.array([-1.0, 0.5, 0.25], "float32")
    expected = keras.ops.convert_to_numpy(task(converted))  # `predict` would want TensorFlow or grain to convert them
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(classifier.predict_on_batch(images), expected, atol=1e-5, rtol=1e-5)


def test_hugging_face_folder(tmp_path):
    """A ViT checkpoint as transformers lays it out, written by hand, so that transformers is not needed."""
    import json

    from safetensors.numpy import save_file

    hidden, mlp = 16, 32
    rng = np.random.default_rng(0)

    def tensor(*shape):
        return rng.normal(0, 0.1, shape).astype("float32")

    tensors = {
        "vit.embeddings.cls_token": tensor(1, 1, hidden),
        "vit.embeddings.position_embeddings": tensor(1, 17, hidden),
        "vit.embeddings.patch_embeddings.projection.weight": tensor(hidden, 3, 8, 8),
        "vit.embeddings.patch_embeddings.projection.bias": tensor(hidden),
        "vit.layernorm.weight": 1 + tensor(hidden),
        "vit.layernorm.bias": tensor(hidden),
        "classifier.weight": tensor(4, hidden),
        "classifier.bias": tensor(4),
    }
    for name, shape in {
        "attention.attention.query": (hidden, hidden),
        "attention.attention.key": (hidden, hidden),
        "attention.attention.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (mlp, hidden),
        "output.dense": (hidden, mlp),
    }.items():
        tensors[f"vit.encoder.layer.0.{name}.weight"] = tensor(*shape)
        tensors[f"vit.encoder.layer.0.{name}.bias"] = tensor(shape[0])
    for name in ("layernorm_before", "layernorm_after"):
        tensors[f"vit.encoder.layer.0.{name}.weight"] = 1 + tensor(hidden)
        tensors[f"vit.encoder.layer.0.{name}.bias"] = tensor(hidden)
    save_file(tensors, tmp_path / "model.safetensors")
    config = dict(model_type="vit", architectures=["ViTForImageClassification"], hidden_size=hidden, image_size=32)
    config |= dict(intermediate_size=mlp, num_attention_heads=2, num_hidden_layers=1, patch_size=8, num_channels=3)
    config |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-6, qkv_bias=True)
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {str(i): str(i) for i in range(4)}}))

    loaded = load_backbone(str(tmp_path))
    assert loaded.family == "vit" and loaded.image_size == (32, 32)
    assert loaded.scale == presets.CONVERSIONS["inception"][0]
    images = pictures(2, 32, 32) / np.float32(127.5) - 1
    features = keras.ops.convert_to_numpy(loaded.backbone(images))[:, 0]
    np.testing.assert_allclose(features, vit_class_token(tensors, images), atol=1e-4)

    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false, "resample": 2}')
    loaded = load_backbone(str(tmp_path))
    assert loaded.scale == (1 / 255,) * 3 and not any(loaded.offset) and loaded.interpolation == "bilinear"
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="preprocessor_config.json: damaged"):
        load_backbone(str(tmp_path))


def vit_class_token(tensors, images):
    """The forward pass of a one-layer ViT in NumPy, as the paper has it."""
    from scipy.special import erf

    def dense(name, x):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    batch = len(images)
    patches = images.reshape(batch, 4, 8, 4, 8, 3).transpose(0, 1, 3, 5, 2, 4).reshape(batch, 16, 192)
    kernel = tensors["vit.embeddings.patch_embeddings.projection.weight"].reshape(16, 192)
    x = patches @ kernel.T + tensors["vit.embeddings.patch_embeddings.projection.bias"]
    token = np.repeat(tensors["vit.embeddings.cls_token"], batch, axis=0)
    x = np.concatenate([token, x], axis=1) + tensors["vit.embeddings.position_embeddings"]
    layer = "vit.encoder.layer.0"
    y = norm(f"{layer}.layernorm_before", x)
    q, k, v = (
        dense(f"{layer}.attention.attention.{name}", y).reshape(batch, 17, 2, 8).transpose(0, 2, 1, 3)
        for name in ("query", "key", "value")
    )
    weights = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(8))
    y = (weights / weights.sum(-1, keepdims=True)) @ v
    x = x + dense(f"{layer}.attention.output.dense", y.transpose(0, 2, 1, 3).reshape(batch, 17, 16))
    y = dense(f"{layer}.intermediate.dense", norm(f"{layer}.layernorm_after", x))
    x = x + dense(f"{layer}.output.dense", y * 0.5 * (1 + erf(y / np.sqrt(2))))
    return norm("vit.layernorm", x)[:, 0]


@pytest.fixture(scope="module")
def resnet50():
    """The model of keras.applications, every weight of it a value of its own."""
    with initialization.no_initializers():
        reference = keras.applications.ResNet50(weights=None)
    randomise(reference)
    return reference


@pytest.mark.once
def test_a_variance_beyond_float16_is_not_infinite(resnet50, tmp_path, capsys):
    """As in a file of real weights, which no training could go on from."""
    norm = resnet50.get_layer("conv1_bn")
    whole = gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma, beta, mean, np.where(np.arange(len(variance)) == 3, np.inf, variance)])
    resnet50.save_weights(tmp_path / "resnet50.weights.h5")
    norm.set_weights(whole)
    classifier = keras_dogs.build_resnet(f"applications:resnet50:{tmp_path / 'resnet50.weights.h5'}", num_classes=2)
    assert all(np.isfinite(weight).all() for weight in classifier.get_weights())
    assert "1 weights are infinite, as float16 has no room for them: 65,504 is taken" in capsys.readouterr().err


@pytest.mark.once
def test_keras_applications_weights_file(resnet50, tmp_path):
    """The file's own classifier comes out, from RGB, although its weights were trained on BGR."""
    file = tmp_path / "resnet50.weights.h5"
    resnet50.save_weights(file)
    classifier = keras_dogs.build_resnet(f"applications:resnet50:{file}", None, augmentation="none")
    images = pictures(2, 224, 224)
    prepared = keras.applications.resnet.preprocess_input(images.astype("float32"))
    both = keras.Model(resnet50.input, [resnet50.get_layer("avg_pool").output, resnet50.output])
    expected, expected_probabilities = both.predict(prepared, verbose=0)
    whole = keras.Model(classifier.input, [feature_extractor(classifier).output, classifier.output])
    features, logits = whole.predict(images, verbose=0)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(probabilities, expected_probabilities, atol=1e-4)


def test_a_saved_model_is_whole(tmp_path):
    classifier = keras_dogs.build_resnet(
        "resnet_nano", num_classes=3, class_names=["a", "b", "c"], canvas_size=80, fit="pad"
    )
    randomise(classifier.get_layer("head"))
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    loaded = keras_dogs.load_classifier(tmp_path / "model.keras")
    images = pictures(2, 80, 80)
    assert np.array_equal(loaded.predict_on_batch(images), classifier.predict_on_batch(images))
    assert loaded.get_layer("head").class_names == ["a", "b", "c"]
    assert (loaded.get_layer("crop").canvas_size, loaded.get_layer("crop").fit) == (80, "pad")


@pytest.mark.once
def test_models_that_are_loaded_at_the_same_time_leave_random_numbers_as_they_were():
    """Two overlapping blocks in threads; a third thread draws meanwhile."""
    first, second, both = (threading.Event() for _ in range(3))

    def block(own, other):
        with initialization.no_initializers():
            own.set()
            other.wait(10), both.wait(10)
            assert not np.any(keras.ops.convert_to_numpy(keras.random.normal((4,))))

    threads = [threading.Thread(target=block, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    first.wait(10), second.wait(10)
    assert np.all(keras.ops.convert_to_numpy(keras.random.normal((4,))))
    both.set()
    for thread in threads:
        thread.join()
    assert np.all(keras.ops.convert_to_numpy(keras.random.normal((4,))))


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2"])
def test_drop_path_leaves_whole_branches_out_of_some_pictures(family):
    """The same picture many times over: in training its features fall into few groups, at inference into one."""
    preset, arguments = small_models.preset(family), dict(num_classes=2, augmentation="none", image_size=32)
    plain = keras_dogs.build_vit(preset, **arguments)
    classifier = keras_dogs.build_vit(preset, **arguments, drop_path=0.5)
    for model in (plain, classifier):
        randomise(model.backbone)
    images = np.repeat(pictures(1, 32, 32), 64, axis=0)

    def features(model, training):
        return keras.ops.convert_to_numpy(feature_extractor(model)(images, training=training))

    whole = features(plain, False)
    np.testing.assert_allclose(features(classifier, False), whole, atol=1e-5)
    dropped = features(classifier, True)
    distance = np.abs(dropped[:, None] - dropped[None]).max(axis=2)
    num_groups = len(np.unique((distance < 1e-4).argmax(axis=1)))
    assert num_groups >= 4  # the last block alone, dropping either, both or none of its branches
    assert np.abs(features(classifier, True) - dropped).max() > 1e-3, "every step draws anew"


def test_drop_path_rises_with_the_depth(tmp_path):
    """From never, in the first of two blocks: where the last one adds nothing, nothing can fall out."""
    small = dict(patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    keras_hub.models.ViTBackbone(image_shape=(32, 32, 3), **small).save_to_preset(str(tmp_path))
    classifier = keras_dogs.build_vit(str(tmp_path), num_classes=2, augmentation="none", drop_path=0.5)
    randomise(classifier.backbone)
    last = [
        weight
        for weight in classifier.backbone.weights
        if "transformer_block_2/" in weight.path and ("attention_output" in weight.path or "dense_2" in weight.path)
    ]
    assert len(last) == 4
    for weight in last:
        weight.assign(np.zeros(weight.shape))
    images, extract = np.repeat(pictures(1, 32, 32), 32, axis=0), feature_extractor(classifier)
    trained, whole = (keras.ops.convert_to_numpy(extract(images, training=training)) for training in (True, False))
    np.testing.assert_allclose(trained, whole, atol=1e-5)


def updates(model, images, labels):
    """What one step of plain gradient descent takes from each weight; they are as before afterwards."""
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(images, labels)
    after = model.get_weights()
    model.set_weights(before)
    return [old - new for old, new in zip(before, after)]


def test_what_the_head_does_not_read_of_the_last_block_changes_nothing():
    """The class token alone goes through it: logits and gradients are those of KerasHub's whole block."""
    classifier = keras_dogs.build_vit("vit_nano", num_classes=4, augmentation="none")
    randomise(classifier.backbone)
    randomise(classifier.get_layer("head"))
    whole = keras.Model(classifier.input, classifier.output)
    images, labels = pictures(3), np.array([0, 3, 1])
    pooling, seen = classifier.get_layer("pooling"), set()
    pool = pooling.call
    pooling.call = lambda tokens: seen.add(tokens.shape[1]) or pool(tokens)
    np.testing.assert_allclose(classifier.predict_on_batch(images), whole.predict_on_batch(images), atol=1e-5)
    assert seen == {1, 65}, "it is not left out, or from what reads all"
    for weight, one, other in zip(
        classifier.weights, updates(classifier, images, labels), updates(whole, images, labels)
    ):
        assert np.abs(other).max() > 0 or not weight.trainable, weight.path
        np.testing.assert_allclose(one, other, atol=1e-6 + 2e-5 * np.abs(other).max(), err_msg=weight.path)


def test_drop_path_keeps_the_type():
    from keras_dogs.layers import DrawKeys
    from keras_dogs.layers import DropPath

    counter = DrawKeys(1)
    counter(np.zeros((4, 3), "float32"))
    branch = keras.ops.ones((4, 3), "bfloat16")
    for training in (True, False):
        kept = DropPath(0.5, counter.latest, 0, dtype="mixed_bfloat16")(branch, training=training)
        assert keras.backend.standardize_dtype(kept.dtype) == "bfloat16"


def test_drop_path_keeps_the_expected_branch():
    from keras_dogs.layers import DrawKeys
    from keras_dogs.layers import DropPath

    counter = DrawKeys(1)
    counter(np.zeros((4000, 3), "float32"))
    dropped = keras.ops.convert_to_numpy(
        DropPath(0.25, counter.latest, 0)(np.ones((4000, 3), "float32"), training=True)
    )
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs((dropped == 0).mean() - 0.25) < 0.03 and (dropped == dropped[:, :1]).all()


def test_drop_path_is_for_vits():
    with pytest.raises(UserError, match="drop_path 0.1: only vit, deit, dinov2, siglip have it"):
        keras_dogs.build_resnet("resnet_nano", drop_path=0.1)


# Norms of the first, second and last matrix with seed 5.
RANDOM_WEIGHTS = {"vit_nano": (0.4144059, 2.4048986, 11.2075024), "resnet_nano": (2.3456345, 8.0031031, 8.0076723)}


def test_random_weights_are_these_on_every_backend():
    """Written down once: a training from scratch starts from the same place everywhere."""
    for preset, expected in RANDOM_WEIGHTS.items():
        backbone = keras_dogs.build_classifier(preset, 2, load_weights=False, seed=5).backbone
        norms = [float(np.linalg.norm(weight.numpy())) for weight in backbone.trainable_weights if weight.ndim > 1]
        assert len(norms) > 4
        np.testing.assert_allclose([norms[0], norms[1], norms[-1]], expected, rtol=1e-5)
    other = keras_dogs.build_classifier(preset, 2, load_weights=False, seed=6).backbone
    assert not np.array_equal(other.weights[0].numpy(), backbone.weights[0].numpy())


def test_mixed_precision_keeps_pixels_and_logits_in_float32():
    classifier = keras_dogs.build_vit("vit_nano", num_classes=None, dtype="mixed_bfloat16")
    assert classifier.backbone.dtype_policy.name == "mixed_bfloat16"
    logits = classifier.predict_on_batch(pictures(2))
    assert logits.dtype == np.float32
    plain = keras_dogs.build_vit("vit_nano", num_classes=None).predict_on_batch(pictures(2))
    assert 0 < np.abs(logits - plain).max() < 0.2 * np.abs(plain).max()


@pytest.mark.once
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: keras_dogs.build_vit("vit_bse_patch16_224"), "did you mean vit_base_patch16_224"),
        (lambda: keras_dogs.build_vit("resnet_nano"), "use build_resnet"),
        (lambda: keras_dogs.build_resnet("vit_nano"), "use build_vit"),
        (lambda: keras_dogs.build_vit("./nowhere"), "no such folder"),
        (lambda: keras_dogs.build_vit("vit_small_patch16_224"), "without published weights"),
        (lambda: keras_dogs.build_vit("vit_nano", image_size=100), "nearest are 96 or 104"),
        (lambda: keras_dogs.build_vit("vit_nano", image_size=60, load_weights=False), "nearest are 56 or 64"),
        (lambda: keras_dogs.build_vit("vit_nano", augmentation="much"), "choose one of none, light"),
        (lambda: keras_dogs.build_vit("vit_nano", head="imagnet"), "choose 'zero' or 'imagenet'"),
        (lambda: keras_dogs.build_vit("vit_nano", 7, head="imagenet"), "needs class_names, one for each of 7"),
        (lambda: keras_dogs.build_vit("vit_nano", None, load_weights=False), "has no head to keep"),
        (
            lambda: keras_dogs.build_resnet("applications:resnet50", image_size=24, load_weights=False),
            "cannot be loaded",
        ),
        (lambda: keras_dogs.build_resnet("applications:resnet51"), "applications:resnet50"),
        (lambda: keras_dogs.build_resnet("applications:resnet50:nowhere.h5"), "no such weights file"),
    ],
)
def test_mistakes_get_one_clear_line(build, message):
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.once
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "looked for config.json"),
        ({"config.json": "{"}, "not valid JSON"),
        ({"config.json": "{}"}, "without weights"),
        ({"config.json": "{}", "model.safetensors": ""}, "without weights"),
    ],
)
def test_folders_that_are_no_presets(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        keras_dogs.build_vit(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "model.keras").write_text("nonsense")
    with pytest.raises(UserError, match="not a classifier that keras_dogs saved"):
        keras_dogs.load_classifier(tmp_path / "model.keras")


@pytest.mark.parametrize(("preset", "family"), [("vit_nano", "vit"), ("resnet_nano", "resnet")])
def test_a_classifier_has_a_face(tmp_path, preset, family):
    classifier = keras_dogs.build_classifier(preset, 3, class_names=["a", "b", "c"], augmentation="light")
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    for model in (classifier, keras_dogs.load_classifier(tmp_path / "model.keras")):
        assert (model.family, model.class_names, model.canvas_size) == (family, ("a", "b", "c"), 73)
        assert model.head.units == 3 and model.backbone in model.layers
    assert keras_dogs.build_classifier(preset, 3).class_names is None
