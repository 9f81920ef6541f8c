"""Plans the runs of a comparison: each is a `train` command with a folder named after a hash of the command."""

import hashlib
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from keras_dogs.comparison.config import CompareConfig
from keras_dogs.comparison.pairs import PAIRS
from keras_dogs.data.datasets import DATASETS
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets.exclusions import leave_out
from keras_dogs.data.datasets.exclusions import read_exclusions
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.models import costs
from keras_dogs.models import presets
from keras_dogs.runs.records import BACKENDS
from keras_dogs.system.flags import parse
from keras_dogs.training import recipes
from keras_dogs.training.config import TrainConfig

RUNS = "runs"
_TRAIN = "python -m keras_dogs.train"


class PlannedRun(NamedTuple):
    """A run of a comparison.

    Attributes:
        preset: str.
        backend: str.
        seed: int.
        flags: tuple of str. The flags of `train`, without `--output`.
        folder: Path.
    """

    preset: str
    backend: str
    seed: int
    flags: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        """Returns a short name to show to people."""
        return f"{short_name(self.preset)} {self.backend} seed {self.seed}"

    @property
    def arguments(self) -> list[str]:
        """Returns the arguments that follow `python`."""
        return ["-m", "keras_dogs.train", *self.flags, "--output", str(self.folder)]

    @property
    def command(self) -> str:
        """Returns the shell command that starts this run."""
        return f"KERAS_BACKEND={self.backend} python {shlex.join(self.arguments)}"


def short_name(preset: str) -> str:
    """Returns the last part of a path or an address, fit for a folder."""
    parts = [part for part in re.split(r"[/:]", preset) if part and not part.isdigit()]
    name = parts[-1] if parts else "preset"
    for suffix in (".weights.h5", ".npz", ".safetensors", ".pth", ".keras"):
        name = name.removesuffix(suffix)
    return re.sub(r"[^\w.=+-]", "_", name)[:60]


def presets_of(config: CompareConfig) -> tuple[str, ...]:
    """Returns which presets are compared."""
    return PAIRS[config.pair].presets if config.pair else config.presets


def dataset_of(config: CompareConfig) -> str:
    """Returns what the presets are trained on."""
    return config.dataset or (PAIRS[config.pair].dataset if config.pair else "drawn_dogs")


def plan_runs(config: CompareConfig, epochs: dict | None = None) -> list[PlannedRun]:
    """Returns all runs, seed by seed, so that a comparison stopped half-way has results for every preset.

    Args:
        config: `CompareConfig`.
        epochs: dict of (preset, backend) to int, or `None` for the flags' or the preset's own.
    """
    runs = []
    for seed in config.seeds:
        for preset in presets_of(config):
            for backend in backends_of(config):
                given = ("--epochs", str(epochs[preset, backend])) if epochs else ()
                runs.append(_plan(config, preset, backend, seed, given))
    return runs


def plan_pilots(config: CompareConfig) -> list[PlannedRun]:
    """Returns a one-epoch run for each preset and backend, to measure how long an epoch takes."""
    seed = config.seeds[0]
    one = ("--epochs", "1")
    return [_plan(config, preset, name, seed, one) for preset in presets_of(config) for name in backends_of(config)]


def epochs_of_first(config: CompareConfig) -> int:
    """Returns how many epochs the first preset trains for."""
    return _resolved(config, presets_of(config)[0])[1].epochs


def epochs_of_equal_flops(config: CompareConfig) -> dict[tuple[str, str], int]:
    """Returns, for each (preset, backend), the epochs that take as many operations as the first preset's.

    Raises:
        UserError: the architecture of a preset is not in the table.
    """
    names = presets_of(config)
    unknown = [name for name in names if name not in presets.PRESETS]
    if unknown:
        raise UserError(f"--budget flops: the operations of {unknown[0]} are not known; use --budget epochs or time")
    sizes = {name: _resolved(config, name)[0].image_size for name in names}
    gflops = {name: costs.count_gflops(presets.PRESETS[name], sizes[name], whole=False) for name in names}
    all_epochs = epochs_of_first(config)
    return {
        (name, backend): max(1, round(all_epochs * gflops[names[0]] / gflops[name]))
        for name in names
        for backend in backends_of(config)
    }


def _resolved(config: CompareConfig, preset: str) -> tuple[TrainConfig, recipes.Recipe]:
    """Returns the config and the recipe that `train` will use for a preset."""
    given = parse(_TRAIN, TrainConfig, list(_flags(config, preset, ())))
    return given, recipes.complete(recipes.choose(given), preset, recipes.likely_family(preset))


def check(config: CompareConfig) -> None:
    """Checks what can be known before anything is trained, so that no run fails late or is trained in vain.

    Raises:
        UserError: every fault that was found, in one line.
    """
    faults = list(dict.fromkeys(_faults(config)))
    if len(faults) > 1:
        raise UserError("; ".join(f"({number}) {fault}" for number, fault in enumerate(faults, 1)))
    if faults:
        raise UserError(faults[0])


def _faults(config: CompareConfig) -> Iterator[str]:
    """Yields every fault; one that keeps a preset from being resolved may come more than once."""
    checks = [(_check_flags,), (_check_dataset,), (_check_budget,)]
    checks += [(_check_preset, preset) for preset in presets_of(config)]
    checks += [(_check_backend, backend) for backend in config.backends or (None,)]
    for check_part, *of_what in checks:
        try:
            check_part(config, *of_what)
        except UserError as error:
            yield error.args[0]


def _check_flags(config: CompareConfig) -> None:
    ours = {"preset", "presets", "dataset", "data-dir", "exclude", "seed", "output", "resume", "overwrite"}
    ours |= {"config", "print-config"}  # a run is known by its flags, not by what a file holds now
    for word in _train_flags(config):
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")  # the parser takes either
        if word.startswith("--") and name in ours:
            raise UserError(
                f"--train-flags {word}: compare gives each run its preset, data, seed and folder; leave it out"
            )


def _check_preset(config: CompareConfig, preset: str) -> None:
    presets.check(preset, needs_weights=_resolved(config, preset)[1].load_weights)


def _check_dataset(config: CompareConfig) -> None:
    name = dataset_of(config)
    exclusions = read_exclusions(config.exclude) if config.exclude else None
    if name == "stanford_dogs":
        return  # it may have to be fetched first, and has a test split of its own
    fraction = _resolved(config, presets_of(config)[0])[0].data.validation_fraction if exclusions else 0
    datasets = [load_dataset(name, seed, fraction) for seed in (config.seeds if exclusions else config.seeds[:2])]
    for dataset in datasets if exclusions else ():
        leave_out(dataset, exclusions)
    tested = {dataset.test.names for dataset in datasets}
    if len(tested) > 1:
        raise UserError(
            f"--seeds: {name} has no test split of its own, so each seed would be tested on other pictures; divide "
            "it into train/ and test/, or give one seed"
        )


def _check_budget(config: CompareConfig) -> None:
    recipes = [_resolved(config, preset)[1] for preset in presets_of(config)]
    if config.budget in ("time", "flops") and any(recipe.linear_probe for recipe in recipes):
        raise UserError(f"--budget {config.budget}: a linear probe computes features only once; use --budget epochs")
    if config.budget == "flops":
        if any(recipe.probe_first for recipe in recipes):
            raise UserError("--budget flops: the probe that comes first has no epochs of pictures; use --budget time")
        epochs_of_equal_flops(config)


def _check_backend(config: CompareConfig, backend: str | None) -> None:
    if backend is None:
        backends_of(config)  # refuses if none is installed
    elif not is_installed(backend):
        raise UserError(f"--backends {backend}: not installed: {install_line(backend)}")


def backends_of(config: CompareConfig) -> tuple[str, ...]:
    """Returns the requested backends, or else all that are installed.

    Raises:
        UserError: no backend is installed.
    """
    found = config.backends or tuple(name for name in BACKENDS if is_installed(name))
    if not found:
        raise UserError(f"no backend is installed: {install_line('jax')} (or tensorflow, or torch)")
    return found


def is_installed(backend: str) -> bool:
    """Returns whether a backend is installed, without importing it."""
    return importlib.util.find_spec(backend) is not None


def _plan(config: CompareConfig, preset: str, backend: str, seed: int, given: tuple[str, ...]) -> PlannedRun:
    flags = (*_flags(config, preset, given), "--seed", str(seed))
    from keras_dogs import __version__

    digest = hashlib.sha256(json.dumps([__version__, backend, _meant(flags)]).encode()).hexdigest()[:10]
    folder = config.output / RUNS / f"{short_name(preset)}-{backend}-seed{seed}-{digest}"
    return PlannedRun(preset, backend, seed, (*flags, *_recipe(config, flags)), folder)


def _meant(flags: tuple[str, ...]) -> list[str]:
    """Returns flags with values to hash: absolute paths of data and weights, and the digest of an exclusion list."""
    meant = list(flags)
    for place, flag in enumerate(flags[:-1]):
        value = flags[place + 1]
        if flag in ("--preset", "--dataset", "--data-dir") and Path(value).exists() and not _is_name(value):
            meant[place + 1] = str(Path(value).resolve())
        if flag == "--exclude":
            meant[place + 1] = read_exclusions(Path(value)).digest
    return meant


def _is_name(value: str) -> bool:
    """Returns whether a value is a known name, which takes precedence over a path of the same name."""
    return value in presets.PRESETS or value in DATASETS


def _flags(config: CompareConfig, preset: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the flags of `train` for a preset; where a flag is repeated, the last one counts."""
    pair = PAIRS.get(config.pair)
    flags = ["--preset", preset, "--dataset", dataset_of(config)]
    flags += ["--data-dir", str(config.data_dir)] if config.data_dir else []
    flags += ["--exclude", str(config.exclude)] if config.exclude else []
    chosen = given or (("--epochs", str(config.epochs)) if config.epochs else ())
    flags += [] if chosen or not pair else pair.flags
    return (*flags, *_train_flags(config), *chosen)


def _recipe(config: CompareConfig, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the flags that keep `train` from choosing a recipe for a small folder: all runs have the same."""
    is_open = dataset_of(config) not in DATASETS and recipes.is_open(parse(_TRAIN, TrainConfig, list(flags)))
    return ("--recipe", recipes.name_of(TrainConfig())) if is_open else ()


def _train_flags(config: CompareConfig) -> list[str]:
    try:
        return shlex.split(config.train_flags)
    except ValueError as error:
        raise UserError(f"--train-flags {config.train_flags}: {error}") from error
