"""Every flag has an effect or is refused: a walk over the table, and over the flags of the other commands."""

import pytest
from conftest import BACKEND

from keras_dogs.errors import UserError
from keras_dogs.training import recipes
from keras_dogs.training import without_effect
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.without_effect import TABLE
from keras_dogs.training.without_effect import Situation

# Of each row, flags and facts with which it holds.
IDLE = {
    "coordinator": ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 0}, {"backend": "torch"}),
    "num_processes": ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 0}, {"backend": "torch"}),
    "process_id": ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 1}, {"backend": "torch"}),
    "sync_batch_norm": ({"sync_batch_norm": False}, {}),
    "views": ({"views": 2}, {}),
    "cache": ({"cache": "device", "linear_probe": True}, {"reads_features": True}),
    "layer_decay": ({"layer_decay": 0.5, "linear_probe": True}, {"reads_features": True}),
    "unfreeze_every": ({"unfreeze_every": 1.0, "linear_probe": True}, {"reads_features": True}),
    "probe_first": ({"probe_first": True, "linear_probe": True}, {"reads_features": True}),
    "freeze_batch_norm": ({"freeze_batch_norm": True, "linear_probe": True}, {"reads_features": True}),
    "remat": ({"remat": True, "linear_probe": True}, {"reads_features": True}),
    "position_resampling": ({"position_resampling": "linear"}, {"family": "resnet"}),
    "data_dir": ({"data_dir": "there"}, {}),
    "validation_fraction": ({"validation_fraction": 0.3}, {"keeps_validation": True}),
    "max_unreadable": ({"max_unreadable": 0.3, "skip_unreadable": True}, {}),
}
FACTS = dict(family="vit", backend="jax", num_devices=1, reads_features=False, draws=True, keeps_validation=False)


def situation(flags: dict, facts: dict) -> Situation:
    data = {name: value for name, value in flags.items() if name not in TrainConfig.__dataclass_fields__}
    config = TrainConfig(**{name: value for name, value in flags.items() if name not in data})
    config = TrainConfig.from_plain({**config.to_plain(), "data": {**config.to_plain()["data"], **data}})
    facts = {**FACTS, **facts}
    recipe = recipes.complete(recipes.choose(config), "vit_nano", facts["family"])
    return Situation(config, recipe, **facts)


@pytest.mark.once
@pytest.mark.parametrize("flag", dict.fromkeys(row.flag for row in TABLE))
def test_a_flag_without_effect_is_refused_or_said(flag, capsys):
    flags, facts = IDLE[flag]
    shown = f"--{flag.replace('_', '-')} "
    if flag == "position_resampling":
        without_effect.check(situation(flags, facts))
        assert f"{shown}linear: has no effect" in capsys.readouterr().err
        return
    with pytest.raises(UserError) as refused:
        without_effect.check(situation(flags, facts))
    said = refused.value.args[0]
    assert "has no effect" in said and said.endswith("leave it out")
    assert said.startswith(shown) or flag in ("num_processes", "process_id")  # which the coordinator goes before


@pytest.mark.once
def test_flags_that_are_not_given_are_no_matter():
    for backend in ("jax", "torch"):
        for family in ("vit", "resnet"):
            without_effect.check(situation({}, {"backend": backend, "family": family, "keeps_validation": True}))


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "arguments", "flag"),
    [
        ("evaluate", ["run", "--saved", "--batch-size", "4"], "--batch-size 4"),
        ("evaluate", ["run", "--saved", "--cache-dir", "there"], "--cache-dir there"),
        ("evaluate", ["run", "--dataset", "dogs", "--data-dir", "there"], "--data-dir there"),
        ("evaluate", ["run", "--skip-unreadable", "--max-unreadable", "0.5"], "--max-unreadable 0.5"),
        ("compare", ["--from", "run", "--seeds", "1", "2"], "--seeds 1 2"),
        ("compare", ["--from", "run", "--epochs", "3"], "--epochs 3"),
        ("compare", ["--from", "run", "--backends", BACKEND], f"--backends {BACKEND}"),
        ("compare", ["--from", "run", "--train-flags=--remat"], "--train-flags --remat"),
    ],
)
def test_flags_of_other_commands(command, name, arguments, flag):
    status, _, err = command(name, *arguments)
    assert status == 2 and f"error: {flag}: has no effect" in err


@pytest.mark.once
def test_train_refuses_them_before_anything_is_decoded(command, dogs, tmp_path):
    arguments = ["--dataset", dogs, "--output", tmp_path / "run", "--views", "2"]
    status, _, err = command("train", *arguments)
    assert status == 2 and "--views 2: has no effect without a linear probe" in err and not (tmp_path / "run").exists()
