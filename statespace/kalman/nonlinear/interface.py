"""The interface that all filters share: records, streams, forecasts. It is that of the linear-Gaussian model."""

import numpy as np

from statespace.kalman.nonlinear.record import gap_of, sample_of
from statespace.kalman.nonlinear.results import FilterResult
from statespace.kalman.results import ForecastResult, Sample


class StateFilter:
    """A filter as a function of states: `predict` over a gap, `update` by a sample, and what follows from the two.

    A subclass gives ``initial_state``, ``_predict``, ``_update`` and ``_expect``. Its states are named tuples that have
    ``mean``, ``covariance``, ``time``, ``n_samples``, ``log_likelihood``, ``innovation`` and ``innovation_covariance``.

    Parameters
    ----------
    model : NonlinearModel
    """

    def __init__(self, model):
        self.model = model

    def initial_state(self, time=0.0):
        """The state at the first sample, before it is seen.

        Parameters
        ----------
        time : float, default=0.0

        Returns
        -------
        named tuple
        """
        raise NotImplementedError

    def _predict(self, state, gap, u, with_kernel=False):
        """The state after a gap, and what leads back over it."""
        raise NotImplementedError

    def _update(self, state, y_t, u):
        """The state given a sample."""
        raise NotImplementedError

    def _expect(self, state, u):
        """Mean and covariance of an observation where the state stands."""
        raise NotImplementedError

    def predict(self, state, dt=None, u=None):
        """The state after a gap, without an observation.

        Parameters
        ----------
        state : named tuple
            From `initial_state` or an earlier call.
        dt : float or timedelta, optional
            1 by default.
        u : array-like of shape (n_inputs,), optional
            The input over the gap; by default the one that came with the last sample.

        Returns
        -------
        named tuple
            With ``mean``, ``covariance``, ``log_likelihood``, ``innovation``.
        """
        u = state.u if u is None else _input(u)
        return self._predict(state, gap_of(dt, self.model.time_unit), u)[0]

    def update(self, state, y_t, u=None):
        """The state given an observation made where it stands.

        Parameters
        ----------
        state : named tuple
            From `initial_state` or an earlier call.
        y_t : float or array-like of shape (p,)
            NaN where missing.
        u : array-like of shape (n_inputs,), optional

        Returns
        -------
        named tuple
            With ``mean``, ``covariance``, ``log_likelihood``, ``innovation``.
        """
        u = _input(u)
        p = self.model.prepare(None, state.time, u)
        return self._update(state, sample_of(y_t, p), u)._replace(u=u)

    def step(self, state, y_t, dt=None, u=None):
        """Advance by a gap and take a sample: O(1), equal to filtering the whole.

        Parameters
        ----------
        state : named tuple or None
            None begins a record.
        y_t : float or array-like of shape (p,)
            NaN where missing; all NaN only predicts.
        dt : float or timedelta, optional
            The time since the sample before, 1 by default. Not used for the first sample.
        u : array-like of shape (n_inputs,), optional
            The input from this sample on, until the next.

        Returns
        -------
        named tuple
            With ``mean``, ``covariance``, ``log_likelihood``, ``innovation``.
        """
        state = self.initial_state() if state is None else state
        if state.n_samples:
            state = self.predict(state, dt)
        return self.update(state, y_t, u)

    def _forward(self, record, with_kernels=False):
        """Yield the predicted and the filtered state of each sample, and the kernel back over its gap."""
        state = self.initial_state(record.t[0])
        for k, y_t in enumerate(record.y):
            kernel = None
            if k:
                state, kernel = self._predict(state, record.gaps[k], record.input(k - 1), with_kernels)
                state = state._replace(time=record.t[k])  # sums of gaps would drift away from the times
            predicted, state = state, self._update(state, y_t, record.input(k))
            yield predicted, state, kernel

    def filter(self, y, times=None, u=None):
        """The state at each sample given the samples up to it.

        Parameters
        ----------
        y : array-like of shape (T,) or (T, p)
            NaN where missing, also in parts of a row.
        times : array-like of shape (T,), optional
            Floats or datetimes that do not decrease; equal ones are several samples of one moment. Without them a grid
            of gaps 1 (or the datetime index of y).
        u : array-like of shape (T,) or (T, n_inputs), optional
            Row k is in force from sample k until the next.

        Returns
        -------
        FilterResult

        Raises
        ------
        ValueError
            For input of a wrong shape or order, and where the model itself fails; the message says at which sample.
        """
        record = self.model.record(y, times, u)
        n_times, p = record.y.shape
        n = self.model.n_states
        shapes = (n,), (n, n), (n,), (n, n), (p,), (p, p)
        result = FilterResult(*(np.empty((n_times, *shape)) for shape in shapes), 0.0)
        notes: dict[str, list] = {}
        for k, (predicted, state, _) in enumerate(self._forward(record)):
            self._note(notes, state)
            result.mean[k], result.covariance[k] = self._moments(state)
            result.predicted_mean[k], result.predicted_covariance[k] = self._moments(predicted)
            result.innovation[k], result.innovation_covariance[k] = state.innovation, state.innovation_covariance
        extra = {name: np.array(values) for name, values in notes.items()}
        return result._replace(log_likelihood=state.log_likelihood, extra=extra)

    def _moments(self, state):
        """Mean and covariance of a state."""
        return state.mean, state.covariance

    def _note(self, notes, state):
        """Append what a subclass adds to the results."""

    def log_likelihood(self, y, times=None, u=None):
        """log p(y) with all constants.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        float
        """
        record = self.model.record(y, times, u)
        return self._last(record).log_likelihood

    def _last(self, record):
        for forward in self._forward(record):
            _, state, _ = forward
        return state

    def forecast(self, y, steps=None, times=None, u=None, future_times=None):
        """Observations and states after a record.

        Parameters
        ----------
        y, times
            As in `filter`.
        steps : int, optional
            So many steps of the record's median gap.
        u : array-like of shape (T + S,) or (T + S, n_inputs), optional
            Inputs of the record and after it.
        future_times : array-like of shape (S,), optional
            In the place of steps.

        Returns
        -------
        ForecastResult
        """
        record, later = self.model.record(y, times, u, steps, future_times)
        state = self._last(record)
        n, p = self.model.n_states, record.y.shape[1]
        shapes = (p,), (p, p), (n,), (n, n)
        result = ForecastResult(*(np.empty((len(later.t), *shape)) for shape in shapes), state.log_likelihood)
        held = record.input(-1)
        for k, gap in enumerate(later.gaps):
            state = self._predict(state, gap, held)[0]._replace(time=later.t[k])
            held = later.input(k)
            result.state_mean[k], result.state_covariance[k] = self._moments(state)
            result.mean[k], result.covariance[k] = self._expect(state, held)
        return result

    def sample(self, n_times=None, *, y=None, times=None, u=None, n_samples=1, random_state=None):
        """Draw from the model or, given a record, paths of its states.

        Parameters
        ----------
        n_times : int, optional
            The length of draws from the model on a grid of gaps 1, without y and times.
        y : array-like of shape (T,) or (T, p), optional
            The record on which draws are conditioned.
        times : array-like of shape (T,), optional
        u : array-like of shape (T,) or (T, n_inputs), optional
        n_samples : int, default=1
        random_state : int, Generator or None

        Returns
        -------
        Sample
            ``state`` (n_samples, T, n) and ``observation`` (n_samples, T, p): given a record, its own numbers where it
            has any.
        """
        if y is None:
            return Sample(*self._draw(n_times, times, u, n_samples, random_state))
        if n_times is not None:
            raise ValueError("Give n_times for draws from the model, or y for draws given a record, not both.")
        rng = np.random.default_rng(random_state)
        record = self.model.record(y, times, u)
        paths = self._paths(record, n_samples, rng)
        observations = np.broadcast_to(record.y, (n_samples, *record.y.shape)).copy()
        for k in np.flatnonzero(np.isnan(record.y).any(axis=1)):
            if self.model.observation_noise is not None:
                drawn = self.model.draw_observations(paths[:, k], record.t[k], record.input(k), rng)
                missing = np.isnan(record.y[k])
                observations[:, k, missing] = drawn[:, missing]
        return Sample(paths, observations)

    def _draw(self, n_times, times, u, n_samples, random_state):
        """States and observations from the model."""
        return self.model.simulate(n_times, times, u, n_samples, random_state)

    def _paths(self, record, n_samples, rng):
        """States given a record: ndarray of shape (n_samples, T, n)."""
        raise NotImplementedError


def _input(u):
    return None if u is None else np.atleast_1d(np.asarray(u, dtype=float))
