"""Hostile input of every kind: one line that names the file or the flag, status 1 or 2, and nothing else touched.

The inputs are made here: each number of each command at twelve values, each key of each file that is read with seven
faults, each command with fifteen bad paths, each file of a run with four damages.
"""

import contextlib
import copy
import dataclasses
import hashlib
import html.parser
import json
import os
import shutil
import sys
import time
import typing
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKEND
from made_runs import make_run

from keras_dogs.cache import CacheConfig
from keras_dogs.checking.config import CheckConfig
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.draw import DrawConfig
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.evaluation.config import EvaluateConfig
from keras_dogs.evaluation.config import PredictConfig
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.runs import artifacts
from keras_dogs.runs import exports
from keras_dogs.serving.config import ServeConfig
from keras_dogs.training.config import TrainConfig

pytestmark = pytest.mark.once
DEEP = json.loads("[" * 500 + "]" * 500)
FAULTS = {
    "wrong type": lambda value: {"not": "this"} if not isinstance(value, dict) else 7,
    "NaN": lambda value: float("nan"),
    "huge": lambda value: 10**30,
    "negative": lambda value: -1,
    "deep": lambda value: DEEP,
    "a long text": lambda value: "x\x1b[31m\n" * 2000,
}
SECONDS, BYTES, HELD_BEFORE = 30, 2**30, 0
PROCESS = Path("/proc/self")  # of Linux


@pytest.fixture(autouse=True)
def held_before(monkeypatch):
    """Sets the peak of this process' memory, which Linux keeps, back to what it takes now, tests before included."""
    with contextlib.suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")
    monkeypatch.setattr(sys.modules[__name__], "HELD_BEFORE", peak_memory())


def peak_memory() -> int:
    """Returns the most bytes that this process has held since then; 0 where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (PROCESS / "status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def digest_of(folder: Path) -> str:
    """Changes with any file below a folder, its name or its content."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        digest.update(str(file.relative_to(folder)).encode("utf-8", "surrogateescape"))
        if file.is_file() and not file.is_symlink():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def well_answered(result, began: float, must_fail: bool = True) -> str:
    """Checks what a command said: a status, no error twice, printable lines of a length that can be read."""
    status, _, err = result
    assert "Traceback" not in err and "\x1b" not in err, err
    errors = [line for line in err.splitlines() if "error: " in line]
    assert all(line.isprintable() and len(line) < 2100 for line in errors), errors
    assert status in (1, 2) if must_fail else status in (0, 1, 2), (status, err)
    assert len(errors) >= must_fail and len(set(errors)) == len(errors), err
    assert time.monotonic() - began < SECONDS and peak_memory() - HELD_BEFORE < BYTES
    return errors[0] if errors else ""


def numbers_of(config_type, prefix="--"):
    """Yields each flag that takes a number, with whether it takes text, too."""
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from numbers_of(kind)
        elif {int, float} & {kind, *typing.get_args(kind)}:
            yield f"{prefix}{field.name.replace('_', '-')}"


COMMANDS = {
    "train": (TrainConfig, []),
    "evaluate": (EvaluateConfig, ["nowhere"]),
    "predict": (PredictConfig, ["nowhere", "a.png"]),
    "compare": (CompareConfig, ["--presets", "nowhere"]),
    "cache": (CacheConfig, []),
    "draw": (DrawConfig, []),
    "export": (ExportConfig, ["nowhere", "--format", "keras", "--quantize", "int8"]),
    "serve": (ServeConfig, ["nowhere"]),
    "check": (CheckConfig, ["nowhere"]),
}
NUMBERS = ["1e30", "-1e30", "nan", "inf", "-inf", "-1", "99999999999999999999", "0x10", "1,5", "", "१२३x", "1e-400x"]
FLAGS = [(name, flag) for name, (config, _) in COMMANDS.items() for flag in numbers_of(config)]


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_numbers_that_make_no_sense(command, tmp_path, monkeypatch, name, flag):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_DOGS_CACHE", str(tmp_path))
    for number in NUMBERS:
        began = time.monotonic()
        line = well_answered(command(name, *COMMANDS[name][1], f"{flag}={number}"), began)
        assert flag in line, line
    assert not list(tmp_path.iterdir())


# Files


def faulty(value: dict, path=()):
    """Yields `(key, content)`: the content with one fault at each key, and with each key missing."""
    for key in _places(value):
        for what, fault in (("missing", None), *FAULTS.items()):
            content = copy.deepcopy(value)
            inner = content
            for part in key[:-1]:
                inner = inner[part]
            if fault is None:
                del inner[key[-1]]
            else:
                inner[key[-1]] = fault(inner[key[-1]])
            yield f"{'.'.join(map(str, key))}: {what}", content


def _places(value, path=()):
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from _places(inner, (*path, key))


def evaluated(command, run):
    return command("evaluate", run, "--saved")


def test_each_key_of_a_record(command, run_folder, tmp_path):
    """Read by evaluate, compare and resume. A key that is passed over, or that may be missing, does no harm."""
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    record = json.loads((run / "record.json").read_text())
    expected, refused = evaluated(command, run)[1], 0
    for what, content in faulty(record):
        (run / "record.json").write_text(json.dumps(content))
        began = time.monotonic()
        result = evaluated(command, run)
        line = well_answered(result, began, must_fail=False)
        if result[0]:
            refused += 1
            assert "record.json" in line or "predictions.npz" in line or "run" in line, (what, line)
        else:
            assert result[1] == expected, what
    assert refused > 250


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 10_000, "\0" * 100, '"x"'])
def test_a_record_that_is_none(command, run_folder, tmp_path, content):
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    (run / "record.json").write_text(content)
    began = time.monotonic()
    assert "record.json" in well_answered(evaluated(command, run), began)
    assert "record.json" in well_answered(command("compare", "--from", run, "--output", tmp_path / "c"), began, False)


def made_export(folder: Path) -> dict:
    """Writes an `export.json` whose model file is not there, and returns what it holds."""
    checked = dict.fromkeys(("agreement", "top1_accuracy", "top1_accuracy_of_run"), 0.5)
    checked |= dict.fromkeys(("open_s", "latency_p50_ms", "latency_p95_ms", "images_per_second"), 1.5)
    content = {
        "schema_version": 1,
        "format": "onnx",
        "file": "model.onnx",
        "quantization": None,
        "run": "run",
        "preset": "vit_nano",
        "pretraining": "nothing",
        "family": "vit",
        "class_names": ["one", "two"],
        "canvas": {"size": 64, "fit": "squash", "interpolation": "bilinear"},
        "input": {"name": "canvases"},
        "outputs": {"logits": {}},
        "temperature": 1.5,
        "written_by": "torch",
        "versions": {"keras": "3"},
        "data": {"dataset": "drawn_dogs"},
        "seed": 0,
        "digests": {"model.onnx": "0" * 64},
        "verification": {
            **checked,
            "pictures": "test pictures",
            "num_pictures": 2,
            "largest_logit": 3.5,
            "largest_difference": 1e-6,
            "accuracy_loss_interval": [0.0, 0.5],
            "size_bytes": 100,
            "machine": "a test's",
        },
    }
    folder.mkdir()
    (folder / "export.json").write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("use", ["predict", "evaluate"])
def test_each_key_of_an_exported_folder(command, tmp_path, use):
    folder = tmp_path / "exported"
    content = made_export(folder)
    for what, values in faulty(content):
        (folder / "export.json").write_text(json.dumps(values))
        began = time.monotonic()
        line = well_answered(command(use, folder, *(["a.png"] if use == "predict" else [])), began)
        assert str(folder) in line, (what, line)


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [
        ("data", {"dataset": 5}, "dataset"),
        ("data", {"validation_fraction": 0.1}, "dataset"),
        ("data", {"dataset": "dogs", "validation_fraction": "0.1"}, "validation_fraction"),
        ("input", {"shape": 5}, "input.shape"),
        ("input", {"shape": [None]}, "input.shape"),
    ],
)
def test_what_an_exported_folder_says_of_its_data_and_input(tmp_path, key, value, names):
    """Before the model is looked at, which `made_export` does not write."""
    content = made_export(tmp_path / "exported")
    file = tmp_path / "exported" / "export.json"
    file.write_text(json.dumps({**content, key: value}))
    with pytest.raises(UserError, match="export.json: .*damaged") as caught:
        exports.read(file)
    assert names in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("image_size", [96, 96]), ("mixup", []), ("fit", {"a": []})])
def test_what_a_record_says_of_the_training(command, tmp_path, name, value):
    """By which `compare` tells models apart."""
    runs = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    record = json.loads((runs[0] / "record.json").read_text())
    record["config"][name] = value
    (runs[0] / "record.json").write_text(json.dumps(record))
    began = time.monotonic()
    result = command("compare", "--from", *runs, "--output", tmp_path / "c")
    line = well_answered(result, began)
    assert "record.json" in line and "damaged" in line and name in line
    assert result[0] == 1 and "report: " in result[1], "the other run is on the page"


def test_each_key_of_the_config_of_an_unfinished_run(command, run_folder, dogs, tmp_path, monkeypatch):
    """A run goes on as it was begun, or not at all."""
    from keras_dogs.data.config import DataConfig
    from keras_dogs.training import fine_tuning

    config = TrainConfig(data=DataConfig(dataset=str(dogs)), output=tmp_path / "run", epochs=2, batch_size=4)
    content = {**config.to_plain(), "schema_version": 2, "fingerprint": "0", "backend": BACKEND}
    with contextlib.suppress(Interrupted), artifacts.run_folder(tmp_path / "run", content, resume=False) as folder:
        (folder / "checkpoints" / "step-00000001-best-0000.npz").write_bytes(b"")
        raise KeyboardInterrupt
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    trained = []
    monkeypatch.setattr(
        fine_tuning, "_train_job", lambda config, *_: trained.append(config) or fine_tuning.Run("x", None)
    )
    for what, values in faulty(content):
        (tmp_path / "run" / "config.json").write_text(json.dumps(values))
        began = time.monotonic()
        result = command("train", "--resume", "--output", tmp_path / "run")
        line = well_answered(result, began, must_fail=False)
        if result[0]:
            assert "config.json" in line or str(tmp_path / "run") in line, (what, line)
        else:
            assert dataclasses.replace(trained[-1], resume=False) == config, what


# Weights of others


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory) -> Path:
    """A folder of Hugging Face's layout with a ViT of one block."""
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = tmp_path_factory.mktemp("weights") / "vit"
    folder.mkdir()
    width, mlp, rng = 16, 32, np.random.default_rng(0)
    config = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "hidden_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": mlp,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "image_size": 32,
        "patch_size": 16,
        "num_channels": 3,
        "qkv_bias": True,
        "id2label": {"0": "a", "1": "b"},
    }
    preprocessor = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "size": {"height": 32, "width": 32},
    }
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 5, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    layer = "encoder.layer.0"
    for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
        shapes |= {f"{layer}.{name}.weight": (width, width), f"{layer}.{name}.bias": (width,)}
    shapes |= {
        f"{layer}.attention.output.dense.weight": (width, width),
        f"{layer}.attention.output.dense.bias": (width,),
    }
    shapes |= {f"{layer}.intermediate.dense.weight": (mlp, width), f"{layer}.intermediate.dense.bias": (mlp,)}
    shapes |= {f"{layer}.output.dense.weight": (width, mlp), f"{layer}.output.dense.bias": (width,)}
    for name in ("layernorm_before", "layernorm_after"):
        shapes |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
    tensors = {f"vit.{name}": rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    tensors |= {
        "classifier.weight": rng.normal(size=(2, width)).astype("float32"),
        "classifier.bias": np.zeros(2, "float32"),
    }
    safetensors.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def built(folder: Path):
    """What `build_classifier` says of a folder: the error, or the logits of a picture."""
    import keras_dogs
    from keras_dogs.errors import UserError

    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype="uint8")
    try:
        classifier = keras_dogs.build_classifier(str(folder), num_classes=None, augmentation="none")
    except UserError as error:
        return str(error)
    from keras import ops

    return ops.convert_to_numpy(classifier(ops.convert_to_tensor(picture)))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_each_key_of_a_config_of_weights(small_vit, tmp_path, name):
    """One that has no part in the logits may be anything."""
    folder = Path(shutil.copytree(small_vit, tmp_path / "vit"))
    content, expected = json.loads((folder / name).read_text()), built(small_vit)
    assert not isinstance(expected, str), expected
    for what, values in faulty(content):
        (folder / name).write_text(json.dumps(values))
        began = time.monotonic()
        found = built(folder)
        assert time.monotonic() - began < SECONDS
        if isinstance(found, str):
            assert name in found or "preset" in found, (what, found)
        else:
            assert np.isfinite(found).all() and (found.shape == expected.shape), what


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "[" * 10_000, '{"a":' * 10_000, "\0" * 100, "{}", '"x"', "7"]
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_config_of_weights_that_is_none(small_vit, tmp_path, name, content):
    folder = Path(shutil.copytree(small_vit, tmp_path / "vit"))
    (folder / name).write_text(content)
    found = built(folder)
    assert isinstance(found, str) or content == "{}", found


def test_weights_that_hold_nan(small_vit, tmp_path):
    """Training would be said to diverge."""
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = Path(shutil.copytree(small_vit, tmp_path / "vit"))
    tensors = safetensors.load_file(folder / "model.safetensors")
    tensors["vit.encoder.layer.0.output.dense.weight"][3, 3] = np.nan
    safetensors.save_file(tensors, folder / "model.safetensors")
    assert "holds NaN or infinity" in built(folder)


# Paths

LONG, DEEPER = "x" * 300, "/".join(["d" * 200] * 30)


def bad_paths(folder: Path) -> dict[str, str]:
    """Fifteen paths where nothing can be, by what is wrong with each."""
    (folder / "file").write_text("mine")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere_link").symlink_to(folder / "gone")
    return {
        "too long a name": LONG,
        "too long a path": DEEPER,
        "below a file": str(folder / "file" / "below"),
        "in /proc": "/proc/1/nothing",
        "a device": "/dev/full",
        "below a device": "/dev/null/x",
        "not UTF-8": os.fsdecode(b"dog\xe9\xff"),
        "a loop": str(folder / "loop"),
        "a link to nothing": str(folder / "nowhere_link"),
        "a file": str(folder / "file"),
        "empty": str(folder / "empty"),
        "with control characters": "a\x1b[31mred\nline",
        "an option": "-x",
        "nothing": "",
        "of Windows": "C:\\nothing\\here",
    }


USES = {
    "train dataset": lambda path: ("train", "--epochs", 1, f"--dataset={path}"),
    "train preset": lambda path: ("train", "--epochs", 1, f"--preset={path}"),
    "train output": lambda path: ("train", "--epochs", 1, "--dataset=nowhere", f"--output={path}"),
    "evaluate run": lambda path: ("evaluate", "--saved", path),
    "evaluate data": lambda path: ("evaluate", "nowhere", f"--dataset={path}"),
    "predict run": lambda path: ("predict", path, "a.png"),
    "predict csv": lambda path: ("predict", "nowhere", "a.png", f"--csv={path}"),
    "predict output": lambda path: ("predict", "nowhere", "a.png", f"--output={path}"),
    "serve run": lambda path: ("serve", "--port=0", path),
    "explain run": lambda path: ("explain", path, "a.png"),
    "compare from": lambda path: ("compare", f"--from={path}"),
    "compare data": lambda path: ("compare", "--pair=embedded", f"--dataset={path}"),
    "compare presets": lambda path: ("compare", f"--presets={path}"),
    "check data": lambda path: ("check", "--output=check", "--", path),
    "check run": lambda path: ("check", "--output=check", f"--run={path}"),
    "exclude": lambda path: ("train", "--epochs", 1, "--dataset=nowhere", f"--exclude={path}"),
    "overlap list": lambda path: ("evaluate", "nowhere", "--output=page", f"--overlap-list={path}"),
    "describe": lambda path: ("describe", path),
    "draw": lambda path: ("draw", "--train-pictures", 1, "--test-pictures", 1, f"--output={path}"),
    "export run": lambda path: ("export", "--format=keras", path),
    "export pictures": lambda path: ("export", "nowhere", "--format=keras", f"--pictures={path}"),
}
# Where the path is a good one for the use.
FINE = {
    ("draw", "empty"),
    ("draw", "with control characters"),
    ("draw", "not UTF-8"),
    ("draw", "of Windows"),
    ("draw", "an option"),
}


@pytest.mark.parametrize("use", USES)
def test_bad_paths(command, tmp_path, monkeypatch, use):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    paths = bad_paths(tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    before = digest_of(tmp_path)
    for what, path in paths.items():
        if (use, what) in FINE or (not path and use in ("draw", "describe")):
            continue
        began = time.monotonic()
        well_answered(command(*USES[use](path)), began)
        shutil.rmtree(tmp_path / "work" / "comparison", ignore_errors=True)
        assert digest_of(tmp_path) == before, what


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="its `import socket` fails there, before any code of ours"
)
def test_a_working_folder_that_is_gone(child, run_folder, tmp_path):
    """Relative paths have no meaning there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); sys.argv[1:] = {['run', '--saved']!r}\n"
    code += "from keras_dogs import evaluate; sys.exit(evaluate.main())"
    done = child(["-c", code])
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr


def test_names_beyond_the_locale(child, run_folder, tmp_path):
    """Where the terminal has ASCII alone, a name is printed with escapes."""
    run = tmp_path / "Hündchen"
    shutil.copytree(run_folder, run)
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = child(["-m", "keras_dogs.evaluate", os.fsencode(run / "nothing").decode("utf-8"), "--saved"], **environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


# Files that were damaged


def damages(content: bytes):
    """Yields what a file may hold after an accident."""
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 16
    yield "one bit", bytes(flipped)
    yield "half", content[: len(content) // 2]
    yield "empty", b""
    yield "zeros", bytes(len(content))


@pytest.fixture(scope="module")
def other_run(tmp_path_factory, dogs) -> Path:
    """Another run of the same kind, whose files must not be taken for the first one's."""
    from keras_dogs.data.config import DataConfig
    from keras_dogs.training.fine_tuning import fine_tune

    output = tmp_path_factory.mktemp("other") / "run"
    fine_tune(TrainConfig(data=DataConfig(dataset=str(dogs)), output=output, epochs=1, batch_size=4, seed=5))
    return output


@pytest.mark.parametrize("name", ["model.keras", "predictions.npz", "history.csv", "steps.csv"])
def test_damaged_and_foreign_files_of_a_run(command, run_folder, other_run, dogs, tmp_path, name):
    """Noticed by each command that reads the file, the first time."""
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    picture = next((dogs / "test").rglob("*.png"))
    readers = {
        "model.keras": lambda: command("predict", run, picture),
        "predictions.npz": lambda: command("evaluate", run, "--saved"),
        "history.csv": lambda: command("compare", "--from", run, "--output", tmp_path / "c"),
        "steps.csv": lambda: command("compare", "--from", run, "--output", tmp_path / "c"),
    }
    content = (run / name).read_bytes()
    cases = [*damages(content), ("another run's", (other_run / name).read_bytes())]
    for what, damaged in cases:
        (run / name).write_bytes(damaged)
        status, _, err = readers[name]()
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        assert status in (1, 2) and name in err and "Traceback" not in err, (what, err)
    (run / name).write_bytes(content)
    assert readers[name]()[0] == 0


def test_another_runs_record(command, run_folder, other_run, tmp_path):
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    shutil.copy(other_run / "record.json", run / "record.json")
    assert "predictions.npz: is not the file" in well_answered(evaluated(command, run), time.monotonic())


def test_an_archive_that_unpacks_to_gigabytes(command, run_folder, tmp_path):
    """Refused by what its directory says, before anything is unpacked."""
    import zipfile

    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    for name, member in (("predictions.npz", "logits.npy"), ("model.keras", "model.weights.h5")):
        with zipfile.ZipFile(run / name, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(member, "w", force_zip64=True) as file:
                for _ in range(100):
                    file.write(bytes(2**20))
    (run / "record.json").unlink()
    assert "predictions.npz" in well_answered(evaluated(command, run), time.monotonic())
    assert "model.keras" in well_answered(command("predict", run, "a.png"), time.monotonic())


# Pages

NAMES = ("husky | mix <i>", "`pug` *spitz* _dog_", "<script>alert(1)</script>", "# 1. [x](y) $a$ & \\ ~~s~~")


class Text(html.parser.HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_names_from_outside_are_text_on_every_page(command, tmp_path):
    """Classes, presets, files and folders may be called anything; a page shows it as it is."""
    runs = []
    for number, preset in enumerate(("a<b>|*c*", "resnet_nano")):
        run = make_run(
            tmp_path / f"run <i> {number}", preset, names=[f"a|<b>{n}`.jpg" for n in range(200)], skill=0.5 + number
        )
        found = Predictions.load(run)
        found._replace(class_names=np.array(NAMES), validation=None).save(run / "predictions.npz")
        runs.append(run)
    assert command("compare", "--from", *runs, "--output", tmp_path / "comparison")[0] == 0
    assert command("evaluate", runs[0], "--saved", "--output", tmp_path / "page")[0] == 0
    for page in (tmp_path / "comparison" / "report.html", tmp_path / "page" / "report.html"):
        shown = Text(page.read_text())
        assert not {"script", "i", "del", "b"} & shown.tags, shown.tags
        text = "".join(shown.text)
        assert all(name in text for name in NAMES[: 2 if "comparison" in str(page) else 4]), page
        assert "a<b>|*c*" in text
