"""The filter in square-root form: P = S Sᵀ, and S is all that is ever computed, so that P cannot lose its positivity.

Prediction: S ← the triangular factor of (A S, Q^½), by reflections. Observation (Carlson 1973), with φ = Sᵀh, α_0 = R,
α_j = α_{j−1} + φ_j², g_j = Σ_{i≤j} s_i φ_i:

    s_j ← s_j √(α_{j−1}/α_j) − g_{j−1} φ_j / √(α_{j−1} α_j),   F = α_m,   K = g_m / F,

where nothing is subtracted from what it nearly equals. An observation that sees a diffuse direction (README.md of
kernels/kalman_filter) gives S ← the triangular factor of ((I − K0 hᵀ) S, R^½ K0).

Above: `model`. Below: `sequential`, which has made the record scalar.
"""

import numpy as np
from numba import njit

from statespace.kalman.sequential import eliminated
from statespace.kalman.system import unit_triangular

_INVISIBLE = 1e-9


@njit(cache=True, nogil=True)
def _triangular(W, m, S):
    """S ← lower triangular L with L Lᵀ = W Wᵀ, W (m, q); W is destroyed."""
    q = W.shape[1]
    for i in range(m):
        largest = 0.0
        for j in range(i, q):
            largest = max(largest, abs(W[i, j]))
        if largest > 0.0:
            norm = 0.0
            for j in range(i, q):
                norm += (W[i, j] / largest) ** 2
            norm = largest * np.sqrt(norm)
            if W[i, i] > 0.0:
                norm = -norm
            # w = row − norm e_i, and w·w = −2 norm w_i; in units of w_i, so that nothing underflows
            pivot = W[i, i] - norm
            for j in range(i + 1, q):
                W[i, j] /= pivot
            scale = -pivot / norm
            for k in range(i + 1, m):
                total = W[k, i]
                for j in range(i + 1, q):
                    total += W[k, j] * W[i, j]
                total *= scale
                W[k, i] -= total
                for j in range(i + 1, q):
                    W[k, j] -= total * W[i, j]
            W[i, i] = norm
        for k in range(m):
            S[k, i] = W[k, i] if k >= i else 0.0


@njit(cache=True, nogil=True)
def _run(y, H, R, A, root, index, a, S, D, alive, first, W, g, k0, means, roots, innovations, variances, totals):
    """Filter rows from ``first`` on until the end, or after a row that sees a diffuse direction; returns the next row.

    ``totals``: Σ log F, Σ v²/F, rows counted, the last F.
    """
    m = len(a)
    for t in range(first, len(y)):
        row = index[t]
        if row >= 0:
            for i in range(m):
                total = 0.0
                for j in range(m):
                    total += A[row, i, j] * a[j]
                k0[i] = total
                for c in range(m):
                    total = 0.0
                    for j in range(m):
                        total += A[row, i, j] * S[j, c]
                    W[i, c] = total
                    W[i, m + c] = root[row, i, c]
            for i in range(m):
                a[i] = k0[i]
            _triangular(W, m, S)
            for c in range(alive):
                for i in range(m):
                    total = 0.0
                    for j in range(m):
                        total += A[row, i, j] * D[j, c]
                    k0[i] = total
                for i in range(m):
                    D[i, c] = k0[i]
        h = H[t * (1 if len(H) > 1 else 0)]
        noise = R[t * (1 if len(R) > 1 else 0)]
        v = y[t]
        hh = 0.0
        for i in range(m):
            v -= h[i] * a[i]
            hh += h[i] * h[i]
        innovations[t] = v
        F_inf = 0.0
        for c in range(alive):
            seen = 0.0
            size = 0.0
            for i in range(m):
                seen += h[i] * D[i, c]
                size += D[i, c] * D[i, c]
            if abs(seen) <= _INVISIBLE * np.sqrt(hh * size):
                seen = 0.0
            g[c] = seen
            F_inf += seen * seen
        stop = False
        if F_inf > 0.0:
            variances[t] = np.inf
            if not np.isnan(v):
                for i in range(m):
                    total = 0.0
                    for c in range(alive):
                        total += D[i, c] * g[c]
                    k0[i] = total / F_inf
                for c in range(m):
                    phi = 0.0
                    for i in range(m):
                        phi += S[i, c] * h[i]
                    for i in range(m):
                        W[i, c] = S[i, c] - k0[i] * phi
                        W[i, m + c] = 0.0
                for i in range(m):
                    W[i, m] = np.sqrt(noise) * k0[i]
                    a[i] += k0[i] * v
                _triangular(W, m, S)
                totals[0] += np.log(F_inf)
                totals[2] += 1.0
                stop = True
        else:
            F = noise
            for c in range(m):
                phi = 0.0
                for i in range(m):
                    phi += S[i, c] * h[i]
                W[0, c] = phi
                F += phi * phi
            variances[t] = F
            if np.isnan(v):
                pass
            elif noise == 0.0 and totals[3] * 1e-14 >= F:
                if v * v > 1e-14 * totals[3] + 1e-16 * y[t] * y[t]:
                    totals[1] = np.inf
            else:
                for i in range(m):
                    k0[i] = 0.0
                before = noise
                for c in range(m):
                    phi = W[0, c]
                    after = before + phi * phi
                    if phi != 0.0:
                        # as ratios: the product of two variances may underflow where both are small
                        shrink = np.sqrt(before / after)
                        share = phi / after / shrink if before > 0.0 else 0.0
                        for i in range(m):
                            s = S[i, c]
                            S[i, c] = s * shrink - k0[i] * share
                            k0[i] += s * phi
                    before = after
                for i in range(m):
                    a[i] += k0[i] * (v / F)
                totals[0] += np.log(F)
                totals[1] += v / F * v
                totals[2] += 1.0
                totals[3] = F
        if len(means) > 0:
            for i in range(m):
                means[t, i] = a[i]
                for c in range(m):
                    roots[t, i, c] = S[i, c]
        if stop:
            return t + 1
    return len(y)


def factor(covariance):
    """L with L Lᵀ = covariance (..., k, k), triangular: small entries keep their digits beside large ones."""
    L, d = unit_triangular(covariance)
    return L * np.sqrt(d)[..., np.newaxis, :]


def _filter(sequence, keep):
    values, _, blocks, H, noise, mean, covariance, diffuse = sequence.arguments()
    m, N = sequence.n, len(values)
    a, S, D = mean.copy(), factor(covariance), np.ascontiguousarray(diffuse, dtype=float).copy()
    A, root = np.ascontiguousarray(sequence.A), factor(sequence.Q)
    room = N if keep else 0
    means, roots, innovations, variances = np.empty((room, m)), np.empty((room, m, m)), np.empty(N), np.empty(N)
    totals = np.array([0.0, 0.0, 0.0, 0.0])
    W, g, k0 = np.empty((m, 2 * m)), np.zeros(m), np.empty(m)
    H, noise = np.ascontiguousarray(np.reshape(H, (-1, m))), np.reshape(noise, -1).copy()
    t, alive = 0, D.shape[1]
    while t < N:
        t = _run(
            values,
            H,
            noise,
            A,
            root,
            blocks.gap_index,
            a,
            S,
            D,
            alive,
            t,
            W,
            g,
            k0,
            means,
            roots,
            innovations,
            variances,
            totals,
        )
        if alive and np.isinf(variances[t - 1]) and not np.isnan(innovations[t - 1]):
            # leaving the loop for this keeps the reflection in one place
            D = np.ascontiguousarray(eliminated(D, g[:alive]))
            alive -= 1
    value = -0.5 * (totals[0] + totals[1] + totals[2] * np.log(2.0 * np.pi))
    return float(value) + sequence.shift, means, roots, variances


def square_root_log_likelihood(sequence):
    """The log-likelihood of a record by its square-root filter.

    Parameters
    ----------
    sequence : Sequence

    Returns
    -------
    float
    """
    return _filter(sequence, keep=False)[0]


def square_root_filter(sequence):
    """Filtered and predicted moments, as `Sequence.filter` returns them.

    Parameters
    ----------
    sequence : Sequence

    Returns
    -------
    tuple
    """
    p = sequence.y.shape[1]
    value, means, roots, variances = _filter(sequence, keep=True)
    mean, S = means[p - 1 :: p], roots[p - 1 :: p]
    covariance = S @ np.swapaxes(S, 1, 2)
    ahead, spread = sequence.predict(mean, covariance)
    return mean, covariance, ahead, spread, *sequence.unbounded(variances), value
