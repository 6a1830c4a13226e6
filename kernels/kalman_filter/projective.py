"""One or two states and nothing diffuse left: likelihood and gradient without a division in the recursion.

P = X/s turns an update and a prediction into sums of products, nearly all of them positive, of the numbers carried
(README.md, "In projective coordinates"). A chunk of samples goes through loops one after the other: the transitions and
what the recursion wants of them, for many samples at once; the recursion; what follows from it, for many samples at
once. The means are one chunk behind: their recursion runs beside that of X and s, which waits for its own additions.

Where a number leaves the range of floats (a noise variance of 0, for one) the sweep stops before that chunk and leaves
it to ``pair.py``, as it does where rows of h see the second state.
"""

import numpy as np

from statespace.kernels.kalman_filter.blocks import MATERN32, OU, RANDOM_WALK, TREND
from statespace.kernels.kalman_filter.compiled import CHUNK, COLUMN, NO, ZERO, embedded, helper, shared
from statespace.kernels.kalman_filter.discretization import matern32, matern32_roots, ornstein_uhlenbeck
from statespace.kernels.kalman_filter.record import TILES
from statespace.kernels.kalman_filter.transitions import discretize_chunk

# Where the columns of a chunk begin: A and Q, y, 1/R (0 where nothing was observed), h, h²/R, ...
A00, A01, A10, A11, Q00, Q01, Q11, Y, W, H, HH = COLUMN * np.arange(11)
# ... A X Aᵀ as a linear function of X, det(A)², Aᵀ adj(Q) A, det Q; ...
E0, E1, E2, E3, E4, E5, E6, E7, E8, D2, B00, B01, B11, DQ = COLUMN * np.arange(11, 25)
# in place of the last ones the recursion leaves s before and after the update, and the predicted X.
S, X00, X01, X11, Z = D2, B00, B01, B11, DQ
# Of the chunk before: (I − k hᵀ) A, k y, y, Aᵀh, 1/F, and the filtered means before each sample.
L00, L01, L10, L11, G0, G1, LY, R0, R1, LF, C0, C1 = COLUMN * np.arange(25, 37)

LARGE = 1e30


@helper()
def is_direct(kind):
    """Whether every block is of a kind whose matrices are computed for all samples of a chunk at once."""
    direct = True
    for k in kind:
        direct = direct and k in (OU, MATERN32, TREND, RANDOM_WALK)
    return direct


@helper(fastmath={"contract"})
def fill_transitions(record, units, begin, end, quiet, B):
    """Columns A, Q of samples begin..end−1; ``quiet``: Q of a process with variance 1."""
    kind, _, owner = units
    count = end - begin
    dt = record.dt
    first = record.parameters[owner[0], 0]
    second = 1.0 if quiet else record.parameters[owner[0], 1]
    if kind[0] == MATERN32:
        for i in range(count):
            gap = dt[begin + i]
            root, g = matern32_roots(first * gap)
            a00, a01, a10, a11, q00, q01, q11 = matern32(first, second, gap, root, g)
            B[A00 + i] = a00
            B[A01 + i] = a01
            B[A10 + i] = a10
            B[A11 + i] = a11
            B[Q00 + i] = q00
            B[Q01 + i] = q01
            B[Q11 + i] = q11
    elif kind[0] == TREND:
        for i in range(count):
            gap = dt[begin + i]
            B[A00 + i] = 1.0
            B[A01 + i] = gap
            B[A10 + i] = 0.0
            B[A11 + i] = 1.0
            B[Q00 + i] = gap * (first + second * gap * gap * (1.0 / 3.0))
            B[Q01 + i] = 0.5 * second * gap * gap
            B[Q11 + i] = second * gap
    else:
        fill_scalar(kind[0], first, second, dt, begin, count, A00, Q00, B)
        if len(kind) == 2:
            first = record.parameters[owner[1], 0]
            second = 1.0 if quiet else record.parameters[owner[1], 1]
            fill_scalar(kind[1], first, second, dt, begin, count, A11, Q11, B)
            for i in range(count):
                B[A01 + i] = 0.0
                B[A10 + i] = 0.0
                B[Q01 + i] = 0.0


@helper(fastmath={"contract"})
def fill_scalar(kind, first, second, dt, begin, count, A, Q, B):
    """Columns A and Q of a block of one state."""
    if kind == OU:
        for i in range(count):
            B[A + i], B[Q + i] = ornstein_uhlenbeck(first, second, dt[begin + i])
    else:
        for i in range(count):
            B[A + i] = 1.0
            B[Q + i] = first * dt[begin + i]


@shared()
def scatter_transitions(units, count, steps, B):
    """Columns A, Q from the slots of a chunk; A = I, Q = 0 where the state stays."""
    pair = units[1][0] == 2
    last = 1 if len(units[1]) == 2 else 0
    for i in range(count):
        s = steps.slot[i]
        B[A00 + i] = steps.A[s, 0] if s >= 0 else 1.0
        B[A01 + i] = steps.A[s, 1] if s >= 0 and pair else 0.0
        B[A10 + i] = steps.A[s, 2] if s >= 0 and pair else 0.0
        B[A11 + i] = steps.A[s, 3 if pair else last] if s >= 0 else 1.0
        B[Q00 + i] = steps.Q[s, 0] if s >= 0 else 0.0
        B[Q01 + i] = steps.Q[s, 1] if s >= 0 and pair else 0.0
        B[Q11 + i] = steps.Q[s, 3 if pair else last] if s >= 0 else 0.0


@helper(fastmath={"contract"})
def fill_forms(count, B):
    """What the recursion of two states wants of A and Q."""
    for i in range(count):
        a00 = B[A00 + i]
        a01 = B[A01 + i]
        a10 = B[A10 + i]
        a11 = B[A11 + i]
        q00 = B[Q00 + i]
        q01 = B[Q01 + i]
        q11 = B[Q11 + i]
        B[E0 + i] = a00 * a00
        B[E1 + i] = 2.0 * a00 * a01
        B[E2 + i] = a01 * a01
        B[E3 + i] = a00 * a10
        B[E4 + i] = a00 * a11 + a01 * a10
        B[E5 + i] = a01 * a11
        B[E6 + i] = a10 * a10
        B[E7 + i] = 2.0 * a10 * a11
        B[E8 + i] = a11 * a11
        determinant = a00 * a11 - a01 * a10
        # adj(Q) A
        w00 = q11 * a00 - q01 * a10
        w01 = q11 * a01 - q01 * a11
        w10 = q00 * a10 - q01 * a00
        w11 = q00 * a11 - q01 * a01
        B[D2 + i] = determinant * determinant
        B[B00 + i] = a00 * w00 + a10 * w10
        B[B01 + i] = 2.0 * (a00 * w01 + a10 * w11)
        B[B11 + i] = a01 * w01 + a11 * w11
        B[DQ + i] = max(q00 * q11 - q01 * q01, 0.0)


@helper(fastmath={"contract", "reassoc"})
def fill_observations(record, begin, count, first, B):
    """Columns y, 1/R, h and h²/R; returns how many samples are observed and the sum of their log R."""
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    observed = 0
    logs = 0.0
    if each_R:
        for i in range(count):
            y = record.y[begin + i]
            seen = y == y
            R = record.noise_variance[begin + i] if seen else 1.0
            B[Y + i] = y if seen else 0.0
            B[W + i] = 1.0 / R if seen else 0.0
            B[HH + i] = R
            observed += 1 if seen else 0
        product = 1.0
        for i in range(count):
            product *= B[HH + i]
            if not 1e-140 < product < 1e140:
                logs += np.log(product)
                product = 1.0
        logs += np.log(product)
    else:
        R = record.noise_variance[0]
        inverse = 1.0 / R
        for i in range(count):
            y = record.y[begin + i]
            seen = y == y
            B[Y + i] = y if seen else 0.0
            B[W + i] = inverse if seen else 0.0
            observed += 1 if seen else 0
        logs = observed * np.log(R)
    if each_h:
        for i in range(count):
            B[H + i] = record.observation[begin + i, 0]
    elif first:
        h = record.observation[0, 0]
        for i in range(count):
            B[H + i] = h
    for i in range(count):
        B[HH + i] = B[W + i] * B[H + i] * B[H + i]
    return observed, logs


@helper(fastmath={"contract"})
def fill_gains(n, count, B):
    """What the mean wants of the covariances of a chunk."""
    for i in range(count):
        inverse = B[W + i] / B[Z + i]
        h = B[H + i] * inverse
        r0 = B[H + i] * B[A00 + i]
        k0 = B[X00 + i] * h
        B[L00 + i] = B[A00 + i] - k0 * r0
        B[G0 + i] = k0 * B[Y + i]
        B[LY + i] = B[Y + i]
        B[R0 + i] = r0
        B[LF + i] = inverse * B[S + i]
        if n == 2:
            r1 = B[H + i] * B[A01 + i]
            k1 = B[X01 + i] * h
            B[L01 + i] = B[A01 + i] - k0 * r1
            B[L10 + i] = B[A10 + i] - k1 * r0
            B[L11 + i] = B[A11 + i] - k1 * r1
            B[G1 + i] = k1 * B[Y + i]
            B[R1 + i] = r1


@helper(fastmath={"contract", "reassoc"})
def sum_of_squares(n, count, B):
    """Σ v²/F of a chunk."""
    total = 0.0
    for i in range(count):
        v = B[LY + i] - B[R0 + i] * B[C0 + i]
        if n == 2:
            v -= B[R1 + i] * B[C1 + i]
        total += v * v * B[LF + i]
    return total


@helper(fastmath={"contract"})
def advance_means(n, begin, end, c0, c1, B):
    for i in range(begin, end):
        B[C0 + i] = c0
        b0 = B[L00 + i] * c0 + B[G0 + i]
        if n == 2:
            B[C1 + i] = c1
            b0 += B[L01 + i] * c1
            c1 = B[L11 + i] * c1 + (B[L10 + i] * c0 + B[G1 + i])
        c0 = b0
    return c0, c1


@helper(fastmath={"contract"})
def advance_single(count, before, z00, z, c0, B):
    """X, s over this chunk and the means over that before; returns them and the log of what s was divided by."""
    logs = 0.0
    for i in range(count):
        c = B[A00 + i]
        z00 = B[Q00 + i] * z + (c * c) * z00
        B[S + i] = z
        B[X00 + i] = z00
        z += B[HH + i] * z00
        B[Z + i] = z
        B[C0 + i] = c0
        c0 = B[L00 + i] * c0 + B[G0 + i]
        if z > LARGE:
            logs += np.log(z)
            z00 /= z
            z = 1.0
    for i in range(count, before):
        B[C0 + i] = c0
        c0 = B[L00 + i] * c0 + B[G0 + i]
    return z00, z, c0, logs


@helper(fastmath={"contract"})
def advance_pair(count, before, z00, z01, z11, zd, z, c0, c1, B):
    logs = 0.0
    for i in range(count):
        p00 = (B[E0 + i] * z00 + B[E1 + i] * z01) + (B[E2 + i] * z11 + B[Q00 + i] * z)
        p01 = (B[E3 + i] * z00 + B[E4 + i] * z01) + (B[E5 + i] * z11 + B[Q01 + i] * z)
        p11 = (B[E6 + i] * z00 + B[E7 + i] * z01) + (B[E8 + i] * z11 + B[Q11 + i] * z)
        zd = B[B11 + i] * z11 + (B[D2 + i] * zd + B[DQ + i] * z) + (B[B00 + i] * z00 + B[B01 + i] * z01)
        B[S + i] = z
        B[X00 + i] = p00
        B[X01 + i] = p01
        B[X11 + i] = p11
        z00 = p00
        z01 = p01
        z11 = p11 + B[HH + i] * zd
        z += B[HH + i] * p00
        B[Z + i] = z
        B[C0 + i] = c0
        B[C1 + i] = c1
        b0 = B[L00 + i] * c0 + (B[L01 + i] * c1 + B[G0 + i])
        c1 = B[L11 + i] * c1 + (B[L10 + i] * c0 + B[G1 + i])
        c0 = b0
        if z > LARGE:
            logs += np.log(z)
            inverse = 1.0 / z
            z00 *= inverse
            z01 *= inverse
            z11 *= inverse
            zd *= inverse
            z = 1.0
    c0, c1 = advance_means(2, count, before, c0, c1, B)
    return z00, z01, z11, zd, z, c0, c1, logs


@helper(fastmath={"contract"})
def keep_covariances(n, first, count, B, out):
    """Rows 2–5 of what the way back reads: predicted P and 1/F."""
    for i in range(count):
        inverse = 1.0 / B[S + i]
        out[2, first + i] = B[X00 + i] * inverse
        if n == 2:
            out[3, first + i] = B[X01 + i] * inverse
            out[4, first + i] = B[X11 + i] * inverse
        out[5, first + i] = B[LF + i]


@helper(fastmath={"contract"})
def keep_means(n, first, count, c0, c1, B, out):
    """Rows 0, 1 and 6: filtered means and v/F."""
    B[C0 + count] = c0
    B[C1 + count] = c1
    for i in range(count):
        v = B[LY + i] - B[R0 + i] * B[C0 + i]
        if n == 2:
            v -= B[R1 + i] * B[C1 + i]
            out[1, first + i] = B[C1 + 1 + i]
        out[0, first + i] = B[C0 + 1 + i]
        out[6, first + i] = v * B[LF + i]


@helper()
def is_aligned(observation, first, last):
    """Whether all that is observed is the first state."""
    if len(observation) == 1:
        first = 0
        last = 1
    other = 0.0
    if observation.shape[1] == 2:
        for t in range(first, last):
            other = max(other, abs(observation[t, 1]))
    return other == 0.0


@embedded()
def forward_projective(record, units, first, last, state, keep, kept, base, steps, work):
    """Filter samples from ``first`` on; returns where it stopped, ``last`` or a chunk that is for ``pair.py``.

    ``steps`` may be None where all blocks are of the kinds in ``is_direct``: less is compiled then.
    """
    n = len(state.mean)
    B = work.columns
    c0 = state.mean[0]
    c1 = state.mean[n - 1]
    x00 = state.covariance[0, 0]
    x01 = state.covariance[0, n - 1]
    x11 = state.covariance[n - 1, n - 1]
    d = max(x00 * x11 - x01 * x01, 0.0)
    s = 1.0
    direct = is_direct(units[0])
    before = ZERO
    reached = last
    for i in range(CHUNK):
        B[L00 + i] = 1.0
        B[L01 + i] = 0.0
        B[L10 + i] = 0.0
        B[L11 + i] = 1.0
        B[G0 + i] = 0.0
        B[G1 + i] = 0.0
    if not is_aligned(record.observation, first, last):
        return first
    for begin in range(first, last, CHUNK):
        end = min(last, begin + CHUNK)
        count = end - begin
        if direct:
            fill_transitions(record, units, begin, end, NO, B)
        elif steps is not None:
            discretize_chunk(record, units, begin, end, steps, NO)
            scatter_transitions(units, count, steps, B)
        observed, logs = fill_observations(record, begin, count, begin == first, B)
        if n == 1:
            z00, z, c0, scale = advance_single(count, before, x00, s, c0, B)
            z01 = z11 = zd = 0.0
        else:
            fill_forms(count, B)
            z00, z01, z11, zd, z, c0, c1, scale = advance_pair(count, before, x00, x01, x11, d, s, c0, c1, B)
        if before > 0:
            state.totals[2] += sum_of_squares(n, before, B)
            if keep == TILES:
                keep_means(n, begin - before - base, before, c0, c1, B, kept.tiles)
        before = ZERO
        total = z00 + z01 + z11 + zd + z + logs + scale
        if not np.isfinite(total):
            reached = begin
            break
        fill_gains(n, count, B)
        if keep == TILES:
            keep_covariances(n, begin - base, count, B, kept.tiles)
        before = count
        x00 = z00
        x01 = z01
        x11 = z11
        d = zd
        s = z
        state.counts[1] += observed
        state.totals[0] += logs + scale
    c0, c1 = advance_means(n, ZERO, before, c0, c1, B)
    state.totals[2] += sum_of_squares(n, before, B)
    if keep == TILES:
        keep_means(n, reached - before - base, before, c0, c1, B, kept.tiles)
    write_state(c0, c1, x00 / s, x01 / s, x11 / s, s, state)
    return reached


@helper()
def write_state(a0, a1, p00, p01, p11, s, state):
    n = len(state.mean)
    state.mean[n - 1] = a1
    state.mean[0] = a0
    state.covariance[n - 1, n - 1] = p11
    state.covariance[0, n - 1] = p01
    state.covariance[n - 1, 0] = p01
    state.covariance[0, 0] = p00
    state.totals[0] += np.log(s)
