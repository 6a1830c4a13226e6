"""An identified system at work: records put together, initial states, predictions k samples ahead, one at a time."""

from dataclasses import replace

import numpy as np

from statespace.lti.prediction_error import Data, derivative, filtered, measurement_noise, states, transitions
from statespace.times import scale_gaps

# Gaps in units of the median one are the same if they agree to this many digits: times carry rounding errors.
_DIGITS = 9


def joined(u, y, elapsed, time_scale, discrete, linear):
    """Records as one `Data`, with the gaps in units of ``time_scale``.

    Parameters
    ----------
    u, y : list of ndarray of shape (n_times_i, m), (n_times_i, p)
    elapsed : list of ndarray of shape (n_times_i,)
        Times since each record's beginning.
    time_scale : float
    discrete : bool
        All gaps must then be ``time_scale``.
    linear : bool

    Returns
    -------
    Data

    Raises
    ------
    ValueError
        With ``discrete``, at the first gap that differs from the others.
    """
    starts = np.concatenate([[0], np.cumsum([len(part) for part in u])])
    after = [np.append(scale_gaps(np.diff(t), time_scale), np.nan) for t in elapsed]
    if discrete:
        for i, gaps in enumerate(after):
            wrong = np.flatnonzero(np.abs(gaps[:-1] - 1.0) > 1e-6)
            if wrong.size:
                k = int(wrong[0]) + 1
                raise ValueError(
                    f"domain='discrete' needs a regular grid: in record {i} the gap before times[{k}] is "
                    f"{gaps[k - 1] * time_scale:g} and the median gap of fit {time_scale:g}. Take domain='continuous'; "
                    "or give every row of the grid, with NaN in y where it is missing."
                )
    gaps = np.concatenate(after)
    gaps[starts[1:] - 1] = 1.0
    rounded = np.round(gaps, _DIGITS)
    _, first, index = np.unique(rounded, return_index=True, return_inverse=True)
    if discrete:
        first, index = first[:1], np.zeros(len(gaps), np.int64)
    return Data(
        np.ascontiguousarray(np.concatenate(u)), np.ascontiguousarray(np.concatenate(y)), gaps[first],
        index.astype(np.int64).ravel(), starts.astype(np.int64), linear, discrete,
    )  # fmt: skip


def with_prior(parameters, data):
    """The parameters with the mean squares of the data's states as the covariance in which other records begin.

    With the noise in the state these are the filtered states, and the initial states are estimated.
    """
    noisy = bool(parameters.L.any())
    x = filtered(parameters, data).x if noisy else states(parameters, data)
    moments = x.T @ x / len(x)
    moments += (1e-10 * np.trace(moments) + 1e-30) * np.eye(len(moments))
    parameters = replace(parameters, P0=moments)
    return replace(parameters, x0=estimated_states(parameters, data)) if noisy else parameters


def steady_states(parameters, data):
    """The states that rest under each record's first input; those of an integrator are the smallest that almost do."""
    n = len(parameters.A)
    pull = parameters.A - np.eye(n) if data.discrete else parameters.A
    return -np.linalg.lstsq(pull, parameters.B @ data.u[data.starts[:-1]].T, rcond=1e-10)[0].T


def estimated_states(parameters, data):
    """The initial states that y and their distribution, N(0, P₀), make most likely.

    P₀ is the spread of the states in the data of `fit`: what a few samples of y leave open stays near the operating
    point.
    """
    n, n_records = len(parameters.A), len(data.starts) - 1
    base = replace(parameters, x0=np.zeros((n_records, n)), P0=np.zeros((n, n)))
    over = transitions(base, data, True)
    found = filtered(base, data, over)
    whiten = np.linalg.inv(np.linalg.cholesky(found.S))
    e = (whiten @ found.e[..., np.newaxis])[..., 0]
    J = np.empty((n, *e.shape))
    over = type(over)(*(part.astype(complex) for part in over))
    for i in range(n):
        moved = base.displaced({"x0": np.tile(np.eye(n)[i], (n_records, 1))})
        J[i] = (whiten @ derivative(filtered(moved, data, over).e)[..., np.newaxis])[..., 0]
    x0 = np.empty((n_records, n))
    root = np.linalg.cholesky(parameters.P0)
    for r in range(n_records):
        rows = slice(data.starts[r], data.starts[r + 1])
        columns = np.vstack([-J[:, rows].reshape(n, -1).T @ root, np.eye(n)])
        x0[r] = root @ np.linalg.lstsq(columns, np.append(e[rows].ravel(), np.zeros(n)), rcond=None)[0]
    return x0


def ahead(parameters, data, k):
    """Predictions of every sample from y up to k samples before it; from the initial state where there are none."""
    over = transitions(parameters, data, True)
    found = filtered(parameters, data, over)
    samples = np.arange(len(data.y))
    first = np.repeat(data.starts[:-1], np.diff(data.starts))
    record = np.repeat(np.arange(len(data.starts) - 1), np.diff(data.starts))
    now = np.maximum(samples - k, first)
    x = np.where((samples - k >= first)[:, np.newaxis], found.x[now], parameters.x0[record])
    w = data.u @ parameters.B.T
    while True:
        moving = np.flatnonzero(now < samples)
        if not moving.size:
            break
        at = now[moving]
        g = data.gap_index[at]
        moved = np.einsum("kij,kj->ki", over.E[g], x[moving]) + np.einsum("kij,kj->ki", over.F[g], w[at])
        if data.linear:
            moved += np.einsum("kij,kj->ki", over.H[g], w[at + 1] - w[at])
        x[moving] = moved
        now[moving] += 1
    return x @ parameters.C.T + data.u @ parameters.D.T + parameters.offset


class LTIStream:
    """A predictor of the next output, one sample at a time, at constant cost.

    Parameters
    ----------
    model : LTIRegressor
        Fitted.
    initial_state : array-like of shape (order,), optional
        At the first sample; by default it has the distribution of the states in the data of `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti import LTIRegressor
    >>> u = np.random.default_rng(0).normal(size=(100, 1))
    >>> y = np.convolve(u[:, 0], 0.5 ** np.arange(20))[:100]
    >>> model = LTIRegressor(order=1, feedthrough=True, noise_model="output_error").fit(u, y)
    >>> stream = model.stream()
    >>> answers = [stream.step(u_t, y_t) for u_t, y_t in zip(u, y)]
    >>> bool(np.allclose(answers, model.predict(u, y)))
    True
    """

    def __init__(self, model, initial_state=None):
        self._model = model
        n = model.order_
        x = np.zeros(n) if initial_state is None else np.asarray(initial_state, dtype=float)
        if x.shape != (n,) or not np.isfinite(x).all():
            raise ValueError(f"initial_state must be finite and of shape {(n,)}. Got shape {x.shape}.")
        known = initial_state is not None
        self._x, self._P = x, np.zeros((n, n)) if known else model._parameters.P0
        self._u, self._gap = None, None

    def step(self, u, y=np.nan, dt=None):
        """Predict the output at the next sample from all samples before it, and learn of its measurement.

        Parameters
        ----------
        u : array-like of shape (n_inputs,)
            The input at this sample.
        y : float or array-like of shape (n_outputs,), default=nan
            The output measured at it; NaN is missing.
        dt : float, optional
            The time since the sample before, in the unit of the training times; the median gap by default.

        Returns
        -------
        float or ndarray of shape (n_outputs,)
            The prediction of y, from before it was seen.
        """
        model, parameters = self._model, self._model._parameters
        u = np.atleast_1d(np.asarray(u, dtype=float))
        if u.shape != (model.n_features_in_,) or not np.isfinite(u).all():
            raise ValueError(f"u must be {model.n_features_in_} finite number(s), one for each input. Got {u}.")
        u = (u - model._u_shift) / model._u_scale
        y = np.broadcast_to(np.asarray(y, dtype=float), model._y_scale.shape)
        y = (y - model._y_shift) / model._y_scale
        if self._u is not None:
            self._move(u, 1.0 if dt is None else float(scale_gaps(dt, model.time_scale_)))
        self._u = u
        predicted = parameters.C @ self._x + parameters.D @ u + parameters.offset
        seen = ~np.isnan(y)
        if seen.any():
            C = parameters.C[seen]
            M = self._P @ C.T
            S = C @ M + measurement_noise(parameters)[np.ix_(seen, seen)]
            K = np.linalg.solve(S, M.T).T
            self._x = self._x + K @ (y - predicted)[seen]
            self._P = self._P - K @ M.T
        predicted = predicted * model._y_scale + model._y_shift
        return float(predicted[0]) if model._single else predicted

    def _move(self, u, gap):
        model = self._model
        discrete = model.domain == "discrete"
        if not gap >= 0 or (discrete and abs(gap - 1) > 1e-6):
            allowed = f"the gap of fit, {model.time_scale_:g}," if discrete else ">= 0"
            raise ValueError(f"dt must be {allowed} in this model. Got {gap * model.time_scale_:g}.")
        if gap != self._gap:
            empty = np.zeros((0, 1))
            data = Data(empty, empty, np.array([gap]), np.zeros(0, np.int64), np.zeros(1, np.int64), False, discrete)
            self._gap, self._over = gap, [part[0] for part in transitions(model._parameters, data, True)]
        E, F, H, W = self._over
        w0, w1 = model._parameters.B @ self._u, model._parameters.B @ u
        self._x = E @ self._x + F @ w0 + (H @ (w1 - w0) if model.hold == "foh" else 0.0)
        self._P = E @ self._P @ E.T + W
        self._P = 0.5 * (self._P + self._P.T)
