"""What a backend's faster ways change is rounding alone: against Keras' own layers, forward and in training."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras_hub.models import DeiTBackbone
from keras_hub.models import ResNetBackbone
from keras_hub.models import ViTBackbone

from keras_dogs import backends
from keras_dogs.backends import layers
from keras_dogs.backends import selection
from keras_dogs.models import initialization

if backends.name() == "torch":
    from keras_dogs.backends.on_torch import batch_norm
    from keras_dogs.backends.on_torch import onednn
    from keras_dogs.backends.on_torch import through_graph

YNNPACK = "xla_cpu_experimental_ynn_fusion_type"


@pytest.fixture
def rng() -> np.random.Generator:
    """What a test draws from; Keras' own initial weights are the same each time, too."""
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def vit():
    return ViTBackbone(image_shape=(32, 32, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)


def deit():
    return DeiTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32
    )


def resnet(block_type="bottleneck_block", **arguments):
    return ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 2],
        stackwise_num_strides=[1, 2],
        block_type=block_type,
        image_shape=(32, 32, 3),
        **{"use_pre_activation": False, **arguments},
    )


def padded():
    """Convolutions and pools that the backbones have not."""
    layers = [
        keras.layers.Conv2D(6, 3, strides=2, padding="same", name="asymmetric"),
        keras.layers.Conv2D(6, 4, padding="same", name="even"),
        keras.layers.Conv2D(6, (5, 3), padding="same", dilation_rate=2, groups=2, activation="relu", name="dilated"),
        keras.layers.MaxPooling2D(3, 2, padding="same"),
        keras.layers.BatchNormalization(center=False, scale=False, momentum=0.7),
    ]
    x = inputs = keras.Input((32, 32, 3))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def strided():
    """First convolutions that step over places, not all of which are seen."""
    x = inputs = keras.Input((32, 32, 3))
    cases = ((5, 3), ((3, 4), 2), (5, 5), (2, (3, 1)))
    parts = [keras.layers.Conv2D(5, size, strides=strides)(x) for size, strides in cases]
    parts = [keras.layers.GlobalAveragePooling2D()(part) for part in parts]
    return keras.Model(inputs, keras.layers.Concatenate()(parts))


MODELS = {
    "vit": vit,
    "deit": deit,
    "resnet": resnet,
    "resnet v2": lambda: resnet("basic_block", use_pre_activation=True),
    "padded": padded,
    "strided": strided,
}


def classifier(build, is_fast=False):
    backbone = build()
    outputs = backbone.output
    axes = tuple(range(1, len(outputs.shape) - 1))
    model = keras.Model(backbone.input, keras.layers.Dense(5)(keras.ops.mean(outputs, axis=axes)))
    if is_fast:
        layers.speed_up(model)
        layers.speed_up(model)  # as often as one likes
    return model


@pytest.fixture
def pair(request, rng):
    """A model as Keras has it and one that is sped up, with the same weights."""
    with initialization.seeded_initializers(0):  # JAX' own would compile a program for each shape
        models = [classifier(MODELS[request.param], is_fast=is_fast) for is_fast in (False, True)]
    # Norms and biases that are not at their start, or half of what they do could not be seen.
    values = [weight + rng.uniform(0, 0.2, weight.shape) for weight in models[0].get_weights()]
    for model in models:
        model.set_weights(values)
    return models


@pytest.mark.parametrize("pair", MODELS, indirect=True)
def test_same_outputs_and_same_training(pair, rng):
    check_same(pair, rng)


@pytest.mark.skipif(backends.name() != "torch", reason="PyTorch's products")
@pytest.mark.parametrize("pair", ["vit"], indirect=True)
def test_the_same_by_onednn(pair, rng, monkeypatch):
    """Whatever CPU this is, and however small the matrices."""
    monkeypatch.setattr(backends.module_of("runtime"), "mkl_is_slow", lambda: True)
    monkeypatch.setattr(onednn, "WORTH_WHILE", 0)
    calls, multiply = [], onednn.multiply
    monkeypatch.setattr(onednn, "multiply", lambda *matrices: calls.append(matrices) or multiply(*matrices))
    check_same(pair, rng)
    assert {bias is None for _, _, bias in calls} == {False} and len(calls) > 10


def check_same(pair, rng):
    images, labels = rng.normal(size=(6, 32, 32, 3)).astype("float32"), np.arange(6) % 5
    outputs = [model.predict_on_batch(images) for model in pair]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5 * np.abs(outputs[0]).max())
    if not layers.describe(pair[1]):
        assert backends.name() == "tensorflow"
        return  # which has one swap: where it has no place, both models are Keras' own
    before = [weight.copy() for weight in pair[0].get_weights()]
    for model in pair:
        model.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        for _ in range(2):
            model.train_on_batch(images, labels)
    for start, plain, fast, variable in zip(before, pair[0].get_weights(), pair[1].get_weights(), pair[0].weights):
        # Moving statistics included; what is compared is how far each moved.
        np.testing.assert_allclose(
            fast - start,
            plain - start,
            rtol=2e-3,
            atol=2e-4 * np.abs(plain - start).max() + 1e-7,
            err_msg=variable.path,
        )


@pytest.mark.skipif(backends.name() != "torch", reason="PyTorch's products")
@pytest.mark.parametrize("needed", ["all", "rows", "kernel", "bias"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_by_onednn(needed, has_bias, rng):
    """With the gradients that are asked for; of matrices that are turned over, too."""
    import torch

    rows, kernel = (torch.from_numpy(rng.normal(size=shape)) for shape in ((7, 5), (3, 5)))
    parts = {"rows": rows, "kernel": kernel.t(), "bias": torch.from_numpy(rng.normal(size=3)) if has_bias else None}
    found = []
    for multiply, dtype in (
        (onednn.multiply, torch.float32),
        (lambda rows, kernel, bias: rows @ kernel, torch.float64),
    ):
        given = {name: part if part is None else part.detach().to(dtype) for name, part in parts.items()}
        asked = [part.requires_grad_() for name, part in given.items() if part is not None and needed in (name, "all")]
        outputs = multiply(**given)
        if dtype == torch.float64 and has_bias:
            outputs = outputs + given["bias"]
        shares = torch.autograd.grad(outputs.sum(0).sum(), asked) if asked else []
        found.append([outputs.detach().double(), *(share.double() for share in shares)])
    assert len(found[0]) == len(found[1])
    for fast, exact in zip(*found):
        torch.testing.assert_close(fast, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(backends.name() != "torch", reason="PyTorch's products")
def test_the_gradient_of_a_gradient_by_onednn():
    import torch

    found = []
    for multiply, dtype in ((onednn.multiply, torch.float32), (lambda rows, kernel, _: rows @ kernel, torch.float64)):
        drawn = np.random.default_rng(0)
        rows, kernel = (
            torch.from_numpy(drawn.normal(size=shape)).to(dtype).requires_grad_() for shape in ((7, 5), (5, 3))
        )
        shares = torch.autograd.grad((multiply(rows, kernel, None) ** 3).sum(), (rows, kernel), create_graph=True)
        found.append(torch.autograd.grad(sum((share**2).sum() for share in shares), (rows, kernel)))
    for fast, exact in zip(*found):
        torch.testing.assert_close(fast.double(), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(backends.name() != "torch", reason="PyTorch's products")
def test_what_is_exported_has_operators_of_pytorch_alone(rng, monkeypatch):
    import torch

    monkeypatch.setattr(backends.module_of("runtime"), "mkl_is_slow", lambda: True)
    monkeypatch.setattr(onednn, "WORTH_WHILE", 0)
    model = classifier(vit, is_fast=True)
    images = torch.from_numpy(rng.normal(size=(2, 32, 32, 3)).astype("float32"))
    exported = torch.export.export(model, (images,), strict=False)
    assert "aten.addmm" in exported.graph_module.code and "keras_dogs" not in exported.graph_module.code


class Canvas(keras.layers.Layer):
    """Adds a picture that can be trained, so that what it has learnt tells where gradients went."""

    def build(self, shape):
        self.picture = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, inputs):
        return inputs + self.picture


@pytest.mark.parametrize("size, strides", [((3, 3), (2, 2)), ((2, 3), (1, 4)), ((2, 2), (2, 2)), ((5, 1), (3, 2))])
def test_the_largest_of_a_window(size, strides, rng):
    """Its gradient goes to the first of several that are as large, as in Keras' own."""
    images = rng.integers(0, 3, (4, 13, 12, 2)).astype("float32")
    targets, pictures = rng.normal(size=(4,)).astype("float32"), []
    for is_fast in (False, True):
        inputs = keras.Input(images.shape[1:])
        pooled = keras.layers.MaxPooling2D(size, strides)(Canvas()(inputs))
        weighed = keras.layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(seed=0))
        model = keras.Model(inputs, weighed(keras.layers.Flatten()(pooled)))
        if is_fast:
            layers.speed_up(model)
        model.compile(keras.optimizers.SGD(0.01), "mse")
        model.train_on_batch(images, targets)
        pictures.append(model.get_weights()[0])
    assert np.abs(pictures[0]).max() > 0
    np.testing.assert_allclose(pictures[1], pictures[0], atol=1e-6)


@pytest.mark.parametrize("pair", ["resnet"], indirect=True)
def test_a_frozen_norm_stays(pair, rng):
    """`trainable = False` means the moving statistics, in training too."""
    images, labels = rng.normal(size=(6, 32, 32, 3)).astype("float32"), np.arange(6) % 5
    _, fast = pair
    norms = [layer for layer in fast._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.trainable = False
    before = [norm.get_weights() for norm in norms]
    fast.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fast.train_on_batch(images, labels)
    for norm, weights in zip(norms, before):
        for now, then in zip(norm.get_weights(), weights):
            np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("name", ["vit", "resnet", "strided"])
def test_mixed_precision(name, has_gpu, rng, monkeypatch):
    """The same policy with and without: outputs agree to what bfloat16 holds, and norms keep float32."""
    monkeypatch.setattr(backends, "has_accelerator", lambda: has_gpu)  # or as it is done there
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        plain, fast = (classifier(MODELS[name], is_fast=is_fast) for is_fast in (False, True))
    finally:
        keras.config.set_dtype_policy(before)
    fast.set_weights(plain.get_weights())
    images = rng.normal(size=(6, 32, 32, 3)).astype("float32")
    outputs = [
        np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(model(images), "float32"))) for model in (plain, fast)
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.03 * np.abs(outputs[0]).max())


@pytest.mark.parametrize("how", ["of another", "masked", "causal", "with its weights", "near"])
def test_attention_that_is_asked_for_more(how, rng):
    """A sequence's attention to itself has a faster way; any other is Keras' own."""
    query, value = keras.Input((5, 8)), keras.Input((5, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, sliding_window=2 if how == "near" else None)
    asked = {
        "masked": {"attention_mask": np.tril(np.ones((1, 5, 5), "bool"), 1)},
        "causal": {"use_causal_mask": True},
        "with its weights": {"return_attention_scores": True},
    }.get(how, {})
    model = keras.Model([query, value], attention(query, value if how == "of another" else query, **asked))
    inputs = [rng.normal(size=(3, 5, 8)).astype("float32") for _ in range(2)]
    before = keras.tree.flatten(model(inputs))
    layers.speed_up(model)
    for now, then in zip(keras.tree.flatten(model(inputs)), before):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (now, then)), atol=1e-6)


class Witness(keras.layers.Layer):
    """Passes on a new tensor, and keeps of it whether it still is."""

    def call(self, inputs):
        outputs = inputs + 1.0
        self.seen = weakref.ref(outputs)
        return outputs


@pytest.mark.skipif(backends.name() != "torch", reason="the others compile a step, and free as they see fit")
def test_what_no_layer_needs_any_more_is_freed(rng):
    witnesses = [Witness() for _ in range(5)]
    alive = []
    count = keras.layers.Lambda(lambda x: alive.append(sum(one.seen() is not None for one in witnesses)) or x * 1.0)
    x = inputs = keras.Input((3,))
    x = first = witnesses[0](x)
    for witness in witnesses[1:]:
        x = witness(x)
    model = keras.Model(inputs, keras.layers.Add()([count(x), first]))  # a shortcut past them all
    layers.speed_up(model)
    alive.clear()
    np.testing.assert_allclose(model.predict_on_batch(np.zeros((2, 3), "float32")), 6.0)
    assert alive == [2]  # the last, and the shortcut


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(3),
        keras.layers.LayerNormalization(),
        keras.layers.BatchNormalization(),
        keras.layers.MaxPooling2D(2, 1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_somebody_else_replaced_stays(layer, rng):
    """As a ViT without its last norm has it."""
    layer.call = lambda inputs, training=None, mask=None: inputs
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layer(inputs))
    layers.speed_up(model)
    images = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_array_equal(model.predict_on_batch(images), images)


@pytest.mark.parametrize("reader", [keras.layers.MaxPooling2D(3, 2), keras.layers.Conv2D(2, 3)], ids=["pool", "conv"])
def test_zeros_are_put_around_what_somebody_else_reads(reader, rng):
    reader.call = lambda inputs, training=None: inputs
    reader.compute_output_spec = lambda inputs, training=None: keras.KerasTensor(inputs.shape)
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, reader(keras.layers.ZeroPadding2D(1)(keras.layers.Activation("relu")(inputs))))
    layers.speed_up(model)
    assert model.predict_on_batch(rng.normal(size=(2, 4, 4, 3)).astype("float32")).shape == (2, 6, 6, 3)


@pytest.mark.skipif(backends.name() != "torch", reason="the others leave zeros to no other layer")
def test_two_threads_do_not_disturb_each_other(rng, monkeypatch):
    """One predicts while a layer of the other has zeros left to it."""
    model = classifier(resnet, is_fast=True)
    images = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(images))
    pending_padding, elsewhere = through_graph.pending_padding, []

    def once_elsewhere():
        if not elsewhere:
            elsewhere.append(None)
            with ThreadPoolExecutor(1) as other:
                elsewhere.append(keras.ops.convert_to_numpy(other.submit(model, images).result()))
        return pending_padding()

    monkeypatch.setattr(through_graph, "pending_padding", once_elsewhere)
    here = keras.ops.convert_to_numpy(model(images))
    for found in (here, elsewhere[1]):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", *(["float64"] if backends.name() != "jax" else [])])
def test_a_norm_of_one_place_and_of_any_precision(dtype, rng):
    """One number a channel has no variance, and stays a number."""
    norms = [keras.layers.BatchNormalization(dtype=dtype, momentum=0.5) for _ in range(2)]
    inputs = keras.Input((1, 1, 3), dtype=dtype)
    plain, fast = (keras.Model(inputs, norm(inputs)) for norm in norms)
    layers.speed_up(fast)
    for count in (1, 4):
        images = keras.ops.cast(rng.normal(size=(count, 1, 1, 3)).astype("float32"), dtype)
        outputs = [
            keras.ops.convert_to_numpy(keras.ops.cast(model(images, training=training), "float32"))
            for training in (True, False)
            for model in (plain, fast)
        ]
        np.testing.assert_allclose(outputs[1::2], outputs[::2], atol={"bfloat16": 0.05}.get(dtype, 1e-5))
    for now, then in zip(fast.get_weights(), plain.get_weights()):
        assert now.dtype == then.dtype
        now, then = now.astype("float32"), then.astype("float32")
        np.testing.assert_allclose(now, then, atol={"bfloat16": 0.05}.get(dtype, 1e-5))


@pytest.mark.parametrize("shape", [(16, 56, 56, 8), (3, 5, 7, 8)])
def test_statistics_of_a_large_batch_are_exact(shape, rng):
    """To what float32 holds, as a ReLU behind them turns rounding into activations that are there or not."""
    images = (rng.normal(size=shape) * 2 + 0.5).astype("float32")
    inputs = keras.Input(shape[1:])
    norm = keras.layers.BatchNormalization(momentum=0.0)
    model = keras.Model(inputs, norm(inputs))
    layers.speed_up(model)
    model(images, training=True)
    exact = images.astype("float64")
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, atol=5e-7)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, rtol=5e-7)


@pytest.mark.skipif(backends.name() != "torch", reason="PyTorch's operators")
@pytest.mark.parametrize("needed", ["all", "inputs", "gamma", "beta"])
@pytest.mark.parametrize("has_scale", [True, False])
def test_a_batch_norm_by_our_operator(needed, has_scale, rng):
    """With the gradients that are asked for, and those of gradients."""
    import torch

    images = rng.normal(size=(4, 9, 8, 7)).transpose(0, 3, 1, 2)[:, :6]  # some of the channels, which are last
    drawn = {"inputs": images * 2 + 1, "gamma": rng.normal(size=6), "beta": rng.normal(size=6)}
    weights = torch.from_numpy(rng.normal(size=(4, 6, 9, 8)))
    found = []
    for dtype in (torch.float32, torch.float64):
        given = {
            name: torch.from_numpy(value).to(dtype) if has_scale or name == "inputs" else None
            for name, value in drawn.items()
        }
        asked = [part.requires_grad_() for name, part in given.items() if part is not None and needed in (name, "all")]
        if dtype == torch.float32:
            outputs, *statistics = batch_norm.normalise(*given.values(), 1e-3)
        else:
            outputs = torch.nn.functional.batch_norm(
                given["inputs"], None, None, given["gamma"], given["beta"], True, 0.0, 1e-3
            )
            variance, mean = torch.var_mean(given["inputs"], (0, 2, 3), correction=0)
            statistics = [mean, variance]
        found.append([outputs, *statistics])
        if asked:
            shares = torch.autograd.grad((outputs**2 * weights.to(dtype)).sum(), asked, create_graph=True)
            again = [share for share in shares if share.requires_grad]
            found[-1] += [*shares, *torch.autograd.grad(sum((share**2).sum() for share in again), asked)]
    assert len(found[0]) == len(found[1])
    for fast, exact in zip(*found):
        torch.testing.assert_close(
            fast.detach().double(), exact.detach(), rtol=1e-4, atol=1e-4 * exact.abs().max().item()
        )


@pytest.mark.skipif(backends.name() != "jax", reason="XLA's flags")
@pytest.mark.parametrize("users", ["", "--xla_cpu_multi_thread_eigen=true", f"--{YNNPACK}=individual_dot"])
def test_xla_is_told_what_to_leave_to_ynnpack(users, child):
    """Beside a user's flags; where they say it themselves, that holds."""
    code = "import os; from keras_dogs import backends; backends.select(); import jax; jax.devices()"
    code += "; print(os.environ['XLA_FLAGS'])"
    finished = child(["-c", code], XLA_FLAGS=users)
    assert finished.returncode == 0, finished.stderr
    own = [] if YNNPACK in users else [f"--{YNNPACK}=reduce"]
    assert finished.stdout.split() == [*users.split(), *own]


@pytest.mark.skipif(backends.name() != "jax", reason="XLA's flags")
def test_a_flag_of_xla_is_a_whole_name():
    """One that is gone may still be a part of other names in the library, and would end the process."""
    assert selection.xla_knows(YNNPACK) and not selection.xla_knows(YNNPACK.removeprefix("xla_"))


def test_something_is_swapped():
    """Or the tests above would compare Keras with Keras; TensorFlow has nothing to swap in a ViT."""
    fast = [classifier(MODELS[name], is_fast=True) for name in ("vit", "resnet")]
    swapped = [
        any({"call", "convolution_op", "_moments"} & vars(layer).keys() for layer in model._flatten_layers())
        for model in fast
    ]
    expected = {"jax": [True, True], "tensorflow": [False, True], "torch": [True, True]}
    assert swapped == expected[backends.name()]
