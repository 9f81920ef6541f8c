import functools
import threading

import keras
import numpy as np
import pytest
from conftest import BACKEND
from conftest import soft_targets
from keras import ops
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

from keras_dogs import backends
from keras_dogs.layers import AUGMENTATIONS
from keras_dogs.layers import ClassifierHead
from keras_dogs.layers import ColorJitter
from keras_dogs.layers import CountedDropout
from keras_dogs.layers import DrawKeys
from keras_dogs.layers import Mixing
from keras_dogs.layers import RandAugment
from keras_dogs.layers import RandomAffine
from keras_dogs.layers import RandomErasing
from keras_dogs.layers import RandomResizedCrop
from keras_dogs.layers import draws
from keras_dogs.layers import random_affine
from keras_dogs.layers.color_jitter import GREY


def noise(batch, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def smooth(height, width):
    """A picture with structure at every scale that a resize can get wrong."""
    return np.asarray(Image.fromarray(noise(1, 12, 12)[0]).resize((width, height), Image.Resampling.BICUBIC))


def run(layer, images, training):
    """What a layer gives. On JAX by one program: to compile each operation by itself takes far longer."""
    if BACKEND != "jax":
        return ops.convert_to_numpy(layer(images, training=training))
    if not layer.built:
        layer(keras.KerasTensor(images.shape, images.dtype.name), training=training)
    outputs, state = program(layer, training)([variable.value for variable in layer.variables], images)
    for variable, value in zip(layer.variables, state):
        variable.assign(value)
    return np.asarray(outputs)


@functools.cache
def program(layer, training):
    return backends.compiled(lambda state, images: layer.stateless_call([], state, images, training=training))


# Resize at inference


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 200), (64, 64), (40, 90)])
def test_inference_resize_is_pillows(height, width):
    picture = smooth(height, width)
    ours = run(RandomResizedCrop(64, 64), picture[None], training=False)[0]
    pillows = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(ours - pillows).mean() < 0.5 and np.abs(ours - pillows).max() < 2


@pytest.mark.parametrize(
    "layer", [RandomResizedCrop(64, 64, **AUGMENTATIONS["strong"].crop), RandomAffine(30), RandAugment()]
)
def test_at_inference_a_layer_does_nothing(layer):
    images = noise(2, 64, 64)
    assert np.array_equal(run(layer, images, training=False), images)
    assert int(ops.convert_to_numpy(layer.own_keys.step)) == 0


def test_the_central_part_at_inference():
    picture = smooth(80, 120)
    ours = run(RandomResizedCrop(32, 32, evaluation_scale=0.75), picture[None], training=False)[0]
    expected = Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR, box=(15, 10, 105, 70))
    assert np.abs(ours - np.asarray(expected, np.float32)).mean() < 0.5


# Random resized crop


@pytest.mark.parametrize("option", ["interpolation", "canvas_interpolation", "fit"])
def test_an_unknown_option_of_a_crop_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} 'croop': choose one of "):
        RandomResizedCrop(8, 8, **{option: "croop"})


def test_training_crops_are_pillows_crops():
    """Each output is Pillow's resize of the box that was drawn, mirrored where it was drawn so."""
    picture = smooth(96, 128)
    layer = RandomResizedCrop(32, 32, **AUGMENTATIONS["standard"].crop, seed=5)
    cropped = run(layer, np.repeat(picture[None], 16, axis=0), training=True)
    boxes = [ops.convert_to_numpy(value) / 4096 for value in layer.draw_boxes(first_keys(5, 16))]
    sides = [96, 128, 96, 128]
    mirrored = 0
    for index in range(16):
        top, left, tall, wide = (box[index] * side for box, side in zip(boxes, sides, strict=True))
        box = (left, top, left + wide, top + tall)
        expected = Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR, box=box)
        expected = np.asarray(expected, np.float32)
        errors = [np.abs(cropped[index] - candidate).mean() for candidate in (expected, expected[:, ::-1])]
        assert min(errors) < 1.0 < max(errors)
        mirrored += errors[1] < errors[0]
    assert 3 <= mirrored <= 13


def first_keys(seed, count):
    return draws.make_keys(seed, ops.convert_to_tensor(0, "int32"), ops.arange(count, dtype="int32"))


def test_boxes_keep_to_their_ranges():
    layer = RandomResizedCrop(32, 32, scale=(0.3, 0.8), ratio=(0.8, 1.25))
    top, left, tall, wide = (ops.convert_to_numpy(value) / 4096 for value in layer.draw_boxes(first_keys(3, 20_000)))
    assert (top >= 0).all() and (left >= 0).all() and (top + tall <= 1).all() and (left + wide <= 1).all()
    assert top.min() == left.min() == 0 and (top + tall).max() == (left + wide).max() == 1
    area = tall * wide
    assert 0.299 < area.min() < 0.31 and 0.79 < area.max() < 0.801
    assert (wide / tall).min() >= 0.799 and (wide / tall).max() <= 1.251


def test_every_step_draws_anew_and_a_seed_repeats_it():
    images = np.repeat(noise(1, 73, 73), 8, axis=0)
    first, second = (RandomResizedCrop(64, 64, **AUGMENTATIONS["strong"].crop, seed=9) for _ in range(2))
    steps = [run(first, images, training=True) for _ in range(2)]
    again = [run(second, images, training=True) for _ in range(2)]
    assert np.abs(steps[0] - steps[1]).mean() > 5
    assert np.abs(steps[0][0] - steps[0][1]).mean() > 5
    assert np.array_equal(steps, again)


@pytest.mark.parametrize("name", ["crop", "affine", "color", "erasing", "randaugment"])
def test_a_pictures_draw_does_not_depend_on_the_batch(name):
    images = np.repeat(noise(1, 73, 73), 8, axis=0)
    whole, part = (RANDOM_LAYERS[name]() for _ in range(2))
    whole = run(whole, images, True)
    np.testing.assert_allclose(whole[:3], run(part, images[:3], True), atol=1e-3)
    assert np.abs(whole[0] - whole[1]).mean() > 0.5


RANDOM_LAYERS = {
    "crop": lambda: RandomResizedCrop(64, 64, **AUGMENTATIONS["standard"].crop),
    "affine": lambda: RandomAffine(rotation=20, shear=0.2, translation=0.1),
    "color": lambda: ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2),
    "erasing": lambda: RandomErasing(probability=0.8),
    "randaugment": lambda: RandAugment(2, 15),
    "mixing": lambda: Mixing(mixup=0.4, cutmix=1.0),
}


@pytest.mark.parametrize("name", RANDOM_LAYERS)
def test_a_layer_does_not_turn_compilation_off_and_survives_serialisation(name):
    layer = RANDOM_LAYERS[name]()
    assert layer.supports_jit
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    images = noise(3, 64, 64).astype("float32")
    assert np.array_equal(run(copy, images, True), run(layer, images, True))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others compile a program for each size")
@pytest.mark.parametrize("name", RANDOM_LAYERS)
def test_a_layer_takes_pictures_whose_size_is_not_known(name):
    import tensorflow

    layer, images = RANDOM_LAYERS[name](), noise(3, 48, 80).astype("float32")
    layer.build(images.shape)
    spec = tensorflow.TensorSpec((None, None, None, 3))
    found = tensorflow.function(lambda images: layer(images, training=True), [spec])(images)
    np.testing.assert_allclose(found, run(RANDOM_LAYERS[name](), images, True), atol=1e-3)


@pytest.mark.parametrize("name", RANDOM_LAYERS)
def test_uint8_and_float_pictures_come_out_alike(name):
    images = noise(2, 64, 64)
    one, other = (RANDOM_LAYERS[name]() for _ in range(2))
    np.testing.assert_allclose(run(one, images, True), run(other, images.astype("float32"), True), atol=1e-3)


# Affine


def test_rotation_is_pillows():
    """Bilinear about the centre; Pillow turns the other way round for the same sign, so either is looked for."""
    picture = smooth(96, 96)
    for angle in (10, -25):
        turn = [random_affine.fixed(value) for value in (np.cos(np.radians(angle)), np.sin(np.radians(angle)))]
        ours = sampled(picture, random_affine.rotation_matrix(*turn), (0, 0))
        pillows = Image.fromarray(picture).rotate(angle, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
        inner = np.abs(ours - np.asarray(pillows, np.float32))[16:-16, 16:-16]
        assert inner.mean() < 1.0, angle


def test_shear_and_shift_are_pillows():
    picture, one = smooth(80, 100), random_affine.ONE
    ours = sampled(picture, (one, 0, random_affine.fixed(0.25), one), (-8 * one, 5 * one))
    # Pillow's origin is the upper left corner, ours the centre.
    data = (1, 0.25, 5 - 0.25 * 80 / 2, 0, 1, -8)
    pillows = Image.fromarray(picture).transform((100, 80), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    assert np.abs(ours - np.asarray(pillows, np.float32))[20:-20, 40:-40].mean() < 1.0


def sampled(picture, matrix, shift):
    def batch(values):
        return [ops.convert_to_tensor([int(value)], "int32") for value in values]

    images = ops.convert_to_tensor(picture[None].astype("float32"))
    return ops.convert_to_numpy(random_affine.sample(images, batch(matrix), batch(shift), 128.0))[0]


def test_affine_fills_from_outside_and_stays_in_range():
    images = np.full((4, 32, 32, 3), 200, np.uint8)
    moved = run(RandomAffine(translation=0.5, fill=7.0, seed=1), images, True)
    assert moved.min() == 7.0 and moved.max() == 200.0


# Colour


@pytest.mark.parametrize(
    ("what", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_colour_is_pillows(what, enhance):
    picture = smooth(64, 64)
    layer = ColorJitter(**{what: 0.5}, seed=2)
    changed = run(layer, np.repeat(picture[None], 8, axis=0), True)
    stream = layer.draw_stream(["brightness", "contrast", "saturation"].index(what))
    factors = 1 + 0.5 * (2 * ops.convert_to_numpy(draws.uniform(first_keys(2, 8), stream)) - 1)
    assert factors.min() < 0.8 and factors.max() > 1.2
    for factor, ours in zip(factors, changed, strict=True):
        pillows = np.asarray(enhance(Image.fromarray(picture)).enhance(factor), np.float32)
        assert np.abs(ours - pillows).mean() < 1.0


def test_grey_is_pillows():
    picture = smooth(48, 48)
    grey = run(ColorJitter(grey=1.0), picture[None], True)[0]
    assert np.abs(grey - np.asarray(Image.fromarray(picture).convert("L"), np.float32)[..., None]).max() < 1.0


def test_hue_keeps_luma_and_a_full_turn_comes_home():
    picture = (smooth(48, 48) // 4 + 96).astype(np.uint8)  # pale, so that no turn is clipped
    turned = run(ColorJitter(hue=0.5, seed=3), np.repeat(picture[None], 6, axis=0), True)
    assert np.abs(turned - picture).mean() > 2
    np.testing.assert_allclose(turned @ GREY, np.broadcast_to(picture @ GREY, turned.shape[:3]), atol=0.2)


def test_colour_is_folded_with_the_normalisation():
    images = noise(4, 16, 16)
    scale, offset = (1 / 255, 1 / 127.5, 0.5), (-1.0, 0.5, 3.0)
    plain = run(ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, seed=1), images, True)
    folded = run(ColorJitter(scale, offset, brightness=0.4, contrast=0.4, saturation=0.4, seed=1), images, True)
    np.testing.assert_allclose(folded, plain * np.array(scale) + np.array(offset), atol=1e-3)


# Erasing


def test_erasing_covers_a_box_of_some_pictures():
    images = np.full((200, 24, 24, 3), 9.0, np.float32)
    erased = run(RandomErasing(probability=0.3, scale=(0.1, 0.3), fill="zero"), images, True)
    shares = (erased == 0).mean(axis=(1, 2, 3))
    assert 0.2 < (shares > 0).mean() < 0.4
    assert 0.05 < shares[shares > 0].min() and shares.max() < 0.36
    holes = (erased[shares > 0] == 0)[..., 0]
    assert all(hole.sum() == hole.any(0).sum() * hole.any(1).sum() for hole in holes)  # each is a box
    assert set(np.unique(erased)) == {0.0, 9.0}


def test_erasing_with_noise():
    erased = run(RandomErasing(probability=1.0, scale=(0.3, 0.3)), np.full((64, 24, 24, 3), 9.0, np.float32), True)
    filled = erased[erased != 9.0]
    assert abs(filled.mean()) < 0.02 and abs(filled.std() - 1) < 0.02


def test_erasing_refuses_an_unknown_fill():
    with pytest.raises(ValueError, match="choose 'noise' or 'zero'"):
        RandomErasing(fill="grey")


# RandAugment, each operation against Pillow


def pillow_operation(name, magnitude=6.0):
    """What the operation does at that magnitude, whichever sign is drawn: two functions of a picture."""
    strength = magnitude / 10
    factor = strength * 1.8 + 0.1
    kept = 256 - (1 << (8 - int(4 * strength)))
    return {
        "AutoContrast": ImageOps.autocontrast,
        "Equalize": ImageOps.equalize,
        "Invert": ImageOps.invert,
        "Posterize": lambda picture: picture.point(lambda value: value & kept),
        "Solarize": lambda picture: ImageOps.solarize(picture, int(256 * strength)),
        "SolarizeAdd": lambda picture: picture.point(lambda v: min(v + int(110 * strength), 255) if v < 128 else v),
        "Color": lambda picture: ImageEnhance.Color(picture).enhance(factor),
        "Contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(factor),
        "Brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(factor),
        "Sharpness": lambda picture: ImageEnhance.Sharpness(picture).enhance(factor),
    }[name]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("AutoContrast", 1),
        ("Equalize", 0),
        ("Invert", 0),
        ("Posterize", 0),
        ("Solarize", 0),
        ("SolarizeAdd", 0),
        ("Color", 1.5),
        ("Contrast", 1.5),
        ("Brightness", 1),
        ("Sharpness", 1.1),  # Pillow cuts off what it blends
    ],
)
def test_an_operation_is_pillows(name, tolerance):
    picture = (smooth(64, 80) // 2 + 40).astype(np.uint8)
    ours = run(RandAugment(1, 6.0, [name]), picture[None], True)[0]
    pillows = np.asarray(pillow_operation(name)(Image.fromarray(picture)), np.float32)
    assert np.abs(pillows - picture).mean() > 0.2, "the reference did nothing"
    assert np.abs(ours - pillows).max() <= tolerance


def test_two_operations_on_values_come_one_after_the_other():
    """Equalising an inverted picture needs the histogram of the inverted one."""
    picture = (smooth(64, 80) // 2 + 10).astype(np.uint8)
    pictures = np.repeat(picture[None], 32, axis=0)
    ours = run(RandAugment(2, 6.0, ["Equalize", "Invert"]), pictures, True)
    image = Image.fromarray(picture)
    equalize, invert = ImageOps.equalize, ImageOps.invert
    outcomes = [equalize(equalize(image)), invert(equalize(image)), equalize(invert(image)), image]
    counts = np.array([[np.array_equal(one, np.asarray(expected)) for expected in outcomes] for one in ours])
    assert counts.any(axis=1).all() and counts.any(axis=0).all()


def test_each_picture_has_its_own_operations():
    picture = smooth(64, 64)
    changed = run(RandAugment(1, 6.0), np.repeat(picture[None], 200, axis=0), True)
    distinct = np.unique(changed.reshape(200, -1).round(2), axis=0)
    assert len(distinct) > 20  # 16 operations, of which five have a sign and one a place


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout"])
def test_an_operation_moves_pixels(name):
    images = np.repeat(smooth(64, 64)[None], 8, axis=0)
    changed = run(RandAugment(1, 6.0, [name]), images, True)
    assert np.abs(changed - images).mean() > 1
    if name == "TranslateX":
        shift = round(64 * 100 / 224 * 0.6)
        left = np.abs(changed[:, :, : 64 - shift] - images[:, :, shift:]).mean(axis=(1, 2, 3))
        right = np.abs(changed[:, :, shift:] - images[:, :, : 64 - shift]).mean(axis=(1, 2, 3))
        assert (np.minimum(left, right) < 4).all() and left.min() < 4 and right.min() < 4


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="unknown operations Blur"):
        RandAugment(operations=["Blur"])


@pytest.mark.parametrize("count", [0, 5, 1.5])
def test_the_number_of_operations_has_a_range(count):
    with pytest.raises(ValueError, match=f"num_layers {count}: must be an int from 1 to 4"):
        RandAugment(num_layers=count)


# Mixing


def test_mixup_mixes_pictures_and_targets_in_the_same_shares():
    """Pictures that are their own one-hot targets: what comes out of one must come out of the other."""
    labels = np.arange(6)
    images = np.eye(6, dtype="float32")[:, None, None, :] * np.ones((1, 4, 4, 1), "float32")
    layer = Mixing(mixup=0.8, seed=4)
    shares = []
    for _ in range(20):
        mixed = run(layer, images, True)
        targets = soft_targets(layer, labels, 6)
        np.testing.assert_allclose(mixed[:, 0, 0], targets, atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        shares.append(float(ops.convert_to_numpy(layer.share)))
    assert min(shares) < 0.3 and max(shares) > 0.7


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    labels = np.arange(6)
    images = np.eye(6, dtype="float32")[:, None, None, :] * np.ones((1, 16, 16, 1), "float32")
    layer = Mixing(cutmix=1.0, seed=4)
    for _ in range(20):
        mixed = run(layer, images, True)
        assert set(np.unique(mixed)) <= {0.0, 1.0}
        targets = soft_targets(layer, labels, 6)
        np.testing.assert_allclose(mixed.mean(axis=(1, 2)), targets, atol=1e-6)


def test_mixup_and_cutmix_take_turns():
    images = np.eye(6, dtype="float32")[:, None, None, :] * np.ones((1, 16, 16, 1), "float32")
    layer = Mixing(mixup=1.0, cutmix=1.0, seed=4)
    is_patch = [set(np.unique(run(layer, images, True))) <= {0.0, 1.0} for _ in range(30)]
    assert 8 < sum(is_patch) < 22


# Dropping


def test_dropout():
    dropped = run(CountedDropout(0.3, seed=1), np.ones((50, 400), "float32"), True)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.7)}
    assert abs((dropped == 0).mean() - 0.3) < 0.02
    assert np.array_equal(run(CountedDropout(0.3), np.ones((2, 9), "float32"), False), np.ones((2, 9)))


# Head


def test_the_head_survives_serialisation():
    head = ClassifierHead(2, ["a", "b"])
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head))
    assert copy.get_config() == head.get_config()


def test_head_starts_at_zero_and_checks_its_names():
    head = ClassifierHead(3, ["a", "b", "c"])
    assert np.array_equal(run_head(head), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        ClassifierHead(3, ["a", "b"])


def run_head(head):
    return ops.convert_to_numpy(head(np.ones((2, 5), "float32")))


def test_threads_have_keys_of_their_own():
    """As TensorFlow's, of which each has a device, and which switch amid a step."""
    counter = DrawKeys(seed=0)
    first = ops.convert_to_numpy(counter(np.zeros((2, 4, 4, 3), "float32")))
    thread = threading.Thread(target=counter, args=(np.zeros((3, 4, 4, 3), "float32"),))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(ops.convert_to_numpy(counter.latest()), first)
