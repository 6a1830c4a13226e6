"""Cycles against statsmodels on a unit grid, oscillators against celerite2's kernel and dense conditioning."""

import numpy as np
import pytest

from statespace import KalmanRegressor
from statespace.kalman import Cycle, DampedOscillator, Matern

RNG = np.random.default_rng(0)


def value(process, t, y, noise):
    return (
        KalmanRegressor(process, noise_variance=noise, optimizer=None).fit(t[:, None], y).log_marginal_likelihood_value_
    )


def dense(K, y, noise):
    K = K + noise * np.eye(len(y))
    return -0.5 * (y @ np.linalg.solve(K, y) + np.linalg.slogdet(K)[1] + len(y) * np.log(2 * np.pi))


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.999])
def test_cycle_is_that_of_statsmodels(rho):
    models = pytest.importorskip("statsmodels.tsa.api")
    y = RNG.normal(size=80)
    theirs = models.UnobservedComponents(y, irregular=True, cycle=True, stochastic_cycle=True, damped_cycle=True)
    # It starts nearly diffuse, though it is stationary, and leaves the first two samples out.
    theirs.update([0.3, 0.4, 2 * np.pi / 7, rho])
    theirs.ssm.initialize_stationary()
    theirs.ssm.loglikelihood_burn = 0
    expected = theirs.ssm.loglike()
    ours = Cycle(period=7.0, damping=-np.log(rho), variance=0.4 / (1 - rho**2))
    assert value(ours, np.arange(80.0), y, 0.3) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("quality", [0.05, 0.3, 0.49, 0.7, 5.0, 100.0])
def test_oscillator_is_that_of_celerite(quality):
    celerite2 = pytest.importorskip("celerite2")
    t, y = np.cumsum(RNG.exponential(size=150)), RNG.normal(size=150)
    term = celerite2.terms.SHOTerm(sigma=np.sqrt(3.0), rho=5.0, Q=quality)
    theirs = celerite2.GaussianProcess(term, mean=0.0)
    theirs.compute(t, diag=np.full(150, 0.1))
    ours = value(DampedOscillator(frequency=0.2, quality=quality, variance=3.0), t, y, 0.1)
    assert ours == pytest.approx(theirs.log_likelihood(y), rel=1e-9)


def test_critical_damping_is_a_matern_and_nothing_jumps_there():
    t, y = np.cumsum(RNG.exponential(size=60)), RNG.normal(size=60)
    frequency = 0.2
    matern = value(Matern(1.5, np.sqrt(3) / (2 * np.pi * frequency), 3.0), t, y, 0.1)
    values = [
        value(DampedOscillator(frequency, q, 3.0), t, y, 0.1) for q in 0.5 + np.array([-1e-7, -1e-12, 0, 1e-12, 1e-7])
    ]
    assert values[2] == pytest.approx(matern, rel=1e-12)
    np.testing.assert_allclose(values, matern, rtol=1e-6)
    np.testing.assert_allclose(values[1:4], matern, rtol=1e-11)


@pytest.mark.parametrize("process", [Cycle(), Cycle(period=8.0), DampedOscillator()], ids=repr)
def test_a_swing_is_found(process):
    t = np.cumsum(RNG.exponential(size=400))
    truth = Cycle(period=9.0, damping=0.03, variance=2.0)
    paths = KalmanRegressor(truth, noise_variance=0.05, optimizer=None).fit([[-1e6]], [0.0])
    y = paths.sample_y(t[:, None], random_state=1, include_noise=True)[:, 0]
    gp = KalmanRegressor(process).fit(t[:, None], y)
    found = 1 / gp.process_.frequency if isinstance(process, DampedOscillator) else gp.process_.period
    assert found == pytest.approx(9.0, rel=0.05)
    if isinstance(process, Cycle):
        assert gp.log_marginal_likelihood_value_ >= value(truth, t, y, 0.05)
