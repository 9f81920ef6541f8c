"""The table of families: what it says of a backbone holds, and what it does not know is an error."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_dogs
from keras_dogs.layers.dropping import blocks_of
from keras_dogs.models import builders
from keras_dogs.models import families
from keras_dogs.models.presets import CONVERSIONS
from keras_dogs.models.submodels import feature_extractor
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.training.optimizers import depths_below_head

SIZE = (32, 32, 3)
VIT = dict(patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, image_shape=SIZE)
SMALL = {
    "vit": VIT | dict(mlp_dim=32),
    "deit": VIT | dict(intermediate_dim=32),
    "dinov2": VIT | dict(intermediate_dim=32, position_embedding_shape=(32, 32)),
    "dinov3": VIT | dict(intermediate_dim=32),
    "siglip": VIT | dict(intermediate_dim=32),
    "resnet": dict(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=SIZE,
    ),
}


def small(name):
    """A backbone of a family, of a few random weights."""
    return getattr(keras_hub.models, families.FAMILIES[name].classes[0])(**SMALL[name])


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_row_holds(name):
    row, backbone = families.family(name), small(name)
    assert families.of_backbone(backbone) is row and families.of_class(type(backbone).__name__) is row
    assert row.conversion in CONVERSIONS and row.explanation in ("attention rollout", "Grad-CAM", "none")
    if row.block:
        blocks = blocks_of(backbone, row.block)
        assert len(blocks) == 2 and all(hasattr(block, end) for block in blocks for end in row.branch_ends)
    depths = depths_below_head(backbone)
    assert max(depths) == 3 and set(depths) >= {1, 2, 3}, "two blocks or stages, and what comes before them"


@pytest.mark.parametrize(
    "name",
    [name if name in ("vit", "dinov2") else pytest.param(name, marks=pytest.mark.once) for name in families.FAMILIES],
)
def test_a_run_of_ours_goes_on_at_another_size(name, tmp_path, monkeypatch):
    row = families.family(name)
    loaded = Loaded(small(name), name, (32, 32), *CONVERSIONS[row.conversion], row.pooling, num_prefix=row.num_prefix)
    monkeypatch.setattr(builders, "load_backbone", lambda *given: loaded)
    classifier = keras_dogs.build_classifier(name, 3, augmentation="none")
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    monkeypatch.undo()
    again = keras_dogs.build_classifier(str(tmp_path / "model.keras"), 3, augmentation="none", image_size=64)
    assert (again.get_layer("crop").height, again.get_layer("crop").width) == (64, 64)
    logits = again(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype="uint8"))
    assert np.isfinite(ops.convert_to_numpy(logits)).all()


@pytest.mark.once
def test_the_vision_tower_of_siglip_is_taken_out_of_its_preset(tmp_path):
    """From a folder with text encoder and all: the same features, with KerasHub's own call; and a size of its own."""
    text = dict(vocabulary_size=10, embedding_dim=16, hidden_dim=16, num_layers=1, num_heads=2, intermediate_dim=32)
    whole = keras_hub.models.SigLIPBackbone(
        vision_encoder=small("siglip"),
        text_encoder=keras_hub.models.SigLIPTextEncoder(**text, max_sequence_length=8),
        projection_dim=16,
    )
    for weight in whole.vision_encoder.weights:
        if "float" in str(weight.dtype):
            weight.assign(np.random.default_rng(weight.shape[-1]).normal(0, 0.3, weight.shape))
    whole.save_to_preset(tmp_path / "preset")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    classifier = keras_dogs.build_classifier(str(tmp_path / "preset"), 3, augmentation="none")
    expected = whole.vision_encoder({"images": ops.convert_to_tensor(pixels / np.float32(127.5) - 1)})
    found = feature_extractor(classifier)(pixels)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-4)
    assert classifier.family == "siglip"
    larger = keras_dogs.build_classifier(str(tmp_path / "preset"), 3, image_size=64, drop_path=0.2)
    assert larger(np.zeros((1, 64, 64, 3), "uint8")).shape == (1, 3)


def test_what_the_table_does_not_know_is_an_error():
    with pytest.raises(keras_dogs.UserError, match=r"family 'swin': not in the table of families \(keras_dogs/models/"):
        families.family("swin")
    inputs = keras.Input((32, 32, 3))
    strange = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs), name="strange")
    with pytest.raises(keras_dogs.UserError, match="backbone strange .*: of no family in the table"):
        families.of_backbone(strange)


@pytest.mark.parametrize(
    ("preset", "name"),
    [("hf://facebook/deit-tiny", "deit"), ("dinov2_small", "dinov2"), ("a/resnet50", "resnet"), ("some/run", "vit")],
)
def test_a_name_tells_the_family(preset, name):
    assert families.guess(preset).name == name
