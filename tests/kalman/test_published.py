"""Numbers from the literature.

Log-likelihoods count all constants of Durbin & Koopman (2012), section 7.2: −½ log 2π for each observed sample, and
−½ log F∞ for those that close a diffuse direction; directions are unit vectors of the state.
"""

import numpy as np
import pandas as pd
import pytest
from sklearn.gaussian_process import kernels

from statespace import KalmanRegressor
from statespace.kalman import (
    CARMA,
    DampedOscillator,
    DummySeasonal,
    LinearGaussianModel,
    LocalLevel,
    LocalTrend,
    Seasonal,
)


def column(data_path, file, name):
    return pd.read_csv(data_path(f"classic_univariate/{file}"))[name].to_numpy(float)


def grid(y):
    return np.arange(float(len(y)))[:, None]


def test_nile(data_path):
    """Durbin & Koopman (2012), sections 2.2 and 7.3."""
    y = column(data_path, "nile.csv", "volume")
    gp = KalmanRegressor(LocalLevel(1469.1), noise_variance=15099.0, optimizer=None).fit(grid(y), y)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(-633.46456, abs=5e-6)
    fitted = KalmanRegressor(LocalLevel()).fit(grid(y), y)
    assert fitted.noise_variance_ == pytest.approx(15099, abs=2)
    assert fitted.process_.variance == pytest.approx(1469.1, abs=0.5)


def test_nile_with_two_stretches_missing(data_path):
    """Durbin & Koopman (2012), section 2.7: samples 21 to 40 and 61 to 80 are treated as missing."""
    y = column(data_path, "nile.csv", "volume")
    y[20:40] = y[60:80] = np.nan
    gp = KalmanRegressor(LocalLevel(1469.1), noise_variance=15099.0, optimizer=None).fit(grid(y), y)
    mean, std = gp.predict(grid(y), return_std=True)
    # Figure 2.5: between the stretches' ends the smoothed level is a straight line, its variance a parabola, greatest
    # in the middle.
    for first, last in ((19, 40), (59, 80)):
        np.testing.assert_allclose(np.diff(mean[first : last + 1], 2), 0.0, atol=1e-8)
        variance = std[first : last + 1] ** 2
        np.testing.assert_allclose(np.diff(variance, 3), 0.0, atol=1e-6)
        assert variance.argmax() in (10, 11)
    # The same from the joint precision of all levels, with no filter: P⁻¹ = DᵀD/q + I/r where there is a sample.
    difference = np.diff(np.eye(100), axis=0)
    seen = np.isfinite(y)
    precision = difference.T @ difference / 1469.1 + np.diag(seen / 15099.0)
    np.testing.assert_allclose(mean, np.linalg.solve(precision, np.where(seen, y, 0.0) / 15099.0), rtol=1e-9)
    np.testing.assert_allclose(std**2, np.diag(np.linalg.inv(precision)), rtol=1e-9)
    # Filtered in the gap the variance grows by q a year (figure 2.5, panel ii).
    stream = gp.fit(grid(y)[:20], y[:20]).stream()
    variances = [stream.step(np.nan, dt=1.0)[1] ** 2 for _ in range(20)]
    np.testing.assert_allclose(np.diff(variances), 1469.1, rtol=1e-9)


def test_drivers(data_path):
    """Durbin & Koopman (2012), section 8.2: UK drivers killed or seriously injured, log, level and seasonal."""
    y = np.log(column(data_path, "seatbelts.csv", "KSI"))
    gp = KalmanRegressor(LocalLevel() + Seasonal(12)).fit(grid(y), y)
    assert gp.noise_variance_ == pytest.approx(0.003416, abs=1e-6)
    assert gp.process_.components[0].variance == pytest.approx(0.000936, abs=1e-6)
    assert gp.process_.components[1].variance == pytest.approx(5.0e-7, abs=2e-8)


def test_airline(data_path):
    """The basic structural model, exact diffuse: 217.4204 with dummy seasonals, 216.2139 with trigonometric ones."""
    y = np.log(column(data_path, "Airline.csv", "Passengers"))
    dummies = KalmanRegressor(LocalTrend() + DummySeasonal(12)).fit(grid(y), y)
    assert dummies.log_marginal_likelihood_value_ == pytest.approx(217.4204, abs=1e-4)
    trigonometric = KalmanRegressor(LocalTrend() + Seasonal(12)).fit(grid(y), y)
    assert trigonometric.log_marginal_likelihood_value_ == pytest.approx(216.2139, abs=1e-4)


def test_dummies_are_those_of_statsmodels(data_path):
    models = pytest.importorskip("statsmodels.tsa.api")
    y = np.log(column(data_path, "Airline.csv", "Passengers"))
    y[[5, 6, 30]] = np.nan
    theirs = models.UnobservedComponents(y, "llevel", seasonal=12, use_exact_diffuse=True).loglike([1e-4, 7e-4, 6e-5])
    process = LocalLevel(7e-4) + DummySeasonal(12, 6e-5)
    gp = KalmanRegressor(process, noise_variance=1e-4, optimizer=None).fit(grid(y), y)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(theirs, rel=1e-9)
    # Rows that are left out, also for more than a round, are gaps of several steps.
    kept = np.isfinite(y) & ~((np.arange(144) > 50) & (np.arange(144) < 80))
    without = KalmanRegressor(process, noise_variance=1e-4, optimizer=None).fit(grid(y)[kept], y[kept])
    with_gaps = gp.fit(grid(y), np.where(kept, y, np.nan))
    assert without.log_marginal_likelihood_value_ == pytest.approx(with_gaps.log_marginal_likelihood_value_, rel=1e-10)
    with pytest.raises(ValueError, match="on a grid of its step"):
        gp.predict([[3.5]])


@pytest.mark.parametrize("form", ["covariance", "square_root"])
def test_a_series_that_shrinks_to_1e_109(form):
    """The numerical test of KFAS (Helske 2017), with a series drawn here: y_t = α_t y_{t−1}, α_t ~ N(0, q), unobserved.

    KFAS reports 14530.62 for its own series at q = 0.03556689, where the formula below gives 14530.63.
    """
    q, rng = 0.0356, np.random.default_rng(4)
    y = np.cumprod(np.append(9.5, np.sqrt(q) * rng.choice([-1.0, 1.0], 118) * rng.uniform(0.1, 1.2, 118)))
    y, before = y[1:], y[:-1]
    assert np.abs(y[-1]) < 1e-105
    H = np.stack([before, np.zeros(118)], axis=-1)[:, np.newaxis]
    start = {"initial_mean": [0.0, 1.0], "initial_covariance": np.diag([q, 0.0])}
    model = LinearGaussianModel(np.diag([0.0, 1.0]), H, np.diag([q, 0.0]), [[0.0]], **start, form=form)
    result = model.filter(y)
    assert (result.innovation_covariance > 0.0).all()
    np.testing.assert_allclose(result.innovation_covariance.ravel(), q * before**2, rtol=1e-12)
    expected = -0.5 * (np.log(2 * np.pi * q) + (y / before) ** 2 / q).sum() - np.log(np.abs(before)).sum()
    assert result.log_likelihood == pytest.approx(expected, rel=1e-13)
    assert model.log_likelihood(y) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("kind", ["carma", "oscillator"])
def test_a_light_curve_as_a_dense_gaussian_process(data_path, kind):
    """A MACHO star, irregular nights with the error of each: magnitudes around a constant that is diffuse."""
    table = pd.read_csv(data_path("macho_lightcurves/macho_5_objects.csv.gz"), dtype={"object": str})
    curve = next(iter(table[table["band"] == "B"].groupby("object")))[1].sort_values("mjd").iloc[:400]
    t, y, noise = curve["mjd"].to_numpy(), curve["mag"].to_numpy(), curve["err"].to_numpy() ** 2
    lags = np.abs(np.subtract.outer(t, t))
    if kind == "carma":
        # The sum of two Ornstein-Uhlenbeck processes, of which each knows its own kernel, is a CARMA(2, 1).
        process = CARMA((0.02, 0.3), (1.0, 4.0), 0.01)
        K = process.autocovariance(lags)
    else:
        process = DampedOscillator(frequency=1 / 60, quality=0.5, variance=0.02)
        K = 0.02 * kernels.Matern(length_scale=np.sqrt(3) * 60 / (2 * np.pi), nu=1.5)(t[:, None])
    level = 1e-12
    gp = KalmanRegressor(LocalLevel(level, variance_bounds="fixed") + process, optimizer=None)
    gp.fit(t[:, None], y, noise_variance=noise)
    K = K + level * np.minimum.outer(t - t[0], t - t[0]) + np.diag(noise)
    one = np.linalg.solve(K, np.ones(len(y)))
    rest = y - one @ y / one.sum()
    value = -0.5 * (rest @ np.linalg.solve(K, rest) + np.linalg.slogdet(K)[1] + np.log(one.sum()))
    value -= 0.5 * len(y) * np.log(2 * np.pi)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(value, rel=1e-9)
    mean, std = gp.predict(t[:, None], return_std=True)
    signal = K - np.diag(noise)
    expected = one @ y / one.sum() + signal @ np.linalg.solve(K, rest)
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    assert (std < np.sqrt(signal.diagonal().max())).all()
