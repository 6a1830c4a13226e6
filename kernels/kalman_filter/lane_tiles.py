"""The filter over a chunk of steps in eight lanes, on P in tiles of 2 × 2 as in ``tiles.py``, for any number of blocks.

A tile of a diagonal block has three vectors, P₀₀, P₀₁, P₁₁; another four. After a (two vectors for each block) they
stand in the order of ``tiles.py``.
"""

from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import types

from statespace.kernels.intrinsics import calling
from statespace.kernels.kalman_filter.compiled import ONE, ZERO, entry, helper, shared
from statespace.kernels.kalman_filter.lane_transitions import STEPS, prepare_slots
from statespace.kernels.kalman_filter.lockstep import logarithms
from statespace.kernels.kalman_filter.record import NOTHING, TILES
from statespace.kernels.kalman_filter.tiles import from_tiles, pad, to_tiles, unpad
from statespace.kernels.kalman_filter.transposition import WIDTH, aligned, bring_in, load, splat
from statespace.kernels.vectors import prefetch, somewhere, store, where

# numbers of ``Lanes.totals``
TOTALS = 5
# what the last way back left of its room
_spare: list[tuple[tuple[int, int, int], "Lanes"]] = []
SPARE_BYTES = 16_000_000

run = calling(types.none)


class Lanes(NamedTuple):
    """Room for eight stretches, in vectors.

    ``moments``: a, P, m = P h, that of another step. ``chunk``: y, Δ, R, h of STEPS steps. ``totals``: Σ log F, the
    running product of F, Σ v²/F, the number of samples, the last 1/F. ``A``, ``Q``: of each slot. ``marks``: a and P
    before each of the first chunks, and its totals. ``ends``: the same at the end.
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
    """What a chunk may leave for the way back, in vectors: filtered moments before and after each step, m, 1/F, v/F.

    A row of ``product`` stands for what is before the first step.
    """

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


class Parts(NamedTuple):
    """Addresses of what is compiled on its own: ``bring_chunk``, ``discretize_lanes``, ``filter_chunk``."""

    bring: int
    discretize: int
    filter: int


@helper()
def places(blocks):
    s = 2 * blocks
    P = s * WIDTH
    m = P + (2 * blocks * (blocks + 1) - blocks) * WIDTH
    line = STEPS * WIDTH
    return Places(P, m, m + s * WIDTH, line, 2 * line, 3 * line, (3 + s) * line, m + TOTALS * WIDTH)


@lru_cache(maxsize=4)
def lanes_for(blocks, n, marks):
    """Room for one call of a compiled function, which holds the interpreter's lock and leaves nothing behind."""
    s = 2 * blocks
    triangle = 2 * blocks * (blocks + 1) - blocks
    slots = STEPS * 4 * blocks
    mark = s + triangle + TOTALS
    sizes = (3 * s + triangle, (3 + s + n) * STEPS, TOTALS, slots, slots, marks * mark, mark, 4)
    return Lanes(*(aligned(size * WIDTH) for size in sizes), *np.zeros((4, 2 * STEPS), dtype=np.int64))


def bytes_of_marks(blocks, marks):
    """What the moments before so many chunks take."""
    return 8 * WIDTH * marks * (2 * blocks * (blocks + 2) - blocks + TOTALS)


@contextmanager
def borrowed_lanes(blocks, n, marks):
    """Room for several calls. Two threads never hold the same."""
    try:
        key, lanes = _spare.pop()
    except IndexError:
        key, lanes = None, None
    if key != (blocks, n, marks):
        key, lanes = (blocks, n, marks), lanes_for.__wrapped__(blocks, n, marks)
    try:
        yield lanes
    finally:
        if lanes.marks.nbytes <= SPARE_BYTES and not _spare:
            _spare.append((key, lanes))


@helper()
def copy_part(x, first, out, to, length):
    for i in range(length):
        out[to + i] = x[first + i]


@helper()
def predict_lanes(blocks, keep, S, before, after, M, found, m, A, Q, a, inverse, gain, C, h, v):
    """The moments before a sample from those before the last one, whose P h, 1/F and v/F are known.

    a ← A (a + m v/F), P ← A (P − m mᵀ/F) Aᵀ + Q, tile by tile: what cancels, cancels at once. ``S``: the moments, from
    ``before`` on, become others from ``after`` on; TILES are kept if the filtered ones are left there. ``M``: P h, from
    ``found`` on, becomes that of what comes out, from ``m`` on. Returns hᵀ P h and v − hᵀ a of what comes out.
    """
    for i in range(m, m + 2 * blocks * WIDTH, WIDTH):
        store(splat(0.0), M, i)
    signal = splat(0.0)
    # what the next step writes
    ahead = 2 * after - before
    q = 2 * blocks * WIDTH
    for b in range(blocks):
        i = 2 * b * WIDTH
        a00 = load(A, a + 2 * i)
        a01 = load(A, a + 2 * i + WIDTH)
        a10 = load(A, a + 2 * i + 2 * WIDTH)
        a11 = load(A, a + 2 * i + 3 * WIDTH)
        h0 = load(C, h + i)
        h1 = load(C, h + i + WIDTH)
        t0 = load(M, found + i)
        t1 = load(M, found + i + WIDTH)
        x0 = load(S, before + i) + t0 * gain
        x1 = load(S, before + i + WIDTH) + t1 * gain
        y0 = a00 * x0 + a01 * x1
        y1 = a10 * x0 + a11 * x1
        v = (v - h0 * y0) - h1 * y1
        if keep == TILES:
            store(x0, S, before + i)
            store(x1, S, before + i + WIDTH)
        store(y0, S, after + i)
        store(y1, S, after + i + WIDTH)
        x0 = t0 * inverse
        x1 = t1 * inverse
        p00 = load(S, before + q) - x0 * t0
        p01 = load(S, before + q + WIDTH) - x0 * t1
        p11 = load(S, before + q + 2 * WIDTH) - x1 * t1
        if keep == TILES:
            store(p00, S, before + q)
            store(p01, S, before + q + WIDTH)
            store(p11, S, before + q + 2 * WIDTH)
        w00 = a00 * p00 + a01 * p01
        w01 = a00 * p01 + a01 * p11
        w10 = a10 * p00 + a11 * p01
        w11 = a10 * p01 + a11 * p11
        p00 = w00 * a00 + (w01 * a01 + load(Q, a + 2 * i))
        p01 = w00 * a10 + (w01 * a11 + load(Q, a + 2 * i + WIDTH))
        p11 = w10 * a10 + (w11 * a11 + load(Q, a + 2 * i + 3 * WIDTH))
        store(p00, S, after + q)
        store(p01, S, after + q + WIDTH)
        store(p11, S, after + q + 2 * WIDTH)
        m0 = p00 * h0 + (p01 * h1 + load(M, m + i))
        m1 = p01 * h0 + (p11 * h1 + load(M, m + i + WIDTH))
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            c00 = load(A, a + 2 * j)
            c01 = load(A, a + 2 * j + WIDTH)
            c10 = load(A, a + 2 * j + 2 * WIDTH)
            c11 = load(A, a + 2 * j + 3 * WIDTH)
            u0 = load(M, found + j)
            u1 = load(M, found + j + WIDTH)
            p00 = load(S, before + q) - x0 * u0
            p01 = load(S, before + q + WIDTH) - x0 * u1
            p10 = load(S, before + q + 2 * WIDTH) - x1 * u0
            p11 = load(S, before + q + 3 * WIDTH) - x1 * u1
            if keep == TILES:
                store(p00, S, before + q)
                store(p01, S, before + q + WIDTH)
                store(p10, S, before + q + 2 * WIDTH)
                store(p11, S, before + q + 3 * WIDTH)
                prefetch(S, ahead + q)
                prefetch(S, ahead + q + WIDTH)
                prefetch(S, ahead + q + 2 * WIDTH)
                prefetch(S, ahead + q + 3 * WIDTH)
            w00 = a00 * p00 + a01 * p10
            w01 = a00 * p01 + a01 * p11
            w10 = a10 * p00 + a11 * p10
            w11 = a10 * p01 + a11 * p11
            p00 = w00 * c00 + w01 * c01
            p01 = w00 * c10 + w01 * c11
            p10 = w10 * c00 + w11 * c01
            p11 = w10 * c10 + w11 * c11
            store(p00, S, after + q)
            store(p01, S, after + q + WIDTH)
            store(p10, S, after + q + 2 * WIDTH)
            store(p11, S, after + q + 3 * WIDTH)
            g0 = load(C, h + j)
            g1 = load(C, h + j + WIDTH)
            m0 = p00 * g0 + (p01 * g1 + m0)
            m1 = p10 * g0 + (p11 * g1 + m1)
            store(p00 * h0 + (p10 * h1 + load(M, m + j)), M, m + j)
            store(p01 * h0 + (p11 * h1 + load(M, m + j + WIDTH)), M, m + j + WIDTH)
            q += 4 * WIDTH
        store(m0, M, m + i)
        store(m1, M, m + i + WIDTH)
        signal = m0 * h0 + (m1 * h1 + signal)
    return signal, v


@shared()
def settle(blocks, S, at, M, m, inverse, gain):
    """a ← a + m v/F, P ← P − m mᵀ/F, of the moments from ``at`` on."""
    q = at + 2 * blocks * WIDTH
    for b in range(blocks):
        i = 2 * b * WIDTH
        m0 = load(M, m + i)
        m1 = load(M, m + i + WIDTH)
        store(load(S, at + i) + m0 * gain, S, at + i)
        store(load(S, at + i + WIDTH) + m1 * gain, S, at + i + WIDTH)
        x0 = m0 * inverse
        x1 = m1 * inverse
        store(load(S, q) - x0 * m0, S, q)
        store(load(S, q + WIDTH) - x0 * m1, S, q + WIDTH)
        store(load(S, q + 2 * WIDTH) - x1 * m1, S, q + 2 * WIDTH)
        q += 3 * WIDTH
        for j in range(i + 2 * WIDTH, 2 * blocks * WIDTH, 2 * WIDTH):
            u0 = load(M, m + j)
            u1 = load(M, m + j + WIDTH)
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

    What is kept: NOTHING; GAINS, which are m, 1/F, v/F of every step; or TILES, these and the filtered moments before
    and after every step. The moments in ``room`` then stay what they were.
    """
    p = places(blocks)
    C, T, A, Q = room.chunk, room.totals, room.A, room.Q
    S = M = room.moments
    s = 2 * blocks * WIDTH
    # P h of one step and of the next take turns, that of the last step standing first
    before = after = 0
    found = p.turned if steps % 2 else p.m
    m = p.m if steps % 2 else p.turned
    stride = 0
    if keep != NOTHING:
        M = kept.product
        found, m = 0, s
    if keep == TILES:
        S = kept.moments
        copy_part(room.moments, 0, S, 0, p.m)
        after = stride = p.m
    for i in range(found, found + s):
        M[i] = 0.0
    logs = load(T, 0)
    product = load(T, WIDTH)
    squares = load(T, 2 * WIDTH)
    count = load(T, 3 * WIDTH)
    last = load(T, 4 * WIDTH)
    inverse = splat(0.0)
    gain = splat(0.0)
    for k in range(steps):
        signal, v = predict_lanes(
            blocks, keep, S, before, after, M, found, m, A, Q, 2 * s * room.slot[k], inverse, gain, C,
            p.h + each_h * k * s, load(C, k * WIDTH),
        )  # fmt: skip
        R = load(C, p.noise + k * WIDTH)
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
        if keep != NOTHING:
            store(inverse, kept.inverse, k * WIDTH)
            store(gain, kept.gain, k * WIDTH)
            before, after, found, m = after, after + stride, m, m + s
        else:
            found, m = m, found
    settle(blocks, S, before, M, found, inverse, gain)
    store(logs, T, 0)
    store(product, T, WIDTH)
    store(squares, T, 2 * WIDTH)
    store(count, T, 3 * WIDTH)
    store(last, T, 4 * WIDTH)


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
