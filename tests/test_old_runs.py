"""Runs that an earlier version made, in `old_runs/`: they load, score and go on.

They are of November 2026, before the modules were sorted into rooms: linear probes of `resnet_nano` on the dogs of
`conftest.dogs`. `finished` is whole; `unfinished-<backend>` was killed after six of nine steps, and
`steps-<backend>.csv` are the nine steps of the same run when nobody kills it.
"""

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import BACKEND
from conftest import losses

import keras_dogs
from keras_dogs.evaluation.predictions import Predictions

OLD = Path(__file__).parent / "old_runs"


def test_a_model_loads(dogs):
    saved = Predictions.load(OLD / "finished")
    pictures = np.stack([np.asarray(read) for read in pictures_of(dogs)])
    for model in (keras_dogs.load_classifier(OLD / "finished"), keras.saving.load_model(OLD / "finished/model.keras")):
        logits = model.predict(pictures, verbose=0)
        assert np.abs(logits - saved.logits).max() < 1e-4 * np.abs(saved.logits).max()


def pictures_of(dogs):
    dataset = keras_dogs.load_dataset(str(dogs), 0, 0.1)
    return [dataset.test.read(place) for place in range(len(dataset.test))]


def test_a_run_is_scored(command, dogs):
    record = json.loads((OLD / "finished/record.json").read_text())
    status, out, err = command("evaluate", OLD / "finished", "--dataset", dogs, "--json")
    assert status == 0, err
    assert json.loads(out)["top1_accuracy"] == pytest.approx(record["test"]["top1_accuracy"])
    assert json.loads(out)["loss"] == pytest.approx(record["test"]["loss"], rel=1e-4)


def test_a_run_is_compared(command, tmp_path):
    status, _, err = command("compare", "--from", OLD / "finished", "--output", tmp_path / "page")
    assert status == 0, err
    assert "resnet_nano" in (tmp_path / "page/report.md").read_text()


def test_a_run_goes_on(command, dogs, tmp_path):
    run = shutil.copytree(OLD / f"unfinished-{BACKEND}", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["dataset"] = str(dogs)
    (run / "config.json").write_text(json.dumps(config))
    status, out, err = command("train", "--output", run, "--resume")
    assert status == 0, err
    assert "going on after step 6 of 9" in out + err
    with (OLD / f"steps-{BACKEND}.csv").open() as file:
        expected = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses(run) == pytest.approx(expected, rel=1e-4)
