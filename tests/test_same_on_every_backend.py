"""The same command, the same model: what makes the three backends one.

`python tests/test_same_on_every_backend.py` prints a table: how far the backends that are installed are from each other
in every layer and policy, in eager and compiled steps, at every size and batch.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import layer_outputs
import numpy as np
import pytest
import several
import small_models
from conftest import BACKEND
from conftest import installed_backends
from conftest import losses

import keras_dogs
from keras_dogs.data.config import DataConfig
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.data.loaders.canvases import decode_split
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune

PRESETS = ("vit_nano", "resnet_nano")
OTHERS = [name for name in installed_backends() if name != BACKEND]
# A pair of curves is compared once, on the first backend of the two.
_ORDER = ("torch", "jax", "tensorflow")
AFTER = [name for name in OTHERS if _ORDER.index(name) > _ORDER.index(BACKEND)]
# What another backend does in a folder: it answers with each file, and trains.
THERE = """
import json, sys
from pathlib import Path
from keras_dogs import backends
backends.load()
import numpy as np
import keras_dogs
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune
folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
for file in folder.glob("*.keras"):
    logits = keras_dogs.load_classifier(file).predict_on_batch(images)
    np.save(folder / f"{file.stem}-{backends.name()}.npy", logits)
for plain in json.loads((folder / "trainings.json").read_text()):
    fine_tune(TrainConfig.from_plain(plain))
"""

# How the training step of each backend runs by default.
MODE = {"jax": "compiled", "tensorflow": "compiled", "torch": "eager"}


def outputs_of_process(backend_name, mode, folder, *more):
    """What `layer_outputs.py` writes."""
    file = Path(folder) / f"{backend_name}-{mode}.npz"
    subprocess.run(
        [sys.executable, layer_outputs.__file__, file, mode, *more],
        env={**os.environ, "KERAS_BACKEND": backend_name},
        check=True,
    )
    with np.load(file) as saved:
        return dict(saved)


def farthest(outputs):
    """The greatest difference between any two of several arrays, as a share of the range of values."""
    values = np.stack(outputs).astype("float64")
    return (values.max(axis=0) - values.min(axis=0)).max() / np.ptp(values[0])


@pytest.mark.long
@pytest.mark.skipif("tensorflow" not in installed_backends(), reason="the reference here is TensorFlow, eager")
def test_every_layer_and_policy_puts_out_the_same(tmp_path):
    """This backend, in the mode in which it trains, against TensorFlow's eager mode; the table does all pairs."""
    here = layer_outputs.all_outputs(MODE[BACKEND])
    there = outputs_of_process("tensorflow", "eager", tmp_path)
    assert here.keys() == there.keys() and len(here) == 36
    differences = {name: farthest([here[name], there[name]]) for name in here}
    assert max(differences.values()) <= 1e-5, differences


def print_table():
    """A row a layer or policy, size and batch; the number is the greatest difference between any two of all runs."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            (name, mode): outputs_of_process(name, mode, folder, "thorough")
            for name in installed_backends()
            for mode in ("eager", "compiled")
        }
    print("of the value range, between any two of " + ", ".join(" ".join(run) for run in runs))
    worst = 0.0
    for name in next(iter(runs.values())):
        difference = farthest([found[name] for found in runs.values()])
        worst = max(worst, difference)
        print(f"{name:<24} {difference:.1e}")
    print(f"{'greatest':<24} {worst:.1e}")
    return 0 if worst <= 1e-5 else 1


def some_dogs():
    split = load_drawn_dogs().test
    return decode_split(split.select(range(0, len(split), 75)), 73).images


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a file a preset, trained a few steps, pictures, and the logits of these here."""
    import keras

    folder = tmp_path_factory.mktemp("saved")
    images = some_dogs()
    np.save(folder / "images.npy", images)
    for preset in PRESETS:
        classifier = keras_dogs.build_classifier(preset, num_classes=8)
        classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        classifier.fit(images, np.arange(8), batch_size=8, epochs=3, verbose=0)
        keras_dogs.save_classifier(classifier, folder / f"{preset}.keras")
        np.save(folder / f"{preset}-{BACKEND}.npy", classifier.predict_on_batch(images))
    return folder


@pytest.fixture(scope="module", params=OTHERS)
def there(request, saved, dogs):
    """Another backend, which has answered and trained in the folder `saved`."""
    configs = fine_tunings(saved / request.param, dogs, small(), **QUICKLY) if request.param in AFTER else []
    (saved / "trainings.json").write_text(json.dumps([config.to_plain() for config in configs]))
    environment = {**os.environ, "KERAS_BACKEND": request.param}
    subprocess.run([sys.executable, "-c", THERE, saved], env=environment, check=True)
    return request.param


def test_files_saved_here_give_the_same_logits_there(saved, there):
    """Trained a few steps first, so that head, statistics and step counter are those of a used model."""
    for preset in PRESETS:
        here, found = (np.load(saved / f"{preset}-{name}.npy") for name in (BACKEND, there))
        assert np.abs(here).max() > 0.05
        np.testing.assert_allclose(found, here, atol=1e-4, err_msg=preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_embedded_presets_give_the_logits_that_were_written_down(preset):
    """`scripts/train_nano_presets.py` wrote them on one backend; each must match them, so that all match each other."""
    expected = np.array(json.loads((Path(__file__).parent / "embedded_logits.json").read_text())[preset])
    logits = keras_dogs.build_classifier(preset, num_classes=None).predict_on_batch(some_dogs())
    np.testing.assert_allclose(logits, expected, atol=1e-4)


QUICKLY = dict(learning_rate=0.01)  # of a head of zeros on random features, little would move


def small() -> list[str]:
    return [small_models.preset(family) for family in ("vit", "resnet")]


def fine_tunings(folder, dogs, presets, **given) -> list[TrainConfig]:
    data = DataConfig(dataset=str(dogs))
    return [
        TrainConfig(preset=preset, data=data, output=folder / Path(preset).name, epochs=2, batch_size=4, **given)
        for preset in presets
    ]


@pytest.fixture(scope="module")
def curves(tmp_path_factory, dogs):
    """The losses of short fine-tunings here."""
    configs = fine_tunings(tmp_path_factory.mktemp("curves"), dogs, small(), **QUICKLY)
    return [losses(fine_tune(config).folder) for config in configs]


def check_same_curves(curves, folders, tolerance):
    for here, folder in zip(curves, folders, strict=True):
        assert len(set(np.round(here, 3))) > 3
        np.testing.assert_allclose(losses(folder), here, atol=tolerance, err_msg=folder.name)


def test_a_fine_tuning_has_the_same_curve_there(saved, there, curves):
    """Same batches, same crops, same start: the losses of the steps agree to rounding."""
    if there not in AFTER:
        pytest.skip("a pair of curves is compared on the first backend of the two")
    check_same_curves(curves, [saved / there / Path(preset).name for preset in small()], tolerance=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("other", AFTER)
def test_the_embedded_presets_have_the_same_curve_there(child, tmp_path, dogs, other):
    configs, file = fine_tunings(tmp_path / "there", dogs, PRESETS), tmp_path / "configs.json"
    file.write_text(json.dumps([config.to_plain() for config in configs]))
    finished = child([several.__file__, file], KERAS_BACKEND=other)
    assert finished.returncode == 0, finished.stderr
    here = [losses(fine_tune(config).folder) for config in fine_tunings(tmp_path / "here", dogs, PRESETS)]
    check_same_curves(here, [config.output for config in configs], tolerance=2e-3)


TRAINED_IN_PIECES = """
import sys
from keras_dogs import backends
backends.select()
backends.make_strict()
import keras, numpy as np
import keras_dogs
from keras_dogs.data.datasets.drawn_breeds import BREEDS
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.layers import AUGMENTATIONS
from keras_dogs.data.loaders.batches import EpochOrder, TrainingBatches
from keras_dogs.data.loaders.canvases import decode_split

file, *presets = sys.argv[1:]
train = decode_split(load_drawn_dogs(0, BREEDS[:6], {"train": 10, "test": 1}).train, 73)
losses = []
class Log(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        losses.append(logs["loss"])  # a running mean: the same only if every loss before it was

def build(preset):
    policy = AUGMENTATIONS["standard"]._replace(erasing=dict(probability=0.5), mixing=dict(mixup=0.2))
    classifier = keras_dogs.build_classifier(preset, 6, augmentation=policy, dropout=0.1)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 30)
    optimizer = keras.optimizers.AdamW(schedule, global_clipnorm=1.0)
    classifier.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return classifier

def fit(classifier, first, last):
    batches = TrainingBatches(train.images, train.labels, 4, seed=0)
    callbacks = [EpochOrder(batches), Log()]
    classifier.fit(batches, initial_epoch=first, epochs=last, shuffle=False, verbose=0, callbacks=callbacks)
    return classifier

for preset in presets:
    losses.clear()
    whole = fit(build(preset), 0, 2)
    fit(build(preset), 0, 1).save(file)
    again = fit(keras.saving.load_model(file), 1, 2)
    assert len(losses) == 60 and losses[:30] == losses[30:] and len(set(losses)) == 30, preset
    for one, other in zip(whole.variables, again.variables, strict=True):
        if "seed_generator" not in one.path:
            assert np.array_equal(one.numpy(), other.numpy()), one.path
"""


@pytest.mark.long
def test_strict_repeats_to_the_last_bit_and_goes_on_from_a_file(child, tmp_path):
    """30 steps; and again, with the model saved and loaded in between: the same losses and weights, to the last bit."""
    finished = child(["-c", TRAINED_IN_PIECES, tmp_path / "model.keras", *PRESETS])
    assert finished.returncode == 0, finished.stderr


if __name__ == "__main__":
    sys.exit(print_table())
