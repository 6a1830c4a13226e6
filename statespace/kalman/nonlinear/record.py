"""y, times and u of one record as they are given -> checked arrays."""

from datetime import timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from statespace.forms import as_floats
from statespace.times import check_length, check_same_clock, check_times, clock, elapsed, gaps


class Record(NamedTuple):
    """One record.

    Attributes
    ----------
    y : ndarray of shape (T, p)
    t : ndarray of shape (T,)
        The times that functions are given.
    gaps : ndarray of shape (T,)
        Δ_k, the first 0.
    u : ndarray of shape (T, n_inputs) or None
    times : ndarray of shape (T,) or None
        As given, at full precision.
    """

    y: np.ndarray
    t: np.ndarray
    gaps: np.ndarray
    u: np.ndarray | None
    times: np.ndarray | None

    @classmethod
    def of(cls, y, times, unit):
        """Check values and times; there are no inputs yet.

        Parameters
        ----------
        y, times : array-like
        unit : str

        Returns
        -------
        Record
        """
        if times is None and isinstance(y, pd.Series | pd.DataFrame):
            index = y.index
            if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex | pd.PeriodIndex):
                times = index
        y = _values(y)
        if times is None:
            n = len(y)
            return cls(y, np.arange(float(n)), np.ones(n) * (np.arange(n) > 0), None, None)
        t, dt, times = clock_of(times, unit)
        check_length(times, len(y))
        return cls(y, t, dt, None, times)

    @staticmethod
    def inputs_of(u, n_times):
        """The inputs as a matrix.

        Parameters
        ----------
        u : array-like of shape (n_times,) or (n_times, n_inputs), or None
        n_times : int

        Returns
        -------
        ndarray of shape (n_times, n_inputs) or None
        """
        if u is None:
            return None
        u = _floats(u, "u")
        u = u[:, None] if u.ndim == 1 else u
        if u.ndim != 2 or len(u) != n_times:
            raise ValueError(f"u must have one row of inputs for each of the {n_times} samples. Got shape {u.shape}.")
        if not np.isfinite(u).all():
            k = int(np.argmax(~np.isfinite(u).all(axis=1)))
            raise ValueError(f"u must be finite: u[{k}] = {u[k].tolist()}. Hold the last input where one is missing.")
        return u

    def input(self, k):
        """ndarray of shape (n_inputs,) or None."""
        return None if self.u is None else self.u[k]


def _floats(values, name):
    try:
        return as_floats(values, name)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, with NaN where one is missing. Got {_kind(values)}.") from None


def _kind(values):
    array = np.asarray(values, dtype=object)
    return f"{array.flat[0]!r}" if array.size else "nothing"


def _values(y):
    y = _floats(y, "y")
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2:
        raise ValueError(f"y must be of shape (T,) or (T, p), one row a sample. Got shape {y.shape}.")
    if y.size == 0:
        raise ValueError(f"y must hold at least one sample, got shape {y.shape}.")
    infinite = np.isinf(y)
    if infinite.any():
        k, j = np.argwhere(infinite)[0]
        raise ValueError(f"y must be finite, or NaN where missing: y[{k}, {j}] = {y[k, j]}.")
    return y


def clock_of(times, unit, origin=None):
    """Times for functions, gaps, and the times as they were.

    Parameters
    ----------
    times : array-like of shape (T,)
    unit : str
        Of gaps between datetimes or timedeltas.
    origin : scalar, optional
        What datetimes are counted from; by default the first.

    Returns
    -------
    t : ndarray of shape (T,)
        Numbers as they are; datetimes since the origin.
    gaps : ndarray of shape (T,)
    times : ndarray of shape (T,)
    """
    times = check_times(times)
    t = times if clock(times) == "numbers" else elapsed(times, origin, unit=unit)
    return t, gaps(times, unit=unit), times


def gap_of(dt, unit):
    """A gap as a number.

    Parameters
    ----------
    dt : float, timedelta, timedelta64 or None
        None is 1.
    unit : str

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If it is negative or not finite.
    """
    if dt is None:
        return 1.0
    if isinstance(dt, timedelta | np.timedelta64):
        dt = elapsed(np.array([dt], dtype="timedelta64[ns]"), origin=np.timedelta64(0, "ns"), unit=unit)[0]
    dt = float(dt)
    if not 0.0 <= dt < np.inf:
        raise ValueError(f"dt must be finite and >= 0: the time since the sample before. Got {dt}.")
    return dt


def sample_of(y_t, n_outputs):
    """One sample as a vector.

    Parameters
    ----------
    y_t : float or array-like of shape (p,)
    n_outputs : int

    Returns
    -------
    ndarray of shape (p,)
    """
    y_t = np.atleast_1d(_floats(y_t, "y_t"))
    if y_t.shape != (n_outputs,):
        raise ValueError(f"y_t must have shape ({n_outputs},), NaN where missing. Got {y_t.shape}.")
    if np.isinf(y_t).any():
        raise ValueError(f"y_t must be finite, or NaN where missing. Got {y_t.tolist()}.")
    return y_t


def grid(n_times, times, u, unit):
    """The times and inputs of a draw.

    Parameters
    ----------
    n_times : int or None
        On a grid of gaps 1, where no times are given.
    times : array-like of shape (T,) or None
    u : array-like of shape (T,) or (T, n_inputs), or None
    unit : str

    Returns
    -------
    t, gaps : ndarray of shape (T,)
    inputs : ndarray of shape (T, n_inputs) or None
    """
    if (n_times is None) == (times is None):
        raise ValueError("Give one of n_times (a whole number of samples, gaps 1) and times.")
    if times is None:
        if int(n_times) != n_times or n_times < 1:
            raise ValueError(f"n_times must be a whole number >= 1. Got {n_times}.")
        t, gaps_between = np.arange(float(n_times)), np.ones(int(n_times))
    else:
        t, gaps_between, _ = clock_of(times, unit)
        if not len(t):
            raise ValueError("times must hold at least one sample, got none.")
    return t, gaps_between, Record.inputs_of(u, len(t))


def future_of(record, steps, times, unit):
    """The times of a forecast and their gaps, the first since the record's last sample.

    Parameters
    ----------
    record : Record
    steps : int or None
        Steps of the record's median gap.
    times : array-like or None
    unit : str

    Returns
    -------
    t, gaps : ndarray of shape (S,)
    """
    if (steps is None) == (times is None):
        raise ValueError("Give one of steps and future_times.")
    if times is None:
        if int(steps) != steps or steps < 1:
            raise ValueError(f"steps must be a whole number >= 1. Got {steps}.")
        positive = record.gaps[record.gaps > 0]
        gap = float(np.median(positive)) if len(positive) else 1.0
        return record.t[-1] + gap * np.arange(1, steps + 1), np.full(steps, gap)
    if record.times is None:
        t = check_times(times)
        if clock(t) != "numbers":
            raise ValueError("y was given without times: give the forecast steps, or times as numbers (0, 1, ...).")
        return t, gaps(check_times(np.concatenate([record.t[-1:], t])))[1:]
    t, _, later = clock_of(times, unit, record.times[0])
    check_same_clock(later, clock(record.times))
    return t, gaps(check_times(np.concatenate([record.times[-1:], later])), unit=unit)[1:]
