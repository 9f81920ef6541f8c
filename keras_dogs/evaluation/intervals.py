"""Confidence intervals and tests of scores, in closed form, in NumPy and SciPy.

`benchmarks/statistical_claims.py` measures, on simulated data whose truth is known, how often each interval covers it
and how often each test is wrong; `docs/statistics.md` has the table. A mean loss has no interval here: a few wrong
answers carry it, and none that was tried (bootstrap, Student's t, Johnson's) covered the truth in 93 % of data sets.
"""

import numpy as np
import scipy.stats

CONFIDENCE = 0.95


def share_interval(values) -> tuple[float, float]:
    """Computes the 95 % interval of a share of right answers over pictures.

    The interval is Clopper and Pearson's (Biometrika 26, 1934). Where `values` are means over several runs, it is Korn
    and Graubard's (Survey Methodology 24, 1998): Clopper and Pearson's for the number of independent answers that have
    the same variance.

    Args:
        values: bool or float array `(num_pictures,)` in [0, 1]. Whether each answer is right, or in which share of the
            runs it is.

    Returns:
        The bounds, in [0, 1]. They are never equal.
    """
    values = np.asarray(values, np.float64)
    share, variance, count = values.mean(), values.var() / len(values), len(values)
    if variance > 0:
        count = max(share * (1 - share) / variance, count)
    right, tail = share * count, (1 - CONFIDENCE) / 2
    low = scipy.stats.beta.ppf(tail, right, count - right + 1) if right > 0 else 0.0
    high = scipy.stats.beta.ppf(1 - tail, right + 1, count - right) if right < count else 1.0
    return float(low), float(high)


def difference_interval(differences) -> tuple[float, float]:
    """Computes the 95 % interval of a mean difference of two classifiers on the same pictures.

    The interval is Bonett and Price's adjusted Wald interval (Journal of Educational and Behavioral Statistics 37,
    2012): one picture is added that only the first names correctly and one that only the second does.

    Args:
        differences: float array `(num_pictures,)` in [-1, 1]. Right answers of the first less those of the second, or
            their mean over runs.

    Returns:
        The bounds, in [-1, 1]. They are never equal.
    """
    mean, error = _adjusted(differences)
    reach = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    return float(max(mean - reach, -1.0)), float(min(mean + reach, 1.0))


def part_difference_interval(values, kept) -> tuple[float, float]:
    """Computes the 95 % interval of the share of right answers of a part of the pictures, less that of all.

    The pictures that stay and those that do not are two independent samples. The difference of their shares has Agresti
    and Caffo's interval (The American Statistician 54, 2000: one right and one wrong answer added to each), and the
    part differs from the whole by that times the share of pictures that do not stay.

    Args:
        values: bool array `(num_pictures,)`. Whether each answer is right.
        kept: bool array `(num_pictures,)`. The part.

    Returns:
        The bounds, in [-1, 1]; both are 0 where all or none stay.
    """
    values, kept = np.asarray(values, bool), np.asarray(kept, bool)
    if kept.all() or not kept.any():
        return 0.0, 0.0
    shares, variances = [], []
    for part in (values[kept], values[~kept]):
        share = (part.sum() + 1) / (len(part) + 2)
        shares.append(share)
        variances.append(share * (1 - share) / (len(part) + 2))
    reach = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * sum(variances) ** 0.5
    weight = 1 - kept.mean()
    difference = shares[0] - shares[1]
    return float(weight * max(difference - reach, -1.0)), float(weight * min(difference + reach, 1.0))


def _adjusted(differences) -> tuple[float, float]:
    """Returns the mean and standard error of differences, with one picture added for either side."""
    differences = np.asarray(differences, np.float64)
    count = len(differences) + 2
    mean = differences.sum() / count
    variance = (np.square(differences).sum() + 2) / count - mean**2
    return mean, (variance / count) ** 0.5


def mcnemar(only_first: int, only_second: int) -> float:
    """Computes the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947; binomial form).

    Args:
        only_first: int. Pictures that only the first classifier names correctly.
        only_second: int. Pictures that only the second does.
    """
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def p_over_seeds(first, second) -> float:
    """Computes the two-sided p-value of "both are equally good over pictures and seeds".

    With one seed, this is McNemar's exact test, and speaks of these two runs alone. With several, it is a t-test whose
    standard error holds both the spread of the seeds and that of the pictures, with the degrees of freedom of the
    seeds, two for each seed after the first: the pictures may make it cautious, never bold.

    Args:
        first: bool or float array `(num_seeds, num_pictures)`. Whether the first names each picture correctly, a seed
            each.
        second: the same of the second, on the same pictures; as many seeds.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(first) == 1:
        difference = first[0] - second[0]
        return mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
    differences = (first - second).mean(axis=0)
    of_seeds = sum(runs.mean(axis=1).var(ddof=1) for runs in (first, second)) / len(first)
    _, of_pictures = _adjusted(differences)
    statistic = abs(differences.mean()) / (of_seeds + of_pictures**2) ** 0.5
    return float(2 * scipy.stats.t.sf(statistic, 2 * (len(first) - 1)))


def holm(p_values) -> list[float]:
    """Adjusts the p-values of several tests that are read together (Holm, Scandinavian Journal of Statistics 6, 1979).

    The probability that any of them is below 0.05 by chance alone is at most 5 %.
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()
