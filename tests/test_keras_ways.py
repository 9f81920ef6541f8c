"""A classifier is a Keras model: whatever feeds, weighs, tunes or watches a Keras model does so with ours."""

import importlib

import keras
import numpy as np
import pytest
import small_models
from conftest import BACKEND
from PIL import Image

import keras_dogs

NUM, BATCH, SIDE, NUM_CLASSES = 12, 4, 16, 3
_GENERATOR = np.random.default_rng(0)
PICTURES = _GENERATOR.integers(0, 256, (NUM, SIDE, SIDE, 3), dtype="uint8")
LABELS = np.arange(NUM) % NUM_CLASSES
BATCHES = [(PICTURES[start : start + BATCH], LABELS[start : start + BATCH]) for start in range(0, NUM, BATCH)]


def build():
    keras.utils.set_random_seed(0)
    preset = small_models.preset("resnet")
    classifier = keras_dogs.build_resnet(preset, num_classes=NUM_CLASSES, image_size=SIDE)
    classifier.head.kernel.assign(_GENERATOR.normal(size=classifier.head.kernel.shape))  # a head of zeros sees nothing
    return classifier


@pytest.fixture(scope="module")
def classifier():
    """A classifier that compiled itself; each test leaves its weights as they are, or trains it further."""
    model = build()
    model.fit(PICTURES, LABELS, batch_size=BATCH, shuffle=False, verbose=0)
    return model


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, index):
        return BATCHES[index]


def tf_data(folder):
    tf = pytest.importorskip("tensorflow", reason="kept out of a run on this backend", exc_type=ImportError)
    return tf.data.Dataset.from_tensor_slices((PICTURES, LABELS)).batch(BATCH)


def data_loader(folder):
    torch = pytest.importorskip("torch", exc_type=ImportError)

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return NUM

        def __getitem__(self, index):
            return torch.from_numpy(PICTURES[index]), int(LABELS[index])

    return torch.utils.data.DataLoader(Pictures(), batch_size=BATCH)


def of_grain(folder):
    grain = pytest.importorskip("grain")
    rows = grain.MapDataset.range(NUM).map(lambda place: (PICTURES[place], LABELS[place]))
    return rows.batch(BATCH).to_iter_dataset()


def of_directory(folder):
    if importlib.util.find_spec("tensorflow") is None or BACKEND != "tensorflow":
        pytest.skip("image_dataset_from_directory reads with TensorFlow, which is kept out of a run on this backend")
    for number, picture in enumerate(PICTURES):
        file = folder / f"breed{LABELS[number]}" / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
    return keras.utils.image_dataset_from_directory(folder, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=False)


LOADERS = {
    "PyDataset": lambda folder: Batches(),
    "generator": lambda folder: (batch for batch in BATCHES),
    "tf.data": tf_data,
    "DataLoader": data_loader,
    "grain": of_grain,
    "directory": of_directory,
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of any generator
@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_feeds_it(name, classifier, tmp_path):
    """The loss of what a loader gives is that of the arrays, and a classifier trains on it."""
    expected = classifier.evaluate(PICTURES, LABELS, batch_size=BATCH, verbose=0)
    found = classifier.evaluate(LOADERS[name](tmp_path), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    before = keras.ops.convert_to_numpy(classifier.head.bias)
    history = classifier.fit(LOADERS[name](tmp_path), epochs=1, shuffle=False, verbose=0).history
    assert (
        np.isfinite(history["loss"][0]) and np.abs(keras.ops.convert_to_numpy(classifier.head.bias) - before).max() > 0
    )


def test_a_classifier_compiles_itself():
    """As KerasHub's tasks do; what its user compiles is left alone."""
    model = build()
    history = model.fit(PICTURES, LABELS, batch_size=BATCH, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all() and "accuracy" in history
    logits = model.predict(PICTURES, verbose=0)
    loss, accuracy = model.evaluate(PICTURES, LABELS, verbose=0)
    assert loss == pytest.approx(_cross_entropy(logits), rel=1e-4), "the loss is of logits"
    assert accuracy == pytest.approx((logits.argmax(1) == LABELS).mean())
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(PICTURES, LABELS, batch_size=BATCH, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def _cross_entropy(logits) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(NUM), LABELS]))


def weights_after(**how):
    model = build()
    model.head.kernel.assign(np.ones(model.head.kernel.shape))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", **how)
    model.fit(PICTURES, LABELS, batch_size=BATCH, shuffle=False, verbose=0)
    return keras.ops.convert_to_numpy(model.head.kernel)


@pytest.fixture(scope="module")
def plain_weights():
    return weights_after()


@pytest.mark.parametrize("how", [{"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": False}])
def test_every_way_to_run_a_step_gives_the_same_weights(how, plain_weights):
    if BACKEND == "torch" and "steps_per_execution" in how:
        pytest.skip("Keras refuses it on PyTorch")
    np.testing.assert_allclose(weights_after(**how), plain_weights, atol=1e-5)


def test_weights_of_classes_and_of_pictures_count(classifier):
    """A class, or a picture, of weight 0 adds nothing to the loss; one of weight 2 counts twice."""
    per_class = {0: 2.0, 1: 0.0, 2: 1.0}
    per_picture = np.array([per_class[label] for label in LABELS])
    logits = classifier.predict(PICTURES, verbose=0)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(NUM), LABELS]
    found, _ = classifier.evaluate(PICTURES, LABELS, sample_weight=per_picture, batch_size=NUM, verbose=0)
    assert found == pytest.approx((losses * per_picture).mean(), rel=1e-4)
    saved = [weight.copy() for weight in classifier.get_weights()]
    history = {}
    for name, weights in {"class_weight": per_class, "sample_weight": per_picture}.items():
        classifier.set_weights(saved)
        fitted = classifier.fit(PICTURES, LABELS, batch_size=NUM, shuffle=False, verbose=0, **{name: weights})
        history[name] = fitted.history["loss"]
    assert history["class_weight"] == pytest.approx(history["sample_weight"], rel=1e-4)
    classifier.set_weights(saved)
    plain = classifier.fit(PICTURES, LABELS, batch_size=NUM, shuffle=False, verbose=0).history["loss"]
    assert plain != pytest.approx(history["class_weight"], rel=1e-2), "they count in training, too"


def test_callbacks_of_keras_work(classifier, tmp_path):
    file, rate = tmp_path / "best.keras", float(classifier.optimizer.learning_rate)
    callbacks = [
        keras.callbacks.ModelCheckpoint(file, monitor="val_loss", save_best_only=True),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=1e9),  # no epoch is that much better
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, factor=0.1, min_delta=1e9),
    ]
    data = dict(validation_data=(PICTURES, LABELS), callbacks=callbacks, batch_size=BATCH)
    history = classifier.fit(PICTURES, LABELS, epochs=5, verbose=0, **data).history
    assert len(history["loss"]) == 2, "stopped early"
    assert float(classifier.optimizer.learning_rate) == pytest.approx(rate * 0.1)
    again = keras.saving.load_model(file)
    assert np.isfinite(again.predict(PICTURES, verbose=0)).all()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # it is of another process
def test_a_tuner_searches(tmp_path):
    tuner_of = pytest.importorskip("keras_tuner", exc_type=ImportError)

    def build_tuned(parameters):
        model = build()
        rate = parameters.Choice("learning_rate", [1e-3, 1e-4])
        model.compile(keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    tuner = tuner_of.GridSearch(build_tuned, objective="val_accuracy", directory=str(tmp_path), max_trials=2)
    tuner.search(PICTURES, LABELS, validation_data=(PICTURES, LABELS), epochs=1, batch_size=BATCH, verbose=0)
    (best,) = tuner.get_best_models(1)
    assert best.predict(PICTURES, verbose=0).shape == (NUM, NUM_CLASSES)
    assert tuner.get_best_hyperparameters(1)[0].get("learning_rate") in (1e-3, 1e-4)


def test_settings_are_taken_flat():
    config = keras_dogs.TrainConfig(dataset="dogs", epochs=3, fit="crop")
    assert (config.data.dataset, config.data.fit, config.epochs) == ("dogs", "crop", 3)
    with pytest.raises(keras_dogs.UserError, match="epochs 0: must be between"):
        keras_dogs.TrainConfig(epochs=0)
    with pytest.raises(TypeError, match="epoch"):
        keras_dogs.TrainConfig(epoch=1)


def test_a_run_folder_is_loaded_as_its_model_is(run_folder):
    loaded, again = keras_dogs.load_classifier(run_folder), keras_dogs.load_classifier(run_folder / "model.keras")
    pictures = _GENERATOR.integers(0, 256, (2, 40, 40, 3), dtype="uint8")
    np.testing.assert_array_equal(loaded.predict(pictures, verbose=0), again.predict(pictures, verbose=0))
