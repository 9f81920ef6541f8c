"""A run that is stopped, killed or damaged, and goes on as if nothing had happened."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import filelock
import numpy as np
import pytest
import small_models
from conftest import BACKEND
from conftest import files_below

import keras_dogs
from keras_dogs.data.config import DataConfig
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.runs import artifacts
from keras_dogs.system import ownership
from keras_dogs.training import checkpoints
from keras_dogs.training import job as jobs
from keras_dogs.training import probe
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune

# Everything that has a state: draws in the graph, averages, gradients not yet used, statistics of batch norms.
TOLD = dict(epochs=3, batch_size=4, ema=0.9, accumulate=2, dropout=0.1, mixup=0.2, strict=True, checkpoint_every=3)


HALF = ".tmp-step-00000099-best-0001.npz"  # of a checkpoint that was being written


class Killed(BaseException):
    """In place of SIGKILL, in this process."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, dogs):
    return fine_tune(config_for(dogs, tmp_path_factory.mktemp("unbroken") / "run")).folder


def config_for(dogs, output, **changes):
    given = {"preset": small_models.preset("resnet"), "data": DataConfig(dataset=str(dogs)), "output": output}
    return TrainConfig(**{**TOLD, **given, **changes})


def killed_at(monkeypatch, dogs, output, save_number, **changes):
    """Begins a run that is killed after its n-th checkpoint."""
    save, count = checkpoints.Checkpoints.save, [0]

    def counted(self, model, state):
        count[0] += 1
        save(self, model, state)
        if count[0] == save_number:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoints.Checkpoints, "save", counted)
        # What a kill leaves behind no `finally` has cleaned.
        patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        patched.setattr(ownership, "remove", lambda folder: None)
        fine_tune(config_for(dogs, output, **changes))


def same(one, other):
    """Whether two run folders hold the same curves, weights and predictions, to the last bit."""
    assert files_below(one) == files_below(other)
    for name in ("steps.csv", "history.csv"):
        assert (one / name).read_text() == (other / name).read_text()
    for name in (name for name in files_below(one) if name.endswith(".keras")):
        models = [keras_dogs.load_classifier(folder / name) for folder in (one, other)]
        for weight, again in zip(*(model.weights for model in models)):
            assert np.array_equal(weight, again), weight.path
    with np.load(one / "predictions.npz") as first, np.load(other / "predictions.npz") as second:
        assert all(np.array_equal(first[name], second[name]) for name in first.files)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, dogs):
    """A run as kills leave it: `before` its second checkpoint, `amid` its third, and `after` its fourth."""
    folder = tmp_path_factory.mktemp("killed")
    save, number = checkpoints.Checkpoints.save, itertools.count(1)

    def copying(self, model, state):
        when = {2: "before", 3: "amid"}.get(next(number))
        if when:
            shutil.copytree(folder / "after", folder / when)
        if when == "amid":
            (folder / when / "checkpoints" / HALF).write_bytes(b"half")
        return save(self, model, state)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(checkpoints.Checkpoints, "save", copying)
        killed_at(monkeypatch, dogs, folder / "after", 4)
    return folder


@pytest.fixture
def broken(tmp_path, killed):
    """A copy of what a kill left after the fourth checkpoint, to go on with."""
    return shutil.copytree(killed / "after", tmp_path / "run")


@pytest.mark.parametrize("when", ["before", "amid"])
def test_a_killed_run_ends_as_the_unbroken_one(killed, unbroken, when):
    assert not (killed / when / "record.json").exists()
    run = fine_tune(TrainConfig(output=killed / when, resume=True))
    assert run.record.config["ema"] == 0.9
    same(run.folder, unbroken)


@pytest.mark.once
def test_a_damaged_checkpoint_falls_back_to_the_one_before(capsys, broken, unbroken):
    newest = sorted((broken / "checkpoints").glob("step-*"))[-1]
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    for place in range(middle, middle + 400):  # a single byte may be one that an archive does not use
        content[place] ^= 255
    newest.write_bytes(content)
    run = fine_tune(TrainConfig(output=broken, resume=True))
    said = capsys.readouterr().err
    assert f"{newest.name}: damaged" in said and "; going back to step-" in said, said.splitlines()
    same(run.folder, unbroken)


@pytest.mark.once
def test_nothing_is_left_where_all_checkpoints_are_damaged(capsys, broken):
    for file in (broken / "checkpoints").glob("step-*"):
        file.write_bytes(b"")
    assert checkpoints.Checkpoints(broken / "checkpoints").load() is None
    said = capsys.readouterr().err
    assert (
        said.count(": damaged") == 2
        and said.count("no checkpoint is left: the training starts from the beginning") == 1
    )


def test_the_last_checkpoints_are_kept_and_no_more(broken):
    names = [name for name in files_below(broken / "checkpoints") if not name.startswith(".")]
    assert len([name for name in names if name.startswith("step-")]) == 2
    assert 1 <= len([name for name in names if name.startswith("best-")]) <= 2


@pytest.mark.once
def test_the_probe_that_is_best_so_far_is_kept_through_a_kill(monkeypatch, tmp_path, dogs):
    """Killed in the first epoch, when what there is to keep is the head that came first."""
    given = dict(preset="vit_nano", probe_first=True, learning_rate=1e-30, ema=0.0, epochs=2, checkpoint_every=1)
    unbroken = fine_tune(config_for(dogs, tmp_path / "unbroken", **given))
    killed_at(monkeypatch, dogs, tmp_path / "run", 43, **given)  # the head has 40, one an epoch
    assert (tmp_path / "run" / "checkpoints" / "best-0000.keras").exists()
    run = fine_tune(TrainConfig(output=tmp_path / "run", resume=True))
    assert run.record.best_epoch == unbroken.record.best_epoch == 0
    same(run.folder, unbroken.folder)
    for record in (run.record, unbroken.record):
        assert 0 < record.timings.probe_s < record.probe_end_s < record.epoch_end_s[0] < record.timings.total_s


@pytest.mark.once
def test_the_seconds_of_a_probe_that_was_killed_count(monkeypatch, tmp_path, dogs):
    """Those of the process that was killed, too, in whatever comes after them."""
    given = dict(preset=small_models.preset("vit"), probe_first=True, epochs=1, ema=0.0)
    killed_at(monkeypatch, dogs, tmp_path / "run", 5, **given)
    (state,) = (tmp_path / "run").glob("checkpoints/head/step-*5-*.npz")
    with np.load(state) as saved:
        before = json.loads(saved["state"].tobytes())["command_s"]
    record = fine_tune(TrainConfig(output=tmp_path / "run", resume=True)).record
    assert before < record.probe_end_s < record.epoch_end_s[0] < record.timings.total_s


def test_a_linear_probe_goes_on_too(monkeypatch, tmp_path, dogs):
    given = dict(linear_probe=True, mixup=0.0, epochs=2)
    whole = fine_tune(config_for(dogs, tmp_path / "whole", **given)).folder
    killed_at(monkeypatch, dogs, tmp_path / "broken", 2, **given)
    same(fine_tune(TrainConfig(output=tmp_path / "broken", resume=True)).folder, whole)


def test_an_overwriting_run_that_came_to_nothing_loses_nothing(monkeypatch, tmp_path, dogs, unbroken):
    """What a kill before the first checkpoint leaves: the old run put aside, a folder with a config in its place."""

    shutil.copytree(unbroken, tmp_path / ".run.retired")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    config = {**config_for(dogs, tmp_path / "run").to_plain(), "fingerprint": "", "backend": BACKEND}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))

    def fail(*args):
        raise UserError("a mistake")

    monkeypatch.setattr(jobs, "decode_pictures", fail)
    with pytest.raises(UserError, match="a mistake"):
        fine_tune(config_for(dogs, tmp_path / "run", overwrite=True))
    same(tmp_path / "run", unbroken)


@pytest.mark.once
def test_a_run_that_overwrites_can_be_resumed(monkeypatch, tmp_path, dogs, unbroken):
    shutil.copytree(unbroken, tmp_path / "run")
    killed_at(monkeypatch, dogs, tmp_path / "run", 2, overwrite=True)
    same(fine_tune(TrainConfig(output=tmp_path / "run", resume=True)).folder, unbroken)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_no_run_of_ours_is_neither_resumed_nor_replaced(tmp_path, dogs):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text('{"model_type": "vit"}')
    for how in ("resume", "overwrite"):
        with pytest.raises(UserError, match="what keras_dogs.train did not make"):
            fine_tune(config_for(dogs, tmp_path / "preset", **{how: True}))
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)  # killed before there was anything
    (tmp_path / "begun" / ".lock").touch()
    assert artifacts.choose_output(tmp_path / "begun", "", False) == tmp_path / "begun"


def test_another_backend_is_noticed(broken):
    config = json.loads((broken / "config.json").read_text())
    del config["digest"]
    (broken / "config.json").write_text(json.dumps({**config, "backend": "mxnet"}))
    with pytest.raises(UserError, match="begun with KERAS_BACKEND=mxnet"):
        fine_tune(TrainConfig(output=broken, resume=True))


def test_a_changed_config_is_noticed(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "learning_rate": 0.5}))
    with pytest.raises(UserError, match="config.json: was changed since the run was begun"):
        fine_tune(TrainConfig(output=broken, resume=True))


def test_cut_best_weights_are_noticed_at_once(capsys, broken):
    """Found before a step is taken, and said; a sound older checkpoint would be taken."""
    for file in (broken / "checkpoints").glob("best-*.keras"):
        file.write_bytes(file.read_bytes()[:1000])
    assert checkpoints.Checkpoints(broken / "checkpoints", run=artifacts.run_of(broken)).load() is None
    assert "best-0001.keras: damaged" in capsys.readouterr().err


@pytest.mark.once
def test_a_checkpoint_of_another_run_is_refused(broken, tmp_path, dogs, monkeypatch):
    """The same pictures, the same model: nothing but its identity tells."""
    killed_at(monkeypatch, dogs, tmp_path / "other", 9)
    for file in (broken / "checkpoints").iterdir():
        file.unlink()
    for file in (tmp_path / "other" / "checkpoints").iterdir():
        shutil.copy(file, broken / "checkpoints" / file.name)
    with pytest.raises(UserError, match="belongs to another run; move it out"):
        fine_tune(TrainConfig(output=broken, resume=True))


def test_other_pictures_are_noticed(tmp_path, dogs, broken):
    pictures = shutil.copytree(dogs, tmp_path / "dogs")
    config = json.loads((broken / "config.json").read_text())
    del config["digest"]
    (broken / "config.json").write_text(json.dumps({**config, "data": {**config["data"], "dataset": str(pictures)}}))
    next((pictures / "train" / "amberwick").iterdir()).unlink()
    before = files_below(broken)
    with pytest.raises(UserError, match="resume: the pictures of .* are not those"):
        fine_tune(TrainConfig(output=broken, resume=True))
    assert files_below(broken) == before


@pytest.mark.once
def test_the_last_good_checkpoint_is_named(tmp_path, dogs, monkeypatch):
    """A loss that is not finite in the second epoch: what the first left can be used."""
    from keras_dogs.training import callbacks

    note = callbacks.StepLog.on_train_batch_end

    def diverging(self, batch, logs=None):
        note(self, batch, {**logs, "step_loss": float("nan")} if self.num_steps == 7 else logs)

    monkeypatch.setattr(callbacks.StepLog, "on_train_batch_end", diverging)
    with pytest.raises(UserError, match="not finite at step 8 .*the last good checkpoint is .*step-00000007"):
        fine_tune(config_for(dogs, tmp_path / "run"))
    assert (tmp_path / "run" / "config.json").exists()


def test_a_signal_finishes_the_step_and_says_how_to_go_on(tmp_path, dogs):
    command = [sys.executable, "-m", "keras_dogs.train", "--dataset", dogs, "--output", tmp_path / "run"]
    command += ["--preset", small_models.preset("resnet"), "--epochs", "2000"]
    command += ["--batch-size", "4", "--checkpoint-every", "7"]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    process = subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in err
    assert f"which is saved; go on with: KERAS_BACKEND={BACKEND} python -m keras_dogs.train --resume --output" in err
    assert not (tmp_path / "run" / "record.json").exists() and not (tmp_path / "run" / ".lock").exists()


def test_a_signal_while_features_are_computed(monkeypatch, tmp_path, dogs):
    """Of a large backbone they take minutes, and there is no step yet to finish."""
    predict, asked = probe.predict_in_batches, []

    def interrupted(*arguments):
        if not asked:
            asked.append(signal.raise_signal(signal.SIGTERM))
        return predict(*arguments)

    monkeypatch.setattr(probe, "predict_in_batches", interrupted)
    given = TrainConfig(
        data=DataConfig(dataset=str(dogs)), output=tmp_path / "run", linear_probe=True, epochs=2, batch_size=4
    )
    with pytest.raises(Interrupted, match="before the first step; there was nothing to save") as stopped:
        fine_tune(given)
    assert stopped.value.status == 143 and not list(tmp_path.iterdir())

    asked.append("once")
    killed_at(monkeypatch, dogs, tmp_path / "run", 2, linear_probe=True, mixup=None)
    asked.clear()
    before = files_below(tmp_path / "run" / "checkpoints")
    with pytest.raises(Interrupted, match="go on with: .*--resume"):
        fine_tune(TrainConfig(output=tmp_path / "run", resume=True))
    assert before and files_below(tmp_path / "run" / "checkpoints") == before


def test_two_processes_do_not_share_a_folder(dogs, broken):
    with filelock.FileLock(broken / ".lock"):
        for how in ("resume", "overwrite"):
            with pytest.raises(UserError, match="another process writes there"):
                fine_tune(config_for(dogs, broken, **{how: True}))
    assert list((broken / "checkpoints").glob("step-*"))


def test_a_folder_that_is_not_seen_is_no_obstacle(tmp_path):
    """Of several hosts, the first one alone has it."""
    assert artifacts.how_to_go_on(tmp_path / "none").startswith("go on with: python -m keras_dogs.train --resume")


@pytest.mark.once
def test_other_pictures_than_at_the_start_are_refused(monkeypatch, tmp_path, dogs):
    """One that could not be read is mended meanwhile: batches and steps would be others."""
    own = shutil.copytree(dogs, tmp_path / "dogs")
    bad = sorted((own / "train").rglob("*.png"))[0]
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    data = DataConfig(dataset=str(own), skip_unreadable=True)
    killed_at(monkeypatch, own, tmp_path / "run", 2, data=data)
    bad.write_bytes(whole)
    with pytest.raises(UserError, match="resume: other pictures can be read now"):
        fine_tune(TrainConfig(output=tmp_path / "run", resume=True))
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
