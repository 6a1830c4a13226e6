"""KalmanSmoother: equal to the regressor, any index, gaps, panels, pipelines, sktime's checks."""

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.naive import NaiveForecaster
from sktime.transformations.compose import TransformerPipeline
from sktime.utils.estimator_checks import check_estimator

from statespace import KalmanRegressor
from statespace.forecasting import KalmanForecaster
from statespace.kalman import LocalLevel, LocalTrend, Regression, Seasonal
from statespace.transformations import KalmanSmoother

RNG = np.random.default_rng(0)
DAYS = np.sort(RNG.choice(2000, 40, replace=False)) / 10.0
DAYS -= DAYS[0]
INDEX = pd.Timestamp("2024-03-01") + pd.to_timedelta(DAYS, unit="D")
VALUES = np.sin(DAYS / 20) + 0.2 * RNG.normal(size=40)
VALUES[[3, 20, 21]] = np.nan
Y = pd.Series(VALUES, index=INDEX, name="level")
KNOWN = {"process": LocalLevel(0.1), "noise_variance": 0.04, "optimizer": None}


def regressor(values=VALUES, **options):
    return KalmanRegressor(**(KNOWN | options)).fit(DAYS[:, np.newaxis], values)


def test_modes():
    mean, std = regressor().predict(DAYS[:, np.newaxis], return_std=True)
    smooth = KalmanSmoother(**KNOWN).fit_transform(Y)
    assert smooth.index.equals(Y.index)
    assert smooth.name == "level"
    np.testing.assert_allclose(smooth, mean, rtol=1e-9)
    imputed = KalmanSmoother(**KNOWN, mode="impute").fit_transform(Y)
    np.testing.assert_allclose(imputed, np.where(np.isnan(VALUES), mean, VALUES), rtol=1e-9)
    filtered = KalmanSmoother(**KNOWN, mode="filter", return_std=True).fit_transform(Y)
    for k in (1, 10, 20, 39):
        past = VALUES.copy()
        past[k + 1 :] = np.nan
        expected = regressor(past).predict(DAYS[[k], np.newaxis], return_std=True)
        np.testing.assert_allclose(filtered.iloc[k], np.ravel(expected), rtol=1e-8)
    both = KalmanSmoother(**KNOWN, return_std=True).fit_transform(Y)
    np.testing.assert_allclose(both.iloc[:, 1], std, rtol=1e-9)
    assert np.isfinite(both).all(axis=None)


def test_a_start_that_the_past_leaves_open_is_smoothed():
    late = Y.copy()
    late.iloc[:4] = np.nan
    filtered = KalmanSmoother(**KNOWN, mode="filter").fit_transform(late)
    smooth = KalmanSmoother(**KNOWN).fit_transform(late)
    assert filtered.notna().all()
    np.testing.assert_allclose(filtered.iloc[:4], smooth.iloc[:4])
    np.testing.assert_allclose(filtered.iloc[-1], smooth.iloc[-1])


def test_components_and_columns():
    frame = pd.DataFrame({"a": VALUES, "b": VALUES[::-1]}, index=INDEX)
    options = {"process": LocalTrend(0.01, 0.001) + Seasonal(30.0, 1, 0.001), "noise_variance": 0.04, "optimizer": None}
    table = KalmanSmoother(**options, components=True, return_std=True).fit_transform(frame)
    names = [f"{c}{part}" for c in "ab" for part in ("", "__std", "__local_trend", "__seasonal")]
    assert [*table.columns] == names
    np.testing.assert_allclose(table["b__local_trend"] + table["b__seasonal"], table["b"], rtol=1e-9)
    alone = KalmanSmoother(**options).fit_transform(frame["b"])
    np.testing.assert_allclose(table["b"], alone, rtol=1e-9)


def test_parameters_are_those_of_fit_and_data_are_those_of_transform():
    smoother = KalmanSmoother(LocalLevel()).fit(Y.iloc[:25])
    inside = smoother.regressors_[0]
    later = smoother.transform(Y.iloc[25:])
    expected = KalmanRegressor(inside.process_, noise_variance=inside.noise_variance_, optimizer=None)
    expected = expected.fit(DAYS[25:, np.newaxis], VALUES[25:]).predict(DAYS[25:, np.newaxis])
    np.testing.assert_allclose(later, expected, rtol=1e-7)
    before = smoother.transform(Y)
    smoother.update(Y.iloc[25:])
    np.testing.assert_array_equal(smoother.transform(Y), before)


@pytest.mark.parametrize("kind", ["period", "freq", "range", "integers"])
def test_time_is_counted_as_by_the_forecaster(kind):
    index = {
        "period": pd.period_range("2015-01", periods=40, freq="M"),
        "freq": pd.date_range("2015-01-01", periods=40, freq="MS"),
        "range": pd.RangeIndex(40),
        "integers": pd.Index(np.cumsum(RNG.integers(1, 4, 40))),
    }[kind]
    process = LocalLevel(0.1) + Seasonal(12, harmonics=1, variance=0.01)
    y = pd.Series(VALUES, index=index)
    options = {"process": process, "noise_variance": 0.04, "optimizer": None}
    smooth = KalmanSmoother(**options).fit_transform(y)
    forecaster = KalmanForecaster(**options).fit(y)
    time = forecaster._axis.count(index)[:, np.newaxis]
    np.testing.assert_allclose(smooth, forecaster.regressor_.predict(pd.DataFrame(time, columns=["time"])), rtol=1e-9)


def test_panels_of_any_lengths():
    panel = pd.concat({"a": Y.to_frame(), "b": Y.iloc[:30].to_frame()}, names=["series", "time"])
    smooth = KalmanSmoother(**KNOWN).fit_transform(panel)
    np.testing.assert_allclose(smooth.loc["b", "level"], KalmanSmoother(**KNOWN).fit_transform(Y.iloc[:30]), rtol=1e-9)
    assert smooth.index.equals(panel.index)


def test_covariates_come_as_y():
    x = pd.DataFrame({"dose": RNG.normal(size=40)}, index=INDEX)
    y = Y + 3 * x["dose"]
    smooth = KalmanSmoother(LocalLevel(0.01) + Regression(), noise_variance=0.04, optimizer=None).fit(y, x)
    without = y - smooth.transform(y, x)
    assert without.std() < 0.5
    with pytest.raises(ValueError, match="reads covariates: give them as y"):
        KalmanSmoother(Regression()).fit(y)
    with pytest.raises(ValueError, match="a row of covariates for every time"):
        smooth.transform(y, x.iloc[:-1])


def test_outliers_and_noise_of_another_family():
    spoiled = Y.copy()
    spoiled.iloc[10] += 50
    clean = KalmanSmoother(**KNOWN).fit_transform(Y)
    robust = KalmanSmoother(**KNOWN, noise="student_t", df=4).fit_transform(spoiled)
    assert np.abs(robust - clean).max() < 0.3
    assert np.abs(KalmanSmoother(**KNOWN).fit_transform(spoiled) - clean).max() > 10


def test_in_pipelines():
    index = pd.period_range("2015-01", periods=40, freq="M")
    y = pd.Series(VALUES, index=index)
    pipeline = KalmanSmoother(**KNOWN, mode="impute") * NaiveForecaster()
    imputed = KalmanSmoother(**KNOWN, mode="impute").fit_transform(y)
    assert pipeline.fit(y, fh=[1, 2]).predict().iloc[0] == pytest.approx(imputed.iloc[-1])
    twice = TransformerPipeline([KalmanSmoother(**KNOWN), KalmanSmoother(**KNOWN)]).fit_transform(y)
    once = KalmanSmoother(**KNOWN).fit_transform(y)
    np.testing.assert_allclose(twice, KalmanSmoother(**KNOWN).fit_transform(once), rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "y", "words"),
    [
        ({"mode": "denoise"}, Y, "mode must be 'smooth', 'filter' or 'impute'. Got 'denoise'"),
        ({"mode": "filter", "components": True}, Y, "components=True needs mode"),
        ({"noise": "cauchy"}, Y, "noise must be"),
        ({}, Y * np.nan, "contains NaN only"),
    ],
)
def test_wrong_input(options, y, words):
    with pytest.raises(ValueError, match=words):
        KalmanSmoother(**(KNOWN | options)).fit(y)


def test_another_number_of_columns_is_refused():
    smoother = KalmanSmoother(**KNOWN).fit(Y)
    with pytest.raises(ValueError, match="X must have 1 columns, as in fit"):
        smoother._transform(pd.DataFrame({"a": VALUES, "b": VALUES}, index=INDEX))


@pytest.mark.filterwarnings("ignore")
def test_sktimes_checks():
    results = check_estimator(KalmanSmoother, raise_exceptions=False, verbose=False)
    assert {name: repr(result)[:200] for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) > 80
