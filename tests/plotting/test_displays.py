"""Displays: the data that they draw, on Agg."""

import subprocess
import sys

import matplotlib
import matplotlib.dates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sktime.forecasting.naive import NaiveForecaster

from statespace import KalmanRegressor
from statespace.forecasting import KalmanForecaster
from statespace.kalman import LocalLevel, Regression, Seasonal
from statespace.kalman.diagnostics import autocorrelation
from statespace.plotting import ComponentsDisplay, DiagnosticsDisplay, ForecastDisplay

RNG = np.random.default_rng(0)
T = np.sort(RNG.uniform(0.0, 50.0, 60))
Y = np.sin(T / 4) + 0.2 * RNG.normal(size=60)
Y[7] = np.nan
PROCESS = LocalLevel(0.1) + Seasonal(25.0, 1, 0.001)
KNOWN = {"noise_variance": 0.04, "optimizer": None}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def regressor(X=T[:, np.newaxis], y=Y, process=PROCESS, **options):
    return KalmanRegressor(process, **(KNOWN | options)).fit(X, y)


def edges(band):
    """Lower and upper ends of a band by its place in time."""
    (path,) = band.get_paths()
    table = pd.DataFrame(path.vertices, columns=["x", "y"]).groupby("x")["y"].agg(["min", "max"])
    return table.index.to_numpy(), table["min"].to_numpy(), table["max"].to_numpy()


def test_forecast_of_a_regressor():
    gp, X = regressor(), np.array([[60.0], [55.0], [30.5]])
    display = ForecastDisplay.from_estimator(gp, X, coverage=[0.5, 0.9])
    history, mean = display.lines_
    np.testing.assert_array_equal(history.get_xdata(), T)
    np.testing.assert_array_equal(history.get_ydata(), Y)
    expected, std = gp.predict(X, return_std=True, include_noise=True)
    order = [2, 1, 0]
    np.testing.assert_array_equal(mean.get_xdata(), X[order, 0])
    np.testing.assert_allclose(mean.get_ydata(), expected[order])
    for band, coverage in zip(display.bands_, (0.9, 0.5), strict=True):
        times, low, high = edges(band)
        np.testing.assert_allclose(times, X[order, 0])
        width = norm.ppf((1 + coverage) / 2) * std[order]
        np.testing.assert_allclose(low, expected[order] - width)
        np.testing.assert_allclose(high, expected[order] + width)
    assert display.figure_ is display.ax_.figure
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["observed", "90%", "50%", "mean"]


def test_forecast_on_a_given_axis_with_datetimes_and_known_noise():
    when = pd.Timestamp("2024-01-01", tz="Europe/Berlin") + pd.to_timedelta(T, unit="D")
    gp = KalmanRegressor(PROCESS, optimizer=None).fit(when, Y, noise_variance=np.full(60, 0.04))
    _, ax = plt.subplots()
    display = ForecastDisplay.from_estimator(gp, when[:5], ax=ax, line_kw={"color": "red"}, band_kw={"alpha": 0.5})
    assert display.ax_ is ax
    assert display.lines_[1].get_color() == "red"
    assert display.bands_[0].get_alpha() == 0.5
    assert isinstance(ax.xaxis.get_major_formatter(), matplotlib.dates.AutoDateFormatter)
    mean, std = gp.predict(when[:5], return_std=True)
    np.testing.assert_allclose(edges(display.bands_[0])[2], mean + norm.ppf(0.95) * std)


@pytest.mark.parametrize("forecaster", [KalmanForecaster(PROCESS, **KNOWN), NaiveForecaster()])
def test_forecast_of_a_forecaster(forecaster):
    index = pd.period_range("2015-01", periods=60, freq="M")
    y = pd.Series(np.where(np.isnan(Y), 0.0, Y), index=index)
    forecaster = forecaster.clone().fit(y, fh=[1, 2, 3])
    display = ForecastDisplay.from_estimator(forecaster, coverage=0.8)
    history, mean = display.lines_
    np.testing.assert_array_equal(history.get_ydata(), y)
    np.testing.assert_array_equal(history.get_xdata(), index.to_timestamp().to_numpy())
    np.testing.assert_allclose(mean.get_ydata(), forecaster.predict())
    table = forecaster.predict_interval(coverage=0.8)
    _, low, high = edges(display.bands_[0])
    np.testing.assert_allclose(low, table.iloc[:, 0])
    np.testing.assert_allclose(high, table.iloc[:, 1])
    longer = ForecastDisplay.from_estimator(forecaster, fh=[1, 2, 3, 4], y=y.iloc[-5:])
    assert len(longer.lines_[0].get_xdata()) == 5
    assert len(longer.lines_[1].get_xdata()) == 4


def test_forecast_from_predictions():
    y = pd.Series([1.0, 2.0], index=[0, 1])
    display = ForecastDisplay.from_predictions([3, 2], [5.0, 4.0], std=[np.inf, 1.0], history=y, coverage=0.9)
    np.testing.assert_array_equal(display.lines_[1].get_ydata(), [4.0, 5.0])
    # Nothing is drawn where the end is infinite.
    assert all(len(path.vertices) == 0 or path.vertices[:, 0].max() <= 2 for path in display.bands_[0].get_paths())
    assert ForecastDisplay.from_predictions([3], [5.0]).bands_ == []


def test_components():
    gp = regressor()
    display = ComponentsDisplay.from_estimator(gp, coverage=0.9)
    table = gp.decompose(T[:, np.newaxis])
    assert [ax.get_ylabel() for ax in display.axes_] == ["local_level", "seasonal"]
    for name, line, band in zip(("local_level", "seasonal"), display.lines_, display.bands_, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), T)
        np.testing.assert_allclose(line.get_ydata(), table[name])
        np.testing.assert_allclose(edges(band)[2], table[name] + norm.ppf(0.95) * table[f"{name}_std"])
    _, axes = plt.subplots(2)
    other = ComponentsDisplay.from_estimator(gp, np.array([[60.0], [61.0]]), axes=axes)
    assert [*other.axes_] == [*axes]
    np.testing.assert_allclose(other.lines_[1].get_ydata(), gp.decompose([[60.0], [61.0]])["seasonal"])
    with pytest.raises(ValueError, match="axes must be 2"):
        ComponentsDisplay.from_estimator(gp, axes=axes[:1])


def test_components_with_covariates_outputs_and_a_forecaster():
    x = RNG.normal(size=60)
    frame = pd.DataFrame({"time": T, "dose": x})
    gp = regressor(frame, np.column_stack([Y, Y + x]), LocalLevel(0.1) + Regression("dose"))
    display = ComponentsDisplay.from_estimator(gp, output=1)
    np.testing.assert_allclose(display.lines_[1].get_ydata(), gp.decompose(frame)[1]["regression"])
    y = pd.Series(Y, index=pd.RangeIndex(60))
    forecaster = KalmanForecaster(PROCESS, **KNOWN).fit(y)
    assert len(ComponentsDisplay.from_estimator(forecaster).axes_) == 2


def test_diagnostics():
    order = RNG.permutation(60)
    gp = regressor(T[order, np.newaxis], Y[order])
    display = DiagnosticsDisplay.from_estimator(gp, lags=12)
    e = regressor().standardized_innovations()
    seen = np.isfinite(e)
    e = e[seen]
    innovations, density, quantiles, line = display.lines_
    np.testing.assert_array_equal(innovations.get_xdata(), T[seen])
    np.testing.assert_allclose(innovations.get_ydata(), e, rtol=1e-9)
    np.testing.assert_allclose(density.get_ydata(), norm.pdf(density.get_xdata()))
    assert sum(bar.get_height() * bar.get_width() for bar in display.bars_) == pytest.approx(1.0)
    np.testing.assert_allclose(quantiles.get_ydata(), np.sort(e))
    np.testing.assert_allclose(norm.cdf(quantiles.get_xdata())[[0, -1]], [0.625 / (len(e) + 0.25)] @ np.array(
        [[1.0, 0.0]]) + np.array([0.0, 1 - 0.625 / (len(e) + 0.25)]))  # fmt: skip
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    np.testing.assert_allclose(display.autocorrelations_, autocorrelation(e, 12), rtol=1e-9)
    band = display.axes_[3].collections[1]
    n = len(e)
    lags, _, high = edges(band)
    np.testing.assert_array_equal(lags, np.arange(1, 13))
    np.testing.assert_allclose(high, 1.96 * np.sqrt((n - lags) / (n * (n + 2))))


def test_the_correlograms_band_holds_what_it_says():
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(300):
        r = autocorrelation(rng.normal(size=40), 10)
        j = np.arange(1, 11)
        inside.append(np.abs(r) < 1.96 * np.sqrt((40 - j) / (40 * 42)))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ForecastDisplay.from_estimator(regressor()), "give X, the rows to predict"),
        (lambda: ForecastDisplay.from_estimator(regressor(), [[1.0]], coverage=90), "coverage must lie between"),
        (lambda: DiagnosticsDisplay.from_predictions([1.0, np.nan]), "three residuals at least"),
        (lambda: DiagnosticsDisplay.from_predictions([1.0, 2.0, 0.0], lags=5), "lags must lie between"),
    ],
)
def test_wrong_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_matplotlib_is_imported_when_something_is_drawn_and_asked_for_where_it_is_missing():
    code = """
import sys
sys.modules["matplotlib"] = None
sys.modules["matplotlib.pyplot"] = None
from statespace.plotting import ForecastDisplay
display = ForecastDisplay([0.0], [1.0])
try:
    display.plot()
except ImportError as error:
    assert "statespace-learn[plot]" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
