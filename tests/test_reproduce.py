"""`reproduce`: a record runs again, and the command tells whether it comes out the same."""

import csv
import json
import shutil

import numpy as np
import pytest
import small_models
from PIL import Image

from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.training.reproducing import compare_runs


@pytest.fixture(scope="module")
def strict_run(tmp_path_factory, dogs):
    """Returns a run with `--strict`, and the pictures that it was trained on."""
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("reproduce")
    shutil.copytree(dogs, folder / "dogs")
    flags = ["--dataset", folder / "dogs", "--output", folder / "run", "--epochs", "2", "--batch-size", "4"]
    flags += ["--preset", small_models.preset("resnet")]
    program = [sys.executable, "-m", "keras_dogs.train", "--strict", *map(str, flags)]
    subprocess.run(program, check=True, capture_output=True, env=dict(os.environ))
    return folder / "run", folder / "dogs"


@pytest.fixture
def edited(strict_run, tmp_path):
    """Copies the run, with another value of one of its flags in the record."""

    def edit(**flags):
        folder = shutil.copytree(strict_run[0], tmp_path / "edited")
        record = json.loads((folder / artifacts.RECORD).read_text())
        record["config"] |= flags
        record["seed"] = record["config"]["seed"]
        (folder / artifacts.RECORD).write_text(json.dumps(record))
        return folder

    return edit


def test_a_strict_run_comes_out_the_same_to_the_last_bit(strict_run, child, command, tmp_path):
    run, _ = strict_run
    done = child(["-m", "keras_dogs.reproduce", run, "--output", tmp_path / "again"])
    assert done.returncode == 0, done.stderr
    assert "the same to the last bit: 6 steps, and every answer to the test pictures" in done.stdout
    record, again = (RunRecord.load(folder / artifacts.RECORD) for folder in (run, tmp_path / "again"))
    assert again.dataset == record.dataset and again.test == record.test
    assert again.config | {"output": ""} == record.config | {"output": ""}, "every flag was resolved to the same"
    earlier = shutil.copytree(run, tmp_path / "earlier")
    begun = json.loads((earlier / artifacts.RECORD).read_text())
    for name in ("head", "views", "balanced"):  # of a version that did not know them
        del begun["config"][name]
    (earlier / artifacts.RECORD).write_text(json.dumps(begun))
    for recorded in (run, earlier):
        status, out, err = command("reproduce", recorded, "--output", tmp_path / "again")
        assert status == 0 and out.startswith("the same to the last bit"), err


@pytest.mark.once
@pytest.mark.parametrize("flags", [{"seed": 1}, {"learning_rate": 0.0123}, {"epochs": 3}])
def test_other_flags_in_the_record_are_noticed(edited, command, flags):
    status, out, err = command("reproduce", edited(**flags))
    assert status == 1, err
    first = {"seed": 1, "learning_rate": 2, "epochs": 3}[next(iter(flags))]  # the first rate is 0
    assert out.startswith(f"not the same, from step {first} of 6")


@pytest.mark.once
def test_what_is_not_of_the_training_is_not_replayed(edited, command, monkeypatch):
    """Nobody's project is written to again, and no device of another machine is asked for."""
    run = edited(wandb="project", tensorboard=True, devices=4, offline=True)
    status, out, err = command("reproduce", run)
    assert status == 0 and out.startswith("the same to "), err


@pytest.mark.once
def test_a_run_is_not_held_against_itself_or_another_one(strict_run, edited, command, tmp_path):
    run, _ = strict_run
    copy, other = shutil.copytree(run, tmp_path / "copy"), edited(epochs=3)
    record = json.loads((other / artifacts.RECORD).read_text())
    record["timings"]["total_s"] += 1
    (other / artifacts.RECORD).write_text(json.dumps(record))
    wrong = ((run, "is the run itself"), (copy, "a copy of the run itself"), (other, "other values of --epochs"))
    for output, why in wrong:
        status, out, err = command("reproduce", run, "--output", output)
        assert status == 2 and not out and why in " ".join(err.split()), err


@pytest.mark.once
def test_a_changed_pixel_is_refused_by_the_name_of_its_picture(strict_run, command, tmp_path):
    run, dogs = strict_run
    moved = shutil.copytree(dogs, tmp_path / "dogs")
    file = sorted((moved / "train").rglob("*.png"))[4]
    picture = Image.open(file).convert("RGB")
    picture.putpixel((40, 40), tuple(255 - value for value in picture.getpixel((40, 40))))
    picture.save(file)
    output = tmp_path / "again"
    status, out, err = command("reproduce", run, "--dataset", moved, "--output", output)
    assert status == 2 and not out and not output.exists()
    assert f"{file.parent.name}/{file.name}: has changed since the run; restore the pictures, or train anew" in err
    file.unlink()
    status, _, err = command("reproduce", run, "--dataset", moved)
    assert status == 2 and f"{file.name}: was among the training and validation pictures of the run, and is not" in err


def test_rounding_is_told_from_another_training(strict_run, tmp_path):
    """A gap that grows from step to step is what backends differ by; a gap that is there at once is another run."""
    run, _ = strict_run
    for name, gaps in {"rounding": [1e-7 * 2**step for step in range(6)], "other": [0.0, 0.0, 0.2, *[0.0] * 3]}.items():
        folder = shutil.copytree(run, tmp_path / name)
        with (folder / artifacts.STEPS).open() as file:
            rows = list(csv.DictReader(file))
        kept = [row["loss"] for row in rows]
        rows = [row | {"loss": float(row["loss"]) + gap} for row, gap in zip(rows, gaps)]
        artifacts.write_table(folder / artifacts.STEPS, rows)
    assert str(compare_runs(run, run)).startswith("the same to the last bit")
    assert str(compare_runs(run, tmp_path / "rounding")).startswith(
        "the same to rounding: the largest gap of loss in 6"
    )
    assert compare_runs(run, tmp_path / "other").differs_from == 3
    short = shutil.copytree(run, tmp_path / "short")
    artifacts.write_table(short / artifacts.STEPS, [row | {"loss": old} for row, old in zip(rows[:5], kept)])
    assert str(compare_runs(run, short)).startswith("not the same: 6 steps then, 5 now; they agree as far as both go")
    artifacts.write_table(short / artifacts.STEPS, [row | {"loss": "nan"} for row in rows])
    assert compare_runs(run, short).differs_from == 1


def test_answers_count_as_much_as_steps(strict_run, tmp_path):
    """The same losses with other answers, as of averaged weights, are not the same; their order says nothing."""
    run, _ = strict_run
    answers, other = Predictions.load(run), shutil.copytree(run, tmp_path / "other")
    for file in (other / artifacts.RECORD,):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"digests": {}}))
    shuffled = np.arange(len(answers.names))[::-1]
    parts = {name: getattr(answers, name)[shuffled] for name in ("names", "labels", "logits", "checksums")}
    answers._replace(**parts).save(other / artifacts.PREDICTIONS)
    assert str(compare_runs(run, other)).startswith("the same to the last bit")
    for logits in (-answers.logits, answers.logits * 1.1):
        answers._replace(logits=logits).save(other / artifacts.PREDICTIONS)
        outcome = compare_runs(run, other)
        assert not outcome.is_same and str(outcome).startswith("not the same: trained alike in 6 steps, but only")


def test_what_is_no_run_is_one_line(command, tmp_path, strict_run):
    status, _, err = command("reproduce", tmp_path)
    assert status == 2 and "there is no such file; is this a run folder?" in err
    damaged = shutil.copytree(strict_run[0], tmp_path / "damaged")
    (damaged / artifacts.STEPS).write_text("step,loss\n1,0.5\n")
    status, _, err = command("reproduce", damaged)
    assert status == 2 and "steps.csv: is not the file that record.json beside it was written with" in err
