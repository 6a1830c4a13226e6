"""The scan compiled: sixteen channels in a vector, so that a sum over the states is a sum of vectors.

``G`` vectors of channels, ``per`` of them in a record; flat arrays, time before channels, r the rank:

    u, y        (records, L, per · lanes)
    dt          (records, L, lanes); its gradient (G, L, lanes)
    changed     (records, L)    whether a step's gap is another than that of the step before
    system      (G, n, 6 + 2 r, lanes)    Λ, B, 2C and P, real and imaginary; gradients alike
    state       (G, n, 2, lanes)
    kept        (G, L, r + r², lanes)    P* of each step's midpoint, and (1 + h P* E P)^{-1} row by row
    stored      (G, segments, n, 2, lanes)    the state at the beginning of each segment

With h half the gap, hE = h/(1 - hΛ). ``rank`` is a tuple of as many zeros: its length is known to the compiler.
"""

import numpy as np
from numba import njit

from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import store, without_tiny

SEGMENT = 16  # steps between two stored states; the reverse sweep computes one segment again at a time
W = WIDTH
PAIR = 2 * W
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
# Fields of a pair of states in ``system``.
LAMBDA, B, C, P, P2 = (PAIR * i for i in range(5))
# And in a row of the reverse sweep: the state before a step, and hE, whose place the gradient at the midpoint takes.
X, E = 0, PAIR
ROW = 2 * PAIR


@njit(cache=True, error_model="numpy")
def _aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % 16


@njit(cache=True, error_model="numpy")
def _half_resolvent(half, c, d):
    """hE of the pole c + id."""
    a, b = 1.0 - half * c, half * d
    scale = half / (a * a + b * b)
    return a * scale, b * scale


@njit(cache=True, error_model="numpy")
def _times(a, b, c, d):
    """(a + ib) (c + id)."""
    return a * c - b * d, a * d + b * c


@njit(cache=True, error_model="numpy")
def _discretise(half, n, rank, zero, system, own, resolvent, scratch, solve):
    """hE of one gap, and (1 + h P* E P)^{-1}."""
    g11 = g12 = g21 = g22 = zero
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, to = own + i * fields, resolvent + i * PAIR
        a, b = _half_resolvent(half, load(system, at + LAMBDA), load(system, at + LAMBDA + W))
        store(a, scratch, to)
        store(b, scratch, to + W)
        c, d = load(system, at + P), load(system, at + P + W)
        g11 = g11 + a * (c * c + d * d)
        if len(rank) == 2:
            e, f = load(system, at + P2), load(system, at + P2 + W)
            g22 = g22 + a * (e * e + f * f)
            e, f = c * e + d * f, c * f - d * e  # P̄ P₂
            g12 = g12 + (a * e - b * f)
            g21 = g21 + (a * e + b * f)
    g11 = 1.0 + 2.0 * g11
    if len(rank) == 1:
        store(1.0 / g11, scratch, solve)
    else:
        g12, g21, g22 = 2.0 * g12, 2.0 * g21, 1.0 + 2.0 * g22
        scale = 1.0 / (g11 * g22 - g12 * g21)
        store(g22 * scale, scratch, solve)
        store(-1.0 * g12 * scale, scratch, solve + W)
        store(-1.0 * g21 * scale, scratch, solve + 2 * W)
        store(g11 * scale, scratch, solve + 3 * W)


@njit(cache=True, nogil=True, error_model="numpy")
def forward(first, last, L, n, per, rank, u, dt, changed, system, state, y, kept, stored):
    """Of the vectors first..last−1: writes y, and leaves the final state in ``state``; ``kept`` and ``stored``, for the
    way back, may be empty.
    """
    scratch = np.zeros(3 * n * PAIR + 6 * W + 16, u.dtype)
    states = _aligned(scratch)
    resolvent, increments, solve = states + n * PAIR, states + 2 * n * PAIR, states + 3 * n * PAIR
    zero = load(scratch, solve + 4 * W)
    fields = 3 * PAIR + len(rank) * PAIR
    size = len(rank) + len(rank) ** 2
    for g in range(first, last):
        place, record, own = (g // per) * L * per * W + (g % per) * W, (g // per) * L, g * n * fields
        for i in range(2 * n):
            store(load(state, g * n * PAIR + i * W), scratch, states + i * W)
        for t in range(L):
            if t % SEGMENT == 0:
                for i in range(2 * n):
                    x = without_tiny(load(scratch, states + i * W), TINY)
                    store(x, scratch, states + i * W)
                    if len(stored) > 0:
                        store(x, stored, (g * ((L - 1) // SEGMENT + 1) + t // SEGMENT) * n * PAIR + i * W)
            if changed[record + t] or t == 0:
                half = 0.5 * load(dt, (record + t) * W)
                _discretise(half, n, rank, zero, system, own, resolvent, scratch, solve)
            v = load(u, place + t * per * W)
            # e = hE (Λ x + B u) and P* (x + e).
            s, r, s2, r2 = zero, zero, zero, zero
            for i in range(n):
                at, m = own + i * fields, i * PAIR
                x, z = load(scratch, states + m), load(scratch, states + m + W)
                e, f = _times(load(system, at + LAMBDA), load(system, at + LAMBDA + W), x, z)
                e, f = e + load(system, at + B) * v, f + load(system, at + B + W) * v
                e, f = _times(load(scratch, resolvent + m), load(scratch, resolvent + m + W), e, f)
                store(e, scratch, increments + m)
                store(f, scratch, increments + m + W)
                x, z = x + e, z + f
                s, r = s + load(system, at + P) * x, r + load(system, at + P + W) * z
                if len(rank) == 2:
                    s2, r2 = s2 + load(system, at + P2) * x, r2 + load(system, at + P2 + W) * z
            s, s2 = 2.0 * (s + r), 2.0 * (s2 + r2)
            q, q2 = load(scratch, solve) * s, zero
            if len(rank) == 2:
                q = q + load(scratch, solve + W) * s2
                q2 = load(scratch, solve + 2 * W) * s + load(scratch, solve + 3 * W) * s2
            if len(kept) > 0:
                to = (g * L + t) * size * W
                store(q, kept, to)
                if len(rank) == 2:
                    store(q2, kept, to + W)
                for i in range(len(rank) ** 2):
                    store(load(scratch, solve + i * W), kept, to + (len(rank) + i) * W)
            # x + 2 (e - hE P q)
            s, r = zero, zero
            for i in range(n):
                at, m = own + i * fields, i * PAIR
                e, f = q * load(system, at + P), q * load(system, at + P + W)
                if len(rank) == 2:
                    e, f = e + q2 * load(system, at + P2), f + q2 * load(system, at + P2 + W)
                e, f = _times(load(scratch, resolvent + m), load(scratch, resolvent + m + W), e, f)
                e, f = load(scratch, increments + m) - e, load(scratch, increments + m + W) - f
                x, z = load(scratch, states + m) + 2.0 * e, load(scratch, states + m + W) + 2.0 * f
                store(x, scratch, states + m)
                store(z, scratch, states + m + W)
                s, r = s + load(system, at + C) * x, r + load(system, at + C + W) * z
            store(s - r, y, place + t * per * W)
        for i in range(2 * n):
            store(load(scratch, states + i * W), state, g * n * PAIR + i * W)


@njit(cache=True, error_model="numpy")
def _repeat(start, steps, n, rank, size, per, u, place, dt, changed, record, system, own, kept, keep, rows, scratch):
    """The states of a segment again, pair after pair, now that P* of every midpoint is known."""
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, to = own + i * fields, rows + i * ROW
        x, z = load(scratch, to + X), load(scratch, to + X + W)
        c, d, b, w = load(system, at), load(system, at + W), load(system, at + B), load(system, at + B + W)
        p, k = load(system, at + P), load(system, at + P + W)
        h, j, twice_h, twice_j = x, z, x, z
        for t in range(start, start + steps):
            if changed[record + t] or t == start:
                h, j = _half_resolvent(0.5 * load(dt, (record + t) * W), c, d)
                twice_h, twice_j = h + h, j + j
            store(h, scratch, to + E)
            store(j, scratch, to + E + W)
            v, q = load(u, place + t * per * W), load(kept, keep + t * size * W)
            e, f = b * v - q * p, w * v - q * k
            if len(rank) == 2:
                q = load(kept, keep + t * size * W + W)
                e, f = e - q * load(system, at + P2), f - q * load(system, at + P2 + W)
            # The state comes last into every sum: a step waits for the one before, and this is the shortest wait.
            e, f = e - d * z + c * x, f + d * x + c * z
            x, z = x + twice_h * e - twice_j * f, z + twice_h * f + twice_j * e
            to += n * ROW
            store(x, scratch, to + X)
            store(z, scratch, to + X + W)


@njit(cache=True, error_model="numpy")
def _slope(v, q, q2, n, rank, zero, system, own, row, scratch):
    """The gradient in a gap: that at the midpoint times the state's derivative there."""
    fields = 3 * PAIR + len(rank) * PAIR
    slope = zero
    for i in range(n):
        at, m = own + i * fields, row + i * ROW
        x = 0.5 * (load(scratch, m + X) + load(scratch, m + n * ROW + X))
        z = 0.5 * (load(scratch, m + X + W) + load(scratch, m + n * ROW + X + W))
        e, f = _times(load(system, at + LAMBDA), load(system, at + LAMBDA + W), x, z)
        e, f = e + load(system, at + B) * v, f + load(system, at + B + W) * v
        e, f = e - q * load(system, at + P), f - q * load(system, at + P + W)
        if len(rank) == 2:
            e, f = e - q2 * load(system, at + P2), f - q2 * load(system, at + P2 + W)
        slope = slope + e * load(scratch, m + E) + f * load(scratch, m + E + W)
    return slope


@njit(cache=True, error_model="numpy")
def _gather(
    start, steps, n, rank, size, per, u, place, dt, record, own, kept, keep, grad_y, rows, adjoint, scratch, grad_system
):
    """What a segment adds to the gradient in the system, pair after pair."""
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, to = own + i * fields, rows + i * ROW
        of_l, of_m = load(grad_system, at + LAMBDA), load(grad_system, at + LAMBDA + W)
        of_b, of_w = load(grad_system, at + B), load(grad_system, at + B + W)
        of_c, of_d = load(grad_system, at + C), load(grad_system, at + C + W)
        of_p, of_k = load(grad_system, at + P), load(grad_system, at + P + W)
        of_p2, of_k2 = of_p, of_k
        if len(rank) == 2:
            of_p2, of_k2 = load(grad_system, at + P2), load(grad_system, at + P2 + W)
        x, z = load(scratch, to + X), load(scratch, to + X + W)
        for t in range(start, start + steps):
            g, h = load(scratch, to + E), load(scratch, to + E + W)
            to += n * ROW
            after_x, after_z = load(scratch, to + X), load(scratch, to + X + W)
            of_y, gap = load(grad_y, place + t * per * W), load(dt, (record + t) * W)
            of_c, of_d = of_c + of_y * after_x, of_d - of_y * after_z
            half = 0.5 * gap
            x, z = half * (x + after_x), half * (z + after_z)
            v = gap * load(u, place + t * per * W)
            of_b, of_w = of_b + v * g, of_w + v * h
            of_l, of_m = of_l + x * g + z * h, of_m + x * h - z * g
            q, p = gap * load(kept, keep + t * size * W), load(scratch, adjoint + (t - start) * PAIR)
            of_p, of_k = of_p - q * g - p * x, of_k - q * h - p * z
            if len(rank) == 2:
                q, p = gap * load(kept, keep + t * size * W + W), load(scratch, adjoint + (t - start) * PAIR + W)
                of_p2, of_k2 = of_p2 - q * g - p * x, of_k2 - q * h - p * z
            x, z = after_x, after_z
        store(of_l, grad_system, at + LAMBDA)
        store(of_m, grad_system, at + LAMBDA + W)
        store(of_b, grad_system, at + B)
        store(of_w, grad_system, at + B + W)
        store(of_c, grad_system, at + C)
        store(of_d, grad_system, at + C + W)
        store(of_p, grad_system, at + P)
        store(of_k, grad_system, at + P + W)
        if len(rank) == 2:
            store(of_p2, grad_system, at + P2)
            store(of_k2, grad_system, at + P2 + W)


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    first, last, L, n, per, rank, u, dt, changed, system, kept, stored, grad_y, grad_state, grad_u, grad_dt, grad_system
):
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial
    one; ``grad_system`` comes as zeros; ``grad_dt`` may be empty.
    """
    scratch = np.zeros((SEGMENT + 1) * n * ROW + 2 * n * PAIR + SEGMENT * PAIR + W + 16, u.dtype)
    rows = _aligned(scratch)
    of_state = rows + (SEGMENT + 1) * n * ROW
    increments, adjoint = of_state + n * PAIR, of_state + 2 * n * PAIR
    zero = load(scratch, adjoint + SEGMENT * PAIR)
    fields = 3 * PAIR + len(rank) * PAIR
    size = len(rank) + len(rank) ** 2
    segments = (L - 1) // SEGMENT + 1
    for g in range(first, last):
        place, record, own = (g // per) * L * per * W + (g % per) * W, (g // per) * L, g * n * fields
        keep = g * L * size * W
        for i in range(2 * n):
            store(load(grad_state, g * n * PAIR + i * W), scratch, of_state + i * W)
        for segment in range(segments - 1, -1, -1):
            start = segment * SEGMENT
            steps = min(SEGMENT, L - start)
            for i in range(n):
                for w in range(0, PAIR, W):
                    x = load(stored, (g * segments + segment) * n * PAIR + i * PAIR + w)
                    store(x, scratch, rows + i * ROW + X + w)
                    at = of_state + i * PAIR + w
                    store(without_tiny(load(scratch, at), TINY), scratch, at)
            _repeat(
                start, steps, n, rank, size, per, u, place, dt, changed, record, system, own, kept, keep, rows, scratch
            )
            for t in range(start + steps - 1, start - 1, -1):
                row = rows + (t - start) * n * ROW
                of_y = load(grad_y, place + t * per * W)
                # With g the gradient in the state after: e = hE* Λ* g and P* (g + e).
                s, r, s2, r2 = zero, zero, zero, zero
                for i in range(n):
                    at, m = own + i * fields, i * PAIR
                    x = load(scratch, of_state + m) + of_y * load(system, at + C)
                    z = load(scratch, of_state + m + W) - of_y * load(system, at + C + W)
                    store(x, scratch, of_state + m)
                    store(z, scratch, of_state + m + W)
                    c, d = load(system, at + LAMBDA), load(system, at + LAMBDA + W)
                    e, f = c * x + d * z, c * z - d * x
                    c, d = load(scratch, row + i * ROW + E), load(scratch, row + i * ROW + E + W)
                    e, f = c * e + d * f, c * f - d * e
                    store(e, scratch, increments + m)
                    store(f, scratch, increments + m + W)
                    x, z = x + e, z + f
                    s, r = s + load(system, at + P) * x, r + load(system, at + P + W) * z
                    if len(rank) == 2:
                        s2, r2 = s2 + load(system, at + P2) * x, r2 + load(system, at + P2 + W) * z
                s, s2 = 2.0 * (s + r), 2.0 * (s2 + r2)
                solve = keep + t * size * W + len(rank) * W
                p, p2 = load(kept, solve) * s, zero
                if len(rank) == 2:
                    p = p + load(kept, solve + 2 * W) * s2
                    p2 = load(kept, solve + W) * s + load(kept, solve + 3 * W) * s2
                    store(p2, scratch, adjoint + (t - start) * PAIR + W)
                store(p, scratch, adjoint + (t - start) * PAIR)
                s, r = zero, zero
                for i in range(n):
                    at, m, to = own + i * fields, i * PAIR, row + i * ROW + E
                    e, f = p * load(system, at + P), p * load(system, at + P + W)
                    if len(rank) == 2:
                        e, f = e + p2 * load(system, at + P2), f + p2 * load(system, at + P2 + W)
                    c, d = load(scratch, to), load(scratch, to + W)
                    e, f = c * e + d * f, c * f - d * e
                    e, f = load(scratch, increments + m) - e, load(scratch, increments + m + W) - f
                    x, z = load(scratch, of_state + m) + e, load(scratch, of_state + m + W) + f
                    store(x, scratch, to)
                    store(z, scratch, to + W)
                    s, r = s + load(system, at + B) * x, r + load(system, at + B + W) * z
                    store(x + e, scratch, of_state + m)
                    store(z + f, scratch, of_state + m + W)
                store(load(dt, (record + t) * W) * (s + r), grad_u, place + t * per * W)
                if len(grad_dt) > 0:
                    q, q2 = load(kept, keep + t * size * W), zero
                    if len(rank) == 2:
                        q2 = load(kept, keep + t * size * W + W)
                    v = load(u, place + t * per * W)
                    slope = _slope(v, q, q2, n, rank, zero, system, own, row, scratch)
                    store(slope, grad_dt, (g * L + t) * W)
            _gather(
                start, steps, n, rank, size, per, u, place, dt, record, own, kept, keep, grad_y, rows, adjoint, scratch,
                grad_system,
            )  # fmt: skip
        for i in range(2 * n):
            store(load(scratch, of_state + i * W), grad_state, g * n * PAIR + i * W)
