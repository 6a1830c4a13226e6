"""The diagonal scan compiled: sixteen channels in a vector, the nodes in turn, their states in registers for a segment.

``G`` vectors of channels, ``per`` of them in a record. ``V`` have systems of their own: those of one record, if records
share them, or all. Flat arrays, time before channels:

    u, y        (records, L, per · lanes)
    dt          (records, L, lanes); its gradient (G, L, lanes)
    rate        (V, n, 3, lanes)     what a rule makes d = Ā - 1 of, see `_discretise`
    c, skip     (V, n, 2, lanes)     real and imaginary; (V, lanes). Gradients for each of G
    state       (G, n, 2, lanes)
    stored      (G, segments, n, 2, lanes)    the state at the beginning of each segment

``near`` (V, n / 4) says of four nodes whether all gaps are within reach of `expm1_near`; None outside of the zero-order
hold. ``dt`` is None where d is the same at every step. ``rule`` is None for the zero-order hold, else a number. The
compiler leaves out what an argument that is None rules out.
"""

import math

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.diagonal_scan.decay import expm1_complex, expm1_near
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import prefetch, store, without_tiny

SEGMENT = 32  # steps between two stored states; the reverse sweep computes one segment again at a time
UNROLLED = 4  # nodes are padded to a multiple of this
BILINEAR, LINEAR = 1, 2
W = WIDTH
PAIR, TRIPLE = 2 * W, 3 * W
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
LN2, TURN = math.log(2), 2 * math.pi


@helper()
def _discretise(gap, p, q, r, rule, near):
    """d = Ā - 1 for a gap. Zero-order hold: p, q and r are Re / ln 2, and Im / 2π in two parts; else p is Re, q Im."""
    if rule is None:
        if near:
            return expm1_near(gap, p, q, r)
        return expm1_complex(gap, p, q, r)
    if rule == BILINEAR:
        a, w = 0.5 * gap * p, 0.5 * gap * q
        away = 1.0 - a
        scale = gap / (away * away + w * w)
        return scale * (p * away - q * w), scale * q
    return gap * p, gap * q


@helper()
def _advance(x, z, d, e, u):
    """x + iz + (d + ie) (x + iz + u): one step of a node."""
    w = x + u  # meanwhile the other products are summed: a step waits for the one before
    return x - e * z + d * w, z + d * z + e * w


@helper()
def _aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % 16


@entry()
def forward(first, last, L, n, per, V, u, dt, rate, near, c, skip, state, y, stored, rule):
    """Of the vectors first..last−1: writes y, and leaves the final state in ``state``; ``stored`` may be empty."""
    # Inputs and outputs of a segment side by side: a record's own lie as far apart as it has channels.
    scratch = np.empty(2 * SEGMENT * W + 16, u.dtype)
    inputs = _aligned(scratch)
    outputs = inputs + SEGMENT * W
    for g in range(first, last):
        direct = load(skip, (g % V) * W)
        own, gaps = (g // per) * L * per * W + (g % per) * W, (g // per) * L * W
        for start in range(0, L, SEGMENT):
            stop = min(L, start + SEGMENT)
            for t in range(start, stop):
                v, at = load(u, own + t * per * W), (t - start) * W
                store(v, scratch, inputs + at)
                store(direct * v, scratch, outputs + at)
            for i in range(0, n, UNROLLED):
                k, j, m = (g * n + i) * PAIR, ((g % V) * n + i) * PAIR, ((g % V) * n + i) * TRIPLE
                x0, z0 = without_tiny(load(state, k), TINY), without_tiny(load(state, k + W), TINY)
                x1, z1 = without_tiny(load(state, k + 2 * W), TINY), without_tiny(load(state, k + 3 * W), TINY)
                x2, z2 = without_tiny(load(state, k + 4 * W), TINY), without_tiny(load(state, k + 5 * W), TINY)
                x3, z3 = without_tiny(load(state, k + 6 * W), TINY), without_tiny(load(state, k + 7 * W), TINY)
                if len(stored) > 0:
                    s = ((g * ((L - 1) // SEGMENT + 1) + start // SEGMENT) * n + i) * PAIR
                    store(x0, stored, s)
                    store(z0, stored, s + W)
                    store(x1, stored, s + 2 * W)
                    store(z1, stored, s + 3 * W)
                    store(x2, stored, s + 4 * W)
                    store(z2, stored, s + 5 * W)
                    store(x3, stored, s + 6 * W)
                    store(z3, stored, s + 7 * W)
                p0, q0, r0 = load(rate, m), load(rate, m + W), load(rate, m + 2 * W)
                p1, q1, r1 = load(rate, m + 3 * W), load(rate, m + 4 * W), load(rate, m + 5 * W)
                p2, q2, r2 = load(rate, m + 6 * W), load(rate, m + 7 * W), load(rate, m + 8 * W)
                p3, q3, r3 = load(rate, m + 9 * W), load(rate, m + 10 * W), load(rate, m + 11 * W)
                within = near is not None and near[((g % V) * n + i) // UNROLLED]
                for t in range(start, stop):
                    at = (t - start) * W
                    v = load(scratch, inputs + at)
                    if dt is None:
                        x0, z0 = _advance(x0, z0, p0, q0, v)
                        x1, z1 = _advance(x1, z1, p1, q1, v)
                        x2, z2 = _advance(x2, z2, p2, q2, v)
                        x3, z3 = _advance(x3, z3, p3, q3, v)
                    else:
                        gap = load(dt, gaps + t * W)
                        d, e = _discretise(gap, p0, q0, r0, rule, within)
                        x0, z0 = _advance(x0, z0, d, e, v)
                        d, e = _discretise(gap, p1, q1, r1, rule, within)
                        x1, z1 = _advance(x1, z1, d, e, v)
                        d, e = _discretise(gap, p2, q2, r2, rule, within)
                        x2, z2 = _advance(x2, z2, d, e, v)
                        d, e = _discretise(gap, p3, q3, r3, rule, within)
                        x3, z3 = _advance(x3, z3, d, e, v)
                    one = load(c, j) * x0 - load(c, j + W) * z0 + load(c, j + 2 * W) * x1 - load(c, j + 3 * W) * z1
                    two = load(c, j + 4 * W) * x2 - load(c, j + 5 * W) * z2
                    two = two + load(c, j + 6 * W) * x3 - load(c, j + 7 * W) * z3
                    store(load(scratch, outputs + at) + (one + two), scratch, outputs + at)
                store(x0, state, k)
                store(z0, state, k + W)
                store(x1, state, k + 2 * W)
                store(z1, state, k + 3 * W)
                store(x2, state, k + 4 * W)
                store(z2, state, k + 5 * W)
                store(x3, state, k + 6 * W)
                store(z3, state, k + 7 * W)
            for t in range(start, stop):
                store(load(scratch, outputs + (t - start) * W), y, own + t * per * W)


@helper()
def _retreat(grad_y, after_x, after_z, d, e, c, f, g, h, of_c, of_f):
    """One step of the reverse sweep for one node: from the gradient g + ih in the state after to that before.

    Returns it, what it adds to the gradient in u, the gradient in the state after with that of the read-out c + if, and
    the sums of the gradient in c + if.
    """
    g, h = g + grad_y * c, h - grad_y * f
    through = g * d + h * e
    before = g + through, h - g * e + h * d
    return before, through, (g, h), (of_c + grad_y * after_x, of_f - grad_y * after_z)


@helper()
def _against(g, h, w, z):
    """(g + ih) times the conjugate of w + iz."""
    return g * w + h * z, h * w - g * z


@helper()
def _chain(of_d, of_e, d, e, rule):
    """The gradient in z = Δ · rate from that in d: times the conjugate of dd/dz, 1 + d, (1 + d/2)² or 1."""
    if rule is None:
        p, q = 1.0 + d, e
    elif rule == BILINEAR:
        a, b = 1.0 + 0.5 * d, 0.5 * e
        p, q = a * a - b * b, 2.0 * (a * b)
    else:
        return of_d, of_e
    return of_d * p + of_e * q, of_e * p - of_d * q


@entry()
def backward(
    first, last, L, n, per, V, u, dt, rate, near, c, skip, stored, grad_y,
    grad_state, grad_u, grad_dt, grad_rate, grad_c, grad_skip, rule,
):  # fmt: skip
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial
    one. ``grad_rate`` (G, n, 2, lanes) is that in Re and Im of the rate, or of d where ``dt`` is None; it, ``grad_c``
    and ``grad_skip`` come as zeros. ``grad_dt`` may be empty.
    """
    segments = (L - 1) // SEGMENT + 1
    # Of a segment: u, the gradients in y and u, and for two nodes the states and, with ``dt``, d.
    scratch = np.empty(11 * SEGMENT * W + 16, u.dtype)
    inputs = _aligned(scratch)
    backs, outputs = inputs + SEGMENT * W, inputs + 2 * SEGMENT * W
    states, decays = inputs + 3 * SEGMENT * W, inputs + 7 * SEGMENT * W
    for g in range(first, last):
        direct, of_direct = load(skip, (g % V) * W), load(grad_skip, g * W)
        own, gaps = (g // per) * L * per * W + (g % per) * W, (g // per) * L * W
        for segment in range(segments - 1, -1, -1):
            start = segment * SEGMENT
            stop = min(L, start + SEGMENT)
            for t in range(start, stop):
                v, back, at = load(u, own + t * per * W), load(grad_y, own + t * per * W), (t - start) * W
                # What the next segment takes: segments follow each other against the order in memory.
                prefetch(u, own + (t - SEGMENT) * per * W)
                prefetch(grad_y, own + (t - SEGMENT) * per * W)
                of_direct = of_direct + back * v
                store(v, scratch, inputs + at)
                store(back, scratch, backs + at)
                store(direct * back, scratch, outputs + at)
            for i in range(0, n, 2):
                k, s = (g * n + i) * PAIR, ((g * segments + segment) * n + i) * PAIR
                j, m = ((g % V) * n + i) * PAIR, ((g % V) * n + i) * TRIPLE
                p0, q0, r0 = load(rate, m), load(rate, m + W), load(rate, m + 2 * W)
                p1, q1, r1 = load(rate, m + 3 * W), load(rate, m + 4 * W), load(rate, m + 5 * W)
                x0, z0, x1, z1 = load(stored, s), load(stored, s + W), load(stored, s + 2 * W), load(stored, s + 3 * W)
                for ahead in range(s - n * PAIR, s - (n - 2) * PAIR, W):
                    prefetch(stored, ahead)
                within = near is not None and near[((g % V) * n + i) // UNROLLED]
                for t in range(start, stop):
                    a, b = states + (t - start) * 4 * W, decays + (t - start) * 4 * W
                    store(x0, scratch, a)
                    store(z0, scratch, a + W)
                    store(x1, scratch, a + 2 * W)
                    store(z1, scratch, a + 3 * W)
                    v = load(scratch, inputs + (t - start) * W)
                    if dt is None:
                        x0, z0 = _advance(x0, z0, p0, q0, v)
                        x1, z1 = _advance(x1, z1, p1, q1, v)
                    else:
                        gap = load(dt, gaps + t * W)
                        d0, e0 = _discretise(gap, p0, q0, r0, rule, within)
                        d1, e1 = _discretise(gap, p1, q1, r1, rule, within)
                        store(d0, scratch, b)
                        store(e0, scratch, b + W)
                        store(d1, scratch, b + 2 * W)
                        store(e1, scratch, b + 3 * W)
                        x0, z0 = _advance(x0, z0, d0, e0, v)
                        x1, z1 = _advance(x1, z1, d1, e1, v)
                c0, f0, c1, f1 = load(c, j), load(c, j + W), load(c, j + 2 * W), load(c, j + 3 * W)
                g0, h0 = load(grad_state, k), load(grad_state, k + W)
                g1, h1 = load(grad_state, k + 2 * W), load(grad_state, k + 3 * W)
                of_c0, of_f0 = load(grad_c, k), load(grad_c, k + W)
                of_c1, of_f1 = load(grad_c, k + 2 * W), load(grad_c, k + 3 * W)
                of_p0, of_q0 = load(grad_rate, k), load(grad_rate, k + W)
                of_p1, of_q1 = load(grad_rate, k + 2 * W), load(grad_rate, k + 3 * W)
                for t in range(stop - 1, start - 1, -1):
                    at, a, b = (t - start) * W, states + (t - start) * 4 * W, decays + (t - start) * 4 * W
                    v, back = load(scratch, inputs + at), load(scratch, backs + at)
                    after = x0, z0, x1, z1
                    x0, z0, x1, z1 = (
                        load(scratch, a), load(scratch, a + W), load(scratch, a + 2 * W), load(scratch, a + 3 * W),
                    )  # fmt: skip
                    if dt is None:
                        d0, e0, d1, e1 = p0, q0, p1, q1
                    else:
                        d0, e0, d1, e1 = (
                            load(scratch, b), load(scratch, b + W), load(scratch, b + 2 * W), load(scratch, b + 3 * W),
                        )  # fmt: skip
                    (g0, h0), through0, whole0, (of_c0, of_f0) = _retreat(
                        back, after[0], after[1], d0, e0, c0, f0, g0, h0, of_c0, of_f0
                    )
                    (g1, h1), through1, whole1, (of_c1, of_f1) = _retreat(
                        back, after[2], after[3], d1, e1, c1, f1, g1, h1, of_c1, of_f1
                    )
                    store(load(scratch, outputs + at) + (through0 + through1), scratch, outputs + at)
                    if dt is None:
                        of_d0, of_e0 = _against(*whole0, x0 + v, z0)
                        of_d1, of_e1 = _against(*whole1, x1 + v, z1)
                        of_p0, of_q0, of_p1, of_q1 = of_p0 + of_d0, of_q0 + of_e0, of_p1 + of_d1, of_q1 + of_e1
                    else:
                        gap = load(dt, gaps + t * W)
                        if rule is None and within:
                            # (x + u) (1 + d) is the state after + u; of a state that has died away that would be lost.
                            of_d0, of_e0 = _against(*whole0, after[0] + v, after[1])
                            of_d1, of_e1 = _against(*whole1, after[2] + v, after[3])
                        else:
                            of_d0, of_e0 = _chain(*_against(*whole0, x0 + v, z0), d0, e0, rule)
                            of_d1, of_e1 = _chain(*_against(*whole1, x1 + v, z1), d1, e1, rule)
                        of_p0, of_q0 = of_p0 + gap * of_d0, of_q0 + gap * of_e0
                        of_p1, of_q1 = of_p1 + gap * of_d1, of_q1 + gap * of_e1
                        if len(grad_dt) > 0:
                            if rule is None:
                                real = LN2 * (p0 * of_d0 + p1 * of_d1)
                                imag = TURN * ((q0 + r0) * of_e0 + (q1 + r1) * of_e1)
                            else:
                                real, imag = p0 * of_d0 + p1 * of_d1, q0 * of_e0 + q1 * of_e1
                            at = (g * L + t) * W
                            store(load(grad_dt, at) + (real + imag), grad_dt, at)
                store(g0, grad_state, k)
                store(h0, grad_state, k + W)
                store(g1, grad_state, k + 2 * W)
                store(h1, grad_state, k + 3 * W)
                store(of_c0, grad_c, k)
                store(of_f0, grad_c, k + W)
                store(of_c1, grad_c, k + 2 * W)
                store(of_f1, grad_c, k + 3 * W)
                store(of_p0, grad_rate, k)
                store(of_q0, grad_rate, k + W)
                store(of_p1, grad_rate, k + 2 * W)
                store(of_q1, grad_rate, k + 3 * W)
            for t in range(start, stop):
                store(load(scratch, outputs + (t - start) * W), grad_u, own + t * per * W)
        store(of_direct, grad_skip, g * W)
