"""What happened at known times: shifts of the level, changes of the slope, outliers. Their sizes are estimated."""

import copy

import numpy as np
import pandas as pd

from statespace.kalman.base import Initial
from statespace.kalman.closed import ClosedForm
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS, RANDOM_WALK, Blocks
from statespace.times import as_times

# Times that differ by less than this share of the median gap are the same but for rounding.
_SAME = 1e-6


class Intervention(ClosedForm):
    """Effects of unknown constant size at known times: f(t) = Σ_j β_j h(t − τ_j). Base class of the three below.

    Parameters
    ----------
    times : array-like of shape (n,), or one time
        τ, in the unit of X's times, or datetimes where they are datetimes (strings such as ``"1983-02-01"`` too); in
        UTC unless they have a time zone.
    variance : float, optional
        What is known about β beforehand: N(0, ``variance``), in squared units of y (of y per unit of time for a slope).
        None leaves it diffuse, as a regression coefficient.
    """

    uses_times = True
    # The power of the unit of time that a coefficient is measured in.
    _slope = 0

    def __init__(self, times, variance=None):
        self.times = times
        self.variance = variance

    # Learned from the data by `resolved`: the times since the record's first one, and how far apart equal ones may be.
    _since: np.ndarray | None = None
    _tolerance = 0.0

    def _given(self):
        times = self.times
        if isinstance(times, str) or not hasattr(times, "__len__"):
            times = [times]
        if len(times) and all(isinstance(time, str) for time in times):
            # "P1DT0H" and "1 days" are lengths of time, all else are dates.
            lengths = all(time[:1] == "P" or "day" in time for time in times)
            times = pd.TimedeltaIndex(times) if lengths else pd.DatetimeIndex(times)
        times = as_times(times)
        if len(times) == 0:
            raise ValueError(f"{type(self).__name__} needs at least one time. Got {self.times!r}.")
        return times

    def _offsets(self):
        if self._since is not None:
            return self._since
        times = self._given()
        return np.arange(len(times), dtype=float) if times.dtype.kind in "mM" else times

    def validate(self):
        """Refuse times that are none, and a variance that is no positive number."""
        self._given()
        if self.variance is not None and not (np.isscalar(self.variance) and 0 < self.variance < np.inf):
            raise ValueError(
                f"variance of {type(self).__name__} must be a positive number, or None where nothing is known. "
                f"Got {self.variance!r}."
            )

    def resolved(self, scale):
        """A copy that knows how long after the record's first time its own times come."""
        self.validate()
        clone = copy.copy(self)
        try:
            clone._since = scale.elapsed(self._given())
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None
        clone._tolerance = _SAME * scale.time
        return clone

    def rescaled(self, scale):
        """The same effects for y / ``scale.value`` and times / ``scale.time``."""
        clone = copy.copy(self)
        clone._since, clone._tolerance = self._offsets() / scale.time, self._tolerance / scale.time
        if self.variance is not None:
            clone.variance = self.variance * scale.time ** (2 * self._slope) / scale.value**2
        return clone

    def diffuse_scale(self, scale):
        """One, or the unit of time for slopes."""
        return np.full(self.initial().diffuse.shape[1], scale.time**self._slope)

    def blocks(self, gaps=None):
        """The kernel's description: coefficients that stay as they are."""
        n = len(self._offsets())
        return Blocks(
            np.array([RANDOM_WALK]),
            np.array([n]),
            np.zeros((1, N_PARAMETERS)),
            np.zeros((1, 0)),
            np.zeros((1, 0)),
            None,
        )

    def derivatives(self):
        """None: no parameter is fitted but by the filter."""
        return {}

    def observation(self):
        """The row H where every effect is 1."""
        return np.ones(len(self._offsets()))

    def design(self, covariates=None, times=None):
        """The rows H of shape (n_times, n), for times since the record's first one."""
        if times is None:
            return self.observation()
        return self._effect(np.subtract.outer(np.asarray(times, dtype=float), self._offsets()))

    def _effect(self, since):
        raise TypeError(f"{type(self).__name__} must define the effect of a time since the event.")

    def initial(self):
        """Diffuse, or of the variance given."""
        n = len(self._offsets())
        if self.variance is None:
            return Initial(np.zeros(n), np.zeros((n, n)), np.eye(n))
        return Initial(np.zeros(n), float(self.variance) * np.eye(n), np.zeros((n, 0)))


class LevelShift(Intervention):
    """Steps of unknown height at known times: f(t) = Σ_j β_j 1[t ≥ τ_j] (Harvey 1989, section 7.6.1).

    Parameters
    ----------
    times : array-like of shape (n,), or one time
        τ: the first times after the change; in the unit of X's times, or datetimes where they are datetimes (strings
        such as ``"1983-02-01"`` too); in UTC unless they have a time zone.
    variance : float, optional
        Of the heights, beforehand, in squared units of y. None leaves them diffuse.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LevelShift, LocalLevel
    >>> t, y = np.arange(6.0), np.array([1.0, 1.1, 0.9, 3.0, 3.1, 2.9])
    >>> gp = KalmanRegressor(LocalLevel(1e-6) + LevelShift(3.0), noise_variance=0.01, optimizer=None)
    >>> parts = gp.fit(t[:, np.newaxis], y).decompose(t[:, np.newaxis])
    >>> parts["level_shift"].round(2).tolist()
    [0.0, 0.0, 0.0, 2.0, 2.0, 2.0]
    """

    def _effect(self, since):
        return (since >= -self._tolerance).astype(float)


class SlopeChange(Intervention):
    """Bends at known times: f(t) = Σ_j β_j max(t − τ_j, 0).

    Parameters
    ----------
    times : array-like of shape (n,), or one time
        τ, as in `LevelShift`.
    variance : float, optional
        Of the changes of slope, beforehand, in squared units of y per unit of time. None leaves them diffuse.

    Examples
    --------
    >>> from statespace.kalman import SlopeChange
    >>> SlopeChange([2.0]).design(times=[1.0, 2.0, 4.5]).ravel().tolist()
    [0.0, 0.0, 2.5]
    """

    _slope = 1

    def _effect(self, since):
        return np.maximum(since, 0.0)


class Outlier(Intervention):
    """Single samples that do not belong: f(t) = Σ_j β_j 1[t = τ_j].

    With a diffuse β the sample at τ says nothing about the rest, as if it were missing.

    Parameters
    ----------
    times : array-like of shape (n,), or one time
        τ, as in `LevelShift`.
    variance : float, optional
        Of the deviations, beforehand, in squared units of y. None leaves them diffuse; a value only makes these samples
        less certain.

    Examples
    --------
    >>> from statespace.kalman import Outlier
    >>> Outlier([2.0]).design(times=[1.0, 2.0, 4.5]).ravel().tolist()
    [0.0, 1.0, 0.0]
    """

    def _effect(self, since):
        return (np.abs(since) <= self._tolerance).astype(float)
