"""Conformal bounds: ranks against a count by hand, coverage against the exact law, hierarchies against enumeration."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from statespace.conformal import conformal_quantile, group_weights, least_samples, outward_quantile

LEVELS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.55, 0.7, 0.8, 0.9, 0.95, 0.99]


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 19, 20, 49, 99, 100])
@pytest.mark.parametrize("level", LEVELS)
def test_the_rank_is_that_of_exact_arithmetic(n, level):
    scores = np.random.default_rng(n).permutation(np.arange(1, n + 1))
    rank = math.ceil(Fraction(str(level)) * (n + 1))
    assert conformal_quantile(scores, level) == (rank if rank <= n else np.inf)
    assert (rank <= n) == (n >= least_samples(level))


def test_levels_of_zero_and_one():
    assert conformal_quantile([2.0, 1.0], 0.0) == 1.0
    assert conformal_quantile([2.0, 1.0], 1.0) == np.inf
    assert conformal_quantile([2.0, 1.0], 1.0, test_weight=0.0) == 2.0


def test_every_order_of_exchangeable_scores_is_covered_as_promised():
    scores = [0.3, 0.3, 1.0, 2.0, 5.0, 5.0]  # with ties
    for level in LEVELS:
        covered = [last <= conformal_quantile(rest, level) for *rest, last in itertools.permutations(scores)]
        assert np.mean(covered) >= level - 1e-12
    distinct = [0.1, 0.3, 1.0, 2.0, 5.0, 6.0]
    for level in LEVELS:
        covered = np.mean([p[-1] <= conformal_quantile(p[:-1], level) for p in itertools.permutations(distinct)])
        assert level - 1e-12 <= covered <= level + 1 / 6 + 1e-12


def test_whole_weights_are_repeated_scores():
    rng = np.random.default_rng(0)
    scores, weights = rng.normal(size=12), rng.integers(0, 4, size=12)
    expected = conformal_quantile(np.repeat(scores, weights), LEVELS)
    np.testing.assert_array_equal(conformal_quantile(scores, LEVELS, weights), expected)


def test_columns_and_missing_scores_are_each_by_themselves():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(30, 2, 3))
    scores[rng.random(scores.shape) < 0.3] = np.nan
    scores[:, 1, 2] = np.nan
    weights = rng.random(30)
    together = conformal_quantile(scores, LEVELS, weights)
    assert together.shape == (len(LEVELS), 2, 3)
    assert np.isinf(together[:, 1, 2]).all()
    for i, j in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        known = ~np.isnan(scores[:, i, j])
        alone = conformal_quantile(scores[known, i, j], LEVELS, weights[known])
        np.testing.assert_array_equal(together[:, i, j], alone)
    assert conformal_quantile(scores, 0.5, weights).shape == (2, 3)


def test_steps_of_a_new_series_are_covered_on_average():
    """Over every choice of the new series among six of unlike length and spread: the mean share of its steps."""
    rng = np.random.default_rng(2)
    series = [
        spread * rng.normal(size=n) for n, spread in [(1, 9.0), (40, 1.0), (7, 3.0), (200, 0.1), (3, 5.0), (15, 2.0)]
    ]
    for level in (0.3, 0.5, 0.7, 0.8):
        shares = []
        for new in range(6):
            rest = [row for k, row in enumerate(series) if k != new]
            groups = np.repeat(np.arange(5), [len(row) for row in rest])
            q = conformal_quantile(np.abs(np.concatenate(rest)), level, group_weights(groups))
            shares.append(np.mean(np.abs(series[new]) <= q))
        assert np.mean(shares) >= level


def test_pooled_steps_without_weights_would_not_be():
    """The case for `group_weights`: long quiet series would hide the short loud ones."""
    scores = np.concatenate([np.full(1000, 0.1), [5.0], [6.0], [7.0]])
    groups = np.repeat(np.arange(4), [1000, 1, 1, 1])
    assert conformal_quantile(scores, 0.6) == 0.1
    assert conformal_quantile(scores, 0.6, group_weights(groups)) == 6.0


def test_outward_quantiles_bound_their_own_side():
    scores = np.random.default_rng(3).gamma(1.0, size=(57, 2))
    low, middle, high = outward_quantile(scores, [0.1, 0.5, 0.9])
    np.testing.assert_array_equal(high, conformal_quantile(scores, 0.9))
    np.testing.assert_array_equal(low, np.sort(scores, axis=0)[math.floor(0.1 * 58) - 1])
    np.testing.assert_array_equal(middle, np.median(scores, axis=0))
    assert outward_quantile([1.0, 2.0], 0.1) == -np.inf
    assert outward_quantile([1.0, 4.0], 0.5) == 2.5
    many = outward_quantile(scores, np.linspace(0.02, 0.98, 97))
    assert (np.diff(many, axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 0.9), "at least one sample"),
        (([1.0], 1.2), "between 0 and 1"),
        (([1.0], [0.1, np.nan]), "between 0 and 1"),
        (([1.0, 2.0], 0.5, [1.0]), "weights must be 2"),
        (([1.0, 2.0], 0.5, [1.0, -1.0]), "weights must be 2"),
        (([1.0, 2.0], 0.5, None, -1.0), "test_weight must not be negative"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        conformal_quantile(*arguments)
    if len(arguments[0]):
        with pytest.raises(ValueError, match=message):
            outward_quantile(*arguments)


def test_no_number_of_samples_gives_certainty():
    with pytest.raises(ValueError, match="less than 1"):
        least_samples(1.0)
