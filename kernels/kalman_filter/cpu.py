"""The Numba backend: fused loops over the record, A(Δ) and Q(Δ) formed on the way.

Python only cuts the record into segments here. A backward sweep needs the predicted moments of every sample: they are
kept for one segment at a time, and recomputed from the state at its beginning when the sweep gets there.
"""

import math

import numpy as np

from statespace.kernels.kalman_filter.backward import Backward
from statespace.kernels.kalman_filter.compiled import workspace
from statespace.kernels.kalman_filter.discretization import discretize_all, expand
from statespace.kernels.kalman_filter.forward import (
    FILTERED,
    NOTHING,
    PREDICTED,
    Kept,
    Record,
    State,
    forward,
    forward_pair,
)
from statespace.kernels.kalman_filter.gradient import gradient_segment
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult, Step
from statespace.kernels.kalman_filter.smoothing import smooth_segment

SEGMENT_BYTES = 64_000_000


def discretize_blocks(blocks, dt):
    n = blocks.n_states
    transition, process_noise = np.zeros((len(dt), n, n)), np.zeros((len(dt), n, n))
    units = expand(blocks.kind, blocks.size)
    work = workspace(units, n, 0)
    discretize_all(units, blocks, dt, work.A, work.Q, transition, process_noise)
    return transition, process_noise


def kalman_log_likelihood(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    state = _start(mean, covariance, diffuse)
    work = workspace(units, *diffuse.shape)
    stop = forward(record, units, 0, len(y), state, NOTHING, _room(0, len(mean), 0), work)
    if stop < len(y):
        forward_pair(record, units, stop, len(y), state, work)
    return _log_likelihood(state)


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    record = Record(y, dt, *blocks, observation, noise_variance)
    state = _start(mean, covariance, diffuse)
    kept = _room(len(y), len(mean), 0)
    units = expand(blocks.kind, blocks.size)
    forward(record, units, 0, len(y), state, FILTERED, kept, workspace(units, *diffuse.shape))
    return FilterResult(
        _log_likelihood(state), kept.mean, kept.covariance, kept.innovation, kept.variance, _left(state),
        int(state.counts[3]),
    )  # fmt: skip


def kalman_step(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    state = _start(mean, covariance, diffuse)
    kept = _room(1, len(mean), 0)
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    forward(record, units, 0, 1, state, FILTERED, kept, workspace(units, *diffuse.shape))
    return Step(state.mean, state.covariance, _left(state), float(kept.innovation[0]), float(kept.variance[0]))


def kalman_gradient(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    arguments = (*blocks[2:5], noise_variance, observation, mean, covariance, diffuse)
    gradient = Gradient(*(np.zeros_like(argument) for argument in arguments))
    origin, state, b = _start(mean, covariance, diffuse), _start(mean, covariance, diffuse), _nothing_seen(len(mean))
    work = workspace(units, *diffuse.shape)
    for first, last, kept in _backwards(record, units, state, work):
        gradient_segment(record, units, first, last, state.counts[2], origin, kept, b, gradient, work)
    gradient.mean[:] = b.r0
    gradient.covariance[:] = 0.5 * (np.outer(b.r0, b.r0) - b.N0)
    gradient.diffuse[:] = (np.outer(b.r0, b.r1) + np.outer(b.r1, b.r0) - b.N1) @ diffuse
    return _log_likelihood(state), gradient


def kalman_smoother(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    T, n = len(y), len(mean)
    whole = readout is None
    readout = np.zeros((1, 0, n)) if whole else readout
    r = readout.shape[1]
    means, variances = np.empty((T, n if whole else r)), np.empty((T, r))
    covariances = np.empty((T if whole else 0, n, n))
    state, b = _start(mean, covariance, diffuse), _nothing_seen(n)
    work = workspace(units, *diffuse.shape)
    for first, last, kept in _backwards(record, units, state, work):
        smooth_segment(
            record, units, first, last, state.counts[2], state.counts[0] > 0, kept, b, readout, means, variances,
            covariances, work,
        )  # fmt: skip
    return SmootherResult(_log_likelihood(state), means, covariances if whole else variances)


def _start(mean, covariance, diffuse):
    """The state before the first sample, copied."""
    rows = diffuse.T.copy()
    return State(mean.copy(), covariance.copy(), rows, np.array([len(rows), 0, 0, 0]), np.array([0.0, 1.0, 0.0, 0.0]))


def _left(state):
    return state.diffuse[: state.counts[0]].T.copy()


def _log_likelihood(state):
    logs, product, squares, _ = state.totals.tolist()
    return -0.5 * (logs + math.log(product) + squares + int(state.counts[1]) * math.log(2.0 * math.pi))


def _nothing_seen(n):
    return Backward(np.zeros(n), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)))


def _room(length, n, d):
    return Kept(
        np.empty((length, n)), np.empty((length, n, n)), np.empty((length, d, n)), np.zeros(length, dtype=np.int64),
        np.empty(length), np.empty(length), np.zeros(length, dtype=np.int64),
    )  # fmt: skip


def _backwards(record, units, state, work):
    """Run the filter, then yield (first, last, kept predictions) of each segment, from the last to the first.

    ``state`` is the final one from the first segment on.
    """
    T, n, d = len(record.y), len(state.mean), len(state.diffuse)
    fit = SEGMENT_BYTES // (8 * (n * n + n * (1 + d) + 4))
    length = min(T, max(fit, math.isqrt(T), 16))
    kept = _room(length, n, d)
    beginnings = []
    for first in range(0, T, length):
        beginnings.append(State(*(array.copy() for array in state)))
        forward(record, units, first, min(T, first + length), state, PREDICTED, kept, work)
    for first in range((len(beginnings) - 1) * length, -1, -length):
        last = min(T, first + length)
        if last < T:
            forward(record, units, first, last, beginnings[first // length], PREDICTED, kept, work)
        yield first, last, kept
