"""The interface that all filters share: records, streams, forecasts. It is that of the linear-Gaussian model."""

import numpy as np

from statespace.kalman.nonlinear.record import Record, future_of, gap_of, sample_of
from statespace.kalman.nonlinear.results import FilterResult, ForecastResult


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

        Returns
        -------
        named tuple
            With ``mean``, ``covariance``, ``log_likelihood``, ``innovation``.
        """
        return self._predict(state, gap_of(dt, self.model.time_unit), _input(u))[0]

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
        return self._update(state, sample_of(y_t, p), u)

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
            The input over this gap.

        Returns
        -------
        named tuple
            With ``mean``, ``covariance``, ``log_likelihood``, ``innovation``.
        """
        state = self.initial_state() if state is None else state
        if state.n_samples:
            state = self.predict(state, dt, u)
        return self.update(state, y_t, u)

    def _forward(self, record, with_kernels=False):
        """Yield the predicted and the filtered state of each sample, and the kernel back over its gap."""
        state = self.initial_state(record.t[0])
        for k, y_t in enumerate(record.y):
            u = record.input(k)
            kernel = None
            if k:
                state, kernel = self._predict(state, record.gaps[k], u, with_kernels)
                state = state._replace(time=record.t[k])  # sums of gaps would drift away from the times
            predicted, state = state, self._update(state, y_t, u)
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
            Row k is in force over the gap that ends at sample k.

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
            result.mean[k], result.covariance[k] = state.mean, state.covariance
            result.predicted_mean[k], result.predicted_covariance[k] = predicted.mean, predicted.covariance
            result.innovation[k], result.innovation_covariance[k] = state.innovation, state.innovation_covariance
        extra = {name: np.array(values) for name, values in notes.items()}
        return result._replace(log_likelihood=state.log_likelihood, extra=extra)

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

    def forecast(self, y, steps=None, times=None, u=None, future_times=None, future_u=None):
        """Observations and states after a record.

        Parameters
        ----------
        y, times, u
            As in `filter`.
        steps : int, optional
            So many steps of the record's median gap.
        future_times : array-like of shape (S,), optional
            In the place of steps.
        future_u : array-like of shape (S,) or (S, n_inputs), optional
            The inputs of these steps.

        Returns
        -------
        ForecastResult
        """
        record = self.model.record(y, times, u)
        state = self._last(record)
        t, gaps = future_of(record, steps, future_times, self.model.time_unit)
        inputs = Record.inputs_of(future_u, len(t))
        n, p = self.model.n_states, record.y.shape[1]
        likelihood = state.log_likelihood
        result = ForecastResult(*(np.empty((len(t), *shape)) for shape in ((p,), (p, p), (n,), (n, n))), likelihood)
        for k, gap in enumerate(gaps):
            u_k = None if inputs is None else inputs[k]
            state = self._predict(state, gap, u_k)[0]._replace(time=t[k])
            result.state_mean[k], result.state_covariance[k] = state.mean, state.covariance
            result.mean[k], result.covariance[k] = self._expect(state, u_k)
        return result


def _input(u):
    return None if u is None else np.atleast_1d(np.asarray(u, dtype=float))
