"""The Numba backend: fused loops over the record, A(Δ) and Q(Δ) formed on the way, nothing stored that is not returned."""

import numpy as np
from numba import njit

from statespace.kernels.kalman_filter import FilterResult
from statespace.kernels.kalman_filter.discretization import discretize, expand
from statespace.kernels.kalman_filter.forward import (
    FILTERED,
    NOTHING,
    Record,
    forward,
    forward_pair,
    log_likelihood,
    room,
    start,
)


@njit(cache=True)
def _discretize_all(blocks, dt):
    units = expand(blocks.kind, blocks.size)
    size = units[1]
    n = size.sum()
    width = (size * size).sum()
    A = np.empty(width)
    Q = np.empty(width)
    transition = np.zeros((len(dt), n, n))
    process_noise = np.zeros((len(dt), n, n))
    for t in range(len(dt)):
        row = blocks.gap_index[t] if len(blocks.gap_index) == len(dt) else 0
        discretize(units, blocks.parameters, blocks.transition, blocks.process_noise, dt[t], row, A, Q)
        o = 0
        p = 0
        for s in size:
            for i in range(s):
                for j in range(s):
                    transition[t, o + i, o + j] = A[p + i * s + j]
                    process_noise[t, o + i, o + j] = Q[p + i * s + j]
            o += s
            p += s * s
    return transition, process_noise


@njit(cache=True)
def _log_likelihood(record, mean, covariance, diffuse):
    units = expand(record.kind, record.size)
    state = start(mean, covariance, diffuse)
    last = len(record.y)
    stop = forward(record, units, 0, last, state, NOTHING, room(0, len(mean), 0))
    if stop < last:
        forward_pair(record, units, stop, last, state)
    return log_likelihood(state)


@njit(cache=True)
def _filter(record, mean, covariance, diffuse):
    units = expand(record.kind, record.size)
    state = start(mean, covariance, diffuse)
    kept = room(len(record.y), len(mean), 0)
    forward(record, units, 0, len(record.y), state, FILTERED, kept)
    return log_likelihood(state), kept, state.diffuse[: state.counts[0]].T.copy(), state.counts[3]


def discretize_blocks(blocks, dt):
    return _discretize_all(blocks, dt)


def kalman_log_likelihood(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    return _log_likelihood(Record(y, dt, *blocks, observation, noise_variance), mean, covariance, diffuse)


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    record = Record(y, dt, *blocks, observation, noise_variance)
    log_likelihood, kept, left, n_diffuse = _filter(record, mean, covariance, diffuse)
    return FilterResult(log_likelihood, kept.mean, kept.covariance, kept.innovation, kept.variance, left, n_diffuse)
