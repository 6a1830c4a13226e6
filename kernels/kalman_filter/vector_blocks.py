"""A(Δ) and Q(Δ) of every block for a vector of gaps, one for each record, and the way back from their adjoints.

The formulas are those of ``discretization.py``. Matrices are dense: (n, n) vectors in a flat array, from ``A`` and from
``Q`` on. What is 0 or 1 for every gap is not written.
"""

import math

from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    MATERN52,
    OU,
    RANDOM_WALK,
    ROTATED_MATERN32,
    ROTATED_OU,
    ROTATION,
    TREND,
)
from statespace.kernels.kalman_filter.compiled import helper, shared
from statespace.kernels.kalman_filter.discretization import matern32, rotation
from statespace.kernels.kalman_filter.exponential import (
    C2,
    C3,
    C4,
    C5,
    C6,
    C7,
    C8,
    C9,
    C10,
    C11,
    C12,
    C13,
    LARGEST,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    SHIFT,
)
from statespace.kernels.kalman_filter.gamma import G4, G5, G6, G7, G8, G9, G10, G11, G12, G13, G14
from statespace.kernels.kalman_filter.transposition import WIDTH, load, splat
from statespace.kernels.vectors import odd, power_of_two, somewhere, store, where

# the kinds that are known here
KINDS = (RANDOM_WALK, TREND, ROTATION, OU, MATERN32, MATERN52, ROTATED_OU, ROTATED_MATERN32)

# π/2 in three parts, the first two short enough that their products with a whole number below 2^20 are exact
QUARTER = math.pi / 2
QUARTER_HIGH = 1.57079632673412561417e00
QUARTER_MIDDLE = 6.07710050630396597660e-11
QUARTER_LOW = 2.02226624879595063154e-21
# beyond this angle one sine at a time, by the library
FURTHEST = 1e5
S3, S5, S7, S9, S11, S13, S15, S17 = [(-1.0) ** (k // 2) / math.factorial(k) for k in range(3, 18, 2)]
K4, K6, K8, K10, K12, K14, K16, K18 = [(-1.0) ** (k // 2) / math.factorial(k) for k in range(4, 19, 2)]


@helper()
def decays(x):
    """``exponential.decay`` of a vector."""
    x = -where(x > LARGEST, splat(LARGEST), x)
    shifted = x * LOG2_E + SHIFT
    k = shifted - SHIFT
    r = x - k * LN2_HIGH - k * LN2_LOW
    # in pairs: what is to come of one vector must not wait for the last power of another
    square = r * r
    fourth = square * square
    p = (C6 + C7 * r + square * (C8 + C9 * r)) + fourth * (C10 + C11 * r + square * (C12 + C13 * r))
    p = (C2 + C3 * r + square * (C4 + C5 * r)) + fourth * p
    p = r + square * p
    power = power_of_two(shifted)
    return power + power * p, power * p + (power - 1.0)


@helper()
def gammas_3(z, e):
    """``gamma.gamma_3`` of a vector."""
    square = z * z
    fourth = square * square
    s = (G7 + G8 * z + square * (G9 + G10 * z)) + fourth * (G11 + G12 * z + square * (G13 + G14 * z))
    s = (1.0 + G4 * z + square * (G5 + G6 * z)) + fourth * s
    series = e * z * z * z * (1 / 6) * s
    closed = 1.0 - e * (1.0 + z * (1.0 + 0.5 * z))
    return where(z > 0.5, closed, series)


@helper()
def gammas_5(z, e):
    """``gamma.gamma_5`` of a vector."""
    s = splat(1.0)
    for j in range(24, 5, -1):
        s = 1.0 + s * z * (1.0 / j)
    z2 = z * z
    series = e * (z2 * z2 * z) * (1 / 120) * s
    closed = 1.0 - e * (1.0 + z * (1.0 + z * (1 / 2) * (1.0 + z * (1 / 3) * (1.0 + z * (1 / 4)))))
    return where(z > 2.0, closed, series)


@shared()
def rotations(angle, scratch):
    """``discretization.rotation`` of a vector of angles ≥ 0."""
    shifted = angle * (1.0 / QUARTER) + SHIFT
    k = shifted - SHIFT
    r = ((angle - k * QUARTER_HIGH) - k * QUARTER_MIDDLE) - k * QUARTER_LOW
    x = r * r
    s = S3 + x * (S5 + x * (S7 + x * (S9 + x * (S11 + x * (S13 + x * (S15 + x * S17))))))
    s = r + r * x * s
    c = K4 + x * (K6 + x * (K8 + x * (K10 + x * (K12 + x * (K14 + x * (K16 + x * K18))))))
    c = 1.0 - (0.5 * x - x * x * c)
    # a quarter turn takes (c, s) to (−s, c)
    quarter = odd(shifted)
    half = odd(0.5 * (k - where(quarter, splat(1.0), splat(0.0))) + SHIFT)
    cosine = where(quarter, -s, c)
    sine = where(quarter, c, s)
    cosine = where(half, -cosine, cosine)
    sine = where(half, -sine, sine)
    lost = where(sine < 0.0, -sine, sine) <= 4.5e-16 * angle
    cosine = where(lost, where(cosine < 0.0, splat(-1.0), splat(1.0)), cosine)
    sine = where(lost, splat(0.0), sine)
    if somewhere(angle > FURTHEST):
        store(cosine, scratch, 0)
        store(sine, scratch, WIDTH)
        store(angle, scratch, 2 * WIDTH)
        for l in range(WIDTH):
            if scratch[2 * WIDTH + l] > FURTHEST:
                scratch[l], scratch[WIDTH + l] = rotation(scratch[2 * WIDTH + l])
        cosine = load(scratch, 0)
        sine = load(scratch, WIDTH)
    return cosine, sine


@shared()
def discretize_vectors(record, units, n, gap, S, A, Q, scratch):
    kind, size, owner = units
    o = 0
    for b in range(len(kind)):
        k = kind[b]
        s = size[b]
        rate = record.parameters[owner[b], 0]
        variance = record.parameters[owner[b], 1]
        corner = (o * n + o) * WIDTH
        below = corner + n * WIDTH
        if k == RANDOM_WALK:
            store(rate * gap, S, Q + corner)
        elif k == TREND:
            square = gap * gap
            store(gap, S, A + corner + WIDTH)
            store(gap * (rate + variance * (1 / 3) * square), S, Q + corner)
            store(0.5 * variance * square, S, Q + corner + WIDTH)
            store(variance * gap, S, Q + below + WIDTH)
        elif k == OU:
            root, fall = decays(rate * gap)
            store(root, S, A + corner)
            store(-variance * fall * (1.0 + root), S, Q + corner)
        elif k == ROTATION:
            c, sine = rotations(rate * gap, scratch)
            noise = variance * gap
            store(c, S, A + corner)
            store(sine, S, A + corner + WIDTH)
            store(-sine, S, A + below)
            store(c, S, A + below + WIDTH)
            store(noise, S, Q + corner)
            store(noise, S, Q + below + WIDTH)
        elif k == MATERN32:
            matern32_vectors(rate, variance, gap, n, S, A + corner, Q + corner)
        elif k == MATERN52:
            matern52_vectors(rate, variance, gap, n, S, A + corner, Q + corner)
        else:
            m = s // 2
            if k == ROTATED_OU:
                root, fall = decays(rate * gap)
                store(root, S, A + corner)
                store(-variance * fall * (1.0 + root), S, Q + corner)
            else:
                matern32_vectors(rate, variance, gap, n, S, A + corner, Q + corner)
            turn(record.parameters[owner[b], 2] * gap, m, n, S, A + corner, Q + corner, scratch)
        o += s


@helper()
def matern32_vectors(rate, variance, gap, n, S, A, Q):
    x = rate * gap
    root, _ = decays(x)
    a00, a01, a10, a11, q00, q01, q11 = matern32(rate, variance, gap, root, gammas_3(2.0 * x, root * root))
    row = n * WIDTH
    store(a00, S, A)
    store(a01, S, A + WIDTH)
    store(a10, S, A + row)
    store(a11, S, A + row + WIDTH)
    store(q00, S, Q)
    store(q01, S, Q + WIDTH)
    store(q11, S, Q + row + WIDTH)


@shared()
def turn(angle, m, n, S, A, Q, scratch):
    """From A and Q of m states to R(angle) ⊗ A and I₂ ⊗ Q."""
    c, sine = rotations(angle, scratch)
    for i in range(m):
        for j in range(m):
            here = (i * n + j) * WIDTH
            right = here + m * WIDTH
            below = here + m * n * WIDTH
            x = load(S, A + here)
            store(c * x, S, A + here)
            store(sine * x, S, A + right)
            store(-sine * x, S, A + below)
            store(c * x, S, A + below + m * WIDTH)
            store(load(S, Q + here), S, Q + below + m * WIDTH)


@helper()
def matern52_vectors(rate, variance, gap, n, S, A, Q):
    x = rate * gap
    root, _ = decays(x)
    e = root * root
    z = 2.0 * x
    g = gammas_5(z, e)
    row = n * WIDTH
    store(root * (1.0 + x + 0.5 * x * x), S, A)
    store(root * gap * (1.0 + x), S, A + WIDTH)
    store(root * gap * gap * 0.5, S, A + 2 * WIDTH)
    store(root * x * x * (-0.5 * rate), S, A + row)
    store(root * (1.0 + x - x * x), S, A + row + WIDTH)
    store(root * gap * (1.0 - 0.5 * x), S, A + row + 2 * WIDTH)
    store(root * x * (0.5 * x - 1.0) * (rate * rate), S, A + 2 * row)
    store(root * x * (x - 3.0) * rate, S, A + 2 * row + WIDTH)
    store(root * (1.0 - 2.0 * x + 0.5 * x * x), S, A + 2 * row + 2 * WIDTH)
    v1 = variance * rate
    v2 = v1 * rate
    v3 = v2 * rate
    square = z * z
    turn = z * (4.0 - z)
    store(variance * g, S, Q)
    store(e * square * square * (v1 / 24.0), S, Q + WIDTH)
    store((e * square * z * (2.0 - z) * (1 / 6) - g) * (v2 / 3.0), S, Q + 2 * WIDTH)
    store((g + e * square * z * (8.0 - z) * (1 / 12)) * (v2 / 3.0), S, Q + row + WIDTH)
    store(e * turn * turn * (v3 / 24.0), S, Q + row + 2 * WIDTH)
    store((3.0 * g + 2.0 * e * z * (4.0 - z * (2.0 - z))) * (v3 * rate / 3.0), S, Q + 2 * row + 2 * WIDTH)


@shared()
def contract_vectors(record, units, n, gap, S, A, V, A_bar, Q_bar, to_blocks, scratch):
    """Add ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ to three vectors for every block, from ``to_blocks`` on; clear both.

    Ā and Q̄ are dense matrices in ``V``, as A is in ``S``, which is that of these gaps.
    """
    kind, size, owner = units
    o = 0
    for b in range(len(kind)):
        k = kind[b]
        s = size[b]
        first = record.parameters[owner[b], 0]
        second = record.parameters[owner[b], 1]
        corner = (o * n + o) * WIDTH
        below = corner + n * WIDTH
        to = to_blocks + 3 * owner[b] * WIDTH
        q00 = load(V, Q_bar + corner)
        if k == RANDOM_WALK:
            add(gap * q00, V, to)
        elif k == OU:
            contract_decay(first, second, gap, load(V, A_bar + corner), q00, V, to)
        elif s == 2:
            a00 = load(V, A_bar + corner)
            a01 = load(V, A_bar + corner + WIDTH)
            a10 = load(V, A_bar + below)
            a11 = load(V, A_bar + below + WIDTH)
            q11 = load(V, Q_bar + below + WIDTH)
            cross = load(V, Q_bar + corner + WIDTH) + load(V, Q_bar + below)
            if k == TREND:
                add(gap * q00, V, to)
                add(gap * (gap * (gap * (1 / 3) * q00 + 0.5 * cross) + q11), V, to + WIDTH)
            elif k == ROTATION:
                c = load(S, A + corner)
                sine = load(S, A + corner + WIDTH)
                add(gap * (c * (a01 - a10) - sine * (a00 + a11)), V, to)
                add(gap * (q00 + q11), V, to + WIDTH)
            elif k == MATERN32:
                contract_matern32_vectors(first, second, gap, a00, a01, a10, a11, q00, cross, q11, V, to)
            else:
                # R(ωΔ) e^(−λΔ), whose derivative by the angle is a quarter turn of it
                c = load(S, A + corner)
                sine = load(S, A + corner + WIDTH)
                add(gap * (c * (a01 - a10) - sine * (a00 + a11)), V, to + 2 * WIDTH)
                radial = c * (a00 + a11) + sine * (a01 - a10)
                root, fall = decays(first * gap)
                add(gap * (2.0 * second * root * root * (q00 + q11) - radial), V, to)
                add(-fall * (1.0 + root) * (q00 + q11), V, to + WIDTH)
        elif k == MATERN52:
            contract_matern52_vectors(first, second, gap, n, V, A_bar + corner, Q_bar + corner, to)
        else:
            third = record.parameters[owner[b], 2]
            contract_rotated_matern32(
                first, second, third, gap, n, V, A_bar + corner, Q_bar + corner, to, scratch
            )  # fmt: skip
        o += s
    for i in range(n * n):
        store(splat(0.0), V, A_bar + i * WIDTH)
        store(splat(0.0), V, Q_bar + i * WIDTH)


@helper()
def add(x, V, to):
    store(load(V, to) + x, V, to)


@helper()
def contract_decay(rate, variance, gap, a, q, V, to):
    root, fall = decays(rate * gap)
    add(gap * root * (2.0 * variance * root * q - a), V, to)
    add(-fall * (1.0 + root) * q, V, to + WIDTH)


@helper()
def contract_matern32_vectors(rate, variance, gap, a00, a01, a10, a11, q00, cross, q11, V, to):
    x = rate * gap
    root, _ = decays(x)
    e = root * root
    through_A = -gap * x * a00 - gap * gap * a01 - x * (2.0 - x) * a10 - gap * (2.0 - x) * a11
    by_rate, by_variance = contract_matern32_noise(rate, gap, e, gammas_3(2.0 * x, e), q00, cross, q11)
    add(root * through_A + variance * by_rate, V, to)
    add(by_variance, V, to + WIDTH)


@helper()
def contract_matern32_noise(rate, gap, e, g, q00, cross, q11):
    """⟨Q̄, dQ/dθ⟩ by the rate, for a unit variance, and by the variance; ``e``, ``g``: exp(−2x) and P_3(2x)."""
    x = rate * gap
    z = 2.0 * x
    ze = z * e
    by_rate = (
        q00 * gap * z * ze
        + cross * 0.5 * z * (3.0 - z) * ze
        + q11 * rate * (2.0 * (g + 2.0 * ze) + x * (2.0 - z) * (2.0 - z) * e)
    )
    return by_rate, q00 * g + cross * (0.5 * rate) * z * ze + q11 * (rate * rate) * (g + 2.0 * ze)


@helper()
def contract_rotated_matern32(rate, variance, frequency, gap, n, V, A_bar, Q_bar, to, scratch):
    """The adjoints of R ⊗ A_M and I₂ ⊗ Q_M become those of A_M and Q_M and are contracted as such."""
    c, sine = rotations(frequency * gap, scratch)
    root, _ = decays(rate * gap)
    x = rate * gap
    row = n * WIDTH
    far = 2 * row + 2 * WIDTH
    a00, along = turned_back(c, sine, root * (1.0 + x), splat(0.0), row, V, A_bar)
    a01, along = turned_back(c, sine, root * gap, along, row, V, A_bar + WIDTH)
    a10, along = turned_back(c, sine, -root * rate * x, along, row, V, A_bar + row)
    a11, along = turned_back(c, sine, root * (1.0 - x), along, row, V, A_bar + row + WIDTH)
    add(gap * along, V, to + 2 * WIDTH)
    q00 = load(V, Q_bar) + load(V, Q_bar + far)
    q11 = load(V, Q_bar + row + WIDTH) + load(V, Q_bar + row + WIDTH + far)
    cross = load(V, Q_bar + WIDTH) + load(V, Q_bar + WIDTH + far)
    cross = cross + load(V, Q_bar + row) + load(V, Q_bar + row + far)
    contract_matern32_vectors(rate, variance, gap, a00, a01, a10, a11, q00, cross, q11, V, to)


@helper()
def turned_back(c, sine, entry, along, row, V, A_bar):
    """The adjoint of one entry of A_M, and what it adds to that of the angle."""
    together = load(V, A_bar) + load(V, A_bar + 2 * row + 2 * WIDTH)
    apart = load(V, A_bar + 2 * WIDTH) - load(V, A_bar + 2 * row)
    return c * together + sine * apart, along + entry * (c * apart - sine * together)


@helper()
def contract_matern52_vectors(rate, variance, gap, n, V, A_bar, Q_bar, to):
    x = rate * gap
    root, _ = decays(x)
    e = root * root
    z = 2.0 * x
    g = gammas_5(z, e)
    x2 = x * x
    x3 = x2 * x
    row = n * WIDTH
    # λ dA_ij/dλ = λ^(i−j) β_ij(x) exp(−x)
    bend = x * (3.0 * x - 3.0 - 0.5 * x2)
    total = load(V, A_bar) * x3 * (-0.5 / rate)
    total = total - load(V, A_bar + WIDTH) * x3 * (1.0 / (rate * rate))
    total = total - load(V, A_bar + 2 * WIDTH) * (0.5 * gap * gap * gap)
    total = total + load(V, A_bar + row) * (0.5 * x2 * (x - 3.0))
    total = total + load(V, A_bar + row + WIDTH) * (x2 * (x - 3.0)) * (1.0 / rate)
    total = total + load(V, A_bar + row + 2 * WIDTH) * (x2 * (x - 3.0)) * (0.5 / (rate * rate))
    total = total + load(V, A_bar + 2 * row) * bend * rate
    total = total + load(V, A_bar + 2 * row + WIDTH) * (x * (6.0 * x - 6.0 - x2))
    total = total + load(V, A_bar + 2 * row + 2 * WIDTH) * bend * (1.0 / rate)
    # Q_ij = σ² λ^(i+j) f_ij(z), so λ dQ_ij/dλ = σ² λ^(i+j) ((i + j) f_ij + z f′_ij)
    q00 = load(V, Q_bar)
    q11 = load(V, Q_bar + row + WIDTH)
    q22 = load(V, Q_bar + 2 * row + 2 * WIDTH)
    q01 = load(V, Q_bar + WIDTH) + load(V, Q_bar + row)
    q02 = load(V, Q_bar + 2 * WIDTH) + load(V, Q_bar + 2 * row)
    q12 = load(V, Q_bar + row + 2 * WIDTH) + load(V, Q_bar + 2 * row + WIDTH)
    z2 = z * z
    z3 = z2 * z
    f01 = e * z2 * z2 * (1 / 24)
    f02 = (e * z3 * (2.0 - z) * (1 / 6) - g) * (1 / 3)
    f11 = (g + e * z3 * (8.0 - z) * (1 / 12)) * (1 / 3)
    bent = z * (4.0 - z)
    f12 = e * bent * bent * (1 / 24)
    f22 = g + e * z * (8.0 - z * (4.0 - 2.0 * z)) * (1 / 3)
    d00 = e * z2 * z3 * (1 / 24)
    d01 = e * z2 * z2 * (4.0 - z) * (1 / 24)
    d02 = e * z3 * (1.0 - z + z2 * (1 / 8)) * (1 / 3)
    d11 = e * z3 * (1.0 - 0.25 * z) * (1.0 - 0.25 * z) * (2 / 3)
    d12 = e * z * bent * (8.0 - z * (8.0 - z)) * (1 / 24)
    flat = 1.0 - z + z2 * (1 / 8)
    d22 = e * z * flat * flat * (8 / 3)
    by_rate = q00 * d00 * (1.0 / rate) + q01 * (f01 + d01) + (q02 * (2.0 * f02 + d02) + q11 * (2.0 * f11 + d11)) * rate
    by_rate = by_rate + (q12 * (3.0 * f12 + d12) + q22 * (4.0 * f22 + d22) * rate) * (rate * rate)
    add(root * total + by_rate * variance, V, to)
    by_variance = q02 * f02 + q11 * f11 + (q12 * f12 + q22 * f22 * rate) * rate
    add(q00 * g + (q01 * f01 + by_variance * rate) * rate, V, to + WIDTH)
