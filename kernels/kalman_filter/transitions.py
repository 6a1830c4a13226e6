"""A(Δ) and Q(Δ) of a chunk of samples at once, and the way back from their adjoints to the parameters.

The recurrence of a filter is one chain of dependent operations; what does not depend on the state is computed beside
it, chunk by chunk: one slot for each gap, shared by samples whose gap was met a few slots before. The loops over the
slots of one block have no branch for the two commonest kinds, and become vector instructions.
"""

from statespace.kernels.kalman_filter.blocks import MATERN32, OU, TABLE
from statespace.kernels.kalman_filter.compiled import shared
from statespace.kernels.kalman_filter.discretization import (
    contract_block,
    contract_matern32,
    contract_ornstein_uhlenbeck,
    discretize_block,
    matern32,
    ornstein_uhlenbeck,
    stays,
    tables,
)

# so many slots back a gap is looked for before its matrices are computed anew
REMEMBERED = 4


@shared()
def assign_slots(record, kind, first, last, steps):
    """The slot of each sample first..last−1; returns how many there are."""
    table, every = tables(kind)
    count = 0
    for t in range(first, last):
        row = record.gap_index[t] if table else -1
        gap = 0.0 if every else record.dt[t]
        found = -1
        if not stays(every, gap, row):
            for s in range(count - 1, max(count - 1 - REMEMBERED, -1), -1):
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
def discretize_chunk(record, units, first, last, steps):
    """Fill the slots of samples first..last−1 with A(Δ) and Q(Δ), packed; returns how many there are."""
    kind, size, owner = units
    count = assign_slots(record, kind, first, last, steps)
    gap = steps.gap
    A = steps.A
    Q = steps.Q
    p = 0
    table = 0
    for b in range(len(kind)):
        k = kind[b]
        s = size[b]
        parameter = record.parameters[owner[b]]
        rate = parameter[0]
        variance = parameter[1]
        if k == MATERN32:
            for i in range(count):
                A[i, p], A[i, p + 1], A[i, p + 2], A[i, p + 3], Q[i, p], Q[i, p + 1], Q[i, p + 3] = matern32(
                    rate, variance, gap[i]
                )
                Q[i, p + 2] = Q[i, p + 1]
        elif k == OU:
            for i in range(count):
                A[i, p], Q[i, p] = ornstein_uhlenbeck(rate, variance, gap[i])
        else:
            for i in range(count):
                discretize_block(
                    k, s, parameter, record.transition, record.process_noise, gap[i], steps.row[i], table, A[i], Q[i], p
                )
            if k == TABLE:
                table += s * s
        p += s * s
    return count


@shared()
def contract_chunk(record, units, count, steps, gradient):
    """Add ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ of every slot to ``gradient``, a TABLE block's Ā and Q̄ to its row; clear both."""
    kind, size, owner = units
    out = gradient.parameters
    p = 0
    table = 0
    for b in range(len(kind)):
        k = kind[b]
        s = size[b]
        o = owner[b]
        rate = record.parameters[o, 0]
        variance = record.parameters[o, 1]
        if k == MATERN32:
            for i in range(count):
                contract_matern32(rate, variance, steps.gap[i], steps.A_bar[i], steps.Q_bar[i], p, out, o)
        elif k == OU:
            for i in range(count):
                contract_ornstein_uhlenbeck(rate, variance, steps.gap[i], steps.A_bar[i], steps.Q_bar[i], p, out, o)
        else:
            for i in range(count):
                contract_block(
                    k, s, record.parameters[o], steps.gap[i], steps.row[i], table, steps.A_bar[i], steps.Q_bar[i], p,
                    gradient, o,
                )  # fmt: skip
            if k == TABLE:
                table += s * s
        p += s * s
    for i in range(count):
        for j in range(p):
            steps.A_bar[i, j] = 0.0
            steps.Q_bar[i, j] = 0.0
