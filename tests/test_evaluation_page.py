"""The page of an evaluation, from a real run."""

import dataclasses
import json
import re
import shlex
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import files_below
from made_runs import CLASSES
from made_runs import make_run
from PIL import Image

from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.loaders.canvases import load_canvases
from keras_dogs.errors import UserError
from keras_dogs.evaluation import evaluating
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import scoring
from keras_dogs.evaluation import unseen
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.exporting.pictures import collect
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import ownership

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def page(tmp_path_factory, run_folder):
    """Of the run's saved predictions, against another's, split by a list."""
    from keras_dogs.evaluation.config import EvaluateConfig
    from keras_dogs.evaluation.evaluating import evaluate_run

    folder = tmp_path_factory.mktemp("pages")
    other = folder / "probe"
    other.mkdir()
    found = Predictions.load(run_folder)
    found._replace(logits=np.roll(found.logits, 1, axis=1)).save(other / "predictions.npz")
    names = [str(name) for name in found.names[:4]]
    (folder / "list.txt").write_text("\n".join(name.split("/")[-1] for name in names))
    evaluate_run(
        EvaluateConfig(
            str(run_folder), saved=True, output=folder / "page", against=(other,), overlap_list=folder / "list.txt"
        )
    )
    return folder / "page"


def test_the_page_is_complete_on_its_own(page, run_folder):
    text, html = (page / "report.md").read_text(), (page / "report.html").read_text()
    record = json.loads((run_folder / "record.json").read_text())
    assert f"| top-1 accuracy | {100 * record['test']['top1_accuracy']:.1f} % |" in text
    for words in ("Calibration", "Confusions", "Classes", "probe", "amberwick", "list.txt", "the rest", "resnet_nano"):
        assert words in text and words in html
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert {"reliability.png", "confusion.png", "per_class.png"} <= set(shown)
    assert all((page / name).is_file() for name in shown)
    assert len(re.findall('src="data:image', html)) == len(shown) and 'src="r' not in html


def test_scores_are_those_of_the_predictions(page):
    found, scores = Predictions.load(page), json.loads((page / "scores.json").read_text())
    again = scoring.score_logits(found.logits, found.labels)
    assert all(scores[name] == value for name, value in vars(again).items())
    assert scores["intervals"]["top1_accuracy"] == list(
        intervals.share_interval(scoring.is_correct(found.logits, found.labels))
    )
    assert scores["temperature"] is None and "too few" in scores["why_no_temperature"]
    assert "No temperature was fitted: 3 validation pictures are too few" in (page / "report.md").read_text()


def test_saved_predictions_are_the_models(command, run_folder):
    """With the model and without, at another batch size: the same metrics."""
    results = []
    for flags in (["--saved"], [], ["--batch-size", "2"]):
        status, out, _ = command("evaluate", run_folder, "--json", *flags)
        assert status == 0
        results.append(json.loads(out.splitlines()[-1]))
    for one in results[1:]:
        assert one["top1_accuracy"] == results[0]["top1_accuracy"]
        assert one["loss"] == pytest.approx(results[0]["loss"], rel=1e-5)


def test_what_is_wrong_is_one_line_and_nothing_is_written(command, run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "list.txt").write_text("")
    (tmp_path / "run" / "predictions.npz").write_bytes(b"damaged")
    before = files_below(tmp_path)
    page = ("--output", tmp_path / "page")
    for arguments, words in (
        ((run_folder, "--against", run_folder), "--against: is for the page; give --output"),
        ((run_folder, "--output", tmp_path / "run"), "choose another --output"),
        ((tmp_path / "run", "--saved"), "damaged"),
        ((run_folder, "--against", tmp_path, *page), "no predictions.npz there"),
        ((run_folder, "--overlap-list", tmp_path / "list.txt", *page), "names no file"),
        ((run_folder, "--saved", "--split", "train"), "--saved"),
    ):
        status, _, err = command("evaluate", *arguments)
        assert status == 2 and words in err and "Traceback" not in err, err
    assert files_below(tmp_path) == before


def test_what_a_run_was_trained_on_is_not_its_test(command, dogs, tmp_path):
    """A flat folder that grew is divided anew: what trained or validated before is left out, and said."""
    flat = shutil.copytree(dogs / "train", tmp_path / "flat")
    status, _, err = command(
        "train", "--dataset", flat, "--output", tmp_path / "run", "--epochs", "1", "--batch-size", "4"
    )
    assert status == 0, err
    found = Predictions.load(tmp_path / "run")
    learned = {*found.trained_on, *found.validation.names}
    assert len(learned) + len(found.names) == 18 and not learned & set(found.names)
    status, out, _ = command("evaluate", tmp_path / "run", "--json")
    assert json.loads(out.splitlines()[-1])["num_pictures"] == len(found.names)
    for part in (dogs / "test").iterdir():
        for file in part.iterdir():
            shutil.copy(file, flat / part.name / f"new_{file.name}")
    status, out, err = command("evaluate", tmp_path / "run", "--json", "--output", tmp_path / "page")
    scored = set(Predictions.load(tmp_path / "page").names)
    assert scored and not scored & learned and any("new_" in name for name in scored)
    said = " ".join(err.split())
    assert "that" in said and "was trained on or chosen by; they are left out" in said
    assert "they are left out" in (tmp_path / "page" / "report.md").read_text()
    record, checked = RunRecord.load(tmp_path / "run" / "record.json"), tmp_path / "checked"
    checked.mkdir()
    pictures = collect(ExportConfig(str(tmp_path / "run"), format="torch"), record, checked)
    assert {Path(file).relative_to(flat).as_posix() for file in pictures.files} == scored, "an export, too"
    page = ("--dataset", flat, "--output", tmp_path / "last")
    assert command("evaluate", tmp_path / "run" / "checkpoints" / "last.keras", *page)[0] == 0
    assert Predictions.load(tmp_path / "last").validation is None, "those are of the best epoch"
    for model in ("model.keras", "checkpoints/last.keras"):
        status, _, err = command("evaluate", tmp_path / "run" / model, "--dataset", flat)
        assert status == 0 and "they are left out" in " ".join(err.split())
    for alone in (tmp_path / "alone.keras", tmp_path / "run" / "other.keras"):
        shutil.copy(tmp_path / "run" / "model.keras", alone)
        status, _, err = command("evaluate", alone, "--dataset", flat)
        assert status == 0 and "any that are among these could not be left out" in " ".join(err.split())
    for file in flat.rglob("new_*"):
        file.unlink()
    shutil.rmtree(tmp_path / "page")
    for name in found.names:
        (flat / name).unlink()
    status, _, err = command("evaluate", tmp_path / "run")
    assert status == 2 and "nothing is left to score it on" in err


def test_an_export_is_not_scored_on_what_its_run_has_learned(command, dogs, run_folder, tmp_path):
    """It keeps no predictions: those of the run that it lies in are asked, if it is an export of that run."""
    record = json.loads((run_folder / "record.json").read_text())
    exported = types.SimpleNamespace(facts={"model_digest": record["digests"]["model.keras"]})
    folder = run_folder / "exports" / "onnx"
    assert unseen.run_behind(str(folder), exported) is None, "there is no such folder"
    folder.mkdir(parents=True)
    try:
        assert unseen.run_behind(str(folder), exported) == run_folder.resolve()
        exported.facts["model_digest"] = "of another model"
        assert unseen.run_behind(str(folder), exported) is None
    finally:
        shutil.rmtree(folder.parent)
    dataset = load_dataset(str(dogs))
    (canvases,) = load_canvases(dataset, ["test"], 32)
    kept, note = unseen.leave_out_seen(canvases, dataset, "test", "run", run_folder)
    assert len(kept) == len(canvases) and not note
    learned = dataclasses.replace(canvases, names=Predictions.load(run_folder).trained_on[: len(canvases)].tolist())
    with pytest.raises(UserError, match="nothing is left to score it on"):
        unseen.leave_out_seen(learned, dataset, "test", "run", run_folder)


@pytest.mark.parametrize(
    ("split", "words"), [("train", "was trained on these"), ("validation", "were chosen on these")]
)
def test_a_page_of_pictures_that_the_run_knows_says_so(command, run_folder, tmp_path, split, words):
    status, _, err = command("evaluate", run_folder, "--split", split, "--output", tmp_path / "page")
    assert status == 0 and words in " ".join(err.split()), err
    text = (tmp_path / "page" / "report.md").read_text()
    note = text.partition("**Note:** ")[2].partition("## Scores")[0]
    assert words in note and str(run_folder) in note
    assert ("no validation predictions are known besides the answers scored here" in text) == (split == "validation")


def test_a_page_of_an_earlier_page(command, run_folder, tmp_path):
    """It holds predictions, and no record."""
    assert command("evaluate", run_folder, "--saved", "--output", tmp_path / "page")[0] == 0
    status, _, err = command("evaluate", tmp_path / "page", "--saved", "--output", tmp_path / "again")
    assert status == 0 and (tmp_path / "again" / "report.md").is_file(), err


def test_a_page_names_the_dataset_that_was_scored(command, dogs, run_folder, tmp_path):
    other = shutil.copytree(dogs, tmp_path / "other_dogs")
    arguments = ("--dataset", other, "--output", tmp_path / "page")
    assert command("evaluate", run_folder, *arguments)[0] == 0
    assert "test of other_dogs" in (tmp_path / "page" / "report.md").read_text()


def test_runs_on_other_pictures_are_refused_before_anything_is_scored(command, run_folder, tmp_path, monkeypatch):
    other = make_run(tmp_path / "made")
    monkeypatch.setattr(evaluating, "evaluate_classifier", lambda *given: pytest.fail("it was scored"))
    status, _, err = command("evaluate", run_folder, "--against", other, "--output", tmp_path / "page")
    assert status == 2 and "was scored on other pictures than these" in err


def test_nothing_is_scored_where_the_page_cannot_be_written_or_compared(command, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "evaluate_classifier", lambda *given: pytest.fail("it was scored"))
    with ownership.new_folder(tmp_path / "page", ownership.EVALUATE):
        status, _, err = command("evaluate", run_folder, "--output", tmp_path / "page")
        assert status == 2 and "another process writes there" in err
    found = Predictions.load(run_folder)
    fewer = found._replace(names=found.names[1:], labels=found.labels[1:], logits=found.logits[1:], checksums=None)
    (tmp_path / "fewer").mkdir()
    fewer.save(tmp_path / "fewer" / "predictions.npz")
    status, _, err = command("evaluate", run_folder, "--against", tmp_path / "fewer", "--output", tmp_path / "other")
    assert status == 2 and "with the same --exclude" in err and not (tmp_path / "other").exists()


def test_a_path_with_a_colon_is_no_address(command, tmp_path):
    status, _, err = command("evaluate", tmp_path / "10:15")
    assert status == 2 and "no such run" in err and "--dataset" not in err


def test_two_runs_of_one_name_are_both_in_the_table(command, run_folder, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere" / run_folder.name
    other.mkdir(parents=True)
    shutil.copy(run_folder / "predictions.npz", other)
    monkeypatch.chdir(other.parent)
    arguments = ("--saved", "--against", run_folder.name, "--output", tmp_path / "page")
    assert command("evaluate", run_folder, *arguments)[0] == 0
    text = (tmp_path / "page" / "report.md").read_text()
    assert f"\n| {run_folder.name} |" in text and f"\n| {other} |" in text


def test_a_picture_that_was_damaged_since_is_named_on_the_page(command, tmp_path):
    names = [f"test/{CLASSES[number % 4]}/{number}.png" for number in range(40)]
    for name in [*names, *(name.replace("test", "train") for name in names)]:
        file = tmp_path / "dogs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(file)
    run = make_run(tmp_path / "run", num_pictures=40, names=names)  # which takes some for others
    record = json.loads((run / "record.json").read_text())
    record["config"]["data"]["dataset"] = str(tmp_path / "dogs")
    (run / "record.json").write_text(json.dumps(record))
    status, _, err = command("evaluate", run, "--saved", "--output", tmp_path / "whole")
    assert status == 0 and list((tmp_path / "whole" / "pictures").glob("*")), err
    for name in names:
        (tmp_path / "dogs" / name).write_bytes(b"damaged")
    status, _, err = command("evaluate", run, "--saved", "--output", tmp_path / "page")
    assert status == 0 and not list((tmp_path / "page" / "pictures").glob("*")), err


def test_the_command_on_the_page_makes_it_again(command, dogs, run_folder, tmp_path):
    broken = shutil.copytree(dogs, tmp_path / "dogs")
    next((broken / "test").rglob("*.png")).write_bytes(b"damaged")
    flags = ("--dataset", broken, "--skip-unreadable", "--output", tmp_path / "page")
    status, _, err = command("evaluate", run_folder, *flags)
    assert status == 0, err
    text = (tmp_path / "page" / "report.md").read_text()
    (words,) = re.findall(r"`python -m keras_dogs.evaluate (.*)`", text)
    words = shlex.split(words.replace("/page", "/again"))
    assert "--skip-unreadable" in words and "--max-unreadable" not in words
    assert command("evaluate", *words)[0] == 0 and (tmp_path / "again" / "report.md").is_file()
