"""Runs the tests that Keras ships in its package, bare and with our swaps in each layer: `tox -e keras`.

What passes bare must pass swapped. This file is the program, and the pytest plugin that puts the swaps in.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from xml.etree import ElementTree

import keras

from keras_dogs import backends
from keras_dogs.backends import register

# Of the layers that any backend swaps, and of what runs and saves them.
SUITES = (
    "layers.core.dense_test",
    "layers.core.einsum_dense_test",
    "layers.convolutional.conv_test",
    "layers.normalization.batch_normalization_test",
    "layers.normalization.layer_normalization_test",
    "layers.attention.multi_head_attention_test",
    "layers.pooling.max_pooling_test",
    "layers.reshaping.zero_padding2d_test",
    "models.functional_test",
    "models.model_test",
    "models.sequential_test",
    "trainers.trainer_test",
    "saving.saving_lib_test",
)


def _swap_when_called() -> set[str]:
    """Wraps `keras.Layer.__call__` so that each layer gets what its model would get from `speed_up`."""
    swaps, call, swapped = backends.module_of("layers").SWAPS, keras.Layer.__call__, set()
    tried = weakref.WeakSet()
    is_compiling = importlib.import_module("torch").compiler.is_compiling if backends.name() == "torch" else bool

    def swap_and_call(self, *args, **kwargs):
        if is_compiling():  # `torch.compile` goes through this function, too
            return call(self, *args, **kwargs)
        if self.built and self not in tried:
            tried.add(self)
            if isinstance(self, keras.Model) or register.keeps_its_call(self):
                register.apply(self, swaps)
                swapped.update(register.names_of(self))
        return call(self, *args, **kwargs)

    keras.Layer.__call__ = swap_and_call
    return swapped


if os.environ.get("KERAS_DOGS_SWAP_ALL"):
    _swapped = _swap_when_called()

    def pytest_terminal_summary(terminalreporter):
        """Says which swaps were met, so that none is called tested that was not."""
        terminalreporter.write_line(f"swaps: {', '.join(sorted(_swapped)) or 'none'}")


def _passed(report: Path, swap: bool) -> set[str]:
    """Runs the suites and returns the names of the tests that passed."""
    given = ["-q", "-p", "keras_own_tests", "-c", os.devnull, "--junitxml", str(report), "--tb", "line", "-n", "auto"]
    suites = [f"keras.src.{suite}" for suite in SUITES]
    where = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": where, "KERAS_DOGS_SWAP_ALL": "1" if swap else ""}
    with tempfile.TemporaryDirectory() as folder:  # some of them write where they are
        subprocess.run([sys.executable, "-m", "pytest", *given, "--pyargs", *suites], env=environment, cwd=folder)
    cases = ElementTree.parse(report).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}" for case in cases if not list(case)}


def main() -> int:
    """Compares the two ways; fails where swaps break a test."""
    with tempfile.TemporaryDirectory() as folder:
        bare, swapped = (_passed(Path(folder) / f"{swap}.xml", swap) for swap in (False, True))
    broken = sorted(bare - swapped)
    print(f"{backends.name()}: {len(bare)} of Keras' own tests pass bare, {len(swapped & bare)} of them with our swaps")
    print("\n".join(f"broken by a swap: {name}" for name in broken))
    return 1 if broken or len(bare) < 300 else 0


if __name__ == "__main__":
    sys.exit(main())
