"""Blocks of one or two states and nothing diffuse left: the sweeps on P in tiles of 2 × 2, one for each pair of blocks.

A transition takes tile (I, J) to A_I P_IJ A_Jᵀ: straight-line arithmetic on what fits into registers, half of which is
saved by symmetry (I ≤ J only) where rows of a matrix would be loops too short for vectors. A block of one state is
padded with zeros, its second state being 0 for ever. Tiles stand in the order (0, 0), (0, 1), …, (1, 1), …, each row by
row; ā, P̄ and the formulas of the way back stand in README.md.
"""

import numpy as np

from statespace.kernels.kalman_filter.compiled import YES, embedded, helper, shared
from statespace.kernels.kalman_filter.record import TILES
from statespace.kernels.kalman_filter.sweep import CERTAIN, MISSING, SEEN, contradicts, is_certain
from statespace.kernels.kalman_filter.transitions import contract_chunk, discretize_chunk


@helper()
def fits_tiles(size):
    largest = 0
    for s in size:
        largest = max(largest, s)
    return largest <= 2


@helper()
def pad(size, x, out):
    """A vector with two entries for each block."""
    o = 0
    for b in range(len(size)):
        out[2 * b] = x[o]
        out[2 * b + 1] = x[o + 1] if size[b] == 2 else 0.0
        o += size[b]


@helper()
def unpad(size, x, out):
    o = 0
    for b in range(len(size)):
        out[o] = x[2 * b]
        if size[b] == 2:
            out[o + 1] = x[2 * b + 1]
        o += size[b]


@shared()
def to_tiles(size, X, out):
    q = 0
    o = 0
    for b in range(len(size)):
        u = o
        for c in range(b, len(size)):
            for i in range(2):
                for j in range(2):
                    out[q + 2 * i + j] = X[o + i, u + j] if i < size[b] and j < size[c] else 0.0
            q += 4
            u += size[c]
        o += size[b]


@shared()
def from_tiles(size, tiles, out):
    q = 0
    o = 0
    for b in range(len(size)):
        u = o
        for c in range(b, len(size)):
            for i in range(size[b]):
                for j in range(size[c]):
                    out[o + i, u + j] = tiles[q + 2 * i + j]
                    out[u + j, o + i] = tiles[q + 2 * i + j]
            q += 4
            u += size[c]
        o += size[b]


@helper(fastmath={"contract"})
def downdate(blocks, P, m, inverse):
    """P ← P − m mᵀ/F."""
    q = 0
    for b in range(blocks):
        x0 = m[2 * b] * inverse
        x1 = m[2 * b + 1] * inverse
        for c in range(b, blocks):
            P[q] -= x0 * m[2 * c]
            P[q + 1] -= x0 * m[2 * c + 1]
            P[q + 2] -= x1 * m[2 * c]
            P[q + 3] -= x1 * m[2 * c + 1]
            q += 4


@helper(fastmath={"contract"})
def tiled_product(blocks, P, h, m):
    """m = P h."""
    for j in range(2 * blocks):
        m[j] = 0.0
    q = 0
    for b in range(blocks):
        h0 = h[2 * b]
        h1 = h[2 * b + 1]
        m0 = P[q] * h0 + P[q + 1] * h1
        m1 = P[q + 2] * h0 + P[q + 3] * h1
        q += 4
        for c in range(b + 1, blocks):
            m0 += P[q] * h[2 * c] + P[q + 1] * h[2 * c + 1]
            m1 += P[q + 2] * h[2 * c] + P[q + 3] * h[2 * c + 1]
            m[2 * c] += P[q] * h0 + P[q + 2] * h1
            m[2 * c + 1] += P[q + 1] * h0 + P[q + 3] * h1
            q += 4
        m[2 * b] += m0
        m[2 * b + 1] += m1


@helper(fastmath={"contract"})
def predict_tiles(blocks, A, Q, P, m, inverse, turned, h, product):
    """P ← A (P − m mᵀ/F) Aᵀ + Q with A m in ``turned``, and the product with h of what comes out, tile by tile."""
    for b in range(blocks):
        turned[2 * b] = A[4 * b] * m[2 * b] + A[4 * b + 1] * m[2 * b + 1]
        turned[2 * b + 1] = A[4 * b + 2] * m[2 * b] + A[4 * b + 3] * m[2 * b + 1]
        product[2 * b] = 0.0
        product[2 * b + 1] = 0.0
    q = 0
    for b in range(blocks):
        a00 = A[4 * b]
        a01 = A[4 * b + 1]
        a10 = A[4 * b + 2]
        a11 = A[4 * b + 3]
        x0 = turned[2 * b] * inverse
        x1 = turned[2 * b + 1] * inverse
        h0 = h[2 * b]
        h1 = h[2 * b + 1]
        w00 = a00 * P[q] + a01 * P[q + 1]
        w01 = a00 * P[q + 1] + a01 * P[q + 3]
        w10 = a10 * P[q] + a11 * P[q + 1]
        w11 = a10 * P[q + 1] + a11 * P[q + 3]
        p00 = (w00 * a00 + (w01 * a01 + Q[4 * b])) - turned[2 * b] * x0
        p01 = (w00 * a10 + (w01 * a11 + Q[4 * b + 1])) - turned[2 * b] * x1
        p11 = (w10 * a10 + (w11 * a11 + Q[4 * b + 3])) - turned[2 * b + 1] * x1
        P[q] = p00
        P[q + 1] = p01
        P[q + 2] = p01
        P[q + 3] = p11
        m0 = p00 * h0 + p01 * h1
        m1 = p01 * h0 + p11 * h1
        q += 4
        for c in range(b + 1, blocks):
            c00 = A[4 * c]
            c01 = A[4 * c + 1]
            c10 = A[4 * c + 2]
            c11 = A[4 * c + 3]
            w00 = a00 * P[q] + a01 * P[q + 2]
            w01 = a00 * P[q + 1] + a01 * P[q + 3]
            w10 = a10 * P[q] + a11 * P[q + 2]
            w11 = a10 * P[q + 1] + a11 * P[q + 3]
            p00 = (w00 * c00 + w01 * c01) - x0 * turned[2 * c]
            p01 = (w00 * c10 + w01 * c11) - x0 * turned[2 * c + 1]
            p10 = (w10 * c00 + w11 * c01) - x1 * turned[2 * c]
            p11 = (w10 * c10 + w11 * c11) - x1 * turned[2 * c + 1]
            P[q] = p00
            P[q + 1] = p01
            P[q + 2] = p10
            P[q + 3] = p11
            m0 += p00 * h[2 * c] + p01 * h[2 * c + 1]
            m1 += p10 * h[2 * c] + p11 * h[2 * c + 1]
            product[2 * c] += p00 * h0 + p10 * h1
            product[2 * c + 1] += p01 * h0 + p11 * h1
            q += 4
        product[2 * b] += m0
        product[2 * b + 1] += m1


@embedded()
def forward_tiles(record, units, first, last, state, keep, kept, base, work):
    """``forward_any`` for blocks of one or two states and no diffuse direction left; keeps nothing or TILES.

    As in ``forward_pair``, an update waits for the next prediction.
    """
    _, size, _ = units
    blocks = len(size)
    steps = work.steps
    P, a, m, product, turned, h = work.tiles.P, work.tiles.a, work.tiles.m, work.tiles.k, work.tiles.w, work.tiles.h
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    to_tiles(size, state.covariance, P)
    pad(size, state.mean, a)
    pad(size, record.observation[0], h)
    for j in range(2 * blocks):
        m[j] = 0.0
    inverse = 0.0
    gain = 0.0
    totals = state.totals
    chunk = len(steps.gap)
    for begin in range(first, last, chunk):
        end = min(last, begin + chunk)
        discretize_chunk(record, units, begin, end, steps, YES)
        for t in range(begin, end):
            s = steps.slot[t - begin]
            if each_h:
                pad(size, record.observation[t], h)
            if s >= 0:
                A = steps.A[s]
                predict_tiles(blocks, A, steps.Q[s], P, m, inverse, turned, h, product)
                for b in range(blocks):
                    x0 = a[2 * b]
                    x1 = a[2 * b + 1]
                    a[2 * b] = (A[4 * b] * x0 + A[4 * b + 1] * x1) + turned[2 * b] * gain
                    a[2 * b + 1] = (A[4 * b + 2] * x0 + A[4 * b + 3] * x1) + turned[2 * b + 1] * gain
            else:
                downdate(blocks, P, m, inverse)
                for j in range(2 * blocks):
                    a[j] += m[j] * gain
                tiled_product(blocks, P, h, product)
            inverse = 0.0
            gain = 0.0
            signal = 0.0
            v = record.y[t]
            for j in range(2 * blocks):
                m[j] = product[j]
                signal += h[j] * m[j]
                v -= h[j] * a[j]
            R = record.noise_variance[t * each_R]
            F = max(signal, 0.0) + R
            if keep == TILES:
                row = kept.tiles[t - base]
                for j in range(2 * blocks):
                    row[j] = a[j]
                    row[2 * blocks + j] = m[j]
                for j in range(2 * blocks * (blocks + 1)):
                    row[4 * blocks + j] = P[j]
            status = SEEN
            if np.isnan(v):
                status = MISSING
            elif is_certain(F, R, totals[3]):
                status = CERTAIN
                if contradicts(v, record.y[t], totals[3]):
                    totals[2] = np.inf
            else:
                inverse = 1.0 / F
                gain = v * inverse
                totals[2] += v * gain
                totals[3] = F
                state.counts[1] += 1
                totals[1] *= F
                if not 1e-140 < totals[1] < 1e140:
                    totals[0] += np.log(totals[1])
                    totals[1] = 1.0
                if F >= 1e4 * R:
                    # little is left of P: what cancels must cancel at once, to the last digit
                    downdate(blocks, P, m, inverse)
                    for j in range(2 * blocks):
                        a[j] += m[j] * gain
                    inverse = 0.0
                    gain = 0.0
            if keep == TILES:
                kept.innovation[t - base] = v
                kept.variance[t - base] = F
                kept.status[t - base] = status
    downdate(blocks, P, m, inverse)
    for j in range(2 * blocks):
        a[j] += m[j] * gain
    from_tiles(size, P, state.covariance)
    unpad(size, a, state.mean)


@helper(fastmath={"contract"})
def retreat_tiles(blocks, A, S, P, m, k, f, g, some, A_bar, Q_bar):
    """Ā, Q̄ += those of a transition from the filtered a = f and P − m kᵀ; S ← Aᵀ S A."""
    q = 0
    for b in range(blocks):
        a00 = A[4 * b]
        a01 = A[4 * b + 1]
        a10 = A[4 * b + 2]
        a11 = A[4 * b + 3]
        i = 2 * b
        Q_bar[4 * b] += S[q]
        Q_bar[4 * b + 1] += S[q + 1]
        Q_bar[4 * b + 2] += S[q + 1]
        Q_bar[4 * b + 3] += S[q + 3]
        t00 = 0.0
        t01 = 0.0
        t10 = 0.0
        t11 = 0.0
        for c in range(b, blocks):
            c00 = A[4 * c]
            c01 = A[4 * c + 1]
            c10 = A[4 * c + 2]
            c11 = A[4 * c + 3]
            s00 = S[q]
            s01 = S[q + 1]
            s10 = S[q + 2]
            s11 = S[q + 3]
            # S_IJ A_J
            w00 = s00 * c00 + s01 * c10
            w01 = s00 * c01 + s01 * c11
            w10 = s10 * c00 + s11 * c10
            w11 = s10 * c01 + s11 * c11
            S[q] = a00 * w00 + a10 * w10
            S[q + 1] = a00 * w01 + a10 * w11
            S[q + 2] = a01 * w00 + a11 * w10
            S[q + 3] = a01 * w01 + a11 * w11
            if some:
                j = 2 * c
                f00 = P[q] - m[i] * k[j]
                f01 = P[q + 1] - m[i] * k[j + 1]
                f10 = P[q + 2] - m[i + 1] * k[j]
                f11 = P[q + 3] - m[i + 1] * k[j + 1]
                # (S_IJ A_J) P_JI
                t00 += w00 * f00 + w01 * f01
                t01 += w00 * f10 + w01 * f11
                t10 += w10 * f00 + w11 * f01
                t11 += w10 * f10 + w11 * f11
                if c > b:
                    # (S_JI A_I) P_IJ
                    w00 = s00 * a00 + s10 * a10
                    w01 = s00 * a01 + s10 * a11
                    w10 = s01 * a00 + s11 * a10
                    w11 = s01 * a01 + s11 * a11
                    A_bar[4 * c] += 2.0 * (w00 * f00 + w01 * f10)
                    A_bar[4 * c + 1] += 2.0 * (w00 * f01 + w01 * f11)
                    A_bar[4 * c + 2] += 2.0 * (w10 * f00 + w11 * f10)
                    A_bar[4 * c + 3] += 2.0 * (w10 * f01 + w11 * f11)
            q += 4
        if some:
            A_bar[4 * b] += g[i] * f[i] + 2.0 * t00
            A_bar[4 * b + 1] += g[i] * f[i + 1] + 2.0 * t01
            A_bar[4 * b + 2] += g[i + 1] * f[i] + 2.0 * t10
            A_bar[4 * b + 3] += g[i + 1] * f[i + 1] + 2.0 * t11
        x0 = g[i]
        g[i] = a00 * x0 + a10 * g[i + 1]
        g[i + 1] = a01 * x0 + a11 * g[i + 1]


@helper(fastmath={"contract"})
def lift_tiles(blocks, S, x, h):
    """S ← S + ½ (x hᵀ + h xᵀ)."""
    q = 0
    for b in range(blocks):
        x0 = 0.5 * x[2 * b]
        x1 = 0.5 * x[2 * b + 1]
        h0 = 0.5 * h[2 * b]
        h1 = 0.5 * h[2 * b + 1]
        for c in range(b, blocks):
            S[q] += x0 * h[2 * c] + h0 * x[2 * c]
            S[q + 1] += x0 * h[2 * c + 1] + h0 * x[2 * c + 1]
            S[q + 2] += x1 * h[2 * c] + h1 * x[2 * c]
            S[q + 3] += x1 * h[2 * c + 1] + h1 * x[2 * c + 1]
            q += 4


@embedded()
def gradient_tiles(record, units, some, by_observation, first, last, stop, kept, base, b, out, work):
    """``gradient_any`` for what ``forward_tiles`` kept; Ā only where ``some`` block moves."""
    _, size, _ = units
    blocks = len(size)
    states = 2 * blocks
    steps = work.steps
    S, g, k, w, f, h, x = (
        work.tiles.P, work.tiles.a, work.tiles.k, work.tiles.w, work.tiles.m, work.tiles.h, work.tiles.x,
    )  # fmt: skip
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    # the adjoint of P is ½ (r rᵀ − N)
    n = len(b.r0)
    for i in range(n):
        for j in range(n):
            work.W[i, j] = 0.5 * (b.r0[i] * b.r0[j] - b.N0[i, j])
    to_tiles(size, work.W, S)
    pad(size, b.r0, g)
    pad(size, record.observation[0], h)
    chunk = len(steps.gap)
    for end in range(last, first, -chunk):
        begin = max(first, end - chunk)
        # the transitions that leave these samples
        slots = discretize_chunk(record, units, begin + 1, min(end + 1, stop), steps, YES)
        for t in range(end - 1, begin - 1, -1):
            i = t - base
            row = kept.tiles[i]
            a = row[:states]
            m = row[states : 2 * states]
            P = row[2 * states :]
            seen = kept.status[i] == SEEN
            inverse = 1.0 / kept.variance[i] if seen else 0.0
            gain = kept.innovation[i] * inverse if seen else 0.0
            for j in range(states):
                k[j] = m[j] * inverse
                f[j] = a[j] + m[j] * gain
            s = steps.slot[t - begin] if t + 1 < stop else -1
            if s >= 0:
                retreat_tiles(blocks, steps.A[s], S, P, m, k, f, g, some, steps.A_bar[s], steps.Q_bar[s])
            if seen:
                if each_h:
                    pad(size, record.observation[t], h)
                tiled_product(blocks, S, k, w)
                along = 0.0
                F_bar = 0.0
                for j in range(states):
                    along += g[j] * k[j]
                    F_bar += k[j] * w[j]
                F_bar -= along * gain + 0.5 * (inverse - gain * gain)
                u = gain - along
                for j in range(states):
                    x[j] = (g[j] * gain - 2.0 * w[j]) + F_bar * h[j]
                    g[j] += u * h[j]
                lift_tiles(blocks, S, x, h)
                out.noise_variance[t * each_R] += F_bar
                if by_observation:
                    tiled_product(blocks, P, x, w)
                    o = 0
                    for c in range(blocks):
                        for j in range(2 * c, 2 * c + size[c]):
                            out.observation[t * each_h, o] += w[j] + m[j] * F_bar + a[j] * u
                            o += 1
        contract_chunk(record, units, slots, steps, out, YES)
    unpad(size, g, b.r0)
    from_tiles(size, S, b.N0)
    for i in range(n):
        for j in range(n):
            b.N0[i, j] = b.r0[i] * b.r0[j] - 2.0 * b.N0[i, j]
