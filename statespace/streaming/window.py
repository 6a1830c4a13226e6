"""The last samples of a stream, kept so that late ones find their place: filtering begins again where they belong."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from statespace.streaming.filter import Moment


class Sample(NamedTuple):
    """A sample, and where the filters stood after it.

    Attributes
    ----------
    time : float or int
        On the scale of the stream's clock.
    gap : float
        Before it, in scaled units.
    values : list of float
    noise : float or list of float
        In scaled units.
    row : ndarray of shape (n,) or None
        H, where it varies.
    after : Moment

    Examples
    --------
    >>> from statespace.streaming.filter import Moment
    >>> from statespace.streaming.window import Sample
    >>> Sample(0.5, 0.0, [1.0], 0.1, None, Moment((), ())).time
    0.5
    """

    time: Any
    gap: float
    values: list
    noise: Any
    row: Any
    after: Moment


class Window:
    """The samples of the last ``lag``, and the moment before them.

    Parameters
    ----------
    filters : Filters
        Which stand at ``time``.
    clock : StreamClock
    lag : float or int
        On the scale of the clock.
    time : float, int or None
        Of the last sample before the window; None if there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel(1.0), noise_variance=1.0, optimizer=None).fit([[0.0], [1.0]], [1.0, 2.0])
    >>> stream = gp.stream(lag=2.0)
    >>> _ = stream.step(3.0, time=4.0)
    >>> late = stream.step(2.0, time=3.0)
    >>> in_order = gp.stream()
    >>> _ = in_order.step(2.0, time=3.0)
    >>> late == in_order.step(3.0, time=4.0)
    True
    """

    def __init__(self, filters, clock, lag, time):
        self._filters, self._clock, self.lag = filters, clock, lag
        self.before, self.before_time = filters.moment(), time
        self.samples = deque()

    def add(self, time, gap, values, noise, row):
        """Keep a sample that the filters have just taken; forget those that are older than the lag."""
        self.keep(time, gap, values, noise, row)
        while self.samples[0].time < time - self.lag:
            oldest = self.samples.popleft()
            self.before, self.before_time = oldest.after, oldest.time

    def keep(self, time, gap, values, noise, row):
        """Keep a sample that the filters have just taken."""
        self.samples.append(Sample(time, gap, values, noise, row, self._filters.moment()))

    def reaches(self, time):
        """Whether a sample of this time finds its place."""
        return time >= self._clock.now - self.lag

    def insert(self, time, values, noise, row):
        """Put a late sample in its place, after others of its time, and filter again from there."""
        place = len(self.samples)
        while place and self.samples[place - 1].time > time:
            place -= 1
        later = [self.samples.pop() for _ in range(len(self.samples) - place)][::-1]
        self._filters.restore(self.samples[-1].after if self.samples else self.before)
        for at, *taken in [(time, values, noise, row), *((s.time, s.values, s.noise, s.row) for s in later)]:
            previous = self.samples[-1].time if self.samples else self.before_time
            gap = 0.0 if previous is None else self._clock.between(previous, at)
            self._filters.step(taken[0], gap, *taken[1:])
            self.keep(at, gap, *taken)

    def smoothed(self, time, row):
        """Means and scaled variances of the signal at a time within the lag, given all samples so far."""
        samples = list(self.samples)
        times = [sample.time for sample in samples]
        place = int(np.searchsorted(times, time, side="right"))
        m = len(self._filters)
        values = [sample.values for sample in samples]
        noise = [np.broadcast_to(sample.noise, m) for sample in samples]
        rows = [sample.row for sample in samples]
        gaps = [sample.gap for sample in samples]
        previous = times[place - 1] if place else self.before_time
        gaps.insert(place, 0.0 if previous is None else self._clock.between(previous, time))
        if place < len(times):
            gaps[place + 1] = self._clock.between(time, times[place])
        values.insert(place, [np.nan] * m)
        noise.insert(place, np.ones(m))
        rows.insert(place, row)
        return self._filters.smooth(
            self.before, np.array(values, dtype=float), np.array(gaps), np.array(noise, dtype=float),
            None if row is None else np.array(rows), place,
        )  # fmt: skip
