"""Draws of states and observations, of the model itself or given a record.

The simulation smoother draws (x⁺, y⁺) from the model and corrects it: x⁺ + E[x | y − y⁺] is a draw given y, because the
error of a smoothed mean does not depend on the observations (Durbin & Koopman 2002, Biometrika 89). The diffuse part
of x⁺ may be anything, and is 0. Above: `model`. Below: `sequential`.
"""

import numpy as np

from statespace.kalman.results import Sample
from statespace.kalman.sequential import Sequence, observation_noise_as_state
from statespace.kalman.smoothing import conditional
from statespace.kernels.kalman_filter import kalman_smoother

# Observations that are smoothed in one call: bounds the memory.
_ROWS = 200_000


def root(covariance):
    """L with L Lᵀ = covariance (..., k, k), also of a singular one."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., np.newaxis, :]


def draw(system, n_times, u, n_samples, generator):
    """Draws of the model, with the diffuse part of the initial state at its mean.

    Parameters
    ----------
    system : System
    n_times : int
    u : ndarray of shape (n_times, k) or None
    n_samples : int
    generator : numpy.random.Generator

    Returns
    -------
    Sample
        Its states are followed by the observations' noise where that is correlated with the states'.
    """
    p = system.n_outputs
    wide = system if system.cross_covariance is None else observation_noise_as_state(system)
    m = wide.n_states
    A, H = wide.transition, wide.observation
    noise, error = root(wide.state_noise()), root(wide.observation_noise)
    push, offset = wide.push(u), wide.offset(u)
    state = np.empty((n_samples, n_times, m))
    x = wide.initial_mean + generator.standard_normal((n_samples, m)) @ root(wide.initial_covariance).T
    for t in range(n_times):
        state[:, t] = x
        if t + 1 < n_times:
            A_t, push_t, noise_t = (array[min(t, len(array) - 1)] for array in (A, push, noise))
            x = x @ A_t.T + push_t + generator.standard_normal((n_samples, m)) @ noise_t.T
    y = (H @ state[..., np.newaxis])[..., 0] + offset
    y = y + (error @ generator.standard_normal((n_samples, n_times, p, 1)))[..., 0]
    return Sample(state, y)


def draw_given(system, y, u, n_samples, generator):
    """Draws of states and observations given a record.

    Parameters
    ----------
    system : System
    y : ndarray of shape (T, p)
        NaN where missing: there the observations are drawn as well.
    u : ndarray of shape (T, k) or None
    n_samples : int
    generator : numpy.random.Generator

    Returns
    -------
    Sample
    """
    T, p = y.shape
    drawn = draw(system, T, u, n_samples, generator)
    silent = system._replace(
        state_intercept=np.zeros_like(system.state_intercept[:1]),
        observation_intercept=np.zeros_like(system.observation_intercept[:1]),
        initial_mean=np.zeros_like(system.initial_mean),
    )
    sequence = Sequence(silent, y)
    values, _, blocks, H, noise, *start = sequence.arguments()
    length = len(values)
    state = np.empty_like(drawn.state)
    at_once = max(1, _ROWS // length)
    for first in range(0, n_samples, at_once):
        part = y - drawn.observation[first : first + at_once]
        k = len(part)
        result = kalman_smoother(
            sequence.values_of(part), np.zeros(k * length), blocks._replace(gap_index=np.tile(blocks.gap_index, k)),
            H if H.ndim == 1 else np.tile(H, (k, 1)), noise if np.ndim(noise) == 0 else np.tile(noise, k), *start,
            readout=np.eye(sequence.n), starts=np.arange(k + 1) * length,
        )  # fmt: skip
        if np.isinf(result.covariance).any():
            raise ValueError(
                "y leaves a part of the diffuse initial state unbounded, so there is nothing to draw it from. Give "
                "initial_covariance, or more observations."
            )
        means = result.mean.reshape(k, len(y), -1, sequence.n)[:, :, 0]
        state[first : first + k] = drawn.state[first : first + k] + means
    n = system.n_states
    wide = sequence.system
    H, offset = wide.observation, system.offset(u)
    signal = (H @ state[..., np.newaxis])[..., 0] + offset
    before = (H @ drawn.state[..., np.newaxis])[..., 0] + offset
    observed = ~np.isnan(y)
    filled = np.broadcast_to(y, signal.shape).copy()
    R = np.broadcast_to(wide.observation_noise, (T, p, p))
    for pattern in np.unique(observed[~observed.all(axis=1)], axis=0):
        times = np.flatnonzero((observed == pattern).all(axis=1))
        gain, _ = conditional(R[times], pattern)
        # the error that was drawn, moved by what the observed entries say about it
        error = drawn.observation[:, times] - before[:, times]
        known = np.where(pattern, y[times] - signal[:, times] - error, 0.0)
        error = error + (gain @ known[..., np.newaxis])[..., 0]
        filled[:, times] = np.where(pattern, y[times], signal[:, times] + error)
    return Sample(state[..., :n], filled)
