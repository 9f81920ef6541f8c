import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from keras_dogs.layers import AUGMENTATIONS
from keras_dogs.layers import ClassifierHead
from keras_dogs.layers import RandomResizedCrop
from keras_dogs.layers import draws


def noise(batch, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def smooth(height, width):
    """A picture with structure at every scale that a resize can get wrong."""
    return np.asarray(Image.fromarray(noise(1, 12, 12)[0]).resize((width, height), Image.Resampling.BICUBIC))


def run(layer, images, training):
    return ops.convert_to_numpy(layer(images, training=training))


# Draws


def uniforms(seed, step, stream, count):
    return ops.convert_to_numpy(
        draws.uniform(seed, ops.convert_to_tensor(step, "int32"), stream, ops.arange(count, dtype="int32"))
    )


def test_draws_are_these_numbers_on_every_backend():
    """Written down once; a change of one bit would change every training that was ever recorded."""
    first = [0.257623553276062, 0.1691182255744934, 0.8673661947250366, 0.32869428396224976]
    assert uniforms(0, 0, 0, 4).tolist() == first
    second = [0.8079284429550171, 0.8943783044815063, 0.014609456062316895, 0.22726869583129883]
    assert uniforms(2**31 - 1, 12345, 3, 4).tolist() == second


def test_draws_are_uniform_and_independent():
    numbers = uniforms(1, 7, 2, 200_000)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 60 < chi_square < 149  # 99 degrees of freedom: 0.1 % below and above
    neighbours = [
        uniforms(1, 8, 2, 200_000),
        uniforms(1, 7, 3, 200_000),
        uniforms(2, 7, 2, 200_000),
        np.roll(numbers, 1),
    ]
    for other in neighbours:
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.01


# Resize at inference


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 200), (64, 64), (40, 90)])
def test_inference_resize_is_pillows(height, width):
    picture = smooth(height, width)
    ours = run(RandomResizedCrop(64, 64), picture[None], training=False)[0]
    pillows = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(ours - pillows).mean() < 0.5 and np.abs(ours - pillows).max() < 2


def test_inference_at_the_models_size_changes_nothing():
    images = noise(2, 64, 64)
    layer = RandomResizedCrop(64, 64, **AUGMENTATIONS["strong"])
    assert np.array_equal(run(layer, images, training=False), images)
    assert int(ops.convert_to_numpy(layer.step)) == 0


# Augmentation


def test_training_crops_are_pillows_crops():
    """Each output is Pillow's resize of the box that was drawn, mirrored where it was drawn so."""
    picture = smooth(96, 128)
    layer = RandomResizedCrop(32, 32, **AUGMENTATIONS["standard"], seed=5)
    cropped = run(layer, np.repeat(picture[None], 16, axis=0), training=True)
    boxes = layer._draw_boxes(ops.convert_to_tensor(0, "int32"), ops.arange(16, dtype="int32"))
    top, left, tall, wide = (ops.convert_to_numpy(value) for value in boxes)
    flipped = uniforms(5, 0, 4, 16) < 0.5
    assert 0 < flipped.sum() < 16
    for index in range(16):
        box = (left[index] * 128, top[index] * 96, (left[index] + wide[index]) * 128, (top[index] + tall[index]) * 96)
        expected = Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR, box=tuple(map(float, box)))
        expected = np.asarray(expected, np.float32)
        expected = expected[:, ::-1] if flipped[index] else expected
        assert np.abs(cropped[index] - expected).mean() < 1.0


def test_boxes_keep_to_their_ranges():
    layer = RandomResizedCrop(32, 32, scale=(0.3, 0.8), ratio=(0.8, 1.25))
    boxes = layer._draw_boxes(ops.convert_to_tensor(3, "int32"), ops.arange(5000, dtype="int32"))
    top, left, tall, wide = (ops.convert_to_numpy(value) for value in boxes)
    assert (top >= 0).all() and (left >= 0).all() and (top + tall <= 1 + 1e-6).all() and (left + wide <= 1 + 1e-6).all()
    area = tall * wide
    assert 0.3 - 1e-5 < area.min() < 0.32 and 0.7 < area.max() < 0.8 + 1e-5
    assert (wide / tall).min() >= 0.8 - 1e-5 and (wide / tall).max() <= 1.25 + 1e-5


def test_policy_none_in_training_is_the_inference_resize():
    images = noise(3, 73, 73)
    layer = RandomResizedCrop(64, 64, **AUGMENTATIONS["none"])
    np.testing.assert_allclose(run(layer, images, training=True), run(layer, images, training=False), atol=1e-3)


def test_every_step_draws_anew_and_a_seed_repeats_it():
    images = np.repeat(noise(1, 73, 73), 8, axis=0)
    first, second = (RandomResizedCrop(64, 64, **AUGMENTATIONS["strong"], seed=9) for _ in range(2))
    steps = [run(first, images, training=True) for _ in range(2)]
    again = [run(second, images, training=True) for _ in range(2)]
    assert np.abs(steps[0] - steps[1]).mean() > 5
    assert np.abs(steps[0][0] - steps[0][1]).mean() > 5
    assert np.array_equal(steps, again)


def test_a_pictures_draw_does_not_depend_on_the_batch():
    images = np.repeat(noise(1, 73, 73), 8, axis=0)
    whole, part = (RandomResizedCrop(64, 64, **AUGMENTATIONS["standard"]) for _ in range(2))
    np.testing.assert_allclose(run(whole, images, True)[:3], run(part, images[:3], True), atol=1e-3)


def test_layer_does_not_turn_compilation_off():
    assert RandomResizedCrop(8, 8).supports_jit


def test_layers_survive_serialisation():
    for layer in (
        RandomResizedCrop(8, 9, **AUGMENTATIONS["light"], canvas_size=12, fit="pad"),
        ClassifierHead(2, ["a", "b"]),
    ):
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert copy.get_config() == layer.get_config()


def test_head_starts_at_zero_and_checks_its_names():
    head = ClassifierHead(3, ["a", "b", "c"])
    assert np.array_equal(run_head(head), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        ClassifierHead(3, ["a", "b"])


def run_head(head):
    return ops.convert_to_numpy(head(np.ones((2, 5), "float32")))
