"""A(Δ) and Q(Δ) of a chunk of samples at once, and the way back from their adjoints to the parameters.

The recurrence of a filter is one chain of dependent operations; what does not depend on the state is computed beside
it, chunk by chunk: one slot for each gap, shared by samples whose gap was met a few slots before. The exponentials of
the two commonest kinds, and the cosines and sines of rotations, are loops without a branch, which become vector
instructions.
"""

import numpy as np

from statespace.kernels.kalman_filter.blocks import MATERN32, OU, ROTATION, TABLE
from statespace.kernels.kalman_filter.circular import FARTHEST, cosine_and_sine
from statespace.kernels.kalman_filter.compiled import ZERO, shared
from statespace.kernels.kalman_filter.discretization import (
    contract_block,
    contract_matern32,
    contract_ornstein_uhlenbeck,
    contract_rotation,
    decay,
    discretize_block,
    matern32,
    matern32_roots,
    ornstein_uhlenbeck_noise,
    rotation,
    stays,
    tables,
)

# so many slots back a gap is looked for before its matrices are computed anew
REMEMBERED = 4


@shared()
def assign_slots(record, kind, first, last, steps):
    """The slot of each sample first..last−1; returns how many there are."""
    table, every = tables(kind)
    # Matrices that a few nanoseconds make are not worth a search.
    remembered = 1
    for k in kind:
        if k != OU and k != MATERN32:
            remembered = REMEMBERED
    count = 0
    for t in range(first, last):
        row = record.gap_index[t] if table else -1
        gap = 0.0 if every else record.dt[t]
        found = -1
        if not stays(every, gap, row):
            for s in range(count - 1, max(count - 1 - remembered, -1), -1):
                if found < 0 and steps.gap[s] == gap and steps.row[s] == row:
                    found = s
            if found < 0:
                found = count
                steps.gap[count] = gap
                steps.row[count] = row
                count += 1
        steps.slot[t - first] = found
    return count


@shared(fastmath={"contract"})
def fill_matern32_roots(rate, gap, count, root, rest):
    for i in range(count):
        root[i], rest[i] = matern32_roots(rate * gap[i])


@shared(fastmath={"contract"})
def fill_decays(rate, gap, count, root, rest):
    for i in range(count):
        root[i], rest[i] = decay(rate * gap[i])


@shared(fastmath={"contract"})
def fill_rotations(rate, gap, count, cosine, sine):
    """As ``rotation``, for many gaps at once."""
    for i in range(count):
        angle = rate * gap[i]
        c, s = cosine_and_sine(angle)
        whole = abs(s) <= 4.5e-16 * abs(angle)
        cosine[i] = np.copysign(1.0, c) if whole else c
        sine[i] = 0.0 if whole else s
    for i in range(count):
        if not abs(rate * gap[i]) <= FARTHEST:
            cosine[i], sine[i] = rotation(rate * gap[i])


@shared(fastmath={"contract"})
def discretize_chunk(record, units, first, last, steps, padded):
    """Fill the slots of samples first..last−1 with A(Δ) and Q(Δ), packed; returns how many there are.

    ``padded``: four entries for every block, which has one or two states.
    """
    kind, size, owner = units
    count = assign_slots(record, kind, first, last, steps)
    _, gap, _, A, Q, _, _, root, rest = steps
    p = ZERO
    table = ZERO
    for b in range(len(kind)):
        k = kind[b]
        s = size[b]
        parameter = record.parameters[owner[b]]
        rate = parameter[0]
        variance = parameter[1]
        if k == MATERN32:
            fill_matern32_roots(rate, gap, count, root, rest)
            for i in range(count):
                A[i, p], A[i, p + 1], A[i, p + 2], A[i, p + 3], Q[i, p], Q[i, p + 1], Q[i, p + 3] = matern32(
                    rate, variance, gap[i], root[i], rest[i]
                )
                Q[i, p + 2] = Q[i, p + 1]
        elif k == OU:
            fill_decays(rate, gap, count, root, rest)
            for i in range(count):
                A[i, p] = root[i]
                Q[i, p] = ornstein_uhlenbeck_noise(variance, root[i], rest[i])
        elif k == ROTATION:
            fill_rotations(rate, gap, count, root, rest)
            for i in range(count):
                A[i, p] = root[i]
                A[i, p + 1] = rest[i]
                A[i, p + 2] = -rest[i]
                A[i, p + 3] = root[i]
                Q[i, p] = variance * gap[i]
                Q[i, p + 1] = 0.0
                Q[i, p + 2] = 0.0
                Q[i, p + 3] = variance * gap[i]
        else:
            for i in range(count):
                discretize_block(
                    k, s, parameter, record.transition, record.process_noise, gap[i], steps.row[i], table, A[i], Q[i], p
                )
            if k == TABLE:
                table += s * s
        if padded and s == 1:
            for i in range(count):
                for j in range(p + 1, p + 4):
                    A[i, j] = 0.0
                    Q[i, j] = 0.0
        p += 4 if padded else s * s
    return count


@shared()
def contract_chunk(record, units, count, steps, gradient, padded):
    """Add ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ of every slot to ``gradient``, a TABLE block's Ā and Q̄ to its row; clear both.

    The slots still hold the A that ``discretize_chunk`` left.
    """
    kind, size, owner = units
    out = gradient.parameters
    _, gap, _, A, _, A_bar, Q_bar, root, rest = steps
    p = ZERO
    table = ZERO
    for b in range(len(kind)):
        k = kind[b]
        s = size[b]
        o = owner[b]
        rate = record.parameters[o, 0]
        variance = record.parameters[o, 1]
        if k == MATERN32:
            fill_matern32_roots(rate, gap, count, root, rest)
            for i in range(count):
                contract_matern32(rate, variance, gap[i], root[i], rest[i], A_bar[i], Q_bar[i], p, out, o)
        elif k == OU:
            fill_decays(rate, gap, count, root, rest)
            for i in range(count):
                contract_ornstein_uhlenbeck(variance, gap[i], root[i], rest[i], A_bar[i], Q_bar[i], p, out, o)
        elif k == ROTATION:
            # its A is the cosine and the sine, which are dear
            for i in range(count):
                contract_rotation(gap[i], A[i, p], A[i, p + 1], A_bar[i], Q_bar[i], p, out, o)
        else:
            for i in range(count):
                contract_block(
                    k, s, record.parameters[o], gap[i], steps.row[i], table, A_bar[i], Q_bar[i], p, gradient, o
                )
            if k == TABLE:
                table += s * s
        p += 4 if padded else s * s
    for i in range(count):
        for j in range(p):
            A_bar[i, j] = 0.0
            Q_bar[i, j] = 0.0
