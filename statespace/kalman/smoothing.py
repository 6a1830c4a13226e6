"""States, lag-one covariances and disturbances given a whole record, exact also through a diffuse start.

With r, N the smoother's backward recursion, the adjoint of the transition A_t is r x̂ᵀ − N A P and that of its noise
½ (r rᵀ − N). Of a record of zeros r is 0, so that these adjoints, which the kernel's gradient returns for every step,
are the second moments that are wanted here, free of cancellation:

    cov(w_t, x_t | y) = −Q N A P,   cov(w_t | y) = Q − Q N Q,   cov(x_{t+1}, x_t | y) = A V_t + cov(w_t, x_t | y).

Durbin & Koopman (2012), sections 4.5, 4.7 and 5.4. Above: `model`. Below: `sequential`.
"""

import numpy as np

from statespace.kalman.results import SmootherResult
from statespace.kernels.kalman_filter import kalman_gradient, kalman_smoother


def smooth(sequence):
    """All that the whole record tells about states and disturbances.

    Parameters
    ----------
    sequence : Sequence

    Returns
    -------
    SmootherResult
    """
    T, p = sequence.y.shape
    m, n = sequence.n, sequence.n_given
    result = kalman_smoother(*sequence.arguments())
    mean, V = result.mean[::p], result.covariance[::p]
    _, second = kalman_gradient(*sequence.arguments(each=True, silent=True), by_observation=False)
    A_bar = second.transition[: T - 1].reshape(-1, m, m)
    Q_bar = second.process_noise[: T - 1].reshape(-1, m, m)
    A, Q = sequence.A, sequence.Q
    finite = np.where(np.isinf(V), 0.0, V)
    cross = Q @ A_bar
    lag_one = A @ finite[:-1] + cross
    w = mean[1:] - (A @ mean[:-1, :, np.newaxis])[..., 0]
    w = np.where((np.diagonal(Q, axis1=1, axis2=2) > 0.0), w, 0.0)
    W = Q + 2.0 * Q @ Q_bar @ Q
    if sequence.given.cross_covariance is None:
        w, W = w[:, :n], W[:, :n, :n]
        noise, spread = _observation_disturbances(sequence, mean, finite)
    else:
        # w = gain ε + w*, both known from the wider state
        gain = A[:, :n, n : n + p]
        noise, spread = mean[:, n : n + p], finite[:, n : n + p, n : n + p]
        w = (gain @ noise[:-1, :, np.newaxis])[..., 0] + w[:, :n]
        mixed = cross[:, :n, n : n + p] @ np.swapaxes(gain, 1, 2)
        W = W[:, :n, :n] + mixed + np.swapaxes(mixed, 1, 2) + gain @ spread[:-1] @ np.swapaxes(gain, 1, 2)
    return SmootherResult(
        mean[:, :n],
        V[:, :n, :n],
        result.log_likelihood + sequence.shift,
        lag_one[:, :n, :n],
        w,
        _symmetric(W),
        noise,
        spread,
    )


def _observation_disturbances(sequence, mean, V):
    """E[ε_t | y] and its covariance: y − H x̂ where observed, regressed on that where missing."""
    T, p = sequence.y.shape
    H, R = sequence.H, sequence.system.observation_noise
    noise = sequence.y - sequence.offset - (H @ mean[..., np.newaxis])[..., 0]
    spread = np.array(_symmetric(H @ V @ np.swapaxes(H, 1, 2)))
    R = np.broadcast_to(R, (T, p, p))
    for pattern in np.unique(sequence.observed[~sequence.observed.all(axis=1)], axis=0):
        times = np.flatnonzero((sequence.observed == pattern).all(axis=1))
        gain, rest = conditional(R[times], pattern)
        noise[times] = (gain @ np.where(pattern, noise[times], 0.0)[..., np.newaxis])[..., 0]
        spread[times] = gain @ spread[times] @ np.swapaxes(gain, 1, 2) + rest
    return noise, spread


def conditional(R, pattern):
    """Of ε ~ N(0, R) given its entries in ``pattern``: the matrix that gives its mean, and its covariance.

    Parameters
    ----------
    R : ndarray of shape (..., p, p)
    pattern : ndarray of bool, shape (p,)

    Returns
    -------
    gain, covariance : ndarray of shape (..., p, p)
        The columns of what is not known are 0.
    """
    seen, missing = np.flatnonzero(pattern), np.flatnonzero(~pattern)
    gain, rest = np.zeros_like(R), np.zeros_like(R)
    gain[..., seen, seen] = 1.0
    if len(missing):
        across = R[..., missing[:, np.newaxis], seen]
        solved = across @ np.linalg.pinv(R[..., seen[:, np.newaxis], seen], hermitian=True)
        gain[..., missing[:, np.newaxis], seen] = solved
        left = R[..., missing[:, np.newaxis], missing] - solved @ np.swapaxes(across, -1, -2)
        rest[..., missing[:, np.newaxis], missing] = left
    return gain, rest


def _symmetric(V):
    return 0.5 * (V + np.swapaxes(V, -1, -2))
