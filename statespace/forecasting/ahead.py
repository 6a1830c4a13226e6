"""Forecasts of a Kalman model at any times, each given the observations before it: one pass of the filter for all of
them.

A row that is asked for is put before the observations of its own time, as a missing one. The filtered state there is
the state given the past, which is one step ahead within the data and the forecast beyond them.

Beyond the data only the last state counts: `Filtered` keeps it, and takes new observations in as they come.
"""

from typing import Any, NamedTuple

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


class Filtered(NamedTuple):
    """What a series says about its future: the filtered state at its last sample.

    time : float; state : State, in scaled units.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.forecasting.ahead import Filtered
    >>> from statespace.kalman import LocalLevel
    >>> t = np.arange(3.0)
    >>> gp = KalmanRegressor(LocalLevel(variance=1.0), noise_variance=1.0, optimizer=None)
    >>> posterior = gp.fit(t[:, np.newaxis], [1.0, 2.0, 4.0])._posterior()
    >>> filtered = Filtered.of(posterior).after(posterior, np.array([3.0]), np.zeros((1, 0)), np.array([5.0]))
    >>> mean, variance = filtered.ahead(posterior, np.array([4.0, 9.0]), np.zeros((2, 0)))
    >>> mean.round(3), variance.round(3)
    (array([4.286, 4.286]), array([1.619, 6.619]))
    """

    time: float
    state: Any

    @classmethod
    def of(cls, posterior, stop=None):
        """After the first ``stop`` samples of a posterior of one series and one output; None counts all."""
        record = posterior.record
        stop = len(record.times) if stop is None else stop
        binding = posterior._binding(record.times[:stop], record.covariates[:stop])
        return cls(
            record.times[stop - 1], binding.filter_to_end(posterior.scaled_y[:stop, 0], _noise(posterior, slice(stop)))
        )

    def until(self, posterior, start, stop):
        """After the samples ``start`` to ``stop`` of the posterior's record, each with its own noise."""
        record, new = posterior.record, slice(start, stop)
        data = record.times[new], record.covariates[new], record.y[new, 0]
        return self.after(posterior, *data, noise=_noise(posterior, new))

    def after(self, posterior, times, covariates, y, noise=None):
        """After new observations ``y`` (n,), NaN where missing, at later times in order."""
        if len(times) == 0:
            return self
        noise = posterior.scaled_noise if noise is None else noise
        scaled = (y - posterior.offset[0, 0]) / posterior.scale.value
        return Filtered(times[-1], self._binding(posterior, times, covariates).filter_to_end(scaled, noise))

    def ahead(self, posterior, times, covariates):
        """Mean and variance (n,) of the signal at times that are not before this one, in any order.

        The variance is infinite where a diffuse process is open still.
        """
        order = np.argsort(times, kind="stable")
        binding = self._binding(posterior, times[order], covariates[order])
        mean, variance = np.empty(len(times)), np.full(len(times), np.inf)
        step = 1 if self.state.diffuse.shape[1] else _CHUNK
        state = self.state
        for start in range(0, len(times), step):
            part = binding.part(start, start + step, state)
            rows = order[start : start + step]
            result = part._call(kalman_filter, np.full(len(rows), np.nan), 1.0)
            h = np.broadcast_to(part.rows, result.mean.shape)
            if not _is_open(h[0], result.diffuse):
                mean[rows] = (h * result.mean).sum(axis=1)
                variance[rows] = np.maximum(np.einsum("ki,kij,kj->k", h, result.covariance, h), 0.0)
            state = State(result.mean[-1], result.covariance[-1], result.diffuse)
        scale = posterior.scale.value
        return mean * scale + posterior.offset[0, 0], variance * scale**2

    def _binding(self, posterior, times, covariates):
        """Of times after this one, from the state here."""
        joined = posterior._binding(np.append(self.time, times), np.concatenate([covariates[:1], covariates]))
        return joined.part(1, len(times) + 1, self.state)


def _noise(posterior, samples):
    """The scaled noise of some samples of the record."""
    noise = of_output(posterior.scaled_noise, 0)
    return noise[samples] if np.ndim(noise) else noise


def _is_open(row, diffuse):
    """Whether the row sees a diffuse direction by more than rounding."""
    return diffuse.shape[1] and np.any(np.abs(row @ diffuse) > 1e-9 * np.abs(row) @ np.abs(diffuse))
