"""PiecewiseNormal against SciPy's normal distribution and quadrature, and sktime's metrics of our forecasts."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sktime.forecasting.base import ForecastingHorizon
from sktime.performance_metrics.forecasting.probabilistic import CRPS, LogLoss, PinballLoss

from statespace.forecasting import KalmanForecaster, S4DForecaster
from statespace.forecasting.distribution import PiecewiseNormal
from statespace.kalman import LocalLevel
from statespace.quantiles import LEVELS

X = np.array([-9.0, -1.3, 0.2, 0.75, 3.0, 14.0])


def crps_of_normal(mean, std, y):
    z = (y - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))


def test_a_normal_distribution_is_met_exactly():
    ours, truth = PiecewiseNormal(0.5 + 2 * norm.ppf(LEVELS), LEVELS), norm(0.5, 2)
    for x in X:
        np.testing.assert_allclose(ours.cdf(x), truth.cdf(x), rtol=1e-9)
        np.testing.assert_allclose(ours.log_pdf(x), truth.logpdf(x), rtol=1e-9)
        np.testing.assert_allclose(ours.energy(x) - ours.energy() / 2, crps_of_normal(0.5, 2, x), rtol=1e-9)
    for p in (1e-4, 0.3, 0.5, 0.999):
        np.testing.assert_allclose(ours.ppf(p), truth.ppf(p), rtol=1e-9)
    np.testing.assert_allclose([ours.mean(), ours.var()], [0.5, 4.0], rtol=1e-9)


def test_closed_forms_of_a_skew_distribution_by_quadrature():
    quantiles = np.sort(np.random.default_rng(0).gamma(1.0, size=len(LEVELS)))
    ours = PiecewiseNormal(quantiles, LEVELS)
    knots = quantiles[1:-1]

    def integral(f, *jumps):
        edges = sorted({-30.0, *knots, *jumps, 60.0})
        return sum(quad(f, a, b, epsabs=1e-12)[0] for a, b in pairwise(edges))

    mean = integral(lambda x: x * ours.pdf(x))
    np.testing.assert_allclose(integral(lambda x: ours.pdf(x)), 1.0, rtol=1e-8)
    np.testing.assert_allclose(ours.mean(), mean, rtol=1e-8)
    np.testing.assert_allclose(ours.var(), integral(lambda x: (x - mean) ** 2 * ours.pdf(x)), rtol=1e-7)
    np.testing.assert_allclose(ours.energy(), 2 * integral(lambda x: ours.cdf(x) * (1 - ours.cdf(x))), rtol=1e-7)
    for x in (0.1, knots[3], 5.0):
        expected = integral(lambda t, x=x: (ours.cdf(t) - (t >= x)) ** 2, x)
        np.testing.assert_allclose(ours.energy(x) - ours.energy() / 2, expected, rtol=1e-6)


def test_tables_slices_and_jumps():
    table = np.sort(np.random.default_rng(1).normal(size=(4, 1, len(LEVELS))), axis=-1)
    table[2, 0, 3:6] = table[2, 0, 3]
    ours = PiecewiseNormal(table, LEVELS, index=pd.Index(list("abcd")), columns=pd.Index(["y"]))
    assert ours.shape == (4, 1)
    x = pd.DataFrame({"y": [0.3, table[2, 0, 3]]}, index=list("bc"))
    np.testing.assert_allclose(ours.cdf(x).loc["b"], PiecewiseNormal(table[1, 0], LEVELS).cdf(0.3))
    np.testing.assert_allclose(ours.cdf(x).loc["c"], 0.5)  # all of the jump
    np.testing.assert_allclose(ours.iloc[[1]].var(), ours.var().iloc[[1]])
    np.testing.assert_allclose(ours.quantile(list(LEVELS)).to_numpy(), table[:, 0], atol=1e-12)
    assert np.isfinite(ours.sample(3).to_numpy()).all()


def series(n=80):
    return pd.Series(np.cumsum(np.random.default_rng(0).normal(size=n)), index=pd.RangeIndex(n), name="y")


def test_scores_of_a_gaussian_forecast_are_the_closed_forms():
    y = series()
    model = KalmanForecaster(LocalLevel(1.0), noise_variance=0.5, optimizer=None).fit(y[:60], fh=np.arange(1, 21))
    truth, distribution = y[60:], model.predict_proba()
    mean, std = model.predict().to_numpy(), np.sqrt(model.predict_var().to_numpy()[:, 0])
    np.testing.assert_allclose(CRPS()(truth, distribution), crps_of_normal(mean, std, truth).mean(), rtol=1e-9)
    np.testing.assert_allclose(LogLoss()(truth, distribution), -norm.logpdf(truth, mean, std).mean(), rtol=1e-9)
    quantiles = model.predict_quantiles(alpha=[0.1, 0.7])
    errors = truth.to_numpy()[:, None] - quantiles.to_numpy()
    expected = np.maximum(np.array([0.1, 0.7]) * errors, (np.array([0.1, 0.7]) - 1) * errors).mean()
    np.testing.assert_allclose(PinballLoss()(truth, quantiles), expected)


@pytest.mark.parametrize("calibrate", [False, True])
def test_the_distribution_of_a_deep_forecast_is_that_of_its_quantiles(calibrate):
    y = series(200)
    model = S4DForecaster(
        d_model=4, n_layers=1, d_state=4, max_epochs=1, windows_per_epoch=8, context_length=16, max_horizon=10,
        device="cpu", random_state=0, calibrate=calibrate,
    ).fit(y[:180])  # fmt: skip
    fh = ForecastingHorizon(y.index[180:], is_relative=False)
    distribution, truth = model.predict_proba(fh), y[180:]
    np.testing.assert_allclose(distribution.ppf(0.5).iloc[:, 0], model.predict(fh))
    asked = [0.003, 0.2, 0.95]
    np.testing.assert_allclose(distribution.quantile(asked), model.predict_quantiles(fh, alpha=asked), rtol=1e-9)
    np.testing.assert_allclose(distribution.var(), model.predict_var(fh), rtol=1e-4)
    # The CRPS is the pinball loss over all levels, twice.
    levels = (np.arange(2000) + 0.5) / 2000
    pinball = PinballLoss()(truth, model.predict_quantiles(fh, alpha=levels))
    np.testing.assert_allclose(CRPS()(truth, distribution), 2 * pinball, rtol=2e-3)
    assert np.isfinite(LogLoss()(truth, distribution))
    with pytest.raises(ValueError, match="marginal=False"):
        model.predict_proba(fh, marginal=False)


def test_heavy_tails_have_their_own_distribution():
    y = series()
    model = KalmanForecaster(LocalLevel(1.0), noise_variance=0.5, noise="student_t", df=3.0, optimizer=None).fit(y)
    asked = [1e-4, 0.05, 0.5, 0.99]
    found = model.predict_proba([1, 2]).quantile(asked)
    np.testing.assert_allclose(found, model.predict_quantiles([1, 2], alpha=asked), rtol=1e-2)
