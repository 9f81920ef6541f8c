"""As a library this package leaves the process as it was."""

import os
import signal

import pytest
import small_models

import keras_dogs
from keras_dogs.data.config import DataConfig
from keras_dogs.system import caches
from keras_dogs.system import network
from keras_dogs.training.config import TrainConfig


def test_a_training_puts_everything_back(dogs, tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "KERAS_DOGS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    before, handlers = dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    data = DataConfig(dataset=str(dogs), cache_dir=tmp_path / "cache")
    given = dict(preset=small_models.preset("resnet"), epochs=1, batch_size=4, offline=True)
    keras_dogs.fine_tune(TrainConfig(data=data, output=tmp_path / "run", **given))
    assert (tmp_path / "cache" / "canvases").is_dir() and not network.is_offline()
    assert dict(os.environ) == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.once
def test_what_was_told_holds_within_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    root = caches.root()
    with network.offline(), caches.use(tmp_path):
        assert network.is_offline() and caches.root() == tmp_path
        with network.offline(False), caches.use(None):
            assert network.is_offline() and caches.root() == tmp_path
    assert not network.is_offline() and caches.root() == root and os.environ["HF_HUB_OFFLINE"] == "0"


@pytest.mark.once
def test_no_import_changes_anything(child):
    code = (
        "import matplotlib, os, signal\n"
        "before = dict(os.environ), signal.getsignal(signal.SIGINT), matplotlib.rcParams._get('backend')\n"
        "import keras_dogs.evaluation.figures, keras_dogs.comparison.figures, keras_dogs.comparison.page\n"
        "from keras_dogs.data.datasets import load_dataset\n"
        "import numpy as np, pathlib, tempfile\n"
        "keras_dogs.evaluation.figures.draw_per_class(np.ones(3), pathlib.Path(tempfile.mkdtemp()) / 'x.png')\n"
        "import sys; assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert before == (dict(os.environ), signal.getsignal(signal.SIGINT), matplotlib.rcParams._get('backend'))"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr
