"""sktime's checks for LTIFilter, irregular indexes, panels, and pipelines."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler
from sktime.transformations.compose import TransformerPipeline
from sktime.transformations.series.adapt import TabularToSeriesAdaptor
from sktime.utils.estimator_checks import check_estimator

from statespace.lti import LinearSystem
from statespace.lti import LTIFilter as SeriesFilter
from statespace.transformations import LTIFilter


def irregular(n, seed=0, tz=None):
    hours = np.cumsum(np.random.default_rng(seed).exponential(size=n))
    return pd.Timestamp("2024-03-30", tz=tz) + pd.to_timedelta(hours, unit="h")


@pytest.mark.filterwarnings("ignore")
def test_sktimes_checks():
    results = check_estimator(LTIFilter, raise_exceptions=False, verbose=False)
    assert {name: repr(result)[:200] for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) > 40


@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
@pytest.mark.parametrize("zero_phase", [False, True])
def test_irregular_index(tz, zero_phase):
    index = irregular(80, tz=tz)
    y = pd.Series(np.random.default_rng(1).normal(size=80), index=index, name="level")
    y.iloc[[3, 40]] = np.nan
    filtered = LTIFilter(cutoff=4.0, zero_phase=zero_phase).fit_transform(y)
    assert filtered.index.equals(index)
    expected = SeriesFilter(cutoff=4.0, zero_phase=zero_phase).fit_transform([y.to_numpy()], times=[index])[0]
    np.testing.assert_allclose(filtered, expected)
    by_the_hour = LTIFilter(cutoff=4.0 / 24, zero_phase=zero_phase, time_unit="h").fit_transform(y)
    np.testing.assert_allclose(by_the_hour, filtered, rtol=1e-9, atol=1e-12)


def test_panels_are_filtered_series_by_series():
    frames = {name: pd.DataFrame({"a": np.arange(n) % 3.0, "b": 1.0}, index=irregular(n, seed=n))
              for name, n in (("x", 30), ("y", 17))}  # fmt: skip
    panel = pd.concat(frames, names=["series", "time"])
    model = LTIFilter(cutoff=3.0).fit(panel)
    filtered = model.transform(panel)
    assert filtered.index.equals(panel.index)
    for name, frame in frames.items():
        np.testing.assert_allclose(filtered.loc[name], model.transform(frame))
    np.testing.assert_allclose(filtered["b"], 1.0)
    deep = pd.concat({"plant": panel}, names=["site"])
    np.testing.assert_array_equal(LTIFilter(cutoff=3.0).fit_transform(deep), filtered)


@pytest.mark.parametrize("freq", ["M", "D", "h"])
def test_periods(freq):
    y = pd.Series(np.arange(30.0), index=pd.period_range("2020-01", periods=30, freq=freq))
    filtered = LTIFilter(zero_phase=True).fit_transform(y)
    assert filtered.index.equals(y.index)


def test_in_a_pipeline():
    y = pd.Series(np.random.default_rng(0).normal(size=50), index=irregular(50))
    pipe = TransformerPipeline([LTIFilter(cutoff=4.0), TabularToSeriesAdaptor(StandardScaler())])
    np.testing.assert_allclose(pipe.fit_transform(y).std(ddof=0), 1.0)


def test_a_system_as_the_filter():
    lag = LinearSystem(-1.0, 1.0, 1.0)
    model = LTIFilter(kind=lag)
    filtered = model.clone().fit_transform(pd.Series(np.ones(5)))
    np.testing.assert_array_equal(filtered, 1.0)
    assert model.get_params()["kind"] is lag
