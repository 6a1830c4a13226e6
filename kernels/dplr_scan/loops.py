"""The compiled loops of `cpu.py`.

Pairs of states are treated in tiles of N, and everything that belongs to a tile lies in one array, a field every N
numbers. Distances known at compile time are what lets LLVM prove that fields do not overlap; without the proof the loops
over the pairs stay scalar. For the same reason two numbers come as the length of a tuple, which is known when a loop is
compiled: ``rank`` of zeros has the length of the low rank, ``groups`` that of the pairs in units of LANES.
"""

import numpy as np
from numba import njit

SEGMENT = 16  # steps between two stored states; the reverse sweep recomputes one segment at a time
LANES = 8
N = 32
FAST = {"contract", "reassoc", "nsz"}

# Fields of a tile, the real part and, N further, the imaginary one. First the system, as the caller hands it over.
LAMBDA, B, C, P, P2 = (2 * N * i for i in range(5))  # C is doubled
# The tables of one gap, with h half of it and E = 1/(1 - hΛ): hE, hEΛ, hEB, hEP.
E, EL, EB, EP, EP2 = (2 * N * i for i in range(5, 10))
STATE, INCREMENT = 20 * N, 22 * N
# Gradients: in the state, then in the system, in its order.
G, GL, GB, GC, GP, GP2 = (2 * N * i for i in range(12, 18))
TILE = 36 * N
# What the reverse sweep keeps of each step of a segment: the state before it, hEΛ and 2hE* P.
X, XEL, XEP, XEP2 = (2 * N * i for i in range(4))
ROW = 8 * N


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _discretise(half, rank, groups, tiles, work):
    """The tables of one gap; returns the rows of (1 + h P* E P)^{-1}."""
    one, two, zero = work.dtype.type(1), work.dtype.type(2), work.dtype.type(0)
    g11 = g12 = g21 = g22 = zero
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a = one - half * work[tile, LAMBDA + n]
            b = half * work[tile, LAMBDA + N + n]
            scale = half / (a * a + b * b)
            a *= scale
            b *= scale
            work[tile, E + n] = a
            work[tile, E + N + n] = b
            work[tile, EL + n] = a * work[tile, LAMBDA + n] - b * work[tile, LAMBDA + N + n]
            work[tile, EL + N + n] = a * work[tile, LAMBDA + N + n] + b * work[tile, LAMBDA + n]
            work[tile, EB + n] = a * work[tile, B + n] - b * work[tile, B + N + n]
            work[tile, EB + N + n] = a * work[tile, B + N + n] + b * work[tile, B + n]
            real = a * work[tile, P + n] - b * work[tile, P + N + n]
            imag = a * work[tile, P + N + n] + b * work[tile, P + n]
            work[tile, EP + n] = real
            work[tile, EP + N + n] = imag
            g11 += work[tile, P + n] * real + work[tile, P + N + n] * imag
            if len(rank) == 2:
                g21 += work[tile, P2 + n] * real + work[tile, P2 + N + n] * imag
                real = a * work[tile, P2 + n] - b * work[tile, P2 + N + n]
                imag = a * work[tile, P2 + N + n] + b * work[tile, P2 + n]
                work[tile, EP2 + n] = real
                work[tile, EP2 + N + n] = imag
                g12 += work[tile, P + n] * real + work[tile, P + N + n] * imag
                g22 += work[tile, P2 + n] * real + work[tile, P2 + N + n] * imag
    g11 = one + two * g11
    if len(rank) == 1:
        return one / g11, zero, zero, zero
    g12, g21, g22 = two * g12, two * g21, one + two * g22
    scale = one / (g11 * g22 - g12 * g21)
    return g22 * scale, -g12 * scale, -g21 * scale, g11 * scale


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _advance(u, rank, groups, tiles, solve, work):
    """One step of the state; returns y and P* of the step's midpoint."""
    zero, two = work.dtype.type(0), work.dtype.type(2)
    s1 = s2 = y = q2 = zero
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a, b = work[tile, STATE + n], work[tile, STATE + N + n]
            real = work[tile, EL + n] * a - work[tile, EL + N + n] * b + work[tile, EB + n] * u
            imag = work[tile, EL + n] * b + work[tile, EL + N + n] * a + work[tile, EB + N + n] * u
            work[tile, INCREMENT + n] = real
            work[tile, INCREMENT + N + n] = imag
            real += a
            imag += b
            s1 += work[tile, P + n] * real + work[tile, P + N + n] * imag
            if len(rank) == 2:
                s2 += work[tile, P2 + n] * real + work[tile, P2 + N + n] * imag
    q1 = two * (solve[0] * s1 + solve[1] * s2)
    if len(rank) == 2:
        q2 = two * (solve[2] * s1 + solve[3] * s2)
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            real = work[tile, INCREMENT + n] - q1 * work[tile, EP + n]
            imag = work[tile, INCREMENT + N + n] - q1 * work[tile, EP + N + n]
            if len(rank) == 2:
                real -= q2 * work[tile, EP2 + n]
                imag -= q2 * work[tile, EP2 + N + n]
            real = work[tile, STATE + n] + two * real
            imag = work[tile, STATE + N + n] + two * imag
            work[tile, STATE + n] = real
            work[tile, STATE + N + n] = imag
            y += work[tile, C + n] * real - work[tile, C + N + n] * imag
    return y, q1, q2


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _keep(rank, groups, tiles, work, rows, row):
    """hEΛ and 2hE* P of a step, for its way back."""
    two = work.dtype.type(2)
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            rows[row, tile, XEL + n] = work[tile, EL + n]
            rows[row, tile, XEL + N + n] = work[tile, EL + N + n]
            a, b = two * work[tile, E + n], two * work[tile, E + N + n]
            rows[row, tile, XEP + n] = a * work[tile, P + n] + b * work[tile, P + N + n]
            rows[row, tile, XEP + N + n] = a * work[tile, P + N + n] - b * work[tile, P + n]
            if len(rank) == 2:
                rows[row, tile, XEP2 + n] = a * work[tile, P2 + n] + b * work[tile, P2 + N + n]
                rows[row, tile, XEP2 + N + n] = a * work[tile, P2 + N + n] - b * work[tile, P2 + n]


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _repeat(u, q1, q2, rank, groups, tiles, work, rows, row):
    """The step again, now that P* of its midpoint is known; the state goes to ``work`` and to the next row."""
    two = work.dtype.type(2)
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a, b = work[tile, STATE + n], work[tile, STATE + N + n]
            real = work[tile, EL + n] * a - work[tile, EL + N + n] * b + work[tile, EB + n] * u - q1 * work[tile, EP + n]
            imag = work[tile, EL + n] * b + work[tile, EL + N + n] * a + work[tile, EB + N + n] * u
            imag -= q1 * work[tile, EP + N + n]
            if len(rank) == 2:
                real -= q2 * work[tile, EP2 + n]
                imag -= q2 * work[tile, EP2 + N + n]
            a += two * real
            b += two * imag
            work[tile, STATE + n] = a
            work[tile, STATE + N + n] = b
            rows[row + 1, tile, X + n] = a
            rows[row + 1, tile, X + N + n] = b


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _retreat(u, grad_y, half, q1, q2, rank, groups, tiles, solve, work, rows, row, table):
    """One step of the reverse sweep, from the gradient in the state after to that before; returns the one in u.

    The gradient at the step's midpoint stays in INCREMENT.
    """
    zero, two = work.dtype.type(0), work.dtype.type(2)
    s1 = s2 = p2 = grad_u = zero
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a = work[tile, G + n] + grad_y * work[tile, C + n]
            b = work[tile, G + N + n] - grad_y * work[tile, C + N + n]
            work[tile, G + n] = a
            work[tile, G + N + n] = b
            real = rows[table, tile, XEL + n] * a + rows[table, tile, XEL + N + n] * b
            imag = rows[table, tile, XEL + n] * b - rows[table, tile, XEL + N + n] * a
            work[tile, INCREMENT + n] = real
            work[tile, INCREMENT + N + n] = imag
            real += a
            imag += b
            s1 += work[tile, P + n] * real + work[tile, P + N + n] * imag
            if len(rank) == 2:
                s2 += work[tile, P2 + n] * real + work[tile, P2 + N + n] * imag
    p1 = solve[0] * s1 + solve[2] * s2
    if len(rank) == 2:
        p2 = solve[1] * s1 + solve[3] * s2
    step = two * half
    step_u, step_q1, step_q2, twice_p1, twice_p2 = step * u, step * q1, step * q2, two * p1, two * p2
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            real = work[tile, INCREMENT + n] - p1 * rows[table, tile, XEP + n]
            imag = work[tile, INCREMENT + N + n] - p1 * rows[table, tile, XEP + N + n]
            if len(rank) == 2:
                real -= p2 * rows[table, tile, XEP2 + n]
                imag -= p2 * rows[table, tile, XEP2 + N + n]
            a, b = work[tile, G + n] + real, work[tile, G + N + n] + imag
            work[tile, INCREMENT + n] = a
            work[tile, INCREMENT + N + n] = b
            work[tile, G + n] = a + real
            work[tile, G + N + n] = b + imag
            c, d = rows[row + 1, tile, X + n], rows[row + 1, tile, X + N + n]
            work[tile, GC + n] += grad_y * c
            work[tile, GC + N + n] -= grad_y * d
            c = half * (c + rows[row, tile, X + n])
            d = half * (d + rows[row, tile, X + N + n])
            grad_u += work[tile, B + n] * a + work[tile, B + N + n] * b
            work[tile, GB + n] += step_u * a
            work[tile, GB + N + n] += step_u * b
            work[tile, GL + n] += a * c + b * d
            work[tile, GL + N + n] += b * c - a * d
            work[tile, GP + n] -= step_q1 * a + twice_p1 * c
            work[tile, GP + N + n] -= step_q1 * b + twice_p1 * d
            if len(rank) == 2:
                work[tile, GP2 + n] -= step_q2 * a + twice_p2 * c
                work[tile, GP2 + N + n] -= step_q2 * b + twice_p2 * d
    return step * grad_u


@njit(forceinline=True, fastmath=FAST, error_model="numpy")
def _slope(u, q1, q2, rank, groups, tiles, work, rows, row):
    """The gradient in the gap: that at the midpoint times the state's derivative there."""
    half, slope = work.dtype.type(0.5), work.dtype.type(0)
    for tile in range(tiles):
        for n in range(LANES * len(groups)):
            a = half * (rows[row, tile, X + n] + rows[row + 1, tile, X + n])
            b = half * (rows[row, tile, X + N + n] + rows[row + 1, tile, X + N + n])
            real = work[tile, LAMBDA + n] * a - work[tile, LAMBDA + N + n] * b + work[tile, B + n] * u - q1 * work[tile, P + n]
            imag = work[tile, LAMBDA + n] * b + work[tile, LAMBDA + N + n] * a + work[tile, B + N + n] * u
            imag -= q1 * work[tile, P + N + n]
            if len(rank) == 2:
                real -= q2 * work[tile, P2 + n]
                imag -= q2 * work[tile, P2 + N + n]
            slope += real * work[tile, INCREMENT + n] + imag * work[tile, INCREMENT + N + n]
    return slope


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(first, last, rank, groups, u, dt, system, state, y, feedback, stored):
    """Of (record, channel) first..last−1: y (B, L, H), and in place the final state (B, H, tiles, 2 N).

    For the way back, where they are not empty: P* of the midpoints (B, H, L, rank) and the state before each segment
    (B, H, segments, tiles, 2 N).
    """
    _, L, H = u.shape
    tiles, real = system.shape[1], u.dtype.type
    half, tiny = real(0.5), real(1e-30)
    keep = stored.shape[2] > 0
    work = np.zeros((tiles, TILE), u.dtype)
    for task in range(first, last):
        b, h = task // H, task % H
        for tile in range(tiles):
            work[tile, :system.shape[2]] = system[h, tile]
            work[tile, STATE : STATE + 2 * N] = state[b, h, tile]
        gap = real(-1)
        solve = gap, gap, gap, gap
        for t in range(L):
            if t % SEGMENT == 0:
                for tile in range(tiles):
                    for i in range(2 * N):
                        # A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
                        x = work[tile, STATE + i]
                        x = x if abs(x) > tiny else real(0)
                        work[tile, STATE + i] = x
                        if keep:
                            stored[b, h, t // SEGMENT, tile, i] = x
            if dt[b, t] != gap:
                gap = dt[b, t]
                solve = _discretise(half * gap, rank, groups, tiles, work)
            y[b, t, h], q1, q2 = _advance(u[b, t, h], rank, groups, tiles, solve, work)
            if keep:
                feedback[b, h, t, 0] = q1
                if len(rank) == 2:
                    feedback[b, h, t, 1] = q2
        for tile in range(tiles):
            state[b, h, tile] = work[tile, STATE : STATE + 2 * N]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(
    first, last, rank, groups, u, dt, system, feedback, stored, grad_y, grad_state, grad_u, grad_dt, grad_system
):
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial
    one; ``grad_dt`` (B, H, L) and ``grad_system`` (B, H, tiles, fields) are left for the caller to sum.
    """
    _, L, H = u.shape
    tiles, fields, real = system.shape[1], system.shape[2], u.dtype.type
    half, tiny, q2 = real(0.5), real(1e-30), real(0)
    want_dt = grad_dt.shape[2] > 0
    work, rows = np.zeros((tiles, TILE), u.dtype), np.zeros((SEGMENT + 1, tiles, ROW), u.dtype)
    # Steps of one and the same gap share the tables of the first of them.
    table, solves = np.empty(SEGMENT, np.int64), np.empty((SEGMENT, 4), u.dtype)
    for task in range(first, last):
        b, h = task // H, task % H
        work[:] = 0
        for tile in range(tiles):
            work[tile, :fields] = system[h, tile]
            work[tile, G : G + 2 * N] = grad_state[b, h, tile]
        for segment in range((L - 1) // SEGMENT, -1, -1):
            start = segment * SEGMENT
            steps = min(SEGMENT, L - start)
            for tile in range(tiles):
                for i in range(2 * N):
                    x, g = stored[b, h, segment, tile, i], work[tile, G + i]
                    work[tile, STATE + i] = x
                    rows[0, tile, X + i] = x
                    work[tile, G + i] = g if abs(g) > tiny else real(0)
            for i in range(steps):
                t = start + i
                if i == 0 or dt[b, t] != dt[b, t - 1]:
                    solves[i] = _discretise(half * dt[b, t], rank, groups, tiles, work)
                    _keep(rank, groups, tiles, work, rows, i)
                    table[i] = i
                else:
                    table[i] = table[i - 1]
                if len(rank) == 2:
                    q2 = feedback[b, h, t, 1]
                _repeat(u[b, t, h], feedback[b, h, t, 0], q2, rank, groups, tiles, work, rows, i)
            for i in range(steps - 1, -1, -1):
                t, j = start + i, table[i]
                q1 = feedback[b, h, t, 0]
                if len(rank) == 2:
                    q2 = feedback[b, h, t, 1]
                solve = solves[j, 0], solves[j, 1], solves[j, 2], solves[j, 3]
                grad_u[b, t, h] = _retreat(
                    u[b, t, h], grad_y[b, t, h], half * dt[b, t], q1, q2, rank, groups, tiles, solve, work, rows,
                    i, j,
                )  # fmt: skip
                if want_dt:
                    grad_dt[b, h, t] = _slope(u[b, t, h], q1, q2, rank, groups, tiles, work, rows, i)
        for tile in range(tiles):
            grad_state[b, h, tile] = work[tile, G : G + 2 * N]
            grad_system[b, h, tile] = work[tile, GL : GL + fields]
