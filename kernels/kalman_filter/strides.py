"""One long record of one block in projective coordinates, eight stretches of a chunk side by side.

The recursion of (s, X, D) is a product of matrices and that of the mean is affine, so a chunk is cut into eight
stretches, which take the lanes of vectors. Each stretch first takes along the images of the numbers 1 in s, in X₀₀,
X₀₁, X₁₁ and in D; these matrices lead from stretch to stretch, and every stretch is then filtered from its own start.
The means go the same way. Nothing waits for the sample before it but in its own lane.

A Matérn 3/2 process is carried as (f, f′ + λf), in which A(Δ) = exp(−λΔ) [[1, Δ], [0, 1]] as for a trend, and Q(Δ) is a
sum of positive terms, Q₀₀ = σ² P₃, Q₀₁ = λσ² P₂, Q₁₁ = 2λ²σ² P₁ with P_k of z = 2λΔ. The form in adj(Q) is that in
Y = A X Aᵀ, and what an update leaves of the first state is the ratio of s before and after it.

What this sweep cannot take (a chunk in which a number leaves the range of floats; on the way to a gradient, the rest of
a record that fills no chunk) it leaves to ``projective.py``.
"""

import numpy as np

from statespace.kernels.kalman_filter.abreast import (
    C0,
    C1,
    DQ,
    G0,
    G1,
    GAIN,
    GAP,
    L0,
    L1,
    LONG,
    MAPS,
    P00,
    P01,
    P11,
    Q00,
    Q01,
    Q11,
    ROOT,
    SCRATCH,
    STARTS,
    F,
    H,
    W,
    Y,
    fill_pair,
    fill_seen,
    fill_single,
    keep_column,
    logarithms,
)
from statespace.kernels.kalman_filter.blocks import MATERN32
from statespace.kernels.kalman_filter.compiled import embedded, helper
from statespace.kernels.kalman_filter.projective import LARGE, is_aligned
from statespace.kernels.kalman_filter.record import TILES
from statespace.kernels.kalman_filter.transposition import WIDTH, load, splat
from statespace.kernels.vectors import somewhere, store, store_rows, total


@helper()
def moved_single(B, i, hh, s, x):
    """(s, X) after a prediction and an update; X is unchanged by the update."""
    root = load(B, ROOT + i)
    x = root * root * x + load(B, Q00 + i) * s
    return s + hh * x, x


@helper()
def moved(B, i, hh, s, x00, x01, x11, d):
    """(s, X, D) after a prediction and an update."""
    gap = load(B, GAP + i)
    root = load(B, ROOT + i)
    e = root * root
    q00 = load(B, Q00 + i)
    q01 = load(B, Q01 + i)
    q11 = load(B, Q11 + i)
    across = x01 + gap * x11
    ahead = (gap * gap) * x11 + (2.0 * gap * x01 + x00)
    form = q11 * ahead + (q00 * x11 - 2.0 * q01 * across)
    d = e * form + ((e * e) * d + load(B, DQ + i) * s)
    p00 = e * ahead + q00 * s
    p01 = e * across + q01 * s
    p11 = e * x11 + q11 * s
    return s + hh * p00, p00, p01, p11 + hh * d, d


@helper()
def map_single(B):
    """How s and X at the end of each stretch depend on those before it, up to a factor."""
    s0 = splat(1.0)
    x0 = splat(0.0)
    s1 = splat(0.0)
    x1 = splat(1.0)
    for block in range(0, LONG, 4 * WIDTH):
        for i in range(block, block + 4 * WIDTH, WIDTH):
            h = load(B, H + i)
            hh = h * h * load(B, W + i)
            s0, x0 = moved_single(B, i, hh, s0, x0)
            s1, x1 = moved_single(B, i, hh, s1, x1)
        size = s0 + s1
        if somewhere(size > LARGE):
            f = 1.0 / size
            s0, x0, s1, x1 = s0 * f, x0 * f, s1 * f, x1 * f
    store_rows((s0, x0, s1, x1), B, MAPS, WIDTH)


@helper()
def join_single(x, B):
    """X at the start of each stretch, s being 1."""
    s = 1.0
    for l in range(WIDTH):
        B[STARTS + l] = x / s
        following = B[MAPS + l] * s + B[MAPS + 2 * WIDTH + l] * x
        x = B[MAPS + WIDTH + l] * s + B[MAPS + 3 * WIDTH + l] * x
        s = following
        if s > LARGE:
            x /= s
            s = 1.0


@helper()
def map_pair(B):
    s0 = splat(1.0)
    a0 = b0 = c0 = d0 = splat(0.0)
    a1 = splat(1.0)
    s1 = b1 = c1 = d1 = splat(0.0)
    b2 = splat(1.0)
    s2 = a2 = c2 = d2 = splat(0.0)
    c3 = splat(1.0)
    s3 = a3 = b3 = d3 = splat(0.0)
    d4 = splat(1.0)
    s4 = a4 = b4 = c4 = splat(0.0)
    for block in range(0, LONG, 4 * WIDTH):
        for i in range(block, block + 4 * WIDTH, WIDTH):
            h = load(B, H + i)
            hh = h * h * load(B, W + i)
            s0, a0, b0, c0, d0 = moved(B, i, hh, s0, a0, b0, c0, d0)
            s1, a1, b1, c1, d1 = moved(B, i, hh, s1, a1, b1, c1, d1)
            s2, a2, b2, c2, d2 = moved(B, i, hh, s2, a2, b2, c2, d2)
            s3, a3, b3, c3, d3 = moved(B, i, hh, s3, a3, b3, c3, d3)
            s4, a4, b4, c4, d4 = moved(B, i, hh, s4, a4, b4, c4, d4)
        # s₂ alone may be negative, and is smaller than s₁ + s₃
        size = (s0 + s1) + (s3 + s4)
        if somewhere(size > LARGE):
            f = 1.0 / size
            s0, a0, b0, c0, d0 = s0 * f, a0 * f, b0 * f, c0 * f, d0 * f
            s1, a1, b1, c1, d1 = s1 * f, a1 * f, b1 * f, c1 * f, d1 * f
            s2, a2, b2, c2, d2 = s2 * f, a2 * f, b2 * f, c2 * f, d2 * f
            s3, a3, b3, c3, d3 = s3 * f, a3 * f, b3 * f, c3 * f, d3 * f
            s4, a4, b4, c4, d4 = s4 * f, a4 * f, b4 * f, c4 * f, d4 * f
    store_rows((s0, a0, b0, c0, d0), B, MAPS, WIDTH)
    store_rows((s1, a1, b1, c1, d1), B, MAPS + 5 * WIDTH, WIDTH)
    store_rows((s2, a2, b2, c2, d2), B, MAPS + 10 * WIDTH, WIDTH)
    store_rows((s3, a3, b3, c3, d3), B, MAPS + 15 * WIDTH, WIDTH)
    store_rows((s4, a4, b4, c4, d4), B, MAPS + 20 * WIDTH, WIDTH)


@helper()
def image(B, place, s, a, b, c, d):
    """A row of a stretch's map, applied."""
    column = 5 * WIDTH
    return (B[place] * s + B[place + column] * a) + (
        (B[place + 2 * column] * b + B[place + 3 * column] * c) + B[place + 4 * column] * d
    )


@helper()
def join_pair(x00, x01, x11, d, B):
    """(s, X, D) at the start of each stretch."""
    s = 1.0
    for l in range(WIDTH):
        B[STARTS + l] = s
        B[STARTS + WIDTH + l] = x00
        B[STARTS + 2 * WIDTH + l] = x01
        B[STARTS + 3 * WIDTH + l] = x11
        B[STARTS + 4 * WIDTH + l] = d
        place = MAPS + l
        y = image(B, place, s, x00, x01, x11, d)
        y00 = image(B, place + WIDTH, s, x00, x01, x11, d)
        y01 = image(B, place + 2 * WIDTH, s, x00, x01, x11, d)
        y11 = image(B, place + 3 * WIDTH, s, x00, x01, x11, d)
        d = image(B, place + 4 * WIDTH, s, x00, x01, x11, d)
        s, x00, x01, x11 = y, y00, y01, y11
        if s > LARGE:
            f = 1.0 / s
            s, x00, x01, x11, d = 1.0, x00 * f, x01 * f, x11 * f, d * f


@helper()
def filter_single(keep, B):
    """Covariances from the start of each stretch, what the means want of them, and how these depend on their start."""
    s = before = slope = splat(1.0)
    x = load(B, STARTS)
    shift = splat(0.0)
    store(splat(0.0), B, SCRATCH + WIDTH)
    for block in range(0, LONG, 4 * WIDTH):
        for i in range(block, block + 4 * WIDTH, WIDTH):
            root = load(B, ROOT + i)
            weight = load(B, W + i)
            along = load(B, H + i) * weight
            earlier = s
            s, x = moved_single(B, i, load(B, H + i) * along, s, x)
            inverse = 1.0 / s
            ratio = earlier * inverse
            loop = root * ratio
            gain = x * (along * inverse) * load(B, Y + i)
            slope = loop * slope
            shift = loop * shift + gain
            store(loop, B, L0 + i)
            store(gain, B, G0 + i)
            store(weight * ratio, B, F + i)
            if keep:
                store(x * inverse, B, P00 + i)
            before = inverse
        if somewhere(s > LARGE):
            logarithms(s, B)
            x = x * before
            s = before = splat(1.0)
    logarithms(s, B)
    store_rows((slope, shift), B, MAPS, WIDTH)
    return x * before


@helper()
def means_single(c, keep, B):
    """Means from stretch to stretch and within each; returns the last and Σ v²/F."""
    for l in range(WIDTH):
        B[STARTS + l] = c
        c = B[MAPS + l] * c + B[MAPS + WIDTH + l]
    a = load(B, STARTS)
    squares = splat(0.0)
    for i in range(0, LONG, WIDTH):
        v = load(B, Y + i) - (load(B, H + i) * load(B, ROOT + i)) * a
        gain = v * load(B, F + i)
        squares = squares + v * gain
        a = load(B, L0 + i) * a + load(B, G0 + i)
        if keep:
            store(a, B, C0 + i)
            store(gain, B, GAIN + i)
    store(a, B, SCRATCH)
    return B[SCRATCH + WIDTH - 1], total(squares)


@helper()
def filter_pair(keep, B):
    s = load(B, STARTS)
    f = 1.0 / s
    x00 = load(B, STARTS + WIDTH) * f
    x01 = load(B, STARTS + 2 * WIDTH) * f
    x11 = load(B, STARTS + 3 * WIDTH) * f
    d = load(B, STARTS + 4 * WIDTH) * f
    s = before = splat(1.0)
    # how the mean at the end of a stretch depends on that at its start
    e00 = e11 = splat(1.0)
    e10 = e01 = b0 = b1 = splat(0.0)
    store(splat(0.0), B, SCRATCH + WIDTH)
    for block in range(0, LONG, 4 * WIDTH):
        for i in range(block, block + 4 * WIDTH, WIDTH):
            gap = load(B, GAP + i)
            root = load(B, ROOT + i)
            weight = load(B, W + i)
            h = load(B, H + i)
            along = h * weight
            earlier = s
            s, x00, x01, x11, d = moved(B, i, h * along, s, x00, x01, x11, d)
            inverse = 1.0 / s
            ratio = earlier * inverse
            part = along * inverse
            y = load(B, Y + i)
            k1 = x01 * part
            loop0 = root * ratio
            loop1 = k1 * (h * root)
            gain0 = x00 * part * y
            gain1 = k1 * y
            m = e00 + gap * e10
            e00 = loop0 * m
            e10 = root * e10 - loop1 * m
            m = e01 + gap * e11
            e01 = loop0 * m
            e11 = root * e11 - loop1 * m
            m = b0 + gap * b1
            b0 = loop0 * m + gain0
            b1 = root * b1 + (gain1 - loop1 * m)
            store_rows((loop0, loop1, gain0, gain1), B, L0 + i, L1 - L0)
            store(weight * ratio, B, F + i)
            if keep:
                store_rows((x00 * inverse, x01 * inverse, x11 * inverse), B, P00 + i, P01 - P00)
            before = inverse
        if somewhere(s > LARGE):
            logarithms(s, B)
            x00, x01, x11, d = x00 * before, x01 * before, x11 * before, d * before
            s = before = splat(1.0)
    logarithms(s, B)
    store_rows((e00, e10, e01, e11, b0, b1), B, MAPS, WIDTH)
    return x00 * before, x01 * before, x11 * before, d * before


@helper()
def means_pair(a0, a1, keep, B):
    for l in range(WIDTH):
        B[STARTS + l] = a0
        B[STARTS + WIDTH + l] = a1
        m = B[MAPS + l] * a0 + (B[MAPS + 2 * WIDTH + l] * a1 + B[MAPS + 4 * WIDTH + l])
        a1 = B[MAPS + WIDTH + l] * a0 + (B[MAPS + 3 * WIDTH + l] * a1 + B[MAPS + 5 * WIDTH + l])
        a0 = m
    c0 = load(B, STARTS)
    c1 = load(B, STARTS + WIDTH)
    squares = splat(0.0)
    for i in range(0, LONG, WIDTH):
        gap = load(B, GAP + i)
        root = load(B, ROOT + i)
        v = load(B, Y + i) - (load(B, H + i) * root) * (c0 + gap * c1)
        gain = v * load(B, F + i)
        squares = squares + v * gain
        # two fused operations from one mean to the next
        loop0 = load(B, L0 + i)
        loop1 = load(B, L1 + i)
        m = loop0 * c0 + ((loop0 * gap) * c1 + load(B, G0 + i))
        c1 = (root - loop1 * gap) * c1 + (load(B, G1 + i) - loop1 * c0)
        c0 = m
        if keep:
            store(c0, B, C0 + i)
            store(c1, B, C1 + i)
            store(gain, B, GAIN + i)
    store(c0, B, SCRATCH)
    store(c1, B, SCRATCH + WIDTH)
    return B[SCRATCH + WIDTH - 1], B[SCRATCH + 2 * WIDTH - 1], total(squares)


@helper()
def last_lane(x, B):
    store(x, B, SCRATCH)
    return B[SCRATCH + WIDTH - 1]


@helper()
def finish(n, kept_too, tiles, to, observed, logs, squares, state, B):
    """Add up what the likelihood wants of a chunk, and leave to the way back what it reads."""
    state.counts[1] += int(observed)
    state.totals[0] += logs
    state.totals[2] += squares
    if kept_too:
        keep_column(B, C0, tiles[0], to)
        keep_column(B, P00, tiles[2], to)
        if n == 2:
            keep_column(B, C1, tiles[1], to)
            keep_column(B, P01, tiles[3], to)
            keep_column(B, P11, tiles[4], to)
        keep_column(B, F, tiles[5], to)
        keep_column(B, GAIN, tiles[6], to)


@embedded()
def forward_single_abreast(record, units, first, last, state, keep, kept, base, work):
    """Filter samples from ``first`` on; returns where it stopped.

    What a last chunk lacks are missing samples at equal times. Where something is kept there is no room for these, and
    a last part stays.
    """
    B = work.columns
    c = state.mean[0]
    x = state.covariance[0, 0]
    kept_too = keep == TILES
    reached = first
    while reached + (LONG if kept_too else 1) <= last:
        count = min(LONG, last - reached)
        fill_single(record, units, reached, count, B)
        observed, logs = fill_seen(record, reached, count, reached == first, B)
        map_single(B)
        join_single(x, B)
        following = last_lane(filter_single(kept_too, B), B)
        logs += total(load(B, SCRATCH + WIDTH))
        if not np.isfinite(following + logs):
            break
        c, squares = means_single(c, kept_too, B)
        x = following
        finish(1, kept_too, kept.tiles, reached - base, observed, logs, squares, state, B)
        reached += count
    state.mean[0] = c
    state.covariance[0, 0] = x
    return reached


@embedded()
def forward_pair_abreast(record, units, first, last, state, keep, kept, base, work):
    B = work.columns
    rate = record.parameters[units[2][0], 0] if units[0][0] == MATERN32 else 0.0
    c0 = state.mean[0]
    c1 = state.mean[1] + rate * c0
    x00 = state.covariance[0, 0]
    x01 = state.covariance[0, 1]
    x11 = state.covariance[1, 1]
    d = max(x00 * x11 - x01 * x01, 0.0)
    x11 += rate * (2.0 * x01 + rate * x00)
    x01 += rate * x00
    kept_too = keep == TILES
    reached = first
    if not is_aligned(record.observation, first, last):
        return first
    while reached + (LONG if kept_too else 1) <= last:
        count = min(LONG, last - reached)
        fill_pair(record, units, reached, count, B)
        observed, logs = fill_seen(record, reached, count, reached == first, B)
        map_pair(B)
        join_pair(x00, x01, x11, d, B)
        y00, y01, y11, dd = filter_pair(kept_too, B)
        logs += total(load(B, SCRATCH + WIDTH))
        z00 = last_lane(y00, B)
        z01 = last_lane(y01, B)
        z11 = last_lane(y11, B)
        zd = last_lane(dd, B)
        if not np.isfinite(z00 + z01 + z11 + zd + logs):
            break
        c0, c1, squares = means_pair(c0, c1, kept_too, B)
        x00, x01, x11, d = z00, z01, z11, zd
        finish(2, kept_too, kept.tiles, reached - base, observed, logs, squares, state, B)
        reached += count
    state.mean[0] = c0
    state.mean[1] = c1 - rate * c0
    state.covariance[0, 0] = x00
    state.covariance[0, 1] = x01 - rate * x00
    state.covariance[1, 0] = state.covariance[0, 1]
    state.covariance[1, 1] = x11 - rate * (2.0 * x01 - rate * x00)
    return reached
