import shutil

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image
from scipy.io import savemat
from scipy.optimize import minimize

from keras_dogs.data.datasets import display_name
from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets.drawn_breeds import BREEDS
from keras_dogs.data.datasets.drawn_breeds import PRETRAINING_BREEDS
from keras_dogs.data.datasets.drawn_breeds import TRAITS
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.errors import UserError

pytestmark = pytest.mark.once


def pictures(folder, counts):
    """`folder/class/N.png` for a dict of class to count; every picture differs."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


# Drawn dogs


def test_two_halves_of_at_least_12_breeds_and_none_in_both():
    assert len(BREEDS) >= 12 and len(PRETRAINING_BREEDS) >= 12
    traits = [breed[1:] for breed in BREEDS + PRETRAINING_BREEDS]
    assert len(set(traits)) == len(traits)
    assert min(sum(a != b for a, b in zip(x, y)) for i, x in enumerate(traits) for y in traits[:i]) >= 3
    assert all(value in TRAITS[trait] for breed in traits for trait, value in zip(TRAITS, breed))


def test_same_seed_same_pixels_other_seed_others():
    first, second, other = load_drawn_dogs(3), load_drawn_dogs(3), load_drawn_dogs(4)
    for index in (0, 61, 1439):
        assert np.array_equal(first.train.read(index), second.train.read(index))
        assert not np.array_equal(first.train.read(index), other.train.read(index))
    assert not np.array_equal(first.train.read(0), first.test.read(0))


@pytest.mark.once
def test_raw_pixels_are_not_enough():
    """A logistic regression on the pixels, at the best of three penalties, stays under one half."""
    dataset = load_drawn_dogs()

    def pixels(split):
        rows = [np.asarray(split.read(index).resize((32, 32), Image.Resampling.BOX)) for index in range(len(split))]
        return np.stack(rows).reshape(len(split), -1).astype(np.float32)

    train, test = pixels(dataset.train), pixels(dataset.test)
    mean, deviation = train.mean(0), train.std(0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    onehot = np.eye(len(BREEDS))[dataset.train.labels]

    def accuracy(penalty):
        def objective(flat):
            weights = flat.reshape(train.shape[1], -1).astype(np.float32)
            logits = train @ weights
            logits -= logits.max(1, keepdims=True)
            log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
            probabilities = np.exp(logits - log_sum)
            loss = -(onehot * (logits - log_sum)).sum() / len(train) + penalty / 2 * (weights**2).sum()
            return loss, (train.T @ (probabilities - onehot) / len(train) + penalty * weights).ravel()

        fitted = minimize(
            objective, np.zeros(train.shape[1] * len(BREEDS)), jac=True, method="L-BFGS-B", options={"maxiter": 40}
        )
        return np.mean((test @ fitted.x.reshape(train.shape[1], -1)).argmax(1) == dataset.test.labels)

    accuracies = [accuracy(penalty) for penalty in (1.0, 0.1, 0.01)]
    assert 0.15 < max(accuracies) < 0.50, accuracies


# Splits


def test_validation_is_stratified_and_decided_by_the_seed():
    whole = load_drawn_dogs()
    carved, again, other = (whole.with_validation(0.1, seed) for seed in (0, 0, 1))
    assert len(carved.train) + len(carved.validation) == len(whole.train)
    assert set(np.bincount(carved.validation.labels)) == {6}
    assert not set(carved.train.names) & set(carved.validation.names)
    assert carved.validation.names == again.validation.names != other.validation.names
    assert carved.test is whole.test
    assert carved.fingerprint == again.fingerprint != other.fingerprint


def test_no_validation_when_asked_for_none():
    assert load_dataset("drawn_dogs", validation_fraction=0).validation is None


def test_selected_pictures_are_the_ones_named():
    dataset = load_drawn_dogs()
    carved = dataset.with_validation(0.1, 0)
    name = carved.validation.names[7]
    place = dataset.train.names.index(name)
    assert np.array_equal(carved.validation.read(7), dataset.train.read(place))
    assert carved.validation.labels[7] == dataset.train.labels[place]


# Folders


def test_flat_folder_is_split_in_three(tmp_path):
    dataset = load_dataset(str(pictures(tmp_path / "flat", {"basset": 10, "akita": 20})))
    assert dataset.class_names == ("akita", "basset")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [21, 3, 6]
    names = dataset.train.names + dataset.validation.names + dataset.test.names
    assert len(set(names)) == 30
    assert np.bincount(dataset.test.labels).tolist() == [4, 2]
    for index, name in enumerate(dataset.train.names):
        assert dataset.class_names[dataset.train.labels[index]] == name.split("/")[0]


def test_split_folders_keep_their_own_validation(tmp_path):
    for part, count in (("train", 3), ("validation", 2), ("test", 4)):
        pictures(tmp_path / part, {"akita": count, "basset": count})
    dataset = load_dataset(str(tmp_path))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [6, 4, 8]


def test_nested_and_hidden_files(tmp_path):
    pictures(tmp_path / "train", {"akita": 2, "basset": 2})
    pictures(tmp_path / "test", {"akita": 1, "basset": 1})
    pictures(tmp_path / "train" / "akita", {"puppies": 2})
    (tmp_path / "train" / "akita" / ".hidden.png").write_bytes(b"")
    (tmp_path / "train" / "akita" / "notes.txt").write_text("not a picture")
    assert len(load_dataset(str(tmp_path), validation_fraction=0).train) == 6


@pytest.mark.parametrize("kind", ["txt", "mat"])
def test_official_layout(tmp_path, kind):
    counts = {"n02085620-Chihuahua": 5, "n02085782-Japanese_spaniel": 4}
    pictures(tmp_path / "Images", counts)
    (tmp_path / "lists").mkdir()
    for split, numbers in (("train", range(3)), ("test", range(3, 4))):
        names = [f"{breed}/{number}.png" for breed in counts for number in numbers]
        if kind == "txt":
            (tmp_path / "lists" / f"{split}_list.txt").write_text("\n".join(names) + "\n")
        else:
            column = np.array(names, dtype=object).reshape(-1, 1)
            savemat(tmp_path / "lists" / f"{split}_list.mat", {"file_list": column})
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("n02085620-chihuahua", "n02085782-japanese_spaniel")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [4, 2, 2]
    assert dataset.test.names == ("n02085620-Chihuahua/3.png", "n02085782-Japanese_spaniel/3.png")
    assert dataset.test.read(1).size == (8, 8)


def test_official_list_that_names_a_missing_picture(tmp_path):
    pictures(tmp_path / "Images", {"a": 2, "b": 2})
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train_list.txt").write_text("a/0.png\n")
    (tmp_path / "lists" / "test_list.txt").write_text("a/9.png\n")
    with pytest.raises(UserError, match="test list names Images/a/9.png, which is not there"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "the folder is empty"),
        (lambda path: (path / "notes").mkdir(parents=True), "no pictures found"),
        (lambda path: pictures(path, {"akita": 5, "basset": 1}), "class 'basset' has one picture"),
        (lambda path: pictures(path / "train", {"akita": 5, "pug": 5}), "no test/"),
        (
            lambda path: pictures(path, {"training_set/akita": 5, "test_set/akita": 5}),
            "test_set/ looks like a split",
        ),
        (lambda path: pictures(path, {"val/akita": 5, "test/akita": 5}), "test/ looks like a split"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, build, message):
    build(tmp_path / "dogs")
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(str(tmp_path / "dogs"))
    assert "\n" not in str(caught.value) and str(tmp_path / "dogs") in str(caught.value)


def test_test_folder_with_a_class_of_its_own(tmp_path):
    pictures(tmp_path / "train", {"akita": 2, "pug": 2})
    pictures(tmp_path / "test", {"basset": 2})
    with pytest.raises(UserError, match="class 'basset' is in test/ but not in train/"):
        load_dataset(str(tmp_path))


def test_one_training_picture_in_a_split_folder(tmp_path):
    pictures(tmp_path / "train", {"akita": 2, "pug": 2, "basset": 1})
    pictures(tmp_path / "test", {"akita": 2, "pug": 2, "basset": 1})
    with pytest.raises(UserError, match="class 'basset' has one picture to train on"):
        load_dataset(str(tmp_path))
    shutil.rmtree(tmp_path / "train" / "basset")
    shutil.rmtree(tmp_path / "test" / "basset")
    assert len(load_dataset(str(tmp_path)).train) == 2


def test_misspelt_dataset_name():
    with pytest.raises(UserError, match="did you mean drawn_dogs"):
        load_dataset("drawn_dog")


def test_display_names():
    assert display_name("n02085782-japanese_spaniel") == "Japanese spaniel"
    assert display_name("n02088364-beagle") == "Beagle"
    assert display_name("n02107574-Greater_Swiss_Mountain_dog") == "Greater Swiss Mountain dog"
    assert display_name("amberwick") == "amberwick"
    assert display_name("new-type") == "new-type"


# What careful strangers found in folders


def test_a_folder_that_is_one_level_too_high_is_refused(tmp_path):
    """Its one class would be scored 100 %."""
    for folder, hint in (
        (tmp_path / "a", "Images"),
        (tmp_path / "b", "dogs"),
    ):
        pictures(folder / hint / ("train" if hint == "dogs" else ""), {"beagle": 4, "pug": 4})
        with pytest.raises(UserError, match=rf"all pictures are below {hint}/ .*give dataset .*/{hint}"):
            load_dataset(str(folder))
    pictures(tmp_path / "c", {"beagle": 5})
    with pytest.raises(UserError, match="one class, 'beagle'; a classifier needs two or more"):
        load_dataset(str(tmp_path / "c"))


def test_splits_are_found_in_any_case(tmp_path):
    for part in ("Train", "VALID", "Testing"):
        pictures(tmp_path / part, {"beagle": 3, "pug": 3})
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("beagle", "pug")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [6, 6, 6]
    pictures(tmp_path / "train", {"beagle": 3})
    with pytest.raises(UserError, match="Train/ and train/ are both there"):
        load_dataset(str(tmp_path))


def test_what_tools_leave_is_no_class_and_no_picture(tmp_path):
    pictures(tmp_path, {"beagle": 4, "pug": 4})
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX/beagle", "beagle/.ipynb_checkpoints", "pug/@eaDir"):
        pictures(tmp_path, {folder: 1})
    shutil.copy(tmp_path / "beagle" / "0.png", tmp_path / "beagle" / "._0.png")
    (tmp_path / "pug" / "Thumbs.db").write_bytes(b"")
    dataset = load_dataset(str(tmp_path), validation_fraction=0)
    assert dataset.class_names == ("beagle", "pug") and len(dataset.train) + len(dataset.test) == 8
    assert not dataset.notes


def test_files_that_are_left_out_are_counted_and_named(tmp_path, monkeypatch):
    """What is a picture by its first bytes is one, whatever its name."""
    monkeypatch.setattr("keras_dogs.data.datasets.pictures.reads_heif", lambda: False)
    pictures(tmp_path, {"beagle": 4, "pug": 4})
    (tmp_path / "beagle" / "0.png").rename(tmp_path / "beagle" / "no_suffix")
    Image.open(tmp_path / "beagle" / "1.png").save(tmp_path / "beagle" / "1.jfif", "JPEG")
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (tmp_path / "pug" / name).write_bytes(b"no picture")
    dataset = load_dataset(str(tmp_path), validation_fraction=0)
    names = {*dataset.train.names, *dataset.test.names}
    assert {"beagle/no_suffix", "beagle/1.jfif"} <= names and len(names) == 9
    (note,) = dataset.notes
    assert "2 .heic" in note and "1 .txt" in note and "1 no suffix" in note and "pip install pillow-heif" in note


def test_what_becomes_no_class_is_named(tmp_path, monkeypatch):
    """A folder that holds HEIC alone, and pictures beside the folders."""
    monkeypatch.setattr("keras_dogs.data.datasets.pictures.reads_heif", lambda: False)
    pictures(tmp_path, {"beagle": 4, "pug": 4})
    (tmp_path / "collie").mkdir()
    (tmp_path / "collie" / "a.heic").write_bytes(b"no picture")
    shutil.copy(tmp_path / "pug" / "0.png", tmp_path / "loose.png")
    dataset = load_dataset(str(tmp_path), validation_fraction=0)
    assert dataset.class_names == ("beagle", "pug")
    said = "\n".join(dataset.notes)
    assert f"folders without pictures, which become no class: {tmp_path.name}/collie" in said
    assert "in no class folder: loose.png" in said and "collie/a.heic" in said


def test_a_validation_folder_without_pictures_is_none(tmp_path):
    for part in ("train", "test"):
        pictures(tmp_path / part, {"a": 10, "b": 10})
    (tmp_path / "val" / "a").mkdir(parents=True)
    dataset = load_dataset(str(tmp_path))
    assert len(dataset.validation) == 2
    assert dataset.notes == ("val/ holds no picture; validation pictures are taken from train/",)


def test_a_class_without_test_pictures_is_said(tmp_path):
    pictures(tmp_path / "train", {"a": 3, "b": 3, "c": 3})
    pictures(tmp_path / "test", {"a": 1, "c": 1})
    dataset = load_dataset(str(tmp_path))
    assert dataset.notes == ("no test picture of: b",)
    assert [dataset.class_names[label] for label in dataset.test.labels] == ["a", "c"]


def test_a_picture_that_a_list_names_twice_is_taken_once(tmp_path):
    """Else one copy would train and the other validate."""
    pictures(tmp_path / "Images", {"a": 6, "b": 6})
    (tmp_path / "lists").mkdir()
    rows = [f"{breed}/{number}.png" for breed in "ab" for number in range(5)]
    (tmp_path / "lists" / "train_list.txt").write_text("\n".join(rows + rows[:3]))
    (tmp_path / "lists" / "test_list.txt").write_text("a/5.png\nb/5.png\n")
    dataset = load_dataset(str(tmp_path))
    names = dataset.train.names + dataset.validation.names
    assert sorted(names) == sorted(rows)
    assert dataset.notes == ("the train list names 3 of its pictures more than once; each is taken once",)


def test_the_pool_is_the_pictures_not_their_division(tmp_path):
    pictures(tmp_path, {"a": 10, "b": 10})
    one, again = (load_dataset(str(tmp_path), validation_fraction=fraction) for fraction in (0.1, 0.3))
    assert one.pool == again.pool and one.fingerprint != again.fingerprint
    assert load_dataset(str(tmp_path), seed=1).pool != one.pool, "another test split leaves others to train on"


CASES = SHARED / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared is not at hand")
@pytest.mark.parametrize(
    ("folder", "classes", "notes"),
    [
        ("one_level_too_deep", None, ()),
        ("capital_splits", ("beagle", "pug"), ()),
        ("left_by_tools", ("beagle", "pug"), ()),
        ("test_lacks_a_class", ("0", "180", "270", "90"), ("no test picture of: 180",)),
    ],
)
def test_the_folders_that_failed(folder, classes, notes):
    if classes is None:
        with pytest.raises(UserError, match="Images/beagle, Images/pug"):
            load_dataset(str(CASES / "folders" / folder))
        return
    dataset = load_dataset(str(CASES / "folders" / folder))
    assert dataset.class_names == classes and dataset.notes == notes
