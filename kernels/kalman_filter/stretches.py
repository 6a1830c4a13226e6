"""One long record of three states or more: eight stretches of it side by side, in the lanes of vectors.

A filter forgets where it began. Eight stretches of equal length are filtered in step, the first from the moments that
are known, the others from a guess. Then each sweep goes on into the next stretch, from what is now known to be its
beginning, until its moments agree with those that were found there: from that sample on the first pass was right. Of a
stretch whose beginning is not forgotten in time, and of all after it, nothing is taken: the usual sweep goes on there.
"""

import numpy as np

from statespace.kernels.intrinsics import address_of
from statespace.kernels.kalman_filter.compiled import entry, helper, shared
from statespace.kernels.kalman_filter.lane_tiles import (
    NO_WAY,
    TOTALS,
    Parts,
    advance,
    bring_chunk,
    copy_part,
    filter_chunk,
    gather_moments,
    lanes_for,
    places,
    prepare,
    spread_moments,
)
from statespace.kernels.kalman_filter.lane_transitions import KINDS, STEPS, discretize_lanes
from statespace.kernels.kalman_filter.record import NOTHING
from statespace.kernels.kalman_filter.transposition import WIDTH, load, splat
from statespace.kernels.vectors import store, where

# samples from which it pays
SHORTEST = 2048
# chunks of a stretch in which its beginning must be forgotten
LOOK = 128
# how far moments may differ that agree, in standard deviations, and beside the rounding of y
AGREED, ROUNDING = 1e-12, 2e-15
# Chunks in which means that begin apart must come near to one another, in standard deviations, and how near they must
# have come in the end.
PILOT, NEAR, STILL_NEAR = 8, 1e-3, 0.03

_KNOWN = frozenset(KINDS)
_parts: list[Parts] = []


@helper()
def begin_totals(T, first):
    for i in range(TOTALS * WIDTH):
        T[first + i] = 1.0 if i // WIDTH == 1 else 0.0


@helper()
def add_total(T, first, l, totals, counts):
    totals[0] += T[first + l] + np.log(T[first + WIDTH + l])
    totals[2] += T[first + 2 * WIDTH + l]
    counts[1] += np.int64(T[first + 3 * WIDTH + l])


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
    # of the variances before the last sample
    q = p.P
    for b in range(blocks):
        for i in range(2):
            m = load(S, p.m + (2 * b + i) * WIDTH)
            store(1.0 / (load(S, q + 2 * i * WIDTH) + m * m * inverse), S, p.turned + (2 * b + i) * WIDTH)
        q += (3 + 4 * (blocks - b - 1)) * WIDTH
    q = p.P
    for b in range(blocks):
        for i in range(size[b]):
            j = (2 * b + i) * WIDTH
            x = load(S, j) - load(marks, mark + j)
            agreed = agreed & ((x == 0.0) | (x * (x * load(S, p.turned + j)) <= slack))
        for c in range(b, blocks):
            for i in range(2):
                for j in range(2):
                    if c > b or j >= i:
                        if i < size[b] and j < size[c]:
                            x = load(S, q) - load(marks, mark + q)
                            one = x * load(S, p.turned + (2 * b + i) * WIDTH)
                            other = x * load(S, p.turned + (2 * c + j) * WIDTH)
                            agreed = agreed & ((x == 0.0) | (one * other <= AGREED * AGREED))
                        q += WIDTH
    store(where(agreed, splat(1.0), splat(0.0)), scratch, 0)


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
        advance(parts, record, units, h, chunk * STEPS, STEPS, room, NOTHING, kept)
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
        advance(parts, record, units, h, begin, min(STEPS, length - begin), room, NOTHING, kept)
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
        advance(parts, record, units, h, chunk * STEPS, min(STEPS, length - chunk * STEPS), room, NOTHING, kept)
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
                address_of(filter_chunk, i, i, i, room, i, NO_WAY),
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
