"""The exact gradient of one long record of three states or more: the way back over eight stretches side by side.

The way there leaves the moments before every chunk of steps; each chunk is filtered once more and swept back while it
is in a cache. The adjoints with which a stretch ends are what comes back from the record after it, and are forgotten as
the moments with which it began: a sweep from zero, some chunks further on, finds them. Where they do not agree with
those that the next stretch ends its way back with, nothing is taken.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from statespace.kernels.intrinsics import address_of, calling
from statespace.kernels.kalman_filter.blocks import ROTATION, TABLE
from statespace.kernels.kalman_filter.compiled import NO, ONE, entry, helper, shared
from statespace.kernels.kalman_filter.forward import forward_start
from statespace.kernels.kalman_filter.gradient import gradient_start
from statespace.kernels.kalman_filter.lane_adjoints import HALF, TURN, WHOLE, back_for, back_over_chunk
from statespace.kernels.kalman_filter.lane_tiles import (
    advance,
    borrowed_lanes,
    bytes_of_marks,
    copy_part,
    places,
    run,
)
from statespace.kernels.kalman_filter.lane_transitions import STEPS, contract_lanes
from statespace.kernels.kalman_filter.record import GAINS, TILES, State, borrowed_room
from statespace.kernels.kalman_filter.stretches import LOOK, filter_stretches, parts_for, stretch_of, suits
from statespace.kernels.kalman_filter.transposition import WIDTH, hand_out, load
from statespace.kernels.vectors import store

# what the moments before all chunks may take: those of a million samples of thirteen states
MARKS_BYTES = 64_000_000
# samples in which a diffuse start must be resolved
HEAD = 256
# chunks more than the moments needed to be forgotten, and how far adjoints may differ that agree
MORE, AGREED = 2, 1e-10


class Steps(NamedTuple):
    """Addresses of ``filter_stretches``, ``back_over_chunk`` and ``contract_lanes``."""

    filter: int
    back: int
    contract: int


_steps: list[Steps] = []

run_filter = calling(types.intp)


@helper()
def chunk_back(parts, steps_back, record, units, h, begin, steps, wanted, by_observation, room, way, back):
    """Filter a chunk again, from the moments in ``room``, and sweep it back."""
    blocks = len(units[1])
    keep = TILES if by_observation else GAINS
    for some in wanted:
        keep = TILES if some else keep
    advance(parts, record, units, h, begin, steps, room, keep, way)
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    run(steps_back.back, (blocks, each_h, each_R, steps, wanted, by_observation, room, way, back))


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
    parts, steps_back, record, units, h, first, length, last, state, looked, wanted, by_observation, room, way, back,
    by_R, by_h, b, out,
):  # fmt: skip
    """``filter_stretches``, then backwards; False where stretches end with moments or adjoints that were not found."""
    _, size, _ = units
    blocks = len(size)
    p = places(blocks)
    n = record.observation.shape[1]
    S, C, V, marks, at, stops = room.moments, room.chunk, back.adjoints, room.marks, room.at, room.stops
    chunks = (length + STEPS - 1) // STEPS
    given = parts, record, units, h, first, length, last, state, looked, chunks, room, way
    if run_filter(steps_back.filter, given) < last:
        return False
    forgotten = 0
    for l in range(WIDTH):
        forgotten = max(forgotten, room.agreed[l])
        at[l] = min(last, first + (l + 1) * length)
        stops[l] = min(last, at[l] + length)
    for i in range(len(V)):
        V[i] = 0.0
    # from further on to the end of each stretch
    for chunk in range(min(chunks, forgotten + MORE) - 1, -1, -1):
        for i in range(0, p.m, WIDTH):
            for l in range(WIDTH - 1):
                S[i + l] = marks[chunk * p.mark + i + l + 1]
            S[i + WIDTH - 1] = 0.0
        begin = chunk * STEPS
        chunk_back(
            parts, steps_back, record, units, h, begin, min(STEPS, length - begin), back.nothing, NO, room, way, back
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
        chunk_back(parts, steps_back, record, units, h, begin, steps, wanted, by_observation, room, way, back)
        slots = room.slot[steps - 1] + 1
        run(
            steps_back.contract,
            (record, units, begin, slots, at, stops, C, p.gaps, room.slot, room.A, room.Q, back.A_bar,
             back.Q_bar, back.sums, (1 + 2 * blocks) * WIDTH, out),
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


def gradient_in_stretches(record, units, origin, moving, by_observation, b, gradient, work):
    """Take ``b`` from after a record to before it and add to ``gradient``; the state after it.

    None where it is not possible or not worth while: ``b`` and ``gradient`` are of no use then.
    """
    T, (d, n), blocks = len(record.y), origin.diffuse.shape, len(units[1])
    if not suits(record, units, T - HEAD) or bytes_of_marks(blocks, stretch_of(T)[1]) > MARKS_BYTES:
        return None
    state = State(*(array.copy() for array in origin))
    first = 0
    with borrowed_room(HEAD if d else 0, n, d, TILES, blocks) as head:
        if d:
            first = forward_start(record, units, 0, HEAD, state, TILES, head, 0, work)
        if state.counts[0] > 0:
            return None
        with borrowed_lanes(blocks, n, stretch_of(T - first)[1]) as room:
            if not _after_start(record, units, first, T, state, moving, by_observation, b, gradient, room):
                return None
        if first:
            gradient_start(
                record, units, moving, by_observation, 0, first, 0, first, state.counts[2], origin, head, 0, b,
                gradient, work,
            )  # fmt: skip
    return state


def _after_start(record, units, first, last, state, moving, by_observation, b, gradient, room):
    """Samples first..last−1, and the transition into them."""
    length, chunks = stretch_of(last - first)
    h, parts = record.observation.reshape(-1), parts_for(record, units, room)
    looked = min(chunks, LOOK)
    way, back = back_for(len(units[1]), len(record.parameters))
    if not _steps:
        i = 0
        span = parts, record, units, h, i, i, i, state, i, i, room, way
        chunk = room.chunk, i, room.slot, room.A, room.Q, back.A_bar, back.Q_bar, back.sums, i, gradient
        _steps.append(
            Steps(
                address_of(filter_stretches, *span),
                address_of(back_over_chunk, i, i, i, i, back.nothing, False, room, way, back),
                address_of(contract_lanes, record, units, i, i, room.at, room.stops, *chunk),
            )
        )
    by_R, by_h = gradient.noise_variance, gradient.observation.reshape(-1)
    kind = units[0]
    wanted = np.where(kind == TABLE, WHOLE, np.where(kind == ROTATION, TURN, HALF)) * moving
    return gradient_stretches(
        parts, _steps[0], record, units, h, first, length, last, state, looked, wanted, by_observation, room, way, back,
        by_R, by_h, b, gradient,
    )  # fmt: skip
