"""The scan compiled: sixteen channels in a vector, so that a sum over the states is a sum of vectors.

``G`` vectors of channels, ``per`` of them in a record; flat arrays, time before channels, r the rank:

    u, y        (records, L, per · lanes)
    dt          (records, L, lanes); its gradient (G, L, lanes)
    changed     (records, L)    whether a step's gap is another than that of the step before
    system      (G, n, 6 + 2 r, lanes)    Λ, B, 2C and P, real and imaginary; gradients alike
    state       (G, n, 2, lanes)
    kept        (G, L, r + r², lanes)    P* of each step's midpoint, and (1 + h P* E P)^{-1} row by row
    stored      (G, segments, n, 2, lanes)    the state at the beginning of each segment

With h half the gap, E = 1/(1 - hΛ). ``rank`` is a tuple of as many zeros: its length is known to the compiler.

Over a large gap x_k is near -x_{k-1}: their mean, the change in a gap and the gradient at the midpoint are small beside
what they would be differences of. They are computed as products with E, which keep their digits at any gap.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import store, without_tiny

SEGMENT = 16  # steps between two stored states; the reverse sweep computes one segment again at a time
W = WIDTH
PAIR = 2 * W
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
# Fields of a pair of states in ``system``.
LAMBDA, B, C, P, P2 = (PAIR * i for i in range(5))
# And in a row of the reverse sweep: the midpoint of a step, and E, whose place the gradient at the midpoint takes.
MIDDLE, E = 0, PAIR
ROW = 2 * PAIR


@helper()
def _aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % 16


@helper()
def _resolvent(half, c, d):
    """E of the pole c + id."""
    a, b = 1.0 - half * c, half * d
    scale = 1.0 / (a * a + b * b)
    return a * scale, b * scale


@helper()
def _times(a, b, c, d):
    """(a + ib) (c + id)."""
    return a * c - b * d, a * d + b * c


@helper()
def _solution(gap, g11, g12, g21, g22, rank, scratch, solve):
    """(1 + h P* E P)^{-1} from sums over the pairs."""
    g11 = 1.0 + gap * g11
    if len(rank) == 1:
        store(1.0 / g11, scratch, solve)
    else:
        g12, g21, g22 = gap * g12, gap * g21, 1.0 + gap * g22
        scale = 1.0 / (g11 * g22 - g12 * g21)
        store(g22 * scale, scratch, solve)
        store(-1.0 * g12 * scale, scratch, solve + W)
        store(-1.0 * g21 * scale, scratch, solve + 2 * W)
        store(g11 * scale, scratch, solve + 3 * W)


@helper()
def _project(gap, v, renew, n, rank, zero, system, own, states, resolvent, scratch, solve):
    """P* E (x + h B u). ``renew`` finds E and (1 + h P* E P)^{-1} of a new gap in the same pass."""
    half, half_v = 0.5 * gap, 0.5 * gap * v
    g11, g12, g21, g22 = zero, zero, zero, zero
    s, r, s2, r2 = zero, zero, zero, zero
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, m = own + i * fields, i * PAIR
        c, d = load(system, at + P), load(system, at + P + W)
        if renew:
            a, b = _resolvent(half, load(system, at + LAMBDA), load(system, at + LAMBDA + W))
            store(a, scratch, resolvent + m)
            store(b, scratch, resolvent + m + W)
            g11 = g11 + a * (c * c + d * d)
        else:
            a, b = load(scratch, resolvent + m), load(scratch, resolvent + m + W)
        x = load(scratch, states + m) + load(system, at + B) * half_v
        z = load(scratch, states + m + W) + load(system, at + B + W) * half_v
        x, z = _times(a, b, x, z)
        s, r = s + c * x, r + d * z
        if len(rank) == 2:
            e, f = load(system, at + P2), load(system, at + P2 + W)
            s2, r2 = s2 + e * x, r2 + f * z
            if renew:
                g22 = g22 + a * (e * e + f * f)
                e, f = c * e + d * f, c * f - d * e  # P̄ P₂
                g12 = g12 + (a * e - b * f)
                g21 = g21 + (a * e + b * f)
    if renew:
        _solution(gap, g11, g12, g21, g22, rank, scratch, solve)
    return 2.0 * (s + r), 2.0 * (s2 + r2)


@entry()
def forward(first, last, L, n, per, rank, u, dt, changed, system, state, y, kept, stored):
    """Of the vectors first..last−1: writes y, and leaves the final state in ``state``; ``kept`` and ``stored``, for the
    way back, may be empty.
    """
    scratch = np.zeros(2 * n * PAIR + 6 * W + 16, u.dtype)
    states = _aligned(scratch)
    resolvent, solve = states + n * PAIR, states + 2 * n * PAIR
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
            gap, v = load(dt, (record + t) * W), load(u, place + t * per * W)
            if changed[record + t] or t == 0:
                s, s2 = _project(gap, v, True, n, rank, zero, system, own, states, resolvent, scratch, solve)
            else:
                s, s2 = _project(gap, v, False, n, rank, zero, system, own, states, resolvent, scratch, solve)
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
            # x + Δ E (Λ x + B u - P q)
            s, r = zero, zero
            for i in range(n):
                at, m = own + i * fields, i * PAIR
                x, z = load(scratch, states + m), load(scratch, states + m + W)
                e, f = _times(load(system, at + LAMBDA), load(system, at + LAMBDA + W), x, z)
                e, f = e + load(system, at + B) * v, f + load(system, at + B + W) * v
                e, f = e - q * load(system, at + P), f - q * load(system, at + P + W)
                if len(rank) == 2:
                    e, f = e - q2 * load(system, at + P2), f - q2 * load(system, at + P2 + W)
                e, f = _times(load(scratch, resolvent + m), load(scratch, resolvent + m + W), e, f)
                x, z = x + gap * e, z + gap * f
                store(x, scratch, states + m)
                store(z, scratch, states + m + W)
                s, r = s + load(system, at + C) * x, r + load(system, at + C + W) * z
            store(s - r, y, place + t * per * W)
        for i in range(2 * n):
            store(load(scratch, states + i * W), state, g * n * PAIR + i * W)


@helper()
def _repeat(
    start, steps, n, rank, size, per, u, place, dt, changed, record, system, own, kept, keep, stored, begin, grad_y,
    rows, slopes, with_slopes, scratch, grad_system,
):  # fmt: skip
    """A segment's states again, pair after pair, now that P* of every midpoint is known: the midpoints, the changes in
    the gaps at ``slopes`` if asked, and what the read-out adds to the gradient in C.
    """
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, to, change = own + i * fields, rows + i * ROW, slopes + i * PAIR
        x, z = load(stored, begin + i * PAIR), load(stored, begin + i * PAIR + W)
        c, d, b, w = load(system, at), load(system, at + W), load(system, at + B), load(system, at + B + W)
        p, k = load(system, at + P), load(system, at + P + W)
        of_c, of_d = load(grad_system, at + C), load(grad_system, at + C + W)
        half, h, j, move, turn = x, x, z, x, z
        for t in range(start, start + steps):
            if changed[record + t] or t == start:
                gap = load(dt, (record + t) * W)
                half = 0.5 * gap
                h, j = _resolvent(half, c, d)
                move, turn = gap * h, gap * j
            store(h, scratch, to + E)
            store(j, scratch, to + E + W)
            v, q = load(u, place + t * per * W), load(kept, keep + t * size * W)
            e, f = b * v - q * p, w * v - q * k
            if len(rank) == 2:
                q = load(kept, keep + t * size * W + W)
                e, f = e - q * load(system, at + P2), f - q * load(system, at + P2 + W)
            m, o = _times(h, j, x + half * e, z + half * f)
            store(m, scratch, to + MIDDLE)
            store(o, scratch, to + MIDDLE + W)
            # The state comes last into every sum: a step waits for the one before, and this is the shortest wait.
            e, f = e - d * z + c * x, f + d * x + c * z
            x, z = x + move * e - turn * f, z + move * f + turn * e
            if with_slopes:
                e, f = _times(h, j, e, f)
                store(e, scratch, change)
                store(f, scratch, change + W)
            of_y = load(grad_y, place + t * per * W)
            of_c, of_d = of_c + of_y * x, of_d - of_y * z
            to += n * ROW
            change += n * PAIR
        store(of_c, grad_system, at + C)
        store(of_d, grad_system, at + C + W)


@helper()
def _gather(
    start, steps, n, rank, size, per, u, place, dt, record, own, kept, keep, rows, adjoint, scratch, grad_system
):
    """What a segment's midpoints add to the gradient in the system, pair after pair."""
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, to = own + i * fields, rows + i * ROW
        of_l, of_m = load(grad_system, at + LAMBDA), load(grad_system, at + LAMBDA + W)
        of_b, of_w = load(grad_system, at + B), load(grad_system, at + B + W)
        of_p, of_k = load(grad_system, at + P), load(grad_system, at + P + W)
        of_p2, of_k2 = of_p, of_k
        if len(rank) == 2:
            of_p2, of_k2 = load(grad_system, at + P2), load(grad_system, at + P2 + W)
        for t in range(start, start + steps):
            g, h, gap = load(scratch, to + E), load(scratch, to + E + W), load(dt, (record + t) * W)
            x, z = gap * load(scratch, to + MIDDLE), gap * load(scratch, to + MIDDLE + W)
            to += n * ROW
            v = gap * load(u, place + t * per * W)
            of_b, of_w = of_b + v * g, of_w + v * h
            of_l, of_m = of_l + x * g + z * h, of_m + x * h - z * g
            q, p = gap * load(kept, keep + t * size * W), load(scratch, adjoint + (t - start) * PAIR)
            of_p, of_k = of_p - q * g - p * x, of_k - q * h - p * z
            if len(rank) == 2:
                q, p = gap * load(kept, keep + t * size * W + W), load(scratch, adjoint + (t - start) * PAIR + W)
                of_p2, of_k2 = of_p2 - q * g - p * x, of_k2 - q * h - p * z
        store(of_l, grad_system, at + LAMBDA)
        store(of_m, grad_system, at + LAMBDA + W)
        store(of_b, grad_system, at + B)
        store(of_w, grad_system, at + B + W)
        store(of_p, grad_system, at + P)
        store(of_k, grad_system, at + P + W)
        if len(rank) == 2:
            store(of_p2, grad_system, at + P2)
            store(of_k2, grad_system, at + P2 + W)


@entry()
def backward(
    first, last, L, n, per, rank, u, dt, changed, system, kept, stored, grad_y, grad_state, grad_u, grad_dt, grad_system
):
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial
    one; ``grad_system`` comes as zeros; ``grad_dt`` may be empty.
    """
    with_slopes = len(grad_dt) > 0
    changes = SEGMENT * n * PAIR if with_slopes else 0
    scratch = np.zeros(SEGMENT * n * ROW + changes + n * PAIR + SEGMENT * PAIR + W + 16, u.dtype)
    rows = _aligned(scratch)
    slopes = rows + SEGMENT * n * ROW
    of_state = slopes + changes
    adjoint = of_state + n * PAIR
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
            for i in range(2 * n):
                at = of_state + i * W
                store(without_tiny(load(scratch, at), TINY), scratch, at)
            _repeat(
                start, steps, n, rank, size, per, u, place, dt, changed, record, system, own, kept, keep, stored,
                (g * segments + segment) * n * PAIR, grad_y, rows, slopes, with_slopes, scratch, grad_system,
            )  # fmt: skip
            for t in range(start + steps - 1, start - 1, -1):
                row = rows + (t - start) * n * ROW
                of_y, gap = load(grad_y, place + t * per * W), load(dt, (record + t) * W)
                # With g the gradient in the state after: P* E* g.
                s, r, s2, r2 = zero, zero, zero, zero
                for i in range(n):
                    at, m = own + i * fields, i * PAIR
                    x = load(scratch, of_state + m) + of_y * load(system, at + C)
                    z = load(scratch, of_state + m + W) - of_y * load(system, at + C + W)
                    store(x, scratch, of_state + m)
                    store(z, scratch, of_state + m + W)
                    c, d = load(scratch, row + i * ROW + E), load(scratch, row + i * ROW + E + W)
                    x, z = c * x + d * z, c * z - d * x
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
                # At the midpoint E* (g - h P p), and g + Δ E* (Λ* g - P p) in the state before.
                half = 0.5 * gap
                s, r, slope = zero, zero, zero
                for i in range(n):
                    at, m, to = own + i * fields, i * PAIR, row + i * ROW + E
                    e, f = p * load(system, at + P), p * load(system, at + P + W)
                    if len(rank) == 2:
                        e, f = e + p2 * load(system, at + P2), f + p2 * load(system, at + P2 + W)
                    h, j = load(scratch, to), load(scratch, to + W)
                    x, z = load(scratch, of_state + m), load(scratch, of_state + m + W)
                    c, d = x - half * e, z - half * f
                    c, d = h * c + j * d, h * d - j * c
                    store(c, scratch, to)
                    store(d, scratch, to + W)
                    s, r = s + load(system, at + B) * c, r + load(system, at + B + W) * d
                    if with_slopes:
                        change = slopes + (t - start) * n * PAIR + m
                        slope = slope + load(scratch, change) * c + load(scratch, change + W) * d
                    c, d = load(system, at + LAMBDA), load(system, at + LAMBDA + W)
                    e, f = c * x + d * z - e, c * z - d * x - f
                    e, f = h * e + j * f, h * f - j * e
                    store(x + gap * e, scratch, of_state + m)
                    store(z + gap * f, scratch, of_state + m + W)
                store(gap * (s + r), grad_u, place + t * per * W)
                if with_slopes:
                    store(slope, grad_dt, (g * L + t) * W)
            _gather(
                start,
                steps,
                n,
                rank,
                size,
                per,
                u,
                place,
                dt,
                record,
                own,
                kept,
                keep,
                rows,
                adjoint,
                scratch,
                grad_system,
            )
        for i in range(2 * n):
            store(load(scratch, of_state + i * W), grad_state, g * n * PAIR + i * W)
