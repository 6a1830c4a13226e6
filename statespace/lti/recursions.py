"""Compiled loops of system identification: matrices over gaps, simulation, Kalman filter.

Over a gap Δ, with w(t) = B u(t) held constant at w₀ or changing linearly from w₀ to w₁,

    x(t + Δ) = E x(t) + F w₀ + H (w₁ − w₀),    E = exp(AΔ),  F = ∫₀^Δ exp(As) ds,  H = (1/Δ) ∫₀^Δ F(s) ds,

and process noise of intensity Q adds the covariance W = ∫₀^Δ exp(As) Q exp(Aᵀs) ds.

Every loop runs in real or in complex arithmetic. What it computes is analytic in its matrices, without absolute value
or conjugation, so a parameter with an imaginary part of 1e-30 gives the derivative in the imaginary part of the
result: exactly, since nothing is subtracted. This is differentiation in forward mode without a second set of formulas.
"""

from functools import partial

import numpy as np
from numba import njit

# Taylor's series up to this power, where its argument is at most 1/2 (and that of W at most 1): the rest is < 1e-16.
DEGREE = 18
# A covariance that changes by less than this, relative to its largest entry, has settled.
SETTLED = 1e-14

# No array is made inside a loop and none is assigned as a whole: either would take longer to compile than all the rest.
compiled = partial(njit, cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True, _nrt=False)
helper = partial(njit, nogil=True, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True, _nrt=False)


@helper()
def fill(out, value):
    """Every entry of a matrix becomes the value."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = value


@helper()
def copy(out, X):
    """A matrix entry by entry."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = X[i, j]


@helper()
def add_product(out, X, Y):
    """out += X Y."""
    for i in range(X.shape[0]):
        for k in range(X.shape[1]):
            x = X[i, k]
            for j in range(Y.shape[1]):
                out[i, j] += x * Y[k, j]


@helper()
def add_product_transposed(out, X, Y):
    """out += X Yᵀ."""
    for i in range(X.shape[0]):
        for j in range(Y.shape[0]):
            total = X[i, 0] * Y[j, 0]
            for k in range(1, X.shape[1]):
                total += X[i, k] * Y[j, k]
            out[i, j] += total


@compiled()
def over_gaps(A, Q, gaps, noisy, room, E, F, H, W):
    """E, F, H and, with ``noisy``, W for every gap; ``room`` is of shape (2 DEGREE + 7, n, n).

    Taylor's series over a step that is short enough, then doublings: W ← W + E W Eᵀ, G ← 2 G + F F (G is Δ H),
    F ← F + E F, E ← E E. They keep W positive semi-definite and exact for short and long gaps alike. The powers of A
    are computed once for all gaps.
    """
    n = A.shape[0]
    norm = 0.0
    for j in range(n):
        total = 0.0
        for i in range(n):
            total += abs(A[i, j].real)
        norm = max(norm, total)
    if not norm > 0.0:
        norm = 1.0
    for k in range(room.shape[0]):
        fill(room[k], 0.0)
    powers, noises = room[: DEGREE + 1], room[DEGREE + 1 : 2 * DEGREE + 2]
    e, f, g, w, X = room[-5], room[-4], room[-3], room[-2], room[-1]
    for i in range(n):
        powers[0, i, i] = 1.0
        for j in range(n):
            X[i, j] = A[i, j] / norm
            noises[0, i, j] = Q[i, j]
    for k in range(DEGREE):
        add_product(powers[k + 1], powers[k], X)
        if noisy:
            add_product(noises[k + 1], X, noises[k])
            add_product_transposed(noises[k + 1], noises[k], X)
    for i in range(gaps.shape[0]):
        h, doublings = gaps[i], 0
        while norm * h > 0.5:
            h *= 0.5
            doublings += 1
        fill(e, 0.0)
        fill(f, 0.0)
        fill(g, 0.0)
        fill(w, 0.0)
        c = 1.0
        for k in range(DEGREE + 1):
            c1 = c * h / (k + 1)
            c2 = c1 * h / (k + 2)
            for a in range(n):
                for b in range(n):
                    e[a, b] += c * powers[k, a, b]
                    f[a, b] += c1 * powers[k, a, b]
                    g[a, b] += c2 * powers[k, a, b]
                    w[a, b] += c1 * noises[k, a, b]
            c = c1 * norm
        for _ in range(doublings):
            if noisy:
                fill(X, 0.0)
                add_product(X, e, w)
                add_product_transposed(w, X, e)
            copy(X, f)
            for a in range(n):
                for b in range(n):
                    g[a, b] *= 2.0
            add_product(g, X, X)
            add_product(f, e, X)
            copy(X, e)
            fill(e, 0.0)
            add_product(e, X, X)
        inverse = 1.0 / gaps[i] if gaps[i] > 0.0 else 0.0
        for a in range(n):
            for b in range(n):
                E[i, a, b], F[i, a, b], H[i, a, b] = e[a, b], f[a, b], g[a, b] * inverse
                if noisy:
                    W[i, a, b] = 0.5 * (w[a, b] + w[b, a])


@helper()
def step(E, F, H, linear, x, w0, w1, out):
    """out = E x + F w₀, and + H (w₁ − w₀) with ``linear``."""
    n = x.shape[0]
    for i in range(n):
        total = E[i, 0] * x[0] + F[i, 0] * w0[0]
        for k in range(1, n):
            total += E[i, k] * x[k] + F[i, k] * w0[k]
        if linear:
            for k in range(n):
                total += H[i, k] * (w1[k] - w0[k])
        out[i] = total


@compiled()
def simulate(E, F, H, index, starts, linear, w, x0, x):
    """The states x of records that begin at ``starts``; ``index[k]`` names the gap between samples k and k + 1."""
    for r in range(starts.shape[0] - 1):
        first, last = starts[r], starts[r + 1] - 1
        if last < first:
            continue
        for i in range(x.shape[1]):
            x[first, i] = x0[r, i]
        for k in range(first, last):
            g = index[k]
            step(E[g], F[g], H[g], linear, x[k], w[k], w[k + 1], x[k + 1])


@compiled()
def kalman(E, F, H, W, index, starts, linear, w, C, d, R, x0, P0, y, room, seen, e, S, x, P):
    """Innovations e and their covariances S, the filtered states x and each record's last covariance P of them.

    A record begins in N(x₀, P₀). ``d`` is what input and offset add to the output. NaN in y is missing: its entry of e
    is 0, and its row and column of S are those of the identity, which leave the likelihood as it is. Once the
    covariances have settled they are not computed again, until a gap differs or an output is missing. ``room`` is of
    shape (8, s, s) with s the larger of n, p and 2, ``seen`` of shape (p,).

    Returns
    -------
    −½ Σ (log det S + eᵀ S⁻¹ e)
    """
    p, n = C.shape
    predicted, now, after, X = room[0, :n, :n], room[1, :n, :n], room[2, :n, :n], room[3, :n, :n]
    M, K, L = room[4, :n, :p], room[5, :n, :p], room[6, :p, :p]
    ahead, z = room[7, 0], room[7, 1]
    log_det, value = 0.0 * C[0, 0], 0.0 * C[0, 0]
    for r in range(starts.shape[0] - 1):
        first, last = starts[r], starts[r + 1] - 1
        settled, settled_gap = False, -1
        copy(predicted, P0)
        for i in range(n):
            ahead[i] = x0[r, i]
        for k in range(first, last + 1):
            full = True
            for i in range(p):
                seen[i] = not np.isnan(y[k, i])
                full = full and seen[i]
            settled = settled and full
            if settled:
                copy(S[k], S[k - 1])
            else:
                log_det = _gain(C, R, predicted, seen, M, S[k], L, K)
                for i in range(n):
                    for j in range(i + 1):
                        total = predicted[i, j]
                        for l in range(p):
                            total -= 0.5 * (K[i, l] * M[j, l] + K[j, l] * M[i, l])
                        now[i, j] = total
                        now[j, i] = total
            value -= 0.5 * log_det
            for i in range(p):
                e[k, i] = 0.0
                if seen[i]:
                    total = y[k, i] - d[k, i]
                    for l in range(n):
                        total -= C[i, l] * ahead[l]
                    e[k, i] = total
                total = e[k, i]
                for l in range(i):
                    total -= L[i, l] * z[l]
                z[i] = total / L[i, i]
                value -= 0.5 * z[i] * z[i]
            for i in range(n):
                x[k, i] = ahead[i]
                for j in range(p):
                    x[k, i] += K[i, j] * e[k, j]
            if k == last:
                copy(P[r], now)
                break
            g = index[k]
            step(E[g], F[g], H[g], linear, x[k], w[k], w[k + 1], ahead)
            if settled and g == settled_gap:
                continue
            fill(X, 0.0)
            add_product(X, E[g], now)
            copy(after, W[g])
            add_product_transposed(after, X, E[g])
            settled = full and k > first and index[k - 1] == g and _equal(after, predicted)
            settled_gap = g
            copy(predicted, after)
    return value


@helper()
def _gain(C, R, P, seen, M, S, L, K):
    """M = P Cᵀ, S = C M + R = L Lᵀ and K = M S⁻¹ of the outputs that were seen; returns log det S."""
    p, n = C.shape
    log_det = 0.0 * C[0, 0]
    fill(M, 0.0)
    for j in range(p):
        if seen[j]:
            for i in range(n):
                for l in range(n):
                    M[i, j] += P[i, l] * C[j, l]
    for i in range(p):
        for j in range(i + 1):
            S[i, j] = 1.0 if i == j else 0.0
            if seen[i] and seen[j]:
                S[i, j] = R[i, j]
                for l in range(n):
                    S[i, j] += C[i, l] * M[l, j]
            S[j, i] = S[i, j]
            total = S[i, j]
            for l in range(j):
                total -= L[i, l] * L[j, l]
            L[i, j] = np.sqrt(total) if i == j else total / L[j, j]
        log_det += 2.0 * np.log(L[i, i])
    for i in range(n):
        for j in range(p):
            total = M[i, j]
            for l in range(j):
                total -= L[j, l] * K[i, l]
            K[i, j] = total / L[j, j]
        for j in range(p - 1, -1, -1):
            total = K[i, j]
            for l in range(j + 1, p):
                total -= L[l, j] * K[i, l]
            K[i, j] = total / L[j, j]
    return log_det


@helper()
def _equal(X, Y):
    """Whether X is Y to rounding, in its real and in its imaginary part."""
    real, imaginary, real_change, imaginary_change = 0.0, 0.0, 0.0, 0.0
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            real = max(real, abs(X[i, j].real))
            imaginary = max(imaginary, abs(X[i, j].imag))
            real_change = max(real_change, abs(X[i, j].real - Y[i, j].real))
            imaginary_change = max(imaginary_change, abs(X[i, j].imag - Y[i, j].imag))
    return real_change <= SETTLED * real and imaginary_change <= SETTLED * imaginary
