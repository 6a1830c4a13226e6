"""The recurrence compiled: sixteen channels in a vector, eight of their states in registers, segment by segment.

A group's channels (head, p) stand side by side, filled up to ``V`` vectors; its states are filled up to ``N``, a
multiple of eight. Backwards four states of two vectors share a register's room: gradients in B and C are sums over all
channels, and what waits for them is loaded and stored half as often. A task is one of ``parts`` of the vectors of one
group of one record. Flat arrays, time first:

    x               (records, L, ·)             channels of all groups; a step has ``row_x`` numbers
    y, gradients    (records, L, G · V · lanes)
    step, decay     (records, L, H)             Δ and Ā - 1
    B, C            (records, L, ·)             (G, N); a step has ``row_b`` or ``row_c`` numbers
    skip            (G · V · lanes)
    head            (G · V · lanes)             the head of each lane
    state           (records, G, V, N, lanes)
    stored          (records, G, V, segments, N, lanes)    the state at the beginning of each segment

``whole``: all lanes of every vector are of one head.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import nothing, spreading, store, total, totals, without_tiny

SEGMENT = 16  # steps between two stored states; the reverse sweep computes one segment again at a time
TILE, BLOCK = 8, 4  # states of a vector at a time, forth and, of two vectors, back
W = WIDTH
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
spread = spreading(W, W)


@helper()
def _aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % 16


@entry()
def forward(
    first, last, L, heads, G, V, N, parts, whole, x, row_x, step, decay, B, row_b, C, row_c, skip, head, state, y,
    stored,
):  # fmt: skip
    """Writes y, and leaves the final state in ``state``; ``stored`` may be empty."""
    segments = (L - 1) // SEGMENT + 1
    # Of a segment: decays, inputs times steps, outputs.
    scratch = np.empty(3 * SEGMENT * W + 16, x.dtype)
    decays = _aligned(scratch)
    inputs, outputs = decays + SEGMENT * W, decays + 2 * SEGMENT * W
    for task in range(first, last):
        record, g, part = task // (G * parts), task // parts % G, task % parts
        for start in range(0, L, SEGMENT):
            stop = min(L, start + SEGMENT)
            for v in range(V * part // parts, V * (part + 1) // parts):
                lanes = (g * V + v) * W
                direct, own = load(skip, lanes), head[lanes]
                for t in range(start, stop):
                    row, at = record * L + t, (t - start) * W
                    u = load(x, row * row_x + lanes)
                    store(direct * u, scratch, outputs + at)
                    if whole:
                        store(spread(decay, row * heads + own), scratch, decays + at)
                        store(spread(step, row * heads + own) * u, scratch, inputs + at)
                    else:
                        for i in range(W):
                            scratch[decays + at + i] = decay[row * heads + head[lanes + i]]
                            scratch[inputs + at + i] = step[row * heads + head[lanes + i]]
                        store(load(scratch, inputs + at) * u, scratch, inputs + at)
                for n in range(0, N, TILE):
                    k = (((record * G + g) * V + v) * N + n) * W
                    h0, h1 = without_tiny(load(state, k), TINY), without_tiny(load(state, k + W), TINY)
                    h2, h3 = without_tiny(load(state, k + 2 * W), TINY), without_tiny(load(state, k + 3 * W), TINY)
                    h4, h5 = without_tiny(load(state, k + 4 * W), TINY), without_tiny(load(state, k + 5 * W), TINY)
                    h6, h7 = without_tiny(load(state, k + 6 * W), TINY), without_tiny(load(state, k + 7 * W), TINY)
                    if len(stored) > 0:
                        s = ((((record * G + g) * V + v) * segments + start // SEGMENT) * N + n) * W
                        store(h0, stored, s)
                        store(h1, stored, s + W)
                        store(h2, stored, s + 2 * W)
                        store(h3, stored, s + 3 * W)
                        store(h4, stored, s + 4 * W)
                        store(h5, stored, s + 5 * W)
                        store(h6, stored, s + 6 * W)
                        store(h7, stored, s + 7 * W)
                    for t in range(start, stop):
                        at = (t - start) * W
                        b, c = (record * L + t) * row_b + g * N + n, (record * L + t) * row_c + g * N + n
                        d, u = load(scratch, decays + at), load(scratch, inputs + at)
                        h0 = h0 + d * h0 + u * spread(B, b)
                        h1 = h1 + d * h1 + u * spread(B, b + 1)
                        h2 = h2 + d * h2 + u * spread(B, b + 2)
                        h3 = h3 + d * h3 + u * spread(B, b + 3)
                        h4 = h4 + d * h4 + u * spread(B, b + 4)
                        h5 = h5 + d * h5 + u * spread(B, b + 5)
                        h6 = h6 + d * h6 + u * spread(B, b + 6)
                        h7 = h7 + d * h7 + u * spread(B, b + 7)
                        one = h0 * spread(C, c) + h1 * spread(C, c + 1) + h2 * spread(C, c + 2) + h3 * spread(C, c + 3)
                        two = h4 * spread(C, c + 4) + h5 * spread(C, c + 5)
                        two = two + h6 * spread(C, c + 6) + h7 * spread(C, c + 7)
                        store(load(scratch, outputs + at) + (one + two), scratch, outputs + at)
                    store(h0, state, k)
                    store(h1, state, k + W)
                    store(h2, state, k + 2 * W)
                    store(h3, state, k + 3 * W)
                    store(h4, state, k + 4 * W)
                    store(h5, state, k + 5 * W)
                    store(h6, state, k + 6 * W)
                    store(h7, state, k + 7 * W)
                for t in range(start, stop):
                    store(load(scratch, outputs + (t - start) * W), y, (record * L + t) * G * V * W + lanes)


@helper()
def _four(x, at):
    return load(x, at), load(x, at + W), load(x, at + 2 * W), load(x, at + 3 * W)


@helper()
def _sixteen(x, at):
    return (
        load(x, at), load(x, at + W), load(x, at + 2 * W), load(x, at + 3 * W), load(x, at + 4 * W),
        load(x, at + 5 * W), load(x, at + 6 * W), load(x, at + 7 * W), load(x, at + 8 * W), load(x, at + 9 * W),
        load(x, at + 10 * W), load(x, at + 11 * W), load(x, at + 12 * W), load(x, at + 13 * W),
        load(x, at + 14 * W), load(x, at + 15 * W),
    )  # fmt: skip


@entry()
def backward(
    first, last, L, heads, G, V, N, parts, whole, x, row_x, step, decay, B, row_b, C, row_c, skip, head, stored, grad_y,
    grad_state, grad_x, grad_step, grad_decay, grad_B, grad_C, grad_skip,
):  # fmt: skip
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial
    one. ``grad_step``, ``grad_decay`` (parts, records, L, H) and ``grad_skip`` (records, G · V · lanes) come as zeros;
    ``grad_B`` and ``grad_C`` are (parts, records, L, G, N).
    """
    segments = (L - 1) // SEGMENT + 1
    S = SEGMENT * W
    most = (V - 1) // parts + 1
    # Of a segment: for each vector its decays, steps, inputs times steps, and the gradients in decays and inputs; for
    # four states of two vectors those before each step, and the gradients in B and C, yet to be summed over the lanes.
    scratch = np.empty((5 * most + 2 * TILE) * S + 16, x.dtype)
    decays = _aligned(scratch)
    steps, inputs = decays + most * S, decays + 2 * most * S
    of_decays, of_inputs = decays + 3 * most * S, decays + 4 * most * S
    states = decays + 5 * most * S
    of_B = states + TILE * S
    of_C = of_B + BLOCK * S
    records = len(step) // (L * heads)
    for task in range(first, last):
        record, g, part = task // (G * parts), task // parts % G, task % parts
        begin, end = V * part // parts, V * (part + 1) // parts
        for segment in range(segments - 1, -1, -1):
            start = segment * SEGMENT
            stop = min(L, start + SEGMENT)
            for v in range(begin, end):
                lanes = (g * V + v) * W
                own = head[lanes]
                for t in range(start, stop):
                    row, at = record * L + t, (v - begin) * S + (t - start) * W
                    u = load(x, row * row_x + lanes)
                    if whole:
                        store(spread(decay, row * heads + own), scratch, decays + at)
                        store(spread(step, row * heads + own), scratch, steps + at)
                    else:
                        for i in range(W):
                            scratch[decays + at + i] = decay[row * heads + head[lanes + i]]
                            scratch[steps + at + i] = step[row * heads + head[lanes + i]]
                    store(load(scratch, steps + at) * u, scratch, inputs + at)
                    store(nothing(u), scratch, of_decays + at)
                    store(nothing(u), scratch, of_inputs + at)
            for n in range(0, N, BLOCK):
                for i in range(BLOCK * SEGMENT):
                    store(nothing(load(x, 0)), scratch, of_B + i * W)
                    store(nothing(load(x, 0)), scratch, of_C + i * W)
                for v in range(begin, end, 2):
                    # Two vectors at a time, h and g of the one, i and f of the other; of an odd number the last one is
                    # taken twice, the second time without gradient.
                    other, both = min(v + 1, end - 1), 1.0 if v + 1 < end else 0.0
                    lanes, lanes2 = (g * V + v) * W, (g * V + other) * W
                    k, k2 = ((record * G * V * W + lanes) * N + n * W), ((record * G * V * W + lanes2) * N + n * W)
                    s = ((((record * G + g) * V + v) * segments + segment) * N + n) * W
                    s2 = ((((record * G + g) * V + other) * segments + segment) * N + n) * W
                    h0, h1, h2, h3 = _four(stored, s)
                    i0, i1, i2, i3 = _four(stored, s2)
                    for t in range(start, stop):
                        at, j = (v - begin) * S + (t - start) * W, states + (t - start) * 2 * BLOCK * W
                        at2 = (other - begin) * S + (t - start) * W
                        store(h0, scratch, j)
                        store(h1, scratch, j + W)
                        store(h2, scratch, j + 2 * W)
                        store(h3, scratch, j + 3 * W)
                        store(i0, scratch, j + 4 * W)
                        store(i1, scratch, j + 5 * W)
                        store(i2, scratch, j + 6 * W)
                        store(i3, scratch, j + 7 * W)
                        b = (record * L + t) * row_b + g * N + n
                        d, u = load(scratch, decays + at), load(scratch, inputs + at)
                        e, w = load(scratch, decays + at2), load(scratch, inputs + at2)
                        h0, i0 = h0 + d * h0 + u * spread(B, b), i0 + e * i0 + w * spread(B, b)
                        h1, i1 = h1 + d * h1 + u * spread(B, b + 1), i1 + e * i1 + w * spread(B, b + 1)
                        h2, i2 = h2 + d * h2 + u * spread(B, b + 2), i2 + e * i2 + w * spread(B, b + 2)
                        h3, i3 = h3 + d * h3 + u * spread(B, b + 3), i3 + e * i3 + w * spread(B, b + 3)
                    g0, g1, g2, g3 = _four(grad_state, k)
                    f0, f1, f2, f3 = _four(grad_state, k2)
                    g0, g1, g2, g3 = (
                        without_tiny(g0, TINY), without_tiny(g1, TINY), without_tiny(g2, TINY), without_tiny(g3, TINY)
                    )  # fmt: skip
                    f0, f1 = both * without_tiny(f0, TINY), both * without_tiny(f1, TINY)
                    f2, f3 = both * without_tiny(f2, TINY), both * without_tiny(f3, TINY)
                    for t in range(stop - 1, start - 1, -1):
                        at, j = (v - begin) * S + (t - start) * W, states + (t - start) * 2 * BLOCK * W
                        at2, i = (other - begin) * S + (t - start) * W, (t - start) * BLOCK * W
                        b, c = (record * L + t) * row_b + g * N + n, (record * L + t) * row_c + g * N + n
                        d, u = load(scratch, decays + at), load(scratch, inputs + at)
                        e, w = load(scratch, decays + at2), load(scratch, inputs + at2)
                        row = (record * L + t) * G * V * W
                        back, back2 = load(grad_y, row + lanes), both * load(grad_y, row + lanes2)
                        store(load(scratch, of_C + i) + h0 * back + i0 * back2, scratch, of_C + i)
                        store(load(scratch, of_C + i + W) + h1 * back + i1 * back2, scratch, of_C + i + W)
                        store(load(scratch, of_C + i + 2 * W) + h2 * back + i2 * back2, scratch, of_C + i + 2 * W)
                        store(load(scratch, of_C + i + 3 * W) + h3 * back + i3 * back2, scratch, of_C + i + 3 * W)
                        g0, f0 = g0 + back * spread(C, c), f0 + back2 * spread(C, c)
                        g1, f1 = g1 + back * spread(C, c + 1), f1 + back2 * spread(C, c + 1)
                        g2, f2 = g2 + back * spread(C, c + 2), f2 + back2 * spread(C, c + 2)
                        g3, f3 = g3 + back * spread(C, c + 3), f3 + back2 * spread(C, c + 3)
                        store(load(scratch, of_B + i) + g0 * u + f0 * w, scratch, of_B + i)
                        store(load(scratch, of_B + i + W) + g1 * u + f1 * w, scratch, of_B + i + W)
                        store(load(scratch, of_B + i + 2 * W) + g2 * u + f2 * w, scratch, of_B + i + 2 * W)
                        store(load(scratch, of_B + i + 3 * W) + g3 * u + f3 * w, scratch, of_B + i + 3 * W)
                        one = g0 * spread(B, b) + g1 * spread(B, b + 1) + g2 * spread(B, b + 2) + g3 * spread(B, b + 3)
                        two = f0 * spread(B, b) + f1 * spread(B, b + 1) + f2 * spread(B, b + 2) + f3 * spread(B, b + 3)
                        store(load(scratch, of_inputs + at) + one, scratch, of_inputs + at)
                        store(load(scratch, of_inputs + at2) + two, scratch, of_inputs + at2)
                        h0, h1, h2, h3 = _four(scratch, j)
                        i0, i1, i2, i3 = _four(scratch, j + 4 * W)
                        one, two = g0 * h0 + g1 * h1 + g2 * h2 + g3 * h3, f0 * i0 + f1 * i1 + f2 * i2 + f3 * i3
                        store(load(scratch, of_decays + at) + one, scratch, of_decays + at)
                        store(load(scratch, of_decays + at2) + two, scratch, of_decays + at2)
                        g0, g1, g2, g3 = g0 + d * g0, g1 + d * g1, g2 + d * g2, g3 + d * g3
                        f0, f1, f2, f3 = f0 + e * f0, f1 + e * f1, f2 + e * f2, f3 + e * f3
                    store(f0, grad_state, k2)
                    store(f1, grad_state, k2 + W)
                    store(f2, grad_state, k2 + 2 * W)
                    store(f3, grad_state, k2 + 3 * W)
                    store(g0, grad_state, k)
                    store(g1, grad_state, k + W)
                    store(g2, grad_state, k + 2 * W)
                    store(g3, grad_state, k + 3 * W)
                for t in range(start, stop, 4):
                    # Four steps fill the sixteen rows.
                    i = (t - start) * BLOCK * W
                    store(totals(_sixteen(scratch, of_B + i)), scratch, states)
                    store(totals(_sixteen(scratch, of_C + i)), scratch, states + W)
                    for later in range(min(4, stop - t)):
                        j = (((part * records + record) * L + t + later) * G + g) * N + n
                        for m in range(BLOCK):
                            grad_B[j + m] = scratch[states + later * BLOCK + m]
                            grad_C[j + m] = scratch[states + W + later * BLOCK + m]
            for v in range(begin, end):
                lanes = (g * V + v) * W
                direct = load(skip, lanes)
                of_direct = load(grad_skip, record * G * V * W + lanes)
                for t in range(start, stop):
                    row, at = record * L + t, (v - begin) * S + (t - start) * W
                    u, back = load(x, row * row_x + lanes), load(grad_y, row * G * V * W + lanes)
                    of_u = load(scratch, of_inputs + at)
                    store(load(scratch, steps + at) * of_u + direct * back, grad_x, row * G * V * W + lanes)
                    of_direct = of_direct + u * back
                    own = ((part * records + record) * L + t) * heads
                    if whole:
                        own = own + head[lanes]
                        grad_step[own] += total(of_u * u)
                        grad_decay[own] += total(load(scratch, of_decays + at))
                    else:
                        store(of_u * u, scratch, of_inputs + at)
                        for i in range(W):
                            grad_step[own + head[lanes + i]] += scratch[of_inputs + at + i]
                            grad_decay[own + head[lanes + i]] += scratch[of_decays + at + i]
                store(of_direct, grad_skip, record * G * V * W + lanes)
