"""Intervals and tests against other libraries and against what must hold."""

import numpy as np
import pytest
import scipy.stats

from keras_dogs.evaluation import intervals

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("right", "count"), [(0, 20), (20, 20), (599, 600), (510, 600)])
def test_a_share_has_clopper_and_pearsons_interval(right, count):
    values = np.arange(count) < right
    expected = scipy.stats.binomtest(right, count).proportion_ci(method="exact")
    assert intervals.share_interval(values) == pytest.approx((expected.low, expected.high))
    statsmodels = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    assert intervals.share_interval(values) == pytest.approx(
        statsmodels.proportion_confint(right, count, method="beta")
    )


def test_seeds_that_agree_are_no_more_pictures():
    """Three runs that answer alike have the interval of one; three that do not have a narrower one."""
    one = RNG.random(600) < 0.85
    assert intervals.share_interval(np.mean([one] * 3, axis=0)) == pytest.approx(intervals.share_interval(one))
    several = np.mean([RNG.random(600) < 0.85 for _ in range(3)], axis=0)
    widths = [high - low for low, high in map(intervals.share_interval, (one, several))]
    assert widths[1] < 0.7 * widths[0]


def test_no_interval_is_without_width():
    for values in (np.ones(600), np.zeros(3)):
        low, high = intervals.share_interval(values)
        assert low < values.mean() < high or low < values.mean() == high == 1 or 0 == low == values.mean() < high
        low, high = intervals.difference_interval(values * 0)
        assert low < 0 < high


def test_a_difference_has_bonett_and_prices_interval():
    """By hand: 8 pictures that only the first names correctly, 2 that only the second does, of 50."""
    differences = np.array([1] * 8 + [-1] * 2 + [0] * 40)
    first, second = 9 / 52, 3 / 52
    error = ((first + second - (first - second) ** 2) / 52) ** 0.5
    expected = (first - second - 1.959964 * error, first - second + 1.959964 * error)
    assert intervals.difference_interval(differences) == pytest.approx(expected)


def test_mcnemar_is_the_binomial_test():
    assert intervals.mcnemar(0, 0) == 1.0
    # By hand: 2 x (1 + 9 + 36) / 2**9.
    assert intervals.mcnemar(2, 7) == intervals.mcnemar(7, 2) == pytest.approx(2 * (1 + 9 + 36) / 512)
    statsmodels = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    for table in ([[50, 3], [11, 36]], [[10, 25], [31, 9]]):
        found = intervals.mcnemar(table[0][1], table[1][0])
        assert found == pytest.approx(statsmodels.mcnemar(table, exact=True).pvalue)


def test_holm_is_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert intervals.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
    assert intervals.holm([]) == [] and intervals.holm([0.6, 0.7]) == [1.0, 1.0]


def draw_runs(accuracy: float, spread: float, seeds: int, pictures: int) -> np.ndarray:
    skills = np.clip(accuracy + spread * RNG.normal(size=(seeds, 1)), 0, 1)
    return RNG.random((seeds, pictures)) < skills


@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_models_are_rarely_called_unequal(seeds):
    """Seeds that lie apart by 2.2 points; at 5 %, 500 tests have at most 40 false alarms but for one time in 500."""
    alarms = sum(
        intervals.p_over_seeds(draw_runs(0.85, 0.022, seeds, 600), draw_runs(0.85, 0.022, seeds, 600)) < 0.05
        for _ in range(500)
    )
    assert alarms <= 40


def test_unequal_models_are_told_apart():
    assert intervals.p_over_seeds(draw_runs(0.9, 0.01, 3, 600), draw_runs(0.7, 0.01, 3, 600)) < 0.01
    one, other = draw_runs(0.9, 0, 1, 600), draw_runs(0.7, 0, 1, 600)
    only = (one & ~other).sum(), (other & ~one).sum()
    assert intervals.p_over_seeds(one, other) == intervals.mcnemar(*map(int, only)) < 0.01
