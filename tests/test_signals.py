"""Signals: never lost, never a traceback, and nothing that was begun is left without its owner."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import BACKEND

from keras_dogs.system import signals
from keras_dogs.training.stopping import StopRequest

pytestmark = pytest.mark.once
SWALLOWED = {
    "garbage collection": "gc.callbacks.append(lambda phase, info: hit())\ngc.collect()\n",
    "__del__": "class Gone:\n    def __del__(self):\n        hit()\nGone()\n",
    "weak reference": "class Gone: pass\ngone = Gone(); kept = weakref.ref(gone, lambda _: hit()); del gone\n",
}


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """What `nohup` and a shell's background ignore, a child would ignore, too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("where", SWALLOWED)
def test_a_signal_where_python_swallows_exceptions(child, where, number):
    """A child of compare would train to the end, and nobody would know."""
    code = (
        "import gc, os, sys, time, weakref\nfrom keras_dogs import commands\n"
        "from keras_dogs.cache import CacheConfig\nhits = []\n"
        f"def hit():\n    if not hits:\n        hits.append(1)\n        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(0.01)\n"
        f"def work(config):\n{''.join('    ' + line + chr(10) for line in SWALLOWED[where].splitlines())}"
        "    time.sleep(20)\n    print('trained to the end')\n"
        "sys.argv = ['cache']\nsys.exit(commands.run('cache', CacheConfig, work))"
    )
    began = time.monotonic()
    done = child(["-c", code])
    assert done.returncode == 128 + number and not done.stdout, done.stderr
    assert "interrupted" in done.stderr and "Traceback" not in done.stderr
    assert time.monotonic() - began < 15


@pytest.fixture
def raised(monkeypatch):
    """Signals that reach the handlers from before the test, in which they are only kept."""
    kept = []
    before = {number: signal.signal(number, lambda number, frame: kept.append(number)) for number in signals.STOPS}
    monkeypatch.setattr(signals, "_noted", [])
    yield kept
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_that_a_library_swallowed_stops_the_training(monkeypatch, raised):
    monkeypatch.setattr(signals, "_noted", [signal.SIGTERM])
    with StopRequest() as stop:
        assert stop.status == 143
        signal.raise_signal(signal.SIGTERM)  # it is sent again, and is the same request
        assert not raised


def test_a_signal_after_the_last_step_is_not_lost(raised):
    with StopRequest() as stop:
        assert stop.status == 0
        signal.raise_signal(signal.SIGHUP)
        assert stop.status == 129 and not raised
    assert raised == [signal.SIGHUP]
    with pytest.raises(KeyError), StopRequest():
        signal.raise_signal(signal.SIGTERM)
        raise KeyError  # as a training does that has stopped by itself
    assert raised == [signal.SIGHUP]


def test_a_signal_that_is_ignored_stays_so(child):
    """As `nohup` asks for."""
    code = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom keras_dogs.system import signals\n"
        "signals.raise_on_signals()\nfrom keras_dogs.training.stopping import StopRequest\n"
        "with StopRequest():\n    signal.raise_signal(signal.SIGHUP)\n"
        "signal.raise_signal(signal.SIGHUP)\nprint('goes on')"
    )
    assert child(["-c", code]).stdout == "goes on\n"


def test_a_closed_pipe_does_not_end_a_training(dogs, tmp_path):
    """`train 2>&1 | head -1`"""
    train = (
        f"{sys.executable} -m keras_dogs.train --dataset {dogs} --output {tmp_path / 'run'} --epochs 1 --batch-size 4"
    )
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    done = subprocess.run(f"{train} 2>&1 | head -1", shell=True, capture_output=True, text=True, env=environment)
    assert done.stdout.count("\n") == 1
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "record.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)  # the shell ends with `head`
    assert (tmp_path / "run" / "record.json").exists()


# Signals at every stage of a training and of a comparison

SENT = {
    "TERM": [signal.SIGTERM],
    "INT": [signal.SIGINT],
    "HUP": [signal.SIGHUP],
    "INT twice": [signal.SIGINT, signal.SIGINT],
    "STOP and CONT": [signal.SIGSTOP, signal.SIGCONT],
}
# When a stage has begun, by what lies in the run folder and by what was said.
STAGES = {
    "start-up": lambda run, said: True,
    "training": lambda run, said: any(run.glob("**/checkpoints/step-*")),
    "validation": lambda run, said: "epoch   1/" in said,
    "scoring": lambda run, said: (run / "steps.csv").exists() or "Scoring test" in said,
}


def processes_about(folder) -> list[str]:
    """Command lines of the processes that name a folder."""
    found = subprocess.run(["pgrep", "-fa", str(folder)], capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if "pgrep" not in line]


def interrupted(command: list, log, begun, sent: list[int]) -> int:
    """Starts a command, sends signals when a stage has begun, and gives its exit status."""
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONUNBUFFERED": "1"},
            stderr=said,
            stdout=said,
        )
    time.sleep(0.3)
    while not begun(log.read_text()) and process.poll() is None:
        time.sleep(0.02)
    for number in sent:
        if process.poll() is None:
            process.send_signal(number)
        time.sleep(1.0 if number in (signal.SIGSTOP, signal.SIGINT) else 0)
    return process.wait(120)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SENT)
def test_a_training_that_is_signalled_ends_or_goes_on(dogs, tmp_path, name, stage):
    run = tmp_path / "run"
    train = ["-m", "keras_dogs.train", "--dataset", dogs, "--output", run, "--epochs", "6", "--batch-size", "2"]
    train += ["--checkpoint-every", "1"]
    status = interrupted(train, tmp_path / "log", lambda said: STAGES[stage](run, said), SENT[name])
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said, said
    assert status in (0, 128 + SENT[name][0]) or (stage == "start-up" and status in (-SENT[name][0], 0)), said
    assert not processes_about(run)
    if not (run / "record.json").exists():
        done = subprocess.run(
            [sys.executable, *map(str, train), "--resume"], env={**os.environ, "KERAS_BACKEND": BACKEND}
        )
        assert done.returncode == 0
    assert (run / "record.json").exists() and not (run / "config.json").exists() and not (run / ".lock").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", SENT)
def test_a_comparison_that_is_signalled_leaves_no_child(dogs, tmp_path, name):
    out = tmp_path / "out"
    compare = ["-m", "keras_dogs.compare", "--presets", "resnet_nano", "--backends", BACKEND, "--dataset", dogs]
    compare += ["--epochs", "4", "--train-flags=--batch-size 2 --checkpoint-every 1", "--output", out]
    status = interrupted(compare, tmp_path / "log", lambda said: STAGES["training"](out, said), SENT[name])
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said and status in (0, 128 + SENT[name][0]), said
    deadline = time.monotonic() + 5
    while processes_about(out) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_about(out)
    done = subprocess.run([sys.executable, *map(str, compare)], env={**os.environ, "KERAS_BACKEND": BACKEND})
    assert done.returncode == 0 and (out / "report.html").exists()
