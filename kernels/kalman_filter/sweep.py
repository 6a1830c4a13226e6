"""One step of the filter, forwards and backwards: the loops that every function of ``cpu.py`` shares.

Letters as in README.md: a, P mean and covariance; D diffuse directions (rows here, P∞ = DᵀD); h observation row;
m = P h, F = h·m + R, k = m / F, v innovation; r, N the backward recursion of Durbin & Koopman.
"""

import numpy as np

from statespace.kernels.kalman_filter.blocks import ROTATION, TABLE
from statespace.kernels.kalman_filter.compiled import helper, shared

MISSING, SEEN, DIFFUSE, CERTAIN = range(4)


@helper()
def transpose(size, A, out):
    p = 0
    for s in size:
        for i in range(s):
            for j in range(s):
                out[p + i * s + j] = A[p + j * s + i]
        p += s * s


@helper()
def copy_vector(x, out):
    for i in range(len(x)):
        out[i] = x[i]


@helper()
def copy_matrix(X, out):
    for i in range(len(X)):
        for j in range(X.shape[1]):
            out[i, j] = X[i, j]


@helper()
def multiply(size, A, x, scratch):
    """x ← A x, block by block."""
    o = 0
    p = 0
    for s in size:
        if s == 1:
            x[o] *= A[p]
        elif s == 2:
            x0 = x[o]
            x1 = x[o + 1]
            x[o] = A[p] * x0 + A[p + 1] * x1
            x[o + 1] = A[p + 2] * x0 + A[p + 3] * x1
        else:
            for i in range(s):
                total = 0.0
                for j in range(s):
                    total += A[p + i * s + j] * x[o + j]
                scratch[i] = total
            for i in range(s):
                x[o + i] = scratch[i]
        o += s
        p += s * s


@shared()
def congruence(size, A, P, W):
    """P ← A P Aᵀ in O(n² · block); leaves A P in ``W``. One triangle is computed, so P stays symmetric."""
    n = P.shape[0]
    o = 0
    p = 0
    for s in size:
        if s == 1:
            c = A[p]
            for j in range(n):
                W[o, j] = c * P[o, j]
        elif s == 2:
            c00 = A[p]
            c01 = A[p + 1]
            c10 = A[p + 2]
            c11 = A[p + 3]
            for j in range(n):
                x0 = P[o, j]
                x1 = P[o + 1, j]
                W[o, j] = c00 * x0 + c01 * x1
                W[o + 1, j] = c10 * x0 + c11 * x1
        else:
            # whole rows, and none for the zeros of a companion matrix
            for i in range(s):
                for j in range(n):
                    W[o + i, j] = 0.0
                for u in range(s):
                    c = A[p + i * s + u]
                    if c != 0.0:
                        for j in range(n):
                            W[o + i, j] += c * P[o + u, j]
        o += s
        p += s * s
    o = 0
    p = 0
    for s in size:
        if s == 1:
            c = A[p]
            for j in range(o, n):
                x0 = c * W[j, o]
                P[o, j] = x0
                P[j, o] = x0
        elif s == 2:
            c00 = A[p]
            c01 = A[p + 1]
            c10 = A[p + 2]
            c11 = A[p + 3]
            for j in range(o, n):
                x0 = W[j, o]
                x1 = W[j, o + 1]
                y0 = c00 * x0 + c01 * x1
                y1 = c10 * x0 + c11 * x1
                P[o, j] = y0
                P[j, o] = y0
                P[o + 1, j] = y1
                P[j, o + 1] = y1
        else:
            for i in range(s):
                for j in range(o + i, n):
                    P[o + i, j] = 0.0
                for u in range(s):
                    c = A[p + i * s + u]
                    if c != 0.0:
                        for j in range(o + i, n):
                            P[o + i, j] += c * W[j, o + u]
                for j in range(o + i, n):
                    P[j, o + i] = P[o + i, j]
        o += s
        p += s * s


@helper()
def add_blocks(size, Q, P):
    """P ← P + Q."""
    o = 0
    p = 0
    for s in size:
        for i in range(s):
            for j in range(s):
                P[o + i, o + j] += Q[p + i * s + j]
        o += s
        p += s * s


@shared()
def symmetric_product(P, x, out):
    """out = P x, skipping the zeros of x; P symmetric, so its rows are read in place of its columns."""
    n = len(x)
    for i in range(n):
        out[i] = 0.0
    for j in range(n):
        c = x[j]
        if c != 0.0:
            for i in range(n):
                out[i] += c * P[j, i]


@helper()
def dot(x, y):
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@shared()
def visible(units, h, D, d, g):
    """g = D h with invisible entries set to exactly 0; returns F∞ = g·g.

    A direction is invisible when its g is rounding noise. The scale of that noise is Σ |h_i D_i| where the states have
    units of their own (a slope may matter by 1e-8 of its size), and |h||D| inside a block that mixes its states.
    """
    kind, size, _ = units
    total = 0.0
    for c in range(d):
        x = 0.0
        noise = 0.0
        o = 0
        for b in range(len(kind)):
            s = size[b]
            if kind[b] == ROTATION or kind[b] == TABLE:
                hh = 0.0
                dd = 0.0
                for i in range(o, o + s):
                    x += h[i] * D[c, i]
                    hh += h[i] * h[i]
                    dd += D[c, i] * D[c, i]
                noise += 1e-9 * np.sqrt(hh * dd)
            else:
                for i in range(o, o + s):
                    x += h[i] * D[c, i]
                    noise += 1e-12 * abs(h[i] * D[c, i])
            o += s
        g[c] = x if abs(x) > noise else 0.0
        total += g[c] * g[c]
    return total


@shared()
def eliminate(D, d, g):
    """Reflect the d rows of D so that one of them carries all of g, and drop that one: P∞ ← P∞ − M∞M∞ᵀ/F∞."""
    pivot = 0
    for c in range(d):
        if abs(g[c]) > abs(g[pivot]):
            pivot = c
    norm = 0.0
    for c in range(d):
        norm += (g[c] / g[pivot]) ** 2
    norm = abs(g[pivot]) * np.sqrt(norm)
    u = g[pivot] + np.copysign(norm, g[pivot])
    # I − 2 w wᵀ / w·w with w = g + sign(g_p)|g| e_p, where w·w = 2 |g| |w_p|
    scale = 1.0 / (norm * abs(u))
    for i in range(D.shape[1]):
        x = u * D[pivot, i]
        for c in range(d):
            if c != pivot:
                x += g[c] * D[c, i]
        x *= scale
        for c in range(d):
            if c != pivot:
                D[c, i] -= g[c] * x
        D[pivot, i] = D[d - 1, i]


@helper()
def diffuse_gain(D, d, g, F_inf, k):
    """K0 = M∞ / F∞ with M∞ = Dᵀ g."""
    for i in range(len(k)):
        total = 0.0
        for c in range(d):
            total += D[c, i] * g[c]
        k[i] = total / F_inf


@shared()
def exposure(units, h, P):
    """The greatest variance of h·x, in any phase, that the diagonal of P allows."""
    kind, size, _ = units
    total = 0.0
    o = 0
    for b in range(len(kind)):
        turns = kind[b] == ROTATION or kind[b] == TABLE
        most = 0.0
        largest = 0.0
        for i in range(o, o + size[b]):
            spread = np.sqrt(max(P[i, i], 0.0))
            if turns:
                most = max(most, abs(h[i]))
                largest = max(largest, spread)
            else:
                total += abs(h[i]) * spread
        total += most * largest
        o += size[b]
    return total * total


@helper()
def is_certain(signal, R, before):
    """A noise-free observation of what is already known: its variance is only the rounding that the last one left."""
    return R == 0.0 and signal <= 1e-14 * before


@helper()
def contradicts(v, y, before):
    return v * v > 1e-14 * before + 1e-16 * y * y


@helper()
def correct(a, P, m, F, R, v):
    """a ← a + m v/F, P ← P − m mᵀ/F: the filtered moments of an ordinary observation."""
    n = len(a)
    gain = v / F
    inverse = 1.0 / F
    for i in range(n):
        a[i] += gain * m[i]
    if F < 1e4 * R:
        # whole rows: to mirror a triangle costs more, and this product is as symmetric
        for i in range(n):
            for j in range(n):
                P[i, j] -= (m[i] * m[j]) * inverse
        return
    # little is left of P: what cancels must cancel alike along a row
    for i in range(n):
        k = m[i] * inverse
        for j in range(i):
            P[i, j] = P[j, i]
        for j in range(i, n):
            P[i, j] -= k * m[j]


@helper()
def correct_diffuse(a, P, m, F, k, v):
    """a ← a + K0 v, P∗ ← P∗ − M∗K0ᵀ − K0M∗ᵀ + F∗K0K0ᵀ."""
    n = len(a)
    for i in range(n):
        a[i] += k[i] * v
        for j in range(i, n):
            P[i, j] += F * k[i] * k[j] - m[i] * k[j] - k[i] * m[j]
            P[j, i] = P[i, j]


@helper()
def fold(N, h, e, c):
    """N ← N − h eᵀ − e hᵀ + c h hᵀ, which costs little where h is mostly zeros."""
    n = len(h)
    for i in range(n):
        if h[i] != 0.0:
            for j in range(n):
                N[i, j] -= h[i] * (e[j] - c * h[j])
            for j in range(n):
                N[j, i] -= h[i] * e[j]


@helper()
def multiply_in(totals, F):
    """One more factor of the determinant; its logarithm is taken only when the product nears over- or underflow."""
    totals[1] *= F
    if not 1e-140 < totals[1] < 1e140:
        totals[0] += np.log(totals[1])
        totals[1] = 1.0
