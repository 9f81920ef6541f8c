"""Fixtures. The suite runs on one backend, `KERAS_BACKEND`; nothing here needs a network or `../shared`."""

import csv
import gc
import importlib
import importlib.machinery
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from keras_dogs import backends
from keras_dogs.backends.selection import xla_knows
from keras_dogs.system import caches

# Most of the time of JAX' tests is compilation (tox.ini): flags that shorten it, where jaxlib has them.
_QUICK = {"xla_cpu_use_fusion_emitters": "false", "xla_cpu_parallel_codegen_split_count": "1"}
if "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ and "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join(f"--{name}={value}" for name, value in _QUICK.items() if xla_knows(name))
BACKEND = backends.select()

# KerasHub imports these where it can; JAX and PyTorch need neither.
NOT_NEEDED = [] if BACKEND == "tensorflow" else ["tensorflow", "tensorflow_text"]

SHARED = Path(__file__).parents[2] / "shared"
TORCHVISION = Path(__file__).parent / "torchvision_stub"


def pytest_configure(config):
    """A cache folder of this session, shared by its workers: it begins empty, and the user's own stays as it is."""
    if not hasattr(config, "workerinput"):
        os.environ["KERAS_DOGS_CACHE"] = folder = tempfile.mkdtemp(prefix="keras_dogs_cache_")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    backends.keep_compiled(caches.folder("compiled"))


def pytest_collection_modifyitems(items):
    """Sorts the files that take longest to the front; skips what one backend has run for all."""
    for item in items:
        is_elsewhere = BACKEND != "torch" and "KERAS_DOGS_EVERY_BACKEND" not in os.environ
        if item.get_closest_marker("once") and is_elsewhere:
            item.add_marker(pytest.mark.skip(reason="run once for all backends: tox -e torch runs it"))
    long = (
        "main_job",
        "devices",
        "same_on_every_backend",
        "readme",
        "hostile",
        "resume",
        "libraries",
        "training",
        "models",
        "recipes",
        "weights",
        "fast_layers",
        "layers",
        "contract",
        "exports",
        "commands",
        "outputs",
        "serving",
        "keras_ways",
        "stanford_dogs",
        "whole_comparison",
    )
    place = {f"test_{name}.py": number for number, name in enumerate(long)}
    items.sort(key=lambda item: place.get(item.path.name, len(long)))


def pytest_collection_finish():
    """Spares the collector what is imported by now: without it, a tenth of TensorFlow's tests is spent there."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def quick_graphs():
    """Leaves TensorFlow's graphs as they are traced; those of children are optimised as users have them."""
    if BACKEND == "tensorflow":
        import tensorflow

        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session")
def dogs(tmp_path_factory) -> Path:
    """A small dataset on disk: 3 drawn breeds, `train/` with 6 and `test/` with 3 pictures a breed."""
    return write_dogs(tmp_path_factory.mktemp("dogs"), num_breeds=3, train=6, test=3)


def write_dogs(folder: Path, num_breeds: int, train: int, test: int) -> Path:
    """Drawn dogs in `folder`, so many pictures a breed."""
    from keras_dogs.data.datasets.drawn_breeds import BREEDS
    from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs

    dataset = load_drawn_dogs(0, BREEDS[:num_breeds], {"train": train, "test": test})
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        for index, name in enumerate(split.names):
            file = folder / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            split.read(index).save(file)
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, dogs) -> Path:
    """A finished run of two epochs on `dogs`."""
    from keras_dogs.data.config import DataConfig
    from keras_dogs.training.config import TrainConfig
    from keras_dogs.training.fine_tuning import fine_tune

    output = tmp_path_factory.mktemp("runs") / "run"
    fine_tune(TrainConfig(data=DataConfig(dataset=str(dogs)), output=output, epochs=2, batch_size=4))
    return output


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command in this process: `status, out, err = command("train", "--epochs", "1")`."""

    def run(name, *arguments):
        module = importlib.import_module(f"keras_dogs.{name}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        try:
            status = module.main()
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def child():
    """Runs Python in a process of its own: `child(["-c", ...], KERAS_BACKEND="jax")`."""

    def run(arguments, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def references(tmp_path_factory) -> Path:
    """The folder that `write_references.py` wrote; 2 GB, kept until the end of the session."""
    import filelock

    kept = os.environ.get("KERAS_DOGS_REFERENCES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("references")
    with filelock.FileLock(folder.with_suffix(".lock")):  # one worker writes for all
        if not (folder / "expected.npz").is_file():
            folder.mkdir(exist_ok=True)
            program = [sys.executable, Path(__file__).parent / "write_references.py", folder]
            environment = {**os.environ, "PYTHONPATH": str(TORCHVISION)}
            subprocess.run(program, check=True, capture_output=True, env=environment)
    yield folder
    if not kept:
        shutil.rmtree(folder)


def is_installed(package: str) -> bool:
    """Whether it is on the disk; that TensorFlow is kept out of this process does not count."""
    return importlib.machinery.PathFinder.find_spec(package) is not None


def installed_backends() -> list[str]:
    return [name for name in backends.BACKENDS if is_installed(name)]


def soft_targets(mixing, labels, num_classes: int):
    """The targets of the last training batch of a `Mixing`: int `(batch,)` -> float32 `(batch, num_classes)`."""
    from keras import ops

    targets = mixing.mix_losses(lambda values, _: ops.one_hot(values, num_classes), ops.convert_to_tensor(labels))
    return ops.convert_to_numpy(targets)


def losses(run: Path) -> list[float]:
    """The training loss of each step of a run folder."""
    with (run / "steps.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
