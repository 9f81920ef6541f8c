"""Answers that one can act on: calibrated probabilities, sets of breeds, unfamiliar pictures, and the table of them."""

import csv
import dataclasses
import json
import shutil

import filelock
import numpy as np
import pytest
from PIL import Image

from keras_dogs import RunRecord
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.errors import UserError
from keras_dogs.evaluation import answers
from keras_dogs.evaluation.calibration import calibrate
from keras_dogs.evaluation.calibration import calibration_of
from keras_dogs.evaluation.inference import AnswerSettings
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.evaluation.trust import risk_by_share
from keras_dogs.evaluation.trust import sets_of


def drawn(count: int, seed: int, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of twenty classes, three times too sharp where labels follow them at `sharpness` 3."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, 20)) * 2
    chances = answers.probabilities_of(logits, None)
    labels = np.array([generator.choice(20, p=row) for row in chances])
    return (sharpness * logits).astype(np.float32), labels.astype(np.int32)


def predictions(count: int = 400, validation: int = 2000) -> Predictions:
    parts = []
    for number, seed in ((count, 1), (validation, 2)):
        logits, labels = drawn(number, seed)
        names = np.array([f"{seed}-{index}" for index in range(number)])
        parts.append(Predictions(names, labels, logits, np.array([f"breed{index}" for index in range(20)])))
    return parts[0]._replace(validation=parts[1])


def told(classes, **changes):
    """An answer to one picture of four classes."""
    calibration = dataclasses.replace(calibrate(predictions()), **changes)
    return AnswerSettings("abcd", calibration, 4, 0.9).answers_to(np.array([classes]))[0]


@pytest.mark.once
def test_probabilities_are_calibrated_and_the_effect_is_kept():
    found = calibrate(predictions())
    assert found.temperature == pytest.approx(3, rel=0.06)
    assert found.loss[1] < found.loss[0] and found.calibration_error[1] < 0.03 < found.calibration_error[0]
    logits, _ = drawn(5, 3)
    answer = AnswerSettings([str(index) for index in range(20)], found, 20).answers_to(logits)[0]
    ordered = [probability for _, probability in answer.breeds]
    assert sum(ordered) == pytest.approx(1) and ordered == sorted(ordered, reverse=True)
    expected = np.exp(logits[0] / found.temperature)
    assert ordered[0] == pytest.approx(float(expected.max() / expected.sum()))


@pytest.mark.once
@pytest.mark.parametrize("percent", [50, 80, 90, 95, 99])
def test_sets_hold_the_label_as_often_as_they_promise(percent):
    """Over many draws of validation and test, on average: at least so often, and not much more."""
    held = []
    for seed in range(30):
        one = predictions(1)
        logits, labels = drawn(300, 100 + seed)
        names = np.array([str(index) for index in range(300)])
        found = calibrate(one._replace(validation=Predictions(names, labels, logits, one.class_names)))
        threshold = answers.threshold_for(percent / 100, found.set_thresholds)
        logits, labels = drawn(300, 200 + seed)
        rows = answers.probabilities_of(logits, found.temperature)
        held += [label in answers.set_of(row, threshold) for row, label in zip(rows, labels)]
    assert percent / 100 - 0.01 < np.mean(held) < percent / 100 + 0.03


@pytest.mark.once
def test_a_set_has_the_most_probable_breed_whatever_its_probability():
    assert told([0.2, 0.1, 0.0, 0.0], set_thresholds=[0.9] * 50).breed_set == ("a",)
    assert told([1.0, 1.0, 0.0, 0.0], set_thresholds=[0.1] * 50).breed_set == ("a", "b", "c", "d")


@pytest.mark.once
def test_what_is_stranger_than_validation_is_unfamiliar():
    known, strange = told([30.0, 0, 0, 0]), told([0.1, 0, 0, 0])
    assert not known.is_unfamiliar and known.unfamiliarity < 0.5
    assert strange.is_unfamiliar and strange.unfamiliarity == 1
    assert strange.to_plain()["unfamiliar"] is True
    logits = predictions().validation.logits
    shares = answers.unfamiliarity_of(logits, calibrate(predictions()).strangeness_percentiles)
    assert np.mean(shares > answers.UNFAMILIAR) == pytest.approx(0.05, abs=0.002)


@pytest.mark.once
def test_too_few_validation_pictures_promise_nothing():
    few = calibrate(predictions(validation=99))
    assert few.temperature is None and "99 validation pictures are too few" in few.why_no_temperature
    assert not few.set_thresholds and not few.strangeness_percentiles
    with pytest.raises(UserError, match="coverage 0.9: .* 100 validation pictures are needed, and there are 99"):
        AnswerSettings("ab", few, 2, 0.9).check()
    some = calibrate(predictions(validation=100))
    quantized = dataclasses.replace(some, set_thresholds=[])
    with pytest.raises(UserError, match="coverage 0.9: a quantised export has no prediction sets"):
        AnswerSettings("ab", quantized, 2, 0.9).check()
    assert answers.threshold_for(0.99, some.set_thresholds) is not None  # 99 % of 101 is the 100th
    without = AnswerSettings("ab", calibrate(predictions()._replace(validation=None))).answers_to(
        np.array([[1.0, 0.0]])
    )
    assert without[0].unfamiliarity is None and "unfamiliar" not in without[0].to_plain()


@pytest.mark.once
def test_a_coverage_between_two_per_cents_gets_the_greater():
    thresholds = [1 - place / 100 for place in range(50)]
    assert answers.threshold_for(0.9, thresholds) == thresholds[40]
    assert answers.threshold_for(0.901, thresholds) == thresholds[41]
    assert answers.threshold_for(0.57, thresholds) == thresholds[7]  # 100 times 0.57 is 56.99...


@pytest.mark.once
def test_risk_falls_with_the_share_that_is_answered():
    found = predictions()
    share, risk = risk_by_share(found, 3.0)
    assert share[-1] == 1 and risk[-1] == pytest.approx(np.mean(found.logits.argmax(axis=1) != found.labels))
    assert risk[len(risk) // 4] < risk[-1]
    sets = sets_of(found, calibrate(found))
    assert 0.85 < sets.hold.mean() < 0.95 and 1 < sets.sizes.mean() < 20


def calibrated(run_folder, folder, **changes):
    """A copy of a run as if it had had pictures enough to calibrate."""
    shutil.copytree(run_folder, folder)
    record = json.loads((folder / "record.json").read_text())
    ascending = np.linspace(-30.0, -29.0, 101).tolist()
    record["calibration"] = {
        "num_pictures": 200,
        "temperature": 2.0,
        "set_thresholds": [0.2] * 50,
        "strangeness_percentiles": ascending,
        **changes,
    }
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_the_run_keeps_its_calibration(run_folder):
    record = RunRecord.load(run_folder / "record.json")
    assert record.calibration == calibration_of(run_folder) == calibration_of(run_folder / "model.keras")
    assert record.calibration.num_pictures == record.dataset.num_validation
    assert record.calibration.temperature is None and "too few" in record.calibration.why_no_temperature


@pytest.mark.once
def test_a_run_of_an_earlier_version_is_calibrated_by_its_predictions(run_folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    record = json.loads((copy / "record.json").read_text())
    del record["calibration"]
    (copy / "record.json").write_text(json.dumps(record))
    assert calibration_of(copy) == calibration_of(run_folder)


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"set_thresholds": [0.1, 0.2]}, "set_thresholds do not descend"),
        ({"set_thresholds": [2.0]}, "set_thresholds"),
        ({"strangeness_percentiles": [1.0] * 7}, "not 101 ascending"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"num_pictures": "many"}, "num_pictures"),
    ],
)
def test_a_damaged_calibration_is_said(command, run_folder, dogs, tmp_path, changes, text):
    copy = calibrated(run_folder, tmp_path / "run", **changes)
    status, out, err = command("predict", copy, dogs / "test")
    assert status == 2 and not out and text in err and "record.json" in err and err.count("\n") == 1


@pytest.mark.once
def test_predict_tells_all_of_it(command, run_folder, dogs, tmp_path):
    copy = calibrated(run_folder, tmp_path / "run")
    picture = next((dogs / "test").rglob("*.png"))
    _, plain, _ = command("predict", run_folder, picture, "--json", "--top-k", 3)
    status, out, _ = command("predict", copy, picture, "--json", "--top-k", 3, "--coverage", 0.9)
    assert status == 0
    before, after = json.loads(plain), json.loads(out)
    assert set(before) == {"file", "breeds"} and set(after) == {"file", "breeds", "set", "unfamiliarity", "unfamiliar"}
    assert after["unfamiliar"] and after["unfamiliarity"] == 1  # the logits of this run are nowhere near 30
    scaled = np.array(list(before["breeds"].values())) ** 0.5  # divided by 2
    assert list(after["breeds"].values()) == pytest.approx(list(scaled / scaled.sum()), abs=1e-6)
    assert after["set"] == [name for name, share in after["breeds"].items() if share >= 0.2]
    _, out, _ = command("predict", copy, picture, "--coverage", 0.9)
    assert "unfamiliar: stranger than 100 % of the validation pictures" in out and "90 % set: " in out


@pytest.mark.once
def test_what_cannot_be_promised_is_refused_before_the_model_is_loaded(command, run_folder, dogs):
    status, out, err = command("predict", run_folder, dogs / "test", "--coverage", 0.9)
    assert status == 2 and "--coverage 0.9: to promise that, 100 validation pictures are needed" in err
    for value in ("0.4", "1", "nan"):
        assert command("predict", run_folder, dogs / "test", "--coverage", value)[0] == 2


def rows_of(file) -> list[dict]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.once
def test_a_table_of_answers_and_how_it_goes_on(command, run_folder, dogs, tmp_path):
    copy, table = calibrated(run_folder, tmp_path / "run"), tmp_path / "answers.csv"
    folder = tmp_path / "pictures"
    shutil.copytree(dogs / "test", folder)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / 'a\nb, "c".png').write_bytes(next(folder.rglob("*_0000.png")).read_bytes())
    flags = ("--csv", table, "--top-k", 2, "--coverage", 0.8)
    status, out, err = command("predict", copy, folder, *flags)
    assert (
        status == 1 and not out and "10 of 11 pictures named" in err and "1 unreadable" in err and "unfamiliar" in err
    )
    rows, whole = rows_of(table), table.read_bytes()
    assert len(rows) == 11 and len({row["file"] for row in rows}) == 11
    broken = next(row for row in rows if row["error"])
    assert broken["file"] == str(folder / "broken.png") and not broken["breed_1"]
    answered = next(row for row in rows if not row["error"])
    assert float(answered["probability_1"]) >= float(answered["probability_2"])
    assert json.loads(answered["set_80"])[0] == answered["breed_1"]
    assert answered["unfamiliar"] == "true"

    assert "exists; give --resume" in command("predict", copy, folder, *flags)[2]
    table.write_bytes(whole[: len(whole) * 2 // 3])  # killed amid a row
    kept = [line for line in whole[: len(whole) * 2 // 3].split(b"\n")[1:-1] if b"broken.png" not in line]
    kept = len(kept)
    status, _, err = command("predict", copy, folder, *flags, "--resume")
    assert f"{kept} pictures have a row already" in err
    assert sorted(table.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert status == 1  # the one that cannot be read was tried again
    (folder / "broken.png").unlink()
    assert command("predict", copy, folder, *flags, "--resume")[0] == 0  # nothing is left to do
    assert len(rows_of(table)) == 10
    status, _, err = command("predict", run_folder, folder, "--csv", table, "--top-k", 2, "--coverage", 0.8, "--resume")
    assert status == 2 and "has answers of" in err
    whole = table.read_bytes()
    status, _, err = command("predict", copy, folder, "--csv", table, "--resume")
    assert (
        status == 2
        and "has other columns" in err
        and sorted(table.read_bytes().splitlines()) == sorted(whole.splitlines())
    )


@pytest.mark.once
def test_two_that_write_one_table_are_not_let_in(command, run_folder, dogs, tmp_path):
    arguments = ("predict", run_folder, dogs / "test", "--csv", tmp_path / "answers.csv", "--resume")
    with filelock.FileLock(tmp_path / ".answers.csv.lock"):
        status, _, err = command(*arguments)
    assert status == 2 and "another process writes there" in err and not (tmp_path / "answers.csv").exists()
    assert command(*arguments)[0] == 0 and [file.name for file in tmp_path.iterdir()] == ["answers.csv"]


@pytest.mark.once
@pytest.mark.parametrize("content", [b'{"mine": 1}', b"file,breed", b"a,b\n1,2\n", b"\x00\xff", b"\n", b"file\n"])
def test_what_is_no_table_stays_as_it_is(command, run_folder, dogs, tmp_path, content):
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    status, _, err = command("predict", run_folder, dogs / "test", "--csv", file, "--resume")
    if b"file,breed".startswith(content):  # as a header that was cut off is
        assert status == 0
    else:
        assert status == 2 and "mine.csv" in err and file.read_bytes() == content


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--resume"], "give --csv, too"),
        (["--csv", "nowhere/a.csv"], "cannot write nowhere/a.csv"),
        (["--csv", "."], "exists"),
        (["--csv", "a.csv", "--json"], "--json"),
        (["--csv", "a.csv", "--output", "b"], "--output"),
        (["--output", "nowhere/a.txt"], "cannot write nowhere/a.txt"),
        (["--output", "."], "exists"),
    ],
)
def test_where_answers_cannot_go(command, run_folder, dogs, tmp_path, monkeypatch, flags, text):
    monkeypatch.chdir(tmp_path)
    status, out, err = command("predict", run_folder, dogs / "test", *flags)
    assert status == 2 and text in err and not out and not list(tmp_path.iterdir())


@pytest.mark.once
def test_output_is_what_would_be_printed(command, run_folder, dogs, tmp_path):
    _, printed, _ = command("predict", run_folder, dogs / "test", "--json")
    status, out, _ = command("predict", run_folder, dogs / "test", "--json", "--output", tmp_path / "out.jsonl")
    assert status == 0 and not out and (tmp_path / "out.jsonl").read_text() == printed


@pytest.mark.once
def test_pictures_of_telephones(command, run_folder, tmp_path, monkeypatch):
    """HEIC is read by a plugin; without it, the picture and the folder say what to install."""
    heif = pytest.importorskip("pillow_heif")
    picture = tmp_path / "dog.heic"
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(picture)
    opened = open_picture(picture)
    assert opened.size == (64, 48) and opened.getpixel((30, 20))[0] > 150
    from keras_dogs.evaluation import inference

    monkeypatch.setattr(inference, "reads_heif", lambda: False)
    monkeypatch.setattr("keras_dogs.data.datasets.pictures.reads_heif", lambda: False)
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    _, out, err = command("predict", run_folder, tmp_path)
    assert "HEIC pictures that are left out: 1; to read .heic: pip install pillow-heif" in err and "dog.heic" not in out
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(UnreadablePicture, match="pip install pillow-heif"):
        open_picture(picture)
