"""The way back of ``strides.py``, in its order and its coordinates.

With r and N from after the transition that leaves a sample, A = e^{−λΔ} [[1, Δ], [0, 1]], and the filtered a and P,
k = P h/R and q = 1 − k h = R/F,

    λ̄ = −Δ (r·(A a) + 2⟨Q̄, A P Aᵀ⟩) + ⟨Q̄, dQ/dλ⟩,   Q̄ = ½ (r rᵀ − N),
    r ← Aᵀ r,   N ← Aᵀ N A,   u = v/F − k·r,   F̄ = ½ (u² − 1/F − kᵀN k),
    r ← r − h k·r + h v/F,   N ← (I − h kᵀ) N (I − k hᵀ) + h hᵀ/F,

since dA/dλ = −Δ A. Each stretch first takes along how r and N before it depend on those after it. Where the coordinates
begin and end, they depend on λ themselves.
"""

from statespace.kernels.kalman_filter.abreast import (
    COLUMNS,
    GAP,
    LONG,
    MAPS,
    ROOT,
    STARTS,
    H,
    bring_abreast,
    bring_leaving,
    fill_rows,
    lay_out,
    matern32_parts,
)
from statespace.kernels.kalman_filter.blocks import MATERN32, OU
from statespace.kernels.kalman_filter.compiled import embedded, helper
from statespace.kernels.kalman_filter.transposition import WIDTH, load, splat
from statespace.kernels.kalman_filter.vector_blocks import decays
from statespace.kernels.vectors import store, store_rows, total, where

# Columns beside Δ, exp(−λΔ) and h: P₃ of 2λΔ or expm1(−λΔ); k, q, 1/F, v/F; the adjoints of R and h, and room.
NOISE, K0, K1, RATIO, INVERSE, GAIN = COLUMNS[2:8]
R_BAR, H0_BAR, H1_BAR, ROOM = COLUMNS[9:13]


@helper()
def fill_gains(n, record, T, begin, at, B):
    """Columns k, q, 1/F and v/F."""
    each_R = len(record.noise_variance) > 1
    if each_R:
        bring_abreast(record.noise_variance, begin, B, RATIO)
    R = splat(record.noise_variance[0])
    for i in range(0, LONG, WIDTH):
        if each_R:
            R = load(B, RATIO + i)
        inverse = load(T[5], at + i)
        gain = load(T[6], at + i)
        seen = inverse > 0.0
        along = where(seen, load(B, H + i) / R, splat(0.0))
        store(load(T[2], at + i) * along, B, K0 + i)
        if n == 2:
            store(load(T[3], at + i) * along, B, K1 + i)
        store(where(seen, inverse * R, splat(1.0)), B, RATIO + i)
        store(inverse, B, INVERSE + i)
        store(gain, B, GAIN + i)


@helper()
def fill_chunk(n, record, kind, rate, T, begin, base, last, stop, B):
    """All columns that the way back over a chunk reads, but those of its own adjoints."""
    bring_leaving(record, begin, stop, B)
    for i in range(0, LONG + WIDTH, WIDTH):
        if n == 1 and kind == OU:
            root, noise = decays(rate * load(B, GAP + i))
            store_rows((root, noise), B, ROOT + i, NOISE - ROOT)
        elif n == 2 and kind == MATERN32:
            root, noise, _, _ = matern32_parts(rate * load(B, GAP + i))
            store_rows((root, noise), B, ROOT + i, NOISE - ROOT)
        else:
            store(splat(1.0), B, ROOT + i)
    fill_rows(record, begin, LONG, begin + LONG == last, B)
    fill_gains(n, record, T, begin, begin - base, B)


@helper()
def map_single(B):
    slope = splat(1.0)
    shift = spread = splat(0.0)
    for i in range(LONG - WIDTH, -1, -WIDTH):
        h = load(B, H + i)
        loop = load(B, ROOT + WIDTH + i) * load(B, RATIO + i)
        slope = loop * slope
        shift = loop * shift + h * load(B, GAIN + i)
        spread = loop * loop * spread + h * h * load(B, INVERSE + i)
    store_rows((slope, shift, spread), B, MAPS, WIDTH)


@helper()
def join_single(r, n, B):
    """r and N after each stretch; returns those before the first."""
    for l in range(WIDTH - 1, -1, -1):
        B[STARTS + l] = r
        B[STARTS + WIDTH + l] = n
        slope = B[MAPS + l]
        r = slope * r + B[MAPS + WIDTH + l]
        n = slope * slope * n + B[MAPS + 2 * WIDTH + l]
    return r, n


@helper()
def retreat_single(kind, rate, variance, by_observation, T, at, B):
    """The adjoints of each sample; returns those by both parameters."""
    r = load(B, STARTS)
    n = load(B, STARTS + WIDTH)
    by_first = by_second = splat(0.0)
    for i in range(LONG - WIDTH, -1, -WIDTH):
        gap = load(B, GAP + WIDTH + i)
        root = load(B, ROOT + WIDTH + i)
        h = load(B, H + i)
        inverse = load(B, INVERSE + i)
        gain = load(B, GAIN + i)
        k = load(B, K0 + i)
        q = load(B, RATIO + i)
        a = load(T[0], at + i)
        p = load(T[2], at + i)
        Q_bar = 0.5 * (r * r - n)
        if kind == OU:
            fall = load(B, NOISE + WIDTH + i)
            e = root * root
            by_first = by_first + gap * (2.0 * (e * Q_bar) * (variance - p) - root * r * a)
            by_second = by_second - fall * (1.0 + root) * Q_bar
        else:
            by_first = by_first + gap * Q_bar
        r = root * r
        n = root * root * n
        u = gain - k * r
        F_bar = 0.5 * (u * u - inverse - k * k * n)
        store(F_bar, B, R_BAR + i)
        if by_observation:
            F = where(inverse > 0.0, 1.0 / inverse, splat(0.0))
            m_bar = r * u + n * k + h * F_bar
            m = k * F
            x = (p + k * m) * m_bar + m * F_bar + (a - m * gain) * u
            store(x, B, H0_BAR + i)
        r = q * r + h * gain
        n = q * q * n + h * h * inverse
    return total(by_first), total(by_second)


@helper()
def map_pair(B):
    r00 = r11 = splat(1.0)
    r10 = r01 = r0 = r1 = splat(0.0)
    n00 = n01 = n11 = splat(0.0)
    for i in range(LONG - WIDTH, -1, -WIDTH):
        gap = load(B, GAP + WIDTH + i)
        root = load(B, ROOT + WIDTH + i)
        h = load(B, H + i)
        q = load(B, RATIO + i)
        loop = h * load(B, K1 + i)
        slope = root * q
        r10 = root * (r10 + gap * r00)
        r00 = slope * r00 - loop * r10
        r11 = root * (r11 + gap * r01)
        r01 = slope * r01 - loop * r11
        r1 = root * (r1 + gap * r0)
        r0 = slope * r0 + (h * load(B, GAIN + i) - loop * r1)
        n00, n01, n11 = pulled_back(root * root, gap, q, loop, h * h * load(B, INVERSE + i), n00, n01, n11)
    store_rows((r00, r10, r01, r11, r0, r1, n00, n01, n11), B, MAPS, WIDTH)


@helper()
def pulled_back(e, gap, q, loop, known, n00, n01, n11):
    """N from after a transition to before the observation that it leaves."""
    across = n01 + gap * n00
    n11 = e * (n11 + gap * (n01 + across))
    n01 = e * across
    n00 = e * n00
    x01 = q * n01 - loop * n11
    return q * (q * n00 - loop * n01) + (known - loop * x01), x01, n11


@helper()
def join_pair(r0, r1, n00, n01, n11, B):
    for l in range(WIDTH - 1, -1, -1):
        B[STARTS + l] = r0
        B[STARTS + WIDTH + l] = r1
        B[STARTS + 2 * WIDTH + l] = n00
        B[STARTS + 3 * WIDTH + l] = n01
        B[STARTS + 4 * WIDTH + l] = n11
        # the rows of Φᵀ
        a0 = B[MAPS + l]
        b0 = B[MAPS + WIDTH + l]
        a1 = B[MAPS + 2 * WIDTH + l]
        b1 = B[MAPS + 3 * WIDTH + l]
        x = a0 * r0 + (a1 * r1 + B[MAPS + 4 * WIDTH + l])
        r1 = b0 * r0 + (b1 * r1 + B[MAPS + 5 * WIDTH + l])
        r0 = x
        w00 = a0 * n00 + a1 * n01
        w01 = a0 * n01 + a1 * n11
        w10 = b0 * n00 + b1 * n01
        w11 = b0 * n01 + b1 * n11
        n00 = a0 * w00 + (a1 * w01 + B[MAPS + 6 * WIDTH + l])
        n01 = b0 * w00 + (b1 * w01 + B[MAPS + 7 * WIDTH + l])
        n11 = b0 * w10 + (b1 * w11 + B[MAPS + 8 * WIDTH + l])
    return r0, r1, n00, n01, n11


@helper()
def retreat_pair(kind, rate, variance, by_observation, T, at, B):
    r0 = load(B, STARTS)
    r1 = load(B, STARTS + WIDTH)
    n00 = load(B, STARTS + 2 * WIDTH)
    n01 = load(B, STARTS + 3 * WIDTH)
    n11 = load(B, STARTS + 4 * WIDTH)
    by_first = by_second = splat(0.0)
    for i in range(LONG - WIDTH, -1, -WIDTH):
        gap = load(B, GAP + WIDTH + i)
        root = load(B, ROOT + WIDTH + i)
        e = root * root
        h = load(B, H + i)
        inverse = load(B, INVERSE + i)
        gain = load(B, GAIN + i)
        k0 = load(B, K0 + i)
        k1 = load(B, K1 + i)
        q = load(B, RATIO + i)
        # both entries of Q̄₀₁ together
        Q00 = 0.5 * (r0 * r0 - n00)
        Q01 = r0 * r1 - n01
        Q11 = 0.5 * (r1 * r1 - n11)
        if kind == MATERN32:
            p01 = load(T[3], at + i)
            p11 = load(T[4], at + i)
            across = p01 + gap * p11
            ahead = load(T[2], at + i) + gap * (p01 + across)
            a1 = load(T[1], at + i)
            a0 = load(T[0], at + i) + gap * a1
            g3 = load(B, NOISE + WIDTH + i)
            x = rate * gap
            z = 2.0 * x
            g2 = g3 + x * (z * e)
            g1 = g2 + z * e
            moved = root * (r0 * a0 + r1 * a1) + (2.0 * e) * (Q00 * ahead + Q01 * across + Q11 * p11)
            noisy = Q00 * (z * z * e * gap) + Q01 * (g2 + z * z * e) + (4.0 * rate) * Q11 * (g1 + x * e)
            by_first = by_first + (variance * noisy - gap * moved)
            by_second = by_second + (Q00 * g3 + rate * (Q01 * g2 + (2.0 * rate) * (Q11 * g1)))
        else:
            by_first = by_first + gap * Q00
            by_second = by_second + gap * (gap * (gap * (1 / 3) * Q00 + 0.5 * Q01) + Q11)
        f0 = root * r0
        f1 = root * (r1 + gap * r0)
        across = n01 + gap * n00
        m11 = e * (n11 + gap * (n01 + across))
        m01 = e * across
        m00 = e * n00
        w0 = m00 * k0 + m01 * k1
        w1 = m01 * k0 + m11 * k1
        u = gain - (k0 * f0 + k1 * f1)
        F_bar = 0.5 * (u * u - inverse - (k0 * w0 + k1 * w1))
        store(F_bar, B, R_BAR + i)
        if by_observation:
            F = where(inverse > 0.0, 1.0 / inverse, splat(0.0))
            x0 = f0 * u + w0 + h * F_bar
            x1 = f1 * u + w1
            # P m̄ with the predicted P = P + F k kᵀ, and m = F k
            along = F * (k0 * x0 + k1 * x1 + F_bar - gain * u)
            b0 = load(T[2], at + i) * x0 + load(T[3], at + i) * x1 + load(T[0], at + i) * u
            b1 = load(T[3], at + i) * x0 + load(T[4], at + i) * x1 + load(T[1], at + i) * u
            b0 = b0 + k0 * along
            store(b0, B, H0_BAR + i)
            store((b1 + k1 * along) - (rate if kind == MATERN32 else 0.0) * b0, B, H1_BAR + i)
        loop = h * k1
        r0 = q * f0 + (h * gain - loop * f1)
        r1 = f1
        x01 = q * m01 - loop * m11
        n00 = q * (q * m00 - loop * m01) + (h * h * inverse - loop * x01)
        n01 = x01
        n11 = m11
    return total(by_first), total(by_second)


@helper()
def add_adjoints(n, by_observation, begin, out, B):
    """The adjoints of R and h into ``out``."""
    if len(out.noise_variance) > 1:
        lay_out(B, R_BAR, B, ROOM)
        for i in range(LONG):
            out.noise_variance[begin + i] += B[ROOM + i]
    else:
        out.noise_variance[0] += column_total(B, R_BAR)
    for j in range(n if by_observation else 0):
        place = H0_BAR + j * (H1_BAR - H0_BAR)
        if len(out.observation) > 1:
            lay_out(B, place, B, ROOM)
            for i in range(LONG):
                out.observation[begin + i, j] += B[ROOM + i]
        else:
            out.observation[0, j] += column_total(B, place)


@helper()
def column_total(B, place):
    x = load(B, place)
    for i in range(WIDTH, LONG, WIDTH):
        x = x + load(B, place + i)
    return total(x)


@embedded()
def gradient_single_abreast(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    """``gradient_pair`` of ``adjoint.py`` for samples that ``strides.py`` filtered, one state."""
    B = work.columns
    T = kept.tiles
    kind = units[0][0]
    o = units[2][0]
    rate = record.parameters[o, 0]
    variance = record.parameters[o, 1]
    r = b.r0[0]
    n = b.N0[0, 0]
    for begin in range(last - LONG, first - 1, -LONG):
        fill_chunk(1, record, kind, rate, T, begin, base, last, stop, B)
        map_single(B)
        r, n = join_single(r, n, B)
        by_first, by_second = retreat_single(kind, rate, variance, by_observation, T, begin - base, B)
        out.parameters[o, 0] += by_first
        out.parameters[o, 1] += by_second
        add_adjoints(1, by_observation, begin, out, B)
    b.r0[0] = r
    b.N0[0, 0] = n


@helper()
def turning(r0, r1, n01, n11, a0, p00, p01):
    """By λ, where moments a, P become those of (f, f′ + λf), whose adjoints r, ½ (r rᵀ − N) are."""
    return r1 * a0 + (r0 * r1 - n01) * p00 + (r1 * r1 - n11) * p01


@embedded()
def gradient_pair_abreast(record, units, by_observation, first, last, stop, kept, base, b, out, work):
    B = work.columns
    T = kept.tiles
    kind = units[0][0]
    o = units[2][0]
    rate = record.parameters[o, 0]
    variance = record.parameters[o, 1]
    back = rate if kind == MATERN32 else 0.0
    r1 = b.r0[1]
    n11 = b.N0[1, 1]
    r0 = b.r0[0] - back * r1
    n01 = b.N0[0, 1] - back * n11
    n00 = b.N0[0, 0] - back * (b.N0[0, 1] + n01)
    for begin in range(last - LONG, first - 1, -LONG):
        at = begin - base
        fill_chunk(2, record, kind, rate, T, begin, base, last, stop, B)
        if kind == MATERN32 and begin + LONG == last and last < stop:
            # predicted moments after the last sample, in the coordinates of its record
            end = at + LONG - 1
            gap = B[GAP + LONG + WIDTH - 1]
            root = B[ROOT + LONG + WIDTH - 1]
            e = root * root
            z = 2.0 * rate * gap
            g3 = B[NOISE + LONG + WIDTH - 1]
            a0 = root * (T[0, end] + gap * T[1, end])
            across = T[3, end] + gap * T[4, end]
            p00 = e * (T[2, end] + gap * (T[3, end] + across)) + variance * g3
            p01 = e * across + variance * rate * (g3 + 0.5 * z * z * e)
            # r and N as they came, and the P₀₁ of (f, f′)
            out.parameters[o, 0] -= turning(b.r0[0], r1, b.N0[0, 1], n11, a0, p00, p01 - rate * p00)
        map_pair(B)
        r0, r1, n00, n01, n11 = join_pair(r0, r1, n00, n01, n11, B)
        by_first, by_second = retreat_pair(kind, rate, variance, by_observation, T, at, B)
        out.parameters[o, 0] += by_first
        out.parameters[o, 1] += by_second
        add_adjoints(2, by_observation, begin, out, B)
    if kind == MATERN32:
        at = first - base
        F = 1.0 / B[INVERSE] if B[INVERSE] > 0.0 else 0.0
        k0 = B[K0]
        p00 = T[2, at] + k0 * k0 * F
        p01 = T[3, at] + k0 * B[K1] * F
        out.parameters[o, 0] += turning(r0, r1, n01, n11, T[0, at] - k0 * F * B[GAIN], p00, p01)
    b.r0[0] = r0 + back * r1
    b.r0[1] = r1
    b.N0[0, 0] = n00 + back * (2.0 * n01 + back * n11)
    b.N0[0, 1] = n01 + back * n11
    b.N0[1, 0] = b.N0[0, 1]
    b.N0[1, 1] = n11
