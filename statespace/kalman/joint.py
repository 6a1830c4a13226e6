"""The joint covariance of the signal at many rows, in one sweep backwards and one forwards.

Given the state at one row and all samples after it, the state at the next row is x' = G x + N(0, C), whatever came
before: the smoothed process is a Markov chain. From row to row

    cov(x_i, x_j) = V_i G_iᵀ … G_{j−1}ᵀ,    V_{i+1} = G_i V_i G_iᵀ + C_i,

G and C follow, backwards, from what later samples say about a state, the information SᵀS. With I + S Q Sᵀ = U Uᵀ,
E = U⁻¹ S Q and B = U⁻¹ S A, the noise and the transition of a step given the later samples are Q₁ = Q − EᵀE and
G₁ = A − EᵀB, and what they say about the state before it is BᵀB. A sample there of variance F = h·Q₁h + R leaves
G = (I − k h)G₁ and C = Q₁ − k h Q₁, k = Q₁h/F, and adds the row hG₁/√F to B. None of this knows the past, so that a
diffuse start is no special case; as roots, directions of which little is known keep their digits.
"""

import numpy as np
from numba import njit

from statespace.kalman.binding import State
from statespace.kernels.kalman_filter import Blocks, discretize_blocks, kalman_filter
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS, TABLE

# Gaps whose matrices are held at once.
_CHUNK = 2048
# In scaled units: a variance that stands for none, where a noise-free sample meets what is known already.
_NOTHING = 1e-14
# What is known less well than this, beside the rest, is not known at all.
_UNKNOWN = 1e-13


def joint_covariance(binding, y, noise, places):
    """The covariance of the signal between some of the samples, given all of y.

    Parameters
    ----------
    binding : Binding
        Of one record.
    y : ndarray of shape (n_times,)
        Only whether it is NaN counts.
    noise : ndarray of shape (n_times,)
    places : ndarray of int, shape (k,)
        Samples, in order and all different.

    Returns
    -------
    ndarray of shape (k, k)
        Of what is finite: where y leaves a diffuse direction open that a row sees, its entries mean nothing.
    """
    n, k = len(binding.initial.mean), len(places)
    steps = np.zeros((k, n, n)), np.zeros((k, n, n))
    information = _backwards(binding, y, noise, places, *steps)
    state = _conditioned(_filtered(binding, y, noise, places[0] + 1), information)
    rows = np.broadcast_to(binding.rows, (len(binding), n))[places]
    return _forwards(rows, *steps, state.covariance)


def _backwards(binding, y, noise, places, gains, spreads):
    """G and C from each place to the next, in place; what is known about the state at the first from later samples."""
    n = len(binding.initial.mean)
    information, gain, spread = np.zeros((n, n)), np.eye(n), np.zeros((n, n))
    rows = np.ascontiguousarray(np.broadcast_to(binding.rows, (len(binding), n)))
    stop, left = len(binding), len(places) - 1
    while stop > places[0] + 1:
        start = max(places[0] + 1, stop - _CHUNK)
        part = binding.part(start, stop)
        A, Q = discretize_blocks(part.blocks, part.gaps)
        left = _sweep(
            A, Q, rows[start:stop], y[start:stop], noise[start:stop], start, places, left, information, gain, spread,
            gains, spreads,
        )  # fmt: skip
        stop = start
    gains[0], spreads[0] = gain, spread
    return information


@njit(nogil=True, cache=True)
def _sweep(A, Q, rows, y, noise, first, places, left, S, gain, spread, gains, spreads):
    """From the last sample of a chunk to its first; ``gain`` and ``spread`` lead from the sample to the next place."""
    n = len(S)
    eye = np.eye(n)
    stacked = np.zeros((n + 1, n))
    for t in range(len(A) - 1, -1, -1):
        if places[left] == first + t:
            # What has gathered leads from this place to the one after it; a new stretch begins, and ends here.
            gains[left] = gain
            spreads[left] = spread
            gain[:] = eye
            spread[:] = 0.0
            left -= 1
        h = rows[t]
        SQ = S @ Q[t]
        U = np.linalg.cholesky(eye + SQ @ S.T)
        E = np.linalg.solve(U, SQ)
        B = np.linalg.solve(U, S @ A[t])
        C = Q[t] - E.T @ E
        G = A[t] - E.T @ B
        if np.isnan(y[t]):
            S[:] = B
        else:
            m = C @ h
            F = max(np.dot(h, m) + noise[t], _NOTHING)
            seen = h @ G
            stacked[:n] = B
            stacked[n] = seen / np.sqrt(F)
            S[:] = np.linalg.qr(stacked)[1]
            G -= np.outer(m, seen) / F
            C -= np.outer(m, m) / F
        spread += gain @ C @ gain.T
        gain[:] = gain @ G
    return left


def _filtered(binding, y, noise, stop):
    """The state at sample ``stop`` − 1 given the samples until there."""
    return binding.part(0, stop).filter_to_end(y[:stop], noise[:stop])


def _conditioned(state, information):
    """A state, given what is known besides: rows that are read with variance 1."""
    _, values, directions = np.linalg.svd(information)
    kept = values > _UNKNOWN * max(values[0], 1e-300)
    if not kept.any():
        return state
    rows = directions[kept] * values[kept, np.newaxis]
    n, count = len(state.mean), len(rows)
    # One block of all states: beside a whole row, what rounding leaves of a direction is nothing.
    still = Blocks(
        np.array([TABLE]), np.array([n]), np.zeros((1, N_PARAMETERS)), np.eye(n).reshape(1, -1), np.zeros((1, n * n)),
        np.zeros(count, dtype=np.int64),
    )  # fmt: skip
    result = kalman_filter(np.zeros(count), np.zeros(count), still, rows, 1.0, *state)
    return State(result.mean[-1], result.covariance[-1], result.diffuse)


def _forwards(rows, gains, spreads, covariance):
    """The covariances of the signal between the places, from the state's at the first."""
    k, n = rows.shape
    result, crossed = np.empty((k, k)), np.empty((n, k))
    for j in range(k):
        if j:
            gain = gains[j - 1]
            covariance = gain @ covariance @ gain.T + spreads[j - 1]
            crossed[:, :j] = gain @ crossed[:, :j]
        crossed[:, j] = covariance @ rows[j]
        result[j, : j + 1] = rows[j] @ crossed[:, : j + 1]
        result[: j + 1, j] = result[j, : j + 1]
    return result
