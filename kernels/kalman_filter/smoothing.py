"""The smoother: the filter's checkpoints, then the backward recursion segment by segment."""

import numpy as np

from statespace.kernels.kalman_filter.backward import (
    advance,
    lift,
    observe_backward,
    recover,
)
from statespace.kernels.kalman_filter.blocks import ROTATION, TABLE
from statespace.kernels.kalman_filter.compiled import NO, entry, shared
from statespace.kernels.kalman_filter.sweep import (
    DIFFUSE,
    SEEN,
    copy_matrix,
    copy_vector,
    dot,
    symmetric_product,
    transpose,
)
from statespace.kernels.kalman_filter.transitions import discretize_chunk


@shared()
def unresolved(units, z, D, alive, N1, y, w):
    """Whether the data leave z·x without any bound: the diffuse part of its smoothed variance is not rounding noise.

    With P∞ = DᵀD that part is z Dᵀ (I − D N₁ Dᵀ) D zᵀ, and the matrix in the middle is a projector.
    """
    kind, size, _ = units
    n = len(z)
    for i in range(n):
        y[i] = 0.0
    scale = 0.0
    for c in range(alive):
        x = dot(D[c], z)
        for i in range(n):
            y[i] += x * D[c, i]
        o = 0
        for b in range(len(kind)):
            zz = 0.0
            dd = 0.0
            for i in range(o, o + size[b]):
                zz += z[i] * z[i]
                dd += D[c, i] * D[c, i]
                if kind[b] != ROTATION and kind[b] != TABLE:
                    scale += abs(z[i] * D[c, i])
            if kind[b] == ROTATION or kind[b] == TABLE:
                scale += np.sqrt(zz * dd)
            o += size[b]
    symmetric_product(N1, y, w)
    total = 0.0
    for c in range(alive):
        total += (dot(D[c], z) - dot(D[c], w)) ** 2
    return np.sqrt(total) > 1e-8 * scale


@shared()
def spread(P, D, alive, b, late, z, y, w, x):
    """z V zᵀ of V = P∗ − P∗N₀P∗ − P∗N₁P∞ − P∞N₁P∗ − P∞N₂P∞; leaves P∗z in ``y``."""
    symmetric_product(P, z, y)
    symmetric_product(b.N0, y, w)
    total = dot(z, y) - dot(y, w)
    if late:
        for i in range(len(z)):
            x[i] = 0.0
        for c in range(alive):
            along = dot(D[c], z)
            for i in range(len(z)):
                x[i] += along * D[c, i]
        symmetric_product(b.N1, x, w)
        total -= 2.0 * dot(y, w)
        symmetric_product(b.N2, x, w)
        total -= dot(x, w)
    return max(total, 0.0)


@shared()
def smoothed_covariance(P, D, alive, b, late, W, X, infinite, V):
    """V = P∗ − P∗N₀P∗ − P∗N₁P∞ − P∞N₁P∗ − P∞N₂P∞."""
    n = len(P)
    multiply_dense(b.N0, P, W)
    multiply_dense(P, W, V)
    if late:
        for i in range(n):
            for j in range(n):
                infinite[i, j] = 0.0
                for c in range(alive):
                    infinite[i, j] += D[c, i] * D[c, j]
        multiply_dense(b.N1, infinite, W)
        multiply_dense(P, W, X)
        for i in range(n):
            for j in range(n):
                V[i, j] += X[i, j] + X[j, i]
        multiply_dense(b.N2, infinite, W)
        multiply_dense(infinite, W, X)
        for i in range(n):
            for j in range(n):
                V[i, j] += X[i, j]
    for i in range(n):
        for j in range(i + 1):
            V[i, j] = 0.5 * (P[i, j] - V[i, j] + P[j, i] - V[j, i])
            V[j, i] = V[i, j]
        V[i, i] = max(V[i, i], 0.0)


@shared()
def multiply_dense(X, Y, out):
    n = len(X)
    for i in range(n):
        for j in range(n):
            out[i, j] = 0.0
        for k in range(n):
            c = X[i, k]
            for j in range(n):
                out[i, j] += c * Y[k, j]


@entry()
def smooth_segment(
    record, units, first, last, stop, last_diffuse, open_end, kept, base, b, readout, means, variances, covariances,
    work,
):  # fmt: skip
    """Take ``b`` back over samples first..last−1 of a record that ends at ``stop``, writing their smoothed moments.

    Means and variances (T, r) of ``readout`` (1 or T, r, n), or where r = 0 means (T, n) and covariances (T, n, n).
    """
    _, size, _ = units
    n = len(b.r0)
    steps, _, _, At, W, X, Y, P, D, a, m, K0, e0, e1, g, u, x, z, scratch = work
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    each_z = 1 if len(readout) > 1 else 0
    r = readout.shape[1]
    chunk = len(steps.gap)
    for end in range(last, first, -chunk):
        begin = max(first, end - chunk)
        # the transitions that leave these samples
        discretize_chunk(record, units, begin + 1, min(end + 1, stop), steps, NO)
        slot = -1
        for t in range(end - 1, begin - 1, -1):
            i = t - base
            late = t < last_diffuse
            alive = kept.alive[i]
            status = kept.status[i]
            h = record.observation[t * each_h]
            following = steps.slot[t - begin] if t + 1 < stop else -1
            if following >= 0:
                if following != slot:
                    slot = following
                    transpose(size, steps.A[slot], At)
                advance(b, t + 1 < last_diffuse, size, At, W, m)
            copy_vector(kept.mean[i], a)
            copy_matrix(kept.covariance[i], P)
            directions = kept.diffuse[i]
            if status in (SEEN, DIFFUSE):
                for c in range(alive):
                    copy_vector(directions[c], D[c])
                v = kept.innovation[i]
                F, F_inf = recover(units, h, v, record.noise_variance[t * each_R], status, alive, a, P, D, m, g, K0)
                observe_backward(b, late, h, v, F, F_inf, m, K0, scratch, e0, e1, u)
                lift(b, late, h, u)
                copy_vector(kept.mean[i], a)
                copy_matrix(kept.covariance[i], P)
            symmetric_product(P, b.r0, m)
            for j in range(n):
                a[j] += m[j]
            if late:
                for c in range(alive):
                    along = dot(directions[c], b.r1)
                    for j in range(n):
                        a[j] += along * directions[c, j]
            if r == 0:
                copy_vector(a, means[t])
                V = covariances[t]
                smoothed_covariance(P, directions, alive, b, late, W, X, Y, V)
                for j in range(n if open_end else 0):
                    z[j] = 1.0
                    if unresolved(units, z, directions, alive, b.N1, m, x):
                        V[j, j] = np.inf
                    z[j] = 0.0
            for q in range(r):
                z_row = readout[t * each_z, q]
                means[t, q] = dot(z_row, a)
                if open_end and unresolved(units, z_row, directions, alive, b.N1, m, x):
                    variances[t, q] = np.inf
                else:
                    variances[t, q] = spread(P, directions, alive, b, late, z_row, m, e0, x)
