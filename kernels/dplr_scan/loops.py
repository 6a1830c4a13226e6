"""The scan compiled: sixteen channels in a vector, so that a sum over the states is a sum of vectors.

``G`` vectors of channels, ``per`` of them in a record; flat arrays, time before channels, r the rank:

    u, y        (records, L, per · lanes)
    dt          (records, L, lanes); its gradient (G, L, lanes)
    changed     (records, L)    whether a step's gap is another than that of the step before
    system      (G, n, 6 + 2 r, lanes)    Λ, B, 2C and P, real and imaginary; gradients alike. P's first row is real:
                                          its imaginary part is not read, but has a gradient
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
from statespace.kernels.vectors import prefetch, reciprocal, store, without_tiny

SEGMENT = 16  # steps between two stored states; the reverse sweep computes one segment again at a time
W = WIDTH
PAIR = 2 * W
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
# Fields of a pair of states in ``system``.
LAMBDA, B, C, P, P2 = (PAIR * i for i in range(5))
# And in a row of the reverse sweep: the midpoint of a step, and Δ E, whose place Δ times the gradient there takes.
MIDDLE, STEP = 0, PAIR
ROW = 2 * PAIR


@helper()
def _aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % 16


@helper()
def _resolvent(half, c, d):
    """E of the pole c + id."""
    a, b = 1.0 - half * c, half * d
    scale = reciprocal(a * a + b * b)
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


@entry()
def forward(first, last, L, n, per, rank, u, dt, changed, system, state, y, kept, stored):
    """Of the vectors first..last−1: writes y, and leaves the final state in ``state``; ``kept`` and ``stored``, for the
    way back, may be empty.

    A pass over the pairs takes a step and finds P* E (x + h B u) for the next one, with E and (1 + h P* E P)^{-1} if
    its gap is a new one, so that a state is loaded once a step. Before the first pass of a segment there is no step,
    after its last one none.
    """
    scratch = np.zeros(2 * n * PAIR + 5 * W + 16, u.dtype)
    states = _aligned(scratch)
    resolvent, solve = states + n * PAIR, states + 2 * n * PAIR
    zero = load(scratch, solve + 4 * W)
    fields = 3 * PAIR + len(rank) * PAIR
    size = len(rank) + len(rank) ** 2
    for g in range(first, last):
        place, record, own = (g // per) * L * per * W + (g % per) * W, (g // per) * L, g * n * fields
        for i in range(2 * n):
            store(load(state, g * n * PAIR + i * W), scratch, states + i * W)
        for start in range(0, L, SEGMENT):
            stop = min(L, start + SEGMENT)
            gap, v, q, q2 = zero, zero, zero, zero
            for t in range(start - 1, stop):
                step, following = t >= start, t + 1 < stop
                if step:
                    to = (g * L + t) * size * W
                    ahead = t + SEGMENT  # for what comes a segment later
                    prefetch(u, place + ahead * per * W)
                    prefetch(dt, (record + ahead) * W)
                    prefetch(y, place + ahead * per * W)
                    if len(kept) > 0:
                        for i in range(size):
                            prefetch(kept, to + (SEGMENT * size + i) * W)
                        chunk = (g * ((L - 1) // SEGMENT + 1) + start // SEGMENT + 1) * n * PAIR
                        for i in range((t - start) * 2 * n // SEGMENT, (t - start + 1) * 2 * n // SEGMENT):
                            prefetch(stored, chunk + i * W)
                        store(q, kept, to)
                        if len(rank) == 2:
                            store(q2, kept, to + W)
                        for i in range(len(rank) ** 2):
                            store(load(scratch, solve + i * W), kept, to + (len(rank) + i) * W)
                renew, half, half_v = False, zero, zero
                next_gap, next_v = zero, zero
                if following:
                    renew = changed[record + t + 1] or t < 0
                    next_gap, next_v = load(dt, (record + t + 1) * W), load(u, place + (t + 1) * per * W)
                    half = 0.5 * next_gap
                    half_v = half * next_v
                s, s2, out_x, out_z = zero, zero, zero, zero
                g11, g12, g21, g22 = zero, zero, zero, zero
                for i in range(n):
                    at, m = own + i * fields, i * PAIR
                    x, z = load(scratch, states + m), load(scratch, states + m + W)
                    c, d = load(system, at + LAMBDA), load(system, at + LAMBDA + W)
                    b, w, p = load(system, at + B), load(system, at + B + W), load(system, at + P)
                    if step:
                        # x + Δ E (Λ x + B u - P q)
                        e, f = b * v - q * p, w * v
                        if len(rank) == 2:
                            e, f = e - q2 * load(system, at + P2), f - q2 * load(system, at + P2 + W)
                        e, f = e + c * x - d * z, f + c * z + d * x
                        e, f = _times(load(scratch, resolvent + m), load(scratch, resolvent + m + W), e, f)
                        x, z = x + gap * e, z + gap * f
                        out_x, out_z = out_x + load(system, at + C) * x, out_z + load(system, at + C + W) * z
                    else:
                        x, z = without_tiny(x, TINY), without_tiny(z, TINY)
                        if len(stored) > 0:
                            to = (g * ((L - 1) // SEGMENT + 1) + start // SEGMENT) * n * PAIR + m
                            store(x, stored, to)
                            store(z, stored, to + W)
                    store(x, scratch, states + m)
                    store(z, scratch, states + m + W)
                    if following:
                        if renew:
                            h, j = _resolvent(half, c, d)
                            store(h, scratch, resolvent + m)
                            store(j, scratch, resolvent + m + W)
                            g11 = g11 + h * (p * p)
                        else:
                            h, j = load(scratch, resolvent + m), load(scratch, resolvent + m + W)
                        x, z = x + b * half_v, z + w * half_v
                        if len(rank) == 1:
                            s = s + p * (h * x - j * z)
                        else:
                            x, z = _times(h, j, x, z)
                            e, f = load(system, at + P2), load(system, at + P2 + W)
                            s, s2 = s + p * x, s2 + e * x + f * z
                            if renew:
                                g22 = g22 + h * (e * e + f * f)
                                e, f = h * (p * e), j * (p * f)
                                g12, g21 = g12 + e - f, g21 + e + f
                if step:
                    store(out_x - out_z, y, place + t * per * W)
                if renew:
                    _solution(next_gap, g11, g12, g21, g22, rank, scratch, solve)
                gap, v, s, s2 = next_gap, next_v, 2.0 * s, 2.0 * s2
                q = load(scratch, solve) * s
                if len(rank) == 2:
                    q = q + load(scratch, solve + W) * s2
                    q2 = load(scratch, solve + 2 * W) * s + load(scratch, solve + 3 * W) * s2
        for i in range(2 * n):
            store(load(scratch, states + i * W), state, g * n * PAIR + i * W)


@helper()
def _repeat(
    start, steps, n, rank, size, per, u, place, dt, changed, record, system, own, kept, keep, stored, begin, grad_y,
    rows, stride, slopes, with_slopes, scratch, grad_system,
):  # fmt: skip
    """A segment's states again, pair after pair, now that P* of every midpoint is known: the midpoints, Δ E, what the
    read-out adds to the gradient in C, and at ``slopes``, if asked, E times the changes in the gaps.
    """
    fields = 3 * PAIR + len(rank) * PAIR
    for i in range(n):
        at, to, change = own + i * fields, rows + i * ROW, slopes + i * PAIR
        x, z = load(stored, begin + i * PAIR), load(stored, begin + i * PAIR + W)
        c, d, b, w = load(system, at), load(system, at + W), load(system, at + B), load(system, at + B + W)
        p = load(system, at + P)
        of_c, of_d = load(grad_system, at + C), load(grad_system, at + C + W)
        half, h, j, move, turn = x, x, z, x, z
        for t in range(start, start + steps):
            if changed[record + t] or t == start:
                gap = load(dt, (record + t) * W)
                half = 0.5 * gap
                h, j = _resolvent(half, c, d)
                move, turn = gap * h, gap * j
            store(move, scratch, to + STEP)
            store(turn, scratch, to + STEP + W)
            v, q = load(u, place + t * per * W), load(kept, keep + t * size * W)
            e, f = b * v - q * p, w * v
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
                e, f = _times(*_times(h, j, h, j), e, f)
                store(e, scratch, change)
                store(f, scratch, change + W)
            of_y = load(grad_y, place + t * per * W)
            of_c, of_d = of_c + of_y * x, of_d - of_y * z
            to += stride
            change += n * PAIR
        store(of_c, grad_system, at + C)
        store(of_d, grad_system, at + C + W)


@helper()
def _gather(start, steps, n, rank, size, per, u, place, own, kept, keep, rows, stride, adjoint, scratch, grad_system):
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
            x, z = load(scratch, to + MIDDLE), load(scratch, to + MIDDLE + W)
            g, h = load(scratch, to + STEP), load(scratch, to + STEP + W)
            to += stride
            v = load(u, place + t * per * W)
            of_b, of_w = of_b + v * g, of_w + v * h
            of_l, of_m = of_l + x * g + z * h, of_m + x * h - z * g
            q, p = load(kept, keep + t * size * W), load(scratch, adjoint + (t - start) * PAIR)
            of_p, of_k = of_p - q * g - p * x, of_k - q * h - p * z
            if len(rank) == 2:
                q, p = load(kept, keep + t * size * W + W), load(scratch, adjoint + (t - start) * PAIR + W)
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
    # Rows that lay a power of two apart would all want the same places of the first-level cache.
    stride = n * ROW + PAIR
    scratch = np.zeros(SEGMENT * stride + changes + n * PAIR + SEGMENT * PAIR + W + 16, u.dtype)
    rows = _aligned(scratch)
    slopes = rows + SEGMENT * stride
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
            _repeat(
                start, steps, n, rank, size, per, u, place, dt, changed, record, system, own, kept, keep, stored,
                (g * segments + segment) * n * PAIR, grad_y, rows, stride, slopes, with_slopes, scratch, grad_system,
            )  # fmt: skip
            # As on the way forth, a pass takes a step back and finds Δ P* E* g for the one before.
            p, p2 = zero, zero
            for t in range(start + steps, start - 1, -1):
                step, preceding = t < start + steps, t > start
                of_y = load(grad_y, place + (t - 1) * per * W) if preceding else zero
                if step:
                    # What this step of the next segment takes: segments follow each other against the order in memory.
                    ahead = t - SEGMENT
                    prefetch(u, place + ahead * per * W)
                    prefetch(grad_y, place + ahead * per * W)
                    for i in range(size):
                        prefetch(kept, keep + ahead * size * W + i * W)
                    chunk = (g * segments + segment - 1) * n * PAIR
                    for i in range((t - start) * 2 * n // SEGMENT, (t - start + 1) * 2 * n // SEGMENT):
                        prefetch(stored, chunk + i * W)
                s, s2, b_x, b_z, slope = zero, zero, zero, zero, zero
                row = rows + (t - start) * stride + STEP
                for i in range(n):
                    at, m, to = own + i * fields, of_state + i * PAIR, row + i * ROW
                    x, z = load(scratch, m), load(scratch, m + W)
                    real = load(system, at + P)
                    if step:
                        # At the midpoint μ = E* (g - h P p), of which Δ μ is kept; before it g + Δ (Λ* μ - P p).
                        e, f = p * real, zero
                        if len(rank) == 2:
                            e, f = e + p2 * load(system, at + P2), p2 * load(system, at + P2 + W)
                        c, d = x - 0.5 * e, z
                        x = x - e
                        if len(rank) == 2:
                            d = z - 0.5 * f
                            z = z - f
                        if with_slopes:
                            change = slopes + (t - start) * n * PAIR + i * PAIR
                            slope = slope + load(scratch, change) * c + load(scratch, change + W) * d
                        h, j = load(scratch, to), load(scratch, to + W)
                        c, d = h * c + j * d, h * d - j * c
                        store(c, scratch, to)
                        store(d, scratch, to + W)
                        b_x, b_z = b_x + load(system, at + B) * c, b_z + load(system, at + B + W) * d
                        h, j = load(system, at + LAMBDA), load(system, at + LAMBDA + W)
                        x, z = x + h * c + j * d, z + h * d - j * c
                    else:
                        x, z = without_tiny(x, TINY), without_tiny(z, TINY)
                    if preceding:
                        x, z = x + of_y * load(system, at + C), z - of_y * load(system, at + C + W)
                        h, j = load(scratch, to - stride), load(scratch, to - stride + W)
                        e = h * x + j * z
                        s = s + real * e
                        if len(rank) == 2:
                            f = h * z - j * x
                            s2 = s2 + load(system, at + P2) * e + load(system, at + P2 + W) * f
                    store(x, scratch, m)
                    store(z, scratch, m + W)
                if step:
                    store(b_x + b_z, grad_u, place + t * per * W)
                    if with_slopes:
                        store(slope, grad_dt, (g * L + t) * W)
                if preceding:
                    # Δ p
                    s, s2 = 2.0 * s, 2.0 * s2
                    solve = keep + (t - 1) * size * W + len(rank) * W
                    p = load(kept, solve) * s
                    if len(rank) == 2:
                        p = p + load(kept, solve + 2 * W) * s2
                        p2 = load(kept, solve + W) * s + load(kept, solve + 3 * W) * s2
                        store(p2, scratch, adjoint + (t - 1 - start) * PAIR + W)
                    store(p, scratch, adjoint + (t - 1 - start) * PAIR)
            _gather(
                start, steps, n, rank, size, per, u, place, own, kept, keep, rows, stride, adjoint, scratch, grad_system
            )
        for i in range(2 * n):
            store(load(scratch, of_state + i * W), grad_state, g * n * PAIR + i * W)
