"""`--cache`: where the pictures are while a training reads them must not show in what comes out."""

import importlib.util
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models
from conftest import losses

from keras_dogs import backends
from keras_dogs.data.config import DataConfig
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.loaders.canvases import Canvases
from keras_dogs.data.loaders.canvases import Rows
from keras_dogs.data.loaders.placing import choose_place
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.models.classifier import Classifier
from keras_dogs.models.classifier import SmoothedCrossentropy
from keras_dogs.models.classifier import StepLoss
from keras_dogs.training.callbacks import LazyCallbacks
from keras_dogs.training.callbacks import StepLog
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune


def train(dogs, output, cache, **changes):
    given = dict(preset=small_models.preset("resnet"), epochs=2, batch_size=4, mixup=0.2, **changes)
    return fine_tune(TrainConfig(data=DataConfig(dataset=str(dogs), cache=cache), output=output, **given))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory, dogs):
    """A run that reads canvases from the cache on disk, which `auto` chooses on a CPU."""
    return train(dogs, tmp_path_factory.mktemp("runs") / "run", "auto")


@pytest.mark.parametrize("cache", ["device", "none"])
def test_the_same_training(mapped, dogs, tmp_path, cache):
    run = train(dogs, tmp_path / "run", cache)
    np.testing.assert_allclose(losses(run.folder), losses(mapped.folder), rtol=1e-5)
    assert run.record.test.loss == pytest.approx(mapped.record.test.loss, rel=1e-4)
    assert run.record.validation.loss == pytest.approx(mapped.record.validation.loss, rel=1e-4)
    assert (run.folder / "model.keras").stat().st_size == (mapped.folder / "model.keras").stat().st_size
    assert run.record.cache.startswith(cache)
    if not backends.has_accelerator():
        assert mapped.record.cache.startswith("disk")


def test_a_run_on_the_device_goes_on_elsewhere(mapped, dogs, tmp_path, monkeypatch):
    """A checkpoint holds no pictures, so that it does not matter where they are."""
    from keras_dogs.training import checkpoints

    save = checkpoints.Checkpoints.save

    def killed(self, model, state):
        path = save(self, model, state)
        if state["step"] == 3:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(checkpoints.Checkpoints, "save", killed)
        train(dogs, tmp_path / "run", "device")
    run = train(dogs, tmp_path / "run", "disk", resume=True)
    # Times go on, too: as if there had been one process.
    ends, timings = run.record.epoch_end_s, run.record.timings
    assert 0 < timings.first_step_s < ends[0] < ends[1] < timings.total_s and timings.train_s < timings.total_s
    np.testing.assert_allclose(losses(run.folder), losses(mapped.folder), rtol=1e-5)
    assert run.record.cache.startswith("disk")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_stream_names_what_it_cannot_read(dogs, tmp_path, part):
    """In training too far from the start for Keras to meet it before the first step."""
    pictures = shutil.copytree(dogs, tmp_path / "dogs")
    split = getattr(load_dataset(str(pictures)), part)
    name = split.names[np.random.default_rng([0, 0]).permutation(len(split))[-4 if part == "train" else 0]]
    (bad,) = (file for file in (pictures / part).rglob("*") if str(file).endswith(name))
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=f"{bad.name}: the file is empty.*cache none cannot leave a picture out"):
        train(pictures, tmp_path / "run", "none")


def test_a_stream_needs_grain(dogs, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "grain" else find(name))
    with pytest.raises(UserError, match="cache none: needs grain: pip install"):
        train(dogs, tmp_path / "run", "none")
    assert not (tmp_path / "run").exists()


def canvases(num_pictures):
    table = np.zeros((num_pictures, 8, 8, 3), np.uint8)
    return Canvases(Rows(table, np.arange(num_pictures)), np.zeros(num_pictures, np.int32), ("",) * num_pictures, ())


@pytest.mark.parametrize(
    ("cache", "has_accelerator", "free", "on_device"),
    [
        ("auto", True, 10_000, True),
        ("auto", True, 3_000, False),  # it would fit, and the model would not
        ("auto", True, None, False),
        ("auto", False, 10_000, False),
        ("device", False, 10_000, True),
        ("disk", True, 10_000, False),
    ],
)
def test_auto_chooses_the_device_where_there_is_room(monkeypatch, cache, has_accelerator, free, on_device):
    monkeypatch.setattr(backends, "has_accelerator", lambda: has_accelerator)
    monkeypatch.setattr(backends, "free_device_bytes", lambda: free)
    place = choose_place(cache, canvases(10))
    assert place.on_device is on_device
    assert place.in_words.startswith("device" if on_device else "disk")


def test_a_table_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(backends, "free_device_bytes", lambda: 1000)
    with pytest.raises(UserError, match="cache device: the pictures take .* leave it out, or give a smaller"):
        choose_place("device", canvases(10))


MEMORY_OF_A_TABLE = """
import sys

from keras_dogs import backends

backends.select()
import keras
import numpy as np

from keras_dogs.layers.image_table import ImageTable


def of_its_own():  # less what is mapped
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))


shape = (1500, 256, 256, 3)
np.memmap(sys.argv[1], "uint8", "w+", shape=shape)[:, 0, 0, 0] = np.arange(1500) % 256
ImageTable(np.memmap(sys.argv[1], "uint8", "r", shape=shape)[:10])(np.arange(3))
before = of_its_own()
table = ImageTable(np.memmap(sys.argv[1], "uint8", "r", shape=shape))
rows = keras.ops.convert_to_numpy(table(np.array([7, 1499])))
assert rows[:, 0, 0, 0].tolist() == [7, 1499 % 256], rows
print((of_its_own() - before) / np.prod(shape))
"""


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the memory of a process is read as Linux has it"
)
def test_a_table_is_in_memory_once(tmp_path, child):
    """TensorFlow would keep the copy of a copy."""
    finished = child(["-c", MEMORY_OF_A_TABLE, tmp_path / "table"])
    assert finished.returncode == 0, finished.stderr
    assert float(finished.stdout.splitlines()[-1]) < 1.3


def test_a_step_is_not_waited_for():
    """Through `fit`: a callback gets the backend's tensor, which it may read later, and not a number."""
    inputs = keras.Input((3,))
    model = Classifier(inputs, keras.layers.Dense(2)(inputs))
    model.compile("sgd", SmoothedCrossentropy(), metrics=[StepLoss()])
    model.compute_metrics(None, np.zeros(1), np.zeros((1, 2), "float32"))  # makes their variables, as a training does
    model.reset_metrics()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["step_loss"])

    pictures, labels = np.ones((8, 3), "float32"), np.array([0, 1] * 4)
    watching = LazyCallbacks([Watch()], add_history=True, model=model, verbose=0, epochs=1, steps=4)
    model.fit(pictures, labels, batch_size=2, epochs=1, verbose=0, callbacks=watching)
    assert len(seen) == 4 and all(keras.ops.is_tensor(loss) for loss in seen)
    assert len({float(loss) for loss in seen}) == 4  # each of its own step


def test_losses_are_read_some_steps_late(monkeypatch):
    monkeypatch.setattr(StepLog, "SECONDS_AHEAD", 1e9)
    log = StepLog(lambda steps: steps * 0.5, lambda batch: batch)
    log.on_epoch_begin(0)
    read = []
    for step in range(25):
        log.on_train_batch_end(step, {"step_loss": float(step)})
        read.append(len(log.rows))
    assert read == [1] * 20 + [21] * 5 and log.num_steps == 25
    log.on_epoch_end(0)
    assert [(row["step"], row["loss"], row["learning_rate"]) for row in log.rows] == [
        (step + 1, step, step / 2) for step in range(25)
    ]
    log.on_train_batch_end(25, {"step_loss": 1.0})
    log.on_train_batch_end(26, {"step_loss": float("nan")})
    log.on_train_batch_end(27, {"step_loss": 2.0})
    with pytest.raises(FloatingPointError):
        log.read()
    assert log.rows[-1]["step"] == 27  # the one that is not finite
