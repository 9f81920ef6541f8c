import numpy as np
import pytest

from keras_dogs.scoring import score_logits


def test_scores_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    scores = score_logits(logits, [0, 1, 1, 0])
    assert scores.num_pictures == 4
    assert scores.top1_accuracy == 0.5
    assert scores.top5_accuracy == 1.0
    assert scores.mean_per_class_accuracy == 0.5
    assert scores.loss == pytest.approx(-np.log([0.7, 0.6, 0.3, 0.2]).mean())
    # Bins of 1/15: confidences 0.7, 0.6 right; 0.5, 0.5 wrong and together.
    assert scores.expected_calibration_error == pytest.approx(0.25 * 0.3 + 0.25 * 0.4 + 0.5 * 0.5)


def test_mean_per_class_accuracy_counts_each_class_once():
    logits = np.eye(3)[[0, 0, 0, 1, 2]]
    scores = score_logits(logits, [0, 0, 0, 0, 2])
    assert scores.top1_accuracy == 0.8
    assert scores.mean_per_class_accuracy == pytest.approx((0.75 + 1.0) / 2)


def test_equal_logits_are_not_all_right():
    scores = score_logits(np.zeros((12, 12)), np.arange(12))
    assert scores.top1_accuracy == pytest.approx(1 / 12)
    assert scores.top5_accuracy == pytest.approx(5 / 12)
    assert scores.loss == pytest.approx(np.log(12))


def test_agrees_with_argmax_and_argsort():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 20)), rng.integers(0, 20, 500)
    scores = score_logits(logits, labels)
    assert scores.top1_accuracy == (logits.argmax(1) == labels).mean()
    assert scores.top5_accuracy == (np.argsort(-logits, 1)[:, :5] == labels[:, None]).any(1).mean()


def test_what_is_not_finite_has_no_score():
    with pytest.raises(ValueError, match="not finite"):
        score_logits(np.array([[np.nan, 1.0]]), [0])
