"""One step of the backward recursion and its contraction with the model; smoother and gradient share it.

Letters as in README.md: r = r₀ + r₁/κ, N = N₀ + N₁/κ + N₂/κ², the backward recursion of Durbin & Koopman in powers of
the diffuse variance κ → ∞. r₁, N₁, N₂ are zero after the last diffuse sample and cost nothing there.
"""

from statespace.kernels.kalman_filter.blocks import RANDOM_WALK, TREND
from statespace.kernels.kalman_filter.compiled import helper, shared
from statespace.kernels.kalman_filter.sweep import (
    DIFFUSE,
    SEEN,
    congruence,
    copy_vector,
    correct,
    correct_diffuse,
    diffuse_gain,
    dot,
    eliminate,
    fold,
    multiply,
    symmetric_product,
    visible,
)


@helper()
def recover(units, h, v, R, status, alive, a, P, D, m, g, K0):
    """From the predicted a, P, D of one sample to the filtered ones, in place; leaves m and the gain; gives F, F∞."""
    symmetric_product(P, h, m)
    F = max(dot(h, m), 0.0) + R
    F_inf = 0.0
    if status == DIFFUSE:
        F_inf = visible(units, h, D, alive, g)
        diffuse_gain(D, alive, g, F_inf, K0)
        correct_diffuse(a, P, m, F, K0, v)
        eliminate(D, alive, g)
    elif status == SEEN:
        correct(a, P, m, F, R, v)
        for i in range(len(m)):
            K0[i] = m[i] / F
    return F, F_inf


@helper()
def observe_backward(b, late, h, v, F, F_inf, m, K0, scratch, e0, e1, u):
    """r, N from after an observation to before it, in powers of 1/κ.

    r is left for ``lift``. Leaves u₀, u₁, c₀, c₁ in ``u``, where u = v/F − k·r, c = 1/F + kᵀNk; N k in ``e0``, ``e1``.
    """
    r0, r1, N0, N1, N2 = b
    n = len(h)
    symmetric_product(N0, K0, e0)
    if F_inf == 0.0:
        u[0] = v / F - dot(K0, r0)
        u[2] = dot(K0, e0) + 1.0 / F
    else:
        u[0] = -dot(K0, r0)
        u[2] = dot(K0, e0)
    u[1] = 0.0
    u[3] = 0.0
    if late:
        # 1/F = 1/(κF∞) − F∗/(κF∞)² and k = K0 + K1/κ at a diffuse sample
        K1, first, second = scratch[0], scratch[1], scratch[2]
        for i in range(n):
            K1[i] = (m[i] - K0[i] * F) / F_inf if F_inf > 0.0 else 0.0
        symmetric_product(N0, K1, first)
        symmetric_product(N1, K0, e1)
        u[1] = -dot(K0, r1) - dot(K1, r0)
        u[3] = dot(K0, e1) + 2.0 * dot(K0, first)
        quadratic = dot(K1, first)
        for i in range(n):
            e1[i] += first[i]
        symmetric_product(N1, K1, first)
        symmetric_product(N2, K0, second)
        quadratic += dot(K0, second) + 2.0 * dot(K0, first)
        if F_inf > 0.0:
            u[1] += v / F_inf
            u[3] += 1.0 / F_inf
            quadratic -= F / (F_inf * F_inf)
        for i in range(n):
            second[i] += first[i]
        fold(N2, h, second, quadratic)
        fold(N1, h, e1, u[3])
    fold(N0, h, e0, u[2])


@helper()
def lift(b, late, h, u):
    """r ← r + u h, the last act of an observation's backward step."""
    for i in range(len(h)):
        b.r0[i] += u[0] * h[i]
        if late:
            b.r1[i] += u[1] * h[i]


@helper()
def add_observation_adjoints(b, late, h, F_inf, m, K0, a, P, D, alive, e0, e1, u, R_bar, H_bar, scratch):
    """Add ∂ℓ/∂R to ``R_bar`` (1,) and ∂ℓ/∂h to ``H_bar`` (n,); r is that after the observation, e and u as above."""
    n = len(h)
    x0, x1 = scratch[0], scratch[1]
    F0 = 0.5 * (u[0] * u[0] - u[2])
    F1 = u[0] * u[1] - 0.5 * u[3]
    R_bar[0] += F0
    for i in range(n):
        x0[i] = b.r0[i] * u[0] + e0[i] + h[i] * F0
    for j in range(n):
        H_bar[j] += m[j] * F0 + a[j] * u[0]
        for i in range(n):
            H_bar[i] += P[j, i] * x0[j]
    if late:
        for i in range(n):
            x1[i] = b.r0[i] * u[1] + b.r1[i] * u[0] + e1[i] + h[i] * F1
            H_bar[i] += F_inf * K0[i] * F1
        for c in range(alive):
            along = dot(D[c], x1)
            for i in range(n):
                H_bar[i] += D[c, i] * along


@helper()
def advance(b, late, size, At, W, scratch):
    """r, N from before a transition's end to its beginning: r ← Aᵀr, N ← AᵀNA; leaves AᵀN₀ in ``W``."""
    multiply(size, At, b.r0, scratch)
    if late:
        multiply(size, At, b.r1, scratch)
        congruence(size, At, b.N2, W)
        congruence(size, At, b.N1, W)
    congruence(size, At, b.N0, W)


@helper()
def add_transition_adjoints(b, late, units, At, a, P, D, alive, A_bar, Q_bar, W, scratch):
    """Step r, N back over a transition that began at the filtered a, P, D; add Ā and Q̄ of every block.

    Q̄ = ½(r rᵀ − N), Ā = r x̂ᵀ − N A P with the smoothed mean x̂ = a + P Aᵀr.
    """
    kind, size, _ = units
    n = len(a)
    before, smoothed, swap = scratch[0], scratch[1], scratch[2]
    o = 0
    p = 0
    for s in size:
        for i in range(s):
            for j in range(s):
                Q_bar[p + i * s + j] += 0.5 * (b.r0[o + i] * b.r0[o + j] - b.N0[o + i, o + j])
        o += s
        p += s * s
    copy_vector(b.r0, before)
    if late:
        multiply(size, At, b.r1, swap)
        congruence(size, At, b.N2, W)
        congruence(size, At, b.N1, W)
        for c in range(alive):
            subtract_product(units, W, D[c], A_bar, swap)
    multiply(size, At, b.r0, swap)
    congruence(size, At, b.N0, W)
    symmetric_product(P, b.r0, smoothed)
    for i in range(n):
        smoothed[i] += a[i]
    if late:
        for c in range(alive):
            along = dot(D[c], b.r1)
            for i in range(n):
                smoothed[i] += D[c, i] * along
    o = 0
    p = 0
    for k in range(len(kind)):
        s = size[k]
        if s == 2 and kind[k] != TREND:
            s00 = 0.0
            s01 = 0.0
            s10 = 0.0
            s11 = 0.0
            for c in range(n):
                w0 = W[c, o]
                w1 = W[c, o + 1]
                p0 = P[c, o]
                p1 = P[c, o + 1]
                s00 += w0 * p0
                s01 += w0 * p1
                s10 += w1 * p0
                s11 += w1 * p1
            A_bar[p] += before[o] * smoothed[o] - s00
            A_bar[p + 1] += before[o] * smoothed[o + 1] - s01
            A_bar[p + 2] += before[o + 1] * smoothed[o] - s10
            A_bar[p + 3] += before[o + 1] * smoothed[o + 1] - s11
        elif kind[k] != RANDOM_WALK and kind[k] != TREND:
            for i in range(s):
                for j in range(s):
                    total = before[o + i] * smoothed[o + j]
                    for c in range(n):
                        total -= W[c, o + i] * P[c, o + j]
                    A_bar[p + i * s + j] += total
        o += s
        p += s * s


@helper()
def add_moving_adjoints(b, units, moving, some, At, a, P, m, inverse, v, A_bar, Q_bar, W, scratch):
    """``add_transition_adjoints`` after the diffuse start, with Ā only of the blocks that are ``moving``.

    a, P are the predicted moments and m, 1/F, v what made the filtered ones of them; 1/F = 0 where nothing did.
    """
    kind, size, _ = units
    n = len(b.r0)
    before, swap = scratch[0], scratch[1]
    o = 0
    p = 0
    for s in size:
        for i in range(s):
            for j in range(s):
                Q_bar[p + i * s + j] += 0.5 * (b.r0[o + i] * b.r0[o + j] - b.N0[o + i, o + j])
        o += s
        p += s * s
    if some:
        copy_vector(b.r0, before)
    multiply(size, At, b.r0, swap)
    congruence(size, At, b.N0, W)
    if some:
        gain = (v - dot(m, b.r0)) * inverse if inverse != 0.0 else 0.0
        o = 0
        p = 0
        for k in range(len(kind)):
            s = size[k]
            if moving[k] and s == 2:
                # six sums side by side: one after the other, each waits for its own additions
                x0 = 0.0
                x1 = 0.0
                s00 = 0.0
                s01 = 0.0
                s10 = 0.0
                s11 = 0.0
                for c in range(n):
                    x0 += P[o, c] * b.r0[c]
                    x1 += P[o + 1, c] * b.r0[c]
                    p0 = P[o, c] - m[c] * (m[o] * inverse)
                    p1 = P[o + 1, c] - m[c] * (m[o + 1] * inverse)
                    s00 += W[c, o] * p0
                    s01 += W[c, o] * p1
                    s10 += W[c, o + 1] * p0
                    s11 += W[c, o + 1] * p1
                x0 += a[o] + m[o] * gain
                x1 += a[o + 1] + m[o + 1] * gain
                A_bar[p] += before[o] * x0 - s00
                A_bar[p + 1] += before[o] * x1 - s01
                A_bar[p + 2] += before[o + 1] * x0 - s10
                A_bar[p + 3] += before[o + 1] * x1 - s11
            elif moving[k]:
                for j in range(o, o + s):
                    smoothed = a[j] + m[j] * gain
                    for c in range(n):
                        smoothed += P[j, c] * b.r0[c]
                    share = m[j] * inverse
                    for i in range(s):
                        total = before[o + i] * smoothed
                        for c in range(n):
                            total -= W[c, o + i] * (P[j, c] - m[c] * share)
                        A_bar[p + i * s + j - o] += total
            o += s
            p += s * s


@shared()
def subtract_product(units, W, x, A_bar, swap):
    """Ā ← Ā − Wᵀ x xᵀ, block by block."""
    _, size, _ = units
    n = len(x)
    for i in range(n):
        swap[i] = 0.0
    for c in range(n):
        for i in range(n):
            swap[i] += W[c, i] * x[c]
    o = 0
    p = 0
    for s in size:
        for i in range(s):
            for j in range(s):
                A_bar[p + i * s + j] -= swap[o + i] * x[o + j]
        o += s
        p += s * s
