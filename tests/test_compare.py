"""`compare`: its plan, its children, its statistics and its page."""

import copy
import dataclasses
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import scipy.stats
from conftest import BACKEND
from made_runs import make_run

from keras_dogs.comparison import conclusions
from keras_dogs.comparison import loaded
from keras_dogs.comparison import page
from keras_dogs.comparison import plan
from keras_dogs.comparison import results
from keras_dogs.comparison import running
from keras_dogs.comparison import sections
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.data.datasets import load_dataset
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs.records import RunRecord
from keras_dogs.runs.records import Scores
from keras_dogs.runs.records import Throughput
from keras_dogs.runs.records import Timings
from keras_dogs.system import pages

pytestmark = pytest.mark.once

MODELS = {"resnet_nano": 2.5, "vit_nano": 1.2}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Of two models, three backends and two seeds, made by hand."""
    folder = tmp_path_factory.mktemp("comparison")
    made = [
        make_run(folder / "made" / f"{preset}-{backend}-{seed}", preset, backend, seed, skill)
        for (preset, skill), backend, seed in itertools.product(MODELS.items(), plan.BACKENDS, (0, 1))
    ]
    config = CompareConfig(from_=tuple(made), output=folder / "out")
    return running.compare_runs(config), folder / "out"


def correct(run: dict) -> np.ndarray:
    found = Predictions.load(Path(run["folder"]))
    return found.logits.argmax(axis=1) == found.labels


def of(rows: list[dict], **wanted) -> dict:
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_figures_are_recomputed_from_the_predictions(comparison):
    found, _ = comparison
    assert len(found["runs"]) == 12
    for run in found["runs"]:
        assert run["test"]["top1_accuracy"] == correct(run).mean()
    for row in found["groups"]:
        runs = [run for run in found["runs"] if (run["model"], run["backend"]) == (row["model"], row["backend"])]
        accuracies = [correct(run).mean() for run in runs]
        assert row["top1"]["mean"] == pytest.approx(np.mean(accuracies))
        assert row["top1"]["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
        assert row["train_s"]["mean"] == pytest.approx(np.mean([run["timings"]["train_s"] for run in runs]))
        shares = np.mean([correct(run) for run in runs], axis=0)
        interval = scipy.stats.bootstrap((shares,), np.mean, method="percentile", rng=1).confidence_interval
        np.testing.assert_allclose(row["top1_interval"], interval, atol=0.015)
    for row in found["models"]:
        runs = [run for run in found["runs"] if run["model"] == row["model"]]
        assert np.trace(row["confusion"]) == sum(correct(run).sum() for run in runs)


def test_statistics_are_scipys(comparison):
    found, _ = comparison
    assert len(found["pairs"]) == 6
    for row in found["pairs"]:
        same = dict(backend=row["backend"], seed=row["seed"])
        first, second = (correct(of(found["runs"], model=row[name], **same)) for name in ("first", "second"))
        only = (int((first & ~second).sum()), int((second & ~first).sum()))
        assert (row["only_first"], row["only_second"]) == only
        assert row["p_value"] == pytest.approx(scipy.stats.binomtest(only[0], sum(only)).pvalue)
        difference = first.astype(float) - second
        interval = scipy.stats.bootstrap((difference,), np.mean, method="percentile", rng=1).confidence_interval
        np.testing.assert_allclose(row["interval"], interval, atol=0.015)
        assert row["significant"] == (row["p_value"] < 0.05 and not row["interval"][0] <= 0 <= row["interval"][1])
    (row,) = found["between_models"]
    differences = [of(found["pairs"], backend=b, seed=s)["difference"] for b in plan.BACKENDS for s in (0, 1)]
    assert row["difference"] == pytest.approx(np.mean(differences)) and row["num_pairs"] == 6
    assert sorted(row["each"]) == pytest.approx(sorted(differences))
    assert row["in_words"].startswith("resnet_nano is better than vit_nano on these 200 pictures (+")


def test_backends_are_held_together(comparison):
    found, _ = comparison
    assert len(found["same_seed_on_two_backends"]) == 12 and len(found["between_backends"]) == 6
    for row in found["same_seed_on_two_backends"]:
        runs = [of(found["runs"], model=row["model"], seed=row["seed"], backend=name) for name in row["backends"]]
        curves = [np.array(found["curves"][run["name"]]) for run in runs]
        assert row["largest_loss_difference"] == pytest.approx(np.abs(curves[0] - curves[1]).max(), abs=1e-5)
        logits = [Predictions.load(Path(run["folder"])).logits.argmax(axis=1) for run in runs]
        assert row["same_answers"] == np.mean(logits[0] == logits[1])


def test_what_the_page_says_of_answers_alike_is_of_the_worst_seed(comparison):
    found, _ = comparison
    least = min(row["same_answers"] for row in found["same_seed_on_two_backends"])
    assert least < min(row["same_answers"] for row in found["between_backends"]), "means over seeds"
    assert f"at least {math.floor(1000 * least) / 10:.1f} % of the pictures" in " ".join(conclusions.in_short(found))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (dict(pair="embedded"), ["5 epochs"]),
        (dict(pair="embedded", epochs=20), []),
        (dict(pair="embedded", budget="time"), []),
        (dict(pair="customary"), ["Stanford Dogs"]),
        (dict(pair="customary", dataset="mine"), []),
    ],
)
def test_fairness_is_of_what_was_asked_for(config, says):
    fairness = results.collect(CompareConfig(**config), [], {})["fairness"]
    assert fairness and [words for words in ("5 epochs", "Stanford Dogs") if words in fairness] == says


def test_every_version_is_on_the_page(comparison):
    found, _ = comparison
    rows = copy.deepcopy(found["runs"][:2])
    rows[1]["versions"]["keras"] = "9.9"
    rows[0]["dataset"]["num_unreadable"] = 3
    said = sections.protocol(rows)
    assert f"keras {rows[0]['versions']['keras']} and 9.9" in said
    assert "every picture of it that can be read (3 of the dataset cannot)" in said


def test_time_to_accuracy_counts_from_the_command(comparison):
    found, _ = comparison
    for run in found["runs"]:
        final = run["test"]["top1_accuracy"]
        for threshold, seconds in run["seconds_to"].items():
            reached = [end for end, share in zip(run["epoch_end_s"], (final / 2, final)) if share >= float(threshold)]
            assert seconds == (reached[0] if reached else None)


def test_a_run_that_kept_the_ends_of_its_last_epochs_alone(tmp_path):
    """As one that an earlier version began, and a later one resumed."""
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two", "vit_nano", epoch_end_s=[58.5])]
    found = running.compare_runs(CompareConfig(from_=tuple(runs), output=tmp_path / "out"))
    whole, late = found["runs"]
    assert len(whole["validation_curve"]) == len(late["validation_curve"]) == 2
    assert {seconds for seconds in late["seconds_to"].values() if seconds} <= {58.5}
    assert (tmp_path / "out" / "figures" / "time_to_accuracy.svg").is_file()


def numbers_in(value) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers_in(part)]
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in numbers_in(part)]
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_each_number_of_the_tables_is_in_results_json(comparison):
    """As a fraction, in per cent, in millions, or rounded as it is shown."""
    found, folder = comparison
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(found))
    known = np.array(numbers_in(json.loads((folder / "results.json").read_text())))
    known = np.concatenate([known, 100 * known, known / 1e6, [100 * each for each in results.THRESHOLDS]])
    text = (folder / "report.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("|") and "![" not in line and "`" not in line]
    checked = 0
    for cell in (cell for line in tables for cell in line.split("|")):
        for shown in re.findall(r"(?<![\w.-])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w.])", cell.replace(",", "")):
            digits = len(shown.partition("e")[0].partition(".")[2])
            unit = 10.0**-digits * (float(f"1e{shown.partition('e')[2]}") if "e" in shown else 1)
            assert np.abs(known - float(shown)).min() <= 0.51 * unit, (shown, cell)
            checked += 1
    assert checked > 150


def test_the_report_says_what_it_must(comparison):
    _, folder = comparison
    text = (folder / "report.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "In short",
        "Accuracy on the test split",
        "The same training on each backend",
        "Cost",
        "Time to accuracy",
        "Breed by breed",
        "Pictures that only one gets right",
        "Calibration",
        "What the weights had seen before",
        "Protocol",
        "Every run",
    ]
    assert "JAX and TensorFlow" in text and "McNemar" in text and "Energy was not measured" in text
    for file in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (folder / file).is_file(), file
    for name in ("accuracy", "curves", "cost", "time_to_accuracy", "classes", "speed", "calibration", "confusion"):
        assert (folder / "figures" / f"{name}.svg").is_file() and (folder / "figures" / f"{name}-dark.svg").is_file()


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_in_a_browser(comparison, tmp_path, width):
    """Every figure is there, nothing is asked of another host, nothing is said to the console, nothing is cut off."""
    _, folder = comparison
    html = (folder / "report.html").read_text()
    assert not re.findall(r'(?:src|srcset|href)="(?!data:|#)', html) and "<script" not in html
    probe = (
        "<script>addEventListener('load', () => { const images = [...document.images]; document.title = JSON.stringify("
        "[images.length, images.filter(each => each.naturalWidth > 0).length, document.documentElement.scrollWidth, "
        "innerWidth, Math.min(...images.map(each => each.getBoundingClientRect().width))]) })</script>"
    )
    page = tmp_path / "page.html"
    page.write_text(html.replace("</body>", f"{probe}</body>"))
    # A window cannot be narrower than 500 pixels; a frame can.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe src='page.html' width={width} height=800 style='border:0'></iframe><script>addEventListener('load', "
        "() => setTimeout(() => document.title = frames[0].document.title, 500))</script>"
    )
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    command += ["--window-size=1500,1000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    images, loaded, scroll, inner, narrowest = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert images == loaded >= 8 and inner == width and scroll <= inner
    assert narrowest > 300


def test_what_cannot_be_compared_is_said(comparison, tmp_path, capsys):
    """Other test pictures, a damaged record, a folder that is no run: named, and the rest is reported."""
    made = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    other = make_run(tmp_path / "other", names=[f"else/{number}.jpg" for number in range(200)])
    (shutil.copytree(made[0], tmp_path / "damaged") / "record.json").write_text("{}")
    config = CompareConfig(from_=(*made, other, tmp_path / "damaged", tmp_path / "none"), output=tmp_path / "out")
    found = running.compare_runs(config)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "was scored on other test pictures and is left out" in text and str(other) in text
    errors = {run["name"]: run["error"] for run in found["runs"] if "error" in run}
    assert "the field command is missing" in errors["damaged"] and "is this a run folder?" in errors["none"]
    assert all(error in text for error in errors.values())


def test_models_that_cannot_be_told_apart(tmp_path):
    made = [make_run(tmp_path / name, name, seed=3, skill=1.0) for name in ("resnet_nano", "vit_nano")]
    (sentence,) = results.collect(CompareConfig(from_=tuple(made)), [], {})["verdicts"]
    assert "cannot be told apart on these 200 pictures" in sentence
    assert sentence.startswith("The runs of") and "One seed" in sentence


def test_of_many_models_each_stands_beside_the_next_best(tmp_path):
    """What else is significant is counted, so that a page of many models stays short; what ties is told."""
    skills = {"resnet_a": 0.0, "resnet_bb": 4.0, "resnet_ccc": 1.5, "resnet_dddd": 4.1}
    made = [make_run(tmp_path / name, name, skill=skill) for name, skill in skills.items()]
    found = results.collect(CompareConfig(from_=tuple(made)), [], {})
    (headline,) = conclusions.headlines(found)
    best = sorted(found["models"], key=lambda row: -row["top1"]["mean"])
    assert [headline.index(row["model"]) for row in best] == sorted(headline.index(name) for name in skills)
    told = conclusions.in_short(found)
    assert len(told) == 5, told
    assert "resnet_bb and resnet_dddd cannot be told apart" in " ".join(told)
    assert any("that of resnet_ccc on" in each for each in told) and any("resnet_a on" in each for each in told)
    assert told[-1] == "All other pairs (3) differ significantly; the table below has them."


def test_backends_that_disagree_are_no_verdict(tmp_path):
    """One seed: the one model is better on one backend, the other on the other."""
    made = []
    for backend, skills in {"jax": (2.5, 0.5), "torch": (0.5, 2.5)}.items():
        for name, skill in zip(MODELS, skills):
            made.append(make_run(tmp_path / f"{name}-{backend}", name, backend, 0, skill))
    found = results.collect(CompareConfig(from_=tuple(made)), [], {})
    (row,) = found["between_models"]
    assert row["num_significant"] == 2 and not row["significant"] and row["interval"][0] < 0 < row["interval"][1]
    assert "cannot be told apart" in row["in_words"]


def test_one_seed_speaks_of_its_runs_alone(tmp_path):
    made = [make_run(tmp_path / name, name, skill=skill) for name, skill in MODELS.items()]
    for order in (made, made[::-1]):
        (sentence,) = results.collect(CompareConfig(from_=tuple(order)), [], {})["verdicts"]
        assert sentence.startswith("The run of resnet_nano is better than that of vit_nano") and "One seed" in sentence
        gains = re.findall(r"[-+]\d+\.\d", sentence)
        assert len(gains) == 3 and all(gain.startswith("+") for gain in gains), "of the better one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --pair, --presets or --from"),
        (["--pair", "embedded", "--presets", "vit_nano"], "--pair and --presets: give one of them"),
        (["--presets", "vit_nano", "vit_nano"], "--presets vit_nano vit_nano: lists a value twice"),
        (["--presets", "vit_nano", "--gpus", "0", "0"], "--gpus 0 0: lists a value twice"),
        (["--pair", "embedded", "--seeds", "-1"], "--seeds -1: must be between"),
        (["--pair", "embedded", "--jobs", "0"], "--jobs 0: must be between"),
        (["--pair", "embedded", "--gpus", "0", "--jobs", "2"], "--jobs 2: more than the 1 of --gpus"),
        (
            ["--pair", "embedded", "--train-flags=--recipe 'adamw"],
            "--train-flags --recipe 'adamw: No closing quotation",
        ),
        (["--pair", "embedded", "--train-flags=--batch-size 0"], "--batch-size 0: must be between"),
        (["--pair", "embedded", "--train-flags=--data_dir x"], "--data_dir: compare gives"),
        (["--pair", "embedded", "--budget", "flops", "--train-flags=--linear-probe"], "--budget flops: a linear probe"),
        (
            ["--pair", "embedded", "--budget", "flops", "--train-flags=--recipe probe_then_finetune"],
            "--budget flops: the probe that comes first",
        ),
        (["--presets", "here/weights.npz", "--budget", "flops"], "--budget flops: the operations of here/weights.npz"),
    ],
)
def test_flags_that_make_no_sense(command, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = command("compare", *arguments)
    assert status == 2 and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_seeds_that_would_test_other_pictures(command, dogs, tmp_path):
    """Known before anything is trained."""
    flat = shutil.copytree(dogs / "train", tmp_path / "flat")
    status, _, err = command(
        "compare", "--pair", "embedded", "--dataset", flat, "--seeds", "0", "1", "--output", tmp_path / "out"
    )
    assert status == 2 and "has no test split of its own" in err and not (tmp_path / "out").exists()


def test_flags_that_train_does_not_know(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = command("compare", "--pair", "embedded", "--train-flags=--recipee adamw")
    assert status == 2 and "recipee" in err and not list(tmp_path.iterdir())


def test_one_comparison_at_a_time(tmp_path, command):
    with filelock.FileLock(tmp_path / ".lock"):
        status, _, err = command("compare", "--from", tmp_path / "none", "--output", tmp_path)
    assert status == 2 and "another comparison runs there" in err


def test_what_is_alike_is_told_apart(tmp_path):
    """Presets of one short name, recipes of one preset, and the same run twice."""
    config = RunRecord.load(make_run(tmp_path / "a", "one/vit.npz") / "record.json").config
    made = [
        tmp_path / "a",
        make_run(tmp_path / "b", "two/vit.npz"),
        make_run(tmp_path / "c", "resnet_nano"),
        make_run(tmp_path / "d", "resnet_nano", config={**config, "recipe": "linear_probe"}),
        make_run(tmp_path / "e", "one/vit.npz"),
        make_run(tmp_path / "f", "resnet_a"),
        make_run(tmp_path / "g", "resnet_a", config={**config, "head": "imagenet"}),
        make_run(tmp_path / "h", "resnet_b"),
        make_run(tmp_path / "i", "resnet_b", config={**config, "learning_rate": 2e-5}),
        make_run(tmp_path / "j", "resnet_b", config={**config, "learning_rate": 2e-5, "batch_size": 8}),
        make_run(tmp_path / "k", "resnet_c"),
        make_run(tmp_path / "l", "resnet_c", config={**config, "epochs": 20, "image_size": 384}),
        make_run(tmp_path / "m", "resnet_c", backend="torch", config={**config, "dtype_policy": "mixed_bfloat16"}),
        make_run(
            tmp_path / "n", "resnet_c", seed=1, config={**config, "ema": 0.9, "data": {**config["data"], "fit": "pad"}}
        ),
    ]
    found = running.compare_runs(CompareConfig(from_=tuple(made), output=tmp_path / "out"))
    assert [row["model"] for row in found["models"]] == [
        "one/vit.npz",
        "two/vit.npz",
        "resnet_nano, adamw",
        "resnet_nano, linear_probe",
        "resnet_a, head of zeros",
        "resnet_a, ImageNet head",
        "resnet_b, batch 32, rate 0.001",
        "resnet_b, batch 32, rate 2e-05",
        "resnet_b, batch 8",
        "resnet_c, 2 epochs, ema 0, dtype policy float32",
        "resnet_c, 20 epochs",
        "resnet_c, 2 epochs, ema 0, dtype policy mixed_bfloat16",
        "resnet_c, 2 epochs, ema 0.9",
    ]
    assert not found["between_backends"] and all(row["num_runs"] == 1 for row in found["models"])
    assert any("is there twice" in note and str(tmp_path / "e") in note for note in found["notes"])


def test_steps_of_features_have_no_rate_of_pictures(tmp_path):
    """A linear probe is held to what its pictures cost, which is the computing of features."""
    timings = Timings(2.25, 0.5, 1.75, 0.25, 4.5, 70.25, features_s=61.5)
    made = [
        make_run(tmp_path / backend, backend=backend, timings=timings, throughput=Throughput(71818.4, 0.25, 31.5))
        for backend in ("jax", "torch")
    ]
    found = running.compare_runs(CompareConfig(from_=tuple(made), output=tmp_path / "out"))
    for row in found["groups"]:
        assert row["train_images_per_second"] is row["step_time_ms"] is None
        assert (row["train_s"]["mean"], row["predict_images_per_second"]["mean"]) == (66.0, 31.5)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "71818" not in text and "71,818" not in text and "steps are of features" in text
    for figure in ("cost", "speed"):
        drawn = (tmp_path / "out" / "figures" / f"{figure}.svg").read_text()
        assert "train, images/s" not in drawn and "training, images/s" not in drawn
        assert ("predict, images/s" in drawn) == (figure == "speed")


def test_a_probe_that_came_first_is_an_epoch_and_is_paid_for(tmp_path):
    timings = Timings(2.25, 0.5, 1.75, 0.25, 60.5, 90.25, probe_s=10.0)
    probe = Scores(20, 0.95, 1.0, 0.95, expected_calibration_error=0.1, loss=0.01)
    runs = [
        make_run(tmp_path / "one", timings=timings, probe=probe, probe_end_s=14.5),
        make_run(tmp_path / "two", "vit_nano", probe=probe),  # as an earlier version recorded it
        make_run(tmp_path / "three", "resnet_18", timings=timings, validation=None, probe_end_s=14.5),
    ]
    found = running.compare_runs(CompareConfig(from_=tuple(runs), output=tmp_path / "out"))
    first, second, third = found["runs"]
    assert set(first["seconds_to"].values()) == {14.5} and len(first["accuracy_over_time"]) == 3
    assert len(second["accuracy_over_time"]) == 2 and third["accuracy_over_time"] == []
    assert [row["train_s"]["mean"] for row in found["groups"]] == [70.5, 60.5, 70.5]
    assert any("came first, which counts as epoch 0" in note for note in found["notes"])
    assert (tmp_path / "out" / "figures" / "time_to_accuracy.svg").is_file()


def test_names_are_no_html(tmp_path):
    text = pages.to_html(pages.table(["a|b"], [["<img src=x onerror=alert(1)>"]]), tmp_path, "")
    assert "<img" not in text and "&lt;img" in text and "a&#124;b" in text


def test_a_folder_of_something_else_is_left_alone(command, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    status, _, err = command("compare", "--pair", "embedded", "--output", tmp_path)
    assert status == 2 and "exists and holds what keras_dogs.compare did not make" in err
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_the_plan(tmp_path):
    config = CompareConfig(pair="embedded", backends=("jax", "torch"), seeds=(0, 7), output=tmp_path)
    planned = plan.plan_runs(config)
    assert [(run.preset, run.backend, run.seed) for run in planned[:4]] == [
        ("resnet_nano", "jax", 0),
        ("resnet_nano", "torch", 0),
        ("vit_nano", "jax", 0),
        ("vit_nano", "torch", 0),
    ]
    assert len({run.folder for run in planned}) == 8
    again = plan.plan_runs(CompareConfig(pair="embedded", backends=("torch",), seeds=(7,), output=tmp_path))
    assert {run.folder for run in again} <= {run.folder for run in planned}
    longer = plan.plan_runs(CompareConfig(pair="embedded", backends=("torch",), epochs=9, output=tmp_path))
    assert not {run.folder for run in longer} & {run.folder for run in planned}
    assert longer[0].flags[-4:] == ("--epochs", "9", "--seed", "0")


def test_budgets(tmp_path, monkeypatch):
    flops = CompareConfig(pair="embedded", backends=("jax",), budget="flops", epochs=10, output=tmp_path)
    from keras_dogs.models.costs import count_gflops
    from keras_dogs.models.presets import PRESETS

    ratio = count_gflops(PRESETS["resnet_nano"]) / count_gflops(PRESETS["vit_nano"], whole=False)
    assert plan.epochs_of_equal_flops(flops) == {("resnet_nano", "jax"): 10, ("vit_nano", "jax"): round(10 * ratio)}
    by_time = CompareConfig(pair="embedded", backends=("jax",), budget="time", epochs=10, output=tmp_path)
    monkeypatch.setattr(running.Children, "run", lambda self, planned: {})
    for of_each, expected in ((((0.0, 3.0), (0.0, 1.0)), 30), (((12.0, 3.0), (2.0, 1.0)), 40)):
        seconds = iter(of_each).__next__  # of the probe, and of an epoch
        monkeypatch.setattr(running, "_seconds_of_probe_and_epoch", lambda run, seconds=seconds: seconds())
        assert running._epochs(by_time) == {("resnet_nano", "jax"): 10, ("vit_nano", "jax"): expected}


class Scripted(plan.PlannedRun):
    """A run that is a script of the test's instead of a training."""

    script = "import sys; print('keras_dogs.train: error: what is wrong', file=sys.stderr); sys.exit(2)"

    @property
    def arguments(self):
        return ["-c", self.script, str(self.folder)]


class Killed(Scripted):
    script = "import os; os.kill(os.getpid(), 9)"


class Waiting(Scripted):
    script = (
        "import signal, sys, pathlib, time\n"
        "def stop(*_): pathlib.Path(sys.argv[1]).write_text('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path(sys.argv[1] + '.ready').touch()\n"
        "time.sleep(60)"
    )


def scripted(kind, folder, backend=BACKEND):
    return kind("resnet_nano", backend, 0, (), folder)


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "is_installed", lambda backend: backend != "nothing")
    runs = [scripted(Scripted, tmp_path / "one"), scripted(Killed, tmp_path / "two")]
    runs.append(scripted(Scripted, tmp_path / "three", "nothing"))
    finished = make_run(tmp_path / "four")
    errors = running.Children(CompareConfig(pair="embedded", output=tmp_path, jobs=2)).run(
        [*runs, scripted(Scripted, finished)]
    )
    assert errors[tmp_path / "one"] == "what is wrong"
    assert "killed by signal 9 (SIGKILL)" in errors[tmp_path / "two"]
    assert errors[tmp_path / "three"].startswith("nothing is not installed: pip install")
    assert finished not in errors  # and was not run again


def test_children_are_told_to_save_when_it_is_stopped(tmp_path, monkeypatch):
    run = scripted(Waiting, tmp_path / "run")
    look = running.Children._look

    def interrupt(self):
        look(self)
        if (tmp_path / "run.ready").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(running.Children, "_look", interrupt)
    with pytest.raises(Interrupted, match="what is finished is kept, and the same command goes on"):
        running.Children(CompareConfig(pair="embedded", output=tmp_path)).run([run])
    assert (tmp_path / "run").read_text() == "saved"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux' own")
def test_children_end_when_it_is_killed(tmp_path, child):
    code = (
        "import os, sys, pathlib\n"
        "sys.path.insert(0, 'tests')\n"
        "import test_compare as t\n"
        "from keras_dogs.comparison import running\n"
        "look = running.Children._look\n"
        "def kill(self):\n"
        "    look(self)\n"
        "    if (folder / 'run.ready').exists(): os.kill(os.getpid(), 9)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "running.Children._look = kill\n"
        "run = t.scripted(t.Waiting, folder / 'run')\n"
        "running.Children(t.CompareConfig(pair='embedded', output=folder)).run([run])"
    )
    assert child(["-c", code, tmp_path]).returncode == -9
    deadline = time.monotonic() + 20
    saved = tmp_path / "run"
    while not (saved.exists() and saved.stat().st_size) and time.monotonic() < deadline:  # it is made, then filled
        time.sleep(0.1)
    assert saved.read_text() == "saved"


def test_without_a_run_that_can_be_read_there_is_no_report(command, tmp_path):
    status, _, err = command("compare", "--from", tmp_path / "none", "--output", tmp_path / "out")
    assert (
        status == 2 and f"error: --from {tmp_path / 'none'}: " in err and not (tmp_path / "out" / "report.md").exists()
    )


def test_a_run_that_cannot_be_read_is_named_and_the_status_says_so(command, tmp_path):
    made = make_run(tmp_path / "made")
    status, out, err = command("compare", "--from", made, tmp_path / "none", "--output", tmp_path / "out")
    assert status == 1 and "keras_dogs.compare: error: none: " in err and "report: " in out
    assert "1 of 2 runs are finished" in (tmp_path / "out" / "report.md").read_text()


def test_it_loads_no_keras(child):
    code = (
        "import sys, keras_dogs.comparison.running, keras_dogs.comparison.page\n"
        "assert not {'keras', 'jax', 'torch', 'tensorflow'} & set(sys.modules)"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


def test_pictures_are_shown_where_they_are_at_hand(dogs, tmp_path):
    names = list(load_dataset(str(dogs)).test.names)
    data = {"dataset": str(dogs), "data_dir": None}
    made = [
        make_run(tmp_path / preset, preset, skill=skill, num_pictures=9, names=names)
        for preset, skill in (("resnet_nano", 9.0), ("vit_nano", -9.0))
    ]
    for run in made:
        record = json.loads((run / "record.json").read_text())
        record["config"]["data"] = data
        (run / "record.json").write_text(json.dumps(record))
    found = results.collect(CompareConfig(from_=tuple(made)), [], {})
    page.write_report(found, tmp_path / "out")
    assert len(found["pictures"]) == 6 and len(list((tmp_path / "out" / "pictures").iterdir())) == 6


def test_a_full_disk_is_one_line(command, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "_replace", full)
    status, _, err = command("compare", "--from", make_run(tmp_path / "made"), "--output", tmp_path / "out")
    assert status == 2 and "free some space or choose another --output" in err and err.count("\n") == 1


def test_bad_pairs_name_the_choices(command):
    status, _, err = command("compare", "--pair", "unfair")
    assert status == 2 and "same-pretraining" in err


def test_a_run_that_may_not_be_read_is_one_row(command, tmp_path, monkeypatch):
    """Of another user: the others are compared, and the file is named."""
    runs = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    load = loaded.load

    def refuse(folder, command):
        if folder == runs[0]:
            raise PermissionError(13, "Permission denied", str(folder / "record.json"))
        return load(folder, command)

    monkeypatch.setattr(loaded, "load", refuse)
    status, out, err = command("compare", "--from", *runs, "--output", tmp_path / "out")
    assert status == 1 and "report: " in out
    assert "run0/record.json: Permission denied" in err and "cannot write" not in err


def test_user_errors_of_a_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "is_installed", lambda backend: False)
    with pytest.raises(UserError, match="no backend is installed: pip install"):
        plan.backends_of(CompareConfig(pair="embedded"))


def test_runs_that_saw_other_pictures_are_left_out(tmp_path):
    """Another number of training pictures, or test pictures among them: named, and not compared."""
    made = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    record = RunRecord.load(made[0] / "record.json")
    grown = dataclasses.replace(record.dataset, num_train=900)
    other = make_run(tmp_path / "grown", seed=2, dataset=grown)
    leaking = make_run(tmp_path / "leaking", seed=3)
    found = Predictions.load(leaking)
    found._replace(trained_on=found.names[:3]).save(leaking / "predictions.npz")
    results_ = running.compare_runs(CompareConfig(from_=(*made, other, leaking), output=tmp_path / "out"))
    text = (tmp_path / "out" / "report.md").read_text()
    assert len([run for run in results_["runs"] if "error" not in run]) == 2
    assert "seed 2" in text and "was trained on other pictures and is left out" in text
    assert "seed 3" in text and "was trained on pictures of the test split and is left out" in text
