"""Exported files answer as the run does, and what does not is caught: `tox -e export` has every format installed."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKEND
from conftest import files_below

import keras_dogs
from keras_dogs.errors import UserError
from keras_dogs.exporting import exporting
from keras_dogs.exporting import formats
from keras_dogs.exporting import standalone
from keras_dogs.exporting import verification
from keras_dogs.exporting import writing
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.exporting.pictures import Pictures
from keras_dogs.runs import exports
from keras_dogs.system import ownership

BOUND = 1e-4  # of the largest logit


def needs(name: str, quantize: str | None = None) -> None:
    """Skips where a format cannot be written or opened."""
    try:
        formats.check_installed(formats.find(name), quantize)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """A ViT as a file alone, whose head answers something."""
    classifier = keras_dogs.build_vit("vit_nano", 3, class_names=("amberwick", "birchhound", "cloverjack"))
    generator = np.random.default_rng(0)
    classifier.head.set_weights([generator.normal(size=each.shape) for each in classifier.head.get_weights()])
    file = tmp_path_factory.mktemp("vit") / "vit.keras"
    keras_dogs.save_classifier(classifier, file)
    return file


@pytest.fixture(scope="module")
def onnx_folder(run_folder, tmp_path_factory) -> Path:
    """The run as ONNX, written once; a test that changes it copies it first."""
    needs("onnx")
    output = tmp_path_factory.mktemp("onnx") / "exported"
    exporting.export_run(ExportConfig(run_folder, output=output))
    return output


@pytest.fixture
def answer(command, child):
    """Runs a command on an exported folder; with TensorFlow's runtime in a process that does not keep it out."""

    def run(name, verb, *arguments):
        if name != "tf_saved_model" or BACKEND == "tensorflow":
            return command(verb, *arguments)
        done = child(["-m", f"keras_dogs.{verb}", *arguments])
        return done.returncode, done.stdout, done.stderr

    return run


def run_of(kind: str, run_folder: Path, vit: Path) -> Path:
    return {"resnet": run_folder, "vit": vit}[kind]


def pictures_of(dogs: Path) -> list[Path]:
    return sorted((dogs / "test").rglob("*.png"))


@pytest.mark.exports
@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_the_file_answers_as_the_run(command, answer, run_folder, vit, dogs, tmp_path, name, kind):
    answers_as_the_run(command, answer, run_folder, vit, dogs, tmp_path, name, kind)


def test_the_file_of_this_backend_answers_as_the_run(command, answer, run_folder, vit, dogs, tmp_path):
    """One format that needs no more than the backend; `tox -e export` has the others."""
    name = {"jax": "keras", "tensorflow": "tf_saved_model", "torch": "torch"}[BACKEND]
    answers_as_the_run(command, answer, run_folder, vit, dogs, tmp_path, name, "resnet")


def answers_as_the_run(command, answer, run_folder, vit, dogs, tmp_path, name, kind):
    needs(name)
    output, run = tmp_path / "exported", run_of(kind, run_folder, vit)
    output.mkdir()  # an empty folder is accepted; `test_libraries.py` covers a new one
    for mine in ("notes.txt", "model.keras", ".exported.partial"):
        (tmp_path / mine).write_text("mine")
    more = () if kind == "resnet" else ("--pictures", dogs)
    status, out, err = command("export", run, "--format", name, "--output", output, *more)
    assert status == 0, err
    beside = {path.name: path.read_text() for path in tmp_path.iterdir() if path != output}
    assert beside == dict.fromkeys(("notes.txt", "model.keras", ".exported.partial"), "mine"), "one of them was touched"
    assert ownership.kind_of(output) == "export" and not ownership.strangers(output)
    found = exports.read(output / exports.FILE)
    checked = found["verification"]
    assert checked["largest_difference"] <= BOUND * checked["largest_logit"] and checked["agreement"] == 1.0
    assert checked["num_pictures"] == 9 and checked["top1_accuracy"] == checked["top1_accuracy_of_run"]
    # TensorFlow imports Keras by itself.
    assert checked.get("imported", []) == (["keras"] if name in ("keras", "tf_saved_model") else [])
    assert (output / "labels.txt").read_text().split() == found["class_names"]
    assert "same name          100.0%" in out
    expected = command("predict", run, *pictures_of(dogs), "--json")[1]
    answered = answer(name, "predict", output, *pictures_of(dogs), "--json")
    assert answered[0] == 0, answered[2]
    for one, other in zip(expected.splitlines(), answered[1].splitlines(), strict=True):
        assert list(json.loads(one)["breeds"]) == list(json.loads(other)["breeds"])
    more = ("--json", "--dataset", dogs) if kind == "vit" else ("--json",)
    scores = [json.loads(command("evaluate", run, *more)[1]), json.loads(answer(name, "evaluate", output, *more)[1])]
    assert scores[1]["loss"] == pytest.approx(scores[0]["loss"], rel=1e-4)
    assert scores[1]["top1_accuracy"] == scores[0]["top1_accuracy"] and scores[1]["backend"] == name


@pytest.mark.exports
def test_the_program_in_the_folder(command, onnx_folder, dogs, tmp_path):
    """Names every picture as `predict` does, in a process that has neither Keras nor us."""
    moved = shutil.copytree(onnx_folder, tmp_path / "elsewhere")
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    latin = shutil.copy(pictures_of(dogs)[0], tmp_path / os.fsdecode(b"\xe9.png"))  # a name that is not UTF-8
    files = [str(file) for file in (*pictures_of(dogs), latin, broken)]
    done = subprocess.run([sys.executable, "-I", moved / "predict.py", *files], capture_output=True, text=True)
    assert done.returncode == 1 and f"{broken}: not a picture" in done.stderr, done.stderr
    expected = command("predict", moved, *files)[1]
    assert done.stdout == expected
    assert not list(moved.rglob("__pycache__"))


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_the_program_stands_alone(name):
    program = standalone.program_of(formats.find(name))
    compile(program, "predict.py", "exec")
    code = program.replace("Written by keras_dogs.export", "")
    assert "keras_dogs" not in code and "def open_picture" in code and "def open_model" in code


@pytest.mark.exports
def test_a_dynamic_batch(onnx_folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_folder / "model.onnx")
    side = exports.read(onnx_folder / exports.FILE)["canvas"]["size"]
    canvases = np.random.default_rng(0).integers(0, 256, (7, side, side, 3)).astype("uint8")
    together = session.run(["logits"], {"canvases": canvases})[0]
    alone = [session.run(["logits"], {"canvases": each[None]})[0][0] for each in canvases]
    np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(together).max())


@pytest.mark.exports
def test_the_commands_of_the_page(command, tmp_path, monkeypatch):
    needs("onnx")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    lines = page.partition("```bash\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line)
        status, out, err = command(words[2].removeprefix("keras_dogs."), *words[3:])
        assert status == 0 and out, err


# What is wrong is caught


def other_mean(folder: Path) -> None:
    edit(folder, lambda array: array + 0.05 if array.shape[-1:] == (3,) and array.size == 3 else array)


def other_channels(folder: Path) -> None:
    edit(folder, lambda array: array[:, ::-1].copy() if array.ndim == 4 and array.shape[1] == 3 else array)


def edit(folder: Path, change) -> None:
    """Changes every weight of an ONNX file by a function of its array."""
    import onnx

    model, changed = onnx.load(folder / "model.onnx"), 0
    for tensor in model.graph.initializer:
        before = onnx.numpy_helper.to_array(tensor)
        after = change(before)
        changed += after is not before
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(after), tensor.name))
    assert changed
    onnx.save(model, folder / "model.onnx")


def other_labels(folder: Path) -> None:
    import onnx

    model = onnx.load(folder / "model.onnx")
    (kept,) = model.metadata_props
    names = json.loads(kept.value)
    kept.value = json.dumps([names[1], names[0], *names[2:]])
    onnx.save(model, folder / "model.onnx")


def no_file(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a model")


def newer_operator(folder: Path) -> None:
    """Names an operator that the runtime does not have, as where it is older than what writes."""
    import onnx

    model = onnx.load(folder / "model.onnx")
    model.graph.node[0].op_type = "OfNextYear"
    onnx.save(model, folder / "model.onnx")


@pytest.fixture(scope="module")
def write_once(tmp_path_factory):
    """Writes the file of a job, and gives the same to all further jobs: it is what is done to it that differs."""
    needs("onnx")
    kept, write = tmp_path_factory.mktemp("written"), exporting._run_writing

    def run(job, *arguments):
        if not any(kept.iterdir()):
            write(job, *arguments)
            shutil.copytree(job["folder"], kept / "folder")
            for name in (writing.FACTS, writing.REFERENCE):
                shutil.copy(Path(job["work"]) / name, kept)
        shutil.copytree(kept / "folder", job["folder"], dirs_exist_ok=True)
        for name in (writing.FACTS, writing.REFERENCE):
            shutil.copy(kept / name, job["work"])

    return run


@pytest.mark.exports
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (other_mean, "off by"),
        (other_channels, "off by"),
        (other_labels, "the class names in the exported file are not those of the run"),
        (no_file, "runtime"),
        (newer_operator, "OfNextYear"),
    ],
)
def test_a_planted_fault_is_caught(command, write_once, run_folder, tmp_path, monkeypatch, tamper, said):
    def write_and_tamper(job, *arguments):
        write_once(job, *arguments)
        tamper(Path(job["folder"]))

    monkeypatch.setattr(exporting, "_run_writing", write_and_tamper)
    before = files_below(tmp_path)
    status, _, err = command("export", run_folder, "--output", tmp_path / "made" / "exported")
    last = err.strip().splitlines()[-1]
    assert status == 1 and said in last and last.endswith("nothing was written"), err
    assert ".png" in last or tamper in (other_labels, no_file, newer_operator)
    assert files_below(tmp_path) == before


@pytest.mark.exports
def test_a_disk_that_is_full(command, run_folder, tmp_path):
    """A file that may not grow fails as one that has no room; the child that writes inherits the limit."""
    needs("onnx")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        status, _, err = command("export", run_folder, "--output", tmp_path / "made" / "exported")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    last = err.strip().splitlines()[-1]
    assert status and "too large" in last and "Traceback" not in err, err
    assert not files_below(tmp_path)


@pytest.mark.exports
def test_int8(command, run_folder, vit, dogs, tmp_path):
    """Answers nearly as the run, from a smaller file; what loses too much is refused."""
    needs("onnx", "int8")
    output = tmp_path / "exported"
    arguments = ("export", run_folder, "--quantize", "int8", "--output", output)
    status, _, err = command(*arguments, "--max-accuracy-loss", "100")
    assert status == 0, err
    found = exports.read(output / exports.FILE)
    low, high = found["verification"]["accuracy_loss_interval"]
    assert found["quantization"] == "int8" and low <= high
    whole = (run_folder / "model.keras").stat().st_size
    assert found["verification"]["size_bytes"] < 0.6 * whole


@pytest.mark.exports
def test_the_page_of_an_evaluation_shows_exports(command, onnx_folder, run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    shutil.copytree(onnx_folder, run / "exports" / "onnx")
    assert command("evaluate", run, "--saved", "--output", tmp_path / "page")[0] == 0
    assert "## Exported" in (tmp_path / "page" / "report.md").read_text()
    status, _, err = command("export", run)
    assert status == 2 and "exists" in err


def verified(tmp_path, quantize: str | None, wrong: int = 0, num_classes: int = 2, **answers) -> dict:
    """Verifies answers to 200 pictures of class 0, of which so many are wrong in the exported file."""
    files, classes = [f"{number}.png" for number in range(200)], [f"class {number}" for number in range(num_classes)]
    logits = np.zeros((200, num_classes), "float32")
    logits[:, 0] = 5
    found = np.concatenate([logits[:wrong, ::-1], logits[wrong:]])
    shares = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    said = np.array([classes[place] for place in np.argmax(found, axis=1)])
    answers = {"files": np.array(files), "logits": found, "probabilities": shares, "told": said, **answers}
    np.savez(tmp_path / "answers.npz", **answers)
    rates = dict.fromkeys(("open_s", "latency_p50_ms", "latency_p95_ms", "images_per_second"), 1.0)
    measured = {**rates, "class_names": classes, "cores": 2, "imported": []}
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    config = ExportConfig(tmp_path, format="litert" if quantize else "keras", quantize=quantize)
    pictures = Pictures("pictures", files, dict.fromkeys(files, classes[0]), [])
    reference = verification.Answers(files, logits, [classes[0]] * 200)
    return verification.verify(tmp_path, reference, classes, 1.0, config, pictures)


@pytest.mark.once
def test_the_loss_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "check_installed", lambda *arguments: None)
    assert verified(tmp_path, "int8", wrong=2)["top1_accuracy"] == 0.99  # just one point
    with pytest.raises(verification.NotEqual, match="1.5 points"):
        verified(tmp_path, "int8", wrong=3)


@pytest.mark.once
def test_answers_that_are_no_numbers(tmp_path):
    with pytest.raises(verification.NotEqual, match=r"0\.png: a probability"):
        verified(tmp_path, None, probabilities=np.full((200, 2), np.nan, "float32"))
    assert verified(tmp_path, None, num_classes=1)["agreement"] == 1.0


@pytest.mark.once
def test_answers_of_another_number_of_classes(tmp_path):
    with pytest.raises(verification.NotEqual, match="the class names in the exported file are not those of the run"):
        verified(tmp_path, None, logits=np.zeros((200, 3), "float32"))


# Bad input


def refused(result, *parts) -> None:
    status, out, err = result
    line = err.strip().splitlines()[-1]
    assert status == 2 and line.startswith("keras_dogs.export: error: ") and not out, err
    assert all(part in line for part in parts), line


@pytest.mark.once
def test_what_cannot_be_exported(command, run_folder, dogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "other.keras").write_bytes(b"no model")
    before = files_below(tmp_path)
    refused(command("export", "nowhere", "--format", "keras"), "no such run folder")
    refused(command("export", run_folder, "--format", "onx"), "did you mean onnx?")
    refused(command("export", run_folder, "--format", "keras", "--quantize", "int8"), "--quantize int8", "litert")
    refused(command("export", run_folder, "--verify-pictures", "0"), "--verify-pictures")
    refused(command("export", run_folder, "--format", "keras", "--max-accuracy-loss", "2"), "no effect")
    refused(command("export", run_folder, "--format", "keras", "--output", "full"), "--output full", "notes.txt")
    refused(command("export", run_folder, "--format", "keras", "--pictures", "empty"), "no pictures found")
    refused(command("export", run_folder, "--format", "keras", "--pictures", "nowhere"), "no such folder")
    refused(command("export", run_folder, "--format", "keras", "--pictures", "other.keras"), "is not a folder")
    refused(command("export", run_folder, "--format", "keras", "--pictures", "full", "--data-dir", "full"), "no effect")
    refused(command("export", run_folder, "--format", "keras", "--data-dir", "nowhere"), "no effect")
    refused(command("export", "other.keras", "--format", "keras"), "other.keras: not a classifier")
    assert files_below(tmp_path) == before


def test_a_format_that_is_not_installed(command, run_folder, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "openvino" else found(name, *more)
    )
    wanted = ["needs openvino", "pip install '.[openvino]'"] if found("torch") else ["needs PyTorch to write it"]
    refused(command("export", run_folder, "--format", "openvino", "--output", tmp_path / "exported"), *wanted)


@pytest.mark.exports
def test_half_precision_and_no_pictures_at_hand(command, tmp_path):
    """It is exported in float32, numbers alone are compared, and both are said."""
    needs("keras")
    classifier = keras_dogs.build_resnet("resnet_nano", 3, dtype="mixed_bfloat16", class_names=("a", "b", "c"))
    classifier.head.set_weights([np.random.default_rng(0).normal(size=each) for each in ((64, 3), 3)])
    keras_dogs.save_classifier(classifier, tmp_path / "half.keras")
    arguments = ("--format", "keras", "--output", tmp_path / "exported")
    status, out, err = command("export", tmp_path / "half.keras", *arguments)
    assert status == 0 and "computes in mixed_bfloat16; it is exported and checked in float32" in err, err
    assert "only numbers are compared" in err and "32 random pictures" in out
    assert exports.read(tmp_path / "exported" / exports.FILE)["verification"]["top1_accuracy"] is None


@pytest.mark.exports
def test_an_exported_folder_that_was_changed(command, onnx_folder, dogs, tmp_path):
    output = shutil.copytree(onnx_folder, tmp_path / "exported")
    picture = pictures_of(dogs)[0]
    facts = json.loads((output / exports.FILE).read_text())
    larger = {**facts["canvas"], "size": 2 * facts["canvas"]["size"]}
    weights = (output / "model.onnx").read_bytes()

    def other_canvas():
        (output / "model.onnx").write_bytes(weights)
        (output / exports.FILE).write_text(json.dumps({**facts, "canvas": larger}))

    for name, change in (
        ("model.onnx", lambda: (output / "model.onnx").write_bytes(b"another")),
        ("model.onnx", lambda: (output / "model.onnx").unlink()),
        ("canvas.size", lambda: (output / exports.FILE).write_text(json.dumps({**facts, "canvas": {"size": -1}}))),
        ("input.shape", other_canvas),
        ("later version", lambda: (output / exports.FILE).write_text(json.dumps({**facts, "schema_version": 99}))),
    ):
        change()
        status, _, err = command("predict", output, picture)
        assert status == 2 and name in err and len(err.strip().splitlines()) == 1, err


# Keras' own export


OF_KERAS = {"jax": (), "tensorflow": ("tf_saved_model", "litert"), "torch": ("torch",)}


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("name", OF_KERAS[BACKEND])
def test_export_of_keras_itself(vit, run_folder, tmp_path, kind, name):
    classifier = keras_dogs.load_classifier(run_of(kind, run_folder, vit))
    side = classifier.canvas_size
    pictures = np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype("float32")
    expected = classifier.predict(pictures, verbose=0)
    file = tmp_path / {"torch": "model.pt2", "tf_saved_model": "model", "litert": "model.tflite"}[name]
    classifier.export(file, format=name, verbose=False)
    if name == "torch":
        import torch

        found = torch.export.load(file).module()(torch.from_numpy(pictures)).detach().numpy()
    elif name == "litert":
        import tensorflow as tf

        interpreter = tf.lite.Interpreter(str(file))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pictures)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    else:
        import tensorflow as tf

        model = tf.saved_model.load(file)  # whose variables live as long as it does
        found = model.serve(pictures).numpy()
    np.testing.assert_allclose(found, expected, atol=BOUND * np.abs(expected).max())
