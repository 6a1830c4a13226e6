"""Times keep their precision, and bad ones are named."""

import datetime as dt
import re
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statespace.times import as_times, check_length, check_same_clock, check_times, clock, elapsed, gaps, median_gap

NS = np.dtype("datetime64[ns]")
NOON = [dt.datetime(2024, 3, 1, 12), dt.datetime(2024, 3, 2, 12)]
ACCEPTED = {
    "floats": ([0.0, 1.5], np.float64, 1.5),
    "float32": (np.array([0, 1.5], dtype=np.float32), np.float64, 1.5),
    "ints": ([3, 5], np.float64, 2),
    "uint8, decreasing differences would wrap": (np.array([250, 255], dtype=np.uint8), np.float64, 5),
    "objects that are numbers": (np.array([1, 2.5], dtype=object), np.float64, 1.5),
    "nullable": (pd.array([1, 4], dtype="Int64"), np.float64, 3),
    "RangeIndex": (pd.RangeIndex(2), np.float64, 1),
    "Series": (pd.Series([0.0, 2.0], index=[5, 6]), np.float64, 2),
    "datetimes": (NOON, NS, 1),
    "timestamps": ([pd.Timestamp(t) for t in NOON], NS, 1),
    "dates": ([t.date() for t in NOON], NS, 1),
    "datetime64[D]": (np.array(NOON, dtype="datetime64[D]"), NS, 1),
    "datetime64[us]": (np.array(NOON, dtype="datetime64[us]"), NS, 1),
    "DatetimeIndex": (pd.DatetimeIndex(NOON), NS, 1),
    "DatetimeIndex with a zone": (pd.DatetimeIndex(NOON, tz="Asia/Tokyo"), NS, 1),
    "Series of datetimes with a zone": (pd.Series(pd.DatetimeIndex(NOON, tz="Asia/Tokyo")), NS, 1),
    "objects with a zone": ([t.replace(tzinfo=dt.UTC) for t in NOON], NS, 1),
    "objects with several zones": (
        [NOON[0].replace(tzinfo=dt.UTC), NOON[0].replace(tzinfo=dt.timezone(-dt.timedelta(hours=12)))], NS, 0.5,
    ),
    "PeriodIndex": (pd.period_range("2024-02", periods=2, freq="M"), NS, 29),
    "periods": (list(pd.period_range("2024-02", periods=2, freq="M")), NS, 29),
    "timedeltas": (pd.to_timedelta(["1h", "13h"]), np.dtype("timedelta64[ns]"), 0.5),
    "timedelta objects": ([dt.timedelta(0), dt.timedelta(days=2)], np.dtype("timedelta64[ns]"), 2),
    "one": ([7.0], np.float64, None),
    "none": ([], np.float64, None),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    times, dtype, gap = ACCEPTED[name]
    checked = check_times(times)
    assert checked.dtype == dtype
    assert checked.shape == (len(times),)
    if gap is not None:
        assert gaps(times)[1] == gap
        assert elapsed(times).tolist() == [0.0, gap]


REFUSED = {
    "decrease": ([0, 4.0, 2.5], "`times` of series 3 must not decrease: times[2] = 2.5 follows 4.0. Sort the rows"),
    "decrease late": (np.r_[0:18, 2.5], "times[18] = 2.5 follows 17.0"),
    "datetimes decrease": (NOON[::-1], "times[1] = 2024-03-01 12:00:00 follows 2024-03-02 12:00:00"),
    "NaN": ([0, 1, np.nan], "`times` of series 3 must be finite: times[2] = nan after 1.0. Drop the row"),
    "first is NaN": ([np.nan, 1], "must be finite: times[0] = nan. Drop"),
    "inf": ([0, np.inf], "must be finite: times[1] = inf after 0.0"),
    "NaT": (pd.DatetimeIndex([*NOON, None]), "must be finite: times[2] = NaT after 2024-03-02 12:00:00"),
    "NaT object": ([*NOON, pd.NaT], "must be finite: times[2] = NaT"),
    "None": ([1.0, None], "must be finite: times[1] = nan"),
    "NA": (pd.array([1, None], dtype="Int64"), "must be finite: times[1] = nan"),
    "text": (["2024-01-01", "2024-01-02"], "pd.to_datetime"),
    "text objects": (np.array(["a", 1.0], dtype=object), "pd.to_datetime"),
    "bools": ([True, False], "must be numbers, datetimes or timedeltas"),
    "complex": ([1j, 2j], "must be real"),
    "mixed zones": ([NOON[0], NOON[1].replace(tzinfo=dt.UTC)], "mix datetimes with and without a time zone"),
    "two dimensions": (np.zeros((2, 1)), "must be one-dimensional, got an array of shape (2, 1)"),
    "a number": (1.0, "must be one-dimensional, got an array of shape ()"),
    "ragged": ([[1], [2, 3]], "must be one-dimensional"),
    "levels": (pd.MultiIndex.from_tuples([(0, 1)], names=["series", "time"]), "must have one level"),
    "too old": (np.array(["1400-01-01"], dtype="datetime64[s]"), "must lie between 1677"),
    "too old objects": ([dt.datetime(1400, 1, 1)], "must lie between 1677"),
    "inexact": (np.array([2**62 + 1, 2**62 + 3]), "cannot be kept exactly in float64: times[0] = 4611686018427387905"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    times, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        check_times(times, series=3)
    assert "series 3" in str(caught.value)


def test_equal_times_by_flag():
    assert check_times([0, 1, 1, 2]).tolist() == [0, 1, 1, 2]
    with pytest.raises(ValueError, match=r"series 'a' must increase: times\[2\] = 1.0 follows 1.0. Merge"):
        check_times([0, 1, 1, 2], series="a", allow_equal=False)


def test_any_order_where_order_is_not_asked_for():
    assert as_times([3, 1, 2]).tolist() == [3, 1, 2]


def test_input_is_left_alone():
    times = np.array([3.0, 4.0])
    check_times(times)[0] = 3.0
    elapsed(times), gaps(times)
    assert times.tolist() == [3.0, 4.0]


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=20), st.sampled_from([1e9, -1e9, 2.0**32]))
def test_shift_changes_nothing(steps, shift):
    times = np.cumsum(steps) / 1024  # with the shift added still exact in float64
    np.testing.assert_array_equal(gaps(times + shift), gaps(times))
    np.testing.assert_array_equal(elapsed(times + shift), elapsed(times))
    assert median_gap([times + shift]) == median_gap([times])


def test_nanoseconds_survive_on_a_modern_date():
    times = pd.Timestamp("2024-05-17 13:00") + pd.to_timedelta([0, 1, 3, 10**9 + 7], unit="ns")
    assert gaps(times, unit="ns").tolist() == [0, 1, 2, 10**9 + 4]
    assert elapsed(times, unit="s")[1] == 1e-9
    assert elapsed(times, origin=times[-1], unit="ns")[0] == -(10**9 + 7)


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-31", [1, 1, 1]), ("2024-10-27", [1, 3, 1])], ids=["clocks forward", "clocks back"]
)
def test_clock_change_gives_true_gaps(day, hours):
    zone = ZoneInfo("Europe/Berlin")
    wall = {"2024-03-31": [0, 1, 3, 4], "2024-10-27": [0, 1, 3, 4]}[day]
    local = [dt.datetime.fromisoformat(f"{day} {h:02}:00").replace(tzinfo=zone) for h in wall]
    expected = [0.0, *hours]
    assert gaps(local, unit="h").tolist() == expected
    assert gaps(pd.DatetimeIndex(local), unit="h").tolist() == expected
    assert gaps(pd.Series(local), unit="h").tolist() == expected


def test_repeated_hour_is_in_order():
    twice = pd.date_range("2024-10-27 00:00", periods=5, freq="h", tz="Europe/Berlin")  # 02:00 stands there twice
    assert gaps(check_times(twice), unit="h")[1:].tolist() == [1, 1, 1, 1]


def test_spans_beyond_292_years():
    """The sunspot record is longer than whole nanoseconds can count."""
    times = pd.DatetimeIndex(["1700-01-01", "1700-01-02", "2008-01-01", "2008-01-01 00:00:00.000000001"])
    days = (dt.date(2008, 1, 1) - dt.date(1700, 1, 1)).days
    assert elapsed(times).tolist()[:3] == [0.0, 1.0, days]
    assert gaps(times)[1:3].tolist() == [1.0, days - 1]
    assert gaps(times, unit="ns")[3] == 1.0
    assert elapsed(times[:1], origin=times[2]).tolist() == [-days]


def test_units():
    times = pd.DatetimeIndex(["2024-01-01", "2025-01-01"])
    assert gaps(times, unit="365.25D")[1] == 366 / 365.25
    assert gaps(times, unit=pd.Timedelta("2D"))[1] == 183
    assert gaps([0, 5], unit="h")[1] == 5
    for unit, n in {"W": 366 / 7, "D": 366, "h": 366 * 24, "min": 527040, "s": 31622400, "ms": 31622400e3}.items():
        assert gaps(times, unit=unit)[1] == n
    with pytest.raises(ValueError, match="Got 'fortnight'"):
        gaps(times, unit="fortnight")


def test_first_gap():
    assert gaps([5.0, 6.0], first=1.0).tolist() == [1.0, 1.0]
    assert gaps(NOON, first=3.0).tolist() == [3.0, 1.0]
    assert gaps([]).shape == (0,)


def test_median_of_positive_gaps_over_all_series():
    assert median_gap([[0, 0, 1], [5], [0, 3, 3, 10]]) == 3.0
    assert median_gap([[2, 2], [5]]) == 1.0
    assert median_gap([]) == 1.0
    assert median_gap([NOON], unit="h") == 24.0


def test_kinds_do_not_mix():
    assert [clock(check_times(t)) for t in ([0], NOON, [dt.timedelta(1)])] == ["numbers", "datetimes", "timedeltas"]
    with pytest.raises(ValueError, match="must be numbers"):
        elapsed(NOON, origin=1.0)
    with pytest.raises(ValueError, match="must be datetimes"):
        check_same_clock(np.zeros(2), "datetimes")
    assert elapsed(NOON, origin=pd.Timestamp(NOON[0], tz="UTC")).tolist() == [0, 1]


def test_length():
    with pytest.raises(ValueError, match="series 2 must have one entry for each of the 20 rows, got 3"):
        check_length(np.zeros(3), 20, series=2)
