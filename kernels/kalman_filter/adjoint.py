"""One or two states and nothing diffuse left: the way back.

With e = A k, L = A − e hᵀ of the transition that leaves a sample, the recursion is two lines,

    r ← Lᵀ r + h v/F,    N ← Lᵀ N L + h hᵀ/F,

and all else is computed for many samples at once, before it (L) and after it (the adjoints of R, h, A and Q, and what
they mean for the parameters). The formulas are those of README.md, in r and N.
"""

from statespace.kernels.kalman_filter.blocks import MATERN32, OU, TREND
from statespace.kernels.kalman_filter.compiled import CHUNK, COLUMN, NO, YES, ZERO, embedded, helper
from statespace.kernels.kalman_filter.projective import (
    A00,
    A01,
    A10,
    A11,
    Q00,
    Q11,
    fill_transitions,
    is_direct,
    scatter_transitions,
)
from statespace.kernels.kalman_filter.transitions import contract_chunk, discretize_chunk

# Columns of a chunk: L, h v/F, h hᵀ/F, e, ...
L00, L01, L10, L11, G0, G1, H00, H01, H11, E0, E1 = [COLUMN * i for i in range(7, 18)]
# ... r and N before each transition, the adjoints of A and of Q (Q01: both entries together), h, u and that of F.
R0, R1, N00, N01, N11, AB00, AB01, AB10, AB11, QB00, QB01, QB11, H0, H1, U, FB = [COLUMN * i for i in range(18, 34)]


@helper(fastmath={"contract"})
def fill_closed_loops(n, record, T, begin, first, count, B):
    """Columns of L and what is added to r and N; ``first``: where sample ``begin`` stands in the rows of ``T``."""
    each_h = 1 if len(record.observation) > 1 else 0
    if each_h:
        for i in range(count):
            B[H0 + i] = record.observation[begin + i, 0]
            B[H1 + i] = record.observation[begin + i, n - 1]
    else:
        h0 = record.observation[0, 0]
        h1 = record.observation[0, n - 1]
        for i in range(count):
            B[H0 + i] = h0
            B[H1 + i] = h1
    if n == 1:
        for i in range(count):
            h0 = B[H0 + i]
            inverse = T[5, first + i]
            e0 = B[A00 + i] * (T[2, first + i] * h0 * inverse)
            B[E0 + i] = e0
            B[L00 + i] = B[A00 + i] - e0 * h0
            B[G0 + i] = h0 * T[6, first + i]
            B[H00 + i] = h0 * h0 * inverse
    else:
        for i in range(count):
            h0 = B[H0 + i]
            h1 = B[H1 + i]
            inverse = T[5, first + i]
            gain = T[6, first + i]
            k0 = (T[2, first + i] * h0 + T[3, first + i] * h1) * inverse
            k1 = (T[3, first + i] * h0 + T[4, first + i] * h1) * inverse
            e0 = B[A00 + i] * k0 + B[A01 + i] * k1
            e1 = B[A10 + i] * k0 + B[A11 + i] * k1
            B[E0 + i] = e0
            B[E1 + i] = e1
            B[L00 + i] = B[A00 + i] - e0 * h0
            B[L01 + i] = B[A01 + i] - e0 * h1
            B[L10 + i] = B[A10 + i] - e1 * h0
            B[L11 + i] = B[A11 + i] - e1 * h1
            B[G0 + i] = h0 * gain
            B[G1 + i] = h1 * gain
            B[H00 + i] = h0 * h0 * inverse
            B[H01 + i] = h0 * h1 * inverse
            B[H11 + i] = h1 * h1 * inverse


@helper(fastmath={"contract"})
def retreat(n, count, r0, r1, n00, n01, n11, B):
    """r, N from after the chunk to before it, and at each sample."""
    if n == 1:
        for i in range(count - 1, -1, -1):
            B[R0 + i] = r0
            B[N00 + i] = n00
            c = B[L00 + i]
            r0 = c * r0 + B[G0 + i]
            n00 = (c * c) * n00 + B[H00 + i]
    else:
        for i in range(count - 1, -1, -1):
            B[R0 + i] = r0
            B[R1 + i] = r1
            B[N00 + i] = n00
            B[N01 + i] = n01
            B[N11 + i] = n11
            c00 = B[L00 + i]
            c01 = B[L01 + i]
            c10 = B[L10 + i]
            c11 = B[L11 + i]
            w00 = n00 * c00 + n01 * c10
            w01 = n00 * c01 + n01 * c11
            w10 = n01 * c00 + n11 * c10
            w11 = n01 * c01 + n11 * c11
            n00 = c00 * w00 + (c10 * w10 + B[H00 + i])
            n01 = c00 * w01 + (c10 * w11 + B[H01 + i])
            n11 = c01 * w01 + (c11 * w11 + B[H11 + i])
            x0 = c00 * r0 + (c10 * r1 + B[G0 + i])
            r1 = c01 * r0 + (c11 * r1 + B[G1 + i])
            r0 = x0
    return r0, r1, n00, n01, n11


@helper(fastmath={"contract"})
def fill_adjoints_of_one(T, first, count, B):
    for i in range(count):
        a = B[A00 + i]
        p = T[2, first + i]
        inverse = T[5, first + i]
        e = B[E0 + i]
        h = B[H0 + i]
        r = B[R0 + i]
        n = B[N00 + i]
        u = T[6, first + i] - e * r
        moved = a * (p - (p * h) * (p * h) * inverse)
        B[U + i] = u
        B[FB + i] = 0.5 * (u * u - inverse - e * e * n)
        B[QB00 + i] = 0.5 * (r * r - n)
        B[AB00 + i] = r * (T[0, first + i] + moved * r) - n * moved


@helper(fastmath={"contract"})
def fill_adjoints(T, first, count, B):
    """Ā = r x̂ᵀ − N A P and Q̄ = ½ (r rᵀ − N) with the filtered P, F̄ = ½ (u² − 1/F − eᵀNe) and u = v/F − e·r."""
    for i in range(count):
        a00 = B[A00 + i]
        a01 = B[A01 + i]
        a10 = B[A10 + i]
        a11 = B[A11 + i]
        inverse = T[5, first + i]
        h0 = B[H0 + i]
        h1 = B[H1 + i]
        p00 = T[2, first + i]
        p01 = T[3, first + i]
        p11 = T[4, first + i]
        m0 = p00 * h0 + p01 * h1
        m1 = p01 * h0 + p11 * h1
        p00 -= m0 * m0 * inverse
        p01 -= m0 * m1 * inverse
        p11 -= m1 * m1 * inverse
        r0 = B[R0 + i]
        r1 = B[R1 + i]
        n00 = B[N00 + i]
        n01 = B[N01 + i]
        n11 = B[N11 + i]
        e0 = B[E0 + i]
        e1 = B[E1 + i]
        u = T[6, first + i] - (e0 * r0 + e1 * r1)
        spread = e0 * (n00 * e0 + 2.0 * n01 * e1) + n11 * e1 * e1
        B[U + i] = u
        B[FB + i] = 0.5 * (u * u - inverse - spread)
        w00 = a00 * p00 + a01 * p01
        w01 = a00 * p01 + a01 * p11
        w10 = a10 * p00 + a11 * p01
        w11 = a10 * p01 + a11 * p11
        x0 = T[0, first + i] + (w00 * r0 + w10 * r1)
        x1 = T[1, first + i] + (w01 * r0 + w11 * r1)
        B[AB00 + i] = r0 * x0 - (n00 * w00 + n01 * w10)
        B[AB01 + i] = r0 * x1 - (n00 * w01 + n01 * w11)
        B[AB10 + i] = r1 * x0 - (n01 * w00 + n11 * w10)
        B[AB11 + i] = r1 * x1 - (n01 * w01 + n11 * w11)
        B[QB00 + i] = 0.5 * (r0 * r0 - n00)
        B[QB01 + i] = r0 * r1 - n01
        B[QB11 + i] = 0.5 * (r1 * r1 - n11)


@helper(fastmath={"contract", "reassoc"})
def add_noise_adjoints(begin, count, out, B):
    if len(out.noise_variance) > 1:
        for i in range(count):
            out.noise_variance[begin + i] += B[FB + i]
    else:
        total = 0.0
        for i in range(count):
            total += B[FB + i]
        out.noise_variance[0] += total


@helper(fastmath={"contract"})
def add_observation_adjoints(n, T, begin, first, count, out, B):
    """∂ℓ/∂h = P m̄ + m F̄ + a u, m̄ = Aᵀ (r u + N e) + h F̄, with the predicted a and P."""
    each_h = 1 if len(out.observation) > 1 else 0
    for i in range(count):
        inverse = T[5, first + i]
        if inverse > 0.0:
            t = (begin + i) * each_h
            h0 = B[H0 + i]
            F_bar = B[FB + i]
            u = B[U + i]
            p00 = T[2, first + i]
            v = T[6, first + i]
            e0 = B[E0 + i]
            if n == 1:
                m0 = p00 * h0
                x0 = B[A00 + i] * (B[R0 + i] * u + B[N00 + i] * e0) + h0 * F_bar
                out.observation[t, 0] += p00 * x0 + m0 * F_bar + (T[0, first + i] - m0 * v) * u
            else:
                h1 = B[H1 + i]
                p01 = T[3, first + i]
                p11 = T[4, first + i]
                e1 = B[E1 + i]
                m0 = p00 * h0 + p01 * h1
                m1 = p01 * h0 + p11 * h1
                w0 = B[R0 + i] * u + (B[N00 + i] * e0 + B[N01 + i] * e1)
                w1 = B[R1 + i] * u + (B[N01 + i] * e0 + B[N11 + i] * e1)
                x0 = B[A00 + i] * w0 + B[A10 + i] * w1 + h0 * F_bar
                x1 = B[A01 + i] * w0 + B[A11 + i] * w1 + h1 * F_bar
                out.observation[t, 0] += p00 * x0 + p01 * x1 + m0 * F_bar + (T[0, first + i] - m0 * v) * u
                out.observation[t, 1] += p01 * x0 + p11 * x1 + m1 * F_bar + (T[1, first + i] - m1 * v) * u


@helper(fastmath={"contract", "reassoc"})
def contract_directly(units, record, begin, count, out, B):
    """⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩ of the transitions that lead to samples begin..begin+count−1.

    The formulas are those of ``discretization.py``; the columns of Q hold that of variance 1.
    """
    kind, _, owner = units
    dt = record.dt
    o = owner[0]
    rate = record.parameters[o, 0]
    variance = record.parameters[o, 1]
    by_first = 0.0
    by_second = 0.0
    if kind[0] == MATERN32:
        for i in range(count):
            gap = dt[begin + i]
            x = rate * gap
            z = 2.0 * x
            root = 0.5 * (B[A00 + i] + B[A11 + i])
            e = root * root
            w = z * z * e
            quiet = B[Q00 + i]
            by_first -= root * (
                gap * x * B[AB00 + i]
                + gap * gap * B[AB01 + i]
                + (2.0 - x) * (x * B[AB10 + i] + gap * B[AB11 + i])
            )
            by_first += 0.5 * variance * w * (3.0 - z) * B[QB01 + i] + variance * (
                gap * w * B[QB00 + i] + rate * x * e * (2.0 - z) * (2.0 - z) * B[QB11 + i]
            )
            by_first += 2.0 * variance * rate * (quiet + 2.0 * z * e) * B[QB11 + i]
            by_second += quiet * B[QB00 + i] + 0.5 * rate * w * B[QB01 + i]
            by_second += rate * rate * (quiet + 2.0 * z * e) * B[QB11 + i]
    elif kind[0] == TREND:
        for i in range(count):
            gap = dt[begin + i]
            by_first += gap * B[QB00 + i]
            by_second += gap * (gap * (gap * (1.0 / 3.0) * B[QB00 + i] + 0.5 * B[QB01 + i]) + B[QB11 + i])
    elif kind[0] == OU:
        for i in range(count):
            root = B[A00 + i]
            by_first += dt[begin + i] * root * (2.0 * variance * root * B[QB00 + i] - B[AB00 + i])
            by_second += B[Q00 + i] * B[QB00 + i]
    else:
        for i in range(count):
            by_first += dt[begin + i] * B[QB00 + i]
    out.parameters[o, 0] += by_first
    out.parameters[o, 1] += by_second
    if len(kind) == 2:
        o = owner[1]
        variance = record.parameters[o, 1]
        by_first = 0.0
        by_second = 0.0
        if kind[1] == OU:
            for i in range(count):
                root = B[A11 + i]
                by_first += dt[begin + i] * root * (2.0 * variance * root * B[QB11 + i] - B[AB11 + i])
                by_second += B[Q11 + i] * B[QB11 + i]
        else:
            for i in range(count):
                by_first += dt[begin + i] * B[QB11 + i]
        out.parameters[o, 0] += by_first
        out.parameters[o, 1] += by_second


@helper()
def gather_adjoints(units, count, steps, B):
    """Ā, Q̄ of every sample into the slot of its gap."""
    pair = units[1][0] == 2
    last = 3 if pair else len(units[1]) - 1
    for i in range(count):
        s = steps.slot[i]
        if s >= 0:
            steps.A_bar[s, 0] += B[AB00 + i]
            steps.Q_bar[s, 0] += B[QB00 + i]
            if last > 0:
                steps.A_bar[s, last] += B[AB11 + i]
                steps.Q_bar[s, last] += B[QB11 + i]
            if pair:
                steps.A_bar[s, 1] += B[AB01 + i]
                steps.A_bar[s, 2] += B[AB10 + i]
                steps.Q_bar[s, 1] += 0.5 * B[QB01 + i]
                steps.Q_bar[s, 2] += 0.5 * B[QB01 + i]


@embedded()
def gradient_pair(record, units, by_observation, first, last, stop, kept, base, b, out, steps, work):
    """``gradient_any`` for one or two states after the diffuse start, from the rows that the filter kept."""
    n = len(b.r0)
    B = work.columns
    T = kept.tiles
    r0 = b.r0[0]
    r1 = b.r0[n - 1]
    n00 = b.N0[0, 0]
    n01 = b.N0[0, n - 1]
    n11 = b.N0[n - 1, n - 1]
    direct = is_direct(units[0])
    for end in range(last, first, -CHUNK):
        begin = max(first, end - CHUNK)
        count = end - begin
        # the transitions that leave these samples; none leaves the last one of all
        leaving = min(end + 1, stop) - (begin + 1)
        slots = ZERO
        if direct:
            fill_transitions(record, units, begin + 1, begin + 1 + leaving, YES, B)
        elif steps is not None:
            slots = discretize_chunk(record, units, begin + 1, begin + 1 + leaving, steps, NO)
            scatter_transitions(units, leaving, steps, B)
        if leaving < count:
            B[A00 + leaving] = 1.0
            B[A01 + leaving] = 0.0
            B[A10 + leaving] = 0.0
            B[A11 + leaving] = 1.0
        fill_closed_loops(n, record, T, begin, begin - base, count, B)
        r0, r1, n00, n01, n11 = retreat(n, count, r0, r1, n00, n01, n11, B)
        if n == 1:
            fill_adjoints_of_one(T, begin - base, count, B)
        else:
            fill_adjoints(T, begin - base, count, B)
        add_noise_adjoints(begin, count, out, B)
        if by_observation:
            add_observation_adjoints(n, T, begin, begin - base, count, out, B)
        if direct:
            contract_directly(units, record, begin + 1, leaving, out, B)
        elif steps is not None:
            gather_adjoints(units, leaving, steps, B)
            contract_chunk(record, units, slots, steps, out, NO)
    b.r0[n - 1] = r1
    b.r0[0] = r0
    b.N0[n - 1, n - 1] = n11
    b.N0[0, n - 1] = n01
    b.N0[n - 1, 0] = n01
    b.N0[0, 0] = n00
