"""The exact gradient: one backward sweep, contracted with dA/dθ and dQ/dθ of every block on the way."""

import numpy as np

from statespace.kernels.kalman_filter.backward import (
    add_moving_adjoints,
    add_observation_adjoints,
    add_transition_adjoints,
    lift,
    observe_backward,
    recover,
)
from statespace.kernels.kalman_filter.compiled import entry
from statespace.kernels.kalman_filter.discretization import contract, discretize, stays, tables
from statespace.kernels.kalman_filter.sweep import (
    DIFFUSE,
    MISSING,
    SEEN,
    copy_matrix,
    copy_vector,
    transpose,
)


@entry()
def gradient_segment(
    record, units, moving, by_observation, first, last, last_diffuse, origin, kept, b, out, work
):
    """Take ``b`` from after sample last−1 to after sample first−1 (to before the start, if first = 0); add to ``out``.

    ``kept`` holds what the filter left of the segment, ``origin`` the state before the first sample of the record. The
    predicted moments are read where a block is ``moving`` (its A depends on a parameter), where the gradient is wanted
    ``by_observation``, and through the diffuse start; elsewhere m, F and v are enough.
    """
    kind, size, _ = units
    d = len(origin.diffuse)
    T = len(record.y)
    table, every = tables(kind)
    A, Q, At, A_bar, Q_bar, W, _, _, P, D, a, m, K0, e0, e1, g, u, _, _, scratch = work
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    some = False
    for moved in moving:
        some = some or moved
    gap = np.nan
    row = -1
    pending = False
    # t = −1 stands for the state that the first transition leaves
    for t in range(last - 1, first - 1 if first > 0 else -2, -1):
        i = t - first
        late = t < last_diffuse and last_diffuse > 0
        h = record.observation[max(t, 0) * each_h]
        status = MISSING
        alive = 0
        F = 1.0
        F_inf = 0.0
        v = 0.0
        inverse = 0.0
        if t >= 0:
            status = kept.status[i]
            v = kept.innovation[i]
            F = kept.variance[i]
        if t < 0:
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
        following = record.gap_index[t + 1] if table and t + 1 < T else -1
        if t + 1 < T and not stays(every, record.dt[t + 1], following):
            if record.dt[t + 1] != gap or following != row:
                # equal gaps in a row share one contraction
                if pending:
                    contract(units, record.parameters, gap, row, A_bar, Q_bar, out)
                gap = record.dt[t + 1]
                row = following
                pending = True
                discretize(units, record.parameters, record.transition, record.process_noise, gap, row, A, Q)
                transpose(size, A, At)
            if late:
                left = alive - 1 if status == DIFFUSE else alive
                add_transition_adjoints(b, t + 1 < last_diffuse, units, At, a, P, D, left, A_bar, Q_bar, W, scratch)
            else:
                before = kept.mean[i] if some and t >= 0 else a
                spread = kept.covariance[i] if some and t >= 0 else P
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
    if pending:
        contract(units, record.parameters, gap, row, A_bar, Q_bar, out)
