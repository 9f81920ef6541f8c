"""What a classifier is handed: refused or put right, never guessed."""

import keras
import numpy as np
import pytest
import small_models
from conftest import BACKEND
from keras import ops
from PIL import Image

import keras_dogs
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.errors import UserError
from keras_dogs.layers.canvas import to_canvases

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 64, 64, 3), dtype="uint8")
LABELS = np.arange(6) % 3


def classifier():
    return keras_dogs.build_classifier(small_models.preset("resnet"), 3, augmentation="none")


# Losses

SPARSE, ONE_HOT = LABELS, np.eye(3, dtype="float32")[LABELS]
CROSSENTROPIES = {
    "sparse_categorical_crossentropy": SPARSE,
    "categorical_crossentropy": ONE_HOT,
    "binary_crossentropy": ONE_HOT,
    "categorical_focal_crossentropy": ONE_HOT,
    "binary_focal_crossentropy": ONE_HOT,
}


def ways(name):
    camel = "".join(part.capitalize() for part in name.split("_"))
    yield name
    yield camel
    yield getattr(keras.losses, name)
    yield getattr(keras.losses, camel)()
    yield [getattr(keras.losses, camel)(from_logits=False)]
    yield getattr(keras.losses, camel)(from_logits=True)


@pytest.mark.once
@pytest.mark.parametrize("name", CROSSENTROPIES)
def test_each_cross_entropy_is_of_logits(name):
    """By any of its names, as a function or an instance: the loss is that of `from_logits=True`."""
    model = classifier()
    head = model.get_layer("head")
    head.set_weights([RNG.normal(0, 0.5, weight.shape) for weight in head.get_weights()])
    labels = CROSSENTROPIES[name]
    camel = "".join(part.capitalize() for part in name.split("_"))
    logits = model.predict(PICTURES, verbose=0)
    expected = float(ops.convert_to_numpy(getattr(keras.losses, camel)(from_logits=True)(labels, logits)))
    for loss in ways(name):
        model.compile("sgd", loss)
        assert model.evaluate(PICTURES, labels, verbose=0) == pytest.approx(expected, rel=1e-4), loss


def test_the_tutorials_line_trains():
    """It went to NaN in the first step, as logits start at zero."""
    model = classifier()
    model.compile("adamw", "sparse_categorical_crossentropy", metrics=["accuracy", "sparse_categorical_crossentropy"])
    history = model.fit(PICTURES, LABELS, epochs=2, batch_size=6, verbose=0).history
    assert history["loss"][0] == pytest.approx(np.log(3), rel=1e-4) and np.isfinite(history["loss"]).all()
    assert history["sparse_categorical_crossentropy"] == pytest.approx(history["loss"], rel=1e-4)


def test_metrics_of_logits_are_means_over_pictures():
    """A metric that is given by name is one, not a loss: a short last batch counts for what it is."""
    model = classifier()
    head = model.get_layer("head")
    head.set_weights([RNG.normal(0, 0.5, weight.shape) for weight in head.get_weights()])
    names = ["sparse_categorical_crossentropy", "accuracy"]
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=names, weighted_metrics=names[:1])
    found = model.evaluate(PICTURES[:5], LABELS[:5], batch_size=4, verbose=0, return_dict=True)
    assert found["sparse_categorical_crossentropy"] == pytest.approx(found["loss"], rel=1e-5)
    model.fit(PICTURES, LABELS, batch_size=4, sample_weight=np.arange(6.0), verbose=0)
    model.compile("sgd", "categorical_crossentropy", metrics=["categorical_focal_crossentropy"])
    assert np.isfinite(model.evaluate(PICTURES, ONE_HOT, verbose=0)).all()


def test_what_compares_probabilities_is_refused():
    model = classifier()
    for loss in ("kl_divergence", "kld", "KLD", "poisson", keras.losses.KLDivergence(), keras.losses.Poisson()):
        with pytest.raises(UserError, match="compares probabilities, and the classifier gives logits"):
            model.compile("sgd", loss)
    with pytest.raises(UserError, match="metric 'crossentropy': .* keras.metrics.Sparse"):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["crossentropy"])
    with pytest.raises(UserError, match="loss 'crossentropy': .* keras.losses.Sparse"):
        model.compile("sgd", "crossentropy")
    model.compile("sgd", "mean_squared_error", metrics=[keras.metrics.MeanSquaredError()])


# Batches


def calls(model, images):
    """Every way into the model."""
    yield lambda: model(images)
    yield lambda: model.predict(images, verbose=0)
    yield lambda: model.predict_on_batch(images)
    yield lambda: model.evaluate(images, LABELS, verbose=0)
    yield lambda: model.test_on_batch(images, LABELS)
    yield lambda: model.train_on_batch(images, LABELS)
    yield lambda: model.fit(images, LABELS, verbose=0)
    yield lambda: model.fit(((images, LABELS) for _ in range(2)), steps_per_epoch=1, verbose=0)
    yield lambda: model.predict(ops.convert_to_tensor(images), verbose=0)


@pytest.mark.parametrize("shape", [(6, 64, 64, 1), (6, 64, 64, 4), (64, 64, 3), (6, 64, 64)])
def test_what_is_no_batch_of_pictures_is_refused_with_its_shape(shape):
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    for call in calls(model, np.zeros(shape, "uint8")):
        with pytest.raises(UserError, match=r"a batch must be \(batch, height, width, 3\)"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images / 255, "multiply by 255"),
        (lambda images: images / 127.5 - 1, "not normalised"),
        (lambda images: images * 257, "not normalised"),
        (lambda images: images * np.nan, "not finite"),
    ],
)
def test_floats_of_another_range_are_refused_with_it(change, message):
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = change(PICTURES.astype("float32"))
    for call in list(calls(model, images))[1:]:  # a call amid a graph has no values
        with pytest.raises(UserError, match=message):
            call()


def test_loaders_are_looked_at_and_lose_nothing():
    class Batches(keras.utils.PyDataset):
        def __init__(self, images):
            super().__init__()
            self.images = images

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return self.images[2 * index : 2 * index + 2], LABELS[2 * index : 2 * index + 2]

    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(Batches(PICTURES), verbose=0)
    with pytest.raises(UserError, match="multiply by 255"):
        model.fit(Batches(PICTURES / 255), verbose=0)
    expected = model.predict(PICTURES, verbose=0)
    found = model.predict(((PICTURES[start : start + 2],) for start in (0, 2, 4)), steps=3, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((PICTURES / 255, LABELS)).batch(2)
        with pytest.raises(UserError, match="multiply by 255"):
            model.fit(data, verbose=0)


def test_a_generator_that_validates_is_not_robbed():
    """Keras takes its first batch; the check took another, so that one was never seen."""
    seen = []

    def batches():
        for start in (0, 2, 4):
            seen.append(start)
            yield PICTURES[start : start + 2], LABELS[start : start + 2]

    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(PICTURES, LABELS, validation_data=batches(), validation_steps=3, epochs=1, verbose=0)
    assert seen == [0, 2, 4]


def test_black_and_resampled_pictures_are_pictures():
    model = classifier()
    for images in (np.zeros((2, 64, 64, 3), "float32"), PICTURES.astype("float32") * 1.1 - 10):
        assert np.isfinite(model.predict(images, verbose=0)).all()


# The canvas


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [73, (31, 83), (79, 53)], ids=["square", "wide", "tall"])
def test_the_canvas_in_the_graph_is_that_of_files(fit, interpolation, size):
    for height, width in ((96, 96), (500, 375), (333, 500), (40, 90)):
        picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype="uint8")
        expected = to_canvas(Image.fromarray(picture), size, fit, interpolation).astype(int)
        found = ops.convert_to_numpy(to_canvases(picture[None].astype("float32"), size, fit, interpolation))[0]
        gap = np.abs(found - expected)
        # These pictures have no tie that, rounded the other way between the two passes, bicubic weights double.
        assert gap.max() <= 1.001 and (gap > 0.01).mean() < 0.05, (height, width)


@pytest.mark.parametrize("preset", ["vit_nano", "resnet_nano"])
def test_pixels_and_files_have_the_same_answer(tmp_path, preset):
    """Whatever the size of a batch, `predict` says of pixels what `predict_pictures` says of the file."""
    dogs = keras_dogs.data.datasets.drawn_dogs.load_drawn_dogs(5).test
    model = keras_dogs.build_classifier(preset, None, augmentation="standard")
    pictures = [np.asarray(dogs.read(25 * number)) for number in range(24)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.png")
    files = sorted(tmp_path.iterdir())
    expected = [found.breeds[0][0] for found in keras_dogs.predict_pictures(model, files, top_k=1)]
    logits = model.predict(np.stack(pictures), verbose=0)
    from keras_dogs.evaluation.inference import class_names_of

    names = class_names_of(model)
    assert [names[label] for label in logits.argmax(1)] == expected


def test_a_model_of_wide_pictures_sees_them_as_they_are(tmp_path):
    """A square between the picture and an input of its size would blur it, of files and of pixels."""
    model = keras_dogs.build_classifier("resnet_nano", 3, image_size=(32, 64), augmentation="none", head="zero")
    crop, picture = model.get_layer("crop"), RNG.integers(0, 256, (32, 64, 3), dtype="uint8")
    assert np.array_equal(ops.convert_to_numpy(crop(picture[None]))[0], picture)
    assert np.array_equal(to_canvas(Image.fromarray(picture), **crop.canvas), picture)
    keras_dogs.save_classifier(model, tmp_path / "model.keras")
    assert keras_dogs.load_classifier(tmp_path / "model.keras").get_layer("crop").canvas == crop.canvas


def test_a_batch_of_the_canvas_size_is_left_alone():
    images = PICTURES.astype("float32") + 0.25
    assert to_canvases(images, 64, "squash", "bilinear") is images


def test_the_gradient_goes_through_the_canvas():
    """Rounding has none; without a way around it, nothing could be asked of a pixel."""
    images = np.stack([PICTURES[0]] * 2).astype("float32")
    bright = images.copy()
    bright[1] += 0.25
    found = ops.convert_to_numpy(to_canvases(bright, 32, "squash", "bilinear"))
    assert set(np.unique(found % 1)) == {0.0}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="other backends know all sizes when they trace")
def test_sizes_that_vary_within_one_graph():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)])
    def canvases(images):
        return to_canvases(images, 73, "squash", "bilinear")

    for height, width in ((96, 96), (500, 375), (73, 73)):
        picture = RNG.integers(0, 256, (1, height, width, 3)).astype("float32")
        known = ops.convert_to_numpy(to_canvases(picture, 73, "squash", "bilinear"))
        assert np.abs(canvases(picture).numpy() - known).max() <= 1
        assert (canvases(picture).numpy() == known).mean() > 0.99


# Mix-up and weights


def test_a_partners_label_has_the_partners_weight():
    """Class weights under mix-up: each part of the loss has the weight of its own label."""
    mixing = keras_dogs.layers.Mixing(mixup=0.5, seed=3)
    mixing.build((6, 8, 8, 3))
    keys = np.stack([np.full(6, 7), np.arange(6)], 1).astype("int32")
    mixing(PICTURES[:, :8, :8].astype("float32"), keys, training=True)
    labels, weights = LABELS.astype("int32"), np.array([1.0, 5.0, 0.0], "float32")[LABELS]
    seen = []
    mixing.mix_losses(
        lambda *given: seen.append([ops.convert_to_numpy(each) for each in given]) or 0.0, labels, weights
    )
    (own, of_own), (partners, of_partners) = seen
    assert np.array_equal(own, labels) and not np.array_equal(partners, labels)
    assert np.array_equal(of_own, weights)
    assert np.array_equal(of_partners, np.array([1.0, 5.0, 0.0])[partners])


def test_whatever_holds_a_picture_is_named_alike(dogs):
    model = keras_dogs.build_classifier("resnet_nano", 3, class_names=["a", "b", "c"])
    generator = np.random.default_rng(0)
    model.head.set_weights([generator.normal(size=each.shape) for each in model.head.get_weights()])
    files = sorted((dogs / "test").rglob("*.png"))[:3]
    expected = [found.breeds for found in keras_dogs.predict_pictures(model, files)]
    opened = [Image.open(file).convert("RGB") for file in files]
    arrays = [np.asarray(picture) for picture in opened]
    for given in (list(map(str, files)), opened, arrays, np.stack(arrays)):
        assert [found.breeds for found in keras_dogs.predict_pictures(model, given)] == expected
    for one in (files[0], str(files[0]), opened[0], arrays[0]):
        (found,) = keras_dogs.predict_pictures(model, one)
        assert [name for name, _ in found.breeds] == [name for name, _ in expected[0]]
    for wrong, says in ((arrays[0].astype(float), "float64"), ([arrays[0][..., 0]], "number 0"), ([3], "of type int")):
        with pytest.raises(UserError, match=says):
            keras_dogs.predict_pictures(model, wrong)
