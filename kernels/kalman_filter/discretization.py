"""A(Δ) and Q(Δ) of each block in closed form, and what a gradient with respect to them means for the parameters.

Letters: x = λΔ, z = 2x, e = exp(−z), P_k(z) = 1 − e Σ_{j<k} zʲ/j! (the regularised incomplete gamma function).
Every Q is written as a sum of positive terms where one exists, so that it keeps its digits when Δ → 0, where
P_k ~ zᵏ/k! would be lost in 1 − 1. The derivation is in README.md.
"""

import numpy as np

from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    MATERN52,
    OU,
    RANDOM_WALK,
    ROTATED_MATERN32,
    ROTATED_MATERN52,
    ROTATED_OU,
    ROTATION,
    SHO,
    TABLE,
    TREND,
)
from statespace.kernels.kalman_filter.compiled import ZERO, entry, helper, shared
from statespace.kernels.kalman_filter.exponential import decay
from statespace.kernels.kalman_filter.gamma import gamma_3, gamma_5
from statespace.kernels.kalman_filter.oscillator import contract_oscillator, oscillator


@helper()
def rotation(angle):
    """cos and sin; a sine below the rounding of its own argument is exactly 0.

    On a unit grid the harmonic at period/2 turns by π, and its second state is never visible. sin(fl(π)) = 1.2e-16
    would let it seep into the observed state, a little more at every step.
    """
    s = np.sin(angle)
    if abs(s) <= 4.5e-16 * abs(angle):
        return np.copysign(1.0, np.cos(angle)), 0.0
    return np.cos(angle), s


@helper(fastmath={"contract"})
def ornstein_uhlenbeck(rate, variance, gap):
    root, fall = decay(rate * gap)
    return root, ornstein_uhlenbeck_noise(variance, root, fall)


@helper(fastmath={"contract"})
def ornstein_uhlenbeck_noise(variance, root, fall):
    return -variance * fall * (1.0 + root)


@helper(fastmath={"contract"})
def matern32_roots(x):
    """exp(−x) and P_3(2x)."""
    root, _ = decay(x)
    return root, gamma_3(2.0 * x, root * root)


@helper(fastmath={"contract"})
def matern32(rate, variance, gap, root, g):
    """A row by row, then Q_00, Q_01, Q_11, from what ``matern32_roots`` gives."""
    x = rate * gap
    e = root * root
    z = 2.0 * x
    return (
        root * (1.0 + x),
        root * gap,
        -root * rate * x,
        root * (1.0 - x),
        variance * g,
        0.5 * variance * rate * z * z * e,
        variance * rate * rate * (g + 2.0 * z * e),
    )


@helper()
def discretize(units, parameters, transition, process_noise, gap, row, A, Q):
    """Write A(Δ) and Q(Δ), one block after the other, each row-major, into the flat arrays ``A`` and ``Q``."""
    kind, size, owner = units
    p = ZERO
    table = ZERO
    for b in range(len(kind)):
        s = size[b]
        discretize_block(kind[b], s, parameters[owner[b]], transition, process_noise, gap, row, table, A, Q, p)
        if kind[b] == TABLE:
            table += s * s
        p += s * s


@shared()
def discretize_block(k, s, parameter, transition, process_noise, gap, row, table, A, Q, p):
    """A(Δ) and Q(Δ) of one block from position ``p`` on; a TABLE's entries begin at ``table`` of its row."""
    first = parameter[0]
    second = parameter[1]
    third = parameter[2]
    if k == MATERN32:
        root, g = matern32_roots(first * gap)
        A[p], A[p + 1], A[p + 2], A[p + 3], Q[p], Q[p + 1], Q[p + 3] = matern32(first, second, gap, root, g)
        Q[p + 2] = Q[p + 1]
    elif k == RANDOM_WALK:
        A[p] = 1.0
        Q[p] = first * gap
    elif k == OU:
        A[p], Q[p] = ornstein_uhlenbeck(first, second, gap)
    elif k == TREND:
        A[p] = 1.0
        A[p + 1] = gap
        A[p + 2] = 0.0
        A[p + 3] = 1.0
        Q[p] = gap * (first + second * gap * gap / 3.0)
        Q[p + 1] = second * gap * gap / 2.0
        Q[p + 2] = Q[p + 1]
        Q[p + 3] = second * gap
    elif k == ROTATION:
        c, sine = rotation(first * gap)
        A[p] = c
        A[p + 1] = sine
        A[p + 2] = -sine
        A[p + 3] = c
        Q[p] = second * gap
        Q[p + 1] = 0.0
        Q[p + 2] = 0.0
        Q[p + 3] = second * gap
    elif k == MATERN52:
        matern52(first, second, gap, A, Q, p)
    elif k == TABLE:
        for i in range(s * s):
            A[p + i] = transition[row, table + i] if row >= 0 else (0.0 if i % (s + 1) else 1.0)
            Q[p + i] = process_noise[row, table + i] if row >= 0 else 0.0
    elif k == SHO:
        oscillator(first, second, third, gap, A, Q, p)
    else:
        rotated(k, first, second, third, gap, A, Q, p)


@helper()
def matern52_transition(rate, gap, root, A, p):
    x = rate * gap
    A[p] = root * (1.0 + x + 0.5 * x * x)
    A[p + 1] = root * gap * (1.0 + x)
    A[p + 2] = root * 0.5 * gap * gap
    A[p + 3] = -root * 0.5 * rate * x * x
    A[p + 4] = root * (1.0 + x - x * x)
    A[p + 5] = root * gap * (1.0 - 0.5 * x)
    A[p + 6] = root * rate * rate * x * (0.5 * x - 1.0)
    A[p + 7] = root * rate * x * (x - 3.0)
    A[p + 8] = root * (1.0 - 2.0 * x + 0.5 * x * x)


@shared()
def matern52(rate, variance, gap, A, Q, p):
    x = rate * gap
    root = np.exp(-x)
    e = root * root
    z = 2.0 * x
    g = gamma_5(z, e)
    matern52_transition(rate, gap, root, A, p)
    v1 = variance * rate
    v2 = v1 * rate
    v3 = v2 * rate
    Q[p] = variance * g
    Q[p + 1] = v1 * e * z**4 / 24.0
    Q[p + 2] = v2 / 3.0 * (e * z**3 * (2.0 - z) / 6.0 - g)
    Q[p + 4] = v2 / 3.0 * (g + e * z**3 * (8.0 - z) / 12.0)
    Q[p + 5] = v3 / 24.0 * e * (z * (4.0 - z)) ** 2
    Q[p + 8] = v3 * rate / 3.0 * (3.0 * g + 2.0 * e * z * (4.0 - z * (2.0 - z)))
    Q[p + 3] = Q[p + 1]
    Q[p + 6] = Q[p + 2]
    Q[p + 7] = Q[p + 5]


@shared()
def rotated(kind, rate, variance, frequency, gap, A, Q, p):
    """R(ωΔ) ⊗ A_M and I₂ ⊗ Q_M of the process M that turns."""
    m = 1
    if kind == ROTATED_OU:
        A[p], Q[p] = ornstein_uhlenbeck(rate, variance, gap)
    elif kind == ROTATED_MATERN32:
        m = 2
        root, g = matern32_roots(rate * gap)
        A[p], A[p + 1], A[p + 2], A[p + 3], Q[p], Q[p + 1], Q[p + 3] = matern32(rate, variance, gap, root, g)
        Q[p + 2] = Q[p + 1]
    else:
        m = 3
        matern52(rate, variance, gap, A, Q, p)
    c, sine = rotation(frequency * gap)
    # from m × m to 2m × 2m in place: backwards, each entry is read before its cell is written
    for i in range(m - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            a = A[p + i * m + j]
            q = Q[p + i * m + j]
            above = p + i * 2 * m + j
            below = above + 2 * m * m
            A[above] = c * a
            A[above + m] = sine * a
            A[below] = -sine * a
            A[below + m] = c * a
            Q[above] = q
            Q[above + m] = 0.0
            Q[below] = 0.0
            Q[below + m] = q


@helper(fastmath={"contract"})
def contract_ornstein_uhlenbeck(variance, gap, root, fall, A_bar, Q_bar, p, out, o):
    """``root``, ``fall``: exp(−λΔ), expm1(−λΔ)."""
    out[o, 0] += gap * root * (2.0 * variance * root * Q_bar[p] - A_bar[p])
    out[o, 1] -= fall * (1.0 + root) * Q_bar[p]


@helper(fastmath={"contract"})
def contract_matern32(rate, variance, gap, root, g, A_bar, Q_bar, p, out, o):
    """``root``, ``g`` as ``matern32_roots`` gives them."""
    x = rate * gap
    e = root * root
    z = 2.0 * x
    cross = Q_bar[p + 1] + Q_bar[p + 2]
    out[o, 0] += root * (
        -gap * x * A_bar[p] - gap * gap * A_bar[p + 1] - x * (2.0 - x) * A_bar[p + 2] - gap * (2.0 - x) * A_bar[p + 3]
    ) + variance * (
        Q_bar[p] * gap * z * z * e
        + cross * 0.5 * z * z * (3.0 - z) * e
        + Q_bar[p + 3] * rate * (2.0 * (g + 2.0 * z * e) + x * (2.0 - z) ** 2 * e)
    )
    out[o, 1] += Q_bar[p] * g + cross * 0.5 * rate * z * z * e + Q_bar[p + 3] * rate * rate * (g + 2.0 * z * e)


@helper()
def contract_rotation(gap, c, sine, A_bar, Q_bar, p, out, o):
    out[o, 0] += gap * (c * (A_bar[p + 1] - A_bar[p + 2]) - sine * (A_bar[p] + A_bar[p + 3]))
    out[o, 1] += gap * (Q_bar[p] + Q_bar[p + 3])


@shared()
def contract_block(k, s, parameter, gap, row, table, A_bar, Q_bar, p, gradient, o):
    """Add ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ of one block to row ``o`` of ``gradient``, a TABLE's Ā and Q̄ to its row."""
    out = gradient.parameters
    first = parameter[0]
    second = parameter[1]
    third = parameter[2]
    if k == MATERN32:
        root, g = matern32_roots(first * gap)
        contract_matern32(first, second, gap, root, g, A_bar, Q_bar, p, out, o)
    elif k == RANDOM_WALK:
        out[o, 0] += gap * Q_bar[p]
    elif k == OU:
        root, fall = decay(first * gap)
        contract_ornstein_uhlenbeck(second, gap, root, fall, A_bar, Q_bar, p, out, o)
    elif k == TREND:
        out[o, 0] += gap * Q_bar[p]
        out[o, 1] += gap * (gap * gap / 3.0 * Q_bar[p] + 0.5 * gap * (Q_bar[p + 1] + Q_bar[p + 2]) + Q_bar[p + 3])
    elif k == ROTATION:
        c, sine = rotation(first * gap)
        contract_rotation(gap, c, sine, A_bar, Q_bar, p, out, o)
    elif k == MATERN52:
        contract_matern52(first, second, gap, A_bar, Q_bar, p, out, o)
    elif k == TABLE:
        for i in range(s * s if row >= 0 else 0):
            gradient.transition[row, table + i] += A_bar[p + i]
            gradient.process_noise[row, table + i] += Q_bar[p + i]
    elif k == SHO:
        contract_oscillator(first, second, third, gap, A_bar, Q_bar, p, out, o)
    else:
        contract_rotated(k, first, second, third, gap, A_bar, Q_bar, p, out, o)


@shared()
def contract_matern52(rate, variance, gap, A_bar, Q_bar, p, out, o):
    x = rate * gap
    root = np.exp(-x)
    e = root * root
    z = 2.0 * x
    g = gamma_5(z, e)
    x2 = x * x
    x3 = x2 * x
    # λ dA_ij/dλ = λ^(i−j) β_ij(x) exp(−x)
    diagonal = -0.5 * x3 * A_bar[p] + x2 * (x - 3.0) * A_bar[p + 4] + x * (3.0 * x - 3.0 - 0.5 * x2) * A_bar[p + 8]
    above = -x3 * A_bar[p + 1] + 0.5 * x2 * (x - 3.0) * A_bar[p + 5]
    below = 0.5 * x2 * (x - 3.0) * A_bar[p + 3] + x * (6.0 * x - 6.0 - x2) * A_bar[p + 7]
    corner = x * (3.0 * x - 3.0 - 0.5 * x2) * A_bar[p + 6]
    out[o, 0] += root * (diagonal / rate + below + corner * rate - 0.5 * gap**3 * A_bar[p + 2] + above / (rate * rate))
    # Q_ij = σ² λ^(i+j) f_ij(z), so λ dQ_ij/dλ = σ² λ^(i+j) ((i + j) f_ij + z f′_ij)
    q01 = Q_bar[p + 1] + Q_bar[p + 3]
    q02 = Q_bar[p + 2] + Q_bar[p + 6]
    q12 = Q_bar[p + 5] + Q_bar[p + 7]
    f01 = e * z**4 / 24.0
    f02 = (e * z**3 * (2.0 - z) / 6.0 - g) / 3.0
    f11 = (g + e * z**3 * (8.0 - z) / 12.0) / 3.0
    f12 = e * (z * (4.0 - z)) ** 2 / 24.0
    f22 = g + e * z * (8.0 - z * (4.0 - 2.0 * z)) / 3.0
    d00 = e * z**5 / 24.0
    d01 = e * z**4 * (4.0 - z) / 24.0
    d02 = e * z**3 * (1.0 - z + z * z / 8.0) / 3.0
    d11 = 2.0 / 3.0 * e * z**3 * (1.0 - 0.25 * z) ** 2
    d12 = e * z * z * (4.0 - z) * (8.0 - z * (8.0 - z)) / 24.0
    d22 = 8.0 / 3.0 * e * z * (1.0 - z + z * z / 8.0) ** 2
    out[o, 0] += variance * (
        Q_bar[p] * d00 / rate
        + q01 * (f01 + d01)
        + rate * (q02 * (2.0 * f02 + d02) + Q_bar[p + 4] * (2.0 * f11 + d11))
        + rate * rate * (q12 * (3.0 * f12 + d12) + rate * Q_bar[p + 8] * (4.0 * f22 + d22))
    )
    out[o, 1] += Q_bar[p] * g + rate * (
        q01 * f01 + rate * (q02 * f02 + Q_bar[p + 4] * f11 + rate * (q12 * f12 + rate * Q_bar[p + 8] * f22))
    )


@shared()
def contract_rotated(kind, rate, variance, frequency, gap, A_bar, Q_bar, p, out, o):
    """The adjoints of R ⊗ A_M and I₂ ⊗ Q_M become those of A_M and Q_M, in place, and are contracted as such."""
    m = 1
    if kind == ROTATED_MATERN32:
        m = 2
    elif kind == ROTATED_MATERN52:
        m = 3
    c, sine = rotation(frequency * gap)
    corner = 2 * m * m + m
    for i in range(m):
        for j in range(m):
            Q_bar[p + i * m + j] = Q_bar[p + i * 2 * m + j] + Q_bar[p + i * 2 * m + j + corner]
    # what is left of Q̄'s cells holds A_M
    q = p + m * m
    root = np.exp(-rate * gap)
    if m == 1:
        Q_bar[q] = root
    elif m == 2:
        x = rate * gap
        Q_bar[q] = root * (1.0 + x)
        Q_bar[q + 1] = root * gap
        Q_bar[q + 2] = -root * rate * x
        Q_bar[q + 3] = root * (1.0 - x)
    else:
        matern52_transition(rate, gap, root, Q_bar, q)
    along = 0.0
    for i in range(m):
        for j in range(m):
            above = p + i * 2 * m + j
            together = A_bar[above] + A_bar[above + corner]
            apart = A_bar[above + m] - A_bar[above + 2 * m * m]
            along += Q_bar[q + i * m + j] * (c * apart - sine * together)
            A_bar[p + i * m + j] = c * together + sine * apart
    out[o, 2] += gap * along
    if m == 1:
        root, fall = decay(rate * gap)
        contract_ornstein_uhlenbeck(variance, gap, root, fall, A_bar, Q_bar, p, out, o)
    elif m == 2:
        root, g = matern32_roots(rate * gap)
        contract_matern32(rate, variance, gap, root, g, A_bar, Q_bar, p, out, o)
    else:
        contract_matern52(rate, variance, gap, A_bar, Q_bar, p, out, o)


def expand(kind, size):
    """The blocks as the loops see them: a random walk of s states is s blocks of one state.

    Returns (kind, size, owner); ``owner[u]`` is the block that unit u belongs to.
    """
    walk = kind == RANDOM_WALK
    if not walk.any():
        return kind, size, np.arange(len(kind))
    owner = np.repeat(np.arange(len(kind)), np.where(walk, size, 1))
    return kind[owner], np.where(walk, 1, size)[owner], owner


_TURNED = frozenset((ROTATED_OU, ROTATED_MATERN32, ROTATED_MATERN52, SHO))
_BY_FIRST = _TURNED | {ROTATION, OU, MATERN32, MATERN52, TABLE}


def moves(kind, free):
    """For each block whether A depends on something free: ``free`` (n_blocks, 3), column 0 for a whole table."""
    wishes = zip(kind.tolist(), free.tolist(), strict=True)
    return np.array([(k in _BY_FIRST and wish[0]) or (k in _TURNED and wish[2]) for k, wish in wishes], dtype=bool)


@helper()
def tables(kind):
    """Whether some of the blocks, and whether all of them, are tables."""
    some = False
    every = True
    for k in kind:
        some = some or k == TABLE
        every = every and k == TABLE
    return some, every


@helper()
def stays(every, gap, row):
    """Whether the state is carried over a gap as it is; ``row`` is −1 where no table's row is asked for."""
    return row < 0 and (every or gap == 0.0)


@entry()
def contract_all(units, blocks, dt, transition_bar, process_noise_bar, steps, gradient):
    """Add ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ of every gap, Ā and Q̄ dense (T, n, n), of blocks without tables."""
    kind, size, owner = units
    A_bar = steps.A_bar[0]
    Q_bar = steps.Q_bar[0]
    for t in range(len(dt)):
        o = 0
        for b in range(len(kind)):
            s = size[b]
            for i in range(s):
                for j in range(s):
                    A_bar[i * s + j] = transition_bar[t, o + i, o + j]
                    Q_bar[i * s + j] = process_noise_bar[t, o + i, o + j]
            parameter = blocks.parameters[owner[b]]
            contract_block(kind[b], s, parameter, dt[t], ZERO, ZERO, A_bar, Q_bar, ZERO, gradient, owner[b])
            o += s
    A_bar[:] = 0.0
    Q_bar[:] = 0.0


@entry()
def discretize_all(units, blocks, dt, steps, transition, process_noise):
    """Write the dense A(Δ) and Q(Δ) of every gap into arrays (T, n, n) of zeros."""
    size = units[1]
    A = steps.A[0]
    Q = steps.Q[0]
    table, _ = tables(units[0])
    for t in range(len(dt)):
        row = blocks.gap_index[t] if table else -1
        discretize(units, blocks.parameters, blocks.transition, blocks.process_noise, dt[t], row, A, Q)
        o = 0
        p = 0
        for s in size:
            for i in range(s):
                for j in range(s):
                    transition[t, o + i, o + j] = A[p + i * s + j]
                    process_noise[t, o + i, o + j] = Q[p + i * s + j]
            o += s
            p += s * s
