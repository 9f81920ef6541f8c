"""Several devices and several processes: the same training as on one."""

import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import several
from conftest import BACKEND
from conftest import losses
from conftest import write_dogs

import keras_dogs
from keras_dogs.backends import devices
from keras_dogs.backends.devices.engine import Engine
from keras_dogs.data.config import DataConfig
from keras_dogs.runs.records import RunRecord
from keras_dogs.training import callbacks
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune

# 72 training pictures, more than 30 steps.
TOLD = dict(strict=True, augmentation="standard", checkpoint_every=5, peer_timeout=60.0)
# The ViT with all that a step can have: partners on other devices, parts of a batch, averages, dropped features.
MORE = {
    "vit_nano": dict(epochs=2, batch_size=8, accumulate=2, mixup=0.2, ema=0.9, dropout=0.1),
    "resnet_nano": dict(epochs=3, batch_size=6),
    # Views are drawn while features are computed, in turn by the processes.
    "probe": dict(preset="resnet_nano", linear_probe=True, views=2, epochs=5, batch_size=16, checkpoint_every=50),
}
PRESETS = ("vit_nano", "resnet_nano")


@pytest.fixture(scope="module")
def more_dogs(tmp_path_factory):
    """4 breeds on disk, 20 train and 5 test pictures each."""
    return write_dogs(tmp_path_factory.mktemp("more_dogs"), num_breeds=4, train=20, test=5)


def config_for(dogs, output, preset="resnet_nano", **changes):
    data = DataConfig(dataset=str(dogs))
    return TrainConfig(**{**TOLD, "preset": preset, **MORE[preset], "data": data, "output": output, **changes})


def weights(run) -> list[np.ndarray]:
    return keras_dogs.load_classifier(run / "model.keras").get_weights()


def same_training(run, other) -> None:
    """The bounds of the curves, and the same answers in the end."""
    one, two = np.array(losses(run)), np.array(losses(other))
    assert len(one) == len(two) >= 30
    assert np.abs(one - two)[:10].max() < 1e-4 and np.abs(one - two)[:30].max() < 5e-3
    records = [RunRecord.load(folder / "record.json") for folder in (run, other)]
    assert records[0].test.num_pictures == records[1].test.num_pictures == 20
    assert records[0].test.top1_accuracy == records[1].test.top1_accuracy
    with np.load(run / "predictions.npz") as found, np.load(other / "predictions.npz") as again:
        assert (found["names"] == again["names"]).all()
        np.testing.assert_allclose(found["logits"], again["logits"], atol=2e-2)


@pytest.fixture(scope="module")
def on_one(tmp_path_factory, more_dogs):
    """Unbroken runs on one device, by name."""
    folder = tmp_path_factory.mktemp("on_one")
    return {name: fine_tune(config_for(more_dogs, folder / name, name)).folder for name in MORE}


@pytest.fixture(scope="module")
def on_two(tmp_path_factory, more_dogs):
    """Unbroken runs in two processes, by name."""
    folder = tmp_path_factory.mktemp("on_two")
    configs = [config_for(more_dogs, folder / name, name) for name in MORE]
    statuses = several.wait(several.start(folder / "logs", configs))
    assert statuses == [0, 0], (folder / "logs" / "0.log").read_text()[-3000:]
    return {name: folder / name for name in MORE}


@pytest.mark.long
@pytest.mark.parametrize("name", MORE)
def test_two_processes_train_as_one(on_one, on_two, name):
    same_training(on_one[name], on_two[name])
    record = RunRecord.load(on_two[name] / "record.json")
    assert (record.num_processes, record.num_devices) == (2, 2)
    assert "statistics of batch norms of the whole batch" in record.distribution


@pytest.mark.long
@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has a process a device: `--devices` starts them, see below")
def test_two_devices_of_one_process_train_as_one(tmp_path, more_dogs, on_one):
    data = DataConfig(dataset=str(more_dogs), cache="device")
    configs = [config_for(more_dogs, tmp_path / preset, preset, devices=2, data=data) for preset in PRESETS]
    if BACKEND == "jax":
        configs.append(config_for(more_dogs, tmp_path / "shards", "vit_nano", devices=2, model_shards=2))
    assert several.wait(several.start(tmp_path / "logs", configs, count=1)) == [0]
    for preset in PRESETS:
        same_training(on_one[preset], tmp_path / preset)
        assert RunRecord.load(tmp_path / preset / "record.json").num_devices == 2
    if BACKEND == "jax":
        same_training(on_one["vit_nano"], tmp_path / "shards")
        assert "1 copies of the model" in RunRecord.load(tmp_path / "shards" / "record.json").distribution


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has them")
def test_shards_are_refused_elsewhere(command, tmp_path):
    status, _, err = command("train", "--model-shards", "2", "--output", tmp_path / "run")
    assert status == 2 and "--model-shards 2: on JAX alone" in err and not (tmp_path / "run").exists()


@pytest.mark.skipif(BACKEND != "torch", reason="the others have all devices in one process")
def test_devices_starts_a_process_a_device(child, tmp_path, dogs):
    given = ["--dataset", dogs, "--epochs", "1", "--batch-size", "4", "--output", tmp_path / "run", "--devices", "2"]
    finished = child(["-m", "keras_dogs.train", *given])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("run folder:") == 1 and finished.stderr.count("PyTorch on") == 1
    assert RunRecord.load(tmp_path / "run" / "record.json").num_processes == 2
    finished = child(["-m", "keras_dogs.train", "--dataset", tmp_path / "none", "--devices", "2"])
    assert finished.returncode == 2 and finished.stderr.count("error:") == 1 and "none" in finished.stderr


@pytest.mark.skipif(BACKEND != "torch", reason="torchrun is PyTorch's")
def test_the_page_of_scaling_starts_torchrun(child, tmp_path, dogs):
    page = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
    (line,) = re.findall(r"^KERAS_BACKEND=torch torchrun (--nproc-per-node=2 .*)$", page, re.MULTILINE)
    given = [*shlex.split(line), "--batch-size=4", "--epochs=1", f"--dataset={dogs}", f"--output={tmp_path / 'run'}"]
    given.remove("32"), given.remove("--batch-size")
    finished = child(["-m", "torch.distributed.run", "--standalone", *given], KERAS_DOGS_CACHE=str(tmp_path / "cache"))
    assert finished.returncode == 0, finished.stderr
    record = RunRecord.load(tmp_path / "run" / "record.json")
    assert record.num_processes == 2 and finished.stdout.count("run folder:") == 1


def amid_a_training(folder, dogs):
    """Two processes that have written the checkpoint of step 10 of `folder/run`."""
    processes = several.start(folder / "logs", [config_for(dogs, folder / "run")])
    deadline = time.monotonic() + 400
    while not any((folder / "run").glob("checkpoints/step-0000001*")):
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.05)
    return processes


@pytest.fixture(scope="module")
def killed_on_two(tmp_path_factory, more_dogs):
    """A run in two processes of which the second was killed amid the second epoch, and what the first said."""
    folder = tmp_path_factory.mktemp("killed")
    processes = amid_a_training(folder, more_dogs)
    processes[1].kill()
    began = time.monotonic()
    assert several.wait(processes, 60) == [2, -signal.SIGKILL]
    assert time.monotonic() - began < 60
    return folder / "run", (folder / "logs" / "0.log").read_text()


def test_when_one_is_killed_the_other_ends_with_a_line(killed_on_two):
    run, said = killed_on_two
    assert said.splitlines()[-1] == "keras_dogs.train: error: process 1 ended without a word (killed?)"
    assert "Traceback" not in said and not (run / "record.json").exists()


@pytest.fixture(scope="module")
def stopped_on_two(tmp_path_factory, more_dogs):
    """A run in two processes of which the second was asked to stop, as by a scheduler, and what each said."""
    folder = tmp_path_factory.mktemp("stopped")
    processes = amid_a_training(folder, more_dogs)
    processes[1].terminate()
    assert several.wait(processes, 60) == [143, 143]
    return folder / "run", [(folder / "logs" / f"{process}.log").read_text() for process in range(2)]


def test_one_that_is_asked_to_stop_stops_all(stopped_on_two):
    _, (first, second) = stopped_on_two
    assert "stopping after this step" in second and "stopping after this step" not in first
    steps = [re.findall(r"stopped after step (\d+), which is saved; go on with", said) for said in (first, second)]
    assert steps[0] == steps[1] and len(steps[0]) == 1


@pytest.mark.long
def test_it_goes_on_with_another_number_of_processes(
    tmp_path, more_dogs, killed_on_two, stopped_on_two, on_one, on_two
):
    """Killed on two, resumed on two; begun on one, resumed on two; stopped on two, resumed on one."""
    again = shutil.copytree(killed_on_two[0], tmp_path / "again")
    more = tmp_path / "more"
    begin_and_stop(config_for(more_dogs, more))
    configs = [TrainConfig(output=folder, resume=True, peer_timeout=60.0) for folder in (again, more)]
    statuses = several.wait(several.start(tmp_path / "logs", configs))
    assert statuses == [0, 0], (tmp_path / "logs" / "0.log").read_text()[-3000:]
    for weight, expected in zip(weights(again), weights(on_two["resnet_nano"])):
        np.testing.assert_allclose(weight, expected, atol=1e-6)
    same_training(on_one["resnet_nano"], more)
    assert RunRecord.load(more / "record.json").num_processes == 2
    alone = fine_tune(TrainConfig(output=stopped_on_two[0], resume=True))
    same_training(on_one["resnet_nano"], alone.folder)


def begin_and_stop(config):
    """A run in this process that is asked to stop after its checkpoint of step 15."""
    from keras_dogs.errors import Interrupted
    from keras_dogs.training import checkpoints

    save = checkpoints.Checkpoints.save

    def save_and_stop(self, model, state):
        save(self, model, state)
        if state["step"] == 15:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Interrupted, match="saved"):
        patched.setattr(checkpoints.Checkpoints, "save", save_and_stop)
        fine_tune(config)


def test_statistics_of_each_device_are_brought_to_their_mean(monkeypatch):
    """Without `--sync-batch-norm` each has its own, and what is scored and saved is of all."""
    model = keras_dogs.build_classifier("resnet_nano", 3)
    norm = next(layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization))

    class Uneven(Engine):
        synchronised = False

        def local_values(self, variable):
            return [self.read(variable) * 0 + value for value in (1.0, 4.0)]

    monkeypatch.setattr(devices, "current", Uneven)
    callbacks.share_statistics(model)
    assert np.allclose(norm.moving_mean, 2.5) and np.allclose(norm.moving_variance, 2.5)


@pytest.mark.once
def test_a_batch_that_does_not_divide_is_refused_by_all(tmp_path, dogs):
    processes = several.start(tmp_path / "logs", [config_for(dogs, tmp_path / "run", batch_size=5, epochs=1)])
    assert several.wait(processes) == [2, 2]
    said = (tmp_path / "logs" / "0.log").read_text()
    assert "--batch-size 5: does not divide over 2 devices; give 4 or 6" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_more_devices_than_there_are(tmp_path, dogs, child):
    finished = child(["-m", "keras_dogs.train", "--dataset", dogs, "--devices", "64", "--output", tmp_path / "run"])
    assert finished.returncode == 2 and finished.stderr.splitlines()[-1].startswith(
        "keras_dogs.train: error: --devices 64: there "
    )
    assert finished.stderr.count("error:") == 1 and "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()


# What launchers put into the environment: of a second process of two, and of one alone.
LAUNCHED = {
    "jax": dict(
        SLURM_JOB_ID="70000",
        SLURM_STEP_NODELIST="host[0-1]",
        SLURM_NTASKS="2",
        SLURM_PROCID="1",
        SLURM_LOCALID="0",
        SLURM_STEP_NUM_NODES="2",
        JAX_COORDINATOR_PORT="1234",
    ),
    "torch": dict(MASTER_ADDR="host0", MASTER_PORT="1234", WORLD_SIZE="2", RANK="1"),
    "tensorflow": dict(
        TF_CONFIG=json.dumps(
            {"cluster": {"worker": ["host0:1234", "host1:1234"]}, "task": {"type": "worker", "index": 1}}
        )
    ),
}
ALONE = {
    "jax": dict(LAUNCHED["jax"], SLURM_NTASKS="1", SLURM_PROCID="0"),
    "torch": dict(MASTER_ADDR="host0", MASTER_PORT="1234", WORLD_SIZE="1", RANK="0"),
    "tensorflow": dict(TF_CONFIG=json.dumps({"cluster": {"chief": ["host0:1234"]}, "task": {"type": "chief"}})),
}
BROKEN = {"torch": dict(WORLD_SIZE="2", MASTER_ADDR="host0"), "tensorflow": dict(TF_CONFIG="{'cluster'")}


def test_what_launchers_say(monkeypatch):
    module = importlib.import_module(f"keras_dogs.backends.on_{BACKEND}.devices")
    for given in (ALONE, LAUNCHED):
        for name, value in given[BACKEND].items():
            monkeypatch.setenv(name, value)
        found = module.find_rendezvous(TrainConfig())
        assert (found is None) == (given is ALONE)
    assert found[:4] == ("host0", 1234, 2, 1) and found.control_port == 2234


@pytest.mark.skipif(BACKEND == "jax", reason="its flags are checked below")
def test_half_of_what_launchers_say(command, monkeypatch):
    for name, value in BROKEN[BACKEND].items():
        monkeypatch.setenv(name, value)
    status, _, err = command("train")
    assert status == 2 and next(iter(BROKEN[BACKEND])) in err and err.count("\n") == 1


def test_flags_of_processes(command):
    for flags, what in (
        (["--coordinator", "nowhere"], "must be HOST:PORT"),
        (["--coordinator", "here:1234"], "needs --num-processes and --process-id"),
        (
            ["--coordinator", "here:1234", "--num-processes", "2", "--process-id", "2"],
            "must be below --num-processes 2",
        ),
        (["--process-id", "1"], "go with --coordinator"),
        (["--devices", "0"], "--devices 0: must be between"),
    ):
        status, _, err = command("train", *flags)
        assert status == 2 and what in err and err.count("\n") == 1


def test_the_record_of_one_device(run_folder):
    record = RunRecord.load(run_folder / "record.json")
    assert (record.num_devices, record.num_processes, record.distribution) == (1, 1, "one device")
    assert dataclasses.replace(record).to_json() == record.to_json()
