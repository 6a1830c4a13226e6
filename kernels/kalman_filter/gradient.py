"""The exact gradient: one backward sweep, contracted with dA/dθ and dQ/dθ of every block on the way."""


from statespace.kernels.kalman_filter.adjoint import gradient_pair
from statespace.kernels.kalman_filter.backstrides import gradient_pair_abreast, gradient_single_abreast
from statespace.kernels.kalman_filter.backward import (
    add_moving_adjoints,
    add_observation_adjoints,
    add_transition_adjoints,
    lift,
    observe_backward,
    recover,
)
from statespace.kernels.kalman_filter.compiled import NO, embedded, entry
from statespace.kernels.kalman_filter.sweep import (
    DIFFUSE,
    MISSING,
    SEEN,
    copy_matrix,
    copy_vector,
    transpose,
)
from statespace.kernels.kalman_filter.tiles import gradient_tiles
from statespace.kernels.kalman_filter.transitions import contract_chunk, discretize_chunk

# What ``routes.py`` chooses from: each is compiled when a record first needs it.


@entry()
def gradient_start(
    record, units, moving, by_observation, first, last, start, stop, last_diffuse, origin, kept, base, b, out, work
):  # fmt: skip
    gradient_any(
        record, units, moving, by_observation, first, last, start, stop, last_diffuse, origin, kept, base, b, out, work
    )  # fmt: skip


@entry(fastmath={"contract"})
def gradient_direct(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    gradient_pair(record, units, by_observation, first, last, stop, kept, base, b, out, None, work)


@entry(fastmath={"contract"})
def gradient_abreast_single(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    gradient_single_abreast(record, units, by_observation, first, last, stop, kept, base, b, out, work)


@entry(fastmath={"contract"})
def gradient_abreast_pair(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    gradient_pair_abreast(record, units, by_observation, first, last, stop, kept, base, b, out, work)


@entry(fastmath={"contract"})
def gradient_slotted(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    gradient_pair(record, units, by_observation, first, last, stop, kept, base, b, out, work.steps, work)


@entry(fastmath={"contract"})
def gradient_tiled(record, units, some, by_observation, first, last, stop, kept, base, b, out, work):
    gradient_tiles(record, units, some, by_observation, first, last, stop, kept, base, b, out, work)


@entry()
def add_initial_adjoints(b, origin, out):
    """∂ℓ/∂a = r₀, ∂ℓ/∂P∗ = ½ (r₀r₀ᵀ − N₀), ∂ℓ/∂D = (r₀r₁ᵀ + r₁r₀ᵀ − N₁) D, from before the first transition."""
    n = len(b.r0)
    for i in range(n):
        out.mean[i] += b.r0[i]
        for j in range(n):
            out.covariance[i, j] += 0.5 * (b.r0[i] * b.r0[j] - b.N0[i, j])
            c = b.r0[i] * b.r1[j] + b.r1[i] * b.r0[j] - b.N1[i, j]
            for k in range(len(origin.diffuse)):
                out.diffuse[i, k] += c * origin.diffuse[k, j]


@embedded()
def gradient_any(
    record, units, moving, by_observation, first, last, start, stop, last_diffuse, origin, kept, base, b, out, work
):  # fmt: skip
    _, size, _ = units
    d = len(origin.diffuse)
    steps, _, _, At, W, _, _, P, D, a, m, K0, e0, e1, g, u, _, _, scratch = work
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    some = NO
    for moved in moving:
        some = some or moved
    # t = start − 1 stands for the state that the first transition leaves
    lowest = start - 1 if first == start else first
    chunk = len(steps.gap)
    for end in range(last, lowest, -chunk):
        begin = max(lowest, end - chunk)
        slots = discretize_chunk(record, units, begin + 1, min(end + 1, stop), steps, NO)
        slot = -1
        for t in range(end - 1, begin - 1, -1):
            i = t - base
            late = t < last_diffuse and last_diffuse > 0
            h = record.observation[max(t, start) * each_h]
            status = MISSING
            alive = 0
            F = 1.0
            F_inf = 0.0
            v = 0.0
            inverse = 0.0
            if t >= start:
                status = kept.status[i]
                v = kept.innovation[i]
                F = kept.variance[i]
            if t < start:
                copy_vector(origin.mean, a)
                copy_matrix(origin.covariance, P)
                copy_matrix(origin.diffuse, D)
                alive = d if late else 0
            elif late:
                copy_vector(kept.mean[i], a)
                copy_matrix(kept.covariance[i], P)
                alive = kept.alive[i]
                for c in range(alive):
                    copy_vector(kept.diffuse[i, c], D[c])
                R = record.noise_variance[t * each_R]
                F, F_inf = recover(units, h, v, R, status, alive, a, P, D, m, g, K0)
            elif status == SEEN:
                inverse = 1.0 / F
                for j in range(len(m)):
                    m[j] = kept.product[i, j]
                    K0[j] = m[j] * inverse
            else:
                for j in range(len(m)):
                    m[j] = 0.0
            following = steps.slot[t - begin] if t + 1 < stop else -1
            if following >= 0:
                if following != slot:
                    slot = following
                    transpose(size, steps.A[slot], At)
                A_bar = steps.A_bar[slot]
                Q_bar = steps.Q_bar[slot]
                if late:
                    left = alive - 1 if status == DIFFUSE else alive
                    add_transition_adjoints(b, t + 1 < last_diffuse, units, At, a, P, D, left, A_bar, Q_bar, W, scratch)
                else:
                    before = kept.mean[i] if some and t >= start else a
                    spread = kept.covariance[i] if some and t >= start else P
                    add_moving_adjoints(
                        b, units, moving, some, At, before, spread, m, inverse, v, A_bar, Q_bar, W, scratch
                    )
            if status in (SEEN, DIFFUSE):
                observe_backward(b, late, h, v, F, F_inf, m, K0, scratch, e0, e1, u)
                if late or by_observation:
                    add_observation_adjoints(
                        b, late, h, F_inf, m, K0, kept.mean[i], kept.covariance[i], kept.diffuse[i], alive, e0, e1, u,
                        out.noise_variance[t * each_R : t * each_R + 1], out.observation[t * each_h], scratch,
                    )  # fmt: skip
                else:
                    out.noise_variance[t * each_R] += 0.5 * (u[0] * u[0] - u[2])
                lift(b, late, h, u)
        contract_chunk(record, units, slots, steps, out, NO)
