"""Flags in a file: `--config` and `--print-config` of every command."""

import dataclasses
import importlib
import itertools
import json
import tomllib

import pytest

from keras_dogs.__main__ import COMMANDS
from keras_dogs.errors import UserError
from keras_dogs.system import flags
from keras_dogs.training.config import TrainConfig

# What a command asks for at least.
LEAST = {
    "evaluate": ["runs/mine"],
    "predict": ["runs/mine", "a.jpg"],
    "explain": ["runs/mine", "a.jpg"],
    "compare": ["--pair", "embedded", "--seeds", "0", "1"],
    "check": ["dogs"],
    "export": ["runs/mine", "--format", "keras"],
    "serve": ["runs/mine"],
    "reproduce": ["runs/mine"],
}


def config_of(name):
    module = importlib.import_module(f"keras_dogs.{name}")
    return next(each for key, each in vars(module).items() if key.endswith("Config") and dataclasses.is_dataclass(each))


def parse(config_type, *arguments):
    return flags.parse("program", config_type, list(map(str, arguments)))


def printed(config_type, capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(config_type, *arguments, "--print-config")
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.once
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_prints_it_reads(name, capsys, tmp_path):
    config_type, least = config_of(name), LEAST.get(name, [])
    file = tmp_path / "flags.toml"
    file.write_text(printed(config_type, capsys, *least))
    positional = list(itertools.takewhile(lambda each: not each.startswith("--"), least))
    assert parse(config_type, *positional, "--config", file) == parse(config_type, *least)


@pytest.mark.once
def test_flags_of_the_command_line_go_first(tmp_path):
    file = tmp_path / "flags.toml"
    file.write_text('recipe = "vit_adamw"\nepochs = 7\nlinear-probe = true\nprobe_first = true\ndataset = "a b"\n')
    config = parse(TrainConfig, "--epochs", 2, "--config", file, "--no-linear-probe")
    assert (config.recipe, config.epochs, config.linear_probe, config.probe_first) == ("vit_adamw", 2, False, True)
    assert config.data.dataset == "a b"
    assert parse(TrainConfig, f"--config={file}").epochs == 7


@pytest.mark.once
def test_every_spelling_of_a_flag_goes_first(tmp_path):
    file = tmp_path / "flags.toml"
    file.write_text("batch-size = 8\nepochs = 7\nbalanced = true\n")
    config = parse(TrainConfig, "--batch_size", 4, "--config", file, "--epochs=2", "--no-balanced")
    assert (config.batch_size, config.epochs, config.balanced) == (4, 2, False)


@pytest.mark.once
def test_a_file_amid_the_arguments_moves_none_of_them(tmp_path):
    file = tmp_path / "flags.toml"
    file.write_text("batch_size = 8\nsaved = false\n")
    config = parse(config_of("evaluate"), "--output", tmp_path / "page", "--against", "A", "B", "--config", file, "RUN")
    assert (config.run, [str(each) for each in config.against], config.batch_size) == ("RUN", ["A", "B"], 8)


@pytest.mark.once
def test_a_record_gives_the_flags_of_its_run(run_folder):
    record = json.loads((run_folder / "record.json").read_text())
    config = parse(TrainConfig, "--config", run_folder / "record.json")
    assert (config.epochs, config.batch_size, config.output) == (2, 4, None)
    assert config.data.dataset == record["config"]["data"]["dataset"]
    assert config.label_smoothing is None, "what the recipe gives is left to it"
    evaluating = parse(config_of("evaluate"), "run", "--config", run_folder / "record.json")
    assert evaluating == parse(config_of("evaluate"), "run"), "another command takes where things are, and no more"


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 1", "flags.toml: unknown flag epoch; did you mean epochs?"),
        ("epochs = 0", "flags.toml: --epochs 0: must be between 1 and 1,000,000"),
        ('epochs = "many"', 'flags.toml: epochs = "many": expected int'),
        ("epochs = true", "flags.toml: epochs = true: expected int"),
        ('recipe = "adam"', "flags.toml: recipe"),
        ("epochs = ", "flags.toml: not valid TOML"),
        ("epochs = 2020-01-01", 'flags.toml: epochs = "2020-01-01": expected int'),
        (f"epochs = {'1' * 5000}", "flags.toml: not valid TOML"),
        (f"epochs = 0x{'f' * 5000}", "flags.toml: epochs: a number of 20,000 bits"),
        ("[data]\ndataset = 1", "flags.toml: unknown flag data"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(text, said, tmp_path):
    file = tmp_path / "flags.toml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        parse(TrainConfig, "--config", file)
    assert said in error.value.args[0] and "\n" not in error.value.args[0]


@pytest.mark.once
def test_other_mistakes(tmp_path):
    for arguments, said in (
        (["--config"], "--config: takes one file"),
        (["--config", tmp_path / "none.toml"], "none.toml: cannot be read"),
        (["--config", "a", "--config", "b"], "--config: takes one file"),
    ):
        with pytest.raises(UserError) as error:
            parse(TrainConfig, *arguments)
        assert said in error.value.args[0]
    (tmp_path / "predict.json").write_text('{"run": "runs/mine"}')
    with pytest.raises(UserError, match="run is an argument and no flag"):
        parse(config_of("predict"), "runs/mine", "a.jpg", "--config", tmp_path / "predict.json")
    broken = {"schema_version": 1, "dataset": {}, "config": {"data": 3}}
    (tmp_path / "record.json").write_text(json.dumps(broken))
    for name in ("train", "evaluate"):
        with pytest.raises(UserError, match="record.json: damaged"):
            parse(config_of(name), *LEAST.get(name, []), "--config", tmp_path / "record.json")


@pytest.mark.once
def test_a_printed_file_says_what_is_not_given(capsys):
    text = printed(TrainConfig, capsys)
    assert tomllib.loads(text)["preset"] == "resnet_nano"
    assert "# learning_rate: Peak of the schedule" in text and "\n# recipe\n" in text
