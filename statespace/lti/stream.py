"""A filter one sample at a time: constant time and memory for each, equal to filtering the whole record.

Above: ``filters``. Below: ``analog``.
"""

from datetime import timedelta

import numpy as np

from statespace.times import elapsed


class FilterStream:
    """What `LTIFilter.stream` returns: states, and ``step``.

    It holds copies, so that fitting the filter again does not change it; ``copy.deepcopy`` branches it, and it can be
    pickled.

    Parameters
    ----------
    filter : Modal or Dense
    hold : {"zoh", "foh"}
    n_channels : int
    clock : {"numbers", "datetimes", "timedeltas"} or None
        The kind of times in ``fit``.
    time_unit : str or Timedelta
        The unit of time of a ``dt`` that is a number, where times are datetimes.
    time_scale : float
        The median gap in ``fit``, the default of ``dt``.

    Attributes
    ----------
    n_steps : int
        Samples read so far.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti import LTIFilter
    >>> times, x = np.array([0.0, 1.0, 1.5, 4.0]), np.array([1.0, 2.0, np.nan, 0.0])
    >>> lag = LTIFilter(order=1, cutoff=0.1).fit([x], times=[times])
    >>> stream = lag.stream()
    >>> y = [stream.step(x_t, dt) for x_t, dt in zip(x, np.diff(times, prepend=0.0))]
    >>> bool(np.allclose(y, lag.transform([x], times=[times])[0]))
    True
    """

    def __init__(self, filter, hold, n_channels, clock, time_unit, time_scale):
        self._filter, self._hold, self._n_channels = filter, hold, n_channels
        self._clock, self._unit, self._time_scale = clock, time_unit, time_scale
        self.reset()

    def reset(self):
        """Forget every sample; the next one is the first of a series.

        Returns
        -------
        self
        """
        self.n_steps = 0
        # Of each channel: its first value, the last one and the state then, and the time that has passed since.
        self._channels = [None] * self._n_channels
        return self

    def step(self, x_t, dt=None):
        """Read one sample.

        Parameters
        ----------
        x_t : float or array-like of shape (n_channels,)
            NaN where missing.
        dt : float, timedelta or timedelta64, optional
            The time since the sample before, >= 0, in the unit of the times of ``fit``, or ``time_unit`` for datetimes.
            None: the median gap of ``fit``. Before the first sample there is none, and it is not used.

        Returns
        -------
        y_t : float or ndarray of shape (n_channels,)
            As x_t came.

        Raises
        ------
        ValueError
            Another number of channels, an infinity, a gap that is negative or not finite.
        """
        x = np.array(x_t, dtype=np.float64).reshape(-1)
        if len(x) != self._n_channels or np.isinf(x).any():
            raise ValueError(f"x_t must hold {self._n_channels} finite value(s), or NaN where missing. Got {x_t!r}.")
        gap = self._gap(dt) if self.n_steps else 0.0
        self.n_steps += 1
        y = np.array([self._step_channel(j, value, gap) for j, value in enumerate(x)])
        return float(y[0]) if np.ndim(x_t) == 0 else y

    def _step_channel(self, j, value, gap):
        filter = self._filter
        if self._channels[j] is None:
            if np.isnan(value):
                return np.nan
            self._channels[j] = value, 0.0, 0.0 * filter.settled(0.0), 0.0
            return filter.gain * value
        origin, last, state, since = self._channels[j]
        since += gap
        if np.isnan(value):
            self._channels[j] = origin, last, state, since
            y = filter.held(np.array([last]), np.array([since]), state[np.newaxis])[0]
        else:
            pair = np.array([last, value - origin])
            outputs, state = filter.run(pair, np.array([0.0, since]), state, self._hold)
            self._channels[j] = origin, pair[1], state, 0.0
            y = outputs[1]
        return y + filter.gain * origin

    def _gap(self, dt):
        if dt is None:
            return self._time_scale
        if isinstance(dt, timedelta | np.timedelta64):
            if self._clock not in ("datetimes", "timedeltas"):
                raise ValueError(f"This filter was fitted with times as numbers: give dt as a number. Got {dt!r}.")
            zero = np.timedelta64(0, "ns")
            dt = elapsed(np.array([dt], dtype="timedelta64[ns]"), origin=zero, unit=self._unit)[0]
        if not 0.0 <= dt < np.inf:
            raise ValueError(f"dt must be finite and >= 0: the time since the sample before. Got {dt}.")
        return float(dt)
