"""The exact gradient of one long record of three states or more: the way back over eight stretches side by side.

The way there leaves the moments before every chunk of steps; each chunk is filtered once more and swept back while it
is in a cache. The adjoints with which a stretch ends are what comes back from the record after it, and are forgotten as
the moments with which it began: a sweep from zero, some chunks further on, finds them. Where they do not agree with
those that the next stretch ends its way back with, nothing is taken.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from statespace.kernels.intrinsics import address_of
from statespace.kernels.kalman_filter.compiled import NO, ONE, YES, entry, helper, shared
from statespace.kernels.kalman_filter.forward import forward_start
from statespace.kernels.kalman_filter.gradient import gradient_start
from statespace.kernels.kalman_filter.lane_transitions import STEPS, contract_lanes
from statespace.kernels.kalman_filter.record import TILES, State, borrowed_room
from statespace.kernels.kalman_filter.stretches import (
    LOOK,
    NO_WAY,
    Way,
    advance,
    copy_part,
    filter_stretches,
    lanes_for,
    parts_for,
    places,
    run,
    stretch_of,
    suits,
)
from statespace.kernels.kalman_filter.transposition import WIDTH, aligned, hand_out, load, splat
from statespace.kernels.kalman_filter.vector_blocks import add
from statespace.kernels.vectors import store

# samples in which a diffuse start must be resolved
HEAD = 256
# chunks more than the moments needed to be forgotten, and how far adjoints may differ that agree
MORE, AGREED = 2, 1e-10


class Back(NamedTuple):
    """Room for the way back, in vectors: P̄ and ā, those before, Ā and Q̄ of each slot, k, P̄ k, m̄, and sums.

    ``sums``: ∂ℓ/∂R, ∂ℓ/∂h, and three for each block.
    """

    adjoints: np.ndarray
    begun: np.ndarray
    A_bar: np.ndarray
    Q_bar: np.ndarray
    k: np.ndarray
    w: np.ndarray
    x: np.ndarray
    sums: np.ndarray


@lru_cache(maxsize=2)
def back_for(blocks, parameters):
    s = 2 * blocks
    moments = s + 2 * blocks * (blocks + 1) - blocks
    slots = STEPS * 4 * blocks
    way = Way(*(aligned(size * WIDTH) for size in ((STEPS + 1) * moments, STEPS * s, STEPS, STEPS)))
    sizes = (moments, moments, slots, slots, s, s, s, 1 + s + 3 * parameters)
    return way, Back(*(aligned(size * WIDTH) for size in sizes))


@helper()
def product_of(blocks, S, q, x, w):
    """w = S x, S in tiles from ``q`` on."""
    for j in range(0, 2 * blocks * WIDTH, WIDTH):
        store(splat(0.0), w, j)
    for b in range(blocks):
        i = 2 * b * WIDTH
        x0 = load(x, i)
        x1 = load(x, i + WIDTH)
        s01 = load(S, q + WIDTH)
        w0 = load(w, i) + (load(S, q) * x0 + s01 * x1)
        w1 = load(w, i + WIDTH) + (s01 * x0 + load(S, q + 2 * WIDTH) * x1)
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            y0 = load(x, j)
            y1 = load(x, j + WIDTH)
            s00 = load(S, q)
            s01 = load(S, q + WIDTH)
            s10 = load(S, q + 2 * WIDTH)
            s11 = load(S, q + 3 * WIDTH)
            w0 = w0 + (s00 * y0 + s01 * y1)
            w1 = w1 + (s10 * y0 + s11 * y1)
            store(load(w, j) + (s00 * x0 + s10 * x1), w, j)
            store(load(w, j + WIDTH) + (s01 * x0 + s11 * x1), w, j + WIDTH)
            q += 4 * WIDTH
        store(w0, w, i)
        store(w1, w, i + WIDTH)


@helper()
def retreat_lanes(blocks, some, V, P, A, a, F, f, A_bar, Q_bar):
    """Over a transition from the filtered moments in ``F`` from ``f`` on: see ``tiles.retreat_tiles``.

    ``P``: where P and P̄ stand after a and ā.
    """
    q = P
    for b in range(blocks):
        i = 2 * b * WIDTH
        at = a + 2 * i
        a00 = load(A, at)
        a01 = load(A, at + WIDTH)
        a10 = load(A, at + 2 * WIDTH)
        a11 = load(A, at + 3 * WIDTH)
        s00 = load(V, q)
        s01 = load(V, q + WIDTH)
        s11 = load(V, q + 2 * WIDTH)
        add(s00, Q_bar, at)
        add(s01, Q_bar, at + WIDTH)
        add(s11, Q_bar, at + 3 * WIDTH)
        w00 = s00 * a00 + s01 * a10
        w01 = s00 * a01 + s01 * a11
        w10 = s01 * a00 + s11 * a10
        w11 = s01 * a01 + s11 * a11
        store(a00 * w00 + a10 * w10, V, q)
        store(a00 * w01 + a10 * w11, V, q + WIDTH)
        store(a01 * w01 + a11 * w11, V, q + 2 * WIDTH)
        g0 = load(V, i)
        g1 = load(V, i + WIDTH)
        store(a00 * g0 + a10 * g1, V, i)
        store(a01 * g0 + a11 * g1, V, i + WIDTH)
        f00 = load(F, f + q)
        f01 = load(F, f + q + WIDTH)
        f11 = load(F, f + q + 2 * WIDTH)
        t00 = w00 * f00 + w01 * f01
        t01 = w00 * f01 + w01 * f11
        t10 = w10 * f00 + w11 * f01
        t11 = w10 * f01 + w11 * f11
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            to = a + 2 * j
            c00 = load(A, to)
            c01 = load(A, to + WIDTH)
            c10 = load(A, to + 2 * WIDTH)
            c11 = load(A, to + 3 * WIDTH)
            s00 = load(V, q)
            s01 = load(V, q + WIDTH)
            s10 = load(V, q + 2 * WIDTH)
            s11 = load(V, q + 3 * WIDTH)
            # P̄_IJ A_J
            w00 = s00 * c00 + s01 * c10
            w01 = s00 * c01 + s01 * c11
            w10 = s10 * c00 + s11 * c10
            w11 = s10 * c01 + s11 * c11
            store(a00 * w00 + a10 * w10, V, q)
            store(a00 * w01 + a10 * w11, V, q + WIDTH)
            store(a01 * w00 + a11 * w10, V, q + 2 * WIDTH)
            store(a01 * w01 + a11 * w11, V, q + 3 * WIDTH)
            if some:
                f00 = load(F, f + q)
                f01 = load(F, f + q + WIDTH)
                f10 = load(F, f + q + 2 * WIDTH)
                f11 = load(F, f + q + 3 * WIDTH)
                # (P̄_IJ A_J) P_JI
                t00 = t00 + (w00 * f00 + w01 * f01)
                t01 = t01 + (w00 * f10 + w01 * f11)
                t10 = t10 + (w10 * f00 + w11 * f01)
                t11 = t11 + (w10 * f10 + w11 * f11)
                # (P̄_JI A_I) P_IJ
                w00 = s00 * a00 + s10 * a10
                w01 = s00 * a01 + s10 * a11
                w10 = s01 * a00 + s11 * a10
                w11 = s01 * a01 + s11 * a11
                add(2.0 * (w00 * f00 + w01 * f10), A_bar, to)
                add(2.0 * (w00 * f01 + w01 * f11), A_bar, to + WIDTH)
                add(2.0 * (w10 * f00 + w11 * f10), A_bar, to + 2 * WIDTH)
                add(2.0 * (w10 * f01 + w11 * f11), A_bar, to + 3 * WIDTH)
            q += 4 * WIDTH
        if some:
            f0 = load(F, f + i)
            f1 = load(F, f + i + WIDTH)
            add(g0 * f0 + 2.0 * t00, A_bar, at)
            add(g0 * f1 + 2.0 * t01, A_bar, at + WIDTH)
            add(g1 * f0 + 2.0 * t10, A_bar, at + 2 * WIDTH)
            add(g1 * f1 + 2.0 * t11, A_bar, at + 3 * WIDTH)


@helper()
def lift_lanes(blocks, V, q, x, C, h):
    """P̄ ← P̄ + ½ (x hᵀ + h xᵀ)."""
    for b in range(blocks):
        i = 2 * b * WIDTH
        x0 = 0.5 * load(x, i)
        x1 = 0.5 * load(x, i + WIDTH)
        h0 = 0.5 * load(C, h + i)
        h1 = 0.5 * load(C, h + i + WIDTH)
        add(2.0 * x0 * (2.0 * h0), V, q)
        add(2.0 * (x0 * h1 + h0 * x1), V, q + WIDTH)
        add(2.0 * x1 * (2.0 * h1), V, q + 2 * WIDTH)
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            y0 = load(x, j)
            y1 = load(x, j + WIDTH)
            g0 = load(C, h + j)
            g1 = load(C, h + j + WIDTH)
            add(x0 * g0 + h0 * y0, V, q)
            add(x0 * g1 + h0 * y1, V, q + WIDTH)
            add(x1 * g0 + h1 * y0, V, q + 2 * WIDTH)
            add(x1 * g1 + h1 * y1, V, q + 3 * WIDTH)
            q += 4 * WIDTH


@entry()
def back_over_chunk(blocks, each_h, each_R, steps, some, by_observation, room, way, back):
    """From after the last step of a chunk to before the transition into its first; the chunk's way is there."""
    p = places(blocks)
    C, A, slot = room.chunk, room.A, room.slot
    V, A_bar, Q_bar, k, w, x, sums = back.adjoints, back.A_bar, back.Q_bar, back.k, back.w, back.x, back.sums
    s = 2 * blocks * WIDTH
    for i in range((slot[steps - 1] + 1) * 2 * s):
        A_bar[i] = 0.0
        Q_bar[i] = 0.0
    for t in range(steps - 1, -1, -1):
        inverse = load(way.inverse, t * WIDTH)
        gain = load(way.gain, t * WIDTH)
        h = p.h + each_h * t * s
        along = splat(0.0)
        for j in range(0, s, WIDTH):
            y = load(way.product, t * s + j) * inverse
            store(y, k, j)
            along = along + load(V, j) * y
        product_of(blocks, V, p.P, k, w)
        F_bar = -(along * gain + 0.5 * (inverse - gain * gain))
        for j in range(0, s, WIDTH):
            F_bar = F_bar + load(k, j) * load(w, j)
        lift = gain - along
        for j in range(0, s, WIDTH):
            y = load(C, h + j)
            g = load(V, j)
            store((g * gain - 2.0 * load(w, j)) + F_bar * y, x, j)
            store(g + lift * y, V, j)
        lift_lanes(blocks, V, p.P, x, C, h)
        if each_R == 1:
            store(F_bar, C, p.noise + t * WIDTH)
        else:
            add(F_bar, sums, 0)
        if by_observation:
            # of the predicted moments, P x = (P − m kᵀ) x + m (k·x)
            after = (t + 1) * p.m
            product_of(blocks, way.moments[after:], p.P, x, w)
            along = splat(0.0)
            for j in range(0, s, WIDTH):
                along = along + load(k, j) * load(x, j)
            for j in range(0, s, WIDTH):
                m = load(way.product, t * s + j)
                y = (load(w, j) + m * along) + (m * F_bar + (load(way.moments, after + j) - m * gain) * lift)
                if each_h == 1:
                    store(y, C, h + j)
                else:
                    add(y, sums, WIDTH + j)
        retreat_lanes(blocks, some, V, p.P, A, slot[t] * 2 * s, way.moments, t * p.m, A_bar, Q_bar)


class Steps(NamedTuple):
    """Addresses of ``back_over_chunk`` and ``contract_lanes``."""

    back: int
    contract: int


@helper()
def chunk_back(parts, steps_back, record, units, h, begin, steps, some, by_observation, room, way, back):
    """Filter a chunk again, from the moments in ``room``, and sweep it back."""
    blocks = len(units[1])
    copy_part(room.moments, 0, way.moments, 0, places(blocks).m)
    advance(parts, record, units, h, begin, steps, room, YES, way)
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    run(steps_back.back, (blocks, each_h, each_R, steps, some, by_observation, room, way, back))


@shared()
def agree(size, V, W, P):
    """Whether every lane began its way back in ``W`` with the adjoints that the next one has in ``V``."""
    q = P
    for b in range(len(size)):
        for i in range(size[b]):
            j = (2 * b + i) * WIDTH
            place = q + 2 * i * WIDTH
            # in a long gap they are nearly 0: what other stretches end with is their measure
            scale = 0.0
            for l in range(WIDTH):
                scale = max(scale, abs(V[place + l]) + V[j + l] ** 2)
            for l in range(WIDTH - 1):
                x = V[j + l + 1] - W[j + l]
                y = V[place + l + 1] - W[place + l]
                if not (x * x <= AGREED * AGREED * scale and abs(y) <= AGREED * scale):
                    return False
        q += (3 + 4 * (len(size) - b - 1)) * WIDTH
    return True


@entry()
def gradient_stretches(
    parts, steps_back, record, units, h, first, length, last, some, by_observation, room, way, back, by_R, by_h, b, out
):  # fmt: skip
    """What ``filter_stretches`` left, backwards; False where stretches end with adjoints that were not found."""
    _, size, _ = units
    blocks = len(size)
    p = places(blocks)
    n = record.observation.shape[1]
    S, C, V, marks, at, stops = room.moments, room.chunk, back.adjoints, room.marks, room.at, room.stops
    chunks = (length + STEPS - 1) // STEPS
    forgotten = 0
    for l in range(WIDTH):
        forgotten = max(forgotten, room.agreed[l])
        at[l] = min(last, first + (l + 1) * length)
        stops[l] = min(last, at[l] + length)
    for i in range(len(V)):
        V[i] = 0.0
    # from further on to the end of each stretch
    for chunk in range(min(chunks, forgotten + forgotten // 4 + MORE) - 1, -1, -1):
        for i in range(0, p.m, WIDTH):
            for l in range(WIDTH - 1):
                S[i + l] = marks[chunk * p.mark + i + l + 1]
            S[i + WIDTH - 1] = 0.0
        begin = chunk * STEPS
        chunk_back(
            parts, steps_back, record, units, h, begin, min(STEPS, length - begin), NO, NO, room, way, back
        )  # fmt: skip
    copy_part(V, 0, back.begun, 0, p.m)
    for l in range(WIDTH):
        at[l] = first + l * length
        stops[l] = min(last, at[l] + length)
    for i in range(len(back.sums)):
        back.sums[i] = 0.0
    for chunk in range(chunks - 1, -1, -1):
        begin = chunk * STEPS
        steps = min(STEPS, length - begin)
        copy_part(marks, chunk * p.mark, S, 0, p.m)
        chunk_back(parts, steps_back, record, units, h, begin, steps, some, by_observation, room, way, back)
        slots = room.slot[steps - 1] + 1
        run(
            steps_back.contract,
            (record, units, begin, slots, at, stops, C, p.gaps, room.slot, room.A, back.A_bar, back.Q_bar, back.sums,
             (1 + 2 * blocks) * WIDTH, out),
        )  # fmt: skip
        if len(record.noise_variance) > 1:
            hand_out(C, p.noise, ONE, begin, steps, at, stops, by_R, room.scratch)
        if by_observation and len(record.observation) > 1:
            for k in range(steps):
                o = p.raw + k * n * WIDTH
                for c in range(blocks):
                    for i in range(size[c]):
                        store(load(C, p.h + (k * 2 * blocks + 2 * c + i) * WIDTH), C, o)
                        o += WIDTH
            hand_out(C, p.raw, n, begin, steps, at, stops, by_h, room.scratch)
    if not agree(size, V, back.begun, p.P):
        return False
    for l in range(WIDTH):
        if len(record.noise_variance) == 1:
            out.noise_variance[0] += back.sums[l]
        if by_observation and len(record.observation) == 1:
            o = 0
            for c in range(blocks):
                for i in range(size[c]):
                    out.observation[0, o] += back.sums[(1 + 2 * c + i) * WIDTH + l]
                    o += 1
        for c in range(out.parameters.shape[0]):
            for j in range(3):
                out.parameters[c, j] += back.sums[(1 + 2 * blocks + 3 * c + j) * WIDTH + l]
    adjoints_of_first(size, p, V, b)
    return True


@shared()
def adjoints_of_first(size, p, V, b):
    """r and N of the first lane."""
    blocks = len(size)
    o = 0
    for c in range(blocks):
        for i in range(size[c]):
            b.r0[o + i] = V[(2 * c + i) * WIDTH]
        o += size[c]
    q = p.P
    o = 0
    for c in range(blocks):
        u = o
        for d in range(c, blocks):
            for i in range(2):
                for j in range(2):
                    if d > c or i + 2 * j != 1:
                        if i < size[c] and j < size[d]:
                            b.N0[o + i, u + j] = b.r0[o + i] * b.r0[u + j] - 2.0 * V[q]
                            b.N0[u + j, o + i] = b.N0[o + i, u + j]
                        q += WIDTH
            u += size[d]
        o += size[c]


_steps: list[Steps] = []


def gradient_in_stretches(record, units, origin, moving, by_observation, b, gradient, work):
    """Take ``b`` from after a record to before it and add to ``gradient``; the state after it.

    None where it is not possible or not worth while: ``b`` and ``gradient`` are of no use then.
    """
    T, (d, n), blocks = len(record.y), origin.diffuse.shape, len(units[1])
    if not suits(record, units, T - HEAD):
        return None
    state = State(*(array.copy() for array in origin))
    first = 0
    with borrowed_room(HEAD if d else 0, n, d, TILES, blocks) as head:
        if d:
            first = forward_start(record, units, 0, HEAD, state, TILES, head, 0, work)
        if state.counts[0] > 0 or not _after_start(record, units, first, T, state, moving, by_observation, b, gradient):
            return None
        if first:
            gradient_start(
                record, units, moving, by_observation, 0, first, 0, first, state.counts[2], origin, head, 0, b,
                gradient, work,
            )  # fmt: skip
    return state


def _after_start(record, units, first, last, state, moving, by_observation, b, gradient):
    """Samples first..last−1, and the transition into them."""
    length, chunks = stretch_of(last - first)
    n, blocks = len(state.mean), len(units[1])
    room = lanes_for(blocks, n, chunks)
    h, parts = record.observation.reshape(-1), parts_for(record, units, room)
    given = record, units, h, first, length, last
    if filter_stretches(parts, *given, state, min(chunks, LOOK), chunks, room, NO_WAY) < last:
        return False
    way, back = back_for(blocks, len(record.parameters))
    if not _steps:
        i = 0
        chunk = room.chunk, i, room.slot, room.A, back.A_bar, back.Q_bar, back.sums, i, gradient
        _steps.append(
            Steps(
                address_of(back_over_chunk, i, i, i, i, False, False, room, way, back),
                address_of(contract_lanes, record, units, i, i, room.at, room.stops, *chunk),
            )
        )
    by_R, by_h = gradient.noise_variance, gradient.observation.reshape(-1)
    some = bool(moving.any())
    return gradient_stretches(parts, _steps[0], *given, some, by_observation, room, way, back, by_R, by_h, b, gradient)
