"""One or two states and nothing diffuse left: the sweeps with all that they carry in registers.

A step is as long as its chain of dependent operations. So what does not depend on the state is computed beforehand
(``transitions.py``), and multiplications fuse with additions ("contract"). In the way back a single state is the first
of two, the second being 0 for ever.
"""

import numpy as np

from statespace.kernels.kalman_filter.compiled import helper, shared
from statespace.kernels.kalman_filter.record import FILTERED, NOTHING, PREDICTED
from statespace.kernels.kalman_filter.sweep import CERTAIN, MISSING, SEEN, contradicts, is_certain
from statespace.kernels.kalman_filter.transitions import contract_chunk, discretize_chunk


@helper()
def spread_out(n, size, count, X):
    """Packed blocks of one or two states become rows of 2 × 2 matrices."""
    if n == 1:
        for i in range(count):
            X[i, 1] = 0.0
            X[i, 2] = 0.0
            X[i, 3] = 0.0
    elif size[0] == 1:
        for i in range(count):
            X[i, 3] = X[i, 1]
            X[i, 1] = 0.0
            X[i, 2] = 0.0


@helper()
def pack(size, count, X):
    """The way back for their adjoints."""
    if size[0] == 1:
        for i in range(count):
            X[i, 1] = X[i, 3]
            X[i, 2] = 0.0
            X[i, 3] = 0.0


@shared(fastmath={"contract"})
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
        discretize_chunk(record, units, begin, end, steps, False)
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
    state.mean[0] = a + m * gain
    state.covariance[0, 0] = p - (m * m) * inverse
    state.counts[1] += count
    state.totals[0] = logs
    state.totals[1] = product
    state.totals[2] = squares
    state.totals[3] = before


@shared(fastmath={"contract"})
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
        slots = discretize_chunk(record, units, begin, end, steps, False)
        spread_out(2, units[1], slots, A)
        spread_out(2, units[1], slots, Q)
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
            if keep == PREDICTED:
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


@shared(fastmath={"contract"})
def gradient_pair(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    """``gradient_any`` for one or two states after the diffuse start.

    Carries the adjoints of the predicted moments themselves, ā = r and P̄ = ½ (r rᵀ − N). With the filtered a and P,

        Ā = ā aᵀ + 2 P̄ A P,   ā ← Aᵀ ā,   P̄ ← Aᵀ P̄ A     over a transition,
        F̄ = k·P̄k − (ā·k) v/F − ½ (1/F − v²/F²),   m̄ = ā v/F − 2 P̄ k + F̄ h,   P̄ ← P̄ + ½ (m̄ hᵀ + h m̄ᵀ)
        and ā ← ā + (v/F − ā·k) h                          over an observation.
    """
    steps = work.steps
    n = len(b.r0)
    size = units[1]
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    A, A_bar, Q_bar = steps.A, steps.A_bar, steps.Q_bar
    j = n - 1
    g0 = b.r0[0]
    g1 = b.r0[j] if n == 2 else 0.0
    s00 = 0.5 * (g0 * g0 - b.N0[0, 0])
    s01 = 0.5 * (g0 * g1 - b.N0[0, j]) if n == 2 else 0.0
    s11 = 0.5 * (g1 * g1 - b.N0[j, j]) if n == 2 else 0.0
    a1 = 0.0
    p01 = 0.0
    p11 = 0.0
    h1 = 0.0
    chunk = len(steps.gap)
    for end in range(last, first, -chunk):
        begin = max(first, end - chunk)
        # the transitions that leave these samples
        slots = discretize_chunk(record, units, begin + 1, min(end + 1, stop), steps, False)
        spread_out(n, size, slots, A)
        for t in range(end - 1, begin - 1, -1):
            i = t - base
            a0 = kept.mean[i, 0]
            p00 = kept.covariance[i, 0, 0]
            h0 = record.observation[t * each_h, 0]
            if n == 2:
                a1 = kept.mean[i, 1]
                p01 = kept.covariance[i, 0, 1]
                p11 = kept.covariance[i, 1, 1]
                h1 = record.observation[t * each_h, 1]
            seen = kept.status[i] == SEEN
            inverse = 1.0 / kept.variance[i] if seen else 0.0
            gain = kept.innovation[i] * inverse if seen else 0.0
            m0 = p00 * h0 + p01 * h1
            m1 = p01 * h0 + p11 * h1
            k0 = m0 * inverse
            k1 = m1 * inverse
            s = steps.slot[t - begin] if t + 1 < stop else -1
            if s >= 0:
                c00 = A[s, 0]
                c01 = A[s, 1]
                c10 = A[s, 2]
                c11 = A[s, 3]
                f0 = a0 + m0 * gain
                f1 = a1 + m1 * gain
                f00 = p00 - m0 * k0
                f01 = p01 - m0 * k1
                f11 = p11 - m1 * k1
                w00 = s00 * c00 + s01 * c10
                w01 = s00 * c01 + s01 * c11
                w10 = s01 * c00 + s11 * c10
                w11 = s01 * c01 + s11 * c11
                Q_bar[s, 0] += s00
                Q_bar[s, 1] += s01
                Q_bar[s, 2] += s01
                Q_bar[s, 3] += s11
                A_bar[s, 0] += g0 * f0 + 2.0 * (w00 * f00 + w01 * f01)
                A_bar[s, 1] += g0 * f1 + 2.0 * (w00 * f01 + w01 * f11)
                A_bar[s, 2] += g1 * f0 + 2.0 * (w10 * f00 + w11 * f01)
                A_bar[s, 3] += g1 * f1 + 2.0 * (w10 * f01 + w11 * f11)
                s00 = c00 * w00 + c10 * w10
                s01 = c00 * w01 + c10 * w11
                s11 = c01 * w01 + c11 * w11
                x0 = g0
                g0 = c00 * x0 + c10 * g1
                g1 = c01 * x0 + c11 * g1
            if seen:
                w0 = s00 * k0 + s01 * k1
                w1 = s01 * k0 + s11 * k1
                along = g0 * k0 + g1 * k1
                F_bar = (k0 * w0 + k1 * w1) - along * gain - 0.5 * (inverse - gain * gain)
                m0_bar = (g0 * gain - 2.0 * w0) + F_bar * h0
                m1_bar = (g1 * gain - 2.0 * w1) + F_bar * h1
                u = gain - along
                s00 += m0_bar * h0
                s01 += 0.5 * (m0_bar * h1 + m1_bar * h0)
                s11 += m1_bar * h1
                g0 += u * h0
                g1 += u * h1
                out.noise_variance[t * each_R] += F_bar
                if by_observation:
                    out.observation[t * each_h, 0] += p00 * m0_bar + p01 * m1_bar + m0 * F_bar + a0 * u
                    if n == 2:
                        out.observation[t * each_h, 1] += p01 * m0_bar + p11 * m1_bar + m1 * F_bar + a1 * u
        pack(size, slots, A_bar)
        pack(size, slots, Q_bar)
        contract_chunk(record, units, slots, steps, out, False)
    b.r0[0] = g0
    b.N0[0, 0] = g0 * g0 - 2.0 * s00
    if n == 2:
        b.r0[1] = g1
        b.N0[0, 1] = g0 * g1 - 2.0 * s01
        b.N0[1, 0] = b.N0[0, 1]
        b.N0[1, 1] = g1 * g1 - 2.0 * s11
