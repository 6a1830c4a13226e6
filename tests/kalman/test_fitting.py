"""The search for the maximum: its starts, and that it ends where the likelihood is greatest."""

import numpy as np
import pytest

from statespace import KalmanRegressor
from statespace.kalman import Cycle, LocalLevel, LocalTrend, Matern, Seasonal
from statespace.kalman.fitting import _to_scale, scout

# No bursts: eight diffuse directions would be told apart by differences of near numbers.
T = np.cumsum(np.random.default_rng(0).choice([0.8, 1.3, 2.1], size=150))
Y = np.sin(T / 3) + 0.02 * T + 0.2 * np.random.default_rng(1).normal(size=150)
Y[5::17] = np.nan


def likelihood_of(process):
    """The likelihood in scaled units, its θ, and which of θ are variances."""
    gp = KalmanRegressor(process, optimizer=lambda objective, theta, bounds: (theta, 0.0)).fit(T[:, None], Y)
    estimation = gp._estimation
    return estimation.likelihood, gp.theta_ - estimation.shift, estimation._is_variance


@pytest.mark.parametrize(
    "process", [LocalTrend() + Seasonal(12.0, 3), Matern(1.5), LocalLevel() + Cycle(9.0)], ids=repr
)
def test_every_start_has_the_best_scale(process):
    likelihood, theta, is_variance = likelihood_of(process)
    points = theta + np.random.default_rng(2).normal(size=(4, len(theta)))
    values = np.array([likelihood.value(point) for point in points])
    scaled, expected = _to_scale(likelihood, points, values, is_variance)
    np.testing.assert_allclose(expected, [likelihood.value(point) for point in scaled], rtol=1e-9)
    assert (expected >= values - 1e-9).all()
    for point in scaled:
        _, gradient = likelihood.gradient(point)
        # No more to be had by a common factor.
        assert abs(gradient[is_variance].sum()) < 1e-5


def test_given_values_stay():
    likelihood, theta, is_variance = likelihood_of(LocalTrend(level_variance=0.3))
    ranges = np.column_stack([theta - 2.0, theta + 2.0])
    ranges[0] = theta[0]
    for start in scout(likelihood, ranges, is_variance, 3):
        assert start[0] == theta[0]


def test_several_maxima():
    """A sum of like processes, whose likelihood has lesser maxima where one of them takes all."""
    rng = np.random.default_rng(3)
    t = np.arange(300.0)
    fast = rng.multivariate_normal(np.zeros(300), np.exp(-np.abs(np.subtract.outer(t, t)) / 2.0))
    y = np.cumsum(0.15 * rng.normal(size=300)) + 0.8 * fast
    gp = KalmanRegressor(LocalTrend() + Matern(0.5)).fit(t[:, None], y)
    restarted = KalmanRegressor(LocalTrend() + Matern(0.5), n_restarts_optimizer=6, random_state=0).fit(t[:, None], y)
    assert gp.log_marginal_likelihood_value_ >= restarted.log_marginal_likelihood_value_ - 1e-3


def test_a_rough_search_ends_at_the_maximum_of_the_likelihood_itself():
    """Weekly samples tell yearly harmonics apart badly: only the end of the search is worth the exact start."""
    rng = np.random.default_rng(3)
    t = np.sort(rng.choice(400, 300, replace=False)) / 52.18
    y = 0.5 * t + 2 * np.sin(2 * np.pi * t) + np.sin(4 * np.pi * t + 1) + 0.3 * rng.normal(size=300)
    model = KalmanRegressor(LocalTrend() + Seasonal(1.0, 3)).fit(t[:, np.newaxis], y)
    estimation = model._estimation
    theta, scaled = model.theta_, model.theta_ - estimation.shift
    exact, rough = estimation.likelihood, estimation.likelihood.roughly()
    assert rough.value(scaled) != exact.value(scaled)
    assert abs(rough.value(scaled) - exact.value(scaled)) < 0.05
    _, gradient = model.log_marginal_likelihood(theta, eval_gradient=True)
    assert np.abs(gradient[np.exp(theta) > 1e-8]).max() < 1e-2
