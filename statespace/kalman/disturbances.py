"""What a record says about its own samples: innovations, leave-one-out predictions, and shocks to the states."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from statespace.kalman.binding import State
from statespace.kalman.posterior import of_output
from statespace.kernels.kalman_filter import discretize_blocks, kalman_filter
from statespace.kernels.kalman_filter.disturbances import disturb

# Samples that are filtered in one call: bounds the memory.
_CHUNK = 4096


class Innovations(NamedTuple):
    """One-step-ahead errors, in the data's units.

    Attributes
    ----------
    innovation : ndarray of shape (n_times, n_outputs)
        v = y − E[y | the samples before]; NaN where y is missing.
    innovation_variance : ndarray of shape (n_times, n_outputs)
        F, infinite where the past leaves the sample open.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.disturbances import Innovations
    >>> Innovations(np.ones((2, 1)), np.ones((2, 1))).innovation.shape
    (2, 1)
    """

    innovation: np.ndarray
    innovation_variance: np.ndarray


class Disturbances(NamedTuple):
    """What the backward recursion says of each sample, in the data's units (but for the states).

    Attributes
    ----------
    observation : ndarray of shape (n_times, n_outputs)
        u: the error of y predicted from all other samples, divided by its variance. NaN where y is missing.
    observation_variance : ndarray of shape (n_times, n_outputs)
        D, the variance of u. The sample less its leave-one-out prediction is u/D, with variance 1/D; D = 0 where only
        this sample fixes a diffuse direction.
    state : ndarray of shape (n_times, n_states, n_outputs)
        r: the gradient of the log-likelihood by a shock to each state at each time.
    state_variance : ndarray of shape (n_times, n_states, n_outputs)
        The variance of r. Both in scaled units: their ratio r/√N has none.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.disturbances import Disturbances
    >>> Disturbances(np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 3, 1)), np.ones((2, 3, 1))).state.shape
    (2, 3, 1)
    """

    observation: np.ndarray
    observation_variance: np.ndarray
    state: np.ndarray
    state_variance: np.ndarray


def innovations(posterior):
    """Innovations of a record, by one pass of the filter.

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    Innovations

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.disturbances import innovations
    >>> from statespace.kalman.posterior import Posterior, Record
    >>> from statespace.kalman.scale import Scale
    >>> record = Record(np.arange(2.0), np.zeros((2, 0)), np.array([[1.0], [3.0]]), None)
    >>> innovations(Posterior(LocalLevel(variance=2.0), 1.0, record, Scale(1.0, 1.0, 2.0), "D")).innovation_variance
    array([[inf],
           [ 4.]])
    """
    binding, y, noise, scale = _bound(posterior)
    v, F = np.empty(y.shape), np.empty(y.shape)
    for place, series, values, variance in _series(binding, y, noise):
        for first, last, _, result in _parts(series, values, variance):
            v[place][first:last], F[place][first:last] = result.innovation, result.innovation_variance
    return Innovations(v * scale, F * scale**2)


def disturbances(posterior):
    """Smoothed disturbances of a record, by one pass forward and one back (Durbin & Koopman 2012, sections 4.5, 5.4).

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    Disturbances

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.disturbances import disturbances
    >>> from statespace.kalman.posterior import Posterior, Record
    >>> from statespace.kalman.scale import Scale
    >>> record = Record(np.arange(3.0), np.zeros((3, 0)), np.array([[1.0], [4.0], [1.0]]), None)
    >>> result = disturbances(Posterior(LocalLevel(variance=1.0), 1.0, record, Scale(1.0, 1.0, 2.0), "D"))
    >>> (result.observation / result.observation_variance).ravel().round(6)  # y less its leave-one-out prediction
    array([-2.,  3., -2.])
    """
    binding, y, noise, scale = _bound(posterior)
    n_times, n = len(binding), len(binding.initial.mean)
    u, D = np.full(y.shape, np.nan), np.full(y.shape, np.nan)
    r, N = np.empty((n_times, n, y.shape[1])), np.empty((n_times, n, y.shape[1]))
    for (samples, k), series, values, variance in _series(binding, y, noise):
        # The states at the beginnings of the parts are kept; the parts are filtered again on the way back.
        parts = [(first, last, start) for first, last, start, _ in _parts(series, values, variance)]
        r_t, N_t = np.zeros(n), np.zeros((n, n))
        for first, last, start in reversed(parts):
            part, local = series.part(first, last, start), _rows(variance, first, last)
            result = part._call(kalman_filter, values[first:last], local)
            observed, gains = _kinds(part, values[first:last], local, start, result)
            A, Q = discretize_blocks(part.blocks, part.gaps)
            rows = part.rows if part.rows.ndim == 2 else part.rows[np.newaxis]
            # Arrays of their own: the loop is compiled for contiguous ones.
            found = np.full(last - first, np.nan), np.full(last - first, np.nan), *np.empty((2, last - first, n))
            disturb(
                observed, A, Q, rows, np.array(start.covariance), result.covariance, result.innovation,
                result.innovation_variance, gains, r_t, N_t, *found, np.empty(n), np.empty(n), np.empty((n, n)),
            )  # fmt: skip
            place = slice(samples.start + first, samples.start + last)
            u[place, k], D[place, k], r[place, :, k], N[place, :, k] = found
    return Disturbances(u / scale, D / scale**2, r, N)


def _bound(posterior):
    record = posterior.record
    binding = posterior._binding(record.times, record.covariates, record.starts)
    return binding, posterior.scaled_y, posterior.scaled_noise, posterior.scale.value


def _series(binding, y, noise):
    """Each series of each output: its place (samples, output), binding, y and noise variances."""
    starts = np.array([0, len(binding)]) if binding.starts is None else binding.starts
    for first, last in pairwise(starts.tolist()):
        part = binding.take(slice(first, last))
        for k in range(y.shape[1]):
            yield (slice(first, last), k), part, y[first:last, k], _rows(of_output(noise, k), first, last)


def _rows(noise, first, last):
    return noise if np.ndim(noise) == 0 else noise[first:last]


def _parts(binding, y, noise):
    """The record in parts, in turn: where each begins and ends, the state before it, the filter's result."""
    state = binding.initial
    for first in range(0, len(binding), _CHUNK):
        last = min(first + _CHUNK, len(binding))
        result = binding.part(first, last, state)._call(kalman_filter, y[first:last], _rows(noise, first, last))
        yield first, last, state, result
        state = State(result.mean[-1].copy(), result.covariance[-1].copy(), result.diffuse)


def _kinds(part, y, noise, start, result):
    """For each sample 0 (missing), 1 (usual) or 2 (fixes a diffuse direction), and for the last kind its gain K0."""
    F = result.innovation_variance
    # What is known exactly already, and seen without noise, says nothing.
    observed = np.where(np.isnan(y) | ~(F > 0), 0, np.where(np.isinf(F), 2, 1))
    gains = np.zeros((len(y), len(start.mean)))
    done, state = 0, start
    for t in np.flatnonzero(observed == 2):
        if t > done:
            before = part.part(done, t, state)._call(kalman_filter, y[done:t], _rows(noise, done, t))
            state = State(before.mean[-1], before.covariance[-1], before.diffuse)
            done = t
        local = part.part(t, t + 1)
        A = discretize_blocks(local.blocks, local.gaps)[0][0]
        h = np.ravel(local.rows)
        directions = A @ state.diffuse
        seen = directions.T @ h
        gains[t] = directions @ seen / (seen @ seen)
    return observed, gains
