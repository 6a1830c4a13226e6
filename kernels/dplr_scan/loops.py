"""The compiled loops of `cpu.py`.

Pairs of states are treated in tiles of N, and everything that belongs to a tile lies in one row of an array, a field every
N numbers. Distances known at compile time are what lets LLVM prove that fields do not overlap; without the proof the loops
over the pairs stay scalar. For the same reason two numbers come as the length of a tuple, which is known when a loop is
compiled: ``rank`` of zeros has the length of the low rank, ``groups`` that of the pairs in units of LANES.

A step has to wait for a sum over all pairs, P* x, before it can go on. Several channels, WAYS of them, therefore take
their steps in turn: while one waits, the processor works at the others.
"""

import numpy as np
from numba import njit

SEGMENT = 16  # steps between two stored states; the reverse sweep recomputes one segment at a time
LANES = 8
N = 32
WAYS = 2
FAST = {"contract", "reassoc", "nsz"}

# Fields of a tile, the real part and, N further, the imaginary one. First the system, as the caller hands it over.
LAMBDA, B, C, P, P2 = (2 * N * i for i in range(5))  # C is doubled
# With h half the gap: hE = h/(1 - hΛ).
E, STATE, INCREMENT = (2 * N * i for i in range(5, 8))
# Gradients: in the state, then in the system, in its order.
G, GL, GB, GC, GP, GP2 = (2 * N * i for i in range(8, 14))
TILE = 28 * N
# What the reverse sweep keeps of each step of a segment: the state before it, and hE.
X, XE = 0, 2 * N
ROW = 4 * N


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _discretise(half, rank, groups, tiles, work, way):
    """hE of one gap; returns the rows of (1 + h P* E P)^{-1}."""
    one, two, zero = work.dtype.type(1), work.dtype.type(2), work.dtype.type(0)
    g11 = g12 = g21 = g22 = zero
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a = one - half * work[way, tile, LAMBDA + n]
            b = half * work[way, tile, LAMBDA + N + n]
            scale = half / (a * a + b * b)
            a *= scale
            b *= scale
            work[way, tile, E + n] = a
            work[way, tile, E + N + n] = b
            c, d = work[way, tile, P + n], work[way, tile, P + N + n]
            g11 += a * (c * c + d * d)
            if len(rank) == 2:
                e, f = work[way, tile, P2 + n], work[way, tile, P2 + N + n]
                g22 += a * (e * e + f * f)
                e, f = c * e + d * f, c * f - d * e  # P̄ P₂
                g12 += a * e - b * f
                g21 += a * e + b * f
    g11 = one + two * g11
    if len(rank) == 1:
        return one / g11, zero, zero, zero
    g12, g21, g22 = two * g12, two * g21, one + two * g22
    scale = one / (g11 * g22 - g12 * g21)
    return g22 * scale, -g12 * scale, -g21 * scale, g11 * scale


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _advance(u, rank, groups, tiles, solve, work, way):
    """One step of the state; returns y and P* of the step's midpoint."""
    zero = work.dtype.type(0)
    s1 = r1 = s2 = r2 = y = q2 = zero
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a, b = work[way, tile, STATE + n], work[way, tile, STATE + N + n]
            c, d = work[way, tile, LAMBDA + n], work[way, tile, LAMBDA + N + n]
            real = c * a - d * b + work[way, tile, B + n] * u
            imag = c * b + d * a + work[way, tile, B + N + n] * u
            c, d = work[way, tile, E + n], work[way, tile, E + N + n]
            real, imag = c * real - d * imag, c * imag + d * real
            work[way, tile, INCREMENT + n] = real
            work[way, tile, INCREMENT + N + n] = imag
            real += a
            imag += b
            s1 += work[way, tile, P + n] * real
            r1 += work[way, tile, P + N + n] * imag
            if len(rank) == 2:
                s2 += work[way, tile, P2 + n] * real
                r2 += work[way, tile, P2 + N + n] * imag
    s1, s2 = s1 + r1, s2 + r2
    s1, s2 = s1 + s1, s2 + s2
    q1 = solve[0] * s1 + solve[1] * s2
    if len(rank) == 2:
        q2 = solve[2] * s1 + solve[3] * s2
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            c, d = q1 * work[way, tile, P + n], q1 * work[way, tile, P + N + n]
            if len(rank) == 2:
                c += q2 * work[way, tile, P2 + n]
                d += q2 * work[way, tile, P2 + N + n]
            a, b = work[way, tile, E + n], work[way, tile, E + N + n]
            real = work[way, tile, INCREMENT + n] - a * c + b * d
            imag = work[way, tile, INCREMENT + N + n] - a * d - b * c
            real += real + work[way, tile, STATE + n]
            imag += imag + work[way, tile, STATE + N + n]
            work[way, tile, STATE + n] = real
            work[way, tile, STATE + N + n] = imag
            y += work[way, tile, C + n] * real - work[way, tile, C + N + n] * imag
    return y, q1, q2


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _repeat(u, q1, q2, rank, groups, tiles, work, way, rows, row):
    """The step again, now that P* of its midpoint is known; hE and the state after it go to ``rows``."""
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a, b = work[way, tile, STATE + n], work[way, tile, STATE + N + n]
            c, d = work[way, tile, LAMBDA + n], work[way, tile, LAMBDA + N + n]
            real = c * a - d * b + work[way, tile, B + n] * u - q1 * work[way, tile, P + n]
            imag = c * b + d * a + work[way, tile, B + N + n] * u - q1 * work[way, tile, P + N + n]
            if len(rank) == 2:
                real -= q2 * work[way, tile, P2 + n]
                imag -= q2 * work[way, tile, P2 + N + n]
            c, d = work[way, tile, E + n], work[way, tile, E + N + n]
            real, imag = c * real - d * imag, c * imag + d * real
            a += real + real
            b += imag + imag
            work[way, tile, STATE + n] = a
            work[way, tile, STATE + N + n] = b
            rows[way, row + 1, tile, XE + n] = c
            rows[way, row + 1, tile, XE + N + n] = d
            rows[way, row + 1, tile, X + n] = a
            rows[way, row + 1, tile, X + N + n] = b


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _retreat(u, grad_y, half, q1, q2, rank, groups, tiles, solve, work, way, rows, row):
    """One step of the reverse sweep, from the gradient in the state after to that before; returns the one in u.

    The gradient at the step's midpoint stays in INCREMENT.
    """
    zero = work.dtype.type(0)
    s1 = r1 = s2 = r2 = p2 = grad_u = zero
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a = work[way, tile, G + n] + grad_y * work[way, tile, C + n]
            b = work[way, tile, G + N + n] - grad_y * work[way, tile, C + N + n]
            work[way, tile, G + n] = a
            work[way, tile, G + N + n] = b
            c, d = work[way, tile, LAMBDA + n], work[way, tile, LAMBDA + N + n]
            real, imag = c * a + d * b, c * b - d * a
            c, d = rows[way, row + 1, tile, XE + n], rows[way, row, tile, XE + N + n]
            real, imag = c * real + d * imag, c * imag - d * real
            work[way, tile, INCREMENT + n] = real
            work[way, tile, INCREMENT + N + n] = imag
            real += a
            imag += b
            s1 += work[way, tile, P + n] * real
            r1 += work[way, tile, P + N + n] * imag
            if len(rank) == 2:
                s2 += work[way, tile, P2 + n] * real
                r2 += work[way, tile, P2 + N + n] * imag
    s1, s2 = s1 + r1, s2 + r2
    s1, s2 = s1 + s1, s2 + s2
    p1 = solve[0] * s1 + solve[2] * s2
    if len(rank) == 2:
        p2 = solve[1] * s1 + solve[3] * s2
    step = half + half
    step_u, step_q1, step_q2 = step * u, step * q1, step * q2
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            c, d = p1 * work[way, tile, P + n], p1 * work[way, tile, P + N + n]
            if len(rank) == 2:
                c += p2 * work[way, tile, P2 + n]
                d += p2 * work[way, tile, P2 + N + n]
            a, b = rows[way, row + 1, tile, XE + n], rows[way, row, tile, XE + N + n]
            real = work[way, tile, INCREMENT + n] - a * c - b * d
            imag = work[way, tile, INCREMENT + N + n] - a * d + b * c
            a, b = work[way, tile, G + n] + real, work[way, tile, G + N + n] + imag
            work[way, tile, INCREMENT + n] = a
            work[way, tile, INCREMENT + N + n] = b
            work[way, tile, G + n] = a + real
            work[way, tile, G + N + n] = b + imag
            c, d = rows[way, row + 1, tile, X + n], rows[way, row + 1, tile, X + N + n]
            work[way, tile, GC + n] += grad_y * c
            work[way, tile, GC + N + n] -= grad_y * d
            c = half * (c + rows[way, row, tile, X + n])
            d = half * (d + rows[way, row, tile, X + N + n])
            grad_u += work[way, tile, B + n] * a + work[way, tile, B + N + n] * b
            work[way, tile, GB + n] += step_u * a
            work[way, tile, GB + N + n] += step_u * b
            work[way, tile, GL + n] += a * c + b * d
            work[way, tile, GL + N + n] += b * c - a * d
            work[way, tile, GP + n] -= step_q1 * a + p1 * c
            work[way, tile, GP + N + n] -= step_q1 * b + p1 * d
            if len(rank) == 2:
                work[way, tile, GP2 + n] -= step_q2 * a + p2 * c
                work[way, tile, GP2 + N + n] -= step_q2 * b + p2 * d
    return step * grad_u


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _slope(u, q1, q2, rank, groups, tiles, work, way, rows, row):
    """The gradient in the gap: that at the midpoint times the state's derivative there."""
    half, slope = work.dtype.type(0.5), work.dtype.type(0)
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a = half * (rows[way, row, tile, X + n] + rows[way, row + 1, tile, X + n])
            b = half * (rows[way, row, tile, X + N + n] + rows[way, row + 1, tile, X + N + n])
            c, d = work[way, tile, LAMBDA + n], work[way, tile, LAMBDA + N + n]
            real = c * a - d * b + work[way, tile, B + n] * u - q1 * work[way, tile, P + n]
            imag = c * b + d * a + work[way, tile, B + N + n] * u - q1 * work[way, tile, P + N + n]
            if len(rank) == 2:
                real -= q2 * work[way, tile, P2 + n]
                imag -= q2 * work[way, tile, P2 + N + n]
            slope += real * work[way, tile, INCREMENT + n] + imag * work[way, tile, INCREMENT + N + n]
    return slope


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(first, last, rank, groups, u, dt, system, state, y, feedback, stored):
    """Of tasks first..last−1, WAYS channels of a record each: y (B, L, H), and in place the final state (B, H, tiles, 2 N).

    For the way back, where they are not empty: P* of the midpoints (B, L, H, rank) and the state before each segment
    (B, H, segments, tiles, 2 N).
    """
    _, L, H = u.shape
    tiles, fields, real = system.shape[1], system.shape[2], u.dtype.type
    half, tiny = real(0.5), real(1e-30)
    keep = stored.shape[2] > 0
    work, solves = np.zeros((WAYS, tiles, TILE), u.dtype), np.zeros((WAYS, 4), u.dtype)
    per_record = (H + WAYS - 1) // WAYS
    for task in range(first, last):
        b, start = task // per_record, task % per_record * WAYS
        ways = min(WAYS, H - start)
        for way in range(ways):
            for tile in range(tiles):
                work[way, tile, :fields] = system[start + way, tile]
                work[way, tile, STATE : STATE + 2 * N] = state[b, start + way, tile]
        gap = real(-1)
        for t in range(L):
            if t % SEGMENT == 0:
                for way in range(ways):
                    for tile in range(tiles):
                        for i in range(2 * N):
                            # A dying state must not become subnormal: such numbers slow a processor a hundredfold.
                            x = work[way, tile, STATE + i]
                            x = x if abs(x) > tiny else real(0)
                            work[way, tile, STATE + i] = x
                            if keep:
                                stored[b, start + way, t // SEGMENT, tile, i] = x
            changed = dt[b, t] != gap
            gap = dt[b, t]
            for way in range(ways):
                h = start + way
                if changed:
                    solve = _discretise(half * gap, rank, groups, tiles, work, way)
                    solves[way, 0], solves[way, 1], solves[way, 2], solves[way, 3] = solve
                solve = solves[way, 0], solves[way, 1], solves[way, 2], solves[way, 3]
                y[b, t, h], q1, q2 = _advance(u[b, t, h], rank, groups, tiles, solve, work, way)
                if keep:
                    feedback[b, t, h, 0] = q1
                    if len(rank) == 2:
                        feedback[b, t, h, 1] = q2
        for way in range(ways):
            for tile in range(tiles):
                state[b, start + way, tile] = work[way, tile, STATE : STATE + 2 * N]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(
    first, last, rank, groups, u, dt, system, feedback, stored, grad_y, grad_state, grad_u, grad_dt, grad_system
):
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial
    one; ``grad_dt`` (B, L, H) and ``grad_system`` (B, H, tiles, fields) are left for the caller to sum.
    """
    _, L, H = u.shape
    tiles, fields, real = system.shape[1], system.shape[2], u.dtype.type
    half, tiny, q2 = real(0.5), real(1e-30), real(0)
    want_dt = grad_dt.shape[2] > 0
    work, rows = np.zeros((WAYS, tiles, TILE), u.dtype), np.zeros((WAYS, SEGMENT + 1, tiles, ROW), u.dtype)
    solves = np.zeros((WAYS, SEGMENT, 4), u.dtype)
    per_record = (H + WAYS - 1) // WAYS
    for task in range(first, last):
        b, begin = task // per_record, task % per_record * WAYS
        ways = min(WAYS, H - begin)
        work[:] = 0
        for way in range(ways):
            for tile in range(tiles):
                work[way, tile, :fields] = system[begin + way, tile]
                work[way, tile, G : G + 2 * N] = grad_state[b, begin + way, tile]
        for segment in range((L - 1) // SEGMENT, -1, -1):
            start = segment * SEGMENT
            steps = min(SEGMENT, L - start)
            for way in range(ways):
                h = begin + way
                for tile in range(tiles):
                    for i in range(2 * N):
                        x, g = stored[b, h, segment, tile, i], work[way, tile, G + i]
                        work[way, tile, STATE + i] = x
                        rows[way, 0, tile, X + i] = x
                        work[way, tile, G + i] = g if abs(g) > tiny else real(0)
                for i in range(steps):
                    t = start + i
                    if i == 0 or dt[b, t] != dt[b, t - 1]:
                        solve = _discretise(half * dt[b, t], rank, groups, tiles, work, way)
                        solves[way, i, 0], solves[way, i, 1], solves[way, i, 2], solves[way, i, 3] = solve
                    else:
                        for j in range(4):
                            solves[way, i, j] = solves[way, i - 1, j]
                    if len(rank) == 2:
                        q2 = feedback[b, t, h, 1]
                    _repeat(u[b, t, h], feedback[b, t, h, 0], q2, rank, groups, tiles, work, way, rows, i)
            for i in range(steps - 1, -1, -1):
                t = start + i
                for way in range(ways):
                    h = begin + way
                    q1 = feedback[b, t, h, 0]
                    if len(rank) == 2:
                        q2 = feedback[b, t, h, 1]
                    solve = solves[way, i, 0], solves[way, i, 1], solves[way, i, 2], solves[way, i, 3]
                    grad_u[b, t, h] = _retreat(
                        u[b, t, h], grad_y[b, t, h], half * dt[b, t], q1, q2, rank, groups, tiles, solve, work, way, rows, i
                    )
                    if want_dt:
                        grad_dt[b, t, h] = _slope(u[b, t, h], q1, q2, rank, groups, tiles, work, way, rows, i)
        for way in range(ways):
            for tile in range(tiles):
                grad_state[b, begin + way, tile] = work[way, tile, G : G + 2 * N]
                grad_system[b, begin + way, tile] = work[way, tile, GL : GL + fields]
