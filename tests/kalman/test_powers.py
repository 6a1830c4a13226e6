"""θ as products of powers: the same likelihood and gradient as by copies of the components."""

import copy
import pickle

import numpy as np
import pytest

from statespace import KalmanRegressor
from statespace.kalman import (
    CARMA,
    Cycle,
    DampedOscillator,
    DummySeasonal,
    LevelShift,
    LocalLevel,
    LocalTrend,
    Matern,
    OrnsteinUhlenbeck,
    Regression,
    Seasonal,
)
from statespace.kalman.powers import powers

RNG = np.random.default_rng(0)
T = np.cumsum(RNG.choice([0.8, 1.3, 2.1], size=80))
Y = np.sin(T / 3) + 0.02 * T + 0.2 * RNG.normal(size=80)
Y[5::17] = np.nan
X = np.column_stack([T, RNG.normal(size=80)])

PROCESSES = {
    "level": LocalLevel(),
    "trend": LocalTrend(),
    "seasonal": LocalTrend() + Seasonal(12.0, 3),
    "a free period": LocalLevel() + Seasonal(12.0, 2, period_bounds=(6.0, 24.0)),
    "ou": OrnsteinUhlenbeck() + LocalLevel(variance_bounds="fixed"),
    "matern 3/2": LocalLevel() + Matern(1.5),
    "matern 5/2": Matern(2.5) + Matern(0.5),
    "cycle": LocalLevel() + Cycle(9.0) + LevelShift(30.0),
    "oscillator": LocalTrend() + DampedOscillator(),
    "covariates": LocalLevel() + Regression(variance=0.1),
}


def posed(process, y=Y, **options):
    t = X if "Regression" in repr(process) else T[:, None]
    gp = KalmanRegressor(process, optimizer=None, **options).fit(t, y)
    return gp._estimation.likelihood, gp.theta_ - gp._estimation.shift


@pytest.mark.parametrize("name", PROCESSES)
def test_the_same_as_by_copies(name):
    likelihood, theta = posed(PROCESSES[name])
    points = theta + np.random.default_rng(1).normal(size=(4, len(theta)))
    copied = [posed(PROCESSES[name])[0].gradient(point) for point in points]
    for _ in range(3):
        likelihood.value(theta)
    assert likelihood._ready
    for point, (value, slope) in zip(points, copied, strict=True):
        assert likelihood.value(point) == pytest.approx(value, rel=1e-12, abs=1e-10)
        found = likelihood.gradient(point)
        assert found[0] == pytest.approx(value, rel=1e-12, abs=1e-10)
        np.testing.assert_allclose(found[1], slope, rtol=1e-9, atol=1e-8)
        # in any order
        assert likelihood.value(theta) != pytest.approx(value)


@pytest.mark.parametrize("noise", [0.04, RNG.uniform(0.01, 0.1, 80)], ids=["one", "each"])
def test_known_noises_and_outputs(noise):
    both = np.column_stack([Y, Y[::-1]])
    likelihood, theta = posed(LocalLevel() + Matern(), both, noise_variance=0.04)
    if np.ndim(noise):
        gp = KalmanRegressor(LocalLevel() + Matern(), optimizer=None).fit(T[:, None], both, noise_variance=noise)
        likelihood, theta = gp._estimation.likelihood, gp.theta_ - gp._estimation.shift
    value, slope = likelihood.gradient(theta + 0.3)
    for _ in range(3):
        likelihood.value(theta)
    found = likelihood.gradient(theta + 0.3)
    assert len(likelihood._ready) == 2
    assert found[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(found[1], slope, rtol=1e-9)


def test_many_series():
    gp = KalmanRegressor(LocalLevel() + Matern(), optimizer=None).fit([T[:, None], T[:30, None]], [Y, Y[:30]])
    likelihood, theta = gp._estimation.likelihood, gp.theta_ - gp._estimation.shift
    value, slope = likelihood.gradient(theta + 0.3)
    for _ in range(3):
        likelihood.value(theta)
    found = likelihood.gradient(theta + 0.3)
    assert found[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(found[1], slope, rtol=1e-9)


@pytest.mark.parametrize("process", [CARMA((0.3, 1.0), (1.0,)), DummySeasonal(4), LocalLevel() + DummySeasonal(4)])
def test_what_is_no_product_of_powers(process):
    assert powers(process) is None


def test_a_closed_form_that_says_it_is_one_but_is_not():
    class Shifted(LocalLevel):
        def blocks(self, gaps=None):
            blocks = super().blocks(gaps)
            return blocks._replace(parameters=blocks.parameters + np.array([[0.5, 0.0, 0.0]]))

    assert powers(Shifted()) is None


def test_a_fitted_estimator_can_be_copied_and_pickled():
    gp = KalmanRegressor(LocalLevel() + Matern()).fit(T[:, None], Y)
    assert gp._estimation.likelihood._ready
    for other in (pickle.loads(pickle.dumps(gp)), copy.deepcopy(gp)):
        for _ in range(4):
            found = other.log_marginal_likelihood(gp.theta_)
            assert found == pytest.approx(gp.log_marginal_likelihood_value_, rel=1e-12)
        # what one of them writes is not the other's
        other.log_marginal_likelihood(gp.theta_ + 1.0)
        assert gp.log_marginal_likelihood() == pytest.approx(gp.log_marginal_likelihood_value_, rel=1e-12)
