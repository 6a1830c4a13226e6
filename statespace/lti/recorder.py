"""The online half of HiPPOMemory: samples one by one, and the past back at any time.

Above: ``memory``. Below: ``history``.
"""

from datetime import timedelta

import numpy as np

from statespace.lti.history import History
from statespace.times import elapsed


class Recorder:
    """``update``, ``extend`` and ``reconstruct`` for an estimator that makes projections.

    Examples
    --------
    >>> from statespace.lti import HiPPOMemory
    >>> memory = HiPPOMemory(n_coefficients=8).extend([1.0, 1.0, 2.0], dt=[1.0, 0.5, 3.0])
    >>> memory.now
    4.5
    >>> bool(abs(memory.coefficients[0] - (1.5 * 1.0 + 3.0 * 2.0) / 4.5) < 1e-12)  # the mean
    True
    """

    _history: History | None
    _single: bool

    def update(self, u, dt=None):
        """Read one sample of a record.

        Parameters
        ----------
        u : float or array-like of shape (n_channels,)
            NaN where missing.
        dt : float, timedelta or timedelta64, optional
            The time since the sample before, >= 0. Before the first sample: how long its value has already held. None:
            the median gap of `fit`, or 1.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Another number of channels than before, an infinity, a gap that is negative or not finite; no ``window`` and
            no `fit` that chose one.
        """
        values = np.array(u, dtype=np.float64)
        if values.ndim > 1:
            raise ValueError(
                f"u must be a number or have shape (n_channels,). Got {values.shape}; extend takes many samples."
            )
        history = self._started(values.size, single=values.ndim == 0)
        if np.isinf(values).any():
            raise ValueError(f"u must be finite, or NaN where missing. Got {u!r}.")
        history.append(values.reshape(-1), self._gap(dt))
        return self

    def extend(self, u, dt=None):
        """Read many samples of a record: as `update` for each of them, and fast.

        Parameters
        ----------
        u : array-like of shape (n_times,) or (n_times, n_channels)
            NaN where missing.
        dt : float or array-like of shape (n_times,), optional
            The gap before each sample, as in `update`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As for `update`.
        """
        values = np.array(u, dtype=np.float64)
        if values.ndim not in (1, 2):
            raise ValueError(f"u must have shape (n_times,) or (n_times, n_channels). Got {values.shape}.")
        if np.ndim(dt):
            gaps = self._numbers(dt)
            if gaps.shape != values.shape[:1]:
                raise ValueError(f"dt must hold one gap for each of the {len(values)} samples. Got shape {gaps.shape}.")
        else:
            gaps = np.full(len(values), self._gap(dt))
        if not ((gaps >= 0.0) & (gaps < np.inf)).all():
            k = int(np.argmin((gaps >= 0.0) & (gaps < np.inf)))
            raise ValueError(f"dt must be finite and >= 0: the time since the sample before. dt[{k}] is {gaps[k]}.")
        if np.isinf(values).any():
            raise ValueError("u must be finite, or NaN where missing. Got an infinity.")
        if len(values):
            history = self._started(1 if values.ndim == 1 else values.shape[1], single=values.ndim == 1)
            history.extend(values.reshape(len(values), -1), gaps)
        return self

    def _started(self, n_channels, single):
        history = getattr(self, "_history", None)
        if history is None:
            self._check_parameters()
            window = getattr(self, "window_", None) if hasattr(self, "clock_") else self._chosen_window(self._no_window)
            self._history = history = History(self._projection(window), self.measure, window, n_channels)
            self._single = single
        if n_channels != history.n_channels:
            raise ValueError(
                f"u must hold {history.n_channels} value(s), as before. Got {n_channels}; reset() starts anew."
            )
        return history

    def _no_window(self):
        raise ValueError(
            f"measure={self.measure!r} needs a window: give window=, or fit first, which takes the longest record."
        )

    def _numbers(self, dt):
        gaps = np.asarray(dt)
        if gaps.dtype.kind == "m":
            return elapsed(gaps.astype("timedelta64[ns]"), origin=np.timedelta64(0, "ns"), unit=self.time_unit)
        return gaps.astype(np.float64)

    def _gap(self, dt):
        if dt is None:
            return getattr(self, "time_scale_", 1.0)
        if isinstance(dt, timedelta | np.timedelta64):
            dt = self._numbers(np.array([dt], dtype="timedelta64[ns]"))[0]
        if not 0.0 <= dt < np.inf:
            raise ValueError(f"dt must be finite and >= 0: the time since the sample before. Got {dt}.")
        return float(dt)

    def reset(self):
        """Forget what `update` and `extend` were told; the next sample is the first of a record.

        Returns
        -------
        self
        """
        self._history = None
        return self

    @property
    def now(self):
        """The time of the last sample, counted from the beginning of the first one's gap."""
        history = getattr(self, "_history", None)
        if history is None:
            return 0.0
        history.read_in()
        return history.now

    @property
    def coefficients(self):
        """The coefficients of the record so far: (n_coefficients,), or (n_channels, n_coefficients) for vectors u."""
        rows = self._recorded().coefficients()
        return rows[0] if self._single else rows

    def _recorded(self):
        if getattr(self, "_history", None) is None:
            raise ValueError("there is no record yet: give samples to update or extend first.")
        return self._history

    def reconstruct(self, times):
        """The past of the record that `update` and `extend` have read.

        Parameters
        ----------
        times : float or array-like of shape (n_times,)
            On the clock of `now`: the sum of the gaps.

        Returns
        -------
        ndarray of shape (n_times,), or (n_times, n_channels) for vectors u
            NaN before the first value of a channel.

        Raises
        ------
        ValueError
            No sample yet, no time that has passed, or times outside of what is remembered.
        """
        history = self._recorded()
        history.read_in()
        at = np.atleast_1d(np.asarray(times, dtype=np.float64))
        beginning, now = history.beginning(), history.now
        if now == 0.0:
            raise ValueError("no time has passed: give the samples their gaps, dt > 0.")
        if at.ndim != 1 or not ((at >= beginning) & (at <= now)).all():
            raise ValueError(
                f"times must be a vector within [{beginning:g}, {now:g}], what is remembered now. "
                f"Got {at.min():g} to {at.max():g}."
            )
        values = history.reconstruct(at)
        return values[:, 0] if self._single else values
