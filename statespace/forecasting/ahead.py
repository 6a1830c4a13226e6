"""Forecasts of a Kalman model at any times, each given the observations before it: one pass of the filter for all of
them.

A row that is asked for is put before the observations of its own time, as a missing one. The filtered state there is
the state given the past, which is one step ahead within the data and the forecast beyond them.
"""

import numpy as np

from statespace.kalman.binding import State
from statespace.kalman.posterior import of_output
from statespace.kernels.kalman_filter import kalman_filter

# Samples that are filtered in one call: bounds the memory.
_CHUNK = 8192


def predict_ahead(posterior, times, covariates, noise):
    """Mean and variance of an observation at each row, given all observations at earlier times.

    Parameters
    ----------
    posterior : Posterior
        Of one series and one output.
    times : ndarray of shape (n,)
        In any order.
    covariates : ndarray of shape (n, c)
    noise : float
        The noise variance of an observation.

    Returns
    -------
    mean, variance : ndarray of shape (n,)
        The noise of an observation is counted. The variance is infinite, and the mean means nothing, where the past
        leaves a diffuse process open.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.forecasting.ahead import predict_ahead
    >>> from statespace.kalman import LocalLevel
    >>> t = np.arange(3.0)
    >>> gp = KalmanRegressor(LocalLevel(variance=1.0), noise_variance=1.0, optimizer=None)
    >>> gp = gp.fit(t[:, np.newaxis], [1.0, 2.0, 4.0])
    >>> predict_ahead(gp._posterior(), t, np.zeros((3, 0)), noise=1.0)[1]
    array([       inf, 3.        , 2.66666667])
    """
    record, n = posterior.record, len(times)
    joined = np.concatenate([times, record.times])
    order = np.argsort(joined, kind="stable")
    y = np.concatenate([np.full(n, np.nan), posterior.scaled_y[:, 0]])[order]
    binding = posterior._binding(joined[order], np.concatenate([covariates, record.covariates])[order])
    asked = order < n
    noises = of_output(posterior.scaled_noise, 0)
    if np.ndim(noises):
        noises = np.concatenate([np.ones(n), noises])[order]
    mean, variance = np.empty(len(order)), np.empty(len(order))
    state, start = binding.initial, 0
    while start < len(order):
        # While a direction is open, one sample at a time: only a call's last diffuse part is known.
        stop = start + 1 if state.diffuse.shape[1] else min(start + _CHUNK, len(order))
        part = binding.part(start, stop, state)
        own = noises[start:stop] if np.ndim(noises) else noises
        result = kalman_filter(
            y[start:stop], part.gaps, part.blocks, part.rows, own, *state, backend=posterior.backend
        )
        h = np.broadcast_to(part.rows, (stop - start, result.mean.shape[1]))
        mean[start:stop] = (h * result.mean).sum(axis=1)
        variance[start:stop] = np.einsum("ki,kij,kj->k", h, result.covariance, h)
        if state.diffuse.shape[1] and _is_open(h[0], result.diffuse):
            variance[start] = np.inf
        state, start = State(result.mean[-1], result.covariance[-1], result.diffuse), stop
    place = np.empty(n, dtype=np.intp)
    place[order[asked]] = np.flatnonzero(asked)
    scale = posterior.scale.value
    return mean[place] * scale + posterior.offset[0], np.maximum(variance[place], 0.0) * scale**2 + noise


def _is_open(row, diffuse):
    """Whether the row sees a diffuse direction by more than rounding."""
    return diffuse.shape[1] and np.any(np.abs(row @ diffuse) > 1e-9 * np.abs(row) @ np.abs(diffuse))
