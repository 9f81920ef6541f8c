import numpy as np
import pytest

from keras_dogs.evaluation import scoring
from keras_dogs.evaluation.scoring import score_logits

pytestmark = pytest.mark.once


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


def random_logits(num=700, num_classes=20):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, num_classes, num)
    return rng.normal(size=(num, num_classes)) + 2.5 * np.eye(num_classes)[labels], labels


def test_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, labels = random_logits()
    scores, taken = score_logits(logits, labels), logits.argmax(axis=1)
    assert scores.top1_accuracy == metrics.accuracy_score(labels, taken)
    assert scores.top5_accuracy == metrics.top_k_accuracy_score(labels, logits, k=5)
    assert scores.mean_per_class_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, taken))
    assert scores.loss == pytest.approx(metrics.log_loss(labels, np.exp(scoring.log_softmax(logits))))
    assert np.array_equal(scoring.confusion_matrix(logits, labels), metrics.confusion_matrix(labels, taken))


def test_calibration_error_is_that_of_its_authors():
    """`_ECELoss` of gpleiss/temperature_scaling, in NumPy: bins open below, closed above."""
    logits, labels = random_logits()
    probabilities = np.exp(scoring.log_softmax(logits))
    confidences, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    boundaries = np.linspace(0, 1, 16)
    expected = 0.0
    for lower, upper in zip(boundaries[:-1], boundaries[1:]):
        inside = (confidences > lower) & (confidences <= upper)
        if inside.any():
            expected += abs(confidences[inside].mean() - correct[inside].mean()) * inside.mean()
    assert scoring.expected_calibration_error(logits, labels) == pytest.approx(expected)
    assert sum(each.share for each in scoring.reliability(logits, labels)) == pytest.approx(1)


def test_the_temperature_is_found_again():
    """Labels drawn from the probabilities are calibrated; times 3, they are so at temperature 3."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 5))
    labels = np.array([rng.choice(5, p=np.exp(row)) for row in scoring.log_softmax(logits)])
    assert scoring.fit_temperature(3 * logits, labels).value == pytest.approx(3, rel=0.03)


def test_no_temperature_is_made_up():
    """Few pictures, none wrong, or probabilities that need none: there is no temperature, and a reason."""
    logits, labels = random_logits(num=1000)
    few = scoring.fit_temperature(logits[:99], labels[:99])
    assert few.value is None and "99 validation pictures are too few" in few.why
    perfect = scoring.fit_temperature(10.0 * np.eye(5)[np.arange(200) % 5], np.arange(200) % 5)
    assert perfect.value is None and "no minimum" in perfect.why
    # Probabilities that are calibrated need none; some samples of them show it on their held-out folds.
    rng, reasons = np.random.default_rng(0), set()
    for _ in range(5):
        calibrated = 2 * rng.normal(size=(150, 5))
        drawn = np.array([rng.choice(5, p=np.exp(row)) for row in scoring.log_softmax(calibrated)])
        reasons.add(scoring.fit_temperature(calibrated, drawn).why)
    assert any("held-out" in reason for reason in reasons), reasons


def test_an_answer_that_is_not_finite_is_wrong():
    logits = np.array([[np.nan, 0, 0], [0, np.inf, 0], [2, 0, 0]])
    assert scoring.is_correct(logits, [0, 1, 0]).tolist() == [False, False, True]
    assert scoring.is_correct(logits, [0, 1, 0], top_k=3).tolist() == [False, False, True]
