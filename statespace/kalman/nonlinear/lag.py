"""Fixed-lag smoothing: each state with a little hindsight, on a stream."""

from typing import NamedTuple

import numpy as np

from statespace.kalman.nonlinear.gaussian import GaussianFilter
from statespace.kalman.nonlinear.interface import StateFilter
from statespace.kalman.nonlinear.record import gap_of
from statespace.kalman.nonlinear.results import GaussianState, Kernel, SmootherResult


class LagState(NamedTuple):
    """The states within the lag, each given all samples so far, the oldest first.

    Attributes
    ----------
    means : ndarray of shape (w, n)
    covariances : ndarray of shape (w, n, n)
    times : tuple of float
    current : GaussianState
        The filtered state of the newest.
    """

    means: np.ndarray
    covariances: np.ndarray
    times: tuple[float, ...]
    current: GaussianState
    kernels: tuple[Kernel | None, ...]
    u: np.ndarray | None = None

    @property
    def mean(self):
        """Of the oldest: ndarray of shape (n,)."""
        return self.means[0]

    @property
    def covariance(self):
        """Of the oldest: ndarray of shape (n, n)."""
        return self.covariances[0]

    @property
    def lagged_time(self):
        """The time of the oldest."""
        return self.times[0]

    @property
    def log_likelihood(self):
        """Of all samples so far."""
        return self.current.log_likelihood

    @property
    def n_samples(self):
        """Samples read so far."""
        return self.current.n_samples

    @property
    def time(self):
        """The time of the newest."""
        return self.current.time

    @property
    def innovation(self):
        """Of the newest."""
        return self.current.innovation

    @property
    def innovation_covariance(self):
        """Of the newest."""
        return self.current.innovation_covariance


class FixedLagSmoother(StateFilter):
    """A Gaussian filter whose answers are given with a delay, knowing what came in the meantime.

    A sample costs one step of the filter and one step back for each sample within the lag, forever. With a lag as long
    as the record `smooth` is the filter's own smoother, with a lag of 0 its filter.

    Parameters
    ----------
    filter : ExtendedKalmanFilter or UnscentedKalmanFilter
    lag : int, optional
        In samples.
    lag_time : float or timedelta, optional
        In its place, in the unit of the times: a state is revised by all samples at most so much later.

    References
    ----------
    Anderson and Moore, *Optimal Filtering*, 1979, ch. 7.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import ExtendedKalmanFilter, FixedLagSmoother, NonlinearModel
    >>> model = NonlinearModel(
    ...     np.eye(1), 1.0, drift=[[-0.1]], initial_mean=[0.0], initial_covariance=5.0)
    >>> smoother = FixedLagSmoother(ExtendedKalmanFilter(model), lag=2)
    >>> y, state = [1.0, 2.0, 0.5, 1.5], None
    >>> for y_t in y:
    ...     state = smoother.step(state, y_t, dt=0.5)
    >>> state.lagged_time, bool(np.isclose(state.mean, smoother.smooth(y, times=[0, 0.5, 1, 1.5]).mean[1])[0])
    (0.5, True)
    """

    def __init__(self, filter, lag=None, *, lag_time=None):
        if not isinstance(filter, GaussianFilter):
            raise ValueError(f"filter must be an extended or unscented filter. Got {type(filter).__name__}.")
        if (lag is None) == (lag_time is None):
            raise ValueError("Give one of lag (samples) and lag_time.")
        if lag is not None and (int(lag) != lag or lag < 0):
            raise ValueError(f"lag must be a whole number >= 0. Got {lag}.")
        super().__init__(filter.model)
        self.inner, self.lag, self.lag_time = filter, lag, lag_time
        self._length = None if lag_time is None else gap_of(lag_time, self.model.time_unit)

    def initial_state(self, time=0.0):
        """The state at the first sample, before it is seen.

        Parameters
        ----------
        time : float, default=0.0

        Returns
        -------
        LagState
        """
        state = self.inner.initial_state(time)
        return LagState(state.mean[None], state.covariance[None], (state.time,), state, (None,))

    def _predict(self, state, gap, u, with_kernel=False):
        current, kernel = self.inner._predict(state.current, gap, u, with_kernel=True)
        return self._shifted(state, current, kernel), kernel

    def _shifted(self, state, current, kernel):
        """The window with the newest state in it and those beyond the lag dropped."""
        times = (*state.times, current.time)
        if self.lag is not None:
            first = max(0, len(times) - 1 - self.lag)
        else:
            first = next(i for i, t in enumerate(times) if _within(t, current.time, self._length))
        means = np.concatenate([state.means, current.mean[None]])[first:]
        covariances = np.concatenate([state.covariances, current.covariance[None]])[first:]
        return LagState(means, covariances, times[first:], current, (*state.kernels, kernel)[first:], state.u)

    def _update(self, state, y_t, u):
        current = self.inner._update(state.current, y_t, u)
        means, covariances = np.array(state.means), np.array(state.covariances)
        mean, root = current.mean, current.root
        means[-1], covariances[-1] = mean, root @ root.T
        for i in range(len(means) - 2, -1, -1):
            mean, root = self.inner._back(mean, root, state.kernels[i + 1])
            means[i], covariances[i] = mean, root @ root.T
        return state._replace(means=means, covariances=covariances, current=current)

    def _expect(self, state, u):
        return self.inner._expect(state.current, u)

    def step(self, state, y_t, dt=None, u=None):
        """Advance by a gap, take a sample, and revise the states within the lag.

        Parameters
        ----------
        state : LagState or None
            None begins a record.
        y_t : float or array-like of shape (p,)
            NaN where missing.
        dt : float or timedelta, optional
            The time since the sample before, 1 by default. Not used for the first sample.
        u : array-like of shape (n_inputs,), optional

        Returns
        -------
        LagState
            ``mean`` and ``covariance`` are those of the oldest sample within the lag, at ``lagged_time``;
            ``means``, ``covariances`` and ``times`` hold all of them, ``current`` the newest.
        """
        return super().step(state, y_t, dt, u)

    def smooth(self, y, times=None, u=None):
        """Each state given the samples up to the lag after it.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        SmootherResult
            Without lag-one covariances.
        """
        record = self.model.record(y, times, u)
        n = self.model.n_states
        means, covariances = np.empty((len(record.y), n)), np.empty((len(record.y), n, n))
        state = None
        for k, y_t in enumerate(record.y):
            if state is None:
                state = self.initial_state(record.t[0])
            else:
                current, kernel = self.inner._predict(
                    state.current, record.gaps[k], record.input(k - 1), with_kernel=True
                )
                state = self._shifted(state, current._replace(time=record.t[k]), kernel)
            state = self._update(state, y_t, record.input(k))
            window = slice(k + 1 - len(state.means), k + 1)
            means[window], covariances[window] = state.means, state.covariances
        return SmootherResult(means, covariances, state.log_likelihood)

    def filter(self, y, times=None, u=None):
        """The wrapped filter's own results.

        Parameters
        ----------
        y, times, u
            As in its ``filter``.

        Returns
        -------
        FilterResult
        """
        return self.inner.filter(y, times, u)

    def log_likelihood(self, y, times=None, u=None):
        """The wrapped filter's.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        float
        """
        return self.inner.log_likelihood(y, times, u)

    def forecast(self, y, steps=None, times=None, u=None, future_times=None):
        """The wrapped filter's.

        Parameters
        ----------
        y, steps, times, u, future_times
            As there.

        Returns
        -------
        ForecastResult
        """
        return self.inner.forecast(y, steps, times, u, future_times)

    def _draw(self, n_times, times, u, n_samples, random_state):
        return self.inner._draw(n_times, times, u, n_samples, random_state)

    def _paths(self, record, n_samples, rng):
        return self.inner._paths(record, n_samples, rng)


def _within(t, now, length):
    """Whether t is at most ``length`` ago, rounding in sums of gaps aside."""
    return now - t <= length * (1 + 1e-12) + 1e-12 * abs(now)
