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


def test_a_signal_that_a_library_swallowed_stops_the_training(monkeypatch):
    monkeypatch.setattr(signals, "_noted", [signal.SIGTERM])
    with StopRequest() as stop:
        assert stop.status == 143
    monkeypatch.setattr(signals, "_noted", [])
    with StopRequest() as stop:
        assert stop.status == 0
        signal.raise_signal(signal.SIGHUP)
        assert stop.status == 129


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
