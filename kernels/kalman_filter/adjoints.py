"""The gradient's backward sweep over several records at a time, each in its lane: ``pair.gradient_pair`` in vectors.

It reads what ``lockstep.py`` left on the way there. A missing sample, or one that another record of the group has and
this one has not, has 1/F = 0 and v = 0, from which follows 0 for all that an observation adds.
"""

from typing import NamedTuple

from statespace.kernels.kalman_filter.batch import sum_of
from statespace.kernels.kalman_filter.compiled import embedded, entry, helper
from statespace.kernels.kalman_filter.lockstep import (
    CHUNK,
    board,
    group_ahead,
    land,
    prepare,
    width_of_way,
)
from statespace.kernels.kalman_filter.record import PREDICTED
from statespace.kernels.kalman_filter.transposition import WIDTH, bring_in, hand_out, load, splat
from statespace.kernels.kalman_filter.vector_blocks import add, contract_vectors, discretize_vectors
from statespace.kernels.vectors import somewhere, store


@helper()
def place(n, i, j):
    """Where P_ij, i ≤ j, stands among the vectors that a step left; one before P_ii is a_i."""
    return 4 + i * (n + 1) - i * (i - 1) // 2 + j - i


class Places(NamedTuple):
    """Where ā, P̄, Ā, Q̄ stand; then P̄A, k, m, the filtered a and P, m̄, and the sums ∂ℓ/∂R, ∂ℓ/∂h and ∂ℓ/∂θ."""

    a_bar: int
    P_bar: int
    A_bar: int
    Q_bar: int
    W: int
    k: int
    m: int
    filtered: int
    spread: int
    m_bar: int
    by_R: int
    by_h: int
    by_block: int


def vectors_needed(n, blocks):
    return 5 * n * n + 6 * n + 1 + 3 * blocks


@helper()
def places(n):
    one = n * WIDTH
    square = n * one
    first = 5 * square
    return Places(
        first, 0, square, 2 * square, 3 * square, first + one, first + 2 * one, first + 3 * one, 4 * square,
        first + 4 * one, first + 5 * one, first + 5 * one + WIDTH, first + 6 * one + WIDTH,
    )  # fmt: skip


@helper()
def back_over_transition(n, some, S, A, V, q):
    """Q̄ += P̄,  Ā += ā aᵀ + 2 P̄ A P,  P̄ ← Aᵀ P̄ A,  ā ← Aᵀ ā."""
    for i in range(n):
        for j in range(n):
            x = load(V, q.P_bar + i * n * WIDTH) * load(S, A + j * WIDTH)
            for u in range(1, n):
                x = x + load(V, q.P_bar + (i * n + u) * WIDTH) * load(S, A + (u * n + j) * WIDTH)
            store(x, V, q.W + (i * n + j) * WIDTH)
            add(load(V, q.P_bar + (i * n + j) * WIDTH), V, q.Q_bar + (i * n + j) * WIDTH)
    if some:
        for i in range(n):
            for j in range(n):
                x = load(V, q.W + i * n * WIDTH) * load(V, q.spread + j * WIDTH)
                for u in range(1, n):
                    x = x + load(V, q.W + (i * n + u) * WIDTH) * load(V, q.spread + (u * n + j) * WIDTH)
                x = load(V, q.a_bar + i * WIDTH) * load(V, q.filtered + j * WIDTH) + 2.0 * x
                add(x, V, q.A_bar + (i * n + j) * WIDTH)
    for i in range(n):
        for j in range(i, n):
            x = load(S, A + i * WIDTH) * load(V, q.W + j * WIDTH)
            for u in range(1, n):
                x = x + load(S, A + (u * n + i) * WIDTH) * load(V, q.W + (u * n + j) * WIDTH)
            store(x, V, q.P_bar + (i * n + j) * WIDTH)
            store(x, V, q.P_bar + (j * n + i) * WIDTH)
        # the filtered mean is not needed any more
        x = load(S, A + i * WIDTH) * load(V, q.a_bar)
        for u in range(1, n):
            x = x + load(S, A + (u * n + i) * WIDTH) * load(V, q.a_bar + u * WIDTH)
        store(x, V, q.filtered + i * WIDTH)
    for i in range(n):
        store(load(V, q.filtered + i * WIDTH), V, q.a_bar + i * WIDTH)


@helper()
def back_over_observation(n, by_observation, S, P, C, h, inverse, gain, V, q):
    """See ``pair.gradient_pair``; returns F̄ and leaves m̄ and, where it is asked for, ∂ℓ/∂h in its first n places."""
    along = splat(0.0)
    F_bar = -0.5 * (inverse - gain * gain)
    for i in range(n):
        k = load(V, q.k + i * WIDTH)
        along = along + load(V, q.a_bar + i * WIDTH) * k
        w = load(V, q.P_bar + i * n * WIDTH) * load(V, q.k)
        for j in range(1, n):
            w = w + load(V, q.P_bar + (i * n + j) * WIDTH) * load(V, q.k + j * WIDTH)
        F_bar = F_bar + k * w
        store(load(V, q.a_bar + i * WIDTH) * gain - 2.0 * w, V, q.m_bar + i * WIDTH)
    F_bar = F_bar - along * gain
    lift = gain - along
    for i in range(n):
        add(F_bar * load(C, h + i * WIDTH), V, q.m_bar + i * WIDTH)
    if by_observation:
        for i in range(n):
            x = load(V, q.m + i * WIDTH) * F_bar + load(S, i * WIDTH) * lift
            for j in range(n):
                x = x + load(S, P + (i * n + j) * WIDTH) * load(V, q.m_bar + j * WIDTH)
            store(x, V, q.filtered + i * WIDTH)
    for i in range(n):
        m_bar = load(V, q.m_bar + i * WIDTH)
        h_i = load(C, h + i * WIDTH)
        add(lift * h_i, V, q.a_bar + i * WIDTH)
        for j in range(i, n):
            x = m_bar * load(C, h + j * WIDTH) + load(V, q.m_bar + j * WIDTH) * h_i
            x = load(V, q.P_bar + (i * n + j) * WIDTH) + 0.5 * x
            store(x, V, q.P_bar + (i * n + j) * WIDTH)
            store(x, V, q.P_bar + (j * n + i) * WIDTH)
    return F_bar


@embedded()
def group_back(n, record, units, flat, some, by_observation, longest, room, V, way, by_R, by_h):
    """From the last step of a group to its first, before which the adjoints of the predicted moments stay in ``V``.

    ``by_R``, ``by_h``: flat arrays of ∂ℓ/∂R and ∂ℓ/∂h, written where each sample has its own.
    """
    S, C, _, _, scratch, at, stops = room
    each_R = len(flat.noise_variance) > 1
    each_h = len(flat.observation) > n
    P = n * WIDTH
    A = P + 2 * n * n * WIDTH
    Q = A + n * n * WIDTH
    q = places(n)
    for i in range(len(V)):
        V[i] = 0.0
    known = splat(-1.0)
    following = splat(-1.0)
    begin = longest
    for t in range(longest - 1, -1, -1):
        if t < begin:
            begin = t // CHUNK * CHUNK
            if each_h:
                bring_in(flat.observation, n, begin, t + 1 - begin, at, stops, 0.0, C, 3 * CHUNK * WIDTH, scratch)
        h = (3 * CHUNK + (t - begin) * n) * WIDTH
        w = t * width_of_way(n) * WIDTH
        error = load(way, w + WIDTH)
        inverse = load(way, w + 2 * WIDTH)
        for i in range(n):
            store(load(way, w + (place(n, i, i) - 1) * WIDTH), S, i * WIDTH)
            for j in range(i, n):
                x = load(way, w + place(n, i, j) * WIDTH)
                store(x, S, P + (i * n + j) * WIDTH)
                store(x, S, P + (j * n + i) * WIDTH)
        for i in range(n):
            x = load(S, P + i * n * WIDTH) * load(C, h)
            for j in range(1, n):
                x = x + load(S, P + (i * n + j) * WIDTH) * load(C, h + j * WIDTH)
            store(x, V, q.m + i * WIDTH)
            store(x * inverse, V, q.k + i * WIDTH)
        if t + 1 < longest:
            if some:
                for i in range(n):
                    k = load(V, q.k + i * WIDTH)
                    store(load(S, i * WIDTH) + k * error, V, q.filtered + i * WIDTH)
                    for j in range(n):
                        x = load(S, P + (i * n + j) * WIDTH) - k * load(V, q.m + j * WIDTH)
                        store(x, V, q.spread + (i * n + j) * WIDTH)
            if somewhere(following != known):
                if t + 2 < longest:
                    contract_vectors(record, units, n, known, S, A, V, q.A_bar, q.Q_bar, q.by_block, scratch)
                known = following
                discretize_vectors(record, units, n, known, S, A, Q, scratch)
            back_over_transition(n, some, S, A, V, q)
        following = load(way, w)
        F_bar = back_over_observation(n, by_observation, S, P, C, h, inverse, error * inverse, V, q)
        # what each sample has of its own takes the place of what it came from
        if each_R:
            store(F_bar, C, (2 * CHUNK + t - begin) * WIDTH)
        else:
            add(F_bar, V, q.by_R)
        if by_observation:
            for i in range(n):
                x = load(V, q.filtered + i * WIDTH)
                if each_h:
                    store(x, C, h + i * WIDTH)
                else:
                    add(x, V, q.by_h + i * WIDTH)
        if t == begin:
            size = min(CHUNK, longest - begin)
            if each_R:
                hand_out(C, 2 * CHUNK * WIDTH, 1, begin, size, at, stops, by_R, scratch)
            if each_h and by_observation:
                hand_out(C, 3 * CHUNK * WIDTH, n, begin, size, at, stops, by_h, scratch)
    if longest > 1:
        contract_vectors(record, units, n, known, S, A, V, q.A_bar, q.Q_bar, q.by_block, scratch)


@helper()
def collect(n, members, V, found_a, found_P, out, each_R, each_h):
    """Add a group's sums to ``out``; write the adjoints of each record's first moments."""
    q = places(n)
    for l in range(WIDTH):
        i = members[l]
        for j in range(n if i >= 0 else 0):
            found_a[i, j] = V[q.a_bar + j * WIDTH + l]
            for k in range(n):
                found_P[i, j, k] = V[q.P_bar + (j * n + k) * WIDTH + l]
        for b in range(out.parameters.shape[0]):
            for j in range(3):
                out.parameters[b, j] += V[q.by_block + (3 * b + j) * WIDTH + l]
        if not each_R:
            out.noise_variance[0] += V[q.by_R + l]
        for j in range(0 if each_h else n):
            out.observation[0, j] += V[q.by_h + j * WIDTH + l]


@entry(nogil=True)
def gradient_lanes(
    states, first, last, bounds, members, starts, found, record, units, flat, some, by_observation, values, sums, a_bar,
    P_bar, room, V, way, by_R, by_h,
):  # fmt: skip
    """Sums g = first..last−1 of groups bounds[g]..bounds[g + 1] − 1; leaves the adjoints where lanes begin."""
    n = len(states)
    each_R = len(flat.noise_variance) > 1
    each_h = len(flat.observation) > n
    prepare(n, flat, room)
    for g in range(first, last):
        out = sum_of(sums, g)
        for group in range(bounds[g], bounds[g + 1]):
            longest = board(n, members[group], starts, found, room)
            group_ahead(n, record, units, flat, longest, room, PREDICTED, way)
            land(members[group], room.totals, values)
            group_back(n, record, units, flat, some, by_observation, longest, room, V, way, by_R, by_h)
            collect(n, members[group], V, a_bar, P_bar, out, each_R, each_h)
