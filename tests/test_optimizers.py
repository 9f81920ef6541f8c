"""What a recipe does to the weights, each effect seen in the numbers."""

import re

import keras
import numpy as np
import pytest
import small_models
from conftest import BACKEND
from conftest import soft_targets
from keras import ops

import keras_dogs
from keras_dogs.layers import Mixing
from keras_dogs.layers.dropping import blocks_of
from keras_dogs.models import families
from keras_dogs.models import presets
from keras_dogs.models.classifier import SmoothedCrossentropy
from keras_dogs.training.optimizers import WarmupCosine
from keras_dogs.training.optimizers import averaged
from keras_dogs.training.optimizers import build_optimizer
from keras_dogs.training.optimizers import depths_below_head
from keras_dogs.training.optimizers import state_variables
from keras_dogs.training.recipes import RECIPES

PLAIN = RECIPES["adamw"]._replace(epochs=1, batch_size=8, learning_rate=1e-2, weight_decay=0.0, global_clipnorm=0.0)
SGD = PLAIN._replace(optimizer="sgd")
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (8, 64, 64, 3), dtype="uint8")
LABELS = np.arange(8) % 3


def small_vit(recipe, rate=None, steps_per_epoch=4, **arguments):
    classifier = keras_dogs.build_vit(small_models.preset("vit"), 3, augmentation="none", seed=1, **arguments)
    head = classifier.get_layer("head")
    head.set_weights([np.random.default_rng(1).normal(0, 0.1, weight.shape) for weight in head.get_weights()])
    rate = recipe.learning_rate if rate is None else rate
    optimizer = build_optimizer(recipe, rate, classifier, steps_per_epoch)
    classifier.compile(optimizer, SmoothedCrossentropy(recipe.label_smoothing))
    return classifier


def values(classifier):
    return [ops.convert_to_numpy(weight.value).copy() for weight in classifier.trainable_variables]


def changes(classifier, steps=1, pictures=PICTURES, labels=LABELS):
    before = values(classifier)
    for _ in range(steps):
        classifier.train_on_batch(pictures, labels)
    return [after - weight for after, weight in zip(values(classifier), before)]


@pytest.fixture(scope="module")
def plain():
    """What the first update of SGD changes."""
    return changes(small_vit(SGD))


def test_layer_decay_scales_the_update_of_each_block(plain):
    """SGD's first update is the rate times the gradient, so the ratio of two is that of the rates."""
    decayed = changes(model := small_vit(SGD._replace(layer_decay=0.5)))
    depths = depths_below_head(model)
    assert sorted(set(depths)) == [0, 1, 2, 3]
    for one, other, depth in zip(plain, decayed, depths):
        np.testing.assert_allclose(other, one * 0.5**depth, atol=2e-7)


@pytest.mark.once
@pytest.mark.parametrize("preset", ["resnet_nano", "deit_tiny_distilled_patch16_224_imagenet", "resnet_50"])
def test_depths_fall_from_the_stem_to_the_head(preset):
    classifier = keras_dogs.build_classifier(preset, 3, load_weights=False, image_size=64)
    depths = depths_below_head(classifier)
    assert depths[-2:] == [0, 0] and depths[0] == max(depths) == len(set(depths)) - 1
    assert depths == sorted(depths, reverse=True)


def test_weight_decay_leaves_norms_biases_tokens_and_positions_alone():
    classifier = small_vit(PLAIN._replace(weight_decay=0.5))
    classifier.optimizer.build(classifier.trainable_variables)
    use = classifier.optimizer._use_weight_decay
    decayed = [weight.path for weight in classifier.trainable_variables if use(weight)]
    assert len(decayed) == 2 + 2 * 6 and all(path.endswith("kernel") for path in decayed), decayed


def test_weight_decay_is_that_of_the_group():
    """With a gradient of nothing, only decay moves a weight: by rate x decay x layer decay."""
    recipe = SGD._replace(weight_decay=0.1, layer_decay=0.5)
    classifier = small_vit(recipe)
    before = values(classifier)
    classifier.optimizer.apply([ops.zeros(weight.shape) for weight in before], classifier.trainable_variables)
    rows = zip(classifier.trainable_variables, before, values(classifier), depths_below_head(classifier))
    for weight, old, new, depth in rows:
        share = 1 - 0.1 * 1e-2 * 0.5**depth if weight.path.endswith("kernel") else 1
        np.testing.assert_allclose(new, old * share, rtol=1e-6, atol=1e-9)


def test_accumulation_equals_the_big_batch():
    # Adam divides by the gradient's size: where that is rounding alone, so is the direction. SGD has no such places.
    whole, parts = small_vit(SGD), small_vit(SGD._replace(accumulate=4))
    for _ in range(2):
        whole.train_on_batch(PICTURES, LABELS)
        for start in range(0, 8, 2):
            parts.train_on_batch(PICTURES[start : start + 2], LABELS[start : start + 2])
    for one, other in zip(values(whole), values(parts)):
        np.testing.assert_allclose(other, one, atol=1e-5)
    assert max(np.abs(change).max() for change in changes(whole)) > 1e-3


def test_the_schedule_counts_updates():
    schedule = WarmupCosine(1.0, updates=10, warmup_fraction=0.2, accumulate=3)
    rates = [float(ops.convert_to_numpy(schedule(step))) for step in range(30)]
    assert rates[0] == rates[2] == 0 and rates[3] == rates[5] == pytest.approx(0.5) and rates[6] == pytest.approx(1.0)
    assert all(rates[3 * update] == rates[3 * update + 2] for update in range(10))
    cosine = [0.5 * (1 + np.cos(np.pi * step / 8)) for step in range(8)]
    np.testing.assert_allclose(rates[6::3], cosine, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("dtype_policy", ["float32", "mixed_float16"])
def test_the_optimizer_takes_the_rates_of_its_schedule(accumulate, dtype_policy):
    """Step by step; and that of another schedule, where it is given one. No checkpoint has its numbers."""
    schedule = WarmupCosine(1e-3, updates=5, warmup_fraction=0.4, accumulate=accumulate)
    classifier = keras_dogs.build_vit(small_models.preset("vit"), 3, augmentation="none")
    recipe = PLAIN._replace(accumulate=accumulate)
    optimizer = build_optimizer(recipe, schedule, classifier, 4, dtype_policy)
    classifier.compile(optimizer, SmoothedCrossentropy(0.0))
    taken, inner = [], getattr(optimizer, "inner_optimizer", optimizer)
    for _ in range(5 * accumulate):
        taken.append(float(ops.convert_to_numpy(inner.learning_rate)))
        classifier.train_on_batch(PICTURES, LABELS)
    expected = [float(ops.convert_to_numpy(schedule(step))) for step in range(5 * accumulate)]
    np.testing.assert_allclose(taken, expected, rtol=1e-5, atol=1e-9)
    assert max(expected) == pytest.approx(1e-3) and all(np.isfinite(value).all() for value in values(classifier))
    assert len(state_variables(optimizer)) == len(optimizer.variables) - 1
    inner.learning_rate = WarmupCosine(1.0, updates=1, warmup_fraction=0.0, accumulate=100)
    assert float(ops.convert_to_numpy(inner.learning_rate)) == 1.0


@pytest.mark.long
@pytest.mark.skipif(BACKEND != "jax", reason="nothing that was compiled is kept")
def test_a_training_of_another_length_and_rate_is_compiled_already(child, tmp_path, dogs):
    compiled, given = tmp_path / "cache" / "compiled", ["--dataset", dogs, "--batch-size", 4]
    steps = []
    for number, more in enumerate((["--epochs", 1], ["--epochs", 2, "--learning-rate", 1e-4])):
        arguments = ["-m", "keras_dogs.train", *given, *more, "--output", tmp_path / f"run{number}"]
        finished = child(arguments, KERAS_DOGS_CACHE=str(tmp_path / "cache"))
        assert finished.returncode == 0, finished.stderr
        steps.append({file.name for file in compiled.glob("jit_train_step*-cache")})
    assert len(steps[0]) == 1 and steps[1] == steps[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ema_is_the_running_mean_of_the_updates(accumulate):
    recipe = SGD._replace(ema=0.9, accumulate=accumulate)
    classifier = small_vit(recipe)
    mean, updates = values(classifier), 0
    for step in range(4 * accumulate):
        classifier.train_on_batch(PICTURES, LABELS)
        if (step + 1) % accumulate == 0:
            momentum = min(0.9, updates / (updates + 9))
            updates += 1
            mean = [momentum * old + (1 - momentum) * new for old, new in zip(mean, values(classifier))]
    raw = values(classifier)
    with averaged(classifier):
        for found, expected in zip(values(classifier), mean):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert all(np.array_equal(one, other) for one, other in zip(raw, values(classifier)))
    assert max(np.abs(one - other).max() for one, other in zip(raw, mean)) > 1e-4


def test_gradients_are_clipped_by_their_global_norm(plain):
    """SGD's first update is the rate times the clipped gradient."""
    clipped = changes(small_vit(SGD._replace(global_clipnorm=0.1)))
    free, clipped = (np.concatenate([change.ravel() for change in found]) for found in (plain, clipped))
    assert np.linalg.norm(free) > 2e-3 and np.linalg.norm(clipped) == pytest.approx(1e-2 * 0.1, rel=1e-3)
    assert free @ clipped == pytest.approx(np.linalg.norm(free) * np.linalg.norm(clipped), rel=1e-4)


def test_gradual_unfreezing_begins_at_the_top():
    """Two updates an epoch, a block an epoch: head at once, the last block in the second epoch, ..."""
    classifier = small_vit(SGD._replace(unfreeze_every=1.0), steps_per_epoch=2)
    depths = np.array(depths_below_head(classifier))
    # A key's bias adds the same to all that softmax weighs: its gradient is pure rounding error, or nothing.
    may_rest = np.array(["key/bias" in weight.path for weight in classifier.trainable_variables])
    for epoch in range(3):
        for _ in range(2):
            moved = np.array([np.abs(change).max() > 0 for change in changes(classifier)])
            learning = {depth for depth in set(depths.tolist()) if (moved | may_rest)[depths == depth].all()}
            frozen = {depth for depth in set(depths.tolist()) if not moved[depths == depth].any()}
            assert learning == set(range(epoch + 1)) and frozen == set(range(epoch + 1, 4))


def test_accumulation_releases_no_block_too_early():
    """Five steps an epoch, four an update: a block each 1.25 updates, not each one."""
    classifier = small_vit(SGD._replace(unfreeze_every=1.0, accumulate=4), steps_per_epoch=5)
    expected = {depth: round(1.25 * depth) for depth in range(4)}
    first_updates = [first for _, first in classifier.optimizer.groups]
    assert first_updates == [expected[depth] for depth in depths_below_head(classifier)]


def test_what_is_held_has_no_part_in_the_norm_of_the_gradients():
    """The head alone learns in the first update; scaled down to 0.001, its gradient has that norm."""
    classifier = small_vit(SGD._replace(unfreeze_every=1.0, global_clipnorm=0.001))
    moved = np.concatenate([change.ravel() for change in changes(classifier)])
    assert np.linalg.norm(moved) == pytest.approx(1e-2 * 0.001, rel=1e-3)


def test_what_is_held_gathers_no_moments():
    """When it is released, its first update is Adam's first one: as large as the rate, whatever was before."""
    classifier = small_vit(PLAIN._replace(unfreeze_every=1.0), steps_per_epoch=3)
    depths = np.array(depths_below_head(classifier))
    changes(classifier, steps=3)
    optimizer = classifier.optimizer
    for depth, weight in zip(depths, classifier.trainable_variables):
        moments = [
            each[optimizer._get_variable_index(weight)] for each in (optimizer._momentums, optimizer._velocities)
        ]
        is_moved = any(np.abs(ops.convert_to_numpy(moment.value)).max() > 0 for moment in moments)
        assert is_moved == (depth == 0)
    rows = zip(changes(classifier), depths, classifier.trainable_variables)
    of_block = [np.abs(change).max() for change, depth, weight in rows if depth == 1 and "key/bias" not in weight.path]
    np.testing.assert_allclose(of_block, 1e-2, rtol=0.05)


def shrunken(row: presets.Preset) -> presets.Preset:
    """The same layers with fewer numbers in each."""
    small = dict(num_heads=1, hidden_dim=4, mlp_dim=4, intermediate_dim=4, patch_size=8)
    small |= dict(stackwise_num_filters=[64] * 4, input_conv_filters=[4, 4, 64])
    architecture = {name: small.get(name, value) for name, value in row.architecture.items()}
    if row.family == "resnet":
        for name in ("stackwise_num_filters", "input_conv_filters"):
            architecture[name] = architecture[name][-len(row.architecture[name]) :]
    return row._replace(architecture=architecture, image_size=32)


SMALL = {repr(row := shrunken(preset)): row._replace(source=None) for preset in presets.PRESETS.values()}


@pytest.mark.skipif(BACKEND != "torch", reason="the names of weights are the same on every backend")
@pytest.mark.parametrize("row", SMALL.values(), ids=str)
def test_each_weight_of_every_preset_has_the_level_of_its_place(row, monkeypatch):
    """Held against where its layer stands in the network, not how it is called."""
    monkeypatch.setitem(presets.PRESETS, "small", row)
    classifier = keras_dogs.build_classifier("small", 3, load_weights=False, augmentation="none")
    backbone, level, levels = classifier.backbone, 0, {}
    if row.family == "resnet":
        for layer in backbone.layers:
            if found := re.match(r"stack(\d)", layer.name):
                level = int(found[1]) + 1
            elif level:
                level = len(row.architecture["stackwise_num_blocks"]) + 1
            levels |= {id(weight): level for weight in layer.trainable_variables}
    else:
        levels |= {id(weight): 0 for weight in backbone.layers[1].trainable_variables}
        for level, block in enumerate(blocks_of(backbone, families.FAMILIES[row.family].block), 1):
            levels |= {id(weight): level for weight in block.trainable_variables}
    top = 1 + (len(row.architecture["stackwise_num_blocks"]) if row.family == "resnet" else level)
    expected = [top - levels.get(id(weight), top) for weight in classifier.trainable_variables]
    assert depths_below_head(classifier) == expected and max(expected) == top


def test_label_smoothing_is_keras_on_one_hot_labels():
    logits = RNG.normal(size=(8, 3)).astype("float32")
    for smoothing in (0.0, 0.1):
        there = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        expected = float(there(np.eye(3, dtype="float32")[LABELS], logits))
        assert float(SmoothedCrossentropy(smoothing)(LABELS, logits)) == pytest.approx(expected, rel=1e-5)


def test_smoothing_goes_with_mixing():
    """The soft targets of a mixed batch, smoothed, are what the loss is of."""
    policy = keras_dogs.layers.AUGMENTATIONS["none"]._replace(mixing=dict(mixup=0.8))
    classifier = keras_dogs.build_vit(small_models.preset("vit"), 3, augmentation=policy)
    classifier.compile(keras.optimizers.SGD(0.0), SmoothedCrossentropy(0.1))
    logits = ops.convert_to_tensor(RNG.normal(size=(8, 3)).astype("float32"))
    classifier(PICTURES, training=True)
    mixing = next(layer for layer in classifier.layers if isinstance(layer, Mixing))
    targets = soft_targets(mixing, LABELS, 3) * 0.9 + 0.1 / 3
    expected = float(keras.losses.CategoricalCrossentropy(from_logits=True)(targets, logits))
    found = classifier.compute_loss(None, ops.convert_to_tensor(LABELS), logits)
    assert float(ops.convert_to_numpy(found)) == pytest.approx(expected, rel=1e-4)


def test_rematerialised_blocks_give_the_same_update():
    plain, again = small_vit(SGD, drop_path=0.5), small_vit(SGD, drop_path=0.5, remat=True)
    for one, other in zip(changes(plain, 2), changes(again, 2)):
        np.testing.assert_allclose(other, one, atol=1e-6)
