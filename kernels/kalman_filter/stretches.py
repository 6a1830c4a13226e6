"""One long record of three states or more: eight stretches of it side by side, in the lanes of vectors.

A filter forgets where it began. Eight stretches of equal length are filtered in step, the first from the moments that
are known, the others from a guess. Then each sweep goes on into the next stretch, from what is now known to be its
beginning, until its moments agree with those that were found there: from that sample on the first pass was right. Of a
stretch whose beginning is not forgotten in time, and of all after it, nothing is taken: the usual sweep goes on there.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import types

from statespace.kernels.intrinsics import address_of, calling
from statespace.kernels.kalman_filter.compiled import NO, ONE, ZERO, entry, helper, shared
from statespace.kernels.kalman_filter.lane_transitions import (
    KINDS,
    STEPS,
    discretize_lanes,
    prepare_slots,
)
from statespace.kernels.kalman_filter.lockstep import logarithms
from statespace.kernels.kalman_filter.tiles import from_tiles, pad, to_tiles, unpad
from statespace.kernels.kalman_filter.transposition import WIDTH, aligned, bring_in, load, splat
from statespace.kernels.vectors import somewhere, store, where

_KNOWN = frozenset(KINDS)
_parts: list["Parts"] = []

run = calling(types.none)

# samples from which it pays
SHORTEST = 2048
# chunks of a stretch in which its beginning must be forgotten
LOOK = 128
# how far moments may differ that agree, in standard deviations, and beside the rounding of y
AGREED, ROUNDING = 1e-12, 2e-15


# Chunks in which means that begin apart must come near to one another, in standard deviations, and how near they must
# have come in the end.
PILOT, NEAR, STILL_NEAR = 8, 1e-3, 0.03


class Lanes(NamedTuple):
    """Room for eight stretches, in vectors.

    ``moments``: a, P, m = P h, A m. ``chunk``: y, Δ, R, h of STEPS steps. ``totals``: Σ log F, the running product of
    F, Σ v²/F, the number of samples, the last 1/F. ``A``, ``Q``: of each slot. ``marks``: a and P before each of the
    first chunks, and its totals. ``ends``: the same at the end.
    """

    moments: np.ndarray
    chunk: np.ndarray
    totals: np.ndarray
    A: np.ndarray
    Q: np.ndarray
    marks: np.ndarray
    ends: np.ndarray
    scratch: np.ndarray
    slot: np.ndarray
    at: np.ndarray
    stops: np.ndarray
    agreed: np.ndarray


class Way(NamedTuple):
    """What a chunk leaves for the way back, in vectors: filtered moments before and after each step, m, 1/F, v/F."""

    moments: np.ndarray
    product: np.ndarray
    inverse: np.ndarray
    gain: np.ndarray


NO_WAY = Way(*np.zeros((4, WIDTH)))


class Places(NamedTuple):
    """Where in ``moments`` and ``chunk``."""

    P: int
    m: int
    turned: int
    gaps: int
    noise: int
    h: int
    raw: int
    mark: int


TOTALS = 5


@helper()
def places(blocks):
    s = 2 * blocks
    P = s * WIDTH
    m = P + (2 * blocks * (blocks + 1) - blocks) * WIDTH
    line = STEPS * WIDTH
    return Places(P, m, m + s * WIDTH, line, 2 * line, 3 * line, (3 + s) * line, m + TOTALS * WIDTH)


def lanes_for(blocks, n, marks):
    """Room for models of so many blocks and states; a long record's is not kept."""
    make = _lanes_for if marks <= LOOK else _lanes_for.__wrapped__
    return make(blocks, n, marks)


@lru_cache(maxsize=4)
def _lanes_for(blocks, n, marks):
    s = 2 * blocks
    triangle = 2 * blocks * (blocks + 1) - blocks
    slots = STEPS * 4 * blocks
    mark = s + triangle + TOTALS
    sizes = (3 * s + triangle, (3 + s + n) * STEPS, TOTALS, slots, slots, marks * mark, mark, 4)
    return Lanes(*(aligned(size * WIDTH) for size in sizes), *np.zeros((4, 2 * STEPS), dtype=np.int64))


@helper()
def predict_lanes(blocks, S, p, A, Q, a, inverse, gain, C, h):
    """a ← A (a + m v/F), P ← A (P − m mᵀ/F) Aᵀ + Q tile by tile, m ← P h of what comes out."""
    for b in range(blocks):
        i = 2 * b * WIDTH
        a00 = load(A, a + 2 * i)
        a01 = load(A, a + 2 * i + WIDTH)
        a10 = load(A, a + 2 * i + 2 * WIDTH)
        a11 = load(A, a + 2 * i + 3 * WIDTH)
        m0 = load(S, p.m + i)
        m1 = load(S, p.m + i + WIDTH)
        t0 = a00 * m0 + a01 * m1
        t1 = a10 * m0 + a11 * m1
        store(t0, S, p.turned + i)
        store(t1, S, p.turned + i + WIDTH)
        x0 = load(S, i)
        x1 = load(S, i + WIDTH)
        store((a00 * x0 + a01 * x1) + t0 * gain, S, i)
        store((a10 * x0 + a11 * x1) + t1 * gain, S, i + WIDTH)
        store(splat(0.0), S, p.m + i)
        store(splat(0.0), S, p.m + i + WIDTH)
    q = p.P
    for b in range(blocks):
        i = 2 * b * WIDTH
        a00 = load(A, a + 2 * i)
        a01 = load(A, a + 2 * i + WIDTH)
        a10 = load(A, a + 2 * i + 2 * WIDTH)
        a11 = load(A, a + 2 * i + 3 * WIDTH)
        t0 = load(S, p.turned + i)
        t1 = load(S, p.turned + i + WIDTH)
        x0 = t0 * inverse
        x1 = t1 * inverse
        h0 = load(C, h + i)
        h1 = load(C, h + i + WIDTH)
        p00 = load(S, q)
        p01 = load(S, q + WIDTH)
        p11 = load(S, q + 2 * WIDTH)
        w00 = a00 * p00 + a01 * p01
        w01 = a00 * p01 + a01 * p11
        w10 = a10 * p00 + a11 * p01
        w11 = a10 * p01 + a11 * p11
        p00 = (w00 * a00 + (w01 * a01 + load(Q, a + 2 * i))) - t0 * x0
        p01 = (w00 * a10 + (w01 * a11 + load(Q, a + 2 * i + WIDTH))) - t0 * x1
        p11 = (w10 * a10 + (w11 * a11 + load(Q, a + 2 * i + 3 * WIDTH))) - t1 * x1
        store(p00, S, q)
        store(p01, S, q + WIDTH)
        store(p11, S, q + 2 * WIDTH)
        m0 = load(S, p.m + i) + (p00 * h0 + p01 * h1)
        m1 = load(S, p.m + i + WIDTH) + (p01 * h0 + p11 * h1)
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            c00 = load(A, a + 2 * j)
            c01 = load(A, a + 2 * j + WIDTH)
            c10 = load(A, a + 2 * j + 2 * WIDTH)
            c11 = load(A, a + 2 * j + 3 * WIDTH)
            u0 = load(S, p.turned + j)
            u1 = load(S, p.turned + j + WIDTH)
            p00 = load(S, q)
            p01 = load(S, q + WIDTH)
            p10 = load(S, q + 2 * WIDTH)
            p11 = load(S, q + 3 * WIDTH)
            w00 = a00 * p00 + a01 * p10
            w01 = a00 * p01 + a01 * p11
            w10 = a10 * p00 + a11 * p10
            w11 = a10 * p01 + a11 * p11
            p00 = (w00 * c00 + w01 * c01) - x0 * u0
            p01 = (w00 * c10 + w01 * c11) - x0 * u1
            p10 = (w10 * c00 + w11 * c01) - x1 * u0
            p11 = (w10 * c10 + w11 * c11) - x1 * u1
            store(p00, S, q)
            store(p01, S, q + WIDTH)
            store(p10, S, q + 2 * WIDTH)
            store(p11, S, q + 3 * WIDTH)
            g0 = load(C, h + j)
            g1 = load(C, h + j + WIDTH)
            m0 = m0 + (p00 * g0 + p01 * g1)
            m1 = m1 + (p10 * g0 + p11 * g1)
            store(load(S, p.m + j) + (p00 * h0 + p10 * h1), S, p.m + j)
            store(load(S, p.m + j + WIDTH) + (p01 * h0 + p11 * h1), S, p.m + j + WIDTH)
            q += 4 * WIDTH
        store(m0, S, p.m + i)
        store(m1, S, p.m + i + WIDTH)


@shared()
def settle(blocks, S, P, m, inverse, gain):
    """a ← a + m v/F, P ← P − m mᵀ/F."""
    q = P
    for b in range(blocks):
        i = 2 * b * WIDTH
        m0 = load(S, m + i)
        m1 = load(S, m + i + WIDTH)
        store(load(S, i) + m0 * gain, S, i)
        store(load(S, i + WIDTH) + m1 * gain, S, i + WIDTH)
        x0 = m0 * inverse
        x1 = m1 * inverse
        store(load(S, q) - x0 * m0, S, q)
        store(load(S, q + WIDTH) - x0 * m1, S, q + WIDTH)
        store(load(S, q + 2 * WIDTH) - x1 * m1, S, q + 2 * WIDTH)
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            u0 = load(S, m + j)
            u1 = load(S, m + j + WIDTH)
            store(load(S, q) - x0 * u0, S, q)
            store(load(S, q + WIDTH) - x0 * u1, S, q + WIDTH)
            store(load(S, q + 2 * WIDTH) - x1 * u0, S, q + 2 * WIDTH)
            store(load(S, q + 3 * WIDTH) - x1 * u1, S, q + 3 * WIDTH)
            q += 4 * WIDTH


@shared()
def prepare(record, size, room):
    """The identity for what no gap changes; the R and h that all samples share."""
    C = room.chunk
    p = places(len(size))
    prepare_slots(size, room.A, room.Q)
    for k in range(STEPS):
        store(splat(record.noise_variance[0]), C, p.noise + k * WIDTH)
    for i in range(p.h, p.raw):
        C[i] = 0.0
    o = 0
    for b in range(len(size)):
        for i in range(size[b]):
            store(splat(record.observation[0, o]), C, p.h + (2 * b + i) * WIDTH)
            o += 1


@entry()
def bring_chunk(record, h, size, begin, steps, room):
    """y, Δ, R and h of a chunk of every lane's steps; ``h``: the rows of observation, end to end."""
    C, scratch, at, stops = room.chunk, room.scratch, room.at, room.stops
    blocks = len(size)
    p = places(blocks)
    n = record.observation.shape[1]
    bring_in(record.y, ONE, begin, steps, at, stops, np.nan, C, ZERO, scratch)
    bring_in(record.dt, ONE, begin, steps, at, stops, 0.0, C, p.gaps, scratch)
    if len(record.noise_variance) > 1:
        bring_in(record.noise_variance, ONE, begin, steps, at, stops, 1.0, C, p.noise, scratch)
    if len(record.observation) > 1:
        bring_in(h, n, begin, steps, at, stops, 0.0, C, p.raw, scratch)
        for k in range(steps):
            o = p.raw + k * n * WIDTH
            for b in range(blocks):
                for i in range(size[b]):
                    store(load(C, o), C, p.h + (k * 2 * blocks + 2 * b + i) * WIDTH)
                    o += WIDTH


class Parts(NamedTuple):
    """Addresses of what is compiled on its own: ``bring_chunk``, ``discretize_lanes``, ``filter_chunk``."""

    bring: int
    discretize: int
    filter: int


@helper()
def advance(parts, record, units, h, begin, steps, room, keep, kept):
    """Filter one chunk of steps of every lane."""
    blocks = len(units[1])
    p = places(blocks)
    run(parts.bring, (record, h, units[1], begin, steps, room))
    run(
        parts.discretize,
        (record, units, begin, steps, room.at, room.stops, room.chunk, p.gaps, room.slot, room.A, room.Q, room.scratch),
    )
    run(parts.filter, (blocks, 1 if len(record.observation) > 1 else 0, steps, room, keep, kept))


@entry()
def filter_chunk(blocks, each_h, steps, room, keep, kept):
    """Filter a chunk of steps whose y, Δ, R, h, A and Q are there; ``each_h`` is 1 where each sample has its own h.

    To ``keep`` is to leave the filtered moments after every step and m, 1/F, v/F.
    """
    p = places(blocks)
    S, C, T, A, Q = room.moments, room.chunk, room.totals, room.A, room.Q
    logs = load(T, 0)
    product = load(T, WIDTH)
    squares = load(T, 2 * WIDTH)
    count = load(T, 3 * WIDTH)
    last = load(T, 4 * WIDTH)
    for i in range(2 * blocks):
        store(splat(0.0), S, p.m + i * WIDTH)
    inverse = splat(0.0)
    gain = splat(0.0)
    for k in range(steps):
        row = p.h + each_h * k * 2 * blocks * WIDTH
        predict_lanes(blocks, S, p, A, Q, room.slot[k] * 4 * blocks * WIDTH, inverse, gain, C, row)
        v = load(C, k * WIDTH)
        R = load(C, p.noise + k * WIDTH)
        signal = splat(0.0)
        for j in range(0, 2 * blocks * WIDTH, WIDTH):
            x = load(C, row + j)
            signal = signal + x * load(S, p.m + j)
            v = v - x * load(S, j)
        signal = where(signal > 0.0, signal, splat(0.0))
        F = signal + R
        seen = v == v
        last = 1.0 / F
        inverse = where(seen, last, splat(0.0))
        v = where(seen, v, splat(0.0))
        gain = v * inverse
        squares = squares + v * gain
        count = count + where(seen, splat(1.0), splat(0.0))
        product = product * where(seen, F, splat(1.0))
        if somewhere((product <= 1e-140) | (product >= 1e140)):
            logarithms(product, logs, room.scratch)
            product = load(room.scratch, 0)
            logs = load(room.scratch, WIDTH)
        if keep:
            store(inverse, kept.inverse, k * WIDTH)
            store(gain, kept.gain, k * WIDTH)
        if keep or somewhere(seen & (F >= 1e4 * R)):
            # little is left of P: what cancels must cancel at once, to the last digit
            settle(blocks, S, p.P, p.m, inverse, gain)
            inverse = splat(0.0)
            gain = splat(0.0)
        if keep:
            for j in range(0, p.m, WIDTH):
                store(load(S, j), kept.moments, (k + 1) * p.m + j)
            for j in range(0, 2 * blocks * WIDTH, WIDTH):
                store(load(S, p.m + j), kept.product, k * 2 * blocks * WIDTH + j)
    settle(blocks, S, p.P, p.m, inverse, gain)
    store(logs, T, 0)
    store(product, T, WIDTH)
    store(squares, T, 2 * WIDTH)
    store(count, T, 3 * WIDTH)
    store(last, T, 4 * WIDTH)


@helper()
def begin_totals(T, first):
    for i in range(TOTALS * WIDTH):
        T[first + i] = 1.0 if i // WIDTH == 1 else 0.0


@shared()
def agreement(size, p, S, C, T, marks, mark, scratch):
    """1 in the lanes whose moments are those of a mark, else 0, left in ``scratch``."""
    blocks = len(size)
    s = 2 * blocks
    offset = splat(0.0)
    for j in range(0, s * WIDTH, WIDTH):
        x = load(C, p.h + j) * load(S, j)
        offset = offset + x * x
    inverse = load(T, 4 * WIDTH)
    slack = 2.0 * (AGREED * AGREED + (ROUNDING * ROUNDING) * inverse * offset)
    agreed = slack == slack
    # the variances before the last sample
    q = p.P
    for b in range(blocks):
        for i in range(2):
            m = load(S, p.m + (2 * b + i) * WIDTH)
            store(load(S, q + 2 * i * WIDTH) + m * m * inverse, S, p.turned + (2 * b + i) * WIDTH)
        q += (3 + 4 * (blocks - b - 1)) * WIDTH
    q = p.P
    for b in range(blocks):
        for i in range(size[b]):
            j = (2 * b + i) * WIDTH
            x = load(S, j) - load(marks, mark + j)
            agreed = agreed & ((x == 0.0) | (x * (x / load(S, p.turned + j)) <= slack))
        for c in range(b, blocks):
            for i in range(2):
                for j in range(2):
                    if c > b or j >= i:
                        if i < size[b] and j < size[c]:
                            x = load(S, q) - load(marks, mark + q)
                            one = x / load(S, p.turned + (2 * b + i) * WIDTH)
                            other = x / load(S, p.turned + (2 * c + j) * WIDTH)
                            agreed = agreed & ((x == 0.0) | (one * other <= AGREED * AGREED))
                        q += WIDTH
    store(where(agreed, splat(1.0), splat(0.0)), scratch, 0)


@helper()
def copy_part(x, first, out, to, length):
    for i in range(length):
        out[to + i] = x[first + i]


@shared()
def spread_moments(size, state, p, S, scratch):
    """The moments of ``state`` into every lane."""
    blocks = len(size)
    tiles = scratch[2 * blocks :]
    pad(size, state.mean, scratch)
    to_tiles(size, state.covariance, tiles)
    for j in range(2 * blocks):
        store(splat(scratch[j]), S, j * WIDTH)
    q = p.P
    r = 0
    for b in range(blocks):
        for c in range(b, blocks):
            for i in range(4):
                if c > b or i != 2:
                    store(splat(tiles[r + i]), S, q)
                    q += WIDTH
            r += 4


@shared()
def gather_moments(size, p, S, l, state, scratch):
    """The moments of one lane into ``state``."""
    blocks = len(size)
    tiles = scratch[2 * blocks :]
    for j in range(2 * blocks):
        scratch[j] = S[j * WIDTH + l]
    q = p.P + l
    r = 0
    for b in range(blocks):
        for c in range(b, blocks):
            for i in range(4):
                if c > b or i != 2:
                    tiles[r + i] = S[q]
                    q += WIDTH
                else:
                    tiles[r + 2] = tiles[r + 1]
            r += 4
    from_tiles(size, tiles, state.covariance)
    unpad(size, scratch, state.mean)


@helper()
def add_total(T, first, l, totals, counts):
    totals[0] += T[first + l] + np.log(T[first + WIDTH + l])
    totals[2] += T[first + 2 * WIDTH + l]
    counts[1] += np.int64(T[first + 3 * WIDTH + l])


@shared()
def distance(size, p, S, T, scratch):
    """How far the means of lanes 2 l and 2 l + 1 lie apart at most, squared, in variances before the last sample."""
    blocks = len(size)
    inverse = load(T, 4 * WIDTH)
    apart = splat(0.0)
    q = p.P
    for b in range(blocks):
        for i in range(size[b]):
            j = (2 * b + i) * WIDTH
            m = load(S, p.m + j)
            x = load(S, j) - load(S, j + 1)
            variance = load(S, q + 2 * i * WIDTH) + m * m * inverse
            apart = apart + where(x == 0.0, splat(0.0), x * (x / variance))
        q += (3 + 4 * (blocks - b - 1)) * WIDTH
    store(apart, scratch, 0)
    largest = 0.0
    for l in range(0, WIDTH, 2):
        # a NaN is no agreement
        largest = max(largest, scratch[l] if scratch[l] < np.inf else np.inf)
    return largest


@helper()
def forgets(parts, record, units, h, first, length, last, state, p, room, kept):
    """Whether filters that begin apart, four times two in step, draw near within a few chunks."""
    _, size, _ = units
    S, at, stops = room.moments, room.at, room.stops
    spread_moments(size, state, p, S, room.marks)
    q = p.P
    for b in range(len(size)):
        for i in range(2):
            for l in range(1, WIDTH, 2):
                S[(2 * b + i) * WIDTH + l] += np.sqrt(max(S[q + 2 * i * WIDTH + l], 0.0))
        q += (3 + 4 * (len(size) - b - 1)) * WIDTH
    for l in range(WIDTH):
        at[l] = first + (l | 1) * length
        stops[l] = min(last, at[l] + length)
    apart = first_apart = 1.0
    for chunk in range(min(PILOT, length // (2 * STEPS))):
        begin_totals(room.totals, 0)
        advance(parts, record, units, h, chunk * STEPS, STEPS, room, NO, kept)
        apart = distance(size, p, S, room.totals, room.scratch)
        if chunk == 0:
            # after a diffuse start the moments that both began with may have been wide
            first_apart = max(1.0, apart)
        if apart <= NEAR**2 * first_apart:
            return True
    return apart <= STILL_NEAR**2 * first_apart


@entry()
def filter_stretches(parts, record, units, h, first, length, last, state, looked, marked, room, kept):
    """Filter samples first..last−1 in stretches of this length; returns where what was found ends."""
    _, size, _ = units
    blocks = len(size)
    p = places(blocks)
    S, T, marks, ends, at, stops, agreed = (
        room.moments, room.totals, room.marks, room.ends, room.at, room.stops, room.agreed,
    )  # fmt: skip
    prepare(record, size, room)
    if not forgets(parts, record, units, h, first, length, last, state, p, room, kept):
        return first
    spread_moments(size, state, p, S, marks)
    for l in range(WIDTH):
        at[l] = first + l * length
        stops[l] = min(last, at[l] + length)
        agreed[l] = -1
    begin_totals(T, 0)
    for begin in range(0, length, STEPS):
        mark = begin // STEPS * p.mark
        if begin < marked * STEPS:
            copy_part(S, 0, marks, mark, p.m)
        advance(parts, record, units, h, begin, min(STEPS, length - begin), room, NO, kept)
        if begin < marked * STEPS:
            copy_part(T, 0, marks, mark + p.m, TOTALS * WIDTH)
            begin_totals(T, 0)
    # from the end of each stretch into the next
    copy_part(S, 0, ends, 0, p.m)
    copy_part(T, 0, ends, p.m, TOTALS * WIDTH)
    for i in range(p.m // WIDTH):
        for l in range(WIDTH - 1, 0, -1):
            S[i * WIDTH + l] = ends[i * WIDTH + l - 1]
    at[0] = stops[0]
    agreed[0] = 0
    waiting = WIDTH - 1
    begin_totals(T, 0)
    for chunk in range(looked):
        if chunk > 0:
            agreement(size, p, S, room.chunk, T, marks, chunk * p.mark, room.scratch)
            for l in range(WIDTH):
                if agreed[l] < 0 and room.scratch[l] == 1.0:
                    agreed[l] = chunk
                    waiting -= 1
            if waiting == 0:
                break
        # what is found from the right beginning takes the place of what was found from a guess
        for l in range(WIDTH):
            if agreed[l] < 0:
                for i in range(l, p.m, WIDTH):
                    marks[chunk * p.mark + i] = S[i]
        begin_totals(T, 0)
        advance(parts, record, units, h, chunk * STEPS, min(STEPS, length - chunk * STEPS), room, NO, kept)
        for l in range(WIDTH):
            if agreed[l] < 0:
                for i in range(l, TOTALS * WIDTH, WIDTH):
                    marks[chunk * p.mark + p.m + i] = T[i]
    right = 0
    while right < WIDTH and agreed[right] >= 0:
        for chunk in range(marked):
            add_total(marks, chunk * p.mark + p.m, right, state.totals, state.counts)
        add_total(ends, p.m, right, state.totals, state.counts)
        right += 1
    gather_moments(size, p, ends, right - 1, state, S)
    return stops[right - 1]


def parts_for(record, units, room):
    """Compiled when they are first needed; the types of their arguments are always the same."""
    if not _parts:
        i, chunk = 0, (room.chunk, 0, room.slot, room.A, room.Q, room.scratch)
        _parts.append(
            Parts(
                address_of(bring_chunk, record, record.y, units[1], i, i, room),
                address_of(discretize_lanes, record, units, i, i, room.at, room.stops, *chunk),
                address_of(filter_chunk, i, i, i, room, False, NO_WAY),
            )
        )
    return _parts[0]


def suits(record, units, samples):
    return samples >= SHORTEST and _KNOWN.issuperset(units[0].tolist()) and record.noise_variance.min() > 0.0


def stretch_of(samples):
    """The length of a stretch, and how many chunks it has."""
    length = -(-samples // WIDTH)
    return length, -(-length // STEPS)


def forward_stretches(record, units, first, last, state):
    """As ``forward_tiled``, keeping nothing; returns where it ends, ``first`` if it is not worth while."""
    if not suits(record, units, last - first):
        return first
    length, chunks = stretch_of(last - first)
    looked = min(chunks, LOOK)
    room = lanes_for(len(units[1]), len(state.mean), looked)
    h, parts = record.observation.reshape(-1), parts_for(record, units, room)
    return filter_stretches(parts, record, units, h, first, length, last, state, looked, looked, room, NO_WAY)
