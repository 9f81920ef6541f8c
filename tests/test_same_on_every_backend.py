"""The same command, the same model: what makes the three backends one."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKEND
from conftest import installed_backends

import keras_dogs
from keras_dogs.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.loaders.canvases import decode_split

LOGITS_OF_A_FILE = """
import sys
from keras_dogs import backend
backend.select()
import numpy as np
import keras_dogs
classifier = keras_dogs.load_classifier(sys.argv[1])
np.save(sys.argv[3], classifier.predict_on_batch(np.load(sys.argv[2])))
"""


def some_dogs():
    split = load_drawn_dogs().test
    return decode_split(split.select(range(0, len(split), 75)), 73).images


@pytest.mark.parametrize("other", [name for name in installed_backends() if name != BACKEND])
@pytest.mark.parametrize("preset", ["vit_nano", "resnet_nano"])
def test_a_file_saved_here_gives_the_same_logits_there(child, tmp_path, preset, other):
    """Trained a few steps first, so that head, statistics and step counter are those of a used model."""
    import keras

    images = some_dogs()
    classifier = keras_dogs.build_classifier(preset, num_classes=8)
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier.fit(images, np.arange(8), batch_size=8, epochs=3, verbose=0)
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    files = [tmp_path / name for name in ("model.keras", "images.npy", "logits.npy")]
    finished = child(["-c", LOGITS_OF_A_FILE, *files], KERAS_BACKEND=other)
    assert finished.returncode == 0, finished.stderr
    here = classifier.predict_on_batch(images)
    assert np.abs(here).max() > 0.05
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), here, atol=1e-4)


@pytest.mark.parametrize("preset", ["vit_nano", "resnet_nano"])
def test_embedded_presets_give_the_logits_that_were_written_down(preset):
    """`scripts/train_nano_presets.py` wrote them on one backend; each must match them, so that all match each other."""
    expected = np.array(json.loads((Path(__file__).parent / "embedded_logits.json").read_text())[preset])
    logits = keras_dogs.build_classifier(preset, num_classes=None).predict_on_batch(some_dogs())
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("other", [name for name in installed_backends() if name != BACKEND])
@pytest.mark.parametrize("preset", ["vit_nano", "resnet_nano"])
def test_a_fine_tuning_has_the_same_curve_there(child, tmp_path, dogs, preset, other):
    """Same batches, same crops, same start: the losses of the steps agree to rounding."""
    curves = []
    for name in (BACKEND, other):
        arguments = [
            "--preset",
            preset,
            "--dataset",
            dogs,
            "--output",
            tmp_path / name,
            "--epochs",
            "2",
            "--batch-size",
            "4",
        ]
        finished = child(["-m", "keras_dogs.train", *arguments], KERAS_BACKEND=name)
        assert finished.returncode == 0, finished.stderr
        rows = (tmp_path / name / "steps.csv").read_text().splitlines()[1:]
        curves.append([float(row.split(",")[2]) for row in rows])
    assert len(set(np.round(curves[0], 3))) > 3
    np.testing.assert_allclose(curves[0], curves[1], atol=2e-3)
