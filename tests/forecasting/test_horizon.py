import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import ForecastingHorizon

from statespace.forecasting.horizon import TimeAxis

START = pd.Timestamp("2020-01-31")
IRREGULAR = pd.DatetimeIndex(["2020-01-01", "2020-01-03", "2020-01-04 12:00", "2020-01-10"])


@pytest.mark.parametrize("freq", ["D", "W-SUN", "MS", "ME", "QS", "YS", "2MS", "h", "90min", "B"])
def test_a_regular_index_counts_its_steps(freq):
    index = pd.date_range(START, periods=40, freq=freq)
    axis = TimeAxis.of([index[:20]])
    np.testing.assert_allclose(axis.count(index), np.arange(40), rtol=0, atol=1e-12)
    np.testing.assert_allclose(axis.count(index[5:]), np.arange(5, 40), rtol=0, atol=1e-12)


@pytest.mark.parametrize("freq", ["M", "Q", "2M", "D", "h"])
def test_periods_count_their_steps(freq):
    index = pd.period_range("2020-01", periods=10, freq=freq)
    np.testing.assert_array_equal(TimeAxis.of([index]).count(index), np.arange(10))


def test_before_the_origin_and_between_calendar_steps():
    index = pd.date_range("2021-03-01", periods=4, freq="MS")
    axis = TimeAxis.of([index])
    given = pd.DatetimeIndex(["2020-03-01", "2021-03-16 12:00"])
    np.testing.assert_allclose(axis.count(given), [-12.0, 0.5])


def test_a_local_day_is_a_step_also_when_the_clock_is_set():
    index = pd.date_range("2024-03-29", periods=5, freq="D", tz="Europe/Berlin")
    np.testing.assert_allclose(TimeAxis.of([index]).count(index), np.arange(5.0))


@pytest.mark.parametrize(("unit", "factor"), [(None, 1.0), ("h", 24.0), ("2D", 0.5)])
def test_irregular_datetimes_are_counted_in_a_unit(unit, factor):
    np.testing.assert_allclose(TimeAxis.of([IRREGULAR], unit=unit).count(IRREGULAR), factor * np.array([0, 2, 3.5, 9]))


def test_a_unit_overrides_the_frequency():
    index = pd.date_range("2021-01-01", periods=3, freq="MS")
    np.testing.assert_allclose(TimeAxis.of([index], unit="D").count(index), [0, 31, 59])


@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_integers_are_median_gaps_on_an_irregular_index(tz):
    index = IRREGULAR.tz_localize(tz)
    axis = TimeAxis.of([index])
    found = axis.future(ForecastingHorizon([-1, 1, 2]), index[[-1]])
    assert list(found) == [index[-1] + k * pd.Timedelta("2D") for k in (-1, 1, 2)]
    assert found.tz == index.tz


@pytest.mark.parametrize(
    ("index", "fh", "expected"),
    [
        (pd.Index([3, 7, 20]), [1, 4], pd.Index([21, 24])),
        (pd.period_range("2020-01", periods=3, freq="M"), [1, 2], pd.PeriodIndex(["2020-04", "2020-05"], freq="M")),
        (pd.date_range("2020-01-31", periods=2, freq="ME"), [1], pd.DatetimeIndex(["2020-03-31"])),
        (IRREGULAR, pd.to_timedelta(["1D", "36h"]), pd.DatetimeIndex(["2020-01-11", "2020-01-11 12:00"])),
        (IRREGULAR, pd.DatetimeIndex(["2020-02-01"]), pd.DatetimeIndex(["2020-02-01"])),
    ],
)
def test_future(index, fh, expected):
    found = TimeAxis.of([index]).future(ForecastingHorizon(fh), index[[-1]])
    assert list(found) == list(expected)


def test_another_kind_of_index_is_refused():
    axis = TimeAxis.of([IRREGULAR])
    with pytest.raises(ValueError, match="fitted on datetimes"):
        axis.count(pd.period_range("2020", periods=2, freq="D"))
    with pytest.raises(ValueError, match="fitted on datetimes"):
        axis.count(IRREGULAR.tz_localize("UTC"))
    with pytest.raises(TypeError, match="Use integers"):
        TimeAxis.of([pd.Index([1, 2])]).future(ForecastingHorizon(pd.to_timedelta(["1D"])), pd.Index([2]))
