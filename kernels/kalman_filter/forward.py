"""The filter's forward sweep: any number of states, the exact diffuse start, and a register path for n ≤ 2."""

from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.blocks import MATERN32, OU
from statespace.kernels.kalman_filter.compiled import entry, helper
from statespace.kernels.kalman_filter.discretization import (
    discretize,
    gamma_3,
    matern32,
    ornstein_uhlenbeck,
    stays,
    tables,
)
from statespace.kernels.kalman_filter.sweep import (
    CERTAIN,
    DIFFUSE,
    MISSING,
    SEEN,
    add_blocks,
    congruence,
    contradicts,
    copy_matrix,
    copy_vector,
    correct,
    correct_diffuse,
    diffuse_gain,
    dot,
    eliminate,
    is_certain,
    multiply,
    symmetric_product,
    visible,
)

NOTHING, FILTERED, PREDICTED, GAINS = range(4)


class Record(NamedTuple):
    """What a sweep reads: y (T,), Δ (T,), the blocks, h (1, n) or (T, n), R (1,) or (T,)."""

    y: np.ndarray
    dt: np.ndarray
    kind: np.ndarray
    size: np.ndarray
    parameters: np.ndarray
    transition: np.ndarray
    process_noise: np.ndarray
    gap_index: np.ndarray
    observation: np.ndarray
    noise_variance: np.ndarray


class State(NamedTuple):
    """What a sweep carries and changes in place: a (n,), P (n, n), D (d, n) row by row, and running totals.

    ``counts``: rows of D still alive, samples observed, 1 + index of the last DIFFUSE one, samples that began diffuse.
    ``totals``: Σ log F so far, the running product of F since, Σ v²/F, the last F.
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    counts: np.ndarray
    totals: np.ndarray


class Kept(NamedTuple):
    """What a sweep leaves of each sample: the moments, D and its living rows, v, F, the observation's status, m."""

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    alive: np.ndarray
    innovation: np.ndarray
    variance: np.ndarray
    status: np.ndarray
    product: np.ndarray


@helper()
def multiply_in(totals, F):
    """One more factor of the determinant; its logarithm is taken only when the product nears over- or underflow."""
    totals[1] *= F
    if not 1e-140 < totals[1] < 1e140:
        totals[0] += np.log(totals[1])
        totals[1] = 1.0


@entry()
def forward(record, units, first, last, state, keep, kept, work):
    """Filter samples first..last−1; returns where it stopped: where ``forward_pair`` takes over, else ``last``."""
    a, P, D, counts, totals = state
    kind, size, _ = units
    n = len(a)
    A, Q, W, m, k, g = work.A, work.Q, work.W, work.m, work.K0, work.g
    table, every = tables(kind)
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    gap = np.nan
    row = -1
    for t in range(first, last):
        if keep == NOTHING and n <= 2 and counts[0] == 0:
            return t
        following = record.gap_index[t] if table else -1
        if not stays(every, record.dt[t], following):
            if record.dt[t] != gap or following != row:
                gap = record.dt[t]
                row = following
                discretize(units, record.parameters, record.transition, record.process_noise, gap, row, A, Q)
            multiply(size, A, a, m)
            congruence(size, A, P, W)
            add_blocks(size, Q, P)
            for c in range(counts[0]):
                multiply(size, A, D[c], m)
        if counts[0] > 0:
            counts[3] += 1
        h = record.observation[t * each_h]
        R = record.noise_variance[t * each_R]
        symmetric_product(P, h, m)
        signal = max(dot(h, m), 0.0)
        F = signal + R
        v = record.y[t] - dot(h, a)
        if keep == PREDICTED:
            i = t - first
            copy_vector(a, kept.mean[i])
            copy_matrix(P, kept.covariance[i])
            kept.alive[i] = counts[0]
            for c in range(counts[0]):
                copy_vector(D[c], kept.diffuse[i, c])
        if keep in (PREDICTED, GAINS):
            copy_vector(m, kept.product[t - first])
        status = MISSING if np.isnan(v) else SEEN
        F_inf = 0.0
        if counts[0] > 0:
            F_inf = visible(units, h, D, counts[0], g)
        if status == SEEN:
            counts[1] += 1
            if F_inf > 0.0:
                status = DIFFUSE
                diffuse_gain(D, counts[0], g, F_inf, k)
                correct_diffuse(a, P, m, F, k, v)
                eliminate(D, counts[0], g)
                counts[0] -= 1
                counts[2] = t + 1
                multiply_in(totals, F_inf)
            elif is_certain(signal, R, totals[3]):
                status = CERTAIN
                counts[1] -= 1
                if contradicts(v, record.y[t], totals[3]):
                    totals[2] = np.inf
            else:
                correct(a, P, m, F, R, v)
                totals[2] += v * v / F
                totals[3] = F
                multiply_in(totals, F)
        if keep != NOTHING:
            i = t - first
            kept.innovation[i] = v
            kept.variance[i] = np.inf if F_inf > 0.0 else F
            kept.status[i] = status
        if keep == FILTERED:
            copy_vector(a, kept.mean[t - first])
            copy_matrix(P, kept.covariance[t - first])
    return last


@entry(fastmath={"contract"})
def fill_gammas(rate, dt, roots, gammas):
    """P_3(2λΔ), from the roots exp(−λΔ)."""
    for i in range(len(dt)):
        gammas[i] = gamma_3(2.0 * rate * dt[i], roots[i] * roots[i])


@entry(fastmath={"contract"})
def forward_pair(record, units, first, last, state, work, roots, gammas):
    """``forward`` for one or two states and no diffuse direction left, with the state in registers; keeps nothing.

    A step is as long as its chain of dependent operations. So an update waits for the next prediction, which is
    A P Aᵀ + Q − (A m)(A m)ᵀ/F, all but its last product ready before 1/F is; F is a quadratic form in P, not a product
    with m; and multiplications fuse with additions ("contract"). For a Matérn 3/2, ``roots`` and ``gammas`` hold
    exp(−λΔ) and P_3(2λΔ) of these samples: computed side by side they cost a third, and no branch stops the step.
    """
    kind, size, _ = units
    n = len(state.mean)
    table, _ = tables(kind)
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    A, Q = work.A, work.Q
    # a single state is the first of two, the second being 0 for ever
    a0 = state.mean[0]
    a1 = state.mean[n - 1] if n == 2 else 0.0
    p00 = state.covariance[0, 0]
    p01 = state.covariance[0, n - 1] if n == 2 else 0.0
    p11 = state.covariance[n - 1, n - 1] if n == 2 else 0.0
    h1 = 0.0
    c00 = 1.0
    c01 = 0.0
    c10 = 0.0
    c11 = 0.0
    q00 = 0.0
    q01 = 0.0
    q11 = 0.0
    # the update that waits: m, 1/F and v/F
    m0 = 0.0
    m1 = 0.0
    inverse = 0.0
    gain = 0.0
    count = 0
    logs = state.totals[0]
    product = state.totals[1]
    squares = state.totals[2]
    before = state.totals[3]
    first_parameter = record.parameters[0, 0]
    second_parameter = record.parameters[0, 1]
    gap = np.nan
    row = -1
    for t in range(first, last):
        if record.dt[t] != gap or (table and record.gap_index[t] != row):
            gap = record.dt[t]
            row = record.gap_index[t] if table else -1
            # called through arrays, a transition would cost more than the whole step
            if kind[0] == MATERN32:
                c00, c01, c10, c11, q00, q01, q11 = matern32(
                    first_parameter, second_parameter, gap, roots[t - first], gammas[t - first]
                )
            elif kind[0] == OU and n == 1:
                c00, q00 = ornstein_uhlenbeck(first_parameter, second_parameter, gap)
            else:
                discretize(units, record.parameters, record.transition, record.process_noise, gap, row, A, Q)
                c00 = A[0]
                q00 = Q[0]
                if size[0] == 2:
                    c01 = A[1]
                    c10 = A[2]
                    c11 = A[3]
                    q01 = Q[1]
                    q11 = Q[3]
                else:
                    c11 = A[1]
                    q11 = Q[1]
        n0 = c00 * m0 + c01 * m1
        n1 = c10 * m0 + c11 * m1
        w00 = c00 * p00 + c01 * p01
        w01 = c00 * p01 + c01 * p11
        w10 = c10 * p00 + c11 * p01
        w11 = c10 * p01 + c11 * p11
        p00 = (w00 * c00 + (w01 * c01 + q00)) - (n0 * n0) * inverse
        p01 = (w00 * c10 + (w01 * c11 + q01)) - (n0 * n1) * inverse
        p11 = (w10 * c10 + (w11 * c11 + q11)) - (n1 * n1) * inverse
        x0 = a0
        a0 = (c00 * x0 + c01 * a1) + n0 * gain
        a1 = (c10 * x0 + c11 * a1) + n1 * gain
        inverse = 0.0
        gain = 0.0
        h0 = record.observation[t * each_h, 0]
        if n == 2:
            h1 = record.observation[t * each_h, 1]
        R = record.noise_variance[t * each_R]
        v = record.y[t] - h0 * a0 - h1 * a1
        if np.isnan(v):
            continue
        m0 = p00 * h0 + p01 * h1
        m1 = p01 * h0 + p11 * h1
        F = (h0 * h0) * p00 + ((2.0 * h0 * h1) * p01 + ((h1 * h1) * p11 + R))
        if F < R:
            F = R
        if is_certain(F, R, before):
            if contradicts(v, record.y[t], before):
                squares = np.inf
            continue
        if F < 1e4 * R:
            inverse = 1.0 / F
            gain = v * inverse
            squares += v * gain
        else:
            # little is left of P: what cancels must cancel at once, to the last digit
            k0 = m0 / F
            k1 = m1 / F
            a0 += k0 * v
            a1 += k1 * v
            p00 -= k0 * m0
            p01 -= k0 * m1
            p11 -= k1 * m1
            squares += v * v / F
        before = F
        count += 1
        product *= F
        if not 1e-140 < product < 1e140:
            logs += np.log(product)
            product = 1.0
    a0 += m0 * gain
    a1 += m1 * gain
    p00 -= (m0 * m0) * inverse
    p01 -= (m0 * m1) * inverse
    p11 -= (m1 * m1) * inverse
    state.mean[0] = a0
    state.covariance[0, 0] = p00
    if n == 2:
        state.mean[1] = a1
        state.covariance[0, 1] = p01
        state.covariance[1, 0] = p01
        state.covariance[1, 1] = p11
    state.counts[1] += count
    state.totals[0] = logs
    state.totals[1] = product
    state.totals[2] = squares
    state.totals[3] = before
