"""The main job as a stranger runs it, less most of its epochs; `benchmarks/default_run.py` runs it whole."""

import pytest

from keras_dogs.runs.records import RunRecord


def test_the_default_command_learns(child, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = child(["-m", "keras_dogs.train", "--epochs", "2"], JAX_DISABLE_MOST_OPTIMIZATIONS="0", XLA_FLAGS="")
    assert finished.returncode == 0, finished.stderr
    (run,) = (tmp_path / "runs").iterdir()
    record = RunRecord.load(run / "record.json")
    assert record.preset == "resnet_nano" and record.dataset.name == "drawn_dogs"
    assert record.test.num_pictures == 600
    assert record.test.top1_accuracy >= 0.6  # chance is 4 %; whole, it reaches more than 94 %
    assert record.test.top1_accuracy == pytest.approx(record.test.mean_per_class_accuracy)
    assert "for real:   KERAS_BACKEND=" in finished.stdout
