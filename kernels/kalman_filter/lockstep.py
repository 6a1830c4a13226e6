"""The filter's forward sweep over several records at a time: each has a lane of the vectors that are computed with.

The records of a group take their samples in step. A shorter one is padded with missing samples after gaps of 0, which
leave a state as it is; what only some records need is computed for all and taken where it holds. So each lane gets what
it would get in any other group. A sweep begins where nothing is diffuse any more.
"""

from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.compiled import embedded, entry, helper, shared
from statespace.kernels.kalman_filter.record import FILTERED, PREDICTED
from statespace.kernels.kalman_filter.transposition import WIDTH, bring_in, hand_out, load, splat
from statespace.kernels.kalman_filter.vector_blocks import discretize_vectors
from statespace.kernels.vectors import somewhere, store, where

# samples of every record that are brought side by side at once; a multiple of the lanes
CHUNK = 32


class Flat(NamedTuple):
    """Arrays over samples with one axis: what is read, and what a filter leaves (empty where nothing is kept)."""

    y: np.ndarray
    dt: np.ndarray
    noise_variance: np.ndarray
    observation: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    innovation: np.ndarray
    variance: np.ndarray


class Room(NamedTuple):
    """Room for a group: moments and matrices, a chunk of samples, totals, what a chunk leaves, where each lane stands.

    ``moments``: a (n), P, A P, A, Q (n, n) and a vector (n). ``chunk``: y, Δ, R (CHUNK) and h (CHUNK, n). ``totals``:
    as in ``State``, and the number of samples observed. ``results``: a, P, v, F (CHUNK, …). All are vectors.
    """

    moments: np.ndarray
    chunk: np.ndarray
    totals: np.ndarray
    results: np.ndarray
    scratch: np.ndarray
    at: np.ndarray
    stops: np.ndarray


@helper()
def predict(n, S, P, U, A, Q, m):
    """a ← A a, P ← A P Aᵀ + Q. With so few states, zeros of A cost less than to know where they are."""
    for i in range(n):
        for j in range(n):
            x = load(S, A + i * n * WIDTH) * load(S, P + j * WIDTH)
            for u in range(1, n):
                x = x + load(S, A + (i * n + u) * WIDTH) * load(S, P + (u * n + j) * WIDTH)
            store(x, S, U + (i * n + j) * WIDTH)
        x = load(S, A + i * n * WIDTH) * load(S, 0)
        for u in range(1, n):
            x = x + load(S, A + (i * n + u) * WIDTH) * load(S, u * WIDTH)
        store(x, S, m + i * WIDTH)
    for i in range(n):
        store(load(S, m + i * WIDTH), S, i * WIDTH)
        for j in range(i, n):
            x = load(S, Q + (i * n + j) * WIDTH)
            for u in range(n):
                x = x + load(S, U + (i * n + u) * WIDTH) * load(S, A + (j * n + u) * WIDTH)
            store(x, S, P + (i * n + j) * WIDTH)
            store(x, S, P + (j * n + i) * WIDTH)


@helper()
def side_by_side(flat, n, begin, size, at, stops, C, scratch):
    """A chunk of each lane's y, Δ, R and h, where these are not the same for all."""
    bring_in(flat.y, 1, begin, size, at, stops, np.nan, C, 0, scratch)
    bring_in(flat.dt, 1, begin, size, at, stops, 0.0, C, CHUNK * WIDTH, scratch)
    if len(flat.noise_variance) > 1:
        bring_in(flat.noise_variance, 1, begin, size, at, stops, 1.0, C, 2 * CHUNK * WIDTH, scratch)
    if len(flat.observation) > n:
        bring_in(flat.observation, n, begin, size, at, stops, 0.0, C, 3 * CHUNK * WIDTH, scratch)


@helper()
def prepare(n, flat, room):
    """No moments; A the identity, of which only what depends on gaps is written; the R and h that all samples share."""
    S, C = room.moments, room.chunk
    for i in range(len(S)):
        S[i] = 0.0
    for i in range(n):
        store(splat(1.0), S, (n + 2 * n * n + i * n + i) * WIDTH)
    for k in range(CHUNK if len(flat.noise_variance) == 1 else 0):
        store(splat(flat.noise_variance[0]), C, (2 * CHUNK + k) * WIDTH)
    for k in range(CHUNK if len(flat.observation) == n else 0):
        for j in range(n):
            store(splat(flat.observation[j]), C, (3 * CHUNK + k * n + j) * WIDTH)


@shared()
def logarithms(product, logs, scratch):
    """Take the logarithm of the products that near over- or underflow."""
    store(product, scratch, 0)
    store(logs, scratch, WIDTH)
    for l in range(WIDTH):
        if not 1e-140 < scratch[l] < 1e140:
            scratch[WIDTH + l] += np.log(scratch[l])
            scratch[l] = 1.0


@helper()
def width_of_way(n):
    """Vectors that a step leaves for the way back: Δ, v, 1/F, and row by row a_i and P_ij, j ≥ i."""
    return 3 + n + n * (n + 1) // 2


@helper()
def leave(n, S, P, gap, error, inverse, way, w):
    store(gap, way, w)
    store(error, way, w + WIDTH)
    store(inverse, way, w + 2 * WIDTH)
    w += 3 * WIDTH
    for i in range(n):
        store(load(S, i * WIDTH), way, w)
        w += WIDTH
        for j in range(i, n):
            store(load(S, P + (i * n + j) * WIDTH), way, w)
            w += WIDTH


@embedded()
def group_ahead(n, record, units, flat, longest, room, keep, way):
    """One group of records, from the moments and the totals in ``room`` on."""
    S, C, T, O, scratch, at, stops = room
    P = n * WIDTH
    U = P + n * n * WIDTH
    A = U + n * n * WIDTH
    Q = A + n * n * WIDTH
    m = Q + n * n * WIDTH
    kept_P = CHUNK * n * WIDTH
    kept_v = kept_P + CHUNK * n * n * WIDTH
    kept_F = kept_v + CHUNK * WIDTH
    logs = load(T, 0)
    product = load(T, WIDTH)
    squares = load(T, 2 * WIDTH)
    before = load(T, 3 * WIDTH)
    count = load(T, 4 * WIDTH)
    known = splat(-1.0)
    for begin in range(0, longest, CHUNK):
        size = min(CHUNK, longest - begin)
        side_by_side(flat, n, begin, size, at, stops, C, scratch)
        for k in range(size):
            y = load(C, k * WIDTH)
            gap = load(C, (CHUNK + k) * WIDTH)
            R = load(C, (2 * CHUNK + k) * WIDTH)
            h = (3 * CHUNK + k * n) * WIDTH
            if somewhere(gap != known):
                discretize_vectors(record, units, n, gap, S, A, Q, scratch)
                known = gap
            predict(n, S, P, U, A, Q, m)
            v = y
            signal = splat(0.0)
            for i in range(n):
                v = v - load(C, h + i * WIDTH) * load(S, i * WIDTH)
                x = load(S, P + i * n * WIDTH) * load(C, h)
                for j in range(1, n):
                    x = x + load(S, P + (i * n + j) * WIDTH) * load(C, h + j * WIDTH)
                store(x, S, m + i * WIDTH)
                signal = signal + x * load(C, h + i * WIDTH)
            signal = where(signal > 0.0, signal, splat(0.0))
            F = signal + R
            seen = v == v
            certain = seen & (R == 0.0) & (signal <= 1e-14 * before)
            if somewhere(certain):
                # see ``sweep.is_certain`` and ``sweep.contradicts``
                seen = seen & ~certain
                wrong = certain & (v * v > 1e-14 * before + 1e-16 * (y * y))
                squares = where(wrong, splat(np.inf), squares)
            inverse = where(seen, 1.0 / F, splat(0.0))
            error = where(seen, v, splat(0.0))
            if keep == PREDICTED:
                leave(n, S, P, gap, error, inverse, way, (begin + k) * width_of_way(n) * WIDTH)
            squares = squares + error * (error * inverse)
            before = where(seen, F, before)
            count = count + where(seen, splat(1.0), splat(0.0))
            product = product * where(seen, F, splat(1.0))
            if somewhere((product <= 1e-140) | (product >= 1e140)):
                logarithms(product, logs, scratch)
                product = load(scratch, 0)
                logs = load(scratch, WIDTH)
            little = seen & (F >= 1e4 * R)
            careful = somewhere(little)
            for i in range(n):
                x = load(S, m + i * WIDTH)
                gain = x * inverse
                if careful:
                    # little is left of P: what cancels must cancel to the last digit
                    gain = where(little, x / F, gain)
                store(load(S, i * WIDTH) + gain * error, S, i * WIDTH)
                for j in range(i, n):
                    x = load(S, P + (i * n + j) * WIDTH) - gain * load(S, m + j * WIDTH)
                    store(x, S, P + (i * n + j) * WIDTH)
                    store(x, S, P + (j * n + i) * WIDTH)
            if keep == FILTERED:
                for j in range(n):
                    store(load(S, j * WIDTH), O, (k * n + j) * WIDTH)
                for j in range(n * n):
                    store(load(S, P + j * WIDTH), O, kept_P + (k * n * n + j) * WIDTH)
                store(v, O, kept_v + k * WIDTH)
                store(F, O, kept_F + k * WIDTH)
        if keep == FILTERED:
            hand_out(O, 0, n, begin, size, at, stops, flat.mean, scratch)
            hand_out(O, kept_P, n * n, begin, size, at, stops, flat.covariance, scratch)
            hand_out(O, kept_v, 1, begin, size, at, stops, flat.innovation, scratch)
            hand_out(O, kept_F, 1, begin, size, at, stops, flat.variance, scratch)
    store(logs, T, 0)
    store(product, T, WIDTH)
    store(squares, T, 2 * WIDTH)
    store(before, T, 3 * WIDTH)
    store(count, T, 4 * WIDTH)


@shared()
def board(n, members, starts, found, room):
    """Give the records of a group their lanes; returns how many steps the longest has."""
    S, T, at, stops = room.moments, room.totals, room.at, room.stops
    longest = 0
    each = len(found.mean) > 1
    for l in range(WIDTH):
        i = members[l]
        row = i if each else 0
        at[l] = found.begin[i] if i >= 0 else 0
        stops[l] = starts[i + 1] if i >= 0 else 0
        longest = max(longest, stops[l] - at[l])
        for j in range(n):
            S[j * WIDTH + l] = found.mean[row, j] if i >= 0 else 0.0
            for k in range(n):
                S[(n + j * n + k) * WIDTH + l] = found.covariance[row, j, k] if i >= 0 else 0.0
        for q in range(5):
            T[q * WIDTH + l] = found.totals[row, q] if i >= 0 else 0.0
        if i < 0:
            T[WIDTH + l] = 1.0
    return longest


@shared()
def land(members, T, values):
    """The log-likelihoods of a group."""
    for l in range(WIDTH):
        i = members[l]
        if i >= 0:
            total = T[l] + np.log(T[WIDTH + l]) + T[2 * WIDTH + l]
            values[i] = -0.5 * (total + T[4 * WIDTH + l] * np.log(2.0 * np.pi))


@entry(nogil=True)
def filter_lanes(states, first, last, members, starts, found, record, units, flat, keep, values, room):
    """The groups first..last−1. ``states`` has one entry for each, so that the compiler knows their number."""
    n = len(states)
    prepare(n, flat, room)
    for g in range(first, last):
        longest = board(n, members[g], starts, found, room)
        group_ahead(n, record, units, flat, longest, room, keep, room.totals)
        land(members[g], room.totals, values)
