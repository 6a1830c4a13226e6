"""A(Δ) and Q(Δ) of a chunk of steps of eight lanes, for blocks of one or two states.

Each block has four vectors, row by row; one of a single state is padded with zeros. The third of Q, which is symmetric,
holds what the way back wants again: Q of OU processes and Q₀₀ of Matérn ones at unit variance. As in
``transitions.py``, steps with the gaps of the step before share a slot. What is 0 or 1 for every gap is written once,
by ``prepare_slots``.
"""

from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    OU,
    RANDOM_WALK,
    ROTATED_OU,
    ROTATION,
    TABLE,
    TREND,
)
from statespace.kernels.kalman_filter.compiled import ZERO, entry, helper, shared
from statespace.kernels.kalman_filter.discretization import matern32
from statespace.kernels.kalman_filter.transposition import WIDTH, load, splat
from statespace.kernels.kalman_filter.vector_blocks import (
    add,
    contract_matern32_noise,
    decays,
    gammas_3,
    rotations,
)
from statespace.kernels.vectors import somewhere, store

# steps of a chunk, a multiple of the lanes
STEPS = 16
# the kinds that are known here
KINDS = (RANDOM_WALK, TREND, ROTATION, OU, MATERN32, TABLE, ROTATED_OU)


@shared()
def prepare_slots(size, A, Q):
    """A = I, Q = 0 in every slot."""
    for i in range(len(A)):
        A[i] = 0.0
        Q[i] = 0.0
    blocks = len(size)
    for i in range(STEPS):
        for b in range(blocks):
            place = (i * blocks + b) * 4 * WIDTH
            store(splat(1.0), A, place)
            if size[b] == 2:
                store(splat(1.0), A, place + 3 * WIDTH)


@helper()
def row_of(gap_index, t, stop):
    """The table's row that leads to sample t of a lane; −1, which stays where it is, beyond its last."""
    return gap_index[t] if t < stop else -1


@shared()
def assign_lane_slots(record, begin, steps, at, stops, C, gaps, slot):
    """The slot of each step of a chunk, whose gaps are in ``C`` from ``gaps`` on; returns how many there are."""
    table = len(record.gap_index) > 0
    count = 0
    for k in range(steps):
        new = k == 0 or somewhere(load(C, gaps + k * WIDTH) != load(C, gaps + slot[STEPS + count - 1] * WIDTH))
        if table and not new:
            known = slot[STEPS + count - 1]
            for l in range(WIDTH):
                t = at[l] + begin
                if row_of(record.gap_index, t + k, stops[l]) != row_of(record.gap_index, t + known, stops[l]):
                    new = True
        if new:
            slot[STEPS + count] = k
            count += 1
        slot[k] = count - 1
    return count


@entry()
def discretize_lanes(record, units, begin, steps, at, stops, C, gaps, slot, A, Q, scratch):
    """A(Δ), Q(Δ) of steps begin..begin + steps − 1; ``slot`` becomes the slot of each, then the step of each slot."""
    kind, size, owner = units
    blocks = len(kind)
    count = assign_lane_slots(record, begin, steps, at, stops, C, gaps, slot)
    table = ZERO
    for b in range(blocks):
        k = kind[b]
        parameter = record.parameters[owner[b]]
        rate = parameter[0]
        variance = parameter[1]
        for i in range(count):
            gap = load(C, gaps + slot[STEPS + i] * WIDTH)
            p = (i * blocks + b) * 4 * WIDTH
            if k == MATERN32:
                x = rate * gap
                root, _ = decays(x)
                g = gammas_3(2.0 * x, root * root)
                a00, a01, a10, a11, q00, q01, q11 = matern32(rate, variance, gap, root, g)
                store(a00, A, p)
                store(a01, A, p + WIDTH)
                store(a10, A, p + 2 * WIDTH)
                store(a11, A, p + 3 * WIDTH)
                store(q00, Q, p)
                store(q01, Q, p + WIDTH)
                store(q11, Q, p + 3 * WIDTH)
                store(g, Q, p + 2 * WIDTH)
            elif k == OU:
                root, fall = decays(rate * gap)
                unit = -fall * (1.0 + root)
                store(root, A, p)
                store(variance * unit, Q, p)
                store(unit, Q, p + 2 * WIDTH)
            elif k == RANDOM_WALK:
                store(rate * gap, Q, p)
            elif k == TREND:
                square = gap * gap
                store(gap, A, p + WIDTH)
                store(gap * (rate + variance * (1 / 3) * square), Q, p)
                store(0.5 * variance * square, Q, p + WIDTH)
                store(variance * gap, Q, p + 3 * WIDTH)
            elif k in (ROTATION, ROTATED_OU):
                angle = (rate if k == ROTATION else parameter[2]) * gap
                c, sine = rotations(angle, scratch)
                noise = variance * gap
                if k == ROTATED_OU:
                    root, fall = decays(rate * gap)
                    c = c * root
                    sine = sine * root
                    unit = -fall * (1.0 + root)
                    noise = variance * unit
                    store(unit, Q, p + 2 * WIDTH)
                store(c, A, p)
                store(sine, A, p + WIDTH)
                store(-sine, A, p + 2 * WIDTH)
                store(c, A, p + 3 * WIDTH)
                store(noise, Q, p)
                store(noise, Q, p + 3 * WIDTH)
            else:
                look_up(record, size[b], begin + slot[STEPS + i], at, stops, table, A, Q, p)
        if k == TABLE:
            table += size[b] * size[b]


@helper()
def look_up(record, s, step, at, stops, table, A, Q, p):
    """A table's matrices, of another row in every lane."""
    for l in range(WIDTH):
        row = row_of(record.gap_index, at[l] + step, stops[l])
        for i in range(s * s):
            A[p + i * WIDTH + l] = record.transition[row, table + i] if row >= 0 else (0.0 if i % (s + 1) else 1.0)
            Q[p + i * WIDTH + l] = record.process_noise[row, table + i] if row >= 0 else 0.0


@entry()
def contract_lanes(record, units, begin, count, at, stops, C, gaps, slot, A, Q, A_bar, Q_bar, V, to_blocks, out):
    """Add ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ of every slot to three vectors for each block, a table's to its rows in ``out``.

    ``A_bar`` is half of G = Aᵀ Ā, and ⟨Ā, dA/dθ⟩ = ⟨G, A⁻¹ dA/dθ⟩; a rotation's may hold G₀₁ − G₁₀ in place of both, a
    table's is half of Ā. Of Q̄, which is symmetric, the third of four vectors is not there.
    """
    kind, size, owner = units
    blocks = len(kind)
    table = ZERO
    for b in range(blocks):
        k = kind[b]
        rate = record.parameters[owner[b], 0]
        variance = record.parameters[owner[b], 1]
        to = to_blocks + 3 * owner[b] * WIDTH
        first = splat(0.0)
        second = splat(0.0)
        third = splat(0.0)
        for i in range(count):
            gap = load(C, gaps + slot[STEPS + i] * WIDTH)
            p = (i * blocks + b) * 4 * WIDTH
            q00 = load(Q_bar, p)
            if k == RANDOM_WALK:
                first = first + gap * q00
            elif k == OU:
                root = load(A, p)
                first = first + (2.0 * gap) * (variance * root * root * q00 - load(A_bar, p))
                second = second + load(Q, p + 2 * WIDTH) * q00
            elif k == TABLE:
                contract_rows(record, size[b], begin + slot[STEPS + i], at, stops, table, A_bar, Q_bar, p, out)
            else:
                g00 = load(A_bar, p)
                g01 = load(A_bar, p + WIDTH)
                g10 = load(A_bar, p + 2 * WIDTH)
                g11 = load(A_bar, p + 3 * WIDTH)
                cross = 2.0 * load(Q_bar, p + WIDTH)
                q11 = load(Q_bar, p + 3 * WIDTH)
                if k == MATERN32:
                    x = rate * gap
                    through_A = gap * (x * (g00 - g11) + gap * g01 - 2.0 * g11) - x * (2.0 + x) * g10
                    # exp(−2x) is the determinant of A
                    e = load(A, p) * load(A, p + 3 * WIDTH) - load(A, p + WIDTH) * load(A, p + 2 * WIDTH)
                    by_rate, by_variance = contract_matern32_noise(
                        rate, gap, e, load(Q, p + 2 * WIDTH), q00, cross, q11
                    )
                    first = first + (2.0 * through_A + variance * by_rate)
                    second = second + by_variance
                elif k == TREND:
                    first = first + gap * q00
                    second = second + gap * (gap * (gap * (1 / 3) * q00 + 0.5 * cross) + q11)
                else:
                    # a quarter turn of A is its derivative by the angle
                    turned = (2.0 * gap) * (g01 - g10)
                    if k == ROTATION:
                        first = first + turned
                        second = second + gap * (q00 + q11)
                    else:
                        third = third + turned
                        c = load(A, p)
                        sine = load(A, p + WIDTH)
                        noise = variance * (c * c + sine * sine) * (q00 + q11)
                        first = first + (2.0 * gap) * (noise - (g00 + g11))
                        second = second + load(Q, p + 2 * WIDTH) * (q00 + q11)
        add(first, V, to)
        add(second, V, to + WIDTH)
        add(third, V, to + 2 * WIDTH)
        if k == TABLE:
            table += size[b] * size[b]


@helper()
def contract_rows(record, s, step, at, stops, table, A_bar, Q_bar, p, out):
    for l in range(WIDTH):
        row = row_of(record.gap_index, at[l] + step, stops[l])
        if row >= 0:
            for i in range(s * s):
                out.transition[row, table + i] += 2.0 * A_bar[p + i * WIDTH + l]
                out.process_noise[row, table + i] += Q_bar[p + (1 if i == 2 else i) * WIDTH + l]
