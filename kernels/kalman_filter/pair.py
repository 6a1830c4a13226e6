"""One or two states and nothing diffuse left: the filter with all that it carries in registers.

A step is as long as its chain of dependent operations. So what does not depend on the state is computed beforehand
(``transitions.py``), and multiplications fuse with additions ("contract"). Likelihoods go through ``projective.py``
where they can.
"""

import numpy as np

from statespace.kernels.kalman_filter.compiled import NO, embedded, helper
from statespace.kernels.kalman_filter.record import FILTERED, NOTHING, PREDICTED, TILES
from statespace.kernels.kalman_filter.sweep import CERTAIN, MISSING, SEEN, contradicts, is_certain
from statespace.kernels.kalman_filter.transitions import discretize_chunk


@helper()
def spread_out(size, count, X):
    """Packed blocks of two states in all become rows of 2 × 2 matrices."""
    if size[0] == 1:
        for i in range(count):
            X[i, 3] = X[i, 1]
            X[i, 1] = 0.0
            X[i, 2] = 0.0


@embedded()
def forward_single(record, units, first, last, state, keep, kept, base, work):
    """``forward_any`` for one state and no diffuse direction left: ``forward_pair`` in one dimension."""
    steps = work.steps
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    A, Q = steps.A, steps.Q
    a = state.mean[0]
    p = state.covariance[0, 0]
    m = 0.0
    inverse = 0.0
    gain = 0.0
    count = 0
    logs = state.totals[0]
    product = state.totals[1]
    squares = state.totals[2]
    before = state.totals[3]
    chunk = len(steps.gap)
    for begin in range(first, last, chunk):
        end = min(last, begin + chunk)
        discretize_chunk(record, units, begin, end, steps, NO)
        for t in range(begin, end):
            s = steps.slot[t - begin]
            if s >= 0:
                c = A[s, 0]
                moved = c * m
                p = ((c * p) * c + Q[s, 0]) - (moved * moved) * inverse
                a = c * a + moved * gain
            else:
                p -= (m * m) * inverse
                a += m * gain
            inverse = 0.0
            gain = 0.0
            h = record.observation[t * each_h, 0]
            R = record.noise_variance[t * each_R]
            v = record.y[t] - h * a
            m = p * h
            predicted = p
            F = (h * h) * p + R
            if F < R:
                F = R
            i = t - base
            if keep == PREDICTED:
                kept.mean[i, 0] = a
                kept.covariance[i, 0, 0] = p
            status = SEEN
            if np.isnan(v):
                status = MISSING
            elif is_certain(F, R, before):
                status = CERTAIN
                if contradicts(v, record.y[t], before):
                    squares = np.inf
            else:
                if F < 1e4 * R:
                    inverse = 1.0 / F
                    gain = v * inverse
                    squares += v * gain
                else:
                    # as in ``forward_pair``
                    k = m / F
                    a += k * v
                    p -= k * m
                    squares += v * v / F
                before = F
                count += 1
                product *= F
                if not 1e-140 < product < 1e140:
                    logs += np.log(product)
                    product = 1.0
            if keep != NOTHING:
                kept.innovation[i] = v
                kept.variance[i] = F
                kept.status[i] = status
                if keep == PREDICTED:
                    kept.alive[i] = 0
                elif keep == FILTERED:
                    kept.mean[i, 0] = a + m * gain
                    kept.covariance[i, 0, 0] = p - (m * m) * inverse
                elif keep == TILES:
                    seen = status == SEEN
                    kept.tiles[0, i] = a + m * gain
                    kept.tiles[2, i] = predicted
                    kept.tiles[5, i] = 1.0 / F if seen else 0.0
                    kept.tiles[6, i] = v / F if seen else 0.0
    state.mean[0] = a + m * gain
    state.covariance[0, 0] = p - (m * m) * inverse
    state.counts[1] += count
    state.totals[0] = logs
    state.totals[1] = product
    state.totals[2] = squares
    state.totals[3] = before


@embedded()
def forward_pair(record, units, first, last, state, keep, kept, base, work):
    """``forward_any`` for two states and no diffuse direction left, with the state in registers.

    An update waits for the next prediction, which is A P Aᵀ + Q − (A m)(A m)ᵀ/F, all but its last product ready before
    1/F is; F is a quadratic form in P, not a product with m.
    """
    steps = work.steps
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    A, Q = steps.A, steps.Q
    a0 = state.mean[0]
    a1 = state.mean[1]
    p00 = state.covariance[0, 0]
    p01 = state.covariance[0, 1]
    p11 = state.covariance[1, 1]
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
    chunk = len(steps.gap)
    for begin in range(first, last, chunk):
        end = min(last, begin + chunk)
        slots = discretize_chunk(record, units, begin, end, steps, NO)
        spread_out(units[1], slots, A)
        spread_out(units[1], slots, Q)
        for t in range(begin, end):
            s = steps.slot[t - begin]
            if s >= 0:
                c00 = A[s, 0]
                c01 = A[s, 1]
                c10 = A[s, 2]
                c11 = A[s, 3]
                n0 = c00 * m0 + c01 * m1
                n1 = c10 * m0 + c11 * m1
                w00 = c00 * p00 + c01 * p01
                w01 = c00 * p01 + c01 * p11
                w10 = c10 * p00 + c11 * p01
                w11 = c10 * p01 + c11 * p11
                p00 = (w00 * c00 + (w01 * c01 + Q[s, 0])) - (n0 * n0) * inverse
                p01 = (w00 * c10 + (w01 * c11 + Q[s, 1])) - (n0 * n1) * inverse
                p11 = (w10 * c10 + (w11 * c11 + Q[s, 3])) - (n1 * n1) * inverse
                x0 = a0
                a0 = (c00 * x0 + c01 * a1) + n0 * gain
                a1 = (c10 * x0 + c11 * a1) + n1 * gain
            else:
                p00 -= (m0 * m0) * inverse
                p01 -= (m0 * m1) * inverse
                p11 -= (m1 * m1) * inverse
                a0 += m0 * gain
                a1 += m1 * gain
            inverse = 0.0
            gain = 0.0
            h0 = record.observation[t * each_h, 0]
            h1 = record.observation[t * each_h, 1]
            R = record.noise_variance[t * each_R]
            v = record.y[t] - h0 * a0 - h1 * a1
            m0 = p00 * h0 + p01 * h1
            m1 = p01 * h0 + p11 * h1
            F = (h0 * h0) * p00 + ((2.0 * h0 * h1) * p01 + ((h1 * h1) * p11 + R))
            if F < R:
                F = R
            i = t - base
            if keep == TILES:
                kept.tiles[2, i] = p00
                kept.tiles[3, i] = p01
                kept.tiles[4, i] = p11
            elif keep == PREDICTED:
                write(a0, a1, p00, p01, p11, kept.mean[i], kept.covariance[i])
            status = SEEN
            if np.isnan(v):
                status = MISSING
            elif is_certain(F, R, before):
                status = CERTAIN
                if contradicts(v, record.y[t], before):
                    squares = np.inf
            else:
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
            if keep != NOTHING:
                kept.innovation[i] = v
                kept.variance[i] = F
                kept.status[i] = status
                if keep == PREDICTED:
                    kept.alive[i] = 0
                elif keep == FILTERED:
                    write(
                        a0 + m0 * gain, a1 + m1 * gain, p00 - (m0 * m0) * inverse, p01 - (m0 * m1) * inverse,
                        p11 - (m1 * m1) * inverse, kept.mean[i], kept.covariance[i],
                    )  # fmt: skip
                elif keep == TILES:
                    seen = status == SEEN
                    kept.tiles[0, i] = a0 + m0 * gain
                    kept.tiles[1, i] = a1 + m1 * gain
                    kept.tiles[5, i] = 1.0 / F if seen else 0.0
                    kept.tiles[6, i] = v / F if seen else 0.0
    write(
        a0 + m0 * gain, a1 + m1 * gain, p00 - (m0 * m0) * inverse, p01 - (m0 * m1) * inverse,
        p11 - (m1 * m1) * inverse, state.mean, state.covariance,
    )  # fmt: skip
    state.counts[1] += count
    state.totals[0] = logs
    state.totals[1] = product
    state.totals[2] = squares
    state.totals[3] = before


@helper()
def write(a0, a1, p00, p01, p11, mean, covariance):
    mean[0] = a0
    mean[1] = a1
    covariance[0, 0] = p00
    covariance[0, 1] = p01
    covariance[1, 0] = p01
    covariance[1, 1] = p11
