"""Every mistake a user can make: one clear line that names the thing, exit status 2, nothing left on disk."""

import json
import shutil

import pytest
from conftest import files_below
from PIL import Image
from test_pictures import huge_png

pytestmark = pytest.mark.once

QUICK = ("--epochs", "1", "--batch-size", "4")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder of its own, so that "nothing is left" can be seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(result, *parts, name="train"):
    status, out, err = result
    lines = [line for line in err.splitlines() if "error" in line]
    assert status == 2, (status, out, err)
    assert len(lines) == 1 and lines[0].startswith(f"keras_dogs.{name}: error: "), err
    assert "Traceback" not in err
    for part in parts:
        assert str(part) in lines[0], lines[0]


def copy_of(dogs, folder):
    shutil.copytree(dogs, folder)
    return folder


# The dataset


def test_missing_folder(command, work):
    refused(command("train", "--dataset", "nowhere/dogs", "--output", "run"), "nowhere/dogs", "no such folder")
    assert files_below(work) == []


def test_empty_folder(command, work):
    (work / "dogs").mkdir()
    refused(command("train", "--dataset", "dogs", "--output", "run"), "dogs", "empty")
    assert files_below(work) == ["dogs"]


def test_class_with_one_picture(command, work, dogs):
    folder = copy_of(dogs, work / "dogs")
    for file in sorted((folder / "train" / "amberwick").iterdir())[1:]:
        file.unlink()
    before = files_below(work)
    refused(command("train", "--dataset", folder, "--output", "run", *QUICK), "amberwick", "one picture")
    assert files_below(work) == before


def spoil_corrupt(file):
    content = bytearray(file.read_bytes())
    content[40:-12] = bytes(len(content) - 52)
    file.write_bytes(content)


def spoil_truncated(file):
    Image.open(file).convert("RGB").save(file, format="JPEG")
    file.write_bytes(file.read_bytes()[:700])


SPOILT = {
    "corrupt": spoil_corrupt,
    "truncated": spoil_truncated,
    "zero bytes": lambda file: file.write_bytes(b""),
    "a text file": lambda file: file.write_text("I am not a dog."),
    "30,000 x 30,000": huge_png,
}


@pytest.mark.once
@pytest.mark.parametrize("how", SPOILT)
def test_unreadable_picture(command, work, dogs, how):
    """1 of 27 is more than the tolerated 1 %: refused, naming it; with --skip-unreadable left out and counted."""
    folder = copy_of(dogs, work / "dogs")
    victim = sorted((folder / "train" / "amberwick").iterdir())[0]
    SPOILT[how](victim.rename(victim.with_suffix(".jpg")))
    before = files_below(work)
    arguments = ("train", "--dataset", folder, "--output", "run", *QUICK)
    refused(command(*arguments), f"train/amberwick/{victim.stem}.jpg", "--skip-unreadable", "1 of 27")
    assert files_below(work) == before
    if how != "zero bytes":
        return  # the way out is the same for all: once is enough
    status, out, err = command(*arguments, "--skip-unreadable")
    assert status == 0, err
    assert f"left out: train/amberwick/{victim.stem}.jpg: the file is empty" in err
    from keras_dogs.runs.records import RunRecord

    record = RunRecord.load(work / "run" / "record.json").dataset
    assert record.num_unreadable == 1 and victim.stem in record.unreadable[0]
    assert record.num_train + record.num_validation == 17


@pytest.mark.once
def test_few_unreadable_pictures_are_listed_and_left_out(command, work, dogs):
    folder = copy_of(dogs, work / "dogs")
    sorted((folder / "test" / "amberwick").iterdir())[0].write_bytes(b"")
    status, _, err = command("train", "--dataset", folder, "--output", "run", "--max-unreadable", "0.05", *QUICK)
    assert status == 0 and "left out: test/amberwick/" in err


def test_class_that_is_unreadable_altogether(command, work, dogs):
    folder = copy_of(dogs, work / "dogs")
    for file in (folder / "train" / "amberwick").iterdir():
        file.write_bytes(b"")
    result = command("train", "--dataset", folder, "--output", "run", "--skip-unreadable", *QUICK)
    refused(result, "no readable picture left")
    assert not (work / "run").exists()


# The preset


def test_unknown_preset(command, work):
    result = command("train", "--preset", "vit_base_patch16_224_imagenet22k", "--output", "run")
    refused(result, "vit_base_patch16_224_imagenet22k", "did you mean vit_base_patch16_224_imagenet21k")
    assert files_below(work) == []


def test_preset_folder_without_a_preset(command, work):
    (work / "preset").mkdir()
    refused(command("train", "--preset", "preset", "--output", "run"), "preset", "looked for config.json")
    assert files_below(work) == ["preset"]


# The backend


def test_backend_misspelt(child, work):
    finished = child(["-m", "keras_dogs.train", "--output", "run"], KERAS_BACKEND="tensorflw")
    refused(
        (finished.returncode, finished.stdout, finished.stderr), "KERAS_BACKEND=tensorflw", "did you mean tensorflow?"
    )
    assert files_below(work) == []


def test_backend_not_installed(child, work):
    """Every import of the backend is made to fail, as on a machine without it."""
    hide = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'jax' else find(name, *rest);"
        "sys.argv = ['train', '--output', 'run'];"
        "from keras_dogs.train import main; sys.exit(main())"
    )
    finished = child(["-c", hide], KERAS_BACKEND="jax")
    result = (finished.returncode, finished.stdout, finished.stderr)
    refused(result, "KERAS_BACKEND=jax", "JAX is not installed", "pip install '.[jax]'")
    assert files_below(work) == []


# The output


def test_no_permission_at_the_output(command, work, dogs):
    """/proc refuses new folders to everybody, root included."""
    result = command("train", "--dataset", dogs, "--output", "/proc/keras_dogs_run", *QUICK)
    refused(result, "/proc/keras_dogs_run", "choose another --output")
    assert files_below(work) == []


@pytest.mark.once
def test_no_space_at_the_output(child, work, dogs):
    """Files may not grow beyond 100 kB: what a full disk does, on any machine and without being root."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        f"sys.argv = ['train', '--dataset', {str(dogs)!r}, '--output', 'run', '--epochs', '1', '--batch-size', '4'];"
        "from keras_dogs.train import main; sys.exit(main())"
    )
    finished = child(["-c", limited])
    result = (finished.returncode, finished.stdout, finished.stderr)
    refused(result, "run", "free some space or choose another --output")
    assert files_below(work) == []


@pytest.mark.once
def test_a_finished_run_is_not_overwritten(command, work, dogs, run_folder):
    shutil.copytree(run_folder, work / "run")
    before = {file: (work / file).stat().st_mtime_ns for file in files_below(work)}
    refused(command("train", "--dataset", dogs, "--output", "run", *QUICK), "run", "--overwrite")
    assert {file: (work / file).stat().st_mtime_ns for file in files_below(work)} == before
    assert command("train", "--dataset", dogs, "--output", "run", "--overwrite", "--seed", "3", *QUICK)[0] == 0
    assert '"seed": 3' in (work / "run" / "record.json").read_text()
    assert files_below(work)[0] == "run" and len([file for file in files_below(work) if "/" not in file]) == 1


def test_a_folder_that_is_no_run_is_never_replaced(command, work, dogs):
    (work / "run").mkdir()
    (work / "run" / "thesis.txt").write_text("years of work")
    refused(
        command("train", "--dataset", dogs, "--output", "run", "--overwrite", *QUICK),
        "what keras_dogs.train did not make",
    )
    assert (work / "run" / "thesis.txt").read_text() == "years of work"


# evaluate and predict


def test_dataset_with_other_classes(command, work, run_folder):
    result = command("evaluate", run_folder, "--dataset", "drawn_dogs")
    refused(result, "drawn_dogs", "other classes", "24 and 3", name="evaluate")
    assert files_below(work) == []


def test_evaluate_without_a_run(command, work):
    refused(command("evaluate", "nowhere"), "nowhere", "no such run folder", name="evaluate")
    refused(command("evaluate", work), "no model.keras", name="evaluate")


def test_evaluate_a_model_file_alone_needs_a_dataset(command, work, run_folder, dogs):
    """One in its run folder is the run."""
    alone = shutil.copy(run_folder / "model.keras", work)
    refused(command("evaluate", alone), "give --dataset", name="evaluate")
    assert command("evaluate", alone, "--dataset", dogs)[0] == 0
    runs = (run_folder, run_folder / "model.keras")
    scores = [json.loads(command("evaluate", run, "--json")[1].splitlines()[-1]) for run in runs]
    assert {**scores[0], "run": ""} == {**scores[1], "run": ""}


def test_predict_names_what_it_cannot_read_and_goes_on(command, work, run_folder, dogs):
    good = next((dogs / "test" / "amberwick").iterdir())
    (work / "text.jpg").write_text("I am not a dog.")
    status, out, err = command("predict", run_folder, work / "text.jpg", "missing.jpg", good)
    assert status == 1 and str(good) in out
    *errors, summary = err.splitlines()
    assert errors == [
        f"keras_dogs.predict: error: {work / 'text.jpg'}: not a picture that Pillow can read",
        "keras_dogs.predict: error: missing.jpg: no such file",
    ]
    assert summary.startswith("1 of 3 pictures named in ") and summary.endswith(", 2 unreadable")


def test_predict_on_nothing(command, work, run_folder):
    refused(command("predict", run_folder, "*.jpg"), "*.jpg: no pictures found", name="predict")
    refused(command("predict", "nowhere", "dog.jpg"), "no such run folder", name="predict")


# Flags


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--epochs", "0"),
        ("--learning-rate", "-1"),
        ("--dropout", "1"),
        ("--validation-fraction", "1"),
        ("--seed", "-1"),
        ("--erasing", "2"),
        ("--mixup", "-1"),
    ],
)
def test_values_out_of_range(command, work, flag, value):
    refused(command("train", flag, value, "--output", "run"), flag, "must be")
    assert files_below(work) == []


def test_unknown_flag_and_choice(command, work):
    for arguments in (("--epoch", "1"), ("--augmentation", "much"), ("--epochs", "many")):
        status, _, err = command("train", *arguments)
        assert status == 2 and arguments[0] in err and "Traceback" not in err
    assert files_below(work) == []


def test_flags_that_do_not_go_together(command, work, run_folder):
    refused(command("train", "--linear-probe", "--drop-path", "0.1", "--output", "run"), "--drop-path", "no effect")
    refused(command("train", "--strict", "--dtype-policy", "mixed_float16", "--output", "run"), "--strict", "float32")
    refused(command("evaluate", run_folder, "--batch-size", "0"), "--batch-size 0", "between 1 and", name="evaluate")
    refused(command("evaluate", run_folder, "--image-size", "96"), "--image-size 96", "presets only", name="evaluate")
    assert files_below(work) == []


def test_offline_without_the_dataset(command, work, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(work))
    monkeypatch.setenv("KERAS_DOGS_OFFLINE", "0")  # put back after the test: the flag sets it
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    result = command("train", "--dataset", "stanford_dogs", "--data-dir", work, "--offline", "--output", "run")
    refused(result, "offline, and not prepared", "images.tar")


def test_interrupt_leaves_nothing_or_what_can_go_on(command, work, dogs, monkeypatch):
    from keras_dogs.training import job as jobs

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "decode_pictures", interrupt)
        status, _, err = command("train", "--dataset", dogs, "--output", "run", *QUICK)
    assert status == 130 and "interrupted" in err and files_below(work) == []

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "evaluate_classifier", interrupt)
        status, _, err = command("train", "--dataset", dogs, "--output", "run", *QUICK)
    assert status == 130 and "--resume --output run" in err and not (work / "run" / "record.json").exists()
    refused(command("train", "--dataset", dogs, "--output", "run", *QUICK), "unfinished run", "--resume", "--overwrite")
    refused(command("train", "--resume", "--output", "run", "--epochs", "7"), "--epochs", "leave --epochs out")
    status, out, _ = command("train", "--resume", "--output", "run")
    assert status == 0 and "test: top-1" in out and (work / "run" / "record.json").exists()
    (work / "run" / ".lock").touch()  # of a process that was killed right before it would have removed it
    status, _, err = command("train", "--resume", "--output", "run")
    assert status == 0 and "finished before" in err and not (work / "run" / ".lock").exists()


def test_resume_without_a_run(command, work):
    refused(command("train", "--resume"), "no unfinished run", "--output")
    refused(command("train", "--resume", "--overwrite", "--output", "run"), "--resume", "--overwrite")


def test_a_mistake_in_a_weights_file(command, work, dogs):
    (work / "weights.h5").write_bytes(b"nonsense")
    result = command(
        "train", "--preset", f"applications:resnet50:{work / 'weights.h5'}", "--dataset", dogs, "--output", "run"
    )
    refused(result, "weights.h5", "does not hold its weights")
    assert not (work / "run").exists()
