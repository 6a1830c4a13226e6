"""The exact gradient: one backward sweep, contracted with dA/dθ and dQ/dθ of every block on the way."""

from typing import NamedTuple

import numpy as np
from numba import njit

from statespace.kernels.kalman_filter.backward import (
    add_observation_adjoints,
    add_transition_adjoints,
    checkpoints,
    lift,
    nothing_seen,
    observe_backward,
    recover,
    segment_length,
)
from statespace.kernels.kalman_filter.discretization import contract, discretize, expand, has_table
from statespace.kernels.kalman_filter.forward import PREDICTED, forward, log_likelihood, start
from statespace.kernels.kalman_filter.sweep import DIFFUSE, SEEN, dot, symmetric_product, transpose


class Adjoints(NamedTuple):
    """The gradient of the log-likelihood with respect to every input of the filter."""

    parameters: np.ndarray
    transition: np.ndarray
    process_noise: np.ndarray
    noise_variance: np.ndarray
    observation: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray


@njit(cache=True)
def gradient(record, mean, covariance, diffuse):
    """The log-likelihood and its ``Adjoints``."""
    units = expand(record.kind, record.size)
    kind, size, _ = units
    n, d = diffuse.shape
    T = len(record.y)
    table = has_table(kind)
    width = (size * size).sum()
    A = np.empty(width)
    Q = np.empty(width)
    At = np.empty(width)
    A_bar = np.zeros(width)
    Q_bar = np.zeros(width)
    W = np.empty((n, n))
    scratch = np.empty((3, max(n, d)))
    m = np.empty(n)
    K0 = np.zeros(n)
    e0 = np.empty(n)
    e1 = np.zeros(n)
    g = np.empty(d)
    u = np.zeros(4)
    a = np.empty(n)
    P = np.empty((n, n))
    D = np.empty((d, n))
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    out = Adjoints(
        np.zeros_like(record.parameters),
        np.zeros_like(record.transition),
        np.zeros_like(record.process_noise),
        np.zeros_like(record.noise_variance),
        np.zeros_like(record.observation),
        np.zeros(n),
        np.zeros((n, n)),
        np.zeros((n, d)),
    )
    length = segment_length(T, n, d)
    state = start(mean, covariance, diffuse)
    copies, kept = checkpoints(record, units, state, length)
    last_diffuse = state.counts[2]
    value = log_likelihood(state)
    b = nothing_seen(n)
    gap = np.nan
    row = -1
    for segment in range(len(copies) - 1, -1, -1):
        first = segment * length
        last = min(T, first + length)
        if segment + 1 < len(copies):
            forward(record, units, first, last, copies[segment], PREDICTED, kept)
        for t in range(last - 1, first - 1, -1):
            i = t - first
            late = t < last_diffuse
            alive = kept.alive[i] if late else 0
            status = kept.status[i]
            h = record.observation[t * each_h]
            a[:] = kept.mean[i]
            P[:] = kept.covariance[i]
            for c in range(alive):
                D[c] = kept.diffuse[i, c]
            v = kept.innovation[i]
            R = record.noise_variance[t * each_R]
            F, F_inf = recover(units, h, v, R, status, alive, a, P, D, m, g, K0)
            if t + 1 < T:
                left = alive - 1 if status == DIFFUSE else alive
                # r₁, N₁, N₂ begin at the last diffuse sample, going back
                add_transition_adjoints(
                    b, t + 1 < last_diffuse, units, At, a, P, D, left, A_bar, Q_bar, W, scratch
                )
            if status == SEEN or status == DIFFUSE:
                observe_backward(b, late, h, v, F, F_inf, m, K0, scratch, e0, e1, u)
                add_observation_adjoints(
                    b, late, h, F_inf, m, K0, kept.mean[i], kept.covariance[i], kept.diffuse[i], alive, e0, e1, u,
                    out.noise_variance[t * each_R : t * each_R + 1], out.observation[t * each_h], scratch,
                )  # fmt: skip
                lift(b, late, h, u)
            changed = record.dt[t] != gap or (table and record.gap_index[t] != row)
            if changed:
                if t + 1 < T:
                    contract(
                        units, record.parameters, gap, row, A_bar, Q_bar,
                        out.parameters, out.transition, out.process_noise,
                    )  # fmt: skip
                    A_bar[:] = 0.0
                    Q_bar[:] = 0.0
                gap = record.dt[t]
                row = record.gap_index[t] if table else 0
                discretize(units, record.parameters, record.transition, record.process_noise, gap, row, A, Q)
                transpose(size, A, At)
    late = last_diffuse > 0
    D[:] = diffuse.T
    add_transition_adjoints(b, late, units, At, mean, covariance, D, d, A_bar, Q_bar, W, scratch)
    contract(units, record.parameters, gap, row, A_bar, Q_bar, out.parameters, out.transition, out.process_noise)
    for i in range(n):
        out.mean[i] = b.r0[i]
        for j in range(n):
            out.covariance[i, j] = 0.5 * (b.r0[i] * b.r0[j] - b.N0[i, j])
    if late:
        for c in range(d):
            symmetric_product(b.N1, D[c], m)
            along0 = dot(D[c], b.r0)
            along1 = dot(D[c], b.r1)
            for i in range(n):
                out.diffuse[i, c] = b.r0[i] * along1 + b.r1[i] * along0 - m[i]
    return value, out
