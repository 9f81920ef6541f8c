"""Folders for transformers, timm and KerasHub: written, read back, refused, described, pushed to a hub of the tests.

What transformers and timm themselves make of them is in `test_reference_writing.py`, which needs both installed.
"""

import base64
import contextlib
import functools
import http.server
import importlib
import io
import json
import re
import shlex
import shutil
import sys
import threading
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
from conftest import is_installed

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.evaluation import intervals
from keras_dogs.exporting import cards
from keras_dogs.exporting import pushing
from keras_dogs.exporting import writing_library
from keras_dogs.models import initialization
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.checkpoint import open_checkpoint
from keras_dogs.runs import exports
from keras_dogs.runs.records import RunRecord

NAMES = ["amberwick", "a b", "<i>", "n02-x", "犬"]
PICTURES = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
SIZES = dict(patch_size=8, num_layers=2, num_heads=2, hidden_dim=16)
BACKBONES = {
    "vit": lambda: vits.build("vit", (32, 32), None, mlp_dim=32, **SIZES),
    "deit": lambda: vits.build("deit", (32, 32), None, intermediate_dim=32, **SIZES),
    "dinov2": lambda: keras_hub.models.DINOV2Backbone(
        8, 2, 16, 2, 32, image_shape=(32, 32, 3), position_embedding_shape=(32, 32)
    ),
    "dinov2 with registers": lambda: keras_hub.models.DINOV2Backbone(
        8, 2, 16, 2, 32, image_shape=(32, 32, 3), position_embedding_shape=(32, 32), num_register_tokens=2
    ),
    "resnet": lambda: resnets.build([2, 2, 2, 2], True, False, None),
    "basic resnet": lambda: resnets.build([2, 2, 2, 2], False, False, None),
    "resnet v2": lambda: resnets.build([2, 2, 2, 2], False, True, None),
    # timm alone knows ResNets by their widths.
    "narrow resnet": lambda: resnets.build([2, 2, 2, 2], True, False, None, filters=(64, 16, 16, 16)),
    "narrow basic resnet": lambda: resnets.build([2, 2, 2, 2], False, False, None, filters=(64, 16, 16, 16)),
    "narrow resnet v2": lambda: resnets.build([2, 2, 2, 2], False, True, None, filters=(64, 16, 16, 16)),
    "resnet of two stages": lambda: resnets.build([1, 1], False, False, None, filters=(64, 96)),
}
_OF_ANY_WIDTH = ("vit", "deit", "narrow resnet", "narrow basic resnet", "resnet of two stages")
WRITTEN = [
    *(("transformers", name) for name in (*_OF_ANY_WIDTH, "dinov2", "dinov2 with registers")),
    *(("timm", name) for name in ("vit", "deit", "dinov2", "resnet", "basic resnet", "resnet v2")),
    *(("keras_hub", name) for name in (*_OF_ANY_WIDTH, "narrow resnet v2")),
]

_QUICK = ("vit", "resnet of two stages")  # on each backend; what is written of the others is the same, and slower


def classifier_of(backbone, folder: Path, **arguments) -> Path:
    """Saves a classifier whose every number is its own."""
    with initialization.no_initializers():
        model = BACKBONES[backbone]()
    for number, weight in enumerate(model.weights):
        is_scale = weight.path.endswith(("gamma", "variance"))
        noise = np.random.default_rng(number).normal(0, 0.05, weight.shape)
        weight.assign(1 + np.abs(noise) if is_scale else noise)
    model.save_to_preset(str(folder / "preset"))
    arguments = {"image_size": 32, "class_names": NAMES, **arguments}
    classifier = keras_dogs.build_classifier(str(folder / "preset"), 5, **arguments)
    generator = np.random.default_rng(0)
    classifier.head.set_weights([generator.normal(size=each.shape) for each in classifier.head.get_weights()])
    keras_dogs.save_classifier(classifier, folder / "model.keras")
    return folder / "model.keras"


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Gives the file of a classifier, which all libraries share."""
    folder = tmp_path_factory.mktemp("classifiers")
    return functools.cache(lambda backbone: classifier_of(backbone, folder / backbone, canvas_size=32))


def write(library: str, model: Path, folder: Path) -> Path:
    """Writes a folder as `export` does, less the check by the library."""
    folder.mkdir()
    classifier = keras_dogs.load_classifier(model)
    names = list(classifier.class_names or map(str, range(classifier.num_classes)))
    writing_library.write(library, model, names, classifier.canvas, folder)
    return folder


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    with open_checkpoint("", folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.shapes}


@pytest.mark.parametrize(
    ("library", "backbone"),
    [pytest.param(*each, marks=[] if each[1] in _QUICK else [pytest.mark.once]) for each in WRITTEN],
)
def test_what_is_written_and_read_is_the_same_to_the_last_bit(library, backbone, classifiers, tmp_path):
    model = classifiers(backbone)
    first = write(library, model, tmp_path / "first")
    again = keras_dogs.build_classifier(str(first), num_classes=None, augmentation="none")
    expected = keras_dogs.load_classifier(model).predict_on_batch(PICTURES)
    assert np.ptp(expected) > 0.01
    np.testing.assert_array_equal(again.predict_on_batch(PICTURES), expected)
    keras_dogs.save_classifier(again, tmp_path / "again.keras")
    second = write(library, tmp_path / "again.keras", tmp_path / "second")
    if library != "keras_hub":
        assert list(again.class_names) == NAMES
        ones, others = tensors_of(first), tensors_of(second)
        assert ones.keys() == others.keys()
        for name, value in ones.items():
            np.testing.assert_array_equal(value, others[name], err_msg=name)
        for name in ("config.json", "preprocessor_config.json")[: 1 + (library == "transformers")]:
            assert (first / name).read_text() == (second / name).read_text()


@pytest.mark.once
@pytest.mark.parametrize("library", ["transformers", "timm", "keras_hub"])
def test_the_size_is_kept(library, tmp_path):
    """Of a ResNet, which takes any, and of a DINOv2 at the size that was published."""
    folder = write(
        library,
        classifier_of("resnet v2" if library == "timm" else "narrow basic resnet", tmp_path, image_size=64),
        tmp_path / "one",
    )
    assert keras_dogs.models.weights.load_backbone(str(folder)).image_size == (64, 64)


@pytest.mark.once
def test_both_heads_of_a_distilled_deit_are_kept(tmp_path):
    classifier_of("deit", tmp_path)
    folder = tmp_path / "teacher"
    write("transformers", tmp_path / "model.keras", folder)
    config = json.loads((folder / "config.json").read_text())
    from safetensors.numpy import load_file
    from safetensors.numpy import save_file

    tensors = load_file(folder / "model.safetensors")
    kernel, bias = tensors.pop("classifier.weight"), tensors.pop("classifier.bias")
    tensors |= {"cls_classifier.weight": kernel, "cls_classifier.bias": bias}
    tensors |= {"distillation_classifier.weight": -kernel[:, ::-1].copy(), "distillation_classifier.bias": bias}
    save_file(tensors, folder / "model.safetensors")
    classifier = keras_dogs.build_classifier(str(folder), num_classes=None, augmentation="none")
    assert classifier.get_layer("pooling").kind == "two_tokens"
    keras_dogs.save_classifier(classifier, tmp_path / "two.keras")
    for library in ("transformers", "timm"):
        again = write(library, tmp_path / "two.keras", tmp_path / library)
        heads = ("cls_classifier", "distillation_classifier") if library == "transformers" else ("head", "head_dist")
        for one, head in zip(("cls_classifier", "distillation_classifier"), heads):
            np.testing.assert_array_equal(tensors_of(again)[f"{head}.weight"], tensors[f"{one}.weight"])
    assert "WithTeacher" in (tmp_path / "transformers" / "config.json").read_text() and config["model_type"] == "deit"


@pytest.mark.once
def test_a_resnet_of_keras_applications_goes_to_transformers(tmp_path, monkeypatch):
    """In NumPy, a block of it: convolution without bias, batch norm at PyTorch's epsilon."""
    from keras_dogs.models.weights import keras_applications

    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    for number, weight in enumerate(backbone.weights):
        is_scale = weight.path.endswith(("gamma", "variance"))
        noise = np.random.default_rng(number).normal(0, 0.1, weight.shape)
        weight.assign(1 + np.abs(noise) if is_scale else noise)
    found = keras_applications.folded_weights(backbone)
    stem = keras.Model(backbone.input, backbone.get_layer("conv1_bn").output)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    convolved = keras.ops.convert_to_numpy(keras.ops.conv(padded, found["stem.conv.kernel"], strides=2))
    expected = (convolved - found["stem.norm.mean"]) / np.sqrt(found["stem.norm.variance"] + 1e-5)
    expected = expected * found["stem.norm.gamma"] + found["stem.norm.beta"]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(stem(images)), expected, atol=1e-5)
    assert len(found) == 5 * 53  # every convolution with its norm


# What a library cannot hold is refused in a line.


@pytest.mark.once
@pytest.mark.parametrize(
    ("library", "backbone", "says"),
    [
        ("transformers", "narrow resnet v2", "transformers has no ResNet v2"),
        ("timm", "dinov2 with registers", "registers or SwiGLU cannot be written"),
        ("timm", "resnet of two stages", "timm has no ResNet with this stem and these stages: [1, 1]"),
        ("keras_hub", "dinov2", "KerasHub has no"),
    ],
)
def test_what_a_library_has_not(library, backbone, says, tmp_path):
    model = classifier_of(backbone, tmp_path)
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        write(library, model, tmp_path / "folder")
    assert "\n" not in str(caught.value) and not list((tmp_path / "folder").iterdir())


@pytest.mark.once
def test_strides_of_v1_are_refused_for_timm(command, tmp_path):
    classifier = keras_dogs.build_classifier(
        "applications:resnet50", 3, image_size=32, load_weights=False, class_names=NAMES[:3]
    )
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    with pytest.raises(UserError, match="timm has no ResNet v1, whose stride is on the first convolution"):
        write("timm", tmp_path / "model.keras", tmp_path / "folder")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--format", "transformer"], "did you mean transformers?"),
        (["--format", "onnx", "--push", "hf://me/dogs", "--dry-run"], "needs a folder for a library"),
        (["--format", "keras_hub", "--push", "me/dogs", "--dry-run"], "has to be hf://USER/NAME or kaggle://"),
        (["--format", "keras_hub", "--push", "hf://me", "--dry-run"], "has to be hf://USER/NAME or kaggle://"),
        (["--format", "keras_hub", "--dry-run"], "--dry-run"),
        (["--format", "keras_hub", "--public"], "--public"),
        (["--format", "keras_hub", "--push", "kaggle://me/dogs/keras/nano", "--public", "--dry-run"], "--public"),
        (["--format", "keras_hub", "--quantize", "int8"], "format keras_hub does not support it"),
    ],
)
@pytest.mark.once
def test_flags_that_cannot_be(command, run_folder, flags, says):
    status, _, err = command("export", run_folder, *flags)
    assert status == 2 and says in err and err.count("\n") == 1


# A preset of KerasHub, by the commands of the page.


@pytest.fixture(scope="module")
def of_page(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder in which the commands of the page were run, and what each of them printed."""
    folder = tmp_path_factory.mktemp("libraries")
    page = (Path(__file__).parents[1] / "docs" / "libraries.md").read_text()
    printed = []
    with pytest.MonkeyPatch.context() as patched, contextlib.chdir(folder):
        for line in page.partition("```bash\n")[2].partition("```")[0].splitlines():
            _, _, module, *arguments = shlex.split(line)
            # As absolute paths, which must not be published.
            arguments = [str(folder / each) if each.split("/")[0] in ("dogs", "runs") else each for each in arguments]
            patched.setattr(sys, "argv", [module, *arguments])
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert not importlib.import_module(module).main(), line
            printed.append(out.getvalue())
            for split in ("train", "test"):  # three breeds: a card names all of so few
                for breed in sorted((folder / "dogs" / split).iterdir())[3:]:
                    shutil.rmtree(breed)
    return folder, printed


@pytest.fixture(scope="module")
def run(of_page) -> Path:
    return of_page[0] / "runs" / "mine"


@pytest.fixture(scope="module")
def preset(run) -> Path:
    return run / "exports" / "keras_hub"


@pytest.mark.once
def test_the_commands_of_the_page(of_page):
    _, printed = of_page
    assert len(printed) == 4 and all(printed)


@pytest.mark.once
def test_a_preset_answers_in_stock_keras_hub(preset, child):
    """In a process that knows nothing of us; the check of the export was one, too."""
    found = exports.read(preset / exports.FILE)
    assert found["verification"]["largest_difference"] <= 1e-4 * found["verification"]["largest_logit"]
    assert "keras_dogs" not in found["verification"].get("imported", [])
    code = (
        "import sys, keras_hub, numpy as np\n"
        "task = keras_hub.models.ImageClassifier.from_preset(sys.argv[1])\n"
        f"assert task.predict(np.zeros((1, 50, 70, 3), 'uint8')).shape == (1, {len(found['class_names'])})\n"
        "assert not any(name.startswith('keras_dogs') for name in sys.modules)\n"
    )
    done = child(["-W", "ignore", "-c", code, preset])
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_every_number_of_the_card_is_in_the_record(preset, run):
    text = (preset / cards.FILE).read_text("utf-8")
    record, found = RunRecord.load(run / "record.json"), exports.read(preset / exports.FILE)
    known = {"95", "keras_dogs", "1", "0"}  # of the interval, and of the first of a batch in the example
    for scores in (record.validation, record.test):
        count = scores.num_pictures
        low, high = intervals.share_interval(np.arange(count) < round(scores.top1_accuracy * count))
        shares = (scores.top1_accuracy, low, high, scores.top5_accuracy, scores.mean_per_class_accuracy)
        known |= {f"{100 * share:.1f}" for share in shares} | {f"{scores.loss:.3f}", str(scores.top1_accuracy)}
    checked = found["verification"]
    known |= {f"{checked['largest_difference'] / checked['largest_logit']:.1e}"}
    known |= {f"{100 * checked[name]:.1f}" for name in ("agreement", "top1_accuracy", "top1_accuracy_of_run")}
    known |= {f"{100 * bound:+.1f}".lstrip("+") for bound in checked["accuracy_loss_interval"]}
    raw = json.dumps(json.loads((run / "record.json").read_text()))
    raw += json.dumps(json.loads((preset / exports.FILE).read_text()))
    numbers = re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)*(?:e-?\d+)?", text)
    assert len(numbers) > 20
    for number in numbers:
        plain = number.replace(",", "").rstrip(".")
        assert plain in known or plain.lstrip("-") in known or plain in raw, number
    for part in ("## How to use it", "## Scores", "## How it was trained", "## Limits", *found["class_names"]):
        assert part in text
    for file in (preset / cards.FILE, preset / exports.FILE):  # nobody's folders are published
        assert str(run.parents[1]) not in file.read_text()


@pytest.mark.once
def test_a_folder_for_a_library_is_a_preset_and_no_run(preset, command, dogs):
    assert keras_dogs.build_classifier(str(preset), num_classes=3).num_classes == 3
    for verb, arguments in (("predict", [next(dogs.rglob("*.png"))]), ("evaluate", [])):
        status, _, err = command(verb, preset, *arguments)
        assert status == 2 and "written for keras_hub, which answers with it" in err


# Hubs.


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of Hugging Face's API as a push needs; it keeps what it is sent."""

    files: dict[str, bytes] = {}
    repos: dict[str, bool] = {}  # name -> whether private
    broken = False

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        name = re.match(r"/api/models/([^/]+/[^/?]+)", self.path)
        if not name or name[1] not in self.repos:
            return self.answer(404, {"error": "Repository not found"})
        files = [{"type": "file", "path": file, "size": len(body), "oid": "0"} for file, body in self.files.items()]
        if "/tree/" in self.path:
            return self.answer(200, files)
        siblings = [{"rfilename": file} for file in self.files]
        self.answer(200, {"id": name[1], "sha": "0" * 40, "siblings": siblings, "private": self.repos[name[1]]})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer(401, {"error": "Invalid credentials"})
        if self.broken:
            return self.answer(500, {"error": "the disk is full"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repos[name] = asked.get("private", asked.get("visibility") == "private")
            return self.answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            return self.answer(
                200, {"commitUrl": f"http://{self.headers['Host']}/me/dogs/commit/0", "commitOid": "0" * 40}
            )
        self.answer(200, {})

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub of the test's own."""
    if not is_installed("huggingface_hub"):
        pytest.skip("needs huggingface_hub")
    from huggingface_hub import constants

    Hub.files, Hub.repos, Hub.broken = {}, {}, False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        for name in ("KERAS_DOGS_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield Hub
        running.shutdown()


@pytest.fixture
def folder(preset, tmp_path) -> Path:
    return Path(shutil.copytree(preset, tmp_path / "folder"))


@pytest.mark.once
def test_a_push_brings_the_folder_and_is_private(hub, folder, command):
    status, out, err = command("export", folder, "--push", "hf://me/dogs")
    assert status == 0, err
    assert hub.repos == {"me/dogs": True} and "pushed: " in out
    sent = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert hub.files == {name: body for name, body in sent.items() if not name.startswith(".")}


@pytest.mark.once
def test_a_dry_run_sends_nothing(hub, folder, command, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, out, _ = command("export", folder, "--push", "hf://me/dogs", "--dry-run")
    assert status == 0 and "would push" in out and "(private)" in out and "model.weights.h5" in out
    assert hub.repos == {} and hub.files == {}


@pytest.mark.once
def test_a_failed_push_keeps_the_folder_and_says_how_to_go_on(hub, folder, command):
    hub.broken = True
    status, _, err = command("export", folder, "--push", "hf://me/dogs")
    assert status == 1 and f"to go on: python -m keras_dogs.export {folder} --push hf://me/dogs" in err
    assert err.count("\n") == 1 and (folder / "model.weights.h5").is_file()
    hub.broken = False
    assert command("export", folder, "--push", "hf://me/dogs")[0] == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda hub, patch: patch.setenv("HF_TOKEN", "hf_wrong"), "the hub refuses the token (401)"),
        (lambda hub, patch: patch.setenv("KERAS_DOGS_OFFLINE", "1"), "offline"),
        (lambda hub, patch: hub.repos.update({"me/dogs": True}) or hub.files.update({"a": b""}), "of this name"),
    ],
)
def test_pushes_that_are_refused(hub, folder, command, monkeypatch, change, says):
    change(hub, monkeypatch)
    status, _, err = command("export", folder, "--push", "hf://me/dogs")
    assert status == 2 and says in err and err.count("\n") == 1


@pytest.mark.once
def test_an_empty_model_of_the_other_kind_is_left_alone(hub, folder, command):
    hub.repos["me/dogs"] = False
    status, _, err = command("export", folder, "--push", "hf://me/dogs")
    assert status == 2 and "is there already, empty and public" in err and hub.files == {}
    assert command("export", folder, "--push", "hf://me/dogs", "--public")[0] == 0 and hub.files


@pytest.mark.once
def test_a_push_of_a_run_takes_what_was_exported_before(hub, run, command):
    arguments = ("export", run, "--format", "keras_hub", "--push", "hf://me/dogs")
    assert command(*arguments, "--dry-run")[0] == 0 and hub.files == {}
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    status, out, err = command(*arguments)
    assert status == 0 and "exported before" in out and hub.files, err
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.once
def test_a_push_of_a_model_takes_no_export_of_another(hub, run, preset, command, tmp_path, monkeypatch):
    """Two models called `model.keras` share the folder of their exports, and so does one that was trained further."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(preset, tmp_path / "exports" / "model-keras_hub")
    classifier = keras_dogs.build_classifier("resnet_nano", 3, class_names=NAMES[:3])
    keras_dogs.save_classifier(classifier, tmp_path / "model.keras")
    arguments = ("--format", "keras_hub", "--push", "hf://me/dogs")
    status, _, err = command("export", tmp_path / "model.keras", *arguments)
    assert status == 2 and "not known to be an export of" in err and err.count("\n") == 1 and hub.repos == {}
    assert command("export", run / "model.keras", *arguments)[0] == 0 and hub.files


@pytest.mark.once
@pytest.mark.parametrize("name", ["C:/Users/ann/my dogs", r"C:\Users\ann\my dogs", "/home/ann/my dogs"])
def test_what_is_pushed_names_no_folder(name):
    from keras_dogs.exporting import exporting

    assert exporting._without_path(name) == "my dogs"
    assert exporting._without_path(f"applications:resnet50:{name}") == "applications:resnet50"
    assert exporting._without_path("hf://google/vit") == "hf://google/vit"


@pytest.mark.once
def test_no_token(hub, folder, command, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    status, _, err = command("export", folder, "--push", "hf://me/dogs")
    assert status == 2 and "no token of Hugging Face" in err and err.count("\n") == 1


@pytest.mark.once
def test_a_folder_that_was_changed_is_not_pushed(hub, folder, command):
    with (folder / "model.weights.h5").open("ab") as file:
        file.write(b"x")
    status, _, err = command("export", folder, "--push", "hf://me/dogs")
    assert status == 2 and "is not the file that was exported" in err and hub.repos == {}


@pytest.mark.once
def test_kaggle_is_given_the_folder(folder, monkeypatch):
    """Their own function is replaced: there is no stub of Kaggle's storage."""
    import kagglehub

    sent = []
    monkeypatch.setattr(kagglehub, "model_upload", lambda *args, **kwargs: sent.append((args, kwargs)))
    page = pushing.push(folder, pushing.parse("kaggle://me/dogs/keras/nano"), False, "message")
    assert page == "https://www.kaggle.com/models/me/dogs/keras/nano"
    assert sent[0][0] == ("me/dogs/keras/nano", str(folder))
