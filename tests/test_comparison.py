import numpy as np
import pytest
import scipy.stats

from keras_dogs.errors import UserError
from keras_dogs.evaluation import statistics
from keras_dogs.evaluation.predictions import Predictions

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)


def predictions(names, labels, right, class_names=("a", "b", "c")):
    """Logits that name the label where `right`, the next class elsewhere."""
    taken = np.where(right, labels, (labels + 1) % len(class_names))
    return Predictions(np.array(names), labels, np.eye(len(class_names))[taken] * 2, np.array(class_names))


def test_two_classifiers_on_the_same_pictures():
    labels = np.arange(300) % 3
    names = [f"n{index}.jpg" for index in range(300)]
    good, bad = RNG.random(300) < 0.9, RNG.random(300) < 0.6
    order = RNG.permutation(300)
    first = predictions(names, labels, good)
    second = predictions(np.array(names)[order], labels[order], bad[order])
    found = statistics.compare(first, second)
    assert found.accuracy == (good.mean(), bad.mean()) and found.difference == pytest.approx(good.mean() - bad.mean())
    assert (found.only_first, found.only_second) == ((good & ~bad).sum(), (bad & ~good).sum())
    assert found.p_value == scipy.stats.binomtest(found.only_first, found.only_first + found.only_second).pvalue
    assert found.is_significant and "first is better than second" in found.in_words("first", "second")
    turned = statistics.compare(second, first).in_words("second", "first")
    assert turned == found.in_words("first", "second"), "what the better one gains is positive"


def test_no_better_without_evidence():
    labels = np.arange(30) % 3
    right = np.ones(30, bool)
    other = right.copy()
    other[:2] = False
    names = [str(index) for index in range(30)]
    found = statistics.compare(predictions(names, labels, right), predictions(names, labels, other))
    assert found.difference > 0 and not found.is_significant
    assert "cannot be told apart" in found.in_words("first", "second")


def test_other_pictures_are_not_compared():
    labels = np.arange(3)
    one, other = predictions(list("abc"), labels, True), predictions(list("abx"), labels, True)
    with pytest.raises(UserError, match="not scored on the same pictures"):
        statistics.compare(one, other)
    with pytest.raises(UserError, match="the same pictures the same classes"):
        statistics.compare(one, predictions(list("abc"), labels[::-1].copy(), True))


def test_summary_over_seeds():
    found = statistics.summarise([0.8, 0.9, 0.85])
    assert (found.num_runs, found.low, found.high) == (3, 0.8, 0.9) and found.mean == pytest.approx(0.85)
    assert found.standard_error == pytest.approx(scipy.stats.sem([0.8, 0.9, 0.85]))
    assert np.isnan(statistics.summarise([0.8]).standard_error)


def test_overlap_is_by_the_files_name(tmp_path):
    (tmp_path / "list.txt").write_text("train/n02085620/n02085620_7.JPEG 151\n\nn02085620_9.JPEG\n")
    found = statistics.split_by_overlap(
        ["n02085620-Chihuahua/n02085620_7.jpg", "n02085620_70.jpg"], tmp_path / "list.txt"
    )
    assert found.tolist() == [True, False]
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("empty.txt", "missing.txt"):
        with pytest.raises(UserError, match="overlap_list"):
            statistics.split_by_overlap(["a"], tmp_path / name)
