"""The time of a pandas index as float64, and what a forecasting horizon means on it, on grids and off them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from statespace.times import elapsed, gaps


@dataclass(frozen=True)
class TimeAxis:
    """One clock for the indexes of a fit, its updates and its forecasts.

    Time is counted from ``origin``

    - in steps of its frequency on a PeriodIndex, or on a DatetimeIndex whose ``freq`` is set;
    - in its own units on an integer index;
    - in ``unit`` on any other DatetimeIndex, and on every DatetimeIndex or PeriodIndex if a unit was asked for.

    Parameters
    ----------
    origin : int, Period or Timestamp
        Time zero.
    freq : DateOffset or None
        The step of a regular index.
    unit : str or None
        The unit of datetimes; None counts steps of ``freq``.
    step : int, DateOffset or Timedelta
        What one step of a relative integer horizon is: 1, the frequency, or the median gap.

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.forecasting.horizon import TimeAxis
    >>> months = pd.period_range("2020-01", periods=3, freq="M")
    >>> TimeAxis.of([months]).count(months)
    array([0., 1., 2.])
    >>> days = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-06"])
    >>> axis = TimeAxis.of([days])
    >>> axis.count(days), axis.step
    (array([0., 1., 4., 5.]), Timedelta('1 days 00:00:00'))
    """

    origin: Any
    freq: Any
    unit: str | None
    step: Any

    @classmethod
    def of(cls, indexes, unit=None, freq=None):
        """The axis of one or several series.

        Parameters
        ----------
        indexes : list of Index
            Of integers, periods or datetimes, one for each series.
        unit : str, optional
            The unit in which datetimes are counted. None: steps of the frequency where there is one, else days.
        freq : DateOffset, optional
            The frequency, where the indexes have lost it.
        """
        for index in indexes:
            if len(index) == 0:
                raise ValueError("Found a series without samples while a minimum of 1 is required: y must hold one.")
        first = indexes[0]
        origin = min(index[0] for index in indexes)
        if isinstance(first, pd.PeriodIndex):
            return cls(origin, first.freq, unit, first.freq)
        if not isinstance(first, pd.DatetimeIndex):
            return cls(int(origin), None, None, 1)
        freq = freq if freq is not None else first.freq
        if freq is not None:
            return cls(origin, freq, unit, freq)
        positive = np.concatenate([gaps(index, unit="ns")[1:] for index in indexes])
        positive = positive[positive > 0]
        gap = np.median(positive) if len(positive) else pd.Timedelta(1, unit="D").value
        return cls(origin, None, "D" if unit is None else unit, pd.Timedelta(int(gap), unit="ns"))

    def count(self, index):
        """The time of every entry of ``index`` since the origin, float64 of shape (n,).

        Raises
        ------
        ValueError
            If the index is of another kind than the one the axis was made from.
        """
        self._check(index)
        if isinstance(index, pd.PeriodIndex):
            if self.unit is None:
                return (index.asi8 - self.origin.ordinal) / self.freq.n
            return elapsed(index.to_timestamp(), origin=self.origin.to_timestamp(), unit=self.unit)
        if not isinstance(index, pd.DatetimeIndex):
            return (index.to_numpy(dtype=np.int64) - self.origin).astype(np.float64)
        if self.unit is not None:
            return elapsed(index, origin=self.origin, unit=self.unit)
        if isinstance(self.freq, pd.offsets.Tick):
            return elapsed(index, origin=self.origin, unit=pd.Timedelta(self.freq))
        return _calendar_steps(index.tz_localize(None), self.origin.tz_localize(None), self.freq)

    def future(self, fh, cutoff):
        """The index that a horizon means for a series that ends at ``cutoff``.

        Parameters
        ----------
        fh : ForecastingHorizon
        cutoff : Index of length 1
            The last time of the series.

        Returns
        -------
        Index
            Sorted. Integers that are relative count units of an integer index, steps of the frequency, or median gaps
            of an irregular DatetimeIndex.

        Raises
        ------
        TypeError, ValueError
            If the horizon is of another kind than the index.
        """
        values = fh.to_pandas()
        if not fh.is_relative:
            self._check(values)
            if isinstance(values, pd.DatetimeIndex) and values.tz is not None:
                values = values.tz_convert(self.origin.tz)
            return values
        if isinstance(values, pd.TimedeltaIndex) and not isinstance(cutoff, pd.DatetimeIndex | pd.PeriodIndex):
            raise TypeError(
                f"fh of Timedeltas needs an index of datetimes or periods, y has {self._kind()}. Use integers."
            )
        if isinstance(cutoff, pd.DatetimeIndex) and not isinstance(values, pd.TimedeltaIndex):
            return _add_steps(cutoff[0], values, self.step)
        return fh.to_absolute_index(cutoff)

    def _kind(self):
        if isinstance(self.origin, pd.Period):
            return f"periods of frequency {self.freq.freqstr!r}"
        if isinstance(self.origin, pd.Timestamp):
            return "datetimes" + ("" if self.origin.tz is None else f" in the time zone {self.origin.tz}")
        return "integers"

    def _check(self, index):
        if isinstance(self.origin, pd.Period):
            fits = isinstance(index, pd.PeriodIndex) and index.freq == self.freq
        elif isinstance(self.origin, pd.Timestamp):
            fits = isinstance(index, pd.DatetimeIndex) and (index.tz is None) == (self.origin.tz is None)
        else:
            fits = not isinstance(index, pd.PeriodIndex | pd.DatetimeIndex | pd.TimedeltaIndex)
        if not fits:
            raise ValueError(
                f"the forecaster was fitted on {self._kind()}, and this index is a {type(index).__name__} of dtype "
                f"{index.dtype}. Give times of the same kind."
            )


def _add_steps(cutoff, steps, step):
    """cutoff + k step for every integer k; in one go where a step is a length of time, else through the calendar."""
    if isinstance(step, pd.Timedelta):
        return pd.TimedeltaIndex(step * np.asarray(steps)) + cutoff
    index = pd.DatetimeIndex([cutoff + int(k) * step for k in steps])
    if len(index) > 1 and (np.diff(steps) == 1).all() and step.is_on_offset(cutoff):
        index.freq = step
    return index


def _calendar_steps(index, origin, freq):
    """Steps of a calendar frequency since ``origin``, in between by linear interpolation: half of February is 0.5."""
    later = _grid(index.max(), origin, freq, 1)
    earlier = _grid(index.min(), origin, freq, -1)
    grid = earlier[:0:-1].append(later)
    steps = np.arange(1 - len(earlier), len(later), dtype=np.float64)
    return np.interp(elapsed(index, origin=origin), elapsed(grid, origin=origin), steps)


def _grid(end, origin, freq, sign):
    """origin, origin ± freq, origin ± 2 freq, ... until it reaches ``end``."""
    n = 16
    while True:
        grid = pd.date_range(start=origin, periods=n, freq=sign * freq)
        if (grid[-1] - end) * sign >= pd.Timedelta(0):
            return grid
        n *= 2


def common_freq(indexes):
    """The frequency that all series of a panel show, if they do: a MultiIndex carries none.

    Parameters
    ----------
    indexes : list of Index
        The times of each series.

    Returns
    -------
    DateOffset or None

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.forecasting.horizon import common_freq
    >>> months = pd.DatetimeIndex(list(pd.date_range("2020", periods=5, freq="MS")))
    >>> common_freq([months, months[1:]])
    <MonthBegin>
    """

    if not isinstance(indexes[0], pd.DatetimeIndex) or min(map(len, indexes)) < 3:
        return None
    found = {pd.infer_freq(index) for index in indexes}
    freq = found.pop()
    return pd.tseries.frequencies.to_offset(freq) if not found and freq is not None else None
