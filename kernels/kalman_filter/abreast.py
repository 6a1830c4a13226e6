"""A chunk of one record in eight stretches side by side: how it is laid out, and what of it needs no recursion.

Step i of all stretches is one vector, lane l holding sample l STEPS + i. Columns of a chunk lie in the workspace, those
of ``strides.py`` and ``backstrides.py`` from Δ on.
"""

import numpy as np

from statespace.kernels.kalman_filter.blocks import MATERN32, OU
from statespace.kernels.kalman_filter.compiled import helper, shared
from statespace.kernels.kalman_filter.discretization import ornstein_uhlenbeck_noise
from statespace.kernels.kalman_filter.transposition import WIDTH, load, rows_of, splat
from statespace.kernels.kalman_filter.vector_blocks import decays, gammas_3
from statespace.kernels.vectors import somewhere, store, store_rows, total, turned, where

# Samples of a stretch and of a chunk; how far apart columns begin.
STEPS = 32
LONG = WIDTH * STEPS
COLUMN = LONG + WIDTH
# Numbers with a type: a function that is handed Python's integers is compiled for each of them.
COLUMNS = COLUMN * np.arange(17)
# Δ, exp(−λΔ), Q, det Q; y, 1/R (0 where nothing was observed), h, R; ...
GAP, ROOT, Q00, Q01, Q11, DQ, Y, W, H, R = COLUMNS[:10]
# ... what the mean wants of the covariances: L of the first state and of the second, k y, 1/F; ...
L0, L1, G0, G1, F = Q00, Q01, Q11, DQ, W
# ... what the way back reads: filtered means and P, v/F; ...
C0, C1, P00, P01, P11, GAIN = COLUMNS[10:16]
ROOM = GAIN
# ... and the maps of the stretches, their starts, and room.
MAPS, STARTS, SCRATCH = COLUMNS[16] + WIDTH * np.array([0, 25, 30])


@helper()
def bring_abreast(x, begin, B, to):
    """x[begin], … x[begin + LONG − 1], a stretch in each lane."""
    for i in range(0, STEPS, WIDTH):
        store_rows(turned(rows_of(x, begin + i, STEPS)), B, to + i * WIDTH, WIDTH)


@helper()
def bring_part(x, begin, count, otherwise, B, to):
    """As `bring_abreast`, ``otherwise`` from sample begin + count on."""
    if count < LONG:
        for i in range(LONG):
            B[ROOM + i] = x[begin + i] if i < count else otherwise
        bring_abreast(B, ROOM, B, to)
    else:
        bring_abreast(x, begin, B, to)


@helper()
def lay_out(B, place, x, begin):
    """The way back, to x[begin], …"""
    for i in range(0, STEPS, WIDTH):
        store_rows(turned(rows_of(B, place + i * WIDTH, WIDTH)), x, begin + i, STEPS)


@helper()
def keep_column(B, place, x, to):
    for i in range(0, LONG, WIDTH):
        store(load(B, place + i), x, to + i)


@helper()
def fill_single(record, units, begin, count, B):
    """Columns Δ, A and Q of one state."""
    bring_part(record.dt, begin, count, 0.0, B, GAP)
    parameter = record.parameters[units[2][0]]
    first = parameter[0]
    second = parameter[1]
    if units[0][0] == OU:
        for i in range(0, LONG, WIDTH):
            root, fall = decays(first * load(B, GAP + i))
            store(root, B, ROOT + i)
            store(ornstein_uhlenbeck_noise(second, root, fall), B, Q00 + i)
    else:
        for i in range(0, LONG, WIDTH):
            store(splat(1.0), B, ROOT + i)
            store(first * load(B, GAP + i), B, Q00 + i)


@helper()
def matern32_parts(x):
    """exp(−x) and P₃, P₂, P₁ of 2x."""
    z = 2.0 * x
    root, _ = decays(x)
    e = root * root
    g3 = gammas_3(z, e)
    g2 = g3 + z * x * e
    return root, g3, g2, g2 + z * e


@helper()
def fill_pair(record, units, begin, count, B):
    """Columns Δ, A, Q and det Q of two states."""
    bring_part(record.dt, begin, count, 0.0, B, GAP)
    parameter = record.parameters[units[2][0]]
    first = parameter[0]
    second = parameter[1]
    if units[0][0] == MATERN32:
        for i in range(0, LONG, WIDTH):
            root, g3, g2, g1 = matern32_parts(first * load(B, GAP + i))
            q00 = second * g3
            q01 = (first * second) * g2
            q11 = (2.0 * first * first * second) * g1
            store(root, B, ROOT + i)
            store(q00, B, Q00 + i)
            store(q01, B, Q01 + i)
            store(q11, B, Q11 + i)
            store(q00 * q11 - q01 * q01, B, DQ + i)
    else:
        for i in range(0, LONG, WIDTH):
            gap = load(B, GAP + i)
            square = gap * gap
            store(splat(1.0), B, ROOT + i)
            store(gap * (first + (second * (1 / 3)) * square), B, Q00 + i)
            store((0.5 * second) * square, B, Q01 + i)
            store(second * gap, B, Q11 + i)
            store((second * square) * (first + (second * (1 / 12)) * square), B, DQ + i)


@helper()
def fill_rows(record, begin, count, first, B):
    """Column h."""
    if len(record.observation) > 1:
        for l in range(WIDTH):
            for i in range(STEPS):
                t = l * STEPS + i
                B[H + i * WIDTH + l] = record.observation[begin + t, 0] if t < count else 0.0
    elif first:
        for i in range(0, LONG, WIDTH):
            store(splat(record.observation[0, 0]), B, H + i)


@helper()
def fill_seen(record, begin, count, first, B):
    """Columns y, 1/R and h; returns how many samples are observed and the sum of their log R."""
    each_R = len(record.noise_variance) > 1
    bring_part(record.y, begin, count, np.nan, B, Y)
    fill_rows(record, begin, count, first, B)
    found = splat(0.0)
    if each_R:
        bring_part(record.noise_variance, begin, count, 1.0, B, R)
        product = splat(1.0)
        store(splat(0.0), B, SCRATCH + WIDTH)
        for i in range(0, LONG, WIDTH):
            y = load(B, Y + i)
            seen = y == y
            noise = where(seen, load(B, R + i), splat(1.0))
            store(where(seen, y, splat(0.0)), B, Y + i)
            store(where(seen, 1.0 / noise, splat(0.0)), B, W + i)
            found = found + where(seen, splat(1.0), splat(0.0))
            product = product * noise
            if somewhere((product <= 1e-140) | (product >= 1e140)):
                product = logarithms(product, B)
        logarithms(product, B)
        return total(found), total(load(B, SCRATCH + WIDTH))
    noise = record.noise_variance[0]
    inverse = 1.0 / noise
    for i in range(0, LONG, WIDTH):
        y = load(B, Y + i)
        seen = y == y
        store(where(seen, y, splat(0.0)), B, Y + i)
        store(where(seen, splat(inverse), splat(0.0)), B, W + i)
        found = found + where(seen, splat(1.0), splat(0.0))
    observed = total(found)
    return observed, observed * np.log(noise)


@shared()
def logarithms(product, B):
    """Add the logarithm of each lane to those in ``SCRATCH``'s second vector; returns ones."""
    store(product, B, SCRATCH)
    for l in range(WIDTH):
        B[SCRATCH + WIDTH + l] += np.log(B[SCRATCH + l])
    return splat(1.0)


@helper()
def bring_leaving(record, begin, stop, B):
    """Gaps to the samples of a chunk, and, one step more, to those that follow its stretches; 0 where none follows."""
    bring_abreast(record.dt, begin, B, GAP)
    for l in range(WIDTH - 1):
        B[GAP + LONG + l] = B[GAP + l + 1]
    B[GAP + LONG + WIDTH - 1] = record.dt[begin + LONG] if begin + LONG < stop else 0.0
