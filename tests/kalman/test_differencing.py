"""The likelihood by differencing is the filter's, and fits that search with it end where the filter's do."""

import numpy as np
import pytest

from statespace import KalmanRegressor
from statespace.kalman import (
    Cycle,
    DummySeasonal,
    LevelShift,
    LocalLevel,
    LocalTrend,
    LogNormal,
    Matern,
    OrnsteinUhlenbeck,
    Outlier,
    Regression,
    Seasonal,
    SlopeChange,
    fitting,
)
from statespace.kalman.differencing import Differenced, differenced, polynomial, unit_roots

RNG = np.random.default_rng(0)
T = np.arange(60.0)
Y = 0.3 * np.cumsum(RNG.normal(size=60)) + np.tile(RNG.normal(size=12), 5) + 0.2 * RNG.normal(size=60)


def posed(process, t=T, y=Y, **options):
    """The likelihood in scaled units, and a θ."""
    gp = KalmanRegressor(process, optimizer=None, **options).fit(t if np.ndim(t) == 2 else t[:, None], y)
    estimation = gp._estimation
    return estimation.likelihood, gp.theta_ - estimation.shift


def with_holes(y, *places):
    y = y.copy()
    y[list(places)] = np.nan
    return y


X = np.column_stack([T, RNG.normal(size=60), T**2])
KEPT = np.delete(np.arange(60), [7, 8, 30])
CASES = {
    "level": (LocalLevel(),),
    "trend": (LocalTrend(),),
    "trend with a smooth level": (LocalTrend(level_variance=1e-6, level_variance_bounds="fixed"),),
    "two levels": (LocalLevel() + LocalTrend(),),
    "seasonal": (LocalLevel() + Seasonal(12),),
    "few harmonics": (LocalTrend() + Seasonal(12, harmonics=3),),
    "a period that is no number of samples": (LocalLevel() + Seasonal(7.3, harmonics=2),),
    "two seasonals": (LocalLevel() + Seasonal(12, harmonics=2) + Seasonal(4),),
    "dummies": (LocalTrend() + DummySeasonal(12),),
    "dummies and harmonics": (LocalLevel() + DummySeasonal(4) + Seasonal(12),),
    "every other sample": (LocalLevel() + DummySeasonal(6, step=0.5),),
    "shift": (LocalLevel() + Seasonal(12) + LevelShift([20.0, 41.0]),),
    "outlier and bend": (LocalLevel() + Outlier(17.0) + SlopeChange(30.0),),
    "covariates": (LocalLevel() + Regression(), X),
    "missing": (LocalTrend() + Seasonal(12), T, with_holes(Y, 0, 5, 6, 30, 59)),
    "missing with a shift": (LocalLevel() + Seasonal(12) + LevelShift(20.0), T, with_holes(Y, 13)),
    "rows that are left out": (LocalTrend() + DummySeasonal(12), KEPT.astype(float), Y[KEPT]),
    "outputs": (LocalLevel() + Seasonal(12), T, np.column_stack([Y, with_holes(Y[::-1], 9)])),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_the_filter(name):
    likelihood, theta = posed(*CASES[name])
    quick = differenced(likelihood)
    assert quick is not None
    for shift in np.random.default_rng(1).normal(size=(4, len(theta))):
        at = theta + 1.5 * shift
        value, slope = likelihood.gradient(at)
        found = quick.information(at)
        assert found[0] == pytest.approx(value, rel=1e-9, abs=1e-8)
        np.testing.assert_allclose(found[1], slope, rtol=1e-6, atol=1e-6)
        assert quick.value(at) == pytest.approx(value, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("noise", [0.3, 0.0])
def test_a_known_noise(noise):
    likelihood, theta = posed(LocalLevel() + Seasonal(12), noise_variance=noise)
    assert differenced(likelihood).value(theta) == pytest.approx(likelihood.value(theta), rel=1e-9)


@pytest.mark.parametrize("name", ["seasonal", "shift", "missing", "outputs"])
def test_the_best_common_factor(name):
    likelihood, theta = posed(*CASES[name])
    quick = differenced(likelihood)
    assert quick.has_scale
    factor, value = quick.scaled(theta - 1.0)
    value_there, slope = likelihood.gradient(theta - 1.0 + factor)
    assert value == pytest.approx(value_there, rel=1e-10)
    assert abs(slope.sum()) < 1e-6
    assert not differenced(posed(*CASES[name], noise_variance=0.1)[0]).has_scale


def test_the_head_of_a_record():
    likelihood, theta = posed(LocalLevel() + Seasonal(12) + LevelShift(50.0))
    for n in (25, 40, 60):
        assert differenced(likelihood).head(n).value(theta) == pytest.approx(likelihood.head(n).value(theta), rel=1e-9)


@pytest.mark.parametrize(
    "case",
    [
        (LocalTrend(), np.cumsum(RNG.uniform(0.5, 1.5, 60))),
        (LocalTrend(), np.repeat(T[:30], 2)),
        (LocalLevel() + Matern(),),
        (LocalLevel() + Cycle(),),
        (OrnsteinUhlenbeck(),),
        (LocalLevel() + Seasonal(12, harmonics=2, period_bounds=(10, 14)),),
        (LocalLevel() + Regression(variance=1.0), X),
        (LocalLevel() + LevelShift(20.0, variance=1.0),),
        (LocalLevel() + LevelShift(0.0),),
        (LocalTrend(), T, with_holes(Y, *range(10, 40))),
    ],
    ids=repr,
)
def test_where_it_does_not_apply(case):
    assert differenced(posed(*case)[0]) is None


def test_many_series_and_each_samples_noise_are_for_the_filter():
    both = KalmanRegressor(LocalLevel(), optimizer=None).fit([T[:, None], T[:30, None]], [Y, Y[:30]])
    assert differenced(both._estimation.likelihood) is None
    known = KalmanRegressor(LocalLevel(), optimizer=None).fit(T[:, None], Y, noise_variance=np.full(60, 0.1))
    assert differenced(known._estimation.likelihood) is None


def test_polynomials():
    trend, seasonal = LocalTrend(), Seasonal(12)
    roots = unit_roots(trend.blocks(), trend.transition(1.0))
    roots += unit_roots(seasonal.blocks(), seasonal.transition(1.0))
    expected = np.convolve([1.0, -1.0], np.r_[1.0, np.zeros(11), -1.0])
    np.testing.assert_array_equal(polynomial(roots), expected)
    dummies = DummySeasonal(12)
    same = unit_roots(dummies.blocks(np.ones(1)), dummies.transition(1.0))
    np.testing.assert_array_equal(polynomial(same), np.ones(12))


@pytest.mark.parametrize("name", ["seasonal", "dummies", "shift", "missing", "outputs", "trend"])
def test_fits_end_where_the_filter_s_do(name, monkeypatch):
    process, t, y = CASES[name] if len(CASES[name]) == 3 else (*CASES[name], T, Y)
    used = []
    confirm = fitting.Search.confirm
    monkeypatch.setattr(fitting.Search, "confirm", lambda *given: used.append(confirm(*given)) or used[-1])
    quick = KalmanRegressor(process).fit(t[:, None], y)
    assert used == [True]
    monkeypatch.setattr("statespace.kalman.likelihood.differenced", lambda likelihood: None)
    slow = KalmanRegressor(process).fit(t[:, None], y)
    shortfall = slow.log_marginal_likelihood_value_ - quick.log_marginal_likelihood_value_
    assert shortfall < 1e-7


def test_a_likelihood_that_deviates_is_not_believed(monkeypatch):
    """The filter has the last word."""
    right = KalmanRegressor(LocalLevel() + Seasonal(12)).fit(T[:, None], Y)
    information, value = Differenced.information, Differenced.value
    monkeypatch.setattr(Differenced, "value", lambda self, theta: value(self, theta) + 1e-3 * theta.sum())

    def tilted(self, theta, wanted=True):
        found = information(self, theta, wanted)
        return (found[0] + 1e-3 * theta.sum(), found[1] + 1e-3, *found[2:])

    monkeypatch.setattr(Differenced, "information", tilted)
    found = KalmanRegressor(LocalLevel() + Seasonal(12)).fit(T[:, None], Y)
    assert found.log_marginal_likelihood_value_ == pytest.approx(right.log_marginal_likelihood_value_, abs=1e-7)


def test_priors_count():
    priors = {"noise_variance": LogNormal(0.5, 0.1)}
    quick = KalmanRegressor(LocalLevel() + Seasonal(12), priors=priors).fit(T[:, None], Y)
    assert abs(np.log(quick.noise_variance_ / 0.5)) < 0.3
    estimation = quick._estimation
    _, slope = estimation.objective.gradient(quick.theta_ - estimation.shift)
    assert np.abs(slope[-1]) < 1e-3
