"""The filter's forward sweep over several records at a time: each has a lane of the vectors that are computed with.

The records of a group take their samples in step. What a record has not got, because it is shorter, is padded with missing
samples after gaps of 0, which leave a state as it is; what only some records need is computed for all and taken where it
holds. So each lane gets what it would get in any other group. A sweep begins where nothing is diffuse any more.
"""

import numpy as np

from statespace.kernels.kalman_filter.compiled import entry, helper, shared
from statespace.kernels.kalman_filter.record import FILTERED, PREDICTED
from statespace.kernels.kalman_filter.vector_blocks import discretize_vectors
from statespace.kernels.kalman_filter.vectors import WIDTH, load, somewhere, splat, store, where

# samples of every record that are brought side by side at once
CHUNK = 32


@helper()
def predict(n, S, a, P, U, A, Q, m):
    """a ← A a, P ← A P Aᵀ + Q. With so few states, zeros of A cost less than to know where they are."""
    for i in range(n):
        for j in range(n):
            x = load(S, A + i * n * WIDTH) * load(S, P + j * WIDTH)
            for u in range(1, n):
                x = x + load(S, A + (i * n + u) * WIDTH) * load(S, P + (u * n + j) * WIDTH)
            store(x, S, U + (i * n + j) * WIDTH)
        x = load(S, A + i * n * WIDTH) * load(S, a)
        for u in range(1, n):
            x = x + load(S, A + (i * n + u) * WIDTH) * load(S, a + u * WIDTH)
        store(x, S, m + i * WIDTH)
    for i in range(n):
        store(load(S, m + i * WIDTH), S, a + i * WIDTH)
        for j in range(i, n):
            x = load(S, Q + (i * n + j) * WIDTH)
            for u in range(n):
                x = x + load(S, U + (i * n + u) * WIDTH) * load(S, A + (j * n + u) * WIDTH)
            store(x, S, P + (i * n + j) * WIDTH)
            store(x, S, P + (j * n + i) * WIDTH)


@helper()
def side_by_side(record, each_R, each_h, n, begin, at, stops, steps, C):
    """Samples begin..begin+steps−1 of each lane's rest into ``C``: y, Δ, R and h, each (CHUNK, WIDTH)."""
    for l in range(WIDTH):
        first = at[l] + begin
        have = max(0, min(steps, stops[l] - first))
        for k in range(have):
            t = first + k
            C[k * WIDTH + l] = record.y[t]
            C[(CHUNK + k) * WIDTH + l] = record.dt[t]
        for k in range(have, steps):
            C[k * WIDTH + l] = np.nan
            C[(CHUNK + k) * WIDTH + l] = 0.0
        if each_R:
            for k in range(have):
                C[(2 * CHUNK + k) * WIDTH + l] = record.noise_variance[first + k]
            for k in range(have, steps):
                C[(2 * CHUNK + k) * WIDTH + l] = 1.0
        if each_h:
            for j in range(n):
                for k in range(have):
                    C[((3 + j) * CHUNK + k) * WIDTH + l] = record.observation[first + k, j]
                for k in range(have, steps):
                    C[((3 + j) * CHUNK + k) * WIDTH + l] = 0.0


@helper()
def constants_side_by_side(record, n, C):
    for k in range(CHUNK if len(record.noise_variance) == 1 else 0):
        store(splat(record.noise_variance[0]), C, (2 * CHUNK + k) * WIDTH)
    for j in range(n if len(record.observation) == 1 else 0):
        for k in range(CHUNK):
            store(splat(record.observation[0, j]), C, ((3 + j) * CHUNK + k) * WIDTH)


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
def clear(n, S, A):
    """No moments, and A the identity, of which only what depends on gaps is written."""
    for i in range(len(S)):
        S[i] = 0.0
    for i in range(n):
        store(splat(1.0), S, A + (i * n + i) * WIDTH)


@helper()
def width_of_way(n):
    """Vectors that a step leaves for the way back: Δ, v, 1/F, and row by row a and the upper triangle of P."""
    return 3 + n + n * (n + 1) // 2


@helper()
def group(n, record, units, longest, at, stops, S, C, T, scratch, keep, O, way, kept):
    """One group of records, from the moments in ``S`` and the totals in ``T`` on."""
    each_R = len(record.noise_variance) > 1
    each_h = len(record.observation) > 1
    a = 0
    P = n * WIDTH
    U = P + n * n * WIDTH
    A = U + n * n * WIDTH
    Q = A + n * n * WIDTH
    m = Q + n * n * WIDTH
    logs = load(T, 0)
    product = load(T, WIDTH)
    squares = load(T, 2 * WIDTH)
    before = load(T, 3 * WIDTH)
    count = load(T, 4 * WIDTH)
    known = splat(-1.0)
    for begin in range(0, longest, CHUNK):
        size = min(CHUNK, longest - begin)
        side_by_side(record, each_R, each_h, n, begin, at, stops, size, C)
        for k in range(size):
            y = load(C, k * WIDTH)
            gap = load(C, (CHUNK + k) * WIDTH)
            R = load(C, (2 * CHUNK + k) * WIDTH)
            if somewhere(gap != known):
                discretize_vectors(record, units, n, gap, S, A, Q, scratch)
                known = gap
            predict(n, S, a, P, U, A, Q, m)
            h = (3 * CHUNK + k) * WIDTH
            v = y - load(C, h) * load(S, a)
            for j in range(1, n):
                v = v - load(C, h + j * CHUNK * WIDTH) * load(S, a + j * WIDTH)
            signal = splat(0.0)
            for i in range(n):
                x = load(S, P + i * n * WIDTH) * load(C, h)
                for j in range(1, n):
                    x = x + load(S, P + (i * n + j) * WIDTH) * load(C, h + j * CHUNK * WIDTH)
                store(x, S, m + i * WIDTH)
                signal = signal + x * load(C, h + i * CHUNK * WIDTH)
            signal = where(signal > 0.0, signal, splat(0.0))
            F = signal + R
            seen = v == v
            certain = seen & (R == 0.0) & (signal <= 1e-14 * before)
            if somewhere(certain):
                seen = seen & ~certain
                wrong = certain & (v * v > 1e-14 * before + 1e-16 * (y * y))
                squares = where(wrong, splat(np.inf), squares)
            inverse = where(seen, 1.0 / F, splat(0.0))
            error = where(seen, v, splat(0.0))
            if keep == PREDICTED:
                w = (begin + k) * width_of_way(n) * WIDTH
                store(gap, way, w)
                store(error, way, w + WIDTH)
                store(inverse, way, w + 2 * WIDTH)
                w += 3 * WIDTH
                for i in range(n):
                    store(load(S, a + i * WIDTH), way, w)
                    w += WIDTH
                    for j in range(i, n):
                        store(load(S, P + (i * n + j) * WIDTH), way, w)
                        w += WIDTH
            squares = squares + error * (error * inverse)
            before = where(seen, F, before)
            count = count + where(seen, splat(1.0), splat(0.0))
            product = product * where(seen, F, splat(1.0))
            if somewhere((product <= 1e-140) | (product >= 1e140)):
                logarithms(product, logs, scratch)
                product = load(scratch, 0)
                logs = load(scratch, WIDTH)
            little = F >= 1e4 * R
            careful = somewhere(little)
            for i in range(n):
                x = load(S, m + i * WIDTH)
                gain = x * inverse
                if careful:
                    # little is left of P: what cancels must cancel to the last digit
                    gain = where(seen & little, x / F, gain)
                store(load(S, a + i * WIDTH) + gain * error, S, a + i * WIDTH)
                for j in range(i, n):
                    x = load(S, P + (i * n + j) * WIDTH) - gain * load(S, m + j * WIDTH)
                    store(x, S, P + (i * n + j) * WIDTH)
                    store(x, S, P + (j * n + i) * WIDTH)
            if keep == FILTERED:
                o = k * (n + n * n + 2) * WIDTH
                for j in range(n + n * n):
                    store(load(S, j * WIDTH), O, o + j * WIDTH)
                store(v, O, o + (n + n * n) * WIDTH)
                store(F, O, o + (n + n * n + 1) * WIDTH)
        if keep == FILTERED:
            write(n, begin, size, at, stops, O, kept)
    store(logs, T, 0)
    store(product, T, WIDTH)
    store(squares, T, 2 * WIDTH)
    store(before, T, 3 * WIDTH)
    store(count, T, 4 * WIDTH)


@helper()
def write(n, begin, size, at, stops, O, kept):
    """The filtered moments of a chunk, to each record's own place."""
    row = (n + n * n + 2) * WIDTH
    for l in range(WIDTH):
        first = at[l] + begin
        have = max(0, min(size, stops[l] - first))
        for k in range(have):
            t = first + k
            o = k * row + l
            for j in range(n):
                kept.mean[t, j] = O[o + j * WIDTH]
            o += n * WIDTH
            for i in range(n):
                for j in range(n):
                    kept.covariance[t, i, j] = O[o + (i * n + j) * WIDTH]
            o += n * n * WIDTH
            kept.innovation[t] = O[o]
            kept.variance[t] = O[o + WIDTH]


@helper()
def board(n, members, starts, found, S, T, at, stops):
    """Give the records of a group their lanes; returns how many steps the longest has."""
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
def advance(n, record, units, longest, at, stops, room, keep, way, kept):
    S, C, T, O, scratch, _, _ = room
    if n == 1:
        group(1, record, units, longest, at, stops, S, C, T, scratch, keep, O, way, kept)
    elif n == 2:
        group(2, record, units, longest, at, stops, S, C, T, scratch, keep, O, way, kept)
    elif n == 3:
        group(3, record, units, longest, at, stops, S, C, T, scratch, keep, O, way, kept)
    else:
        group(4, record, units, longest, at, stops, S, C, T, scratch, keep, O, way, kept)


@helper()
def land(members, T, values):
    """The log-likelihoods of a group."""
    for l in range(WIDTH):
        i = members[l]
        if i >= 0:
            total = T[l] + np.log(T[WIDTH + l]) + T[2 * WIDTH + l]
            values[i] = -0.5 * (total + T[4 * WIDTH + l] * np.log(2.0 * np.pi))


@entry(nogil=True)
def filter_lanes(first, last, members, starts, found, record, units, keep, kept, values, room):
    n = found.mean.shape[1]
    S, C, T, _, _, at, stops = room
    clear(n, S, (n + 2 * n * n) * WIDTH)
    constants_side_by_side(record, n, C)
    for g in range(first, last):
        longest = board(n, members[g], starts, found, S, T, at, stops)
        advance(n, record, units, longest, at, stops, room, keep, T, kept)
        land(members[g], T, values)
