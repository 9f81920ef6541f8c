"""The data doctor: what is planted is found, what is sound is left alone, and lists are obeyed."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import write_dogs
from made_runs import CLASSES
from made_runs import make_run
from PIL import Image
from PIL import ImageEnhance

from keras_dogs.checking import duplicates
from keras_dogs.checking import labels
from keras_dogs.checking import probe
from keras_dogs.checking.looks import look_at
from keras_dogs.data.datasets import exclusions
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.evaluation import intervals
from keras_dogs.evaluation import leaving_out
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.runs.records import RunRecord

ODD_NAMES = [
    *("a/b.jpg", "#1/b.jpg", '"q"/b.jpg', "two  blanks/b # c.jpg"),
    *("a\nb.jpg", " led.jpg", "\udce9.jpg", "犬/é.png"),
]
CHANGES = {
    "resize to 60 %": lambda picture: picture.resize((58, 58)),
    "mirror": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "crop of 8 %": lambda picture: picture.crop((7, 0, 95, 88)),
    "brightness +20 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "upside down": lambda picture: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "quarter turn": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "quarter turn back": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
    "rotation of 3 degrees": lambda picture: picture.rotate(3, Image.Resampling.BICUBIC),
}


def in_memory(pictures) -> Split:
    names = tuple(f"{number}.png" for number in range(len(pictures)))
    return Split(names, np.zeros(len(pictures), np.int32), lambda index: pictures[index].copy(), str)


# Lists


@pytest.mark.once
def test_a_list_gives_back_every_name(tmp_path):
    file = tmp_path / "exclude.txt"
    file.write_text("# a comment\n\n" + "".join(f"{exclusions.line_of(name, 'leak: x  # y')}\n" for name in ODD_NAMES))
    found = exclusions.read_exclusions(file)
    assert list(found.reasons) == ODD_NAMES and set(found.reasons.values()) == {"leak: x  # y"}


@pytest.mark.once
def test_lists_that_were_edited_by_hand(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text('\ufeff# a comment\r\n a.jpg # why\r\n  "b  c.jpg"  # moved\r\nd.jpg\r\n#e.jpg\r\n')
    assert exclusions.read_exclusions(file).reasons == {"a.jpg": "why", "b  c.jpg": "moved", "d.jpg": ""}


@pytest.mark.once
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ('"open\n', "line 1"),
        ("nobody.jpg\n", "nobody"),
    ],
)
def test_lists_that_cannot_be_used(command, dogs, tmp_path, content, says):
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_text(content)
    for name, *arguments in (("train", "--dataset", dogs), ("compare", "--pair=embedded", "--dataset", dogs)):
        status, _, err = command(name, *arguments, "--output", tmp_path / "out", "--exclude", file)
        assert status == 2 and "--exclude" in err and says in err, err
        assert not (tmp_path / "out").exists()


@pytest.mark.once
def test_a_training_leaves_out_what_is_listed_and_scores_the_whole_test_split(command, dogs, tmp_path):
    dataset = load_dataset(str(dogs))
    listed = [dataset.train.names[0], dataset.validation.names[0], dataset.test.names[0]]
    file, run = tmp_path / "exclude.txt", tmp_path / "run"
    file.write_text("".join(f"{exclusions.line_of(name, 'mine')}\n" for name in listed))
    flags = ("--dataset", dogs, "--epochs", 1, "--batch-size", 4, "--exclude", file, "--output", run)
    status, _, err = command("train", *flags)
    assert status == 0 and ": 2 pictures; on the list, but of the test split" in err and "whole: 1" in err, err
    record, found = RunRecord.load(run / "record.json"), Predictions.load(run)
    assert record.dataset.excluded == sorted(listed[:2]) and len(record.dataset.exclusions_digest) == 16
    assert listed[0] not in found.trained_on and listed[1] not in found.validation.names and listed[2] in found.names
    status, out, err = command("evaluate", run, "--saved", "--json", "--exclude", file)
    assert status == 0 and json.loads(out)["num_pictures"] == len(found.names) - 1, err
    file.write_text(f"{listed[2]} # http://an.address/of: mine")
    status, out, _ = command("evaluate", run, "--json", "--exclude", file, "--output", tmp_path / "page")
    assert status == 0 and json.loads(out)["num_pictures"] == len(found.names) - 1
    assert "without: others on the list" in (tmp_path / "page" / "report.md").read_text()
    more = ("--saved", "--exclude", file, "--against", run, "--output", tmp_path / "against")
    assert command("evaluate", run, *more)[0] == 0
    assert command("evaluate", run, "--saved", "--exclude", file.with_name("none"))[0] == 2
    (tmp_path / "strangers").write_text("nobody.jpg")
    for flags in ((), ("--saved",)):
        status, _, err = command("evaluate", run, *flags, "--exclude", tmp_path / "strangers")
        assert status == 2 and "nobody.jpg" in err


@pytest.mark.once
def test_a_list_of_another_division_is_told(dogs, tmp_path):
    dataset = load_dataset(str(dogs))
    (tmp_path / "list").write_text("# Division into train and test: other\n" + dataset.train.names[0])
    notes = exclusions.leave_out(dataset, exclusions.read_exclusions(tmp_path / "list")).notes
    assert "another division" in notes[-1]
    (tmp_path / "list").write_text(exclusions.division_line(dataset))
    notes = exclusions.leave_out(dataset, exclusions.read_exclusions(tmp_path / "list")).notes
    assert "another division" not in notes[-1]


@pytest.mark.once
def test_a_class_is_not_emptied(dogs, tmp_path):
    dataset = load_dataset(str(dogs))
    gone = [name for name, label in zip(dataset.train.names, dataset.train.labels) if label == 1]
    (tmp_path / "list").write_text("\n".join(gone))
    with pytest.raises(UserError, match=dataset.class_names[1]):
        exclusions.leave_out(dataset, exclusions.read_exclusions(tmp_path / "list"))


@pytest.mark.once
def test_the_parts_of_a_score():
    correct = np.array([True] * 70 + [False] * 30)
    leaks = np.arange(100) < 10
    whole, without, wrong, neither = leaving_out.parts_of(
        correct, {"leaks": leaks, "none": leaks & False, "wrong": ~correct & (np.arange(100) > 94)}
    )
    assert (whole.accuracy, whole.difference, whole.difference_interval) == (0.7, 0.0, (0.0, 0.0))
    assert without.num_left_out == 10 and without.accuracy == pytest.approx(60 / 90)
    low, high = without.difference_interval
    assert low < without.difference < high < 0.01 and without.difference == pytest.approx(60 / 90 - 0.7)
    assert neither.num_left_out == 15 and wrong.num_pictures == 95


@pytest.mark.once
def test_the_interval_of_a_part_covers_the_truth():
    """Of 2,000 simulated data sets: pictures that were leaked are right more often."""
    generator = np.random.default_rng(0)
    kept = np.arange(300) >= 30
    truth = 0.8 - (0.9 * 0.8 + 0.1 * 0.95)
    inside = 0
    for _ in range(2000):
        low, high = intervals.part_difference_interval(generator.random(300) < np.where(kept, 0.8, 0.95), kept)
        inside += low <= truth <= high
    assert 0.94 <= inside / 2000 <= 0.99


# Duplicates


@pytest.mark.once
@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_found(change):
    train = load_drawn_dogs().train
    pictures = [train.read(index) for index in range(0, 240, 12)]
    pictures += [CHANGES[change](picture) for picture in pictures[:5]]
    looked = look_at(in_memory(pictures), "pictures")
    groups = duplicates.find_groups(looked.looks, looked.grey)
    assert [[member.index for member in group] for group in groups] == [[number, 20 + number] for number in range(5)]


@pytest.mark.once
def test_changed_pictures_are_found_among_more_than_are_compared_with_each():
    train = load_drawn_dogs().train
    drawn = [train.read(index) for index in range(0, 600, 12)]
    changed = [CHANGES[change](picture) for change, picture in zip([*CHANGES] * 6, drawn)]
    looked = look_at(in_memory([*drawn, *changed]), "pictures")
    coarse = np.random.default_rng(0).normal(size=(10_000, 5, 5)).astype(np.float32)
    noise = np.einsum("ai,bj,nij->nab", *(np.eye(5)[np.arange(64) * 5 // 64],) * 2, coarse, optimize=True)
    grey = np.concatenate([looked.grey, (128 + 40 * noise).clip(0, 255).astype(np.uint8)])
    own = [number.to_bytes(4) for number in range(10_000)]
    other = [looked.looks[0]._replace(content=digest, pixels=digest) for digest in own]
    groups = duplicates.find_groups([*looked.looks, *other], grey)
    assert [[member.index for member in group] for group in groups] == [[number, 50 + number] for number in range(50)]


@pytest.mark.once
def test_equal_pictures_are_found_however_many():
    """More of them than a picture proposes others."""
    drawn = [load_drawn_dogs().train.read(index) for index in range(3)]
    looked = look_at(in_memory([drawn[number % 2] for number in range(20)] + [drawn[2]]), "pictures")
    groups = duplicates.find_groups(looked.looks, looked.grey)
    assert [len(group) for group in groups] == [10, 10]
    assert {member.kind for group in groups for member in group} == {"equal pixels"}


@pytest.mark.once
def test_many_changed_copies_on_both_sides_are_one_group():
    """Each one's nearest are its own kind: the first of what lies together looks further."""
    picture = load_drawn_dogs().train.read(5).resize((192, 192))
    sizes = [picture.resize((side, side)) for side in (100, 120, 140, 160, 180)]
    pictures = [*sizes, *(each.crop((6, 6, each.width, each.height)) for each in sizes)]
    looked = look_at(in_memory(pictures), "pictures")
    assert [len(group) for group in duplicates.find_groups(looked.looks, looked.grey)] == [10]


@pytest.mark.once
def test_pictures_without_anything_in_them_are_no_duplicates():
    blank = [Image.new("RGB", (40, 40), (level,) * 3) for level in (0, 3, 128, 255)]
    looked = look_at(in_memory(blank), "pictures")
    assert duplicates.find_groups(looked.looks, looked.grey) == []


# Labels


def clusters(num_classes=6, a_class=20, width=12, spread=1.0):
    generator = np.random.default_rng(1)
    given = np.repeat(np.arange(num_classes), a_class)
    centres = 4 * generator.normal(size=(num_classes, width))
    return (centres[given] + spread * generator.normal(size=(len(given), width))).astype(np.float32), given


@pytest.mark.once
def test_the_probe_is_the_one_of_scikit_learn_and_has_not_learned_from_what_it_answers():
    """With one shrinkage, its scores of a fold are those of a fit to the other folds, but for a factor."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, given = clusters(4, 30, 7, spread=4.0)
    folds = probe.folds_of(given, [[0, 5, 40]])
    assert folds[0] == folds[5] == folds[40] and np.bincount(folds).min() >= 10
    parts = [probe._Sums(features, given, 4, np.flatnonzero(folds == fold)) for fold in range(folds.max() + 1)]
    found = probe._held_out_scores(features, folds, parts, features.mean(0), 0.25)
    for fold in range(folds.max() + 1):
        rest = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)  # 0.2 / (1 - 0.2) is 0.25
        rest.fit(features[folds != fold], given[folds != fold])
        expected = rest.decision_function(features[folds == fold]) - np.log(rest.priors_)  # ours has none
        scores = 1.25 * found[folds == fold]
        differences = [each - each.mean(1, keepdims=True) for each in (scores, expected)]
        np.testing.assert_allclose(*differences, atol=1e-3 * np.abs(expected).max())


@pytest.mark.once
def test_probabilities_are_calibrated():
    features, given = clusters(8, 60, 6, spread=5.0)
    found = probe.held_out_probabilities(features, given, [])
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert abs(found.max(1).mean() - (found.argmax(1) == given).mean()) < 0.05


@pytest.mark.once
def test_wrong_labels_come_first():
    features, given = clusters()
    wrong = given.copy()
    wrong[[3, 50, 110]] = 5, 0, 1
    suspects, alike = labels.find_suspects(probe.held_out_probabilities(features, wrong, []), wrong)
    assert {suspect.index for suspect in suspects[:3]} == {3, 50, 110} and not alike
    assert sorted((suspect.index, suspect.likely) for suspect in suspects) == [(3, 0), (50, 2), (110, 5)]


@pytest.mark.once
def test_what_the_probe_answers_as_it_is_labelled_is_no_suspect():
    """A class of little confidence has a low threshold."""
    probabilities = np.array([[0.8, 0.18, 0.02], [0.9, 0.05, 0.05], [0.7, 0.28, 0.02], *[[0.5, 0.1, 0.01]] * 3])
    suspects, _ = labels.find_suspects(probabilities, np.array([0, 0, 0, 2, 2, 2]))
    assert {suspect.index for suspect in suspects} <= {3, 4, 5}


@pytest.mark.once
def test_a_duplicate_does_not_answer_for_a_wrong_label():
    features, given = clusters()
    features[4] = features[3]
    given[[3, 4]] = 2
    alone = probe.held_out_probabilities(features, given, [])[3, 2]
    assert probe.held_out_probabilities(features, given, [[3, 4]])[3, 2] < alone


@pytest.mark.once
@pytest.mark.parametrize("width", [16, 384])
@pytest.mark.parametrize("spread", [0.0, 1e-6])
def test_classes_of_copies_have_a_probe(width, spread):
    """What varies within classes is less than the rounding of the products."""
    vectors = np.random.default_rng(0).gamma(1.0, size=(3, width))
    given = np.repeat(np.arange(3), 4)
    noise = 1 + spread * np.random.default_rng(1).normal(size=(12, width))
    found = probe.held_out_probabilities((vectors[given] * noise).astype(np.float32), given, [])
    np.testing.assert_array_equal(found.argmax(1), given)


@pytest.mark.once
def test_classes_that_are_the_same_are_named():
    features, given = clusters()
    halves = np.where(given == 5, np.where(np.arange(len(given)) % 2, 5, 6), given)
    suspects, alike = labels.find_suspects(probe.held_out_probabilities(features, halves, []), halves)
    assert [(each.first, each.second) for each in alike] == [(5, 6)] and not suspects


# The command


@pytest.fixture(scope="module")
def ailing(tmp_path_factory):
    """Drawn dogs with one of everything that can be wrong with a folder."""
    folder = write_dogs(tmp_path_factory.mktemp("ailing"), num_breeds=3, train=8, test=4)
    first, second, third = sorted((folder / "train").iterdir())
    files = sorted(first.glob("*.png"))
    shutil.copy(files[0], folder / "test" / first.name / "copy.png")
    Image.open(files[1]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "test" / first.name / "mirrored.png")
    Image.open(files[2]).save(second / "of_two_labels.bmp")
    Image.open(files[3]).save(first / "again.bmp")
    drawn = load_drawn_dogs().train
    drawn.read(700).resize((20, 20)).save(third / "tiny.png")
    drawn.read(701).convert("L").save(third / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn.read(702).save(third / "turned.jpg", exif=exif)
    drawn.read(703).resize((200, 40)).save(third / "long.png")
    Image.new("RGB", (96, 96)).save(third / "black.png")
    (third / "cut.png").write_bytes(files[4].read_bytes()[:400])
    drawn.read(704).save(third / "CASE.png")
    drawn.read(705).save(third / "case.png")
    (third / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def checked(ailing, tmp_path_factory):
    from keras_dogs.checking.checking import check_dataset
    from keras_dogs.checking.config import CheckConfig

    output = tmp_path_factory.mktemp("checked") / "check"
    return check_dataset(CheckConfig(dataset=str(ailing), output=output)), output


def test_facts(checked):
    facts = checked[0]["facts"]
    kinds = {"tiny": "tiny", "grey": "grey", "turned_by_exif": "turned", "long": "long", "nearly_black": "black"}
    for kind, stem in kinds.items():
        assert [name.rpartition("/")[2].partition(".")[0] for name in facts[kind]].count(stem) == 1, (kind, facts[kind])
    assert [each["name"].rpartition("/")[2] for each in facts["unreadable"]] == ["cut.png"]
    assert [[name.rpartition("/")[2] for name in names] for names in facts["names_alike"]] == [["CASE.png", "case.png"]]
    assert [name.rpartition("/")[2] for name in facts["no_pictures"]] == ["notes.txt"]
    assert facts["formats"] == {"PNG": 44, "BMP": 2, "JPEG": 1} and facts["splits"] == {"train": 34, "test": 14}


def test_leaks_and_conflicts(checked):
    found = {
        frozenset(member["name"].rpartition("/")[2] for member in group["members"]): group
        for group in checked[0]["groups"]
    }
    by = {
        next(name for name in names if not name[0].isdigit() and "_" not in name or name.startswith("of")): group
        for names, group in found.items()
    }
    assert by.keys() == {"copy.png", "mirrored.png", "of_two_labels.bmp", "again.bmp"}
    assert [by[name]["is_leak"] for name in ("copy.png", "mirrored.png", "again.bmp")] == [True, True, False]
    assert by["of_two_labels.bmp"]["has_conflict"] and by["copy.png"]["members"][0]["kind"] == "equal file"
    assert by["again.bmp"]["members"][0]["kind"] == "equal pixels"
    assert by["mirrored.png"]["members"][0]["kind"] == "mirrored"


def test_the_list_is_one_that_train_takes(checked, ailing):
    listed = exclusions.read_exclusions(checked[1] / "exclude.txt")
    dataset = exclusions.leave_out(load_dataset(str(ailing)), listed)
    kinds = [reason.partition(":")[0] for reason in listed.reasons.values()]
    assert sorted(kinds) == ["conflict", "conflict", "duplicate", "leak", "leak", "leak", "leak"]
    assert len(dataset.excluded) == 5 and len(dataset.test) == 14


def test_the_page_shows_the_pictures(checked):
    text = (checked[1] / "report.html").read_text()
    assert text.count("data:image/jpeg") >= 8 and "Leaks" in text and "mirrored" in text and "notes.txt" in text
    assert json.loads((checked[1] / "check.json").read_text())["schema_version"] == 1


def test_labels_are_checked_with_a_model_at_hand(checked):
    """Drawn breeds have one; findings are the same on every backend."""
    found = checked[0]["labels"]
    assert found["model"] == "resnet_nano" and found["num_pictures"] == 47
    assert any(suspect["name"].endswith("of_two_labels.bmp") for suspect in found["suspects"])


@pytest.mark.once
def test_a_training_says_that_pictures_are_in_two_splits(command, ailing, tmp_path):
    flags = ("--dataset", ailing, "--epochs", 1, "--batch-size", 8, "--output", tmp_path / "run", "--skip-unreadable")
    status, _, err = command("train", *flags)
    assert status == 0 and "copy.png" in err and "keras_dogs.check" in err, err
    assert "mirrored.png" not in err


@pytest.mark.once
def test_what_it_means_for_a_run(command, run_folder, dogs, tmp_path):
    status, out, err = command("check", "--run", run_folder, "--output", tmp_path / "check")
    assert status == 0, err
    found = json.loads((tmp_path / "check" / "check.json").read_text())
    record = RunRecord.load(run_folder / "record.json")
    assert found["facts"]["splits"] == {"train": 15, "validation": 3, "test": 9}
    assert found["score"]["parts"][0]["accuracy"] == record.test.top1_accuracy
    assert found["labels"]["model"] == str(run_folder) and "report.html" in out


@pytest.mark.once
def test_leaks_count_where_the_run_has_learned_from_them(command, ailing, tmp_path):
    """Those that it left out, when it was trained, do not."""
    check = ("check", ailing, "--output", tmp_path / "check")
    assert command(*check)[0] == 0
    flags = ("--dataset", ailing, "--epochs", 1, "--batch-size", 8, "--skip-unreadable")
    scores = {}
    for name, more in (("all", ()), ("clean", ("--exclude", tmp_path / "check" / "exclude.txt"))):
        assert command("train", *flags, *more, "--output", tmp_path / name)[0] == 0
        assert command("check", "--run", tmp_path / name, "--output", tmp_path / f"of-{name}")[0] == 0
        scores[name] = json.loads((tmp_path / f"of-{name}" / "check.json").read_text())["score"]["parts"]
    leaks = {
        name: [part["num_left_out"] for part in parts if part["what"] == "leaks"] for name, parts in scores.items()
    }
    assert leaks == {"all": [2], "clean": []}


@pytest.mark.once
def test_names_that_are_not_utf_8(command, tmp_path):
    folder = write_dogs(tmp_path / "dogs", num_breeds=2, train=4, test=2)
    first = sorted((folder / "train").iterdir())[0]
    odd = os.fsdecode(b"dog\xe9 # x.png")
    for split in ("train", "test"):
        shutil.copy(sorted(first.glob("*.png"))[0], folder / split / first.name / odd)
    status, _, err = command("check", folder, "--output", tmp_path / "check")
    assert status == 0, err
    listed = tmp_path / "check" / "exclude.txt"
    assert sum(name.endswith(odd) for name in exclusions.read_exclusions(listed).reasons) == 2
    flags = ("--dataset", folder, "--epochs", 1, "--batch-size", 4, "--exclude", listed, "--output", tmp_path / "run")
    assert command("train", *flags)[0] == 0
    assert len(RunRecord.load(tmp_path / "run" / "record.json").dataset.excluded) == 2
    assert (tmp_path / "check" / "report.html").stat().st_size


@pytest.mark.once
def test_runs_and_datasets_that_do_not_go_together(command, dogs, ailing, tmp_path):
    run = make_run(tmp_path / "run")
    names = (tmp_path / "names").mkdir() or tmp_path / "names"
    for name in CLASSES:
        for number in range(3):
            (names / name).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (number * 80, 0, 0)).save(names / name / f"{number}.png")
    for arguments, says in (
        ((dogs, "--run", run), "other classes"),
        ((names, "--run", run), "not in the test split"),
        ((dogs, "--run", tmp_path / "none"), "record.json"),
        ((), "give a dataset"),
        ((ailing, "--preset", "nobody"), "nobody"),
    ):
        status, _, err = command("check", *arguments, "--output", tmp_path / "check")
        assert status == 2 and says in err, err
        assert not (tmp_path / "check").exists()


@pytest.mark.once
def test_nothing_that_can_be_read(command, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "broken" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "broken" / label / f"{number}.jpg").write_text("none")
    status, _, err = command("check", tmp_path / "broken", "--output", tmp_path / "check")
    assert status == 2 and "no picture can be read" in err, err
