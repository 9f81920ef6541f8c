import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKEND
from conftest import NOT_NEEDED
from conftest import files_below
from PIL import Image

from keras_dogs import __main__ as dogs_main
from keras_dogs.__main__ import COMMANDS
from keras_dogs.checking.config import CheckConfig
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.evaluation.config import EvaluateConfig
from keras_dogs.evaluation.config import ExplainConfig
from keras_dogs.evaluation.config import PredictConfig
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.models.costs import count_parameters
from keras_dogs.models.presets import PRESETS
from keras_dogs.models.weights import load_backbone
from keras_dogs.serving.config import ServeConfig
from keras_dogs.system import flags
from keras_dogs.system import help
from keras_dogs.training.config import TrainConfig


def test_help_loads_no_framework(child):
    """What makes `--help` answer in a fraction of a second."""
    code = (
        "import importlib, sys\n"
        f"for name in {list(COMMANDS)}:\n"
        "    sys.argv = [name, '--help']\n"
        "    try: importlib.import_module(f'keras_dogs.{name}').main()\n"
        "    except SystemExit as stop: assert not stop.code\n"
        "    heavy = {'keras', 'keras_hub', 'tensorflow', 'jax', 'torch', 'scipy'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr
    for name in COMMANDS:
        assert f"usage: python -m keras_dogs.{name}" in finished.stdout


CONFIGS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "explain": ExplainConfig,
    "compare": CompareConfig,
    "check": CheckConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
}


@pytest.mark.once
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_of_its_flags(command, name, monkeypatch):
    """No `{None}`, no default that is `None`, no line that is too long; what is first fits on a screen."""
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = command(name, "--help")
    assert status == 0 and out.count("\n") <= 40 and max(map(len, out.splitlines())) <= 100
    everything = command(name, "--help-all")[1]
    assert "None" not in out + everything
    for field in help.kinds_of(CONFIGS[name]).items() if name in CONFIGS else ():
        shown = rf"(?:{flags.flag_of(field[0].rstrip('_'))}|\[?{field[0].upper()}(?:\.\.\.)?\]?)"
        assert len(re.findall(rf"^  {shown}(?: |$)", everything, re.M)) == 1, field
    assert "(10 for resnet_nano)" in " ".join(out.split()) or name != "train"


@pytest.mark.once
def test_the_commands_are_listed(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras_dogs"])
    assert dogs_main.main() == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    monkeypatch.setattr(sys, "argv", ["keras_dogs", "describe", "resnet_nano"])
    assert dogs_main.main() == 0 and "drawn dogs" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["keras_dogs", "trai"])
    assert dogs_main.main() == 2 and "did you mean train?" in capsys.readouterr().err


@pytest.mark.once
def test_train_says_how_far_it_is_and_what_is_next(child, dogs, tmp_path):
    """And on JAX and PyTorch it runs without TensorFlow, which KerasHub would import."""
    arguments = ["--dataset", dogs, "--output", tmp_path / "run", "--epochs", "2", "--batch-size", "4"]
    code = (
        "import sys\n"
        "from keras_dogs.train import main\n"
        "assert main() == 0\n"
        f"assert not {set(NOT_NEEDED)} & set(sys.modules)"
    )
    finished = child(["-c", code, *arguments])
    assert finished.returncode == 0, finished.stderr
    for part in ("resnet_nano", "3 classes", "15 train / 3 validation / 9 test", "epoch   2/2", "images/s"):
        assert part in finished.stderr, finished.stderr
    first, folder, following = finished.stdout.splitlines()
    assert first.startswith("test: top-1 ") and "9 pictures" in first
    assert folder == f"run folder: {tmp_path / 'run'}"
    assert "keras_dogs.predict" in following


@pytest.mark.once
def test_default_output_is_numbered(command, dogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert command("train", "--dataset", dogs, "--epochs", "1", "--batch-size", "8")[0] == 0
    name = f"{dogs.name}-resnet_nano-{BACKEND}"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [name, f"{name}-2"]


def test_evaluate_repeats_the_score_of_the_record(command, run_folder, dogs):
    record = json.loads((run_folder / "record.json").read_text())
    status, out, _ = command("evaluate", run_folder, "--json", "--batch-size", "2")
    scores = json.loads(out)
    assert status == 0 and scores["split"] == "test" and scores["num_pictures"] == 9
    assert scores["top1_accuracy"] == record["test"]["top1_accuracy"]
    assert scores["loss"] == pytest.approx(record["test"]["loss"], abs=1e-4)
    status, out, _ = command("evaluate", run_folder, "--split", "validation")
    assert status == 0 and "top-1 accuracy" in out and "num pictures                3" in out


@pytest.mark.once
def test_predict_files_folders_and_globs(command, run_folder, dogs):
    folder = dogs / "test" / "amberwick"
    files = sorted(folder.iterdir())
    for patterns in ([folder], [f"{folder}/*.png"], files, [folder, *files]):
        status, out, err = command("predict", run_folder, *patterns, "--json", "--top-k", "2")
        assert status == 0, err
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["file"] for row in rows] == [str(file) for file in files]
        assert all(len(row["breeds"]) == 2 for row in rows)


def test_predict_gives_the_probabilities_of_the_test(command, run_folder, dogs):
    with np.load(run_folder / "predictions.npz") as saved:
        place = saved["names"].tolist().index("test/birchhound/test_0_0001.png")
        shifted = np.exp(saved["logits"][place] - saved["logits"][place].max())
        expected = dict(zip(saved["class_names"].tolist(), shifted / shifted.sum()))
    file = dogs / "test" / "birchhound" / "test_0_0001.png"
    _, out, _ = command("predict", run_folder, file, "--json")
    assert json.loads(out)["breeds"] == pytest.approx(expected, abs=1e-4)
    _, out, _ = command("predict", run_folder, file)
    assert out.splitlines()[0] == str(file) and out.count("%") == 3 and "birchhound" in out


@pytest.mark.once
def test_predict_with_the_model_file_alone(command, run_folder, dogs):
    file = dogs / "test" / "birchhound" / "test_0_0001.png"
    assert command("predict", run_folder, file)[1] == command("predict", run_folder / "model.keras", file)[1]


def test_draw_writes_the_dogs_that_train_draws(command, tmp_path):
    arguments = ("draw", "--output", tmp_path / "dogs", "--train-pictures", "2", "--test-pictures", "1")
    assert command(*arguments)[0] == 0
    assert len(list((tmp_path / "dogs").rglob("*.png"))) == 24 * 3
    drawn = load_drawn_dogs().train.read(0)
    with Image.open(tmp_path / "dogs" / "train" / "amberwick" / "train_0_0000.png") as written:
        assert np.array_equal(written, drawn)
    status, _, err = command(*arguments)
    assert status == 2 and "exists" in err
    assert files_below(tmp_path)[0] == "dogs"


def test_describe_lists_the_presets(command):
    status, out, _ = command("describe", "--json")
    rows = {row["preset"]: row for row in map(json.loads, out.splitlines())}
    assert status == 0 and set(rows) == set(PRESETS)
    # timm's model cards: 17.6 and 4.1 billion multiply-adds.
    assert rows["vit_base_patch16_224"]["gflops"] == pytest.approx(2 * 17.58, rel=0.01)
    assert rows["resnet_50_imagenet"]["gflops"] == pytest.approx(2 * 4.11, rel=0.01)
    assert rows["resnet_50_imagenet"]["imagenet_top1_accuracy"] == 81.214
    status, out, _ = command("describe")
    assert len(out.splitlines()) == 1 + len(PRESETS) and all(len(line) < 200 for line in out.splitlines())
    status, out, _ = command("describe", "resnet_18_imagenet")
    assert "11,186,112" in out and "Apache-2.0" in out and "results-imagenet.csv" in out


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if count_parameters(row) < 12e6])
def test_costs_are_counted_right(name):
    """By building it; the large ones take long, and their rows are made by the same arithmetic."""
    backbone = load_backbone(name, load_weights=False).backbone
    assert backbone.count_params() == count_parameters(PRESETS[name])


def test_describe_loads_what_has_no_name(command, run_folder):
    status, out, _ = command("describe", run_folder, "--json")
    assert status == 0 and json.loads(out)["family"] == "resnet" and json.loads(out)["parameters"] > 300_000
    status, _, err = command("describe", "resnet_5_imagenet")
    assert status == 2 and "did you mean" in err


def test_describe_prints_no_control_characters(command, monkeypatch):
    """Names of tensors come from files that were downloaded."""
    row = {"tensors_without_use": ["head.\x1b]0;title\x07"]}
    monkeypatch.setattr("keras_dogs.describe._describe_loaded", lambda preset: row)
    status, out, _ = command("describe", "downloaded.safetensors")
    assert status == 0 and out.count("\n") == 1 and out.strip().isprintable()


@pytest.fixture
def photos(dogs, tmp_path) -> Path:
    """A folder that passes for somebody's photographs: its classes are no drawn breeds."""
    for number, breed in enumerate(sorted((dogs / "train").iterdir())):
        shutil.copytree(breed, tmp_path / "photos" / f"pet{number}")
    return tmp_path / "photos"


@pytest.mark.once
def test_a_preset_that_is_at_hand_is_taken_for_photographs(command, dogs, photos, tmp_path, monkeypatch):
    """Nobody named one: what Kaggle's cache has is taken, and said; drawn dogs, and a given name, keep theirs."""
    import keras_hub
    from kagglehub.cache import Cache
    from kagglehub.cache import get_cached_path
    from kagglehub.handle import parse_model_handle

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    handle = keras_hub.models.ResNetBackbone.presets["resnet_18_imagenet"]["kaggle_handle"]
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )
    converter = keras_hub.layers.ResNetImageConverter(image_size=(32, 32), scale=1 / 255)
    parsed = parse_model_handle(handle.removeprefix("kaggle://"))
    folder = get_cached_path(parsed)
    for part in (backbone, converter):
        part.save_to_preset(folder)
    for file in Path(folder).rglob("*.*"):  # as a download of each leaves them
        Cache().mark_as_complete(parsed, file.relative_to(folder).as_posix())
    given = ("--epochs", "1", "--batch-size", "4", "--offline", "--output", tmp_path / "run", "--overwrite")
    status, _, err = command("train", "--dataset", photos, *given)
    said = " ".join(err.split())
    assert status == 0, err
    assert "no --preset was given: using resnet_18_imagenet, which knows photographs and is in the cache" in said
    assert json.loads((tmp_path / "run" / "record.json").read_text())["preset"] == "resnet_18_imagenet"
    monkeypatch.chdir(tmp_path)
    status, _, err = command("train", "--dataset", photos, "--resume", "--offline")  # looks for a run of that preset
    assert status == 2 and "no unfinished run runs/photos-resnet_18_imagenet" in err, err
    for other in (("--dataset", dogs), ("--dataset", photos, "--preset", "resnet_nano")):
        status, _, err = command("train", *other, *given)
        assert status == 0 and "no --preset was given" not in err
        assert json.loads((tmp_path / "run" / "record.json").read_text())["preset"] == "resnet_nano"


@pytest.mark.once
def test_a_small_folder_gets_a_recipe_of_its_own(command, dogs, photos, run_folder, tmp_path):
    """Nobody named one: the head first, then all weights, for photographs alone; a resumed run keeps what it has."""
    output = tmp_path / "run"
    given = ("--preset", run_folder, "--epochs", "1", "--batch-size", "4", "--output", output)
    status, _, err = command("train", "--dataset", photos, *given)
    assert status == 0 and "no --recipe was given: using probe_then_finetune with --patience 3" in " ".join(
        err.split()
    ), err
    config = json.loads((output / "record.json").read_text())["config"]
    assert (config["recipe"], config["patience"], config["epochs"]) == ("probe_then_finetune", 3, 1)
    status, _, err = command("train", "--dataset", photos, *given, "--resume")
    assert status == 0 and "finished before" in err
    others = ((photos, "--recipe", "adamw"), (photos, "--learning-rate", "1e-4"), (dogs,))
    others = (*others, (photos, "--validation-fraction", "0"), (photos, "--no-probe-first"))
    others = (*others, (photos, "--pictures-per-class", "3"))
    for other in others:
        status, _, err = command("train", "--dataset", *other, *given, "--overwrite")
        assert status == 0 and "no --recipe was given" not in err
        assert json.loads((output / "record.json").read_text())["config"]["recipe"] == "adamw"


@pytest.mark.once
def test_a_preset_of_drawn_dogs_on_photographs_is_said_before_training(command, dogs, photos, tmp_path):
    """38.5 instead of 96.9 % of somebody's photographs, without a word: the right command is named."""
    given = ("--epochs", "1", "--batch-size", "4", "--output", tmp_path / "run")
    status, _, err = command("train", "--dataset", photos, *given)
    said = " ".join(err.split())
    assert status == 0 and "warning: resnet_nano was trained on drawn dogs and on no photograph" in said
    assert said.index("warning") < said.index("epoch 1/1") and "--preset resnet_50_imagenet --linear-probe" in said
    status, _, err = command("train", "--dataset", dogs, *given, "--overwrite")
    assert status == 0 and "warning" not in err
