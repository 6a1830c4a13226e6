"""The smoother's backward sweep over several records at a time: ``smoothing.smooth_segment`` in vectors.

r and N are carried back over what ``lockstep.py`` left on the way there; 1/F = 0 and v = 0 stand for no observation.
"""

from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.adjoints import place
from statespace.kernels.kalman_filter.compiled import embedded, entry, helper
from statespace.kernels.kalman_filter.lockstep import CHUNK, board, group_ahead, land, prepare, width_of_way
from statespace.kernels.kalman_filter.record import PREDICTED
from statespace.kernels.kalman_filter.transposition import WIDTH, bring_in, hand_out, load, splat
from statespace.kernels.kalman_filter.vector_blocks import discretize_vectors
from statespace.kernels.vectors import somewhere, store, where


class Wanted(NamedTuple):
    """Flat arrays: the readout z (r n) or (T r n), and where means and (co)variances go; r = 0 for the whole state.

    ``vectors``: room for a chunk of z (CHUNK, r, n), of means and of covariances.
    """

    readout: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    vectors: np.ndarray


def vectors_carried(n):
    return 3 * n * n + 4 * n


@helper()
def back_over_gap(n, S, A, V, r, N, W, x):
    """r ← Aᵀ r, N ← Aᵀ N A."""
    for i in range(n):
        total = load(S, A + i * WIDTH) * load(V, r)
        for u in range(1, n):
            total = total + load(S, A + (u * n + i) * WIDTH) * load(V, r + u * WIDTH)
        store(total, V, x + i * WIDTH)
        for j in range(n):
            total = load(V, N + i * n * WIDTH) * load(S, A + j * WIDTH)
            for u in range(1, n):
                total = total + load(V, N + (i * n + u) * WIDTH) * load(S, A + (u * n + j) * WIDTH)
            store(total, V, W + (i * n + j) * WIDTH)
    for i in range(n):
        store(load(V, x + i * WIDTH), V, r + i * WIDTH)
        for j in range(i, n):
            total = load(S, A + i * WIDTH) * load(V, W + j * WIDTH)
            for u in range(1, n):
                total = total + load(S, A + (u * n + i) * WIDTH) * load(V, W + (u * n + j) * WIDTH)
            store(total, V, N + (i * n + j) * WIDTH)
            store(total, V, N + (j * n + i) * WIDTH)


@helper()
def back_over_sample(n, C, h, error, inverse, V, r, N, k, e):
    """r ← r + u h, N ← N − h eᵀ − e hᵀ + c h hᵀ with k = m/F, e = N k, u = v/F − k·r, c = 1/F + k·e."""
    u = error * inverse
    c = inverse
    for i in range(n):
        u = u - load(V, k + i * WIDTH) * load(V, r + i * WIDTH)
        x = load(V, N + i * n * WIDTH) * load(V, k)
        for j in range(1, n):
            x = x + load(V, N + (i * n + j) * WIDTH) * load(V, k + j * WIDTH)
        store(x, V, e + i * WIDTH)
        c = c + load(V, k + i * WIDTH) * x
    for i in range(n):
        h_i = load(C, h + i * WIDTH)
        store(load(V, r + i * WIDTH) + u * h_i, V, r + i * WIDTH)
        for j in range(i, n):
            h_j = load(C, h + j * WIDTH)
            x = load(V, N + (i * n + j) * WIDTH) - h_i * load(V, e + j * WIDTH) - load(V, e + i * WIDTH) * h_j
            x = x + c * h_i * h_j
            store(x, V, N + (i * n + j) * WIDTH)
            store(x, V, N + (j * n + i) * WIDTH)


@helper()
def read_out(n, S, P, V, r, N, x, B, z, mean, variance):
    """z·(a + P r) and z V zᵀ of V = P − P N P."""
    total = splat(0.0)
    spread = splat(0.0)
    for i in range(n):
        y = load(S, P + i * n * WIDTH) * load(B, z)
        for j in range(1, n):
            y = y + load(S, P + (i * n + j) * WIDTH) * load(B, z + j * WIDTH)
        store(y, V, x + i * WIDTH)
        z_i = load(B, z + i * WIDTH)
        total = total + z_i * load(S, i * WIDTH) + y * load(V, r + i * WIDTH)
        spread = spread + z_i * y
    for i in range(n):
        y = load(V, N + i * n * WIDTH) * load(V, x)
        for j in range(1, n):
            y = y + load(V, N + (i * n + j) * WIDTH) * load(V, x + j * WIDTH)
        spread = spread - load(V, x + i * WIDTH) * y
    store(total, B, mean)
    store(where(spread > 0.0, spread, splat(0.0)), B, variance)


@helper()
def whole_state(n, S, P, V, r, N, W, B, mean, covariance):
    """a + P r and V = P − P N P."""
    for i in range(n):
        x = load(S, i * WIDTH)
        for j in range(n):
            x = x + load(S, P + (i * n + j) * WIDTH) * load(V, r + j * WIDTH)
            y = load(V, N + i * n * WIDTH) * load(S, P + j * WIDTH)
            for u in range(1, n):
                y = y + load(V, N + (i * n + u) * WIDTH) * load(S, P + (u * n + j) * WIDTH)
            store(y, V, W + (i * n + j) * WIDTH)
        store(x, B, mean + i * WIDTH)
    for i in range(n):
        for j in range(i, n):
            # the mean of what two orders of the product give, which rounding parts
            x = splat(0.0)
            y = splat(0.0)
            for u in range(n):
                x = x + load(S, P + (i * n + u) * WIDTH) * load(V, W + (u * n + j) * WIDTH)
                y = y + load(S, P + (j * n + u) * WIDTH) * load(V, W + (u * n + i) * WIDTH)
            x = load(S, P + (i * n + j) * WIDTH) - 0.5 * (x + y)
            if i == j:
                x = where(x > 0.0, x, splat(0.0))
            store(x, B, covariance + (i * n + j) * WIDTH)
            store(x, B, covariance + (j * n + i) * WIDTH)


@embedded()
def group_behind(n, record, units, flat, longest, room, V, way, rows, wanted):
    """From the last step of a group to its first, before which r and N stay in ``V``; ``rows``: r of the readout."""
    S, C, _, _, scratch, at, stops = room
    z, means, variances, B = wanted
    P = n * WIDTH
    A = P + 2 * n * n * WIDTH
    Q = A + n * n * WIDTH
    r = 0
    N = n * WIDTH
    W = N + n * n * WIDTH
    k = W + n * n * WIDTH
    x = k + n * WIDTH
    width = rows if rows > 0 else n
    width_2 = rows if rows > 0 else n * n
    to_means = CHUNK * rows * n * WIDTH
    to_variances = to_means + CHUNK * width * WIDTH
    for i in range(len(V)):
        V[i] = 0.0
    known = splat(-1.0)
    following = splat(-1.0)
    begin = longest
    for t in range(longest - 1, -1, -1):
        if t < begin:
            begin = t // CHUNK * CHUNK
            size = t + 1 - begin
            if len(flat.observation) > n:
                bring_in(flat.observation, n, begin, size, at, stops, 0.0, C, 3 * CHUNK * WIDTH, scratch)
            if len(z) > rows * n:
                bring_in(z, rows * n, begin, size, at, stops, 0.0, B, 0, scratch)
        h = (3 * CHUNK + (t - begin) * n) * WIDTH
        w = t * width_of_way(n) * WIDTH
        error = load(way, w + WIDTH)
        inverse = load(way, w + 2 * WIDTH)
        for i in range(n):
            store(load(way, w + (place(n, i, i) - 1) * WIDTH), S, i * WIDTH)
            for j in range(i, n):
                y = load(way, w + place(n, i, j) * WIDTH)
                store(y, S, P + (i * n + j) * WIDTH)
                store(y, S, P + (j * n + i) * WIDTH)
        for i in range(n):
            y = load(S, P + i * n * WIDTH) * load(C, h)
            for j in range(1, n):
                y = y + load(S, P + (i * n + j) * WIDTH) * load(C, h + j * WIDTH)
            store(y * inverse, V, k + i * WIDTH)
        if t + 1 < longest:
            if somewhere(following != known):
                known = following
                discretize_vectors(record, units, n, known, S, A, Q, scratch)
            back_over_gap(n, S, A, V, r, N, W, x)
        following = load(way, w)
        back_over_sample(n, C, h, error, inverse, V, r, N, k, x)
        mean = to_means + (t - begin) * width * WIDTH
        variance = to_variances + (t - begin) * width_2 * WIDTH
        if rows == 0:
            whole_state(n, S, P, V, r, N, W, B, mean, variance)
        for q in range(rows):
            read_out(
                n, S, P, V, r, N, x, B, ((t - begin) * rows + q) * n * WIDTH, mean + q * WIDTH, variance + q * WIDTH
            )
        if t == begin:
            size = min(CHUNK, longest - begin)
            hand_out(B, to_means, width, begin, size, at, stops, means, scratch)
            hand_out(B, to_variances, width_2, begin, size, at, stops, variances, scratch)


@entry(nogil=True)
def smooth_lanes(
    states, first, last, members, starts, found, record, units, flat, values, rows, wanted, before_r, before_N, room, V,
    way,
):  # fmt: skip
    """The groups first..last−1; leaves r and N where each record's lane begins."""
    n = len(states)
    prepare(n, flat, room)
    for k in range(CHUNK if len(wanted.readout) == rows * n else 0):
        for j in range(rows * n):
            store(splat(wanted.readout[j]), wanted.vectors, (k * rows * n + j) * WIDTH)
    for g in range(first, last):
        longest = board(n, members[g], starts, found, room)
        group_ahead(n, record, units, flat, longest, room, PREDICTED, way)
        land(members[g], room.totals, values)
        group_behind(n, record, units, flat, longest, room, V, way, rows, wanted)
        for l in range(WIDTH):
            i = members[g, l]
            for j in range(n if i >= 0 else 0):
                before_r[i, j] = V[j * WIDTH + l]
                for k in range(n):
                    before_N[i, j, k] = V[(n + j * n + k) * WIDTH + l]
