"""Where a stream stands in time, whether samples come with their times or with the gaps between them."""

from datetime import timedelta

import numpy as np
import pandas as pd

from statespace.times import as_times, check_same_clock, check_same_zone, clock, elapsed, gaps, has_zone

# Gaps this near to a multiple of the median gap, in proportion, are that multiple but for rounding.
_ROUNDED = 1e-9


class StreamClock:
    """The time of the last sample, and the gap from there to the next.

    Numbers are kept as floats, datetimes and timedeltas as whole nanoseconds.

    Parameters
    ----------
    kind : {"numbers", "datetimes", "timedeltas"}
        That of the fitted times.
    unit : str
        The unit of gaps that are numbers, for datetimes.
    scale : float
        The median gap, in which gaps are answered.
    now : float, int or None
        The time of the last sample; None before the first.
    zoned : bool, optional
        Whether the fitted datetimes had a time zone; None where that is not known.

    Examples
    --------
    >>> from statespace.streaming.clock import StreamClock
    >>> clock = StreamClock("numbers", "D", scale=0.5, now=10.0)
    >>> clock.after(dt=1.0)
    (2.0, 11.0)
    >>> clock.at(12.5)
    (5.0, 12.5)
    """

    def __init__(self, kind, unit, scale, now=None, zoned=None):
        self.kind, self.unit, self.scale, self.now, self.zoned = kind, unit, scale, now, zoned
        # Whether times are those of the world, rather than counted from the first sample.
        self.absolute = now is not None
        self._tick = 1.0 if kind == "numbers" else _nanoseconds(unit)

    @property
    def in_scale(self):
        """One scaled unit on the scale of ``now``."""
        return self.scale * self._tick

    @classmethod
    def of(cls, times, unit, scale, *, fresh, zoned=None):
        """The clock at the end of fitted times, or before the first sample of another series."""
        kind = clock(times)
        return cls(kind, unit, scale, None if fresh else ticks(times[-1:]).item(), zoned)

    def length(self, span):
        """A span of time, a number or a timedelta, as a number in ``unit``."""
        if isinstance(span, timedelta | np.timedelta64):
            return pd.Timedelta(span).as_unit("ns").value / _nanoseconds(self.unit)
        return float(span)

    def in_ticks(self, span):
        """A span of time on the scale of ``now``."""
        span = self.length(span)
        return span if self.kind == "numbers" else round(span * self._tick)

    def after(self, dt):
        """The gap in scaled units, and the time, of a sample that comes ``dt`` later; None is the median gap."""
        if self.now is None:
            return 0.0, 0.0 if self.kind == "numbers" else 0
        dt = self.scale if dt is None else self.length(dt)
        if not 0.0 <= dt < np.inf:
            raise ValueError(f"dt must be finite and >= 0: the time since the sample before. Got {dt}.")
        return rounded(dt / self.scale), self.now + (dt if self.kind == "numbers" else round(dt * self._tick))

    def at(self, time):
        """The gap in scaled units, negative for a late sample, and the time on the scale of ``now``."""
        time = self.read(time)
        if self.now is None:
            self.absolute = True
            return 0.0, time
        if not self.absolute:
            raise ValueError(
                "this stream has only counted gaps, so it does not know what time it is: give time= from the first "
                "sample on, or dt=."
            )
        return self.between(self.now, time), time

    def between(self, earlier, later):
        """The gap in scaled units between two times on the scale of ``now``."""
        return rounded((later - earlier) / self.in_scale)

    def read(self, time):
        """A time as a user gives it, on the scale of ``now``."""
        if self.kind == "numbers":
            if isinstance(time, str | timedelta | np.timedelta64 | np.datetime64 | pd.Timestamp):
                raise ValueError(f"time must be a number, as in fit. Got {time!r}.")
            time = float(time)
            if not np.isfinite(time):
                raise ValueError(f"time must be finite. Got {time}.")
            return time
        kind = pd.Timestamp if self.kind == "datetimes" else pd.Timedelta
        if isinstance(time, float | int | np.number):
            raise ValueError(f"time must be one of {self.kind}, as in fit. Got {time!r}.")
        stamp = kind(time)
        if stamp is pd.NaT:
            raise ValueError("time must be finite. Got NaT.")
        if self.kind == "datetimes":
            check_same_zone(stamp.tzinfo is not None, self.zoned)
        return stamp.as_unit("ns").value

    def read_all(self, times):
        """An array of times, in order, and the gaps before each in scaled units."""
        times = pd.Index(times)
        checked = as_times(times)
        check_same_clock(checked, self.kind)
        check_same_zone(has_zone(times), self.zoned)
        between = gaps(checked, unit=self.unit) / self.scale
        between[0] = self.at(times[0])[0]
        if (between < 0).any():
            k = int(np.argmax(between < 0))
            raise ValueError(f"times must not decrease: times[{k}] = {times[k]} follows a later one.")
        return rounded(between), ticks(checked)

    def show(self, tick):
        """A time on the scale of ``now`` as a user knows it."""
        if self.kind == "numbers":
            return f"{tick}"
        return str(pd.Timestamp(tick) if self.kind == "datetimes" else pd.Timedelta(tick))


def _nanoseconds(unit):
    one = np.timedelta64(1, "ns")
    return float(round(1.0 / elapsed(np.array([one]), origin=np.timedelta64(0, "ns"), unit=unit)[0]))


def ticks(times):
    """Checked times on the scale of a clock: numbers as they are, others as whole nanoseconds.

    Parameters
    ----------
    times : ndarray

    Returns
    -------
    ndarray, float64 or int64
    """
    return times if clock(times) == "numbers" else times.astype(np.int64)


def rounded(gaps):
    """Gaps in scaled units without the rounding that differences of times have, as in `Posterior`.

    Parameters
    ----------
    gaps : float or ndarray

    Returns
    -------
    float or ndarray

    Examples
    --------
    >>> from statespace.streaming.clock import rounded
    >>> rounded((0.3 - 0.2) / 0.1)
    1.0
    """
    if isinstance(gaps, np.ndarray):
        whole = np.rint(gaps)
        return np.where(np.abs(gaps - whole) <= _ROUNDED * whole, whole, gaps)
    whole = round(gaps)
    return float(whole) if abs(gaps - whole) <= _ROUNDED * whole else gaps
